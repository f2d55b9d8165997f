"""The paper's algorithm, in NumPy: float64 weights of every layer drawn, multiplied, variances, correlations.

y = W x + b, W ~ N(0, sigma_w2 / N), b ~ N(0, sigma_b2), x' = tanh(y); activations are N x B, a column for each input.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Layer:
    """What one layer took and what was measured in it."""

    seconds: float
    sigma_mu2: float  # variance over nodes of the mean over inputs, unbiased
    sigma_y2: float  # mean over nodes of the variance over inputs, unbiased
    c: float | None  # mean correlation of two inputs over the nodes

    @property
    def gamma(self) -> float:
        return self.sigma_mu2 / self.sigma_y2


def forward(width: int, layers: int, inputs: int, *, sigma_w2: float, sigma_b2: float, seed: int = 0) -> list[Layer]:
    """Run one network, layer by layer, each timed by itself."""
    rng = np.random.RandomState(seed)
    x = rng.randn(width, inputs)
    measured = []
    for _ in range(layers):
        start = time.perf_counter()
        weights = rng.randn(width, width)
        weights *= np.sqrt(sigma_w2 / width)
        y = weights @ x + np.sqrt(sigma_b2) * rng.randn(width, 1)
        sigma_mu2, sigma_y2 = variances(y)
        c = mean_correlation(y)
        x = np.tanh(y)
        measured.append(Layer(time.perf_counter() - start, sigma_mu2, sigma_y2, c))
    return measured


def variances(y: NDArray[np.float64]) -> tuple[float, float]:
    """sigma_mu2 and sigma_y2 of the pre-activations of one layer."""
    sigma_y2 = float(y.var(axis=1, ddof=1).mean())
    sigma_mu2 = float(y.mean(axis=1).var(ddof=1)) - sigma_y2 / y.shape[1]
    return sigma_mu2, sigma_y2


def mean_correlation(y: NDArray[np.float64]) -> float:
    """Mean over pairs of inputs of their correlation over the nodes."""
    correlations = np.corrcoef(y, rowvar=False)
    inputs = y.shape[1]
    return float((correlations.sum() - inputs) / (inputs * (inputs - 1)))
