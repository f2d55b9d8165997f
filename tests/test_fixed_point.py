"""Where the recursion ends: against roots found in mpmath, against deep trajectories, and in words."""

import dataclasses
import math

import numpy as np
import pytest
from mpmath import mp, mpf, workdps
from references import COVARIANCE, TANH, gaussian_mean, tanh_pair
from scipy.optimize import brentq

import igbfast as igb

ORDERED = "ordered, persistent deep prejudice"
EDGE = "edge of chaos, transient deep prejudice"
CHAOTIC = "chaotic deep prejudice"


def at_the_edge(name, sigma_b2):
    """sigma_w2 = 1 / E[phi'^2] at the q where chi = 1, bounded odd phi: q = E[phi^2] / E[phi'^2] + sigma_b2."""

    def excess(q):
        return igb.moments(name, q) / igb.moments(name, q, derivative=1) + sigma_b2 - q

    q = brentq(excess, 1e-9, 10.0, xtol=1e-15, rtol=1e-15)
    return 1.0 / float(igb.moments(name, q, derivative=1)), q


# ---- Against roots in mpmath -----------------------------------------------------------------------------------------


@workdps(40)
def erf_fixed_point(sigma_w2, sigma_b2):
    """q, 1 - c and the susceptibilities from the textbook formula, by bisection for 1 - c."""
    w, b, covariance = mpf(sigma_w2), mpf(sigma_b2), COVARIANCE["erf"]
    q = w + b
    for _ in range(2000):
        q = w * covariance(q, q, q) + b
    q = mp.findroot(lambda x: w * covariance(x, x, x) + b - x, q)
    chi = w * 4 / mp.pi / mp.sqrt(1 + 4 * q)
    chi_q = mp.diff(lambda x: w * covariance(x, x, x), q)
    low, high = mpf("1e-15"), mpf(1)  # 1 - c grows from the low end, and shrinks from the high one
    while chi > 1 and high / low > 1 + mpf("1e-22"):
        s = mp.sqrt(low * high)
        grows = w * (covariance(q, q, q) - covariance(q, q, q * (1 - s))) > q * s
        low, high = (s, high) if grows else (low, s)
    rest = high if chi > 1 else mpf(0)
    return q, rest, chi, chi_q


@pytest.mark.parametrize(
    ("sigma_w2", "sigma_b2"),
    [(0.3, 0.01), (1.0, 0.02), (2.0, 0.1), (4.0, 0.01), (4.0, 1e-6), (50.0, 2.0), (0.786, 1e-9)],
)
def test_erf_fixed_points(sigma_w2, sigma_b2):
    found = igb.fixed_point(igb.Ensemble("erf", sigma_w2, sigma_b2))
    q, rest, chi, chi_q = erf_fixed_point(sigma_w2, sigma_b2)
    conditioning = 1 / (1 - chi_q)
    assert abs(mpf(found.q) / q - 1) < 1e-15 * (3 + conditioning)
    assert abs(mpf(found.chi) / chi - 1) < 1e-15 * (3 + conditioning)
    assert abs(mpf(found.chi_q) / chi_q - 1) < 1e-15 * (3 + conditioning)
    if chi < 1:
        assert (found.c, found.gamma) == (1.0, math.inf)
        assert found.xi_c == pytest.approx(float(-1 / mp.log(chi)), rel=1e-9)
    else:
        assert abs(mpf(found.gamma) / ((1 - rest) / rest) - 1) < 1e-13
        assert found.c == pytest.approx(float(1 - rest), rel=1e-13)
    assert found.xi_q == pytest.approx(float(-1 / mp.log(chi_q)), rel=1e-9)


@pytest.mark.parametrize("excess", [1e-2, 1e-5, 1e-8])
def test_just_above_the_edge_one_less_c_keeps_its_digits(excess):
    """1 - c is of the order of chi - 1, and taken from it as it is, not from c."""
    edge, _ = at_the_edge("erf", 0.05)
    sigma_w2 = edge * (1.0 + excess)
    found = igb.fixed_point(igb.Ensemble("erf", sigma_w2, 0.05))
    _, rest, chi, _ = erf_fixed_point(sigma_w2, 0.05)
    assert found.chi - 1 == pytest.approx(float(chi - 1), rel=3e-15 / excess)
    # Of q, known to 1e-16, only chi - 1 matters: 1 - c can be no better than chi - 1 is.
    assert 1.0 / (1.0 + found.gamma) == pytest.approx(float(rest), rel=1e-14 / excess)
    assert found.phase == "prejudice"


