"""Initialisation: the laws of the weights against closed forms and brute force, the gradients they give by autograd."""

from __future__ import annotations

import copy
import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

import igbfast as igb

torch = pytest.importorskip("torch")

from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils import parametrizations, prune

from igbfast.torch import _drawing
from igbfast.torch._critical import planned, resting_variance, visible_share
from igbfast.torch.initialisation import init_, scale_

THREE = math.log(3.0)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(*shape, seed=5, dtype=torch.float32):
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def mlp(activation, width, depth, features=30, classes=10, **options):
    layers = [nn.Linear(features, width, **options), activation()]
    for _ in range(depth - 1):
        layers += [nn.Linear(width, width, **options), activation()]
    return nn.Sequential(*layers, nn.Linear(width, classes, **options))


def squared_gradients(model, modules, inputs, labels):
    """Mean square over units and inputs of the gradients at the outputs of some modules, of each input's own loss."""
    found = {}

    def follow(module, _, output):
        output.register_hook(lambda gradient: found.__setitem__(module, float(gradient.double().square().mean())))

    handles = [module.register_forward_hook(follow) for module in modules]
    F.cross_entropy(model(inputs), labels, reduction="sum").backward()
    for handle in handles:
        handle.remove()
    model.zero_grad()
    return [found[module] for module in modules]


def log_ratio(model, first, last, inputs):
    labels = torch.arange(len(inputs)) % 10
    a, b = squared_gradients(model, [first, last], inputs, labels)
    return math.log(a / b) if a > 0.0 else -math.inf


# ---- Drawing ---------------------------------------------------------------------------------------------------------


def test_gaussian_weights_and_biases_have_the_law_asked_for():
    drawn = _drawing.weight((300, 200), 0.3, generator=seeded(), dtype=torch.float64).ravel().numpy()
    assert stats.kstest(drawn / math.sqrt(0.3), "norm").pvalue > 1e-4
    biases = _drawing.bias(20_000, 0.7, generator=seeded(), dtype=torch.float64).numpy()
    assert stats.kstest(biases / math.sqrt(0.7), "norm").pvalue > 1e-4
    assert not _drawing.bias(5, 0.0).any()


