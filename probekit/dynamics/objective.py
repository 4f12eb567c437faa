"""What is learned: cross-entropy of every token; its gradient continues to complex states."""

from dataclasses import dataclass

from jaxtyping import Float, Inexact, Int
from torch import Tensor
from torch.nn import functional as F

from ..errors import ProbekitError
from ..hooked.equilibrium_block import softmax
from ..hooked.equilibrium_model import EquilibriumModel

States = Inexact[Tensor, "batch pos d_model"]


@dataclass(frozen=True, eq=False)
class Objective:
    """``L(z) = sum over tokens of CE(softmax(W z), label)``, in nats.

    A sum, so that a nudge by beta is beta times the gradient of each token's own loss.
    """

    unembed: Float[Tensor, "d_vocab d_model"]
    labels: Int[Tensor, "batch pos"]

    def loss(self, z: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, ""]:
        """L, differentiable in z and in W."""
        logits = z @ self.unembed.T
        return F.cross_entropy(logits.flatten(0, 1), self.labels.flatten(), reduction="sum")

    def gradient(self, z: States) -> States:
        """``dL/dz = (softmax(W z) - onehot) W`` per token, without conjugation where complex."""
        weight = self.unembed.detach().to(z.dtype)
        wrong = softmax(z @ weight.T) - F.one_hot(self.labels, len(weight)).to(z.dtype)
        return wrong @ weight


def objective_of(model: EquilibriumModel, labels: Int[Tensor, "batch pos"]) -> Objective:
    """The objective of a model that reads its state out linearly.

    Raises:
        ProbekitError: it has no unembedding, or a final norm before it.
    """
    if "unembed" not in model.submodules or "ln_final" in model.submodules:
        raise ProbekitError(
            "the nudge needs logits that are linear in the state: an unembedding and no final "
            "norm, such as pk.load('equilibrium')"
        )
    return Objective(model.submodules["unembed"].weight, labels)  # type: ignore[arg-type]
