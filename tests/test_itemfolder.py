"""A folder of items does the same elsewhere; it is never half-written, and nothing else is read."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import tomli_w
import torch
from families import tiny_native
from torch import Tensor, nn

import probekit as pk
from probekit.interventions.swap_weights import donor_weights
from probekit.modulators import LerpModulator, SimplexField, save_modulator

WEIGHTS = {"0.Q.weight": torch.arange(6.0).view(2, 3), "0.Q.bias": torch.ones(())}


def double(x: Tensor) -> Tensor:
    return 2 * x


def lerp() -> LerpModulator:
    return LerpModulator(d_model=8, n_layers=2, vocab=5, d_geometry=3, seed=1)


def test_what_is_written(tmp_path):
    folder = pk.save_items([pk.SwapQK(WEIGHTS), pk.VDI(), pk.Edit("0.z", double)], tmp_path / "a")
    assert (folder / "items.toml").read_text() == (
        "[[item]]\n"
        'item = "SwapWeights"\n'
        "\n"
        "[item.donor]\n"
        'tensors = "SwapWeights.donor.safetensors"\n'
        "\n"
        "[[item]]\n"
        'item = "VDI"\n'
        "\n"
        "[[item]]\n"
        'item = "Edit"\n'
        'site = "0.z"\n'
        "\n"
        "[item.fn]\n"
        f'function = "{__name__}:double"\n'
    )
    assert set(safetensors.torch.load_file(folder / "SwapWeights.donor.safetensors")) == set(
        WEIGHTS
    )


# A model as donor, and another process


def logits(model: Any, items: Any) -> Tensor:
    with torch.no_grad(), pk.attach(model, *items):
        return model(torch.arange(16).view(2, 8))


@pytest.mark.parametrize(
    "make",
    [
        lambda donor: pk.SwapWeights(donor, ("O", "MLP", "LN"), layers=(-1,)),
        lambda donor: pk.SwapWeights(donor, ("Q", "K", "V", "O"), heads=(1,)),
        lambda donor: pk.SwapWeights(donor, ("EMBED", "POS", "UNEMBED")),
        lambda donor: pk.SwapPackedRows(donor, 96),
    ],
)
def test_a_donor_model_is_stored_as_the_selected_weights(make, tmp_path):
    model, donor = tiny_native(0), tiny_native(1)
    item = make(donor)
    pk.save_items([item], tmp_path)
    (again,) = pk.load_items(tmp_path)
    wanted = donor_weights(donor, item.selection)
    assert again.donor.keys() == wanted.keys()
    assert all(torch.equal(again.donor[key], value) for key, value in wanted.items())
    assert torch.equal(logits(model, [again]), logits(model, [item]))
    assert not torch.equal(logits(model, [again]), logits(model, []))


ELSEWHERE = """
import sys, safetensors.torch, torch, probekit as pk
folder, out, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
model = pk.load("grokking", seed=0, n_layers=2, n_ctx=8, d_vocab=50)
with torch.no_grad(), pk.attach(model, *pk.load_items(folder)):
    logits = model(torch.arange(16).view(2, 8))
