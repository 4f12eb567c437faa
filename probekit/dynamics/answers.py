"""The dossier's questions, answered from measurements; what stays conjecture is called so."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..training.tables import interval_text
from .training_study import AT_REST, JUMP, onset_regimes

Answers = list[dict[str, str]]


def ep_answers(results: Mapping[str, Any]) -> Answers:
    """What the recipe on gradients says to Q3 (a ceiling of EP) and to the validity of EP."""
    corrected = results["estimators"]["symmetric"]["cosine"]
    bare = results["estimators"]["uncorrected"]["cosine"]
    deepest = list(results["depth"].values())[-1]["measured"]
    off = max(
        abs(m - law)
        for row in results["depth"].values()
        for m, law in zip(row["measured"], row["law"], strict=True)
    )
    threshold = ", ".join(f"{value:.1e}" for value in _valid_residuals(results["free"]))
    return [
        _answer(
            "is EP's gradient exact at a fixed point?",
            f"cosine {interval_text(corrected)} with AsymEP's correction, {interval_text(bare)} "
            "without",
            "measured, random weights",
        ),
        _answer(
            "Q3: is there a structural ceiling of EP?",
            f"{'none seen' if min(deepest) > 0.99 else 'one is seen'}: at the deepest phase the "
            f"cosine is {interval_text(deepest)}; at every depth it is that of the truncation law "
            f"to {off:.1e}",
            "measured, random weights; that trained C = 512 blocks do the same is conjecture",
        ),
        _answer(
            "how far from rest is EP still valid?",
            f"cosine of 0.99 up to a step residual of {threshold} (a seed each; nan: at no length)",
            "measured, random weights; the dossier says a few 1e-4",
        ),
    ]


def _valid_residuals(free: Mapping[str, Mapping[str, Sequence[float]]]) -> list[float]:
    """The largest residual of each seed at which EP's cosine still is 0.99."""
    residuals, cosines = (
        zip(*(row[key] for row in free.values()), strict=True) for key in ("residual", "EP")
    )
    return [
        max((r for r, c in zip(rs, cs, strict=True) if c >= 0.99), default=float("nan"))
        for rs, cs in zip(residuals, cosines, strict=True)
    ]


def hopf_answers(results: Mapping[str, Any]) -> Answers:
    """What the recipe on the bifurcation says to Q1, Q2 and Q4."""
    planted = [each for seed in results["planted"] for each in seed]
    right = sum(each["regime"] == each["label"] for each in planted)
    orbit = sum(each["at z_T"] == each["label"] for each in planted)
    spread = max(each["scaled spread"] for each in results["structure"])
    ended = {label: sum(map(knockout_ends, scans)) for label, scans in results["knockout"].items()}
    both = all(count > 0 for count in ended.values())
    ends = "; ".join(
        f"{label}: in {count} of {len(results['knockout'][label])}"
        for label, count in ended.items()
    )
    return [
        _answer(
            "Q1: is it a Hopf bifurcation?",
            f"decidable: a sweep of steps beside the spectrum at z* names {right} of "
            f"{len(planted)} planted systems, the spectrum at z_T alone {orbit}. Random weights "
            f"with knobs turned up: {crossing_words(results['knobs'])}",
            "measured on planted and random blocks; the dossier's own run cannot be measured, "
            "since its checkpoints are not public",
        ),
        _answer(
            "does the W_O knockout show a Hopf bifurcation?",
            f"{'no: it ends' if both else 'it does not end'} both kinds of oscillation ({ends})",
            "measured",
        ),
        _answer(
            "Q2: does damping fix it?",
            f"{'no' if spread < 1e-3 else 'it may'}: Re mu / (1 + c) of the rightmost eigenvalue "
            f"moves by {spread:.1e} of itself",
            "measured; penalties in training are not measured here",
        ),
        _answer(
            "Q4: compute with the oscillation, or keep a fixed point?",
            "nothing here measures computing with a cycle",
            "conjecture either way",
        ),
    ]


