"""device="cuda" where something is missing: which error, in which order, and what it advises; and what `info` says.

The kernels' module and PyTorch are stand-ins, so that every branch is met on any machine; at the end the real module of
kernels meets no driver, and one that is too old.
"""

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import igbfast as igb
from igbfast import _core, cli
from igbfast.gpu import _device

H100, A100, V100 = ("NVIDIA H100", 90), ("NVIDIA A100", 80), ("Tesla V100", 70)
RUN = {"width": 20, "depth": 2, "inputs": 5}


class Kernels:
    """What igbfast._cuda says of a machine."""

    def __init__(self, *gpus, driver=13000, problem="", explanation=""):
        self.gpus, self.driver, self.problem, self.explanation = gpus, driver, problem, explanation

    def status(self):
        return {
            "built": 13000,
            "architectures": [80, 90, 100],
            "driver": self.driver,
            "devices": len(self.gpus),
            "problem": self.problem,
            "explanation": self.explanation,
        }

    def properties(self, device):
        return self.gpus[device]

    def memory(self, device):
        return 3 << 30, 4 << 30


def torch_of(cuda="13.0", available=True, architectures=("sm_80", "sm_90", "compute_90"), current=0):
    """What PyTorch says of itself."""
    return SimpleNamespace(
        __version__="2.13.0",
        version=SimpleNamespace(cuda=cuda),
        cuda=SimpleNamespace(
            is_available=lambda: available,
            get_arch_list=lambda: list(architectures),
            current_device=lambda: current,
        ),
        device=lambda kind, index: SimpleNamespace(type=kind, index=index),
    )


class TorchDevice:
    """A torch.device."""

    type, index = "cuda", 2

    def __str__(self):
        return "cuda:2"


@pytest.fixture
def machine(monkeypatch):
    """Puts the stand-ins in place; None: not installed."""

    def put(kernels, torch):
        monkeypatch.setitem(sys.modules, "igbfast._cuda", kernels)
        monkeypatch.setitem(sys.modules, "torch", torch)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return put


@pytest.fixture
def no_work(monkeypatch):
    def fail(*_, **__):
        raise AssertionError("work was begun")

    monkeypatch.setattr(_core, "simulate", fail)


# ---- What is asked for -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "error", "message"),
    [
        ("gpu", ValueError, "device must be 'cpu', 'cuda' (the current GPU), 'cuda:N'"),
        ("cuda:", ValueError, "got 'cuda:'"),
        ("cuda:-1", ValueError, "got 'cuda:-1'"),
        ("cuda:0,cuda:1", ValueError, "got 'cuda:0,cuda:1'"),
        ("mps", ValueError, "got 'mps'"),
        (["cuda:0", "cpu"], ValueError, "got 'cpu'"),
        ([], ValueError, "got an empty sequence"),
        (0, TypeError, "a torch.device, or a sequence of these, got 0"),
        (None, TypeError, "got None"),
        ([0, 1], TypeError, "got [0, 1]"),
    ],
)
@pytest.mark.usefixtures("no_work")
def test_what_is_no_device(tanh_edge, device, error, message):
    with pytest.raises(error) as caught:
        igb.simulate(tanh_edge, **RUN, device=device)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("device", "numbers"),
    [
        ("cuda", [1]),  # which the caller has chosen in PyTorch
        ("cuda:0", [0]),
        ("cuda:2", [2]),
        ("cuda:all", [0, 1, 2]),
        (["cuda:2", "cuda:0"], [2, 0]),
        (("cuda",), [1]),
        (TorchDevice(), [2]),
    ],
)
def test_devices(machine, device, numbers):
    machine(Kernels(H100, A100, H100), torch_of(current=1))
    found = _device.find(device)
    assert [(one.torch.type, one.index) for one in found] == [("cuda", number) for number in numbers]
    assert [one.name for one in found] == [[H100, A100, H100][number][0] for number in numbers]


