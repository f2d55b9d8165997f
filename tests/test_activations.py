"""Activations by name: their values against NumPy and SciPy, their types, and how names are read."""

import math
import pickle

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

import igbfast as igb

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
        ("relu6", r"did you mean 'relu'\?"),
        ("", "unknown activation ''; known are linear, relu, leaky_relu, tanh, erf$"),
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
