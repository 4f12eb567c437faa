"""Edit and SetPattern: any function of an activation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ..errors import ProbekitError
from ..items import Firing, Intervention
from ..site import Site, parse_site


@dataclass(frozen=True)
class Edit(Intervention):
    """Replaces the activation at ``site`` by ``fn`` of it.

    Args:
        site: an address; with a head in it ``fn`` sees that head's slice only.
        fn: tensor -> tensor of the same shape.

    Raises:
        ProbekitError: ``fn`` is not callable, or returned something else, when it fires.
    """

    site: str | Site
    fn: Callable[[Tensor], Tensor]

    source: ClassVar[str] = "activation patching"

    def __post_init__(self) -> None:
        object.__setattr__(self, "site", str(parse_site(self.site)))
        _require_callable(self.fn)

    def sites(self) -> tuple[Site, ...]:
        return (parse_site(self.site),)

    def edit(self, x: Tensor, at: Firing) -> Any:
        return self.fn(x)  # the attachment checks what it returned


@dataclass(frozen=True)
class SetPattern(Intervention):
    """Replaces attention patterns by ``fn`` of them, before the value product.

    Args:
        fn: pattern -> pattern, ``[batch, head, query, key]``, or ``[batch, query, key]`` where the
            site names a head. Rows need not sum to one afterwards.
        site: which patterns; None named means all.

    Raises:
        ProbekitError: ``site`` is not a pattern, or ``fn`` is not callable.
    """

    fn: Callable[[Tensor], Tensor]
    site: str | Site = "pattern"

    source: ClassVar[str] = "attention knockout and pattern patching"

    def __post_init__(self) -> None:
        if parse_site(self.site).part != "pattern":
            raise ProbekitError(f"SetPattern edits a pattern, not {str(self.site)!r}; use pk.Edit")
        object.__setattr__(self, "site", str(self.site))
        _require_callable(self.fn)

    def sites(self) -> tuple[Site, ...]:
        return (parse_site(self.site),)

    def edit(self, x: Tensor, at: Firing) -> Any:
        return self.fn(x)  # the attachment checks what it returned


def _require_callable(fn: object) -> None:
    if not callable(fn):
        raise ProbekitError(f"fn must be a function of a tensor, not {type(fn).__name__}")
