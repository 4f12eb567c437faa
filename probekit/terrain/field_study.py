"""What a field modulator's parts do: its templates, gates and health check, read on a real stream.

Source: "Geometric Terrain Analysis", S12 (geometric field modulator), and its critique, section
B12.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..attachment import attach
from ..errors import ProbekitError
from ..geometry import (
    gaussian_volume_cv,
    published_simplex,
    regular_simplex,
    squared_distances,
    volume_cv,
)
from ..geometry.volumes import draw_simplices
from ..hooked.model import HookedModel
from ..interventions import FieldModulator
from ..modulators import SimplexField, cv_check
from ..probes import Record
from .tokens import embedding_of

Readings = dict[str, Any]
ORDERS = (1, 2, 4)  # of the published experts
DIMS = 8  # coordinates that the health check reads
CURVE = (4, 8, 16, 32, 64, 128)
SIMPLICES = 1_000
#: Learning rates over the schedule's, as published, by a part of a parameter's name.
FACTORS = {"alpha": 0.5, "expert": 0.1}


def template_readings() -> Readings:
    """Edges of each template by order, and how far the longest is beyond the shortest."""
    found: Readings = {}
    for name, template in (("published", published_simplex), ("regular", regular_simplex)):
        edges = {}
        for k in ORDERS:
            distances = squared_distances(template(k, DIMS, torch.float64)).sqrt()
            edges[str(k)] = distances[distances.triu(1) > 0].tolist()
        spreads = [max(each) / min(each) - 1 for each in edges.values()]
        found[name] = {"edges": edges, "spread": max(spreads)}
    return found


def gate_readings(model: HookedModel, ids: Tensor, mask: Tensor, seed: int = 0) -> Readings:
    """Gates of published and of constant fields on the model's own residual stream.

    Returns:
        by gate, for each order: ``gate_std`` (over positions, mean over coordinates; the largest
        over layers) and ``share_v2_positive`` (the least over layers); ``random`` has that share
        for Gaussian points; ``checks``, by layer, what :func:`checked` reads.
    """
    with torch.no_grad(), attach(model, Record("resid_pre")) as run:
        model(ids, attention_mask=mask)
    streams = run["record"].values[:, mask.bool()]  # layer, place, d_model
    found: Readings = {}
    for gate in ("simplex", "constant"):
        field = published_field(model, gate=gate, seed=seed)
        health = [field.health(stream) for stream in streams]
        found[gate] = {
            str(k): {
                name: extreme(each[f"k{k}.{name}"] for each in health)
                for name, extreme in (("gate_std", max), ("share_v2_positive", min))
            }
            for k in ORDERS
        }
    points = torch.randn(len(streams[0]), 5, DIMS, generator=torch.Generator().manual_seed(seed))
    edges = (points[:, 1:] - points[:, :1]).double()
    determinants = torch.linalg.det(edges @ edges.mT)
    found["random"] = float((determinants > 0).double().mean())
    found["checks"] = [checked(stream[:, :DIMS]) for stream in streams]
    return found


def published_field(model: HookedModel, **changed: Any) -> SimplexField:
    """The published configuration at a model's width and depth, but for what is changed."""
    sizes = {"d_model": model.cfg.d_model, "n_layers": model.cfg.n_layers}
    return SimplexField(**sizes, template="published", **changed)


def checked(x: Float[Tensor, "rows dim"]) -> float:
    """The CV that the published check reads; NaN where it finds no simplex."""
    try:
        return cv_check(x).cv
    except ProbekitError:
        return float("nan")


def check_readings(model: HookedModel) -> Readings:
    """The health check of an embedding, and its CV by the number of coordinates that it reads."""
    table = embedding_of(model)
    simplices = draw_simplices(len(table), 4, SIMPLICES, seed=0)
    dims = [*(each for each in CURVE if each < table.shape[1]), table.shape[1]]
    return {
        "cv": cv_check(table).cv,
        "in band": float(cv_check(table).in_band),
        "null": gaussian_volume_cv(DIMS),
        "dims": dims,
        "by dims": [volume_cv(table[:, :each], simplices).cv for each in dims],
        "by dims null": [gaussian_volume_cv(each) for each in dims],
    }


def parameter_readings(model: HookedModel, ids: Tensor, mask: Tensor) -> Readings:
    """Parameters at T5-small's sizes, and which of a field on ``model`` its output depends on.

    Counted are those whose gradient at an ordinary input is above rounding: what gradient the
    first expert's deformation gets is. In float64, as in float32 it is as large as real ones.
    """
    model = copy.deepcopy(model).double()
    field = published_field(model).double()
    with attach(model, FieldModulator(field)):
        output = model(ids, attention_mask=mask)
    states = output if isinstance(output, Tensor) else output.last_hidden_state
    states.square().sum().backward()
    gradients = {name: p.grad for name, p in field.named_parameters()}
    largest = max(float(grad.abs().max()) for grad in gradients.values() if grad is not None)
    reaching = sum(
        int((grad.abs() > 1e-12 * largest).sum()) for grad in gradients.values() if grad is not None
    )
    return {
        "published": sum(p.numel() for p in SimplexField(template="published").parameters()),
        "here": sum(p.numel() for p in field.parameters()),
        "reaching the output": reaching,
    }


def gain(runs: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> list[float]:
    """How much lower the word's NLL of ``runs`` ends than that of ``others`` (nats), by seed."""
    return [b["lemma_nll"] - a["lemma_nll"] for a, b in zip(runs, others, strict=True)]
