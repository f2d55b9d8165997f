"""The law of the class shares: against mpmath, other integrals of the same quantity, samples, and networks in NumPy.

Statistical tests have fixed seeds; their thresholds are those of a false-alarm rate of 1e-4 or less.
"""

import numpy as np
import pytest
from mpmath import mp, mpf, workdps
from scipy import stats

import igbfast as igb
from igbfast import guessing

GAMMAS = [1e-4, 0.03, 0.5, 0.999, 1.0, 1.7, 40.0, 1e6]
FALSE_ALARM = 1e-4


def mp_quantile(p):
    """Phi^-1(p), with log Phi for the unknown to be found by, so that it works for p = 1e-300."""
    p = mpf(p)
    if p > mpf(1) / 2:
        return -mp_quantile(1 - p)
    start = 0 if p > 0.4 else -mp.sqrt(-2 * mp.log(p))
    return mp.findroot(lambda x: mp.log(mp.ncdf(x)) - mp.log(p), start)


def mp_fractions(m):
    """Shares by plain trapezoidal sums over each integrand, as far out as the smallest share needs."""
    m = [mpf(x) for x in m]
    step = mpf(1) / 8
    nodes = [min(m) - 12 + k * step for k in range(int((max(m) - min(m) + 24) / step))]
    shares = [mpf(0)] * len(m)
    for t in nodes:
        below = [mp.ncdf(t - x) for x in m]
        for k in range(len(m)):
            shares[k] += step * mp.npdf(t - m[k]) * mp.fprod(below[:k] + below[k + 1 :])
    return shares


# ---- Two classes -----------------------------------------------------------------------------------------------------


@workdps(30)
@pytest.mark.parametrize("g", [5e-324, 1e-300, 1e-40, 1e-3, 0.3, 0.5, 0.5000001, 0.875])
def test_cdf_pdf_and_quantile_against_mpmath(g):
    x = mp_quantile(g)
    for gamma in GAMMAS:
        s = mp.sqrt(mpf(gamma))
        exact = {
            guessing.cdf: mp.ncdf(x / s),
            guessing.pdf: mp.npdf(x / s) / mp.npdf(x) / s,
            guessing.quantile: mp.ncdf(x * s),
        }
        for function, value in exact.items():
            found = float(function(g, gamma))
            if value >= mpf(2) ** 1024:
                assert found == np.inf, (function, gamma)
            elif value < mpf(2) ** -1022:  # below the normal doubles digits end
                assert abs(found - value) < mpf(2) ** -1060, (function, gamma)
            else:
                assert abs(found / value - 1) < 1e-12, (function, gamma)


def test_neutrality_line_is_uniform():
    g = np.linspace(0.0, 1.0, 101)
    np.testing.assert_allclose(guessing.cdf(g, 1.0), g, rtol=1e-14)
    np.testing.assert_array_equal(guessing.pdf(g, 1.0), 1.0)
    np.testing.assert_allclose(guessing.quantile(g, 1.0), g, rtol=1e-14)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_quantile_inverts_cdf(gamma):
    p = np.array([1e-12, 0.01, 0.3, 0.5, 0.8])
    g = guessing.quantile(p, gamma)
    keep = (g > 1e-300) & (g < 0.99)
    np.testing.assert_allclose(guessing.cdf(g, gamma)[keep], p[keep], rtol=1e-9)


