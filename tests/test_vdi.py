"""VDI and AttentionEntropy against closed forms and a double loop, and entropies against SciPy."""

import doctest
import math
from typing import Any

import families
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
from probekit import entropy, seam
from probekit.entropy import row_entropy, softmax_entropy, uniform_causal_vdi

ORDERS = ["entropy-first", "pattern-first"]
NORMALISERS = ["length", "visible"]


# The four numbers of the issue


def toy(attention_dir: str = "causal") -> Any:
    return pk.load("grokking", seed=0, n_ctx=6, d_vocab=10, attention_dir=attention_dir)


def uniform(pattern: Tensor) -> Tensor:
    return (pattern > 0).to(pattern.dtype) / (pattern > 0).sum(-1, keepdim=True)


def one_hot_last(pattern: Tensor) -> Tensor:
    pattern = uniform(pattern)
    pattern[:, :, -1] = 0
    pattern[:, :, -1, 2] = 1
    return pattern


@pytest.mark.parametrize(
    ("direction", "fn", "normaliser", "value"),
    [
        ("causal", uniform, "length", 0.611992),
        ("bidirectional", uniform, "length", 1.0),
        ("causal", uniform, "visible", 1.0),
        ("causal", one_hot_last, "length", 0.445325),
    ],
)
@pytest.mark.parametrize("order", ORDERS)
def test_the_published_numbers(direction, fn, normaliser, value, order):
    model, ids = toy(direction), torch.arange(6).repeat(2, 1)
    vdi = pk.VDI(normaliser=normaliser, order=order)
    with pk.attach(model, pk.SetPattern(fn), vdi) as run:
        model(ids)
    result = run["vdi"]
    assert result.dims == ("layer", "head") and result.values.shape == (1, 2)
    assert result.values.tolist() == [[pytest.approx(value, abs=1e-6)] * 2]
    null = {"causal": math.log(720) / (6 * math.log(6)), "bidirectional": 1.0}[direction]
    null = 1.0 if normaliser == "visible" else null
    assert result.null.tolist() == [[pytest.approx(null, abs=1e-6)] * 2]
    assert result.units == "fraction of " + (
        "ln T" if normaliser == "length" else "ln(visible keys)"
    )


def test_the_examples_in_the_docstrings():
    found = doctest.testmod(entropy)
    assert (found.failed, found.attempted) == (0, 3)


def test_closed_forms():
    assert uniform_causal_vdi(6) == pytest.approx(math.log(720) / (6 * math.log(6)), rel=1e-12)
    assert uniform_causal_vdi(6) == pytest.approx(0.611992, abs=5e-7)
    assert entropy.one_hot_last_row_vdi(6) == pytest.approx(math.log(120) / (6 * math.log(6)))
    assert entropy.one_hot_last_row_vdi(6) == pytest.approx(0.445325, abs=5e-7)
    for length in (2, 128, 4096):
        logs = sum(math.log(keys) for keys in range(1, length + 1))
        assert uniform_causal_vdi(length) == pytest.approx(logs / (length * math.log(length)))


# Entropies


