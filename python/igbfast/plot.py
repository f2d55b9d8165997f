"""Figures: theory as lines, simulation as points with error bars, in colours and dashes that everybody can tell apart.

Needs matplotlib, which is imported when a figure is drawn: `pip install 'igbfast[plot]'`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from . import _checks, guessing
from ._gradient_theory import squared_gradients
from .distributions import COUNTED, merge, quantiles
from .ensemble import Ensemble, as_ensemble
from .meanfield import propagate
from .phases import PHASES
from .simulation import network_mean
from .validation import Validation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "DIAGRAM_SIZE",
    "HEATS",
    "class_fractions",
    "distributions",
    "draw_phase_diagram",
    "draw_validations",
    "finite_width",
    "gradients",
    "gradients_by_class",
    "phase_diagram",
    "require_matplotlib",
    "trajectories",
    "validations",
]

HEATS = ("gamma", "c", "q", "chi", "chi_q", "xi_c", "xi_q")
"""What a phase diagram can show in colours."""

DIAGRAM_SIZE = (5.2, 5.0)
"""Width and height of the figure of a phase diagram, in inches."""

# The palette of Okabe and Ito (2008), safe for the colour-blind and distinct in grey.
_BLUE, _VERMILLION, _GREEN, _BLACK, _GREY = "#0072B2", "#D55E00", "#009E73", "#000000", "#767676"
_COLOURS = (_BLUE, _VERMILLION, _GREEN, _BLACK, "#CC79A7", "#E69F00", "#56B4E9")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (4, 1.5, 1, 1.5)), (0, (1, 1.2)), (0, (8, 2)))
_MARKERS = "osD^vPX"

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
    "hatch.linewidth": 0.5,
    "mathtext.fontset": "stixsans",
    "savefig.dpi": 200,
    "pdf.fonttype": 42,  # text stays text
}
_POINT_STYLE: Any = {
    "markersize": 4.5,
    "markeredgecolor": "white",
    "markeredgewidth": 0.6,
    "elinewidth": 1.0,
    "capsize": 2.0,
    "capthick": 1.0,
    "zorder": 3,
}
_POINTS = 24  # simulated layers shown, evenly spread over the axis
_BINS = 50  # of a histogram of shares


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
    with mpl.rc_context(_STYLE):
        ax = plt.figure(figsize=DIAGRAM_SIZE, layout="constrained").subplots() if ax is None else ax
        draw_phase_diagram(ax, dataset, heat)
    return ax


def draw_phase_diagram(ax: Axes, dataset: xr.Dataset, heat: str | None) -> None:
    """Draw on empty axes."""
    import matplotlib as mpl

    from ._tables import network_words

    if heat is not None:
        _checks.choice("heat", heat, HEATS)
    with mpl.rc_context(_STYLE):
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
    names = [_ensemble_title(dataset) for dataset in drawn] if labels is None else list(labels)
    if len(names) != len(drawn):
        raise ValueError(f"labels must be as many as networks, got {len(names)} for {len(drawn)}")
    with mpl.rc_context(_STYLE):
        figure = plt.figure(figsize=(7.6, 6.0), layout="constrained")
        axes = figure.subplots(2, 2, sharex=True)
        for ax, (name, words) in zip(axes.flat, _TRAJECTORY.items(), strict=True):
            for index, dataset in enumerate(drawn):
                if name in dataset:
                    _draw_trajectory(ax, dataset, name, index, names[index])
            ax.set_ylabel(words)
            _set_layers(ax, max(dataset.sizes["layer"] for dataset in drawn))
        values = {name: _all_values(drawn, name) for name in _TRAJECTORY}
        for ax, name in zip(axes.flat, _TRAJECTORY, strict=True):
            if name != "c":
                _set_scale(ax, values[name])
        axes[0, 1].set_ylim(-0.05, 1.05)
        _draw_neutrality(axes[0, 0])
        axes[1, 1].axhline(1.0, color=_GREY, linewidth=0.8, linestyle=":", zorder=0)
        for ax in axes[1]:
            ax.set_xlabel("layer")
        figure.align_ylabels()
        handles, shown = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, shown, loc="outside upper center", ncols=min(len(shown), 2), handlelength=3.0)
    return figure


_TRAJECTORY = {
    "gamma": r"bias strength $\gamma$",
    "c": "correlation of two inputs $c$",
    "q": "signal variance $q$",
    "chi": r"gradient susceptibility $\chi$",
}


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
    with mpl.rc_context(_STYLE):
        ax = plt.figure(figsize=(4.8, 3.4), layout="constrained").subplots() if ax is None else ax
        _set_shares(ax, [density for _, density in laws if density is not None], classes)
        for index, (strength, (place, density)) in enumerate(zip(strengths, laws, strict=True)):
            style: Any = {"color": _cycled(_COLOURS, index), "linestyle": _cycled(_DASHES, index), "linewidth": 1.5}
            style["label"] = rf"$\gamma = {strength:g}$" if np.isfinite(strength) else r"$\gamma = \infty$"
            if density is None:  # all networks alike, at these places
                ax.vlines(place, *ax.get_ylim(), clip_on=False, **style)
            elif classes > 2:
                ax.stairs(density, place, baseline=None, **style)
            else:
                ax.plot(place, density, **style)
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=3.0)
    return ax


def gradients(dataset: xr.Dataset, *, ens: Ensemble | None = None, ax: Axes | None = None) -> Axes:
    """Draw the squared gradients by layer: width times the mean square over nodes, which has a limit as width grows.

    Parameters
    ----------
    dataset : xarray.Dataset
        What `simulate` returned with gradients. Points are medians over its networks, the band holds 90 % of them; of a
        single network, the mean over its inputs, and 90 % of these.
    ens : Ensemble, optional
        That of the networks: theory, g^(l) = chi(q^(l)) g^(l+1), is drawn as a line from the loss backwards. Without it
        the line goes through the point of the last layer, by products of the chi that were measured.
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
        If `dataset` is something else or has no gradients, or `ens` is another ensemble.

    Examples
    --------
    >>> import igbfast as igb
    >>> ens = igb.Ensemble("tanh", sigma_w2=2.5, sigma_b2=0.05)
    >>> ds = igb.simulate(ens, width=300, depth=20, networks=8, gradients="cross_entropy")
    >>> igb.plot.gradients(ds, ens=ens).figure.savefig("gradients.png")  # doctest: +SKIP
    """
    require_matplotlib()
    import matplotlib as mpl

    _require_networks(dataset, "gradient", "simulate(..., gradients=...)")
    theory, label = _gradient_line(dataset, ens)
    width, layers = dataset.attrs["width"], dataset["layer"].values
    if dataset.sizes["network"] > 1:
        low, middle, high = width * _spread(dataset["gradient"].values)
        of = "networks"
    else:
        low, high = width * dataset["gradient_quantile"].isel(network=0).sel(quantile=[0.05, 0.95]).values.T
        middle, of = width * dataset["gradient"].values[0], "inputs"
    with mpl.rc_context(_STYLE):
        ax = _new_axes() if ax is None else ax
        ax.fill_between(layers, low, high, color=_BLUE, alpha=0.2, linewidth=0, label=f"90 % of the {of}")
        ax.plot(layers, theory, color=_BLACK, label=label)
        _draw_points(ax, layers, middle, _BLUE, "o", "simulation")
        _set_gradient_scale(ax, np.concatenate([theory, low, high]), middle)
        ax.set_title(_ensemble_title(dataset))
        ax.legend(handlelength=2.0)
    return ax


def gradients_by_class(dataset: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw the squared gradients of the inputs labelled with the class that the network favours, and of all others.

    Parameters
    ----------
    dataset : xarray.Dataset
        What `simulate` returned with `gradients="cross_entropy"`. Points are medians over its networks, the bands hold
        90 % of them. Arrows at the lower edge stand for medians that are smaller by eighty decades and more.
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
        If `dataset` is something else or has no gradients by class.

    Examples
    --------
    >>> import igbfast as igb
    >>> ens = igb.Ensemble("relu", sigma_w2=3.0)
    >>> ds = igb.simulate(ens, width=300, depth=8, networks=8, gradients="cross_entropy", classes=3)
    >>> igb.plot.gradients_by_class(ds).figure.savefig("classes.png")  # doctest: +SKIP
    """
    require_matplotlib()
    import matplotlib as mpl

    _require_networks(dataset, "gradient_class", "simulate(..., gradients='cross_entropy')")
    by_class = dataset.attrs["width"] * dataset["gradient_class"]
    is_favoured = dataset["class"] == dataset["favoured"]
    layers = dataset["layer"].values
    with mpl.rc_context(_STYLE):
        ax = _new_axes() if ax is None else ax
        shown, medians = [], []
        for these, colour, marker, label in (
            (is_favoured, _VERMILLION, "s", "inputs of the favoured class"),
            (~is_favoured, _BLUE, "o", "inputs of the others"),
        ):
            values = by_class.where(these).mean("class").values
            low, middle, high = _spread(values[np.isfinite(values).all(axis=1)])
            if len(values) > 1:
                ax.fill_between(layers, low, high, color=colour, alpha=0.2, linewidth=0)
            ax.plot(layers, middle, color=colour, linewidth=1.0)
            _draw_points(ax, layers, middle, colour, marker, label)
            shown += [low, high]
            medians.append(middle)
        _set_gradient_scale(ax, np.concatenate(shown), np.concatenate(medians))
        for points, colour in zip(medians, (_VERMILLION, _BLUE), strict=True):
            _mark_below(ax, layers, points, colour)
        ax.set_title(_ensemble_title(dataset))
        ax.legend(handlelength=1.0)
    return ax


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

    _require(dataset, "mu_counts", "simulate(..., distributions=True) or distributions.merge")
    together, layers = merge(dataset), dataset["layer"].values
    theory = (
        {} if ens is None else _spread_in_theory(_same_ensemble(dataset, ens), len(layers), dataset.attrs["inputs"])
    )
    with mpl.rc_context(_STYLE):
        figure = plt.figure(figsize=(7.6, 6.0), layout="constrained")
        for ax, name in zip(figure.subplots(2, 2, sharex=True).flat, COUNTED, strict=True):
            values = quantiles(together, name).values
            for low, high, alpha in ((0, 4, 0.15), (1, 3, 0.3)):
                ax.fill_between(layers, values[:, low], values[:, high], color=_BLUE, alpha=alpha, linewidth=0)
            ax.plot(layers, values[:, 2], color=_BLUE, label="median; bands: 50 % and 90 %")
            for line in theory.get(name, []):
                ax.plot(layers, line, color=_BLACK, linestyle=_DASHES[1], linewidth=1.0, label="theory")
            ax.set_ylabel(_COUNTED_WORDS[name])
            _set_layers(ax, int(layers[-1]))
            if name in ("var", "q"):
                _set_scale(ax, values)
        for ax in figure.axes[2:]:
            ax.set_xlabel("layer")
        figure.align_ylabels()
        handles, labels = figure.axes[-1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, handlelength=3.0)
        figure.suptitle(_ensemble_title(dataset), fontsize=_STYLE["axes.titlesize"])
    return figure


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

    _require(dataset, "departure", "finite_width")
    measured = [str(name) for name in dataset["quantity"].values]
    if quantities is None:
        names = [name for name in _DEPARTURES if name in measured]
    else:
        names = [_checks.choice("quantities", name, measured) for name in quantities]
    depth = dataset.sizes["layer"]
    layer = depth if layer is None else _checks.integer("layer", layer, 1, depth)
    at = dataset.sel(layer=layer)
    with mpl.rc_context(_STYLE):
        ax = _new_axes(6.4) if ax is None else ax
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
        ax.set_title(_ensemble_title(dataset))
    return ax


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
            axes[0, column].set_title(_ensemble_title(result.dataset), pad=10)
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
    _draw_neutrality(ax)
    ax.set_ylabel(r"bias strength $\gamma = \sigma_\mu^2 / \sigma_y^2$")


