"""The covariance of given inputs: against the recursion in mpmath, other routes of the package, and the textbook."""

import math
import re
import signal
import sys
import threading
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import references
import xarray as xr
from mpmath import mp, mpf, workdps

import igbfast as igb


def tanh_covariance(q_aa, q_bb, q_ab):
    return references.tanh_pair(0, q_aa, q_bb, q_ab / mp.sqrt(q_aa * q_bb))


def relu_covariance(q_aa, q_bb, q_ab):
    c = min(max(q_ab / mp.sqrt(q_aa * q_bb), mpf(-1)), mpf(1))
    t = mp.acos(c)
    return mp.sqrt(q_aa * q_bb) * (mp.sin(t) + (mp.pi - t) * c) / (2 * mp.pi)


def erf_covariance(q_aa, q_bb, q_ab):
    return 2 / mp.pi * mp.asin(2 * q_ab / mp.sqrt((1 + 2 * q_aa) * (1 + 2 * q_bb)))


def tanh_square(q):
    return references.gaussian_mean(lambda y: mp.tanh(y) ** 2, q, even=True)


# name -> (E[phi(u) phi(v)], E[phi^2], digits that the former has)
EXACT = {
    "tanh": (tanh_covariance, tanh_square, 36),
    "relu": (relu_covariance, lambda q: q / 2, 90),
    "erf": (erf_covariance, lambda q: erf_covariance(q, q, q), 200),
}


def exactly(name, x, sigma_w2, sigma_b2, depth):
    """Layer by layer: mean K, D over pairs, mean q, mean c, and the matrix; plainly, in as many digits as it takes."""
    covariance, square, digits = EXACT[name]
    layers = []
    with workdps(digits):
        rows = [[mpf(float(value)) for value in row] for row in x]
        n, w, b = len(rows), mpf(sigma_w2), mpf(sigma_b2)
        k = [[w * mp.fsum(u * v for u, v in zip(s, t, strict=True)) / len(s) + b for t in rows] for s in rows]
        pairs = [(i, j) for i in range(n) for j in range(i)]
        for _ in range(depth):
            mu2 = mp.fsum(k[i][j] for i, j in pairs) / len(pairs)
            y2 = mp.fsum((k[i][i] + k[j][j]) / 2 - k[i][j] for i, j in pairs) / len(pairs)
            q = mp.fsum(k[i][i] for i in range(n)) / n
            c = mp.fsum(k[i][j] / mp.sqrt(k[i][i] * k[j][j]) for i, j in pairs) / len(pairs)
            matrix = np.array([[float(value) for value in row] for row in k])
            columns = {"sigma_mu2": mu2, "sigma_y2": y2, "gamma": mu2 / y2, "q": q, "c": c}
            layers.append(({name: float(value) for name, value in columns.items()}, matrix))
            of_pair = {(i, j): w * covariance(k[i][i], k[j][j], k[i][j]) + b for i, j in pairs}
            k = [
                [w * square(k[i][i]) + b if i == j else of_pair[max(i, j), min(i, j)] for j in range(n)]
                for i in range(n)
            ]
    return layers


def inputs_of_many_norms(n, features=6, seed=1):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, features)) * np.geomspace(0.3, 3.0, n)[:, None]


def by_pairs(ens, k0, depth):
    """The recursion with igb.moments for every pair."""
    k = ens.sigma_w2 * np.asarray(k0) + ens.sigma_b2
    for _ in range(depth - 1):
        q = k.diagonal().copy()
        c = np.clip(k / np.sqrt(np.outer(q, q)), -1.0, 1.0)
        np.fill_diagonal(c, 1.0)
        if ens.layernorm:
            q[:] = 1.0
        pool = {} if ens.pool is None else {"pool": ens.pool}
        branch = ens.sigma_w2 * igb.moments(ens.activation, q[:, None], c, q_b=q[None, :], **pool) + ens.sigma_b2
        k = branch if ens.residual is None else k + ens.residual * branch
    return k


