"""``%probe`` in a real IPython shell."""

import pytest
import torch
from families import tiny_native
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

import probekit as pk
from probekit.completion import completions
from probekit.errors import ProbekitError


@pytest.fixture
def shell():
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "probekit")
    model = tiny_native()
    shell.user_ns |= {"model": model, "tokens": torch.zeros(2, 4, dtype=torch.long)}
    yield shell
    InteractiveShell.clear_instance()


def expected(model, tokens):
    with pk.attach(model, pk.HeadScale(0, 0, 0.5), pk.VDI()) as run:
        model(tokens)
    return run["vdi"].values


def test_a_call_is_probed_and_shown(shell):
    with capture_output() as shown:
        run = shell.run_line_magic("probe", "model(tokens) with HeadScale(0, 0, 0.5), VDI()")
    values = expected(shell.user_ns["model"], shell.user_ns["tokens"])
    assert torch.equal(run["vdi"].values, values)
    (output,) = shown.outputs
    assert "vdi" in output.data["text/html"]
    assert "HeadScale" in run._repr_html_()


def test_a_cell_is_probed(shell):
    with capture_output():
        run = shell.run_cell_magic(
            "probe", "model with VDI(name='mine'),", "for _ in range(3):\n    out = model(tokens)\n"
        )
    assert run.keys() == ["mine"] and set(run.fired.values()) == {3}
    assert shell.user_ns["out"].shape[:2] == (2, 4)


@pytest.mark.parametrize(
    "call", ["model.forward(tokens)", "model([tokens, 'a with b'][0])", "model.eval()(tokens)"]
)
def test_methods_and_texts_may_be_in_a_call(shell, call):
    with capture_output():
        run = shell.run_line_magic("probe", f"{call} with HeadScale(0, 0, 0.5), VDI()")
    values = expected(shell.user_ns["model"], shell.user_ns["tokens"])
    assert torch.equal(run["vdi"].values, values)


def test_texts_in_items_may_say_with(shell):
    with capture_output():
        run = shell.run_line_magic("probe", "model(tokens) with VDI(name='run with noise')")
    assert run.keys() == ["run with noise"]


def test_nothing_stays_attached_when_the_code_fails(shell):
    with pytest.raises(ZeroDivisionError), capture_output():
        shell.run_cell_magic("probe", "model with HeadScale(0, 0, 0.0)", "1 / 0")
    model, tokens = shell.user_ns["model"], shell.user_ns["tokens"]
    with torch.no_grad():
        assert torch.equal(model(tokens), tiny_native()(tokens))


@pytest.mark.parametrize("line", ["", "model(tokens)", "model with VDI()", "1 +* with VDI()"])
def test_usage_is_explained(shell, line):
    with pytest.raises(ProbekitError, match=r"^%probe needs a call and items, `%probe model"):
        shell.run_line_magic("probe", line)


def test_wrong_items_are_named(shell):
    with pytest.raises(NameError, match="VDJ"):
        shell.run_line_magic("probe", "model(tokens) with VDJ()")
    assert shell.find_line_magic("probe") and shell.find_cell_magic("probe")


@pytest.mark.parametrize(
    ("line", "whole"),
    [
        ('pk.load("grok', 'pk.load("grokking'),
        ("pk.load('t5-w", "pk.load('t5-wordnet"),
        ('pk.attach(model, pk.Record("0.pat', 'pk.attach(model, pk.Record("0.pattern'),
        ('pk.Edit("vision.0:4.mlp_o', 'pk.Edit("vision.0:4.mlp_out'),
        (
            "pk.HeadScale(0, 1, 0.5), pk.Noise(0.1, 'resid_m",
            "pk.HeadScale(0, 1, 0.5), pk.Noise(0.1, 'resid_mid",
        ),
    ],
)
def test_tab_inside_quotes(shell, line, whole):
    with provisionalcompleter():
        lines = {
            line[: one.start] + one.text for one in shell.Completer.completions(line, len(line))
        }
    assert whole in lines
    assert all(one.startswith(line) for one in lines)


@pytest.mark.parametrize(
    "line",
    ['open("pat', 'print("0.pat', 'model.load(x, "grok', 'torch.load("', 'np.load("grok'],
)
def test_tab_elsewhere_is_not_ours(shell, line):
    assert completions(line) == ("", [])


@pytest.mark.parametrize("address", ["z:", "0.z:", "encoder.0:2.pattern:1"])
def test_tab_after_a_part_waits_for_the_heads_index(address):
    assert completions(f'pk.Record("{address}') == ("", [])
