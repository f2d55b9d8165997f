"""The lines and regions of the (sigma_b2, sigma_w2) plane: edge of chaos, neutrality line, phase diagram.

Along a line, the variance q is the unknown: chi = 1 or gamma = 1 give sigma_w2 as a function of q, and then
q = sigma_w2 V(q) + sigma_b2 gives sigma_b2. All sigma_b2 are searched at once on one row of q.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from . import _checks, _core
from ._correlation import CorrelationMap
from ._correlation_grid import attracting_correlations
from ._expectations import Expectations, FloatArray, Singles, one_device
from ._roots import bracketed_roots
from ._variance import FAR, FEW, PER_DECADE, Homogeneous, VarianceMap, is_one
from .activations import Activation, as_activation
from .ensemble import Ensemble
from .fixed_points import farthest
from .pools import Pool, as_pool

__all__ = ["PHASES", "edge_of_chaos", "neutrality_line", "phase_diagram"]

LOWEST = 1e-9
"""Smallest q on the lines where there are no biases; what lies below is the limit q -> 0."""

PHASES = (
    "ordered, persistent deep prejudice",
    "edge of chaos, transient deep prejudice",
    "chaotic deep prejudice",
    "prejudice",
    "neutrality line",
    "neutrality",
    "ordered, c of the inputs",
    "neither ordered nor chaotic",
    "no limit",
)
"""The phases of a diagram, by their code."""
ORDERED, AT_EDGE, CHAOTIC, PREJUDICE, NEUTRAL_LINE, NEUTRAL, INHERITED, RESIDUAL, NO_LIMIT = range(len(PHASES))


# ---- Lines -----------------------------------------------------------------------------------------------------------


def edge_of_chaos(
    activation: Activation | str, sigma_b2: ArrayLike, *, pool: Pool | None = None, kind: str = "gradient"
) -> Any:
    """The critical sigma_w2 of given biases: where gradients, or the signal variance, neither grow nor vanish.

    Parameters
    ----------
    activation : Activation or str
        The function phi.
    sigma_b2 : array_like
        Variance of the biases, finite, zero or positive.
    pool : MaxPool, MinPool or AvgPool, optional
        Pool over several nodes after the activation. The two critical values then differ.
    kind : {"gradient", "variance"}, optional
        `gradient`: the smallest sigma_w2 at which chi = sigma_w2 E[phi'^2] is 1 at the variance q that inputs of mean
        square 1 end at, be it infinite. `variance`: the largest sigma_w2 for which the variance can stay finite. An
        activation that grows more slowly than linearly keeps it finite at every sigma_w2; of the two parts of the
        variance, sigma_y2 alone then has a critical point, and that is the one of the gradients.

    Returns
    -------
    ndarray of float64, or a float64 scalar
        Of the shape of `sigma_b2`; nan where there is no such sigma_w2.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type.

    Notes
    -----
    A ReLU has 2 whatever the biases; with MaxPool(2), 4/3 and 4 pi / (3 pi + 2); with AvgPool(2), 4 and
    4 pi / (pi + 1). Without biases, the signal of tanh dies out up to its critical sigma_w2 = 1.

    For activations that dip below zero (GELU, SiLU, Mish) with small biases, q jumps from small to large before chi has
    come to 1: there is no edge, and the answer is nan.

    References
    ----------
    Poole et al., Exponential expressivity in deep neural networks through transient chaos (2016); When Bias Meets
    Trainability: Connecting Theories of Initialization (2026).

    Examples
    --------
    >>> import igbfast as igb
    >>> igb.edge_of_chaos("tanh", [0.0, 0.05]).round(6)
    array([1.      , 1.760955])
    >>> print(igb.edge_of_chaos("relu", 0.1, pool=igb.MaxPool(2)).round(6))
    1.333333
    >>> print(igb.edge_of_chaos("relu", 0.1, pool=igb.MaxPool(2), kind="variance").round(6))
    1.099923
    """
    kind = _checks.choice("kind", kind, ("gradient", "variance"))
    variance = VarianceMap(Expectations(as_activation(activation), as_pool(pool)))
    biases = _variances("sigma_b2", sigma_b2)
    flat = biases.ravel()
    found = _gradient_critical(variance, flat)
    if kind == "variance":
        found = _variance_critical(variance, flat, found)
    return found.reshape(biases.shape)[()]


def _gradient_critical(variance: VarianceMap, b: FloatArray) -> FloatArray:
    if not b.size or variance.expect.activation.orders == 0:
        return np.full(b.shape, np.nan)
    if variance.homogeneous and variance.infinity is not None:
        return np.full(b.shape, 1.0 / variance.infinity.slope2)

    def biases(q: FloatArray, here: Singles) -> FloatArray:
        return q - here.square / here.slope2

    found = _smallest_on_line(variance, b, biases, lambda q, here: 1.0 / here.slope2)
    for end, limit in ((0.0, variance.zero), (np.inf, variance.infinity)):
        if limit is not None:
            w = 1.0 / limit.slope2
            found = np.where(variance.limits(w, b, w + b) == end, np.fmin(found, w), found)
    return found


def _variance_critical(variance: VarianceMap, b: FloatArray, gradient: FloatArray) -> FloatArray:
    """The largest (q - sigma_b2) / V(q): q is a fixed point at that sigma_w2."""
    if variance.infinity is None and not variance.superlinear:
        return gradient
    if variance.homogeneous or not b.size:
        return np.full(b.shape, 1.0 / variance.gain_at_infinity)
    q, row = _row(variance, b, FAR * max(float(b.max()), 1.0))
    weights = (q[None, :] - b[:, None]) / row.square[None, :]
    top = np.clip(np.argmax(weights, axis=1), 1, q.size - 2)

    def rising(log_q: FloatArray, which: NDArray[np.intp]) -> FloatArray:
        here = variance.expect.single(np.exp(log_q))
        return here.square / (np.exp(log_q) - b[which]) - here.square_dq

    best = np.exp(bracketed_roots(rising, np.log(np.maximum(q[top - 1], b * (1.0 + 1e-12))), np.log(q[top + 1])))
    found: FloatArray = np.fmax((best - b) / variance.expect.single(best).square, weights.max(axis=1))
    if not variance.superlinear:
        found = np.fmax(found, 1.0 / variance.gain_at_infinity)
    if not variance.fades:
        return found
    at_zero = 1.0 / variance.gain_at_zero if variance.zero is not None else np.nan  # nan: q = 0 attracts at every w
    return np.where(b == 0.0, np.maximum(found, at_zero), found)


def neutrality_line(activation: Activation | str, sigma_b2: ArrayLike, *, pool: Pool | None = None) -> Any:
    """The sigma_w2 at which deep networks have gamma = 1, c = 1/2: between prejudice below and neutrality above.

    Parameters
    ----------
    activation : Activation or str
        The function phi.
    sigma_b2 : array_like
        Variance of the biases, finite, zero or positive.
    pool : MaxPool, MinPool or AvgPool, optional
        Pool over several nodes after the activation.

    Returns
    -------
    ndarray of float64, or a float64 scalar
        Of the shape of `sigma_b2`; nan where no sigma_w2 has c = 1/2 as the attracting correlation at the variance that
        inputs of mean square 1 end at (ReLU and its like: c = 1 everywhere). Of several, the smallest.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type.

    Notes
    -----
    From q = sigma_w2 V(q) + sigma_b2 and q/2 = sigma_w2 E[phi(u) phi(v)] + sigma_b2 at c = 1/2. An odd activation
    without biases has c = 0 there, and no neutrality line.

    References
    ----------
    When Bias Meets Trainability: Connecting Theories of Initialization (2026), where it is stepped along by 0.1.

    Examples
    --------
    >>> import igbfast as igb
    >>> igb.neutrality_line("tanh", [0.0, 0.05]).round(6)
    array([     nan, 2.378266])
    >>> print(igb.neutrality_line("relu", 0.1))
    nan
    """
    variance = VarianceMap(Expectations(as_activation(activation), as_pool(pool)))
    biases = _variances("sigma_b2", sigma_b2)
    return _neutral(variance, biases.ravel()).reshape(biases.shape)[()]


def _neutral(variance: VarianceMap, b: FloatArray) -> FloatArray:
    def weight(q: FloatArray) -> FloatArray:
        return 0.5 * q / variance.expect.split(0.5 * q, 0.5 * q).spread

    def biases(q: FloatArray, here: Singles) -> FloatArray:
        return q - weight(q) * here.square

    found = _smallest_on_line(variance, b, biases, lambda q, here: weight(q), highest=1e4)
    return np.where((b == 0.0) & (variance.expect.activation.parity == -1), np.nan, found)


OnLine = Callable[[FloatArray, Singles], FloatArray]


def _smallest_on_line(
    variance: VarianceMap, b: FloatArray, biases: OnLine, weights: OnLine, highest: float = FAR
) -> FloatArray:
    """The smallest sigma_w2 on a line given by `biases` and `weights` at every q, of those that end at that q."""
    found = np.full(b.shape, np.nan)
    if not b.size:
        return found
    largest = max(float(b.max()), 1.0)
    high = 1e2 * largest
    while True:  # until the line has left the biases that are asked for, upwards
        q, row = _row(variance, b, high)
        line = biases(q, row)
        if line[-1] > 2.0 * float(b.max()) or high >= highest * largest or not variance.reaches(1e2 * high):
            break
        high *= 1e2
    below = line[None, :] < b[:, None]
    which, node = np.nonzero(below[:, :-1] != below[:, 1:])

    def excess(log_q: FloatArray, member: NDArray[np.intp]) -> FloatArray:
        x = np.exp(log_q)
        return (biases(x, variance.expect.single(x)) - b[which[member]]) / x

    log_q: FloatArray = np.log(q)
    every = np.arange(which.size)
    roots: FloatArray = np.empty(which.shape)
    settled = np.zeros(which.shape, bool)
    if which.size > FEW:  # a spline through the nodes gives six digits or more, and its slopes the others in two steps
        from scipy.interpolate import CubicSpline

        spline = CubicSpline(log_q, line)
        roots = bracketed_roots(lambda x, member: spline(x) - b[which[member]], log_q[node], log_q[node + 1], 1e-9)
        for _ in range(2):
            step = excess(roots, every) * np.exp(roots) / spline(roots, 1)
            roots -= np.where(np.abs(step) < 1e-2, step, 0.0)
            settled = np.abs(step) < 1e-7
    rest = every[~settled]
    left, right = log_q[node[rest]], log_q[node[rest] + 1]
    roots[rest] = bracketed_roots(lambda x, member: excess(x, rest[member]), left, right, 1e-12)
    roots = np.exp(roots)
    w = weights(roots, variance.expect.single(roots))
    ends = variance.limits(w, b[which], w + b[which]) if roots.size else roots
    reached = np.abs(ends - roots) <= 1e-6 * roots
    np.fmin.at(found, which[reached], w[reached])
    return found


def _row(variance: VarianceMap, b: FloatArray, high: float) -> tuple[FloatArray, Singles]:
    """q from the least that these biases allow up to `high`."""
    positive = b[b > 0.0]
    low = min(float(positive.min(initial=1.0)), LOWEST if positive.size < b.size else 1.0)
    return variance.row(low * 10.0 ** (-1.0 / PER_DECADE), high)


# ---- Diagram ---------------------------------------------------------------------------------------------------------

_LONG_NAMES = {
    "q": "signal variance in the limit of large depth",
    "c": "correlation of two inputs in the limit of large depth",
    "gamma": "bias strength in the limit of large depth",
    "chi": "gradient susceptibility",
    "chi_q": "variance susceptibility",
    "xi_q": "depth scale of the signal variance",
    "xi_c": "depth scale of the correlation",
    "edge_of_chaos": "sigma_w2 where chi = 1",
    "edge_of_chaos_variance": "largest sigma_w2 of finite variance",
    "neutrality_line": "sigma_w2 where gamma = 1",
}


def phase_diagram(
    activation: Activation | str,
    sigma_w2: ArrayLike,
    sigma_b2: ArrayLike,
    *,
    pool: Pool | None = None,
    residual: float | None = None,
    layernorm: bool = False,
    device: object = "cpu",
) -> xr.Dataset:
    """Where deep networks end, for every pair of weight and bias variances, and the lines between the phases.

    Parameters
    ----------
    activation : Activation or str
        The function phi.
    sigma_w2 : array_like
        Weight variances, one-dimensional, positive.
    sigma_b2 : array_like
        Bias variances, one-dimensional, zero or positive.
    pool : MaxPool, MinPool or AvgPool, optional
        Pool over several nodes after the activation.
    residual : float, optional
        Branch ratio of residual networks.
    layernorm : bool, optional
        Whether the activation sees y divided by its root mean square.
    device : str or torch.device, optional
        "cpu", or "cuda", "cuda:1", ...: the GPU that works out the expectations, in float64; roots are bracketed on the
        CPU, all points of the diagram at once. Worth it for diagrams of some thousand points or more whose activation
        is tanh or a table. Not with `MaxPool` and `MinPool`.

    Returns
    -------
    xarray.Dataset
        Over `(sigma_w2, sigma_b2)`: `q`, `c`, `gamma`, `chi`, `chi_q`, `xi_q`, `xi_c` as in `fixed_point`, for
        independent inputs of mean square 1 (q0 = 1, c0 = 0), and `phase`, a code whose meanings are in its attributes
        and in `igb.phases.PHASES`. c is nan where q diverges faster than exponentially, and where it is what the inputs
        and all layers made of it (a phi that is a line where its signals die out): `fixed_point` says what it is. Over
        `sigma_b2`: `edge_of_chaos`, `edge_of_chaos_variance` and `neutrality_line`; with LayerNorm, its own first and
        third; nan in residual networks, which are nowhere ordered nor chaotic.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type.

    Notes
    -----
    q is found by bracketing at every point. c is found in the same way for activations with closed forms or rules of
    their own; for others from a Chebyshev surface that is right to 1e-8 relative in 1 - c.

    References
    ----------
    When Bias Meets Trainability: Connecting Theories of Initialization (2026), Table 1, for the phases.

    Examples
    --------
    >>> import igbfast as igb
    >>> diagram = igb.phase_diagram("tanh", [0.9, 1.85, 2.5], [0.05, 0.2])
    >>> [igb.phases.PHASES[code] for code in diagram.phase[:, 0].values]
    ['ordered, persistent deep prejudice', 'prejudice', 'neutrality']
    >>> diagram.edge_of_chaos.values.round(4)
    array([1.761 , 2.2852])
    """
    w, b = _axis("sigma_w2", sigma_w2, "positive"), _axis("sigma_b2", sigma_b2, "zero or positive")
    # The corner of the grid stands for the rest: what is not of its axes.
    corner = Ensemble(activation, float(w[0]), float(b[0]), pool=pool, residual=residual, layernorm=layernorm)
    expect = Expectations(corner.activation, corner.pool)
    gpu = one_device(device)
    if gpu is not None:
        from .gpu import theory

        theory.require_support(expect)
        expect = Expectations(corner.activation, corner.pool, gpu)
    variance = VarianceMap(expect)
    if corner.residual is not None:
        columns = _residual_points(variance, corner.residual, corner.layernorm, *_mesh(w, b))
        lines = _no_lines(b)
    elif corner.layernorm:
        columns, lines = _normalised_points(variance, *_mesh(w, b)), _normalised_lines(variance, b)
    else:
        columns, lines = _plain_points(variance, *_mesh(w, b)), _plain_lines(variance, b)
    shape, axes = (w.size, b.size), ("sigma_w2", "sigma_b2")
    variables: dict[str, Any] = {
        name: (axes, columns[name].reshape(shape), {"long_name": _LONG_NAMES[name], "units": "1"})
        for name in ("q", "c", "gamma", "chi", "chi_q", "xi_q", "xi_c")
    }
    variables["phase"] = (axes, columns["phase"].reshape(shape), {"long_name": "phase", **_flags()})
    for name, line in lines.items():
        variables[name] = ("sigma_b2", line, {"long_name": _LONG_NAMES[name], "units": "1"})
    return xr.Dataset(
        variables,
        {
            "sigma_w2": ("sigma_w2", w, {"long_name": "variance of the weights times the width", "units": "1"}),
            "sigma_b2": ("sigma_b2", b, {"long_name": "variance of the biases", "units": "1"}),
        },
        {
            "description": "mean-field phase diagram of infinitely wide random networks of large depth",
            "activation": str(corner.activation),
            **{name: value if isinstance(value, float) else str(value) for name, value in corner.extras.items()},
            "igbfast_version": str(_core.config()["version"]),
        },
    )


Columns = dict[str, NDArray[Any]]


def _plain_points(variance: VarianceMap, w: FloatArray, b: FloatArray) -> Columns:
    expect = variance.expect
    q = variance.limits(w, b, w + b)
    chi, chi_q = np.full(w.shape, np.inf), np.full(w.shape, np.inf)
    s, slope = np.full(w.shape, np.nan), np.full(w.shape, np.nan)
    settled = np.isfinite(q) & (q > 0.0)
    here = expect.single(q[settled])
    chi[settled], chi_q[settled] = w[settled] * here.slope2, w[settled] * here.square_dq
    odd = _odd(variance, b)
    seen = np.ones(q.shape) if variance.homogeneous else q  # the same at every q, and so one surface for all
    _settle(expect, settled, odd, seen, 1.0 / w, chi, s, slope)
    for end, limit in ((0.0, variance.zero), (np.inf, variance.infinity)):
        members = q == end
        if not members.any():
            continue
        if limit is None:
            chi[members] = chi_q[members] = 0.0 if end == 0.0 else np.inf
            continue
        chi[members], chi_q[members] = w[members] * limit.slope2, w[members] * limit.square
        s[members], slope[members] = _homogeneous_end(variance, limit, members, w, b, odd)
    cycling = settled & (chi_q < -1.0)
    for column in (q, chi, chi_q, s, slope):
        column[cycling] = np.nan
    return _columns(q, s, chi, chi_q, slope)


def _odd(variance: VarianceMap, b: FloatArray) -> NDArray[np.bool_]:
    """Whether uncorrelated inputs stay so, by symmetry."""
    odd = variance.expect.activation.parity == -1 and not variance.expect.takes_extremes
    return np.asarray((b == 0.0) & odd)


def _settle(
    expect: Expectations,
    members: NDArray[np.bool_],
    odd: NDArray[np.bool_],
    seen: FloatArray,
    tau: FloatArray,
    slope_at_one: FloatArray,
    s: FloatArray,
    slope: FloatArray,
) -> None:
    """Fill in s and dc'/dc where q has settled; `seen` is the variance of the signals of P."""
    ordered = members & ~odd & ((slope_at_one < 1.0) | is_one(slope_at_one))
    s[ordered], slope[ordered] = 0.0, slope_at_one[ordered]
    chaotic = members & ~odd & ~ordered
    s[chaotic], slope[chaotic] = attracting_correlations(expect, seen[chaotic], tau[chaotic])
    symmetric = members & odd
    v = seen[symmetric]
    s[symmetric], slope[symmetric] = 1.0, expect.pair(1, v, v, 0.0) / tau[symmetric]


def _homogeneous_end(
    variance: VarianceMap,
    limit: Homogeneous,
    members: NDArray[np.bool_],
    w: FloatArray,
    b: FloatArray,
    odd: NDArray[np.bool_],
) -> tuple[FloatArray, FloatArray]:
    """s and dc'/dc where q vanishes or diverges: one map for all."""
    w, b, odd = w[members], b[members], odd[members]
    if limit.is_linear:
        s = np.where(odd, 1.0, np.nan)
        if variance.homogeneous:  # sigma_y2' = k sigma_y2, sigma_mu2' = k sigma_mu2 + sigma_b2, from (w, b)
            k = w * limit.square
            with np.errstate(divide="ignore"):
                gamma = np.where(is_one(k), np.where(b > 0.0, np.inf, 0.0), b * (1.0 + 1.0 / np.abs(k - 1.0)) / w)
            s = np.where(b == 0.0, 1.0, 1.0 / (1.0 + gamma))
            return s, np.where((b > 0.0) & ~is_one(k), 1.0 / k, 1.0)
        return s, np.ones(w.shape)
    map_ = CorrelationMap.of_homogeneous(limit)
    if map_.slope_at_one > 1.0 and not is_one(map_.slope_at_one):
        settled = map_.settled()
        return np.full(w.shape, 1.0 / (1.0 + settled.gamma)), np.full(w.shape, settled.slope)
    return np.zeros(w.shape), np.full(w.shape, map_.slope_at_one)


def _normalised_points(variance: VarianceMap, w: FloatArray, b: FloatArray) -> Columns:
    """LayerNorm: P sees signals of variance 1."""
    expect = variance.expect
    here = expect.single(1.0)
    q = w * here.square + b
    chi = w * here.slope2 / q
    s, slope = np.full(w.shape, np.nan), np.full(w.shape, np.nan)
    _settle(expect, np.ones(w.shape, bool), _odd(variance, b), np.ones(w.shape), q / w, chi, s, slope)
    return _columns(q, s, chi, np.zeros(w.shape), slope)


def _residual_points(variance: VarianceMap, a: float, layernorm: bool, w: FloatArray, b: FloatArray) -> Columns:
    """c' = c + epsilon (map(c) - c) with the map that the growing signals see: c ends where the map does."""
    expect, far = variance.expect, variance.infinity
    q, one = np.full(w.shape, np.inf), np.ones(w.shape)
    if layernorm or far is None:
        if not layernorm and variance.superlinear:
            lost = np.full(w.shape, np.nan)
            return _columns(q, lost, q, q, lost)
        v = 1.0 if layernorm else farthest(variance)
        here = expect.single(v)
        tau = (w * here.square + b) / (w * v)
        s, slope = np.full(w.shape, np.nan), np.full(w.shape, np.nan)
        _settle(expect, one > 0.0, _odd(variance, b), np.full(w.shape, v), tau, here.slope2 / tau, s, slope)
        columns = _columns(q, s, one, one, one)  # epsilon falls as 1 / l: no depth scale
    else:
        s, slope = _homogeneous_end(variance, far, one > 0.0, w, b, _odd(variance, b))
        factor = 1.0 + a * w * far.square
        pulled = 1.0 - (1.0 - 1.0 / factor) * (1.0 - slope)
        columns = _columns(q, s, 1.0 + a * w * far.slope2, factor, pulled)
    return columns | {"phase": np.full(w.shape, RESIDUAL, np.int8)}


def _columns(q: FloatArray, s: FloatArray, chi: FloatArray, chi_q: FloatArray, slope: FloatArray) -> Columns:
    with np.errstate(divide="ignore"):
        gamma = (1.0 - s) / s
    return {
        "q": q,
        "c": 1.0 - s,
        "gamma": gamma,
        "chi": chi,
        "chi_q": chi_q,
        "xi_q": _depth_scales(chi_q),
        "xi_c": _depth_scales(slope),
        "phase": _codes(q, gamma, chi),
    }


def _depth_scales(factor: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore"):
        scale = np.abs(1.0 / np.log(np.abs(factor)))
    return np.where(is_one(np.abs(factor)), np.inf, scale)


def _codes(q: FloatArray, gamma: FloatArray, chi: FloatArray) -> NDArray[np.int8]:
    edge = is_one(chi)
    below_one = np.select([is_one(gamma), gamma > 1.0], [NEUTRAL_LINE, PREJUDICE], NEUTRAL)
    deep = np.select([edge, chi < 1.0], [AT_EDGE, ORDERED], CHAOTIC)
    codes = np.where(np.isinf(gamma), deep, np.where((chi < 1.0) | edge, INHERITED, below_one))
    lost = np.isnan(gamma) & ~((q == 0.0) & (chi > 0.0)) & ~(np.isinf(q) & np.isfinite(chi))
    inherited = np.isnan(gamma) & ~lost
    return np.select([lost, inherited], [NO_LIMIT, INHERITED], codes).astype(np.int8)


def _plain_lines(variance: VarianceMap, b: FloatArray) -> dict[str, FloatArray]:
    gradient = _gradient_critical(variance, b)
    return {
        "edge_of_chaos": gradient,
        "edge_of_chaos_variance": _variance_critical(variance, b, gradient),
        "neutrality_line": _neutral(variance, b),
    }


def _normalised_lines(variance: VarianceMap, b: FloatArray) -> dict[str, FloatArray]:
    """sigma_w2 D = sigma_w2 V + sigma_b2, and the same with twice the spread at c = 1/2 in place of D."""
    here, spread = variance.expect.single(1.0), variance.expect.split(0.5, 0.5).spread
    lines = _no_lines(b)
    for name, gain in (("edge_of_chaos", here.slope2), ("neutrality_line", 2.0 * spread)):
        excess = float(gain - here.square)
        if excess > 0.0 and math.isfinite(excess):
            lines[name] = np.where(b > 0.0, b / excess, np.nan)
    return lines


def _no_lines(b: FloatArray) -> dict[str, FloatArray]:
    return {name: np.full(b.shape, np.nan) for name in ("edge_of_chaos", "edge_of_chaos_variance", "neutrality_line")}


def _flags() -> dict[str, Any]:
    return {
        "flag_values": np.arange(len(PHASES), dtype=np.int8),
        "flag_meanings": " ".join(name.replace(",", "").replace(" ", "_") for name in PHASES),
    }


# ---- Arguments -------------------------------------------------------------------------------------------------------


def _mesh(w: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    weights, biases = np.meshgrid(w, b, indexing="ij")
    return weights.ravel(), biases.ravel()


def _axis(name: str, values: ArrayLike, sign: str) -> FloatArray:
    array = _checks.real_numbers(name, values)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} must be a row of at least one number, got {_checks.shown(np.asarray(values))}")
    allowed = np.isfinite(array) & ((array > 0.0) if sign == "positive" else (array >= 0.0))
    return _checks.all_allowed(name, array, allowed, f"finite and {sign}")


def _variances(name: str, values: ArrayLike) -> FloatArray:
    array = _checks.real_numbers(name, values)
    return _checks.all_allowed(name, array, np.isfinite(array) & (array >= 0.0), "finite and zero or positive")