@given(st.integers(1, 12), st.integers(0, 10**6), st.floats(0.1, 30))
def test_row_entropy_is_scipy_s(keys, seed, sharpness):
    scores = sharpness * torch.randn(
        4, keys, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    pattern = scores.softmax(-1)
    expected = scipy.stats.entropy(pattern.numpy(), axis=-1)
    torch.testing.assert_close(row_entropy(pattern), torch.from_numpy(np.asarray(expected)))


def test_zero_times_the_logarithm_of_zero_is_zero():
    pattern = torch.tensor([[0.0, 1, 0], [0.5, 0, 0.5]])
    assert row_entropy(pattern).tolist() == [0, pytest.approx(math.log(2))]


@pytest.mark.parametrize("hidden", [torch.finfo(torch.float32).min, -1e9, -torch.inf])
def test_the_form_without_logarithms_is_the_direct_one(monkeypatch, hidden):
    scores = 4 * torch.randn(2, 3, 40, 40)
    scores = scores.masked_fill(~torch.ones(40, 40).tril().bool(), hidden)
    pattern = scores.softmax(-1)
    direct = row_entropy(pattern)
    assert pattern.numel() < entropy._SMALL and torch.equal(
        softmax_entropy(scores, pattern), direct
    )
    monkeypatch.setattr(entropy, "_SMALL", 0)
    fast = softmax_entropy(scores, pattern)
    torch.testing.assert_close(fast, direct, rtol=0, atol=1e-5)
    assert torch.equal(fast, direct) == (hidden == -torch.inf)  # the fallback


@pytest.mark.parametrize("small", [0, entropy._SMALL])
def test_entropies_have_finite_gradients_under_a_mask(monkeypatch, small):
    monkeypatch.setattr(entropy, "_SMALL", small)
    lowest = torch.finfo(torch.float64).min
    hidden = ~torch.ones(5, 5).tril().bool()

    def mean_entropy(free: Tensor) -> Tensor:
        scores = free.masked_fill(hidden, lowest)
        return softmax_entropy(scores, scores.softmax(-1)).sum()

    free = torch.randn(2, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mean_entropy, free)


# A naive double loop in float64


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


# Null, masks and padding in real models


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("normaliser", NORMALISERS)
@pytest.mark.parametrize("family", families.ALL, indirect=True)
def test_the_null_is_what_uniform_attention_reads(family, normaliser, order):
    vdi = pk.VDI(normaliser=normaliser, order=order)
    with pk.attach(family.model, vdi) as clean:
        family.run()
    with pk.attach(family.model, pk.SetPattern(uniform), vdi) as run:
        family.run()
    for result in (run["vdi"], run["vdi"].rows):
        torch.testing.assert_close(result.values, result.null, rtol=0, atol=1e-6, equal_nan=True)
    torch.testing.assert_close(run["vdi"].null, clean["vdi"].null, equal_nan=True)
    assert (clean["vdi"].excess.nan_to_num() != 0).any()


def test_the_null_of_causal_attention_that_transformer_lens_computes(built):
    """GPT-2's attention is TransformerLens's own: its mask comes from the score hook."""
    family = built("gpt2")
    with pk.attach(family.model, pk.VDI()) as run:
        family.run()
    expected = math.lgamma(8) / (7 * math.log(7))
    assert run["vdi"].null.unique().tolist() == [pytest.approx(expected, abs=1e-6)]
    torch.testing.assert_close(
        run["vdi"].rows.null[0, 0],
        torch.arange(1, 8, dtype=torch.float64).log() / math.log(7),
    )


@pytest.mark.parametrize("name", ["native", "text"])
def test_the_null_of_causal_attention_through_the_seam(built, name):
    family = built("native" if name == "native" else "clip")
    site = "0.pattern" if name == "native" else "text.0.pattern"
    with pk.attach(family.model, pk.VDI(site=site)) as run:
        family.run()
    lengths = [7, 7, 7] if name == "native" else [7, 4, 6]
    total = sum(math.lgamma(n + 1) / math.log(n) for n in lengths)
    expected = total / sum(lengths)
    assert run["vdi"].null.unique().tolist() == [pytest.approx(expected, abs=1e-6)]


def run_of(family: families.Family, example: int | None, *items: Any) -> Any:
    """One example without its padding, or the padded batch."""
    args, kwargs = list(family.args), dict(family.kwargs)
    if example is not None:
        length = int(kwargs["attention_mask"][example].sum())
        args[0] = args[0][example : example + 1, :length]
        kwargs["attention_mask"] = kwargs["attention_mask"][example : example + 1, :length]
        if "decoder_input" in kwargs:
            kwargs["decoder_input"] = kwargs["decoder_input"][example : example + 1]
    with torch.no_grad():
        family.model(*args, **kwargs)


@pytest.mark.parametrize("queries", [None, (2,)])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("normaliser", NORMALISERS)
@pytest.mark.parametrize("family", ["bert", "t5"], indirect=True)
def test_a_padded_batch_reads_as_its_examples_one_by_one(family, normaliser, order, queries):
    """Padding does not move the number, and several forwards add up to one."""
    vdi = pk.VDI(normaliser=normaliser, order=order, queries=queries)
    nats = pk.AttentionEntropy(queries=queries)
    with pk.attach(family.model, vdi, nats) as padded:
        run_of(family, None)
    with pk.attach(family.model, vdi, nats) as alone:
        for example in range(3):
            run_of(family, example)
    for name in ("vdi", "attention_entropy"):
        for one, other in (
            (alone[name], padded[name]),
            (alone[name].rows, padded[name].rows),
        ):
            close = {"rtol": 0, "atol": 1e-5, "equal_nan": True}
            torch.testing.assert_close(one.values, other.values, **close)
            torch.testing.assert_close(one.null, other.null, **close)
            assert not one.values.isnan().all()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ["native", "bert"])
