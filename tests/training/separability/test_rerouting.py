"""Effects and similarities whose values are known beforehand."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

import probekit as pk
from probekit.hooked.model import weights
from probekit.training import (
    RepeatedTask,
    Task,
    cohens_d,
    pattern_similarities,
    recoveries,
    recovery_ratio,
    reroute,
    transfer_accuracies,
)
from probekit.training.separability.hybrids import accuracy, weight_swaps

TASK = RepeatedTask(vocab=11, length=8, held_out=40)
SIZES = {"d_model": 16, "d_head": 4, "d_mlp": 16, **TASK.config}


def test_d_is_students_t_less_the_sizes() -> None:
    drawn = np.random.default_rng(0)
    x, y = drawn.normal(0, 1, 30).tolist(), drawn.normal(1, 3, 50).tolist()
    t = stats.ttest_ind(y, x).statistic
    assert cohens_d(x, y) == pytest.approx(t * math.sqrt(1 / 30 + 1 / 50))
    assert cohens_d(y, x) == pytest.approx(-cohens_d(x, y))
    assert cohens_d(torch.tensor([0.0, 2.0]), [3.0, 5.0]) == pytest.approx(3 / math.sqrt(2))
    assert math.isnan(cohens_d([1.0, 1.0], [2.0, 2.0]))


def test_d_of_single_values_is_refused() -> None:
    with pytest.raises(pk.ProbekitError) as refused:
        cohens_d([1.0], [2.0, 3.0])
    assert str(refused.value) == "cohens_d needs two values a sample at least, not 1 and 2"


def test_the_label_stands_at_one_place() -> None:
    assert isinstance(TASK, Task)
    tokens, labels = TASK.batch(np.random.default_rng(0), 20)
    assert torch.equal(tokens[:, 3:4], labels)  # half a sequence earlier
    assert torch.equal(tokens[:, :3], tokens[:, 4:])
    assert tokens.shape == (20, 7)
    first, second = TASK.validation(), TASK.validation()
    assert torch.equal(first[0], second[0])


def test_odd_lengths_are_refused() -> None:
    with pytest.raises(pk.ProbekitError) as refused:
        RepeatedTask(8, 7)
    assert str(refused.value) == (
        "vocab and length must be at least 2 and length even, given 8 and 7"
    )


def test_averages_forget_what_was_exchanged() -> None:
    one = torch.rand(5, 2, 3, 3, generator=torch.Generator().manual_seed(0)).softmax(-1)
    heads, queries = one.flip(1), one.roll(1, 2)
    found = pattern_similarities(one, heads)
    assert found["by query"] == pytest.approx(1)
    assert found["as published"] == pytest.approx(1)
    assert found["by head"] < 1 - 1e-4
    found = pattern_similarities(one, queries)
    assert found["by head"] == pytest.approx(1)
    assert found["as published"] == pytest.approx(1)
    assert found["by query"] < 1 - 1e-4
    assert found["by head and query"] < 1 - 1e-4


def test_noise_at_layer_0_changes_what_comes_after_it() -> None:
    model = pk.load("modular-deep-2", seed=0, **SIZES)
    tokens, _ = TASK.validation()
    found = reroute(model, tokens, pk.Noise(3.0, "0.attn_out", 0), 3.0)
    assert found["d"]["entropy, layer 0"] == 0
    assert found["d"]["entropy, layer 1"] != 0
    assert found["similarity"]["layer 0"]["by head and query"] == pytest.approx(1)
    # |x + n|^2 = |x|^2 + 16 * 9, of which the longest x there adds little
    assert found["d"]["amplitude"] > 2
    assert found["d"]["amplitude, noise alone"] > 2
    quiet = reroute(model, tokens, pk.Noise(0.0, "0.attn_out", 0), 0.0)
    assert all(d == 0 for d in quiet["d"].values())
    assert found["other inputs"] == quiet["other inputs"]


def test_grafts_are_read_with_noise_and_without() -> None:
    model, other = (pk.load("modular-deep-2", seed=seed, **SIZES) for seed in (0, 1))
    before = {name: tensor.clone() for name, tensor in weights(model).items()}
    tokens, labels = TASK.validation()
    grafts = {"itself": (model, model), "other": (model, other), "random": (model, "random")}
    how = (tokens, labels, ["0.attn_out"], (0.0, 2.0), 2, 5)
    found = transfer_accuracies(grafts, ["V", "MLP"], *how)
    assert found["0"]["V"]["itself"] == accuracy(model, tokens, labels)
    noise = [pk.Noise(2.0, "0.attn_out", seed) for seed in range(2)]
    swap = weight_swaps(model, 5)["MLP"]
    for donor, given in (("other", other), ("random", "random")):
        each = [accuracy(model, tokens, labels, swap(given), item) for item in noise]
        assert found["2"]["MLP"][donor] == pytest.approx(sum(each) / 2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(model).items())


def test_a_ratio_without_an_advantage_is_nothing() -> None:
    assert recovery_ratio(0.0, 0.25, 0.75) == -0.5
    assert math.isnan(recovery_ratio(0.5, 0.25, 0.25))


def test_ratios_are_of_each_host() -> None:
    def row(*values):
        return {"2": list(values)}

    transfer = {
        "alone": {
            "baseline": row(0.1, 0.2),
            "another baseline": row(0.3, 0.5),
            "hardened": row(0.9, 0.5),
        },
        "swaps": {"2": {"V": {"hardened": [0.5, 0.5], "hardened, same start": [0.6, 0.1]}}},
    }
    assert recoveries(transfer, "V", "hardened", "2") == pytest.approx([0.5, 1.0])
    one, other = recoveries(transfer, "V", "hardened, same start", "2")
    assert one == pytest.approx(0.5)
    assert math.isnan(other)
