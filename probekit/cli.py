"""The command `probekit`: list, show, copy and run recipes; list and inspect models; get data."""

import argparse
import dataclasses
import importlib.metadata
import io
import os
import select
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import tyro
from tyro.conf import OmitArgPrefixes, Positional
from tyro.extras import SubcommandApp

from probekit import recipes
from probekit.errors import ProbekitError, RunError, unknown

if TYPE_CHECKING:
    from probekit.inspection import Inspection

_PRESETS = ("quick", "paper")
_app = SubcommandApp()


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """The flags that every recipe has."""

    preset: Literal["quick", "paper"] = "quick"
    """The configuration that the recipe's own flags start from."""
    jobs: int = 1
    """How many pieces of work run side by side; the results do not depend on it."""
    out: Path = Path("runs")
    """Results go to OUT/<recipe>/<preset>; the same command again goes on where it stopped."""


@_app.command
def ls(names: bool = False) -> None:
    """List the recipes.

    Args:
        names: only their names, one a line.
    """
    found = recipes.discover()
    width = max(map(len, found), default=0)
    for name, path in found.items():
        title = recipes.docstring(path).partition("\n")[0]
        print(name if names else f"{name:{width}}  {title}".rstrip())


@_app.command
def show(name: Positional[str]) -> None:
    """Print what a recipe says about itself: question, commands, expected numbers, time, source."""
    path = recipes.find(name)
    print(f"{recipes.docstring(path)}\n\nfile: {path}")


@_app.command
def run(name: Positional[str], options: OmitArgPrefixes[RunOptions] = RunOptions()) -> None:
    """Run a recipe and print a verdict on each of its claims.

    Each recipe has flags of its own: see `probekit run NAME --help`.
    """
    recipe = recipes.load(recipes.find(name))
    config = _preset(recipe, options.preset)
    recipes.run(recipe, config, options.preset, options.out, options.jobs)


@_app.command
def cp(name: Positional[str], dest: Positional[Path] = Path(".")) -> None:
    """Copy a recipe, to change it.

    Args:
        dest: a file or a folder.
    """
    path = recipes.find(name)
    target = dest / path.name if dest.is_dir() else dest
    if target.exists():
        raise RunError(f"{target} exists; name another file or delete it")
    shutil.copyfile(path, target)
    print(f"copied to {target}; run it with `probekit run {target}`")


@_app.command
def data(name: Positional[Literal["wordnet"]], folder: Path | None = None) -> None:
    """Install data that NLTK reads: by its download, from Debian's packages, or from a folder.

    Args:
        folder: with WordNet's files, such as data.noun; nothing is downloaded then.
    """
    from probekit.lexicon.data import install_wordnet

    print(f"{name} is at {install_wordnet(folder)}")


@dataclasses.dataclass(frozen=True)
class FindingsOptions:
    """Which findings, and where they go."""

    runs: tuple[Path, ...] = ()
    """Folders of runs: they win over the results that come along, but for those of more seeds or
    steps (paper over quick)."""
    out: Path = Path(".")
    """Where FINDINGS.md and findings.html go."""
    verdict: str | None = None
    """Print those of this verdict, and write nothing."""
    claim: str | None = None
    """Print those whose ids begin so, such as 002 or 003-1, and write nothing."""


@_app.command
def findings(options: OmitArgPrefixes[FindingsOptions] = FindingsOptions()) -> None:
    """Write every claim with its verdict to FINDINGS.md and findings.html, or print some."""
    from probekit.console import print_rows
    from probekit.findings import VERDICTS, read_findings, write_findings
    from probekit.paths import data_dir

    if options.verdict not in (None, *VERDICTS):
        raise RunError(unknown("verdict", str(options.verdict), VERDICTS))
    ledger = read_findings([data_dir("results"), *options.runs])
    if options.verdict or options.claim:
        chosen = ledger.select(verdict=options.verdict, claim=options.claim).findings
        print_rows(f"{len(chosen)} findings", [each.row for each in chosen])
        return
    write_findings(ledger, options.out)
    counts = ", ".join(f"{number} {verdict}" for verdict, number in ledger.counts.items())
    print(f"{counts}: written to {options.out / 'FINDINGS.md'} and findings.html")


@_app.command
def models() -> None:
    """List the models that `probekit.load` knows."""
    import probekit

    _print_frame(probekit.list_models())


@_app.command
def sites(model: Positional[str]) -> None:
    """List where a model can be read and edited; loads the model.

    Args:
        model: a card of `probekit models`, or CARD=FOLDER with the folder of its weights.
    """
    import probekit
    from probekit.pretrained import pretrained

    _print_frame(probekit.list_sites(pretrained(model)))


@dataclasses.dataclass(frozen=True)
class InspectOptions:
    """What to give to a model, and what to look at."""

    input: tuple[str, ...]
    """Token ids ("3 3 7 10" or 3,3,7,10), a text, an image file; several, each in quotes."""
    label: tuple[str, ...] = ()
    """What should be said to each input, or to all: an id, a text of one token, a class."""
    decoder: str | None = None
    """What a decoder of its own has said: all its ids, or the text after the start token."""
    position: tuple[int, ...] = ()
    """Positions to read, negative ones from the end. By default those of [MASK]; the last, of
    native models and where a label follows a causal text; the class token of an image; else all."""
    top: int = 5
    """How many predictions."""
    checkpoint: Path | None = None
    """Weights: a folder; for native models a safetensors file."""
    seed: int | None = None
    """Of a native model's random initialisation."""
    html: Path | None = None
    """Write a page with the attention patterns; it opens without a network."""
    layer: tuple[int, ...] = ()
    """The layers on that page; all by default."""


