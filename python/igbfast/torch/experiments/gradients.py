"""Where do gradients reach the first layer? Squared gradients of untrained models over sigma_w2, beside theory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from ... import _checks
from ..._figure import BLACK, BLUE, GREY, STYLE, require_matplotlib, require_variable
from ...activations import Activation, as_activation
from ...ensemble import Ensemble
from ...meanfield import moments, propagate
from ...phases import edge_of_chaos
from ..models import CNN, MLP, ViT
from ..plot import add_footnote, draw_points, mark_plainly, with_error
from ._experiment import attributes, generator, measured, numbers, seeds_of
from ._signals import signals
from ._starts import prepared

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["MODELS", "PAPER", "figure", "run", "verdict"]

MODELS = ("MLP", "residual MLP", "CNN", "ViT")

PAPER = {
    "data": "cifar10",
    "width": 1000,
    "depth": 100,
    "channels": 256,
    "layers": 50,
    "token": 384,
    "blocks": 20,
    "inputs": 200,
    "seeds": 10,
}

_GRID = tuple(float(x) for x in np.geomspace(0.5, 6.0, 13).round(3))


def run(
    *,
    activation: str = "tanh",
    sigma_w2: Sequence[float] | float = _GRID,
    sigma_b2: float = 0.05,
    residual: float = 1.0,
    width: int = 200,
    depth: int = 30,
    channels: int = 32,
    layers: int = 20,
    token: int = 64,
    blocks: int = 10,
    data: str = "digits",
    folder: str | PathLike[str] | None = None,
    inputs: int = 32,
    seeds: int = 5,
    seed: int = 0,
    progress: bool | None = None,
) -> xr.Dataset:
    """Measure the squared gradients of untrained MLPs, residual MLPs, CNNs and vanilla vision transformers.

    Parameters
    ----------
    activation : str, optional
        Of all models.
    sigma_w2 : float or sequence of float, optional
        Variances of the weights.
    sigma_b2 : float, optional
        Variance of the biases.
    residual : float, optional
        The branch ratio a of the residual MLP.
    width, depth : int, optional
        Of the MLPs.
    channels, layers : int, optional
        Of the CNN.
    token, blocks : int, optional
        Width and depth of the vision transformer, with 4 heads and patches of 2 x 2, without normalisation and skips.
    data, folder : str, path, optional
        Images, by their name in `igbfast.torch.data`, and where their files lie.
    inputs : int, optional
        How many of them.
    seeds, seed : int, optional
        Networks for each point, and the first one's seed.
    progress : bool, optional
        As `igbfast.simulate` has it.

    Returns
    -------
    xarray.Dataset
        Over (`model`, `sigma_w2`, `seed`): ratio, the squared gradient (of a random read-out, by all that goes into an
        activation) of the first over the last layer; growth, its root, the factor per layer (per block of the ViT).
        Over (`model`, `sigma_w2`): ratio_theory. Over `model`: boundary, where theory has a factor of one (nan for
        none), and places, the number of layers or blocks.

    Notes
    -----
    Theory of the MLPs is that of `propagate`; the CNN's is the same, for images that are alike everywhere. The ViT's is
    that of tokens that have become one, which attention hands on as they are: its factor per block is
    sigma_w2^4 E[phi'(sqrt(q) z)^2], from the four linear maps that are not behind a softmax.

    Examples
    --------
    >>> from igbfast.torch import experiments
    >>> ds = experiments.gradients.run(
    ...     sigma_w2=[1.0, 3.0], width=30, depth=4, channels=4, layers=3, token=8, blocks=2, inputs=4, seeds=2
    ... )
    >>> ds.ratio.dims
    ('model', 'sigma_w2', 'seed')
    """
    options = dict(locals())
    weights, phi = numbers("sigma_w2", sigma_w2), as_activation(activation)
    sigma_b2 = _checks.non_negative_finite("sigma_b2", sigma_b2)
    source = prepared(data, folder, images=True)
    x = source.subset(min(_checks.integer("inputs", inputs, 1), len(source))).inputs.double()
    image, features = tuple(x.shape[1:]), source.features
    make: dict[str, Callable[..., Any]] = {
        "MLP": lambda ens, **how: MLP(ens, width=width, depth=depth, features=features, **how),
        "residual MLP": lambda ens, **how: MLP(ens, width=width, depth=depth, features=features, **how),
        "CNN": lambda ens, **how: CNN(ens, channels=channels, depth=layers, image=image, **how),
        "ViT": lambda ens, **how: ViT(ens, width=token, depth=blocks, image=image, **how),
    }
    branch = {name: residual if name == "residual MLP" else None for name in MODELS}

    def measure(name: str, weight: float, number: int) -> xr.Dataset:
        ens = Ensemble(phi, weight, sigma_b2, residual=branch[name])
        model = make[name](ens, classes=source.classes, generator=generator(number), dtype=torch.float64)
        found = signals(model, x, readout=generator(number, 1))
        return xr.Dataset({"ratio": found.gradient[0] / found.gradient[-1], "growth": found.growth})

    over = {"model": MODELS, "sigma_w2": weights, "seed": seeds_of(seeds, seed)}
    ds = measured(measure, over, progress)
    places = {"MLP": depth, "residual MLP": depth, "CNN": layers, "ViT": blocks}
    ds["places"] = ("model", [places[name] for name in MODELS])
    ratios = [
        [_ratio(name, phi, weight, sigma_b2, branch[name], places[name]) for weight in weights] for name in MODELS
    ]
    ds["ratio_theory"] = (("model", "sigma_w2"), ratios)
    edge = float(edge_of_chaos(phi, sigma_b2))
    ds["boundary"] = ("model", [edge, np.nan, edge, block_edge(phi, sigma_b2)])
    return ds.assign_attrs(attributes("gradients", options))


def _ratio(name: str, phi: Activation, sigma_w2: float, sigma_b2: float, residual: float | None, places: int) -> float:
    """Theory of the squared gradient of the first over the last place."""
    if name == "ViT":
        return float(np.prod(_block_factors(phi, sigma_w2, sigma_b2, places)[1:]))
    chi = propagate(Ensemble(phi, sigma_w2, sigma_b2, residual=residual), places)["chi"].values
    return float(np.prod(chi[:-1]))


def _block_factors(phi: Activation, sigma_w2: float, sigma_b2: float, blocks: int) -> NDArray[np.float64]:
    """What squared gradients by the perceptrons' hidden nodes are multiplied by, block by block, for equal tokens."""
    q, factors = sigma_w2 + sigma_b2, []  # of the embedded patches
    for _ in range(blocks):
        for _ in range(3):  # values, output of attention, first layer of the perceptron
            q = sigma_w2 * q + sigma_b2
        factors.append(sigma_w2**4 * float(moments(phi, q, derivative=1)))
        q = sigma_w2 * float(moments(phi, q)) + sigma_b2
    return np.array(factors)


def block_edge(phi: Activation, sigma_b2: float, *, blocks: int = 200) -> float:
    """sigma_w2 at which deep blocks of a vanilla vision transformer keep squared gradients; nan if there is none."""
    from scipy.optimize import brentq

    def excess(log_w: float) -> float:
        return float(np.log(_block_factors(phi, float(np.exp(log_w)), sigma_b2, blocks)[-1]))

    low, high = np.log(0.05), np.log(20.0)
    try:
        return float(np.exp(brentq(excess, low, high, xtol=1e-10)))
    except ValueError:  # the same sign at both ends
        return float("nan")


def figure(dataset: xr.Dataset) -> Figure:
    """A column for each model: the squared gradient of the first over the last layer, against sigma_w2.

    Parameters
    ----------
    dataset : xarray.Dataset
        What `run` returned. Points are geometric means over the seeds, bars their standard errors, lines theory; the
        vertical line is the phase boundary.

    Returns
    -------
    matplotlib.figure.Figure
        Made by pyplot, so `matplotlib.pyplot.show()` shows it.
    """
    require_matplotlib()
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    require_variable(dataset, "ratio_theory", "experiments.gradients.run")
    with mpl.rc_context(STYLE):
        shown = plt.figure(figsize=(10.4, 3.2), layout="constrained")
        for ax, name in zip(
            shown.subplots(1, dataset.sizes["model"], sharey=True), dataset["model"].values, strict=True
        ):
            at = dataset.sel(model=name)
            ax.axhline(0.0, color=GREY, linewidth=0.8, linestyle=":", zorder=0)
            ax.plot(at["sigma_w2"], np.log10(at["ratio_theory"]), color=BLACK, label="theory, infinite width")
            draw_points(ax, at["sigma_w2"].values, np.log10(at["ratio"]), "measured", 0, color=BLUE)
            if np.isfinite(at["boundary"]):
                ax.axvline(float(at["boundary"]), color=GREY, linewidth=1.0, linestyle=(0, (4, 1.5)), zorder=0)
            unit = "blocks" if name == "ViT" else "layers"
            ax.set_title(f"{name}, {int(at.places)} {unit}")
            ax.set_xscale("log")
            ax.set_xlabel(r"$\sigma_w^2$")
            mark_plainly(ax)
        first = shown.axes[0]
        first.set_ylabel(r"$\log_{10}$ of squared gradient, first / last")
        first.legend(loc="upper left", handlelength=1.6)
        add_footnote(shown, dataset, "dashed: theory's phase boundary", sizes=())
    return shown


def crossings(ratio: xr.DataArray) -> xr.DataArray:
    """sigma_w2 at which a ratio passes 1, for each of its other coordinates; between points it is a power."""
    logs, w = np.log(ratio), np.log(ratio["sigma_w2"].values)

    def crossing(values: NDArray[np.float64]) -> float:
        up = np.flatnonzero((values[:-1] < 0.0) & (values[1:] >= 0.0))
        if not up.size:
            return float("nan")
        i = int(up[0])
        return float(np.exp(w[i] - values[i] * (w[i + 1] - w[i]) / (values[i + 1] - values[i])))

    return xr.apply_ufunc(crossing, logs, input_core_dims=[["sigma_w2"]], vectorize=True)


def verdict(dataset: xr.Dataset) -> str:
    """Where each model's gradients pass from vanishing to exploding, beside theory."""
    found, expected, lines = crossings(dataset["ratio"]), crossings(dataset["ratio_theory"]), []
    for name in dataset["model"].values:
        measured_at = found.sel(model=name).dropna("seed")
        if not measured_at.size:
            least = float(dataset["ratio"].sel(model=name).min())
            lines.append(f"{name}: gradients {'explode' if least > 1.0 else 'vanish'} at every sigma_w2.")
            continue
        here, deep = float(expected.sel(model=name)), float(dataset["boundary"].sel(model=name))
        lines.append(
            f"{name}: gradients are as large in the first layer as in the last at sigma_w2 = {with_error(measured_at)} "
            f"(theory: {here:.3f} at this depth, {deep:.3f} at infinite depth)."
        )
    return "\n".join(lines)