@pytest.mark.parametrize("shape, groups", [((7, 7), 1), ((5, 12), 1), ((12, 5), 1), ((6, 4, 3), 2), ((8, 1, 3, 3), 8)])
def test_orthogonal_weights_have_orthogonal_rows_or_columns(shape, groups):
    drawn = _drawing.weight(shape, 0.5, law="orthogonal", groups=groups, generator=seeded(), dtype=torch.float64)
    assert drawn.square().mean().item() == pytest.approx(0.5, rel=1e-12)
    for part in drawn.reshape(groups, shape[0] // groups, -1):
        small = part @ part.T if part.shape[0] <= part.shape[1] else part.T @ part
        want = 0.5 * max(part.shape) * torch.eye(len(small), dtype=torch.float64)
        torch.testing.assert_close(small, want, rtol=0, atol=1e-12)


def test_orthogonal_weights_are_uniform():
    # The square of one entry of a Haar matrix of size n is Beta(1/2, (n - 1)/2); its sign is fair.
    generator, n = seeded(3), 4
    entries = [
        _drawing.weight((n, n), 1 / n, law="orthogonal", generator=generator, dtype=torch.float64)[0, 0].item()
        for _ in range(1500)
    ]
    assert stats.kstest(np.square(entries), stats.beta(0.5, (n - 1) / 2).cdf).pvalue > 1e-4
    assert stats.binomtest(sum(e > 0 for e in entries), len(entries)).pvalue > 1e-4


@pytest.mark.parametrize("groups", [1, 3])
def test_delta_orthogonal_convolutions_keep_every_norm(groups):
    # Variance 1 / fan_in: the map of each position is orthogonal and nothing moves.
    weights = _drawing.delta_orthogonal(
        (6, 6 // groups, 3, 3), groups / 54, groups=groups, generator=seeded(), dtype=torch.float64
    )
    x = gaussian(2, 6, 5, 5, dtype=torch.float64)
    y = F.conv2d(x, weights, padding=1, groups=groups)
    torch.testing.assert_close(y.square().sum(1), x.square().sum(1))
    assert int((weights != 0).sum()) == 36 // groups


# ---- The law of each layer -------------------------------------------------------------------------------------------


def record(number, source="layer", layers=None, activation="linear", bias=True, **options):
    """A layer as the plan sees it."""
    before = {"pool": None, "spatial_pool": None, "dropout": 0.0, "note": ""}
    before |= {key: options.pop(key) for key in tuple(options) if key in before}
    layer = {"kind": "linear", "shared": False, "weight_name": f"{number}.weight", "owner": None, "fan_in": 10}
    layer |= {"bias": 0 if bias else None, "weight_variance": 0.1, "bias_variance": 0.0} | options
    phi = None if activation is None else igb.Activation(activation)
    sources = ((number - 1,) if source == "layer" else ()) if layers is None else layers
    seen = SimpleNamespace(source=source, layers=sources, activation=phi, **before)
    return SimpleNamespace(number=number, before=seen, **layer)


def chain(activation, depth, **options):
    return [record(1, "input")] + [record(n, activation=activation, **options) for n in range(2, depth + 2)]


@pytest.mark.parametrize("activation", ["tanh", "erf", "softsign", "elu", "sigmoid"])
@pytest.mark.parametrize("sigma_b2", [0.05, 0.3])
def test_chains_are_the_edge_of_chaos_from_the_first_layer(activation, sigma_b2):
    laws = planned(chain(activation, 5), sigma_b2=sigma_b2, head=None)
    edge = float(igb.edge_of_chaos(activation, sigma_b2))
    point = igb.fixed_point(igb.Ensemble(activation, sigma_w2=edge, sigma_b2=sigma_b2))
    for law in laws[1:-1]:
        assert law.sigma_w2 == pytest.approx(edge, rel=1e-6)
        assert law.q == pytest.approx(point.q, rel=1e-6)
    assert laws[0].sigma_w2 + sigma_b2 == pytest.approx(point.q, rel=1e-6)


@pytest.mark.parametrize(
    "pool, kind, sigma_w2",
    [
        (None, "gradient", 2.0),
        (igb.MaxPool(2), "gradient", 4 / 3),
        (igb.MaxPool(2), "variance", 4 * math.pi / (3 * math.pi + 2)),
        (igb.AvgPool(2), "gradient", 4.0),
        (igb.AvgPool(2), "variance", 4 * math.pi / (math.pi + 1)),
    ],
)
def test_relu_with_pools_has_its_closed_forms_and_no_biases(pool, kind, sigma_w2):
    laws = planned(chain("relu", 4, pool=pool), kind=kind)
    assert [law.sigma_w2 for law in laws[1:-1]] == pytest.approx([sigma_w2] * 3, rel=1e-9)
    assert {law.sigma_b2 for law in laws} == {0.0}


def test_without_biases_tanh_is_critical_layer_by_layer_while_its_signal_fades():
    laws = planned(chain("tanh", 30), sigma_b2=0.0)
    q = 1.0
    for law in laws[1:]:
        assert law.sigma_w2 * float(igb.moments("tanh", q, derivative=1)) == pytest.approx(1.0)
        q = law.sigma_w2 * float(igb.moments("tanh", q))
        assert law.q == pytest.approx(q)
    assert q < 0.3


@pytest.mark.parametrize("activation, least", [("tanh", 0.05), ("gelu", 0.1), ("silu", 0.2), ("relu", 0.0)])
def test_default_biases_keep_the_variance_stable_through_a_hundred_layers(activation, least):
    laws = planned(chain(activation, 100))
    assert laws[5].sigma_b2 >= least
    # What a deviation of the first layer's variance grows to, through the maps with these very weights.
    q = laws[0].q * 1.01
    for law in laws[1:-1]:
        q = law.sigma_w2 * float(igb.moments(activation, q)) + law.sigma_b2
    assert abs(q / laws[-2].q - 1.0) < 0.1


def test_an_unstable_variance_is_said():
    model = mlp(nn.SiLU, 8, 100)
    assert any("deviations of the variance grow" in note for note in init_(model, sigma_b2=0.05, dry_run=True).notes)
    assert not any("deviations of the variance" in note for note in init_(model, dry_run=True).notes)


def test_chains_with_normalisation_are_critical_by_their_biases():
    # chi = sigma_w2 D(1) / q with q = sigma_w2 V(1) + sigma_b2, and D = V for a ReLU.
    norm = [record(1, "input"), *(record(n, "normalisation", (n - 1,), activation="tanh") for n in range(2, 8))]
    laws = planned(norm)
    slope2, square = float(igb.moments("tanh", 1.0, derivative=1)), float(igb.moments("tanh", 1.0))
    assert igb.fixed_point(igb.Ensemble("tanh", laws[2].sigma_w2, 0.05, layernorm=True)).chi == pytest.approx(1.0)
    for before, law in itertools.pairwise(laws):
        assert law.sigma_w2 * slope2 / before.q == pytest.approx(1.0, rel=1e-9)
        assert law.q == pytest.approx(law.sigma_w2 * square + law.sigma_b2)
    assert laws[1].q == pytest.approx(laws[5].q)
    for layer in norm[1:]:
        layer.before.activation = igb.Activation("relu")
    assert [law.sigma_w2 for law in planned(norm)[1:]] == pytest.approx([2.0] * 6)


def test_resting_variance_is_where_critical_layers_keep_the_variance():
    q = resting_variance(igb.Activation("gelu"), None, 0.2)
    sigma_w2 = 1 / float(igb.moments("gelu", q, derivative=1))
    assert sigma_w2 * float(igb.moments("gelu", q)) + 0.2 == pytest.approx(q, rel=1e-12)
    assert math.isnan(resting_variance(igb.Activation("softplus"), None, 0.1))
    assert math.isnan(resting_variance(igb.Activation("relu"), None, 0.1))


def test_sources_other_than_layers():
    layers = [
        record(1, "input"),
        record(2, "attention", (1,)),
        record(3, "normalisation"),
        record(4, activation="gelu"),
        record(5, "sum", (2, 4)),
        record(6, "other", note="a lookup"),
        record(7, activation=None, note="a product of two signals"),
        record(8, activation="relu", dropout=0.25),
        record(9, activation="linear"),
    ]
    branches = [SimpleNamespace(layers=(1, 2), last=(2,)), SimpleNamespace(layers=(3, 4), last=(4,))]
    laws = {law.number: law for law in planned(layers, branches, sigma_b2=0.0)}
    assert laws[2].sigma_w2 == 0.5  # linear, halved for two branches
    assert laws[3].sigma_w2 == 1.0
    assert laws[4].sigma_w2 == pytest.approx(0.5 / float(igb.moments("gelu", 1.0, derivative=1)))
    assert laws[5].q == pytest.approx(laws[2].q + laws[4].q)
    assert [n for n in laws if laws[n].assumed] == [6, 7]
    assert "a lookup" in laws[6].note
    assert "a product of two signals" in laws[7].note
    assert laws[8].sigma_w2 == pytest.approx(2.0 * 0.75)  # dropout divides what it leaves by 1 - p
    plain = {law.number: law for law in planned(layers, branches, sigma_b2=0.0, residual=None)}
    assert plain[4].sigma_w2 == pytest.approx(2.0 * laws[4].sigma_w2)
    assert {law.number: law for law in planned(layers, branches, residual=0.1)}[2].sigma_w2 == pytest.approx(0.1)


def test_the_head_follows_the_others_unless_outputs_would_be_large_or_a_variance_is_wanted():
    pooled = chain("relu", 60, pool=igb.MaxPool(2))
    laws = planned(pooled)
    assert laws[-2].q > 1e3
    assert laws[-1].q == pytest.approx(1.0)
    assert planned(chain("relu", 60))[-1].sigma_w2 == pytest.approx(2.0)
    assert planned(chain("tanh", 60), head=0.01)[-1].q == pytest.approx(0.01)


def test_a_weight_used_in_a_loop_has_the_law_of_the_loop():
    layers = [record(1, "input"), *(record(n, activation="tanh") for n in (2, 3, 4))]
    for layer in layers[:3]:
        layer.shared, layer.weight_name = True, "loop.weight"
    laws = planned(layers, sigma_b2=0.05)
    edge = float(igb.edge_of_chaos("tanh", 0.05))
    assert [law.sigma_w2 for law in laws[:3]] == pytest.approx([edge] * 3)


def test_layers_that_stay_as_they_are_count_with_the_weights_they_have():
    layers = chain("relu", 3)
    laws = planned(layers, fixed={2})
    assert laws[1].sigma_w2 == pytest.approx(0.1 * 10)
    assert laws[1].q == pytest.approx(0.5)
    assert laws[2].sigma_w2 == pytest.approx(2.0)


@pytest.mark.parametrize("size, kernel, dilation", [(4, 3, 1), (1, 3, 1), (9, 5, 1), (7, 3, 2)])
def test_zero_padding_counts_by_its_leading_eigenvalue(size, kernel, dilation):
    conv = nn.Conv1d(2, 2, kernel, padding="same", dilation=dilation)
    layer = SimpleNamespace(kind="conv", owner=conv, weight=conv.weight, fan_in=2 * kernel, shape=(2, size))
    signal, growth = torch.ones(1, 1, size, dtype=torch.float64), 1.0
    for _ in range(400):  # power iteration with the convolution itself
        signal = F.conv1d(signal, torch.ones(1, 1, kernel, dtype=torch.float64), padding="same", dilation=dilation)
        growth = float(signal.norm())
        signal = signal / growth
    assert visible_share(layer) == pytest.approx(growth / kernel, rel=1e-4)


def test_strided_and_transposed_convolutions_count_the_taps_that_meet_an_input():
    for conv, size in [(nn.Conv2d(2, 3, 3, stride=2, padding=1), 9), (nn.ConvTranspose2d(2, 3, 4, stride=2), 5)]:
        with torch.no_grad():
            conv.weight.fill_(1.0)
            conv.bias.zero_()
            counts = conv(torch.ones(1, 2, size, size))
        fan_in = 2 * conv.weight[0, 0].numel()
        layer = SimpleNamespace(
            kind="conv", owner=conv, weight=conv.weight, fan_in=fan_in, shape=tuple(counts.shape[1:])
        )
        assert visible_share(layer) == pytest.approx(float(counts.mean()) / fan_in, rel=1e-6)
    circular = nn.Conv1d(2, 2, 3, padding=1, padding_mode="circular")
    assert visible_share(SimpleNamespace(kind="conv", owner=circular, weight=circular.weight, fan_in=6)) == 1.0


# ---- What comes out, by autograd -------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
@pytest.mark.parametrize("weights", ["gaussian", "orthogonal"])
def test_gradients_cross_a_hundred_layers(activation, weights):
    # A network of width N strays from theory: log ratios scatter by about sqrt(3 depth / N) = 1.4 at worst, 0.6 in the
    # mean of six, which also moves by half the variance.
    inputs, ratios = gaussian(20, 30), []
    for seed in range(6):
        model = mlp(activation, 150, 100)
        init_(model, weights=weights, generator=seeded(seed)).assert_complete()
        ratios.append(log_ratio(model, *_ends(model), inputs))
    assert abs(np.mean(ratios)) < 1.5


def _ends(model):
    linear = [module for module in model if isinstance(module, nn.Linear)]
    return linear[0], linear[-2]


def test_the_default_initialisation_does_not_cross_them():
    torch.manual_seed(0)
    for activation in (nn.Tanh, nn.ReLU):
        model = mlp(activation, 100, 100).double()
        assert log_ratio(model, *_ends(model), gaussian(20, 30).double()) < math.log(1e-12)


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, nn.GELU])
def test_measured_gradients_are_flat_in_every_network(activation):
    inputs, held_out = gaussian(60, 30, seed=1), gaussian(60, 30, seed=2)
    for seed in range(2):
        model = mlp(activation, 80, 50)
        report = init_(model, inputs=inputs, generator=seeded(seed))
        hidden = [row.gradient for row in report.rows[:-1]]
        assert max(hidden) / min(hidden) < 1.1001
        assert report.gradient_ratio_before < 1e-8
        assert abs(log_ratio(model, *_ends(model), held_out)) < THREE


