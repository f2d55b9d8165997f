"""Lines and diagrams: against roots in mpmath, closed forms of pools, and deep trajectories."""

import math

import numpy as np
import pytest
from mpmath import mp, mpf, workdps
from references import COVARIANCE, TANH, gaussian_mean, tanh_pair

import igbfast as igb
from igbfast.phases import PHASES

MAX2, MIN2, AVG2 = igb.MaxPool(2), igb.MinPool(2), igb.AvgPool(2)


# ---- Edge of chaos ---------------------------------------------------------------------------------------------------


@workdps(30)
@pytest.mark.parametrize("sigma_b2", [1e-4, 0.05, 0.5, 3.0])
def test_edge_of_chaos_of_tanh(sigma_b2):
    """q = V(q) / D(q) + sigma_b2 by trapezoidal sums in 30 digits, and sigma_w2 = 1 / D."""

    def mean(f, q):
        return gaussian_mean(f, q, even=True)

    def excess(q):
        return mean(lambda x: TANH[0](x) ** 2, q) / mean(lambda x: TANH[1](x) ** 2, q) + mpf(sigma_b2) - q

    low, high = mpf(sigma_b2), mpf(20)
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    expected = 1 / mean(lambda x: TANH[1](x) ** 2, (low + high) / 2)
    assert igb.edge_of_chaos("tanh", sigma_b2) == pytest.approx(float(expected), rel=1e-12)


@workdps(30)
@pytest.mark.parametrize("sigma_b2", [1e-3, 0.1, 2.0])
def test_edge_of_chaos_of_erf(sigma_b2):
    """E[phi^2] = (2/pi) asin(2q / (1 + 2q)), E[phi'^2] = (4/pi) / sqrt(1 + 4q)."""

    def slope2(q):
        return 4 / mp.pi / mp.sqrt(1 + 4 * q)

    q = mp.findroot(lambda q: COVARIANCE["erf"](q, q, q) / slope2(q) + mpf(sigma_b2) - q, (mpf("1e-3"), 20), "anderson")
    assert igb.edge_of_chaos("erf", sigma_b2) == pytest.approx(float(1 / slope2(q)), rel=1e-12)


def test_without_biases_the_edge_of_odd_activations_is_where_signals_start_to_live():
    assert igb.edge_of_chaos("tanh", 0.0) == 1.0
    assert igb.edge_of_chaos("erf", 0.0) == pytest.approx(math.pi / 4, rel=1e-15)
    assert igb.edge_of_chaos("tanh", [0.0, 1e-12, 1e-9]) == pytest.approx(1.0, abs=3e-3)


RELU_FAMILY = [
    ("linear", None, 1.0, 1.0),
    ("relu", None, 2.0, 2.0),
    ("leaky_relu(0.5)", None, 1.6, 1.6),
    ("abs", None, 1.0, 1.0),
    ("2 * relu(x)", None, 0.5, 0.5),
    ("relu", MAX2, 4 / 3, 4 * math.pi / (3 * math.pi + 2)),
    ("relu", AVG2, 4.0, 4 * math.pi / (math.pi + 1)),
    ("relu", MIN2, 4.0, 4 * math.pi / (math.pi - 2)),
    ("linear", MAX2, 1.0, 1.0),
    ("linear", igb.AvgPool(5), 5.0, 5.0),
]


@pytest.mark.parametrize(("name", "pool", "gradient", "variance"), RELU_FAMILY)
def test_the_relu_family_is_critical_whatever_the_biases(name, pool, gradient, variance):
    biases = [0.0, 1e-6, 0.3, 50.0]
    assert igb.edge_of_chaos(name, biases, pool=pool) == pytest.approx(gradient, rel=1e-12)
    assert igb.edge_of_chaos(name, biases, pool=pool, kind="variance") == pytest.approx(variance, rel=1e-12)


@pytest.mark.parametrize("kind", ["gradient", "variance"])
def test_max_pool_of_two_leaves_the_line_of_tanh(kind):
    """phi^2 and phi'^2 are even, and the larger and the smaller of two nodes are each other's mirror image."""
    biases = [1e-3, 0.05, 0.7]
    expected = igb.edge_of_chaos("tanh", biases)
    assert igb.edge_of_chaos("tanh", biases, pool=MAX2, kind=kind) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("name", "pool"), [("hardtanh", None), ("sin", None), ("elu", None), ("tanh", igb.AvgPool(3))])
