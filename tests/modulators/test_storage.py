"""A modulator comes back from its folder bit for bit, or with a clear error."""

import math
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from probekit.errors import ProbekitError
from probekit.modulators import LerpModulator, SimplexField, load_modulator, save_modulator
from probekit.modulators import LerpModulator as Original

TOKENS = torch.tensor([[0, 5, 4]])


def lerp(**changed: Any) -> LerpModulator:
    sizes: dict[str, Any] = {"d_model": 8, "n_layers": 3, "vocab": 6, "d_geometry": 4}
    return LerpModulator(**(sizes | changed))


def field(**changed: Any) -> SimplexField:
    sizes: dict[str, Any] = {"d_model": 8, "n_layers": 3}
    return SimplexField(**(sizes | changed))


def output(module: torch.nn.Module, x: torch.Tensor) -> bytes:
    with torch.no_grad():
        out = module(x, TOKENS, 1) if isinstance(module, LerpModulator) else module(x, 1)
    return out.numpy().tobytes()


@pytest.mark.parametrize(
    "make",
    [
        lerp,
        lambda: lerp(per_layer=False, learn_alpha=False, seed=4, alpha=0),
        lambda: lerp(warmup=5).double(),
        field,
        lambda: field(null_at="random", template="published", experts=(3, 1), seed=9),
    ],
)
def test_saved_and_loaded_bit_for_bit(make, tmp_path):
    module = make()
    with torch.no_grad():  # as if trained
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    if isinstance(module, LerpModulator):
        module.advance(2)
    save_modulator(module, tmp_path / "new" / "folder")
    loaded = load_modulator(tmp_path / "new" / "folder")
    assert type(loaded) is type(module) and loaded.config == module.config
    x = torch.randn(1, 3, 8)
    assert output(loaded, x) == output(module, x)
    trained = [(name, p.dtype, p.requires_grad) for name, p in module.named_parameters()]
    assert [(n, p.dtype, p.requires_grad) for n, p in loaded.named_parameters()] == trained


def test_what_does_not_learn_stays_so(tmp_path):
    module = field()
    module.experts[0].gate.bias.requires_grad_(False)
    module.alpha_logits.requires_grad_(False)
    save_modulator(module, tmp_path)
    frozen = {n for n, p in load_modulator(tmp_path).named_parameters() if not p.requires_grad}
    assert frozen == {"alpha_logits", "experts.0.gate.bias"}


@pytest.mark.parametrize(
    ("frozen", "message"),
    [
        ('["geometri"]', "unknown parameter 'geometri'; valid: geometry, projection"),
        ("[1]", "frozen is a list of parameters' names, not [1]"),
        ('"geometry"', "frozen is a list of parameters' names, not 'geometry'"),
    ],
)
def test_a_list_of_frozen_parameters_that_is_none(tmp_path, frozen, message):
    save_modulator(lerp(learn_alpha=False), tmp_path)
    card = tmp_path / "card.toml"
    card.write_text(f"frozen = {frozen}\n" + card.read_text())
    with pytest.raises(ProbekitError) as error:
        load_modulator(tmp_path)
    assert str(error.value).startswith(f"{card}: {message}")


