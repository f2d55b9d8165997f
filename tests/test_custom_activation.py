"""Activations from Python callables: what is found out about them, how well their tables hold, and what is refused."""

import math
import threading

import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

import igbfast as igb
from igbfast.activations import _table_for

custom = igb.Activation.custom


def series_at(phi, x, order, q_max=64.0):
    """The table at x, summed by NumPy's own Chebyshev module, a panel at a time."""
    table, values = _table_for(phi._function, q_max)[0], []
    for point in x:
        p = int(np.searchsorted(table.edges, point, side="right")) - 1
        a, b = table.edges[p], table.edges[p + 1]
        series = (table.value, table.slope, table.curvature)[order][p]
        value = np.polynomial.chebyshev.chebval(((point - a) - (b - point)) / (b - a), series)
        values.append(point * value if table.by_x[order][p] else value)
    return np.array(values)


def sech2(x):
    return 1.0 / np.cosh(np.clip(x, -300, 300)) ** 2


# phi, phi', phi'', and the accuracies of each next to the largest value nearby
SMOOTH = {
    "tanh": (np.tanh, sech2, lambda x: -2 * np.tanh(x) * sech2(x), (1e-15, 2e-12, 2e-9)),
    "tanh(50 x)": (
        lambda x: np.tanh(50 * x),
        lambda x: 50 * sech2(50 * x),
        lambda x: -5000 * np.tanh(50 * x) * sech2(50 * x),
        (2e-15, 1e-12, 1e-9),
    ),
    "sin(20 x)": (
        lambda x: np.sin(20 * x),
        lambda x: 20 * np.cos(20 * x),
        lambda x: -400 * np.sin(20 * x),
        (2e-12, 2e-10, 2e-8),
    ),
    "gelu, naively": (
        lambda x: 0.5 * x * (1 + scipy.special.erf(x / math.sqrt(2))),
        lambda x: scipy.special.ndtr(x) + x * np.exp(-0.5 * x**2) / math.sqrt(2 * math.pi),
        lambda x: (2 - x**2) * np.exp(-0.5 * x**2) / math.sqrt(2 * math.pi),
        (2e-15, 1e-12, 1e-9),
    ),
    "1 + tanh": (lambda x: 1 + np.tanh(x), sech2, lambda x: -2 * np.tanh(x) * sech2(x), (1e-15, 1e-11, 1e-8)),
    "a narrow bump": (
        lambda x: np.exp(-2e3 * (x - 3.3) ** 2),
        lambda x: -4e3 * (x - 3.3) * np.exp(-2e3 * (x - 3.3) ** 2),
        lambda x: (1.6e7 * (x - 3.3) ** 2 - 4e3) * np.exp(-2e3 * (x - 3.3) ** 2),
        (3e-14, 1e-11, 1e-9),
    ),
    "a constant": (np.ones_like, np.zeros_like, np.zeros_like, (1e-15, 1e-15, 1e-15)),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_functions(name):
    *exact, accuracies = SMOOTH[name]
    phi = custom(exact[0], name=name)
    x = np.random.default_rng(1).normal(size=400) * 3.0
    x = np.concatenate([x, 3.3 + x / 100, x / 100])
    assert phi.kinks == ()
    assert phi.orders == 2
    assert phi.error <= accuracies[0]
    np.testing.assert_array_equal(phi(x), exact[0](x))
    for order, (function, accuracy) in enumerate(zip(exact, accuracies, strict=True)):
        largest = np.max(np.abs(function(x)), initial=1e-300)
        np.testing.assert_allclose(series_at(phi, x, order), function(x), rtol=0, atol=max(accuracy * largest, 1e-15))


def test_slopes_and_curvatures_are_those_of_the_table():
    phi, x = custom(np.tanh), np.array([[-30.0, -2.0, 0.0], [1e-3, 0.5, 200.0]])
    np.testing.assert_allclose(phi.derivative(x), sech2(x), atol=5e-13)
    np.testing.assert_allclose(phi.derivative(x, 2), -2 * np.tanh(x) * sech2(x), atol=1e-10)
    np.testing.assert_array_equal(np.isnan(phi.derivative([np.nan, np.inf, 1.0])), [True, True, False])
    exact = custom(np.tanh, derivative=sech2)
    np.testing.assert_array_equal(exact.derivative(x), sech2(x))
    np.testing.assert_allclose(exact.derivative(x, 2), -2 * np.tanh(x) * sech2(x), atol=5e-13)


# phi, where it has kinks, jumps of phi, of phi', how many derivatives are left
KINKED = {
    "relu": (lambda x: np.maximum(x, 0), [0.0], [0.0], [1.0], 1),
    "late relu": (lambda x: np.maximum(x - 0.3, 0), [0.3], [0.0], [1.0], 1),
    "held": (lambda x: np.clip(x, -1, 1), [-1.0, 1.0], [0.0, 0.0], [1.0, -1.0], 1),
    "held, not round": (lambda x: np.clip(x, -math.pi / 7, 1), [-math.pi / 7, 1.0], [0.0, 0.0], [1.0, -1.0], 1),
    "step": (lambda x: (x > 0.3) * 1.0, [0.3], [1.0], [0.0], 0),
    "bool step": (lambda x: x > 0, [0.0], [1.0], [0.0], 0),
    "sign": (lambda x: np.sign(x - math.sqrt(2)), [math.sqrt(2)], [2.0], [0.0], 0),
    "elu": (lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))), [0.0], [0.0], [0.0], 2),
    "shifted elu": (lambda x: np.where(x > 0.7, x - 0.7, np.expm1(np.minimum(x - 0.7, 0))), [0.7], [0.0], [0.0], 2),
    "huber": (lambda x: np.where(np.abs(x) < 1, x * x / 2, np.abs(x) - 0.5), [-1.0, 1.0], [0.0] * 2, [0.0] * 2, 2),
    "cube": (lambda x: np.abs(x - 0.37) ** 3 * np.exp(-x * x), [0.37], [0.0], [0.0], 2),
    "softsign": (lambda x: x / (1 + np.abs(x)), [0.0], [0.0], [0.0], 2),
    "stairs": (
        lambda x: np.floor(np.clip(x, -1.5, 1.75)),
        [-1.0, 0.0, 1.0],
        [1.0, 1.0, 1.0],
        [0.0, 0.0, 0.0],
        0,
    ),
    "far away": (lambda x: np.tanh(x) + 0.1 * np.maximum(np.abs(x) - 50.5, 0), [-50.5, 50.5], [0.0] * 2, [0.1] * 2, 1),
    "jump on a slope": (lambda x: np.where(x < 0.123, np.sin(x), np.cos(3 * x)), [0.123], None, None, 0),
}


