"""The Gram engine on the GPU's kernels, run on the host: the numbers of the CPU's engine, up to rounding.

Both take the same random numbers of the same counters, so every layer of every network is compared by itself. Tensors
without values are filled with nan, so that nothing that was not written passes for a number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import igbfast as igb
from igbfast import _core, simulation
from igbfast.gpu import _factor, _products
from igbfast.gpu._gram_run import GramRun
from igbfast.gpu.forward_gram import Plan, forward_gram, gram_bytes, least_memory, plan_of

EPS = {"float32": 2.0**-23, "float64": 2.0**-52}


@pytest.fixture(autouse=True)
def _poisoned() -> Iterator[None]:
    """What is allocated is nan until it is written."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(before)


def request_of(ens: igb.Ensemble, **settings: Any) -> simulation.Request:
    given = {
        "width": 131,
        "depth": 3,
        "inputs": 9,
        "networks": 2,
        "seed": 7,
        "method": "gram",
        "dtype": "float64",
        **settings,
    }
    return simulation.checked(ens, **given)


def silent(fraction: float) -> None:
    assert 0.0 < fraction <= 1.0 + 1e-12


def on_gpu(device: Any, request: simulation.Request, products: str = "full", **options: Any) -> dict[str, Any]:
    phi = simulation._first_phi(request)
    return forward_gram(request, phi, device, request.networks, products, silent, **options)


def on_cpu(request: simulation.Request, first_network: int = 0) -> dict[str, Any]:
    inputs = request.count if request.features == request.width and not hasattr(request.inputs, "source") else None
    return _core.simulate(
        phi=simulation._first_phi(request),
        inputs=request.inputs.whole() if inputs is None else inputs,
        labels=request.labels,
        method="gram",
        first_network=first_network,
        **request.core_settings,
    )


def assert_alike(found: dict[str, Any], expected: dict[str, Any], rounding: float) -> None:
    """Equal up to so many units in the last place of a number of its kind in its layer; classes and labels exactly."""
    assert set(found) == set(expected)
    assert found["beyond_table"] is expected["beyond_table"] is False
    for name, want in expected.items():
        have = found[name]
        if isinstance(want, dict):
            assert_counts_alike(name, have, want)
        elif name in ("guess", "labels"):
            np.testing.assert_array_equal(have, want, err_msg=name)
        elif name != "beyond_table":
            assert have.shape == want.shape, name
            assert have.dtype == want.dtype, name
            size = np.abs(want)
            if want.ndim == 3:  # single nodes and inputs: on the scale of their layer
                size = np.sqrt(np.nanmean(want**2, axis=2, keepdims=True)) + np.zeros_like(want)
            np.testing.assert_array_equal(np.isnan(have), np.isnan(want), err_msg=name)
            off = np.nanmax(np.abs(have - want) / np.where(size > 0.0, size, 1.0), initial=0.0)
            assert off <= rounding, f"{name}: {off:.2g} > {rounding:.2g}"


