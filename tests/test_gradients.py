"""Gradients of the loss: against automatic differentiation, against theory's chi, and the two engines in law."""

from __future__ import annotations

import numpy as np
import pytest
from laws import assert_same_law
from network_reference import Reference
from test_forward_exact import ENSEMBLES, GIVEN, INDEPENDENT_WEIGHTS, WIDE

LOSSES = ("readout", "cross_entropy")


# ---- Number by number: `direct` ----


def assert_equal_gradients(reference: Reference, rtol: float, **run) -> None:
    pytest.importorskip("torch")
    got = reference.simulate(**run)
    for layer, delta in enumerate(reference.autograd()):
        squares = delta**2
        where = f"layer {layer + 1}"
        np.testing.assert_allclose(got["gradient"][0, layer], squares.mean(axis=0), rtol=rtol, err_msg=where)
        nodes = squares.mean(axis=1)  # averaged over the inputs
        error = nodes.std(ddof=1) / np.sqrt(len(nodes))
        np.testing.assert_allclose(got["gradient_se"][0, layer], error, rtol=10 * rtol, err_msg=where)
    if reference.loss == "cross_entropy":
        np.testing.assert_array_equal(got["labels"][0], reference.target)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_direct_equals_autograd(loss, activation, ensemble):
    reference = Reference(activation, loss=loss, width=66, depth=4, inputs=9, **ENSEMBLES[ensemble])
    assert_equal_gradients(reference, 1e-9)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_float32_to_its_digits(loss, ensemble):
    reference = Reference(loss=loss, width=300, depth=4, inputs=9, dtype="float32", **ENSEMBLES[ensemble])
    assert_equal_gradients(reference, 1e-5)


@pytest.mark.parametrize("weights", INDEPENDENT_WEIGHTS)
@pytest.mark.parametrize("ensemble", ["plain", "average of 3", "norm, residual, min of 2"])
@pytest.mark.parametrize("inputs", [GIVEN, WIDE], ids=["fewer features than nodes", "more"])
@pytest.mark.parametrize("dtype, rtol", [("float64", 1e-9), ("float32", 2e-5)])
def test_weights_that_are_not_gaussian(weights, ensemble, inputs, dtype, rtol):
    reference = Reference(weights=weights, loss="cross_entropy", width=66, inputs=inputs, dtype=dtype)
    assert_equal_gradients(reference.with_(**ENSEMBLES[ensemble]), rtol)


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("given", [False, True])
def test_labels(classes, given):
    labels = (np.arange(7) * 3 % classes).astype(np.int32) if given else None
    reference = Reference(loss="cross_entropy", classes=classes, labels=labels, seed=2**35 + 1, network=3)
    assert_equal_gradients(reference, 1e-9)


@pytest.mark.parametrize("method", ["direct", "gram"])
def test_random_labels_are_uniform(method):
    classes, inputs = 5, 400
    got = Reference(method=method, loss="cross_entropy", classes=classes, inputs=inputs, width=8, depth=1).simulate(
        networks=20
    )
    counts = np.bincount(got["labels"].ravel(), minlength=classes)
    expected = got["labels"].size / classes
    assert len(counts) == classes
    assert ((counts - expected) ** 2 / expected).sum() < 35  # chi square with 4 degrees of freedom: 5e-7
    # No two networks, and no two inputs, share their labels.
    assert len({row.tobytes() for row in got["labels"]}) == 20


@pytest.mark.parametrize("chunk", [1, 4, 8])
@pytest.mark.parametrize("ensemble", ["plain", "norm, residual, average of 3"])
def test_direct_in_chunks_equals_autograd(chunk, ensemble):
    reference = Reference(loss="cross_entropy", width=66, inputs=9, **ENSEMBLES[ensemble])
    assert_equal_gradients(reference, 1e-9, chunk=chunk)


def leads(reference: Reference) -> np.ndarray:
    """By how much the largest logit of each input exceeds the next one."""
    logits = np.sort(reference.forward[1], axis=0)
    return logits[-1] - logits[-2]


@pytest.mark.parametrize("dtype, rtol", [("float64", 1e-9), ("float32", 1e-3)])
def test_gradients_that_vanish_keep_their_digits(dtype, rtol):
    # A network that is sure of every input's class: one minus its probability is far below the rounding of 1.
    reference = Reference(
        "relu", sigma_w2=2.0, sigma_b2=1500.0, loss="cross_entropy", classes=3, width=64, inputs=6, dtype=dtype
    )
    sure = next(r for n in range(50) if leads(r := reference.with_(network=n)).min() > 60)
    logits = sure.forward[1]
    guess = logits.argmax(axis=0)
    # d loss / d logit of the other classes is their probability; of the label it is less their sum.
    odds = np.exp(logits - logits.max(axis=0))
    odds[guess, np.arange(6)] = 0.0
    odds[guess, np.arange(6)] = -odds.sum(axis=0)
    got = sure.with_(labels=guess.astype(np.int32)).simulate()
    want = (backward(sure, odds) ** 2).mean(axis=1)
    np.testing.assert_allclose(got["gradient"][0], want, rtol=rtol)
    assert 0 < want.max() < 1e-45