def test_names_of_devices(machine):
    machine(Kernels(H100, A100, H100), torch_of())
    assert _device.named(_device.find("cuda:all")) == "2 x NVIDIA H100, NVIDIA A100"
    assert _device.named(_device.find("cuda:1")) == "NVIDIA A100"


@pytest.mark.parametrize("device", ["cuda:3", ["cuda:0", "cuda:3"]])
def test_a_number_that_is_not_there(machine, device):
    machine(Kernels(H100, H100, H100), torch_of())
    with pytest.raises(ValueError, match=r"a GPU that this process sees, cuda:0 to cuda:2, got 'cuda:3'"):
        _device.find(device)


def test_a_number_that_is_not_visible(machine, monkeypatch):
    machine(Kernels(H100), torch_of())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    with pytest.raises(ValueError, match=r"sees, only cuda:0 \(CUDA_VISIBLE_DEVICES is '5'\), got 'cuda:5'"):
        _device.find("cuda:5")


@pytest.mark.parametrize("device", [["cuda:0", "cuda:0"], ["cuda", "cuda:1"], ["cuda:all", "cuda:0"]])
def test_a_device_twice(machine, device):
    machine(Kernels(H100, H100), torch_of(current=1))
    with pytest.raises(ValueError, match="device must name each GPU once"):
        _device.find(device)


# ---- What is missing -------------------------------------------------------------------------------------------------

INSUFFICIENT = {"problem": "cudaErrorInsufficientDriver", "explanation": "driver version is insufficient"}

MISSING = {  # in the order in which they are found
    "built without CUDA": (
        None,
        None,
        "igbfast was built without CUDA",
        "pip install --force-reinstall . -C cmake.define.IGBFAST_CUDA=ON",
    ),
    "no driver": (
        Kernels(driver=0, **INSUFFICIENT),
        None,
        "there is no NVIDIA driver: libcuda.so.1",
        "built with CUDA 13.0: install a driver that serves it",
    ),
    "old driver": (
        Kernels(driver=12040, **INSUFFICIENT),
        None,
        "the NVIDIA driver is too old: it serves CUDA up to 12.4, and igbfast was built with CUDA 13.0",
        "Update the driver, or reinstall igbfast with an nvcc of CUDA 12",
    ),
    "no GPU": (
        Kernels(problem="cudaErrorNoDevice", explanation="no device"),
        None,
        "the NVIDIA driver shows no GPU to this process",
        "nvidia-smi -L",
    ),
    "a GPU that does not work": (
        Kernels(problem="cudaErrorSystemNotReady", explanation="system not yet initialized"),
        None,
        "does not let this process use a GPU: cudaErrorSystemNotReady, system not yet initialized",
        "nvidia-smi",
    ),
    "old GPU": (
        Kernels(V100),
        None,
        "cuda:0, Tesla V100, is too old: its compute capability is 7.0, and igbfast was built for 8.0 and newer",
        "choose another GPU, or device='cpu'",
    ),
    "no PyTorch": (Kernels(H100), None, "PyTorch is missing", "install a build for CUDA 13.0 or older"),
    "PyTorch of the CPU": (
        Kernels(H100),
        torch_of(cuda=None, available=False),
        "the installed PyTorch, 2.13.0, was built without CUDA",
        "install a build for CUDA 13.0 or older",
    ),
    "PyTorch for a newer driver": (
        Kernels(H100),
        torch_of(cuda="14.1", available=False),
        "PyTorch, 2.13.0, was built for CUDA 14.1 and finds no GPU, though igbfast does, with a driver that serves",
        "update the driver, or install a build of PyTorch for CUDA 13.0 or older",
    ),
    "PyTorch for other GPUs": (
        Kernels(H100),
        torch_of(architectures=("sm_80", "sm_100", "compute_100")),
        "was not built for cuda:0, NVIDIA H100, of compute capability 9.0, but for sm_80, sm_100, compute_100",
        "install another build",
    ),
}