@pytest.mark.parametrize("name", KINKED)
def test_undeclared_kinks_are_found(name):
    fn, kinks, jumps, slope_jumps, orders = KINKED[name]
    phi = custom(fn, name=name)
    table = _table_for(phi._function, 64.0)[0]
    np.testing.assert_allclose(table.kinks, kinks, rtol=1e-8 if orders == 2 else 4e-15)
    assert phi.kinks == tuple(table.kinks)
    if jumps is not None:
        np.testing.assert_allclose(table.jumps, jumps, rtol=1e-12)
        np.testing.assert_allclose(table.slope_jumps, slope_jumps, rtol=1e-9)
    assert phi.orders == orders
    assert phi.error < 2e-13  # cos(3 x) is no better far out, where 3 x is rounded
    x = np.random.default_rng(2).normal(size=1000) * 3.0
    largest = np.max(np.abs(fn(x)))
    np.testing.assert_allclose(series_at(phi, x, 0), fn(x), rtol=0, atol=5e-15 * largest)


def test_jump_sizes_on_a_slope():
    fn = KINKED["jump on a slope"][0]
    table = _table_for(custom(fn)._function, 64.0)[0]
    np.testing.assert_allclose(table.jumps, np.cos(0.369) - np.sin(0.123), rtol=1e-13)
    np.testing.assert_allclose(table.slope_jumps, -3 * np.sin(0.369) - np.cos(0.123), rtol=1e-11)


@settings(max_examples=15, deadline=None)
@given(place=st.floats(-6.0, 6.0), size=st.floats(0.05, 3.0), kind=st.sampled_from(["jump", "bend"]))
def test_a_kink_anywhere_is_found(place, size, kind):
    def fn(x):
        past = x > place
        return np.tanh(x) + 0.5 + past * (size if kind == "jump" else size * np.tanh(x - place))

    phi = custom(fn)
    assert len(phi.kinks) == 1
    assert phi.kinks[0] == pytest.approx(place, rel=1e-15, abs=1e-14 if kind == "jump" else 1e-13 / size)
    assert phi.orders == (0 if kind == "jump" else 1)
    x = place + np.array([-1.0, -0.1, -1e-3, -1e-6, 1e-6, 1e-3, 0.1, 1.0])
    np.testing.assert_allclose(series_at(phi, x, 0), fn(x), rtol=0, atol=2e-14)


