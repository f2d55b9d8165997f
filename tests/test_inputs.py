"""Inputs of simulate: arrays of any kind, in memory or on disk, and chunks from any iterable, with labels."""

import re

import numpy as np
import pytest
import xarray as xr

import igbfast as igb
from igbfast import _core, _inputs, _memory

LAYERS = {"width": 64, "depth": 2}
X = np.random.default_rng(0).standard_normal((10, 8))
DIRECT = {**LAYERS, "method": "direct", "dtype": "float64"}


class Tensor:
    """What a tensor looks like from outside: NumPy can read it, and it is iterable as well."""

    def __init__(self, values):
        self.values, self.dtype, self.shape = values, "tensor.dtype", values.shape

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)

    def __iter__(self):
        return (Tensor(row) for row in self.values)

    def __len__(self):
        return len(self.values)


class Loader:
    """A data loader: can be iterated again and again, and has no shape."""

    def __init__(self, *chunks):
        self.chunks, self.rounds = chunks, 0

    def __iter__(self):
        self.rounds += 1
        return iter(self.chunks)


@pytest.fixture
def received(monkeypatch):
    """The pieces that reach the compiled core."""
    pieces = []

    class Recorder(_core.DirectStream):
        def take(self, piece, labels=None, callback=None):
            pieces.append((piece.copy(), None if labels is None else labels.copy()))
            super().take(piece, labels, callback)

    monkeypatch.setattr(_core, "DirectStream", Recorder)
    return pieces


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces of four rows, and nothing small enough to be converted at once."""
    monkeypatch.setattr(_inputs, "_PIECE_ROWS", 4)
    monkeypatch.setattr(_inputs, "_LEAST_ROWS", 4)
    monkeypatch.setattr(_inputs, "_SMALL", 0)


def assert_close(got, expected):
    """The same up to rounding, which grows through the layers."""
    for name in ("sigma_mu2", "sigma_y2", "gamma", "q", "c", "chi"):
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-9, atol=1e-12)


# ---- Chunks ----------------------------------------------------------------------------------------------------------


CHUNKED = {
    "list": lambda: [X[:3], X[3:4], X[4:]],
    "tuple": lambda: (X[:3], X[3:]),
    "generator": lambda: (X[i : i + 4] for i in range(0, 10, 4)),
    "loader": lambda: Loader(X[:7], X[7:]),
    "of tensors": lambda: [Tensor(X[:6]), Tensor(X[6:])],
    "of singletons": lambda: Loader([Tensor(X[:6])], [Tensor(X[6:])]),
    "with labels": lambda: Loader([Tensor(X[:6]), Tensor(np.zeros(6, int))], [Tensor(X[6:]), Tensor(np.ones(4, int))]),
    "of nested lists": lambda: (chunk.tolist() for chunk in (X[:5], X[5:])),
    "of mixed types": lambda: [X[:5].astype(np.float32).astype(np.longdouble), X[5:]],
}


@pytest.mark.parametrize("source", CHUNKED)
def test_chunks_are_one_array(tanh_edge, received, source):
    ds = igb.simulate(tanh_edge, **DIRECT, inputs=CHUNKED[source]())
    expected = X.copy()
    if source == "of mixed types":
        expected[:5] = X[:5].astype(np.float32)
    np.testing.assert_array_equal(np.concatenate([piece for piece, _ in received]), expected)
    assert_close(ds, igb.simulate(tanh_edge, **DIRECT, inputs=expected))
    assert (ds.attrs["inputs"], ds.attrs["features"], ds.attrs["method"]) == (10, 8, "direct")
    assert ds.attrs["input_data"] == "given in chunks"


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("sizes", [(10,), (1,) * 10, (3, 5, 2), (9, 1), (4, 4, 2), (2, 8)])
def test_pieces_do_not_depend_on_the_chunks(tanh_edge, received, sizes):
    ends = np.cumsum(sizes)
    chunks = [(X[end - size : end], np.arange(end - size, end) % 3) for size, end in zip(sizes, ends, strict=True)]
    kwargs = {**DIRECT, "gradients": "cross_entropy", "classes": 3, "per_node": True}
    ds = igb.simulate(tanh_edge, **kwargs, inputs=iter(chunks))
    assert [len(piece) for piece, _ in received] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([piece for piece, _ in received]), X)
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in received]), np.arange(10) % 3)
    np.testing.assert_array_equal(ds["label"][0], np.arange(10) % 3)
    assert ds.attrs["labels"] == "given"
    whole = igb.simulate(tanh_edge, **kwargs, inputs=X, labels=np.arange(10) % 3)
    assert_close(ds, whole)
    for name in ("mu", "var", "gradient_input", "gradient_class", "gradient_se"):
        np.testing.assert_allclose(ds[name], whole[name], rtol=1e-8, atol=1e-12)
    np.testing.assert_array_equal(ds["guess"], whole["guess"])


@pytest.mark.usefixtures("small_pieces")
def test_a_buffer_that_is_written_to_again(tanh_edge, received):
    def chunks():
        buffer, labels = np.empty((2, 8)), np.empty(2, np.int32)
        for i in range(0, 10, 2):
            buffer[:], labels[:] = X[i : i + 2], i // 2
            yield buffer, labels

    igb.simulate(tanh_edge, **DIRECT, inputs=chunks(), gradients="cross_entropy")
    np.testing.assert_array_equal(np.concatenate([piece for piece, _ in received]), X)
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in received]), np.arange(10) // 2)


def test_one_array_of_labels_for_all_chunks(tanh_edge, received):
    labels = np.arange(10) % 4
    kwargs = {**DIRECT, "gradients": "cross_entropy", "classes": 4}
    igb.simulate(tanh_edge, **kwargs, inputs=[X[:3], X[3:]], labels=labels)
    np.testing.assert_array_equal(np.concatenate([given for _, given in received]), labels)


def test_a_data_loader_of_pytorch(tanh_edge, received):
    data = pytest.importorskip("torch.utils.data")
    import torch

    x, labels = torch.from_numpy(X.astype(np.float32)), torch.arange(10) % 3
    loader = data.DataLoader(data.TensorDataset(x, labels), batch_size=4)
    igb.simulate(tanh_edge, **DIRECT, inputs=loader, gradients="cross_entropy", classes=3)
    np.testing.assert_array_equal(np.concatenate([piece for piece, _ in received]), X.astype(np.float32))
    np.testing.assert_array_equal(np.concatenate([given for _, given in received]), np.arange(10) % 3)
    of_tensors = igb.simulate(tanh_edge, **DIRECT, inputs=x, gradients="cross_entropy", labels=labels)
    of_arrays = igb.simulate(tanh_edge, **DIRECT, inputs=x.numpy(), gradients="cross_entropy", labels=labels.numpy())
    xr.testing.assert_identical(of_tensors, of_arrays)


def test_labels_that_come_along_are_left_aside_without_cross_entropy(tanh_edge, received):
    igb.simulate(tanh_edge, **DIRECT, inputs=[(X, ["a"] * 10)], gradients="readout")
    assert [labels for _, labels in received] == [None]


def test_gram_gathers_the_chunks(tanh_edge):
    kwargs = {**LAYERS, "method": "gram", "gradients": "cross_entropy", "classes": 2}
    got = igb.simulate(tanh_edge, **kwargs, inputs=((X[i : i + 5], [0, 1, 0, 1, 1]) for i in (0, 5)))
    expected = igb.simulate(tanh_edge, **kwargs, inputs=X, labels=[0, 1, 0, 1, 1] * 2)
    xr.testing.assert_equal(got, expected)
    assert got.attrs["input_data"] == "given in chunks"


def test_gram_gathers_no_more_than_fits(tanh_edge, monkeypatch):
    monkeypatch.setattr(_memory, "available_memory", lambda: 2**20)
    endless = (np.ones((4096, 100)) for _ in iter(int, 1))
    with pytest.raises(ValueError, match="inputs do not fit into memory: the first .*; use method='direct'"):
        igb.simulate(tanh_edge, **LAYERS, method="gram", inputs=endless)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("again", [True, False])
def test_a_table_too_short_for_a_later_chunk(again):
    ens = igb.Ensemble("gelu", 1.5)
    chunks = Loader(X, 1e6 * X)
    if again:
        got = igb.simulate(ens, **DIRECT, inputs=chunks)
        assert chunks.rounds > 1
        assert_close(got, igb.simulate(ens, **DIRECT, inputs=np.concatenate([X, 1e6 * X])))
    else:
        with pytest.raises(ValueError, match="inputs must be chunks that can be had once more.*'gelu' was tabulated"):
            igb.simulate(ens, **DIRECT, inputs=iter(chunks))


NAN, HUGE = X.copy(), X.copy()
NAN[4, 7], HUGE[2] = np.nan, 1e200


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([], "inputs must hold chunks of shape (n, features), got an iterable with nothing in it"),
        ([X[:1]], "inputs must be at least 2, got a single one in all chunks together"),
        ([X, X[:0]], "chunk 1 of inputs is empty: its shape is (0, 8)"),
        ([X, X[:, :5]], "chunk 1 of inputs has 5 features, but chunk 0 has 8"),
        ([X[0]], "chunk 0 of inputs must be an array of shape (n, features), got an array of shape (8,)"),
        ([X, 3], "chunk 1 of inputs must be an array of shape (n, features), got 3"),
        ([X[:, :0]], "chunk 0 of inputs must be an array of shape (n, features), got an array of shape (10, 0)"),
        ([X, X, NAN], "inputs must be finite, got nan in row 4, column 7 of chunk 2"),
        ([X, HUGE], "but that of row 2 of chunk 1 is inf: rescale them, or use normalize=True"),
    ],
)
def test_wrong_chunks(tanh_edge, chunks, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        igb.simulate(tanh_edge, **LAYERS, inputs=iter(chunks))


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([X, X > 0], "chunk 1 of inputs must be real numbers, got dtype bool"),
        ([1j * X], "chunk 0 of inputs must be real numbers, got dtype complex128"),
        (["text"], "chunk 0 of inputs must be an array of shape (n, features), got 'text'"),
    ],
)
def test_chunks_of_the_wrong_type(tanh_edge, chunks, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        igb.simulate(tanh_edge, **LAYERS, inputs=iter(chunks))


def test_rows_of_a_long_chunk_are_numbered_through(tanh_edge):
    long = np.zeros((9000, 3), np.float32)
    long[8888, 1] = np.inf
    with pytest.raises(ValueError, match="got inf in row 8888, column 1 of chunk 1"):
        igb.simulate(tanh_edge, **LAYERS, inputs=[X[:, :3], long])
    with pytest.raises(ValueError, match="got inf in row 8888, column 1$"):
        igb.simulate(tanh_edge, **LAYERS, inputs=long)


ZEROS = np.zeros(10, int)


@pytest.mark.parametrize(
    ("chunks", "labels", "error", "message"),
    [
        ([(X, ZEROS), (X, ZEROS[:9])], None, ValueError, "the labels of chunk 1 must be 10 integers, .* got 9"),
        (
            [(X, ZEROS), (X, ZEROS + 3)],
            None,
            ValueError,
            "the labels of chunk 1 must be .* 0 to 2, got 3 at position 0",
        ),
        ([(X, ZEROS * 1.0)], None, TypeError, "the labels of chunk 0 must be integers .* got 0.0 at position 0"),
        ([(X, ZEROS), X], None, ValueError, "chunk 1 of inputs has no labels, unlike those before it"),
        ([X, (X, ZEROS)], None, ValueError, "chunk 1 of inputs has labels, unlike those before it"),
        ([(X, ZEROS)], ZEROS, ValueError, "labels came twice: as an argument, and with chunk 0 of inputs"),
        ([X, X], ZEROS, ValueError, "labels must be as many as there are inputs, got 10, but chunk 1 ends at input 20"),
        ([X[:5], X[5:9]], ZEROS, ValueError, "labels must be 9 integers, one for each input of all chunks, got 10"),
        ([X], ZEROS - 1, ValueError, "labels must be integers from 0 to 2, got -1 at position 0"),
    ],
)
def test_wrong_labels_of_chunks(tanh_edge, chunks, labels, error, message):
    with pytest.raises(error, match=message):
        igb.simulate(tanh_edge, **LAYERS, inputs=chunks, gradients="cross_entropy", classes=3, labels=labels)


# ---- Arrays ----------------------------------------------------------------------------------------------------------


def test_images_are_flattened(tanh_edge):
    images = np.arange(10 * 4 * 5, dtype=np.uint8).reshape(10, 4, 5)
    got = igb.simulate(tanh_edge, **LAYERS, inputs=images)
    xr.testing.assert_identical(got, igb.simulate(tanh_edge, **LAYERS, inputs=images.reshape(10, 20)))
    assert got.attrs["features"] == 20
    transposed = igb.simulate(tanh_edge, **LAYERS, inputs=np.asfortranarray(images))
    xr.testing.assert_identical(got, transposed)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("dtype", ["u1", "i2", "i8", "f2", ">f4", np.longdouble])
def test_large_arrays_are_converted_piece_by_piece(tanh_edge, received, dtype):
    x = np.random.default_rng(0).integers(0, 200, (10, 8))
    labels = np.arange(10)
    kwargs = {**DIRECT, "gradients": "cross_entropy", "labels": labels}
    got = igb.simulate(tanh_edge, **kwargs, inputs=x.astype(dtype))
    assert [len(piece) for piece, _ in received] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([piece for piece, _ in received]), x)
    np.testing.assert_array_equal(np.concatenate([given for _, given in received]), labels)
    assert_close(got, igb.simulate(tanh_edge, **kwargs, inputs=x.astype(float)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_mapped_file_goes_to_the_core_as_it_is(tanh_edge, tmp_path, monkeypatch, dtype):
    np.save(tmp_path / "x.npy", X.astype(dtype))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    taken = []
    simulate = _core.simulate
    monkeypatch.setattr(
        _core, "simulate", lambda *, inputs, **rest: taken.append(inputs) or simulate(inputs=inputs, **rest)
    )
    got = igb.simulate(tanh_edge, **LAYERS, inputs=mapped)
    assert np.shares_memory(taken[0], mapped)
    xr.testing.assert_identical(got, igb.simulate(tanh_edge, **LAYERS, inputs=X.astype(dtype)))


def test_a_file_that_can_only_be_sliced(tanh_edge, tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        data = file.create_dataset("x", data=X)
        got = igb.simulate(tanh_edge, **LAYERS, inputs=data)
    xr.testing.assert_identical(got, igb.simulate(tanh_edge, **LAYERS, inputs=X))


def test_tensors_are_arrays(tanh_edge):
    got = igb.simulate(tanh_edge, **LAYERS, inputs=Tensor(X))
    xr.testing.assert_identical(got, igb.simulate(tanh_edge, **LAYERS, inputs=X))


def test_a_tensor_that_cannot_be_read(tanh_edge):
    class OnDevice(Tensor):
        def __array__(self, dtype=None, copy=None):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")

    with pytest.raises(TypeError, match="inputs cannot be read as an array: can't convert cuda:0"):
        igb.simulate(tanh_edge, **LAYERS, inputs=OnDevice(X))


def test_the_same_input_many_times(tanh_edge):
    for method in ("direct", "gram"):
        ds = igb.simulate(tanh_edge, **LAYERS, inputs=np.tile(X[:2], (5, 1)), method=method, dtype="float64")
        assert bool(np.isfinite(ds["gamma"]).all())
    ds = igb.simulate(tanh_edge, **LAYERS, inputs=np.tile(X[:2], (5, 1)), per_node=True)
    np.testing.assert_array_equal(ds["guess"].values[0], np.tile(ds["guess"].values[0, :2], 5))


# ---- normalize -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e200])
def test_normalized_inputs_have_mean_square_one(tanh_edge, received, scale):
    igb.simulate(tanh_edge, **DIRECT, inputs=iter([scale * X]), normalize=True)
    expected = X / np.sqrt((X**2).mean(axis=1, keepdims=True))
    np.testing.assert_allclose(received[0][0], expected, rtol=1e-14)
    ds = igb.simulate(tanh_edge, **DIRECT, inputs=scale * X, normalize=True)
    assert_close(ds, igb.simulate(tanh_edge, **DIRECT, inputs=expected))
    assert ds.attrs["input_data"] == "given, each scaled to |x|^2 / features = 1"


def test_an_input_of_zeros_cannot_be_normalized(tanh_edge):
    x = X.copy()
    x[3] = 0.0
    with pytest.raises(ValueError, match="inputs must not be zero with normalize=True, but row 3 is"):
        igb.simulate(tanh_edge, **LAYERS, inputs=x, normalize=True)
    with pytest.raises(ValueError, match="but row 3 of chunk 1 is"):
        igb.simulate(tanh_edge, **LAYERS, inputs=[X, x], normalize=True)


# ---- Extreme sizes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "scale", "message"),
    [
        ("float32", 1e-16, "from 1e-30 to 1e+30 with dtype='float32', or be zero, but that of row 3 is 1e-32: "),
        ("float32", 1e16, "row 3 is 1e+32: rescale them, or use normalize=True or dtype='float64'"),
        ("float64", 1e-141, "from 1e-280 to 1e+280 with dtype='float64', or be zero, but that of row 3 is 1e-282: "),
        ("float64", 1e-200, "row 3 is 0: rescale them, or use normalize=True"),
        ("float64", 1e141, "row 3 is 1e+282: rescale them, or use normalize=True"),
    ],
)
def test_inputs_of_extreme_size(tanh_edge, dtype, scale, message):
    x = X.copy()
    x[1] = 0.0
    x[3] = scale
    with pytest.raises(ValueError, match=re.escape(message)):
        igb.simulate(tanh_edge, **LAYERS, inputs=x, dtype=dtype)
    with pytest.raises(ValueError, match=re.escape(message.replace("row 3", "row 3 of chunk 1"))):
        igb.simulate(tanh_edge, **LAYERS, inputs=[X, x], dtype=dtype)
    x[1] = 1.0
    assert igb.simulate(tanh_edge, **LAYERS, inputs=x, dtype=dtype, normalize=True).attrs["inputs"] == 10


# ---- What is easily mistaken -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [np.zeros(10, int), [0] * 10])
def test_labels_beside_the_inputs_without_a_list(tanh_edge, labels):
    with pytest.raises(ValueError, match=r"inputs=x, labels=labels, or come in pairs, inputs=\[\(x, labels\)\]"):
        igb.simulate(tanh_edge, **LAYERS, inputs=(X, labels), gradients="cross_entropy")


def test_sparse_chunks(tanh_edge):
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(TypeError, match=r"chunk 1 of inputs must be .*, got a sparse one .*: use .toarray\(\)"):
        igb.simulate(tanh_edge, **LAYERS, inputs=iter([X, sparse.csr_matrix(X)]))
