"""Data sets: what is drawn obeys its law, and files are read exactly or refused with a word on which and why.

The files are written here byte by byte from their published formats, so that reader and writer share nothing.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import pickle
import random
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

torch = pytest.importorskip("torch")

from igbfast.torch import _cifar, _idx
from igbfast.torch.data import (
    Data,
    blobs,
    cifar10,
    cifar100,
    digits,
    fashion_mnist,
    gaussian,
    load,
    mnist,
)

# --- Data ----------------------------------------------------------------------------------------------------------


def test_data_takes_arrays_and_tensors() -> None:
    data = Data(np.arange(6, dtype=np.uint8).reshape(3, 2), [0, 2, 1], np.ones((1, 2)), np.array([1], np.uint8))
    assert data.inputs.dtype == data.test_inputs.dtype == torch.float32
    assert data.labels.dtype == data.test_labels.dtype == torch.int64
    assert (data.classes, data.shape, data.features, len(data)) == (3, (2,), 2, 3)
    assert data.class_names == ("0", "1", "2")
    assert data.inputs.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert Data(torch.zeros(2, 1, dtype=torch.float64), [0, 1]).inputs.dtype == torch.float64
    assert repr(data) == "<Data data: 3 training and 1 test inputs of shape (2,), 3 classes>"


def test_data_does_not_follow_the_array_it_was_made_of() -> None:
    array = np.zeros((2, 2), np.float32)
    data = Data(array, [0, 1])
    array[:] = 5.0
    assert float(data.inputs.abs().max()) == 0.0


@pytest.mark.parametrize(
    "change, error, words",
    [
        ({"inputs": np.zeros(3)}, ValueError, r"inputs must have a shape \(inputs, features\).*got \(3,\)"),
        ({"inputs": np.zeros((3, 0))}, ValueError, r"inputs must have a shape .*got \(3, 0\)"),
        ({"inputs": np.zeros((0, 2)), "labels": []}, ValueError, "inputs must hold at least one input, got none"),
        ({"inputs": [[0, 0], [0, math.nan], [0, 0]]}, ValueError, "inputs must be finite .*at index 1"),
        ({"inputs": [[0, 0], [0, 0], [0, 1e300]]}, ValueError, "inputs must be finite .*at index 2"),
        ({"inputs": np.zeros((3, 2), complex)}, TypeError, "inputs must be real numbers, got dtype complex128"),
        ({"inputs": torch.zeros(3, 2, dtype=torch.complex64)}, TypeError, "inputs must be real.*complex64"),
        ({"inputs": [["a"], ["b"], ["c"]]}, TypeError, "inputs must be real numbers"),
        ({"labels": [0, 1]}, ValueError, r"labels must have shape \(3,\), one for each of the inputs, got \(2,\)"),
        ({"labels": [[0], [1], [0]]}, ValueError, r"labels must have shape \(3,\)"),
        ({"labels": [0.0, 1.0, 0.0]}, TypeError, "labels must be integers, got dtype float64"),
        ({"labels": torch.zeros(3)}, TypeError, "labels must be integers, got dtype torch.float32"),
        ({"labels": [0, 1, 2], "classes": 2}, ValueError, "labels must be from 0 to 1, got 2 at index 2"),
        ({"labels": [0, -1, 1]}, ValueError, "labels must be from 0 to 1, got -1 at index 1"),
        ({"classes": 1}, ValueError, "classes must be an integer of at least 2, got 1"),
        ({"classes": 2.0}, TypeError, "classes must be an integer"),
        ({"test_inputs": np.zeros((1, 2))}, ValueError, "must be given together"),
        ({"test_inputs": np.zeros((1, 3)), "test_labels": [0]}, ValueError, r"test_inputs must have .*\(m, 2\)"),
        ({"test_inputs": np.zeros((1, 2)), "test_labels": [7], "classes": 2}, ValueError, "test_labels must be from"),
        ({"class_names": ("one",)}, ValueError, "class_names must be 2 names"),
        ({"class_names": "ab"}, TypeError, "class_names must be a sequence of str"),
        ({"name": 3}, TypeError, "name must be a str, got 3"),
    ],
)
def test_data_refuses(change: dict[str, object], error: type[Exception], words: str) -> None:
    given_ = {"inputs": np.zeros((3, 2)), "labels": [0, 1, 0], **change}
    with pytest.raises(error, match=words):
        Data(**given_)


def _images(seed: int = 0) -> Data:
    """Random images with an offset, a constant pixel and an image of zeros."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(3.0, 2.0, (50, 2, 3, 4))
    inputs[:, 1] *= 5.0
    inputs[:, 0, 0, 0] = 0.1
    test = rng.normal(3.0, 2.0, (7, 2, 3, 4))
    test[0] = 0.0
    return Data(inputs, rng.integers(0, 5, 50), test, rng.integers(0, 5, 7), 5)


def test_normalised_features_by_numpy() -> None:
    data = _images()
    x, test = data.inputs.double().numpy(), data.test_inputs.double().numpy()
    std = x.std(0)
    std[0, 0, 0] = 1.0  # the constant pixel
    result = data.normalised()
    np.testing.assert_allclose(result.inputs, (x - x.mean(0)) / std, atol=2e-6)
    np.testing.assert_allclose(result.test_inputs, (test - x.mean(0)) / std, atol=2e-5)
    assert result.inputs[:, 0, 0, 0].abs().max() < 1e-6
    assert bool(torch.isfinite(result.test_inputs).all())


