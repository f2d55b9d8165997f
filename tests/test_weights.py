"""Laws of the weights other than Gaussian: what they are made of, and that they are what they are called."""

from __future__ import annotations

import numpy as np
import pytest
from network_reference import Reference, drawn_weights, haar
from scipy import stats

from igbfast import _core

LAWS = ("gaussian", "uniform", "rademacher", "orthogonal")


def weights(law, rows, columns, *, dtype="float64", seed=3, network=1, layer=2):
    """Of mean square 1; but orthogonal ones are orthonormal rows or columns."""
    where = {"seed": seed, "network": network, "layer": layer}
    return _core.weights(law=law, rows=rows, columns=columns, dtype=dtype, **where).astype(float)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("dtype, rtol", [("float64", 1e-12), ("float32", 2e-5)])
@pytest.mark.parametrize("rows, columns", [(1, 1), (3, 200), (200, 70), (5, 2100)])
@pytest.mark.parametrize("seed, network, layer", [(3, 1, 2), (2**63 + 11, 2**31 + 5, 2**20)])
def test_every_weight_is_what_its_counter_says(law, dtype, rtol, rows, columns, seed, network, layer):
    columns = min(columns, 300) if law == "orthogonal" else columns
    got = weights(law, rows, columns, dtype=dtype, seed=seed, network=network, layer=layer)
    want = drawn_weights(law, seed, network, layer, rows, columns, dtype)
    if law == "orthogonal":
        # Every entry comes out of as many reflections as the matrix has rows.
        np.testing.assert_allclose(got * np.sqrt(max(rows, columns)), want, rtol=0, atol=rtol)
    else:
        np.testing.assert_allclose(got, want, rtol=rtol)


def test_uniform_weights_are_uniform():
    drawn = weights("uniform", 300, 1000).ravel() / np.sqrt(3)
    assert np.abs(drawn).max() < 1
    assert stats.kstest(drawn, stats.uniform(-1, 2).cdf).pvalue > 1e-5
    single = weights("uniform", 300, 1000, dtype="float32").ravel() / np.sqrt(3)
    assert np.abs(single).max() < 1
    assert stats.kstest(single, stats.uniform(-1, 2).cdf).pvalue > 1e-5


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rademacher_weights_are_fair_and_unlike_their_neighbours(dtype):
    drawn = weights("rademacher", 256, 4096, dtype=dtype)
    np.testing.assert_array_equal(np.abs(drawn), 1.0)
    n = drawn.size
    products = {
        "itself": drawn.mean(),
        "next column": (drawn[:, 1:] * drawn[:, :-1]).mean(),
        "16 on": (drawn[:, 16:] * drawn[:, :-16]).mean(),
        "512 on": (drawn[:, 512:] * drawn[:, :-512]).mean(),
        "next row": (drawn[1:] * drawn[:-1]).mean(),
    }
    for name, mean in products.items():
        assert abs(mean) < 5 * 1.1 / np.sqrt(n), name


