"""Experiments of small size: what they measure held against autograd by hand, closed forms and plain simulation."""

import inspect

import numpy as np
import pytest
import xarray as xr

import igbfast as igb

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from igbfast.torch import MLP, data, train
from igbfast.torch import plot as torch_plot
from igbfast.torch.experiments import (
    EXPERIMENTS,
    class_gradients,
    gradients,
    normalisation,
    scaled,
    short_runs,
    training,
)
from igbfast.torch.experiments._experiment import measured
from igbfast.torch.experiments._signals import signals
from igbfast.torch.experiments._starts import PHASES, prepared, starts

TINY = {
    "training": {"width": 12, "depth": 3, "steps": 4, "learning_rates": (0.01, 0.1), "seeds": 2},
    "gradients": {
        "sigma_w2": (1.0, 3.0),
        "width": 20,
        "depth": 4,
        "channels": 4,
        "layers": 3,
        "token": 8,
        "blocks": 2,
        "inputs": 4,
        "seeds": 2,
    },
    "class_gradients": {"sigma_w2": (2.0, 3.0), "width": 20, "depth": 4, "inputs": 60, "seeds": 2},
    "scaled": {"width": 12, "depth": 3, "first_steps": 3, "steps": 4, "seeds": 2},
    "normalisation": {"sigma_w2": (1.0, 3.0), "width": 20, "depth": 4, "inputs": 8, "seeds": 2},
    "short_runs": {"width": 12, "depth": 3, "steps": 4, "seeds": 2},
}


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt = __import__("sys").modules.get("matplotlib.pyplot")
    if plt is not None:
        plt.close("all")


@pytest.fixture(scope="module")
def results():
    """Each is run once."""
    return {name: EXPERIMENTS[name].run(**TINY[name], progress=False) for name in EXPERIMENTS}


# --- all of them


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_results_go_through_a_file_to_figure_and_verdict(results, name, tmp_path):
    pytest.importorskip("matplotlib")
    experiment, ds = EXPERIMENTS[name], results[name]
    ds.to_netcdf(tmp_path / "r.nc", engine="h5netcdf")
    read = xr.load_dataset(tmp_path / "r.nc", engine="h5netcdf")
    assert experiment.verdict(read) == experiment.verdict(ds)
    figure = experiment.figure(read)
    figure.canvas.draw()
    assert all(ax.get_xlabel() for ax in figure.axes)
    with pytest.raises(TypeError, match=rf"dataset must be what experiments.{name}.run returns, got 3"):
        experiment.figure(3)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_settings_are_kept_and_documented(results, name):
    experiment = EXPERIMENTS[name]
    assert set(experiment.paper) <= set(experiment.defaults)
    assert set(experiment.defaults) <= set(results[name].attrs)
    assert results[name].attrs["seeds"] == 2
    assert "progress" not in experiment.defaults
    for option in inspect.signature(experiment.run).parameters:
        assert option in experiment.run.__doc__
    assert len(experiment.help.splitlines()) == 1


@pytest.mark.parametrize("name", ["training", "scaled", "gradients"])
def test_the_same_seed_gives_the_same_result_and_another_another(results, name):
    again = EXPERIMENTS[name].run(**TINY[name], progress=False)
    xr.testing.assert_identical(again, results[name])
    other = EXPERIMENTS[name].run(**TINY[name] | {"seeds": 1, "seed": 1}, progress=False)
    variable = next(v for v in ("test_loss", "ratio") if v in other)
    np.testing.assert_array_equal(other[variable].isel(seed=0), results[name][variable].sel(seed=1))
    assert (other[variable].isel(seed=0) != results[name][variable].sel(seed=0)).any()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("training", {"activation": "relu"}, "activation must have an edge of chaos and a neutrality line above it"),
        ("training", {"sigma_b2": 0.0}, "sigma_b2 must be a positive finite number, got 0.0"),
        ("training", {"learning_rates": ()}, "learning_rates must be at least one number, got none"),
        ("training", {"data": "digit"}, "did you mean 'digits'"),
        ("gradients", {"sigma_w2": (1.0, -1.0)}, "sigma_w2 must be a positive finite number, got -1.0"),
        ("gradients", {"seeds": 0}, "seeds must be an integer of at least 1, got 0"),
        ("class_gradients", {"inputs": 1}, "inputs must be an integer of at least 2, got 1"),
        ("normalisation", {"data": "cifar10"}, "folder must name where the files lie for 'cifar10'"),
        ("short_runs", {"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ("scaled", {"factors": (0.0,)}, "factors must be a positive finite number, got 0.0"),
    ],
)
def test_bad_options_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        EXPERIMENTS[name].run(**options, progress=False)