def test_the_report_measures_what_autograd_gives():
    model = mlp(nn.Tanh, 20, 4, features=6, classes=3)
    inputs, labels = gaussian(30, 6), torch.arange(30) % 3
    report = init_(model, inputs=inputs, labels=labels, generator=seeded())
    layers = [module for module in model if isinstance(module, nn.Linear)]
    want = squared_gradients(model, layers, inputs, labels)
    sums = [value * layer.out_features for value, layer in zip(want, layers, strict=True)]
    assert [row.gradient for row in report.rows] == pytest.approx(sums, rel=1e-4)
    y = model[0](inputs).detach()
    assert report.rows[0].q == pytest.approx(float(y.square().mean()), rel=1e-5)
    for row, layer in zip(report.rows[1:-1], layers[1:-1], strict=True):
        assert float(layer.weight.detach().square().mean()) * row.fan_in == pytest.approx(row.sigma_w2, rel=1e-4)


def test_measured_variances_are_those_asked_for():
    model, inputs = mlp(nn.ReLU, 60, 30), gaussian(50, 30)
    report = init_(model, inputs=inputs, kind="variance", head=0.5, generator=seeded())
    y, seen = inputs, []
    with torch.no_grad():
        for module in model:
            y = module(y)
            if isinstance(module, nn.Linear):
                seen.append(float(y.square().mean()))
    assert seen == pytest.approx([1.0] * 30 + [0.5], rel=1e-4)
    assert [row.q for row in report.rows] == pytest.approx(seen, rel=1e-4)