@workdps(30)
@pytest.mark.parametrize(("sigma_w2", "sigma_b2"), [(0.9, 0.05), (2.5, 0.05), (1.6, 0.0), (4.0, 0.5)])
def test_tanh_fixed_points(sigma_w2, sigma_b2):
    found = igb.fixed_point(igb.Ensemble("tanh", sigma_w2, sigma_b2))
    w, b, q = mpf(sigma_w2), mpf(sigma_b2), mpf(found.q)
    assert abs((w * gaussian_mean(lambda x: TANH[0](x) ** 2, q, even=True) + b) / q - 1) < 1e-15
    chi = w * gaussian_mean(lambda x: TANH[1](x) ** 2, q, even=True)
    assert abs(mpf(found.chi) / chi - 1) < 1e-14
    chi_q = w * gaussian_mean(lambda x: TANH[0](x) * TANH[2](x) + TANH[1](x) ** 2, q, even=True)
    assert abs(mpf(found.chi_q) / chi_q - 1) < 1e-13
    if chi < 1:
        assert (found.c, found.phase) == (1.0, ORDERED)
    elif b == 0:
        assert (found.c, found.gamma, found.phase) == (0.0, 0.0, "neutrality")
        assert found.xi_c == pytest.approx(float(-1 / mp.log(w * gaussian_mean(TANH[1], q, even=True) ** 2)), rel=1e-9)
    else:
        c = mpf(found.c)
        assert abs((w * tanh_pair(0, q, q, c) + b) / (q * c) - 1) < 1e-13
        slope = w * tanh_pair(1, q, q, c)
        assert slope < 1
        assert found.xi_c == pytest.approx(float(-1 / mp.log(slope)), rel=1e-9)
        assert found.gamma == pytest.approx(float(c / (1 - c)), rel=1e-13)


@pytest.mark.parametrize(("name", "slope2"), [("tanh", 1), ("erf", 4 / mp.pi)])
@pytest.mark.parametrize("sigma_b2", [1e-11, 1e-16, 1e-40, 1e-200])
def test_a_tiny_variance_at_the_critical_point_keeps_its_digits(name, slope2, sigma_b2):
    """q = sigma_w2 E[phi^2] + sigma_b2 where sigma_w2 phi'(0)^2 = 1 + g, by E[phi^2] = phi'(0)^2 (q - 2 q^2 + ...)."""
    sigma_w2 = float(1 / slope2)
    found = igb.fixed_point(igb.Ensemble(name, sigma_w2, sigma_b2))
    with workdps(60):
        g = mpf(sigma_w2) * (1 if name == "tanh" else 4 / mp.pi) - 1
        cubic, quartic = {"tanh": (mpf(17) / 3, mpf(62) / 3), "erf": (mpf(14) / 3, mpf(12))}[name]
        small = lambda q: (1 + g) * (q - 2 * q**2 + cubic * q**3 - quartic * q**4) + mpf(sigma_b2) - q  # noqa: E731
        q = mp.findroot(small, (g + mp.sqrt(g * g + 8 * mpf(sigma_b2))) / 4, tol=1e-700, verify=False)
    assert float(abs(mpf(found.q) / q - 1)) < 3e-13


