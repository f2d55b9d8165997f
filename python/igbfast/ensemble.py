"""What a random network is: y^(l) = W phi(y^(l-1)) + b with W_ij ~ N(0, sigma_w2 / width) and b_i ~ N(0, sigma_b2)."""

from __future__ import annotations

from dataclasses import dataclass

from . import _checks
from .activations import Activation, as_activation

__all__ = ["Ensemble"]


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Ensemble:
    """A fully connected network at initialisation, as a law to draw from.

    Instances are immutable and hashable. Both sigmas are variances: the axes of every phase diagram.

    Parameters
    ----------
    activation : Activation or str
        Such as `"tanh"`, `"leaky_relu(0.2)"` or `igb.activations.relu`.
    sigma_w2 : float
        Variance of the weights times the width, positive.
    sigma_b2 : float, optional
        Variance of the biases, zero or positive; 0 if not given.

    Raises
    ------
    ValueError, TypeError
        For an unknown activation, and for a variance out of range or not a number; the message names it.

    References
    ----------
    Poole et al., Exponential expressivity in deep neural networks through transient chaos (2016), equation 1.

    Examples
    --------
    >>> import igbfast as igb
    >>> igb.Ensemble("tanh", sigma_w2=1.76, sigma_b2=0.05)
    Ensemble('tanh', sigma_w2=1.76, sigma_b2=0.05)
    >>> igb.Ensemble("tanh", sigma_w2=-1.0)
    Traceback (most recent call last):
    ...
    ValueError: sigma_w2 must be a positive finite number, got -1.0
    """

    activation: Activation
    """The function applied to every node."""
    sigma_w2: float
    """Variance of the weights times the width."""
    sigma_b2: float = 0.0
    """Variance of the biases."""

    def __init__(self, activation: Activation | str, sigma_w2: float, sigma_b2: float = 0.0) -> None:
        object.__setattr__(self, "activation", as_activation(activation))
        object.__setattr__(self, "sigma_w2", _checks.positive_finite("sigma_w2", sigma_w2))
        object.__setattr__(self, "sigma_b2", _checks.non_negative_finite("sigma_b2", sigma_b2))

    def __repr__(self) -> str:
        return f"Ensemble({str(self.activation)!r}, sigma_w2={self.sigma_w2!r}, sigma_b2={self.sigma_b2!r})"


def as_ensemble(value: object) -> Ensemble:
    """The ensemble that a caller gave; anything else is a TypeError that shows how to make one."""
    if isinstance(value, Ensemble):
        return value
    example = "igb.Ensemble('tanh', sigma_w2=1.76, sigma_b2=0.05)"
    raise TypeError(f"ens must be an Ensemble such as {example}, got {_checks.shown(value)}")
