"""The wrappers of the Gram engine's kernels, run on the host, against NumPy."""

from typing import Any

import numpy as np
import pytest

import igbfast._core as _core

torch = pytest.importorskip("torch")

from igbfast.gpu import _gram
from igbfast.gpu._layout import Slab

GRAM = 2  # the number of that stream of random numbers
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])


def rounding(dtype: Any) -> float:
    return float(torch.finfo(dtype).eps)


@DTYPES
@pytest.mark.parametrize("triangular", [False, True])
def test_rows_are_the_draw_times_the_normals_of_their_columns(host_device: Any, dtype: Any, triangular: bool) -> None:
    slab = Slab(members=2, nodes=70, member=128, first=64, stride=256)
    rng = np.random.default_rng(1)
    draw = torch.tensor(rng.normal(size=(3, 9, 9)), dtype=dtype)
    tile = torch.full((3, 9, slab.rows), -12345.0, dtype=dtype)
    _gram.draw_rows(host_device, (7, 20, 4, GRAM), slab, draw, triangular, tile)
    factor = (draw.tril() if triangular else draw).double().numpy()
    for g in range(3):
        for s in range(2):
            z = _core.normals(
                seed=7, network=20 + g, layer=4, stream="gram", rows=9, columns=70,
                dtype=str(dtype).removeprefix("torch."), first_column=s * 256 + 64,
            )  # fmt: skip
            want = factor[g] @ z.astype(float)
            got = tile[g, :, s * 128 : (s + 1) * 128].double().numpy()
            np.testing.assert_allclose(got[:, :70], want, rtol=0, atol=100 * rounding(dtype))
            assert not got[:, 70:].any()


def test_rows_refuse_a_tile_of_another_shape(host_device: Any) -> None:
    slab = Slab(members=1, nodes=10, member=64, first=0, stride=64)
    draw = torch.zeros((1, 3, 3))
    with pytest.raises(TypeError, match="shape|contiguous"):
        _gram.draw_rows(host_device, (0, 0, 1, GRAM), slab, draw, True, torch.zeros((1, 3, 128)))
    with pytest.raises(TypeError, match="contiguous"):
        _gram.draw_rows(host_device, (0, 0, 1, GRAM), slab, draw, True, torch.zeros((1, 3, 64), dtype=torch.float64))


def some_vectors() -> tuple[Any, Any, Any]:
    """Vectors of 5 networks with 11 inputs in 40 nodes: units, what is stored of them, and themselves."""
    rng = np.random.default_rng(2)
    columns = rng.normal(size=(5, 40, 11))
    units = np.stack([2.0 ** rng.integers(-9, 9, 5), np.ones(5)], axis=1)
    units[:, 1] = units[:, 0] * 2.0 ** rng.integers(-6, 1, 5)
    whole = units[:, :1, None] * columns[:, :, :1] + units[:, 1:, None] * columns
    whole[:, :, 0] = units[:, :1] * columns[:, :, 0]
    return units, columns, whole


@DTYPES
def test_contrasts_are_those_of_the_vectors(host_device: Any, dtype: Any) -> None:
    units, columns, whole = some_vectors()
    products = np.einsum("gia,gib->gab", columns, columns)
    products[np.broadcast_to(np.tri(11, k=-1, dtype=bool), products.shape)] = np.nan  # what nobody reads
    histograms = _gram.PairHistograms.empty(host_device, 5)
    given = torch.tensor(products), torch.tensor(units), 40, dtype
    q_sum, q_count, c_sum, c_count = _gram.contrasts(host_device, *given, histograms)
    norms = (whole**2).mean(axis=1)
    np.testing.assert_allclose(q_sum.numpy() * units[:, 0] ** 2, norms.sum(axis=1), rtol=1e-12)
    lengths = np.sqrt((whole**2).sum(axis=1))
    cosines = np.einsum("gia,gib->gab", whole, whole) / (lengths[:, :, None] * lengths[:, None, :])
    np.testing.assert_allclose(c_sum.numpy(), np.triu(cosines, 1).sum(axis=(1, 2)), rtol=0, atol=1e-12)
    assert q_count.tolist() == [11.0] * 5
    assert c_count.tolist() == [55.0] * 5
    for g in range(5):
        bins = np.bincount(norms[g].view(np.uint64) >> np.uint64(48), minlength=_gram.HISTOGRAM_BINS)
        np.testing.assert_array_equal(histograms.q[g].numpy(), bins)
        assert histograms.c[g].sum() == 55
        edges = (np.flatnonzero(histograms.c[g].numpy()).astype(np.uint64) << np.uint64(48)).view(float)
        apart = 1 - cosines[g][np.triu_indices(11, 1)]
        assert edges.min() <= apart.min() <= edges.min() * 1.07
        assert edges.max() <= apart.max() <= edges.max() * 1.07
    without = _gram.contrasts(host_device, *given)
    assert all(torch.equal(a, b) for a, b in zip(without, (q_sum, q_count, c_sum, c_count), strict=True))


def test_labels_depend_on_the_network_and_the_number_of_the_input_alone(host_device: Any) -> None:
    labels = _gram.random_labels(host_device, 3, 10, 0, 5000, 7, networks=4)
    assert labels.shape == (4, 5000)
    assert labels.dtype == torch.int32
    assert torch.equal(_gram.random_labels(host_device, 3, 12, 100, 50, 7), labels[2:3, 100:150])
    counts = torch.bincount(labels.flatten(), minlength=7)
    assert len(counts) == 7
    assert (counts - 20000 / 7).abs().max() < 5 * (20000 / 7) ** 0.5  # standard errors


@DTYPES
def test_the_cross_entropy_gradient_is_that_of_autograd(host_device: Any, dtype: Any) -> None:
    generator = torch.Generator().manual_seed(4)
    logits = (5 * torch.randn((3, 40, 6), generator=generator, dtype=torch.float64)).requires_grad_()
    labels = torch.randint(0, 6, (3, 40), generator=generator, dtype=torch.int32)
    torch.nn.functional.cross_entropy(logits.reshape(120, 6), labels.flatten().long(), reduction="sum").backward()
    delta, exponent = _gram.loss_gradient(host_device, logits.detach(), labels, "cross_entropy", dtype)
    assert delta.dtype == dtype
    got = torch.ldexp(delta.double(), exponent[:, :, None])
    torch.testing.assert_close(got, logits.grad, rtol=0, atol=20 * rounding(dtype))
    assert delta.abs().amax(-1).min() > 0.05  # the power of two is in the exponent


def test_the_gradient_of_a_readout_is_one(host_device: Any) -> None:
    delta, exponent = _gram.loss_gradient(host_device, torch.zeros((2, 3, 1)), None, "readout", torch.float32)
    assert torch.equal(delta, torch.ones((2, 3, 1)))
    assert not exponent.any()


def test_guesses_are_the_first_of_the_largest_and_none_where_one_is_nan() -> None:
    logits = torch.tensor([[[0.0, 2.0, 2.0], [float("nan"), 5.0, 1.0], [-3.0, -2.0, -1.0]]], dtype=torch.float64)
    assert _gram.guess_classes(logits).tolist() == [[1, -1, 2]]
