"""Targets: which token each position should predict, and scores of predictions against them.

Shared by the probes of logits. Each scores every counted position i against its label t_i, and
is read against shuffled labels. If label c occurs N_c times among n and S_c is the sum over
positions of the score that label c would have had there, a uniformly random permutation of the
labels scores ``sum_c N_c S_c / n^2`` on average: in closed form, from two vectors of vocabulary
size.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import ProbekitError, unknown
from ..hooksite import HookSite
from ..items import Firing, Observer, describe
from ..measurement import Measurement, stack_by_layer
from ..site import Site
from .attention_rows import grown
from .positions import checked_positions, chosen_positions

NAMED = ("next", "same")
Targets = Literal["next", "same"] | Callable[[Tensor], Tensor] | Sequence[Sequence[int]] | Tensor


def checked_targets(targets: Any) -> Any:
    """``targets`` in a form that compares, prints and stores: tables become tuples.

    Raises:
        ProbekitError: an unknown word, or no table of whole numbers.
    """
    if callable(targets) and not isinstance(targets, Tensor):
        return targets
    if isinstance(targets, str):
        if targets not in NAMED:
            raise ProbekitError(unknown("targets", targets, NAMED))
        return targets
    try:
        table = torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError):
        table = torch.empty(0)
    if table.ndim != 2 or table.is_floating_point() or table.is_complex():
        raise ProbekitError(
            "targets are 'next', 'same', a function of the token ids, or whole numbers "
            f"[batch, pos], not {targets!r}"
        )
    return tuple(map(tuple, table.tolist()))


def read_targets(
    targets: Targets, logits: Float[Tensor, "batch kept vocab"], at: Firing
) -> Int[Tensor, "batch pos"]:
    """The label of each position; negative where there is none.

    Where the model computed logits of the last positions only, as Hugging Face's ``generate``
    asks of it, the positions before them have none.

    Raises:
        ProbekitError: the forward embedded no token ids, the shapes do not fit, or a label lies
            beyond the vocabulary.
    """
    labels = _labels(targets, at).to(logits.device)
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise ProbekitError(f"targets are whole numbers, not {labels.dtype}")
    if labels.shape != logits.shape[:2]:
        left_out = _left_out(labels, logits, at)
        if not left_out:
            raise ProbekitError(
                f"targets have shape {tuple(labels.shape)}, the logits at {at.site} "
                f"{tuple(logits.shape)}: the first two must agree"
            )
        labels = labels.clone()
        labels[:, :left_out] = -100
    if labels.numel() and int(labels.max()) >= logits.shape[2]:
        raise ProbekitError(
            f"target {int(labels.max())} lies outside the {logits.shape[2]} classes of the logits"
        )
    return labels


def _left_out(labels: Tensor, logits: Tensor, at: Firing) -> int:
    """How many positions come before the logits; 0 where they are not the sequence's last ones."""
    if at.tokens is None or labels.shape != at.tokens.shape or len(labels) != len(logits):
        return 0
    return max(0, labels.shape[1] - logits.shape[1])


def _labels(targets: Targets, at: Firing) -> Tensor:
    if not (isinstance(targets, str) or callable(targets)):
        return torch.as_tensor(targets)
    if at.tokens is None:
        raise ProbekitError(
            f"targets={targets!r} needs token ids, and this forward embedded none; give the "
            "targets as a tensor [batch, pos]"
        )
    if targets == "same":
        return at.tokens
    if targets == "next":
        return torch.nn.functional.pad(at.tokens[:, 1:], (0, 1), value=-100)
    labels = targets(at.tokens)  # type: ignore[operator]
    if not isinstance(labels, Tensor):
        raise ProbekitError(f"targets returned {type(labels).__name__}, not a tensor [batch, pos]")
    return labels


