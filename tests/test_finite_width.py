"""finite_width: coefficients of 1/width against exact laws of finite networks, perturbation theory and planted numbers.

Exact laws: in a linear network log q is a sum of logarithms of independent chi-squares over the layers, forward and
backward; in a ReLU network so it is for one input, with chi-squares whose degrees of freedom are binomial.
"""

import importlib
import math
import warnings

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import xarray as xr
from scipy.special import digamma, expit, polygamma

import igbfast as igb
from igbfast import _gradient_theory, meanfield, simulation

finite_width = importlib.import_module("igbfast.finite_width")  # the module; igb.finite_width is the function

ONE_INPUT = np.array([[1.0] * 50, [1.001] * 50])  # two inputs on one ray: as good as a single one, of mean square 1
LIMIT = 4.5  # standard errors; with 200 comparisons one in 700 seeds would fail


def pulls(value, expected, error):
    return np.abs((np.asarray(value) - expected) / np.asarray(error))


def at(dataset, quantity):
    return dataset.sel(quantity=quantity)


# --- exact laws


def test_linear_networks_follow_products_of_chi_squares():
    """q of one input is sigma_w2^layer times a product of `layer` independent chi-squares over their degrees."""
    widths, depth = [10, 30, 100, 300], 6
    ds = igb.finite_width(igb.Ensemble("linear", 1.3), widths=widths, depth=depth, inputs=ONE_INPUT, networks=64)
    layer, n = ds.layer.values, np.array(widths)[:, None]
    expected = {
        "q": 0.0 * layer * n,
        "log_q": layer * (digamma(n / 2) - np.log(n / 2)),
        "log_q_variance": layer * polygamma(1, n / 2),
    }
    for quantity, exact in expected.items():
        found = at(ds, quantity)
        assert pulls(found.departure, exact, found.departure_se).max() < LIMIT, quantity
    for quantity, exact in {"q": 0.0, "log_q": -layer, "log_q_variance": 2.0 * layer}.items():
        found = at(ds, quantity)
        assert pulls(found.coefficient, exact, found.coefficient_se).max() < LIMIT, quantity
    assert at(ds, "log_q").coefficient_se.values[-1] < 1.2


def test_relu_networks_stray_by_five_layers_over_the_width():
    """A layer multiplies q by 2 / width times a chi-square of binomially many degrees: var(log q) grows by 5 / width.

    The estimate of q from the nodes of the last layer adds 2 / width, as the first layer alone does.
    """
    widths, depth = [40, 100, 300], 8
    ds = igb.finite_width(igb.Ensemble("relu", 2.0), widths=widths, depth=depth, inputs=ONE_INPUT, networks=64)
    layer = ds.layer.values
    for index, n in enumerate(widths):
        degrees = np.arange(1, n + 1)
        weight = scipy.stats.binom.pmf(degrees, n, 0.5)
        mean = weight @ (digamma(degrees / 2) + np.log(4 / n))
        variance = weight @ ((digamma(degrees / 2) + np.log(4 / n) - mean) ** 2 + polygamma(1, degrees / 2))
        exact = {
            "log_q": (layer - 1) * mean + digamma(n / 2) - np.log(n / 2),
            "log_q_variance": (layer - 1) * variance + polygamma(1, n / 2),
        }
        for quantity, expected in exact.items():
            found = at(ds, quantity).isel(width=index)
            assert pulls(found.departure, expected, found.departure_se).max() < LIMIT, (quantity, n)
    drift = at(ds, "log_q_variance")
    assert pulls(drift.coefficient, 5.0 * layer - 3.0, drift.coefficient_se).max() < LIMIT
    assert drift.coefficient_se.values[-1] < 4.0


def products(phi, covariance):
    """Mean of (phi_a^2, phi_a phi_b, phi_b^2) over two inputs' normal pre-activations, and of the products of those."""
    z, weight = np.polynomial.hermite_e.hermegauss(60)
    weight = np.multiply.outer(weight, weight) / weight.sum() ** 2
    aa, ab, bb = covariance
    x = phi(math.sqrt(aa) * z[:, None] + 0.0 * z)
    y = phi(ab / math.sqrt(aa) * z[:, None] + math.sqrt(bb - ab**2 / aa) * z)
    all_three = np.array([x * x, x * y, y * y])
    return np.einsum("aij,ij->a", all_three, weight), np.einsum("aij,bij,ij->ab", all_three, all_three, weight)


