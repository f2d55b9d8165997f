"""The critical law of every layer, from what lies before it: theory only, no weights are touched.

With x = P(phi(y)) before a layer y' = W x + b, V = E[x^2], D = E[phi'^2] (summed over the pool) at the variance q of y,

    sigma_w2 = 1 / D(q)        squared gradients keep their sum over the nodes: chi = sigma_w2 D = 1
    q' = sigma_w2 V(q) + b     the variance that the layer after it sees

layer by layer, so every layer is critical wherever q goes. It stays where q = V(q)/D(q) + sigma_b2; there sigma_w2 is
the edge of chaos, and there the layers start whose scale is free: those after the inputs and after a normalisation.

What a network of finite width departs from q grows by chi_q = sigma_w2 dV/dq a layer, and so does, backwards, the part
of the gradients that points along the signal. Biases make chi_q < 1: that is what sigma_b2 is chosen by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.optimize import brentq

from .._expectations import Expectations
from ..activations import Activation
from ..meanfield import moments
from ..pools import Pool

__all__ = ["LayerLaw", "planned", "resting_variance", "visible_share"]

_LINEAR = Activation("linear")
_BIASES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)  # Default sigma_b2 is the first that makes the variance stable.
STABLE = 4.0
"""Growth of deviations through the whole network up to which its variance counts as stable."""
_LARGE_OUTPUT = 10.0  # Variance of the outputs from which on cross entropy starts saturated.


@dataclass(frozen=True)
class LayerLaw:
    """How the weights of one layer are to be drawn."""

    number: int
    """Of the layer."""
    sigma_w2: float
    """fan_in * share times the variance of a weight."""
    sigma_b2: float
    """Variance of a bias."""
    q: float
    """Mean square of the layer's output, by theory."""
    share: float = 1.0
    """Of the fan-in that a node sees on average: less than 1 where a convolution pads with zeros."""
    growth: float = 0.0
    """chi_q, the factor by which deviations of the variance grow; 0 where they do not reach the layer."""
    free: bool = False
    """Whether the scale was free to choose: the layer sees inputs or normalised signals."""
    assumed: bool = False
    """Whether it rests on an assumption about what lies before the layer."""
    rule: str = ""
    """Where sigma_w2 comes from."""
    note: str = ""
    """What else there is to know."""


def planned(
    layers: Sequence[Any],
    branches: Sequence[Any] = (),
    *,
    sigma_b2: float | None = None,
    kind: str = "gradient",
    residual: str | float | None = "depth",
    head: float | None = None,
    delta: bool = False,
    mean_square: float = 1.0,
    fixed: Collection[int] = (),
) -> tuple[LayerLaw, ...]:
    """The law of every layer; the arguments are those of `init_`, with the mean square of the inputs and the numbers of
    layers whose weights stay as they are.

    Returns
    -------
    tuple of LayerLaw
        In the order of `layers`.
    """
    last = {number for branch in branches for number in branch.last}
    factor = 1.0 if residual is None else 1.0 / max(1, len(branches)) if residual == "depth" else float(residual)

    def with_biases(b: float) -> tuple[LayerLaw, ...]:
        plan = _Plan(layers, b, kind, delta, mean_square)
        for layer in layers:
            law = plan.law(layer, layer.number in fixed)
            if layer.number in fixed:
                plan.add(law)
                continue
            if layer.number in last:
                law = _scaled(law, factor, f"ends a residual branch: variances times {factor:.3g}")
            if layer is layers[-1]:
                law = _of_head(law, head)
            plan.add(law)
        return tuple(plan.laws.values())

    return _stable(layers, with_biases) if sigma_b2 is None else with_biases(sigma_b2)


def _stable(layers: Sequence[Any], with_biases: Callable[[float], tuple[LayerLaw, ...]]) -> tuple[LayerLaw, ...]:
    """The laws with the smallest biases that keep the variance stable, from layer to layer.

    None are needed where all activations are homogeneous, which keep any variance, and where each signal comes freshly
    from a layer whose scale is free.
    """
    without = with_biases(0.0)
    free = {law.number for law in without if law.free}
    bent = {layer.number for layer in layers if _bends(layer) and not free.issuperset(layer.before.layers)}
    if not bent:
        return without
    tried = []
    for b in _BIASES:
        laws = with_biases(b)
        tried.append((math.prod(max(law.growth, 1.0) for law in laws if law.number in bent), laws))
        if tried[-1][0] <= STABLE:
            break
    return min(tried, key=lambda pair: pair[0])[1]


