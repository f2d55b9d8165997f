"""Squared gradients by layer, of all inputs and by class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ._figure import (
    BLACK,
    BLUE,
    POINT_STYLE,
    POINTS,
    STYLE,
    VERMILLION,
    ensemble_title,
    new_axes,
    require_matplotlib,
    require_networks,
    same_ensemble,
)
from ._gradient_theory import squared_gradients
from .ensemble import Ensemble
from .meanfield import propagate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "gradients",
    "gradients_by_class",
]

_GRADIENT_DECADES = 20
_POINT_DECADES = 80


def gradients(dataset: xr.Dataset, *, ens: Ensemble | None = None, ax: Axes | None = None) -> Axes:
    """Draw the squared gradients by layer: width times the mean square over nodes, which has a limit as width grows.

    Parameters
    ----------
    dataset : xarray.Dataset
        What `simulate` returned with gradients. Points are medians over its networks, the band holds 90 % of them; of a
        single network, the mean over its inputs, and 90 % of these.
    ens : Ensemble, optional
        That of the networks: theory, g^(l) = chi(q^(l)) g^(l+1), is drawn as a line from the loss backwards. Without it
        the line goes through the point of the last layer, by products of the chi that were measured.
    ax : matplotlib.axes.Axes, optional
        Where to draw; new ones if not given.

    Returns
    -------
    matplotlib.axes.Axes
        Those drawn on.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    TypeError, ValueError
        If `dataset` is something else or has no gradients, or `ens` is another ensemble.

    Examples
    --------
    >>> import igbfast as igb
    >>> ens = igb.Ensemble("tanh", sigma_w2=2.5, sigma_b2=0.05)
    >>> ds = igb.simulate(ens, width=300, depth=20, networks=8, gradients="cross_entropy")
    >>> igb.plot.gradients(ds, ens=ens).figure.savefig("gradients.png")  # doctest: +SKIP
    """
    require_matplotlib()
    import matplotlib as mpl

    require_networks(dataset, "gradient", "simulate(..., gradients=...)")
    theory, label = _gradient_line(dataset, ens)
    width, layers = dataset.attrs["width"], dataset["layer"].values
    if dataset.sizes["network"] > 1:
        low, middle, high = width * _spread(dataset["gradient"].values)
        of = "networks"
    else:
        low, high = width * dataset["gradient_quantile"].isel(network=0).sel(quantile=[0.05, 0.95]).values.T
        middle, of = width * dataset["gradient"].values[0], "inputs"
    with mpl.rc_context(STYLE):
        ax = new_axes() if ax is None else ax
        ax.fill_between(layers, low, high, color=BLUE, alpha=0.2, linewidth=0, label=f"90 % of the {of}")
        ax.plot(layers, theory, color=BLACK, label=label)
        _draw_points(ax, layers, middle, BLUE, "o", "simulation")
        _set_gradient_scale(ax, np.concatenate([theory, low, high]), middle)
        ax.set_title(ensemble_title(dataset))
        ax.legend(handlelength=2.0)
    return ax


def gradients_by_class(dataset: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw the squared gradients of the inputs labelled with the class that the network favours, and of all others.

    Parameters
    ----------
    dataset : xarray.Dataset
        What `simulate` returned with `gradients="cross_entropy"`. Points are medians over its networks, the bands hold
        90 % of them. Arrows at the lower edge stand for medians that are smaller by eighty decades and more.
    ax : matplotlib.axes.Axes, optional
        Where to draw; new ones if not given.

    Returns
    -------
    matplotlib.axes.Axes
        Those drawn on.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    TypeError, ValueError
        If `dataset` is something else or has no gradients by class.

    Examples
    --------
    >>> import igbfast as igb
    >>> ens = igb.Ensemble("relu", sigma_w2=3.0)
    >>> ds = igb.simulate(ens, width=300, depth=8, networks=8, gradients="cross_entropy", classes=3)
    >>> igb.plot.gradients_by_class(ds).figure.savefig("classes.png")  # doctest: +SKIP
    """
    require_matplotlib()
    import matplotlib as mpl

    require_networks(dataset, "gradient_class", "simulate(..., gradients='cross_entropy')")
    by_class = dataset.attrs["width"] * dataset["gradient_class"]
    is_favoured = dataset["class"] == dataset["favoured"]
    layers = dataset["layer"].values
    with mpl.rc_context(STYLE):
        ax = new_axes() if ax is None else ax
        shown, medians = [], []
        for these, colour, marker, label in (
            (is_favoured, VERMILLION, "s", "inputs of the favoured class"),
            (~is_favoured, BLUE, "o", "inputs of the others"),
        ):
            values = by_class.where(these).mean("class").values
            low, middle, high = _spread(values[np.isfinite(values).all(axis=1)])
            if len(values) > 1:
                ax.fill_between(layers, low, high, color=colour, alpha=0.2, linewidth=0)
            ax.plot(layers, middle, color=colour, linewidth=1.0)
            _draw_points(ax, layers, middle, colour, marker, label)
            shown += [low, high]
            medians.append(middle)
        _set_gradient_scale(ax, np.concatenate(shown), np.concatenate(medians))
        for points, colour in zip(medians, (VERMILLION, BLUE), strict=True):
            _mark_below(ax, layers, points, colour)
        ax.set_title(ensemble_title(dataset))
        ax.legend(handlelength=1.0)
    return ax


