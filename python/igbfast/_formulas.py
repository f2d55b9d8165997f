"""The named activations: phi, phi' and phi'' as formulas that keep their digits near zero and in the tails.

Each formula takes float64 `x` and the `order` of the derivative, 0 to 2, and its parameters. At a kink it gives the
limit from the left (only `sign` is 0 at its jump). Those that the simulation knows, too, come from the compiled core.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from . import _core

__all__ = ["FORMULAS", "Formula", "Traits"]

Floats: TypeAlias = NDArray[np.float64]
_Jet: TypeAlias = Callable[..., Floats]


def _special() -> Any:
    """scipy.special, imported when it is needed: it would more than double the time that `import igbfast` takes."""
    from scipy import special

    return special


@dataclass(frozen=True)
class Traits:
    """What is known of a function beyond its values."""

    kinks: tuple[float, ...] = ()
    """Where phi or any of its derivatives jumps, ascending."""
    even: bool = False
    """phi(-x) = phi(x)."""
    centre: float | None = None
    """phi(x) + phi(-x) = 2 centre: odd up to a constant; None where there is no such constant."""
    monotone: int = 0
    """+1 non-decreasing, -1 non-increasing, 0 neither."""
    asymptotes: tuple[float, float] | None = (0.0, 0.0)
    """Limits of phi(x) / x as x -> -inf and +inf; None where one is not finite."""


@dataclass(frozen=True)
class Formula:
    """One named function, or a family of them."""

    jet: _Jet
    """jet(x, order, *parameters)."""
    traits: Callable[..., Traits]
    """traits(*parameters)."""
    parameters: Literal["", "finite", "positive", "degree", "many"] = ""
    """None, or one that is finite, positive or a degree, or many coefficients."""
    default: float | None = None
    """The parameter if none is given."""
    core: Callable[..., tuple[str, float]] | None = field(default=None, kw_only=True)
    """Name and parameter in the compiled core, which has closed forms or special rules for it."""


# ---- Pieces ----------------------------------------------------------------------------------------------------------


def _in_core(name: str, parameter: float = 0.0) -> _Jet:
    def jet(x: Floats, order: int) -> Floats:
        what = ("value", "slope", "curvature")[order]
        flat = np.ascontiguousarray(x).ravel()
        return _core.evaluate(activation=name, parameter=parameter, what=what, x=flat).reshape(x.shape)  # type: ignore[arg-type]

    return jet


def _bell(x: Floats) -> Floats:
    """exp(-x^2), relative accuracy kept: the square of the leading bits of x is exact."""
    x = np.clip(x, -40.0, 40.0)
    lead = np.round(x * 1024.0) / 1024.0
    return np.exp(-lead * lead) * np.exp(-(x - lead) * (x + lead))


def _normal_density(x: Floats) -> Floats:
    x = np.clip(x, -40.0, 40.0)
    lead = np.round(x * 1024.0) / 1024.0
    return np.exp(-0.5 * lead * lead) * np.exp(-0.5 * (x - lead) * (x + lead)) / math.sqrt(2.0 * math.pi)


def _logistic_slope(x: Floats) -> Floats:
    return _special().expit(x) * _special().expit(-x)  # type: ignore[no-any-return]


# ---- Straight pieces -------------------------------------------------------------------------------------------------


def _leaky_relu(x: Floats, order: int, a: float) -> Floats:
    return _in_core("leaky_relu", a)(x, order)


def _clip(low: float, high: float, slope: float = 1.0) -> _Jet:
    """slope * (x held between low and high - low), the family of hardtanh, up to a constant."""

    def jet(x: Floats, order: int) -> Floats:
        if order == 0:
            return slope * np.clip(x, low, high)
        return np.where((x > low) & (x <= high), slope if order == 1 else 0.0, 0.0)

    return jet


def _hard_sigmoid(x: Floats, order: int) -> Floats:
    return np.clip(x + 3.0, 0.0, 6.0) / 6.0 if order == 0 else _clip(-3.0, 3.0, 1.0 / 6.0)(x, order)


def _sign(x: Floats, order: int) -> Floats:
    return np.sign(x) if order == 0 else np.zeros_like(x)


def _step(x: Floats, order: int) -> Floats:
    return np.heaviside(x, 0.0) if order == 0 else np.zeros_like(x)


# ---- Exponentials ----------------------------------------------------------------------------------------------------


def _elu(x: Floats, order: int, alpha: float) -> Floats:
    low = np.minimum(x, 0.0)
    if order == 0:
        return np.where(x > 0.0, x, alpha * np.expm1(low))
    return np.where(x > 0.0, 1.0 if order == 1 else 0.0, alpha * np.exp(low))


_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


def _selu(x: Floats, order: int) -> Floats:
    return _SELU_SCALE * _elu(x, order, _SELU_ALPHA)


def _celu(x: Floats, order: int, alpha: float) -> Floats:
    low = np.minimum(x, 0.0) / alpha
    if order == 0:
        return np.where(x > 0.0, x, alpha * np.expm1(low))
    if order == 1:
        return np.exp(low)
    return np.where(x > 0.0, 0.0, np.exp(low) / alpha)


def _tanh_like(x: Floats, order: int) -> Floats:
    if order == 0:
        return np.copysign(np.expm1(-np.abs(x)), x)
    size = np.exp(-np.abs(x))
    return size if order == 1 else np.where(x > 0.0, -size, size)


def _sigmoid(x: Floats, order: int) -> Floats:
    if order == 0:
        return _special().expit(x)  # type: ignore[no-any-return]
    slope = _logistic_slope(x)
    return slope if order == 1 else -slope * np.tanh(0.5 * x)


def _softplus(x: Floats, order: int) -> Floats:
    return np.logaddexp(0.0, x) if order == 0 else _sigmoid(x, order - 1)


def _silu(x: Floats, order: int) -> Floats:
    if order == 0:
        x = np.maximum(x, -800.0)
        return x * _special().expit(x)  # type: ignore[no-any-return]
    x = np.clip(x, -800.0, 800.0)
    slope = _logistic_slope(x)
    if order == 1:
        return _special().expit(x) + x * slope  # type: ignore[no-any-return]
    return slope * (2.0 - x * np.tanh(0.5 * x))


def _mish(x: Floats, order: int) -> Floats:
    """x T(x) with T = tanh(log(1 + e^x)), a ratio of polynomials in e = exp(-|x|)."""
    high, e = x > 0.0, np.exp(-np.abs(x))
    square = np.where(high, 2.0 * e * e, e * e)
    below = np.where(high, 1.0, 2.0) + 2.0 * e + square
    top = np.where(high, 1.0 + 2.0 * e, e * (e + 2.0)) / below
    if order == 0:
        return np.maximum(x, -800.0) * top
    x = np.clip(x, -800.0, 800.0)
    slope = 4.0 * np.where(high, e * e, e) * (1.0 + e) / below**2
    if order == 1:
        return top + x * slope
    bend = np.where(
        high,
        e * e * (((2.0 * e + 2.0) * e - 3.0) * e - 2.0),
        e * (((-2.0 * e - 3.0) * e + 2.0) * e + 2.0),
    )
    return 2.0 * slope + x * (4.0 * bend / below**3)


def _exp(x: Floats, order: int) -> Floats:
    return np.exp(x)


def _gaussian(x: Floats, order: int) -> Floats:
    bell, x = _bell(x), np.clip(x, -40.0, 40.0)
    return (1.0, -2.0 * x, 4.0 * x * x - 2.0)[order] * bell


# ---- Gaussian error linear units -------------------------------------------------------------------------------------


def _gelu(x: Floats, order: int) -> Floats:
    density, near = _normal_density(x), np.clip(x, -40.0, 40.0)
    if order == 2:
        return density * (2.0 - near * near)
    # Below zero, the distribution function is the density times Mills' ratio, which keeps its relative accuracy.
    mills = math.sqrt(math.pi / 2.0) * _special().erfcx(np.abs(near) / math.sqrt(2.0))
    tail: Floats = np.where(np.abs(x) < 1.0, _special().ndtr(-np.abs(near)), density * mills)
    if order == 0:
        return np.where(x > 0.0, x * (1.0 - tail), near * tail)
    below: Floats = np.where(x > -1.0, tail + near * density, density * (mills + near))
    return np.where(x > 0.0, (1.0 - tail) + near * density, below)


_GELU_TANH = (2.0 * math.sqrt(2.0 / math.pi), 0.044715)


def _gelu_tanh(x: Floats, order: int) -> Floats:
    """x / (1 + exp(-v)), v = 2 sqrt(2/pi) (x + 0.044715 x^3)."""
    scale, cubic = _GELU_TANH
    near = np.clip(x, -40.0, 40.0)
    v = scale * near * (1.0 + cubic * near * near)
    if order == 0:
        return np.maximum(x, -40.0) * _special().expit(v)  # type: ignore[no-any-return]
    v1 = scale * (1.0 + 3.0 * cubic * near * near)
    slope = _logistic_slope(v)
    if order == 1:
        return _special().expit(v) + near * slope * v1  # type: ignore[no-any-return]
    v2 = scale * 6.0 * cubic * near
    return slope * (2.0 * v1 + near * (v2 - np.tanh(0.5 * v) * v1 * v1))


# ---- Others ----------------------------------------------------------------------------------------------------------


def _softsign(x: Floats, order: int) -> Floats:
    x = np.clip(x, -1e300, 1e300)
    rest = 1.0 / (1.0 + np.abs(x))
    if order == 0:
        return x * rest
    return rest * rest if order == 1 else np.where(x > 0.0, -2.0, 2.0) * rest * rest * rest


def _sin(x: Floats, order: int) -> Floats:
    return (np.sin, np.cos, lambda x: -np.sin(x))[order](x)


def _cos(x: Floats, order: int) -> Floats:
    return (np.cos, lambda x: -np.sin(x), lambda x: -np.cos(x))[order](x)


def _polynomial(x: Floats, order: int, *coefficients: float) -> Floats:
    series = np.polynomial.polynomial.polyder(np.array(coefficients), order)
    values: Floats = np.polynomial.polynomial.polyval(x, series) + 0.0 * x
    return values


def _hermite(x: Floats, order: int, n: float) -> Floats:
    """He_n by its recurrence; He_n' = n He_(n-1)."""
    degree, factor = int(n), 1.0
    for _ in range(order):
        factor *= degree
        degree = max(degree - 1, 0)
    previous, current = np.zeros_like(x), np.full_like(x, factor)
    for k in range(degree):
        previous, current = current, x * current - k * previous
    return current


