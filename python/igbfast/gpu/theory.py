"""Gaussian expectations at many points at once, and the recursion of many networks at once, on a GPU in float64.

Closed forms take a thread a point, quadrature and tables a block of 128 threads: a GPU is busy from some thousand
points on. Below some hundred points, or for a single trajectory (whose layers wait for one another), the CPU is faster.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .. import _checks, _core
from .._expectations import Expectations
from ._device import Device, pointer

__all__ = ["DevicePhi", "moments", "pair", "require_support", "single", "split", "tensor_on", "trajectories"]

STRETCH = 256
"""Layers between two looks at Ctrl-C: some milliseconds for closed forms, a second for tables."""
REACH = 4.0
"""How much further a table goes that q has outgrown."""
COLUMNS = ("sigma_mu2", "sigma_y2", "gamma", "q", "c", "chi")

_CLOSED, _RULED, _TABULATED = range(3)  # cuda/expectations.h, TheoryKind


# ---- phi -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DevicePhi:
    """phi in the memory of a device, as the kernels read it."""

    device: Device
    kind: int
    count: int
    shares: torch.Tensor
    rules: torch.Tensor
    arrays: tuple[torch.Tensor, ...]
    """What `shares` points to."""

    def words(self, average: int) -> tuple[int, int, int, int, int]:
        """For an average pool of so many nodes, or 0."""
        return self.kind, self.count, self.shares.data_ptr(), average, self.rules.data_ptr()


@lru_cache(maxsize=32)
def on_device(device: Device, phi: _core.Phi) -> DevicePhi:
    """A copy of phi there; the last ones are kept."""
    shares, arrays, kind = [], [], _CLOSED
    for weight, name, parameter, table in phi.parts:
        if table is None:
            shares.append((weight, name, parameter, 0, 0, 0, 0, 0, False))
            kind = max(kind, _RULED if name == "tanh" else _CLOSED)
            continue
        numbers, by_x = _table_arrays(device, table)
        arrays += [numbers, by_x]
        sizes = table.edges.size - 1, table.kinks.size
        where = numbers.data_ptr(), by_x.data_ptr()
        shares.append((weight, "table", 0.0, *where, *sizes, table.parity, table.one_sign))
        kind = _TABULATED
    packed = _bytes_on(device, device.kernels.theory_shares(shares))
    rules = _bytes_on(device, device.kernels.table_rules())
    return DevicePhi(device, kind, len(shares), packed, rules, tuple(arrays))


def _table_arrays(device: Device, table: _core.Table) -> tuple[torch.Tensor, torch.Tensor]:
    log_bounds = np.log(table.largest + 1e-300)
    parts = (table.edges, table.series, log_bounds, table.kinks, table.jumps)
    numbers = np.concatenate([np.asarray(part, np.float64).ravel() for part in parts])
    by_x = np.ascontiguousarray(table.by_x, np.uint8).ravel()
    return torch.from_numpy(numbers).to(device.torch), torch.from_numpy(by_x).to(device.torch)


def _bytes_on(device: Device, data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).to(device.torch)


def require_support(expect: Expectations) -> None:
    """Pools of extremes are not there."""
    if expect.takes_extremes:
        raise ValueError(
            f"pool must be an AvgPool or None on a GPU, got {expect.pool}: expectations of the largest of several "
            "nodes are integrated on the CPU alone, with device='cpu'"
        )


def _average(expect: Expectations) -> int:
    """Nodes of the average pool, or 0."""
    require_support(expect)
    return 0 if expect.pool is None else expect.pool.size


# ---- Expectations ----------------------------------------------------------------------------------------------------


def tensor_on(device: Device, array: NDArray[np.float64]) -> torch.Tensor:
    """A copy of an array there."""
    return torch.from_numpy(np.array(array, np.float64)).to(device.torch)


def single(device: Device, expect: Expectations, q: torch.Tensor) -> torch.Tensor:
    """Rows of E[P], E[P^2], E[P'^2], d E[P^2] / dq and d E[P] / dq at every variance; q: float64, one-dimensional."""
    average = _average(expect)
    phi = on_device(device, expect.phi(_largest(q)))
    out = q.new_empty(q.numel(), 5)
    device.call("single_moments", phi.words(average), q.numel(), _pointer(q), out.data_ptr())
    return out


def split(device: Device, expect: Expectations, sigma_mu2: torch.Tensor, sigma_y2: torch.Tensor) -> torch.Tensor:
    """Rows of E_mu[(E_e P)^2] and E_mu[Var_e P], y = mu + e, at every pair of variances."""
    average = _average(expect)
    phi = on_device(device, expect.phi(_largest(sigma_mu2 + sigma_y2)))
    out = sigma_mu2.new_empty(sigma_mu2.numel(), 2)
    count = sigma_mu2.numel()
    device.call(
        "split_moments", phi.words(average), count, _pointer(sigma_mu2), _pointer(sigma_y2, count), out.data_ptr()
    )
    return out


def pair(
    device: Device, expect: Expectations, derivative: int, q_a: torch.Tensor, q_b: torch.Tensor, c: torch.Tensor
) -> torch.Tensor:
    """E[P^(m)(u) P^(m)(v)] at every point."""
    average = _average(expect)
    phi = on_device(device, expect.phi(max(_largest(q_a), _largest(q_b))))
    out, count = torch.empty_like(q_a), q_a.numel()
    places = _pointer(q_a), _pointer(q_b, count), _pointer(c, count), out.data_ptr()
    device.call("pair_moments", phi.words(average), derivative, count, *places)
    return out


def moments(device: Device, expect: Expectations, derivative: int, q: Any, q_b: Any, c: Any) -> Any:
    """`igbfast.moments` of arguments that have been looked at, but for those that are on the device already.

    A torch.Tensor, on the device, of the shape that they broadcast to if any of them is an array there; else NumPy.
    """
    require_support(expect)
    stays = any(_is_elsewhere(x) for x in (q, q_b, c))
    given = {"q": q, "c": c} if q_b is None else {"q": q, "q_b": q_b, "c": c}
    tensors = {name: _on_device(device, name, value) for name, value in given.items()}
    try:
        whole = torch.broadcast_tensors(*tensors.values())
    except RuntimeError:
        shapes = [str(tuple(x.shape)) for x in tensors.values()]
        names, sizes = ("q and c", " and ".join(shapes)) if q_b is None else ("q, q_b and c", ", ".join(shapes))
        raise ValueError(f"{names} must have shapes that broadcast together, got {sizes}") from None
    flat = [x.reshape(-1).contiguous() for x in whole]
    q_a, other = flat[0], flat[1] if q_b is not None else flat[0]
    found = pair(device, expect, derivative, q_a, other, flat[-1]).reshape(whole[0].shape)
    return found if stays else found.cpu().numpy()[()]


def _is_elsewhere(value: Any) -> bool:
    """Whether it is an array, but not one of NumPy's."""
    return hasattr(value, "__dlpack__") and not isinstance(value, (np.ndarray, np.generic))


def _on_device(device: Device, name: str, value: Any) -> torch.Tensor:
    allowed = "from -1 to 1" if name == "c" else "finite and not negative"
    if not _is_elsewhere(value):
        array = _checks.real_numbers(name, value)
        fits = np.abs(array) <= 1.0 if name == "c" else np.isfinite(array) & (array >= 0.0)
        _checks.all_allowed(name, array, fits, allowed)
        return tensor_on(device, array)
    tensor = value.detach() if isinstance(value, torch.Tensor) else torch.from_dlpack(value)
    if tensor.dtype == torch.bool or tensor.is_complex():
        raise TypeError(f"{name} must be real numbers, got dtype {tensor.dtype}")
    if tensor.device != device.torch:
        raise ValueError(f"{name} must be on {device.torch}, the device asked for, got an array on {tensor.device}")
    tensor = tensor.to(torch.float64)
    inside = tensor.abs() <= 1.0 if name == "c" else torch.isfinite(tensor) & (tensor >= 0.0)
    if not bool(inside.all()):
        _checks.all_allowed(name, tensor.cpu().numpy(), inside.cpu().numpy(), allowed)
    return tensor


def _largest(x: torch.Tensor) -> float:
    return float(x.max()) if x.numel() else 0.0


def _pointer(x: torch.Tensor, count: int = -1) -> int:
    return pointer(x, torch.float64, count)


# ---- Recursion -------------------------------------------------------------------------------------------------------


def trajectories(
    device: Device,
    expect: Expectations,
    *,
    sigma_w2: torch.Tensor,
    sigma_b2: torch.Tensor,
    sigma_mu2: torch.Tensor,
    sigma_y2: torch.Tensor,
    residual: float = 0.0,
    layernorm: bool = False,
    depth: int,
) -> dict[str, torch.Tensor]:
    """The columns of `igbfast.propagate` for many networks at once, from sigma_mu2 and sigma_y2 of layer 1 on.

    Parameters
    ----------
    device : Device
        Where.
    expect : Expectations
        Activation and pool, those of all networks.
    sigma_w2, sigma_b2, sigma_mu2, sigma_y2 : Tensor
        float64, on the device, a number for each network.
    residual, layernorm, depth
        As in `Ensemble` and `propagate`; those of all networks.

    Returns
    -------
    dict of str to Tensor
        (networks, depth), float64; nan where q is out of the reach of the expectations.
    """
    average, count = _average(expect), sigma_w2.numel()
    start = 1.0 if layernorm else _largest(sigma_mu2 + sigma_y2)
    phi = expect.phi(start)
    zeros = torch.zeros_like(sigma_mu2)
    state = torch.stack([sigma_mu2, zeros, sigma_y2, zeros], dim=1).contiguous()
    layers = torch.zeros(count, dtype=torch.int64, device=device.torch)
    out = torch.full((len(COLUMNS), depth, count), torch.nan, dtype=torch.float64, device=device.torch)
    lost = torch.zeros(count, dtype=torch.bool, device=device.torch)  # beyond all tables
    done = 0
    while done < depth and not bool(lost.all()):
        end = min(done + STRETCH, depth)
        device.call(
            "propagate",
            on_device(device, phi).words(average),
            count,
            _pointer(sigma_w2),
            _pointer(sigma_b2, count),
            residual,
            layernorm,
            phi.q_max,
            depth,
            state.data_ptr(),
            layers.data_ptr(),
            out.data_ptr(),
            end,
        )
        behind = (layers < end) & ~lost
        if bool(behind.any()):  # q has outgrown the table: from there on with a larger one
            try:
                phi = expect.phi(REACH * phi.q_max)
            except ValueError:
                lost |= behind
            else:
                continue
        done = end
    columns = {name: out[k].T for k, name in enumerate(COLUMNS)}
    if expect.activation.orders == 0:  # phi jumps, and E[phi'^2] is infinite
        computed = torch.arange(depth, device=device.torch) < layers[:, None]
        columns["chi"] = columns["chi"].masked_fill(computed, torch.inf)
    return columns
