"""What a schedule can make of alpha, against the critique's numbers and AdamW itself."""

import math

import pytest
import torch

import probekit as pk
from probekit.modulators import alpha_reach, cosine_rates

PUBLISHED = cosine_rates(1e-3, 10, 264)


def test_the_published_schedule_is_torchs_own_and_sums_to_1_452() -> None:
    parameter = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.AdamW([parameter], lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    for epoch in range(10):
        assert PUBLISHED[264 * epoch : 264 * (epoch + 1)] == pytest.approx(
            [optimizer.param_groups[0]["lr"]] * 264
        )
        optimizer.step()
        schedule.step()
    assert math.fsum(PUBLISHED) == pytest.approx(1.452)


@pytest.mark.parametrize(
    ("start", "low", "high"),
    [(0.01, 0.0025, 0.044), (0.05, 0.013, 0.188), (0.1, 0.026, 0.327), (0.5, 0.191, 0.809)],
)
def test_reach_of_the_published_starts(start: float, low: float, high: float) -> None:
    """Numbers of the terrain write-up's critique, section B11."""
    reach = alpha_reach(start, PUBLISHED)
    assert reach.low == pytest.approx(low, abs=6e-4)
    assert reach.high == pytest.approx(high, abs=6e-4)
    assert reach.holds(start) and reach.holds(reach.high) and not reach.holds(high + 0.001)


def test_decay_alone_drifts_to_a_half() -> None:
    assert alpha_reach(0.01, PUBLISHED).drift == pytest.approx(0.0107, abs=5e-5)
    assert alpha_reach(0.5, PUBLISHED).drift == 0.5


@pytest.mark.parametrize("weight_decay", [0.0, 0.01, 2.0])
@pytest.mark.parametrize("sign", [-1, 0, 1])
def test_reach_is_where_adamw_ends(weight_decay: float, sign: int) -> None:
    rates = cosine_rates(0.05, 4, 9)
    logit = torch.nn.Parameter(torch.logit(torch.tensor(0.2, dtype=torch.float64)))
    # Of no size that eps would shorten the step of.
    optimizer = torch.optim.AdamW([logit], weight_decay=weight_decay, eps=0)
    if sign == 0:
        optimizer = torch.optim.AdamW([logit], weight_decay=weight_decay)
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        logit.grad = torch.tensor(-3.0 * sign, dtype=torch.float64)
        optimizer.step()
    reach = alpha_reach(0.2, rates, weight_decay)
    end = {-1: reach.low, 0: reach.drift, 1: reach.high}[sign]
    assert torch.sigmoid(logit).item() == pytest.approx(end, rel=1e-9)


def test_a_gradient_that_grows_goes_further() -> None:
    """Why the reach is no bound for every gradient: Adam's two averages lag by different times."""
    rates, logit = [1e-3] * 200, torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
    optimizer = torch.optim.AdamW([logit], lr=1e-3, weight_decay=0.0)
    for step in range(200):
        logit.grad = torch.tensor(-(1.05**step), dtype=torch.float64)
        optimizer.step()
    assert torch.sigmoid(logit).item() > alpha_reach(0.5, rates, 0.0).high


def test_bad_input_is_refused() -> None:
    with pytest.raises(pk.ProbekitError, match=r"^start=1 has an infinite logit"):
        alpha_reach(1, [0.1])
    with pytest.raises(pk.ProbekitError, match=r"start must be a number from 0 to 1, not 1\.5"):
        alpha_reach(1.5, [0.1])
    with pytest.raises(pk.ProbekitError, match=r"a rate must be a finite number from 0, not -0\.1"):
        alpha_reach(0.5, [0.1, -0.1])
    with pytest.raises(pk.ProbekitError, match=r"^weight_decay=20 at rate 0\.1 leaves no logit"):
        alpha_reach(0.5, [0.1], 20)
    with pytest.raises(pk.ProbekitError, match="epochs must be a whole number from 1, not 0"):
        cosine_rates(0.1, 0, 3)