def coefficients_by_perturbation(phi, sigma_w2, sigma_b2, depth):
    """Layer by layer, the coefficients of 1/width of sigma_mu2, sigma_y2 and q, by plain NumPy.

    The covariance K of two inputs is a Markov chain over layers, K' = F(K) + noise / sqrt(width). To first order its
    mean shift m and covariance C follow m' = J m + (Hessian of F : C) / 2, C' = J C J^T + covariance of the noise.
    """

    def step(k):
        return sigma_w2 * products(phi, k)[0] + sigma_b2

    k = np.array([sigma_w2 + sigma_b2, sigma_b2, sigma_w2 + sigma_b2])
    m, c = np.zeros(3), sigma_w2**2 * np.diag([2.0, 1.0, 2.0])  # Gaussian inputs as long as the network is wide
    found = []
    h = 1e-3 * np.eye(3)
    for _ in range(depth):
        difference = (k[0] + k[2]) / 2 - k[1]
        found.append([m[1] / k[1], ((m[0] + m[2]) / 2 - m[1]) / difference, m[0] / k[0]])
        slope = np.array([(step(k + e) - step(k - e)) / 2e-3 for e in h]).T
        bend = [[step(k + e + f) - step(k + e - f) - step(k - e + f) + step(k - e - f) for f in h] for e in h]
        mean, second = products(phi, k)
        m = slope @ m + 0.5 * np.einsum("ijk,ij->k", np.array(bend) / 4e-6, c)
        c = slope @ c @ slope.T + sigma_w2**2 * (second - np.outer(mean, mean))
        k = step(k)
    return np.array(found).T


def test_tanh_coefficients_are_those_of_perturbation_theory(tanh_edge):
    ds = igb.finite_width(tanh_edge, widths=[30, 100, 300], depth=6, inputs=20, networks=400)
    exact = coefficients_by_perturbation(np.tanh, 1.76, 0.05, 6)
    for quantity, expected in zip(("sigma_mu2", "sigma_y2", "q"), exact, strict=True):
        found = at(ds, quantity)
        assert pulls(found.coefficient, expected, found.coefficient_se).max() < LIMIT, quantity
        assert found.chi2.max() < 6.0
    last = at(ds, "sigma_y2").sel(layer=6)
    assert last.coefficient < -4.0 * last.coefficient_se  # so there was something to find


# --- gradients


@pytest.mark.parametrize("loss", ["readout", "cross_entropy"])
def test_gradients_of_linear_networks(loss):
    """Backwards each layer multiplies the squared gradient by a chi-square over its degrees, and so does the head."""
    widths, depth = [20, 60, 200], 4
    ens = igb.Ensemble("linear", 1.2)
    ds = igb.finite_width(ens, widths=widths, depth=depth, inputs=4, networks=64, gradients=loss, classes=3)
    mean = at(ds, "gradient")
    if loss == "readout":
        factors, n = depth + 1 - ds.layer.values, np.array(widths)[:, None]
        assert pulls(mean.departure, 0.0, mean.departure_se).max() < LIMIT
        log, variance = at(ds, "log_gradient"), at(ds, "log_gradient_variance")
        assert pulls(log.departure, factors * (digamma(n / 2) - np.log(n / 2)), log.departure_se).max() < LIMIT
        assert pulls(variance.departure, factors * polygamma(1, n / 2), variance.departure_se).max() < LIMIT
    else:
        wide = mean.isel(width=-1)
        assert pulls(wide.departure, 0.0, np.hypot(wide.departure_se, 4.0 * depth / widths[-1])).max() < LIMIT


@pytest.mark.parametrize("loss", ["readout", "cross_entropy"])
@pytest.mark.parametrize(
    "ens",
    [
        igb.Ensemble("tanh", 1.76, 0.05),
        igb.Ensemble("relu", 1.2, 0.1, pool=igb.MaxPool(2)),
        igb.Ensemble("tanh", 2.0, 0.1, pool=igb.AvgPool(3)),
        igb.Ensemble("tanh", 1.5, 0.1, residual=0.3),
        igb.Ensemble("relu", 2.0, layernorm=True),
        igb.Ensemble("erf", 2.0, 0.1, residual=0.5, layernorm=True),
    ],
    ids=repr,
)
def test_gradients_of_wide_networks_are_those_of_theory(ens, loss):
    """A wide network's squared gradient, averaged over inputs and networks; what 1/width may do is allowed for."""
    width, depth, classes = 600, 5, 4
    ds = simulated(ens, width, depth, loss, classes)
    gradient = width * ds.gradient.values
    theory = _gradient_theory.squared_gradients(ens, igb.propagate(ens, depth), loss, classes)
    error = gradient.std(axis=0, ddof=1) / math.sqrt(len(gradient)) / theory
    assert pulls(gradient.mean(axis=0) / theory, 1.0, np.hypot(error, 2.0 * depth / width)).max() < LIMIT
    assert error.max() < 0.1