# ---- Against deep trajectories ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("c0", [0.0, 0.3, 0.999])
@pytest.mark.parametrize("q0", [0.01, 1.0, 50.0])
@pytest.mark.parametrize(
    ("name", "sigma_w2", "sigma_b2", "depth"),
    [
        ("tanh", 0.9, 0.05, 600), ("tanh", 2.5, 0.05, 600), ("tanh", 1.6, 0.0, 2000), ("tanh", 30.0, 3.0, 200),
        ("erf", 0.5, 0.1, 300), ("erf", 3.0, 0.2, 600), ("erf", 0.7, 0.0, 900), ("tanh", 0.9, 0.0, 900),
        ("relu", 1.5, 0.1, 600), ("leaky_relu(0.3)", 1.2, 0.3, 600), ("leaky_relu(-1)", 0.7, 0.1, 600),
        ("linear", 0.8, 0.1, 600), ("linear", 1.5, 0.1, 600), ("linear", 0.98, 0.0, 2000),
    ],
)  # fmt: skip
def test_the_limit_is_where_trajectories_end(name, sigma_w2, sigma_b2, depth, q0, c0):
    ens = igb.Ensemble(name, sigma_w2, sigma_b2)
    found = igb.fixed_point(ens, q0=q0, c0=c0)
    end = igb.propagate(ens, depth, q0=q0, c0=c0).isel(layer=-1)
    if math.isinf(found.q):
        assert end.q > 1e50
    else:
        assert float(end.q) == pytest.approx(found.q, rel=1e-12, abs=1e-15)
    assert float(end.c) == pytest.approx(found.c, rel=1e-11, abs=1e-11)
    if math.isinf(found.gamma):
        assert end.gamma > 1e15
    else:
        assert float(end.gamma) == pytest.approx(found.gamma, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize(
    ("name", "sigma_w2", "sigma_b2"),
    [("tanh", 0.9, 0.05), ("tanh", 2.5, 0.05), ("erf", 0.5, 0.02), ("relu", 1.5, 0.1), ("linear", 1.5, 0.1)],
)
def test_exponential_rates(name, sigma_w2, sigma_b2):
    ens = igb.Ensemble(name, sigma_w2, sigma_b2)
    found = igb.fixed_point(ens)
    ds = igb.propagate(ens, 400)
    distance = (ds.sigma_y2 / ds.q if found.c == 1.0 else abs(ds.c - found.c)).values
    settled = int(np.argmax(distance < (1e-20 if found.c == 1.0 else 1e-9)))
    assert found.approach.law == "exponential"
    assert distance[settled] / distance[settled - 1] == pytest.approx(found.approach.rate, rel=1e-4)
    assert f"{found.approach.rate:.6g} per layer" in str(found.approach)
    # q comes to its limit at the rate chi_q
    if math.isfinite(found.q):
        off = np.abs(ds.q.values - found.q)
        near = int(np.argmax(off < 1e-8))
        assert off[near] / off[near - 1] == pytest.approx(math.exp(-1.0 / found.xi_q), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "sigma_w2", "sigma_b2"),
    [
        ("relu", 2.0, 0.0), ("relu", 1.0, 0.0), ("relu", 2.0, 0.3), ("leaky_relu(-0.5)", 1.6, 0.0),
        ("leaky_relu(0.5)", 1.6, 0.1), ("linear", 1.0, 0.2), ("tanh", None, 0.05), ("erf", None, 0.2),
    ],
)  # fmt: skip
def test_power_laws(name, sigma_w2, sigma_b2):
    sigma_w2 = at_the_edge(name, sigma_b2)[0] if sigma_w2 is None else sigma_w2
    ens = igb.Ensemble(name, sigma_w2, sigma_b2)
    found = igb.fixed_point(ens)
    assert found.approach.law == "power law"
    assert found.xi_c == math.inf
    depth = 900 if sigma_w2 < 1.5 and name == "relu" else 400_000
    ds = igb.propagate(ens, depth)
    rest = ds.sigma_y2 / ds.q
    # Corrections are of the order of log(l) / l: the growth of (1 - c)^(-1/p) from layer to layer is steadier. Where
    # the growth of q slows the approach down, they are of the order of 1 / sqrt(l).
    p = found.approach.exponent
    steps = rest.values[[depth // 2 - 1, depth - 1]] ** (-1.0 / p)
    prefactor = ((steps[1] - steps[0]) / (depth / 2)) ** -p
    rough = depth < 1000 or (p == 2 and sigma_b2 > 0.0)
    assert prefactor == pytest.approx(found.approach.prefactor, rel=2e-2 if rough else 2e-4)


def test_relu_prefactors_are_the_published_ones():
    assert igb.fixed_point(igb.Ensemble("relu", 2.0)).approach.prefactor == pytest.approx(4.5 * math.pi**2, rel=1e-14)
    assert igb.fixed_point(igb.Ensemble("relu", 2.0)).approach.exponent == 2
    tanh = igb.fixed_point(igb.Ensemble("tanh", at_the_edge("tanh", 0.05)[0], 0.05))
    slope2 = igb.moments("tanh", tanh.q, derivative=1)
    beta = 2.0 * slope2 / (tanh.q * igb.moments("tanh", tanh.q, derivative=2))
    assert tanh.approach.prefactor == pytest.approx(beta, rel=1e-12)


# ---- Phases and special cases, in words ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sigma_w2", "sigma_b2", "phase"),
    [
        ("tanh", 0.9, 0.05, ORDERED),
        ("tanh", 1.76, 0.05, ORDERED),
        ("tanh", None, 0.05, EDGE),
        ("erf", None, 0.3, EDGE),
        ("tanh", 1.85, 0.05, "prejudice"),
        ("tanh", 2.5, 0.05, "neutrality"),
        ("tanh", 2.5, 0.0, "neutrality"),
        ("relu", 1.5, 0.1, ORDERED),
        ("relu", 1.5, 0.0, ORDERED),
        ("relu", 2.0, 0.0, EDGE),
        ("relu", 2.0, 0.1, EDGE),
        ("relu", 2.1, 0.0, CHAOTIC),
        ("leaky_relu(0.5)", 1.6, 0.1, EDGE),
        ("leaky_relu(-1)", 1.1, 0.1, CHAOTIC),
        ("linear", 0.9, 0.1, ORDERED),
        ("linear", 0.9, 0.0, "ordered, neutrality"),
        ("tanh", 1.0, 0.0, "edge of chaos, neutrality"),
        ("tanh", 0.9, 0.0, "ordered, neutrality"),
    ],
)
def test_phases(name, sigma_w2, sigma_b2, phase):
    sigma_w2 = at_the_edge(name, sigma_b2)[0] if sigma_w2 is None else sigma_w2
    assert igb.fixed_point(igb.Ensemble(name, sigma_w2, sigma_b2)).phase == phase


def test_the_neutrality_line():
    """gamma = 1: q and sigma_w2 at which c = 1/2 is the fixed point, from the two equations directly."""
    sigma_b2 = 0.1

    def excess(q):
        return igb.moments("erf", q) * (0.5 * q - sigma_b2) - igb.moments("erf", q, 0.5) * (q - sigma_b2)

    q = brentq(excess, 0.3, 10.0, xtol=1e-15, rtol=1e-15)
    sigma_w2 = (q - sigma_b2) / float(igb.moments("erf", q))
    found = igb.fixed_point(igb.Ensemble("erf", sigma_w2, sigma_b2))
    assert found.gamma == pytest.approx(1.0, rel=1e-12)
    assert found.phase == "neutrality line"


def test_divergent_variance():
    found = igb.fixed_point(igb.Ensemble("relu", 3.0, 0.1))
    assert (found.q, found.c, found.gamma, found.chi, found.chi_q) == (math.inf, 1.0, math.inf, 1.5, 1.5)
    assert "diverges" in str(found.approach)
    assert found.xi_q == pytest.approx(1.0 / math.log(1.5))
    linear = igb.fixed_point(igb.Ensemble("linear", 2.0, 0.1), c0=0.5)
    assert (linear.q, linear.gamma) == (math.inf, pytest.approx(1.2))
    assert linear.phase == "prejudice"


def test_critical_relu_keeps_the_variance_of_its_first_layer():
    assert igb.fixed_point(igb.Ensemble("relu", 2.0), q0=3.5).q == 7.0


@pytest.mark.parametrize(("name", "sigma_w2"), [("tanh", 2.5), ("tanh", 0.5), ("erf", 1.0), ("tanh", 1.0)])
def test_odd_without_biases(name, sigma_w2):
    symmetric = igb.fixed_point(igb.Ensemble(name, sigma_w2))
    assert (symmetric.c, symmetric.gamma) == (0.0, 0.0)
    assert symmetric.approach.law == "constant"
    assert "by symmetry" in str(symmetric.approach)
    identical = igb.fixed_point(igb.Ensemble(name, sigma_w2), c0=1.0)
    assert (identical.c, identical.gamma) == (1.0, math.inf)
    assert "identical" in str(identical.approach)


@pytest.mark.parametrize("name", ["tanh", "erf"])
@pytest.mark.parametrize("short_of_critical", [0.1, 1e-3, 1e-5, 0.0])
def test_a_dying_signal_keeps_a_correlation_that_depends_on_the_start(name, short_of_critical):
    """q -> 0 linearises the network before c is done: the limit is extrapolated where that takes too many layers."""
    critical = {"tanh": 1.0, "erf": math.pi / 4}[name]
    ens = igb.Ensemble(name, critical * (1.0 - short_of_critical))
    found = igb.fixed_point(ens, c0=0.4)
    assert found.q == 0.0
    assert "depends on the inputs" in str(found.approach)
    depth = 400_000 if short_of_critical < 1e-4 else 20_000 if short_of_critical < 1e-2 else 200
    end = igb.propagate(ens, depth, c0=0.4).isel(layer=-1)
    assert float(end.c) == pytest.approx(found.c, rel=1e-6 if short_of_critical < 1e-4 else 1e-7)
    if short_of_critical == 0.0:
        assert float((end.c - found.c) * depth) == pytest.approx(found.approach.prefactor, rel=2e-3)


def test_near_the_edge_is_said():
    found = igb.fixed_point(igb.Ensemble("tanh", sigma_w2=1.76, sigma_b2=0.05))
    assert abs(found.chi - 1.0) < 1e-3
    assert "from the edge of chaos" in str(found.approach)
    assert "edge" not in str(igb.fixed_point(igb.Ensemble("tanh", sigma_w2=0.9, sigma_b2=0.05)).approach)


@pytest.mark.parametrize("name", ["linear", "relu", "leaky_relu(-1)", "tanh", "erf"])
@pytest.mark.parametrize("sigma_w2", [1e-300, 1e-8, 0.5, 1.0, 2.0, 1e8, 1e300])
@pytest.mark.parametrize("sigma_b2", [0.0, 1e-300, 1e-8, 1.0, 1e8])
def test_every_ensemble_has_an_answer(name, sigma_w2, sigma_b2):
    for c0 in (0.0, 0.5, 1.0):
        found = igb.fixed_point(igb.Ensemble(name, sigma_w2, sigma_b2), c0=c0)
        assert found.q >= 0.0
        assert 0.0 <= found.c <= 1.0
        assert found.gamma >= 0.0
        assert found.chi >= 0.0
        assert not math.isnan(found.xi_q + found.xi_c)
        assert found.approach.law in ("constant", "exponential", "power law")


# ---- All fixed points of the variance --------------------------------------------------------------------------------


def test_several_fixed_points_of_the_variance():
    """phi = x^3: E[phi^2] = 15 q^3, so that q = 15 w q^3 + b has two roots for small b; the larger one repels."""
    w, b = 0.3, 0.1
    found = igb.fixed_point(igb.Ensemble("polynomial(0, 0, 0, 1)", w, b), q0=0.1)
    roots = [float(root.real) for root in np.roots([15 * w, 0.0, -1.0, b]) if abs(root.imag) < 1e-12 and root.real > 0]
    assert [point.q for point in found.all_q] == pytest.approx(sorted(roots), rel=1e-12)
    assert [point.stable for point in found.all_q] == [True, False]
    assert [point.chi_q for point in found.all_q] == pytest.approx([45 * w * q * q for q in sorted(roots)], rel=1e-12)
    assert found.q == found.all_q[0].q


def test_from_above_the_unstable_one_the_variance_explodes():
    found = igb.fixed_point(igb.Ensemble("polynomial(0, 0, 0, 1)", 0.3, 0.1), q0=10.0)
    assert (found.q, found.phase) == (math.inf, "no limit")
    assert found.q_law.law == "faster than exponential"
    assert math.isnan(found.c)
    assert len(found.all_q) == 2


def test_without_biases_zero_is_a_fixed_point_and_stable_only_below_the_edge():
    assert [p.stable for p in igb.fixed_point(igb.Ensemble("tanh", 2.0)).all_q] == [False, True]
    assert [p.stable for p in igb.fixed_point(igb.Ensemble("tanh", 0.8)).all_q] == [True]
    assert [p.stable for p in igb.fixed_point(igb.Ensemble("tanh", 1.0)).all_q] == [True]
    assert igb.fixed_point(igb.Ensemble("sigmoid", 2.0)).all_q[0].q > 0.0  # which does not go through zero


def test_a_start_between_two_attractors_decides():
    """GELU without biases: signals die out from below the unstable variance, and diverge from above it."""
    ens = igb.Ensemble("gelu", 2.2)
    points = igb.fixed_point(ens).all_q
    assert [point.stable for point in points] == [True, False]
    threshold = points[1].q / 2.2
    below, above = (igb.fixed_point(ens, q0=threshold * factor) for factor in (0.98, 1.02))
    assert (below.q, above.q) == (0.0, math.inf)
    assert igb.propagate(ens, 150, q0=0.98 * threshold).q[-1] < 0.1
    assert igb.propagate(ens, 150, q0=1.02 * threshold).q[-1] > 100.0


# ---- Every activation: against trajectories --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sigma_w2", "sigma_b2"),
    [
        ("sigmoid", 3.0, 0.1), ("elu", 1.2, 0.1), ("gelu", 1.2, 0.1), ("hardtanh", 2.0, 0.1), ("sin", 3.0, 0.1),
        ("cos", 3.0, 0.1), ("sign", 1.0, 0.3), ("step", 2.0, 0.0), ("gaussian", 5.0, 0.05), ("softplus", 1.5, 0.2),
    ],
)  # fmt: skip
def test_any_activation_ends_where_its_trajectory_does(name, sigma_w2, sigma_b2):
    ens = igb.Ensemble(name, sigma_w2, sigma_b2)
    found = igb.fixed_point(ens)
    ds = igb.propagate(ens, 250)
    end = ds.isel(layer=-1)
    assert float(end.q) == pytest.approx(found.q, rel=1e-10)
    assert float(end.c) == pytest.approx(found.c, rel=1e-9, abs=1e-9)
    assert float(end.chi) == pytest.approx(found.chi, rel=1e-9)
    distance = (ds.sigma_y2 / ds.q if found.c == 1.0 else abs(ds.c - found.c)).values
    settled = int(np.argmax(distance < 1e-8))
    assert found.approach.law == "exponential"
    assert distance[settled] / distance[settled - 1] == pytest.approx(found.approach.rate, rel=1e-2)


