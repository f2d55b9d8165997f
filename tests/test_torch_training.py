"""Training: the loop against NumPy, what is logged against autograd by hand, runs that are cut and go on, commands."""

import copy
import csv
import math
import os
import pathlib
import pickle
import signal
import sys

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

import igbfast as igb

torch = pytest.importorskip("torch")

from igbfast import cli, cli_training
from igbfast.torch import MLP, _checkpoint, data, select_initial, train
from igbfast.torch import _training_run as training_run
from igbfast.torch._training_run import steps_to_log
from igbfast.torch.specification import EXAMPLE, read_spec, run_spec
from igbfast.torch.training import Training


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def small(seed=0, features=20, classes=3, dtype=None):
    """A tanh network of two hidden layers."""
    ens = igb.Ensemble("tanh", sigma_w2=1.76, sigma_b2=0.05)
    return MLP(ens, width=16, depth=2, features=features, classes=classes, generator=seeded(seed), dtype=dtype)


def noisy(seed=0):
    """A network whose training takes random numbers and keeps running averages."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return torch.nn.Sequential(
            torch.nn.Linear(20, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU(), torch.nn.Dropout(0.3),
            torch.nn.Linear(16, 3),
        )  # fmt: skip


class Noise(torch.nn.Module):
    """Draws random numbers in every mode."""

    def forward(self, x):
        return x + 0.1 * torch.randn_like(x)


def restless():
    return torch.nn.Sequential(noisy(), Noise())


@pytest.fixture
def blobs():
    return data.blobs(200, features=20, classes=3, distance=6.0)


def same_parameters(one, other):
    states = one.state_dict(), other.state_dict()
    assert states[0].keys() == states[1].keys()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


# ---- The loop


def softmax(z):
    p = np.exp(z - z.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


@pytest.mark.parametrize("momentum, weight_decay", [(0.0, 0.0), (0.9, 0.01)])
def test_sgd_is_gradient_descent_on_the_cross_entropy_of_permuted_batches(blobs, momentum, weight_decay):
    """Softmax regression in NumPy, whose gradient is written down: X^T (p - onehot) / batch."""
    model = torch.nn.Linear(20, 3).double()
    w, b = (p.detach().numpy().copy() for p in (model.weight, model.bias))
    x, labels = blobs.inputs.double().numpy(), blobs.labels.numpy()
    onehot, speed = np.eye(3), [np.zeros_like(w), np.zeros_like(b)]
    generator, losses = seeded(5), []
    for step in range(25):  # 200 inputs: six batches of 30 an epoch, 20 inputs wait for the next permutation
        if step % 6 == 0:
            order = torch.randperm(200, generator=generator).numpy()
        losses.append(-np.log(softmax(x @ w.T + b)[np.arange(200), labels]).mean())
        rows = order[30 * (step % 6) : 30 * (step % 6 + 1)]
        error = (softmax(x[rows] @ w.T + b) - onehot[labels[rows]]) / 30
        for i, gradient in enumerate([error.T @ x[rows] + weight_decay * w, error.sum(0) + weight_decay * b]):
            speed[i] = momentum * speed[i] + gradient
        w, b = w - 0.05 * speed[0], b - 0.05 * speed[1]
    run = train(
        model, blobs, steps=25, lr=0.05, batch=30, momentum=momentum, weight_decay=weight_decay, seed=5, log_every=1
    )
    np.testing.assert_allclose(model.weight.detach().numpy(), w, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(model.bias.detach().numpy(), b, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(run.dataset["loss"][:25], losses, rtol=1e-10)
    assert run.model is model


def test_adam_takes_the_published_steps(blobs):
    """Kingma and Ba's algorithm 1, full batch, in NumPy."""
    model = torch.nn.Linear(20, 3).double()
    w = model.weight.detach().numpy().copy()
    model.bias.requires_grad_(False).zero_()
    x, onehot = blobs.inputs.double().numpy(), np.eye(3)[blobs.labels.numpy()]
    m = v = np.zeros_like(w)
    for step in range(1, 11):
        gradient = (softmax(x @ w.T) - onehot).T @ x / 200
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        w = w - 0.02 * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
    train(model, blobs, epochs=10, optimizer="adam", lr=0.02, batch=1000)  # all 200 in a batch: one step an epoch
    np.testing.assert_allclose(model.weight.detach().numpy(), w, rtol=1e-9, atol=1e-12)
    assert not model.bias.any()


def test_an_optimizer_of_ones_own(blobs):
    one, other = small(), small()
    run = train(one, blobs, steps=5, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.3, nesterov=True,
                                                                                  momentum=0.5))  # fmt: skip
    train(other, blobs, steps=5, lr=0.3, momentum=0.5)
    assert not same_parameters(one, other)  # Nesterov's steps are others
    assert (run.dataset["learning_rate"] == 0.3).all()
    with pytest.raises(TypeError, match=r"optimizer must return a torch.optim.Optimizer, got 3"):
        train(one, blobs, steps=5, optimizer=lambda parameters: 3)


def test_learns_and_absorbs():
    """A deep network at the edge of chaos, from a state that gives half of the digits to one class."""
    digits = data.digits().normalised("features").normalised("inputs")
    ens = igb.Ensemble("tanh", sigma_w2=1.76, sigma_b2=0.05)
    model = select_initial(
        lambda g: MLP(ens, width=60, depth=15, features=64, generator=g), digits, largest_fraction=(0.45, 1.0), seed=3
    )
    run = train(model, digits, steps=150, lr=0.02, log_every="log", evaluate_inputs=400, measure_at=(0, 150))
    assert float(run.dataset["class_fraction"][0].max()) >= 0.45
    assert float(run.dataset["test_accuracy"][-1]) > 0.8
    assert 0 < run.absorbed() < 60
    assert run.dataset["gamma"][0, -1] > 4 * run.dataset["gamma"][1, -1]  # the outputs' centres come together
    assert run.dataset["gamma"].dims == ("measured_step", "layer")
    assert list(run.dataset["name"].values[[0, -1]]) == ["layers.0", "head"]
    for words in ("MLP (", "on digits: sgd, lr 0.02, batches of 64", "largest class", "absorbed by step"):
        assert words in str(run)
    assert repr(run).startswith("<Training of MLP on digits, sgd: Accuracy")