def simulated(ens, width, depth, loss, classes):
    return igb.simulate(ens, width=width, depth=depth, inputs=20, networks=60, gradients=loss, classes=classes, seed=3)


@pytest.mark.parametrize("variance", [1e-8, 0.1, 0.999, 1.001, 3.0, 1e2, 1e6])
def test_cross_entropy_of_two_classes_is_one_integral(variance):
    """|softmax - one-hot|^2 = 2 p^2 for the probability p = sigmoid(z_1 - z_0) of the wrong class of two."""
    s = math.sqrt(2.0 * variance)
    places = np.linspace(-10.0, 10.0, 400_001)
    exact = scipy.integrate.trapezoid(2.0 * expit(s * places) ** 2 * scipy.stats.norm.pdf(places), places)
    assert _gradient_theory.cross_entropy_slope2(variance, 2) == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("classes", [3, 10, 300])
@pytest.mark.parametrize("variance", [0.3, 5.0, 1e3])
def test_cross_entropy_of_more_classes_by_sampling(variance, classes):
    """Within 4.5 standard errors of 20,000 samples."""
    z = np.random.default_rng(1).normal(scale=math.sqrt(variance), size=(20_000, classes))
    delta = np.exp(z - z.max(axis=1, keepdims=True))
    delta /= delta.sum(axis=1, keepdims=True)
    delta[:, 0] -= 1.0
    squares = (delta**2).sum(axis=1)
    error = squares.std() / math.sqrt(len(squares))
    assert pulls(_gradient_theory.cross_entropy_slope2(variance, classes), squares.mean(), error) < LIMIT


# --- the fit


WIDTHS = np.array([10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0])


@pytest.mark.parametrize(
    ("law", "coefficient", "curvature"),
    [
        (lambda n: 3.0 / n, 3.0, 0.0),
        (lambda n: 5.0 / (n + 6.0), 5.0, -30.0),
        (lambda n: np.exp(4.0 / n) - 1.0, 4.0, 8.0),
        (lambda n: -2.0 * np.log1p(3.0 / n), -6.0, 9.0),
        (lambda n: 5.0 / n - 30.0 / n**2 + 2000.0 / n**3, 5.0, -30.0),
        (lambda n: 0.0 * n, 0.0, 0.0),
    ],
)
def test_fit_finds_what_was_planted(law, coefficient, curvature):
    """Series with all orders, of small and large radius: a and b lie within their errors, however small these are."""
    rng = np.random.default_rng(1)
    for error in (1e-2, 3e-3, 1e-3, 3e-4, 1e-4):
        noise = error * rng.standard_normal((40, len(WIDTHS)))
        fits = [finite_width.fit(WIDTHS, law(WIDTHS) + each, 0.0 * WIDTHS + error) for each in noise]
        a = np.array([(found.coefficient - coefficient) / found.coefficient_se for found in fits])
        b = np.array([(found.curvature - curvature) / found.curvature_se for found in fits])
        assert np.sqrt(np.mean(a**2)) < 2.2, error
        assert np.sqrt(np.mean(b**2)) < 2.2, error
        assert np.abs(a).max() < 5.0, error


def test_fit_gives_narrow_widths_less_weight_the_more_their_next_orders_show():
    """5 / (width + 6): as the errors shrink by 100, a's shrinks less, because the narrowest widths lose their share."""
    precise, rough = (finite_width.fit(WIDTHS, 5.0 / (WIDTHS + 6.0), 0.0 * WIDTHS + e) for e in (1e-4, 1e-2))
    for found in (precise, rough):
        assert found.share.sum() == pytest.approx(1.0)
        assert found.coefficient == pytest.approx(5.0, abs=2.5 * found.coefficient_se)
    assert abs(precise.share[0]) < 0.1
    assert abs(rough.share[0]) > 0.15
    assert rough.coefficient_se / 100 < precise.coefficient_se < rough.coefficient_se / 5
    assert 2.0 < precise.radius < 12.0


