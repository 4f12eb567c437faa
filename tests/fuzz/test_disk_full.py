"""A disk that fills up during a write leaves what was there, byte for byte, and nothing else.

The limit on the size of files that a process may write stands for the disk: the operating system
itself cuts the write off in the middle.
"""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from malformed import contents
from resumable import COIN

import probekit as pk
from probekit import cli
from probekit.dynamics.pictures import animate_eigenvalues
from probekit.environment import environment
from probekit.findings import Finding, Ledger, write_findings
from probekit.measurement import Measurement
from probekit.modulators import LerpModulator, save_modulator
from probekit.report import Report
from probekit.runs import RunDir


@contextmanager
def room(size: int) -> Iterator[None]:
    """No file grows beyond ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def numbers(size: int) -> list[int]:
    return [size] * size


def summary(folder: Path, size: int) -> None:
    RunDir(folder).write_json("summary.json", numbers(size))


def row(folder: Path, size: int) -> None:
    RunDir(folder).append({"step": size, "values": numbers(size)})


def all_rows(folder: Path, size: int) -> None:
    run = RunDir(folder)
    run.write_rows([{"step": step} for step in range(size)])


def checkpoint(folder: Path, size: int) -> None:
    RunDir(folder).save_checkpoint(size, {"w": torch.ones(size)}, {"best": size})


def items(folder: Path, size: int) -> None:
    pk.save_items([pk.SwapQK({"0.Q.weight": torch.ones(size, 2)})], folder / "items")


def modulator(folder: Path, size: int) -> None:
    save_modulator(LerpModulator(d_model=2, vocab=size, d_geometry=2), folder)


def measurement(folder: Path, size: int) -> None:
    coords = {"x": range(size)}
    Measurement("m", torch.ones(size), ("x",), coords, "nats", None, "", "none").save(folder / "m")


def page(folder: Path, size: int) -> None:
    Report("x" * size).save(folder / "report.html")


def picture(folder: Path, size: int) -> None:
    figure, axis = plt.subplots(figsize=(size / 40, size / 40))
    axis.plot([0, 1])
    Report("title").figures({"drawn": (figure, "what it is")}, folder)


def animation(folder: Path, size: int) -> None:
    rows = [{"converged": True, "value": float(at), "mu": [[0, 1]]} for at in range(size // 40)]
    animate_eigenvalues(rows, 0.1, "knob", folder / "moves.gif")


def findings(folder: Path, size: int) -> None:
    finding = Finding("009-1", "s", "1", "x" * size, "", "reproduced", "", "a", "quick")
    write_findings(Ledger((finding,), ({"run": "a"},)), folder)


WRITERS = [summary, row, all_rows, checkpoint, items, modulator, measurement, page, picture]
WRITERS += [animation, findings]


@pytest.mark.parametrize(
    ("write", "more"),
    [(write, more) for write in WRITERS for more in (-1, 12) if (write, more) != (animation, -1)],
)
def test_what_was_there_is_left(tmp_path, write: Callable[[Path, int], None], more):
    """With no room at all, and with some more than what was there took."""
    write(tmp_path, 80)
    before = contents(tmp_path)
    largest = max(len(data) for data in before.values() if data is not None)
    with (
        room(largest + more if more > 0 else 1),
        pytest.raises((pk.ProbekitError, OSError)) as told,
    ):
        write(tmp_path, 160)
    assert contents(tmp_path) == before
    if write is not animation:  # which is drawn elsewhere first, by matplotlib
        assert isinstance(told.value, pk.ProbekitError)
        assert str(tmp_path) in str(told.value) and "what was there is kept: " in str(told.value)
    write(tmp_path, 160)
    assert contents(tmp_path) != before


def test_nothing_is_left_where_nothing_was(tmp_path):
    with room(1), pytest.raises(pk.ProbekitError, match=r"^cannot write .*: .*; what was there is"):
        RunDir(tmp_path).append({"step": 0, "loss": 0.5})
    with room(1), pytest.raises(pk.ProbekitError):
        RunDir(tmp_path).write_text("report.html", "page")
    assert RunDir(tmp_path).rows() == []
    assert [path.name for path in tmp_path.iterdir()] in ([], ["metrics.jsonl"])


def test_a_run_on_a_full_disk_ends_in_one_line_and_goes_on_later(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("coin.py").write_text(COIN)
    environment()  # asks git, which would leave the lock of its index behind
    with room(40):
        assert cli.main(["run", "coin.py"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("probekit: cannot write runs/coin/quick/config.json: ")
    assert cli.main(["run", "coin.py"]) == 0
    assert cli.main(["run", "coin.py", "--out", "elsewhere"]) == 0
    one, other = (Path(out, "coin/quick/summary.json") for out in ("runs", "elsewhere"))
    assert one.read_text() == other.read_text()