def _draw_neutrality(ax: Axes) -> None:
    """The line gamma = 1 and what lies on either side of it."""
    ax.axhline(1.0, color=_GREY, linewidth=0.8, linestyle=":", zorder=0)
    low, high = ax.get_ylim()
    if low < 1.0 < high:
        ax.annotate("prejudice", (0.995, 1.0), xytext=(0, 3), textcoords="offset points", va="bottom", **_words(ax))
        ax.annotate("neutrality", (0.995, 1.0), xytext=(0, -4), textcoords="offset points", va="top", **_words(ax))


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
        label=label,
        **_POINT_STYLE,
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


def _plain_number(value: float, _: object) -> str:
    return f"{value:,g}"


def _set_scale(ax: Axes, values: NDArray[np.float64]) -> None:
    """Logarithmic where the positive values span more than a factor of 30; limits from theory, not from error bars."""
    from matplotlib.ticker import FuncFormatter

    positive = values[np.isfinite(values) & (values > 0.0)]
    if positive.size and positive.max() > 30.0 * positive.min():
        ax.set_yscale("log", nonpositive="mask")
        ax.set_ylim(positive.min() / 2.0, positive.max() * 2.0)
        if positive.min() > 1e-4 and positive.max() < 1e4:
            ax.yaxis.set_major_formatter(FuncFormatter(_plain_number))
    else:
        ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))


