"""The recipe end to end, small: same mechanism at a hundred times the decay."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import probekit as pk
from probekit import recipes

RECIPE = recipes.load(recipes.find("crystallization"))
UNIFORM = math.log(720) / (6 * math.log(6))
#: lr * weight decay is 0.05 a step, so that Q and K are gone after a hundred.
SMALL = {
    "seeds": (0,),
    "steps": 160,
    "control_steps": 120,
    "batch": 32,
    "lr": 1e-2,
    "weight_decay": 5.0,
    "log_every": 20,
    "monitor_every": 40,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    summary = recipes.run(RECIPE, RECIPE.Config(**SMALL), "small", out)
    return out / "crystallization" / "small", summary


def test_vdi_reaches_uniform_attention(finished):
    _, summary = finished
    claim = next(claim for claim in summary["claims"] if claim["id"] == "000-1")
    assert claim["measured"] == pytest.approx(UNIFORM, abs=1e-5)
    assert claim["null"] == pytest.approx(UNIFORM, abs=1e-12)
    assert claim["verdict"] == "explained by null"


def test_without_decay_it_does_not(finished):
    folder, _ = finished
    control = json.loads((folder / "seed0" / "no-decay" / "summary.json").read_text())
    assert abs(control["vdi_mean"] - UNIFORM) > 0.01


def test_kill_test_is_drift(finished):
    folder, _ = finished
    tests = json.loads((folder / "seed0" / "developmental_trajectory.json").read_text())
    for test in tests["kill_tests"]:
        assert test["fresh"] == 0
        assert test["stale"] == test["undisturbed"]


def test_run_folder_is_complete(finished):
    folder, summary = finished
    written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    figures = {"vdi.png", "rows.png", "norms.png", "kill-tests.png", "null-by-length.png"}
    per_unit = {"config.json", "metrics.jsonl", "checkpoint.safetensors", "summary.json"}
    per_unit |= {"developmental_trajectory.json"}
    arms = ["", "decay-only/", "no-decay/", "leak-free/", "two-layers/"]
    assert written == (
        {"config.json", "summary.json", "report.html"}
        | figures
        | {f"seed0/{arm}{name}" for arm in arms for name in per_unit}
    )
    assert [claim["id"] for claim in summary["claims"]] == [
        "000-1",
        "000-2",
        "000-3",
        "000-4",
        "000-8",
    ]


def test_a_monitor_between_logs_is_refused():
    with pytest.raises(pk.RunError) as error:
        RECIPE.Config(log_every=100, monitor_every=250)
    assert str(error.value) == (
        "monitor_every must be a multiple of log_every, and at most steps; given 250, 100 and 3500"
    )


def test_presets_are_the_published_run():
    for config in (RECIPE.Config.quick(), RECIPE.Config.paper()):
        assert (config.batch, config.lr, config.weight_decay) == (512, 1e-3, 1.0)
        assert (config.log_every, config.monitor_every) == (100, 500)
    assert RECIPE.Config.paper().steps == 10_000


def test_sigkill_and_restart_end_with_the_same_summary(finished, tmp_path):
    folder, _ = finished
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in SMALL.items() if key != "seeds"]
    command = [sys.executable, "-c", "from probekit.cli import main; raise SystemExit(main())"]
    command += ["run", "crystallization", "--seed", "0", *flags, "--out", str(tmp_path)]
    killed = tmp_path / "crystallization" / "quick"
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoint = killed / "seed0" / "checkpoint.safetensors"
    _wait_for(checkpoint, first)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert not (killed / "summary.json").exists()
    subprocess.run(command, check=True, capture_output=True)
    assert _claims(killed) == _claims(folder)
    for summary in folder.glob("seed0/**/summary.json"):
        assert (killed / summary.relative_to(folder)).read_text() == summary.read_text()


def _wait_for(path: Path, process: subprocess.Popen) -> None:
    while not path.exists():
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.05)


def _claims(folder: Path) -> list:
    return json.loads((folder / "summary.json").read_text())["claims"]


@pytest.mark.slow
def test_the_published_run_gives_the_published_number(tmp_path):
    config = RECIPE.Config(seeds=(0,), control_seeds=())
    summary = recipes.run(RECIPE, config, "published", tmp_path)
    verdicts = {claim["id"]: claim["verdict"] for claim in summary["claims"]}
    assert verdicts["000-1"] == "explained by null"
    assert verdicts["000-3"] == "explained by null"
    assert verdicts["000-4"] == "explained by null"
