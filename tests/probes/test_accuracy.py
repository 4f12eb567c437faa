"""Accuracy against loops; its null against every permutation of the labels."""

import itertools
import json
import math
from typing import Any

import families
import pytest
import torch
from torch import Tensor
from unembed import draw, next_or_same, read

import probekit as pk
from probekit.probes.targets import checked_targets


@pytest.mark.parametrize("targets", ["next", "same"])
def test_a_loop_agrees(targets):
    ids, logits = draw(4, 6, 3)
    rows = next_or_same(ids, targets)
    right = [int(logits[b, t].argmax()) == label for b, t, label in rows]
    result = read(pk.Accuracy(targets), (ids, logits))
    assert result.dims == () and result.values.shape == ()
    assert float(result.values) == pytest.approx(sum(right) / len(right))
    for position in range(6):
        here = [hit for hit, (_, t, _) in zip(right, rows, strict=True) if t == position]
        value = float(result.rows.values[position])
        assert value == pytest.approx(sum(here) / len(here)) if here else math.isnan(value)


def test_the_null_is_the_mean_over_all_permutations_of_the_labels():
    ids, logits = draw(2, 3, 3)
    labels, predicted = ids.flatten().tolist(), logits.argmax(-1).flatten().tolist()
    shuffled = [
        sum(p == label for p, label in zip(predicted, order, strict=True)) / 6
        for order in itertools.permutations(labels)
    ]
    result = read(pk.Accuracy("same"), (ids, logits))
    assert float(result.null) == pytest.approx(sum(shuffled) / len(shuffled))


def test_always_answering_the_commonest_is_no_better_than_its_null():
    ids = torch.tensor([[0, 0, 0, 1]])
    result = read(pk.Accuracy("same"), (ids, torch.tensor([1.0, 0.0]).expand(1, 4, 2)))
    assert float(result.values) == float(result.null) == 0.75


def test_forwards_stream_to_what_one_batch_reads():
    ids, logits = draw(8, 5, 4)
    whole = read(pk.Accuracy(), (ids, logits))
    parts = read(pk.Accuracy(), *[(ids[i : i + 2], logits[i : i + 2]) for i in range(0, 8, 2)])
    torch.testing.assert_close(parts.values, whole.values)
    torch.testing.assert_close(parts.null, whole.null)
    torch.testing.assert_close(parts.rows.values, whole.rows.values, equal_nan=True)


def test_forwards_of_different_length():
    first, second = draw(2, 3, 4), draw(3, 6, 4, seed=1)
    result = read(pk.Accuracy("same"), first, second)
    hits = [(logits.argmax(-1) == ids).double() for ids, logits in (first, second)]
    assert float(result.values) == pytest.approx(float(sum(h.sum() for h in hits)) / (6 + 18))
    assert float(result.rows.values[0]) == pytest.approx(
        float(sum(h[:, 0].sum() for h in hits)) / 5
    )
    assert len(result.rows.values) == 6


def test_positions_and_labels_that_do_not_count():
    ids, logits = draw(5, 4, 3)
    hits = (logits.argmax(-1) == ids).double()
    only = read(pk.Accuracy("same", positions=(1, -1)), (ids, logits))
    assert float(only.values) == pytest.approx(float(hits[:, [1, 3]].mean()))

    def without_zero(ids: Tensor) -> Tensor:
        return ids.masked_fill(ids == 0, -100)

    for targets in (without_zero, without_zero(ids), without_zero(ids).tolist()):
        result = read(pk.Accuracy(targets), (ids, logits))
        assert float(result.values) == pytest.approx(float(hits[ids != 0].mean()))


def test_nothing_to_count():
    with pytest.raises(pk.ProbekitError) as error:
        read(pk.Accuracy("next"), draw(2, 1, 3))
    assert str(error.value) == (
        "Accuracy() counted no position: its targets name none with a label that has logits "
        "(targets='next' has none at the last position, the only one that generation computes)"
    )
    first, empty = draw(2, 4, 3), draw(2, 1, 3)
    both, one = read(pk.Accuracy(), first, empty), read(pk.Accuracy(), first)
    torch.testing.assert_close(both.values, one.values)


@pytest.mark.parametrize("probe", [pk.Accuracy, pk.LogitMargin])
def test_logits_of_the_last_positions_only(probe):
    ids, logits = draw(4, 6, 3)
    last = read(probe("same"), (ids, logits[:, 4:]))
    alone = read(probe("same", positions=(4, -1)), (ids, logits))
    torch.testing.assert_close(last.values, alone.values)
    torch.testing.assert_close(last.null, alone.null)
    torch.testing.assert_close(last.rows.values, alone.rows.values, equal_nan=True)
    following = read(probe("next"), (ids, logits[:, 4:]))
    only = read(probe("next", positions=(4,)), (ids, logits))
    torch.testing.assert_close(following.values, only.values)
    table = ids.roll(1)
    torch.testing.assert_close(
        read(probe(table), (ids, logits[:, 4:])).values,
        read(probe(table, positions=(4, 5)), (ids, logits)).values,
    )
    with pytest.raises(pk.ProbekitError, match=r"targets have shape \(4, 5\), the"):
        read(probe(table[:, :5]), (ids, logits[:, 4:]))


