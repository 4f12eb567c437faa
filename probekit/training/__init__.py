"""Training-time science: tasks, developmental monitors and detectors, as plain functions."""

from .kill_test import OMEGAS as OMEGAS
from .kill_test import compensating_heads as compensating_heads
from .kill_test import compensation_score as compensation_score
from .kill_test import kill_test as kill_test
from .loop import train as train
from .modular import modular_split as modular_split
from .modular import modular_tokens as modular_tokens
from .monitor import Snap as Snap
from .monitor import acceleration as acceleration
from .monitor import detect_snap as detect_snap
from .monitor import gaussian_entropy as gaussian_entropy
from .monitor import largest_acceleration as largest_acceleration
from .monitor import saturation_ratio as saturation_ratio
from .monitor import velocity as velocity
from .readout import readout_logits as readout_logits
from .trajectory import developmental_trajectory as developmental_trajectory
from .trajectory import kill_scores as kill_scores
from .window import Window as Window
from .window import chance_crossing_rate as chance_crossing_rate
from .window import detect_window as detect_window
from .window import head_spread as head_spread
