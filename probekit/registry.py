"""The registry: which probes and interventions there are.

Third parties add theirs through the entry-point groups ``probekit.probes`` and
``probekit.interventions``; the entry's value is the class.
"""

import inspect
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pandas as pd

from .errors import ProbekitError
from .interventions import (
    AttentionScale,
    Clamp,
    Edit,
    FieldModulator,
    FreezeWeights,
    HeadScale,
    Lerp,
    Noise,
    SetPattern,
    SwapPackedRows,
    SwapWeights,
)
from .items import Intervention, Observer, WeightIntervention
from .probes import (
    VDI,
    Accuracy,
    AttentionEntropy,
    DeadNeurons,
    GaussianEntropy,
    LogitMargin,
    Record,
    ResidualStats,
)

GROUPS: dict[str, tuple[type, ...]] = {
    "probekit.probes": (
        VDI,
        AttentionEntropy,
        Record,
        ResidualStats,
        LogitMargin,
        Accuracy,
        GaussianEntropy,
        DeadNeurons,
    ),
    "probekit.interventions": (
        HeadScale,
        AttentionScale,
        Clamp,
        Noise,
        SetPattern,
        Edit,
        SwapWeights,
        SwapPackedRows,
        FreezeWeights,
        Lerp,
        FieldModulator,
    ),
}


def items(group: str) -> dict[str, type]:
    """Every class of a group by name, ours and installed ones.

    Raises:
        ProbekitError: two owners of one name (both are named), or an entry that is no item.
    """
    observers = group == "probekit.probes"
    bases = (Observer,) if observers else (Intervention, WeightIntervention)
    owners = {cls.__name__: cls.__module__ for cls in GROUPS[group]}
    found: dict[str, type] = {cls.__name__: cls for cls in GROUPS[group]}
    for entry in entry_points(group=group):
        cls = _loaded(entry, bases)
        if cls.__name__ in found and found[cls.__name__] is not cls:
            raise ProbekitError(
                f"two {group} are named {cls.__name__!r}: {owners[cls.__name__]} and "
                f"{entry.value}; "
                "uninstall or rename one of them"
            )
        found[cls.__name__], owners[cls.__name__] = cls, entry.value
    return found


def every_item() -> dict[str, type]:
    """Every class of both groups by name.

    Raises:
        ProbekitError: as :func:`items`, or a name in both groups.
    """
    probes, interventions = (items(group) for group in GROUPS)
    for name in probes.keys() & interventions.keys():
        raise ProbekitError(
            f"a probe and an intervention are named {name!r}: {probes[name].__module__} and "
            f"{interventions[name].__module__}; uninstall or rename one of them"
        )
    return {**probes, **interventions}


def list_probes() -> pd.DataFrame:
    """The observers: name, what each reads, its null, and its source."""
    return pd.DataFrame(
        [
            {
                "name": name,
                "reads": _summary(cls),
                "null": cls.null_name,
                "source": cls.source,
            }
            for name, cls in items("probekit.probes").items()
        ]
    )


def list_interventions() -> pd.DataFrame:
    """The interventions: name, what each edits, and its source."""
    return pd.DataFrame(
        [
            {"name": name, "edits": _summary(cls), "source": cls.source}
            for name, cls in items("probekit.interventions").items()
        ]
    )


def _loaded(entry: EntryPoint, bases: tuple[type, ...]) -> Any:
    cls = entry.load()
    if not (inspect.isclass(cls) and issubclass(cls, bases)):
        names = " or ".join(base.__name__ for base in bases)
        raise ProbekitError(f"entry point {entry.value} is not a subclass of {names}")
    return cls


def _summary(cls: type) -> str:
    return (inspect.getdoc(cls) or "").split("\n")[0]
