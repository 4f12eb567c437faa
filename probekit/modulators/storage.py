"""A modulator's folder: `card.toml` names its class and config, `weights.safetensors` the rest.

Parameters that do not learn (``requires_grad`` is False) are listed in the card as ``frozen``.
Nothing in it is executed: the class is one of a fixed list, and the weights are safetensors.
"""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import tomli_w
from torch import Tensor

from ..errors import ProbekitError, unknown
from ..files import read_tensors, read_toml
from ..runs import write_together
from .field import SimplexField
from .lerp import LerpModulator

Modulator = LerpModulator | SimplexField

_CLASSES: dict[str, type[LerpModulator] | type[SimplexField]] = {
    "LerpModulator": LerpModulator,
    "SimplexField": SimplexField,
}
_CARD, _WEIGHTS = "card.toml", "weights.safetensors"
_KEYS = ("modulator", "config", "frozen")
_FIX = "save the modulator again"
#: Tensors that older folders lack, and that are at their defaults there.
_LATER = ("scales",)


def save_modulator(module: Modulator, folder: str | Path) -> None:
    """Write a modulator to a folder, whole or not at all.

    A crash while an earlier save is replaced may leave a folder that has no card and does not
    load, rather than one that mixes the two.

    Raises:
        ProbekitError: the module is no modulator of probekit.
    """
    name = type(module).__name__
    if _CLASSES.get(name) is not type(module):
        raise ProbekitError(unknown("modulator", name, _CLASSES))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    frozen = [key for key, parameter in module.named_parameters() if not parameter.requires_grad]
    listed = {"frozen": frozen} if frozen else {}
    card = tomli_w.dumps({"modulator": name, **listed, "config": module.config})
    tensors = {key: t.detach().cpu().contiguous() for key, t in module.state_dict().items()}
    write_together(
        {folder / _WEIGHTS: safetensors.torch.save(tensors), folder / _CARD: card.encode()}
    )


def load_modulator(folder: str | Path) -> Modulator:
    """Read what :func:`save_modulator` wrote, onto the CPU and in training mode.

    Raises:
        ProbekitError: a file is missing or damaged, the class is unknown, or config or weights
            have a missing or unknown key, a value that the class refuses, or another shape.
    """
    folder = Path(folder)
    name, config, frozen = _read_card(folder / _CARD)
    tensors, _ = read_tensors(folder / _WEIGHTS, _FIX)
    _check_config(folder / _CARD, name, config)
    try:
        module = _CLASSES[name](**config)
    except (TypeError, ValueError, RuntimeError, ProbekitError) as error:
        raise ProbekitError(f"{folder / _CARD}: [config] builds no {name}: {error}") from error
    own = module.state_dict()
    tensors = {key: own[key] for key in _LATER if key in own} | tensors
    _check_weights(folder / _WEIGHTS, own, tensors)
    # Assigned, not copied: the saved dtype is kept.
    module.load_state_dict(tensors, assign=True)
    parameters = dict(module.named_parameters())
    for key in frozen:
        if key not in parameters:
            raise ProbekitError(f"{folder / _CARD}: {unknown('parameter', key, parameters)}")
        parameters[key].requires_grad_(False)
    return module


def _read_card(path: Path) -> tuple[str, Mapping[str, Any], list[str]]:
    card = read_toml(path, _FIX)
    for key in card:
        if key not in _KEYS:
            raise ProbekitError(f"{path}: {unknown('key', key, _KEYS)}")
    name, config, frozen = card.get("modulator"), card.get("config"), card.get("frozen", [])
    if not isinstance(name, str) or not isinstance(config, dict):
        raise ProbekitError(f'{path} needs modulator = "<class>" and a table [config]')
    if not isinstance(frozen, list) or not all(isinstance(key, str) for key in frozen):
        raise ProbekitError(f"{path}: frozen is a list of parameters' names, not {frozen!r}")
    if name not in _CLASSES:
        raise ProbekitError(f"{path}: {unknown('modulator', name, _CLASSES)}")
    return name, config, frozen


def _check_config(path: Path, name: str, config: Mapping[str, Any]) -> None:
    valid = inspect.signature(_CLASSES[name]).parameters
    for key in config:
        if key not in valid:
            raise ProbekitError(f"{path}: {unknown('config key', key, valid)}")
    missing = [key for key in valid if key not in config]
    if missing:
        raise ProbekitError(f"{path}: [config] lacks {', '.join(missing)}")


def _check_weights(path: Path, own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Report every mismatch at once."""
    wrong = [f"{key} is missing" for key in own if key not in given]
    wrong += [f"{key} is unknown" for key in given if key not in own]
    for key in own.keys() & given.keys():
        if _kind(given[key]) != _kind(own[key]):
            wrong.append(f"{key} is {_kind(given[key])}, not {_kind(own[key])}")
    if wrong:
        raise ProbekitError(f"{path} does not fit its card: {'; '.join(sorted(wrong))}")


def _kind(tensor: Tensor) -> str:
    return f"{'float' if tensor.is_floating_point() else 'int'}{list(tensor.shape)}"
