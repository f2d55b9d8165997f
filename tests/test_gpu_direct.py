"""The direct engine of the GPU, its kernels run on the host, against the CPU's: same seed, same networks, same numbers
up to rounding."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

import igbfast as igb
from igbfast import _core, simulation
from igbfast._progress import silent

torch = pytest.importorskip("torch")

from igbfast.gpu import _device, _direct
from igbfast.gpu import forward_direct as forward_module
from igbfast.gpu import simulate as gpu_simulate
from igbfast.gpu._direct import Limits, Plan, Weights
from igbfast.gpu._estimates import joined
from igbfast.gpu._haar import apply_haar
from igbfast.gpu._layout import whole_layer
from igbfast.gpu._sampling import Stream, StreamId
from igbfast.gpu.forward_direct import DirectStream, forward_direct, least_memory

# Of a few layers of some hundred terms each; in float32 gradients see phi' of nodes whose last digits differ.
_CLOSE = {"float64": 1e-11, "float32": 2e-5}
_PAIRS = Limits(group=2)  # two networks go together, or one and one that nobody has asked for
_SMALL = Limits(columns=4, compared=4, group=1, weights=0)  # networks go alone, weights 64 rows at a time


@pytest.fixture(autouse=True)
def _poisoned() -> Iterator[None]:
    """What is allocated is nan until it is written."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


def _request(ens: igb.Ensemble, inputs: Any = 7, **changes: Any) -> simulation.Request:
    settings = {"width": 90, "depth": 3, "inputs": inputs, "networks": 2, "seed": 11, "method": "direct"}
    settings |= {"dtype": "float64", "per_node": True} | changes
    return simulation.checked(ens, **settings)


def _on_gpu(request: simulation.Request, device: Any, products: str = "full", **settings: Any) -> dict[str, Any]:
    phi = simulation._first_phi(request)
    settings = {"limits": _PAIRS} | settings
    return forward_direct(request, phi, device, request.networks, products, silent, **settings)


def _on_cpu(request: simulation.Request, **settings: Any) -> Mapping[str, Any]:
    inputs = request.inputs.whole() if isinstance(request.inputs, simulation.Given) else request.count
    return _core.simulate(
        phi=simulation._first_phi(request),
        inputs=inputs,
        labels=request.labels,
        method="direct",
        **(request.core_settings | settings),
    )


def _assert_same(found: Mapping[str, Any], wanted: Mapping[str, Any], close: float) -> None:
    """Classes, labels and bins exactly; numbers within `close` of the largest of their layer."""
    assert found.keys() == wanted.keys()
    for name, want in wanted.items():
        have = found[name]
        if isinstance(want, bool):
            assert have == want
        elif isinstance(want, Mapping):
            for column in want:
                assert have[column].dtype == want[column].dtype
                np.testing.assert_array_equal(have[column], want[column], f"{name}[{column}]")
        else:
            assert have.dtype == want.dtype, name
            assert have.shape == want.shape, name
            if want.dtype != np.float64:
                np.testing.assert_array_equal(have, want, name)
                continue
            assert np.isfinite(want).any(), name
            assert (np.isnan(have) == np.isnan(want)).all(), name
            scale = np.nanmax(np.abs(want), axis=tuple(range(2, want.ndim)), keepdims=True)
            assert np.nanmax(np.abs(have - want) / scale) < close, name


