"""phi, phi' and phi'' as Chebyshev series on panels: the form in which the compiled core integrates any function.

A panel is halved until its series of 16 terms is phi to rounding; all panels of a generation are sampled at once. What
lies beyond the outermost edges is too unlikely under N(0, q_max) to matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from . import _chebyshev, _core, _kinks
from ._chebyshev import NODES, TERMS, along, points

__all__ = ["Source", "Table", "UnresolvedError", "jump_sizes", "tabulate"]

Floats: TypeAlias = NDArray[np.float64]
Jet: TypeAlias = Callable[[Floats], Floats]

_CHECKS = 8  # random points per panel, where features of an unknown function might hide
_CLOSE = np.array([side * (1.0 - 10.0**-k) for side in (-1, 1) for k in (2, 4, 6, 8, 10, 12, 14)])  # and to the ends
_MOST_PANELS = 50_000
_MOST_HALVINGS = 60

_RESOLVED = 2e-15  # of the panel's largest value: rounding
_NOISE = 1e-11  # accepted, and reported, where halving does not help: phi itself is computed no better
_CANCELLED = 1e-14  # of the largest value near zero: likewise
_FLOOR = 1e-25  # of the largest value near zero: what is below needs to be right relative to this only
_DRY = 1e-15  # of that floor: zero
_UNLIKELY = math.log(1e-40)
_OVERFLOW = 700.0  # E[phi^2] above e^700 is as good as infinite


class UnresolvedError(ValueError):
    """A function that cannot be tabulated; the message continues a sentence that starts with its name."""


@dataclass(frozen=True)
class Source:
    """The function to be tabulated."""

    jets: tuple[Jet, ...]
    """phi and as many of its derivatives as are known by formula, up to phi''; the others are those of the series."""
    kinks: tuple[float, ...] = ()
    """Where any derivative jumps, as far as it is known."""
    parity: int | None = None
    monotone: int | None = None
    """None: to be found out."""
    unknown: bool = False
    """Whether features and kinks must be expected anywhere: a caller's function."""


@dataclass(frozen=True)
class Table:
    """The arguments of _core.Table, and how well they say what phi is."""

    edges: Floats
    value: Floats
    slope: Floats
    curvature: Floats
    by_x: NDArray[np.bool_]
    kinks: Floats
    jumps: Floats
    parity: int
    monotone: int
    q_max: float
    slope_jumps: Floats
    """Jumps of phi' at the kinks."""
    error: float
    """Largest error found, relative to the largest |phi| of the panel."""

    def in_core(self) -> _core.Table:
        return _core.Table(
            edges=self.edges,
            value=self.value,
            slope=self.slope,
            curvature=self.curvature,
            by_x=self.by_x,
            kinks=self.kinks,
            jumps=self.jumps,
            parity=self.parity,
            monotone=self.monotone,
            q_max=self.q_max,
        )

    def __call__(self, x: Floats, order: int) -> Floats:
        """The series at x within the edges; at an edge, those on its left."""
        panel = np.clip(np.searchsorted(self.edges, x, side="left") - 1, 0, self.edges.size - 2)
        series = (self.value, self.slope, self.curvature)[order][panel]
        t = along(x, self.edges[panel], self.edges[panel + 1])
        values = _chebyshev.evaluate(series, t)
        return np.where(self.by_x[order][panel], x * values, values)


# ---- Panels ----------------------------------------------------------------------------------------------------------


@dataclass
class Panels:
    """Resolved panels, or those of one generation."""

    a: Floats
    b: Floats
    series: Floats  # (3, panels, TERMS)
    by_x: NDArray[np.bool_]  # (3, panels)
    errors: Floats  # (4, panels), see _Fit
    stuck: NDArray[np.bool_]  # not resolved however short

    def __getitem__(self, which: NDArray[np.bool_] | NDArray[np.intp]) -> Panels:
        return Panels(
            self.a[which],
            self.b[which],
            self.series[:, which],
            self.by_x[:, which],
            self.errors[:, which],
            self.stuck[which],
        )


def _joined(parts: Sequence[Panels]) -> Panels:
    every = Panels(
        np.concatenate([part.a for part in parts]),
        np.concatenate([part.b for part in parts]),
        np.concatenate([part.series for part in parts], axis=1),
        np.concatenate([part.by_x for part in parts], axis=1),
        np.concatenate([part.errors for part in parts], axis=1),
        np.concatenate([part.stuck for part in parts]),
    )
    return every[np.argsort(every.a)]


