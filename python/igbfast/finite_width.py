"""How finite networks depart from theory: the coefficient of 1/width, measured over widths from ten to a million.

departure(width) = a / width + b / width^2 + ..., layer by layer; a is fitted, with its error.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import _checks, meanfield, simulation
from ._gradient_theory import LOSSES, squared_gradients
from ._inputs import Chunks, Given
from ._progress import Step, progress_bar
from .ensemble import Ensemble
from .kernel import kernel
from .simulation import Request

__all__ = ["QUANTITIES", "finite_width"]

FloatArray = NDArray[np.float64]

WIDTHS = (10, 30, 100, 300, 1000, 3000, 10_000)

QUANTITIES = {
    "sigma_mu2": "E[sigma_mu2] / theory - 1",
    "sigma_y2": "E[sigma_y2] / theory - 1",
    "q": "E[q] / theory - 1",
    "gradient": "E[gradient] / theory - 1",
    "log_gamma": "E[log gamma] - log theory",
    "log_q": "E[log q] - log theory",
    "log_gradient": "E[log gradient] - log theory",
    "log_gamma_variance": "variance of log gamma over networks",
    "log_q_variance": "variance of log q over networks",
    "log_gradient_variance": "variance of log gradient over networks",
}
"""What is measured; each is zero at infinite width."""

_PLAIN = ("sigma_mu2", "sigma_y2", "q", "gradient")
_LOGARITHMIC = ("gamma", "q", "gradient")
_SUMMED = (*_PLAIN, *(f"log_{name}" for name in _LOGARITHMIC))  # those whose powers are summed over networks

_LEAST_NETWORKS = 8
_MOST_NETWORKS = 2**14  # of one width
_BATCH = 2**21  # network-layer-inputs run at once, so that results take little memory

_SKEWED = 0.2
"""A mean over networks counts while its skewness, which a few large ones cause, is below this."""


def finite_width(
    ens: Ensemble,
    *,
    widths: Sequence[int] = WIDTHS,
    depth: int,
    inputs: int | ArrayLike = 100,
    networks: int = 16,
    seed: int = 0,
    method: str = "auto",
    dtype: DTypeLike = "float32",
    gradients: str | None = None,
    classes: int = 10,
    progress: bool | None = None,
) -> xr.Dataset:
    """Measure the departure from theory at several widths, and fit its coefficient of 1/width in every layer.

    Parameters
    ----------
    ens : Ensemble
        The law of the networks.
    widths : sequence of int, optional
        At least two different ones, from 2 on.
    depth : int
        Number of layers.
    inputs : int or array_like of shape (n, features), optional
        As for `simulate`. Theory is that of `propagate` for a number of inputs, of `kernel` for an array.
    networks : int, optional
        How many of the largest width, at least 8. Of smaller ones as many as cost the same time, up to 16,384.
    seed, method, dtype : optional
        As for `simulate`. By default no width takes more memory than inputs x inputs.
    gradients : {None, "readout", "cross_entropy"}, optional
        Measure the squared gradients of this loss as well; `inputs` must then be a number.
    classes : int, optional
        Outputs of the head.
    progress : bool, optional
        As for `simulate`; Ctrl-C stops the run.

    Returns
    -------
    xarray.Dataset
        Over (quantity, width, layer): `departure`, its standard error over independent networks `departure_se`, and
        `share`, the part of each width in the fit. Over (quantity, layer): `coefficient` a of 1/width and `curvature` b
        of 1/width^2, each with `<name>_se`; `radius`, the width at which the orders become alike: the first order alone
        describes networks that are much wider; `chi2`, the fit's chi^2 per degree of freedom. Over width: `networks`.

        The quantities, as far as they were measured: `sigma_mu2`, `sigma_y2`, `q`, `gradient`, relative departures of
        means; `log_gamma`, `log_q`, `log_gradient`, departures of mean logarithms (which are different things: the
        logarithm of a mean is not the mean of the logarithms); and `log_gamma_variance`, `log_q_variance`,
        `log_gradient_variance`, variances over networks, whose a says by how much one network strays.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type, or a run does not fit into memory; before any work.

    Warns
    -----
    RuntimeWarning
        If numbers overflowed or lost their digits at the largest width.

    Notes
    -----
    A departure is nan where theory is zero, where a network has no logarithm (gamma <= 0 happens to narrow ones), and
    where so few networks carry a mean that its error bar would be wrong.

    The orders beyond a / width are fitted as normal numbers of the size a (rho / width)^k, k = 1 to 4, and each rho
    from 1 to 64 counts by the likelihood of the data under it. So narrow widths have a share in a only as far as the
    next orders are small there, and the uncertainty about these is part of the standard error (Lepage et al.,
    Constrained curve fitting, 2002).

    Examples
    --------
    The scale of a critical ReLU network drifts from layer to layer: var(log q) = 5 layer / width, to first order.

    >>> import igbfast as igb
    >>> ens = igb.Ensemble("relu", sigma_w2=2.0)
    >>> x = [[1.0] * 50, [1.001] * 50]  # as good as one input, of given length
    >>> ds = igb.finite_width(ens, widths=[30, 100, 300], depth=4, inputs=x)
    >>> drift = ds.sel(quantity="log_q_variance", layer=4)
    >>> bool(abs(drift.coefficient - (5 * 4 - 3)) < 5 * drift.coefficient_se)  # the inputs' own length does not drift
    True
    """
    runs = _runs(ens, widths, depth, inputs, networks, seed, method, dtype, gradients, classes)
    with progress_bar(f"finite width {ens.activation}, {len(runs)} widths", progress) as step:
        theory = _theory(runs[-1], gradients, classes)
        sums = list(_measured(runs, theory, step))
    dataset = _labelled(runs, sums, gradients)
    _warn_of_lost_layers(dataset)
    return dataset


# ---- The runs --------------------------------------------------------------------------------------------------------


def _runs(
    ens: Ensemble,
    widths: Sequence[int],
    depth: int,
    inputs: int | ArrayLike,
    networks: int,
    seed: int,
    method: str,
    dtype: DTypeLike,
    gradients: str | None,
    classes: int,
) -> list[Request]:
    """What to run for each width, from the smallest to the largest; the work is about even."""
    sizes = _checked_widths(widths)
    networks = _checks.integer("networks", networks, _LEAST_NETWORKS, _MOST_NETWORKS)
    asked: dict[str, Any] = {}
    if gradients is not None:
        asked = {"gradients": _checks.choice("gradients", gradients, LOSSES), "classes": classes}
    for size in sizes[:-1]:  # a pool must divide every one
        simulation.checked(ens, size, depth, 2, networks, seed, method, dtype)
    widest = simulation.checked(ens, sizes[-1], depth, inputs, networks, seed, method, dtype, **asked)
    if isinstance(widest.inputs, Chunks):
        raise TypeError(f"inputs must be a number of inputs or an array here, got {_checks.shown(inputs)}")
    if isinstance(widest.inputs, Given) and gradients is not None:
        raise ValueError(
            "gradients of given inputs have no theory to depart from: inputs must be a number of inputs with "
            f"gradients={gradients!r}, got {_checks.shown(np.asarray(inputs))}"
        )
    runs = [simulation.fitted(replace(widest, width=width, networks=1)) for width in sizes]
    share = networks * runs[-1].cost
    return [replace(run, networks=int(min(max(share / run.cost, networks), _MOST_NETWORKS))) for run in runs]


def _checked_widths(widths: Sequence[int]) -> list[int]:
    try:
        listed = list(widths)
    except TypeError:
        raise TypeError(f"widths must be a list of integers, got {_checks.shown(widths)}") from None
    sizes = sorted({_checks.integer("widths", width, 2, simulation.MAX_WIDTH) for width in listed})
    if len(sizes) < 2 or len(sizes) < len(listed):
        raise ValueError(f"widths must be at least two different ones, got {_checks.shown(listed)}")
    return sizes


def _theory(run: Request, gradients: str | None, classes: int) -> dict[str, FloatArray]:
    """Each quantity of every layer at infinite width."""
    if isinstance(run.inputs, Given):
        dataset = kernel(run.ens, inputs=run.inputs.whole(), depth=run.depth, progress=False)
    else:
        dataset = meanfield.propagate(run.ens, run.depth)
    theory = {name: np.asarray(dataset[name].values) for name in ("sigma_mu2", "sigma_y2", "gamma", "q")}
    if gradients is not None:
        theory["gradient"] = squared_gradients(run.ens, dataset, gradients, classes)
    return theory


def _measured(runs: Sequence[Request], theory: Mapping[str, FloatArray], step: Step) -> Iterator[_PowerSums]:
    """Power sums over the networks of each width, which run in batches, each network on random numbers of its own."""
    total = sum(run.cost for run in runs)
    first_network, done = 0, 0.0
    for run in runs:
        sums = _PowerSums(theory)
        batch = max(1, _BATCH // (run.depth * run.count))
        for begin in range(0, run.networks, batch):
            part = replace(run, networks=min(batch, run.networks - begin))
            share, before = part.cost / total, done
            results = simulation.run(part, lambda f, b=before, s=share: step(b + s * f), first_network)  # type: ignore[misc]
            sums.add(results, part.width)
            first_network += part.networks
            done += share
            step(done)
        yield sums


class _PowerSums:
    """Sums over networks of the first four powers of each departure: relative ones, and those of logarithms.

    Departures are small against their spread, or of its order, so that nothing cancels in the central moments.
    """

    def __init__(self, theory: Mapping[str, FloatArray]) -> None:
        self._theory = theory
        depth = len(theory["q"])
        self.count = 0
        self.names = [name for name in _SUMMED if name.removeprefix("log_") in theory]
        self._sums = {name: np.zeros((4, depth)) for name in self.names}

    def add(self, results: Mapping[str, FloatArray], width: int) -> None:
        self.count += len(results["q"])
        for name in self.names:
            bare = name.removeprefix("log_")
            values, theory = _by_layer(bare, results[bare], width), self._theory[bare]
            with np.errstate(all="ignore"):
                if name == bare:
                    departure = np.where(theory > 0.0, values / theory - 1.0, np.nan)
                else:
                    departure = simulation.logarithm(values) - simulation.logarithm(theory)
                self._sums[name] += [(departure**power).sum(axis=0) for power in (1, 2, 3, 4)]

    def estimates(self, name: str) -> tuple[FloatArray, FloatArray]:
        """Mean departure, or variance, and its standard error; nan where a few networks carry the mean."""
        n = self.count
        with np.errstate(all="ignore"):
            m, s2, s3, s4 = self._sums[name.removesuffix("_variance")] / n
            second = s2 - m**2
            third = s3 - 3.0 * m * s2 + 2.0 * m**3
            fourth = s4 - 4.0 * m * s3 + 6.0 * m**2 * s2 - 3.0 * m**4
            if name.endswith("_variance"):
                kurtosis = np.maximum(fourth / second**2, 3.0)  # of normal numbers; a small sample shows less
                variance = second * n / (n - 1)
                return variance, variance * np.sqrt((kurtosis - 1.0) / n)
            error = np.sqrt(second / (n - 1))
            skewness = np.abs(third) / second**1.5 / np.sqrt(n)
            # Of n normal numbers alone it would scatter by sqrt(6) / n.
            carried = np.isfinite(m) & ~(skewness > _SKEWED + 3.0 * np.sqrt(6.0) / n)
        return np.where(carried, m, np.nan), np.where(carried, error, np.nan)


def _by_layer(name: str, values: FloatArray, width: int) -> FloatArray:
    """(network, layer): gradients come for each input, as a mean over the `width` nodes."""
    return width * values.mean(axis=2) if name == "gradient" else values


# ---- The fit ---------------------------------------------------------------------------------------------------------


class Fit(NamedTuple):
    """a / width + b / width^2 + ... through the departures of one layer."""

    coefficient: float
    coefficient_se: float
    curvature: float
    curvature_se: float
    radius: float
    """The width at which the orders become alike, rho."""
    chi2: float
    """Per degree of freedom."""
    share: FloatArray
    """Of each width in the coefficient; they add up to 1."""


def fit(widths: FloatArray, departure: FloatArray, error: FloatArray) -> Fit:
    """The coefficient a, where the orders beyond may be as large as a (rho / width)^k, k = 1, 2, ...

    They are taken as normal numbers of that size, so that they add to the covariance of the data, and narrow widths
    lose their weight by as much as the data say: each rho counts by the likelihood of the data under it.
    """
    if len(widths) < 2:
        return _nothing(len(widths))
    x, data = 1.0 / widths, departure / error
    size = np.hypot(*_one_order(x[-3:], departure[-3:], error[-3:]))
    ratio = np.minimum(_RADII[:, None] * x, _FURTHEST)
    order = np.arange(1, _ORDERS + 1)
    orders = ratio[:, :, None] ** order * (x / error)[:, None]  # each beyond the first, at each width, for each rho
    for _ in range(2):  # the size is that of a itself
        covariance = size**2 * orders @ orders.swapaxes(1, 2)
        covariance += (1.0 + _ROUNDING * covariance.diagonal(axis1=1, axis2=2))[:, None] * np.eye(len(x))
        a, variance, chi2, weights, odds = _least_squares(covariance, x / error, data)
        mean = float(odds @ a)
        deviation = float(np.sqrt(odds @ (variance + a**2 - mean**2)))
        size = np.hypot(mean, deviation)
    # The second order given the first: what its covariance with the data makes of what the first leaves.
    second = size * _RADII
    pull = second[:, None] * size * orders[:, :, 0]
    left = np.linalg.solve(covariance, (data - a[:, None] * (x / error))[:, :, None])[:, :, 0]
    gain = np.linalg.solve(covariance, pull[:, :, None])[:, :, 0]
    b = (pull * left).sum(axis=1)
    b_variance = second**2 - (pull * gain).sum(axis=1) + (gain @ (x / error)) ** 2 * variance
    curvature = float(odds @ b)
    return Fit(
        coefficient=mean,
        coefficient_se=deviation,
        curvature=curvature,
        curvature_se=float(np.sqrt(max(odds @ (b_variance + b**2) - curvature**2, 0.0))),
        radius=float(np.exp(odds @ np.log(_RADII))),
        chi2=float(odds @ chi2) / (len(x) - 1),
        share=odds @ (weights * (x / error)),
    )


_RADII = np.geomspace(1.0, 64.0, 7)
"""Widths rho at which the orders may become alike; log-uniform before the data speak."""

_ORDERS = 4
"""Orders beyond the first."""

_FURTHEST = 3.0
"""Widths narrower than rho / 3 tell nothing anyway."""

_ROUNDING = 1e-12


def _least_squares(
    covariance: FloatArray, x: FloatArray, data: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """For each covariance: a, its variance, chi^2, how much each datum counts in a, and the covariance's likelihood."""
    root = np.linalg.cholesky(covariance)
    half = np.linalg.solve(root, np.stack([x, data], axis=1))
    white_x, white_data = half[:, :, 0], half[:, :, 1]
    variance = 1.0 / (white_x**2).sum(axis=1)
    a = variance * (white_x * white_data).sum(axis=1)
    chi2 = ((white_data - a[:, None] * white_x) ** 2).sum(axis=1)
    weights = variance[:, None] * np.linalg.solve(root.swapaxes(1, 2), white_x[:, :, None])[:, :, 0]
    log_odds = 0.5 * np.log(variance) - 0.5 * chi2 - np.log(root.diagonal(axis1=1, axis2=2)).sum(axis=1)
    odds = np.exp(log_odds - log_odds.max())
    return a, variance, chi2, weights, odds / odds.sum()


