"""Checks of arguments, in one place, so that every error reads alike: the name, what is allowed, the value given.

A wrong type is a TypeError, a wrong value a ValueError, and both come before any work.
"""

from __future__ import annotations

import difflib
import math
import numbers
import operator
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "all_allowed",
    "choice",
    "finite",
    "flag",
    "integer",
    "nearest",
    "non_negative_finite",
    "positive_finite",
    "real_array",
    "real_numbers",
    "shown",
]


def shown(value: object) -> str:
    """The value as an error message shows it: numbers plain, arrays by their shape, long texts cut."""
    if isinstance(value, np.generic) and value.dtype.kind in "iufcb":
        return str(value)
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    text = repr(value)
    if len(text) > 80:
        text = text[:77] + "..."
    if isinstance(value, (bool, int, float, complex, str)) or value is None:
        return text
    return f"{text} (a {type(value).__name__})"


def finite(name: str, value: object, allowed: str = "a finite number") -> float:
    """A real number as a float; `allowed` is what the message says it must be."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be {allowed}, got {shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} must be {allowed}, got {shown(value)}")
    return number


def positive_finite(name: str, value: object) -> float:
    """A real number above zero as a float."""
    allowed = "a positive finite number"
    number = finite(name, value, allowed)
    if number <= 0.0:
        raise ValueError(f"{name} must be {allowed}, got {shown(value)}")
    return number


def non_negative_finite(name: str, value: object) -> float:
    """A real number, zero or above, as a float."""
    allowed = "a non-negative finite number"
    number = finite(name, value, allowed)
    if number < 0.0:
        raise ValueError(f"{name} must be {allowed}, got {shown(value)}")
    return number + 0.0  # -0.0 becomes 0.0


def integer(name: str, value: object, minimum: int, maximum: int | None = None) -> int:
    """A whole number in [minimum, maximum] as an int; 3.0 is refused, because it is often a slip."""
    upper = "" if maximum is None else f" to {maximum}"
    allowed = f"an integer of at least {minimum}" if maximum is None else f"an integer from {minimum}{upper}"
    if isinstance(value, (bool, np.bool_, np.ndarray)):
        raise TypeError(f"{name} must be {allowed}, got {shown(value)}")
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be {allowed}, got {shown(value)}") from None
    if number < minimum or (maximum is not None and number > maximum):
        raise ValueError(f"{name} must be {allowed}, got {shown(value)}")
    return number


def flag(name: str, value: object) -> bool:
    """True or False, and nothing that merely counts as one."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def choice(name: str, value: object, allowed: Iterable[str]) -> str:
    """One of a few words; the message lists them and names the nearest."""
    words = list(allowed)
    listed = ", ".join(repr(word) for word in words)
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {listed}, got {shown(value)}")
    if value not in words:
        raise ValueError(f"{name} must be one of {listed}, got {value!r}{nearest(value, words)}")
    return value


def nearest(word: str, known: Iterable[str]) -> str:
    """A closing `; did you mean 'tanh'?`, or nothing where no known word is near."""
    matches = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def real_array(name: str, values: ArrayLike) -> NDArray[Any]:
    """Real numbers as float32 or float64, whichever keeps them: these two stay, float16 becomes float32."""
    array = np.asarray(values)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be real numbers, got dtype {array.dtype}")
    if array.dtype.kind == "f" and array.dtype.itemsize <= 4:
        return array.astype(np.float32, copy=False)
    return array.astype(np.float64, copy=False)


def real_numbers(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """A real number, or an array of them, as float64."""
    try:
        array = np.asarray(values)
    except ValueError:  # rows of unequal length
        raise ValueError(f"{name} must be a number or an array of numbers, got rows that differ in length") from None
    return real_array(name, array).astype(np.float64, copy=False)


def all_allowed(name: str, array: NDArray[np.float64], allowed: Any, what: str) -> NDArray[np.float64]:
    """The array, if `allowed` is true throughout; else an error about the first place where it is not."""
    if np.all(allowed):
        return array
    where = tuple(int(i) for i in np.argwhere(~np.asarray(allowed))[0])
    place = f" at index {where[0] if len(where) == 1 else where}" if where else ""
    raise ValueError(f"{name} must be {what}, got {array[where]}{place}")
