"""Cholesky factors of covariance matrices that may be singular: the twin of csrc/cpu/covariance_factor.cpp.

On the device a whole batch is factored at once. A matrix that is not safely positive definite (equal inputs, more
inputs than nodes, inputs that have collapsed onto few directions) goes to the host, alone, for complete pivoting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .. import _core

# Of matrices up to this order many are factored and solved together; larger ones fill the device one by one. The number
# of networks must not matter, lest their numbers depend on it, but the libraries take another way for a single matrix.
_TOGETHER = 512


@dataclass
class Factor:
    """L with L L^T = C of each network; see csrc/cpu/covariance_factor.h."""

    lower: Any
    """(G, n, n) float64, rows in the order of C."""
    rows: Any
    """(G, n): the row in which each column starts, columns that are not zero first; all rows."""
    columns: Any
    """(G, n): the columns of L in that order."""
    mask: Any
    """(G, n) float64: one for those columns that are not zero."""
    ranks: list[int]
    triangular: bool
    """Whether every network's L is lower triangular as it stands."""
    smallest: list[float]
    """Pivot of each network, as a share of its variance."""

    def square(self) -> Any:
        """The lower triangular part of L that can be solved with, (G, n, n); beyond the rank it is the identity."""
        if min(self.ranks) == self.lower.shape[1] and self.triangular:
            return self.lower
        kept = columns_of(rows_of(self.lower, self.rows), self.columns)
        return torch.tril(kept * self.mask[:, :, None] * self.mask[:, None, :]) + torch.diag_embed(1.0 - self.mask)

    def leading(self, matrix: Any) -> Any:
        """Those rows of (G, n, m) that have a column of L, first, in its order; zeros beyond."""
        return rows_of(matrix, self.columns) * self.mask[:, :, None]


def rows_of(matrix: Any, rows: Any) -> Any:
    """Rows of (G, n, m), of each network its own."""
    return matrix.gather(1, rows[:, :, None].expand(-1, -1, matrix.shape[2]))


def columns_of(matrix: Any, columns: Any) -> Any:
    """Columns of (G, n, m), of each network its own."""
    return matrix.gather(2, columns[:, None, :].expand(-1, matrix.shape[1], -1))


def covariance_factor(
    products: Any, gain: float, accuracy: list[float], largest_rank: list[int], told: Any = None
) -> tuple[Factor, list[float]]:
    """Factor of gain * products, (G, n, n) float64, each right to its `accuracy` relative to its diagonal.

    `told`: numbers on the device, (m,) float64, that the host wants to know at this occasion, returned beside: the one
    moment at which it waits for the device.
    """
    networks, n = products.shape[:2]
    scale, lower, info = _scaled_cholesky(products, gain)
    smallest = lower.diagonal(dim1=1, dim2=2).square().amin(1)
    numbers = [info.double(), smallest] if told is None else [info.double(), smallest, told]
    known = torch.cat(numbers).tolist()
    infos, pivots, rest = known[:networks], known[networks : 2 * networks], known[2 * networks :]
    safe = [
        info == 0 and rank >= n and pivot > 16.0 * digits
        for info, rank, pivot, digits in zip(infos, largest_rank, pivots, accuracy, strict=True)
    ]
    natural = torch.arange(n, device=products.device).expand(networks, n)
    factor = Factor(
        lower=lower.mul_(scale[:, :, None]),
        rows=natural,
        columns=natural,
        mask=torch.ones(networks, n, dtype=torch.float64, device=products.device),
        ranks=[n] * networks,
        triangular=all(safe),
        smallest=[min(pivot, 1.0) for pivot in pivots],
    )
    if not all(safe):
        factor.rows, factor.columns = natural.clone(), natural.clone()
    for g in (g for g in range(networks) if not safe[g]):
        _factor_on_host(factor, g, products[g], gain, accuracy[g], largest_rank[g])
    return factor, rest


def _factor_on_host(factor: Factor, g: int, products: Any, gain: float, accuracy: float, largest_rank: int) -> None:
    """Complete pivoting of one network's matrix."""
    n = products.shape[0]
    lower, pivots, columns, _, factor.smallest[g] = _core.covariance_factor(
        products.cpu().numpy(), gain, accuracy, largest_rank
    )
    rank = len(columns)
    order = torch.from_numpy(np.concatenate([columns, np.setdiff1d(np.arange(n), columns)]))
    factor.lower[g] = torch.from_numpy(lower).to(products.device).mT
    factor.columns[g] = order
    factor.rows[g] = torch.from_numpy(pivots)[order]
    factor.mask[g, rank:] = 0.0
    factor.ranks[g] = rank


