"""What a model does, seen from below: every operation of one forward pass, with where its operands come from.

The recorder sees the operations that PyTorch dispatches, so it does not matter whether the model calls modules,
functions or methods, or runs as TorchScript. Of every tensor it knows

    data     whether it depends on the inputs (or only on parameters and constants);
    leaf     the last tensor before it that is more than an elementwise function or a rearrangement of another;
    stride   how far apart, in row-major order, two neighbouring inputs of the batch lie.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = [
    "NORMALISATIONS",
    "POOLS",
    "REARRANGEMENTS",
    "Operation",
    "Product",
    "Record",
    "Recorder",
    "Reference",
    "Value",
    "references",
]

REARRANGEMENTS = frozenset(
    """_reshape_alias _to_copy _unsafe_view alias as_strided cat chunk clone constant_pad_nd contiguous copy copy_
    detach detach_ diagonal dropout expand flatten flip gather im2col index index_select lift_fresh narrow
    native_dropout permute pixel_shuffle pixel_unshuffle reflection_pad1d reflection_pad2d reflection_pad3d repeat
    replication_pad1d replication_pad2d replication_pad3d reshape roll select slice split split_with_sizes squeeze
    stack t t_ to transpose transpose_ unbind unflatten unfold unsafe_chunk unsafe_split unsafe_split_with_sizes
    unsqueeze unsqueeze_ view upsample_nearest1d upsample_nearest2d write""".split()
)
"""Operations whose outputs hold elements of their inputs, as they are."""

_SAME_ORDER = frozenset(
    """_reshape_alias _to_copy _unsafe_view alias clone contiguous detach detach_ dropout flatten lift_fresh
    native_dropout reshape squeeze to unflatten unsqueeze view""".split()
)
_CREATIONS = frozenset(
    """arange bernoulli bernoulli_p empty empty_like full full_like new_empty new_empty_strided new_full new_ones
    new_zeros ones ones_like rand rand_like randn randn_like scalar_tensor zeros zeros_like""".split()
)
_PRODUCTS = frozenset(
    """_convolution addmm baddbmm bmm conv1d conv2d conv3d convolution einsum linear matmul mkldnn_convolution
    mkldnn_linear mm mv addmv""".split()
)
_CONVOLUTIONS = frozenset("_convolution conv1d conv2d conv3d convolution mkldnn_convolution".split())
# Elementwise, though not every version of PyTorch from 2.4 on marks them so.
_POINTWISE = frozenset(
    """_prelu_kernel celu clamp clamp_max clamp_min elu elu_ gelu glu_jvp hardshrink hardsigmoid hardsigmoid_ hardswish
    hardswish_ hardtanh hardtanh_ leaky_relu leaky_relu_ log_sigmoid log_sigmoid_forward masked_fill masked_fill_
    mish mish_ prelu rrelu_with_noise silu silu_ softplus softshrink threshold where""".split()
)
_SUMS = frozenset(("add", "add_"))
# Where the data operand of a product stands, its weight and its bias.
_OPERANDS = {"addmm": (1, 2, 0), "baddbmm": (1, 2, 0), "addmv": (1, 2, 0)}

NORMALISATIONS = ("batch_norm", "layer_norm", "group_norm", "rms_norm", "instance_norm")
"""What the names of normalising operations contain."""

POOLS = {
    "max_pool1d": "max",
    "max_pool1d_with_indices": "max",
    "max_pool2d": "max",
    "max_pool2d_with_indices": "max",
    "max_pool3d_with_indices": "max",
    "mkldnn_max_pool2d": "max",
    "adaptive_max_pool1d": "max",
    "adaptive_max_pool2d": "max",
    "adaptive_max_pool3d": "max",
    "amax": "max",
    "max": "max",
    "amin": "min",
    "min": "min",
    "avg_pool1d": "average",
    "avg_pool2d": "average",
    "avg_pool3d": "average",
    "adaptive_avg_pool1d": "average",
    "_adaptive_avg_pool2d": "average",
    "_adaptive_avg_pool3d": "average",
    "mean": "average",
}
"""Pooling operations and what they take of their nodes."""


@dataclass(frozen=True)
class Reference:
    """Stands in the recorded arguments where a tensor stood."""

    value: int


@dataclass(eq=False)
class Value:
    """A tensor at one moment of the run."""

    number: int
    operation: Operation | None
    shape: tuple[int, ...]
    data: bool = False
    leaf: int = -1
    selection: int = -1  # the last value before it, since the leaf, that is a part or another order of one
    stride: int | None = None
    parameters: frozenset[str] = frozenset()
    parameter: str | None = None  # where it is a parameter, or one seen through rearrangements that keep all elements
    transposed: bool = False  # ... and an odd number of transpositions
    constant: float | None = None  # of tensors with one element that do not depend on the inputs
    layer: int | None = None  # position among the recorder's layers, of the finished output of one

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(eq=False)
class Operation:
    """A dispatched operation; `sources` are the values of its operands that depend on the inputs."""

    number: int
    name: str
    function: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    sources: tuple[int, ...]
    pointwise: bool


@dataclass(eq=False)
class Product:
    """A layer as it is met: the product of something that depends on the inputs with something that does not."""

    position: int
    operation: Operation
    data: Value
    weight: Value
    weight_variance: float
    bias: str | None
    output: int
    sum: Operation | None = None  # the addition of the bias, where that is an operation of its own


OnLayer = Callable[[int, torch.Tensor], "torch.Tensor | None"]


@dataclass(eq=False)
class Record:
    """All that was seen."""

    values: list[Value] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)


class Recorder(TorchDispatchMode):  # type: ignore[misc, unused-ignore]
    """Records all operations while it is entered.

    Parameters
    ----------
    model
        Whose parameters are to be told from other constants.
    inputs
        The tensors on which everything else depends; their axis `batch_axis` is the batch.
    count
        Inputs in the batch.
    with_bias
        Which layers (by position) have a bias, be it added by an operation of its own; None while that is found out.
    on_layer
        Called with the position of a layer and its finished output, which it may replace.
    on_output
        Called with the same two, once the output is part of the automatic differentiation.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        inputs: list[torch.Tensor],
        count: int,
        batch_axis: int = 0,
        with_bias: Sequence[bool] | None = None,
        on_layer: OnLayer | None = None,
        on_output: Callable[[int, torch.Tensor], None] | None = None,
    ) -> None:
        super().__init__()
        self.record = Record()
        self._known: Any = WeakTensorKeyDictionary()
        self._bases: Any = WeakTensorKeyDictionary()
        self._count, self._with_bias, self._on_layer, self._on_output = count, with_bias, on_layer, on_output
        self._pending: list[tuple[int, torch.Tensor]] = []
        self._names: dict[tuple[int, int, tuple[int, ...]], str] = {}
        for name, parameter in model.named_parameters():
            self._names.setdefault(_place(parameter), name)
        for tensor in inputs:
            value = self._new(tensor, None)
            value.data = True
            if tensor.ndim > batch_axis and tensor.shape[batch_axis] == count:
                value.stride = math.prod(tensor.shape[batch_axis + 1 :])

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """What PyTorch asks before it loads its compiler, seconds of work that nothing here needs."""
        return False

    def __exit__(self, *error: Any) -> Any:
        self._deliver()
        return super().__exit__(*error)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._deliver()
        kwargs = kwargs or {}
        if torch._C._current_graph_task_id() != -1:  # in the backward pass
            return function(*args, **kwargs)
        operation = self._operation(function, args, kwargs)
        written = [tensor for tensor in _written(function, args, kwargs) if isinstance(tensor, torch.Tensor)]
        result = function(*args, **kwargs)
        outputs = list(_tensors(result)) or written
        values = [self._new(tensor, operation) for tensor in outputs]
        for tensor in outputs:
            self._remember_base(function, tensor, args, written)
        if not values:
            return result
        first = self._layer(operation, values[0], args)
        if first is None:
            return result
        if self._on_layer is not None:
            replacement = self._on_layer(first, outputs[0])
            if replacement is not None:
                outputs[0].copy_(replacement)
        self._pending.append((first, outputs[0]))
        return result

    # Values

    def _operation(self, function: Any, args: Any, kwargs: Any) -> Operation:
        name = function.overloadpacket.__name__
        arguments = _mapped(args, self._reference), _mapped(kwargs, self._reference)
        found = [self.record.values[reference.value] for reference in references(arguments)]
        if name == "copy_":
            found = found[1:] if found[0].size == found[1].size else found
        sources = () if name in _CREATIONS else tuple(dict.fromkeys(v.number for v in found if v.data))
        operation = Operation(
            len(self.record.operations),
            name,
            function,
            *arguments,
            sources=sources,
            pointwise=(torch.Tag.pointwise in function.tags or name in _POINTWISE) and name not in REARRANGEMENTS,
        )
        self.record.operations.append(operation)
        return operation

    def _reference(self, item: Any) -> Any:
        return Reference(self._value(item).number) if isinstance(item, torch.Tensor) else item

    def _value(self, tensor: torch.Tensor) -> Value:
        known = self._known.get(tensor)
        if known is not None:
            return self.record.values[known]
        value = self._new(tensor, None)
        name = self._names.get(_place(tensor))
        if name is not None:
            value.parameter, value.parameters = name, frozenset((name,))
        if tensor.numel() == 1 and not tensor.is_complex() and not tensor.is_meta:
            value.constant = float(tensor.item())
        return value

    def _new(self, tensor: torch.Tensor, operation: Operation | None) -> Value:
        value = Value(len(self.record.values), operation, tuple(tensor.shape))
        self.record.values.append(value)
        self._known[tensor] = value.number
        value.leaf = value.number
        if operation is not None:
            self._derive(value, operation)
        return value

    def _derive(self, value: Value, operation: Operation) -> None:
        """What is known of an operation's output from its operands."""
        values = self.record.values
        value.data = bool(operation.sources)
        if value.data:
            value.leaf, value.selection = self._leaf(value, operation)
            value.stride = self._stride(value, operation)
            return
        operands = [values[r.value] for r in references((operation.args, operation.kwargs))]
        value.parameters = frozenset().union(*(v.parameters for v in operands))
        if len(operands) == 1 and operation.name in REARRANGEMENTS:
            (origin,) = operands
            if origin.size == value.size:
                value.parameter = origin.parameter
                value.transposed = origin.transposed ^ (operation.name in ("t", "transpose", "t_", "transpose_"))
        if operation.name in REARRANGEMENTS and operands and value.size == 1:
            value.constant = operands[0].constant

    def _leaf(self, value: Value, operation: Operation) -> tuple[int, int]:
        """Of an elementwise function of one signal, that signal's; else the value itself."""
        sources = [self.record.values[source] for source in operation.sources]
        leaves = {source.leaf for source in sources}
        selections = {source.selection for source in sources}
        if len(leaves) == 1 and operation.name in REARRANGEMENTS:
            kept = operation.name in _SAME_ORDER and value.size == sources[0].size
            return leaves.pop(), selections.pop() if kept else value.number
        if len(leaves) == 1 and len(selections) == 1 and operation.pointwise:
            return leaves.pop(), selections.pop()
        return value.number, -1

    def _stride(self, value: Value, operation: Operation) -> int | None:
        """Of the batch, in the output; see the head of this file."""
        source = self.record.values[operation.sources[0]]
        if source.stride is not None and operation.name in _SAME_ORDER and source.size == value.size:
            return source.stride
        carried = _carried(operation, source, value, self._count)
        if carried is not None:
            return carried
        axes = [axis for axis, size in enumerate(value.shape) if size == self._count]
        return _trail(value, axes[0]) if axes else None

    def _remember_base(self, function: Any, tensor: torch.Tensor, args: Any, written: list[torch.Tensor]) -> None:
        """Views know whose elements they show, so that what is written into them is known of the whole."""
        base = next((a for a in args if isinstance(a, torch.Tensor)), None)
        if written:
            whole = self._bases.get(written[0])
            if whole is not None:
                before, part = self._value(whole), self.record.values[self._known[written[0]]]
                sources = tuple(dict.fromkeys(v.number for v in (part, before) if v.data))
                write = Operation(len(self.record.operations), "write", None, (), {}, sources, False)
                self.record.operations.append(write)
                self._new(whole, write)
        elif base is not None and base is not tensor and function.is_view:
            root = self._bases.get(base)
            self._bases[tensor] = base if root is None else root

    # Layers

    def _layer(self, operation: Operation, output: Value, args: Any) -> int | None:
        """The position of the layer that is finished by this operation, if one is."""
        products = self.record.products
        if operation.name in _PRODUCTS and output.data:
            product = self._product(operation, output, args)
            if product is None:
                return None
            products.append(product)
            output.leaf = output.number
            output.layer = product.position
            return None if product.bias is None and self._has_bias(product.position) else product.position
        if operation.name in _SUMS and output.data and products:
            return self._bias_added(operation, output)
        return None

    def _has_bias(self, position: int) -> bool:
        return self._with_bias is not None and position < len(self._with_bias) and self._with_bias[position]

    def _product(self, operation: Operation, output: Value, args: Any) -> Product | None:
        at_data, at_weight, at_bias = _OPERANDS.get(operation.name, (0, 1, 2))
        values = self.record.values
        operands = [values[a.value] if isinstance(a, Reference) else None for a in operation.args]
        data, weight = operands[at_data], operands[at_weight]
        if data is None or weight is None:
            return None
        if weight.data and not data.data:  # W x, not x W
            data, weight, at_weight = weight, data, at_data
        if weight.data or not weight.parameters:
            return None
        bias = operands[at_bias] if len(operands) > at_bias and len(operands) > 2 else None
        name = None if bias is None else bias.parameter
        # What was multiplied, be it a parameter or computed from several; later passes do not ask again.
        variance = float(args[at_weight].detach().double().var(correction=0)) if self._with_bias is None else math.nan
        return Product(len(self.record.products), operation, data, weight, variance, name, output.number)

    def _bias_added(self, operation: Operation, output: Value) -> int | None:
        """An addition of one parameter per node to what a product without a bias has just given finishes that layer."""
        values = self.record.values
        operands = [values[a.value] for a in operation.args if isinstance(a, Reference)]
        signal = [v for v in operands if v.data]
        biases = [v for v in operands if not v.data and v.parameter is not None]
        if len(signal) != 1 or len(biases) != 1:
            return None
        leaf = values[signal[0].leaf]
        if leaf.layer is None:
            return None
        product = self.record.products[leaf.layer]
        nodes = leaf.shape[1] if product.operation.name in _CONVOLUTIONS else leaf.shape[-1]
        if product.bias is not None or product.output != leaf.number or biases[0].size != nodes:
            return None
        if not self._only_rearranged(signal[0], leaf):
            return None
        product.bias, product.sum, product.output = biases[0].parameter, operation, output.number
        output.leaf, output.layer, leaf.layer = output.number, product.position, None
        return product.position

    def _only_rearranged(self, value: Value, leaf: Value) -> bool:
        while value is not leaf:
            operation = value.operation
            if operation is None or operation.name not in REARRANGEMENTS or len(operation.sources) != 1:
                return False
            value = self.record.values[operation.sources[0]]
        return True

    def _deliver(self) -> None:
        pending, self._pending = self._pending, []
        if self._on_output is not None:
            for position, tensor in pending:
                self._on_output(position, tensor)


