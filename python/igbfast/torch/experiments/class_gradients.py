"""Whose gradients vanish? Squared gradients by class in chaotic deep prejudice: ReLU, and sigma_w2 too large."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from ... import _checks
from ..._figure import BLUE, GREY, STYLE, VERMILLION, require_matplotlib, require_variable
from ..._plot_gradients import gradients_by_class
from ...ensemble import Ensemble
from ...phases import edge_of_chaos
from ..models import MLP
from ._experiment import attributes, generator, measured, numbers, seeds_of
from ._signals import signals
from ._starts import prepared

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PAPER", "figure", "run", "verdict"]

PAPER = {"data": "cifar10", "width": 1000, "depth": 100, "inputs": 1000, "seeds": 20}

_DECADES = 40  # that the figure shows at most


def run(
    *,
    activation: str = "relu",
    sigma_w2: Sequence[float] | float = (1.5, 1.75, 2.0, 2.25, 2.5, 3.0),
    sigma_b2: float = 0.1,
    width: int = 200,
    depth: int = 60,
    data: str = "digits",
    folder: str | PathLike[str] | None = None,
    inputs: int = 100,
    seeds: int = 12,
    seed: int = 0,
    progress: bool | None = None,
) -> xr.Dataset:
    """Measure the squared gradients of untrained MLPs for the inputs of each class, layer by layer.

    Parameters
    ----------
    activation : str, optional
        One that is not bounded, so that the outputs grow with depth where sigma_w2 is above the edge of chaos.
    sigma_w2 : float or sequence of float, optional
        Variances of the weights.
    sigma_b2 : float, optional
        Variance of the biases.
    width, depth : int, optional
        Of the MLP.
    data, folder : str, path, optional
        Inputs and labels, by their name in `igbfast.torch.data`, and where the files lie.
    inputs : int, optional
        How many of them.
    seeds, seed : int, optional
        Networks for each sigma_w2, and the first one's seed.
    progress : bool, optional
        As `igbfast.simulate` has it.

    Returns
    -------
    xarray.Dataset
        gradient_class over (`sigma_w2`, `seed`, `layer`, `class`): mean over nodes and over the inputs of each class of
        the squared derivative of an input's cross-entropy by its pre-activations. favoured, the class that most inputs
        are given, and its share largest_fraction, over (`sigma_w2`, `seed`).

    Examples
    --------
    >>> from igbfast.torch import experiments
    >>> ds = experiments.class_gradients.run(sigma_w2=[2.0, 3.0], width=20, depth=5, inputs=50, seeds=2)
    >>> ds.gradient_class.dims
    ('sigma_w2', 'seed', 'layer', 'class')
    """
    options = dict(locals())
    weights = numbers("sigma_w2", sigma_w2)
    source = prepared(data, folder)
    some = source.subset(min(_checks.integer("inputs", inputs, 2), len(source)))
    x = some.inputs.double()

    def measure(weight: float, number: int) -> xr.Dataset:
        model = MLP(
            Ensemble(activation, weight, sigma_b2), width=width, depth=depth, features=source.features,
            classes=source.classes, generator=generator(number), dtype=torch.float64,
        )  # fmt: skip
        return _by_class(model, x, some.labels, source.classes)

    ds = measured(measure, {"sigma_w2": weights, "seed": seeds_of(seeds, seed)}, progress)
    ds["edge_of_chaos"] = float(edge_of_chaos(activation, sigma_b2))
    return ds.assign_attrs(attributes("class_gradients", options))


def _by_class(model: Any, inputs: Any, labels: Any, classes: int) -> xr.Dataset:
    found = signals(model, inputs, labels)
    shares = np.bincount(found.given, minlength=classes) / len(found.given)
    return xr.Dataset(
        {
            "gradient_class": (("layer", "class"), found.gradient_class),
            "favoured": int(shares.argmax()),
            "largest_fraction": shares.max(),
        },
        {"layer": np.arange(1, len(found.gradient_class) + 1), "class": np.arange(classes)},
    )


def favoured_and_others(dataset: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """gradient_class of the favoured class of each network, and the mean over all others."""
    is_favoured = dataset["class"] == dataset["favoured"]
    gradient = dataset["gradient_class"]
    return gradient.where(is_favoured).mean("class"), gradient.where(~is_favoured).mean("class")


def figure(dataset: xr.Dataset) -> Figure:
    """By layer at the largest sigma_w2, and at the first layer over sigma_w2: the favoured class, and all others.

    Parameters
    ----------
    dataset : xarray.Dataset
        What `run` returned. Points are medians over the seeds, bands hold 90 % of them; arrows at the lower edge stand
        for medians below.

    Returns
    -------
    matplotlib.figure.Figure
        Made by pyplot, so `matplotlib.pyplot.show()` shows it.
    """
    require_matplotlib()
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    require_variable(dataset, "gradient_class", "experiments.class_gradients.run")
    attrs = dataset.attrs
    with mpl.rc_context(STYLE):
        shown = plt.figure(figsize=(9.0, 3.6), layout="constrained")
        by_layer, by_weight = shown.subplots(1, 2)
        largest = dataset.isel(sigma_w2=-1)
        networks = largest.rename(seed="network").transpose("network", "layer", "class")
        gradients_by_class(networks.assign_attrs(attrs | {"sigma_w2": float(largest.sigma_w2)}), ax=by_layer)
        _draw_over_weights(by_weight, dataset)
        by_weight.set_title(f"first layer of {attrs['depth']}, width {attrs['width']}, {attrs['data']}")
    return shown


def _draw_over_weights(ax: Axes, dataset: xr.Dataset) -> None:
    """Medians and bands of both, at the first layer; as many decades as can be told apart."""
    bands, across = [], dataset["sigma_w2"].values
    for values in favoured_and_others(dataset.isel(layer=0)):
        scaled = dataset.attrs["width"] * values.transpose("seed", "sigma_w2").values
        bands.append(np.maximum(np.nanquantile(scaled, [0.05, 0.5, 0.95], axis=0), 1e-300))
    highest = max(float(band.max()) for band in bands)
    lowest = max(min(float(band[1].min()) for band in bands), highest / 10.0**_DECADES)
    ax.set(yscale="log", ylim=(lowest / 10.0, highest * 3.0), xlabel=r"$\sigma_w^2$")
    ax.set_ylabel("width × mean squared gradient")
    ax.axvline(float(dataset["edge_of_chaos"]), color=GREY, linewidth=1.0, linestyle=(0, (4, 1.5)), zorder=0)
    ax.annotate(
        "edge of chaos", (float(dataset["edge_of_chaos"]), 0.02), xytext=(-3, 0), textcoords="offset points",
        xycoords=ax.get_xaxis_transform(), rotation=90, ha="right", va="bottom", color=GREY, fontsize=8,
    )  # fmt: skip
    for (low, middle, high), colour, marker in zip(bands, (VERMILLION, BLUE), "so", strict=True):
        ax.fill_between(across, low, high, color=colour, alpha=0.2, linewidth=0)
        ax.plot(across, middle, color=colour, marker=marker, markersize=4.5, markeredgecolor="white", linewidth=1.0)
        below = middle < ax.get_ylim()[0]
        ax.plot(across[below], np.full(below.sum(), 0.03), "v", color=colour, transform=ax.get_xaxis_transform())


def verdict(dataset: xr.Dataset) -> str:
    """The favoured class's gradient and the others', at the first layer of the largest sigma_w2 and near the edge."""
    edge = float(dataset["edge_of_chaos"])
    nearest = float(dataset["sigma_w2"].sel(sigma_w2=edge, method="nearest"))
    return "\n".join(
        _sentence(dataset.sel(sigma_w2=weight), edge)
        for weight in dict.fromkeys([nearest, float(dataset.sigma_w2[-1])])
    )


def _sentence(at: xr.Dataset, edge: float) -> str:
    favoured, others = (at.attrs["width"] * part.values for part in favoured_and_others(at.isel(layer=0)))
    weight = float(at["sigma_w2"])
    below = int((favoured < 1e-3 * others).sum())
    side = (
        "in chaotic deep prejudice" if weight > 1.001 * edge else "at the edge" if weight > 0.999 * edge else "ordered"
    )
    share = 100.0 * float(at["largest_fraction"].mean())
    return (
        f"sigma_w2 = {weight:g} ({side}): {share:.0f} % of the inputs go to one class; squared gradients of the first "
        f"layer, medians over {favoured.size} networks: {_shown(favoured)} for inputs of the favoured class, "
        f"{_shown(others)} for the others, ratio {_shown(favoured / others)} (below 0.001 in {below} of them)."
    )


def _shown(values: NDArray[np.float64]) -> str:
    """The median; squares below the smallest double are held as 0."""
    median = float(np.nanmedian(values))
    return f"{median:.2g}" if median > 0.0 else "less than 1e-300"
