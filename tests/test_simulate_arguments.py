"""simulate as a Python function: the dataset it returns, what it refuses before any work, memory, progress, Ctrl-C."""

import io
import os
import pathlib
import re
import signal
import sys
import threading
import time
import warnings

import numpy as np
import pytest
import scipy.sparse
import xarray as xr

import igbfast as igb
from igbfast import _core, _memory, _progress

ESTIMATES = ("sigma_mu2", "sigma_y2", "gamma", "q", "c", "chi")
SMALL = {"width": 64, "depth": 3, "inputs": 10}


# --- what comes back


def test_variables_dimensions_and_coordinates(tanh_edge):
    ds = igb.simulate(tanh_edge, **SMALL, networks=2)
    estimates = {name + suffix for name in ESTIMATES for suffix in ("", "_se")}
    assert set(ds.data_vars) == estimates | {"class_fraction", "favoured"}
    for variable in (ds[name] for name in estimates):
        assert variable.dims == ("network", "layer")
        assert variable.dtype == np.float64
        assert variable.attrs["long_name"]
        assert variable.attrs["units"] == "1"
        assert bool(np.isfinite(variable).all())
    assert ds["layer"].values.tolist() == [1, 2, 3]
    assert ds["network"].values.tolist() == [0, 1]


def test_per_node(tanh_edge):
    ds = igb.simulate(tanh_edge, **SMALL, networks=2, per_node=True)
    assert ds["mu"].dims == ds["var"].dims == ("network", "layer", "node")
    assert ds["mu"].shape == (2, 3, 64)
    np.testing.assert_allclose(ds["var"].mean("node"), ds["sigma_y2"], rtol=1e-6)
    centres = ds["mu"].var("node", ddof=1) - ds["sigma_y2"] / 10
    np.testing.assert_allclose(centres, ds["sigma_mu2"], rtol=1e-4, atol=1e-6)
    assert ds["guess"].dims == ("network", "input")
    assert "label" not in ds


def test_attributes_say_what_was_run(tanh_edge):
    ds = igb.simulate(tanh_edge, **SMALL, networks=2, seed=2**64 - 1, method="direct", dtype=np.float64)
    expected = {
        "activation": "tanh",
        "sigma_w2": 1.76,
        "sigma_b2": 0.05,
        "width": 64,
        "depth": 3,
        "inputs": 10,
        "features": 64,
        "networks": 2,
        "classes": 10,
        "seed": 2**64 - 1,
        "method": "direct",
        "dtype": "float64",
        "igbfast_version": igb.__version__,
    }
    assert {key: ds.attrs[key] for key in expected} == expected
    assert "unbiased" in ds["sigma_mu2"].attrs["description"]
    assert "over the nodes of that network alone" in ds.attrs["standard_error"]
    assert "over inputs and pairs of inputs" in ds.attrs["estimator"]


def test_attributes_of_more_than_a_plain_network():
    ens = igb.Ensemble("gelu", 1.5, pool=igb.AvgPool(2), residual=0.1, layernorm=True, weights="uniform")
    ds = igb.simulate(ens, **SMALL, gradients="cross_entropy", labels=np.arange(10) % 3, classes=3)
    expected = {
        "pool": "AvgPool(2)",
        "residual": 0.1,
        "layernorm": "True",
        "weights": "uniform",
        "method": "direct",
        "gradients": "cross_entropy",
        "labels": "given",
        "classes": 3,
    }
    assert {key: ds.attrs[key] for key in expected} == expected


@pytest.mark.parametrize("seed", [0, 2**63, 2**64 - 1])
def test_saves_and_loads_back_whole(tanh_edge, tmp_path, seed):
    everything = {"per_node": True, "gradients": "cross_entropy", "distributions": True}
    ds = igb.simulate(tanh_edge, **SMALL, networks=2, seed=seed, **everything)
    ds.to_netcdf(tmp_path / "ds.nc", engine="h5netcdf")
    loaded = xr.load_dataset(tmp_path / "ds.nc", engine="h5netcdf")
    xr.testing.assert_identical(ds, loaded)


def test_given_inputs_are_used_as_they_are(tanh_edge):
    x = np.random.default_rng(0).standard_normal((10, 30))
    ds = igb.simulate(igb.Ensemble("linear", 1.0), width=20_000, depth=1, inputs=3.0 * x, dtype="float64")
    assert (ds.attrs["inputs"], ds.attrs["features"], ds.attrs["input_data"]) == (10, 30, "given")
    # q^(1) = |x|^2 / features on average over the inputs, within 5 standard errors
    assert abs(float(ds["q"][0, 0]) - 9.0 * np.mean(x**2)) < 5 * float(ds["q_se"][0, 0])


