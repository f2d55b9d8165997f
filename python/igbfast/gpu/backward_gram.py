"""Backward by the exact conditional law of the weights: the twin of csrc/cpu/backward_gram.cpp, where it is derived.

With s^2 = sigma_w2 / fan_in, s^2 x^T x = L L^T, W x = Z L^T, Q = s x L^-T and delta = dLoss/dy^(l+1),
    W^T delta = s [Q (Z^T delta) + (1 - Q Q^T) E K] = x by_x + E by_fresh,   K^T K = delta^T delta,
E standard normal. For orthogonal weights Z is sqrt(order) times a frame V, and K = sqrt(order) C_E^-T C_S^T with
C_S C_S^T = delta^T (1 - V V^T) delta and C_E C_E^T = E^T (1 - Q Q^T) E.

Gradients of each input are in a power of two of their own: those of inputs that the network already puts into their
class vanish long before the others. Matrices of lower rank than their order are filled up, so that a batch stays one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from . import _factor, _gram, _layer
from ._estimates import exponent_of, power_of_two
from ._factor import rows_of, solve
from ._gram_run import GramRun, GramState, first_member
from ._layout import Slab
from ._sampling import Stream


def backward_gram(run: GramRun, state: GramState, advance: Callable[[], None]) -> dict[str, Any]:
    """`gradient` (G, depth, inputs) and `gradient_se` (G, depth) of networks that went forward."""
    return GramBackward(run, state).all(advance)


class GramBackward:
    """A group of networks on its way back."""

    def __init__(self, run: GramRun, state: GramState) -> None:
        self.run, self.state = run, state
        self.accuracy = torch.finfo(run.dtype).eps
        # From the loss to Z^T delta of the head. Its weights are Gaussian, and few: K is delta itself.
        loss = run.loss or ""
        delta, exponent = _gram.loss_gradient(run.device, state.logits, state.labels, loss, run.dtype)
        self.exponent = exponent.to(torch.int64)
        self.fresh_part = delta.mT.double()
        """What E is multiplied by, without the gain: (G, rows of E, inputs)."""
        normals = state.head_normals[:, :, : run.outputs].double()
        self.from_above = run.exact.multiply(normals, self.fresh_part)
        """Z^T delta of the layer above."""
        self.squares: Any = None
        """delta^T delta."""
        self.carry = torch.ones_like(self.exponent, dtype=run.dtype)
        """From the units of the layer above to those of this one."""
        # Residual networks and norms: delta, slab by slab, and what goes into the norm's derivative.
        self.delta: list[Any] = []
        self.direct: list[Any] = []
        if run.held:
            self.delta = [run.empty(state, run.inputs, slab).zero_() for slab in run.slabs]

    def all(self, advance: Callable[[], None]) -> dict[str, Any]:
        """Layer by layer, the last one first."""
        run = self.run
        found = []
        for layer in range(run.depth, 0, -1):
            self.begin_layer(layer)
            if run.held:
                self.gather(layer)
                self.spread(layer)
            else:
                self.go_through(layer)
            found.append(self.end_layer(layer))
            advance()
        gradient, error = zip(*reversed(found), strict=True)
        return {"gradient": torch.stack(gradient, 1).cpu().numpy(), "gradient_se": torch.stack(error, 1).cpu().numpy()}

    def begin_layer(self, layer: int) -> None:
        """What W^T delta is made of, from Z^T delta and K of the layer above."""
        run, state = self.run, self.state
        factor, n = state.layers[layer].factor, run.inputs
        s = math.sqrt(run.gain(layer + 1))
        root = math.sqrt(run.residual) if run.branch(layer + 1) else 1.0
        lower = factor.square()
        # Q^T E = s L^-1 x^T E.
        shadow = solve(lower, s * rows_of(state.layers[layer - 1].fresh, factor.rows) * factor.mask[:, :, None])
        if run.fresh_is_orthogonal(layer):
            self.normals_to_frame(layer)
            self.set_orthogonal_part(layer, shadow)
        # Z^T delta - Q^T E K, then s L^-T times it.
        known = factor.leading(self.from_above) - run.exact.multiply(shadow, self.fresh_part)
        known = solve(lower, known, transposed=True) * factor.mask[:, :, None]
        where = factor.rows[:, :, None].expand(-1, -1, n)
        by_x = torch.zeros_like(self.from_above).scatter_(1, where, root * s * s * known)
        self.by_x = by_x.mT.to(run.dtype).contiguous()
        self.by_fresh = (root * s * self.fresh_part).mT.to(run.dtype).contiguous()
        self.clear()

    def clear(self) -> None:
        """Sums that the slabs of a layer add to, and the weights of the inputs in the average over them."""
        networks, n = self.exponent.shape
        double = {"dtype": torch.float64, "device": self.exponent.device}
        self.from_above, self.squares = torch.zeros(2, networks, n, n, **double)
        self.sum, self.sum_z = torch.zeros(2, networks, n, **double)
        self.node_sum, self.node_sum2 = torch.zeros(2, networks, **double)
        self.largest = self.exponent.amax(1)
        self.weights = power_of_two(2 * (self.exponent - self.largest[:, None])) / n

    def normals_to_frame(self, layer: int) -> None:
        """Z^T delta = sqrt(order) C^-1 G^T delta, in the rows of L's columns."""
        above = self.state.layers[layer]
        kept = solve(above.frame, above.factor.leading(self.from_above))
        where = above.factor.columns[:, :, None].expand(-1, -1, self.run.inputs)
        self.from_above = torch.zeros_like(kept).scatter_(1, where, math.sqrt(self.run.order(layer + 1)) * kept)

    def set_orthogonal_part(self, layer: int, shadow: Any) -> None:
        """K for orthogonal weights above, in as many rows as what is left of delta has directions; the rest is zero."""
        run, state = self.run, self.state
        factor, order, n = state.layers[layer].factor, run.order(layer + 1), run.inputs
        on_frame = factor.leading(self.from_above)  # sqrt(order) V^T delta
        unseen = self.squares - run.exact.multiply(on_frame.mT, on_frame) / order
        unseen.diagonal(dim1=1, dim2=2).clamp_(min=0.0)
        room = [min(n, order - rank) for rank in factor.ranks]  # directions that neither frame has
        k, of_unseen = _factor.root(unseen, self.accuracy, room)
        outside = state.layers[layer - 1].fresh_squares - run.exact.multiply(shadow.mT, shadow)
        c, directions = _factor.leading_factor(outside, of_unseen.ranks, self.accuracy)
        inside = torch.arange(n, device=k.device) < torch.tensor(directions, device=k.device)[:, None]
        self.fresh_part = solve(c, math.sqrt(order) * torch.where(inside[:, :, None], k, 0.0), transposed=True)

    def pull_back(self, layer: int, slab: Slab, tile: Any) -> tuple[Any, Any]:
        """delta of a slab, W^T delta by the slopes, and its weighted squares, node by node; y in the tile becomes x."""
        run, state = self.run, self.state
        slopes = run.activate(state.layers[layer - 1], slab, tile, True).slopes
        fresh = run.normals(state, layer, Stream.FRESH, first_member(slab), run.fresh_rows(layer))
        back = run.products.multiply(self.by_x, tile[:, :, : slab.member])
        run.products.multiply(self.by_fresh, fresh, back, add=True)
        every_member = back.repeat(1, 1, slab.members) if slab.members > 1 else back
        squares = _layer.multiply(run.device, slab, slopes, every_member, slopes, self.weights)
        return slopes, squares

    def sum_up(self, layer: int, slab: Slab, delta: Any, squares: Any, normals: Any) -> None:
        """delta^T delta, Z^T delta and the nodes' squared gradients."""
        run = self.run
        for member in range(slab.members):
            here = squares[:, member * slab.member : member * slab.member + slab.nodes]
            self.node_sum += run.sums(here)
            self.node_sum2 += run.sums(here.square())
        self.squares += run.over_nodes(slab, delta, delta, slab.members)
        if layer > 1:
            self.from_above += run.over_nodes(slab, normals, delta, slab.members)

    def go_through(self, layer: int) -> None:
        """A plain layer: every slab by itself, drawn again."""
        run, state = self.run, self.state
        for slab in run.slabs:
            tile, normals = run.draw(state, state.layers[layer - 1], layer, slab)
            delta, squares = self.pull_back(layer, slab, tile)
            self.sum_up(layer, slab, delta, squares, normals)

    def gather(self, layer: int) -> None:
        """A layer with a norm or a skip connection, first half: what goes back through phi, and its sums."""
        run, state = self.run, self.state
        self.direct = []
        for index, slab in enumerate(run.slabs):
            direct, _ = self.pull_back(layer, slab, state.held[layer - 1][index].clone())
            self.direct.append(direct)
            if run.layernorm:
                self.sum_with_z(slab, direct, self.normed(layer, index))

    def normed(self, layer: int, index: int) -> Any:
        """z of every input, by itself rather than as differences."""
        run, norm = self.run, self.state.layers[layer - 1].norm
        z = self.state.held[layer - 1][index].clone()
        _layer.map_columns(run.device, run.slabs[index], norm.maps, z)
        unit = norm.units[:, 1].to(z.dtype)[:, None, None]
        z[:, 1:] = z[:, :1] + unit * z[:, 1:]
        return z

    def sum_with_z(self, slab: Slab, direct: Any, z: Any) -> None:
        """Of t and t z over the nodes, in float64."""
        for member in range(slab.members):
            rows = slice(member * slab.member, member * slab.member + slab.nodes)
            t = direct[:, :, rows]
            self.sum += self.run.sums(t)
            self.sum_z += self.run.sums(t.double() * z[:, :, rows])

    def spread(self, layer: int) -> None:
        """Second half: through the norm, delta = t - mean(t) - z mean(t z); and what skipped the layer."""
        run, state = self.run, self.state
        skipped = run.branch(layer + 1)
        for index, slab in enumerate(run.slabs):
            change, delta = self.direct[index], self.delta[index]
            if run.layernorm:
                mean, slope = ((of / run.width).to(run.dtype)[:, :, None] for of in (self.sum, self.sum_z))
                change -= self.normed(layer, index).mul_(slope).add_(mean)
            delta.mul_(self.carry[:, :, None] if skipped else 0.0).add_(change)
            self.direct[index] = None
            squares = run.exact.multiply(self.weights[:, None, :], delta.double().square())[:, 0]
            normals = run.normals(state, layer, Stream.GRAM, slab, run.inputs) if layer > 1 else None
            # Here delta is dLoss/dy, but W and the bias of a residual layer stand behind sqrt(a): begin_layer knows.
            self.sum_up(layer, slab, delta, squares, normals)

    def end_layer(self, layer: int) -> tuple[Any, Any]:
        """The gradients of the layer by input, and the error of their mean."""
        run = self.run
        squares = self.squares.diagonal(dim1=1, dim2=2) / run.width
        gradient = in_units(squares, self.exponent)
        mean = self.node_sum / run.width
        scatter = (self.node_sum2 / run.width - mean.square()).clamp(min=0.0)
        error = (scatter / (run.width - 1)).sqrt() if run.width > 1 else torch.full_like(mean, math.nan)
        error = in_units(error, self.largest)
        if layer > 1:
            self.rescale(squares)
        return gradient, error

    def rescale(self, squares: Any) -> None:
        """delta next to one again, and K of this layer."""
        shift = exponent_of(squares.sqrt())
        factor = power_of_two(-shift)
        self.exponent = self.exponent + shift
        self.carry = factor.to(self.run.dtype)
        self.from_above = self.from_above * factor[:, None, :]
        self.squares = self.squares * factor[:, :, None] * factor[:, None, :]
        if not self.run.orthogonal:  # for which begin_layer asks for more than K
            n, networks = self.run.inputs, self.state.networks
            self.fresh_part, _ = _factor.root(self.squares, self.accuracy, [n] * networks)


def in_units(square: Any, exponent: Any) -> Any:
    """square * 4^exponent: 0 where it vanishes even for a double, nan where it overflows."""
    value = square * power_of_two(exponent) * power_of_two(exponent)
    return torch.where(torch.isfinite(value), value, math.nan)
