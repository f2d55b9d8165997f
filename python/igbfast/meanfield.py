"""Networks of infinite width: Gaussian expectations, the recursion over layers, and where it ends.

q_ab' = sigma_w2 E[phi(u) phi(v)] + sigma_b2, (u, v) ~ N(0, [[q_aa, q_ab], [q_ab, q_bb]]), for two inputs a and b. In
the words of initial guessing bias, q_ab = sigma_mu2 and q_aa - q_ab = sigma_y2, and these two are what is propagated:
a difference of q's would have lost its digits where gamma = sigma_mu2 / sigma_y2 is large.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from . import _checks, _core
from .activations import Activation, as_activation
from .ensemble import Ensemble, as_ensemble

__all__ = ["Approach", "FixedPoint", "fixed_point", "moments", "propagate"]

MAX_DEPTH = 2**24 - 1

EDGE = 1e-9
"""A susceptibility within this of 1 counts as 1, and a gamma within this of 1 as the neutrality line."""

_SMOOTH = ("linear", "tanh", "erf")
_PIECEWISE_LINEAR = ("linear", "relu", "leaky_relu")
_SETTLING_LAYERS = 100_000

# Variable -> long name; all are pure numbers.
_VARIABLES = {
    "sigma_mu2": "variance of the node centres",
    "sigma_y2": "variance around the node centres",
    "gamma": "bias strength",
    "q": "signal variance",
    "c": "correlation of two inputs",
    "chi": "gradient susceptibility",
}

FloatArray = NDArray[np.float64]


# ---- Expectations ----------------------------------------------------------------------------------------------------


def moments(
    activation: Activation | str, q: ArrayLike, c: ArrayLike = 1.0, *, derivative: int = 0, q_b: ArrayLike | None = None
) -> Any:
    """Gaussian expectation E[phi(u) phi(v)], or that of the derivatives E[phi'(u) phi'(v)] or E[phi''(u) phi''(v)].

    u and v are normal with mean zero, variances `q` and `q_b` and correlation `c`. The relative error is a few 1e-16,
    against sqrt(E[phi(u)^2] E[phi(v)^2]) where the expectation itself passes through zero.

    Parameters
    ----------
    activation : Activation or str
        The function phi.
    q : array_like
        Variance of u, finite, zero or positive.
    c : array_like, optional
        Correlation, from -1 to 1.
    derivative : {0, 1, 2}, optional
        Which derivative of phi. 2 is for the smooth ones: linear, tanh, erf.
    q_b : array_like, optional
        Variance of v; `q` if not given.

    Returns
    -------
    ndarray of float64, or a float64 scalar
        Of the shape that `q`, `c` and `q_b` broadcast to.

    Raises
    ------
    ValueError
        For an unknown activation, a variance that is negative or not finite, a correlation out of range, shapes that do
        not broadcast, or a second derivative where phi has a kink.
    TypeError
        If an argument does not hold real numbers.

    Notes
    -----
    Closed forms for linear, ReLU and leaky ReLU (Cho and Saul, Kernel methods for deep learning, 2009) and erf
    (Williams, Computation with infinite neural networks, 1998); quadrature for tanh. An empty array gives an empty one.

    Examples
    --------
    >>> import igbfast as igb
    >>> print(igb.moments("relu", 2.0))
    1.0
    >>> igb.moments("erf", [0.5, 1.0], c=0.5).round(6)
    array([0.160861, 0.216347])
    """
    phi = as_activation(activation)
    order = _checked_derivative(derivative, phi)
    q_aa = _variances("q", q)
    q_bb = q_aa if q_b is None else _variances("q_b", q_b)
    correlation = _correlations("c", c)
    try:
        q_aa, q_bb, correlation = np.broadcast_arrays(q_aa, q_bb, correlation)
    except ValueError:
        shapes = f"{np.shape(q)} and {np.shape(c)}" if q_b is None else f"{np.shape(q)}, {np.shape(q_b)}, {np.shape(c)}"
        names = "q and c" if q_b is None else "q, q_b and c"
        raise ValueError(f"{names} must have shapes that broadcast together, got {shapes}") from None
    found = _core.moments(
        activation=phi.name,
        parameter=phi.parameter,
        derivative=order,
        q_aa=q_aa.ravel(),
        q_bb=q_bb.ravel(),
        c=correlation.ravel(),
    )
    return found.reshape(q_aa.shape)[()]


# ---- Recursion -------------------------------------------------------------------------------------------------------


def propagate(ens: Ensemble, depth: int, *, q0: float = 1.0, c0: float = 0.0) -> xr.Dataset:
    """Follow signal variance, correlation and bias strength from layer to layer at infinite width.

    sigma_y2 is propagated itself, without cancellation: gamma is right to about depth times 1e-15 relative, however
    large it becomes.

    Parameters
    ----------
    ens : Ensemble
        The law of the networks.
    depth : int
        Number of layers, 1 to 2^24 - 1.
    q0 : float, optional
        Mean square of the inputs, positive.
    c0 : float, optional
        Correlation of two inputs, from 0 to 1; 0 for independent inputs with mean zero.

    Returns
    -------
    xarray.Dataset
        Over `layer`, 1 to `depth`, float64: `sigma_mu2` and `sigma_y2` (variance of the node centres and around them),
        `gamma` (their ratio), `q` (their sum), `c` (sigma_mu2 / q) and `chi` (sigma_w2 E[phi'^2], the factor of squared
        gradients). gamma is inf for identical inputs (c0 = 1), whose sigma_y2 is zero.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type, before any work.

    Warns
    -----
    RuntimeWarning
        Once, if a number overflowed or fell below the smallest normal double; it is nan from that layer on.

    References
    ----------
    Poole et al., Exponential expressivity in deep neural networks through transient chaos (2016), equations 3 and 5;
    the identity of c = gamma / (1 + gamma) with the correlation is Theorem 3.1 of When Bias Meets Trainability:
    Connecting Theories of Initialization (2026).

    Examples
    --------
    >>> import igbfast as igb
    >>> ds = igb.propagate(igb.Ensemble("relu", sigma_w2=2.0), depth=3)
    >>> ds.gamma.values.round(4)
    array([0.    , 0.4669, 0.9752])
    """
    ens = as_ensemble(ens)
    depth = _checks.integer("depth", depth, 1, MAX_DEPTH)
    sigma_mu2, sigma_y2, attrs = _first_layer(ens, q0, c0)
    columns = _trajectory(ens, depth, sigma_mu2, sigma_y2)
    _warn_of_lost_layers(columns, depth)
    variables = {
        name: ("layer", columns[name], {"long_name": long_name, "units": "1"}) for name, long_name in _VARIABLES.items()
    }
    return xr.Dataset(
        variables,
        {"layer": ("layer", np.arange(1, depth + 1), {"long_name": "layer"})},
        {
            "description": "mean-field theory of an infinitely wide random network, layer by layer",
            **attrs,
            "depth": depth,
            "igbfast_version": str(_core.config()["version"]),
        },
    )


def _first_layer(ens: Ensemble, q0: object, c0: object) -> tuple[float, float, dict[str, Any]]:
    """sigma_mu2 and sigma_y2 of layer 1, which is linear in the inputs, and what was asked as attributes."""
    q = _checks.positive_finite("q0", q0)
    allowed = "a number from 0 to 1"
    c = _checks.finite("c0", c0, allowed)
    if not 0.0 <= c <= 1.0:
        raise ValueError(f"c0 must be {allowed}, got {_checks.shown(c0)}")
    attrs = {
        "activation": str(ens.activation),
        "sigma_w2": ens.sigma_w2,
        "sigma_b2": ens.sigma_b2,
        "q0": q,
        "c0": c,
    }
    return ens.sigma_w2 * q * c + ens.sigma_b2, ens.sigma_w2 * q * (1.0 - c), attrs


def _trajectory(ens: Ensemble, depth: int, sigma_mu2: float, sigma_y2: float) -> dict[str, FloatArray]:
    return _core.propagate(
        activation=ens.activation.name,
        parameter=ens.activation.parameter,
        sigma_w2=ens.sigma_w2,
        sigma_b2=ens.sigma_b2,
        sigma_mu2=sigma_mu2,
        sigma_y2=sigma_y2,
        depth=depth,
    )


def _warn_of_lost_layers(columns: dict[str, FloatArray], depth: int) -> None:
    lost = {name: np.isnan(columns[name]) for name in _VARIABLES}
    names = [name for name, where in lost.items() if where.any()]
    if not names:
        return
    first = min(int(np.argmax(lost[name])) for name in names) + 1
    warnings.warn(
        f"{_reason_of_loss(names)} at layer {first} of {depth}: {', '.join(names)} are nan from where it happens; "
        "use a smaller depth",
        RuntimeWarning,
        stacklevel=3,
    )


def _reason_of_loss(names: list[str]) -> str:
    if "chi" in names:  # which no underflow takes away
        return "q exceeds the largest double"
    for name in ("sigma_y2", "sigma_mu2"):
        if name in names:
            return f"{name} falls below the smallest normal double"
    return "the ratio of sigma_mu2 and sigma_y2 leaves the range of double"


# ---- Fixed points ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Approach:
    """How the correlation c comes to its limit, layer by layer. As a string: the sentence."""

    law: str
    """`constant`, `exponential` or `power law`."""
    sentence: str
    """The same in words, with what is special about the case."""
    rate: float = math.nan
    """Exponential: the factor by which the distance of c from its limit shrinks per layer, once it is small."""
    exponent: float = math.nan
    """Power law in the number l of layers: the p in prefactor / l^p, the distance of c from its limit."""
    prefactor: float = math.nan
    """Power law: its prefactor."""

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True, slots=True, repr=False)
class FixedPoint:
    """Where an infinitely wide network ends as its depth grows, from a given start."""

    q: float
    """Signal variance; `inf` if it diverges."""
    c: float
    """Correlation of two inputs."""
    gamma: float
    """Bias strength c / (1 - c), taken from 1 - c without cancellation; `inf` at c = 1."""
    chi: float
    """Gradient susceptibility sigma_w2 E[phi'^2]: the factor of squared gradients from a layer to the one below."""
    chi_q: float
    """Variance susceptibility dq'/dq."""
    xi_q: float
    """Depth scale of q, |1 / ln chi_q| layers (of its growth where it diverges); `inf` at chi_q = 1."""
    xi_c: float
    """Depth scale of c, -1 / ln(dc'/dc) layers at the limit, which is -1 / ln chi at c = 1 and 0 < q < inf; `inf` for a
    power law and where c stays as it is."""
    phase: str
    """The phase in words."""
    approach: Approach
    """How c comes to its limit."""

    def __repr__(self) -> str:
        numbers = ", ".join(f"{name}={getattr(self, name):.6g}" for name in _FIXED_POINT_NUMBERS)
        return f"<FixedPoint: {self.phase}; {numbers}>"

    def __str__(self) -> str:
        lines = [f"{name:>6} = {getattr(self, name):.6g}" for name in _FIXED_POINT_NUMBERS]
        return "\n".join([self.phase, *lines, self.approach.sentence])


_FIXED_POINT_NUMBERS = ("q", "c", "gamma", "chi", "chi_q", "xi_q", "xi_c")


def fixed_point(ens: Ensemble, *, q0: float = 1.0, c0: float = 0.0) -> FixedPoint:
    """Find the limit of the mean-field recursion that the given inputs reach as the depth grows, and its phase.

    Of several fixed points, the one that is reached counts, be it stable or not: an odd activation without biases keeps
    uncorrelated inputs at c = 0 for ever, and identical inputs stay identical.

    Parameters
    ----------
    ens : Ensemble
        The law of the networks.
    q0 : float, optional
        Mean square of the inputs, positive.
    c0 : float, optional
        Correlation of two inputs, from 0 to 1.

    Returns
    -------
    FixedPoint
        Print it for a summary. The phase is one of

        * `ordered, persistent deep prejudice` (c = 1, chi < 1),
        * `edge of chaos, transient deep prejudice` (c = 1, chi = 1),
        * `chaotic deep prejudice` (c = 1, chi > 1),
        * `prejudice` (gamma > 1), `neutrality line` (gamma = 1), `neutrality` (gamma < 1), all with chi > 1; where such
          a gamma comes with chi <= 1 (a signal that dies out, a linear network), `ordered` or `edge of chaos` and a
          comma stand before it.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type.

    Notes
    -----
    chi within 1e-9 of 1 counts as the edge of chaos. A sigma_w2 typed with three digits is near the edge, not at it:
    the network then behaves for about 1 / abs(chi - 1) layers as if it were, and `approach` says so.

    References
    ----------
    Schoenholz et al., Deep information propagation (2017), for chi and the depth scales; the phases are those of When
    Bias Meets Trainability: Connecting Theories of Initialization (2026), Table 1.

    Examples
    --------
    >>> import igbfast as igb
    >>> limit = igb.fixed_point(igb.Ensemble("tanh", sigma_w2=2.5, sigma_b2=0.05))
    >>> limit.phase, round(limit.c, 4)
    ('neutrality', 0.4468)
    >>> print(igb.fixed_point(igb.Ensemble("relu", sigma_w2=1.5, sigma_b2=0.1)).approach)
    1 - c shrinks exponentially, by the factor 0.75 per layer.
    """
    ens = as_ensemble(ens)
    sigma_mu2, sigma_y2, _ = _first_layer(ens, q0, c0)
    if not math.isfinite(sigma_mu2 + sigma_y2):
        raise ValueError(f"q0 must leave sigma_w2 * q0 + sigma_b2 finite, got {_checks.shown(q0)}")
    if ens.activation.name in _PIECEWISE_LINEAR:
        return _piecewise_linear_limit(ens, sigma_mu2, sigma_y2)
    return _sigmoid_limit(ens, sigma_mu2, sigma_y2)


def _limit(q: float, c: float, gamma: float, chi: float, chi_q: float, approach: Approach, slope: float) -> FixedPoint:
    """The result, with its phase and depth scales; `slope` is dc'/dc."""
    return FixedPoint(
        q=q,
        c=c,
        gamma=gamma,
        chi=chi,
        chi_q=chi_q,
        xi_q=_depth_scale(chi_q),
        xi_c=_depth_scale(slope),
        phase=_phase(gamma, chi),
        approach=approach,
    )


def _is_one(x: float) -> bool:
    return abs(x - 1.0) <= EDGE


def _depth_scale(factor: float) -> float:
    if factor <= 0.0:
        return 0.0
    return math.inf if _is_one(factor) else abs(1.0 / math.log(factor))


def _phase(gamma: float, chi: float) -> str:
    if gamma == math.inf:
        if _is_one(chi):
            return "edge of chaos, transient deep prejudice"
        return "ordered, persistent deep prejudice" if chi < 1.0 else "chaotic deep prejudice"
    guess = "neutrality line" if _is_one(gamma) else "prejudice" if gamma > 1.0 else "neutrality"
    if _is_one(chi):
        return f"edge of chaos, {guess}"
    return guess if chi > 1.0 else f"ordered, {guess}"


def _constant(sentence: str) -> Approach:
    return Approach("constant", sentence)


def _exponential(rate: float, sentence: str) -> Approach:
    return Approach("exponential", sentence, rate=rate)


def _power_law(exponent: int, prefactor: float, reason: str) -> Approach:
    power = "l" if exponent == 1 else f"l^{exponent}"
    return Approach(
        "power law", f"1 - c falls as {prefactor:.4g} / {power}: {reason}.", exponent=exponent, prefactor=prefactor
    )


def _ordered(chi: float) -> Approach:
    return _exponential(chi, f"1 - c shrinks exponentially, by the factor {chi:.6g} per layer{_near_edge(chi)}.")


def _near_edge(chi: float) -> str:
    """A closing remark for a chi that looks like 1 to the eye."""
    if abs(chi - 1.0) > 0.01:
        return ""
    return f"; it takes some {1.0 / abs(chi - 1.0):.0f} layers to tell chi = {chi:.10g} from the edge of chaos"


_IDENTICAL = _constant("The inputs are identical (c0 = 1) and stay so: c = 1 in every layer.")


# ---- Fixed points of piecewise linear activations: q' = k q + sigma_b2 with one k for all q --------------------------


def _piecewise_linear_limit(ens: Ensemble, sigma_mu2: float, sigma_y2: float) -> FixedPoint:
    k = float(ens.sigma_w2 * _single(ens, 1.0)["slope2"])
    if _is_one(k) and ens.sigma_b2 == 0.0:
        q = sigma_mu2 + sigma_y2
    else:
        q = ens.sigma_b2 / (1.0 - k) if k < 1.0 and not _is_one(k) else math.inf
    a = {"linear": 1.0, "relu": 0.0}.get(ens.activation.name, ens.activation.parameter)
    if sigma_y2 == 0.0:
        return _limit(q, 1.0, math.inf, k, k, _IDENTICAL, slope=1.0)
    if a == 1.0:
        return _linear_limit(ens, q, k, sigma_mu2, sigma_y2)
    approach = _kinked_approach(ens, k, a)
    return _limit(q, 1.0, math.inf, k, k, approach, slope=k if approach.law == "exponential" else 1.0)


def _kinked_approach(ens: Ensemble, k: float, a: float) -> Approach:
    """From 1 - c' = (1 - c) - bend (1 - c)^(3/2) for the activation alone; biases pull c towards 1 in addition."""
    bend = 2.0 * math.sqrt(2.0) / (3.0 * math.pi) * (1.0 - a) ** 2 / (1.0 + a * a)
    if ens.sigma_b2 == 0.0:
        return _power_law(2, 4.0 / bend**2, "without biases, the correlation map does not depend on sigma_w2")
    if _is_one(k):
        return _power_law(2, 1.0 / bend**2, "q grows by sigma_b2 at every layer, without bound")
    if k > 1.0:
        return _power_law(2, 4.0 / bend**2, "q diverges, and the biases no longer count")
    return _ordered(k)


def _linear_limit(ens: Ensemble, q: float, k: float, sigma_mu2: float, sigma_y2: float) -> FixedPoint:
    """phi(x) = x: sigma_y2' = k sigma_y2, sigma_mu2' = k sigma_mu2 + sigma_b2."""
    if ens.sigma_b2 == 0.0:
        gamma = sigma_mu2 / sigma_y2
        same = _constant("A linear network without biases keeps c as the inputs have it, in every layer.")
        return _limit(q, sigma_mu2 / (sigma_mu2 + sigma_y2), gamma, k, k, same, slope=1.0)
    if _is_one(k):
        grows = _power_law(1, sigma_y2 / ens.sigma_b2, "sigma_mu2 grows by sigma_b2 at every layer, sigma_y2 stays")
        return _limit(q, 1.0, math.inf, k, k, grows, slope=1.0)
    if k < 1.0:
        return _limit(q, 1.0, math.inf, k, k, _ordered(k), slope=k)
    gamma = (sigma_mu2 + ens.sigma_b2 / (k - 1.0)) / sigma_y2
    rate = 1.0 / k
    settles = _exponential(
        rate, f"q diverges; c converges exponentially, by the factor {rate:.6g} per layer, to what the inputs fix."
    )
    return _limit(q, gamma / (1.0 + gamma), gamma, k, k, settles, slope=rate)


# ---- Fixed points of tanh and erf: odd, bounded by 1, E[phi^2] concave in q ------------------------------------------


# phi'(0)^2, and d1, d2, d3 in E[phi^2] = phi'(0)^2 q (1 - d1 q - d2 q^2 - d3 q^3 - ...).
_SMALL_SIGNALS = {
    "tanh": (Fraction(1), (2.0, -17.0 / 3.0, 62.0 / 3.0)),
    "erf": (Fraction("1.2732395447351626861510701069801148962757"), (2.0, -14.0 / 3.0, 12.0)),
}
_SMALL = 1e-5
"""Variance below which three terms are nearer than 1 - E[phi^2] / q, which cancels."""


def _sigmoid_limit(ens: Ensemble, sigma_mu2: float, sigma_y2: float) -> FixedPoint:
    at_zero = float(_chi_of_small_signals(ens))
    if ens.sigma_b2 == 0.0 and (at_zero < 1.0 or _is_one(at_zero)):
        return _fading_limit(ens, at_zero, sigma_mu2, sigma_y2)
    q = _sigmoid_variance(ens)
    here = _single(ens, q)
    chi, chi_q = float(ens.sigma_w2 * here["slope2"]), float(ens.sigma_w2 * here["square_dq"])
    if sigma_y2 == 0.0:
        return _limit(q, 1.0, math.inf, chi, chi_q, _IDENTICAL, slope=1.0)
    if ens.sigma_b2 == 0.0:
        return _odd_limit(ens, q, chi, chi_q, sigma_mu2)
    if _is_one(chi):
        bend = q * ens.sigma_w2 * _pair(ens, 2, q, 1.0)
        edge = _power_law(1, 2.0 * chi / bend if bend > 0.0 else math.inf, "chi = 1, the edge of chaos")
        return _limit(q, 1.0, math.inf, chi, chi_q, edge, slope=1.0)
    if chi < 1.0:
        return _limit(q, 1.0, math.inf, chi, chi_q, _ordered(chi), slope=chi)
    c, gamma = _correlation_below_one(ens, q)
    slope = ens.sigma_w2 * _pair(ens, 1, q, c)
    rate = max(slope, chi_q)
    settles = _exponential(
        rate, f"c converges exponentially, by the factor {rate:.6g} per layer, to {c:.6g}{_near_edge(chi)}."
    )
    return _limit(q, c, gamma, chi, chi_q, settles, slope=slope)


def _chi_of_small_signals(ens: Ensemble) -> Fraction:
    """sigma_w2 phi'(0)^2, so exact that its difference from 1 is too."""
    return Fraction(ens.sigma_w2) * _SMALL_SIGNALS[ens.activation.name][0]


def _sigmoid_variance(ens: Ensemble) -> float:
    """The positive root of q = sigma_w2 E[phi^2] + sigma_b2; there is one, and every orbit goes there."""
    growth = float(_chi_of_small_signals(ens) - 1)
    d1, d2, d3 = _SMALL_SIGNALS[ens.activation.name][1]

    def excess(log_q: float) -> float:  # q' / q - 1
        q = math.exp(log_q)
        if q < _SMALL:
            deficit = q * (d1 + q * (d2 + q * d3))
            return growth - (1.0 + growth) * deficit + ens.sigma_b2 / q
        return float(ens.sigma_w2 * _single(ens, q)["square"] + ens.sigma_b2) / q - 1.0

    high = math.log(ens.sigma_w2 + ens.sigma_b2) + 1e-9
    low = math.log(ens.sigma_b2) - 1e-9 if ens.sigma_b2 > 0.0 else high
    while excess(low) <= 0.0:  # only without biases: below the root of a concave map through zero, q grows
        low -= math.log(4.0)
    q = math.exp(_root(excess, low, high))
    here = _single(ens, q)
    slope = float(ens.sigma_w2 * here["square_dq"])
    if slope > 0.9:
        return q
    # The step of Newton that takes back what the logarithm has rounded.
    return q + float(ens.sigma_w2 * here["square"] + ens.sigma_b2 - q) / (1.0 - slope)


def _odd_limit(ens: Ensemble, q: float, chi: float, chi_q: float, sigma_mu2: float) -> FixedPoint:
    """No biases, q > 0: c = 0 is the fixed point, and attracts."""
    slope = ens.sigma_w2 * _pair(ens, 1, q, 0.0)
    if sigma_mu2 == 0.0:
        symmetric = _constant("phi is odd, there are no biases and c0 = 0: by symmetry, c = 0 in every layer.")
        return _limit(q, 0.0, 0.0, chi, chi_q, symmetric, slope=slope)
    falls = _exponential(
        slope, f"phi is odd, without biases: c shrinks exponentially, by the factor {slope:.6g} per layer."
    )
    return _limit(q, 0.0, 0.0, chi, chi_q, falls, slope=slope)


def _fading_limit(ens: Ensemble, chi: float, sigma_mu2: float, sigma_y2: float) -> FixedPoint:
    """No biases, sigma_w2 phi'(0)^2 <= 1: q falls to zero, and the nodes become linear before c has settled."""
    decay = "as 1 / (2 l)" if _is_one(chi) else f"exponentially, by the factor {chi:.6g} per layer"
    why = f"q falls to 0 {decay}"
    if sigma_y2 == 0.0:
        return _limit(0.0, 1.0, math.inf, chi, chi, _IDENTICAL, slope=1.0)
    if sigma_mu2 == 0.0:
        symmetric = _constant(f"{why}; phi is odd, there are no biases and c0 = 0: by symmetry, c = 0 in every layer.")
        return _limit(0.0, 0.0, 0.0, chi, chi, symmetric, slope=1.0)
    gamma = _settled_gamma(ens, chi, sigma_mu2, sigma_y2)
    c = gamma / (1.0 + gamma)
    settles = f"{why}, where phi is linear: c stays at {c:.6g}, which depends on the inputs."
    if _is_one(chi):
        approach = Approach("power law", settles, exponent=1.0, prefactor=c * (1.0 - c * c) / 6.0)
    else:
        approach = _exponential(chi**2, settles)
    return _limit(0.0, c, gamma, chi, chi, approach, slope=1.0)


def _settled_gamma(ens: Ensemble, chi: float, sigma_mu2: float, sigma_y2: float) -> float:
    """gamma where the nodes have become linear, from a trajectory and the rest of the way in closed form.

    For small q, tanh and erf are x - x^3 / 3 up to a factor: q' = chi q (1 - 2 q), c' = c - (2/3) q^2 c (1 - c^2). With
    e = 1 - chi, log(c / sqrt(1 - c^2)) still loses (1/3) (q - (e/2) log(1 + 2 q / e)).
    """
    e = max(1.0 - chi, 0.0)
    layers = min(_SETTLING_LAYERS, 64 + (math.ceil(60.0 / -math.log(chi)) if chi < 1.0 else _SETTLING_LAYERS))
    columns = _trajectory(ens, layers, sigma_mu2, sigma_y2)
    last = int(np.flatnonzero(np.isfinite(columns["gamma"]))[-1])
    q, gamma = float(columns["q"][last]), float(columns["gamma"][last])
    loss = (q - (0.5 * e * math.log1p(2.0 * q / e) if e > 0.0 else 0.0)) / 3.0
    # c^2 / (1 - c^2) = gamma^2 / (1 + 2 gamma)
    odds = gamma * gamma / (1.0 + 2.0 * gamma) * math.exp(-2.0 * loss)
    return odds + math.sqrt(odds * (1.0 + odds))


def _correlation_below_one(ens: Ensemble, q: float) -> tuple[float, float]:
    """c and gamma at the stable root of the correlation map, convex with the other root at c = 1, for chi > 1.

    The unknown is 1 - c where c > 1/2 and c where it is smaller, so that neither cancels; each equation is divided by
    its unknown.
    """

    def split(sigma_mu2: float, sigma_y2: float) -> FloatArray:
        phi = ens.activation
        table = _core.split_moments(
            activation=phi.name,
            parameter=phi.parameter,
            sigma_mu2=np.array([sigma_mu2]),
            sigma_y2=np.array([sigma_y2]),
        )
        row: FloatArray = table[0]
        return row

    def apart(log_s: float) -> float:
        s = math.exp(log_s)
        return float(ens.sigma_w2 * split(q * (1.0 - s), q * s)[1]) / (q * s) - 1.0

    def common(log_c: float) -> float:
        c = math.exp(log_c)
        return float(ens.sigma_w2 * split(q * c, q * (1.0 - c))[0] + ens.sigma_b2) / (q * c) - 1.0

    half = math.log(0.5)
    if apart(half) < 0.0:
        low = half
        while apart(low) <= 0.0 and low > math.log(EDGE * 1e-3):
            low -= math.log(4.0)
        s = math.exp(_root(apart, low, half))
        return 1.0 - s, (1.0 - s) / s
    low = math.log(ens.sigma_b2) - math.log(q) - 1.0
    if low < math.log(np.finfo(np.float64).tiny):
        return 0.0, 0.0
    c = math.exp(_root(common, low, half))
    return c, c / (1.0 - c)


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    from scipy.optimize import brentq

    return float(brentq(function, low, high, xtol=1e-15, rtol=4.0 * np.finfo(np.float64).eps))


def _single(ens: Ensemble, q: float) -> dict[str, float]:
    row = _core.single_moments(activation=ens.activation.name, parameter=ens.activation.parameter, q=np.array([q]))[0]
    return dict(zip(("mean", "square", "slope2", "square_dq"), row, strict=True))


def _pair(ens: Ensemble, derivative: int, q: float, c: float) -> float:
    phi = ens.activation
    variance = np.array([q])
    found = _core.moments(
        activation=phi.name,
        parameter=phi.parameter,
        derivative=derivative,
        q_aa=variance,
        q_bb=variance,
        c=np.array([c]),
    )
    return float(found[0])


# ---- Arguments -------------------------------------------------------------------------------------------------------


def _checked_derivative(derivative: int, phi: Activation) -> int:
    order = _checks.integer("derivative", derivative, 0, 2)
    if order == 2 and phi.name not in _SMOOTH:
        raise ValueError(f"derivative must be 0 or 1 for {phi}, whose slope jumps at 0, got 2")
    return order


def _variances(name: str, values: ArrayLike) -> FloatArray:
    array = _checks.real_numbers(name, values)
    return _checks.all_allowed(name, array, np.isfinite(array) & (array >= 0.0), "finite and not negative")


def _correlations(name: str, values: ArrayLike) -> FloatArray:
    array = _checks.real_numbers(name, values)
    return _checks.all_allowed(name, array, np.abs(array) <= 1.0, "from -1 to 1")
