"""Roots of many functions of one variable at once, each between two points where its sign differs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["bracketed_roots"]

FloatArray = NDArray[np.float64]
Function = Callable[[FloatArray, NDArray[np.intp]], FloatArray]

MAX_STEPS = 200
EPS = float(np.finfo(np.float64).eps)


def bracketed_roots(
    function: Function, low: ArrayLike, high: ArrayLike, tolerance: float = 2.0 * EPS, least_size: float = 1.0
) -> FloatArray:
    """The root of each function between its `low` and `high`, by Chandrupatla's method.

    `function(x, which)` gives the values of the functions number `which` at x. A bracket without a change of sign gives
    the end where the function is nearer to zero. `tolerance` is relative to |x|, or to `least_size` where |x| is less.

    References
    ----------
    Chandrupatla, A new hybrid quadratic/bisection algorithm for finding the zero of a nonlinear function without using
    derivatives (1997).
    """
    a, b = (np.array(end, np.float64).ravel() for end in np.broadcast_arrays(low, high))
    which = np.arange(a.size)
    if not a.size:
        return a
    fa, fb = function(a, which), function(b, which)
    root = np.where(np.abs(fa) < np.abs(fb), a, b)
    open_ = fa * fb < 0.0
    a, b, fa, fb = (array[open_] for array in (a, b, fa, fb))
    which = which[open_]
    t = fa / (fa - fb)
    for _ in range(MAX_STEPS):
        if not which.size:
            break
        x = a + t * (b - a)
        fx = function(x, which)
        same = np.sign(fx) == np.sign(fa)
        # a is the newest point, b the other end of the bracket, c the one that was given up.
        c, fc = np.where(same, a, b), np.where(same, fa, fb)
        b, fb = np.where(same, b, a), np.where(same, fb, fa)
        a, fa = x, fx
        best = np.where(np.abs(fa) < np.abs(fb), a, b)
        root[which] = best
        width = np.abs(b - a)
        least = tolerance * np.maximum(np.abs(best), least_size)
        going = (width > least) & (fa != 0.0)
        a, b, c, fa, fb, fc = (array[going] for array in (a, b, c, fa, fb, fc))
        which = which[going]
        t = _next_step(a, b, c, fa, fb, fc, 0.5 * least[going] / np.maximum(width[going], least[going]))
    return root


def _next_step(
    a: FloatArray, b: FloatArray, c: FloatArray, fa: FloatArray, fb: FloatArray, fc: FloatArray, least: FloatArray
) -> FloatArray:
    """How far to go from a towards b: by inverse quadratic interpolation where that is safe, else halfway."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        xi, phi = (a - b) / (c - b), (fa - fb) / (fc - fb)
        safe = (phi**2 < xi) & ((1.0 - phi) ** 2 < 1.0 - xi)
        t = fa / (fb - fa) * fc / (fb - fc) + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
    t = np.where(safe & np.isfinite(t), t, 0.5)
    return np.clip(t, least, 1.0 - least)
