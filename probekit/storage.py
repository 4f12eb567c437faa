"""Items as plain data, and a folder for what is not plain; see also :mod:`probekit.itemfolder`.

Tensors go into safetensors files, modulators into folders of their own; of a donor model the
selected weights are kept. Reading executes nothing that was stored: of a function only the name is
kept, and the reader passes the function.

A field is left out where it holds its default. What TOML has no word for is a small table:

    {function = "module:name"}                     the reader's functions["module:name"]
    {tensor = "FILE"}, {tensors = "FILE"}          a tensor, a mapping of tensors
    {modulator = "FOLDER", training = true}        see probekit.modulators
    {mapping = {...}}, {none = true}               a mapping of such values, None
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from .errors import ProbekitError, unknown
from .files import WHOLE, check_plain, is_file_name, read_tensors
from .hooked.selection import Selection
from .interventions.swap_weights import donor_weights
from .items import Item, is_default
from .marks import IN_FILES, MARKS, marks
from .modulators import LerpModulator, SimplexField, load_modulator, save_modulator
from .registry import every_item
from .runs import write_atomic
from .site import Site

#: Functions by name; checked when they are asked for.
Functions = Mapping[str, Any]

_MODULATORS = (LerpModulator, SimplexField)


def to_dict(item: Item, folder: str | Path | None = None) -> dict[str, Any]:
    """``item`` as plain data: ``{"item": class name, field: value, ...}``; defaults left out.

    Args:
        item: an observer or intervention that :func:`list_probes` or :func:`list_interventions`
            lists.
        folder: where tensors and modules are written, each under a name that is still free.

    Raises:
        ProbekitError: a class that is not registered, or with a field named ``item``; tensors or a
            module without a ``folder``; a value of a kind that cannot be stored.
    """
    return Writer(None if folder is None else Path(folder)).store(item)


def from_dict(
    stored: Mapping[str, Any],
    folder: str | Path | None = None,
    functions: Functions | None = None,
) -> Item:
    """The item that :func:`to_dict` stored; tensors and modules on the CPU.

    Args:
        stored: what :func:`to_dict` returned.
        folder: the folder it was given.
        functions: the functions by the names they were stored under.

    Raises:
        ProbekitError: no mapping, an unknown item or field, a value that the item refuses, a
            function that was not passed, or a file that is missing, damaged or outside the folder.
    """
    if not isinstance(stored, Mapping):
        raise ProbekitError(
            f"an item is read from the mapping that pk.to_dict returned, not from {stored!r}"
        )
    try:
        check_plain(stored)
    except ValueError as error:
        raise ProbekitError(f"no item is stored as this: {error}") from None
    reader = Reader(None if folder is None else Path(folder), functions or {})
    reader.require_functions([stored])
    return reader.load(stored)


@dataclass(frozen=True)
class Writer:
    """Turns items into plain data.

    ``functions`` are those met so far, by name, and ``modules`` the modulators, by their folder's:
    items that share one go on sharing it.
    """

    folder: Path | None
    functions: dict[str, Any] = field(default_factory=dict)
    modules: dict[str, nn.Module] = field(default_factory=dict)

    def store(self, item: Item) -> dict[str, Any]:
        cls = type(item)
        if every_item().get(cls.__name__) is not cls:
            raise ProbekitError(
                f"{cls.__module__}.{cls.__qualname__} is not registered, so it could not be read "
                "back; offer it through an entry point, as examples/plugin does"
            )
        stored: dict[str, Any] = {"item": cls.__name__}
        for each in dataclasses.fields(item):  # type: ignore[arg-type]
            if each.name in stored and each.init:
                raise ProbekitError(
                    f"{cls.__name__} has a field {each.name!r}, under which the class itself is "
                    "stored; give the field another name"
                )
            value = getattr(item, each.name)
            if each.init and not is_default(value, each):
                place = f"{cls.__name__}.{each.name}"
                stored[each.name] = self._value(place, _donated(item, value))
        return stored

    def _value(self, place: str, value: Any) -> Any:
        if isinstance(value, np.generic):
            value = value.item()
        if value is None:
            return {"none": True}
        if isinstance(value, int) and value not in WHOLE:
            raise ProbekitError(f"{place} takes more than 64 bits; give a smaller number")
        if isinstance(value, str | int | float):
            return value
        if isinstance(value, Site):
            return str(value)
        if isinstance(value, Tensor):
            return {"tensor": self._tensors(place, {"value": value})}
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            if value and all(isinstance(each, Tensor) for each in value.values()):
                return {"tensors": self._tensors(place, value)}
            return {"mapping": {key: self._value(place, each) for key, each in value.items()}}
        if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
            return [self._value(place, each) for each in value]
        if isinstance(value, nn.Module) and (isinstance(value, _MODULATORS) or value.state_dict()):
            return self._module(place, value)
        if callable(value):
            return {"function": self._name(value)}
        raise ProbekitError(
            f"{place} is of type {type(value).__name__}, which cannot be stored; give numbers, "
            "text, sites, tensors, functions, or sequences and mappings of them"
        )

    def _name(self, fn: Any) -> str:
        """Module and qualified name; numbered where another function has the same."""
        name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
        label = f"{getattr(fn, '__module__', None) or ''}:{name}"
        return next(n for n in _numbered(label, "#") if self.functions.setdefault(n, fn) is fn)

    def _tensors(self, place: str, tensors: Mapping[str, Tensor]) -> str:
        path = self._path(place, ".safetensors")
        # Cloned: safetensors refuses tensors that share their memory.
        kept = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in tensors.items()
        }
        try:
            data = safetensors.torch.save(kept)
        except (safetensors.SafetensorError, KeyError, RuntimeError, ValueError) as error:
            raise ProbekitError(f"{place} does not go into safetensors: {error!r}") from error
        write_atomic(path, data)
        return path.name

    def _module(self, place: str, module: nn.Module) -> dict[str, Any]:
        if not isinstance(module, _MODULATORS):
            raise ProbekitError(
                f"{place} is a {type(module).__name__}, whose weights would be lost; store them "
                "yourself and give a function that calls it"
            )
        name = next((name for name, known in self.modules.items() if known is module), None)
        if name is None:
            path = self._path(place, "")
            save_modulator(module, path)
            self.modules[name := path.name] = module
        return {"modulator": name, "training": module.training}

    def _path(self, place: str, suffix: str) -> Path:
        if self.folder is None:
            raise ProbekitError(
                f"{place} holds tensors, which need a folder: use pk.save_items([item], folder), "
                "or pk.to_dict(item, folder)"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        paths = (self.folder / f"{name}{suffix}" for name in _numbered(place, "-"))
        return next(path for path in paths if not path.exists())


@dataclass(frozen=True)
class Reader:
    """Turns plain data back into items."""

    folder: Path | None
    functions: Functions
    modules: dict[str, nn.Module] = field(default_factory=dict)

    def require_functions(self, tables: Iterable[Mapping[str, Any]]) -> None:
        names = [name for table in tables for kind, name in marks(table) if kind == "function"]
        missing = [repr(name) for name in dict.fromkeys(names) if name not in self.functions]
        if missing:
            raise ProbekitError(
                "functions are stored by name only; pass "
                f"functions={{{', '.join(f'{name}: ...' for name in missing)}}}"
            )
        for name in names:
            if not callable(self.functions[name]):
                kind = type(self.functions[name]).__name__
                raise ProbekitError(f"functions[{name!r}] is of type {kind}, not a function")

    def load(self, stored: Mapping[str, Any]) -> Item:
        known = every_item()
        name = str(stored.get("item"))
        if name not in known:
            raise ProbekitError(unknown("item", name, known))
        fields = sorted(each.name for each in dataclasses.fields(known[name]) if each.init)
        for key in stored:
            if key != "item" and key not in fields:
                raise ProbekitError(f"{name}: {unknown('field', str(key), fields)}")
        values = {k: self._value(f"{name}.{k}", v) for k, v in stored.items() if k != "item"}
        try:
            return known[name](**values)
        except (TypeError, ValueError, AttributeError) as error:
            raise ProbekitError(f"{name}: {error}") from error

    def _value(self, place: str, stored: Any) -> Any:
        if isinstance(stored, list | tuple):
            return tuple(self._value(place, each) for each in stored)
        if not isinstance(stored, Mapping):
            return stored
        kind = next((keys[0] for keys in MARKS if set(keys) == set(stored)), None)
        inner = stored.get(kind) if kind else None
        if kind == "mapping" and isinstance(inner, Mapping):
            return {key: self._value(place, each) for key, each in inner.items()}
        if kind == "none" and inner is True:
            return None
        if kind == "function" and isinstance(inner, str):
            return self.functions[inner]
        if kind in IN_FILES and isinstance(inner, str):
            return self._from_file(place, kind, inner, stored)
        raise ProbekitError(
            f"{place}: the table {dict(stored)!r} is none of "
            + ", ".join(f"{{{', '.join(keys)}}}" for keys in MARKS)
        )

    def _from_file(self, place: str, kind: str, name: str, stored: Mapping[str, Any]) -> Any:
        path = self._inside(place, name)
        try:
            if kind == "modulator":
                if name not in self.modules:
                    self.modules[name] = load_modulator(path).train(bool(stored["training"]))
                return self.modules[name]
            tensors, _ = read_tensors(path, "save the items again")
        except ProbekitError as error:
            raise ProbekitError(f"{place}: {error}") from None
        if kind == "tensors":
            return tensors
        if list(tensors) != ["value"]:
            raise ProbekitError(f"{place}: {path} holds {sorted(tensors)}, not one 'value'")
        return tensors["value"]

    def _inside(self, place: str, name: str) -> Path:
        if self.folder is None:
            raise ProbekitError(
                f"{place} lies in {name!r}; give from_dict the folder that to_dict was given"
            )
        if not is_file_name(name):
            raise ProbekitError(
                f"{place}: {name!r} is not a file name; what is stored lies in the folder itself"
            )
        return self.folder / name


def _donated(item: Item, value: Any) -> Any:
    """The selected weights in the place of a donor model, which do the same."""
    selection = getattr(item, "selection", None)
    if isinstance(value, nn.Module) and isinstance(selection, Selection):
        return donor_weights(value, selection)
    return value


def _numbered(name: str, mark: str) -> Iterator[str]:
    """``name``, ``name#2``, ``name#3``, ..."""
    yield name
    yield from (f"{name}{mark}{number}" for number in count(2))
