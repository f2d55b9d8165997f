"""The forward engines against the same networks computed by NumPy from the same random numbers."""

from __future__ import annotations

import numpy as np
import pytest
from network_reference import ESTIMATES, PHI, Reference, bins

GIVEN = np.random.default_rng(0).normal(size=(7, 50)) * np.linspace(0.1, 3, 7)[:, None] + 0.5
WIDE = np.random.default_rng(1).normal(size=(6, 333)) - 0.2

# What may stand between two layers, in all combinations that meet in the code.
ENSEMBLES = {
    "plain": {},
    "max of 2": {"pool": "max", "pool_size": 2},
    "max of 3": {"pool": "max", "pool_size": 3},
    "min of 2": {"pool": "min", "pool_size": 2},
    "average of 3": {"pool": "average", "pool_size": 3},
    "pools of one node": {"pool": "max", "pool_size": 1},
    "residual": {"residual": 0.3},
    "norm": {"layernorm": True},
    "norm, residual": {"layernorm": True, "residual": 2.0},
    "norm, max of 2": {"layernorm": True, "pool": "max", "pool_size": 2},
    "norm, residual, average of 3": {"layernorm": True, "residual": 0.3, "pool": "average", "pool_size": 3},
    "norm, residual, min of 2": {"layernorm": True, "residual": 0.3, "pool": "min", "pool_size": 2},
}
INDEPENDENT_WEIGHTS = ("uniform", "rademacher", "orthogonal")  # besides gaussian ones; in `direct`


def assert_equal_layers(reference: Reference, rtol: float, **run) -> None:
    """Every estimate, every node and every guess; what is near zero, to rtol of the nodes' typical value."""
    got = reference.simulate(per_node=True, **run)
    layers, logits = reference.forward
    for layer, y in enumerate(layers):
        want = reference.estimates(layer)
        # What is left of sigma_mu2 by its correction, and c, may be differences of larger numbers.
        scale = {"sigma_mu2": want["q"], "gamma": want["q"] / want["sigma_y2"], "c": 1.0}
        for name in ESTIMATES:
            where = f"{name} in layer {layer + 1}"
            atol = rtol * scale.get(name, 0.0)
            np.testing.assert_allclose(got[name][0, layer], want[name], rtol=rtol, atol=atol, err_msg=where)
        typical = np.sqrt(want["q"])
        np.testing.assert_allclose(got["mu"][0, layer], y.mean(axis=1), rtol=0, atol=10 * rtol * typical)
        np.testing.assert_allclose(got["var"][0, layer], y.var(axis=1, ddof=1), rtol=10 * rtol, atol=rtol * typical**2)
    np.testing.assert_array_equal(got["guess"][0], logits.argmax(axis=0))
    assert not got["beyond_table"]


@pytest.mark.parametrize("method", ["direct", "gram"])
@pytest.mark.parametrize("activation", PHI)
@pytest.mark.parametrize("width", [65, 200])
def test_activations(method, activation, width):
    assert_equal_layers(Reference(activation, method=method, width=width, depth=4, inputs=9), 1e-9)


@pytest.mark.parametrize("method", ["direct", "gram"])
@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_ensembles(method, activation, ensemble):
    reference = Reference(activation, method=method, width=66, depth=4, inputs=9, **ENSEMBLES[ensemble])
    assert_equal_layers(reference, 1e-9)


@pytest.mark.parametrize("method", ["direct", "gram"])
@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_float32_to_its_digits(method, ensemble):
    reference = Reference(method=method, width=300, depth=4, inputs=9, dtype="float32", **ENSEMBLES[ensemble])
    assert_equal_layers(reference, 3e-5)


@pytest.mark.parametrize("method", ["direct", "gram"])
@pytest.mark.parametrize("ensemble", ["plain", "max of 2", "norm, residual", "norm, residual, average of 3"])
@pytest.mark.parametrize("inputs", [GIVEN, WIDE], ids=["fewer features than nodes", "more"])
@pytest.mark.parametrize("dtype, rtol", [("float64", 1e-9), ("float32", 1e-4)])
def test_given_inputs(method, ensemble, inputs, dtype, rtol):
    reference = Reference(method=method, sigma_w2=1.4, sigma_b2=0.1, width=132, inputs=inputs, dtype=dtype)
    assert_equal_layers(reference.with_(**ENSEMBLES[ensemble]), rtol)


@pytest.mark.parametrize("weights", INDEPENDENT_WEIGHTS)
@pytest.mark.parametrize("ensemble", ["plain", "norm, residual, min of 2"])
@pytest.mark.parametrize("inputs", [9, GIVEN, WIDE], ids=["square", "tall", "wide"])
@pytest.mark.parametrize("dtype, rtol", [("float64", 1e-9), ("float32", 1e-4)])
def test_weights_that_are_not_gaussian(weights, ensemble, inputs, dtype, rtol):
    reference = Reference(weights=weights, width=132, inputs=inputs, dtype=dtype)
    assert_equal_layers(reference.with_(**ENSEMBLES[ensemble]), rtol)


@pytest.mark.parametrize("method", ["direct", "gram"])
def test_another_network_of_another_seed(method):
    reference = Reference(method=method, seed=2**40 + 3, network=5)
    assert_equal_layers(reference, 1e-9)
    got = reference.simulate(first_network=3, networks=4)
    np.testing.assert_allclose(got["q"][2, -1], reference.estimates(2)["q"], rtol=1e-9)


def test_two_nodes_and_two_inputs():
    assert_equal_layers(Reference("relu", sigma_w2=2.0, sigma_b2=0.1, width=2, depth=2, inputs=2), 1e-11)


@pytest.mark.parametrize("method", ["direct", "gram"])
@pytest.mark.parametrize("ensemble", ["plain", "max of 2", "norm, residual"])
def test_histograms_count_nodes_inputs_and_pairs(method, ensemble):
    reference = Reference(method=method, width=66, depth=3, inputs=9, **ENSEMBLES[ensemble])
    got = reference.simulate(distributions=True)
    for layer, y in enumerate(reference.forward[0]):
        values = {
            "mu": y.mean(axis=1),
            "var": y.var(axis=1, ddof=1),
            "q": (y**2).mean(axis=0),
            "c": 1 - reference.correlations(layer),
        }
        for name, each in values.items():
            counts = got[f"{name}_counts"]
            here = (counts["layer"] == layer) & (counts["network"] == 0)
            counted = dict(zip(counts["bin"][here].tolist(), counts["count"][here].tolist(), strict=True))
            assert counted == bins(each), f"{name} in layer {layer + 1}"


@pytest.mark.parametrize("method", ["direct", "gram"])
def test_a_table_says_when_it_is_left(method):
    reference = Reference("gelu", method=method, sigma_w2=40.0, depth=5, q_max=64.0)
    assert reference.simulate()["beyond_table"]
    assert not reference.with_(q_max=1e8).simulate()["beyond_table"]
