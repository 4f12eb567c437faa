"""Weights through files, and random twins."""

import families
import pytest
import torch
from checks import same_weights
from families import run, tiny_bert, tiny_native, token_ids
from safetensors.torch import load_file, save_file
from transformers import BertModel

import probekit as pk
from probekit.hooked.model import load_weights, weights


@pytest.mark.parametrize("name", ["native", "bert", "t5", "clip"])
def test_weights_round_trip_through_safetensors(tmp_path, name):
    family = families.ALL[name]()
    stored = weights(family.model)
    assert not [key for key in stored if "_original_component" in key or "probekit" in key]
    save_file({key: tensor.detach() for key, tensor in stored.items()}, tmp_path / "w.safetensors")
    expected = family.run()
    with torch.no_grad():
        for tensor in stored.values():
            tensor.zero_()
    assert not torch.equal(family.run(), expected)
    load_weights(family.model, load_file(tmp_path / "w.safetensors"))
    assert torch.equal(family.run(), expected)


@pytest.mark.parametrize("name", ["bert", "t5", "clip", "dinov2"])
def test_weights_are_those_of_the_unwrapped_model_with_tied_ones_once(name):
    family = families.ALL[name]()
    assert family.eager is not None
    own, theirs = weights(family.model), family.eager.state_dict()
    shared = {tensor.data_ptr() for tensor in theirs.values()}
    assert len(own) == len(shared)
    assert len(theirs) > len(own) or name in ("clip", "dinov2")  # which tie nothing
    assert set(own) <= set(theirs)
    for key, tensor in own.items():
        assert torch.equal(tensor, theirs[key])


def test_a_native_model_from_a_checkpoint(tmp_path):
    one = tiny_native(seed=1)
    save_file({k: t.detach() for k, t in weights(one).items()}, tmp_path / "w.safetensors")
    two = tiny_native(seed=2, checkpoint=tmp_path / "w.safetensors")
    assert torch.equal(run(two, token_ids()), run(one, token_ids()))


def test_weights_that_do_not_fit_list_every_difference():
    model = tiny_native()
    other = {name: tensor.detach().clone() for name, tensor in weights(model).items()}
    other["extra"] = other.pop("ln_out.weight")
    other["pos.weight"] = other["pos.weight"][:3]
    before = {name: tensor.clone() for name, tensor in weights(model).items()}
    with pytest.raises(pk.CardError) as error:
        load_weights(model, other)
    assert str(error.value) == (
        "the checkpoint does not fit the model: missing ln_out.weight; unexpected extra; "
        "pos.weight has shape (3, 64), the model (8, 64)"
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(model).items())


# Twins


@pytest.mark.parametrize("name", [*families.ALL])
def test_a_random_twin_has_the_same_shapes_and_other_numbers(name):
    family = families.ALL[name]()
    state = torch.get_rng_state()
    twin, again, other = (pk.random_twin(family.model, seed) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), state)
    own, theirs = weights(family.model), weights(twin)
    assert {k: t.shape for k, t in own.items()} == {k: t.shape for k, t in theirs.items()}
    matrices = [key for key, tensor in own.items() if tensor.ndim > 1 and tensor.std() > 0]
    assert len(matrices) > 5
    assert not any(torch.equal(own[key], theirs[key]) for key in matrices)
    for key in matrices:  # from the same law
        ratio = float(theirs[key].detach().std() / own[key].detach().std())
        assert 0.5 < ratio < 2, key
    assert same_weights(twin, again) and not same_weights(twin, other)
    output = family.output(run(twin, *family.args, **family.kwargs))
    assert output.shape == family.run().shape and not torch.equal(output, family.run())
    assert twin.training == family.model.training


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["native", "bert"])
def test_a_twin_is_in_the_mode_of_its_model(name, training):
    model = families.ALL[name]().model
    model.train(training)
    assert {module.training for module in pk.random_twin(model, 0).modules()} == {training}


def test_a_twin_has_the_precision_of_its_model():
    model = tiny_native(dtype=torch.float64)
    assert next(pk.random_twin(model, 0).parameters()).dtype == torch.float64


def test_a_twin_of_a_model_without_pooler_has_none_either():
    model = pk.wrap(BertModel(tiny_bert(), add_pooling_layer=False))
    assert weights(pk.random_twin(model, 0)).keys() == weights(model).keys()


def test_a_twin_is_independent_of_its_model():
    family = families.bert()
    clean, twin = family.run(), pk.random_twin(family.model, 0)
    with pk.attach(twin, pk.AttentionScale(0)):
        assert torch.equal(family.run(), clean)
        twin(*family.args, **family.kwargs)
    with torch.no_grad():
        for tensor in weights(twin).values():
            tensor.zero_()
    assert torch.equal(family.run(), clean)
    assert twin.original_model.config is not family.model.original_model.config
