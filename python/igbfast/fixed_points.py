"""Where the mean-field recursion ends as the depth grows: fixed points, phases, and the laws of the approach.

The variance goes first (_variance.py); where it ends decides which map the correlation follows (_correlation.py), and
the slope of that map at c = 1 whether correlations end there. A residual network goes part of the way at every layer:

    c' = c + epsilon (map(c) - c)

with an epsilon that is constant where q grows exponentially, and falls as 1 / l where q grows as a power of l.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from . import _checks
from ._correlation import Bend, CorrelationMap
from ._expectations import of_ensemble
from ._variance import VarianceMap, is_one
from .ensemble import Ensemble, as_ensemble
from .meanfield import first_layer, trajectory

__all__ = ["FixedPoint", "Law", "VarianceFixedPoint", "fixed_point"]

SETTLING_LAYERS = 100_000
CYCLE_LAYERS = 10_000


# ---- What is found ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Law:
    """How a number goes with the depth l. As a string: the sentence."""

    law: str
    """One of `constant`, `exponential`, `power law`, `logarithmic`, `stretched exponential`, `faster than exponential`,
    `none`."""
    sentence: str
    """The same in words, with what is special about the case."""
    rate: float = math.nan
    """Exponential: the factor per layer."""
    exponent: float = math.nan
    """Power law: the p in prefactor l^p, or in prefactor / l^p for what falls; stretched exponential: in
    exp(prefactor l^p)."""
    prefactor: float = math.nan
    """Its prefactor; nan where it depends on the start."""

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True, slots=True)
class VarianceFixedPoint:
    """A variance that the recursion keeps as it is."""

    q: float
    """Signal variance."""
    chi_q: float
    """dq'/dq there."""
    stable: bool
    """Whether it attracts the variances around it."""


@dataclass(frozen=True, slots=True, repr=False)
class FixedPoint:
    """Where an infinitely wide network ends as its depth grows, from a given start."""

    q: float
    """Signal variance; `inf` if it diverges, nan if it has no limit."""
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
    approach: Law
    """How the distance of c from its limit shrinks."""
    gamma_law: Law
    """How gamma grows or converges."""
    q_law: Law
    """How q comes to its limit or grows."""
    gradient_law: Law
    """How squared gradients go with the depth, from the last layer to the first."""
    all_q: tuple[VarianceFixedPoint, ...]
    """All fixed points of the variance, stable or not, ascending; `q` is among them unless it is infinite or nan."""

    def __repr__(self) -> str:
        numbers = ", ".join(f"{name}={getattr(self, name):.6g}" for name in _NUMBERS)
        return f"<FixedPoint: {self.phase}; {numbers}>"

    def __str__(self) -> str:
        lines = [f"{name:>6} = {getattr(self, name):.6g}" for name in _NUMBERS]
        growth = [law.sentence for law in (self.q_law, self.gradient_law) if law.law not in ("constant", "exponential")]
        return "\n".join([self.phase, *lines, *growth, self.approach.sentence])


_NUMBERS = ("q", "c", "gamma", "chi", "chi_q", "xi_q", "xi_c")


def fixed_point(ens: Ensemble, *, q0: float = 1.0, c0: float = 0.0) -> FixedPoint:
    """Find the limit of the mean-field recursion that the given inputs reach as the depth grows, and its phase.

    Of several fixed points, the one that is reached counts, be it stable or not: an odd activation without biases keeps
    uncorrelated inputs at c = 0 for ever, and identical inputs stay identical. `all_q` lists the others.

    Parameters
    ----------
    ens : Ensemble
        The law of the networks, with any activation, pool, residual branch and LayerNorm.
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
          comma stand before it;
        * `neither ordered nor chaotic` and a comma before `deep prejudice`, `prejudice` and so on for residual
          networks, where q grows for ever and gradients never vanish: see `q_law` and `gradient_law`;
        * `no limit` where q is thrown to and fro, or grows faster than exponentially.

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
    Bias Meets Trainability: Connecting Theories of Initialization (2026), Table 1; Yang and Schoenholz, Mean field
    residual networks: on the edge of chaos (2017), for the growth laws of residual networks.

    Examples
    --------
    >>> import igbfast as igb
    >>> limit = igb.fixed_point(igb.Ensemble("tanh", sigma_w2=2.5, sigma_b2=0.05))
    >>> limit.phase, round(limit.c, 4)
    ('neutrality', 0.4468)
    >>> print(igb.fixed_point(igb.Ensemble("relu", sigma_w2=1.5, sigma_b2=0.1)).approach)
    1 - c shrinks exponentially, by the factor 0.75 per layer.
    >>> print(igb.fixed_point(igb.Ensemble("tanh", sigma_w2=1.0, sigma_b2=0.1, residual=0.1)).gradient_law)
    Squared gradients grow as exp(0.3208 l^0.5), slower than exponentially.
    """
    ens = as_ensemble(ens)
    sigma_mu2, sigma_y2, _ = first_layer(ens, q0, c0)
    if not math.isfinite(sigma_mu2 + sigma_y2):
        raise ValueError(f"q0 must leave sigma_w2 * q0 + sigma_b2 finite, got {_checks.shown(q0)}")
    start = _Start(ens, sigma_mu2, sigma_y2, VarianceMap(of_ensemble(ens)))
    if ens.residual is not None:
        return _residual_limit(start, ens.residual)
    if ens.layernorm:
        return _normalised_limit(start)
    return _plain_limit(start)


