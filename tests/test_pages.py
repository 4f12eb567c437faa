"""Pages in a real browser whose network is off: nothing is asked for, no script fails."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from matplotlib.figure import Figure

import probekit as pk
from probekit.findings import read_findings
from probekit.inspection import inspect_model
from probekit.inspection_page import inspection_page
from probekit.report import Report

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
pytestmark = pytest.mark.skipif(not BROWSER, reason="no Chromium to open pages in")

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-sync",
    "--disable-component-update",
    "--enable-logging=stderr",
    "--log-level=0",
    "--virtual-time-budget=5000",
    "--dump-dom",
]
# Chromium marks requests by who makes them; this is its resource loader, the rest its own chatter.
BY_PAGE = r'"traffic_annotation":101845102,"url":"([^"]*)"'


class Opened(NamedTuple):
    """What a browser made of a page."""

    dom: str
    errors: list[str]
    asked: set[str]


def opened(page: Path) -> Opened:
    """Open a page where no name resolves."""
    log = page.with_suffix(".net.json")
    command = [BROWSER, *FLAGS, "--host-resolver-rules=MAP * ~NOTFOUND", f"--log-net-log={log}"]
    home = f"--user-data-dir={page.parent / 'browser'}"
    done = subprocess.run([*command, home, page.as_uri()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    errors = re.findall(r":CONSOLE.*?\] (.*)", done.stderr)
    return Opened(done.stdout, errors, set(re.findall(BY_PAGE, log.read_text())))


def test_what_a_page_asks_for_and_where_its_scripts_fail_is_seen(tmp_path) -> None:
    page = tmp_path / "bad.html"
    page.write_text('<script src="https://example.org/x.js"></script><script>nowhere()</script>')
    found = opened(page)
    assert found.asked == {"https://example.org/x.js"}
    assert len(found.errors) == 1 and "nowhere is not defined" in found.errors[0]


def test_a_report_draws_its_heads_offline(tmp_path) -> None:
    figure = Figure()
    figure.subplots().plot([0, 1], [0, 1])
    report = Report("all of it").text("**bold**").figure(figure, "a line")
    report.table([{"verdict": "reproduced", "value": 1.0}], filters=["verdict"])
    for size in (3, 4):
        pattern = torch.full((2, size, size), 1 / size).tril()
        report.attention(pattern, [f"<{place}>" for place in range(size)])
    report.save(tmp_path / "report.html")
    found = opened(tmp_path / "report.html")
    assert (found.errors, found.asked) == ([], set())
    body = found.dom.partition("<body>")[2]
    assert len(re.findall(r"<canvas", body)) >= 4  # a small picture a head


def test_an_inspection_opens_offline(tmp_path) -> None:
    model = pk.load("grokking", seed=0)
    inspection_page(inspect_model(model, [torch.arange(6)], patterns=True), "a model").save(
        tmp_path / "page.html"
    )
    found = opened(tmp_path / "page.html")
    assert (found.errors, found.asked) == ([], set())
    assert "<canvas" in found.dom.partition("<body>")[2]


def test_the_findings_open_offline(tmp_path) -> None:
    results = Path(__file__).parent.parent / "results"
    read_findings([results]).to_report().save(tmp_path / "findings.html")
    found = opened(tmp_path / "findings.html")
    assert (found.errors, found.asked) == ([], set())
    assert found.dom.count("<select") == 3
