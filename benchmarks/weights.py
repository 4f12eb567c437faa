"""The weight battery on a folder of shards: memory, and time against the bare ``svdvals`` calls.

    python benchmarks/weights.py                       # about two minutes
    python benchmarks/weights.py --gib 0.05 --width 256 --no-save

The folder is a Llama-like model of random matrices (q, k, v, o [width, width], gate, up, down
[3 width, width]), written to a temporary directory. Two processes of one thread read it in turns:
one runs the battery; the other reads the same files and does nothing but the ``svdvals`` of each
matrix and, counted apart, of the published query-key products, which the battery has to make too.
Times are of the processor, which what else the machine does changes less than time on the clock;
the memory is the peak of the battery's process.
"""

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import harness
import torch
from safetensors import safe_open
from safetensors.torch import save_file

BATTERY, MATRICES, PRODUCTS = "weight_battery", "svdvals of matrices", "and of products"
SHARDS = 8
NAMES = {
    "self_attn.q_proj": 1,
    "self_attn.k_proj": 1,
    "self_attn.v_proj": 1,
    "self_attn.o_proj": 1,
    "mlp.gate_proj": 3,
    "mlp.up_proj": 3,
    "mlp.down_proj": -3,
}


def write_folder(folder: Path, gib: float, width: int) -> int:
    """Shards, index and config of as many layers as fit; returns their number."""
    layers = max(2, round(gib * 2**30 / (4 * 13 * width**2)))
    generator = torch.Generator().manual_seed(0)
    shard_of = {layer: layer * SHARDS // layers for layer in range(layers)}
    weight_map = {}
    for shard in sorted(set(shard_of.values())):
        file = f"model-{shard + 1:05d}-of-{SHARDS:05d}.safetensors"
        tensors = {}
        for layer in (at for at, s in shard_of.items() if s == shard):
            for name, times in NAMES.items():
                rows, cols = max(1, times) * width, max(1, -times) * width
                key = f"model.layers.{layer}.{name}.weight"
                tensors[key] = torch.randn(rows, cols, generator=generator) * 0.02
                weight_map[key] = file
        save_file(tensors, folder / file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {"model_type": "llama", "num_hidden_layers": layers}
    config["num_attention_heads"] = max(1, width // 64)
    (folder / "config.json").write_text(json.dumps(config))
    return layers


def resident() -> float:
    """Peak of this process, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def battery(folder: Path) -> dict[str, float]:
    import probekit.weights

    before = resident()
    begin = time.process_time()
    probekit.weights.weight_battery(folder, progress=False)
    return {"seconds": time.process_time() - begin, "mib": resident(), "imports_mib": before}


def bare(folder: Path) -> dict[str, float]:
    """The decompositions alone, timed without the reading."""
    seconds, product_seconds = 0.0, 0.0
    queries: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            for name in sorted(opened.keys()):
                matrix = opened.get_tensor(name)
                begin = time.process_time()
                torch.linalg.svdvals(matrix)
                seconds += time.process_time() - begin
                if "k_proj" in name or "q_proj" in name:
                    queries[name] = matrix
            for name in [each for each in queries if "q_proj" in each]:
                key = queries.pop(name.replace("q_proj", "k_proj"))
                product = queries.pop(name) @ key.mT
                begin = time.process_time()
                torch.linalg.svdvals(product)
                product_seconds += time.process_time() - begin
    return {"seconds": seconds, "products": product_seconds}


def in_process(part: str, folder: Path, threads: int) -> dict[str, float]:
    """``part`` in a fresh process, so that its peak of memory is its own."""
    command = [
        sys.executable,
        __file__,
        "--part",
        part,
        "--folder",
        str(folder),
        "--threads",
        f"{threads}",
    ]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(answer.stdout.splitlines()[-1])


@dataclass(frozen=True)
class Config(harness.Settings):
    """Sizes of the comparison."""

    rounds: int = 3
    threads: int = 1
    gib: float = 0.5
    width: int = 1024
    part: Literal["battery", "bare"] | None = None
    """What a process that this one starts has to do, with the folder that is there."""
    folder: Path | None = None


def measure(config: Config, folder: Path, report: harness.Report) -> None:
    layers = write_folder(folder, config.gib, config.width)
    size = sum(file.stat().st_size for file in folder.iterdir()) / 2**20
    question = f"{size:.0f} MiB in {SHARDS} shards: {layers} layers of width {config.width}"
    times = harness.Times({name: [] for name in (BATTERY, MATRICES, PRODUCTS)})
    peaks = []
    for _ in range(config.rounds):
        found = {
            part: in_process(part, folder, config.threads)
            for part in random.sample(["battery", "bare"], 2)
        }
        times[BATTERY].append(found["battery"]["seconds"])
        times[MATRICES].append(found["bare"]["seconds"])
        times[PRODUCTS].append(found["bare"]["seconds"] + found["bare"]["products"])
        peaks.append(found["battery"])
    report.table(question, times, (MATRICES, PRODUCTS), unit="s", scale=1.0)
    largest = max(peaks, key=lambda each: each["mib"])
    report.value("peak of resident memory", BATTERY, largest["mib"], "MiB")
    report.value("peak of resident memory", "its imports alone", largest["imports_mib"], "MiB")


def main(config: Config) -> None:
    if config.part and config.folder:
        print(json.dumps({"battery": battery, "bare": bare}[config.part](config.folder)))
        return
    with (
        tempfile.TemporaryDirectory() as temporary,
        harness.Report(__file__, __doc__, config) as report,
    ):
        measure(config, Path(temporary), report)


if __name__ == "__main__":
    main(harness.settings(Config(), __doc__))
