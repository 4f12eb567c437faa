"""The weight battery on a folder of shards: memory, and time against the bare ``svdvals`` calls.

    python benchmarks/weights.py                       # 2 GiB of float32 in 8 shards
    python benchmarks/weights.py --gib 0.05 --width 256

The folder is a Llama-like model of random matrices (q, k, v, o [width, width], gate, up, down
[3 width, width]), written to a temporary directory. Two processes read it, each with one thread
unless ``--threads`` says more: one runs the battery; the other reads the same files and does
nothing but the ``svdvals`` of each matrix, and apart from that those of the published query-key
products, which the battery has to make too. Printed are the peak of resident memory (with what the
imports alone take) and the battery's processor time over that of the bare calls, which what else
the machine does changes less than time on the clock.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

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


def in_process(what: str, folder: Path, threads: int) -> dict[str, float]:
    """``what`` in a fresh process, so that its peak of memory is its own."""
    command = [sys.executable, __file__, "--part", what, str(folder), "--threads", str(threads)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(answer.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description="memory and time of the weight battery")
    parser.add_argument("--gib", type=float, default=2.0)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.part:
        part, folder = given.part
        print(json.dumps({"battery": battery, "bare": bare}[part](Path(folder))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        layers = write_folder(folder, given.gib, given.width)
        size = sum(file.stat().st_size for file in folder.iterdir()) / 2**20
        print(f"{size:.0f} MiB: {layers} layers of width {given.width}")
        alone = in_process("bare", folder, given.threads)
        whole = in_process("battery", folder, given.threads)
    print(f"  resident memory      {whole['mib']:8.0f} MiB, {whole['imports_mib']:.0f} of imports")
    taken = whole["seconds"]
    print(f"  battery              {taken:8.1f} s")
    for name, base in {
        "svdvals, matrices": alone["seconds"],
        "and of products": alone["seconds"] + alone["products"],
    }.items():
        print(f"  {name:18s}   {base:8.1f} s   {taken / base:.2f}")


if __name__ == "__main__":
    main()