# ---- Traits ----------------------------------------------------------------------------------------------------------


def _fixed(**traits: Any) -> Callable[..., Traits]:
    return lambda *_: Traits(**traits)


def _leaky_traits(a: float) -> Traits:
    kinks = () if a == 1.0 else (0.0,)
    centre = 0.0 if a == 1.0 else None
    return Traits(kinks, even=a == -1.0, centre=centre, monotone=int(a >= 0.0), asymptotes=(a, 1.0))


def _elu_traits(alpha: float) -> Traits:
    return Traits((0.0,), monotone=int(alpha >= 0.0), asymptotes=(0.0, 1.0))


def _changes_sign(coefficients: Sequence[float]) -> bool:
    """Whether a polynomial takes both signs: asked between its real roots and beyond them."""
    roots = np.polynomial.polynomial.polyroots(coefficients)
    real = np.sort(roots.real[np.abs(roots.imag) <= 1e-6 * (1.0 + np.abs(roots))])
    if real.size == 0:
        return False
    places = np.concatenate([[real[0] - 1.0], 0.5 * (real[1:] + real[:-1]), [real[-1] + 1.0]])
    values = np.polynomial.polynomial.polyval(places, coefficients)
    scale = np.polynomial.polynomial.polyval(np.abs(places), np.abs(coefficients))
    signs = np.sign(values[np.abs(values) > 1e-13 * scale])
    return signs.size > 0 and bool(np.any(signs != signs[0]))


