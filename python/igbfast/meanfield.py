"""Networks of infinite width: Gaussian expectations and the recursion over layers.

q_ab' = sigma_w2 E[phi(u) phi(v)] + sigma_b2, (u, v) ~ N(0, [[q_aa, q_ab], [q_ab, q_bb]]), for two inputs a and b. In
the words of initial guessing bias, q_ab = sigma_mu2 and q_aa - q_ab = sigma_y2, and these two are what is propagated:
a difference of q's would have lost its digits where gamma = sigma_mu2 / sigma_y2 is large. With a pool, phi stands for
the pooled activation P of several nodes.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from . import _checks, _core
from ._expectations import Expectations, FloatArray, of_ensemble, one_device
from .activations import Activation, as_activation
from .ensemble import Ensemble, as_ensemble
from .pools import Pool, as_pool

__all__ = ["mean_activation", "moments", "propagate"]

MAX_DEPTH = 2**24 - 1
REACH = 4.0
"""How much further a table goes that q has outgrown."""

# Variable -> long name; all are pure numbers.
_VARIABLES = {
    "sigma_mu2": "variance of the node centres",
    "sigma_y2": "variance around the node centres",
    "gamma": "bias strength",
    "q": "signal variance",
    "c": "correlation of two inputs",
    "chi": "gradient susceptibility",
}


# ---- Expectations ----------------------------------------------------------------------------------------------------


def moments(
    activation: Activation | str,
    q: ArrayLike,
    c: ArrayLike = 1.0,
    *,
    derivative: int = 0,
    pool: Pool | None = None,
    q_b: ArrayLike | None = None,
    device: object = "cpu",
) -> Any:
    """Gaussian expectation E[phi(u) phi(v)], or that of the derivatives E[phi'(u) phi'(v)] or E[phi''(u) phi''(v)].

    u and v are normal with mean zero, variances `q` and `q_b` and correlation `c`. The relative error is below 1e-12,
    against sqrt(E[phi(u)^2] E[phi(v)^2]) where the expectation itself passes through zero.

    Parameters
    ----------
    activation : Activation or str
        The function phi.
    q : array_like
        Variance of u, finite, zero or positive.
    c : array_like, optional
        Correlation, from -1 to 1.
    derivative : {0, 1, 2}, optional
        Which derivative of phi; at most `activation.orders`, the number that exist as functions.
    pool : MaxPool, MinPool or AvgPool, optional
        Take the expectation of the pooled P(y_1..y_k) over k independent pairs (u, v). Derivatives are then summed over
        the nodes: of the first, sigma_w2 times the expectation at c = 1 is chi.
    q_b : array_like, optional
        Variance of v; `q` if not given.
    device : str or torch.device, optional
        "cpu", or "cuda", "cuda:1", ...: a GPU, where `q`, `c` and `q_b` may also be tensors of PyTorch's or other
        arrays with DLPack that are there already. Everything is integrated there, in float64 as on the CPU, to which
        the results are equal up to rounding (2e-12 with kinks, else 4e-14). Worth it from some thousand points on. Not
        with `MaxPool` and `MinPool`.

    Returns
    -------
    ndarray of float64, or a float64 scalar
        Of the shape that `q`, `c` and `q_b` broadcast to. If one of them is an array on the GPU, a float64
        torch.Tensor there.

    Raises
    ------
    ValueError
        For an unknown activation, a variance that is negative or not finite, a correlation out of range, shapes that do
        not broadcast, a derivative that does not exist, an activation that grows too fast for the variance, or a pool
        that the GPU does not take.
    TypeError
        If an argument does not hold real numbers.
    RuntimeError
        If a GPU is asked for, and there is none to be used.

    Notes
    -----
    Closed forms for linear, ReLU and leaky ReLU (Cho and Saul, Kernel methods for deep learning, 2009) and erf
    (Williams, Computation with infinite neural networks, 1998); quadrature for all others. An empty array gives an
    empty one.

    Examples
    --------
    >>> import igbfast as igb
    >>> print(igb.moments("relu", 2.0))
    1.0
    >>> igb.moments("erf", [0.5, 1.0], c=0.5).round(6)
    array([0.160861, 0.216347])
    >>> round(float(igb.moments("relu", 1.0, pool=igb.MaxPool(2))), 6)  # 1/2 + (1 + 2/pi)/4
    0.909155
    """
    expect = Expectations(as_activation(activation), as_pool(pool))
    order = _checked_derivative(derivative, expect)
    gpu = one_device(device)
    if gpu is not None:
        from .gpu import theory

        return theory.moments(gpu, expect, order, q, q_b, c)
    q_aa = _variances("q", q)
    q_bb = q_aa if q_b is None else _variances("q_b", q_b)
    correlation = _correlations("c", c)
    try:
        q_aa, q_bb, correlation = np.broadcast_arrays(q_aa, q_bb, correlation)
    except ValueError:
        shapes = f"{np.shape(q)} and {np.shape(c)}" if q_b is None else f"{np.shape(q)}, {np.shape(q_b)}, {np.shape(c)}"
        names = "q and c" if q_b is None else "q, q_b and c"
        raise ValueError(f"{names} must have shapes that broadcast together, got {shapes}") from None
    return expect.pair(order, q_aa, q_bb, correlation)[()]


def mean_activation(activation: Activation | str, q: ArrayLike, *, pool: Pool | None = None) -> Any:
    """Gaussian expectation E[phi(u)] of one input.

    Parameters
    ----------
    activation : Activation or str
        The function phi.
    q : array_like
        Variance of u, finite, zero or positive.
    pool : MaxPool, MinPool or AvgPool, optional
        Take the expectation of the pooled P(y_1..y_k) over k independent u.

    Returns
    -------
    ndarray of float64, or a float64 scalar
        Of the shape of `q`.

    Raises
    ------
    ValueError, TypeError
        As for `moments`.

    Examples
    --------
    >>> import igbfast as igb
    >>> print(igb.mean_activation("relu", 2.0).round(6))  # sqrt(q / (2 pi))
    0.56419
    """
    expect = Expectations(as_activation(activation), as_pool(pool))
    return expect.single(_variances("q", q)).mean[()]


# ---- Recursion -------------------------------------------------------------------------------------------------------


def propagate(ens: Ensemble, depth: int, *, q0: float = 1.0, c0: float = 0.0, device: object = "cpu") -> xr.Dataset:
    """Follow signal variance, correlation and bias strength from layer to layer at infinite width.

    sigma_y2 is propagated itself, without cancellation: gamma is right to about depth times 1e-15 relative, however
    large it becomes.

    Parameters
    ----------
    ens : Ensemble
        The law of the networks, with any activation, pool, residual branch and LayerNorm.
    depth : int
        Number of layers, 1 to 2^24 - 1.
    q0 : float, optional
        Mean square of the inputs, positive.
    c0 : float, optional
        Correlation of two inputs, from 0 to 1; 0 for independent inputs with mean zero.
    device : str or torch.device, optional
        "cpu", or "cuda", "cuda:1", ...: all layers on that GPU, in float64. The layers of one network wait for one
        another, and the CPU is the faster of the two; a GPU is for many networks at once
        (`igbfast.gpu.theory.trajectories`). Not with `MaxPool` and `MinPool`.

    Returns
    -------
    xarray.Dataset
        Over `layer`, 1 to `depth`, float64: `sigma_mu2` and `sigma_y2` (variance of the node centres and around them),
        `gamma` (their ratio), `q` (their sum), `c` (sigma_mu2 / q) and `chi`, the factor of squared gradients:
        sigma_w2 E[phi'^2], over q with LayerNorm; 1 + residual times that in a residual network. gamma is inf for
        identical inputs (c0 = 1), whose sigma_y2 is zero; chi is inf for a phi that jumps.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type, before any work.

    Warns
    -----
    RuntimeWarning
        Once, if a number overflowed or fell below the smallest normal double, or if q grew larger than the expectations
        of phi can be computed for; it is nan from that layer on.

    References
    ----------
    Poole et al., Exponential expressivity in deep neural networks through transient chaos (2016), equations 3 and 5;
    Yang and Schoenholz, Mean field residual networks: on the edge of chaos (2017), for residual networks;
    the identity of c = gamma / (1 + gamma) with the correlation is Theorem 3.1 of When Bias Meets Trainability:
    Connecting Theories of Initialization (2026).

    Examples
    --------
    >>> import igbfast as igb
    >>> ds = igb.propagate(igb.Ensemble("relu", sigma_w2=2.0), depth=3)
    >>> ds.gamma.values.round(4)
    array([0.    , 0.4669, 0.9752])
    """
    ens = as_ensemble(ens)
    depth = _checks.integer("depth", depth, 1, MAX_DEPTH)
    sigma_mu2, sigma_y2, attrs = first_layer(ens, q0, c0)
    gpu = one_device(device)
    if gpu is None:
        columns = trajectory(ens, depth, sigma_mu2, sigma_y2)
    else:
        columns = _trajectory_on(gpu, ens, depth, sigma_mu2, sigma_y2)
    _warn_of_lost_layers(ens, columns, depth)
    variables = {
        name: ("layer", columns[name], {"long_name": long_name, "units": "1"}) for name, long_name in _VARIABLES.items()
    }
    return xr.Dataset(
        variables,
        {"layer": ("layer", np.arange(1, depth + 1), {"long_name": "layer"})},
        {
            "description": "mean-field theory of an infinitely wide random network, layer by layer",
            **attrs,
            "depth": depth,
            "igbfast_version": str(_core.config()["version"]),
        },
    )


def first_layer(ens: Ensemble, q0: object, c0: object) -> tuple[float, float, dict[str, Any]]:
    """sigma_mu2 and sigma_y2 of layer 1, which is linear in the inputs, and what was asked as attributes."""
    q = _checks.positive_finite("q0", q0)
    allowed = "a number from 0 to 1"
    c = _checks.finite("c0", c0, allowed)
    if not 0.0 <= c <= 1.0:
        raise ValueError(f"c0 must be {allowed}, got {_checks.shown(c0)}")
    attrs = {
        "activation": str(ens.activation),
        "sigma_w2": ens.sigma_w2,
        "sigma_b2": ens.sigma_b2,
        **{name: value if isinstance(value, float) else str(value) for name, value in ens.extras.items()},
        "q0": q,
        "c0": c,
    }
    return ens.sigma_w2 * q * c + ens.sigma_b2, ens.sigma_w2 * q * (1.0 - c), attrs


def trajectory(ens: Ensemble, depth: int, sigma_mu2: float, sigma_y2: float) -> dict[str, FloatArray]:
    """The columns of `propagate`, from layer 1 on; nan where q is out of reach."""
    expect = of_ensemble(ens)
    kind, size = expect.pooled
    columns = {name: np.full(depth, np.nan) for name in _VARIABLES}
    reach = 1.0 if ens.layernorm else sigma_mu2 + sigma_y2
    done = 0
    while True:
        try:
            phi = expect.phi(reach)
        except ValueError:
            if done == 0:
                raise
            return columns
        found = _core.propagate(
            phi=phi,
            pool=kind,
            size=size,
            sigma_w2=ens.sigma_w2,
            sigma_b2=ens.sigma_b2,
            residual=ens.residual or 0.0,
            layernorm=ens.layernorm,
            sigma_mu2=sigma_mu2,
            sigma_y2=sigma_y2,
            depth=depth - done,
        )
        computed = int(found["computed"])
        lost = [name for name in columns if done and np.isnan(columns[name][done])]
        for name, column in columns.items():
            column[done : done + computed] = found[name][:computed]
        for name in lost:  # and stays so, unless it has grown again
            column = columns[name][done:]
            column[~(np.isfinite(column) & (column > 0.0))] = np.nan
        if expect.activation.orders == 0:  # phi jumps, and E[phi'^2] is infinite
            columns["chi"][done : done + computed] = np.inf
        done += computed
        if done == depth:
            return columns
        # q has outgrown the table: from the last layer on with a larger one.
        done -= 1
        sigma_mu2, sigma_y2 = (float(np.nan_to_num(columns[name][done])) for name in ("sigma_mu2", "sigma_y2"))
        reach = REACH * phi.q_max


def _trajectory_on(gpu: Any, ens: Ensemble, depth: int, sigma_mu2: float, sigma_y2: float) -> dict[str, FloatArray]:
    from .gpu import theory

    numbers = {"sigma_w2": ens.sigma_w2, "sigma_b2": ens.sigma_b2, "sigma_mu2": sigma_mu2, "sigma_y2": sigma_y2}
    columns = theory.trajectories(
        gpu,
        of_ensemble(ens),
        **{name: theory.tensor_on(gpu, np.array([value])) for name, value in numbers.items()},
        residual=ens.residual or 0.0,
        layernorm=ens.layernorm,
        depth=depth,
    )
    return {name: column[0].cpu().numpy() for name, column in columns.items()}


def _warn_of_lost_layers(ens: Ensemble, columns: dict[str, FloatArray], depth: int) -> None:
    lost = {name: np.isnan(columns[name]) for name in _VARIABLES}
    names = [name for name, where in lost.items() if where.any()]
    if not names:
        return
    first = min(int(np.argmax(lost[name])) for name in names) + 1
    why = _reason_of_loss(ens, names, columns["q"])
    warnings.warn(
        f"{why} at layer {first} of {depth}: {', '.join(names)} are nan from where it happens; use a smaller depth",
        RuntimeWarning,
        stacklevel=3,
    )


def _reason_of_loss(ens: Ensemble, names: list[str], q: FloatArray) -> str:
    if "chi" in names:  # which no underflow takes away
        if np.nanmax(q, initial=0.0) < 1e150 and ens.activation.asymptotes is None:
            return f"q grows larger than the expectations of {ens.activation} can be computed for"
        return "q exceeds the largest double"
    for name in ("sigma_y2", "sigma_mu2"):
        if name in names:
            return f"{name} falls below the smallest normal double"
    return "the ratio of sigma_mu2 and sigma_y2 leaves the range of double"


# ---- Arguments -------------------------------------------------------------------------------------------------------


def _checked_derivative(derivative: int, expect: Expectations) -> int:
    order, phi = _checks.integer("derivative", derivative, 0, 2), expect.activation
    if order > phi.orders:
        allowed, why = ("0 or 1", "whose slope jumps") if phi.orders else ("0", "which jumps")
        raise ValueError(f"derivative must be {allowed} for {phi}, {why}, got {order}")
    if order == 2 and expect.takes_extremes:
        raise ValueError(f"derivative must be 0 or 1 with {expect.pool}, whose slope jumps where nodes tie, got 2")
    return order


def _variances(name: str, values: ArrayLike) -> FloatArray:
    array = _checks.real_numbers(name, values)
    return _checks.all_allowed(name, array, np.isfinite(array) & (array >= 0.0), "finite and not negative")


def _correlations(name: str, values: ArrayLike) -> FloatArray:
    array = _checks.real_numbers(name, values)
    return _checks.all_allowed(name, array, np.abs(array) <= 1.0, "from -1 to 1")
