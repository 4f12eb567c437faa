"""Parts of a field modulator, read on small models."""

import families
import pytest
import torch

from probekit.geometry import gaussian_volume_cv
from probekit.terrain.field_study import (
    checked,
    gain,
    gate_readings,
    parameter_readings,
    published_field,
    template_readings,
)


@pytest.fixture(scope="module")
def bert():
    return families.bert_encoder()


def test_only_the_regular_template_is() -> None:
    """The critique's edges of the published one, k = 2 and 4."""
    found = template_readings()
    assert found["regular"]["spread"] < 1e-12
    published = found["published"]
    assert published["spread"] == pytest.approx(1.0755 / 0.9438 - 1, abs=2e-4)
    assert published["edges"]["1"] == [pytest.approx(1)]
    assert published["edges"]["2"] == pytest.approx([1.0, 1.0499, 0.9594], abs=1e-4)
    assert len(published["edges"]["4"]) == 10


def test_gates_on_a_stream(bert) -> None:
    """Order 1 sees nothing, constant gates neither; V^2 > 0 says nothing anywhere."""
    found = gate_readings(bert.model, bert.args[0], bert.kwargs["attention_mask"])
    assert found["simplex"]["1"]["gate_std"] < 1e-7
    assert found["simplex"]["2"]["gate_std"] > 1e-3 < found["simplex"]["4"]["gate_std"]
    assert all(each["gate_std"] < 1e-7 for each in found["constant"].values())
    assert all(each["share_v2_positive"] == 1 for each in found["simplex"].values())
    assert found["random"] == 1
    assert len(found["checks"]) == bert.model.cfg.n_layers


def test_gates_are_read_where_tokens_are_and_the_extremes_over_layers_count(bert) -> None:
    ids, mask = bert.args[0], bert.kwargs["attention_mask"]
    assert not mask.all()
    streams: list[torch.Tensor] = []
    handles = [
        layer.register_forward_pre_hook(lambda _, args: streams.append(args[0]))
        for layer in bert.model.original_model.encoder.layer
    ]
    with torch.no_grad():
        bert.model(ids, attention_mask=mask)
    for handle in handles:
        handle.remove()
    field = published_field(bert.model, seed=0)
    health = [field.health(stream[mask.bool()]) for stream in streams]
    found = gate_readings(bert.model, ids, mask)
    for k in (2, 4):
        spreads = [each[f"k{k}.gate_std"] for each in health]
        assert found["simplex"][str(k)]["gate_std"] == pytest.approx(max(spreads), rel=1e-4)
        assert max(spreads) > 1.001 * min(spreads)
    assert found["checks"] == pytest.approx(
        [checked(stream[mask.bool()][:, :8]) for stream in streams], rel=1e-4, nan_ok=True
    )


def test_parameters_that_reach_the_output(bert) -> None:
    """Not: 20 of the validity heads, and what the first expert would need its features for."""
    found = parameter_readings(bert.model, bert.args[0], bert.kwargs["attention_mask"])
    field = published_field(bert.model)
    assert found["published"] == 38_552
    active = len(field.active)
    assert found["here"] == sum(p.numel() for p in field.parameters())
    inert = active * 2 * 8 + 2 * 8  # the deformation of order 1
    inert += 2 + 2 * active  # its LayerNorm's scales, and its gate's weights
    assert found["reaching the output"] == found["here"] - 20 - inert
    assert all(p.grad is None for p in bert.model.parameters())


def test_the_check_of_too_few_rows_is_nan() -> None:
    assert checked(torch.zeros(10, 8)) != checked(torch.zeros(10, 8))
    x = torch.randn(4_000, 8, generator=torch.Generator().manual_seed(0))
    assert checked(x) == pytest.approx(gaussian_volume_cv(8), abs=0.1)


def test_gain() -> None:
    runs, others = [{"lemma_nll": 2.0}, {"lemma_nll": 3.0}], [{"lemma_nll": 2.5}] * 2
    assert gain(runs, others) == [0.5, -0.5]
