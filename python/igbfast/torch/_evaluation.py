"""What a classifier does at one moment: loss, accuracy, the share of each class, the gradients at its first layer.

Everything comes from three numbers per input, its loss, the class it is given and the mean square of the loss's
derivatives by its first layer's pre-activations. Models are evaluated in evaluation mode, in which inputs do not see
each other, so that one backward pass gives every input its own derivatives.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ._batches import output_of

__all__ = [
    "Examples",
    "PerInput",
    "evaluated",
    "modes_kept",
    "outputs_of",
    "own_randomness",
    "predicted",
    "random_states",
    "set_random_states",
]

CHUNK = 512  # inputs that go through a model together; part of what makes a result what it is, to the last bit

_LAYERS = (
    torch.nn.Linear,
    torch.nn.Bilinear,
    torch.nn.Conv1d,
    torch.nn.Conv2d,
    torch.nn.Conv3d,
    torch.nn.ConvTranspose1d,
    torch.nn.ConvTranspose2d,
    torch.nn.ConvTranspose3d,
)

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Examples:
    """Inputs with their labels."""

    inputs: torch.Tensor
    """Of shape (n, ...)."""
    labels: torch.Tensor
    """Of shape (n,), int64, from 0 to classes - 1."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: torch.Tensor | slice) -> Examples:
        """Copies of some of them: a model may write into what it is given."""
        inputs = self.inputs[indices]
        return Examples(inputs.clone() if isinstance(indices, slice) else inputs, self.labels[indices])

    def some(self, count: int | None) -> Examples:
        """At most so many of them, spread at random, the same ones whatever the seed of a run."""
        if count is None or count >= len(self):
            return self
        chosen = torch.randperm(len(self), generator=torch.Generator().manual_seed(0))[:count]
        return self.take(chosen.sort().values)

    def on(self, model: torch.nn.Module) -> Examples:
        """Where the model is, in its precision."""
        first = next(parameter for parameter in model.parameters() if parameter.is_floating_point())
        return Examples(self.inputs.to(first.device, first.dtype), self.labels.to(first.device))


@dataclass(frozen=True)
class PerInput:
    """Three numbers for each of n inputs, and the true classes that they are sorted by."""

    loss: FloatArray
    """Cross-entropy."""
    given: NDArray[np.int64]
    """The class that the model gives it: the largest output."""
    squares: FloatArray | None
    """Mean square over the first layer's units of the derivative of its loss; None if not asked for."""
    labels: NDArray[np.int64]
    """Its true class."""
    classes: int

    def class_fraction(self) -> FloatArray:
        """Share of the inputs given to each class."""
        return np.bincount(self.given, minlength=self.classes) / len(self.given)

    def by_class(self, values: Any) -> FloatArray:
        """Mean over the inputs of each true class; nan for a class without inputs."""
        sums = np.bincount(self.labels, weights=values, minlength=self.classes)
        counts = np.bincount(self.labels, minlength=self.classes)
        return np.divide(sums, counts, out=np.full(self.classes, np.nan), where=counts > 0)

    def record(self) -> dict[str, Any]:
        """Means over all inputs and over those of each class; nan throughout if the loss is not finite."""
        right = (self.given == self.labels).astype(np.float64)
        record: dict[str, Any] = {
            "loss": self.loss.mean(),
            "accuracy": right.mean(),
            "class_fraction": self.class_fraction(),
            "loss_class": self.by_class(self.loss),
            "accuracy_class": self.by_class(right),
        }
        if self.squares is not None:
            record["gradient_class"] = self.by_class(self.squares)
        if np.isfinite(record["loss"]):
            return record
        return {name: np.full_like(value, np.nan) for name, value in record.items()}


def evaluated(model: torch.nn.Module, examples: Examples, classes: int, *, gradients: bool = False) -> PerInput:
    """Loss, class and, if asked for, squared first-layer gradient of every input.

    Raises ValueError if the model's outputs are not of shape (inputs, classes), or if gradients are asked for and no
    linear or convolutional layer has run.
    """
    losses, given, squares = [], [], []
    with modes_kept(model), _randomness_kept(model), torch.set_grad_enabled(gradients):
        model.eval()
        with _first_layer(model, gradients) as caught:
            for start in range(0, len(examples), CHUNK):
                chunk = examples.take(slice(start, start + CHUNK)).on(model)
                caught.clear()
                outputs = outputs_of(model, chunk.inputs, classes)
                loss = torch.nn.functional.cross_entropy(outputs, chunk.labels, reduction="none")
                losses.append(loss.detach().double().cpu())
                given.append(outputs.detach().argmax(1).cpu())
                if gradients:
                    squares.append(_mean_squares(loss, caught).cpu())
    return PerInput(
        torch.cat(losses).numpy(),
        torch.cat(given).numpy(),
        torch.cat(squares).numpy() if gradients else None,
        examples.labels.cpu().numpy(),
        classes,
    )


