"""Results: a value, its units, and the null it must be read against."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from torch import Tensor

from .errors import ProbekitError
from .files import parse_json, read_tensors
from .runs import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .hooksite import HookSite


@dataclass(frozen=True, eq=False)
class Measurement:
    """What an observer measured.

    Args:
        name: the observer's name.
        values: the numbers, one axis a dimension; NaN where a coordinate does not exist (stacks
            of different depth or width).
        dims: a name for each axis, such as ``("layer", "head")``.
        coords: for each dimension its labels.
        units: what the numbers are in (``"nats"``, ``"fraction of ln T"``).
        null: what the same probe reads under its null model, broadcastable to ``values``.
        null_name: what that null is, in words.
        null_reason: why there is no null; required where ``null`` is None.
        provenance: the probe and what it read: strings and numbers only.
        rows: the same measurement resolved by query, where the probe keeps it.

    Raises:
        ProbekitError: the axes do not match the names, or a null is missing without a reason.
    """

    name: str
    values: Tensor
    dims: tuple[str, ...]
    coords: Mapping[str, Sequence[Any]]
    units: str
    null: Tensor | None
    null_name: str = ""
    null_reason: str | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    rows: "Measurement | None" = None

    def __post_init__(self) -> None:
        lengths = tuple(len(self.coords.get(dim, ())) for dim in self.dims)
        if lengths != tuple(self.values.shape):
            raise ProbekitError(
                f"measurement {self.name!r}: values have shape {tuple(self.values.shape)}, but "
                f"the coordinates of {self.dims} have lengths {lengths}"
            )
        if self.null is not None and not _broadcasts(self.null, self.values):
            raise ProbekitError(
                f"measurement {self.name!r}: a null of shape {tuple(self.null.shape)} does not "
                f"broadcast to values of shape {tuple(self.values.shape)}"
            )
        if self.null is None and not self.null_reason:
            raise ProbekitError(
                f"measurement {self.name!r} has no null; give null= or say why in null_reason="
            )

    @property
    def excess(self) -> Tensor:
        """``values - null``: what is left once the null has been taken away.

        Raises:
            ProbekitError: there is no null; the message gives the reason.
        """
        if self.null is None:
            raise ProbekitError(f"measurement {self.name!r} has no null: {self.null_reason}")
        return self.values - self.null

    def to_frame(self) -> pd.DataFrame:
        """A tidy table: a row a coordinate, with columns ``value`` and ``null``."""
        columns = {"value": _flat(self.values)}
        if self.null is not None:
            columns["null"] = _flat(self.null.expand_as(self.values))
        if not self.dims:
            return pd.DataFrame(columns)
        index = pd.MultiIndex.from_product(
            [list(self.coords[dim]) for dim in self.dims], names=list(self.dims)
        )
        frame = pd.DataFrame(columns, index=index)
        return frame.dropna(how="all").reset_index()

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the values, layer by head as a picture, otherwise as a line with its null."""
        from .plotting import plot_measurement

        return plot_measurement(self, ax)

    def save(self, path: str | Path) -> Path:
        """Write to one safetensors file, whole or not at all; :meth:`load` reads it back."""
        path = Path(path)
        tensors, meta = _pack(self)
        metadata = {"measurement": json.dumps(meta)}
        write_atomic(path, safetensors.torch.save(tensors, metadata=metadata))
        return path

    @classmethod
    def load(cls, path: str | Path) -> "Measurement":
        """Read what :meth:`save` wrote.

        Raises:
            ProbekitError: the file is missing, damaged or not a measurement.
        """
        tensors, metadata = read_tensors(path, "measure again")
        try:
            return _unpack(tensors, parse_json(metadata["measurement"]))
        except (LookupError, TypeError, ValueError, RecursionError, ProbekitError) as error:
            raise ProbekitError(
                f"{path} is not a saved measurement: {error}; measure again"
            ) from error

    def __repr__(self) -> str:
        shape = ", ".join(f"{dim}={len(self.coords[dim])}" for dim in self.dims) or "scalar"
        null = "no null" if self.null is None else f"null {_summary(self.null)}"
        return f"Measurement({self.name!r}, {shape}, {_summary(self.values)} {self.units}, {null})"

    def _repr_html_(self) -> str:
        null = self.null_reason if self.null is None else self.null_name
        table = self.to_frame().to_html(index=False, max_rows=24, float_format="%.6g")
        return f"<b>{self.name}</b> [{self.units}] &middot; null: {null}{table}"


