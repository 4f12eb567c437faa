"""SwapWeights: put another model's weights, fresh random ones, or zeros in the place of some."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..errors import ProbekitError, unknown
from ..hooked.equilibrium_model import EquilibriumModel
from ..hooked.load import random_twin
from ..hooked.model import HookedModel
from ..hooked.parameters import WeightSlice, parameter_names
from ..hooked.selection import Selection
from ..items import WeightChange, describe
from ..journal import written
from .selecting import SelectsWeights

#: A model, or weights by their address as :func:`donor_weights` names them, or a word.
Donor = nn.Module | Mapping[str, Tensor] | str


_DONOR_SEED = 2**31


@dataclass(frozen=True, repr=False)
class SwapWeights(SelectsWeights):
    """The selected weights of ``donor`` take the place of the model's while attached.

    One way: the donor is only read. Heads are true heads: their rows of W_Q, W_K, W_V with their
    biases, their columns of W_O (whose bias belongs to no head and goes along only with all
    heads). The identity is a donor with the same weights. On exit the model's own numbers come
    back bit for bit, whatever was trained in between (in the model's new precision, if it was
    converted); a backward through a forward with swapped weights must happen before.

    Args:
        donor: a model of the same shape; ``"random"``, fresh weights from the model's own
            initialisation law; ``"zero"``; or the tensors of :func:`donor_weights`.
        parts: of Q, K, V, O, MLP, LN, EMBED, POS, UNEMBED. Tied weights (T5's EMBED and UNEMBED)
            change together. Parameters of no part stay: layer scales, norms of queries and keys,
            poolers, projections and heads beyond the unembedding, class and mask tokens that no
            embedding holds.
        layers, heads: indices; None means all.
        stack, attn: where there are several; None means all.
        seed: of ``donor="random"``.

    Raises:
        ProbekitError: a part, layer or head that the model lacks, or a donor of another shape
        (every difference is listed); nothing has been written by then.

    Source: the routing swap of "Conservation of Separability", section 15.1; model stitching.
    """

    donor: Donor
    parts: Sequence[str] = ("Q", "K")
    layers: Sequence[int] | None = None
    heads: Sequence[int] | None = None
    stack: str | None = None
    attn: str | None = None
    seed: int = 0

    source: ClassVar[str] = "Conservation of Separability, 15.1 (routing swap)"

    def __post_init__(self) -> None:
        _check_donor(self.donor)
        super().__post_init__()

    def prepare(self, model: nn.Module) -> AbstractContextManager[list[WeightChange]]:
        own = self.selection.find(model)
        return _swapped(model, own, _donated(self.donor, self.selection, own, model, self.seed))

    def __repr__(self) -> str:
        return describe(self)


def SwapQK(
    donor: Donor,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    stack: str | None = None,
    attn: str | None = None,
    seed: int = 0,
) -> SwapWeights:
    """``SwapWeights`` of Q and K: the routing of ``donor``, true Q and K with their biases."""
    return SwapWeights(donor, ("Q", "K"), layers, heads, stack, attn, seed)


@dataclass(frozen=True, repr=False)
class SwapPackedRows(SelectsWeights):
    """The published "QK swap of k heads": the leading rows of the packed [Q; K; V] projection.

    The write-up copies the first k/n of the 3·d rows of PyTorch's packed ``in_proj`` weight and
    bias and calls them k heads. For n = 4 and d = 128, k = 1 is 96 rows: three of four heads of Q
    and nothing of K; k = 2 is all of Q and half of K; k = 4 is all of Q, K **and V**. Here to
    reproduce its numbers; for what the name promises use ``SwapQK``.

    Args:
        donor: as in :class:`SwapWeights`.
        rows: how many leading rows of [Q; K; V], in each selected layer.
        layers: indices; None means all.
        seed: of ``donor="random"``.

    Raises:
        ProbekitError: more rows than there are, no row, or a donor of another shape.

    Source: "Conservation of Separability", section 13.4.
    """

    donor: Donor
    rows: int
    layers: Sequence[int] | None = None
    seed: int = 0

    source: ClassVar[str] = "Conservation of Separability, 13.4 (as published)"

    def __post_init__(self) -> None:
        _check_donor(self.donor)
        if self.rows < 1:
            raise ProbekitError(f"rows is a whole number from 1, not {self.rows!r}")
        super().__post_init__()

    @property
    def selection(self) -> Selection:
        """The matrices that the rows are taken from."""
        return Selection(("Q", "K", "V"), self.layers)

    def prepare(self, model: nn.Module) -> AbstractContextManager[list[WeightChange]]:
        own = self.selection.find(model)
        new = _donated(self.donor, self.selection, own, model, self.seed)
        rows: list[WeightSlice] = []
        values: list[Tensor] = []
        left: dict[tuple[str, str], int] = {}
        for each, value in zip(own, new, strict=True):
            # "0.Q.weight" -> ("0", "weight"): weights and biases are packed apart, layer by layer
            layer, _part, kind = each.address.rsplit(".", 2)
            start = left.setdefault((layer, kind), self.rows)
            taken = min(start, len(each.view))
            left[layer, kind] = start - taken
            if taken:
                address = f"{each.address}[:{taken}]"
                rows.append(WeightSlice(address, each.parameter, each.view[:taken]))
                values.append(value[:taken])
        for (layer, _), over in left.items():
            if over:
                raise ProbekitError(
                    f"rows={self.rows}: layer {layer} has {self.rows - over} rows of [Q; K; V]"
                )
        return _swapped(model, rows, values)

    def __repr__(self) -> str:
        return describe(self)


def donor_weights(model: nn.Module, selection: Selection) -> dict[str, Tensor]:
    """The selected weights of ``model`` by address, copied: a donor that can be stored."""
    return {each.address: each.view.clone() for each in selection.find(model)}


def _check_donor(donor: object) -> None:
    if isinstance(donor, str) and donor not in ("random", "zero"):
        raise ProbekitError(f"{unknown('donor', donor, ('random', 'zero'))}; or give a model")
    if not isinstance(donor, str | nn.Module | Mapping):
        raise ProbekitError(f"donor is a model, 'random' or 'zero', not {type(donor).__name__}")


def _donated(
    donor: Donor, selection: Selection, own: list[WeightSlice], model: nn.Module, seed: int
) -> list[Tensor]:
    """A new value for each slice of ``own``.

    Raises:
        ProbekitError: the donor has other slices; the message lists every difference.
    """
    if donor == "zero":
        return [torch.zeros_like(each.view) for each in own]
    if donor == "random":
        if not isinstance(model, HookedModel | EquilibriumModel):
            raise ProbekitError("donor='random' needs a model of pk.load or pk.wrap")
        # Not the seed itself: a model of that very seed would be swapped with itself.
        donor = random_twin(model, _DONOR_SEED + seed)
    if isinstance(donor, nn.Module):
        donor = {each.address: each.view for each in selection.find(donor)}
    assert isinstance(donor, Mapping)
    wrong = [f"the donor lacks {each.address}" for each in own if each.address not in donor]
    wrong += [
        f"{each.address} is {tuple(each.view.shape)} here and {tuple(donor[each.address].shape)} "
        "in the donor"
        for each in own
        if each.address in donor and donor[each.address].shape != each.view.shape
    ]
    if wrong:
        raise ProbekitError(
            f"the donor has another shape ({'; '.join(wrong)}); swap between models of one config"
        )
    return [donor[each.address].detach().clone() for each in own]


@contextmanager
def _swapped(
    model: nn.Module, slices: list[WeightSlice], values: list[Tensor]
) -> Iterator[list[WeightChange]]:
    norms = [
        float(torch.linalg.vector_norm(value.to(each.view) - each.view))
        for each, value in zip(slices, values, strict=True)
    ]
    names = parameter_names(model)
    changes = [
        WeightChange(each.address, names.get(each.parameter, ""), "swapped", norm)
        for each, norm in zip(slices, norms, strict=True)
    ]
    with written(model, slices, values):
        yield changes
