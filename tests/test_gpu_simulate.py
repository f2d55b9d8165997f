"""simulate with device="cuda", the kernels run on the host: inputs of all kinds, several devices, memory, Ctrl-C."""

import re
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

import igbfast as igb
from igbfast import _inputs, cli
from igbfast.gpu import _device, _products
from igbfast.gpu import simulate as gpu_simulate
from igbfast.gpu._device import Device, pointer
from igbfast.gpu._inputs import Resident

SIZE = {"width": 70, "depth": 3, "dtype": "float64", "seed": 3}
ALL = {"per_node": True, "distributions": True, "gradients": "cross_entropy", "classes": 3}
X = np.random.default_rng(0).standard_normal((11, 7))
LABELS = np.arange(11) % 3


class Host(Device):
    """A device that says how much memory it has."""

    free: int = 4 << 30

    def free_memory(self):
        return self.free


@pytest.fixture
def several(monkeypatch, host_device):
    """Devices of that number, each the host."""

    def put(count, free=4 << 30):
        devices = [Host(host_device.torch, host_device.kernels) for _ in range(count)]
        for device in devices:
            object.__setattr__(device, "free", free)
        monkeypatch.setattr(_device, "find", lambda device: devices)
        return devices

    return put


def without_device(dataset):
    attrs = {key: value for key, value in dataset.attrs.items() if key not in ("device", "products")}
    return xr.Dataset(dataset.data_vars, dataset.coords, attrs)


def assert_as_on_the_cpu(got, expected):
    """The same numbers up to rounding, and the same attributes but for the device."""
    got = without_device(got)
    assert got.attrs == expected.attrs
    assert set(got.variables) == set(expected.variables)
    for name in expected.variables:
        if "counts" in name or "quantile" in name:
            continue
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-8, atol=1e-11, err_msg=str(name))


# ---- The whole call --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("on_host")
@pytest.mark.parametrize("method", ["gram", "direct"])
def test_the_same_numbers_as_on_the_cpu(tanh_edge, method):
    arguments = {**SIZE, "inputs": 11, "networks": 2, "method": method, "per_node": True}
    got = igb.simulate(tanh_edge, **arguments, device="cuda")
    assert_as_on_the_cpu(got, igb.simulate(tanh_edge, **arguments))
    assert (got.attrs["device"], got.attrs["products"]) == ("kernels run on the host", "full")


@pytest.mark.usefixtures("on_host")
def test_a_table_that_is_too_short(monkeypatch):
    """The run begins anew with one that reaches further, as on the CPU."""
    ens = igb.Ensemble(igb.Activation.custom(lambda x: np.tanh(x) + 0.1 * x), sigma_w2=2.0)
    arguments = {**SIZE, "inputs": 9, "method": "gram"}
    expected = igb.simulate(ens, **arguments)
    monkeypatch.setattr(igb.simulation, "_REACH", 1e-3)
    assert_as_on_the_cpu(igb.simulate(ens, **arguments, device="cuda"), expected)


@pytest.mark.usefixtures("on_host")
def test_products_are_recorded_and_reach_the_engine(tanh_edge, monkeypatch):
    seen = []
    right = gpu_simulate.forward_direct.forward_direct

    def engine(request, phi, device, networks, products, *rest, **more):
        seen.append((products, _products._switch()))
        return right(request, phi, device, networks, products, *rest, **more)

    monkeypatch.setattr(gpu_simulate.forward_direct, "forward_direct", engine)
    before = _products._switch()
    for products in ("full", "tf32", "bfloat16"):
        arguments = {**SIZE, "dtype": "float32", "method": "direct", "inputs": 5}
        ds = igb.simulate(tanh_edge, **arguments, device="cuda", products=products)
        assert ds.attrs["products"] == products
    assert seen == [("full", "ieee"), ("tf32", "tf32"), ("bfloat16", "tf32")]
    assert _products._switch() == before


