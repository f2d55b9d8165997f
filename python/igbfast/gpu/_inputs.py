"""Inputs that lie on a GPU already, or on what the tests use for one: checked there, and taken without a copy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from .. import _inputs
from .._inputs import Given, checked_rows, described, on_gpu, require_shape
from ._device import Device

__all__ = ["Resident", "as_tensor", "lies_on"]

_SLICE = 1 << 28  # bytes that are checked at a time

# What NumPy's rules (`_inputs.py`) say of these types: float32 holds the short integers.
_TO_SINGLE = (torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.int16)
_TO_DOUBLE = (torch.int32, torch.int64)


def lies_on(value: object, devices: Sequence[Device]) -> bool:
    """Whether it is an array in memory of that kind."""
    if isinstance(value, torch.Tensor):
        return bool(value.device.type == devices[0].torch.type)
    return on_gpu(value)


def as_tensor(value: Any) -> Any:
    """An array on a GPU as a tensor of PyTorch's in the same memory."""
    if isinstance(value, torch.Tensor):
        return value.detach()
    if hasattr(value, "__dlpack__"):
        return torch.from_dlpack(value)
    return torch.as_tensor(value, device="cuda")  # by __cuda_array_interface__


class Resident(Given):
    """An array on a device, checked there as a whole on creation."""

    def __init__(
        self,
        source: Any,
        devices: Sequence[Device],
        normalize: bool = False,
        description: str = "given",
        dtype: str = "float64",
    ) -> None:
        tensor = as_tensor(source)
        self.count, self.features = require_shape(tensor)
        tensor = _real(tensor).reshape(self.count, self.features).contiguous()
        self.source = _normalized(tensor, dtype) if normalize else tensor
        self.normalize, self.dtype = False, dtype
        self.description = described(description, normalize)
        self.mean_square = max(_mean_squares(self.source, dtype))

    @property
    def ready(self) -> bool:
        """The engines take it as it is."""
        return True

    def whole(self) -> Any:
        """The tensor, where it is."""
        return self.source

    def slices(self) -> Iterator[Any]:
        """All inputs, some at a time, in this machine's memory."""
        rows = _inputs._piece_rows(self.features)
        for piece in self.source.split(rows):
            yield piece.cpu().numpy()

    @property
    def tensor_bytes(self) -> int:
        """Beside what the caller holds: a copy for another device."""
        return 0

    def tensor(self, device: Device) -> Any:
        """All inputs on that device: the caller's own memory if they are there."""
        return self.source.to(device.torch)


def _real(tensor: Any) -> Any:
    if tensor.dtype in (torch.float32, torch.float64):
        return tensor
    if tensor.dtype in _TO_SINGLE:
        return tensor.float()
    if tensor.dtype in _TO_DOUBLE:
        return tensor.double()
    raise TypeError(f"inputs must be real numbers, got dtype {tensor.dtype}")


def _parts(tensor: Any) -> Iterator[tuple[int, Any]]:
    rows = max(1, _SLICE // (tensor.shape[1] * tensor.element_size()))
    for begin in range(0, tensor.shape[0], rows):
        yield begin, tensor[begin : begin + rows]


def _mean_squares(tensor: Any, dtype: str) -> Iterator[float]:
    """The largest |x|^2 / features of each slice, whose rows are found finite and in range."""
    low, high = _inputs.MEAN_SQUARES[dtype]
    for begin, piece in _parts(tensor):
        squares = torch.linalg.vector_norm(piece, dim=1, dtype=torch.float64).square() / tensor.shape[1]
        allowed = (squares >= low) & (squares <= high) | (piece == 0).all(1)  # no comparison with nan is true
        _require(allowed, piece, begin, False, dtype)
        yield float(squares.max())


def _normalized(tensor: Any, dtype: str) -> Any:
    """Each row scaled to |x|^2 / features = 1; its largest number goes first, so that no square overflows."""
    scaled = torch.empty_like(tensor)
    for begin, piece in _parts(tensor):
        largest = piece.abs().amax(1, keepdim=True).double()
        _require((largest[:, 0] > 0) & torch.isfinite(largest[:, 0]), piece, begin, True, dtype)
        rows = piece / largest
        rows /= (rows.square().mean(1, keepdim=True)).sqrt()
        scaled[begin : begin + len(piece)] = rows
    return scaled


def _require(allowed: Any, piece: Any, begin: int, normalize: bool, dtype: str) -> None:
    """The first row that is not allowed goes to the CPU, whose checks say what is wrong with it."""
    if not bool(allowed.all()):
        row = int((~allowed).int().argmax())
        checked_rows(piece[row : row + 1].cpu().numpy(), begin + row, "", normalize, dtype)