def sampled(jet: Jet, x: Floats) -> Floats:
    values = jet(x)
    bad = ~np.isfinite(values)
    if np.any(bad):
        raise UnresolvedError(f"is {values[bad][0]} at x = {x[bad][0]:.6g}")
    return values


def resolve(source: Source, edges: Floats) -> Panels:
    """Halve the panels between the edges until every one is resolved or, if the source is unknown, stuck."""
    at_zero = np.zeros(1)
    vanishes = [float(sampled(jet, at_zero)[0]) == 0.0 for jet in source.jets]
    sizes = _sizes(source, edges)
    random = np.random.default_rng(24)
    _check_ends(source, edges, vanishes, sizes, random)
    a, b = edges[:-1], edges[1:]
    before, stalls = np.full((2, a.size), np.inf), np.zeros(a.size, int)
    done: list[Panels] = []
    count = 0
    for halvings in range(_MOST_HALVINGS + 1):
        panels = _generation(source, a, b, vanishes, sizes, random)
        _, _, excess, burden = panels.errors
        # A kink halves one of the first two, noise neither.
        stalls = np.where(np.all(panels.errors[:2] > 0.6 * before, axis=0), stalls + 1, 0)
        resolved = (excess <= 1.0) | ((stalls >= 2) & (burden <= 1.0))
        narrow = (b - a) < 2.0**-44 * np.maximum(np.abs(a), np.abs(b))
        panels.stuck = ~resolved & (narrow | (halvings == _MOST_HALVINGS))
        if np.any(panels.stuck) and not source.unknown:
            raise UnresolvedError(f"cannot be resolved near x = {panels.a[panels.stuck][0]:.17g}")
        finished = resolved | panels.stuck
        done.append(panels[finished])
        count += int(np.sum(finished))
        a, b = a[~finished], b[~finished]
        if a.size == 0:
            break
        if count + 2 * a.size > _MOST_PANELS:
            raise _too_many(a[0])
        before, stalls = np.repeat(panels.errors[:2, ~finished], 2, axis=1), np.repeat(stalls[~finished], 2)
        middle = 0.5 * a + 0.5 * b
        a, b = np.stack([a, middle], axis=1).ravel(), np.stack([middle, b], axis=1).ravel()
    return _joined(done)


def _check_ends(
    source: Source, edges: Floats, vanishes: Sequence[bool], sizes: Sequence[float], random: np.random.Generator
) -> None:
    """An early word on what oscillates all along: one half of a half of a half ... of the outermost panels."""
    which = np.unique([0, edges.size - 2])
    a, b = edges[which], edges[which + 1]
    for _ in range(math.ceil(math.log2(_MOST_PANELS))):
        errors = _generation(source, a, b, vanishes, sizes, random).errors
        unresolved = np.all(errors[2:] > 1.0, axis=0)
        a, b = a[unresolved], b[unresolved]
        if a.size == 0:
            return
        middle, upper = 0.5 * a + 0.5 * b, random.random(a.size) < 0.5
        a, b = np.where(upper, middle, a), np.where(upper, b, middle)
    raise _too_many(a[0])


def _too_many(x: float) -> UnresolvedError:
    return UnresolvedError(f"cannot be resolved with {_MOST_PANELS} panels, near x = {x:.6g} for instance")


def _sizes(source: Source, edges: Floats) -> list[float]:
    """Largest values near zero, where every Gaussian has most of its weight."""
    x = points(NODES, edges[:-1], edges[1:])
    weight = np.exp(-0.5 * np.minimum(np.abs(x), 50.0) ** 2)
    return [float(np.max(weight * np.abs(sampled(jet, x)))) for jet in source.jets]


