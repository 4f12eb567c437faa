"""Observers: what can be read. Each is a frozen dataclass in a file of its own."""

from .attention_entropy import AttentionEntropy as AttentionEntropy
from .record import Record as Record
from .vdi import VDI as VDI