# ---- Phase diagrams --------------------------------------------------------------------------------------------------

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
    **_TRAJECTORY,
    "chi_q": r"variance susceptibility $\chi_q$",
    "xi_c": r"depth scale $\xi_c$",
    "xi_q": r"depth scale $\xi_q$",
}
_LOGARITHMIC = ("gamma", "q", "xi_c", "xi_q")
_DECADES = 6  # shown at most of what spans more of them


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
        bar.ax.yaxis.set_major_formatter(FuncFormatter(_plain_number))
        bar.ax.yaxis.set_minor_formatter(FuncFormatter(_plain_number) if high < 10.0 * low else NullFormatter())


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


_VISIBLE = 0.004  # share of the diagram that a phase in the legend has at least
_HATCH = "#8A8A8A"


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
        handles += ax.plot(dataset["sigma_b2"].values, line, color=_BLACK, linestyle=style, label=label, zorder=3)
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


# ---- Gradients, distributions, effects of the width ------------------------------------------------------------------

_COUNTED_WORDS = {
    "mu": r"centres of the nodes $\mu_i$",
    "var": r"variances of the nodes $\sigma_i^2$",
    "q": "signal variance of the inputs $q_{aa}$",
    "c": "correlation of the pairs $c_{ab}$",
}

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


def _require(dataset: object, name: str, made_by: str) -> None:
    if not isinstance(dataset, xr.Dataset):
        raise TypeError(f"dataset must be what {made_by} returns, got {_checks.shown(dataset)}")
    if name not in dataset:
        raise ValueError(f"dataset must be what {made_by} returns, got one that has no {name}")


