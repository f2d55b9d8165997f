"""Random networks of finite width, run forward and, if asked, backward; every layer measured.

y^(l) = W x^(l-1) + b, x^(l) = phi(y^(l)), with whatever pool, residual branch or LayerNorm the ensemble has. The
compiled core does the work, or gpu/simulate.py; here arguments are checked, the engine is chosen and the numbers are
labelled.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import _checks, _core, _memory, distributions
from ._expectations import of_ensemble
from ._inputs import Chunks, Gaussian, Given, Inputs, Piece, as_inputs
from ._progress import Step, progress_bar, silent
from .ensemble import Ensemble, as_simulated
from .gpu import _device

if TYPE_CHECKING:
    from .gpu._device import Device

__all__ = ["network_mean", "simulate"]

MAX_WIDTH = 2**31
MAX_DEPTH = 2**24 - 2  # the head comes on top
MAX_NETWORKS = 2**31
MAX_SEED = 2**64 - 1

MAX_CLASSES = 2**20

_METHODS = ("auto", "direct", "gram")
_DTYPES = ("float32", "float64")
_PRODUCTS = ("full", "tf32", "bfloat16")
_GRAM_WEIGHTS = ("gaussian", "orthogonal")
_LOSSES = ("readout", "cross_entropy")

# Tables of phi reach so many times the largest variance of theory, and so many times further if that was too little.
_REACH, _FURTHER, _FURTHEST = 16.0, 16.0, 1e300

_NODE_RECORD = 64  # bytes that are kept of every node of all networks while inputs come piece by piece

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
_GRADIENTS = {
    "gradient": (
        "mean squared gradient",
        "squared derivative of each input's loss by its own pre-activations, averaged over nodes and inputs",
    ),
    "growth": ("growth of the mean squared gradient", "that of a layer over that of the next one: compare with chi"),
}
_FRACTION = (
    "share of the inputs that each class gets",
    "the class of the largest output of the head, which is one more linear layer of the same law",
)
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
    inputs: Inputs
    networks: int
    seed: int
    method: str
    dtype: str
    per_node: bool = False
    gradients: str | None = None
    classes: int = 10
    labels: NDArray[np.int32] | None = None
    distributions: bool = False
    devices: tuple[Device, ...] = ()
    """The GPUs that share the networks; none: the CPU."""
    products: str = "full"
    streamed: bool = False
    """Whether a given array reaches the GPUs piece by piece, because they have no room for all of it."""

    @property
    def count(self) -> int:
        """Number of inputs; of those that come in chunks, how many have come."""
        return self.inputs.count

    @property
    def features(self) -> int:
        """Length of one input; Gaussian ones are as long as the network is wide."""
        return self.width if self.inputs.features is None else self.inputs.features

    @property
    def cost(self) -> float:
        """Floating point operations that the engine asked for needs, by a model good to a factor of two or so."""
        passes = 1.0 if self.gradients is None else 3.0
        return passes * self.networks * self.depth * _layer_cost(self.method, self.width, self.count)

    @property
    def memory(self) -> int:
        """Estimated peak memory in bytes, results included; without what inputs in chunks take besides one piece.

        Of this machine: what GPUs need of their own is gpu/simulate.py's to know.
        """
        if self.devices:
            return self._result_bytes
        if self.in_pieces:
            beside = _NODE_RECORD * self.networks * self.depth * self.width
        else:
            beside = self.inputs.copied_bytes if isinstance(self.inputs, Given) else 0
        inputs = self.inputs.piece_rows if isinstance(self.inputs, Chunks) else self.count
        method = "direct" if self.method == "auto" else self.method
        return beside + int(
            _core.simulate_memory(method=method, inputs=inputs, features=self.features, **self.core_settings)
        )

    @property
    def _result_bytes(self) -> int:
        """What is returned, and once more while the parts of it are joined."""
        of_layer = 2 * len(MEASURED) + (2 * self.width if self.per_node else 0)
        of_layer += self.count if self.gradients is not None else 0
        return 2 * 8 * self.networks * (self.depth * of_layer + self.count)

    @property
    def core_settings(self) -> dict[str, Any]:
        """What the compiled core is told of every run, in its own words; all but phi, the inputs and the engine."""
        ens = self.ens
        return {
            "pool": "none" if ens.pool is None else ens.pool.kind,
            "pool_size": 1 if ens.pool is None else ens.pool.size,
            "weights": ens.weights,
            "sigma_w2": ens.sigma_w2,
            "sigma_b2": ens.sigma_b2,
            "residual": ens.residual or 0.0,
            "layernorm": ens.layernorm,
            "width": self.width,
            "depth": self.depth,
            "networks": self.networks,
            "seed": self.seed,
            "dtype": self.dtype,
            "loss": self.gradients or "none",
            "classes": self.classes,
            "per_node": self.per_node,
            "distributions": self.distributions,
        }

    @property
    def in_pieces(self) -> bool:
        """Whether the inputs reach the core piece by piece."""
        if self.devices or isinstance(self.inputs, Chunks):
            return self.streamed or isinstance(self.inputs, Chunks)
        return isinstance(self.inputs, Given) and not self.inputs.small and self.method != "gram"


def simulate(
    ens: Ensemble,
    *,
    width: int,
    depth: int,
    inputs: Any = 100,
    networks: int = 1,
    seed: int = 0,
    method: str = "auto",
    dtype: DTypeLike = "float32",
    device: Any = "cpu",
    products: str = "full",
    per_node: bool = False,
    gradients: str | None = None,
    classes: int = 10,
    labels: ArrayLike | None = None,
    distributions: bool = False,
    normalize: bool = False,
    progress: bool | None = None,
) -> xr.Dataset:
    """Draw random networks of finite width and measure every layer.

    The same seed gives the same numbers to the last bit for any number of threads, and on a GPU the same up to
    rounding. Ctrl-C stops a long call.

    Parameters
    ----------
    ens : Ensemble
        The law of the networks: any activation but a mixture, any weights, pool (whose size must divide the width),
        residual branch and LayerNorm.
    width, depth : int
        Nodes in a layer (1 to 2^31; sigma_mu2 and gamma take 2) and number of layers (1 to 2^24 - 2).
    inputs : int, array_like of shape (n, features) or iterable of such arrays, optional
        An integer n >= 2: that many independent standard Gaussian inputs, as long as the network is wide, drawn afresh
        for each network. An array: these inputs, with q^(0) = |x|^2 / features; float32 and float64 are used as they
        are, in memory or mapped from a file, and other real types are converted some MiB at a time; more than two
        dimensions count as features; |x|^2 / features is 0, or 1e-30 to 1e30 (float64: 1e-280 to 1e280). A list of
        arrays, a generator, a data loader: the chunks of one large array, each with its labels beside it if it is a
        pair (inputs, labels); by `direct` they need not fit into memory. With `device="cuda"` also an array that is on
        a GPU (a tensor of PyTorch's, CuPy's, whatever has `__dlpack__` or `__cuda_array_interface__`), which is taken
        where it lies.
    networks : int, optional
        How many independent networks; 16 or more make an error bar that a verdict can rest on.
    seed : int, optional
        0 to 2^64 - 1; with the number of the network it fixes all the randomness.
    method : {"auto", "direct", "gram"}, optional
        `direct` draws every weight: about 50 width^2 + 2 width^2 n operations a layer. `gram` draws the nodes from the
        exact law of a layer given the one before: about 50 width n + 5 width n^2 + n^3, and memory that grows as n^2
        but not with the width; it takes Gaussian and orthogonal weights, and all inputs in memory. They agree in law.
        `auto` takes the cheaper of those that fit into memory, never `gram` for more inputs than nodes or for chunks;
        the attribute `method` of the result says which.
    dtype : {"float32", "float64"}, optional
        Arithmetic of the layers; sums are always float64.
    device : str, torch.device or sequence of these, optional
        `cpu`, or NVIDIA GPUs: `cuda`, the one that PyTorch takes; `cuda:1`; `cuda:all`, or a sequence, which share the
        networks. See docs/install.md.
    products : {"full", "tf32", "bfloat16"}, optional
        How GPUs multiply large float32 matrices: in float32, or faster on tensor cores, with operands rounded to 11 or
        8 significant bits; sums are float32. After 20 layers gamma was off by up to 1 % (`tf32`) or 4 % (`bfloat16`),
        q by 0.1 % or 2 %, where a network of width 512 scatters by 7 %: docs/gpu.md.
    per_node : bool, optional
        Whether to keep what belongs to single nodes and inputs as well: centre `mu` and variance `var` of every node;
        the class `guess` of every input, and its `gradient_input` (and `label`) if gradients are asked for.
    gradients : {"readout", "cross_entropy"}, optional
        Whether to go backward too, and from which loss: `readout`, the output of a single random linear node;
        `cross_entropy`, that of the head's outputs as logits. Gradients are of each input's own loss by its own
        pre-activations.
    classes : int, optional
        Outputs of the head, a linear layer of the same sigma_w2 and sigma_b2 upon the last one: 2 to 2^20.
    labels : array_like of shape (n,), optional
        The class of each input for `gradients="cross_entropy"`, integers from 0 to classes - 1; drawn at random for
        each network if not given.
    distributions : bool, optional
        Whether to count the values of mu, var, q and c, not only their means: see `igbfast.distributions`.
    normalize : bool, optional
        Whether to scale each given input to |x|^2 / features = 1.
    progress : bool, optional
        Whether to show a progress bar on the error stream; None: if that is a terminal and the call lasts. Chunks have
        none, because their number is not known.

    Returns
    -------
    xarray.Dataset
        float64 variables sigma_mu2, sigma_y2, gamma, q, c, chi and `<name>_se` over (network, layer), layer 1 being the
        first one with weights. The standard errors of one network cover its own nodes only: see `network_mean`.

        `class_fraction` over (network, class), which share of the inputs each class gets, and `favoured` over
        (network), the class that gets most (not with the single output of `readout`).

        With gradients: `gradient`, `gradient_se` and `growth`, the ratio of a layer's gradient to the next one's (nan
        in the last layer), over (network, layer); `gradient_quantile` over (network, layer, quantile), over the inputs.
        With cross entropy also `gradient_class` over (network, layer, class), the mean over the inputs with that label.

        With `distributions`: `<name>_counts` and `<name>_quantile`. With `per_node`: mu, var over (network, layer,
        node), gradient_input over (network, layer, input), guess and label over (network, input).

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type, or the run does not fit into memory; before any work,
        except for what is wrong in a later chunk of inputs.
    RuntimeError
        If a GPU is asked for and cannot be used: the message says what is missing, and what to do.

    Warns
    -----
    RuntimeWarning
        If numbers overflowed or lost their digits, or inputs are equal: these are nan, and the warning says in which
        layers.

    Examples
    --------
    >>> import igbfast as igb
    >>> ens = igb.Ensemble("relu", sigma_w2=2.0)
    >>> ds = igb.simulate(ens, width=300, depth=5, inputs=20, networks=2, seed=1)
    >>> dict(ds.sizes)
    {'network': 2, 'layer': 5, 'class': 10}
    >>> bool((ds.gamma.isel(layer=-1) > ds.gamma.isel(layer=1)).all())
    True
    >>> ds = igb.simulate(ens, width=300, depth=5, inputs=20, gradients="cross_entropy", classes=3)
    >>> ds.gradient_class.dims
    ('network', 'layer', 'class')
    """
    request = fitted(
        checked(
            ens,
            width,
            depth,
            inputs,
            networks,
            seed,
            method,
            dtype,
            per_node,
            gradients,
            classes,
            labels,
            distributions,
            normalize,
            device,
            products,
        )
    )
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
        Each of sigma_mu2, sigma_y2, gamma, q, c, chi, and gradient and growth if there are gradients, with its
        `<name>_se`, over `layer`; the errors are nan for a single network. Where gamma or the gradients are huge the
        mean belongs to the largest network alone, so `log_gamma` and `log_gradient` (and `_se`) are given as well: mean
        and standard error of the logarithm; nan where a network has no positive gamma, and -inf (the error is nan)
        where the gradient of one has vanished, below 1e-308.

        `ranked_fraction` over `rank`: the share of inputs of the class that gets most, of the second, and so on. With
        cross entropy also `log_gradient_favoured`, of the inputs labelled with the class that gets most, and
        `log_gradient_others`, of the mean over the other classes; each over those networks that have such inputs.

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
    for name in (*MEASURED, *_GRADIENTS):
        if name in dataset:
            variables |= _mean_variables(name, dataset[name].values, dataset[name].attrs)
    for name, (values, what) in _on_logarithmic_scale(dataset).items():
        attrs = {"long_name": f"logarithm of the {what}", "units": "1"}
        of_zero = np.nan if name == "gamma" else -np.inf  # gradients vanish
        variables |= _mean_variables(f"log_{name}", logarithm(values, of_zero), attrs)
    coordinates: dict[str, Any] = {"layer": dataset["layer"]}
    if "class_fraction" in dataset:
        ranked = -np.sort(-dataset["class_fraction"].values, axis=1)
        attrs = {"long_name": "share of the inputs, classes by their rank in each network", "units": "1"}
        variables |= _mean_variables("ranked_fraction", ranked, attrs, "rank")
        coordinates["rank"] = ("rank", np.arange(1, ranked.shape[1] + 1), {"long_name": "1: the class that gets most"})
    return xr.Dataset(variables, coordinates, dataset.attrs | {"standard_error": _NETWORK_ERROR})


def _on_logarithmic_scale(dataset: xr.Dataset) -> dict[str, tuple[NDArray[np.float64], str]]:
    """What spreads over factors between networks, and what it is."""
    found = {"gamma": (dataset["gamma"].values, "bias strength")}
    if "gradient" in dataset:
        found["gradient"] = dataset["gradient"].values, "mean squared gradient"
    if "gradient_class" in dataset:
        by_class, favoured = dataset["gradient_class"], dataset["favoured"]
        others = by_class.where(dataset["class"] != favoured).mean("class")
        what = "mean squared gradient of the inputs labelled with"
        own = by_class.sel({"class": favoured}).transpose("network", "layer")
        for name, values, whose in (("favoured", own, "class that gets most"), ("others", others, "other classes")):
            # Where a network has no such inputs it is nan throughout, though the mean over all inputs is not.
            none = np.isnan(values.values).all(axis=1) & np.isfinite(dataset["gradient"].values).any(axis=1)
            found[f"gradient_{name}"] = values.values[~none], f"{what} the {whose}"
    return found


def mean_and_error(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean over the first axis and its standard error, nan for a single value; both nan for none."""
    count = len(values)
    if not count:
        return np.full(values.shape[1:], np.nan), np.full(values.shape[1:], np.nan)
    with np.errstate(invalid="ignore", over="ignore"):
        mean = values.mean(axis=0)
        error = values.std(axis=0, ddof=1) / np.sqrt(count) if count > 1 else np.full_like(mean, np.nan)
    return mean, error


