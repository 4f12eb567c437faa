"""Interventions: what can be edited. Each is a frozen dataclass."""

from .attention_scale import AttentionScale as AttentionScale
from .clamp import Clamp as Clamp
from .edit import Edit as Edit
from .edit import SetPattern as SetPattern
from .freeze_weights import FreezeWeights as FreezeWeights
from .head_scale import HeadScale as HeadScale
from .modulators import FieldModulator as FieldModulator
from .modulators import Lerp as Lerp
from .noise import Noise as Noise
from .swap_weights import SwapPackedRows as SwapPackedRows
from .swap_weights import SwapQK as SwapQK
from .swap_weights import SwapWeights as SwapWeights
