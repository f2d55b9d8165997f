"""Distributions by layer: counts in bins, quantiles and densities from them; they add up over networks and runs."""

import math

import numpy as np
import pytest
import xarray as xr

import igbfast as igb
from igbfast import distributions

NAMES = ("mu", "var", "q", "c")
WIDTH = 1 / 16  # of a bin, at most, relative to its lower edge


@pytest.fixture(scope="module")
def ds():
    ens = igb.Ensemble("tanh", sigma_w2=1.76, sigma_b2=0.05)
    kwargs = {"depth": 3, "inputs": 40, "networks": 3, "dtype": "float64", "per_node": True, "distributions": True}
    return igb.simulate(ens, width=500, **kwargs)


def leading_bits(value):
    """Number of the bin of a double, by arithmetic on its mantissa and exponent."""
    mantissa, exponent = math.frexp(abs(value))
    bits = (exponent + 1022) * 16 + int((2 * mantissa - 1) * 16) if value else 0
    return bits + (0x8000 if math.copysign(1.0, value) < 0 else 0)


def counted(**values):
    """What the compiled core returns for these values, each of shape (network, layer, n)."""
    results = {}
    for name in NAMES:
        rows = []
        of = np.asarray(values.get(name, [[[1.0]]]), float)
        for network, layers in enumerate(of):
            for layer, entries in enumerate(layers):
                bins = [leading_bits(value) for value in entries]
                rows += [(network, layer, b, bins.count(b)) for b in sorted(set(bins))]
        columns = np.array(rows).T
        kinds = (np.int32, np.int32, np.uint16, np.int64)
        keys = ("network", "layer", "bin", "count")
        results[f"{name}_counts"] = {k: c.astype(t) for k, c, t in zip(keys, columns, kinds, strict=True)}
    return results


def dataset(**values):
    networks, depth = np.shape(next(iter(values.values())))[:2]
    results = counted(**{name: values.get(name, np.ones((networks, depth, 1))) for name in NAMES})
    variables = distributions.variables(results, networks, depth)
    coordinates = {"layer": np.arange(1, depth + 1), "quantile": distributions.quantile_coordinate()}
    return distributions.with_edges(xr.Dataset(variables, coordinates, {"networks": networks}))


SPREAD = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "positive": lambda rng, n: rng.lognormal(size=n),
    "negative": lambda rng, n: -rng.lognormal(size=n),
    "tiny": lambda rng, n: 1e-200 * rng.lognormal(size=n),
    "shifted": lambda rng, n: 1.0 + 0.01 * rng.standard_normal(n),
}


# ---- Bins ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", SPREAD)
def test_every_value_lies_in_its_bin(spread):
    values = SPREAD[spread](np.random.default_rng(1), 1000)
    ds = dataset(mu=values[None, None])
    lower, upper = ds["mu_lower"].values, ds["mu_upper"].values
    assert bool((lower < upper).all())
    assert bool((np.diff(lower) > 0.0).all())
    inside = (lower <= values[:, None]) & (values[:, None] < upper)
    np.testing.assert_array_equal(inside.sum(axis=0), ds["mu_counts"].values[0, 0])
    assert bool((upper - lower <= 1.000001 * WIDTH * np.minimum(np.abs(lower), np.abs(upper))).all())


def test_zero_has_a_bin():
    ds = dataset(var=[[[0.0, 0.0, 1.0]]])
    assert ds["var_lower"].values.tolist() == [0.0, 1.0]
    assert distributions.quantiles(ds, "var", [0.5]).values[0, 0, 0] < 1e-300


@pytest.mark.parametrize("spread", SPREAD)
@pytest.mark.parametrize("name", ["mu", "1-c"])
def test_quantiles_are_those_of_the_values(spread, name):
    values = SPREAD[spread](np.random.default_rng(2), 4000)
    ds = dataset(**{name.removeprefix("1-"): values[None, None]})
    p = np.array([0.0, 0.01, 0.05, 0.3, 0.5, 0.9, 0.999, 1.0])
    got = distributions.quantiles(ds, name, p).values[0, 0]
    expected = np.quantile(values, p)
    # within a bin, or as far as the next value goes
    slack = np.abs(np.quantile(values, np.minimum(p + 2 / 4000, 1)) - np.quantile(values, np.maximum(p - 2 / 4000, 0)))
    assert bool((np.abs(got - expected) <= WIDTH * np.abs(expected) + slack).all())
    assert bool((np.diff(got) >= 0.0).all())


def test_quantiles_are_interpolated_inside_the_bins():
    values = np.linspace(1.0, 2.0, 160_001)[:-1]  # ten thousand in each of sixteen bins
    got = distributions.quantiles(dataset(q=values[None, None]), "q", [0.1, 0.33, 0.77]).values[0, 0]
    np.testing.assert_allclose(got, [1.1, 1.33, 1.77], rtol=1e-9)


