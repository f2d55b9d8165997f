"""The covariance of given inputs in a network of infinite width, layer by layer, and what it says of bias on that data.

K'_ab = sigma_w2 E[P(u) P(v)] + sigma_b2, (u, v) ~ N(0, [[K_aa, K_ab], [K_ab, K_bb]]), for every pair of inputs a and b,
from K_ab = sigma_w2 x_a . x_b / features + sigma_b2 in layer 1. The compiled core follows half the squared distances
(K_aa + K_bb) / 2 - K_ab beside it, so that gamma keeps its digits when all inputs become one.
"""

from __future__ import annotations

import functools
import math
import sys
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from . import _checks, _core, _inputs, _memory
from ._expectations import of_ensemble
from ._progress import Step, progress_bar
from .ensemble import Ensemble, as_ensemble
from .gpu import _device

if TYPE_CHECKING:
    from .gpu._device import Device

__all__ = ["kernel"]

MAX_DEPTH = 2**24 - 1

_REACH = 4.0
"""By how much more than asked for the expectations of phi reach when q outgrows them."""

# Variable -> (long name, what it is). All are pure numbers.
_COLUMNS = {
    "sigma_mu2": ("variance of the node centres", "mean of the covariance over pairs of inputs"),
    "sigma_y2": ("variance around the node centres", "mean of half the squared distance over pairs of inputs"),
    "gamma": ("bias strength", "sigma_mu2 / sigma_y2"),
    "q": ("signal variance", "mean of the variance over inputs"),
    "c": ("correlation of two inputs", "mean of the correlation over pairs of inputs"),
    "chi": ("gradient susceptibility", "factor of squared gradients, mean over inputs"),
}

FloatArray = NDArray[np.float64]


@overload
def kernel(
    ens: Ensemble,
    k0: ArrayLike,
    depth: int,
    *,
    layers: Iterable[int] | None = None,
    progress: bool | None = None,
    device: Any = "cpu",
) -> xr.Dataset: ...
@overload
def kernel(
    ens: Ensemble,
    *,
    inputs: ArrayLike,
    depth: int,
    layers: Iterable[int] | None = None,
    progress: bool | None = None,
    device: Any = "cpu",
) -> xr.Dataset: ...
def kernel(
    ens: Ensemble,
    k0: ArrayLike | None = None,
    depth: int | None = None,
    *,
    inputs: ArrayLike | None = None,
    layers: Iterable[int] | None = None,
    progress: bool | None = None,
    device: Any = "cpu",
) -> xr.Dataset:
    """Covariance of real inputs at infinite width, and sigma_mu2, sigma_y2 and gamma over that data set.

    Where inputs are neither independent nor of one norm, this takes the place of `propagate`: every pair of inputs goes
    its own way. The same numbers for any number of threads; Ctrl-C stops a long call.

    Parameters
    ----------
    ens : Ensemble
        The law of the networks, with any activation, pool, residual branch and LayerNorm.
    k0 : array_like of shape (n, n)
        Covariance of the inputs, k0_ab = x_a . x_b / features: symmetric and positive semidefinite, n >= 2.
    depth : int
        Number of layers, 1 to 2^24 - 1.
    inputs : array_like of shape (n, features)
        In place of `k0`, the inputs themselves. Distances are then taken between the inputs, without the cancellation
        that a matrix of products brings to those that are close.
    layers : iterable of int, optional
        Layers, 1 to `depth`, whose covariance is kept; the last one alone if not given.
    progress : bool, optional
        Whether to show a progress bar on the error stream; None: if that is a terminal and the call lasts.
    device : str or torch.device, optional
        `"cuda"` or `"cuda:1"`: the pairs are taken from layer to layer on that GPU, with the same numbers up to
        rounding. `k0` and `inputs` may then be arrays that are there, of PyTorch's or any that speak DLPack, and need
        not come to the host; the results do. What is integrated pair by pair (see the notes) is so on the CPU.

    Returns
    -------
    xarray.Dataset
        `covariance` over (input, input_) of the last layer, or over (kept_layer, input, input_) with `layers`; and over
        `layer`, what an infinitely wide network gives for the estimators of `simulate` from these inputs: `sigma_mu2`,
        `sigma_y2`, `gamma`, `q`, `c` and `chi`. All float64.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type, `k0` is no covariance, or the matrices do not fit into
        memory; before any work.
    RuntimeError
        With a GPU, if something that it takes is missing.

    Warns
    -----
    RuntimeWarning
        Once, if a number overflowed, fell below the smallest normal double or lost its digits; it is nan, and the
        warning says from which layer on.

    Notes
    -----
    Closed forms for the ReLU family and erf; for analytic activations the Hermite series E[phi(u) phi(v)] =
    sum_n f_n(a) f_n(b) c^n, with as many terms as its Parseval sums ask for: about 1e-14 relative for each layer.
    Other activations with kinks, and pools of extremes, take one curve over all correlations where the inputs have one
    variance, as with LayerNorm; else they are integrated pair by pair, which is a thousand times slower and ends at a
    gamma of 1e6.

    References
    ----------
    Lee et al., Deep neural networks as Gaussian processes (2018), equation 5; Cho and Saul, Kernel methods for deep
    learning (2009), for ReLU; Williams, Computation with infinite neural networks (1998), for erf.

    Examples
    --------
    >>> import igbfast as igb
    >>> import numpy as np
    >>> ens = igb.Ensemble("relu", sigma_w2=2.0)
    >>> ds = igb.kernel(ens, np.eye(2), depth=2)
    >>> ds.covariance.values.round(4)
    array([[2.    , 0.6366],
           [0.6366, 2.    ]])
    >>> x = np.random.default_rng(0).uniform(size=(20, 64))  # 20 pictures of 8 x 8
    >>> bool(igb.kernel(ens, inputs=x, depth=5).gamma[-1] > igb.propagate(ens, 5).gamma[-1])
    True
    """
    ens = as_ensemble(ens)
    gpu = _checked_device(device)
    data = _checked_data(k0, inputs, gpu)
    depth = _checks.integer("depth", depth, 1, MAX_DEPTH)
    kept = [depth] if layers is None else _checked_layers(layers, depth)
    _require_memory("k0" if inputs is None else "inputs", len(next(iter(data.values()))), len(kept), gpu)
    _require_scale(ens, data)
    with progress_bar(f"kernel {ens.activation}", progress) as step:
        columns, covariances = _computed(ens, data, depth, kept, step, gpu)
    _warn_of_lost_layers(columns, depth)
    dataset = _labelled(ens, data, columns, covariances, None if layers is None else kept)
    return dataset if gpu is None else dataset.assign_attrs(device=gpu.name)


