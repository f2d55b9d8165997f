"""Activation functions: what phi is, in y_i = sum_j W_ij phi(y_j) + b_i.

By name, as expressions of named ones, as statistical mixtures, or from any vectorised Python callable.

>>> import igbfast as igb
>>> x = igb.activations.x
>>> igb.Ensemble(2 * igb.activations.tanh(x / 2) + 0.1, sigma_w2=1.5).activation
Activation('2 * tanh(0.5 * x) + 0.1')
"""

from __future__ import annotations

import ast
import math
import operator
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _checks, _core, _from_torch
from ._custom import Custom
from ._expressions import Function, Mixture, Named, Product, Sum, combined
from ._formulas import FORMULAS
from ._tabulate import Source, Table, UnresolvedError, jump_sizes, tabulate

__all__ = [
    "Activation",
    "abs",
    "celu",
    "cos",
    "elu",
    "erf",
    "exp",
    "gaussian",
    "gelu",
    "gelu_tanh",
    "hard_sigmoid",
    "hardtanh",
    "hermite",
    "leaky_relu",
    "linear",
    "mish",
    "mixture",
    "polynomial",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "softplus",
    "softsign",
    "step",
    "swish",
    "tanh",
    "tanh_like",
    "x",
]

_ALIASES = {"swish": "silu", "identity": "linear"}

# Largest variances that tables are made for: the smallest that suffices is taken.
_TIERS = (64.0, 1e4, 1e6, 1e8, 1e16, 1e60, 1e300)
_MOST_TABLES = 64


