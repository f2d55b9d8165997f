"""What a layer's outputs and gradients say of it, accumulated batch by batch in double precision.

From outputs y_i(a) of nodes i and inputs a: the initial-guessing-bias way (moments over the inputs, then the nodes) and
the mean-field way (over the nodes, then inputs and pairs of them),

    mu_i = mean_a y_i    sigma_y2 = mean_i var_a y_i    sigma_mu2 = var_i mu_i - sigma_y2 / inputs
    q = mean_ia y_i(a)^2    1 - c = mean over pairs of |u(a) - u(b)|^2 / 2,   u(a) = y(a) / |y(a)|

where the last is the variance of the u(a), summed over the nodes: no pair is ever formed. Where all inputs become one,
sigma_y2 and 1 - c are tiny beside q: they are made from differences to the first input, which are exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Estimates", "GradientStatistics", "LayerStatistics", "largest_gamma"]

_TILE = 2**15  # numbers turned into double precision at a time: 256 KiB, which the caches hold


def largest_gamma(dtype: Any) -> float:
    """The largest gamma that outputs of this dtype can tell: beyond it the inputs differ by their rounding.

    (8 eps)^-2, which is 1.1e12 in float32, 3.2e29 in float64 and 256 in bfloat16.
    """
    return float((8.0 * torch.finfo(dtype).eps) ** -2)


@dataclass(frozen=True)
class Estimates:
    """What the outputs of one layer say."""

    inputs: int
    """Inputs seen."""
    units: float
    """Numbers in the output of one input; their mean where inputs differ in size."""
    sigma_mu2: float
    """Variance of the nodes' centres; nan with a single node."""
    sigma_y2: float
    """Mean variance around them; nan with a single input."""
    q: float
    """Mean square."""
    one_minus_c: float
    """1 less the mean correlation of two inputs."""

    @property
    def gamma(self) -> float:
        """sigma_mu2 / sigma_y2; nan where inputs do not differ at all."""
        return self.sigma_mu2 / self.sigma_y2 if self.sigma_y2 > 0.0 else math.nan

    @property
    def c(self) -> float:
        """Mean correlation of two inputs."""
        return 1.0 - self.one_minus_c


class LayerStatistics:
    """Estimates of one layer from any number of batches.

    Batches whose outputs have the same shape are merged (Chan, Golub and LeVeque, 1979), node by node, as if they had
    come at once. Where the shape changes, as that of sentences does, nodes are not the same any more: each run of equal
    shapes gives its own estimates, which are averaged with the numbers of inputs as weights.
    """

    def __init__(self) -> None:
        self._run: _Run | None = None
        self._finished: list[Estimates] = []

    def add(self, y: Any) -> None:
        """Takes the outputs of a batch, a tensor of shape (inputs, ...) of any floating dtype and on any device."""
        y = y.detach()
        if self._run is None or self._run.shape != y.shape[1:]:
            self._finish()
            self._run = _Run(y)
        self._run.add(y.reshape(len(y), -1))

    def estimates(self) -> Estimates:
        """What all batches say so far."""
        runs = [*self._finished, *([self._run.estimates()] if self._run is not None else [])]
        if not runs:
            return Estimates(0, *([math.nan] * 5))
        names = ("units", "sigma_mu2", "sigma_y2", "q", "one_minus_c")
        return Estimates(sum(run.inputs for run in runs), *(_averaged(runs, name) for name in names))

    def _finish(self) -> None:
        if self._run is not None:
            self._finished.append(self._run.estimates())
            self._run = None


class GradientStatistics:
    """Squared gradients of one layer, of each input's own loss by its own outputs: in all and by class."""

    def __init__(self, classes: int = 0) -> None:
        self.inputs = 0
        self._units = 0.0  # each of these summed over the inputs
        self._square = 0.0
        self._class_squares, self._class_inputs = np.zeros(classes), np.zeros(classes)
        self._class_units = np.zeros(classes)

    def add(self, gradient: Any, labels: NDArray[np.int64] | None = None) -> None:
        """Takes the gradients of a batch, a tensor of shape (inputs, ...), and the inputs' labels."""
        rows = gradient.detach().reshape(len(gradient), -1)
        squares = _square_lengths(rows).cpu().numpy()
        self.inputs += len(squares)
        self._units += squares.size * rows.shape[1]
        self._square += float(squares.sum()) if np.isfinite(squares).all() else math.inf
        if labels is not None:
            classes = len(self._class_squares)
            counts = np.bincount(labels, minlength=classes)
            self._class_squares += np.bincount(labels, squares, minlength=classes)
            self._class_inputs += counts
            self._class_units += counts * rows.shape[1]

    @property
    def mean_square(self) -> float:
        """Over inputs and nodes; nan before anything came, inf where it overflowed."""
        return self._square / self._units if self._units else math.nan

    @property
    def square_length(self) -> float:
        """The sum over the nodes, averaged over the inputs: what chi multiplies; nan before anything came."""
        return self._square / self.inputs if self.inputs else math.nan

    @property
    def mean_square_by_class(self) -> NDArray[np.float64]:
        """`mean_square` of the inputs with each label; nan for a class that no input has."""
        with np.errstate(invalid="ignore"):
            means: NDArray[np.float64] = self._class_squares / self._class_units
        return means


