"""What figures show: the numbers they were given, with names on the axes, and nothing that needs colours to be told."""

import itertools

import numpy as np
import pytest
import xarray as xr

import igbfast as igb

plt = pytest.importorskip("matplotlib.pyplot")
import igbfast.plot  # noqa: E402


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def tanh():
    return igb.phase_diagram("tanh", np.linspace(0.1, 4.0, 40), np.linspace(0.0, 0.5, 30))


@pytest.fixture(scope="module")
def relu():
    return igb.phase_diagram("relu", np.linspace(0.5, 2.0, 16), np.linspace(0.1, 1.0, 5), pool=igb.MaxPool(2))


def texts(ax):
    legend = ax.get_legend()
    return [text.get_text().replace("\n", " ") for text in [*ax.texts, *(legend.get_texts() if legend else [])]]


def black_lines(ax):
    """Label -> line; the white ones under them only set them off."""
    return {line.get_label(): line for line in ax.lines if line.get_color() != "white"}


def hatches(ax):
    return {hatch for artist in ax.collections for hatch in getattr(artist, "hatches", [])}


# --- phase diagrams


def test_phase_diagram_draws_the_lines_of_the_dataset(tanh):
    ax = igb.plot.phase_diagram(tanh)
    lines = black_lines(ax)
    assert list(lines) == ["edge of chaos", r"neutrality line, $\gamma = 1$"]  # one edge, where both kinds coincide
    np.testing.assert_array_equal(lines["edge of chaos"].get_xdata(), tanh.sigma_b2)
    np.testing.assert_array_equal(lines["edge of chaos"].get_ydata(), tanh.edge_of_chaos)
    np.testing.assert_array_equal(lines[r"neutrality line, $\gamma = 1$"].get_ydata(), tanh.neutrality_line)
    assert len({line.get_linestyle() for line in lines.values()}) == 2
    assert (ax.get_xlim(), ax.get_ylim()) == ((0.0, 0.5), (0.1, 4.0))
    assert ax.get_title() == "tanh"
    assert (r"\sigma_b^2" in ax.get_xlabel(), r"\sigma_w^2" in ax.get_ylabel()) == (True, True)


def test_phase_diagram_names_its_regions_where_they_are(tanh):
    ax = igb.plot.phase_diagram(tanh)
    named = {text.get_text().replace("\n", " "): text.xy for text in ax.texts}
    assert set(named) == {"ordered, persistent deep prejudice", "prejudice", "neutrality"}
    for name, (sigma_b2, sigma_w2) in named.items():
        at = tanh.sel(sigma_b2=sigma_b2, sigma_w2=sigma_w2)
        assert igb.phases.PHASES[int(at.phase)] == name


def test_regions_differ_in_print(tanh):
    """By hatches: three phases, three of them."""
    assert len(hatches(igb.plot.phase_diagram(tanh))) >= 3


def test_every_phase_can_be_drawn():
    codes = np.arange(len(igb.phases.PHASES)).reshape(-1, 1) * np.ones((1, 4), int)
    w, b = np.linspace(1.0, 2.0, codes.shape[0]), np.linspace(0.0, 1.0, 4)
    strips = xr.Dataset(
        {"phase": (("sigma_w2", "sigma_b2"), codes)}, {"sigma_w2": w, "sigma_b2": b}, {"activation": "?"}
    )
    assert set(texts(igb.plot.phase_diagram(strips))) == set(igb.phases.PHASES)


def test_both_edges_are_drawn_where_they_differ(relu):
    ax = igb.plot.phase_diagram(relu)
    lines = black_lines(ax)
    assert list(lines) == ["edge of chaos", "edge of stable variance"]
    np.testing.assert_allclose(lines["edge of chaos"].get_ydata(), 4 / 3, rtol=1e-12)
    np.testing.assert_allclose(lines["edge of stable variance"].get_ydata(), 4 * np.pi / (3 * np.pi + 2), rtol=1e-12)
    assert {"chaotic deep prejudice", "ordered, persistent deep prejudice"} <= set(texts(ax))
    assert ax.get_title() == "relu, MaxPool(2)"