def _computed(
    ens: Ensemble, data: dict[str, Any], depth: int, kept: Sequence[int], step: Step, gpu: Device | None
) -> tuple[dict[str, FloatArray], list[FloatArray]]:
    """The columns over layers, and the covariances of the layers to keep."""
    expect = of_ensemble(ens)
    kind, size = expect.pooled
    state = _covariance_map(gpu)(
        **data,
        pool=kind,
        size=size,
        sigma_w2=ens.sigma_w2,
        sigma_b2=ens.sigma_b2,
        residual=ens.residual or 0.0,
        layernorm=ens.layernorm,
        depth=depth,
    )
    covariances, done = [], 0
    phi = expect.phi(state.largest_seen)
    for target in sorted({*kept, depth}):
        start, share = done / depth, (target - done) / depth

        def advanced(fraction: float, start: float = start, share: float = share) -> None:
            step(start + share * fraction)

        while (done := state.advance(phi=phi, layer=target, callback=advanced)) < target:
            phi = expect.phi(_REACH * state.largest_seen)  # q has outgrown the one before
        if target in kept:
            covariances.append(state.covariance())
    return state.columns(), covariances


def _covariance_map(gpu: Device | None) -> Any:
    """The class that holds the pairs."""
    if gpu is None:
        return _core.CovarianceMap
    from .gpu.covariance import CovarianceMap

    return functools.partial(CovarianceMap, gpu)


def _labelled(
    ens: Ensemble,
    data: dict[str, Any],
    columns: dict[str, FloatArray],
    covariances: list[FloatArray],
    kept: list[int] | None,
) -> xr.Dataset:
    depth, count = len(columns["q"]), len(covariances[0])
    matrix = {"long_name": "covariance of two inputs", "description": "E[y(a) y(b)] over networks", "units": "1"}
    variables: dict[str, Any] = {
        name: ("layer", columns[name], {"long_name": long_name, "description": what, "units": "1"})
        for name, (long_name, what) in _COLUMNS.items()
    }
    coordinates: dict[str, Any] = {"layer": ("layer", np.arange(1, depth + 1), {"long_name": "layer"})}
    if kept is None:
        variables["covariance"] = (("input", "input_"), covariances[0], matrix | {"layer": depth})
    else:
        variables["covariance"] = (("kept_layer", "input", "input_"), np.stack(covariances), matrix)
        coordinates["kept_layer"] = ("kept_layer", np.array(kept), {"long_name": "layer of the covariance"})
    attrs = {
        "description": "covariance of given inputs in an infinitely wide random network, layer by layer",
        "activation": str(ens.activation),
        "sigma_w2": ens.sigma_w2,
        "sigma_b2": ens.sigma_b2,
        **{name: value if isinstance(value, float) else str(value) for name, value in ens.extras.items()},
        "depth": depth,
        "inputs": count,
        "given": next(iter(data)),
        "igbfast_version": str(_core.config()["version"]),
    }
    return xr.Dataset(variables, coordinates, attrs)


