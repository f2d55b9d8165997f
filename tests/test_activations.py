"""Activations by name and as expressions: values against NumPy, SciPy and mpmath, types, and how names are read."""

import math
import pickle

import numpy as np
import pytest
import scipy.special
from activations_exactly import EXACT, KINKS, derivative
from hypothesis import given
from hypothesis import strategies as st

import igbfast as igb
from igbfast._tabulate import Table
from igbfast.activations import _table_for, as_activation

# Name -> value and slope, written with NumPy and SciPy alone.
EXPECTED = {
    "linear": (lambda x: x, np.ones_like),
    "relu": (lambda x: np.maximum(x, 0), lambda x: np.where(x > 0, 1.0, 0.0)),
    "leaky_relu(0.2)": (lambda x: np.where(x > 0, x, 0.2 * x), lambda x: np.where(x > 0, 1.0, 0.2)),
    "tanh": (np.tanh, lambda x: 1.0 / np.cosh(x) ** 2),
    "erf": (scipy.special.erf, lambda x: 2.0 / math.sqrt(math.pi) * np.exp(-(x**2))),
}
X = np.concatenate([-np.geomspace(1e-8, 20.0, 60)[::-1], np.geomspace(1e-8, 20.0, 60)])


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_value_and_slope(name, dtype):
    x = X.astype(dtype)
    value, slope = (expected(x.astype(np.float64)) for expected in EXPECTED[name])
    phi = igb.Activation(name)
    tolerance = 8 * np.finfo(dtype).eps
    np.testing.assert_allclose(phi(x), value, rtol=tolerance)
    # A slope far out in the tail may be smaller than the rounding of its argument allows to know.
    np.testing.assert_allclose(phi.derivative(x), slope, rtol=100 * tolerance, atol=tolerance)


@pytest.mark.parametrize("name", EXPECTED)
def test_derivative_is_the_limit_of_differences(name):
    phi, x, h = igb.Activation(name), np.linspace(-3.0, 3.0, 101)[::2] + 0.013, 1e-5
    np.testing.assert_allclose((phi(x + h) - phi(x - h)) / (2 * h), phi.derivative(x), atol=1e-9)


def test_slope_at_the_kink_is_the_left_one():
    assert igb.activations.relu.derivative(0.0) == 0.0
    assert igb.activations.leaky_relu(0.2).derivative(0.0) == 0.2


@pytest.mark.parametrize(
    ("given_type", "kept"),
    [("f4", "f4"), ("f8", "f8"), ("f2", "f4"), ("i4", "f8"), ("u1", "f8"), (">f8", "f8")],
)
def test_types(given_type, kept):
    assert igb.activations.tanh(np.ones(3, given_type)).dtype == np.dtype(kept)


@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3), (2, 0, 3)])
def test_shapes(shape):
    assert np.shape(igb.activations.tanh(np.zeros(shape))) == shape


def test_takes_scalars_lists_and_strided_arrays():
    assert igb.activations.relu(-1) == 0.0
    np.testing.assert_array_equal(igb.activations.relu([-1, 2]), [0.0, 2.0])
    x = np.arange(-6.0, 6.0).reshape(3, 4).T[::2]
    np.testing.assert_array_equal(igb.activations.relu(x), np.maximum(x, 0.0))


@pytest.mark.parametrize("bad", [1j, "a", [True], [None], np.array(["x"])])
def test_refuses_anything_but_real_numbers(bad):
    with pytest.raises(TypeError, match="x must be real numbers, got dtype"):
        igb.activations.tanh(bad)


def test_nan_stays_nan():
    assert np.isnan(igb.activations.tanh(np.nan))
    np.testing.assert_array_equal(igb.activations.tanh([np.inf, -np.inf]), [1.0, -1.0])


