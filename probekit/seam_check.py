"""Whether the seam works with the installed torch, transformers and TransformerLens.

It rests on things that these may change: that Hugging Face's models call a registered attention
function and its mask function, that TransformerLens's AttentionBridge hands the computation to
them, has hook points for scores and pattern, and gives a handle for each hook. Looked at once a
process, when the seam is first registered, on a BERT of one layer and four numbers a token.
"""

import importlib.metadata
import re
import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
from transformers import BertConfig, BertForMaskedLM

from . import seam
from .errors import ProbekitError

PACKAGES = ("torch", "transformers", "transformer-lens")


@cache
def check_seam() -> None:
    """Do nothing if edits at scores and pattern reach the output, and padding is masked.

    Raises:
        ProbekitError: with what is wrong, what is installed, and what is tested.
    """
    cause = None
    try:
        with (
            torch.random.fork_rng(devices=[]),
            torch.device("cpu"),
            torch.no_grad(),
            warnings.catch_warnings(action="ignore"),  # what is wrong is said below
        ):
            torch.manual_seed(0)
            wrong = _what_is_wrong()
    except Exception as error:  # whatever another version may do
        cause, wrong = error, f"{type(error).__name__}: {error}"
    if wrong:
        raise ProbekitError(
            f"attention patterns cannot be edited with {', '.join(_installed())}: {wrong}. "
            f"{_tested()}"
        ) from cause


def tensors_hold_numbers() -> bool:
    """False where models are built without weights: ``init_empty_weights``, ``FakeTensorMode``."""
    with torch.device("cpu"):
        weight = nn.LayerNorm(1).weight
    return not weight.is_meta and type(weight.data) is Tensor


def _what_is_wrong() -> str:
    sizes: dict[str, Any] = {"hidden_size": 4, "intermediate_size": 4, "vocab_size": 4}
    config = BertConfig(num_hidden_layers=1, num_attention_heads=1, initializer_range=1.0, **sizes)
    model = BertForMaskedLM(config).eval()
    for parameter in model.parameters():  # which transformers may have been told not to fill
        parameter.normal_()
    bridge = build_bridge_from_module(model, "BertForMaskedLM", hf_config=model.config)
    attention: Any = next(filter(seam.delegating, bridge.modules()), None)
    if attention is None:
        return "TransformerLens no longer hands BERT's attention to Hugging Face's module"
    if attention.hook_pattern.add_hook(lambda pattern, hook: None) is None:  # as before 4.3
        return "TransformerLens's add_hook returns no handle by which to remove the hook"
    seam.tap(bridge)
    for _, own in seam.configs(bridge):
        own._attn_implementation = seam.NAME
    ids = torch.arange(3)[None]
    for name in ("hook_attn_scores", "hook_pattern"):
        point = getattr(attention, name)
        same, edited = (_edited(bridge, point, ids, factor) for factor in (0, 1))
        if same is None:
            return f"TransformerLens's {name} does not fire"
        if edited is None or torch.equal(same, edited):
            return f"an edit at TransformerLens's {name} does not reach the output"
    mask = torch.tensor([[1, 1, 0]])
    padded = [bridge(i, attention_mask=mask)[:, :2] for i in (ids, torch.tensor([[0, 1, 3]]))]
    if not torch.allclose(*padded):
        return "transformers does not mask padding for an attention function of others"
    return ""


def _edited(bridge: Any, point: Any, ids: Tensor, factor: int) -> Tensor | None:
    """The logits, the tensor at ``point`` plus a ramp along keys; None if nothing fired there."""
    fired: list[bool] = []

    def edit(tensor: Tensor, hook: Any) -> Tensor:
        fired.append(True)
        return tensor + factor * torch.arange(tensor.shape[-1])

    point.add_hook(edit)
    try:
        logits = bridge(ids)
    finally:
        point.remove_hooks()
    return logits if fired else None


def _installed() -> list[str]:
    return [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]


def _tested() -> str:
    """The lowest and the newest tested versions, from probekit's own metadata."""
    try:
        declared = importlib.metadata.requires("probekit") or []
    except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
        return "Install probekit with pip, which gets versions that work"
    found = {}
    for line in declared:
        match = re.match(r"([\w-]+)(>=|==)([\w.]+)", line)
        if match and match[1] in PACKAGES:
            found.setdefault(match[1], {})[match[2]] = match[3]
    ranges = []
    for name, own in found.items():
        ends = (own[sign].removesuffix(".0") for sign in (">=", "==") if sign in own)
        ranges.append(f"{name} {' to '.join(dict.fromkeys(ends))}")
    fix = "`pip install -e '.[tested]'` in a checkout gets the newest of these"
    return f"Tested: {', '.join(ranges)}; {fix}"
