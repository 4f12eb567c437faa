"""Tab in IPython inside quotes: names of cards after ``load(``, parts of addresses in items."""

import re
from collections.abc import Iterable
from typing import Any

from .registry import every_item
from .site import PARTS

# Of probekit: torch, NumPy and json have a `load` too, of files.
_CARD = re.compile(r"(?:\b(?:pk|probekit)\.|(?<![\w.]))load\(\s*[\"'](?P<typed>[^\"']*)$")
_SITE = re.compile(r"\b(?P<call>\w+)\((?:[^()\"']|\"[^\"]*\"|'[^']*')*[\"'](?P<typed>[\w.:*-]*)$")


def completions(line: str) -> tuple[str, list[str]]:
    """What may stand in the place of the end of ``line``, and how that end reads now.

    Example:
        >>> completions('pk.load("grok')
        ('grok', ['grokking'])
        >>> completions('pk.Record("0.pat')
        ('0.pat', ['0.pattern'])
    """
    if found := _CARD.search(line):
        from .hooked.cards import card_names

        return found["typed"], _beginning(found["typed"], card_names())
    found = _SITE.search(line)
    if found is None or found["call"] not in {*every_item(), "Site", "parse_site"}:
        return "", []
    before, _, fragment = found["typed"].rpartition(":")  # IPython replaces what follows a colon
    if before.rpartition(".")[2] in PARTS:  # a head's index comes next
        return "", []
    head = fragment[: fragment.rfind(".") + 1]
    return fragment, _beginning(fragment, (head + part for part in PARTS))


def register(shell: Any) -> None:
    """Let the completer of an IPython shell ask :func:`completions` too."""
    from IPython.core.completer import SimpleCompletion, context_matcher

    @context_matcher()
    def probekit_names(context: Any) -> dict[str, Any]:
        line = context.full_text.split("\n")[context.cursor_line][: context.cursor_position]
        fragment, names = completions(line)
        return {
            "completions": [SimpleCompletion(name) for name in names],
            "matched_fragment": fragment,
            "suppress": bool(names),  # the files that other completers offer inside quotes
        }

    shell.Completer.custom_matchers.append(probekit_names)


def _beginning(typed: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(typed)]