def test_names():
    assert igb.Activation("leaky_relu") == igb.activations.leaky_relu() == igb.Activation("leaky_relu", 0.01)
    assert igb.Activation(" leaky_relu( 0.2 ) ") == igb.Activation("leaky_relu", 0.2)
    assert igb.Activation("tanh", 0.0) == igb.activations.tanh
    assert str(igb.activations.erf) == "erf"
    assert repr(igb.Activation("leaky_relu", 0.2)) == "Activation('leaky_relu(0.2)')"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_slope_survives_its_name_and_pickle(slope):
    phi = igb.activations.leaky_relu(slope)
    assert igb.Activation(str(phi)) == phi
    assert hash(igb.Activation(str(phi))) == hash(phi)
    assert pickle.loads(pickle.dumps(phi)) == phi


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Tanh", r"unknown activation 'Tanh'; known are .*; did you mean 'tanh'\?"),
        ("leakyrelu", r"did you mean 'leaky_relu'\?"),
        ("sigmoud", r"did you mean 'sigmoid'\?"),
        ("", "unknown activation ''; known are linear, relu, leaky_relu, abs, elu, .* hermite, swish, identity$"),
        ("Tanh(x / 2)", r"unknown activation 'Tanh\(x / 2\)'.*did you mean 'tanh'\?"),
        ("tanh(foo)", "unknown activation 'foo'"),
        ("tanh(x", "unknown activation"),
        ("(" * 300 + "x" + ")" * 300, "unknown activation"),
        ("-" * 5000 + "x", "unknown activation"),
        ("__import__('os')", "unknown activation"),
        ("x ** 2", r"made of numbers, names, calls and \+ - \* /, got 'x \*\* 2'"),
        ("1 / 0 * x", "divides by zero"),
        ("x / tanh", "divides by an activation"),
        ("1e999 * x", "every number in activation '1e999 \\* x' must be a finite number, got inf"),
        ("2 * tanh(3)", "activation 'tanh' has no parameter, got 3.0"),
        ("elu(1, 2)", "activation 'elu' has one parameter, got 2"),
        ("celu(0)", "the parameter of activation 'celu' must be a positive finite number, got 0.0"),
        ("polynomial", "activation 'polynomial' needs its coefficients"),
        ("polynomial(1, inf)", "every coefficient of activation 'polynomial' must be a finite number, got inf"),
        ("hermite", "activation 'hermite' needs its parameter"),
        ("hermite(2.5)", "the parameter of activation 'hermite' must be an integer from 0 to 100, got 2.5"),
        ("hermite(-1)", "must be an integer from 0 to 100, got -1.0"),
        ("mixture((0.5, tanh), (0.4, relu))", "the weights of a mixture must sum to 1, got 0.9"),
        ("mixture(tanh, relu)", "a mixture is written"),
        ("tanh(0.2)", "activation 'tanh' has no parameter, got 0.2"),
        ("leaky_relu(x)", r"the parameter in activation 'leaky_relu\(x\)' must be a finite number, got 'x'"),
        ("leaky_relu()", "must be a finite number, got ''"),
        ("leaky_relu(nan)", "the parameter of activation 'leaky_relu' must be a finite number, got nan"),
        ("leaky_relu(0.1)(0.2)", "unknown activation"),
    ],
)
def test_names_it_does_not_know(name, message):
    with pytest.raises(ValueError, match=message):
        igb.Activation(name)


def test_wrong_types():
    with pytest.raises(TypeError, match="the name of an activation must be a string, got 3"):
        igb.Activation(3)
    with pytest.raises(TypeError, match="parameter of activation 'leaky_relu' must be a finite number, got '0.1'"):
        igb.Activation("leaky_relu", "0.1")
    with pytest.raises(ValueError, match="already has its parameter"):
        igb.Activation("leaky_relu(0.2)", 0.3)
    with pytest.raises(ValueError, match="'tanh' has no parameter, got 0.5"):
        igb.Activation("tanh", 0.5)


# ---- Every name: formulas and tables against mpmath ------------------------------------------------------------------

POINTS = np.concatenate(
    [[-30.0, -15.3, -9.0, -5.5, -2.6, -1.1, -0.3, -1e-8, 1e-8, 0.01, 0.7, 0.9999], [1.0001, 1.7, 2.9, 4.4, 7.0, 25.0]]
)


def exactly(name, x, order):
    return np.array([float(derivative(name, point, order)) for point in x])


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("order", [0, 1, 2])
def test_formulas_to_their_last_digits(name, order):
    phi = igb.Activation(name)
    found = phi.derivative(POINTS, order) if order else phi(POINTS)
    # 1e-40: what the difference quotients in mpmath are good for
    np.testing.assert_allclose(found, exactly(name, POINTS, order), rtol=1e-14, atol=1e-40)


@pytest.mark.parametrize("name", EXACT)
def test_float32_is_the_rounded_value(name):
    x = POINTS.astype(np.float32)
    np.testing.assert_allclose(igb.Activation(name)(x), exactly(name, x, 0), rtol=6e-7, atol=1e-37)