def test_forwards_of_different_lengths_add_up(built, name, order):
    """Lengths 3, 7 and 5 in three forwards, against the one padded batch of the three."""
    family = built(name)
    ids = families._ids()
    lengths = (3, 7, 5)
    mask = (torch.arange(7) < torch.tensor(lengths)[:, None]).long()
    with torch.no_grad(), pk.attach(family.model, pk.VDI(order=order)) as one:
        family.model(ids, attention_mask=mask)
    with torch.no_grad(), pk.attach(family.model, pk.VDI(order=order)) as several:
        for example, length in enumerate(lengths):
            family.model(ids[example : example + 1, :length])
    close = {"rtol": 0, "atol": 1e-5}
    torch.testing.assert_close(several["vdi"].values, one["vdi"].values, **close)
    torch.testing.assert_close(several["vdi"].null, one["vdi"].null, **close)
    torch.testing.assert_close(several["vdi"].rows.values, one["vdi"].rows.values, **close)


# Queries, sites, stacks


def test_chosen_queries_read_as_their_rows(built):
    """T stays the length of the example, whichever queries are read."""
    family = built("native")
    several = pk.VDI(queries=(2, -1), name="several")
    with pk.attach(family.model, pk.VDI(), pk.VDI(queries=(2,), name="two"), several) as run:
        family.run()
    rows = run["vdi"].rows
    assert rows.dims == ("layer", "head", "query")
    torch.testing.assert_close(run["two"].values, rows.values[..., 2])
    torch.testing.assert_close(run["two"].null, rows.null[..., 2])
    torch.testing.assert_close(run["several"].values, rows.values[..., [2, 6]].mean(-1))


def test_rows_average_to_the_value(built):
    family = built("native")
    with pk.attach(family.model, pk.VDI()) as run:
        family.run()
    torch.testing.assert_close(run["vdi"].rows.values.mean(-1), run["vdi"].values)
    assert run["vdi"].rows.name == "vdi.rows"


def test_a_site_with_a_head_reads_that_head(built):
    family = built("native")
    with pk.attach(family.model, pk.VDI(), pk.VDI(site="1.pattern:1", name="one")) as run:
        family.run()
    one = run["one"]
    assert dict(one.coords) == {"layer": [1], "head": [1]}
    torch.testing.assert_close(one.values, run["vdi"].values[1:, 1:])


def test_stacks_are_a_dimension_where_there_are_several(built):
    family = built("t5")
    with pk.attach(family.model, pk.VDI()) as run:
        family.run()
    result = run["vdi"]
    assert result.dims == ("stack", "layer", "head")
    assert list(result.coords["stack"]) == ["encoder", "decoder", "decoder.cross"]
    for stack, site in enumerate(("encoder", "decoder.self", "decoder.cross")):
        with pk.attach(family.model, pk.VDI(site=f"{site}.pattern")) as single:
            family.run()
        torch.testing.assert_close(single["vdi"].values, result.values[stack])


def test_towers_of_different_size_are_padded_with_nan(built):
    family = built("clip")
    with pk.attach(family.model, pk.VDI()) as run:
        family.run()
    values = dict(zip(run["vdi"].coords["stack"], run["vdi"].values, strict=True))
    expected = torch.ones(3, 4, dtype=torch.bool)  # the largest of either
    for stack, layers, heads in (("text", 2, 4), ("vision", 3, 2)):
        absent = expected.clone()
        absent[:layers, :heads] = False
        assert torch.equal(values[stack].isnan(), absent)
    assert len(run["vdi"].to_frame()) == 2 * 4 + 3 * 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pk.VDI(site="0.z"), "VDI reads a pattern, not '0.z'"),
        (lambda: pk.AttentionEntropy(site="z"), "AttentionEntropy reads a pattern, not 'z'"),
        (lambda: pk.VDI(queries=()), "queries are whole numbers, such as (5,), not ()"),
    ],
)
def test_parameters_that_mean_nothing(make, message):
    with pytest.raises(pk.ProbekitError) as error:
        make()
    assert str(error.value) == message


def test_queries_outside_of_the_text(built):
    family = built("native")
    message = r"^queries=\(2, 7, -8\): \[7, -8\] lie outside the 7 positions$"
    vdi = pk.VDI(queries=(2, 7, -8))
    with pytest.raises(pk.ProbekitError, match=message), pk.attach(family.model, vdi):
        family.run()


# The form without logarithms inside an attachment


