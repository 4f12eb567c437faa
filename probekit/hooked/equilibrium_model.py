"""The equilibrium model: a block whose state is relaxed until it stands still.

    F(z) = x - (1 + damping) z + B(z),     B(z) = Attn(LN1 z) + MLP(LN2 z),     z <- z + step F(z)

from ``z = x = embed(tokens) + pos_embed``, ``n_steps`` times; logits are the unembedded state.
With several blocks ``B`` is what all of them, one after the other, add to ``z``. Hook names are
the usual ones under ``blocks.0``; a hook fires once a step, so that the step is the
``iteration`` of its firing. ``force`` and ``relax`` run in float32, float64 and, for the model's
own block, in complex numbers, and under ``torch.func``.

It misleads where logits are read as those of a fixed point: nothing here says whether the state
has settled. :func:`probekit.dynamics.relax` does.

Source: the dossier "EP below-CE-2.1 divergence", section 1. Several blocks are our own extension.
"""

from typing import Any

import torch
from jaxtyping import Float, Inexact, Int
from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.hook_points import HookPoint

from ..errors import ProbekitError
from .equilibrium_block import fire, linear

#: Config keys that TransformerLens does not have, with their defaults.
EQUILIBRIUM_FIELDS: dict[str, Any] = {
    "damping": 1.0,  # c: the leak is -(1 + c) z
    "step_size": 0.1,  # of the relaxation
    "n_steps": 150,  # of the relaxation in a forward
    "residual_init": 1.0,  # factor on W_O and W_out when weights are drawn
    "attention_bias": False,
}
ARCHITECTURE = "Equilibrium"
_INNER = "_original_component"  # where a bridge keeps what it wraps
State = Inexact[Tensor, "batch pos d_model"]


class HookedEmbedding(nn.Embedding):
    """An embedding with hooks on ids and vectors."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__(rows, width)
        self.hook_in, self.hook_out = HookPoint(), HookPoint()

    @property
    def original_component(self) -> nn.Embedding:
        """Itself: TransformerLens's bridges keep theirs inside."""
        return self

    def forward(self, input: Int[Tensor, "*rest"]) -> Float[Tensor, "*rest d_model"]:
        return fire(self.hook_out, super().forward(fire(self.hook_in, input)))


class HookedUnembed(nn.Linear):
    """The read-out, without bias."""

    def __init__(self, width: int, rows: int) -> None:
        super().__init__(width, rows, bias=False)
        self.hook_out = HookPoint()

    def forward(self, input: State) -> Inexact[Tensor, "batch pos d_vocab"]:
        return fire(self.hook_out, linear(self, input))


class EquilibriumModel(HookedRootModule):
    """A relaxed block as a hooked model; made by ``pk.load("equilibrium")`` or
    :func:`equilibrium`.

    Args:
        cfg: a hooked config with the further fields of :data:`EQUILIBRIUM_FIELDS`.
        blocks: own or wrapped blocks.
        outside: ``embed``, ``pos_embed``, ``ln_final``, ``unembed``, those that there are.
    """

    def __init__(
        self, cfg: TransformerBridgeConfig, blocks: list[nn.Module], outside: dict[str, nn.Module]
    ) -> None:
        super().__init__()
        self.cfg = cfg
        self.submodules = dict(outside)
        for name, component in outside.items():
            self.add_module(name, component)
        self.blocks = nn.ModuleList(blocks)
        self._blocks = tuple(blocks)  # the same; a ModuleList is slow to go through
        # Not HookedRootModule.setup: it would rename the modules of a bridge that is wrapped.
        named = self.named_modules(remove_duplicate=False)
        self.mod_dict = {name: module for name, module in named if _INNER not in name}
        self.hook_dict = {
            n: each for n, each in self.mod_dict.items() if isinstance(each, HookPoint)
        }
        for name, point in self.hook_dict.items():
            point.name = point.name or name

    @property
    def original_model(self) -> "EquilibriumModel":
        """Itself; a bridge answers with the model inside it."""
        return self

    @property
    def causal(self) -> bool:
        """Whether no position sees a later one."""
        return self.cfg.attention_dir == "causal"

    def inject(self, inputs: Int[Tensor, "batch pos"] | State) -> State:
        """The clamped input ``x``: embedded ids; a state-shaped tensor is taken as it is.

        Raises:
            ProbekitError: ids, and the model has no embedding.
        """
        if inputs.is_floating_point() or inputs.is_complex():
            return inputs
        if "embed" not in self.submodules:
            raise ProbekitError(
                "this equilibrium model wraps a single block and embeds no ids; give x as a float "
                "tensor [batch, pos, d_model], or wrap the whole model"
            )
        x = self.submodules["embed"](inputs)
        if "pos_embed" not in self.submodules:
            return x
        positions = self.submodules["pos_embed"]
        if isinstance(positions, HookedEmbedding):
            return x + positions(torch.arange(inputs.shape[1], device=inputs.device))
        return x + positions(torch.arange(inputs.shape[1], device=inputs.device)[None])

    def force(
        self, z: State, x: Inexact[Tensor, "#batch pos d_model"], own_token: bool = False
    ) -> State:
        """``F(z) = x - (1 + damping) z + B(z)``.

        Args:
            own_token: derivatives see each position's own key and value only (own blocks).
        """
        first, *others = self._blocks
        added = first(z, own_token)
        for block in others:
            added = added + block(z + added, own_token)
        return torch.sub(x, z, alpha=1 + self.cfg.damping) + added  # type: ignore[attr-defined]

    def relax(self, x: State, n_steps: int | None = None, step_size: float | None = None) -> State:
        """The state after ``n_steps`` of ``z <- z + step_size F(z)`` from ``z = x``."""
        steps = self.cfg.n_steps if n_steps is None else n_steps  # type: ignore[attr-defined]
        size = self.cfg.step_size if step_size is None else step_size  # type: ignore[attr-defined]
        z = x
        for _ in range(steps):
            z = z + size * self.force(z, x)
        return z

    def read_out(self, z: State) -> Inexact[Tensor, "batch pos d_out"]:
        """Logits of a state; the state itself where the model has no unembedding."""
        for name in ("ln_final", "unembed"):
            if name in self.submodules:
                z = self.submodules[name](z)
        return z

    def forward(
        self, inputs: Int[Tensor, "batch pos"] | State | None = None, **kwargs: Any
    ) -> Inexact[Tensor, "batch pos d_out"]:
        """Relax and read out.

        Raises:
            ProbekitError: the state left the finite numbers, or an argument that is not known.
        """
        inputs = kwargs.pop("input_ids", None) if inputs is None else inputs
        if inputs is None or kwargs:
            raise ProbekitError(
                "an equilibrium model takes ids or x [batch, pos, d_model], not "
                f"{', '.join(kwargs) or 'nothing'}"
            )
        z = self.relax(self.inject(inputs))
        if not torch.isfinite(z.detach()).all():
            raise ProbekitError(
                f"the state is not finite after {self.cfg.n_steps} steps of "  # type: ignore[attr-defined]
                f"{self.cfg.step_size}; lower step_size, or see where it leaves with "  # type: ignore[attr-defined]
                "probekit.dynamics.relax"
            )
        return self.read_out(z)

    def _repr_html_(self) -> str:
        from ..sitemap import list_sites

        return list_sites(self).to_html(index=False, max_rows=40)
