"""What inputs a caller may give: a number of Gaussian ones, an array in memory or on disk, or chunks one by one.

All are found right or refused here, a slice of some MiB at a time, and reach the compiled core as C-contiguous float32
or float64 of shape (n, features). Nothing large is copied whole. Arrays that lie on a GPU stay there: gpu/_inputs.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _checks, _memory

if TYPE_CHECKING:
    from .gpu._device import Device

__all__ = [
    "MEAN_SQUARES",
    "Chunks",
    "Gaussian",
    "Given",
    "Inputs",
    "Piece",
    "as_inputs",
    "as_labels",
    "checked_rows",
    "described",
    "label_dtype",
    "on_gpu",
    "require_shape",
]

MAX_INPUTS = 2**31

# The weights are drawn anew for every piece: it is large enough that this costs little, and small enough to hold.
_PIECE_ROWS, _LEAST_ROWS, _PIECE_BYTES = 4096, 256, 64 * 2**20
_SMALL = 64 * 2**20  # bytes that may be converted at once

# The squares of a network's numbers have to stay inside the range of its arithmetic, for some layers at least.
MEAN_SQUARES = {"float32": (1e-30, 1e30), "float64": (1e-280, 1e280)}

label_dtype = np.int32


class Piece(NamedTuple):
    """Some of the inputs, as the core takes them, and their labels where they came along."""

    inputs: NDArray[Any]
    labels: NDArray[np.int32] | None


@dataclass(frozen=True)
class Gaussian:
    """So many independent standard Gaussian inputs, as long as the network is wide."""

    count: int
    features: None = None
    mean_square: float = 1.0
    description: str = "independent standard Gaussian"


class Given:
    """An array, or what can be sliced like one; checked as a whole on creation, converted when asked for."""

    def __init__(
        self, source: Any, normalize: bool = False, description: str = "given", dtype: str = "float64"
    ) -> None:
        self.count, self.features = require_shape(source)
        _require_real(source.dtype, "inputs")
        self.source, self.normalize, self.dtype = source, normalize, dtype
        self.description = described(description, normalize)
        self.mean_square = max(_mean_square(piece) for piece in self.slices())

    @property
    def ready(self) -> bool:
        """Whether the core can take the array as it is, be it in memory or mapped from a file."""
        a = self.source
        if self.normalize or not isinstance(a, np.ndarray) or a.dtype not in (np.float32, np.float64):
            return False
        return bool(a.dtype.isnative and a.flags.c_contiguous and a.flags.aligned)

    @property
    def copied_bytes(self) -> int:
        """Memory that a converted copy of all takes; none where the array is ready."""
        return 0 if self.ready else self.count * self.features * _converted_size(self.source.dtype)

    @property
    def small(self) -> bool:
        """Whether all of it may go to the core at once."""
        return self.copied_bytes <= _SMALL

    def whole(self) -> NDArray[Any]:
        """All inputs at once."""
        if self.ready:
            return np.asarray(self.source).reshape(self.count, self.features)
        all_rows = np.empty((self.count, self.features), f"f{_converted_size(self.source.dtype)}")
        begin = 0
        for piece in self.slices():
            all_rows[begin : begin + len(piece)] = piece
            begin += len(piece)
        return all_rows

    def slices(self) -> Iterator[NDArray[Any]]:
        """All inputs, some at a time, checked."""
        yield from _slices(self.source, self.features, self.normalize, "", self.dtype)

    @property
    def tensor_bytes(self) -> int:
        """What `tensor` takes."""
        return self.count * self.features * _converted_size(self.source.dtype)

    def tensor(self, device: Device) -> Any:
        """All inputs as a tensor of PyTorch's on that device, (n, features), float32 or float64."""
        import torch

        kind = torch.float32 if _converted_size(self.source.dtype) == 4 else torch.float64
        rows = torch.empty(self.count, self.features, dtype=kind, device=device.torch)
        begin = 0
        for piece in self.slices():
            rows[begin : begin + len(piece)] = torch.from_numpy(piece if piece.flags.writeable else piece.copy())
            begin += len(piece)
        return rows


