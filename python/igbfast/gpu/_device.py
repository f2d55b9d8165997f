"""The GPUs that igbfast can use, and what is missing where it can use none.

Nothing here needs PyTorch until a GPU is there to be used.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import _checks

__all__ = ["Device", "DeviceError", "describe", "find", "is_cpu", "named", "pointer"]

_ALLOWED = (
    "'cpu', 'cuda' (the current GPU), 'cuda:N' (that of number N), 'cuda:all', a torch.device, or a sequence of these"
)
_NAME = re.compile(r"cuda(?::(\d+|all))?")
_INSUFFICIENT, _NO_DEVICE = "cudaErrorInsufficientDriver", "cudaErrorNoDevice"


class DeviceError(RuntimeError):
    """A GPU was asked for, and something that it takes is missing: the message says what, and what to do."""


@dataclass(frozen=True)
class Device:
    """A device of PyTorch's and the kernels compiled for it."""

    torch: Any
    """The torch.device that tensors live on."""
    kernels: Any
    """The module of kernels: igbfast._cuda."""

    @property
    def index(self) -> int:
        """The device's number, as the CUDA runtime counts."""
        return int(self.torch.index or 0)

    @property
    def name(self) -> str:
        """What the maker calls it."""
        return str(self.kernels.properties(self.index)[0])

    @property
    def stream(self) -> int:
        """The stream that PyTorch works on here, as a number."""
        import torch

        return int(torch.cuda.current_stream(self.torch).cuda_stream) if self.torch.type == "cuda" else 0

    def call(self, name: str, *args: Any) -> Any:
        """One function of the kernels' module, on PyTorch's stream."""
        return getattr(self.kernels, name)(self.index, self.stream, *args)

    def memory(self) -> tuple[int, int]:
        """Bytes that are free here, and all there are."""
        if self.torch.type != "cuda":
            free, total = self.kernels.memory(self.index)
            return int(free), int(total)
        import torch

        # PyTorch's question leaves the other GPUs alone, on which to set and restore the device would begin a context.
        free, total = torch.cuda.mem_get_info(self.torch)
        return int(free), int(total)

    def free_memory(self) -> int:
        """Bytes that can still be allocated here, those that PyTorch holds in reserve among them."""
        free, _ = self.memory()
        if self.torch.type != "cuda":
            return free
        import torch

        return free + int(torch.cuda.memory_reserved(self.torch) - torch.cuda.memory_allocated(self.torch))


def pointer(tensor: Any, dtype: Any, *shape: int) -> int:
    """The address of a contiguous tensor of that type and shape, in which -1 stands for any number."""
    fits = len(shape) == tensor.dim() and all(
        want in (-1, have) for want, have in zip(shape, tensor.shape, strict=True)
    )
    if tensor.dtype != dtype or not fits or not tensor.is_contiguous():
        found = f"{tensor.dtype} {tuple(tensor.shape)}, strides {tensor.stride()}"
        raise TypeError(f"expected a contiguous tensor {dtype} {shape}, got {found}")
    return int(tensor.data_ptr())


def named(devices: Sequence[Device]) -> str:
    """What they are, in words that files keep."""
    names = [device.name for device in devices]
    return ", ".join(
        name if names.count(name) == 1 else f"{names.count(name)} x {name}" for name in dict.fromkeys(names)
    )


def is_cpu(device: object) -> bool:
    """Whether no GPU is asked for."""
    return str(device) in ("cpu", "cpu:0")


