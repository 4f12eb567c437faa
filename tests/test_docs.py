"""The site's pages keep their promises: their code runs, their commands are understood."""

import re
from pathlib import Path

import pytest

from probekit import recipes
from probekit.cli import main

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
COMMANDS = sorted(
    {line for page in PAGES for line in re.findall(r"^probekit (.*)$", page.read_text(), re.M)}
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page) -> None:
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(block, names)


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_are_understood(line) -> None:
    words = line.split()
    if words[0] in ("run", "show"):
        assert words[1] in recipes.discover()
    with pytest.raises(SystemExit) as done:
        main([*words, "--help"])
    assert done.value.code == 0


def test_every_page_is_in_the_menu() -> None:
    menu = (DOCS.parent / "mkdocs.yml").read_text()
    for page in PAGES:
        assert f": {page.relative_to(DOCS)}\n" in menu
