"""Running somebody's model: what goes in, what comes out, and leaving it exactly as it was."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import torch
import torch.utils.checkpoint as checkpointing
from torch import Tensor, nn

from .. import _checks
from .data import Data

__all__ = ["Batch", "batches_of", "example_of", "must_fit", "output_of", "run", "untouched", "unwrapped"]


@dataclass(frozen=True)
class Batch:
    """What one call of the model takes."""

    args: tuple[Any, ...]
    """Positional arguments."""
    kwargs: dict[str, Any]
    """Arguments by name."""
    labels: Tensor | None
    """The class of each input, int64; None if not given."""
    count: int
    """Number of inputs."""
    batch_axis: int = 0
    """Axis of the tensors along which the inputs lie."""

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors among the arguments."""
        return [item for item in _leaves((self.args, self.kwargs)) if isinstance(item, Tensor)]

    def first(self, count: int) -> Batch:
        """The same with its first inputs only."""
        labels = None if self.labels is None else self.labels[:count]
        args, kwargs = (_mapped(part, lambda t: self._cut(t, 0, count)) for part in (self.args, self.kwargs))
        return Batch(args, kwargs, labels, min(count, self.count), self.batch_axis)

    def pieces(self, size: int) -> Iterator[Batch]:
        """The same in pieces of at most `size` inputs; what a model writes into them is not written into this one."""
        for begin in range(0, self.count, size):
            end = min(begin + size, self.count)
            cut = [_mapped(part, lambda t, b=begin, e=end: self._cut(t, b, e)) for part in (self.args, self.kwargs)]
            labels = None if self.labels is None else self.labels[begin:end]
            yield Batch(cut[0], cut[1], labels, end - begin, self.batch_axis)

    def _cut(self, item: Any, begin: int, end: int) -> Any:
        axis = self.batch_axis
        if isinstance(item, Tensor) and item.ndim > axis and item.shape[axis] == self.count:
            return item.narrow(axis, begin, min(end, self.count) - begin).clone()
        return item


def run(model: nn.Module, batch: Batch) -> Any:
    """What the model makes of the batch; parts that are compiled or checkpointed run as they were written."""
    with _uncompiled(model), _not_checkpointed(), _uncached():
        return model(*batch.args, **batch.kwargs)


@contextmanager
def must_fit(batch: Batch) -> Iterator[None]:
    """Around the first run of a model: what PyTorch says of inputs that do not fit, with the shape that was given."""
    try:
        yield
    except RuntimeError as error:
        shapes = [["N" if at == batch.batch_axis else str(n) for at, n in enumerate(t.shape)] for t in batch.tensors]
        shown = ", ".join(f"({', '.join(shape)}{',' * (len(shape) == 1)})" for shape in shapes)
        reason = str(error).rpartition("RuntimeError: ")[2].strip().partition("\n")[0]  # of scripted models, the last
        raise ValueError(f"the model does not take inputs of shape {shown}{reason and f': {reason}'}") from error


def _uncompiled(model: nn.Module) -> AbstractContextManager[Any]:
    compiled = any(
        hasattr(part, "_orig_mod") or getattr(part, "_compiled_call_impl", None) is not None for part in model.modules()
    )
    # From PyTorch 2.6 on.
    stance = getattr(torch.compiler, "set_stance", None) if compiled else None
    return nullcontext() if stance is None else stance("force_eager")


@contextmanager
def _not_checkpointed() -> Iterator[None]:
    """Reentrant checkpoints run without automatic differentiation at first, which would hide the gradients inside."""

    class Plain:
        @staticmethod
        def apply(function: Any, _: bool, *args: Any) -> Any:
            return function(*args)

    kept, checkpointing.CheckpointFunction = checkpointing.CheckpointFunction, Plain
    try:
        yield
    finally:
        checkpointing.CheckpointFunction = kept


@contextmanager
def _uncached() -> Iterator[None]:
    """Autocast keeps the weights that it has rounded: they would not be known as those of the parameters."""
    kept = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(kept)