@pytest.mark.parametrize("dtype, atol", [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize("rows, columns", [(150, 150), (200, 90), (90, 200)])
def test_orthogonal_weights_are_orthogonal(dtype, atol, rows, columns):
    q = weights("orthogonal", rows, columns, dtype=dtype)
    gram = q @ q.T if rows < columns else q.T @ q
    np.testing.assert_allclose(gram, np.eye(min(rows, columns)), atol=atol)


def test_orthogonal_weights_are_haar():
    # A Haar matrix of order 3: its entries are uniform on (-1, 1) (Archimedes), its trace is 1 + 2 cos of an angle of
    # density (1 - cos) / pi where it is a rotation, and rotations make half of it.
    q = np.array([weights("orthogonal", 3, 3, network=n) for n in range(1500)])
    for i in range(3):
        for j in range(3):
            assert stats.kstest(q[:, i, j], stats.uniform(-1, 2).cdf).pvalue > 1e-5, (i, j)
    determinant = np.linalg.det(q)
    assert abs(determinant.mean()) < 5 / np.sqrt(len(q))
    cosine = np.clip((np.trace(q, axis1=1, axis2=2) * determinant - 1) / 2, -1, 1)  # of the rotation or of its negative
    angle = np.arccos(cosine)
    assert stats.kstest(angle, lambda a: (a - np.sin(a)) / np.pi).pvalue > 1e-5


def test_the_reference_is_the_q_of_a_positive_r():
    # Householder's reflections, each made from the column that those before it have left, give NumPy's QR factors.
    rng = np.random.default_rng(0)
    a = rng.normal(size=(6, 6))
    rest, rows = a.copy(), np.zeros((6, 6))
    for i in range(6):
        rows[i, i:] = rest[i:, i]
        v = rest[i:, i].copy()
        v[0] += np.copysign(np.linalg.norm(v), v[0])
        rest[i:] -= np.outer(2 / (v @ v) * v, v @ rest[i:])
    q, r = np.linalg.qr(a)
    np.testing.assert_allclose(haar(rows), q * np.sign(np.diag(r)), atol=1e-13)


# ---- What they do to a network ----


@pytest.mark.parametrize("method", ["direct", "gram"])
def test_orthogonal_weights_keep_lengths_and_angles(method):
    # A linear network with sigma_w2 = 1 and no bias is a rotation: q and c stay to the last digits, at any depth.
    given = np.random.default_rng(2).normal(size=(5, 40))
    reference = Reference(
        "linear", method=method, weights="orthogonal", sigma_w2=1.0, sigma_b2=0.0, width=40, depth=12, inputs=given,
        loss="readout",
    )  # fmt: skip
    got = reference.simulate()
    np.testing.assert_allclose(got["q"][0], (given**2).mean(), rtol=1e-11)
    np.testing.assert_allclose(got["c"][0], mean_cosine(given), rtol=1e-10)
    # Backwards it keeps lengths, too.
    gradient = got["gradient"][0]
    np.testing.assert_allclose(gradient, np.broadcast_to(gradient[-1], gradient.shape), rtol=1e-10)


def mean_cosine(rows: np.ndarray) -> float:
    unit = rows / np.linalg.norm(rows, axis=1)[:, None]
    return (unit @ unit.T)[np.triu_indices(len(rows), 1)].mean()


@pytest.mark.parametrize("law", ["uniform", "rademacher", "orthogonal"])
def test_wide_networks_do_not_know_the_law_of_their_weights(law):
    # At infinite width all laws of one variance are one.
    networks = 16
    reference = Reference(weights=law, width=400, depth=8, inputs=40, dtype="float32")
    theory = reference.theory()
    got = reference.simulate(networks=networks)
    for name in ("sigma_mu2", "sigma_y2", "q", "c", "chi"):
        error = got[name].std(axis=0, ddof=1) / np.sqrt(networks)
        assert np.all(np.abs(got[name].mean(axis=0) - theory[name]) < 5 * error + 2 / 400), name


def test_few_inputs_tell_the_laws_apart():
    # The kurtosis of a node with given inputs is that of its weights' sum: -2 / features for signs, -1.2 / features for
    # uniform weights.
    given = np.array([[1.0, 1.0, 1.0], [1.0, -1.0, 1.0]])
    kurtosis = {}
    for law in ("gaussian", "uniform", "rademacher"):
        reference = Reference("linear", weights=law, sigma_b2=0.0, width=20_000, depth=1, inputs=given)
        got = reference.simulate(per_node=True)
        y0, y1 = got["mu"][0, 0], got["var"][0, 0]  # w_1 + w_3 and (2 w_2)^2 / 2, over sqrt(3 / sigma_w2)
        kurtosis[law] = (stats.kurtosis(y0) * 2, np.mean(y1**2) / np.mean(y1) ** 2 - 3)
    for law, want in (("gaussian", 0.0), ("uniform", -1.2), ("rademacher", -2.0)):
        np.testing.assert_allclose(kurtosis[law], want, atol=0.25, err_msg=law)


@pytest.mark.parametrize("law", ["uniform", "rademacher"])
def test_gram_refuses_laws_it_cannot_know(law):
    with pytest.raises(ValueError, match="weights"):
        Reference(method="gram", weights=law).simulate()
