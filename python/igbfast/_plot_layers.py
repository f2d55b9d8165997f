"""Figures by layer: gamma, c, q and chi of networks, and the columns of validations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from . import _checks
from ._figure import (
    BLACK,
    BLUE,
    COLOURS,
    DASHES,
    GREEN,
    GREY,
    LAYER_WORDS,
    MARKERS,
    POINT_STYLE,
    STYLE,
    VERMILLION,
    cycled,
    draw_neutrality,
    ensemble_title,
    require_matplotlib,
    set_layers,
    set_scale,
    shown_layers,
)
from .ensemble import Ensemble
from .meanfield import propagate
from .simulation import network_mean
from .validation import Validation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "draw_validations",
    "trajectories",
    "validations",
]


def validations(*results: Validation) -> Figure:
    """One figure for one or several validations: a column each; rows sigma_mu2 and sigma_y2, gamma, c by layer.

    Parameters
    ----------
    *results : Validation
        What `validate` returned.

    Returns
    -------
    matplotlib.figure.Figure
        Made by pyplot, so `matplotlib.pyplot.show()` shows it.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    TypeError, ValueError
        If there is no validation, or something else.

    Examples
    --------
    >>> import igbfast as igb
    >>> ens = igb.Ensemble("relu", sigma_w2=2.0)
    >>> result = igb.validate(ens, width=200, depth=5, inputs=20)
    >>> igb.plot.validations(result).savefig("relu.png")  # doctest: +SKIP
    """
    require_matplotlib()
    import matplotlib.pyplot as plt

    figure = plt.figure()
    draw_validations(figure, results)
    return figure


def draw_validations(figure: Figure, results: Sequence[Validation]) -> None:
    """Draw on an empty figure, which gets the size that suits the number of columns."""
    import matplotlib as mpl

    if not results:
        raise ValueError("results must be at least one Validation, got none")
    for result in results:
        if not isinstance(result, Validation):
            raise TypeError(f"results must be Validation objects, got {_checks.shown(result)}")
    with mpl.rc_context(STYLE):
        figure.set_size_inches(1.0 + 3.5 * len(results), 7.4)
        figure.set_layout_engine("constrained", h_pad=0.06, w_pad=0.08)
        axes = figure.subplots(3, len(results), sharex="col", squeeze=False)
        rows: tuple[Callable[[Axes, xr.Dataset], None], ...] = (_draw_variances, _draw_gamma, _draw_correlation)
        for column, result in enumerate(results):
            for row, draw in enumerate(rows):
                draw(axes[row, column], result.dataset)
                set_layers(axes[row, column], result.dataset.sizes["layer"])
            axes[0, column].set_title(ensemble_title(result.dataset), pad=10)
            axes[-1, column].set_xlabel("layer")
        for ax in axes[:, 1:].flat:
            ax.set_ylabel("")
        figure.align_ylabels(axes[:, 0])
        figure.supxlabel(_footnote([result.dataset for result in results]), fontsize=8, color=GREY)


def trajectories(
    networks: Ensemble | xr.Dataset | Sequence[Ensemble | xr.Dataset],
    *,
    depth: int = 100,
    labels: Sequence[str] | None = None,
) -> Figure:
    """One figure of gamma, c, q and chi by layer, for one network or several.

    Parameters
    ----------
    networks : Ensemble or xarray.Dataset, or a sequence of them
        An ensemble stands for its theory. What `propagate` returned is drawn as lines, what `simulate` returned as
        points with their standard errors.
    depth : int, optional
        Number of layers, for the ensembles among them.
    labels : sequence of str, optional
        One for each in the legend; activation, sigma_w2 and sigma_b2 if not given.

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
    >>> ordered, chaotic = (igb.Ensemble("tanh", sigma_w2, sigma_b2=0.05) for sigma_w2 in (0.9, 2.5))
    >>> measured = igb.simulate(chaotic, width=300, depth=30, networks=4)
    >>> figure = igb.plot.trajectories([ordered, chaotic, measured], depth=30)
    >>> figure.savefig("trajectories.png")  # doctest: +SKIP
    """
    require_matplotlib()
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    drawn = _trajectories(networks, depth)
    names = [ensemble_title(dataset) for dataset in drawn] if labels is None else list(labels)
    if len(names) != len(drawn):
        raise ValueError(f"labels must be as many as networks, got {len(names)} for {len(drawn)}")
    with mpl.rc_context(STYLE):
        figure = plt.figure(figsize=(7.6, 6.0), layout="constrained")
        axes = figure.subplots(2, 2, sharex=True)
        for ax, (name, words) in zip(axes.flat, LAYER_WORDS.items(), strict=True):
            for index, dataset in enumerate(drawn):
                if name in dataset:
                    _draw_trajectory(ax, dataset, name, index, names[index])
            ax.set_ylabel(words)
            set_layers(ax, max(dataset.sizes["layer"] for dataset in drawn))
        values = {name: _all_values(drawn, name) for name in LAYER_WORDS}
        for ax, name in zip(axes.flat, LAYER_WORDS, strict=True):
            if name != "c":
                set_scale(ax, values[name])
        axes[0, 1].set_ylim(-0.05, 1.05)
        draw_neutrality(axes[0, 0])
        axes[1, 1].axhline(1.0, color=GREY, linewidth=0.8, linestyle=":", zorder=0)
        for ax in axes[1]:
            ax.set_xlabel("layer")
        figure.align_ylabels()
        handles, shown = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, shown, loc="outside upper center", ncols=min(len(shown), 2), handlelength=3.0)
    return figure


def _draw_variances(ax: Axes, dataset: xr.Dataset) -> None:
    _draw(ax, dataset, "sigma_mu2", BLUE, "o", r"$\sigma_\mu^2$ of the node centres")
    _draw(ax, dataset, "sigma_y2", VERMILLION, "s", r"$\sigma_y^2$ around the centres")
    set_scale(ax, np.concatenate([dataset[f"{name}_theory"].values for name in ("sigma_mu2", "sigma_y2")]))
    ax.set_ylabel(r"variances $\sigma_\mu^2$, $\sigma_y^2$")
    _add_legend(ax, "best", labelcolor="linecolor")


def _draw_gamma(ax: Axes, dataset: xr.Dataset) -> None:
    _draw(ax, dataset, "gamma", GREEN, "o", r"$\gamma$")
    set_scale(ax, dataset["gamma_theory"].values)
    draw_neutrality(ax)
    ax.set_ylabel(r"bias strength $\gamma = \sigma_\mu^2 / \sigma_y^2$")


def _draw_correlation(ax: Axes, dataset: xr.Dataset) -> None:
    layers = shown_layers(dataset.sizes["layer"])
    gamma = dataset["gamma"].sel(layer=layers).values
    label = r"$\gamma / (1 + \gamma)$, by nodes"
    ax.plot(layers, gamma / (1.0 + gamma), "D", color=GREEN, markersize=7, fillstyle="none", label=label, zorder=2)
    _draw(ax, dataset, "c", BLACK, "o", "$c$, by pairs of inputs")
    ax.set_ylim(-0.05, 1.05)
    ax.set_ylabel("correlation of two inputs $c$")
    _add_legend(ax, "lower right")


def _add_legend(ax: Axes, place: Literal["best", "lower right"], **style: Any) -> None:
    """Markers and names; error bars speak for themselves."""
    handles, labels = ax.get_legend_handles_labels()
    markers = [handle[0] if isinstance(handle, tuple) else handle for handle in handles]
    ax.legend(markers, labels, loc=place, handlelength=1.0, borderaxespad=0.3, **style)


def _draw(ax: Axes, dataset: xr.Dataset, name: str, colour: str, marker: str, label: str) -> None:
    """Theory as a line, theory with the effect of the finite width dashed, simulation as points."""
    theory, shift = dataset[f"{name}_theory"].values, dataset[f"{name}_shift"].values
    ax.plot(dataset["layer"].values, theory + shift, color=colour, linewidth=1.0, linestyle=(0, (3, 1.5)), zorder=1)
    ax.plot(dataset["layer"].values, theory, color=colour, zorder=1)
    at = dataset.sel(layer=shown_layers(dataset.sizes["layer"]))
    ax.errorbar(
        at["layer"].values,
        at[name].values,
        at[f"{name}_se"].values,
        fmt=marker,
        color=colour,
        label=label,
        **POINT_STYLE,
    )


def _footnote(datasets: Sequence[xr.Dataset]) -> str:
    attrs = datasets[0].attrs
    same = all(dataset.attrs[key] == attrs[key] for dataset in datasets for key in ("width", "networks", "inputs"))
    key = "solid: theory, infinite width   dashed: expected at this width   points: simulation ± 1 standard error"
    if not same:
        return key
    return f"{key}\n{attrs['networks']:,} networks of width {attrs['width']:,}, {attrs['inputs']:,} inputs each"


def _trajectories(networks: Any, depth: int) -> list[xr.Dataset]:
    """Datasets over layers: the theory of ensembles, the mean over networks of simulations."""
    each = [networks] if isinstance(networks, (Ensemble, xr.Dataset)) else networks
    if not isinstance(each, Sequence) or isinstance(each, str):
        raise TypeError(f"networks must be ensembles or datasets over layers, got {_checks.shown(networks)}")
    if not each:
        raise ValueError("networks must be at least one ensemble or dataset, got none")
    return [_trajectory(network, depth) for network in each]


def _trajectory(network: object, depth: int) -> xr.Dataset:
    if isinstance(network, Ensemble):
        return propagate(network, depth)
    if not isinstance(network, xr.Dataset) or not {"layer", "gamma", "c", "q"} <= {*network.coords, *network.data_vars}:
        raise TypeError(f"networks must be ensembles or datasets over layers, got {_checks.shown(network)}")
    if "network" not in network.dims:
        return network
    return network_mean(network) if network.sizes["network"] > 1 else network.isel(network=0)


def _draw_trajectory(ax: Axes, dataset: xr.Dataset, name: str, index: int, label: str) -> None:
    colour = cycled(COLOURS, index)
    if f"{name}_se" not in dataset:
        style: Any = cycled(DASHES, index)
        ax.plot(dataset["layer"].values, dataset[name].values, color=colour, linestyle=style, label=label)
        return
    at = dataset.sel(layer=shown_layers(dataset.sizes["layer"]))
    where, values, errors = at["layer"].values, at[name].values, at[f"{name}_se"].values
    ax.errorbar(where, values, errors, fmt=cycled(MARKERS, index), color=colour, label=label, **POINT_STYLE)


def _all_values(datasets: Sequence[xr.Dataset], name: str) -> NDArray[np.float64]:
    return np.concatenate([dataset[name].values.ravel() for dataset in datasets if name in dataset] or [np.empty(0)])
