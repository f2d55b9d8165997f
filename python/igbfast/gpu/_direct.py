"""What forward_direct.py and backward_direct.py share: sizes and memory, the weights of a layer and their products, and
what a layer has shown so far. The twin of csrc/cpu/direct.h."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from .._inputs import Gaussian
from ..simulation import Request
from ._device import Device
from ._estimates import BINS
from ._haar import apply_haar, haar_numbers
from ._layout import UNIT, Slab, padded, whole_layer
from ._sampling import DTYPES, Stream, StreamId, fill_weights

_DOUBLE = 8  # bytes
_BLOCK = 1 << 21  # numbers that are converted to float64 at a time: small enough for the cache
_PIECES = 1 << 27  # bytes of the inputs that come at a time, and of those before
_BLOCKS = 8  # of such arrays, at most, at once


@dataclass(frozen=True)
class Limits:
    """How much goes through at once, where the memory has room for it."""

    columns: int = 16384
    """Inputs, the first of all included, which goes with every chunk: each chunk draws all weights again, which is then
    little beside the product, on tensor cores as well."""
    compared: int = 1024
    """The same with `distributions`, whose pairs are those of a chunk: as on the CPU."""
    group: int = 256
    """Networks."""
    work: int = 1 << 22
    """Activations or weights of a layer that keep a device busy: networks of fewer go through in batches."""
    weights: int = 1 << 29
    """Bytes of weights that are drawn for one product."""


@dataclass(frozen=True)
class Plan:
    """The sizes of a run.

    Sums of floating point numbers depend on all of them, by the order of their terms and by the way that libraries
    choose for a shape. So what is asked of a network, and the size of the device's memory, set them, not the other
    networks: a batch always has `group` networks, filled up with such as nobody has asked for.
    """

    group: int
    """Networks that go through together."""
    columns: int
    """The most inputs that do, the first of all included."""
    weights: int
    """Bytes of weights that are drawn at a time."""

    @classmethod
    def of(cls, request: Request, inputs: int | None, total: int, free: int, limits: Limits) -> Plan:
        """For so many inputs; None: they come in pieces, and the records of all networks are kept.

        Sizes are those that fit into half of the `total` memory; only where less is `free`, or not even the smallest
        fit there, are they those that fit into what is free.
        """
        most = limits.compared if request.distributions else limits.columns
        columns = most if inputs is None else min(most, inputs)
        layer = request.width * max(columns, *_fan_ins(request))
        wanted = cls(max(1, min(limits.group, limits.work // layer)), columns, limits.weights)
        of_one = replace(request, networks=1)
        fitting = (plan for plan in wanted._smaller(request) if plan.need(of_one, inputs) <= total // 2)
        for plan in next(fitting, wanted)._smaller(request):
            if plan.need(request, inputs) <= free:
                return plan
        need = plan.need(request, inputs)
        raise MemoryError(f"a network of width {request.width} takes {need} bytes, but {free} are free")

    def need(self, request: Request, inputs: int | None) -> int:
        """Bytes of a batch, and of what is kept of all networks."""
        return _bytes(request, self) + _kept_bytes(request, inputs, self)

    def _smaller(self, request: Request) -> Iterator[Plan]:
        """This one, and smaller ones down to the smallest: first what costs least."""
        plan, least = self, _least_weights(request)
        steps = ("group", 1), ("weights", max(self.weights // 8, least)), ("columns", 2), ("weights", least)
        yield plan
        for name, fewest in steps:
            while getattr(plan, name) > fewest:
                plan = replace(plan, **{name: max(getattr(plan, name) // 2, fewest)})
                yield plan


def least_memory(request: Request) -> int:
    """Bytes on the device that a run takes at least, network by network; besides inputs that are given as a whole.

    Examples
    --------
    >>> from igbfast import Ensemble
    >>> from igbfast.simulation import checked
    >>> request = checked(Ensemble("relu", sigma_w2=2.0), 10_000, 100, 100, 1, 0, "direct", "float32")
    >>> least_memory(request) < 200e6
    True
    """
    inputs = None if request.in_pieces else request.count
    return Plan(1, 2, _least_weights(request)).need(request, inputs)


def keeps_layers(request: Request, inputs: int | None, columns: int) -> bool:
    """Whether records of all layers stay until the end; else each is done with before the next layer begins."""
    return inputs is None or inputs > columns or request.gradients is not None or request.distributions


def _element(request: Request) -> int:
    return 4 if request.dtype == "float32" else 8


def _least_weights(request: Request) -> int:
    return UNIT * padded(max(_fan_ins(request))) * _element(request)


def _fan_ins(request: Request) -> tuple[int, int]:
    return request.features, pools_of(request)


def _record_bytes(request: Request) -> int:
    """What is kept of one layer of one network, whatever its inputs."""
    return _DOUBLE * 7 * request.width


def _kept_bytes(request: Request, inputs: int | None, plan: Plan) -> int:
    """The records of all layers that are kept; of all networks, where inputs come in pieces, and those pieces."""
    layers = request.depth if keeps_layers(request, inputs, plan.columns) else 1
    batches = math.ceil(request.networks / plan.group) if inputs is None else 1
    return batches * plan.group * layers * _record_bytes(request) + (_PIECES if inputs is None else 0)


def _bytes(request: Request, plan: Plan) -> int:
    """What networks in flight take."""
    group, columns = plan.group, plan.columns
    rows, element = whole_layer(members_of(request), pools_of(request)).rows, _element(request)
    outputs = padded(outputs_of(request))
    # Tiles: pre-activations and activations, of the members' shares and slopes where a pool needs them.
    tiles = 2.0 + (2.0 if request.ens.pool is not None else 0.0)
    if request.gradients is not None:
        tiles += request.depth + 3.0 + (1.0 if request.ens.layernorm else 0.0)
    column = tiles * rows * element + (element + 3 * _DOUBLE) * outputs + 32 * _DOUBLE
    column += (1 if isinstance(request.inputs, Gaussian) else 1 / group) * request.features * element
    network = column * columns
    if request.ens.weights == "orthogonal":
        order = padded(max(request.width, request.features))
        network += (columns * order + haar_numbers(order, columns)) * element
    blocks = _BLOCKS * max(_BLOCK, min(UNIT, request.width) * group * columns)
    if request.distributions:
        network += _DOUBLE * (columns**2 + 2 * BINS)
        blocks += _BLOCKS * columns**2
    weights = max(plan.weights, group * _least_weights(request))
    return int(group * network + 2 * weights + _DOUBLE * blocks)


# ---- Sizes of a request ----------------------------------------------------------------------------------------------


def members_of(request: Request) -> int:
    """Nodes that make a pool."""
    return 1 if request.ens.pool is None else int(request.ens.pool.size)


def pools_of(request: Request) -> int:
    """Activations of a layer."""
    return request.width // members_of(request)


def outputs_of(request: Request) -> int:
    """Nodes of the head."""
    return 1 if request.gradients == "readout" else request.classes


def residual_of(request: Request) -> float:
    """The branch ratio; 0 for a plain network."""
    return request.ens.residual or 0.0


def dtype_of(request: Request) -> Any:
    """The arithmetic of the layers."""
    return DTYPES[request.dtype]


# ---- Tiles -----------------------------------------------------------------------------------------------------------


def empty_tile(device: Device, networks: int, columns: int, slab: Slab, dtype: Any) -> Any:
    """A tile without values, but zeros in the rows that pad it."""
    tile = torch.empty(networks, columns, slab.rows, dtype=dtype, device=device.torch)
    by_member(slab, tile)[..., slab.nodes :] = 0
    return tile


def by_member(slab: Slab, tile: Any) -> Any:
    """The tile, or what there is of each of its rows, with its last dimension taken apart: (..., members, member)."""
    return tile.unflatten(-1, (slab.members, slab.member))


def of_nodes(slab: Slab, rows: Any) -> Any:
    """What belongs to nodes, as the caller numbers them, without the padding."""
    return by_member(slab, rows)[..., : slab.nodes].flatten(-2)


def in_double(slab: Slab, *tiles: Any) -> Iterator[tuple[slice, slice, list[Any]]]:
    """Some of the nodes at a time: which of the caller's, which rows, and their values in float64, to be read only."""
    step = max(UNIT, _BLOCK // (tiles[0].shape[0] * tiles[0].shape[1]))
    for member in range(slab.members):
        for begin in range(0, slab.nodes, step):
            count = min(step, slab.nodes - begin)
            node, row = member * slab.nodes + begin, member * slab.member + begin
            rows = slice(row, row + count)
            yield slice(node, node + count), rows, [tile[:, :, rows].double() for tile in tiles]


def by_column(pair: Any, columns: int, dtype: Any) -> Any:
    """(networks, columns, 1): the first of each network's two numbers for column 0, the second for the others."""
    return torch.cat([pair[:, :1], pair[:, 1:].expand(-1, columns - 1)], 1).to(dtype)[:, :, None]


# ---- A run ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """What does not change while inputs come."""

    request: Request
    device: Device
    nonlinearity: Any
    products: str
    first_network: int
    plan: Plan
    slab: Slab
    """Of a whole layer."""

    @property
    def dtype(self) -> Any:
        return dtype_of(self.request)

    def weights(self, layer: int, network: int) -> Weights:
        """Of a batch of networks from number `network` of the run on."""
        number = self.first_network + network
        return Weights(self.device, self.request, layer, number, self.products, self.plan.weights)

    def stream(self, network: int, layer: int, stream: Stream) -> StreamId:
        """Random numbers of that batch."""
        return StreamId(self.request.seed, self.first_network + network, layer, stream)


@dataclass
class LayerInFlight:
    """The pre-activations of one layer of a batch, and what is needed to go back through it."""

    y: Any
    units: Any
    out: Any
    """Units of x."""
    norm: Any


# ---- Weights ---------------------------------------------------------------------------------------------------------


def add_product(out: Any, a: Any, b: Any, alpha: float, add: bool) -> None:
    """out = [out +] alpha a b, for every network, in place.

    Products of bfloat16 numbers are exact in float32, and have to be summed there: in eight bits a sum of thousands of
    terms, or of the partial sums of tiles, would lose all but its leading digits. PyTorch from 2.8 on asks cuBLAS for
    that; before, the same numbers are multiplied as float32, which with the switch for TF32 is exact, too, and half as
    fast.
    """
    beta = 1.0 if add else 0.0
    if a.dtype == torch.bfloat16 and out.is_cuda and "dtype_out" in torch.ops.aten.baddbmm.overloads():
        torch.baddbmm(out, a, b, torch.float32, beta=beta, alpha=alpha, out=out)
        return
    out.baddbmm_(a.to(out.dtype), b.to(out.dtype), beta=beta, alpha=alpha)


@dataclass(frozen=True)
class Weights:
    """One layer's weights of a batch of networks, drawn some rows at a time whenever they multiply something."""

    device: Device
    request: Request
    layer: int
    network: int
    """The first of the batch, as random numbers know it."""
    products: str
    most: int
    """Bytes that are drawn at a time."""

    @property
    def is_head(self) -> bool:
        return self.layer > self.request.depth

    @property
    def law(self) -> str:
        return "gaussian" if self.is_head else self.request.ens.weights

    @property
    def rows(self) -> int:
        return outputs_of(self.request) if self.is_head else self.request.width

    @property
    def columns(self) -> int:
        return self.request.features if self.layer == 1 else pools_of(self.request)

    @property
    def order(self) -> int:
        """Of the orthogonal matrix that the weights are a part of."""
        return max(self.rows, self.columns)

    @property
    def scale(self) -> float:
        """Of the random numbers."""
        share = self.order if self.law == "orthogonal" else 1
        return math.sqrt(self.request.ens.sigma_w2 * share / self.columns)

    def multiply(self, x: Any, factor: float, slab: Slab, y: Any, add: bool) -> None:
        """y = [y +] factor W x; x (networks or 1, columns, fan-in), y a tile."""
        scale = factor * self.scale
        if self.law == "orthogonal":
            whole = self._rotated(x, False, len(y))
            for member in range(slab.members):
                rows = _rows(slab, member, 0, slab.nodes)
                part = whole[:, :, member * slab.nodes : (member + 1) * slab.nodes]
                y[:, :, rows].add_(part, alpha=scale) if add else torch.mul(part, scale, out=y[:, :, rows])
            return
        x = x.to(self._dtype).expand(len(y), -1, -1)
        for rows, weights in self._tiles(slab, len(y)):
            add_product(y[:, :, rows], x, weights.transpose(1, 2), scale, add)

    def multiply_back(self, delta: Any, factor: float, slab: Slab) -> Any:
        """factor W^T delta, (networks, columns, fan-in); delta a tile."""
        networks, columns, _ = delta.shape
        scale = factor * self.scale
        if self.law == "orthogonal":
            return self._rotated(of_nodes(slab, delta), True, networks)[:, :, : self.columns].mul_(scale)
        back = torch.empty(networks, columns, padded(self.columns), dtype=delta.dtype, device=delta.device)
        back = back[:, :, : self.columns]
        delta = delta.to(self._dtype)
        for number, (rows, weights) in enumerate(self._tiles(slab, networks)):
            add_product(back, delta[:, :, rows], weights, scale, number > 0)
        return back

    @property
    def _dtype(self) -> Any:
        return torch.bfloat16 if self.products == "bfloat16" else dtype_of(self.request)

    @property
    def _stream(self) -> StreamId:
        return StreamId(self.request.seed, self.network, self.layer, Stream.WEIGHTS)

    def _tiles(self, slab: Slab, networks: int) -> Iterator[tuple[slice, Any]]:
        """Rows of a tile, and the weights (networks, rows, fan-in) of their nodes; each is gone with the next."""
        ld = padded(self.columns)
        one = networks * ld * self._dtype.itemsize
        step = min(slab.nodes, max(1, self.most // one // UNIT) * UNIT)
        memory = torch.empty(networks, step, ld, dtype=self._dtype, device=self.device.torch)
        for member in range(slab.members):
            for begin in range(0, slab.nodes, step):
                count = min(step, slab.nodes - begin)
                weights = memory[:, :count, : self.columns]
                fill_weights(self.device, self.law, self._stream, weights, first_row=member * slab.nodes + begin)
                yield _rows(slab, member, begin, count), weights

    def _rotated(self, x: Any, transposed: bool, networks: int) -> Any:
        """Q x, or Q^T x, for x that zeros fill up to the order of Q."""
        shape = (networks, x.shape[1], padded(self.order))
        whole = torch.zeros(shape, dtype=dtype_of(self.request), device=x.device)[:, :, : self.order]
        whole[:, :, : x.shape[2]] = x
        apply_haar(self.device, self._stream, whole, self.columns, transposed)
        return whole


def _rows(slab: Slab, member: int, begin: int, count: int) -> slice:
    first = member * slab.member + begin
    return slice(first, first + count)


# ---- What a layer has shown ------------------------------------------------------------------------------------------


class SparseCounts:
    """Histograms of a batch of networks, of their bins that are not empty: on the host, for as long as inputs come."""

    def __init__(self) -> None:
        self.keys = np.empty(0, np.int64)
        """network * BINS + bin, ascending."""
        self.counts = np.empty(0, np.int64)

    def add(self, counts: Any) -> None:
        """Those of (networks, BINS) on the device."""
        flat = counts.flatten()
        where = flat.nonzero()[:, 0]
        keys = np.concatenate([self.keys, where.cpu().numpy()])
        values = np.concatenate([self.counts, flat[where].cpu().numpy()])
        self.keys, index = np.unique(keys, return_inverse=True)
        self.counts = np.zeros(len(self.keys), np.int64)
        np.add.at(self.counts, index, values)


@dataclass
class LayerRecord:
    """Of a batch of networks, in the chunks so far: float64 tensors (network,) or (network, node) on the device, in
    absolute units but for the gradients."""

    origin: Any
    mean: Any
    """Over the inputs, of the difference from the origin."""
    m2: Any
    """Sum of squared deviations from that mean."""
    direction: Any
    """Sum over the inputs a of y_ia / |y_a|."""
    slope2: Any
    """By pool, summed over the inputs."""
    q_sum: Any
    directions: Any
    """Number of inputs that are not zero."""
    digits_kept: Any
    units: Any = None
    """Of the last chunk."""
    inputs: int = 0
    gradient2: Any = None
    """By node, summed over the inputs, times 4^-gradient_exponent."""
    gradient_exponent: Any = None
    counts: dict[str, SparseCounts] = field(default_factory=dict)
    """Of mu, var, q and 1 - c, with `distributions`."""

    @classmethod
    def empty(cls, request: Request, networks: int, device: Device) -> LayerRecord:
        """Before the first chunk."""

        def zeros(*shape: int) -> Any:
            return torch.zeros(networks, *shape, dtype=torch.float64, device=device.torch)

        width = request.width
        return cls(
            origin=zeros(width),
            mean=zeros(width),
            m2=zeros(width),
            direction=zeros(width),
            slope2=zeros(pools_of(request)),
            q_sum=zeros(),
            directions=zeros(),
            digits_kept=torch.ones(networks, dtype=torch.bool, device=device.torch),
            counts={name: SparseCounts() for name in ("mu", "var", "q", "c")} if request.distributions else {},
        )

    def merge(self, inputs: int, mean: Any, m2: Any) -> None:
        """The differences of further inputs, by the update of Chan, Golub and LeVeque (1979)."""
        total = self.inputs + inputs
        delta = mean - self.mean
        self.mean += delta * (inputs / total)
        self.m2 += m2 + delta.square() * (self.inputs * (inputs / total))
        self.inputs = total
