"""The torch modules: phi against its NumPy twin, models against plain NumPy, their laws against theory and engine."""

from __future__ import annotations

import copy
import pickle
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from laws import assert_same_law
from scipy import stats

import igbfast as igb
from igbfast._formulas import FORMULAS
from igbfast.activations import as_activation

torch = pytest.importorskip("torch")

from igbfast.torch.activation import Phi
from igbfast.torch.models import CNN, MLP, MLPMixer, ViT, draw_, timm_model

IMAGE = (3, 4, 6)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ---- Phi -------------------------------------------------------------------------------------------------------------

PARAMETERS = {"polynomial": "polynomial(1, 0, -0.3, 0.1)", "hermite": "hermite(5)"}
EXPRESSIONS = [
    "leaky_relu(0.2)",
    "elu(-0.5)",
    "celu(0.3)",
    "2 * tanh(x / 2) + 0.1",
    "gelu(x - 1) * x",
    "relu(2 * x + 1) - relu(x)",
    "x - tanh",
]
BUMP = igb.Activation.custom(lambda x: x / (1 + x * x), name="bump")
LATE = igb.Activation.custom(
    lambda x: np.where(x > 0.3, x - 0.3, 0.0), lambda x: (x > 0.3).astype(float), kinks=(0.3,), name="late"
)
ALL = [*(PARAMETERS.get(name, name) for name in FORMULAS), *EXPRESSIONS, BUMP, LATE, 2 * BUMP(igb.activations.x + 1)]

# From the far tails to the neighbourhood of zero, no point at a kink.
POINTS = np.concatenate([np.linspace(-30.0, 30.0, 2001) + 1e-3, [1e-9, -1e-9, 1e-5, -1e-5]])


def slopes(phi, x):
    """phi' by autograd, of each x."""
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(phi(x).sum(), x)
    return slope


def off(found, expected):
    """The largest error, of small values absolutely and of large ones relatively."""
    return np.max(np.abs(found - expected) / np.maximum(1.0, np.abs(expected)))


@pytest.mark.parametrize("activation", ALL, ids=str)
def test_phi_and_its_slope_are_right_to_rounding(activation):
    phi = Phi(activation)
    x = torch.from_numpy(POINTS)
    assert off(phi(x).numpy(), phi.activation(POINTS)) < 4e-15
    bound = 2e-13 if "bump" in str(activation) else 3e-14  # its slope is that of a series
    assert off(slopes(phi, x).numpy(), phi.activation.derivative(POINTS)) < bound


