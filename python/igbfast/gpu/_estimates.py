"""What the engines measure, collected on the device layer by layer and turned into the arrays that are returned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .. import _core

BINS = 1 << 16
COUNTED = ("mu", "var", "q", "c")


@dataclass
class LayerSums:
    """Sums of the layers of G networks, each (G, ...) on the device: the arguments of `_core.layer_estimates`."""

    units: list[Any] = field(default_factory=list)
    digits_kept: list[Any] = field(default_factory=list)
    nodes: list[Any] = field(default_factory=list)
    chi: list[Any] = field(default_factory=list)
    q: list[Any] = field(default_factory=list)
    c: list[Any] = field(default_factory=list)

    def add(self, *, units: Any, digits_kept: Any, nodes: Any, chi: Any, q: Any, c: Any) -> None:
        """One more layer."""
        for name, value in {"units": units, "digits_kept": digits_kept, "nodes": nodes, "chi": chi}.items():
            getattr(self, name).append(value)
        self.q.append(q)
        self.c.append(c)

    def estimates(self, *, inputs: int, sigma_w2: float, residual: float) -> dict[str, NDArray[np.float64]]:
        """Each estimate and its standard error, (G, layers)."""
        networks, layers = self.units[0].shape[0], len(self.units)
        rows = {
            name: torch.stack(getattr(self, name), 1).flatten(0, 1).cpu().numpy()
            for name in ("units", "digits_kept", "nodes", "chi", "q", "c")
        }
        found = _core.layer_estimates(inputs=inputs, sigma_w2=sigma_w2, residual=residual, **rows)
        return {name: values.reshape(networks, layers) for name, values in found.items()}


class Counts:
    """Histograms of one layer of G networks, (G, BINS) of each quantity, and the entries of all layers before."""

    def __init__(self, networks: int, device: Any, first: int = 0) -> None:
        self.now = torch.zeros(len(COUNTED), networks, BINS, dtype=torch.int64, device=device)
        self.first = first
        self._entries: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []

    def of(self, name: str) -> Any:
        """(G, BINS) that are being counted."""
        return self.now[COUNTED.index(name)]

    def end_layer(self, layer: int) -> None:
        """Keeps the bins that are not empty, in increasing order; `layer` from 0. All are empty then."""
        where = self.now.nonzero()
        counts = self.now[tuple(where.unbind(1))]
        self._entries.append((where.cpu().numpy(), counts.cpu().numpy(), np.full(len(where), layer)))
        self.now.zero_()

    def entries(self) -> dict[str, dict[str, NDArray[Any]]]:
        """Columns network, layer, bin, count of each histogram, layer by layer."""
        where, count, layer = (np.concatenate(column) for column in zip(*self._entries, strict=True))
        found = {}
        for number, name in enumerate(COUNTED):
            mine = where[:, 0] == number
            found[f"{name}_counts"] = {
                "network": (self.first + where[mine, 1]).astype(np.int32),
                "layer": layer[mine].astype(np.int32),
                "bin": where[mine, 2].astype(np.uint16),
                "count": count[mine].astype(np.int64),
            }
        return found


def joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """One result from those of consecutive networks."""
    whole: dict[str, Any] = {}
    for name, first in parts[0].items():
        if isinstance(first, dict):
            whole[name] = {key: np.concatenate([part[name][key] for part in parts]) for key in first}
        elif name == "beyond_table":
            whole[name] = any(part[name] for part in parts)
        else:
            whole[name] = np.concatenate([part[name] for part in parts])
    return whole


def power_of_two(exponent: Any) -> Any:
    """2^exponent of integers, exactly; beyond a double 0 or infinite."""
    half = torch.div(exponent, 2, rounding_mode="floor")
    return _built(half) * _built(exponent - half)


def _built(exponent: Any) -> Any:
    biased = (exponent.to(torch.int64) + 1023).clamp(0, 2047)  # 0: the number 0; 2047: infinity
    return (biased << 52).view(torch.float64)


def exponent_of(size: Any) -> Any:
    """The power of two that a float64 begins with, int64; 0 where it is not a positive normal number."""
    found = torch.frexp(size).exponent.to(torch.int64) - 1
    normal = torch.isfinite(size) & (size >= torch.finfo(torch.float64).tiny)
    return torch.where(normal, found, 0)
