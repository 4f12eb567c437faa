"""DeadNeurons against hand-made activations and a ReLU network's own arithmetic."""

import families
import pytest
import torch
from families import Looped

import probekit as pk


def test_known_activations_over_two_forwards():
    first = torch.tensor([[[1.0, -1.0, 0.0], [2.0, -3.0, 0.0]]])
    second = torch.tensor([[[0.0, 4.0, 0.0]]])
    model = Looped(1)
    with pk.attach(model, pk.DeadNeurons("resid_pre")) as run:
        model(first)
        model(second)
    found = run["dead_neurons"]
    assert found.dims == ("layer", "statistic", "neuron")
    silent, size = found.values[0]
    torch.testing.assert_close(silent, torch.tensor([1 / 3, 2 / 3, 1.0], dtype=torch.float64))
    torch.testing.assert_close(size, torch.tensor([1.0, 8 / 3, 0.0], dtype=torch.float64))
    assert found.null is not None
    assert found.null[0, 0].eq(0.5).all()
    torch.testing.assert_close(found.null[0, 1], size.mean().expand(3))


def test_positions_are_chosen():
    model, x = Looped(1), torch.tensor([[[1.0], [-1.0], [-1.0]]])
    with pk.attach(model, pk.DeadNeurons("resid_pre", positions=(0, -1))) as run:
        model(x)
    assert run["dead_neurons"].values[0, 0].tolist() == [0.5]


@pytest.mark.parametrize("family", ["native", "bert", "t5"], indirect=True)
def test_a_model_reads_what_its_recorded_activations_say(family):
    record = pk.Record("0.mlp_post", name="raw")
    if family.name == "t5":
        record = pk.Record("encoder.0.mlp_post", name="raw")
    with pk.attach(family.model, pk.DeadNeurons(), record) as run:
        family.run()
    raw = run["raw"].values.flatten(0, -2).double()
    values = run["dead_neurons"].values
    mine = values[0, 0] if family.name == "t5" else values[0]
    torch.testing.assert_close(mine[0], (raw <= 0).double().mean(0))
    torch.testing.assert_close(mine[1], raw.abs().mean(0))


def test_a_neuron_killed_by_its_bias():
    model = families.tiny_native(act_fn="relu")
    with torch.no_grad():
        model.blocks[0].mlp.original_component.fc_in.bias[5] = -1e3
    with pk.attach(model, pk.DeadNeurons()) as run:
        model(families.token_ids())
    silent = run["dead_neurons"].values[0, 0]
    assert silent[5] == 1 and 0.3 < silent.mean() < 0.7


def test_scores_are_no_vectors():
    with pytest.raises(
        pk.ProbekitError, match=r"^DeadNeurons reads vectors such as resid_post, not"
    ):
        pk.DeadNeurons("scores")