@pytest.mark.parametrize("probe", [pk.Accuracy, pk.LogitMargin])
def test_generation_is_not_in_the_way(built, probe):
    family = built("gpt2")
    hf, ids = family.model.original_model, family.args[0]
    options = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": 0}
    clean = hf.generate(ids, **options)
    with pk.attach(family.model, probe("same"), probe(name="next")) as run:
        assert torch.equal(hf.generate(ids, **options), clean)
    assert run[probe("same").key].values.isfinite()
    with pytest.raises(pk.ProbekitError, match="counted no position"):
        run["next"]


@pytest.mark.parametrize("item", ["accuracy", "logit margin", "lerp"])
def test_embeddings_in_place_of_ids_are_an_error_also_after_ids(built, item):
    family = built("gpt2")
    module = pk.modulators.LerpModulator(d_model=32, n_layers=2, vocab=50, d_geometry=4)
    items = {"accuracy": pk.Accuracy(), "logit margin": pk.LogitMargin(), "lerp": pk.Lerp(module)}
    hf, ids = family.model.original_model, family.args[0]
    embedded = hf.get_input_embeddings()(ids).detach()
    with torch.no_grad(), pk.attach(family.model, items[item]):
        hf(input_ids=ids)
        with pytest.raises(pk.ProbekitError, match="token ids"):
            hf(inputs_embeds=embedded)


@pytest.mark.parametrize("family", ["native", "gpt2", "bert", "t5"], indirect=True)
def test_the_tokens_are_those_of_the_stack_that_predicts(family):
    with pk.attach(family.model, pk.Accuracy(), pk.Accuracy("same", name="same")) as run:
        logits = family.run()
    ids = family.kwargs.get("decoder_input", family.args[0])
    predicted = logits.argmax(-1)
    expected = (predicted[:, :-1] == ids[:, 1:]).double().mean()
    torch.testing.assert_close(run["accuracy"].values, expected)
    torch.testing.assert_close(run["same"].values, (predicted == ids).double().mean())


def test_a_model_that_predicts_its_own_tokens():
    model = families.tiny_native()
    labels = model(families.token_ids()).argmax(-1)
    with pk.attach(model, pk.Accuracy(labels)) as run:
        families.run(model, families.token_ids())
    assert float(run["accuracy"].values) == 1


@pytest.mark.parametrize("name", ["clip", "vit", "bert encoder"])
def test_a_model_without_logits(built, name):
    with pytest.raises(pk.SiteError, match=r"^site 'logits': this model has no 'logits'; it has:"):
        pk.attach(built(name).model, pk.Accuracy())


def test_a_scalar_is_shown_and_saved(tmp_path):
    result = read(pk.Accuracy("same"), draw(2, 3, 3))
    frame = result.to_frame()
    assert list(frame.columns) == ["value", "null"] and len(frame) == 1
    assert repr(result).startswith("Measurement('accuracy', scalar, ")
    assert result.plot().get_ylabel() == "accuracy [fraction of positions]"
    again = pk.Measurement.load(result.save(tmp_path / "accuracy.safetensors"))
    assert torch.equal(again.values, result.values) and again.dims == ()
    assert again.rows is not None and again.rows.dims == ("position",)
    assert again.rows.null_reason == (
        "labels are shuffled over all positions; for the null of one give positions=(t,)"
    )


def test_targets_of_a_table_compare_print_and_store():
    probe = pk.Accuracy(torch.tensor([[1, 2], [3, -100]]), positions=[1])
    assert probe == pk.Accuracy([[1, 2], [3, -100]], positions=(1,))
    assert repr(probe.targets) == "((1, 2), (3, -100))"
    assert pk.from_dict(json.loads(json.dumps(pk.to_dict(probe)))) == probe


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ("nxt", "unknown targets 'nxt'; valid: next, same; closest: 'next'"),
        (
            [1, 2],
            "targets are 'next', 'same', a function of the token ids, or whole numbers "
            "[batch, pos], not [1, 2]",
        ),
        (
            [[0.5]],
            "targets are 'next', 'same', a function of the token ids, or whole numbers "
            "[batch, pos], not [[0.5]]",
        ),
    ],
)
def test_targets_that_mean_nothing(targets, message):
    with pytest.raises(pk.ProbekitError) as error:
        checked_targets(targets)
    assert str(error.value) == message


def not_a_tensor(ids: Tensor) -> Any:
    return ids.tolist()


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (
            [[1, 2, 0]],
            "targets have shape (1, 3), the logits at logits (2, 3, 4): the first two must agree",
        ),
        ([[1, 2, 0], [4, 0, 0]], "target 4 lies outside the 4 classes of the logits"),
        (torch.Tensor.float, "targets are whole numbers, not torch.float32"),
        (not_a_tensor, "targets returned list, not a tensor [batch, pos]"),
    ],
)
def test_targets_that_do_not_fit(targets, message):
    with pytest.raises(pk.ProbekitError) as error:
        read(pk.Accuracy(targets), draw(2, 3, 4))
    assert str(error.value) == message