# ---- What is logged


def convolutional():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return torch.nn.Sequential(
            torch.nn.Unflatten(1, (1, 4, 5)), torch.nn.Conv2d(1, 3, 3), torch.nn.ReLU(inplace=True),
            torch.nn.Flatten(), torch.nn.Linear(18, 3),
        )  # fmt: skip


@pytest.mark.parametrize("make_model", [small, convolutional, noisy], ids=["tanh", "in place", "dropout"])
@pytest.mark.parametrize("frozen", [False, True])
def test_the_record_is_what_autograd_says_input_by_input(make_model, frozen):
    few = data.blobs(41, features=20, classes=3, test=17)
    model = make_model()
    first = next(m for m in model.modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d)))
    first.requires_grad_(not frozen)
    record = train(model, few, steps=0).dataset.isel(step=0)
    model.eval()
    losses, given, squares = [], [], []
    for x, label in zip(few.inputs, few.labels, strict=True):
        kept = []
        hook = first.register_forward_hook(lambda _module, _args, y, kept=kept: kept.append(y) or y.clone())
        outputs = model(x[None].requires_grad_())
        hook.remove()
        loss = torch.logsumexp(outputs[0], 0) - outputs[0, label]
        gradient = torch.autograd.grad(loss, kept[0])[0].numpy()
        losses.append(loss.item())
        given.append(int(outputs[0].argmax()))
        squares.append(np.mean(gradient.astype(float) ** 2))
    losses, given, squares, labels = np.array(losses), np.array(given), np.array(squares), few.labels.numpy()
    np.testing.assert_allclose(record["loss"], losses.mean(), rtol=1e-5)
    np.testing.assert_allclose(record["accuracy"], (given == labels).mean())
    for k in range(3):
        np.testing.assert_allclose(record["class_fraction"][k], (given == k).mean())
        np.testing.assert_allclose(record["class_share"][k], (labels == k).mean())
        np.testing.assert_allclose(record["loss_class"][k], losses[labels == k].mean(), rtol=1e-5)
        np.testing.assert_allclose(record["accuracy_class"][k], (given == k)[labels == k].mean())
        np.testing.assert_allclose(record["gradient_class"][k], squares[labels == k].mean(), rtol=2e-4)
    with torch.no_grad():
        outputs = model(few.test_inputs)
    np.testing.assert_allclose(
        record["test_loss"], torch.nn.functional.cross_entropy(outputs, few.test_labels), rtol=1e-5
    )
    np.testing.assert_allclose(record["test_accuracy"], (outputs.argmax(1) == few.test_labels).float().mean())
    np.testing.assert_allclose(record["test_class_fraction"].sum(), 1.0)


def test_gamma_is_that_of_the_layers_in_evaluation_mode(blobs):
    """Centres and variances of the nodes, in NumPy."""
    model = small(features=20)
    run = train(model, blobs, steps=7, lr=0.0, measure_at=(0, 7), measure_inputs=60, evaluate_inputs=100)
    chosen = torch.randperm(200, generator=seeded())[:100].sort().values[:60]
    x = blobs.inputs[chosen].double().numpy()
    for layer, linear in enumerate([*model.layers, model.head]):
        y = x @ linear.weight.detach().double().numpy().T + linear.bias.detach().double().numpy()
        sigma_y2 = y.var(0, ddof=1).mean()
        expected = (y.mean(0).var(ddof=1) - sigma_y2 / 60) / sigma_y2
        np.testing.assert_allclose(run.dataset["gamma"][:, layer], expected, rtol=1e-4)
        x = np.tanh(y)


def test_steps_of_the_log():
    assert steps_to_log(25, 10) == [0, 10, 20, 25]
    assert steps_to_log(0, 10) == steps_to_log(0, "log") == [0]
    steps = steps_to_log(5000, "log")
    assert steps[:14] == [*range(11), 12, 14, 16]
    assert steps[-1] == 5000
    assert np.exp(np.diff(np.log(steps[10:]))).max() < 1.25
    assert len(steps) < 60


def test_no_test_set_and_absent_classes():
    few = data.Data(np.eye(5, 3), [0, 0, 1, 1, 3], classes=4)
    run = train(torch.nn.Linear(3, 4), few, steps=2, gradients=False)
    assert not {"test_loss", "gradient_class"} & set(run.dataset)
    assert np.isnan(run.dataset["loss_class"][:, 2]).all()
    assert np.isfinite(run.dataset["loss_class"][:, [0, 1, 3]]).all()
    pair = train(torch.nn.Linear(3, 2), (np.eye(5, 3), [0, 0, 1, 1, 1]), steps=2)
    assert pair.dataset.attrs["inputs"] == 5


# ---- The same numbers again


@pytest.mark.parametrize("options", [{}, {"optimizer": "adam"}], ids=["sgd", "adam"])
@pytest.mark.parametrize("make_model", [noisy, restless])
def test_same_seed_same_bits_whatever_is_logged(blobs, options, make_model):
    runs = []
    for log_every, measure_at in [(1, ()), (50, (3, 20)), (1, ())]:
        before = torch.get_rng_state()
        runs.append(train(make_model(), blobs, steps=40, log_every=log_every, measure_at=measure_at, seed=3, **options))
        assert torch.equal(before, torch.get_rng_state())
        torch.rand(7)  # the state outside makes no difference
    assert same_parameters(runs[0].model, runs[1].model)
    xr.testing.assert_identical(runs[0].dataset, runs[2].dataset)
    assert not same_parameters(runs[0].model, train(make_model(), blobs, steps=40, seed=4, **options).model)


