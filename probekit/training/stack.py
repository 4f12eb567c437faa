"""Many runs of one toy model trained as one: parameters stacked along a leading axis `run`.

Seeds or conditions of a toy model are each too small to fill a processor. Stacked, every call
serves all of them, and a run's numbers are those of the run alone to rounding. Use
:class:`~probekit.training.StackedAdamW` and :func:`~probekit.training.clip_stacked_grad_norm`
beside it, and sum the runs' losses: a run's gradient is that of its own loss.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge

from ..errors import ProbekitError
from ..hooked.model import load_weights, weights
from .readout import check_readable, stacked_final, unembed

Tokens = Int[Tensor, "batch pos"] | Int[Tensor, "run batch pos"]
_ALIKE = ("n_heads", "attention_dir", "act_fn", "eps", "post_norm")


class Stack:
    """Native models of one shape, their parameters stacked along a leading axis `run`.

    Args:
        models: one a run; they are copied, and the same model may come more than once.

    Attributes:
        parameters: by the names of a checkpoint, each ``[run, ...]``.

    Raises:
        ProbekitError: a model that :func:`readout_logits` refuses, or models of several shapes.
    """

    parameters: dict[str, nn.Parameter]

    def __init__(self, models: Sequence[TransformerBridge]) -> None:
        if not models:
            raise ProbekitError("Stack needs at least one model; given none")
        for model in models:
            check_readable(model, "Stack")
        self._cfg = models[0].cfg
        named = [weights(model) for model in models]
        for run, (model, own) in enumerate(zip(models, named, strict=True)):
            self._refuse_other(run, model, own, named[0])
        self.parameters = {
            name: nn.Parameter(torch.stack([own[name].detach() for own in named]))
            for name in named[0]
        }

    def _refuse_other(
        self, run: int, model: TransformerBridge, own: dict[str, Tensor], first: dict[str, Tensor]
    ) -> None:
        configs = self._cfg, model.cfg
        fields = ((what, *(getattr(cfg, what, None) for cfg in configs)) for what in _ALIKE)
        wrong = [
            f"{what} {theirs!r}, not {ours!r}" for what, ours, theirs in fields if theirs != ours
        ]
        shapes = [
            {name: tuple(tensor.shape) for name, tensor in each.items()} for each in (first, own)
        ]
        wrong += [
            f"{name} {shapes[1].get(name)}, not {shapes[0].get(name)}"
            for name in {**first, **own}
            if shapes[0].get(name) != shapes[1].get(name)
        ]
        if wrong:
            raise ProbekitError(
                f"Stack needs models of one shape; model {run} has {'; '.join(wrong)} as model 0"
            )

    def __len__(self) -> int:
        return len(next(iter(self.parameters.values())))

    def __repr__(self) -> str:
        return f"Stack({len(self)} runs)"

    def logits(self, tokens: Tokens) -> Float[Tensor, "run batch d_vocab"]:
        """Each run's logits at the last position, computing nothing that they do not need.

        Args:
            tokens: with an axis `run`, each run's own; without, shared by all.
        """
        return self.unembed(self.final(tokens))[:, :, 0]

    def all_logits(self, tokens: Tokens) -> Float[Tensor, "run batch pos d_vocab"]:
        """Each run's logits at every position."""
        return self.unembed(self.final(tokens, tokens.shape[-1]))

    def final(self, tokens: Tokens, read: int = 1) -> Float[Tensor, "run batch read d_model"]:
        """What the final norm gives at the last ``read`` positions, which the unembedding reads."""
        return stacked_final(self.parameters, tokens, self._cfg, read)[0]

    def unembed(
        self, final: Float[Tensor, "run batch read d_model"]
    ) -> Float[Tensor, "run batch read d_vocab"]:
        """Logits of :meth:`final`."""
        return unembed(self.parameters, final)

    def logits_and_patterns(
        self, tokens: Tokens
    ) -> tuple[Float[Tensor, "run batch d_vocab"], list[Float[Tensor, "run batch head query key"]]]:
        """:meth:`logits`, and every layer's attention pattern over all queries, with gradients."""
        final, patterns = stacked_final(self.parameters, tokens, self._cfg, 1, with_patterns=True)
        return self.unembed(final)[:, :, 0], patterns

    def copy_to(self, run: int, model: TransformerBridge) -> None:
        """Write one run's parameters into a model, for monitors, which use the ordinary attach.

        Raises:
            CardError: the model has other names or shapes.
        """
        load_weights(model, {name: stacked[run] for name, stacked in self.parameters.items()})