def training_answers(results: Mapping[str, Any]) -> Answers:
    """What the recipe on training says to Q1, Q2 and Q3: ``results[arm]["readings"]``."""
    arms = {arm: each["readings"] for arm, each in results.items()}
    seeds = len(arms["none"]["loss"])
    jumped = {
        arm: sum(rise > JUMP for rise in arms[arm]["largest rise"])
        for arm in ("none", "none, BPTT", "none, AsymEP")
    }
    kept = {
        arm: sum(r < AT_REST for r in arms[arm]["largest residual"])
        for arm in ("none", "jacreg", "resreg", "spectral", "gain cap", "r_str")
    }
    regimes = onset_regimes(results["none"]["onset"])
    gap = [
        a - b for a, b in zip(arms["AsymEP"]["loss"], arms["BPTT"]["loss"], strict=True)
    ]  # fmt: skip
    return [
        _answer(
            "Q1: what is lost when training diverges?",
            f"runs that jump by more than {JUMP:g} nat, of {seeds}: {counts(jumped)}; sequences "
            f"that first do not settle: {counts(regimes) or 'none'}",
            "measured on small blocks; that C = 512 is of the same kind is conjecture",
        ),
        _answer(
            "Q2: what fixes it?",
            f"runs whose residual stays below {AT_REST:g}, of {seeds}: {counts(kept)}. Final "
            "losses: " + "; ".join(f"{arm} {interval_text(arms[arm]['loss'])}" for arm in kept),
            "measured; only seeds in which 'none' does not stay there test it",
        ),
        _answer(
            "Q3: is there a ceiling of EP in training?",
            f"final loss of AsymEP less that of BPTT {interval_text(gap)} nats",
            "measured at one size and one learning rate",
        ),
    ]


def expressivity_answers(
    cost: Sequence[float], needed: float, correlation: Sequence[float], shuffled: Sequence[float]
) -> Answers:
    """What the scan of asymmetry and gain says to Q3; a number a seed each."""
    needs = min(cost) > needed
    near = all(r > s for r, s in zip(correlation, shuffled, strict=True))
    return [
        _answer(
            "Q3: does expressivity need asymmetry?",
            f"{'yes' if needs else 'not seen'}: a symmetric value map costs {interval_text(cost)} "
            "nats against the best other asymmetry",
            "measured on the value map alone; queries, keys and MLP are free, and asymmetric",
        ),
        _answer(
            "Q3: and does a low loss need a small margin?",
            f"{'yes' if near else 'not in every seed'}: rank correlation of loss with -Re mu "
            f"{interval_text(correlation)}; 95 % of shuffles stay below {max(shuffled):.2f}",
            "measured; a bound is not: a scan shows no trade-off, it proves none",
        ),
    ]


def counts(found: Mapping[str, int]) -> str:
    """Such as ``"stable 2, flip 1"``."""
    return ", ".join(f"{name} {count}" for name, count in found.items())


def crossing_words(knobs: Sequence[Mapping[str, Sequence[Mapping[str, Any]]]]) -> str:
    """For each knob what the first unstable value of each seed is."""
    words = []
    for knob in knobs[0]:
        first = [first_crossing(scan[knob]) for scan in knobs]
        words.append(f"{knob}: {', '.join(first)}")
    return "; ".join(words)


def first_crossing(rows: Sequence[Mapping[str, Any]]) -> str:
    """Such as ``"continuous Hopf at 4"``."""
    for row in rows:
        if not row["converged"]:
            return f"branch lost at {row['value']:g}"
        if row["predicted"] != "stable":
            return f"{row['predicted']} at {row['value']:g}"
    return f"stable up to {rows[-1]['value']:g}"


def knockout_ends(scan: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether some alpha below 1 brings to rest what alpha = 1 does not."""
    return scan["1"]["floor"] > 1e-6 and any(
        row["floor"] < 1e-8 for alpha, row in scan.items() if float(alpha) < 1
    )


def _answer(question: str, answer: str, evidence: str) -> dict[str, str]:
    return {"question": question, "answer": answer, "evidence": evidence}
