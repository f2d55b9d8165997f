"""Max and min pools of functions that both rise and fall, which are integrated over their values.

Pools of two nodes a, b have closed forms in the independent s = a + b and d = a - b, whose correlations are those of
the nodes: max(|a|, |b|) = (|s| + |d|) / 2, its square, and max(sin a, sin b) = sin(s/2) cos(d/2) + |sin(d/2) cos(s/2)|.
The largest of k values of |u|, or of any phi with one minimum, is integrated by its distribution function in SciPy;
sampling checks the rest, in standard errors. Monotone functions, which have a route of their own, must agree.
"""

import itertools
import math

import numpy as np
import pytest
from mpmath import mp, mpf, workdps
from scipy import integrate, optimize, special, stats

import igbfast as igb
from igbfast import _core

CORRELATIONS = [-1.0, -0.97, -0.6, 0.0, 1e-6, 0.3, 0.9, 0.95, 0.97, 0.999, 1 - 1e-7]


def general(name, q):
    """A monotone phi as a mixture of itself, which takes the route of those that are not."""
    phi = igb.Activation(name)._core_phi(q, True)
    return _core.Phi(components=[(0.25, phi), (0.75, phi)])


def single(phi, kind, size, q):
    """mean, square, slope2, square_dq at one variance."""
    return _core.single_moments(phi=phi, pool=kind, size=size, q=np.array([q]))[0, :4]


def split(phi, kind, size, sigma_mu2, sigma_y2):
    """centre and spread."""
    mu2, y2 = np.array([sigma_mu2]), np.array([sigma_y2])
    return _core.split_moments(phi=phi, pool=kind, size=size, sigma_mu2=mu2, sigma_y2=y2)[0]


def pair(phi, kind, size, q, c, derivative=0, q_b=None):
    first, second = np.array([q]), np.array([q if q_b is None else q_b])
    return _core.moments(
        phi=phi, pool=kind, size=size, derivative=derivative, q_aa=first, q_bb=second, c=np.array([c])
    )[0]


def core(name, q):
    return igb.Activation(name)._core_phi(q, True)


# ---- Closed forms ----------------------------------------------------------------------------------------------------


def folded(c):
    """E[|x| |y|] of standard normals."""
    return 2 / mp.pi * (mp.sqrt(1 - c * c) + c * mp.asin(c))


def abs_of_two(q, c):
    return q * (folded(c) + 2 / mp.pi)


def square_of_two(q, c):
    return q**2 / 4 * (4 * (1 + c * c) + 4 * folded(c) ** 2 + 16 / mp.pi * (1 + c * c))


def exact(formula, q, c):
    with workdps(60):
        return float(formula(mpf(q), mpf(c)))


TWO = {"abs": abs_of_two, "polynomial(0,0,1)": square_of_two}


@pytest.mark.parametrize("c", CORRELATIONS)
@pytest.mark.parametrize("q", [1e-3, 1.7, 300.0])
@pytest.mark.parametrize("name", TWO)
def test_pairs_of_two_in_closed_form(name, q, c):
    square = exact(TWO[name], q, 1.0)
    assert pair(core(name, q), "max", 2, q, c) == pytest.approx(exact(TWO[name], q, c), rel=1e-12, abs=1e-12 * square)


@pytest.mark.parametrize("s", [0.9, 0.2, 0.039, 0.01, 1e-3, 1e-6, 1e-9, 1e-16, 1e-24])
@pytest.mark.parametrize("name", TWO)
def test_spreads_of_two_in_closed_form(name, s):
    q = 2.5
    with workdps(100):
        small = mpf(q) * mpf(s)
        total = mpf(q) * (1 - mpf(s)) + small
        spread = float(TWO[name](total, mpf(1)) - TWO[name](total, 1 - small / total))
        centre = float(TWO[name](total, 1 - small / total))
    found = split(core(name, 2 * q), "max", 2, q * (1 - s), q * s)
    np.testing.assert_allclose(found, [centre, spread], rtol=2e-11)


