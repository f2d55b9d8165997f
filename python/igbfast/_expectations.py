"""Gaussian expectations of a pooled activation P, in arrays: what every function of the theory asks the core for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _core
from .activations import Activation
from .ensemble import Ensemble
from .pools import Pool

if TYPE_CHECKING:
    from .gpu._device import Device

__all__ = ["Expectations", "Singles", "Splits", "of_ensemble", "one_device"]

FloatArray = NDArray[np.float64]


class Singles(NamedTuple):
    """Expectations over one input's pre-activations, normal of variance q."""

    mean: FloatArray
    """E[P]."""
    square: FloatArray
    """V = E[P^2]."""
    slope2: FloatArray
    """D = E[P'^2], what sigma_w2 multiplies to give chi."""
    square_dq: FloatArray
    """dV/dq, what sigma_w2 multiplies to give chi_q."""


class Splits(NamedTuple):
    """Expectations over two inputs' pre-activations u, v of covariance sigma_mu2, variance sigma_mu2 + sigma_y2."""

    centre: FloatArray
    """E[P(u) P(v)]."""
    spread: FloatArray
    """E[(P(u) - P(v))^2] / 2, without cancellation."""


@dataclass(frozen=True, slots=True)
class Expectations:
    """The expectations of one activation and pool."""

    activation: Activation
    pool: Pool | None = None
    device: Device | None = None
    """The GPU that integrates, or None: the CPU."""

    @property
    def takes_extremes(self) -> bool:
        """Whether the pool picks one of its nodes."""
        return self.pool is not None and self.pool.kind in ("max", "min")

    def phi(self, largest: float) -> _core.Phi:
        """The activation as the core integrates it, for variances up to `largest`."""
        return self.activation._core_phi(largest, table=self.takes_extremes)

    @property
    def pooled(self) -> tuple[str, int]:
        """Kind and size of the pool, in the core's words."""
        return ("none", 1) if self.pool is None else (self.pool.kind, self.pool.size)

    def single(self, q: ArrayLike) -> Singles:
        """At every variance q."""
        flat, shape = _flat(q)
        if self.device is not None:
            rows = self._on_device("single", flat)
            return Singles(*(rows[:, i].reshape(shape) for i in range(4)))
        kind, size = self.pooled
        rows = _core.single_moments(phi=self.phi(_largest(flat)), pool=kind, size=size, q=flat)
        return Singles(*(rows[:, i].reshape(shape) for i in range(4)))

    def split(self, sigma_mu2: ArrayLike, sigma_y2: ArrayLike) -> Splits:
        """At every covariance sigma_mu2 and variance sigma_mu2 + sigma_y2."""
        centre, shape = _flat(sigma_mu2)
        around, _ = _flat(sigma_y2)
        if self.device is not None:
            rows = self._on_device("split", centre, around)
            return Splits(rows[:, 0].reshape(shape), rows[:, 1].reshape(shape))
        kind, size = self.pooled
        phi = self.phi(_largest(centre + around))
        rows = _core.split_moments(phi=phi, pool=kind, size=size, sigma_mu2=centre, sigma_y2=around)
        return Splits(rows[:, 0].reshape(shape), rows[:, 1].reshape(shape))

    def pair(self, derivative: int, q_a: ArrayLike, q_b: ArrayLike, c: ArrayLike) -> FloatArray:
        """E[P^(m)(u) P^(m)(v)] for normal u, v of variances q_a, q_b and correlation c."""
        first, second, correlation = np.broadcast_arrays(
            *(np.asarray(x, np.float64) for x in (q_a, q_b, c)),
        )
        if self.device is not None:
            flat = (np.ascontiguousarray(x).ravel() for x in (first, second, correlation))
            return self._on_device("pair", derivative, *flat).reshape(first.shape)
        kind, size = self.pooled
        found = _core.moments(
            phi=self.phi(max(_largest(first), _largest(second))),
            pool=kind,
            size=size,
            derivative=derivative,
            q_aa=first.ravel(),
            q_bb=second.ravel(),
            c=correlation.ravel(),
        )
        return found.reshape(first.shape)

    def _on_device(self, name: str, *args: Any) -> FloatArray:
        """One of the functions of gpu/theory.py, of arrays and in arrays of NumPy's."""
        from .gpu import theory

        assert self.device is not None
        tensors = (theory.tensor_on(self.device, x) if isinstance(x, np.ndarray) else x for x in args)
        found: FloatArray = getattr(theory, name)(self.device, self, *tensors).cpu().numpy()
        return found


def one_device(device: object) -> Device | None:
    """The GPU that is asked for; None for the CPU."""
    from .gpu import _device

    if _device.is_cpu(device):
        return None
    found = _device.find(device)
    if len(found) > 1:
        raise ValueError(f"device must be 'cpu' or one GPU here, got {device!r}, which is {len(found)}")
    return found[0]


def of_ensemble(ens: Ensemble) -> Expectations:
    """The expectations that the recursion of this ensemble is made of."""
    return Expectations(ens.activation, ens.pool)


def _flat(values: ArrayLike) -> tuple[FloatArray, tuple[int, ...]]:
    array = np.asarray(values, np.float64)
    return array.ravel(), array.shape


def _largest(array: FloatArray) -> float:
    return float(np.max(array, initial=0.0))
