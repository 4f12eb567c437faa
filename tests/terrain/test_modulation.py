"""The modulator's pipeline on the real MiniLM, of few words, written out in NumPy and NLTK."""

from typing import Any

import nltk.corpus
import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from families import VOCAB
from transformers import BatchEncoding

import probekit as pk
from probekit.modulators import LerpModulator
from probekit.pretrained import tokenizer_of
from probekit.terrain.modulation import (
    KINDS,
    Modulation,
    curve_readings,
    dealt_readings,
    modulation_of,
    site_of,
)
from probekit.terrain.modulation_readings import (
    BANDS,
    band_readings,
    geometry_readings,
    impact_readings,
)

ANCHORS, WIDTH = 40, 8


@pytest.fixture(scope="module")
def found(minilm, wordnet, few_words) -> Modulation:
    sizes = {"anchors": ANCHORS, "width": WIDTH, "nodes": 40, "pairs": 2_000}
    return modulation_of(minilm, tokenizer_of(minilm), wordnet, **sizes)


@pytest.fixture(scope="module")
def synsets(wordnet, few_words) -> list[Any]:
    return [nltk.corpus.wordnet.synset(wordnet.names[i]) for i in few_words.synsets.tolist()]


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def states(model: Any, text: str, change: Any = None) -> np.ndarray:
    """A text's last hidden states, every block's input changed by a hook of PyTorch's."""
    inner = model.original_model
    ids = tokenizer_of(model)(text, return_tensors="pt")["input_ids"]
    handles = [
        layer.register_forward_pre_hook(lambda _, args: (change(args[0], ids), *args[1:]))
        for layer in inner.encoder.layer
        if change is not None
    ]
    with torch.no_grad():
        found = inner(ids).last_hidden_state[0].double().numpy()
    for handle in handles:
        handle.remove()
    return found


def encoded(model: Any, texts: list[str], change: Any = None) -> np.ndarray:
    """Pooled by hand, each text alone."""
    return np.stack([states(model, text, change).mean(0) for text in texts])


def chosen_anchors(few_words) -> np.ndarray:
    return np.random.default_rng(42).choice(len(few_words), ANCHORS, replace=False)


def test_relations_are_nltks_wu_palmer(found, synsets, few_words) -> None:
    anchors = [synsets[i] for i in chosen_anchors(few_words)]
    expected = np.eye(ANCHORS)
    for i in range(ANCHORS):
        for j in range(i + 1, ANCHORS):
            expected[i, j] = expected[j, i] = anchors[i].wup_similarity(anchors[j]) or 0
    np.testing.assert_allclose(found.relations.numpy(), expected)


def test_every_word_has_a_row_and_the_others_are_the_published_noise(found, few_words) -> None:
    anchors = chosen_anchors(few_words)
    rows = found.module.geometry.detach()[few_words.tokens].double().numpy()
    np.testing.assert_allclose(rows[anchors], found.anchor_rows.numpy(), atol=1e-6)
    words = found.model.original_model.embeddings.word_embeddings.weight.detach()
    static = unit(words[few_words.tokens].double().numpy())
    other = next(i for i in range(len(few_words)) if i not in anchors)
    cosines = static[anchors] @ static[other]
    nearest = np.argsort(cosines)[::-1][:10]
    weights = np.exp(10 * cosines[nearest])
    mean = weights @ found.anchor_rows.numpy()[nearest]
    np.testing.assert_allclose(rows[other], unit(mean), atol=1e-6)
    torch.manual_seed(0)
    noise = torch.randn(len(found.module.geometry), WIDTH)
    rest = torch.ones(len(noise), dtype=torch.bool)
    rest[few_words.tokens] = False
    assert torch.equal(found.module.geometry[rest], noise[rest])


def test_the_projection_is_fitted_to_the_anchors_encodings(found, few_words) -> None:
    anchors = chosen_anchors(few_words)
    texts = ["summarize: " + few_words.glosses[i] for i in anchors]
    states = encoded(found.model, texts)
    components = np.linalg.svd(states - states.mean(0), full_matrices=False)[2][:WIDTH]
    y = unit((states - states.mean(0)) @ components.T)
    x = found.anchor_rows.numpy()
    rotation, _ = scipy.linalg.orthogonal_procrustes(x - x.mean(0), y - y.mean(0))
    scale = 0.1 * np.linalg.norm(states, axis=1).mean()
    expected = (rotation @ components).T * scale
    np.testing.assert_allclose(found.module.projection.detach().numpy(), expected, atol=1e-5)


