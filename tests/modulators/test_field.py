"""SimplexField against its equations written out in numpy, and against published numbers."""

import inspect
import math
from typing import Any

import numpy as np
import pytest
import torch
from checks import refused

from probekit.errors import ProbekitError
from probekit.modulators import SimplexField


def small(**changed: Any) -> Any:
    sizes: dict[str, Any] = {"d_model": 12, "n_layers": 2}
    return SimplexField(**(sizes | changed))


def stream(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def by_hand(field: SimplexField, x: np.ndarray, layer: int) -> np.ndarray:
    """The published equations, one position and one expert at a time."""
    state = {name: value.double().numpy() for name, value in field.state_dict().items()}
    out, active = x.copy(), state["active"].astype(int)
    for at in np.ndindex(x.shape[:-1]):
        factor = np.ones(len(active))
        for number, k in enumerate(field.config["experts"]):
            own = {name: state[f"experts.{number}.{name}"] for name in PARTS}
            shift = own["deform.weight"] @ x[at][active] + own["deform.bias"]
            points = own["template"] + field.config["deform_scale"] * shift.reshape(k + 1, -1)
            pairs = [(i, j) for i in range(k + 1) for j in range(i + 1, k + 1)]
            edges = [np.square(points[i] - points[j]).sum() for i, j in pairs]
            sides = points[1:] - points[0]
            v2 = np.linalg.det(sides @ sides.T) / math.factorial(k) ** 2
            f = np.array([*edges, v2])
            f = (f - f.mean()) / np.sqrt(f.var() + 1e-5) * own["norm.weight"] + own["norm.bias"]
            gate = 1 / (1 + np.exp(-(own["gate.weight"] @ f + own["gate.bias"])))
            alpha = 1 / (1 + np.exp(-state["alpha_logits"][layer, number]))
            alpha = np.clip(alpha, field.config["alpha_min"], field.config["alpha_max"])
            factor *= (1 - alpha) + alpha * gate
        out[at][active] *= factor
    return out


PARTS = (
    "template",
    "deform.weight",
    "deform.bias",
    "norm.weight",
    "norm.bias",
    "gate.weight",
    "gate.bias",
)


@pytest.mark.parametrize("null_at", ["tail", "random"])
@pytest.mark.parametrize("template", ["regular", "published"])
def test_forward_is_the_published_equations(template, null_at):
    field = small(template=template, null_at=null_at, deform_scale=0.3, alpha=0.2).double()
    with torch.no_grad():  # nothing at its initial value, one alpha at each bound
        for parameter in field.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, dtype=torch.float64)
        field.alpha_logits[1, 0], field.alpha_logits[1, 2] = -20, 5
    x = stream(2, 3, 12).double()
    for layer in range(2):
        expected = by_hand(field, x.numpy(), layer)
        assert np.abs(expected - x.numpy()).max() > 0.01
        np.testing.assert_allclose(field(x, layer).detach().numpy(), expected, rtol=1e-9)


def test_parameters_of_the_published_configuration():
    field = SimplexField(template="published")
    sizes = [sum(p.numel() for p in expert.parameters()) for expert in field.experts]
    assert sizes == [6167 + 1152, 9253 + 1920, 15434 + 4608]
    assert field.health()["parameters"] == 38_552
    unused = [p.numel() for name, p in field.named_parameters() if "validity" in name]
    assert sum(unused) == 20


@pytest.mark.parametrize("template", ["regular", "published"])
def test_template_volumes(template):
    expected = {"regular": (1, 0.1875, 5.42535e-4), "published": (1, 0.188275, 5.46688e-4)}
    health = SimplexField(template=template).health()
    for k, v2 in zip((1, 2, 4), expected[template], strict=True):
        assert health[f"k{k}.template_v2"] == pytest.approx(v2, rel=3e-6)


def test_readings_at_the_start_are_the_published_ones():
    field = SimplexField(template="published")
    x = stream(2, 16, 512)
    health = field.health(x)
    assert [health[f"k{k}.share_v2_positive"] for k in (1, 2, 4)] == [1, 1, 1]
    # B12: 0, .016, .028; over 20 seeds ours range over .0136-.0171 and .0239-.0303.
    assert health["k1.gate_std"] == 0
    assert field.health(x[0, 0])["k4.gate_std"] == 0  # one position
    assert health["k2.gate_std"] == pytest.approx(0.016, abs=0.004)
    assert health["k4.gate_std"] == pytest.approx(0.028, abs=0.004)
    ratio = (field(x, 0) / x)[..., :384].detach()
    assert float(ratio.mean()) == pytest.approx((1 - 0.005) ** 3, abs=5e-4)
    assert torch.equal(field(x, 0)[..., 384:], x[..., 384:])


