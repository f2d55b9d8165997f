"""What the two halves of the Gram engine share (csrc/cpu/gram.h): forward_gram draws layers, backward_gram goes back.

Tensors are batched over G networks. Nothing as long as the network is wide is kept, unless the network is residual or
has a norm over its nodes: the way back draws the same nodes again from the same counters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from .. import _core
from ..simulation import Request
from . import _factor, _gram, _layer, _sampling
from ._device import Device
from ._layout import Slab, padded, slabs
from ._products import Products
from ._sampling import Stream, StreamId

_FEATURES = 4096  # of given inputs, in float64 at once


@dataclass
class GramLayer:
    """The law of one layer's pre-activations, once it is known, and what the way back wants to know of its x."""

    factor: _factor.Factor
    """L L^T = (sigma_w2 / fan_in) x^T x, of the activations below."""
    draw: Any
    """y = draw Z + b, Z (inputs x nodes) standard normal: L, or for orthogonal weights sqrt(order) L C^-1."""
    units: Any
    """Of y."""
    frame: Any = None
    """Orthogonal weights: C C^T = Z Z^T, of the rows that L has columns for."""
    out: Any = None
    """Units of x."""
    norm: Any = None
    fresh: Any = None
    """x^T E (inputs x rows of E), E standard normal."""
    fresh_squares: Any = None
    """E E^T, for orthogonal weights."""


@dataclass
class GramState:
    """What goes from layer to layer of G networks."""

    first: int
    """Number of the first network, within the request."""
    networks: int
    products: Any
    """x^T x of the last activations, (G, n, n) float64, in their units."""
    units: Any
    """Of the last activations, (G, 2)."""
    fine: list[bool]
    """Products are float64 from the first: some inputs are nearly the same."""
    beyond: Any
    """Whether some node has left the range of phi's table, on the device."""
    pairs: Any = None
    """y^T y."""
    column_sums: Any = None
    """Of y over the nodes."""
    y_units: Any = None
    y_origin: Any = None
    y_difference: Any = None
    """Mean squares of y in those units."""
    layers: list[GramLayer] = field(default_factory=list)
    """All of them if there is a way back, else the last one."""
    held: list[list[Any]] = field(default_factory=list)
    """y of those layers, slab by slab, where a layer needs more than its own nodes."""
    head_normals: Any = None
    logits: Any = None
    labels: Any = None


