"""The map of the signal variance, q' = sigma_w2 V(q) + sigma_b2 with V = E[P^2]: its fixed points and its limits.

Everything is asked of one row of V over a grid in log q, which every ensemble shares, and refined between its nodes.
At both ends P is nearly homogeneous where phi has slopes on either side of zero (q -> 0) or at infinity: V is then A q,
and sigma_w2 A says whether signals of that size grow or shrink.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import activations
from ._expectations import Expectations, Singles
from ._roots import bracketed_roots
from .activations import Activation
from .pools import MaxPool, MinPool

__all__ = ["EDGE", "Homogeneous", "VarianceMap", "homogeneous", "is_one"]

FloatArray = NDArray[np.float64]

EDGE = 1e-9
"""A susceptibility within this of 1 counts as 1, and a gamma within this of 1 as the neutrality line."""

PER_DECADE = 16
LOWEST, HIGHEST = 1e-20, 1e306
FEW = 64
"""Roots up to this number are bracketed; more are interpolated first, which takes fewer expectations."""
FAR = 1e8
"""Where the sign of q' - q is taken for that at infinity, if sigma_w2 A is 1 there."""


def is_one(x: ArrayLike) -> NDArray[np.bool_]:
    """Whether a susceptibility counts as 1."""
    return np.abs(np.asarray(x) - 1.0) <= EDGE


@dataclass(frozen=True, slots=True)
class Homogeneous:
    """A pooled piecewise linear activation, P(t y) = t P(y) for t > 0, that P is like for small or large signals."""

    expect: Expectations
    """Those of P up to a factor."""
    is_linear: bool
    """Whether correlations stay as they are."""

    square: float
    """A = V(q) / q."""
    slope2: float
    """D, which does not depend on q."""


Slopes = tuple[float, float]
"""Of a function on the left and on the right, near zero or far out."""


def homogeneous(expect: Expectations, slopes: list[Slopes]) -> Homogeneous | None:
    """The pool of piecewise linear functions with these slopes, one for each component; None if all are zero."""
    if not np.any(slopes):
        return None
    is_linear = not expect.takes_extremes and all(minus == plus for minus, plus in slopes)
    if len(slopes) > 1:
        parts = zip(expect.activation.components, slopes, strict=True)
        mixed = activations.mixture([(weight, _piecewise_linear(*pair)) for (weight, _), pair in parts])
        return _measured(Expectations(mixed, expect.pool), 1.0, is_linear)
    ((minus, plus),) = slopes
    if abs(plus) < abs(minus):  # the same law: y and -y are alike
        minus, plus = -plus, -minus
    pool = expect.pool
    if plus < 0.0 and pool is not None and expect.takes_extremes:
        pool = (MinPool if pool.kind == "max" else MaxPool)(pool.size)
    return _measured(Expectations(_piecewise_linear(minus / plus, 1.0), pool), plus**2, is_linear)


def _measured(expect: Expectations, factor: float, is_linear: bool) -> Homogeneous:
    here = expect.single(1.0)
    return Homogeneous(expect, is_linear, factor * float(here.square), factor * float(here.slope2))


def _piecewise_linear(minus: float, plus: float) -> Activation:
    if minus == plus == 1.0:
        return activations.linear
    if plus == 1.0:
        return activations.leaky_relu(minus) if minus else activations.relu
    return minus * activations.linear + (plus - minus) * activations.relu