@pytest.mark.parametrize(("name", "exponent"), [("elu", 1), ("hardtanh", 2), ("tanh", 1), ("2 * relu(x) - x", 2)])
def test_the_bend_of_the_correlation_map_makes_the_power_law(name, exponent):
    """1 - c' = (1 - c) - B (1 - c)^(1 + p) gives (p B l)^(-1/p); B from layers at the variance of the fixed point."""
    sigma_b2 = 0.2
    ens = igb.Ensemble(name, float(igb.edge_of_chaos(name, sigma_b2)), sigma_b2)
    found = igb.fixed_point(ens)
    assert found.phase == EDGE
    assert found.approach.exponent == exponent
    p = 1.0 / exponent
    bends = []
    for s in (4e-4, 1e-4):
        q = found.q if math.isfinite(found.q) else 1e9
        ds = igb.propagate(ens, 2, q0=(q - sigma_b2) / ens.sigma_w2, c0=1.0 - s * q / (q - sigma_b2))
        first, second = (ds.sigma_y2 / ds.q).values
        bends.append((first - second) / first ** (1 + p))
    bend = 2 * bends[1] - bends[0]  # corrections are of the order of sqrt(1 - c)
    grows = 4.0 if found.q == math.inf else 1.0  # q by sigma_b2 a layer: 1 - c falls in addition as sigma_y2 / q
    assert (p * bend) ** -exponent / grows == pytest.approx(found.approach.prefactor, rel=2e-3)


