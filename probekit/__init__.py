"""probekit: probes and interventions on hooked transformers, every number beside its null.

Start with ``pk.list_models()``, ``pk.load(name)`` and ``pk.attach(model, *items)``.
"""

from importlib.metadata import PackageNotFoundError as _NotInstalled
from importlib.metadata import version as _version

from . import entropy as entropy
from .attachment import Attachment as Attachment
from .attachment import attach as attach
from .errors import CardError as CardError
from .errors import DecorativeHookError as DecorativeHookError
from .errors import HookNeverFiredError as HookNeverFiredError
from .errors import ProbekitError as ProbekitError
from .errors import RunError as RunError
from .errors import SiteError as SiteError
from .hooked.cards import HookedTransformerConfig as HookedTransformerConfig
from .hooked.cards import list_models as list_models
from .hooked.load import load as load
from .hooked.load import random_twin as random_twin
from .hooked.load import wrap as wrap
from .interventions import AttentionScale as AttentionScale
from .interventions import Edit as Edit
from .interventions import HeadScale as HeadScale
from .interventions import SetPattern as SetPattern
from .items import Firing as Firing
from .items import Intervention as Intervention
from .items import Observer as Observer
from .measurement import Measurement as Measurement
from .probes import VDI as VDI
from .probes import AttentionEntropy as AttentionEntropy
from .probes import Record as Record
from .receipt import Receipt as Receipt
from .registry import from_dict as from_dict
from .registry import list_interventions as list_interventions
from .registry import list_probes as list_probes
from .registry import to_dict as to_dict
from .site import Site as Site
from .sitemap import list_sites as list_sites
from .verification import verify as verify

try:
    __version__ = _version("probekit")
except _NotInstalled:
    __version__ = "0+unknown"
