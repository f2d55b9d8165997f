"""What all tests share: the two flagship ensembles, figures without a screen, plain text from the command line."""

import os
import signal
from pathlib import Path
from typing import Any

collect_ignore = ["conftest.py"]  # has no examples; the one of docs/ has the same name

os.environ.setdefault("MPLBACKEND", "Agg")

import pytest

import igbfast as igb


@pytest.fixture
def tanh_edge() -> igb.Ensemble:
    """tanh at its edge of chaos."""
    return igb.Ensemble("tanh", sigma_w2=1.76, sigma_b2=0.05)


@pytest.fixture
def relu_critical() -> igb.Ensemble:
    return igb.Ensemble("relu", sigma_w2=2.0)


@pytest.fixture(scope="session")
def host_device() -> Any:
    """What device="cuda" runs without a GPU: its kernels compiled for the host, and memory of the host.

    With IGBFAST_TEST_DEVICE=cuda in the environment it is the GPU.
    """
    torch = pytest.importorskip("torch")
    from igbfast.gpu import _device

    if os.environ.get("IGBFAST_TEST_DEVICE") == "cuda":
        return _device.find("cuda")[0]
    return _device.Device(torch.device("cpu"), compiled_for_the_host())


@pytest.fixture
def on_host(monkeypatch: pytest.MonkeyPatch, host_device: Any) -> Any:
    """device="cuda" is the host."""
    from igbfast.gpu import _device

    monkeypatch.setattr(_device, "find", lambda device: [host_device])
    return host_device


def compiled_for_the_host() -> Any:
    """The module _cuda_host; `make test` builds it, and IGBFAST_HOST_KERNELS names the folder that holds it."""
    from bench.gpu_check import kernels_for_the_host

    folder = Path(os.environ.get("IGBFAST_HOST_KERNELS", Path(__file__).parents[1] / "build/host-kernels/tests/cuda"))
    kernels = kernels_for_the_host(folder)
    if kernels is None:
        pytest.skip(f"no kernels compiled for the host in {folder}: `make test` builds them")
    return kernels


@pytest.fixture(autouse=True)
def _plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal without colours and wide enough that no line is broken."""
    for name in ("FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "200")


# A shell that starts a job in the background has it ignore Ctrl-C, which several tests press.
signal.signal(signal.SIGINT, signal.default_int_handler)
