import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import probekit as pk
from probekit.measurement import Measurement, padded


def measured(**changes) -> Measurement:
    fields = {
        "name": "vdi",
        "values": torch.tensor([[0.5, 0.25, 1.0], [0.75, 0.5, 0.0]], dtype=torch.float64),
        "dims": ("layer", "head"),
        "coords": {"layer": [3, 5], "head": [0, 1, 2]},
        "units": "fraction of ln T",
        "null": torch.tensor([[0.5], [0.25]], dtype=torch.float64),
        "null_name": "uniform attention",
        "provenance": {"probe": "VDI()", "forwards": 2},
    }
    return Measurement(**{**fields, **changes})


def test_excess_is_values_minus_null():
    assert measured().excess.tolist() == [[0, -0.25, 0.5], [0.5, 0.25, -0.25]]


def test_excess_without_a_null_gives_the_reason():
    bare = measured(null=None, null_reason="raw activations")
    with pytest.raises(pk.ProbekitError) as error:
        _ = bare.excess
    assert str(error.value) == "measurement 'vdi' has no null: raw activations"


def test_a_null_is_never_silently_missing():
    with pytest.raises(pk.ProbekitError) as error:
        measured(null=None)
    assert str(error.value) == (
        "measurement 'vdi' has no null; give null= or say why in null_reason="
    )


@pytest.mark.parametrize(
    ("changes", "lengths"),
    [
        ({"coords": {"layer": [3], "head": [0, 1, 2]}}, (1, 3)),
        ({"coords": {"layer": [3, 5]}}, (2, 0)),
        ({"dims": ("layer",)}, (2,)),
    ],
)
def test_coordinates_fit_the_values(changes, lengths):
    with pytest.raises(pk.ProbekitError) as error:
        measured(**changes)
    dims = changes.get("dims", ("layer", "head"))
    assert str(error.value) == (
        f"measurement 'vdi': values have shape (2, 3), but the coordinates of {dims} have lengths "
        f"{lengths}"
    )


def test_to_frame_is_tidy():
    expected = pd.DataFrame(
        {
            "layer": [3, 3, 3, 5, 5, 5],
            "head": [0, 1, 2, 0, 1, 2],
            "value": [0.5, 0.25, 1, 0.75, 0.5, 0],
            "null": [0.5, 0.5, 0.5, 0.25, 0.25, 0.25],
        }
    )
    pd.testing.assert_frame_equal(measured().to_frame(), expected)


def test_to_frame_leaves_out_coordinates_that_do_not_exist_and_keeps_nan_readings():
    values = torch.tensor([[1.0, math.nan], [math.nan, 2.0]])
    null = torch.tensor([[0.5, 0.25], [math.nan, 0.5]])
    two = {"coords": {"layer": [0, 1], "head": [0, 1]}}
    frame = measured(values=values, null=null, **two).to_frame()
    # (0, 1) has a null and no value: it exists. (1, 0) has neither.
    assert frame[["layer", "head"]].values.tolist() == [[0, 0], [0, 1], [1, 1]]


def test_to_frame_without_a_null_has_no_such_column():
    bare = measured(null=None, null_reason="none")
    assert list(bare.to_frame().columns) == ["layer", "head", "value"]


def test_repr_and_html():
    assert repr(measured()) == (
        "Measurement('vdi', layer=2, head=3, 0 to 1 fraction of ln T, null 0.25 to 0.5)"
    )
    constant = measured(values=torch.full((2, 3), 0.611992), null=None, null_reason="none")
    assert repr(constant) == (
        "Measurement('vdi', layer=2, head=3, 0.611992 fraction of ln T, no null)"
    )
    html = measured()._repr_html_()
    assert html.startswith("<b>vdi</b> [fraction of ln T] &middot; null: uniform attention<table")
    assert html.count("<tr") == 7


def equal(one: Measurement, two: Measurement) -> None:
    torch.testing.assert_close(one.values, two.values, rtol=0, atol=0, equal_nan=True)
    assert one.values.dtype == two.values.dtype
    assert (one.null is None) == (two.null is None)
    if one.null is not None:
        torch.testing.assert_close(one.null, two.null, rtol=0, atol=0, equal_nan=True)
    for name in ("name", "dims", "units", "null_name", "null_reason"):
        assert getattr(one, name) == getattr(two, name)
    assert {k: list(v) for k, v in one.coords.items()} == {
        k: list(v) for k, v in two.coords.items()
    }
    assert dict(one.provenance) == dict(two.provenance)
    assert (one.rows is None) == (two.rows is None)
    if one.rows is not None:
        equal(one.rows, two.rows)


@given(
    shape=st.lists(st.integers(1, 4), min_size=0, max_size=3),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    has_null=st.booleans(),
    has_rows=st.booleans(),
)
def test_saved_and_loaded_is_the_same(tmp_path, shape, dtype, has_null, has_rows):
    dims = ("layer", "head", "query")[: len(shape)]
    values = torch.randn(shape).to(dtype)
    fields = {
        "values": values,
        "dims": dims,
        "coords": {dim: range(size) for dim, size in zip(dims, shape, strict=True)},
        "null": torch.tensor(0.5).expand(shape) if has_null else None,
        "null_reason": None if has_null else "none",
    }
    rows = measured(name="vdi.rows") if has_rows else None
    original = measured(**fields, rows=rows)
    path = original.save(tmp_path / "result.safetensors")
    equal(Measurement.load(path), original)
    assert [file.name for file in tmp_path.iterdir()] == ["result.safetensors"]


def test_values_that_are_views_are_saved_right(tmp_path):
    values = torch.arange(6.0).reshape(3, 2).T
    original = measured(values=values, null=values)
    equal(Measurement.load(original.save(tmp_path / "m")), original)


def test_a_failed_save_leaves_what_was_there(tmp_path, monkeypatch):
    path = measured().save(tmp_path / "m")
    before = path.read_bytes()
    with pytest.raises(TypeError):
        measured(provenance={"probe": object()}).save(path)

    def full(*args: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("probekit.runs.os.replace", full)
    with pytest.raises(pk.ProbekitError, match="no space"):
        measured(units="nats").save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_what_is_no_saved_measurement(tmp_path):
    other = tmp_path / "weights.safetensors"
    save_file({"w": torch.ones(2)}, other)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(measured().save(tmp_path / "m").read_bytes()[:100])
    for path in (tmp_path / "missing", other, damaged, Path("/")):
        with pytest.raises(pk.ProbekitError) as error:
            Measurement.load(path)
        start = f"{path} is not a saved measurement: " if path == other else f"cannot read {path}: "
        assert str(error.value).startswith(start)


def test_a_real_measurement_survives_saving(built, tmp_path):
    family = built("clip")
    with pk.attach(family.model, pk.VDI()) as run:
        family.run()
    result = run["vdi"]
    equal(Measurement.load(result.save(tmp_path / "m")), result)
    assert result.provenance == {"probe": "VDI()"}


def test_padded_fills_with_nan_at_the_end_of_each_axis():
    filled = padded(torch.ones(1, 2), (2, 3))
    assert filled.isnan().tolist() == [[False, False, True], [True, True, True]]
    assert filled[0, :2].tolist() == [1, 1]