def logarithm(values: NDArray[np.float64], of_zero: float = np.nan) -> NDArray[np.float64]:
    """log, nan for anything but a positive number and perhaps zero, without a warning."""
    found: NDArray[np.float64] = np.log(np.where(values > 0.0, values, np.nan))
    return np.where(values == 0.0, of_zero, found)


def checked(
    ens: Ensemble,
    width: int,
    depth: int,
    inputs: Any,
    networks: int,
    seed: int,
    method: str,
    dtype: DTypeLike,
    per_node: bool = False,
    gradients: str | None = None,
    classes: int = 10,
    labels: ArrayLike | None = None,
    distributions: bool = False,
    normalize: bool = False,
    device: Any = "cpu",
    products: str = "full",
) -> Request:
    """The arguments of `simulate`, each found right or refused."""
    ens = as_simulated(ens)
    settings: dict[str, Any] = {
        "width": _checked_width(ens, width),
        "depth": _checks.integer("depth", depth, 1, MAX_DEPTH),
        "networks": _checks.integer("networks", networks, 1, MAX_NETWORKS),
        "seed": _checks.integer("seed", seed, 0, MAX_SEED),
        "method": _checked_method(ens, method),
        "dtype": _checked_dtype(dtype),
        "per_node": _checks.flag("per_node", per_node),
        "gradients": None if gradients is None else _checks.choice("gradients", gradients, _LOSSES),
        "classes": _checks.integer("classes", classes, 2, MAX_CLASSES),
        "distributions": _checks.flag("distributions", distributions),
        "products": _checked_products(products, device, dtype),
        "devices": () if _device.is_cpu(device) else tuple(_device.find(device)),
    }
    with_labels = gradients == "cross_entropy"
    if labels is not None and not with_labels:
        raise ValueError(f"labels are for gradients='cross_entropy', got labels with gradients={gradients!r}")
    normalize = _checks.flag("normalize", normalize)
    of_labels = settings["classes"] if with_labels else 0
    found, given = as_inputs(inputs, normalize, of_labels, labels, settings["dtype"], settings["devices"])
    return Request(ens, inputs=found, labels=given, **settings)