class Activation:
    """An activation function phi, applied to every node alike.

    Instances are immutable and hashable; two of them are equal when they are built alike: by name and parameters, as
    expressions, or from the same callables.

    Called with numbers, an activation gives phi there. Called with `a * x + b`, where `x = igb.activations.x`, it gives
    the activation of the scaled and shifted argument. Numbers and activations add, subtract and multiply.

    Parameters
    ----------
    name : str
        Such as `"tanh"`; a parameter may be written along, as in `"leaky_relu(0.2)"` or `"polynomial(1, 0, -0.3)"`, and
        so may expressions, as in `"2 * tanh(x / 2) + 0.1"`. The page on activations lists the names.
    parameter : float, optional
        Of the functions with one parameter (`leaky_relu`, `elu`, `celu`, `hermite`): what it is. The others have none.

    Raises
    ------
    ValueError
        For an unknown name (the message lists the known ones and the nearest) and for a parameter where there is none.
    TypeError
        If the name is not a string or the parameter not a number.

    Examples
    --------
    >>> import numpy as np
    >>> import igbfast as igb
    >>> phi = igb.Activation("leaky_relu(0.2)")
    >>> phi
    Activation('leaky_relu(0.2)')
    >>> phi(np.array([-1.0, 0.0, 2.0]))
    array([-0.2,  0. ,  2. ])
    >>> phi.derivative(np.array([-1.0, 2.0]))
    array([0.2, 1. ])
    >>> x = igb.activations.x
    >>> igb.activations.gelu(x - 1) == igb.Activation("gelu(x - 1)")
    True
    """

    __slots__ = ("_function",)
    __array_ufunc__ = None  # NumPy numbers leave arithmetic to us

    _function: Function | Mixture

    def __init__(self, name: str, parameter: float | None = None) -> None:
        if not isinstance(name, str):
            raise TypeError(f"the name of an activation must be a string, got {_checks.shown(name)}")
        object.__setattr__(self, "_function", _read(name, parameter))

    @classmethod
    def custom(
        cls,
        fn: Callable[[NDArray[np.float64]], ArrayLike],
        derivative: Callable[[NDArray[np.float64]], ArrayLike] | None = None,
        kinks: Iterable[float] = (),
        name: str | None = None,
    ) -> Activation:
        """Any vectorised Python callable as an activation.

        It is approximated by Chebyshev series, panel by panel, to rounding, and everything is computed with these.
        `error` says how well that worked; what cannot be approximated is an error, never a wrong number.

        Parameters
        ----------
        fn : callable
            phi: takes a float64 array of one dimension and returns its values, an array of the same shape.
        derivative : callable, optional
            phi', the same way. Without it, derivatives are those of the series: phi' to about 1e-13, phi'' to 1e-10.
        kinks : iterable of float
            Where phi or a derivative jumps. Those not given are searched for; giving them is faster and surer.
        name : str, optional
            What to call it in results and messages; by default the name of the callable.

        Returns
        -------
        Activation

        Raises
        ------
        TypeError
            If `fn` is not callable, does not return an array of real numbers of the shape of its argument, or one of
            the other arguments is of the wrong type.
        ValueError
            If phi is not finite, not the same when called again, grows too fast for Gaussian integrals, cannot be
            resolved, or if `derivative` is not its derivative.

        Examples
        --------
        >>> import numpy as np
        >>> import igbfast as igb
        >>> phi = igb.Activation.custom(lambda x: np.where(x > 0.3, x - 0.3, 0.0), name="late_relu")
        >>> phi.kinks
        (0.3,)
        >>> phi.error < 1e-14
        True
        """
        return cls._of(Custom.checked(fn, derivative, kinks, name))

    @classmethod
    def _of(cls, function: Function | Mixture) -> Activation:
        made = object.__new__(cls)
        object.__setattr__(made, "_function", function)
        return made

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"an Activation cannot be changed: {name}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"an Activation cannot be changed: {name}")

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self._function,)

    def __eq__(self, other: object) -> bool:
        return self._function == other._function if isinstance(other, Activation) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._function)

    def __str__(self) -> str:
        return str(self._function)

    def __repr__(self) -> str:
        return f"Activation({str(self)!r})"

    # ---- What it is ----

    @property
    def name(self) -> str:
        """Name of the function; of an expression, the expression."""
        return self._function.name if isinstance(self._function, Named) else str(self)

    @property
    def parameter(self) -> float:
        """The parameter of a function that has one; otherwise 0.0."""
        parameters = self._function.parameters if isinstance(self._function, Named) else ()
        return parameters[0] if len(parameters) == 1 else 0.0

    @property
    def components(self) -> tuple[tuple[float, Activation], ...]:
        """Weights and activations of a mixture; of any other activation, itself with weight 1."""
        return tuple((weight, Activation._of(f)) for weight, f in self._shares)

    @property
    def kinks(self) -> tuple[float, ...]:
        """Where phi or one of its derivatives jumps, ascending."""
        return tuple(sorted({kink for f in self._functions for kink in f.traits.kinks}))

    @property
    def parity(self) -> int:
        """1 if phi(-x) = phi(x), -1 if phi(-x) = -phi(x), 0 if neither is known."""
        found = {_parity(f) for f in self._functions}
        return found.pop() if len(found) == 1 else 0

    @property
    def monotone(self) -> int:
        """1 if phi never falls, -1 if it never rises, 0 if neither is known."""
        found = {f.traits.monotone for f in self._functions}
        return found.pop() if len(found) == 1 else 0

    @property
    def asymptotes(self) -> tuple[float, float] | None:
        """Limits of phi(x) / x as x goes to -inf and to +inf; None where one is not finite.

        Of a mixture, the root mean squares: what the growth of a variance depends on.
        """
        found = [(weight, f.traits.asymptotes) for weight, f in self._shares]
        slopes = [(weight, pair) for weight, pair in found if pair is not None]
        if len(slopes) < len(found):
            return None
        if len(slopes) == 1:
            return slopes[0][1]
        low, high = (math.sqrt(math.fsum(weight * pair[i] ** 2 for weight, pair in slopes)) for i in (0, 1))
        return low, high

    @property
    def orders(self) -> int:
        """How many derivatives, of at most 2, are functions with finite E[phi^(m)^2]: `step` 0, `relu` 1, `tanh` 2.

        A jump of phi leaves no phi', a jump of phi' no phi''.
        """
        return min(_orders(f) for f in self._functions)

    @property
    def error(self) -> float | None:
        """Error of the approximation that expectations are computed with, relative to the largest |phi| nearby.

        None for `linear`, `relu`, `leaky_relu`, `abs`, `tanh` and `erf`, which need no approximation.
        """
        errors = [_largest_table(f).error for f in self._functions if f.core is None]
        return max(errors) if errors else None

    @property
    def _shares(self) -> tuple[tuple[float, Function], ...]:
        return self._function.components if isinstance(self._function, Mixture) else ((1.0, self._function),)

    @property
    def _functions(self) -> list[Function]:
        return [f for _, f in self._shares]

    # ---- Values ----

    def __call__(self, x: Any) -> Any:
        """Value phi(x); or, for `x` an activation a x + b, the activation phi(a x + b).

        Parameters
        ----------
        x : array_like or Activation
            Real numbers of any shape, or a multiple of `igb.activations.x` plus a constant.

        Returns
        -------
        ndarray or scalar, or Activation
            The shape of `x`; float32 and float64 are kept, float16 becomes float32, other real types float64.

        Raises
        ------
        TypeError
            If `x` holds anything but real numbers, if it is an activation that is not of the form a x + b, and for a
            mixture, which is not one function.

        Examples
        --------
        >>> import igbfast as igb
        >>> float(igb.activations.tanh(0.0))
        0.0
        >>> igb.activations.tanh(2 * igb.activations.x)
        Activation('tanh(2 * x)')
        """
        if isinstance(x, Activation):
            return self._composed(x)
        return self._evaluated(0, x)

    def derivative(self, x: ArrayLike, order: int = 1) -> Any:
        """Derivative of phi; where it jumps, the one on the left (0 for `relu` at 0).

        Parameters
        ----------
        x : array_like
            Real numbers of any shape.
        order : int
            1 or 2. Jumps of what is differentiated are left out: the derivative of `step` is 0.

        Returns
        -------
        ndarray or scalar
            As for the value.

        Raises
        ------
        TypeError
            If `x` holds anything but real numbers, and for a mixture.
        ValueError
            If `order` is neither 1 nor 2.

        Examples
        --------
        >>> import igbfast as igb
        >>> float(igb.activations.tanh.derivative(0.0))
        1.0
        >>> float(igb.activations.gaussian.derivative(0.0, order=2))
        -2.0
        """
        return self._evaluated(_checks.integer("order", order, 1, 2), x)

    def _evaluated(self, order: int, x: ArrayLike) -> Any:
        function = self._one_function("has no single value at x")
        array = _checks.real_array("x", x)
        wide = array.astype(np.float64)
        with np.errstate(all="ignore"):
            known = order <= function.exact
            values = function.jet(wide, order) if known else _by_table(function, wide, order)
            values = np.where(np.isnan(wide), np.nan, values).astype(array.dtype)
        return values[()]  # a scalar for a scalar

    def _one_function(self, why: str) -> Function:
        if isinstance(self._function, Mixture):
            raise TypeError(f"{self} {why}: each node draws its own activation; see its components")
        return self._function

    # ---- Expressions ----

    def _composed(self, inner: Activation) -> Activation:
        affine = _affine(inner._function)
        if affine is None:
            raise TypeError(f"an activation can be applied to numbers or to a * x + b, got Activation({str(inner)!r})")
        if isinstance(self._function, Mixture):
            return Activation._of(
                Mixture(tuple((weight, _shifted(f, *affine)) for weight, f in self._function.components))
            )
        return Activation._of(_shifted(self._function, *affine))

    def _plus(self, factor: float, other: object, factor_other: float) -> Activation:
        function = self._one_function("cannot be added to")
        if isinstance(other, Activation):
            g = other._one_function("cannot be added to")
            return Activation._of(combined([(factor, function), (factor_other, g)], 0.0))
        if not _is_number(other):
            return NotImplemented  # type: ignore[no-any-return]
        constant = _checks.finite("the constant added to an activation", other)
        return Activation._of(combined([(factor, function)], factor_other * constant))

    def __add__(self, other: object) -> Activation:
        return self._plus(1.0, other, 1.0)

    def __radd__(self, other: object) -> Activation:
        return self._plus(1.0, other, 1.0)

    def __sub__(self, other: object) -> Activation:
        return self._plus(1.0, other, -1.0)

    def __rsub__(self, other: object) -> Activation:
        return self._plus(-1.0, other, 1.0)

    def __neg__(self) -> Activation:
        return self._plus(-1.0, 0.0, 1.0)

    def __pos__(self) -> Activation:
        return self

    def __mul__(self, other: object) -> Activation:
        function = self._one_function("cannot be multiplied")
        if isinstance(other, Activation):
            g = other._one_function("cannot be multiplied")
            for constant, varying in ((function, g), (g, function)):
                if isinstance(constant, Sum) and not constant.terms:
                    return Activation._of(combined([(constant.constant, varying)], 0.0))
            return Activation._of(Product(function, g))
        if not _is_number(other):
            return NotImplemented
        factor = _checks.finite("the factor of an activation", other)
        return Activation._of(combined([(factor, function)], 0.0))

    __rmul__ = __mul__

    def __truediv__(self, other: object) -> Activation:
        if not _is_number(other):
            return NotImplemented
        divisor = _checks.finite("the divisor of an activation", other)
        if divisor == 0.0:
            raise ValueError("the divisor of an activation must not be zero")
        function = self._one_function("cannot be divided")
        if isinstance(function, Sum):
            divided = [(factor / divisor, f) for factor, f in function.terms]
            return Activation._of(combined(divided, function.constant / divisor))
        return Activation._of(combined([(1.0 / divisor, function)], 0.0))

    # ---- For the compiled core ----

    def _core_phi(self, q_max: float, table: bool = False) -> _core.Phi:
        """The function as the core integrates it, for variances up to `q_max`; `table` even where it has own rules."""
        phis = [_phi_of(f, q_max, table) for f in self._functions]
        if len(phis) == 1:
            return phis[0]
        return _core.Phi(components=[(weight, phi) for (weight, _), phi in zip(self._shares, phis, strict=True)])


