"""Initialisation by measurement: a forward pass that sets the scale of each layer, sweeps that flatten the gradients.

The squared gradients of a layer are summed over its nodes, S = sum_i <(dLoss_a / dy_i(a))^2>, averaged over the inputs
a: with fan-in weights at chi = 1 this sum is the same for all layers, whatever their widths. A layer whose weights are
multiplied by s multiplies S of all layers before it by s^2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ..activations import Activation
from ._batches import Batch, output_of, run, untouched
from ._critical import LayerLaw
from ._slots import Slot
from ._trace import Layer, Trace, watch

__all__ = ["Profile", "flatten_gradients", "measured", "set_variances"]

_FLAT = 1.1  # largest over smallest S that counts as flat
_SWEEPS = 12
_MOST = 10.0  # by which a sweep may change the weights of a layer


@dataclass(frozen=True)
class Profile:
    """What one batch measures in every layer, by the layer's number."""

    q: Mapping[int, float]
    """Mean square of the outputs."""
    gradient: Mapping[int, float]
    """Squared gradients, summed over the nodes."""
    slope2: Mapping[int, float]
    """Mean of phi'(y)^2, where phi is the activation after the layer; only where that is known and no pool follows."""


def measured(model: nn.Module, traced: Trace, batch: Batch) -> Profile:
    """One forward and one backward pass: of the cross entropy if the batch has labels, else of random read-outs."""
    q: dict[int, float] = {}
    gradient: dict[int, float] = {}
    slope2: dict[int, float] = {}
    after = _activations_after(traced)

    def forward(layer: Layer, rows: Any) -> None:
        q[layer.number] = _mean_square(rows)
        if layer.number in after:
            slope2[layer.number] = _mean_slope2(after[layer.number], rows)

    def backward(layer: Layer, rows: Any) -> None:
        gradient[layer.number] = _mean_square(rows) * rows.numel() / batch.count

    with untouched(model), torch.enable_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.requires_grad_(True)
        with watch(traced, batch, forward, backward):
            outputs = output_of(run(model, batch))
        _loss(outputs, batch).backward()
        for parameter in model.parameters():
            parameter.grad = None
    return Profile(q, gradient, slope2)


def _mean_square(rows: Any) -> float:
    return float(torch.linalg.vector_norm(rows, dtype=torch.float64)) ** 2 / rows.numel()


def _activations_after(traced: Trace) -> dict[int, Activation]:
    """What bends the output of each layer, where the layer that sees it sees nothing else."""
    return {
        layer.before.layers[0]: layer.before.activation
        for layer in traced.layers
        if layer.before.source == "layer"
        and len(layer.before.layers) == 1
        and layer.before.activation is not None
        and layer.before.pool is None
    }