def _one_order(x: FloatArray, departure: FloatArray, error: FloatArray) -> tuple[float, float]:
    """a and its standard error with no other order."""
    information = float(((x / error) ** 2).sum())
    return float((x * departure / error**2).sum()) / information, information**-0.5


def _nothing(count: int) -> Fit:
    nan = float("nan")
    return Fit(nan, nan, nan, nan, nan, nan, np.zeros(count))


def fit_variance(widths: FloatArray, variance: FloatArray, error: FloatArray) -> Fit:
    """The same for variances, whose errors are known in proportion to their true values, which the fit tells.

    In proportion to the measured ones, those that chance made small would weigh most.
    """
    if len(widths) < 2:
        return _nothing(len(widths))
    relative = error / variance
    expected = np.average(widths * variance, weights=relative**-2.0) / widths
    found = fit(widths, variance, relative * expected)
    for _ in range(2):
        fitted = found.coefficient / widths + found.curvature / widths**2
        near = (fitted > 0.5 * variance) & (fitted < 2.0 * variance)
        found = fit(widths, variance, relative * np.where(near, fitted, variance))
    return found


# ---- The result ------------------------------------------------------------------------------------------------------


def _labelled(runs: Sequence[Request], sums: Sequence[_PowerSums], gradients: str | None) -> xr.Dataset:
    widths = np.array([run.width for run in runs])
    names = [name for name in QUANTITIES if name.removesuffix("_variance") in sums[0].names]
    estimates = np.array([[s.estimates(name) for s in sums] for name in names])  # quantity, width, which, layer
    departure, error = estimates[:, :, 0], estimates[:, :, 1]
    usable = np.isfinite(departure) & (error > 0.0)
    share = np.zeros_like(departure)
    found = {name: np.full((len(names), runs[0].depth), np.nan) for name in _FITTED}
    for quantity, layer in np.ndindex(len(names), runs[0].depth):
        good = usable[quantity, :, layer]
        through = fit_variance if names[quantity].endswith("_variance") else fit
        result = through(widths[good].astype(float), departure[quantity, good, layer], error[quantity, good, layer])
        share[quantity, good, layer] = result.share
        for name, column in found.items():
            column[quantity, layer] = getattr(result, name)
    over, fitted = ("quantity", "width", "layer"), ("quantity", "layer")
    variables: dict[str, Any] = {
        "departure": (over, departure, {"long_name": "departure from theory", "units": "1"}),
        "departure_se": (over, error, {"long_name": "standard error of the departure over networks", "units": "1"}),
        "share": (over, share, {"long_name": "share in the coefficient of 1/width", "units": "1"}),
        "networks": ("width", [run.networks for run in runs], {"long_name": "number of networks"}),
    }
    for name, long_name in _FITTED.items():
        variables[name] = (fitted, found[name], {"long_name": long_name, "units": "1"})
    coordinates = {
        "quantity": ("quantity", names, {"long_name": "what departs from theory"}),
        "width": ("width", widths, {"long_name": "nodes in a layer"}),
        "layer": ("layer", np.arange(1, runs[0].depth + 1), {"long_name": "layer, 1 being the first with weights"}),
    }
    return xr.Dataset(variables, coordinates, _attributes(runs, names, gradients))


