"""An activation as a torch module: named functions by torch's own, expressions of these, callables through NumPy.

The tree of an expression (igbfast/_expressions.py) is walked at every call; torch differentiates what it meets there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from .._custom import Custom
from .._expressions import Inner, Named, Product, Sum
from ..activations import Activation, as_activation

__all__ = ["Phi"]

Tensor = Any


class Phi(nn.Module):
    """An activation function of igbfast as a module of PyTorch.

    Right to rounding in the precision of its argument, on any device, and differentiable. Activations made of a Python
    callable run it on the CPU in float64, wherever the argument lies; they can be differentiated twice, all others as
    often as torch's functions.

    Parameters
    ----------
    activation : Activation, str, or an activation of torch.nn
        As for `Ensemble`: a name, an expression, an `Activation`, a module such as `torch.nn.GELU()`.

    Raises
    ------
    ValueError
        For an unknown name, and for a mixture, which is not one function.
    TypeError
        For anything that is not an activation.

    Examples
    --------
    >>> import torch
    >>> import igbfast as igb
    >>> from igbfast.torch import Phi
    >>> phi = Phi("2 * tanh(x / 2)")
    >>> phi
    Phi('2 * tanh(0.5 * x)')
    >>> y = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
    >>> phi(y).sum().backward()
    >>> bool(torch.allclose(y.grad, torch.from_numpy(phi.activation.derivative(y.detach().numpy()))))
    True
    >>> igb.Ensemble(phi, sigma_w2=1.5)
    Ensemble('2 * tanh(0.5 * x)', sigma_w2=1.5, sigma_b2=0.0)
    """

    activation: Activation
    """What it computes."""

    def __init__(self, activation: object) -> None:
        super().__init__()
        self.activation = as_activation(activation)
        if len(self.activation.components) > 1:
            raise ValueError(f"activation must be one function, not a mixture, got {str(self.activation)!r}")

    def forward(self, x: Tensor) -> Tensor:
        """phi of every element: a tensor of the shape, dtype and device of `x`."""
        return _value(self.activation._function, x)

    def extra_repr(self) -> str:
        return repr(str(self.activation))


# ---- Expressions -----------------------------------------------------------------------------------------------------


def _value(function: Any, x: Tensor) -> Tensor:
    if isinstance(function, Named):
        return _NAMED[function.name](x, *function.parameters)
    if isinstance(function, Inner):
        return _value(function.f, _affine(x, function.a, function.b))
    if isinstance(function, Sum):
        return _sum(function, x)
    if isinstance(function, Product):
        return _value(function.f, x) * _value(function.g, x)
    assert isinstance(function, Custom)
    return torch.ops.igbfast.custom(x, _number(function), 0)


def _affine(x: Tensor, a: float, b: float) -> Tensor:
    scaled = x if a == 1.0 else a * x
    return scaled if b == 0.0 else scaled + b


def _sum(function: Sum, x: Tensor) -> Tensor:
    if not function.terms:
        return torch.full_like(x, function.constant)
    total = None
    for factor, f in function.terms:
        term = _affine(_value(f, x), factor, 0.0)
        total = term if total is None else total + term
    return _affine(total, 1.0, function.constant)


# ---- Named functions -------------------------------------------------------------------------------------------------


def _tanh_like(x: Tensor) -> Tensor:
    # Both sides have slope 1 at zero, where that of sign(x) (1 - exp(-|x|)), by the rules, would be 0.
    return torch.where(x > 0.0, -torch.expm1(-x.clamp(min=0.0)), torch.expm1(x.clamp(max=0.0)))


def _celu(x: Tensor, alpha: float) -> Tensor:
    # The slope of torch's own is in float32.
    return alpha * functional.elu(x / alpha)


def _softplus(x: Tensor) -> Tensor:
    # At torch's own threshold of 20 it jumps by 2e-9.
    return functional.softplus(x, threshold=40.0)


def _step(x: Tensor) -> Tensor:
    return torch.sign(x).clamp(min=0.0)


def _polynomial(x: Tensor, *coefficients: float) -> Tensor:
    total = torch.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = total * x + c
    return total


def _hermite(x: Tensor, degree: float) -> Tensor:
    previous, current = torch.zeros_like(x), torch.ones_like(x)
    for k in range(int(degree)):
        previous, current = current, x * current - k * previous
    return current


_NAMED: dict[str, Callable[..., Tensor]] = {
    "linear": lambda x: x,
    "relu": functional.relu,
    "leaky_relu": functional.leaky_relu,
    "abs": torch.abs,
    "elu": functional.elu,
    "selu": functional.selu,
    "celu": _celu,
    "tanh": torch.tanh,
    "hardtanh": functional.hardtanh,
    "relu6": functional.relu6,
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": lambda x: functional.relu6(x + 3.0) / 6.0,  # torch's own has a slope of 1/6 in float32
    "erf": torch.erf,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
    "mish": functional.mish,
    "softplus": _softplus,
    "softsign": functional.softsign,
    "tanh_like": _tanh_like,
    "sin": torch.sin,
    "cos": torch.cos,
    "exp": torch.exp,
    "gaussian": lambda x: torch.exp(-x * x),
    "sign": torch.sign,
    "step": _step,
    "polynomial": _polynomial,
    "hermite": _hermite,
}


# ---- Callables -------------------------------------------------------------------------------------------------------

# An operator of torch's, so that whatever looks at a model's operations (compilers, `diagnose`) sees one elementwise
# function: on the CPU, by NumPy, phi or its first or second derivative of the activation with that number.
_LIBRARY = torch.library.Library("igbfast", "DEF")
_LIBRARY.define("custom(Tensor x, int number, int order) -> Tensor", tags=(torch.Tag.pointwise,))

_CALLABLES: list[Activation] = []
_NUMBERS: dict[Custom, int] = {}


def _number(function: Custom) -> int:
    if function not in _NUMBERS:
        _CALLABLES.append(Activation._of(function))
        _NUMBERS[function] = len(_CALLABLES) - 1
    return _NUMBERS[function]


def _by_numpy(x: Tensor, number: int, order: int) -> Tensor:
    wide = x.detach().to("cpu", torch.float64).numpy()
    phi = _CALLABLES[number]
    values = phi(wide) if order == 0 else phi.derivative(wide, order)
    return torch.from_numpy(values.reshape(wide.shape)).to(x)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.number, ctx.order = inputs
    ctx.save_for_backward(x)


def _slope(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
    if ctx.order == 2:
        raise RuntimeError(f"activation {str(_CALLABLES[ctx.number])!r} can be differentiated twice, not three times")
    (x,) = ctx.saved_tensors
    return gradient * torch.ops.igbfast.custom(x, ctx.number, ctx.order + 1), None, None


_LIBRARY.impl("custom", _by_numpy, "CompositeExplicitAutograd")
torch.library.register_fake("igbfast::custom", lambda x, number, order: torch.empty_like(x), lib=_LIBRARY)
torch.library.register_autograd("igbfast::custom", _slope, setup_context=_remember, lib=_LIBRARY)
