"""Why does a model not train? One forward and one backward pass tell: signal, bias and gradients, layer by layer.

Every layer is measured as `simulate` measures those of random networks (docs/simulation.md), and told in the words of
the theory: ordered, at the edge of chaos, chaotic; neutral or prejudiced.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from .. import _checks, _saving
from .._report import Report
from ..meanfield import moments
from ..phases import edge_of_chaos
from ..validation import save_netcdf
from ._batches import Batch, batches_of, output_of, run, untouched, unwrapped
from ._findings import (
    LARGEST_RATIO,
    SMALLEST_RATIO,
    Stretch,
    counted,
    findings,
    phase_of,
    stretches,
    untrainable,
)
from ._layer_statistics import GradientStatistics, LayerStatistics, largest_gamma
from ._trace import Layer, Trace, trace, watch

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console, ConsoleOptions, RenderResult

__all__ = ["Diagnosis", "NotTrainableError", "diagnose"]

_MEMORY = 2.0**31  # bytes that the outputs kept for the backward pass may take; more inputs go through in pieces
_KEPT = 4.0  # numbers kept for each number of a layer's output

FloatArray = NDArray[np.float64]


class NotTrainableError(AssertionError):
    """What `Diagnosis.assert_trainable` raises; the message holds what is wrong and all findings."""


@dataclass(frozen=True)
class Diagnosis(Report):
    """What the layers of a model do, and what it means.

    Print it for the table and the findings, or draw it with `plot`.
    """

    dataset: xr.Dataset
    """Over `layer`, in order of execution, and `class`:

    ===================  ===============================================================================================
    `name`               name of the module
    `kind`               linear, conv, product
    `source`             what the signal before it comes from: input, layer, normalisation, attention, sum, other
    `activation`         the function before it, `""` where it could not be told
    `pooled`             1 where a pool over positions lies in between, else 0
    `units`              numbers in its output for one input
    `sigma_w2`           fan-in times the variance of its weights, as they are multiplied
    `sigma_b2`           mean square of its biases
    `sigma_w2_edge`      edge of chaos of the activation before it, at the mean `sigma_b2` of the layers that have it
    `sigma_mu2`          variance over the units of their centres (means over the inputs), less sigma_y2 / inputs
    `sigma_y2`           variance over the inputs, averaged over the units
    `gamma`              sigma_mu2 / sigma_y2
    `gamma_limit`        the largest gamma that the precision of the outputs can tell
    `resolved`           1, or 0 where gamma is beyond that: sigma_y2, gamma and one_minus_c are nan there
    `q`                  mean square over units and inputs
    `c`, `one_minus_c`   mean correlation of two different inputs, and 1 less it with all its digits
    `gradient`           squared derivative of an input's loss by its own outputs, mean over units and inputs
    `gradient_class`     the same by label, over (`layer`, `class`)
    `chi`                S_l / S_m, S = units x gradient, for the one layer m that comes next; nan if there are several
    `chi_theory`         sigma_w2 of m times E[phi'(sqrt(q) z)^2], where the activation in between is known
    `class_fraction`     share of the inputs for which each output is the largest, over `class`; nan if none is finite
    ===================  ===============================================================================================

    Squared lengths S and not mean squares make chi, so that unequal sizes, strides and pools do not enter: with
    weights of variance sigma_w2 / fan_in both sides of S_l = chi S_m count the same connections.
    """
    findings: tuple[str, ...]
    """What is worth knowing, in sentences."""
    layers: tuple[Layer, ...] = field(repr=False)
    """What is known of each layer: its parameters, what comes before it."""

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """Runs of layers in one phase."""
        return stretches(self.dataset)

    @property
    def phase(self) -> str:
        """`ordered`, `edge of chaos`, `chaotic`; `mixed` if stretches differ, `unknown` without gradients."""
        return phase_of(self.stretches)

    @property
    def gradient_ratio(self) -> float:
        """Squared length of the gradient at the first layer over that at the last one; nan without a path to either."""
        length = self.dataset["gradient"].values * self.dataset["units"].values
        with np.errstate(invalid="ignore", divide="ignore"):
            return float(length[0] / length[-1])

    def plot(self) -> Figure:
        """The figure: gamma by layer, squared gradients by layer, class fractions.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ImportError
            If matplotlib is not installed; the message says how to get it.
        """
        from ._diagnosis_views import figure

        return figure(self)

    def assert_trainable(
        self,
        min_ratio: float = SMALLEST_RATIO,
        max_ratio: float = LARGEST_RATIO,
        max_class_fraction: float | None = None,
        *,
        allow_unknown: bool = False,
    ) -> None:
        """Raise if gradients vanish or explode on their way back, or the guess is too biased: for tests of models.

        Parameters
        ----------
        min_ratio, max_ratio : float, optional
            Bounds for the squared gradients of all layers over that of the last one, as `gradient_profile` compares
            them: by squared length, and on branches and in attention only with layers of their own kind.
        max_class_fraction : float, optional
            Largest share of the inputs that one class may get before training; no bound if not given.
        allow_unknown : bool, optional
            Pass where there are no two layers to compare, as in a recurrent network whose matrices PyTorch multiplies
            out of sight.

        Raises
        ------
        NotTrainableError
            An `AssertionError` that says what is wrong, and gives the findings.
        ValueError, TypeError
            If a bound is not a positive number, or there are no class fractions to hold against one.

        Examples
        --------
        >>> import torch
        >>> import igbfast.torch as igt
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> igt.diagnose(model, torch.randn(20, 8)).assert_trainable()
        """
        low, high = _checks.positive_finite("min_ratio", min_ratio), _checks.positive_finite("max_ratio", max_ratio)
        allowed = _checks.flag("allow_unknown", allow_unknown)
        wrong = list(untrainable(self.dataset, low, high))
        if not wrong and not self.stretches and not allowed:
            wrong.append(
                f"nothing was compared: {counted(self.dataset.sizes['layer'], 'layer')} seen, and no two of them with "
                "gradients; allow_unknown=True lets that pass"
            )
        if max_class_fraction is not None:
            bound = _checks.positive_finite("max_class_fraction", max_class_fraction)
            if "class_fraction" not in self.dataset:
                raise ValueError("max_class_fraction needs outputs of shape (inputs, classes): this model has others")
            largest = float(self.dataset["class_fraction"].max())
            if not largest <= bound:
                wrong.append(f"one class gets a share of {largest:.3g} of the inputs, more than {bound:g}")
        if wrong:
            raise NotTrainableError(
                "\n".join([*wrong, "", "Findings:", *(f"* {sentence}" for sentence in self.findings)])
            )

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
        attrs = self.dataset.attrs
        layers = counted(self.dataset.sizes["layer"], "layer")
        return f"<Diagnosis of {attrs['model']}: {layers}, {attrs['inputs']} inputs; {self.phase}>"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from ._diagnosis_views import table

        return table(self, options.max_width)


def diagnose(
    model: torch.nn.Module,
    inputs: Any,
    labels: Any = None,
    *,
    classes: int | None = None,
    batch: int = 256,
    seed: int = 0,
    batch_axis: int = 0,
    forward: Callable[..., Any] | None = None,
) -> Diagnosis:
    """Measure a model layer by layer, forward and backward, and say in plain words what will keep it from training.

    Layers are whatever multiplies the signal with parameters: Linear, convolutions, the projections of attention,
    embeddings of patches. The model is run as it is, in its mode and its precision, and is afterwards what it was to
    the last bit: parameters, buffers, modes, hooks, gradients, requires_grad and the random state.

    Parameters
    ----------
    model : torch.nn.Module
        Any model, compiled and scripted ones too; frozen parameters (requires_grad=False) are no obstacle.
    inputs : Tensor, array, tuple, dict, Data or iterable of batches
        At least two inputs; a few hundred tell most. A tuple stands for several arguments, a dict for those by name; of
        an `igbfast.torch.Data` the inputs and labels for training are taken.
        A DataLoader or any other iterable of batches is streamed; batches may be pairs (inputs, labels).
    labels : array_like of int, optional
        The class of each input, 0 to classes - 1. The loss is then the cross-entropy; without labels it is a random
        linear read-out of the outputs, one for each input.
    classes : int, optional
        What the number of outputs must be, as a check.
    batch : int, optional
        Most inputs at a time; fewer where their layers' outputs would take more than 2 GiB.
    seed : int, optional
        Of the random read-out, and of dropout.
    batch_axis : int, optional
        Axis of the inputs in all tensors: 1 for (sequence, input, feature).
    forward : callable, optional
        What to run in place of `model(...)`: `forward(model, *inputs)` must return the outputs.

    Returns
    -------
    Diagnosis

    Raises
    ------
    TypeError
        If `model` is no module, or an argument is of the wrong type.
    ValueError
        If the model has no parameters, or some without values, or no layers; if inputs are fewer than two, not finite
        or of a shape that the model does not take; if labels are out of range or come with some batches only, or
        outputs are not (inputs, classes) beside them.

    Notes
    -----
    Estimators are those of `simulate`, with all numbers in the output of one input as nodes: units of a Linear,
    positions times channels of a convolution, tokens times features in a transformer. All sums are in double precision,
    and differences between inputs are those to the first one, so that the digits that the outputs have are kept. Where
    sequences change their length from batch to batch, each length is measured by itself and the mean taken.

    Each input has its own loss, and the gradient is that of its own loss by its own outputs. Batch normalisation in
    training mode ties the inputs of a batch together; its gradients are those of the sum of the losses.

    A layer's weights of variance sigma_w2 / fan_in give S_l = sigma_w2 E[phi'^2] S_(l+1) for the squared lengths S of
    gradients (docs/theory.md), whatever the fan-out.

    References
    ----------
    Schoenholz et al., Deep information propagation (2017), for chi; When Bias Meets Trainability: Connecting Theories
    of Initialization (2026), for gamma and the phases.

    Examples
    --------
    >>> import torch
    >>> import igbfast as igb
    >>> import igbfast.torch as igt
    >>> ens = igb.Ensemble("tanh", sigma_w2=1.0, sigma_b2=0.05)
    >>> model = ens.to_torch(200, 30, 10, generator=torch.Generator().manual_seed(0))
    >>> inputs = torch.randn(100, 200, generator=torch.Generator().manual_seed(1))
    >>> diagnosis = igt.diagnose(model, inputs)
    >>> diagnosis.phase
    'ordered'
    >>> print(diagnosis.findings[0])  # doctest: +ELLIPSIS
    layers 1 to 31 are ordered: squared gradients shrink by 0.7... a layer, ...; multiply the weights by 1.3...
    """
    inside = unwrapped(model)
    expected = None if classes is None else _checks.integer("classes", classes, 2)
    seed = _checks.integer("seed", seed, 0, 2**63 - 1)
    if forward is not None and not callable(forward):
        raise TypeError(f"forward must be a function of the model and its inputs, got {_checks.shown(forward)}")
    whole = inside if forward is None else _Forwarded(inside, forward)
    batches = batches_of(inputs, labels, model=whole, batch=batch, batch_axis=batch_axis)
    with untouched(whole), torch.enable_grad():
        _set_seed(whole, seed)
        first = next(batches)
        traced = trace(whole, first)
        measured = _Measured(traced, first, expected, torch.Generator().manual_seed(seed))
        for parameter in whole.parameters():
            if parameter.is_floating_point():
                parameter.requires_grad_(True)
        for number, item in enumerate(chain([first], batches)):
            measured.add(item, number)
    if measured.inputs < 2:
        raise ValueError("inputs must hold at least 2 inputs, got 1")
    dataset = _dataset(measured, traced, type(inside).__name__, seed)
    return Diagnosis(dataset, findings(dataset, tuple(_notes(whole, traced)), traced.layers), traced.layers)


def _set_seed(model: torch.nn.Module, seed: int) -> None:
    """Of the generators that the model draws from, and of no other device's."""
    torch.random.default_generator.manual_seed(seed)
    for device in {parameter.device for parameter in model.parameters() if parameter.is_cuda}:
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


