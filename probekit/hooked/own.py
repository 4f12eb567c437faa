"""Loading the models that probekit builds itself: native toys and the equilibrium block."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from ..checks import check_memory
from ..errors import CardError
from ..files import read_tensors
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
    cfg = _own_config(card, hf_model, overrides, NATIVE_FIELDS)
    with _naming(card):
        model = hooked(build_native(cfg, seed))
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
    with _naming(card):
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
    with _naming(card):
        cfg = HookedTransformerConfig(**fields)
    for name, value in own.items():
        setattr(cfg, name, value)
    _check_memory(card, cfg)
    return cfg


@contextmanager
def _naming(card: Card) -> Iterator[None]:
    """Name the card where TransformerLens or torch does not take what its config says."""
    try:
        yield
    except (TypeError, ValueError, LookupError, ArithmeticError, RuntimeError) as error:
        raise CardError(f"card {card.name!r}: [config] builds no model: {error}") from error


def _check_memory(card: Card, cfg: HookedTransformerConfig) -> None:
    layer = 4 * cfg.d_model * cfg.n_heads * cfg.d_head + 2 * cfg.d_model * (cfg.d_mlp or 0)
    outside = (cfg.n_ctx + 2 * cfg.d_vocab) * cfg.d_model
    masks = cfg.n_layers * cfg.n_ctx**2  # TransformerLens's own attention makes them
    what = f"card {card.name!r}: the model"
    check_memory(what, cfg.n_layers * layer + outside, masks, CardError)


def _read_checkpoint(model: HookedModel | EquilibriumModel, checkpoint: str | Path | None) -> None:
    if checkpoint is not None:
        fix = "give a safetensors file"
        tensors, _ = read_tensors(checkpoint, fix, CardError)
        try:
            load_weights(model, tensors)
        except CardError as error:
            raise CardError(f"{checkpoint}: {error}") from None
