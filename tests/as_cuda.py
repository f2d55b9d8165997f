"""GPUs for PyTorch on a machine that has none: tensors whose device is cuda:N, with their numbers in ordinary memory.

What PyTorch says of a GPU's tensors, it says of these: `.device` and `.is_cuda`; `.numpy()` is refused; an operation of
tensors on different devices raises, and so do indices on a GPU for a tensor that is on none, products of integers, and
whatever needs CUDA itself. Empty memory is full of nan. The kernels (those compiled for the host) are given addresses
of live memory of their device alone. Copies are done at once: what would happen too early or too late is not seen.

    with Gpus(2, kernels) as gpus:
        x = torch.ones(3, device="cuda:1")
        igbfast.simulate(..., device=...)  # where gpu._device.find gives gpus.devices
"""

from __future__ import annotations

import ctypes
import threading
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock
from weakref import WeakValueDictionary

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from igbfast.gpu._device import Device

aten = torch.ops.aten

# These may be given tensors on any device.
_COPIES = {aten.copy_.default, aten._to_copy.default}
# Indices may be on the CPU, though what they index is on a GPU.
_INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
# A single number on the CPU will do beside what is on a GPU, here and in all that goes element by element.
_TAKE_A_NUMBER = {*_INDEXING, aten.fill_.Tensor, aten.masked_fill.Tensor, aten.masked_fill_.Tensor}
_MULTIPLY = {aten.mm, aten.bmm, aten.addmm, aten.baddbmm, aten.baddbmm_, aten.addmm_, aten.addbmm}
_EMPTY = {aten.empty, aten.empty_like, aten.new_empty, aten.empty_strided, aten.new_empty_strided}

_ADDRESSES = 1 << 40  # numbers that kernels are given are addresses from here on; memory below goes unchecked


class Memory:
    """What one storage on a GPU takes, alive as long as some tensor there uses it."""

    def __init__(self, begin: int, end: int, device: torch.device) -> None:
        self.begin, self.end, self.device = begin, end, device


waits: list[str] = []
"""Operations that had the host wait for a GPU."""

_live: WeakValueDictionary[int, Memory] = WeakValueDictionary()  # by where it begins