def test_fit_of_a_single_order_is_a_weighted_mean(monkeypatch):
    """With no room for other orders: a by hand."""
    monkeypatch.setattr(finite_width, "_RADII", np.array([1e-9]))
    widths, error, noise = np.array([10.0, 20.0, 40.0]), np.array([2.0, 1.0, 3.0]), np.array([0.1, -0.1, 0.05])
    found = finite_width.fit(widths, 7.0 / widths + noise, error)
    weight = 1.0 / (error * widths) ** 2
    assert found.coefficient == pytest.approx(np.sum(weight * (7.0 + noise * widths)) / weight.sum(), rel=1e-9)
    assert found.coefficient_se == pytest.approx(weight.sum() ** -0.5, rel=1e-9)
    residual = (noise + (7.0 - found.coefficient) / widths) / error
    assert found.chi2 == pytest.approx((residual**2).sum() / 2, rel=1e-9)


def test_fit_of_variances_is_not_drawn_to_small_ones():
    """Sample variances of 16 numbers each, whose own errors would favour those that are too small by chance."""
    rng = np.random.default_rng(2)
    true = 8.0 / WIDTHS
    samples = true * rng.chisquare(15, size=(200, 7)) / 15
    found = [finite_width.fit_variance(WIDTHS, variance, variance * math.sqrt(2 / 15)) for variance in samples]
    mean, error = (f(np.array([each.coefficient for each in found])) for f in (np.mean, scipy.stats.sem))
    assert abs(mean - 8.0) < LIMIT * error
    assert error < 0.2  # of 8; by their own errors 1.8 would be missing


@pytest.mark.parametrize("coefficient", [-4.0, 2.0])
def test_a_planted_departure_is_found(monkeypatch, coefficient):
    """sigma_y2 of linear networks does not depart; where every network's is wrong by coefficient / width, a says so."""
    right = simulation.run

    def wrong(request, *args, **kwargs):
        results = dict(right(request, *args, **kwargs))
        return results | {"sigma_y2": results["sigma_y2"] * (1.0 + coefficient / request.width)}

    ens = igb.Ensemble("linear", 1.1, 0.1)
    arguments = {"widths": [20, 60, 200, 600], "depth": 3, "inputs": 20, "networks": 64}
    without = at(igb.finite_width(ens, **arguments), "sigma_y2")
    monkeypatch.setattr(simulation, "run", wrong)
    with_it = at(igb.finite_width(ens, **arguments), "sigma_y2")
    assert pulls(without.coefficient, 0.0, without.coefficient_se).max() < LIMIT
    assert pulls(with_it.coefficient, coefficient, with_it.coefficient_se).max() < LIMIT
    assert pulls(with_it.coefficient, 0.0, with_it.coefficient_se).min() > 5.0


# --- what cannot be measured


def test_a_mean_that_few_networks_carry_is_not_given():
    """Deep linear networks: E[q] is 1, but at width 10 from one network in a million; its logarithm is fine."""
    arguments = {"widths": [10, 1000], "depth": 60, "inputs": ONE_INPUT}
    ds = igb.finite_width(igb.Ensemble("linear", 1.0), **arguments).sel(layer=60)
    assert np.isnan(at(ds, "q").departure.sel(width=10))
    assert at(ds, "q").share.sel(width=10) == 0.0
    exact = 60 * (digamma(5.0) - np.log(5.0))
    assert pulls(at(ds, "log_q").departure.sel(width=10), exact, at(ds, "log_q").departure_se.sel(width=10)) < LIMIT


def test_where_theory_is_zero_there_is_no_departure():
    ds = igb.finite_width(igb.Ensemble("relu", 2.0), widths=[50, 100], depth=2, inputs=10, networks=8)
    first, second = (at(ds, "sigma_mu2").sel(layer=layer) for layer in (1, 2))
    assert np.isnan(first.departure).all()
    assert np.isnan(first.coefficient)
    assert (first.share == 0.0).all()
    assert np.isfinite(second.departure).all()


def test_lost_digits_are_told():
    frozen = igb.Ensemble("tanh", sigma_w2=0.05, sigma_b2=0.05)
    with pytest.warns(RuntimeWarning, match=r"nothing was measured in layers \d+ to 60 of 60 at the largest") as caught:
        igb.finite_width(frozen, widths=[50, 100], depth=60, inputs=4, networks=8)
    assert caught[0].filename == __file__


# --- the result


@pytest.fixture(scope="module")
def small():
    return igb.finite_width(igb.Ensemble("tanh", 1.76, 0.05), widths=[100, 10, 30], depth=2, inputs=5, networks=8)