def sine_series(v_a, v_b, c, phase):
    """E[|f(x) f(y)|] for sin (phase 1) or cos (phase -1) of normals, by Fourier series of |sin| and |cos|."""
    n = np.arange(0, 60)
    weights = np.where(n == 0, 2 / np.pi, -4 / np.pi / (4.0 * n**2 - 1) * float(phase) ** n)
    cross = 8 * c * math.sqrt(v_a * v_b) * np.outer(n, n)
    squares = 4 * v_a * n[:, None] ** 2 + 4 * v_b * n**2
    cosines = 0.5 * (np.exp(-0.5 * (squares + cross)) + np.exp(-0.5 * (squares - cross)))
    return float(weights @ cosines @ weights)


@pytest.mark.parametrize(("q_a", "q_b"), [(0.9, 0.9), (6.0, 6.0), (0.9, 6.0)])
@pytest.mark.parametrize("c", [-0.9, -0.4, 0.0, 0.5, 0.93])
def test_two_sines(q_a, q_b, c):
    v_a, v_b = q_a / 2, q_b / 2
    damping, cross = math.exp(-(v_a + v_b) / 2), c * math.sqrt(v_a * v_b)
    waves = damping**2 * math.sinh(cross) * math.cosh(cross)
    value = waves + sine_series(v_a, v_b, c, 1) * sine_series(v_a, v_b, c, -1)
    assert pair(core("sin", max(q_a, q_b)), "max", 2, q_a, c, q_b=q_b) == pytest.approx(value, rel=1e-11)


# ---- One input, by distribution functions ----------------------------------------------------------------------------


def integral(f, *points):
    return sum(integrate.quad(f, a, b, epsabs=1e-14, epsrel=1e-13, limit=200)[0] for a, b in itertools.pairwise(points))


@pytest.mark.parametrize("size", [2, 3, 7, 40])
def test_largest_and_smallest_absolute_values(size):
    q = 2.0
    for kind in ("max", "min"):

        def density(x, kind=kind):
            inside = special.erf(x / math.sqrt(2))
            other = inside if kind == "max" else 1 - inside
            return 2 * size * stats.norm.pdf(x) * other ** (size - 1)

        mean, square, slope2, square_dq = single(core("abs", q), kind, size, q)
        first, second = (integral(lambda x, n=n: x**n * density(x), 0, 1, 3, 12) for n in (1, 2))
        assert mean == pytest.approx(math.sqrt(q) * first, rel=1e-12)
        assert square == pytest.approx(q * second, rel=1e-12)
        assert square_dq == pytest.approx(second, rel=1e-12)
        assert slope2 == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("name", ["gelu", "silu", "mish"])
@pytest.mark.parametrize(("size", "q"), [(2, 0.2), (2, 3.0), (5, 1.0)])
def test_functions_with_one_minimum(name, size, q):
    phi = igb.Activation(name)
    value, slope = (lambda x: float(phi(x))), (lambda x: float(phi.derivative(x)))
    lowest = optimize.brentq(slope, -3.0, 0.0, xtol=1e-15)

    def partner(x):  # on the other side of the minimum, with the same value
        if x >= 0.0:
            return -math.inf
        if x > lowest:
            return optimize.brentq(
                lambda y: value(y) - value(x), -700.0 if name != "gelu" else -38.0, lowest, xtol=1e-14
            )
        return optimize.brentq(lambda y: value(y) - value(x), lowest, 0.0, xtol=1e-14)

    def density(z):
        x = z * math.sqrt(q)
        inside = abs(stats.norm.cdf(z) - stats.norm.cdf(partner(x) / math.sqrt(q)))
        return size * stats.norm.pdf(z) * inside ** (size - 1)

    points = sorted({-9.0, lowest / math.sqrt(q), 0.0, 4.0, 9.0})
    mean, square, slope2, _ = single(phi._core_phi(q, True), "max", size, q)
    with np.errstate(all="ignore"):
        moments = [
            integrate.quad(
                lambda z, f=f: f(z * math.sqrt(q)) * density(z), -9.0, 9.0, points=points[1:-1], epsrel=1e-9, limit=400
            )[0]
            for f in (value, lambda x: value(x) ** 2, lambda x: slope(x) ** 2)
        ]
    np.testing.assert_allclose([mean, square, slope2], moments, rtol=1e-7)


