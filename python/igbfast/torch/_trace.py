"""The layers of any PyTorch model, and what lies between them, from one forward pass; later passes watched by layer.

A layer is a product of something that depends on the inputs with a parameter: Linear, convolutions, the projections
of attention, whatever module or function makes them. Before it lies an activation (any elementwise function, recovered
from the recorded operations), perhaps a pool, and a source: another layer, the inputs, a normalisation, attention or
a sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ._batches import Batch, must_fit, run, untouched
from ._graph import Before, Branch, Layer, Trace
from ._reading import Reader
from ._recording import Recorder

__all__ = ["Before", "Branch", "Layer", "Trace", "trace", "watch"]

# Batches of a size that no other axis has, or is unlikely to have: the axis of the inputs is known by its length.
_PRIMES = (11, 13, 7, 17, 5, 3, 2)


def trace(model: nn.Module, batch: Batch) -> Trace:
    """Runs the model on a few of the inputs and says what its layers are; the model stays as it was.

    Raises
    ------
    ValueError
        If no product with a parameter is found, or the model does not take the inputs.
    """
    sizes = {size for tensor in [*model.parameters(), *batch.tensors] for size in tensor.shape}
    sizes.discard(batch.count)
    enough = [prime for prime in _PRIMES if prime <= batch.count] or [batch.count]
    count = next((prime for prime in enough if prime not in sizes), enough[0])
    few = batch.first(count)
    with must_fit(batch), untouched(model), torch.no_grad():
        recorder = Recorder(model, few.tensors, count, few.batch_axis)
        with recorder:
            run(model, few)
    record = recorder.record
    if not record.products:
        raise ValueError(
            f"model must multiply its inputs with parameters, but a {type(model).__name__} showed no layer"
        )
    reader = Reader(model, record, count)
    return Trace(
        model,
        tuple(reader.layer(product) for product in record.products),
        tuple(reader.branches()),
        tuple(reader.warnings),
    )


@contextmanager
def watch(
    traced: Trace,
    batch: Batch,
    on_layer: Callable[[Layer, Tensor], Tensor | None] | None = None,
    on_gradient: Callable[[Layer, Tensor], None] | None = None,
) -> Iterator[None]:
    """Shows the outputs of all layers during the forward pass of a batch, and their gradients during its backward pass.

    Parameters
    ----------
    traced : Trace
        Of the model that is run inside.
    batch : Batch
        What it is run on.
    on_layer : callable, optional
        Takes the layer and its output, with its bias, of shape (inputs, *layer shape). What it returns, of the same
        shape, goes on in its place; not together with `on_gradient`.
    on_gradient : callable, optional
        Takes the layer and d loss / d output, of the same shape. The parameters must require gradients.

    Raises
    ------
    ValueError
        If the layers come in another order than in the trace.
    """
    layers, count = traced.layers, batch.count
    seen = 0

    def layer_at(position: int) -> Layer:
        if position >= len(layers):
            raise ValueError(f"the model must run the same layers for every batch: it ran more than {len(layers)}")
        return layers[position]

    def shown(position: int, output: Tensor) -> Tensor | None:
        nonlocal seen
        seen = max(seen, position + 1)
        layer = layer_at(position)
        if on_layer is None:
            return None
        rows = on_layer(layer, layer.by_input(output.detach(), count))
        return None if rows is None else layer.as_output(rows, output)

    def followed(position: int, output: Tensor) -> None:
        if on_gradient is not None and output.requires_grad:
            layer = layer_at(position)
            output.register_hook(lambda gradient: on_gradient(layer, layer.by_input(gradient, count)))

    with_bias = [bool(layer.bias_name) for layer in layers]
    recorder = Recorder(traced.model, batch.tensors, count, batch.batch_axis, with_bias, shown, followed)
    with recorder:
        yield
    if seen < len(layers):
        raise ValueError(f"the model must run the same layers for every batch: it ran {seen} of {len(layers)}")
