"""Phase diagrams: regions with hatches, the lines between them, a number in colours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from . import _checks
from ._figure import BLACK, LAYER_WORDS, STYLE, plain_number, require_matplotlib
from .phases import PHASES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "DIAGRAM_SIZE",
    "HEATS",
    "draw_phase_diagram",
    "phase_diagram",
]

DIAGRAM_SIZE = (5.2, 5.0)
"""Width and height of the figure of a phase diagram, in inches."""
HEATS = ("gamma", "c", "q", "chi", "chi_q", "xi_c", "xi_q")
"""What a phase diagram can show in colours."""
_PLANE = {"sigma_w2", "sigma_b2"}
# Phase -> light fill and hatches, which tell it in print.
_REGIONS = {
    "ordered, persistent deep prejudice": ("#CFE3F1", "//"),
    "edge of chaos, transient deep prejudice": ("#F2F2F2", "xx"),
    "chaotic deep prejudice": ("#F6D9CC", "\\\\"),
    "prejudice": ("#FBF0CC", ".."),
    "neutrality line": ("#F2F2F2", "oo"),
    "neutrality": ("#FFFFFF", ""),
    "ordered, c of the inputs": ("#D9EFE6", "--"),
    "neither ordered nor chaotic": ("#E6DDEC", "++"),
    "no limit": ("#E3E3E3", "xx"),
}
_LINES = (
    ("edge_of_chaos", "edge of chaos", "-"),
    ("edge_of_chaos_variance", "edge of stable variance", (0, (4, 1.5))),
    ("neutrality_line", r"neutrality line, $\gamma = 1$", (0, (1, 1.2))),
)
_HEAT_WORDS = {
    **LAYER_WORDS,
    "chi_q": r"variance susceptibility $\chi_q$",
    "xi_c": r"depth scale $\xi_c$",
    "xi_q": r"depth scale $\xi_q$",
}
_LOGARITHMIC = ("gamma", "q", "xi_c", "xi_q")
_DECADES = 6  # shown at most of what spans more of them
_VISIBLE = 0.004  # share of the diagram that a phase in the legend has at least
_HATCH = "#8A8A8A"


def phase_diagram(dataset: xr.Dataset, *, heat: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw the phases of a network over sigma_b2 (across) and sigma_w2 (up), and the lines between them.

    Parameters
    ----------
    dataset : xarray.Dataset
        What `igbfast.phase_diagram` returned.
    heat : {"gamma", "c", "q", "chi", "chi_q", "xi_c", "xi_q"}, optional
        Show this number in colours, where it is finite and positive if its scale is logarithmic. Otherwise, and
        elsewhere, phases have hatches.
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
        If `dataset` is something else, or `heat` none of its names.

    Notes
    -----
    The edge of chaos is drawn twice where the line of stable gradients and that of stable variances differ, as for
    pools.

    Examples
    --------
    >>> import numpy as np
    >>> import igbfast as igb
    >>> diagram = igb.phase_diagram("tanh", np.linspace(0.1, 4.0, 40), np.linspace(0.0, 0.5, 40))
    >>> igb.plot.phase_diagram(diagram, heat="gamma").figure.savefig("phases.png")  # doctest: +SKIP
    """
    require_matplotlib()
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    if not isinstance(dataset, xr.Dataset) or "phase" not in dataset or set(dataset["phase"].dims) != _PLANE:
        raise TypeError(f"dataset must be what phase_diagram returns, got {_checks.shown(dataset)}")
    with mpl.rc_context(STYLE):
        ax = plt.figure(figsize=DIAGRAM_SIZE, layout="constrained").subplots() if ax is None else ax
        draw_phase_diagram(ax, dataset, heat)
    return ax


def draw_phase_diagram(ax: Axes, dataset: xr.Dataset, heat: str | None) -> None:
    """Draw on empty axes."""
    import matplotlib as mpl

    from ._tables import network_words

    if heat is not None:
        _checks.choice("heat", heat, HEATS)
    with mpl.rc_context(STYLE):
        across, up = dataset["sigma_b2"].values, dataset["sigma_w2"].values
        for set_scale, values in ((ax.set_xscale, across), (ax.set_yscale, up)):
            set_scale("log" if _is_geometric(values) else "linear")
        ax.set_xlim(_span(across))
        ax.set_ylim(_span(up))
        if heat is not None:
            _draw_heat(ax, dataset[heat].transpose("sigma_w2", "sigma_b2"))
        handles = _draw_phases(ax, dataset["phase"].transpose("sigma_w2", "sigma_b2"), heat is None)
        handles = _draw_lines(ax, dataset) + handles
        ax.set_xlabel(r"variance of the biases $\sigma_b^2$")
        ax.set_ylabel(r"variance of the weights $\sigma_w^2$")
        ax.set_title(network_words(dataset.attrs))
        if handles:
            ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, handlelength=3.0)


