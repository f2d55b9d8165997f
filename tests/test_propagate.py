"""The mean-field recursion against whole trajectories in mpmath, its limits, and what it does where doubles end."""

import math
import signal
import warnings

import numpy as np
import pytest
import xarray as xr
from mpmath import mp, mpf, workdps
from references import COVARIANCE, TANH, gaussian_mean, tanh_split

import igbfast as igb
from igbfast import _core

NAMES = ["linear", "relu", "leaky_relu(0.2)", "leaky_relu(-1)", "tanh", "erf"]


def textbook_trajectory(name, sigma_w2, sigma_b2, depth, c0):
    """q_aa and q_ab by the plain recursion; q_aa - q_ab cancels, so call it with more digits than that takes."""
    covariance, w, b = COVARIANCE[name], mpf(sigma_w2), mpf(sigma_b2)
    q_aa, q_ab = w + b, w * mpf(c0) + b
    for _ in range(depth):
        yield q_aa, q_ab
        q_aa, q_ab = w * covariance(q_aa, q_aa, q_aa) + b, w * covariance(q_aa, q_aa, q_ab) + b


# Deep enough that gamma passes 1e300 in the ordered phase.
@pytest.mark.parametrize(
    ("name", "sigma_w2", "sigma_b2", "depth", "digits"),
    [
        ("erf", 0.5, 0.01, 1390, 700),
        ("relu", 1.5, 0.1, 2405, 700),
        ("erf", 3.0, 0.1, 200, 50),
        ("erf", 0.6, 0.0, 300, 200),
        ("relu", 2.0, 0.0, 300, 60),
        ("relu", 2.5, 0.2, 300, 60),
    ],
)
def test_whole_trajectories(name, sigma_w2, sigma_b2, depth, digits):
    ds = igb.propagate(igb.Ensemble(name, sigma_w2, sigma_b2), depth, c0=0.25)
    with workdps(digits):
        trajectory = textbook_trajectory(name, sigma_w2, sigma_b2, depth, 0.25)
        for layer, (q_aa, q_ab) in enumerate(trajectory):
            if layer % 7 and layer > 20 and layer < depth - 5:
                continue
            exact = {
                "sigma_mu2": q_ab,
                "sigma_y2": q_aa - q_ab,
                "gamma": q_ab / (q_aa - q_ab),
                "q": q_aa,
                "c": q_ab / q_aa,
            }
            for variable, value in exact.items():
                assert abs(mpf(float(ds[variable][layer])) / value - 1) < 2e-15 * (layer + 4), (variable, layer)
    if digits == 700:
        assert ds.gamma[-1] > 1e300


def test_tanh_first_layers():
    ens = igb.Ensemble("tanh", sigma_w2=1.76, sigma_b2=0.05)
    ds = igb.propagate(ens, 3)
    mu2, y2 = mpf(0.05), mpf(1.76)
    for layer in range(3):
        assert abs(mpf(float(ds.sigma_mu2[layer])) / mu2 - 1) < 1e-14
        assert abs(mpf(float(ds.sigma_y2[layer])) / y2 - 1) < 1e-14
        centre, spread = tanh_split(mu2, y2)
        mu2, y2 = mpf(1.76) * centre + mpf(0.05), mpf(1.76) * spread


@workdps(30)
def test_tanh_gamma_up_to_1e300():
    """Where sigma_y2 is tiny, the recursion is that of sigma_mu2 alone, and sigma_y2' = chi(sigma_mu2) sigma_y2."""
    w, b = mpf(0.9), mpf(0.05)
    ds = igb.propagate(igb.Ensemble("tanh", 0.9, 0.05), 1995)
    start = int(np.argmax(ds.sigma_y2.values < 1e-18))
    mu2, y2 = mpf(float(ds.sigma_mu2[start])), mpf(float(ds.sigma_y2[start]))
    for layer in range(start, start + 12):
        assert abs(mpf(float(ds.sigma_mu2[layer])) / mu2 - 1) < 1e-14
        assert abs(mpf(float(ds.sigma_y2[layer])) / y2 - 1) < 2e-14
        y2 *= w * gaussian_mean(lambda x: TANH[1](x) ** 2, mu2, even=True)
        mu2 = w * gaussian_mean(lambda x: TANH[0](x) ** 2, mu2, even=True) + b
    q = mp.findroot(lambda q: w * gaussian_mean(lambda x: mp.tanh(x) ** 2, q, even=True) + b - q, 0.16)
    chi = w * gaussian_mean(lambda x: TANH[1](x) ** 2, q, even=True)
    settled, last = 200, int(np.argmax(ds.gamma.values > 1e300))
    assert last > 1900
    growth = mpf(float(ds.gamma[last])) / mpf(float(ds.gamma[settled]))
    assert abs(growth * chi ** (last - settled) - 1) < 1e-11


