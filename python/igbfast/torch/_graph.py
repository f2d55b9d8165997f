"""What is known of a model's layers: what each multiplies, what lies before it, what residual connections go around."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor, nn

from ..activations import Activation
from ..pools import Pool

__all__ = ["Before", "Branch", "Layer", "Trace"]


@dataclass(frozen=True)
class Before:
    """What lies between a layer and what it comes from."""

    source: str
    """Where the signal comes from: input, layer, normalisation, attention, sum or other."""
    layers: tuple[int, ...]
    """Numbers of the layers that reach this one without passing another."""
    activation: Activation | None
    """The elementwise function in between, "linear" if there is none; None if it could not be told."""
    pool: Pool | None = None
    """A pool over nodes."""
    spatial_pool: str | None = None
    """A pool over positions, such as "max 2x2"."""
    dropout: float = 0.0
    """The share of nodes that dropout takes away in this mode."""
    note: str = ""
    """What is not known, and why."""

    @property
    def plain(self) -> bool:
        """Whether the layer sees P(phi(y)) of another one, with nothing else in between."""
        return self.source == "layer" and self.activation is not None and self.spatial_pool is None and not self.note


@dataclass(frozen=True)
class Layer:
    """One product with a parameter, as it happened."""

    number: int
    """Counted from 1, in order of execution."""
    name: str
    """Name of the module that owns the weight; further uses of the same weight are marked (2), (3), ..."""
    kind: str
    """linear, conv or product (of a parameter that is no plain matrix)."""
    weight: nn.Parameter | None
    """The parameter; None where the weight is computed from several, or from a part of one."""
    weight_name: str
    """Its name; the names of all that it is computed from, where it is None."""
    bias: nn.Parameter | None
    """The parameter that is added, one number per node; None without one."""
    bias_name: str
    """Its name, or an empty string."""
    fan_in: int
    """Numbers that one node adds up."""
    fan_out: int
    """Nodes that one number reaches."""
    groups: int
    """Groups of a convolution; 1 otherwise."""
    transposed: bool
    """Whether the weight is stored with its inputs first: (in, out)."""
    shape: tuple[int, ...]
    """Shape of the output that belongs to one input, in the traced batch."""
    shared: bool
    """Whether several layers use the weight."""
    before: Before
    """What lies before it."""
    owner: nn.Module | None = field(repr=False)
    """The module whose parameter the weight is."""
    weight_variance: float
    """Mean square of the weights' entries, less the square of their mean."""
    bias_variance: float
    """Mean square of the biases; 0 without."""
    inner: int = field(repr=False)
    """Numbers of one input that lie together in the raw output."""
    together: bool = field(repr=False)
    """Whether all numbers of one input do."""

    def by_input(self, output: Tensor, count: int) -> Tensor:
        """The raw output, of any shape, as (count, *shape): one row per input."""
        if self.together:
            return output.reshape(count, *self._shape_of(output.numel() // count))
        rows = output.reshape(-1, count, self.inner).transpose(0, 1)
        return rows.reshape(count, *self._shape_of(output.numel() // count))

    def as_output(self, rows: Tensor, output: Tensor) -> Tensor:
        """The inverse: rows per input in the order and shape of the raw output."""
        count = len(rows)
        if self.together:
            return rows.reshape(output.shape)
        return rows.reshape(count, -1, self.inner).transpose(0, 1).reshape(output.shape)

    def _shape_of(self, size: int) -> tuple[int, ...]:
        """The shape of one input's output; sequences may be of another length than in the traced batch."""
        if size == math.prod(self.shape):
            return self.shape
        nodes = self.shape[0] if self.kind == "conv" else self.shape[-1]
        if size % nodes:
            return (size,)
        return (nodes, size // nodes) if self.kind == "conv" else (size // nodes, nodes)


@dataclass(frozen=True)
class Branch:
    """What a residual connection goes around."""

    number: int
    """Counted from 1, in order of execution."""
    layers: tuple[int, ...]
    """Numbers of all layers inside."""
    last: tuple[int, ...]
    """Those that nothing but elementwise functions and rearrangements part from the sum."""


@dataclass(frozen=True)
class Trace:
    """The layers of a model, in order of execution, and its residual branches."""

    model: nn.Module = field(repr=False)
    layers: tuple[Layer, ...]
    branches: tuple[Branch, ...]
    warnings: tuple[str, ...]
