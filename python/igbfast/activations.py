"""Activation functions by name: what phi is, in y_i = sum_j W_ij phi(y_j) + b_i.

The functions themselves live in the compiled core; an `Activation` says which one, and its parameter if it has one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from . import _checks, _core

__all__ = ["Activation", "erf", "leaky_relu", "linear", "relu", "tanh"]

# Name -> the default of its parameter; None where there is no parameter.
_KNOWN: dict[str, float | None] = {"linear": None, "relu": None, "leaky_relu": 0.01, "tanh": None, "erf": None}

_WRITTEN = re.compile(r"\s*([A-Za-z_]\w*)\s*(?:\(([^()]*)\))?\s*")


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Activation:
    """An activation function phi, applied to every node alike.

    Instances are immutable and hashable; two of them are equal when they are the same function by name and parameter.

    Parameters
    ----------
    name : str
        `linear`, `relu`, `leaky_relu`, `tanh` or `erf`; a parameter may be written along: `"leaky_relu(0.2)"`.
    parameter : float, optional
        `leaky_relu`: the slope below zero, 0.01 if not given. The others have none.

    Raises
    ------
    ValueError
        For an unknown name (the message lists the known ones and the nearest) and for a parameter where there is none.
    TypeError
        If the name is not a string or the parameter not a number.

    Examples
    --------
    >>> import numpy as np
    >>> import igbfast as igb
    >>> phi = igb.Activation("leaky_relu(0.2)")
    >>> phi
    Activation('leaky_relu(0.2)')
    >>> phi(np.array([-1.0, 0.0, 2.0]))
    array([-0.2,  0. ,  2. ])
    >>> phi.derivative(np.array([-1.0, 2.0]))
    array([0.2, 1. ])
    """

    name: str
    """Name of the function."""
    parameter: float = 0.0
    """Slope below zero for `leaky_relu`; 0.0 for functions without a parameter."""

    def __init__(self, name: str, parameter: float | None = None) -> None:
        if not isinstance(name, str):
            raise TypeError(f"the name of an activation must be a string, got {_checks.shown(name)}")
        written = _WRITTEN.fullmatch(name)
        if written and written[2] is not None:
            if parameter is not None:
                raise ValueError(f"activation {name!r} already has its parameter, got parameter={parameter!r} as well")
            name, parameter = written[1], _written_parameter(name, written[2])
        elif written:
            name = written[1]
        if name not in _KNOWN:
            known = ", ".join(_KNOWN)
            raise ValueError(f"unknown activation {name!r}; known are {known}{_checks.nearest(name, _KNOWN)}")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "parameter", _checked_parameter(name, parameter))

    def __str__(self) -> str:
        return self.name if _KNOWN[self.name] is None else f"{self.name}({self.parameter!r})"

    def __repr__(self) -> str:
        return f"Activation({str(self)!r})"

    def __call__(self, x: ArrayLike) -> Any:
        """Value phi(x).

        Parameters
        ----------
        x : array_like
            Real numbers of any shape.

        Returns
        -------
        ndarray or scalar
            The shape of `x`; float32 and float64 are kept, float16 becomes float32, other real types float64.

        Raises
        ------
        TypeError
            If `x` holds anything but real numbers.

        Examples
        --------
        >>> import igbfast as igb
        >>> float(igb.activations.tanh(0.0))
        0.0
        """
        return self._evaluated("value", x)

    def derivative(self, x: ArrayLike) -> Any:
        """Slope phi'(x); where phi has a kink, the slope on its left (0 for `relu` at 0).

        Parameters
        ----------
        x : array_like
            Real numbers of any shape.

        Returns
        -------
        ndarray or scalar
            As for the value.

        Raises
        ------
        TypeError
            If `x` holds anything but real numbers.

        Examples
        --------
        >>> import igbfast as igb
        >>> float(igb.activations.tanh.derivative(0.0))
        1.0
        """
        return self._evaluated("slope", x)

    def _evaluated(self, what: Literal["value", "slope"], x: ArrayLike) -> Any:
        array = _checks.real_array("x", x)
        flat = _core.evaluate(
            activation=self.name, parameter=self.parameter, what=what, x=np.ascontiguousarray(array).ravel()
        )
        return flat.reshape(array.shape)[()]  # [()]: a scalar for a scalar


def as_activation(value: object) -> Activation:
    """What a caller gave as an activation: one already, or its name."""
    if isinstance(value, Activation):
        return value
    if isinstance(value, str):
        return Activation(value)
    if value is leaky_relu:
        raise TypeError("activation must be a name or an Activation; leaky_relu needs its slope: leaky_relu(0.01)")
    raise TypeError(f"activation must be a name or an Activation, got {_checks.shown(value)}")


def _written_parameter(written: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"the parameter in activation {written!r} must be a finite number, got {text!r}") from None


def _checked_parameter(name: str, parameter: float | None) -> float:
    default = _KNOWN[name]
    if parameter is None:
        return 0.0 if default is None else default
    number = _checks.finite(f"the parameter of activation {name!r}", parameter)
    if default is None and number != 0.0:
        raise ValueError(f"activation {name!r} has no parameter, got {_checks.shown(parameter)}")
    return number + 0.0


linear = Activation("linear")
"""phi(x) = x."""

relu = Activation("relu")
"""phi(x) = max(x, 0)."""

tanh = Activation("tanh")
"""phi(x) = tanh(x)."""

erf = Activation("erf")
"""phi(x) = erf(x)."""


def leaky_relu(slope: float = 0.01) -> Activation:
    """phi(x) = x above zero and `slope` x below.

    Parameters
    ----------
    slope : float
        Any finite number.

    Returns
    -------
    Activation

    Raises
    ------
    ValueError, TypeError
        If `slope` is not a finite number.

    Examples
    --------
    >>> import igbfast as igb
    >>> float(igb.activations.leaky_relu(0.2)(-1.0))
    -0.2
    """
    return Activation("leaky_relu", slope)
