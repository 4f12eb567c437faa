"""The small tables in which stored items hold what TOML has no word for; see probekit.storage."""

from collections.abc import Iterator, Mapping
from typing import Any

#: The keys of each kind of table; the first names the kind.
MARKS = (
    ("function",),
    ("tensor",),
    ("tensors",),
    ("modulator", "training"),
    ("mapping",),
    ("none",),
)
#: The kinds whose value is the name of a file or folder.
IN_FILES = ("tensor", "tensors", "modulator")


def marks(table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Kind and name of each function, file and folder that a stored mapping refers to."""
    for value in table.values():
        yield from _marks_of(value)


def _marks_of(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, list | tuple):
        for each in value:
            yield from _marks_of(each)
    elif isinstance(value, Mapping):
        if isinstance(value.get("mapping"), Mapping):
            yield from marks(value["mapping"])
        for kind in ("function", *IN_FILES):
            if isinstance(value.get(kind), str):
                yield kind, value[kind]