@dataclass(frozen=True, slots=True)
class _Start:
    """An ensemble, and its first layer."""

    ens: Ensemble
    sigma_mu2: float
    sigma_y2: float
    variance: VarianceMap

    @property
    def q(self) -> float:
        return self.sigma_mu2 + self.sigma_y2

    @property
    def c(self) -> float:
        return self.sigma_mu2 / self.q

    @property
    def identical(self) -> bool:
        return self.sigma_y2 == 0.0

    @property
    def symmetric(self) -> bool:
        """Whether c = 0 in every layer."""
        return self.sigma_mu2 == 0.0 and self.odd

    @property
    def odd(self) -> bool:
        """Whether c = 0 stays c = 0: P is odd, and there are no biases."""
        return self.ens.activation.parity == -1 and not self.variance.expect.takes_extremes and self.ens.sigma_b2 == 0.0


# ---- Plain networks: by where q ends ---------------------------------------------------------------------------------


def _plain_limit(start: _Start) -> FixedPoint:
    ens, variance = start.ens, start.variance
    w, b = ens.sigma_w2, ens.sigma_b2
    points = _all_fixed_points(variance, w, b, start.q)
    q = float(variance.limits(w, b, start.q))
    if q == 0.0:
        found = _fading_limit(start)
    elif q == math.inf:
        found = _diverging_limit(start)
    else:
        found = _finite_limit(start, q)
    return replace(found, all_q=points)


def _all_fixed_points(variance: VarianceMap, w: float, b: float, start: float) -> tuple[VarianceFixedPoint, ...]:
    found = []
    for q in variance.fixed_points(w, b, start):
        slope = w * (variance.gain_at_zero if q == 0.0 else float(variance.expect.single(q).square_dq))
        stable = abs(slope) < 1.0 and not is_one(slope)
        if is_one(slope) and not variance.homogeneous:  # neither: by the next order, from the sides
            sides = np.array([q * 0.999, q * 1.001]) if q > 0.0 else np.array([1e-6, 1e-6])
            below, above = w * variance.expect.single(sides).square + b - sides
            stable = bool((q == 0.0 or below > 0.0) and above < 0.0)
        found.append(VarianceFixedPoint(q, slope, bool(stable)))
    return tuple(found)


def _finite_limit(start: _Start, q: float) -> FixedPoint:
    ens, expect = start.ens, start.variance.expect
    w, here = ens.sigma_w2, expect.single(q)
    chi, chi_q = float(w * here.slope2), float(w * here.square_dq)
    if chi_q < -1.0:
        return _cycling_limit(start)
    map_ = CorrelationMap(expect, q, w / q, ens.sigma_b2 / q)
    if start.q == q:
        q_law = Law("constant", "q stays as it is in the first layer.")
    elif is_one(chi_q):
        q_law = Law("power law", "q converges as a power of the depth, because chi_q = 1.")
    else:
        q_law = Law(
            "exponential", f"q converges exponentially, by the factor {abs(chi_q):.6g} per layer.", rate=abs(chi_q)
        )
    return _correlated_limit(start, map_, q, chi, chi_q, abs(chi_q), q_law)


