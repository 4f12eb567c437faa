"""Buckets against transformers' own; profiles against loops, closed forms and simulated tables."""

import doctest
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers.models.t5.modeling_t5 import T5Attention

from probekit.errors import ProbekitError
from probekit.geometry import (
    bias_profile,
    bucket_offsets,
    buckets,
    curve_kind,
    published_head_kinds,
    published_mixed_null,
    relative_bucket,
    uniform_distance,
    uniform_entropy,
)


def normal(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def test_examples_in_docstrings():
    found = doctest.testmod(buckets, extraglobs={"torch": torch})
    assert found.failed == 0 and found.attempted == 1


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("n", "far"), [(32, 128), (32, 20), (16, 64), (8, 256), (4, 8)])
def test_buckets_are_transformers(n, far, bidirectional):
    offsets = torch.arange(-600, 601).reshape(1, -1)
    expected = T5Attention._relative_position_bucket(offsets, bidirectional, n, far)
    assert torch.equal(relative_bucket(offsets, n, far, bidirectional=bidirectional), expected)


def test_offsets_of_t5s_buckets():
    encoder = bucket_offsets(32, 128, bidirectional=True)
    assert encoder[:8].tolist() == [0, -1, -2, -3, -4, -5, -6, -7]
    assert encoder[17:24].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert encoder[16].isnan() and encoder.isnan().sum() == 1
    assert encoder[15] < -87 and encoder[31] == -encoder[15]
    decoder = bucket_offsets(32, 128, bidirectional=False)
    assert (decoder.diff() < 0).all()
    offsets = torch.arange(-128, 1)
    late = offsets[relative_bucket(offsets, 32, 128, bidirectional=False) >= 29]
    assert int(late.max()) == -87  # findings 003, B5


@pytest.mark.parametrize("bidirectional", [True, False])
def test_a_bias_linear_in_log_distance_has_that_slope(bidirectional):
    offsets = bucket_offsets(32, 128, bidirectional=bidirectional)
    logs = offsets.abs().clamp(min=0.5).log().nan_to_num(nan=7.0)
    before = offsets.nan_to_num() <= 0
    bias = torch.stack(
        [torch.where(before, -2 * logs, logs), torch.where(before, 0.5, -3) * logs], 1
    )
    found = bias_profile(bias, bidirectional=bidirectional)
    slopes = [[-2, 0.5], [1, -3]] if bidirectional else [[-2, 0.5]]
    falling = [[1, 0], [0, 1]] if bidirectional else [[1, 0]]
    assert found.directions == (("before", "after") if bidirectional else ("before",))
    assert set(found.kind) == {"monotone"}
    torch.testing.assert_close(found.slope, torch.tensor(slopes, dtype=torch.float64))
    # Distance 0 is one value for both directions: its step is the first.
    steps = torch.tensor(falling, dtype=torch.float64)
    assert (found.falling - steps).abs().max() <= 1 / 15 + 1e-9


@pytest.mark.parametrize("bidirectional", [True, False])
def test_attention_by_a_loop(bidirectional):
    bias, length = normal(8, 3), 9
    found = bias_profile(bias, bidirectional=bidirectional, max_distance=6, length=length)
    for head in range(3):
        distances, entropies = [], []
        for query in range(length):
            keys = np.arange(length if bidirectional else query + 1)
            offsets = torch.from_numpy(keys - query)
            chosen = T5Attention._relative_position_bucket(offsets, bidirectional, 8, 6)
            weights = bias[chosen, head].softmax(0).numpy()
            distances.append((weights * np.abs(keys - query)).sum())
            entropies.append(-(weights * np.log(weights)).sum())
        assert float(found.attended_distance[head]) == pytest.approx(np.mean(distances))
        assert float(found.entropy[head]) == pytest.approx(np.mean(entropies))


