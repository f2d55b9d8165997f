"""validate: that it passes what is right, fails what is wrong, abstains where it cannot know, and shows its grounds.

Its z is held against Student's t: for correct theory and simulation it must have that law, whatever the width.
"""

import re
import sys

import numpy as np
import pytest
import scipy.stats
import xarray as xr

import igbfast as igb
from igbfast import _tables, meanfield, plot, validation

SMALL = {"width": 300, "depth": 6, "inputs": 20}
JUDGED = ("sigma_mu2", "sigma_y2", "gamma", "c")


@pytest.fixture(scope="module")
def relu() -> igb.Validation:
    return igb.validate(igb.Ensemble("relu", 2.0), **SMALL)


# --- the verdict


@pytest.mark.parametrize(
    ("activation", "sigma_w2", "sigma_b2"),
    [
        ("tanh", 1.76, 0.05),  # edge of chaos
        ("tanh", 2.5, 0.05),  # chaotic
        ("tanh", 0.9, 0.05),  # ordered
        ("tanh", 1.5, 0.0),  # sigma_mu2 = gamma = c = 0 in every layer
        ("relu", 2.0, 0.0),
        ("relu", 1.5, 0.1),
        ("leaky_relu(0.2)", 1.9, 0.1),
        ("erf", 1.5, 0.1),
        ("linear", 1.0, 0.1),
    ],
)
@pytest.mark.parametrize("method", ["gram", "direct"])
def test_right_theory_passes(activation, sigma_w2, sigma_b2, method):
    result = igb.validate(igb.Ensemble(activation, sigma_w2, sigma_b2), width=200, depth=10, inputs=20, method=method)
    assert result.passed, result.summary()
    assert result.verdict == result.dataset.attrs["verdict"] == "passed"
    assert abs(result.worst[2]) <= 5.0
    assert result.sentence.startswith("Passed: theory and simulation agree in all 10 layers")


@pytest.mark.parametrize("factor", [0.5, 1.05, 2.0, 100.0])
@pytest.mark.parametrize("name", JUDGED)
def test_wrong_theory_fails(tanh_edge, monkeypatch, name, factor):
    right = meanfield.propagate

    def wrong(ens, depth, **kwargs):
        theory = right(ens, depth, **kwargs)
        return theory.assign({name: theory[name] * np.where(theory["layer"] == 4, factor, 1.0)})

    monkeypatch.setattr(meanfield, "propagate", wrong)
    # Wide enough that 5 % are more than 5 standard errors; a few seconds at most.
    result = igb.validate(tanh_edge, width=4000, depth=5, inputs=50, networks=32)
    assert result.verdict == "failed"
    assert result.worst[:2] == (name, 4)
    assert result.sentence.startswith(f"Failed: simulation departs from theory; largest |z| {abs(result.worst[2]):.1f}")


def test_too_few_networks_give_no_verdict(tanh_edge):
    result = igb.validate(tanh_edge, **SMALL, networks=4)
    assert result.verdict == "undecided"
    assert not result.passed
    assert result.sentence.startswith("No verdict: it takes at least 16 networks, got 4")


def test_lost_digits_give_no_verdict():
    ens = igb.Ensemble("tanh", sigma_w2=0.05, sigma_b2=0.05)  # so ordered that float32 soon has no differences left
    with pytest.warns(RuntimeWarning, match=r"overflowed or lost all digits in layers \d+ to 60 of 60") as caught:
        result = igb.validate(ens, width=100, depth=60, inputs=5, dtype="float32")
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert result.verdict == "undecided"
    assert re.search(r"No verdict: no finite numbers to compare in layers \d+ to 60 of 60", result.sentence)
    assert "nan" in result.summary()


# --- the statistics


@pytest.fixture
def one_thread():
    """Small networks are not worth a second one, and results do not depend on it."""
    before = igb.get_num_threads()
    igb.set_num_threads(1)
    yield
    igb.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_z_has_students_law(tanh_edge):
    """Over 80 seeds, z of three layers and two quantities, each by Kolmogorov-Smirnov; false alarm of one: 1e-3."""
    names, layers, seeds = ("sigma_y2", "gamma"), (1, 3, 6), range(80)
    runs = [igb.validate(tanh_edge, width=400, depth=6, inputs=10, seed=seed).dataset for seed in seeds]
    z = np.array([[run[f"{name}_z"].sel(layer=list(layers)) for name in names] for run in runs])
    # A fifth of the variance is that of the expected effect of the width, with many more networks.
    law = scipy.stats.t(df=18)
    for i in range(len(names)):
        for j in range(len(layers)):
            assert scipy.stats.kstest(z[:, i, j], law.cdf).pvalue > 1e-3 / 6, (names[i], layers[j])