@pytest.mark.parametrize("dtype", ["f4", "f2", "i4", "u1", ">f8"])
def test_inputs_of_every_real_type(tanh_edge, dtype):
    x = np.random.default_rng(0).integers(0, 5, (6, 8))
    expected = igb.simulate(tanh_edge, width=64, depth=2, inputs=x.astype("f8"), method="direct", dtype="float64")
    got = igb.simulate(tanh_edge, width=64, depth=2, inputs=x.astype(dtype), method="direct", dtype="float64")
    xr.testing.assert_identical(got, expected)


def test_inputs_in_any_memory_order(tanh_edge):
    x = np.random.default_rng(0).standard_normal((6, 8))
    expected = igb.simulate(tanh_edge, width=64, depth=2, inputs=x)
    for same in (np.asfortranarray(x), x.tolist(), np.repeat(x, 2, axis=0)[::2], xr.DataArray(x)):
        xr.testing.assert_identical(igb.simulate(tanh_edge, width=64, depth=2, inputs=same), expected)


def test_networks_are_independent_of_how_many_there_are(tanh_edge):
    three = igb.simulate(tanh_edge, **SMALL, networks=3, seed=5)
    one = igb.simulate(tanh_edge, **SMALL, networks=1, seed=5)
    np.testing.assert_array_equal(three["gamma"][0], one["gamma"][0])
    assert len(np.unique(three["gamma"].isel(layer=0))) == 3


# --- classes and gradients


def test_class_fractions_count_the_guesses(tanh_edge):
    ds = igb.simulate(tanh_edge, **SMALL, networks=3, classes=4, per_node=True)
    assert ds["class_fraction"].dims == ("network", "class")
    for network in range(3):
        guesses = ds["guess"].values[network].tolist()
        counts = [guesses.count(k) for k in range(4)]
        np.testing.assert_array_equal(ds["class_fraction"][network], np.array(counts) / 10)
        assert int(ds["favoured"][network]) == counts.index(max(counts))
    assert ds["class"].values.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("loss", ["readout", "cross_entropy"])
def test_gradients_by_layer_and_input(tanh_edge, loss):
    ds = igb.simulate(tanh_edge, **SMALL, networks=2, gradients=loss, classes=3, per_node=True)
    by_input = ds["gradient_input"].values
    assert by_input.shape == (2, 3, 10)
    assert bool((by_input > 0.0).all())
    np.testing.assert_allclose(ds["gradient"], by_input.mean(axis=2))
    np.testing.assert_allclose(ds["growth"][:, :-1], by_input.mean(2)[:, :-1] / by_input.mean(2)[:, 1:])
    assert bool(np.isnan(ds["growth"][:, -1]).all())
    assert ds["quantile"].values.tolist() == [0.05, 0.25, 0.5, 0.75, 0.95]
    median = ds["gradient_quantile"].sel(quantile=0.5)
    np.testing.assert_allclose(median, np.median(by_input, axis=2))
    assert ds["gradient_se"].dims == ("network", "layer")
    assert ("class_fraction" in ds) == (loss == "cross_entropy")  # a read-out has a single output
    assert "gradient_input" not in igb.simulate(tanh_edge, **SMALL, gradients=loss)


def test_gradients_by_class(tanh_edge):
    labels = np.array([0, 2, 2, 0, 2, 0, 0, 0, 2, 0])
    kwargs = {**SMALL, "gradients": "cross_entropy", "classes": 4, "labels": labels}
    ds = igb.simulate(tanh_edge, **kwargs, networks=2, per_node=True)
    np.testing.assert_array_equal(ds["label"], np.tile(labels, (2, 1)))
    for k in (0, 2):
        expected = ds["gradient_input"].values[:, :, labels == k].mean(axis=2)
        np.testing.assert_allclose(ds["gradient_class"].sel({"class": k}), expected)
    assert bool(np.isnan(ds["gradient_class"].sel({"class": [1, 3]})).all())
    favoured = ds["gradient_class"].sel({"class": ds["favoured"]})
    assert favoured.dims == ("network", "layer")


def test_random_labels_are_of_all_classes(tanh_edge):
    ds = igb.simulate(tanh_edge, width=64, depth=1, inputs=3000, gradients="cross_entropy", classes=3, per_node=True)
    counts = np.bincount(ds["label"].values[0], minlength=3)
    assert counts.sum() == 3000
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(3000 * 2 / 9)  # 5 standard errors
    assert ds.attrs["labels"] == "random"


