"""What a model says to given inputs: best predictions, loss, margin, and where its heads look.

At each position read: the best predictions with logit and probability; with a label its loss
``-ln p(label)`` in nats and its margin ``logit_label - max over the others``; without one, a
causal model is scored on the token that follows. A model without logits (an encoder, DINOv2)
shows the norm of its last hidden state. For every head the normalised attention entropy over all
inputs, beside what uniform attention reads (:class:`probekit.VDI`).

It misleads where softmax compares little: probabilities of a classifier or of CLIP are shares
among the classes or texts offered, however absurd all of them are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from .attachment import attach
from .checks import check_sizes
from .errors import ProbekitError
from .hooksite import HookSite
from .measurement import Measurement
from .probes import VDI, Record
from .probes.positions import checked_positions, chosen_positions
from .site import Site
from .sitemap import SiteMap

Kind = Literal["tokens", "pixels", "both"]


@dataclass(frozen=True, eq=False)
class Pattern:
    """One layer's attention to one input. Cross-attention stands in a square of both sequences:
    the decoder's tokens follow the encoder's, and only their rows attend."""

    input: int
    site: str
    tokens: tuple[str, ...]
    values: Float[Tensor, "head query key"]


@dataclass(frozen=True, eq=False, repr=False)
class Inspection:
    """What :func:`inspect_model` found: predictions, attention entropy, patterns if asked for."""

    model: str
    predictions: pd.DataFrame
    vdi: Measurement
    patterns: tuple[Pattern, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """A row for each prediction: input, position, token, the label with its loss (nats) and
        margin (logits), the prediction and its rank. Without logits a row for each position."""
        return self.predictions

    def heads(self) -> pd.DataFrame:
        """The attention entropy, a row for each layer: ``uniform``, then a column for each head."""
        frame = self.vdi.to_frame()
        rows = [name for name in ("stack", "layer") if name in frame]
        table = frame.pivot(index=rows, columns="head", values="value")
        table.insert(0, "uniform", frame.groupby(rows)["null"].first())
        return table.rename_axis(columns=None)

    def __repr__(self) -> str:
        table = self.predictions.to_string(index=False, max_rows=20, na_rep="-")
        return f"Inspection of {self.model}, {len(self.patterns)} patterns\n{table}"

    def _repr_html_(self) -> str:
        heads = self.heads().to_html(float_format="%.3f", max_rows=24)
        return self.predictions.to_html(index=False, max_rows=40, na_rep="") + heads


def inspect_model(
    model: nn.Module,
    inputs: Sequence[Any] | Tensor,
    *,
    labels: int | Sequence[int] | None = None,
    decoder: Sequence[int] | Tensor | None = None,
    positions: Literal["all"] | Sequence[int] | None = None,
    top: int = 5,
    patterns: bool | Sequence[int] = False,
    tokenizer: Any = None,
) -> Inspection:
    """Run ``model`` on each input by itself; read its predictions and its attention.

    Args:
        inputs: token ids [pos], one sequence or several of any lengths, taken as they are (text:
            ``tokenizer(text)["input_ids"]``); or pixels [channel, height, width], several. CLIP
            takes both and compares each image with all texts.
        labels: for each input, or one for all: the id of a token or class, with CLIP the number
            of a text.
        decoder: ids that a decoder of its own has said so far; None: the start token.
        positions: to read, negative ones from the end. None: the [MASK]s, if there are any; the
            class token of an image; the last, of native models and where a causal model has a
            label; else all.
        top: how many predictions.
        patterns: whether to keep attention patterns, or of which layers.
        tokenizer: Hugging Face's, to spell tokens and to know [MASK]; None: ids stand for tokens.

    Raises:
        ProbekitError: an input, label or position that the model cannot read, and what it can.
    """
    check_sizes(top=top)
    reader = _Reader(model, tokenizer)
    examples = list(reader.examples(inputs, decoder))
    targets = reader.targets(labels, len(examples))
    layers = [None] if patterns is True else patterns or []
    sites = [s for layer in layers for s in reader.sites.resolve(Site("pattern", layer=layer))]
    rows: list[dict[str, Any]] = []
    views: list[Pattern] = []
    with torch.no_grad(), attach(model, VDI()) as attention:
        model.eval()  # the attachment restores the mode
        for index, (example, target) in enumerate(zip(examples, targets, strict=True)):
            with attach(model, *(Record(str(site), name=str(site)) for site in sites)) as run:
                said = _by_position(model(**example.kwargs))
            for place in reader.places(example, positions, target is not None, len(said)):
                found = reader.rows(example, place, said[place], target, top)
                rows += [{"input": index, **row} for row in found]
            for site in sites:
                views += _views(index, site, example, run[str(site)].values.cpu())
    table = pd.DataFrame(rows).dropna(axis=1, how="all")
    return Inspection(reader.name, table, attention["vdi"], tuple(views))


def kind_of(model: Any) -> Kind:
    """What a Hugging Face model or class reads; a native model reads tokens."""
    parts = getattr(getattr(model, "config_class", None), "sub_configs", ())
    if getattr(model, "main_input_name", "") == "pixel_values":
        return "pixels"
    return "both" if "text_config" in parts and "vision_config" in parts else "tokens"


def check_inputs(kind: Kind, inputs: Sequence[Tensor], cfg: Any) -> None:
    """Refuse inputs of another kind, and ids that the vocabulary or the positions do not hold."""
    wanted = {"tokens": {1}, "pixels": {3}, "both": {1, 3}}[kind]
    if {each.ndim for each in inputs} != wanted or not all(each.numel() for each in inputs):
        needs = {"tokens": "tokens", "pixels": "images", "both": "images and texts"}[kind]
        raise ProbekitError(f"this model reads {needs}, none of them empty; give one or more")
    d_vocab, n_ctx = getattr(cfg, "d_vocab", None), getattr(cfg, "n_ctx", None)
    learned = getattr(cfg, "positional_embedding_type", "standard") == "standard"
    for ids in (each for each in inputs if each.ndim == 1):
        if d_vocab and not 0 <= int(ids.min()) <= int(ids.max()) < d_vocab:
            raise ProbekitError(f"{ids.tolist()}: the model has tokens 0 to {d_vocab - 1}")
        if n_ctx and learned and len(ids) > n_ctx:
            raise ProbekitError(f"{len(ids)} tokens are too many: the model reads {n_ctx} at most")


@dataclass(frozen=True)
class _Example:
    """A forward's arguments, the ids whose positions predict, and tokens by stack and batch."""

    kwargs: dict[str, Tensor]
    ids: list[int]
    tokens: dict[str, list[tuple[str, ...]]]