def _unpickled(function: Function | Mixture) -> Activation:
    return Activation._of(function)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, complex, np.generic)) and not isinstance(value, (bool, np.bool_))


def _parity(function: Function) -> int:
    traits = function.traits
    return 1 if traits.even else -1 if traits.centre == 0.0 else 0


def _affine(function: Function | Mixture) -> tuple[float, float] | None:
    """a and b of a x + b."""
    line = Named("linear")
    if function == line:
        return 1.0, 0.0
    if isinstance(function, Sum) and all(f == line for _, f in function.terms):
        return math.fsum(factor for factor, _ in function.terms), function.constant
    return None


def _shifted(function: Function, a: float, b: float) -> Function:
    if a != 0.0:
        return function.of(a, b)
    with np.errstate(all="ignore"):
        return combined([], float(function.jet(np.array([b]), 0)[0]))


# ---- Tables: one per function and reach, kept ------------------------------------------------------------------------

_lock = threading.RLock()
_tables: OrderedDict[Function, dict[float, tuple[Table, _core.Phi]]] = OrderedDict()
_too_far: OrderedDict[Function, float] = OrderedDict()


def _source(function: Function) -> Source:
    def jet(order: int) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
        return lambda x: function.jet(x, order)

    jets = tuple(jet(order) for order in range(function.exact + 1))
    traits = function.traits
    if function.unknown:  # what holds where it was looked at need not hold further out
        return Source(jets, traits.kinks, unknown=True)
    return Source(jets, traits.kinks, _parity(function), traits.monotone)