def test_what_is_written(tmp_path):
    save_modulator(field(), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["card.toml", "weights.safetensors"]
    card = tomllib.loads((tmp_path / "card.toml").read_text())
    assert card["modulator"] == "SimplexField"
    assert card["config"]["experts"] == [1, 2, 4] and card["config"]["alpha"] == 0.01
    assert SimplexField(**card["config"]).config == card["config"]


def test_a_crash_between_the_files_leaves_no_mixture(tmp_path, monkeypatch):
    save_modulator(field(), tmp_path)

    replace = os.replace

    def crash(source: Path, target: Path) -> None:
        if target.name == "card.toml":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr("probekit.runs.os.replace", crash)
    with pytest.raises(KeyboardInterrupt):
        save_modulator(field(alpha_max=0.1), tmp_path)
    with pytest.raises(ProbekitError, match=r"cannot read .*card\.toml"):
        load_modulator(tmp_path)


def test_another_module_is_refused(tmp_path):
    class LerpModulator(Original):
        pass

    with pytest.raises(ProbekitError, match="unknown modulator 'LerpModulator'"):
        save_modulator(LerpModulator(d_model=2, vocab=2, d_geometry=1), tmp_path)


def failure(folder: Path) -> str:
    with pytest.raises(ProbekitError) as error:
        load_modulator(folder)
    return str(error.value).replace(str(folder), "F")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '"LerpModulator"',
            '"Lerp"',
            "F/card.toml: unknown modulator 'Lerp'; valid: LerpModulator, SimplexField",
        ),
        ("warmup = 0\n", "", "F/card.toml: [config] lacks warmup"),
        (
            "warmup = 0",
            "warmpu = 0",
            "F/card.toml: unknown config key 'warmpu'; valid: d_model, n_layers, vocab,"
            " d_geometry, alpha, per_layer, learn_alpha, warmup, seed; closest: 'warmup'",
        ),
        (
            "alpha = 0.01",
            "alpha = 2.0",
            "F/card.toml: [config] builds no LerpModulator:"
            " alpha must be a number from 0 to 1, not 2.0",
        ),
        (
            "modulator =",
            "extra = 1\nmodulator =",
            "F/card.toml: unknown key 'extra'; valid: modulator, config, frozen",
        ),
        (
            'modulator = "LerpModulator"',
            "",
            'F/card.toml needs modulator = "<class>" and a table [config]',
        ),
        (
            "vocab = 6",
            "vocab = 7",
            "F/weights.safetensors does not fit its card: geometry is float[6, 4], not float[7, 4]",
        ),
    ],
)
def test_a_card_that_does_not_fit(old, new, message, tmp_path):
    save_modulator(lerp(), tmp_path)
    card = tmp_path / "card.toml"
    assert old in card.read_text()
    card.write_text(card.read_text().replace(old, new))
    assert failure(tmp_path) == message


def test_a_card_with_a_value_of_another_type(tmp_path):
    save_modulator(lerp(), tmp_path)
    card = tmp_path / "card.toml"
    card.write_text(card.read_text().replace("alpha = 0.01", 'alpha = "much"'))
    assert failure(tmp_path).startswith("F/card.toml: [config] builds no LerpModulator: ")


def test_every_mismatch_of_the_weights_at_once(tmp_path):
    save_modulator(lerp(), tmp_path)
    path = tmp_path / "weights.safetensors"
    tensors = safetensors.torch.load_file(path)
    del tensors["geometry"]
    tensors |= {"more": torch.zeros(1), "projection": torch.zeros(3, 4), "steps": torch.zeros(())}
    safetensors.torch.save_file(tensors, path)
    assert failure(tmp_path) == (
        "F/weights.safetensors does not fit its card: geometry is missing; more is unknown;"
        " projection is float[3, 4], not float[8, 4]; steps is float[], not int[]"
    )


def test_missing_and_damaged_files(tmp_path):
    assert failure(tmp_path / "none").startswith("cannot read F/card.toml: ")
    save_modulator(lerp(), tmp_path)
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert failure(tmp_path).startswith("cannot read F/weights.safetensors: ")
    weights.unlink()
    assert failure(tmp_path).startswith("cannot read F/weights.safetensors: ")
    (tmp_path / "card.toml").write_text("= nonsense")
    assert failure(tmp_path).startswith("cannot read F/card.toml: ")


def test_infinite_logits_survive(tmp_path):
    save_modulator(lerp(alpha=1), tmp_path)
    loaded = load_modulator(tmp_path)
    assert isinstance(loaded, LerpModulator)
    assert loaded.alpha_logits.tolist() == [math.inf] * 3


def test_scales_are_saved_and_older_folders_have_none(tmp_path):
    module = lerp(alpha=0.4)
    before = output(module, torch.ones(1, 3, 8))
    module.set_scales([2, 3, 0.5])
    save_modulator(module, tmp_path)
    loaded = load_modulator(tmp_path)
    assert isinstance(loaded, LerpModulator) and loaded.scales.tolist() == [2, 3, 0.5]
    path = tmp_path / "weights.safetensors"
    tensors = safetensors.torch.load_file(path)
    del tensors["scales"]
    safetensors.torch.save_file(tensors, path)
    assert output(load_modulator(tmp_path), torch.ones(1, 3, 8)) == before