def test_a_mixture_takes_the_largest_of_what_its_nodes_draw():
    """Each node is u or |u|: H(t) = Phi(t) / 2 + max(2 Phi(t) - 1, 0) / 2."""
    q, size = 1.0, 3
    phi = _core.Phi(components=[(0.5, core("linear", q)), (0.5, core("abs", q))])

    def chance(t):
        below = stats.norm.cdf(t)
        return (0.5 * below + 0.5 * max(2 * below - 1, 0.0)) ** size

    mean, square = single(phi, "max", size, q)[:2]
    above = integral(lambda t: 1 - chance(t), 0, 3, 9)
    below = integral(chance, -9, 0)
    assert mean == pytest.approx(above - below, rel=1e-11)
    moment = integral(lambda t: 2 * t * (1 - chance(t)), 0, 3, 9) - integral(lambda t: 2 * t * chance(t), -9, 0)
    assert square == pytest.approx(moment, rel=1e-11)


# ---- Jumps and ties --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 5])
@pytest.mark.parametrize("c", [-0.5, 0.4, 0.95, 0.9999])
def test_indicator_of_an_interval(size, c):
    """1 where 0 < u < 1: nodes tie, and P is 1 unless all of them are outside."""
    q, phi = 1.4, igb.Activation("step(x) - step(x - 1)")._core_phi(1.4, True)
    end, w = 1 / math.sqrt(q), math.sqrt((1 - c) * (1 + c))
    inside = special.ndtr(end) - 0.5

    def both(z):
        return stats.norm.pdf(z) * (special.ndtr((end - c * z) / w) - special.ndtr(-c * z / w))

    cuts = sorted({0.0, end, *(min(max(x, 0.0), end) for x in (9 * w, end - 9 * w, end / 2))})
    outside = 1 - 2 * inside + integral(both, *cuts)
    alone, together = (1 - inside) ** size, outside**size
    assert pair(phi, "max", size, q, c) == pytest.approx(1 - 2 * alone + together, rel=1e-11)
    assert single(phi, "max", size, q)[2] == math.inf
    if c > 0:
        spread = split(phi, "max", size, q * c, q * (1 - c))[1]
        assert spread == pytest.approx(alone - together, rel=1e-9)


# ---- The other route -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["max", "min"])
@pytest.mark.parametrize("name", ["relu", "tanh", "softplus", "leaky_relu(0.2)"])
def test_monotone_functions_by_both_routes(name, kind):
    size, q = 3, 1.3
    one, other = core(name, q), general(name, q)
    np.testing.assert_allclose(single(other, kind, size, q), single(one, kind, size, q), rtol=1e-12)
    for c, derivative in itertools.product([-0.8, 0.0, 0.7, 0.995], [0, 1]):
        scale = single(one, kind, size, q)[2 if derivative else 1]
        found, expected = (pair(phi, kind, size, q, c, derivative) for phi in (other, one))
        assert abs(found - expected) <= 1e-11 * scale
    expected = pair(one, kind, size, 0.4, 0.6, q_b=q)
    assert pair(other, kind, size, 0.4, 0.6, q_b=q) == pytest.approx(expected, rel=1e-11)
    for s in (0.3, 0.02, 1e-8, 1e-20, 1e-40):
        found, expected = (split(phi, kind, size, q * (1 - s), q * s) for phi in (other, one))
        np.testing.assert_allclose(found, expected, rtol=2e-11)


# ---- What holds for every phi ----------------------------------------------------------------------------------------

ROUGH = ["gelu", "mish", "sin", "cos", "gaussian", "hermite(3)", "polynomial(0,1,0,-0.3)", "abs(x - 1)"]