def unwrapped(model: Any) -> nn.Module:
    """The model without what `torch.compile` and the data-parallel wrappers put around it.

    Raises
    ------
    TypeError
        If it is no `torch.nn.Module`.
    ValueError
        If it has no parameters, or some that have no values yet (lazy modules, the meta device).
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {_checks.shown(model)}")
    while True:
        inside = getattr(model, "_orig_mod", None)
        if inside is None and type(model).__name__ in ("DataParallel", "DistributedDataParallel"):
            inside = model.module
        if not isinstance(inside, nn.Module):
            break
        model = inside
    kind = type(model).__name__
    parameters = dict(model.named_parameters())
    if not parameters:
        raise ValueError(f"model must have parameters, got a {kind} without any")
    for name, parameter in parameters.items():
        if nn.parameter.is_lazy(parameter):
            raise ValueError(
                f"model must have been run once on a batch, so that its lazy modules know their sizes: {name!r} of the "
                f"{kind} has none yet"
            )
        if parameter.is_meta:
            raise ValueError(
                f"model must have values: {name!r} of the {kind} is on the meta device; move it with "
                "model.to_empty(device=...) and initialise it"
            )
    return model


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Parameters, buffers, modes, gradients and the random state are afterwards as they were, bit by bit.

    Inside, gradients are None. Parameters are not copied: what is done inside must not write into them.
    """
    modules = list(model.modules())
    modes = [(module, module.training) for module in modules if not isinstance(module, torch.jit.RecursiveScriptModule)]
    buffers = [
        (module, name, buffer, None if buffer is None else buffer.detach().clone())
        for module in modules
        for name, buffer in ([] if isinstance(module, torch.jit.RecursiveScriptModule) else module._buffers.items())
    ]
    scripted = [
        (buffer, buffer.detach().clone())
        for module in modules
        if isinstance(module, torch.jit.RecursiveScriptModule)
        for buffer in module.buffers(recurse=False)
    ]
    parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    devices = sorted({parameter.device.index or 0 for parameter, _, _ in parameters if parameter.is_cuda})
    fast_path = torch.backends.mha.get_fastpath_enabled()
    try:
        with torch.random.fork_rng(devices=devices), torch.inference_mode(False):
            torch.backends.mha.set_fastpath_enabled(False)  # one fused operation that hides the layers
            for parameter, _, _ in parameters:
                parameter.grad = None
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for parameter, requires_grad, gradient in parameters:
            parameter.requires_grad_(requires_grad)
            parameter.grad = gradient
        with torch.no_grad():
            for module, name, buffer, values in buffers:
                if buffer is not None:
                    buffer.copy_(values)
                module._buffers[name] = buffer
            for buffer, values in scripted:
                buffer.copy_(values)
        for module, training in modes:
            module.training = training


def batches_of(
    inputs: Any, labels: Any = None, *, model: nn.Module, batch: int = 256, batch_axis: int = 0
) -> Iterator[Batch]:
    """The inputs in batches that the model takes, on its device and in its precision.

    Parameters
    ----------
    inputs : Tensor, array, tuple, dict, Data or iterable
        One tensor or array of inputs; a tuple of them (positional arguments) or a dict (arguments by name); a `Data`,
        of which inputs and labels for training are taken; or an iterable of such things, as a DataLoader is, each with
        or without its labels: `(inputs, labels)`, or `"labels"` in a dict.
    labels : array_like of int, optional
        The class of each input, where `inputs` is neither a `Data` nor an iterable of batches.
    model : Module
        Says where the inputs go and in which precision.
    batch : int
        Most inputs in a batch; batches of an iterable stay as they are.
    batch_axis : int
        Axis of the tensors along which the inputs lie.

    Raises
    ------
    ValueError, TypeError
        For inputs of another kind, empty or not finite, and for labels that do not fit; the message names the batch.
        Only masks, which are no call's first tensor, may hold -inf.
    """
    batch = _checks.integer("batch", batch, 1)
    axis = _checks.integer("batch_axis", batch_axis, 0)
    if isinstance(inputs, Data):
        if labels is not None:
            raise ValueError("labels must not be given beside a Data, which has its own")
        inputs, labels = inputs.inputs, inputs.labels
    if isinstance(inputs, (Tensor, np.ndarray)) or _is_arguments(inputs):
        whole = _as_batch(inputs, labels, model, axis, "inputs")
        yield from whole.pieces(batch)
        return
    if not isinstance(inputs, Iterable) or isinstance(inputs, (str, bytes)):
        raise TypeError(
            "inputs must be a tensor, an array, a tuple or dict of them, a Data, or an iterable of batches, got "
            f"{_checks.shown(inputs)}"
        )
    if labels is not None:
        raise ValueError(
            "labels must come with the batches, as (inputs, labels), where inputs are an iterable of batches"
        )
    empty = True
    for number, item in enumerate(inputs):
        empty = False
        where = f"batch {number} of inputs"
        yield _as_batch(*_taken_apart(item, axis), model, axis, where)
    if empty:
        raise ValueError("inputs must hold at least one batch, got an empty iterable")


