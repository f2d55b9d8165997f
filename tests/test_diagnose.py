"""Diagnosis of PyTorch models: against plain NumPy, autograd input by input, theory, and what is known of the model."""

from __future__ import annotations

import copy
import math
import re
import warnings
from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from rich.console import Console
from rich.text import Text

import igbfast as igb

torch = pytest.importorskip("torch")

from torch import nn
from torch.utils.checkpoint import checkpoint

from igbfast.torch import _findings
from igbfast.torch._layer_statistics import GradientStatistics, LayerStatistics, largest_gamma
from igbfast.torch.diagnosis import NotTrainableError, diagnose


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def chain(depth, width=64, activation=nn.Tanh, sigma_w2=1.0, sigma_b2=0.05, classes=None, seed=0, dtype=torch.float32):
    """Linear layers of W ~ N(0, sigma_w2 / width) with an activation after each but the last."""
    generator, parts = seeded(seed), []
    for number in range(depth):
        out = classes if classes and number == depth - 1 else width
        linear = nn.Linear(width, out, dtype=torch.float64)
        with torch.no_grad():
            linear.weight.copy_(torch.randn(out, width, generator=generator) * math.sqrt(sigma_w2 / width))
            linear.bias.copy_(torch.randn(out, generator=generator) * math.sqrt(sigma_b2))
        parts += [linear, activation()]
    return nn.Sequential(*parts[:-1]).to(dtype)


# ---- Statistics of one layer -----------------------------------------------------------------------------------------


def plainly(y):
    """All estimates from their definitions, with every pair of inputs formed."""
    y = np.asarray(y, np.float64).reshape(len(y), -1)
    inputs = len(y)
    sigma_y2 = np.mean(np.var(y, axis=0, ddof=1))
    sigma_mu2 = np.var(y.mean(0), ddof=1) - sigma_y2 / inputs
    pairs = [y[a] @ y[b] / np.linalg.norm(y[a]) / np.linalg.norm(y[b]) for a in range(inputs) for b in range(a)]
    return {"sigma_mu2": sigma_mu2, "sigma_y2": sigma_y2, "q": np.mean(y**2), "c": np.mean(pairs)}