# ---- Pools -----------------------------------------------------------------------------------------------------------


def test_relu_with_average_pool_is_critical_twice():
    """Variance at 4 pi / (pi + 1), gradients at 4; between them, gradients vanish while the variance diverges."""
    pool = igb.AvgPool(2)
    found = igb.fixed_point(igb.Ensemble("relu", 3.5, 0.1, pool=pool))
    assert (found.q, found.phase) == (math.inf, ORDERED)
    assert found.chi == pytest.approx(3.5 / 4, rel=1e-14)
    assert found.chi_q == pytest.approx(3.5 * (math.pi + 1) / (4 * math.pi), rel=1e-14)
    assert found.approach.rate == pytest.approx(math.pi / (math.pi + 1), rel=1e-14)  # whatever sigma_w2 is
    ds = igb.propagate(igb.Ensemble("relu", 3.5, 0.1, pool=pool), 300)
    s = (ds.sigma_y2 / ds.q).values
    assert s[-1] / s[-2] == pytest.approx(found.approach.rate, rel=1e-9)


def test_relu_with_min_pool_has_correlations_below_one():
    """E[P'^2] = 1/4 exceeds E[P^2] / q = (pi - 2) / (4 pi): c = 1 repels although ReLU alone would attract it."""
    ens = igb.Ensemble("relu", 3.0, pool=igb.MinPool(2))
    found = igb.fixed_point(ens)
    assert found.q == 0.0
    assert found.chi == pytest.approx(0.75, rel=1e-12)
    assert found.chi_q == pytest.approx(3.0 * (math.pi - 2) / (4 * math.pi), rel=1e-12)
    end = igb.propagate(ens, 60).isel(layer=-1)
    assert float(end.c) == pytest.approx(found.c, rel=1e-6)
    assert found.phase == "ordered, neutrality"