def test_labels_of_any_integer_type(tanh_edge):
    labels = np.arange(10) % 3
    kwargs = {**SMALL, "gradients": "cross_entropy", "classes": 3}
    expected = igb.simulate(tanh_edge, **kwargs, labels=labels)
    for same in (labels.tolist(), labels.astype(np.uint8), labels.astype(np.int64)[::-1][::-1], xr.DataArray(labels)):
        xr.testing.assert_identical(igb.simulate(tanh_edge, **kwargs, labels=same), expected)


# --- tables of the activation


def test_a_table_too_short_is_replaced_by_a_longer_one(monkeypatch):
    made = []
    core_phi = igb.Activation._core_phi

    def short_at_first(activation, q_max, table=False):
        made.append(core_phi(activation, q_max if len(made) > 1 else 0.0, table))
        return made[-1]

    ens = igb.Ensemble("gelu", 1.5, 0.1)
    x = 1e3 * np.random.default_rng(0).standard_normal((6, 8))
    expected = igb.simulate(ens, width=64, depth=2, inputs=x, dtype="float64")
    monkeypatch.setattr(igb.Activation, "_core_phi", short_at_first)
    got = igb.simulate(ens, width=64, depth=2, inputs=x, dtype="float64")
    assert [phi.q_max for phi in made[:2]] == [64.0, 64.0]  # what theory asks about, and the first run
    assert len(made) > 2
    assert made[-1].q_max > 1e6
    np.testing.assert_allclose(got["q"], expected["q"], rtol=1e-12)


def test_what_no_table_can_hold_is_an_error():
    with pytest.raises(ValueError, match="the pre-activations of 'exp' grow beyond all it can be tabulated for"):
        igb.simulate(igb.Ensemble("exp", 4.0), width=50, depth=6, inputs=5)