@pytest.mark.parametrize("name", EXACT)
def test_far_out_and_at_nan(name):
    phi = igb.Activation(name)
    low, high = phi.asymptotes or (np.nan, np.nan)
    if phi.asymptotes:
        np.testing.assert_allclose(phi(np.array([-1e100, 1e100])) / 1e100, [-low, high], atol=1e-90)
        assert not np.any(np.isnan(phi.derivative(np.array([-1e100, 1e100]), 2)))
    assert np.isnan(phi(np.nan))


def by_series(table: Table, x, order):
    """The table at x, summed by NumPy's own Chebyshev module, a panel at a time."""
    values = []
    for point in x:
        p = int(np.searchsorted(table.edges, point, side="right")) - 1
        a, b = table.edges[p], table.edges[p + 1]
        series = (table.value, table.slope, table.curvature)[order][p]
        value = np.polynomial.chebyshev.chebval(((point - a) - (b - point)) / (b - a), series)
        values.append(point * value if table.by_x[order][p] else value)
    return np.array(values)


@pytest.mark.parametrize("name", EXACT)
def test_tables_hold_the_function_and_its_derivatives(name):
    random = np.random.default_rng(3)
    table = _table_for(igb.Activation(name)._function, 64.0)[0]
    panels = random.choice(table.edges.size - 1, min(table.edges.size - 1, 24), replace=False)
    a, b = table.edges[panels], table.edges[panels + 1]
    x = a + (b - a) * random.uniform(0.001, 0.999, panels.size)
    for order, series in enumerate((table.value, table.slope, table.curvature)):
        # relative to the largest value on the panel; what is below 1e-25 next to a largest near 1 counts absolutely
        largest = np.abs(series[panels]).sum(axis=1) * np.where(table.by_x[order][panels], np.maximum(-a, b), 1.0)
        error = np.abs(by_series(table, x, order) - exactly(name, x, order))
        assert np.max(error / np.maximum(largest, 1e-25)) < 1e-13, (order, x)


@pytest.mark.parametrize("name", [name for name in EXACT if igb.Activation(name)(0.0) == 0.0])
def test_tables_keep_relative_accuracy_next_to_zero(name):
    x = np.array([-1e-200, 1e-200, -1e-30, 1e-30, -3e-9, 3e-9, -2e-4, 2e-4])
    table = _table_for(igb.Activation(name)._function, 64.0)[0]
    np.testing.assert_allclose(by_series(table, x, 0), exactly(name, x, 0), rtol=2e-15)


@pytest.mark.parametrize("expression", ["polynomial(0, 0, 1)", "x - tanh", "1 - cos", "x * tanh(x)"])
def test_tables_keep_it_also_where_phi_starts_flat(expression):
    # x - tanh and 1 - cos cancel as NumPy formulas; the others do not, and vanish like x^2
    x = np.array([-1e-9, 1e-9, 3e-5, -0.004])
    phi = igb.Activation(expression)
    table = _table_for(phi._function, 1.0)[0]
    np.testing.assert_allclose(by_series(table, x, 0), phi(x), rtol=1e-14, atol=0 if "-" not in expression else 1e-16)


@pytest.mark.parametrize("q_max", [64.0, 1e4, 1e60, 1e300])
@pytest.mark.parametrize("name", ["gelu", "softsign", "elu(0.5)", "step"])
def test_tables_reach_as_far_as_asked(name, q_max):
    table, _ = _table_for(igb.Activation(name)._function, q_max)
    assert table.q_max == q_max
    assert table.edges[-1] >= 13.5 * math.sqrt(q_max)  # where a Gaussian weighs 1e-40
    assert table.edges[0] <= -13.5 * math.sqrt(q_max)
    x = np.array([-0.8, -0.3, 0.37, 0.9]) * 10.0 * math.sqrt(q_max)
    np.testing.assert_allclose(by_series(table, x, 0), igb.Activation(name)(x), rtol=1e-14, atol=1e-30)


def test_polynomials_reach_as_far_as_their_variance_is_a_number():
    assert igb.activations.polynomial(0, 0, 1)._core_phi(1e100).q_max >= 1e100
    with pytest.raises(ValueError, match=r"'polynomial\(0, 0, 1\)' grows too fast.*at q = 1e\+200"):
        igb.activations.polynomial(0, 0, 1)._core_phi(1e200)


