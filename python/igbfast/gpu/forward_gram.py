"""Forward through the Gram matrix of the activations: the twin of csrc/cpu/forward_gram.cpp.

Given x^(l-1) (nodes x inputs), the rows of W x^(l-1) are i.i.d. N(0, K), K = sigma_w2 x^T x / fan_in. So a layer is
drawn as y = Z L^T + b, L L^T = K, Z (width x inputs) standard normal, slab of nodes by slab of nodes: a plain network
of any width fits. Networks go through together, as many as there is memory for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .. import _core
from .._inputs import Gaussian
from .._memory import gib
from .._progress import Step
from ..simulation import Request
from . import _estimates, _factor, _gram, _layer
from ._device import Device
from ._gram_run import GramLayer, GramRun, GramState, few_nodes, first_member, holds_layers
from ._layout import UNIT, padded, slabs
from ._sampling import Stream
from .backward_gram import backward_gram

_WORKSPACE = 1 << 28  # of libraries, and of products of blocks
_SPARE = 0.9  # of the free memory is used: allocators leave gaps
_LEAST_NODES = 256  # of a slab
_MOST_NETWORKS = 4096  # at once: more of them make nothing faster, and kernels have blocks for some ten thousand


@dataclass(frozen=True)
class Plan:
    """How much is done at once."""

    group: int
    """Networks."""
    nodes: int
    """Of each member of the pools, in a slab."""


def forward_gram(
    request: Request,
    phi: _core.Phi,
    device: Device,
    networks: int,
    products: str,
    step: Step,
    first_network: int = 0,
    plan: Plan | None = None,
) -> dict[str, Any]:
    """What `_core.simulate` returns, for networks from `first_network` on; once phi's table is left, only that it was.

    Parameters
    ----------
    products : {"full", "tf32", "bfloat16"}
        How float32 matrices as long as the network is wide are multiplied: see `_products.Products`. With bfloat16 q,
        chi and sigma_y2 of a network were off by up to 1 %, sigma_mu2 and gamma by 2 % (depth 8, width 400, 8 inputs);
        numbers of TF32 have three bits more.
    step : callable
        Told the done fraction once a layer; what it raises ends the run.
    plan : Plan, optional
        Else as much as fits into the free memory.

    Raises
    ------
    ValueError
        If not even a single network fits.
    """
    plan = plan or plan_of(request, device, networks)
    run = GramRun(request, phi, device, products, plan.nodes, first_network)
    parts = []
    for first in range(0, networks, plan.group):
        count = min(plan.group, networks - first)
        parts.append(GramForward(run, first, count, _part_of(step, first / networks, count / networks)).all())
        if parts[-1]["beyond_table"]:
            return parts[-1]
    return _estimates.joined(parts)


def _part_of(step: Step, begin: float, share: float) -> Step:
    """The step of a group of networks."""
    return lambda done: step(begin + share * done)


class _BeyondTableError(Exception):
    """Some node left the range of phi's table: nothing that follows means anything."""