@pytest.mark.parametrize("case", MISSING)
@pytest.mark.usefixtures("no_work")
def test_what_is_missing(machine, tanh_edge, case):
    kernels, torch, what, advice = MISSING[case]
    machine(kernels, torch)
    with pytest.raises(RuntimeError) as caught:
        igb.simulate(tanh_edge, **RUN, device="cuda")
    assert what in str(caught.value)
    assert advice in str(caught.value)


@pytest.mark.usefixtures("no_work")
def test_the_command_line_says_it_in_one_line(machine):
    kernels, torch, what, _ = MISSING["old driver"]
    machine(kernels, torch)
    for verb in ("simulate", "validate"):
        result = CliRunner().invoke(cli.app, [verb, "tanh", "--sigma-w2", "1.5", "--device", "cuda:all"])
        assert result.exit_code == 2
        assert what in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_hidden_gpus_are_named(machine, monkeypatch):
    machine(MISSING["no GPU"][0], None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(RuntimeError, match=r"no GPU to this process \(CUDA_VISIBLE_DEVICES is ''\)"):
        _device.find("cuda")


def test_only_the_gpus_asked_for_must_be_new_enough(machine):
    machine(Kernels(V100, H100), torch_of())
    assert _device.find("cuda:1")[0].name == "NVIDIA H100"
    for device in ("cuda", "cuda:all", ["cuda:1", "cuda:0"]):
        with pytest.raises(RuntimeError, match="cuda:0, Tesla V100, is too old"):
            _device.find(device)


@pytest.mark.parametrize("architectures", [["sm_86"], ["sm_80"], ["compute_75"], ["sm_50", "compute_86"]])
def test_pytorch_of_the_same_generation_will_do(machine, architectures):
    machine(Kernels(("NVIDIA RTX A5000", 86)), torch_of(architectures=architectures))
    assert len(_device.find("cuda")) == 1


def test_a_newer_build_of_the_same_generation_will_not(machine):
    machine(Kernels(A100), torch_of(architectures=["sm_75", "sm_86", "sm_90a", "compute_90"]))
    with pytest.raises(RuntimeError, match="was not built for cuda:0, NVIDIA A100"):
        _device.find("cuda")


# ---- products --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_work")
def test_products_are_for_gpus_and_float32(machine, tanh_edge):
    with pytest.raises(ValueError, match="products must be one of 'full', 'tf32', 'bfloat16', got 'half'"):
        igb.simulate(tanh_edge, **RUN, products="half")
    with pytest.raises(
        ValueError, match="products must be 'full' for device='cpu', which has no tensor cores, got 'tf32'"
    ):
        igb.simulate(tanh_edge, **RUN, products="tf32")
    machine(Kernels(H100), torch_of())
    with pytest.raises(ValueError, match="products must be 'full' for dtype='float64', got 'bfloat16'"):
        igb.simulate(tanh_edge, **RUN, products="bfloat16", dtype="float64", device="cuda")
    with pytest.raises(ValueError, match="products must be 'full' for device='cpu'"):
        igb.validate(tanh_edge, products="tf32")


# ---- info ------------------------------------------------------------------------------------------------------------


def test_info_of_a_machine_with_gpus(machine):
    machine(Kernels(H100, V100), torch_of())
    found = igb.show_config("dicts")
    assert found["CUDA built"] == "13.0, for compute capability 8.0, 9.0, 10.0"
    assert found["CUDA driver"] == "serves CUDA 13.0"
    assert found["GPUs"][0] == "cuda:0: NVIDIA H100, compute capability 9.0, 3 GiB of 4 GiB free"
    assert "cuda:1, Tesla V100, is too old" in found["device='cuda'"]
    machine(Kernels(H100), torch_of())
    assert "device='cuda'" not in igb.show_config("dicts")


def test_info_says_what_is_missing(machine):
    machine(None, None)
    found = igb.show_config("dicts")
    assert found["CUDA built"] is False
    assert not {"CUDA driver", "GPUs", "device='cuda'"} & set(found)
    kernels, torch, what, _ = MISSING["no driver"]
    machine(kernels, torch)
    found = igb.show_config("dicts")
    assert found["CUDA driver"] == "none"
    assert what in found["device='cuda'"]
    output = CliRunner().invoke(cli.app, ["info"]).stdout
    assert "there is no NVIDIA driver" in output
    kernels, torch, what, _ = MISSING["PyTorch of the CPU"]
    machine(kernels, torch)
    found = igb.show_config("dicts")
    assert len(found["GPUs"]) == 1
    assert what in found["device='cuda'"]


# ---- The real module -------------------------------------------------------------------------------------------------

CHILD = """
import importlib.util, sys
import igbfast as igb
path = sys.argv[1]
if path:
    spec = importlib.util.spec_from_file_location("igbfast._cuda", path)
    sys.modules["igbfast._cuda"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
try:
    igb.simulate(igb.Ensemble("tanh", 1.5), width=20, depth=2, inputs=5, device="cuda")
except RuntimeError as error:
    print(error)
print(igb.simulate(igb.Ensemble("tanh", 1.5), width=20, depth=2, inputs=5).attrs["method"])
"""


@pytest.fixture(scope="module")
def cuda_module():
    """Path of _cuda as nvcc built it; empty where igbfast has it within."""
    folder = os.environ.get("IGBFAST_CUDA_MODULE")
    if folder:
        (path,) = Path(folder).glob("_cuda.*so")
        return str(path)
    if importlib.util.find_spec("igbfast._cuda") is not None:
        return ""
    return pytest.skip("igbfast was built without CUDA, and IGBFAST_CUDA_MODULE names no folder with _cuda")


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """Builds a folder with a libcuda.so.1 from C."""
    compiler = shutil.which("cc") or pytest.skip("no C compiler")

    def build(source):
        folder = tmp_path_factory.mktemp("driver")
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", folder / "libcuda.so.1", "-x", "c", "-"],
            input=source,
            text=True,
            check=True,
        )
        return str(folder)

    return build


