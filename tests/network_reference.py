"""A whole random network in plain NumPy, and in PyTorch for its gradients: what the engines are held against.

The random numbers are the package's own, which have tests of their own; everything made from them is written here the
plain way, all inputs and all weights at once, in double precision, with nothing carried as a difference:

    y^(1) = W x^(0) + b,   y^(l+1) = [y^(l) +] sqrt(a) (W x^(l) + b),   x^(l) = pool(phi(norm(y^(l)))).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy import special

import igbfast as igb
from igbfast import _core

# phi and phi'. `xp` is numpy or torch: both know these functions by the same names, but for erf.
PHI: dict[str, Any] = {
    "linear": (lambda xp, x: x, lambda x: np.ones_like(x)),
    "relu": (lambda xp, x: xp.maximum(x, 0 * x), lambda x: (x > 0).astype(float)),
    "leaky_relu(0.2)": (lambda xp, x: xp.where(x > 0, x, 0.2 * x), lambda x: np.where(x > 0, 1.0, 0.2)),
    "abs": (lambda xp, x: xp.abs(x), np.sign),
    "tanh": (lambda xp, x: xp.tanh(x), lambda x: 1 / np.cosh(x) ** 2),
    "erf": (lambda xp, x: erf(x), lambda x: 2 / np.sqrt(np.pi) * np.exp(-(x**2))),
    "gelu": (
        lambda xp, x: x * (1 + erf(x / np.sqrt(2))) / 2,
        lambda x: special.ndtr(x) + x * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi),
    ),
    "sigmoid": (lambda xp, x: 1 / (1 + xp.exp(-x)), lambda x: special.expit(x) * special.expit(-x)),
}

ESTIMATES = ("sigma_mu2", "sigma_y2", "gamma", "q", "c", "chi")


def erf(x):
    return special.erf(x) if isinstance(x, np.ndarray) else x.erf()


@dataclass(frozen=True)
class Reference:
    """One network on given or Gaussian inputs; `arguments` are what `_core.simulate` takes for the same one."""

    activation: str = "tanh"
    sigma_w2: float = 1.7
    sigma_b2: float = 0.3
    width: int = 66
    depth: int = 3
    inputs: int | np.ndarray = 7
    pool: str = "none"
    pool_size: int = 1
    weights: str = "gaussian"
    residual: float = 0.0
    layernorm: bool = False
    loss: str = "none"
    classes: int = 4
    labels: np.ndarray | None = None
    seed: int = 7
    network: int = 0
    method: str = "direct"
    dtype: str = "float64"
    q_max: float = field(default=1e4, repr=False)  # of phi's table

    def arguments(self, **others: Any) -> dict[str, Any]:
        given = isinstance(self.inputs, np.ndarray)
        return {
            "phi": igb.Activation(self.activation)._core_phi(self.q_max),
            "inputs": np.ascontiguousarray(self.inputs, self.dtype) if given else self.inputs,
            "networks": 1,
            "first_network": self.network,
            **{name: getattr(self, name) for name in SHARED},
            **others,
        }

    def simulate(self, **others: Any) -> dict[str, np.ndarray]:
        return _core.simulate(**self.arguments(**others))

    def theory(self, depth: int = 0) -> dict[str, np.ndarray]:
        """The same at infinite width, for Gaussian inputs; `depth` if it is not the network's own."""
        extremes = self.pool in ("max", "min")
        return _core.propagate(
            phi=igb.Activation(self.activation)._core_phi(self.q_max, table=extremes), pool=self.pool,
            size=self.pool_size, sigma_w2=self.sigma_w2, sigma_b2=self.sigma_b2, residual=self.residual,
            layernorm=self.layernorm, sigma_mu2=self.sigma_b2, sigma_y2=self.sigma_w2, depth=depth or self.depth,
        )  # fmt: skip

    # ---- Random numbers ----

    def normals(self, stream: str, layer: int, rows: int, columns: int) -> np.ndarray:
        shape = {"rows": rows, "columns": columns, "dtype": self.dtype}
        drawn = _core.normals(seed=self.seed, network=self.network, layer=layer, stream=stream, **shape)
        return drawn.astype(float)

    def weights_of(self, layer: int, rows: int, columns: int) -> np.ndarray:
        """W of one layer, of mean square sigma_w2 / columns; the head's (of layer depth + 1) are always gaussian."""
        law = self.weights if layer <= self.depth else "gaussian"
        drawn = drawn_weights(law, self.seed, self.network, layer, rows, columns, self.dtype)
        return np.sqrt(self.sigma_w2 / columns) * drawn

    def columns_of_nodes(self, layer: int) -> np.ndarray:
        """Where node i of a layer finds its random numbers: the members of the pools begin at multiples of 64."""
        if layer > self.depth:
            return np.arange(self.outputs)
        stride = -(-self.pools // 64) * 64
        node = np.arange(self.width)
        return node // self.pools * stride + node % self.pools

    def of_nodes(self, stream: str, layer: int, rows: int) -> np.ndarray:
        columns = self.columns_of_nodes(layer)
        return self.normals(stream, layer, rows, columns[-1] + 1)[:, columns]

    # ---- The network ----

    @property
    def pools(self) -> int:
        return self.width // (1 if self.pool == "none" else self.pool_size)

    @property
    def outputs(self) -> int:
        return 1 if self.loss == "readout" else self.classes

    @cached_property
    def x0(self) -> np.ndarray:
        """Inputs, one a column."""
        if isinstance(self.inputs, np.ndarray):
            return self.inputs.astype(self.dtype).astype(float).T
        return self.normals("inputs", 0, self.inputs, self.width).T

    def linear(self, xp: Any, layer: int, x: Any) -> Any:
        """W x + b of a layer, as the engine draws it."""
        nodes = self.width if layer <= self.depth else self.outputs
        if self.method == "direct":
            y = as_array(xp, self.weights_of(layer, nodes, len(x))) @ x
        else:
            # Cholesky of the covariance itself: the engine factors it in differences from the first input.
            z = self.of_nodes("gram", layer, x.shape[1]).T
            y = z @ np.linalg.cholesky(self.sigma_w2 / len(x) * x.T @ x).T
        return y + as_array(xp, np.sqrt(self.sigma_b2) * self.of_nodes("biases", layer, 1).T)

    def seen_by_phi(self, xp: Any, y: Any) -> Any:
        if not self.layernorm:
            return y
        centred = y - xp.mean(y, axis=0)
        return centred / xp.sqrt(xp.mean(centred**2, axis=0))

    def pooled(self, xp: Any, values: Any) -> Any:
        """Pool p is made of nodes p, p + pools, p + 2 pools, ..."""
        how = {"none": xp.amax, "max": xp.amax, "min": xp.amin, "average": xp.mean}[self.pool]
        return how(values.reshape(-1, self.pools, values.shape[1]), axis=0)

    def layers(self, xp: Any = np, keep: Any = lambda y: y) -> tuple[list[Any], Any]:
        """The pre-activations of every layer, (node, input), each as `keep` hands it on; and the logits likewise."""
        phi = PHI[self.activation][0]
        x, layers = as_array(xp, self.x0), []
        for layer in range(1, self.depth + 1):
            y = self.linear(xp, layer, x)
            if self.residual and layer > 1:
                y = layers[-1] + math.sqrt(self.residual) * y
            layers.append(keep(y))
            x = self.pooled(xp, phi(xp, self.seen_by_phi(xp, layers[-1])))
        return layers, self.linear(xp, self.depth + 1, x)

    @cached_property
    def forward(self) -> tuple[list[np.ndarray], np.ndarray]:
        return self.layers()

    # ---- What is measured ----

    def estimates(self, layer: int) -> dict[str, float]:
        """The estimators of one layer (from 0), written the plain way."""
        y = self.forward[0][layer]
        mu, var = y.mean(axis=1), y.var(axis=1, ddof=1)
        c = self.correlations(layer)
        sigma_y2 = var.mean()
        sigma_mu2 = mu.var(ddof=1) - sigma_y2 / y.shape[1]
        return {
            "sigma_mu2": sigma_mu2,
            "sigma_y2": sigma_y2,
            "gamma": sigma_mu2 / sigma_y2,
            "q": (y**2).mean(),
            "c": c.mean(),
            "chi": self.gradient_factor(y),
        }

    def correlations(self, layer: int) -> np.ndarray:
        """c of every pair of inputs."""
        y = self.forward[0][layer]
        unit = y / np.sqrt((y**2).sum(axis=0))
        return (unit.T @ unit)[np.triu_indices(y.shape[1], 1)]

    def gradient_factor(self, y: np.ndarray) -> float:
        """chi: by how much a layer multiplies mean squared gradients, from the slopes at its nodes."""
        phi, slope = PHI[self.activation]
        z = self.seen_by_phi(np, y)
        slope2 = slope(z) ** 2
        if self.layernorm:
            slope2 = slope2 / y.var(axis=0)
        if self.pool == "average":
            slope2 = slope2 / self.pool_size
        elif self.pool != "none":
            values = phi(np, z).reshape(self.pool_size, self.pools, -1)
            chosen = (values.argmax if self.pool == "max" else values.argmin)(axis=0)
            slope2 = np.take_along_axis(slope2.reshape(values.shape), chosen[None], axis=0)
        branch = self.sigma_w2 * slope2.mean()
        return 1 + self.residual * branch if self.residual else branch

    @cached_property
    def target(self) -> np.ndarray:
        """The label of each input: given, or floor(classes u) with u from the first word of its counter."""
        if self.labels is not None:
            return np.asarray(self.labels)
        first = words(self.seed, self.network, 0, 5, 1, self.x0.shape[1])[0, :, 0]
        return (first * np.uint64(self.classes) >> np.uint64(32)).astype(np.int32)

    def autograd(self) -> list[np.ndarray]:
        """dLoss_a / dy_i(a) of every layer, (node, input), by PyTorch's automatic differentiation."""
        import torch

        def keep(y):
            y.requires_grad_() if y.is_leaf else y.retain_grad()
            return y

        layers, logits = self.layers(torch, keep)
        # No input's loss depends on another input, so the gradient of the sum holds each one's own.
        if self.loss == "readout":
            loss = logits.sum()
        else:
            loss = torch.nn.functional.cross_entropy(
                logits.T, torch.from_numpy(self.target.astype(np.int64)), reduction="sum"
            )
        loss.backward()
        return [y.grad.numpy() for y in layers]

    def with_(self, **changes: Any) -> Reference:
        return replace(self, **changes)


# ---- Weights of mean square 1 ----


def words(seed: int, network: int, layer: int, stream: int, rows: int, counters: int) -> np.ndarray:
    """The four Philox words of counters (c0, row), as uint64: (rows, counters, 4)."""
    counter = np.zeros((rows, counters, 4), np.uint32)
    counter[..., 0] = np.arange(counters)
    counter[..., 1] = np.arange(rows)[:, None]
    counter[..., 2] = layer | stream << 24
    counter[..., 3] = network
    key = np.array([seed & 0xFFFFFFFF, seed >> 32], np.uint32)
    return _core.philox4x32(counter.reshape(-1, 4), key).reshape(counter.shape).astype(np.uint64)


def drawn_weights(law: str, seed: int, network: int, layer: int, rows: int, columns: int, dtype: str) -> np.ndarray:
    if law == "gaussian" or law == "orthogonal":
        order = max(rows, columns) if law == "orthogonal" else 0
        drawn = _core.normals(
            seed=seed, network=network, layer=layer, stream="weights", rows=order or rows, columns=order or columns,
            dtype=dtype,
        ).astype(float)  # fmt: skip
        return np.sqrt(order) * haar(drawn)[:rows, :columns] if order else drawn
    blocks = -(-columns // (64 if law == "uniform" and dtype == "float32" else 32 if law == "uniform" else 2048))
    drawn = words(seed, network, layer, 0, rows, 16 * blocks).reshape(rows, blocks, 16, 4)
    if law == "uniform":
        # A word or two words a number, column = 16 * (words a number) b + 16 k + j from number k of counter 16 b + j.
        if dtype == "float64":
            drawn = drawn[..., 0::2] << np.uint64(32) | drawn[..., 1::2]
        bits, kept = (64, 52) if dtype == "float64" else (32, 24)
        # The upper bits, two's complement for float: equally spaced, symmetric about zero, both ends excluded.
        number = (drawn >> np.uint64(bits - kept)).astype(float) / 2.0**kept + 2.0 ** -(kept + 1)
        u = number - 0.5 if dtype == "float64" else number - (number > 0.5)
        return np.sqrt(12) * u.swapaxes(2, 3).reshape(rows, -1)[:, :columns]
    # Bit 31 - k of word w of counter 16 b + j is column 2048 b + 512 w + 16 k + j.
    bits = drawn[..., None] >> np.arange(31, -1, -1, dtype=np.uint64) & np.uint64(1)  # (row, b, j, w, k)
    return 1.0 - 2.0 * bits.transpose(0, 1, 3, 4, 2).reshape(rows, -1)[:, :columns].astype(float)


def haar(normals: np.ndarray) -> np.ndarray:
    """Householder's reflections one by one, each of what is left of a row, times the signs that make R positive."""
    order = len(normals)
    q = np.eye(order)
    signs = np.empty(order)
    for i in range(order):
        v = normals[i, i:].copy()
        sign = 1.0 if v[0] >= 0 else -1.0
        v[0] += sign * np.linalg.norm(v)
        signs[i] = -sign
        q[:, i:] -= np.outer(q[:, i:] @ v, 2 / (v @ v) * v)
    return q * signs


# What Reference and `_core.simulate` call by the same name.
SHARED = (
    "pool", "pool_size", "weights", "sigma_w2", "sigma_b2", "residual", "layernorm", "width", "depth", "seed", "method",
    "dtype", "loss", "classes", "labels",
)  # fmt: skip


def as_array(xp: Any, array: np.ndarray) -> Any:
    return array if xp is np else xp.from_numpy(np.ascontiguousarray(array))


def bins(values: np.ndarray) -> dict[int, int]:
    """Counts by the sixteen leading bits of each double, as the engines' histograms have them."""
    leading = (np.asarray(values, float).view(np.uint64) >> np.uint64(48)).ravel()
    found, counts = np.unique(leading, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))
