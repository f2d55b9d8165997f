"""Signals and gradients of an untrained model of this package, at every place where an activation is applied.

y^(l)(a) is what goes into the l-th activation (or into the normalisation before it) for input a. Models run in training
mode, in which BatchNorm takes its statistics from the inputs, as it does in the first step of training.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .._layer_statistics import GradientStatistics, LayerStatistics
from ..activation import Phi

__all__ = ["Signals", "signals"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Signals:
    """Of each place in turn."""

    gamma: FloatArray
    """Bias strength."""
    c: FloatArray
    """Mean correlation of two inputs."""
    gradient: FloatArray
    """Squared derivatives of each input's loss by its y, summed over the nodes, mean over the inputs."""
    gradient_class: FloatArray
    """The same as a mean over the nodes, of the inputs with each label, shape (places, classes); nan without labels."""
    given: NDArray[np.int64]
    """The class that each input is given."""

    @property
    def growth(self) -> float:
        """The factor of squared gradients per layer, from the last place back to the first."""
        return float((self.gradient[0] / self.gradient[-1]) ** (1.0 / (len(self.gradient) - 1)))


def signals(model: Any, inputs: Any, labels: Any = None, *, readout: Any = None) -> Signals:
    """Run a model forward and backward.

    Parameters
    ----------
    model : torch.nn.Module
        One of `igbfast.torch.models`. Buffers of BatchNorm move on, as in training.
    inputs : tensor, shape (n, ...)
    labels : tensor of int64, shape (n,), optional
        The loss is the cross-entropy with them; without, a random linear function of the outputs.
    readout : torch.Generator, optional
        Where the coefficients of this function come from.
    """
    model.train()
    with _caught(model) as places:
        outputs = model(inputs)
        if labels is None:
            weights = torch.randn(outputs.shape[1:], generator=readout, dtype=outputs.dtype)
            loss = (outputs * weights).sum()
        else:
            loss = torch.nn.functional.cross_entropy(outputs, labels, reduction="sum")
        gradients = torch.autograd.grad(loss, places)
    classes = outputs.shape[1]
    numbers = None if labels is None else labels.cpu().numpy()
    estimates, squares = [], []
    for y, gradient in zip(places, gradients, strict=True):
        layer, back = LayerStatistics(), GradientStatistics(classes)
        layer.add(y)
        back.add(gradient, numbers)
        estimates.append(layer.estimates())
        squares.append(back)
    return Signals(
        gamma=np.array([estimate.gamma for estimate in estimates]),
        c=np.array([estimate.c for estimate in estimates]),
        gradient=np.array([back.square_length for back in squares]),
        gradient_class=np.array([back.mean_square_by_class for back in squares]),
        given=outputs.detach().argmax(1).cpu().numpy(),
    )


@contextmanager
def _caught(model: Any) -> Iterator[list[Any]]:
    """A list that each call of the model puts the y of every place into, in order."""
    places: list[Any] = []
    norms = getattr(model, "norms", None)  # of the layers of an MLP or CNN; each is followed by its activation
    watched = {m for m in model.modules() if isinstance(m, Phi)} if norms is None else set(norms)
    hooks = [m.register_forward_pre_hook(lambda _, args: places.append(args[0])) for m in watched]
    try:
        yield places
    finally:
        for hook in hooks:
            hook.remove()
