"""How do LayerNorm, BatchNorm and skips blur the phases? Growth of gradients, and likeness of inputs, over sigma_w2."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr

from ... import _checks
from ..._figure import COLOURS, GREY, STYLE, cycled, require_matplotlib, require_variable
from ...ensemble import Ensemble
from ...meanfield import propagate
from ...phases import edge_of_chaos
from ..models import MLP
from ..plot import add_footnote, draw_points, mark_plainly, with_error
from ._experiment import attributes, generator, measured, numbers, seeds_of
from ._signals import signals
from ._starts import prepared

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["MODELS", "PAPER", "figure", "run", "verdict"]

MODELS = ("plain", "LayerNorm", "BatchNorm", "skips", "skips + LayerNorm")

PAPER = {"data": "cifar10", "width": 1000, "depth": 100, "inputs": 200, "seeds": 10}

_GRID = tuple(float(x) for x in np.geomspace(0.5, 6.0, 11).round(3))


def run(
    *,
    activation: str = "tanh",
    sigma_w2: Sequence[float] | float = _GRID,
    sigma_b2: float = 0.05,
    residual: float = 1.0,
    width: int = 200,
    depth: int = 30,
    data: str = "digits",
    folder: str | PathLike[str] | None = None,
    inputs: int = 64,
    seeds: int = 5,
    seed: int = 0,
    progress: bool | None = None,
) -> xr.Dataset:
    """Measure untrained MLPs: plain, with LayerNorm, with BatchNorm, with skips, with skips and LayerNorm.

    Parameters
    ----------
    activation : str, optional
        Of all models.
    sigma_w2 : float or sequence of float, optional
        Variances of the weights.
    sigma_b2 : float, optional
        Variance of the biases.
    residual : float, optional
        The branch ratio a of those with skips.
    width, depth : int, optional
        Of the MLPs.
    data, folder : str, path, optional
        Inputs, by their name in `igbfast.torch.data`, and where the files lie.
    inputs : int, optional
        How many of them; the batch that BatchNorm sees.
    seeds, seed : int, optional
        Networks for each point, and the first one's seed.
    progress : bool, optional
        As `igbfast.simulate` has it.

    Returns
    -------
    xarray.Dataset
        Over (`model`, `sigma_w2`, `seed`): growth, the factor per layer of the squared gradients of a random read-out,
        from the last layer back to the first; c, the correlation of two inputs in the last layer. Over (`model`,
        `sigma_w2`): growth_theory and c_theory, nan for BatchNorm, where inputs depend on each other.

    Examples
    --------
    >>> from igbfast.torch import experiments
    >>> ds = experiments.normalisation.run(sigma_w2=[1.0, 3.0], width=20, depth=5, inputs=10, seeds=2)
    >>> ds.growth.dims
    ('model', 'sigma_w2', 'seed')
    """
    options = dict(locals())
    weights, source = numbers("sigma_w2", sigma_w2), prepared(data, folder)
    x = source.subset(min(_checks.integer("inputs", inputs, 2), len(source))).inputs.double()

    def measure(name: str, weight: float, number: int) -> xr.Dataset:
        model = MLP(
            _ensemble(name, activation, weight, sigma_b2, residual), width=width, depth=depth, features=source.features,
            classes=source.classes, batchnorm=name == "BatchNorm", generator=generator(number), dtype=torch.float64,
        )  # fmt: skip
        found = signals(model, x, readout=generator(number, 1))
        return xr.Dataset({"growth": found.growth, "c": found.c[-1]})

    ds = measured(measure, {"model": MODELS, "sigma_w2": weights, "seed": seeds_of(seeds, seed)}, progress)
    theory = [[_theory(name, activation, weight, sigma_b2, residual, depth) for weight in weights] for name in MODELS]
    for at, quantity in enumerate(("growth_theory", "c_theory")):
        ds[quantity] = (("model", "sigma_w2"), np.array(theory)[..., at])
    ds["edge_of_chaos"] = float(edge_of_chaos(activation, sigma_b2))
    return ds.assign_attrs(attributes("normalisation", options))


def _ensemble(name: str, activation: str, sigma_w2: float, sigma_b2: float, residual: float) -> Ensemble:
    branch = residual if "skips" in name else None
    return Ensemble(activation, sigma_w2, sigma_b2, residual=branch, layernorm="LayerNorm" in name)


def _theory(
    name: str, activation: str, sigma_w2: float, sigma_b2: float, residual: float, depth: int
) -> tuple[float, float]:
    """Growth per layer of the squared gradients, and c of the last layer, at infinite width."""
    if name == "BatchNorm":
        return float("nan"), float("nan")
    limit = propagate(_ensemble(name, activation, sigma_w2, sigma_b2, residual), depth)
    growth = np.exp(np.log(limit["chi"].values[:-1]).mean()) if depth > 1 else 1.0
    return float(growth), float(limit["c"].values[-1])


def figure(dataset: xr.Dataset) -> Figure:
    """The growth of squared gradients per layer, and the correlation of inputs in the last layer, over sigma_w2.

    Parameters
    ----------
    dataset : xarray.Dataset
        What `run` returned. Points are means over the seeds with standard errors, lines theory; the vertical line is
        the edge of chaos of the plain network.

    Returns
    -------
    matplotlib.figure.Figure
        Made by pyplot, so `matplotlib.pyplot.show()` shows it.
    """
    require_matplotlib()
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    require_variable(dataset, "growth_theory", "experiments.normalisation.run")
    across = dataset["sigma_w2"].values
    with mpl.rc_context(STYLE):
        shown = plt.figure(figsize=(8.2, 3.8), layout="constrained")
        axes = shown.subplots(1, 2)
        for ax, name in zip(axes, ("growth", "c"), strict=True):
            for index, model in enumerate(dataset["model"].values):
                at = dataset.sel(model=model)
                ax.plot(across, at[f"{name}_theory"], color=cycled(COLOURS, index), linewidth=1.0)
                draw_points(ax, across, at[name], str(model), index)
            ax.axvline(float(dataset["edge_of_chaos"]), color=GREY, linewidth=1.0, linestyle=(0, (4, 1.5)), zorder=0)
            ax.set(xscale="log", xlabel=r"$\sigma_w^2$")
            mark_plainly(ax)
        growth, correlation = axes
        growth.axhline(1.0, color=GREY, linewidth=0.8, linestyle=":", zorder=0)
        growth.set_ylabel("squared gradients, growth per layer")
        correlation.set(ylabel="correlation of inputs, last layer", ylim=(-0.05, 1.05))
        shown.legend(*growth.get_legend_handles_labels(), loc="outside upper center", ncols=5, handlelength=1.0)
        add_footnote(shown, dataset, "lines: theory; dashed: edge of chaos of the plain ones")
    return shown


def verdict(dataset: xr.Dataset) -> str:
    """How far growth and c of each model move over the range of sigma_w2."""
    low, high = float(dataset.sigma_w2[0]), float(dataset.sigma_w2[-1])
    lines = [f"From sigma_w2 = {low:g} to {high:g}:"]
    for name in dataset["model"].values:
        at = dataset.sel(model=name)
        growth, c = (_range(at[quantity]) for quantity in ("growth", "c"))
        lines.append(f"{name}: squared gradients change by factors of {growth} per layer; c goes from {c}.")
    return "\n".join(lines)


def _range(values: xr.DataArray) -> str:
    return " to ".join(with_error(values[end]) for end in (0, -1))