@pytest.mark.parametrize("heat", igb.plot.HEATS)
def test_heat(tanh, heat):
    ax = igb.plot.phase_diagram(tanh, heat=heat)
    (mesh,) = [artist for artist in ax.collections if artist.get_array() is not None and artist.get_array().size > 100]
    shown = np.ma.asarray(mesh.get_array()).reshape(tanh[heat].shape)
    kept = ~np.ma.getmaskarray(shown)
    np.testing.assert_array_equal(shown.data[kept], tanh[heat].values[kept])
    assert kept.mean() > 0.3
    assert np.isfinite(shown.data[kept]).all()
    bar = ax.figure.axes[-1]
    assert bar is not ax
    assert bar.get_ylabel()
    ax.figure.canvas.draw()


def test_a_phase_without_room_goes_to_the_legend(tanh):
    thin = tanh.copy(deep=True)
    thin["phase"][:] = igb.phases.PHASES.index("neutrality")
    thin["phase"][20, :] = igb.phases.PHASES.index("no limit")
    ax = igb.plot.phase_diagram(thin)
    assert [text.get_text() for text in ax.texts] == ["neutrality"]
    assert "no limit" in texts(ax)


def test_logarithmic_grids_get_logarithmic_axes():
    diagram = igb.phase_diagram("erf", np.geomspace(0.1, 10.0, 12), np.geomspace(1e-3, 1.0, 10))
    ax = igb.plot.phase_diagram(diagram)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")


def test_phase_diagram_on_given_axes_and_in_a_file(relu, tmp_path):
    figure, axes = plt.subplots(1, 2)
    assert igb.plot.phase_diagram(relu, ax=axes[1]) is axes[1]
    assert not axes[0].lines
    figure.savefig(tmp_path / "f.pdf")
    assert (tmp_path / "f.pdf").read_bytes().startswith(b"%PDF")


def test_a_saved_diagram_is_drawn_as_well(tanh, tmp_path):
    tanh.to_netcdf(tmp_path / "d.nc", engine="h5netcdf")
    ax = igb.plot.phase_diagram(xr.load_dataset(tmp_path / "d.nc", engine="h5netcdf"))
    assert "prejudice" in texts(ax)


def test_a_single_column_is_drawn():
    diagram = igb.phase_diagram("tanh", np.linspace(0.5, 3.0, 10), [0.1])
    ax = igb.plot.phase_diagram(diagram)
    ax.figure.canvas.draw()
    assert any("prejudice" in text for text in texts(ax))


def test_phase_diagram_refuses_other_things(tanh):
    with pytest.raises(TypeError, match="dataset must be what phase_diagram returns, got 3"):
        igb.plot.phase_diagram(3)
    with pytest.raises(TypeError, match="dataset must be what phase_diagram returns"):
        igb.plot.phase_diagram(igb.propagate(igb.Ensemble("tanh", 1.0), 3))
    with pytest.raises(ValueError, match="heat must be one of 'gamma', .*, got 'gama'; did you mean 'gamma'"):
        igb.plot.phase_diagram(tanh, heat="gama")


# --- trajectories


def test_trajectories_show_theory_and_simulation():
    ens, other = igb.Ensemble("tanh", 2.5, 0.05), igb.Ensemble("relu", 2.0)
    measured = igb.simulate(ens, width=100, depth=8, inputs=20, networks=3)
    figure = igb.plot.trajectories([ens, other, measured], depth=8, labels=["a", "b", "c"])
    figure.canvas.draw()
    axes = dict(zip(("gamma", "c", "q", "chi"), figure.axes, strict=True))
    for name, ax in axes.items():
        for at, network in enumerate((ens, other)):
            np.testing.assert_array_equal(ax.lines[at].get_ydata(), igb.propagate(network, 8)[name])
        assert ax.get_ylabel()
    points = axes["gamma"].containers[0].lines[0].get_xydata()
    mean = igb.network_mean(measured)["gamma"].sel(layer=points[:, 0].astype(int))
    np.testing.assert_array_equal(points[:, 1], mean)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "c"]
    assert axes["gamma"].get_yscale() == "log"
    styles = [(line.get_linestyle(), line.get_color()) for line in axes["c"].lines[:2]]
    assert styles[0][0] != styles[1][0]
    assert styles[0][1] != styles[1][1]