def test_all_of_it_from_the_command_line(tmp_path):
    pytest.importorskip("typer")
    from typer.testing import CliRunner

    from igbfast.cli import app

    size = ["--width", "64", "--depth", "3", "--inputs", "10"]
    network = ["--sigma-w2", "1.5", "--pool", "max:2", "--residual", "0.1", "--layernorm", "--weights", "uniform"]
    loss = ["--gradients", "cross_entropy", "--classes", "3"]
    command = ["simulate", "gelu", *network, *size, *loss, "-q", "--output", str(tmp_path / "s.nc")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    ens = igb.Ensemble("gelu", 1.5, pool=igb.MaxPool(2), residual=0.1, layernorm=True, weights="uniform")
    expected = igb.simulate(ens, **SMALL, gradients="cross_entropy", classes=3)
    xr.testing.assert_identical(xr.load_dataset(tmp_path / "s.nc", engine="h5netcdf"), expected)


# --- the mean over networks


def test_network_mean_is_mean_and_standard_error():
    ds = igb.simulate(igb.Ensemble("tanh", 1.0, 1.0), **SMALL, networks=8)
    mean = igb.network_mean(ds)
    for name in ESTIMATES:
        np.testing.assert_allclose(mean[name], ds[name].mean("network"))
        np.testing.assert_allclose(mean[f"{name}_se"], ds[name].std("network", ddof=1) / np.sqrt(8))
    np.testing.assert_allclose(mean["log_gamma"], np.log(ds["gamma"]).mean("network"))
    assert mean["gamma"].dims == ("layer",)
    assert "independent networks" in mean.attrs["standard_error"]


def test_network_mean_of_one_network_has_no_error(tanh_edge):
    mean = igb.network_mean(igb.simulate(tanh_edge, **SMALL))
    assert bool(np.isfinite(mean["gamma"]).all())
    assert bool(np.isnan(mean["gamma_se"]).all())


def test_network_mean_where_a_gamma_is_negative(relu_critical):
    ds = igb.simulate(relu_critical, **SMALL, networks=16)
    assert bool((ds["gamma"].isel(layer=0) < 0).any())  # theory has 0 there, and the estimator is unbiased
    assert np.isnan(igb.network_mean(ds)["log_gamma"].values[0])


def test_network_mean_of_gradients():
    kwargs = {**SMALL, "networks": 8, "gradients": "cross_entropy", "classes": 3}
    ds = igb.simulate(igb.Ensemble("tanh", 3.0, 0.1), **kwargs)
    mean = igb.network_mean(ds)
    logs = np.log(ds["gradient"].values)
    np.testing.assert_allclose(mean["log_gradient"], logs.mean(axis=0))
    np.testing.assert_allclose(mean["log_gradient_se"], logs.std(axis=0, ddof=1) / np.sqrt(8))
    np.testing.assert_allclose(mean["growth"], ds["growth"].mean("network"))
    ranked = np.sort(ds["class_fraction"].values, axis=1)[:, ::-1].mean(axis=0)
    np.testing.assert_allclose(mean["ranked_fraction"], ranked)
    assert mean["ranked_fraction"].dims == ("rank",)
    by_class, favoured = ds["gradient_class"].values, ds["favoured"].values
    own = np.array([by_class[n, :, k] for n, k in enumerate(favoured)])
    others = np.array([np.delete(by_class[n], k, axis=1).mean(axis=1) for n, k in enumerate(favoured)])
    np.testing.assert_allclose(mean["log_gradient_favoured"], np.log(own).mean(axis=0))
    np.testing.assert_allclose(mean["log_gradient_others"], np.log(others).mean(axis=0))


def test_network_mean_refuses_other_things(tanh_edge):
    with pytest.raises(TypeError, match="dataset must be an xarray.Dataset made by simulate, got 3"):
        igb.network_mean(3)
    with pytest.raises(ValueError, match=r"it has no sigma_mu2, .* over \(network, layer\)"):
        igb.network_mean(igb.propagate(tanh_edge, 3))


# --- bad arguments, all before any work


@pytest.fixture
def no_work(monkeypatch):
    """The compiled engine must not be reached."""

    def fail(**_):
        raise AssertionError("work was begun")

    monkeypatch.setattr(_core, "simulate", fail)
    monkeypatch.setattr(_core, "DirectStream", fail)


X = np.ones((3, 4))


def changed(row, column, value):
    x = X.copy()
    x[row, column] = value
    return x


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "width must be an integer from 1 to 2147483648, got 0"),
        ({"width": -3}, "width must be an integer from 1 to 2147483648, got -3"),
        ({"width": 2**31 + 1}, "width must be an integer from 1 to 2147483648, got 2147483649"),
        ({"depth": 0}, "depth must be an integer from 1 to 16777214, got 0"),
        ({"depth": 2**24}, "depth must be an integer from 1 to 16777214, got 16777216"),
        ({"networks": 0}, "networks must be an integer from 1 to 2147483648, got 0"),
        ({"seed": -1}, "seed must be an integer from 0 to 18446744073709551615, got -1"),
        ({"seed": 2**64}, "seed must be an integer from 0 to 18446744073709551615, got 18446744073709551616"),
        ({"inputs": 1}, "inputs must be an integer from 2 to 2147483648, got 1"),
        ({"inputs": np.ones(5)}, r"inputs must be .* shape \(n, features\) .*, got an array of shape \(5,\)"),
        ({"inputs": np.ones((1, 4))}, r"inputs must be .* n >= 2 .* got an array of shape \(1, 4\)"),
        ({"inputs": np.ones((4, 0))}, r"inputs must be .* features >= 1, got an array of shape \(4, 0\)"),
        ({"inputs": []}, r"inputs must be .* got an array of shape \(0,\)"),
        ({"inputs": np.ones((2, 3, 0))}, r"inputs must be .* got an array of shape \(2, 3, 0\)"),
        ({"inputs": [[1.0, 2.0], [3.0]]}, "inputs must be a number or an array .*, got rows that differ"),
        ({"inputs": changed(2, 1, np.nan)}, "inputs must be finite, got nan in row 2, column 1"),
        ({"inputs": changed(0, 3, -np.inf)}, "inputs must be finite, got -inf in row 0, column 3"),
        ({"inputs": changed(1, 0, 1e200)}, "inputs must have a mean square from 1e-30 to 1e\\+30 .* of row 1 is inf: "),
        ({"method": "grm"}, "method must be one of 'auto', 'direct', 'gram', got 'grm'; did you mean 'gram'?"),
        ({"gradients": "crossentropy"}, "gradients must be one of .*, got 'crossentropy'; did you mean 'cross_entro"),
        ({"classes": 1}, "classes must be an integer from 2 to 1048576, got 1"),
        ({"labels": [0] * 10}, "labels are for gradients='cross_entropy', got labels with gradients=None"),
        ({"normalize": True}, "normalize=True is for given inputs, got a number of Gaussian ones"),
        ({"dtype": "float16"}, "dtype must be one of 'float32', 'float64', got 'float16'"),
        ({"dtype": np.int32}, "dtype must be one of 'float32', 'float64', got 'int32'"),
    ],
)
def test_values_out_of_range(tanh_edge, arguments, message):
    with pytest.raises(ValueError, match=message):
        igb.simulate(tanh_edge, **(SMALL | arguments))


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 64.0}, "width must be an integer from 1 to 2147483648, got 64.0"),
        ({"width": True}, "width must be an integer .*, got True"),
        ({"width": "64"}, "width must be an integer .*, got '64'"),
        ({"depth": None}, "depth must be an integer .*, got None"),
        ({"networks": np.array([2])}, r"networks must be an integer .*, got an array of shape \(1,\)"),
        ({"seed": 1.5}, "seed must be an integer .*, got 1.5"),
        ({"inputs": 10.0}, r"inputs must be a number of inputs .*, an array of shape \(n, features\) or .*, got 10.0"),
        ({"inputs": "10"}, "inputs must be a number of inputs .*, got '10'"),
        ({"inputs": None}, "inputs must be a number of inputs .*, got None"),
        ({"inputs": {"x": 1}}, r"inputs must be a number of inputs .*, got \{'x': 1\} \(a dict\)"),
        ({"inputs": 1j * X}, "inputs must be real numbers, got dtype complex128"),
        ({"inputs": X > 0}, "inputs must be real numbers, got dtype bool"),
        ({"inputs": X.astype(str)}, "inputs must be real numbers, got dtype <U"),
        ({"inputs": X.astype(object)}, "inputs must be real numbers, got dtype object"),
        ({"method": None}, "method must be one of .*, got None"),
        ({"dtype": None}, "dtype must be one of .*, got None"),
        ({"dtype": 7}, "dtype must be one of .*, got 7"),
        ({"per_node": 1}, "per_node must be True or False, got 1"),
        ({"gradients": True}, "gradients must be one of 'readout', 'cross_entropy', got True"),
        ({"classes": 10.0}, "classes must be an integer .*, got 10.0"),
        ({"distributions": None}, "distributions must be True or False, got None"),
        ({"normalize": "yes"}, "normalize must be True or False, got 'yes'"),
        ({"progress": "yes"}, "progress must be None, True or False, got 'yes'"),
        ({"progress": 0}, "progress must be None, True or False, got 0"),
        ({"inputs": scipy.sparse.csr_array(X)}, r"got a sparse one \(csr_array\): use .toarray\(\)"),
        (
            {"inputs": ["a.npy", "b.npy"]},
            r"inputs must be .*, got 'a.npy'; numpy.load\(name, mmap_mode='r'\) maps a file",
        ),
        ({"inputs": pathlib.Path("a.npy")}, "inputs must be .*a.npy.*; numpy.load"),
    ],
)
def test_wrong_types(tanh_edge, arguments, message):
    with pytest.raises(TypeError, match=message):
        igb.simulate(tanh_edge, **(SMALL | arguments))


