"""Kinks and jumps that nobody declared: found where halving panels does not end, located, and verified.

On either side of a kink phi is analytic: L on the left, R on the right. The kink is of order m if R^(m) - L^(m) is the
lowest of these differences that does not vanish there; it is the root of R^(m-1) - L^(m-1). A jump (m = 0) is found to
the last bit by bisection on phi itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from . import _chebyshev

__all__ = ["at_edges", "located", "suspects"]

Floats: TypeAlias = NDArray[np.float64]
Jet: TypeAlias = Callable[[Floats], Floats]

_SHORT = 2.0**-11  # panels shorter than this, times max(1, |x|), make a suspect
_HIGHEST = 3  # derivative that is looked at
_SMOOTH = 1e-12  # relative error of one series across an edge that a kink would exceed


def suspects(a: Floats, b: Floats) -> list[tuple[float, float]]:
    """Where panels are conspicuously short: from and to the shortest of each such place."""
    short = (b - a) < _SHORT * np.maximum(1.0, np.maximum(np.abs(a), np.abs(b)))
    starts = np.flatnonzero(short & ~np.append(False, short[:-1]))
    ends = np.flatnonzero(short & ~np.append(short[1:], False))
    places = []
    for start, end in zip(starts, ends, strict=True):
        widths = (b - a)[start : end + 1]
        core = start + np.flatnonzero(widths <= 4.0 * widths.min())
        places.append((float(a[core[0]]), float(b[core[-1]])))
    return places


def at_edges(jet: Jet, edges: Floats, floor: float) -> Floats:
    """Inner edges that one series does not pass, though it ought to: each half of it is in a panel that is resolved."""
    inner = edges[1:-1]
    half = np.minimum(inner - edges[:-2], edges[2:] - inner)
    a, b = inner - half, inner + half
    x = _chebyshev.points(_chebyshev.NODES, a, b)
    values = jet(x)
    series = _chebyshev.fit(values, x, a, b)
    left_out = np.sum(np.abs(series[:, _chebyshev.TERMS :]), axis=1)
    # phi cannot be better than its argument's last bit allows.
    rounding = 32.0 * 2.2e-16 * np.abs(inner) * np.max(np.abs(np.diff(values, axis=1)), axis=1) / half
    broken: Floats = inner[left_out > _SMOOTH * np.maximum(np.max(np.abs(values), axis=1), floor) + rounding]
    return broken


class _Sides:
    """phi and its derivatives continued from the left and from the right of [a, b]."""

    def __init__(self, jets: Sequence[Jet], a: float, b: float, room: tuple[float, float]) -> None:
        self.jets, self.ends = jets, (a, b)
        self.lengths = {side: self.fitting(side, limit) for side, limit in zip((-1, 1), room, strict=True)}
        self.continued: dict[tuple[int, int], Floats] = {}

    def panel(self, side: int, length: float) -> tuple[Floats, Floats]:
        low, high = self.ends
        return (
            (np.array([low - length]), np.array([low])) if side < 0 else (np.array([high]), np.array([high + length]))
        )

    def series(self, jet: Jet, side: int, length: float) -> Floats:
        a, b = self.panel(side, length)
        x = _chebyshev.points(_chebyshev.NODES, a, b)
        return _chebyshev.fit(jet(x), x, a, b)

    def fitting(self, side: int, limit: float) -> float:
        """The longest of some lengths for which a series to that side is phi."""
        length = min(limit, 0.25 * max(1.0, abs(self.ends[0])))
        for _ in range(12):
            if length <= 4.0 * float(np.spacing(abs(self.ends[0]))):
                break
            if all(self.left_out(jet, side, length) < 1e-13 for jet in self.jets):
                return length
            length *= 0.25
        raise ArithmeticError

    def left_out(self, jet: Jet, side: int, length: float) -> float:
        sizes = np.abs(self.series(jet, side, length)[0])
        return float(np.sum(sizes[_chebyshev.TERMS :]) / max(np.max(sizes), 1e-300))

    def derivative(self, side: int, order: int, x: float) -> float:
        panel = self.panel(side, self.lengths[side])
        if (side, order) not in self.continued:
            base = min(order, len(self.jets) - 1)
            series = _chebyshev.without_noise(self.series(self.jets[base], side, self.lengths[side]))
            for _ in range(order - base):
                series = _chebyshev.differentiate(series, *panel)
            self.continued[side, order] = series
        t = _chebyshev.along(np.array([[x]]), *panel)
        return float(_chebyshev.evaluate(self.continued[side, order], t)[0, 0])

    def size(self, side: int, order: int) -> float:
        self.derivative(side, order, self.ends[0])
        return float(np.sum(np.abs(self.continued[side, order])))

    def difference(self, order: int, x: float) -> float:
        return self.derivative(1, order, x) - self.derivative(-1, order, x)

    def noise(self, order: int, x: float) -> float:
        """What rounding makes of a difference that is zero."""
        base = min(order, len(self.jets) - 1)
        sway = max(abs(self.derivative(side, base + 1, x)) for side in (-1, 1)) * abs(x)
        size = max(self.size(side, base) for side in (-1, 1))
        return 64.0 * 2.2e-16 * (size + sway) * (200.0 / min(self.lengths.values())) ** (order - base)


def located(jets: Sequence[Jet], a: float, b: float, room: tuple[float, float]) -> float | None:
    """The kink in [a, b], which is short; None if phi passes smoothly. `room`: how far phi is smooth on either side.

    Raises
    ------
    ArithmeticError
        If phi is not analytic next to [a, b] either, or jumps less sharply than from one number to the next.
    """
    sides = _Sides(jets, a, b, room)
    middle, width = 0.5 * (a + b), b - a
    for order in range(_HIGHEST + 1):
        size = sides.difference(order, middle)
        # A kink of higher order makes differences of lower order, too, as far from it as `width`.
        ahead = sum(abs(sides.difference(order + k, middle)) * width**k / math.factorial(k) for k in (1, 2))
        if abs(size) <= sides.noise(order, middle) + 2.0 * ahead:
            continue
        if order == 0:
            return _jump(jets[0], sides, a, b)
        place = middle
        for _ in range(4):
            place -= sides.difference(order - 1, place) / size
        uncertain = sides.noise(order - 1, middle) / abs(size) + 4.0 * float(np.spacing(abs(middle)))
        if not a - uncertain <= place <= b + uncertain:
            raise ArithmeticError
        good = 0.1 * uncertain
        return _roundest(place - good, place + good)
    return None


def _jump(phi: Jet, sides: _Sides, a: float, b: float) -> float:
    def nearer(x: float) -> int:
        value = float(phi(np.array([x]))[0])
        left, right = (abs(value - sides.derivative(side, 0, x)) for side in (-1, 1))
        if min(left, right) > 1e-6 * abs(sides.difference(0, x)):
            return 0
        return -1 if left < right else 1

    # Panels do not notice a jump this close to their ends.
    close = 1e-14 * (min(sides.lengths.values()) if a == b else b - a)
    low, high = math.nextafter(a - close, -math.inf), math.nextafter(b + close, math.inf)
    middle = 0.5 * low + 0.5 * high
    while low < middle < high and (where := nearer(middle)):
        low, high = (middle, high) if where < 0 else (low, middle)
        middle = 0.5 * low + 0.5 * high
    if not low < middle < high:  # neighbours; the value at the jump itself may belong to either side
        return _roundest(low, high) if nearer(low) < 0 < nearer(high) else _refuse()
    below, above = math.nextafter(middle, -math.inf), math.nextafter(middle, math.inf)
    return middle if nearer(below) < 0 < nearer(above) else _refuse()


def _refuse() -> float:
    raise ArithmeticError


def _roundest(low: float, high: float) -> float:
    """The number of fewest digits between the two: 1 rather than 0.9999999999999998."""
    middle = 0.5 * low + 0.5 * high
    for digits in range(17):
        rounded = round(middle, digits)
        if low <= rounded <= high:
            return rounded + 0.0
    return middle