class VarianceMap:
    """V(q) of one activation and pool over all q."""

    def __init__(self, expect: Expectations) -> None:
        self.expect = expect
        parts = [phi for _, phi in expect.activation.components]
        slopes = [_slopes_at_zero(phi) for phi in parts]
        asymptotes = [phi.asymptotes for phi in parts]
        self.fades = None not in slopes
        """Whether V(q) -> 0 as q -> 0, and P is nearly homogeneous there: without biases, q = 0 is a fixed point."""
        self.superlinear = None in asymptotes
        """Whether V(q) / q grows without bound as q -> infinity."""
        self.zero = homogeneous(expect, [pair for pair in slopes if pair]) if self.fades else None
        self.infinity = homogeneous(expect, [pair for pair in asymptotes if pair]) if not self.superlinear else None
        self.homogeneous = all(_is_homogeneous(*part) for part in zip(parts, slopes, asymptotes, strict=True))
        """Whether P is so for all signals."""
        known = _SMALL_SIGNALS.get(expect.activation.name)
        self._series = None if known is None or expect.pool is not None else known[1]
        self._log_q = np.empty(0)
        self._row = Singles(*(np.empty(0) for _ in range(4)))

    @property
    def gain_at_zero(self) -> float:
        """A as q -> 0."""
        if not self.fades:
            return math.inf
        return 0.0 if self.zero is None else self.zero.square

    @property
    def gain_at_infinity(self) -> float:
        """A as q -> infinity."""
        if self.superlinear:
            return math.inf
        return 0.0 if self.infinity is None else self.infinity.square

    # ---- The grid ----------------------------------------------------------------------------------------------------

    def row(self, low: float, high: float) -> tuple[FloatArray, Singles]:
        """q and the expectations at the grid's nodes from `low` to `high`, and one beyond at either end."""
        first, last = math.floor(PER_DECADE * math.log10(low)), math.ceil(PER_DECADE * math.log10(high))
        known = self._log_q
        nodes = np.arange(first, last + 1)
        missing = np.setdiff1d(nodes, known)
        if missing.size:
            found = self.expect.single(10.0 ** (missing / PER_DECADE))
            merged = np.concatenate([known, missing])
            order = np.argsort(merged)
            self._log_q = merged[order]
            self._row = Singles(*(np.concatenate(pair)[order] for pair in zip(self._row, found, strict=True)))
        picked = np.searchsorted(self._log_q, nodes)
        return 10.0 ** (nodes / PER_DECADE), Singles(*(column[picked] for column in self._row))

    def reaching(self, w: FloatArray, b: FloatArray, low: float, high: float) -> tuple[FloatArray, Singles]:
        """The row from `low` to where, above `high`, the sign of q' - q is the one at infinity, for every ensemble."""
        wanted = np.where(is_one(w * self.gain_at_infinity), 0.0, np.sign(w * self.gain_at_infinity - 1.0))
        while True:
            q, row = self.row(low, high)
            top = (w * row.square[-1] + b) / q[-1]
            settled = (np.sign(top - 1.0) == wanted) | ((wanted == 0.0) & (high >= FAR))
            if self.superlinear:
                settled &= top > 10.0
            else:
                settled &= (np.abs(top - w * self.gain_at_infinity) < 0.5) | (wanted == 0.0)
            if settled.all() or high >= HIGHEST:
                return q, row
            # Where V rises, no root lies between q and q'.
            leap = float(np.max(top[~settled])) * 1e-3 if np.all(row.square_dq >= 0.0) else 1.0
            further = min(max(high * 1e2, high * leap), HIGHEST)
            if not self.reaches(further):
                return q, row
            high = further

    def reaches(self, q: float) -> bool:
        """Whether the expectations can be had for so large a q."""
        try:
            return bool(np.isfinite(self.expect.single(q).square))
        except ValueError:
            return False

    # ---- Limits ------------------------------------------------------------------------------------------------------

    def limits(self, w: ArrayLike, b: ArrayLike, start: ArrayLike) -> FloatArray:
        """Where q ends, from `start`, for every ensemble (w, b) = (sigma_w2, sigma_b2): 0 and inf among the answers.

        An orbit goes to the next fixed point on its way if q' rises with q. Where it does not, some layers are made
        first by interpolation, until orbits have settled.
        """
        w, b, start = (np.array(x, np.float64) for x in np.broadcast_arrays(w, b, start))
        shape = w.shape
        w, b, start = w.ravel(), b.ravel(), start.ravel()
        if self.homogeneous:
            return self._homogeneous_limits(w, b, start).reshape(shape)
        fading = (b == 0.0) & (is_one(w * self.gain_at_zero) | (w * self.gain_at_zero < 1.0)) & self.fades
        low = LOWEST if np.any(b == 0.0) and self.fades else self._lowest(w, b)
        low, high = min(low, float(start.min())), 100.0 * max(float(start.max()), float(b.max()), 1.0)
        q, row = self.reaching(w, b, low, high)
        start = self._settled(w, b, start, q, row)
        below, above = self._next_sign_changes(w, b, start, q, row.square)
        found = (below > 0.0) & (above < np.inf)
        limit = np.where(below == 0.0, np.where(fading, 0.0, q[0]), np.inf)
        if found.any():
            limit[found] = self.root(w[found], b[found], below[found], above[found])
        limit[fading & (limit < 10.0 * EDGE)] = 0.0  # where sigma_w2 A counts as 1, so does a root next to zero as zero
        return limit.reshape(shape)

    def fixed_points(self, w: float, b: float, start: float) -> list[float]:
        """All fixed points of one ensemble, zero among them, but not infinity; for homogeneous P, the one reached."""
        if self.homogeneous:
            reached = float(self.limits(w, b, start))
            return [0.0] * (b == 0.0 and reached != 0.0) + [reached] * math.isfinite(reached)
        low = LOWEST if b == 0.0 and self.fades else self._lowest(np.array([w]), np.array([b]))
        q, row = self.reaching(np.array([w]), np.array([b]), min(low, start), 100.0 * max(start, b, 1.0))
        rises = self._rises(np.array([w]), b, q, row.square)[0]
        if b == 0.0 and is_one(w * self.gain_at_zero):  # how q' differs from q there is rounding, until q is larger
            q, rises = q[q > EDGE], rises[q > EDGE]
        turns = np.flatnonzero(rises[:-1] != rises[1:])
        ones = np.ones(turns.size)
        roots = self.root(w * ones, b * ones, q[turns], q[turns + 1]) if turns.size else np.empty(0)
        return [0.0] * (b == 0.0 and self.fades) + [float(root) for root in roots]

    def root(self, w: FloatArray, b: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
        """q = w V(q) + b between `low` and `high`."""
        q = np.full(w.shape, np.nan)
        if w.size > FEW:
            q = self._polished(w, b, self._interpolated_root(w, b, low, high))
        rest = np.isnan(q)
        if rest.any():
            q[rest] = self._bracketed_root(w[rest], b[rest], low[rest], high[rest])
        return q

    def _bracketed_root(self, w: FloatArray, b: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
        growth = self._growth_at_zero(w)

        def excess(log_q: FloatArray, which: NDArray[np.intp]) -> FloatArray:
            q = np.exp(log_q)
            value = (w[which] * self.expect.single(q).square + b[which]) / q - 1.0
            return self._corrected(value, growth[which], b[which], q)

        ends = (np.maximum(np.log(low), np.log(b, where=b > 0.0, out=np.full(b.shape, -np.inf)) - 1e-9), np.log(high))
        q = np.exp(bracketed_roots(excess, *ends))
        here = self.expect.single(q)
        slope = w * here.square_dq
        # The step of Newton takes back what the logarithm has rounded, where q' is not too near to q all around.
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(np.abs(slope) > 0.9, q, q + (w * here.square + b - q) / (1.0 - slope))

    def _interpolated_root(self, w: FloatArray, b: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
        """To some 6 digits, by cubics between the grid's nodes, which know V and dV/dq."""
        from scipy.interpolate import CubicHermiteSpline

        log_q = self._log_q * (math.log(10.0) / PER_DECADE)
        square = self._row.square
        spline = CubicHermiteSpline(log_q, np.log(square), np.exp(log_q) * self._row.square_dq / square)

        def excess(x: FloatArray, which: NDArray[np.intp]) -> FloatArray:
            found: FloatArray = (w[which] * np.exp(spline(x)) + b[which]) * np.exp(-x) - 1.0
            return found

        return np.exp(bracketed_roots(excess, np.log(low), np.log(high), 1e-9))

    def _polished(self, w: FloatArray, b: FloatArray, q: FloatArray) -> FloatArray:
        """Two steps of Newton; nan where they do not settle."""
        for _ in range(2):
            here = self.expect.single(q)
            slope = w * here.square_dq
            with np.errstate(divide="ignore", invalid="ignore"):
                step = np.where(np.abs(slope) < 0.99, (w * here.square + b - q) / (1.0 - slope), np.inf)
            q = np.where(np.abs(step) < 1e-3 * q, q + step, q)
        return np.where((np.abs(step) < 1e-7 * q) & ((self._series is None) | (q > SMALL)), q, np.nan)

    def _rises(self, w: FloatArray, b: float, q: FloatArray, square: FloatArray) -> NDArray[np.bool_]:
        """Whether q' > q, for all w (down) and q (across)."""
        rises = w[:, None] > (q - b) / square  # the w for which q is a fixed point
        small = q < SMALL
        if self._series is not None and small.any():
            nothing = np.zeros((w.size, int(small.sum())))
            growth = self._growth_at_zero(w)
            rises[:, small] = self._corrected(nothing, growth[:, None], b, q[small]) > 0.0
        return rises

    def _rises_at(self, q: FloatArray, w: FloatArray, b: FloatArray) -> NDArray[np.bool_]:
        """Whether q' > q, each ensemble at its q: by interpolation where it is clear."""
        log_q = self._log_q * (math.log(10.0) / PER_DECADE)
        excess = (w * np.exp(np.interp(np.log(q), log_q, np.log(self._row.square))) + b) / q - 1.0
        unclear = np.abs(excess) < 0.05
        excess[unclear] = w[unclear] * self.expect.single(q[unclear]).square + b[unclear] - q[unclear]
        return excess > 0.0

    def _corrected(self, excess: FloatArray, growth: FloatArray, b: FloatArray | float, q: FloatArray) -> FloatArray:
        """q' / q - 1, from the series of small signals where that is nearer."""
        if self._series is None:
            return excess
        d1, d2, d3 = self._series
        small = np.minimum(q, SMALL)
        deficit = small * (d1 + small * (d2 + small * d3))
        return np.where(q < SMALL, growth - (1.0 + growth) * deficit + b / q, excess)

    def _growth_at_zero(self, w: FloatArray) -> FloatArray:
        """w A - 1, so exact for known A that its digits are good at w = 1 / A; else as double precision has it."""
        known = _SMALL_SIGNALS.get(self.expect.activation.name)
        if known is None or self.expect.pool is not None or w.size > 1:
            return w * self.gain_at_zero - 1.0
        return np.array([float(Fraction(float(w[0])) * known[0] - 1)])

    def _lowest(self, w: FloatArray, b: FloatArray) -> float:
        """Below every fixed point: q' > q there."""
        low = float(np.min(b))
        if low > 0.0:
            return low
        low = 1e-3
        w = w[b == 0.0]
        while low > LOWEST and not np.all(w * self.expect.single(low).square > low):
            low *= 1e-2
        return low

    def _homogeneous_limits(self, w: FloatArray, b: FloatArray, start: FloatArray) -> FloatArray:
        k = w * self.gain_at_infinity
        with np.errstate(divide="ignore", invalid="ignore"):
            limit = np.where((k < 1.0) & ~is_one(k), b / (1.0 - k), np.inf)
        return np.where(is_one(k) & (b == 0.0), start, limit)

    def _settled(self, w: FloatArray, b: FloatArray, start: FloatArray, q: FloatArray, row: Singles) -> FloatArray:
        if np.all(row.square_dq >= -1e-12 * row.square / q):
            return start
        x = np.log(start)
        log_q, log_square = np.log(q), np.log(row.square)
        for _ in range(200):
            x = np.log(w * np.exp(np.interp(x, log_q, log_square)) + b)
        return np.clip(np.exp(x), q[0], q[-1])

    def _next_sign_changes(
        self, w: FloatArray, b: FloatArray, start: FloatArray, q: FloatArray, square: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Variances around the next fixed point on the way from `start`; 0 or inf where there is none on that side."""
        below, above = np.empty(w.shape), np.empty(w.shape)
        upwards = self._rises_at(start, w, b)
        node, last = np.arange(q.size), q.size - 1
        for biases in np.unique(b):
            members = np.flatnonzero(b == biases)
            for part in np.array_split(members, max(members.size * q.size // 1_000_000, 1)):
                rises = self._rises(w[part], float(biases), q, square)
                here = np.clip(np.searchsorted(q, start[part], side="right") - 1, 0, last)[:, None]
                falls_above, rises_below = ~rises & (node > here), rises & (node <= here)
                up, down = falls_above.argmax(1), last - rises_below[:, ::-1].argmax(1)
                to_top = np.where(falls_above.any(1), q[up], np.inf)
                to_bottom = np.where(rises_below.any(1), q[down], 0.0)
                below[part] = np.where(upwards[part], np.maximum(q[up - 1], start[part]), to_bottom)
                above[part] = np.where(upwards[part], to_top, np.minimum(q[np.minimum(down + 1, last)], start[part]))
        return below, above


# ---- Ends ------------------------------------------------------------------------------------------------------------


def _slopes_at_zero(phi: Activation) -> Slopes | None:
    """Slopes on the left and on the right of zero; None if phi does not go to zero there, or not as a line."""
    tiny = 1e-30
    values = np.asarray(phi(np.array([-1e-100, 0.0, 1e-100])))
    if np.any(np.abs(values) > 1e-60):
        return None
    left, right = (float(phi.derivative(x)) for x in (-tiny, tiny))
    return (left, right) if math.isfinite(left) and math.isfinite(right) else None


def _is_homogeneous(phi: Activation, slopes: Slopes | None, asymptotes: Slopes | None) -> bool:
    if slopes is None or asymptotes is None or not any(slopes) or not np.allclose(slopes, asymptotes, 1e-14, 0.0):
        return False
    x = np.logspace(-6.0, 6.0, 97)
    values = np.concatenate([phi(-x), phi(x)])
    return bool(np.allclose(values, np.concatenate([-slopes[0] * x, slopes[1] * x]), 1e-13, 0.0))


# Name -> A, and d1, d2, d3 in V = A q (1 - d1 q - d2 q^2 - d3 q^3 - ...).
_SMALL_SIGNALS = {
    "tanh": (Fraction(1), (2.0, -17.0 / 3.0, 62.0 / 3.0)),
    "erf": (Fraction("1.2732395447351626861510701069801148962757"), (2.0, -14.0 / 3.0, 12.0)),
}
SMALL = 1e-5
"""Variance below which these three terms are nearer than 1 - V / (A q), which cancels."""