def test_what_cannot_be_tabulated_says_why():
    with pytest.raises(ValueError, match=r"activation 'exp' grows too fast: it overflows at x = .* at q = 500 "):
        igb.activations.exp._core_phi(500.0)
    assert igb.activations.exp._core_phi(150.0).q_max >= 150.0
    with pytest.raises(ValueError, match=r"activation 'sin' cannot be resolved with 50000 panels.* at q = 1e\+20 "):
        igb.activations.sin._core_phi(1e20)
    assert igb.activations.sin._core_phi(3e4).q_max >= 3e4


def test_tables_are_made_once():
    phi = igb.Activation("gelu(x / 3)")
    phi._core_phi(1.0)
    assert _table_for(phi._function, 2.0)[0] is _table_for(igb.Activation("gelu(x / 3)")._function, 60.0)[0]
    assert _table_for(phi._function, 65.0)[0] is not _table_for(phi._function, 64.0)[0]


# ---- Traits ----------------------------------------------------------------------------------------------------------

TRAITS = {  # kinks, parity, monotone, orders, asymptotes
    "linear": ((), -1, 1, 2, (1.0, 1.0)),
    "relu": ((0.0,), 0, 1, 1, (0.0, 1.0)),
    "leaky_relu(-0.2)": ((0.0,), 0, 0, 1, (-0.2, 1.0)),
    "leaky_relu(1)": ((), -1, 1, 2, (1.0, 1.0)),
    "abs": ((0.0,), 1, 0, 1, (-1.0, 1.0)),
    "elu": ((0.0,), 0, 1, 2, (0.0, 1.0)),
    "elu(0.5)": ((0.0,), 0, 1, 1, (0.0, 1.0)),
    "elu(-1)": ((0.0,), 0, 0, 1, (0.0, 1.0)),
    "celu(0.5)": ((0.0,), 0, 1, 2, (0.0, 1.0)),
    "hardtanh": ((-1.0, 1.0), -1, 1, 1, (0.0, 0.0)),
    "relu6": ((0.0, 6.0), 0, 1, 1, (0.0, 0.0)),
    "sigmoid": ((), 0, 1, 2, (0.0, 0.0)),
    "gelu": ((), 0, 0, 2, (0.0, 1.0)),
    "softsign": ((0.0,), -1, 1, 2, (0.0, 0.0)),
    "cos": ((), 1, 0, 2, (0.0, 0.0)),
    "exp": ((), 0, 1, 2, None),
    "sign": ((0.0,), -1, 1, 0, (0.0, 0.0)),
    "step": ((0.0,), 0, 1, 0, (0.0, 0.0)),
    "polynomial(1, 0, -0.3)": ((), 1, 0, 2, None),
    "polynomial(0, 1, 0, 1)": ((), -1, 1, 2, None),
    "polynomial(0, 0, 0, -1)": ((), -1, -1, 2, None),
    "polynomial(3, -2)": ((), 0, -1, 2, (-2.0, -2.0)),
    "polynomial(0, 3, -3, 1)": ((), 0, 1, 2, None),  # (x - 1)^3 + 1
    "hermite(3)": ((), -1, 0, 2, None),
    "hermite(4)": ((), 1, 0, 2, None),
    "2 * hardtanh(x / 3) + 1": ((-3.0, 3.0), 0, 1, 1, (0.0, 0.0)),
    "sigmoid - 0.5": ((), -1, 1, 2, (0.0, 0.0)),
    "1 - sigmoid": ((), 0, -1, 2, (0.0, 0.0)),
    "tanh(x + 1) + tanh(x - 1)": ((), -1, 1, 2, (0.0, 0.0)),
    "softplus(x) + softplus(-x)": ((), 1, 0, 2, (-1.0, 1.0)),
    "relu(2 - x)": ((2.0,), 0, -1, 1, (-1.0, 0.0)),
    "relu(x - 0.5) - relu(-x - 0.5)": ((-0.5, 0.5), -1, 1, 1, (1.0, 1.0)),
    "x * step": ((0.0,), 0, 0, 1, (0.0, 1.0)),  # is relu: the jump is multiplied by zero
    "x * sign": ((0.0,), 1, 0, 1, (-1.0, 1.0)),
    "x * (step(x - 0.5) + step(-x - 0.5))": ((-0.5, 0.5), -1, 0, 0, (1.0, 1.0)),
    "gaussian * x": ((), -1, 0, 2, (0.0, 0.0)),
    "x * x": ((), 1, 0, 2, None),
    "mixture((0.5, tanh), (0.5, 2 * relu))": ((0.0,), 0, 1, 1, (0.0, math.sqrt(2.0))),
    "mixture((0.25, tanh), (0.75, sin))": ((), -1, 0, 2, (0.0, 0.0)),
}