@pytest.mark.usefixtures("on_host")
def test_validate_on_a_device(relu_critical):
    arguments = {"width": 100, "depth": 2, "networks": 2, "inputs": 4, "dtype": "float64"}
    validation = igb.validate(relu_critical, **arguments, device="cuda")
    expected = igb.validate(relu_critical, **arguments)
    for name in ("sigma_y2", "gamma_z", "c_shift"):
        np.testing.assert_allclose(validation.dataset[name], expected.dataset[name], rtol=1e-8, atol=1e-8)
    for dataset in (validation.dataset, validation.simulation):
        assert dataset.attrs["device"] == "kernels run on the host"


@pytest.mark.usefixtures("on_host")
def test_the_command_line(tmp_path):
    arguments = ["simulate", "tanh", "--sigma-w2", "1.5", "--width", "60", "--depth", "2", "--inputs", "5"]
    options = ["--device", "cuda:0,cuda:1", "--products", "tf32", "--output", str(tmp_path / "s.nc")]
    result = CliRunner().invoke(cli.app, [*arguments, *options])
    assert result.exit_code == 0, result.output
    attrs = xr.load_dataset(tmp_path / "s.nc", engine="h5netcdf").attrs
    assert (attrs["device"], attrs["products"]) == ("kernels run on the host", "tf32")
    assert cli._devices("cuda:0,cuda:1") == ["cuda:0", "cuda:1"]
    assert cli._devices("cuda:all") == "cuda:all"


# ---- Several devices -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["gram", "direct"])
@pytest.mark.parametrize(("devices", "networks"), [(2, 5), (3, 2)])
def test_several_devices_change_nothing(tanh_edge, several, method, devices, networks):
    arguments = {**SIZE, **ALL, "inputs": 9, "networks": networks, "method": method, "device": "cuda:all"}
    several(1)
    one = igb.simulate(tanh_edge, **arguments)
    several(devices)
    ds = igb.simulate(tanh_edge, **arguments)
    assert ds.attrs["device"] == f"{devices} x kernels run on the host"
    xr.testing.assert_identical(without_device(ds), without_device(one))


def test_several_devices_take_chunks_together(tanh_edge, several):
    def chunks():
        yield from ((X[i : i + 4], LABELS[i : i + 4]) for i in range(0, 11, 4))

    arguments = {**SIZE, **ALL, "networks": 3, "device": "cuda:all"}
    several(1)
    one = igb.simulate(tanh_edge, **arguments, inputs=chunks())
    several(2)
    xr.testing.assert_identical(
        without_device(igb.simulate(tanh_edge, **arguments, inputs=chunks())), without_device(one)
    )


@pytest.fixture
def fake_engine(monkeypatch):
    """An engine of Python: each device does what it is told, by the number of its first network."""

    def put(engine):
        module = SimpleNamespace(forward_gram=engine, least_memory=lambda request: 0)
        monkeypatch.setitem(gpu_simulate._ENGINES, "gram", module)

    return put


def test_progress_is_that_of_all_devices(several):
    """Shares of 2 and 3 networks, the first of which waits half-way."""
    told, half = [], threading.Event()

    def job(first):
        def run(step):
            step(0.5)
            if first == 0:
                assert half.wait(20)
            step(1.0)
            return first

        return run

    def step(fraction):
        told.append(fraction)
        if fraction >= 0.8 - 1e-12:
            half.set()

    devices = several(2)
    shares = [
        gpu_simulate.Share(devices[k], first, SimpleNamespace(networks=networks))
        for k, (first, networks) in enumerate([(0, 2), (2, 3)])
    ]
    jobs = [job(share.first) for share in shares]
    assert gpu_simulate._together(shares, jobs, step) == [0, 2]
    assert told == sorted(told)
    assert pytest.approx(0.8) in told
    assert told[-1] == 1.0


