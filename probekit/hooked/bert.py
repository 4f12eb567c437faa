"""Hooks for the bare ``BertModel``: an encoder without a language-modelling head.

Sentence encoders such as all-MiniLM-L6-v2 are published in this form. TransformerLens maps
``BertForMaskedLM``; this adapter is that mapping without the ``bert.`` prefix and without the head.
A forward returns ``last_hidden_state``. As in every post-LayerNorm BERT, ``hook_attn_out`` is the
residual after LayerNorm and not a contribution: the contribution is ``attn.o.hook_out``.

BERT, https://arxiv.org/abs/1810.04805
"""

from typing import Any

from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge.generalized_components import BertPoolerBridge, LinearBridge
from transformer_lens.model_bridge.supported_architectures.bert import BertArchitectureAdapter

HEAD = ("mlm_head", "unembed", "ln_final")


class BertModelArchitectureAdapter(BertArchitectureAdapter):
    """TransformerLens's BERT mapping at the root of the model, with the pooler if there is one."""

    supports_causal_loss = False

    def __init__(self, cfg: TransformerBridgeConfig) -> None:
        super().__init__(cfg)
        self._reprefix_components("bert.", "")
        for name in HEAD:
            del self.components[name]

    def prepare_model(self, hf_model: Any) -> None:
        """Add the pooler, which ``add_pooling_layer=False`` leaves out."""
        if hf_model.pooler is not None:
            self.components["pooler"] = BertPoolerBridge(
                name="pooler", submodules={"dense": LinearBridge(name="dense")}
            )