@pytest.mark.parametrize("name", TRAITS)
def test_traits(name):
    phi = igb.Activation(name)
    assert (phi.kinks, phi.parity, phi.monotone, phi.orders) == TRAITS[name][:4]
    assert phi.asymptotes == (pytest.approx(TRAITS[name][4]) if TRAITS[name][4] else None)


@pytest.mark.parametrize("name", [*EXACT, *(name for name in TRAITS if "mixture" not in name)])
def test_traits_hold_for_the_values(name):
    phi, x = igb.Activation(name), np.linspace(0.0, 9.0, 400)[1:] + 1e-3
    up, down = phi(x), phi(-x)
    if phi.parity:
        np.testing.assert_allclose(down, phi.parity * up, rtol=1e-13, atol=1e-15)
    steps = np.diff(np.concatenate([down[::-1], up]))
    assert phi.monotone == 0 or np.all(phi.monotone * steps >= -1e-15)


@pytest.mark.parametrize("name", KINKS)
def test_kinks_are_where_a_derivative_jumps(name):
    phi, small = igb.Activation(name), 1e-9
    assert phi.kinks == KINKS[name]
    for kink in phi.kinks:
        jumps = [abs(f(kink + small) - f(kink - small)) for f in (phi, phi.derivative, lambda x: phi.derivative(x, 2))]
        assert max(jumps) > 0.1
        assert phi.orders >= 1 or jumps[0] > 0.1
        assert phi.orders != 1 or jumps[0] < 1e-6


def test_errors_of_approximation():
    assert igb.activations.tanh.error is None
    assert igb.Activation("mixture((0.5, tanh), (0.5, relu))").error is None
    assert all(igb.Activation(name).error < 3e-15 for name in EXACT if igb.Activation(name).error is not None)


# ---- Expressions -----------------------------------------------------------------------------------------------------

x = igb.activations.x
EXPRESSIONS = {
    "2 * tanh(0.5 * x) + 0.1": (
        2 * igb.activations.tanh(x / 2) + 0.1,
        lambda x: 2 * np.tanh(x / 2) + 0.1,
        lambda x: 1 - np.tanh(x / 2) ** 2,
        lambda x: -np.tanh(x / 2) * (1 - np.tanh(x / 2) ** 2),
    ),
    "-erf(x) - 3 * x": (
        -igb.activations.erf - 3 * x,
        lambda x: -scipy.special.erf(x) - 3 * x,
        lambda x: -2 / math.sqrt(math.pi) * np.exp(-(x**2)) - 3,
        lambda x: 4 * x / math.sqrt(math.pi) * np.exp(-(x**2)),
    ),
    "sin(x + 1) * (tanh(x) - 2)": (
        igb.activations.sin(1 + x) * (igb.activations.tanh - 2),
        lambda x: np.sin(x + 1) * (np.tanh(x) - 2),
        lambda x: np.cos(x + 1) * (np.tanh(x) - 2) + np.sin(x + 1) * (1 - np.tanh(x) ** 2),
        lambda x: (
            -np.sin(x + 1) * (np.tanh(x) - 2)
            + 2 * np.cos(x + 1) * (1 - np.tanh(x) ** 2)
            - 2 * np.sin(x + 1) * np.tanh(x) * (1 - np.tanh(x) ** 2)
        ),
    ),
}


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_expressions(text):
    phi, *expected = EXPRESSIONS[text]
    assert str(phi) == text
    at = np.linspace(-4.0, 4.0, 57)
    for found, function in zip((phi(at), phi.derivative(at), phi.derivative(at, 2)), expected, strict=True):
        np.testing.assert_allclose(found, function(at), rtol=1e-13, atol=1e-14)
    table = _table_for(phi._function, 4.0)[0]
    for order, function in enumerate(expected):
        np.testing.assert_allclose(by_series(table, at + 0.001, order), function(at + 0.001), rtol=1e-13, atol=1e-13)