def assert_counts_alike(name: str, found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Values next to the edge of a bin may fall to either side: at most one in fifty of them, and no further."""
    have, want = (sorted_counts(counts) for counts in (found, expected))
    for key in sorted(set(have) | set(want)):
        bins = sorted(set(have.get(key, {})) | set(want.get(key, {})))
        total = sum(want[key].values())
        assert sum(have[key].values()) == total, f"{name} {key}"
        moved = sum(abs(have[key].get(b, 0) - want[key].get(b, 0)) for b in bins)
        assert moved <= max(2, total // 25), f"{name} {key}"


def sorted_counts(counts: dict[str, Any]) -> dict[tuple[int, int], dict[int, int]]:
    found: dict[tuple[int, int], dict[int, int]] = {}
    columns = (counts[key].tolist() for key in ("network", "layer", "bin", "count"))
    for network, layer, bin, count in zip(*columns, strict=True):
        assert bin not in found.setdefault((network, layer), {})
        assert count > 0
        found[network, layer][bin] = count
    return found


# What is measured is a smooth function of the numbers drawn; a layer multiplies what was rounded before it by a factor
# of order one, sums of n numbers add sqrt(n), and small differences of large numbers as in gamma the rest.
ROUNDING = {"float32": 200 * EPS["float32"], "float64": 4000 * EPS["float64"]}

ENSEMBLES = {
    "relu": igb.Ensemble("relu", sigma_w2=2.0, sigma_b2=0.1),
    "tanh": igb.Ensemble("tanh", sigma_w2=1.76, sigma_b2=0.05),
    "erf": igb.Ensemble("erf", sigma_w2=2.0, sigma_b2=0.3),
    "gelu": igb.Ensemble("gelu", sigma_w2=2.0, sigma_b2=0.1),
    "falling and rising": igb.Ensemble("leaky_relu(-0.4)", sigma_w2=1.9),
}


@pytest.mark.parametrize("name", ENSEMBLES)
def test_activations(host_device: Any, name: str) -> None:
    request = request_of(ENSEMBLES[name])
    assert_alike(on_gpu(host_device, request), on_cpu(request), ROUNDING["float64"])


@pytest.mark.parametrize("loss", ["readout", "cross_entropy"])
def test_float32(host_device: Any, loss: str) -> None:
    request = request_of(ENSEMBLES["gelu"], dtype="float32", gradients=loss, classes=4, per_node=True)
    found, expected = on_gpu(host_device, request), on_cpu(request)
    assert_alike(found, expected, ROUNDING["float32"])


TANH = ENSEMBLES["tanh"]
ARCHITECTURES: dict[str, tuple[dict[str, Any], int]] = {
    "plain": ({}, 131),
    "max pool, then phi": ({"activation": "relu", "pool": igb.MaxPool(3)}, 3 * 71),
    "phi, then min pool": ({"activation": "leaky_relu(-0.3)", "pool": igb.MinPool(2)}, 2 * 67),
    "average pool": ({"pool": igb.AvgPool(2)}, 2 * 69),
    "residual": ({"residual": 0.4}, 131),
    "layernorm": ({"activation": "relu", "layernorm": True}, 131),
    "layernorm and residual": ({"layernorm": True, "residual": 0.5}, 131),
    "layernorm, max pool": ({"layernorm": True, "pool": igb.MaxPool(2)}, 2 * 67),
    "orthogonal": ({"weights": "orthogonal"}, 131),
    "orthogonal, pool": ({"weights": "orthogonal", "pool": igb.MaxPool(2)}, 2 * 67),
    "orthogonal, residual, layernorm": ({"weights": "orthogonal", "residual": 0.5, "layernorm": True}, 131),
}


def architecture(name: str, **settings: Any) -> simulation.Request:
    changes, width = ARCHITECTURES[name]
    return request_of(dataclasses.replace(TANH, **changes), **({"width": width, "inputs": 6} | settings))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures_forward_and_backward(host_device: Any, name: str) -> None:
    loss = "readout" if name in ("residual", "orthogonal") else "cross_entropy"
    request = architecture(name, gradients=loss, per_node=True, distributions=True, classes=4)
    assert_alike(on_gpu(host_device, request), on_cpu(request), ROUNDING["float64"])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_given_inputs_and_labels(host_device: Any, dtype: str) -> None:
    """Which stay as they are."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(7, 83)).astype("float32" if dtype == "float64" else "float64")
    before, labels = x.copy(), rng.integers(0, 3, 7)
    settings = {"inputs": x, "labels": labels, "gradients": "cross_entropy", "classes": 3, "dtype": dtype}
    request = request_of(TANH, **settings)
    assert_alike(on_gpu(host_device, request), on_cpu(request), ROUNDING[dtype])
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("weights", ["gaussian", "orthogonal"])
def test_singular_covariances(host_device: Any, weights: str) -> None:
    """Equal inputs, one that is zero, and more inputs than nodes."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(8, 40))
    x[[3, 6]] = x[1]
    x[5] = 0.0
    ens = dataclasses.replace(TANH, weights=weights)
    for sizes in ({"inputs": x}, {"width": 5, "inputs": 9}):
        request = request_of(ens, gradients="cross_entropy", classes=3, **sizes)
        found, expected = on_gpu(host_device, request), on_cpu(request)
        assert_alike(found, expected, ROUNDING["float64"])


def test_collapsed_inputs(host_device: Any) -> None:
    """Inputs that become one: differences from the first of them keep their digits."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(1, 60)) + 10.0 ** -rng.uniform(2, 7, size=(6, 1)) * rng.normal(size=(6, 60))
    request = request_of(ENSEMBLES["relu"], inputs=x, dtype="float32")
    found, expected = on_gpu(host_device, request), on_cpu(request)
    assert (expected["gamma"] > 1e3).all()
    assert_alike(found, expected, 1e-2)
    np.testing.assert_allclose(found["sigma_y2"], expected["sigma_y2"], rtol=ROUNDING["float32"])


def test_others_collapsed(host_device: Any) -> None:
    """Inputs nearly equal but for the first: what float32 products would lose of them, chaos brings back to light."""
    rng = np.random.default_rng(6)
    x = rng.normal(size=(4, 60))
    x[1:] = x[1] + 3e-4 * x[1:]
    chaos = igb.Ensemble("tanh", sigma_w2=20.0)
    request = request_of(chaos, inputs=x, dtype="float32", networks=1, depth=12, width=100)
    found, expected = on_gpu(host_device, request), on_cpu(request)
    assert_alike(found, expected, ROUNDING["float32"])


@pytest.mark.parametrize("name", ["plain", "average pool", "orthogonal", "layernorm and residual"])
def test_the_way_back_sees_the_same_nodes(host_device: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit: of inputs that are nearly dependent, what L divides by is the rounding of the nodes itself."""
    tiles: dict[bool, list[Any]] = {False: [], True: []}
    activate = GramRun.activate

    def seen(run: Any, now: Any, slab: Any, tile: Any, with_slopes: bool) -> Any:
        y = tile.clone()
        moments = activate(run, now, slab, tile, with_slopes)
        pools = slice(0, slab.nodes)
        tiles[with_slopes].append((y[:, :, pools], tile[:, :, pools].clone()))
        return moments

    monkeypatch.setattr(GramRun, "activate", seen)
    request = architecture(name, inputs=33, dtype="float32", gradients="cross_entropy", classes=4)
    on_gpu(host_device, request)
    assert len(tiles[False]) == request.depth
    for forward, back in zip(tiles[False], reversed(tiles[True]), strict=True):
        for now, again in zip(forward, back, strict=True):
            torch.testing.assert_close(again, now, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("name", ["plain", "layernorm and residual", "orthogonal"])
def test_networks_do_not_depend_on_their_company(host_device: Any, name: str) -> None:
    settings = {"networks": 3, "inputs": 7, "depth": 2, "dtype": "float32", "gradients": "cross_entropy"}
    request = architecture(name, distributions=True, **settings)
    nodes = request.width
    together = on_gpu(host_device, request, plan=Plan(3, -(-nodes // 64) * 64))
    apart = on_gpu(host_device, request, plan=Plan(2, -(-nodes // 64) * 64))
    last = on_gpu(host_device, dataclasses.replace(request, networks=1), first_network=2)
    for key, value in together.items():
        if isinstance(value, dict):
            order = np.lexsort((value["layer"], value["network"]))
            other = apart[key]
            other_order = np.lexsort((other["layer"], other["network"]))
            for column in value:
                np.testing.assert_array_equal(value[column][order], other[column][other_order])
        elif key != "beyond_table":
            np.testing.assert_array_equal(value, apart[key], err_msg=key)
            np.testing.assert_array_equal(value[2:], last[key], err_msg=key)


def test_first_network(host_device: Any) -> None:
    request = request_of(TANH, networks=1, depth=2)
    assert_alike(on_gpu(host_device, request, first_network=11), on_cpu(request, 11), ROUNDING["float64"])


@pytest.mark.parametrize("name", ["layernorm and residual", "orthogonal, pool", "average pool"])
def test_slabs(host_device: Any, name: str) -> None:
    request = architecture(name, gradients="cross_entropy", networks=1, depth=2, per_node=True, width=2 * 139)
    assert_alike(on_gpu(host_device, request, plan=Plan(1, 64)), on_cpu(request), ROUNDING["float64"])


def test_orthogonal_with_more_features_than_nodes(host_device: Any) -> None:
    x = np.random.default_rng(6).normal(size=(5, 300))
    request = architecture("orthogonal", inputs=x, depth=2, gradients="readout")
    assert_alike(on_gpu(host_device, request, plan=Plan(2, 64)), on_cpu(request), ROUNDING["float64"])


@pytest.mark.parametrize("products, error", [("tf32", 2.0**-10), ("bfloat16", 2.0**-7)])
def test_rounded_products(host_device: Any, products: str, error: float) -> None:
    """Of numbers rounded to 11 and 8 bits; independent errors of the terms of a sum, or of its factor, do not add up.

    The host knows no TF32, and takes the numbers as they are.
    """
    request = request_of(TANH, dtype="float32", gradients="cross_entropy")
    found, full = on_gpu(host_device, request, products), on_gpu(host_device, request)
    names = ("q", "chi", "sigma_mu2", "sigma_y2", "gradient")
    off = {name: found[name].mean(axis=-1) / full[name].mean(axis=-1) - 1.0 for name in names}
    assert all((abs(values) < 2 * error).all() for values in off.values()), off
    rounded = [bool((abs(off[name]) > ROUNDING["float32"]).any()) for name in ("q", "sigma_y2", "gradient")]
    assert rounded == [products == "bfloat16"] * 3, off


def test_leaving_the_table(host_device: Any) -> None:
    x = 1e3 * np.random.default_rng(10).normal(size=(3, 50))
    request = request_of(ENSEMBLES["gelu"], inputs=x)
    narrow = request.ens.activation._core_phi(1.0)
    expected = _core.simulate(phi=narrow, inputs=x, method="gram", **request.core_settings)
    assert expected["beyond_table"]
    assert forward_gram(request, narrow, host_device, 2, "full", silent) == {"beyond_table": True}


def test_interrupt(host_device: Any) -> None:
    seen: list[float] = []

    def step(fraction: float) -> None:
        seen.append(fraction)
        if len(seen) == 2:
            raise KeyboardInterrupt

    request = request_of(TANH, gradients="readout")
    with pytest.raises(KeyboardInterrupt):
        forward_gram(request, simulation._first_phi(request), host_device, 2, "full", step)
    assert seen == [1 / 6, 2 / 6]


# ---- Memory ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class SmallDevice:
    free: int

    def free_memory(self) -> int:
        return self.free


def test_plan_fits() -> None:
    request = request_of(TANH, width=100_000, inputs=50, networks=40)
    whole = gram_bytes(request, 40)
    assert plan_of(request, SmallDevice(2 * whole), 40) == Plan(40, 100_032)
    for share in (2, 5):
        plan = plan_of(request, SmallDevice(whole // share), 40)
        assert plan.nodes == 100_032
        assert gram_bytes(request, plan.group) <= whole // share < gram_bytes(request, 2 * plan.group + 2)
    one = least_memory(request) + 20_000_000
    plan = plan_of(request, SmallDevice(one), 40)
    assert plan.group == 1
    assert plan.nodes % 64 == 0
    assert gram_bytes(request, 1, plan.nodes) <= one


def test_too_little_memory() -> None:
    request = request_of(TANH, width=1000, inputs=20_000, gradients="readout")
    device = SmallDevice(1 << 30)
    assert least_memory(request) > 1 << 30
    with pytest.raises(ValueError, match=r"inputs=20000 at width=1000 and depth=3 .* but 1 GiB are free: use fewer"):
        plan_of(request, device, 2)


# ---- Parts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("nodes", [1, 255, 256, 700])
def test_products_over_nodes(lanes: int, nodes: int) -> None:
    """Against NumPy's in float64; a float32 sum of 256 terms is right to some eps times the norms."""
    rng = np.random.default_rng(8)
    a, b = (rng.normal(size=(5, n, nodes)).astype(np.float32) for n in (4, 3))
    expected = np.einsum("gai,gbi->gab", a.astype(float), b.astype(float))
    products = _products.Products("full", lanes)
    for wide, eps in ((False, EPS["float32"]), (True, EPS["float64"])):
        found = products.over_nodes(torch.from_numpy(a), torch.from_numpy(b), [4, 0, 1], wide=wide)
        assert found.dtype == torch.float64
        np.testing.assert_allclose(found.numpy(), expected[[4, 0, 1]], rtol=0, atol=16 * eps * nodes**0.5 * 4)


@pytest.mark.parametrize("lanes", [1, 3, 8])
def test_products_of_batches(lanes: int) -> None:
    rng = np.random.default_rng(11)
    a, b, c = rng.normal(size=(5, 3, 7)), rng.normal(size=(5, 7, 4)), rng.normal(size=(5, 3, 4))
    products, out = _products.Products("full", lanes), torch.from_numpy(c.copy())
    left, right = torch.from_numpy(a), torch.from_numpy(b)
    np.testing.assert_allclose(products.multiply(left, right).numpy(), a @ b, rtol=1e-13, atol=1e-13)
    assert products.multiply(left, right, out, add=True) is out
    np.testing.assert_allclose(out.numpy(), c + a @ b, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(products.sums(left).numpy(), a.sum(-1), rtol=1e-13, atol=1e-13)


def test_products_round_to_bfloat16() -> None:
    a = torch.tensor([[[1.0, 2.0**-9 + 1.0]]])
    assert _products.Products("bfloat16", 1).over_nodes(a, a, [0]).item() == 2.0
    assert _products.Products("bfloat16", 1).over_nodes(a, a, [0], wide=True).item() > 2.0


def test_factor_of_a_batch() -> None:
    """L L^T = C, whichever way each network goes."""
    rng = np.random.default_rng(9)
    x = rng.normal(size=(4, 7, 12))
    x[1, 4] = x[1, 2] - x[1, 0]  # singular
    x[2, :] *= 10.0 ** rng.uniform(-60, 60, size=(7, 1))
    x[3, 0] = 0.0
    c = torch.from_numpy(2.5 * x @ x.transpose(0, 2, 1))
    factor, told = _factor.covariance_factor(c / 2.5, 2.5, [EPS["float64"]] * 4, [7] * 4, torch.tensor([3.0]).double())
    assert told == [3.0]
    assert factor.ranks == [7, 6, 7, 6]
    assert not factor.triangular
    scale = c.diagonal(dim1=1, dim2=2).sqrt()
    off = (
        (factor.lower @ factor.lower.mT - c) / scale[:, :, None].clamp(min=1e-300) / scale[:, None, :].clamp(min=1e-300)
    )
    assert float(off.abs().max()) < 1e-14
    square = factor.square()
    assert torch.equal(square, square.tril())
    # L^-1 C = L^T, in the rows of the pivots.
    found = _factor.solve(square, _factor.rows_of(c, factor.rows) * factor.mask[:, :, None])
    off = (found - factor.leading(factor.lower.mT)) / scale[:, None, :].clamp(min=1e-300)
    assert float(off.abs().max()) < 1e-12


def test_switch_comes_back() -> None:
    before = _products._switch()
    with _products.precision("tf32"):
        assert _products._switch() == "tf32"
        with _products.precision("bfloat16"):
            assert _products._switch() == "tf32"
    with _products.precision("full"):
        assert _products._switch() == "ieee"
    assert _products._switch() == before
