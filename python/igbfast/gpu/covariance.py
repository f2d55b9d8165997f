"""The covariance of given inputs at infinite width, with all pairs of them on a GPU.

`_core.CovarianceLayers` knows each input and says what a step to the next layer takes; here it is done to every pair.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .. import _core
from ._device import Device, pointer

__all__ = ["CovarianceMap", "device_memory"]

FloatArray = NDArray[np.float64]

_DOUBLE = torch.float64
_MATRICES = 4  # K, T, and what phi makes of them (PairMatrices in csrc/cuda/covariance_map.h)
_PARTS, _STEEP = 4, 3  # sums over blocks of pairs: of K, D, c, and of what loses digits


def device_memory(inputs: int) -> float:
    """Bytes that a CovarianceMap takes there, about: the matrices, the one to hand out, and a series for each input."""
    return 8.0 * inputs * ((_MATRICES + 1) * inputs + 1000.0)


class CovarianceMap:
    """`_core.CovarianceMap`, whose pairs are on a GPU: one wait for it in each layer, for the sums over pairs.

    Parameters
    ----------
    device
        Where the pairs are.
    k0, inputs
        One of them, a contiguous float64 tensor there: (n, n), the covariance of the inputs, or (n, features).
    ensemble
        The rest of what `_core.CovarianceLayers` takes.
    """

    def __init__(self, device: Device, *, k0: Any = None, inputs: Any = None, **ensemble: Any) -> None:
        given = inputs if k0 is None else k0
        self.device, self.count = device, len(given)
        self._layers = _core.CovarianceLayers(inputs=self.count, **ensemble)
        blocks = device.kernels.covariance_blocks(self.count)
        self._matrices = torch.empty((_MATRICES, self.count, self.count), dtype=_DOUBLE, device=device.torch)
        self._parts = torch.empty((_PARTS, blocks), dtype=_DOUBLE, device=device.torch)
        if k0 is None:
            self._compare(inputs)
        else:
            self._start(k0)

    def advance(self, *, phi: _core.Phi, layer: int, callback: Callable[[float], None] | None = None) -> int:
        """On to that layer; how many layers are done, fewer where the variances outgrew `phi.q_max`."""
        self._layers.use(phi)
        first = self._layers.done
        while (step := self._layers.next_step(layer)) is not None:
            self._take(step)
            if callback is not None:
                callback((self._layers.done - first) / (layer - 1 - first))
        return min(self._layers.done, layer)

    def covariance(self) -> FloatArray:
        """(n, n), of the layer reached, in this machine's memory."""
        variances = self._layers.variances()
        if np.isnan(variances).any():
            return np.full((self.count, self.count), np.nan)
        upper = torch.triu(self._matrices[0], 1, out=self._matrices[2])
        whole = upper + upper.T
        whole.diagonal().copy_(torch.from_numpy(variances))
        result: FloatArray = whole.cpu().numpy()
        return result

    def columns(self) -> dict[str, FloatArray]:
        """One number for every layer."""
        return self._layers.columns()

    @property
    def largest_seen(self) -> float:
        """Variance of what phi sees next, at most."""
        return self._layers.largest_seen

    # ---- Layer 1 -----------------------------------------------------------------------------------------------------

    def _compare(self, x: Any) -> None:
        features = x.shape[1]
        self._call("compare_inputs", features, pointer(x, _DOUBLE, self.count, features))
        variance = _on_host((x * x).sum(1) * (1.0 / features))
        middle = _core.CovarianceLayers.middle_of(variance)
        changes = _on_host(((x - x[middle]) * (x + x[middle])).sum(1) * (1.0 / features))
        self._take(self._layers.first_step(middle, variance[middle], changes))

    def _start(self, k0: Any) -> None:
        self._call("start", pointer(k0, _DOUBLE, self.count, self.count))
        variance = _on_host(k0.diagonal())
        middle = _core.CovarianceLayers.middle_of(variance)
        self._take(self._layers.first_step(middle, variance[middle], variance - variance[middle]))

    # ---- A step ------------------------------------------------------------------------------------------------------

    def _take(self, step: dict[str, Any]) -> None:
        arrays = self._moved(np.concatenate([step["inputs"], step["next"], step["means"]]))
        of_inputs, of_next, means = (part.data_ptr() for part in arrays.split((5, 5, 2)))
        seen = (arrays.shape[1], of_inputs)
        self._matrices[2:].zero_()
        self._parts[_STEEP].zero_()
        if step["needs_angles"]:
            self._call("find_angles", *seen)
            self._layers.make_curves(float(self._parts[0].min()), float(self._parts[1].max()))
        routes = self._layers.routes()
        for kind, weight, *rest in routes:
            if kind != "direct":
                self._add(kind, seen, step["mirrored"], weight, *rest)
        steep, rounding = self._integrate() if any(kind == "direct" for kind, *_ in routes) else (0.0, 0.0)
        self._call("settle", *seen, step["mirrored"], of_next, means, *(step[x] for x in _MAP))
        covariance, distance, correlation, of_routes = self._parts.sum(1).tolist()
        self._layers.end_step(covariance, distance, correlation, of_routes + steep, rounding)

    def _add(self, kind: str, seen: tuple[int, int], mirrored: bool, weight: float, *rest: Any) -> None:
        tensors = [self._moved(value) if isinstance(value, np.ndarray) else value for value in rest]
        numbers = (value.data_ptr() if isinstance(value, torch.Tensor) else value for value in tensors)
        symmetry = () if kind == "curve" else (mirrored,)
        self._call(f"add_{kind}", *seen, *symmetry, weight, *numbers)

    def _integrate(self) -> tuple[float, float]:
        """What is integrated pair by pair, on the host: a millisecond each, so that the way there does not count."""
        product, spread, steep, rounding = self._layers.integrate_pairs(*(_on_host(k) for k in self._matrices[:2]))
        self._matrices[2] += self._moved(product)
        self._matrices[3] += self._moved(spread)
        return steep, rounding

    def _moved(self, array: FloatArray) -> Any:
        return torch.from_numpy(array).to(self.device.torch)

    def _call(self, name: str, *args: Any) -> None:
        matrices, parts = self._matrices.data_ptr(), self._parts.data_ptr()
        self.device.call(f"covariance_{name}", self.count, matrices, parts, *args)


_MAP = ("carry", "gain", "cross", "bias")  # of PairMap in csrc/core/covariance_pairs.h


def _on_host(tensor: Any) -> FloatArray:
    result: FloatArray = tensor.cpu().numpy()
    return result
