"""Figures of trainings and of what the experiments have in common: means over seeds, with their standard errors.

Needs matplotlib, which is imported when a figure is drawn: `pip install 'igbfast[plot]'`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from .._figure import (
    COLOURS,
    DASHES,
    GREY,
    MARKERS,
    POINT_STYLE,
    STYLE,
    cycled,
    require_matplotlib,
    require_variable,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .training import Training

__all__ = [
    "add_footnote",
    "draw_expected",
    "draw_fair_share",
    "draw_over_steps",
    "draw_points",
    "mark_plainly",
    "mean_and_error",
    "set_steps",
    "style_of",
    "training",
    "with_error",
]

TRAINING_WORDS = {
    "loss": "loss",
    "accuracy": "accuracy",
    "largest_fraction": "largest class fraction",
}


def training(runs: Training | xr.Dataset | Sequence[Training | xr.Dataset], labels: Sequence[str] = ()) -> Figure:
    """One figure of loss, accuracy and largest class fraction over the steps, for one training or several.

    Parameters
    ----------
    runs : Training or xarray.Dataset, or a sequence of them
        What `igbfast.torch.train` returned, or the dataset that it saved. The accuracy is that on the test set where
        there is one (then that on the training set is dashed).
    labels : sequence of str, optional
        One for each in the legend; the models' names if not given.

    Returns
    -------
    matplotlib.figure.Figure
        Made by pyplot, so `matplotlib.pyplot.show()` shows it.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    TypeError, ValueError
        If there is nothing to draw or something else, or not as many labels.

    Examples
    --------
    >>> import igbfast as igb
    >>> from igbfast.torch import MLP, data, plot, train
    >>> model = MLP(igb.Ensemble("tanh", sigma_w2=1.76, sigma_b2=0.05), width=50, depth=5, features=64)
    >>> run = train(model, data.digits(), steps=20)
    >>> plot.training(run).savefig("training.png")  # doctest: +SKIP
    """
    require_matplotlib()
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    each = list(runs) if isinstance(runs, Sequence) else [runs]
    datasets: list[Any] = [getattr(run, "dataset", run) for run in each]
    for dataset in datasets:
        require_variable(dataset, "class_fraction", "train")
    if not datasets:
        raise ValueError("runs must be at least one training, got none")
    names = list(labels) if labels else [str(dataset.attrs.get("model", "model")) for dataset in datasets]
    if len(names) != len(datasets):
        raise ValueError(f"labels must be as many as runs, got {len(names)} for {len(datasets)}")
    with mpl.rc_context(STYLE):
        figure = plt.figure(figsize=(9.6, 3.2), layout="constrained")
        axes = figure.subplots(1, 3, sharex=True)
        for index, (dataset, name) in enumerate(zip(datasets, names, strict=True)):
            _draw_training(axes, dataset, name, index)
        for ax in axes:
            set_steps(ax)
        _, _, shares = axes
        draw_fair_share(shares, datasets[0])
        if len(names) > 1:
            figure.legend(*shares.get_legend_handles_labels(), loc="outside upper center", ncols=min(len(names), 4))
    return figure


def _draw_training(axes: Any, dataset: xr.Dataset, label: str, index: int) -> None:
    colour, steps = cycled(COLOURS, index), dataset["step"].values
    tested = "test_accuracy" in dataset
    for ax, name in zip(axes, TRAINING_WORDS, strict=False):
        ax.set_ylabel(TRAINING_WORDS[name])
        if name == "largest_fraction":
            ax.plot(steps, dataset["class_fraction"].max("class"), color=colour, label=label)
            continue
        ax.plot(steps, dataset[name], color=colour, label=label, linestyle=DASHES[1] if tested else "-")
        if tested:
            ax.plot(steps, dataset[f"test_{name}"], color=colour)
            ax.set_ylabel(f"{TRAINING_WORDS[name]}: test, training (dashed)")
    for ax in axes[1:]:
        ax.set_ylim(-0.03, 1.03)


# ---- What experiments share ------------------------------------------------------------------------------------------


def style_of(index: int) -> dict[str, Any]:
    """Colour and dashes of the line of that number."""
    return {"color": cycled(COLOURS, index), "linestyle": cycled(DASHES, index)}


def mean_and_error(values: xr.DataArray, over: str = "seed") -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean over the seeds, and its standard error (nan for one seed); seeds without a number are left out."""
    count, mean = values.notnull().sum(over), values.mean(over)
    squares = ((values - mean) ** 2).sum(over)
    error = np.sqrt(squares / (count * (count - 1)).where(count > 1))
    return mean.values, error.values


def with_error(values: xr.DataArray) -> str:
    """Mean over the seeds ± standard error, of one number for each."""
    mean, error = (float(number) for number in mean_and_error(values))
    return f"{mean:.3f} ± {error:.3f}" if np.isfinite(error) else f"{mean:.3f}"


def add_footnote(
    figure: Figure, dataset: xr.Dataset, more: str, *, sizes: Sequence[str] = ("width", "depth"), model: str = "mlp"
) -> None:
    """What was run, in small print below: the settings of our networks, or the name of another model."""
    attrs = dataset.attrs
    named = [f"{name} {attrs[name]}" for name in sizes]
    words = [attrs["activation"], rf"$\sigma_b^2 = {attrs['sigma_b2']:g}$", *named] if model == "mlp" else [model]
    count = dataset.sizes["seed"]
    each = "1 network each" if count == 1 else f"{count} networks each"
    figure.supxlabel(f"{', '.join(words)}, {attrs['data']}, {each}; {more}", fontsize=8)


def draw_over_steps(ax: Axes, values: xr.DataArray, label: str, index: int) -> None:
    """The mean over the dimension `seed` as a line over `step`, its standard error as a band."""
    mean, error = mean_and_error(values)
    steps = values["step"].values
    ax.fill_between(steps, mean - error, mean + error, color=cycled(COLOURS, index), alpha=0.2, linewidth=0)
    ax.plot(steps, mean, label=label, **style_of(index))


def draw_expected(ax: Axes, value: float, index: int) -> None:
    """Theory of the untrained networks, as an open point at step 0."""
    style = {"markerfacecolor": "white", "color": cycled(COLOURS, index), "markersize": 5.0, "zorder": 4}
    ax.plot(0.0, value, cycled(MARKERS, index), clip_on=False, **style)


def draw_points(ax: Axes, at: Any, values: xr.DataArray, label: str, index: int, **style: Any) -> None:
    """The mean over `seed` as points, its standard error as bars."""
    mean, error = mean_and_error(values)
    ax.errorbar(
        at,
        mean,
        error,
        fmt=cycled(MARKERS, index),
        label=label,
        **(POINT_STYLE | {"color": cycled(COLOURS, index)} | style),
    )


def draw_fair_share(ax: Axes, dataset: xr.Dataset) -> None:
    """A dotted line at 1 / classes."""
    ax.axhline(1.0 / dataset.sizes["class"], color=GREY, linewidth=0.8, linestyle=":", zorder=0)


def set_steps(ax: Axes) -> None:
    """An axis over the steps, logarithmic from the first one on, with room for step 0."""
    from matplotlib.ticker import FuncFormatter, NullLocator, SymmetricalLogLocator

    ax.set_xscale("symlog", linthresh=1.0, linscale=0.4)
    ax.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1.0))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.set_xlabel("step")
    ax.set_xlim(left=-0.15)


def mark_plainly(ax: Axes, ticks: Sequence[float] = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)) -> None:
    """Ticks of a logarithmic axis, as plain numbers."""
    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

    low, high = ax.get_xlim()
    ax.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if low < tick < high]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
