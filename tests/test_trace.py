"""What is read off a model's forward pass, against its own modules, hooks and automatic differentiation by hand."""

from dataclasses import dataclass

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn
from torch.nn.utils import parametrizations

import igbfast as igb
from igbfast.torch._batches import Batch, batches_of, example_of, output_of, run, untouched, unwrapped
from igbfast.torch._trace import Trace, trace, watch

COUNT = 17


def batch_of(inputs, model, **options) -> Batch:
    return next(batches_of(inputs, model=model, **options))


def traced(model: nn.Module, *shape: int, batch_axis: int = 0) -> tuple[Trace, Batch]:
    torch.manual_seed(0)
    sizes = list(shape)
    sizes.insert(batch_axis, COUNT)
    batch = batch_of(torch.randn(sizes), model, batch_axis=batch_axis)
    return trace(model, batch), batch


ACTIVATIONS = [
    (nn.ReLU(), "relu"),
    (nn.ReLU(inplace=True), "relu"),
    (nn.Tanh(), "tanh"),
    (nn.GELU(), "gelu"),
    (nn.GELU(approximate="tanh"), "gelu_tanh"),
    (nn.SiLU(), "silu"),
    (nn.Mish(), "mish"),
    (nn.Sigmoid(), "sigmoid"),
    (nn.Softplus(), "softplus"),
    (nn.Softsign(), "softsign"),
    (nn.LeakyReLU(0.2), "leaky_relu(0.2)"),
    (nn.PReLU(init=0.125), "leaky_relu(0.125)"),
    (nn.ELU(0.3), "elu(0.3)"),
    (nn.SELU(), "selu"),
    (nn.Hardtanh(), "hardtanh"),
    (nn.ReLU6(), "relu6"),
    (nn.Identity(), "linear"),
]


@pytest.mark.parametrize("module, name", ACTIVATIONS, ids=lambda value: str(value).replace("\n", ""))
def test_activations_are_recognised(module, name):
    model = nn.Sequential(nn.Linear(6, 5), module, nn.Linear(5, 4))
    found, _ = traced(model, 6)
    assert found.layers[1].before.activation == igb.Activation(name)
    assert found.layers[1].before.source == "layer"
    assert found.layers[1].before.layers == (1,)
    assert found.layers[0].before.source == "input"


@pytest.mark.parametrize(
    "module",
    [nn.Hardswish(), nn.CELU(2.0), nn.Softplus(2.0), nn.Hardshrink(), nn.Tanhshrink(), nn.LogSigmoid()],
    ids=lambda module: type(module).__name__,
)
def test_other_elementwise_functions_become_custom_activations(module):
    found, _ = traced(nn.Sequential(nn.Linear(6, 5), module, nn.Linear(5, 4)), 6)
    x = np.linspace(-4.0, 4.0, 101)
    assert np.allclose(found.layers[1].before.activation(x), module(torch.from_numpy(x)).numpy(), rtol=0, atol=1e-7)


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 0.9])
def test_dropout_in_training_mode(probability):
    for module in (nn.Dropout(probability), nn.Dropout1d(probability)):
        model = nn.Sequential(nn.Linear(6, 5), module, nn.Tanh(), nn.Linear(5, 4))
        before = traced(model, 6)[0].layers[1].before
        assert before.dropout == pytest.approx(probability)
        assert before.activation == igb.Activation("tanh")


def test_written_out_function_is_found_through_views_and_dropout():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x):
            y = self.one(x).view(-1, 2, 4)
            y = nn.functional.dropout(2.0 * torch.erf(y) / (1.0 + y * y), 0.25, training=True)
            return self.two(y.flatten(1))

    before = traced(Model(), 6)[0].layers[1].before
    x = np.linspace(-3.0, 3.0, 61)
    from scipy.special import erf

    assert np.allclose(before.activation(x), 2.0 * erf(x) / (1.0 + x * x), rtol=0, atol=1e-12)
    assert before.dropout == pytest.approx(0.25)