def _generation(
    source: Source,
    a: Floats,
    b: Floats,
    vanishes: Sequence[bool],
    sizes: Sequence[float],
    random: np.random.Generator,
) -> Panels:
    x = points(NODES, a, b)
    tests = np.concatenate([random.uniform(-1.0, 1.0, (a.size, _CHECKS)), np.tile(_CLOSE, (a.size, 1))], axis=1)
    # Next to the ends, not on them: at a jump, those belong to either side.
    extra = np.clip(points(tests, a, b), np.nextafter(a, b)[:, None], np.nextafter(b, a)[:, None])
    series, by_x = np.zeros((3, a.size, TERMS)), np.zeros((3, a.size), bool)
    errors = np.zeros((4, a.size))
    touching = (a == 0.0) | (b == 0.0)
    # Derivatives that are taken of the series need more than its last terms.
    terms = TERMS if len(source.jets) == 3 else TERMS - 3

    for order, (jet, size) in enumerate(zip(source.jets, sizes, strict=True)):
        values, checks = sampled(jet, x), sampled(jet, extra)
        found = _fitted(values, checks, x, extra, a, b, size, terms)
        if vanishes[order]:
            which = np.flatnonzero(touching)
            at = x[which], extra[which]
            over = values[which] / at[0], checks[which] / at[1]
            better = _fitted(*over, *at, a[which], b[which], size, terms)
            won = (better.errors[2] <= 1.0) | (better.errors[1] <= found.errors[1, which])
            found.series[which[won]], found.errors[:, which[won]] = better.series[won], better.errors[:, won]
            by_x[order, which[won]] = True
        series[order] = _chebyshev.terms(found.series)
        errors = np.maximum(errors, found.errors)
    full = found.series
    full = np.where(by_x[order][:, None], _chebyshev.times_x(full, a, b)[:, : _chebyshev.SAMPLES], full)
    for missing in range(len(source.jets), 3):
        full = _chebyshev.differentiate(full, a, b)
        series[missing] = _chebyshev.terms(full)
    return Panels(a, b, series, by_x, errors, np.zeros(a.size, bool))


@dataclass
class _Fit:
    """Series, and four errors: of the terms left out and at points that are not nodes.

    Relative to the largest |phi| of the panel and near zero; to that of the panel alone; to what is rounding at any
    length; to what can be borne where halving does not help, as phi itself is computed no better.
    """

    series: Floats
    errors: Floats


def _fitted(
    values: Floats, checks: Floats, x: Floats, extra: Floats, a: Floats, b: Floats, near: float, terms: int
) -> _Fit:
    largest, far = np.max(np.abs(values), axis=1), np.maximum(np.abs(a), np.abs(b))
    floor = _FLOOR * near / np.maximum(1.0, np.sqrt(far))
    scale = np.maximum(np.maximum(largest, floor), 1e-300)
    whole = _chebyshev.fit(values, x, a, b)
    tail = np.abs(whole[:, terms:])
    series = _chebyshev.without_noise(whole)
    missed = np.max(np.abs(_chebyshev.evaluate(series, along(extra, a[:, None], b[:, None])) - checks), axis=1)
    missed = np.where(missed <= 2.0 * _RESOLVED * scale, 0.0, missed)  # rounding in the sum
    error = np.maximum(np.sum(tail, axis=1), missed)
    dry = largest <= _DRY * floor
    series[dry], error[dry] = 0.0, 0.0
    # A slope turns the last bit of x into noise, which no panel is too short for: the tail is level then.
    level = np.sum(tail[:, -4:], axis=1) > 0.2 * np.sum(tail[:, :4], axis=1)
    rounding = 1e-15 * far * np.max(np.abs(_chebyshev.slopes(values, a, b)), axis=1)
    allowed = np.where(level, np.minimum(np.maximum(rounding, _RESOLVED * scale), _NOISE * scale), _RESOLVED * scale)
    # Where phi is a small difference of larger terms, such as 1 - sigmoid, their rounding is what remains.
    bearable = np.maximum(_NOISE * scale, _CANCELLED * near * np.maximum(1.0, far))
    return _Fit(series, np.stack([error / np.maximum(scale, near), error / scale, error / allowed, error / bearable]))


# ---- How far ---------------------------------------------------------------------------------------------------------

_STEPS = np.concatenate([np.linspace(0.125, 16.0, 128), 16.0 * 1.05 ** np.arange(1, 180)])


