"""What figures share: palette and style, scales, axes over layers, checks of the datasets that are drawn.

matplotlib is imported when a figure is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from . import _checks
from .ensemble import Ensemble, as_ensemble

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "BLACK",
    "BLUE",
    "COLOURS",
    "DASHES",
    "GREEN",
    "GREY",
    "LAYER_WORDS",
    "MARKERS",
    "POINTS",
    "POINT_STYLE",
    "STYLE",
    "VERMILLION",
    "cycled",
    "draw_neutrality",
    "ensemble_title",
    "margin_words",
    "new_axes",
    "plain_number",
    "require_matplotlib",
    "require_networks",
    "require_variable",
    "same_ensemble",
    "set_layers",
    "set_scale",
    "shown_layers",
]

# The palette of Okabe and Ito (2008), safe for the colour-blind and distinct in grey.
BLUE, VERMILLION, GREEN, BLACK, GREY = "#0072B2", "#D55E00", "#009E73", "#000000", "#767676"
COLOURS = (BLUE, VERMILLION, GREEN, BLACK, "#CC79A7", "#E69F00", "#56B4E9")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (4, 1.5, 1, 1.5)), (0, (1, 1.2)), (0, (8, 2)))
MARKERS = "osD^vPX"

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.labelsize": 10.0,
    "axes.titlesize": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.minor.width": 0.5,
    "ytick.minor.width": 0.5,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.5,
    "hatch.linewidth": 0.5,
    "mathtext.fontset": "stixsans",
    "savefig.dpi": 200,
    "pdf.fonttype": 42,  # text stays text
}
POINT_STYLE: Any = {
    "markersize": 4.5,
    "markeredgecolor": "white",
    "markeredgewidth": 0.6,
    "elinewidth": 1.0,
    "capsize": 2.0,
    "capthick": 1.0,
    "zorder": 3,
}
POINTS = 24  # simulated layers shown, evenly spread over the axis

LAYER_WORDS = {
    "gamma": r"bias strength $\gamma$",
    "c": "correlation of two inputs $c$",
    "q": "signal variance $q$",
    "chi": r"gradient susceptibility $\chi$",
}


def require_matplotlib() -> None:
    """ImportError that says how to get matplotlib, where there is none."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ImportError("figures need matplotlib, which is not installed: pip install 'igbfast[plot]'") from None


def require_variable(dataset: object, name: str, made_by: str) -> None:
    """An error if this is not a dataset that has the variable, and so not what `made_by` returns."""
    if not isinstance(dataset, xr.Dataset):
        raise TypeError(f"dataset must be what {made_by} returns, got {_checks.shown(dataset)}")
    if name not in dataset:
        raise ValueError(f"dataset must be what {made_by} returns, got one that has no {name}")


def require_networks(dataset: xr.Dataset, name: str, made_by: str) -> None:
    """The same, if the variable is not one by network."""
    require_variable(dataset, name, made_by)
    if "network" not in dataset[name].dims:
        raise ValueError("dataset must have the dimension network: to choose one of them use dataset.isel(network=[0])")


def same_ensemble(dataset: xr.Dataset, ens: object) -> Ensemble:
    """The ensemble, if it is that of the dataset."""
    ens = as_ensemble(ens)
    said = {"activation": str(ens.activation), "sigma_w2": ens.sigma_w2, "sigma_b2": ens.sigma_b2}
    said |= {name: value if isinstance(value, float) else str(value) for name, value in ens.extras.items()}
    for name, value in said.items():
        if dataset.attrs.get(name) != value:
            raise ValueError(
                f"ens must be the ensemble of the dataset, which has {name}={dataset.attrs.get(name)!r}, got {ens!r}"
            )
    if "Gaussian" not in dataset.attrs["input_data"]:
        raise ValueError("ens must be left out for given inputs: the theory drawn is that of independent Gaussian ones")
    return ens


def new_axes(width: float = 4.8) -> Axes:
    """Axes of a figure of their own, so many inches wide."""
    import matplotlib.pyplot as plt

    ax: Axes = plt.figure(figsize=(width, 3.6), layout="constrained").subplots()
    return ax


def cycled(choices: Sequence[Any], index: int) -> Any:
    """The choice of the index; after the last comes the first again."""
    return choices[index % len(choices)]


def ensemble_title(dataset: xr.Dataset) -> str:
    """Activation, pool and the like, sigma_w2 and sigma_b2."""
    from ._tables import network_words

    attrs = dataset.attrs
    return rf"{network_words(attrs)}   $\sigma_w^2 = {attrs['sigma_w2']:g}$, $\sigma_b^2 = {attrs['sigma_b2']:g}$"


def shown_layers(depth: int) -> list[int]:
    """Layers evenly spread over a logarithmic axis, each once."""
    return sorted({round(layer) for layer in np.geomspace(1, depth, POINTS)})


def set_layers(ax: Axes, depth: int) -> None:
    """A logarithmic axis over the layers, with plain numbers."""
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    if depth > 1:
        ax.set_xscale("log")
        ax.set_xlim(0.87, depth * 1.15)
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        ax.xaxis.set_minor_formatter(NullFormatter())


def plain_number(value: float, _: object) -> str:
    """For matplotlib's FuncFormatter: no powers of ten."""
    return f"{value:,g}"


def set_scale(ax: Axes, values: NDArray[np.float64]) -> None:
    """Logarithmic where the positive values span more than a factor of 30; limits from theory, not from error bars."""
    from matplotlib.ticker import FuncFormatter

    positive = values[np.isfinite(values) & (values > 0.0)]
    if positive.size and positive.max() > 30.0 * positive.min():
        ax.set_yscale("log", nonpositive="mask")
        ax.set_ylim(positive.min() / 2.0, positive.max() * 2.0)
        if positive.min() > 1e-4 and positive.max() < 1e4:
            ax.yaxis.set_major_formatter(FuncFormatter(plain_number))
    else:
        ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))


def draw_neutrality(ax: Axes) -> None:
    """The line gamma = 1 and what lies on either side of it."""
    ax.axhline(1.0, color=GREY, linewidth=0.8, linestyle=":", zorder=0)
    low, high = ax.get_ylim()
    if low < 1.0 < high:
        ax.annotate(
            "prejudice", (0.995, 1.0), xytext=(0, 3), textcoords="offset points", va="bottom", **margin_words(ax)
        )
        ax.annotate(
            "neutrality", (0.995, 1.0), xytext=(0, -4), textcoords="offset points", va="top", **margin_words(ax)
        )


def margin_words(ax: Axes) -> dict[str, Any]:
    """Style of small words at the right edge, at a height that is a number of the y axis."""
    return {"color": GREY, "fontsize": 8, "ha": "right", "xycoords": ax.get_yaxis_transform()}