@pytest.mark.parametrize("pool", [igb.MaxPool(2), igb.AvgPool(4), igb.MinPool(3)])
def test_pools_of_the_models_of_the_experiments(pool):
    from igbfast.torch.models import CNN, MLP

    for extras in ({}, {"residual": 0.1}, {"layernorm": True}):
        ens = igb.Ensemble("tanh", 1.5, pool=pool, **extras)
        for model, shape in (
            (MLP(ens, width=24, depth=3, features=9), (9,)),
            (CNN(ens, channels=24, depth=3, image=(1, 6, 6)), (1, 6, 6)),
        ):
            for layer in traced(model, *shape)[0].layers[1:]:
                assert layer.before.pool == pool, (extras, layer.name)
                assert layer.before.activation == igb.Activation("tanh"), (extras, layer.name)


class Nodes(nn.Module):
    """A pool over nodes, each value copied back."""

    def __init__(self, pool):
        super().__init__()
        self.one, self.two, self.pool = nn.Linear(6, 12), nn.Linear(12, 3), pool

    def forward(self, x):
        return self.two(self.pool(torch.tanh(self.one(x)).view(-1, 3, 4)).repeat(1, 3))


@pytest.mark.parametrize(
    "pool, expected",
    [
        (lambda y: y.amax(1), igb.MaxPool(3)),
        (lambda y: y.max(dim=1).values, igb.MaxPool(3)),
        (lambda y: y.amin(1), igb.MinPool(3)),
        (lambda y: y.mean(1), igb.AvgPool(3)),
    ],
)
def test_pools_over_nodes(pool, expected):
    before = traced(Nodes(pool), 6)[0].layers[1].before
    assert before.pool == expected
    assert before.activation == igb.Activation("tanh")
    assert before.spatial_pool is None


def test_convolutions_with_circular_padding_and_pools_on_either_side_of_the_activation():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular"),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 4, 3, padding=1, groups=2, padding_mode="circular"),
        nn.AvgPool2d((4, 2)),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(32, 10),
    )
    layers = traced(model, 3, 16, 16)[0].layers
    assert [layer.name for layer in layers] == ["0", "3", "7"]
    assert [layer.kind for layer in layers] == ["conv", "conv", "linear"]
    assert [layer.fan_in for layer in layers] == [27, 36, 32]
    assert [layer.groups for layer in layers] == [1, 2, 1]
    assert [layer.shape for layer in layers] == [(8, 16, 16), (4, 8, 8), (10,)]
    assert [str(layer.before.activation) for layer in layers] == ["linear", "relu", "tanh"]
    assert [layer.before.spatial_pool for layer in layers] == [None, "max 2x2", "average 4x2"]


def outputs_by_hooks(model: nn.Module, batch: Batch, names: list[str]) -> dict[str, torch.Tensor]:
    """What the modules of these names return, by their forward hooks."""
    found = {}
    modules = dict(model.named_modules())
    handles = [
        modules[name].register_forward_hook(lambda m, a, out, n=name: found.__setitem__(n, out.detach().clone()))
        for name in names
    ]
    with torch.no_grad():
        run(model, batch)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_transformer_rows_belong_to_their_inputs(batch_first):
    axis = 0 if batch_first else 1
    block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=batch_first, activation="gelu")
    model = nn.TransformerEncoder(block, 2).eval()
    found, batch = traced(model, 5, 8, batch_axis=axis)
    assert [layer.name for layer in found.layers[:4]] == [
        "layers.0.self_attn.in_proj",
        "layers.0.self_attn.out_proj",
        "layers.0.linear1",
        "layers.0.linear2",
    ]
    assert [layer.before.source for layer in found.layers[:4]] == ["input", "attention", "normalisation", "layer"]
    assert str(found.layers[3].before.activation) == "gelu"
    assert [branch.last for branch in found.branches] == [(2,), (4,), (6,), (8,)]
    assert [branch.layers for branch in found.branches] == [(1, 2), (3, 4), (5, 6), (7, 8)]

    seen = {}
    with untouched(model), torch.no_grad(), watch(found, batch, lambda layer, y: seen.update({layer.name: y.clone()})):
        run(model, batch)
    for name, output in outputs_by_hooks(model, batch, ["layers.0.linear1", "layers.1.linear2"]).items():
        assert torch.allclose(seen[name], output if batch_first else output.transpose(0, 1), atol=1e-6)
    # The packed projection, by hand, of the first block.
    x = batch.args[0] if batch_first else batch.args[0].transpose(0, 1)
    attention = model.layers[0].self_attn
    packed = x @ attention.in_proj_weight.T + attention.in_proj_bias
    assert torch.allclose(seen["layers.0.self_attn.in_proj"], packed, atol=1e-6)