def test_dataset(small, tmp_path):
    assert dict(small.sizes) == {"quantity": 7, "width": 3, "layer": 2}
    assert set(small.quantity.values) < set(finite_width.QUANTITIES)
    np.testing.assert_array_equal(small.width, [10, 30, 100])
    assert small.networks[0] > 2 * small.networks[1] > 4 * small.networks[2] > 31
    assert small.attrs["activation"] == "tanh"
    assert "width" not in small.attrs
    small.to_netcdf(tmp_path / "f.nc", engine="h5netcdf")
    xr.testing.assert_identical(xr.load_dataset(tmp_path / "f.nc", engine="h5netcdf"), small)


def test_same_seed_same_result(small):
    again = igb.finite_width(igb.Ensemble("tanh", 1.76, 0.05), widths=[10, 30, 100], depth=2, inputs=5, networks=8)
    xr.testing.assert_identical(again, small)
    other = igb.finite_width(
        igb.Ensemble("tanh", 1.76, 0.05), widths=[10, 30, 100], depth=2, inputs=5, networks=8, seed=1
    )
    assert (other.departure != small.departure).any()


def test_batches_do_not_matter(small, monkeypatch):
    monkeypatch.setattr(finite_width, "_BATCH", 60)  # 6 networks at a time
    again = igb.finite_width(igb.Ensemble("tanh", 1.76, 0.05), widths=[10, 30, 100], depth=2, inputs=5, networks=8)
    np.testing.assert_allclose(again.departure, small.departure, rtol=1e-9, atol=1e-14)


def test_progress_reaches_the_end(monkeypatch):
    shown = []
    monkeypatch.setattr(finite_width, "progress_bar", lambda label, progress: _Recorder(shown))
    igb.finite_width(igb.Ensemble("tanh", 1.0), widths=[10, 100], depth=2, inputs=5, networks=8)
    assert shown == sorted(shown)
    assert shown[-1] == pytest.approx(1.0)


class _Recorder:
    def __init__(self, shown):
        self.shown = shown

    def __enter__(self):
        return self.shown.append

    def __exit__(self, *_):
        return None


def test_ctrl_c_stops_it(monkeypatch):
    def pressed(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(simulation, "run", pressed)
    with pytest.raises(KeyboardInterrupt):
        igb.finite_width(igb.Ensemble("tanh", 1.0), depth=2)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"widths": 10}, TypeError, "widths must be a list of integers, got 10"),
        ({"widths": [10]}, ValueError, r"widths must be at least two different ones, got \[10\]"),
        ({"widths": [10, 10]}, ValueError, "widths must be at least two different ones"),
        ({"widths": [10, 1]}, ValueError, "widths must be an integer from 2 to .*, got 1"),
        ({"widths": [10, 20.0]}, TypeError, "widths must be an integer from 2 to .*, got 20.0"),
        ({"networks": 4}, ValueError, "networks must be an integer from 8 to 16384, got 4"),
        ({"depth": 0}, ValueError, "depth must be an integer from 1"),
        ({"inputs": 1}, ValueError, "inputs must be an integer from 2"),
        ({"method": "grams"}, ValueError, "method must be one of .*; did you mean 'gram'?"),
        ({"gradients": "readouts"}, ValueError, "gradients must be one of 'readout', 'cross_entropy', got 'readouts'"),
        (
            {"gradients": "readout", "inputs": ONE_INPUT},
            ValueError,
            "inputs must be a number of inputs with gradients=",
        ),
        ({"inputs": [np.ones((2, 3))] * 2}, TypeError, "inputs must be a number of inputs or an array here, got"),
        ({"progress": 1}, TypeError, "progress must be None, True or False, got 1"),
        (
            {"ens": igb.Ensemble("relu", 1.0, pool=igb.MaxPool(3))},
            ValueError,
            "width must be a multiple of 3 .* got 10",
        ),
        ({"ens": "tanh"}, TypeError, "ens must be an Ensemble"),
    ],
)
def test_refuses(arguments, error, message, monkeypatch):
    def worked(*args, **kwargs):
        raise AssertionError("refused only after work")

    monkeypatch.setattr(simulation, "run", worked)
    monkeypatch.setattr(meanfield, "propagate", worked)
    given = {"ens": igb.Ensemble("tanh", 1.0), "depth": 3} | arguments
    with warnings.catch_warnings(), pytest.raises(error, match=message):
        igb.finite_width(given.pop("ens"), **given)