def test_ensemble_of_the_wrong_type():
    with pytest.raises(TypeError, match=r"ens must be an Ensemble such as igb.Ensemble\('tanh', .*\), got 'tanh'"):
        igb.simulate("tanh", **SMALL)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("settings", "arguments", "message"),
    [
        ({"pool": igb.MaxPool(3)}, {}, r"width must be a multiple of 3 for pool=MaxPool\(3\), got 64"),
        ({"layernorm": True}, {"width": 1}, "width must be at least 2 with layernorm=True, .*, got 1"),
        (
            {"weights": "uniform"},
            {"method": "gram"},
            "method must be 'direct' or 'auto' for weights='uniform', got 'gr",
        ),
        ({"weights": "rademacher"}, {"method": "gram"}, "which draws nodes from the law .* gaussian and orthogonal"),
    ],
)
def test_arguments_that_do_not_suit_the_ensemble(settings, arguments, message):
    with pytest.raises(ValueError, match=message):
        igb.simulate(igb.Ensemble("tanh", 1.0, **settings), **(SMALL | arguments))


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([0] * 9, ValueError, "labels must be 10 integers, one for each input, got 9"),
        ([0] * 11, ValueError, "labels must be 10 integers, one for each input, got 11"),
        ([], ValueError, "labels must be 10 integers, one for each input, got 0"),
        ([0, 1, 2, 3, 1, 3, 3, 0, 0, 0], ValueError, "labels must be integers from 0 to 2, got 3 at position 3"),
        ([0, 1, -1, 2, 1, 0, 0, 0, 0, 0], ValueError, "labels must be integers from 0 to 2, got -1 at position 2"),
        (np.array([0] * 9 + [2**63], np.uint64), ValueError, "got 9223372036854775808 at position 9"),
        (np.zeros(10), TypeError, r"labels must be integers from 0 to 2, got 0.0 at position 0 \(dtype float64\)"),
        ([True] * 10, TypeError, r"labels must be integers .*, got True at position 0 \(dtype bool\)"),
        ([0, 1, None, *[0] * 7], TypeError, r"labels must be integers .*, got None at position 2 \(dtype object\)"),
        ([[0] * 10], ValueError, r"labels must be integers .*, one for each input, got an array of shape \(1, 10\)"),
        (3, TypeError, "labels must be integers from 0 to 2, one for each input, got 3"),
        ("0123456789", TypeError, "labels must be integers from 0 to 2, one for each input, got '0123456789'"),
    ],
)
@pytest.mark.parametrize("inputs", [10, np.ones((10, 4))], ids=["gaussian", "given"])
def test_wrong_labels(tanh_edge, inputs, labels, error, message):
    arguments = SMALL | {"inputs": inputs}
    with pytest.raises(error, match=message):
        igb.simulate(tanh_edge, **arguments, gradients="cross_entropy", classes=3, labels=labels)


