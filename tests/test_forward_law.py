"""The laws of the forward engines: they agree with each other, with the theory, and with their own error bars."""

from __future__ import annotations

import numpy as np
import pytest
from laws import assert_same_law
from network_reference import ESTIMATES, Reference

GIVEN = np.random.default_rng(5).normal(size=(6, 40))
DUPLICATES = np.random.default_rng(6).normal(size=(3, 7))[[0, 0, 1, 2, 1]]

LAWS = {
    # Two inputs make every statistic one of a single pair; few nodes make finite-width effects large.
    "two inputs": {"width": 8, "inputs": 2},
    "wider": {"width": 33, "inputs": 6},
    "relu": {"activation": "relu", "sigma_w2": 2.0, "width": 16, "inputs": 4},
    "gelu": {"activation": "gelu", "sigma_w2": 2.0, "width": 16, "inputs": 4},
    # The covariance of the inputs is singular.
    "more inputs than nodes": {"activation": "erf", "sigma_w2": 3.0, "width": 5, "inputs": 9},
    "duplicate inputs": {"width": 9, "inputs": DUPLICATES},
    "more features than nodes": {"width": 6, "inputs": GIVEN[:3]},
    "max": {"width": 12, "inputs": 3, "pool": "max", "pool_size": 2},
    "max of gelu": {"activation": "gelu", "sigma_w2": 2.0, "width": 12, "inputs": 3, "pool": "max", "pool_size": 3},
    "min": {"width": 12, "inputs": 3, "pool": "min", "pool_size": 3},
    "average": {"width": 12, "inputs": 3, "pool": "average", "pool_size": 2},
    "fewer pools than inputs": {"width": 12, "inputs": 6, "pool": "average", "pool_size": 3},
    "residual": {"width": 8, "inputs": 3, "residual": 0.5},
    "norm": {"width": 8, "inputs": 3, "layernorm": True},
    "norm, residual": {"width": 8, "inputs": 9, "layernorm": True, "residual": 0.5},
    "norm, residual, average": {
        "width": 12, "inputs": 3, "layernorm": True, "residual": 0.5, "pool": "average", "pool_size": 2,
    },
}  # fmt: skip


@pytest.mark.parametrize("weights", ["gaussian", "orthogonal"])
@pytest.mark.parametrize("law", LAWS)
def test_direct_and_gram_have_the_same_law(law, weights):
    reference = Reference(**{"sigma_w2": 1.8, "sigma_b2": 0.1, "depth": 3, "classes": 3, **LAWS[law]}, weights=weights)
    direct, gram = both(reference, 2000, per_node=True)
    assert_same_law(statistics(direct), statistics(gram))


@pytest.mark.parametrize("apart", [1e-2, 3e-4])
def test_nearly_equal_inputs_stay_apart_in_single_precision(apart):
    # Chaos tears them apart from the little that they differ by, less than products of single precision can tell.
    generator = np.random.default_rng(8)
    x = generator.normal(size=(3, 20))
    x[2] = x[1] + apart * generator.normal(size=20)
    reference = Reference(sigma_w2=6.0, sigma_b2=0.0, width=100, depth=16, inputs=x)
    direct = reference.with_(method="direct", seed=11, dtype="float64").simulate(networks=300)
    gram = reference.with_(method="gram", seed=12, dtype="float32").simulate(networks=300)
    layers = (0, 7, 11, 15)
    found = [
        {f"{n} {layer}": run[n][:, layer] for n in ("c", "sigma_y2") for layer in layers} for run in (direct, gram)
    ]
    assert_same_law(*found)


@pytest.mark.parametrize("method", ["direct", "gram"])
@pytest.mark.parametrize("ensemble", [{}, {"pool": "max", "pool_size": 2}])
def test_what_overflowed_stays_lost(method, ensemble):
    reference = Reference(**{"activation": "relu", "sigma_w2": 16.0, "sigma_b2": 0.1, "width": 64, **ensemble})
    run = reference.with_(method=method, depth=90, inputs=4, dtype="float32").simulate(networks=3)
    for name in ("q", "sigma_mu2", "sigma_y2", "chi"):
        lost = np.isnan(run[name])
        assert lost[:, -1].all(), name
        assert not lost[:, 0].any(), name
        assert np.all(np.diff(lost.astype(int), axis=1) >= 0), name
    np.testing.assert_array_equal(run["guess"], -1)


@pytest.mark.parametrize("method", ["direct", "gram"])
def test_an_input_that_goes_to_zero_has_no_correlation_and_no_say_in_c(method):
    x = np.random.default_rng(9).normal(size=(5, 30))
    x[3] = 0.0
    without = np.delete(x, 3, axis=0)
    reference = Reference(activation="relu", sigma_w2=2.0, sigma_b2=0.0, width=50, depth=4, method="direct")
    runs = [reference.with_(inputs=given, dtype="float64").simulate() for given in (x, without)]
    np.testing.assert_allclose(runs[0]["c"], runs[1]["c"], rtol=1e-10)
    run = reference.with_(inputs=x, method=method, dtype="float32").simulate(networks=2)
    assert np.isfinite(run["c"]).all()