@workdps(30)
def test_tanh_tiny_correlation_keeps_its_digits():
    """Odd, no biases, chaotic: c = 0 attracts, and sigma_mu2 shrinks to nothing without losing a digit."""
    w = mpf(2.5)
    ds = igb.propagate(igb.Ensemble("tanh", 2.5), 400, c0=1e-40)
    q = mpf(float(ds.q[-1]))
    slope = w * gaussian_mean(TANH[1], q, even=True) ** 2
    ratio = mpf(float(ds.gamma[399])) / mpf(float(ds.gamma[99]))
    assert ds.gamma[399] < 1e-50
    assert abs(ratio / slope**300 - 1) < 1e-11


@pytest.mark.parametrize("name", NAMES)
def test_relations_between_the_columns(name):
    ens = igb.Ensemble(name, sigma_w2=1.3, sigma_b2=0.2)
    ds = igb.propagate(ens, 30, q0=2.0, c0=0.1)
    np.testing.assert_allclose(ds.q, ds.sigma_mu2 + ds.sigma_y2, rtol=1e-15)
    np.testing.assert_allclose(ds.gamma, ds.sigma_mu2 / ds.sigma_y2, rtol=1e-15)
    np.testing.assert_allclose(ds.c, ds.gamma / (1.0 + ds.gamma), rtol=1e-14)
    assert float(ds.sigma_y2[0]) == pytest.approx(1.3 * 2.0 * 0.9, rel=1e-15)
    assert float(ds.sigma_mu2[0]) == pytest.approx(1.3 * 2.0 * 0.1 + 0.2, rel=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_one_step_is_the_covariance_map(name):
    """The initial-guessing-bias step is the mean-field map of q_aa and q_ab, done by another piece of code."""
    ens = igb.Ensemble(name, sigma_w2=1.3, sigma_b2=0.2)
    ds = igb.propagate(ens, 20)
    q, c = ds.q.values[:-1], ds.c.values[:-1]
    np.testing.assert_allclose(ds.q[1:], 1.3 * igb.moments(name, q) + 0.2, rtol=1e-14)
    np.testing.assert_allclose(ds.sigma_mu2[1:], 1.3 * igb.moments(name, q, c) + 0.2, rtol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_chi_is_the_slope_of_the_covariance_map_at_equal_inputs(name):
    """chi = d q_ab' / d q_ab at c = 1, by a one-sided difference whose error falls with its step."""
    ens = igb.Ensemble(name, sigma_w2=1.3, sigma_b2=0.2)
    ds = igb.propagate(ens, 5)
    phi = {"phi": _core.Phi(kind=ens.activation.name, parameter=ens.activation.parameter)}
    for q, chi in zip(ds.q.values, ds.chi.values, strict=True):
        for step, tolerance in ((1e-8, 2e-4), (1e-12, 2e-6)):  # a kink makes the error of order sqrt(step)
            s = np.array([q * step])  # q_aa - q_ab
            spread = _core.split_moments(**phi, sigma_mu2=q - s, sigma_y2=s)[0, 1]
            assert 1.3 * spread / s[0] == pytest.approx(chi, rel=tolerance)


# ---- Rates -----------------------------------------------------------------------------------------------------------


def test_relu_at_criticality_approaches_one_as_a_power_law():
    ds = igb.propagate(igb.Ensemble("relu", sigma_w2=2.0), 200_000)
    layer = ds.layer.values
    np.testing.assert_allclose((ds.sigma_y2 / ds.q * layer**2)[-1], 4.5 * math.pi**2, rtol=5e-4)
    np.testing.assert_allclose(ds.q, 2.0, rtol=1e-9)


def test_without_biases_relu_does_not_feel_sigma_w2():
    expected = igb.propagate(igb.Ensemble("relu", sigma_w2=2.0), 300).gamma
    for sigma_w2 in (0.5, 1.0, 3.0):
        np.testing.assert_allclose(igb.propagate(igb.Ensemble("relu", sigma_w2), 300).gamma, expected, rtol=1e-12)


# ---- Special inputs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tanh", "erf", "linear"])
def test_symmetric_inputs_stay_uncorrelated(name):
    ds = igb.propagate(igb.Ensemble(name, sigma_w2=1.5), 50)
    assert (ds.gamma == 0.0).all()
    assert (ds.sigma_mu2 == 0.0).all()
    assert (ds.c == 0.0).all()


@pytest.mark.parametrize("name", NAMES)
def test_identical_inputs_stay_identical(name):
    ds = igb.propagate(igb.Ensemble(name, sigma_w2=1.5, sigma_b2=0.1), 20, c0=1.0)
    assert (ds.sigma_y2 == 0.0).all()
    assert np.isinf(ds.gamma).all()
    assert (ds.c == 1.0).all()


# ---- Where doubles end -----------------------------------------------------------------------------------------------


def test_sigma_y2_below_the_smallest_double_is_nan_and_said():
    with pytest.warns(RuntimeWarning, match="sigma_y2 falls below the smallest normal double at layer") as caught:
        ds = igb.propagate(igb.Ensemble("tanh", 0.9, 0.05), 2200)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    lost = np.isnan(ds.sigma_y2.values)
    first = int(np.argmax(lost))
    assert f"at layer {first + 1} of 2200: sigma_y2, gamma are nan" in str(caught[0].message)
    assert lost[first:].all()
    assert ds.sigma_y2[first - 1] > np.finfo(float).tiny
    np.testing.assert_array_equal(np.isnan(ds.gamma), lost)
    for name in ("sigma_mu2", "q", "c", "chi"):
        assert np.isfinite(ds[name]).all()
    assert float(ds.c[-1]) == 1.0


def test_a_signal_that_dies_out_is_nan_and_said():
    with pytest.warns(RuntimeWarning, match="sigma_y2 falls below"):
        ds = igb.propagate(igb.Ensemble("relu", sigma_w2=0.5), 1000)
    gone = np.isnan(ds.q.values)
    assert gone[-1]
    for name in ("sigma_mu2", "sigma_y2", "gamma", "c"):
        assert np.isnan(ds[name].values[gone]).all()
    np.testing.assert_allclose(ds.chi, 0.25)


def test_overflow_is_nan_and_said():
    with pytest.warns(RuntimeWarning, match=r"q exceeds the largest double at layer \d+ of 2000: sigma_mu2, sigma_y2,"):
        ds = igb.propagate(igb.Ensemble("relu", sigma_w2=4.0), 2000)
    lost = np.isnan(ds.q.values)
    first = int(np.argmax(lost))
    assert 1000 < first < 1030
    for name in ("sigma_mu2", "sigma_y2", "gamma", "q", "c", "chi"):
        np.testing.assert_array_equal(np.isnan(ds[name]), lost)


def test_gamma_beyond_the_largest_double_is_nan_and_said():
    with pytest.warns(RuntimeWarning, match="the ratio of sigma_mu2 and sigma_y2 leaves the range of double"):
        ds = igb.propagate(igb.Ensemble("linear", 1.0, 1e308), 1, c0=0.0, q0=0.1)
    assert np.isnan(ds.gamma[0])
    assert float(ds.sigma_y2[0]) == pytest.approx(0.1)


def test_what_underflowed_may_come_back():
    """relu makes a centre out of noise alone: a lost sigma_mu2 in layer 1 is forgotten in layer 2."""
    with pytest.warns(RuntimeWarning, match="sigma_mu2 falls below the smallest normal double at layer 1 of 3"):
        ds = igb.propagate(igb.Ensemble("relu", sigma_w2=2.0), 3, c0=1e-310)
    assert np.isnan(ds.gamma[0])
    np.testing.assert_allclose(ds.gamma[1:], igb.propagate(igb.Ensemble("relu", sigma_w2=2.0), 3).gamma[1:], rtol=1e-14)


# ---- The dataset and its making --------------------------------------------------------------------------------------


def test_dataset(tmp_path):
    ens = igb.Ensemble("leaky_relu(0.1)", sigma_w2=1.5, sigma_b2=0.25)
    ds = igb.propagate(ens, 7, q0=2, c0=0.5)
    assert list(ds.data_vars) == ["sigma_mu2", "sigma_y2", "gamma", "q", "c", "chi"]
    np.testing.assert_array_equal(ds.layer, np.arange(1, 8))
    assert all(v.dtype == np.float64 and v.attrs["long_name"] for v in ds.data_vars.values())
    expected = {"activation": "leaky_relu(0.1)", "sigma_w2": 1.5, "sigma_b2": 0.25, "q0": 2.0, "c0": 0.5, "depth": 7}
    assert expected.items() <= ds.attrs.items()
    assert ds.attrs["igbfast_version"] == igb.__version__
    assert "mean-field" in ds.attrs["description"]
    ds.to_netcdf(tmp_path / "theory.nc")
    xr.testing.assert_identical(xr.load_dataset(tmp_path / "theory.nc"), ds)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer signal")
def test_a_long_call_is_interrupted():
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            igb.propagate(igb.Ensemble("tanh", 30.0, 0.05), 8_000_000)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"ens": "tanh"}, TypeError, "ens must be an Ensemble"),
        ({"depth": 0}, ValueError, "depth must be an integer from 1 to 16777215, got 0"),
        ({"depth": -3}, ValueError, "depth must be an integer from 1 to 16777215, got -3"),
        ({"depth": 2**24}, ValueError, "depth must be an integer from 1 to 16777215, got 16777216"),
        ({"depth": 3.0}, TypeError, "depth must be an integer from 1 to 16777215, got 3.0"),
        ({"depth": None}, TypeError, "depth must be an integer"),
        ({"q0": 0.0}, ValueError, "q0 must be a positive finite number, got 0.0"),
        ({"q0": math.nan}, ValueError, "q0 must be a positive finite number, got nan"),
        ({"q0": math.inf}, ValueError, "q0 must be a positive finite number, got inf"),
        ({"q0": 1j}, TypeError, "q0 must be a positive finite number, got 1j"),
        ({"q0": [1.0]}, TypeError, "q0 must be a positive finite number"),
        ({"c0": -0.1}, ValueError, "c0 must be a number from 0 to 1, got -0.1"),
        ({"c0": 1.5}, ValueError, "c0 must be a number from 0 to 1, got 1.5"),
        ({"c0": math.nan}, ValueError, "c0 must be a number from 0 to 1, got nan"),
        ({"c0": "0"}, TypeError, "c0 must be a number from 0 to 1, got '0'"),
    ],
)
def test_arguments_are_refused(arguments, error, message):
    good = {"ens": igb.Ensemble("tanh", sigma_w2=1.0), "depth": 3}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(error, match=message):
            igb.propagate(**(good | arguments))