def _correlated_limit(
    start: _Start, map_: CorrelationMap, q: float, chi: float, chi_q: float, rate_q: float, q_law: Law
) -> FixedPoint:
    """A network whose q has settled, or whose P has become homogeneous; `rate_q`: how the deviations from that fall."""
    slope_at_one = map_.slope_at_one

    def limit(c: float, gamma: float, approach: Law, slope: float) -> FixedPoint:
        return _limit(q, c, gamma, chi, chi_q, approach, slope, q_law, _gradients(chi))

    if start.identical:
        return limit(1.0, math.inf, _IDENTICAL, 1.0)
    if start.symmetric:
        return limit(0.0, 0.0, _SYMMETRIC, map_.slope_at(0.0))
    if is_one(slope_at_one):
        bend = map_.bend()
        if bend is None:
            return limit(start.c, start.sigma_mu2 / start.sigma_y2, _LINEAR, 1.0)
        return limit(1.0, math.inf, _critical_approach(start, bend, q), 1.0)
    if slope_at_one < 1.0:
        return limit(1.0, math.inf, _ordered(slope_at_one, q), slope_at_one)
    settled = map_.settled()
    if start.odd and settled.c == 0.0:
        sentence = f"P is odd, without biases: c shrinks exponentially, by the factor {settled.slope:.6g} per layer."
        return limit(0.0, 0.0, _exponential(settled.slope, sentence), settled.slope)
    rate = max(settled.slope, rate_q)
    approach = _exponential(
        rate,
        f"c converges exponentially, by the factor {rate:.6g} per layer, to {settled.c:.6g}{_near_edge(slope_at_one)}.",
    )
    return limit(settled.c, settled.gamma, approach, settled.slope)


def _critical_approach(start: _Start, bend: Bend, q: float) -> Law:
    """From s' = s - B s^(1 + p): s = (p B l)^(-1/p)."""
    if q == math.inf and start.ens.sigma_b2 > 0.0:
        why = "q diverges, and the biases no longer count"
    elif start.ens.sigma_b2 == 0.0 and (q in (0.0, math.inf) or start.variance.homogeneous or start.ens.layernorm):
        why = "without biases, the correlation map does not depend on sigma_w2"
    else:
        why = "chi = 1, the edge of chaos"
    p, b = bend
    return _power_law(1.0 / p, (p * b) ** (-1.0 / p), why)


# ---- q diverges ------------------------------------------------------------------------------------------------------


def _diverging_limit(start: _Start) -> FixedPoint:
    ens, far = start.ens, start.variance.infinity
    if start.variance.superlinear or far is None:
        return _exploding_limit()
    k, chi = ens.sigma_w2 * far.square, ens.sigma_w2 * far.slope2
    if far.is_linear:
        return _linear_limit(start, k, chi)
    map_ = CorrelationMap.of_homogeneous(far)
    if is_one(k):
        return _marginal_limit(start, map_, chi)
    q_law = Law("exponential", f"q diverges exponentially, by the factor {k:.6g} per layer.", rate=k)
    return _correlated_limit(start, map_, math.inf, chi, k, 1.0 / k, q_law)


def _exploding_limit() -> FixedPoint:
    sentence = "q diverges faster than exponentially, because phi grows faster than linearly; c has no limit."
    nothing = Law("none", sentence)
    gone = Law("faster than exponential", sentence)
    nan = math.nan
    return FixedPoint(math.inf, nan, nan, math.inf, math.inf, 0.0, nan, "no limit", nothing, nothing, gone, gone, ())