class _Run:
    """Batches of one shape."""

    def __init__(self, first: Any) -> None:
        self.shape = first.shape[1:]
        rows = first.reshape(len(first), -1)
        self._device = torch.device("cpu") if first.device.type == "mps" else first.device  # which has no float64
        self._origin = rows[0].clone()
        self._mean = torch.zeros(rows.shape[1], dtype=torch.float64, device=self._device)
        self._spread = torch.zeros_like(self._mean)
        self._inputs = 0
        self._square = 0.0
        # Of the directions u(a). Inputs whose outputs are all zero have none.
        self._first_direction: Any = None
        self._mean_direction = torch.zeros_like(self._mean)
        self._directions = 0
        self._direction_spread = 0.0

    def add(self, rows: Any) -> None:
        squares = _square_lengths(rows).to(self._device)
        lengths = squares.sqrt()
        there = torch.nonzero((lengths > 0.0) & torch.isfinite(lengths)).flatten()
        if self._first_direction is None and len(there):
            self._first_direction = rows[there[0]].to(self._device).double() / lengths[there[0]]
        for tile in _tiles(rows):
            y = rows[:, tile].to(self._device).double()
            self._add_nodes(tile, y)
            if len(there):
                self._add_directions(tile, y[there] / lengths[there, None])
        self._inputs += len(rows)
        self._directions += len(there)
        self._square += float(squares.sum())

    def _add_nodes(self, tile: slice, y: Any) -> None:
        deviations = y - self._origin[tile].to(y)
        mean = deviations.mean(0)
        shift = _merge(self._mean[tile], self._inputs, mean, len(y))
        self._spread[tile] += (deviations - mean).square_().sum(0).add_(shift)

    def _add_directions(self, tile: slice, u: Any) -> None:
        deviations = u - self._first_direction[tile]
        mean = deviations.mean(0)
        shift = _merge(self._mean_direction[tile], self._directions, mean, len(u))
        self._direction_spread += float((deviations - mean).square_().sum() + shift.sum())

    def estimates(self) -> Estimates:
        n, nodes = self._inputs, self._mean.numel()
        sigma_y2 = float(self._spread.mean()) / (n - 1) if n > 1 and nodes else math.nan
        centres = self._mean + self._origin.to(self._mean)
        centres_variance = float(centres.var()) if nodes > 1 else math.nan
        pairs = self._directions - 1 if math.isfinite(self._square) else 0
        return Estimates(
            inputs=n,
            units=float(nodes),
            sigma_mu2=centres_variance - sigma_y2 / n,
            sigma_y2=sigma_y2,
            q=self._square / (n * nodes) if nodes else math.nan,
            one_minus_c=self._direction_spread / pairs if pairs > 0 else math.nan,
        )


def _merge(mean: Any, count: int, other: Any, other_count: int) -> Any:
    """Moves a mean, in place, to that of both samples; the answer is what their distance adds to the squares."""
    step, share = other - mean, other_count / (count + other_count)
    mean += share * step
    return step.square_().mul_(count * share)


def _square_lengths(rows: Any) -> Any:
    """Sums of squares of the rows, in double precision, where nothing over- or underflows."""
    device = torch.device("cpu") if rows.device.type == "mps" else rows.device
    total = torch.zeros(len(rows), dtype=torch.float64, device=device)
    for tile in _tiles(rows):
        total += rows[:, tile].to(device).double().square().sum(1)
    return total


def _tiles(rows: Any) -> Iterator[slice]:
    """Slices of the columns, so many that a tile stays small."""
    columns = max(64, _TILE // max(1, len(rows)))
    for begin in range(0, rows.shape[1], columns):
        yield slice(begin, begin + columns)


def _averaged(runs: list[Estimates], name: str) -> float:
    """With the inputs as weights, over the runs that could say."""
    values, weights = np.array([[getattr(run, name), run.inputs] for run in runs]).T
    told = ~np.isnan(values)
    return float(np.average(values[told], weights=weights[told])) if told.any() else math.nan
