"""Words, digits, special tokens and layers, on made tables and on real models."""

import math

import pytest
import torch

from probekit.pretrained import pretrained, tokenizer_of
from probekit.terrain.tokens import (
    categories_of,
    digits_of,
    embedding_of,
    hidden_states,
    layers_of,
    single_token,
    specials_of,
    stacks_of,
    whole_words,
)

WORDS = ["red", "blue", "green", "cat", "dog", "fish", "seven", "eight", "nine"]


class Letters:
    """A tokenizer of few words, "▁" at their start, and of letters for everything else."""

    def __init__(self) -> None:
        starts = ["<pad>", "</s>", "<extra_id_0>", "<extra_id_10>"]
        digits = [f"▁{i}" for i in range(10)]
        letters = [chr(97 + i) for i in range(26)]
        filler = [f"▁{a}{b}" for a in "xyz" for b in "abcdefghijkl"]
        self.vocabulary = starts + digits + [f"▁{word}" for word in WORDS] + filler + letters
        self.all_special_tokens = starts
        self.all_special_ids = [0, 1, 2, 3]

    def __len__(self) -> int:
        return len(self.vocabulary)

    def __call__(self, text: str, add_special_tokens: bool = True, return_tensors: str = ""):
        ids: list[int] = []
        for word in text.split():
            whole = f"▁{word}"
            pieces = [whole] if whole in self.vocabulary else [c for c in word if c.isalpha()]
            ids += [self.vocabulary.index(piece) for piece in pieces]
        ids += [1] if add_special_tokens else []
        return {"input_ids": torch.tensor([ids]) if return_tensors else ids}

    def convert_ids_to_tokens(self, ids):
        return [self.vocabulary[i] for i in ids]

    def convert_tokens_to_ids(self, token):
        return self.vocabulary.index(token)


@pytest.fixture
def tokenizer() -> Letters:
    return Letters()


def test_a_word_of_several_pieces_has_no_id(tokenizer) -> None:
    assert single_token(tokenizer, "red") == tokenizer.vocabulary.index("▁red")
    assert single_token(tokenizer, "crimson") is None


def test_whole_words_start_a_word_and_are_letters(tokenizer) -> None:
    found = whole_words(tokenizer, 10_000)
    names = [tokenizer.vocabulary[i] for i in found]
    assert [f"▁{word}" for word in WORDS] == names[: len(WORDS)]
    assert "▁7" not in names and "a" not in names and "▁xa" in names


def test_digits_on_an_arc_are_in_order_and_are_found_by_their_ids(tokenizer) -> None:
    table = torch.randn(len(tokenizer), 12)
    angles = torch.arange(10) / 10
    table[4:14] = 0
    table[4:14, 0], table[4:14, 1] = angles.cos(), angles.sin()
    found = digits_of(table, tokenizer)
    steps = [(j - i, math.cos((j - i) / 10)) for i in range(10) for j in range(i + 1, 10)]
    expected = torch.corrcoef(torch.tensor(steps).T)[0, 1]
    assert found["pearson"] == pytest.approx(float(expected), abs=1e-6)
    assert found["one token each"]
    assert found["null"]["walk"] < -0.6


def test_a_category_that_lies_together_stands_out_and_a_random_one_does_not(tokenizer) -> None:
    table = torch.randn(len(tokenizer), 32)
    for word in ("red", "blue", "green"):
        table[single_token(tokenizer, word), 0] += 20
    lists = {"colors": "red blue green", "others": "cat dog fish", "short": "red crimson"}
    found = categories_of(table, tokenizer, lists, mean_cosine=0.0, sets=200)
    assert list(found) == ["colors", "others"]
    assert found["colors"]["lift"] > 0.8 and found["colors"]["z"] > 3
    assert abs(found["others"]["lift"]) < 0.4 and found["others"]["z"] < 3
    assert abs(found["colors"]["matched lift"]) < 0.2


