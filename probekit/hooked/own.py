"""Loading the models that probekit builds itself: native toys and the equilibrium block."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ..errors import CardError
from .cards import Card, HookedTransformerConfig, check_config
from .equilibrium import build_equilibrium
from .equilibrium_model import ARCHITECTURE, EQUILIBRIUM_FIELDS, EquilibriumModel
from .model import HookedModel, hooked, load_weights
from .native import NATIVE_FIELDS, build_native


def load_native(
    card: Card,
    seed: int | None,
    checkpoint: str | Path | None,
    hf_model: nn.Module | None,
    overrides: Mapping[str, Any],
) -> HookedModel:
    """A bridge on our own toy model; arguments as :func:`probekit.load`'s."""
    model = hooked(build_native(_own_config(card, hf_model, overrides, NATIVE_FIELDS), seed))
    _read_checkpoint(model, checkpoint)
    return model


def load_equilibrium(
    card: Card,
    seed: int | None,
    checkpoint: str | Path | None,
    hf_model: nn.Module | None,
    overrides: Mapping[str, Any],
) -> EquilibriumModel:
    """An equilibrium model of its card; arguments as :func:`probekit.load`'s."""
    cfg = _own_config(card, hf_model, overrides, EQUILIBRIUM_FIELDS)
    cfg.architecture = ARCHITECTURE
    model = build_equilibrium(cfg, seed)
    _read_checkpoint(model, checkpoint)
    return model


def _own_config(
    card: Card,
    hf_model: nn.Module | None,
    overrides: Mapping[str, Any],
    own_fields: Mapping[str, Any],
) -> HookedTransformerConfig:
    """The config of a model that probekit builds itself, with fields of its own."""
    if hf_model is not None:
        raise CardError(
            f"card {card.name!r} is a native model; hf_model= needs a Hugging Face card"
        )
    check_config(card.name, overrides)
    fields = {"model_name": card.name, **card.main_config, **overrides}
    own = {name: fields.pop(name, default) for name, default in own_fields.items()}
    cfg = HookedTransformerConfig(**fields)
    for name, value in own.items():
        setattr(cfg, name, value)
    return cfg


def _read_checkpoint(model: HookedModel | EquilibriumModel, checkpoint: str | Path | None) -> None:
    if checkpoint is not None:
        try:
            load_weights(model, load_file(checkpoint))
        except (OSError, SafetensorError) as error:
            raise CardError(f"checkpoint {checkpoint} cannot be read: {error}") from error