@pytest.mark.parametrize("depth", [1, 400])
def test_trajectories_of_one_network(depth):
    """gamma may be 0 (one layer, no biases) and may grow to 1e50."""
    figure = igb.plot.trajectories(igb.Ensemble("tanh", 0.9, 0.05 if depth > 1 else 0.0), depth=depth)
    figure.canvas.draw()
    for ax in figure.axes:
        low, high = ax.get_ylim()
        assert low < high < np.inf


def test_one_simulated_network_is_drawn():
    measured = igb.simulate(igb.Ensemble("tanh", 2.0, 0.1), width=50, depth=4, inputs=10)
    assert igb.plot.trajectories(measured).axes[0].containers


@pytest.mark.parametrize(
    ("networks", "error", "message"),
    [
        ([], ValueError, "networks must be at least one ensemble or dataset, got none"),
        (3, TypeError, "networks must be ensembles or datasets over layers, got 3"),
        ("tanh", TypeError, "networks must be ensembles or datasets over layers, got 'tanh'"),
        ([igb.Ensemble("tanh", 1.0), 3], TypeError, "got 3"),
        (xr.Dataset(), TypeError, "networks must be ensembles or datasets over layers"),
    ],
)
def test_trajectories_refuse_other_things(networks, error, message):
    with pytest.raises(error, match=message):
        igb.plot.trajectories(networks)


def test_trajectories_need_a_label_each():
    with pytest.raises(ValueError, match="labels must be as many as networks, got 1 for 2"):
        igb.plot.trajectories([igb.Ensemble("tanh", 1.0)] * 2, labels=["a"])


# --- class fractions


def test_class_fractions_of_two_classes():
    gammas = [0.2, 1.0, 5.0]
    ax = igb.plot.class_fractions(gammas)
    assert texts(ax) == [rf"$\gamma = {gamma:g}$" for gamma in gammas]
    for gamma, line in zip(gammas, ax.lines, strict=True):
        share, density = line.get_data()
        np.testing.assert_array_equal(density, igb.guessing.pdf(share, gamma))
        if gamma <= 1.0:
            assert density.mean() == pytest.approx(1.0, abs=3e-3)
    assert ax.get_ylim()[1] > 2.0
    assert len({str(line._dash_pattern) for line in ax.lines}) == 3


def test_class_fractions_of_more_classes():
    """A histogram of mass 1 whose mean is that of one class out of ten."""
    ax = igb.plot.class_fractions([0.1, 3.0], classes=10, networks=2000)
    assert "10 classes" in ax.get_xlabel()
    for patch in ax.patches:
        density, edges, _ = patch.get_data()
        mass = density * np.diff(edges)
        assert mass.sum() == pytest.approx(1.0)
        assert mass @ np.mean(list(itertools.pairwise(edges)), axis=1) == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(("gamma", "places"), [(0.0, [0.25]), (np.inf, [0.0, 1.0])])
def test_laws_without_a_density_are_lines_where_their_mass_is(gamma, places):
    ax = igb.plot.class_fractions(gamma, classes=4)
    segments = ax.collections[0].get_segments()
    assert [segment[0, 0] for segment in segments] == places
    ax.figure.canvas.draw()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"gamma": -1.0}, ValueError, "gamma must be from 0 to inf, got -1.0"),
        (
            {"gamma": [[1.0]]},
            ValueError,
            r"gamma must be a number or a list of numbers, got an array of shape \(1, 1\)",
        ),
        ({"gamma": []}, ValueError, "gamma must be a number or a list of numbers"),
        ({"gamma": "1"}, TypeError, "gamma must be real numbers"),
        ({"gamma": 1.0, "classes": 1}, ValueError, "classes must be an integer from 2"),
        ({"gamma": 0.0, "classes": 2.0}, TypeError, "classes must be an integer from 2"),
    ],
)
def test_class_fractions_refuse(arguments, error, message):
    with pytest.raises(error, match=message):
        igb.plot.class_fractions(**arguments)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: igb.plot.phase_diagram(None),
        lambda: igb.plot.trajectories(igb.Ensemble("tanh", 1.0)),
        lambda: igb.plot.class_fractions(1.0),
    ],
)
def test_without_matplotlib(draw, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"figures need matplotlib, .*: pip install 'igbfast\[plot\]'"):
        draw()
