"""``load``: a model by its card, from the hub cache, a folder, or a model already in memory."""

import contextlib
import copy
import logging
import os
import socket
import threading
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, overload
from urllib.parse import urlsplit

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

from .. import seam
from ..checks import check_memory, is_whole
from ..errors import CardError, ProbekitError, closest
from .adapters import register_adapters
from .cards import Card, read_card
from .equilibrium import fresh_equilibrium
from .equilibrium_model import EquilibriumModel
from .model import HookedModel, hooked
from .native import build_native
from .own import load_equilibrium, load_native

Twin = TypeVar("Twin", bound=HookedModel | EquilibriumModel)
_SIZES = ("hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size")
_PATIENCE = 0.5  # seconds to find out that there is no network
#: What transformers and TransformerLens raise, deep inside, over folders unlike those they know.
_REFUSALS = (
    ProbekitError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    ImportError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
)


@overload
def load(name_or_path: Literal["equilibrium"], **options: Any) -> EquilibriumModel: ...


@overload
def load(
    name_or_path: str | Path,
    *,
    seed: int | None = None,
    checkpoint: str | Path | None = None,
    hf_model: nn.Module | None = None,
    local_files_only: bool = False,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    **overrides: Any,
) -> HookedModel: ...


def load(
    name_or_path: str | Path,
    *,
    seed: int | None = None,
    checkpoint: str | Path | None = None,
    hf_model: nn.Module | None = None,
    local_files_only: bool = False,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    **overrides: Any,
) -> HookedModel | EquilibriumModel:
    """Load a model by the name of its card (:func:`probekit.list_models`) or a card's path.

    Args:
        seed: of a native model's random initialisation; None draws from fresh entropy.
        checkpoint: weights: for Hugging Face models a folder (config.json and safetensors), for
            native ones a safetensors file.
        hf_model: a Hugging Face model in memory, of any size, wrapped in place; the config is
            read from it and not checked against the card.
        local_files_only: never ask the network.
        device, dtype: where and in what precision; None leaves the model as it is.
        overrides: fields of the config, for native models: ``load("grokking", n_layers=2)``.

    Returns:
        a TransformerBridge whose attention is live at scores and pattern; for the equilibrium
        card an :class:`~probekit.hooked.equilibrium.EquilibriumModel`, which has the same surface.

    Raises:
        CardError: unknown card or key, weights that are not to be had (naming the id, the folder
        option and the cache), or a model that cannot be wrapped.
    """
    card = read_card(name_or_path)
    if card.source == "equilibrium":
        model = load_equilibrium(card, seed, checkpoint or card.checkpoint, hf_model, overrides)
        return model.to(device=device, dtype=dtype)
    if card.source == "native":
        model = load_native(card, seed, checkpoint or card.checkpoint, hf_model, overrides)
    else:
        if overrides:
            raise CardError(
                f"card {card.name!r} has pretrained weights, so {', '.join(overrides)} cannot be "
                "overridden; build a Hugging Face model of that size and pass hf_model="
            )
        given = hf_model is not None
        if hf_model is not None:
            _check_wrappable(hf_model)
            _check_family(card, hf_model)
        source = hf_model if given else _from_pretrained(card, checkpoint, local_files_only)
        assert source is not None
        model = wrap(source, name=card.name)
        if not given:
            _check_against_card(card, model)
    if device is not None or dtype is not None:
        to = {"device": device, "dtype": dtype}
        model.to(**{k: v for k, v in to.items() if v is not None}, print_details=False)
    return model


def wrap(hf_model: nn.Module, *, name: str = "external") -> HookedModel:
    """Wrap a Hugging Face model, in place, in a bridge on probekit's attention; eval mode.

    Raises:
        CardError: it is wrapped already, or TransformerLens has no adapter for its class.
    """
    _check_wrappable(hf_model)
    seam.register()
    with _quiet():
        bridge = build_bridge_from_module(
            hf_model, type(hf_model).__name__, hf_config=hf_model.config, model_name=name
        )
    model = hooked(bridge)
    model.eval()
    return model


