"""Q x and Q^T x for orthogonal matrices Q drawn uniformly (Haar), never stored; the twin of csrc/cpu/haar.cpp.

    Q = H_0 H_1 ... H_(order-1) D,   H_i = I - 2 v_i v_i^T / |v_i|^2,   v_i = n_i + s_i |n_i| e_i,   D_ii = -s_i,

where n_i holds the normals of row i of the stream from column i on, zeros before, and s_i is the sign of the first of
them. A block of reflections is I - V T V^T with T = L^-T, L the strict lower and half the diagonal of V^T V: two
products and a triangular solve for all columns of all networks of a batch. Larger blocks than the CPU's keep the GPU's
launches few; Q is the same, whatever the block. Operands must not be rounded (TF32): Q would not stay orthogonal.
"""

from __future__ import annotations

from typing import Any

import torch

from ._device import Device
from ._layout import padded
from ._sampling import StreamId, fill_weights

BLOCK = 128
"""Reflections at a time, a multiple of the blocks that normals are made in."""


def apply_haar(device: Device, stream: StreamId, x: Any, leading: int, transposed: bool, block: int = BLOCK) -> None:
    """Q x, or Q^T x, in place, for each network of the batch (that of `stream` and the following ones).

    x : (networks, columns, order); each row is one column of what Q multiplies. Of Q only the `leading` columns are
    used: then x must be zero from `leading` on for Q x, and is left without a meaning there by Q^T x.
    """
    firsts = range(0, min(leading, x.shape[2]), block)
    for first in firsts if transposed else reversed(firsts):
        count = min(block, leading - first, x.shape[2] - first)
        v, signs, lower = _reflections(device, stream, x, first, count)
        rest, head = x[:, :, first:], x[:, :, first : first + count]
        if not transposed:
            head *= signs[:, None]
        # Rows of x for columns: op(T) V^T x solves L^T z = V^T x (Q) or L z = V^T x (Q^T), here from the right.
        factor = lower.transpose(1, 2) if transposed else lower
        z = torch.linalg.solve_triangular(factor, torch.bmm(rest, v.transpose(1, 2)), upper=transposed, left=False)
        rest.baddbmm_(z, v, alpha=-1.0)
        if transposed:
            head *= signs[:, None]


def haar_numbers(order: int, columns: int) -> int:
    """Numbers that apply_haar takes for itself, for one network."""
    return BLOCK * (padded(order) + 2 * columns + 4 * BLOCK)


def _reflections(device: Device, stream: StreamId, x: Any, first: int, count: int) -> tuple[Any, Any, Any]:
    """Vectors v, the signs of D (networks, count), and L, for the reflections from `first` on.

    v is (networks, padded(count), order - first), filled up with vectors of zeros, which reflect nothing: then matrices
    begin where a library's fastest way can, in every network of the batch.
    """
    networks, _, order = x.shape
    length = order - first
    normals = torch.empty(networks, padded(count), padded(length), dtype=x.dtype, device=x.device)
    fill_weights(device, "gaussian", stream, normals, first_row=first, first_column=first, rows=count, columns=length)
    v = normals[:, :, :length]
    v[:, count:] = 0
    v.triu_()
    tips = torch.diagonal(v[:, :count], dim1=1, dim2=2)
    head = tips.to(torch.float64, copy=True)
    square = torch.linalg.vector_norm(v[:, :count], dim=2, dtype=torch.float64).square()
    tip = (head + torch.copysign(square.sqrt(), head)).to(v.dtype)
    tip = torch.where(tip == 0, torch.ones_like(tip), tip)  # all of n_i is zero: any reflection will do
    tips.copy_(tip)
    lower = torch.bmm(v, v.transpose(1, 2))
    # Half the diagonal is summed in double from v as it is stored: that leaves the block orthogonal.
    half = 0.5 * (square - head.square() + tip.double().square())
    diagonal = torch.diagonal(lower, dim1=1, dim2=2)
    diagonal[:, :count] = half
    diagonal[:, count:] = 1
    return v, torch.copysign(torch.ones_like(tip), -head).to(v.dtype), lower.tril_()