def _warn_of_lost_layers(columns: dict[str, FloatArray], depth: int) -> None:
    lost = {name: np.isnan(columns[name]) for name in _COLUMNS}
    names = [name for name, where in lost.items() if where.any()]
    if not names:
        return
    first = min(int(np.argmax(lost[name])) for name in names)
    if lost["q"].any():
        why = "q leaves the range of double"
    elif lost["sigma_y2"].any():
        tiny = first > 0 and columns["sigma_y2"][first - 1] < 1e-290
        what = "falls below the smallest normal double" if tiny else "is less than what rounding makes of it"
        why = f"sigma_y2 {what}"
    else:
        why = f"{names[0]} leaves the range of double"
    warnings.warn(
        f"{why} at layer {first + 1} of {depth}: {', '.join(names)} are nan from where it happens; use a smaller depth",
        RuntimeWarning,
        stacklevel=3,
    )


# ---- Arguments -------------------------------------------------------------------------------------------------------


# Arrays are NumPy's, or with a GPU PyTorch's, which the same lines check there.


def _checked_device(device: Any) -> Device | None:
    """The GPU asked for; None: the CPU."""
    if _device.is_cpu(device):
        return None
    found = _device.find(device)
    if len(found) > 1:
        raise ValueError(f"device must be one GPU for kernel, got {_device.named(found)}")
    return found[0]


def _checked_data(k0: ArrayLike | None, inputs: ArrayLike | None, gpu: Device | None) -> dict[str, Any]:
    """`k0` or `inputs`, under its name."""
    if (k0 is None) == (inputs is None):
        raise TypeError(f"kernel takes either k0 or inputs, got {'neither' if k0 is None else 'both'}")
    if k0 is None:
        return {"inputs": _checked_inputs(inputs, gpu)}
    return {"k0": _checked_covariance(k0, gpu)}


def _matrix(name: str, values: Any, what: str, gpu: Device | None) -> tuple[Any, float]:
    """A matrix of finite numbers with two rows or more, and the rounding unit of the numbers that were given."""
    array, unit = _real_on_host(name, values, what) if gpu is None else _real_on_gpu(name, values, what, gpu)
    if array.ndim != 2 or array.shape[0] < 2 or array.shape[1] < 1:
        raise ValueError(f"{name} must be {what}, got an array of shape {tuple(array.shape)}")
    if not bool((abs(array) < math.inf).all()):
        whole = _on_host(array)
        _checks.all_allowed(name, whole, np.isfinite(whole), "finite")
    return array, max(unit, float(np.finfo(np.float64).eps))


def _real_on_host(name: str, values: Any, what: str) -> tuple[FloatArray, float]:
    _inputs._refuse_of_gpu(values, name)
    try:
        given = np.asarray(values)
    except ValueError:  # rows of unequal length
        raise ValueError(f"{name} must be {what}, got rows that differ in length") from None
    unit = float(np.finfo(given.dtype).eps) if given.dtype.kind == "f" else 0.0
    array = _checks.real_array(name, given).astype(np.float64, copy=False)
    return np.ascontiguousarray(array), unit


def _real_on_gpu(name: str, values: Any, what: str, gpu: Device) -> tuple[Any, float]:
    import torch

    from .gpu._inputs import as_tensor, lies_on

    if not lies_on(values, [gpu]):
        array, unit = _real_on_host(name, values, what)
        return torch.tensor(array, device=gpu.torch), unit
    given = as_tensor(values)
    if given.is_complex() or given.dtype == torch.bool:
        raise TypeError(f"{name} must be real numbers, got dtype {given.dtype}")
    unit = float(torch.finfo(given.dtype).eps) if given.is_floating_point() else 0.0
    return given.to(gpu.torch, torch.float64).contiguous(), unit


def _module_of(array: Any) -> Any:
    """numpy or torch."""
    return np if isinstance(array, np.ndarray) else sys.modules["torch"]


def _on_host(array: Any) -> FloatArray:
    return np.asarray(array if isinstance(array, np.ndarray) else array.cpu().numpy())


def _checked_inputs(inputs: Any, gpu: Device | None) -> Any:
    array, _ = _matrix("inputs", inputs, "an array of shape (n, features) with n >= 2 and features >= 1", gpu)
    norms = _squares(array)
    if not np.isfinite(norms).all():
        row = int(np.argmin(np.isfinite(norms)))
        raise ValueError(f"inputs must have a finite mean square, but that of row {row} overflows: rescale them")
    return array