_FITTED = {
    "coefficient": "coefficient of 1/width",
    "coefficient_se": "standard error of the coefficient of 1/width",
    "curvature": "coefficient of 1/width^2",
    "curvature_se": "standard error of the coefficient of 1/width^2",
    "radius": "width at which the orders of 1/width become alike",
    "chi2": "chi^2 per degree of freedom",
}


def _attributes(runs: Sequence[Request], names: Sequence[str], gradients: str | None) -> dict[str, Any]:
    attrs = simulation.attributes(runs[-1])
    for name in ("width", "networks", "method", "features"):  # one for each width
        attrs.pop(name, None)
    attrs["description"] = "departures of finite networks from mean-field theory, and their coefficients of 1/width"
    attrs["methods"] = ", ".join(run.method for run in runs)
    attrs["gradients"] = gradients or "none"
    attrs["quantities"] = "; ".join(f"{name}: {QUANTITIES[name]}" for name in names)
    return attrs


def _warn_of_lost_layers(dataset: xr.Dataset) -> None:
    """Where a mean over the largest networks is missing that theory and any network have."""
    widest = dataset["departure"].isel(width=-1).sel(quantity=["sigma_y2", "q"]).values
    lost = dataset["layer"].values[~np.isfinite(widest).all(axis=0)]
    if lost.size:
        warnings.warn(
            f"nothing was measured in {simulation.spans(lost)} of {dataset.attrs['depth']} at the largest width: "
            "numbers overflowed or lost all digits (try dtype='float64'), or few networks carry the mean (try more)",
            RuntimeWarning,
            stacklevel=3,
        )