def test_declared_kinks_are_kept():
    phi = custom(lambda x: np.maximum(x - 0.3, 0), kinks=[0.3])
    assert phi.kinks == (0.3,)
    assert phi.orders == 1
    harmless = custom(np.tanh, kinks=(2.0, -1.0))
    assert harmless.kinks == (-1.0, 2.0)
    assert harmless.orders == 2


def test_symmetry_and_direction_are_found():
    assert [custom(f).parity for f in (np.tanh, np.cos, np.exp, lambda x: 2 / (1 + np.exp(-2 * x)) - 1)] == [
        -1,
        1,
        0,
        -1,
    ]
    assert [custom(f).monotone for f in (np.tanh, np.cos, np.exp, lambda x: -np.sign(x))] == [1, 0, 1, -1]
    assert custom(lambda x: np.maximum(x, 0.2 * x)).asymptotes == pytest.approx((0.2, 1.0))
    assert custom(lambda x: x * np.exp(x) / (1 + np.exp(x))).asymptotes == pytest.approx((0.0, 1.0))
    assert custom(np.exp).asymptotes is None
    assert custom(lambda x: np.log1p(x**2)).asymptotes == (0.0, 0.0)


def test_tables_reach_further_when_asked():
    phi = custom(lambda x: np.tanh(x) + np.maximum(x - 1000.25, 0))
    assert phi.kinks == ()  # where it was looked at
    table = _table_for(phi._function, 1e5)[0]
    np.testing.assert_allclose(table.kinks, [1000.25], rtol=1e-15)
    assert table.q_max >= 1e5
    assert table.parity == 0
    assert custom(lambda x: np.exp(x * x / 50))._core_phi(8.0).q_max >= 8.0
    assert custom(np.arctan)._core_phi(1e300).q_max == 1e300


def test_expressions_of_custom_functions():
    x = igb.activations.x
    relu = custom(lambda x: np.maximum(x, 0), name="mine")
    phi = 2 * relu(3 * x - 0.5) + igb.activations.tanh
    assert str(phi) == "2 * mine(3 * x - 0.5) + tanh(x)"
    assert phi.kinks == (0.5 / 3,)
    assert phi.orders == 1
    assert phi.asymptotes == pytest.approx((0.0, 6.0))
    at = np.linspace(-2.0, 2.0, 41)
    np.testing.assert_allclose(phi(at), 2 * np.maximum(3 * at - 0.5, 0) + np.tanh(at), rtol=1e-15)
    np.testing.assert_allclose(phi.derivative(at), 6.0 * (at > 0.5 / 3) + sech2(at), atol=1e-12)
    np.testing.assert_allclose(series_at(phi, at + 1e-3, 0), phi(at + 1e-3), atol=3e-15)
    mixed = igb.activations.mixture([(0.5, relu), (0.5, "tanh")])
    assert mixed.orders == 1
    assert mixed._core_phi(4.0).q_max == 64.0


def test_names_and_equality():
    def bent(x):
        return np.maximum(x, 0.1 * x)

    assert str(custom(bent)) == "bent"
    assert repr(custom(bent, name="mine")) == "Activation('mine')"
    assert str(custom(lambda x: x)) == "custom"
    assert str(custom(np.tanh)) == "tanh"
    assert custom(np.tanh) != igb.activations.tanh
    assert custom(bent) == custom(bent)
    assert hash(custom(bent)) == hash(custom(bent))
    assert custom(bent) != custom(bent, kinks=[0.0])
    assert custom(lambda x: x) != custom(lambda x: x)


def test_takes_what_arrays_it_is_given():
    phi = custom(np.tanh)
    assert phi(np.ones((2, 3), np.float32)).dtype == np.float32
    assert phi(np.ones((2, 3))).shape == (2, 3)
    assert np.shape(phi(0.5)) == ()


def steep(x):
    return np.tanh(1e12 * (x - 0.3))