def test_leaves_modes_hooks_and_gradients(blobs):
    model = noisy()
    model[1].eval()  # averages that shall stay
    averages = copy.deepcopy(model[1].state_dict())
    train(model, blobs, steps=5)
    assert [module.training for module in model] == [True, False, True, True, True]
    assert torch.equal(model[1].running_mean, averages["running_mean"])
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())
    train(model.eval(), blobs, steps=5)  # a model in evaluation mode is trained all the same, and left in it
    assert not any(module.training for module in model.modules())
    assert not torch.equal(model[1].running_mean, averages["running_mean"])


def test_a_model_may_write_into_its_inputs(blobs):
    """As activations in place before the first layer do."""
    kept, found = blobs.inputs.clone(), []
    for inplace in (False, True):
        model = torch.nn.Sequential(torch.nn.LeakyReLU(0.5, inplace=inplace), small())
        with torch.inference_mode(inplace):  # nor does it matter what is around the call
            found.append(train(model, blobs, steps=5, log_every=2, measure_at=[0, 5]).dataset)
        assert torch.equal(blobs.inputs, kept)
    xr.testing.assert_identical(*found)


def test_half_precision_and_compiled_models(blobs):
    half = small(dtype=torch.bfloat16)
    run = train(half, blobs, steps=30, lr=0.1)
    assert half.head.weight.dtype == torch.bfloat16
    assert run.dataset["loss"][-1] < run.dataset["loss"][0]
    plain, wrapped = small(), torch.compile(small(), backend="eager")
    xr.testing.assert_allclose(train(plain, blobs, steps=5).dataset, train(wrapped, blobs, steps=5).dataset, rtol=1e-5)


# ---- Checkpoints


OPTIONS = {"lr": 0.05, "seed": 2, "log_every": 7, "measure_at": (0, 15, 40)}


class Cut:
    """Presses Ctrl-C in the middle of a step."""

    def __init__(self, monkeypatch, step, times=1):
        take_step = training_run.Run.take_step

        def cut(run):
            if run.step == step:
                for _ in range(times):
                    signal.raise_signal(signal.SIGINT)
            take_step(run)

        monkeypatch.setattr(training_run.Run, "take_step", cut)


@pytest.mark.parametrize("options", [{"momentum": 0.9}, {"optimizer": "adam"}], ids=["sgd", "adam"])
@pytest.mark.parametrize("step", [0, 6, 13, 39])
def test_a_run_cut_by_ctrl_c_goes_on_to_the_last_bit(blobs, tmp_path, monkeypatch, options, step):
    options = OPTIONS | options
    whole = train(noisy(), blobs, steps=40, **options)
    with monkeypatch.context() as patch:
        Cut(patch, step)
        with pytest.raises(KeyboardInterrupt):
            train(noisy(), blobs, steps=40, checkpoint=tmp_path / "c.pt", **options)
    assert torch.load(tmp_path / "c.pt", weights_only=True)["step"] == step + 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    rest = train(noisy(seed=9), blobs, steps=40, checkpoint=tmp_path / "c.pt", resume=True, **options)
    xr.testing.assert_identical(rest.dataset, whole.dataset)
    assert same_parameters(rest.model, whole.model)


def test_more_steps_and_checkpoints_on_the_way(blobs, tmp_path, monkeypatch):
    path = tmp_path / "c.pt"
    written = []
    write = _checkpoint.write
    monkeypatch.setattr(_checkpoint, "write", lambda *args: (written.append(args[1]["step"]), write(*args)))
    whole = train(noisy(), blobs, steps=40, **OPTIONS)
    options = OPTIONS | {"measure_at": ()}
    train(noisy(), blobs, steps=17, checkpoint=path, checkpoint_every=5, resume=True, **options)  # no file: begins
    assert written == [5, 10, 15, 17]
    more = train(noisy(), blobs, steps=40, checkpoint=path, resume=True, **options)
    xr.testing.assert_identical(more.dataset, whole.dataset.drop_vars(["gamma", "name", "layer", "measured_step"]))
    assert same_parameters(more.model, whole.model)
    again = train(noisy(), blobs, steps=40, checkpoint=path, resume=True, **options)  # nothing is left to do
    xr.testing.assert_identical(again.dataset, more.dataset)
    with pytest.raises(ValueError, match=r"steps must be at least 40, where the checkpoint .* is, got 20"):
        train(noisy(), blobs, steps=20, checkpoint=path, resume=True, **options)


def test_a_second_ctrl_c_does_not_wait(blobs, tmp_path, monkeypatch):
    Cut(monkeypatch, 5, times=2)
    with pytest.raises(KeyboardInterrupt):
        train(small(), blobs, steps=40, checkpoint=tmp_path / "c.pt")
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def relu():
    return MLP(igb.Ensemble("relu", 2.0), width=16, depth=2, features=20, classes=3)


