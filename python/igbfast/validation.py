"""Simulation against theory: do networks of finite width follow the mean-field recursions, layer by layer?

z = (simulation - theory - shift) / error, where the shift by finite width, O(1/width), is measured on narrower networks
and the error comes from independent networks. docs/validation.md explains the statistics.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import DTypeLike, NDArray

from . import _checks, _saving, meanfield, simulation
from ._inputs import Gaussian, Given
from ._progress import Step, progress_bar
from ._report import Report
from .ensemble import Ensemble
from .simulation import MEASURED, Request

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console, ConsoleOptions, RenderResult

__all__ = ["Validation", "validate"]

JUDGED = ("sigma_mu2", "sigma_y2", "gamma", "c")
"""The quantities that a verdict rests on."""

LIMIT = 5.0
"""Largest |z| that passes."""

VERDICT_NETWORKS = 16
"""With fewer independent networks an error bar is too uncertain for a verdict."""

UNCERTAIN = 4.0
"""With an expected effect of the width more uncertain than so many of the simulation's errors there is no verdict."""

_POSITIVE = ("sigma_mu2", "sigma_y2", "gamma", "q")  # compared as logarithms where every network has one

# Narrower networks that tell the effect of the width: by which factors, and how many times as many. They add about a
# tenth to the variance and a quarter to the time; small networks, which cost little, are narrowed less.
_NARROWINGS, _SMALL_NARROWINGS = ((10, 40), 2), ((4, 10), 8)
_WIDE = 4000
_LEAST_WIDTH = 100
_MAX_NETWORKS = 10**8

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Validation(Report):
    """Theory and simulation side by side, and whether they agree.

    Print it for the table, or draw it with `plot`.
    """

    ens: Ensemble
    """The law of the networks."""
    dataset: xr.Dataset
    """Over `layer`, for each name in sigma_mu2, sigma_y2, gamma, q, c, chi: `<name>_theory`, `<name>` (mean over
    networks), `<name>_se`, `<name>_shift` and `<name>_shift_se` (expected effect of the finite width), `<name>_z`.
    """
    simulation: xr.Dataset
    """What every single network gave, over (network, layer), as `simulate` returns it."""

    @property
    def worst(self) -> tuple[str, int, float]:
        """Name, layer and z of the largest |z| among the judged quantities; (`""`, 0, nan) if there is none."""
        z = np.stack([self.dataset[f"{name}_z"].values for name in JUDGED])
        if not np.isfinite(z).any():
            return "", 0, float("nan")
        row, column = np.unravel_index(np.nanargmax(np.where(np.isfinite(z), np.abs(z), np.nan)), z.shape)
        return JUDGED[row], int(self.dataset["layer"].values[column]), float(z[row, column])

    @property
    def verdict(self) -> str:
        """`passed`, `failed`, or `undecided`: too few networks, or layers where a comparison is impossible or empty."""
        if abs(self.worst[2]) > LIMIT and self._enough_networks:
            return "failed"
        decided = self._enough_networks and self._unmeasured.size == 0 and self._unexpected.size == 0
        return "passed" if decided else "undecided"

    @property
    def passed(self) -> bool:
        """Whether every layer's sigma_mu2, sigma_y2, gamma and c agree with theory within 5 standard errors."""
        return self.verdict == "passed"

    @property
    def sentence(self) -> str:
        """The verdict in words, with its grounds."""
        name, layer, z = self.worst
        depth = self.dataset.sizes["layer"]
        worst = f"largest |z| {abs(z):.1f} ({name}, layer {layer})" if name else "nothing could be compared"
        if self.verdict == "passed":
            return f"Passed: theory and simulation agree in all {depth} layers; {worst}, {LIMIT:.0f} allowed."
        if self.verdict == "failed":
            return f"Failed: simulation departs from theory; {worst}, {LIMIT:.0f} allowed."
        if not self._enough_networks:
            networks = self.dataset.attrs["networks"]
            return f"No verdict: it takes at least {VERDICT_NETWORKS} networks, got {networks}; {worst}."
        if self._unmeasured.size:
            where = simulation.spans(self._unmeasured)
            return f"No verdict: no finite numbers to compare in {where} of {depth} (try dtype='float64'); {worst}."
        where = simulation.spans(self._unexpected)
        return f"No verdict: the effect of the finite width is too uncertain in {where} (try a larger width); {worst}."

    def plot(self) -> Figure:
        """The figure: sigma_mu2 and sigma_y2, gamma, c by layer, theory as lines and simulation as points.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ImportError
            If matplotlib is not installed; the message says how to get it.
        """
        from . import plot

        return plot.validations(self)

    def to_netcdf(self, path: str | os.PathLike[str]) -> None:
        """Save `dataset` as a netCDF file, whole or not at all; `xarray.load_dataset` reads it back.

        Parameters
        ----------
        path : path
            Where to; must end in `.nc`.

        Raises
        ------
        ValueError, OSError
            If the name has another ending, or the file cannot be written.
        """
        save_netcdf(self.dataset, _saving.checked_target("path", path, (".nc",)))

    def __repr__(self) -> str:
        name, layer, z = self.worst
        size = ", ".join(f"{key}={self.dataset.attrs[key]}" for key in ("width", "depth", "networks", "inputs"))
        return f"<Validation of {self.ens!r}: {size}; {self.verdict}, largest |z| {abs(z):.1f} ({name}, layer {layer})>"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from ._tables import validation_table

        return validation_table(self, options.max_width)

    @property
    def _enough_networks(self) -> bool:
        return int(self.dataset.attrs["networks"]) >= VERDICT_NETWORKS

    @property
    def _unmeasured(self) -> NDArray[np.int64]:
        """Layers where some comparison has no finite z."""
        finite = np.all([np.isfinite(self.dataset[f"{name}_z"].values) for name in JUDGED], axis=0)
        layers: NDArray[np.int64] = self.dataset["layer"].values[~finite]
        return layers

    @property
    def _unexpected(self) -> NDArray[np.int64]:
        """Layers where the expected effect of the width is so uncertain that agreement with it would mean little."""
        ratios = [self.dataset[f"{name}_shift_se"].values / self.dataset[f"{name}_se"].values for name in _POSITIVE[:3]]
        layers: NDArray[np.int64] = self.dataset["layer"].values[np.max(ratios, axis=0) > UNCERTAIN]
        return layers