def _marginal_limit(start: _Start, map_: CorrelationMap, chi: float) -> FixedPoint:
    """sigma_w2 A = 1: q grows as a power of the depth, by sigma_b2 at every layer if P is homogeneous."""
    ens, slope, homogeneous = start.ens, map_.slope_at_one, start.variance.homogeneous
    if homogeneous:
        q_law = Law("power law", "q grows by sigma_b2 at every layer.", exponent=1.0, prefactor=ens.sigma_b2)
    else:
        q_law = Law("power law", "q grows without bound, slower than exponentially.")

    def limit(c: float, gamma: float, approach: Law, slope: float) -> FixedPoint:
        return _limit(math.inf, c, gamma, chi, 1.0, approach, slope, q_law, _gradients(chi))

    if start.identical:
        return limit(1.0, math.inf, _IDENTICAL, 1.0)
    if slope < 1.0 and not is_one(slope):
        return limit(1.0, math.inf, _ordered(slope, math.inf), slope)
    if not is_one(slope):
        settled = map_.settled()
        # c' = map(c) + (1 - c) / l for the homogeneous P, q = sigma_b2 l
        prefactor = (1.0 - settled.c) / (1.0 - settled.slope) if homogeneous else math.nan
        sentence = f"c converges to {settled.c:.6g} as a power of the depth, as q grows."
        approach = Law("power law", sentence, exponent=1.0 if homogeneous else math.nan, prefactor=prefactor)
        return limit(settled.c, settled.gamma, approach, 1.0)
    bend = map_.bend()
    if not homogeneous or bend is None:
        approach = Law("power law", "1 - c falls slower than exponentially, while q grows without bound.")
        return limit(1.0, math.inf, approach, 1.0)
    p, b = bend  # s' = s (1 - 1/l) - B s^(1 + p)
    approach = _power_law(
        1.0 / p, (p * b / (1.0 - p)) ** (-1.0 / p), "q grows by sigma_b2 at every layer, without bound"
    )
    return limit(1.0, math.inf, approach, 1.0)


def _linear_limit(start: _Start, k: float, chi: float) -> FixedPoint:
    """Signals so large that phi(x) = x: sigma_y2' = k sigma_y2, sigma_mu2' = k sigma_mu2 + sigma_b2."""
    b = start.ens.sigma_b2
    growth = Law("exponential", f"q diverges exponentially, by the factor {k:.6g} per layer.", rate=k)
    if is_one(k):
        growth = Law("power law", "q grows by sigma_b2 at every layer.", exponent=1.0, prefactor=b)

    def limit(gamma: float, approach: Law, slope: float) -> FixedPoint:
        c = 1.0 if gamma == math.inf else gamma / (1.0 + gamma)
        return _limit(math.inf, c, gamma, chi, k, approach, slope, growth, _gradients(chi))

    if start.identical:
        return limit(math.inf, _IDENTICAL, 1.0)
    if start.symmetric:
        return limit(0.0, _SYMMETRIC, 1.0)
    if not start.variance.homogeneous:
        gamma = _gamma_of_last_layer(start)
        sentence = (
            f"q diverges, where phi is linear: c stays at {gamma / (1.0 + gamma):.6g}, which depends on the inputs."
        )
        return limit(gamma, _exponential(1.0 / k, sentence), 1.0 / k)
    if b == 0.0:
        return limit(start.sigma_mu2 / start.sigma_y2, _LINEAR, 1.0)
    if is_one(k):
        why = "sigma_mu2 grows by sigma_b2 at every layer, sigma_y2 stays"
        return limit(math.inf, _power_law(1.0, start.sigma_y2 / b, why), 1.0)
    gamma = (start.sigma_mu2 + b / (k - 1.0)) / start.sigma_y2
    rate = 1.0 / k
    sentence = f"q diverges; c converges exponentially, by the factor {rate:.6g} per layer, to what the inputs fix."
    return limit(gamma, _exponential(rate, sentence), rate)


# ---- q dies out ------------------------------------------------------------------------------------------------------