class _Reader:
    """What the inputs and outputs of one model mean."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        inner = getattr(model, "original_model", model)
        self.cfg, self.tokenizer, self.config = model.cfg, tokenizer, getattr(inner, "config", None)
        self.name = getattr(model.cfg, "model_name", type(model).__name__)
        self.device = next(model.parameters()).device
        self.sites = SiteMap(model)
        self.kind: Kind = kind_of(inner)
        self.has_logits = self.kind == "both" or any(s.part == "logits" for s in self.sites.sites)
        self.whole = self.kind != "tokens" and self.has_logits  # one prediction an image
        self.native = not hasattr(self.config, "model_type")
        self.seq2seq = bool(getattr(self.config, "is_encoder_decoder", False))
        forward = getattr(model.cfg, "attention_dir", "causal") == "causal"
        self.causal = self.kind == "tokens" and self.has_logits and (self.seq2seq or forward)
        self.classes: dict[int, str] = {}  # names of predictions that are no tokens

    def examples(self, inputs: Any, decoder: Any) -> list[_Example]:
        """Each forward's arguments: with CLIP one for each image, else one for each input."""
        if any(isinstance(each, str) for each in (*inputs, decoder)):
            raise ProbekitError("give a text as its token ids, tokenizer(text)['input_ids']")
        read = [torch.as_tensor(each, device=self.device) for each in inputs]
        read = [torch.stack(read)] if read and not any(x.ndim for x in read) else read
        check_inputs(self.kind, read, self.cfg)
        if decoder is not None and not self.seq2seq:
            raise ProbekitError(f"{self.name} has no decoder of its own; leave decoder out")
        if self.kind == "both":
            return self._pairs([x for x in read if x.ndim == 1], [x for x in read if x.ndim == 3])
        if self.kind == "pixels":
            self.classes = getattr(self.config, "id2label", {})
            return [_Example({"input": x[None]}, [], {}) for x in read]
        sequences = [(x, [self.spell(x.tolist())]) for x in read]
        if not self.seq2seq:
            return [_Example({"input": x[None]}, x.tolist(), {"": own}) for x, own in sequences]
        start = [getattr(self.config, "decoder_start_token_id", None) or 0]
        said = torch.as_tensor(start if decoder is None else decoder, device=self.device)
        check_inputs("tokens", [said], self.cfg)
        ids, given = said.tolist(), {"decoder_input": said[None]}
        tokens = {"decoder": [self.spell(ids)]}
        return [
            _Example({"input": x[None]} | given, ids, {"encoder": own} | tokens)
            for x, own in sequences
        ]

    def _pairs(self, texts: list[Tensor], images: list[Tensor]) -> list[_Example]:
        tokens = [self.spell(ids.tolist()) for ids in texts]
        self.classes = dict(enumerate(map(" ".join, tokens)))
        masks = [torch.ones_like(ids) for ids in texts]
        padded = {
            "input_ids": pad_sequence(texts, batch_first=True),
            "attention_mask": pad_sequence(masks, batch_first=True),
        }
        return [_Example(padded | {"pixel_values": x[None]}, [], {"text": tokens}) for x in images]

    def spell(self, ids: Sequence[int]) -> tuple[str, ...]:
        known = self.tokenizer
        if known is None:
            return tuple(map(str, ids))
        return tuple(known.decode([i]) or known.convert_ids_to_tokens(i) for i in ids)

    def name_of(self, prediction: int) -> str:
        return self.classes[prediction] if self.classes else self.spell([prediction])[0]

    def targets(self, labels: Any, count: int) -> Sequence[int | None]:
        """The label of each example, as the number of its token or class."""
        if labels is None:
            return [None] * count
        if not self.has_logits:
            raise ProbekitError(f"{self.name} has no logits to hold a label against; leave it out")
        given = [labels] if isinstance(labels, int) else list(labels)
        if len(given) not in (1, count):
            raise ProbekitError(f"{len(given)} labels for {count} inputs; give 1 or {count}")
        return given * (count // len(given))

    def places(self, example: _Example, wanted: Any, labelled: bool, length: int) -> list[int]:
        """The positions to read."""
        if wanted == "all":
            return list(range(length))
        if wanted is not None:
            chosen = chosen_positions(checked_positions(wanted) or (), length, self.device)
            return chosen.nonzero()[:, 0].tolist()
        mask = getattr(self.tokenizer, "mask_token_id", None)
        masked = [place for place, token in enumerate(example.ids) if token == mask]
        if masked or self.kind != "tokens":
            return masked or [0]
        if labelled and not (self.causal or self.native):
            raise ProbekitError("which position is the label of? Give it, or put a [MASK] there")
        return list(range(length))[-1 if self.native or labelled else 0 :]

    def rows(
        self, example: _Example, place: int, said: Tensor, target: int | None, top: int
    ) -> Iterator[dict[str, Any]]:
        """A row for each of the best predictions at a position, or one with the norm there."""
        own = {"position": place, "token": str(place) if place else "class"}
        if self.whole:
            own = {"position": None, "token": "image"}
        elif example.ids:
            own["token"] = self.spell([example.ids[place]])[0]
        said = said.double()
        if not self.has_logits:
            yield own | {"norm": float(said.norm())}
            return
        if target is None and self.causal and place + 1 < len(example.ids):
            target = example.ids[place + 1]
        log_p = said.log_softmax(-1)
        if target is not None:
            if not 0 <= target < len(said):
                raise ProbekitError(f"label {target}: the predictions are 0 to {len(said) - 1}")
            others = torch.cat([said[:target], said[target + 1 :]])
            margin = float(said[target] - others.max()) if len(others) else None
            own |= {"label": self.name_of(target), "loss": -float(log_p[target]), "margin": margin}
        best = said.topk(min(top, len(said)))
        for rank, (logit, i) in enumerate(zip(*map(Tensor.tolist, best), strict=True), 1):
            prediction = {"rank": rank, "prediction": self.name_of(i), "id": i, "logit": logit}
            yield own | prediction | {"probability": float(log_p[i].exp())}


def _by_position(output: Any) -> Float[Tensor, "pos out"]:
    """The one example's logits or last hidden state; an image has one row of logits."""
    if not isinstance(output, Tensor):
        names = ("logits_per_image", "logits", "last_hidden_state")
        output = next(output[name] for name in names if name in output)
    return output[0] if output.ndim == 3 else output


def _views(index: int, site: HookSite, example: _Example, values: Tensor) -> Iterator[Pattern]:
    """One site's patterns [batch, head, query, key], each with the tokens of its sequence."""
    if site.attn == "cross":
        keys, queries = (example.tokens[stack][0] for stack in ("encoder", "decoder"))
        square = values.new_zeros(values.shape[1], *2 * [len(keys) + len(queries)])
        square[:, len(keys) :, : len(keys)] = values[0]
        yield Pattern(index, str(site), keys + queries, square)
    elif not (site.stack == "text" and index):  # CLIP reads its texts again with each image
        patches = ("class", *map(str, range(1, values.shape[-1])))
        for pattern, tokens in zip(values, example.tokens.get(site.stack, [patches]), strict=True):
            length = len(tokens)
            yield Pattern(index, str(site), tokens, pattern[:, :length, :length])