def test_max_pool_bends_the_correlation_map_where_nodes_tie():
    """phi(x) = x, two nodes: 1 - c' = (1 - c) - B (1 - c)^(3/2), with B from the surface u1 = u2."""
    found = igb.fixed_point(igb.Ensemble("linear", 1.0, pool=igb.MaxPool(2)))
    # There, the gradient jumps from (1, 0) to (0, 1), by a square of 2; (u1 - u2) / sqrt 2 is standard normal.
    bend = (2.0 / 3.0) / math.sqrt(math.pi) * 2.0 / math.sqrt(2.0 * math.pi)
    assert found.approach.exponent == 2
    assert found.approach.prefactor == pytest.approx(4.0 / bend**2, rel=1e-5)


# ---- LayerNorm and residual networks ---------------------------------------------------------------------------------


def hermite_expectations(phi, q, c, points=150):
    """E[phi(u) phi(v)] by plain Gauss-Hermite quadrature in two dimensions."""
    x, weights = np.polynomial.hermite_e.hermegauss(points)
    weights = weights / weights.sum()
    u = math.sqrt(q) * x
    v = math.sqrt(q) * (c * x[:, None] + math.sqrt(1 - c * c) * x[None, :])
    return float(np.einsum("i,j,i,ij->", weights, weights, phi(u), phi(v)))