@pytest.mark.parametrize("bidirectional", [True, False])
def test_a_nearly_flat_bias_attends_uniformly(bidirectional):
    found = bias_profile(1e-9 * normal(32, 2), bidirectional=bidirectional, length=50)
    distance = uniform_distance(50, bidirectional=bidirectional)
    assert found.attended_distance.tolist() == pytest.approx([distance] * 2)
    entropy = uniform_entropy(50, bidirectional=bidirectional)
    assert found.entropy.tolist() == pytest.approx([entropy] * 2)


@pytest.mark.parametrize("heads", [8, 12])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("kind", ["monotone", "iid", "random walk"])
def test_simulated_tables_are_called_what_they_are(kind, bidirectional, heads):
    for seed in range(10):
        values = normal(32, heads, seed=seed)
        made = {
            "iid": values,
            "random walk": torch.cat([values[:17].cumsum(0), values[:1] + values[17:].cumsum(0)])
            if bidirectional
            else values.cumsum(0),
            "monotone": -torch.arange(32.0)[:, None] + values.sign() * torch.rand(32, heads) / 2,
        }[kind]
        if kind == "monotone" and bidirectional:
            made[17:] += 17  # after the query, from the same start
        assert set(bias_profile(made, bidirectional=bidirectional).kind) == {kind}


@pytest.mark.parametrize(("steps", "share"), [(32, 0.93), (16, 0.85)])
def test_single_curves_are_mostly_called_rightly(steps, share):
    values = normal(steps, 500)
    iid = [curve_kind(values[:, [i]]) for i in range(500)]
    walks = [curve_kind(values[:, [i]].cumsum(0)) for i in range(500)]
    assert iid.count("iid") > share * 500
    assert walks.count("random walk") > share * 500


def test_the_published_rule():
    bias = torch.eye(32)[:, [0, 2, 3, 17, 28, 29, 31]]
    kinds = ["local"] * 2 + ["mixed"] * 3 + ["global"] * 2
    assert published_head_kinds(bias) == kinds


def test_the_nulls_of_the_published_rule():
    iid, walk = published_mixed_null(32)
    assert iid == 0.8125
    assert walk == pytest.approx(0.62, abs=5e-3)  # findings 003, B5
    number = 4000
    values = normal(32, number)
    for null, drawn in ((iid, values), (walk, values.cumsum(0))):
        share = published_head_kinds(drawn).count("mixed") / number
        assert share == pytest.approx(null, abs=4 * math.sqrt(null * (1 - null) / number))
    monotone = values.sort(0).values
    assert published_head_kinds(monotone).count("mixed") == 0
    assert published_mixed_null(6) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: relative_bucket(torch.arange(3), 2, 128, bidirectional=True),
            "2 buckets to distance 128 do not work: 2 a direction are needed at least, and "
            "max_distance above half of a direction's",
        ),
        (
            lambda: bucket_offsets(32, 8, bidirectional=True),
            "32 buckets to distance 8 do not work: 2 a direction are needed at least, and "
            "max_distance above half of a direction's",
        ),
        (
            lambda: bias_profile(torch.ones(6, 2), bidirectional=True),
            "bias_profile needs finite biases of 4 buckets a direction at least, not (6, 2); bias "
            "is [bucket, head]",
        ),
        (
            lambda: bias_profile(torch.ones(32, 2), bidirectional=True),
            "curve_kind needs curves of 4 values at least that vary, not (16, 2); curves are "
            "[step, curve]",
        ),
        (
            lambda: curve_kind(torch.ones(3, 2)),
            "curve_kind needs curves of 4 values at least that vary, not (3, 2); curves are "
            "[step, curve]",
        ),
        (
            lambda: published_head_kinds(torch.ones(5, 2)),
            "published_head_kinds needs 6 buckets at least, not 5; bias is [bucket, head]",
        ),
        (
            lambda: published_mixed_null(5),
            "published_mixed_null needs 6 buckets at least, not 5",
        ),
        (
            lambda: uniform_entropy(0, bidirectional=True),
            "length must be a whole number from 1, not 0",
        ),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ProbekitError) as error:
        call()
    assert str(error.value) == message
