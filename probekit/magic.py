"""``%load_ext probekit`` in IPython: the magic ``%probe``, which attaches, runs and shows.

%probe model(tokens) with VDI(), HeadScale(0, 0, omega=0.5)

%%probe model with VDI()
for batch in batches:
    model(batch)
"""

import ast
import contextlib
from typing import Any

import probekit

from . import completion
from .errors import ProbekitError
from .registry import every_item

_USAGE = (
    "%probe needs a call and items, `%probe model(tokens) with VDI(), HeadScale(0, 0, omega=0.5)`; "
    "%%probe a model and items, and under it the code to run"
)


def load_ipython_extension(shell: Any) -> None:
    """Give an IPython shell the magic ``%probe``, and Tab the names of cards and sites."""

    def probe(line: str, cell: str | None = None) -> Any:
        """Attach items to a model, run a call of it or the cell, and show what they measured.

        `%probe model(tokens) with VDI()` or, above the code to run, `%%probe model with VDI()`.
        Items are written without `pk.`; the attachment is what the cell returns, `_["vdi"]`.
        """
        return _probe(shell, line, cell)

    shell.register_magic_function(probe, "line_cell", "probe")
    completion.register(shell)


def _probe(shell: Any, line: str, cell: str | None) -> Any:
    from IPython.display import display

    call, items = _parts(line.strip().rstrip(","))
    subject = call.strip() if cell is not None else _called(call)
    names = {**every_item(), "SwapQK": probekit.SwapQK, **shell.user_ns}
    if not (subject and items):
        raise ProbekitError(_USAGE)
    model, chosen = (eval(text, names) for text in (subject, f"({items},)"))
    model = getattr(model, "__self__", model)  # of model.generate(tokens)
    with probekit.attach(model, *chosen) as run:
        if cell is None:
            eval(call, names)
        else:
            exec(shell.transform_cell(cell), shell.user_ns)
    for name in run:
        display(run[name])
    return run


def _parts(line: str) -> tuple[str, str]:
    """What stands before and after the word "with"; texts on both sides may have that word too."""
    words = line.split(" with ")
    for i in range(1, len(words)):
        before, after = (" with ".join(part).strip() for part in (words[:i], words[i:]))
        with contextlib.suppress(SyntaxError):
            for source in (before, f"({after},)"):
                ast.parse(source, mode="eval")
            return before, after
    return line, ""


def _called(call: str) -> str | None:
    """The source of what a call calls."""
    try:
        tree = ast.parse(call.strip(), mode="eval").body
    except SyntaxError:
        return None
    return ast.unparse(tree.func) if isinstance(tree, ast.Call) else None
