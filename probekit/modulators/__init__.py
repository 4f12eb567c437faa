"""Modulators: small trainable modules that change a residual stream. They know no hook, no model.

Each has ``config``, the arguments that rebuild it, and ``health()``; save and load with
:func:`save_modulator` and :func:`load_modulator`.
"""

from .alignment import RowAlignment as RowAlignment
from .alignment import align_rows as align_rows
from .controls import permuted_rows as permuted_rows
from .controls import random_rows as random_rows
from .controls import zero_rows as zero_rows
from .cv_check import CvCheck as CvCheck
from .cv_check import cv_check as cv_check
from .field import SimplexField as SimplexField
from .lerp import LerpModulator as LerpModulator
from .reach import Reach as Reach
from .reach import alpha_reach as alpha_reach
from .reach import cosine_rates as cosine_rates
from .sources import from_relations as from_relations
from .sources import neighbour_rows as neighbour_rows
from .sources import pool_simplices as pool_simplices
from .sources import reconstruction as reconstruction
from .sources import reconstruction_null as reconstruction_null
from .storage import load_modulator as load_modulator
from .storage import save_modulator as save_modulator
