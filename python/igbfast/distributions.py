"""Whole distributions by layer: the centres mu and variances var of the nodes, q over inputs, c over pairs of inputs.

`simulate(..., distributions=True)` counts values in bins that are the same for every layer, network and run: sixteen to
an octave, so 3 to 6 % wide at any scale. Counts add up, over networks and over runs. c is counted as 1 - c, which keeps
its digits however small it is, but for pairs of inputs that are much nearer to each other than to the first input (in
float32 by a factor of a thousand and more).

>>> import igbfast as igb
>>> ens = igb.Ensemble("tanh", sigma_w2=1.76, sigma_b2=0.05)
>>> runs = [igb.simulate(ens, width=300, depth=4, inputs=50, seed=seed, distributions=True) for seed in (1, 2)]
>>> together = igb.distributions.merge(*runs)
>>> int(together.q_counts.sel(layer=4).sum())  # two networks, fifty inputs
100
>>> low, high = igb.distributions.quantiles(together, "q", [0.05, 0.95]).sel(layer=4).values
>>> bool(low < float(runs[0].q[0, -1]) < high)
True
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from . import _checks

__all__ = ["histogram", "merge", "quantiles"]

# Name -> what is counted.
COUNTED = {
    "mu": "centres of the nodes",
    "var": "variances of the nodes around their centres",
    "q": "signal variances of the inputs",
    "c": "1 - c over the pairs of inputs",
}
NAMES = (*COUNTED, "1-c")
EDGES = tuple(f"{name}_{side}" for name in COUNTED for side in ("lower", "upper"))
PROBABILITIES = (0.05, 0.25, 0.5, 0.75, 0.95)

_Floats = NDArray[np.float64]

_SIGN = 0x8000  # of the sixteen leading bits of a double
_TINY = float(np.finfo(np.float64).tiny)


def quantiles(dataset: xr.Dataset, name: str, probabilities: ArrayLike = PROBABILITIES) -> xr.DataArray:
    """Quantiles of one distribution, layer by layer.

    They are interpolated inside the bins, which are 3 to 6 % wide.

    Parameters
    ----------
    dataset : xarray.Dataset
        Result of `simulate` with `distributions=True`, or of `merge`.
    name : {"mu", "var", "q", "c", "1-c"}
        Of what: centres or variances of the nodes, signal variances of the inputs, correlations of pairs of inputs, or
        one less these.
    probabilities : array_like of shape (k,), optional
        From 0 to 1.

    Returns
    -------
    xarray.DataArray
        float64 over ([network,] layer, quantile); nan in layers that hold anything not finite.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type, or the dataset holds no such counts.

    Examples
    --------
    >>> import igbfast as igb
    >>> ens = igb.Ensemble("relu", sigma_w2=2.0)
    >>> ds = igb.simulate(ens, width=300, depth=5, inputs=20, distributions=True)
    >>> c = igb.distributions.quantiles(ds, "c", [0.25, 0.75])
    >>> bool((c.sel(quantile=0.25) < c.sel(quantile=0.75)).all())
    True
    """
    kind, counts = _counts(dataset, name)
    p = np.atleast_1d(_checks.real_numbers("probabilities", probabilities))
    if p.ndim != 1:
        raise ValueError(f"probabilities must be a list of numbers from 0 to 1, got {_checks.shown(p)}")
    _checks.all_allowed("probabilities", p, (p >= 0.0) & (p <= 1.0), "from 0 to 1")
    values = _quantiles_of(name, counts.values, counts[f"{kind}_bin"].values, p)
    return xr.DataArray(
        values,
        {**{dim: counts[dim] for dim in counts.dims[:-1]}, "quantile": p},
        (*counts.dims[:-1], "quantile"),
        f"{kind}_quantile",
        {"long_name": f"quantiles of the {_shown(name)}", "units": "1"},
    )


def histogram(
    dataset: xr.Dataset, name: str, *, layer: int, bins: int | ArrayLike = 50
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Density of one distribution in one layer, all networks together.

    Parameters
    ----------
    dataset, name
        As for `quantiles`.
    layer : int
        Which layer, 1 being the first.
    bins : int or array_like, optional
        How many bins between the smallest and the largest value, or their edges, ascending. The counts of the bins that
        were counted in (3 to 6 % wide) are spread evenly over these.

    Returns
    -------
    density, edges : ndarray
        As numpy.histogram(density=True) gives them: the density integrates to the share of values between the edges.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type, the dataset holds no such counts, or they are of numbers
        that overflowed.

    Examples
    --------
    >>> import numpy as np
    >>> import igbfast as igb
    >>> ens = igb.Ensemble("tanh", sigma_w2=1.76, sigma_b2=0.05)
    >>> ds = igb.simulate(ens, width=1000, depth=3, inputs=20, networks=2, distributions=True)
    >>> density, edges = igb.distributions.histogram(ds, "mu", layer=3, bins=20)
    >>> round(float(np.sum(density * np.diff(edges))), 12)
    1.0
    """
    kind, counts = _counts(dataset, name)
    layers = counts["layer"].values
    number = _checks.integer("layer", layer, int(layers[0]), int(layers[-1]))
    values = counts.sel(layer=number).values.reshape(-1, counts.shape[-1]).sum(axis=0)
    keys = counts[f"{kind}_bin"].values[values > 0]
    values = values[values > 0]
    lower, upper = _edges(keys)
    if not np.isfinite(upper).all() or not values.size:
        raise ValueError(f"{name} overflowed in layer {number}: it has no density there")
    if name == "c":
        lower, upper, values = (1.0 - upper)[::-1], (1.0 - lower)[::-1], values[::-1]
    edges = _bin_edges(bins, lower[0], upper[-1])
    if np.diff(edges).min() < _TINY:
        remedy = "; ask for '1-c'" if name == "c" else ""
        value = 0.0 if abs(upper[-1]) < _TINY else upper[-1]
        raise ValueError(f"{name} is {value:g} throughout layer {number}: it has no density there{remedy}")
    knots = np.stack([lower, upper], axis=1).ravel()
    below = np.concatenate([[0.0], np.cumsum(values)])
    share = np.interp(edges, knots, np.stack([below[:-1], below[1:]], axis=1).ravel()) / below[-1]
    return np.diff(share) / np.diff(edges), edges