@pytest.mark.parametrize("sizes", [(23,), (1, 4, 18), (11, 1, 11)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_statistics_follow_their_definitions(sizes, dtype):
    y = (torch.randn(6, 50, generator=seeded(1)) + 0.7 * torch.randn(23, 6, 50, generator=seeded(2))).to(dtype)
    kept = y.clone()
    statistics = LayerStatistics()
    for part in y.split(sizes):
        statistics.add(part)
    found = statistics.estimates()
    for name, value in plainly(y.double().numpy()).items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-12), name
    assert (found.inputs, found.units) == (23, 300)
    assert torch.equal(y, kept)


def test_inputs_that_are_nearly_one_keep_their_digits():
    """Differences of 1e-8 beside 1: squares would leave sigma_y2 = 1e-16 no digit at all."""
    centre = torch.randn(400, generator=seeded(1), dtype=torch.float64)
    apart = 1e-8 * torch.randn(30, 400, generator=seeded(2), dtype=torch.float64)
    y = centre + apart
    found = LayerStatistics()
    for part in y.split(7):
        found.add(part)
    estimates = found.estimates()
    exact = (y - y[0]).numpy()  # exact, since neighbours differ by less than a factor of two
    assert estimates.sigma_y2 == pytest.approx(np.mean(np.var(exact, axis=0, ddof=1)), rel=1e-9)
    # 1 - c of nearly equal vectors: half the squared sine of the angle between them
    unit = (centre / centre.norm()).numpy()
    across = exact - np.outer(exact @ unit, unit)
    pairs = [np.sum((across[a] - across[b]) ** 2) / 2 for a in range(30) for b in range(a)]
    assert estimates.one_minus_c == pytest.approx(np.mean(pairs) / float(centre.norm()) ** 2, rel=1e-6)


def test_a_change_of_shape_averages_over_inputs():
    first, second = torch.randn(5, 3, 4, generator=seeded(1)), torch.randn(15, 7, 4, generator=seeded(2))
    statistics = LayerStatistics()
    statistics.add(first)
    statistics.add(second)
    found = statistics.estimates()
    parts = [plainly(first.double().numpy()), plainly(second.double().numpy())]
    for name in ("sigma_mu2", "sigma_y2", "q", "c"):
        assert getattr(found, name) == pytest.approx(0.25 * parts[0][name] + 0.75 * parts[1][name], rel=1e-12)
    assert found.units == 0.25 * 12 + 0.75 * 28


def test_inputs_without_signal_have_no_direction():
    y = torch.randn(6, 40, generator=seeded(1), dtype=torch.float64)
    y[[0, 3]] = 0.0
    statistics = LayerStatistics()
    for part in y.split(2):
        statistics.add(part)
    found = statistics.estimates()
    assert found.c == pytest.approx(plainly(y[[1, 2, 4, 5]].numpy())["c"], rel=1e-12)
    assert found.q == pytest.approx(float(y.square().mean()), rel=1e-12)


def test_gradients_by_class():
    gradient = torch.randn(20, 3, 5, generator=seeded(1), dtype=torch.float64)
    labels = np.arange(20) % 3
    statistics = GradientStatistics(4)
    statistics.add(gradient[:7], labels[:7])
    statistics.add(gradient[7:], labels[7:])
    squares = gradient.numpy() ** 2
    assert statistics.mean_square == pytest.approx(squares.mean())
    assert statistics.square_length == pytest.approx(squares.sum((1, 2)).mean())
    by_class = [squares[labels == k].mean() for k in range(3)]
    np.testing.assert_allclose(statistics.mean_square_by_class, [*by_class, np.nan])


# ---- Models against independent computations -------------------------------------------------------------------------


class Watched(nn.Module):
    """Two layers by hand, which hands out its pre-activations."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv1d(2, 6, 3, padding=1)
        self.two = nn.Linear(24, 4)

    def forward(self, x):
        self.kept = [self.one(x)]
        self.kept.append(self.two(torch.flatten(torch.nn.functional.avg_pool1d(self.kept[0].sin(), 2), 1)))
        return self.kept[-1]


def test_gradients_of_every_input_by_autograd_one_by_one():
    torch.manual_seed(3)
    model = Watched().double()
    x, labels = torch.randn(9, 2, 8, generator=seeded(1), dtype=torch.float64), torch.arange(9) % 4
    ds = diagnose(model, x, labels, batch=4).dataset
    squares = [[], []]
    for a in range(9):
        loss = nn.functional.cross_entropy(model(x[a : a + 1]), labels[a : a + 1])
        for kept, gradient in zip(squares, torch.autograd.grad(loss, model.kept), strict=True):
            kept.append(float(gradient.square().mean()))
    np.testing.assert_allclose(ds.gradient, np.mean(squares, axis=1), rtol=1e-10)
    by_class = [[np.mean(np.array(row)[np.arange(9) % 4 == k]) for k in range(4)] for row in squares]
    np.testing.assert_allclose(ds.gradient_class, by_class, rtol=1e-10)
    outputs = model(x)
    for at, y in enumerate(model.kept):
        for name, value in plainly(y.detach().numpy()).items():
            assert float(ds[name][at]) == pytest.approx(value, rel=1e-10), name
    shares = np.bincount(outputs.argmax(1), minlength=4) / 9
    np.testing.assert_array_equal(ds.class_fraction, shares)
    assert ds.name.values.tolist() == ["one", "two"]
    np.testing.assert_array_equal(ds.units, [48, 4])


def test_the_read_out_has_a_gradient_of_length_one():
    """A Gaussian read-out of n outputs, over sqrt(n): the last layer's squared length is chi-squared(n) / n."""
    ds = diagnose(chain(3, classes=10), torch.randn(2000, 64, generator=seeded(1)), seed=5).dataset
    assert abs(float(ds.gradient[-1] * 10) - 1.0) < 5.0 * math.sqrt(2.0 / (10 * 2000))


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_to_torch_agrees_with_simulation_and_theory(activation):
    """16 networks of each kind: log gamma, q, c and chi within 5 standard errors, and 1/width for theory."""
    width, depth, networks = 300, 8, 16
    ens = igb.Ensemble(activation, sigma_w2=1.9, sigma_b2=0.05)
    x = torch.randn(networks, 60, width, generator=seeded(1))
    found = [
        diagnose(ens.to_torch(width, depth, 10, generator=seeded(seed)), x[seed]).dataset for seed in range(networks)
    ]
    measured = xr.concat([ds.isel(layer=slice(depth)) for ds in found], "network")
    simulated = igb.simulate(ens, width=width, depth=depth, inputs=60, networks=networks, seed=1)
    theory = igb.propagate(ens, depth)
    for name in ("sigma_mu2", "sigma_y2", "gamma", "q", "c"):
        mine, theirs = measured[name].transpose("network", "layer").values, simulated[name].values
        error = np.hypot(mine.std(0, ddof=1), theirs.std(0, ddof=1)) / math.sqrt(networks)
        assert (np.abs(mine.mean(0) - theirs.mean(0)) < 5 * error).all(), name
        own = mine.std(0, ddof=1) / math.sqrt(networks) + 5.0 / width * np.abs(theory[name].values)
        assert (np.abs(mine.mean(0) - theory[name].values) < 5 * own).all(), name
    chi, error = measured.chi.mean("network"), measured.chi.std("network", ddof=1) / math.sqrt(networks)
    assert (np.abs(chi.values - theory.chi.values) < 5 * error.values + 0.02).all()
    np.testing.assert_allclose(measured.chi_theory.mean("network"), theory.chi, rtol=0.05)


def test_chi_of_relu_is_half_of_sigma_w2_whatever_the_widths():
    """Squared lengths, and not mean squares: widths 400, 100, 800 with fan-in weights."""
    generator, sizes = seeded(2), (50, 400, 100, 800, 10)
    parts = []
    for inside, outside in pairwise(sizes):
        linear = nn.Linear(inside, outside, bias=False)
        with torch.no_grad():
            linear.weight.copy_(torch.randn(outside, inside, generator=generator) * math.sqrt(3.0 / inside))
        parts += [linear, nn.ReLU()]
    ds = diagnose(nn.Sequential(*parts[:-1]), torch.randn(400, 50, generator=generator)).dataset
    np.testing.assert_allclose(ds.chi[:-1], 1.5, rtol=0.35)
    np.testing.assert_allclose(ds.chi_theory[:-1], ds.sigma_w2[1:] / 2.0, rtol=1e-9)
    assert np.isnan(ds.chi[-1])


def test_dropout_multiplies_chi():
    """By E[(m / (1 - p))^2] = 1 / (1 - p), m = 0 with probability p."""
    for share in (0.2, 0.5):
        model = nn.Sequential(nn.Linear(64, 400), nn.ReLU(), nn.Dropout(share), nn.Linear(400, 400, bias=False))
        ds = diagnose(model, torch.randn(200, 64, generator=seeded(1))).dataset
        expected = float(ds.sigma_w2[1]) / 2.0 / (1.0 - share)
        assert float(ds.chi_theory[0]) == pytest.approx(expected, rel=1e-9)
        assert float(ds.chi[0]) == pytest.approx(expected, rel=0.1)


def test_batches_of_a_loader_make_no_difference():
    model, x = chain(4, classes=3, dtype=torch.float64), torch.randn(50, 64, generator=seeded(1), dtype=torch.float64)
    labels = torch.arange(50) % 3
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, labels), batch_size=7)
    whole, streamed = diagnose(model, x, labels).dataset, diagnose(model, loader).dataset
    for name in ("sigma_mu2", "sigma_y2", "gamma", "q", "c", "gradient", "gradient_class", "class_fraction"):
        np.testing.assert_allclose(streamed[name], whole[name], rtol=1e-9, err_msg=name)