@dataclass
class Chunks:
    """Inputs that come one chunk after the other from any iterable; looked at as they come.

    The first piece is taken on creation, so that what is wrong there is found before any work. Whatever can be iterated
    afresh can be run again; an iterator or a generator cannot.
    """

    source: Iterable[Any]
    normalize: bool = False
    classes: int = 0
    """Of the labels that may come along with a chunk; 0: they are left aside."""
    labels: NDArray[np.int32] | None = None
    """One array for all inputs."""
    dtype: str = "float64"
    """Of the arithmetic that is to take them."""
    from_gpu: bool = False
    """Whether chunks may lie on a GPU; they go through this machine's memory."""
    count: int = 0
    """Inputs seen so far, in the last pass."""
    features: int = 0
    with_labels: bool = field(init=False, default=False)
    """Whether labels came along."""
    mean_square: float = field(init=False)
    """Largest |x|^2 / features in the first piece."""

    def __post_init__(self) -> None:
        self._begun: Iterator[Piece] | None = self._regrouped()
        self._first = next(self._begun)
        self.mean_square = _mean_square(self._first.inputs)

    @property
    def description(self) -> str:
        """What they are, as the attribute `input_data` says it."""
        return described("given in chunks", self.normalize)

    @property
    def piece_rows(self) -> int:
        """The most inputs that come at once."""
        return len(self._first.inputs)

    @property
    def again(self) -> bool:
        """Whether all of it can be had once more."""
        return self._begun is not None or iter(self.source) is not self.source

    def pieces(self) -> Iterator[Piece]:
        """All inputs, in pieces of a size that suits the core."""
        if self._begun is None:
            yield from self._regrouped()
            return
        rest, self._begun = self._begun, None
        yield self._first
        yield from rest

    def gathered(self) -> tuple[Given, NDArray[np.int32] | None]:
        """All of it in memory, if that has room."""
        held: list[Piece] = []
        total = 0
        for piece in self.pieces():
            held.append(_kept(piece))
            total += piece.inputs.nbytes
            available = _memory.available_memory()
            if available is not None and total > available:  # which the pieces held have already been taken from
                raise ValueError(
                    f"inputs do not fit into memory: the first {self.count} of them take {_memory.gib(total)} and "
                    f"{_memory.gib(available)} are left for as much again; use method='direct', which takes them chunk "
                    "by chunk"
                )
        labels = [piece.labels for piece in held if piece.labels is not None]
        inputs = np.concatenate([piece.inputs for piece in held])
        return Given(inputs, description=self.description, dtype=self.dtype), np.concatenate(labels) if labels else None

    def _regrouped(self) -> Iterator[Piece]:
        """The rows of the chunks in pieces of equal size, but for the last."""
        self.count = 0
        held: list[Piece] = []
        rows = 0
        for piece in self._checked():
            rows += len(piece.inputs)
            most = _piece_rows(self.features)
            held.append(piece if rows >= most else _kept(piece))
            while rows >= most:
                full = _joined(held)
                yield _part(full, 0, most)
                held, rows = [_kept(_part(full, most, rows))], rows - most
        if self.count == 0:
            raise ValueError("inputs must hold chunks of shape (n, features), got an iterable with nothing in it")
        if self.count < 2:
            raise ValueError("inputs must be at least 2, got a single one in all chunks together")
        if self.labels is not None and len(self.labels) > self.count:
            raise ValueError(
                f"labels must be {self.count} integers, one for each input of all chunks, got {len(self.labels)}"
            )
        if rows:
            yield _joined(held)

    def _checked(self) -> Iterator[Piece]:
        """Slices of the chunks, converted, and each found right."""
        for number, chunk in enumerate(self.source):
            inputs, labels = _taken_apart(chunk, number, self.from_gpu)
            features = int(np.prod(inputs.shape[1:], dtype=np.int64))
            if number == 0:
                self.features = features
            elif features != self.features:
                raise ValueError(f"chunk {number} of inputs has {features} features, but chunk 0 has {self.features}")
            given = self._labels_of(number, len(inputs), labels)
            if number and self.with_labels != (given is not None):
                raise ValueError(
                    f"chunk {number} of inputs has {'no ' * self.with_labels}labels, unlike those before it"
                )
            self.with_labels = given is not None
            begin = 0
            for piece in _slices(inputs, features, self.normalize, f" of chunk {number}", self.dtype):
                end = begin + len(piece)
                self.count += len(piece)
                yield Piece(piece, None if given is None else given[begin:end])
                begin = end

    def _labels_of(self, number: int, rows: int, labels: object) -> NDArray[np.int32] | None:
        if not self.classes:
            return None
        if self.labels is None:
            return None if labels is None else as_labels(labels, self.classes, rows, f"the labels of chunk {number}")
        if labels is not None:
            raise ValueError(f"labels came twice: as an argument, and with chunk {number} of inputs")
        end = self.count + rows
        if end > len(self.labels):
            raise ValueError(
                f"labels must be as many as there are inputs, got {len(self.labels)}, "
                f"but chunk {number} ends at input {end}"
            )
        return self.labels[self.count : end]