def validate(
    ens: Ensemble,
    *,
    width: int = 10_000,
    depth: int = 100,
    networks: int = 16,
    inputs: int = 100,
    seed: int = 0,
    method: str = "auto",
    dtype: DTypeLike = "float32",
    device: Any = "cpu",
    products: str = "full",
    progress: bool | None = None,
) -> Validation:
    """Simulate independent networks and hold every layer against the mean-field theory.

    It passes if sigma_mu2, sigma_y2, gamma and c of all layers lie within 5 standard errors of theory, after the shift
    that the finite width is expected to cause. That shift, O(1/width), is measured on narrower networks of other random
    numbers, and its own uncertainty counted. Correct theory and simulation fail in about 1 % of the seeds
    (docs/validation.md); a given seed always gives the same verdict.

    Parameters
    ----------
    ens : Ensemble
        The law of the networks.
    width, depth : int, optional
        Nodes in a layer (at least 100) and number of layers.
    networks : int, optional
        Independent networks, at least 2; a verdict takes 16.
    inputs : int, optional
        Number of independent Gaussian inputs, for which q^(0) = 1 and c^(0) = 0 as the theory has it.
    seed, method, dtype, device, products, progress : optional
        As for `simulate`.

    Returns
    -------
    Validation

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type, or the run does not fit into memory; before any work.
    RuntimeError
        If a GPU is asked for and cannot be used.

    Warns
    -----
    RuntimeWarning
        If numbers overflowed or lost their digits; the verdict is then `undecided`.

    References
    ----------
    The theorem tested, c = gamma / (1 + gamma) with q_aa = sigma_mu2 + sigma_y2 and q_ab = sigma_mu2, is Theorem 3.1 of
    When Bias Meets Trainability: Connecting Theories of Initialization (2026).

    Examples
    --------
    >>> import igbfast as igb
    >>> ens = igb.Ensemble("relu", sigma_w2=2.0)
    >>> igb.validate(ens, width=300, depth=5, networks=16, inputs=20).passed
    True
    """
    requests = _requests(ens, width, depth, networks, inputs, seed, method, dtype, device, products)
    wide = requests[0]
    with progress_bar(f"validate {ens.activation}, width {wide.width:,}", progress) as step:
        runs = _run_all(requests, step)
    theory = meanfield.propagate(ens, wide.depth)
    measured = simulation.labelled(wide, runs[0])
    variables: dict[str, Any] = {}
    for name in MEASURED:
        samples, widths = [run[name] for run in runs], [request.width for request in requests]
        variables |= dict(_Comparison(name, theory, samples, widths, wide.dtype).variables())
    attrs = simulation.attributes(wide) | _extra_attributes(requests[1:])
    dataset = xr.Dataset(variables, {"layer": measured["layer"]}, attrs)
    validation = Validation(ens, dataset, measured)
    dataset.attrs["verdict"] = validation.verdict
    simulation.warn_of_lost_layers(measured, stacklevel=2)
    return validation


