"""probekit: probes and interventions on hooked transformers, every number beside its null.

Start with ``pk.list_models()``, ``pk.load(name)`` and ``pk.attach(model, *items)``.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING
from typing import Any as _Any

if TYPE_CHECKING:
    from . import entropy as entropy
    from . import training as training
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

# Names are imported when first used: `probekit ls` must not wait seconds for torch.
_NAMESPACES = ("entropy", "training")
_HOME = {
    "Attachment": "attachment",
    "attach": "attachment",
    "CardError": "errors",
    "DecorativeHookError": "errors",
    "HookNeverFiredError": "errors",
    "ProbekitError": "errors",
    "RunError": "errors",
    "SiteError": "errors",
    "HookedTransformerConfig": "hooked.cards",
    "list_models": "hooked.cards",
    "load": "hooked.load",
    "random_twin": "hooked.load",
    "wrap": "hooked.load",
    "AttentionScale": "interventions",
    "Edit": "interventions",
    "HeadScale": "interventions",
    "SetPattern": "interventions",
    "Firing": "items",
    "Intervention": "items",
    "Observer": "items",
    "Measurement": "measurement",
    "VDI": "probes",
    "AttentionEntropy": "probes",
    "Record": "probes",
    "Receipt": "receipt",
    "from_dict": "registry",
    "list_interventions": "registry",
    "list_probes": "registry",
    "to_dict": "registry",
    "Site": "site",
    "list_sites": "sitemap",
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
    return sorted([*_HOME, *_NAMESPACES])