class GramForward:
    """A group of networks on its way through the layers."""

    def __init__(self, run: GramRun, first: int, networks: int, step: Step) -> None:
        self.run, self.request, self.step, self.done = run, run.request, step, 0
        double = {"dtype": torch.float64, "device": run.device.torch}
        self.state = GramState(
            first=first,
            networks=networks,
            products=torch.zeros(networks, run.inputs, run.inputs, **double),
            units=torch.ones(networks, 2, **double),
            fine=[True] * networks,
            beyond=torch.zeros(1, **double),
        )
        self.sums = _estimates.LayerSums()
        self.counts = _estimates.Counts(networks, run.device.torch, first) if self.request.distributions else None
        self.result: dict[str, Any] = {}
        if self.request.per_node:
            shape = (networks, run.depth, run.width)
            self.result |= {"mu": np.empty(shape), "var": np.empty(shape)}

    def all(self) -> dict[str, Any]:
        """The result of these networks."""
        try:
            self.take_inputs()
            for layer in range(1, self.run.depth + 1):
                self.run_layer(layer)
                self.advance()
            self.draw_head()
        except _BeyondTableError:
            return {"beyond_table": True}
        run = self.run
        found: dict[str, Any] = dict(
            self.sums.estimates(inputs=run.inputs, sigma_w2=run.sigma_w2, residual=run.residual)
        )
        if self.counts is not None:
            found |= self.counts.entries()
        if run.back:
            found |= backward_gram(run, self.state, self.advance)
        return found | self.result | {"beyond_table": False}

    def advance(self) -> None:
        """One more layer is on its way."""
        self.done += 1
        self.step(self.done / self.run.steps)

    def take_inputs(self) -> None:
        """x^T x of the inputs, in float64, where directions that are small count."""
        run, state = self.run, self.state
        if not isinstance(self.request.inputs, Gaussian):
            state.products = run.given_products.expand(state.networks, -1, -1).contiguous()
            return
        for slab in slabs(1, run.width, run.slabs[0].rows):
            x = run.normals(state, 0, Stream.INPUTS, slab, run.inputs)
            x[:, 1:] -= x[:, :1]
            state.products += run.over_nodes(slab, x, x, 1, fine=state.fine)

    def run_layer(self, layer: int) -> None:
        """From x^(l-1) to x^(l)."""
        run, state = self.run, self.state
        now = self.begin_layer(layer)
        if run.orthogonal:
            self.make_frame(now, layer)
        self.clear(now, layer)
        self.draw_layer(now, layer)
        if run.layernorm:
            squares = state.pairs.diagonal(dim1=1, dim2=2)
            now.norm = _layer.layer_norm(
                run.width, now.units, state.column_sums, state.pairs[:, :, 0], squares, run.dtype
            )
            now.out = now.norm.units
            for slab, y in zip(run.slabs, state.held[-1], strict=True):
                self.activate(now, layer, slab, y.clone())
        self.end_layer(now, layer)

    def set_factor(self, layer: int) -> GramLayer:
        """The law of y^(l), from the products of x^(l-1).

        Products in single precision know what an input has of its own to some 1e-7 of its variance. Where that is
        little, those of the next layer are float64 from the first, as those of the inputs are: what remains is the
        rounding of x.
        """
        run, state = self.run, self.state
        single, double = torch.finfo(run.dtype).eps, torch.finfo(torch.float64).eps
        accuracy = [max(single * single, double) if fine else single for fine in state.fine]
        ranks = [min(run.inputs, run.fan_in(layer))] * state.networks
        factor, (beyond,) = _factor.covariance_factor(state.products, run.gain(layer), accuracy, ranks, state.beyond)
        if beyond:
            raise _BeyondTableError
        state.fine = [single > double and smallest < 1e-3 for smallest in factor.smallest]
        now = GramLayer(factor, factor.lower.to(run.dtype).contiguous(), state.units)
        state.layers = [*(state.layers if run.back else []), now]
        return now

    def begin_layer(self, layer: int) -> GramLayer:
        """The law of y^(l), and the units of x^(l)."""
        run, state = self.run, self.state
        now = self.set_factor(layer)
        squares = state.products.diagonal(dim1=1, dim2=2)
        # Of what size y will be, in the units of x^(l-1): the units of x^(l), which is not far from it.
        origin = run.gain(layer) * squares[:, 0] + run.sigma_b2 / now.units[:, 0] / now.units[:, 0]
        difference = run.gain(layer) * run.sums(squares[:, 1:]) / (run.inputs - 1)
        if run.branch(layer):
            ratio = state.y_units / now.units
            origin = run.residual * origin + ratio[:, 0].square() * state.y_origin
            difference = run.residual * difference + ratio[:, 1].square() * state.y_difference
        now.out = _layer.units_near(now.units, origin, difference, run.dtype)
        return now

    def make_frame(self, now: GramLayer, layer: int) -> None:
        """Normals over all rows of an orthogonal matrix made orthonormal: y = sqrt(order) L C^-1 Z."""
        run, state = self.run, self.state
        n, order = run.inputs, run.order(layer)
        squares = torch.zeros_like(state.products)
        fine = [True] * state.networks
        for slab in run.slabs:
            z = run.normals(state, layer, Stream.GRAM, slab, n)
            squares += run.over_nodes(slab, z, z, slab.members, fine=fine)
        beyond = run.members * run.slabs[0].stride  # where the rows begin that no node reads
        for begin in range(0, order - run.width, run.slabs[0].rows):
            slab = few_nodes(min(run.slabs[0].rows, order - run.width - begin), beyond + begin)
            z = run.normals(state, layer, Stream.GRAM, slab, n)
            squares += run.over_nodes(slab, z, z, 1, fine=fine)
        factor = now.factor
        kept = _factor.columns_of(_factor.rows_of(squares, factor.columns), factor.columns)
        now.frame, safe = _factor.safe_factor(_factor.bordered(kept, factor.mask), torch.finfo(torch.float64).eps)
        solved = _factor.solve(now.frame, math.sqrt(order) * factor.leading(factor.lower.mT), transposed=True)
        # Normals that are dependent to the last digits, of as many inputs as nodes: no frame, and no number, comes of
        # them.
        solved = torch.where(safe[:, None, None], solved, math.nan).to(run.dtype)
        where = factor.columns[:, None, :].expand(-1, n, -1)
        now.draw = torch.zeros_like(now.draw).scatter_(2, where, solved.mT)

    def clear(self, now: GramLayer, layer: int) -> None:
        """Sums that the slabs of a layer add to."""
        run, state = self.run, self.state
        networks, n = state.networks, run.inputs

        def zeros(*shape: int) -> Any:
            return torch.zeros(networks, *shape, dtype=torch.float64, device=run.device.torch)

        state.products, state.pairs, state.column_sums = zeros(n, n), zeros(n, n), zeros(n)
        self.nodes, self.chi = zeros(9), zeros(3)
        if run.back:
            e = run.fresh_rows(layer)
            now.fresh = zeros(n, e)
            now.fresh_squares = zeros(e, e) if run.fresh_is_orthogonal(layer) else None
        if self.request.per_node:
            self.mu, self.var = zeros(run.width), zeros(run.width)

    def draw_layer(self, now: GramLayer, layer: int) -> None:
        """y^(l), its products, and, where nothing else is waited for, x^(l)."""
        run, state = self.run, self.state
        below = state.held[-1] if state.held else []
        if run.held and (run.back or not state.held):
            state.held.append([None] * len(run.slabs))
        for index, slab in enumerate(run.slabs):
            y, _ = run.draw(state, now, layer, slab)
            if run.branch(layer):
                self.add_layer_below(now, below[index], y)
            state.pairs += run.over_nodes(slab, y, y, slab.members)
            if run.held:
                state.held[-1][index] = y
            if run.layernorm:
                state.column_sums += _layer.sum_columns(run.device, slab, y)[0]
            else:
                self.activate(now, layer, slab, y.clone() if run.held else y)

    def add_layer_below(self, now: GramLayer, below: Any, y: Any) -> None:
        """y^(l+1) = y^(l) + sqrt(a) (W x^(l) + b), in the units of x^(l)."""
        ratio = (self.state.y_units / now.units).to(y.dtype)[:, :, None]
        y *= math.sqrt(self.run.residual)
        y[:, 0].addcmul_(below[:, 0], ratio[:, 0])
        y[:, 1:].addcmul_(below[:, 1:], ratio[:, 1:])

    def activate(self, now: GramLayer, layer: int, slab: Any, tile: Any) -> None:
        """x of a slab in place of y, and what the next layer and the way back want to know of it."""
        run, state = self.run, self.state
        moments = run.activate(now, slab, tile, False)
        nodes, chi = _layer.sum_layer(run.device, slab, moments, now.units, run.inputs, *self.kept())
        self.nodes += nodes
        self.chi += chi
        state.beyond = torch.maximum(state.beyond, moments.beyond.double().amax().reshape(1))
        state.products += run.over_nodes(slab, tile, tile, 1, fine=state.fine)
        if not run.back:
            return
        all_rows = run.fresh_is_orthogonal(layer)
        read = slab if all_rows else first_member(slab)
        fresh = run.normals(state, layer, Stream.FRESH, read, run.fresh_rows(layer))
        now.fresh += run.over_nodes(slab, tile, fresh, 1)
        if all_rows:
            now.fresh_squares += run.over_nodes(slab, fresh, fresh, slab.members)

    def kept(self) -> tuple[Any, ...]:
        """Where the centres and variances of single nodes go, and their histograms."""
        nodes = (self.mu, self.var) if self.request.per_node else (None, None)
        counts = None if self.counts is None else (self.counts.of("mu"), self.counts.of("var"))
        return *nodes, counts

    def end_layer(self, now: GramLayer, layer: int) -> None:
        """The estimates of the layer."""
        run, state = self.run, self.state
        counts = None if self.counts is None else _gram.PairHistograms(self.counts.of("q"), self.counts.of("c"))
        q_sum, q_count, c_sum, c_count = _gram.contrasts(
            run.device, state.pairs, now.units, run.width, run.dtype, counts
        )
        self.sums.add(
            units=now.units,
            digits_kept=_layer.keeps_digits(now.units, run.dtype),
            nodes=self.nodes,
            chi=self.chi,
            q=torch.stack([q_sum, q_count], 1),
            c=torch.stack([c_sum, c_count], 1),
        )
        if self.counts is not None:
            self.counts.end_layer(layer - 1)
        if self.request.per_node:
            for name, values in {"mu": self.mu, "var": self.var}.items():
                self.result[name][:, layer - 1] = values.cpu().numpy()
        if run.residual > 0.0:
            squares = state.pairs.diagonal(dim1=1, dim2=2) / run.width
            state.y_units, state.y_origin = now.units, squares[:, 0]
            state.y_difference = run.sums(squares[:, 1:]) / (run.inputs - 1)
        state.units = now.out

    def draw_head(self) -> None:
        """One more layer of few nodes: the outputs."""
        run, state = self.run, self.state
        layer, slab = run.depth + 1, few_nodes(run.outputs)
        now = self.set_factor(layer)
        state.head_normals = run.normals(state, layer, Stream.GRAM, slab, run.inputs)
        y = run.exact.multiply(now.draw, state.head_normals)
        run.add_bias(state, now, layer, slab, y)
        y = y[:, :, : run.outputs].double().contiguous()
        y[:, :1] *= now.units[:, :1, None]
        y[:, 1:] *= now.units[:, 1:, None]
        y[:, 1:] += y[:, :1]
        state.logits = y
        self.result["guess"] = _gram.guess_classes(y).cpu().numpy()
        if run.loss != "cross_entropy":
            return
        if self.request.labels is None:
            network = run.stream(state, 0, Stream.LABELS).network
            state.labels = _gram.random_labels(
                run.device, run.seed, network, 0, run.inputs, run.outputs, networks=state.networks
            )
        else:
            given = torch.tensor(self.request.labels, device=run.device.torch)  # from_numpy warns of read-only ones
            state.labels = given.expand(state.networks, -1).contiguous()
        self.result["labels"] = state.labels.cpu().numpy()


