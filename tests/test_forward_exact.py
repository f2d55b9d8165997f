"""The forward engines against the same networks computed by NumPy from the same random numbers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from igbfast import _core

ACTIVATIONS = {
    "linear": (0.0, lambda x: x, lambda x: np.ones_like(x)),
    "relu": (0.0, lambda x: np.maximum(x, 0), lambda x: (x > 0).astype(float)),
    "leaky_relu": (0.2, lambda x: np.where(x > 0, x, 0.2 * x), lambda x: np.where(x > 0, 1.0, 0.2)),
    "tanh": (0.0, np.tanh, lambda x: 1 / np.cosh(x) ** 2),
    "erf": (0.0, special.erf, lambda x: 2 / np.sqrt(np.pi) * np.exp(-(x**2))),
}
ESTIMATES = ("sigma_mu2", "sigma_y2", "gamma", "q", "c", "chi")


def normals(stream: str, layer: int, rows: int, columns: int, *, seed: int = 7, network: int = 0, dtype="float64"):
    return _core.normals(
        seed=seed, network=network, layer=layer, stream=stream, rows=rows, columns=columns, dtype=dtype
    ).astype(float)


def estimates(y: np.ndarray, slope: np.ndarray, sigma_w2: float) -> dict[str, float]:
    """What theory.md's estimators give for the pre-activations y (node, input), written the plain way."""
    nodes, inputs = y.shape
    mu, var = y.mean(axis=1), y.var(axis=1, ddof=1)
    gram = y.T @ y / nodes
    pairs = np.triu_indices(inputs, 1)
    c = (gram / np.sqrt(np.outer(np.diag(gram), np.diag(gram))))[pairs]
    sigma_y2 = var.mean()
    sigma_mu2 = mu.var(ddof=1) - sigma_y2 / inputs
    return {
        "sigma_mu2": sigma_mu2,
        "sigma_y2": sigma_y2,
        "gamma": sigma_mu2 / sigma_y2,
        "q": np.diag(gram).mean(),
        "c": c.mean(),
        "chi": sigma_w2 * (slope**2).mean(),
    }


def forward(method, activation, sigma_w2, sigma_b2, width, depth, inputs, given=None, dtype="float64"):
    """The pre-activations of every layer, in plain NumPy; `inputs` in number, or `given` (n, features)."""
    _, phi, _ = ACTIVATIONS[activation]
    x = normals("inputs", 0, inputs, width, dtype=dtype).T if given is None else given.T
    layers = []
    for layer in range(1, depth + 1):
        fan_in = len(x)
        if method == "direct":
            y = np.sqrt(sigma_w2 / fan_in) * normals("weights", layer, width, fan_in, dtype=dtype) @ x
        else:
            z = normals("gram", layer, inputs, width, dtype=dtype).T
            # Cholesky of the covariance itself: the engine factors it in differences from the first input.
            y = z @ np.linalg.cholesky(sigma_w2 / fan_in * x.T @ x).T
        y = y + np.sqrt(sigma_b2) * normals("biases", layer, 1, width, dtype=dtype).T
        layers.append(y)
        x = phi(y)
    return layers


@pytest.mark.parametrize("method", ["direct", "gram"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("width", [65, 200])
def test_layers_equal_numpy(method, activation, width):
    parameter, _, slope = ACTIVATIONS[activation]
    depth, inputs, sigma_w2, sigma_b2 = 4, 9, 1.7, 0.3
    got = _core.simulate(
        activation=activation, parameter=parameter, sigma_w2=sigma_w2, sigma_b2=sigma_b2, width=width, depth=depth,
        inputs=inputs, seed=7, method=method, dtype="float64", per_node=True,
    )  # fmt: skip
    for layer, y in enumerate(forward(method, activation, sigma_w2, sigma_b2, width, depth, inputs)):
        want = estimates(y, slope(y), sigma_w2)
        for name in ESTIMATES:
            np.testing.assert_allclose(got[name][0, layer], want[name], rtol=1e-10, err_msg=f"{name} {layer}")
        np.testing.assert_allclose(got["mu"][0, layer], y.mean(axis=1), rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(got["var"][0, layer], y.var(axis=1, ddof=1), rtol=1e-9)


@pytest.mark.parametrize("method", ["direct", "gram"])
def test_given_inputs_equal_numpy(method):
    given = np.random.default_rng(0).normal(size=(7, 50)) * np.linspace(0.1, 3, 7)[:, None] + 0.5
    got = _core.simulate(
        activation="tanh", parameter=0.0, sigma_w2=1.4, sigma_b2=0.1, width=130, depth=3, inputs=given, seed=7,
        method=method, dtype="float64",
    )  # fmt: skip
    slope = ACTIVATIONS["tanh"][2]
    for layer, y in enumerate(forward(method, "tanh", 1.4, 0.1, 130, 3, 7, given)):
        want = estimates(y, slope(y), 1.4)
        for name in ESTIMATES:
            np.testing.assert_allclose(got[name][0, layer], want[name], rtol=1e-10, err_msg=f"{name} {layer}")


@pytest.mark.parametrize("method", ["direct", "gram"])
def test_float32_equals_numpy_to_its_digits(method):
    got = _core.simulate(
        activation="tanh", parameter=0.0, sigma_w2=1.7, sigma_b2=0.3, width=300, depth=4, inputs=9, seed=7,
        method=method, dtype="float32",
    )  # fmt: skip
    slope = ACTIVATIONS["tanh"][2]
    for layer, y in enumerate(forward(method, "tanh", 1.7, 0.3, 300, 4, 9, dtype="float32")):
        want = estimates(y, slope(y), 1.7)
        for name in ESTIMATES:
            np.testing.assert_allclose(got[name][0, layer], want[name], rtol=2e-5, err_msg=f"{name} {layer}")


def test_two_nodes_and_two_inputs():
    got = _core.simulate(
        activation="relu", parameter=0.0, sigma_w2=2.0, sigma_b2=0.1, width=2, depth=2, inputs=2, seed=7,
        method="direct", dtype="float64",
    )  # fmt: skip
    y = forward("direct", "relu", 2.0, 0.1, 2, 2, 2)[1]
    want = estimates(y, (y > 0).astype(float), 2.0)
    np.testing.assert_allclose(got["sigma_y2"][0, 1], want["sigma_y2"], rtol=1e-12)
    np.testing.assert_allclose(got["sigma_mu2"][0, 1], want["sigma_mu2"], rtol=1e-12)
    np.testing.assert_allclose(got["c"][0, 1], want["c"], rtol=1e-12)
