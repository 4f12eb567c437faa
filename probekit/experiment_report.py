"""What every homeostatic-training recipe prints and shows, whatever it sweeps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from .claims import Claim
from .recipe_report import present_results
from .training.experiment import (
    ARMS,
    Experiment,
    Results,
    apart_rows,
    condition_rows,
    gradient_rows,
)
from .training.pictures import gradient_figure, trajectory_figure


def present_experiment(
    title: str,
    text: str,
    claims: Sequence[Claim],
    experiment: Experiment,
    results: Results,
    run_dir: Path,
    *,
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
    figures: Mapping[str, tuple[Figure, str]],
) -> None:
    """As :func:`~probekit.recipe_report.present_results`, with what all these recipes show.

    Args:
        tables: rows by heading; after them come the conditions, the gradient check, and whether
            conditions without gradients are one algorithm.
        figures: with captions, by file name; the trajectories of both arms and the gradient norms
            come after them.
    """
    shared = {
        **{f"{arm} conditions": condition_rows(results, experiment.names(arm)) for arm in ARMS},
        "gradient check: the largest norm of each loss term's gradient": gradient_rows(results),
        "are they different algorithms?": apart_rows(results),
    }
    trajectories = {
        arm: (
            trajectory_figure({name: results[name] for name in experiment.names(arm)}, key),
            f"The {arm} arm: VDI per head over training, seeds by colour, with its nulls.",
        )
        for arm, key in ARMS.items()
    }
    norms = (
        gradient_figure(results),
        "Largest gradient norm of each loss term: 0 where the patterns were detached.",
    )
    present_results(
        title,
        text,
        claims,
        results,
        run_dir,
        tables={**tables, **shared},
        figures={**figures, **trajectories, "gradients": norms},
    )
