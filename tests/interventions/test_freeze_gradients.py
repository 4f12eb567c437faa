"""What gradients are in a freeze, and which of them come back after it."""

import families
import torch
from freezing import HEAD, q

import probekit as pk


def test_gradients_of_before_come_back_untouched_in_any_order() -> None:
    for order in ((0, 1), (1, 0)):
        family = families.native()
        family.model(*family.args).square().mean().backward()
        weight = q(family)
        own = weight.grad
        assert own is not None
        kept = own.clone()
        runs = [pk.attach(family.model, item) for item in (HEAD, pk.FreezeWeights("all"))]
        assert weight.grad is not None and not weight.grad.any()
        for index in order:
            runs[index].detach()
        assert weight.grad is own and torch.equal(own, kept)


def test_gradients_of_before_do_not_come_back_after_a_step() -> None:
    family = families.native()
    made = torch.optim.SGD(family.model.parameters(), lr=0.1)
    family.model(*family.args).square().mean().backward()
    with pk.attach(family.model, pk.FreezeWeights(("Q",))):
        made.step()
        made.zero_grad(set_to_none=False)
    gradient = q(family).grad
    assert gradient is not None and not gradient.any()


def test_gradients_accumulate_over_forwards_as_if_the_frozen_rows_stood_by() -> None:
    family, reference = families.native(), families.native()
    with pk.attach(family.model, HEAD):
        for _ in range(2):
            family.model(*family.args).square().mean().backward()
    for _ in range(2):
        reference.model(*reference.args).square().mean().backward()
    ours, theirs = q(family).grad, q(reference).grad
    assert ours is not None and theirs is not None
    assert torch.equal(ours[:32], theirs[:32]) and not ours[32:].any()


def test_the_flag_set_by_hand_brings_no_gradient_back() -> None:
    family = families.native()
    with pk.attach(family.model, pk.FreezeWeights(("Q",))):
        family.model.requires_grad_(True)
        family.model(*family.args).square().mean().backward()
        assert not float(torch.nn.utils.clip_grad_norm_([q(family)], 1e9))


def test_frozen_slices_do_not_count_in_a_clipped_norm() -> None:
    family = families.native()
    with pk.attach(family.model, pk.FreezeWeights(("Q",), heads=(0,))):
        family.model(*family.args).square().mean().backward()
    gradient = q(family).grad
    assert gradient is not None
    assert not gradient[:32].any() and gradient[32:].any()