def find(device: object) -> list[Device]:
    """The GPUs asked for.

    Parameters
    ----------
    device : str, torch.device or sequence of these
        `cuda`: the one that PyTorch would take, which is number 0 unless the caller has chosen another; `cuda:1`;
        `cuda:all`.

    Raises
    ------
    ValueError, TypeError
        If `device` is something else, names a GPU twice or one that is not there.
    DeviceError
        If igbfast was built without CUDA; there is no driver, or one that is too old; no GPU, or one that is too old;
        no PyTorch, or one that cannot use the GPU.

    Examples
    --------
    >>> find("gpu")
    Traceback (most recent call last):
    ValueError: device must be 'cpu', 'cuda' (the current GPU), ... or a sequence of these, got 'gpu'
    """
    words = _asked_for(device)
    kernels = _kernels()
    status = kernels.status()
    _require_a_gpu(status)
    count = int(status["devices"])
    numbers = [number for word in words for number in _numbers(word, count)]
    there = [number for number in numbers if number < count]
    for number in there:
        _require_capability(number, kernels, status)
    torch = _usable_torch(status)
    for number in there:
        _require_compiled_for(torch, number, kernels)
    if len(there) < len(numbers):
        number = next(number for number in numbers if number >= count)
        got = "only cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise ValueError(f"device must be a GPU that this process sees, {got}{_visible()}, got 'cuda:{number}'")
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"device must name each GPU once, got {device!r}")
    return [Device(torch.device("cuda", number), kernels) for number in numbers]


def describe() -> dict[str, Any]:
    """What was built and what was found, in words, for `igbfast info`."""
    try:
        kernels = _kernels()
    except DeviceError:
        return {"CUDA built": False}
    status = kernels.status()
    found: dict[str, Any] = {
        "CUDA built": f"{_version(status['built'])}, for compute capability "
        + ", ".join(_capability(architecture) for architecture in status["architectures"]),
        "CUDA driver": f"serves CUDA {_version(status['driver'])}" if status["driver"] else "none",
    }
    try:
        _require_a_gpu(status)
        found["GPUs"] = [_gpu_words(number, kernels) for number in range(status["devices"])]
        find("cuda:all")
    except (DeviceError, RuntimeError) as error:
        found["device='cuda'"] = str(error)
    return found


# ---- What is asked for -----------------------------------------------------------------------------------------------


def _asked_for(device: object) -> list[str]:
    """For each GPU what stands behind `cuda:`, a number, `all` or nothing."""
    several = isinstance(device, Sequence) and not isinstance(device, str)
    words = [_word(one, device) for one in (device if several else [device])]  # type: ignore[attr-defined]
    if not words:
        raise ValueError(f"device must be {_ALLOWED}, got an empty sequence")
    return words


def _word(one: object, device: object) -> str:
    if not isinstance(one, str) and not (hasattr(one, "type") and hasattr(one, "index")):
        raise TypeError(f"device must be {_ALLOWED}, got {_checks.shown(device)}")
    match = _NAME.fullmatch(str(one))
    if match is None:
        raise ValueError(f"device must be {_ALLOWED}, got {str(one)!r}")
    return match[1] or ""


def _numbers(word: str, count: int) -> list[int]:
    if word == "all":
        return list(range(count))
    return [int(word) if word else _current()]


def _current() -> int:
    """The number that PyTorch takes `cuda` for: 0 where it has not been told otherwise."""
    torch = sys.modules.get("torch")
    return int(torch.cuda.current_device()) if torch is not None and torch.cuda.is_available() else 0


# ---- What is there ---------------------------------------------------------------------------------------------------


def _kernels() -> Any:
    try:
        return importlib.import_module("igbfast._cuda")
    except ModuleNotFoundError:
        raise DeviceError(
            "igbfast was built without CUDA, because there was no nvcc or it was told to do without: reinstall it from "
            "its sources, with nvcc in the PATH or named by the environment variable CUDACXX, by "
            "pip install --force-reinstall . -C cmake.define.IGBFAST_CUDA=ON"
        ) from None
    except ImportError as error:
        raise DeviceError(f"the CUDA half of igbfast cannot be loaded ({error}): reinstall igbfast") from None