def test_special_tokens_with_one_direction_stand_out(tokenizer) -> None:
    table = torch.randn(len(tokenizer), 32)
    assert abs(specials_of(table, tokenizer)["z"]) < 3
    table[:3] = table[0] + 0.01 * torch.randn(3, 32)
    found = specials_of(table, tokenizer)
    assert found["tokens"] == ["<pad>", "</s>", "<extra_id_0>"]  # of the sentinels the first five
    assert found["cosine"] == pytest.approx(1, abs=1e-2) and found["z"] > 5
    table[:2] = 0  # padding rows have no direction
    assert specials_of(table, tokenizer)["z"] is None


@pytest.mark.parametrize("family", ["bert encoder", "t5"], indirect=True)
def test_hidden_states_are_what_hugging_face_returns(family) -> None:
    ids = torch.tensor([[5, 9, 7, 11]])
    states, normed = hidden_states(family.model, ids)
    inner = family.model.original_model
    table = embedding_of(family.model)
    if hasattr(inner, "encoder") and hasattr(inner, "decoder"):
        with torch.no_grad():
            expected = inner.encoder(input_ids=ids).last_hidden_state[0]
        assert torch.allclose(states[0, 0], table[ids[0, 0]], atol=1e-6)
        assert not torch.allclose(states[-1], expected)  # the raw stream is before the final norm
    else:
        with torch.no_grad():
            expected = inner(input_ids=ids).last_hidden_state[0]
        assert torch.allclose(states[-1], expected, atol=1e-5)
    assert torch.allclose(normed, expected, atol=1e-5)


@pytest.mark.parametrize("family", ["t5"], indirect=True)
def test_both_stacks_start_from_the_same_embedding(family, tokenizer, monkeypatch) -> None:
    family.model.eval()
    inner = family.model.original_model
    for norm in (inner.encoder.final_layer_norm, inner.decoder.final_layer_norm):
        # A norm of gain 1 would leave cosines as they are.
        monkeypatch.setattr(norm.weight, "data", torch.linspace(-1, 3, len(norm.weight)))
    found = stacks_of(family.model, tokenizer, "red blue cat dog", "seven eight nine")
    ids = tokenizer("red blue cat dog", return_tensors="pt")["input_ids"]
    given = tokenizer("seven eight nine", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        answer = inner(input_ids=ids, decoder_input_ids=given, output_hidden_states=True)
        ends = inner.encoder(input_ids=ids).last_hidden_state, answer.decoder_hidden_states[-1]
    assert found["identical ids"][0] == pytest.approx(1, abs=1e-5)
    assert found["published"][0] < 0.9 and found["random pairs"][0] < 0.9
    assert len(found["published"]) == 3
    cosines = torch.nn.functional.cosine_similarity(ends[0][0, :4], ends[1][0, :4], dim=-1)
    assert found["published"][-1] == pytest.approx(float(cosines.mean()), abs=1e-4)


@pytest.mark.parametrize("family", ["bert encoder"], indirect=True)
def test_an_encoder_alone_has_no_stacks_to_compare(family, tokenizer) -> None:
    assert stacks_of(family.model, tokenizer, "red", "blue") == {}


@pytest.mark.parametrize("family", ["bert encoder"], indirect=True)
def test_raw_layers_leave_special_tokens_out(family, tokenizer) -> None:
    found = layers_of(family.model, tokenizer, ["red cat dog"])
    states, _ = hidden_states(
        family.model, tokenizer("red cat dog", return_tensors="pt")["input_ids"]
    )
    for name, kept in (("published", 4), ("raw", 3)):
        norms = states[:, :kept].norm(dim=-1).mean(-1)
        assert found[name]["norm_mean"] == pytest.approx(norms.tolist(), rel=1e-5)
    cosines = found["raw"]["cosine_mean"]
    assert found["rise"] == pytest.approx(cosines[-1] - cosines[0])


def test_a_pretrained_model_is_found_in_a_folder_or_an_installed_package(minilm_folder) -> None:
    from probekit.errors import CardError

    model = pretrained(f"minilm={minilm_folder}")
    assert tokenizer_of(model)("seven")["input_ids"] == [101, 2698, 102]
    with pytest.raises(CardError, match="no folder with a config"):
        pretrained("minilm=nowhere")