def test_no_bias_and_deep_prejudice():
    inf = np.inf
    points = [0.0, 0.2, 0.5, 0.7, 1.0]
    np.testing.assert_array_equal(guessing.cdf(points, 0.0), [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(guessing.cdf(points, inf), [0.5, 0.5, 0.5, 0.5, 1])
    np.testing.assert_array_equal(guessing.pdf(points, 0.0), [0, 0, inf, 0, 0])
    np.testing.assert_array_equal(guessing.pdf(points, inf), [inf, 0, 0, 0, inf])
    np.testing.assert_array_equal(guessing.quantile(points, 0.0), 0.5)
    np.testing.assert_array_equal(guessing.quantile(points, inf), [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(guessing.pdf([0.0, 1.0], 0.9), 0.0)
    np.testing.assert_array_equal(guessing.pdf([0.0, 1.0], 1.1), inf)


def test_shapes():
    g, gamma = np.full((3, 1), 0.3), np.array([0.5, 1.0, 2.0, np.inf])
    for function in (guessing.cdf, guessing.pdf, guessing.quantile):
        assert function(g, gamma).shape == (3, 4)
        assert isinstance(function(0.3, 1.0), np.float64)
        assert function([], 1.0).shape == (0,)
        assert function(np.float32(0.25), 2) == function(0.25, 2.0)
    for function in (guessing.mean, guessing.variance, guessing.expected_maximum):
        assert function(gamma.reshape(2, 2), classes=3).shape == (2, 2)
        assert isinstance(function(0.3), np.float64)
        assert isinstance(function(0.3, classes=3), np.float64)
        assert function([], classes=3).shape == (0,)


# ---- Moments ---------------------------------------------------------------------------------------------------------


@workdps(20)
@pytest.mark.parametrize("gamma", [1e-8, 0.3, 1.0, 25.0])
def test_moments_of_two_classes_against_mpmath(gamma):
    """Integrals over Z of Phi(s Z)^2 and of its distance from 1/2, where the package has inverse tangents."""
    s = mp.sqrt(mpf(gamma))
    points = [-12, -1, 0, 1, 12]

    def over_networks(f):
        return mp.quad(lambda z: mp.npdf(z) * f(mp.erf(s * z / mp.sqrt(2)) / 2), points)

    assert abs(float(guessing.variance(gamma)) / over_networks(lambda d: d * d) - 1) < 1e-13
    assert abs(float(guessing.expected_maximum(gamma)) - 0.5 - over_networks(abs)) < 1e-14


@pytest.mark.parametrize("gamma", [1e-10, 1e-3, 0.1, 0.4, 2.0, 1e3, 1e12])
def test_quadrature_for_any_number_of_classes_has_two_as_a_case(gamma):
    rho, rest = gamma / (1.0 + gamma), np.array(1.0 / (1.0 + gamma))
    excess = guessing._excess(np.array(rho), rest, 2)
    np.testing.assert_allclose(excess, 2.0 * guessing.variance(gamma), rtol=1e-13)


@pytest.mark.parametrize("gamma", [1e-9, 0.2, 1.0, 3.0])
def test_variance_of_three_classes_by_integrating_over_networks(gamma):
    """E[G_0^2] - 1/9 over the centres by the rule of Gauss and Hermite: shares are smooth in them."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(48)
    weights /= weights.sum()
    # With centres (a, b) and their sum fixed: the shares depend on differences only.
    a, b = np.meshgrid(nodes, nodes, indexing="ij")
    basis = np.array([[2.0, -1.0, -1.0] / np.sqrt(6.0), [0.0, 1.0, -1.0] / np.sqrt(2.0)])
    mu = np.sqrt(gamma) * (a[..., None] * basis[0] + b[..., None] * basis[1])
    shares = guessing.fractions(mu)
    deviation = np.einsum("i,j,ij->", weights, weights, (shares[..., 0] - 1.0 / 3.0) ** 2)
    np.testing.assert_allclose(
        guessing.variance(gamma, classes=3), deviation, rtol=1e-7 if gamma > 2 else 1e-10, atol=0
    )


@pytest.mark.parametrize("classes", [3, 10, 1000, 200_000])
def test_limits_and_continuity_in_gamma(classes):
    assert guessing.expected_maximum(0.0, classes=classes) == 1.0 / classes
    assert guessing.expected_maximum(np.inf, classes=classes) == pytest.approx(1.0, abs=1e-12)
    assert guessing.variance(0.0, classes=classes) == 0.0
    assert guessing.variance(np.inf, classes=classes) == pytest.approx((1.0 - 1.0 / classes) / classes, rel=1e-12)
    # The two ways to compute it meet where one takes over from the other.
    rho = guessing._WEAK
    strong = guessing._agreement(rho, 1.0 - rho, classes) - 1.0 / classes
    np.testing.assert_allclose(guessing._weak_excess(rho, classes), strong, rtol=1e-12)


@pytest.mark.parametrize("classes", [3, 10, 100])
@pytest.mark.parametrize("gamma", [0.05, 1.0, 30.0])
def test_moments_are_probabilities_of_equal_answers(classes, gamma):
    """No integral at all: normals are drawn, and the largest entries compared."""
    generator = np.random.default_rng(2024)
    n = 4_000_000 // classes // 10
    mu = np.sqrt(gamma) * generator.standard_normal((n, classes))
    first = np.argmax(mu + generator.standard_normal(mu.shape), axis=-1)
    second = np.argmax(mu + generator.standard_normal(mu.shape), axis=-1)
    both = np.mean(first == second), classes * guessing.variance(gamma, classes=classes) + 1.0 / classes
    favoured = np.mean(first == np.argmax(mu, axis=-1)), guessing.expected_maximum(gamma, classes=classes)
    for measured, exact in (both, favoured):
        assert abs(measured - exact) < 4.5 * np.sqrt(exact * (1.0 - exact) / n)


# ---- One network -----------------------------------------------------------------------------------------------------


@workdps(20)
@pytest.mark.parametrize(
    "m",
    [
        [0.3, -0.2],
        [12.0, -14.0],
        [0.5, 0.0, -1.0],
        [42.0, 0.0, 5.0],
        [-20.0, 3.0, 2.9, 3.1],
        [0.1, 0.4, -0.3, 2.0, 2.2, -1.0, 0.0],
    ],
)
def test_fractions_against_mpmath(m):
    """Relative to each share, down to 1e-190."""
    for share, exact in zip(guessing.fractions(m), mp_fractions(m), strict=True):
        assert abs(share / exact - 1) < 1e-12


@pytest.mark.parametrize("classes", [2, 3, 10, 100, 1000, 10_000])
def test_fractions_of_equal_and_of_random_centres(classes):
    np.testing.assert_allclose(guessing.fractions(np.full(classes, 7.0)), 1.0 / classes, rtol=1e-11)
    mu = np.random.default_rng(1).standard_normal(classes)
    for scale in (0.5, 2.0, 30.0):
        assert guessing.fractions(scale * mu).sum() == pytest.approx(1.0, abs=1e-12)


def test_fractions_of_many_networks_are_those_of_each():
    """Rows are computed in blocks by their range; ranges here go from 1 to 10^4."""
    generator = np.random.default_rng(5)
    mu = generator.standard_normal((4, 500, 6)) * 10.0 ** generator.uniform(0, 4, (4, 500, 1))
    shares = guessing.fractions(mu)
    for index in [(0, 0), (1, 17), (2, 499), (3, 250)]:
        np.testing.assert_allclose(shares[index], guessing.fractions(mu[index]), rtol=1e-12, atol=1e-300)
    assert np.abs(shares.sum(axis=-1) - 1.0).max() < 1e-13


def test_fractions_scale_shift_and_extremes():
    mu = np.array([[0.1, 0.5, -2.0], [3.0, 1.0, 2.0]])
    expected = guessing.fractions(mu)
    np.testing.assert_allclose(guessing.fractions(3.0 * mu, sigma_y2=9.0), expected, rtol=1e-13)
    np.testing.assert_allclose(guessing.fractions(1e-150 * mu, sigma_y2=[1e-300, 1e-300]), expected, rtol=1e-13)
    np.testing.assert_allclose(guessing.fractions(mu + 64.0), expected, rtol=1e-12)
    np.testing.assert_array_equal(guessing.fractions([1e308, -1e308, 0.0], sigma_y2=1e-300), [1, 0, 0])
    np.testing.assert_array_equal(guessing.fractions([-1e308, 1e308]), [0, 1])
    assert guessing.fractions(np.zeros((0, 4))).shape == (0, 4)


def test_fractions_against_noise():
    """Argmax of centres and noise, counted."""
    mu = np.array([0.2, -0.5, 1.0, 0.9, -1.3])
    n = 300_000
    noise = np.random.default_rng(8).standard_normal((n, 5)) * 1.5
    counts = np.bincount(np.argmax(mu + noise, axis=-1), minlength=5)
    assert stats.chisquare(counts, n * guessing.fractions(mu, sigma_y2=2.25)).pvalue > FALSE_ALARM


# ---- Samples ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.01, 0.7, 1.0, 4.0, 30.0])
def test_samples_of_two_classes_have_the_exact_law(gamma):
    shares = guessing.sample(gamma, size=20_000, seed=11)
    assert shares.shape == (20_000, 2)
    assert np.all(shares.sum(axis=-1) == 1.0)
    # Of a share near 1, a double keeps too little for gamma = 30: the smaller one tells the same.
    assert stats.kstest(shares.min(axis=-1), lambda g: 2.0 * guessing.cdf(g, gamma)).pvalue > FALSE_ALARM
    if gamma < 10.0:
        for k in (0, 1):
            assert stats.kstest(shares[:, k], lambda g: guessing.cdf(g, gamma)).pvalue > FALSE_ALARM


@pytest.mark.parametrize(("classes", "gamma"), [(3, 0.2), (10, 1.0), (10, 50.0), (200, 3.0)])
def test_samples_have_the_exact_moments(classes, gamma):
    n = 60_000 // classes
    shares = guessing.sample(gamma, classes=classes, size=n, seed=3)
    assert np.abs(shares.sum(axis=-1) - 1.0).max() < 1e-12
    largest, squares = shares.max(axis=-1), (shares**2).sum(axis=-1)
    exact_square = classes * guessing.variance(gamma, classes=classes) + 1.0 / classes
    for values, exact in ((largest, guessing.expected_maximum(gamma, classes=classes)), (squares, exact_square)):
        assert abs(values.mean() - exact) < 4.5 * values.std() / np.sqrt(n)


def test_samples_by_seed_and_shape():
    a = guessing.sample([0.5, np.inf, 0.0], classes=4, size=50, seed=9)
    assert a.shape == (50, 3, 4)
    np.testing.assert_array_equal(a, guessing.sample([0.5, np.inf, 0.0], classes=4, size=50, seed=9))
    np.testing.assert_allclose(a[:20], guessing.sample([0.5, np.inf, 0.0], classes=4, size=20, seed=9), rtol=1e-12)
    assert np.all(a != guessing.sample([0.5, np.inf, 0.0], classes=4, size=50, seed=10), axis=(1, 2)).sum() == 0
    assert not np.allclose(a[:, 0], guessing.sample([0.5, np.inf, 0.0], classes=4, size=50, seed=10)[:, 0])
    np.testing.assert_array_equal(np.sort(a[:, 1]), np.tile([0.0, 0.0, 0.0, 1.0], (50, 1)))
    np.testing.assert_allclose(a[:, 2], 0.25, rtol=1e-12)
    assert guessing.sample(1.0, size=0, classes=3).shape == (0, 3)
    assert guessing.sample(1.0).shape == (1, 2)


@pytest.mark.parametrize("gamma", [0.3, 5.0])
def test_sampled_cdf_of_two_classes_is_the_exact_one(gamma):
    g = np.array([[0.01, 0.2], [0.5, 0.93]])
    one = guessing.sampled_cdf(g, gamma, classes=2, seed=4)
    assert one.value.shape == one.se.shape == (2, 2)
    assert np.all(np.abs(one.value - guessing.cdf(g, gamma)) < 4.5 * one.se)
    largest = guessing.sampled_cdf(g, gamma, classes=2, of="maximum", seed=4)
    exact = np.maximum(0.0, 2.0 * guessing.cdf(g, gamma) - 1.0)
    assert np.all(np.abs(largest.value - exact) < 4.5 * largest.se)


def test_sampled_cdf_states_its_error():
    """The estimates from 200 seeds scatter by the standard error, 5 % of it being that of the scatter itself."""
    found = [guessing.sampled_cdf(0.15, 0.5, classes=5, size=200, seed=seed) for seed in range(200)]
    scatter = np.std([estimate.value for estimate in found], ddof=1)
    assert scatter == pytest.approx(np.mean([estimate.se for estimate in found]), rel=0.2)
    never = guessing.sampled_cdf(0.0, 1.0, classes=5, size=100)
    assert (never.value, never.se) == (0.0, 0.01)


# ---- A network -------------------------------------------------------------------------------------------------------


def test_networks_in_plain_numpy():
    """ReLU networks of width 128 with a read-out of 4 classes, run on normal inputs, their answers counted."""
    width, hidden, inputs, networks, classes = 128, 3, 192, 300, 4
    generator = np.random.default_rng(77)

    def normals(*shape):
        return generator.standard_normal(shape, dtype=np.float32)

    shares = np.empty((networks, classes))
    for n in range(networks):
        x = normals(inputs // 16, width, 16)  # chunks of inputs, too small for BLAS to start threads
        for _ in range(hidden):
            x = np.maximum(normals(width, width) @ x, 0.0) * np.float32(np.sqrt(2.0 / width))
        answers = np.argmax(normals(classes, width) @ x, axis=1)
        shares[n] = np.bincount(answers.ravel(), minlength=classes) / inputs
    gamma = float(igb.propagate(igb.Ensemble("relu", sigma_w2=2.0), depth=hidden + 1).gamma[-1])

    largest, expected = shares.max(axis=-1), guessing.expected_maximum(gamma, classes=classes)
    assert abs(largest.mean() - expected) < 4 * largest.std() / np.sqrt(networks) + 0.01  # 0.01: finite width and data
    same = (shares**2).sum(axis=-1)
    exact = classes * guessing.variance(gamma, classes=classes) + 1.0 / classes
    assert abs(same.mean() - exact) < 4 * same.std() / np.sqrt(networks) + 0.01
    # The whole law, of the largest share and of one class.
    drawn = guessing.sample(gamma, classes=classes, size=5000, seed=1)
    assert stats.ks_2samp(largest, drawn.max(axis=-1)).pvalue > FALSE_ALARM
    assert stats.ks_2samp(shares[:, 0], drawn[:, 0]).pvalue > FALSE_ALARM


# ---- Arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: guessing.cdf(0.5, -1.0), "gamma must be from 0 to inf, got -1.0"),
        (lambda: guessing.pdf(0.5, [1.0, np.nan]), "gamma must be from 0 to inf, got nan at index 1"),
        (lambda: guessing.cdf(1.5, 1.0), "g must be from 0 to 1, got 1.5"),
        (lambda: guessing.pdf([[0.5, -0.1]], 1.0), r"g must be from 0 to 1, got -0.1 at index \(0, 1\)"),
        (lambda: guessing.quantile(np.nan, 1.0), "p must be from 0 to 1, got nan"),
        (lambda: guessing.cdf([0.1, 0.2], [1.0, 2.0, 3.0]), r"g and gamma must have shapes that broadcast .*\(2,\)"),
        (lambda: guessing.cdf([[0.1], [0.2, 0.3]], 1.0), "g must be a number or an array of numbers"),
        (lambda: guessing.variance(1.0, classes=1), "classes must be an integer from 2 to 1000000, got 1"),
        (lambda: guessing.mean(-0.5), "gamma must be from 0 to inf, got -0.5"),
        (lambda: guessing.expected_maximum(1.0, classes=10**9), "classes must be an integer from 2 to 1000000"),
        (lambda: guessing.sample(1.0, size=-1), "size must be an integer of at least 0, got -1"),
        (lambda: guessing.sample(1.0, seed=-1), "seed must be an integer from 0"),
        (lambda: guessing.sample(1.0, seed=2**64), "seed must be an integer from 0"),
        (lambda: guessing.sampled_cdf(0.5, [1.0, 2.0], classes=3), "gamma must be one number, got an array of shape"),
        (
            lambda: guessing.sampled_cdf(0.5, 1.0, classes=3, of="max"),
            "of must be one of 'class', 'maximum', got 'max'",
        ),
        (lambda: guessing.sampled_cdf(0.5, 1.0, classes=3, size=1), "size must be an integer of at least 2, got 1"),
        (lambda: guessing.fractions(1.0), r"mu must have a last axis of 2 to 1000000 classes, got shape \(\)"),
        (lambda: guessing.fractions([1.0]), r"mu must have a last axis of 2 to 1000000 classes, got shape \(1,\)"),
        (lambda: guessing.fractions([1.0, np.inf]), "mu must be finite, got inf at index 1"),
        (lambda: guessing.fractions([1.0, 2.0], sigma_y2=0.0), "sigma_y2 must be positive and finite, got 0.0"),
        (lambda: guessing.fractions([1.0, 2.0], sigma_y2=[1.0]), r"sigma_y2 must broadcast .*, got shape \(1,\)"),
    ],
)
def test_values_that_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: guessing.cdf("half", 1.0), "g must be real numbers"),
        (lambda: guessing.cdf(0.5, 1j), "gamma must be real numbers"),
        (lambda: guessing.pdf(True, 1.0), "g must be real numbers"),
        (lambda: guessing.variance(1.0, classes=2.0), "classes must be an integer from 2 to 1000000, got 2.0"),
        (lambda: guessing.sample(1.0, size=10.0), "size must be an integer of at least 0, got 10.0"),
        (lambda: guessing.sample(1.0, seed=None), "seed must be an integer from 0"),
        (lambda: guessing.sampled_cdf(0.5, 1.0, classes=3, of=1), "of must be one of"),
    ],
)
def test_types_that_are_refused(call, message):
    with pytest.raises(TypeError, match=message):
        call()