def told(cuda_module, folder, **variables):
    """What a process says that finds this driver; it goes on to run on the CPU."""
    environment = {**os.environ, "LD_LIBRARY_PATH": folder, "OMP_NUM_THREADS": "1", **variables}
    child = subprocess.run(
        [sys.executable, "-c", CHILD, cuda_module], env=environment, capture_output=True, text=True, timeout=120
    )
    assert child.returncode == 0, child.stderr
    error, method = child.stdout.splitlines()
    assert method in ("gram", "direct")
    return error


def fake():
    return (Path(__file__).parent / "cuda/fake_driver/libcuda.c").read_text()


def test_without_a_driver(cuda_module, tmp_path):
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        error = told(cuda_module, str(tmp_path))
        assert "there is no NVIDIA driver: libcuda.so.1" in error
        assert "igbfast was built with CUDA 1" in error
    else:
        pytest.skip("this machine has a driver")


def test_with_a_driver_that_does_not_answer(cuda_module, driver):
    assert "there is no NVIDIA driver: libcuda.so.1" in told(cuda_module, driver("int nothing;"))


@pytest.mark.parametrize("version", ["11000", "12040"])
def test_with_an_old_driver(cuda_module, driver, version):
    error = told(cuda_module, driver(fake()), FAKE_DRIVER_VERSION=version)
    expected = (
        f"the NVIDIA driver is too old: it serves CUDA up to {version[:2]}.{version[3]}, and igbfast was built with"
    )
    assert expected in error
    assert f"an nvcc of CUDA {version[:2]}" in error


def test_with_a_driver_that_sees_no_gpu(cuda_module, driver):
    error = told(
        cuda_module, driver(fake()), FAKE_DRIVER_VERSION="99000", FAKE_DRIVER_INIT="100", CUDA_VISIBLE_DEVICES="7"
    )
    assert "the NVIDIA driver shows no GPU to this process (CUDA_VISIBLE_DEVICES is '7')" in error