def _fading_limit(start: _Start) -> FixedPoint:
    """No biases, sigma_w2 A <= 1: q falls to zero, and P becomes homogeneous."""
    ens, variance, near = start.ens, start.variance, start.variance.zero
    if near is None:
        sentence = "q falls to 0 faster than exponentially, because phi is flat at zero; c has no limit."
        nothing, gone = Law("none", sentence), Law("faster than exponential", sentence)
        nan = math.nan
        return FixedPoint(0.0, nan, nan, 0.0, 0.0, 0.0, nan, "no limit", nothing, nothing, gone, gone, ())
    k, chi = ens.sigma_w2 * near.square, ens.sigma_w2 * near.slope2
    decay = "as a power of the depth" if is_one(k) else f"exponentially, by the factor {k:.6g} per layer"
    q_law = Law("power law", "") if is_one(k) else Law("exponential", "", rate=k)
    bend = _bend_of_small_signals(variance) if is_one(k) else math.nan
    if is_one(k) and bend > 0.0:
        decay = f"as {1.0 / bend:.4g} / l"
        q_law = Law("power law", "", exponent=1.0, prefactor=1.0 / bend)
    q_law = replace(q_law, sentence=f"q falls to 0 {decay}.")
    if not near.is_linear:
        return _correlated_limit(start, CorrelationMap.of_homogeneous(near), 0.0, chi, k, k, q_law)

    def limit(gamma: float, approach: Law) -> FixedPoint:
        c = 1.0 if gamma == math.inf else gamma / (1.0 + gamma)
        return _limit(0.0, c, gamma, chi, k, approach, 1.0, q_law, _gradients(chi))

    if start.identical:
        return limit(math.inf, _IDENTICAL)
    if start.symmetric:
        return limit(0.0, replace(_SYMMETRIC, sentence=f"q falls to 0 {decay}; {_SYMMETRIC.sentence}"))
    if variance.homogeneous:
        return limit(start.sigma_mu2 / start.sigma_y2, _LINEAR)
    gamma = _settled_gamma(start, bend, k)
    c = gamma / (1.0 + gamma)
    sentence = f"q falls to 0 {decay}, where phi is linear: c stays at {c:.6g}, which depends on the inputs."
    if not is_one(k):
        return limit(gamma, _exponential(k**2 if start.odd else k, sentence))
    if start.odd and bend > 0.0:  # c' = c - (bend^2 / 6) q^2 c (1 - c^2), q = 1 / (bend l)
        return limit(gamma, Law("power law", sentence, exponent=1.0, prefactor=c * (1.0 - c * c) / 6.0))
    return limit(gamma, Law("power law", sentence))


def _bend_of_small_signals(variance: VarianceMap) -> float:
    """d in V = A q (1 - d q + ...), by extrapolation."""
    q = 1e-3 * np.array([1.0, 2.0, 3.0, 4.0])
    loss = 1.0 - variance.expect.single(q).square / (variance.gain_at_zero * q)
    return float(np.polynomial.polynomial.polyfit(q, loss / q, 3)[0])


def _settled_gamma(start: _Start, bend: float, k: float) -> float:
    """gamma where the nodes have become linear: from a trajectory and, for odd P, the rest of the way in closed form.

    For small q, an odd phi is x - kappa x^3 up to a factor: with d = 6 kappa, q' = k q (1 - d q) and
    c' = c - (d^2 / 6) q^2 c (1 - c^2). With e = 1 - k, log(c / sqrt(1 - c^2)) still loses
    (d q - e log(1 + d q / e)) / 6.
    """
    e = max(1.0 - k, 0.0)
    layers = min(SETTLING_LAYERS, 64 + (math.ceil(60.0 / -math.log(k)) if k < 1.0 else SETTLING_LAYERS))
    columns = trajectory(start.ens, layers, start.sigma_mu2, start.sigma_y2)
    last = int(np.flatnonzero(np.isfinite(columns["gamma"]))[-1])
    q, gamma = float(columns["q"][last]), float(columns["gamma"][last])
    if not start.odd and start.ens.activation.parity != -1:
        return gamma
    d = bend if math.isfinite(bend) else _bend_of_small_signals(start.variance)
    loss = (d * q - (e * math.log1p(d * q / e) if e > 0.0 else 0.0)) / 6.0
    # c^2 / (1 - c^2) = gamma^2 / (1 + 2 gamma)
    odds = gamma * gamma / (1.0 + 2.0 * gamma) * math.exp(-2.0 * loss)
    return odds + math.sqrt(odds * (1.0 + odds))


def _gamma_of_last_layer(start: _Start) -> float:
    columns = trajectory(start.ens, 1000, start.sigma_mu2, start.sigma_y2)
    gamma = columns["gamma"]
    return float(gamma[np.flatnonzero(np.isfinite(gamma))[-1]])


# ---- q does not settle -----------------------------------------------------------------------------------------------


def _cycling_limit(start: _Start) -> FixedPoint:
    """dq'/dq < -1: V falls so steeply, as pools of three and more nodes can make it, that q overshoots for ever."""
    q, orbit = start.q, []
    for _ in range(CYCLE_LAYERS):
        q = float(start.ens.sigma_w2 * start.variance.expect.single(q).square + start.ens.sigma_b2)
        orbit.append(q)
        if len(orbit) > 100 and len(orbit) % 2 and abs(orbit[-1] / orbit[-3] - 1.0) < 1e-12:
            break
    tail = orbit[-64:]
    sentence = f"q does not converge: it is thrown to and fro between {min(tail):.6g} and {max(tail):.6g}."
    nothing = Law("none", sentence)
    nan = math.nan
    return FixedPoint(nan, nan, nan, nan, nan, nan, nan, "no limit", nothing, nothing, nothing, nothing, ())


