"""What recipe slack's claims read: is there a solution apart, and has a row of the table learned?

All take what :mod:`slack_arms` returns, gathered over seeds, and give a number a seed.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

#: what one function of slack_arms returned, every number a list over seeds
Found = Mapping[str, Any]
_LOGS = 5


def solves_apart(
    found: Found, network: str, what: str = "cosine", *, good: float = 0.95, apart: float = 0.5
) -> list[float]:
    """1 where anchor and network are both right and alike in amount less than ``apart``, else 0.

    The write-up's test of an "orthogonal solution" where ``what`` is the cosine.

    Args:
        good: accuracy above which a network is right (fraction).
    """
    own = found["alike"]
    right = np.minimum(own["anchor"]["accuracy"], own[network]["accuracy"]) > good
    return (right & (np.abs(own[network][what]) < apart)).astype(float).tolist()


def learned(row: Found) -> list[float]:
    """The lesser accuracy of anchor and probe, each the median of the probe's last five logs.

    Under AdamW with much decay and no clipping single logs dip.
    """
    last = sorted(row["curves"]["probe"], key=int)[-_LOGS:]
    medians = [
        np.median([row["curves"][name][step] for step in last], axis=0)
        for name in ("anchor", "probe")
    ]
    return np.minimum(*medians).tolist()


def rows_of(deep: Found) -> dict[str, Any]:
    """The rows of the table alone, in its order."""
    return {name: row for name, row in deep.items() if name != "untrained"}


def largest_cosine(deep: Found) -> list[float]:
    """Of anchor and probe, in amount, over the rows of the table."""
    cosines = [row["alike"]["probe"]["cosine"] for row in rows_of(deep).values()]
    return np.abs(cosines).max(0).tolist()
