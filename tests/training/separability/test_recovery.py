"""Damage is where it should be, a branch goes on as if nothing had been, and tests read by hand."""

import pytest
import torch

import probekit as pk
from probekit.errors import ProbekitError, RunError
from probekit.hooked.model import weights
from probekit.hooked.selection import Selection
from probekit.runs import RunDir
from probekit.training import (
    Optimisation,
    RecoveryArm,
    Stack,
    WholeBatches,
    begin_with,
    damaged,
    difference,
    dominance,
    ended_well,
    ends_rows,
    exact_rows,
    fit,
    head_shares,
    least_significant,
    mean_final,
    median_first_drop,
    recovered_and_not,
    recovered_difference,
    share_of_kind,
    train_recoveries,
)
from probekit.training.separability.recovery_tables import final_difference, first_step_loss

TASK = WholeBatches("separate", modulus=5, fraction=0.7)
WHERE = {"title": "", "position": 0}
WIDTH = 16


def model(seed=0):
    sizes = {"d_model": WIDTH, "d_head": 4, "d_mlp": 24, "n_layers": 2, **TASK.config}
    return pk.load("modular-deep-2", seed=seed, **sizes)


def test_damage_is_fresh_rows_of_the_packed_law_and_nothing_else():
    own = model()
    for parameter in own.parameters():
        parameter.data.add_(1)  # so that fresh biases, which are 0, are seen
    two = weights(damaged(own, Selection(("Q", "K"), (0,), (0, 1)), seed=3))
    one = weights(damaged(own, Selection(("Q", "K"), (0,), (0,)), seed=3))
    bound = (6 / (WIDTH + 3 * WIDTH)) ** 0.5  # Xavier-uniform of a [3 d, d] matrix
    for name, before in weights(own).items():
        after = two[name]
        if name.startswith(("layers.0.attn.q", "layers.0.attn.k")):
            assert torch.equal(after[8:], before[8:])
            assert torch.equal(after[:4], one[name][:4])
            assert torch.equal(one[name][4:], before[4:])
            fresh = after[:8]
            if name.endswith("bias"):
                assert (fresh == 0).all()
            else:
                assert bound * 0.9 < fresh.abs().max() < bound
        else:
            assert torch.equal(after, before), name
    other = weights(damaged(own, Selection(("Q", "K"), (0,), (0,)), seed=4))
    assert not torch.equal(other["layers.0.attn.q.weight"], one["layers.0.attn.q.weight"])


def fitted(folder, stack, steps):
    how = Optimisation(steps, batch=1, weight_decay=0.5, log_every=2)
    fit(RunDir(folder), stack, TASK, how, [0], **WHERE)
    return stack


def test_a_branch_with_its_optimizer_is_training_straight_on(tmp_path):
    straight = fitted(tmp_path / "straight", Stack([model()]), 8)
    half = fitted(tmp_path / "half", Stack([model()]), 4)
    middle = model()
    half.copy_to(0, middle)
    run = RunDir(tmp_path / "branch")
    begin_with(run, RunDir(tmp_path / "half"))
    branch = fitted(tmp_path / "branch", Stack([middle]), 4)
    afresh = fitted(tmp_path / "afresh", Stack([middle]), 4)
    for name, parameter in straight.parameters.items():
        torch.testing.assert_close(branch.parameters[name], parameter, rtol=0, atol=0)
    pairs = [(p, afresh.parameters[n]) for n, p in straight.parameters.items()]
    assert max(float((p - other).detach().abs().max()) for p, other in pairs) > 1e-4


def test_a_begun_run_is_not_put_back(tmp_path):
    half = fitted(tmp_path / "half", Stack([model()]), 4)
    fitted(tmp_path / "branch", Stack([model(1)]), 4)
    before = RunDir(tmp_path / "branch").load_checkpoint()
    begin_with(RunDir(tmp_path / "branch"), RunDir(tmp_path / "half"))
    after = RunDir(tmp_path / "branch").load_checkpoint()
    assert before is not None and after is not None and half is not None
    assert all(torch.equal(tensor, after[1][name]) for name, tensor in before[1].items())
    with pytest.raises(RunError, match="has no checkpoint to go on from"):
        begin_with(RunDir(tmp_path / "new"), RunDir(tmp_path / "nothing"))


def test_shares_of_heads_whose_values_are_set_by_hand():
    own = model()
    named = weights(own)
    with torch.no_grad():
        named["layers.1.attn.v.weight"].zero_()
        bias = named["layers.1.attn.v.bias"].zero_()
        bias[0], bias[5], bias[8:12] = 3, -4, 0.5  # norms 3, 4, 1 and 0
    shares = head_shares(own, TASK.validation()[0], 1)
    torch.testing.assert_close(shares, torch.tensor([3.0, 4.0, 1.0, 0.0], dtype=torch.float64) / 8)
    found = dominance(shares)
    assert found["max share"] == pytest.approx(0.5)
    # sum of |x_i - x_j| over ordered pairs is 2 (1 + 2 + 3 + 3 + 4 + 1) / 8; over 2 n
    assert found["gini"] == pytest.approx(2 * 14 / 8 / 8)


