"""What device="cuda" runs, on tensors that PyTorch takes for a GPU's (as_cuda.py): nothing of another device is mixed
in, kernels see no other memory, and the numbers are those of the CPU."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import xarray as xr

torch = pytest.importorskip("torch")

import as_cuda
from as_cuda import Gpus

import igbfast as igb
from igbfast.gpu import _device, _sampling, forward_direct
from igbfast.gpu._direct import Limits, add_product

SIZE = {"width": 66, "depth": 2, "networks": 3, "inputs": 4, "seed": 3, "dtype": "float64"}
ALL = {"per_node": True, "distributions": True, "gradients": "cross_entropy", "classes": 3}
RNG = np.random.default_rng(0)
X = RNG.standard_normal((9, 7))
LABELS = np.arange(9) % 3
Q = np.array([[0.3], [2.0]])
C = np.array([-1.0, 0.2, 0.9])


@pytest.fixture
def gpus(host_device: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpus]:
    """Two; `cuda` is the first of them, `cuda:all` both. Networks go in pairs, one of them perhaps unasked for."""
    monkeypatch.setattr(forward_direct, "LIMITS", Limits(columns=6, group=2, weights=1 << 15))
    with Gpus(2, host_device.kernels) as found:
        devices = {"cuda": found.devices[:1], "cuda:1": found.devices[1:], "cuda:all": found.devices}
        monkeypatch.setattr(_device, "find", lambda device: devices[str(device)])
        yield found


def assert_as_on_the_cpu(got: xr.Dataset, expected: xr.Dataset, rtol: float = 1e-8) -> None:
    assert set(got.variables) == set(expected.variables)
    for name in expected.variables:
        if "counts" in str(name) or "quantile" in str(name):  # a rounding may lie on the edge of a bin
            continue
        np.testing.assert_allclose(got[name], expected[name], rtol=rtol, atol=1e-3 * rtol, err_msg=str(name))


def simulated(ens: igb.Ensemble, on: Any = None, **arguments: Any) -> None:
    """On a GPU as on the CPU; `on`: what the GPU is given instead."""
    given = SIZE | arguments
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # more inputs than nodes, or digits lost
        expected = igb.simulate(ens, **given)
        got = igb.simulate(ens, **(given | {"device": "cuda"} | (on or {})))
    assert_as_on_the_cpu(got, expected, 1e-8 if given["dtype"] == "float64" else 2e-3)


# ---- simulate --------------------------------------------------------------------------------------------------------

ENSEMBLES = {
    "plain": igb.Ensemble("tanh", 1.5, 0.1),
    "largest": igb.Ensemble("relu", 1.5, 0.1, pool=igb.MaxPool(3)),
    "smallest of a table": igb.Ensemble("gelu", 1.5, 0.1, pool=igb.MinPool(2)),
    "average": igb.Ensemble("tanh", 1.5, 0.1, pool=igb.AvgPool(3)),
    "many in a pool": igb.Ensemble("relu", 1.5, 0.1, pool=igb.MaxPool(11)),
    "table": igb.Ensemble("gelu", 1.5, 0.1),
    "residual": igb.Ensemble("tanh", 1.5, 0.1, residual=0.5),
    "norm": igb.Ensemble("erf", 1.5, 0.1, layernorm=True),
    "residual and norm": igb.Ensemble("gelu", 1.5, 0.1, residual=0.5, layernorm=True),
    "orthogonal": igb.Ensemble("tanh", 1.5, 0.1, weights="orthogonal"),
    "orthogonal and residual": igb.Ensemble("tanh", 1.5, 0.1, weights="orthogonal", residual=0.5),
    "orthogonal in pools": igb.Ensemble("tanh", 1.5, 0.1, weights="orthogonal", pool=igb.AvgPool(2)),
}


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("method", ["gram", "direct"])
@pytest.mark.parametrize("name", ENSEMBLES)
def test_simulate(name: str, method: str) -> None:
    simulated(ENSEMBLES[name], method=method, **ALL)


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("method", ["gram", "direct"])
@pytest.mark.parametrize("name", ["table", "residual", "orthogonal"])
@pytest.mark.parametrize("more", [{}, {"gradients": "readout"}], ids=["no gradients", "readout"])
def test_less_of_it(name: str, method: str, more: dict[str, Any]) -> None:
    simulated(ENSEMBLES[name], method=method, **more)


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("law", ["uniform", "rademacher"])
def test_weights_of_other_laws(law: str) -> None:
    simulated(igb.Ensemble("tanh", 1.5, 0.1, weights=law), method="direct", gradients="readout")


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("products", ["full", "tf32", "bfloat16"])
@pytest.mark.parametrize("method", ["gram", "direct"])
def test_single_precision(method: str, products: str) -> None:
    ens = ENSEMBLES["plain"]
    arguments = SIZE | {"dtype": "float32", "method": method, "gradients": "cross_entropy"}
    got = igb.simulate(ens, **arguments, device="cuda", products=products)
    assert_as_on_the_cpu(got[["q", "gradient"]], igb.simulate(ens, **arguments)[["q", "gradient"]], 0.1)


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param(np.repeat(X[:3], 3, 0), id="equal ones"),
        pytest.param(RNG.standard_normal((30, 7)), id="more than features"),
        pytest.param(X[:1] + 1e-6 * X, id="nearly equal ones"),
    ],
)
@pytest.mark.parametrize("weights", ["gaussian", "orthogonal"])
def test_matrices_that_the_host_factors(inputs: Any, weights: str) -> None:
    """More inputs than nodes, and inputs that depend on each other."""
    ens = igb.Ensemble("relu", 1.5, 0.1, weights=weights)
    simulated(ens, inputs=inputs, width=22, method="gram", gradients="cross_entropy")


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("method", ["gram", "direct"])
@pytest.mark.parametrize("kind", ["array", "tensor", "tensor on a GPU", "part of a tensor on a GPU", "short numbers"])
def test_inputs_and_labels_that_are_given(kind: str, method: str) -> None:
    short = X.astype(np.float16)
    on = {
        "array": X,
        "tensor": torch.tensor(X),
        "tensor on a GPU": torch.tensor(X, device="cuda:0"),
        "part of a tensor on a GPU": torch.tensor(np.hstack([X, X]), device="cuda:0")[:, :7],
        "short numbers": torch.tensor(short, device="cuda:0"),
    }[kind]
    labels = torch.tensor(LABELS, device=on.device) if isinstance(on, torch.Tensor) else LABELS
    arguments = {"inputs": short if kind == "short numbers" else X, "labels": LABELS, "method": method}
    normalize = kind in ("array", "part of a tensor on a GPU")
    more = {"normalize": normalize, "gradients": "cross_entropy", "classes": 3, "networks": 1}
    simulated(ENSEMBLES["plain"], {"inputs": on, "labels": labels}, **arguments, **more)


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("method", ["gram", "direct"])
@pytest.mark.parametrize("swapped", ["", ">"])
def test_arrays_that_pytorch_does_not_take_as_they_are(method: str, swapped: str) -> None:
    """Read-only, backwards, in the other order of bytes: without a word."""
    inputs, labels = X.astype(swapped + "f8")[:, ::-1], LABELS.astype(swapped + "i4")
    for each in (inputs, labels):
        each.setflags(write=False)
    arguments = SIZE | ALL | {"inputs": inputs, "labels": labels, "method": method, "networks": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = igb.simulate(ENSEMBLES["plain"], **arguments, device="cuda")
    assert_as_on_the_cpu(got, igb.simulate(ENSEMBLES["plain"], **arguments))


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("where", ["cpu", "cuda:0"])
def test_inputs_that_come_in_chunks(where: str) -> None:
    chunks = [(torch.tensor(X[i : i + 4], device=where), torch.tensor(LABELS[i : i + 4])) for i in (0, 4, 8)]
    simulated(
        ENSEMBLES["residual"], {"inputs": chunks, "labels": None}, inputs=X, labels=LABELS, method="direct", **ALL
    )


@pytest.mark.parametrize("method", ["gram", "direct"])
def test_each_device_has_its_own(gpus: Gpus, method: str) -> None:
    """Two of them, with the inputs on one. Kernels run on the caller's streams, though in other threads."""
    on = {"inputs": torch.tensor(X, device="cuda:0"), "device": "cuda:all"}
    gpus.streams.clear()
    with torch.cuda.stream(gpus.new_stream("cuda:1", 7)):
        simulated(ENSEMBLES["plain"], on, inputs=X, labels=LABELS, method=method, **ALL)
    assert gpus.streams == {(0, 0), (1, 7)}


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("method", ["gram", "direct"])
def test_not_the_first_device(method: str) -> None:
    simulated(ENSEMBLES["table"], {"device": "cuda:1"}, inputs=X, labels=LABELS, method=method, **ALL)


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("method", ["gram", "direct"])
def test_what_pytorch_takes_by_default_does_not_matter(method: str) -> None:
    dtype = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float16)
        with torch.device("cuda:1"):
            simulated(ENSEMBLES["table"], inputs=X, labels=LABELS, method=method, **ALL)
            simulated(ENSEMBLES["orthogonal"], method=method, gradients="readout")
    finally:
        torch.set_default_dtype(dtype)


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("method", "gradients", "most"), [("gram", None, 1), ("gram", "readout", 2), ("direct", None, 0)]
)
def test_the_host_does_not_wait_inside_of_a_layer(method: str, gradients: str | None, most: int) -> None:
    found = []
    for depth in (2, 5):
        as_cuda.waits.clear()
        arguments = SIZE | {"depth": depth, "method": method, "gradients": gradients}
        igb.simulate(ENSEMBLES["table"], **arguments, device="cuda")
        found.append(len(as_cuda.waits))
    assert 0 < found[0] <= found[1] <= found[0] + most * 3


