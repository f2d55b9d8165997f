"""What an activation is made of: named and custom functions, their arguments scaled and shifted, sums and products.

Every node knows its values, its derivatives as far as there are formulas, and its traits (kinks, symmetry, monotony,
asymptotes); those of an expression follow from its parts.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ._formulas import FORMULAS, Traits

__all__ = ["Function", "Inner", "Mixture", "Named", "Product", "Sum", "combined", "number", "slopes_at_infinity"]

Floats: TypeAlias = NDArray[np.float64]


class Function(ABC):
    """A function of one variable. Immutable; equal when built alike."""

    exact: int = 2
    """How many derivatives are formulas."""
    unknown: bool = False
    """Whether a caller's code is in it."""

    @property
    @abstractmethod
    def traits(self) -> Traits: ...

    @abstractmethod
    def jet(self, x: Floats, order: int) -> Floats:
        """Derivative of that order, 0 to `exact`; at a kink the limit from the left, rounding of its place aside."""

    @abstractmethod
    def of(self, a: float, b: float) -> Function:
        """The function of a x + b."""

    @abstractmethod
    def written(self) -> str:
        """As an expression in x."""

    @property
    def core(self) -> tuple[str, float] | None:
        """Name and parameter in the compiled core, where it has rules of its own for this function."""
        return None

    def __str__(self) -> str:
        return self.written()


