"""T5 with embedding hooks that fire.

TransformerLens wraps ``shared`` as ``embed``, but T5's forward calls ``encoder.embed_tokens`` and
``decoder.embed_tokens``: two modules that share its weight and not its hooks, so ``hook_embed``
never fires. Here both are components, ``encoder_embed`` and ``decoder_embed``. ``embed`` remains
for its weight (``embed.W_E``) and has no hook points, so a hook there is an error, not a silence.
The three weights stay one tensor: an edit of one is an edit of all.

T5, https://arxiv.org/abs/1910.10683
"""

from typing import Any

import torch
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge.generalized_components import EmbeddingBridge
from transformer_lens.model_bridge.supported_architectures.t5 import T5ArchitectureAdapter


class WeightOnlyEmbeddingBridge(EmbeddingBridge):
    """An embedding that the wrapped forward never calls: its weight without hook points."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        del self.hook_in, self.hook_out
        self._hook_registry.clear()

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        assert self.original_component is not None
        return self.original_component(*args, **kwargs)


class HookedT5ArchitectureAdapter(T5ArchitectureAdapter):
    """TransformerLens's T5 mapping; only the embeddings differ."""

    def __init__(self, cfg: TransformerBridgeConfig) -> None:
        super().__init__(cfg)
        self.components["embed"] = WeightOnlyEmbeddingBridge(name="shared")
        self.components["encoder_embed"] = EmbeddingBridge(name="encoder.embed_tokens")
        self.components["decoder_embed"] = EmbeddingBridge(name="decoder.embed_tokens")
