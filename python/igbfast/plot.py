"""Figures: theory as lines, simulation as points with error bars, in colours that everybody can tell apart.

Needs matplotlib, which is imported when a figure is drawn: `pip install 'igbfast[plot]'`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from . import _checks
from .validation import Validation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_validations", "require_matplotlib", "validations"]

# The palette of Okabe and Ito (2008), safe for the colour-blind and distinct in grey.
_BLUE, _VERMILLION, _GREEN, _BLACK, _GREY = "#0072B2", "#D55E00", "#009E73", "#000000", "#767676"

_STYLE: Any = {
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
    "mathtext.fontset": "stixsans",
    "savefig.dpi": 200,
    "pdf.fonttype": 42,  # text stays text
}
_POINTS = 24  # simulated layers shown, evenly spread over the axis


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
    >>> import igbfast.plot
    >>> ens = igb.Ensemble("relu", sigma_w2=2.0)
    >>> result = igb.validate(ens, width=200, depth=5, inputs=20)
    >>> igb.plot.validations(result).savefig("relu.png")  # doctest: +SKIP
    """
    require_matplotlib()
    import matplotlib.pyplot as plt

    figure = plt.figure()
    draw_validations(figure, results)
    return figure


def require_matplotlib() -> None:
    """ImportError that says how to get matplotlib, where there is none."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ImportError("figures need matplotlib, which is not installed: pip install 'igbfast[plot]'") from None


def draw_validations(figure: Figure, results: Sequence[Validation]) -> None:
    """Draw on an empty figure, which gets the size that suits the number of columns."""
    import matplotlib as mpl

    if not results:
        raise ValueError("results must be at least one Validation, got none")
    for result in results:
        if not isinstance(result, Validation):
            raise TypeError(f"results must be Validation objects, got {_checks.shown(result)}")
    with mpl.rc_context(_STYLE):
        figure.set_size_inches(1.0 + 3.5 * len(results), 7.4)
        figure.set_layout_engine("constrained", h_pad=0.06, w_pad=0.08)
        axes = figure.subplots(3, len(results), sharex="col", squeeze=False)
        rows: tuple[Callable[[Axes, xr.Dataset], None], ...] = (_draw_variances, _draw_gamma, _draw_correlation)
        for column, result in enumerate(results):
            for row, draw in enumerate(rows):
                draw(axes[row, column], result.dataset)
                _set_layers(axes[row, column], result.dataset.sizes["layer"])
            axes[0, column].set_title(_title(result.dataset), pad=10)
            axes[-1, column].set_xlabel("layer")
        for ax in axes[:, 1:].flat:
            ax.set_ylabel("")
        figure.align_ylabels(axes[:, 0])
        figure.supxlabel(_footnote([result.dataset for result in results]), fontsize=8, color=_GREY)


def _draw_variances(ax: Axes, dataset: xr.Dataset) -> None:
    _draw(ax, dataset, "sigma_mu2", _BLUE, "o", r"$\sigma_\mu^2$ of the node centres")
    _draw(ax, dataset, "sigma_y2", _VERMILLION, "s", r"$\sigma_y^2$ around the centres")
    _set_scale(ax, np.concatenate([dataset[f"{name}_theory"].values for name in ("sigma_mu2", "sigma_y2")]))
    ax.set_ylabel(r"variances $\sigma_\mu^2$, $\sigma_y^2$")
    _add_legend(ax, "best", labelcolor="linecolor")


def _draw_gamma(ax: Axes, dataset: xr.Dataset) -> None:
    _draw(ax, dataset, "gamma", _GREEN, "o", r"$\gamma$")
    _set_scale(ax, dataset["gamma_theory"].values)
    ax.axhline(1.0, color=_GREY, linewidth=0.8, linestyle=":", zorder=0)
    low, high = ax.get_ylim()
    if low < 1.0 < high:
        ax.annotate("prejudice", (0.995, 1.0), xytext=(0, 3), textcoords="offset points", va="bottom", **_words(ax))
        ax.annotate("neutrality", (0.995, 1.0), xytext=(0, -4), textcoords="offset points", va="top", **_words(ax))
    ax.set_ylabel(r"bias strength $\gamma = \sigma_\mu^2 / \sigma_y^2$")


def _draw_correlation(ax: Axes, dataset: xr.Dataset) -> None:
    layers = _points(dataset.sizes["layer"])
    gamma = dataset["gamma"].sel(layer=layers).values
    label = r"$\gamma / (1 + \gamma)$, by nodes"
    ax.plot(layers, gamma / (1.0 + gamma), "D", color=_GREEN, markersize=7, fillstyle="none", label=label, zorder=2)
    _draw(ax, dataset, "c", _BLACK, "o", "$c$, by pairs of inputs")
    ax.set_ylim(-0.05, 1.05)
    ax.set_ylabel("correlation of two inputs $c$")
    _add_legend(ax, "lower right")


def _add_legend(ax: Axes, place: Literal["best", "lower right"], **style: Any) -> None:
    """Markers and names; error bars speak for themselves."""
    handles, labels = ax.get_legend_handles_labels()
    markers = [handle[0] if isinstance(handle, tuple) else handle for handle in handles]
    ax.legend(markers, labels, loc=place, handlelength=1.0, borderaxespad=0.3, **style)


def _words(ax: Axes) -> dict[str, Any]:
    return {"color": _GREY, "fontsize": 8, "ha": "right", "xycoords": ax.get_yaxis_transform()}


def _draw(ax: Axes, dataset: xr.Dataset, name: str, colour: str, marker: str, label: str) -> None:
    """Theory as a line, theory with the effect of the finite width dashed, simulation as points."""
    theory, shift = dataset[f"{name}_theory"].values, dataset[f"{name}_shift"].values
    ax.plot(dataset["layer"].values, theory + shift, color=colour, linewidth=1.0, linestyle=(0, (3, 1.5)), zorder=1)
    ax.plot(dataset["layer"].values, theory, color=colour, zorder=1)
    at = dataset.sel(layer=_points(dataset.sizes["layer"]))
    ax.errorbar(
        at["layer"].values,
        at[name].values,
        at[f"{name}_se"].values,
        fmt=marker,
        color=colour,
        markersize=4.5,
        markeredgecolor="white",
        markeredgewidth=0.6,
        elinewidth=1.0,
        capsize=2.0,
        capthick=1.0,
        label=label,
        zorder=3,
    )


def _points(depth: int) -> list[int]:
    """Layers evenly spread over a logarithmic axis, each once."""
    return sorted({round(layer) for layer in np.geomspace(1, depth, _POINTS)})


def _set_layers(ax: Axes, depth: int) -> None:
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    if depth > 1:
        ax.set_xscale("log")
        ax.set_xlim(0.87, depth * 1.15)
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        ax.xaxis.set_minor_formatter(NullFormatter())


def _set_scale(ax: Axes, values: NDArray[np.float64]) -> None:
    """Logarithmic where the positive values span more than a factor of 30; limits from theory, not from error bars."""
    from matplotlib.ticker import FuncFormatter

    positive = values[np.isfinite(values) & (values > 0.0)]
    if positive.size and positive.max() > 30.0 * positive.min():
        ax.set_yscale("log", nonpositive="mask")
        ax.set_ylim(positive.min() / 2.0, positive.max() * 2.0)
        if positive.min() > 1e-4 and positive.max() < 1e4:
            ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    else:
        ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))


def _title(dataset: xr.Dataset) -> str:
    attrs = dataset.attrs
    return rf"{attrs['activation']}   $\sigma_w^2 = {attrs['sigma_w2']:g}$, $\sigma_b^2 = {attrs['sigma_b2']:g}$"


def _footnote(datasets: Sequence[xr.Dataset]) -> str:
    attrs = datasets[0].attrs
    same = all(dataset.attrs[key] == attrs[key] for dataset in datasets for key in ("width", "networks", "inputs"))
    key = "solid: theory, infinite width   dashed: expected at this width   points: simulation ± 1 standard error"
    if not same:
        return key
    return f"{key}\n{attrs['networks']:,} networks of width {attrs['width']:,}, {attrs['inputs']:,} inputs each"
