"""What figures show: the numbers they were given, with names on the axes, and nothing that needs colours to be told."""

import itertools

import numpy as np
import pytest
import xarray as xr

import igbfast as igb

plt = pytest.importorskip("matplotlib.pyplot")
import igbfast.plot


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


# --- gradients


@pytest.fixture(scope="module")
def backward():
    """Networks that went backward, of two classes that get unequal shares."""
    ens = igb.Ensemble("tanh", 2.5, 0.05)
    arguments = {"width": 60, "depth": 8, "inputs": 20, "networks": 5, "classes": 2, "distributions": True}
    return ens, igb.simulate(ens, gradients="cross_entropy", **arguments)


def line_labelled(ax, label):
    return next(line for line in ax.lines if label in str(line.get_label()))


def test_gradients_show_medians_and_theory(backward):
    ens, ds = backward
    ax = igb.plot.gradients(ds, ens=ens)
    points = line_labelled(ax, "simulation")
    np.testing.assert_array_equal(points.get_xdata(), ds.layer)
    np.testing.assert_allclose(points.get_ydata(), 60 * ds.gradient.median("network"), rtol=1e-12)
    theory = line_labelled(ax, "theory").get_ydata()
    chi = igb.propagate(ens, 8).chi.values
    np.testing.assert_allclose(theory[:-1] / theory[1:], chi[:-1], rtol=1e-12)
    np.testing.assert_allclose(theory, points.get_ydata(), rtol=0.7)
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(float(60 * ds.gradient.quantile(0.05, "network").min()))
    assert ax.get_yscale() == "log"
    assert "90 % of the networks" in texts(ax)
    ax.figure.canvas.draw()


def test_gradients_without_an_ensemble_follow_the_measured_chi(backward):
    _, ds = backward
    ax = igb.plot.gradients(ds)
    line, points = line_labelled(ax, "measured").get_ydata(), line_labelled(ax, "simulation").get_ydata()
    np.testing.assert_allclose(line[:-1] / line[1:], ds.chi.mean("network")[:-1], rtol=1e-12)
    assert line[-1] == pytest.approx(points[-1])


def test_gradients_of_one_network_show_its_inputs(backward):
    _, ds = backward
    ax = igb.plot.gradients(ds.isel(network=[2]))
    np.testing.assert_allclose(line_labelled(ax, "simulation").get_ydata(), 60 * ds.gradient[2], rtol=1e-12)
    assert "90 % of the inputs" in texts(ax)


def test_gradients_by_class_tell_the_favoured_from_the_others(backward):
    _, ds = backward
    ax = igb.plot.gradients_by_class(ds)
    by_class, favoured = 60 * ds.gradient_class.values, ds.favoured.values
    network = np.arange(5)
    for label, column in (("favoured", favoured), ("others", 1 - favoured)):
        expected = np.median(by_class[network, :, column], axis=0)
        np.testing.assert_allclose(line_labelled(ax, label).get_ydata(), expected, rtol=1e-12)
    assert len({line.get_marker() for line in ax.lines}) == 3  # two kinds of points, and lines
    ax.figure.canvas.draw()


@pytest.mark.parametrize("left", [1e-200, 0.0])
def test_gradients_that_vanish_leave_the_others_visible(backward, left):
    _, ds = backward
    vanishing = ds.copy(deep=True)
    vanishing["gradient_class"] = ds.gradient_class * xr.where(ds["class"] == ds.favoured, left, 1.0)
    ax = igb.plot.gradients_by_class(vanishing)
    ax.figure.canvas.draw()
    low, high = ax.get_ylim()
    assert high / low < 1e22
    others = line_labelled(ax, "others").get_ydata()
    assert ((low < others) & (others < high)).all()
    assert line_labelled(ax, "below").get_xdata().tolist() == ds.layer.values.tolist()


def test_gradients_that_are_decades_smaller_are_in_sight(backward):
    _, ds = backward
    small = ds.assign(gradient_class=ds.gradient_class * xr.where(ds["class"] == ds.favoured, 1e-50, 1.0))
    ax = igb.plot.gradients_by_class(small)
    low, high = ax.get_ylim()
    for label in ("favoured", "others"):
        points = line_labelled(ax, label).get_ydata()
        assert ((low < points) & (points < high)).all()
    assert not any("below" in str(line.get_label()) for line in ax.lines)


def test_gradients_by_class_without_a_label_of_the_favoured_one(backward):
    _, ds = backward
    ax = igb.plot.gradients_by_class(ds.assign(gradient_class=ds.gradient_class.where(ds["class"] != ds.favoured)))
    assert np.isnan(line_labelled(ax, "favoured").get_ydata()).all()
    ax.figure.canvas.draw()


# --- distributions


def test_distributions_show_quantiles_and_theory(backward):
    ens, ds = backward
    figure = igb.plot.distributions(ds, ens=ens)
    theory = igb.propagate(ens, 8)
    for ax, name in zip(figure.axes, ("mu", "var", "q", "c"), strict=True):
        values = igb.distributions.quantiles(igb.distributions.merge(ds), name)
        np.testing.assert_array_equal(line_labelled(ax, "median").get_ydata(), values.sel(quantile=0.5))
        outer = ax.collections[0].get_paths()[0].vertices[:, 1]
        assert (outer.min(), outer.max()) == (values.sel(quantile=0.05).min(), values.sel(quantile=0.95).max())
        assert ax.get_ylabel()
    dashed = [[line.get_ydata() for line in ax.lines if line.get_label() == "theory"] for ax in figure.axes]
    assert [len(lines) for lines in dashed] == [2, 1, 1, 1]
    for lines, name in zip(dashed[1:], ("sigma_y2", "q", "c"), strict=True):
        np.testing.assert_array_equal(lines[0], theory[name])
    centre = (theory.sigma_mu2 + theory.sigma_y2 / 20) ** 0.5
    np.testing.assert_allclose(dashed[0][1], 1.6449 * centre, rtol=1e-4)
    figure.canvas.draw()