@pytest.mark.parametrize("number", [np.int8(64), np.uint64(64)])
def test_numpy_integers_are_integers(tanh_edge, number):
    assert igb.simulate(tanh_edge, width=number, depth=1, inputs=number).attrs["inputs"] == 64


# --- memory


@pytest.fixture
def one_gib(monkeypatch):
    monkeypatch.setattr(_memory, "available_memory", lambda: 2**30)


@pytest.mark.usefixtures("no_work", "one_gib")
def test_more_inputs_than_the_gram_matrix_can_hold(tanh_edge):
    with pytest.raises(ValueError, match="inputs=200000") as error:
        igb.simulate(tanh_edge, width=100, depth=2, inputs=200_000, method="gram")
    message = str(error.value)
    estimate = float(re.search(r"needs about ([\d,]+) GiB of memory", message)[1].replace(",", ""))
    assert estimate > 200_000**2 * 8 / 2**30  # one matrix in double precision at the least
    assert "1 GiB are available" in message
    assert message.endswith("use method='direct' or fewer inputs")


@pytest.mark.usefixtures("no_work", "one_gib")
def test_more_nodes_than_can_be_kept(tanh_edge):
    with pytest.raises(ValueError, match="per_node=True with networks=100, depth=100 and width=10000") as error:
        igb.simulate(tanh_edge, width=10_000, depth=100, inputs=10, networks=100, per_node=True)
    assert "needs about 1.49 GiB" in str(error.value)  # 2 * 8 bytes * 10^8
    assert str(error.value).endswith("use per_node=False, or fewer networks or layers")


@pytest.mark.usefixtures("no_work", "one_gib")
def test_more_nodes_than_can_be_kept_between_chunks(tanh_edge):
    with pytest.raises(
        ValueError, match="inputs piece by piece with networks=20, depth=100 and width=10000 need"
    ) as error:
        igb.simulate(tanh_edge, width=10_000, depth=100, inputs=[np.ones((5, 4))], networks=20)
    assert str(error.value).endswith("use fewer networks or layers")


@pytest.mark.usefixtures("no_work", "one_gib")
@pytest.mark.parametrize(
    ("settings", "arguments", "what", "remedy"),
    [
        (
            {},
            {"networks": 10**6, "depth": 10**4},
            "^the results of networks=1000000 and depth=10000 need",
            "fewer of them",
        ),
        (
            {"residual": 1.0},
            {"width": 10**6, "depth": 100, "inputs": 50, "gradients": "readout", "method": "gram"},
            "method='gram', residual=1, gradients='readout' and depth=100 needs",
            "no gradients or fewer inputs",
        ),
        (
            {},
            {"width": 10**6, "inputs": 500, "method": "direct"},
            "^inputs=500 at width=1000000 with method='direct' needs",
            "method='gram' or fewer inputs",
        ),
    ],
)
def test_memory_errors_name_what_is_large(settings, arguments, what, remedy):
    with pytest.raises(ValueError, match=what) as error:
        igb.simulate(igb.Ensemble("tanh", 1.0, **settings), **(SMALL | arguments))
    assert str(error.value).endswith(f"1 GiB are available: use {remedy}")


@pytest.mark.usefixtures("one_gib")
def test_auto_avoids_what_does_not_fit(tanh_edge, monkeypatch):
    need = {"gram": 2**31, "direct": 2**20}
    monkeypatch.setattr(_core, "simulate_memory", lambda *, method, **_: need[method])
    assert igb.simulate(tanh_edge, **SMALL).attrs["method"] == "direct"


@pytest.mark.parametrize(
    ("width", "inputs", "chosen"), [(1000, 10, "gram"), (1000, 900, "direct"), (30, 40, "direct"), (40, 40, "direct")]
)
def test_auto_takes_the_cheaper_engine(tanh_edge, width, inputs, chosen):
    assert igb.simulate(tanh_edge, width=width, depth=1, inputs=inputs).attrs["method"] == chosen


@pytest.mark.parametrize(
    ("weights", "chosen"), [("orthogonal", "gram"), ("uniform", "direct"), ("rademacher", "direct")]
)
def test_auto_takes_an_engine_that_knows_the_weights(weights, chosen):
    ens = igb.Ensemble("tanh", 1.0, weights=weights)
    assert igb.simulate(ens, width=1000, depth=1, inputs=10).attrs["method"] == chosen


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


