"""The law of the share of the inputs that an untrained network gives to one class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import _checks, guessing
from ._figure import COLOURS, DASHES, STYLE, cycled, require_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "class_fractions",
]

_BINS = 50  # of a histogram of shares


def class_fractions(
    gamma: float | Sequence[float], *, classes: int = 2, networks: int = 20_000, ax: Axes | None = None
) -> Axes:
    """Draw the density of the share of the inputs that an untrained network gives to one class, over random networks.

    Parameters
    ----------
    gamma : float or sequence of float
        Bias strengths, from 0 to inf, a line each.
    classes : int, optional
        Number of classes. For two the density is exact; for more it is a histogram of sampled networks.
    networks : int, optional
        Number of networks sampled for each gamma, for more than two classes.
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
    ValueError, TypeError
        If an argument is out of range or of the wrong type.

    See Also
    --------
    igbfast.guessing : the numbers.

    Examples
    --------
    >>> import igbfast as igb
    >>> ax = igb.plot.class_fractions([0.2, 1.0, 5.0])
    >>> ax.figure.savefig("shares.png")  # doctest: +SKIP
    """
    require_matplotlib()
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    strengths = np.atleast_1d(_checks.real_numbers("gamma", gamma))
    if strengths.ndim > 1 or strengths.size == 0:
        raise ValueError(f"gamma must be a number or a list of numbers, got an array of shape {strengths.shape}")
    classes = _checks.integer("classes", classes, 2, guessing.MAX_CLASSES)
    networks = _checks.integer("networks", networks, 1)
    laws = [_law_of_shares(strength, classes, networks) for strength in strengths]
    with mpl.rc_context(STYLE):
        ax = plt.figure(figsize=(4.8, 3.4), layout="constrained").subplots() if ax is None else ax
        _set_shares(ax, [density for _, density in laws if density is not None], classes)
        for index, (strength, (place, density)) in enumerate(zip(strengths, laws, strict=True)):
            style: Any = {"color": cycled(COLOURS, index), "linestyle": cycled(DASHES, index), "linewidth": 1.5}
            style["label"] = rf"$\gamma = {strength:g}$" if np.isfinite(strength) else r"$\gamma = \infty$"
            if density is None:  # all networks alike, at these places
                ax.vlines(place, *ax.get_ylim(), clip_on=False, **style)
            elif classes > 2:
                ax.stairs(density, place, baseline=None, **style)
            else:
                ax.plot(place, density, **style)
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=3.0)
    return ax


def _law_of_shares(gamma: float, classes: int, networks: int) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Where, and the density there: on a curve, in bins (whose edges are one more), or None at isolated places."""
    if gamma == 0.0:
        return np.array([1.0 / classes]), None
    if gamma == np.inf:
        return np.array([0.0, 1.0]), None
    if classes == 2:
        share = np.linspace(0.0, 1.0, 1001)[1:-1]
        return share, guessing.pdf(share, gamma)
    shares = guessing.sample(gamma, classes=classes, size=networks)
    density, edges = np.histogram(shares, bins=_BINS, range=(0.0, 1.0), density=True)
    return edges, density


def _set_shares(ax: Axes, densities: Sequence[NDArray[np.float64]], classes: int) -> None:
    ax.set_xlim(0.0, 1.0)
    ax.set_xlabel(f"share of the inputs given to one of {'two' if classes == 2 else classes} classes")
    ax.set_ylabel("density over random networks")
    if classes > 2:
        ax.set_yscale("log")
        ax.set_ylim(1e-2, 1.5 * max([_BINS, *(density.max() for density in densities)]))
    else:  # where gamma > 1 the density is infinite at the ends, and leaves the frame
        middle = [density[density.size // 20 : -density.size // 20].max() for density in densities]
        ax.set_ylim(0.0, 1.15 * max([2.0, *middle]))
