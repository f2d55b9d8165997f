"""What docs/gpu.md shows and bench/gpu_check.py does on a machine with a GPU, tried without one."""

import re
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import igbfast as igb
from bench import gpu_check, gpu_model

PAGE = Path(__file__).parent.parent / "docs/gpu.md"


def test_every_kernel_and_every_run_is_timed(on_host, capsys):
    rows = gpu_check.measure(on_host, gpu_check.SMALL, None)
    assert all(np.isfinite(row.seconds) and row.seconds > 0.0 for row in rows)
    assert all(row.floor is None or row.floor > 0.0 for row in rows)
    said = capsys.readouterr().out
    for name in (
        "gaussian weights, bfloat16",
        "rows drawn and transformed",
        "activation with slopes",
        "moments of gelu",
    ):
        assert name in said
    for name in ("PyTorch, 10 inputs", "simulate, gram, 10 inputs, networks=2"):
        assert name in said


def test_writes_what_it_measured(on_host, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "kernel_rows", lambda *_: iter([gpu_check.Row("one", 2.0, 1.0, "bandwidth")]))
    monkeypatch.setattr(gpu_check, "run_rows", lambda *_: iter(()))
    path = tmp_path / "results" / "check.json"
    gpu_check.measure(on_host, gpu_check.SMALL, path)
    assert '"what": "one"' in path.read_text()
    assert '"float64"' in path.read_text()


def test_without_a_gpu_it_says_so_and_that_is_no_error(monkeypatch, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.setattr("sys.argv", ["gpu_check", "--only", "time"])
    assert gpu_check.main() == 0
    assert "nothing to check here: " in capsys.readouterr().out


def test_the_page_holds_the_tables_of_the_model():
    made = gpu_model.tables(10_000, 100, gpu_model.H100)
    assert f"<!-- model -->\n\n{made}\n<!-- end of model -->" in PAGE.read_text()


def test_a_stage_is_bound_by_its_slowest_resource():
    stage = gpu_model.Stage("one", float32=2e12, instructions=1e9, bytes=1e12)
    rates = gpu_model.Rates("this", 1e12, 1e12, 1e12, 1e12, 1e-6, 1e-5)
    assert stage.bound(rates) == ("float32 products", 2.0)
    operations = sum(stage.float32 for stage in gpu_model.direct(1000, 50))
    assert operations == 2 * 1000 * 1000 * 50


def test_what_the_page_says_runs(on_host):
    """The lines of code, at sizes for a host."""
    code = re.findall(r"^    (?:from|ds|w) .*(?:\n    .*)*", PAGE.read_text(), flags=re.MULTILINE)
    text = "\n".join(re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in code)
    assert "simulate" in text
    assert "weights" in text
    for large, small in (("10_000", "50"), ("depth=100", "depth=2"), ("networks=64", "networks=2")):
        text = text.replace(large, small)
    found = {"igb": igb, "ens": igb.Ensemble("tanh", sigma_w2=1.76, sigma_b2=0.05)}
    exec(text, found)
    assert found["ds"].sizes["network"] == 2
    assert found["w"].shape == (50, 50)
    assert found["w"].dtype == torch.bfloat16