def _polynomial_traits(*coefficients: float) -> Traits:
    degree = max((k for k, c in enumerate(coefficients) if c != 0.0), default=0)
    used = coefficients[: degree + 1]
    odd_part, even_part = any(used[1::2]), any(used[2::2])
    leading = used[-1] if degree else 0.0
    slope = [k * c for k, c in enumerate(used)][1:]
    if degree == 0:
        monotone = 1
    elif degree % 2 == 0 or (degree > 1 and _changes_sign(slope)):
        monotone = 0
    else:
        monotone = 1 if leading > 0.0 else -1
    return Traits(
        even=not odd_part,
        centre=None if even_part else used[0],
        monotone=monotone,
        asymptotes=(leading, leading) if degree <= 1 else None,
    )


def _hermite_traits(n: float) -> Traits:
    degree = int(n)
    unit = np.polynomial.hermite_e.herme2poly([0.0] * degree + [1.0]) if degree <= 3 else None
    if unit is not None:
        return _polynomial_traits(*(float(c) for c in unit))
    return Traits(even=degree % 2 == 0, centre=0.0 if degree % 2 else None, asymptotes=None)


_RAMP = (0.0, 1.0)  # asymptotes of everything that is like relu far from zero

FORMULAS: dict[str, Formula] = {
    "linear": Formula(
        _in_core("linear"), _fixed(centre=0.0, monotone=1, asymptotes=(1.0, 1.0)), core=lambda: ("linear", 0.0)
    ),
    "relu": Formula(_in_core("relu"), _fixed(kinks=(0.0,), monotone=1, asymptotes=_RAMP), core=lambda: ("relu", 0.0)),
    "leaky_relu": Formula(_leaky_relu, _leaky_traits, "finite", 0.01, core=lambda a: ("leaky_relu", a)),
    "abs": Formula(
        _in_core("leaky_relu", -1.0),
        _fixed(kinks=(0.0,), even=True, asymptotes=(-1.0, 1.0)),
        core=lambda: ("leaky_relu", -1.0),
    ),
    "elu": Formula(_elu, _elu_traits, "finite", 1.0),
    "selu": Formula(_selu, _fixed(kinks=(0.0,), monotone=1, asymptotes=(0.0, _SELU_SCALE))),
    "celu": Formula(_celu, _fixed(kinks=(0.0,), monotone=1, asymptotes=_RAMP), "positive", 1.0),
    "tanh": Formula(_in_core("tanh"), _fixed(centre=0.0, monotone=1), core=lambda: ("tanh", 0.0)),
    "hardtanh": Formula(_clip(-1.0, 1.0), _fixed(kinks=(-1.0, 1.0), centre=0.0, monotone=1)),
    "relu6": Formula(_clip(0.0, 6.0), _fixed(kinks=(0.0, 6.0), monotone=1)),
    "sigmoid": Formula(_sigmoid, _fixed(centre=0.5, monotone=1)),
    "hard_sigmoid": Formula(_hard_sigmoid, _fixed(kinks=(-3.0, 3.0), centre=0.5, monotone=1)),
    "erf": Formula(_in_core("erf"), _fixed(centre=0.0, monotone=1), core=lambda: ("erf", 0.0)),
    "gelu": Formula(_gelu, _fixed(asymptotes=_RAMP)),
    "gelu_tanh": Formula(_gelu_tanh, _fixed(asymptotes=_RAMP)),
    "silu": Formula(_silu, _fixed(asymptotes=_RAMP)),
    "mish": Formula(_mish, _fixed(asymptotes=_RAMP)),
    "softplus": Formula(_softplus, _fixed(monotone=1, asymptotes=_RAMP)),
    "softsign": Formula(_softsign, _fixed(kinks=(0.0,), centre=0.0, monotone=1)),
    "tanh_like": Formula(_tanh_like, _fixed(kinks=(0.0,), centre=0.0, monotone=1)),
    "sin": Formula(_sin, _fixed(centre=0.0)),
    "cos": Formula(_cos, _fixed(even=True)),
    "exp": Formula(_exp, _fixed(monotone=1, asymptotes=None)),
    "gaussian": Formula(_gaussian, _fixed(even=True)),
    "sign": Formula(_sign, _fixed(kinks=(0.0,), centre=0.0, monotone=1)),
    "step": Formula(_step, _fixed(kinks=(0.0,), centre=0.5, monotone=1)),
    "polynomial": Formula(_polynomial, _polynomial_traits, "many"),
    "hermite": Formula(_hermite, _hermite_traits, "degree"),
}