def _squares(array: Any) -> FloatArray:
    """Of the length of every row."""
    with np.errstate(over="ignore"):
        return _on_host(_module_of(array).einsum("ij,ij->i", array, array))


def _checked_covariance(k0: Any, gpu: Device | None) -> Any:
    array, unit = _matrix("k0", k0, "a square matrix with two rows or more", gpu)
    count = len(array)
    if array.shape[1] != count:
        raise ValueError(f"k0 must be a square matrix, got shape {tuple(array.shape)}; give inputs as inputs=")
    variances = _on_host(array.diagonal())
    if (variances < 0.0).any():
        at = int(np.argmax(variances < 0.0))
        raise ValueError(f"k0 must not be negative on its diagonal, got {variances[at]} at index {(at, at)}")
    largest = float(variances.max())
    tolerance = 8.0 * count**0.5 * unit
    asymmetry = abs(array - array.T)
    worst = float(asymmetry.max())
    if worst > tolerance * largest:
        row, column = divmod(int(asymmetry.argmax()), count)
        raise ValueError(
            f"k0 must be symmetric, but k0[{row}, {column}] and its mirror image differ by {worst:.3g}, the most of all"
        )
    del asymmetry
    _require_correlations(array, tolerance)
    _require_positive(array, largest * (tolerance + 4.0 * count * unit))
    return array if worst == 0.0 else 0.5 * (array + array.T)


def _require_correlations(array: Any, tolerance: float) -> None:
    roots = array.diagonal() ** 0.5
    excess = abs(array) - (1.0 + tolerance) * (roots[:, None] * roots)
    if float(excess.max()) > 0.0:
        row, column = divmod(int(excess.argmax()), len(array))
        raise ValueError(
            f"k0 must be positive semidefinite, but k0[{row}, {column}] = {float(array[row, column])} is larger than "
            f"the variances {float(array[row, row])} and {float(array[column, column])} of the two inputs allow"
        )


def _require_positive(array: Any, tolerance: float) -> None:
    xp = _module_of(array)
    lifted, diagonal = array + 0.0, xp.arange(len(array))
    lifted[diagonal, diagonal] += max(tolerance, float(np.finfo(np.float64).tiny))
    try:
        xp.linalg.cholesky(lifted)
    except xp.linalg.LinAlgError:
        lowest = float(xp.linalg.eigvalsh(array)[0])
        raise ValueError(f"k0 must be positive semidefinite, but has the eigenvalue {lowest:.3g}") from None


def _checked_layers(layers: Iterable[int], depth: int) -> list[int]:
    if isinstance(layers, (str, bytes)) or not isinstance(layers, Iterable):
        raise TypeError(f"layers must be layer numbers from 1 to {depth}, got {_checks.shown(layers)}")
    kept = sorted({_checks.integer("layers", layer, 1, depth) for layer in layers})
    if not kept:
        raise ValueError(f"layers must name a layer from 1 to {depth}, got none")
    return kept


def _require_memory(name: str, count: int, matrices: int, gpu: Device | None) -> None:
    needed = _core.covariance_memory(inputs=count) + 8.0 * count**2 * (matrices + (1 if matrices > 1 else 0))
    available = _memory.available_memory()
    if available is not None and needed > available:
        fewer = "fewer inputs or layers" if matrices > 1 else "fewer inputs"
        raise ValueError(
            f"{name} of {count:,} inputs, with {matrices:,} matrices to keep, needs about {_memory.gib(needed)} "
            f"of memory, but {_memory.gib(available)} are available: use {fewer}"
        )
    if gpu is None:
        return
    from .gpu.covariance import device_memory

    if device_memory(count) > gpu.free_memory():
        raise ValueError(
            f"{name} of {count:,} inputs needs about {_memory.gib(device_memory(count))} of the GPU's memory, but "
            f"{_memory.gib(gpu.free_memory())} are available: use fewer inputs"
        )


def _require_scale(ens: Ensemble, data: dict[str, Any]) -> None:
    """That layer 1 is in the range of double, and has no zero for LayerNorm to divide by."""
    name, array = next(iter(data.items()))
    variances = _on_host(array.diagonal()) if name == "k0" else _squares(array) / array.shape[1]
    with np.errstate(over="ignore"):
        first = ens.sigma_w2 * variances + ens.sigma_b2
    if not np.isfinite(first).all():
        raise ValueError(f"{name} must leave sigma_w2 * q0 + sigma_b2 finite, got q0 = {variances.max()}")
    if ens.layernorm and (first == 0.0).any():
        row = int(np.argmax(first == 0.0))
        raise ValueError(f"{name} must not be zero where LayerNorm divides by it, but input {row} is")
