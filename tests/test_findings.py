"""The ledger against what runs wrote; FINDINGS.md against the ledger."""

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from claimrows import row

from probekit import recipes
from probekit.claims import Claim
from probekit.cli import main
from probekit.errors import RunError
from probekit.findings import Finding, Ledger, read_findings, write_findings
from probekit.paths import checkout, data_dir

RESULTS = sorted(data_dir("results").glob("*/*.json"))


def written(folder: Path, recipe: str, preset: str, *rows: dict, **config: object) -> None:
    file = folder / recipe / preset / "summary.json"
    file.parent.mkdir(parents=True)
    summary = {"recipe": recipe, "preset": preset, "config": config, "claims": rows}
    environment = {"platform": "Linux", "torch": "2", "commit": "0123456789-dirty"}
    file.write_text(json.dumps(summary | {"environment": environment}))


@pytest.fixture(autouse=True)
def no_recipes(request, monkeypatch) -> None:
    """No recipes come along, but for tests of the project's own results."""
    if "real" not in request.keywords:
        monkeypatch.setattr(recipes, "discover", dict)


@pytest.mark.real
def test_findings_md_is_up_to_date() -> None:
    root = checkout()
    assert root is not None
    text = read_findings([data_dir("results")]).to_markdown()
    assert (root / "FINDINGS.md").read_text() == text, "run `probekit findings`"


@pytest.mark.real
@pytest.mark.parametrize("file", RESULTS, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_no_verdict_is_typed(file) -> None:
    """What the numbers say, as far as least, greatest and mean decide it."""
    summary = json.loads(file.read_text())
    assert (summary["recipe"], summary["preset"]) == (file.parent.name, file.stem)
    claims = {claim.id: claim for claim in recipes.load(recipes.find(summary["recipe"])).CLAIMS}
    assert [found["id"] for found in summary["claims"]] == list(claims)
    for found in summary["claims"]:
        claim = claims[found["id"]]
        assert (found["statement"], found["control"]) == (claim.statement, claim.control)
        stored = json.loads(json.dumps([claim.published, claim.tolerance]))  # pairs are lists there
        assert [found["published"], found["tolerance"]] == stored, found["id"]
        if found["verdict"] == "blocked":
            assert found["reason"] and found["measured"] is None
            continue
        ends = [*(found["interval"] or [math.nan]), found["measured"] or 0.0]
        inside = all(map(claim.accepts, ends)) and found["observed"] == found["n"]
        null = found["null"]
        controlled = null is not None and claim.accepts(null)
        expected = {"not reproduced"} if not inside else {"reproduced", "explained by null"}
        if not controlled:
            expected -= {"explained by null"}
        assert found["verdict"] in expected, found["id"]


def test_rows_are_those_of_the_summaries(tmp_path) -> None:
    blocked = {"measured": None, "interval": None, "null": None, "n": 0, "observed": 0}
    written(
        tmp_path,
        "a",
        "quick",
        row("009-10", n=1, observed=1, interval=[0.6, 0.6]),
        row("009-9", verdict="blocked", reason="no weights", **blocked),
        row("009-9.x", measured=None, interval=None, observed=0, verdict="not reproduced"),
        row("009-9.y", observed=2, published=1.0),
    )
    ledger = read_findings([tmp_path])
    assert [each.id for each in ledger.findings] == ["009-9", "009-9.x", "009-9.y", "009-10"]
    first, unseen, partly, last = ledger.findings
    assert (first.measured, first.null, first.reason) == ("", "chance", "no weights")
    assert (unseen.measured, unseen.published) == ("not observed", "0.5 to 0.75")
    assert partly.measured == "0.6 (0.5 to 0.7, n 3), seen in 2 of 3"
    assert (last.measured, last.null) == ("0.6", "0.1: chance")
    assert last.command == "probekit run a --preset quick --jobs 2"
    assert ledger.counts == {"reproduced": 2, "not reproduced": 1, "blocked": 1}
    assert (
        ledger.runs[0]["machine"] == "Linux, torch 2"
        and ledger.runs[0]["commit"] == "0123456-dirty"
    )
    text = ledger.to_markdown()
    assert "## 009: other claims" in text and "a \\| b" in text
    assert "| blocked: no weights | a (quick) |" in text


def test_what_nobody_published_stands_in_parentheses_and_is_counted_apart(tmp_path) -> None:
    rows = (row("009-1"), row("009-1.x", source="the same, corrected", tolerance=0.02))
    written(tmp_path, "a", "quick", *rows, models=["bert", "t5=/a/folder"], host="t5", pairs=3)
    ledger = read_findings([tmp_path])
    published, added = (each.row for each in ledger.findings)
    assert (published["published"], added["published"]) == ("0.5 to 0.75", "(0.5 to 0.75 ± 0.02)")
    assert published["run"] == "a (quick): bert, t5"
    assert ledger.count_rows == [{"verdict": "reproduced", "published claims": 1, "added": 1}]


def test_the_published_configuration_wins_and_later_folders_do(tmp_path) -> None:
    written(tmp_path / "one", "a", "paper", row(measured=1.0))
    written(tmp_path / "one", "a", "quick", row(measured=2.0))
    written(tmp_path / "two", "a", "quick", row(measured=3.0))
    written(tmp_path / "three", "a", "paper", row(measured=4.0))
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))

    def read(*folders: Path) -> str:
        return read_findings(folders).findings[0].measured.partition(" ")[0]

    assert (read(one), read(one, two), read(two)) == ("1", "1", "3")
    assert (read(one, three), read(three, one)) == ("4", "1")


