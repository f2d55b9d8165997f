"""The elementwise function between two layers, run again on other numbers and known by its values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..activations import Activation
from ._recording import Operation, Record, Reference, Value

__all__ = ["Functions", "Replay"]

_SKIPPED = object()
_GRID = np.concatenate([np.linspace(-6.0, 6.0, 193) + 0.0123, [-30.0, -12.0, 12.0, 30.0]])
_NAMES = (
    "linear relu tanh erf sigmoid gelu gelu_tanh silu mish softplus softsign selu elu(1.0) celu(1.0) hardtanh relu6 "
    "hard_sigmoid sin cos abs exp leaky_relu(0.01) x*hard_sigmoid"
).split()


class Replay:
    """Runs the elementwise operations between a leaf and a later value again, on other numbers."""

    def __init__(self, record: Record, leaf: Value) -> None:
        self._values, self._leaf = record.values, leaf

    def __call__(self, value: Value, x: Tensor) -> Tensor:
        results = {self._leaf.number: x}
        for step in self._between(value):
            operation = step.operation
            assert operation is not None
            signals = [results[s] for s in operation.sources if s in results]
            results[step.number] = signals[0] if not operation.pointwise else self._again(operation, results)
        return results[value.number]

    def dropout(self, value: Value) -> float:
        """The largest probability of the dropouts in between."""
        found = [0.0]
        for step in self._between(value):
            operation = step.operation
            assert operation is not None
            if operation.name == "native_dropout":
                found.append(float(operation.args[1]))
            elif operation.pointwise:
                found += [1.0 - kept for kept in self._kept(operation)]
        return max(found)

    def names(self, value: Value) -> list[str]:
        """What the elementwise operations in between are called."""
        steps = [step.operation for step in self._between(value)]
        return [step.name.strip("_") for step in steps if step is not None and step.pointwise]

    def _kept(self, operation: Operation) -> Iterator[float]:
        """The probabilities of masks that are made of random bits, as dropout makes them, among the operands."""
        for argument in operation.args:
            step = self._values[argument.value].operation if isinstance(argument, Reference) else None
            while step is not None and not step.sources and step.name in ("div_", "bernoulli_"):
                if step.name == "bernoulli_":
                    yield float(step.args[1]) if len(step.args) > 1 else 0.5  # defaults are not recorded
                step = self._values[step.args[0].value].operation

    def notes(self, value: Value) -> list[str]:
        """Which parameters the elementwise operations in between use."""
        found = []
        for step in self._between(value):
            operation = step.operation
            assert operation is not None
            if operation.pointwise:
                found += [f"{operation.name.rstrip('_')} of {name}" for name in self._parameters(operation)]
        return found

    def _parameters(self, operation: Operation) -> Iterator[str]:
        for argument in operation.args:
            if isinstance(argument, Reference):
                value = self._values[argument.value]
                if not value.data and math.prod(value.shape) > 1 and value.parameters:
                    yield from sorted(value.parameters)

    def _between(self, value: Value) -> list[Value]:
        """The values from the leaf (without it) to this one, in order."""
        found, open_ = set(), [value.number]
        while open_:
            number = open_.pop()
            if number == self._leaf.number or number in found:
                continue
            found.add(number)
            operation = self._values[number].operation
            if operation is not None:
                open_ += operation.sources
        return [self._values[number] for number in sorted(found)]

    def _again(self, operation: Operation, results: dict[int, Tensor]) -> Tensor:
        args = [self._argument(argument, results) for argument in operation.args]
        skipped = [argument is _SKIPPED for argument in args]
        if any(skipped):  # per-node scales and shifts: the function is that of an average node
            return next(argument for argument in args if isinstance(argument, Tensor))
        if operation.function._schema.is_mutable:
            args = [a.clone() if isinstance(a, Tensor) else a for a in args]
        result = operation.function(*args, **operation.kwargs)
        return result if isinstance(result, Tensor) else result[0]

    def _argument(self, argument: Any, results: dict[int, Tensor]) -> Any:
        if not isinstance(argument, Reference):
            return argument
        if argument.value in results:
            return results[argument.value]
        value = self._values[argument.value]
        return _SKIPPED if value.constant is None else torch.tensor(value.constant, dtype=torch.float64)


class Functions:
    """The activations that functions are, found once for each."""

    def __init__(self) -> None:
        self._known: dict[bytes, Activation] = {}

    def activation(self, steps: list[Callable[[Tensor], Tensor]], name: str) -> tuple[Activation | None, str]:
        """The activation that these steps make one after the other; or None, and why."""

        def phi(x: NDArray[np.float64]) -> NDArray[np.float64]:
            signal = torch.from_numpy(np.array(x, dtype=np.float64))
            for step in steps:
                signal = step(signal)
            return np.asarray(signal.numpy(), dtype=np.float64)

        try:
            with torch.no_grad():
                values = phi(_GRID)
            if values.shape != _GRID.shape or not np.isfinite(values).all():
                raise ValueError("it is not finite everywhere")
            key = values.tobytes()
            if key not in self._known:
                self._known[key] = _named(values) or Activation.custom(phi, name=name)
            return self._known[key], ""
        except Exception as error:  # a replayed operation may refuse anything
            return None, f"the function before it is not known: {str(error).partition(chr(10))[0]}"


def _named(values: NDArray[np.float64]) -> Activation | None:
    """The activation with a name, or the straight line, that takes these values on the grid."""
    for name in _NAMES:
        if _equal(Activation(name), values):
            return Activation(name)
    left, right = values[-4] / _GRID[-4], values[-1] / _GRID[-1]
    bent = right and left != right
    leaky = Activation(f"{float(right)!r} * leaky_relu({float(left / right)!r})") if bent else None
    if right == 1.0:
        leaky = Activation(f"leaky_relu({float(left)!r})")
    if leaky is not None and _equal(leaky, values):
        return leaky
    bounded = Activation(f"elu({float(f'{-values[-4]:.9g}')!r})") if values[-4] < 0.0 else None
    if bounded is not None and _equal(bounded, values):
        return bounded
    slope, shift = (values[-1] - values[-4]) / (_GRID[-1] - _GRID[-4]), values[-1]
    shift -= slope * _GRID[-1]
    if slope:
        line = Activation(f"{float(slope)!r} * x + {float(shift)!r}")
        if _equal(line, values):
            return line
    return None


def _equal(activation: Activation, values: NDArray[np.float64]) -> bool:
    # PyTorch's softplus takes x for arguments beyond 20, 2e-9 away; scalars in float32 modules are rounded to 6e-8.
    return bool(np.allclose(activation(_GRID), values, rtol=1e-7, atol=3e-8))
