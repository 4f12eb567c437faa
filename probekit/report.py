"""One HTML file that shows a run: text, tables, figures, attention heads; opens with no network.

report = Report("Natural crystallization")
report.text("Weight decay makes attention **uniform**.")
report.table(run["vdi"].to_frame())
report.attention(pattern, tokens, caption="after training")
report.save("report.html")
"""

import base64
import html
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
from circuitsvis.attention import attention_heads
from jaxtyping import Float
from markdown_it import MarkdownIt
from matplotlib.figure import Figure
from torch import Tensor

from probekit.errors import RunError
from probekit.runs import write_atomic

# Figures and heads are drawn dark on white; in the dark they keep a white card behind them.
_STYLE = """
:root { color-scheme: light dark; --page: #fff; --text: #1b1b1f; --line: #d4d4dc; }
@media (prefers-color-scheme: dark) { :root { --page: #16161a; --text: #e6e6ea; --line: #3a3a44; } }
body { margin: 0 auto; max-width: 56rem; padding: 1rem; background: var(--page);
  color: var(--text); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1, h2, h3 { line-height: 1.2; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
td:first-child { min-width: 9rem; }
.filtered { width: min(96vw, 84rem); margin-left: calc(50% - min(48vw, 42rem)); }
.filtered td:first-child { max-width: 10rem; }
figure { margin: 1.5rem 0; }
figure img { display: block; max-width: 100%; height: auto; }
.card { background: #fff; color: #1b1b1f; color-scheme: light; border: 1px solid var(--line);
  border-radius: .4rem; padding: .5rem; overflow-x: auto; }
figcaption { margin-top: .4rem; font-size: .9rem; }
"""


# Shows the rows that fit all menus of the table around it.
_FILTER = """
{ const box = document.currentScript.parentElement;
  const menus = [...box.querySelectorAll("select")];
  box.addEventListener("change", () => {
    for (const row of box.querySelectorAll("tbody tr"))
      row.hidden = !menus.every(menu => !menu.value ||
        row.children[menu.dataset.column].textContent.split(":")[0] === menu.value);
  }); }
"""


def _menu(frame: pd.DataFrame, column: str) -> str:
    values = dict.fromkeys(str(value).partition(":")[0] for value in frame[column])
    options = "".join(f"<option>{html.escape(value)}</option>" for value in values)
    place = frame.columns.get_loc(column)
    every = '<option value="">all</option>'
    menu = f'<select data-column="{place}">{every}{options}</select>'
    return f"<label>{html.escape(column)} {menu}</label> "


class Report:
    """Collects parts from top to bottom; every method returns the report, `save` writes it."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._parts: list[str] = []
        self._script = ""
        self._views = 0

    def text(self, markdown: str) -> "Report":
        """Add Markdown; HTML inside it is shown, not interpreted."""
        parser = MarkdownIt("commonmark", {"html": False}).enable("table")
        return self._add(parser.render(markdown))

    def table(
        self, rows: pd.DataFrame | Sequence[Mapping[str, Any]], filters: Sequence[str] = ()
    ) -> "Report":
        """Add a table, floats to six digits.

        Args:
            filters: columns by which the reader may narrow it down; of a text with a colon what
                stands before it counts.
        """
        frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
        body = frame.to_html(index=False, border=0, na_rep="", float_format=lambda x: f"{x:.6g}")
        menus = "".join(_menu(frame, name) for name in filters)
        script = f"<script>{_FILTER}</script>" if filters else ""
        style = ' class="filtered"' if filters else ""
        return self._add(f'<div{style}>{menus}<div class="wide">{body}</div>{script}</div>')

    def figure(self, figure: Figure, caption: str) -> "Report":
        """Add a matplotlib figure as SVG; the caption is also its text for a screen reader."""
        data = io.BytesIO()
        # A fixed salt and no date: the same figure gives the same file.
        with matplotlib.rc_context({"svg.hashsalt": "probekit"}):
            figure.savefig(data, format="svg", bbox_inches="tight", metadata={"Date": None})
        source = f"data:image/svg+xml;base64,{base64.b64encode(data.getvalue()).decode()}"
        return self._captioned(f'<img src="{source}" alt="{html.escape(caption)}">', caption)

    def figures(self, figures: Mapping[str, tuple[Figure, str]], folder: Path) -> "Report":
        """Add figures with captions; each is left in ``folder`` as a PNG too, and closed."""
        for name, (figure, caption) in figures.items():
            data = io.BytesIO()
            figure.savefig(data, format="png", dpi=150, bbox_inches="tight")
            write_atomic(folder / f"{name}.png", data.getvalue())
            self.figure(figure, caption)
            plt.close(figure)
        return self

    def attention(
        self,
        patterns: Float[Tensor, "head query key"],
        tokens: Sequence[str],
        head_names: Sequence[str] | None = None,
        caption: str = "",
    ) -> "Report":
        """Add attention heads that can be enlarged, drawn by circuitsvis.

        Keys after the query are left blank when no head attends to them.

        Raises:
            RunError: the sizes of patterns, tokens and names do not agree.
        """
        names = list(head_names or [f"head {index}" for index in range(len(patterns))])
        expected = (len(names), len(tokens), len(tokens))
        if tuple(patterns.shape) != expected:
            raise RunError(
                f"patterns of shape {list(patterns.shape)} do not fit {len(names)} head names and"
                f" {len(tokens)} tokens, which need {list(expected)}"
            )
        rendered = attention_heads(
            patterns.detach().cpu().float(),
            list(tokens),
            attention_head_names=names,
            mask_upper_tri=not patterns.triu(1).any().item(),
        )
        return self._captioned(self._view(rendered.local_src), caption)

    def _view(self, source: str) -> str:
        """Take circuitsvis's script out of a view, so that a page with many carries it once."""
        before, _, call = source.rpartition("CircuitsVis.render(")
        self._script = before.partition('<script crossorigin type="module">')[2]
        self._views += 1
        name = f"attention-{self._views}"
        call = re.sub(r'"circuits-vis-[^"]+"', f'"{name}"', call, count=1)
        # A token may itself be "</script>": the last one closes, all others are escaped.
        call = call.rpartition("</script>")[0].replace("<", "\\u003c")
        return f'<div id="{name}"></div><script>CircuitsVis.render({call}</script>'

    def _captioned(self, body: str, caption: str) -> "Report":
        text = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
        return self._add(f'<figure><div class="card">{body}</div>{text}</figure>')

    def _add(self, part: str) -> "Report":
        self._parts.append(part)
        return self

    def to_html(self) -> str:
        """The page."""
        title = html.escape(self.title)
        script = f"<script>{self._script}</script>" if self._script else ""
        return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{_STYLE}</style>
{script}
</head>
<body>
<h1>{title}</h1>
{"".join(self._parts)}
</body>
</html>
"""

    def save(self, path: str | Path) -> None:
        """Write the page, whole or not at all."""
        write_atomic(Path(path), self.to_html().encode())