@pytest.mark.parametrize(
    "make_model, changed, message",
    [
        (small, {"lr": 0.2}, r"of another run: its lr is 0.1, here it is 0.2"),
        (small, {"optimizer": "adam"}, "its optimizer is 'sgd', here it is 'adam'"),
        (small, {"seed": 1}, "its seed is 0, here it is 1"),
        (small, {"data": data.blobs(200, features=20, classes=3, distance=6.0, seed=1)}, "its data is .*checksums"),
        (relu, {}, r"its model is .*tanh.*, here it is .*relu"),
        (noisy, {}, "its model's parameters is layers.0.weight"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(blobs, tmp_path, make_model, changed, message):
    path = tmp_path / "c.pt"
    train(small(), blobs, steps=3, lr=0.1, checkpoint=path)
    model = make_model()
    before = copy.deepcopy(model)
    arguments = {"data": blobs, "steps": 5, "lr": 0.1} | changed
    with pytest.raises(ValueError, match=message):
        train(model, checkpoint=path, resume=True, **arguments)
    assert same_parameters(model, before)


class Trap:
    def __reduce__(self):
        return os.mkdir, ("trap",)


def test_a_file_that_is_no_checkpoint(blobs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "c.pt"
    train(small(), blobs, steps=3, checkpoint=path)
    whole = path.read_bytes()
    torch.save({"format": Trap()}, tmp_path / "trap.pt")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(Trap()))
    torch.save(small().state_dict(), tmp_path / "states.pt")
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pt").write_text("not a checkpoint")
    (tmp_path / "empty.pt").touch()
    for name in ("trap", "pickle", "states", "cut", "text", "empty"):
        with pytest.raises(ValueError, match=f"{name}.pt' is not one that igbfast has written, or it is damaged"):
            train(small(), blobs, steps=3, checkpoint=tmp_path / f"{name}.pt", resume=True)
    assert not (tmp_path / "trap").exists()  # nothing in a file has run


# ---- Losses that are not finite


def test_an_exploding_loss_ends_the_run_and_keeps_the_record(blobs, tmp_path):
    options = {"steps": 40, "lr": 1e12, "log_every": 1, "checkpoint": tmp_path / "c.pt"}
    with pytest.warns(RuntimeWarning, match=r"the loss is not finite at step \d+: training stopped there") as caught:
        run = train(relu(), blobs, **options)
    stopped = run.dataset.attrs["stopped_at"]
    assert f"at step {stopped}:" in str(caught[0].message)
    assert 1 <= stopped < 10
    assert run.dataset.sizes["step"] == 41
    assert np.isfinite(run.dataset["loss"][:stopped]).all()
    for name in ("loss", "class_fraction", "test_accuracy"):
        assert np.isnan(run.dataset[name][stopped + 1 :]).all()
    assert math.isnan(run.absorbed())
    assert f"Stopped: the loss was not finite at step {stopped}." in str(run)
    with pytest.warns(RuntimeWarning, match=f"not finite at step {stopped}"):
        again = train(relu(), blobs, resume=True, **options)
    xr.testing.assert_identical(again.dataset, run.dataset)


def test_a_model_that_is_broken_from_the_start(blobs):
    model = small()
    with torch.no_grad():
        model.head.bias[1] = math.nan
    with pytest.warns(RuntimeWarning, match="not finite at step 0"):
        run = train(model, blobs, steps=10)
    assert np.isnan(run.dataset["class_fraction"]).all()
    assert "Stopped" in run.summary(80)


# ---- When the bias is absorbed


def fabricated(largest, steps=None, evaluated=2000):
    """A training whose largest class, of four, had these shares."""
    largest = np.asarray(largest, float)
    fractions = np.stack([largest, *[(1 - largest) / 3] * 3], axis=1)
    dataset = xr.Dataset(
        {"class_fraction": (("step", "class"), fractions), "class_share": ("class", [0.25] * 4)},
        {"step": np.arange(len(largest)) * 10 if steps is None else steps, "class": range(4)},
        {"evaluated": evaluated},
    )
    return Training(dataset, None)


def test_time_of_absorption():
    falling = [0.95, 0.9, 0.7, 0.61, 0.59, 0.4, 0.3, 0.3]
    assert fabricated(falling).threshold == pytest.approx(0.6)  # halfway between 0.95 and 0.25
    assert fabricated(falling).absorbed() == 40
    assert fabricated(falling).absorbed(0.35) == 60
    assert fabricated(falling, steps=[0, 1, 2, 3, 5, 8, 13, 21]).absorbed() == 5
    assert fabricated([*falling, 0.9, 0.3, 0.3]).absorbed() == 40  # one step that strays
    assert fabricated([*falling, 0.9, 0.9, 0.3, 0.3]).absorbed() == 100  # two do not
    assert math.isnan(fabricated([*falling, 0.9, 0.9]).absorbed())
    assert math.isnan(fabricated([1.0] * 5).absorbed())
    assert math.isnan(fabricated([*falling[:-1], math.nan]).absorbed())
    assert fabricated([0.26, 0.27, 0.25]).absorbed() == 0
    assert fabricated([0.26, 0.27, 0.25]).threshold == pytest.approx(0.25 + 3 * math.sqrt(0.25 * 0.75 / 2000))
    assert fabricated([0.9]).absorbed(0.95) == 0
    for wrong in (0.0, -0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match="threshold must be"):
            fabricated(falling).absorbed(wrong)


# ---- The initial state


def drawn(generator):
    return MLP(igb.Ensemble("tanh", 1.76, 0.3), width=20, depth=6, features=20, classes=3, generator=generator)


def largest_fraction(model, inputs):
    with torch.no_grad():
        return float(model(inputs).argmax(1).bincount().max()) / len(inputs)


def test_initial_states_are_chosen_by_their_largest_class(blobs):
    generator = seeded(4)
    candidates = [drawn(generator) for _ in range(30)]
    fractions = [largest_fraction(model, blobs.inputs) for model in candidates]
    assert max(fractions) - min(fractions) > 0.3
    target = sorted(fractions)[20]
    first = next(i for i, fraction in enumerate(fractions) if fraction >= target)
    for wanted, index in [(target, first), ((target, target), fractions.index(target)),
                          ("largest", fractions.index(max(fractions)))]:  # fmt: skip
        model, tries = select_initial(drawn, blobs, largest_fraction=wanted, tries=30, seed=4, return_tries=True)
        assert same_parameters(model, candidates[index])
        assert tries == (30 if wanted == "largest" else index + 1)
    alone = select_initial(drawn, blobs.inputs, largest_fraction="largest", tries=30, seed=4)
    assert same_parameters(alone, candidates[fractions.index(max(fractions))])
    low, high = min(fractions), max(fractions)
    with pytest.raises(
        ValueError, match=f"none of 30 models lies within 0 to 0.1, theirs were {low:.3g} to {high:.3g}"
    ):
        select_initial(drawn, blobs, largest_fraction=(0.0, 0.1), tries=30, seed=4)


def test_a_model_without_numbers_is_not_biased(blobs):
    broken = torch.nn.Linear(20, 3)
    torch.nn.init.constant_(broken.bias, math.nan)
    with pytest.raises(ValueError, match="theirs were 0 to 0"):
        select_initial(lambda _: broken, blobs, largest_fraction=0.1, tries=2)


def test_models_that_draw_from_the_global_generator_are_reproduced(blobs):
    before = torch.get_rng_state()
    models = [
        select_initial(lambda _: torch.nn.Linear(20, 3), blobs, largest_fraction="largest", tries=3) for _ in range(2)
    ]
    assert same_parameters(*models)
    assert torch.equal(before, torch.get_rng_state())


# ---- Files of the log


def test_saves_the_log(blobs, tmp_path):
    run = train(small(), blobs, steps=12, log_every=5, measure_at=(0, 7))
    run.save(tmp_path / "log.nc")
    xr.testing.assert_identical(xr.load_dataset(tmp_path / "log.nc", engine="h5netcdf"), run.dataset)
    run.save(tmp_path / "log.csv")
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == ["0", "5", "7", "10", "12"]
    assert rows[2]["loss"] == rows[1]["gamma_1"] == ""
    logged = [rows[i] for i in (0, 1, 3, 4)]
    for name in ("loss", "test_accuracy"):
        np.testing.assert_array_equal([float(row[name]) for row in logged], run.dataset[name])
    for k in range(3):
        np.testing.assert_array_equal(
            [float(r[f"gradient_class_{k}"]) for r in logged], run.dataset["gradient_class"][:, k]
        )
        np.testing.assert_array_equal([float(rows[i][f"gamma_{k + 1}"]) for i in (0, 2)], run.dataset["gamma"][:, k])
    with pytest.raises(ValueError, match=r"path must end in .nc or .csv, got '.*log.txt'"):
        run.save(tmp_path / "log.txt")


# ---- Wrong arguments


@pytest.mark.parametrize(
    "error, message, arguments",
    [
        (ValueError, "steps or epochs must be given, and not both, got steps=None", {"steps": None}),
        (ValueError, "and not both, got steps=5 and epochs=2", {"epochs": 2}),
        (ValueError, "steps must be an integer of at least 0, got -1", {"steps": -1}),
        (ValueError, "optimizer must be one of 'sgd', 'adam', got 'adm'; did you mean 'adam'", {"optimizer": "adm"}),
        (ValueError, "lr must be a non-negative finite number, got nan", {"lr": math.nan}),
        (TypeError, "batch must be an integer of at least 1, got 8.0", {"batch": 8.0}),
        (ValueError, "momentum must be a number from 0 to below 1, got 1.0", {"momentum": 1.0}),
        (ValueError, "momentum must be 0 for adam", {"momentum": 0.5, "optimizer": "adam"}),
        (ValueError, "weight_decay must be a non-negative finite number", {"weight_decay": -1.0}),
        (ValueError, "seed must be an integer from 0", {"seed": -1}),
        (TypeError, 'log_every, if not "log", must be an integer of at least 1', {"log_every": "linear"}),
        (ValueError, "evaluate_inputs must be an integer of at least 1, got 0", {"evaluate_inputs": 0}),
        (ValueError, "measure_at must be an integer from 0 to 5, got 6", {"measure_at": (0, 6)}),
        (TypeError, "measure_at must be a sequence of steps, got 5", {"measure_at": 5}),
        (ValueError, "measure_inputs must be an integer of at least 2", {"measure_inputs": 1}),
        (TypeError, "gradients must be True or False, got 1", {"gradients": 1}),
        (ValueError, "checkpoint must name a file if checkpoint_every or resume is given", {"resume": True}),
        (ValueError, "checkpoint must end in .pt, got 'c.nc'", {"checkpoint": "c.nc"}),
        (
            FileNotFoundError,
            "checkpoint cannot be written: there is no folder 'nowhere'",
            {"checkpoint": "nowhere/c.pt"},
        ),
        (ValueError, "device must be one that PyTorch can use here, got 'gpu'", {"device": "gpu"}),
        (TypeError, "progress must be None, True or False", {"progress": "yes"}),
        (TypeError, "data must be a Data such as", {"data": 5}),
        (ValueError, r"outputs of shape \(2, 4\), one for each class, got shape \(2, 3\)", {"data": (4,)}),
        (
            ValueError,
            r"model must take inputs of shape \(20,\), but PyTorch says: mat1",
            {"model": torch.nn.Linear(9, 3)},
        ),
        (TypeError, "model must be a torch.nn.Module, got 'mlp'", {"model": "mlp"}),
        (ValueError, "model must have parameters, got a ReLU without any", {"model": torch.nn.ReLU()}),
        (ValueError, "all frozen", {"model": torch.nn.Linear(20, 3).requires_grad_(False)}),
        (ValueError, "gradients must be False for a model that runs no linear", {"model": "bare"}),
    ],
)
def test_wrong_arguments_of_train(error, message, arguments):
    class Bare(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(20, 3))

        def forward(self, x):
            return x @ self.weight

    model = small()
    before = copy.deepcopy(model)
    given = {"model": model, "data": data.blobs(40, features=20, classes=3), "steps": 5} | arguments
    if given["data"] == (4,):
        given["data"] = data.blobs(40, features=20, classes=4)
    if arguments.get("model") == "bare":
        given["model"] = Bare()
    with pytest.raises(error, match=message):
        train(given.pop("model"), given.pop("data"), **given)
    assert same_parameters(model, before)


@pytest.mark.parametrize(
    "error, message, arguments",
    [
        (
            ValueError,
            "largest_fraction, if a text, must be one of 'largest', got 'large'",
            {"largest_fraction": "large"},
        ),
        (ValueError, "largest_fraction must lie within 0 to 1", {"largest_fraction": 1.2}),
        (ValueError, "the low bound first", {"largest_fraction": (0.5, 0.2)}),
        (ValueError, "must be a number, ", {"largest_fraction": (0.1, 0.2, 0.3)}),
        (ValueError, "tries must be an integer of at least 1, got 0", {"tries": 0}),
        (TypeError, "make_model must be a function of a torch.Generator", {"make_model": 3}),
        (TypeError, "make_model must return a torch.nn.Module, got 3", {"make_model": lambda generator: 3}),
    ],
)
def test_wrong_arguments_of_select_initial(blobs, error, message, arguments):
    with pytest.raises(error, match=message):
        select_initial(**({"make_model": drawn, "data": blobs, "largest_fraction": 0.5} | arguments))


# ---- Specifications


SPEC = """
[model]
kind = "mlp"
activation = "tanh"
sigma_w2 = "critical"
sigma_b2 = 0.05
width = 20
depth = 3
seed = 1
[data]
name = "blobs"
count = 200
features = 20
classes = 3
[training]
steps = 12
lr = 0.05
batch = 20
log_every = 4
"""
OUTPUT = """
[selection]
largest_fraction = "largest"
tries = 4
[output]
dataset = "log.nc"
table = "log.csv"
figure = "log.png"
model = "model.pt"
checkpoint = "run.pt"
"""


def written(folder, text, name="spec.toml"):
    (folder / name).write_text(text)
    return folder / name


def test_a_specification_does_what_the_functions_do(tmp_path):
    spec = read_spec(written(tmp_path, SPEC + OUTPUT))
    run = run_spec(spec, progress=False)
    ens = igb.Ensemble("tanh", float(igb.edge_of_chaos("tanh", 0.05)), 0.05)
    assert spec.ens == ens
    blobs = data.blobs(200, features=20, classes=3)
    model = select_initial(
        lambda g: MLP(ens, width=20, depth=3, features=20, classes=3, generator=g),
        blobs, largest_fraction="largest", tries=4, seed=1,
    )  # fmt: skip
    same = train(model, blobs, steps=12, lr=0.05, batch=20, log_every=4)
    xr.testing.assert_equal(run.dataset, same.dataset)
    assert same_parameters(run.model, same.model)
    xr.testing.assert_identical(xr.load_dataset(tmp_path / "log.nc", engine="h5netcdf"), run.dataset)
    assert run.dataset.attrs["spec"] == SPEC + OUTPUT
    assert run.dataset.attrs["tries"] == 4
    states = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(torch.equal(value, same.model.state_dict()[name]) for name, value in states.items())
    assert (tmp_path / "log.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "log.csv", "log.nc", "log.png", "model.pt", "run.pt", "spec.toml",
    ]  # fmt: skip


def images(kind, more=""):
    blobs = 'name = "blobs"\ncount = 200\nfeatures = 20\nclasses = 3'
    pictures = 'name = "digits"\nimages = true\nsubset = 60'
    return SPEC.replace('"mlp"', f'"{kind}"\n{more}').replace(blobs, pictures)


@pytest.mark.parametrize(
    "text, parameters",
    [
        (images("cnn").replace("width = 20", "channels = 6"), (9 + 1) * 6 + 2 * (54 + 1) * 6 + (6 + 1) * 10),
        (images("vit", "heads = 2"), None),
        (images("mixer", "patch = 4"), None),
        (SPEC.replace('"tanh"', '"relu"\npool = "max:2"\nweights = "orthogonal"'), 20 * 21 + 2 * 20 * 11 + 11 * 3),
        (SPEC.replace('"critical"', "1.3\nresidual = 0.1\nlayernorm = true\ndtype = 'float64'"), 3 * 20 * 21 + 21 * 3),
        (SPEC.replace("classes = 3", "classes = 4\nparity = true\nnormalise = 'inputs'"), 3 * 20 * 21 + 21 * 2),
    ],
    ids=["cnn", "vit", "mixer", "pool", "residual", "parity"],
)
def test_kinds_of_models(tmp_path, text, parameters):
    text = text.replace("steps = 12", "steps = 2") + "evaluate_inputs = 20\n"
    run = run_spec(read_spec(written(tmp_path, text)), progress=False)
    assert parameters in (None, run.dataset.attrs["parameters"])
    assert np.isfinite(run.dataset["loss"]).all()
    assert (tmp_path / "spec.nc").exists()  # where no [output] says otherwise


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("[training]", "[trainig]", r"section 'trainig' is unknown; did you mean 'training'\? \(known: model, data"),
        ("width", "witdh", r"\[model\] key 'witdh' is unknown; did you mean 'width'\?"),
        ("width = 20", "", r"\[model\] 'width' must be given"),
        ('kind = "mlp"', "", r"\[model\] 'kind' must be given"),
        ('"mlp"', '"mpl"', r"\[model\] kind must be one of .*, got 'mpl'; did you mean 'mlp'\?"),
        ('"mlp"', '"cnn"', r"\[model\] key 'width' is unknown.*known: .*channels"),
        ('"tanh"', '"tahn"', r"\[model\] .*tahn.*did you mean 'tanh'"),
        ('"critical"', '"critcal"', r"\[model\] sigma_w2, if a text, must be one of 'critical', got 'critcal'"),
        ('"critical"', "-1.0", r"\[model\] sigma_w2 must be a positive finite number, got -1.0"),
        ('"critical"', '"critical"\nresidual = 0.1', r"\[model\] sigma_w2 must be a number with residual"),
        ('"tanh"', '"gelu"', r"\[model\] sigma_w2 must be a number: gelu has no edge of chaos at sigma_b2=0.05"),
        ("depth = 3", 'depth = 3\npool = "2"', r"\[model\] pool must be 'max:K', 'min:K' or 'avg:K'"),
        ('"blobs"', '"blob"', r"\[data\] name must be one of .*, got 'blob'; did you mean 'blobs'"),
        ("count", "cuont", r"\[data\] key 'cuont' is unknown; did you mean 'count'"),
        ("lr =", "learning =", r"\[training\] key 'learning' is unknown"),
        ("[data]", "[data", r"is not a TOML file: .*line 10"),
        ('"log.nc"', '"log.csv"', r"\[output\] dataset must end in .nc, got 'log.csv'"),
        ('"run.pt"', '"model.pt"', r"\[output\] model and checkpoint must be two files"),
        ("largest_fraction", "fraction", r"\[selection\] key 'fraction' is unknown"),
    ],
)
def test_wrong_specifications(tmp_path, old, new, message):
    assert old in SPEC + OUTPUT
    path = written(tmp_path, (SPEC + OUTPUT).replace(old, new, 1))
    with pytest.raises(ValueError, match=message) as error:
        read_spec(path)
    assert str(path) in str(error.value)


def test_timm_models_by_name(tmp_path, monkeypatch):
    text = '[model]\nkind = "timm"\nname = "vit_tiny_patch16_224"\n' + SPEC[SPEC.index("[data]") :]
    spec = read_spec(written(tmp_path, text))
    assert spec.ens is None
    monkeypatch.setitem(sys.modules, "timm", None)
    result = run_command("train", tmp_path / "spec.toml")
    assert result.exit_code == 2
    assert "timm_model needs timm" in result.stderr
    with pytest.raises(ValueError, match=r"\[model\] key 'sigma_w2' is unknown \(known: kind, name, options, seed\)"):
        read_spec(written(tmp_path, text.replace('kind = "timm"', 'kind = "timm"\nsigma_w2 = 1.0')))


def test_a_section_that_is_none(tmp_path):
    with pytest.raises(ValueError, match=r"output must be a section, \[output\], got 3"):
        read_spec(written(tmp_path, "output = 3\n" + SPEC))


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("lr = 0.05", "lr = -1.0", r"\[training\] lr must be"),
        ("lr = 0.05", 'device = "gpu"', r"\[training\] device must be"),
        ("features = 20", "features = 0", r"\[data\] features must be"),
        (
            '"blobs"\ncount = 200\nfeatures = 20\nclasses = 3',
            '"mnist"\nfolder = "nowhere"',
            r"\[data\] .*nowhere'; MNIST",
        ),
        ("width = 20", "width = 0", r"\[model\] width must be"),
        ('kind = "mlp"', 'kind = "vit"', r"\[model\] kind 'vit' needs images as inputs, got blobs of shape \(20,\)"),
        ("tries = 4", "tries = 0", r"\[selection\] tries must be"),
    ],
)
def test_specifications_that_cannot_be_run(tmp_path, monkeypatch, old, new, message):
    spec = read_spec(written(tmp_path, (SPEC + OUTPUT).replace(old, new, 1)))
    monkeypatch.setattr(training_run.Run, "take_step", None)  # is not reached
    with pytest.raises(ValueError, match=message):
        run_spec(spec)


