"""Which forward a firing belongs to, also where gradient checkpointing runs a part again.

Checkpointing drops activations and runs that part of the model once more during the backward pass.
A firing there is no new one: interventions act as in the forward that is repeated, observers skip
it. Autograd numbers its nodes as it makes them, so the number of the node whose backward asks for
the repetition says which forward made it, however many forwards came before the backward.

It misleads where a model is run anew inside a backward pass (an implicit layer): that counts as a
repetition too. Reentrant checkpoints inside reentrant ones make nodes of their own, whose numbers
say nothing certain; use ``use_reentrant=False`` there.
"""

from collections import deque
from dataclasses import dataclass, field
from threading import get_ident
from typing import NoReturn

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointFunction
from transformer_lens.hook_points import HookPoint

from .errors import ProbekitError
from .hooks import AttachedHook, recomputing
from .hooksite import HookSite
from .items import Firing
from .seam import AttentionContext

#: Forwards that a later backward may repeat; token ids are kept of each.
KEPT = 16


@dataclass(eq=False)
class _Forward:
    number: int  # from 1
    begin: int  # the first autograd node made in it, and the first made after it
    end: int | None = None
    thread: int = field(default_factory=get_ident)
    tokens: dict[HookPoint, Tensor] = field(default_factory=dict)
    fired: dict[AttachedHook, int] = field(default_factory=dict)


class Forwards:
    """The forwards of one attachment, counted by the calls of its model's roots."""

    def __init__(self) -> None:
        self.count = 0
        self._running: list[nn.Module] = []
        self._kept: deque[_Forward] = deque(maxlen=KEPT)
        self._tokens: dict[HookPoint, Tensor] = {}
        self._running_again: list[nn.Module] = []
        self._fired_again: dict[AttachedHook, int] = {}

    def begin(self, root: nn.Module) -> None:
        """A root is called."""
        again = recomputing()
        running = self._running_again if again else self._running
        if root in running:  # left behind by a forward that Ctrl-C ended
            running.clear()
        if not running and again:
            self._fired_again = {}
        elif not running:
            self._close()
            self.count += 1
            self._kept.append(_Forward(self.count, _next_node()))
            self._tokens = self._kept[-1].tokens
        running.append(root)

    def end(self, root: nn.Module) -> bool:
        """A root has answered; whether no other is still running."""
        running = self._running_again if recomputing() else self._running
        if root in running:
            running.remove(root)
        if not self._running:
            self._close()
        return not running

    def _close(self) -> None:
        if self._kept and self._kept[-1].end is None:
            self._kept[-1].end = _next_node()
            self._tokens = {}  # what is called by hand now has tokens of its own, or none

    def keep_tokens(self, tensor: Tensor, hook: HookPoint) -> None:
        """Note what a forward embeds; itself a TransformerLens hook."""
        if not recomputing():
            self._tokens[hook] = tensor

    def firing(self, hook: AttachedHook, attention: AttentionContext | None) -> Firing:
        """Count one firing of ``hook``, or find the one that is repeated."""
        if recomputing():
            return self._repeated(hook, attention)
        hook.fired += 1
        if self._running:
            forward = self.count
            fired = self._kept[-1].fired
            fired[hook] = fired.get(hook, 0) + 1
        else:  # a block called by hand: each firing is its own forward
            hook.by_hand += 1
            forward = -hook.fired
        hook.iteration = hook.iteration + 1 if forward == hook.forward else 0
        hook.forward = forward
        tokens = self._tokens.get(hook.tokens_hook) if hook.tokens_hook else None
        return Firing(hook.site, hook.iteration, attention, abs(forward), tokens)

    def _repeated(self, hook: AttachedHook, attention: AttentionContext | None) -> Firing:
        if hook.by_hand == hook.fired == 1:
            tokens = self._tokens.get(hook.tokens_hook) if hook.tokens_hook else None
            return Firing(hook.site, 0, attention, 1, tokens)
        forward = self._made_by(torch._C._current_autograd_node(), hook.by_hand > 0)
        times = forward.fired.get(hook, 0) if forward else 0
        iteration = self._fired_again.get(hook, 0) if self._running_again else 0
        self._fired_again[hook] = iteration + 1
        # Of several iterations in one forward a part that is repeated alone is any.
        if forward is None or iteration >= times or (times > 1 and not self._running_again):
            return UnknownFiring(hook.site, attention)
        tokens = forward.tokens.get(hook.tokens_hook) if hook.tokens_hook else None
        return Firing(hook.site, iteration, attention, forward.number, tokens)

    def _made_by(self, node: torch.autograd.graph.Node, by_hand: bool) -> _Forward | None:
        """The forward that made a node, or around which the node's checkpoint was put."""
        if len({forward.thread for forward in self._kept}) > 1:
            return None  # each thread numbers its own
        number = node._sequence_nr()  # type: ignore[attr-defined]
        earlier = [forward for forward in self._kept if forward.begin <= number]
        later = [forward for forward in self._kept if forward.begin > number]
        if earlier and (earlier[-1].end is None or number < earlier[-1].end):
            return earlier[-1]
        if by_hand:
            return None
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            # A reentrant checkpoint makes its node first, and then runs the model.
            forgotten = not earlier and self.count > len(self._kept)
            checkpoint = getattr(node, "_forward_cls", None) is CheckpointFunction
            return later[0] if later and checkpoint and not forgotten else None
        return earlier[-1] if earlier else None


class UnknownFiring(Firing):
    """A repeated firing of which nobody can tell what it repeats; reading more than its site and
    attention is refused."""

    def __init__(self, site: HookSite, attention: AttentionContext | None) -> None:
        object.__setattr__(self, "site", site)
        object.__setattr__(self, "attention", attention)

    def _refuse(self) -> NoReturn:
        raise ProbekitError(
            f"gradient checkpointing runs {self.site} again in a backward pass, and which forward "
            "and iteration that repeats cannot be told here, but an item there depends on it; "
            f"call backward within {KEPT} forwards, with use_reentrant=False and no checkpoint "
            "around one of several iterations, or turn checkpointing off"
        )

    iteration = forward = tokens = property(_refuse)  # type: ignore[assignment]


def _next_node() -> int:
    """The number that autograd gives the next node of this thread."""
    return torch._C._autograd._get_sequence_nr()  # type: ignore[attr-defined]
