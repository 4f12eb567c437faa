"""What a model says, original and modulated: distances, likelihoods, and the table."""

import itertools
import math

import pytest
import torch
from families import VOCAB, tiny_t5
from transformers import T5ForConditionalGeneration

import probekit as pk
from probekit.generation import divergence, hamming, levenshtein
from probekit.modulators import LerpModulator


class Words:
    """A tokenizer of numbers."""

    def __call__(self, text, return_tensors):
        return {"input_ids": torch.tensor([[int(word) for word in text.split()]])}

    def decode(self, ids, skip_special_tokens):
        return " ".join(str(i) for i in ids.tolist() if i > 1 or not skip_special_tokens)


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return pk.load("t5-small", hf_model=T5ForConditionalGeneration(tiny_t5()).eval())


@pytest.fixture
def lerp() -> pk.Lerp:
    module = LerpModulator(d_model=32, n_layers=2, vocab=VOCAB, d_geometry=4, alpha=0.3)
    torch.nn.init.normal_(module.projection, generator=torch.Generator().manual_seed(0))
    return pk.Lerp(module, site="encoder.resid_pre")


PROMPTS = ("5 9 12 30 1", "44 7 1")


def said(model, lerp, **options):
    options = {"tokenizer": Words(), "max_new_tokens": 6} | options
    return pk.talk(model, PROMPTS, lerp, **options)


def test_without_modulation_nothing_changes(model, lerp) -> None:
    for each in said(model, lerp, alphas=(0,)).said:
        assert each.original == each.modulated and each.original
        assert each.hamming == each.levenshtein == 0
        assert each.kl == 0 and each.nll == each.original_nll


def test_numbers_are_those_of_hugging_face(model, lerp) -> None:
    """Greedy texts by generate, likelihoods by its labels=, the divergence by a sum."""
    inner, (first, *_) = model.original_model, said(model, lerp, alphas=(0.9,)).said
    ids = torch.tensor([[5, 9, 12, 30, 1]])
    with torch.no_grad():
        original = inner.generate(ids, max_new_tokens=6, do_sample=False)[:, 1:]
        with pk.attach(model, pk.Lerp(lerp.module, alpha=0.9, site=lerp.site)):
            tokens = inner.generate(ids, max_new_tokens=6, do_sample=False)[:, 1:]
            edited = inner(ids, labels=tokens).logits[0].double().softmax(-1)
        unedited = inner(ids, labels=tokens)
        own = inner(ids, labels=original).loss
    assert not torch.equal(original, tokens)
    assert first.modulated == Words().decode(tokens[0], True)
    assert first.original == Words().decode(original[0], True)
    assert first.nll == pytest.approx(unedited.loss.item(), rel=1e-5)
    assert first.original_nll == pytest.approx(own.item(), rel=1e-5)
    plain = unedited.logits[0].double().softmax(-1)
    expected = (edited * (edited / plain).log()).sum(-1).mean()
    assert first.kl == pytest.approx(expected.item(), rel=1e-4)
    assert first.hamming == hamming(original[0].tolist(), tokens[0].tolist()) > 0


def test_a_sweep_has_a_row_a_prompt_and_alpha(model, lerp) -> None:
    found = said(model, lerp, alphas=(0.01, 0.5))
    assert [(each.prompt, each.alpha) for each in found.said] == [
        *itertools.product(PROMPTS, (0.01, 0.5))
    ]
    assert [each.alpha for each in said(model, lerp).said] == [None, None]
    one = pk.talk(model, PROMPTS[0], lerp, tokenizer=Words(), max_new_tokens=2)
    assert [each.prompt for each in one.said] == [PROMPTS[0]]
    assert "original" in repr(found) and PROMPTS[1] in repr(found)
    assert found._repr_html_().count("<tr") == 5


def test_html_is_escaped(model, lerp) -> None:
    class Loud(Words):
        def decode(self, ids, skip_special_tokens):
            return "<b>loud</b>"

    assert "<b>" not in said(model, lerp, tokenizer=Loud())._repr_html_()


def test_other_items_modulate_too(model) -> None:
    found = said(model, pk.Edit("encoder.ln_final", torch.zeros_like)).said
    assert found[0].alpha is None and found[0].kl > 0


@pytest.mark.parametrize(
    ("first", "second", "places", "edits"),
    [("", "", 0, 0), ("kitten", "sitting", 3, 3), ("abcdef", "bcdef", 6, 1), ("", "abc", 3, 3)],
)
def test_distances(first: str, second: str, places: int, edits: int) -> None:
    pair = [ord(c) for c in first], [ord(c) for c in second]
    assert hamming(*pair) == hamming(*pair[::-1]) == places
    assert levenshtein(*pair) == levenshtein(*pair[::-1]) == edits


def test_levenshtein_is_the_shortest_way() -> None:
    """Against the recursion that defines it, over all short strings of two letters."""

    def defined(a, b):
        if not a or not b:
            return len(a) + len(b)
        same = defined(a[1:], b[1:]) + (a[0] != b[0])
        return min(same, defined(a[1:], b) + 1, defined(a, b[1:]) + 1)

    words = [w for n in range(5) for w in itertools.product((0, 1), repeat=n)]
    assert all(levenshtein(a, b) == defined(a, b) for a in words for b in words)


def test_divergence_in_closed_form() -> None:
    p, q = torch.tensor([[0.5, 0.5], [0.25, 0.75]]), torch.tensor([[0.25, 0.75], [0.25, 0.75]])
    expected = (0.5 * math.log(2) + 0.5 * math.log(2 / 3)) / 2
    assert divergence(p.log() + 7, q.log()).item() == pytest.approx(expected, rel=1e-6)


def test_what_cannot_talk(model, lerp, built) -> None:
    with pytest.raises(pk.ProbekitError, match=r"^talk needs an encoder-decoder, not BertFor"):
        said(built("bert").model, lerp)
    with pytest.raises(pk.ProbekitError, match=r"^Edit has no alpha to sweep; leave alphas out"):
        said(model, pk.Edit("encoder.ln_final", torch.zeros_like), alphas=(0.1,))
    with pytest.raises(pk.ProbekitError, match=r"^talk needs a prompt"):
        pk.talk(model, [], lerp, tokenizer=Words())
    with pytest.raises(pk.ProbekitError, match=r"^talk sweeps no alpha; give one at least, or"):
        said(model, lerp, alphas=())
    with pytest.raises(pk.ProbekitError, match=r"alpha must be a number from 0 to 1, not 2"):
        said(model, lerp, alphas=(2,))