def output_of(result: Any) -> Tensor:
    """The tensor of outputs in what a model returns: itself, `.logits`, the last hidden state, or the first found."""
    if isinstance(result, Tensor):
        return result
    for name in ("logits", "last_hidden_state"):
        found = result.get(name) if isinstance(result, Mapping) else getattr(result, name, None)
        if isinstance(found, Tensor):
            return found
    if is_dataclass(result):
        result = [getattr(result, each.name) for each in fields(result)]
    for item in _leaves(result):
        if isinstance(item, Tensor) and item.is_floating_point() and item.ndim > 0:
            return item
    raise ValueError(
        f"the model must return a tensor of outputs, or something that holds one, got {_checks.shown(result)}"
    )


def example_of(model: nn.Module, count: int = 11) -> Batch:
    """A batch of Gaussian inputs (or random tokens) that the model takes, guessed from its first layers.

    Raises
    ------
    ValueError
        If no guess runs; the message asks for an example.
    """
    failure = ""
    for shape, tokens in _guesses(model):
        batch = Batch((_drawn(model, (count, *shape), tokens),), {}, None, count)
        try:
            with untouched(model), torch.no_grad():
                output_of(run(model, batch))
            return batch
        except Exception as error:  # whatever the model raises for a shape that it does not take
            failure = failure or str(error).partition("\n")[0]
    reason = f" ({failure})" if failure else ""
    raise ValueError(f"the shape of the model's inputs could not be guessed{reason}: give example=, a few inputs")


