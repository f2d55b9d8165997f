"""gpu/_layer.py on kernels compiled for the host, against plain NumPy: y = origin + differences, norm, phi, pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import igbfast as igb
from igbfast import _core

torch = pytest.importorskip("torch")

from igbfast.gpu import _layer
from igbfast.gpu._layout import whole_layer

if TYPE_CHECKING:
    from numpy.typing import NDArray

G, N, POOLS = 2, 9, 33
POISON = -12345.0


def slope_of(kind: str, y: NDArray[Any]) -> NDArray[Any]:
    slopes: dict[str, Any] = {"tanh": lambda y: 1 / np.cosh(y) ** 2, "modulus": np.sign, "sine": np.cos}
    return np.asarray(slopes[kind](y))


def value_of(kind: str, y: NDArray[Any]) -> NDArray[Any]:
    return np.asarray({"tanh": np.tanh, "modulus": np.abs, "sine": np.sin}[kind](y))


def compiled(kind: str) -> _core.Phi:
    if kind == "sine":
        return igb.Activation.custom(np.sin)._core_phi(16.0)
    return _core.Phi(kind="tanh") if kind == "tanh" else _core.Phi(kind="leaky_relu", parameter=-1.0)


def random_tile(slab: Any, units: NDArray[Any], seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """A tile and the y that it means, (networks, inputs, members, pools)."""
    tile = np.random.default_rng(seed).normal(size=(G, N, slab.members, slab.member))
    y = tile * units[:, 1, None, None, None]
    y[:, 0] = tile[:, 0] * units[:, 0, None, None]
    y[:, 1:] += y[:, :1]
    return tile, y[..., : slab.nodes]


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("with_slopes", [False, True])
@pytest.mark.parametrize("pool", ["none", "max", "min", "average"])
@pytest.mark.parametrize(("kind", "members"), [("tanh", 3), ("tanh", 5), ("modulus", 3), ("sine", 3)])
def test_apply_nonlinearity(
    host_device: Any, kind: str, members: int, pool: str, with_slopes: bool, normed: bool
) -> None:
    slab = whole_layer(1 if pool == "none" else members, POOLS)
    width = slab.members * POOLS
    units = np.array([[2.0, 0.5], [1.0, 0.25]])
    out = np.array([[0.5, 0.25], [1.0, 0.125]])
    numbers, y = random_tile(slab, units, seed=width + with_slopes)
    tile = torch.from_numpy(numbers.reshape(G, N, slab.rows))
    norm, z, gain = None, y, np.ones((G, N, 1, 1))
    if normed:
        sums = _layer.sum_columns(host_device, slab, tile)
        norm = _layer.layer_norm(width, torch.from_numpy(units), *sums, torch.float64)
        gain = 1 / y.std((2, 3), keepdims=True)
        z = (y - y.mean((2, 3), keepdims=True)) * gain
    nonlinearity = _layer.Nonlinearity(host_device, compiled(kind), pool)
    units_in, units_out = torch.from_numpy(units), torch.from_numpy(out)
    moments = _layer.apply_nonlinearity(nonlinearity, slab, tile, norm, units_in, units_out, with_slopes)

    values, slopes = value_of(kind, z), slope_of(kind, z) * gain
    if pool == "average":
        x, shares = values.mean(2), np.full(values.shape, 1 / members)
    elif pool == "none":
        x, shares = values[:, :, 0], np.ones_like(values)
    else:
        x = values.max(2) if pool == "max" else values.min(2)
        shares = (values == x[:, :, None]).astype(float)
    scaled = (x - np.where(np.arange(N)[:, None] > 0, x[:, :1], 0.0)) / out[:, 1, None, None]
    scaled[:, 0] = x[:, 0] / out[:, 0, None]
    np.testing.assert_allclose(tile[:, :, :POOLS].numpy(), scaled, rtol=1e-11, atol=1e-12)

    total = (slopes * shares) ** 2
    np.testing.assert_allclose(moments.origin_slope2.numpy(), total[:, 0].sum(1), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(moments.slope2.numpy(), total[:, 1:].sum((1, 2)), rtol=1e-10, atol=1e-12)
    assert (moments.slopes is not None) == with_slopes
    if moments.slopes is not None:
        got = moments.slopes.view(G, N, slab.members, slab.member)[..., :POOLS].numpy()
        np.testing.assert_allclose(got, slopes * shares, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(moments.norm_origin.numpy(), (scaled[:, 0] ** 2).sum(1), rtol=1e-10)
    np.testing.assert_allclose(moments.norm_difference.numpy(), (scaled[:, 1:] ** 2).sum((1, 2)), rtol=1e-10)
    assert not moments.beyond.any()

    # Statistics of the nodes.
    mu, var = (torch.full((G, 3, width), POISON, dtype=torch.float64) for _ in range(2))
    counts = tuple(torch.zeros(G, _layer.BINS, dtype=torch.int64) for _ in range(2))
    nodes, chi = _layer.sum_layer(host_device, slab, moments, units_in, N, mu[:, 1], var[:, 1], counts)
    np.testing.assert_allclose(mu[:, 1].numpy(), y.mean(1).reshape(G, width), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(var[:, 1].numpy(), y.var(1, ddof=1).reshape(G, width), rtol=1e-11)
    assert (mu[:, ::2] == POISON).all()
    u = y.mean(1).reshape(G, width) / units[:, :1]
    v = y.var(1, ddof=1).reshape(G, width) / units[:, 1:] ** 2
    powers = [u**0, u, u**2, u**3, u**4, v, v**2, u * v, u**2 * v]
    np.testing.assert_allclose(nodes.numpy(), np.stack([p.sum(1) for p in powers], 1), rtol=1e-10, atol=1e-10)
    w = total.sum((1, 2)) / N
    np.testing.assert_allclose(chi.numpy(), np.stack([0 * w[:, 0] + POOLS, w.sum(1), (w**2).sum(1)], 1), rtol=1e-10)
    bins = mu[:, 1].numpy().view(np.uint64) >> np.uint64(48)
    assert [np.bincount(row.astype(int), minlength=_layer.BINS).tolist() for row in bins] == counts[0].tolist()


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("pool", ["max", "min"])
def test_a_pool_in_one_pass_or_three(
    host_device: Any, monkeypatch: pytest.MonkeyPatch, pool: str, normed: bool
) -> None:
    """A small pool goes through phi in one kernel, a large one in several: the same to the last bit."""
    slab = whole_layer(4, POOLS)
    units = np.array([[2.0, 0.5], [1.0, 2.0**-30]])
    numbers, _ = random_tile(slab, units, seed=11)
    numbers[:, :, 2] = numbers[:, :, 1]  # ties
    tiles = [torch.from_numpy(numbers.reshape(G, N, slab.rows).copy()) for _ in range(2)]
    units_in, units_out = torch.from_numpy(units), torch.ones(G, 2, dtype=torch.float64)
    nonlinearity = _layer.Nonlinearity(host_device, compiled("tanh"), pool)
    norm = None
    if normed:
        sums = _layer.sum_columns(host_device, slab, tiles[0])
        norm = _layer.layer_norm(slab.members * POOLS, units_in, *sums, torch.float64)

    def results(tile: Any) -> list[Any]:
        moments = _layer.apply_nonlinearity(nonlinearity, slab, tile, norm, units_in, units_out, True)
        assert moments.slopes is not None
        members = moments.slopes.view(G, N, slab.members, slab.member)[..., :POOLS]
        pools = (moments.origin_slope2, moments.slope2, moments.norm_origin, moments.norm_difference, moments.beyond)
        of_members = (moments.origin, moments.sum, moments.sum2)
        return [tile[..., :POOLS], members, *pools, *(each.view(G, 4, -1)[..., :POOLS] for each in of_members)]

    assert slab.members <= host_device.kernels.most_pooled_f64
    one = results(tiles[0])
    monkeypatch.setattr(_layer._Batch, "most_pooled", 0)
    three = results(tiles[1])
    assert [torch.equal(a, b) for a, b in zip(one, three, strict=True)] == [True] * len(one)


def test_differences_of_any_size(host_device: Any) -> None:
    """tanh(m + d) - tanh(m) where m + d is m, relative to itself; and a float32 tile."""
    slab = whole_layer(1, POOLS)
    rng = np.random.default_rng(5)
    tile = rng.normal(size=(1, N, slab.rows))
    tile[:, 1:] *= 1e-280
    m, d = tile[:, :1].copy(), tile[:, 1:].copy()
    ones = torch.ones(1, 2, dtype=torch.float64)
    nonlinearity = _layer.Nonlinearity(host_device, _core.Phi(kind="tanh"))
    on_device = torch.from_numpy(tile)
    _layer.apply_nonlinearity(nonlinearity, slab, on_device, None, ones, ones)
    np.testing.assert_allclose(on_device[:, 1:].numpy(), d / np.cosh(m) ** 2, rtol=1e-14)
    single = torch.from_numpy(np.concatenate([m, d * 1e270], 1).astype(np.float32))
    units = torch.tensor([[1.0, 2.0**-20]], dtype=torch.float64)
    _layer.apply_nonlinearity(nonlinearity, slab, single, None, units, units)
    m32, d32 = m.astype(np.float32).astype(float), (d * 1e270).astype(np.float32).astype(float)
    np.testing.assert_allclose(single[:, 1:].numpy(), d32 / np.cosh(m32) ** 2, rtol=2e-6)


def test_the_end_of_a_table(host_device: Any) -> None:
    phi = compiled("sine")
    ((_, kind, _, table),) = phi.parts
    assert kind == "table"
    assert table is not None
    tile = torch.zeros(G, 3, 64, dtype=torch.float64)
    tile[1, 2, 7] = 2 * table.edges[-1]
    tile[0, 2, POOLS] = 2 * table.edges[-1]  # padding
    ones = torch.ones(G, 2, dtype=torch.float64)
    moments = _layer.apply_nonlinearity(
        _layer.Nonlinearity(host_device, phi), whole_layer(1, POOLS), tile, None, ones, ones
    )
    assert moments.beyond.tolist() == [False, True]


def test_parts_of_phi() -> None:
    """What the kernels get of a table gives the function back."""
    ((weight, kind, _, table),) = compiled("sine").parts
    assert (weight, kind) == (1.0, "table")
    assert table is not None
    x = np.random.default_rng(1).uniform(-3.0, 3.0, 50)
    p = np.searchsorted(table.edges, x, side="right") - 1
    low, high = table.edges[p], table.edges[p + 1]
    for m, exact in enumerate((np.sin(x), np.cos(x), -np.sin(x))):
        terms = np.cos(np.arange(16) * np.arccos((2 * x - low - high) / (high - low))[:, None])
        values = (table.series[m, p] * terms).sum(1) * np.where(table.by_x[m, p], x, 1.0)
        np.testing.assert_allclose(values, exact, atol=1e-13)
        assert (np.abs(values) <= table.largest[m, p] * (1 + 1e-12)).all()
    mixture = _core.Phi(components=[(0.25, _core.Phi(kind="leaky_relu", parameter=0.1)), (0.75, _core.Phi(kind="erf"))])
    assert mixture.parts == [(0.25, "leaky_relu", 0.1, None), (0.75, "erf", 0.0, None)]


def test_units() -> None:
    """Powers of two next to the size of what comes, and what they do where there is nothing."""
    f32, f64 = torch.float32, torch.float64
    now = torch.tensor([[4.0, 0.5], [1.0, 1.0], [1.0, 2.0**-115]], dtype=f64)
    origin = torch.tensor([9.0, 0.0, float("inf")], dtype=f64)
    difference = torch.tensor([1e-6, float("nan"), 1e-10], dtype=f64)
    units = _layer.units_near(now, origin, difference, f32)
    smallest = 512 * np.finfo(np.float32).tiny
    assert units.tolist() == [[8.0, 0.5 * 2.0**-10], [1.0, 1.0], [1.0, smallest]]
    assert _layer.keeps_digits(units, f32).tolist() == [True, True, False]
    assert _layer.keeps_digits(units, f64).tolist() == [True, True, True]
    one = torch.ones(3, dtype=f64)
    cross = torch.tensor([-1.0, -0.5, -1.0 + 1e-6], dtype=f64)
    length2 = _layer.squared_length(one, cross, one, f32)
    assert length2[:2].tolist() == [0.0, 1.0]
    assert length2[2] == 0.0
    assert _layer.squared_length(one, cross, one, f64)[2] > 0.0


def test_one_input_alone(host_device: Any) -> None:
    slab = whole_layer(1, POOLS)
    tile = torch.randn(G, 1, slab.rows, dtype=torch.float64)
    y = tile[:, 0, :POOLS].clone()
    ones = torch.ones(G, 2, dtype=torch.float64)
    norm = _layer.layer_norm(POOLS, ones, *_layer.sum_columns(host_device, slab, tile), torch.float64)
    nonlinearity = _layer.Nonlinearity(host_device, _core.Phi(kind="tanh"))
    moments = _layer.apply_nonlinearity(nonlinearity, slab, tile, norm, ones, ones, True)
    z = (y - y.mean(1, keepdim=True)) / y.std(1, correction=0, keepdim=True)
    torch.testing.assert_close(tile[:, 0, :POOLS], torch.tanh(z))
    assert (moments.sum == 0).all()
    assert (moments.norm_difference == 0).all()


def test_histogram(host_device: Any) -> None:
    values = torch.randn(G, 3, 50, dtype=torch.float64)
    counts = torch.zeros(G, _layer.BINS, dtype=torch.int64)
    _layer.histogram(host_device, values, counts)
    assert counts.sum(1).tolist() == [150, 150]
    together = torch.zeros(_layer.BINS, dtype=torch.int64)
    _layer.histogram(host_device, values.transpose(1, 2), together)
    assert torch.equal(together, counts.sum(0))
    bins = np.unique(values.numpy().view(np.uint64) >> np.uint64(48), return_counts=True)
    assert together.nonzero()[:, 0].tolist() == bins[0].tolist()
    assert together[together > 0].tolist() == bins[1].tolist()