def both(reference: Reference, networks: int, **run) -> list[dict[str, np.ndarray]]:
    """Networks by each of the engines, with numbers of their own."""
    engines = (("direct", 11), ("gram", 12))
    return [reference.with_(method=method, seed=seed).simulate(networks=networks, **run) for method, seed in engines]


def statistics(run: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every estimate and its error in every layer, a node of each, and what couples nodes, layers and the head."""
    found = {}
    depth = run["q"].shape[1]
    for layer in range(depth):
        here = f"in layer {layer + 1}"
        for name in ESTIMATES:
            found[f"{name} {here}"] = run[name][:, layer]
            found[f"{name}_se {here}"] = run[f"{name}_se"][:, layer]
        mu = run["mu"][:, layer]
        found[f"mu of node 2 {here}"] = mu[:, 1]
        found[f"var of node 2 {here}"] = run["var"][:, layer, 1]
        found[f"mu of two nodes {here}"] = mu[:, 0] * mu[:, -1]
    # What couples the layers of one network: what is in the first layer times what is in the last.
    for name in ("q", "c", "sigma_y2", "chi"):
        found[f"{name}, first and last layer"] = run[name][:, 0] * run[name][:, -1]
    found["mu of a node, first and last layer"] = run["mu"][:, 0, 2] * run["mu"][:, -1, 2]
    found["inputs in the class of the first"] = (run["guess"] == run["guess"][:, :1]).mean(axis=1)
    found["and q"] = found["inputs in the class of the first"] * run["q"][:, -1]
    return found


@pytest.mark.parametrize("method", ["direct", "gram"])
@pytest.mark.parametrize("weights", ["gaussian", "orthogonal"])
def test_standard_errors_cover_the_nodes(method, weights):
    # In the first layer, inputs given, nodes are independent: the scatter over networks is what the error bar says.
    # Orthogonal weights are so, too, as long as the nodes are few beside the features.
    features = 40 if weights == "gaussian" else 1000
    given = np.random.default_rng(5).normal(size=(6, features))
    width, networks = (400, 600) if weights == "gaussian" else (30, 200)
    reference = Reference(method=method, weights=weights, sigma_w2=1.5, sigma_b2=0.05, width=width, depth=1)
    got = reference.with_(inputs=given).simulate(networks=networks)
    for name in ESTIMATES:
        scatter, bar = got[name][:, 0].std(ddof=1), got[name + "_se"][:, 0].mean()
        # The standard deviation of n values is known to 1 / sqrt(2 n); five times that.
        assert abs(bar / scatter - 1) < 5 / np.sqrt(2 * networks), f"{name}: {bar} against {scatter}"


@pytest.mark.parametrize("method", ["direct", "gram"])
def test_sigma_mu2_is_unbiased_for_few_inputs(method):
    # Three inputs: the variance over the nodes of the mean over the inputs would be sigma_y2 / 3 too large.
    reference = Reference(method=method, sigma_b2=0.2, sigma_w2=1.0, width=64, depth=1, inputs=3)
    got = reference.simulate(networks=2000)
    for name, want in (("sigma_mu2", 0.2), ("sigma_y2", 1.0)):
        values = got[name][:, 0]
        assert abs(values.mean() - want) < 5 * values.std(ddof=1) / np.sqrt(len(values))


def test_the_theorem_at_moderate_width():
    # q = sigma_mu2 + sigma_y2 and c = gamma / (1 + gamma), each side measured its own way.
    reference = Reference(method="gram", sigma_w2=1.76, sigma_b2=0.05, width=3000, depth=20, inputs=60)
    got = reference.simulate(networks=4, dtype="float32")
    np.testing.assert_allclose(got["q"], got["sigma_mu2"] + got["sigma_y2"], rtol=3e-3)
    np.testing.assert_allclose(got["c"], got["gamma"] / (1 + got["gamma"]), rtol=0, atol=1e-2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_inputs_that_collapse_onto_few_directions(dtype):
    # At a depth comparable to the width, differences between inputs fall onto fewer and fewer directions, and their
    # covariance loses its rank to the digits of float32, later of float64.
    reference = Reference("relu", sigma_w2=1.5, sigma_b2=0.1, width=30, inputs=20, depth=45, loss="readout")
    runs = both(reference, 200, dtype=dtype)
    layers = {f"{name} {layer + 1}": layer for layer in (14, 29, 44) for name in ("sigma_y2", "q")}
    assert_same_law(*({name: run[name.split()[0]][:, layer] for name, layer in layers.items()} for run in runs))
    # The gradients of these inputs: the first layer's have come down through all the collapsed ones.
    gradients = [{f"gradient {layer + 1}": run["gradient"].mean(axis=2)[:, layer] for layer in (0, 19)} for run in runs]
    assert_same_law(*gradients)