@pytest.mark.parametrize("activation", ALL, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_phi_keeps_its_precision(activation, dtype):
    phi = Phi(activation)
    x = torch.linspace(-2.0, 2.0, 57, dtype=torch.float64).to(dtype)
    found, expected = phi(x), phi.activation(x.double().numpy())
    assert found.dtype == dtype
    assert slopes(phi, x).dtype == dtype
    # He_5 and the polynomial take several steps, each rounded, of numbers ten times larger than the result.
    assert off(found.double().numpy(), expected) < 30 * torch.finfo(dtype).eps


@pytest.mark.parametrize("activation", [BUMP, LATE, 2 * BUMP(igb.activations.x + 1)], ids=str)
def test_callables_can_be_differentiated_twice_and_no_more(activation):
    phi, x = Phi(activation), torch.tensor([-1.3, -0.2, 0.1, 0.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(phi, (x,))
    assert torch.autograd.gradgradcheck(phi, (x,))
    (slope,) = torch.autograd.grad(phi(x).sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="can be differentiated twice, not three times"):
        bend.sum().backward()


MODULES = [
    torch.nn.ReLU(), torch.nn.LeakyReLU(0.3), torch.nn.ELU(0.5), torch.nn.SELU(), torch.nn.CELU(0.4), torch.nn.Tanh(),
    torch.nn.Hardtanh(-0.5, 2.0), torch.nn.ReLU6(), torch.nn.Sigmoid(), torch.nn.Hardsigmoid(), torch.nn.GELU(),
    torch.nn.GELU("tanh"), torch.nn.SiLU(), torch.nn.Mish(), torch.nn.Softplus(2.0), torch.nn.Softsign(),
    torch.nn.Hardswish(), torch.nn.LogSigmoid(), torch.nn.Tanhshrink(), torch.nn.Hardshrink(0.7),
    torch.nn.Softshrink(0.7),
]  # fmt: skip


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_torchs_own_modules_and_back(module):
    x = torch.linspace(-6.0, 6.0, 401, dtype=torch.float64) + 1e-3
    np.testing.assert_allclose(Phi(module)(x), module(x), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("activation", ALL, ids=str)
def test_a_phi_is_its_activation(activation):
    activation = as_activation(activation)
    assert as_activation(Phi(activation)) == activation
    assert igb.Ensemble(Phi(activation), sigma_w2=1.0).activation == activation
    assert Phi(Phi(activation)).activation == activation


def test_what_phi_refuses():
    with pytest.raises(ValueError, match="must be one function, not a mixture"):
        Phi("mixture((0.5, tanh), (0.5, relu))")
    with pytest.raises(TypeError, match="PyTorch's Linear is not among the activations known here"):
        Phi(torch.nn.Linear)
    with pytest.raises(TypeError, match="must be a name or an Activation"):
        as_activation(Phi)


def test_a_constant_has_no_slope():
    x = torch.ones(3, requires_grad=True)
    assert torch.equal(Phi("tanh - tanh + 2")(x), torch.full((3,), 2.0))


# ---- Laws of the weights ---------------------------------------------------------------------------------------------


def weight_of(law, rows, columns, seed=0, sigma_w2=2.0):
    ens = igb.Ensemble("tanh", sigma_w2=sigma_w2, weights=law)
    model = MLP(ens, width=rows, depth=1, features=columns, generator=seeded(seed), dtype=torch.float64)
    return model.layers[0].weight.detach().numpy()


STANDARD = {"gaussian": stats.norm(), "uniform": stats.uniform(-np.sqrt(3.0), 2 * np.sqrt(3.0))}


@pytest.mark.parametrize("law", STANDARD)
def test_independent_weights_follow_their_law(law):
    w = weight_of(law, 150, 200) * np.sqrt(200 / 2.0)
    assert stats.kstest(w.ravel(), STANDARD[law].cdf).pvalue > 1e-3
    assert abs(np.corrcoef(w[:, :-1].ravel(), w[:, 1:].ravel())[0, 1]) < 4 / np.sqrt(w.size)


def test_rademacher_weights_have_one_size():
    w = weight_of("rademacher", 150, 200)
    np.testing.assert_allclose(np.abs(w), np.sqrt(2.0 / 200), rtol=1e-15)
    assert abs(np.sign(w).mean()) < 4 / np.sqrt(w.size)


@pytest.mark.parametrize("law", ["uniform", "rademacher", "orthogonal"])
def test_the_head_is_gaussian_whatever_the_law_as_in_simulate(law):
    """Normal entries; the head of rademacher weights would have two values, that of orthogonal ones no free lengths."""
    ens = igb.Ensemble("tanh", sigma_w2=2.0, weights=law)
    w = MLP(ens, width=100, depth=1, classes=100, generator=seeded()).head.weight.detach().numpy() * np.sqrt(100 / 2.0)
    assert stats.kstest(w.ravel(), stats.norm().cdf).pvalue > 1e-3
    assert stats.kstest((w**2).sum(axis=1), stats.chi2(100).cdf).pvalue > 1e-3


@pytest.mark.parametrize("rows, columns", [(30, 30), (50, 20), (20, 50)])
def test_orthogonal_weights_are_blocks_of_a_rotation(rows, columns):
    """In the scale of `simulate`: the mean square of the entries is sigma_w2 / fan_in for every shape."""
    w = weight_of("orthogonal", rows, columns)
    product = w @ w.T if rows < columns else w.T @ w
    square = 2.0 * max(rows, columns) / columns
    np.testing.assert_allclose(product, square * np.eye(len(product)), atol=1e-13)


def test_orthogonal_weights_are_uniform():
    """Traces of uniform rotations have mean 0 and variance 1; LAPACK's Q as it comes has not."""
    model = MLP(igb.Ensemble("tanh", sigma_w2=1.0, weights="orthogonal"), width=6, depth=1)
    generator = seeded()
    traces = np.array([model.redraw_(generator).layers[0].weight.trace().item() for _ in range(400)])
    assert abs(traces.mean()) < 4 / np.sqrt(400)
    assert abs(traces.var() - 1.0) < 4 * np.sqrt(2 / 400)


# ---- Whole models, in plain NumPy ------------------------------------------------------------------------------------

PHI = {"tanh": np.tanh, "relu": lambda x: np.maximum(x, 0.0), "abs": np.abs}


def numbers(model):
    return {name: value.numpy() for name, value in model.state_dict().items()}


def pool_by_hand(ens, x):
    """Along the last dimension: pool p is made of nodes p, p + N/k, ..."""
    if ens.pool is None:
        return x
    pools = x.shape[-1] // ens.pool.size
    members = np.stack([x[..., k * pools : (k + 1) * pools] for k in range(ens.pool.size)])
    return {"max": np.max, "min": np.min, "average": np.mean}[ens.pool.kind](members, axis=0)


def normed(y, axes=-1, eps=0.0):
    centred = y - y.mean(axis=axes, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=axes, keepdims=True) + eps)


def mlp_by_hand(model, x):
    ens, p = model.ens, numbers(model)
    y = x @ p["layers.0.weight"].T + p["layers.0.bias"]
    for number in range(1, len(model.layers) + 1):
        x = pool_by_hand(ens, PHI[str(ens.activation)](normed(y) if ens.layernorm else y))
        name = f"layers.{number}" if number < len(model.layers) else "head"
        z = x @ p[f"{name}.weight"].T + p[f"{name}.bias"]
        y = y + np.sqrt(ens.residual) * z if ens.residual and name != "head" else z
    return y


VARIANTS = {
    "plain": {},
    "max": {"pool": igb.MaxPool(2)},
    "min": {"pool": igb.MinPool(3)},
    "average": {"pool": igb.AvgPool(3), "weights": "uniform"},
    "residual": {"residual": 0.3, "weights": "rademacher"},
    "layernorm": {"layernorm": True},
    "orthogonal": {"weights": "orthogonal"},
    "all": {"pool": igb.MaxPool(3), "residual": 0.5, "layernorm": True, "weights": "orthogonal"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_mlp_is_its_formula(variant):
    ens = igb.Ensemble("relu", sigma_w2=1.7, sigma_b2=0.3, **VARIANTS[variant])
    model = MLP(ens, width=12, depth=3, features=7, classes=4, generator=seeded(), dtype=torch.float64)
    x = np.random.default_rng(0).standard_normal((5, 7))
    np.testing.assert_allclose(model(torch.from_numpy(x)).detach(), mlp_by_hand(model, x), rtol=1e-12, atol=1e-12)


def test_inputs_of_an_mlp_have_any_leading_dimensions_or_are_flattened():
    model = MLP(igb.Ensemble("tanh", sigma_w2=1.0), width=12, depth=2, features=24, classes=3, generator=seeded())
    x = torch.randn(10, 24, generator=seeded())
    expected = model(x)
    assert torch.equal(model(x.reshape(10, 2, 3, 4)), expected)
    torch.testing.assert_close(model(x.reshape(2, 5, 24)).reshape(10, 3), expected)
    torch.testing.assert_close(model(x[0]), expected[0])
    with pytest.raises(ValueError, match=r"inputs must have 24 features, got a tensor of shape \(10, 23\)"):
        model(x[:, 1:])


def test_batchnorm_normalises_over_the_batch():
    ens = igb.Ensemble("tanh", sigma_w2=1.0)
    model = MLP(ens, width=12, depth=1, batchnorm=True, generator=seeded(), dtype=torch.float64)
    x = np.random.default_rng(0).standard_normal((40, 12))
    p = numbers(model)
    y = normed(x @ p["layers.0.weight"].T, axes=0, eps=1e-5)
    expected = np.tanh(y) @ p["head.weight"].T
    np.testing.assert_allclose(model(torch.from_numpy(x)).detach(), expected, rtol=1e-12)


def convolved(x, weight, bias):
    """With circular padding, by shifts."""
    half, y = weight.shape[-1] // 2, bias[:, None, None]
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            y = y + np.einsum("oc,nchw->nohw", weight[:, :, i, j], np.roll(x, (half - i, half - j), axis=(2, 3)))
    return y


def cnn_by_hand(model, x):
    ens, p = model.ens, numbers(model)
    y = convolved(x, p["layers.0.weight"], p["layers.0.bias"])
    for number in range(1, len(model.layers) + 1):
        x = PHI[str(ens.activation)](normed(y, (1, 2, 3)) if ens.layernorm else y)
        x = np.moveaxis(pool_by_hand(ens, np.moveaxis(x, 1, -1)), -1, 1)
        if number in model.pooled_after:
            how = np.max if isinstance(model.spatial_pool, torch.nn.MaxPool2d) else np.mean
            y, x = (how([z[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], axis=0) for z in (y, x))
        if number < len(model.layers):
            z = convolved(x, p[f"layers.{number}.weight"], p[f"layers.{number}.bias"])
            y = y + np.sqrt(ens.residual) * z if ens.residual else z
    return x.mean((2, 3)) @ p["head.weight"].T + p["head.bias"]


@pytest.mark.parametrize("options", [{}, {"pool_every": 1}, {"pool_every": 2, "spatial_pool": "average", "kernel": 5}])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_cnn_is_its_formula(variant, options):
    ens = igb.Ensemble("abs", sigma_w2=1.7, sigma_b2=0.3, **VARIANTS[variant])
    shape = {"channels": 12, "depth": 3, "image": (2, 8, 4), "classes": 4}
    model = CNN(ens, **shape, **options, generator=seeded(), dtype=torch.float64)
    x = np.random.default_rng(0).standard_normal((3, 2, 8, 4))
    np.testing.assert_allclose(model(torch.from_numpy(x)).detach(), cnn_by_hand(model, x), rtol=1e-11, atol=1e-11)


def test_a_cnn_pools_as_long_as_the_image_allows():
    def after(**options):
        ens = igb.Ensemble("relu", sigma_w2=2.0)
        return CNN(ens, channels=4, depth=9, **options).pooled_after

    assert after(image=(1, 8, 8)) == ()
    assert after(image=(1, 8, 8), pool_every=2) == (2, 4, 6)
    assert after(image=(1, 8, 20), pool_every=1) == (1, 2, 3)
    assert after(image=(1, 8, 8), pool_every=1, kernel=5) == (1, 2)  # on 1 x 1 its padding would go around twice


def tokens_by_hand(model, x):
    """Patches in rows of the image, each through the embedding."""
    p, side = numbers(model), model.embedding.kernel_size[0]
    weight = p["embedding.weight"].reshape(len(p["embedding.weight"]), -1)
    patches = [
        x[:, :, i : i + side, j : j + side].reshape(len(x), -1)
        for i in range(0, x.shape[2], side)
        for j in range(0, x.shape[3], side)
    ]
    return np.stack([patch @ weight.T + p["embedding.bias"] for patch in patches], axis=1)


def blocks_by_hand(model, y, branches, skip, norm):
    for number in range(len(model.blocks)):
        for name, f in branches.items():
            p = {
                key.removeprefix(f"blocks.{number}.{name}."): value
                for key, value in numbers(model).items()
                if key.startswith(f"blocks.{number}.{name}.")
            }
            z = f(model, p, normed(y, eps=1e-5) if norm else y)
            y = z if skip is None else y + skip * z
    return normed(y, eps=1e-5) if norm else y


def mapped(p, name, y):
    return y @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def attention_by_hand(model, p, y):
    heads = model.blocks[0]["attention"].heads
    q, k, v = (np.split(mapped(p, name, y), heads, axis=-1) for name in "qkv")
    seen = []
    for head in range(heads):
        score = np.einsum("nsi,nti->nst", q[head], k[head]) / np.sqrt(q[head].shape[-1])
        weight = np.exp(score) / np.exp(score).sum(axis=-1, keepdims=True)
        seen.append(np.einsum("nst,nti->nsi", weight, v[head]))
    return mapped(p, "out", np.concatenate(seen, axis=-1))


def perceptron_by_hand(model, p, y):
    hidden = PHI[str(model.ens.activation)](mapped(p, "first", y))
    return mapped(p, "second", pool_by_hand(model.ens, hidden))


def token_mixing_by_hand(model, p, y):
    return perceptron_by_hand(model, p, y.swapaxes(1, 2)).swapaxes(1, 2)


BRANCHES = {
    ViT: {"attention": attention_by_hand, "mlp": perceptron_by_hand},
    MLPMixer: {"tokens": token_mixing_by_hand, "channels": perceptron_by_hand},
}

# Laws, options, the scale of the branches beside a skip, and whether there is normalisation.
FORMS = {
    "vanilla": ({}, {}, None, False),
    "skips": ({}, {"skips": True}, 1.0, False),
    "scaled": ({"residual": 0.25}, {}, 0.5, False),
    "normalised": ({"pool": igb.MaxPool(2)}, {"normalisation": True, "skips": True}, 1.0, True),
    "layernorm": ({"layernorm": True, "weights": "orthogonal"}, {}, None, True),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", BRANCHES)
def test_models_of_tokens_are_their_formulas(kind, form):
    law, options, skip, norm = FORMS[form]
    ens = igb.Ensemble("tanh", sigma_w2=1.7, sigma_b2=0.3, **law)
    shape = {"width": 8, "depth": 2, "image": IMAGE, "classes": 4}
    model = kind(ens, **shape, **options, generator=seeded(), dtype=torch.float64)
    x = np.random.default_rng(0).standard_normal((3, *IMAGE))
    y = blocks_by_hand(model, tokens_by_hand(model, x), BRANCHES[kind], skip, norm)
    expected = mapped(numbers(model), "head", y.mean(axis=1))
    for inputs in (x, x.reshape(3, -1)):
        np.testing.assert_allclose(model(torch.from_numpy(inputs)).detach(), expected, rtol=1e-11, atol=1e-11)


def test_positions_are_biases_of_the_tokens():
    options = {"width": 8, "depth": 1, "image": IMAGE, "dtype": torch.float64}
    model = ViT(igb.Ensemble("tanh", sigma_w2=1.0, sigma_b2=0.5), positions=True, **options, generator=seeded())
    x = np.random.default_rng(0).standard_normal((3, *IMAGE))
    y = tokens_by_hand(model, x) + numbers(model)["positions.weight"]
    expected = mapped(numbers(model), "head", blocks_by_hand(model, y, BRANCHES[ViT], None, False).mean(axis=1))
    np.testing.assert_allclose(model(torch.from_numpy(x)).detach(), expected, rtol=1e-11)
    # Without them a transformer does not see where a patch is.
    blind = ViT(model.ens, **options, generator=seeded())
    x, turned = torch.from_numpy(x), torch.from_numpy(np.roll(x, 2, axis=3))
    torch.testing.assert_close(blind(x), blind(turned))
    assert (model(x) - model(turned)).abs().max() > 1e-3


def test_blank_patches_stay_finite_with_normalisation():
    ens = igb.Ensemble("tanh", sigma_w2=1.0)
    for kind in BRANCHES:
        model = kind(ens, width=8, depth=2, image=(1, 4, 4), normalisation=True, generator=seeded())
        x = torch.zeros(2, 1, 4, 4)
        x[:, :, 0, 0] = 1.0
        model(x).sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())


MODELS = {
    "MLP": lambda ens, **options: MLP(ens, width=60, depth=2, features=72, **options),
    "CNN": lambda ens, **options: CNN(ens, channels=24, depth=2, image=IMAGE, **options),
    "ViT": lambda ens, **options: ViT(ens, width=32, depth=2, image=IMAGE, positions=True, **options),
    "MLPMixer": lambda ens, **options: MLPMixer(ens, width=32, depth=2, image=IMAGE, **options),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_has_the_variance_of_the_ensemble(name):
    """Variances of normals: within 5 standard errors, 2^(1/2) / n^(1/2) relative."""
    model = MODELS[name](igb.Ensemble("tanh", sigma_w2=3.0, sigma_b2=0.4), generator=seeded())
    for key, value in model.named_parameters():
        fan_in = value[0].numel() if key.endswith("weight") and "positions" not in key else 1
        expected = 3.0 / fan_in if key.endswith("weight") and "positions" not in key else 0.4
        found = float((value.detach() ** 2).mean())
        assert abs(found / expected - 1) < 5 * np.sqrt(2 / value.numel()), key


# ---- Their laws against the engine and theory ------------------------------------------------------------------------


def outputs_of_layers(model, x):
    """The pre-activations y^l by layer, watched: of residual networks the running sum, which enters phi."""
    seen = []
    place = model.phi if model.norms is None else None
    hooked = [place] if place is not None else model.norms
    handles = [part.register_forward_pre_hook(lambda _, args: seen.append(args[0])) for part in hooked]
    logits = model(x)
    for handle in handles:
        handle.remove()
    return seen, logits


def measured(model, x, labels):
    """The estimators of `simulate`, of each layer: y of shape (inputs, nodes)."""
    layers, logits = outputs_of_layers(model, x)
    loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    gradients = torch.autograd.grad(loss, layers)
    found = {}
    for number, (y, g) in enumerate(zip(layers, gradients, strict=True), 1):
        y, g = (z.detach().numpy() for z in (y, g))
        if y.ndim == 4:  # alike at all positions, whose gradients add up to those of a network without them
            y, g = y[:, :, 0, 0], g.sum((2, 3))
        sigma_y2 = y.var(axis=0, ddof=1).mean()
        gamma = (y.mean(axis=0).var(ddof=1) - sigma_y2 / len(y)) / sigma_y2
        found |= {f"gamma {number}": gamma, f"q {number}": (y**2).mean(), f"gradient {number}": (g**2).mean()}
    guess = logits.detach().numpy().argmax(axis=1)
    found["largest fraction"] = np.bincount(guess).max() / len(guess)
    return found


def simulated(ds):
    found = {
        f"{name} {layer}": ds[name].sel(layer=layer).values
        for name in ("gamma", "q", "gradient")
        for layer in ds.layer.values
    }
    return found | {"largest fraction": ds.class_fraction.max("class").values}


NETWORKS = 150


def assert_law_of_simulate(ens, make, shape, x, labels, as_input):
    run = igb.simulate(
        ens, **shape, inputs=x, labels=labels, networks=NETWORKS, gradients="cross_entropy", method="direct",
        dtype="float64", seed=5,
    )  # fmt: skip
    generator = seeded(1)
    inputs, target = as_input(torch.from_numpy(x)), torch.from_numpy(labels)
    each = [measured(make(generator), inputs, target) for _ in range(NETWORKS)]
    assert_same_law(simulated(run), {name: np.array([one[name] for one in each]) for name in each[0]})


@pytest.mark.parametrize("variant", ["plain", "average", "residual", "all"])
def test_mlps_have_the_law_of_simulate(variant):
    """Kolmogorov-Smirnov on 150 networks, with the false-alarm rate of tests/laws.py."""
    ens = igb.Ensemble("tanh", sigma_w2=2.0, sigma_b2=0.3, **VARIANTS[variant])
    shape = {"width": 24, "depth": 3, "classes": 4}
    rng = np.random.default_rng(3)
    x, labels = rng.standard_normal((8, 20)), rng.integers(0, 4, 8)

    def make(generator):
        return ens.to_torch(24, 3, 4, features=20, generator=generator, dtype=torch.float64)

    assert_law_of_simulate(ens, make, shape, x, labels, lambda x: x)


CONVOLUTIONS = [  # no orthogonal weights: the sum of orthogonal matrices, over the positions of a kernel, is none
    ({}, {}),
    ({"pool": igb.MaxPool(3), "residual": 0.5, "layernorm": True}, {"pool_every": 1}),
]


@pytest.mark.parametrize("law, options", CONVOLUTIONS)
def test_of_images_without_structure_a_cnn_has_the_law_of_an_mlp(law, options):
    """Images that are the same at all positions: the sum over a kernel is a weight of variance sigma_w2 / channels."""
    ens = igb.Ensemble("tanh", sigma_w2=2.0, sigma_b2=0.3, **law)
    rng = np.random.default_rng(4)
    x, labels = rng.standard_normal((6, 9)), rng.integers(0, 4, 6)

    def make(generator):
        shape = {"channels": 18, "depth": 3, "image": (9, 4, 4), "classes": 4}
        return CNN(ens, **shape, **options, generator=generator, dtype=torch.float64)

    shape = {"width": 18, "depth": 3, "classes": 4}
    assert_law_of_simulate(ens, make, shape, x, labels, lambda x: x[:, :, None, None].expand(-1, -1, 4, 4))


def z_scores(values, expected):
    """How many standard errors of the mean over networks, (network, layer), lie between it and theory."""
    return (values.mean(axis=0) - expected) / (values.std(axis=0, ddof=1) / np.sqrt(len(values)))


# Beyond the edges, where gamma stays finite or the network is not too deep for its logarithm to be Gaussian.
WIDE = {
    "tanh": igb.Ensemble("tanh", sigma_w2=2.5, sigma_b2=0.1),
    "relu, max": igb.Ensemble("relu", sigma_w2=4 / 3, sigma_b2=0.1, pool=igb.MaxPool(2)),
    "residual": igb.Ensemble("tanh", sigma_w2=1.5, sigma_b2=0.1, residual=0.2),
    "orthogonal": igb.Ensemble("gelu", sigma_w2=2.0, sigma_b2=0.1, weights="orthogonal"),
    "layernorm": igb.Ensemble("relu", sigma_w2=2.0, sigma_b2=0.1, layernorm=True),
}


@pytest.mark.parametrize("name", WIDE)
def test_wide_mlps_follow_theory(name):
    """q, gamma and squared gradients of 20 networks of width 400: all layers within 4.5 standard errors of the mean.

    20 networks make a Student's t of 19 degrees of freedom, beyond 4.5 once in 4,000 times; the seed is fixed.
    """
    ens, width, depth, networks = WIDE[name], 400, 5, 20
    theory, generator = igb.propagate(ens, depth), seeded(2)
    q, log_gamma, log_growth = (np.empty((networks, n)) for n in (depth, depth, depth - 1))
    for number in range(networks):
        model = MLP(ens, width=width, depth=depth, generator=generator)
        found = measured(model, torch.randn(60, width, generator=generator), torch.arange(60) % 10)
        q[number] = [found[f"q {layer}"] for layer in theory.layer.values]
        log_gamma[number] = np.log([found[f"gamma {layer}"] for layer in theory.layer.values])
        gradient = np.array([found[f"gradient {layer}"] for layer in theory.layer.values])
        log_growth[number] = np.log(gradient[:-1] / gradient[1:])
    assert np.abs(z_scores(q, theory.q.values)).max() < 4.5
    assert np.abs(z_scores(log_gamma, np.log(theory.gamma.values))).max() < 4.5
    assert np.abs(z_scores(log_growth, np.log(theory.chi.values[:-1]))).max() < 4.5


@pytest.mark.parametrize("name", ["tanh", "residual"])
def test_wide_cnns_follow_theory_of_inputs_that_look_alike_everywhere(name):
    """Images of +-1: |x|^2 is the same in every window, and so is q, up to 1 / channels; 4.5 standard errors."""
    ens, depth, networks = WIDE[name], 4, 12
    theory, generator = igb.propagate(ens, depth), seeded(3)
    q = np.empty((networks, depth))
    for number in range(networks):
        model = CNN(ens, channels=160, depth=depth, image=(5, 6, 6), generator=generator)
        x = torch.randint(0, 2, (6, 5, 6, 6), generator=generator) * 2.0 - 1.0
        layers, _ = outputs_of_layers(model, x)
        q[number] = [float((y.detach() ** 2).mean()) for y in layers]
    assert np.abs(z_scores(q, theory.q.values)).max() < 4.5


# ---- Drawing, seeds, devices and types -------------------------------------------------------------------------------


def same(model, other):
    return all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("law", ["gaussian", "orthogonal", "uniform", "rademacher"])
@pytest.mark.parametrize("name", MODELS)
def test_the_same_generator_gives_the_same_model(name, law):
    ens, make = igb.Ensemble("tanh", sigma_w2=1.5, sigma_b2=0.1, weights=law), MODELS[name]
    state = torch.get_rng_state()
    model = make(ens, generator=seeded(7))
    assert torch.equal(torch.get_rng_state(), state)  # the global one is left alone
    assert same(model, make(ens, generator=seeded(7)))
    assert not same(model, make(ens, generator=seeded(8)))
    assert same(model, make(ens, generator=seeded(8)).redraw_(seeded(7)))
    with torch.random.fork_rng():
        torch.manual_seed(7)
        assert same(model, make(ens))


@pytest.mark.parametrize("name", MODELS)
def test_types_and_copies(name):
    ens, make = igb.Ensemble("tanh", sigma_w2=1.5, sigma_b2=0.1), MODELS[name]
    model = make(ens, generator=seeded())
    for dtype in (torch.float64, torch.bfloat16):
        other = make(ens, generator=seeded(), dtype=dtype)
        y = other(torch.randn(4, 72, generator=seeded()).to(dtype))
        y.sum().backward()
        assert y.dtype == dtype
        assert torch.isfinite(y).all()
        if dtype == torch.bfloat16:
            assert same(other, copy.deepcopy(model).to(dtype))
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert same(other, model)
        assert other.ens == ens
    assert all(p.is_meta for p in make(ens, device="meta").parameters())


@pytest.mark.parametrize("name, activation", [*((name, "2 * tanh(x / 2) + 0.1") for name in MODELS), ("MLP", BUMP)])
def test_models_are_captured_in_one_piece(name, activation):
    model = MODELS[name](igb.Ensemble(activation, sigma_w2=1.5), generator=seeded())
    x = torch.randn(4, *IMAGE, generator=seeded())
    exported = torch.export.export(model, (x,))
    torch.testing.assert_close(exported.module()(x), model(x))


def test_draw_takes_another_law_but_no_other_architecture():
    ens = igb.Ensemble("tanh", sigma_w2=1.0, sigma_b2=0.0)
    model = MLP(ens, width=20, depth=2, batchnorm=True, generator=seeded())
    model(torch.randn(9, 20))
    assert model.norms[0].running_mean.abs().max() > 0
    stronger = igb.Ensemble("tanh", sigma_w2=4.0, sigma_b2=0.5)
    assert draw_(model, stronger, seeded()) is model
    assert model.ens == stronger
    assert model.norms[0].running_mean.abs().max() == 0
    # The same random numbers, scaled.
    weak = MLP(ens, width=20, depth=2, generator=seeded())
    torch.testing.assert_close(model.head.weight, 2 * weak.head.weight)
    assert not weak.head.bias.any()
    with pytest.raises(ValueError, match="ens must have the residual of the model, None, got 0.1"):
        draw_(model, igb.Ensemble("tanh", sigma_w2=1.0, residual=0.1))


def test_draw_takes_any_module_with_layers():
    net = torch.nn.Sequential(torch.nn.Conv1d(4, 60, 5, groups=2), torch.nn.ReLU(), torch.nn.Linear(3, 200, bias=False))
    draw_(net, igb.Ensemble("relu", sigma_w2=2.0), seeded())
    for part, fan_in in ((net[0], 10), (net[2], 3)):
        assert abs(float((part.weight.detach() ** 2).mean()) * fan_in / 2 - 1) < 5 * np.sqrt(2 / part.weight.numel())
    with pytest.raises(ValueError, match="module must have a Linear or Conv layer, got ReLU"):
        draw_(torch.nn.ReLU(), igb.Ensemble("relu", sigma_w2=2.0))
    with pytest.raises(TypeError, match="module must be a torch.nn.Module, got 'relu'"):
        draw_("relu", igb.Ensemble("relu", sigma_w2=2.0))
    with pytest.raises(ValueError, match="module must know its shapes, but '0' is lazy"):
        draw_(torch.nn.Sequential(torch.nn.LazyLinear(3)), igb.Ensemble("relu", sigma_w2=2.0))
    computed = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(3, 3))
    with pytest.raises(ValueError, match="every weight in module must be a parameter, but that of '0' is computed"):
        draw_(torch.nn.Sequential(computed), igb.Ensemble("relu", sigma_w2=2.0))


def test_to_torch_is_the_mlp():
    ens = igb.Ensemble("relu", sigma_w2=2.0, pool=igb.MaxPool(2))
    model = ens.to_torch(20, 3, 7, features=5, generator=seeded(), dtype=torch.float64)
    assert same(model, MLP(ens, width=20, depth=3, classes=7, features=5, generator=seeded(), dtype=torch.float64))


# ---- Errors ----------------------------------------------------------------------------------------------------------

TANH = igb.Ensemble("tanh", sigma_w2=1.0)
POOLED = igb.Ensemble("tanh", sigma_w2=1.0, pool=igb.MaxPool(3))
NORMED = igb.Ensemble("tanh", sigma_w2=1.0, layernorm=True)
MIXED = igb.Ensemble("mixture((0.5, tanh), (0.5, relu))", sigma_w2=1.0)
M = {"width": 12, "depth": 2}
C = {"channels": 12, "depth": 2, "image": (1, 8, 8)}
P = {"width": 12, "depth": 2, "image": (1, 8, 8)}

WRONG = [
    (MLP, ("tanh", M), TypeError, "ens must be an Ensemble"),
    (MLP, (MIXED, M), ValueError, "each node draws its own"),
    (MLP, (TANH, {**M, "width": 0}), ValueError, "width must be an integer of at least 1, got 0"),
    (MLP, (TANH, {**M, "depth": 2.0}), TypeError, "depth must be an integer of at least 1, got 2.0"),
    (MLP, (TANH, {**M, "classes": 0}), ValueError, "classes must be an integer of at least 1, got 0"),
    (MLP, (TANH, {**M, "features": True}), TypeError, "features must be an integer of at least 1, got True"),
    (MLP, (TANH, {**M, "generator": 3}), TypeError, "generator must be None or such as torch.Generator().* got 3"),
    (MLP, (TANH, {**M, "dtype": torch.int32}), TypeError, "dtype must be None or a floating type .* got torch.int32"),
    (MLP, (POOLED, {**M, "width": 10}), ValueError, r"width must be a multiple of 3 for pool=MaxPool\(3\), got 10"),
    (MLP, (NORMED, {**M, "width": 1}), ValueError, "width must be at least 2 with layernorm=True"),
    (MLP, (NORMED, {**M, "batchnorm": True}), ValueError, "batchnorm must be False where ens has layernorm=True"),
    (CNN, (TANH, {**C, "image": (8, 8)}), TypeError, r"image must be \(channels, height, width\), got \(8, 8\)"),
    (CNN, (TANH, {**C, "image": (1, 8, 0)}), ValueError, "every size in image must be an integer of at least 1, got 0"),
    (CNN, (TANH, {**C, "kernel": 4}), ValueError, "kernel must be odd, got 4"),
    (CNN, (TANH, {**C, "kernel": 19}), ValueError, r"kernel must be at most 17 for image=\(1, 8, 8\), got 19"),
    (CNN, (TANH, {**C, "pool_every": -1}), ValueError, "pool_every must be an integer of at least 0, got -1"),
    (CNN, (TANH, {**C, "spatial_pool": "avg"}), ValueError, "spatial_pool must be one of 'max', 'average', got 'avg'"),
    (CNN, (POOLED, {**C, "channels": 10}), ValueError, "channels must be a multiple of 3"),
    (ViT, (TANH, {**P, "heads": 5}), ValueError, "heads must divide width=12, got 5"),
    (ViT, (TANH, {**P, "patch": 3}), ValueError, r"patch must divide height and width of image=\(1, 8, 8\), got 3"),
    (ViT, (TANH, {**P, "mlp_ratio": 0.3}), ValueError, "mlp_ratio must give a whole number of hidden nodes .* got 0.3"),
    (ViT, (POOLED, {**P, "mlp_ratio": 5 / 3}), ValueError, "the number of hidden nodes must be a multiple of 3"),
    (ViT, (TANH, {**P, "skips": 1}), TypeError, "skips must be True or False, got 1"),
    (ViT, (NORMED, {**P, "width": 1, "heads": 1}), ValueError, "width must be at least 2 with normalisation"),
    (MLPMixer, (TANH, {**P, "tokens_ratio": -1}), ValueError, "tokens_ratio must be a positive finite number, got -1"),
    (MLPMixer, (TANH, {**P, "depth": 0}), ValueError, "depth must be an integer of at least 1, got 0"),
]


@pytest.mark.parametrize("kind, arguments, error, match", WRONG)
def test_wrong_arguments_are_named_before_any_random_number_is_drawn(kind, arguments, error, match):
    ens, options = arguments
    state = torch.get_rng_state()
    with pytest.raises(error, match=match):
        kind(ens, **options)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["CNN", "ViT", "MLPMixer"])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 4, 6, 3), (72,), (2, 71)])
def test_images_of_another_shape(name, shape):
    with pytest.raises(ValueError, match=r"inputs must be of shape \(n, 3, 4, 6\) or flat, got \(.*\)"):
        MODELS[name](TANH)(torch.zeros(shape))


def test_timm_by_name(monkeypatch):
    made = []
    known = SimpleNamespace(
        is_model=lambda name: name == "vit_tiny",
        list_models=lambda: ["vit_tiny"],
        create_model=lambda name, **options: made.append((name, options)) or torch.nn.Linear(1, 1),
    )
    monkeypatch.setitem(sys.modules, "timm", known)
    assert isinstance(timm_model("vit_tiny", classes=3, in_chans=1), torch.nn.Linear)
    assert made == [("vit_tiny", {"num_classes": 3, "in_chans": 1})]
    with pytest.raises(ValueError, match="name must be that of a timm model, got 'vit_tin'; did you mean 'vit_tiny'?"):
        timm_model("vit_tin")
    with pytest.raises(TypeError, match="name must be a string, got 3"):
        timm_model(3)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match="pip install timm"):
        timm_model("vit_tiny")
