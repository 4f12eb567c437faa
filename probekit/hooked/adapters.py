"""Which adapter serves which Hugging Face class, and how TransformerLens learns of them."""

from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
from transformer_lens.model_bridge.architecture_adapter import ArchitectureAdapter

from probekit.hooked.bert import BertModelArchitectureAdapter
from probekit.hooked.clip import ClipArchitectureAdapter
from probekit.hooked.dinov2 import Dinov2ArchitectureAdapter
from probekit.hooked.t5 import HookedT5ArchitectureAdapter

ADAPTERS: dict[str, type[ArchitectureAdapter]] = {
    "BertModel": BertModelArchitectureAdapter,
    "CLIPModel": ClipArchitectureAdapter,
    "Dinov2ForImageClassification": Dinov2ArchitectureAdapter,
    "Dinov2Model": Dinov2ArchitectureAdapter,
    # Replaces TransformerLens's own adapter for the whole process. That is safe: ours adds two
    # embedding components and removes the hook points of `embed`, which never fired.
    "T5ForConditionalGeneration": HookedT5ArchitectureAdapter,
}


def register_adapters() -> None:
    """Tell TransformerLens about our adapters. Doing it twice changes nothing."""
    for architecture, adapter in ADAPTERS.items():
        ArchitectureAdapterFactory.register_adapter(architecture, adapter)