def _carried(operation: Operation, source: Value, value: Value, count: int) -> int | None:
    """The stride in the output, where the axis that carries the batch is kept or goes to a known place."""
    rank = len(source.shape)
    for axis in range(rank):
        trail = _trail(source, axis)
        if source.stride is not None and trail <= source.stride < trail * source.shape[axis]:
            break
    else:
        return None
    inner, rest = divmod(source.stride, trail)
    if rest or source.shape[axis] % (inner * count):
        return None
    size, order = source.shape[axis], _order(operation, rank)
    if order is not None:
        axis = order.index(axis)
    elif operation.name in ("select", "unbind"):
        dropped = int(operation.args[1]) % rank if len(operation.args) > 1 else 0
        axis = -1 if dropped == axis else axis - (dropped < axis)
    elif len(value.shape) != rank:
        return None
    if axis < 0 or axis >= len(value.shape) or value.shape[axis] != size * _times(operation, size, value.shape[axis]):
        return None
    return inner * _trail(value, axis)


def _times(operation: Operation, before: int, after: int) -> int:
    """How often an axis follows itself, where batches are repeated or laid one behind the other."""
    parts = [reference.value for reference in references(operation.args)]
    if operation.name == "cat" and set(parts) <= set(operation.sources):
        return len(parts)
    return after // before if operation.name == "repeat" else 1


