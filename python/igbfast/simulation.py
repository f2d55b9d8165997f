"""Random networks of finite width, run forward: sigma_mu2, sigma_y2, gamma, q, c and chi of every layer, measured.

y^(l) = W x^(l-1) + b, x^(l) = phi(y^(l)). The compiled core does the work; here arguments are checked, the engine is
chosen and the numbers are labelled.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import _checks, _core, _memory
from ._progress import Step, progress_bar
from .ensemble import Ensemble, as_simulated

__all__ = ["network_mean", "simulate"]

MAX_WIDTH = 2**31
MAX_DEPTH = 2**24 - 1
MAX_NETWORKS = 2**31
MAX_SEED = 2**64 - 1

_METHODS = ("auto", "direct", "gram")
_DTYPES = ("float32", "float64")

# Variable -> (long name, how it is estimated). All are pure numbers.
MEASURED = {
    "sigma_mu2": (
        "variance of the node centres",
        "variance over nodes of the mean over inputs, less sigma_y2 / inputs (unbiased)",
    ),
    "sigma_y2": (
        "variance around the node centres",
        "variance over inputs (unbiased, inputs - 1), averaged over nodes",
    ),
    "gamma": ("bias strength", "sigma_mu2 / sigma_y2"),
    "q": ("signal variance", "mean square over nodes, averaged over inputs"),
    "c": ("correlation of two inputs", "correlation over nodes, averaged over pairs of inputs"),
    "chi": ("gradient susceptibility", "sigma_w2 times the mean of phi'(y)^2 over nodes and inputs"),
}
_PER_NODE = {
    "mu": ("centre of each node", "mean over inputs"),
    "var": ("variance of each node around its centre", "variance over inputs (unbiased, inputs - 1)"),
}
_ESTIMATOR = (
    "sigma_mu2, sigma_y2, gamma: moments over the inputs, then over the nodes (the initial-guessing-bias order); "
    "q, c: moments over the nodes, then averaged over inputs and pairs of inputs (the mean-field order)"
)
_OWN_ERROR = (
    "over the nodes of that network alone; nodes of one network share all the layers below, so the spread over "
    "independent networks (igbfast.network_mean) gives the rest"
)
_NETWORK_ERROR = "of the mean over independent networks: their standard deviation / sqrt(networks)"


@dataclass(frozen=True)
class Request:
    """A simulation whose arguments are checked, except that it may not fit into memory."""

    ens: Ensemble
    width: int
    depth: int
    inputs: int | NDArray[Any]
    networks: int
    seed: int
    method: str
    dtype: str
    per_node: bool = False

    @property
    def count(self) -> int:
        """Number of inputs."""
        return self.inputs if isinstance(self.inputs, int) else len(self.inputs)

    @property
    def features(self) -> int:
        """Length of one input; Gaussian ones are as long as the network is wide."""
        return self.width if isinstance(self.inputs, int) else int(self.inputs.shape[1])

    @property
    def cost(self) -> float:
        """Floating point operations that the engine asked for needs, by a model good to a factor of two or so."""
        return self.networks * self.depth * _layer_cost(self.method, self.width, self.count)

    @property
    def memory(self) -> int:
        """Estimated peak memory in bytes, results included."""
        return int(
            _core.simulate_memory(
                method=self.method,
                width=self.width,
                depth=self.depth,
                inputs=self.count,
                features=self.features,
                dtype=self.dtype,
                networks=self.networks,
                per_node=self.per_node,
            )
        )


def simulate(
    ens: Ensemble,
    *,
    width: int,
    depth: int,
    inputs: int | ArrayLike = 100,
    networks: int = 1,
    seed: int = 0,
    method: str = "auto",
    dtype: DTypeLike = "float32",
    per_node: bool = False,
    progress: bool | None = None,
) -> xr.Dataset:
    """Draw random networks of finite width and measure every layer.

    The same seed gives the same numbers to the last bit for any number of threads. Ctrl-C stops a long call.

    Parameters
    ----------
    ens : Ensemble
        The law of the networks.
    width, depth : int
        Nodes in a layer (1 to 2^31; sigma_mu2 and gamma take 2) and number of layers (1 to 2^24 - 1).
    inputs : int or array_like of shape (n, features), optional
        An integer n >= 2: that many independent standard Gaussian inputs, as long as the network is wide, drawn afresh
        for each network. An array: these inputs, with q^(0) = |x|^2 / features; float32 and float64 are used as they
        are, other real types converted.
    networks : int, optional
        How many independent networks; 16 or more make an error bar that a verdict can rest on.
    seed : int, optional
        0 to 2^64 - 1; with the number of the network it fixes all the randomness.
    method : {"auto", "direct", "gram"}, optional
        `direct` draws every weight: about 50 width^2 + 2 width^2 n operations a layer. `gram` draws the nodes from the
        exact law of a layer given the one before: about 50 width n + 5 width n^2 + n^3, and memory that grows as n^2
        but not with the width. They agree in law. `auto` takes the cheaper of those that fit into memory, and never
        `gram` for more inputs than nodes; the attribute `method` of the result says which.
    dtype : {"float32", "float64"}, optional
        Arithmetic of the layers; sums are always float64.
    per_node : bool, optional
        Whether to keep the centre `mu` and the variance `var` of every node as well.
    progress : bool, optional
        Whether to show a progress bar on the error stream; None: if that is a terminal and the call lasts.

    Returns
    -------
    xarray.Dataset
        float64 variables sigma_mu2, sigma_y2, gamma, q, c, chi and `<name>_se` over (network, layer), layer 1 being the
        first one with weights; with `per_node` also mu and var over (network, layer, node). The standard errors of one
        network cover its own nodes only: see `network_mean`.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type, or the run does not fit into memory; before any work.

    Warns
    -----
    RuntimeWarning
        If numbers overflowed or lost their digits: these are nan, and the warning says in which layers.

    Examples
    --------
    >>> import igbfast as igb
    >>> ens = igb.Ensemble("relu", sigma_w2=2.0)
    >>> ds = igb.simulate(ens, width=300, depth=5, inputs=20, networks=2, seed=1)
    >>> dict(ds.sizes)
    {'network': 2, 'layer': 5}
    >>> bool((ds.gamma.isel(layer=-1) > ds.gamma.isel(layer=1)).all())
    True
    """
    request = checked(ens, width, depth, inputs, networks, seed, method, dtype, per_node)
    request = fitted(request)
    with progress_bar(f"simulate {ens.activation}, width {request.width:,}", progress) as step:
        results = run(request, step)
    dataset = labelled(request, results)
    warn_of_lost_layers(dataset, stacklevel=2)
    return dataset


def network_mean(dataset: xr.Dataset) -> xr.Dataset:
    """Mean over the networks of a simulation, with the standard error that independent networks give.

    Parameters
    ----------
    dataset : xarray.Dataset
        Result of `simulate`.

    Returns
    -------
    xarray.Dataset
        Each of sigma_mu2, sigma_y2, gamma, q, c, chi and its `<name>_se` over `layer`; the errors are nan for a single
        network. Where gamma is huge its mean belongs to the largest network alone, so `log_gamma` and `log_gamma_se`
        are given as well: mean and standard error of log(gamma), nan where a network has gamma <= 0.

    Raises
    ------
    TypeError, ValueError
        If `dataset` is not a result of `simulate`.

    Examples
    --------
    >>> import igbfast as igb
    >>> ens = igb.Ensemble("tanh", sigma_w2=1.76, sigma_b2=0.05)
    >>> mean = igb.network_mean(igb.simulate(ens, width=300, depth=3, inputs=20, networks=4))
    >>> bool(abs(mean.q[0] - 1.81) < 5 * mean.q_se[0] + 0.1)
    True
    """
    if not isinstance(dataset, xr.Dataset):
        raise TypeError(f"dataset must be an xarray.Dataset made by simulate, got {_checks.shown(dataset)}")
    missing = [name for name in MEASURED if name not in dataset or dataset[name].dims != ("network", "layer")]
    if missing:
        raise ValueError(f"dataset must be made by simulate: it has no {', '.join(missing)} over (network, layer)")
    variables: dict[str, Any] = {}
    for name in MEASURED:
        variables |= _mean_variables(name, dataset[name].values, dataset[name].attrs)
    log_gamma = logarithm(dataset["gamma"].values)
    variables |= _mean_variables("log_gamma", log_gamma, {"long_name": "logarithm of the bias strength", "units": "1"})
    attrs = dataset.attrs | {"standard_error": _NETWORK_ERROR}
    return xr.Dataset(variables, {"layer": dataset["layer"]}, attrs)


def mean_and_error(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean over the first axis and its standard error, nan for a single value."""
    count = len(values)
    with np.errstate(invalid="ignore", over="ignore"):
        mean = values.mean(axis=0)
        error = values.std(axis=0, ddof=1) / np.sqrt(count) if count > 1 else np.full_like(mean, np.nan)
    return mean, error


