"""How far apart two samples are, in units of their own spread."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from ..errors import ProbekitError


def cohens_d(
    first: Sequence[float] | Float[Tensor, " item"],
    second: Sequence[float] | Float[Tensor, " item"],
) -> float:
    """``(mean_2 - mean_1) / s``, s^2 the pooled sample variance: Cohen's d, without units.

    Spread over examples of one network, it says how visible a change is and nothing of its size:
    examples that are alike make a small change large. NaN where both samples are constant.

    Raises:
        ProbekitError: fewer than two values in a sample.

    Example:
        >>> cohens_d([0.0, 2.0], [3.0, 5.0]) * 2**0.5
        3.0

    Source: Cohen 1988, "Statistical Power Analysis for the Behavioral Sciences", 2.2.
    """
    x, y = (np.asarray(each, dtype=float) for each in (first, second))
    if min(len(x), len(y)) < 2:
        raise ProbekitError(
            f"cohens_d needs two values a sample at least, not {len(x)} and {len(y)}"
        )
    freedom = len(x) - 1, len(y) - 1
    pooled = np.average([x.var(ddof=1), y.var(ddof=1)], weights=freedom)
    return float((y.mean() - x.mean()) / np.sqrt(pooled)) if pooled else float("nan")