def _range(source: Source, q: float) -> tuple[float, float]:
    """Edges beyond which phi does not matter: phi^2 exp(-x^2 / 2q) is below 1e-40 of its peak from there on."""
    x = math.sqrt(q) * _STEPS
    sizes, lasts = [], []
    for side in (-1, 1):
        values = np.abs(source.jets[0](side * x))
        finite = np.isfinite(values)
        lasts.append(x.size if np.all(finite) else int(np.argmin(finite)))
        with np.errstate(divide="ignore"):
            sizes.append(np.log(values))
    weighted = [2.0 * size[:last] - 0.5 * _STEPS[:last] ** 2 for size, last in zip(sizes, lasts, strict=True)]
    peak = max(float(np.max(side, initial=-np.inf)) for side in weighted)
    ends = []
    for side, size, last, weight in zip((-1, 1), sizes, lasts, weighted, strict=True):
        # Where phi = 0 nearby, it may begin only further out: 14 standard deviations in any case.
        end = max(int(np.max(np.flatnonzero(weight > peak + _UNLIKELY), initial=-1)) + 1, 111)
        if last < x.size and _growth(x[:last], size[:last]) > 2.05:
            raise UnresolvedError("grows faster than any exp(a x^2): E[phi^2] is infinite")
        if end >= last:
            what = "is nan" if last < x.size and math.isnan(size[last]) else "grows too fast: it overflows"
            place = side * x[min(last, x.size - 1)]
            raise UnresolvedError(f"{what} at x = {place:.6g}, where E[phi^2] still has weight")
        ends.append(side * float(x[end]))
    if peak > _OVERFLOW:
        raise UnresolvedError("grows too fast: E[phi^2] overflows")
    low, high = ends
    return (-max(-low, high), max(-low, high)) if source.parity else (low, high)


def _growth(x: Floats, size: Floats) -> float:
    """p of log|phi| ~ x^p where phi is about to overflow; 0 where it overflows at once."""
    if x.size == 0:
        return 0.0
    half = float(np.interp(0.5 * x[-1], x, size))
    return math.log2(size[-1] / half) if size[-1] > 100.0 and half > 1.0 else 0.0


# ---- Tables ----------------------------------------------------------------------------------------------------------


def _first_edges(source: Source, low: float, high: float) -> Floats:
    """Zero, the kinks, and panels that double in length; more of them where nothing is known of phi."""
    near = 0.5 * np.arange(1, 17) if source.unknown else np.array([1.0, 2.0, 4.0, 8.0])
    octaves = max(0, math.ceil(math.log2(max(-low, high) / 8.0)))
    sizes = np.concatenate([near, 8.0 * 2.0 ** np.arange(1, octaves + 1)])
    tiny = np.array([-1e-300, 0.0, 1e-300])
    if len(source.jets) == 3 and not any(np.any(np.abs(jet(tiny)) > 1e-290) for jet in source.jets[:2]):
        sizes = np.concatenate([2.0 ** -np.arange(1.0, 41.0), sizes])  # phi ~ x^2: it keeps its digits near zero, too
    edges = np.concatenate([-sizes, [0.0], sizes, source.kinks])
    return np.unique(np.concatenate([[low], edges[(edges > low) & (edges < high)], [high]])) + 0.0


def tabulate(source: Source, q_max: float) -> Table:
    """The table of a function for all variances up to `q_max`.

    Raises
    ------
    UnresolvedError
        If phi is not finite where it matters, grows too fast for E[phi^2], or has features that 50,000 panels or the
        spacing of floating-point numbers cannot resolve.
    """
    low, high = _range(source, q_max)
    kinks = {kink for kink in source.kinks if low < kink < high}
    panels = resolve(source, _first_edges(source, low, high))
    if source.unknown:
        found = _undeclared(source, panels, kinks)
        if found:
            kinks |= found
            panels = resolve(source, _first_edges(replace(source, kinks=tuple(kinks)), low, high))
        if np.any(panels.stuck):
            raise UnresolvedError(f"cannot be resolved near x = {panels.a[panels.stuck][0]:.6g}")
        kinks |= _at_edges(source, panels, kinks)
    edges = _ends(panels)
    places = np.array(sorted(kinks))
    at = np.searchsorted(edges, places)
    jumps = [_jumps(panels, at, order) for order in (0, 1)]
    return Table(
        edges=edges,
        value=panels.series[0],
        slope=panels.series[1],
        curvature=panels.series[2],
        by_x=panels.by_x,
        kinks=places,
        jumps=jumps[0],
        parity=_parity(source, panels) if source.parity is None else source.parity,
        monotone=_direction(source, panels) if source.monotone is None else source.monotone,
        q_max=q_max,
        slope_jumps=jumps[1],
        error=float(np.max(panels.errors[0])),
    )