def predicted(model: torch.nn.Module, inputs: torch.Tensor, classes: int | None = None) -> NDArray[np.int64]:
    """The class that the model, in evaluation mode, gives to each input; -1 where an output is nan."""
    blank = Examples(inputs, torch.zeros(len(inputs), dtype=torch.int64))
    with modes_kept(model), _randomness_kept(model), torch.no_grad():
        model.eval()
        chunks = [blank.take(slice(i, i + CHUNK)).on(model) for i in range(0, len(inputs), CHUNK)]
        outputs = torch.cat([outputs_of(model, chunk.inputs, classes).cpu() for chunk in chunks])
    given: NDArray[np.int64] = torch.where(outputs.isnan().any(1), -1, outputs.argmax(1)).numpy()
    return given


def outputs_of(model: torch.nn.Module, inputs: torch.Tensor, classes: int | None = None) -> Any:
    """The model's outputs, of shape (inputs, classes); in float32 if the model computes with less."""
    outputs = output_of(model(inputs))
    if outputs.ndim != 2 or len(outputs) != len(inputs) or classes not in (None, outputs.shape[1]):
        wanted = f"({len(inputs)}, {'classes' if classes is None else classes})"
        raise ValueError(
            f"model must return outputs of shape {wanted}, one for each class, got shape {tuple(outputs.shape)} from "
            f"inputs of shape {tuple(inputs.shape)}"
        )
    return outputs.float() if outputs.dtype in (torch.float16, torch.bfloat16) else outputs


@contextlib.contextmanager
def modes_kept(model: torch.nn.Module) -> Iterator[None]:
    """Every module is afterwards in training or evaluation mode as it was before."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def _randomness_kept(model: torch.nn.Module) -> Iterator[None]:
    """PyTorch's own random numbers, which dropout draws from, go on afterwards as if nothing had been between."""
    with torch.random.fork_rng(_gpus(model)):
        yield


@contextlib.contextmanager
def own_randomness(model: torch.nn.Module | None, seed: int) -> Iterator[None]:
    """PyTorch's own random numbers begin anew from `seed`, and go on afterwards as if nothing had been between."""
    gpus = [] if model is None else _gpus(model)
    with torch.random.fork_rng(gpus):
        torch.default_generator.manual_seed(seed)
        for gpu in gpus:
            torch.cuda.default_generators[gpu].manual_seed(seed)
        yield


def random_states(model: torch.nn.Module) -> list[Any]:
    """The states of PyTorch's own random numbers, on the CPU and on the model's GPUs."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(gpu) for gpu in _gpus(model))]


def set_random_states(model: torch.nn.Module, states: list[Any]) -> None:
    """Sets what `random_states` gave."""
    torch.set_rng_state(states[0])
    for gpu, state in zip(_gpus(model), states[1:], strict=False):  # a run may go on with or without a GPU
        torch.cuda.set_rng_state(state, gpu)


def _gpus(model: torch.nn.Module) -> list[int]:
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    return sorted(torch.cuda.current_device() if device.index is None else device.index for device in devices)


@contextlib.contextmanager
def _first_layer(model: torch.nn.Module, wanted: bool) -> Iterator[list[Any]]:
    """A list that each call of the model puts its first layer's pre-activations into, to be differentiated by.

    They are made leaves, so that nothing before them is differentiated, whether its parameters are frozen or not; what
    follows gets a copy, which it may change in place.
    """
    caught: list[Any] = []

    def catch(module: Any, args: Any, output: Any) -> Any:
        if caught or not isinstance(output, torch.Tensor):
            return None
        caught.append(output.detach().requires_grad_())
        return caught[0].clone()

    hooks = [m.register_forward_hook(catch) for m in model.modules() if wanted and isinstance(m, _LAYERS)]
    try:
        yield caught
    finally:
        for hook in hooks:
            hook.remove()


def _mean_squares(loss: Any, caught: list[Any]) -> Any:
    """By input, the mean square of d loss / d y over the units of the first layer, in float64: squares overflow."""
    if not caught:
        raise ValueError(
            "gradients must be False for a model that runs no linear or convolutional layer to be watched, got True"
        )
    (gradient,) = torch.autograd.grad(loss.sum(), caught[0])
    return gradient.double().square().flatten(1).mean(1)
