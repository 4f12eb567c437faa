"""VDI and AttentionEntropy against a double loop, for any scores and masks."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

import probekit as pk

ORDERS = ["entropy-first", "pattern-first"]
NORMALISERS = ["length", "visible"]


def naive(
    patterns: list[np.ndarray],
    visibles: list[np.ndarray],
    normaliser: str,
    order: str,
    queries: tuple[int, ...] | None,
    head: int,
) -> float:
    """VDI of one head over examples, each a pattern [query, key] and its mask, from the definition.

    A query is real where it may attend to itself.
    """
    length = len(patterns[0])
    chosen = range(length) if queries is None else [query % length for query in queries]
    used = [
        {k for q in range(length) if visible[q, q] for k in range(length) if visible[q, k]}
        for visible in visibles
    ]
    rows: list[tuple[float, np.ndarray, int]] = []  # weight, row, number of keys to divide by
    if order == "entropy-first":
        for pattern, visible, keys in zip(patterns, visibles, used, strict=True):
            for q in chosen:
                if visible[q, q]:
                    own = int(visible[q].sum())
                    rows.append((1, pattern[q], len(keys) if normaliser == "length" else own))
    else:
        everywhere = set().union(*used)
        for q in chosen:
            having = [i for i, visible in enumerate(visibles) if visible[q, q]]
            if having:
                mean = sum(patterns[i][q] for i in having) / len(having)
                own = int(np.any([visibles[i][q] for i in having], axis=0).sum())
                rows.append((1, mean, len(everywhere) if normaliser == "length" else own))
    values = [
        sum(-p * math.log(p) for p in row if p > 0) / math.log(keys)
        for _, row, keys in rows
        if keys > 1
    ]
    return sum(values) / len(values) if values else math.nan


class Pattern(HookedRootModule):
    """Nothing but one attention: hook points that are given masked scores and their pattern."""

    class _Attn(HookedRootModule):
        def __init__(self) -> None:
            super().__init__()
            self.hook_attn_scores, self.hook_pattern = HookPoint(), HookPoint()

    class _Block(HookedRootModule):
        def __init__(self) -> None:
            super().__init__()
            self.attn = Pattern._Attn()

    def __init__(self) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList([self._Block()])
        self.setup()

    def forward(self, scores: Tensor) -> Tensor:
        attn = self.blocks[0].attn
        return attn.hook_pattern(attn.hook_attn_scores(scores).softmax(-1))


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Scores and the mask of a batch: causal or not, each example padded on the right."""
    batch, heads, length = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(2, 6))
    seed, sharpness = draw(st.integers(0, 10**6)), draw(st.floats(0, 8))
    causal = draw(st.booleans())
    lengths = [draw(st.integers(1, length)) for _ in range(batch)]
    generator = torch.Generator().manual_seed(seed)
    scores = sharpness * torch.randn(batch, heads, length, length, generator=generator)
    visible = torch.ones(batch, length, length, dtype=torch.bool)
    for example, real in enumerate(lengths):
        visible[example, :, real:] = False
    if causal:
        visible = visible & torch.ones(length, length).tril().bool()
    return scores, visible


@settings(max_examples=60)
@given(
    data=st.data(),
    batch=batches(),
    normaliser=st.sampled_from(NORMALISERS),
    order=st.sampled_from(ORDERS),
)
def test_vdi_is_what_a_double_loop_gives(data, batch, normaliser, order):
    scores, visible = batch
    length = scores.shape[-1]
    positions = st.lists(
        st.integers(-length, length - 1), min_size=1, unique_by=lambda q: q % length
    )
    queries = data.draw(st.none() | positions.map(tuple))
    masked = scores.masked_fill(~visible[:, None], torch.finfo(torch.float32).min)
    vdi = pk.VDI(normaliser=normaliser, order=order, queries=queries)
    with pk.attach(Pattern(), vdi) as run:
        run.model(masked)
    exact = masked.double().softmax(-1).numpy()
    masks = list(visible.numpy())
    uniforms = [m / np.maximum(m.sum(-1, keepdims=True), 1) for m in masks]
    for head in range(scores.shape[1]):
        expected = naive(list(exact[:, head]), masks, normaliser, order, queries, head)
        null = naive(uniforms, masks, normaliser, order, queries, head)
        result = run["vdi"]
        assert float(result.values[0, head]) == pytest.approx(expected, abs=1e-5, nan_ok=True)
        assert float(result.null[0, head]) == pytest.approx(null, abs=1e-5, nan_ok=True)


@settings(max_examples=40)
@given(batch=batches())
def test_attention_entropy_is_the_mean_of_row_entropies(batch):
    scores, visible = batch
    masked = scores.masked_fill(~visible[:, None], torch.finfo(torch.float32).min)
    with pk.attach(Pattern(), pk.AttentionEntropy()) as run:
        run.model(masked)
    rows = scipy.stats.entropy(masked.double().softmax(-1).numpy(), axis=-1)
    real = visible.diagonal(dim1=-2, dim2=-1).numpy()
    result = run["attention_entropy"]
    for head in range(scores.shape[1]):
        expected = rows[:, head][real].mean()
        assert float(result.values[0, head]) == pytest.approx(expected, abs=1e-5)
    null = np.log(visible.sum(-1).numpy())[real].mean()
    assert float(result.null[0, 0]) == pytest.approx(null, abs=1e-5)
    assert result.units == "nats"


@settings(max_examples=40)
@given(batch=batches(), normaliser=st.sampled_from(NORMALISERS))
def test_pattern_first_reads_at_least_entropy_first(batch, normaliser):
    """Jensen's inequality; row by row, and without padding, so that both divide by the same."""
    scores, visible = batch
    causal = visible[:1].any(0) if not visible.all() else torch.ones_like(visible[0])
    masked = scores.masked_fill(~causal.tril(), torch.finfo(torch.float32).min)
    after, before = (
        pk.VDI(normaliser=normaliser),
        pk.VDI(normaliser=normaliser, order="pattern-first", name="before"),
    )
    with pk.attach(Pattern(), after, before) as run:
        run.model(masked)
    difference = run["before"].rows.values - run["vdi"].rows.values
    assert (difference.nan_to_num() >= -1e-6).all()
