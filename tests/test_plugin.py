"""examples/plugin, installed as anybody's package would be."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

USE = """
import json, torch
import probekit as pk

probe, negate = (pk.from_dict(d) for d in (
    {"item": "PositiveShare", "site": "1.mlp_post"},
    {"item": "Negate", "site": "1.mlp_post"},
))
model = pk.load("grokking", seed=0, n_layers=2, n_ctx=8, d_vocab=50)
tokens = torch.arange(16).view(2, 8)
with torch.no_grad(), pk.attach(model, pk.Record("1.mlp_post"), negate, probe) as run:
    model(tokens)
share, before = run["positive_share"], run["record"].values
print(json.dumps({
    "probes": pk.list_probes().iloc[-1].to_dict(),
    "interventions": pk.list_interventions().iloc[-1].to_dict(),
    "repr": [repr(probe), repr(negate)],
    "change": pk.verify(model, [negate], tokens).output_change,
    "share": float(share.values), "null": float(share.null), "layers": share.coords["layer"],
    "expected": float((before < 0).double().mean()),
    "stored": pk.to_dict(negate),
}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder of packages that holds the plug-in; built elsewhere, which leaves files behind."""
    source = tmp_path_factory.mktemp("build") / "plugin"
    shutil.copytree(ROOT / "examples" / "plugin", source)
    target = tmp_path_factory.mktemp("packages")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, *offline, "--target", str(target), str(source)], check=True)
    return target


def test_it_is_listed_attached_and_stored(installed):
    path = os.pathsep.join([str(installed), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", USE],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["probes"] == {
        "name": "PositiveShare",
        "reads": "Share of an activation's numbers that are above 0, by layer.",
        "null": "any distribution symmetric about 0",
        "source": "elementary",
    }
    assert said["interventions"] == {
        "name": "Negate",
        "edits": "Turns the sign of an activation.",
        "source": "elementary",
    }
    assert said["repr"][1] == "Negate(site='1.mlp_post')"
    assert said["stored"] == {"item": "Negate", "site": "1.mlp_post"}
    assert said["change"] > 0
    assert (said["share"], said["null"], said["layers"]) == (said["expected"], 0.5, [1])


def test_the_build_leaves_the_checkout_alone(installed):
    left = {path.name for path in (ROOT / "examples" / "plugin").iterdir()} - {"__pycache__"}
    assert left == {"probekit_signs.py", "pyproject.toml"}