def fitted(request: Request) -> Request:
    """The request with its engine chosen, once it is known to fit into memory."""
    if request.method == "gram" and isinstance(request.inputs, Chunks):
        inputs, labels = request.inputs.gathered()
        request = replace(request, inputs=inputs, labels=labels)
    available = _memory.available_memory()
    if request.devices:
        from .gpu.simulate import fitted as fitted_on_gpus

        _require_memory(request, available)
        return fitted_on_gpus(_candidates(request))
    candidates = _candidates(request)
    for candidate in candidates:
        if available is None or candidate.memory <= available:
            return candidate
    _require_memory(candidates[0], available)
    return candidates[0]


def _candidates(request: Request) -> list[Request]:
    """With each engine that can be asked for this, the cheapest first."""
    if request.method != "auto":
        return [request]
    candidates = [replace(request, method="direct")]
    at_once = isinstance(request.inputs, Gaussian) or (isinstance(request.inputs, Given) and request.inputs.small)
    # With fewer nodes than inputs the Gram matrix is singular, and never cheaper.
    if at_once and request.count <= request.width and request.ens.weights in _GRAM_WEIGHTS:
        candidates.append(replace(request, method="gram"))
    return sorted(candidates, key=lambda candidate: candidate.cost)


def run(request: Request, step: Step, first_network: int = 0) -> dict[str, Any]:
    """What the compiled core measures, as it returns it; `first_network` sets the networks apart from other runs'."""
    for phi in _phis(request):
        results = _run_with(phi, request, step, first_network)
        if not results["beyond_table"]:
            return results
    raise ValueError(
        f"the pre-activations of {str(request.ens.activation)!r} grow beyond all it can be tabulated for "
        f"(variance {phi.q_max:.3g}): use a smaller depth, sigma_w2 or inputs"
    )


