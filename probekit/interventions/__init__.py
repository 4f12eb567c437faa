"""Interventions: what can be edited. Each is a frozen dataclass."""

from .attention_scale import AttentionScale as AttentionScale
from .edit import Edit as Edit
from .edit import SetPattern as SetPattern
from .head_scale import HeadScale as HeadScale