class Convolutions(nn.Module):
    """A ReLU CNN whose images are halved on the way."""

    def __init__(self, depth, channels, padding_mode, pool):
        super().__init__()
        options = {"padding": 1, "padding_mode": padding_mode}
        self.convs = nn.ModuleList(nn.Conv2d(channels if n else 1, channels, 3, **options) for n in range(depth))
        self.head, self.pool = nn.Linear(channels, 10), pool

    def forward(self, x):
        for number, conv in enumerate(self.convs, start=1):
            x = torch.relu(conv(x))
            x = self.pool(x) if number % 12 == 0 else x
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
@pytest.mark.parametrize("delta", [False, True])
def test_gradients_cross_convolutions_with_pools(padding_mode, delta):
    # In sums over units, which a critical layer keeps; a pool has four times as many units before it.
    model = Convolutions(25, 24, padding_mode, nn.MaxPool2d(2))
    images = gaussian(30, 1, 8, 8)
    report = init_(model, example=images, delta=delta, generator=seeded())
    first, last = squared_gradients(model, [model.convs[0], model.convs[-1]], images, torch.arange(30) % 10)
    assert report.rows[30 - 6].weights == ("delta-orthogonal" if delta else "orthogonal")
    assert abs(math.log(16 * first / last)) < 2.5
    assert float(model.convs[0](images).detach().square().mean()) == pytest.approx(1.0, rel=1e-4)


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        return self.narrow(F.gelu(self.wide(self.attention(x, x, x, need_weights=False)[0])))