def _run_with(phi: _core.Phi, request: Request, step: Step, first_network: int) -> dict[str, Any]:
    if request.devices:
        from .gpu.simulate import run as run_on_gpus

        return run_on_gpus(request, phi, step, first_network)
    settings = {"phi": phi, "first_network": first_network, **request.core_settings}
    if not request.in_pieces:
        inputs = request.inputs.whole() if isinstance(request.inputs, Given) else request.count
        callback: Callable[[float], None] = step
        return _core.simulate(
            inputs=inputs, labels=request.labels, method=request.method, callback=callback, **settings
        )
    stream = _core.DirectStream(features=request.features, **settings)
    for piece, progress in pieces(request, step):
        stream.take(piece.inputs, labels=piece.labels, callback=progress)
    return stream.finish()


def pieces(request: Request, step: Step) -> Iterator[tuple[Piece, Step]]:
    """The inputs piece by piece, each with its share of the progress where the end is known."""
    if isinstance(request.inputs, Chunks):
        for piece in request.inputs.pieces():
            yield piece, silent
        return
    assert isinstance(request.inputs, Given)
    done, count, labels = 0, request.count, request.labels
    for rows in request.inputs.slices():
        end = done + len(rows)
        given = None if labels is None else labels[done:end]
        yield Piece(rows, given), lambda f, b=done, e=end: step((b + f * (e - b)) / count)  # type: ignore[misc]
        done = end


