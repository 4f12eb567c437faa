"""Every intervention on every family: the second table of README, measured.

python tests/matrix.py      # writes the table into README.md
"""

from collections.abc import Callable
from dataclasses import dataclass

import causality
import families
import torch
from torch import Tensor

import probekit as pk
from probekit.hooked.model import load_weights, weights
from probekit.hooked.selection import Selection

BEGIN, END = "<!-- interventions -->\n", "<!-- /interventions -->"


@dataclass(frozen=True)
class Column:
    """One attention stack of one family: its title, and how items address it."""

    title: str
    family: str
    stack: str | None = None
    attn: str | None = None

    @property
    def place(self) -> str:
        """The front of an address in layer 0, the residual stream's without the attention."""
        return f"{self.stack}.0." if self.stack else "0."

    @property
    def attention(self) -> str:
        return f"{self.place}{self.attn}." if self.attn else self.place


@dataclass(frozen=True)
class Row:
    """One intervention: how to make it do something, and how to make it do nothing.

    ``idle`` gets what a run without it read at ``measured``, where that is an address.
    """

    name: str
    active: Callable[[Column, families.Family], pk.Intervention | pk.WeightIntervention]
    idle: Callable[
        [Column, families.Family, Tensor | None], pk.Intervention | pk.WeightIntervention
    ]
    measured: Callable[[Column], str] | None = None


COLUMNS = (
    Column("native", "native"),
    Column("GPT-2", "gpt2"),
    Column("BERT", "bert"),
    Column("T5 encoder", "t5", "encoder"),
    Column("T5 decoder", "t5", "decoder", "self"),
    Column("T5 cross", "t5", "decoder", "cross"),
    Column("ViT", "vit"),
    Column("CLIP text", "clip", "text"),
    Column("CLIP vision", "clip", "vision"),
    Column("DINOv2", "dinov2"),
)


def _mid(column: Column) -> str:
    return f"{column.attention}resid_mid"


def _swap(part: str) -> Row:
    where = {"layers": (0,)} if part in ("Q", "K", "V", "O", "MLP") else {}

    # A fresh norm is all ones, which these models' norms are already.
    other = "zero" if part == "LN" else "random"

    def make(donor: object, column: Column) -> pk.SwapWeights:
        attn = column.attn if part in "QKVO" else None
        return pk.SwapWeights(donor, (part,), stack=column.stack, attn=attn, **where)  # type: ignore[arg-type]

    return Row(
        f"SwapWeights {part}",
        lambda column, family: make(other, column),
        lambda column, family, _: make(family.model, column),
    )


def _lerp(column: Column, family: families.Family, alpha: float) -> pk.Lerp:
    d_model, n_layers = _sizes(column, family)
    module = pk.modulators.LerpModulator(
        d_model=d_model, n_layers=n_layers, vocab=families.VOCAB, d_geometry=4
    )
    torch.nn.init.normal_(module.projection)
    module.to(_device(family))
    return pk.Lerp(module, alpha=alpha, site=f"{column.place}resid_pre")


def _field(column: Column, family: families.Family, alpha: float) -> pk.FieldModulator:
    d_model, n_layers = _sizes(column, family)
    module = pk.modulators.SimplexField(
        d_model=d_model, n_layers=n_layers, alpha=alpha, alpha_min=0
    ).to(_device(family))
    return pk.FieldModulator(module, site=f"{column.place}resid_pre")


def _device(family: families.Family) -> torch.device:
    return next(family.model.parameters()).device


def _sizes(column: Column, family: families.Family) -> tuple[int, int]:
    """The width of a stack and its depth."""
    with torch.no_grad(), pk.attach(family.model, pk.Record(f"{column.place}resid_pre")) as run:
        family.run()
    stack = run["record"].values
    sites = pk.list_sites(family.model)
    here = sites[(sites["stack"] == (column.stack or "")) & (sites["part"] == "resid_pre")]
    return stack.shape[-1], len(here)


