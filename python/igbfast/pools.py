"""Pools over several nodes: P(y_1..y_k) is the maximum, minimum or average of phi(y_1)..phi(y_k) over k nodes.

Each pooled value is copied back to its k nodes, so that the width stays what it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from . import _checks

__all__ = ["AvgPool", "MaxPool", "MinPool", "Pool"]

MAX_SIZE = 2**20


@dataclass(frozen=True, slots=True)
class Pool:
    """What the pools have in common: over how many nodes each pooled value is taken. Make one of the three below."""

    size: int
    """Nodes per pool."""

    kind: ClassVar[str] = ""

    def __post_init__(self) -> None:
        if type(self) is Pool:
            raise TypeError("a pool must be MaxPool(k), MinPool(k) or AvgPool(k), got Pool itself")
        object.__setattr__(self, "size", _checks.integer(f"the size of {type(self).__name__}", self.size, 1, MAX_SIZE))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.size})"


@dataclass(frozen=True, slots=True, repr=False)
class MaxPool(Pool):
    """The largest of phi(y_1)..phi(y_k).

    Parameters
    ----------
    size : int
        Nodes per pool, at least 1; a pool of one node changes nothing.

    Raises
    ------
    ValueError, TypeError
        If `size` is not an integer of at least 1.

    Examples
    --------
    >>> import igbfast as igb
    >>> igb.Ensemble("relu", sigma_w2=1.1, pool=igb.MaxPool(2))
    Ensemble('relu', sigma_w2=1.1, sigma_b2=0.0, pool=MaxPool(2))
    """

    kind: ClassVar[str] = "max"


@dataclass(frozen=True, slots=True, repr=False)
class MinPool(Pool):
    """The smallest of phi(y_1)..phi(y_k).

    Parameters
    ----------
    size : int
        Nodes per pool, at least 1; a pool of one node changes nothing.

    Raises
    ------
    ValueError, TypeError
        If `size` is not an integer of at least 1.

    Examples
    --------
    >>> import igbfast as igb
    >>> igb.MinPool(3)
    MinPool(3)
    """

    kind: ClassVar[str] = "min"


@dataclass(frozen=True, slots=True, repr=False)
class AvgPool(Pool):
    """The average of phi(y_1)..phi(y_k).

    Parameters
    ----------
    size : int
        Nodes per pool, at least 1; a pool of one node changes nothing.

    Raises
    ------
    ValueError, TypeError
        If `size` is not an integer of at least 1.

    Examples
    --------
    >>> import igbfast as igb
    >>> igb.AvgPool(0)
    Traceback (most recent call last):
    ...
    ValueError: the size of AvgPool must be an integer from 1 to 1048576, got 0
    """

    kind: ClassVar[str] = "average"


def as_pool(value: object) -> Pool | None:
    """The pool that a caller gave, or None for none; a pool of one node is none."""
    if value is None:
        return None
    if isinstance(value, Pool):
        return None if value.size == 1 else value
    raise TypeError(f"pool must be None, MaxPool(k), MinPool(k) or AvgPool(k), got {_checks.shown(value)}")
