"""Every example runs, and leaves its picture."""

import runpy
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


@pytest.mark.filterwarnings("ignore")  # what other packages say, as a user would see it
@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_it_leaves_its_picture(file, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    plt.close("all")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        runpy.run_path(str(file), run_name="__main__")
    (picture,) = [path for path in tmp_path.iterdir() if path.stem == file.stem]
    assert picture.stat().st_size > 5_000
    if picture.suffix == ".png":
        assert plt.gca().get_xlabel() or plt.gca().get_title()
    plt.close("all")


def test_every_task_has_one() -> None:
    assert len(EXAMPLES) >= 12
    for file in EXAMPLES:
        assert len(file.read_text().splitlines()) <= 50