# ---- LayerNorm and residual networks ---------------------------------------------------------------------------------


def _normalised_limit(start: _Start) -> FixedPoint:
    """P sees signals of variance 1: q is the same from the second layer on."""
    ens, expect = start.ens, start.variance.expect
    here = expect.single(1.0)
    q = float(ens.sigma_w2 * here.square + ens.sigma_b2)
    chi = float(ens.sigma_w2 * here.slope2) / q
    map_ = CorrelationMap(expect, 1.0, ens.sigma_w2 / q, ens.sigma_b2 / q)
    q_law = Law("constant", "LayerNorm: q is the same from the second layer on.")
    found = _correlated_limit(start, map_, q, chi, 0.0, 0.0, q_law)
    return replace(found, all_q=(VarianceFixedPoint(q, 0.0, True),))


@dataclass(frozen=True, slots=True)
class _Growth:
    """How a residual network grows."""

    map_: CorrelationMap
    """What q and c grow towards."""
    share: float
    """epsilon where it is constant, or epsilon l."""
    exponential: bool
    chi: float
    chi_q: float
    q_law: Law
    gradient_law: Law


def _residual_limit(start: _Start, a: float) -> FixedPoint:
    """y' = y + sqrt(a) (W P(y) + b): q grows for ever, and c goes where the added part pulls it."""
    ens, variance = start.ens, start.variance
    if ens.layernorm:
        growth = _normalised_growth(ens, a)
    elif variance.superlinear:
        return replace(_exploding_limit(), phase="no limit")
    elif variance.infinity is not None:
        growth = _exponential_growth(ens, a, variance)
    else:
        growth = _polynomial_growth(ens, a, variance)
    c, gamma, approach, slope = _pulled_correlation(start, growth)
    found = _limit(math.inf, c, gamma, growth.chi, growth.chi_q, approach, slope, growth.q_law, growth.gradient_law)
    guess = "deep prejudice" if gamma == math.inf else _guess(gamma)
    return replace(found, phase=f"neither ordered nor chaotic, {guess}")


def _exponential_growth(ens: Ensemble, a: float, variance: VarianceMap) -> _Growth:
    far = variance.infinity
    assert far is not None
    branch = a * ens.sigma_w2
    factor, chi = 1.0 + branch * far.square, 1.0 + branch * far.slope2
    return _Growth(
        CorrelationMap.of_homogeneous(far),
        1.0 - 1.0 / factor,
        True,
        chi,
        factor,
        Law("exponential", f"q grows exponentially, by the factor {factor:.6g} per layer.", rate=factor),
        Law("exponential", f"Squared gradients grow exponentially, by the factor {chi:.6g} per layer.", rate=chi),
    )


def _normalised_growth(ens: Ensemble, a: float) -> _Growth:
    """Each layer adds the same: q = a (sigma_w2 V(1) + sigma_b2) l, chi = 1 + a sigma_w2 D(1) / q."""
    expect = of_ensemble(ens)
    here = expect.single(1.0)
    added = float(ens.sigma_w2 * here.square + ens.sigma_b2)
    map_ = CorrelationMap(expect, 1.0, ens.sigma_w2 / added, ens.sigma_b2 / added)
    power = map_.slope_at_one
    return _Growth(
        map_,
        1.0,
        False,
        1.0,
        1.0,
        Law("power law", f"q grows by {a * added:.6g} at every layer.", exponent=1.0, prefactor=a * added),
        Law("power law", f"Squared gradients grow as {_power(power)}, a power of the depth.", exponent=power),
    )


