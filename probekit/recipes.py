"""Find, load and run recipes: scripts, one per family of findings, that probekit never imports.

A recipe is a Python file with the names of `Recipe` below, loaded from its path. The smallest:

    '''One line that says which question is answered.'''
    NAME = "coin"

    @dataclass(frozen=True)
    class Config:
        seeds: tuple[int, ...] = (0, 1)
        flips: int = 10_000  # the comment becomes the help of --flips

        @classmethod
        def quick(cls): return cls()

        @classmethod
        def paper(cls): return cls(flips=1_000_000)

    CLAIMS = [Claim("coin-1", "folklore", "a coin is fair", 0.5, 0.02, measure=..., null=..., ...)]

    def units(config): return config.seeds
    def run_unit(config, unit, run_dir, position): ...   # returns at once if its work is done
    def collect(config, run_dir): return results         # reads what the units wrote
    def present(config, results, run_dir): ...           # figures and report.html

    if __name__ == "__main__":
        probekit.recipes.main(__file__)
"""

import ast
import dataclasses
import importlib.util
import multiprocessing
import os
import sys
import threading
import time
import zlib
from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from probekit.errors import RunError, unknown
from probekit.paths import data_dir

if TYPE_CHECKING:
    from probekit.claims import Claim
    from probekit.runs import RunDir


@runtime_checkable
class Recipe(Protocol):
    """What a recipe file defines."""

    NAME: str
    CLAIMS: "list[Claim]"
    Config: Any
    """A frozen dataclass with a field `seeds` and the presets `quick()` and `paper()`."""

    def units(self, config: Any) -> Sequence[Hashable]:
        """Return the pieces of work that may run side by side, such as (arm, seed)."""
        ...

    def run_unit(self, config: Any, unit: Any, run_dir: Path, position: int) -> None:
        """Do one piece in a folder of its own below `run_dir`; it may be killed and called again.

        `position` is the line for its progress bar: `tqdm(..., position=position)`.
        """
        ...

    def collect(self, config: Any, run_dir: Path) -> Any:
        """Read what the units wrote; the claims measure on what this returns."""
        ...

    def present(self, config: Any, results: Any, run_dir: Path) -> None:
        """Write figures and `report.html` into `run_dir`."""
        ...


_PROTOCOL = ("NAME", "CLAIMS", "Config", "units", "run_unit", "collect", "present")


def discover() -> dict[str, Path]:
    """Return the recipes that come with probekit, by name."""
    files = sorted(data_dir("recipes").glob("*.py"))
    return {file.stem: file for file in files if not file.name.startswith("_")}


def find(name: str) -> Path:
    """Return the file of a recipe given by its name or by the path of a `.py` file.

    Raises:
        RunError: there is none.
    """
    if name.endswith(".py"):
        if not os.path.isfile(name):
            raise RunError(f"no recipe file {name}; see `probekit ls` for those that come along")
        return Path(name).resolve()
    recipes = discover()
    if name not in recipes:
        raise RunError(f"{unknown('recipe', name, recipes)}; see `probekit ls`")
    return recipes[name]


def docstring(path: Path) -> str:
    """Return a recipe's docstring without importing it (an import takes seconds)."""
    return ast.get_docstring(ast.parse(path.read_text())) or ""


def load(path: Path) -> Recipe:
    """Execute a recipe file and return it as a module.

    Raises:
        RunError: it lacks something that `Recipe` names.
    """
    name = _module_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # so for every path that ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look a class's module up here
    spec.loader.exec_module(module)
    missing = [attribute for attribute in _PROTOCOL if not hasattr(module, attribute)]
    if missing:
        raise RunError(f"recipe {path} lacks {', '.join(missing)}; see probekit/recipes.py")
    return cast(Recipe, module)


def _module_name(path: Path) -> str:
    return f"_recipe_{path.stem}_{zlib.crc32(str(path).encode()):08x}"


def run(recipe: Recipe, config: Any, preset: str, out: Path, jobs: int = 1) -> dict[str, Any]:
    """Run a recipe, decide its claims, and print both; go on where an earlier run stopped.

    Args:
        config: the resolved configuration, an instance of the recipe's `Config`.
        preset: names the folder, `<out>/<recipe>/<preset>`.
        jobs: how many units run side by side at most, whatever joblib's backend; the results do
            not depend on it.

    Returns:
        What it wrote to `summary.json`: recipe, preset, config, claims, environment.

    Raises:
        RunError: `jobs` is below 1, a seed below 0, or the folder holds a run with another config,
            or one that is still going on.
    """
    from filelock import Timeout

    from probekit.runs import RunDir

    if jobs < 1:
        raise RunError(f"jobs must be at least 1, given {jobs}")
    if min(config.seeds, default=0) < 0:
        raise RunError(f"seeds must be whole numbers from 0, given {min(config.seeds)}")
    folder = RunDir(out / recipe.NAME / preset)
    try:
        held = _locked(folder.path.with_name(f".{preset}.lock"), timeout=0)  # beside the folder
    except Timeout:
        raise RunError(
            f"another run writes to {folder.path}; wait for its end or choose another --out"
        ) from None
    with held:
        return _run_in(folder, recipe, config, preset, jobs)


