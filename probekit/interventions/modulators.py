"""Lerp and FieldModulator: trainable modules attached to the residual stream before each block."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..checks import check_is, check_share
from ..errors import ProbekitError
from ..items import Firing, Intervention, describe
from ..modulators import LerpModulator, SimplexField
from ..modulators.lerp import Form, check_form
from ..site import Site, parse_site


@dataclass(frozen=True, repr=False)
class Lerp(Intervention):
    """Pulls the residual stream towards a geometric embedding of each token, before every block.

    ``x <- (1 - alpha) x + alpha P G[token]``, alpha by layer: see
    :class:`probekit.modulators.LerpModulator`, whose parameters train through the attachment and
    stay as they are when it ends. Hold the host still with ``FreezeWeights("all")`` beside it.
    Where alpha is 0 the stream is the same bit for bit. The controls: the other forms, and the
    module with rows permuted, random or zero (:func:`probekit.modulators.permuted_rows` and like).

    Args:
        module: the modulator; its width is the model's d_model.
        alpha: for all layers, in place of the module's own; None means the module's.
        site: where, of a stack that embeds tokens; as published ``"encoder.resid_pre"`` on T5.
        form: ``"lerp"`` as published, ``"shrink-only"`` for ``(1 - alpha) x``, or
            ``"additive-only"`` for ``x + alpha P G[token]``.

    Raises:
        ProbekitError: no modulator, no such form, alpha outside [0, 1]; at the first forward, a
        module of another width, depth or vocabulary. SiteError: the stack embeds no token ids.

    Source: "Geometric Terrain Analysis", S7 (geometric residual modulator).
    """

    module: LerpModulator
    alpha: float | int | None = None
    site: str | Site = "resid_pre"
    form: Form = "lerp"

    source: ClassVar[str] = "Geometric Terrain Analysis, S7"
    needs_tokens: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_is("module", self.module, LerpModulator)
        object.__setattr__(self, "site", str(_stream_site(self.site)))
        if self.alpha is not None:
            check_share("alpha", self.alpha)
        check_form(self.form)

    def sites(self) -> tuple[Site, ...]:
        return (parse_site(self.site),)

    def edit(self, x: Tensor, at: Firing) -> Tensor:
        if at.tokens is None:
            raise ProbekitError(
                f"{self} at {at.site} needs token ids; the model was given embeddings instead"
            )
        assert at.site.layer is not None
        # Modules that know no other form than the published one are not asked for it.
        form = () if self.form == "lerp" else (self.form,)
        return self.module(x, at.tokens, at.site.layer, self.alpha, *form)

    def __repr__(self) -> str:
        return describe(self)


@dataclass(frozen=True, repr=False)
class FieldModulator(Intervention):
    """Scales residual coordinates by gates that read deformed simplices, before every block.

    ``x <- x * prod_k [(1 - alpha_k) + alpha_k g_k(x)]`` on the active coordinates: see
    :class:`probekit.modulators.SimplexField`, whose parameters train through the attachment and
    stay as they are when it ends. The control is a constant gate: these gates only attenuate.

    Args:
        module: the modulator; its width is the model's d_model.
        site: where; as published ``"encoder.resid_pre"`` on T5.

    Raises:
        ProbekitError: no modulator; at the first forward, one of another width or depth.

    Source: "Geometric Terrain Analysis", S12 (geometric field modulator).
    """

    module: SimplexField
    site: str | Site = "resid_pre"

    source: ClassVar[str] = "Geometric Terrain Analysis, S12"

    def __post_init__(self) -> None:
        check_is("module", self.module, SimplexField)
        object.__setattr__(self, "site", str(_stream_site(self.site)))

    def sites(self) -> tuple[Site, ...]:
        return (parse_site(self.site),)

    def edit(self, x: Tensor, at: Firing) -> Tensor:
        assert at.site.layer is not None
        return self.module(x, at.site.layer)

    def __repr__(self) -> str:
        return describe(self)


def _stream_site(site: str | Site) -> Site:
    parsed = parse_site(site)
    if not parsed.part.startswith("resid_"):
        raise ProbekitError(f"a modulator acts on the residual stream, not on {str(site)!r}")
    return parsed