def test_c_is_counted_from_one():
    one_less = np.random.default_rng(3).lognormal(-70, 1, (1, 1, 2000))  # correlations next to one
    ds = dataset(c=one_less)
    np.testing.assert_allclose(
        distributions.quantiles(ds, "1-c", [0.5]).values, np.median(one_less, keepdims=True), rtol=WIDTH
    )
    assert bool((distributions.quantiles(ds, "c") == 1.0).all())
    wide = dataset(c=np.linspace(0.2, 1.4, 1000)[None, None])  # c from -0.4 to 0.8
    got = distributions.quantiles(wide, "c", [0.1, 0.9]).values[0, 0]
    np.testing.assert_allclose(got, [-0.28, 0.68], atol=0.01)


def test_what_is_not_finite_has_no_quantiles():
    ds = dataset(q=[[[1.0, 2.0], [1.0, 1.79e308]]])  # in the last bin of all, which reaches to infinity
    quantiles = distributions.quantiles(ds, "q").values[0]
    assert bool(np.isfinite(quantiles[0]).all())
    assert bool(np.isnan(quantiles[1]).all())
    with pytest.raises(ValueError, match="q overflowed in layer 2: it has no density there"):
        distributions.histogram(ds, "q", layer=2)


# ---- What simulate counts --------------------------------------------------------------------------------------------


