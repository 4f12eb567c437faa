"""What can be attached: observers, which read, and interventions, which edit.

Every concrete one is a frozen dataclass in its own file: fields are its parameters, checked in
``__post_init__``; what accumulates during a run lives in the :class:`~probekit.attachment.
Attachment`, so that one item may be attached to many models.
"""

import dataclasses
import functools
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from torch import Tensor, nn

from .errors import ProbekitError
from .hooksite import HookSite
from .measurement import Measurement
from .seam import AttentionContext
from .site import Site


@dataclass(frozen=True)
class Firing:
    """One firing of a hook: where, and the how-manieth of its forward pass.

    ``iteration`` counts firings of the same hook within one forward (relaxation, generation),
    ``forward`` the forwards of the attachment from 1. ``attention`` holds mask and scores where
    the site is a pattern; ``tokens`` the ids that the site's stack embeds, for items that ask for
    them (``needs_tokens``).
    """

    site: HookSite
    iteration: int
    attention: AttentionContext | None = None
    forward: int = 1
    tokens: Tensor | None = None


class Intervention(ABC):
    """Edits activations; returns the edited tensor, or the same one changed in place."""

    #: Where the definition comes from, and what the identity setting is.
    source: ClassVar[str] = ""
    #: Whether ``edit`` reads :attr:`Firing.tokens`.
    needs_tokens: ClassVar[bool] = False

    @abstractmethod
    def sites(self) -> tuple[Site, ...]:
        """The addresses to edit."""

    @abstractmethod
    def edit(self, x: Tensor, at: Firing) -> Tensor:
        """The tensor that takes the place of ``x`` (its head's slice, where the site has one)."""


@dataclass(frozen=True)
class WeightChange:
    """What a weight intervention did to one parameter, for the receipt: ``norm`` is L2."""

    address: str
    parameter: str
    edit: Literal["swapped", "frozen"]
    norm: float | None = None


class WeightIntervention(ABC):
    """Edits or holds weights while attached."""

    #: Where the definition comes from.
    source: ClassVar[str] = ""

    @abstractmethod
    def prepare(self, model: nn.Module) -> AbstractContextManager[list[WeightChange]]:
        """Check everything now; the change itself happens on entry and is undone on exit."""


@dataclass(frozen=True, kw_only=True)
class Observer(ABC):
    """Reads activations and streams them into sufficient statistics.

    Args:
        name: the key of the result in the attachment; None means the class in snake case.
        iterations: which firings within one forward count: ``"first"``, ``"last"``, ``"all"`` or
            every k-th (an int). With ``"all"`` or k the result gains a dimension ``iteration``.
        differentiable: keep the graph, so that a loss may be taken of the result.
    """

    name: str | None = None
    iterations: Literal["first", "last", "all"] | int = "last"
    differentiable: bool = False

    #: Where the definition comes from, and the null that its values are read against.
    source: ClassVar[str] = ""
    null_name: ClassVar[str] = ""
    #: Whether ``measure`` reads :attr:`Firing.tokens`.
    needs_tokens: ClassVar[bool] = False

    def __post_init__(self) -> None:
        plain_numbers(self)
        every = self.iterations
        number = isinstance(every, int) and not isinstance(every, bool) and every > 0
        if every not in ("first", "last", "all") and not number:
            raise ProbekitError(
                f"iterations is 'first', 'last', 'all' or a positive whole number, not {every!r}"
            )

    @property
    def key(self) -> str:
        """The name of the result."""
        return self.name or snake_case(type(self).__name__)

    @abstractmethod
    def sites(self) -> tuple[Site, ...]:
        """The addresses to read."""

    @abstractmethod
    def measure(self, x: Tensor, at: Firing) -> Any:
        """The sufficient statistics of one firing."""

    @abstractmethod
    def combine(self, total: Any, new: Any) -> Any:
        """The statistics of both; must be associative."""

    @abstractmethod
    def finish(self, totals: Mapping[HookSite, Any]) -> Measurement:
        """The result, from the statistics of every site."""


Item = Intervention | WeightIntervention | Observer


def plain_numbers(item: Any) -> None:
    """Make Python's numbers of NumPy's, which tables hand out, in the fields of a dataclass."""
    for field in dataclasses.fields(item):
        value = getattr(item, field.name)
        if isinstance(value, np.generic):
            object.__setattr__(item, field.name, value.item())


def require_item(item: object) -> None:
    """Refuse what cannot be attached.

    Raises:
        ProbekitError: neither an observer nor an intervention; a class in place of an instance.
    """
    if isinstance(item, type) and issubclass(item, Item):
        raise ProbekitError(f"{item.__name__} is a class; give an instance, {item.__name__}(...)")
    if not isinstance(item, Item):
        raise ProbekitError(
            f"{item!r} is neither an observer nor an intervention; "
            "see pk.list_probes() and pk.list_interventions()"
        )


def describe(item: object) -> str:
    """``item`` as an expression without the fields that hold their defaults."""
    if not dataclasses.is_dataclass(item):
        return repr(item)
    fields = [
        f"{field.name}={_short(getattr(item, field.name))}"
        for field in dataclasses.fields(item)
        if not is_default(getattr(item, field.name), field)
    ]
    return f"{type(item).__name__}({', '.join(fields)})"


def is_default(value: object, field: dataclasses.Field) -> bool:
    """Whether a field holds its default; tensors, whose ``==`` is no yes or no, by identity."""
    factory = field.default_factory
    default = field.default if factory is dataclasses.MISSING else factory()
    return value is default or (_is_plain(value) and repr(value) == repr(default))


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return value is None or isinstance(value, str | int | float | slice | Site)


def _short(value: object) -> str:
    large = isinstance(value, nn.Module | Tensor | Mapping) and not _is_plain(value)
    return f"<{type(value).__name__}>" if large else repr(value)


@functools.cache  # asked at each firing
def snake_case(name: str) -> str:
    """``"AttentionEntropy"`` -> ``"attention_entropy"``; ``"VDI"`` -> ``"vdi"``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
