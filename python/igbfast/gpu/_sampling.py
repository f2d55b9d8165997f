"""The random numbers of the networks, made on the GPU: the same functions of the same counters as on the CPU.

Tensors of a batch have a slice g for each of its networks, which are those from `id.network` on.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import torch

from .. import _checks
from . import _device
from ._device import Device, pointer
from ._layout import Slab

LAWS = ("gaussian", "uniform", "rademacher")
"""The laws of weights that are independent, so that any block of a matrix can be drawn by itself."""

SUFFIXES = {torch.float32: "f32", torch.float64: "f64", torch.bfloat16: "bf16"}
"""How the name of a kernel's instance for numbers of a type ends."""

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}

ROWS = 1 << 32
COLUMNS = {"float32": 1 << 34, "float64": 1 << 33, "bfloat16": 1 << 34}  # counters times the numbers that one makes


class Stream(IntEnum):
    """What an array of random numbers is for."""

    WEIGHTS = 0
    BIASES = 1
    GRAM = 2
    INPUTS = 3
    FRESH = 4
    LABELS = 5


class StreamId(NamedTuple):
    """What random numbers depend on, besides row and column."""

    seed: int
    network: int
    layer: int
    stream: int


def weights(
    law: str,
    *,
    seed: int,
    network: int = 0,
    layer: int = 1,
    rows: int,
    columns: int,
    first_row: int = 0,
    first_column: int = 0,
    dtype: str = "float32",
    device: object = "cuda",
) -> Any:
    """A block of the weights of one layer of one simulated network, drawn on the GPU.

    These are the weights, before their scale, that a simulation by the direct method draws for the same seed, network
    and layer: number (i, j) depends on these and on i and j alone, so that a matrix can be made in any pieces, in any
    order, on any device. The weights of the layer itself are ``sqrt(sigma_w2 / fan_in)`` times these.

    Parameters
    ----------
    law : {"gaussian", "uniform", "rademacher"}
        The law of one weight, of mean 0 and variance 1: normal, uniform on (-sqrt(3), sqrt(3)), or -1 or 1.
    seed : int
        From 0 to 2^64 - 1.
    network : int
        Which network of the seed's ensemble, from 0 to 2^32 - 1.
    layer : int
        Which layer, from 0 to 2^24 - 1; the first hidden one is 1.
    rows, columns : int
        The shape of the block. Rows are nodes of the layer, columns those of the layer below.
    first_row, first_column : int
        Where the block begins. ``first_row + rows`` is at most 2^32, ``first_column + columns`` at most 2^34, or 2^33
        in float64.
    dtype : {"float32", "float64", "bfloat16"}
        The numbers in bfloat16 are those in float32, rounded to nearest, ties to even. float64 draws numbers of its
        own, of 52 random bits each; rademacher weights are the same in all three.
    device : str, int or torch.device
        A GPU: the first of those that it names.

    Returns
    -------
    torch.Tensor
        Of shape (rows, columns), on that GPU.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or lies outside its range.

    Examples
    --------
    >>> from igbfast import gpu
    >>> layer = {"law": "gaussian", "seed": 7, "columns": 1024, "dtype": "bfloat16"}
    >>> w = gpu.weights(**layer, rows=4096)  # doctest: +SKIP
    >>> piece = gpu.weights(**layer, first_row=4000, rows=96)  # doctest: +SKIP
    >>> bool((piece == w[4000:]).all())  # doctest: +SKIP
    True
    """
    _checks.choice("law", law, LAWS)
    _checks.choice("dtype", dtype, DTYPES)
    id = StreamId(
        _checks.integer("seed", seed, 0, 2**64 - 1),
        _checks.integer("network", network, 0, 2**32 - 1),
        _checks.integer("layer", layer, 0, 2**24 - 1),
        Stream.WEIGHTS,
    )
    first_row, rows = _part("row", first_row, rows, ROWS)
    first_column, columns = _part("column", first_column, columns, COLUMNS[dtype])
    where = _device.find(device)[0]
    out = torch.empty((1, rows, columns), dtype=DTYPES[dtype], device=where.torch)
    fill_weights(where, law, id, out, first_row=first_row, first_column=first_column)
    return out[0]


