"""Malformed files: what fuzz tests write in the place of a good one, and what they then demand.

`FUZZ_FACTOR=50 pytest tests/fuzz` tries fifty times as many as a usual run.
"""

import copy
import json
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tomli_w
from hypothesis import settings
from hypothesis import strategies as st

from probekit.errors import ProbekitError

# Words in the place of what json and tomli_w cannot write.
HUGE, DEEP, HALF = "@huge", "@deep", "@half"
_WRITTEN = {
    f'"{HUGE}"': "9" * 5000,
    f'"{DEEP}"': "[" * 10_000 + "]" * 10_000,
    f'"{HALF}"': '"\\ud800"',  # half a surrogate pair
}
NUMBERS = [0, 1, -1, 10**12, 2**63 - 1, 2**63, -(2**70), 10**30, 0.5, -0.0, 1e308]
NUMBERS += [float("nan"), float("inf"), True, HUGE]
WORDS = ["", "x", "é", "../../x", "/etc/passwd", "a\0b", "y" * 5000, "0:0.z", "\n", HALF]
NODES = [*NUMBERS, *WORDS, None, [], {}, [1, "a"], [[1.0]], {"a": 1}, {"none": True}, DEEP]

nodes = st.sampled_from(NODES).map(copy.deepcopy)  # some are changed in their turn


def examples(number: int) -> settings:
    """As many examples; more of them by `FUZZ_FACTOR`."""
    return settings(max_examples=number * int(os.environ.get("FUZZ_FACTOR", "1")))


@st.composite
def changed_trees(draw: Any, tree: Any) -> Any:
    """A mapping or list in which one to three nodes are others, are gone, or are new."""
    tree = json.loads(json.dumps(tree))
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(tree))
        inside, key = places[draw(st.integers(0, len(places) - 1))]
        how = draw(st.sampled_from(["change", "change", "change", "drop", "add"]))
        if how == "drop":
            del inside[key]
        elif how == "add" and isinstance(inside, dict):
            inside[draw(st.sampled_from(["x", "", "item", "step", "../x"]))] = draw(nodes)
        else:
            inside[key] = draw(nodes)
        if not tree:
            break
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every node, as what it lies in and its key there."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in list(inner):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)


def as_json(tree: Any) -> bytes:
    return _written(json.dumps(tree))


def as_toml(tree: Any) -> bytes:
    return _written(tomli_w.dumps(_without_none(tree)))


def _written(text: str) -> bytes:
    for word, meant in _WRITTEN.items():
        text = text.replace(word, meant)
    return text.encode()


def _without_none(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_none(value) for key, value in tree.items() if value is not None}
    if isinstance(tree, list):
        return [_without_none(value) for value in tree if value is not None]
    return tree


@st.composite
def changed_bytes(draw: Any, data: bytes) -> bytes:
    """A file that was cut, had something put into it or twice, or is in another encoding."""
    place = draw(st.integers(0, len(data)))
    put = draw(st.sampled_from([b"", b"\0", b"\xff", b"\n", b"[" * 10_000, b'"', b"9" * 5000]))
    end = draw(st.sampled_from([place, place, len(data), min(place + 7, len(data))]))
    cut = data[:place] + put + data[end:]
    return draw(
        st.sampled_from([cut, cut, cut, data * 2, data.decode("latin-1").encode("utf-16"), b""])
    )


@st.composite
def changed_tensors(draw: Any, data: bytes) -> bytes:
    """A safetensors file that was cut, or whose header says something else."""
    how = draw(st.sampled_from(["cut", "length", "header", "header", "header", "bytes"]))
    if how == "cut":
        return data[: draw(st.integers(0, len(data) - 1))]
    if how == "bytes":
        return draw(changed_bytes(data))
    (length,) = struct.unpack("<Q", data[:8])
    if how == "length":
        other = draw(st.sampled_from([0, 1, length - 1, length + 1, 2**31, 2**62, 2**64 - 1]))
        return struct.pack("<Q", other) + data[8:]
    header = json.loads(data[8 : 8 + length])
    names = sorted(set(header) - {"__metadata__"})
    kinds = ["dtype", "shape", "offsets", "name", "gone"] if names else []
    kind = draw(st.sampled_from([*kinds, "any"]))
    name = draw(st.sampled_from(names)) if names else ""
    one = header.get(name)
    if kind == "dtype":
        # Those of four bytes keep the size right, so that the header is believed.
        one["dtype"] = draw(st.sampled_from(["I32", "U32", "F16", "F4", "F8_E8M0", "C64", "X"]))
    elif kind == "shape":
        shape = one["shape"]
        one["shape"] = draw(st.sampled_from([shape[::-1], [*shape, 1], [2**62], [0], [-1], "x"]))
    elif kind == "offsets":
        one["data_offsets"] = draw(st.sampled_from([[0, 0], [0, 2**62], [-1, 4], [5, 1], 3]))
    elif kind == "name":
        header[draw(st.sampled_from(WORDS[:-1]))] = header.pop(name)
    elif kind == "gone":
        del header[name]
    else:
        header = draw(changed_trees(header))
    return with_header(header, data[8 + length :])


def with_header(header: Any, data: bytes) -> bytes:
    """A safetensors file of that header and those bytes of tensors."""
    text = as_json(header)
    return struct.pack("<Q", len(text)) + text + data


@contextmanager
def refused_well(*names: object) -> Iterator[None]:
    """What is done in the block ends well, or in a ProbekitError that says one of ``names``."""
    try:
        yield
    except ProbekitError as error:
        assert any(str(name) in str(error) for name in names), str(error)


def only_reads(folder: Path, read: Callable[[], Any], *names: object) -> Any:
    """What ``read`` gives; None where it refuses well. No file below ``folder`` may change."""
    before, found = contents(folder), None
    with refused_well(*names):
        found = read()
    assert contents(folder) == before
    return found


def contents(folder: Path) -> dict[Path, bytes | None]:
    """Every file below a folder with its bytes; of folders the names."""
    paths = sorted(folder.rglob("*"))
    return {path: path.read_bytes() if path.is_file() else None for path in paths}