# ---- Digits ----------------------------------------------------------------------------------------------------------


def test_float32_says_where_its_digits_end():
    x = torch.randn(40, 64, generator=seeded(1))
    single = diagnose(chain(40, sigma_w2=0.4), x).dataset
    double = diagnose(chain(40, sigma_w2=0.4, dtype=torch.float64), x.double()).dataset
    told = single.resolved.values == 1
    assert 10 < told.sum() < 40
    assert told[: told.sum()].all()
    assert np.isnan(single.gamma.values[~told]).all()
    assert np.isnan(single.sigma_y2.values[~told]).all()
    assert (double.gamma.values[~told] > 1e11).all()
    safe = told & (double.gamma.values < 0.1 * largest_gamma(torch.float32))
    np.testing.assert_allclose(single.gamma.values[safe], double.gamma.values[safe], rtol=0.05)
    np.testing.assert_allclose(single.one_minus_c.values[safe], double.one_minus_c.values[safe], rtol=0.05)
    assert double.resolved.values.all()
    lost = np.flatnonzero(~told)[0] + 1
    told = diagnose(chain(40, sigma_w2=0.4), x).findings
    assert any(f"layers {lost} to 40 in float32" in sentence for sentence in told)


# ---- The model stays what it was -------------------------------------------------------------------------------------