def test_gradients_belong_to_their_inputs():
    model = nn.Sequential(
        nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 4, bias=False), nn.Tanh(), nn.Linear(4, 1)
    )
    found, batch = traced(model, 6)
    gradients = {}
    with (
        untouched(model),
        watch(found, batch, on_gradient=lambda layer, g: gradients.update({layer.number: g.clone()})),
    ):
        run(model, batch).sum().backward()
    x = batch.args[0]
    one, two, three = model[0], model[2], model[4]
    y1 = one(x)
    y2 = two(torch.relu(y1))
    by_hand = torch.ones(COUNT, 1) @ three.weight * (1.0 - torch.tanh(y2) ** 2)
    assert torch.allclose(gradients[2], by_hand, atol=1e-6)
    assert torch.allclose(gradients[1], (by_hand @ two.weight) * (y1 > 0), atol=1e-6)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("joined", [lambda a, b: torch.cat([a, b]), lambda a, b: a.repeat(2, 1)])
def test_rows_of_batches_laid_one_behind_the_other(joined):
    """Two views of each input in one batch of twice the size: rows a and count + a belong to input a."""

    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(6, 5), nn.Linear(10, 4)

        def forward(self, a, b):
            return self.two(torch.cat(torch.tanh(self.one(joined(a, b))).chunk(2), 1))

    model, pair = Views(), (torch.randn(COUNT, 6), torch.randn(COUNT, 6))
    batch = batch_of(pair, model)
    found, seen = trace(model, batch), {}
    with untouched(model), torch.no_grad(), watch(found, batch, lambda layer, y: seen.update({layer.name: y.clone()})):
        run(model, batch)
        expected = torch.stack([model.one(view) for view in joined(*pair).chunk(2)], 1)
    assert torch.allclose(seen["one"], expected, atol=1e-6)
    assert found.warnings == ()


def test_replaced_outputs_go_on():
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
    found, batch = traced(model, 6)
    with torch.no_grad():
        with watch(found, batch, lambda layer, y: 3.0 * y if layer.number == 1 else None):
            result = run(model, batch)
        expected = model[2](torch.tanh(3.0 * model[0](batch.args[0])))
    assert torch.allclose(result, expected, atol=1e-6)


def test_residual_branches_with_a_projected_shortcut():
    class Block(nn.Module):
        def __init__(self, width, out):
            super().__init__()
            self.one, self.two = nn.Linear(width, out), nn.Linear(out, out)
            self.shortcut = nn.Linear(width, out) if width != out else nn.Identity()

        def forward(self, x):
            return self.shortcut(x) + self.two(torch.relu(self.one(x)))

    model = nn.Sequential(nn.Linear(4, 6), Block(6, 6), Block(6, 8), nn.Linear(8, 2))
    found, _ = traced(model, 4)
    names = {layer.number: layer.name for layer in found.layers}
    branches = [([names[n] for n in b.layers], [names[n] for n in b.last]) for b in found.branches]
    assert branches == [(["1.one", "1.two"], ["1.two"]), (["2.one", "2.two"], ["2.two"])]
    last = found.layers[-1]
    assert last.before.source == "sum"
    assert {names[n] for n in last.before.layers} == {"2.two", "2.shortcut"}


def test_gates_are_no_activations():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(6, 8), nn.Linear(4, 3)

        def forward(self, x):
            gate, value = self.one(x).chunk(2, dim=-1)
            return self.two(torch.sigmoid(gate) * value)

    before = traced(Gated(), 6)[0].layers[1].before
    assert (before.source, before.layers, str(before.activation)) == ("other", (1,), "linear")


def test_shared_transposed_and_derived_weights():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 6)
            self.matrix = nn.Parameter(torch.randn(6, 5))
            self.normed = parametrizations.weight_norm(nn.Linear(5, 5))

        def forward(self, x):
            return self.normed(torch.tanh(self.fc(torch.relu(self.fc(x))) @ self.matrix))

    found = traced(Model(), 6)[0]
    layers = found.layers
    assert [layer.name for layer in layers] == ["fc", "fc (2)", "matrix", "normed"]
    assert [layer.shared for layer in layers] == [True, True, False, False]
    assert [layer.transposed for layer in layers] == [False, False, True, False]
    assert [layer.fan_in for layer in layers] == [6, 6, 6, 5]
    assert layers[3].weight is None
    weight = found.model.normed.weight.detach()
    assert layers[3].weight_variance == pytest.approx(float(weight.var(correction=0)), rel=1e-5)
    assert layers[3].bias is not None