def test_effect_of_the_width_is_expected_where_it_is_large(relu_critical):
    """ReLU: the inputs' norms drift apart by O(1/width), which adds to sigma_y2 a constant where theory has 1/l^2."""
    ds = igb.validate(relu_critical, width=400, depth=40, inputs=20, networks=64).dataset.sel(layer=40)
    assert ds["gamma_theory"] - ds["gamma"] > 8 * ds["gamma_se"]  # theory alone is refuted
    assert abs(ds["gamma_z"]) < 5
    assert ds["gamma_shift"] < -8 * ds["gamma_se"]
    assert ds["sigma_y2_shift"] > 0


def test_effect_of_the_width_is_inverse_to_it(relu_critical):
    shift = [
        igb.validate(relu_critical, width=width, depth=20, inputs=20, networks=32).dataset.sel(layer=20)
        for width in (400, 1600)
    ]
    ratio = shift[0]["sigma_y2_shift"] / shift[1]["sigma_y2_shift"]
    relative = [ds["sigma_y2_shift_se"] / ds["sigma_y2_shift"] for ds in shift]
    assert abs(ratio - 4.0) < 5 * 4.0 * np.hypot(*relative)


def test_dataset_is_consistent(relu):
    ds = relu.dataset
    for name in ("sigma_mu2", "sigma_y2", "gamma", "q", "c", "chi"):
        for suffix in ("", "_theory", "_se", "_shift", "_shift_se", "_z"):
            assert ds[name + suffix].dims == ("layer",)
            assert ds[name + suffix].attrs["long_name"]
        np.testing.assert_array_equal(ds[f"{name}_theory"], igb.propagate(relu.ens, 6)[name])
    # z on the scale of comparison; plain where theory has zero
    first = ds.sel(layer=1)
    difference = first["sigma_mu2"] - first["sigma_mu2_theory"] - first["sigma_mu2_shift"]
    np.testing.assert_allclose(
        first["sigma_mu2_z"], difference / np.hypot(first["sigma_mu2_se"], first["sigma_mu2_shift_se"]), rtol=1e-4
    )
    mean = igb.network_mean(relu.simulation)
    np.testing.assert_allclose(ds["c"], mean["c"])
    np.testing.assert_allclose(ds["gamma"][1:], np.exp(mean["log_gamma"][1:]))
    np.testing.assert_allclose(ds["sigma_mu2"][0], mean["sigma_mu2"][0])
    assert ds.attrs["narrow_widths"] == [75, 30]


def test_same_seed_same_result(tanh_edge):
    one, same, other = (igb.validate(tanh_edge, **SMALL, seed=seed).dataset for seed in (3, 3, 4))
    xr.testing.assert_identical(one, same)
    assert not np.array_equal(one["gamma"], other["gamma"])


# --- bad arguments


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"width": 99}, ValueError, "width must be an integer from 100 to 2147483648, got 99"),
        ({"width": 0}, ValueError, "width must be an integer from 100 to 2147483648, got 0"),
        ({"networks": 1}, ValueError, "networks must be an integer from 2 to 100000000, got 1"),
        ({"depth": 0}, ValueError, "depth must be an integer"),
        ({"inputs": np.ones((5, 4))}, TypeError, r"inputs must be a number here, .* got an array of shape \(5, 4\)"),
        ({"seed": -1}, ValueError, "seed must be an integer"),
        ({"dtype": "int8"}, ValueError, "dtype must be one of 'float32', 'float64', got 'int8'"),
        ({"method": "best"}, ValueError, "method must be one of 'auto', 'direct', 'gram', got 'best'"),
    ],
)
def test_bad_arguments(tanh_edge, arguments, error, message):
    with pytest.raises(error, match=message):
        igb.validate(tanh_edge, **(SMALL | arguments))


# --- what it shows


def test_summary(relu):
    text = relu.summary()
    lines = text.splitlines()
    assert lines[0] == "relu, sigma_w2 = 2, sigma_b2 = 0: theory against simulation"
    assert lines[1].startswith("16 networks of width 300, depth 6, 20 inputs (gram, float32)")
    assert [line.split()[0] for line in lines if line.strip()[:1].isdigit()][1:] == ["1", "2", "5", "6"] * 2
    assert all(name in text for name in JUDGED)
    assert "0.63662" in text  # sigma_mu2 in layer 2: sigma_w2 (E relu)^2 = 2 / pi
    assert lines[-1] == relu.sentence
    assert str(relu) == text
    assert max(map(len, lines)) <= 104
    assert max(map(len, relu.summary(width=72).splitlines())) <= 72
    assert "..." not in relu.summary(width=72)
    assert "…" not in relu.summary(width=72)


def test_summary_refuses_too_few_columns(relu):
    with pytest.raises(ValueError, match="width must be an integer of at least 72, got 40"):
        relu.summary(40)


