"""The laws of the forward engines: they agree with each other, with the theory, and with their own error bars."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from igbfast import _core

ESTIMATES = ("sigma_mu2", "sigma_y2", "gamma", "q", "c", "chi")


def simulate(**kwargs):
    settings = {"activation": "tanh", "parameter": 0.0, "sigma_b2": 0.05, "dtype": "float64", "seed": 1}
    return _core.simulate(**{**settings, **kwargs})


LAWS = [
    # activation, sigma_w2, sigma_b2, width, inputs. Two inputs make every statistic one of a single pair, few nodes
    # make finite-width effects large; more inputs than nodes make the covariance singular.
    ("tanh", 1.8, 0.05, 8, 2),
    ("tanh", 1.8, 0.05, 33, 6),
    ("relu", 2.0, 0.1, 16, 4),
    ("erf", 3.0, 0.2, 5, 9),
]


@pytest.mark.parametrize("activation, sigma_w2, sigma_b2, width, inputs", LAWS)
def test_direct_and_gram_have_the_same_law(activation, sigma_w2, sigma_b2, width, inputs):
    networks, depth = 3000, 3
    common = {
        "activation": activation, "sigma_w2": sigma_w2, "sigma_b2": sigma_b2, "width": width, "depth": depth,
        "inputs": inputs, "networks": networks, "per_node": True,
    }  # fmt: skip
    direct = simulate(method="direct", seed=11, **common)
    gram = simulate(method="gram", seed=12, **common)
    # Kolmogorov-Smirnov on every statistic of every layer, and on one node's centre and variance: 8 tests a layer;
    # with p > 1e-5 in each of 24 a false alarm comes once in 4000 runs of a fresh seed (the seeds here are fixed).
    for layer in range(depth):
        samples = {name: (direct[name][:, layer], gram[name][:, layer]) for name in ESTIMATES}
        samples["mu of node 1"] = (direct["mu"][:, layer, 1], gram["mu"][:, layer, 1])
        samples["var of node 1"] = (direct["var"][:, layer, 1], gram["var"][:, layer, 1])
        for name, (one, other) in samples.items():
            assert stats.ks_2samp(one, other).pvalue > 1e-5, f"{name} in layer {layer + 1}"


def test_the_law_of_a_pair_over_layers_is_the_same():
    # What couples the layers of one network: the product of a statistic in the first and in the last layer.
    common = {"sigma_w2": 1.8, "width": 12, "depth": 4, "inputs": 2, "networks": 4000}
    direct, gram = (simulate(method=m, seed=s, **common) for m, s in (("direct", 3), ("gram", 4)))
    for name in ("q", "c", "sigma_y2"):
        products = [(d[name][:, 0] * d[name][:, 3]) for d in (direct, gram)]
        assert stats.ks_2samp(*products).pvalue > 1e-5, name


@pytest.mark.parametrize("method", ["direct", "gram"])
def test_standard_errors_cover_the_nodes(method):
    # In the first layer, inputs given, nodes are independent: the scatter over networks is what the error bar says.
    given = np.random.default_rng(5).normal(size=(6, 40))
    got = simulate(method=method, sigma_w2=1.5, width=400, depth=1, inputs=given, networks=600)
    for name in ESTIMATES:
        scatter, bar = got[name][:, 0].std(ddof=1), got[name + "_se"][:, 0].mean()
        # The standard deviation of 600 values is known to 3 %; five times that.
        assert abs(bar / scatter - 1) < 0.15, f"{name}: {bar} against {scatter}"


@pytest.mark.parametrize("method", ["direct", "gram"])
def test_sigma_mu2_is_unbiased_for_few_inputs(method):
    # Three inputs: the variance over the nodes of the mean over the inputs would be sigma_y2 / 3 too large.
    got = simulate(method=method, sigma_b2=0.2, sigma_w2=1.0, width=64, depth=1, inputs=3, networks=2000)
    values = got["sigma_mu2"][:, 0]
    assert abs(values.mean() - 0.2) < 5 * values.std(ddof=1) / np.sqrt(len(values))
    values = got["sigma_y2"][:, 0]
    assert abs(values.mean() - 1.0) < 5 * values.std(ddof=1) / np.sqrt(len(values))


@pytest.mark.parametrize("method, width", [("gram", 2000), ("direct", 400)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_deep_prejudice_follows_theory(method, width, dtype):
    # The ordered phase: gamma grows by 1.4 a layer, past where q - q_ab has any digit left (1e15, float32: 1e7).
    depth, networks = 120, 16
    got = simulate(method=method, sigma_w2=0.9, width=width, depth=depth, inputs=10, networks=networks, dtype=dtype)
    theory = _core.propagate(
        phi=_core.Phi(kind="tanh"), sigma_w2=0.9, sigma_b2=0.05, sigma_mu2=0.05, sigma_y2=0.9, depth=depth
    )
    log_gamma = np.log(got["gamma"])
    error = log_gamma.std(axis=0, ddof=1) / np.sqrt(networks)
    assert theory["gamma"][-1] > 1e17
    # Finite width shifts the mean of log gamma by 0.4 to 0.7 layer / width (measured with 2000 networks of width 100
    # and 200 of width 1000).
    allowance = np.arange(1, depth + 1) / width
    assert np.all(np.abs(log_gamma.mean(axis=0) - np.log(theory["gamma"])) < 5 * error + allowance)


def test_the_theorem_at_moderate_width():
    # q = sigma_mu2 + sigma_y2 and c = gamma / (1 + gamma), each side measured its own way.
    got = simulate(method="gram", sigma_w2=1.76, width=4000, depth=30, inputs=100, networks=4)
    np.testing.assert_allclose(got["q"], got["sigma_mu2"] + got["sigma_y2"], rtol=2e-3)
    np.testing.assert_allclose(got["c"], got["gamma"] / (1 + got["gamma"]), rtol=0, atol=1e-2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_inputs_that_collapse_onto_few_directions(dtype):
    # At a depth comparable to the width, differences between inputs fall onto fewer and fewer directions, and their
    # covariance loses its rank to the digits of float32, later of float64.
    common = {
        "activation": "relu", "sigma_w2": 1.5, "sigma_b2": 0.1, "width": 40, "inputs": 30, "depth": 60, "networks": 300,
        "dtype": dtype,
    }  # fmt: skip
    direct = simulate(method="direct", seed=21, **common)
    gram = simulate(method="gram", seed=22, **common)
    for layer in (19, 39, 59):
        for name in ("sigma_y2", "q"):
            assert stats.ks_2samp(direct[name][:, layer], gram[name][:, layer]).pvalue > 1e-5, f"{name} {layer + 1}"