def _mean_slope2(phi: Activation, rows: Any) -> float:
    """Mean of phi'^2 over (at most 20,000 of) the numbers of a layer's output."""
    some = rows.reshape(-1)[:: max(1, rows.numel() // 20_000)]
    try:
        return float(np.mean(phi.derivative(some.double().cpu().numpy()) ** 2))
    except ValueError:  # no derivative
        return math.nan


def _loss(outputs: Any, batch: Batch) -> Any:
    """Summed over the inputs, so that each one's gradient is that of its own loss, or of its own random read-out."""
    flat = outputs.reshape(batch.count, -1)
    flat = flat.float() if flat.dtype in (torch.float16, torch.bfloat16) else flat
    if batch.labels is not None:
        return nn.functional.cross_entropy(flat, batch.labels, reduction="sum")
    readout = torch.randn(flat.shape, generator=torch.Generator().manual_seed(0)) / math.sqrt(flat.shape[1])
    return (flat * readout.to(flat.device, flat.dtype)).sum()


def set_variances(
    model: nn.Module, traced: Trace, batch: Batch, laws: Mapping[int, LayerLaw], slots: Mapping[int, Slot]
) -> dict[int, float]:
    """One forward pass in which every layer gets the mean square that its law says, by a factor on its weights.

    Returns
    -------
    dict
        The factors, by the numbers of the layers in `slots`; of a weight that several layers share, only the first
        should be among them.
    """
    factors: dict[int, float] = {}

    def scaled(layer: Layer, rows: Any) -> Any:
        slot, law = slots.get(layer.number), laws[layer.number]
        if slot is None:
            return None
        bias = _bias_of(layer)
        square = _mean_square(rows - bias)
        wanted = law.q - law.sigma_b2
        if not (math.isfinite(square) and square > 0.0 and wanted > 0.0):
            return None
        factor = factors[layer.number] = math.sqrt(wanted / square)
        slot.scale(factor)
        return ((rows - bias) * factor + bias).to(rows.dtype)

    with untouched(model), torch.no_grad(), watch(traced, batch, scaled):
        run(model, batch)
    return factors


def _bias_of(layer: Layer) -> Any:
    if layer.bias is None:
        return 0.0
    bias = layer.bias.detach()
    return bias.reshape(-1, *[1] * (len(layer.shape) - 1)) if layer.kind == "conv" else bias.reshape(-1)


def flatten_gradients(
    model: nn.Module, traced: Trace, batch: Batch, slots: Mapping[int, Slot]
) -> tuple[dict[int, float], str]:
    """Multiplies weights until S is the same in all layers, and says how far that went.

    Layers inside residual branches stay as they are: there the gradients go past them.

    Returns
    -------
    dict, str
        The factors, by layer, and what was reached in words.
    """
    stages = _stages(traced)
    if len(stages) < 3:
        return {}, "gradients left as they are: there is no chain of layers outside residual branches"
    # What a normalisation follows may have any scale, and nothing before it feels which.
    scaleless = {n for layer in traced.layers if layer.before.source == "normalisation" for n in layer.before.layers}
    free = {layer.number for stage in stages[1:-1] for layer in stage if not layer.shared} & slots.keys() - scaleless
    if not free:
        return {}, "gradients left as they are: no scale of a layer outside residual branches changes them"
    total = dict.fromkeys(free, 1.0)
    best, best_total, first = math.inf, dict(total), math.nan
    for sweep in range(_SWEEPS + 1):
        profile = measured(model, traced, batch)
        spread = _spread(stages, profile.gradient)
        first = spread if sweep == 0 else first
        if spread < best:
            best, best_total = spread, dict(total)
        if spread <= _FLAT or not math.isfinite(spread) or sweep == _SWEEPS:
            break
        for number, factor in _sweep(model, traced, batch, stages, profile, {n: slots[n] for n in free}).items():
            total[number] *= factor
    for number in free:
        if best_total[number] != total[number]:
            slots[number].scale(best_total[number] / total[number])
    return best_total, _words(first, best, stages, traced)


def _sweep(
    model: nn.Module,
    traced: Trace,
    batch: Batch,
    stages: Sequence[Sequence[Layer]],
    profile: Profile,
    slots: Mapping[int, Slot],
) -> dict[int, float]:
    """One forward pass that multiplies weights by what flattens the measured gradients; returns the factors.

    A factor changes the output of its own layer, thus phi'^2 there and the factor that the next one needs: the mean of
    phi'^2 as it was and as it is now says by how much.
    """
    stage_of = {layer.number: stage for stage in stages for layer in stage}
    after = _activations_after(traced)
    now: dict[int, float] = {}
    factors: dict[int, float] = {}

    def scaled(layer: Layer, rows: Any) -> Any:
        slot = slots.get(layer.number)
        if slot is not None:
            squared = _flattening(stage_of[layer.number], profile.gradient) / _slope2_change(layer, profile.slope2, now)
            factor = factors[layer.number] = math.sqrt(min(max(squared, 1.0 / _MOST), _MOST))
            slot.scale(factor)
            bias = _bias_of(layer)
            rows = ((rows - bias) * factor + bias).to(rows.dtype)
        if layer.number in after:
            now[layer.number] = _mean_slope2(after[layer.number], rows)
        return None if slot is None else rows

    with untouched(model), torch.no_grad(), watch(traced, batch, scaled):
        run(model, batch)
    return factors


def _flattening(stage: Sequence[Layer], gradient: Mapping[int, float]) -> float:
    """What to multiply a stage's sigma_w2 by, so that the layers before it have the squared gradients that it has."""
    before = _sum(gradient, stage[0].before.layers)
    here = _sum(gradient, [layer.number for layer in stage])
    return here / before if 0.0 < before < math.inf and 0.0 < here < math.inf else 1.0


def _slope2_change(layer: Layer, before: Mapping[int, float], now: Mapping[int, float]) -> float:
    """By what phi'^2 before the layer has changed; 1 where that is not known."""
    (source,) = layer.before.layers if len(layer.before.layers) == 1 else (0,)
    change = now.get(source, math.nan) / before.get(source, math.nan)
    return change if 0.0 < change < math.inf else 1.0


def _stages(traced: Trace) -> list[list[Layer]]:
    """Layers outside residual branches in order; those that see the same signal (queries, keys, values) together."""
    inside = {number for branch in traced.branches for number in branch.layers}
    stages: dict[tuple[Any, ...], list[Layer]] = {}
    for layer in traced.layers:
        if layer.number not in inside and not inside.intersection(layer.before.layers):
            key = layer.before.layers or ("input", layer.number)
            stages.setdefault(key, []).append(layer)
    return list(stages.values())


def _spread(stages: Sequence[Sequence[Layer]], gradient: Mapping[int, float]) -> float:
    """Largest over smallest squared gradient of the stages but the last, the head."""
    sums = [_sum(gradient, [layer.number for layer in stage]) for stage in stages[:-1]]
    return max(sums) / min(sums) if all(math.isfinite(s) and s > 0.0 for s in sums) else math.inf


def _sum(gradient: Mapping[int, float], numbers: Iterable[int]) -> float:
    return sum(gradient.get(number, 0.0) for number in numbers)


def _words(first: float, best: float, stages: Sequence[Any], traced: Trace) -> str:
    if not math.isfinite(first):
        return "gradients left as they are: some layers have none, or none that is finite"
    words = f"squared gradients vary by a factor of {best:.3g} over {len(stages) - 1} stages of layers"
    if best > _FLAT:
        words += f", which is not flat ({_FLAT:g}); {first:.3g} before the sweeps"
    return words + ("; those in residual branches were not adjusted" if traced.branches else "")