def test_normalised_channels_by_numpy() -> None:
    data = _images()
    x = data.inputs.double().numpy()
    mean, std = x.mean((0, 2, 3), keepdims=True), x.std((0, 2, 3), keepdims=True)
    np.testing.assert_allclose(data.normalised("channels").inputs, (x - mean) / std, atol=2e-6)
    rows = x.reshape(50, -1)
    result = data.flat().normalised("channels").inputs
    np.testing.assert_allclose(result, (rows - rows.mean()) / rows.std(), atol=2e-6)


def test_normalised_inputs_gives_q0_one() -> None:
    result = _images().normalised("inputs")
    np.testing.assert_allclose(result.inputs.square().mean((1, 2, 3)), 1.0, rtol=1e-6)
    assert result.test_inputs[0].abs().max() == 0.0  # zeros stay
    np.testing.assert_allclose(result.test_inputs[1:].square().mean((1, 2, 3)), 1.0, rtol=1e-6)


def test_normalised_none_and_unknown() -> None:
    data = digits()
    assert data.normalised(None) is data
    with pytest.raises(ValueError, match="over must be one of 'features', 'channels', 'inputs', got 'input'; did you"):
        data.normalised("input")


def test_constant_feature_is_not_blown_up() -> None:
    """The variance of a constant need not round to 0; dividing by its root would make +-1 of it."""
    inputs = torch.full((1111, 1), 0.1, dtype=torch.float64)
    assert float((inputs - inputs.mean(0)).abs().max()) > 0.0  # the mean did round
    data = Data(inputs, np.arange(1111) % 2).normalised()
    assert float(data.inputs.abs().max()) < 1e-12


def test_parity_is_the_last_bit() -> None:
    data = digits()
    odd = data.parity()
    assert (odd.classes, odd.class_names, odd.name) == (2, ("even", "odd"), "digits, parity")
    assert odd.labels.tolist() == [label & 1 for label in data.labels.tolist()]
    assert odd.test_labels.tolist() == [label & 1 for label in data.test_labels.tolist()]
    assert odd.inputs is data.inputs


def test_subset_keeps_pairs_and_repeats_nothing() -> None:
    inputs = np.arange(100.0)[:, None]
    data = Data(inputs, np.arange(100) % 7, inputs[:20], np.arange(20) % 7)
    part = data.subset(30, seed=5, test=8)
    values = part.inputs[:, 0].long()
    assert len(set(values.tolist())) == len(part) == 30
    assert torch.equal(values % 7, part.labels)
    assert torch.equal(part.test_inputs[:, 0].long() % 7, part.test_labels)
    assert len(part.test_inputs) == 8
    assert part.classes == 7
    assert torch.equal(part.inputs, data.subset(30, seed=5).inputs)
    assert not torch.equal(part.inputs, data.subset(30, seed=6).inputs)
    assert len(data.subset(30).test_inputs) == 20
    with pytest.raises(ValueError, match="count must be an integer from 1 to 100, got 101"):
        data.subset(101)


def test_flat_and_to() -> None:
    data = _images()
    assert data.flat().shape == (24,)
    assert torch.equal(data.flat().inputs, data.inputs.reshape(50, 24))
    assert data.to("cpu", torch.float64).test_inputs.dtype == torch.float64
    assert data.to(torch.device("cpu")).inputs is data.inputs
    with pytest.raises(TypeError, match="dtype must be a floating point torch.dtype"):
        data.to(dtype=torch.int64)


# --- what is drawn -------------------------------------------------------------------------------------------------


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    data = digits(test=0.25, seed=3)
    assert (len(data), len(data.test_inputs)) == (1348, 449)
    both = torch.cat([data.inputs, data.test_inputs]).numpy() * 16
    pairs = np.column_stack([both, torch.cat([data.labels, data.test_labels]).numpy()])
    expected = np.column_stack([pixels, labels])
    assert sorted(map(tuple, pairs.tolist())) == sorted(map(tuple, expected.tolist()))
    assert torch.equal(digits(images=True).inputs[:, 0].flatten(1), digits().inputs)
    assert len(digits(test=0).test_inputs) == 0
    for share in (1.0, 0.9999):
        with pytest.raises(ValueError, match="test must be a share from 0 to below 1"):
            digits(test=share)


def test_gaussian_is_standard_normal() -> None:
    data = gaussian(4000, 50, classes=7, seed=1)
    x = torch.cat([data.inputs, data.test_inputs]).double()  # 250,000 numbers
    assert abs(float(x.mean())) < 5 / math.sqrt(x.numel())
    assert abs(float(x.square().mean()) - 1) < 5 * math.sqrt(2 / x.numel())
    assert int(data.counts.max() - data.counts.min()) <= 1
    assert int(data.counts.sum()) == 4000
    assert torch.equal(data.inputs, gaussian(4000, 50, classes=7, seed=1).inputs)
    assert not torch.equal(data.inputs, gaussian(4000, 50, classes=7, seed=2).inputs)