def _phi_of(function: Function, q_max: float, table: bool) -> _core.Phi:
    if function.core is not None and not table:
        kind, parameter = function.core
        return _core.Phi(kind=kind, parameter=parameter)
    return _table_for(function, q_max)[1]


def _table_for(function: Function, q_max: float) -> tuple[Table, _core.Phi]:
    """For all variances up to `q_max`: the least of the tiers, or as far as needed where that is too far."""
    with _lock:
        kept = _tables.setdefault(function, {})
        _tables.move_to_end(function)
        while len(_tables) > _MOST_TABLES:
            _tables.popitem(last=False)
        tier = min((tier for tier in _TIERS if tier >= q_max), default=q_max)
        found = min((reach for reach in kept if q_max <= reach <= tier), default=None)
        if found is None:
            found, made = _made(function, q_max, tier)
            kept[found] = (made, _core.Phi(table=made.in_core()))
        return kept[found]


def _made(function: Function, q_max: float, tier: float) -> tuple[float, Table]:
    beyond = _too_far.get(function, math.inf)
    reaches = [tier, *(reach for reach in (max(4.0 * q_max, 0.01), max(1.01 * q_max, 0.01)) if reach < tier)]
    for reach in reaches:
        if reach >= beyond and reach != reaches[-1]:
            continue
        try:
            with np.errstate(all="ignore"):
                return reach, tabulate(_source(function), reach)
        except UnresolvedError as error:
            _too_far[function] = min(reach, _too_far.get(function, math.inf))
            if len(_too_far) > _MOST_TABLES:
                _too_far.popitem(last=False)
            reason = error
    raise ValueError(
        f"activation {str(function)!r} {reason}; its expectations at q = {q_max:.6g} cannot be computed"
    ) from None


