"""Same seed, same result: any number of threads to the last bit; any tile, chunk and instruction set to rounding."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest
from network_reference import Reference

from igbfast import _core

COMMON = Reference(sigma_w2=1.76, sigma_b2=0.05, width=700, depth=6, inputs=40, seed=5, classes=4)
SMALL = COMMON.with_(width=198, depth=3, inputs=21)

FEATURES = {
    "plain": {},
    "gelu": {"activation": "gelu"},
    "max": {"pool": "max", "pool_size": 2},
    "average": {"pool": "average", "pool_size": 3},
    "norm, residual": {"layernorm": True, "residual": 0.3},
    "norm, min": {"layernorm": True, "pool": "min", "pool_size": 2},
    "orthogonal": {"weights": "orthogonal"},
    "orthogonal, average": {"weights": "orthogonal", "pool": "average", "pool_size": 2},
    "uniform": {"weights": "uniform"},
    "rademacher": {"weights": "rademacher"},
}
BOTH_ENGINES = [(method, f) for f in FEATURES for method in ("direct", "gram") if f not in ("uniform", "rademacher")]
WITH_LAWS = [*BOTH_ENGINES, ("direct", "uniform"), ("direct", "rademacher")]
LOSSES = {"none": {}, "readout": {"loss": "readout"}, "cross_entropy": {"loss": "cross_entropy"}}


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


def flat(run):
    """Arrays by name, those of histograms apart."""
    found = {}
    for name, values in run.items():
        found.update({f"{name}.{key}": v for key, v in values.items()} if isinstance(values, dict) else {name: values})
    return found


def assert_same(one, other, rtol=0.0):
    one, other = flat(one), flat(other)
    assert one.keys() == other.keys()
    for name in one:
        if rtol:
            assert_close(one, other, name, rtol)
        else:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def assert_close(one, other, name, rtol):
    """To rtol of the typical size over networks, inputs and nodes; what is small may be a difference."""
    if np.asarray(one[name]).dtype.kind in "ib":
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
        return
    typical = np.sqrt(np.mean(np.square(one[name]))) if name in ("mu", "var", "sigma_mu2", "gamma") else 0.0
    np.testing.assert_allclose(one[name], other[name], rtol=rtol, atol=rtol * typical, err_msg=name)


@pytest.mark.parametrize("method, features", WITH_LAWS)
@pytest.mark.parametrize("loss, dtype", [("none", "float64"), ("cross_entropy", "float32")])
def test_any_number_of_threads_to_the_last_bit(method, features, loss, dtype, threads):
    reference = SMALL.with_(method=method, dtype=dtype, loss=loss, **FEATURES[features])
    runs = []
    for n in (1, 2, 5):
        threads(n)
        runs.append(reference.simulate(networks=3, per_node=True, distributions=True, tile=64))
    assert_same(runs[0], runs[1])
    assert_same(runs[0], runs[2])


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("chunk", [0, 7])
def test_chunks_with_any_number_of_threads(loss, chunk, threads):
    reference = SMALL.with_(**LOSSES[loss], pool="average", pool_size=3, layernorm=True, dtype="float32")
    runs = []
    for n in (1, 2, 5):
        threads(n)
        runs.append(reference.simulate(networks=3, chunk=chunk, per_node=True, distributions=True))
    assert_same(runs[0], runs[1])
    assert_same(runs[0], runs[2])


@pytest.mark.parametrize("method, features", WITH_LAWS)
def test_networks_do_not_depend_on_their_company(method, features):
    reference = SMALL.with_(method=method, dtype="float32", loss="cross_entropy", **FEATURES[features])
    together = reference.simulate(networks=3)
    for network in range(3):
        alone = reference.with_(network=network).simulate()
        for name in alone:
            if name != "beyond_table":
                np.testing.assert_array_equal(np.asarray(alone[name])[0], np.asarray(together[name])[network])


@pytest.mark.parametrize("method, features", WITH_LAWS)
@pytest.mark.parametrize("dtype, rtol", [("float32", 3e-4), ("float64", 1e-10)])
def test_any_tile_to_rounding(method, features, dtype, rtol):
    reference = SMALL.with_(method=method, dtype=dtype, loss="readout", **FEATURES[features])
    runs = [reference.simulate(networks=3, tile=tile, per_node=True) for tile in (0, 64, 192)]
    for run in runs[1:]:
        assert_same(runs[0], run, rtol)


@pytest.mark.parametrize("method, features", WITH_LAWS)
@pytest.mark.parametrize("dtype, rtol", [("float32", 3e-4), ("float64", 1e-10)])
def test_any_instruction_set_to_rounding(method, features, dtype, rtol, isa):
    reference = SMALL.with_(method=method, dtype=dtype, loss="readout", **FEATURES[features])
    runs = []
    for name in _core.config()["isas"]:
        isa(name)
        runs.append(reference.simulate(networks=3))
    for run in runs[1:]:
        assert_same(runs[0], run, rtol)


# ---- Chunks and pieces of the inputs ----

GIVEN = np.random.default_rng(4).normal(size=(40, 90)) + 0.3
STREAMED = ("plain", "gelu", "max", "norm, residual", "orthogonal, average", "uniform")


@pytest.mark.parametrize("features", STREAMED)
@pytest.mark.parametrize(
    "loss, inputs, dtype, rtol",
    [("none", 40, "float64", 1e-10), ("none", GIVEN, "float32", 3e-4), ("cross_entropy", GIVEN, "float64", 1e-10)],
    ids=["drawn", "given", "gradients"],
)
def test_any_chunk_of_inputs_to_rounding(features, loss, inputs, dtype, rtol):
    reference = SMALL.with_(inputs=inputs, dtype=dtype, **LOSSES[loss], **FEATURES[features])
    whole = reference.simulate(networks=2, per_node=True, chunk=64)
    for chunk in (1, 13, 39):
        assert_same(whole, reference.simulate(networks=2, per_node=True, chunk=chunk), rtol)


def streamed(reference, sizes, labels=None, chunk=0, **others):
    """The run of the inputs in pieces of these sizes."""
    arguments = reference.arguments(per_node=True, chunk=chunk, features=reference.inputs.shape[1], **others)
    for name in ("method", "labels", "inputs"):
        del arguments[name]
    stream = _core.DirectStream(**arguments)
    begin = 0
    for size in sizes:
        piece = np.ascontiguousarray(reference.inputs[begin : begin + size], reference.dtype)
        stream.take(piece, labels=None if labels is None else labels[begin : begin + size])
        begin += size
    assert begin == len(reference.inputs)
    return stream.finish()


@pytest.mark.parametrize("features", STREAMED)
@pytest.mark.parametrize("loss, labelled", [("none", False), ("cross_entropy", False), ("cross_entropy", True)])
def test_any_pieces_of_inputs_to_rounding(features, loss, labelled):
    dtype, rtol = ("float32", 3e-4) if labelled else ("float64", 1e-10)
    labels = np.arange(40, dtype=np.int32) * 7 % 4 if labelled else None
    reference = SMALL.with_(inputs=GIVEN, dtype=dtype, labels=labels, **LOSSES[loss], **FEATURES[features])
    whole = reference.simulate(networks=2, per_node=True)
    for sizes in ([40], [1, 1, 38], [23, 16, 1]):
        assert_same(whole, streamed(reference, sizes, labels, networks=2), rtol)
    assert_same(whole, streamed(reference, [19, 1, 20], labels, chunk=6, networks=2), rtol)


def test_histograms_do_not_depend_on_pieces():
    reference = SMALL.with_(inputs=GIVEN)
    whole = reference.simulate(distributions=True, chunk=64)
    pieces = streamed(reference, [7, 13, 20], distributions=True)
    for name in ("mu_counts", "var_counts", "q_counts"):
        for key in ("layer", "bin", "count"):
            np.testing.assert_array_equal(whole[name][key], pieces[name][key], err_msg=f"{name} {key}")
    # The pairs of one chunk: fewer of them, of every layer.
    assert set(pieces["c_counts"]["layer"]) == set(range(reference.depth))
    assert pieces["c_counts"]["count"].sum() <= whole["c_counts"]["count"].sum()


# ---- Singular inputs ----


@pytest.mark.parametrize("method, features", WITH_LAWS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_duplicate_inputs_stay_duplicates(method, features, dtype):
    distinct = np.random.default_rng(0).normal(size=(3, 30))
    reference = SMALL.with_(method=method, dtype=dtype, loss="readout", **FEATURES[features])
    got = reference.with_(inputs=distinct[[0, 1, 1, 0, 2, 2]]).simulate(networks=2, per_node=True)
    assert all(np.isfinite(values).all() for values in got.values())
    rtol = 2e-4 if dtype == "float32" else 1e-9
    np.testing.assert_allclose(got["gradient"][..., [0, 1, 4]], got["gradient"][..., [3, 2, 5]], rtol=rtol)
    # Three inputs, each twice, scatter around each node's centre as much as the three do, but for the count.
    same = reference.with_(inputs=np.repeat(distinct[:1], 4, axis=0)).simulate(networks=2)
    np.testing.assert_array_equal(same["sigma_y2"], 0.0)
    assert np.isfinite(same["q"]).all()
    np.testing.assert_allclose(same["c"], 1.0, rtol=1e-6)


@pytest.mark.parametrize("features", ["plain", "average", "norm, residual", "orthogonal"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_more_inputs_than_nodes(features, loss, dtype):
    reference = COMMON.with_(method="gram", dtype=dtype, width=6, inputs=60, **LOSSES[loss], **FEATURES[features])
    got = reference.simulate(networks=5)
    assert all(np.isfinite(values).all() for values in got.values())


# ---- Interruptions and company ----


@pytest.mark.parametrize("method", ["direct", "gram"])
@pytest.mark.parametrize("loss", LOSSES)
def test_an_exception_in_the_callback_stops_the_run(method, loss):
    def fail(fraction):
        assert 0.0 <= fraction < 1.0
        raise RuntimeError("enough")

    reference = COMMON.with_(method=method, dtype="float32", width=20_000, **LOSSES[loss])
    with pytest.raises(RuntimeError, match="enough"):
        reference.simulate(callback=fail, networks=50)


@pytest.mark.parametrize("method", ["direct", "gram"])
@pytest.mark.parametrize("loss", ["none", "readout"])
def test_progress_runs_from_nothing_to_all(method, loss):
    fractions = []
    COMMON.with_(method=method, loss=loss, width=700).simulate(networks=20, callback=fractions.append)
    assert all(0 <= f <= 1 for f in fractions)
    assert fractions == sorted(fractions)


@pytest.mark.skipif(os.name != "posix", reason="sends itself a signal")
@pytest.mark.parametrize("method, weights", [("direct", "gaussian"), ("direct", "orthogonal"), ("gram", "gaussian")])
def test_ctrl_c_stops_the_run(method, weights):
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        # Hours of work, were it not stopped.
        COMMON.with_(method=method, weights=weights, dtype="float32", loss="readout").simulate(
            width=20_000, depth=1000, networks=100
        )
    timer.join()


@pytest.mark.parametrize("method", ["direct", "gram"])
def test_threads_may_call_at_once(method):
    references = [COMMON.with_(method=method, dtype="float32", loss="readout", seed=seed) for seed in range(4)]
    alone = [reference.simulate() for reference in references]
    together: list = [None] * 4

    def run(i):
        together[i] = references[i].simulate()

    workers = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for one, other in zip(alone, together, strict=True):
        assert_same(one, other)
