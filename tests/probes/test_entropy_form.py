"""The form without logarithms inside an attachment, and gradients through VDI."""

import pytest
import torch
from torch import Tensor

import probekit as pk
from probekit import entropy, seam
from probekit.entropy import softmax_entropy
from probekit.probes import attention_rows


@pytest.fixture
def fast(monkeypatch) -> list[int]:
    """Takes the form without logarithms at every size, and counts its use."""
    used: list[int] = []

    def spy(scores: Tensor, pattern: Tensor) -> Tensor:
        used.append(1)
        return softmax_entropy(scores, pattern)

    monkeypatch.setattr(entropy, "_SMALL", 0)
    monkeypatch.setattr(attention_rows, "softmax_entropy", spy)
    return used


def halved_in_place(pattern: Tensor) -> Tensor:
    return pattern.mul_(0.5)


def key_hidden(scores: Tensor) -> Tensor:
    scores = scores.clone()
    scores[..., 1:, 0] = -torch.inf
    return scores


@pytest.mark.parametrize("name", ["native", "bert", "t5", "clip"])
@pytest.mark.parametrize(
    ("items", "is_fast"),
    [
        ([], True),
        ([pk.Edit("scores", lambda s: 2 * s)], True),
        ([pk.Edit("scores", key_hidden)], True),
        ([pk.SetPattern(lambda p: 0.5 * p)], False),
        ([pk.SetPattern(halved_in_place)], False),
        ([pk.SetPattern(lambda p: p)], True),
    ],
)
def test_scores_are_used_only_while_the_pattern_is_their_softmax(built, fast, name, items, is_fast):
    family = built(name)
    record = pk.Record(family.attentions[0])
    vdi = pk.AttentionEntropy(site=family.attentions[0])
    with pk.attach(family.model, *items, vdi, record) as run:
        family.run()
    assert bool(fast) == is_fast
    pattern = run["record"].values.double()
    rows = -torch.xlogy(pattern, pattern).sum(-1)
    mask = family.kwargs.get("attention_mask", torch.ones(3, 7))
    expected = (rows * mask[:, None]).sum((0, 2)) / mask.sum()
    torch.testing.assert_close(run["attention_entropy"].values[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("edits", [[], [pk.SetPattern(halved_in_place)]])
def test_inference_mode_takes_the_form_that_no_grad_takes(built, fast, edits):
    """The seam's softmax leaves inference mode, so that the pattern counts edits in place."""
    family = built("native")
    with torch.inference_mode(), pk.attach(family.model, *edits, pk.VDI()) as run:
        family.model(*family.args)
    assert len(fast) == (0 if edits else 2)  # one a layer
    with pk.attach(family.model, *edits, pk.VDI()) as expected:
        family.run()
    torch.testing.assert_close(run["vdi"].values, expected["vdi"].values)


def test_the_context_is_withdrawn(built):
    """Before the attachment ends: it holds scores, which are large."""
    for name in ("native", "gpt2"):
        points = built(name).model.hook_dict.values()
        with pk.attach(built(name).model, pk.VDI()):
            built(name).run()
            assert all(seam.context_of(point) is None for point in points)


def test_vdi_is_differentiable_where_it_is_asked_to_be(built, normaliser, order):
    """The slope of VDI in a factor on the scores, against differences."""
    family = built("native")

    def vdi(factor: Tensor) -> Tensor:
        item = pk.VDI(normaliser=normaliser, order=order, differentiable=True)
        with pk.attach(family.model, pk.Edit("0.scores", lambda s: s * factor), item) as run:
            family.model(*family.args)
        return run["vdi"].values[0].sum()

    factor = torch.tensor(1.5, requires_grad=True)
    (slope,) = torch.autograd.grad(vdi(factor), factor)
    step = 0.05
    with torch.no_grad():
        near = vdi(factor + step) - vdi(factor - step)
        far = vdi(factor + 2 * step) - vdi(factor - 2 * step)
    expected = (8 * near - far) / (12 * step)
    assert expected.abs() > 1e-3
    torch.testing.assert_close(slope.double(), expected, rtol=2e-2, atol=1e-4)
