"""Model cards: one TOML file per model, its hooked config and where its weights come from.

A card has ``title``, ``source`` (``native``, ``equilibrium`` or ``huggingface``), for Hugging Face
``architecture`` (the class to load) and ``id`` or ``checkpoint``, and ``[config]``: fields of
:data:`HookedTransformerConfig`; a second tower has its own table. ``checkpoint`` is a folder or a
safetensors file, its path being relative to the card's own folder.
"""

import inspect
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from transformer_lens.config import TransformerBridgeConfig, TransformerLensConfig

from ..errors import CardError, unknown
from ..paths import data_dir
from .equilibrium_model import EQUILIBRIUM_FIELDS
from .native import NATIVE_FIELDS

#: TransformerLens 4 renamed HookedTransformerConfig; the fields are the same.
HookedTransformerConfig = TransformerBridgeConfig

SOURCES = ("native", "equilibrium", "huggingface")
_TOP = ("title", "source", "id", "architecture", "checkpoint", "config")
_TOWERS = ("vision",)
_POSITIVE = ("n_layers", "n_heads", "d_model", "d_head", "d_mlp", "n_ctx", "d_vocab")


def config_fields() -> frozenset[str]:
    """The fields that ``[config]`` may set: TransformerLens's, and those of our own models."""
    names = set(inspect.signature(TransformerBridgeConfig.__init__).parameters)
    names |= set(inspect.signature(TransformerLensConfig.__init__).parameters)
    names -= {"self", "kwargs", "dtype", "device", "seed"}
    return frozenset(names | set(NATIVE_FIELDS) | set(EQUILIBRIUM_FIELDS))


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
    """Refuse unknown keys and sizes that are no positive whole number."""
    for key, value in config.items():
        if key in _TOWERS and isinstance(value, Mapping):
            check_config(f"{name}, {key}", value)
        elif key not in config_fields():
            raise CardError(f"card {name!r}: {unknown('config key', key, sorted(config_fields()))}")
        elif key in _POSITIVE and not (type(value) is int and value > 0):
            raise CardError(f"card {name!r}: {key} must be a positive whole number, not {value!r}")


def read_card(name_or_path: str | Path) -> Card:
    """The card of that name, or the one in that TOML file.

    Raises:
        CardError: there is no such card, or it is malformed.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = data_dir("models") / f"{name_or_path}.toml"
        if not path.is_file():
            raise CardError(unknown("model", str(name_or_path), card_names()))
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CardError(f"card {path} cannot be read: {error}") from error
    for key in content:
        if key not in _TOP:
            raise CardError(f"card {path.stem!r}: {unknown('key', key, _TOP)}")
    for key in ("title", "source"):
        if not isinstance(content.get(key), str):
            raise CardError(f'card {path.stem!r}: {key} is missing; add {key} = "..."')
    if not isinstance(content.get("config", {}), dict):
        raise CardError(
            f"card {path.stem!r}: config must be a table, [config], not {content['config']!r}"
        )
    if isinstance(content.get("checkpoint"), str):
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
