"""The registry: which probes and interventions there are, and how to store one.

Third parties add theirs through the entry-point groups ``probekit.probes`` and
``probekit.interventions``; the entry's value is the class.
"""

import dataclasses
import inspect
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pandas as pd

from .errors import ProbekitError, unknown
from .interventions import AttentionScale, Edit, HeadScale, SetPattern
from .items import Intervention, Item, Observer
from .probes import VDI, AttentionEntropy, Record
from .site import Site

GROUPS: dict[str, tuple[type, ...]] = {
    "probekit.probes": (VDI, AttentionEntropy, Record),
    "probekit.interventions": (HeadScale, AttentionScale, SetPattern, Edit),
}


def items(group: str) -> dict[str, type]:
    """Every class of a group by name, ours and installed ones.

    Raises:
        ProbekitError: two owners of one name (both are named), or an entry that is no item.
    """
    base = Observer if group == "probekit.probes" else Intervention
    owners = {cls.__name__: cls.__module__ for cls in GROUPS[group]}
    found: dict[str, type] = {cls.__name__: cls for cls in GROUPS[group]}
    for entry in entry_points(group=group):
        cls = _loaded(entry, base)
        if cls.__name__ in found and found[cls.__name__] is not cls:
            raise ProbekitError(
                f"two {group} are named {cls.__name__!r}: {owners[cls.__name__]} and "
                f"{entry.value}; "
                "uninstall or rename one of them"
            )
        found[cls.__name__], owners[cls.__name__] = cls, entry.value
    return found


def list_probes() -> pd.DataFrame:
    """The observers: name, what each reads, its null, and its source."""
    return pd.DataFrame(
        [
            {
                "name": name,
                "reads": _summary(cls),
                "null": cls.null_name,
                "source": cls.source,
            }
            for name, cls in items("probekit.probes").items()
        ]
    )


def list_interventions() -> pd.DataFrame:
    """The interventions: name, what each edits, and its source."""
    return pd.DataFrame(
        [
            {"name": name, "edits": _summary(cls), "source": cls.source}
            for name, cls in items("probekit.interventions").items()
        ]
    )


def to_dict(item: Item) -> dict[str, Any]:
    """``item`` as plain data: ``{"item": class name, field: value, ...}``; defaults left out.

    Raises:
        ProbekitError: a field holds a function (SetPattern, Edit), which cannot be stored.
    """
    stored: dict[str, Any] = {"item": type(item).__name__}
    for field in dataclasses.fields(item):  # type: ignore[arg-type]
        value = getattr(item, field.name)
        if callable(value):
            raise ProbekitError(
                f"{type(item).__name__}.{field.name} is a function, which cannot be stored; "
                "store the code that builds it instead"
            )
        if value != field.default:
            stored[field.name] = str(value) if isinstance(value, Site) else value
    return stored


def from_dict(stored: Mapping[str, Any]) -> Item:
    """The item that :func:`to_dict` stored.

    Raises:
        ProbekitError: an unknown item or field, or a value that the item refuses.
    """
    known = {**items("probekit.probes"), **items("probekit.interventions")}
    name = stored.get("item")
    if name not in known:
        raise ProbekitError(unknown("item", str(name), known))
    fields = {field.name for field in dataclasses.fields(known[name])}
    values = {key: _thawed(value) for key, value in stored.items() if key != "item"}
    for key in values:
        if key not in fields:
            raise ProbekitError(f"{name}: {unknown('field', key, sorted(fields))}")
    try:
        return known[name](**values)
    except TypeError as error:
        raise ProbekitError(f"{name}: {error}") from error


def _thawed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _loaded(entry: EntryPoint, base: type) -> Any:
    cls = entry.load()
    if not (inspect.isclass(cls) and issubclass(cls, base)):
        raise ProbekitError(f"entry point {entry.value} is not a subclass of {base.__name__}")
    return cls


def _summary(cls: type) -> str:
    return (inspect.getdoc(cls) or "").split("\n")[0]
