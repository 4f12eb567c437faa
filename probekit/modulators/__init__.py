"""Modulators: small trainable modules that change a residual stream. They know no hook, no model.

Each has ``config``, the arguments that rebuild it, and ``health()``; save and load with
:func:`save_modulator` and :func:`load_modulator`.
"""

from .field import SimplexField as SimplexField
from .lerp import LerpModulator as LerpModulator
from .lerp import from_relations as from_relations
from .lerp import pool_simplices as pool_simplices
from .reach import Reach as Reach
from .reach import alpha_reach as alpha_reach
from .reach import cosine_rates as cosine_rates
from .storage import load_modulator as load_modulator
from .storage import save_modulator as save_modulator
