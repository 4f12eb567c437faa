"""The benchmarks' arithmetic, the files they write, and README.md made of them."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parent.parent / "benchmarks"
SHARED = ("harness", "peers", "tables")


@pytest.fixture
def harness(monkeypatch, tmp_path):
    """What the benchmarks share, writing to another folder."""
    monkeypatch.syspath_prepend(FOLDER)
    import harness

    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    yield harness
    for name in SHARED:
        sys.modules.pop(name, None)


def test_readme_is_up_to_date(harness) -> None:
    import tables

    results = tables.read(FOLDER / "results")
    assert tables.README.read_text() == tables.markdown(results), (
        "run `python benchmarks/tables.py`"
    )
    shown = tables.FRONT.read_text()
    assert shown == tables.front(shown, results), "run `python benchmarks/tables.py`"
    assert shown.count(tables.BEGIN) == shown.count(tables.END) == 1


def test_every_benchmark_is_run_and_no_results_are_of_another() -> None:
    makefile = (FOLDER.parent / "Makefile").read_text()
    names = re.search(r"^BENCHMARKS := (.*)$", makefile, re.M)
    assert names is not None
    scripts = {file.stem for file in FOLDER.glob("*.py")} - set(SHARED)
    assert set(names[1].split()) == scripts
    assert {file.stem for file in (FOLDER / "results").glob("*.json")} == scripts


def test_ratios_are_taken_within_rounds(harness) -> None:
    times = harness.Times({"a": [6.0, 4.0, 9.0], "b": [2.0, 4.0, 3.0]})
    assert times.ratio("a", "b") == 3.0  # of 3, 1 and 3; that of the medians is 2
    assert times.fastest("a", "b") == 2.0
    assert times.beyond("a", "b") == 4.0
    assert times.median("a") == 6.0


def test_arms_take_turns(harness, monkeypatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(harness.time, "perf_counter", lambda: float(next(clock)))
    called: list[str] = []
    arms = {name: lambda name=name: called.append(name) for name in "abc"}
    times = harness.timed(arms, 3, items={"b": 4})
    rounds = [called[at : at + 3] for at in range(0, len(called), 3)]
    assert [sorted(each) for each in rounds] == [["a", "b", "c"]] * 4  # the first warms up
    assert times == {"a": [1.0] * 3, "b": [0.25] * 3, "c": [1.0] * 3}


def test_the_interval_of_a_median_is_that_of_tables(harness) -> None:
    """Of 20 values the 6th and the 15th, of 50 the 18th and the 33rd, of one the value."""
    for rounds, low, high in ((20, 6, 15), (50, 18, 33), (1, 1, 1)):
        values = [float(n) for n in range(rounds, 0, -1)]
        times = harness.Times({"a": values, "b": [1.0] * rounds})
        assert times.interval("a", "b") == (low, high)


def test_results_are_written_whole_or_not_at_all(harness) -> None:
    times = harness.Times({"a": [2.0], "b": [1.0]})
    file = harness.RESULTS / "made.json"

    def found(save: bool = True):
        return harness.Report("folder/made.py", "Asks this.\n\nMore.", harness.Settings(save=save))

    with found(save=False) as report:
        report.table("q", times, ("b",))
    with pytest.raises(ZeroDivisionError), found() as report:
        report.value("q", "a", 1 / 0, "MB")
    assert not file.exists()
    with found() as report:
        report.table("q", times, ("b",), unit="s", scale=1.0)
        report.limit("a / b", times.ratio("a", "b"), 1.5)
        report.limit("in between", 1.25, 1.5, interval=(1.0, 1.501))
        report.note("nothing else")
    written = json.loads(file.read_text())
    assert written["rows"][0] == {
        "question": "q",
        "arm": "a",
        "median": 2.0,
        "unit": "s",
        "ratios": {"b": 2.0},
        "fastest": {"b": 2.0},
    }
    assert written["asks"] == "Asks this." and written["settings"]["rounds"] == 20
    assert written["machine"]["cores"] >= 1 and written["versions"]["torch"]
    import tables

    text = tables.markdown([written])
    assert "| made | a / b | 2 times | 1.5 | exceeded |" in text
    assert "| made | in between | 1.25 (1 to 1.501) times | 1.5 | holds |" in text
    assert "| a | 2 s | 2 (2) |" in text and "- nothing else" in text


def test_the_vdi_that_peers_compute(harness) -> None:
    """Uniform attention reads 1, attention to one key 0; padding moves neither."""
    import peers

    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    uniform = (mask / mask.sum(-1, keepdim=True))[:, None].expand(2, 4, 4)
    patterns = torch.stack([uniform, torch.eye(4).expand(2, 4, 4)], dim=1)
    torch.testing.assert_close(peers.vdi_of(patterns, mask), torch.tensor([1.0, 0.0]))
    # Without a mask the second text has four keys, over two of which it spreads: ln 2 / ln 4.
    torch.testing.assert_close(peers.vdi_of(patterns, None), torch.tensor([0.75, 0.0]))