def test_gates_attenuate_down_to_the_product_of_ceilings():
    field = small(alpha=0.35)
    with torch.no_grad():
        for expert in field.experts:
            expert.gate.bias.fill_(-50)  # closed
    x = stream(1, 5, 12)
    ratio = (field(x, 0) / x)[..., :9].detach()
    torch.testing.assert_close(ratio, torch.full_like(ratio, 0.65**3))  # .2746, B12


def test_only_the_shape_experts_learn_from_the_input():
    field = small(alpha=0.2).double()
    x = stream(4, 5, 12).double().requires_grad_()
    field(x, 0).square().sum().backward()
    gradient = {
        name: 0.0 if p.grad is None else float(p.grad.norm())
        for name, p in field.named_parameters()
    }
    constant, triangle, pentachoron = "experts.0.", "experts.1.", "experts.2."
    for expert in (triangle, pentachoron):
        for part in ("deform.weight", "deform.bias", "gate.weight", "gate.bias"):
            assert gradient[expert + part] > 1e-4
    # k = 1: rounding only, of a scale of 1 in float64.
    for part in ("deform.weight", "deform.bias", "norm.weight"):
        assert gradient[constant + part] < 1e-12
    assert gradient[constant + "gate.weight"] == 0
    assert gradient[constant + "gate.bias"] > 1e-4  # a constant gate, but one that learns
    assert all(p.grad is None for name, p in field.named_parameters() if "validity" in name)
    assert field.alpha_logits.grad[0].count_nonzero() == 3
    assert field.alpha_logits.grad[1].count_nonzero() == 0  # the other layer


@pytest.mark.parametrize("gate", ["simplex", "constant"])
def test_gradients_are_those_of_finite_differences(gate) -> None:
    tiny = {"d_model": 4, "experts": [2], "d_vertex": 2, "alpha": 0.2, "deform_scale": 0.5}
    field = small(**tiny, gate=gate).double()
    x = stream(4).double().requires_grad_()
    learned = {n: p for n, p in field.named_parameters() if "validity" not in n}
    if gate == "constant":
        learned = {n: p for n, p in learned.items() if "gate.bias" in n or n == "alpha_logits"}

    def output(x, *values):
        named = dict(zip(learned, values, strict=True))
        return torch.func.functional_call(field, named, (x, 1))

    assert torch.autograd.gradcheck(output, (x, *learned.values()), eps=1e-6, atol=1e-7)


def test_a_constant_gate_is_blind_to_the_input():
    """Per layer one factor a coordinate, that of the gates' offsets; it is learned."""
    field = small(gate="constant", alpha=0.2).double()
    x = stream(2, 3, 12).double()
    own = field.state_dict()
    expected = torch.ones(len(field.active), dtype=torch.float64)
    for number in range(len(field.experts)):
        gate = torch.sigmoid(own[f"experts.{number}.gate.bias"])
        expected *= 0.8 + 0.2 * gate
    ratio = (field(x, 0) / x)[..., field.active]
    torch.testing.assert_close(ratio, expected.expand_as(ratio), atol=0, rtol=1e-6)
    health = field.health(x)
    assert all(health[f"k{k}.gate_std"] < 1e-12 for k in field.config["experts"])
    field(x, 0).square().sum().backward()
    gradients = {name: p.grad for name, p in field.named_parameters()}
    assert gradients["experts.0.gate.bias"].abs().min() > 0
    for name, gradient in gradients.items():
        if "deform" in name or "norm" in name or name.endswith("gate.weight"):
            assert gradient is None or not gradient.any()


def test_a_logit_outside_the_bounds_has_no_gradient():
    field = small()
    with torch.no_grad():
        field.alpha_logits[0] = torch.tensor([-10.0, 0.0, -3.0])
    torch.testing.assert_close(field.alpha[0, :2], torch.tensor([0.001, 0.35]))
    field(stream(2, 2, 12), 0).sum().backward()
    assert field.alpha_logits.grad[0].nonzero()[:, 0].tolist() == [2]