class _Forwarded(torch.nn.Module):
    """A model that runs through a function of the user."""

    def __init__(self, model: torch.nn.Module, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.model = model
        self._run = forward
        self.training = model.training

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._run(self.model, *args, **kwargs)


class _Measured:
    """Statistics of all layers and of the outputs, accumulated batch by batch."""

    def __init__(self, traced: Trace, first: Batch, classes: int | None, generator: torch.Generator) -> None:
        self.traced, self.classes = traced, classes
        self.labelled = first.labels is not None
        self.inputs = 0
        self.counts: NDArray[np.int64] | None = None  # inputs given to each class
        self.outputs = [LayerStatistics() for _ in traced.layers]
        self.gradients: list[GradientStatistics] = []
        self.dtypes: list[Any] = [None] * len(traced.layers)
        self._generator = generator
        self._anchors = list(_anchors(traced))
        each = sum(math.prod(layer.shape) for layer in traced.layers)
        self._most = max(1, int(_MEMORY / (_KEPT * 4.0 * each)))

    def add(self, batch: Batch, number: int) -> None:
        """One batch, in pieces that fit into memory unless batch normalisation needs them together."""
        if (batch.labels is not None) != self.labelled:
            this, first = ("none", "some") if self.labelled else ("some", "none")
            where = f"batch {number} has {this}, batch 0 {first}"
            raise ValueError(f"labels must come with all batches or with none: {where}")
        together = any(_mixes_inputs(module) for module in self.traced.model.modules())
        for piece in batch.pieces(batch.count if together else self._most):
            self._add(piece)

    def _add(self, batch: Batch) -> None:
        labels: NDArray[np.int64] | None = None

        def on_layer(layer: Layer, y: torch.Tensor) -> None:
            self.outputs[layer.number - 1].add(y)
            self.dtypes[layer.number - 1] = y.dtype

        def on_gradient(layer: Layer, gradient: torch.Tensor) -> None:
            self.gradients[layer.number - 1].add(gradient, labels)

        with watch(self.traced, batch, on_layer, on_gradient):
            outputs = output_of(run(self.traced.model, batch))
        self._count_guesses(outputs.detach(), batch.count)
        loss = self._loss(outputs, batch)
        if not self.gradients:
            known = len(self.counts) if self.labelled and self.counts is not None else 0
            self.gradients = [GradientStatistics(known) for _ in self.traced.layers]
        labels = None if batch.labels is None else batch.labels.cpu().numpy()
        if loss.requires_grad:
            torch.autograd.grad(loss, self._anchors, allow_unused=True)
        self.inputs += batch.count

    def _count_guesses(self, outputs: torch.Tensor, count: int) -> None:
        if outputs.ndim != 2 or len(outputs) != count or outputs.shape[1] < 2:
            if self.labelled or self.classes is not None:
                raise ValueError(
                    f"outputs must be of shape (inputs, classes) where labels or classes are given, got "
                    f"{tuple(outputs.shape)} for {count} inputs; say with forward= how to get them"
                )
            return
        width = outputs.shape[1]
        if self.classes is not None and width != self.classes:
            raise ValueError(f"classes must be the number of the model's outputs, {width}, got {self.classes}")
        told = outputs[torch.isfinite(outputs).all(1)]  # the others have no largest one
        guesses = torch.bincount(told.argmax(1), minlength=width).cpu().numpy()
        self.counts = guesses if self.counts is None else self.counts + guesses

    def _loss(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The sum of the inputs' losses."""
        if not outputs.is_floating_point():
            raise ValueError(
                f"outputs must be real numbers, got dtype {outputs.dtype}; say with forward= how to get them"
            )
        wide = outputs if outputs.device.type == "mps" else outputs.double()
        if batch.labels is not None:
            largest = int(batch.labels.max())
            if largest >= outputs.shape[1]:
                raise ValueError(f"labels must be from 0 to {outputs.shape[1] - 1}, one of the outputs, got {largest}")
            return torch.nn.functional.cross_entropy(wide, batch.labels, reduction="sum")
        readout = torch.randn(outputs.shape, generator=self._generator).to(wide)
        return (wide * readout).sum() * math.sqrt(batch.count / max(1, outputs.numel()))


def _anchors(traced: Trace) -> Iterator[torch.Tensor]:
    """Parameters such that gradients by them need those by every layer's outputs, biases first: they cost least."""
    named = dict(traced.model.named_parameters(remove_duplicate=False))
    found = []
    for layer in traced.layers:
        anchor = layer.bias if layer.bias is not None else layer.weight
        found += [anchor] if anchor is not None else [named[name] for name in layer.weight_name.split(", ")]
    return iter({id(parameter): parameter for parameter in found if parameter.is_floating_point()}.values())


def _mixes_inputs(module: torch.nn.Module) -> bool:
    """Whether this is batch normalisation that uses the statistics of the batch."""
    kind = getattr(module, "original_name", type(module).__name__)  # of scripted modules, the former
    if not (isinstance(module, torch.nn.modules.batchnorm._BatchNorm) or kind.startswith("BatchNorm")):
        return False
    return module.training or getattr(module, "running_mean", None) is None


# ---- The dataset -----------------------------------------------------------------------------------------------------


def _dataset(measured: _Measured, traced: Trace, name: str, seed: int) -> xr.Dataset:
    from .. import __version__

    layers = traced.layers
    found = [statistics.estimates() for statistics in measured.outputs]
    variables: dict[str, Any] = {
        "kind": [layer.kind for layer in layers],
        "source": [layer.before.source for layer in layers],
        "activation": ["" if layer.before.activation is None else str(layer.before.activation) for layer in layers],
        "pooled": [int(layer.before.spatial_pool is not None) for layer in layers],
        "units": [estimates.units for estimates in found],
        "sigma_w2": [layer.fan_in * layer.weight_variance for layer in layers],
        "sigma_b2": [layer.bias_variance for layer in layers],
        "sigma_w2_edge": _edges(layers),
    }
    for key in ("sigma_mu2", "sigma_y2", "gamma", "q", "c", "one_minus_c"):
        variables[key] = np.array([getattr(estimates, key) for estimates in found])
    variables["gamma_limit"] = np.array([largest_gamma(dtype) for dtype in measured.dtypes])
    with np.errstate(invalid="ignore"):
        lost = (variables["sigma_y2"] * variables["gamma_limit"] <= variables["q"]) & (variables["q"] > 0.0)
    variables["resolved"] = np.where(lost, 0, 1)
    for key in ("sigma_y2", "gamma", "one_minus_c"):
        variables[key] = np.where(lost, np.nan, variables[key])
    variables["gradient"] = np.array([gradient.mean_square for gradient in measured.gradients])
    lengths = np.array([gradient.square_length for gradient in measured.gradients])
    variables["chi"], variables["chi_theory"] = _chi(layers, lengths, variables["q"], variables["sigma_w2"])
    dataset = xr.Dataset(
        {key: ("layer", np.asarray(values)) for key, values in variables.items()},
        {
            "layer": np.arange(1, len(layers) + 1),
            "name": ("layer", np.array([_shown_name(layer, traced) for layer in layers])),
        },
        {
            "model": name,
            "inputs": measured.inputs,
            "loss": "cross_entropy" if measured.labelled else "readout",
            "training": int(traced.model.training),
            "dtype": str(measured.dtypes[0]).removeprefix("torch."),
            "chain": int(_is_chain(layers)),
            "branches": len(traced.branches),
            "parameters": sum(parameter.numel() for parameter in traced.model.parameters()),
            "seed": seed,
            "igbfast": __version__,
        },
    )
    if measured.counts is not None:
        with np.errstate(invalid="ignore"):
            dataset["class_fraction"] = ("class", measured.counts / measured.counts.sum())
        dataset = dataset.assign_coords({"class": np.arange(len(measured.counts))})
        if measured.labelled:
            by_class = np.array([gradient.mean_square_by_class for gradient in measured.gradients])
            dataset["gradient_class"] = (("layer", "class"), by_class)
    return dataset


def _shown_name(layer: Layer, traced: Trace) -> str:
    return layer.name.removeprefix("model.") if isinstance(traced.model, _Forwarded) else layer.name


def _is_chain(layers: Sequence[Layer]) -> bool:
    """Whether each layer sees the one before it and no other."""
    return all(layer.before.layers == (layer.number - 1,) for layer in layers[1:])


def _edges(layers: Sequence[Layer]) -> FloatArray:
    """sigma_w2 at the edge of chaos of the activation and the pool before each layer; nan where it is not known."""
    edges = np.full(len(layers), np.nan)
    kinds: dict[Any, list[int]] = {}
    for at, layer in enumerate(layers):
        if layer.before.plain:
            kinds.setdefault((layer.before.activation, layer.before.pool), []).append(at)
    for (activation, pool), members in kinds.items():
        bias = float(np.mean([layers[at].bias_variance for at in members]))
        try:
            with np.errstate(all="ignore"):
                edges[members] = edge_of_chaos(activation, bias, pool=pool)
        except ValueError:  # a function that theory does not take, such as one that grows too fast
            continue
    return edges


def _chi(
    layers: Sequence[Layer], lengths: FloatArray, q: FloatArray, sigma_w2: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Measured and expected growth of squared gradients from the layer that comes next to each one."""
    followers: dict[int, list[int]] = {}
    for at, layer in enumerate(layers):
        for number in layer.before.layers:
            followers.setdefault(number - 1, []).append(at)
    measured, expected = np.full(len(layers), np.nan), np.full(len(layers), np.nan)
    for at, following in followers.items():
        after = layers[following[0]]
        if len(following) > 1 or len(after.before.layers) > 1:
            continue
        with np.errstate(invalid="ignore", divide="ignore"):
            measured[at] = lengths[at] / lengths[following[0]]
        if after.before.plain and np.isfinite(q[at]):
            slope2 = _mean_squared_slope(after, float(q[at]))
            expected[at] = sigma_w2[following[0]] * slope2 / (1.0 - after.before.dropout)
    return measured, expected


def _mean_squared_slope(layer: Layer, q: float) -> float:
    activation = layer.before.activation
    assert activation is not None
    try:
        return float(moments(activation, q, 1.0, derivative=1, pool=layer.before.pool))
    except ValueError:  # without a derivative, or growing too fast for this variance
        return math.nan


def _notes(model: torch.nn.Module, traced: Trace) -> Iterator[str]:
    """What a reader has to know to read the numbers."""
    if any(_mixes_inputs(module) for module in model.modules()):
        yield (
            "batch normalisation uses the statistics of each batch (training mode): an input's gradient is that of the "
            "losses of all inputs in its batch"
        )
    dropout = max(layer.before.dropout for layer in traced.layers)
    if dropout > 0.0:
        yield f"dropout of {dropout:g} is active (training mode): its noise counts as differences between inputs"
    yield from _grouped(traced.warnings)


def _grouped(warnings: Sequence[str]) -> Iterator[str]:
    """Of warnings that differ in a name only the first, with the number of the others."""
    alike: dict[str, list[str]] = {}
    for warning in warnings:
        alike.setdefault(re.sub("'[^']*'", "''", warning), []).append(warning)
    for same in alike.values():
        yield same[0] + (f" (and {len(same) - 1} more of this kind)" if len(same) > 1 else "")
