"""probekit: probes and interventions on hooked transformers, every number beside its null.

Start with ``pk.list_models()``, ``pk.load(name)`` and ``pk.attach(model, *items)``.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING
from typing import Any as _Any

if TYPE_CHECKING:
    from . import dynamics as dynamics
    from . import entropy as entropy
    from . import geometry as geometry
    from . import lexicon as lexicon
    from . import modulators as modulators
    from . import training as training
    from . import weights as weights
    from .attachment import Attachment as Attachment
    from .attachment import attach as attach
    from .branches import Branch as Branch
    from .branches import sweep as sweep
    from .comparison import compare as compare
    from .errors import CardError as CardError
    from .errors import DecorativeHookError as DecorativeHookError
    from .errors import HookNeverFiredError as HookNeverFiredError
    from .errors import ProbekitError as ProbekitError
    from .errors import RunError as RunError
    from .errors import SiteError as SiteError
    from .generation import Talk as Talk
    from .generation import talk as talk
    from .hooked.cards import HookedTransformerConfig as HookedTransformerConfig
    from .hooked.cards import list_models as list_models
    from .hooked.equilibrium import equilibrium as equilibrium
    from .hooked.equilibrium_model import EquilibriumModel as EquilibriumModel
    from .hooked.load import load as load
    from .hooked.load import random_twin as random_twin
    from .hooked.load import wrap as wrap
    from .inspection import Inspection as Inspection
    from .inspection import inspect_model as inspect_model
    from .interventions import AttentionScale as AttentionScale
    from .interventions import Clamp as Clamp
    from .interventions import Edit as Edit
    from .interventions import FieldModulator as FieldModulator
    from .interventions import FreezeWeights as FreezeWeights
    from .interventions import HeadScale as HeadScale
    from .interventions import Lerp as Lerp
    from .interventions import Noise as Noise
    from .interventions import SetPattern as SetPattern
    from .interventions import SwapPackedRows as SwapPackedRows
    from .interventions import SwapQK as SwapQK
    from .interventions import SwapWeights as SwapWeights
    from .itemfolder import load_items as load_items
    from .itemfolder import save_items as save_items
    from .items import Firing as Firing
    from .items import Intervention as Intervention
    from .items import Observer as Observer
    from .items import WeightIntervention as WeightIntervention
    from .magic import load_ipython_extension as load_ipython_extension
    from .measurement import Measurement as Measurement
    from .probes import VDI as VDI
    from .probes import Accuracy as Accuracy
    from .probes import AttentionEntropy as AttentionEntropy
    from .probes import DeadNeurons as DeadNeurons
    from .probes import GaussianEntropy as GaussianEntropy
    from .probes import LogitMargin as LogitMargin
    from .probes import Record as Record
    from .probes import ResidualStats as ResidualStats
    from .receipt import Receipt as Receipt
    from .registry import list_interventions as list_interventions
    from .registry import list_probes as list_probes
    from .site import Site as Site
    from .sitemap import list_sites as list_sites
    from .storage import from_dict as from_dict
    from .storage import to_dict as to_dict
    from .verification import verify as verify

# Names are imported when first used: `probekit ls` must not wait seconds for torch.
_NAMESPACES = ("dynamics", "entropy", "geometry", "lexicon", "modulators", "training", "weights")
_HOME = {
    "attach": "attachment",
    "Attachment": "attachment",
    "Branch": "branches",
    "sweep": "branches",
    "compare": "comparison",
    "CardError": "errors",
    "DecorativeHookError": "errors",
    "HookNeverFiredError": "errors",
    "ProbekitError": "errors",
    "RunError": "errors",
    "SiteError": "errors",
    "Talk": "generation",
    "talk": "generation",
    "HookedTransformerConfig": "hooked.cards",
    "list_models": "hooked.cards",
    "EquilibriumModel": "hooked.equilibrium_model",
    "equilibrium": "hooked.equilibrium",
    "load": "hooked.load",
    "random_twin": "hooked.load",
    "wrap": "hooked.load",
    "Inspection": "inspection",
    "inspect_model": "inspection",
    "AttentionScale": "interventions",
    "Clamp": "interventions",
    "Edit": "interventions",
    "FieldModulator": "interventions",
    "FreezeWeights": "interventions",
    "HeadScale": "interventions",
    "Lerp": "interventions",
    "Noise": "interventions",
    "SetPattern": "interventions",
    "SwapPackedRows": "interventions",
    "SwapQK": "interventions",
    "SwapWeights": "interventions",
    "load_items": "itemfolder",
    "save_items": "itemfolder",
    "Firing": "items",
    "Intervention": "items",
    "Observer": "items",
    "WeightIntervention": "items",
    "load_ipython_extension": "magic",
    "Measurement": "measurement",
    "Accuracy": "probes",
    "AttentionEntropy": "probes",
    "DeadNeurons": "probes",
    "GaussianEntropy": "probes",
    "LogitMargin": "probes",
    "Record": "probes",
    "ResidualStats": "probes",
    "VDI": "probes",
    "Receipt": "receipt",
    "list_interventions": "registry",
    "list_probes": "registry",
    "Site": "site",
    "list_sites": "sitemap",
    "from_dict": "storage",
    "to_dict": "storage",
    "verify": "verification",
}


def __getattr__(name: str) -> _Any:
    if name in _NAMESPACES:
        return _import_module(f".{name}", __name__)
    if name == "__version__":
        from importlib.metadata import version

        return version("probekit")
    if name not in _HOME:
        raise AttributeError(f"module 'probekit' has no attribute {name!r}")
    value = getattr(_import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*_HOME, *_NAMESPACES} - {"load_ipython_extension"})  # IPython's, not the user's