@dataclass(frozen=True)
class TargetProbe(Observer):
    """What Accuracy and LogitMargin share; a subclass gives the score.

    Args:
        targets: ``"next"``, the token at the next position (the last position has none);
            ``"same"``, the token itself (copying; masked language models at unmasked tokens); a
            function of the token ids ``[batch, pos]`` of the stack that predicts (the decoder,
            where there is one), returning labels ``[batch, pos]``; or these labels themselves,
            for every forward the same. Negative labels, such as -100, are not counted.
        positions: positions to count; None means all. The position is the one that predicts.

    Where logits are computed of the last positions only, as in Hugging Face's ``generate``, those
    are counted, under their own numbers; ``"next"`` then counts none in a forward, as the token
    that the last position predicts comes with the next one.
    """

    targets: Targets = "next"
    positions: Sequence[int] | None = None

    null_name: ClassVar[str] = "labels shuffled among the counted positions"
    needs_tokens: ClassVar[bool] = True
    units: ClassVar[str] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "targets", checked_targets(self.targets))
        object.__setattr__(self, "positions", checked_positions(self.positions))

    @abstractmethod
    def score(
        self, logits: Float[Tensor, "row vocab"], labels: Int[Tensor, " row"]
    ) -> tuple[Tensor, Float[Tensor, " vocab"]]:
        """Each row's score with its label; and for every label the sum of the rows' scores."""

    def sites(self) -> tuple[Site, ...]:
        return (Site("logits"),)

    def measure(self, x: Tensor, at: Firing) -> "LabelScores":
        if x.ndim != 3:
            raise ProbekitError(
                f"{type(self).__name__} reads logits [batch, pos, vocab]; those at {at.site} have "
                f"shape {tuple(x.shape)}"
            )
        labels = read_targets(self.targets, x, at)
        length = labels.shape[1]
        counted = labels >= 0
        if self.positions is not None:
            counted = counted & chosen_positions(self.positions, length, x.device)
        own, by_label = self.score(x[counted[:, length - x.shape[1] :]], labels[counted])
        value = torch.zeros(length, dtype=torch.float64, device=x.device)
        return LabelScores(
            value.index_add(0, counted.nonzero()[:, 1], own.double()),
            counted.sum(0, dtype=torch.float64),
            by_label,
            torch.bincount(labels[counted], minlength=x.shape[2]).double(),
        )

    def combine(self, total: "LabelScores", new: "LabelScores") -> "LabelScores":
        return total + new

    def finish(self, totals: Mapping[HookSite, Any]) -> Measurement:
        if not any(total.count.any() for total in totals.values()):
            raise ProbekitError(
                f"{describe(self)} counted no position: its targets name none with a label that "
                "has logits (targets='next' has none at the last position, the only one that "
                "generation computes)"
            )
        values, dims, coords = _stacked({s: t.mean for s, t in totals.items()}, {})
        null, _, _ = _stacked({s: t.shuffled for s, t in totals.items()}, {})
        whole = Measurement(
            name=self.key,
            values=values,
            dims=dims,
            coords=coords,
            units=self.units,
            null=null,
            null_name=self.null_name,
            provenance={"probe": describe(self)},
        )
        length = max(len(total.count) for total in totals.values())
        values, dims, coords = _stacked(
            {s: t.value / t.count for s, t in totals.items()}, {"position": range(length)}
        )
        reason = "labels are shuffled over all positions; for the null of one give positions=(t,)"
        rows = replace(
            whole,
            name=f"{self.key}.rows",
            values=values,
            dims=dims,
            coords=coords,
            null=None,
            null_name="",
            null_reason=reason,
        )
        return replace(whole, rows=rows)


@dataclass(frozen=True)
class LabelScores:
    """Running sums, by position of scores and counts, by label of S_c and N_c (see the module)."""

    value: Float[Tensor, " pos"]
    count: Float[Tensor, " pos"]
    by_label: Float[Tensor, " vocab"]
    labels: Float[Tensor, " vocab"]

    def __add__(self, other: "LabelScores") -> "LabelScores":
        length = max(len(self.count), len(other.count))
        return LabelScores(
            grown(self.value, length) + grown(other.value, length),
            grown(self.count, length) + grown(other.count, length),
            self.by_label + other.by_label,
            self.labels + other.labels,
        )

    @property
    def mean(self) -> Float[Tensor, ""]:
        """The mean score."""
        return self.value.sum() / self.count.sum()

    @property
    def shuffled(self) -> Float[Tensor, ""]:
        """The mean score expected under shuffled labels."""
        expected = torch.where(self.labels > 0, self.labels * self.by_label, 0)  # 0 * -inf is 0
        return expected.sum() / self.count.sum().square()


def _stacked(
    results: Mapping[HookSite, Tensor], extra: Mapping[str, Sequence[Any]]
) -> tuple[Tensor, tuple[str, ...], dict[str, list[Any]]]:
    """As :func:`stack_by_layer`, without its axis of layers: logits belong to none."""
    values, dims, coords = stack_by_layer(results, extra)
    values = values.squeeze(dims.index("layer"))
    coords.pop("layer")
    return values, tuple(coords), coords