def _phis(request: Request) -> Iterator[_core.Phi]:
    """The activation as the core takes it; where that is a table, one that reaches further each time."""
    activation = request.ens.activation
    phi = _first_phi(request)
    yield phi
    while phi.q_max < _FURTHEST:
        if isinstance(request.inputs, Chunks) and not request.inputs.again:
            raise ValueError(
                "inputs must be chunks that can be had once more, such as a list of arrays or a data loader: what came "
                f"leaves the range that {str(activation)!r} was tabulated for, and the run has to begin anew"
            )
        before = phi.q_max
        try:
            phi = activation._core_phi(min(_FURTHER * before, _FURTHEST))
        except ValueError:
            return
        if phi.q_max <= before:
            return
        yield phi


def _first_phi(request: Request) -> _core.Phi:
    """Tabulated for a multiple of the largest variance that theory expects, or for as much of it as can be."""
    shortest = request.ens.activation._core_phi(0.0)
    if math.isinf(shortest.q_max):  # no table
        return shortest
    reach = min(_REACH * _largest_variance(request), _FURTHEST)
    while True:
        try:
            return request.ens.activation._core_phi(reach)
        except ValueError:
            if reach < request.ens.sigma_w2 * request.inputs.mean_square:
                raise
            reach /= _FURTHER


def _largest_variance(request: Request) -> float:
    """Of what phi sees, in theory: from the first layers, and for the others at the rate that these end with."""
    ens, layers = request.ens, min(request.depth, 30)
    if ens.layernorm:
        return 1.0
    expect = of_ensemble(ens)
    before = q = largest = ens.sigma_w2 * request.inputs.mean_square + ens.sigma_b2
    for _ in range(layers - 1):
        try:
            branch = ens.sigma_w2 * float(expect.single(q).square) + ens.sigma_b2
        except ValueError:  # q is beyond what phi can be tabulated for
            return largest
        before, q = q, branch if ens.residual is None else q + ens.residual * branch
        if not math.isfinite(q):
            return largest
        largest = max(largest, q)
        if abs(q - before) <= 1e-3 * before:
            return largest
    growth = max(math.log(q / before), 0.0) if q > 0.0 < before else 0.0
    return math.exp(min(math.log(largest) + growth * (request.depth - layers), math.log(_FURTHEST)))