@pytest.mark.parametrize("layernorm", [False, True])
@pytest.mark.parametrize("residual", [None, 0.3])
def test_the_recursion_of_residual_and_normalised_networks(layernorm, residual):
    w, b = 1.4, 0.1
    ds = igb.propagate(igb.Ensemble("tanh", w, b, residual=residual, layernorm=layernorm), 8, c0=0.2)
    q, q_ab = w + b, 0.2 * w + b
    keep, gain = (0.0, 1.0) if residual is None else (1.0, residual)
    for layer in range(8):
        assert float(ds.q[layer]) == pytest.approx(q, rel=1e-6)
        assert float(ds.c[layer]) == pytest.approx(q_ab / q, rel=1e-6)
        seen = 1.0 if layernorm else q
        chi = gain * w * hermite_expectations(lambda x: 1 / np.cosh(x) ** 2, seen, 1.0) / (q if layernorm else 1.0)
        assert float(ds.chi[layer]) == pytest.approx(chi if residual is None else 1.0 + chi, rel=1e-6)
        c = q_ab / q
        square = hermite_expectations(np.tanh, seen, 1.0)
        product = hermite_expectations(np.tanh, seen, c)
        q, q_ab = keep * q + gain * (w * square + b), keep * q_ab + gain * (w * product + b)


@pytest.mark.parametrize("name", ["tanh", "relu", "gelu"])
def test_layernorm_fixed_points(name):
    ens = igb.Ensemble(name, 2.0, 0.3, layernorm=True)
    found = igb.fixed_point(ens)
    end = igb.propagate(ens, 800).isel(layer=-1)
    assert float(end.q) == pytest.approx(found.q, rel=1e-12)
    assert float(end.c) == pytest.approx(found.c, rel=1e-10)
    assert float(end.chi) == pytest.approx(found.chi, rel=1e-12)
    assert found.chi_q == 0.0


def test_layernorm_makes_relu_critical_without_biases_whatever_the_weights():
    for sigma_w2 in (0.5, 2.0, 7.0):
        assert igb.fixed_point(igb.Ensemble("relu", sigma_w2, layernorm=True)).phase == EDGE
    assert igb.fixed_point(igb.Ensemble("relu", 7.0, 0.1, layernorm=True)).phase == ORDERED


def log_gradient(ds):
    """The logarithm of the product of chi from layer 1 on."""
    return np.cumsum(np.log(ds.chi.values))


def test_growth_of_a_residual_relu():
    a, w = 0.2, 1.5
    ens = igb.Ensemble("relu", w, 0.1, residual=a)
    found, ds = igb.fixed_point(ens), igb.propagate(ens, 2000)
    assert found.phase == "neither ordered nor chaotic, deep prejudice"
    assert found.q_law.rate == found.gradient_law.rate == pytest.approx(1 + a * w / 2, rel=1e-14)
    assert float(ds.q[-1] / ds.q[-2]) == pytest.approx(found.q_law.rate, rel=1e-12)
    assert found.approach.exponent == found.gamma_law.exponent == 2
    steps = (ds.sigma_y2 / ds.q).values[[999, 1999]] ** -0.5
    assert ((steps[1] - steps[0]) / 1000) ** -2 == pytest.approx(found.approach.prefactor, rel=1e-2)