safetensors.torch.save_file({"logits": logits.contiguous()}, out)
"""


def test_bit_equal_logits_in_a_new_process(tmp_path):
    model = tiny_native(0)
    width, depth = model.cfg.d_model, 2
    warming = LerpModulator(d_model=width, n_layers=depth, vocab=50, alpha=0.3, warmup=5, seed=1)
    warming.advance(2)
    trained = LerpModulator(d_model=width, n_layers=depth, vocab=50, alpha=0.2, warmup=5, seed=2)
    items = [
        pk.SwapQK(tiny_native(1), layers=(0,)),
        pk.HeadScale(1, 0, 0.3),
        pk.Noise(0.1, "resid_mid", seed=5),
        pk.Clamp("variance", 1.7, "1.resid_post"),
        pk.Lerp(warming),
        pk.Lerp(trained.eval()),  # in training its alpha would still be 0
        pk.FieldModulator(SimplexField(d_model=width, n_layers=depth, alpha=0.3), "resid_post"),
    ]
    pk.save_items(items, tmp_path / "items")
    here, out = logits(model, items), tmp_path / "logits"
    arguments = [str(tmp_path / "items"), str(out), str(torch.get_num_threads())]
    subprocess.run([sys.executable, "-c", ELSEWHERE, *arguments], check=True)
    assert torch.equal(safetensors.torch.load_file(out)["logits"], here)
    for number, item in enumerate(items):  # each of them counts
        others = items[:number] + items[number + 1 :]
        assert not torch.equal(logits(model, others), here), item


def test_a_module_that_items_share_stays_one(tmp_path):
    shared, other = lerp(), lerp()
    shared.geometry.requires_grad_(False)
    items = [pk.Lerp(shared, alpha=0.1), pk.Lerp(shared, site="resid_post"), pk.Lerp(other)]
    folder = pk.save_items(items, tmp_path / "items")
    assert len([path for path in folder.iterdir() if path.is_dir()]) == 2
    first, second, third = (item.module for item in pk.load_items(folder))
    assert first is second and first is not third
    assert not first.geometry.requires_grad and third.geometry.requires_grad
    pk.save_items(items, folder)  # and is replaced as before


# Where it may be written


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_an_earlier_save_is_replaced_whole(tmp_path):
    folder = tmp_path / "items"
    folder.mkdir()  # empty: taken
    pk.save_items([pk.SwapQK(WEIGHTS), pk.Lerp(lerp())], folder)
    pk.save_items([pk.VDI()], folder)
    assert contents(tmp_path) == {"items/items.toml": b'[[item]]\nitem = "VDI"\n'}
    pk.save_items([], folder)
    assert pk.load_items(folder) == []


def test_a_save_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    folder = pk.save_items([pk.SwapQK(WEIGHTS)], tmp_path / "items")
    before = contents(tmp_path)
    with pytest.raises(pk.ProbekitError, match=r"^Edit\.fn is a Linear"):
        pk.save_items([pk.Lerp(lerp()), pk.Edit("0.z", nn.Linear(1, 1))], folder)
    assert contents(tmp_path) == before

    moves: list[Any] = []
    replace = os.replace

    def crash_once(source: Any, target: Any) -> None:
        if Path(target) == folder and not moves:
            moves.append(source)
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr("probekit.itemfolder.os.replace", crash_once)
    with pytest.raises(KeyboardInterrupt):
        pk.save_items([pk.VDI()], folder)
    assert moves and contents(tmp_path) == before


def test_nothing_of_somebody_elses_is_deleted(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")

    def refusal(folder: Path) -> str:
        with pytest.raises(pk.ProbekitError) as error:
            pk.save_items([pk.VDI()], folder)
        return str(error.value).replace(str(tmp_path), "T")

    assert refusal(tmp_path) == ("T is not empty and holds no items.toml; give another folder")
    assert refusal(tmp_path / "notes.txt") == "T/notes.txt is a file; give a folder"
    folder = pk.save_items([pk.SwapQK(WEIGHTS)], tmp_path / "items")
    (folder / "b.txt").write_text("mine")
    (folder / "a").mkdir()
    assert refusal(folder) == (
        "T/items also holds a, b.txt, which saving would delete; give another folder, or move them"
    )
    assert len(pk.load_items(folder)) == 1


# What cannot be read back


def failure(folder: Path) -> str:
    with pytest.raises(pk.ProbekitError) as error:
        pk.load_items(folder)
    return str(error.value).replace(str(folder), "F")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[item]\n", "cannot read F/items.toml: Expected ']]' at the end of an array declaration"),
        ("\udcff", "cannot read F/items.toml: 'utf-8' codec can't decode byte 0xff"),
        ("items = 1", "F/items.toml holds items; only [[item]] tables belong there"),
        ("item = 1", "F/items.toml holds item; only [[item]] tables belong there"),
        ("item = [{item = 'VDI'}, 2]", "F/items.toml, item 2 is 2, not a table"),
        (
            "[[item]]\nitem = 'VDI'\n[[item]]\nitem = 'VDI'\nsite = '0.z'",
            "F/items.toml, item 2: VDI reads a pattern, not '0.z'",
        ),
        (
            "[[item]]\nitem = 'VDI'\nsites = '0.z'",
            "F/items.toml, item 1: VDI: unknown field 'sites'; valid: differentiable, iterations, "
            "name, normaliser, order, queries, site; closest: 'site'",
        ),
        ("[[item]]\nitem = 'VID'", "F/items.toml, item 1: unknown item 'VID'; valid: VDI, "),
    ],
)
def test_an_items_file_that_is_none(text, message, tmp_path):
    (tmp_path / "items.toml").write_bytes(text.encode(errors="surrogateescape"))
    assert failure(tmp_path).startswith(message)


def test_a_folder_that_holds_no_items(tmp_path):
    assert failure(tmp_path / "none") == (
        "cannot read F/items.toml: [Errno 2] No such file or directory: 'F/items.toml'; "
        "pk.save_items writes such a file"
    )


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/etc/passwd", "..", ".", "", "a/b", "a\\b", "C:x", "a\0b"]
)
@pytest.mark.parametrize("kind", ["tensors", "tensor", "modulator"])
def test_nothing_outside_the_folder_is_read(name, kind, tmp_path):
    folder = tmp_path / "items"
    folder.mkdir()
    safetensors.torch.save_file({"value": torch.zeros(1)}, tmp_path / "x.safetensors")
    save_modulator(lerp(), tmp_path)
    mark = {kind: name} | ({"training": True} if kind == "modulator" else {})
    (folder / "items.toml").write_text(
        tomli_w.dumps({"item": [{"item": "SwapWeights", "donor": mark}]})
    )
    assert failure(folder) == (
        f"F/items.toml, item 1: SwapWeights.donor: {name!r} is not a file name; what is stored "
        "lies in the folder itself"
    )


def test_files_that_are_missing_or_damaged(tmp_path):
    pk.save_items([pk.VDI(), pk.SwapQK(WEIGHTS)], tmp_path)
    file = tmp_path / "SwapWeights.donor.safetensors"
    whole = file.read_bytes()
    start = f"F/items.toml, item 2: SwapWeights.donor: cannot read F/{file.name}: "
    for data in (whole[:-1], whole[:20], b"", b"\x80\x04\x95 a pickle"):
        file.write_bytes(data)
        assert failure(tmp_path).startswith(start)
        assert failure(tmp_path).endswith("; save the items again")
    file.unlink()
    assert failure(tmp_path).startswith(start)


def test_a_modulator_that_is_missing_or_damaged(tmp_path):
    pk.save_items([pk.Lerp(lerp())], tmp_path)
    (tmp_path / "Lerp.module" / "card.toml").write_text("nonsense")
    start = "F/items.toml, item 1: Lerp.module: cannot read F/Lerp.module/"
    assert failure(tmp_path).startswith(f"{start}card.toml: ")
    (tmp_path / "Lerp.module" / "card.toml").unlink()
    assert failure(tmp_path).startswith(f"{start}card.toml: ")


def test_functions_that_were_not_passed_are_all_named(tmp_path):
    pk.save_items([pk.Edit("0.z", abs), pk.SetPattern(double), pk.Edit("1.z", max)], tmp_path)
    with pytest.raises(pk.ProbekitError) as error:
        pk.load_items(tmp_path, {f"{__name__}:double": double})
    assert str(error.value) == (
        "functions are stored by name only; pass "
        "functions={'builtins:abs': ..., 'builtins:max': ...}"
    )
