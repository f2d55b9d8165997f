"""Chebyshev series of one function on many panels at once, each panel mapped to t in [-1, 1]; a row is a panel."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

__all__ = [
    "NODES",
    "SAMPLES",
    "TERMS",
    "along",
    "differentiate",
    "evaluate",
    "fit",
    "points",
    "slopes",
    "terms",
    "times_x",
    "without_noise",
]

Floats: TypeAlias = NDArray[np.float64]

TERMS = 16  # of each series in a table, as in csrc/cpu/table.h
SAMPLES = 24  # of the function: the terms beyond TERMS tell what is missing

# Angles in units of pi / 48, reduced to an octant as integers: cos must be right to the last bit.
_ANGLES = np.arange(2 * SAMPLES - 1, 0, -2)


def _cosines(units: NDArray[np.int_]) -> Floats:
    units = np.abs((units + 2 * SAMPLES) % (4 * SAMPLES) - 2 * SAMPLES)  # cos(u) = cos(|u|)
    near = np.cos(math.pi / (2 * SAMPLES) * units)
    across = np.sin(math.pi / (2 * SAMPLES) * (SAMPLES - units))
    found: Floats = np.where(np.abs(units - SAMPLES) <= SAMPLES // 2, across, near)
    return found


NODES: Floats = _cosines(_ANGLES)
_TO_SERIES: Floats = _cosines(np.outer(_ANGLES, np.arange(SAMPLES))) * np.where(np.arange(SAMPLES), 2.0, 1.0) / SAMPLES
_TO_SLOPES: Floats = _TO_SERIES @ chebyshev.chebval(NODES, chebyshev.chebder(np.eye(SAMPLES)))


def points(t: Floats, a: Floats, b: Floats) -> Floats:
    """x on the panels [a, b], a row each, at t in [-1, 1]."""
    return 0.5 * ((1.0 - t) * a[:, None] + (1.0 + t) * b[:, None])


def along(x: Floats, a: Floats, b: Floats) -> Floats:
    """t in [-1, 1], exact to rounding though x be far from zero and the panel short."""
    return ((x - a) - (b - x)) / (b - a)


def fit(values: Floats, x: Floats, a: Floats, b: Floats) -> Floats:
    """Series of 24 terms through values taken at x, which are the nodes rounded: the slope makes up for that."""
    off = NODES - along(x, a[:, None], b[:, None])
    series: Floats = (values + (values @ _TO_SLOPES) * off) @ _TO_SERIES
    return series


def slopes(values: Floats, a: Floats, b: Floats) -> Floats:
    """Of the function at the nodes."""
    found: Floats = (values @ _TO_SLOPES) * (2.0 / (b - a))[:, None]
    return found


def without_noise(series: Floats) -> Floats:
    """Closing terms below rounding are zero: they would only be noise, and worse in the derivatives."""
    sizes = np.abs(series)
    audible = sizes > 2.5e-16 * sizes.max(axis=1, keepdims=True)
    kept = np.cumsum(audible[:, ::-1], axis=1)[:, ::-1] > 0
    return np.where(kept, series, 0.0)


def differentiate(series: Floats, a: Floats, b: Floats) -> Floats:
    slopes: Floats = chebyshev.chebder(series, axis=1) * (2.0 / (b - a))[:, None]
    return slopes


def times_x(series: Floats, a: Floats, b: Floats) -> Floats:
    product = np.zeros((series.shape[0], series.shape[1] + 1))
    product[:, :-1] = 0.5 * (a + b)[:, None] * series
    quarter = 0.25 * (b - a)[:, None] * series
    product[:, 1:] += quarter
    product[:, :-2] += quarter[:, 1:]
    product[:, 1] += quarter[:, 0]
    return product


def terms(series: Floats) -> Floats:
    """Cut or filled to what a table holds."""
    kept = series[:, :TERMS]
    return np.pad(kept, ((0, 0), (0, TERMS - kept.shape[1])))


def evaluate(series: Floats, t: Floats) -> Floats:
    """Values at t, as many of them a row as `t` has."""
    values: Floats = chebyshev.chebval(t.T, series.T, tensor=False).T
    return values
