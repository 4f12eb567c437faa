"""What a basis changes and what it does not, against NumPy and closed forms."""

import numpy as np
import pytest
import torch

import probekit as pk
from probekit.geometry import cka, cosine_similarity
from probekit.training import (
    ModularTask,
    Solution,
    Stack,
    compare_solutions,
    read_solution,
    rotated,
    similarity_penalty,
    wrong_logit_correlation,
)
from probekit.training.separability.solutions import batch_cka, row_cosine

TASK = ModularTask(modulus=7, fraction=0.3)


def load(seed):
    sizes = {"d_model": 16, "d_head": 4, "d_mlp": 24, "n_layers": 1}
    return pk.load("modular-deep-2", seed=seed, **sizes, **TASK.config)


def solution(seed=0, rows=400, dim=12, vocab=9):
    drawn = torch.Generator().manual_seed(seed)
    final = torch.randn(rows, dim, generator=drawn)
    unembed = torch.randn(dim, vocab, generator=drawn)
    return Solution(final, unembed, torch.randn(vocab, generator=drawn))


LABELS = torch.arange(400)[:, None] % 9


def test_a_solution_gives_the_models_logits() -> None:
    tokens, _ = TASK.validation()
    stack = Stack([load(0), load(1)])
    for run in range(2):
        found = read_solution(stack, run, tokens, 2)
        expected = load(run)(tokens).flatten(0, 1)
        torch.testing.assert_close(found.logits.float(), expected, atol=1e-5, rtol=1e-5)


def test_a_rotation_changes_the_cosine_and_nothing_else() -> None:
    one = solution()
    turned = rotated(one, 3)
    torch.testing.assert_close(turned.logits, one.logits)
    found = compare_solutions(one, turned, LABELS)
    expected = cosine_similarity(one.final, turned.final)
    assert found["cosine"] == pytest.approx(float(expected.mean()))
    assert found["|cosine|"] == pytest.approx(float(expected.abs().mean()))
    assert abs(found["cosine"]) < 0.5
    for what in ("linear CKA", "aligned cosine", "wrong logits", "agreement"):
        assert found[what] == pytest.approx(1.0, abs=1e-9)


def test_unrelated_networks_are_alike_in_nothing() -> None:
    found = compare_solutions(solution(0), solution(1), LABELS)
    assert found["agreement"] == pytest.approx(1 / 9, abs=0.06)
    for what in ("cosine", "linear CKA", "aligned cosine", "wrong logits"):
        assert abs(found[what]) < 0.1


def test_the_label_is_left_out_of_the_correlation() -> None:
    one, other = solution(0).logits, solution(1).logits
    expected = np.mean(
        [
            np.corrcoef(np.delete(a, label), np.delete(b, label))[0, 1]
            for a, b, label in zip(one.numpy(), other.numpy(), LABELS[:, 0].tolist(), strict=True)
        ]
    )
    found = wrong_logit_correlation(one, other, LABELS[:, 0])
    assert found == pytest.approx(float(expected))
    right = torch.nn.functional.one_hot(LABELS[:, 0], 9) * 50.0
    assert wrong_logit_correlation(one + right, other, LABELS[:, 0]) == pytest.approx(found)


def finals(*seeds):
    drawn = [torch.randn(3, 20, 2, 5, generator=torch.Generator().manual_seed(s)) for s in seeds]
    return drawn[0] + 0.3, drawn[1] - 0.2


def test_penalties_are_what_geometry_measures() -> None:
    x, y = finals(0, 1)
    rows = cosine_similarity(x.flatten(1, 2), y.flatten(1, 2)).mean(1).abs()
    torch.testing.assert_close(row_cosine(x, y).double(), rows)
    each = [cka(a.flatten(0, 1), b.flatten(0, 1)) for a, b in zip(x, y, strict=True)]
    torch.testing.assert_close(batch_cka(x, y).tolist(), each, rtol=1e-4, atol=1e-5)


def test_no_rotation_lowers_the_second_penalty() -> None:
    x, _ = finals(0, 1)
    turn, _ = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(2)))
    torch.testing.assert_close(batch_cka(x, 2 * x @ turn + 1), torch.ones(3))
    assert (row_cosine(x, x @ turn) < 0.9).all()


@pytest.mark.parametrize("own_batches", [False, True])
def test_only_the_runs_named_are_penalised_each_with_its_anchor(own_batches) -> None:
    stack, anchor = Stack([load(0), load(1), load(2)]), Stack([load(3), load(4)])
    tokens = TASK.batch(np.random.default_rng(0), 60)[0]
    if own_batches:
        tokens = tokens.view(3, 20, 2)
    final = stack.final(tokens)
    penalty = similarity_penalty(anchor, {2: "cosine", 0: "CKA"}, weight=0.5)(7, tokens, final)
    each = [tokens[run] if own_batches else tokens for run in (2, 0)]
    there = [Stack([load(3)]).final(each[0]), Stack([load(4)]).final(each[1])]
    expected = [0.5 * batch_cka(final[:1], there[1]), torch.zeros(1)]
    expected += [0.5 * row_cosine(final[2:], there[0])]
    torch.testing.assert_close(penalty, torch.cat(expected))
    penalty.sum().backward()
    gradients = stack.parameters["tok_embed.weight"].grad
    assert gradients is not None
    assert (gradients.flatten(1).norm(dim=1) > 0).tolist() == [True, False, True]
    assert all(parameter.grad is None for parameter in anchor.parameters.values())