def _guesses(model: nn.Module) -> Iterator[tuple[tuple[int, ...], int | None]]:
    given = getattr(model, "input_shape", None)
    if isinstance(given, tuple):
        yield given, None
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            yield (16,), module.num_embeddings
            return
        if isinstance(module, nn.Linear):
            features = module.in_features
            yield (features,), None
            yield (16, features), None
            for channels in (1, 3):
                side = math.isqrt(features // channels)
                if side * side * channels == features:
                    yield (channels, side, side), None
            return
        for dimensions, kind in enumerate((nn.Conv1d, nn.Conv2d, nn.Conv3d), start=1):
            if isinstance(module, kind):
                for side in (32, 28, 8, 64, 96, 224, 256):
                    yield (module.in_channels, *([side] * dimensions)), None
                return


def _drawn(model: nn.Module, shape: tuple[int, ...], tokens: int | None) -> Tensor:
    device, dtype = _home(model)
    generator = torch.Generator().manual_seed(0)
    if tokens is not None:
        return torch.randint(tokens, shape, generator=generator).to(device)
    return torch.randn(shape, generator=generator).to(device, dtype)


def _home(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Where the model's first floating parameter lies, and in which precision."""
    found = next((p for p in model.parameters() if p.is_floating_point()), None)
    return (torch.device("cpu"), torch.get_default_dtype()) if found is None else (found.device, found.dtype)


def _is_arguments(inputs: object) -> bool:
    """Whether these are the arguments of one call, and no iterable of batches."""
    if isinstance(inputs, Mapping):
        return True
    return isinstance(inputs, tuple) and any(isinstance(part, (Tensor, np.ndarray)) for part in inputs)


def _taken_apart(item: Any, axis: int) -> tuple[Any, Any]:
    """A batch of an iterable as (inputs, labels)."""
    if isinstance(item, Mapping):
        named = dict(item)
        labels = [named.pop(name) for name in ("labels", "label") if name in named]
        return named, labels[0] if labels else None
    if not isinstance(item, (tuple, list)):
        return item, None
    if len(item) == 1:
        return item[0], None
    last = torch.as_tensor(item[-1]) if isinstance(item[-1], (Tensor, np.ndarray)) else None
    if last is not None and last.ndim == 1 and not last.is_floating_point():
        rest = item[0] if len(item) == 2 else tuple(item[:-1])
        return rest, last
    return tuple(item), None


def _as_batch(inputs: Any, labels: Any, model: nn.Module, axis: int, where: str) -> Batch:
    device, dtype = _home(model)
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    if isinstance(inputs, Mapping):
        kwargs = {str(name): _moved(part, device, dtype, where) for name, part in inputs.items()}
    elif isinstance(inputs, tuple):
        args = tuple(_moved(part, device, dtype, where) for part in inputs)
    else:
        args = (_moved(inputs, device, dtype, where),)
    tensors = [t for t in _leaves((args, kwargs)) if isinstance(t, Tensor)]
    if not tensors:
        raise TypeError(f"{where} must hold tensors or arrays, got {_checks.shown(inputs)}")
    if tensors[0].ndim <= axis:
        raise ValueError(f"{where} must have an axis {axis} of inputs, got shape {tuple(tensors[0].shape)}")
    count = tensors[0].shape[axis]
    _check_finite(tensors, where)
    if count == 0:
        raise ValueError(f"{where} must hold at least one input, got shape {tuple(tensors[0].shape)}")
    return Batch(args, kwargs, _checked_labels(labels, count, device, where), count, axis)


def _moved(item: Any, device: torch.device, dtype: torch.dtype, where: str) -> Any:
    if isinstance(item, np.ndarray):
        if item.dtype.kind not in "iufb":
            raise TypeError(f"{where} must be numbers, got an array of dtype {item.dtype}")
        item = torch.from_numpy(np.ascontiguousarray(item))
    if not isinstance(item, Tensor):
        return item
    item = item.detach().to(device)
    return item.to(dtype) if item.is_floating_point() else item


def _check_finite(tensors: list[Tensor], where: str) -> None:
    """Of all but the first, which may be masks that are added to scores, -inf is taken."""
    for number, item in enumerate(tensors):
        bad = ~torch.isfinite(item) if number == 0 else ~(item < math.inf)
        if item.is_floating_point() and bool(bad.any()):
            wrong = tuple(int(i) for i in torch.nonzero(bad)[0])
            raise ValueError(f"{where} must be finite, got {float(item[wrong])} at index {wrong}")


def _checked_labels(labels: Any, count: int, device: torch.device, where: str) -> Tensor | None:
    if labels is None:
        return None
    found = labels if isinstance(labels, Tensor) else torch.as_tensor(np.asarray(labels))
    at = "" if where == "inputs" else f" in {where}"
    if found.ndim != 1 or len(found) != count:
        several = found.ndim > 1 and len(found) == count
        hint = "; without labels, gradients are those of a random read-out of the outputs" if several else ""
        raise ValueError(
            f"labels must be one class for each of the {count} inputs, got shape {tuple(found.shape)}{at}{hint}"
        )
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise TypeError(f"labels must be whole numbers, got dtype {found.dtype}")
    if int(found.min()) < 0:
        raise ValueError(f"labels must be 0 or more, got {int(found.min())}{at}")
    return found.to(device, torch.int64)


def _leaves(item: Any) -> Iterator[Any]:
    if isinstance(item, Mapping):
        for part in item.values():
            yield from _leaves(part)
    elif isinstance(item, (tuple, list)):
        for part in item:
            yield from _leaves(part)
    else:
        yield item


def _mapped(item: Any, change: Any) -> Any:
    if isinstance(item, dict):
        return {key: _mapped(part, change) for key, part in item.items()}
    if isinstance(item, (tuple, list)):
        return type(item)(_mapped(part, change) for part in item)
    return change(item)