# ---- Theory and kernel -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("name", ["relu", "tanh", "gelu"])
@pytest.mark.parametrize("defaults", ["cpu", "cuda:1"])
def test_moments(name: str, defaults: str) -> None:
    expected = igb.moments(name, Q, C)
    with torch.device(defaults):
        np.testing.assert_allclose(igb.moments(name, Q, C, device="cuda"), expected, rtol=1e-12, atol=1e-14)
        got = igb.moments(name, torch.tensor(Q, device="cuda:0"), C, device="cuda")
    assert got.device == torch.device("cuda:0")
    np.testing.assert_allclose(got.cpu().numpy(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.usefixtures("gpus")
def test_moments_of_what_is_elsewhere_or_not_allowed() -> None:
    with pytest.raises(ValueError, match=r"q must be on cuda:0, .* got an array on cpu"):
        igb.moments("tanh", torch.tensor(Q), device="cuda")
    with pytest.raises(ValueError, match=r"q must be on cuda:0, .* got an array on cuda:1"):
        igb.moments("tanh", torch.tensor(Q, device="cuda:1"), device="cuda")
    with pytest.raises(ValueError, match=r"c must be from -1 to 1, got 1.5"):
        igb.moments("tanh", 1.0, torch.tensor([0.0, 1.5], device="cuda:0"), device="cuda")


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("name", ["plain", "table", "residual", "norm", "average"])
def test_propagate(name: str) -> None:
    ens = ENSEMBLES[name]
    got, expected = (igb.propagate(ens, 7, device=device) for device in ("cuda", "cpu"))
    assert_as_on_the_cpu(got, expected)


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("name", ["relu", "tanh"])
@pytest.mark.parametrize("more", [{}, {"residual": 0.5}, {"layernorm": True}])
def test_phase_diagram(name: str, more: dict[str, Any]) -> None:
    got, expected = (igb.phase_diagram(name, [1.0, 2.5], [0.0, 0.2], **more, device=on) for on in ("cuda", "cpu"))
    assert_as_on_the_cpu(got, expected, 1e-6)


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("kind", ["array", "tensor on a GPU", "other GPU", "covariance on a GPU"])
@pytest.mark.parametrize("name", ["plain", "residual"])
def test_kernel(name: str, kind: str) -> None:
    device = "cuda:1" if kind == "other GPU" else "cuda:0"
    argument, value = ("k0", X @ X.T / 7.0) if "covariance" in kind else ("inputs", X)
    given = value if kind == "array" else torch.tensor(value, device=device)
    got = igb.kernel(ENSEMBLES[name], depth=4, **{argument: given}, device="cuda")
    expected = igb.kernel(ENSEMBLES[name], depth=4, **{argument: value})
    np.testing.assert_allclose(got["gamma"], expected["gamma"], rtol=1e-8)
    np.testing.assert_allclose(got["covariance"], expected["covariance"], rtol=1e-8)


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("name", ["hardtanh"])
def test_kernel_pair_by_pair_and_by_curves(name: str) -> None:
    for inputs, more in ((X[:3], {}), (X, {"layernorm": True})):
        ens = igb.Ensemble(name, 1.5, 0.1, **more)
        got, expected = (igb.kernel(ens, inputs=inputs, depth=3, device=on) for on in ("cuda", "cpu"))
        np.testing.assert_allclose(got["covariance"], expected["covariance"], rtol=1e-8)


def test_weights(gpus: Gpus) -> None:
    w = igb.gpu.weights("gaussian", seed=7, rows=5, columns=9, device="cuda:1")
    assert w.device == gpus.devices[1].torch
    assert torch.isfinite(w).all()


# ---- The rules themselves --------------------------------------------------------------------------------------------


def on_gpu(*shape: int, number: int = 0) -> Any:
    return torch.ones(shape, device=f"cuda:{number}")


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    "planted",
    [
        lambda: on_gpu(3) + torch.ones(3),
        lambda: on_gpu(3) + on_gpu(3, number=1),
        lambda: on_gpu(3).add_(torch.ones(3)),
        lambda: torch.ones(3).mul_(on_gpu(3)),
        lambda: torch.ones(()).mul_(on_gpu()),
        lambda: on_gpu(3, 3) @ torch.ones(3, 3),
        lambda: torch.bmm(on_gpu(1, 3, 3), on_gpu(1, 3, 3), out=torch.empty(1, 3, 3)),
        lambda: torch.cat([on_gpu(3), torch.ones(3)]),
        lambda: torch.stack([on_gpu(), torch.ones(())]),
        lambda: torch.where(torch.ones(3) > 0.0, on_gpu(3), 0.0),
        lambda: torch.ones(3)[on_gpu(3) > 0.0],
        lambda: on_gpu(3).gather(0, torch.zeros(1, dtype=torch.int64)),
        lambda: on_gpu(3)[torch.zeros(1, dtype=torch.int64)].add_(torch.ones(1)),
        lambda: torch.linalg.solve_triangular(on_gpu(3, 3), torch.ones(3, 1), upper=False),
        lambda: (
            torch.ones(3, device="cuda:0", dtype=torch.int64) @ torch.ones(3, 3, device="cuda:0", dtype=torch.int64)
        ),
    ],
)
def test_what_is_mixed_is_refused(planted: Any) -> None:
    with pytest.raises(RuntimeError, match=r"same device|not implemented"):
        planted()


@pytest.mark.usefixtures("gpus")
def test_what_may_be_mixed() -> None:
    x = on_gpu(3)
    assert (x + torch.tensor(2.0)).tolist() == [3.0, 3.0, 3.0]
    assert torch.where(x > 0.0, x, 0.0).tolist() == [1.0, 1.0, 1.0]
    assert x[torch.tensor([0, 2])].device == x[[1]].device == x.device
    x[1] = torch.tensor(5.0)
    x[torch.tensor([2])] = 7.0
    assert x.tolist() == [1.0, 5.0, 7.0]
    x.copy_(torch.zeros(3))
    assert torch.zeros(3).copy_(x).device.type == "cpu"
    assert float(x.sum()) == 0.0
    assert not x.any()


@pytest.mark.usefixtures("gpus")
def test_tensors_say_where_they_are() -> None:
    x = on_gpu(4, 6, number=1)
    for each in (x, x[:, 1:3], x.mT, x.double(), x.sum(), torch.empty_like(x), x.new_zeros(2), x.unflatten(1, (2, 3))):
        assert (each.device, each.is_cuda) == (torch.device("cuda:1"), True)
    assert torch.from_numpy(np.ones(3)).to("cuda").device == torch.device("cuda:0")
    assert torch.ones(3).cuda().cpu().device == torch.device("cpu")
    assert x.to("cuda:1") is x
    assert x[1:].data_ptr() == x.data_ptr() + 24
    assert torch.empty(3, device="cuda:0").isnan().all()
    for refused in (x.numpy, lambda: np.asarray(x)):
        with pytest.raises(TypeError, match="can't convert cuda:1 device type tensor to numpy"):
            refused()


def test_a_view_is_the_same_memory(gpus: Gpus) -> None:
    x = torch.zeros(2, 3, device=gpus.devices[0].torch)
    x[:, 1] += 1.0
    x.diagonal().copy_(torch.tensor([4.0, 5.0]))
    assert x.tolist() == [[4.0, 1.0, 0.0], [0.0, 5.0, 0.0]]


def test_kernels_get_live_memory_of_their_device_alone(gpus: Gpus) -> None:
    id = _sampling.StreamId(1, 0, 1, 0)
    large = 1, 2, 5_000_000  # memory of its own: small pieces may lie low, where numbers do not pass for addresses

    def fill(out: Any) -> None:
        _sampling.fill_weights(gpus.devices[0], "gaussian", id, out, columns=3)

    fill(on_gpu(*large))
    with pytest.raises(RuntimeError, match="an address that is none of a GPU's"):
        fill(torch.ones(large))
    with pytest.raises(RuntimeError, match="on cuda:0 was given an address on cuda:1"):
        fill(on_gpu(*large, number=1))
    address = on_gpu(*large).data_ptr()
    with pytest.raises(RuntimeError, match="an address that is none of a GPU's"):
        gpus.devices[0].call("fill_weights_f32", "gaussian", *id, 0, 2, 0, 3, 1, 6, 3, address)


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("add", [False, True])
def test_short_numbers_are_summed_in_long_ones(add: bool) -> None:
    """By the product that there is for it on GPUs."""
    a, b = (torch.tensor(RNG.standard_normal((2, 5, 5)), device="cuda:0").bfloat16() for _ in range(2))
    out = torch.ones(2, 5, 8, device="cuda:0")
    add_product(out[:, :, 1:6], a, b, 0.5, add)
    expected = 0.5 * (a.double().cpu() @ b.double().cpu()) + (1.0 if add else 0.0)
    np.testing.assert_allclose(out[:, :, 1:6].cpu().numpy(), expected.numpy(), rtol=1e-5, atol=1e-5)
    assert (out[:, :, 0] == 1.0).all()


def test_nothing_is_left_behind(host_device: Any) -> None:
    before = torch.cuda.current_stream
    with Gpus(1, host_device.kernels):
        assert torch.cuda.current_stream is not before
    assert torch.cuda.current_stream is before
    assert torch.ones(2).device.type == "cpu"