def logarithm(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """log, nan for anything but a positive number, without a warning."""
    return np.log(np.where(values > 0.0, values, np.nan))


def checked(
    ens: Ensemble,
    width: int,
    depth: int,
    inputs: int | ArrayLike,
    networks: int,
    seed: int,
    method: str,
    dtype: DTypeLike,
    per_node: bool = False,
) -> Request:
    """The arguments of `simulate`, each found right or refused."""
    return Request(
        ens=as_simulated(ens),
        width=_checks.integer("width", width, 1, MAX_WIDTH),
        depth=_checks.integer("depth", depth, 1, MAX_DEPTH),
        inputs=_checked_inputs(inputs),
        networks=_checks.integer("networks", networks, 1, MAX_NETWORKS),
        seed=_checks.integer("seed", seed, 0, MAX_SEED),
        method=_checks.choice("method", method, _METHODS),
        dtype=_checked_dtype(dtype),
        per_node=_checks.flag("per_node", per_node),
    )


def fitted(request: Request) -> Request:
    """The request with its engine chosen, once it is known to fit into memory."""
    available = _memory.available_memory()
    if request.method != "auto":
        _require_memory(request, available)
        return request
    candidates = [replace(request, method="direct")]
    if request.count <= request.width:  # with fewer nodes than inputs the Gram matrix is singular, and never cheaper
        candidates.append(replace(request, method="gram"))
    candidates.sort(key=lambda candidate: candidate.cost)
    for candidate in candidates:
        if available is None or candidate.memory <= available:
            return candidate
    _require_memory(candidates[0], available)
    return candidates[0]


def run(request: Request, step: Step, first_network: int = 0) -> dict[str, NDArray[np.float64]]:
    """What the compiled core measures, as it returns it; `first_network` sets the networks apart from other runs'."""
    callback: Callable[[float], None] = step
    return _core.simulate(
        activation=request.ens.activation.name,
        parameter=request.ens.activation.parameter,
        sigma_w2=request.ens.sigma_w2,
        sigma_b2=request.ens.sigma_b2,
        width=request.width,
        depth=request.depth,
        inputs=request.inputs,
        networks=request.networks,
        first_network=first_network,
        seed=request.seed,
        method=request.method,
        dtype=request.dtype,
        per_node=request.per_node,
        callback=callback,
    )


def attributes(request: Request) -> dict[str, Any]:
    """What was run, as attributes that every file format keeps: texts and numbers."""
    return {
        "activation": str(request.ens.activation),
        "sigma_w2": request.ens.sigma_w2,
        "sigma_b2": request.ens.sigma_b2,
        "width": request.width,
        "depth": request.depth,
        "inputs": request.count,
        "input_data": "independent standard Gaussian" if isinstance(request.inputs, int) else "given",
        "features": request.features,
        "networks": request.networks,
        "seed": request.seed,
        "method": request.method,
        "dtype": request.dtype,
        "igbfast_version": str(_core.config()["version"]),
    }


def warn_of_lost_layers(dataset: xr.Dataset, stacklevel: int) -> None:
    """One RuntimeWarning for all the layers where a number is not finite."""
    undefined = ("sigma_mu2", "gamma") if dataset.attrs["width"] == 1 else ()  # one node has no variance over nodes
    lost_names = [name for name in MEASURED if name not in undefined and not np.isfinite(dataset[name].values).all()]
    if not lost_names:
        return
    lost = np.any([~np.isfinite(dataset[name].values).all(axis=0) for name in lost_names], axis=0)
    where = spans(dataset["layer"].values[lost])
    if dataset.attrs["dtype"] == "float32":
        remedy = "dtype='float64' has a longer reach"
    else:
        remedy = "float64 reaches no further: use a smaller depth"
    warnings.warn(
        f"{', '.join(lost_names)} overflowed or lost all digits in {where} of {dataset.attrs['depth']} "
        f"and are not finite there; {remedy}",
        RuntimeWarning,
        stacklevel=stacklevel + 1,
    )


def spans(layers: NDArray[np.int64]) -> str:
    """Layer numbers in words: `layer 7`, `layers 57 to 100`, `layers 3, 5, 8 to 10`."""
    pieces = np.split(layers, np.flatnonzero(np.diff(layers) != 1) + 1)
    words = [str(piece[0]) if len(piece) == 1 else f"{piece[0]} to {piece[-1]}" for piece in pieces]
    return ("layer " if len(layers) == 1 else "layers ") + ", ".join(words)


def _layer_cost(method: str, width: int, inputs: int) -> float:
    """Operations in one layer: a normal costs about 50, a product 2 for each multiply and add."""
    if method == "direct":
        return 50.0 * width**2 + 2.0 * width**2 * inputs
    return 50.0 * width * inputs + 5.0 * width * inputs**2 + float(inputs) ** 3


def _checked_dtype(dtype: DTypeLike) -> str:
    if isinstance(dtype, str) or dtype is None:
        return _checks.choice("dtype", dtype, _DTYPES)
    try:
        return _checks.choice("dtype", np.dtype(dtype).name, _DTYPES)
    except TypeError:
        return _checks.choice("dtype", dtype, _DTYPES)


def _checked_inputs(inputs: int | ArrayLike) -> int | NDArray[Any]:
    try:
        given = np.asarray(inputs)
    except ValueError:  # rows of unequal length
        raise ValueError("inputs must be a number or an array of shape (n, features), got rows that differ") from None
    if given.ndim == 0:
        return _checked_input_count(inputs)
    array = _checks.real_array("inputs", given)
    if array.ndim != 2 or array.shape[0] < 2 or array.shape[1] < 1:
        raise ValueError(
            f"inputs must be a number, or an array of shape (n, features) with n >= 2 and features >= 1, "
            f"got an array of shape {array.shape}"
        )
    if not np.isfinite(array).all():
        row, column = (int(index) for index in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"inputs must be finite, got {array[row, column]} in row {row}, column {column}")
    norms = np.einsum("ij,ij->i", array, array, dtype=np.float64)
    if not np.isfinite(norms).all():
        row = int(np.argmin(np.isfinite(norms)))
        raise ValueError(f"inputs must have a finite mean square, but that of row {row} overflows: rescale them")
    return np.ascontiguousarray(array)


def _checked_input_count(inputs: object) -> int:
    try:
        return _checks.integer("inputs", inputs, 2, 2**31)
    except TypeError:
        raise TypeError(
            "inputs must be a number of inputs (an integer of at least 2) or an array of shape (n, features), "
            f"got {_checks.shown(inputs)}"
        ) from None


def _require_memory(request: Request, available: int | None) -> None:
    if available is None or request.memory <= available:
        return
    lean = replace(request, per_node=False)
    if request.per_node and lean.memory <= available:
        what = (
            f"per_node=True with networks={request.networks}, depth={request.depth} and width={request.width} "
            f"needs about {_memory.gib(request.memory)}"
        )
        remedy = "per_node=False, or fewer networks or layers"
    else:
        what = (
            f"inputs={request.count} at width={request.width} with method={request.method!r} "
            f"needs about {_memory.gib(request.memory)}"
        )
        direct = replace(lean, method="direct")
        can_go_direct = request.method == "gram" and direct.memory <= available
        remedy = "method='direct' or fewer inputs" if can_go_direct else "fewer inputs"
    raise ValueError(f"{what} of memory, but {_memory.gib(available)} are available: use {remedy}")


def labelled(request: Request, results: Mapping[str, NDArray[np.float64]]) -> xr.Dataset:
    """The dataset that `simulate` returns, from the bare arrays."""
    variables: dict[str, Any] = {}
    for name, (long_name, how) in MEASURED.items():
        attrs = {"long_name": long_name, "description": how, "units": "1"}
        variables[name] = (("network", "layer"), results[name], attrs)
        variables[f"{name}_se"] = (("network", "layer"), results[f"{name}_se"], _error_attributes(long_name))
    if request.per_node:
        for name, (long_name, how) in _PER_NODE.items():
            attrs = {"long_name": long_name, "description": how, "units": "1"}
            variables[name] = (("network", "layer", "node"), results[name], attrs)
    coordinates = {
        "network": ("network", np.arange(request.networks), {"long_name": "number of the network"}),
        "layer": ("layer", np.arange(1, request.depth + 1), {"long_name": "layer, 1 being the first with weights"}),
    }
    attrs = attributes(request) | {"estimator": _ESTIMATOR, "standard_error": _OWN_ERROR}
    return xr.Dataset(variables, coordinates, attrs)


def _mean_variables(name: str, values: NDArray[np.float64], attrs: Mapping[str, Any]) -> dict[str, Any]:
    mean, error = mean_and_error(values)
    return {name: ("layer", mean, dict(attrs)), f"{name}_se": ("layer", error, _error_attributes(attrs["long_name"]))}


def _error_attributes(long_name: str) -> dict[str, str]:
    return {"long_name": f"standard error of the {long_name}", "units": "1"}