def test_gradients_cross_attention_without_skips():
    model = nn.Sequential(*[Block(24) for _ in range(8)], nn.Flatten(), nn.Linear(24 * 5, 10))
    x = gaussian(40, 5, 24)
    report = init_(model, inputs=x, generator=seeded())
    report.assert_complete()
    assert abs(log_ratio(model, model[0].narrow, model[7].narrow, gaussian(40, 5, 24, seed=9))) < THREE


class Residual(nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.first, self.head = nn.Linear(10, 40), nn.Linear(40, 10)
        self.inner = nn.ModuleList(nn.Linear(40, 40) for _ in range(depth))
        self.outer = nn.ModuleList(nn.Linear(40, 40) for _ in range(depth))

    def forward(self, x):
        y = self.first(x)
        for inner, outer in zip(self.inner, self.outer, strict=True):
            y = y + outer(torch.relu(inner(torch.relu(y))))
        return self.head(y)


def test_residual_branches_share_one_unit_of_variance():
    model = Residual(16)
    report = init_(model, generator=seeded())
    outer = {row.name: row for row in report.rows}["outer.3"]
    assert outer.sigma_w2 == pytest.approx(2.0 / 16)
    assert float(model.outer[3].weight.detach().square().mean()) * 40 == pytest.approx(2.0 / 16)
    trunk = y = model.first(gaussian(50, 10)).detach()
    for inner, outer_layer in zip(model.inner, model.outer, strict=True):
        trunk = trunk + outer_layer(torch.relu(inner(torch.relu(trunk)))).detach()
    assert 1.2 < float(trunk.square().mean() / y.square().mean()) < 6.0  # (1 + 1/16)^16 = 2.6


# ---- Seeds, dry runs -------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bits():
    models = [mlp(nn.Tanh, 20, 5) for _ in range(2)]
    for model in models:
        init_(model, generator=seeded(7))
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))
    init_(models[0], generator=seeded(8))
    assert not torch.equal(models[0][0].weight, models[1][0].weight)
    for model in models:  # PyTorch's own generator
        torch.manual_seed(3)
        init_(model)
    assert torch.equal(models[0][4].weight, models[1][4].weight)
    init_(models[1])
    assert not torch.equal(models[0][4].weight, models[1][4].weight)