@pytest.mark.parametrize("failing", [0, 2])
def test_the_first_error_stops_all_devices(tanh_edge, several, fake_engine, failing):
    stopped = []

    def engine(request, phi, device, networks, products, step, first_network):
        if first_network == failing:
            raise ZeroDivisionError("of this device")
        try:
            while True:
                step(0.1)
                time.sleep(0.01)
        except BaseException:
            stopped.append(first_network)
            raise

    fake_engine(engine)
    several(3)
    with pytest.raises(ZeroDivisionError, match="of this device"):
        igb.simulate(tanh_edge, **SIZE, inputs=5, networks=6, method="gram", device="cuda:all")
    assert sorted(stopped) == sorted({0, 2, 4} - {failing})


@pytest.mark.parametrize("devices", [1, 2])
def test_ctrl_c_stops_all_devices(tanh_edge, several, fake_engine, devices):
    stopped = []

    def engine(request, phi, device, networks, products, step, first_network):
        try:
            while True:
                step(0.1)
                time.sleep(0.01)
        except BaseException:
            stopped.append(first_network)
            raise

    def interrupted(fraction):
        raise KeyboardInterrupt

    fake_engine(engine)
    several(devices)
    request = igb.simulation.fitted(
        igb.simulation.checked(tanh_edge, 64, 2, 5, 4, 0, "gram", "float32", device="cuda:all")
    )
    with pytest.raises(KeyboardInterrupt):
        igb.simulation.run(request, interrupted)
    assert sorted(stopped) == [0, 2][:devices]
    assert threading.active_count() == 1


# ---- Inputs ----------------------------------------------------------------------------------------------------------


class OnlyDLPack:
    """An array of a library that NumPy does not know."""

    def __init__(self, values):
        self.values, self.shape = values, values.shape

    def __dlpack__(self, **arguments):
        return self.values.__dlpack__(**arguments)

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()


class OfGPU(OnlyDLPack):
    """An array on a GPU, as it looks from outside."""

    def __dlpack_device__(self):
        return 2, 0


KINDS = {
    "array": lambda x: x,
    "array that is not contiguous": lambda x: np.asfortranarray(x),
    "array that must not be written to": lambda x: np.frombuffer(x.tobytes()).reshape(x.shape),
    "tensor": torch.from_numpy,
    "tensor with a gradient": lambda x: torch.from_numpy(x).requires_grad_(),
    "tensor that is not contiguous": lambda x: torch.from_numpy(np.asfortranarray(x)),
    "tensor of images": lambda x: torch.from_numpy(x).reshape(len(x), -1, 1),
    "DLPack": OnlyDLPack,
    "list": lambda x: x.tolist(),
    "chunks": lambda x: [x[:4], torch.from_numpy(x[4:])],
}


@pytest.mark.usefixtures("on_host")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["gram", "direct"])
def test_inputs_of_all_kinds(tanh_edge, method, kind):
    arguments = {**SIZE, "gradients": "cross_entropy", "classes": 3, "labels": LABELS, "method": method}
    got = igb.simulate(tanh_edge, **arguments, inputs=KINDS[kind](X), device="cuda")
    expected = igb.simulate(tanh_edge, **arguments, inputs=X)
    if kind == "chunks":
        assert got.attrs["input_data"] == "given in chunks"
        expected.attrs["input_data"] = "given in chunks"
    assert_as_on_the_cpu(got, expected)


