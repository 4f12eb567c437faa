"""What run folders hold, to be compared: the same numbers whatever became of the processes."""

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open


def contents(folder: Path) -> dict[str, Any]:
    """Every file by its path: JSON without the environment, tensors as bytes, the rest as bytes.

    Pages are left out: circuitsvis draws an id for each of its pictures.
    """
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".html"]
    return {str(path.relative_to(folder)): _read(path) for path in sorted(files)}


def _read(path: Path) -> Any:
    if path.suffix == ".json":
        held = json.loads(path.read_text())
        return {k: v for k, v in held.items() if k != "environment"} if type(held) is dict else held
    if path.suffix == ".safetensors":
        with safe_open(path, "np") as file:
            tensors = {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118
            return file.metadata(), tensors
    return path.read_bytes()