def test_expressions_are_the_same_however_they_are_written():
    tanh, relu = igb.activations.tanh, igb.activations.relu
    assert tanh(x) == tanh == 1 * tanh + 0 == igb.Activation("tanh(x)")
    assert 2 * tanh + 3 == igb.Activation("3 + tanh * 2") == tanh + 3 + tanh
    assert tanh(x / 2)(2 * x) == tanh
    assert tanh - tanh == 0 * relu
    assert x + 1 - 1 == igb.activations.linear
    assert tanh(-x) == -tanh
    assert igb.activations.cos(1 - x) == igb.activations.cos(x - 1)
    assert np.float64(2) * tanh == tanh * np.float32(2) == 2 * tanh
    assert igb.activations.hermite(2, normalised=True) == igb.activations.hermite(2) * math.exp(-0.5 * math.lgamma(3))
    assert len({tanh, tanh(x), 2 * tanh, tanh * 2}) == 2
    assert 2 * tanh != 2.5 * tanh


@pytest.mark.parametrize("name", [*EXACT, *TRAITS, *EXPRESSIONS, "3"])
def test_names_and_expressions_survive_text_and_pickle(name):
    phi = igb.Activation(name)
    assert igb.Activation(str(phi)) == phi
    assert eval(repr(phi), {"Activation": igb.Activation}) == phi
    assert pickle.loads(pickle.dumps(phi)) == phi


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda: igb.activations.tanh(x * x), TypeError, "numbers or to a \\* x \\+ b, got Activation"),
        (lambda: igb.activations.tanh(igb.activations.relu), TypeError, "got Activation\\('relu'\\)"),
        (
            lambda: igb.activations.tanh * math.nan,
            ValueError,
            "factor of an activation must be a finite number, got nan",
        ),
        (
            lambda: igb.activations.tanh + math.inf,
            ValueError,
            "constant added to an activation must be a finite number",
        ),
        (lambda: igb.activations.tanh * 1j, TypeError, "factor of an activation must be a finite number, got 1j"),
        (lambda: igb.activations.tanh / 0, ValueError, "divisor of an activation must not be zero"),
        (lambda: igb.activations.tanh / igb.activations.relu, TypeError, "unsupported operand"),
        (lambda: igb.activations.tanh + "relu", TypeError, "unsupported operand"),
        (lambda: igb.activations.tanh * True, TypeError, "unsupported operand"),
        (lambda: igb.activations.hermite(2.0), TypeError, "degree must be an integer from 0 to 100, got 2.0"),
        (lambda: igb.activations.polynomial(), ValueError, "needs its coefficients"),
        (lambda: igb.activations.celu(-1), ValueError, "must be a positive finite number, got -1"),
        (lambda: igb.activations.tanh.derivative(0.0, 3), ValueError, "order must be an integer from 1 to 2, got 3"),
        (lambda: igb.Activation("tanh(x)", 2.0), ValueError, r"'tanh\(x\)' takes no parameter, got parameter=2.0"),
    ],
)
def test_expressions_refuse(wrong, error, message):
    with pytest.raises(error, match=message):
        wrong()


def test_cannot_be_changed():
    with pytest.raises(AttributeError, match="an Activation cannot be changed: name"):
        igb.activations.tanh.name = "relu"


def test_normalised_hermite_polynomials_have_unit_mean_square():
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    for n in range(12):
        values = igb.activations.hermite(n, normalised=True)(nodes)
        assert weights @ values**2 / math.sqrt(2 * math.pi) == pytest.approx(1.0, rel=1e-12)


# ---- Mixtures --------------------------------------------------------------------------------------------------------


def test_mixtures():
    phi = igb.activations.mixture([(0.25, "tanh"), (0.75, igb.activations.relu)])
    assert phi.components == ((0.25, igb.activations.tanh), (0.75, igb.activations.relu))
    assert igb.activations.relu.components == ((1.0, igb.activations.relu),)
    assert igb.activations.mixture([(0.25, "tanh"), (0.75, "tanh")]) == igb.activations.tanh
    nested = igb.activations.mixture([(0.5, phi), (0.5, "tanh")])
    assert nested.components == ((0.625, igb.activations.tanh), (0.375, igb.activations.relu))
    assert phi(2 * x).components == ((0.25, igb.activations.tanh(2 * x)), (0.75, igb.activations.relu(2 * x)))
    assert igb.Activation("mixture((0.5, gelu), (0.5, tanh))")._core_phi(9.0).q_max == 64.0