def test_growth_of_a_residual_tanh():
    """q by a (sigma_w2 + sigma_b2) a layer, gradients as exp(sqrt l): Yang and Schoenholz (2017)."""
    a, w, b = 0.5, 1.0, 0.1
    ens = igb.Ensemble("tanh", w, b, residual=a)
    found, ds = igb.fixed_point(ens), igb.propagate(ens, 200_000)
    assert (found.q_law.exponent, found.q_law.prefactor) == (1.0, pytest.approx(a * (w + b), rel=1e-6))
    assert float(ds.q[-1]) / 200_000 == pytest.approx(a * (w + b), rel=1e-2)
    assert found.gradient_law.law == "stretched exponential"
    assert found.gradient_law.exponent == pytest.approx(0.5, abs=1e-6)
    expected = a * w * (4 / 3) / math.sqrt(2 * math.pi * a * (w + b)) * 2  # E[sech^4] -> (4/3) / sqrt(2 pi q)
    assert found.gradient_law.prefactor == pytest.approx(expected, rel=1e-5)
    grown = log_gradient(ds)
    slope = (grown[-1] - grown[50_000 - 1]) / (math.sqrt(200_000) - math.sqrt(50_000))
    assert slope == pytest.approx(found.gradient_law.prefactor, rel=1e-2)
    # c goes where (sigma_w2 (2/pi) asin c + sigma_b2) / (sigma_w2 + sigma_b2) = c: tanh has become a step
    c = brentq(lambda x: (w * 2 / math.pi * math.asin(x) + b) / (w + b) - x, 0.0, 0.9)
    assert found.c == pytest.approx(c, rel=1e-6)
    assert float(ds.c[-1]) == pytest.approx(c, abs=0.01)


def test_growth_of_a_residual_network_with_layernorm():
    """Gradients grow as the power sigma_w2 D / (sigma_w2 V + sigma_b2) of the depth, 1 - c falls as the rest."""
    ens = igb.Ensemble("tanh", 1.0, 0.4, residual=0.7, layernorm=True)
    found, ds = igb.fixed_point(ens), igb.propagate(ens, 200_000)
    d, v = igb.moments("tanh", 1.0, derivative=1), igb.moments("tanh", 1.0)
    power = float(d / (v + 0.4))
    assert found.gradient_law.exponent == pytest.approx(power, rel=1e-12)
    assert found.q_law.prefactor == pytest.approx(0.7 * float(v + 0.4), rel=1e-12)
    grown, rest = log_gradient(ds), np.log((ds.sigma_y2 / ds.q).values)
    octave = math.log(2.0)
    assert (grown[-1] - grown[99_999]) / octave == pytest.approx(power, rel=1e-3)
    assert found.approach.exponent == pytest.approx(1 - power, rel=1e-12)
    assert (rest[99_999] - rest[-1]) / octave == pytest.approx(1 - power, rel=1e-2)


# ---- The object and its arguments ------------------------------------------------------------------------------------


def test_it_reads_well():
    found = igb.fixed_point(igb.Ensemble("relu", 1.5, 0.1))
    lines = str(found).splitlines()
    assert lines[0] == ORDERED
    assert [line.split("=")[0].strip() for line in lines[1:-1]] == ["q", "c", "gamma", "chi", "chi_q", "xi_q", "xi_c"]
    assert lines[-1] == "1 - c shrinks exponentially, by the factor 0.75 per layer."
    assert repr(found).startswith(f"<FixedPoint: {ORDERED}; q=0.4, c=1, gamma=inf, chi=0.75, chi_q=0.75")
    fields = [field.name for field in dataclasses.fields(igb.FixedPoint)]
    laws = ["approach", "gamma_law", "q_law", "gradient_law"]
    assert fields == ["q", "c", "gamma", "chi", "chi_q", "xi_q", "xi_c", "phase", *laws, "all_q"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.q = 1.0
    assert found == igb.fixed_point(igb.Ensemble("relu", 1.5, 0.1), q0=2.0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"ens": "tanh"}, TypeError, "ens must be an Ensemble"),
        ({"q0": -1.0}, ValueError, "q0 must be a positive finite number, got -1.0"),
        ({"q0": 1e308, "ens": igb.Ensemble("tanh", 1e3)}, ValueError, "q0 must leave sigma_w2"),
        ({"c0": 2}, ValueError, "c0 must be a number from 0 to 1, got 2"),
        ({"c0": None}, TypeError, "c0 must be a number from 0 to 1, got None"),
    ],
)
def test_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        igb.fixed_point(**({"ens": igb.Ensemble("tanh", sigma_w2=1.0)} | arguments))