def test_on_the_edge_chi_is_one(name, pool):
    for sigma_b2 in (0.05, 0.4):
        edge = float(igb.edge_of_chaos(name, sigma_b2, pool=pool))
        end = igb.propagate(igb.Ensemble(name, edge, sigma_b2, pool=pool), 600, c0=1.0).isel(layer=-1)
        assert float(end.chi) == pytest.approx(1.0, abs=1e-9)


def test_where_the_variance_jumps_before_chi_is_one_there_is_no_edge():
    """GELU with small biases: the only q with sigma_w2 E[phi'^2] = 1 repels."""
    assert math.isnan(igb.edge_of_chaos("gelu", 0.01))
    highest = float(igb.edge_of_chaos("gelu", 0.01, kind="variance"))
    below, above = (igb.fixed_point(igb.Ensemble("gelu", highest * factor, 0.01)) for factor in (0.999, 1.001))
    assert (len(below.all_q), len(above.all_q)) == (2, 0)
    assert below.all_q[0].chi_q < 1.0 < below.all_q[1].chi_q
    assert above.q == math.inf


def test_superlinear_activations_have_a_variance_critical_point():
    """phi = x^2: q = 3 sigma_w2 q^2 + sigma_b2 has roots up to sigma_w2 = 1 / (12 sigma_b2)."""
    biases = np.array([0.01, 0.3, 2.0])
    found = igb.edge_of_chaos("polynomial(0, 0, 1)", biases, kind="variance")
    assert found == pytest.approx(1 / (12 * biases), rel=1e-12)


def test_functions_that_jump_have_no_edge():
    assert np.isnan(igb.edge_of_chaos("sign", [0.0, 0.1])).all()


# ---- Neutrality line -------------------------------------------------------------------------------------------------


@workdps(30)
@pytest.mark.parametrize("sigma_b2", [1e-3, 0.1, 2.0])
def test_neutrality_line_of_erf(sigma_b2):
    b, covariance = mpf(sigma_b2), COVARIANCE["erf"]

    def excess(q):
        return covariance(q, q, q) * (q / 2 - b) - covariance(q, q, q / 2) * (q - b)

    q = mp.findroot(excess, (2 * b + mpf("1e-2"), 60), "anderson", tol=1e-50)
    assert igb.neutrality_line("erf", sigma_b2) == pytest.approx(float((q - b) / covariance(q, q, q)), rel=1e-11)


@workdps(25)
@pytest.mark.parametrize("sigma_b2", [0.05, 0.5])
def test_neutrality_line_of_tanh(sigma_b2):
    """At the line's q, from its own sigma_w2, both equations hold in mpmath."""
    w, b = mpf(float(igb.neutrality_line("tanh", sigma_b2))), mpf(sigma_b2)
    q = w + b
    for _ in range(200):
        q = w * gaussian_mean(lambda x: TANH[0](x) ** 2, q, even=True) + b
        if abs(w * gaussian_mean(lambda x: TANH[0](x) ** 2, q, even=True) + b - q) < mpf("1e-14"):
            break
    assert float((w * tanh_pair(0, q, q, mpf(1) / 2) + b) / q) == pytest.approx(0.5, abs=1e-11)


@pytest.mark.parametrize(
    ("name", "pool"), [("hardtanh", None), ("sin", None), ("sign", None), ("tanh", AVG2), ("tanh", MAX2)]
)
def test_on_the_neutrality_line_deep_networks_have_gamma_one(name, pool):
    sigma_b2 = 0.6
    line = float(igb.neutrality_line(name, sigma_b2, pool=pool))
    if math.isnan(line):  # max pools have means, which correlate all inputs
        assert pool == MAX2
        return
    found = igb.fixed_point(igb.Ensemble(name, line, sigma_b2, pool=pool))
    assert found.gamma == pytest.approx(1.0, rel=1e-9)
    assert "neutrality line" in found.phase


def test_no_neutrality_line():
    assert np.isnan(igb.neutrality_line("relu", [0.0, 0.1, 2.0])).all()
    assert np.isnan(igb.neutrality_line("sigmoid", 0.1))
    assert np.isnan(igb.neutrality_line("tanh", 0.0))