def test_dlpack_on_the_cpu(tanh_edge):
    expected = igb.simulate(tanh_edge, **SIZE, inputs=X)
    xr.testing.assert_identical(igb.simulate(tanh_edge, **SIZE, inputs=OnlyDLPack(X)), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_tensor_is_not_copied(host_device, dtype):
    tensor = torch.from_numpy(X).to(dtype)
    resident = Resident(tensor, [host_device])
    assert resident.tensor(host_device).data_ptr() == tensor.data_ptr()
    assert resident.tensor(host_device).dtype == dtype
    assert resident.mean_square == pytest.approx(float((tensor.double() ** 2).mean(1).max()), rel=1e-12)
    shared = Resident(OfGPUThatIsHere(tensor), [host_device])
    assert shared.tensor(host_device).data_ptr() == tensor.data_ptr()


class OfGPUThatIsHere:
    """Says by __cuda_array_interface__ that it is on a GPU; PyTorch takes it by DLPack, which tells the truth."""

    def __init__(self, tensor):
        self.tensor, self.__cuda_array_interface__ = tensor, {}

    def __dlpack__(self, **arguments):
        return self.tensor.__dlpack__(**arguments)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()


@pytest.mark.parametrize(
    ("dtype", "becomes"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.int8, torch.float32),
        (torch.uint8, torch.float32),
        (torch.int16, torch.float32),
        (torch.int32, torch.float64),
        (torch.int64, torch.float64),
    ],
)
def test_numbers_of_other_types(host_device, dtype, becomes):
    tensor = torch.arange(1, 13).reshape(4, 3).to(dtype)
    found = Resident(tensor, [host_device]).tensor(host_device)
    assert found.dtype == becomes
    assert found.tolist() == tensor.tolist()


WRONG = {
    "nan": (np.where(np.arange(77).reshape(11, 7) == 40, np.nan, X), {}),
    "infinite": (np.where(np.arange(77).reshape(11, 7) == 75, -np.inf, X), {}),
    "too large": (np.where(np.arange(11)[:, None] == 6, 1e16 * X, X), {"dtype": "float32"}),
    "too small": (np.where(np.arange(11)[:, None] == 3, 1e-200 * X, X), {}),
    "zero, to be normalised": (np.where(np.arange(11)[:, None] == 9, 0.0, X), {"normalize": True}),
    "nan, to be normalised": (np.where(np.arange(11)[:, None] == 2, np.nan, X), {"normalize": True}),
    "one input": (X[:1], {}),
    "no features": (X[:, :0], {}),
    "one dimension": (X[0], {}),
    "complex": (X + 0j, {}),
    "truth values": (X > 0, {}),
}


@pytest.mark.usefixtures("on_host")
@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_as_of_arrays(tanh_edge, case):
    inputs, arguments = WRONG[case]
    arguments = {**SIZE, **arguments}
    with pytest.raises((ValueError, TypeError)) as on_cpu:
        igb.simulate(tanh_edge, **arguments, inputs=inputs)
    with pytest.raises(on_cpu.type) as on_device:
        igb.simulate(tanh_edge, **arguments, inputs=torch.from_numpy(inputs), device="cuda")
    assert str(on_device.value).replace("torch.", "") == str(on_cpu.value)


def test_rows_far_down_are_found(host_device, monkeypatch):
    """Slices of two rows; a row of zeros is allowed."""
    monkeypatch.setattr("igbfast.gpu._inputs._SLICE", 2 * 7 * 8)
    x = X.copy()
    x[3] = 0.0
    assert Resident(torch.from_numpy(x), [host_device]).mean_square == pytest.approx((x**2).mean(1).max())
    x[8, 2] = np.nan
    with pytest.raises(ValueError, match="got nan in row 8, column 2"):
        Resident(torch.from_numpy(x), [host_device])


@pytest.mark.parametrize("scale", [1.0, 1e200, 1e-200])
def test_rows_are_scaled_as_those_of_arrays(host_device, scale):
    expected, _ = _inputs.as_inputs(X * scale, normalize=True)
    resident = Resident(torch.from_numpy(X * scale), [host_device], normalize=True)
    np.testing.assert_allclose(resident.tensor(host_device), expected.whole(), rtol=1e-14)
    assert resident.description == expected.description


def test_arrays_of_a_gpu_are_not_for_the_cpu(tanh_edge):
    message = "inputs must lie in this machine's memory for device='cpu', got a OfGPU on a GPU: use device='cuda'"
    with pytest.raises(TypeError, match=re.escape(message)):
        igb.simulate(tanh_edge, **SIZE, inputs=OfGPU(X))
    with pytest.raises(TypeError, match="chunk 0 of inputs must lie in this machine's memory"):
        igb.simulate(tanh_edge, **SIZE, inputs=[OfGPU(X)])