Inputs = Gaussian | Given | Chunks


def as_inputs(
    inputs: object,
    normalize: bool = False,
    classes: int = 0,
    labels: object = None,
    dtype: str = "float64",
    devices: Sequence[Device] = (),
) -> tuple[Inputs, NDArray[np.int32] | None]:
    """What a caller gave as inputs and labels, checked as far as it is there.

    classes: 0 where no labels are asked for; those that come along with chunks are then left aside.
    dtype: of the arithmetic that is to take the inputs, which must not leave its range.
    devices: the GPUs that are to take the inputs; none: the CPU.
    """
    _refuse(inputs, "inputs", "a number of inputs or an array of shape (n, features)")
    if devices:
        labels = _on_host(labels) if on_gpu(labels) else labels
    if _is_chunks(inputs):
        _refuse_pair(inputs)
        given = None if labels is None else as_labels(labels, classes, None)
        return Chunks(inputs, normalize, classes, given, dtype, bool(devices)), None  # type: ignore[arg-type]
    if devices:
        from .gpu._inputs import Resident, lies_on

        if lies_on(inputs, devices):
            resident = Resident(inputs, devices, normalize, dtype=dtype)
            return resident, None if labels is None else as_labels(labels, classes, resident.count)
    _refuse_of_gpu(inputs, "inputs")
    source = _as_array(inputs)
    if source is None:
        found: Inputs = Gaussian(_input_count(inputs))
        if normalize:
            raise ValueError("normalize=True is for given inputs, got a number of Gaussian ones")
    else:
        found = Given(source, normalize, dtype=dtype)
    return found, None if labels is None else as_labels(labels, classes, found.count)


def as_labels(labels: object, classes: int, count: int | None, name: str = "labels") -> NDArray[np.int32]:
    """Class numbers of so many inputs (None: of any number of them)."""
    allowed = f"{name} must be integers from 0 to {classes - 1}"
    try:
        array = np.asarray(labels)
    except (ValueError, TypeError, RuntimeError) as error:
        raise TypeError(f"{allowed}, got {_checks.shown(labels)}: {error}") from None
    if array.ndim != 1:
        kind = ValueError if array.ndim else TypeError
        raise kind(f"{allowed}, one for each input, got {_shown(array if array.ndim else labels)}")
    if array.dtype.kind not in "iu" and array.size:
        wrong = next((i for i, label in enumerate(array) if not isinstance(label, (int, np.integer))), 0)
        raise TypeError(f"{allowed}, got {_checks.shown(array[wrong])} at position {wrong} (dtype {array.dtype})")
    allowed_here = (array >= 0) & (array < classes)
    if not allowed_here.all():
        wrong = int(np.argmin(allowed_here))
        raise ValueError(f"{allowed}, got {array[wrong]} at position {wrong}")
    if count is not None and len(array) != count:
        raise ValueError(f"{name} must be {count} integers, one for each input, got {len(array)}")
    return np.ascontiguousarray(array, label_dtype)