def _free(before: Any) -> bool:
    """Whether what follows may have any scale: it sees the inputs, or a signal that was normalised."""
    return before.source in ("input", "normalisation") and before.pool is None and before.activation == _LINEAR


def _first_of_loops(layers: Sequence[Any]) -> dict[int, Any]:
    """First uses, of free scale, of weights that are used again where it is not free, as in a loop; and what lies
    before that other use, which decides.
    """
    first: dict[str, Any] = {}
    found: dict[int, Any] = {}
    for layer in layers:
        use = first.setdefault(layer.weight_name, layer)
        if layer.shared and _free(use.before) and not _free(layer.before):
            found.setdefault(use.number, layer.before)
    return found


def _bends(layer: Any) -> bool:
    before = layer.before
    chained = before.source == "layer" or (before.source == "normalisation" and len(before.layers) == 1)
    return chained and before.activation is not None and not _homogeneous(before.activation)


@lru_cache(maxsize=256)
def resting_variance(activation: Activation, pool: Pool | None, sigma_b2: float) -> float:
    """The smallest q = V(q)/D(q) + sigma_b2, at which critical layers keep the variance; nan if there is none.

    Examples
    --------
    >>> import igbfast as igb
    >>> q = resting_variance(igb.Activation("tanh"), None, 0.05)
    >>> round(q, 6), round(float(1 / igb.moments("tanh", q, derivative=1)), 6)  # igb.edge_of_chaos("tanh", 0.05)
    (0.570048, 1.760955)
    """

    def excess(q: Any) -> Any:
        with np.errstate(divide="ignore", invalid="ignore"):
            return q - moments(activation, q, pool=pool) / moments(activation, q, derivative=1, pool=pool) - sigma_b2

    for largest in (1e5, 1e2, 1.0):
        q = np.geomspace(1e-4, largest, 20 * round(np.log10(largest / 1e-4)) + 1)
        try:
            over = excess(q)
        except ValueError:  # the activation grows too fast for such q, or has no derivative
            continue
        rises = [i for i in range(1, q.size) if over[i - 1] < -1e-9 * q[i - 1] and over[i] > 1e-9 * q[i]]
        if not rises:
            return math.nan
        low, high = np.log(q[rises[0] - 1]), np.log(q[rises[0]])
        return math.exp(float(brentq(lambda log_q: float(excess(math.exp(log_q))), low, high, xtol=1e-14, rtol=1e-14)))
    return math.nan