@pytest.mark.parametrize(("name", "pool"), [("tanh", None), ("sin", None), ("hardtanh", AVG2)])
def test_many_biases_at_once_give_what_each_gives_alone(name, pool):
    """Many are found through a spline, a few by bracketing."""
    biases = np.linspace(0.0, 2.0, 90)
    for line in (igb.edge_of_chaos, igb.neutrality_line):
        together = line(name, biases, pool=pool)
        alone = [line(name, sigma_b2, pool=pool) for sigma_b2 in biases[:20]]
        np.testing.assert_allclose(together[:20], alone, rtol=1e-11)


def test_lines_keep_the_shape_of_the_biases():
    assert igb.edge_of_chaos("tanh", np.full((2, 3), 0.1)).shape == (2, 3)
    assert igb.edge_of_chaos("tanh", []).shape == (0,)
    assert igb.neutrality_line("tanh", []).shape == (0,)
    assert isinstance(igb.neutrality_line("tanh", 0.1), float)


# ---- Diagrams --------------------------------------------------------------------------------------------------------

W, B = np.linspace(0.4, 4.2, 24), np.linspace(0.0, 0.6, 13)


@pytest.mark.parametrize(
    ("name", "settings", "accuracy"),
    [
        ("tanh", {}, 1e-10), ("erf", {}, 1e-10), ("relu", {}, 1e-12), ("linear", {}, 1e-10),
        ("leaky_relu(-1)", {}, 1e-12),
        ("sin", {}, 1e-9), ("sigmoid", {}, 1e-9), ("tanh", {"pool": AVG2}, 1e-10), ("relu", {"pool": AVG2}, 1e-10),
        ("relu", {"pool": MAX2}, 1e-7), ("tanh", {"layernorm": True}, 1e-10), ("relu", {"layernorm": True}, 1e-10),
        ("tanh", {"residual": 0.2}, 1e-8), ("relu", {"residual": 0.2}, 1e-10),
        ("tanh", {"residual": 0.2, "layernorm": True}, 1e-10),
    ],
)  # fmt: skip
def test_a_diagram_is_its_fixed_points(name, settings, accuracy):
    """Two ways to the same: arrays by one surface or row for all, and one ensemble at a time."""
    diagram = igb.phase_diagram(name, W, B, **settings)
    random = np.random.default_rng(5)
    for i, j in zip(random.integers(W.size, size=25), random.integers(B.size, size=25), strict=True):
        found = igb.fixed_point(igb.Ensemble(name, float(W[i]), float(B[j]), **settings))
        here = diagram.isel(sigma_w2=i, sigma_b2=j)
        if math.isnan(here.c) and here.q == 0.0:  # what the inputs made of it
            assert found.approach.sentence.count("depends on the inputs") == 1
            continue
        for quantity in ("q", "c", "gamma", "chi", "chi_q", "xi_q", "xi_c"):
            assert float(here[quantity]) == pytest.approx(
                getattr(found, quantity), rel=accuracy, abs=1e-12, nan_ok=True
            )
        phase = PHASES[int(here.phase)]
        if phase == "ordered, c of the inputs":
            assert found.chi <= 1.0 + 1e-9
            assert found.gamma < math.inf
        else:
            assert found.phase.startswith(phase)


@pytest.mark.parametrize("name", ["hardtanh", "tanh(5 * x)", "sign"])
def test_surfaces_for_functions_with_kinks_and_jumps(name):
    """Enough points that c comes from a Chebyshev surface; some of them against deep trajectories."""
    w, b = np.linspace(1.2, 4.0, 60), np.linspace(0.02, 0.6, 50)
    diagram = igb.phase_diagram(name, w, b)
    for i, j in [(5, 40), (30, 3), (59, 25), (45, 49)]:
        end = igb.propagate(igb.Ensemble(name, float(w[i]), float(b[j])), 400).isel(layer=-1)
        assert float(diagram.q[i, j]) == pytest.approx(float(end.q), rel=1e-9)
        assert float(diagram.c[i, j]) == pytest.approx(float(end.c), rel=1e-7)


