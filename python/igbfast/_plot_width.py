"""Departures from theory against the width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from . import _checks
from ._figure import (
    COLOURS,
    DASHES,
    MARKERS,
    POINT_STYLE,
    STYLE,
    cycled,
    ensemble_title,
    new_axes,
    require_matplotlib,
    require_variable,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "finite_width",
]

_DEPARTURES = ("sigma_mu2", "sigma_y2", "log_gamma", "gradient", "log_q_variance")
_DEPARTURE_WORDS = {
    "sigma_mu2": r"$\sigma_\mu^2$",
    "sigma_y2": r"$\sigma_y^2$",
    "q": "$q$",
    "gradient": "gradient",
    "log_gamma": r"$\log\,\gamma$",
    "log_q": r"$\log\,q$",
    "log_gradient": "log gradient",
    "log_gamma_variance": r"$\mathrm{var}(\log\,\gamma)$",
    "log_q_variance": r"$\mathrm{var}(\log\,q)$",
    "log_gradient_variance": "var(log gradient)",
}


def finite_width(
    dataset: xr.Dataset, *, layer: int | None = None, quantities: Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the departures from theory of one layer against the width, with the law a / width that was fitted.

    Parameters
    ----------
    dataset : xarray.Dataset
        What `igbfast.finite_width` returned.
    layer : int, optional
        Which one; the last if not given.
    quantities : sequence of str, optional
        Which of its quantities; those of the means, and the variance of log q, if not given.
    ax : matplotlib.axes.Axes, optional
        Where to draw; new ones if not given.

    Returns
    -------
    matplotlib.axes.Axes
        Those drawn on. Open points lie below theory; arrows hang from departure + standard error where the departure is
        the smaller one.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    TypeError, ValueError
        If `dataset` is something else, or has no such layer or quantity.

    Examples
    --------
    >>> import igbfast as igb
    >>> ens = igb.Ensemble("relu", sigma_w2=2.0)
    >>> ds = igb.finite_width(ens, widths=[30, 100, 300], depth=5, inputs=20)
    >>> igb.plot.finite_width(ds).figure.savefig("width.png")  # doctest: +SKIP
    """
    require_matplotlib()
    import matplotlib as mpl

    require_variable(dataset, "departure", "finite_width")
    measured = [str(name) for name in dataset["quantity"].values]
    if quantities is None:
        names = [name for name in _DEPARTURES if name in measured]
    else:
        names = [_checks.choice("quantities", name, measured) for name in quantities]
    depth = dataset.sizes["layer"]
    layer = depth if layer is None else _checks.integer("layer", layer, 1, depth)
    at = dataset.sel(layer=layer)
    with mpl.rc_context(STYLE):
        ax = new_axes(6.4) if ax is None else ax
        shown: list[float] = []
        for index, name in enumerate(names):
            shown += _draw_departure(ax, at.sel(quantity=name), name, index)
        ax.set_xscale("log")
        ax.set_yscale("log", nonpositive="clip")
        if shown:
            ax.set_ylim(min(shown) / 3.0, max(shown) * 3.0)
            ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=2.5)
        ax.set_xlabel("width")
        ax.set_ylabel(f"departure from theory, layer {layer}")
        ax.set_title(ensemble_title(dataset))
    return ax


def _draw_departure(ax: Axes, at: xr.Dataset, name: str, index: int) -> list[float]:
    """One quantity: open points where it is negative, its law as a line. The sizes that have to be seen."""
    width, departure, error = (at[key].values for key in ("width", "departure", "departure_se"))
    a, a_error = float(at["coefficient"]), float(at["coefficient_se"])
    if not np.isfinite(a):
        return []
    colour, marker = cycled(COLOURS, index), cycled(MARKERS, index)
    size, told = np.abs(departure), np.abs(departure) > error
    beside = width * 1.05 ** (index - 2)  # so that they do not hide one another
    for there, face in ((told & (departure > 0.0), colour), (told & (departure < 0.0), "white")):
        style: Any = POINT_STYLE | {"markerfacecolor": face, "markeredgecolor": colour}
        ax.errorbar(beside[there], size[there], error[there], fmt=marker, color=colour, **style)
    at_most = (size + error)[~told]  # nan where nothing was measured
    ax.errorbar(
        width[~told], at_most, 0.3 * at_most, fmt="none", uplims=True, ecolor=colour, elinewidth=0.8, capsize=2.0
    )
    number = f"{a:.3g} ± {a_error:.2g}"
    label = rf"{_DEPARTURE_WORDS[name]}: $a$ = {number}"
    ax.plot(width, np.abs(a) / width, color=colour, linestyle=cycled(DASHES, index), linewidth=1.0, label=label)
    return [float(value) for value in np.abs(a) / width[[0, -1]] if value > 0.0]