def _locked(path: Path, timeout: int) -> AbstractContextManager[Any]:
    """A lock that is held, by this file; it goes with the process that holds it.

    Raises:
        Timeout: another process has held it for so many seconds; -1 waits on.
        RunError: the file cannot be written.
    """
    from filelock import FileLock, Timeout

    try:
        path.parent.mkdir(exist_ok=True)
        return FileLock(path, timeout=timeout).acquire()
    except Timeout:  # an OSError too
        raise
    except OSError as error:
        raise RunError(f"cannot write {path}: {error}; choose another --out") from None


def _run_in(
    folder: "RunDir", recipe: Recipe, config: Any, preset: str, jobs: int
) -> dict[str, Any]:
    from probekit import console
    from probekit.claims import decide_all
    from probekit.environment import environment
    from probekit.runs import json_safe

    folder.start(config)
    console.print_run(recipe.NAME, preset, config, folder.path)
    _run_units(recipe, config, folder.path, jobs)
    for unfinished in folder.path.rglob(".*.tmp"):  # of processes that were killed while writing
        if unfinished.is_file():
            unfinished.unlink(missing_ok=True)
    results = recipe.collect(config, folder.path)
    claims = decide_all(recipe.CLAIMS, results, folder.path)
    summary = {
        "recipe": recipe.NAME,
        "preset": preset,
        "config": json_safe(config),
        "claims": claims,
        "environment": environment(),
    }
    recipe.present(config, results, folder.path)
    folder.write_json("summary.json", summary)
    console.print_claims(claims, folder.path / "summary.json")
    return summary


def _run_units(recipe: Recipe, config: Any, run_dir: Path, jobs: int) -> None:
    from joblib import Parallel, delayed

    path = Path(cast(Any, recipe).__file__)
    # Plain fields and an index: a worker has not loaded the recipe's own classes yet.
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    # Unit by unit as workers get free: a backend may have a width of its own (dask's is that of the
    # cluster), and units that were queued in a batch would wait for each other.
    dispatch: dict[str, Any] = {"batch_size": 1, "pre_dispatch": jobs}
    watch: dict[str, Any] = {"initializer": _end_with, "initargs": (os.getpid(),)}
    Parallel(n_jobs=jobs, **dispatch, **watch)(
        delayed(_work)(path, fields, index, run_dir.absolute(), index % jobs)
        for index in range(len(recipe.units(config)))
    )


def _work(path: Path, fields: dict[str, Any], index: int, run_dir: Path, position: int) -> None:
    """Run the unit of that index, in the runner's own process or in a worker."""
    import torch

    with _one_at_a_time:
        recipe = cast(Recipe, sys.modules.get(_module_name(path)) or load(path))
        config = recipe.Config(**fields)
        unit = recipe.units(config)[index]
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # sums depend on the number of threads, which --jobs would decide
        try:
            with _sole_writer(run_dir, unit):
                recipe.run_unit(config, unit, run_dir, position)
        finally:
            torch.set_num_threads(threads)


# Random state and attached hooks are the process's, and a worker may have several threads.
_one_at_a_time = threading.RLock()


def _sole_writer(run_dir: Path, unit: Hashable) -> AbstractContextManager[Any]:
    """Wait until no other process is at this unit.

    There may be one yet: a worker whose runner was killed a moment ago, or one on a cluster whose
    scheduler lost it and gave the unit to another.
    """
    locks = run_dir.with_name(f".{run_dir.name}.units")
    return _locked(locks / f"{zlib.crc32(repr(unit).encode()):08x}", timeout=-1)


def _end_with(runner: int) -> None:
    """End this process when the runner is gone: the first that a worker of joblib's own does.

    A runner that is killed outright leaves its workers behind; they would go on writing beside
    those of the run that is started again. (dask sees to its workers itself.)
    """

    def watch() -> None:
        if multiprocessing.get_start_method(allow_none=True) == "forkserver":
            parent = multiprocessing.parent_process()
            assert parent is not None  # the runner, although the server is who forked this
            parent.join()
        while os.getppid() == runner:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(path: str) -> None:
    """Run the recipe at `path` with the command line's flags: the last line of a recipe file."""
    from probekit import cli

    sys.exit(cli.main(["run", str(Path(path).resolve()), *sys.argv[1:]]))