def merge(*datasets: xr.Dataset) -> xr.Dataset:
    """The distributions of all networks of one or several runs together.

    The runs should differ in their seeds: with the same one they hold the same networks.

    Parameters
    ----------
    *datasets : xarray.Dataset
        Results of `simulate` with `distributions=True`, or of `merge`, of the same depth.

    Returns
    -------
    xarray.Dataset
        `<name>_counts` over (layer, <name>_bin) and `<name>_quantile` over (layer, quantile) for each of mu, var, q, c;
        attributes that all of them share.

    Raises
    ------
    ValueError, TypeError
        If nothing is given, something else than such a dataset, or datasets of different depths.

    Examples
    --------
    >>> import igbfast as igb
    >>> ens = igb.Ensemble("relu", sigma_w2=2.0)
    >>> ds = igb.simulate(ens, width=100, depth=5, inputs=20, networks=4, distributions=True)
    >>> igb.distributions.merge(ds).q_counts.sum("q_bin").values  # four networks, twenty inputs
    array([80, 80, 80, 80, 80])
    """
    if not datasets:
        raise ValueError("merge needs at least one dataset")
    for dataset in datasets:
        for name in COUNTED:
            _counts(dataset, name)
    depths = sorted({dataset.sizes["layer"] for dataset in datasets})
    if len(depths) > 1:
        raise ValueError(f"merge takes datasets of the same depth, got {' and '.join(str(d) for d in depths)} layers")
    first, *others = datasets
    shared = {key: value for key, value in first.attrs.items() if all(_equal(value, o.attrs.get(key)) for o in others)}
    shared["networks"] = sum(dataset.attrs["networks"] for dataset in datasets)
    merged: dict[str, Any] = {}
    for name in COUNTED:
        summed = [_without_networks(dataset[f"{name}_counts"]) for dataset in datasets]
        keys = np.unique(np.concatenate([counts[f"{name}_bin"].values for counts in summed]))
        total = np.zeros((depths[0], len(keys)), np.int64)
        for counts in summed:
            total[:, np.searchsorted(keys, counts[f"{name}_bin"].values)] += counts.values
        merged |= _described(name, ("layer",), total, keys)
    dataset = xr.Dataset(merged, {"layer": first["layer"], "quantile": quantile_coordinate()}, shared)
    return with_edges(dataset)


# ---- For simulate ----------------------------------------------------------------------------------------------------


def variables(results: Mapping[str, Any], networks: int, depth: int) -> dict[str, Any]:
    """Variables and coordinates of a dataset, from the core's lists of bins that are not empty."""
    found: dict[str, Any] = {}
    for name in COUNTED:
        entries = results[f"{name}_counts"]
        codes = np.asarray(entries["bin"]).astype(np.int32)
        keys, index = np.unique(np.where(codes < _SIGN, codes, _SIGN - 1 - codes), return_inverse=True)
        counts = np.zeros((networks, depth, len(keys)), np.int64)
        counts[entries["network"], entries["layer"], index] = entries["count"]
        found |= _described(name, ("network", "layer"), counts, keys)
    return found