def _ends(panels: Panels) -> Floats:
    return np.append(panels.a, panels.b[-1])


def _undeclared(source: Source, panels: Panels, kinks: set[float]) -> set[float]:
    """Kinks where panels had to become very short, each verified."""
    places = [place for place in _kinks.suspects(panels.a, panels.b) if not kinks & set(place)]
    ends = [panels.a[0], *(end for place in places for end in place), panels.b[-1]]
    found = set()
    for i, (a, b) in enumerate(places):
        room = (0.5 * (a - ends[2 * i]), 0.5 * (ends[2 * i + 3] - b))
        try:
            kink = _kinks.located(source.jets, a, b, room)
        except ArithmeticError:
            kink = None
        if kink is not None:
            found.add(kink)
        elif np.any(panels.stuck & (panels.a >= a) & (panels.b <= b)):
            raise UnresolvedError(f"cannot be resolved near x = {0.5 * (a + b):.6g}: neither smooth there nor a kink")
    return found


def _at_edges(source: Source, panels: Panels, kinks: set[float]) -> set[float]:
    """Kinks at edges, where panels need not be short to miss them."""
    edges = _ends(panels)
    found = set()
    for jet, size in zip(source.jets, _sizes(source, edges), strict=True):
        for edge in set(_kinks.at_edges(jet, edges, size)) - kinks:
            at = int(np.searchsorted(edges, edge))
            room = float(edge - edges[at - 1]), float(edges[at + 1] - edge)
            try:
                kink = _kinks.located(source.jets, edge, edge, room)
            except ArithmeticError:
                raise UnresolvedError(
                    f"cannot be resolved near x = {edge:.6g}: neither smooth there nor a kink"
                ) from None
            if kink is not None:
                found.add(float(edge))
    return found


def _parity(source: Source, panels: Panels) -> int:
    """From values at the nodes that have a mirror image inside the edges; to rounding."""
    reach = min(-panels.a[0], panels.b[-1])
    x = points(NODES, panels.a, panels.b)
    x = x[(np.abs(x) < reach) & (x != 0.0)]
    here, there = source.jets[0](x), source.jets[0](-x)
    rounding = 1e-15 * (np.maximum(np.abs(here), np.abs(there)) + _sizes(source, _ends(panels))[0])
    for parity in (1, -1):
        if np.all(np.abs(there - parity * here) <= rounding):
            return parity
    return 0


def _direction(source: Source, panels: Panels) -> int:
    values = source.jets[0](points(NODES, panels.a, panels.b)).ravel()
    steps = np.diff(values)
    rounding = 1e-15 * (np.maximum(np.abs(values[1:]), np.abs(values[:-1])) + _sizes(source, _ends(panels))[0])
    return 1 if np.all(steps >= -rounding) else -1 if np.all(steps <= rounding) else 0


def _jumps(panels: Panels, at: NDArray[np.intp], order: int) -> Floats:
    """Jumps of a derivative at the left edges of the panels `at`, from the series on either side."""
    left, right = panels[at - 1], panels[at]
    series_left, series_right = left.series[order], right.series[order]
    before = np.sum(series_left, axis=1) * np.where(left.by_x[order], left.b, 1.0)
    after = series_right @ (-1.0) ** np.arange(TERMS) * np.where(right.by_x[order], right.a, 1.0)
    scale = np.sum(np.abs(series_left), axis=1) + np.sum(np.abs(series_right), axis=1)
    jumps = after - before
    return np.where(np.abs(jumps) > 1e-13 * 100.0**order * scale, jumps, 0.0)


def jump_sizes(source: Source) -> tuple[bool, bool]:
    """Whether phi and phi' jump anywhere, looked at close to the kinks alone."""
    if not source.kinks:
        return False, False
    kinks = np.array(sorted(set(source.kinks)))
    widths = np.minimum(0.25, 0.5 * np.diff(kinks, prepend=-np.inf, append=np.inf))
    edges = np.unique(np.concatenate([kinks - widths[:-1], kinks, kinks + widths[1:]]))
    panels = resolve(source, edges)
    at = np.searchsorted(panels.a, kinks)
    return bool(np.any(_jumps(panels, at, 0))), bool(np.any(_jumps(panels, at, 1)))