def test_gaussian_labels_do_not_depend_on_inputs() -> None:
    data = gaussian(20_000, 10, classes=2, seed=4)
    signs = 2.0 * data.labels.double() - 1.0
    correlation = (signs[:, None] * data.inputs.double()).mean(0) * math.sqrt(20_000)
    assert float(correlation.abs().max()) < 5


@pytest.mark.parametrize("features, classes", [(1, 2), (2, 10), (30, 4)])
def test_blobs_centres_have_the_distance(features: int, classes: int) -> None:
    """Centres by the mean over 8000 points each: noise adds 2 features / 8000 to their mean square distance."""
    data = blobs(8000 * classes, features, classes, distance=3.0, seed=2)
    centres = torch.stack([data.inputs[data.labels == k].double().mean(0) for k in range(classes)])
    pairs = torch.pdist(centres).square()
    assert float(pairs.mean()) == pytest.approx(9.0 + 2 * features / 8000, abs=5 * 2 * 3 * math.sqrt(2 / 8000))
    within = data.inputs.double() - centres[data.labels]
    assert float(within.square().mean()) == pytest.approx(1, abs=5 * math.sqrt(2 / within.numel()) + 1 / 8000)


def test_blobs_are_as_hard_as_promised() -> None:
    """The best classifier of two blobs, the plane half-way, errs at Phi(-distance / 2)."""
    data = blobs(40_000, 5, distance=2.0, seed=8, test=0)
    mean = [data.inputs[data.labels == k].mean(0) for k in range(2)]
    guessed = (data.inputs - (mean[0] + mean[1]) / 2) @ (mean[1] - mean[0]) > 0
    rate = float((guessed.long() != data.labels).double().mean())
    bayes = 0.5 * math.erfc(1.0 / math.sqrt(2.0))
    assert rate == pytest.approx(bayes, abs=5 * math.sqrt(bayes * (1 - bayes) / 40_000))
    assert len(data.test_inputs) == 0


@pytest.mark.parametrize("name, options", [("gaussian", {"features": 3}), ("blobs", {"features": 3})])
def test_test_inputs_are_further_ones(name: str, options: dict[str, int]) -> None:
    data = load(name, count=40, **options)
    assert (len(data), len(data.test_inputs)) == (40, 10)
    assert not (data.inputs[:, None] == data.test_inputs).all(2).any()


# --- IDX -----------------------------------------------------------------------------------------------------------