def test_points_of_a_grid_land_where_they_belong():
    over = {"a": (1, 2), "b": ("x", "y", "z"), "c": (10.0, 20.0)}
    ds = measured(lambda a, b, c: xr.Dataset({"v": ("t", [a + c, float(len(b) * ord(b))])}), over, False)
    assert ds.v.dims == ("a", "b", "c", "t")
    for a in over["a"]:
        for b in over["b"]:
            for c in over["c"]:
                assert ds.v.sel(a=a, b=b, c=c).values.tolist() == [a + c, ord(b)]


def test_values_are_taken_in_order_and_once():
    ds = normalisation.run(sigma_w2=[3.0, 1.0, 3], width=8, depth=3, inputs=4, seeds=1, progress=False)
    assert ds.sigma_w2.values.tolist() == [1.0, 3.0]


# --- where networks begin


@pytest.mark.parametrize(("activation", "sigma_b2"), [("tanh", 0.05), ("tanh", 0.3), ("erf", 0.2)])
def test_starts_are_in_their_phases(activation, sigma_b2):
    fixed = {p: igb.fixed_point(igb.Ensemble(activation, w, sigma_b2)) for p, w in starts(activation, sigma_b2).items()}
    assert list(fixed) == list(PHASES)
    assert fixed["ordered"].chi < 0.8
    assert fixed["critical"].chi == pytest.approx(1.0, abs=1e-9)
    assert fixed["chaotic"].chi > 1.02
    assert 1.2 < fixed["chaotic"].gamma < np.inf
    assert fixed["neutral"].gamma < 0.8
    assert fixed["ordered"].gamma == fixed["critical"].gamma == np.inf


def test_prepared_inputs_are_those_of_the_theory():
    digits = prepared("digits", None)
    x = digits.inputs.double().numpy()
    np.testing.assert_allclose((x**2).mean(axis=1), 1.0, rtol=1e-5)
    overlap = x @ x.T / x.shape[1]
    assert abs(overlap[~np.eye(len(x), dtype=bool)].mean()) < 0.02
    assert prepared("digits", None, images=True).shape == (1, 8, 8)


# --- signals and gradients


def by_hand(model, x, loss_of):
    """y of every layer and the derivatives by them, from the model's matrices alone."""
    ens = model.ens
    ys, h = [], x
    for number, linear in enumerate(model.layers):
        y = h @ linear.weight.T + linear.bias
        if number and ens.residual:
            y = ys[-1] + ens.residual**0.5 * y
        y.retain_grad()
        ys.append(y)
        z = (y - y.mean(1, keepdim=True)) if ens.layernorm else y
        z = z / z.square().mean(1, keepdim=True).sqrt() if ens.layernorm else z
        h = torch.tanh(z)
    loss_of(h @ model.head.weight.T + model.head.bias).backward()
    return ys


