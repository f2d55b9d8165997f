"""Same seed, same result: any number of threads to the last bit; any tile, chunk and instruction set to rounding."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest

from igbfast import _core

COMMON = {
    "activation": "tanh", "parameter": 0.0, "sigma_w2": 1.76, "sigma_b2": 0.05, "width": 700, "depth": 6,
    "inputs": 40, "networks": 3, "seed": 5,
}  # fmt: skip


@pytest.fixture
def threads():
    before = _core.get_num_threads()
    yield _core.set_num_threads
    _core.set_num_threads(before)


@pytest.fixture
def isa():
    before = _core.config()["isa"]
    yield _core.set_isa
    _core.set_isa(before)


def assert_same(one, other, rtol=0.0):
    assert one.keys() == other.keys()
    for name in one:
        if rtol:
            np.testing.assert_allclose(one[name], other[name], rtol=rtol, err_msg=name)
        else:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.mark.parametrize("method", ["direct", "gram"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_any_number_of_threads_to_the_last_bit(method, dtype, threads):
    runs = []
    for n in (1, 2, 5):
        threads(n)
        runs.append(_core.simulate(method=method, dtype=dtype, per_node=True, tile=64, **COMMON))
    assert_same(runs[0], runs[1])
    assert_same(runs[0], runs[2])


@pytest.mark.parametrize("method", ["direct", "gram"])
def test_networks_do_not_depend_on_their_company(method):
    together = _core.simulate(method=method, dtype="float32", **COMMON)
    for network in range(3):
        alone = _core.simulate(method=method, dtype="float32", **{**COMMON, "networks": 1, "first_network": network})
        for name in alone:
            np.testing.assert_array_equal(alone[name][0], together[name][network])


@pytest.mark.parametrize("method", ["direct", "gram"])
@pytest.mark.parametrize("dtype, rtol", [("float32", 2e-4), ("float64", 1e-11)])
def test_any_tile_to_rounding(method, dtype, rtol):
    runs = [_core.simulate(method=method, dtype=dtype, tile=tile, **COMMON) for tile in (0, 64, 192, 1024)]
    for run in runs[1:]:
        assert_same(runs[0], run, rtol)


@pytest.mark.parametrize("method", ["direct", "gram"])
@pytest.mark.parametrize("dtype, rtol", [("float32", 2e-4), ("float64", 1e-11)])
def test_any_instruction_set_to_rounding(method, dtype, rtol, isa):
    runs = []
    for name in _core.config()["isas"]:
        isa(name)
        runs.append(_core.simulate(method=method, dtype=dtype, **COMMON))
    for run in runs[1:]:
        assert_same(runs[0], run, rtol)


def test_any_chunk_of_inputs_to_rounding():
    whole = _core.simulate(method="direct", dtype="float64", per_node=True, **COMMON)
    for chunk in (1, 7, 13, 39):
        parts = _core.simulate(method="direct", dtype="float64", per_node=True, chunk=chunk, **COMMON)
        for name in ("sigma_mu2", "sigma_y2", "gamma", "q", "chi", "mu", "var", "sigma_mu2_se", "gamma_se", "chi_se"):
            np.testing.assert_allclose(parts[name], whole[name], rtol=1e-9, err_msg=f"{name}, chunks of {chunk}")
        # c is averaged over the pairs within a chunk (with the first input in each): fewer pairs, the same mean.
        np.testing.assert_allclose(parts["c"], whole["c"], atol=0.1)


@pytest.mark.parametrize("method", ["direct", "gram"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_duplicate_inputs_stay_duplicates(method, dtype):
    rng = np.random.default_rng(0)
    distinct = rng.normal(size=(3, 30))
    given = distinct[[0, 1, 1, 0, 2, 2]].astype(dtype)
    settings = {**COMMON, "networks": 2, "inputs": given, "method": method, "dtype": dtype}
    got = _core.simulate(**settings)
    assert all(np.isfinite(values).all() for values in got.values())
    same = _core.simulate(**{**settings, "inputs": np.repeat(distinct[:1], 4, axis=0).astype(dtype)})
    np.testing.assert_array_equal(same["sigma_y2"], 0.0)
    assert np.isfinite(same["q"]).all()


def test_more_inputs_than_nodes():
    got = _core.simulate(method="gram", dtype="float64", **{**COMMON, "width": 5, "inputs": 60, "networks": 1})
    assert np.isfinite(got["sigma_mu2"]).all()


@pytest.mark.parametrize("method", ["direct", "gram"])
def test_an_exception_in_the_callback_stops_the_run(method):
    def fail(fraction):
        assert 0.0 <= fraction < 1.0
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        _core.simulate(method=method, callback=fail, **{**COMMON, "width": 20_000, "networks": 50})


@pytest.mark.skipif(os.name != "posix", reason="sends itself a signal")
def test_ctrl_c_stops_the_run():
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        # Hours of work, were it not stopped.
        _core.simulate(method="direct", **{**COMMON, "width": 50_000, "depth": 1000})
    timer.join()


def test_threads_may_call_at_once():
    alone = [_core.simulate(method="gram", dtype="float32", **{**COMMON, "seed": seed}) for seed in range(4)]
    together: list = [None] * 4

    def run(seed):
        together[seed] = _core.simulate(method="gram", dtype="float32", **{**COMMON, "seed": seed})

    workers = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for one, other in zip(alone, together, strict=True):
        assert_same(one, other)