def test_the_published_numbers_are_those_of_the_equation(found, synsets, few_words) -> None:
    readings = curve_readings(found, "modulated", (0, 0.3), draws=2)
    rng = np.random.default_rng(42)
    chosen = rng.choice(len(few_words), 40, replace=False)
    pairs = zip(rng.choice(40, 2_000), rng.choice(40, 2_000), strict=True)
    i, j = np.array([pair for pair in pairs if pair[0] != pair[1]]).T
    own = [synsets[k] for k in chosen]
    similarity = np.array([own[a].path_similarity(own[b]) for a, b in zip(i, j, strict=True)])
    texts = ["summarize: " + few_words.glosses[k] for k in chosen]
    table, weight = found.module.geometry.detach(), found.module.projection.detach()

    def change(x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return 0.7 * x + 0.3 * table[ids] @ weight.T

    plain, x = unit(encoded(found.model, texts)), unit(encoded(found.model, texts, change))
    cosines = (x[i] * x[j]).sum(1)
    expected = {
        "pearson": np.corrcoef(similarity, cosines)[0, 1],
        "spearman": scipy.stats.spearmanr(similarity, cosines)[0],
        "gradient": cosines[similarity >= 0.25].mean() - cosines[similarity < 0.1].mean(),
        "preservation": (plain * x).sum(1).mean(),
    }
    for name, value in expected.items():
        assert readings[name][1] == pytest.approx(value, abs=2e-5), name
    pos = [synset.pos() for synset in own]
    nouns = np.array(
        [pos[a] == pos[b] == "n" and own[a] != own[b] for a, b in zip(i, j, strict=True)]
    )
    expected_nouns = np.corrcoef(similarity[nouns], cosines[nouns])[0, 1]
    assert readings["nouns"][1] == pytest.approx(expected_nouns, abs=2e-5)
    assert readings["preservation"][0] == pytest.approx(1)
    assert np.array(readings["resampled"]["pearson"]).shape == (2, 2)


def test_each_control_lacks_its_part(found, few_words) -> None:
    table, ids = found.module.geometry.detach(), few_words.tokens
    rest = torch.ones(len(table), dtype=torch.bool)
    rest[ids] = False
    items = {kind: found.item(kind, 0.2) for kind in KINDS}
    assert {item.alpha for item in items.values()} == {0.2}
    for form in ("shrink-only", "additive-only"):
        assert items[form].form == form and items[form].module is found.module
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(ids)))
    permuted = items["permuted"].module.geometry
    assert torch.equal(permuted[ids], table[ids[order]])
    assert torch.equal(permuted[rest], table[rest])
    random = items["random"].module.geometry
    assert torch.equal(random[rest], table[rest])
    assert not torch.isclose(random[ids], table[ids]).all(-1).any()
    redrawn = items["redrawn"].module.geometry
    assert torch.equal(redrawn[ids], table[ids])
    assert not torch.isclose(redrawn[rest], table[rest]).all(-1).any()
    torch.testing.assert_close(redrawn.norm(dim=-1), table.norm(dim=-1))
    empty = items["zero unmatched"].module.geometry
    assert torch.equal(empty[ids], table[ids]) and not empty[rest].any()
    both = items["zero unmatched, permuted"].module.geometry
    assert torch.equal(both[ids], permuted[ids]) and not both[rest].any()
    corrected = items["corrected"].module
    assert not corrected.geometry[rest].any()
    assert torch.equal(corrected.projection, found.alignment.corrected)
    expected = found.stream_norms() / found.alignment.length
    torch.testing.assert_close(corrected.scales.double(), expected.double())
    with pytest.raises(pk.ProbekitError, match="unknown kind 'permute'"):
        found.item("permute", 0.1)


def test_deals_are_other_draws_of_a_control(found, few_words) -> None:
    table, ids = found.module.geometry.detach(), few_words.tokens
    order = torch.from_numpy(np.random.default_rng(3).permutation(len(ids)))
    dealt = found.item("zero unmatched, permuted", 0.2, 3).module.geometry
    assert torch.equal(dealt[ids], table[ids[order]])
    for kind in ("permuted", "random", "redrawn"):
        one, other = (found.item(kind, 0.2, deal).module.geometry for deal in (0, 1))
        assert not torch.equal(one, other)
    readings = dealt_readings(found, "permuted", 0.3, (0, 3))
    assert readings["deals"] == [0, 3]
    alone = curve_readings(found, "permuted", (0.3,), draws=2)
    for name in ("pearson", "spearman", "gradient", "preservation", "nouns"):
        assert readings[name][0] == alone[name][0] != readings[name][1]