@pytest.mark.parametrize("given", [{}, {"inputs": gaussian(10, 30)}, {"example": gaussian(10, 30)}])
def test_a_dry_run_says_what_would_be_done_and_does_nothing(given):
    model, generator = mlp(nn.Tanh, 20, 5), seeded(1)
    before, state = copy.deepcopy(model.state_dict()), generator.get_state()
    dry = init_(model, generator=generator, dry_run=True, **given)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(generator.get_state(), state)
    assert "would be set" in str(dry)
    wet = init_(model, generator=generator, **given)
    assert [row.sigma_w2 for row in dry.rows] == [row.sigma_w2 for row in wet.rows]


def test_all_but_the_weights_is_as_it_was():
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3))
    model[3].eval()
    model[0].weight.grad = torch.ones(6, 5)
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    torch.manual_seed(0)
    want = torch.rand(3)
    torch.manual_seed(0)
    report = init_(model, inputs=gaussian(20, 5), generator=seeded())
    torch.testing.assert_close(torch.rand(3), want, rtol=0, atol=0)
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())
    assert model.training
    assert not model[3].training
    assert torch.equal(model[0].weight.grad, torch.ones(6, 5))
    assert model[4].weight.grad is None
    assert model[1].weight.tolist() == [1.0] * 6
    assert ("1.weight", "belongs to BatchNorm1d") in report.left


# ---- Models that are hard to initialise ------------------------------------------------------------------------------


def with_middle(change):
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    change(model[2])
    return model


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda layer: layer.requires_grad_(False), "frozen"),
        (parametrizations.orthogonal, "parametrised weights cannot be set"),
        (parametrizations.spectral_norm, "parametrised weights cannot be set"),
        (lambda layer: prune.l1_unstructured(layer, "weight", 0.5), "computed from 2.weight_orig"),
    ],
)
@pytest.mark.parametrize("given", [{}, {"inputs": gaussian(20, 8)}])
def test_weights_that_cannot_be_set_stay_and_are_named(change, reason, given):
    model = with_middle(change)
    before = copy.deepcopy(model.state_dict())
    report = init_(model, generator=seeded(), **given)
    assert [row.status for row in report.rows] == ["set", "could not", "set"]
    assert reason in report.rows[1].note
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items() if name.startswith("2."))
    with pytest.raises(AssertionError, match=r"layer 2 \(2\): could not"):
        report.assert_complete()


