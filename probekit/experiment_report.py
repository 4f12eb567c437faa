"""What every homeostatic-training recipe prints and shows, whatever it sweeps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from .claims import Claim, decide
from .console import print_rows
from .report import Report
from .training.experiment import ARMS, Experiment, Results, gradient_rows
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
    """Print the gradient check and the recipe's own tables, write figures and ``report.html``.

    Args:
        tables: rows by title, printed and shown.
        figures: by file name, with captions; the trajectories of both arms and the gradient norms
            come after them.
    """
    shown = {
        **tables,
        "gradient check: the largest norm of each loss term's gradient": gradient_rows(results),
    }
    report = Report(title).text(text).table([decide(claim, results) for claim in claims])
    for heading, rows in shown.items():
        print_rows(heading, rows)
        report.text(f"### {heading}").table(rows)
    trajectories = {
        arm: (
            trajectory_figure({name: results[name] for name in experiment.names(arm)}, key),
            f"The {arm} arm: VDI per head over training, seeds by colour, with its nulls.",
        )
        for arm, key in ARMS.items()
    }
    gradients = (
        gradient_figure(results),
        "Largest gradient norm of each loss term: 0 where the patterns were detached.",
    )
    report.figures({**figures, **trajectories, "gradients": gradients}, run_dir)
    report.save(run_dir / "report.html")
