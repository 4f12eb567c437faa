"""Pictures of modulators' training: what is drawn where, and that nothing hides."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from probekit.plotting import series_style
from probekit.terrain import field_pictures as field
from probekit.training import modulator_pictures as draw


def run(start: float, first: float, last: float) -> dict:
    epochs = [
        {"train_loss": None if loss is first else loss, "val_loss": loss, "lemma_nll": loss / 2}
        for loss in (first, last)
    ]
    return {
        "at": [0, 10],
        "alpha": [[start, start], [start * 1.1, start * 0.9]],
        "band": [[start, start], [start * 0.8, start * 1.2]],
        "epochs": epochs,
        "lemma_nll": last / 2,
    }


RUNS = {start: [run(start, 9.0, 8.0) for _ in range(2)] for start in (0.01, 0.5)}


def labels(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_styles_differ_in_more_than_colour() -> None:
    styles = [series_style(index) for index in range(6)]
    assert len({style["color"] for style in styles}) == 6
    assert len({(style["marker"], style["linestyle"]) for style in styles}) == 6
    assert series_style(6)["color"] == styles[0]["color"]


def test_alpha_is_drawn_before_the_reach_of_its_start() -> None:
    axis = draw.alpha_figure(RUNS).axes[0]
    assert len(axis.collections) == 2  # a band a start
    names = [text.get_text() for text in axis.get_legend().get_texts()]
    assert names == ["from 0.01: 0.008 to 0.012", "from 0.5: 0.4 to 0.6"]
    ticks = [text.get_text() for text in axis.get_yticklabels()]
    assert ticks == ["0.01", "0.03", "0.1", "0.29154", "0.5"]  # those that lie in the picture
    low, high = axis.get_ylim()
    ends = draw.ends_figure(RUNS).axes[0]
    assert ends.get_ylim()[0] < np.log(0.008 / 0.992) and low < high


def test_losses_of_one_size_have_a_plain_scale() -> None:
    near = {"masked from 0.01": RUNS[0.01]}
    figure = draw.loss_figure(near)
    assert figure.axes[0].get_yscale() == "linear" and labels(figure) == list(near)
    far = near | {"published from 0.01": [run(0.01, 80.0, 60.0)]}
    assert draw.loss_figure(far).axes[0].get_yscale() == "log"
    assert labels(draw.loss_figure(far)) == list(far)


def test_a_loss_of_0_is_drawn_at_the_bottom() -> None:
    axis = draw.silence_figure({"published": [10.0, 0.0], "repaired": [9.0, 3.0]}).axes[0]
    assert axis.lines[0].get_ydata() == pytest.approx([10, 1e-9])
    low, high = axis.get_ylim()
    assert low < 1e-9 and high > 100  # the legend lies above every curve


def test_fields_are_drawn_by_their_start() -> None:
    arms = {0.01: {"published": RUNS[0.01], "constant": RUNS[0.01]}, 0.3: {"room": RUNS[0.5]}}
    for figure in (
        field.training_figure(arms, 4.5),
        field.alpha_figure(
            {k: {a: [{"alpha": [[k, k]]}] for a in each} for k, each in arms.items()}
        ),
    ):
        assert [axis.get_title() for axis in figure.axes] == ["alpha from 0.01", "alpha from 0.3"]
        names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        assert names[1:] == ["published", "constant"]
    gates = {
        gate: {"1": {"gate_std": 0.0}, "2": {"gate_std": 0.5}} for gate in ("simplex", "constant")
    }
    shown = [text.get_text() for text in field.gates_figure(gates).axes[0].texts]
    assert shown == ["0", "0.5"] * 2  # a bar of height 0 has its number