def test_normalisations_are_sources():
    class RootMeanSquare(nn.Module):
        def forward(self, x):
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)

    for norm in (nn.LayerNorm(5), nn.BatchNorm1d(5), nn.GroupNorm(1, 5), RootMeanSquare()):
        model = nn.Sequential(nn.Linear(6, 5), norm, nn.ReLU(), nn.Linear(5, 2))
        before = traced(model, 6)[0].layers[1].before
        assert before.source == "normalisation", norm
        assert before.activation == igb.Activation("relu"), norm


def test_recurrent_networks():
    class Recurrent(nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.cell, self.head = kind(6, 5, batch_first=True), nn.Linear(5, 2)

        def forward(self, x):
            return self.head(self.cell(x)[0][:, -1])

    found, _ = traced(Recurrent(nn.RNN), 3, 6)
    assert [layer.name for layer in found.layers] == [
        "cell.weight_ih_l0",
        "cell.weight_hh_l0",
        "cell.weight_hh_l0 (2)",
        "head",
    ]
    assert found.layers[0].shape == (3, 5)
    assert str(found.layers[2].before.activation) == "tanh"
    found, _ = traced(Recurrent(nn.LSTM), 3, 6)  # one fused operation on some machines
    assert len(found.layers) > 2 or "cell.weight_hh_l0, cell.weight_ih_l0: used by" in found.warnings[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_models_show_their_layers():
    model = torch.jit.script(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)))
    layers = traced(model, 6)[0].layers
    assert [layer.name for layer in layers] == ["0", "2"]
    assert layers[1].before.activation == igb.Activation("tanh")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_models_are_unwrapped():
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
    assert unwrapped(torch.compile(model)) is model
    assert unwrapped(nn.DataParallel(model)) is model
    if not hasattr(torch.compiler, "set_stance"):  # before PyTorch 2.6 a compiled part cannot be asked to run plainly
        return
    inside = nn.Sequential(nn.Linear(6, 6), torch.compile(model), nn.Linear(4, 2))
    found, batch = traced(inside, 6)
    assert [layer.fan_in for layer in found.layers] == [6, 6, 5, 4]
    assert found.layers[2].before.activation == igb.Activation("tanh")
    with torch.no_grad(), watch(found, batch, lambda layer, y: None):
        run(inside, batch)


def test_models_that_cannot_be_looked_at():
    with pytest.raises(TypeError, match="model must be a torch.nn.Module, got 'mlp'"):
        unwrapped("mlp")
    with pytest.raises(ValueError, match="model must have parameters, got a ReLU without any"):
        unwrapped(nn.ReLU())
    with pytest.raises(ValueError, match="lazy modules know their sizes: '0.weight'"):
        unwrapped(nn.Sequential(nn.LazyLinear(4)))
    with pytest.raises(ValueError, match="'weight' of the Linear is on the meta device"):
        unwrapped(nn.Linear(3, 4, device="meta"))
    with pytest.raises(ValueError, match="a LayerNorm showed no layer"):
        traced(nn.LayerNorm(6), 6)


def test_another_order_of_layers_is_an_error():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers, self.depth = nn.ModuleList(nn.Linear(6, 6) for _ in range(3)), 2

        def forward(self, x):
            for layer in self.layers[: self.depth]:
                x = layer(x)
            return x

    model = Model()
    found, batch = traced(model, 6)
    for depth, message in ((3, "it ran more than 2"), (1, "it ran 1 of 2")):
        model.depth = depth
        with pytest.raises(ValueError, match=message), torch.no_grad(), watch(found, batch, lambda layer, y: None):
            run(model, batch)


