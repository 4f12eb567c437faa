"""ResidualStats against numpy and loops; its null against simulated isotropic vectors."""

import doctest
import itertools
import math
from typing import Any

import families
import numpy as np
import pytest
import torch
from checks import captured
from families import Looped
from torch import Tensor

import probekit as pk
from probekit.probes import residual_stats
from probekit.probes.residual_stats import isotropic_null, participation_ratio


def naive(x: Tensor) -> list[float]:
    """The four statistics of vectors [batch, pos, d], each from its definition."""
    vectors = x.reshape(-1, x.shape[-1]).double().numpy()
    eigenvalues = np.linalg.eigvalsh(np.cov(vectors.T))
    lengths = [math.sqrt(sum(v**2)) for v in vectors]
    cosines = [
        a @ b / (p * q)
        for (a, p), (b, q) in itertools.permutations(zip(vectors, lengths, strict=True), 2)
        if p and q
    ]
    return [
        sum(lengths) / len(lengths),
        float(np.mean([np.var(feature, ddof=1) for feature in vectors.T])),
        float(eigenvalues.sum() ** 2 / (eigenvalues**2).sum()),
        sum(cosines) / len(cosines),
    ]


def looped(*forwards: Tensor, **options: Any) -> pk.Measurement:
    """The statistics of the given activations, one forward each."""
    model = Looped(1)
    with pk.attach(model, pk.ResidualStats("resid_pre", **options)) as run:
        for x in forwards:
            model(x)
    return run["residual_stats"]


def test_examples_in_docstrings():
    found = doctest.testmod(residual_stats, extraglobs={"torch": torch})
    assert found.failed == 0 and found.attempted == 1


@pytest.mark.parametrize("family", ["native", "bert", "gpt2"], indirect=True)
def test_a_model_reads_what_loops_give(family):
    with pk.attach(family.model, pk.ResidualStats()) as run:
        family.run()
    result = run["residual_stats"]
    assert result.dims == ("layer", "statistic")
    assert list(result.coords["statistic"]) == ["norm", "variance", "participation_ratio", "cosine"]
    names = pk.list_sites(family.model).query("part == 'resid_post'").hook
    for layer, name in enumerate(names):
        expected = naive(captured(family.model, name, family.run))
        assert result.values[layer].tolist() == pytest.approx(expected, rel=1e-5)


def test_stacks_of_different_depth_and_width(built):
    family = built("clip")
    with pk.attach(family.model, pk.ResidualStats()) as run:
        family.run()
    result = run["residual_stats"]
    assert result.dims == ("stack", "layer", "statistic")
    stacks = list(result.coords["stack"])
    assert sorted(stacks) == ["text", "vision"]
    text, image = stacks.index("text"), stacks.index("vision")
    assert result.values[text, 2].isnan().all() and result.null[text, 2].isnan().all()
    hooks = pk.list_sites(family.model).set_index("site").hook
    vision = captured(family.model, hooks["vision.2.resid_post"], family.run)
    assert result.values[image, 2].tolist() == pytest.approx(naive(vision), rel=1e-5)
    square = float(vision.double().square().sum(-1).mean())
    null = isotropic_null(vision.shape[0] * vision.shape[1], 24, square)
    assert result.null[image, 2].tolist() == pytest.approx(null, rel=1e-6)


@pytest.mark.parametrize("site", ["0.z:1", "1.mlp_post", "ln_final", "embed", "0.resid_pre"])
def test_any_site_of_vectors(built, site):
    family = built("native")
    with pk.attach(family.model, pk.ResidualStats(site), pk.Record(site)) as run:
        family.run()
    values = run["residual_stats"].values
    assert values.flatten().tolist() == pytest.approx(naive(run["record"].values), rel=1e-5)


def test_forwards_stream_to_what_one_batch_reads():
    # A mean a million times the spread, where a difference of raw sums would keep 4 digits.
    x = 1e6 + torch.randn(8, 5, 6, dtype=torch.float64)
    whole = looped(x)
    parts = looped(x[:1], x[1:4], x[4:])
    torch.testing.assert_close(parts.values, whole.values, rtol=1e-9, atol=0)
    torch.testing.assert_close(parts.null, whole.null, rtol=1e-9, atol=0)
    assert whole.values[0].tolist() == pytest.approx(naive(x), rel=1e-7)