ROWS = (
    Row(
        "HeadScale",
        lambda c, f: pk.HeadScale(0, 1, 0.5, c.stack, c.attn),
        lambda c, f, _: pk.HeadScale(0, 1, 1, c.stack, c.attn),
    ),
    Row(
        "AttentionScale",
        lambda c, f: pk.AttentionScale(0, 0, c.stack),
        lambda c, f, _: pk.AttentionScale(1, 0, c.stack),
    ),
    Row(
        "SetPattern",
        lambda c, f: pk.SetPattern(lambda p: 0.5 * p, f"{c.attention}pattern"),
        lambda c, f, _: pk.SetPattern(lambda p: p, f"{c.attention}pattern"),
    ),
    Row(
        "Edit",
        lambda c, f: pk.Edit(f"{c.attention}z", causality.noise()),
        lambda c, f, _: pk.Edit(f"{c.attention}z", lambda x: x),
    ),
    Row(
        "Noise",
        lambda c, f: pk.Noise(1.0, _mid(c)),
        lambda c, f, _: pk.Noise(0, _mid(c)),
    ),
    Row(
        "Clamp norm",
        lambda c, f: pk.Clamp("norm", 3.0, _mid(c), per="vector"),
        lambda c, f, x: pk.Clamp("norm", float(x.norm(dim=-1).mean()), _mid(c)),  # type: ignore[union-attr]
        _mid,
    ),
    Row(
        "Clamp variance",
        lambda c, f: pk.Clamp("variance", 3.0, _mid(c)),
        lambda c, f, x: pk.Clamp("variance", float((x - x.mean((0, 1))).std()), _mid(c)),  # type: ignore[union-attr,operator]
        _mid,
    ),
    Row("Lerp", lambda c, f: _lerp(c, f, 0.5), lambda c, f, _: _lerp(c, f, 0)),
    Row("FieldModulator", lambda c, f: _field(c, f, 0.3), lambda c, f, _: _field(c, f, 0)),
    *map(_swap, ("Q", "K", "V", "O", "MLP", "LN", "EMBED", "POS", "UNEMBED")),
    Row(
        "SwapPackedRows",
        lambda c, f: pk.SwapPackedRows("random", 5, layers=(0,)),
        lambda c, f, _: pk.SwapPackedRows(f.model, 5, layers=(0,)),
    ),
)


def cell(row: Row, column: Column, family: families.Family) -> str:
    """``causal``, or why it is refused; asserts that what should do nothing does nothing.

    Raises:
        AssertionError: an edit without effect, an identity with one, or a model left changed.
    """
    try:
        item = row.active(column, family)
        receipt = pk.verify(family.model, item, *family.args, **family.kwargs)
    except pk.ProbekitError as error:
        return f"refused: {_reason(str(error))}"
    assert receipt.output_change, f"{row.name} on {column.title} changed nothing"
    measured = None
    if row.measured is not None:
        with torch.no_grad(), pk.attach(family.model, pk.Record(row.measured(column))) as run:
            family.run()
        measured = run["record"].values
    idle = row.idle(column, family, measured)
    change = pk.verify(family.model, idle, *family.args, **family.kwargs).output_change
    # A clamp to the measured value divides a number by itself: rounding, amplified by CLIP's scale.
    plain = family.run()
    rounding = 1e-5 if plain.dtype == torch.float32 else 1e-2
    bound = rounding * float(plain.abs().max()) if row.measured else 0
    assert change is not None and change <= bound, f"{row.name} on {column.title}: {change}"
    return "causal"


def held(column: Column, family: families.Family) -> str:
    """``held``: one head's Q stands still through an optimizer's step that moves the others'."""
    model, before = family.model, {n: w.clone() for n, w in weights(family.model).items()}
    head, other = (Selection(("Q",), (0,), (h,), column.stack, column.attn) for h in (0, 1))
    frozen, free = ([each.view.clone() for each in s.find(model)] for s in (head, other))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=1.0)
    with pk.attach(
        model, pk.FreezeWeights(("Q",), (0,), (0,), stack=column.stack, attn=column.attn)
    ):
        family.output(model(*family.args, **family.kwargs)).square().mean().backward()
        optimizer.step()
    assert all(torch.equal(s.view, old) for s, old in zip(head.find(model), frozen, strict=True))
    assert not any(torch.equal(s.view, old) for s, old in zip(other.find(model), free, strict=True))
    load_weights(model, before)
    model.zero_grad()
    return "held"


def _reason(message: str) -> str:
    if "embeds no token ids" in message:
        return "no tokens"
    if "this model has no UNEMBED" in message:
        return "no such part"
    return message


def table() -> str:
    """The Markdown table, measured now."""
    made = {column.family: families.ALL[column.family]() for column in COLUMNS}
    lines = ["| intervention | " + " | ".join(column.title for column in COLUMNS) + " |"]
    lines.append("|---" * (len(COLUMNS) + 1) + "|")
    for row in ROWS:
        cells = [cell(row, column, made[column.family]) for column in COLUMNS]
        lines.append(f"| {row.name} | " + " | ".join(cells) + " |")
    cells = [held(column, made[column.family]) for column in COLUMNS]
    lines.append("| FreezeWeights | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    causality.write(table(), BEGIN, END)