def _assert_identical(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Bit by bit; the entries of histograms in any order."""
    assert found.keys() == wanted.keys()
    for name, want in wanted.items():
        if isinstance(want, Mapping):
            have, want = ([*zip(*(each[key].tolist() for key in want), strict=True)] for each in (found[name], want))
            assert sorted(have) == sorted(want), name
        else:
            np.testing.assert_array_equal(found[name], want, name)


_TANH = {"sigma_w2": 1.76, "sigma_b2": 0.05}
_RELU = {"sigma_w2": 2.0, "sigma_b2": 0.1}
_FAMILIES = {
    "plain": (igb.Ensemble("tanh", **_TANH), {}),
    "uniform": (igb.Ensemble("tanh", **_TANH, weights="uniform"), {}),
    "rademacher": (igb.Ensemble("relu", sigma_w2=2.0, weights="rademacher"), {}),
    "orthogonal": (igb.Ensemble("tanh", **_TANH, weights="orthogonal"), {"gradients": "readout"}),
    "maximum": (igb.Ensemble("relu", **_RELU, pool=igb.MaxPool(2)), {"gradients": "cross_entropy"}),
    "average": (igb.Ensemble("tanh", **_TANH, pool=igb.AvgPool(3)), {"gradients": "readout"}),
    "shares": (igb.Ensemble("leaky_relu(-0.3)", **_RELU, pool=igb.MinPool(2)), {"gradients": "readout"}),
    "residual": (igb.Ensemble("relu", **_RELU, residual=0.3), {"gradients": "cross_entropy"}),
    "layernorm": (igb.Ensemble("relu", **_RELU, layernorm=True), {"gradients": "cross_entropy"}),
    "everything": (
        igb.Ensemble("relu", **_RELU, layernorm=True, residual=0.5, pool=igb.MaxPool(3), weights="orthogonal"),
        {"gradients": "cross_entropy"},
    ),
    "table": (igb.Ensemble("gelu", sigma_w2=2.0, sigma_b2=0.1), {"gradients": "readout"}),
    "distributions": (igb.Ensemble("tanh", **_TANH), {"distributions": True}),
}


@pytest.mark.parametrize("family", _FAMILIES)
def test_networks_are_those_of_the_cpu(host_device: Any, family: str) -> None:
    ens, changes = _FAMILIES[family]
    request = _request(ens, **changes)
    _assert_same(_on_gpu(request, host_device, first_network=3), _on_cpu(request, first_network=3), _CLOSE["float64"])


@pytest.mark.parametrize("family", ["plain", "orthogonal", "maximum", "residual", "layernorm"])
def test_in_single_precision(host_device: Any, family: str) -> None:
    ens, changes = _FAMILIES[family]
    request = _request(ens, dtype="float32", **changes)
    _assert_same(_on_gpu(request, host_device), _on_cpu(request), _CLOSE["float32"])


@pytest.mark.parametrize("family", ["orthogonal", "everything", "distributions"])
def test_chunks_and_tiles_change_nothing_but_rounding(host_device: Any, family: str) -> None:
    """Chunks of three inputs and the first, 64 rows of weights at a time, network by network."""
    ens, changes = _FAMILIES[family]
    request = _request(ens, inputs=9, **changes)
    found = _on_gpu(request, host_device, limits=_SMALL)
    _assert_same(found, _on_cpu(request, chunk=3), _CLOSE["float64"])


@pytest.mark.parametrize("source", [np.float32, np.float64])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_given_inputs_and_labels(host_device: Any, source: Any, dtype: str) -> None:
    rng = np.random.default_rng(4)
    inputs, labels = rng.normal(size=(8, 70)).astype(source), rng.integers(0, 10, 8)
    ens, changes = _FAMILIES["residual"]
    request = _request(ens, inputs, labels=labels, dtype=dtype, depth=2, **changes)
    _assert_same(_on_gpu(request, host_device, limits=_SMALL), _on_cpu(request), _CLOSE[dtype])


@pytest.mark.parametrize("cuts", [(1, 2), (5,), (4, 4, 7)])
@pytest.mark.parametrize("labelled", [True, False])
def test_pieces_are_the_whole(host_device: Any, cuts: tuple[int, ...], labelled: bool) -> None:
    """The first piece may be a single input, or a piece empty; labels come along or are drawn."""
    rng = np.random.default_rng(5)
    inputs, labels = rng.normal(size=(9, 40)), rng.integers(0, 10, 9).astype(np.int32)
    ens, changes = _FAMILIES["layernorm"]
    request = _request(ens, inputs, labels=labels if labelled else None, width=70, depth=2, **changes)
    phi = simulation._first_phi(request)
    limits = dataclasses.replace(_SMALL, columns=5)
    stream = DirectStream(request, phi, host_device, request.networks, "full", limits=limits)
    done: list[float] = []
    for piece, own in zip(np.split(inputs, cuts), np.split(labels, cuts), strict=True):
        stream.take(piece, own if labelled else None, done.append)
    _assert_same(stream.finish(), _on_cpu(request), _CLOSE["float64"])
    assert done.count(1.0) == sum(len(piece) > 0 for piece in np.split(inputs, cuts))


def test_a_stream_of_one_input_is_refused(host_device: Any) -> None:
    request = _request(_FAMILIES["plain"][0], np.ones((2, 40)))
    stream = DirectStream(request, simulation._first_phi(request), host_device, request.networks, "full")
    stream.take(np.ones((1, 40)))
    with pytest.raises(ValueError, match="at least two in all, got 1"):
        stream.finish()


_OTHERS = {
    "plain with gradients": (igb.Ensemble("tanh", **_TANH), {"gradients": "cross_entropy"}),
    "rademacher with gradients": (igb.Ensemble("tanh", **_TANH, weights="rademacher"), {"gradients": "readout"}),
}


@pytest.mark.parametrize(
    ("family", "dtype"), [(family, "float64") for family in [*_FAMILIES, *_OTHERS]] + [("everything", "float32")]
)
def test_networks_do_not_depend_on_those_beside_them(host_device: Any, family: str, dtype: str) -> None:
    """Three networks together, one and two, or one by one; in batches that are full or filled up; in chunks of four
    inputs and the first, the last of them smaller. To the last bit."""
    ens, changes = (_FAMILIES | _OTHERS)[family]
    limits = Limits(columns=5, compared=5, group=2, weights=1 << 17)
    request = _request(ens, width=78, depth=2, dtype=dtype, **changes)

    def of(networks: int, first: int) -> dict[str, Any]:
        share = dataclasses.replace(request, networks=networks)
        return _on_gpu(share, host_device, first_network=first, limits=limits)

    whole = of(3, 4)
    for shares in (1, 2), (1, 1, 1):
        parts, first = [], 0
        for networks in shares:
            parts.append(gpu_simulate._renumbered(of(networks, 4 + first), first))
            first += networks
        _assert_identical(joined(parts), whole)


def test_pieces_do_not_depend_on_the_networks(host_device: Any) -> None:
    """Inputs that come in pieces: a batch filled up, beside the same network in a full one."""
    inputs = np.random.default_rng(3).normal(size=(9, 40))
    ens, changes = _FAMILIES["everything"]
    request = _request(ens, inputs, width=60, depth=2, networks=2, **changes)
    phi = simulation._first_phi(request)

    def of(networks: int, first: int) -> dict[str, Any]:
        share = dataclasses.replace(request, networks=networks)
        limits = Limits(columns=4, group=2)
        stream = DirectStream(share, phi, host_device, networks, "full", first, limits=limits)
        for piece in np.split(inputs, (3, 8)):
            stream.take(piece)
        return stream.finish()

    _assert_identical(joined([of(1, 0), of(1, 1)]), of(2, 0))


def test_who_fills_up_a_batch_may_leave_the_table(host_device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only networks that were asked for are told to have left it."""
    plain = forward_module.apply_nonlinearity

    def second_leaves(*args: Any, **settings: Any) -> Any:
        moments = plain(*args, **settings)
        return dataclasses.replace(moments, beyond=torch.arange(len(moments.beyond)) == 1)

    monkeypatch.setattr(forward_module, "apply_nonlinearity", second_leaves)
    request = _request(_FAMILIES["plain"][0])
    assert not _on_gpu(dataclasses.replace(request, networks=1), host_device)["beyond_table"]
    assert _on_gpu(request, host_device)["beyond_table"]


@pytest.mark.parametrize("family", ["residual", "everything"])
def test_two_devices_are_one(host_device: Any, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward_module, "HOST_LIMITS", _PAIRS)
    ens, changes = _FAMILIES[family]
    settings = {"width": 90, "depth": 2, "inputs": 7, "networks": 5, "method": "direct", "device": "cuda:all"}
    found = []
    for count in (1, 2):
        monkeypatch.setattr(_device, "find", lambda _, count=count: [dataclasses.replace(host_device)] * count)
        found.append(igb.simulate(ens, **settings, **changes))
    for name, values in found[0].items():
        np.testing.assert_array_equal(found[1][name], values, str(name))


def test_all_inputs_nearly_equal(host_device: Any) -> None:
    """Differences of 1e-12 keep their digits, on either device; in float64 and, with given differences, in float32."""
    rng = np.random.default_rng(6)
    inputs = rng.normal(size=80) + 1e-12 * rng.normal(size=(6, 80))
    for dtype in ("float64", "float32"):
        request = _request(_FAMILIES["plain"][0], inputs, dtype=dtype)
        found = _on_gpu(request, host_device)
        assert (found["sigma_y2"] < 1e-20).all()
        _assert_same(found, _on_cpu(request), _CLOSE[dtype])


def test_leaving_the_table_is_told(host_device: Any) -> None:
    request = _request(igb.Ensemble("gelu", sigma_w2=2.0), 100.0 * np.random.default_rng(7).normal(size=(4, 90)))
    phi = request.ens.activation._core_phi(1e-4)
    if not np.isfinite(phi.q_max):
        pytest.skip("gelu has no table")
    assert forward_direct(request, phi, host_device, 2, "full", silent)["beyond_table"]


def test_progress_rises_to_one_and_can_stop(host_device: Any) -> None:
    ens, changes = _FAMILIES["orthogonal"]
    request = _request(ens, **changes)
    done: list[float] = []
    phi = simulation._first_phi(request)
    forward_direct(request, phi, host_device, 2, "full", done.append, limits=_SMALL)
    assert done == sorted(done)
    assert done[-1] == 1.0
    assert len(done) >= 2 * 2 * request.depth

    def stop(fraction: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        forward_direct(request, phi, host_device, 2, "full", stop)


# ---- Products --------------------------------------------------------------------------------------------------------


def test_bfloat16_rounds_operands_and_nothing_else(host_device: Any) -> None:
    """One linear layer: y_0 and the differences are products of rounded numbers, summed in more digits."""
    inputs = np.random.default_rng(8).normal(size=(5, 200)).astype(np.float32)
    request = _request(igb.Ensemble("linear", sigma_w2=1.5), inputs, depth=1, networks=1, dtype="float32")
    found = _on_gpu(request, host_device, "bfloat16", limits=dataclasses.replace(_SMALL, columns=9))
    drawn = _core.weights(law="gaussian", seed=11, network=0, layer=1, rows=90, columns=200, dtype="float32")

    def rounded(values: Any) -> Any:
        return torch.as_tensor(values, dtype=torch.float32).bfloat16().double().numpy()

    x = np.concatenate([inputs[:1], inputs[1:] - inputs[:1]])
    y = np.sqrt(1.5 / 200) * rounded(x) @ rounded(drawn).T
    np.testing.assert_allclose(found["mu"][0, 0], y[0] + y[1:].sum(0) / 5, rtol=0, atol=2e-6)
    d = np.concatenate([np.zeros((1, 90)), y[1:]])
    np.testing.assert_allclose(found["var"][0, 0], d.var(0, ddof=1), rtol=1e-5)
    assert np.abs(found["mu"] - _on_cpu(request)["mu"]).max() > 1e-3  # they are not those of full operands


def test_bfloat16_moves_estimates_little(host_device: Any) -> None:
    ens, _ = _FAMILIES["maximum"]
    request = _request(ens, dtype="float32", gradients="readout", per_node=False)
    found, wanted = _on_gpu(request, host_device, "bfloat16"), _on_cpu(request)
    for name in ("sigma_y2", "q", "chi", "gradient"):
        means = (values[name].reshape(2, 3, -1).mean(2) for values in (found, wanted))
        np.testing.assert_allclose(*means, rtol=0.1, err_msg=name)


def test_orthogonal_weights_stay_orthogonal_whatever_the_products(host_device: Any) -> None:
    request = _request(_FAMILIES["orthogonal"][0], dtype="float32")
    full, rounded = (_on_gpu(request, host_device, products) for products in ("full", "bfloat16"))
    _assert_same(rounded, full, 1e-30)


@pytest.mark.parametrize("layer", [1, 2, 3])
@pytest.mark.parametrize("law", ["gaussian", "orthogonal"])
def test_products_by_a_layer_and_back(host_device: Any, law: str, layer: int) -> None:
    """Against the matrix as the core draws it; the output is poisoned first. Layer 3 is the head."""
    request = _request(igb.Ensemble("relu", sigma_w2=2.0, pool=igb.MaxPool(2), weights=law), np.ones((2, 75)), depth=2)
    weights = Weights(host_device, request, layer, 4, "full", 0)
    rows, columns = weights.rows, weights.columns
    assert (rows, columns) == {1: (90, 75), 2: (90, 45), 3: (10, 45)}[layer]
    of_layer = "gaussian" if layer == 3 else law
    matrices = [
        _core.weights(law=of_layer, seed=11, network=n, layer=layer, rows=rows, columns=columns, dtype="float64")
        for n in (4, 5)
    ]
    share = max(rows, columns) if of_layer == "orthogonal" else 1
    w = np.stack(matrices) * np.sqrt(2.0 * share / columns) / (1.0 if of_layer == "gaussian" else _unit(matrices[0]))
    slab = whole_layer(1, 10) if layer == 3 else whole_layer(2, 45)
    rng = np.random.default_rng(layer)
    x = torch.as_tensor(rng.normal(size=(2, 3, columns)))
    y = torch.full((2, 3, slab.rows), torch.nan, dtype=torch.float64)
    weights.multiply(x, 0.7, slab, y, False)
    once = _direct.of_nodes(slab, y)
    np.testing.assert_allclose(once, 0.7 * x.numpy() @ w.transpose(0, 2, 1), rtol=0, atol=1e-12)
    assert torch.isnan(y).sum() == y.numel() - once.numel()  # nothing is written beside
    before = once.clone()
    weights.multiply(x, 0.7, slab, y, True)
    np.testing.assert_allclose(_direct.of_nodes(slab, y), 2.0 * before, rtol=0, atol=1e-12)
    back = weights.multiply_back(y, 0.5, slab)
    np.testing.assert_allclose(back, before.numpy() @ w, rtol=0, atol=1e-11)


def _unit(q: Any) -> float:
    """By what a drawn part of an orthogonal matrix is longer than one with orthonormal rows or columns."""
    rows, columns = q.shape
    return float(np.sqrt((q**2).sum() / min(rows, columns)))


# ---- Orthogonal matrices ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 65, 150])
@pytest.mark.parametrize("block", [64, 128])
def test_haar_matrices_are_those_of_the_cpu(host_device: Any, order: int, block: int) -> None:
    stream = StreamId(9, 2, 1, Stream.WEIGHTS)
    drawn = [
        _core.weights(law="orthogonal", seed=9, network=n, layer=1, rows=order, columns=order, dtype="float64")
        for n in (2, 3)
    ]
    q = np.stack(drawn) / _unit(drawn[0])
    x = torch.as_tensor(np.random.default_rng(order).normal(size=(2, 4, order)))
    forth, back = x.clone(), x.clone()
    apply_haar(host_device, stream, forth, order, False, block)
    apply_haar(host_device, stream, back, order, True, block)
    np.testing.assert_allclose(forth, x.numpy() @ q.transpose(0, 2, 1), rtol=0, atol=1e-13 * order)
    np.testing.assert_allclose(back, x.numpy() @ q, rtol=0, atol=1e-13 * order)


def test_leading_columns_of_haar_matrices(host_device: Any) -> None:
    stream = StreamId(9, 2, 1, Stream.WEIGHTS)
    x = torch.zeros(1, 3, 150, dtype=torch.float64)
    x[:, :, :70] = torch.as_tensor(np.random.default_rng(1).normal(size=(3, 70)))
    whole, leading = x.clone(), x.clone()
    apply_haar(host_device, stream, whole, 150, False)
    apply_haar(host_device, stream, leading, 70, False)
    torch.testing.assert_close(leading, whole, rtol=0, atol=1e-12)
    back = leading.clone()
    apply_haar(host_device, stream, back, 70, True)
    torch.testing.assert_close(back[:, :, :70], x[:, :, :70], rtol=0, atol=1e-12)


# ---- Memory ----------------------------------------------------------------------------------------------------------


_TOTAL = 1 << 36


@pytest.mark.parametrize("family", ["plain", "everything", "distributions"])
@pytest.mark.parametrize("inputs", [100, 100_000, None])
def test_plans_fit_what_is_free(family: str, inputs: int | None) -> None:
    ens, changes = _FAMILIES[family]
    request = _request(ens, 100 if inputs is None else inputs, width=3000, depth=20, networks=4, **changes)
    least = least_memory(request) + 4 * 20 * _direct._record_bytes(request) + _direct._PIECES
    before = 0
    for free in (least, 2 * least, 10 * least, 10**12):
        plan = Plan.of(request, inputs, _TOTAL, free, Limits())
        assert plan.need(request, inputs) <= free
        assert plan.group * plan.columns >= before
        before = plan.group * plan.columns
    assert plan.columns == min(inputs or 10**9, 1024 if request.distributions else 16384)
    with pytest.raises(MemoryError, match="width 3000"):
        Plan.of(request, inputs, _TOTAL, least_memory(request) // 2, Limits())


@pytest.mark.parametrize("family", _FAMILIES)
@pytest.mark.parametrize("inputs", [100, 100_000])
@pytest.mark.parametrize("width", [30, 3000])
def test_plans_do_not_depend_on_the_networks_nor_on_what_is_free(family: str, inputs: int, width: int) -> None:
    ens, changes = _FAMILIES[family]
    request = _request(ens, inputs, width=width, depth=20, **changes)
    plans = {
        Plan.of(dataclasses.replace(request, networks=networks), inputs, _TOTAL, free, Limits())
        for networks in (1, 3, 1000)
        for free in (_TOTAL // 2, _TOTAL)
    }
    assert len(plans) == 1
    assert (plans.pop().group > 1) is (width == 30)


def test_half_of_the_memory_is_enough() -> None:
    """A smaller device takes fewer inputs at a time, of a network that fills it."""
    request = _request(_FAMILIES["residual"][0], 100_000, width=30_000, depth=100, gradients="readout")
    plans = [Plan.of(request, 100_000, total, total, Limits()) for total in (1 << 35, 1 << 36)]
    assert 2 < plans[0].columns < plans[1].columns < Limits().columns
    for plan, total in zip(plans, (1 << 35, 1 << 36), strict=True):
        assert total // 8 < plan.need(request, 100_000) <= total // 2


@pytest.mark.parametrize("family", ["everything", "distributions"])
def test_memory_is_what_was_said(host_device: Any, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The most that PyTorch has allocated at once, by its own account."""
    monkeypatch.setattr(_direct, "_BLOCK", 1 << 12)  # else these blocks are all there is at this size
    ens, changes = _FAMILIES[family]
    request = _request(ens, 40, width=120, depth=2, networks=1, per_node=False, **changes)
    limits = Limits(columns=40, compared=40, group=1, weights=1 << 16)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        _on_gpu(request, host_device, limits=limits)
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    most = max(np.cumsum(sizes))
    said = Plan.of(request, 40, _TOTAL, _TOTAL, limits).need(request, 40)
    assert said / 4 < most < said


def test_simulate_by_the_direct_method(on_host: Any) -> None:
    ens, _ = _FAMILIES["plain"]
    chunks = list(np.random.default_rng(9).normal(size=(3, 4, 50)))
    here, there = (
        igb.simulate(ens, width=70, depth=2, inputs=chunks, method="direct", dtype="float64", device=device)
        for device in ("cpu", "cuda")
    )
    for name in ("sigma_mu2", "gamma", "gamma_se", "class_fraction"):
        np.testing.assert_allclose(there[name], here[name], rtol=1e-10, err_msg=name)