MIB = 2**20
MACHINE = {"proc/meminfo": "MemTotal: 16384 kB\nMemAvailable:    8192 kB\n", "proc/self/statm": "100 50 0 0"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8 * MIB),
        (  # version 2: limit less use, plus what the page cache gives back
            {
                "proc/self/cgroup": "0::/job/step\n",
                "sys/fs/cgroup/job/memory.max": f"{6 * MIB}\n",
                "sys/fs/cgroup/job/memory.current": f"{4 * MIB}\n",
                "sys/fs/cgroup/job/memory.stat": f"anon 1\ninactive_file {MIB}\n",
                "sys/fs/cgroup/job/step/memory.max": "max\n",
                "sys/fs/cgroup/job/step/memory.current": "1\n",
            },
            3 * MIB,
        ),
        (  # version 1
            {
                "proc/self/cgroup": "5:cpu:/x\n4:memory:/job\n",
                "sys/fs/cgroup/memory/job/memory.limit_in_bytes": f"{3 * MIB}",
                "sys/fs/cgroup/memory/job/memory.usage_in_bytes": f"{MIB}",
            },
            2 * MIB,
        ),
        (  # a container that sees itself as the root
            {
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": f"{5 * MIB}",
                "sys/fs/cgroup/memory.current": f"{6 * MIB}",
            },
            0,
        ),
    ],
)
def test_available_memory(tmp_path, files, expected):
    write(tmp_path, MACHINE | files)
    assert _memory.available_memory(tmp_path) == expected


def test_available_memory_unknown(tmp_path, tanh_edge, monkeypatch):
    assert _memory.available_memory(tmp_path) is None
    monkeypatch.setattr(_memory, "available_memory", lambda: None)
    assert igb.simulate(tanh_edge, **SMALL).sizes["layer"] == 3


# --- lost digits


def test_overflow_is_nan_and_warned_of_once():
    ens = igb.Ensemble("linear", sigma_w2=1e120)
    with pytest.warns(RuntimeWarning, match=r"overflowed or lost all digits in layers 3 to 5 of 5") as caught:
        ds = igb.simulate(ens, width=50, depth=5, inputs=5, dtype="float64", method="direct")
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert "float64 reaches no further" in str(caught[0].message)
    assert bool(np.isnan(ds["q"][0, 2:]).all())
    assert bool(np.isfinite(ds["q"][0, 0]))


def test_float32_is_told_of_float64():
    ens = igb.Ensemble("tanh", sigma_w2=0.05, sigma_b2=0.05)  # deeply ordered
    with pytest.warns(RuntimeWarning, match="dtype='float64' has a longer reach"):
        igb.simulate(ens, width=50, depth=100, inputs=5, dtype="float32")


def test_layers_are_told_for_each_quantity():
    ens = igb.Ensemble("tanh", sigma_w2=0.3)
    message = (
        r"^sigma_mu2, sigma_y2 and gamma overflowed or lost all digits in layers 1\d\d to 300 of 300, "
        r"and q, c and chi in layers 1\d\d to 300: they are not finite there; dtype='float64'"
    )
    with pytest.warns(RuntimeWarning, match=message) as caught:
        ds = igb.simulate(ens, width=50, depth=300, inputs=5)
    first = [int(np.isnan(ds[name].values[0]).argmax()) + 1 for name in ("sigma_y2", "q")]
    assert re.findall(r"layers (\d+) to", str(caught[0].message)) == [str(layer) for layer in first]


def test_equal_inputs_are_no_matter_of_precision(tanh_edge):
    with pytest.warns(RuntimeWarning, match=r"^all inputs are equal \(in float32\)") as caught:
        igb.simulate(tanh_edge, width=50, depth=3, inputs=np.ones((3, 20)))
    assert len(caught) == 1
    assert str(caught[0].message).endswith("sigma_y2 is 0, and gamma has no value in layers 1 to 3 of 3")


def test_an_input_of_zeros_has_no_correlation():
    relu = igb.Ensemble("relu", 2.0)
    x = np.eye(4)
    x[2] = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ds = igb.simulate(relu, width=50, depth=3, inputs=x)
    assert bool(np.isfinite(ds["c"]).all())
    with pytest.warns(RuntimeWarning, match="^fewer than two inputs are left that are not 0: c has no value in layers"):
        ds = igb.simulate(relu, width=50, depth=3, inputs=x[2:])
    assert bool(np.isnan(ds["c"]).all())
    assert bool(np.isfinite(ds["gamma"]).all())


# --- networks together


def labelled_by(ens, labels, **arguments):
    kwargs = {"width": 40, "depth": 4, "inputs": 12, "networks": 12, "gradients": "cross_entropy", "classes": 3}
    return igb.simulate(ens, **kwargs, labels=labels, **arguments)