# ---- The commands


@pytest.fixture(scope="module", autouse=True)
def _registered():
    if "train" not in [command.name for command in cli.app.registered_commands]:
        cli_training.register(cli.app)


def run_command(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def test_the_example_is_a_specification(tmp_path):
    result = run_command("train", "--example")
    assert (result.exit_code, result.stdout) == (0, EXAMPLE)
    spec = read_spec(written(tmp_path, result.stdout))
    assert spec.ens.sigma_w2 == float(igb.edge_of_chaos("tanh", 0.05))
    checked = run_command("train", tmp_path / "spec.toml", "--check")
    assert checked.exit_code == 0, checked.output
    assert "data       digits: 1,438 inputs of 64 and 359 for the test, 10 classes" in checked.stdout
    assert "the first that fits" in checked.stdout
    page = pathlib.Path(__file__).parents[1] / "docs" / "training.md"
    assert EXAMPLE.partition("\n\n")[2] in page.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["spec.toml"]


@pytest.mark.parametrize("options", [(), ("--check",)])
def test_files_are_checked_before_the_work(tmp_path, options):
    result = run_command("train", written(tmp_path, SPEC + '[output]\ndataset = "nowhere/log.nc"'), *options)
    assert result.exit_code == 3
    assert "[output] dataset cannot be written: there is no folder" in result.stderr
    assert result.stdout == ""


def test_normalise_is_named_as_the_file_names_it(tmp_path):
    spec = read_spec(written(tmp_path, SPEC.replace("classes = 3", "classes = 3\nnormalise = 'feature'")))
    with pytest.raises(ValueError, match="normalise must be one of .*, got 'feature'; did you mean 'features'"):
        spec.make_data()


def test_train_from_the_command_line(tmp_path):
    result = run_command("train", written(tmp_path, SPEC + OUTPUT))
    assert result.exit_code == 0, result.output
    for words in ("model      mlp of 1,", "most biased of 4 initial states", "steps = 12", "gradients,",
                  f"Saved {tmp_path / 'log.nc'}", f"Saved {tmp_path / 'run.pt'}"):  # fmt: skip
        assert words in result.stdout
    assert result.stderr == ""
    quiet = run_command("train", tmp_path / "spec.toml", "--quiet", "--resume")
    assert (quiet.exit_code, quiet.output) == (0, "")


def test_ctrl_c_on_the_command_line(tmp_path, monkeypatch):
    whole = run_spec(read_spec(written(tmp_path, SPEC + OUTPUT)), progress=False).dataset
    for path in tmp_path.glob("*.*"):
        path.unlink()
    spec = written(tmp_path, SPEC + OUTPUT)
    with monkeypatch.context() as patch:
        Cut(patch, 5)
        result = run_command("train", spec)
    assert result.exit_code == 130
    assert f"Error: stopped by Ctrl-C; --resume goes on from {tmp_path / 'run.pt'}" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.pt", "spec.toml"]
    assert run_command("train", spec, "--resume").exit_code == 0
    xr.testing.assert_identical(xr.load_dataset(tmp_path / "log.nc", engine="h5netcdf"), whole)
    with monkeypatch.context() as patch:
        Cut(patch, 5)
        result = run_command("train", written(tmp_path, SPEC))  # without a checkpoint
    assert result.exit_code == 130
    assert "stopped by Ctrl-C, nothing was saved" in result.stderr


def test_exit_codes_of_train(tmp_path):
    exploding = run_command("train", written(tmp_path, SPEC.replace("lr = 0.05", "lr = 1e12").replace("tanh", "relu")))
    assert exploding.exit_code == 1
    assert "Warning: the loss is not finite at step" in exploding.stderr
    assert (tmp_path / "spec.nc").exists()
    for arguments, message in [
        ((), "train needs a file SPEC.toml; igbfast train --example prints one"),
        ((tmp_path / "no.toml",), "there is no file"),
        ((written(tmp_path, SPEC.replace("width", "witdh"), "typo.toml"),), "did you mean 'width'"),
        ((written(tmp_path, SPEC), "--resume"), "resume needs a checkpoint in [output]"),
        ((tmp_path / "spec.toml", "--resum"), "no such option"),
    ]:
        result = run_command("train", *arguments)
        assert result.exit_code == 2, result.output
        assert message.lower() in result.stderr.lower()
        assert len(result.stderr.splitlines()) == 1
    nowhere = SPEC + '[output]\ndataset = "nowhere/log.nc"\n'
    assert run_command("train", written(tmp_path, nowhere)).exit_code == 3


@pytest.fixture
def two_experiments(monkeypatch):
    """A registry of two experiments that only say what they were asked for."""
    from matplotlib.figure import Figure

    from igbfast.torch import experiments
    from igbfast.torch.experiments._experiment import Experiment

    def run(seeds=2, rates=(0.1, 0.2), activation="tanh", folder=None, progress=None):
        return xr.Dataset({"x": ("seed", np.arange(seeds))}, attrs={"said": f"{seeds} {rates} {activation} {folder}"})

    def other(progress=None):
        raise ValueError("there is nothing to run")

    def verdict(dataset):
        return f"It was {dataset.attrs['said']}."

    registry = {
        "first": Experiment(
            run, lambda dataset: Figure(), verdict, "Is it the first?", {"seeds": 50, "folder": "mnist"}
        ),
        "second": Experiment(other, lambda dataset: Figure(), verdict, "Is it not?", {}),
    }
    monkeypatch.setattr(experiments, "EXPERIMENTS", registry, raising=False)


def test_all_experiments_are_named_with_their_options():
    from igbfast.torch.experiments import EXPERIMENTS

    listed = run_command("experiment").stdout.splitlines()
    assert [line.split()[0] for line in listed] == list(EXPERIMENTS)
    for name, experiment in EXPERIMENTS.items():
        shown = run_command("experiment", name, "--options").stdout.splitlines()
        assert [line.split()[0] for line in shown] == list(experiment.defaults)


@pytest.mark.usefixtures("two_experiments")
def test_experiments_from_the_command_line(tmp_path):
    assert run_command("experiment").stdout == "first   Is it the first?\nsecond  Is it not?\n"
    options = run_command("experiment", "first", "--options").stdout.splitlines()
    assert options[0] == "seeds       2  (--paper: 50)"
    assert options[1] == "rates       (0.1, 0.2)"
    result = run_command(
        "experiment", "first", "--set", "rates=[0.5]", "--set", "activation=erf", "--output", tmp_path / "f.nc",
        "--figure", tmp_path / "f.png",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "first: Is it the first?" in result.stdout
    assert "It was 2 [0.5] erf None." in result.stdout
    assert xr.load_dataset(tmp_path / "f.nc", engine="h5netcdf").sizes["seed"] == 2
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    large = run_command("experiment", "first", "--paper", "--set", "seeds=3", "--quiet")
    assert large.stdout == "It was 3 (0.1, 0.2) tanh mnist.\n"
    for arguments, message in [
        (("frist",), "the experiment must be one of 'first', 'second', got 'frist'; did you mean 'first'?"),
        (("first", "--set", "sedes=3"), "the option of --set must be one of 'seeds', "),
        (("first", "--set", "seeds"), "--set must be OPTION=VALUE, got 'seeds'"),
        (("first", "--output", "f.txt"), "--output must end in .nc, got 'f.txt'"),
        (("second",), "there is nothing to run"),
    ]:
        wrong = run_command("experiment", *arguments)
        assert wrong.exit_code == 2
        assert message in wrong.stderr


@pytest.mark.parametrize(
    "line, replacement, message",
    [
        ("steps = 300", "steps = -3  #", r"run.toml: \[training\] steps must be an integer of at least 0, got -3"),
        ('kind = "mlp"', 'kind = "cnn"  #', r"run.toml: \[model\] key 'width' is unknown; did you mean 'channels'\?"),
    ],
)
def test_errors_of_a_spec_name_the_file_and_the_nearest_word(tmp_path, line, replacement, message):
    from igbfast.torch.specification import prepared

    assert line in EXAMPLE
    (tmp_path / "run.toml").write_text(EXAMPLE.replace(line, replacement))
    with pytest.raises(ValueError, match=message):
        prepared(read_spec(tmp_path / "run.toml"))