# ---- Memory ----------------------------------------------------------------------------------------------------------


def gram_bytes(request: Request, networks: int, nodes: int | None = None) -> int:
    """Device memory that a group of so many networks takes, in slabs of so many nodes; None: whole layers.

    Examples
    --------
    >>> from igbfast import Ensemble
    >>> from igbfast.simulation import checked
    >>> request = checked(Ensemble("relu", sigma_w2=2.0), 1_000_000, 100, 100, 1, 0, "gram", "float32")
    >>> gram_bytes(request, 1, 4096) < gram_bytes(request, 1) < 3e9
    True
    """
    n, number = request.inputs.count, 4 if request.dtype == "float32" else 8
    members = 1 if request.ens.pool is None else request.ens.pool.size
    pools = request.width // members
    rows = members * padded(pools if nodes is None else min(nodes, pools))
    whole = members * padded(pools)
    back, orthogonal = request.gradients is not None, request.ens.weights == "orthogonal"
    outputs = 1 if request.gradients == "readout" else request.classes
    layers = request.depth + 1 if back else 1
    e = max(n, outputs) if back else n
    # In flight: y, the same in float64 for its products, normals; what a pool and slopes take; and the way back.
    tile = rows * n * (2 * number + 8)
    tile += rows * n * number * (2 if request.ens.pool is not None else 0)
    tile += rows * number * (3 * n + e) if back else 0
    tile += rows * 6 * 8
    held = whole * n * number * ((request.depth if back else 1) + (2 if back else 0)) if holds_layers(request) else 0
    square = n * n * (8 * 12 + (8 * 12 if back else 0))
    square += layers * (n * n * (8 + number + (8 if orthogonal else 0)) + (n * e + (e * e if orthogonal else 0)) * 8)
    head = outputs * n * (2 * number + 5 * 8)
    results = layers * (24 + (n if back else 0)) * 8 + (2 * request.width * 8 if request.per_node else 0)
    bins = 4 * _estimates.BINS * 8 if request.distributions else 0
    inputs = 0 if isinstance(request.inputs, Gaussian) else n * request.features * 8
    return networks * (tile + held + square + head + results + bins) + inputs + _WORKSPACE


