"""What `import igbfast` brings and what it does not, and that the stub describes the compiled module."""

import ast
import importlib.metadata
import importlib.resources
import subprocess
import sys

import pytest

import igbfast as igb
from igbfast import _core

# Slow or optional: only what needs them may import them.
LAZY = ("matplotlib", "torch", "scipy.optimize", "scipy.special", "scipy.integrate", "rich", "typer", "h5netcdf")


def test_import_is_light():
    code = f"import sys, igbfast; print([m for m in {LAZY!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_plot_comes_without_matplotlib():
    code = (
        "import sys, igbfast as igb; first = 'igbfast.plot' in sys.modules; "
        "print(first, 'plot' in dir(igb), igb.plot.__name__, 'matplotlib' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False True igbfast.plot False"
    with pytest.raises(AttributeError, match="module 'igbfast' has no attribute 'plots'"):
        igb.plots  # noqa: B018


def test_public_names():
    promised = {
        *("Activation", "Ensemble", "FixedPoint", "Validation", "activations", "fixed_point", "get_num_threads"),
        *("moments", "network_mean", "propagate", "set_num_threads", "show_config", "simulate", "validate"),
        *("AvgPool", "MaxPool", "MinPool", "edge_of_chaos", "guessing", "kernel", "neutrality_line", "phase_diagram"),
    }
    assert promised <= set(igb.__all__)
    for name in igb.__all__:
        assert getattr(igb, name).__doc__, name


def test_version_is_the_installed_one():
    assert igb.__version__ == importlib.metadata.version("igbfast")


def test_is_typed():
    assert importlib.resources.files("igbfast").joinpath("py.typed").is_file()


def test_stub_describes_the_compiled_module():
    tree = ast.parse(importlib.resources.files("igbfast").joinpath("_core.pyi").read_text())
    defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    described = {name for name in defined if not name.startswith("_")}
    assert described == {name for name in dir(_core) if not name.startswith("_")}


def test_show_config(capsys):
    found = igb.show_config("dicts")
    assert igb.show_config() is None
    printed = capsys.readouterr().out
    for name in ("igbfast", "compiler", "instruction set", "BLAS", "OpenMP", "threads", "CUDA built"):
        assert name in found
        assert name in printed
    assert str(found["BLAS"]) in printed
    with pytest.raises(ValueError, match="mode must be one of 'stdout', 'dicts', got 'dict'; did you mean 'dicts'?"):
        igb.show_config("dict")


def test_threads():
    before = igb.get_num_threads()
    try:
        igb.set_num_threads(3)
        assert igb.get_num_threads() == igb.show_config("dicts")["threads"] == 3
        for bad, error in ((0, ValueError), (5000, ValueError), (1.0, TypeError), (True, TypeError)):
            with pytest.raises(error, match=f"n must be an integer from 1 to 4096, got {bad}"):
                igb.set_num_threads(bad)
        assert igb.get_num_threads() == 3
    finally:
        igb.set_num_threads(before)
