"""The map of the correlation of two inputs at a settled variance, in s = 1 - c, which does not cancel:

    s' = weight E[(P(u) - P(v))^2] / 2 =: map(s),   u, v ~ N(0, v) with correlation 1 - s,   weight V(v) + bias = 1

With q = q* and v = q, weight = sigma_w2 / q and bias = sigma_b2 / q. LayerNorm has v = 1. A network whose q diverges or
dies out has the map of the homogeneous P that its signals see, without biases. map(s) / s falls as s grows: s = 0,
which is c = 1, attracts if the slope there is at most 1, and else exactly one s in (0, 1] does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ._expectations import Expectations
from ._variance import EDGE, Homogeneous

__all__ = ["Bend", "CorrelationMap", "Settled"]

Bend = tuple[float, float]
"""(p, B) in map(s) = slope s - B s^(1 + p) + ... for small s."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The fixed point that attracts correlations below 1."""

    c: float
    gamma: float
    slope: float
    """dc'/dc there."""


@dataclass(frozen=True, slots=True)
class CorrelationMap:
    """One such map."""

    expect: Expectations
    variance: float
    """The v above: what P sees."""
    weight: float
    bias: float

    @classmethod
    def of_homogeneous(cls, limit: Homogeneous) -> CorrelationMap:
        """The map of signals so large or so small that P is homogeneous and biases do not count."""
        return cls(limit.expect, 1.0, 1.0 / float(limit.expect.single(1.0).square), 0.0)

    @property
    def slope_at_one(self) -> float:
        """dc'/dc at c = 1."""
        return self.weight * self.variance * float(self.expect.single(self.variance).slope2)

    def slope_at(self, c: float) -> float:
        """dc'/dc."""
        v = self.variance
        if self.expect.activation.orders > 0:
            return self.weight * v * float(self.expect.pair(1, v, v, c))
        step = 0.01 * (1.0 - c)  # P jumps, and P' does not exist: differences of order 6 instead
        near = self.expect.pair(0, v, v, c + step * np.array([-3.0, -2.0, -1.0, 1.0, 2.0, 3.0]))
        return self.weight * float(near @ np.array([-1.0, 9.0, -45.0, 45.0, -9.0, 1.0])) / (60.0 * step)

    def per_s(self, s: float) -> float:
        """map(s) / s."""
        return self.weight * float(self.expect.split(self.variance * (1.0 - s), self.variance * s).spread) / s

    def settled(self) -> Settled:
        """The fixed point below 1 if the slope at c = 1 is above 1; there, c = 1 does not attract.

        The unknown is log s where c > 1/2 and log c where it is smaller, so that neither cancels.
        """
        half = math.log(0.51)  # a little more, so that rounding does not matter at c = 1/2
        if self.per_s(0.5) <= 1.0:
            low = half
            while self.per_s(math.exp(low)) <= 1.0 and low > math.log(EDGE**2 * 1e-3):
                low -= math.log(4.0)
            s = math.exp(_root(lambda x: self.per_s(math.exp(x)) - 1.0, low, half))
            return Settled(1.0 - s, (1.0 - s) / s, self.slope_at(1.0 - s))
        smallest = self.centre(0.0)  # c' at c = 0
        if smallest < np.finfo(np.float64).tiny:
            return Settled(0.0, 0.0, self.slope_at(0.0))
        log_c = _root(lambda x: self.centre(math.exp(x)) / math.exp(x) - 1.0, math.log(smallest) - 1e-9, half)
        c = math.exp(log_c)
        return Settled(c, c / (1.0 - c), self.slope_at(c))

    def centre(self, c: float) -> float:
        """c' by the other of the two expectations, which is small where c is."""
        v = self.variance
        return self.weight * float(self.expect.split(v * c, v * (1.0 - c)).centre) + self.bias

    def bend(self) -> Bend | None:
        """How the map leaves its tangent at c = 1; None if it is linear.

        Smooth P: weight v^2 E[P''^2] / 2, from K(q_ab) = E[P(u) P(v)], whose n-th derivative is E[P^(n)(u) P^(n)(v)].
        Slopes that jump by J: E[(P'(u) - P'(v))^2] / 2 is J^2 / 2 where u and v lie on different sides, which has the
        probability density(x) E|u - v| = density(x) sqrt(4 v s / pi); integrated over s, this gives s^(3/2).
        Else the series of map(s) / s in sqrt(s) is taken from its values.
        """
        v, phi = self.variance, self.expect.activation
        if self.expect.takes_extremes:
            return self._measured_bend()
        share = 1.0 if self.expect.pool is None else 1.0 / self.expect.pool.size
        jumps = 0.0
        for weight, part in phi.components:
            for x in part.kinks:
                left, right = (float(part.derivative(np.nextafter(x, end))) for end in (-math.inf, math.inf))
                density = math.exp(-x * x / (2.0 * v)) / math.sqrt(2.0 * math.pi * v)
                jumps += weight * (right - left) ** 2 * density
        # A jump that is rounding counts as none.
        if jumps * v > 1e-20 * float(self.expect.single(v).slope2) * math.sqrt(v):
            return 0.5, self.weight * v * share * (2.0 / 3.0) * math.sqrt(v / math.pi) * jumps
        if phi.orders < 2:
            return self._measured_bend()
        bend = 0.5 * self.weight * v * v * float(self.expect.pair(2, v, v, 1.0))
        return (1.0, bend) if bend > 0.0 else None

    def _measured_bend(self) -> Bend | None:
        """(slope - map(s) / s) / sqrt(s) = B + B1 sqrt(s) + ... at some s, taken to s = 0; p = 1 if B is nothing."""
        root_s = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) * 4e-3
        s = root_s**2
        v = self.variance
        ratio = self.weight * self.expect.split(v * (1.0 - s), v * s).spread / s
        slope = self.slope_at_one
        terms = np.polynomial.polynomial.polyfit(root_s, (slope - ratio) / root_s, 5)
        if terms[0] > 1e-6 * slope:
            return 0.5, float(terms[0])
        return (1.0, float(terms[1])) if terms[1] > 1e-5 * slope else None


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    from scipy.optimize import brentq

    return float(brentq(function, low, high, xtol=1e-15, rtol=4.0 * np.finfo(np.float64).eps))
