"""LogitMargin against loops; its null against every permutation of the labels."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from unembed import draw, next_or_same, read

import probekit as pk


def margin(logits: Tensor, label: int) -> float:
    return float(logits[label]) - max(float(x) for k, x in enumerate(logits) if k != label)


@pytest.mark.parametrize("targets", ["next", "same"])
def test_a_loop_agrees(targets):
    ids, logits = draw(4, 6, 3)
    rows = next_or_same(ids, targets)
    margins = [margin(logits[b, t], label) for b, t, label in rows]
    result = read(pk.LogitMargin(targets), (ids, logits))
    assert result.dims == () and result.units == "logits"
    assert float(result.values) == pytest.approx(sum(margins) / len(margins), abs=1e-6)
    for position in range(6):
        here = [m for m, (_, t, _) in zip(margins, rows, strict=True) if t == position]
        value = float(result.rows.values[position])
        expected = pytest.approx(sum(here) / len(here), abs=1e-6) if here else None
        assert value == expected if here else math.isnan(value)


@pytest.mark.parametrize("tied", [False, True])
def test_the_null_is_the_mean_over_all_permutations_of_the_labels(tied):
    ids, logits = draw(2, 3, 3)
    if tied:
        logits = logits.round()
    labels, rows = ids.flatten().tolist(), logits.flatten(0, 1)
    shuffled = [
        sum(margin(row, label) for row, label in zip(rows, order, strict=True)) / 6
        for order in itertools.permutations(labels)
    ]
    result = read(pk.LogitMargin("same"), (ids, logits))
    assert float(result.null) == pytest.approx(sum(shuffled) / len(shuffled), abs=1e-6)


def test_forwards_stream_to_what_one_batch_reads():
    """Labels are shuffled over all forwards, so that the null streams as well."""
    ids, logits = draw(8, 5, 4)
    whole = read(pk.LogitMargin(), (ids, logits))
    parts = read(pk.LogitMargin(), *[(ids[i : i + 2], logits[i : i + 2]) for i in range(0, 8, 2)])
    torch.testing.assert_close(parts.values, whole.values)
    torch.testing.assert_close(parts.null, whole.null)


def test_the_margin_is_positive_where_the_prediction_is_right():
    ids, logits = draw(1, 40, 5)
    for position in range(40):
        options = {"targets": "same", "positions": (position,)}
        accuracy = read(pk.Accuracy(**options), (ids, logits)).values
        assert (read(pk.LogitMargin(**options), (ids, logits)).values > 0) == (accuracy == 1)


def test_a_position_alone_is_its_own_null():
    """One label shuffled is itself."""
    result = read(pk.LogitMargin("same", positions=(2,)), draw(1, 4, 5))
    torch.testing.assert_close(result.null, result.values)


def test_classes_that_are_ruled_out():
    ids, logits = draw(3, 4, 3)
    padded = torch.nn.functional.pad(logits, (0, 2), value=-torch.inf)
    short, long = (read(pk.LogitMargin("same"), (ids, l)) for l in (logits, padded))  # noqa: E741
    assert torch.equal(short.values, long.values) and torch.equal(short.null, long.null)


def test_half_precision_is_summed_in_double():
    ids, logits = draw(4, 50, 3)
    half = (logits + 100).half()
    result = read(pk.LogitMargin("same"), (ids, half))
    exact = read(pk.LogitMargin("same"), (ids, half.double()))
    torch.testing.assert_close(result.values, exact.values, rtol=0, atol=1e-12)
    torch.testing.assert_close(result.null, exact.null, rtol=0, atol=1e-9)


@pytest.mark.parametrize("family", ["native", "bert", "t5"], indirect=True)
def test_a_models_logits(family):
    with pk.attach(family.model, pk.LogitMargin()) as run:
        logits = family.run()
    ids = family.kwargs.get("decoder_input", family.args[0])
    margins = [margin(logits[b, t], label) for b, t, label in next_or_same(ids, "next")]
    assert float(run["logit_margin"].values) == pytest.approx(sum(margins) / len(margins), abs=1e-5)


def test_gradients_flow_if_asked_for():
    ids, logits = draw(2, 3, 4)
    logits.requires_grad_(True)
    read(pk.LogitMargin("same", differentiable=True), (ids, logits)).values.backward()
    # +1/n at the label, -1/n at the best of the others.
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad.gather(-1, ids[..., None]), torch.full((2, 3, 1), 1 / 6))
    torch.testing.assert_close(logits.grad.sum(-1), torch.zeros(2, 3))


def test_a_single_class():
    with pytest.raises(pk.ProbekitError) as error:
        read(pk.LogitMargin("same"), draw(1, 2, 1))
    assert str(error.value) == ("LogitMargin compares two classes or more; these logits have one")
