"""``weight_battery``: every number of this package, of one model, each beside its null.

Matrices are read one at a time, so that a folder of shards of any size needs the memory of its
largest matrix in float64, two or three times over, and of 128 MiB more. Time goes into the singular
values of each matrix and of each published query-key product.

For a model of the same shape that knows nothing, run it on ``pk.random_twin(model, seed)``.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from .attention_tables import layer_tables, qk_tables
from .sources import WeightSource, read_weights
from .tables import (
    neuron_tables,
    norm_table,
    pooled_spectra,
    position_bias_table,
    spectra_and_sparsity,
)


@dataclass(frozen=True, eq=False)
class WeightBattery:
    """Tidy tables; beside a column ``x`` stands ``x_null``, and ``x_null_sd`` where it has one.

    ``spectra``          a row a matrix of the layers: :class:`~probekit.weights.SpectrumStats`
    ``spectra_pooled``   by type and statistic: published mean over matrices, median, null
    ``sparsity``         a row a matrix, embeddings and heads included
    ``sparsity_pooled``  all weights of a type together; "all" is the whole model's matrices
    ``qk``               a row a head: the circuit with biases and norm scales, and ``_raw`` without
    ``published_qk``     a row an attention: the write-up's [inner, inner] product
    ``neurons``          a row an MLP: dead and weak by weights, with Wilson's interval
    ``neurons_pooled``   the same over all layers of a stack
    ``layers``           a row a pair of layers: cosine and z, of weights and of circuits
    ``layers_pooled``    mean and range over neighbouring layers
    ``norms``            a row a norm
    ``position_bias``    a row a head of a relative position bias

    A table is empty where the model has nothing of the kind; ``notes`` say what was left out.
    """

    name: str
    spectra: pd.DataFrame
    spectra_pooled: pd.DataFrame
    sparsity: pd.DataFrame
    sparsity_pooled: pd.DataFrame
    qk: pd.DataFrame
    published_qk: pd.DataFrame
    neurons: pd.DataFrame
    neurons_pooled: pd.DataFrame
    layers: pd.DataFrame
    layers_pooled: pd.DataFrame
    norms: pd.DataFrame
    position_bias: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables by name."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, pd.DataFrame)}

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {len(table)}" for name, table in self.tables.items())
        notes = "".join(f"\n  {note}" for note in self.notes)
        return f"WeightBattery({self.name!r}: rows of {sizes}){notes}"

    def _repr_html_(self) -> str:
        parts = [f"<b>{self.name}</b>", *(f"<p>{note}</p>" for note in self.notes)]
        for name, table in self.tables.items():
            if len(table):
                html = table.to_html(index=False, max_rows=12, float_format="%.4g")
                parts.append(f"<details><summary>{name} ({len(table)})</summary>{html}</details>")
        return "".join(parts)


def weight_battery(
    source: Any,
    *,
    heads: int | None = None,
    progress: bool = True,
) -> WeightBattery:
    """Run the battery over a model, a Hugging Face config, or a folder of safetensors files.

    Args:
        source: see :func:`probekit.weights.read_weights`.
        heads: query heads of every stack, where no config says.
        progress: whether to show a bar for each pass.

    Raises:
        ProbekitError: as :func:`probekit.weights.read_weights`.
    """
    if not isinstance(source, WeightSource):
        source = read_weights(source, heads=heads)

    def shown(items: list[Any], what: str) -> Iterable[Any]:
        from tqdm.auto import tqdm

        return tqdm(items, desc=what, disable=not progress)

    with torch.no_grad():
        spectra, sparsity, sparsity_pooled = spectra_and_sparsity(source, shown)
        qk, published = qk_tables(source, shown)
        neurons, neurons_pooled = neuron_tables(source, shown)
        layers, layers_pooled = layer_tables(source, shown)
        return WeightBattery(
            source.name,
            spectra,
            pooled_spectra(spectra),
            sparsity,
            sparsity_pooled,
            qk,
            published,
            neurons,
            neurons_pooled,
            layers,
            layers_pooled,
            norm_table(source),
            position_bias_table(source),
            _notes(source, published),
        )


def _notes(source: WeightSource, published: pd.DataFrame) -> tuple[str, ...]:
    notes = []
    unknown = [stack or "the model" for stack in source.stacks if source.heads[stack] is None]
    if unknown:
        notes.append(
            f"the number of heads of {', '.join(unknown)} is unknown, so that circuits are left "
            "out; pass heads="
        )
    if not len(published):
        notes.append("the published query-key product does not exist where heads share keys")
    return tuple(notes)