# ---- Against high precision ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "n", "sigma_w2", "sigma_b2", "depth"),
    [
        ("tanh", 3, 0.9, 0.3, 5),
        ("tanh", 2, 4.0, 0.1, 3),
        ("relu", 5, 2.0, 0.0, 25),
        ("relu", 5, 1.2, 0.1, 60),  # gamma 1e13
        ("erf", 5, 0.5, 1.0, 100),  # gamma 1e58
        ("erf", 5, 3.0, 0.1, 25),
        ("erf", 4, 30.0, 0.1, 6),
    ],
)
def test_inputs_of_many_norms(name, n, sigma_w2, sigma_b2, depth):
    x = inputs_of_many_norms(n)
    ds = igb.kernel(igb.Ensemble(name, sigma_w2, sigma_b2), inputs=x, depth=depth, layers=range(1, depth + 1))
    for layer, (columns, matrix) in enumerate(exactly(name, x, sigma_w2, sigma_b2, depth), start=1):
        at = ds.sel(layer=layer, kept_layer=layer)
        scale = np.sqrt(np.outer(matrix.diagonal(), matrix.diagonal()))
        assert np.abs((at.covariance - matrix) / scale).max() < 5e-15
        for column, expected in columns.items():
            assert float(at[column]) == pytest.approx(expected, rel=1e-13), (column, layer)


def test_duplicate_opposite_and_collinear_inputs():
    x = inputs_of_many_norms(4)
    x = np.vstack([x, x[1], -x[0], 2.5 * x[2]])
    for name, sigma_w2, sigma_b2 in (("relu", 1.5, 0.1), ("erf", 0.8, 0.2), ("erf", 20.0, 0.0)):
        ds = igb.kernel(igb.Ensemble(name, sigma_w2, sigma_b2), inputs=x, depth=20)
        columns, matrix = exactly(name, x, sigma_w2, sigma_b2, 20)[-1]
        np.testing.assert_allclose(ds.covariance, matrix, rtol=1e-13, atol=1e-14 * matrix.max())
        assert ds.covariance[1, 4] == ds.covariance[1, 1] == ds.covariance[4, 4]  # to the last bit
        for column, expected in columns.items():
            assert float(ds[column][-1]) == pytest.approx(expected, rel=1e-12), column


def test_opposite_inputs_of_an_even_activation_are_one():
    x = np.array([[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]])
    for name in ("leaky_relu(-1)", "gaussian"):
        ds = igb.kernel(igb.Ensemble(name, 1.5), inputs=x, depth=3)
        assert float(ds.c[0]) == pytest.approx(-1.0, rel=1e-15)
        assert (ds.sigma_y2[1:] == 0.0).all(), name
        assert np.isinf(ds.gamma[1:]).all(), name


# ---- Against propagate -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tanh", "erf", "relu", "leaky_relu(-0.5)", "linear"])
@pytest.mark.parametrize(
    ("sigma_w2", "sigma_b2", "depth", "extras"),
    [
        (0.8, 0.05, 400, {}),
        (2.5, 0.3, 60, {}),
        (1.5, 0.1, 40, {"residual": 0.2}),
        (1.5, 0.1, 40, {"layernorm": True}),
        (1.5, 0.1, 40, {"residual": 0.2, "layernorm": True}),
        (2.0, 0.1, 40, {"pool": igb.AvgPool(3)}),
    ],
)
def test_equal_inputs_follow_propagate(name, sigma_w2, sigma_b2, depth, extras):
    ens = igb.Ensemble(name, sigma_w2, sigma_b2, **extras)
    theory = igb.propagate(ens, depth, q0=1.3, c0=0.2)
    k0 = 1.3 * (0.2 + 0.8 * np.eye(11))
    ds = igb.kernel(ens, k0, depth)
    for column in ("sigma_mu2", "sigma_y2", "gamma", "q", "c", "chi"):
        np.testing.assert_allclose(ds[column], theory[column], rtol=1e-14 * depth, err_msg=column)


def test_gamma_of_1e200():
    ens = igb.Ensemble("tanh", 0.5, 0.4)
    theory = igb.propagate(ens, 400)
    assert theory.gamma[-1] > 1e200
    np.testing.assert_allclose(igb.kernel(ens, np.eye(3), 400).gamma, theory.gamma, rtol=1e-12)


