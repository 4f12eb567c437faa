import base64
import re

import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from probekit.errors import RunError
from probekit.report import Report


@pytest.fixture
def saved(tmp_path):
    def save(report: Report) -> str:
        report.save(tmp_path / "report.html")
        return (tmp_path / "report.html").read_text()

    return save


def causal(n_heads: int) -> torch.Tensor:
    return torch.ones(n_heads, 3, 3).tril() / torch.arange(1, 4)[:, None]


def line() -> Figure:
    figure = Figure()
    figure.subplots().plot([0, 1], [0, 1])
    return figure


def full() -> Report:
    report = Report("All of it")
    report.text("**bold**").table([{"head": 0}]).figure(line(), "a line")
    return report.attention(causal(2), ["a", "b", "c"]).attention(causal(1), ["a", "b", "c"])


def test_nothing_is_fetched(saved):
    page = saved(full())
    sources = re.findall(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=[\"'](.{5})", page)
    assert sources == ["data:"]  # the figure
    assert re.findall(r"@import|url\(\s*[\"']?http|\bfrom\s*[\"']http", page) == []
    assert "unpkg" not in page


def test_text_is_markdown_and_html_in_it_is_only_shown(saved):
    page = saved(Report("t").text("# One\n\n**two** `three` <script>alert(1)</script>"))
    assert "<h1>One</h1>" in page
    assert "<strong>two</strong> <code>three</code> &lt;script&gt;alert(1)&lt;/script&gt;" in page


@pytest.mark.parametrize("kind", [pd.DataFrame, list])
def test_a_table_holds_its_values(saved, kind):
    rows = [{"head": 0, "vdi": 0.61199166942}, {"head": 1, "vdi": float("nan")}]
    cells = re.findall(r"<t[hd]>(.*?)</t[hd]>", saved(Report("t").table(kind(rows))))
    assert cells == ["head", "vdi", "0", "0.611992", "1", ""]


def test_a_figure_is_an_svg_inside_the_page(saved):
    page = saved(Report("t").figure(line(), 'VDI & "null"'))
    (data,) = re.findall(r'<img src="data:image/svg\+xml;base64,([^"]+)"', page)
    assert b"<svg" in base64.b64decode(data)
    assert 'alt="VDI &amp; &quot;null&quot;"' in page
    assert "<figcaption>VDI &amp; &quot;null&quot;</figcaption>" in page


def views(page: str) -> list[str]:
    return re.findall(r"<script>CircuitsVis\.render\((.*?)</script>", page, flags=re.DOTALL)


def test_views_hold_their_patterns_and_share_one_script(saved):
    one = saved(Report("t").attention(causal(1), ["x", "y", "z"], ["L0H0"]))
    three = saved(
        Report("t")
        .attention(causal(1), ["x", "y", "z"], ["L0H0"])
        .attention(causal(1), ["x", "y", "z"], ["L0H0"])
        .attention(causal(1), ["x", "y", "z"], ["L0H0"])
    )
    (view,) = views(one)
    assert '"tokens": ["x", "y", "z"]' in view
    assert '"attentionHeadNames": ["L0H0"]' in view
    assert "[[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]," in view
    assert len(views(three)) == 3
    assert len(three) < len(one) + 10_000 < 10_000_000  # the script alone takes over a million
    assert len(one) > 1_000_000


def test_each_view_has_a_place_of_its_own(saved):
    page = saved(full())
    assert re.findall(r'<div id="(attention-\d)"></div>', page) == ["attention-1", "attention-2"]
    named = [re.findall(r'"(attention-\d)"', view) for view in views(page)]
    assert named == [["attention-1"], ["attention-2"]]


def test_a_token_cannot_end_the_script(saved):
    (view,) = views(saved(Report("t").attention(causal(1), ["<s>", "</script>", "<!--"])))
    assert r'"tokens": ["\u003cs>", "\u003c/script>", "\u003c!--"]' in view


def test_only_causal_patterns_are_masked(saved):
    bidirectional = torch.full((1, 3, 3), 1 / 3)
    tokens = ["a", "b", "c"]
    page = saved(Report("t").attention(causal(1), tokens).attention(bidirectional, tokens))
    masked = [re.findall(r'"maskUpperTri": (\w+)', view) for view in views(page)]
    assert masked == [["true"], ["false"]]


def test_sizes_that_do_not_agree_are_refused():
    with pytest.raises(RunError) as caught:
        Report("t").attention(causal(2), ["a", "b"], ["one"])
    assert str(caught.value) == (
        "patterns of shape [2, 3, 3] do not fit 1 head names and 2 tokens, which need [1, 2, 2]"
    )


def test_the_same_report_gives_the_same_file(saved):
    assert saved(full()) == saved(full())