# ---- What a caller may mean ------------------------------------------------------------------------------------------


def _is_chunks(value: object) -> bool:
    """Whether it is to be iterated: no array itself, and, where it is a list, with arrays of two dimensions in it."""
    if _is_array(value) or isinstance(value, (str, bytes, Mapping)):
        return False
    if isinstance(value, (list, tuple)):
        return bool(value) and _is_chunk(value[0])
    return isinstance(value, Iterable)


def _is_chunk(value: object) -> bool:
    if isinstance(value, (list, tuple)) and 1 <= len(value) <= 2:
        value = value[0]
    return _is_array(value) and len(getattr(value, "shape", ())) >= 2


def _is_array(value: object) -> bool:
    known = ("__array__", "__array_interface__", "__dlpack__", "__cuda_array_interface__")
    return any(hasattr(value, name) for name in known) or _is_lazy(value)


def on_gpu(value: object) -> bool:
    """Whether it is an array in the memory of a GPU: PyTorch's, CuPy's, JAX's, Numba's."""
    where = getattr(value, "__dlpack_device__", None)
    if where is None:
        return hasattr(value, "__cuda_array_interface__")
    try:
        return where()[0] in _DLPACK_CUDA
    except (TypeError, ValueError, RuntimeError, BufferError):  # a class, or memory that nobody can share
        return False


_DLPACK_CUDA = (2, 13)  # memory of a GPU, and managed memory


def _on_host(array: Any) -> NDArray[Any]:
    """A copy in this machine's memory of what lies on a GPU."""
    from .gpu._inputs import as_tensor

    copy: NDArray[Any] = as_tensor(array).cpu().numpy()
    return copy


def _refuse_of_gpu(value: object, name: str) -> None:
    if on_gpu(value):
        raise TypeError(
            f"{name} must lie in this machine's memory for device='cpu', got a {type(value).__name__} on a GPU: use "
            "device='cuda', or copy it to the CPU"
        )


def _is_lazy(value: object) -> bool:
    """Whether it can be sliced without reading all of it, as data sets of files can."""
    return isinstance(getattr(value, "dtype", None), np.dtype) and all(
        hasattr(value, name) for name in ("shape", "__getitem__")
    )


def _as_array(inputs: object) -> Any:
    """Something with shape, dtype and slices of rows; None for a single number, or what is none of all this."""
    if _is_lazy(inputs):
        return inputs if getattr(inputs, "shape", ()) else None
    try:
        array = _asarray(inputs)
    except ValueError:  # rows of unequal length
        raise ValueError("inputs must be a number or an array of shape (n, features), got rows that differ") from None
    except (TypeError, RuntimeError) as error:  # tensors that are not in this memory, or belong to a graph
        raise TypeError(f"inputs cannot be read as an array: {error}") from None
    return array if array.ndim else None


def _asarray(value: Any) -> NDArray[Any]:
    """Of all that says how it lies in memory, without a copy."""
    only_dlpack = hasattr(value, "__dlpack__") and not hasattr(value, "__array__")
    array: NDArray[Any] = np.from_dlpack(value) if only_dlpack else np.asarray(value)
    return array


def _refuse(value: object, name: str, allowed: str) -> None:
    """What looks like an array, or could be meant as one, but is none."""
    if hasattr(value, "toarray") and hasattr(value, "nnz"):
        raise TypeError(f"{name} must be {allowed}, got a sparse one ({type(value).__name__}): use .toarray()")
    text = value[0] if isinstance(value, (list, tuple)) and value else value
    if isinstance(text, (str, bytes, os.PathLike)):
        got = _checks.shown(text)
        raise TypeError(f"{name} must be {allowed}, got {got}; numpy.load(name, mmap_mode='r') maps a file")