def test_untouched_restores_everything_bit_by_bit():
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 4))
    model[0].weight.requires_grad_(False)
    model[3].weight.grad = torch.ones(4, 5)
    model[1].eval()
    gradient, state = model[3].weight.grad, {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    with untouched(model):
        model.train()
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        model(torch.randn(COUNT, 6)).sum().backward()
        assert not torch.equal(model[1].running_mean, state["1.running_mean"])
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert model[3].weight.grad is gradient
    assert torch.equal(gradient, torch.ones(4, 5))
    assert model[0].weight.grad is None
    assert not model[0].weight.requires_grad
    assert (model[0].training, model[1].training, model[2].training) == (True, False, True)


def test_batches_of_all_kinds():
    model = nn.Linear(3, 2).double()
    x, labels = torch.randn(10, 3), torch.arange(10) % 2
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, labels), batch_size=4)
    for inputs, given in (
        (x, labels),
        (x.numpy(), labels.numpy()),
        (igb.torch.Data(x, labels), None),
        (loader, None),
        ([(x[:4], labels[:4]), (x[4:], labels[4:])], None),
    ):
        batches = list(batches_of(inputs, given, model=model, batch=4))
        assert sum(batch.count for batch in batches) == 10
        assert torch.equal(torch.cat([batch.args[0] for batch in batches]), x.double())
        assert torch.equal(torch.cat([batch.labels for batch in batches]), labels)
    (named,) = batches_of([{"input": x, "label": labels}], model=model)
    assert torch.equal(named.kwargs["input"], x.double())
    assert torch.equal(named.labels, labels)
    (pair,) = batches_of((x, x), model=model)
    assert len(pair.args) == 2


@pytest.mark.parametrize(
    "inputs, labels, error, message",
    [
        ([], None, ValueError, "at least one batch, got an empty iterable"),
        (torch.zeros(0, 3), None, ValueError, r"at least one input, got shape \(0, 3\)"),
        (torch.tensor([[0.0, float("nan"), 0.0]]), None, ValueError, r"finite, got nan at index \(0, 1\)"),
        (torch.tensor([[0.0, -float("inf"), 0.0]]), None, ValueError, r"finite, got -inf at index \(0, 1\)"),
        ((torch.zeros(1, 3), torch.tensor([[float("nan")]])), None, ValueError, r"finite, got nan at index \(0, 0\)"),
        (7, None, TypeError, "inputs must be a tensor"),
        (torch.zeros(2, 3), [0], ValueError, "one class for each of the 2 inputs"),
        (torch.zeros(2, 3), [0, -1], ValueError, "labels must be 0 or more, got -1$"),
        (torch.zeros(2, 3), [[0, 1], [1, 0]], ValueError, r"shape \(2, 2\); without labels, gradients are those of"),
        (igb.torch.Data(torch.zeros(2, 3), [0, 1]), [0, 1], ValueError, "labels must not be given beside a Data"),
        (torch.zeros(2, 3), [0.5, 1.0], TypeError, "labels must be whole numbers"),
        ([torch.zeros(2, 3)], [0, 1], ValueError, "labels must come with the batches"),
    ],
)
def test_batches_that_are_refused(inputs, labels, error, message):
    with pytest.raises(error, match=message):
        list(batches_of(inputs, labels, model=nn.Linear(3, 2)))


def test_examples_are_guessed():
    assert example_of(nn.Sequential(nn.Flatten(), nn.Linear(64, 3))).args[0].shape == (11, 64)
    convolutional = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 26 * 26, 3))
    assert example_of(convolutional).args[0].shape == (11, 3, 28, 28)
    assert not example_of(nn.Sequential(nn.Embedding(50, 4), nn.Linear(4, 3))).args[0].is_floating_point()
    with pytest.raises(ValueError, match=r"could not be guessed \(.*\): give example="):
        example_of(nn.Sequential(nn.Linear(3, 4), nn.Linear(3, 4)))
    with pytest.raises(ValueError, match="could not be guessed: give example="):
        example_of(nn.Bilinear(3, 4, 5))


def test_output_is_found_in_what_models_return():
    tensor = torch.zeros(3, 2)

    class Result:
        logits = tensor

    @dataclass
    class Scores:
        loss: None
        scores: tuple[torch.Tensor, ...]

    for result in (tensor, (tensor, None), {"loss": None, "logits": tensor}, Result(), Scores(None, (tensor,))):
        assert output_of(result) is tensor
    with pytest.raises(ValueError, match="must return a tensor of outputs"):
        output_of({"loss": None})
