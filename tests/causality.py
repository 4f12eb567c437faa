"""The causality table of README: does an edit at this part, in this family, reach the output?

python tests/causality.py      # writes the table into README.md
"""

from collections.abc import Callable
from pathlib import Path

import decoders
import families
import torch
from torch import Tensor

import probekit as pk
from probekit.site import PARTS

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- causality -->\n", "<!-- /causality -->"
#: Column title, family, and the prefixes that a site's address may have there.
COLUMNS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("native", "native", ("0.", "")),
    ("GPT-2", "gpt2", ("0.", "")),
    ("Llama", "llama", ("0.", "")),
    ("GPT-J", "gptj", ("0.", "")),
    ("BERT", "bert", ("0.", "")),
    ("T5 encoder", "t5", ("encoder.0.", "encoder.")),
    ("T5 decoder", "t5", ("decoder.0.self.", "decoder.0.", "decoder.", "")),
    ("T5 cross", "t5", ("decoder.0.cross.",)),
    ("ViT", "vit", ("0.", "")),
    ("CLIP text", "clip", ("text.0.", "text.")),
    ("CLIP vision", "clip", ("vision.0.", "vision.")),
    ("DINOv2", "dinov2", ("0.", "")),
)


def table() -> str:
    """The Markdown table, measured now."""
    made = {name: _made(name) for name in {family for _, family, _ in COLUMNS}}
    lines = ["| part | " + " | ".join(title for title, _, _ in COLUMNS) + " |"]
    lines.append("|---" * (len(COLUMNS) + 1) + "|")
    for part in PARTS:
        cells = [cell(made[family], part, prefixes) for _, family, prefixes in COLUMNS]
        lines.append(f"| {part} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _made(name: str) -> families.Family:
    return decoders.decoder(name) if name in decoders.DECODERS else families.ALL[name]()


def cell(family: families.Family, part: str, prefixes: tuple[str, ...]) -> str:
    """``causal``, ``refused``, or ``-`` where the family has no such activation."""
    sites = set(pk.list_sites(family.model)["site"])
    address = next((prefix + part for prefix in prefixes if prefix + part in sites), None)
    if address is None:
        return "-"
    try:
        receipt = pk.verify(family.model, pk.Edit(address, noise()), *family.args, **family.kwargs)
    except pk.DecorativeHookError:
        return "refused"
    return "causal" if receipt.output_change else "NO EFFECT"


def noise() -> Callable[[Tensor], Tensor]:
    """Adds seeded Gaussian noise; a factor would be hidden by the next norm."""
    generator = torch.Generator().manual_seed(0)
    return lambda x: x + torch.randn(x.shape, generator=generator).to(x)


def write(markdown: str, begin: str, end: str) -> None:
    """Put a table into README, between its two marks."""
    text = README.read_text()
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    README.write_text(before + begin + markdown + end + after)


if __name__ == "__main__":
    write(table(), BEGIN, END)
