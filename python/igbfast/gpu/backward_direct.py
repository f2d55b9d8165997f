"""Backward through the networks of forward_direct.py: gradients delta_a = dLoss_a / dy_a of every input's own loss,
from the head to the first layer; the twin of csrc/cpu/backward_direct.cpp.

    delta^(l) = [delta^(l+1) +] sqrt(a) slopes . (W^T delta^(l+1)),

where W is drawn again from its counters, some rows at a time, and the slopes dx/dy are found again from y. A norm over
the nodes, z = (y - mean) / deviation, takes from t = dLoss / dz / deviation what is along the directions that it
removes: dLoss / dy = t - mean(t) - z mean(t z).

Gradients are held in a unit of their own for each input, a power of two. Column 0, the first input, goes along in every
chunk and has no gradient where it has been counted before.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from .._progress import Step
from ._direct import LayerInFlight, LayerRecord, Run, by_member, empty_tile, in_double, outputs_of, residual_of
from ._estimates import exponent_of, power_of_two
from ._gram import loss_gradient
from ._layer import apply_nonlinearity
from ._layout import whole_layer


def backward_direct(
    run: Run,
    network: int,
    flights: list[LayerInFlight],
    records: list[LayerRecord],
    logits: Any,
    labels: Any,
    first_column: int,
    step: Step,
) -> Any:
    """Mean squared gradients (networks, depth, inputs) of the inputs of a chunk: the columns from `first_column` on of
    what the forward half left. `flights` is used up; the records of the layers get what belongs to their nodes.

    network : the first of the batch, as the run numbers them.
    """
    request = run.request
    delta, exponent = _at_the_logits(run, logits, labels, first_column)
    above = whole_layer(1, outputs_of(request))
    found = []
    for layer in range(request.depth, 0, -1):
        step(1.0 - layer / request.depth)
        skips = residual_of(request) > 0.0 and layer < request.depth
        factor = math.sqrt(residual_of(request)) if skips else 1.0
        back = run.weights(layer + 1, network).multiply_back(delta, factor, above)
        now = _through_nonlinearity(run, flights.pop(), back)
        if skips:
            now += delta
        delta, above = now, run.slab
        squares = _record_squares(run, records[layer - 1], delta, exponent, first_column)
        found.append(_absolute(squares / request.width, exponent)[:, first_column:])
        shifts = exponent_of((squares / request.width).sqrt())
        delta *= power_of_two(-shifts).to(delta.dtype)[:, :, None]
        exponent = exponent + shifts
    return torch.stack(found[::-1], 1)


def _at_the_logits(run: Run, logits: Any, labels: Any, first_column: int) -> tuple[Any, Any]:
    """dLoss_a / dlogits, a tile of the outputs, and its units; 0 where column 0 does not count."""
    loss = run.request.gradients
    assert loss is not None
    if labels is not None and first_column:
        labels = torch.cat([torch.zeros_like(labels[:, :1]), labels], 1)
    labels = None if labels is None else labels.contiguous()
    gradient, exponent = loss_gradient(run.device, logits.contiguous(), labels, loss, run.dtype)
    networks, columns, outputs = gradient.shape
    delta = empty_tile(run.device, networks, columns, whole_layer(1, outputs), run.dtype)
    delta[:, :, :outputs] = gradient
    exponent = exponent.to(torch.int64)
    if first_column:
        delta[:, 0] = 0
        exponent[:, 0] = 0
    return delta, exponent


def _through_nonlinearity(run: Run, flight: LayerInFlight, back: Any) -> Any:
    """dLoss / dy, but for a skip connection, from that by the pools."""
    y = flight.y.clone() if flight.norm is not None else flight.y
    moments = apply_nonlinearity(run.nonlinearity, run.slab, y, flight.norm, flight.units, flight.out, with_slopes=True)
    t = moments.slopes
    by_member(run.slab, t)[..., : run.slab.nodes].mul_(back[:, :, None])
    if flight.norm is not None:
        _take_norm_away(run, flight, t)
    return t


def _take_norm_away(run: Run, flight: LayerInFlight, t: Any) -> None:
    """t - mean(t) - z mean(t z)."""
    sums = torch.zeros(2, *t.shape[:2], 1, dtype=torch.float64, device=t.device)
    for _, _, (y, values) in in_double(run.slab, flight.y, t):
        sums[0] += values.sum(2, keepdim=True)
        sums[1] += (values * _normed(flight.norm, y)).sum(2, keepdim=True)
    mean, along = sums / run.request.width
    for _, rows, (y, values) in in_double(run.slab, flight.y, t):
        t[:, :, rows] = (values - mean - _normed(flight.norm, y) * along).to(t.dtype)


def _normed(norm: Any, y: Any) -> Any:
    """z of some nodes, absolute, from y in its units."""
    scale, from_origin, shift = norm.maps[..., None].unbind(2)
    origin = y[:, :1]
    change = norm.units[:, 1, None, None] * (scale * y + from_origin * origin + shift)
    change[:, 0] = 0.0
    return norm.units[:, :1, None] * (scale[:, :1] * origin + shift[:, :1]) + change


def _record_squares(run: Run, record: LayerRecord, delta: Any, exponent: Any, first_column: int) -> Any:
    """Squared norms of the columns, as they are stored; and what the record gets, the sum over the inputs by node."""
    squares = torch.zeros(delta.shape[:2], dtype=torch.float64, device=delta.device)
    counted = exponent[:, first_column:]
    largest = counted.amax(1, keepdim=True)
    weights = power_of_two(2 * (counted - largest))
    nodes = torch.zeros_like(record.mean)
    for node, _, (values,) in in_double(run.slab, delta):
        square = values.square()
        squares += square.sum(2)
        nodes[:, node] = torch.bmm(weights[:, None], square[:, first_column:])[:, 0]
    if record.gradient2 is None:
        record.gradient2, record.gradient_exponent = nodes, largest[:, 0]
        return squares
    former, largest = record.gradient_exponent, largest[:, 0]
    record.gradient_exponent = torch.maximum(former, largest)
    old, now = (power_of_two(2 * (e - record.gradient_exponent))[:, None] for e in (former, largest))
    record.gradient2 = old * record.gradient2 + now * nodes
    return squares


def _absolute(squares: Any, exponent: Any) -> Any:
    """squares * 4^exponent: 0 where it vanishes even for double, nan where it overflows."""
    once = power_of_two(exponent)
    found = squares * once * once
    return torch.where(found.isfinite(), found, torch.nan)
