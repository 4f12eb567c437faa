"""Interventions and probes on a GPU and in bfloat16: causal there too, and gone afterwards."""

import dataclasses
from typing import Any

import families
import matrix
import pytest
import torch
from checks import unchanged

import probekit as pk

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
PLACES = [
    pytest.param("cpu", torch.bfloat16, id="cpu-bfloat16"),
    pytest.param("cuda", torch.float32, id="cuda-float32", marks=GPU),
    pytest.param("cuda", torch.bfloat16, id="cuda-bfloat16", marks=GPU),
]
COLUMNS = [c for c in matrix.COLUMNS if c.title in ("native", "BERT", "T5 cross", "CLIP vision")]
ON_CPU = ("HeadScale", "SetPattern", "Clamp norm", "FieldModulator", "SwapWeights Q")


def moved(name: str, device: str, dtype: torch.dtype) -> families.Family:
    """A family's model and inputs, elsewhere; ids stay whole numbers."""

    def to(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return value.to(device, dtype) if value.is_floating_point() else value.to(device)

    family = families.ALL[name]()
    family.model.to(device=device, dtype=dtype)
    kwargs = {key: to(value) for key, value in family.kwargs.items()}
    return dataclasses.replace(family, args=tuple(map(to, family.args)), kwargs=kwargs)


@pytest.mark.parametrize(("device", "dtype"), PLACES)
@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.title)
def test_interventions_are_causal_and_leave_no_trace(column, device, dtype) -> None:
    family = moved(column.family, device, dtype)
    rows = [row for row in matrix.ROWS if device != "cpu" or row.name in ON_CPU]
    with unchanged(family):
        cells = {row.name: matrix.cell(row, column, family) for row in rows}
    refused = {name for name, cell in cells.items() if cell != "causal"}
    assert refused <= {"Lerp", "SwapWeights UNEMBED"}  # where there are no tokens, no such part


@pytest.mark.parametrize(("device", "dtype"), PLACES)
def test_probes_read_what_they_read_on_the_cpu(device, dtype) -> None:
    probes = [pk.VDI(), pk.ResidualStats(), pk.AttentionEntropy(name="entropy")]
    found = []
    for family in (families.bert(), moved("bert", device, dtype)):
        with torch.no_grad(), pk.attach(family.model, *probes) as run:
            family.model(*family.args, **family.kwargs)
        found.append(run)
    close = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.1, "atol": 0.05}
    for name in found[0]:
        first, second = (run[name].values.double().cpu() for run in found)
        torch.testing.assert_close(second, first, **close)


@GPU
def test_the_weight_battery_of_a_model_on_a_gpu() -> None:
    on_cpu, on_gpu = (
        pk.weights.weight_battery(model, progress=False)
        for model in (families.bert().model, moved("bert", "cuda", torch.float32).model)
    )
    for name in ("spectra", "qk", "neurons"):
        numbers = [
            table.select_dtypes("number") for table in (on_cpu.tables[name], on_gpu.tables[name])
        ]
        assert ((numbers[0] - numbers[1]).abs() <= 1e-4 + 1e-3 * numbers[0].abs()).all(axis=None)