def _polynomial_growth(ens: Ensemble, a: float, variance: VarianceMap) -> _Growth:
    """V = V1 q^e with e < 1, measured far out: q = (a sigma_w2 (1 - e) V1 l)^(1 / (1 - e)); bounded phi has e = 0."""
    expect, w, b = variance.expect, ens.sigma_w2, ens.sigma_b2
    far = farthest(variance)
    here, further = expect.single(far), expect.single(4.0 * far)
    added = float(w * here.square + b)
    e = _snapped(float(w * far * here.square_dq) / added)
    power = 1.0 / (1.0 - e)
    prefactor = ((1.0 - e) * a * added * far**-e) ** power
    fall = _snapped(math.log(float(here.slope2 / further.slope2)) / math.log(4.0)) if here.slope2 > 0.0 else math.inf
    stretch = 1.0 - power * fall
    if math.isfinite(stretch) and stretch > 0.0:
        sum_ = a * w * float(here.slope2) * far**fall * prefactor**-fall / stretch
        gradients = Law(
            "stretched exponential",
            f"Squared gradients grow as exp({sum_:.4g} {_power(stretch)}), slower than exponentially.",
            exponent=stretch,
            prefactor=sum_,
        )
    else:
        gradients = Law("constant", "Squared gradients stay bounded.")
    return _Growth(
        CorrelationMap(expect, far, w / added, b / added),
        power,
        False,
        1.0,
        1.0,
        Law("power law", f"q grows as {prefactor:.4g} {_power(power)}.", exponent=power, prefactor=prefactor),
        gradients,
    )


def farthest(variance: VarianceMap) -> float:
    """A variance so large that P is what it is at infinity: a step if phi has limits there. Else, as far as is easy."""
    x = np.logspace(3.0, 12.0, 19)
    ends = [phi(sign * x) for _, phi in variance.expect.activation.components for sign in (-1.0, 1.0)]
    if all(np.ptp(end) <= 1e-2 * np.max(np.abs(end)) for end in ends):
        for q in (1e24, 1e16, 1e12):
            if variance.reaches(4.0 * q):
                return q
    return 1e4


def _snapped(x: float) -> float:
    """Without the last digits of an exponent that was measured at a large but finite variance."""
    return round(x, 3) if abs(x - round(x, 3)) < 1e-4 else x


def _pulled_correlation(start: _Start, growth: _Growth) -> tuple[float, float, Law, float]:
    """c, gamma, how it is approached, and dc'/dc of c' = c + epsilon (map(c) - c)."""
    map_, share = growth.map_, growth.share
    slope = map_.slope_at_one
    if start.identical:
        return 1.0, math.inf, _IDENTICAL, 1.0
    if start.symmetric:
        return 0.0, 0.0, _SYMMETRIC, 1.0
    if not is_one(slope) and slope > 1.0:
        settled = map_.settled()
        c, gamma, pull = settled.c, settled.gamma, 1.0 - settled.slope
        goal, what = f"to {c:.6g}", "c converges"
    else:
        c, gamma, pull = 1.0, math.inf, 0.0 if is_one(slope) else 1.0 - slope
        goal, what = "to 1", "c converges"
    if pull == 0.0:
        return c, gamma, _critical_pull(growth), 1.0
    if growth.exponential:
        rate = 1.0 - share * pull if c == 1.0 else max(1.0 - share * pull, 1.0 / growth.chi_q)
        return c, gamma, _exponential(rate, f"{what} exponentially, by the factor {rate:.6g} per layer, {goal}."), rate
    power = share * pull
    return c, gamma, Law("power law", f"{what} as l^-{power:.4g}, a power of the depth, {goal}.", exponent=power), 1.0


def _critical_pull(growth: _Growth) -> Law:
    bend = growth.map_.bend()
    if bend is None:
        return Law("constant", "c stays where the growth of q leaves it, which depends on the inputs.")
    p, b = bend
    if growth.exponential:
        return _power_law(1.0 / p, (p * growth.share * b) ** (-1.0 / p), "each layer moves c by a constant share")
    prefactor = (p * growth.share * b) ** (-1.0 / p)
    sentence = f"1 - c falls as {prefactor:.4g} / {_power(1.0 / p, '(ln l)')}, slower than any power of the depth."
    return Law("logarithmic", sentence, exponent=1.0 / p, prefactor=prefactor)


# ---- Words -----------------------------------------------------------------------------------------------------------