IDX_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array: np.ndarray) -> bytes:
    """The array in the format of http://yann.lecun.com/exdb/mnist."""
    code = IDX_CODES[array.dtype.newbyteorder("=").str[1:]]
    header = bytes([0, 0, code, array.ndim]) + b"".join(struct.pack(">I", size) for size in array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


@settings(max_examples=60, deadline=None)
@given(
    array=st.sampled_from(sorted(IDX_CODES)).flatmap(
        lambda code: hnp.arrays(np.dtype(code), hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5))
    ),
    gzipped=st.booleans(),
)
def test_idx_round_trip(array: np.ndarray, gzipped: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    raw = idx_bytes(array)
    path = tmp_path_factory.getbasetemp() / "array.idx"
    path.write_bytes(gzip.compress(raw, 1) if gzipped else raw)
    result = _idx.read_idx(path)
    assert result.dtype == array.dtype
    assert result.shape == array.shape
    assert result.tobytes() == array.tobytes()  # nan and -0.0 too


@settings(max_examples=150, deadline=None)
@given(data=st.data(), gzipped=st.booleans())
def test_idx_cut_or_changed_is_refused_or_read(
    data: st.DataObject, gzipped: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any cut, and any changed byte of a header, ends in a ValueError that names the file, and in nothing else."""
    raw = idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    packed = gzip.compress(raw) if gzipped else raw
    path = tmp_path_factory.getbasetemp() / "damaged.idx"
    if data.draw(st.booleans()):
        packed = packed[: data.draw(st.integers(0, len(packed) - 1))]
    else:
        place, value = data.draw(st.integers(0, 15)), data.draw(st.integers(1, 255))
        changed = bytearray(raw)
        changed[place] ^= value
        packed = gzip.compress(bytes(changed)) if gzipped else bytes(changed)
        if place == 2 and changed[2] == 0x09:  # signed bytes: a file as good as the other
            return
    path.write_bytes(packed)
    with pytest.raises(ValueError, match="damaged.idx"):
        _idx.read_idx(path)


def test_idx_of_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 2, 255, 255, 255, 255, 255, 255, 255, 255]) + bytes(1000)))
    with pytest.raises(ValueError, match=r"bomb.gz.*announces .*18446744065119617025 bytes, more than its"):
        _idx.read_idx(path)


def test_idx_checksum_is_checked(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(idx_bytes(np.arange(10, dtype=np.uint8))))
    packed[-8] ^= 1
    (tmp_path / "sum.gz").write_bytes(packed)
    with pytest.raises(ValueError, match=r"sum.gz.*damaged \(CRC check failed"):
        _idx.read_idx(tmp_path / "sum.gz")


# --- the four files of MNIST ---------------------------------------------------------------------------------------

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def four_arrays(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = [(12, 28, 28), (12,), (4, 28, 28), (4,)]
    return [rng.integers(0, 256 if len(shape) == 3 else 10, shape, np.uint8) for shape in shapes]


def write_four(folder: Path, *, gzipped: bool = False, dotted: bool = False, arrays: list | None = None) -> list:
    folder.mkdir(parents=True, exist_ok=True)
    arrays = arrays or four_arrays()
    for name, array in zip(NAMES, arrays, strict=True):
        name = name.replace("-idx", ".idx") if dotted else name
        raw = idx_bytes(array)
        (folder / (name + ".gz" * gzipped)).write_bytes(gzip.compress(raw, 1) if gzipped else raw)
    return arrays


@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("gzipped", [False, True])
def test_mnist_names(tmp_path: Path, gzipped: bool, dotted: bool) -> None:
    arrays = write_four(tmp_path, gzipped=gzipped, dotted=dotted)
    data = mnist(str(tmp_path))
    assert data.shape == (1, 28, 28)
    assert data.inputs.dtype == torch.float32
    np.testing.assert_array_equal(data.inputs[:, 0].numpy(), arrays[0].astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(data.labels, arrays[1])
    np.testing.assert_array_equal(data.test_inputs[:, 0].numpy(), arrays[2].astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(data.test_labels, arrays[3])
    assert data.classes == 10


def test_torchvisions_layout(tmp_path: Path) -> None:
    """One root for both, as torchvision makes it: each finds its own."""
    arrays = [four_arrays(seed) for seed in (1, 2)]
    write_four(tmp_path / "MNIST" / "raw", arrays=arrays[0])
    write_four(tmp_path / "FashionMNIST" / "raw", gzipped=True, arrays=arrays[1])
    for data, expected in ((mnist(tmp_path), arrays[0]), (load("fashion_mnist", tmp_path), arrays[1])):
        np.testing.assert_array_equal((data.inputs[:, 0] * 255).round(), expected[0])
    assert fashion_mnist(tmp_path).class_names[9] == "Ankle boot"
    np.testing.assert_array_equal(fashion_mnist(tmp_path / "FashionMNIST").labels, arrays[1][1])


def test_gz_that_a_browser_has_unpacked(tmp_path: Path) -> None:
    for name, array in zip(NAMES, four_arrays(), strict=True):
        (tmp_path / f"{name}.gz").write_bytes(idx_bytes(array))
    assert len(mnist(tmp_path)) == 12


def test_mnist_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere.*Fashion-MNIST comes from https://github.com/zalandores"):
        fashion_mnist(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError) as error:
        mnist(tmp_path)
    assert all(name in str(error.value) for name in (*NAMES, str(tmp_path), "https://ossci-datasets", "lecun.com"))
    write_four(tmp_path)
    (tmp_path / NAMES[2]).unlink()
    with pytest.raises(FileNotFoundError) as error:
        mnist(tmp_path)
    assert NAMES[2] in str(error.value)
    assert not any(name in str(error.value) for name in (NAMES[0], NAMES[1], NAMES[3]))
    with pytest.raises(NotADirectoryError, match="needs the folder of its four files"):
        mnist(tmp_path / NAMES[0])
    with pytest.raises(TypeError, match="folder must be a path"):
        mnist(3)


@pytest.mark.parametrize(
    "which, array, words",
    [
        (1, np.zeros(11, np.uint8), "it has 11 labels for the 12 of train-images-idx3-ubyte"),
        (1, np.full(12, 10, np.uint8), "labels must be from 0 to 9, got 10 at index 0"),
        (3, np.array([0, 9, 200, 1], np.uint8), "labels must be from 0 to 9, got 200 at index 2"),
        (0, np.zeros((12, 28, 28), np.int16), "images must be 3-dimensional uint8, got int16"),
        (0, np.zeros(12, np.uint8), r"images must be 3-dimensional uint8, got uint8 of shape \(12,\)"),
        (1, np.zeros((12, 1), np.uint8), "labels must be 1-dimensional uint8"),
        (2, np.zeros((4, 14, 14), np.uint8), "14 x 14 pixels, those of train-images-idx3-ubyte 28 x 28"),
        (2, np.zeros((0, 28, 28), np.uint8), "it holds no images"),
    ],
)
def test_mnist_content_that_does_not_fit(tmp_path: Path, which: int, array: np.ndarray, words: str) -> None:
    write_four(tmp_path)
    (tmp_path / NAMES[which]).write_bytes(idx_bytes(array))
    with pytest.raises(ValueError, match=words) as error:
        mnist(tmp_path)
    assert NAMES[which] in str(error.value)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda raw: raw[:-1], "announces uint8 of shape (12, 28, 28), 9408 bytes, but 9407 follow (an interrupted"),
        (lambda raw: raw + b"x", "but 9409 follow"),
        (lambda raw: raw[:10], "ends within its header"),
        (lambda raw: b"", "not an IDX file: it must begin with 00 00, a type and a dimension, got nothing"),
        (lambda raw: b"<html>" + raw, "got 3c 68 74 6d"),
        (lambda raw: gzip.compress(raw)[:-200], "gzipped data end too early (an interrupted download?)"),
        (lambda raw: gzip.compress(raw[:-7]), "but 9401 follow (an interrupted download?)"),
        (lambda raw: gzip.compress(raw + b"x"), "but more follow"),
        (lambda raw: b"\x1f\x8bnonsense of no kind", "gzipped data are damaged"),
    ],
)
def test_mnist_damaged(tmp_path: Path, change: object, words: str) -> None:
    write_four(tmp_path)
    path = tmp_path / NAMES[0]
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError) as error:  # noqa: PT011
        mnist(tmp_path)
    assert words in str(error.value)
    assert str(path) in str(error.value)


# --- CIFAR ---------------------------------------------------------------------------------------------------------

PY2_NUMPY = b"cnumpy.core.multiarray\n_reconstruct\n"


def py2_pickle(value: object) -> bytes:
    """What Python 2's cPickle wrote at protocol 2: byte strings as BINSTRING, numpy arrays through _reconstruct.

    Opcodes: pickletools of the standard library.
    """

    def emit(value: object) -> bytes:
        if value is None:
            return b"N"
        if isinstance(value, bytes):
            return (
                b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value
            )
        if isinstance(value, int):
            return b"J" + struct.pack("<i", value)
        if isinstance(value, list):
            return b"](" + b"".join(map(emit, value)) + b"e"
        if isinstance(value, tuple):
            return b"(" + b"".join(map(emit, value)) + b"t"
        if isinstance(value, dict):
            return b"}(" + b"".join(emit(key) + emit(item) for key, item in value.items()) + b"u"
        assert isinstance(value, np.ndarray)
        dtype = b"cnumpy\ndtype\n" + emit((value.dtype.str[1:].encode(), 0, 1)) + b"R"
        dtype += emit((3, b"|", None, None, None, -1, -1, 0)) + b"b"
        start = PY2_NUMPY + b"(cnumpy\nndarray\n" + emit((0,)) + emit(b"b") + b"tR"
        state = b"(" + emit(1) + emit(value.shape) + dtype + b"I00\n" + emit(value.tobytes()) + b"t"
        return start + state + b"b"

    return b"\x80\x02" + emit(value) + b"."


def pixels_of(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), np.uint8)


def cifar10_python(dump: object = py2_pickle) -> dict[str, bytes]:
    files = {
        name: dump(
            {
                b"batch_label": name.encode(),
                b"labels": [(3 * i + number) % 10 for i in range(4)],
                b"data": pixels_of(4, number),
                b"filenames": [b"x.png"] * 4,
            }
        )
        for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"])
    }
    names = [f"class {k}".encode() for k in range(10)]
    return {**files, "batches.meta": dump({b"num_cases_per_batch": 4, b"label_names": names, b"num_vis": 3072})}


def cifar10_binary() -> dict[str, bytes]:
    files = {}
    for number, name in enumerate([*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]):
        labels = np.array([[(3 * i + number) % 10] for i in range(4)], np.uint8)
        files[name] = np.hstack([labels, pixels_of(4, number)]).tobytes()
    return {**files, "batches.meta.txt": "\n".join(f"class {k}" for k in range(10)).encode() + b"\n\n"}


def cifar100_python() -> dict[str, bytes]:
    files = {}
    for number, (name, count) in enumerate((("train", 10), ("test", 2))):
        fine = [(17 * i + number) % 100 for i in range(count)]
        content = {b"data": pixels_of(count, number), b"fine_labels": fine, b"coarse_labels": [k // 5 for k in fine]}
        files[name] = py2_pickle(content)
    names = {b"fine_label_names": [b"fine %d" % k for k in range(100)]}
    names[b"coarse_label_names"] = [b"coarse %d" % k for k in range(20)]
    return {**files, "meta": py2_pickle(names)}


def cifar100_binary() -> dict[str, bytes]:
    files = {}
    for number, (name, count) in enumerate((("train.bin", 10), ("test.bin", 2))):
        fine = np.array([[(17 * i + number) % 100] for i in range(count)], np.uint8)
        files[name] = np.hstack([fine // 5, fine, pixels_of(count, number)]).tobytes()
    names = {"fine_label_names.txt": "".join(f"fine {k}\n" for k in range(100)).encode()}
    return {**files, **names, "coarse_label_names.txt": "".join(f"coarse {k}\n" for k in range(20)).encode()}


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, raw in files.items():
        (folder / name).write_bytes(raw)
    return folder


def write_archive(path: Path, files: dict[str, bytes], inner: str = "cifar/", mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, raw in files.items():
            member = tarfile.TarInfo(inner + name)
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))
    return path


def check_cifar10(data: Data) -> None:
    expected = np.concatenate([pixels_of(4, number) for number in range(5)]).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(data.inputs.flatten(1).numpy(), expected)
    assert data.labels.tolist() == [(3 * i + number) % 10 for number in range(5) for i in range(4)]
    np.testing.assert_array_equal(data.test_inputs.flatten(1), pixels_of(4, 5).astype(np.float32) / np.float32(255))
    assert data.test_labels.tolist() == [(3 * i + 5) % 10 for i in range(4)]
    assert data.class_names == tuple(f"class {k}" for k in range(10))
    assert (data.shape, data.classes, data.name) == ((3, 32, 32), 10, "CIFAR-10")


@pytest.mark.parametrize(
    "inner, archive, files",
    [
        ("cifar-10-batches-py", "cifar-10-python.tar.gz", cifar10_python),
        ("cifar-10-batches-bin", "cifar-10-binary.tar.gz", cifar10_binary),
    ],
)
def test_cifar10_from_every_place(tmp_path: Path, inner: str, archive: str, files: object) -> None:
    """The folder, the folder above it, the archive, the folder in which it lies, an archive without gzip."""
    write_files(tmp_path / "unpacked" / inner, files())
    (tmp_path / "packed").mkdir()
    path = write_archive(tmp_path / "packed" / archive, files(), inner + "/")
    plain = write_archive(tmp_path / "any.tar", dict(reversed(files().items())), "./", "w")
    before = sorted(tmp_path.rglob("*"))
    for place in (tmp_path / "unpacked" / inner, tmp_path / "unpacked", path, path.parent, plain):
        check_cifar10(cifar10(place))
    assert sorted(tmp_path.rglob("*")) == before  # nothing is unpacked to disk


@pytest.mark.parametrize("protocol", [3, 4])
def test_cifar10_pickled_again_by_python_3(tmp_path: Path, protocol: int) -> None:
    check_cifar10(cifar10(write_files(tmp_path, cifar10_python(lambda value: pickle.dumps(value, protocol)))))


def test_py2_pickle_is_what_pickle_reads() -> None:
    """The writer of these tests against the standard library's reader and NumPy's own functions."""
    value = {b"a": [1, -2], b"b": (None, b"x" * 300), b"c": np.arange(6, dtype=np.uint8).reshape(2, 3)}
    result = pickle.loads(py2_pickle(value), encoding="bytes")
    np.testing.assert_array_equal(result.pop(b"c"), value.pop(b"c"))
    assert result == value


def test_cifar_pixels_are_channels_of_rows(tmp_path: Path) -> None:
    """The first 1024 bytes are the red channel, row by row."""
    files = cifar10_binary()
    record = bytes([7]) + bytes([200]) * 1024 + bytes(range(32)) * 32 + bytes(k // 32 for k in range(1024))
    files["test_batch.bin"] = record * 4
    image = cifar10(write_files(tmp_path, files)).test_inputs[0] * 255
    assert bool((image[0] == 200).all())
    assert image[1, 5].round().tolist() == list(range(32))
    assert image[2, :, 5].round().tolist() == list(range(32))


@pytest.mark.parametrize("files", [cifar100_python, cifar100_binary])
@pytest.mark.parametrize("labels, classes", [("fine", 100), ("coarse", 20)])
def test_cifar100(tmp_path: Path, files: object, labels: str, classes: int) -> None:
    place = write_archive(tmp_path / "cifar-100.tar.gz", files())
    data = load("cifar100", place, labels=labels)
    fine = [17 * i % 100 for i in range(10)]
    assert data.labels.tolist() == (fine if labels == "fine" else [k // 5 for k in fine])
    assert data.test_labels.tolist() == ([1, 18] if labels == "fine" else [0, 3])
    assert data.class_names == tuple(f"{labels} {k}" for k in range(classes))
    assert data.classes == classes
    np.testing.assert_array_equal((data.inputs.flatten(1) * 255).round(), pixels_of(10, 0))


def test_cifar100_does_not_need_the_names(tmp_path: Path) -> None:
    files = cifar100_binary()
    data = cifar100(write_files(tmp_path, {name: files[name] for name in ("train.bin", "test.bin")}))
    assert data.class_names[99] == "99"


class Planted:
    """An object whose pickle runs a command when a careless reader loads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.system, (f"touch {self.path}",))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("packed", [False, True])
def test_planted_pickle_is_refused_and_does_not_run(tmp_path: Path, protocol: int, packed: bool) -> None:
    trace = tmp_path / "trace"
    raw = pickle.dumps(Planted(trace), protocol)
    files = {**cifar10_python(), "data_batch_3": raw}
    place = write_archive(tmp_path / "c.tar.gz", files) if packed else write_files(tmp_path / "c", files)
    with pytest.raises(ValueError, match=r"data_batch_3.*refused: its pickle asks for .*\.system, which no file"):
        cifar10(place)
    assert not trace.exists()
    pickle.loads(raw)  # it would have: the plant is a live one
    assert trace.exists()


@pytest.mark.parametrize("name", ["batches.meta", "test_batch"])
def test_every_pickle_is_read_restricted(tmp_path: Path, name: str) -> None:
    raw = pickle.dumps(Planted(tmp_path / "trace"))
    with pytest.raises(ValueError, match=f"{name}.*refused"):
        cifar10(write_files(tmp_path / "c", {**cifar10_python(), name: raw}))
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    "raw, words",
    [
        (b"cbuiltins\neval\n(U\x011tR.", "asks for builtins.eval"),
        (b"cnumpy.core.multiarray\nscalar\n.", "asks for numpy.core.multiarray.scalar"),
        (b"cnumpy\nload\n.", "asks for numpy.load"),
        (b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.", "asks for numpy.ndarray.__class__"),
        (b"(U\x02lsios\nsystem\n.", "asks for os.system"),  # INST
        (b"\x80\x02\x82\x01.", "asks for extension 1"),
        (b"Pfile\n.", "not a pickle, or a damaged one"),  # a persistent id
        (b"\x80\x02r\xff\xff\xff\x7f.", "not a pickle, or a damaged one"),  # memory for 2^31 entries of a memo
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fab.", "not a pickle, or a damaged one|too early"),
        # Attributes of what stands for numpy's names cannot be set: __class__ of an array, anything of the class.
        (PY2_NUMPY + b")R}U\x09__class__NsbU\x01x.", "not a pickle, or a damaged one"),
        (PY2_NUMPY + b"N}U\x05arrayNs\x86b.", "not a pickle, or a damaged one"),
        (b"cnumpy\nndarray\nN}U\x01xNs\x86b.", "not a pickle, or a damaged one"),
        (b"cnumpy\nndarray\n)R.", "not a pickle, or a damaged one"),
        (b"", "ends too early"),
        (b"}", "ends too early"),
        (b"N.", "not a file of CIFAR: its pickle must be a dictionary with b'data'"),
        (b"<html></html>", "not a pickle, or a damaged one"),
        (b"\x1f\x8b\x08", "not a pickle, or a damaged one"),
    ],
)
def test_hostile_and_damaged_pickles(tmp_path: Path, raw: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        cifar10(write_files(tmp_path, {**cifar10_python(), "data_batch_2": raw}))
    assert str(tmp_path / "data_batch_2") in str(error.value)
    check_cifar10(cifar10(write_files(tmp_path, cifar10_python())))  # the reader is as it was


@pytest.mark.parametrize(
    "change, words",
    [
        ({b"data": np.zeros((4, 3071), np.uint8)}, r"b'data' must be .*\(n, 3072\), got one of shape \(4, 3071\)"),
        ({b"data": np.zeros((4, 3072), np.int8)}, "holds an array that is not of bytes"),
        ({b"data": np.zeros((2, 3072), np.uint8)}, "it has 4 labels for 2 images"),
        ({b"data": [1, 2]}, "b'data' must be an array of bytes .*, got none"),
        ({b"labels": [1, 2, 10, 3]}, "labels must be from 0 to 9, got 10 at index 2"),
        ({b"labels": [1, 2, 3, -1]}, "labels must be from 0 to 9, got -1 at index 3"),
        ({b"labels": [1, 2, 3, b"4"]}, "b'labels' must be a list of integers"),
        ({b"labels": [1, 2, 3, 2**31 - 1]}, "a label of 2147483647"),
        ({b"labels": 3}, "b'labels' must be a list of integers"),
    ],
)
def test_cifar_pickle_content_that_does_not_fit(tmp_path: Path, change: dict[bytes, object], words: str) -> None:
    content = {b"labels": [0, 1, 2, 3], b"data": pixels_of(4, 0), **change}
    with pytest.raises(ValueError, match=words) as error:
        cifar10(write_files(tmp_path, {**cifar10_python(), "data_batch_5": py2_pickle(content)}))
    assert "data_batch_5" in str(error.value)


def test_array_whose_shape_and_bytes_differ(tmp_path: Path) -> None:
    raw = cifar10_python()["data_batch_1"]
    shape = b"J" + struct.pack("<i", 4) + b"J" + struct.pack("<i", 3072)
    assert raw.count(shape) == 1
    for rows in (5, -4, 2**31 - 1):
        changed = raw.replace(shape, b"J" + struct.pack("<i", rows) + shape[5:])
        with pytest.raises(ValueError, match="data_batch_1.*holds an array of"):
            cifar10(write_files(tmp_path, {**cifar10_python(), "data_batch_1": changed}))


def test_random_damage_to_a_pickle_is_refused_or_harmless(tmp_path: Path) -> None:
    """One byte changed at random, pixels left out: an error that names the file, or data of the right shape."""
    rng = random.Random(1)
    raw = write_files(tmp_path, cifar10_python()).joinpath("test_batch").read_bytes()
    pixels = raw.index(pixels_of(4, 5).tobytes())
    places = [*range(pixels), *range(pixels + 4 * 3072, len(raw))]
    outcomes = set()
    for _ in range(100):
        changed = bytearray(raw)
        changed[rng.choice(places)] = rng.randrange(256)
        (tmp_path / "test_batch").write_bytes(changed)
        try:
            data = cifar10(tmp_path)
        except ValueError as error:
            outcomes.add("test_batch" in str(error))
        else:
            assert data.test_inputs.shape == (4, 3, 32, 32)
            outcomes.add("harmless")
    assert outcomes == {True, "harmless"}


def test_cifar_missing(tmp_path: Path) -> None:
    url = "https://www.cs.toronto.edu/~kriz/cifar.html"
    with pytest.raises(FileNotFoundError) as error:
        cifar10(tmp_path)
    assert all(word in str(error.value) for word in ("cifar-10-batches-py", "cifar-10-binary.tar.gz", url))
    files = cifar10_binary()
    del files["data_batch_4.bin"]
    for place in (write_files(tmp_path / "cifar-10-batches-bin", files), write_archive(tmp_path / "x.tar.gz", files)):
        with pytest.raises(FileNotFoundError, match="missing in '.*': data_batch_4.bin; CIFAR-10 comes from https"):
            cifar10(place)
        with pytest.raises(FileNotFoundError, match="CIFAR-100 comes from"):
            cifar100(place)


def test_cifar_binary_damaged(tmp_path: Path) -> None:
    for cut, words in (
        (1, "12291 bytes are not whole records of 3073"),
        (3073, r"as many.*data_batch_2.bin 3,.*interr"),
    ):
        files = cifar10_binary()
        files["data_batch_2.bin"] = files["data_batch_2.bin"][:-cut]
        with pytest.raises(ValueError, match=words):
            cifar10(write_files(tmp_path, files))
    files["data_batch_2.bin"] = b"\x0a" + bytes(3072)
    with pytest.raises(ValueError, match="data_batch_2.bin.*labels must be from 0 to 9, got 10 at index 0"):
        cifar10(write_files(tmp_path, files))
    files = {**cifar10_binary(), "batches.meta.txt": b"one\ntwo\n"}
    with pytest.raises(ValueError, match="batches.meta.txt.*must name 10 classes, got 2"):
        cifar10(write_files(tmp_path, files))


def test_cifar_archive_damaged(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "c.tar.gz", cifar10_binary())
    whole = path.read_bytes()
    for change, words in (
        (whole[: len(whole) // 2], "end too early"),
        (whole[:-4], "end too early"),
        (whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:], "CRC check failed"),
        (gzip.compress(b"no archive" * 1000), "not a tar archive"),
        (b"<html>no archive</html>" * 100, "not a tar archive"),
        (gzip.decompress(whole)[:30_000], "not a tar archive, or a damaged one"),
    ):
        path.write_bytes(change)
        with pytest.raises(ValueError, match=words) as error:
            cifar10(path)
        assert str(path) in str(error.value)


def test_hostile_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = cifar10_binary()
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    # Names that lead out of the folder: nothing is written anywhere, so they are names like any other.
    path = write_archive(inside / "up.tar.gz", files, "../../")
    check_cifar10(cifar10(path))
    check_cifar10(cifar10(write_archive(path, files, f"{tmp_path}/")))
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "b", "up.tar.gz"]
    # A link with the name of a file is not one.
    (tmp_path / "secret").write_bytes(files["test_batch.bin"])
    with tarfile.open(path, "w:gz") as tar:
        for kind, name in ((tarfile.SYMTYPE, "data_batch_1.bin"), (tarfile.LNKTYPE, "test_batch.bin")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(tmp_path / "secret")
            tar.addfile(member)
    with pytest.raises(FileNotFoundError, match="missing"):
        cifar10(path)
    # Two files of one name.
    with tarfile.open(path, "w:gz") as tar:
        for inner in ("x", "y"):
            member = tarfile.TarInfo(f"{inner}/test_batch.bin")
            member.size = 4 * 3073
            tar.addfile(member, io.BytesIO(files["test_batch.bin"]))
    with pytest.raises(ValueError, match="y/test_batch.bin.*holds a second test_batch.bin"):
        cifar10(path)
    # A file that claims a terabyte, and an archive that unpacks to more than CIFAR is.
    member = tarfile.TarInfo("test_batch.bin")
    member.size = 2**40
    path.write_bytes(member.tobuf() + bytes(1024))
    with pytest.raises(ValueError, match="1099511627776 bytes, too large for a file of CIFAR-10"):
        cifar10(path)
    monkeypatch.setattr(_cifar, "_LARGEST_ARCHIVE", 1 << 20)
    write_archive(path, {"other": bytes(1 << 21), **files})
    assert path.stat().st_size < 200_000
    with pytest.raises(ValueError, match="unpacks to more than 1048576 bytes"):
        cifar10(path)


# --- load ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, options, error, words",
    [
        (("fashion-mnist",), {}, ValueError, "name must be one of .*did you mean 'fashion_mnist'?"),
        ((3,), {}, TypeError, "name must be one of"),
        (("mnist",), {}, ValueError, "folder must name where the files lie for 'mnist'"),
        (("digits", "x"), {}, ValueError, "folder must be None for 'digits'"),
        (("digits",), {"tset": 0.1}, ValueError, "an option of 'digits' must be one of .*did you mean 'test'?"),
        (("gaussian",), {"count": 3}, TypeError, "'gaussian' needs features"),
        (("blobs",), {}, TypeError, "'blobs' needs count and features"),
        (("cifar100", "x"), {"labels": "fin"}, ValueError, "labels must be one of 'fine', 'coarse'"),
    ],
)
def test_load_refuses(arguments: tuple, options: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        load(*arguments, **options)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: gaussian(0, 3), "count must be an integer of at least 1, got 0"),
        (lambda: gaussian(3, 0), "features must be"),
        (lambda: gaussian(3, 3, 1), "classes must be an integer of at least 2"),
        (lambda: gaussian(3, 3, seed=-1), "seed must be"),
        (lambda: gaussian(3, 3, test=-1), "test must be an integer of at least 0"),
        (lambda: blobs(3, 3, distance=-1.0), "distance must be a non-negative finite number"),
        (lambda: digits(test=-0.1), "test must be a non-negative finite number"),
    ],
)
def test_drawn_data_refuse(call: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