@pytest.mark.parametrize(
    "wrong",
    [
        {"depth": 0},
        {"sigma_w2": 0.0},
        {"sigma_w2": math.nan},
        {"sigma_b2": -1.0},
        {"sigma_y2": -1.0},
        {"sigma_mu2": math.nan},
    ],
)
def test_the_core_checks_again(wrong):
    good = {"sigma_w2": 1.0, "sigma_b2": 0.1, "sigma_mu2": 0.1, "sigma_y2": 1.0, "depth": 3}
    with pytest.raises(ValueError, match="must"):
        _core.propagate(phi=_core.Phi(kind="tanh"), **(good | wrong))


@pytest.mark.parametrize("name", ["gelu", "elu", "softplus"])
def test_where_q_diverges_the_activation_is_a_relu(name):
    """At q of 1e264 its bend near zero is out of sight, and gamma grows by ReLU's power law."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        far = igb.propagate(igb.Ensemble(name, sigma_w2=3.0, sigma_b2=0.1), 1500)
        relu = igb.propagate(igb.Ensemble("relu", sigma_w2=3.0, sigma_b2=0.1), 1500)
    assert far.q[-1] > 1e260
    assert float(far.q[-1] / far.q[-2]) == pytest.approx(1.5, rel=1e-12)
    assert float(far.gamma[-1] / relu.gamma[-1]) == pytest.approx(1.0, abs=0.03)