class _Plan:
    """The laws so far, and the variances that they lead to."""

    def __init__(self, layers: Sequence[Any], sigma_b2: float, kind: str, delta: bool, mean_square: float) -> None:
        self.laws: dict[int, LayerLaw] = {}
        self._sigma_b2, self._kind, self._delta, self._mean_square = sigma_b2, kind, delta, mean_square
        self._after: dict[int, Any] = {}  # what lies between a layer and the one that it alone leads to
        self._of_weight: dict[str, LayerLaw] = {}
        self._weight_names = {layer.number: layer.weight_name for layer in layers}
        self._in_loops = _first_of_loops(layers)
        for layer in layers:
            if layer.before.source in ("layer", "normalisation") and len(layer.before.layers) == 1:
                for number in layer.before.layers:
                    self._after.setdefault(number, layer.before)

    def add(self, law: LayerLaw) -> None:
        self.laws[law.number] = law
        name = self._weight_names[law.number]
        if name is not None:
            self._of_weight.setdefault(name, law)

    def law(self, layer: Any, fixed: bool = False) -> LayerLaw:
        """Of one layer, once all before it have theirs."""
        before, notes = layer.before, list[str]()
        phi, pool, b = before.activation, before.pool, self._sigma_b2 if layer.bias is not None else 0.0
        q, assumed = self._variance_before(before, notes)
        if phi is None:
            phi, assumed = _LINEAR, True
            notes.append(f"taken as linear: {before.note or 'the activation before it is not known'}")
        if before.spatial_pool:
            kind = before.spatial_pool.replace(" over positions", "")
            notes.append(f"pool over positions ({kind}) taken as none: neighbours become equal in depth")
        share = 1.0 if self._delta and layer.kind == "conv" else visible_share(layer)
        if share != 1.0:
            notes.append("fan-in less what lies in the zero padding")
        square = _moment(phi, pool, q) / (1.0 - before.dropout)
        shared = self._of_weight.get(layer.weight_name) if layer.shared else None
        free = _free(before) and not fixed and layer.number not in self._in_loops
        if fixed:
            own = layer.weight_variance * layer.fan_in * share
            w, b, rule = 1.0 if math.isnan(own) else own, layer.bias_variance, "as it was"
        elif shared is not None:
            w, b, rule = shared.sigma_w2, shared.sigma_b2, "shared"
            notes.append(f"shares its weights with layer {shared.number}")
        elif layer.number in self._in_loops:
            later = self._in_loops[layer.number]
            phi_later, pool_later = later.activation or _LINEAR, later.pool
            rest = resting_variance(phi_later, pool_later, self._sigma_b2)
            at = 1.0 if math.isnan(rest) else rest
            square_later = _moment(phi_later, pool_later, at)
            w, rule = self._critical(phi_later, pool_later, at, square_later, b, later.dropout, notes)
        elif free:
            w, rule = self._free(layer, square, b), "scale chosen"
        else:
            w, rule = self._critical(phi, pool, q, square, b, before.dropout, notes)
            if before.source == "normalisation" and self._kind == "gradient":
                w *= self._normalised(before, b)
        growth = abs(w * _square_dq(phi, pool, q)) if before.source == "layer" and not free else 0.0
        return LayerLaw(layer.number, w, b, w * square + b, share, growth, free, assumed, rule, "; ".join(notes))

    def _variance_before(self, before: Any, notes: list[str]) -> tuple[float, bool]:
        """Variance of what the activation sees, and whether it is a guess."""
        known = [self.laws[number].q for number in before.layers if number in self.laws]
        if before.source == "input":
            return self._mean_square, False
        if before.source == "normalisation":
            return 1.0, False
        if before.source == "sum" and known:
            return float(sum(known)), False
        if before.source == "attention" and known:
            notes.append("after attention: taken as a mean of equal values")
            return known[-1], False
        if before.source == "layer" and known:
            return float(np.mean(known)), False
        notes.append(f"unit variance assumed: {before.note or 'what it sees is not known'}")
        return 1.0, True

    def _normalised(self, before: Any, b: float) -> float:
        """The variance that a normalisation in a chain of layers divides by, and the gradients with it.

        Then chi = sigma_w2 D(1) / q, and q' = q V(1)/D(1) + sigma_b2 stays finite only with biases, or where V = D.
        """
        (number,) = before.layers if len(before.layers) == 1 else (0,)
        homogeneous = before.activation is not None and _homogeneous(before.activation)
        return self.laws[number].q if number in self.laws and (b > 0.0 or homogeneous) else 1.0

    def _free(self, layer: Any, square: float, b: float) -> float:
        """sigma_w2 that gives the variance at which the layers after it rest, or 1 where any will do."""
        after = self._after.get(layer.number)
        rest = math.nan
        if after is not None and after.source == "normalisation":
            return self._before_normalisation(after, square, b)
        if after is not None and after.activation is not None and not _homogeneous(after.activation):
            rest = resting_variance(after.activation, after.pool, self._sigma_b2)
        return (1.0 if math.isnan(rest) else rest - b) / square if square > 0.0 else 1.0

    def _before_normalisation(self, after: Any, square: float, b: float) -> float:
        """As _free, where the layer's output is normalised: q = q V(1)/D(1) + sigma_b2."""
        phi, rest = after.activation, 1.0 + b
        if phi is not None and not _homogeneous(phi) and b > 0.0:
            try:
                share = _moment(phi, after.pool, 1.0) / _moment(phi, after.pool, 1.0, derivative=1)
            except (ValueError, ZeroDivisionError):
                share = 1.0
            rest = b / (1.0 - share) if share < 1.0 else rest
        return (rest - b) / square if square > 0.0 else 1.0

    def _critical(
        self, phi: Activation, pool: Pool | None, q: float, square: float, b: float, dropout: float, notes: list[str]
    ) -> tuple[float, str]:
        if self._kind == "gradient":
            try:
                slope2 = _moment(phi, pool, q, derivative=1) / (1.0 - dropout)
            except ValueError as error:
                notes.append(f"stable variance instead of stable gradients: {error}")
            else:
                if slope2 > 0.0:
                    return 1.0 / slope2, "1 / E[phi'^2]"
        return (max(q - b, 0.1 * q) / square if square > 0.0 else 1.0), "q / E[phi^2]"