def with_edges(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset with the edges of its bins as coordinates."""
    coordinates: xr.Dataset = dataset.set_coords(EDGES)
    return coordinates


# ---- Bins ------------------------------------------------------------------------------------------------------------
# A bin is named by its key, which orders bins by the values in them: the sixteen leading bits m of a positive double,
# or -1 - m of a negative one.


def _edges(keys: NDArray[Any]) -> tuple[_Floats, _Floats]:
    """Lower and upper edge of each bin; infinite or nan for the bins of what is not finite."""
    key = np.asarray(keys).astype(np.int64)
    size = np.where(key >= 0, key, -1 - key)
    near, far = _double(size), _double(size + 1)
    return np.where(key >= 0, near, -far), np.where(key >= 0, far, -near)


def _double(leading: NDArray[np.int64]) -> _Floats:
    values: _Floats = (leading.astype(np.uint64) << np.uint64(48)).view(np.float64)
    return values


def _quantiles_of(name: str, counts: NDArray[np.int64], keys: NDArray[Any], p: _Floats) -> _Floats:
    lower, upper = _edges(keys)
    lower, upper = np.where(keys == -1, 0.0, lower), np.where(keys == 0, 0.0, upper)  # the bins of zeros hold no others
    return 1.0 - _quantiles(counts, lower, upper, 1.0 - p) if name == "c" else _quantiles(counts, lower, upper, p)


def _quantiles(counts: NDArray[np.int64], lower: _Floats, upper: _Floats, p: _Floats) -> _Floats:
    """Over the last axis, which becomes that of p."""
    below = np.cumsum(counts, axis=-1)
    values = np.full((*counts.shape[:-1], len(p)), np.nan)
    if not lower.size:
        return values
    total = below[..., -1:]
    lost = (counts[..., ~(np.isfinite(lower) & np.isfinite(upper))] > 0).any(axis=-1) | (total[..., 0] == 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        for i, probability in enumerate(p):
            rank = probability * total
            bin_ = ((below < rank) | (below == 0)).sum(axis=-1, keepdims=True).clip(max=lower.size - 1)
            inside = np.take_along_axis(counts, bin_, -1)
            share = 1.0 - (np.take_along_axis(below, bin_, -1) - rank) / inside
            width = upper[bin_] - lower[bin_]
            values[..., i] = np.where(lost, np.nan, (lower[bin_] + share * width)[..., 0])
    return values


def _bin_edges(bins: int | ArrayLike, lowest: float, highest: float) -> _Floats:
    if np.ndim(bins) == 0:
        return np.linspace(lowest, highest, _checks.integer("bins", bins, 1, 10**6) + 1)
    edges: _Floats = _checks.real_numbers("bins", bins)
    if edges.ndim != 1 or edges.size < 2 or not np.isfinite(edges).all() or not (np.diff(edges) > 0.0).all():
        raise ValueError(f"bins must be a number of bins or at least two ascending edges, got {_checks.shown(bins)}")
    return edges


def _described(name: str, dims: tuple[str, ...], counts: NDArray[np.int64], keys: NDArray[Any]) -> dict[str, Any]:
    """Counts, their bins with edges, and their quantiles, as variables of a dataset."""
    what, bin_name = COUNTED[name], f"{name}_bin"
    quantile_attrs = {"long_name": f"quantiles of the {_shown(name)}", "units": "1"}
    lower, upper = _edges(keys)
    values = _quantiles_of(name, counts, keys, np.array(PROBABILITIES))
    return {
        f"{name}_counts": ((*dims, bin_name), counts, {"long_name": f"histogram of the {what}"}),
        bin_name: (bin_name, keys.astype(np.int32), {"long_name": "number of the bin: the leading bits of a double"}),
        f"{name}_lower": (bin_name, lower, {"long_name": f"lower edge of the bin, {what}", "units": "1"}),
        f"{name}_upper": (bin_name, upper, {"long_name": f"upper edge of the bin, {what}", "units": "1"}),
        f"{name}_quantile": ((*dims, "quantile"), values, quantile_attrs),
    }


def _shown(name: str) -> str:
    return "correlations of the pairs of inputs" if name == "c" else COUNTED["c" if name == "1-c" else name]


def quantile_coordinate() -> tuple[str, _Floats, dict[str, str]]:
    return "quantile", np.array(PROBABILITIES), {"long_name": "share of the values below", "units": "1"}


def _counts(dataset: object, name: str) -> tuple[str, xr.DataArray]:
    """What a caller asks for, as the variable that holds it."""
    _checks.choice("name", name, NAMES)
    kind = "c" if name == "1-c" else name
    if not isinstance(dataset, xr.Dataset):
        raise TypeError(f"dataset must be an xarray.Dataset made by simulate, got {_checks.shown(dataset)}")
    if f"{kind}_counts" not in dataset:
        raise ValueError(f"dataset has no {kind}_counts: make it by simulate(..., distributions=True) or merge")
    return kind, dataset[f"{kind}_counts"]


def _without_networks(counts: xr.DataArray) -> xr.DataArray:
    return counts.sum("network") if "network" in counts.dims else counts


def _equal(one: object, other: object) -> bool:
    return other is not None and bool(np.array_equal(np.asarray(one), np.asarray(other)))
