"""The check at load time: silent where all is well, telling where something was taken away."""

import importlib.metadata
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import families
import pytest
import torch
from accelerate import init_empty_weights
from torch._subclasses import FakeTensorMode
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge.generalized_components.attention import AttentionBridge
from transformers import AttentionInterface, BertForMaskedLM
from transformers.initialization import no_init_weights
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.bert import modeling_bert

import probekit as pk
from probekit import seam, seam_check

ROOT = Path(__file__).parents[2]
DECLARED = ["torch>=2.1", "tqdm>=4", "transformers>=5.2", "transformer-lens>=4.1"]
DECLARED += ["torch==2.1.0; extra == 'tested'", "transformers==5.4; extra == 'tested'"]
DECLARED += ["transformer-lens==4.5.0; extra == 'tested'"]
TESTED = (
    "Tested: torch 2.1, transformers 5.2 to 5.4, transformer-lens 4.1 to 4.5; "
    "`pip install -e '.[tested]'` in a checkout gets the newest of these"
)


@pytest.fixture
def fresh() -> Iterator[None]:
    """As in a process that has loaded nothing yet."""
    seam_check.check_seam.cache_clear()
    yield
    seam_check.check_seam.cache_clear()
    seam.register()


def without_pattern_hook(init: Any) -> Any:
    def shortened(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        del self.hook_pattern

    return shortened


Patch = Callable[[pytest.MonkeyPatch], None]
LACKS: dict[str, tuple[Patch, str]] = {
    "another bridge": (
        lambda patch: patch.setattr(
            modeling_bert.BertAttention, "accepts_pattern_fn", True, raising=False
        ),
        "TransformerLens no longer hands BERT's attention to Hugging Face's module",
    ),
    "no hook point": (
        lambda patch: patch.setattr(
            AttentionBridge, "__init__", without_pattern_hook(AttentionBridge.__init__)
        ),
        "AttributeError: 'AttentionBridge' object has no attribute 'hook_pattern'",
    ),
    "no handles": (
        lambda patch: patch.setattr(HookPoint, "add_hook", lambda *args, **kwargs: None),
        "TransformerLens's add_hook returns no handle by which to remove the hook",
    ),
    "function not called": (
        lambda patch: patch.setattr(
            AttentionInterface, "get_interface", lambda *_: sdpa_attention_forward
        ),
        "TransformerLens's hook_attn_scores does not fire",
    ),
    "hooks after the value product": (
        lambda patch: patch.setattr(
            AttentionInterface, "get_interface", lambda self, name, eager: eager
        ),
        "an edit at TransformerLens's hook_attn_scores does not reach the output",
    ),
    "padding dropped": (
        lambda patch: patch.setattr(seam, "sdpa_mask", lambda *args, **kwargs: None),
        "transformers does not mask padding for an attention function of others",
    ),
    "anything else": (
        lambda patch: patch.delattr(modeling_bert, "BertSelfAttention"),
        "NameError: name 'BertSelfAttention' is not defined",
    ),
}


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("lack", LACKS)
def test_what_is_lacking_is_said_with_the_versions(lack: str) -> None:
    take_away, why = LACKS[lack]
    versions = {name: importlib.metadata.version(name) for name in seam_check.PACKAGES}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.metadata, "requires", lambda name: DECLARED)
        take_away(patch)
        with pytest.raises(pk.ProbekitError) as error:
            pk.load("grokking", seed=0)
    installed = ", ".join(f"{name} {version}" for name, version in versions.items())
    assert str(error.value) == (
        f"attention patterns cannot be edited with {installed}: {why}. {TESTED}"
    )


@pytest.mark.usefixtures("fresh")
def test_without_metadata_the_fix_is_to_install(monkeypatch) -> None:
    def unknown(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", unknown)
    monkeypatch.setattr(seam_check, "_what_is_wrong", lambda: "it is broken")
    with pytest.raises(pk.ProbekitError, match=r": it is broken\. Install probekit with"):
        pk.load("grokking", seed=0)


@pytest.mark.usefixtures("fresh")
def test_it_is_looked_at_once_and_leaves_no_trace(monkeypatch) -> None:
    calls: list[str] = []
    look = seam_check._what_is_wrong
    monkeypatch.setattr(seam_check, "_what_is_wrong", lambda: calls.append("look") or look())
    state = torch.random.get_rng_state()
    with torch.device("meta"):  # as where a large model is being built
        seam.register()
    assert torch.equal(torch.random.get_rng_state(), state)
    pk.wrap(BertForMaskedLM(families.tiny_bert()))
    assert calls == ["look"]


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("without_weights", [init_empty_weights, FakeTensorMode])
def test_where_tensors_hold_no_numbers_it_is_looked_at_later(without_weights) -> None:
    with without_weights():
        seam.register()
    assert seam_check.check_seam.cache_info().currsize == 0
    seam.register()
    assert seam_check.check_seam.cache_info().currsize == 1


@pytest.mark.usefixtures("fresh")
def test_weights_that_transformers_leaves_as_they_are_do_not_matter() -> None:
    with no_init_weights():
        seam.register()
    assert seam_check.check_seam.cache_info().currsize == 1


def test_what_is_declared_is_what_is_tested() -> None:
    """The lower bounds are those of `make test-lowest`, the extra's those of `make test`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["tested"]]
    for sign, file in ((">=", "constraints-lowest.txt"), ("==", "constraints.txt")):
        pinned = dict(re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / file).read_text(), re.MULTILINE))
        for name in seam_check.PACKAGES:
            version = pinned[name].removesuffix(".0") if sign == ">=" else pinned[name]
            assert f"{name}{sign}{version}" in declared
