"""FreezeWeights: hold some weights still while everything else trains."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from ..flags import let_gradient, stop_gradient
from ..hooked.parameters import PARTS, Selection, WeightSlice
from ..items import WeightChange, WeightIntervention


@dataclass(frozen=True)
class FreezeWeights(WeightIntervention):
    """Time stands still for the selected weights: whatever an optimizer does, they do not move.

    A frozen slice gets no gradient (it does not count in a clipped norm either), no weight decay,
    and no push from momentum; its part of the optimizer's state is afterwards what it was before,
    so that nothing learnt or decayed meanwhile leaks out when it thaws. Any ``torch.optim``
    optimizer will do, made before or during the attachment. Weights written by hand are not
    watched.

    Args:
        parts: of Q, K, V, O, MLP, LN, EMBED, POS, UNEMBED; or ``"all"``, the whole model with
            what belongs to none of these.
        layers, heads: indices, of true heads; None means all.
        stack, attn: where there are several; None means all.

    Raises:
        ProbekitError: a part, layer or head that the model lacks.

    Source: the frozen routing of "Conservation of Separability", 15.5-15.6 (which froze Q, K and
    V: ``parts=("Q", "K", "V")``).
    """

    parts: Sequence[str] | Literal["all"]
    layers: Sequence[int] | None = None
    heads: Sequence[int] | None = None
    stack: str | None = None
    attn: str | None = None

    source: ClassVar[str] = "Conservation of Separability, 15.5-15.6"

    def __post_init__(self) -> None:
        for name in ("parts", "layers", "heads"):
            value = getattr(self, name)
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        _ = self.selection

    @property
    def selection(self) -> Selection:
        """What is frozen; with ``parts="all"`` what else is given must still be sound."""
        parts = PARTS if self.parts == "all" else self.parts
        return Selection(parts, self.layers, self.heads, self.stack, self.attn)

    def prepare(self, model: nn.Module) -> AbstractContextManager[list[WeightChange]]:
        if self.parts == "all":
            whole = dict(model.named_parameters())
            return _frozen(model, [WeightSlice(n, p, p.detach()) for n, p in whole.items()])
        return _frozen(model, self.selection.find(model))


@contextmanager
def _frozen(model: nn.Module, slices: list[WeightSlice]) -> Iterator[list[WeightChange]]:
    held = _masks(model, slices)
    saved = {parameter: parameter.detach()[mask] for parameter, mask in held.items()}
    states: dict[tuple[nn.Parameter, str], Tensor] = {}

    def before_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        states.clear()
        for parameter, mask in held.items():
            if parameter.grad is not None:
                parameter.grad[mask] = 0
            for key, value in _like(optimizer, parameter):
                states[parameter, key] = value[mask]

    @torch.no_grad()
    def after_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        own = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for parameter, mask in held.items():
            if id(parameter) in own:
                parameter[mask] = saved[parameter]
            for key, value in _like(optimizer, parameter):
                value[mask] = states.get((parameter, key), torch.zeros_like(value[mask]))

    with ExitStack() as cleanup:
        for parameter, mask in held.items():
            _stop_gradient(parameter, mask, cleanup)
        cleanup.callback(register_optimizer_step_pre_hook(before_step).remove)
        cleanup.callback(register_optimizer_step_post_hook(after_step).remove)
        names = {id(p): n.replace("._original_component", "") for n, p in model.named_parameters()}
        yield [
            WeightChange(each.address, names.get(id(each.parameter), ""), "frozen")
            for each in slices
        ]


def _masks(model: nn.Module, slices: list[WeightSlice]) -> dict[nn.Parameter, Tensor]:
    """Which numbers of each parameter are frozen; parameters may share memory (tied, fused)."""
    shadows: dict[int, Tensor] = {}
    for each in slices:
        storage = each.view.untyped_storage()
        size = storage.nbytes() // each.view.element_size()
        blank = torch.zeros(size, dtype=torch.bool, device=each.view.device)
        shadow = shadows.setdefault(storage.data_ptr(), blank)
        _same_memory(shadow, each.view).fill_(True)
    masks: dict[nn.Parameter, Tensor] = {}
    for parameter in dict.fromkeys(model.parameters()):
        shadow = shadows.get(parameter.untyped_storage().data_ptr())
        if shadow is None:
            continue
        mask = _same_memory(shadow, parameter)
        if mask.any():
            masks[parameter] = mask
    return masks


def _same_memory(shadow: Tensor, tensor: Tensor) -> Tensor:
    """The elements of ``shadow``, as long as the storage, that lie where those of ``tensor`` do."""
    return shadow.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def _stop_gradient(parameter: nn.Parameter, mask: Tensor, cleanup: ExitStack) -> None:
    if mask.all():  # nothing to compute
        stop_gradient(parameter)
        cleanup.callback(let_gradient, parameter)
    elif parameter.requires_grad:
        hook = parameter.register_hook(lambda gradient: gradient.masked_fill(mask, 0))
        cleanup.callback(hook.remove)


def _like(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> list[tuple[str, Tensor]]:
    """The parts of the optimizer's state that belong to single numbers of ``parameter``."""
    state = optimizer.state.get(parameter, {})
    return [
        (key, value)
        for key, value in state.items()
        if isinstance(value, Tensor) and value.shape == parameter.shape
    ]
