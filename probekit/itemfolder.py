"""A folder of items: save it here, attach it in another process, read the same logits bit for bit.

    pk.save_items([pk.SwapQK(donor), pk.HeadScale(0, 1, 0.5)], "lesion")
    items = pk.load_items("lesion")

It holds `items.toml`, a table an item in their order, and beside it what is not plain data: see
:mod:`probekit.storage`.
"""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tomli_w

from .errors import ProbekitError
from .files import read_toml
from .items import Item
from .marks import marks
from .runs import write_atomic
from .storage import Functions, Reader, Writer

_FILE = "items.toml"


def save_items(items: Iterable[Item], folder: str | Path) -> Path:
    """Write items, in their order, to ``folder``; :func:`load_items` reads them back.

    The folder appears whole or not at all. One that an earlier call wrote is replaced. A modulator
    that several items share is written once, and they share it again when they are read.

    Raises:
        ProbekitError: as :func:`to_dict`, or the folder holds something else.
    """
    folder = Path(folder).resolve()
    _require_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        new = Path(scratch, "new")
        new.mkdir()
        writer = Writer(new)
        tables = [_as_toml(writer.store(item)) for item in items]
        write_atomic(new / _FILE, "\n".join(tables).encode())
        _put(new, folder, Path(scratch, "old"))
    return folder


def load_items(folder: str | Path, functions: Functions | None = None) -> list[Item]:
    """The items that :func:`save_items` wrote, in their order.

    Args:
        folder: theirs.
        functions: the functions among their fields, by the names they were stored under.

    Raises:
        ProbekitError: as :func:`from_dict`, naming file and item; or no readable ``items.toml``.
    """
    folder = Path(folder)
    reader = Reader(folder, functions or {})
    tables = _read_tables(folder / _FILE)
    reader.require_functions(tables)
    items: list[Item] = []
    for number, table in enumerate(tables, 1):
        try:
            items.append(reader.load(table))
        except ProbekitError as error:
            raise ProbekitError(f"{folder / _FILE}, item {number}: {error}") from error
    return items


def _as_toml(stored: dict[str, Any]) -> str:
    # Of several short tables in a list tomli_w makes one line, which is hard to read and edit.
    return "[[item]]" + tomli_w.dumps({"item": stored}).removeprefix("[item]")


def _read_tables(path: Path) -> list[dict[str, Any]]:
    content = read_toml(path, "pk.save_items writes such a file")
    tables = content.get("item", [])
    if set(content) - {"item"} or not isinstance(tables, list):
        raise ProbekitError(f"{path} holds {', '.join(content)}; only [[item]] tables belong there")
    for number, table in enumerate(tables, 1):
        if not isinstance(table, dict):
            raise ProbekitError(f"{path}, item {number} is {table!r}, not a table")
    return tables


def _require_replaceable(folder: Path) -> None:
    """Refuse to replace anything that :func:`save_items` did not write."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ProbekitError(f"{folder} is a file; give a folder")
    there = {path.name for path in folder.iterdir()}
    if there and _FILE not in there:
        raise ProbekitError(f"{folder} is not empty and holds no {_FILE}; give another folder")
    if there:
        ours = {name for table in _read_tables(folder / _FILE) for _, name in marks(table)}
        others = sorted(there - ours - {_FILE})
        if others:
            raise ProbekitError(
                f"{folder} also holds {', '.join(others)}, which saving would delete; give "
                "another folder, or move them"
            )


def _put(new: Path, folder: Path, old: Path) -> None:
    """Put ``new`` in the place of ``folder``, whose content goes to ``old``."""
    if not folder.exists():
        os.replace(new, folder)
        return
    os.replace(folder, old)
    try:
        os.replace(new, folder)
    except BaseException:
        os.replace(old, folder)
        raise