@pytest.mark.parametrize("null_at", ["tail", "random"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_identity_bit_for_bit(dtype, null_at):
    field = small(alpha=0, alpha_min=0, null_at=null_at)
    x = stream(2, 3, 12).to(dtype)
    x[0, 0, :4] = torch.tensor([-0.0, math.inf, math.nan, 6e4])
    out = field(x, 1).detach()
    assert out.dtype == dtype and out.numpy().tobytes() == x.numpy().tobytes()


@pytest.mark.parametrize("fraction", [0, 0.3, 0.9])
def test_a_random_null_space(fraction):
    first, again, other = (
        small(null_at="random", null_fraction=fraction, seed=seed) for seed in (1, 1, 2)
    )
    active = first.active.tolist()
    assert active == sorted(set(active)) and len(active) == 12 - int(fraction * 12)
    assert again.active.tolist() == active
    assert fraction == 0 or other.active.tolist() != active
    x = stream(2, 3, 12)
    changed = (first(x, 0) != x).any(0).any(0).nonzero()[:, 0].tolist()
    assert changed == active


def test_any_batch_shape_and_half_precision():
    field = small()
    x = stream(2, 3, 12)
    torch.testing.assert_close(field(x[0], 0), field(x, 0)[0])
    torch.testing.assert_close(field(x[0, 0], 0), field(x, 0)[0, 0])
    half = field(x.bfloat16(), 0)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), field(x, 0), rtol=0.01, atol=0)


def test_a_seed_fixes_the_values_and_leaves_torchs_own_alone():
    before = torch.get_rng_state()
    first, again, other = small(seed=5), small(seed=5), small(seed=6)
    assert torch.equal(torch.get_rng_state(), before)
    x = stream(1, 2, 12)
    assert torch.equal(first(x, 0), again(x, 0))
    assert not torch.equal(first(x, 0), other(x, 0))


def test_initial_values_are_spread_as_those_of_linear():
    weight = small(d_model=512).experts[2].deform.weight.detach()
    assert float(weight.abs().max()) <= 384**-0.5
    assert float(weight.std()) == pytest.approx(384**-0.5 / math.sqrt(3), rel=0.02)


def test_health():
    field = small(n_layers=2, experts=[2, 3])
    with torch.no_grad():
        field.alpha_logits.copy_(torch.logit(torch.tensor([[0.1, 0.2], [0.3, 0.3]])))
        field.experts[1].deform.bias.fill_(2)
        field.experts[1].deform.weight.fill_(1)
    health = field.health()
    values = np.array([0.1, 0.2, 0.3, 0.3])
    assert np.array(health["alpha"]) == pytest.approx(values.reshape(2, 2))
    for name, expected in (
        ("mean", values.mean()),
        ("std", values.std()),
        ("min", 0.1),
        ("max", 0.3),
    ):
        assert health[f"alpha_{name}"] == pytest.approx(expected)
    # Distinct keys, where the published report has the bias overwrite the weight.
    assert health["k3.deform_bias_norm"] == pytest.approx(2 * math.sqrt(32))
    assert health["k3.deform_weight_norm"] == pytest.approx(math.sqrt(32 * 9))
    assert "k3.gate_std" not in health
    assert field.health(stream(7, 12)).keys() - health.keys() == {
        f"k{k}.{name}" for k in (2, 3) for name in ("gate_std", "share_v2_positive")
    }


def test_config_holds_every_argument():
    assert list(small().config) == list(inspect.signature(SimplexField).parameters)


@pytest.mark.parametrize(
    ("low", "alpha", "high"),
    [(-0.1, 0.1, 0.3), (0.2, 0.1, 0.3), (0.0, 0.4, 0.3), (0.0, 0.1, 1.1), (0.0, math.nan, 0.3)],
)
def test_bounds_of_alpha(low, alpha, high):
    message = (
        "needs 0 <= alpha_min <= alpha <= alpha_max <= 1,"
        f" given alpha_min={low}, alpha={alpha}, alpha_max={high}"
    )
    refused(message, small, alpha_min=low, alpha=alpha, alpha_max=high)


def test_what_the_constructor_refuses():
    refused("n_layers must be a whole number from 1, not 0", small, n_layers=0)
    for experts in ([], [2, 2]):
        message = f"experts must be different orders k, at least one, not {experts!r}"
        refused(message, small, experts=experts)
    with pytest.raises(ProbekitError, match="a 9-simplex in 8 dimensions"):
        small(experts=[9])
    with pytest.raises(ProbekitError, match="a 0-simplex in 8 dimensions"):
        small(experts=[0])
    refused("null_fraction=1 leaves no active coordinate; lower it", small, null_fraction=1)
    refused("null_fraction must be a number from 0 to 1, not 1.5", small, null_fraction=1.5)


def test_what_forward_refuses():
    field = small()
    message = "x of shape [2, 11], built for d_model=12; build the modulator for this model"
    refused(message, field, torch.zeros(2, 11), 0)
    refused(message, field.health, torch.zeros(2, 11))
    message = "the modulator is on cpu and the stream on meta; move it there: module.to('meta')"
    refused(message, field, torch.zeros(2, 12, device="meta"), 0)
    for layer in (-1, 2):
        refused(f"layer {layer}: the modulator has layers 0 to 1", field, torch.zeros(12), layer)
