"""Deep prejudice: all inputs become one, and simulation follows theory's gamma as far as numbers go, never further."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from network_reference import Reference

import igbfast as igb

SIGMA_W2, SIGMA_B2 = 0.9, 0.05  # tanh's ordered phase: gamma grows by 1.4 a layer


def theory(depth: int) -> dict[str, np.ndarray]:
    return Reference("tanh", SIGMA_W2, SIGMA_B2).theory(depth)


def log_gamma_of_theory(depth: int) -> np.ndarray:
    """Beyond the range of double, too: past the first hundreds of layers gamma grows by 1 / chi."""
    known = theory(min(depth, 500))
    further = -np.log(known["chi"][-1]) * np.arange(1, depth - 499)
    return np.concatenate([np.log(known["gamma"]), np.log(known["gamma"][-1]) + further])


def simulate(networks: int = 16, **settings):
    ensemble: dict[str, Any] = {"sigma_w2": SIGMA_W2, "sigma_b2": SIGMA_B2, "inputs": 10, "seed": 1}
    return Reference(**{**ensemble, **settings}).simulate(networks=networks)


def assert_follows_theory(got: dict[str, np.ndarray], width: int) -> None:
    """The mean of log gamma in every layer, within five standard errors over networks."""
    networks, depth = got["gamma"].shape
    log_gamma = np.log(got["gamma"])
    error = log_gamma.std(axis=0, ddof=1) / np.sqrt(networks)
    # Finite width shifts the mean of log gamma by 0.4 to 0.7 layer / width (measured with 2000 networks of width 100
    # and 200 of width 1000).
    allowance = np.arange(1, depth + 1) / width
    assert np.all(np.abs(log_gamma.mean(axis=0) - np.log(theory(depth)["gamma"])) < 5 * error + allowance)


@pytest.mark.parametrize("method, width", [("gram", 1000), ("direct", 250)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gamma_follows_theory(method, width, dtype):
    # Past where q - q_ab has any digit left (1e15; float32: 1e7).
    assert theory(120)["gamma"][-1] > 1e17
    assert_follows_theory(simulate(method=method, width=width, depth=120, dtype=dtype), width)


def test_gamma_follows_theory_past_1e50():
    assert theory(350)["gamma"][-1] > 1e50
    assert_follows_theory(simulate(method="gram", width=1500, depth=350, dtype="float64"), 1500)


def test_orthogonal_weights_keep_the_digits_too():
    # At large width orthogonal weights have the gamma of gaussian ones: both make the same mean-field theory.
    got = simulate(method="gram", weights="orthogonal", width=500, depth=120, dtype="float64")
    assert_follows_theory(got, 500)


@pytest.mark.parametrize("method", ["direct", "gram"])
@pytest.mark.parametrize("ensemble", [{"pool": "max", "pool_size": 2}, {"layernorm": True, "residual": 1.0}])
def test_pools_and_norms_keep_the_digits(method, ensemble):
    # float32 and float64 are different samples of one law: where float32 ran out of digits, its gamma would stall at
    # 1e14, the square of what it resolves.
    reference = Reference("relu", method=method, sigma_w2=0.6, sigma_b2=3.0, width=200, depth=60, inputs=6, **ensemble)
    runs = [np.log(reference.with_(dtype=dtype).simulate(networks=16)["gamma"]) for dtype in ("float32", "float64")]
    means = [run.mean(axis=0) for run in runs]
    error = np.sqrt(sum(run.var(axis=0, ddof=1) for run in runs) / 16)
    assert np.all(np.abs(means[0] - means[1]) < 5 * error + 1e-3)


@pytest.mark.parametrize("method, width", [("gram", 200), ("direct", 100)])
@pytest.mark.parametrize("dtype, depth, ends_after", [("float32", 700, 1e55), ("float64", 2400, 1e250)])
def test_where_the_digits_end(method, width, dtype, depth, ends_after):
    # Every gamma is theory's, within the random walk of a finite network over so many layers, or nan; and once the
    # digits are lost, they stay lost.
    networks = 4
    got = simulate(networks, method=method, width=width, depth=depth, dtype=dtype)
    log_gamma, want = np.log(got["gamma"]), log_gamma_of_theory(depth)
    lost = np.isnan(log_gamma)
    assert lost[:, -1].all()
    assert not lost[:, want < np.log(ends_after)].any()
    assert np.all(np.diff(lost.astype(int), axis=1) >= 0)
    np.testing.assert_array_equal(np.isnan(got["gamma_se"]), lost)
    np.testing.assert_array_equal(np.isnan(got["sigma_y2"]), lost)
    layer = np.arange(1, depth + 1)
    strays = np.where(lost, 0.0, np.abs(log_gamma - want))
    assert np.all(strays < 1 + 8 * np.sqrt(layer / width) + 2 * layer / width)
    # What has not vanished goes on, if not for ever: it is right or nan, too.
    q = got["q"]
    assert np.isfinite(q[~lost]).all()
    assert np.all(np.isnan(q) | (np.abs(np.log(q / theory(depth)["q"])) < 12 / np.sqrt(width)))


@pytest.mark.parametrize("dtype, depth", [("float32", 700), ("float64", 2400)])
def test_lost_digits_are_told(dtype, depth):
    ens = igb.Ensemble("tanh", sigma_w2=SIGMA_W2, sigma_b2=SIGMA_B2)
    with pytest.warns(RuntimeWarning, match=f"sigma_y2.*layers .* to {depth} of {depth}.*float64"):
        got = igb.simulate(ens, width=64, depth=depth, inputs=3, dtype=dtype, method="gram")
    assert np.isnan(got["gamma"].values[0, -1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        igb.simulate(ens, width=64, depth=100, inputs=3, dtype=dtype, method="gram")
