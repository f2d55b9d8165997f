"""The command line as a user meets it: results, files, one-line errors before any work, exit codes."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

import igbfast as igb
from igbfast import _core, cli, meanfield

SMALL = ["--width", "200", "--depth", "5", "--inputs", "20"]
TANH = ["tanh", "--sigma-w2", "1.76", "--sigma-b2", "0.05"]


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.fixture
def no_work(monkeypatch):
    """The compiled engine must not be reached."""

    def fail(*_, **__):
        raise AssertionError("work was begun")

    monkeypatch.setattr(_core, "simulate", fail)
    monkeypatch.setattr(cli, "phase_diagram", fail)
    monkeypatch.setattr(cli, "fixed_point", fail)


# --- validate


def test_validate_one_ensemble(tmp_path):
    result = run("validate", *TANH, *SMALL, "--output", tmp_path / "v.nc", "--figure", tmp_path / "v.png")
    assert result.exit_code == 0, result.output
    assert "tanh, sigma_w2 = 1.76, sigma_b2 = 0.05: theory against simulation" in result.stdout
    assert "Passed: theory and simulation agree in all 5 layers" in result.stdout
    assert f"Saved {tmp_path / 'v.nc'}" in result.stdout
    assert result.stderr == ""
    expected = igb.validate(igb.Ensemble("tanh", 1.76, 0.05), width=200, depth=5, inputs=20).dataset
    xr.testing.assert_identical(xr.load_dataset(tmp_path / "v.nc", engine="h5netcdf"), expected)
    assert (tmp_path / "v.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v.nc", "v.png"]


def test_validate_alone_runs_both_flagships(tmp_path):
    result = run("validate", *SMALL, "--output", tmp_path / "v.nc", "--figure", tmp_path / "v.pdf", "--quiet")
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 2
    assert "Ensemble('tanh', sigma_w2=1.76, sigma_b2=0.05): Passed" in result.stdout
    assert "Ensemble('relu', sigma_w2=2.0, sigma_b2=0.0): Passed" in result.stdout
    ds = xr.load_dataset(tmp_path / "v.nc", engine="h5netcdf")
    assert ds["activation"].values.tolist() == ["tanh", "relu"]
    assert ds["sigma_w2"].values.tolist() == [1.76, 2.0]
    assert ds["verdict"].values.tolist() == ["passed", "passed"]
    assert ds["gamma"].dims == ("ensemble", "layer")
    assert ds.attrs["width"] == 200
    assert (tmp_path / "v.pdf").read_bytes().startswith(b"%PDF")


def test_validate_fails_with_exit_code_1(monkeypatch):
    right = meanfield.propagate
    monkeypatch.setattr(meanfield, "propagate", lambda ens, depth: right(ens, depth) * 1.5)
    result = run("validate", *TANH, *SMALL)
    assert result.exit_code == 1
    assert "Failed: simulation departs from theory" in result.stdout


def test_validate_with_few_networks_is_not_a_pass():
    result = run("validate", *TANH, *SMALL, "--networks", 4)
    assert result.exit_code == 1
    assert "No verdict: it takes at least 16 networks, got 4" in result.stdout


# --- phase

GRID = ["--sigma-w2", "0.5:3:12", "--sigma-b2", "0:0.5:8"]


def test_phase(tmp_path):
    result = run("phase", "tanh", *GRID, "--output", tmp_path / "p.nc", "--figure", tmp_path / "p.png")
    assert result.exit_code == 0, result.output
    assert "sigma_w2 from 0.50000 to 3.0000 (12 values) x sigma_b2 from 0 to 0.50000 (8 values)" in result.stdout
    for words in ("edge of chaos", "stable variance", "neutrality line", "ordered, persistent deep prejudice"):
        assert words in result.stdout
    expected = igb.phase_diagram("tanh", np.linspace(0.5, 3.0, 12), np.linspace(0.0, 0.5, 8))
    assert f"{float(expected.edge_of_chaos[-1]):.9f}" in result.stdout
    xr.testing.assert_identical(xr.load_dataset(tmp_path / "p.nc", engine="h5netcdf"), expected)
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_phase_of_pools_on_logarithmic_axes(tmp_path):
    ranges = ["--sigma-w2", "0.1:10:6:log", "--sigma-b2", "0.01:1:4:log"]
    output = ["--output", tmp_path / "p.nc", "--figure", tmp_path / "p.pdf", "--heat", "xi_c"]
    result = run("phase", "relu", *ranges, "--pool", "max:2", *output)
    assert result.exit_code == 0, result.output
    assert "relu, MaxPool(2): phase diagram" in result.stdout
    assert "1.333333333" in result.stdout
    assert "1.099922524" in result.stdout
    found = xr.load_dataset(tmp_path / "p.nc", engine="h5netcdf")
    np.testing.assert_array_equal(found.sigma_w2, np.geomspace(0.1, 10.0, 6))
    assert found.attrs["pool"] == "MaxPool(2)"


def test_phase_of_residual_networks_says_that_there_are_no_lines():
    result = run("phase", "tanh", "--residual", 0.1, "--sigma-w2", "1:2:3", "--sigma-b2", "0:1:2")
    assert "No edge of chaos and no neutrality line." in result.stdout
    assert "100.0 %  neither ordered nor chaotic" in result.stdout


def test_phase_of_layernorm():
    """chi = 1 at sigma_b2 = sigma_w2 (E[phi'^2] - E[phi^2]) at variance 1."""
    result = run("phase", "tanh", "--layernorm", "--sigma-w2", "1:2:3", "--sigma-b2", "0.1:1:2")
    gain = igb.moments("tanh", 1.0, derivative=1) - igb.moments("tanh", 1.0)
    assert f"{0.1 / gain:.9f}" in result.stdout


def test_phase_of_one_point():
    result = run("phase", "tanh", "--sigma-w2", 2.5, "--sigma-b2", 0.05, "--pool", "avg:1")
    assert result.exit_code == 0, result.output
    assert "tanh, sigma_w2 = 2.5, sigma_b2 = 0.05: limit of infinite depth" in result.stdout
    assert str(igb.fixed_point(igb.Ensemble("tanh", 2.5, 0.05))) in result.stdout


def test_phase_of_one_point_lists_all_fixed_points():
    ens = igb.Ensemble("gelu", 2.05, 0.05)
    assert len(igb.fixed_point(ens).all_q) > 1
    result = run("phase", "gelu", "--sigma-w2", 2.05, "--sigma-b2", 0.05)
    assert result.stdout.count("stable") == 2
    assert "(unstable)" in result.stdout


def test_quiet_phase_prints_nothing(tmp_path):
    result = run("phase", "tanh", "--sigma-w2", 2, "--sigma-b2", 0.1, "-q", "--output", tmp_path / "p.nc")
    assert (result.exit_code, result.output) == (0, "")
    assert xr.load_dataset(tmp_path / "p.nc", engine="h5netcdf")["q"].shape == (1, 1)


# --- simulate and info


def test_simulate(tmp_path):
    result = run("simulate", *TANH, *SMALL, "--networks", 3, "--seed", 7, "--per-node", "--output", tmp_path / "s.nc")
    assert result.exit_code == 0, result.output
    assert "3 networks of width 200, depth 5, 20 inputs (gram, float32)" in result.stdout
    assert "one standard error over independent networks" in result.stdout
    ens = igb.Ensemble("tanh", 1.76, 0.05)
    expected = igb.simulate(ens, width=200, depth=5, inputs=20, networks=3, seed=7, per_node=True)
    xr.testing.assert_identical(xr.load_dataset(tmp_path / "s.nc", engine="h5netcdf"), expected)


def test_simulate_one_network_says_what_its_error_covers():
    result = run("simulate", *TANH, *SMALL)
    assert "1 network of width 200" in result.stdout
    assert "one standard error over the nodes of this one network alone" in result.stdout


def test_quiet_simulate_prints_nothing(tmp_path):
    result = run("simulate", *TANH, *SMALL, "-q", "--output", tmp_path / "s.nc")
    assert (result.exit_code, result.output) == (0, "")
    assert (tmp_path / "s.nc").exists()


def test_options_reach_the_engine(tmp_path):
    options = ["--method", "direct", "--dtype", "float64", "--threads", "1", "--output", tmp_path / "s.nc"]
    before = igb.get_num_threads()
    try:
        assert run("simulate", "leaky_relu(0.2)", "--sigma-w2", 1.9, *SMALL, *options).exit_code == 0
        assert igb.get_num_threads() == 1
    finally:
        igb.set_num_threads(before)
    attrs = xr.load_dataset(tmp_path / "s.nc", engine="h5netcdf").attrs
    assert (attrs["activation"], attrs["method"], attrs["dtype"]) == ("leaky_relu(0.2)", "direct", "float64")


def test_lost_digits_are_one_line_on_the_error_stream():
    result = run("simulate", "linear", "--sigma-w2", "1e120", *SMALL, "--dtype", "float64")
    assert result.exit_code == 0
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("Warning: ")
    assert "overflowed or lost all digits in layers 3 to 5 of 5" in result.stderr


def test_info():
    result = run("info")
    assert result.exit_code == 0
    for word in ("igbfast", igb.__version__, "compiler", "instruction set", "BLAS", "threads", "CUDA built"):
        assert word in result.stdout


def test_version():
    assert run("--version").stdout.strip() == f"igbfast {igb.__version__}"


# --- help


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_names_the_verbs(arguments):
    result = run(*arguments)
    output = result.output
    assert result.exit_code == 0
    assert all(
        verb in output for verb in ("validate", "phase", "simulate", "train", "experiment", "info", "igbfast validate")
    )
    assert "Error" not in output


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("validate", ["--sigma-w2", "--figure", "--output", "--quiet", "10000", "Exit code", "igbfast validate erf"]),
        ("phase", ["FROM:TO:COUNT", "--pool", "--heat", "--residual", "--layernorm", "softplus", "igbfast phase relu"]),
        ("simulate", ["--sigma-b2", "--per-node", "--threads", "igbfast simulate relu"]),
        ("train", ["SPEC.toml", "--resume", "--check", "--example", "Exit code"]),
        ("experiment", ["--set", "--paper", "--options", "--figure", "igbfast experiment training"]),
        ("info", ["instruction set"]),
    ],
)
def test_help_of_each_verb(verb, words):
    result = run(verb, "--help")
    assert result.exit_code == 0
    for word in words:
        assert word in result.output


