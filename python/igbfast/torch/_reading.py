"""From recorded operations to layers and residual branches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from torch import Tensor, nn

from ..pools import AvgPool, MaxPool, MinPool, Pool
from ._graph import Before, Branch, Layer
from ._recording import (
    NORMALISATIONS,
    POOLS,
    REARRANGEMENTS,
    Operation,
    Product,
    Record,
    Reference,
    Value,
    references,
)
from ._replay import Functions, Replay

__all__ = ["Reader"]


class Reader:
    """Turns what was recorded into layers and branches."""

    def __init__(self, model: nn.Module, record: Record, count: int) -> None:
        self._record, self._count = record, count
        self._parameters = dict(model.named_parameters(remove_duplicate=False))
        self._modules = dict(model.named_modules(remove_duplicate=False))
        self._uses: dict[str, int] = {}
        self._all_uses: dict[str, int] = {}
        for product in record.products:
            name = product.weight.parameter or ""
            self._all_uses[name] = self._all_uses.get(name, 0) + 1
        self._of_operation = {p.operation.number: p.position + 1 for p in record.products}
        self._of_operation |= {p.sum.number: p.position + 1 for p in record.products if p.sum is not None}
        self._functions = Functions()
        self._ancestor_sets: dict[int, set[int]] = {}
        self.warnings: list[str] = list(self._unread())

    def _unread(self) -> Iterator[str]:
        """Operations on matrices of parameters in which no layer is seen, such as a fused LSTM."""
        values = self._record.values
        for operation in self._record.operations:
            if not operation.sources or operation.pointwise or operation.number in self._of_operation:
                continue
            matrices = [values[r.value] for r in references(operation.args) if len(values[r.value].shape) > 1]
            names = sorted(set().union(*(v.parameters for v in matrices if not v.data)))
            if names and operation.name not in REARRANGEMENTS and operation.name != "embedding":
                yield f"{', '.join(names)}: used by {operation.name.strip('_')}, inside which no layer is seen"

    def layer(self, product: Product) -> Layer:
        """The layer of a recorded product."""
        name, values = product.weight.parameter, self._record.values
        weight_name = name or ", ".join(sorted(product.weight.parameters))
        owner = _owner(weight_name.partition(", ")[0])
        shown = self._shown(owner or weight_name)
        kind = "conv" if "conv" in product.operation.name else "linear" if len(product.weight.shape) == 2 else "product"
        whole = None if name is None else self._parameters.get(name)
        output = values[product.output]
        inner, together, shape = self._layout(output, kind, shown)
        fan_in, fan_out, groups = _fans(product, kind)
        bias = None if product.bias is None else self._parameters.get(product.bias)
        return Layer(
            number=product.position + 1,
            name=shown,
            kind=kind,
            weight=whole,
            weight_name=weight_name,
            bias=bias,
            bias_name=product.bias or "",
            fan_in=fan_in,
            fan_out=fan_out,
            groups=groups,
            transposed=name is not None and kind == "linear" and _stored_transposed(product),
            shape=shape,
            shared=name is not None and self._all_uses[name] > 1,
            before=self._before(product.data),
            owner=self._modules.get(owner),
            weight_variance=product.weight_variance,
            bias_variance=0.0 if bias is None else float(bias.detach().double().square().mean()),
            inner=inner,
            together=together,
        )

    def _shown(self, name: str) -> str:
        use = self._uses[name] = self._uses.get(name, 0) + 1
        shown = name or "(model)"
        return shown if use == 1 else f"{shown} ({use})"

    def _layout(self, output: Value, kind: str, name: str) -> tuple[int, bool, tuple[int, ...]]:
        size, count = math.prod(output.shape), self._count
        each = size // count
        if size % count:
            raise ValueError(f"the output of {name!r} has {size} numbers, which {count} inputs cannot share evenly")
        if output.stride is None:
            self.warnings.append(f"the outputs of {name!r} are taken to lie input by input: their axis is not known")
        inner = output.stride if output.stride and size % (output.stride * count) == 0 else each
        nodes = output.shape[1] if kind == "conv" else output.shape[-1]
        if kind == "conv":
            shape: tuple[int, ...] = output.shape[1:] if output.shape[0] == count else (each,)
        else:
            shape = (each,) if each == nodes or each % nodes else (each // nodes, nodes)
        return inner, inner == each, shape

    # What lies before a layer

    def _before(self, data: Value) -> Before:
        values = self._record.values
        steps: list[Callable[[Tensor], Tensor]] = []
        notes: list[str] = []
        names: list[str] = []
        pool: Pool | None = None
        spatial: list[str] = []
        dropout = 0.0
        at = data
        while True:
            leaf = values[at.leaf]
            replay = Replay(self._record, leaf)
            steps.insert(0, lambda x, r=replay, a=at: r(a, x))  # type: ignore[misc]
            dropout = max(dropout, replay.dropout(at))
            names = replay.names(at) + names
            notes += replay.notes(at)
            operation = leaf.operation
            if operation is None or leaf.layer is not None or operation.name not in POOLS or not operation.sources:
                break
            inside = values[operation.sources[0]]
            found = self._node_pool(operation, inside, leaf)
            if found is None or pool is not None:
                spatial.insert(0, _spatial(operation, inside, leaf))
            else:
                pool = found
            at = inside
        activation, why = self._functions.activation(steps, " ".join(dict.fromkeys(names)))
        return Before(
            source=self._source(leaf),
            layers=tuple(sorted(self._nearest(data))),
            activation=activation,
            pool=pool,
            spatial_pool=", ".join(spatial) or None,
            dropout=dropout,
            note="; ".join(dict.fromkeys([*notes, *([why] if why else [])])),
        )

    def _source(self, leaf: Value) -> str:
        operation = leaf.operation
        if operation is None or operation.name == "embedding":
            return "input"
        if leaf.layer is not None:
            return "layer"
        name = operation.name
        if any(part in name for part in NORMALISATIONS) or self._divides_by_own_size(operation):
            return "normalisation"
        if name in ("bmm", "baddbmm", "mm", "matmul") or "attention" in name:
            return "attention"
        return "sum" if name in ("add", "add_", "sub", "sub_", "cat", "stack", "write") else "other"

    def _divides_by_own_size(self, operation: Operation) -> bool:
        """x * rsqrt(mean(x^2)), as normalisations are written out."""
        if operation.name not in ("mul", "div", "mul_", "div_") or len(operation.sources) != 2:
            return False
        leaves = [self._record.values[self._record.values[s].leaf] for s in operation.sources]
        for one, other in (leaves, leaves[::-1]):
            reduction = other.operation
            if reduction is not None and reduction.name in (
                "mean",
                "var",
                "var_mean",
                "std",
                "linalg_vector_norm",
                "sum",
            ):
                inside = self._record.values[reduction.sources[0]].leaf
                if inside == one.number:
                    return True
        return False

    def _nearest(self, value: Value) -> set[int]:
        """Numbers of the layers from which a path without another layer leads to this value."""
        return self._walk(value, frozenset())[0]

    def _walk(self, value: Value, stop: frozenset[int]) -> tuple[set[int], set[int]]:
        """The nearest layers before a value, and all operations passed on the way; not beyond the values in `stop`."""
        values, found, passed = self._record.values, set(), set()
        open_, seen = [value.number], set(stop)
        while open_:
            number = open_.pop()
            if number in seen:
                continue
            seen.add(number)
            operation = values[number].operation
            if operation is None:
                continue
            layer = self._of_operation.get(operation.number)
            if layer is not None:
                found.add(layer)
                continue
            passed.add(operation.number)
            open_ += operation.sources
        return found, passed

    def _node_pool(self, operation: Operation, inside: Value, outside: Value) -> Pool | None:
        """A pool over nodes, which leaves the positions as they are; None for one over positions."""
        origin = self._record.values[inside.leaf].shape
        size = inside.size // max(outside.size, 1)
        if size < 2 or not outside.shape:
            return None
        convolved = any("conv" in self._record.products[n - 1].operation.name for n in self._nearest(inside))
        if "pool" in operation.name:
            over_nodes = not convolved and outside.shape[-1] * size == origin[-1]
        elif convolved:
            over_nodes = len(origin) > 2 and (outside.shape[1] * size, *outside.shape[2:]) == origin[1:]
        else:
            over_nodes = len(inside.shape) > len(outside.shape) and outside.shape[-1] * size == origin[-1]
        kind = {"max": MaxPool, "min": MinPool, "average": AvgPool}[POOLS[operation.name]]
        return kind(size) if over_nodes else None

    # Residual branches

    def branches(self) -> Iterator[Branch]:
        """The sums of a signal and of what layers make of it."""
        values, number = self._record.values, 0
        for operation in self._record.operations:
            if operation.name not in ("add", "add_") or len(operation.sources) != 2:
                continue
            one, other = (values[s] for s in operation.sources)
            if one.leaf == other.leaf or operation.number in self._of_operation:
                continue
            inside = self._around(one, other)
            if inside is not None:
                number += 1
                yield Branch(number, *inside)

    def _around(self, one: Value, other: Value) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """The layers of whichever side is the branch, and its last ones."""
        sides = [(branch, self._ancestors(shortcut)) for branch, shortcut in ((one, other), (other, one))]
        layers = [self._layers_of(branch, known) for branch, known in sides]
        which = int(len(layers[1]) > len(layers[0]))
        if not layers[which] or not self._common(one, other):
            return None
        branch, known = sides[which]
        last = self._walk(branch, frozenset(known))[0] & layers[which]
        return tuple(sorted(layers[which])), tuple(sorted(last))

    def _ancestors(self, value: Value) -> set[int]:
        """All values before this one, and itself, as far back as residual sums need: to the inputs."""
        cached = self._ancestor_sets.get(value.number)
        if cached is not None:
            return cached
        values, found, open_ = self._record.values, {value.number}, [value.number]
        while open_:
            operation = values[open_.pop()].operation
            if operation is not None:
                new = [s for s in operation.sources if s not in found]
                found.update(new)
                open_ += new
        self._ancestor_sets = {value.number: found}  # the next sum asks for others
        return found

    def _layers_of(self, value: Value, known: set[int]) -> set[int]:
        values, layers, open_, seen = self._record.values, set(), [value.number], set(known)
        while open_:
            number = open_.pop()
            if number in seen:
                continue
            seen.add(number)
            operation = values[number].operation
            if operation is not None:
                layer = self._of_operation.get(operation.number)
                if layer is not None:
                    layers.add(layer)
                open_ += operation.sources
        return layers

    def _common(self, one: Value, other: Value) -> bool:
        """Whether both come from one signal, rather than from different inputs."""
        return bool(self._ancestors(one) & self._ancestors(other))


def _owner(parameter: str) -> str:
    """The name of the layer whose parameter this is."""
    name = parameter.replace("parametrizations.", "")
    for ending in (".original0", ".original1", ".original"):
        name = name.removesuffix(ending)
    for ending in ("_v", "_g", "_orig"):
        name = name.removesuffix(ending)
    head, _, last = name.rpartition(".")
    if last == "weight":
        return head
    return f"{head}.{last.removesuffix('_weight')}".lstrip(".") if last else head


def _fans(product: Product, kind: str) -> tuple[int, int, int]:
    shape = product.weight.shape
    if kind == "conv":
        groups = next(
            (int(a) for a in reversed(product.operation.args) if isinstance(a, int) and not isinstance(a, bool)), 1
        )
        if _is_transposed_convolution(product):
            return shape[0] // groups * math.prod(shape[2:]), shape[1] * math.prod(shape[2:]), groups
        return shape[1] * math.prod(shape[2:]), shape[0] // groups * math.prod(shape[2:]), groups
    if kind == "linear":
        inside = product.data.shape[-1] if product.data.shape[-1] in shape else product.data.shape[0]
        return inside, math.prod(shape) // inside, 1
    return shape[-2], shape[-1], 1


def _is_transposed_convolution(product: Product) -> bool:
    args = product.operation.args
    return product.operation.name in ("convolution", "_convolution") and bool(args[6])


def _stored_transposed(product: Product) -> bool:
    """Whether the parameter has its inputs along its first axis: what is multiplied from the right is it as it is."""
    from_left = (
        product.data.number in product.operation.sources and _first_operand(product.operation) != product.data.number
    )
    return not product.weight.transposed ^ from_left


def _first_operand(operation: Operation) -> int:
    position = 1 if operation.name in ("addmm", "baddbmm", "addmv") else 0
    reference = operation.args[position]
    return reference.value if isinstance(reference, Reference) else -1


def _spatial(operation: Operation, inside: Value, outside: Value) -> str:
    before, after = inside.shape[2:], outside.shape[2:]
    kind = POOLS[operation.name]
    if len(before) == len(after) and before and all(after):
        sizes = [str(max(b // a, 1)) for b, a in zip(before, after, strict=True)]
        return f"{kind} {'x'.join(sizes)}"
    return f"{kind} over positions"