@pytest.mark.usefixtures("on_host")
def test_labels_that_are_tensors(tanh_edge):
    arguments = {**SIZE, "gradients": "cross_entropy", "classes": 3, "inputs": torch.from_numpy(X), "device": "cuda"}
    ds = igb.simulate(tanh_edge, **arguments, labels=torch.from_numpy(LABELS))
    xr.testing.assert_identical(ds, igb.simulate(tanh_edge, **arguments, labels=LABELS))
    with pytest.raises(ValueError, match="labels must be 11 integers, one for each input, got 10"):
        igb.simulate(tanh_edge, **arguments, labels=torch.from_numpy(LABELS[:10]))


# ---- Memory ----------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused(tanh_edge, several):
    several(2, free=1 << 20)
    for method in ("gram", "direct"):
        with pytest.raises(
            ValueError, match=r"need about .* of memory on the GPU, but .* are available on 2 x kernels"
        ):
            igb.simulate(tanh_edge, width=10_000, depth=3, inputs=1000, method=method, device="cuda")


def test_auto_takes_what_fits(tanh_edge, several):
    """Products of 3000 inputs take more than a few inputs at a time do."""
    arguments = tanh_edge, 4000, 2, 3000, 1, 0, "auto", "float32"
    several(1)
    assert igb.simulation.fitted(igb.simulation.checked(*arguments)).method == "direct"
    wide = tanh_edge, 10**6, 2, 1000, 1, 0, "auto", "float32"
    assert igb.simulation.fitted(igb.simulation.checked(*wide, device="cuda")).method == "gram"


@pytest.mark.parametrize("as_tensor", [np.asarray, torch.from_numpy])
def test_an_array_that_does_not_fit_comes_in_pieces(tanh_edge, several, monkeypatch, as_tensor):
    arguments = {**SIZE, "method": "direct", "gradients": "cross_entropy", "classes": 3, "labels": LABELS}
    expected = igb.simulate(tanh_edge, **arguments, inputs=X)
    several(1)
    monkeypatch.setattr(_inputs.Given, "tensor_bytes", property(lambda given: 1 << 40))
    monkeypatch.setattr(Resident, "tensor_bytes", property(lambda given: 1 << 40))
    monkeypatch.setattr(_inputs, "_PIECE_ROWS", 4)
    monkeypatch.setattr(_inputs, "_LEAST_ROWS", 4)
    pieces = []
    right = gpu_simulate.forward_direct.DirectStream.take

    def take(self, piece, *rest):
        pieces.append(len(piece))
        right(self, piece, *rest)

    monkeypatch.setattr(gpu_simulate.forward_direct.DirectStream, "take", take)
    assert_as_on_the_cpu(igb.simulate(tanh_edge, **arguments, inputs=as_tensor(X), device="cuda"), expected)
    assert pieces == [4, 4, 3]


def test_memory_that_others_took(tanh_edge, several, fake_engine):
    def engine(*_, **__):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    fake_engine(engine)
    several(1)
    with pytest.raises(MemoryError, match="kernels run on the host ran out of memory"):
        igb.simulate(tanh_edge, **SIZE, inputs=5, method="gram", device="cuda")


def test_addresses_are_of_what_was_asked_for(host_device):
    tensor = torch.zeros(3, 4)
    assert pointer(tensor, torch.float32, 3, 4) == pointer(tensor, torch.float32, -1, 4) == tensor.data_ptr()
    for wrong in ((torch.float64, 3, 4), (torch.float32, 4, 3), (torch.float32, 12)):
        with pytest.raises(TypeError, match="expected a contiguous tensor"):
            pointer(tensor, *wrong)
    with pytest.raises(TypeError, match="expected a contiguous tensor"):
        pointer(tensor.T, torch.float32, 4, 3)
    assert host_device.free_memory() == host_device.kernels.memory(0)[0] > 0