@pytest.mark.parametrize("use", [lambda f: f(0.5), lambda f: f.derivative(0.5), lambda f: 2 * f, lambda f: f + f])
def test_a_mixture_is_not_a_function(use):
    with pytest.raises(TypeError, match=r"mixture\(\(0.5, tanh\), \(0.5, relu\)\).*each node draws its own"):
        use(igb.activations.mixture([(0.5, "tanh"), (0.5, "relu")]))


@pytest.mark.parametrize(
    ("components", "error", "message"),
    [
        ([(0.5, "tanh"), (0.4, "relu")], ValueError, "weights of a mixture must sum to 1, got 0.9"),
        ([], ValueError, "sum to 1, got 0.0"),
        ([(1.5, "tanh"), (-0.5, "relu")], ValueError, "every weight of a mixture must be a positive finite number"),
        ([(math.nan, "tanh")], ValueError, "every weight of a mixture must be a positive finite number, got nan"),
        (["tanh"], TypeError, "components must be pairs of a weight and an activation, got 'tanh'"),
        ("tanh", TypeError, "components must be pairs"),
        ([("tanh", 0.5)], TypeError, "every weight of a mixture must be a positive finite number, got 'tanh'"),
    ],
)
def test_mixtures_refuse(components, error, message):
    with pytest.raises(error, match=message):
        igb.activations.mixture(components)


# ---- PyTorch ---------------------------------------------------------------------------------------------------------


def module(name, /, **parameters):
    """What a PyTorch module looks like from outside."""
    made = type(name, (), {"__module__": "torch.nn.modules.activation", "__init__": lambda self: None})
    for key, value in parameters.items():
        setattr(made, key, value)
    return made


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (module("Tanh"), "tanh"),
        (module("ReLU", inplace=True), "relu"),
        (module("LeakyReLU", negative_slope=0.3), "leaky_relu(0.3)"),
        (module("ELU", alpha=0.5), "elu(0.5)"),
        (module("GELU", approximate="none"), "gelu"),
        (module("GELU", approximate="tanh"), "gelu_tanh"),
        (module("Softplus", beta=2.0, threshold=20.0), "softplus(2 * x) / 2"),
        (module("Hardtanh", min_val=-2, max_val=4), "3 * hardtanh((x - 1) / 3) + 1"),
        (module("Identity"), "linear"),
        (module("Hardswish"), "x * hard_sigmoid"),
    ],
)
def test_modules_of_pytorch_without_pytorch(made, expected):
    assert as_activation(made) == as_activation(made()) == igb.Activation(expected)


@pytest.mark.parametrize(
    ("made", "error", "message"),
    [
        (module("Softmax"), TypeError, "PyTorch's Softmax is not among the activations known here: Identity, ReLU"),
        (module("Softplus", beta=1.0, threshold=3.0), ValueError, "threshold of 20 or more, got 3.0"),
        (np.tanh, TypeError, r"got <ufunc 'tanh'>.*igb.Activation.custom\(fn\)"),
        (igb.activations.leaky_relu, TypeError, r"leaky_relu needs its slope: leaky_relu\(0.01\)"),
        (igb.activations.mixture, TypeError, "mixture needs its components"),
        (3, TypeError, "activation must be a name or an Activation, got 3$"),
    ],
)
def test_what_is_no_activation(made, error, message):
    with pytest.raises(error, match=message):
        as_activation(made)


def test_every_function_and_module_of_pytorch_has_its_values():
    torch = pytest.importorskip("torch")
    from igbfast import _from_torch

    at = np.linspace(-5.0, 5.0, 41)
    tensor = torch.tensor(at)
    for name in _from_torch._MODULES:
        made = getattr(torch.nn, name)().double()
        for either in (made, type(made)):
            np.testing.assert_allclose(
                as_activation(either)(at), made(tensor).detach().numpy(), atol=1e-8, err_msg=name
            )
    for name in _from_torch._FUNCTIONS:
        for place in (torch, torch.nn.functional, torch.special):
            function = getattr(place, name, None)
            if function is not None:
                np.testing.assert_allclose(
                    as_activation(function)(at), function(tensor).numpy(), atol=1e-8, err_msg=name
                )
    with pytest.raises(ValueError, match="one slope for all nodes, got 3"):
        as_activation(torch.nn.PReLU(3))
    with pytest.raises(TypeError, match="PyTorch's Linear is not among"):
        as_activation(torch.nn.Linear(2, 2))