class Everything(nn.Module):
    """Batch normalisation, dropout, in-place activations, a shared layer, frozen parameters."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.shared = nn.Linear(4 * 16, 4 * 16)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(4 * 16, 3)
        self.conv.weight.requires_grad_(False)

    def forward(self, x):
        x = torch.relu_(self.norm(self.conv(x))).flatten(1)
        for _ in range(2):
            x = self.drop(torch.relu_(self.shared(x)))
        return self.head(x)


def test_the_model_is_left_bit_by_bit():
    torch.manual_seed(1)
    model = Everything()
    model.drop.eval()
    calls = []
    handle = model.head.register_forward_hook(lambda *_: calls.append(1))
    x, labels = torch.randn(12, 1, 4, 4), torch.arange(12) % 3
    nn.functional.cross_entropy(model(x), labels).backward()
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    versions = [parameter.data_ptr() for parameter in model.parameters()]
    gradients = {name: (p.grad, None if p.grad is None else p.grad.clone()) for name, p in model.named_parameters()}
    modes = [module.training for module in model.modules()]
    needed = [p.requires_grad for p in model.parameters()]
    hooks = [(dict(m._forward_hooks), dict(m._forward_pre_hooks), dict(m._backward_hooks)) for m in model.modules()]
    state = torch.get_rng_state()
    inputs = x.clone()
    diagnose(model, x, labels, batch=5)
    diagnose(model, torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), batch_size=4, shuffle=True))
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    assert [parameter.data_ptr() for parameter in model.parameters()] == versions
    for name, parameter in model.named_parameters():
        before, values = gradients[name]
        assert parameter.grad is before
        assert before is None or torch.equal(parameter.grad, values)
    assert [module.training for module in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == needed
    after = [(dict(m._forward_hooks), dict(m._forward_pre_hooks), dict(m._backward_hooks)) for m in model.modules()]
    assert after == hooks
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, inputs)
    assert not x.requires_grad
    assert torch.is_grad_enabled()
    handle.remove()


def test_an_error_leaves_it_too():
    torch.manual_seed(1)
    model = Everything()
    kept = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match="labels must be from 0 to 2, one of the outputs, got 3"):
        diagnose(model, torch.zeros(4, 1, 4, 4), [0, 1, 2, 3])
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.conv.weight.requires_grad


def test_the_same_seed_gives_the_same_numbers():
    torch.manual_seed(1)
    model, x = Everything(), torch.randn(12, 1, 4, 4)
    one = diagnose(model, x, seed=3).dataset
    torch.rand(5)
    xr.testing.assert_identical(diagnose(model, x, seed=3).dataset, one)
    assert not np.array_equal(diagnose(model, x, seed=4).dataset.gradient, one.gradient)


def test_notes_say_what_the_mode_does():
    torch.manual_seed(1)
    model, x = Everything(), torch.randn(12, 1, 4, 4)
    notes = " ".join(diagnose(model, x).findings)
    assert "batch normalisation uses the statistics of each batch" in notes
    assert "dropout of 0.3 is active" in notes
    notes = " ".join(diagnose(model.eval(), x).findings)
    assert "dropout" not in notes
    assert "batch normalisation" not in notes


# ---- Many kinds of models --------------------------------------------------------------------------------------------


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(30, 16)
        self.body = nn.Linear(16, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, tokens):
        return self.head(torch.tanh(self.body(self.embed(tokens))).mean(1))


@pytest.mark.parametrize("frozen", [False, True])
def test_frozen_models_and_tokens_have_gradients(frozen):
    torch.manual_seed(1)
    model = Tokens()
    tokens, labels = torch.randint(0, 30, (40, 6)), torch.arange(40) % 4
    free = diagnose(model, tokens, labels).dataset
    for parameter in model.parameters():
        parameter.requires_grad_(not frozen)
    ds = diagnose(model, tokens, labels).dataset
    assert (ds.gradient > 0.0).all()
    np.testing.assert_array_equal(ds.gradient, free.gradient)
    assert all(p.requires_grad is not frozen for p in model.parameters())


class Checkpointed(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how = how
        self.one, self.body, self.head = nn.Linear(8, 8), chain(3, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.one(x)
        how = {"use_reentrant": self.how == "reentrant"}
        return self.head(self.body(x) if self.how is None else checkpoint(self.body, x, **how))


def test_checkpointed_parts_show_their_gradients():
    x, found = torch.randn(20, 8, generator=seeded(1)), {}
    for how in (None, "reentrant", "not reentrant"):
        torch.manual_seed(1)
        found[how] = diagnose(Checkpointed(how), x).dataset
    for how in ("reentrant", "not reentrant"):
        np.testing.assert_array_equal(found[how].gradient, found[None].gradient)
        np.testing.assert_array_equal(found[how].q, found[None].q)


def test_modes_around_the_call_make_no_difference():
    """Rounded weights that autocast keeps, and inference mode, under which nothing would have a gradient."""
    model, x = chain(3, 8, dtype=torch.float32), torch.randn(20, 8, generator=seeded(1))
    plain = diagnose(model, x).dataset
    with torch.inference_mode():
        np.testing.assert_array_equal(diagnose(model, x.clone()).dataset.gradient, plain.gradient)
        assert torch.is_inference_mode_enabled()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(x)
        rough = diagnose(model, x).dataset
        assert torch.is_autocast_cache_enabled()
    assert rough.attrs["dtype"] == "bfloat16"
    np.testing.assert_allclose(rough.gradient, plain.gradient, rtol=0.03)


@pytest.mark.parametrize("norm", [nn.Identity(), nn.BatchNorm1d(5)], ids=["plain", "batch normalisation"])
def test_models_that_write_into_their_inputs(norm):
    class Writes(nn.Module):
        def __init__(self, in_place):
            super().__init__()
            self.in_place, self.body = in_place, nn.Sequential(nn.Linear(6, 5), norm, nn.Linear(5, 3))

        def forward(self, x):
            return self.body(x.mul_(2.0).sub_(1.0) if self.in_place else 2.0 * x - 1.0)

    x = torch.randn(20, 6, generator=seeded(1))
    kept, found = x.clone(), []
    for in_place in (False, True):
        for inputs in (x, [x]):
            torch.manual_seed(1)
            found.append(diagnose(Writes(in_place), inputs).dataset)
            assert torch.equal(x, kept)
    for other in found[1:]:
        np.testing.assert_allclose(other.q, found[0].q, rtol=1e-6)
        np.testing.assert_allclose(other.gradient, found[0].gradient, rtol=1e-5)


def test_masks_that_are_added_may_be_infinite():
    torch.manual_seed(1)
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    x, mask = torch.randn(12, 5, 8), nn.Transformer.generate_square_subsequent_mask(5)
    added = diagnose(model, (x, mask)).dataset
    forbidden = diagnose(model, (x, mask == -math.inf)).dataset
    np.testing.assert_allclose(added.q, forbidden.q, rtol=1e-6)
    assert not np.allclose(added.q, diagnose(model, x).dataset.q, rtol=1e-3)


def test_sentences_of_several_lengths():
    torch.manual_seed(1)
    model = Tokens()
    lengths = (3, 5, 5, 9)
    batches = [torch.randint(0, 30, (10, length)) for length in lengths]
    ds = diagnose(model, batches).dataset
    parts = [diagnose(model, [batch]).dataset for batch in (batches[0], torch.cat(batches[1:3]), batches[3])]
    mean = sum(w * part.sigma_y2 for w, part in zip((0.25, 0.5, 0.25), parts, strict=True))
    assert float(ds.sigma_y2[0]) == pytest.approx(float(mean[0]), rel=1e-6)
    with torch.no_grad():  # the head, after a mean over the tokens, has one shape
        outputs = torch.cat([model(batch) for batch in batches])
    assert float(ds.sigma_y2[1]) == pytest.approx(plainly(outputs.numpy())["sigma_y2"], rel=1e-5)
    assert ds.attrs["inputs"] == 40
    assert float(ds.units[0]) == 16 * np.mean(lengths)


@pytest.mark.parametrize("batch_first", [True, False])
def test_transformer_encoder(batch_first):
    torch.manual_seed(1)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=batch_first, norm_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    x = torch.randn(12, 5, 16, generator=seeded(1))
    outputs = diagnose(model.eval(), x if batch_first else x.transpose(0, 1), batch_axis=0 if batch_first else 1)
    ds = outputs.dataset
    assert [name for name in ds.name.values if "linear1" in name] == ["layers.0.linear1", "layers.1.linear1"]
    assert np.isfinite(ds.q).all()
    assert (ds.gradient > 0).all()
    assert not ds.attrs["chain"]
    with torch.no_grad():
        y = nn.functional.linear(
            model.layers[0].norm1(x), model.layers[0].self_attn.in_proj_weight, model.layers[0].self_attn.in_proj_bias
        )
    np.testing.assert_allclose(ds.q[0], float(y.square().mean()), rtol=1e-5)
    np.testing.assert_allclose(ds.sigma_y2[0], plainly(y.numpy())["sigma_y2"], rtol=1e-5)


@pytest.mark.parametrize("form", ["scripted", "compiled", "data parallel"])
def test_wrapped_models_give_the_same(form):
    model, x = chain(4, classes=3), torch.randn(20, 64, generator=seeded(1))
    wrap = {"scripted": torch.jit.script, "compiled": _compiled, "data parallel": nn.DataParallel}[form]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of PyTorch's own
        wrapped = wrap(model)
    one, other = diagnose(model, x).dataset, diagnose(wrapped, x).dataset
    for name in ("gamma", "q", "gradient", "class_fraction"):
        np.testing.assert_allclose(other[name], one[name], rtol=1e-6)


def _compiled(model):
    return torch.compile(model, backend="eager")


def test_half_precision():
    x = torch.randn(50, 64, generator=seeded(1))
    exact, rough = diagnose(chain(5), x).dataset, diagnose(chain(5, dtype=torch.bfloat16), x).dataset
    np.testing.assert_allclose(rough.q, exact.q, rtol=0.05)
    assert rough.attrs["dtype"] == "bfloat16"
    assert float(rough.gamma_limit[0]) == 256.0


def test_a_function_of_the_user_gives_the_outputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = chain(3, classes=5)

        def forward(self, x, scale):
            return {"features": x, "answers": [self.body(x * scale)]}

    model, x = Two(), torch.randn(20, 64, generator=seeded(1))
    ds = diagnose(model, (x, 2.0), forward=lambda m, *inputs: m(*inputs)["answers"][0], classes=5).dataset
    plain = diagnose(model.body, 2.0 * x).dataset
    np.testing.assert_allclose(ds.gradient, plain.gradient)
    assert ds.name.values.tolist() == ["body.0", "body.2", "body.4"]


def test_layers_that_the_output_does_not_see():
    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.aside = nn.Linear(8, 3), nn.Linear(8, 3)

        def forward(self, x):
            return self.used(x), self.aside(x)

    found = diagnose(Aside(), torch.randn(10, 8, generator=seeded(1)))
    assert np.isnan(found.dataset.gradient[1])
    assert any("no gradient reaches layer 2" in sentence for sentence in found.findings)


# ---- Phases and advice -----------------------------------------------------------------------------------------------


def handmade(log_lengths, names=None, chain=True):
    """A dataset that says no more than gradients."""
    n = len(log_lengths)
    names = [str(i) for i in range(n)] if names is None else names
    constant = {"units": 100.0, "sigma_w2": 1.0, "sigma_w2_edge": np.nan, "gamma": 1.0, "one_minus_c": 0.5, "q": 1.0}
    variables = {key: ("layer", np.full(n, value)) for key, value in constant.items()}
    variables |= {"source": ("layer", ["layer"] * n), "resolved": ("layer", np.ones(n))}
    variables["pooled"] = ("layer", np.zeros(n))
    variables["activation"] = ("layer", ["relu"] * n)
    variables["gradient"] = ("layer", np.exp(np.asarray(log_lengths, float)) / 100.0)
    attrs = {"chain": int(chain), "branches": 0, "inputs": 100, "dtype": "float32"}
    return xr.Dataset(variables, {"layer": np.arange(1, n + 1), "name": ("layer", names)}, attrs)


def test_one_slope_is_one_stretch():
    (part,) = _findings.stretches(handmade(np.log(0.82) * np.arange(40)[::-1]))
    assert (part.first, part.last, part.phase) == (1, 40, "ordered")
    assert part.chi == pytest.approx(0.82)
    assert part.total == pytest.approx(0.82**39)


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_a_change_of_slope_is_found(noise):
    """30 ordered steps below 40 at the edge below 30 chaotic ones, as random walks with drift."""
    drifts = np.repeat(np.log([0.7, 1.0, 1.4]), [30, 40, 30])
    steps = drifts + noise * np.random.default_rng(0).standard_normal(100)
    parts = _findings.stretches(handmade(np.append(np.cumsum(steps[::-1])[::-1], 0.0)))
    assert [part.phase for part in parts] == ["ordered", "edge of chaos", "chaotic"]
    assert abs(parts[0].last - 31) <= 3
    assert abs(parts[1].last - 71) <= 3
    assert _findings.phase_of(parts) == "mixed"
    assert _findings.phase_of(parts[1:]) == "chaotic"


def test_a_random_walk_without_drift_is_at_the_edge():
    for seed in range(20):
        steps = 0.3 * np.random.default_rng(seed).standard_normal(60)
        steps -= steps.mean()
        assert _findings.phase_of(_findings.stretches(handmade(np.append(np.cumsum(steps[::-1])[::-1], 0.0)))) == (
            "edge of chaos"
        )


def test_kinds_of_layers_are_compared_with_their_own():
    """Blocks of query and value, the first of which gets a thousandth of the gradient."""
    names = [f"blocks.{block}.{kind}" for block in range(20) for kind in ("q", "fc1")]
    rise = -np.log(1.1) * np.arange(40)
    jagged = rise + np.where(np.arange(40) % 2 == 0, -7.0, 0.0)
    (part,) = _findings.stretches(handmade(jagged, names, chain=False))
    assert part.phase == "chaotic"
    assert part.chi == pytest.approx(1.1, rel=1e-6)
    ends = np.concatenate([[jagged[0] + 20.0], jagged, [jagged[-1] - 20.0]])  # such as embeddings and a head
    (part,) = _findings.stretches(handmade(ends, ["embed", *names, "head"], chain=False))
    assert (part.first, part.last) == (2, 41)
    assert part.chi == pytest.approx(1.1, rel=1e-6)


def test_noise_of_single_layers_is_smoothed_away():
    names = [f"blocks.{block}.{kind}" for block in range(20) for kind in ("q", "fc1")]
    lengths = -np.log(1.1) * np.arange(40) + 0.3 * np.random.default_rng(0).standard_normal(40)
    smooth = _findings.gradient_profile(handmade(lengths, names, chain=False))
    assert np.diff(smooth).std() < 0.5 * np.diff(lengths).std()
    assert np.polyfit(np.arange(40), smooth, 1)[0] == pytest.approx(np.polyfit(np.arange(40), lengths, 1)[0], rel=0.1)


def test_layers_of_one_kind_in_one_corner_do_not_speak_for_all():
    """A stem of four that grows, and nothing else to compare: lengths as they are."""
    names = [*(f"stem.conv{i}.linear" for i in range(4)), *(f"part{'abcdefgh'[i]}" for i in range(8))]
    lengths = np.concatenate([[3.0, 2.0, 1.0, 0.0], np.arange(1.0, 9.0) * 2.0])
    profile = _findings.gradient_profile(handmade(lengths, names, chain=False))
    np.testing.assert_allclose(profile, lengths)


def test_vanished_and_overflowed_gradients():
    lengths = np.concatenate([[-np.inf] * 5, np.log(0.1) * np.arange(10)[::-1]])
    (part,) = _findings.stretches(handmade(lengths))
    assert (part.first, part.phase, part.total) == (1, "ordered", 0.0)
    assert any("exactly zero at layers 1 to 5" in text for text in _findings.findings(handmade(lengths)))
    lengths[:5] = np.inf
    found = _findings.stretches(handmade(lengths))
    assert [part.phase for part in found] == ["chaotic", "ordered"]
    assert any("overflow at layers 1 to 5" in text for text in _findings.findings(handmade(lengths)))


def test_overflow_is_told_and_not_hidden():
    pytest.importorskip("matplotlib")
    import matplotlib.pyplot as plt

    found = diagnose(chain(60, 64, nn.ReLU, 200.0, classes=3), torch.randn(20, 64, generator=seeded(1)))
    text = " ".join(found.findings)
    assert "outputs are not finite at layers" in text
    assert "gradients overflow at" in text
    assert np.isinf(found.dataset.gradient[0])
    assert not np.isfinite(found.dataset.gamma[-1])
    with pytest.raises(AssertionError):
        found.assert_trainable()
    assert "nan" in found.summary()
    assert np.isnan(found.dataset.class_fraction).all()
    assert "guess" not in text
    plt.close(found.plot())


@pytest.mark.parametrize(
    "activation, sigma_w2, sigma_b2, phase",
    [
        (nn.Tanh, 0.7, 0.05, "ordered"),
        (nn.Tanh, 4.0, 0.05, "chaotic"),
        (nn.ReLU, 0.5, 0.05, "ordered"),
        (nn.ReLU, 3.0, 0.05, "chaotic"),
        (nn.Tanh, 0.7, 0.0, "ordered"),  # at whose edge, sigma_w2 = 1, only a share of 1 / depth arrives
        (nn.GELU, 1.2, 0.0, "ordered"),  # its edge is no attractor: chi depends on the size of the signal
        (nn.SELU, 1.8, 0.0, "chaotic"),
    ],
)
def test_the_advice_brings_the_model_to_the_edge(activation, sigma_w2, sigma_b2, phase):
    """With the weights multiplied as the sentence says, gradients are as long at the first layer as at the last."""
    model = chain(30, 200, activation, sigma_w2, sigma_b2)
    x = torch.randn(60, 200, generator=seeded(1))
    before = diagnose(model, x)
    assert before.phase == phase
    factor = float(before.findings[0].rpartition("multiply the weights by ")[2])
    with torch.no_grad():
        for module in model:
            if isinstance(module, nn.Linear):
                module.weight.mul_(factor)
    after = diagnose(model, x)
    assert after.phase == "edge of chaos"
    assert 1.0 / 5.0 < after.gradient_ratio < 5.0
    assert not 1.0 / 50.0 < before.gradient_ratio < 50.0


@pytest.mark.parametrize("size", [1.0, 3.0])
def test_the_advice_for_residual_branches(size):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(64, 64), nn.Linear(64, 64)
            for layer in (self.one, self.two):
                nn.init.normal_(layer.weight, 0.0, math.sqrt(size / 64))

        def forward(self, x):
            return x + self.two(torch.tanh(self.one(x)))

    torch.manual_seed(1)
    model, x = nn.Sequential(*(Block() for _ in range(15))), torch.randn(30, 64, generator=seeded(1))
    found = diagnose(model, x)
    assert found.phase == "chaotic"
    assert found.gradient_ratio > 5.0
    factor = float(re.search("weights of the 15 branches by ([0-9.]+), or use init_", found.findings[0])[1])
    with torch.no_grad():
        for block in model:
            block.two.weight.mul_(factor)
    assert 0.2 < diagnose(model, x).gradient_ratio < 5.0


def test_advice_takes_the_edge_where_it_is_known_and_else_the_measured_chi():
    ds = handmade(np.log(0.64) * np.arange(20)[::-1])
    assert _findings.findings(ds)[0].endswith("multiply the weights by 1.25")
    ds["sigma_w2_edge"][:] = 1.01 * ds.sigma_w2
    assert _findings.findings(ds)[0].endswith("at this width that is chance")
    ds["sigma_w2_edge"][:] = 2.25 * ds.sigma_w2
    assert _findings.findings(ds)[0].endswith("multiply the weights by 1.5")
    ds["sigma_w2_edge"][7] = np.nan
    assert _findings.findings(ds)[0].endswith("multiply the weights by 1.25")
    for name, value in (("pooled", 1), ("activation", "gelu"), ("sigma_w2", np.nan)):
        other = ds.copy(deep=True)
        other[name][5] = value
        assert _findings.findings(other)[0].endswith("initialise it with init_"), name


def test_advice_never_goes_the_wrong_way():
    ds = handmade(np.log(0.64) * np.arange(20)[::-1])
    ds["sigma_w2_edge"][:] = 0.5 * ds.sigma_w2  # smaller weights for gradients that shrink
    assert _findings.findings(ds)[0].endswith("initialise it with init_")


def test_criticality_that_is_slow_is_told_from_chance():
    """tanh with sigma_w2 = 1, sigma_b2 = 0: chi = 1 - 2 q, q = 1 / (2 l), so 1 / depth is left."""
    x = torch.randn(60, 200, generator=seeded(1))
    exact = diagnose(chain(60, 200, nn.Tanh, 1.0, 0.0), x)
    assert exact.gradient_ratio == pytest.approx(1.0 / 60, rel=0.5)
    assert exact.findings[0].endswith("the edge of chaos of their activation: theory expects as much at this depth")
    near = diagnose(chain(200, 200, nn.ReLU, 1.93, 0.0), x[:30])
    assert near.findings[0].endswith("the edge of chaos of their activation: theory expects as much at this depth")
    for depth, dtype in ((80, torch.float32), (160, torch.float16)):  # of the latter, nothing is left
        narrow = chain(depth, 12, nn.ReLU, 2.0, 0.0, dtype=dtype)
        chance = diagnose(narrow, torch.randn(20, 12, generator=seeded(1)))
        assert chance.findings[0].endswith("at this width that is chance")
    assert chance.gradient_ratio == 0.0


def test_one_phase_of_a_few_layers_is_not_that_of_the_whole():
    """Of 51 layers 6 grow by 1.2, 3 in all; or by 1.8, 34 in all; and stretches that outweigh each other."""
    for few, many, phase in ((1.2, 1.0, "edge of chaos"), (1.8, 1.0, "chaotic"), (1.8, 0.995, "chaotic")):
        steps = np.repeat(np.log([few, many]), [6, 45])
        parts = _findings.stretches(handmade(np.append(np.cumsum(steps[::-1])[::-1], 0.0)))
        assert _findings.phase_of(parts) == phase, (few, many)
    chaotic, edge = _findings.Stretch(1, 7, "chaotic", 1.4, 7.0), _findings.Stretch(7, 90, "edge of chaos", 0.96, 0.03)
    assert _findings.phase_of([chaotic, edge]) == "edge of chaos"
    assert _findings.phase_of([chaotic, _findings.Stretch(7, 90, "edge of chaos", 0.92, 0.001)]) == "mixed"


def test_small_steps_add_up():
    """1.04 a layer is little; 200 layers make 2500 of it, more than an edge of chaos may. One rule for all lengths."""
    for depth, chi, phase in (
        (30, 1.04, "edge of chaos"),
        (31, 1.06, "edge of chaos"),  # 5.7 in all
        (62, 1.04, "chaotic"),  # 11 in all: what counts is the whole
        (200, 1.04, "chaotic"),
        (11, 0.692, "ordered"),  # 0.025 in all
        (2, 0.6, "edge of chaos"),
        (2, 0.4, "ordered"),  # a step is held to 2, whatever comes of it
    ):
        (part,) = parts = _findings.stretches(handmade(-np.log(chi) * np.arange(depth)))
        assert part.phase == phase, (depth, chi)
        assert _findings.phase_of(parts) == phase, (depth, chi)


def test_scatter_makes_no_ordered_chain_critical():
    """0.692 a layer, by turns 0.34 and 1.4: what is lost in ten layers counts, not how evenly."""
    steps = np.log(0.692) + np.tile([0.7, -0.7], 5)
    (part,) = _findings.stretches(handmade(np.append(np.cumsum(steps[::-1])[::-1], 0.0)))
    assert part.phase == "ordered"
    assert part.total == pytest.approx(0.692**10)


def test_phases_in_words():
    """Layers up to the bounds of assert_trainable are said to train; stable gradients are said to be so."""
    for chi, words in (
        (0.998, "are stable (0.998 a layer, 0.98 of them reach layer 1)"),
        (1.0, "are stable (1 a layer, all of them reach layer 1)"),
        (1.1, "are stable (1.1 a layer, 2.4 times as large at layer 1)"),
        (1.6, "grow by 1.6 a layer, 69 times as large at layer 1, within what trains (0.001 to 1000)"),
        (3.0, "grow by 3 a layer, 2e+04 times as large at layer 1; multiply"),
        (0.6, "shrink by 0.6 a layer, 0.01 of them reach layer 1, within what trains (0.001 to 1000)"),
        (0.1, "shrink by 0.1 a layer, 1e-9 of them reach layer 1; multiply"),
    ):
        ds = handmade(-np.log(chi) * np.arange(10))
        sentence = _findings.findings(ds)[0]
        assert f"squared gradients {words}".replace("e+04", "e4") in sentence
        assert ("within what trains" in sentence) == (
            not any(_findings.untrainable(ds)) and "edge of chaos" not in sentence
        )


def test_no_factor_where_deviations_of_the_variance_grow():
    """A chain of 60 SiLU needs q at the one unstable value at which chi is 1: 10 % off, it is 1e-8 of what it was."""
    x = torch.randn(60, 64, generator=seeded(1))
    deep = diagnose(chain(60, 64, nn.SiLU, 1.0 / 3.0, 0.003), x)
    assert deep.phase == "ordered"
    assert deep.findings[0].endswith("initialise it with init_(model, inputs=...)")
    ens = igb.Ensemble("silu", 2.7**2 / 3.0, 0.003)
    totals = [float(np.log(igb.propagate(ens, 59, q0=q0).chi).sum()) for q0 in (0.8, 1.0, 1.25)]
    assert np.ptp(totals) > math.log(1e6)


def test_bias_of_the_guess_in_words():
    ds = handmade(np.zeros(10))
    ds["class_fraction"] = ("class", [0.01, 0.97, 0.02, 0.0])
    text = " ".join(_findings.findings(ds))
    assert "97 % of the inputs go to class 1 (a fair share is 25 %); 1 of the 4 classes gets none" in text
    ds["class_fraction"] = ("class", [0.2, 0.3, 0.24, 0.26])
    assert "the untrained guess is fair, as far as 100 inputs tell" in " ".join(_findings.findings(ds))


def test_gradients_of_one_class_in_words():
    ds = handmade(np.zeros(10))
    ds["gradient_class"] = (("layer", "class"), np.tile([1.0, 1.2, 1e-6, np.nan], (10, 1)))
    assert any("squared gradients of class 2 are 9.1e-7 of those of the others" in s for s in _findings.findings(ds))


def test_assert_trainable():
    x = torch.randn(60, 64, generator=seeded(1))
    good, bad = diagnose(chain(10, sigma_w2=1.4, classes=10), x), diagnose(chain(30, sigma_w2=0.4, classes=10), x)
    good.assert_trainable()
    with pytest.raises(NotTrainableError, match="less than 0.001") as caught:
        bad.assert_trainable()
    assert isinstance(caught.value, AssertionError)
    assert "layers 1 to 30 are ordered" in str(caught.value)
    with pytest.raises(AssertionError, match="one class gets a share of"):
        bad.assert_trainable(min_ratio=1e-300, max_class_fraction=0.5)
    bad.assert_trainable(min_ratio=1e-300)
    with pytest.raises(AssertionError, match="more than 1000"):
        diagnose(chain(30, sigma_w2=9.0), x).assert_trainable()
    with pytest.raises(ValueError, match="min_ratio must be a positive finite number, got 0"):
        good.assert_trainable(0)


def test_assert_trainable_does_not_pass_where_nothing_was_compared():
    class Hidden(nn.Module):  # as in a recurrent network whose matrices are multiplied by one fused operation
        def __init__(self):
            super().__init__()
            self.pairs, self.head = nn.Bilinear(8, 8, 12), nn.Linear(12, 3)

        def forward(self, x):
            return self.head(self.pairs(x, x))

    torch.manual_seed(1)
    found = diagnose(Hidden(), torch.randn(20, 8), torch.arange(20) % 3)
    assert found.phase == "unknown"
    with pytest.raises(NotTrainableError, match="nothing was compared: 1 layer seen") as caught:
        found.assert_trainable()
    assert "pairs.weight: used by" in str(caught.value)
    found.assert_trainable(allow_unknown=True)
    with pytest.raises(TypeError, match="allow_unknown"):
        found.assert_trainable(allow_unknown=1)
    assert found.summary().startswith("Hidden: 1 layer, ")


def test_colours_follow_assert_trainable():
    """Chaotic by a factor of 60 is no alarm; by 1e5 it is."""
    x = torch.randn(60, 64, generator=seeded(1))
    for depth, style in ((12, "yellow"), (30, "bold red")):
        found = diagnose(chain(depth, 64, nn.ReLU, 3.0, 0.0), x)
        assert found.phase == "chaotic"
        texts = [item for item in found.__rich_console__(Console(), Console().options) if isinstance(item, Text)]
        told = [text for text in texts if text.plain.startswith(("phase:", "* layers 1 to"))]
        assert [str(text.style) for text in told] == [style, style]
        if style == "yellow":
            found.assert_trainable()
        else:
            with pytest.raises(NotTrainableError):
                found.assert_trainable()


# ---- What it looks like ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [72, 80, 120, 200])
def test_tables_of_deep_models_are_folded_and_fit(width):
    found = diagnose(chain(60, sigma_w2=1.5, classes=3), torch.randn(30, 64, generator=seeded(1)))
    lines = found.summary(width).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) < 50
    assert any("36 more" in line for line in lines)
    rows = [line.split()[0] for line in lines if line.strip() and line.split()[0].isdigit()]
    assert rows == [str(i) for i in (*range(1, 13), *range(49, 61))]
    assert "tanh" in found.summary(width)
    assert "phase" in found._repr_html_()
    assert repr(found).startswith("<Diagnosis of Sequential: 60 layers, 30 inputs;")


@pytest.mark.parametrize("classes", [None, 3, 60])
def test_figures(classes):
    pytest.importorskip("matplotlib")
    import matplotlib.pyplot as plt

    figure = diagnose(chain(12, sigma_w2=0.3, classes=classes), torch.randn(30, 64, generator=seeded(1))).plot()
    assert [ax.get_ylabel() for ax in figure.axes] == [
        r"bias strength $\gamma$",
        "squared length of the gradient",
        "share of the inputs",
    ]
    gamma = figure.axes[0].lines[0].get_ydata()
    assert len(gamma) == 12
    plt.close(figure)


def test_datasets_survive_a_file(tmp_path):
    found = diagnose(chain(4, classes=3), torch.randn(30, 64, generator=seeded(1)), torch.arange(30) % 3)
    found.to_netcdf(tmp_path / "d.nc")
    xr.testing.assert_equal(xr.load_dataset(tmp_path / "d.nc"), found.dataset)


# ---- Errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((torch.zeros(0, 64),), "inputs must hold at least one input"),
        (([],), "inputs must hold at least one batch, got an empty iterable"),
        ((torch.ones(1, 64),), "inputs must hold at least 2 inputs, got 1"),
        ((torch.full((3, 64), math.inf),), "inputs must be finite, got inf at index"),
        ((torch.ones(3, 64), [0, 1, 7]), "labels must be from 0 to 2, one of the outputs, got 7"),
        ((torch.ones(3, 64), [0, -1, 1]), "labels must be 0 or more, got -1$"),
        (([(torch.ones(3, 64), torch.tensor([0, -1, 2]))],), "labels must be 0 or more, got -1 in batch 0 of inputs"),
        ((torch.ones(3, 64), [0, 1]), r"labels must be one class for each of the 3 inputs, got shape \(2,\)$"),
        (
            (torch.ones(3, 64), np.zeros((3, 5), int)),
            r"got shape \(3, 5\); without labels, gradients are those of a random read-out of the outputs",
        ),
        ((torch.ones(3, 60),), r"the model does not take inputs of shape \(N, 60\): mat1 and mat2 shapes cannot"),
        (([(torch.ones(3, 64), torch.tensor([0, 1, 2])), torch.ones(3, 64)],), "batch 1 has none, batch 0 some"),
    ],
)
def test_bad_inputs(arguments, message):
    with pytest.raises(ValueError, match=message):
        diagnose(chain(2, classes=3), *arguments)


def test_a_data_gives_its_inputs_and_labels():
    model, data = chain(3, classes=4), igb.torch.data.gaussian(30, 64, 4, seed=1)
    xr.testing.assert_identical(diagnose(model, data).dataset, diagnose(model, data.inputs, data.labels).dataset)
    with pytest.raises(ValueError, match="labels must not be given beside a Data"):
        diagnose(model, data, data.labels)


def test_bad_models_and_arguments():
    x = torch.ones(3, 64)
    with pytest.raises(TypeError, match="model must be a torch.nn.Module, got 3"):
        diagnose(3, x)
    with pytest.raises(ValueError, match="model must have parameters, got a ReLU"):
        diagnose(nn.ReLU(), x)
    with pytest.raises(ValueError, match="lazy"):
        diagnose(nn.LazyLinear(3), x)
    with pytest.raises(ValueError, match="showed no layer"):
        diagnose(nn.LayerNorm(64), x)
    with pytest.raises(ValueError, match="classes must be the number of the model's outputs, 3, got 4"):
        diagnose(chain(2, classes=3), x, classes=4)
    with pytest.raises(ValueError, match="outputs must be of shape"):
        diagnose(nn.Sequential(nn.Linear(64, 6), nn.Unflatten(1, (2, 3))), x, [0, 1, 2])
    with pytest.raises(TypeError, match="forward must be a function"):
        diagnose(chain(2), x, forward=3)
    with pytest.raises(ValueError, match="seed must be"):
        diagnose(chain(2), x, seed=-1)
    with pytest.raises(ValueError, match="outputs must be real numbers"):
        diagnose(chain(2), x, forward=lambda model, x: model(x).argmax(1))
