"""Squared gradients at infinite width: from the loss back through the layers, g^(l) = chi(q^(l)) g^(l+1).

g^(l) is width times the mean over nodes of (dLoss_a / dy_i^(l)(a))^2, for the loss of input a alone. At the head,
logits = W x + b, it is |dLoss_a / dlogits|^2: 1 for a read-out, |softmax - one-hot|^2 for cross entropy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from .ensemble import Ensemble
from .meanfield import moments

__all__ = ["LOSSES", "cross_entropy_slope2", "squared_gradients"]

FloatArray = NDArray[np.float64]

LOSSES = ("readout", "cross_entropy")


def squared_gradients(ens: Ensemble, theory: xr.Dataset, loss: str, classes: int) -> FloatArray:
    """g^(l) of every layer of `theory`, which `propagate` made: width times the mean squared gradient."""
    chi, last = theory["chi"].values, theory["q"].values[-1]
    # The head has no skip around it: what a residual layer adds to the gradient of its branch does not count there.
    head = (chi[-1] - 1.0) / ens.residual if ens.residual else chi[-1]
    slope2 = 1.0 if loss == "readout" else cross_entropy_slope2(_logit_variance(ens, last), classes)
    factors = np.append(chi[:-1], head * slope2)
    with np.errstate(over="ignore", under="ignore"):
        gradient: FloatArray = np.cumprod(factors[::-1])[::-1]
    return gradient


def cross_entropy_slope2(variance: float, classes: int) -> float:
    """E |softmax(z) - one-hot|^2 for `classes` independent logits z ~ N(0, variance) and a label that ignores them.

    It is 1 - 2/K + K E[p^2] for the probability p of one class of K, and as 1/S^2 = integral of t exp(-t S) over t > 0,

        E[p^2] = integral E[h(u + z)] E[m(u + z)]^(K-1) du,    h(v) = exp(2v - e^v),    m(v) = exp(-e^v).
    """
    s = float(np.sqrt(variance))
    if not np.isfinite(s):
        return np.nan
    scale = np.hypot(1.0, s)
    u = np.arange(-9.0 * s - 40.0, 9.0 * s + 5.0, 0.08 * scale / np.sqrt(np.log(classes + 2.0)))
    if s < 1.0:  # by Hermite nodes over z
        z, weight = np.polynomial.hermite_e.hermegauss(100)
        weight /= weight.sum()
        v = np.minimum(u[:, None] + s * z, 6.0)  # where both functions are zero
        square, other = np.exp(2.0 * v - np.exp(v)) @ weight, np.exp(-np.exp(v)) @ weight
    else:  # by even steps over v = u + z; m is minus the integral of its slope
        from scipy.special import ndtr

        step = 0.1
        v = np.arange(-40.0, 5.0, step)
        distance = (v - u[:, None]) / s
        square = np.exp(-0.5 * distance**2) @ np.exp(2.0 * v - np.exp(v)) * (step / (s * np.sqrt(2.0 * np.pi)))
        other = ndtr(distance) @ np.exp(v - np.exp(v)) * step
    p2 = np.sum(square * other ** (classes - 1)) * (u[1] - u[0])
    return float(1.0 - 2.0 / classes + classes * p2)


def _logit_variance(ens: Ensemble, q: float) -> float:
    seen: Any = 1.0 if ens.layernorm else q
    return float(ens.sigma_w2 * moments(ens.activation, seen, pool=ens.pool) + ens.sigma_b2)