def test_merged_distributions_are_drawn_as_well(backward):
    _, ds = backward
    figure = igb.plot.distributions(igb.distributions.merge(ds, ds))
    assert not any(line.get_label() == "theory" for ax in figure.axes for line in ax.lines)


# --- effects of the width


@pytest.fixture(scope="module")
def departures():
    return igb.finite_width(igb.Ensemble("relu", 2.0), widths=[20, 60, 200], depth=3, inputs=10, networks=20)


def test_finite_width_shows_departures_and_their_law(departures):
    ax = igb.plot.finite_width(departures, layer=3, quantities=["log_q_variance", "sigma_y2"])
    at = departures.sel(layer=3)
    for name, word in (("log_q_variance", "var"), ("sigma_y2", "sigma_y")):
        law, found = line_labelled(ax, word), at.sel(quantity=name)
        np.testing.assert_allclose(law.get_ydata(), abs(float(found.coefficient)) / at.width, rtol=1e-12)
        assert f"{float(found.coefficient):.3g}" in law.get_label()
    variances = at.departure.sel(quantity="log_q_variance").values
    filled = ax.containers[0].lines[0].get_xydata()
    np.testing.assert_allclose(filled[:, 1], variances, rtol=1e-12)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert "layer 3" in ax.get_ylabel()
    ax.figure.canvas.draw()


def test_finite_width_tells_what_is_below_theory_and_what_is_not_told_from_zero(departures):
    made = departures.copy(deep=True)
    made["departure"].loc[{"quantity": "q", "layer": 1}] = [-0.1, 0.1, 0.001]
    made["departure_se"].loc[{"quantity": "q", "layer": 1}] = [0.01, 0.01, 0.01]
    made["coefficient"].loc[{"quantity": "q", "layer": 1}] = 2.0
    above, below, arrows = igb.plot.finite_width(made, layer=1, quantities=["q"]).containers
    assert above.lines[0].get_ydata() == [0.1]
    assert below.lines[0].get_ydata() == [0.1]
    assert below.lines[0].get_markerfacecolor() == "white"
    assert arrows.lines[2][0].get_segments()[0].max() >= 0.011


def test_finite_width_without_anything_measured(departures):
    ax = igb.plot.finite_width(departures, layer=1, quantities=["sigma_mu2"])  # whose theory is zero there
    assert not ax.containers
    ax.figure.canvas.draw()


# --- what cannot be drawn


@pytest.mark.parametrize(
    ("draw", "error", "message"),
    [
        (lambda ds, ens: igb.plot.gradients(3), TypeError, r"dataset must be what simulate\(.* returns, got 3"),
        (lambda ds, ens: igb.plot.gradients(igb.propagate(ens, 3)), ValueError, "got one that has no gradient"),
        (lambda ds, ens: igb.plot.gradients(ds, ens="tanh"), TypeError, "ens must be an Ensemble"),
        (
            lambda ds, ens: igb.plot.gradients(ds, ens=igb.Ensemble("tanh", 2.0, 0.05)),
            ValueError,
            "ens must be the ensemble of the dataset, which has sigma_w2=2.5, got Ensemble",
        ),
        (
            lambda ds, ens: igb.plot.gradients(ds.assign_attrs(input_data="given"), ens=ens),
            ValueError,
            "ens must be left out for given inputs",
        ),
        (lambda ds, ens: igb.plot.gradients_by_class(ds[["gradient"]]), ValueError, "has no gradient_class"),
        (lambda ds, ens: igb.plot.gradients(ds.isel(network=0)), ValueError, r"use dataset.isel\(network=\[0\]\)"),
        (lambda ds, ens: igb.plot.gradients_by_class(ds.isel(network=0)), ValueError, r"the dimension network"),
        (lambda ds, ens: igb.plot.distributions(ds[["gradient"]]), ValueError, "has no mu_counts"),
        (lambda ds, ens: igb.plot.finite_width(ds), ValueError, "has no departure"),
    ],
)
def test_refuses_what_it_cannot_draw(backward, draw, error, message):
    with pytest.raises(error, match=message):
        draw(backward[1], backward[0])


def test_finite_width_refuses(departures):
    with pytest.raises(ValueError, match="layer must be an integer from 1 to 3, got 4"):
        igb.plot.finite_width(departures, layer=4)
    with pytest.raises(ValueError, match="quantities must be one of .*, got 'gama'"):
        igb.plot.finite_width(departures, quantities=["gama"])


@pytest.mark.parametrize(
    "draw",
    [
        lambda: igb.plot.gradients(None),
        lambda: igb.plot.gradients_by_class(None),
        lambda: igb.plot.distributions(None),
        lambda: igb.plot.finite_width(None),
        lambda: igb.plot.phase_diagram(None),
        lambda: igb.plot.trajectories(igb.Ensemble("tanh", 1.0)),
        lambda: igb.plot.class_fractions(1.0),
    ],
)
def test_without_matplotlib(draw, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"figures need matplotlib, .*: pip install 'igbfast\[plot\]'"):
        draw()