def _refuse_pair(inputs: object) -> None:
    """(x, labels) without a list around it would be two chunks, of which the second is none."""
    if not isinstance(inputs, (list, tuple)) or len(inputs) != 2 or not _is_array(inputs[0]):
        return
    labels = inputs[1]
    listed = isinstance(labels, (list, tuple)) and all(isinstance(label, int) for label in labels)
    if listed or (_is_array(labels) and len(getattr(labels, "shape", ())) == 1):
        raise ValueError(
            "inputs must be chunks of shape (n, features), got one chunk, and then something of one dimension: labels "
            "go beside them, inputs=x, labels=labels, or come in pairs, inputs=[(x, labels)]"
        )


def _input_count(inputs: object) -> int:
    try:
        return _checks.integer("inputs", inputs, 2, MAX_INPUTS)
    except TypeError:
        raise TypeError(
            "inputs must be a number of inputs (an integer of at least 2), an array of shape (n, features) or an "
            f"iterable of such arrays, got {_checks.shown(inputs)}"
        ) from None


def _taken_apart(chunk: object, number: int, from_gpu: bool) -> tuple[Any, object]:
    """Inputs and labels (or None) of one chunk: an array, or a pair of both as data loaders give it."""
    labels: object = None
    if _is_chunk(chunk) and isinstance(chunk, (list, tuple)):
        chunk, labels = chunk if len(chunk) == 2 else (chunk[0], None)
    name = f"chunk {number} of inputs"
    _refuse(chunk, name, "an array of shape (n, features)")
    if from_gpu:
        chunk, labels = (_on_host(part) if on_gpu(part) else part for part in (chunk, labels))
    _refuse_of_gpu(chunk, name)
    try:
        array: Any = chunk if _is_lazy(chunk) else _asarray(chunk)
    except (ValueError, TypeError, RuntimeError) as error:
        raise TypeError(f"{name} cannot be read as an array of shape (n, features): {error}") from None
    shape = tuple(array.shape)
    if len(shape) < 2 or 0 in shape[1:]:
        raise ValueError(f"{name} must be an array of shape (n, features), got {_shown(chunk, shape)}")
    if shape[0] == 0:
        raise ValueError(f"{name} is empty: its shape is {shape}")
    _require_real(array.dtype, name)
    return array, labels


def _shown(value: object, shape: tuple[int, ...] | None = None) -> str:
    shape = tuple(getattr(value, "shape", ())) if shape is None else shape
    return f"an array of shape {shape}" if shape else _checks.shown(value)


# ---- Slices ----------------------------------------------------------------------------------------------------------


def _slices(source: Any, features: int, normalize: bool, where: str, dtype: str) -> Iterator[NDArray[Any]]:
    """Rows in the form that the core takes, checked; `where` says in errors which chunk they belong to."""
    rows = _piece_rows(features)
    for begin in range(0, source.shape[0], rows):
        piece = np.asarray(source[begin : begin + rows])
        piece = _floats(piece.reshape(len(piece), features))
        yield checked_rows(piece, begin, where, normalize, dtype)


def checked_rows(piece: NDArray[Any], begin: int, where: str, normalize: bool, dtype: str) -> NDArray[Any]:
    """Rows that numbers from `begin` on name, found finite and in range, or scaled."""
    _require_finite(piece, begin, where)
    return _normalized(piece, begin, where) if normalize else _bounded(piece, begin, where, dtype)