def _require_a_gpu(status: Mapping[str, Any]) -> None:
    built, driver, problem = _version(status["built"]), status["driver"], status["problem"]
    if not driver:
        raise DeviceError(
            f"there is no NVIDIA driver: libcuda.so.1, which comes with it, is not found or does not answer. igbfast "
            f"was built with CUDA {built}: install a driver that serves it, and in a container pass the GPU on, as "
            "docker run --gpus all does; nvidia-smi shows whether it works"
        )
    if problem == _INSUFFICIENT:
        raise DeviceError(
            f"the NVIDIA driver is too old: it serves CUDA up to {_version(driver)}, and igbfast was built with CUDA "
            f"{built}. Update the driver, or reinstall igbfast with an nvcc of CUDA {driver // 1000}"
        )
    if problem == _NO_DEVICE or (not problem and not status["devices"]):
        raise DeviceError(
            f"the NVIDIA driver shows no GPU to this process{_visible()}: nvidia-smi -L lists those of the machine; "
            "CUDA_VISIBLE_DEVICES, a container or a batch system may hide them"
        )
    if problem:
        raise DeviceError(
            f"the NVIDIA driver (CUDA {_version(driver)}) does not let this process use a GPU: {problem}, "
            f"{status['explanation']}. nvidia-smi shows whether it works otherwise; a process that was forked after "
            "CUDA was used must be spawned instead"
        )


def _require_capability(number: int, kernels: Any, status: Mapping[str, Any]) -> None:
    name, capability = kernels.properties(number)
    least = min(status["architectures"], default=0)
    if capability < least:
        raise DeviceError(
            f"cuda:{number}, {name}, is too old: its compute capability is {_capability(capability)}, and igbfast was "
            f"built for {_capability(least)} and newer"
            + (" (A100, RTX 30 and what came after)" if least == 80 else "")
            + ": choose another GPU, or device='cpu'"
        )


def _usable_torch(status: Mapping[str, Any]) -> Any:
    driver = _version(status["driver"])
    wheel = "https://pytorch.org/get-started says which"
    try:
        import torch
    except ImportError as error:
        raise DeviceError(
            f"PyTorch is missing ({error}), whose products and factorisations igbfast uses on GPUs: install a build "
            f"for CUDA {driver} or older ({wheel})"
        ) from None
    if torch.version.cuda is None:
        raise DeviceError(
            f"the installed PyTorch, {torch.__version__}, was built without CUDA: install a build for CUDA {driver} or "
            f"older instead ({wheel})"
        )
    if not torch.cuda.is_available():
        raise DeviceError(
            f"the installed PyTorch, {torch.__version__}, was built for CUDA {torch.version.cuda} and finds no GPU, "
            f"though igbfast does, with a driver that serves CUDA {driver}: update the driver, or install a build of "
            f"PyTorch for CUDA {driver} or older ({wheel})"
        )
    return torch


def _require_compiled_for(torch: Any, number: int, kernels: Any) -> None:
    """PyTorch's kernels run on GPUs of the same generation, not older, and as PTX on any that is not older."""
    name, capability = kernels.properties(number)
    built = list(torch.cuda.get_arch_list())
    for kind, architecture in (word.rstrip("af").split("_") for word in built):
        known = int(architecture)
        if known <= capability and (kind == "compute" or known // 10 == capability // 10):
            return
    raise DeviceError(
        f"the installed PyTorch, {torch.__version__}, was not built for cuda:{number}, {name}, of compute capability "
        f"{_capability(capability)}, but for {', '.join(built)}: install another build (https://pytorch.org/get-started)"
    )


# ---- In words --------------------------------------------------------------------------------------------------------


def _version(number: int) -> str:
    """13010 is 13.1."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _capability(number: int) -> str:
    """90 is 9.0."""
    return f"{number // 10}.{number % 10}"


def _visible() -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"


def _gpu_words(number: int, kernels: Any) -> str:
    from .._memory import gib

    name, capability = kernels.properties(number)
    free, total = kernels.memory(number)
    return f"cuda:{number}: {name}, compute capability {_capability(capability)}, {gib(free)} of {gib(total)} free"