def _order(operation: Operation, rank: int) -> list[int] | None:
    """The permutation of the axes that an operation makes."""
    order = list(range(rank))
    if operation.name == "t":
        return order[::-1]
    if operation.name == "transpose":
        first, second = (int(a) % rank for a in operation.args[1:3])
        order[first], order[second] = second, first
        return order
    return [int(a) % rank for a in operation.args[1]] if operation.name == "permute" else None


def _trail(value: Value, axis: int) -> int:
    """How many elements lie behind one index of an axis."""
    return math.prod(value.shape[axis + 1 :])


def _place(tensor: torch.Tensor) -> tuple[int, int, tuple[int, ...]]:
    """Where its elements lie: the same for a parameter and for what `.data` or `.detach()` makes of it."""
    try:
        return tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tuple(tensor.shape)
    except (RuntimeError, NotImplementedError):  # tensors without storage
        return id(tensor), 0, tuple(tensor.shape)


def _written(function: Any, args: Any, kwargs: Any) -> Iterator[Any]:
    """The arguments that the operation writes into."""
    if not function._schema.is_mutable:
        return
    for position, argument in enumerate(function._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield args[position] if position < len(args) else kwargs.get(argument.name)


def _tensors(result: Any) -> Iterator[torch.Tensor]:
    if isinstance(result, torch.Tensor):
        yield result
    elif isinstance(result, (tuple, list)):
        for item in result:
            yield from _tensors(item)


def _mapped(item: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(item, (tuple, list)):
        return type(item)(_mapped(part, change) for part in item)
    if isinstance(item, dict):
        return {key: _mapped(part, change) for key, part in item.items()}
    return change(item)


def references(item: Any) -> Iterator[Reference]:
    """Those in the arguments of an operation."""
    if isinstance(item, Reference):
        yield item
    elif isinstance(item, (tuple, list)):
        for part in item:
            yield from references(part)
    elif isinstance(item, Mapping):
        for part in item.values():
            yield from references(part)