def test_variances_become_one_long_before_inputs_do():
    """tanh: q_a - q_b falls by another factor than the distance, and out of the range of double first."""
    ens = igb.Ensemble("tanh", 1.5, 0.1)
    ds = igb.kernel(ens, inputs=inputs_of_many_norms(5), depth=2000)
    np.testing.assert_allclose(ds.sigma_y2[-1] / ds.sigma_y2[-1001], ds.chi[-1] ** 1000, rtol=1e-10)
    assert ds.gamma[-1] > 1e100


def test_two_independent_inputs_of_an_odd_activation_stay_independent():
    ds = igb.kernel(igb.Ensemble("tanh", 3.0), np.eye(4), 30)
    assert (ds.gamma == 0.0).all()
    assert (ds.covariance.values[~np.eye(4, dtype=bool)] == 0.0).all()


# ---- Every activation and pool ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("activation", "extras"),
    [
        ("gelu", {}),
        ("silu", {}),
        ("sin", {}),
        ("softplus", {}),
        ("gaussian", {}),
        ("elu", {}),
        ("hardtanh", {}),
        ("sign", {}),
        ("gelu", {"pool": igb.AvgPool(2)}),
        ("relu", {"pool": igb.MaxPool(2)}),
        ("gelu", {"residual": 0.3, "layernorm": True}),
    ],
)
@pytest.mark.filterwarnings("ignore:chi leaves the range:RuntimeWarning")
def test_all_routes_agree_with_pair_by_pair(activation, extras):
    ens = igb.Ensemble(activation, 1.3, 0.1, **extras)
    x = inputs_of_many_norms(4)
    ds = igb.kernel(ens, inputs=x, depth=3)
    expected = by_pairs(ens, x @ x.T / x.shape[1], 3)
    np.testing.assert_allclose(ds.covariance, expected, atol=2e-14 * expected.max(), rtol=0.0)


@pytest.mark.parametrize(
    ("activation", "sigma_w2", "depth", "extras"),
    [
        ("elu", 0.8, 60, {}),
        ("hardtanh", 0.9, 60, {}),
        ("hardtanh", 3.0, 8, {}),
        ("relu", 0.8, 30, {"pool": igb.MaxPool(2)}),
        ("elu", 1.5, 30, {"layernorm": True}),
    ],
)
def test_inputs_of_one_variance_go_the_way_of_each_pair(activation, sigma_w2, depth, extras):
    """Kinks and pools of extremes, gamma included: one curve for all pairs, and propagate for each."""
    ens = igb.Ensemble(activation, sigma_w2, 0.2, **extras)
    c0 = {(0, 1): 0.1, (0, 2): 0.5, (1, 2): 0.9}
    k0 = np.eye(3)
    for (a, b), c in c0.items():
        k0[a, b] = k0[b, a] = c
    ds = igb.kernel(ens, k0, depth)
    theory = {pair: igb.propagate(ens, depth, c0=c) for pair, c in c0.items()}
    for (a, b), of_pair in theory.items():
        assert float(ds.covariance[a, b]) == pytest.approx(float(of_pair.sigma_mu2[-1]), rel=1e-12)
    for name in ("sigma_mu2", "sigma_y2", "c", "chi"):
        np.testing.assert_allclose(ds[name], sum(of_pair[name] for of_pair in theory.values()) / 3.0, rtol=1e-11)


def test_a_pool_of_extremes_of_relu_takes_inputs_of_any_norm():
    """relu and its maximum are homogeneous: K_ab / sqrt(q_a q_b) depends on c alone."""
    ens = igb.Ensemble("relu", 0.9, 0.0, pool=igb.MaxPool(2))
    x = inputs_of_many_norms(5)
    unit = x / np.sqrt((x**2).mean(axis=1, keepdims=True))
    norm = np.sqrt((x**2).mean(axis=1))
    found, of_unit = (igb.kernel(ens, inputs=data, depth=5).covariance for data in (x, unit))
    np.testing.assert_allclose(found, of_unit * np.outer(norm, norm), rtol=1e-12)


def test_a_table_of_erf_follows_its_closed_form():
    """The Hermite series against the arc-sine, gamma included."""
    from scipy.special import erf

    closed, table = (igb.Ensemble(phi, 0.7, 0.2) for phi in ("erf", igb.Activation.custom(erf)))
    x = inputs_of_many_norms(6)
    expected, found = (igb.kernel(ens, inputs=x, depth=60) for ens in (closed, table))
    assert expected.gamma[-1] > 1e13
    np.testing.assert_allclose(found.gamma, expected.gamma, rtol=1e-11)
    np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-13)