@pytest.fixture
def fast(monkeypatch) -> list[int]:
    """Takes the form without logarithms at every size, and counts its use."""
    from probekit.probes import attention_rows

    used: list[int] = []

    def spy(scores: Tensor, pattern: Tensor) -> Tensor:
        used.append(1)
        return softmax_entropy(scores, pattern)

    monkeypatch.setattr(entropy, "_SMALL", 0)
    monkeypatch.setattr(attention_rows, "softmax_entropy", spy)
    return used


def halved_in_place(pattern: Tensor) -> Tensor:
    return pattern.mul_(0.5)


def key_hidden(scores: Tensor) -> Tensor:
    scores = scores.clone()
    scores[..., 1:, 0] = -torch.inf
    return scores


@pytest.mark.parametrize("name", ["native", "bert", "t5", "clip"])
@pytest.mark.parametrize(
    ("items", "is_fast"),
    [
        ([], True),
        ([pk.Edit("scores", lambda s: 2 * s)], True),
        ([pk.Edit("scores", key_hidden)], True),
        ([pk.SetPattern(lambda p: 0.5 * p)], False),
        ([pk.SetPattern(halved_in_place)], False),
        ([pk.SetPattern(lambda p: p)], True),
    ],
)
def test_scores_are_used_only_while_the_pattern_is_their_softmax(built, fast, name, items, is_fast):
    family = built(name)
    record = pk.Record(family.attentions[0])
    vdi = pk.AttentionEntropy(site=family.attentions[0])
    with pk.attach(family.model, *items, vdi, record) as run:
        family.run()
    assert bool(fast) == is_fast
    pattern = run["record"].values.double()
    rows = -torch.xlogy(pattern, pattern).sum(-1)
    mask = family.kwargs.get("attention_mask", torch.ones(3, 7))
    expected = (rows * mask[:, None]).sum((0, 2)) / mask.sum()
    torch.testing.assert_close(run["attention_entropy"].values[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("edits", [[], [pk.SetPattern(halved_in_place)]])
def test_inference_mode_reads_the_same(built, fast, edits):
    """There tensors may not count their edits, and an edit in place must be told all the same."""
    family = built("native")
    with torch.inference_mode(), pk.attach(family.model, *edits, pk.VDI()) as run:
        family.model(*family.args)
    assert bool(fast) == (not edits)
    with pk.attach(family.model, *edits, pk.VDI()) as expected:
        family.run()
    torch.testing.assert_close(run["vdi"].values, expected["vdi"].values)


# Gradients


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_vdi_is_differentiable_where_it_is_asked_to_be(built, normaliser, order):
    """The slope of VDI in a factor on the scores, against differences."""
    family = built("native")

    def vdi(factor: Tensor) -> Tensor:
        item = pk.VDI(normaliser=normaliser, order=order, differentiable=True)
        with pk.attach(family.model, pk.Edit("0.scores", lambda s: s * factor), item) as run:
            family.model(*family.args)
        return run["vdi"].values[0].sum()

    factor = torch.tensor(1.5, requires_grad=True)
    (slope,) = torch.autograd.grad(vdi(factor), factor)
    step = 0.05
    with torch.no_grad():
        near = vdi(factor + step) - vdi(factor - step)
        far = vdi(factor + 2 * step) - vdi(factor - 2 * step)
    expected = (8 * near - far) / (12 * step)
    assert expected.abs() > 1e-3
    torch.testing.assert_close(slope.double(), expected, rtol=2e-2, atol=1e-4)


def test_the_context_is_withdrawn_after_the_forward(built):
    """Nothing of a forward stays behind at a hook point."""
    for name in ("native", "gpt2"):
        model = built(name).model
        with pk.attach(model, pk.VDI()):
            built(name).run()
        assert all(seam.context_of(point) is None for point in model.hook_dict.values())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.03), (torch.float16, 0.004)])
def test_entropy_of_half_precision_patterns(dtype, tolerance):
    scores = (3 * torch.randn(16, 12, 64, 64) + 20).to(dtype)
    pattern = scores.float().softmax(-1).to(dtype)
    exact = torch.special.entr(scores.double().softmax(-1)).sum(-1)
    # What remains is the rounding of the weights themselves.
    error = (softmax_entropy(scores, pattern).double() - exact).abs().max()
    assert error < tolerance


def test_entropy_of_large_scores_does_not_cancel():
    scores = torch.randn(16, 12, 64, 64) * 5 + 2000
    entropy = softmax_entropy(scores, scores.softmax(-1))
    exact = torch.special.entr(scores.double().softmax(-1)).sum(-1)
    assert (entropy.double() - exact).abs().max() < 1e-5
    assert entropy.min() >= 0
