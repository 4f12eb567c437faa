"""Is robustness a part that can be moved? Hybrids of a network and a hardened one, under noise."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Int
from torch import Tensor

from ...hooked.model import HookedModel
from ...interventions.swap_weights import Donor
from ..leak import find_leak
from ..tasks import Task
from .bases import permuted_twin
from .hardened import NETWORKS, noise_accuracies
from .hybrids import weight_swaps

#: Hosts and donors by name: a host, and what is put into it.
Grafts = Mapping[str, tuple[HookedModel, Donor]]
#: Of :func:`transfer_grafts`, the hosts that are not the baseline.
HOSTS = {"hardened, same start": "another baseline"}


def transfer_grafts(networks: Mapping[str, HookedModel], seed: int) -> Grafts:
    """A hardened network as a donor, and donors that know nothing of noise or nothing at all.

    Args:
        networks: of :func:`train_hardened`.
        seed: of the permutation of the baseline's features.
    """
    baseline, hardened, other = (networks[name] for name in NETWORKS)
    return {
        "hardened": (baseline, hardened),
        "hardened, same start": (other, hardened),
        "another baseline": (baseline, other),
        "permuted": (baseline, permuted_twin(baseline, seed)),
        "random": (baseline, "random"),
        "zero": (baseline, "zero"),
    }


def transfer_accuracies(
    grafts: Grafts,
    parts: Sequence[str],
    tokens: Int[Tensor, "batch pos"],
    labels: Int[Tensor, "batch read"],
    sites: Sequence[str],
    sigmas: Sequence[float],
    draws: int,
    seed: int,
) -> dict[str, dict[str, dict[str, float]]]:
    """Accuracy by sigma, part and graft, the same draws of the noise for all.

    Args:
        parts: names of :func:`weight_swaps`.
        sites: where noise is added.
        seed: of ``"random"`` as a donor.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for part in parts:
        for name, (host, donor) in grafts.items():
            swap = weight_swaps(host, seed)[part](donor)
            scores = noise_accuracies(host, tokens, labels, sites, sigmas, draws, swap)
            for sigma, score in scores.items():
                found.setdefault(sigma, {}).setdefault(part, {})[name] = score
    return found


def robustness(
    networks: Mapping[str, HookedModel],
    task: Task,
    parts: Sequence[str],
    sites: Sequence[str],
    sigmas: Sequence[float],
    draws: int,
    seed: int,
) -> dict[str, Any]:
    """What networks and hybrids keep under noise, in JSON's types.

    ``alone`` is each network's accuracy by sigma, ``swaps`` :func:`transfer_accuracies` of
    :func:`transfer_grafts`, ``chance`` that of a guess, ``leak`` what :func:`find_leak` says.

    Args:
        networks: of :func:`train_hardened`, with labels at the last position.
        seed: of the random donor and of the permutation.
    """
    examples, how = task.validation(), (sites, sigmas, draws)
    baseline = networks["baseline"]
    leak = find_leak(lambda ids: baseline(ids)[:, -1:], *examples, ceiling=task.ceiling)
    grafts = transfer_grafts(networks, seed)
    return {
        "alone": {n: noise_accuracies(m, *examples, *how) for n, m in networks.items()},
        "swaps": transfer_accuracies(grafts, parts, *examples, *how, seed),
        "chance": 1 / task.config["d_vocab"],
        "leak": str(leak),
    }


def recovery_ratio(hybrid: float, base: float, hardened: float) -> float:
    """``(hybrid - base) / (hardened - base)``: the share of the donor's advantage that came along.

    0 for a part that carries nothing, below 0 for one that does harm. NaN where the donor has no
    advantage. A hybrid at chance reads 0 too, where the base is at chance under noise: a swap that
    breaks the network is not one that leaves robustness behind; read its clean accuracy beside it.

    Example:
        >>> recovery_ratio(0.5, 0.25, 0.75)
        0.5
    """
    return (hybrid - base) / (hardened - base) if hardened != base else float("nan")


def recoveries(found: Mapping[str, Any], part: str, donor: str, sigma: str) -> list[float]:
    """:func:`recovery_ratio` of a hybrid of :func:`transfer_grafts`, a number a seed.

    Args:
        found: gathered over seeds: ``swaps`` as :func:`transfer_accuracies`, and ``alone``, the
            networks' own accuracies by name and sigma.
    """
    alone = found["alone"]
    host = HOSTS.get(donor, "baseline")
    columns = found["swaps"][sigma][part][donor], alone[host][sigma], alone["hardened"][sigma]
    return [recovery_ratio(*values) for values in zip(*columns, strict=True)]