def test_relu_is_the_arc_cosine_kernel():
    angle = np.linspace(0.1, 3.0, 7)
    x = np.sqrt(2.0) * np.column_stack([np.cos(angle), np.sin(angle)])  # |x|^2 / 2 = 1
    t = np.abs(angle[:, None] - angle[None, :])
    ds = igb.kernel(igb.Ensemble("relu", 2.0), inputs=x, depth=2)
    np.testing.assert_allclose(ds.covariance, 2.0 / np.pi * (np.sin(t) + (np.pi - t) * np.cos(t)), atol=1e-15)


# ---- What it says of a data set --------------------------------------------------------------------------------------


def test_simulation_of_the_same_inputs():
    """Sixteen networks: every estimate of simulate within five standard errors, and 1 / width."""
    rng = np.random.default_rng(3)
    x = rng.uniform(size=(12, 30)) * rng.uniform(0.5, 2.0, size=(12, 1))
    ens = igb.Ensemble("tanh", 1.5, 0.05)
    theory = igb.kernel(ens, inputs=x, depth=4)
    mean = igb.network_mean(igb.simulate(ens, width=4000, depth=4, inputs=x, networks=16, seed=5, dtype="float64"))
    for name in ("sigma_mu2", "sigma_y2", "q", "c", "chi"):
        assert (abs(mean[name] - theory[name]) < 5.0 * mean[f"{name}_se"] + 1e-3).all(), name


def test_columns_are_means_over_inputs_and_pairs():
    x = inputs_of_many_norms(9)
    ds = igb.kernel(igb.Ensemble("tanh", 1.5, 0.1), inputs=x, depth=4, layers=[3])
    k = ds.covariance.values[0]
    pairs = np.triu_indices(9, 1)
    q, half = k.diagonal(), 0.5 * (k.diagonal()[:, None] + k.diagonal()[None, :])
    at = ds.sel(layer=3)
    assert float(at.q) == pytest.approx(q.mean(), rel=1e-14)
    assert float(at.sigma_mu2) == pytest.approx(k[pairs].mean(), rel=1e-13)
    assert float(at.sigma_y2) == pytest.approx((half - k)[pairs].mean(), rel=1e-12)
    assert float(at.c) == pytest.approx((k / np.sqrt(np.outer(q, q)))[pairs].mean(), rel=1e-13)
    # chi: E[phi'^2] = 1 - 2 E[phi^2] + E[phi^4] for tanh, by Gauss-Hermite.
    z, w = np.polynomial.hermite_e.hermegauss(120)
    slope2 = ((1.0 - np.tanh(np.sqrt(q)[:, None] * z) ** 2) ** 2 * w).sum(axis=1) / math.sqrt(2.0 * math.pi)
    assert float(at.chi) == pytest.approx(1.5 * slope2.mean(), rel=1e-7)


@pytest.mark.parametrize("name", ["tanh", "erf", "relu", "gelu"])
def test_order_of_the_inputs(name):
    x = inputs_of_many_norms(21)
    ens = igb.Ensemble(name, 1.5, 0.1)
    order = np.random.default_rng(0).permutation(21)
    ds, mixed = igb.kernel(ens, inputs=x, depth=10), igb.kernel(ens, inputs=x[order], depth=10)
    np.testing.assert_allclose(mixed.covariance, ds.covariance.values[np.ix_(order, order)], rtol=1e-13)
    np.testing.assert_allclose(mixed.gamma, ds.gamma, rtol=1e-12)


def test_inputs_and_their_covariance_are_the_same_question():
    x = inputs_of_many_norms(10)
    ens = igb.Ensemble("tanh", 1.5, 0.1)
    given, products = igb.kernel(ens, inputs=x, depth=10), igb.kernel(ens, x @ x.T / x.shape[1], 10)
    np.testing.assert_allclose(products.covariance, given.covariance, rtol=1e-13)
    np.testing.assert_allclose(products.sigma_y2, given.sigma_y2, rtol=1e-12)


