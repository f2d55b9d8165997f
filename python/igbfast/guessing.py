"""From gamma to classes: the share G_k of the inputs that an untrained network gives to class k, by argmax.

Given the network, output node k is N(mu_k, sigma_y2) over the inputs; over networks mu_k ~ N(0, sigma_mu2), and gamma =
sigma_mu2 / sigma_y2. Two classes: G = Phi(sqrt(gamma) Z), Z ~ N(0, 1). K classes, with m_k = mu_k / sigma_y:

    G_k = integral n(t - m_k) prod_{j != k} Phi(t - m_j) dt.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _checks

# scipy.special is imported where it is called: it would more than double the time that `import igbfast` takes.

__all__ = [
    "MAX_CLASSES",
    "Sampled",
    "cdf",
    "expected_maximum",
    "fractions",
    "mean",
    "pdf",
    "quantile",
    "sample",
    "sampled_cdf",
    "variance",
]

MAX_CLASSES = 1_000_000
"""The largest number of classes: the quadratures are checked up to here."""

MAX_SEED = 2**64 - 1

# Stands for an infinite gamma: 1 - correlation is then 1e-300, and nothing that a double holds can tell it from 0.
_HUGE = 1e300
# Below this correlation the excess over independence is integrated itself, so that it keeps its relative accuracy.
_WEAK = 0.2
# Numbers that a temporary array of the quadratures holds at most, unless one row is longer: it should fit in the cache.
_BLOCK = 2**17

FloatArray = NDArray[np.float64]


# ---- Two classes -----------------------------------------------------------------------------------------------------


def cdf(g: ArrayLike, gamma: ArrayLike) -> Any:
    """Probability that a random network of two classes gives class 0 at most the share `g` of the inputs.

    Phi(Phi^-1(g) / sqrt(gamma)), to 1e-12 relative, however small `g` is.

    Parameters
    ----------
    g : array_like
        Share of the inputs, from 0 to 1.
    gamma : array_like
        Bias strength, from 0 to inf.

    Returns
    -------
    ndarray of float64, or a float64 scalar
        Of the shape that `g` and `gamma` broadcast to.

    Raises
    ------
    ValueError
        If a number is out of range, or if the shapes do not broadcast.
    TypeError
        If an argument does not hold real numbers.

    See Also
    --------
    sampled_cdf : for more classes.

    Notes
    -----
    With outputs y_0 and y_1, G = P(y_0 > y_1) = Phi((mu_0 - mu_1) / sqrt(2 sigma_y2)), and mu_0 - mu_1 ~ N(0,
    2 sigma_mu2). gamma = 0 puts all of the law at 1/2, gamma = inf half of it at 0 and half at 1.

    The law is symmetric about 1/2. A share so near 1 that a double has no digits for it is better told by the share of
    the other class. The smaller of the two has the cdf 2 cdf(g, gamma) for g up to 1/2, the larger 2 cdf(g, gamma) - 1
    from there.

    References
    ----------
    Francazi, Lucchi and Baity-Jesi, Initial Guessing Bias: How Untrained Networks Favor Some Classes (2024).

    Examples
    --------
    >>> import igbfast as igb
    >>> igb.guessing.cdf([0.1, 0.5, 0.9], gamma=1.0).round(6)
    array([0.1, 0.5, 0.9])
    >>> igb.guessing.cdf(0.1, gamma=[0.5, 1.0, 10.0]).round(6)
    array([0.034963, 0.1     , 0.342642])
    """
    from scipy.special import ndtr, ndtri

    share, strength = _together("g", _shares("g", g), "gamma", _strengths(gamma))
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        found = ndtr(ndtri(share) / np.sqrt(strength))
    found = np.where(strength == 0.0, np.where(share < 0.5, 0.0, 1.0), found)
    found = np.where(np.isinf(strength), np.where(share < 1.0, 0.5, 1.0), found)
    return found[()]


def pdf(g: ArrayLike, gamma: ArrayLike) -> Any:
    """Probability density of the share `g` of the inputs that a random network of two classes gives to class 0.

    exp((x^2 - x^2 / gamma) / 2) / sqrt(gamma), x = Phi^-1(g), to 1e-12 relative, however small `g` is. Below
    gamma = 1 it has one hump at 1/2, at gamma = 1 it is 1 everywhere, above it is largest at 0 and 1.

    Parameters
    ----------
    g : array_like
        Share of the inputs, from 0 to 1.
    gamma : array_like
        Bias strength, from 0 to inf.

    Returns
    -------
    ndarray of float64, or a float64 scalar
        Of the shape that `g` and `gamma` broadcast to; inf at g = 0 and g = 1 for gamma > 1. For gamma = 0 and inf,
        where the law has no density, inf at the points that hold it and 0 elsewhere.

    Raises
    ------
    ValueError
        If a number is out of range, or if the shapes do not broadcast.
    TypeError
        If an argument does not hold real numbers.

    Examples
    --------
    >>> import igbfast as igb
    >>> igb.guessing.pdf([0.01, 0.5], gamma=0.5).round(6)
    array([0.094479, 1.414214])
    >>> igb.guessing.pdf([0.01, 0.5], gamma=2.0).round(6)
    array([2.735735, 0.707107])
    """
    from scipy.special import ndtri

    share, strength = _together("g", _shares("g", g), "gamma", _strengths(gamma))
    x = ndtri(share)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        # One exponential: n(x / sqrt(gamma)) / n(x) would be 0 / 0 where exp(-x^2 / 2) underflows.
        log_density = 0.5 * x * x * (1.0 - 1.0 / strength) - 0.5 * np.log(strength)
        found = np.exp(log_density)
    edge = (share == 0.0) | (share == 1.0)
    found = np.where(edge, np.where(strength > 1.0, np.inf, np.where(strength == 1.0, 1.0, 0.0)), found)
    at_half = np.where(strength == 0.0, np.inf, 1.0 / np.sqrt(np.where(strength == 0.0, 1.0, strength)))
    found = np.where(share == 0.5, at_half, found)
    found = np.where((strength == 0.0) & (share != 0.5), 0.0, found)
    return found[()]


def quantile(p: ArrayLike, gamma: ArrayLike) -> Any:
    """The share of the inputs that class 0 does not exceed with probability `p`, in random networks of two classes.

    Phi(sqrt(gamma) Phi^-1(p)): the inverse of `cdf`, and the least such share where there are several.

    Parameters
    ----------
    p : array_like
        Probability, from 0 to 1.
    gamma : array_like
        Bias strength, from 0 to inf.

    Returns
    -------
    ndarray of float64, or a float64 scalar
        Of the shape that `p` and `gamma` broadcast to.

    Raises
    ------
    ValueError
        If a number is out of range, or if the shapes do not broadcast.
    TypeError
        If an argument does not hold real numbers.

    Examples
    --------
    One network in ten gives class 0 less than these shares:

    >>> import igbfast as igb
    >>> igb.guessing.quantile(0.1, gamma=[0.01, 1.0, 100.0]).round(6)
    array([0.449013, 0.1     , 0.      ])
    """
    from scipy.special import ndtr, ndtri

    probability, strength = _together("p", _shares("p", p), "gamma", _strengths(gamma))
    with np.errstate(over="ignore", invalid="ignore"):
        found = ndtr(np.sqrt(strength) * ndtri(probability))
    found = np.where(strength == 0.0, 0.5, found)
    found = np.where(np.isinf(strength), np.where(probability <= 0.5, 0.0, 1.0), found)
    return found[()]


# ---- Any number of classes: moments ----------------------------------------------------------------------------------


def mean(gamma: ArrayLike, *, classes: int = 2) -> Any:
    """Mean over networks of the share of one class: 1 / classes, whatever gamma is, since no class is special.

    Parameters
    ----------
    gamma : array_like
        Bias strength, from 0 to inf.
    classes : int, optional
        Number of classes, 2 to 1,000,000.

    Returns
    -------
    ndarray of float64, or a float64 scalar
        Of the shape of `gamma`.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type.

    Examples
    --------
    >>> import igbfast as igb
    >>> print(igb.guessing.mean(3.0, classes=10))
    0.1
    """
    strength, count = _strengths(gamma), _class_count(classes)
    return np.full(strength.shape, 1.0 / count)[()]


def variance(gamma: ArrayLike, *, classes: int = 2) -> Any:
    """Variance over networks of the share of one class, to 1e-12 relative.

    Parameters
    ----------
    gamma : array_like
        Bias strength, from 0 to inf.
    classes : int, optional
        Number of classes, 2 to 1,000,000.

    Returns
    -------
    ndarray of float64, or a float64 scalar
        Of the shape of `gamma`: from 0 at gamma = 0 to (1 - 1 / classes) / classes at inf.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type.

    Notes
    -----
    E[G_k^2] is the probability that two inputs are both given to class k. Their outputs have the correlation
    c = gamma / (1 + gamma), so the variance is (A(c) - 1/K) / K with A the probability that two vectors of K standard
    normals, correlated entry by entry, have their maximum at the same entry:

        A(rho) = K E[Phi2(x, y; rho)^(K - 1)],   (x, y) ~ N(0, [[1, rho], [rho, 1]]).

    A(rho) is 1/2 + asin(rho) / pi for two classes, and a sum over a grid in two dimensions for more. K E[G_k^2] = A(c)
    itself is the probability that two inputs get the same class.

    Examples
    --------
    >>> import igbfast as igb
    >>> igb.guessing.variance([0.0, 1.0, float("inf")]).round(6)
    array([0.      , 0.083333, 0.25    ])
    >>> print(igb.guessing.variance(1.0, classes=10).round(6))
    0.019381
    """
    strength, count = _strengths(gamma), _class_count(classes)
    finite = np.minimum(strength, _HUGE)
    if count == 2:  # asin(c) by an arctan, which does not lose the distance of c from 1
        return (np.arctan(finite / np.sqrt(1.0 + 2.0 * finite)) / (2.0 * math.pi))[()]
    rest = 1.0 / (1.0 + finite)
    return (_excess(finite * rest, rest, count) / count)[()]


def expected_maximum(gamma: ArrayLike, *, classes: int = 2) -> Any:
    """Mean over networks of the largest share, that of the class which the network favours, to 1e-12.

    Parameters
    ----------
    gamma : array_like
        Bias strength, from 0 to inf.
    classes : int, optional
        Number of classes, 2 to 1,000,000.

    Returns
    -------
    ndarray of float64, or a float64 scalar
        Of the shape of `gamma`: from 1 / classes at gamma = 0 to 1 at inf.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type.

    Notes
    -----
    The favoured class is the one with the largest centre mu_k, so the mean of its share is the probability that mu and
    an output mu + noise have their maximum at the same class. These two vectors are correlated entry by entry by
    rho = sqrt(gamma / (1 + gamma)): the result is A(rho) of the notes of `variance`. For two classes that is
    1/2 + arctan(sqrt(gamma)) / pi. More classes take some milliseconds for each gamma (0.2 s for 1,000,000 classes).

    Examples
    --------
    >>> import igbfast as igb
    >>> igb.guessing.expected_maximum([0.0, 0.1, 1.0, 10.0]).round(6)
    array([0.5     , 0.597491, 0.75    , 0.902509])
    >>> print(igb.guessing.expected_maximum(1.0, classes=10).round(6))
    0.431824
    """
    strength, count = _strengths(gamma), _class_count(classes)
    if count == 2:
        return (0.5 + np.arctan(np.sqrt(strength)) / math.pi)[()]
    finite = np.minimum(strength, _HUGE)
    correlation = np.sqrt(finite / (1.0 + finite))
    rest = 1.0 / ((1.0 + finite) * (1.0 + correlation))
    return np.minimum(1.0, 1.0 / count + _excess(correlation, rest, count))[()]


def _excess(correlation: FloatArray, rest: FloatArray, classes: int) -> FloatArray:
    """A(rho) - 1/K, for rho = `correlation` and 1 - rho = `rest`."""
    found = [
        _weak_excess(rho, classes) if rho < _WEAK else _agreement(rho, one_minus_rho, classes) - 1.0 / classes
        for rho, one_minus_rho in zip(correlation.ravel().tolist(), rest.ravel().tolist(), strict=True)
    ]
    return np.array(found, dtype=np.float64).reshape(correlation.shape)


def _agreement(rho: float, rest: float, classes: int) -> float:
    """A(rho) = K E[Phi2(x, y; rho)^(K - 1)], by the trapezoidal rule in the principal axes of (x, y).

    x, y = (sqrt(1 + rho) s +- sqrt(1 - rho) t) / sqrt(2): as smooth in (s, t) for rho near 1 as elsewhere.
    """
    from scipy.special import ndtr, owens_t

    step, reach = _grid(classes)
    n = math.ceil(reach / step)
    # No node at the origin, where the slopes of Owen's T are 0 / 0. The integrand is even in t.
    s, t = np.meshgrid((np.arange(-n, n) + 0.5) * step, np.arange(n + 1) * step, indexing="ij")
    inside = s * s + t * t <= reach * reach
    s, t = s[inside], t[inside]
    weight = np.where(t > 0.0, 2.0, 1.0) * np.exp(-0.5 * (s * s + t * t)) * step * step / (2.0 * math.pi)

    along, across = math.sqrt(1.0 + rho), math.sqrt(rest)
    x, y = _not_zero(along * s + across * t), _not_zero(along * s - across * t)
    slope_x, slope_y = (across * s - along * t) / x, (across * s + along * t) / y
    x, y = x / math.sqrt(2.0), y / math.sqrt(2.0)
    # Owen (1956): Phi2 from T; the complement, which is a sum of positive terms, where Phi2 is near 1.
    both = owens_t(x, slope_x) + owens_t(y, slope_y) + np.where((x > 0.0) != (y > 0.0), 0.5, 0.0)
    joint = 0.5 * (ndtr(x) + ndtr(y)) - both
    beyond = 0.5 * (ndtr(-x) + ndtr(-y)) + both
    with np.errstate(divide="ignore"):
        log_joint = np.where((x > 0.0) & (y > 0.0), np.log1p(-np.minimum(beyond, 1.0)), np.log(np.maximum(joint, 0.0)))
    return classes * float(np.sum(weight * np.exp((classes - 1) * log_joint)))


def _not_zero(x: FloatArray) -> FloatArray:
    return np.where(x == 0.0, 1e-300, x)


def _weak_excess(rho: float, classes: int) -> float:
    """A(rho) - 1/K for small rho, without the difference: the integrand of A relative to the one of A(0), less 1.

    Phi2 = Phi(x) Phi(y) + D, where D is the integral over r from 0 to rho of the density n2(x, y; r) (Plackett 1954).
    """
    from scipy.special import log_ndtr

    step, reach = _grid(classes)
    n = math.ceil(reach / step)
    line = np.arange(-n, n + 1) * step
    x, y = np.meshgrid(line, line, indexing="ij")
    inside = (x <= y) & (x * x + y * y <= reach * reach)  # symmetric in x and y
    x, y = x[inside], y[inside]
    log_phi = log_ndtr(x) + log_ndtr(y)
    base = np.exp((classes - 1) * log_phi - 0.5 * (x * x + y * y)) * step * step / (2.0 * math.pi)
    counts = base > 1e-26 / classes**2
    x, y, log_phi, base = x[counts], y[counts], log_phi[counts], base[counts]

    nodes, weights = np.polynomial.legendre.leggauss(12)
    growth = np.zeros_like(x)
    for r, weight in zip(0.5 * rho * (nodes + 1.0), 0.5 * rho * weights, strict=True):
        growth += weight * np.exp(_log_density(x, y, r) - log_phi)
    gain = (classes - 1) * np.log1p(growth) + _log_ratio(x, y, rho)
    return classes * float(np.sum(np.where(x < y, 2.0, 1.0) * base * np.expm1(gain)))


def _log_density(x: FloatArray, y: FloatArray, r: float) -> FloatArray:
    """Logarithm of the bivariate normal density n2(x, y; r)."""
    return _log_ratio(x, y, r) - 0.5 * (x * x + y * y) - math.log(2.0 * math.pi)


def _log_ratio(x: FloatArray, y: FloatArray, r: float) -> FloatArray:
    """Logarithm of n2(x, y; r) / (n(x) n(y)), accurate for small r."""
    rest = (1.0 - r) * (1.0 + r)
    ratio: FloatArray = r * (x * y - 0.5 * r * (x * x + y * y)) / rest - 0.5 * math.log1p(-r * r)
    return ratio


def _grid(classes: int) -> tuple[float, float]:
    """Step of the trapezoidal rule, and the radius beyond which the integrand of A is below 1e-17 of the whole.

    The maximum of K normals is narrower for larger K, so the step follows; measured to leave 1e-14 for K up to 10^6.
    """
    return 0.4 * classes**-0.2, math.sqrt(2.0 * (17.0 * math.log(10.0) + 2.0 * math.log(classes)))


# ---- Any number of classes: one network ------------------------------------------------------------------------------


def fractions(mu: ArrayLike, *, sigma_y2: ArrayLike = 1.0) -> Any:
    """Shares of the inputs that networks with given centres give to each class, to 1e-12 relative.

    Parameters
    ----------
    mu : array_like, shape (..., classes)
        Centres of the output nodes over the inputs, finite; one network for each index of the leading axes.
    sigma_y2 : array_like, optional
        Variance of an output node over the inputs, positive and finite; one number, or one for each network.

    Returns
    -------
    ndarray of float64, shape (..., classes)
        They sum to 1 along the last axis, within rounding. Memory beyond this array stays small.

    Raises
    ------
    ValueError
        If a number is out of range, if `mu` has fewer than two classes, or if the shapes do not fit.
    TypeError
        If an argument does not hold real numbers.

    Notes
    -----
    Two classes: Phi((mu_0 - mu_1) / sqrt(2 sigma_y2)). More: the integral over t of n(t - m_k) prod_{j != k}
    Phi(t - m_j), m = mu / sigma_y, by the trapezoidal rule, which converges exponentially here. Shares below 1e-290
    lose their relative accuracy.

    Examples
    --------
    >>> import igbfast as igb
    >>> igb.guessing.fractions([0.5, 0.0, -1.0]).round(6)
    array([0.592739, 0.330085, 0.077176])
    """
    centres = _checks.real_numbers("mu", mu)
    _checks.all_allowed("mu", centres, np.isfinite(centres), "finite")
    if centres.ndim == 0 or centres.shape[-1] < 2 or centres.shape[-1] > MAX_CLASSES:
        allowed = f"have a last axis of 2 to {MAX_CLASSES} classes"
        raise ValueError(f"mu must {allowed}, got shape {centres.shape}")
    noise = _checks.real_numbers("sigma_y2", sigma_y2)
    _checks.all_allowed("sigma_y2", noise, np.isfinite(noise) & (noise > 0.0), "positive and finite")
    try:
        noise = np.broadcast_to(noise, centres.shape[:-1])
    except ValueError:
        allowed = f"broadcast to the shape {centres.shape[:-1]} of mu without its last axis"
        raise ValueError(f"sigma_y2 must {allowed}, got shape {noise.shape}") from None
    with np.errstate(over="ignore"):  # a distance of inf is as good as one of 1e200
        below = (centres - centres.max(axis=-1, keepdims=True)) / np.sqrt(noise)[..., None]
    return _fractions(below.reshape(-1, centres.shape[-1])).reshape(centres.shape)


def _fractions(below: FloatArray) -> FloatArray:
    """Shares for rows of centres in units of sigma_y, less the largest of the row."""
    from scipy.special import ndtr

    networks, classes = below.shape
    if classes == 2:
        distance = (below[:, 0] - below[:, 1]) / math.sqrt(2.0)
        return np.stack([ndtr(distance), ndtr(-distance)], axis=-1)
    found = np.empty_like(below)
    step = 0.45 * classes**-0.2  # measured, as that of _grid
    # The integrand of a class at distance D below the top peaks at D / 2 below it, or higher. A share beyond D = 56 is
    # below 1e-308. Rows go by falling range, so that the few wide ones do not widen all.
    low = 7.5 + 0.5 * np.minimum(-below.min(axis=-1, initial=0.0), 56.0)
    high = math.sqrt(2.0 * (17.0 * math.log(10.0) + math.log(classes)))
    order = np.argsort(-low)
    first = 0
    while first < networks:
        widest = float(low[order[first]])
        rows = order[first : first + max(1, int(_BLOCK * step / ((widest + high) * classes)))]
        found[rows] = _fractions_of_block(below[rows], widest, high, step)
        first += rows.size
    # Rounding leaves sums of 1 - 1e-14 to 1 + 1e-14; a share above 1 would be none.
    found /= found.sum(axis=-1, keepdims=True)
    return found


def _fractions_of_block(below: FloatArray, low: float, high: float, step: float) -> FloatArray:
    """The trapezoidal rule over t from -low to high, some nodes at a time if the classes are many."""
    from scipy.special import ndtr

    networks, classes = below.shape
    nodes = np.arange(-low, high + step, step)
    at_once = max(1, _BLOCK // (networks * classes))
    total = np.zeros_like(below)
    for first in range(0, nodes.size, at_once):
        x = nodes[first : first + at_once, None] - below[:, None, :]
        below_x = ndtr(x)
        # The product over all classes times n / Phi of each: O(K) for all shares at a node, where Phi > 1e-290.
        with np.errstate(over="ignore"):
            hazard = np.exp(-0.5 * x * x) / below_x
        total += np.einsum("ij,ijk->ik", below_x.prod(axis=-1), hazard)
    return total * (step / math.sqrt(2.0 * math.pi))


# ---- Any number of classes: samples ----------------------------------------------------------------------------------


def sample(gamma: ArrayLike, *, classes: int = 2, size: int = 1, seed: int = 0) -> FloatArray:
    """Draw random networks, and compute which shares of the inputs they give to each class.

    Parameters
    ----------
    gamma : array_like
        Bias strength, from 0 to inf.
    classes : int, optional
        Number of classes, 2 to 1,000,000.
    size : int, optional
        Number of networks for each gamma, 0 or more.
    seed : int, optional
        0 to 2^64 - 1. The same seed gives the same networks; of two sizes, the larger goes on where the smaller ends.

    Returns
    -------
    ndarray of float64, shape (size, *gamma.shape, classes)
        Shares, which sum to 1 along the last axis. All networks are independent.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type.

    Examples
    --------
    >>> import igbfast as igb
    >>> shares = igb.guessing.sample(1.0, classes=10, size=2000)
    >>> shares.shape
    (2000, 10)
    >>> print(shares.max(axis=-1).mean().round(2))
    0.43
    """
    strength, count = _strengths(gamma), _class_count(classes)
    networks = _checks.integer("size", size, 0)
    generator = np.random.default_rng(_checks.integer("seed", seed, 0, MAX_SEED))
    mu = generator.standard_normal((networks, *strength.shape, count))
    mu *= np.sqrt(np.minimum(strength, _HUGE))[..., None]
    mu -= mu.max(axis=-1, keepdims=True)
    return _fractions(mu.reshape(-1, count)).reshape(mu.shape)


class Sampled(NamedTuple):
    """An estimate from random networks, with its standard error."""

    value: Any
    """The estimate."""
    se: Any
    """Its standard error over networks, at least 1 / size."""


def sampled_cdf(
    g: ArrayLike, gamma: float, *, classes: int, of: str = "class", size: int = 10_000, seed: int = 0
) -> Sampled:
    """Estimate the law of the share of one class, or of the largest share, for any number of classes, by sampling.

    Parameters
    ----------
    g : array_like
        Share of the inputs, from 0 to 1.
    gamma : float
        Bias strength, from 0 to inf.
    classes : int
        Number of classes, 2 to 1,000,000.
    of : {"class", "maximum"}, optional
        Whose share: that of one class (the estimate averages over all of them, which have the same law), or that of the
        class which the network favours.
    size : int, optional
        Number of networks, at least 2.
    seed : int, optional
        0 to 2^64 - 1. The same seed gives the same networks for every `g`.

    Returns
    -------
    Sampled
        `value`, the probability of a share of at most `g`, and its standard error `se`: float64, of the shape of `g`.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type.

    See Also
    --------
    cdf : exact, for two classes.

    Examples
    --------
    How many networks in a hundred give at least half of the inputs to one class out of ten?

    >>> import igbfast as igb
    >>> below = igb.guessing.sampled_cdf(0.5, gamma=1.0, classes=10, of="maximum")
    >>> print(f"{100 * (1 - below.value):.0f} +- {100 * below.se:.1f}")
    28 +- 0.4
    """
    share = _shares("g", g)
    _checks.choice("of", of, ("class", "maximum"))
    strength = _strengths(gamma)
    if strength.ndim:
        raise ValueError(f"gamma must be one number, got an array of shape {strength.shape}")
    networks = _checks.integer("size", size, 2)
    shares = sample(strength, classes=classes, size=networks, seed=seed)
    if of == "maximum":
        shares = shares.max(axis=-1, keepdims=True)
    value, se = np.empty(share.shape), np.empty(share.shape)
    for index in np.ndindex(share.shape):
        hits = (shares <= share[index]).mean(axis=-1)
        value[index], se[index] = hits.mean(), hits.std(ddof=1) / math.sqrt(networks)
    # Where no network lies on one side, the scatter is zero and the error is not.
    return Sampled(value[()], np.maximum(se, 1.0 / networks)[()])


# ---- Arguments -------------------------------------------------------------------------------------------------------


def _strengths(gamma: ArrayLike) -> FloatArray:
    array = _checks.real_numbers("gamma", gamma)
    return _checks.all_allowed("gamma", array, array >= 0.0, "from 0 to inf") + 0.0  # -0.0 becomes 0.0


def _shares(name: str, values: ArrayLike) -> FloatArray:
    array = _checks.real_numbers(name, values)
    return _checks.all_allowed(name, array, (array >= 0.0) & (array <= 1.0), "from 0 to 1")


def _class_count(classes: object) -> int:
    return _checks.integer("classes", classes, 2, MAX_CLASSES)


def _together(name: str, a: FloatArray, other: str, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    try:
        first, second = np.broadcast_arrays(a, b)
    except ValueError:
        shapes = f"{a.shape} and {b.shape}"
        raise ValueError(f"{name} and {other} must have shapes that broadcast together, got {shapes}") from None
    return first, second