@pytest.mark.parametrize(("source", "added"), [("a paper", False), ("not published", True)])
def test_a_recipe_that_never_ran_is_listed(tmp_path, monkeypatch, source, added) -> None:
    claim = Claim("009-2", source, "s", (0.0, 1.0), 0.5, lambda _: [], lambda _: None, "c")
    monkeypatch.setattr(recipes, "discover", lambda: {"b": Path("b.py")})
    monkeypatch.setattr(recipes, "load", lambda path: SimpleNamespace(CLAIMS=[claim]))
    ledger = read_findings([tmp_path])
    assert ledger.findings == (
        Finding("009-2", "s", "0 to 1 ± 0.5", "", "c", "not run", "", "b", "quick", added=added),
    )


def test_the_time_is_what_the_recipe_says(tmp_path, monkeypatch) -> None:
    file = tmp_path / "a.py"
    file.write_text(
        '"""A.\n\nTime on two cores: quick 2\nminutes; paper 3.5 hours.\n\nSource: x."""'
    )
    monkeypatch.setattr(recipes, "discover", lambda: {"a": file})
    written(tmp_path / "runs", "a", "quick", row())
    (run,) = read_findings([tmp_path / "runs"]).runs
    assert run["time on two cores"] == "quick 2 minutes; paper 3.5 hours"


def test_selecting(tmp_path) -> None:
    written(tmp_path, "a", "quick", row("009-1"), row("008-1", verdict="not reproduced"))
    ledger = read_findings([tmp_path])
    assert [each.id for each in ledger.select(claim="008").findings] == ["008-1"]
    assert [each.id for each in ledger.select(verdict="reproduced").findings] == ["009-1"]
    assert list(ledger.to_frame()["command"].unique()) == ["probekit run a --preset quick --jobs 2"]
    with pytest.raises(RunError, match=r"^no finding with the verdict 'blocked'$"):
        ledger.select(verdict="blocked")


def test_both_files_are_written(tmp_path) -> None:
    written(tmp_path / "runs", "a", "quick", row())
    ledger = read_findings([tmp_path / "runs"])
    assert isinstance(ledger, Ledger)
    write_findings(ledger, tmp_path)
    assert (tmp_path / "FINDINGS.md").read_text() == ledger.to_markdown()
    page = (tmp_path / "findings.html").read_text()
    assert page.count("<select") == 3 and "<option>reproduced</option>" in page


def test_bad_folders(tmp_path) -> None:
    with pytest.raises(RunError, match=r"^no folder .*nowhere; give one that `probekit run --out`"):
        read_findings([tmp_path / "nowhere"])
    file = tmp_path / "a" / "quick" / "summary.json"
    file.parent.mkdir(parents=True)
    for damaged, why in (
        ("", "cannot read FILE: Expecting value: line 1 column 1 (char 0)"),
        ("[]", "FILE is not what a run writes: it holds no table"),
        ('{"recipe": "a"}', "FILE is not what a run writes: preset is None"),
    ):
        file.write_text(damaged)
        with pytest.raises(RunError) as error:
            read_findings([tmp_path])
        assert str(error.value).replace(str(file), "FILE") == f"{why}; run the recipe again"
    for key, wrong in (("interval", [1]), ("verdict", "proven")):
        written(tmp_path / key, "a", "paper", row(**{key: wrong}))
        why = re.escape(f"run writes: claim 1: {key} is {wrong!r}; run the recipe again")
        with pytest.raises(RunError, match=why):
            read_findings([tmp_path / key])


@pytest.mark.real
def test_the_command(capsys, tmp_path) -> None:
    assert main(["findings", "--claim", "003-01"]) == 0
    assert "003-01.used" in capsys.readouterr().out
    assert main(["findings", "--verdict", "proven"]) == 1
    assert "unknown verdict 'proven'" in capsys.readouterr().err
    assert main(["findings", "--out", str(tmp_path)]) == 0
    assert "reproduced" in capsys.readouterr().out and (tmp_path / "findings.html").is_file()