def _require_networks(dataset: xr.Dataset, name: str, made_by: str) -> None:
    _require(dataset, name, made_by)
    if "network" not in dataset[name].dims:
        raise ValueError("dataset must have the dimension network: to choose one of them use dataset.isel(network=[0])")


def _same_ensemble(dataset: xr.Dataset, ens: object) -> Ensemble:
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


def _gradient_line(dataset: xr.Dataset, ens: Ensemble | None) -> tuple[NDArray[np.float64], str]:
    """Theory, or what the measured chi say, and its name."""
    attrs = dataset.attrs
    if ens is not None:
        trajectory = propagate(_same_ensemble(dataset, ens), dataset.sizes["layer"])
        return squared_gradients(ens, trajectory, attrs["gradients"], attrs["classes"]), "theory, infinite width"
    chi = np.append(dataset["chi"].mean("network").values[:-1], 1.0)
    last = attrs["width"] * np.median(dataset["gradient"].values[:, -1])
    with np.errstate(over="ignore", under="ignore"):
        return last * np.cumprod(chi[::-1])[::-1], r"products of the measured $\chi$"


def _spread(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quantiles 5, 50 and 95 % over the networks, positive for a logarithmic axis; nan where there is none."""
    if not len(values):
        return np.full((3, values.shape[1]), np.nan)
    least = np.finfo(np.float64).tiny  # squares below it are held as 0
    quantiles: NDArray[np.float64] = np.maximum(np.quantile(values, [0.05, 0.5, 0.95], axis=0), least)
    return quantiles


def _spread_in_theory(ens: Ensemble, depth: int, inputs: int) -> dict[str, list[NDArray[np.float64]]]:
    """The lines to draw for each distribution."""
    theory = propagate(ens, depth)
    centres = theory["sigma_mu2"].values + theory["sigma_y2"].values / inputs  # of means over so many inputs
    edge = 1.6448536269514722 * np.sqrt(centres)  # of the middle 90 % of a normal law
    lines = {name: [theory[name].values] for name in ("q", "c")}
    return lines | {"mu": [-edge, edge], "var": [theory["sigma_y2"].values]}


def _new_axes(width: float = 4.8) -> Axes:
    import matplotlib.pyplot as plt

    ax: Axes = plt.figure(figsize=(width, 3.6), layout="constrained").subplots()
    return ax


def _draw_points(
    ax: Axes, layers: NDArray[np.int64], values: NDArray[np.float64], colour: str, marker: str, label: str
) -> None:
    """Some of them, evenly spread, without error bars."""
    at = np.arange(0, len(layers), 1 + len(layers) // (_POINTS + 1))
    style = {key: _POINT_STYLE[key] for key in ("markersize", "markeredgecolor", "markeredgewidth", "zorder")}
    ax.plot(layers[at], values[at], marker, color=colour, label=label, **style)


def _set_gradient_scale(ax: Axes, values: NDArray[np.float64], points: NDArray[np.float64]) -> None:
    """Logarithmic, over as many decades as can be told apart, or some more as the points take; layers evenly.

    Powers of chi are a straight line.
    """
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("layer")
    ax.set_ylabel("width × mean squared gradient")
    positive = values[np.isfinite(values) & (values > 0.0)]
    if positive.size:
        highest = float(positive.max())
        ax.set_yscale("log", nonpositive="mask")
        lowest = max(float(positive.min()), highest / 10.0**_GRADIENT_DECADES)
        there = points[points > highest / 10.0**_POINT_DECADES]
        ax.set_ylim(min([lowest, *there]) / 2.0, highest * 2.0)


_GRADIENT_DECADES = 20
_POINT_DECADES = 80


def _mark_below(ax: Axes, layers: NDArray[np.int64], points: NDArray[np.float64], colour: str) -> None:
    """Arrows at the lower edge for points that lie below it, or have vanished altogether."""
    at = np.arange(0, len(layers), 1 + len(layers) // (_POINTS + 1))
    below = at[points[at] < ax.get_ylim()[0]]
    if below.size:
        edge = ax.get_xaxis_transform()
        ax.plot(
            layers[below],
            np.full(below.size, 0.02),
            "v",
            color=colour,
            transform=edge,
            label="median below the axis",
            zorder=3,
        )


def _draw_departure(ax: Axes, at: xr.Dataset, name: str, index: int) -> list[float]:
    """One quantity: open points where it is negative, its law as a line. The sizes that have to be seen."""
    width, departure, error = (at[key].values for key in ("width", "departure", "departure_se"))
    a, a_error = float(at["coefficient"]), float(at["coefficient_se"])
    if not np.isfinite(a):
        return []
    colour, marker = _cycled(_COLOURS, index), _cycled(_MARKERS, index)
    size, told = np.abs(departure), np.abs(departure) > error
    beside = width * 1.05 ** (index - 2)  # so that they do not hide one another
    for there, face in ((told & (departure > 0.0), colour), (told & (departure < 0.0), "white")):
        style: Any = _POINT_STYLE | {"markerfacecolor": face, "markeredgecolor": colour}
        ax.errorbar(beside[there], size[there], error[there], fmt=marker, color=colour, **style)
    at_most = (size + error)[~told]  # nan where nothing was measured
    ax.errorbar(
        width[~told], at_most, 0.3 * at_most, fmt="none", uplims=True, ecolor=colour, elinewidth=0.8, capsize=2.0
    )
    number = f"{a:.3g} ± {a_error:.2g}"
    label = rf"{_DEPARTURE_WORDS[name]}: $a$ = {number}"
    ax.plot(width, np.abs(a) / width, color=colour, linestyle=_cycled(_DASHES, index), linewidth=1.0, label=label)
    return [float(value) for value in np.abs(a) / width[[0, -1]] if value > 0.0]


# ---- Trajectories and class fractions --------------------------------------------------------------------------------


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
    colour = _cycled(_COLOURS, index)
    if f"{name}_se" not in dataset:
        style: Any = _cycled(_DASHES, index)
        ax.plot(dataset["layer"].values, dataset[name].values, color=colour, linestyle=style, label=label)
        return
    at = dataset.sel(layer=_points(dataset.sizes["layer"]))
    where, values, errors = at["layer"].values, at[name].values, at[f"{name}_se"].values
    ax.errorbar(where, values, errors, fmt=_cycled(_MARKERS, index), color=colour, label=label, **_POINT_STYLE)


def _all_values(datasets: Sequence[xr.Dataset], name: str) -> NDArray[np.float64]:
    return np.concatenate([dataset[name].values.ravel() for dataset in datasets if name in dataset] or [np.empty(0)])


def _cycled(choices: Sequence[Any], index: int) -> Any:
    return choices[index % len(choices)]


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


def _ensemble_title(dataset: xr.Dataset) -> str:
    from ._tables import network_words

    attrs = dataset.attrs
    return rf"{network_words(attrs)}   $\sigma_w^2 = {attrs['sigma_w2']:g}$, $\sigma_b^2 = {attrs['sigma_b2']:g}$"


def _footnote(datasets: Sequence[xr.Dataset]) -> str:
    attrs = datasets[0].attrs
    same = all(dataset.attrs[key] == attrs[key] for dataset in datasets for key in ("width", "networks", "inputs"))
    key = "solid: theory, infinite width   dashed: expected at this width   points: simulation ± 1 standard error"
    if not same:
        return key
    return f"{key}\n{attrs['networks']:,} networks of width {attrs['width']:,}, {attrs['inputs']:,} inputs each"