# --- bad usage: one line, exit code 2, no work, no files


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["validate", "tahn", "--sigma-w2", "1"],
            "unknown activation 'tahn'; known are linear, relu, leaky_relu, abs",
        ),
        (["validate", "tanh"], "validate tanh needs --sigma-w2"),
        (["validate", "--sigma-w2", "1"], "--sigma-w2 and --sigma-b2 need an activation"),
        (["validate", "tanh", "--sigma-w2", "-1"], "sigma_w2 must be a positive finite number, got -1.0"),
        (["simulate", "tanh", "--sigma-w2", "nan"], "sigma_w2 must be a positive finite number, got nan"),
        (["simulate", "tanh", "--sigma-w2", "1", "--sigma-b2", "-1"], "sigma_b2 must be a non-negative finite number"),
        (["simulate", "tanh"], "--sigma-w2"),
        (["simulate", *TANH, "--width", "0"], "width must be an integer from 1 to 2147483648, got 0"),
        (["simulate", *TANH, "--width", "wide"], "--width"),
        (["simulate", *TANH, "--inputs", "1"], "inputs must be an integer from 2 to 2147483648, got 1"),
        (["simulate", *TANH, "--inputs", "10000000", "--method", "gram"], "GiB of memory, but"),
        (["simulate", *TANH, "--method", "grm"], "did you mean 'gram'?"),
        (["simulate", *TANH, "--threads", "0"], "threads must be an integer from 1 to 4096, got 0"),
        (["validate", "--networks", "1"], "networks must be an integer from 2"),
        (["validate", "--dtype", "float16"], "dtype must be one of 'float32', 'float64', got 'float16'"),
        (["validate", "--wdith", "3"], "--wdith"),
        (["phase", "tahn"], "unknown activation 'tahn'"),
        (["phase", "tanh", "--sigma-w2", "1:2"], "--sigma-w2 must be a number or a range FROM:TO:COUNT such as 0.1:4"),
        (["phase", "tanh", "--sigma-w2", "a"], "--sigma-w2 must be a number or a range FROM:TO:COUNT"),
        (["phase", "tanh", "--sigma-w2", "nan"], "--sigma-w2 must be a number or a range FROM:TO:COUNT"),
        (["phase", "tanh", "--sigma-b2", "0:1:2.5"], "--sigma-b2 must be a number or a range FROM:TO:COUNT"),
        (["phase", "tanh", "--sigma-b2", "0:1:5:lin"], "--sigma-b2 must be a number or a range FROM:TO:COUNT"),
        (["phase", "tanh", "--sigma-b2", "1:0:5"], "--sigma-b2 must rise from FROM to TO in 2 to 10000 values, got"),
        (["phase", "tanh", "--sigma-b2", "0:1:1"], "--sigma-b2 must rise from FROM to TO in 2 to 10000 values, got"),
        (["phase", "tanh", "--sigma-b2", "0:1:5:log"], "--sigma-b2 must begin above zero on a logarithmic axis"),
        (["phase", "tanh", "--sigma-w2", "0:4:20"], "sigma_w2 must be a positive finite number, got 0.0"),
        (["phase", "tanh", "--sigma-b2", "-1"], "sigma_b2 must be a non-negative finite number, got -1.0"),
        (["phase", "tanh", "--pool", "max"], "--pool must be max:K, min:K or avg:K with a number K of nodes"),
        (["phase", "tanh", "--pool", "mx:2"], "--pool must be max:K, min:K or avg:K with a number K of nodes"),
        (["phase", "tanh", "--pool", "max:0"], "the size of MaxPool must be an integer from 1"),
        (["phase", "tanh", "--residual", "-1"], "residual must be a positive finite number, got -1.0"),
        (["phase", "tanh", "--heat", "gamma"], "--heat needs --figure"),
        (["phase", "tanh", "--heat", "gama", "--figure", "f.png"], "did you mean 'gamma'?"),
        (["phase", "tanh", "--figure", "f.jpg"], "--figure must end in .png or .pdf"),
        (
            ["phase", "tanh", "--sigma-w2", "1", "--figure", "f.png"],
            "--figure needs ranges of --sigma-w2 and --sigma-b2",
        ),
        (["valdate"], "valdate"),
    ],
)
def test_bad_usage(arguments, message):
    result = run(*arguments)
    assert result.exit_code == cli.BAD_USAGE, result.output
    assert message in result.stderr
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("option", "path", "message"),
    [
        ("--output", "none/v.nc", "--output cannot be written: there is no folder"),
        ("--output", "v.csv", "--output must end in .nc, got"),
        ("--output", "file.nc/v.nc", "--output cannot be written: there is no folder"),
        ("--output", ".", "is a folder"),
        ("--figure", "none/f.png", "--figure cannot be written: there is no folder"),
        ("--figure", "f.jpg", "--figure must end in .png or .pdf, got"),
        ("--figure", "folder.png", "is a folder"),
        pytest.param(
            "--output",
            "/proc/v.nc",
            "--output cannot be written: '/proc/v.nc'",
            marks=pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's"),
        ),
    ],
)
def test_a_path_that_cannot_be_written_is_said_before_the_work(tmp_path, monkeypatch, option, path, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.nc").touch()
    (tmp_path / "folder.png").mkdir()
    before = sorted(tmp_path.rglob("*"))
    result = run("validate", *SMALL, option, path)
    assert result.exit_code == cli.BAD_USAGE, result.output
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("no_work")
def test_a_file_or_folder_without_permission(tmp_path, monkeypatch):
    """Root may write anywhere, so the system's refusal is acted."""

    def refuse(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "v.nc").write_text("earlier")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "v.nc' is read-only" in run("validate", "--output", tmp_path / "v.nc").stderr
    monkeypatch.setattr(Path, "touch", refuse)
    assert "w.nc': Permission denied" in run("validate", "--output", tmp_path / "w.nc").stderr
    assert [path.read_text() for path in tmp_path.iterdir()] == ["earlier"]


@pytest.mark.usefixtures("no_work")
def test_a_figure_without_matplotlib_is_said_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run("validate", "--figure", tmp_path / "f.png")
    assert result.exit_code == cli.BAD_USAGE
    assert "figures need matplotlib, which is not installed: pip install 'igbfast[plot]'" in result.stderr


# --- as a process of its own


def start(*arguments, **options):
    command = [sys.executable, "-m", "igbfast.cli", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def limit_file_size():
    """As on a full disk: no file may grow beyond 4 KiB, and writing more is an error rather than a signal."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


@pytest.mark.parametrize(("option", "name"), [("--output", "v.nc"), ("--figure", "f.png")])
def test_a_full_disk_leaves_nothing_half_written(tmp_path, option, name):
    process = start("validate", *TANH, *SMALL, option, tmp_path / name, preexec_fn=limit_file_size)
    _, error = process.communicate()
    assert process.returncode == cli.NOT_SAVED, error
    assert error.splitlines()[-1].startswith(f"Error: could not write '{tmp_path / name}': ")
    assert error.splitlines()[-1].endswith("nothing was left behind")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_is_one_line_and_exit_code_130(tmp_path):
    process = start("simulate", *TANH, "--width", 100_000, "--depth", 10_000, "--output", tmp_path / "s.nc")
    time.sleep(4.0)  # long enough to have begun, far too short to have ended
    process.send_signal(signal.SIGINT)
    output, error = process.communicate()
    assert process.returncode == cli.INTERRUPTED
    assert (output, error) == ("", "Error: stopped by Ctrl-C, nothing was saved\n")
    assert list(tmp_path.iterdir()) == []


def test_no_progress_bar_in_a_pipe():
    process = start("simulate", *TANH, "--width", 20_000, "--depth", 100)
    output, error = process.communicate()
    assert error == ""
    assert "\x1b" not in output
    assert np.all([len(line) <= 200 for line in output.splitlines()])


def test_a_reader_that_goes_away_is_no_error():
    with start("info") as process:
        process.stdout.close()
        assert process.stderr.read() == ""
