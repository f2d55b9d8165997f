"""A diagnosis as a table for the terminal and as a figure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from rich.text import Text

from .._figure import BLACK, BLUE, GREEN, GREY, STYLE, VERMILLION, draw_neutrality, require_matplotlib, set_scale
from .._tables import _table, number
from ._findings import counted, gradient_profile, untrainable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import RenderableType

    from .diagnosis import Diagnosis

__all__ = ["figure", "table"]

_COLOURS = {"ordered": BLUE, "edge of chaos": GREEN, "chaotic": VERMILLION}
_ENDS = 12  # rows shown at either end of a deep model
_NAMES = {True: (26, 20), False: (16, 13)}  # columns that names take, with much space and with little
_BARS = 20  # classes shown one by one
_BACKING = {"facecolor": "white", "alpha": 0.75, "pad": 0.4, "linewidth": 0.0}  # of words that lie over lines and bars


def table(diagnosis: Diagnosis, width: int) -> Iterable[RenderableType]:
    """Heading, a row for each layer (of deep models the first and the last ones), and the findings."""
    dataset = diagnosis.dataset
    attrs = dataset.attrs
    mode = "training mode" if attrs["training"] else "evaluation mode"
    size = f"{counted(dataset.sizes['layer'], 'layer')}, {counted(attrs['parameters'], 'parameter')}"
    yield Text(f"{attrs['model']}: {size}, {counted(attrs['inputs'], 'input')}, {mode}", style="bold")
    yield ""
    yield _layer_table(dataset, width)
    yield ""
    loss = "cross-entropy with the labels" if attrs["loss"] == "cross_entropy" else "a random read-out of the outputs"
    yield Text(f"gradient: mean square of the derivatives of {loss} by a layer's outputs", style="dim")
    yield ""
    bad = "bold red" if any(untrainable(dataset)) else "yellow"
    for sentence in diagnosis.findings:
        off = "ordered:" in sentence or "chaotic:" in sentence
        yield Text(f"* {sentence}", style=bad if off else "")
    yield Text(f"phase: {diagnosis.phase}", style="green" if diagnosis.phase == "edge of chaos" else bad)


def _layer_table(dataset: xr.Dataset, width: int) -> RenderableType:
    wide = width >= 112
    columns = ["q", "gamma", "gradient", "chi"]
    if wide:
        columns = ["sigma_w2", "q", "gamma", "1 - c", "gradient", "chi", "theory"]
    result = _table(["layer", "name", "sees", *columns])
    for column in result.columns[1:3]:
        column.justify = "left"
    depth = dataset.sizes["layer"]
    folded = depth > 2 * _ENDS + 1
    for at in range(depth):
        if folded and _ENDS <= at < depth - _ENDS:
            if at == _ENDS:
                result.add_row("⋮", f"({depth - 2 * _ENDS} more)")
            continue
        row = dataset.isel(layer=at)
        texts = (str(row["name"].values), _sees(row))
        shortened = map(_shortened, texts, _NAMES[wide])
        result.add_row(str(at + 1), *shortened, *(_cell(row, column) for column in columns))
    return result


def _shortened(name: str, most: int) -> str:
    """The end of a name tells most."""
    return name if len(name) <= most else "…" + name[1 - most :]


def _sees(row: xr.Dataset) -> str:
    activation, source = str(row["activation"].values), str(row["source"].values)
    known = activation or "?"
    if source == "layer":
        return known
    return source if known == "linear" else f"{known} of {source}"


def _cell(row: xr.Dataset, column: str) -> str:
    name = {"1 - c": "one_minus_c", "theory": "chi_theory"}.get(column, column)
    value = float(row[name])
    if column in ("gamma", "1 - c") and not int(row["resolved"]):
        limit = float(row["gamma_limit"])
        return f"> {number(limit, 3)}" if column == "gamma" else f"< {number(1.0 / limit, 3)}"
    return "" if math.isnan(value) and column in ("chi", "theory", "sigma_w2") else number(value, 4)


def figure(diagnosis: Diagnosis) -> Figure:
    """Gamma by layer, squared gradients by layer with the phases behind them, class fractions."""
    require_matplotlib()
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    dataset = diagnosis.dataset
    guesses = "class_fraction" in dataset
    with mpl.rc_context(STYLE):
        made = plt.figure(figsize=(9.9 if guesses else 6.6, 3.2), layout="constrained")
        axes = made.subplots(1, 3 if guesses else 2)
        _draw_gamma(axes[0], dataset)
        _draw_gradients(axes[1], diagnosis)
        if guesses:
            _draw_guesses(axes[2], dataset)
        attrs = dataset.attrs
        layers = counted(dataset.sizes["layer"], "layer")
        made.suptitle(f"{attrs['model']}: {layers}, {attrs['inputs']:,} inputs", fontsize=10.0)
    return made


def _draw_gamma(ax: Axes, dataset: xr.Dataset) -> None:
    gamma = dataset["gamma"].values
    ax.plot(dataset["layer"].values, gamma, ".-", color=BLUE, markersize=4.0, linewidth=1.0)
    _set_layers(ax, dataset.sizes["layer"])
    ax.set_ylabel(r"bias strength $\gamma$")
    set_scale(ax, gamma)
    draw_neutrality(ax)
    for words in ax.texts:
        words.set_bbox(_BACKING)
    lost = dataset["layer"].values[dataset["resolved"].values == 0]
    if len(lost):
        ax.axvspan(lost[0] - 0.5, lost[-1] + 0.5, color=GREY, alpha=0.12, linewidth=0)
        ax.annotate("beyond the digits", ((lost[0] + lost[-1]) / 2.0, 0.5), xycoords=("data", "axes fraction"),
                    color=GREY, fontsize=8, ha="center")  # fmt: skip


def _draw_gradients(ax: Axes, diagnosis: Diagnosis) -> None:
    dataset = diagnosis.dataset
    layers = dataset["layer"].values
    lengths = dataset["gradient"].values * dataset["units"].values
    shown: dict[str, Any] = {}
    for part in diagnosis.stretches:
        band = ax.axvspan(part.first, part.last, color=_COLOURS[part.phase], alpha=0.15, linewidth=0)
        shown.setdefault(part.phase, band)
    points = np.where(lengths > 0.0, lengths, np.nan)
    ax.plot(layers, points, "." if not dataset.attrs["chain"] else ".-", color=BLACK, markersize=4.0, linewidth=1.0)
    if not dataset.attrs["chain"]:
        with np.errstate(over="ignore"):
            profile = np.exp(gradient_profile(dataset))
        (shown["compared by kind"],) = ax.plot(
            layers, np.where(profile > 0.0, profile, np.nan), "-", color=GREY, linewidth=1.0, zorder=1
        )
    if np.isfinite(points).any():
        ax.set_yscale("log")
    _set_layers(ax, dataset.sizes["layer"])
    ax.set_ylabel("squared length of the gradient")
    if shown:
        ax.legend(shown.values(), shown.keys(), handlelength=1.0)


def _draw_guesses(ax: Axes, dataset: xr.Dataset) -> None:
    fraction = dataset["class_fraction"].values
    fair = 1.0 / len(fraction)
    if len(fraction) > _BARS:
        fraction = np.sort(fraction)[::-1][:_BARS]
        ax.set_xlabel(f"classes by rank, {_BARS} of {dataset.sizes['class']}")
    else:
        ax.set_xlabel("class")
        ax.set_xticks(np.arange(len(fraction)))
    ax.bar(np.arange(len(fraction)), fraction, color=BLUE, width=0.8)
    ax.axhline(fair, color=GREY, linewidth=0.8, linestyle=":")
    ax.annotate("fair share", (1.0, fair), xytext=(0, 3), xycoords=ax.get_yaxis_transform(), textcoords="offset points",
                color=GREY, fontsize=8, ha="right", bbox=_BACKING)  # fmt: skip
    ax.set_ylim(0.0, 1.0)
    ax.set_ylabel("share of the inputs")


def _set_layers(ax: Axes, depth: int) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.set_xlim(0.0, depth + 1.0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("layer")
