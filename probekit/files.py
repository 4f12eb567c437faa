"""Reading files that others may have written, or damaged: text, plain data, tensors.

Whatever is wrong with a file, the error names it, says why, and what to do. Nothing is executed.
"""

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
from torch import Tensor

from .errors import ProbekitError

_DEEPEST = 100  # lists and tables inside each other; Python itself gives up at some hundreds
#: The whole numbers that TOML promises, and all that torch and NumPy can hold.
WHOLE = range(-(2**63), 2**63)


def read_text(path: str | Path, fix: str, kind: type[ProbekitError] = ProbekitError) -> str:
    """The text of a UTF-8 file.

    Args:
        fix: what to do where it cannot be read; it ends the error.
        kind: of the error.
    """
    with _reading(path, fix, kind):
        return Path(path).read_text(encoding="utf-8")


def read_json(path: str | Path, fix: str, kind: type[ProbekitError] = ProbekitError) -> Any:
    """What a JSON file holds; see :func:`parse_json`. Arguments as :func:`read_text`'s."""
    with _reading(path, fix, kind):
        return parse_json(Path(path).read_text(encoding="utf-8"))


def read_toml(
    path: str | Path, fix: str, kind: type[ProbekitError] = ProbekitError
) -> dict[str, Any]:
    """What a TOML file holds, as far as :func:`check_plain`. Arguments as :func:`read_text`'s."""
    with _reading(path, fix, kind):
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        check_plain(content)
        return content


def read_tensors(
    path: str | Path, fix: str, kind: type[ProbekitError] = ProbekitError
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file. Arguments as :func:`read_text`'s."""
    with opened_tensors(path, fix, kind) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, file.metadata() or {}


@contextmanager
def opened_tensors(
    path: str | Path, fix: str, kind: type[ProbekitError] = ProbekitError
) -> Iterator[Any]:
    """A safetensors file, to read some of it in the block. Arguments as :func:`read_text`'s."""
    with _reading(path, fix, kind), safetensors.safe_open(path, "pt") as file:
        yield file


def parse_json(text: str) -> Any:
    """The data that JSON stands for.

    Raises:
        ValueError: it is not JSON, holds half a surrogate pair, or see :func:`check_plain`.
        RecursionError: it is nested too deep for Python.
    """
    value = json.loads(text)
    check_plain(value)
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode()
    return value


def is_file_name(name: object) -> bool:
    """Whether it names a file of the folder that it is looked for in, on any system."""
    if not isinstance(name, str) or name in ("", ".", ".."):
        return False
    return not any(mark in name for mark in "/\\:\0")


def check_plain(value: Any) -> None:
    """Refuse data nested more than 100 deep, and whole numbers that take more than 64 bits.

    Raises:
        ValueError: it holds such.
    """
    level = [value]
    for _ in range(_DEEPEST + 1):
        if any(type(each) is int and each not in WHOLE for each in level):
            raise ValueError("a whole number in it takes more than 64 bits")
        nested = [each for each in level if isinstance(each, Mapping | list | tuple)]
        if not nested:
            return
        level = [inner for each in nested for inner in _inside(each)]
    raise ValueError(f"lists or tables in it are nested more than {_DEEPEST} deep")


def _inside(value: Mapping[Any, Any] | Sequence[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, Mapping) else value


@contextmanager
def _reading(path: str | Path, fix: str, kind: type[ProbekitError]) -> Iterator[None]:
    try:
        yield
    except RecursionError:
        raise kind(f"cannot read {path}: it is nested too deep; {fix}") from None
    except (OSError, ValueError, LookupError, safetensors.SafetensorError) as error:
        raise kind(f"cannot read {path}: {error}; {fix}") from None
