"""The functions, modules and module classes of PyTorch that are activations, recognised without importing it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["expression"]


def _hardtanh(low: float, high: float) -> str:
    if (low, high) == (-1.0, 1.0):
        return "hardtanh"
    middle, half = 0.5 * (low + high), 0.5 * (high - low)
    return f"{half!r} * hardtanh((x - {middle!r}) / {half!r}) + {middle!r}"


def _softplus(beta: float, threshold: float) -> str:
    # Beyond the threshold PyTorch takes x instead: at 20, the default, a difference of 2e-9.
    if threshold < 20.0:
        raise ValueError(f"torch.nn.Softplus must have a threshold of 20 or more, got {threshold!r}")
    return "softplus" if beta == 1.0 else f"softplus({beta!r} * x) / {beta!r}"


def _prelu(module: Any) -> str:
    if module.weight.numel() != 1:
        raise ValueError(f"torch.nn.PReLU must have one slope for all nodes, got {module.weight.numel()}")
    return f"leaky_relu({float(module.weight.item())!r})"


def _gelu(approximate: str) -> str:
    return "gelu_tanh" if approximate == "tanh" else "gelu"


def _hardshrink(size: float) -> str:
    return f"x * (step(x - {size!r}) + step(-x - {size!r}))"


def _softshrink(size: float) -> str:
    return f"relu(x - {size!r}) - relu(-x - {size!r})"


_HARDSWISH, _LOGSIGMOID, _TANHSHRINK = "x * hard_sigmoid", "-softplus(-x)", "x - tanh"

# Class name -> the expression, given the module.
_MODULES: dict[str, Callable[[Any], str]] = {
    "Identity": lambda m: "linear",
    "ReLU": lambda m: "relu",
    "LeakyReLU": lambda m: f"leaky_relu({float(m.negative_slope)!r})",
    "PReLU": _prelu,
    "ELU": lambda m: f"elu({float(m.alpha)!r})",
    "SELU": lambda m: "selu",
    "CELU": lambda m: f"celu({float(m.alpha)!r})",
    "Tanh": lambda m: "tanh",
    "Hardtanh": lambda m: _hardtanh(float(m.min_val), float(m.max_val)),
    "ReLU6": lambda m: "relu6",
    "Sigmoid": lambda m: "sigmoid",
    "Hardsigmoid": lambda m: "hard_sigmoid",
    "GELU": lambda m: _gelu(m.approximate),
    "SiLU": lambda m: "silu",
    "Mish": lambda m: "mish",
    "Softplus": lambda m: _softplus(float(m.beta), float(m.threshold)),
    "Softsign": lambda m: "softsign",
    "Hardswish": lambda m: _HARDSWISH,
    "LogSigmoid": lambda m: _LOGSIGMOID,
    "Tanhshrink": lambda m: _TANHSHRINK,
    "Hardshrink": lambda m: _hardshrink(float(m.lambd)),
    "Softshrink": lambda m: _softshrink(float(m.lambd)),
}

# Function name -> the expression, parameters as PyTorch's defaults.
_FUNCTIONS: dict[str, str] = {
    "abs": "abs",
    "cos": "cos",
    "exp": "exp",
    "erf": "erf",
    "sign": "sign",
    "sin": "sin",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "relu": "relu",
    "relu6": "relu6",
    "leaky_relu": "leaky_relu(0.01)",
    "elu": "elu(1.0)",
    "selu": "selu",
    "celu": "celu(1.0)",
    "gelu": "gelu",
    "silu": "silu",
    "mish": "mish",
    "softplus": "softplus",
    "softsign": "softsign",
    "hardtanh": "hardtanh",
    "hardsigmoid": "hard_sigmoid",
    "hardswish": _HARDSWISH,
    "logsigmoid": _LOGSIGMOID,
    "log_sigmoid": _LOGSIGMOID,
    "tanhshrink": _TANHSHRINK,
    "hardshrink": _hardshrink(0.5),
    "softshrink": _softshrink(0.5),
    "special_erf": "erf",
    "special_expit": "sigmoid",
}


def expression(value: object) -> str | None:
    """The activation as text; None for what is not PyTorch's.

    Raises
    ------
    TypeError
        If it is PyTorch's but no activation of single nodes, or one that is not known.
    """
    if isinstance(value, type):
        if not value.__module__.startswith("torch.nn.modules."):
            return None
        name = value.__name__
        if name in _MODULES:
            return _MODULES[name](value())
    elif type(value).__module__.startswith("torch.nn.modules."):
        name = type(value).__name__
        if name in _MODULES:
            return _MODULES[name](value)
    elif callable(value) and _is_of_torch(value):
        name = str(getattr(value, "__name__", value))
        if name in _FUNCTIONS:
            return _FUNCTIONS[name]
    else:
        return None
    known = ", ".join([*_MODULES, *dict.fromkeys(_FUNCTIONS)])
    raise TypeError(f"PyTorch's {name} is not among the activations known here: {known}")


def _is_of_torch(function: Any) -> bool:
    """Functions written in C have no module of their own; what they are bound to has."""
    owner = getattr(function, "__self__", None)
    places = (getattr(function, "__module__", None), getattr(owner, "__module__", None), type(owner).__module__)
    return any(isinstance(place, str) and (place + ".").startswith("torch.") for place in places)