def _draw_heat(ax: Axes, values: xr.DataArray) -> None:
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.ticker import FuncFormatter, NullFormatter

    shown = np.ma.masked_invalid(values.values)
    if values.name in _LOGARITHMIC:
        shown = np.ma.masked_less_equal(shown, 0.0)
    if not shown.count():
        return
    low, high = float(shown.min()), float(shown.max())
    logarithmic = values.name in _LOGARITHMIC and high > 3.0 * low
    cut = logarithmic and high > low * 10.0**_DECADES
    low = high / 10.0**_DECADES if cut else low
    mesh = ax.pcolormesh(
        values["sigma_b2"].values,
        values["sigma_w2"].values,
        shown,
        norm=LogNorm(low, high) if logarithmic else Normalize(low, high),
        cmap="cividis",
        shading="nearest",
        rasterized=True,
    )
    words = _HEAT_WORDS[str(values.name)]
    bar = ax.figure.colorbar(mesh, ax=ax, label=words, extend="min" if cut else "neither", pad=0.02)
    if logarithmic and low > 1e-3 and high < 1e4:
        bar.ax.yaxis.set_major_formatter(FuncFormatter(plain_number))
        bar.ax.yaxis.set_minor_formatter(FuncFormatter(plain_number) if high < 10.0 * low else NullFormatter())


def _draw_phases(ax: Axes, phase: xr.DataArray, filled: bool) -> list[Any]:
    """Each with its hatches and its name, which goes to the legend where there is no room for it."""
    from matplotlib.patches import Patch

    across, up = phase["sigma_b2"].values, phase["sigma_w2"].values
    homeless = []
    for code, name in enumerate(PHASES):
        inside = phase.values == code
        if not inside.any():
            continue
        fill, hatch = _REGIONS[name]
        if min(inside.shape) > 1:
            style: Any = {"colors": [fill] if filled else "none", "hatches": [hatch], "zorder": 0.5}
            region = ax.contourf(across, up, inside.astype(float), levels=[0.5, 1.5], **style)
            region.set(edgecolor=_HATCH, linewidth=0.0)
        text = name.replace(", ", ",\n")
        place = _roomiest_place(inside, text)
        if place is None:
            if inside.mean() > _VISIBLE:
                colour = fill if filled else "none"
                homeless.append(Patch(facecolor=colour, edgecolor=_HATCH, hatch=hatch, label=name))
            continue
        ax.annotate(
            text,
            (across[place[1]], up[place[0]]),
            ha="center",
            va="center",
            bbox={"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
            zorder=4,
        )
    return homeless


def _roomiest_place(inside: NDArray[np.bool_], text: str) -> tuple[int, int] | None:
    """The point of a region that is furthest from its border, in units of the text's size; None without room."""
    from scipy.ndimage import distance_transform_edt

    lines = text.split("\n")
    height, width = 0.045 * len(lines), 0.016 * max(len(line) for line in lines)  # of the axes
    steps = (1.0 / height / inside.shape[0], 1.0 / width / inside.shape[1])
    room = distance_transform_edt(np.pad(inside, 1), sampling=steps)[1:-1, 1:-1]
    if room.max() < 0.6:
        return None
    best = np.argwhere(room > 0.98 * room.max())  # of many that are as good, the one nearest to their middle
    row, column = best[np.argmin(np.sum(((best - best.mean(axis=0)) / room.shape) ** 2, axis=1))]
    return int(row), int(column)


def _draw_lines(ax: Axes, dataset: xr.Dataset) -> list[Any]:
    """The lines of the diagram; one that coincides with an earlier one is not drawn again."""
    drawn: list[NDArray[np.float64]] = []
    handles = []
    for name, label, style in _LINES:
        line = dataset[name].values if name in dataset else np.empty(0)
        known = any(np.allclose(line, other, rtol=1e-6, equal_nan=True) for other in drawn)
        if known or not np.isfinite(line).any():
            continue
        drawn.append(line)
        ax.plot(dataset["sigma_b2"].values, line, color="white", linewidth=3.5, zorder=2.9)
        handles += ax.plot(dataset["sigma_b2"].values, line, color=BLACK, linestyle=style, label=label, zorder=3)
    return handles


def _is_geometric(values: NDArray[np.float64]) -> bool:
    """Whether a grid is evenly spread over a logarithmic axis, and not over a plain one."""
    if values.size < 3 or values.min() <= 0.0:
        return False
    even, logs = np.diff(values), np.diff(np.log(values))
    return bool(np.ptp(logs) < 1e-6 * abs(logs[0]) and np.ptp(even) > 1e-3 * abs(even[0]))


def _span(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    return (low, high) if low < high else (low - 0.5, high + 0.5)