def test_networks_without_inputs_of_the_favoured_class_are_left_out(tanh_edge):
    ds = labelled_by(tanh_edge, [0] * 6 + [1] * 6)
    with_some = np.flatnonzero(ds["favoured"] < 2)
    assert 2 < len(with_some) < 12
    expected = np.log(ds["gradient_class"].values[with_some, :, ds["favoured"].values[with_some]])
    mean = igb.network_mean(ds)
    np.testing.assert_allclose(mean["log_gradient_favoured"], expected.mean(axis=0), rtol=1e-12)
    error = expected.std(axis=0, ddof=1) / np.sqrt(len(with_some))
    np.testing.assert_allclose(mean["log_gradient_favoured_se"], error, rtol=1e-12)
    alone = igb.network_mean(ds.isel(network=ds["favoured"].values == 2))
    assert bool(np.isnan(alone["log_gradient_favoured"]).all())
    assert bool(np.isfinite(alone["log_gradient_others"]).all())


def test_the_logarithm_of_a_vanished_gradient(tanh_edge):
    ds = labelled_by(tanh_edge, [0, 1, 2] * 4)
    ds["gradient_class"][3, 1] = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean = igb.network_mean(ds)
    for name in ("log_gradient_favoured", "log_gradient_others"):
        assert mean[name][1] == -np.inf
        assert np.isfinite(mean[name].values[[0, 2, 3]]).all()
        assert np.isnan(mean[f"{name}_se"].values).tolist() == [False, True, False, False]


# --- progress and Ctrl-C


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(monkeypatch, stream, progress, steps=(0.1, 0.5)):
    """What is written by a call that lasts for these steps, in seconds after its start."""
    clock = iter([100.0, *(100.0 + step for step in steps)])
    monkeypatch.setattr(_progress.time, "monotonic", lambda: next(clock, 200.0))
    monkeypatch.setattr(sys, "stderr", stream)
    with _progress.progress_bar("simulate", progress) as step:
        for _ in steps:
            step(0.5)
    return stream.getvalue()


def test_no_progress_bar_unless_a_terminal_looks(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    assert shown(monkeypatch, io.StringIO(), None, (1.0, 2.0)) == ""
    assert shown(monkeypatch, Terminal(), False, (1.0, 2.0)) == ""
    assert shown(monkeypatch, Terminal(), None, (0.1, 0.4)) == ""
    assert "50%" in shown(monkeypatch, Terminal(), None, (0.1, 0.6))
    assert "50%" in shown(monkeypatch, io.StringIO(), True, (0.1, 0.2))


def test_the_terminal_is_left_clean(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)

    def interrupted():
        with _progress.progress_bar("simulate", True) as step:
            step(0.3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    text = stream.getvalue()
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor is hidden and shown again
    assert text.endswith("\x1b[2K")  # the line is erased


def test_progress_is_a_fraction_that_grows(tanh_edge, monkeypatch):
    fractions = []
    real = _core.simulate

    def watched(*, callback, **arguments):
        return real(callback=lambda fraction: (fractions.append(fraction), callback(fraction)), **arguments)

    monkeypatch.setattr(_core, "simulate", watched)
    igb.simulate(tanh_edge, width=2000, depth=30, inputs=20, networks=1, method="direct")
    assert fractions == sorted(fractions)
    assert all(0.0 <= fraction <= 1.0 for fraction in fractions)


@pytest.mark.skipif(os.name != "posix", reason="sends a POSIX signal")
@pytest.mark.parametrize("method", ["gram", "direct"])
def test_ctrl_c_stops_a_run_that_would_last_for_hours(tanh_edge, method):
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        igb.simulate(tanh_edge, width=100_000, depth=10_000, inputs=100, method=method)
    timer.join()


def test_other_threads_run_meanwhile(tanh_edge):
    done, ticks = threading.Event(), 0

    def work():
        igb.simulate(tanh_edge, width=3000, depth=20, inputs=100, method="direct")
        done.set()

    worker = threading.Thread(target=work)
    worker.start()
    while not done.is_set() and ticks < 3:
        ticks += 1
        time.sleep(0.001)
    assert ticks == 3  # with the interpreter's lock held, the first tick would have waited for the end
    worker.join()


def test_concurrent_calls_do_not_disturb_each_other(tanh_edge):
    expected = [igb.simulate(tanh_edge, **SMALL, seed=seed) for seed in range(4)]
    got = [None] * 4

    def work(seed):
        got[seed] = igb.simulate(tanh_edge, **SMALL, seed=seed)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for one, other in zip(got, expected, strict=True):
        xr.testing.assert_identical(one, other)
