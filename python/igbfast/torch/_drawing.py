"""Drawing the weights of one layer, of a given variance: Gaussian, orthogonal, and delta-orthogonal convolutions.

Every number comes from one generator, in float32 or float64 on the generator's device: the same seed gives the same
weights for whatever device and precision they are meant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

__all__ = ["LAWS", "bias", "delta_orthogonal", "weight"]

LAWS = ("gaussian", "orthogonal")


def weight(
    shape: Sequence[int],
    variance: float,
    *,
    law: str = "gaussian",
    groups: int = 1,
    generator: Any = None,
    dtype: Any = torch.float32,
) -> Any:
    """Weights of mean zero and the given variance.

    Parameters
    ----------
    shape : sequence of int
        As PyTorch stores them: (out, in), (in, out), (out, in / groups, *kernel) or (in, out / groups, *kernel).
    variance : float
        Of every weight; of orthogonal ones, their mean square.
    law : {"gaussian", "orthogonal"}, optional
        `orthogonal`: the matrix of first axis by all others, of each group, has orthonormal rows or columns, whichever
        are fewer, times a factor.
    groups : int, optional
        Of a convolution: parts of the first axis that are drawn separately.
    generator : torch.Generator, optional
        Where the numbers come from; PyTorch's own if not given.
    dtype : torch.dtype, optional
        float32 or float64.

    Returns
    -------
    Tensor
        On the generator's device.

    Examples
    --------
    >>> import torch
    >>> w = weight((6, 3), 1 / 3, law="orthogonal", generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> (w.T @ w / 2).round(decimals=12).abs()
    tensor([[1., 0., 0.],
            [0., 1., 0.],
            [0., 0., 1.]], dtype=torch.float64)
    """
    if law == "gaussian":
        return _normals(shape, generator, dtype).mul_(math.sqrt(variance))
    rows = shape[0] // groups
    frames = [_frame(rows, math.prod(shape[1:]), generator, dtype) for _ in range(groups)]
    scale = math.sqrt(variance * max(rows, math.prod(shape[1:])))
    return torch.cat(frames).reshape(tuple(shape)).mul_(scale)


def delta_orthogonal(
    shape: Sequence[int], variance: float, *, groups: int = 1, generator: Any = None, dtype: Any = torch.float32
) -> Any:
    """Weights of a convolution that are zero but at the centre of the kernel, and orthogonal there.

    Every position then sees a fully connected network, so that a deep convolutional one keeps what its input shows at
    each position. The centre has the mean square that gives the whole kernel the wanted one. After Xiao et al.,
    Dynamical isometry and a mean field theory of CNNs (2018).

    Parameters
    ----------
    shape : sequence of int
        (out, in / groups, *kernel).
    variance : float
        Mean square over all weights.
    groups, generator, dtype
        As in `weight`.

    Examples
    --------
    >>> import torch
    >>> w = delta_orthogonal((4, 4, 3, 3), 1 / 36, generator=torch.Generator().manual_seed(0))
    >>> int((w != 0).sum()), round(float((w**2).sum()), 4)
    (16, 4.0)
    """
    weights = torch.zeros(tuple(shape), dtype=dtype, device=_device(generator))
    centre = (slice(None), slice(None), *(size // 2 for size in shape[2:]))
    at_centre = variance * math.prod(shape[2:])
    weights[centre] = weight(shape[:2], at_centre, law="orthogonal", groups=groups, generator=generator, dtype=dtype)
    return weights


def bias(count: int, variance: float, *, generator: Any = None, dtype: Any = torch.float32) -> Any:
    """Normal biases of mean zero and the given variance; none are drawn where it is zero."""
    if variance == 0.0:
        return torch.zeros(count, dtype=dtype, device=_device(generator))
    return _normals((count,), generator, dtype).mul_(math.sqrt(variance))


def _normals(shape: Sequence[int], generator: Any, dtype: Any) -> Any:
    return torch.randn(tuple(shape), generator=generator, dtype=dtype, device=_device(generator))


def _device(generator: Any) -> Any:
    return torch.device("cpu") if generator is None else generator.device


def _frame(rows: int, columns: int, generator: Any, dtype: Any) -> Any:
    """Orthonormal rows or columns, whichever are fewer, uniformly distributed (Haar).

    The Q of a Gaussian matrix is uniform once the diagonal of R is positive (Mezzadri, How to generate random matrices
    from the classical compact groups, 2007).
    """
    tall = _normals((max(rows, columns), min(rows, columns)), generator, dtype)
    q, r = torch.linalg.qr(tall)
    q *= torch.where(r.diagonal() < 0, -1.0, 1.0).to(dtype)
    return q if rows >= columns else q.T