def stack_by_layer(
    results: "Mapping[HookSite, Tensor]", extra: Mapping[str, Sequence[Any]]
) -> tuple[Tensor, tuple[str, ...], dict[str, list[Any]]]:
    """Assemble one tensor a site into ``(layer, ...)``, or ``(stack, layer, ...)`` if several.

    Args:
        results: for each site a tensor whose axes are those of ``extra``, of any lengths.
        extra: names of the further axes, with the labels of the longest.

    Returns:
        values (NaN where a stack lacks the coordinate), dims, coords.
    """
    stacks = list(dict.fromkeys(map(stack_name, results)))
    layers = sorted({site.layer or 0 for site in results})
    shape = tuple(len(labels) for labels in extra.values())
    placed = {(stack_name(site), site.layer or 0): tensor for site, tensor in results.items()}
    absent = torch.full(shape, torch.nan)
    values = torch.stack(
        [
            torch.stack([padded(placed.get((stack, layer), absent), shape) for layer in layers])
            for stack in stacks
        ]
    )
    coords: dict[str, list[Any]] = {"layer": layers, **{k: list(v) for k, v in extra.items()}}
    if len(stacks) == 1:
        return values[0], tuple(coords), coords
    coords = {"stack": stacks, **coords}
    return values, tuple(coords), coords


def stack_name(site: "HookSite") -> str:
    """The label of a site's stack: ``"encoder"``, ``"decoder"``, ``"decoder.cross"``, ``""``."""
    return f"{site.stack}.cross" if site.attn == "cross" else site.stack


def padded(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``tensor`` on the CPU, filled up to ``shape`` with NaN."""
    missing = [full - got for full, got in zip(shape, tensor.shape, strict=True)]
    widths = [n for extra in reversed(missing) for n in (0, extra)]
    return torch.nn.functional.pad(tensor.cpu(), widths, value=torch.nan)


def _broadcasts(null: Tensor, values: Tensor) -> bool:
    sizes = zip(reversed(null.shape), reversed(values.shape), strict=False)
    return null.ndim <= values.ndim and all(own in (1, full) for own, full in sizes)


def _flat(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float64).reshape(-1).numpy()


def _summary(tensor: Tensor) -> str:
    numbers = _flat(tensor)
    numbers = numbers[~np.isnan(numbers)]
    if not numbers.size:
        return "empty"
    low, high = numbers.min(), numbers.max()
    return f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"


def _pack(measurement: Measurement) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors = {"values": measurement.values.detach().contiguous()}
    if measurement.null is not None:
        tensors["null"] = measurement.null.detach().contiguous().clone()
    meta: dict[str, Any] = {
        "name": measurement.name,
        "dims": list(measurement.dims),
        "coords": {dim: list(measurement.coords[dim]) for dim in measurement.dims},
        "units": measurement.units,
        "null_name": measurement.null_name,
        "null_reason": measurement.null_reason,
        "provenance": dict(measurement.provenance),
    }
    if measurement.rows is not None:
        row_tensors, meta["rows"] = _pack(measurement.rows)
        tensors |= {f"rows.{key}": tensor for key, tensor in row_tensors.items()}
    return tensors, meta


def _unpack(tensors: dict[str, Tensor], meta: dict[str, Any]) -> Measurement:
    row_meta = meta.pop("rows", None)
    own = {key: tensor for key, tensor in tensors.items() if not key.startswith("rows.")}
    rows = {key.removeprefix("rows."): t for key, t in tensors.items() if key.startswith("rows.")}
    measurement = Measurement(
        values=own["values"], null=own.get("null"), **{**meta, "dims": tuple(meta["dims"])}
    )
    return measurement if row_meta is None else replace(measurement, rows=_unpack(rows, row_meta))
