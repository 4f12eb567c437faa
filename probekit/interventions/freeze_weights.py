"""FreezeWeights: hold some weights still while everything else trains."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from ..held import held
from ..hooked.offloaded import refuse_offloaded
from ..hooked.parameters import PARTS, WeightSlice, parameter_names
from ..hooked.regions import regions
from ..hooked.selection import Selection
from ..items import WeightChange
from .selecting import SelectsWeights


@dataclass(frozen=True)
class FreezeWeights(SelectsWeights):
    """Time stands still for the selected weights: whatever an optimizer does, they do not move.

    A frozen slice gets no gradient (it does not count in a clipped norm either), no weight decay,
    and no push from momentum; its part of the optimizer's state is afterwards what it was before,
    so that nothing learnt or decayed meanwhile leaks out when it thaws. State that is born
    meanwhile starts there as the optimizer starts it. What an optimizer keeps for a parameter as
    a whole (counts of steps, Adafactor's rows and columns) goes on where only a part of the
    parameter is frozen.

    Any ``torch.optim`` optimizer will do, made before or during the attachment, but LBFGS. Only
    steps are watched: weights that are swapped, loaded or written by hand stay as written. A step
    that raises (Ctrl-C) is taken back at the next forward, step, swap or load, or at the end. A
    ``.grad`` that is there on entry is zero in the frozen part meanwhile, and comes back on exit
    unless a backward, ``zero_grad`` or step has touched it.

    Args:
        parts: of Q, K, V, O, MLP, LN, EMBED, POS, UNEMBED; or ``"all"``, the whole model with
            what belongs to none of these.
        layers, heads: indices, of true heads; None means all.
        stack, attn: where there are several; None means all.

    Raises:
        ProbekitError: a part, layer or head that the model lacks; in the step, for LBFGS.

    Source: the frozen routing of "Conservation of Separability", 15.5-15.6 (which froze Q, K and
    V: ``parts=("Q", "K", "V")``).
    """

    parts: Sequence[str] | Literal["all"]
    layers: Sequence[int] | None = None
    heads: Sequence[int] | None = None
    stack: str | None = None
    attn: str | None = None

    source: ClassVar[str] = "Conservation of Separability, 15.5-15.6"

    @property
    def selection(self) -> Selection:
        """What is frozen; with ``parts="all"`` what else is given must still be sound."""
        parts = PARTS if self.parts == "all" else self.parts
        return Selection(parts, self.layers, self.heads, self.stack, self.attn)

    def prepare(self, model: nn.Module) -> AbstractContextManager[list[WeightChange]]:
        if self.parts == "all":
            whole = dict(model.named_parameters())
            refuse_offloaded(whole.items())
            return _frozen(model, [WeightSlice(n, p, p.detach()) for n, p in whole.items()])
        return _frozen(model, self.selection.find(model))


@contextmanager
def _frozen(model: nn.Module, slices: list[WeightSlice]) -> Iterator[list[WeightChange]]:
    names = parameter_names(model)
    with held(model, regions(model, slices)):
        yield [
            WeightChange(each.address, names.get(each.parameter, ""), "frozen") for each in slices
        ]
