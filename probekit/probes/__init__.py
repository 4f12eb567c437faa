"""Observers: what can be read. Each is a frozen dataclass in a file of its own."""

from .accuracy import Accuracy as Accuracy
from .attention_entropy import AttentionEntropy as AttentionEntropy
from .dead_neurons import DeadNeurons as DeadNeurons
from .gaussian_entropy import GaussianEntropy as GaussianEntropy
from .logit_margin import LogitMargin as LogitMargin
from .record import Record as Record
from .residual_stats import ResidualStats as ResidualStats
from .vdi import VDI as VDI