def number(value: float) -> str:
    """Shortest text that reads back as the same number."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


@dataclass(frozen=True)
class Named(Function):
    """A function of the list in _formulas.py."""

    name: str
    parameters: tuple[float, ...] = ()

    @cached_property
    def traits(self) -> Traits:
        return FORMULAS[self.name].traits(*self.parameters)

    @property
    def core(self) -> tuple[str, float] | None:
        core = FORMULAS[self.name].core
        return None if core is None else core(*self.parameters)

    def jet(self, x: Floats, order: int) -> Floats:
        return FORMULAS[self.name].jet(x, order, *self.parameters)

    def of(self, a: float, b: float) -> Function:
        if self.name == "linear":
            return combined([(a, self)], b)
        if a < 0.0 and self.traits.even:
            return self.of(-a, -b + 0.0)
        if a < 0.0 and self.traits.centre == 0.0:
            return combined([(-1.0, self.of(-a, -b + 0.0))], 0.0)
        return Inner(self, a, b) if (a, b) != (1.0, 0.0) else self

    def written(self) -> str:
        return "x" if self.name == "linear" else f"{self}(x)"

    def __str__(self) -> str:
        form = number if FORMULAS[self.name].parameters in ("degree", "many") else repr
        parameters = ", ".join(map(form, self.parameters))
        return f"{self.name}({parameters})" if self.parameters else self.name


@dataclass(frozen=True)
class Inner(Function):
    """f(a x + b), a not 0."""

    f: Function
    a: float
    b: float

    @property
    def exact(self) -> int:  # type: ignore[override]
        return self.f.exact

    @property
    def unknown(self) -> bool:  # type: ignore[override]
        return self.f.unknown

    @cached_property
    def traits(self) -> Traits:
        inner, forward = self.f.traits, self.a > 0.0
        places = [(kink - self.b) / self.a + 0.0 for kink in inner.kinks]
        asymptotes = inner.asymptotes
        if asymptotes is not None:
            low, high = asymptotes if forward else asymptotes[::-1]
            asymptotes = (self.a * low + 0.0, self.a * high + 0.0)
        return Traits(
            tuple(sorted(place for place in places if math.isfinite(place))),
            even=inner.even and self.b == 0.0,
            centre=inner.centre if self.b == 0.0 else None,
            monotone=inner.monotone if forward else -inner.monotone,
            asymptotes=asymptotes,
        )

    def jet(self, x: Floats, order: int) -> Floats:
        return self.a**order * self.f.jet(self.a * x + self.b, order)

    def of(self, a: float, b: float) -> Function:
        return self.f.of(self.a * a, self.a * b + self.b)

    def written(self) -> str:
        return f"{self.f}({combined([(self.a, Named('linear'))], self.b).written()})"


@dataclass(frozen=True)
class Sum(Function):
    """Sum of factor * f, and a constant."""

    terms: tuple[tuple[float, Function], ...]
    constant: float

    @property
    def exact(self) -> int:  # type: ignore[override]
        return min((f.exact for _, f in self.terms), default=2)

    @property
    def unknown(self) -> bool:  # type: ignore[override]
        return any(f.unknown for _, f in self.terms)

    @cached_property
    def traits(self) -> Traits:
        parts = [(factor, f.traits) for factor, f in self.terms]
        directions = {t.monotone * (1 if factor > 0.0 else -1) for factor, t in parts} or {1}
        slopes = [(factor * t.asymptotes[0], factor * t.asymptotes[1]) for factor, t in parts if t.asymptotes]
        centres = [factor * t.centre for factor, t in parts if t.centre is not None]
        centre = self.constant + math.fsum(centres) if len(centres) == len(parts) else None
        mirrored = self.of(-1.0, 0.0)
        odd_part, even_part = (combined([(1.0, self), (sign, mirrored)], 0.0) for sign in (-1.0, 1.0))
        if centre is None and isinstance(even_part, Sum) and not even_part.terms:
            centre = 0.5 * even_part.constant
        return Traits(
            tuple(sorted({kink for _, t in parts for kink in t.kinks})),
            even=all(t.even for _, t in parts) or odd_part == Sum((), 0.0),
            centre=centre,
            monotone=directions.pop() if len(directions) == 1 else 0,
            asymptotes=(math.fsum(s[0] for s in slopes), math.fsum(s[1] for s in slopes))
            if len(slopes) == len(parts)
            else None,
        )

    def jet(self, x: Floats, order: int) -> Floats:
        total = np.full_like(x, self.constant if order == 0 else 0.0)
        for factor, f in self.terms:
            total = total + factor * f.jet(x, order)
        return total

    def of(self, a: float, b: float) -> Function:
        return combined([(factor, f.of(a, b)) for factor, f in self.terms], self.constant)

    def written(self) -> str:
        parts = [(factor, f.written()) for factor, f in self.terms]
        text = ""
        for factor, body in parts:
            size = "" if abs(factor) == 1.0 else f"{number(abs(factor))} * "
            text += _signed(factor, size + body, first=not text)
        if self.constant != 0.0 or not text:
            text += _signed(self.constant, number(abs(self.constant)), first=not text)
        return text


def _signed(value: float, text: str, first: bool) -> str:
    if first:
        return f"-{text}" if value < 0.0 else text
    return f" - {text}" if value < 0.0 else f" + {text}"


@dataclass(frozen=True)
class Product(Function):
    """f g."""

    f: Function
    g: Function

    @property
    def exact(self) -> int:  # type: ignore[override]
        return min(self.f.exact, self.g.exact)

    @property
    def unknown(self) -> bool:  # type: ignore[override]
        return self.f.unknown or self.g.unknown

    @cached_property
    def traits(self) -> Traits:
        f, g = self.f.traits, self.g.traits
        f_odd, g_odd = f.centre == 0.0, g.centre == 0.0
        return Traits(
            tuple(sorted({*f.kinks, *g.kinks})),
            even=(f.even and g.even) or (f_odd and g_odd),
            centre=0.0 if (f_odd and g.even) or (f.even and g_odd) else None,
            asymptotes=slopes_at_infinity(lambda x: self.jet(x, 0)),
        )

    def jet(self, x: Floats, order: int) -> Floats:
        f, g = ([part.jet(x, k) for k in range(order + 1)] for part in (self.f, self.g))
        return sum((math.comb(order, k) * f[k] * g[order - k] for k in range(order + 1)), np.zeros_like(x))

    def of(self, a: float, b: float) -> Function:
        return Product(self.f.of(a, b), self.g.of(a, b))

    def written(self) -> str:
        return " * ".join(
            f"({part.written()})" if isinstance(part, Sum) else part.written() for part in (self.f, self.g)
        )


@dataclass(frozen=True)
class Mixture:
    """Each node draws one of the functions: weights that sum to 1."""

    components: tuple[tuple[float, Function], ...]

    def __str__(self) -> str:
        return f"mixture({', '.join(f'({number(weight)}, {f})' for weight, f in self.components)})"


def combined(terms: list[tuple[float, Function]], constant: float) -> Function:
    """Sum of factor * f and a constant, in one level: like terms together, vanishing ones dropped."""
    factors: dict[Function, float] = {}
    for factor, f in terms:
        if isinstance(f, Sum):
            constant += factor * f.constant
            parts = [(factor * inner, g) for inner, g in f.terms]
        else:
            parts = [(factor, f)]
        for size, g in parts:
            factors[g] = factors.get(g, 0.0) + size
    kept = tuple((factor, f) for f, factor in factors.items() if factor != 0.0)
    if len(kept) == 1 and kept[0][0] == 1.0 and constant == 0.0:
        return kept[0][1]
    if not all(math.isfinite(size) for size in (constant, *(factor for factor, _ in kept))):
        raise ValueError("a factor or the constant of the expression overflows")
    return Sum(kept, constant + 0.0)


def slopes_at_infinity(value: Callable[[Floats], Floats]) -> tuple[float, float] | None:
    """Limits of phi(x) / x, looked at as far out as phi is finite."""
    ends = []
    for side in (-1.0, 1.0):
        for far in ([1e120, 1e150], [1e60, 1e75], [1e20, 1e25], [1e9, 1e10], [300.0, 600.0]):
            x = side * np.array(far)
            with np.errstate(all="ignore"):
                slopes = value(x) / x
            if np.all(np.isfinite(slopes)):
                break
        near, last = slopes
        if not (np.all(np.isfinite(slopes)) and abs(last - near) <= 1e-8 * abs(near) + 1e-8 * min(1.0, abs(near))):
            if abs(last) < 1e-12 and abs(near) < 1e-12:
                last = 0.0
            else:
                return None
        ends.append(0.0 if abs(last) < 1e-12 else float(last))
    return ends[0], ends[1]
