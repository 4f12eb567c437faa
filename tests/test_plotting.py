"""Pictures: the drawn data are the measured ones."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from test_measurement import measured

import probekit as pk


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def test_layer_by_head_is_a_picture_with_the_null_in_its_colour_bar():
    constant = torch.full((2, 3), 0.625, dtype=torch.float64)
    axes = measured(null=constant).plot()
    (image,) = axes.images
    np.testing.assert_array_equal(image.get_array(), measured().values.numpy())
    assert [label.get_text() for label in axes.get_yticklabels()] == ["3", "5"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "2"]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("layer", "head")
    assert axes.get_title() == "null 0.625: uniform attention (red)"
    bar = image.colorbar.ax
    assert bar.get_ylabel() == "vdi [fraction of ln T]"
    red = [line for line in bar.lines if line.get_color() == "red"]
    assert [set(line.get_ydata()) for line in red] == [{0.625}]


def test_a_null_that_differs_between_heads_has_no_line():
    axes = measured().plot()
    (image,) = axes.images
    assert axes.get_title() == ""
    assert not [line for line in image.colorbar.ax.lines if line.get_color() == "red"]


def test_a_null_outside_of_the_values_is_visible_all_the_same():
    axes = measured(null=torch.tensor(2.0)).plot()
    (image,) = axes.images
    low, high = image.colorbar.ax.get_ylim()
    assert low <= 2.0 <= high


def test_values_that_are_all_their_null():
    constant = torch.full((2, 3), 0.611992)
    axes = measured(values=constant, null=constant).plot()
    axes.figure.canvas.draw()
    np.testing.assert_array_equal(axes.images[0].get_array(), constant.numpy())


def test_one_dimension_is_a_line_with_its_null_dashed():
    values = torch.tensor([[0.5, 0.75, 0.25]])
    one = measured(values=values, null=torch.tensor(0.6), coords={"layer": [0], "head": [0, 1, 2]})
    axes = one.plot()
    line, null = axes.lines
    assert list(line.get_ydata()) == [0.5, 0.75, 0.25]
    np.testing.assert_allclose(null.get_ydata(), [0.6] * 3)
    assert null.get_linestyle() == "--"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("head", "vdi [fraction of ln T]")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "vdi",
        "null: uniform attention",
    ]


def test_it_draws_into_the_axes_that_it_is_given():
    _, axes = plt.subplots()
    assert measured().plot(axes) is axes
    assert len(plt.get_fignums()) == 1


def test_stacks_are_named_at_their_rows(built):
    family = built("t5")
    with pk.attach(family.model, pk.VDI()) as run:
        family.run()
    axes = run["vdi"].plot()
    (image,) = axes.images
    np.testing.assert_array_equal(image.get_array(), run["vdi"].values.reshape(6, 4).numpy())
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "encoder.0",
        "encoder.1",
        "decoder.0",
        "decoder.1",
        "decoder.cross.0",
        "decoder.cross.1",
    ]


def test_more_dimensions_than_a_picture_holds():
    values = torch.ones(2, 2, 2)
    coords = {"layer": [0, 1], "head": [0, 1], "query": [0, 1]}
    three = measured(values=values, dims=tuple(coords), coords=coords, null=values)
    with pytest.raises(pk.ProbekitError) as error:
        three.plot()
    assert str(error.value) == (
        "measurement 'vdi' has dimensions ('layer', 'head', 'query'); a picture holds two: plot a "
        "part of to_frame() instead"
    )
