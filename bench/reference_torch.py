"""The same forward pass in PyTorch, as one would write it for speed: float32 weights by randn, matmul, variances."""

from __future__ import annotations

import time

import torch

from .reference_numpy import Layer


def forward(width: int, layers: int, inputs: int, *, sigma_w2: float, sigma_b2: float, seed: int = 0) -> list[Layer]:
    """Run one network, layer by layer, each timed by itself."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(width, inputs, generator=rng)
    measured = []
    for _ in range(layers):
        start = time.perf_counter()
        weights = torch.randn(width, width, generator=rng)
        y = torch.matmul(weights, x).mul_((sigma_w2 / width) ** 0.5)
        y += sigma_b2**0.5 * torch.randn(width, 1, generator=rng)
        variance, centre = torch.var_mean(y, dim=1)
        sigma_y2 = float(variance.mean())
        sigma_mu2 = float(centre.var()) - sigma_y2 / inputs
        x = torch.tanh(y)
        measured.append(Layer(time.perf_counter() - start, sigma_mu2, sigma_y2, None))
    return measured


def normals(count: int, dtype: str) -> torch.Tensor:
    """Draw `count` standard normals."""
    return torch.randn(count, dtype=getattr(torch, dtype))