def test_the_phases_lie_between_the_lines():
    diagram = igb.phase_diagram("tanh", np.linspace(0.5, 4.0, 71), np.linspace(0.01, 0.5, 8))
    phase, w = diagram.phase, diagram.sigma_w2
    assert ((phase == 0) == (w < diagram.edge_of_chaos)).all()
    assert ((phase == 3) == ((w > diagram.edge_of_chaos) & (w < diagram.neutrality_line))).all()
    assert ((phase == 5) == (w > diagram.neutrality_line)).all()
    np.testing.assert_array_equal(diagram.edge_of_chaos_variance, diagram.edge_of_chaos)


def test_pools_are_critical_twice_in_one_diagram():
    diagram = igb.phase_diagram("relu", [0.9, 1.2, 1.5], [0.1], pool=MAX2)
    assert [PHASES[code] for code in diagram.phase[:, 0].values] == [
        "ordered, persistent deep prejudice",
        "ordered, persistent deep prejudice",
        "chaotic deep prejudice",
    ]
    assert np.isinf(diagram.q[:, 0]).values.tolist() == [False, True, True]
    assert diagram.edge_of_chaos_variance < 1.2 < diagram.edge_of_chaos


def test_residual_networks_are_nowhere_ordered_nor_chaotic():
    diagram = igb.phase_diagram("tanh", [0.5, 2.0, 4.0], [0.05, 0.5], residual=0.1)
    assert {PHASES[code] for code in diagram.phase.values.ravel()} == {"neither ordered nor chaotic"}
    assert np.isnan(diagram.edge_of_chaos).all()
    assert (diagram.chi == 1.0).all()


def test_layernorm_has_lines_of_its_own():
    diagram = igb.phase_diagram("tanh", [1.0], [0.05, 0.2], layernorm=True)
    for sigma_b2 in (0.05, 0.2):
        edge = float(diagram.edge_of_chaos.sel(sigma_b2=sigma_b2))
        assert igb.fixed_point(igb.Ensemble("tanh", edge, sigma_b2, layernorm=True)).phase.startswith("edge of chaos")
        neutral = float(diagram.neutrality_line.sel(sigma_b2=sigma_b2))
        assert igb.fixed_point(igb.Ensemble("tanh", neutral, sigma_b2, layernorm=True)).phase == "neutrality line"


def test_a_diagram_is_saved_and_comes_back(tmp_path):
    diagram = igb.phase_diagram("relu", [1.0, 2.0], [0.0, 0.1], pool=MAX2)
    assert diagram.attrs["activation"] == "relu"
    assert diagram.attrs["pool"] == "MaxPool(2)"
    assert (
        len(str(diagram.phase.attrs["flag_meanings"]).split()) == len(PHASES) == diagram.phase.attrs["flag_values"].size
    )
    import xarray as xr

    diagram.to_netcdf(tmp_path / "diagram.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "diagram.nc", engine="h5netcdf") as back:
        xr.testing.assert_equal(back.load(), diagram)


# ---- Arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: igb.edge_of_chaos("tanh", -0.1), ValueError, "sigma_b2 must be finite and zero or positive, got -0.1"),
        (lambda: igb.edge_of_chaos("tanh", [0.1, math.nan]), ValueError, "got nan at index 1"),
        (lambda: igb.edge_of_chaos("tanh", 1j), TypeError, "sigma_b2 must be real numbers"),
        (lambda: igb.edge_of_chaos("tanh", 0.1, kind="gradients"), ValueError, "did you mean 'gradient'"),
        (lambda: igb.edge_of_chaos("tanh", 0.1, pool=2), TypeError, r"pool must be None, MaxPool\(k\)"),
        (lambda: igb.neutrality_line("tahn", 0.1), ValueError, "unknown activation 'tahn'"),
        (lambda: igb.phase_diagram("tanh", [], [0.1]), ValueError, "sigma_w2 must be a row of at least one number"),
        (
            lambda: igb.phase_diagram("tanh", [[1.0]], [0.1]),
            ValueError,
            "sigma_w2 must be a row of at least one number",
        ),
        (lambda: igb.phase_diagram("tanh", [1.0, 0.0], [0.1]), ValueError, "positive, got 0.0 at index 1"),
        (lambda: igb.phase_diagram("tanh", [1.0], [math.inf]), ValueError, "sigma_b2 must be finite"),
        (lambda: igb.phase_diagram("tanh", [1.0], [0.1], residual=-1.0), ValueError, "residual must be a positive"),
    ],
)
def test_arguments_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