def attributes(request: Request) -> dict[str, Any]:
    """What was run, as attributes that every file format keeps: texts and numbers."""
    extras = {name: value if isinstance(value, float) else str(value) for name, value in request.ens.extras.items()}
    gradients = {} if request.gradients is None else {"gradients": request.gradients}
    if request.gradients == "cross_entropy":
        labels_came = request.labels is not None or (isinstance(request.inputs, Chunks) and request.inputs.with_labels)
        gradients["labels"] = "given" if labels_came else "random"
    on_gpu = {"device": _device.named(request.devices), "products": request.products} if request.devices else {}
    return {
        "activation": str(request.ens.activation),
        "sigma_w2": request.ens.sigma_w2,
        "sigma_b2": request.ens.sigma_b2,
        **extras,
        "width": request.width,
        "depth": request.depth,
        "inputs": request.count,
        "input_data": request.inputs.description,
        "features": request.features,
        "networks": request.networks,
        "classes": request.classes,
        **gradients,
        "seed": request.seed,
        "method": request.method,
        "dtype": request.dtype,
        **on_gpu,
        "igbfast_version": str(_core.config()["version"]),
    }


def warn_of_lost_layers(dataset: xr.Dataset, stacklevel: int) -> None:
    """One RuntimeWarning for all the layers where a number is not finite, and why."""
    told = [*_lost_digits(dataset), *_without_value(dataset)]
    if told:
        warnings.warn("; ".join(told), RuntimeWarning, stacklevel=stacklevel + 1)


def _lost_digits(dataset: xr.Dataset) -> Iterator[str]:
    """What overflowed or underflowed where, and what would help."""
    undefined = ("sigma_mu2", "gamma") if dataset.attrs["width"] == 1 else ()  # one node has no variance over nodes
    groups: dict[str, list[str]] = {}
    for name in (*MEASURED, "gradient"):
        if name in dataset and name not in undefined:
            lost = (~np.isfinite(dataset[name].values) & ~_undefined(dataset, name)).any(axis=0)
            if lost.any():
                groups.setdefault(spans(dataset["layer"].values[lost]), []).append(name)
    if not groups:
        return
    (where, names), *others = groups.items()
    where = f"{where} of {dataset.attrs['depth']}"
    more = "".join(f", and {_listed(names)} in {layers}" for layers, names in others)
    only_gradient = [name for names in groups.values() for name in names] == ["gradient"]
    if only_gradient:
        remedy = "gradients grow or vanish beyond a double: use a smaller depth"
    elif dataset.attrs["dtype"] == "float32":
        remedy = "dtype='float64' has a longer reach"
    else:
        remedy = "float64 reaches no further: use a smaller depth"
    they = "it is" if len(names) == 1 and not others else "they are"
    yield f"{_listed(names)} overflowed or lost all digits in {where}{more}: {they} not finite there; {remedy}"


def _without_value(dataset: xr.Dataset) -> Iterator[str]:
    """What has no value at any precision, and where."""
    dtype, depth = dataset.attrs["dtype"], dataset.attrs["depth"]
    for name, why in (
        ("gamma", f"all inputs are equal (in {dtype}): sigma_y2 is 0, and gamma has no value"),
        ("c", "fewer than two inputs are left that are not 0: c has no value"),
    ):
        lost = (~np.isfinite(dataset[name].values) & _undefined(dataset, name)).any(axis=0)
        if lost.any() and dataset.attrs["width"] > 1:
            yield f"{why} in {spans(dataset['layer'].values[lost])} of {depth}"


def _undefined(dataset: xr.Dataset, name: str) -> NDArray[np.bool_]:
    """Where a ratio is 0 / 0, while nothing else was lost."""
    undefined: NDArray[np.bool_] = np.zeros(dataset[name].shape, bool)
    if name == "gamma":
        undefined |= dataset["sigma_y2"].values == 0.0
    if name == "c":
        undefined |= np.isfinite(dataset["q"].values)
    return undefined


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


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