def test_counts_are_of_nodes_inputs_and_pairs(ds):
    sizes = {"mu": 500, "var": 500, "q": 40, "c": 40 * 39 // 2}
    for name, size in sizes.items():
        assert ds[f"{name}_counts"].dims == ("network", "layer", f"{name}_bin")
        assert bool((ds[f"{name}_counts"].sum(f"{name}_bin") == size).all())


@pytest.mark.parametrize("name", ["mu", "var"])
def test_counts_are_those_of_the_nodes(ds, name):
    expected = dataset(**{name: ds[name].values})
    xr.testing.assert_equal(ds[f"{name}_counts"], expected[f"{name}_counts"].assign_coords(network=ds["network"]))


@pytest.mark.parametrize(("name", "of"), [("q", "q"), ("c", "c")])
def test_the_mean_of_the_counts_is_the_mean(ds, name, of):
    middle = 0.5 * (ds[f"{name}_lower"] + ds[f"{name}_upper"])
    counts = ds[f"{name}_counts"]
    mean = (counts * middle).sum(f"{name}_bin") / counts.sum(f"{name}_bin")
    expected = 1.0 - ds["c"] if name == "c" else ds["q"]
    np.testing.assert_allclose(mean, expected, rtol=0.5 * WIDTH)


def test_quantile_variables(ds):
    for name in NAMES:
        quantiles = ds[f"{name}_quantile"]
        assert quantiles.dims == ("network", "layer", "quantile")
        np.testing.assert_array_equal(quantiles, distributions.quantiles(ds, name))
    for name in ("mu", "var"):
        exact = np.moveaxis(np.quantile(ds[name], ds["quantile"], axis=2), 0, -1)
        np.testing.assert_allclose(ds[f"{name}_quantile"], exact, rtol=WIDTH, atol=0.02)


@pytest.mark.parametrize("method", ["direct", "gram"])
def test_both_engines_count(method):
    ens = igb.Ensemble("relu", 2.0)
    ds = igb.simulate(ens, width=300, depth=2, inputs=30, method=method, distributions=True)
    for name, size in {"mu": 300, "var": 300, "q": 30, "c": 435}.items():
        assert bool((ds[f"{name}_counts"].sum(f"{name}_bin") == size).all())


# ---- Merging ---------------------------------------------------------------------------------------------------------


def test_merging_is_counting_together():
    rng = np.random.default_rng(5)
    one, two = rng.lognormal(size=(2, 3, 50)), rng.lognormal(3.0, size=(4, 3, 20))
    merged = distributions.merge(dataset(q=one), dataset(q=two))
    together = np.concatenate([np.moveaxis(x, 1, 0).reshape(3, -1) for x in (one, two)], axis=1)
    expected = dataset(q=together[None])
    assert merged["q_counts"].dims == ("layer", "q_bin")
    np.testing.assert_array_equal(merged["q_counts"], expected["q_counts"][0])
    np.testing.assert_array_equal(merged["q_lower"], expected["q_lower"])
    np.testing.assert_allclose(merged["q_quantile"], expected["q_quantile"][0])
    assert merged.attrs["networks"] == 6


def test_merging_in_any_order_and_grouping(ds):
    a, b, c = (ds.isel(network=[i]) for i in range(3))
    for part in (a, b, c):
        part.attrs = ds.attrs | {"networks": 1}
    whole = distributions.merge(ds)
    xr.testing.assert_identical(distributions.merge(a, b, c), whole)
    # bins where one network alone has nothing are there all the same
    xr.testing.assert_identical(distributions.merge(c, distributions.merge(b, a)), whole)


def test_survives_a_file(ds, tmp_path):
    ds.to_netcdf(tmp_path / "ds.nc", engine="h5netcdf")
    loaded = xr.load_dataset(tmp_path / "ds.nc", engine="h5netcdf")
    xr.testing.assert_identical(loaded, ds)
    xr.testing.assert_identical(distributions.merge(loaded), distributions.merge(ds))


# ---- Densities -------------------------------------------------------------------------------------------------------


def test_density_follows_the_values():
    values = np.random.default_rng(6).standard_normal((2, 1, 50_000))
    edges = np.linspace(-3.0, 3.0, 25)
    density, got_edges = distributions.histogram(dataset(mu=values), "mu", layer=1, bins=edges)
    np.testing.assert_array_equal(got_edges, edges)
    expected = np.histogram(values, edges)[0] / values.size / np.diff(edges)
    np.testing.assert_allclose(density, expected, atol=0.01)
    assert math.isclose(np.sum(density * np.diff(edges)), np.mean(np.abs(values) < 3.0), abs_tol=1e-3)


@pytest.mark.parametrize("name", ["mu", "var", "q", "c", "1-c"])
def test_density_integrates_to_one(ds, name):
    density, edges = igb.distributions.histogram(ds, name, layer=3)
    assert len(density) == 50
    assert math.isclose(np.sum(density * np.diff(edges)), 1.0, rel_tol=1e-12)
    centre = np.sum(density * np.diff(edges) * 0.5 * (edges[:-1] + edges[1:]))
    means = {"mu": ds["mu"], "var": ds["var"], "q": ds["q"], "c": ds["c"], "1-c": 1.0 - ds["c"]}
    assert math.isclose(centre, float(means[name].sel(layer=3).mean()), abs_tol=0.5 * WIDTH)


# ---- What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda ds: distributions.quantiles(ds, "gamma"), ValueError, "name must be one of 'mu', .*, got 'gamma'"),
        (lambda ds: distributions.quantiles(3, "q"), TypeError, "dataset must be an xarray.Dataset .*, got 3"),
        (
            lambda ds: distributions.quantiles(ds[["q"]], "q"),
            ValueError,
            "dataset has no q_counts: make it by simulate",
        ),
        (lambda ds: distributions.quantiles(ds, "q", [1.5]), ValueError, "probabilities must be from 0 to 1, got 1.5"),
        (lambda ds: distributions.quantiles(ds, "q", [[0.5]]), ValueError, "probabilities must be a list of numbers"),
        (
            lambda ds: distributions.histogram(ds, "q", layer=0),
            ValueError,
            "layer must be an integer from 1 to 3, got 0",
        ),
        (
            lambda ds: distributions.histogram(ds, "q", layer=4),
            ValueError,
            "layer must be an integer from 1 to 3, got 4",
        ),
        (lambda ds: distributions.histogram(ds, "q", layer=1, bins=0), ValueError, "bins must be an integer from 1 to"),
        (
            lambda ds: distributions.histogram(ds, "q", layer=1, bins=[2.0, 1.0]),
            ValueError,
            "bins must be .* ascending",
        ),
        (lambda ds: distributions.merge(), ValueError, "merge needs at least one dataset"),
        (lambda ds: distributions.merge(ds, ds[["q"]]), ValueError, "dataset has no mu_counts"),
        (lambda ds: distributions.merge(ds, 3), TypeError, "dataset must be an xarray.Dataset .*, got 3"),
        (
            lambda ds: distributions.merge(ds, ds.isel(layer=[0])),
            ValueError,
            "merge takes datasets of the same depth, got 1 and 3 layers",
        ),
    ],
)
def test_wrong_arguments(ds, call, error, message):
    with pytest.raises(error, match=message):
        call(ds)


def test_zeros_have_quantile_zero():
    with pytest.warns(RuntimeWarning, match="all inputs are equal"):
        ds = igb.simulate(igb.Ensemble("tanh", 1.0), width=50, depth=2, inputs=np.ones((4, 3)), distributions=True)
    assert (ds["var_quantile"].values == 0.0).all()
    assert (distributions.quantiles(ds, "1-c", [0.0, 0.5, 1.0]).values == 0.0).all()
    with pytest.raises(ValueError, match="var is 0 throughout layer 1: it has no density there"):
        distributions.histogram(ds, "var", layer=1)


def test_correlations_that_are_one_to_all_digits():
    ens = igb.Ensemble("tanh", sigma_w2=0.5, sigma_b2=0.05)
    ds = igb.simulate(ens, width=100, depth=80, inputs=5, distributions=True)
    with pytest.raises(ValueError, match="c is 1 throughout layer 80: it has no density there; ask for '1-c'"):
        distributions.histogram(ds, "c", layer=80)
    density, edges = distributions.histogram(ds, "1-c", layer=80)
    assert np.sum(density * np.diff(edges)) == pytest.approx(1.0)