@pytest.mark.parametrize("name", ROUGH)
def test_identities(name):
    size, q = 3, 1.1
    phi = core(name, 2 * q)
    mean, square, slope2, square_dq = single(phi, "max", size, q)
    assert pair(phi, "max", size, q, 0.0) == pytest.approx(mean**2, rel=1e-12, abs=1e-14 * square)
    assert pair(phi, "max", size, q, 1.0) == pytest.approx(square, rel=1e-13)
    assert pair(phi, "max", size, q, 1.0, derivative=1) == pytest.approx(slope2, rel=1e-13)
    for s in (
        (0.5, 0.041, 0.01) if name not in ("sin", "cos") else (0.5, 0.041)
    ):  # the series, and the integral next to the diagonal
        centre, spread = split(phi, "max", size, q * (1 - s), q * s)
        assert centre + spread == pytest.approx(square, rel=1e-12)
        assert centre == pytest.approx(pair(phi, "max", size, q, 1 - s), rel=1e-11)
    assert split(phi, "max", size, q * (1 - 1e-18), q * 1e-18)[1] == pytest.approx(slope2 * q * 1e-18, rel=1e-7)
    h = 1e-4 * q
    slope = (single(phi, "max", size, q + h)[1] - single(phi, "max", size, q - h)[1]) / (2 * h)
    assert square_dq == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "c", "h"),
    [(name, 0.4, 2e-3) for name in ("gelu", "sin", "hermite(3)", "abs(x - 1)")]
    + [(name, 0.97, 5e-4) for name in ("gelu", "silu")],
)
def test_slopes_are_derivatives_of_the_kernel(name, c, h):
    """d E[P P] / dc = q E[phi' phi' at the same node]."""
    size, q = 2, 0.8
    phi = core(name, q)

    def difference(step):
        return (pair(phi, "max", size, q, c + step) - pair(phi, "max", size, q, c - step)) / (2 * step)

    slope = (4 * difference(h / 2) - difference(h)) / 3
    assert q * pair(phi, "max", size, q, c, derivative=1) == pytest.approx(slope, rel=1e-7)


@pytest.mark.parametrize("name", ROUGH)
@pytest.mark.parametrize("kind", ["max", "min"])
def test_against_samples(name, kind):
    """Within 4.5 standard errors: a false alarm in 10,000 runs, at fixed seed."""
    size, q, c, count = 4, 1.5, 0.7, 200_000
    random = np.random.default_rng(7)
    u, e = random.standard_normal((2, size, count)) * math.sqrt(q)
    v = c * u + math.sqrt(1 - c * c) * e
    phi = igb.Activation(name)
    f_u, f_v = phi(u), phi(v)
    pick = np.argmax if kind == "max" else np.argmin
    at_u, at_v = pick(f_u, axis=0), pick(f_v, axis=0)
    nodes = np.arange(count)
    p_u, p_v = f_u[at_u, nodes], f_v[at_v, nodes]
    d_u, d_v = phi.derivative(u)[at_u, nodes], phi.derivative(v)[at_v, nodes]
    table = phi._core_phi(q, True)
    mean, square, slope2, _ = single(table, kind, size, q)
    spread = split(table, kind, size, q * c, q * (1 - c))[1]
    for found, samples in (
        (mean, p_u),
        (square, p_u**2),
        (slope2, d_u**2),
        (pair(table, kind, size, q, c), p_u * p_v),
        (pair(table, kind, size, q, c, derivative=1), np.where(at_u == at_v, d_u * d_v, 0.0)),
        (spread, 0.5 * (p_u - p_v) ** 2),
    ):
        assert abs(found - np.mean(samples)) <= 4.5 * np.std(samples) / math.sqrt(count) + 1e-12


def test_what_cannot_be_had_is_said():
    phi = core("gelu", 1.0)
    with pytest.raises(RuntimeError, match="pool"):
        pair(phi, "max", 2, 1.0, -0.999)
    with pytest.raises(ValueError, match="derivative"):
        pair(phi, "max", 2, 1.0, 0.5, derivative=2)