def random_twin(model: Twin, seed: int) -> Twin:
    """The same architecture with fresh random weights: the null of weight and geometry batteries.

    Native models draw from their initialisation law, Hugging Face models from their class's.
    """
    if isinstance(model, EquilibriumModel):
        return cast(Twin, fresh_equilibrium(model, seed))
    inner = model.original_model
    first = min(inner.parameters(), key=lambda p: p.is_meta)  # one in memory, if there is any
    if model.cfg.architecture == "TransformerLensNative":
        twin = hooked(build_native(copy.deepcopy(model.cfg), seed))
    else:
        with torch.random.fork_rng(devices=[]), _quiet():
            torch.manual_seed(seed)
            fresh = type(inner)(copy.deepcopy(inner.config))
            if getattr(inner, "pooler", fresh) is None:
                fresh.pooler = None  # type: ignore  # add_pooling_layer is not in the config
            twin = wrap(fresh, name=model.cfg.model_name)
    # TransformerLens's own .to asks for the whole state several times for every tensor.
    place = (first.device, first.dtype)
    if any((p.device, p.dtype) != place for p in twin.original_model.parameters()):
        twin.original_model.to(*place)
    twin.cfg.device, twin.cfg.dtype = first.device.type, first.dtype
    twin.train(model.training)
    return cast(Twin, twin)


def _from_pretrained(
    card: Card, checkpoint: str | Path | None, local_files_only: bool
) -> nn.Module:
    where = checkpoint or card.checkpoint
    if where is not None:
        if not os.path.isfile(Path(where) / "config.json"):
            raise CardError(f"checkpoint {where}: no folder with a config.json")
        return _read(card, where, offline=True)
    # Offline first: without a network the hub client retries for minutes before it gives up.
    problem = ""
    if _cached(card):
        try:
            return _read(card, card.id or "", offline=True)
        except CardError as error:  # an interrupted download, say
            problem = f" ({error})"
    if local_files_only or not hub_answers():
        why = "local_files_only is set" if local_files_only else "the hub cannot be reached"
        raise CardError(_not_here(card, why) + problem)
    try:
        return _read(card, card.id or "", offline=False)
    except CardError as error:
        raise CardError(f"{_not_here(card, 'the hub did not give them')}: {error}") from error


def _read(card: Card, where: str | Path, *, offline: bool) -> nn.Module:
    seam.register()
    found = getattr(transformers, card.architecture or "", None)
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        raise CardError(
            f"card {card.name!r}: transformers has no model {card.architecture!r}"
            f"{closest(card.architecture or '', dir(transformers))}"
        )
    cls: Any = found
    try:
        with _quiet():
            _check_memory(cls.config_class.from_pretrained(where, local_files_only=offline))
            model, report = cls.from_pretrained(
                where,
                local_files_only=offline,
                attn_implementation="eager",  # not the file's; what the seam serves goes there
                output_loading_info=True,
                use_safetensors=True,  # a pickle runs what is in it
            )
    except _REFUSALS as error:
        raise CardError(f"checkpoint {where} cannot be loaded ({error})") from error
    # What a checkpoint lacks is drawn at random; a pooler alone is often left out, and unused.
    missing = sorted(name for name in report["missing_keys"] if "pooler" not in name)
    if missing:
        listed = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise CardError(f"{where} lacks {len(missing)} weights of {card.architecture}: {listed}")
    return model