@pytest.mark.parametrize("extra", [{}, {"residual": 0.5}, {"layernorm": True}])
def test_signals_are_those_computed_by_hand(extra):
    ens = igb.Ensemble("tanh", 2.0, 0.3, **extra)
    random = torch.Generator().manual_seed(0)
    model = MLP(ens, width=16, depth=3, features=10, classes=4, generator=random, dtype=torch.float64)
    x = torch.randn(8, 10, generator=random, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 2, 2, 1, 0, 0])  # none of the last class
    found = signals(model, x, labels)
    ys = by_hand(model, x, lambda z: -torch.log_softmax(z, 1)[range(8), labels].sum())
    squares = [y.grad.square() for y in ys]
    np.testing.assert_allclose(found.gradient, [float(s.sum(1).mean()) for s in squares], rtol=1e-9)
    for label in range(3):
        expected = [float(s[labels == label].mean()) for s in squares]
        np.testing.assert_allclose(found.gradient_class[:, label], expected, rtol=1e-9)
    assert np.isnan(found.gradient_class[:, 3]).all()
    directions = [y.detach() / y.detach().norm(dim=1, keepdim=True) for y in ys]
    c = [float((u @ u.T)[~torch.eye(8, dtype=bool)].mean()) for u in directions]
    np.testing.assert_allclose(found.c, c, rtol=1e-9)
    assert found.growth == pytest.approx(float((squares[0].sum() / squares[2].sum()) ** 0.5))
    readout = torch.randn(4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    linear = signals(model, x, readout=torch.Generator().manual_seed(5))
    ys = by_hand(model, x, lambda z: (z * readout).sum())
    np.testing.assert_allclose(linear.gradient, [float(y.grad.square().sum(1).mean()) for y in ys], rtol=1e-9)


def test_measured_gradients_follow_theory():
    """Within 5 standard errors and what the finite width does; CNN and ViT also start from images that are not even."""
    ds = gradients.run(
        sigma_w2=(1.0, 2.5), width=400, depth=8, channels=64, layers=4, token=64, blocks=4, inputs=8, seeds=6,
        progress=False,
    )  # fmt: skip
    logs, theory = np.log(ds.ratio), np.log(ds.ratio_theory)
    departure = abs(logs.mean("seed") - theory) - 5 * logs.std("seed", ddof=1) / 6**0.5
    for name, allowed in (("MLP", 0.1), ("residual MLP", 0.1), ("CNN", 0.3)):
        assert (departure.sel(model=name) < allowed).all()
    vit = {"model": "ViT"}
    assert float(departure.sel(vit | {"sigma_w2": 1.0})) < 0.4  # tokens become one
    assert 1.0 < float(ds.boundary.sel(vit)) < 2.5
    assert (logs.sel(vit | {"sigma_w2": 1.0}) < 0.0).all()
    assert (logs.sel(vit | {"sigma_w2": 2.5}) > 1.0).all()


@pytest.mark.parametrize(("activation", "edge"), [("relu", 2.0**0.25), ("linear", 1.0), ("leaky_relu(0.5)", 1.6**0.25)])
def test_boundary_of_transformers(activation, edge):
    """sigma_w2^4 E[phi'^2] = 1, which is (1 + slope^2) / 2 whatever q is."""
    assert gradients.block_edge(igb.activations.as_activation(activation), 0.0, blocks=3) == pytest.approx(edge)


def test_boundaries_are_found_between_points():
    w = np.array([1.0, 2.0, 4.0])
    ratio = xr.DataArray((w[:, None] / np.array([3.0, 2.5, 0.5])) ** 5, {"sigma_w2": w}, ("sigma_w2", "seed"))
    np.testing.assert_allclose(gradients.crossings(ratio), [3.0, 2.5, np.nan])


def test_batchnorm_does_not_see_the_weights_scale():
    """Without biases outputs are proportional to the weights, which BatchNorm divides out."""
    ds = normalisation.run(
        sigma_w2=(1.0, 4.0), sigma_b2=0.0, width=50, depth=5, inputs=16, seeds=2, progress=False
    ).sel(model="BatchNorm")
    for name in ("growth", "c"):
        np.testing.assert_allclose(ds[name].isel(sigma_w2=0), ds[name].isel(sigma_w2=1), rtol=1e-3)
    assert ds.growth_theory.isnull().all()


def test_normalised_networks_follow_theory():
    ds = normalisation.run(sigma_w2=(1.0, 3.0), width=400, depth=8, inputs=40, seeds=4, progress=False)
    told = ds.sel(model=[name for name in normalisation.MODELS if name != "BatchNorm"])
    np.testing.assert_allclose(told.growth.mean("seed"), told.growth_theory, rtol=0.03)
    np.testing.assert_allclose(told.c.mean("seed"), told.c_theory, atol=0.1)


# --- classes


def test_favoured_classes_are_those_with_most_inputs(results):
    ds = results["class_gradients"]
    some = prepared("digits", None).subset(60)
    model = MLP(
        igb.Ensemble("relu", 3.0, 0.1), width=20, depth=4, features=64, dtype=torch.float64,
        generator=torch.Generator().manual_seed(1),
    )  # fmt: skip
    counts = torch.bincount(model(some.inputs.double()).argmax(1), minlength=10)
    at = ds.sel(sigma_w2=3.0, seed=1)
    assert int(at.favoured) == int(counts.argmax())
    assert float(at.largest_fraction) == float(counts.max()) / 60


def test_the_favoured_class_loses_its_gradient_in_chaotic_prejudice():
    ds = class_gradients.run(sigma_w2=(2.0, 3.5), width=60, depth=40, inputs=80, seeds=5, progress=False)
    favoured, others = (part.isel(layer=0) for part in class_gradients.favoured_and_others(ds))
    ratio = (favoured / others).median("seed")
    assert float(ratio[1]) < 1e-6 < 1e-3 < float(ratio[0]) < 1.0
    assert float(others[1].median()) > 1e4 * float(others[0].median())
    by_class = ds.gradient_class.isel(layer=0, sigma_w2=0, seed=0)
    kept = [float(by_class[k]) for k in range(10) if k != int(ds.favoured[0, 0])]
    assert float(others[0, 0]) == pytest.approx(np.mean(kept))


@pytest.mark.parametrize("gamma_of", ["critical", "chaotic", "neutral"])
def test_classes_missed_by_untrained_networks(gamma_of):
    """Drawn one by one: centres over networks, inputs around them, the largest output wins."""
    ens = igb.Ensemble("tanh", starts("tanh", 0.3)[gamma_of], 0.3)
    gamma = float(igb.propagate(ens, 11).gamma[-1])
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(600):
        given = (rng.standard_normal(10) * gamma**0.5 + rng.standard_normal((200, 10))).argmax(1)
        missed += len(set(given.tolist())) < 10
    share = missed / 600
    error = (share * (1.0 - share) / 600) ** 0.5 + 1e-3
    assert short_runs._missing_at_first(ens, 10, 10, 200) == pytest.approx(share, abs=5 * error + 0.01)


def test_missing_classes_are_counted(results):
    ds = results["short_runs"]
    for phase in PHASES:
        shares = ds.test_class_fraction.sel(phase=phase, seed=0, step=4).values
        assert int(ds.missing.sel(phase=phase, seed=0, step=4)) == sum(share == 0.0 for share in shares)
    assert short_runs.verdict(ds).splitlines()[1].startswith("ordered: 2 of 2 after 0 steps")


# --- training


def test_training_is_that_of_train(results):
    """One of its runs again, by hand."""
    ds = results["training"].sel(learning_rate=0.1, phase="critical", seed=1)
    source = prepared("digits", None)
    ens = igb.Ensemble("tanh", starts("tanh", 0.3)["critical"], 0.3)
    model = MLP(ens, width=12, depth=3, features=64, generator=torch.Generator().manual_seed(1))
    run = train(model, source, steps=4, lr=0.1, seed=1, log_every=1, evaluate_inputs=500, progress=False)
    np.testing.assert_array_equal(run.dataset.test_accuracy, ds.test_accuracy)
    np.testing.assert_array_equal(run.dataset.class_fraction.max("class"), ds.largest_fraction)
    accuracy = run.dataset.test_accuracy.values
    assert float(ds.speed) == pytest.approx((accuracy[1:] + accuracy[:-1]).sum() / 8)
    np.testing.assert_equal(float(ds.absorbed), run.absorbed(0.2))


def test_the_best_rate_of_each_phase_is_shown(results):
    pytest.importorskip("matplotlib")
    ds = results["training"].copy(deep=True)
    ds["speed"][:] = 0.1
    ds["speed"].loc[{"phase": "critical", "learning_rate": 0.1}] = 0.5
    best = training.best_rates(ds).learning_rate.sel(phase=["critical", "neutral"])
    assert best.values.tolist() == [0.1, 0.01]
    said = training.verdict(ds).splitlines()
    assert "best learning rate: critical, by 0.400 ± 0.000 of test accuracy" in said[0]
    assert said[0].endswith("critical is fastest at 1 of 2 rates.")
    assert said[2].startswith("critical (lr 0.1): largest class ")
    loss, accuracy, *_ = training.figure(ds).axes
    line = next(line for line in accuracy.lines if "critical" in line.get_label())
    expected = ds.test_accuracy.sel(phase="critical", learning_rate=0.1).mean("seed")
    np.testing.assert_allclose(line.get_ydata(), expected)
    assert loss.get_ylabel() == "training loss"


def test_absorption_is_said_with_its_censored_runs():
    assert training._absorption(np.array([np.nan, np.nan])) == "not absorbed by any network"
    assert training._absorption(np.array([10.0, 30.0, 20.0])) == "absorbed, median step 20 (10 to 30)"
    said = training._absorption(np.array([10.0, np.nan, 20.0]))
    assert said == "absorbed by 2 of 3 networks, median step 20 (from 10)"
    assert training._absorption(np.array([10.0, np.nan, np.nan])) == "absorbed by 1 of 3 networks, from step 10"


def test_halves_hold_every_input_once():
    whole = data.digits()
    first, second = scaled.halves(whole)
    assert (first.classes, second.classes) == (5, 5)
    assert len(first) + len(second) == len(whole)
    assert torch.equal(second.labels, whole.labels[whole.labels >= 5] - 5)
    assert torch.equal(first.test_inputs, whole.test_inputs[whole.test_labels < 5])
    assert second.class_names == ("5", "6", "7", "8", "9")


def test_scaling_moves_the_phase(results):
    """The larger the weights, the larger the gradients of the first layer and the smaller the bias."""
    ds = scaled.run(width=60, depth=10, first_steps=20, steps=1, seeds=3, progress=False).isel(step=0)
    gradient = ds.gradient_class.mean("class").median("seed").values
    assert (np.diff(np.log(gradient)) > 1.0).all()
    bias = ds.largest_fraction.mean("seed").values
    assert bias[0] > 0.95 > bias[2]


def test_a_new_head_replaces_the_old_one():
    model = MLP(igb.Ensemble("tanh", 1.0), width=200, depth=2, features=5)
    before = model.layers[1].weight.clone()
    scaled.new_head_(model, 7, torch.Generator().manual_seed(0))
    assert model(torch.zeros(3, 5)).shape == (3, 7)
    assert torch.equal(model.layers[1].weight, before)
    assert float(model.head.weight.detach().square().mean()) == pytest.approx(1 / 200, rel=0.2)
    assert not model.head.bias.any()


# --- figures of single trainings


def test_figure_of_trainings():
    pytest.importorskip("matplotlib")
    model = MLP(igb.Ensemble("tanh", 1.5, 0.1), width=20, depth=2, features=64)
    run = train(model, data.digits(), steps=6, log_every=2, progress=False)
    figure = torch_plot.training([run, run.dataset], labels=["a", "b"])
    loss, accuracy, share = figure.axes
    np.testing.assert_array_equal(accuracy.lines[0].get_ydata(), run.dataset.accuracy)
    np.testing.assert_array_equal(accuracy.lines[1].get_ydata(), run.dataset.test_accuracy)
    np.testing.assert_array_equal(share.lines[0].get_ydata(), run.dataset.class_fraction.max("class"))
    np.testing.assert_array_equal(loss.lines[0].get_xdata(), [0, 2, 4, 6])
    figure.canvas.draw()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    with pytest.raises(ValueError, match="labels must be as many as runs, got 1 for 2"):
        torch_plot.training([run, run], labels=["a"])
    with pytest.raises(ValueError, match="runs must be at least one training, got none"):
        torch_plot.training([])
    with pytest.raises(TypeError, match="dataset must be what train returns, got 3"):
        torch_plot.training(3)


def test_error_bars_leave_out_what_is_missing():
    values = xr.DataArray([[1.0, 3.0], [3.0, np.nan], [5.0, 5.0]], dims=("seed", "x"))
    mean, error = torch_plot.mean_and_error(values)
    np.testing.assert_allclose(mean, [3.0, 4.0])
    np.testing.assert_allclose(error, [2.0 / 3**0.5, 2**0.5 / 2**0.5])
    assert torch_plot.with_error(values[:, 0]) == "3.000 ± 1.155"
    assert torch_plot.with_error(values[:1, 0]) == "1.000"
