"""The four arms of the write-up's language experiment: one stack, trained on from one network.

Routing (Q, K and V) is frozen, the start is the anchor. Two of the arms have one loss: the anchor
of "anchor" is only logged. It sees batches of its own here, so that it differs from "CE only" as
any two runs do.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...geometry import gauge_rotation
from ...runs import RunDir
from ..fit import Optimisation, fit
from ..language import LanguageTask
from ..leak import find_leak
from ..stack import Stack
from .anchoring import AnchorPenalty, AveragePenalty, Ramp, penalty_gradient, sequence_cosine
from .next_token import by_position, predictions, random_text

CE, EMA, ANCHOR, ORTHO = LANGUAGE_ARMS = ("CE only", "EMA", "anchor", "anchor + orthogonality")
_ROUTING = tuple(f".attn.{part}.{what}" for part in "qkv" for what in ("weight", "bias"))
_LOGGED = 20  # windows on which cosines are logged
_SEARCHED = 16  # positions of them that the leak detector looks at
_RANDOM = 100  # windows of random text


@dataclass(frozen=True, eq=False)
class AnchoredArms:
    """The trained arms, in the order of :data:`LANGUAGE_ARMS`, and the network they began as."""

    arms: Stack
    anchor: Stack
    ramp: Ramp

    def cosines(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, " run"]:
        """:func:`sequence_cosine` of each arm with the anchor."""
        length = tokens.shape[-1]
        with torch.no_grad():
            return sequence_cosine(
                self.arms.final(tokens, length), self.anchor.final(tokens, length)
            )

    def gradients(self, tokens: Int[Tensor, "batch pos"]) -> dict[str, float]:
        """Norm of the full penalty's gradient in its arm, attached and as released, detached."""
        step, arm, length = (
            self.ramp.begin + self.ramp.length,
            LANGUAGE_ARMS.index(ORTHO),
            tokens.shape[-1],
        )
        return {
            name: float(
                penalty_gradient(
                    self.arms,
                    AnchorPenalty(self.anchor, [arm], self.ramp, attached),
                    step,
                    tokens,
                    length,
                )[arm]
            )
            for name, attached in (("attached", True), ("detached", False))
        }


def train_arms(
    run: RunDir,
    start: TransformerBridge,
    task: LanguageTask,
    optimisation: Optimisation,
    penalty: float,
    seed: int,
    *,
    title: str,
    position: int,
) -> AnchoredArms:
    """Train all arms from one network; a row of the log has each arm's ``cosine`` to it too.

    Args:
        penalty: its full weight; it begins at a quarter of the steps and is full at half of them.
        seed: of the batches, which are others than those of a run of that seed.
    """
    arms, anchor = Stack([start] * len(LANGUAGE_ARMS)), Stack([start])
    quarter = max(1, optimisation.steps // 4)
    found = AnchoredArms(arms, anchor, Ramp(penalty, quarter, quarter))
    average = torch.zeros(len(arms), start.cfg.d_model)
    orthogonal = AnchorPenalty(anchor, [LANGUAGE_ARMS.index(ORTHO)], found.ramp)
    smooth = AveragePenalty(average, [LANGUAGE_ARMS.index(EMA)], found.ramp)
    logged = task.validation()[0][:_LOGGED]

    def both(step: int, tokens: Tensor, final: Tensor) -> Tensor:
        return orthogonal(step, tokens, final) + smooth(step, tokens, final)

    def watch(step: int, row: Any) -> dict[str, Any]:
        return {"cosine": found.cosines(logged)}

    fit(
        run,
        arms,
        task,
        optimisation,
        [seed + (2_000 if arm == ANCHOR else 1_000) for arm in LANGUAGE_ARMS],
        frozen=[name for name in arms.parameters if name.endswith(_ROUTING)],
        penalty=both,
        watch=watch,
        state={"average": average},
        title=title,
        position=position,
    )
    return found


def read_arms(
    trained: AnchoredArms,
    model: TransformerBridge,
    task: LanguageTask,
    text: tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]],
    seed: int,
) -> dict[str, Any]:
    """By arm: where it is right, how much of random text, its cosine to the anchor, and its leak.

    ``rotated`` is the cosine of "CE only" with itself when its final stream and its unembedding are
    turned: other vectors, the same logits.

    Args:
        model: of the arms' shape; its weights are overwritten.
        text: tokens and labels on which accuracy by position is read.
    """
    arms, (tokens, labels) = trained.arms, text
    noise, after = random_text(task, _RANDOM, seed)
    right = by_position(predictions(arms, tokens), labels)
    on_noise = by_position(predictions(arms, noise), after).mean(-1)
    seen = task.validation()[0]
    leaks = {}
    for index, arm in enumerate(LANGUAGE_ARMS):
        arms.copy_to(index, model)
        leak = find_leak(model, tokens[:100, :_SEARCHED], labels[:100, :_SEARCHED])
        leaks[arm] = {**asdict(leak), "found": leak.found, "words": str(leak)}
    with torch.no_grad():
        final = arms.final(seen, seen.shape[-1])[:1]
    turned, _ = gauge_rotation(final, arms.parameters["head.weight"][0].detach().T, seed)
    return {
        "by position": dict(zip(LANGUAGE_ARMS, right, strict=True)),
        "random text": dict(zip(LANGUAGE_ARMS, on_noise, strict=True)),
        "cosine": dict(zip(LANGUAGE_ARMS, trained.cosines(seen), strict=True)),
        "rotated": float(sequence_cosine(final, turned.to(final))),
        "gradients": trained.gradients(seen[:_LOGGED]),
        "leak": leaks,
    }


@torch.no_grad()
def independent_cosines(networks: Sequence[Stack], tokens: Int[Tensor, "batch pos"]) -> list[float]:
    """:func:`sequence_cosine` of the first run of each stack with that of the next; NaN for one."""
    if len(networks) < 2:
        return [float("nan")] * len(networks)
    finals = [each.final(tokens, tokens.shape[-1])[:1] for each in networks]
    pairs = zip(finals, [*finals[1:], finals[0]], strict=True)
    return [float(sequence_cosine(one, other)) for one, other in pairs]