def _largest_table(function: Function) -> Table:
    """A table of a function for q up to 64, or as far as it goes where it grows too fast for that."""
    for q in (64.0, 16.0, 4.0, 1.0, 0.25):
        try:
            return _table_for(function, q)[0]
        except ValueError:
            if q == 0.25:
                raise
    raise AssertionError


def _orders(function: Function) -> int:
    if function.unknown:
        table = _largest_table(function)
        jumps = [bool(np.any(table.jumps)), bool(np.any(table.slope_jumps))]
    else:
        with np.errstate(all="ignore"):
            jumps = list(jump_sizes(_source(function)))
    return [*jumps, True].index(True)


def _by_table(function: Function, x: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """A derivative that has no formula, from a table that reaches far enough."""
    finite = x[np.isfinite(x)]
    reach = float(np.max(np.fabs(finite), initial=0.0))
    table = _table_for(function, max(1.0, (reach / 12.0) ** 2))[0]
    values = np.full(x.shape, np.nan)
    values[np.isfinite(x)] = table(finite, order)
    return values


# ---- Names and expressions as text -----------------------------------------------------------------------------------

_WRITTEN = re.compile(r"\s*([A-Za-z_]\w*)\s*(?:\(([^()]*)\))?\s*")


def _read(text: str, parameter: float | None) -> Function | Mixture:
    written = _WRITTEN.fullmatch(text)
    if written is None or written[1] == "mixture":
        return _expression(text, parameter)
    name, inside = _ALIASES.get(written[1], written[1]), written[2]
    if name == "x" and inside is None:
        name = "linear"
    if name not in FORMULAS:
        raise _unknown(text.strip(), name)
    if inside is not None and not FORMULAS[name].parameters:
        if not _reads_as_number(inside):
            return _expression(text, parameter)
        raise ValueError(f"activation {name!r} has no parameter, got {inside.strip()}")
    if inside is not None:
        if parameter is not None:
            raise ValueError(f"activation {text!r} already has its parameter, got parameter={parameter!r} as well")
        return _named(name, [_written_parameter(text, part) for part in inside.split(",")])
    return _named(name, [] if parameter is None else [parameter])


def _expression(text: str, parameter: float | None) -> Function | Mixture:
    if parameter is not None:
        raise ValueError(f"activation {text!r} takes no parameter, got parameter={parameter!r}")
    return _Reader(text).function()


def _unknown(shown: str, name: str) -> ValueError:
    known = [*FORMULAS, *_ALIASES]
    nearest = _checks.nearest(name[:80], known)
    return ValueError(f"unknown activation {_checks.shown(shown)}; known are {', '.join(known)}{nearest}")


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _written_parameter(written: str, text: str) -> float:
    if not _reads_as_number(text):
        raise ValueError(f"the parameter in activation {written!r} must be a finite number, got {text.strip()!r}")
    return float(text)


def _named(name: str, parameters: Sequence[object]) -> Named:
    """A function by its name and checked parameters."""
    formula = FORMULAS[name]
    what = f"the parameter of activation {name!r}"
    if formula.parameters == "many":
        if not parameters:
            raise ValueError(f"activation {name!r} needs its coefficients, such as {name}(1, 0, -0.3)")
        coefficients = [_checks.finite(f"every coefficient of activation {name!r}", c) + 0.0 for c in parameters]
        while len(coefficients) > 1 and coefficients[-1] == 0.0:
            coefficients.pop()
        return Named(name, tuple(coefficients))
    if not formula.parameters:
        if any(_checks.finite(what, value) != 0.0 for value in parameters):
            raise ValueError(f"activation {name!r} has no parameter, got {_checks.shown(parameters[0])}")
        return Named(name)
    if len(parameters) > 1:
        raise ValueError(f"activation {name!r} has one parameter, got {len(parameters)}")
    if not parameters and formula.default is None:
        raise ValueError(f"activation {name!r} needs its parameter, such as {name}(3)")
    value = parameters[0] if parameters else formula.default
    if formula.parameters == "positive":
        return Named(name, (_checks.positive_finite(what, value),))
    number = _checks.finite(what, value) + 0.0
    if formula.parameters == "degree" and not (number.is_integer() and 0.0 <= number <= _HIGHEST_DEGREE):
        raise ValueError(f"{what} must be an integer from 0 to {_HIGHEST_DEGREE}, got {_checks.shown(value)}")
    return Named(name, (number,))


_HIGHEST_DEGREE = 100
_OPERATIONS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


class _Reader:
    """Reads an expression such as `2 * tanh(x / 2) + 0.1`: numbers, names, calls and + - * / alone."""

    def __init__(self, text: str) -> None:
        self.text = text

    def function(self) -> Function | Mixture:
        try:
            tree = ast.parse(self.text.strip(), mode="eval").body
            value = self.value(tree)
        except (SyntaxError, RecursionError, MemoryError):
            raise _unknown(self.text, self.text) from None
        return value._function if isinstance(value, Activation) else combined([], value)

    def value(self, node: ast.expr) -> Activation | float:
        match node:
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                return _checks.finite(f"every number in activation {self.text!r}", number)
            case ast.Name(id=name):
                return Activation(name)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
                value = self.value(operand)
                return -value if isinstance(sign, ast.USub) else value
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATIONS:
                return self.combined(self.value(left), type(op), self.value(right))
            case ast.Call(func=ast.Name(id="mixture"), args=parts, keywords=[]):
                return mixture([self.component(part) for part in parts])
            case ast.Call(func=function, args=parts, keywords=[]):
                return self.called(function, [self.value(part) for part in parts])
        raise ValueError(
            f"an activation is made of numbers, names, calls and + - * /, got {ast.unparse(node)!r} in {self.text!r}"
        )

    def combined(
        self, left: Activation | float, op: type[ast.operator], right: Activation | float
    ) -> Activation | float:
        try:
            value: Activation | float = _OPERATIONS[op](left, right)
        except (ZeroDivisionError, OverflowError):
            raise ValueError(f"activation {self.text!r} divides by zero") from None
        except TypeError:
            raise ValueError(f"activation {self.text!r} divides by an activation") from None
        return value

    def called(self, function: ast.expr, arguments: list[Activation | float]) -> Activation:
        numbers = [value for value in arguments if not isinstance(value, Activation)]
        if isinstance(function, ast.Name) and len(numbers) == len(arguments):
            name = _ALIASES.get(function.id, function.id)
            if name in FORMULAS:
                return Activation._of(_named(name, numbers))
        phi = self.value(function)
        if isinstance(phi, Activation) and len(arguments) == 1 and not numbers:
            composed = phi(arguments[0])
            if isinstance(composed, Activation):
                return composed
        raise _unknown(self.text, self.text)

    def component(self, node: ast.expr) -> tuple[float, Activation]:
        if isinstance(node, ast.Tuple) and len(node.elts) == 2:
            weight, phi = (self.value(part) for part in node.elts)
            if isinstance(phi, Activation) and not isinstance(weight, Activation):
                return weight, phi
        raise ValueError(f"a mixture is written mixture((0.5, tanh), (0.5, relu)), got {self.text!r}")


# ---- What callers may give -------------------------------------------------------------------------------------------


def as_activation(value: object) -> Activation:
    """What a caller gave as an activation: one already, its name, or the PyTorch function, module or class of it."""
    if isinstance(value, Activation):
        return value
    if isinstance(value, str):
        return Activation(value)
    for family in (leaky_relu, elu, celu, polynomial, hermite, mixture):
        if value is family:
            raise TypeError(
                f"activation must be a name or an Activation; {family.__name__} needs its {_NEEDS[family.__name__]}"
            )
    written = _from_torch.expression(value)
    if written is not None:
        return Activation(written)
    own = getattr(value, "activation", None)
    if callable(value) and isinstance(own, Activation):
        return own  # a module that computes one and says so: igbfast.torch.Phi
    hint = "; a callable becomes one by igb.Activation.custom(fn)" if callable(value) else ""
    raise TypeError(f"activation must be a name or an Activation, got {_checks.shown(value)}{hint}")


_NEEDS = {
    "leaky_relu": "slope: leaky_relu(0.01)",
    "elu": "alpha: elu(1.0)",
    "celu": "alpha: celu(1.0)",
    "polynomial": "coefficients: polynomial(1, 0, -0.3)",
    "hermite": "degree: hermite(3)",
    "mixture": 'components: mixture([(0.5, "tanh"), (0.5, "relu")])',
}

x = linear = Activation("linear")
"""phi(x) = x: also the argument of expressions, such as tanh(x / 2)."""

relu = Activation("relu")
"""phi(x) = max(x, 0)."""

abs = Activation("abs")
"""phi(x) = |x|."""

selu = Activation("selu")
"""phi(x) = 1.0507 x above zero, 1.0507 * 1.6733 (e^x - 1) below."""

tanh = Activation("tanh")
"""phi(x) = tanh(x)."""

hardtanh = Activation("hardtanh")
"""phi(x) = x, held between -1 and 1."""

relu6 = Activation("relu6")
"""phi(x) = x, held between 0 and 6."""

sigmoid = Activation("sigmoid")
"""phi(x) = 1 / (1 + e^-x)."""

hard_sigmoid = Activation("hard_sigmoid")
"""phi(x) = (x + 3) / 6, held between 0 and 1."""

erf = Activation("erf")
"""phi(x) = erf(x)."""

gelu = Activation("gelu")
"""phi(x) = x Phi(x), Phi the distribution function of N(0, 1)."""

gelu_tanh = Activation("gelu_tanh")
"""phi(x) = x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2."""

silu = swish = Activation("silu")
"""phi(x) = x / (1 + e^-x)."""

mish = Activation("mish")
"""phi(x) = x tanh(log(1 + e^x))."""

softplus = Activation("softplus")
"""phi(x) = log(1 + e^x)."""

softsign = Activation("softsign")
"""phi(x) = x / (1 + |x|)."""

tanh_like = Activation("tanh_like")
"""phi(x) = sign(x) (1 - e^-|x|)."""

sin = Activation("sin")
"""phi(x) = sin(x)."""

cos = Activation("cos")
"""phi(x) = cos(x)."""

exp = Activation("exp")
"""phi(x) = e^x."""

gaussian = Activation("gaussian")
"""phi(x) = e^(-x^2)."""

sign = Activation("sign")
"""phi(x) = -1, 0 or 1."""

step = Activation("step")
"""phi(x) = 1 above zero, otherwise 0."""


def leaky_relu(slope: float = 0.01) -> Activation:
    """phi(x) = x above zero and `slope` x below.

    Parameters
    ----------
    slope : float
        Any finite number.

    Returns
    -------
    Activation

    Raises
    ------
    ValueError, TypeError
        If `slope` is not a finite number.

    Examples
    --------
    >>> import igbfast as igb
    >>> float(igb.activations.leaky_relu(0.2)(-1.0))
    -0.2
    """
    return Activation("leaky_relu", slope)


def elu(alpha: float = 1.0) -> Activation:
    """phi(x) = x above zero and alpha (e^x - 1) below.

    Parameters
    ----------
    alpha : float
        Any finite number.

    Returns
    -------
    Activation

    Raises
    ------
    ValueError, TypeError
        If `alpha` is not a finite number.

    Examples
    --------
    >>> import igbfast as igb
    >>> igb.activations.elu(0.5).orders  # its slope jumps at zero, that of elu(1) does not
    1
    """
    return Activation("elu", alpha)


def celu(alpha: float = 1.0) -> Activation:
    """phi(x) = x above zero and alpha (e^(x / alpha) - 1) below.

    Parameters
    ----------
    alpha : float
        Any positive finite number.

    Returns
    -------
    Activation

    Raises
    ------
    ValueError, TypeError
        If `alpha` is not a positive finite number.

    Examples
    --------
    >>> import igbfast as igb
    >>> igb.activations.celu(0.5).asymptotes
    (0.0, 1.0)
    """
    return Activation("celu", alpha)


def polynomial(*coefficients: float) -> Activation:
    """phi(x) = c0 + c1 x + c2 x^2 + ...

    Parameters
    ----------
    *coefficients : float
        c0, c1, c2, ...: finite numbers, one at least.

    Returns
    -------
    Activation

    Raises
    ------
    ValueError, TypeError
        If a coefficient is not a finite number, or none is given.

    Examples
    --------
    >>> import igbfast as igb
    >>> float(igb.activations.polynomial(1, 0, -0.5)(2.0))
    -1.0
    """
    return Activation._of(_named("polynomial", coefficients))


def hermite(degree: int, *, normalised: bool = False) -> Activation:
    """phi(x) = He_n(x), the Hermite polynomial that is orthogonal under N(0, 1): x^2 - 1 for n = 2.

    Parameters
    ----------
    degree : int
        n, from 0 to 100.
    normalised : bool
        Whether to divide by sqrt(n!), so that E[phi(z)^2] = 1 for z ~ N(0, 1).

    Returns
    -------
    Activation

    Raises
    ------
    ValueError, TypeError
        If `degree` is not an integer from 0 to 100.

    Examples
    --------
    >>> import igbfast as igb
    >>> float(igb.activations.hermite(2)(3.0))
    8.0
    """
    unit = Activation("hermite", _checks.integer("degree", degree, 0, _HIGHEST_DEGREE))
    if not _checks.flag("normalised", normalised):
        return unit
    return unit * math.exp(-0.5 * math.lgamma(degree + 1.0)) if degree > 1 else unit


def mixture(components: Iterable[tuple[float, object]]) -> Activation:
    """A statistical mixture: every node draws its activation, independently, with these probabilities.

    Expectations are those over nodes, sums of the components' own. (For the sum of functions, applied to every node
    alike, add activations instead.)

    Parameters
    ----------
    components : iterable of (weight, activation)
        Weights positive, of sum 1 to 1e-12; activations as anywhere.

    Returns
    -------
    Activation

    Raises
    ------
    ValueError
        If weights are not positive or do not sum to 1, or there is no component.
    TypeError
        If a component is not a pair of a weight and an activation.

    Examples
    --------
    >>> import igbfast as igb
    >>> igb.activations.mixture([(0.5, "tanh"), (0.5, "relu")])
    Activation('mixture((0.5, tanh), (0.5, relu))')
    """
    parts: list[tuple[float, Function]] = []
    if isinstance(components, (str, Activation)) or not isinstance(components, Iterable):
        raise TypeError(f"components must be pairs of a weight and an activation, got {_checks.shown(components)}")
    for component in components:
        if not (isinstance(component, (tuple, list)) and len(component) == 2):
            raise TypeError(f"components must be pairs of a weight and an activation, got {_checks.shown(component)}")
        weight = _checks.positive_finite("every weight of a mixture", component[0])
        phi = as_activation(component[1])
        parts.extend((weight * share, f) for share, f in phi._shares)
    total = math.fsum(weight for weight, _ in parts)
    if math.fabs(total - 1.0) > 1e-12:
        raise ValueError(f"the weights of a mixture must sum to 1, got {total!r}")
    merged: dict[Function, float] = {}
    for weight, f in parts:
        merged[f] = merged.get(f, 0.0) + weight
    if len(merged) == 1:
        return Activation._of(parts[0][1])
    return Activation._of(Mixture(tuple((weight, f) for f, weight in merged.items())))
