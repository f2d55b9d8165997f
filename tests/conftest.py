"""What all tests share: the two flagship ensembles, figures without a screen, plain text from the command line."""

import os
import signal

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