@pytest.mark.parametrize("given", [{}, {"inputs": gaussian(20, 8)}])
def test_weight_normalisation_takes_new_weights(given):
    model = with_middle(parametrizations.weight_norm)
    report = init_(model, generator=seeded(), **given)
    report.assert_complete()
    assert float(model[2].weight.detach().square().mean()) * 8 == pytest.approx(report.rows[1].sigma_w2, rel=1e-4)


def test_parameters_without_a_layer_are_told_apart():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.norm, self.mix = nn.Embedding(20, 8), nn.LayerNorm(8), nn.Linear(8, 8)
            self.head, self.unused = nn.Linear(8, 20, bias=False), nn.Linear(8, 3)
            self.head.weight = self.words.weight

        def forward(self, tokens):
            return self.head(torch.tanh(self.mix(self.norm(self.words(tokens)))))

    model = Model()
    words = model.words.weight.detach().clone()
    report = init_(model, generator=seeded())
    assert torch.equal(model.words.weight, words)
    assert [row.status for row in report.rows] == ["set", "could not"]
    assert "embedding" in report.rows[1].note
    assert dict(report.left)["norm.weight"] == "belongs to LayerNorm"
    assert "did not run" in dict(report.left)["unused.weight"]
    assert any("unused.weight" in line for line in report.missing)
    assert "1 of 2 layers set (not 1 matrix in which no layer is seen)" in report.summary()


def test_attention_between_two_signals_is_drawn_as_a_whole():
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(12, 2, 24, batch_first=True), 1)
    with torch.no_grad():
        decoder.layers[0].multihead_attn.in_proj_weight.zero_()
    report = init_(decoder, example=(gaussian(6, 5, 12), gaussian(6, 4, 12)), generator=seeded())
    report.assert_complete()
    drawn = decoder.layers[0].multihead_attn.in_proj_weight
    assert float(drawn.detach().square().mean()) * 12 == pytest.approx(1.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precisions(dtype):
    model, reference = mlp(nn.Tanh, 16, 4, dtype=dtype), mlp(nn.Tanh, 16, 4)
    init_(model, generator=seeded(2)).assert_complete()
    init_(reference, generator=seeded(2))
    if dtype != torch.float64:  # drawn in float32, then rounded
        assert torch.equal(model[2].weight, reference[2].weight.to(dtype))
    assert float(model[2].weight.detach().double().square().mean()) * 16 == pytest.approx(1.760955, rel=0.01)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_scripted_and_compiled_models_are_initialised_as_what_they_wrap():
    plain = mlp(nn.Tanh, 16, 4)
    scripted, compiled = torch.jit.script(mlp(nn.Tanh, 16, 4)), torch.compile(mlp(nn.Tanh, 16, 4))
    for model in (plain, scripted, compiled):
        init_(model, inputs=gaussian(20, 30), generator=seeded(4)).assert_complete()
    values = [list(model.parameters()) for model in (plain, scripted, compiled)]
    for other in values[1:]:
        for a, b in zip(values[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_a_model_that_cannot_run_backwards_is_still_initialised():
    class Detached(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = mlp(nn.Tanh, 16, 4)

        def forward(self, x):
            return self.inside(x).detach()

    report = init_(Detached(), inputs=gaussian(20, 30), generator=seeded())
    report.assert_complete()
    assert any("not" in note for note in report.notes)
    assert math.isnan(report.gradient_ratio)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: nn.ReLU(), "must have parameters"),
        (lambda: nn.LazyLinear(3), "must have been run once"),
        (lambda: nn.Linear(3, 3, device="meta"), "meta device"),
    ],
)
def test_models_without_values_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        init_(make())


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"sigma_b2": -1.0}, ValueError, "sigma_b2 must be a non-negative finite number, got -1.0"),
        ({"weights": "orthogonl"}, ValueError, "did you mean 'orthogonal'"),
        ({"kind": "q"}, ValueError, "kind must be one of 'gradient', 'variance'"),
        ({"residual": "width"}, ValueError, "residual must be one of 'depth'"),
        ({"residual": 0.0}, ValueError, "residual must be a positive finite number"),
        ({"head": -1.0}, ValueError, "head must be a positive finite number"),
        ({"delta": 1}, TypeError, "delta must be True or False"),
        ({"dry_run": "no"}, TypeError, "dry_run must be True or False"),
        ({"generator": 3}, TypeError, "generator must be a torch.Generator or None, got 3"),
        ({"labels": [1]}, ValueError, "labels must come with inputs"),
        ({"inputs": gaussian(3, 30), "example": gaussian(3, 30)}, ValueError, "example must not be given together"),
        ({"inputs": gaussian(3, 30), "labels": [0, 1, 10]}, ValueError, "labels must be below 10"),
        ({"inputs": []}, ValueError, "at least one batch"),
        ({"inputs": gaussian(9, 29)}, ValueError, r"the model does not take inputs of shape \(N, 29\): mat1"),
        ({"example": gaussian(9, 29)}, ValueError, r"the model does not take inputs of shape \(N, 29\): mat1"),
        ({"batch_axis": 1}, ValueError, "batch_axis must be 0"),
    ],
)
def test_bad_arguments_leave_the_model_alone(options, error, message):
    model = mlp(nn.Tanh, 8, 2)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=message):
        init_(model, **options)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_data_gives_its_inputs_and_labels():
    data, found = igb.torch.data.gaussian(40, 30, 10, seed=1), []
    for given in ({"inputs": data}, {"inputs": data.inputs, "labels": data.labels}, {"inputs": data.inputs}):
        model = mlp(nn.Tanh, 20, 3)
        init_(model, generator=seeded(), **given)
        found.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])  # of whose losses the gradients are others