@pytest.mark.parametrize(
    ("fn", "error", "message"),
    [
        (3, TypeError, "fn must be a callable, got 3"),
        (math.tanh, TypeError, "fn must take an array of numbers.*np.vectorize makes such a function.*it raised"),
        (lambda x: x if x > 0 else 0.0, TypeError, "fn must take an array of numbers.*np.vectorize"),
        (lambda x: 1.0, TypeError, r"fn must take an array.*got shape \(\) for \(6,\)"),
        (lambda x: x[:3], TypeError, r"fn must take an array.*got shape \(3,\) for \(6,\)"),
        (lambda x: np.exp(1j * x), TypeError, "fn must return real numbers, got dtype complex128"),
        (lambda x: np.array(["a"] * x.size), TypeError, "fn must return real numbers, got dtype <U1"),
        (lambda x: np.tanh(x.astype(np.float32)), TypeError, "fn must compute in float64, got dtype float32"),
        (lambda x: x - x.mean(), ValueError, "fn must give each value from its x alone"),
        (lambda x: x + np.random.default_rng().normal(size=x.shape), ValueError, "fn must give the same values every"),
        (lambda x: np.where(np.abs(x - 5) < 0.5, np.nan, x), ValueError, "'custom' is nan at x = "),
        (lambda x: np.where(np.abs(x - 0.501) < 0.1, np.nan, x), ValueError, "'custom' is nan at x = "),
        (lambda x: np.log(np.abs(x)), ValueError, "'custom' is -inf at x = 0"),
        (lambda x: 1 / (x - 1.75), ValueError, "'custom' (is -?inf at x = 1.75|cannot be resolved near x = 1.75)"),
        (lambda x: np.exp(x**4), ValueError, r"'custom' grows faster than any exp\(a x\^2\)"),
        (lambda x: np.exp(1e-4 * x**4), ValueError, r"'custom' grows faster than any exp\(a x\^2\)"),
        (lambda x: np.sqrt(np.abs(x)), ValueError, "'custom' cannot be resolved near x = 0: neither smooth there nor"),
        (lambda x: np.cbrt(x - 0.7), ValueError, "'custom' cannot be resolved near x = 0.7"),
        (steep, ValueError, "'steep' cannot be resolved near x = 0.3: neither smooth there nor a kink"),
        (lambda x: np.sin(1e6 * x), ValueError, "'custom' cannot be resolved with 50000 panels"),
    ],
)
def test_functions_it_refuses(fn, error, message):
    with pytest.raises(error, match=message):
        custom(fn)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"derivative": 1.0}, TypeError, "derivative must be a callable or None, got 1.0"),
        ({"derivative": math.tanh}, TypeError, "derivative must take an array of numbers"),
        ({"derivative": np.cosh}, ValueError, "derivative must be that of fn, got .* at x = .*, where the slope is"),
        ({"derivative": lambda x: 1.001 * sech2(x)}, ValueError, "derivative must be that of fn"),
        ({"kinks": 0.5}, TypeError, "kinks must be numbers, got 0.5"),
        ({"kinks": [np.nan]}, ValueError, "every kink must be a finite number, got nan"),
        ({"kinks": ["0"]}, TypeError, "every kink must be a finite number, got '0'"),
        ({"name": 3}, TypeError, "name must be a string that is not empty, got 3"),
        ({"name": ""}, TypeError, "name must be a string that is not empty, got ''"),
    ],
)
def test_arguments_it_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        custom(np.tanh, **arguments)


def test_variances_out_of_reach():
    phi = custom(lambda x: np.exp(x * x / 50), name="fast")
    with pytest.raises(ValueError, match=r"'fast' grows too fast.*its expectations at q = 13 cannot be computed"):
        phi._core_phi(13.0)  # E[phi^2] exists below 12.5
    with pytest.raises(ValueError, match="'nasty' is nan at x = .*its expectations at q = 1000 cannot"):
        custom(lambda x: np.where(x > 200, np.nan, x), name="nasty")._core_phi(1000.0)


def test_errors_of_the_callable_are_its_own():
    def fails(x):
        if x.size > 6:
            raise RuntimeError("mine")
        return x

    with pytest.raises(RuntimeError, match="mine"):
        custom(fails)


def test_threads_share_one_table():
    calls = []

    def fn(x):
        calls.append(x.size)
        return np.arctan(x)

    phi = custom(fn)
    before = len(calls)
    threads = [threading.Thread(target=phi._core_phi, args=(1e8,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    once = len(calls) - before
    phi._core_phi(1e7)
    assert len(calls) - before == once
    other = custom(lambda x: fn(x))
    before = len(calls)
    other._core_phi(1e8)
    assert len(calls) - before == once
