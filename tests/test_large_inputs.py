"""Inputs that do not fit into memory at once: from a file mapped into memory, and one chunk after the other."""

from __future__ import annotations

import numpy as np
import pytest
from network_reference import Reference

import igbfast as igb

N, FEATURES, WIDTH, DEPTH = 5000, 784, 200, 4
ENS = igb.Ensemble("tanh", sigma_w2=2.0, sigma_b2=0.1)
SETTINGS = {"width": WIDTH, "depth": DEPTH, "networks": 2, "seed": 3, "method": "direct", "per_node": True}


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Like images: non-negative, most of it zero, of very different brightness."""
    rng = np.random.default_rng(0)
    ink = np.maximum(rng.normal(size=(N, FEATURES), loc=-0.7), 0) * rng.uniform(0.2, 2, size=(N, 1))
    return ink.astype(np.float32)


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 10, N)


@pytest.fixture(scope="module")
def whole(images, labels):
    return igb.simulate(ENS, inputs=images, gradients="cross_entropy", labels=labels, **SETTINGS)


def chunks(array, *sizes):
    """Pieces of these sizes over and over, until the array ends."""
    ends = np.cumsum(np.resize(sizes, len(array)))
    return np.split(array, ends[ends < len(array)])


def assert_equal_to_rounding(one, other):
    assert set(one.variables) == set(other.variables)
    for name in one.data_vars:
        values, want = one[name].values, other[name].values
        if values.dtype.kind in "ib":
            # An input whose two largest outputs are equal to rounding may change its class.
            assert (values != want).mean() < 1e-3, name
        elif values.dtype.kind == "f":
            typical = np.sqrt(np.nanmean(np.square(want)))
            np.testing.assert_allclose(values, want, rtol=1e-3, atol=1e-3 * typical, err_msg=name)


def test_a_file_mapped_into_memory_equals_the_array(images, labels, whole, tmp_path):
    path = tmp_path / "images.npy"
    np.save(path, images)
    mapped = np.load(path, mmap_mode="r")
    assert isinstance(mapped, np.memmap)
    got = igb.simulate(ENS, inputs=mapped, gradients="cross_entropy", labels=labels, **SETTINGS)
    for name in whole.data_vars:
        np.testing.assert_array_equal(got[name].values, whole[name].values, err_msg=name)


def test_an_iterator_equals_the_array(images, labels, whole):
    pairs = zip(chunks(images, 1300, 1, 700), chunks(labels, 1300, 1, 700), strict=True)
    got = igb.simulate(ENS, inputs=pairs, gradients="cross_entropy", **SETTINGS)
    assert_equal_to_rounding(got, whole)


def test_statistics_of_nodes_are_over_all_inputs(images, whole):
    # In the first layer by the plain definition, from the drawn weights: every input counts, none twice.
    for network in range(2):
        reference = Reference(
            "tanh", sigma_w2=2.0, sigma_b2=0.1, width=WIDTH, depth=1, inputs=images, seed=3, network=network,
            dtype="float32",
        )  # fmt: skip
        y = reference.forward[0][0]
        mu, var = y.mean(axis=1), y.var(axis=1, ddof=1)
        first = whole.isel(network=network, layer=0)
        np.testing.assert_allclose(first["mu"], mu, rtol=1e-4, atol=1e-4 * mu.std())
        np.testing.assert_allclose(first["var"], var, rtol=1e-4)
        estimates = reference.estimates(0)
        for name in ("sigma_mu2", "sigma_y2", "q", "c", "chi"):
            np.testing.assert_allclose(first[name], estimates[name], rtol=1e-4, err_msg=name)


def test_theory_beside_it(images):
    # The q, c and gamma of these very inputs at infinite width.
    some = images[:200]
    networks = 16
    got = igb.simulate(ENS, inputs=some, width=1000, depth=3, networks=networks, seed=1, method="direct")
    theory = igb.kernel(ENS, inputs=some, depth=3)
    for name in ("sigma_mu2", "sigma_y2", "q", "c"):
        values = got[name].values
        error = values.std(axis=0, ddof=1) / np.sqrt(networks)
        assert np.all(np.abs(values.mean(axis=0) - theory[name].values) < 5 * error + 2e-3 * theory["q"].values), name