def backward(reference: Reference, delta: np.ndarray) -> np.ndarray:
    """dLoss / dy of a plain ReLU network's layers, (layer, node, input), from that of its logits."""
    found = []
    layers = reference.forward[0]
    for layer in range(reference.depth, 0, -1):
        nodes = reference.width if layer < reference.depth else reference.outputs
        w = reference.weights_of(layer + 1, nodes, reference.width)
        delta = (layers[layer - 1] > 0) * (w.T @ delta)
        found.insert(0, delta)
    return np.array(found)


# ---- Against theory ----


@pytest.mark.parametrize(
    "activation, sigma_w2, ensemble",
    [
        ("tanh", 0.9, {}),
        ("tanh", 1.76, {}),
        ("tanh", 3.0, {}),
        ("relu", 2.0, {}),
        ("gelu", 2.2, {}),
        ("relu", 1.2, {"pool": "max", "pool_size": 2}),
        ("relu", 3.0, {"pool": "average", "pool_size": 2}),
        ("tanh", 1.5, {"residual": 0.2}),
        ("relu", 1.5, {"layernorm": True}),
        ("tanh", 1.5, {"layernorm": True, "residual": 0.2}),
    ],
)
@pytest.mark.parametrize("method", ["direct", "gram"])
def test_gradients_grow_by_chi(method, activation, sigma_w2, ensemble):
    width, depth, networks = 2000 if method == "gram" else 300, 10, 24
    reference = Reference(
        activation, sigma_w2=sigma_w2, sigma_b2=0.05, width=width, depth=depth, inputs=6, method=method,
        dtype="float32", loss="readout", **ensemble,
    )  # fmt: skip
    got = reference.simulate(networks=networks)
    chi = reference.theory()["chi"]
    log_gradient = np.log(got["gradient"].mean(axis=2))
    # From the last layer down: the read-out's weights, of variance sigma_w2 / fan_in, make a mean square of chi / width
    # (which holds no skip connection); every layer below multiplies by its own chi.
    last = (chi[-1] - 1) / reference.residual if reference.residual else chi[-1]
    want = np.log(last / width) + np.append(np.cumsum(np.log(chi[:-1])[::-1])[::-1], 0.0)
    error = log_gradient.std(axis=0, ddof=1) / np.sqrt(networks)
    # The mean of a logarithm lies below the logarithm of the mean, by half the variance over networks; finite width
    # itself shifts by some layer / width.
    allowance = log_gradient.var(axis=0) / 2 + 3 * np.arange(depth, 0, -1) / width
    assert np.all(np.abs(log_gradient.mean(axis=0) - want) < 5 * error + allowance)
    assert np.all(error < 0.1)


@pytest.mark.parametrize("method", ["direct", "gram"])
def test_standard_errors_cover_the_nodes(method):
    # One layer, inputs given, a read-out: nodes and their weights are independent, and the scatter over networks is
    # what the error bar over the nodes says.
    got = Reference(method=method, width=400, depth=1, inputs=GIVEN, loss="readout").simulate(networks=600)
    gradient = got["gradient"].mean(axis=2)[:, 0]
    # The standard deviation of 600 values is known to 3 %; five times that.
    assert abs(got["gradient_se"][:, 0].mean() / gradient.std(ddof=1) - 1) < 0.15


def test_one_class_is_favoured():
    # Chaotic deep prejudice: inputs the network already gives to their class have the smallest gradients.
    reference = Reference(
        "relu", sigma_w2=4.0, sigma_b2=0.1, width=1000, depth=10, inputs=60, classes=5, method="gram",
        loss="cross_entropy",
    )  # fmt: skip
    got = reference.simulate(networks=8)
    right = got["guess"] == got["labels"]
    first = got["gradient"][:, 0]
    assert right.any()
    assert np.median(first[right]) < 1e-3 * np.median(first[~right])


# ---- In law: the engines ----

DUPLICATES = np.random.default_rng(3).normal(size=(3, 10))[[0, 1, 1, 2]]

