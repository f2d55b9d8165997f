"""The attracting correlation of many ensembles at once: s = 1 - c from T(q, s) = tau, with T = spread / (q s).

tau is 1 / sigma_w2, and T falls from D(q) at s = 0. Where T is cheap it is asked for at every step. Where it is not (a
pool of extremes costs a double integral), its deficit from D is replaced by Chebyshev series on rectangles in log q and
sqrt s, in which it is smooth:

    R = (D - T) / s        for a P with second derivative: q E[P''^2] / 2 at s = 0
    R = (D - T) / sqrt s   for a P whose slope jumps
    R = -T sqrt s          for a P that jumps, D being infinite

so that small s, near the edge of chaos, are as accurate as the rest.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from ._correlation import CorrelationMap
from ._expectations import Expectations
from ._roots import bracketed_roots
from ._variance import FloatArray

__all__ = ["attracting_correlations"]

TERMS_Q, TERMS_S = 14, 12
WIDEST = 2.5
"""Width of a rectangle in log q, at first: T is analytic for |arg q| < pi / 2, and 14 terms have 9 digits or more."""
ACCURACY, ROUGH_ACCURACY = 1e-8, 1e-6
"""Of the surface; the second where a step of Newton follows, which squares it."""
ROUNDING = 1e-14
MOST_POINTS = 20_000
STEPS = 10
"""About as many values of T does a root take that is bracketed."""
SMALLEST_S = 1e-24


def attracting_correlations(expect: Expectations, q: FloatArray, tau: FloatArray) -> tuple[FloatArray, FloatArray]:
    """s and dc'/dc at the root of T(q, s) = tau, for every q and tau below D(q)."""
    if not q.size:
        return np.empty(0), np.empty(0)
    points = _panels(float(q.min()), float(q.max())) * TERMS_Q * 3 * TERMS_S  # of the coarsest surface
    if math.isinf(expect.phi(float(q.max())).q_max) or STEPS * q.size < 2 * points:
        return _asked(expect, q, tau)
    s, slope = _SpreadSurface.of(expect, float(q.min()), float(q.max())).solved(q, tau)
    if expect.takes_extremes or expect.activation.kinks:
        return s, slope
    # A step of Newton, with T itself and the slope of the surface: s dT/ds = tau (slope - 1).
    ratio = expect.split(q * (1.0 - s), q * s).spread / (q * s * tau)
    s = np.clip(s * (1.0 - (ratio - 1.0) / (slope - 1.0)), SMALLEST_S, 1.0)
    return s, expect.pair(1, q, q, 1.0 - s) / tau


def _asked(expect: Expectations, q: FloatArray, tau: FloatArray) -> tuple[FloatArray, FloatArray]:
    def excess(s: FloatArray, which: NDArray[np.intp]) -> FloatArray:
        v = q[which]
        return expect.split(v * (1.0 - s), v * s).spread / (v * s * tau[which]) - 1.0

    s = bracketed_roots(excess, np.full(q.shape, SMALLEST_S), 1.0, 1e-14, SMALLEST_S)
    return s, _slopes_at(expect, q, s, tau)


def _slopes_at(expect: Expectations, q: FloatArray, s: FloatArray, tau: FloatArray) -> FloatArray:
    """dc'/dc, which for a P that jumps is not E[P'(u) P'(v)]."""
    if expect.activation.orders > 0:
        return expect.pair(1, q, q, 1.0 - s) / tau
    points = zip(q, 1.0 / (tau * q), 1.0 - s, strict=True)
    slopes = [CorrelationMap(expect, v, weight, 0.0).slope_at(c) for v, weight, c in points]
    return np.array(slopes)