def test_arms_branch_from_one_network(tmp_path):
    arms = {
        "n = 0": RecoveryArm(),
        "n = 4": RecoveryArm(Selection(("Q", "K"), (0,))),
        "other": RecoveryArm(batches=7),
    }
    how = Optimisation(4, batch=4, weight_decay=1.0, log_every=2)
    grown = RunDir(tmp_path / "grown")
    stack = Stack([model()])
    fit(grown, stack, TASK, how, [0], **WHERE)
    own = model(5)
    stack.copy_to(0, own)
    found = train_recoveries(RunDir(tmp_path / "a"), own, TASK, how, arms, 0, **WHERE)
    kept = train_recoveries(
        RunDir(tmp_path / "b"), own, TASK, how, {"kept": RecoveryArm()}, 0, grown=grown, **WHERE
    )
    assert list(found["n = 0"]["log"]) == ["0", "2", "4"]
    starts = [kept["kept"], found["n = 0"], found["other"]]
    assert len({each["first step"][0] for each in starts}) == 1
    assert found["n = 0"]["final"] == found["n = 0"]["log"]["4"]
    # whole batches: the seed of the batches changes nothing, the damage does
    rows = RunDir(tmp_path / "a" / "long").rows()
    assert rows[-1]["loss"][0] == pytest.approx(rows[-1]["loss"][2], rel=1e-4)
    assert rows[0]["loss"][0] != pytest.approx(rows[0]["loss"][1], rel=1e-4)
    again = train_recoveries(RunDir(tmp_path / "a"), own, TASK, how, arms, 0, **WHERE)
    assert again == found


def run_of(final, kind="irreversible", drop=None, **more):
    return {"final": final, "kind": kind, "first drop": drop, "collapses": [0] * len(final), **more}


RUNS = {
    "a": run_of([0.95, 0.3], ["stable", "irreversible"], [None, 300], gini=[0.1, 0.3]),
    "b": run_of([0.5, 0.2], ["partial", "irreversible"], [None, 100], gini=[0.2, 0.5]),
}


def test_shares_drops_and_groups_by_hand():
    assert share_of_kind(RUNS, ["a", "b"], "irreversible") == [0, 1]
    assert share_of_kind(RUNS, ["a", "b"], "stable") == [0.5, 0]
    none, middle = median_first_drop(RUNS, ["a", "b"])
    assert none != none and middle == 200
    assert median_first_drop(RUNS, ["a", "b"], clock=1e-3)[1] == pytest.approx(0.2)
    assert recovered_and_not(RUNS, ["a", "b"], "gini") == ([0.1, 0.2], [0.3, 0.5])
    assert difference([1.0, 2.0], [0.5]) == 1
    (apart,), (chance,) = recovered_difference(RUNS, ["a", "b"], "gini")
    assert apart == pytest.approx(-0.25)
    # Of six ways to deal, two are .25 apart, two .15 and two .05.
    assert chance == pytest.approx(0.25)
    assert difference([], [0.5]) != difference([], [0.5])
    assert ended_well(RUNS, ["a", "b"]) == (1, 4)
    assert mean_final(RUNS, ["a", "b"]) == pytest.approx([0.725, 0.25])
    assert final_difference(RUNS, "a", "b") == pytest.approx([0.45, 0.1])
    assert first_step_loss({"a": {"first step": [[0.9, 0.4]]}}, "a") == [0.5]


def test_what_shuffled_labels_exceed_by_hand():
    # The single 1 is dealt to the group of one in one of four ways; else the means are 1/3 apart.
    rest = [0.0, 0.0, 0.0]
    assert least_significant([1.0], rest, level=0.05) == pytest.approx(1 / 3 + 0.85 * 2 / 3)
    assert least_significant([1.0], rest, level=0.5) == pytest.approx(1 / 3)
    values = list(torch.linspace(0, 1, 20).double())
    wide = least_significant([float(v) for v in values[:10]], [float(v) for v in values[10:]])
    # two means of ten uniform draws: a normal of deviation sqrt(2 / 12 / 10), nearly
    assert wide == pytest.approx(1.96 * (2 / 12 / 10) ** 0.5, rel=0.12)
    with pytest.raises(ProbekitError, match="a value a group, not 0 and 1"):
        least_significant([], [1.0])


def test_tables_read_the_published_example():
    more = {"gini": [0.1] * 8, "max share": [float(i) for i in range(8)]}
    eight = {"a": run_of([0.95] * 4 + [0.1] * 4, ["stable"] * 8, **more)}
    eight["b"] = run_of([0.95] * 2 + [0.1] * 6, ["partial"] * 8, **more)
    (row,) = exact_rows(eight, {"a, b": (["a"], ["b"])})
    assert row["end at .90 or more"] == "4 of 8 against 2 of 8"
    assert row["permutation p, gini"] == row["permutation p, max share"] == "1.000"
    assert row["Fisher p"] == "0.608"  # published: .31, which is one-sided
    assert int(row["seeds needed"]) > 50
    (same,) = exact_rows(eight, {"a, a": (["a"], ["a"])})
    assert same["Fisher p"] == "1.000" and same["seeds needed"] == "no number"
    first, second = ends_rows(eight, {"a": 0.5})
    assert (first["published"], second["published"]) == ("0.500", "")
    assert (first["stable"], second["stable"], second["partial"]) == ("8", "0", "8")
