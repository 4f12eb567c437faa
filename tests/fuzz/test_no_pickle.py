"""Nothing that is loaded may run: no pickle is read, in whatever place one is put."""

import ast
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import families
import pytest
import torch
from transformers import BertModel

import probekit as pk
from probekit import recipes
from probekit.findings import read_findings
from probekit.lexicon.data import FILES
from probekit.measurement import Measurement
from probekit.modulators import LerpModulator, load_modulator, save_modulator
from probekit.paths import data_dir
from probekit.runs import RunDir
from probekit.training.language import LanguageTask

ROOT = Path(pk.__file__).parents[1]
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal"}
CALLS = {
    "torch.load",
    "np.load",
    "numpy.load",
    "joblib.load",
    "pd.read_pickle",
    "pandas.read_pickle",
}


def unpickling(tree: ast.AST) -> Iterator[str]:
    """What in a program may read a pickle."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {str(getattr(node, "module", ""))}
            yield from names & MODULES
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "attr", "")
            called = ast.unparse(node.func) if name in ("load", "read_pickle") else name
            if called in CALLS or any(word.arg == "allow_pickle" for word in node.keywords):
                yield called


@pytest.mark.parametrize("folder", ["probekit", "recipes", "examples", "benchmarks"])
def test_no_program_reads_a_pickle(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    found = {str(file): set(unpickling(ast.parse(file.read_text()))) for file in files}
    assert {file: names for file, names in found.items() if names} == {}


def test_what_reads_a_pickle_is_found():
    program = "import pickle\nfrom dill import loads\ntorch.load(f)\nnp.load(f, allow_pickle=True)"
    assert set(unpickling(ast.parse(program))) == {"pickle", "dill", "torch.load", "np.load"}


class Malice:
    """Leaves a file where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


@pytest.fixture
def trace(tmp_path) -> Path:
    return tmp_path / "it-ran"


@pytest.fixture
def malice(trace) -> bytes:
    """A pickle that does harm, as this shows."""
    content = pickle.dumps(Malice(trace))
    pickle.loads(content)
    trace.rmdir()
    return content


def card(folder: Path) -> Callable[[], Any]:
    return lambda: pk.load(folder / "card.toml")


def checkpoint(folder: Path) -> Callable[[], Any]:
    return lambda: pk.load("grokking", checkpoint=folder / "toy.safetensors")


def modulator(folder: Path) -> Callable[[], Any]:
    save_modulator(LerpModulator(d_model=2, vocab=2, d_geometry=1), folder)
    return lambda: load_modulator(folder)


def items(folder: Path) -> Callable[[], Any]:
    held = {"0.Q.weight": torch.ones(1, 1)}
    pk.save_items([pk.SwapQK(held)], folder / "items")
    return lambda: pk.load_items(folder / "items")


def measurement(folder: Path) -> Callable[[], Any]:
    return lambda: Measurement.load(folder / "m")


def run_checkpoint(folder: Path) -> Callable[[], Any]:
    return RunDir(folder).load_checkpoint


def run_config(folder: Path) -> Callable[[], Any]:
    return lambda: RunDir(folder).start({})


def metrics(folder: Path) -> Callable[[], Any]:
    return RunDir(folder).rows


def summary(folder: Path) -> Callable[[], Any]:
    return lambda: read_findings([folder])


def saved_bert(folder: Path) -> Callable[[], Any]:
    BertModel(families.tiny_bert()).save_pretrained(folder)
    lines = ['title = "t"', 'source = "huggingface"', 'architecture = "BertModel"']
    (folder / "bert.toml").write_text("\n".join([*lines, 'checkpoint = "."']))
    return lambda: pk.load(folder / "bert.toml", local_files_only=True)


def old_bert(folder: Path) -> Callable[[], Any]:
    """As before safetensors: the weights are a pickle."""
    load = saved_bert(folder)
    (folder / "model.safetensors").unlink()
    return load


def weights(folder: Path) -> Callable[[], Any]:
    saved_bert(folder)
    return lambda: pk.weights.read_weights(folder)


def index(folder: Path) -> Callable[[], Any]:
    return weights(folder)


def wordnet(folder: Path) -> Callable[[], Any]:
    for name in FILES:
        (folder / name).write_text("")
    return lambda: pk.lexicon.load_wordnet(folder)


def corpus(folder: Path) -> Callable[[], Any]:
    return lambda: LanguageTask(str(folder / "corpus"))


def prompts(folder: Path) -> Callable[[], Any]:
    talk = recipes.load(data_dir("recipes") / "talk.py")
    return lambda: talk.Config(prompts=str(folder / "prompts")).texts([])


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        (card, "card.toml"),
        (checkpoint, "toy.safetensors"),
        (modulator, "card.toml"),
        (modulator, "weights.safetensors"),
        (items, "items/items.toml"),
        (items, "items/SwapWeights.donor.safetensors"),
        (measurement, "m"),
        (run_config, "config.json"),
        (metrics, "metrics.jsonl"),
        (run_checkpoint, "checkpoint.safetensors"),
        (summary, "a/quick/summary.json"),
        (saved_bert, "config.json"),
        (saved_bert, "model.safetensors"),
        (old_bert, "pytorch_model.bin"),
        (weights, "config.json"),
        (weights, "model.safetensors"),
        (index, "model.safetensors.index.json"),
        (wordnet, "data.noun"),
        (corpus, "corpus"),
        (prompts, "prompts"),
    ],
)
def test_a_malicious_pickle_does_not_run(tmp_path, trace, malice, kind, place):
    folder = tmp_path / "folder"
    (folder / place).parent.mkdir(parents=True)
    load = kind(folder)
    (folder / place).write_bytes(malice + b"\n")
    with pytest.raises(pk.ProbekitError):
        load()
    assert not trace.exists()


def test_torchs_own_pickles_are_refused_too(tmp_path):
    """A checkpoint that torch.save wrote is harmless, and still not read."""
    load = old_bert(tmp_path)
    torch.save(BertModel(families.tiny_bert()).state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(pk.CardError, match=r"cannot be loaded \(.*model\.safetensors"):
        load()