def test_stream_norms_are_those_at_pytorchs_hooks(found) -> None:
    norms: list[list[float]] = [[] for _ in range(6)]
    handles = [
        layer.register_forward_pre_hook(
            lambda _, args, own=own: own.extend(args[0][0].norm(dim=-1).tolist())
        )
        for layer, own in zip(found.model.original_model.encoder.layer, norms, strict=True)
    ]
    for text in found.texts[:5]:
        with torch.no_grad():
            found.model.original_model(found.tokenizer(text, return_tensors="pt")["input_ids"])
    for handle in handles:
        handle.remove()
    expected = torch.tensor([np.mean(own) for own in norms])
    torch.testing.assert_close(found.stream_norms(5).double(), expected, rtol=1e-5, atol=0)


def test_geometry_readings(found) -> None:
    readings = geometry_readings(found)
    assert readings["published parameters"] == 2_088_966
    assert readings["parameters"] == 30_522 * WIDTH + 384 * WIDTH + 6
    start = LerpModulator(d_model=384, vocab=30_522, d_geometry=WIDTH).health()
    assert readings["health"]["start"] == start != readings["health"]["with geometry"]
    assert readings["reconstruction"]["r"] > readings["reconstruction"]["null"]


def test_t5_is_modulated_in_its_encoder(built) -> None:
    """Hooks fire where Hugging Face's encoder runs alone, and see its token ids."""
    model = built("t5").model
    assert site_of(model) == ("encoder.resid_pre", 2)
    module = LerpModulator(d_model=32, n_layers=2, vocab=VOCAB, d_geometry=4)

    def tokenize(texts: list[str], **_: Any) -> Any:
        ids = torch.tensor([[len(text) % VOCAB, 3, 1] for text in texts])
        return BatchEncoding({"input_ids": ids, "attention_mask": torch.ones_like(ids)})

    def run() -> torch.Tensor:
        return pk.lexicon.encode_texts(model.original_model, tokenize, ["one", "three"])

    plain = run()
    with pk.attach(model, pk.Lerp(module, 0, "encoder.resid_pre")):
        assert torch.equal(run(), plain)
    with pk.attach(model, pk.Lerp(module, 0.5, "encoder.resid_pre")) as attached:
        assert not torch.equal(run(), plain)
    assert len(attached.fired) == 2


def test_impact_is_of_tokens_at_the_encoders_end(found) -> None:
    prompt = "summarize: The cat sat on the mat."
    table, weight = found.module.geometry.detach(), found.module.projection.detach()

    def change(x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return 0.7 * x + 0.3 * table[ids] @ weight.T

    plain, moved = (states(found.model, prompt, each) for each in (None, change))
    pairs = np.triu_indices(len(plain), 1)
    shift = (unit(moved) @ unit(moved).T - unit(plain) @ unit(plain).T)[pairs]
    expected = {
        "cosine": (unit(plain) * unit(moved)).sum(1).mean(),
        "norm ratio": (np.linalg.norm(moved, axis=1) / np.linalg.norm(plain, axis=1)).mean(),
        "pair shift": shift.mean(),
        "pair shift's deviation": shift.std(),
    }
    readings = impact_readings(found, found.item("modulated", 0.3), [prompt, prompt])
    assert readings == pytest.approx(expected, abs=1e-5)


def test_bands_are_means_of_their_pairs(found) -> None:
    rows = band_readings(found, {"original": found.original, "static": found.static})
    assert len(rows) >= 3
    assert {row["from"] for row in rows} <= {low for low, _ in BANDS}
    x, pairs = unit(found.original.double().numpy()), found.sample
    cosines = (x[pairs.first] * x[pairs.second]).sum(1)
    similarity = found.similarity.numpy()
    for row in rows:
        high = dict(BANDS)[row["from"]]
        inside = (similarity >= row["from"]) & (similarity < high)
        assert row["pairs"] == inside.sum() >= 5
        assert row["original"] == pytest.approx(cosines[inside].mean())
