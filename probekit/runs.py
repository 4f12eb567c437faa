"""The folder of one run: written so that a run may be killed at any moment and started again.

Every file but `metrics.jsonl` is replaced whole or not at all. A metrics row that was cut off is
dropped when read. Resume with

    checkpoint = run.load_checkpoint()          # None at the first start
    run.truncate(step)                          # rows written after the checkpoint are repeated

One process writes a folder at a time; two writers are not kept apart (runs of recipes are: see
`probekit.recipes.run`).
"""

import contextlib
import dataclasses
import errno
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from probekit.checks import is_finite
from probekit.environment import environment
from probekit.errors import ProbekitError, RunError
from probekit.files import check_plain, parse_json, read_json, read_tensors, read_text

_OPTIMIZER = "optimizer."


class RunDir:
    """A run's folder: `config.json`, `metrics.jsonl`, `checkpoint.safetensors`, `summary.json`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            raise RunError(
                f"no folder can be made at {self.path}: {error}; choose another --out"
            ) from None

    def __repr__(self) -> str:
        return f"RunDir({str(self.path)!r})"

    def start(self, config: Any, seed: int | None = None) -> None:
        """Write `config.json`, or check that the folder's own belongs to the same run.

        The field `seeds` may differ: adding seeds to a run redoes nothing.

        Args:
            config: a dataclass instance or a mapping.
            seed: the seed of this folder, if it holds one.

        Raises:
            RunError: the folder holds a run with another config or seed, or this one holds a whole
                number that takes more than 64 bits.
        """
        new = {"config": json_safe(config), "seed": seed}
        if (self.path / "config.json").exists():
            old = self.read_json("config.json")
            if not (isinstance(old, dict) and isinstance(old.get("config"), dict)):
                raise self._damaged("config.json", "it holds no run's config")
            old.setdefault("seed", None)
            self._refuse_other(
                {**old["config"], "seed": old["seed"]}, {**new["config"], "seed": seed}
            )
            if old["config"] == new["config"]:
                return  # keep the versions that the run was started with
        try:
            check_plain(new)
        except ValueError as error:
            raise RunError(f"this config could not be read back: {error}") from None
        self.write_json("config.json", {**new, "environment": environment()})

    def _refuse_other(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        names = [n for n in {**old, **new} if n != "seeds" and old.get(n) != new.get(n)]
        if names:
            fields = ", ".join(f"{n} ({old.get(n)!r} there, {new.get(n)!r} here)" for n in names)
            raise RunError(
                f"{self.path} holds a run with another config: {fields};"
                " choose another --out or delete the folder"
            )

    @property
    def done(self) -> bool:
        """Whether the run has ended, that is, wrote its `summary.json`."""
        return (self.path / "summary.json").exists()

    def write_json(self, name: str, obj: Any) -> None:
        """Write `obj` (see `json_safe`) as JSON, whole or not at all."""
        self.write_text(name, json.dumps(json_safe(obj), indent=2, allow_nan=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a text file, whole or not at all."""
        write_atomic(self.path / name, text.encode())

    def read_json(self, name: str) -> Any:
        """Read a JSON file of this folder.

        Raises:
            RunError: it is missing or not JSON.
        """
        return read_json(self.path / name, self._fix, RunError)

    @property
    def _fix(self) -> str:
        return f"delete {self.path} and run again"

    def _damaged(self, name: str, why: object) -> RunError:
        return RunError(f"cannot read {self.path / name}: {why}; {self._fix}")

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row to `metrics.jsonl`; it needs a `step`, by which a resume drops rows."""
        if "step" not in row:
            raise RunError(f"a metrics row needs a 'step'; given: {', '.join(row) or 'none'}")
        path, line = self.path / "metrics.jsonl", json.dumps(json_safe(row), allow_nan=False) + "\n"
        size = path.stat().st_size if path.exists() else 0
        try:
            with open(path, "a") as file:
                file.write(line)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.truncate(path, size)
            raise _unwritten(path, error) from error

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of `metrics.jsonl`, without a last one that was cut off.

        Raises:
            RunError: a row before the last is no row.
        """
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return []
        text = read_text(path, self._fix, RunError)
        *lines, _torn = text.split("\n")  # "" after a last line that is whole
        return [self._row(number, line) for number, line in enumerate(lines, 1)]

    def _row(self, number: int, line: str) -> dict[str, Any]:
        try:
            row = parse_json(line)
        except (ValueError, RecursionError) as error:
            raise self._damaged("metrics.jsonl", f"row {number}: {error}") from None
        if not (isinstance(row, dict) and is_finite(row.get("step"))):
            raise self._damaged("metrics.jsonl", f"row {number} has no step")
        return row

    def truncate(self, step: int) -> None:
        """Drop the rows after `step` and a torn last one; done before a resumed run appends."""
        self.write_rows([row for row in self.rows() if row["step"] <= step])

    def write_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write `metrics.jsonl` anew, whole or not at all."""
        lines = [json.dumps(json_safe(row), allow_nan=False) + "\n" for row in rows]
        self.write_text("metrics.jsonl", "".join(lines))

    def save_checkpoint(
        self, step: int, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]
    ) -> None:
        """Write tensors and JSON metadata as `checkpoint.safetensors`, whole or not at all."""
        # Cloned: safetensors refuses tensors that share memory, such as tied embeddings.
        data = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
        metadata = {"step": str(step), "meta": json.dumps(dict(meta))}
        write_atomic(
            self.path / "checkpoint.safetensors", safetensors.torch.save(data, metadata=metadata)
        )

    def load_checkpoint(self) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
        """Return `(step, tensors, meta)` of the last checkpoint, or None when there is none.

        Raises:
            RunError: the file is truncated or is no checkpoint.
        """
        path = self.path / "checkpoint.safetensors"
        if not path.exists():
            return None
        fix = "delete it to start this run over"
        tensors, metadata = read_tensors(path, fix, RunError)
        try:
            step, meta = int(metadata["step"]), parse_json(metadata["meta"])
        except (KeyError, ValueError, RecursionError) as error:
            raise RunError(f"{path} is no checkpoint: {error!r}; {fix}") from None
        if step < 0 or not isinstance(meta, dict):
            raise RunError(f"{path} is no checkpoint: step {step}, meta {meta!r}; {fix}")
        return step, tensors, meta


def write_atomic(path: Path, data: bytes) -> None:
    """Replace `path` by `data`; a crash leaves the old file or the new one, never a part.

    Raises:
        ProbekitError: it cannot be written, as on a full disk.
    """
    write_together({path: data})


def write_together(files: Mapping[Path, bytes]) -> None:
    """Replace several files, or none where one of them cannot be written.

    A crash may leave new ones beside old ones. It then leaves out the last one, so that this is
    seen: it goes first and comes last.

    Raises:
        ProbekitError: one cannot be written, as on a full disk.
    """
    temporaries = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in files}
    path = last = list(files)[-1]
    try:
        for path, data in files.items():
            if path.is_dir():  # which no file replaces; seen before any is
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
            with open(temporaries[path], "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        if len(files) > 1:
            last.unlink(missing_ok=True)
        for path, temporary in temporaries.items():
            os.replace(temporary, path)
    except OSError as error:
        raise _unwritten(path, error) from error
    finally:
        for temporary in temporaries.values():
            with contextlib.suppress(OSError):
                temporary.unlink()


def _unwritten(path: Path, error: OSError) -> ProbekitError:
    return ProbekitError(
        f"cannot write {path}: {error}; what was there is kept: make room, or choose another place"
    )


def json_safe(obj: Any) -> Any:
    """Return `obj` in JSON's own types: NaN and infinities become None, tensors become lists.

    Raises:
        TypeError: it holds something that has no JSON form.
    """
    if obj is None or isinstance(obj, bool | int | str):
        return obj
    if isinstance(obj, float):
        return obj if math.isfinite(obj) else None
    if isinstance(obj, Mapping):
        return {str(key): json_safe(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [json_safe(value) for value in obj]
    if isinstance(obj, Path):
        return str(obj)
    if hasattr(obj, "tolist"):  # torch and numpy, scalars too
        return json_safe(obj.tolist())
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        return json_safe({f.name: getattr(obj, f.name) for f in dataclasses.fields(obj)})
    raise TypeError(f"no JSON form for {type(obj).__name__}: {obj!r}")


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the state of an optimizer such as AdamW, named `optimizer.<parameter>.<what>`."""
    return {
        f"{_OPTIMIZER}{index}.{name}": value
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` returned; other names in `tensors` are passed over.

    Raises:
        RunError: the tensors belong to an optimizer over other parameters.
    """
    shapes = [p.shape for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith(_OPTIMIZER):
            index, what = name.removeprefix(_OPTIMIZER).split(".")
            if int(index) >= len(shapes) or value.shape not in (shapes[int(index)], ()):
                raise RunError(
                    f"{name} of shape {list(value.shape)} fits none of the optimizer's"
                    f" {len(shapes)} parameters; the checkpoint is of another model"
                )
            # Cloned: the optimizer updates its state in place.
            state.setdefault(int(index), {})[what] = value.clone()
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
