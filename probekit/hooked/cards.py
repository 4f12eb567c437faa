"""Model cards: one TOML file per model, its hooked config and where its weights come from.

A card has ``title``, ``source`` (``native``, ``equilibrium`` or ``huggingface``), for Hugging Face
``architecture`` (the class to load) and ``id`` or ``checkpoint``, and ``[config]``: fields of
:data:`HookedTransformerConfig`; a second tower has its own table. ``checkpoint`` is a folder or a
safetensors file, its path being relative to the card's own folder.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import pandas as pd
from transformer_lens.config import TransformerBridgeConfig, TransformerLensConfig

from ..errors import CardError, unknown
from ..files import read_toml
from ..paths import data_dir
from .equilibrium_model import EQUILIBRIUM_FIELDS
from .native import NATIVE_FIELDS

#: TransformerLens 4 renamed HookedTransformerConfig; the fields are the same.
HookedTransformerConfig = TransformerBridgeConfig

SOURCES = ("native", "equilibrium", "huggingface")
_TOP = ("title", "source", "id", "architecture", "checkpoint", "config")
_TOWERS = ("vision",)
_POSITIVE = ("n_layers", "n_heads", "d_model", "d_head", "d_mlp", "n_ctx", "d_vocab")


#: How an error names the types of fields.
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


@cache
def config_fields() -> Mapping[str, tuple[type, ...]]:
    """The fields that ``[config]`` may set, with their types: TransformerLens's and our own."""
    hints = get_type_hints(TransformerLensConfig) | get_type_hints(TransformerBridgeConfig.__init__)
    types = {name: get_args(hint) or (hint,) for name, hint in hints.items()}
    for name in ("return", "kwargs", "dtype", "device", "seed"):
        types.pop(name, None)
    own = NATIVE_FIELDS | EQUILIBRIUM_FIELDS
    return types | {name: (type(default),) for name, default in own.items()}


@dataclass(frozen=True)
class Card:
    """A model's description, as read from its TOML file.

    Raises:
        CardError: an unknown key (with the closest valid one), a missing key, or a bad size.
    """

    name: str
    title: str
    source: str
    config: Mapping[str, Any] = field(default_factory=dict)
    id: str | None = None
    architecture: str | None = None
    checkpoint: str | None = None

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise CardError(f"card {self.name!r}: {unknown('source', self.source, SOURCES)}")
        if self.source == "huggingface" and not (
            self.architecture and (self.id or self.checkpoint)
        ):
            raise CardError(
                f"card {self.name!r}: source 'huggingface' needs architecture, and id or checkpoint"
            )
        check_config(self.name, self.config)

    @property
    def towers(self) -> dict[str, Mapping[str, Any]]:
        """The configs of further towers (``vision``) by name."""
        return {tower: self.config[tower] for tower in _TOWERS if tower in self.config}

    @property
    def main_config(self) -> dict[str, Any]:
        """``[config]`` without the further towers."""
        return {key: value for key, value in self.config.items() if key not in _TOWERS}


def check_config(name: str, config: Mapping[str, Any]) -> None:
    """Refuse unknown keys, values of another type, and sizes that are no positive whole number."""
    for key, value in config.items():
        if key in _TOWERS and isinstance(value, Mapping):
            check_config(f"{name}, {key}", value)
        elif key not in config_fields():
            raise CardError(f"card {name!r}: {unknown('config key', key, sorted(config_fields()))}")
        elif key in _POSITIVE and not (type(value) is int and value > 0):
            raise CardError(f"card {name!r}: {key} must be a positive whole number, not {value!r}")
        elif not _fits(value, config_fields()[key]):
            kinds = [kind for kind in config_fields()[key] if kind is not NoneType]
            wanted = " or ".join(_KINDS.get(kind, f"a {kind.__name__}") for kind in kinds)
            raise CardError(f"card {name!r}: {key} must be {wanted}, not {value!r}")


def _fits(value: Any, kinds: tuple[type, ...]) -> bool:
    """Whether a value is of one of these types; a bool is no number, infinity neither."""
    if isinstance(value, float) and not math.isfinite(value):
        return False
    if isinstance(value, int) and not isinstance(value, bool):
        return int in kinds or float in kinds
    return type(value) in kinds


def read_card(name_or_path: str | Path) -> Card:
    """The card of that name, or the one in that TOML file.

    Raises:
        CardError: there is no such card, or it is malformed.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        if str(name_or_path) not in card_names():
            raise CardError(unknown("model", str(name_or_path), card_names()))
        path = data_dir("models") / f"{name_or_path}.toml"
    content = read_toml(path, "write it as models/grokking.toml is written", CardError)
    for key in content:
        if key not in _TOP:
            raise CardError(f"card {path.stem!r}: {unknown('key', key, _TOP)}")
    for key in ("title", "source"):
        if not isinstance(content.get(key), str):
            raise CardError(f'card {path.stem!r}: {key} is missing; add {key} = "..."')
    for key in ("id", "architecture", "checkpoint"):
        if not isinstance(content.get(key, ""), str):
            raise CardError(
                f'card {path.stem!r}: {key} must be text, {key} = "...", not {content[key]!r}'
            )
    if not isinstance(content.get("config", {}), dict):
        raise CardError(
            f"card {path.stem!r}: config must be a table, [config], not {content['config']!r}"
        )
    if "checkpoint" in content:
        content["checkpoint"] = str(path.parent / content["checkpoint"])
    return Card(name=path.stem, **content)


def card_names() -> list[str]:
    """The names of the cards that probekit ships."""
    return sorted(path.stem for path in data_dir("models").glob("*.toml"))


def list_models() -> pd.DataFrame:
    """The model cards as a table: name, title, source, sizes, and where weights come from."""
    cards = [read_card(name) for name in card_names()]
    sizes = ("n_layers", "n_heads", "d_model", "n_ctx", "d_vocab")
    return pd.DataFrame(
        [
            {
                "name": card.name,
                "title": card.title,
                "source": card.source,
                **{size: card.config.get(size) for size in sizes},
                "weights": card.id or ("shipped" if card.checkpoint else "random initialisation"),
            }
            for card in cards
        ]
    ).astype({size: "Int64" for size in sizes})