def _checked_products(products: str, device: Any, dtype: DTypeLike) -> str:
    products = _checks.choice("products", products, _PRODUCTS)
    if products != "full" and _device.is_cpu(device):
        raise ValueError(f"products must be 'full' for device='cpu', which has no tensor cores, got {products!r}")
    if products != "full" and _checked_dtype(dtype) != "float32":
        raise ValueError(
            f"products must be 'full' for dtype='float64', got {products!r}, which rounds float32 products"
        )
    return products


def _checked_width(ens: Ensemble, width: int) -> int:
    width = _checks.integer("width", width, 1, MAX_WIDTH)
    if ens.pool is not None and width % ens.pool.size:
        raise ValueError(f"width must be a multiple of {ens.pool.size} for pool={ens.pool!r}, got {width}")
    if ens.layernorm and width == 1:
        raise ValueError("width must be at least 2 with layernorm=True, which leaves nothing of a single node, got 1")
    return width


def _checked_method(ens: Ensemble, method: str) -> str:
    method = _checks.choice("method", method, _METHODS)
    if method == "gram" and ens.weights not in _GRAM_WEIGHTS:
        raise ValueError(
            f"method must be 'direct' or 'auto' for weights={ens.weights!r}, got 'gram', which draws nodes from the "
            "law that a layer has given the one before: it is known for gaussian and orthogonal weights"
        )
    return method


def _require_memory(request: Request, available: int | None) -> None:
    if available is None or request.memory <= available:
        return
    size = f"networks={request.networks}, depth={request.depth} and width={request.width}"
    lean = replace(request, per_node=False)
    if request.per_node and lean.memory <= available:
        what, remedy = f"per_node=True with {size} needs", "per_node=False, or fewer networks or layers"
    elif request.in_pieces and _NODE_RECORD * request.networks * request.depth * request.width > available:
        what, remedy = f"inputs piece by piece with {size} need", "fewer networks or layers"
    elif _least(request).memory > available:
        what, remedy = f"the results of networks={request.networks} and depth={request.depth} need", "fewer of them"
    else:
        what = f"inputs={request.count} at width={request.width} with method={request.method!r}{_beside(request)} needs"
        remedy = " or ".join([*_leaner(request, available), "fewer inputs"])
    needed = _memory.gib(request.memory)
    raise ValueError(f"{what} about {needed} of memory, but {_memory.gib(available)} are available: use {remedy}")


def _least(request: Request) -> Request:
    """As many networks and layers, and as little as can be of all else."""
    plain = replace(request.ens, pool=None, residual=None, layernorm=False)
    return replace(request, ens=plain, width=2, inputs=Gaussian(2), method="gram", per_node=False)


def _beside(request: Request) -> str:
    """What else takes memory that grows with the depth, the width or both."""
    ens = request.ens
    extra = [f"residual={ens.residual:g}"] if ens.residual is not None else []
    extra += ["layernorm=True"] if ens.layernorm else []
    extra += [f"gradients={request.gradients!r} and depth={request.depth}"] if request.gradients is not None else []
    return f", {', '.join(extra)}" if extra else ""


def _leaner(request: Request, available: int) -> Iterator[str]:
    """What fits, of what is asked otherwise."""
    lean = replace(request, per_node=False)
    other = "gram" if request.method != "gram" else "direct"
    possible = other == "direct" or (
        isinstance(request.inputs, (Gaussian, Given)) and request.ens.weights in _GRAM_WEIGHTS
    )
    if possible and replace(lean, method=other).memory <= available:
        yield f"method={other!r}"
    if request.gradients is not None and replace(lean, gradients=None, labels=None).memory <= available:
        yield "no gradients"


def labelled(request: Request, results: Mapping[str, Any]) -> xr.Dataset:
    """The dataset that `simulate` returns, from the bare arrays."""
    variables: dict[str, Any] = {}
    for name, (long_name, how) in MEASURED.items():
        variables[name] = (("network", "layer"), results[name], _attributes(long_name, how))
        variables[f"{name}_se"] = (("network", "layer"), results[f"{name}_se"], _error_attributes(long_name))
    coordinates: dict[str, Any] = {
        "network": ("network", np.arange(request.networks), {"long_name": "number of the network"}),
        "layer": ("layer", np.arange(1, request.depth + 1), {"long_name": "layer, 1 being the first with weights"}),
    }
    if request.gradients != "readout":
        variables |= _class_variables(request, results)
        coordinates["class"] = ("class", np.arange(request.classes), {"long_name": "output of the head"})
    if request.gradients is not None:
        variables |= _gradient_variables(request, results)
    if request.distributions:
        variables |= distributions.variables(results, request.networks, request.depth)
    if request.gradients is not None or request.distributions:
        coordinates["quantile"] = distributions.quantile_coordinate()
    if request.per_node:
        variables |= _single_variables(request, results)
    attrs = attributes(request) | {"estimator": _ESTIMATOR, "standard_error": _OWN_ERROR}
    dataset = xr.Dataset(variables, coordinates, attrs)
    return distributions.with_edges(dataset) if request.distributions else dataset