def test_positions():
    x = torch.randn(3, 5, 4, dtype=torch.float64)
    values = looped(x, positions=(0, -1)).values
    assert values[0].tolist() == pytest.approx(naive(x[:, [0, 4]]))


def test_iterations_each_have_their_own():
    model, x = Looped(2), torch.randn(2, 3, 4, dtype=torch.float64)
    with pk.attach(model, pk.ResidualStats("resid_pre", iterations="all")) as run:
        model(x)
    result = run["residual_stats"]
    assert result.dims == ("iteration", "layer", "statistic")
    assert result.values[1, 0].tolist() == pytest.approx(naive(x + 1))


def test_vectors_of_length_zero_have_no_cosine():
    x = torch.randn(1, 4, 3, dtype=torch.float64)
    x[0, 2] = 0
    assert looped(x).values[0].tolist() == pytest.approx(naive(x))


def test_one_vector_has_a_norm_only():
    result = looped(torch.tensor([[[3.0, 4.0]]]))
    assert result.values[0, 0] == 5
    assert result.values[0, 1:].isnan().all() and result.null[0, 1:].isnan().all()


@pytest.mark.parametrize(("count", "width"), [(12, 5), (6, 9)])
def test_the_null_is_what_isotropic_vectors_read(count, width):
    draws = 4000
    x = 1.5 * torch.randn(draws, count, width, dtype=torch.float64)
    norm, variance, ratio, cosine = isotropic_null(count, width, 1.5**2 * width)
    covariances = torch.stack([torch.cov(one.T) for one in x])
    ratios = torch.stack([participation_ratio(c) for c in covariances])
    units = x / x.norm(dim=-1, keepdim=True)
    cosines = (units.sum(1).square().sum(-1) - count) / (count * (count - 1))
    # Five standard errors of 4000 draws.
    for read, null in (
        (x.norm(dim=-1).mean(-1), norm),
        (covariances.diagonal(dim1=-2, dim2=-1).mean(-1), variance),
        (1 / ratios, 1 / ratio),
        (cosines, cosine),
    ):
        assert float(read.mean()) == pytest.approx(null, abs=5 * float(read.std()) / draws**0.5)


def test_gradients_flow_if_asked_for():
    x = torch.randn(1, 6, 3, dtype=torch.float64, requires_grad=True)
    looped(x, differentiable=True).values[0, 2].backward()
    assert x.grad is not None and x.grad.isfinite().all() and x.grad.abs().sum() > 0


def test_what_is_kept_does_not_grow():
    model, x = Looped(1), torch.randn(2, 30, 4)
    with pk.attach(model, pk.ResidualStats("resid_pre")) as run:
        for _ in range(3):
            model(x)
    (total,) = run._streams["residual_stats"]._totals[None].values()
    kept = [total.moments.mean, total.moments.scatter, total.lengths, total.directions]
    assert sum(tensor.untyped_storage().nbytes() for tensor in kept) == 8 * (4 + 16 + 1 + 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"site": "pattern"}, "ResidualStats reads vectors such as resid_post, not 'pattern'"),
        ({"site": "0.z"}, "ResidualStats reads 'z' of one head, such as '0.z:0'"),
        ({"positions": ()}, "positions are whole numbers, such as (5,), not ()"),
    ],
)
def test_what_is_refused_when_built(options, message):
    with pytest.raises(pk.ProbekitError) as error:
        pk.ResidualStats(**options)
    assert str(error.value) == message


def test_positions_that_are_not_there():
    with pytest.raises(pk.ProbekitError) as error:
        looped(torch.zeros(1, 3, 2), positions=(1, 3))
    assert str(error.value) == "positions=(1, 3): [3] lie outside the 3 positions"


def test_positions_of_a_class_token(built):
    family = built("clip")
    probe = pk.ResidualStats("vision.ln_final", positions=(0,))
    with pytest.raises(pk.ProbekitError) as error, pk.attach(family.model, probe):
        families.run(family.model, **family.kwargs)
    assert str(error.value) == (
        "vision.ln_final has no axis of positions here; leave positions= out"
    )
