"""What the Gram engine needs beside PyTorch: rows given their covariance, angles between inputs, labels, the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from igbfast.gpu._device import Device, pointer

if TYPE_CHECKING:
    from igbfast.gpu._layout import Slab

HISTOGRAM_BINS = 65536
"""Values are counted by the 16 leading bits of their doubles."""

_LABELS = 5  # the number of that stream in csrc/core/stream.h
_SUFFIX = {torch.float32: "_f32", torch.float64: "_f64"}


def draw_rows(
    device: Device, stream: tuple[int, int, int, int], slab: Slab, draw: Any, triangular: bool, tile: Any
) -> None:
    """Pre-activations from their law: `tile[g, a, row] = sum_k draw[g, a, k] Z_k(row)`, padding 0.

    Parameters
    ----------
    stream
        Seed, first network, layer and number of the random numbers; Z_k is row k of them, of network g as they say.
    draw
        (networks, inputs, inputs). Where `triangular`, what is above the diagonal counts as 0, whatever it is.
    tile
        (networks, inputs, slab.rows) of the same dtype; written.
    """
    networks, inputs = draw.shape[:2]
    given = pointer(draw, tile.dtype, networks, inputs, inputs)
    to = pointer(tile, tile.dtype, networks, inputs, slab.rows)
    device.call("draw_rows" + _SUFFIX[tile.dtype], *stream, networks, inputs, *slab.ints, given, triangular, to)


@dataclass(frozen=True)
class PairHistograms:
    """Counts of q and of 1 - c, (networks, HISTOGRAM_BINS) int64, which `contrasts` adds to."""

    q: Any
    c: Any

    @staticmethod
    def empty(device: Device, networks: int) -> PairHistograms:
        """Nothing counted yet."""
        q, c = torch.zeros((2, networks, HISTOGRAM_BINS), dtype=torch.int64, device=device.torch)
        return PairHistograms(q, c)


def contrasts(
    device: Device, products: Any, units: Any, width: float, dtype: Any, histograms: PairHistograms | None = None
) -> tuple[Any, Any, Any, Any]:
    """q over the inputs and c over their pairs: `(q_sum, q_count, c_sum, c_count)`, each (networks,) float64.

    Parameters
    ----------
    products
        (networks, inputs, inputs) float64, y^T y over the nodes, in units; entries [g, b, a] with a >= b are read.
    units
        (networks, 2) float64: of the origin (input 0) and of the differences from it. q is in units[:, 0] squared.
    width
        Number of nodes in the products.
    dtype
        What y was computed in: lengths below its rounding are 0.
    """
    networks, inputs = products.shape[:2]
    lengths = torch.empty((networks, inputs, 4), dtype=torch.float64, device=device.torch)
    rows = torch.empty((networks, inputs), dtype=torch.float64, device=device.torch)
    sums = torch.empty((networks, 4), dtype=torch.float64, device=device.torch)
    device.call(
        "contrasts" + _SUFFIX[dtype],
        networks,
        inputs,
        float(width),
        pointer(products, torch.float64, networks, inputs, inputs),
        pointer(units, torch.float64, networks, 2),
        lengths.data_ptr(),
        rows.data_ptr(),
        sums.data_ptr(),
        *_bins(histograms, networks),
    )
    q_sum, q_count, c_sum, c_count = sums.unbind(1)
    return q_sum, q_count, c_sum, c_count


def _bins(histograms: PairHistograms | None, networks: int) -> tuple[int, int]:
    if histograms is None:
        return 0, 0
    shape = (networks, HISTOGRAM_BINS)
    return pointer(histograms.q, torch.int64, *shape), pointer(histograms.c, torch.int64, *shape)


def random_labels(
    device: Device, seed: int, network: int, first: int, count: int, classes: int, *, networks: int = 1
) -> Any:
    """Labels of the inputs numbered from `first`, for networks from `network` on: (networks, count) int32."""
    labels = torch.empty((networks, count), dtype=torch.int32, device=device.torch)
    device.call("random_labels", seed, network, 0, _LABELS, networks, first, count, classes, labels.data_ptr())
    return labels


def loss_gradient(device: Device, logits: Any, labels: Any, loss: str, dtype: Any) -> tuple[Any, Any]:
    """dLoss_a / dlogit_k as `(delta, exponent)`: delta times 2^exponent, one exponent for each input.

    Parameters
    ----------
    logits
        (networks, inputs, classes) float64, absolute. Only its shape counts where the loss is a read-out.
    labels
        (networks, inputs) int32, from 0 to classes - 1; None for a read-out.
    loss
        `cross_entropy`: softmax - one-hot, without cancellation where the label's probability is next to one;
        `readout`: one.
    dtype
        Of delta, (networks, inputs, classes); exponent is (networks, inputs) int32.
    """
    networks, inputs, classes = logits.shape
    exponent = torch.zeros((networks, inputs), dtype=torch.int32, device=device.torch)
    if loss == "readout":
        return torch.ones(logits.shape, dtype=dtype, device=device.torch), exponent
    delta = torch.empty(logits.shape, dtype=dtype, device=device.torch)
    device.call(
        "cross_entropy_gradient" + _SUFFIX[dtype],
        networks * inputs,
        classes,
        pointer(logits, torch.float64, networks, inputs, classes),
        pointer(labels, torch.int32, networks, inputs),
        delta.data_ptr(),
        exponent.data_ptr(),
    )
    return delta, exponent


def guess_classes(logits: Any) -> Any:
    """The class of the largest of the last axis, the first of equals, int32; -1 where one is nan."""
    guess = logits.argmax(-1)
    return torch.where(logits.isnan().any(-1), -1, guess).to(torch.int32)