def _gradient_line(dataset: xr.Dataset, ens: Ensemble | None) -> tuple[NDArray[np.float64], str]:
    """Theory, or what the measured chi say, and its name."""
    attrs = dataset.attrs
    if ens is not None:
        trajectory = propagate(same_ensemble(dataset, ens), dataset.sizes["layer"])
        return squared_gradients(ens, trajectory, attrs["gradients"], attrs["classes"]), "theory, infinite width"
    chi = np.append(dataset["chi"].mean("network").values[:-1], 1.0)
    last = attrs["width"] * np.median(dataset["gradient"].values[:, -1])
    with np.errstate(over="ignore", under="ignore"):
        return last * np.cumprod(chi[::-1])[::-1], r"products of the measured $\chi$"


def _spread(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quantiles 5, 50 and 95 % over the networks, positive for a logarithmic axis; nan where there is none."""
    if not len(values):
        return np.full((3, values.shape[1]), np.nan)
    least = np.finfo(np.float64).tiny  # squares below it are held as 0
    quantiles: NDArray[np.float64] = np.maximum(np.quantile(values, [0.05, 0.5, 0.95], axis=0), least)
    return quantiles


def _draw_points(
    ax: Axes, layers: NDArray[np.int64], values: NDArray[np.float64], colour: str, marker: str, label: str
) -> None:
    """Some of them, evenly spread, without error bars."""
    at = np.arange(0, len(layers), 1 + len(layers) // (POINTS + 1))
    style = {key: POINT_STYLE[key] for key in ("markersize", "markeredgecolor", "markeredgewidth", "zorder")}
    ax.plot(layers[at], values[at], marker, color=colour, label=label, **style)


def _set_gradient_scale(ax: Axes, values: NDArray[np.float64], points: NDArray[np.float64]) -> None:
    """Logarithmic, over as many decades as can be told apart, or some more as the points take; layers evenly.

    Powers of chi are a straight line.
    """
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("layer")
    ax.set_ylabel("width × mean squared gradient")
    positive = values[np.isfinite(values) & (values > 0.0)]
    if positive.size:
        highest = float(positive.max())
        ax.set_yscale("log", nonpositive="mask")
        lowest = max(float(positive.min()), highest / 10.0**_GRADIENT_DECADES)
        there = points[points > highest / 10.0**_POINT_DECADES]
        ax.set_ylim(min([lowest, *there]) / 2.0, highest * 2.0)


def _mark_below(ax: Axes, layers: NDArray[np.int64], points: NDArray[np.float64], colour: str) -> None:
    """Arrows at the lower edge for points that lie below it, or have vanished altogether."""
    at = np.arange(0, len(layers), 1 + len(layers) // (POINTS + 1))
    below = at[points[at] < ax.get_ylim()[0]]
    if below.size:
        edge = ax.get_xaxis_transform()
        ax.plot(
            layers[below],
            np.full(below.size, 0.02),
            "v",
            color=colour,
            transform=edge,
            label="median below the axis",
            zorder=3,
        )
