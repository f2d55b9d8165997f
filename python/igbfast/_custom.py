"""A caller's function as an activation: what it must be, and what is found out about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from . import _checks
from ._expressions import Function, Inner, slopes_at_infinity
from ._formulas import Traits
from ._tabulate import Source, Table, UnresolvedError, tabulate

__all__ = ["Custom"]

Floats: TypeAlias = NDArray[np.float64]

_PROBES: Floats = np.array([-1.3, -0.4, 0.0, 0.2, 0.7, 1.9])


@dataclass(frozen=True, eq=False)
class Custom(Function):
    """phi = fn, and phi' = derivative if there is one; equal to those of the same callables alone."""

    fn: Callable[[Floats], Any]
    derivative: Callable[[Floats], Any] | None
    declared: tuple[float, ...]
    name: str

    unknown = True

    @classmethod
    def checked(
        cls,
        fn: Callable[[Floats], Any],
        derivative: Callable[[Floats], Any] | None,
        kinks: Iterable[float],
        name: str | None,
    ) -> Custom:
        if not callable(fn):
            raise TypeError(f"fn must be a callable, got {_checks.shown(fn)}")
        if derivative is not None and not callable(derivative):
            raise TypeError(f"derivative must be a callable or None, got {_checks.shown(derivative)}")
        if name is None:
            name = getattr(fn, "__name__", type(fn).__name__)
            name = "custom" if name == "<lambda>" else name
        elif not isinstance(name, str) or not name:
            raise TypeError(f"name must be a string that is not empty, got {_checks.shown(name)}")
        if isinstance(kinks, (str, bytes)) or not isinstance(kinks, Iterable):
            raise TypeError(f"kinks must be numbers, got {_checks.shown(kinks)}")
        places = sorted({_checks.finite("every kink", kink) + 0.0 for kink in kinks})
        custom = cls(fn, derivative, tuple(places), name)
        _check_calls("fn", fn)
        if derivative is not None:
            _check_calls("derivative", derivative)
        custom.analysis  # noqa: B018  (raises where phi cannot be used)
        if derivative is not None:
            custom.check_derivative(derivative)
        return custom

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Custom) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[Any, ...]:
        return id(self.fn), id(self.derivative), self.declared, self.name

    @property
    def exact(self) -> int:  # type: ignore[override]
        return 0 if self.derivative is None else 1

    def jet(self, x: Floats, order: int) -> Floats:
        function = self.derivative if order else self.fn
        assert function is not None
        with np.errstate(all="ignore"):
            values = np.asarray(function(x.ravel()))
        return values.astype(np.float64).reshape(x.shape)

    def of(self, a: float, b: float) -> Function:
        return Inner(self, a, b) if (a, b) != (1.0, 0.0) else self

    def written(self) -> str:
        return f"{self.name}(x)"

    def __str__(self) -> str:
        return self.name

    @cached_property
    def analysis(self) -> Table:
        """A table for q up to 64, or as far as it goes where phi grows too fast for that."""
        jets = tuple(lambda x, order=order: self.jet(x, order) for order in range(self.exact + 1))
        source = Source(jets, self.declared, None, None, unknown=True)
        reason: UnresolvedError | None = None
        for q in (64.0, 8.0, 1.0, 0.125):
            try:
                return tabulate(source, q)
            except UnresolvedError as error:
                reason = reason or error
        raise ValueError(f"activation {self.name!r} {reason}") from reason

    @cached_property
    def traits(self) -> Traits:
        found = self.analysis
        return Traits(
            tuple(float(kink) for kink in {*found.kinks, *self.declared}),
            even=found.parity == 1,
            centre=0.0 if found.parity == -1 else None,
            monotone=found.monotone,
            asymptotes=slopes_at_infinity(lambda x: self.jet(x, 0)),
        )

    def check_derivative(self, derivative: Callable[[Floats], Any]) -> None:
        """`derivative` against the slope of the series of fn itself."""
        table = tabulate(Source((lambda x: self.jet(x, 0),), self.traits.kinks, None, None, unknown=True), 1.0)
        a, b = table.edges[:-1], table.edges[1:]
        x = np.concatenate([a + share * (b - a) for share in (0.31, 0.83)])
        claimed, found = self.jet(x, 1), table(x, 1)
        scale = np.maximum(np.abs(found), 1e-3 * np.max(np.abs(found), initial=0.0)) + 1e-300
        off = np.abs(claimed - found) > 1e-5 * scale + 1e-11 * np.tile(np.abs(table.value).sum(axis=1) / (b - a), 2)
        if np.any(off):
            at = int(np.argmax(off))
            raise ValueError(
                f"derivative must be that of fn, got {claimed[at]:.6g} at x = {x[at]:.6g}, "
                f"where the slope is {found[at]:.6g}"
            )


def _check_calls(name: str, function: Callable[[Floats], Any]) -> None:
    """Vectorised, real, the same every time, and each value that of its x alone."""
    vectorised = f"{name} must take an array of numbers and return their values, an array of the same shape"
    with np.errstate(all="ignore"):
        try:
            values = np.asarray(function(_PROBES.copy()))
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{vectorised} (np.vectorize makes such a function); called with one, it raised: {error}"
            ) from error
        if values.dtype.kind not in "biuf":
            raise TypeError(f"{name} must return real numbers, got dtype {values.dtype}")
        if values.shape != _PROBES.shape:
            raise TypeError(
                f"{vectorised} (np.vectorize makes such a function), got shape {values.shape} for {_PROBES.shape}"
            )
        if values.dtype.kind == "f" and values.dtype.itemsize < 8:
            raise TypeError(f"{name} must compute in float64, got dtype {values.dtype}")
        again, alone = np.asarray(function(_PROBES.copy())), np.asarray(function(_PROBES[1:4].copy()))
    if not np.array_equal(values, again, equal_nan=True):
        raise ValueError(f"{name} must give the same values every time it is called")
    if not np.allclose(values[1:4], alone, rtol=1e-9, atol=1e-12, equal_nan=True):
        raise ValueError(f"{name} must give each value from its x alone, whatever else the array holds")