@lru_cache(maxsize=4096)
def _moment(phi: Activation, pool: Pool | None, q: float, derivative: int = 0) -> float:
    return float(moments(phi, q, derivative=derivative, pool=pool))


@lru_cache(maxsize=4096)
def _square_dq(phi: Activation, pool: Pool | None, q: float) -> float:
    """dV/dq."""
    try:
        return float(Expectations(phi, pool).single(q).square_dq)
    except ValueError:  # grows too fast
        return math.inf


def _scaled(law: LayerLaw, factor: float, note: str) -> LayerLaw:
    notes = f"{law.note}; {note}" if law.note else note
    w, b, q = (factor * value for value in (law.sigma_w2, law.sigma_b2, law.q))
    return replace(law, sigma_w2=w, sigma_b2=b, q=q, note=notes)


def _of_head(law: LayerLaw, wanted: float | None) -> LayerLaw:
    """The last layer has the law of all others, unless outputs of some variance are wanted, or theirs would be huge."""
    if wanted is None and law.q <= _LARGE_OUTPUT:
        return law
    target = 1.0 if wanted is None else wanted
    why = "outputs would be large: " if wanted is None else ""
    scaled = _scaled(law, target / law.q, f"{why}scaled to outputs of variance {target:g}")
    return replace(scaled, rule="outputs")


@lru_cache(maxsize=256)
def _homogeneous(phi: Activation) -> bool:
    """phi(a y) = a phi(y) for a > 0: by its values, whatever it is called."""
    x = np.array([-3.0, -0.7, 0.4, 2.0])
    return bool(np.allclose(phi(5.0 * x), 5.0 * phi(x), rtol=1e-12, atol=0.0))


def visible_share(layer: Any) -> float:
    """The share of its fan-in that a node of a convolution sees: zeros in the padding carry no signal.

    Deep in a stack, the signal is spread over the positions as the leading eigenvector of the map from positions to
    positions has it, so where that map is symmetric it is its eigenvalue that counts; elsewhere, the mean.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import torch
    >>> conv = torch.nn.Conv1d(8, 8, 3, padding=1)
    >>> layer = SimpleNamespace(kind="conv", owner=conv, weight=conv.weight, fan_in=24, shape=(8, 4))
    >>> round(visible_share(layer), 6)  # (1 + 2 cos(pi / 5)) / 3
    0.872678
    """
    conv = layer.owner
    if layer.kind != "conv" or getattr(conv, "padding_mode", None) != "zeros" or layer.weight is None:
        return 1.0
    backwards = bool(getattr(conv, "transposed", False))
    spatial = len(conv.kernel_size)
    channels = layer.weight.shape[0] // conv.groups if backwards else layer.weight.shape[1]
    seen = float(channels)
    for axis in range(spatial):
        after = conv._reversed_padding_repeated_twice[2 * (spatial - 1 - axis) :][:2]
        padding = (conv.padding[axis], conv.padding[axis]) if backwards else tuple(after)
        size = int(layer.shape[axis - spatial])
        seen *= _taps(size, conv.kernel_size[axis], conv.stride[axis], conv.dilation[axis], *padding, backwards)
    return seen / layer.fan_in


@lru_cache(maxsize=256)
def _taps(size: int, kernel: int, stride: int, dilation: int, left: int, right: int, backwards: bool) -> float:
    """How many taps of the kernel meet an input, along one axis with `size` outputs."""
    reach = dilation * (kernel - 1) + 1
    count = (size - reach + left + right) // stride + 1 if backwards else (size - 1) * stride + reach - left - right
    outputs, taps = np.meshgrid(np.arange(size), np.arange(kernel), indexing="ij")
    if backwards:
        at, rest = np.divmod(outputs + left - taps * dilation, stride)
        met = (rest == 0) & (at >= 0) & (at < count)
    else:
        at = outputs * stride - left + taps * dilation
        met = (at >= 0) & (at < count)
    if stride > 1 or left != right or count != size:
        return float(met.sum() / size)
    between = np.zeros((size, size))
    np.add.at(between, (outputs[met], at[met]), 1.0)
    return float(np.abs(np.linalg.eigvalsh(between)).max())