def test_close_inputs_keep_their_distance():
    """|x_a - x_b| of 1e-9: the matrix of products has lost it, the inputs have it."""
    x = np.array([[1.0, 0.5, -0.25], [1.0, 0.5 + 2.0**-30, -0.25]])
    ds = igb.kernel(igb.Ensemble("linear", 1.0), inputs=x, depth=3)
    np.testing.assert_allclose(ds.sigma_y2, 2.0**-60 / 6.0, rtol=1e-13)


# ---- Its making ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tanh", "erf", "relu", "gelu", "elu"])
def test_any_number_of_threads(name):
    x = inputs_of_many_norms(30 if name != "elu" else 12)
    ens = igb.Ensemble(name, 1.5, 0.1)
    before = igb.get_num_threads()
    try:
        igb.set_num_threads(1)
        expected = igb.kernel(ens, inputs=x, depth=5)
        igb.set_num_threads(max(2, before))
        xr.testing.assert_identical(igb.kernel(ens, inputs=x, depth=5), expected)
    finally:
        igb.set_num_threads(before)


def test_concurrent_calls():
    x = inputs_of_many_norms(40)
    ens = igb.Ensemble("tanh", 1.5, 0.1)
    expected = igb.kernel(ens, inputs=x, depth=5)
    found = []
    threads = [threading.Thread(target=lambda: found.append(igb.kernel(ens, inputs=x, depth=5))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    for ds in found:
        xr.testing.assert_identical(ds, expected)


def test_dataset(tmp_path):
    ens = igb.Ensemble("tanh", 1.5, 0.1, residual=0.5)
    ds = igb.kernel(ens, np.eye(3), 5, layers=[5, 2, 2])
    assert dict(ds.sizes) == {"layer": 5, "kept_layer": 2, "input": 3, "input_": 3}
    assert ds.kept_layer.values.tolist() == [2, 5]
    np.testing.assert_array_equal(ds.covariance.sel(kept_layer=5), igb.kernel(ens, np.eye(3), 5).covariance)
    np.testing.assert_array_equal(ds.covariance.sel(kept_layer=2), igb.kernel(ens, np.eye(3), 2).covariance)
    assert all(v.dtype == np.float64 and v.attrs["long_name"] for v in ds.data_vars.values())
    expected = {"activation": "tanh", "sigma_w2": 1.5, "residual": 0.5, "depth": 5, "inputs": 3, "given": "k0"}
    assert expected.items() <= ds.attrs.items()
    ds.to_netcdf(tmp_path / "kernel.nc")
    xr.testing.assert_identical(xr.load_dataset(tmp_path / "kernel.nc"), ds)


def test_what_is_given_stays_as_it_is():
    k0 = np.eye(3)
    igb.kernel(igb.Ensemble("tanh", 1.5), k0, 3)
    np.testing.assert_array_equal(k0, np.eye(3))
    as_integers = igb.kernel(igb.Ensemble("tanh", 1.5), np.eye(3, dtype=int), 3)
    np.testing.assert_array_equal(as_integers.covariance, igb.kernel(igb.Ensemble("tanh", 1.5), k0, 3).covariance)


def test_single_precision_is_forgiven_its_rounding():
    x = np.random.default_rng(0).standard_normal((40, 30)).astype(np.float32)
    k0 = x @ x.T / np.float32(30)
    k0[3, 7] *= np.float32(1.0000004)
    igb.kernel(igb.Ensemble("tanh", 1.5), k0, 2)
    with pytest.raises(ValueError, match="k0 must be symmetric"):
        igb.kernel(igb.Ensemble("tanh", 1.5), k0.astype(np.float64), 2)


def test_a_blank_input():
    x = np.array([[0.0, 0.0], [1.0, 2.0], [0.5, -0.5]])
    for name in ("tanh", "relu", "erf"):
        k = igb.kernel(igb.Ensemble(name, 1.5), inputs=x, depth=4).covariance.values
        assert (k[0] == 0.0).all()
        np.testing.assert_allclose(k[1:, 1:], igb.kernel(igb.Ensemble(name, 1.5), inputs=x[1:], depth=4).covariance)
    k = igb.kernel(igb.Ensemble("gelu", 1.5), inputs=x, depth=4).covariance.values
    np.testing.assert_allclose(k, igb.kernel(igb.Ensemble("gelu", 1.5), x @ x.T / 2.0, 4).covariance, atol=1e-15)
    with pytest.raises(ValueError, match="inputs must not be zero where LayerNorm divides by it, but input 0 is"):
        igb.kernel(igb.Ensemble("tanh", 1.5, layernorm=True), inputs=x, depth=4)


# ---- Where doubles end -----------------------------------------------------------------------------------------------


def test_sigma_y2_below_the_smallest_double_is_nan_and_said():
    with pytest.warns(RuntimeWarning, match="sigma_y2 falls below the smallest normal double at layer") as caught:
        ds = igb.kernel(igb.Ensemble("tanh", 0.5, 0.4), np.eye(3), 700)
    assert caught[0].filename == __file__
    lost = np.isnan(ds.sigma_y2.values)
    first = int(np.argmax(lost))
    assert lost[first:].all()
    assert np.isnan(ds.gamma.values[first:]).all()
    assert ds.sigma_y2[first - 1] > np.finfo(float).tiny
    assert np.isfinite(ds.sigma_mu2).all()


def test_overflow_is_nan_and_said():
    with pytest.warns(RuntimeWarning, match="q leaves the range of double at layer"):
        ds = igb.kernel(igb.Ensemble("relu", 4.0), np.eye(2), 1100)
    lost = np.isnan(ds.q.values)
    assert 1000 < int(np.argmax(lost)) < 1030
    assert np.isnan(ds.covariance).all()


def test_lost_digits_are_nan_and_said():
    """x and 3 x: after LayerNorm nothing is left between them but rounding."""
    x = np.array([[0.1, 0.2, -0.3], [0.3, 0.6, -0.9]])
    with pytest.warns(RuntimeWarning, match="sigma_y2 is less than what rounding makes of it at layer 2 of 3"):
        ds = igb.kernel(igb.Ensemble("tanh", 1.5, layernorm=True), inputs=x, depth=3)
    assert np.isfinite(ds.sigma_y2[0])
    assert np.isnan(ds.sigma_y2[1:]).all()
    assert np.isnan(ds.gamma[1:]).all()
    np.testing.assert_allclose(ds.c, 1.0, rtol=1e-15)


def test_pair_by_pair_says_where_its_digits_end():
    """Two variances, a kink: the distance is a difference of integrals, and deep in the ordered phase it is lost."""
    ens = igb.Ensemble("elu", 0.5, 0.3)
    with pytest.warns(RuntimeWarning, match="sigma_y2 is less than what rounding makes of it"):
        ds = igb.kernel(ens, inputs=inputs_of_many_norms(3), depth=30)
    kept = np.isfinite(ds.gamma.values)
    assert kept[:10].all()
    assert not kept[-1]
    assert ds.gamma.values[kept].max() < 1e7
    assert np.isfinite(ds.q).all()


# ---- Arguments -------------------------------------------------------------------------------------------------------

GOOD = np.eye(3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"ens": "tanh"}, TypeError, "ens must be an Ensemble"),
        ({"depth": 0}, ValueError, "depth must be an integer from 1 to 16777215, got 0"),
        ({"depth": 2.0}, TypeError, "depth must be an integer from 1 to 16777215, got 2.0"),
        ({"k0": None}, TypeError, "kernel takes either k0 or inputs, got neither"),
        ({"inputs": GOOD}, TypeError, "kernel takes either k0 or inputs, got both"),
        ({"k0": np.ones((2, 3))}, ValueError, r"k0 must be a square matrix, got shape (2, 3); give inputs as inputs="),
        (
            {"k0": np.ones(3)},
            ValueError,
            "k0 must be a square matrix with two rows or more, got an array of shape (3,)",
        ),
        ({"k0": [[1.0]]}, ValueError, "k0 must be a square matrix with two rows or more, got an array of shape (1, 1)"),
        ({"k0": [[1.0, 0.0], [0.0]]}, ValueError, "k0 must be a square matrix with two rows or more, got rows"),
        ({"k0": GOOD * 1j}, TypeError, "k0 must be real numbers, got dtype complex128"),
        ({"k0": [["a", "b"], ["c", "d"]]}, TypeError, "k0 must be real numbers"),
        ({"k0": np.diag([1.0, math.nan])}, ValueError, "k0 must be finite, got nan at index (1, 1)"),
        ({"k0": np.diag([math.inf, 1.0])}, ValueError, "k0 must be finite, got inf at index (0, 0)"),
        ({"k0": np.diag([1.0, -2.0])}, ValueError, "k0 must not be negative on its diagonal, got -2.0 at index (1, 1)"),
        (
            {"k0": [[1.0, 0.2], [0.1, 1.0]]},
            ValueError,
            "k0 must be symmetric, but k0[0, 1] and its mirror image differ by 0.1, the most of all",
        ),
        (
            {"k0": [[1.0, 1.5], [1.5, 2.0]]},
            ValueError,
            "k0 must be positive semidefinite, but k0[0, 1] = 1.5 is larger than the variances 1.0 and 2.0",
        ),
        (
            {"k0": [[1.0, -0.9, -0.9], [-0.9, 1.0, -0.9], [-0.9, -0.9, 1.0]]},
            ValueError,
            "k0 must be positive semidefinite, but has the eigenvalue -0.8",
        ),
        ({"k0": None, "inputs": np.ones((1, 3))}, ValueError, "inputs must be an array of shape (n, features)"),
        ({"k0": None, "inputs": np.ones((2, 0))}, ValueError, "inputs must be an array of shape (n, features)"),
        (
            {"k0": None, "inputs": [[1.0, math.nan], [0.0, 0.0]]},
            ValueError,
            "inputs must be finite, got nan at index (0, 1)",
        ),
        ({"k0": None, "inputs": [[1e200, 1.0], [0.0, 0.0]]}, ValueError, "that of row 0 overflows"),
        ({"k0": 1e308 * GOOD}, ValueError, "k0 must leave sigma_w2 * q0 + sigma_b2 finite"),
        ({"layers": [4]}, ValueError, "layers must be an integer from 1 to 3, got 4"),
        ({"layers": []}, ValueError, "layers must name a layer from 1 to 3, got none"),
        ({"layers": "last"}, TypeError, "layers must be layer numbers from 1 to 3, got 'last'"),
        ({"layers": 2}, TypeError, "layers must be layer numbers from 1 to 3, got 2"),
    ],
)
def test_arguments_are_refused(arguments, error, message):
    good = {"ens": igb.Ensemble("tanh", sigma_w2=2.0), "k0": GOOD, "depth": 3}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(error, match=re.escape(message)):
            igb.kernel(**(good | arguments))


