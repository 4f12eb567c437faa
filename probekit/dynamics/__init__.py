"""Relaxed models: fixed points, spectra, cycles, a diagnosis, and gradient estimators.

Everything takes a :class:`Force`, which :func:`force_of` makes of an equilibrium model and its
inputs::

    force = pk.dynamics.force_of(model, tokens)
    z = pk.dynamics.find_fixed_point(force).require()
    pk.dynamics.spectrum(force, z)                  # [batch, pos, d_model], complex
    pk.dynamics.classify(force, z)                  # a Diagnosis a sequence
"""

from .adjoint import Adjoint as Adjoint
from .adjoint import alignment as alignment
from .adjoint import block_gradients as block_gradients
from .adjoint import bptt_gradients as bptt_gradients
from .adjoint import exact_adjoint as exact_adjoint
from .adjoint import parameter_gradients as parameter_gradients
from .adjoint import surrogate as surrogate
from .adjoint import truncated_adjoint as truncated_adjoint
from .cycles import floquet as floquet
from .cycles import lyapunov as lyapunov
from .cycles import period as period
from .estimators import ESTIMATORS as ESTIMATORS
from .estimators import Estimate as Estimate
from .estimators import Phases as Phases
from .estimators import estimate as estimate
from .fixed_point import FixedPoint as FixedPoint
from .fixed_point import find_fixed_point as find_fixed_point
from .force import Force as Force
from .force import force_of as force_of
from .margins import cycle_frequency as cycle_frequency
from .margins import euler_margin as euler_margin
from .margins import least_stable as least_stable
from .margins import multiplier as multiplier
from .margins import rightmost as rightmost
from .margins import spectral_regime as spectral_regime
from .normality import UNSTRUCTURED_RHO as UNSTRUCTURED_RHO
from .normality import asymmetry as asymmetry
from .normality import gain as gain
from .normality import graded_weights as graded_weights
from .normality import log_norm as log_norm
from .normality import nonnormality as nonnormality
from .normality import numerical_abscissa as numerical_abscissa
from .normality import probe_products as probe_products
from .normality import split as split
from .nudge import NudgedPhase as NudgedPhase
from .nudge import holomorphic as holomorphic
from .nudge import nudged_states as nudged_states
from .nudge import one_sided as one_sided
from .nudge import symmetric as symmetric
from .objective import Objective as Objective
from .objective import objective_of as objective_of
from .relaxation import Relaxation as Relaxation
from .relaxation import relax as relax
from .residuals import Residuals as Residuals
from .residuals import Tail as Tail
from .residuals import residuals as residuals
from .residuals import tail as tail
from .rotor import Rotor as Rotor
from .rotor import planted_rotor as planted_rotor
from .rotor import random_rotors as random_rotors
from .spectrum import arnoldi as arnoldi
from .spectrum import dense_jacobian as dense_jacobian
from .spectrum import diagonal_blocks as diagonal_blocks
from .spectrum import spectrum as spectrum
from .stabilisers import AsymmetryProjection as AsymmetryProjection
from .stabilisers import GainCap as GainCap
from .stabilisers import JacobianPenalty as JacobianPenalty
from .stabilisers import Reached as Reached
from .stabilisers import ResidualPenalty as ResidualPenalty
from .stabilisers import SpectralPenalty as SpectralPenalty
from .stabilisers import with_asymmetry as with_asymmetry
from .sweep import REGIMES as REGIMES
from .sweep import Diagnosis as Diagnosis
from .sweep import StepSweep as StepSweep
from .sweep import classify as classify
from .sweep import observed_regime as observed_regime
from .sweep import sweep_steps as sweep_steps
from .training import EquilibriumTraining as EquilibriumTraining
from .training import fit_equilibrium as fit_equilibrium