class _SpreadSurface:
    """R over a range of q, on equal panels in log q and, towards zero, ever smaller ones in sqrt s."""

    def __init__(self, expect: Expectations, low: float, high: float, panels: int, halvings: int) -> None:
        self.expect = expect
        self.power = _power(expect)
        terms = TERMS_Q if high > low * (1.0 + 1e-9) else 1
        self.log_q = np.linspace(math.log(low), math.log(high), panels + 1)
        self.root_s = np.concatenate([[0.0], 2.0 ** -np.arange(halvings, -1.0, -1.0)])
        q, t = np.exp(_nodes(self.log_q, terms)), _nodes(self.root_s, TERMS_S)
        values, noise = self.values(q.ravel(), t.ravel())
        shape = (panels, terms, halvings + 1, TERMS_S)
        # [panel in q, panel in s, term in q, term in s]
        self.series = np.einsum("aibj,mi,nj->abmn", values.reshape(shape), _to_series(terms), _to_series(TERMS_S))
        self.noise = noise.reshape(shape).max(axis=(1, 3))

    @classmethod
    def of(cls, expect: Expectations, low: float, high: float) -> _SpreadSurface:
        """As fine as it takes."""
        panels, halvings, before = _panels(low, high), 2, math.inf
        accuracy = ACCURACY if expect.takes_extremes or expect.activation.kinks else ROUGH_ACCURACY
        while True:
            surface = cls(expect, low, high, panels, halvings)
            rough_q, rough_s = surface.roughness()
            panels, halvings = panels * (1 + (rough_q > accuracy)), halvings + 2 * (rough_s > accuracy)
            points = panels * TERMS_Q * (halvings + 1) * TERMS_S
            now = max(rough_q, rough_s)
            if now <= accuracy or now > 0.3 * before or points > MOST_POINTS:
                return surface
            before = now

    def values(self, q: FloatArray, root_s: FloatArray) -> tuple[FloatArray, FloatArray]:
        """R at all q (down) and sqrt s (across), and its rounding errors."""
        variance, s = np.meshgrid(q, root_s**2, indexing="ij")
        t = self.expect.split(variance * (1.0 - s), variance * s).spread / (variance * s)
        if self.power < 0:
            return -t * root_s, ROUNDING * t * root_s
        slope2 = self.expect.single(q).slope2[:, None]
        return (slope2 - t) / root_s**self.power, ROUNDING * slope2 / root_s**self.power

    def roughness(self) -> tuple[float, float]:
        """The last terms of the series relative to the largest, in log q and in sqrt s, less what is rounding."""
        size = np.abs(self.series)
        largest = size.max(axis=(2, 3))
        in_q = size[:, :, -1, :].max(axis=2) if size.shape[2] > 1 else 0.0 * largest
        in_s = size[:, :, :, -1].max(axis=2)
        return float(np.max((in_q - self.noise) / largest)), float(np.max((in_s - self.noise) / largest))

    def solved(self, q: FloatArray, tau: FloatArray) -> tuple[FloatArray, FloatArray]:
        """s and dc'/dc at the root of T = tau."""
        panel = np.clip(np.searchsorted(self.log_q, np.log(q), side="right") - 1, 0, self.log_q.size - 2)
        in_q = _terms(_within(np.log(q), self.log_q, panel), self.series.shape[2])
        series = np.einsum("kbmn,km->kbn", self.series[panel], in_q)  # in sqrt s, at every q
        slope = _slopes(series, np.diff(self.root_s))
        rest = -tau if self.power < 0 else self.expect.single(q).slope2 - tau  # R s^(power / 2)

        def at(some: FloatArray, root_s: FloatArray, which: NDArray[np.intp]) -> FloatArray:
            b = np.clip(np.searchsorted(self.root_s, root_s, side="right") - 1, 0, self.root_s.size - 2)
            found: FloatArray = np.einsum(
                "kn,kn->k", some[which, b], _terms(_within(root_s, self.root_s, b), some.shape[2])
            )
            return found

        def excess(root_s: FloatArray, which: NDArray[np.intp]) -> FloatArray:
            r = at(series, root_s, which)
            return r - rest[which] * root_s if self.power < 0 else r * root_s**self.power - rest[which]

        t = bracketed_roots(excess, np.full(q.shape, math.sqrt(SMALLEST_S)), 1.0, 1e-14, math.sqrt(SMALLEST_S))
        every = np.arange(q.size)
        r, dr = at(series, t, every), at(slope, t, every)
        change = -0.5 * (self.power * r * t**self.power + dr * t ** (self.power + 1))  # s dT/ds
        return t**2, 1.0 + change / tau


def _panels(low: float, high: float) -> int:
    return max(math.ceil(math.log(high / low) / WIDEST), 1)


def _power(expect: Expectations) -> int:
    """The power of sqrt s that is taken out of D - T; -1 where D is infinite."""
    orders = expect.activation.orders
    return -1 if orders == 0 else 1 if orders == 1 or expect.takes_extremes else 2


# ---- Chebyshev series on panels --------------------------------------------------------------------------------------


def _nodes(edges: FloatArray, terms: int) -> FloatArray:
    """One row of nodes for every panel."""
    t = chebyshev.chebpts1(terms)
    return edges[:-1, None] + 0.5 * np.diff(edges)[:, None] * (1.0 + t)


def _to_series(terms: int) -> FloatArray:
    """From values at the nodes to coefficients."""
    matrix = chebyshev.chebvander(chebyshev.chebpts1(terms), terms - 1).T * 2.0 / terms
    matrix[0] *= 0.5
    return np.asarray(matrix, np.float64)


def _within(x: FloatArray, edges: FloatArray, panel: NDArray[np.intp]) -> FloatArray:
    """From -1 to 1 over the panel."""
    width = np.maximum(edges[panel + 1] - edges[panel], np.finfo(np.float64).tiny)
    inside: FloatArray = np.clip(2.0 * (x - edges[panel]) / width - 1.0, -1.0, 1.0)
    return inside


def _terms(t: FloatArray, terms: int) -> FloatArray:
    return np.asarray(chebyshev.chebvander(t, terms - 1), np.float64)


def _slopes(series: FloatArray, widths: FloatArray) -> FloatArray:
    """The series of the derivative, panel by panel."""
    return np.asarray(chebyshev.chebder(series, axis=2) * 2.0 / widths[:, None], np.float64)