def test_semidefinite_covariances_are_taken():
    k0 = np.full((3, 3), 2.0)
    ds = igb.kernel(igb.Ensemble("tanh", 1.5), k0, 4)
    assert np.isinf(ds.gamma).all()
    assert (ds.sigma_y2 == 0.0).all()
    assert (ds.c == 1.0).all()
    x = np.random.default_rng(0).standard_normal((50, 3))
    igb.kernel(igb.Ensemble("tanh", 1.5), x @ x.T / 3.0, 2)


def test_what_does_not_fit_into_memory_is_refused(monkeypatch):
    monkeypatch.setattr("igbfast._memory.available_memory", lambda: 1000)
    with pytest.raises(ValueError, match="k0 of 3 inputs, with 2 matrices to keep, needs about .* are available"):
        igb.kernel(igb.Ensemble("tanh", 1.5), GOOD, 3, layers=[1, 2])


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer signal")
@pytest.mark.parametrize("name", ["tanh", "elu"])
def test_a_long_call_is_interrupted(name):
    x = np.random.default_rng(0).standard_normal((400, 5))
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            igb.kernel(igb.Ensemble(name, 1.5, 0.1), inputs=x, depth=100_000)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def test_progress_is_a_fraction_that_grows(monkeypatch):
    fractions = []

    @contextmanager
    def watched(label, progress):
        assert (label, progress) == ("kernel tanh", True)
        yield fractions.append

    monkeypatch.setattr(sys.modules["igbfast.kernel"], "progress_bar", watched)
    x = np.random.default_rng(0).standard_normal((600, 5))
    igb.kernel(igb.Ensemble("tanh", 1.5, 0.1), inputs=x, depth=400, layers=[100, 400], progress=True)
    assert len(fractions) > 1
    assert fractions == sorted(fractions)
    assert all(0.0 <= fraction <= 1.0 for fraction in fractions)