def save_netcdf(dataset: xr.Dataset, target: Path) -> None:
    """A dataset as a netCDF file, whole or not at all."""
    headers = 8192 * (len(dataset.variables) + 8)
    with _saving.whole_file(target) as draft:
        _saving.require_space(draft, dataset.nbytes + headers)
        dataset.to_netcdf(draft, engine="h5netcdf")


def _run_all(requests: Sequence[Request], step: Step) -> list[dict[str, FloatArray]]:
    """The runs one after the other, on different networks, as one progress."""
    total = sum(request.cost for request in requests)
    runs, first_network, done = [], 0, 0.0
    for request in requests:
        share, begin = request.cost / total, done
        runs.append(simulation.run(request, lambda f, b=begin, s=share: step(b + s * f), first_network))  # type: ignore[misc]
        first_network += request.networks
        done += share
    return runs


class _Comparison:
    """One quantity of all layers: simulation less what is expected at this width, in units of the error.

    Where theory and every network are positive, means over networks are geometric and differences logarithmic, because
    the scale of a network drifts with depth as a random walk of its logarithm. Elsewhere (sigma_mu2 and gamma where
    theory has 0; c; chi) they are plain. `shifting` turns a mean into what moves by O(1/width): 1/gamma for gamma (the
    spread of the inputs' norms adds to sigma_y2), else the mean itself.
    """

    def __init__(self, name: str, theory: xr.Dataset, samples: Sequence[FloatArray], widths: Sequence[int], dtype: str):
        self.name = name
        self.theory = theory[name].values
        self.logarithmic = np.isfinite(self.theory) & (self.theory > 0.0) & (name in _POSITIVE)
        for sample in samples:
            self.logarithmic &= (sample > 0.0).all(axis=0)
        self.inverse = self.logarithmic & (name == "gamma")
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            statistics = [simulation.mean_and_error(self._scaled(sample)) for sample in samples]
            self.mean, self.error = statistics[0]
            self._expect(statistics[1:], [widths[0] / width for width in widths[1:]])
            rounding = np.finfo(dtype).eps * np.arange(1, len(self.theory) + 1) * self._unit(theory)
            error = np.sqrt(self.error**2 + self.shift_error**2 + rounding**2)
            self.z = (self.mean - self.expected) / error

    def _expect(self, narrow: Sequence[tuple[FloatArray, FloatArray]], narrowing: Sequence[float]) -> None:
        """Sets `expected` and `shift_error`, on the scale of comparison, from two narrower widths.

        With s = 1 at the width itself, the departures from theory at narrowing s_1 < s_2 are fitted by a s + b s^2.
        Statistics enter the error, and so does b in full, for the orders beyond. Where the narrowest networks scatter
        so much that they would spoil the fit, a alone is fitted, and half of it is the error.
        """
        (near, near_error), (far, far_error) = (self._shifting(mean, error) for mean, error in narrow)
        s1, s2 = narrowing
        origin = self._shifting(self._scaled(self.theory), np.zeros_like(self.theory))[0]
        linear = (near - origin) / s1
        weight1, weight2 = (s2 - 1.0) / (s1 * (s2 - s1)), (1.0 - s1) / (s2 * (s2 - s1))
        bend = weight1 * (near - origin) + weight2 * (far - origin) - linear
        use_far = np.abs(weight2 * far_error) <= np.abs(weight1 * near_error)
        bend = np.where(use_far, np.clip(bend, -0.5 * np.abs(linear), 0.5 * np.abs(linear)), 0.0)
        statistics = np.where(use_far, np.hypot(weight1 * near_error, weight2 * far_error), near_error / s1)
        moved = origin + linear + bend
        moved_error = np.hypot(statistics, np.where(use_far, bend, 0.5 * linear))
        self.expected = np.where(self.logarithmic, np.where(self.inverse, -1.0, 1.0) * np.log(moved), moved)
        self.shift_error = np.where(self.logarithmic, moved_error / moved, moved_error)

    def variables(self) -> Iterator[tuple[str, Any]]:
        """The variables of the dataset, in plain units."""
        long_name, _ = MEASURED[self.name]
        with np.errstate(over="ignore", invalid="ignore"):
            mean = np.where(self.logarithmic, np.exp(self.mean), self.mean)
            expected = np.where(self.logarithmic, np.exp(self.expected), self.expected)
        slope, expected_slope = (np.where(self.logarithmic, value, 1.0) for value in (mean, expected))
        kind = "geometric where all networks are positive" if self.name in _POSITIVE else "arithmetic"
        yield self._labelled("_theory", self.theory, f"{long_name}, mean-field theory")
        yield self._labelled("", mean, f"{long_name}, mean over networks ({kind})")
        yield self._labelled("_se", slope * self.error, f"standard error of the {long_name} over networks")
        yield self._labelled(
            "_shift", expected - self.theory, f"expected effect of the finite width on the {long_name}"
        )
        yield self._labelled("_shift_se", expected_slope * self.shift_error, "standard error of that effect")
        yield self._labelled("_z", self.z, f"{long_name}: (simulation - theory - shift) / standard error")

    def _labelled(self, suffix: str, values: FloatArray, long_name: str) -> tuple[str, Any]:
        return self.name + suffix, ("layer", values, {"long_name": long_name, "units": "1"})

    def _scaled(self, values: FloatArray) -> FloatArray:
        return np.where(self.logarithmic, simulation.logarithm(values), values)

    def _shifting(self, mean: FloatArray, error: FloatArray) -> tuple[FloatArray, FloatArray]:
        """From the scale of comparison to the one that moves by O(1/width)."""
        moving = np.where(self.logarithmic, np.exp(np.where(self.inverse, -mean, mean)), mean)
        return moving, np.where(self.logarithmic, moving * error, error)

    def _unit(self, theory: xr.Dataset) -> FloatArray:
        """What counts as a change of order one, on the scale of comparison."""
        plain = {"gamma": 1.0 + self.theory, "c": np.ones_like(self.theory), "chi": self.theory}
        return np.where(self.logarithmic, 1.0, plain.get(self.name, theory["q"].values))