LAWS = {
    "few nodes": {"width": 5, "inputs": 2, "depth": 3},
    "wider": {"width": 24, "inputs": 5, "depth": 3},
    "relu": {"activation": "relu", "sigma_w2": 2.0, "width": 12, "inputs": 4},
    "gelu": {"activation": "gelu", "sigma_w2": 2.0, "width": 12, "inputs": 4},
    "more inputs than nodes": {"width": 6, "inputs": 10},
    "duplicate inputs": {"width": 8, "inputs": DUPLICATES},
    "more features than inputs": {"width": 8, "inputs": GIVEN[:3]},
    "max": {"width": 12, "inputs": 3, "pool": "max", "pool_size": 2},
    "min": {"width": 12, "inputs": 3, "pool": "min", "pool_size": 3},
    "average": {"width": 12, "inputs": 3, "pool": "average", "pool_size": 2},
    "pools fewer than inputs": {"width": 8, "inputs": 6, "pool": "average", "pool_size": 2},
    "residual": {"width": 8, "inputs": 3, "residual": 0.5},
    "norm": {"width": 8, "inputs": 3, "layernorm": True},
    "norm, residual, max": {
        "width": 12, "inputs": 3, "layernorm": True, "residual": 0.5, "pool": "max", "pool_size": 2,
    },
}  # fmt: skip


@pytest.mark.parametrize(
    "weights, loss", [("gaussian", "readout"), ("gaussian", "cross_entropy"), ("orthogonal", "cross_entropy")]
)
@pytest.mark.parametrize("law", LAWS)
def test_direct_and_gram_have_the_same_law(law, weights, loss):
    reference = Reference(**{"sigma_w2": 1.8, "sigma_b2": 0.1, "classes": 3, **LAWS[law]}, weights=weights, loss=loss)
    engines = (("direct", 1), ("gram", 2))
    runs = [reference.with_(method=method, seed=seed).simulate(networks=2000) for method, seed in engines]
    assert_same_law(*(statistics(run) for run in runs))


def statistics(run: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a run says of each network's gradients: by layer, and how they go together."""
    gradient = run["gradient"]
    found = {}
    for layer in range(gradient.shape[1]):
        here = f"in layer {layer + 1}"
        mean, of_one = gradient[:, layer].mean(axis=1), gradient[:, layer, -1]
        found[f"mean over the inputs {here}"] = mean
        found[f"of the last input {here}"] = of_one
        found[f"of two inputs {here}"] = gradient[:, layer, 0] * of_one
        found[f"standard error {here}"] = run["gradient_se"][:, layer]
        found[f"with the forward q {here}"] = mean * run["q"][:, layer]
        found[f"with chi {here}"] = of_one * run["chi"][:, layer]
        if layer > 0:
            found[f"with the layer before {here}"] = mean * gradient[:, layer - 1].mean(axis=1)
            found[f"less the layer before {here}"] = of_one - gradient[:, layer - 1, -1]
    found["first and last layer, two inputs"] = gradient[:, 0, 0] * gradient[:, -1, -1]
    return found


# ---- Duplicates ----


@pytest.mark.parametrize("method", ["direct", "gram"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("ensemble", ["plain", "average of 3", "norm, residual"])
def test_equal_inputs_of_equal_labels_have_equal_gradients(method, dtype, ensemble):
    given = GIVEN[[0, 1, 1, 0, 2, 2, 0]]
    labels = np.array([0, 1, 1, 0, 2, 3, 1], np.int32)
    reference = Reference(
        method=method, dtype=dtype, width=66, depth=4, inputs=given, labels=labels, loss="cross_entropy",
        **ENSEMBLES[ensemble],
    )  # fmt: skip
    got = reference.simulate()
    assert np.isfinite(got["gradient"]).all()
    rtol = 1e-4 if dtype == "float32" else 1e-10
    gradient = got["gradient"][0]
    np.testing.assert_allclose(gradient[:, 0], gradient[:, 3], rtol=rtol)
    np.testing.assert_allclose(gradient[:, 1], gradient[:, 2], rtol=rtol)
    assert not np.allclose(gradient[:, 4], gradient[:, 5], rtol=1e-2)  # the labels differ
    guess = got["guess"][0]
    assert guess[0] == guess[3] == guess[6]
    assert guess[1] == guess[2]


@pytest.mark.parametrize("method", ["direct", "gram"])
@pytest.mark.parametrize("loss", LOSSES)
def test_all_inputs_equal(method, loss):
    given = np.repeat(GIVEN[:1], 5, axis=0)
    got = Reference(method=method, width=66, inputs=given, loss=loss, labels=np.zeros(5, np.int32)).simulate()
    np.testing.assert_array_equal(got["sigma_y2"], 0.0)
    np.testing.assert_allclose(got["gradient"], np.repeat(got["gradient"][..., :1], 5, axis=2), rtol=1e-10)
    assert (got["gradient"] > 0).all()