def least_memory(request: Request) -> int:
    """Device memory that a single network takes at least.

    Examples
    --------
    >>> from igbfast import Ensemble
    >>> from igbfast.simulation import checked
    >>> request = checked(Ensemble("relu", sigma_w2=2.0), 1_000_000, 100, 100, 1, 0, "gram", "float32")
    >>> least_memory(request) < 1e9
    True
    """
    return int(gram_bytes(request, 1, _LEAST_NODES) / _SPARE)


def plan_of(request: Request, device: Device, networks: int) -> Plan:
    """As many networks at once as fit, in whole layers; where not even one does, one, in slabs as large as fit."""
    available = device.free_memory()
    free = int(_SPARE * available)
    members = 1 if request.ens.pool is None else request.ens.pool.size
    pools = padded(request.width // members)
    fixed = gram_bytes(request, 0)
    group = min(networks, _MOST_NETWORKS, (free - fixed) // (gram_bytes(request, 1) - fixed))
    if group >= 1:
        return Plan(group, pools)
    nodes = pools
    while nodes > _LEAST_NODES and gram_bytes(request, 1, nodes) > free:
        nodes = max(_LEAST_NODES, nodes // 2 // UNIT * UNIT)
    if gram_bytes(request, 1, nodes) > free:
        what = f"inputs={request.count} at width={request.width} and depth={request.depth} with method='gram'"
        remedy = "fewer inputs" if request.gradients is None else "fewer inputs or no gradients"
        raise ValueError(
            f"{what} needs about {gib(least_memory(request))} of memory on the device, but {gib(available)} are free: "
            f"use {remedy}"
        )
    return Plan(1, nodes)