class GramRun:
    """The fixed facts of one run on one device."""

    def __init__(
        self, request: Request, phi: _core.Phi, device: Device, kind: str, nodes: int, first_network: int
    ) -> None:
        settings = request.core_settings
        self.request, self.device, self.first_network = request, device, first_network
        self.seed, self.width, self.depth, self.inputs = request.seed, request.width, request.depth, request.count
        self.sigma_w2, self.sigma_b2 = float(settings["sigma_w2"]), float(settings["sigma_b2"])
        self.residual, self.layernorm = float(settings["residual"]), bool(settings["layernorm"])
        self.loss = request.gradients
        self.dtype = torch.float32 if request.dtype == "float32" else torch.float64
        self.members = int(settings["pool_size"])
        self.pools = self.width // self.members
        self.outputs = 1 if self.loss == "readout" else request.classes
        self.back, self.held = self.loss is not None, holds_layers(request)
        self.orthogonal = settings["weights"] == "orthogonal"
        self.slabs = slabs(self.members, self.pools, nodes)
        self.nonlinearity = _layer.Nonlinearity(device, phi, str(settings["pool"]))
        on_host = device.torch.type == "cpu"
        self.products = Products.of(kind, self.inputs, self.width, on_host)
        self.exact = Products.of("full", self.inputs, self.width, on_host)
        # The kernel that makes normals and transforms them at once multiplies in full precision.
        self.fused = kind == "full" or self.dtype == torch.float64

    def fan_in(self, layer: int) -> int:
        """Of layers 1 .. depth + 1."""
        return self.request.features if layer == 1 else self.pools

    def gain(self, layer: int) -> float:
        """Variance of one weight."""
        return self.sigma_w2 / self.fan_in(layer)

    def order(self, layer: int) -> int:
        """Of an orthogonal matrix."""
        return max(self.width, self.fan_in(layer))

    def fresh_rows(self, layer: int) -> int:
        """How many directions of what is above the layer's gradients may have."""
        return self.outputs if layer == self.depth else self.inputs

    def fresh_is_orthogonal(self, layer: int) -> bool:
        """The head is Gaussian always."""
        return self.orthogonal and layer < self.depth

    def branch(self, layer: int) -> bool:
        """Whether y of this layer has that of the layer below added to it."""
        return self.residual > 0.0 and 1 < layer <= self.depth

    @property
    def steps(self) -> int:
        """Layers that are worked on, for each group of networks."""
        return self.depth * (2 if self.back else 1)

    def stream(self, state: GramState, layer: int, stream: Stream) -> StreamId:
        """What the random numbers of the batch depend on."""
        return StreamId(self.seed, (self.first_network + state.first) % 2**32, layer, stream)

    def empty(self, state: GramState, rows: int, slab: Slab) -> Any:
        """A tile."""
        return torch.empty(state.networks, rows, slab.rows, dtype=self.dtype, device=self.device.torch)

    def normals(self, state: GramState, layer: int, stream: Stream, slab: Slab, rows: int) -> Any:
        """Standard normals of the slab, row by row of the stream."""
        tile = self.empty(state, rows, slab)
        _sampling.fill_nodes(self.device, self.stream(state, layer, stream), slab, rows, tile)
        return tile

    def draw(self, state: GramState, now: GramLayer, layer: int, slab: Slab) -> tuple[Any, Any]:
        """W x + b of a slab, and the normals it is made of where there is a way back.

        That draws the nodes again and must find the same bits: L is made of them, down to the rounding of x, and
        s x L^-T is orthonormal for no other x.
        """
        normals = None
        if self.back or not self.fused:
            normals = self.normals(state, layer, Stream.GRAM, slab, self.inputs)
            tile = self.products.multiply(now.draw, normals)
        else:
            tile = self.empty(state, self.inputs, slab)
            triangular = now.factor.triangular and not self.orthogonal
            _gram.draw_rows(self.device, self.stream(state, layer, Stream.GRAM), slab, now.draw, triangular, tile)
        self.add_bias(state, now, layer, slab, tile)
        return tile, normals

    def add_bias(self, state: GramState, now: GramLayer, layer: int, slab: Slab, tile: Any) -> None:
        """To the origin."""
        if self.sigma_b2 > 0.0:
            scale = math.sqrt(self.sigma_b2) / now.units[:, 0]
            _sampling.add_bias(self.device, self.stream(state, layer, Stream.BIASES), scale, slab, tile)

    def over_nodes(self, slab: Slab, left: Any, right: Any, members: int, *, fine: list[bool] | None = None) -> Any:
        """left @ right^T over the nodes of the first `members` members: (G, m, n) float64."""
        networks = left.shape[0]
        total = torch.zeros(networks, left.shape[1], right.shape[1], dtype=torch.float64, device=left.device)
        wide = fine if fine is not None else [False] * networks
        for member in range(members):
            rows = slice(member * slab.member, member * slab.member + slab.nodes)
            a = left[:, :, rows]
            b = a if right is left else right[:, :, rows]
            for how in (True, False):
                which = [g for g in range(networks) if wide[g] is how]
                if len(which) == networks:
                    total += self.products.over_nodes(a, b, which, wide=how)
                elif which:
                    total[which] += self.products.over_nodes(a, b, which, wide=how)
        return total

    def sums(self, values: Any) -> Any:
        """Over the last dimension, in float64."""
        return self.products.sums(values)

    @cached_property
    def given_products(self) -> Any:
        """x^T x of inputs that are given, (1, n, n) float64, as they are in the arithmetic of the layers."""
        inputs = self.request.inputs.tensor(self.device)  # type: ignore[union-attr]
        total = torch.zeros(1, self.inputs, self.inputs, dtype=torch.float64, device=inputs.device)
        for begin in range(0, inputs.shape[1], _FEATURES):
            x = inputs[:, begin : begin + _FEATURES].to(torch.float64, copy=True)
            x[1:] -= x[:1].clone()
            x = x.to(self.dtype).double()
            total += x @ x.mT
        return total

    def activate(self, now: GramLayer, slab: Slab, tile: Any, with_slopes: bool) -> Any:
        """x of a slab in place of y."""
        return _layer.apply_nonlinearity(self.nonlinearity, slab, tile, now.norm, now.units, now.out, with_slopes)


def holds_layers(request: Request) -> bool:
    """Whether a layer needs more than its own nodes."""
    return bool(request.core_settings["residual"]) or bool(request.core_settings["layernorm"])


def first_member(slab: Slab) -> Slab:
    """The slab's nodes that are there once pools are taken."""
    return Slab(1, slab.nodes, slab.member, slab.first, slab.stride)


def few_nodes(nodes: int, first: int = 0) -> Slab:
    """Nodes outside the layers' pools, such as the head's."""
    return Slab(1, nodes, padded(nodes), first, padded(nodes))
