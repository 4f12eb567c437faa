"""GaussianEntropy against scipy's multivariate normal and hand-made covariances."""

import doctest
import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from checks import captured
from families import Looped
from torch import Tensor

import probekit as pk
from probekit.probes import gaussian_entropy
from probekit.training import gaussian_entropy as entropy_of_samples

CONSTANT = math.log2(2 * math.pi * math.e) / 2


def looped(*forwards: Tensor, **options: Any) -> pk.Measurement:
    """The entropy of the given activations, one forward each."""
    model = Looped(1)
    with pk.attach(model, pk.GaussianEntropy("resid_pre", **options)) as run:
        for x in forwards:
            model(x)
    return run["gaussian_entropy"]


def by_scipy(x: Tensor) -> float:
    """Bits per dimension, with the constant taken off."""
    covariance = np.cov(x.flatten(0, -2).double().numpy().T)
    nats = scipy.stats.multivariate_normal(cov=covariance).entropy()
    return float(nats) / math.log(2) / x.shape[-1] - CONSTANT


def test_examples_in_docstrings():
    found = doctest.testmod(gaussian_entropy, extraglobs={"torch": torch})
    assert found.failed == 0 and found.attempted == 2


def test_scipy_agrees():
    x = torch.randn(4, 20, 5, dtype=torch.float64) @ torch.randn(5, 5, dtype=torch.float64)
    result = looped(x)
    assert result.dims == ("layer",) and result.units == "bits per dimension"
    assert float(result.values) == pytest.approx(by_scipy(x))
    assert float(result.values) == pytest.approx(entropy_of_samples(x.flatten(0, 1)))


@pytest.mark.parametrize("name", ["native", "gpt2"])
def test_a_models_residual(built, name):
    family = built(name)
    ids = torch.randint(3, 50, (40, 7), generator=torch.Generator().manual_seed(3))
    hooks = list(pk.list_sites(family.model).query("part == 'resid_post'").hook)
    with pk.attach(family.model, pk.GaussianEntropy()) as run:
        for start in range(0, 40, 8):
            family.model(ids[start : start + 8])
    result = run["gaussian_entropy"]
    for layer, hook in enumerate(hooks):
        x = captured(family.model, hook, lambda: family.model(ids)).detach()
        assert float(result.values[layer]) == pytest.approx(by_scipy(x), abs=1e-4)
        variance = x.flatten(0, 1).double().var(0).mean()
        assert float(result.null[layer]) == pytest.approx(0.5 * math.log2(variance), abs=1e-5)


def test_stacks_become_a_dimension(built):
    family = built("t5")
    with pk.attach(family.model, pk.GaussianEntropy()) as run:
        family.run()
    result = run["gaussian_entropy"]
    assert result.dims == ("stack", "layer") and result.values.shape == (2, 2)


def test_forwards_stream_to_what_one_batch_reads():
    x = 1e4 + torch.randn(8, 5, 6, dtype=torch.float64)
    whole, parts = looped(x), looped(x[:1], x[1:4], x[4:])
    torch.testing.assert_close(parts.values, whole.values, rtol=0, atol=1e-9)
    torch.testing.assert_close(parts.null, whole.null, rtol=0, atol=1e-9)


def test_the_null_is_the_maximum_and_isotropic_vectors_reach_it_but_for_the_bias():
    count, width = 400, 4
    x = torch.randn(500, count, 1, width, dtype=torch.float64)
    excess = torch.stack([looped(one).excess[0] for one in x])
    assert (excess <= 0).all()
    # To first order in 1/n: E ln det S = -d (d + 1) / 2n and E ln(tr S / d) = -1 / nd.
    bias = (width + 1 - 2 / width) / (4 * count * math.log(2))
    assert float(excess.mean()) == pytest.approx(-bias, rel=0.1)


def test_doubling_the_activations_adds_a_bit_and_correlation_costs():
    x = torch.randn(1, 50, 3, dtype=torch.float64)
    before, after = looped(x), looped(2 * x)
    torch.testing.assert_close(after.values, before.values + 1)
    torch.testing.assert_close(after.null, before.null + 1)
    mixed = x.clone()
    mixed[..., 1] = mixed[..., 0] + 0.01 * mixed[..., 1]
    assert float(looped(mixed).excess) < float(before.excess) - 1


@pytest.mark.parametrize(("count", "finite"), [(3, False), (4, False), (5, True)])
def test_too_few_vectors_span_no_volume(count, finite):
    value = float(looped(torch.randn(1, count, 4)).values)
    assert math.isfinite(value) == finite
    assert finite or value == -math.inf


def test_one_vector_has_no_entropy():
    assert looped(torch.randn(1, 1, 4)).values.isnan().all()


def test_positions():
    x = torch.randn(30, 4, 3, dtype=torch.float64)
    assert float(looped(x, positions=(1,)).values) == pytest.approx(by_scipy(x[:, [1]]))


def test_gradients_flow_if_asked_for():
    x = torch.randn(1, 6, 3, dtype=torch.float64, requires_grad=True)
    looped(x, differentiable=True).values[0].backward()
    # Along x itself: one bit a doubling.
    assert float((x.grad * x).sum().detach()) == pytest.approx(1 / math.log(2))


def test_what_is_refused():
    with pytest.raises(pk.ProbekitError) as error:
        pk.GaussianEntropy("scores")
    assert str(error.value) == "GaussianEntropy reads vectors such as resid_post, not 'scores'"