def safe_factor(products: Any, accuracy: float) -> tuple[Any, Any]:
    """L of products (G, n, n), and whether each was safely positive definite, (G,); the host is told nothing."""
    scale, lower, info = _scaled_cholesky(products, 1.0)
    safe = (info == 0) & (lower.diagonal(dim1=1, dim2=2).square().amin(1) > 16.0 * accuracy)
    return lower * scale[:, :, None], safe


def root(squares: Any, accuracy: float, largest_rank: list[int]) -> tuple[Any, Factor]:
    """K with K^T K = squares, (G, n, n), its leading rows those that are not zero; and the factor it is made of."""
    factor, _ = covariance_factor(squares, 1.0, [accuracy] * squares.shape[0], largest_rank)
    return factor.leading(factor.lower.mT), factor


def leading_factor(products: Any, rows: list[int], accuracy: float) -> tuple[Any, list[int]]:
    """The Cholesky factor of as many leading rows and columns as are safely positive definite, but no more than `rows`.

    Returns it (G, n, n), the identity beyond, and how many rows it has.
    """
    n = products.shape[1]
    number = torch.arange(n, device=products.device)
    inside = (number[None, :] < torch.tensor(rows, device=products.device)[:, None]).double()
    lower, safe = safe_factor(bordered(products, inside), accuracy)
    found = list(rows)
    for g in (g for g, good in enumerate(safe.tolist()) if not good):
        lower[g] = torch.eye(n, dtype=lower.dtype, device=lower.device)
        found[g] = _leading_on_host(products[g].cpu(), rows[g], accuracy, lower[g])
    return lower, found


def bordered(products: Any, inside: Any) -> Any:
    """The rows and columns where `inside` (G, n) is one, and the identity where it is zero."""
    return products * inside[:, :, None] * inside[:, None, :] + torch.diag_embed(1.0 - inside)


def _leading_on_host(products: Any, rows: int, accuracy: float, out: Any) -> int:
    n = rows
    while n > 0:
        lower, _, columns, triangular, _ = _core.covariance_factor(
            products[:n, :n].contiguous().numpy(), 1.0, accuracy, n
        )
        if triangular:
            out[:n, :n] = torch.from_numpy(lower).mT.to(out.device)
            return n
        n = min(n - 1, len(columns))
    return 0


def _scaled_cholesky(products: Any, gain: float) -> tuple[Any, Any, Any]:
    """Scales sqrt(C_aa), the factor of the correlations, and what LAPACK says of it.

    Scaled to unit diagonal, so that the huge part of C (what all inputs share) and the tiny one (what tells them apart)
    are factored on the same footing.
    """
    scale = (gain * products.diagonal(dim1=1, dim2=2)).sqrt()
    inverse = torch.where(scale > 0.0, 1.0 / scale, 0.0)
    correlations = gain * products * inverse[:, :, None] * inverse[:, None, :]
    correlations.diagonal(dim1=1, dim2=2).copy_(torch.where(scale > 0.0, 1.0, 0.0))
    lower, info = _in_batches(torch.linalg.cholesky_ex, correlations)
    return scale, lower, info


def solve(lower: Any, right: Any, *, transposed: bool = False) -> Any:
    """L^-1 right, or L^-T right, of lower triangular L, (G, n, n)."""

    def solved(lower: Any, right: Any) -> tuple[Any]:
        return (torch.linalg.solve_triangular(lower.mT if transposed else lower, right, upper=transposed),)

    return _in_batches(solved, lower, right)[0]


def _in_batches(function: Any, *matrices: Any) -> tuple[Any, ...]:
    """function of batches of matrices, in a way that the number of networks does not matter to any of them.

    Nor may their order in memory, nor, on the host, their alignment: libraries look at these, too.
    """
    networks, n = matrices[0].shape[:2]
    matrices = tuple(of.contiguous() for of in matrices)
    if n > _TOGETHER or matrices[0].device.type == "cpu":
        each = [function(*(of[g].clone() for of in matrices)) for g in range(networks)]
        return tuple(torch.stack(found) for found in zip(*each, strict=True))
    if networks > 1:
        return tuple(function(*matrices))
    return tuple(found[:1] for found in function(*(torch.cat([of, of]) for of in matrices)))