def _requests(
    ens: Ensemble,
    width: int,
    depth: int,
    networks: int,
    inputs: int,
    seed: int,
    method: str,
    dtype: DTypeLike,
    device: Any = "cpu",
    products: str = "full",
) -> list[Request]:
    """The run itself, and the narrower ones that tell what the finite width does."""
    width = _checks.integer("width", width, _LEAST_WIDTH, simulation.MAX_WIDTH)
    networks = _checks.integer("networks", networks, 2, _MAX_NETWORKS)
    on = {"device": device, "products": products}
    wide = simulation.checked(ens, width, depth, inputs, networks, seed, method, dtype, **on)
    given = wide.inputs
    if not isinstance(given, Gaussian):
        got = f"an array of shape {given.count, given.features}" if isinstance(given, Given) else "chunks of inputs"
        raise TypeError(
            f"inputs must be a number here, because theory is for independent inputs; got {got}: compare simulate of "
            "given inputs with kernel"
        )
    narrowings, share = _NARROWINGS if width >= _WIDE else _SMALL_NARROWINGS
    method = "direct" if wide.method == "direct" else "auto"
    nodes = 1 if ens.pool is None else ens.pool.size  # which the width is a multiple of
    narrow = [
        replace(wide, width=max(1, width // (s * nodes)) * nodes, networks=share * networks, method=method)
        for s in narrowings
    ]
    return [simulation.fitted(request) for request in (wide, *narrow)]


def _extra_attributes(narrow: Sequence[Request]) -> dict[str, Any]:
    return {
        "narrow_widths": [request.width for request in narrow],
        "narrow_networks": [request.networks for request in narrow],
        "limit": LIMIT,
        "estimator": "sigma_mu2, sigma_y2, gamma, q: geometric means where all are positive; c, chi: plain means",
        "standard_error": "over independent networks: their standard deviation / sqrt(networks)",
    }