class GpuTensor(torch.Tensor):
    """A tensor on a GPU to PyTorch; `numbers` is one on the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, numbers: torch.Tensor, device: torch.device) -> GpuTensor:
        return torch.Tensor._make_wrapper_subclass(
            cls,
            numbers.shape,
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            device=device,
        )

    def __init__(self, numbers: torch.Tensor, device: torch.device) -> None:
        self.numbers = numbers
        storage = numbers.untyped_storage()
        begin = storage.data_ptr()
        self.memory = _live.get(begin) or Memory(begin, begin + storage.nbytes(), device)
        if begin:
            _live[begin] = self.memory

    def data_ptr(self) -> int:
        return self.numbers.data_ptr()

    def numpy(self, **_: Any) -> Any:
        raise TypeError(f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() to copy first")

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"{self.numbers!r} on {self.device}"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _do(func, args, kwargs or {})


class _Numbered(TorchFunctionMode):
    """`cuda` is `cuda:0`: asked which device is the current one, a PyTorch without CUDA would say the CPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.device:
            return func(*args, **kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            args, kwargs = _mapped(_numbered, (args, kwargs))
            if func is torch.Tensor.cuda:
                func, args = torch.Tensor.to, (args[0], *(args[1:] or (torch.device("cuda", 0),)))
            return func(*args, **kwargs)


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _do(func, args, kwargs or {})


# ---- Operations ------------------------------------------------------------------------------------------------------


def _do(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [each for each in _leaves((args, tuple(kwargs.values()))) if isinstance(each, torch.Tensor)]
    device = _device_of(func, args, tensors)
    if _waits(func, tensors, kwargs):
        waits.append(str(func))
    kwargs = dict(kwargs)
    kwargs.pop("pin_memory", None)
    if kwargs.get("device") is not None:
        device = _numbered(kwargs["device"])
        kwargs["device"] = torch.device("cpu")
    if device.type == "cuda" and func.overloadpacket in _MULTIPLY and not tensors[-1].is_floating_point():
        raise RuntimeError(f'"addmm_cuda" not implemented for {tensors[-1].dtype}')
    args_there, kwargs_there = _mapped(
        lambda each: each.numbers if isinstance(each, GpuTensor) else each, (args, kwargs)
    )
    found = (_baddbmm if _is_mixed_product(func) else func)(*args_there, **kwargs_there)
    if device.type == "cpu":
        return found
    if func.overloadpacket in _EMPTY:
        found.fill_(torch.nan if found.is_floating_point() else 85)
    written = _written(func, args, kwargs)
    if written is not None:
        return written
    return _mapped(lambda each: GpuTensor(each, device) if isinstance(each, torch.Tensor) else each, found)


def _leaves(value: Any) -> Iterator[Any]:
    """What is in tuples and lists."""
    if not isinstance(value, (tuple, list)):
        yield value
        return
    for each in value:
        yield from _leaves(each)


def _mapped(function: Any, value: Any) -> Any:
    """The same tuples, lists and dicts, of what the function makes of what is in them."""
    if isinstance(value, dict):
        return {name: _mapped(function, each) for name, each in value.items()}
    if isinstance(value, (tuple, list)):
        found = [_mapped(function, each) for each in value]
        return found if isinstance(value, list) else tuple(found)
    return function(value)


def _numbered(value: Any) -> Any:
    if not isinstance(value, (str, torch.device)) or str(value) != "cuda":
        return value
    return torch.device("cuda", 0)


@contextmanager
def _guard() -> Iterator[None]:
    """What sets the current device before an operation on a GPU: nothing, where PyTorch has no CUDA."""
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    guards = (ctypes.c_void_p * 2).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")  # of CPU and CUDA
    before = guards[1]
    guards[1] = before or guards[0]
    try:
        yield
    finally:
        guards[1] = before


def _device_of(func: Any, args: Any, tensors: list[torch.Tensor]) -> torch.device:
    """Where the result is to be; raises what PyTorch raises where it cannot be anywhere."""
    if func in _COPIES:
        return tensors[0].device
    if func in _INDEXING:
        _require_one(func, [args[0], *(index for index in args[1] if index is not None)], args[0].device)
        tensors = [args[0], *args[2:3]]
    where = next((each.device for each in tensors if each.device.type == "cuda"), torch.device("cpu"))
    if where.type == "cuda":
        numbers = torch.Tag.pointwise in func.tags or func in _TAKE_A_NUMBER
        _require_one(func, [each for each in tensors if not (numbers and _is_number(each))], where)
        for given, value in zip(func._schema.arguments, args, strict=False):
            if given.alias_info is not None and given.alias_info.is_write and isinstance(value, torch.Tensor):
                _require_one(func, [value], where)
    return where


def _waits(func: Any, tensors: list[torch.Tensor], kwargs: dict[str, Any]) -> bool:
    """Numbers go to the host or come from it; how many there will be is found out on a GPU."""
    on_gpu = {each.is_cuda for each in tensors}
    if func in _COPIES and kwargs.get("device") is not None:
        on_gpu.add(kwargs["device"].type == "cuda")
    if func in _COPIES or func in _INDEXING:
        masked = func in _INDEXING and any(each.dtype == torch.bool for each in tensors)
        return True in on_gpu and (masked or (False in on_gpu and not kwargs.get("non_blocking", False)))
    return True in on_gpu and func in (aten._local_scalar_dense.default, aten.nonzero.default)


def _is_number(tensor: torch.Tensor) -> bool:
    return tensor.dim() == 0 and tensor.device.type == "cpu"


def _require_one(func: Any, tensors: list[torch.Tensor], where: torch.device) -> None:
    """All on that device; indices, which come behind what they index, may be on the CPU."""
    for number, tensor in enumerate(tensors):
        index = func in _INDEXING and number > 0 and tensor.dtype in (torch.int64, torch.int32, torch.bool, torch.uint8)
        if tensor.device != where and not (index and tensor.device.type == "cpu"):
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, {where} and "
                f"{tensor.device}! (when checking {func})"
            )


def _written(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What an operation in place returns: what it was given."""
    into = []
    for number, given in enumerate(func._schema.arguments):
        if given.alias_info is not None and given.alias_info.is_write:
            into.append(kwargs[given.name] if given.name in kwargs else args[number])
    return None if not into else into[0] if len(into) == 1 else tuple(into)


def _is_mixed_product(func: Any) -> bool:
    return func.overloadpacket is aten.baddbmm and "dtype" in func._overloadname


def _baddbmm(first: Any, a: Any, b: Any, dtype: Any, *, beta: float = 1.0, alpha: float = 1.0, out: Any = None) -> Any:
    """Products of short numbers summed in long ones, which the CPU has not."""
    assert a.dtype == b.dtype
    assert dtype == torch.float32 == first.dtype
    found = alpha * torch.bmm(a.float(), b.float()) + (beta * first if beta else 0.0)
    return found if out is None else out.copy_(found)


# ---- GPUs ------------------------------------------------------------------------------------------------------------


class CheckedDevice(Device):
    """Kernels have no other addresses than those of tensors that are alive on their device."""

    def call(self, name: str, *args: Any) -> Any:
        begins = sorted(_live.data)  # in one step: other threads make tensors, too
        for number in _leaves(args):
            if not isinstance(number, int) or number < _ADDRESSES:
                continue
            at = bisect_right(begins, number) - 1
            memory = _live.get(begins[at]) if at >= 0 else None
            if memory is None or number >= memory.end:
                raise RuntimeError(f"{name} was given an address that is none of a GPU's")
            if memory.device != self.torch:
                raise RuntimeError(f"{name} on {self.torch} was given an address on {memory.device}")
        self.streams.add((self.index, self.stream))
        return super().call(name, *args)

    @property
    def streams(self) -> set[tuple[int, int]]:
        """Numbers of the devices and streams that kernels have been started on."""
        found: set[tuple[int, int]] = self.kernels.streams
        return found


class Gpus:
    """So many GPUs, as long as the context lasts."""

    def __init__(self, count: int, kernels: Any) -> None:
        self.streams: set[tuple[int, int]] = set()
        module = _Kernels(kernels, self.streams)
        self.devices = [CheckedDevice(torch.device("cuda", number), module) for number in range(count)]
        self._exits = ExitStack()
        self._of_thread = threading.local()

    def __enter__(self) -> Gpus:
        self._exits.enter_context(_guard())
        instead = {
            "_lazy_init": lambda: None,
            "current_stream": self._current_stream,
            "stream": self._on_stream,
            "mem_get_info": lambda device: self.devices[0].kernels.memory(device.index or 0),
            "memory_reserved": lambda device: 0,
            "memory_allocated": lambda device: 0,
        }
        for name, function in instead.items():
            self._exits.enter_context(mock.patch.object(torch.cuda, name, function))
        self._exits.enter_context(self.in_thread())
        return self

    def __exit__(self, *error: object) -> None:
        self._exits.close()

    @contextmanager
    def in_thread(self) -> Iterator[None]:
        """This thread's tensors are made by the rules above: modes of PyTorch's are those of a thread."""
        if getattr(self._of_thread, "entered", False):
            yield
            return
        self._of_thread.entered = True
        lifts = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor: made on the CPU, then moved
        try:
            with _Numbered(), _Mode():
                yield
        finally:
            torch._C._set_only_lift_cpu_tensors(lifts)
            self._of_thread.entered = False

    @staticmethod
    def new_stream(device: str, number: int) -> Any:
        """A stream of that number."""
        return SimpleNamespace(device=torch.device(device), cuda_stream=number)

    def _current(self) -> dict[torch.device, Any]:
        if not hasattr(self._of_thread, "streams"):
            self._of_thread.streams = {}
        found: dict[torch.device, Any] = self._of_thread.streams
        return found

    def _current_stream(self, device: torch.device) -> Any:
        return self._current().get(device, self.new_stream(str(device), 0))

    @contextmanager
    def _on_stream(self, stream: Any) -> Iterator[None]:
        current = self._current()
        before = self._current_stream(stream.device)
        current[stream.device] = stream
        try:
            with self.in_thread():
                yield
        finally:
            current[stream.device] = before


class _Kernels:
    """The module of kernels, and the streams that they were started on."""

    def __init__(self, module: Any, streams: set[tuple[int, int]]) -> None:
        self._module, self.streams = module, streams

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)