@_app.command
def inspect(model: Positional[str], options: OmitArgPrefixes[InspectOptions]) -> None:
    """Show what a model says to given inputs: predictions, loss, margin, attention.

    With CLIP give images and texts: each image is compared with all texts, and a label is the
    number of a text, from 0.
    """
    import transformers

    from probekit import inspection, load
    from probekit.hooked.cards import read_card
    from probekit.inspection_page import inspection_page
    from probekit.typed_inputs import TypedInputs, one_or_several

    card = read_card(model)
    if options.html and not options.html.parent.is_dir():
        raise RunError(f"there is no folder {options.html.parent} for {options.html.name}")
    kind = inspection.kind_of(getattr(transformers, card.architecture or "", None))
    weights = options.checkpoint or card.checkpoint or card.id
    typed = TypedInputs(kind, None if card.source == "native" else str(weights), weights == card.id)
    inputs = one_or_several(options.input)
    read = [typed.tensor(text) for text in inputs]
    inspection.check_inputs(kind, read, SimpleNamespace(**card.main_config))
    labels = [typed.label(text, inputs) for text in options.label]
    decoder = None if options.decoder is None else typed.said(options.decoder)
    found = inspection.inspect_model(
        load(model, seed=options.seed, checkpoint=options.checkpoint),
        read,
        labels=labels or None,
        decoder=decoder,
        positions=options.position or None,
        top=options.top,
        patterns=(options.layer or True) if options.html else False,
        tokenizer=typed.tokenizer() if kind != "pixels" else None,
    )
    print(f"{card.title}; weights: {weights or f'random initialisation, --seed {options.seed}'}")
    images = [text for text in inputs if typed.is_image(text)]
    _print_inspection(found, images if kind == "both" else inputs)
    if options.html:
        inspection_page(found, card.title).save(options.html)
        print(f"written to {options.html}")


def _print_inspection(found: "Inspection", inputs: Sequence[str]) -> None:
    from rich.markup import escape

    from probekit.console import print_rows

    frame = found.to_frame()
    own = [name for name in ("position", "token", "label", "loss", "margin") if name in frame]
    for index, group in frame.groupby("input"):
        group = group.drop(columns="input").astype(object)
        group = group.where(group.notna(), "-")
        if "rank" in group:
            group.loc[group.pop("rank") > 1, own] = ""  # said once for all its predictions
        title = escape(f"input {index}: {inputs[int(str(index))]}")
        print_rows(title, group.to_dict("records"))
    if "loss" in frame:
        losses = frame.loc[frame["rank"] == 1, "loss"].dropna()
        print(f"mean loss {losses.mean():.6g} nats, positions with a label: {len(losses)}")
    heads = found.heads()
    if len(heads):  # a single token has nothing else to attend to
        print(f"attention entropy, {found.vdi.units}; uniform: {found.vdi.null_name}")
        print(heads.to_string(float_format="%.3f", na_rep="-", line_width=120))


def _print_frame(frame: Any) -> None:
    print(frame.to_string(index=False))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    1 for an error, 130 when interrupted, 141 where nobody reads on, such as ``head``.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        if args == ["--version"]:
            print(f"probekit {importlib.metadata.version('probekit')}")
        elif args[:1] == ["run"] and args[1:] and not args[1].startswith("-"):
            _run_with_flags(args[1], args[2:])
        else:
            _app.cli(prog="probekit", args=args, description=__doc__)
        sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_is_gone():  # another pipe, such as a worker's
            raise
        return 141
    except ProbekitError as error:
        print(f"probekit: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        again = "finished work is kept: the same command again goes on where it stopped"
        print(f"\nprobekit: interrupted; {again}", file=sys.stderr)
        return 130
    return 0


def _reader_is_gone() -> bool:
    """Whether nobody reads standard output; what is left of it then goes nowhere."""
    try:
        stdout = sys.stdout.fileno()
        poll = select.poll()
    except (AttributeError, io.UnsupportedOperation):  # on Windows; output that is no file
        return False
    poll.register(stdout, 0)
    if not poll.poll(0):
        return False
    # Python writes what is left when it ends, and would complain again.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stdout)
    os.close(nowhere)
    return True


def _run_with_flags(name: str, flags: list[str]) -> None:
    """Run a recipe whose `Config` gives the command line more flags, defaults by the preset."""
    path = recipes.find(name)
    recipe = recipes.load(path)
    # tyro shows a field under its own name; for the one that every recipe has, --seed reads better.
    # (The hint may be inherited; that class is not ours to change.)
    seeds: Any = get_type_hints(recipe.Config)["seeds"]
    recipe.Config.__annotations__["seeds"] = Annotated[seeds, tyro.conf.arg(name="seed")]
    both = dataclasses.make_dataclass(
        "Flags",
        [
            ("run", OmitArgPrefixes[RunOptions], RunOptions()),
            ("config", OmitArgPrefixes[recipe.Config], _preset(recipe, _preset_in(flags))),
        ],
        frozen=True,
    )
    title = recipes.docstring(path).partition("\n")[0]
    parsed: Any = tyro.cli(both, prog=f"probekit run {name}", description=title, args=flags)
    options: RunOptions = parsed.run
    recipes.run(recipe, parsed.config, options.preset, options.out, options.jobs)


def _preset_in(flags: list[str]) -> str:
    """Find --preset before the rest can be parsed; a wrong one is left for tyro to refuse."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--preset", nargs="?")
    preset = parser.parse_known_args(flags)[0].preset
    return preset if preset in _PRESETS else "quick"


def _preset(recipe: recipes.Recipe, preset: str) -> Any:
    return recipe.Config.quick() if preset == "quick" else recipe.Config.paper()


if __name__ == "__main__":
    sys.exit(main())
