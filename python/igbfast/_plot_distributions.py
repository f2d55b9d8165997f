"""Distributions by layer: of the node centres and variances, of q and c."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ._figure import (
    BLACK,
    BLUE,
    DASHES,
    STYLE,
    ensemble_title,
    require_matplotlib,
    require_variable,
    same_ensemble,
    set_layers,
    set_scale,
)
from .distributions import COUNTED, merge, quantiles
from .ensemble import Ensemble
from .meanfield import propagate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "distributions",
]

_COUNTED_WORDS = {
    "mu": r"centres of the nodes $\mu_i$",
    "var": r"variances of the nodes $\sigma_i^2$",
    "q": "signal variance of the inputs $q_{aa}$",
    "c": "correlation of the pairs $c_{ab}$",
}


def distributions(dataset: xr.Dataset, *, ens: Ensemble | None = None) -> Figure:
    """One figure of the distributions by layer: node centres mu and variances, q over inputs, c over pairs of inputs.

    Parameters
    ----------
    dataset : xarray.Dataset
        What `simulate` returned with `distributions=True`, or `igbfast.distributions.merge`. Lines are medians over all
        networks together; dark bands hold 50 % of the values, light ones 90 %.
    ens : Ensemble, optional
        That of the networks: theory is drawn as well, of the centres as the edges of the light band: 5 and 95 % of
        N(0, sigma_mu2 + sigma_y2 / inputs).

    Returns
    -------
    matplotlib.figure.Figure
        Made by pyplot, so `matplotlib.pyplot.show()` shows it.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    TypeError, ValueError
        If `dataset` is something else or has no distributions, or `ens` is another ensemble.

    Examples
    --------
    >>> import igbfast as igb
    >>> ens = igb.Ensemble("relu", sigma_w2=2.0)
    >>> ds = igb.simulate(ens, width=300, depth=20, networks=4, distributions=True)
    >>> igb.plot.distributions(ds, ens=ens).savefig("distributions.png")  # doctest: +SKIP
    """
    require_matplotlib()
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    require_variable(dataset, "mu_counts", "simulate(..., distributions=True) or distributions.merge")
    together, layers = merge(dataset), dataset["layer"].values
    theory = {} if ens is None else _spread_in_theory(same_ensemble(dataset, ens), len(layers), dataset.attrs["inputs"])
    with mpl.rc_context(STYLE):
        figure = plt.figure(figsize=(7.6, 6.0), layout="constrained")
        for ax, name in zip(figure.subplots(2, 2, sharex=True).flat, COUNTED, strict=True):
            values = quantiles(together, name).values
            for low, high, alpha in ((0, 4, 0.15), (1, 3, 0.3)):
                ax.fill_between(layers, values[:, low], values[:, high], color=BLUE, alpha=alpha, linewidth=0)
            ax.plot(layers, values[:, 2], color=BLUE, label="median; bands: 50 % and 90 %")
            for line in theory.get(name, []):
                ax.plot(layers, line, color=BLACK, linestyle=DASHES[1], linewidth=1.0, label="theory")
            ax.set_ylabel(_COUNTED_WORDS[name])
            set_layers(ax, int(layers[-1]))
            if name in ("var", "q"):
                set_scale(ax, values)
        for ax in figure.axes[2:]:
            ax.set_xlabel("layer")
        figure.align_ylabels()
        handles, labels = figure.axes[-1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, handlelength=3.0)
        figure.suptitle(ensemble_title(dataset), fontsize=STYLE["axes.titlesize"])
    return figure


def _spread_in_theory(ens: Ensemble, depth: int, inputs: int) -> dict[str, list[NDArray[np.float64]]]:
    """The lines to draw for each distribution."""
    theory = propagate(ens, depth)
    centres = theory["sigma_mu2"].values + theory["sigma_y2"].values / inputs  # of means over so many inputs
    edge = 1.6448536269514722 * np.sqrt(centres)  # of the middle 90 % of a normal law
    lines = {name: [theory[name].values] for name in ("q", "c")}
    return lines | {"mu": [-edge, edge], "var": [theory["sigma_y2"].values]}