def _class_variables(request: Request, results: Mapping[str, Any]) -> dict[str, Any]:
    counts = np.stack([np.bincount(guess[guess >= 0], minlength=request.classes) for guess in results["guess"]])
    measured = np.isfinite(results["q"][:, -1:])  # else there are no outputs to tell a class by
    fractions = np.where(measured, counts / results["guess"].shape[1], np.nan)
    favoured = {"long_name": "class that most inputs get", "description": "the first of those that get as many"}
    return {
        "class_fraction": (("network", "class"), fractions, _attributes(*_FRACTION)),
        "favoured": ("network", counts.argmax(axis=1), favoured),
    }


def _gradient_variables(request: Request, results: Mapping[str, Any]) -> dict[str, Any]:
    by_input = results["gradient"]  # (network, layer, input)
    gradient = by_input.mean(axis=2)
    growth: NDArray[np.float64] = np.full_like(gradient, np.nan)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        growth[:, :-1] = gradient[:, :-1] / gradient[:, 1:]
    long_name = _GRADIENTS["gradient"][0]
    quantiles = np.moveaxis(np.quantile(by_input, distributions.PROBABILITIES, axis=2), 0, -1)
    dims = ("network", "layer")
    variables: dict[str, Any] = {
        "gradient": (dims, gradient, _attributes(*_GRADIENTS["gradient"])),
        "gradient_se": (dims, results["gradient_se"], _error_attributes(long_name)),
        "growth": (dims, growth, _attributes(*_GRADIENTS["growth"])),
        "gradient_quantile": (
            (*dims, "quantile"),
            quantiles,
            _attributes(long_name, "quantiles over the inputs of the mean over nodes"),
        ),
    }
    if request.gradients == "cross_entropy":
        by_class = _mean_by_class(by_input, results["labels"], request.classes)
        how = "mean over the inputs with this label; nan where there is none"
        variables["gradient_class"] = ((*dims, "class"), by_class, _attributes(f"{long_name} by label", how))
    return variables


def _mean_by_class(values: NDArray[np.float64], labels: NDArray[np.int32], classes: int) -> NDArray[np.float64]:
    """(network, layer, input) to (network, layer, class); a value that is lost spoils its own class alone."""
    sums = [[np.bincount(of, layer, classes) for layer in layers] for of, layers in zip(labels, values, strict=True)]
    counts = np.stack([np.bincount(of, minlength=classes) for of in labels])[:, None, :]
    with np.errstate(invalid="ignore"):
        means: NDArray[np.float64] = np.array(sums) / counts
    return means


def _single_variables(request: Request, results: Mapping[str, Any]) -> dict[str, Any]:
    """What belongs to one node or one input."""
    variables: dict[str, Any] = {}
    for name, (long_name, how) in _PER_NODE.items():
        variables[name] = (("network", "layer", "node"), results[name], _attributes(long_name, how))
    if request.gradients is not None:
        attrs = _attributes("mean squared gradient of each input", "mean over nodes")
        variables["gradient_input"] = (("network", "layer", "input"), results["gradient"], attrs)
    if request.gradients != "readout":
        variables["guess"] = (("network", "input"), results["guess"], {"long_name": "class that each input gets"})
    if request.gradients == "cross_entropy":
        variables["label"] = (("network", "input"), results["labels"], {"long_name": "class of each input"})
    return variables


def _mean_variables(
    name: str, values: NDArray[np.float64], attrs: Mapping[str, Any], dim: str = "layer"
) -> dict[str, Any]:
    mean, error = mean_and_error(values)
    return {name: (dim, mean, dict(attrs)), f"{name}_se": (dim, error, _error_attributes(attrs["long_name"]))}


def _attributes(long_name: str, description: str) -> dict[str, str]:
    return {"long_name": long_name, "description": description, "units": "1"}


def _error_attributes(long_name: str) -> dict[str, str]:
    return {"long_name": f"standard error of the {long_name}", "units": "1"}
