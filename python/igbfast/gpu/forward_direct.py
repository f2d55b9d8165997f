"""Forward with every weight drawn: y = W x + b for all inputs at once; the twin of csrc/cpu/forward_direct.cpp.

W is a function of (seed, network, layer, row, column), drawn some rows at a time for the product that needs them and
never stored. Inputs go through in chunks against the same weights, all as differences from the first one, so their
statistics merge over the chunks, and over pieces that come one by one; sums are float64. Small networks go through in
batches, all of one size, so that no network's numbers depend on the others. Nothing waits for the device before all
layers of a chunk are on their way, but for distributions and what is kept of every node.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .. import _core
from .._inputs import Given
from .._progress import Step, silent
from ..simulation import Request
from ._device import Device
from ._direct import (
    LayerInFlight,
    LayerRecord,
    Limits,
    Plan,
    Run,
    SparseCounts,
    by_column,
    empty_tile,
    in_double,
    keeps_layers,
    least_memory,
    members_of,
    of_nodes,
    outputs_of,
    pools_of,
    residual_of,
)
from ._estimates import BINS, LayerSums, joined
from ._gram import guess_classes, random_labels
from ._layer import (
    Nonlinearity,
    apply_nonlinearity,
    histogram,
    keeps_digits,
    layer_norm,
    squared_length,
    sum_columns,
    units_near,
)
from ._layout import padded, whole_layer
from ._sampling import Stream, add_bias, gaussian_inputs, load_inputs
from .backward_direct import backward_direct

__all__ = ["DirectStream", "forward_direct", "least_memory"]

LIMITS = Limits()
HOST_LIMITS = Limits(group=1)  # kernels that run on the host: nothing is there to be kept busy
_SHARE = 0.9  # of the free memory that a run may take: allocators leave gaps


def forward_direct(
    request: Request,
    phi: _core.Phi,
    device: Device,
    networks: int,
    products: str,
    step: Step,
    first_network: int = 0,
    *,
    limits: Limits | None = None,
) -> dict[str, Any]:
    """All networks on all inputs, as `_core.simulate` returns them; once phi's table is left, only that is right.

    Parameters
    ----------
    request
        What to simulate; its inputs are Gaussian, or fit the device.
    networks
        How many of them, from number `first_network` of the seed's on.
    products
        Operands of products by independent weights: "full", "tf32" (PyTorch's switch is the caller's), or "bfloat16".
        Orthogonal weights would not stay orthogonal with rounded products: their operands are always full.
    step
        Told the done fraction after every layer.
    limits
        How much goes through at once; by default what suits the device.
    """
    rows = request.inputs.tensor(device) if isinstance(request.inputs, Given) else None  # before sizes are chosen
    engine = _Engine(request, phi, device, networks, products, first_network, request.count, limits)
    piece = engine.piece(rows, request.labels)
    results = []
    for batch in engine.batches():
        engine.see(batch, piece, step)
        results.append(engine.results(batch))
        if results[-1]["beyond_table"]:
            return results[-1]
    return joined(results)


class DirectStream:
    """The same for inputs that come in pieces: all networks see a piece before the next one is asked for."""

    def __init__(
        self,
        request: Request,
        phi: _core.Phi,
        device: Device,
        networks: int,
        products: str,
        first_network: int = 0,
        *,
        limits: Limits | None = None,
    ) -> None:
        self._engine = _Engine(request, phi, device, networks, products, first_network, None, limits)
        self._batches = list(self._engine.batches())

    def take(self, inputs: Any, labels: NDArray[np.int32] | None = None, step: Step = silent) -> None:
        """Further inputs (m, features), float32 or float64: an array, or a tensor on the device."""
        if not len(inputs):
            return
        piece = self._engine.piece(inputs, labels)
        for batch in self._batches:
            self._engine.see(batch, piece, step)
        self._engine.taken += piece.count

    def finish(self) -> dict[str, Any]:
        """What they have shown."""
        if self._engine.taken < 2:
            raise ValueError(f"inputs must be at least two in all, got {self._engine.taken}")
        return joined([self._engine.results(batch) for batch in self._batches])


@dataclass(frozen=True)
class _Piece:
    """Inputs and their labels, on the device; no rows: standard Gaussian inputs; no labels: random ones."""

    count: int
    rows: Any
    labels: Any


@dataclass(frozen=True)
class _Chunk:
    """The inputs that are on their way: column 0 is the first input of all, the others are rows from `begin` on."""

    begin: int
    columns: int
    first_column: int
    """Columns from here on count: 1 where the first input has been counted before."""

    @property
    def first(self) -> int:
        """The row of the piece that the first column that counts belongs to."""
        return self.begin - 1 + self.first_column

    @property
    def counted(self) -> int:
        return self.columns - self.first_column


@dataclass
class _Batch:
    """Networks that go through together, and what they have shown."""

    first: int
    count: int
    """How many of them are asked for; those that fill up the batch come after them, and nothing of them is kept."""
    records: list[LayerRecord]
    """Of all layers where these are kept, else none."""
    beyond_table: Any
    sums: LayerSums = field(default_factory=LayerSums)
    nodes: dict[str, list[Any]] = field(default_factory=lambda: {"mu": [], "var": []})
    guess: list[Any] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)
    gradient: list[Any] = field(default_factory=list)
    """(networks, depth, inputs) of each chunk."""
    gradient_se: list[Any] = field(default_factory=list)
    counts: list[dict[str, SparseCounts]] = field(default_factory=list)


class _Engine:
    def __init__(
        self,
        request: Request,
        phi: _core.Phi,
        device: Device,
        networks: int,
        products: str,
        first_network: int,
        inputs: int | None,
        limits: Limits | None,
    ) -> None:
        self.request, self.device, self.networks = request, device, networks
        limits = limits or (HOST_LIMITS if device.torch.type == "cpu" else LIMITS)
        _, total = device.memory()
        plan = Plan.of(request, inputs, total, int(_SHARE * device.free_memory()), limits)
        nonlinearity = Nonlinearity(device, phi, "none" if request.ens.pool is None else request.ens.pool.kind)
        slab = whole_layer(members_of(request), pools_of(request))
        self.run = Run(request, device, nonlinearity, products, first_network, plan, slab)
        self.slab, self.dtype, self.group = slab, self.run.dtype, plan.group
        self.keeps_layers = keeps_layers(request, inputs, plan.columns)
        self.taken = 0  # inputs of earlier pieces
        self.origin: Any = None  # features of the very first input

    def batches(self) -> Iterator[_Batch]:
        for first in range(0, self.networks, self.group):
            count = min(self.group, self.networks - first)
            layers = self.request.depth if self.keeps_layers else 0
            records = [self._empty_record() for _ in range(layers)]
            beyond = torch.zeros((), dtype=torch.bool, device=self.device.torch)
            yield _Batch(first, count, records, beyond)

    def piece(self, inputs: Any, labels: NDArray[np.int32] | None) -> _Piece:
        """Inputs where kernels find them; None: Gaussian ones."""
        given = None if labels is None else self._on_device(labels)
        if inputs is None:
            return _Piece(self.request.count, None, given)
        rows = inputs if isinstance(inputs, torch.Tensor) else self._on_device(inputs)
        if self.origin is None:
            self.origin = rows[0].to(torch.float64, copy=True)
        return _Piece(len(rows), rows, given)

    def _on_device(self, array: NDArray[Any]) -> Any:
        """A copy, by way of memory that the device reads while Python goes on."""
        kind = torch.from_numpy(np.empty(0, array.dtype)).dtype
        pinned = self.device.torch.type == "cuda"
        staged = torch.empty(array.shape, dtype=kind, device="cpu", pin_memory=pinned)
        np.copyto(staged.numpy(), array)
        return staged.to(self.device.torch, non_blocking=True)

    # ---- Inputs ----

    def see(self, batch: _Batch, piece: _Piece, step: Step) -> None:
        chunks = list(self._chunks(piece.count))
        for number, chunk in enumerate(chunks):

            def told(fraction: float, number: int = number) -> None:
                step((batch.first + batch.count * (number + fraction) / len(chunks)) / self.networks)

            self._see_chunk(batch, piece, chunk, told)

    def _chunks(self, count: int) -> Iterator[_Chunk]:
        """The piece in chunks; the very first input goes with all of them, and counts in the first."""
        size = self.run.plan.columns - 1
        first = 1 if self.taken == 0 else 0
        for begin in range(first, max(count, first + 1), size):  # also for a first input that comes alone
            yield _Chunk(begin, min(size, count - begin) + 1, 0 if self.taken == 0 and begin == 1 else 1)

    def _load(self, batch: _Batch, piece: _Piece, chunk: _Chunk) -> Any:
        """Inputs (networks, or 1 for all, columns, features), as differences from the first one."""
        features = self.request.features
        networks = self.group if piece.rows is None else 1
        tile = torch.empty(networks, chunk.columns, padded(features), dtype=self.dtype, device=self.device.torch)
        if piece.rows is None:
            network = self.run.first_network + batch.first
            number = self.taken + chunk.begin
            gaussian_inputs(self.device, self.request.seed, network, number, features, tile)
        else:
            load_inputs(self.device, piece.rows, self.origin, chunk.begin, chunk.columns - 1, tile)
        return tile[:, :, :features]

    # ---- Layers ----

    def _see_chunk(self, batch: _Batch, piece: _Piece, chunk: _Chunk, step: Step) -> None:
        x = self._load(batch, piece, chunk)
        units = torch.ones(self.group, 2, dtype=torch.float64, device=self.device.torch)
        flights: list[LayerInFlight] = []
        flight = None
        back = self.request.gradients is not None
        share = 1.0 / 3.0 if back else 1.0  # of the work: the way back has two products for one
        for layer in range(1, self.request.depth + 1):
            record = batch.records[layer - 1] if self.keeps_layers else self._empty_record()
            y = self._linear(batch, layer, x, flight, units)
            x = None  # its memory is the next layer's
            flight, directions = self._norms(batch, record, chunk, y, units)
            x = self._nonlinear_part(batch, record, chunk, flight, directions)
            units = flight.out
            if back:
                flights.append(flight)
            if not self.keeps_layers:
                self._end_layer(batch, record)
            step(layer / (self.request.depth + 1) * share)
        logits = self._head(batch, x, units)
        labels = self._classify(batch, piece, chunk, logits)
        if back:

            def told(fraction: float) -> None:
                step(share + (1.0 - share) * fraction)

            gradient = backward_direct(
                self.run, batch.first, flights, batch.records, logits, labels, chunk.first_column, told
            )
            batch.gradient.append(gradient[: batch.count].cpu().numpy())
        step(1.0)

    def _empty_record(self) -> LayerRecord:
        return LayerRecord.empty(self.request, self.group, self.device)

    def _linear(self, batch: _Batch, layer: int, x: Any, before: LayerInFlight | None, units: Any) -> Any:
        """y = [y +] factor (W x + b), in the units of x."""
        columns = x.shape[1]
        adds = residual_of(self.request) > 0.0 and before is not None
        factor = residual_of(self.request) ** 0.5 if adds else 1.0
        if adds:
            assert before is not None
            ratio = by_column(before.units / units, columns, self.dtype)
            y = before.y * ratio if self.request.gradients is not None else before.y.mul_(ratio)
        else:
            y = empty_tile(self.device, self.group, columns, self.slab, self.dtype)
        self.run.weights(layer, batch.first).multiply(x, factor, self.slab, y, adds)
        self._add_bias(batch, layer, factor / units[:, 0], self.slab, y)
        return y

    def _add_bias(self, batch: _Batch, layer: int, scale: Any, slab: Any, y: Any) -> None:
        if self.request.ens.sigma_b2 > 0.0:
            stream = self.run.stream(batch.first, layer, Stream.BIASES)
            add_bias(self.device, stream, scale * self.request.ens.sigma_b2**0.5, slab, y)

    def _norms(
        self, batch: _Batch, record: LayerRecord, chunk: _Chunk, y: Any, units: Any
    ) -> tuple[LayerInFlight, Any]:
        """What needs all nodes: lengths of the y_a, units and norm of what comes next; and what each column of y is
        weighted with in the sum of all y_a / |y_a|."""
        sums, with_origin, squares = sum_columns(self.device, self.slab, y)
        width = self.request.width
        ratio = units[:, 1:] / units[:, :1]
        at_origin = torch.arange(chunk.columns, device=y.device) == 0
        cross = torch.where(at_origin, 0.0, ratio * with_origin)
        square = torch.where(at_origin, 0.0, ratio.square() * squares)
        length2 = squared_length(squares[:, :1], cross, square, self.dtype)
        counted = length2[:, chunk.first_column :]
        q = units[:, :1].square() * counted / width
        alive = counted != 0.0
        record.q_sum += q.sum(1)
        record.directions += alive.sum(1)
        inverse = torch.zeros_like(length2)
        inverse[:, chunk.first_column :] = torch.where(alive, counted.rsqrt(), 0.0)
        directions = ratio * inverse
        directions[:, 0] = inverse.sum(1)
        if self.request.distributions:
            self._count(batch, record, "q", q)
            self._count_pairs(batch, record, chunk, y, ratio, cross, length2.sqrt())
        others = squares[:, 1:].sum(1) / (width * max(1, chunk.columns - 1))
        out = units_near(units, squares[:, 0] / width, others, self.dtype)
        norm = None
        if self.request.ens.layernorm:
            norm = layer_norm(width, units, sums, with_origin, squares, self.dtype)
        record.units = units
        record.digits_kept &= keeps_digits(units, self.dtype)
        return LayerInFlight(y, units, out, norm), directions

    def _nonlinear_part(
        self, batch: _Batch, record: LayerRecord, chunk: _Chunk, flight: LayerInFlight, directions: Any
    ) -> Any:
        """x = pool(phi(norm(y))), in place unless y is still needed; and the statistics of the nodes."""
        for nodes, _, (y,) in in_double(self.slab, flight.y):
            record.direction[:, nodes] += torch.bmm(directions[:, None], y)[:, 0]
        keeps_y = self.request.gradients is not None or residual_of(self.request) > 0.0
        tile = flight.y.clone() if keeps_y else flight.y
        moments = apply_nonlinearity(
            self.run.nonlinearity, self.slab, tile, flight.norm, flight.units, flight.out, with_slopes=False
        )
        batch.beyond_table |= moments.beyond[: batch.count].any()
        unit = flight.units[:, 1:]
        total = of_nodes(self.slab, moments.sum)
        mean = total / chunk.counted
        m2 = (of_nodes(self.slab, moments.sum2) - total * mean).clamp(min=0.0)
        record.merge(chunk.counted, unit * mean, unit.square() * m2)
        record.slope2 += moments.slope2
        if chunk.first_column == 0:  # the first input counts, as a difference of zero
            record.origin = flight.units[:, :1] * of_nodes(self.slab, moments.origin)
            record.slope2 += moments.origin_slope2
        return tile[:, :, : self.slab.nodes]

    # ---- Distributions ----

    def _count(self, batch: _Batch, record: LayerRecord, name: str, values: Any) -> None:
        counts = torch.zeros(batch.count, BINS, dtype=torch.int64, device=values.device)
        histogram(self.device, values[: batch.count], counts)
        record.counts[name].add(counts)

    def _count_pairs(
        self, batch: _Batch, record: LayerRecord, chunk: _Chunk, y: Any, ratio: Any, cross: Any, lengths: Any
    ) -> None:
        """The distribution of 1 - c over the pairs of the chunk's inputs, without cancellation:
        1 - c_ab = (|y_a - y_b|^2 - (|y_a| - |y_b|)^2) / (2 |y_a| |y_b|),
        |y_a| - |y_b| = (2 y_0.(d_a - d_b) + |d_a|^2 - |d_b|^2) / (|y_a| + |y_b|)."""
        products = torch.zeros(*y.shape[:2], y.shape[1], dtype=torch.float64, device=y.device)
        for _, _, (d,) in in_double(self.slab, y):
            products.baddbmm_(d, d.transpose(1, 2))
        products *= ratio.square()[:, :, None]
        products[:, 0] = products[:, :, 0] = 0.0
        counts = torch.zeros(batch.count, BINS, dtype=torch.int64, device=y.device)
        first = chunk.first_column
        for number, to in enumerate(counts):
            product, length = products[number, first:, first:], lengths[number, first:]
            square, along = product.diagonal(), 2.0 * cross[number, first:]
            longer = ((along + square)[:, None] - (along + square)) / (length[:, None] + length)
            apart = square[:, None] + square - 2.0 * product
            values = (apart - longer.square()).clamp(min=0.0) / (2.0 * length[:, None] * length)
            alive = length != 0.0
            pairs = (alive[:, None] & alive).tril(-1)
            histogram(self.device, values[pairs], to)
        record.counts["c"].add(counts)

    # ---- The head ----

    def _head(self, batch: _Batch, x: Any, units: Any) -> Any:
        """Logits (networks, columns, outputs), float64, absolute."""
        outputs, layer = outputs_of(self.request), self.request.depth + 1
        slab = whole_layer(1, outputs)
        z = empty_tile(self.device, self.group, x.shape[1], slab, self.dtype)
        self.run.weights(layer, batch.first).multiply(x, 1.0, slab, z, False)
        self._add_bias(batch, layer, 1.0 / units[:, 0], slab, z)
        values = z[:, :, :outputs].double() * by_column(units, x.shape[1], torch.float64)
        values[:, 1:] += values[:, :1].clone()
        return values

    def _classify(self, batch: _Batch, piece: _Piece, chunk: _Chunk, logits: Any) -> Any:
        """The classes and labels of the inputs that count; returns the labels."""
        batch.guess.append(guess_classes(logits[: batch.count, chunk.first_column :]).cpu().numpy())
        if self.request.gradients != "cross_entropy":
            return None
        first, count = chunk.first, chunk.counted
        if piece.labels is not None:
            labels = piece.labels[first : first + count].expand(self.group, -1)
        else:
            seed, network = self.request.seed, self.run.first_network + batch.first
            labels = random_labels(
                self.device, seed, network, self.taken + first, count, self.request.classes, networks=self.group
            )
        batch.labels.append(labels[: batch.count].cpu().numpy())
        return labels

    # ---- Results ----

    def _end_layer(self, batch: _Batch, record: LayerRecord) -> None:
        """What is left of a layer once all inputs have been seen."""
        count, units = record.inputs, record.units
        var = record.m2 / (count - 1)
        mu = record.origin + record.mean
        u, v = mu / units[:, :1], var / units[:, 1:].square()
        u2 = u.square()
        powers = [torch.ones_like(u), u, u2, u2 * u, u2.square(), v, v.square(), u * v, u2 * v]
        slope2 = record.slope2 / count
        slopes = [torch.ones_like(slope2), slope2, slope2.square()]
        length2 = record.direction.square().sum(1)
        n = record.directions
        sums = {
            "units": units,
            "digits_kept": record.digits_kept,
            "nodes": torch.stack([power.sum(1) for power in powers], 1),
            "chi": torch.stack([power.sum(1) for power in slopes], 1),
            "q": torch.stack([record.q_sum / units[:, 0].square(), torch.full_like(n, count)], 1),
            # |sum of y_a / |y_a||^2, less those with themselves, counts every pair twice.
            "c": torch.stack([length2 - n, n * (n - 1.0)], 1),
        }
        batch.sums.add(**{name: each[: batch.count] for name, each in sums.items()})
        if self.request.per_node:
            batch.nodes["mu"].append(mu[: batch.count].cpu().numpy())
            batch.nodes["var"].append(var[: batch.count].cpu().numpy())
        if self.request.distributions:
            self._count(batch, record, "mu", mu)
            self._count(batch, record, "var", var)
            batch.counts.append(record.counts)
        if self.request.gradients is not None:
            batch.gradient_se.append(_gradient_error(record, self.request.width)[: batch.count])

    def results(self, batch: _Batch) -> dict[str, Any]:
        """As `_core.simulate` gives them."""
        for record in batch.records:
            self._end_layer(batch, record)
        batch.records.clear()
        request = self.request
        inputs = sum(part.shape[1] for part in batch.guess)
        found: dict[str, Any] = dict(
            batch.sums.estimates(inputs=inputs, sigma_w2=request.ens.sigma_w2, residual=residual_of(request))
        )
        found["guess"] = np.concatenate(batch.guess, 1)
        if request.per_node:
            found |= {name: np.stack(layers, 1) for name, layers in batch.nodes.items()}
        if request.gradients == "cross_entropy":
            found["labels"] = np.concatenate(batch.labels, 1)
        if request.gradients is not None:
            found["gradient"] = np.concatenate(batch.gradient, 2)
            found["gradient_se"] = np.stack(batch.gradient_se, 1)
        if request.distributions:
            for name in ("mu", "var", "q", "c"):
                found[f"{name}_counts"] = _columns([layer[name] for layer in batch.counts], batch.first)
        found["beyond_table"] = bool(batch.beyond_table)
        return found


def _gradient_error(record: LayerRecord, width: int) -> NDArray[np.float64]:
    """Standard error of the mean squared gradient over the nodes, by network."""
    squares, exponent = record.gradient2, record.gradient_exponent.cpu().numpy()
    if width == 1:
        return np.full(len(exponent), np.nan)
    spread = squares.square().mean(1) - squares.mean(1).square()
    error = (spread.clamp(min=0.0) / (width - 1)).sqrt() / record.inputs
    with np.errstate(over="ignore", under="ignore"):
        found = np.ldexp(error.cpu().numpy(), 2 * exponent)
    return np.where(np.isfinite(found), found, np.nan)


def _columns(layers: list[SparseCounts], first: int) -> dict[str, NDArray[Any]]:
    """Columns network, layer, bin, count of the layers' histograms, in the order of the core's."""
    keys = np.concatenate([layer.keys for layer in layers])
    number = np.repeat(np.arange(len(layers)), [len(layer.keys) for layer in layers])
    counts = np.concatenate([layer.counts for layer in layers])
    network, bins = keys // BINS, keys % BINS
    order = np.lexsort((bins, number, network))
    return {
        "network": (first + network[order]).astype(np.int32),
        "layer": number[order].astype(np.int32),
        "bin": bins[order].astype(np.uint16),
        "count": counts[order],
    }