def _piece_rows(features: int) -> int:
    return int(np.clip(_PIECE_BYTES // (8 * max(features, 1)), _LEAST_ROWS, _PIECE_ROWS))


def _converted_size(dtype: np.dtype[Any]) -> int:
    """Bytes of a number once it is converted: float32 holds all of the short integers."""
    return 4 if dtype.itemsize <= (2 if dtype.kind in "iu" else 4) else 8


def _floats(piece: NDArray[Any]) -> NDArray[Any]:
    kind = np.float32 if _converted_size(piece.dtype) == 4 else np.float64
    with np.errstate(over="ignore"):  # of numbers longer than a double
        return np.require(piece, kind, ["C", "A"])


def require_shape(source: Any) -> tuple[int, int]:
    """Number of inputs and features of an array, where further dimensions count as features."""
    shape = tuple(int(size) for size in source.shape)
    if len(shape) < 2 or shape[0] < 2 or 0 in shape:
        raise ValueError(
            f"inputs must be a number, or an array of shape (n, features) with n >= 2 and features >= 1, "
            f"got an array of shape {shape}"
        )
    return shape[0], int(np.prod(shape[1:], dtype=np.int64))


def _require_real(dtype: Any, name: str) -> None:
    if np.dtype(dtype).kind not in "iuf":
        raise TypeError(f"{name} must be real numbers, got dtype {dtype}")


def _require_finite(piece: NDArray[Any], begin: int, where: str) -> None:
    if np.isfinite(piece).all():
        return
    row, column = (int(index) for index in np.argwhere(~np.isfinite(piece))[0])
    raise ValueError(f"inputs must be finite, got {piece[row, column]} in row {begin + row}, column {column}{where}")


def _bounded(piece: NDArray[Any], begin: int, where: str, dtype: str) -> NDArray[Any]:
    """The rows, if the squares of each are well inside the range of the arithmetic; zeros are."""
    squares = _squares(piece) / piece.shape[1]
    allowed = _inside(squares, dtype)
    if allowed.all():
        return piece
    allowed |= ~piece.any(axis=1)
    if allowed.all():
        return piece
    row = int(np.argmin(allowed))
    low, high = MEAN_SQUARES[dtype]
    remedy = "rescale them, or use normalize=True"
    if dtype != "float64" and _inside(squares[row], "float64"):
        remedy += " or dtype='float64'"
    raise ValueError(
        f"inputs must have a mean square from {low:g} to {high:g} with dtype={dtype!r}, or be zero, "
        f"but that of row {begin + row}{where} is {squares[row]:.3g}: {remedy}"
    )


def _inside(squares: Any, dtype: str) -> NDArray[np.bool_]:
    low, high = MEAN_SQUARES[dtype]
    return np.asarray((squares >= low) & (squares <= high))


def _normalized(piece: NDArray[Any], begin: int, where: str) -> NDArray[Any]:
    """Each row scaled to |x|^2 / features = 1; its largest number goes first, so that no square overflows."""
    largest = np.abs(piece).max(axis=1, keepdims=True).astype(np.float64)
    if not largest.all():
        row = begin + int(np.argmin(largest))
        raise ValueError(f"inputs must not be zero with normalize=True, but row {row}{where} is")
    scaled = piece / largest
    scaled /= np.sqrt(_squares(scaled) / piece.shape[1])[:, None]
    converted: NDArray[Any] = scaled.astype(piece.dtype, copy=False)
    return converted


def _squares(piece: NDArray[Any]) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):
        squares: NDArray[np.float64] = np.einsum("ij,ij->i", piece, piece, dtype=np.float64)
    return squares


def _mean_square(piece: NDArray[Any]) -> float:
    largest = float(_squares(piece).max())
    return largest / int(piece.shape[1])


def _joined(held: list[Piece]) -> Piece:
    if len(held) == 1:
        return held[0]
    labels = [piece.labels for piece in held if piece.labels is not None]
    return Piece(np.concatenate([piece.inputs for piece in held]), np.concatenate(labels) if labels else None)


def _kept(piece: Piece) -> Piece:
    """A copy: what chunks are made in may be written to again when the next one is asked for."""
    return Piece(piece.inputs.copy(), None if piece.labels is None else piece.labels.copy())


def _part(piece: Piece, begin: int, end: int) -> Piece:
    return Piece(piece.inputs[begin:end], None if piece.labels is None else piece.labels[begin:end])


def described(what: str, normalize: bool) -> str:
    """The attribute `input_data`."""
    return f"{what}, each scaled to |x|^2 / features = 1" if normalize else what
