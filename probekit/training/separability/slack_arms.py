"""The networks of recipe slack: anchor and probes of a young geometry, branches of a mature one.

Every function trains one seed's networks and returns what there is to say of them: ``alike``, by
network its accuracy and how alike it is to the anchor (:func:`compare_solutions`), and by network
and step ``curves`` of accuracy and ``cosines`` to the anchor.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...geometry import mean_example_cosine
from ...hooked.model import HookedModel
from ..branches import branch
from ..fit import Optimisation
from ..stack import Stack
from .bases import permuted_twin
from .branch_runs import BranchRuns, geometry
from .solutions import rotated

#: From a seed to a network with its initial weights.
Load = Callable[[int], HookedModel]
_OTHER, _UNTRAINED = 1_000, 2_000  # added to a seed
_ROTATIONS = 20
BRANCHES = ("no penalty", "no penalty, other batches", "cosine penalised", "CKA penalised")


def young_geometry(runs: BranchRuns, load: Load, warm_up: int, how: Optimisation) -> dict[str, Any]:
    """Anchor, then probes from the same state before generalisation, and what they compare with.

    ``no penalty`` trains as the anchor does on other batches, ``other seed`` is another network of
    the same course; the anchor ``rotated`` and ``permuted`` is the anchor in other bases. The mean
    cosine of more rotations is under ``rotations``.
    """
    seed, models = runs.seed, [load(runs.seed), load(_OTHER + runs.seed)]
    warm, warming = Stack(models), replace(how, steps=warm_up)
    runs.train("warm-up", warm, warming, (0, 1), at=warm_up)
    anchors = branch([(warm, 0), (warm, 0), (warm, 1)])
    frozen = geometry(warm)
    runs.train("anchors", anchors, how, (2, 3, 1), at=how.steps, frozen=frozen)
    probes, anchor = branch([(warm, 0)] * 2), branch([(anchors, 0)] * 2)
    runs.probes("probes", probes, anchor, how, (3, 3), {0: "cosine", 1: "CKA"})
    anchors.copy_to(0, models[0])
    own = runs.solution(anchors, 0)
    turned = [rotated(own, _ROTATIONS * seed + draw) for draw in range(_ROTATIONS)]
    penalised = ("cosine penalised", "CKA penalised")
    others = {
        "anchor": own,
        **{name: runs.solution(probes, run) for run, name in enumerate(penalised)},
        "no penalty": runs.solution(anchors, 1),
        "other seed": runs.solution(anchors, 2),
        "anchor, rotated": turned[0],
        "anchor, permuted": runs.solution(Stack([permuted_twin(models[0], seed)]), 0),
        "untrained": runs.solution(Stack([load(_UNTRAINED + seed)]), 0),
    }
    return {
        "alike": runs.compare(own, others),
        "rotations": float(np.mean([mean_example_cosine(own.final, t.final) for t in turned])),
        "curves": {"anchor": runs.curve("anchors", 0), **runs.curves("probes", penalised)},
        "cosines": runs.curves("probes", penalised, "cosine"),
    }


def mature_geometry(runs: BranchRuns, load: Load, how: Optimisation, steps: int) -> dict[str, Any]:
    """A network trained as ``how`` says, and BRANCHES that go on from there for so many steps.

    The anchor is the network itself. The first three of them differ in batches or penalty alone.
    """
    grown = Stack([load(runs.seed)])
    runs.train("baseline", grown, how, (0,), at=how.steps)
    branches, anchor = branch([(grown, 0)] * 4), branch([(grown, 0)] * 4)
    penalties = {2: "cosine", 3: "CKA"}
    going_on = replace(how, steps=steps)
    runs.probes("branches", branches, anchor, going_on, (2, 3, 2, 2), penalties)
    own = runs.solution(grown, 0)
    others = {name: runs.solution(branches, run) for run, name in enumerate(BRANCHES)}
    return {
        "alike": runs.compare(own, {"anchor": own, **others}),
        "curves": runs.curves("branches", BRANCHES),
        "cosines": runs.curves("branches", BRANCHES, "cosine"),
        "leak": runs.leak(grown),
    }


def warm_ups_and_steps(
    runs: BranchRuns, load: Load, warm_ups: tuple[int, int], hows: Sequence[Optimisation]
) -> dict[str, Any]:
    """By warm-up and steps an anchor and its probe, the cosine penalised.

    Args:
        hows: the shorter training first. Its anchors are those of the longer one, as they were
            then; its probes train on their own, against those.

    Returns:
        by row as the others, and under ``untrained`` how alike two networks are at the start.
    """
    (early, late), (short, long) = warm_ups, hows
    start = Stack([load(runs.seed)])
    first = runs.train("warm-up", start, replace(long, steps=late), (0,), at=early)
    snapshots, frozen = [(first, 0), (start, 0)], geometry(start)
    anchors = branch(snapshots)
    halfway = runs.train("anchors", anchors, long, (2, 2), at=short.steps, frozen=frozen)
    fresh = [runs.solution(Stack([load(k + runs.seed)]), 0) for k in (_OTHER, _UNTRAINED)]
    found: dict[str, Any] = {"untrained": runs.compare(fresh[0], {"pair": fresh[1]})["pair"]}
    for how, anchor in ((short, halfway), (long, anchors)):
        name, probes = f"probes-{how.steps}", branch(snapshots)
        runs.probes(name, probes, anchor, how, (3, 3), {0: "cosine", 1: "cosine"})
        for run, warm_up in enumerate(warm_ups):
            own, probe = runs.solution(anchor, run), runs.solution(probes, run)
            course = runs.curve("anchors", run).items()
            until = {step: accuracy for step, accuracy in course if step <= how.steps}
            found[f"warm-up {warm_up:,}, {how.steps:,} steps"] = {
                "alike": runs.compare(own, {"anchor": own, "probe": probe}),
                "curves": {"anchor": until, "probe": runs.curve(name, run)},
                "cosines": {"probe": runs.curve(name, run, "cosine")},
            }
    return found