def _part(name: str, first: int, count: int, most: int) -> tuple[int, int]:
    """The range [first, first + count) of the rows or columns, of which there are `most`."""
    first = _checks.integer(f"first_{name}", first, 0, most)
    return first, _checks.integer(f"{name}s", count, 0, most - first)


def fill_weights(
    device: Device,
    law: str,
    id: StreamId,
    out: Any,
    *,
    first_row: int = 0,
    first_column: int = 0,
    rows: int | None = None,
    columns: int | None = None,
) -> None:
    """Weights of variance one into out[:, :rows, :columns]; `out` is (networks, rows or more, columns or more).

    Rows of `out` have to be contiguous, and nothing more: it may be a part of a larger tensor.
    """
    networks, most_rows, most_columns = out.shape
    rows = most_rows if rows is None else rows
    columns = most_columns if columns is None else columns
    if not (0 <= rows <= most_rows and 0 <= columns <= most_columns):
        raise ValueError(f"rows and columns must be at most {tuple(out.shape[1:])}, got {rows} and {columns}")
    between, ld, one = out.stride()
    if one != 1 and most_columns > 1:
        raise TypeError(f"the rows of out must be contiguous, got strides {out.stride()}")
    block = (first_row, rows, first_column, columns)
    device.call(f"fill_weights_{SUFFIXES[out.dtype]}", law, *id, *block, networks, between, ld, out.data_ptr())


def fill_nodes(device: Device, id: StreamId, slab: Slab, rows: int, tile: Any) -> None:
    """Normals of the nodes of a slab: column a of the tile (networks, rows, slab.rows) is row a of the stream.

    Padding becomes 0.
    """
    networks = tile.shape[0]
    address = pointer(tile, tile.dtype, -1, rows, slab.rows)
    device.call(f"fill_nodes_{SUFFIXES[tile.dtype]}", *id, networks, rows, *slab.ints, address)


def add_bias(device: Device, id: StreamId, scale: Any, slab: Slab, tile: Any) -> None:
    """tile[g, 0, i] += scale[g] * normal of node i; `scale` (networks,) is float64, on the device."""
    networks, columns = tile.shape[:2]
    addresses = pointer(scale, torch.float64, networks), pointer(tile, tile.dtype, networks, columns, slab.rows)
    name = f"add_bias_{SUFFIXES[tile.dtype]}"
    device.call(name, *id, addresses[0], networks, columns, *slab.ints, addresses[1])


def load_inputs(device: Device, given: Any, origin: Any, begin: int, count: int, out: Any) -> None:
    """Inputs [begin, begin + count) of `given` as a tile: column 0 the origin, the others differences from it.

    `given` is (inputs, features) in float32 or float64, `origin` (features,) in float64; `out` (networks, count + 1,
    features or more), the same for all networks. What is beyond the features becomes 0.
    """
    inputs, features = given.shape
    if not 0 <= begin <= begin + count <= inputs:
        raise ValueError(f"begin and begin + count must be from 0 to {inputs}, got {begin} and {begin + count}")
    networks, _, ld = _inputs_shape(out, features)
    source = pointer(given, given.dtype, -1, -1) + begin * features * given.element_size()
    name = f"load_{SUFFIXES[given.dtype]}_inputs_{SUFFIXES[out.dtype]}"
    shape = (networks, count + 1, features, ld)
    device.call(
        name, source, pointer(origin, torch.float64, features), *shape, pointer(out, out.dtype, -1, count + 1, -1)
    )


def gaussian_inputs(device: Device, seed: int, network: int, first: int, features: int, out: Any) -> None:
    """Standard Gaussian inputs as tiles (networks, columns, features or more): column 0 is input 0 of each network.

    The other columns are the differences of inputs first, first + 1, ... from it. What is beyond the features becomes
    0.
    """
    id = StreamId(seed, network, 0, Stream.INPUTS)
    shape = _inputs_shape(out, features)
    networks, columns, ld = shape
    address = pointer(out, out.dtype, *shape)
    device.call(f"gaussian_inputs_{SUFFIXES[out.dtype]}", *id, first, networks, columns, features, ld, address)


def _inputs_shape(out: Any, features: int) -> tuple[int, int, int]:
    networks, columns, ld = out.shape
    if ld < features:
        raise ValueError(f"out must have room for {features} features, got {ld}")
    return networks, columns, ld