# ---- The report ------------------------------------------------------------------------------------------------------


def test_the_table_of_a_deep_model_is_short_and_names_all_layers():
    report = init_(mlp(nn.GELU, 8, 200), generator=seeded(), dry_run=True)
    text = report.summary(100)
    assert len(text.splitlines()) < 12
    assert "2-201" in text
    assert max(map(len, text.splitlines())) <= 100
    assert len(report.rows) == 201
    assert "201 of 201" in repr(report)


# ---- Scaling ---------------------------------------------------------------------------------------------------------


def test_scaling_multiplies_weights_and_nothing_else():
    loop = nn.Linear(4, 4)
    model = nn.ModuleDict({"a": loop, "b": loop, "conv": nn.Conv1d(4, 4, 3), "norm": nn.BatchNorm1d(4)})
    model["words"], model["attention"] = nn.Embedding(3, 4), nn.MultiheadAttention(4, 2)
    before = copy.deepcopy(model.state_dict())
    assert scale_(model, 1.5) is model
    scaled = {"a.weight", "b.weight", "conv.weight", "attention.in_proj_weight", "attention.out_proj.weight"}
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, (1.5 if name in scaled else 1) * before[name], rtol=0, atol=0)


def test_scaling_of_some_layers_and_of_computed_weights():
    model = with_middle(parametrizations.weight_norm)
    before = [model[n].weight.detach().clone() for n in (0, 2, 4)]
    scale_(model, 2.0, layers=["2", "4"])
    for factor, n, weight in zip((1.0, 2.0, 2.0), (0, 2, 4), before, strict=True):
        torch.testing.assert_close(model[n].weight.detach(), factor * weight)
    with pytest.raises(ValueError, match="did you mean"):
        scale_(nn.ModuleDict({"head": nn.Linear(2, 2)}), 2.0, layers="hed")
    with pytest.raises(ValueError, match="computed"):
        scale_(with_middle(parametrizations.orthogonal), 2.0)
    with pytest.raises(ValueError, match="must have layers with weights"):
        scale_(nn.BatchNorm1d(3), 2.0)
    with pytest.raises(ValueError, match="factor must be a positive finite number"):
        scale_(model, 0.0)