def _limit(
    q: float,
    c: float,
    gamma: float,
    chi: float,
    chi_q: float,
    approach: Law,
    slope: float,
    q_law: Law,
    gradient_law: Law,
) -> FixedPoint:
    """The result, with its phase and depth scales; `slope` is dc'/dc."""
    return FixedPoint(
        q=q,
        c=c,
        gamma=gamma,
        chi=chi,
        chi_q=chi_q,
        xi_q=_depth_scale(chi_q),
        xi_c=_depth_scale(slope) if approach.law in ("exponential", "constant") else math.inf,
        phase=_phase(gamma, chi),
        approach=approach,
        gamma_law=_gamma_law(gamma, approach),
        q_law=q_law,
        gradient_law=gradient_law,
        all_q=(),
    )


def _depth_scale(factor: float) -> float:
    if factor == 0.0:
        return 0.0
    return math.inf if is_one(abs(factor)) else abs(1.0 / math.log(abs(factor)))


def _phase(gamma: float, chi: float) -> str:
    if gamma == math.inf:
        if is_one(chi):
            return "edge of chaos, transient deep prejudice"
        return "ordered, persistent deep prejudice" if chi < 1.0 else "chaotic deep prejudice"
    if is_one(chi):
        return f"edge of chaos, {_guess(gamma)}"
    return _guess(gamma) if chi > 1.0 else f"ordered, {_guess(gamma)}"


def _guess(gamma: float) -> str:
    return "neutrality line" if is_one(gamma) else "prejudice" if gamma > 1.0 else "neutrality"


def _gamma_law(gamma: float, approach: Law) -> Law:
    """gamma = 1 / (1 - c) - 1, by how c comes to its limit."""
    if gamma != math.inf or approach.law in ("constant", "none"):
        converges = f"gamma is {gamma:.6g} in the limit" if math.isfinite(gamma) else "gamma"
        return Law(approach.law, f"{converges}: {approach.sentence}", rate=approach.rate, exponent=approach.exponent)
    if approach.law == "exponential":
        rate = 1.0 / approach.rate if approach.rate > 0.0 else math.inf
        return Law("exponential", f"gamma grows exponentially, by the factor {rate:.6g} per layer.", rate=rate)
    if math.isnan(approach.exponent):
        return Law(approach.law, "gamma grows slower than exponentially.")
    of = "l" if approach.law == "power law" else "(ln l)"
    amount = "" if math.isnan(approach.prefactor) else f"{1.0 / approach.prefactor:.4g} "
    sentence = f"gamma grows as {amount}{_power(approach.exponent, of)}."
    return Law(approach.law, sentence, exponent=approach.exponent, prefactor=1.0 / approach.prefactor)


def _gradients(chi: float) -> Law:
    """The law of a network whose chi has a limit."""
    if is_one(chi):
        return Law("constant", "Squared gradients stay of one size: chi = 1.")
    verb = "vanish" if chi < 1.0 else "explode"
    return Law("exponential", f"Squared gradients {verb} exponentially, by the factor {chi:.6g} per layer.", rate=chi)


def _exponential(rate: float, sentence: str) -> Law:
    return Law("exponential", sentence, rate=rate)


def _power(exponent: float, of: str = "l") -> str:
    return of if exponent == 1.0 else f"{of}^{exponent:.4g}"


def _power_law(exponent: float, prefactor: float, reason: str) -> Law:
    power = "l" if exponent == 1 else f"l^{exponent:.4g}"
    return Law(
        "power law", f"1 - c falls as {prefactor:.4g} / {power}: {reason}.", exponent=exponent, prefactor=prefactor
    )


def _ordered(slope: float, q: float) -> Law:
    diverges = "q diverges; " if q == math.inf else ""
    sentence = f"{diverges}1 - c shrinks exponentially, by the factor {slope:.6g} per layer{_near_edge(slope)}."
    return _exponential(slope, sentence)


def _near_edge(chi: float) -> str:
    """A closing remark for a chi that looks like 1 to the eye."""
    if abs(chi - 1.0) > 0.01:
        return ""
    return f"; it takes some {1.0 / abs(chi - 1.0):.0f} layers to tell chi = {chi:.10g} from the edge of chaos"


_IDENTICAL = Law("constant", "The inputs are identical (c0 = 1) and stay so: c = 1 in every layer.")
_SYMMETRIC = Law("constant", "phi is odd, there are no biases and c0 = 0: by symmetry, c = 0 in every layer.")
_LINEAR = Law("constant", "A linear network without biases keeps c as the inputs have it, in every layer.")
