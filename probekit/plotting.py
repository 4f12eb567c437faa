"""Pictures of measurements. Every function draws into an Axes and returns it."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ProbekitError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .measurement import Measurement

#: Colours that colour-blind readers tell apart: Okabe and Ito 2008, "Color Universal Design".
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "x")
_LINES = ("-", "--", "-.", ":")


def series_style(index: int) -> dict[str, Any]:
    """Colour, mark and line of a picture's series, counted from 0, so that grey tells them too."""
    return {
        "color": PALETTE[index % len(PALETTE)],
        "marker": _MARKERS[index % len(_MARKERS)],
        "linestyle": _LINES[index % len(_LINES)],
    }


def plot_measurement(measurement: "Measurement", ax: "Axes | None" = None) -> "Axes":
    """Layer by head as an annotated picture; one dimension as a line, with the null dashed.

    Raises:
        ProbekitError: more dimensions than a picture holds; select some of them first.
    """
    import matplotlib.pyplot as plt

    axes = ax if ax is not None else plt.subplots(figsize=(6, 4))[1]
    values = measurement.values.detach().cpu().double().numpy()
    sizes = [size for size in values.shape if size > 1] or [1]
    if len(sizes) == 1:
        _draw_line(measurement, values, axes)
    elif values.ndim == 2 or (values.ndim == 3 and measurement.dims[0] == "stack"):
        _draw_grid(measurement, values, axes)
    else:
        raise ProbekitError(
            f"measurement {measurement.name!r} has dimensions {measurement.dims}; a picture holds "
            "two: plot a part of to_frame() instead"
        )
    return axes


def _draw_line(measurement: "Measurement", values: np.ndarray, axes: "Axes") -> None:
    dim = max(measurement.dims, key=lambda name: len(measurement.coords[name]), default="")
    labels = [str(label) for label in measurement.coords.get(dim, [""])]
    axes.plot(labels, values.reshape(-1), "o-", label=measurement.name)
    if measurement.null is not None:
        null = measurement.null.expand_as(measurement.values).detach().cpu().double()
        axes.plot(labels, null.numpy().reshape(-1), "k--", label=f"null: {measurement.null_name}")
        axes.legend()
    axes.set_xlabel(dim)
    axes.set_ylabel(f"{measurement.name} [{measurement.units}]")


def _draw_grid(measurement: "Measurement", values: np.ndarray, axes: "Axes") -> None:
    row_dims, column_dim = measurement.dims[:-1], measurement.dims[-1]
    grid = values.reshape(-1, values.shape[-1])
    null = measurement.null
    nulls = [] if null is None else null.detach().cpu().double().unique().tolist()
    one = nulls if len(nulls) == 1 else []
    shown = np.append(grid, one)  # the colour bar must reach the null
    image = axes.imshow(
        grid, aspect="auto", cmap="viridis", vmin=np.nanmin(shown), vmax=np.nanmax(shown)
    )
    bar = axes.figure.colorbar(image, ax=axes, label=f"{measurement.name} [{measurement.units}]")
    for value in one:
        # Over the frame, which would hide a null at the end of the scale.
        bar.ax.axhline(value, color="red", linewidth=3, clip_on=False, zorder=10)
        axes.set_title(f"null {value:.6g}: {measurement.null_name} (red)", fontsize=9)
    if "stack" in row_dims:
        stacks, layers = (measurement.coords[dim] for dim in row_dims)
        labels = [f"{stack or 'blocks'}.{layer}" for stack in stacks for layer in layers]
    else:
        labels = [str(label) for label in measurement.coords[row_dims[0]]]
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylabel(" ".join(row_dims))
    axes.set_xlabel(column_dim)
    columns = measurement.coords[column_dim]
    axes.set_xticks(range(len(columns)), [str(label) for label in columns])