def test_repr_says_it_in_one_line(relu):
    assert repr(relu).startswith("<Validation of Ensemble('relu', sigma_w2=2.0, sigma_b2=0.0): width=300, depth=6, ")
    assert "passed, largest |z|" in repr(relu)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.724131, 0.000423, "0.72413 ± 0.00042"),
        (7.1e29, 8.5e28, "(7.10 ± 0.85)e29"),
        (-1.3e-5, 2.1e-4, "(-0.1 ± 2.1)e-4"),
        (12345.0, 67.0, "12345 ± 67"),
        (0.0, 0.0, "0 ± 0"),
        (float("nan"), 1.0, "nan"),
        (2.5, float("nan"), "2.5000"),
    ],
)
def test_numbers_with_errors(value, error, text):
    assert _tables.with_error(value, error) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.76, "1.7600"),
        (123456.7, "1.235e5"),
        (3.2e-7, "3.200e-7"),
        (1e300, "1.000e300"),
        (-0.05, "-0.050000"),
    ],
)
def test_numbers(value, text):
    assert _tables.number(value) == text


@pytest.mark.parametrize(
    ("depth", "layers"), [(1, [1]), (3, [1, 2, 3]), (10, [1, 2, 5, 10]), (130, [1, 2, 5, 10, 20, 50, 100, 130])]
)
def test_layers_in_the_table(depth, layers):
    assert _tables.shown_layers(depth) == layers


# --- files


def test_saves_and_loads_back_whole(relu, tmp_path):
    relu.to_netcdf(tmp_path / "v.nc")
    xr.testing.assert_identical(xr.load_dataset(tmp_path / "v.nc", engine="h5netcdf"), relu.dataset)
    assert [path.name for path in tmp_path.iterdir()] == ["v.nc"]


def test_a_path_that_cannot_be_written(relu, tmp_path):
    with pytest.raises(ValueError, match=r"path must end in .nc, got .*v.txt"):
        relu.to_netcdf(tmp_path / "v.txt")
    with pytest.raises(FileNotFoundError, match="path cannot be written: there is no folder"):
        relu.to_netcdf(tmp_path / "none" / "v.nc")
    (tmp_path / "v.nc").mkdir()
    with pytest.raises(IsADirectoryError, match=r"path cannot be written: .*v.nc' is a folder"):
        relu.to_netcdf(tmp_path / "v.nc")


def test_an_earlier_file_survives_a_failure(relu, tmp_path, monkeypatch):
    target = tmp_path / "v.nc"
    target.write_text("earlier")

    def fail(self, path, **_):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(xr.Dataset, "to_netcdf", fail)
    with pytest.raises(OSError, match=r"could not write .*v.nc': No space left on device; nothing was left behind"):
        relu.to_netcdf(target)
    assert target.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [target]


# --- the figure


def test_figure_shows_theory_and_simulation(relu, tmp_path):
    plt = pytest.importorskip("matplotlib.pyplot")
    figure = plot.validations(relu, relu)
    axes = np.array(figure.axes).reshape(3, 2)
    theory = [line.get_ydata() for line in axes[1, 0].lines]
    assert any(np.array_equal(y, relu.dataset["gamma_theory"]) for y in theory)
    points = axes[1, 0].containers[0].lines[0].get_xydata()
    np.testing.assert_array_equal(points[:, 1], relu.dataset["gamma"].sel(layer=points[:, 0].astype(int)))
    assert "relu" in axes[0, 0].get_title()
    assert axes[2, 1].get_xlabel() == "layer"
    figure.savefig(tmp_path / "f.pdf")
    assert (tmp_path / "f.pdf").read_bytes().startswith(b"%PDF")
    plt.close(figure)


@pytest.mark.parametrize("depth", [1, 2])
def test_figure_of_few_layers(depth):
    plt = pytest.importorskip("matplotlib.pyplot")
    figure = igb.validate(igb.Ensemble("tanh", 1.0), width=100, depth=depth, inputs=5).plot()
    figure.canvas.draw()
    for axes in figure.axes:
        low, high = axes.get_ylim()
        assert low < high < float("inf")
        assert axes.lines, axes.get_ylabel()
    plt.close(figure)


def test_figure_refuses_other_things():
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    with pytest.raises(ValueError, match="results must be at least one Validation, got none"):
        plot.draw_validations(Figure(), [])
    with pytest.raises(TypeError, match="results must be Validation objects, got 3"):
        plot.draw_validations(Figure(), [3])


def test_without_matplotlib(relu, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"figures need matplotlib, .*: pip install 'igbfast\[plot\]'"):
        relu.plot()


def test_limit_is_what_the_documentation_says():
    assert (validation.LIMIT, validation.VERDICT_NETWORKS) == (5.0, 16)