def _check_memory(config: Any) -> None:
    """Refuse a config of an enormous model; what transformers itself asks for comes in pieces."""
    for one in (config, *(getattr(config, name) for name in type(config).sub_configs)):
        sizes: list[Any] = [getattr(one, name, None) for name in _SIZES]
        # Some lack one, some have a list with a size a layer (Gemma 3n): these count as nothing.
        width, layers, inner, rows = (size if is_whole(size) else 0 for size in sizes)
        numbers = layers * width * (4 * width + 2 * inner) + rows * width
        # Stored in four bits each, at least.
        check_memory("what its config.json says", 0, numbers // 2)


def _cached(card: Card) -> bool:
    from huggingface_hub import try_to_load_from_cache

    try:
        return isinstance(try_to_load_from_cache(card.id or "", "config.json"), str)
    except ValueError as error:
        raise CardError(f"card {card.name!r}: id {card.id!r} names no model: {error}") from None


def hub_answers() -> bool:
    """Whether the hub can be reached, found out within half a second."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    # Behind a proxy it is the proxy that has to answer.
    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    address = urlsplit(proxy or constants.ENDPOINT)
    answers: list[bool] = []

    def ask() -> None:
        with contextlib.suppress(OSError):
            port = address.port or (443 if address.scheme == "https" else 80)
            socket.create_connection((address.hostname, port), _PATIENCE).close()
            answers.append(True)

    # In a thread, since a name server that does not answer has a time limit of its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    return bool(answers)


def _not_here(card: Card, why: str) -> str:
    from huggingface_hub import constants

    cache, home = Path(constants.HF_HUB_CACHE), Path.home()
    # The message may end in results that are passed on, where nobody's home belongs.
    shown = Path("~", cache.relative_to(home)) if cache.is_relative_to(home) else cache
    return (
        f"the weights of {card.id!r} (card {card.name!r}) are not in the hub cache at "
        f"{shown} and {why}; give a folder with checkpoint=, a model in memory "
        "with hf_model=, or fill the cache where there is a network"
    )


def _check_wrappable(hf_model: nn.Module) -> None:
    register_adapters()
    if not isinstance(hf_model, nn.Module):
        raise CardError(f"hf_model must be a Hugging Face model, not {type(hf_model).__name__}")
    if any(isinstance(module, GeneralizedComponent) for module in hf_model.modules()):
        raise CardError("hf_model is wrapped already; use that bridge, or load the model afresh")
    architecture = type(hf_model).__name__
    supported = sorted(ArchitectureAdapterFactory._adapters)
    if architecture not in supported:
        raise CardError(
            f"no TransformerLens adapter for {architecture}{closest(architecture, supported)}"
        )


def _check_family(card: Card, hf_model: nn.Module) -> None:
    """Refuse a model of another family than the card's: its sites would have other names."""
    given = getattr(hf_model.config, "model_type", "")
    cls = getattr(transformers, card.architecture or "", None)
    wanted = getattr(getattr(cls, "config_class", None), "model_type", given)
    if given != wanted:
        raise CardError(
            f"card {card.name!r} describes a {wanted} model, hf_model is a {given}; take a card "
            "of that family (pk.list_models()) or call pk.wrap(hf_model)"
        )


def _check_against_card(card: Card, model: HookedModel) -> None:
    configs: dict[str, tuple[dict[str, Any], Any]] = {"": (card.main_config, model.cfg)}
    for tower, fields in card.towers.items():
        configs[f"{tower}."] = (dict(fields), getattr(model.cfg, tower, None))
    wrong = [
        f"{prefix}{key} is {getattr(loaded, key, None)!r}, the card says {value!r}"
        for prefix, (fields, loaded) in configs.items()
        for key, value in fields.items()
        if getattr(loaded, key, None) != value
    ]
    if wrong:
        raise CardError(
            f"card {card.name!r} does not fit {card.id or card.checkpoint}: {'; '.join(wrong)}"
        )


@contextlib.contextmanager
def _quiet() -> Any:
    """Silence loaders' notes about unused heads and attention choices, warnings excepted."""
    loggers = [logging.getLogger(name) for name in ("transformers", "transformer_lens")]
    levels = [logger.level for logger in loggers]
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            transformers.utils.logging.enable_progress_bar()
