"""Initialisation at the edge of chaos: the weights of any model drawn so that neither signals nor gradients fade.

`init_` reads from one forward pass what lies before each layer, takes the critical variance of its weights from theory
(_critical.py) and draws them (_drawing.py); given inputs, it measures the result and corrects it (_data_driven.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from .. import _checks
from . import _drawing
from ._batches import Batch, batches_of, example_of, output_of, run, untouched, unwrapped
from ._critical import STABLE, LayerLaw, planned
from ._data_driven import Profile, flatten_gradients, measured, set_variances
from ._init_report import InitReport, InitRow
from ._scaling import is_weight, owner_of, scale_
from ._slots import Slot, slot_of
from ._trace import Layer, Trace, trace

__all__ = ["InitReport", "InitRow", "init_", "scale_"]

_BATCH_NORM = nn.modules.batchnorm._BatchNorm
_MOST_INPUTS = 128  # of a batch that something is measured on


def init_(
    model: Any,
    *,
    sigma_b2: float | None = None,
    weights: str = "orthogonal",
    inputs: Any = None,
    labels: Any = None,
    example: Any = None,
    generator: Any = None,
    kind: str = "gradient",
    residual: str | float | None = "depth",
    delta: bool = False,
    head: float | None = None,
    batch_axis: int = 0,
    dry_run: bool = False,
) -> InitReport:
    """Draw the weights and biases of a model anew, at its edge of chaos, in place.

    Every layer gets weights of variance sigma_w2 / fan_in with sigma_w2 = 1 / E[phi'(sqrt(q) z)^2], where phi is the
    activation (and pool) before it and q the variance that arrives there: squared gradients, summed over nodes, then
    neither grow nor vanish from layer to layer. The layers whose scale is free, after the inputs or a normalisation,
    bring q to the value at which it stays; there this is `igbfast.edge_of_chaos`.

    Parameters
    ----------
    model : torch.nn.Module
        Any model; on any device, in any precision, compiled or scripted too.
    sigma_b2 : float, optional
        Variance of the biases. By default 0 where all activations are homogeneous (ReLU and its kin, linear) or follow
        a normalisation by one layer, so that any q stays; else the smallest of 0.05, 0.1, 0.2, 0.5, 1, 2 at which the
        variance is stable through the whole model: 0.05 for tanh; more for GELU and SiLU in deep chains.
    weights : {"orthogonal", "gaussian"}, optional
        The law of the weights. Orthogonal ones make a single network of finite width stray less from theory.
    inputs : optional
        A batch, or an iterable of batches of which the first is used: tensor, array, tuple, dict, `igbfast.torch.Data`
        (with its labels) or DataLoader; the first 128 inputs of it. The variance of every layer is measured and set in
        one forward pass; then weights are rescaled until the measured gradients are flat (within 10 %).
    labels : array_like of int, optional
        Classes of the inputs: gradients are then those of the cross entropy, else of a random read-out of the outputs.
    example : optional
        A few inputs, on which the model is run once to see its layers, and by which the first layers are scaled. By
        default Gaussian inputs of a shape guessed from the first layer, and mean square 1.
    generator : torch.Generator, optional
        Where the random numbers come from: the same one gives the same weights to the last bit. By default torch's
        global one.
    kind : {"gradient", "variance"}, optional
        What shall be stable. The two differ after pools.
    residual : "depth", float or None, optional
        Factor on the variance of what residual branches add: 1 / number of branches, a number, or none.
    delta : bool, optional
        Draw delta-orthogonal convolutions, whatever `weights`.
    head : float, optional
        Mean square of the outputs. By default the last layer has the law of all others, unless its outputs would exceed
        10, which saturates a cross entropy: then 1.
    batch_axis : int, optional
        Axis of the inputs along which they are counted.
    dry_run : bool, optional
        Report only: the model and the generator stay as they are.

    Returns
    -------
    InitReport
        Layer by layer, what was done and what could not be done, and why.

    Raises
    ------
    ValueError, TypeError
        For an argument out of range or of the wrong type; a model without parameters or layers, or with lazy modules
        that have not been run; inputs of another shape than the model takes, or
        whose shape cannot be guessed. The model is then unchanged.

    Notes
    -----
    Frozen parameters, weights computed from others (unless parametrised ones take assignments), embeddings and the
    parameters of normalisations are left as they are. Derivations: Schoenholz et al., Deep information propagation
    (2017); Xiao et al., Dynamical isometry and a mean field theory of CNNs (2018). Measuring and rescaling goes back to
    Mishkin and Matas, All you need is a good init (2016).

    Examples
    --------
    >>> import torch
    >>> from igbfast.torch import init_
    >>> layers = [layer for _ in range(30) for layer in (torch.nn.Linear(50, 50), torch.nn.Tanh())]
    >>> model = torch.nn.Sequential(*layers, torch.nn.Linear(50, 10))
    >>> report = init_(model, generator=torch.Generator().manual_seed(0))
    >>> report
    <InitReport of Sequential: 31 of 31 layers set, orthogonal weights, stable gradients>
    >>> report.rows[1].sigma_w2.__round__(6), report.rows[1].sigma_b2  # igb.edge_of_chaos("tanh", 0.05)
    (1.760955, 0.05)
    """
    plain = unwrapped(model)
    wish = _Wish(sigma_b2, weights, kind, residual, delta, head)
    _checked_generator(generator)
    axis, dry_run = _checks.integer("batch_axis", batch_axis, 0), _checks.flag("dry_run", dry_run)
    batch, source = _batch(plain, inputs, labels, example, axis)
    traced = trace(plain, batch)
    _check_labels(plain, batch)
    with _undone(plain, generator, dry_run):
        work = _Work(plain, traced, wish)
        before = _profile(work, batch) if source == "inputs" else None
        work.draw(generator)
        if source == "example":
            work.set_first(batch)
        if source == "inputs":
            work.fit(batch)
        else:
            work.say_scatter()
        after = _profile(work, batch) if source == "inputs" else None
    return work.report(source, before, after, dry_run)


class _Wish:
    """The checked options of `init_`."""

    def __init__(self, sigma_b2: Any, weights: Any, kind: Any, residual: Any, delta: Any, head: Any) -> None:
        self.sigma_b2 = None if sigma_b2 is None else _checks.non_negative_finite("sigma_b2", sigma_b2)
        self.weights = _checks.choice("weights", weights, _drawing.LAWS)
        self.kind = _checks.choice("kind", kind, ("gradient", "variance"))
        if isinstance(residual, str):
            residual = _checks.choice("residual", residual, ("depth",))
        elif residual is not None:
            residual = _checks.positive_finite("residual", residual)
        self.residual: str | float | None = residual
        self.delta = _checks.flag("delta", delta)
        self.head = None if head is None else _checks.positive_finite("head", head)


def _checked_generator(generator: Any) -> None:
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator or None, got {_checks.shown(generator)}")


def _batch(model: nn.Module, inputs: Any, labels: Any, example: Any, axis: int) -> tuple[Batch, str]:
    """What the model is run on, and what that is."""
    if inputs is not None and example is not None:
        raise ValueError("example must not be given together with inputs, which serve as one")
    if labels is not None and inputs is None:
        raise ValueError("labels must come with inputs, got labels alone")
    given = example if inputs is None else inputs
    if given is None:
        if axis:
            raise ValueError(f"batch_axis must be 0 without inputs or example, got {axis}")
        return example_of(model), "guess"
    first = next(iter(batches_of(given, labels, model=model, batch=_MOST_INPUTS, batch_axis=axis)))
    return first.first(_MOST_INPUTS), "example" if inputs is None else "inputs"


def _check_labels(model: nn.Module, batch: Batch) -> None:
    if batch.labels is None:
        return
    with untouched(model), torch.no_grad():
        classes = output_of(run(model, batch)).numel() // batch.count
    if int(batch.labels.max()) >= classes:
        raise ValueError(
            f"labels must be below {classes}, the number of the model's outputs, got {int(batch.labels.max())}"
        )


@contextmanager
def _undone(model: nn.Module, generator: Any, dry_run: bool) -> Iterator[None]:
    """For a dry run, what happens inside has not happened: parameters and random state are as before."""
    if not dry_run:
        yield
        return
    values = [(parameter, parameter.detach().clone()) for parameter in model.parameters()]
    state = torch.get_rng_state() if generator is None else generator.get_state()
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in values:
                parameter.copy_(value)
        if generator is None:
            torch.set_rng_state(state)
        else:
            generator.set_state(state)


def _profile(work: _Work, batch: Batch) -> Profile | None:
    """What is measured, or nothing where the model cannot be run backwards."""
    try:
        return measured(work.model, work.traced, batch)
    except Exception as error:  # whatever somebody's model raises
        work.notes.append(f"gradients could not be measured: {str(error).partition(chr(10))[0]}")
        return None


class _Work:
    """One initialisation: the layers with their laws, and what has happened to each."""

    def __init__(self, model: nn.Module, traced: Trace, wish: _Wish) -> None:
        self.model, self.traced, self.wish = model, traced, wish
        self.notes: list[str] = list(traced.warnings)
        self._parameters = dict(model.named_parameters())
        self._embeddings = {
            id(part.weight) for part in model.modules() if isinstance(part, (nn.Embedding, nn.EmbeddingBag))
        }
        self.targets = {layer.number: self._target(layer) for layer in traced.layers}
        laws = planned(
            traced.layers,
            traced.branches,
            sigma_b2=wish.sigma_b2,
            kind=wish.kind,
            residual=wish.residual,
            head=wish.head,
            delta=wish.delta,
            fixed={number for number, target in self.targets.items() if isinstance(target, str)},
        )
        self.laws: dict[int, LayerLaw] = {law.number: law for law in laws}
        self.slots: dict[int, Slot] = {}  # of the layers that are set, the first use of each weight
        self.failures: dict[int, str] = {}
        self.drawn: dict[int, str] = {}
        self.factors: dict[int, float] = {}

    def _target(self, layer: Layer) -> Slot | str:
        """Where the weights are written, or why they are not."""
        tied = id(layer.weight) in self._embeddings
        return "its weights are those of the embedding" if tied else slot_of(layer, self._parameters)

    def draw(self, generator: Any) -> None:
        """New weights and biases for all layers that can have them."""
        first: dict[str, int] = {}
        for layer in self.traced.layers:
            earlier = first.setdefault(layer.weight_name, layer.number)
            if earlier != layer.number:
                if earlier in self.failures:
                    self.failures[layer.number] = self.failures[earlier]
                else:
                    self.drawn[layer.number] = f"those of layer {earlier}"
                continue
            slot = self.targets[layer.number]
            if isinstance(slot, str):
                self.failures[layer.number] = slot
                continue
            try:
                self._draw_layer(layer, slot, generator)
            except ValueError as error:
                self.failures[layer.number] = str(error)
            else:
                self.slots[layer.number] = slot

    def _draw_layer(self, layer: Layer, slot: Slot, generator: Any) -> None:
        law, value = self.laws[layer.number], slot.value
        dtype = torch.float64 if value.dtype == torch.float64 else torch.float32
        variance = law.sigma_w2 / (layer.fan_in * law.share)
        kind = self.wish.weights
        options = {"groups": layer.groups, "generator": generator, "dtype": dtype}
        if self.wish.delta and layer.kind == "conv" and not getattr(layer.owner, "transposed", False):
            kind = "delta-orthogonal"
            drawn = _drawing.delta_orthogonal(tuple(value.shape), variance, **options)
        else:
            drawn = _drawing.weight(tuple(value.shape), variance, law=kind, **options)
        slot.write(drawn)
        self.drawn[layer.number] = kind
        if layer.bias is not None and layer.bias.requires_grad:
            biases = _drawing.bias(layer.bias.numel(), law.sigma_b2, generator=generator, dtype=dtype)
            with torch.no_grad():
                layer.bias.copy_(biases.reshape(layer.bias.shape).to(layer.bias.device, layer.bias.dtype))

    def set_first(self, batch: Batch) -> None:
        """The layers that see the inputs are scaled by what they make of these."""
        slots = {n: slot for n, slot in self.slots.items() if self._sees_inputs(n)}
        self._multiply(set_variances(self.model, self.traced, batch, self.laws, slots))

    def _sees_inputs(self, number: int) -> bool:
        return self.traced.layers[number - 1].before.source == "input"

    def fit(self, batch: Batch) -> None:
        """Variances and, if they are what shall be stable, gradients as measured."""
        try:
            self._multiply(set_variances(self.model, self.traced, batch, self.laws, self._to_measure()))
            if self.wish.kind == "gradient":
                factors, words = flatten_gradients(self.model, self.traced, batch, self.slots)
                self._multiply(factors)
                self.notes.append(words)
            head = self.traced.layers[-1].number
            if self.laws[head].rule == "outputs" and head in self.slots:
                only = {head: self.slots[head]}
                self._multiply(set_variances(self.model, self.traced, batch, self.laws, only))
        except Exception as error:  # whatever somebody's model raises
            self.notes.append(f"not all was fitted to the inputs: {str(error).partition(chr(10))[0]}")

    def _to_measure(self) -> dict[int, Slot]:
        """The layers that are set, but for shared weights, which can only suit one of their uses, and but for the head,
        whose few outputs say little of a variance.
        """
        chosen = [layer.number for layer in self.traced.layers[:-1] if not layer.shared]
        return {number: self.slots[number] for number in chosen if number in self.slots}

    def say_scatter(self) -> None:
        """Where networks of finite width stray from theory: by a random walk of log S, of about 2/fan_in a layer; by
        deviations of the variance that grow; by what batch normalisation takes away.
        """
        growth = math.prod(max(law.growth, 1.0) for law in self.laws.values())
        if growth > STABLE:
            self.notes.append(
                f"deviations of the variance grow by a factor of {growth:.2g} through the model, and gradients along "
                'the signal with them: give inputs=, larger sigma_b2 where phi bends, or kind="variance" for pools'
            )
        if not self.traced.branches and any(isinstance(m, _BATCH_NORM) for m in self.model.modules()):
            self.notes.append(
                "batch normalisation without skips: gradients grow with depth whatever the weights (Yang et al., 2019)"
            )
        inside = {number for branch in self.traced.branches for number in branch.layers}
        hidden = [layer for layer in self.traced.layers[1:-1] if layer.number not in inside]
        fan_ins = {layer.before.layers: layer.fan_in for layer in hidden}  # parallel layers count once
        scatter = math.sqrt(sum(2.0 / fan_in for fan_in in fan_ins.values()))
        if scatter > 0.5:
            self.notes.append(
                f"squared gradients of one network so deep and narrow stray from theory by a factor of about "
                f"{math.exp(scatter):.2g}: give inputs= to have them measured and corrected"
            )

    def _multiply(self, factors: Mapping[int, float]) -> None:
        for number, factor in factors.items():
            self.factors[number] = self.factors.get(number, 1.0) * factor
            self.laws[number] = replace(self.laws[number], sigma_w2=self.laws[number].sigma_w2 * factor**2)

    def report(self, source: str, before: Profile | None, after: Profile | None, dry_run: bool) -> InitReport:
        return InitReport(
            model=type(self.model).__name__,
            rows=tuple(self._row(layer, before, after) for layer in self.traced.layers),
            left=tuple(_left(self.model, self.traced)),
            notes=tuple(dict.fromkeys(self.notes)),
            weights=self.wish.weights,
            kind=self.wish.kind,
            measured=source == "inputs",
            branches=len(self.traced.branches),
            dry_run=dry_run,
        )

    def _row(self, layer: Layer, before: Profile | None, after: Profile | None) -> InitRow:
        number, law = layer.number, self.laws[layer.number]
        failure = self.failures.get(number)
        phi = layer.before.activation
        notes = [failure] if failure else [law.note]
        if failure is None and layer.bias is not None and not layer.bias.requires_grad:
            notes.append("its frozen biases stay")
        return InitRow(
            layer=number,
            name=layer.name,
            kind=layer.kind,
            status="could not" if failure else "assumed" if law.assumed else "set",
            source=layer.before.source,
            activation="unknown" if phi is None else str(phi),
            pool="" if layer.before.pool is None else str(layer.before.pool),
            weights="" if failure else self.drawn.get(number, ""),
            fan_in=layer.fan_in,
            sigma_w2=math.nan if failure else law.sigma_w2,
            sigma_b2=math.nan if failure else law.sigma_b2,
            rule="" if failure else law.rule,
            q=law.q if after is None else after.q.get(number, math.nan),
            factor=self.factors.get(number, 1.0),
            gradient_before=math.nan if before is None else before.gradient.get(number, math.nan),
            gradient=math.nan if after is None else after.gradient.get(number, math.nan),
            note="; ".join(note for note in notes if note),
        )


# What is no layer


def _left(model: nn.Module, traced: Trace) -> Iterable[tuple[str, str]]:
    """Parameters that no layer has, and why they stay as they are."""
    used = {name for layer in traced.layers for name in (*layer.weight_name.split(", "), layer.bias_name)}
    tied = {id(layer.weight) for layer in traced.layers if layer.weight is not None}
    for name, parameter in model.named_parameters():
        if name in used or id(parameter) in tied:
            continue
        if is_weight(model, name, parameter):
            yield name, "its layer did not run as a product with the inputs"
        else:
            yield name, f"belongs to {type(owner_of(model, name)).__name__}"
