"""What pages take from elsewhere: tables that tests write, and names as docstrings give them."""

import re
from pathlib import Path
from typing import Any

_README = Path(__file__).parent.parent / "README.md"
_ROLE = re.compile(r":(?:class|func|meth|mod|attr):<code>~?([\w.]+)</code>")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """``{{ causality }}`` is the table of that name in README."""
    readme = _README.read_text()

    def table(found: re.Match[str]) -> str:
        name = found[1]
        return readme.partition(f"<!-- {name} -->\n")[2].partition(f"<!-- /{name} -->")[0]

    return re.sub(r"\{\{ (\w+) \}\}", table, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Docstrings cross-refer as Sphinx does; the site shows the name alone."""
    return _ROLE.sub(lambda found: f"<code>{found[1].rpartition('.')[2]}</code>", html)
