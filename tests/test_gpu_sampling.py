"""Random numbers made on the GPU are those of the CPU, wherever they go; the arguments of `gpu.weights`.

The kernels run on the host here, on memory of the host.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from igbfast import _core

torch = pytest.importorskip("torch")

from igbfast.gpu import _sampling
from igbfast.gpu._layout import Slab
from igbfast.gpu._sampling import Stream, StreamId

SEED = 2**63 + 11
ID = StreamId(SEED, 2**31 + 5, 2**20, Stream.GRAM)
POISON = -12345.0
SINGLE_AND_DOUBLE = pytest.mark.parametrize("dtype", ["float32", "float64"])
draw = partial(_sampling.weights, seed=SEED, network=3, layer=2, rows=5, columns=201)


def poisoned(*shape, dtype):
    return torch.full(shape, POISON, dtype=getattr(torch, dtype))


def normals(stream, *, network, rows, columns, dtype, layer=ID.layer, **others):
    """The CPU's, which has names for the streams."""
    where = {"seed": SEED, "network": network, "layer": layer, "stream": stream, "dtype": dtype}
    return _core.normals(**where, rows=rows, columns=columns, **others)


def assert_drawn(got, want, law="gaussian"):
    """The same bits; but normals to two units in the last place: compilers differ in fused multiply-adds."""
    if law == "gaussian":
        np.testing.assert_array_max_ulp(np.asarray(got), want, maxulp=2)
    else:
        np.testing.assert_array_equal(got, want)


# ---- weights ----


@SINGLE_AND_DOUBLE
@pytest.mark.parametrize("law", _sampling.LAWS)
@pytest.mark.parametrize("rows, columns", [(1, 1), (3, 201), (5, 2100)])
def test_weights_are_those_of_the_cpu(on_host, law, dtype, rows, columns):
    got = draw(law, rows=rows, columns=columns, dtype=dtype)
    want = _core.weights(law=law, seed=SEED, network=3, layer=2, rows=rows, columns=columns, dtype=dtype)
    assert got.shape == (rows, columns)
    assert_drawn(got, want, law)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("law", _sampling.LAWS)
def test_pieces_make_the_whole(on_host, law, dtype):
    whole = draw(law, columns=4200, dtype=dtype)
    for first_row, rows, first_column, columns in [(0, 5, 64, 100), (2, 2, 1984, 2177), (4, 1, 4130, 70), (1, 3, 7, 1)]:
        block = {"first_row": first_row, "first_column": first_column, "rows": rows, "columns": columns}
        piece = draw(law, **block, dtype=dtype)
        assert torch.equal(piece, whole[first_row : first_row + rows, first_column : first_column + columns])


@pytest.mark.parametrize("law", _sampling.LAWS)
def test_bfloat16_is_float32_rounded(on_host, law):
    rounded = draw(law, dtype="bfloat16", rows=50)
    assert rounded.dtype == torch.bfloat16
    assert torch.equal(rounded, draw(law, rows=50).to(torch.bfloat16))


def test_there_may_be_no_weights(on_host):
    assert draw("uniform", rows=0).shape == (0, 201)
    assert draw("rademacher", columns=0).shape == (5, 0)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"law": "orthogonal"}, "law must be one of 'gaussian', 'uniform', 'rademacher', got 'orthogonal'"),
        ({"law": 3}, "law must be one of .*, got 3"),
        ({"dtype": "float16"}, "dtype must be one of 'float32', 'float64', 'bfloat16', got 'float16'"),
        ({"seed": -1}, "seed must be an integer from 0 to 18446744073709551615, got -1"),
        ({"seed": 2**64}, "seed must be"),
        ({"network": 2**32}, "network must be an integer from 0 to 4294967295, got 4294967296"),
        ({"layer": 2**24}, "layer must be an integer from 0 to 16777215, got 16777216"),
        ({"rows": -1}, "rows must be an integer from 0 to 4294967296, got -1"),
        ({"rows": 2.0}, "rows must be an integer .*, got 2.0"),
        ({"first_row": 2**32 - 2, "rows": 3}, "rows must be an integer from 0 to 2, got 3"),
        ({"first_column": -64}, "first_column must be an integer from 0 to 17179869184, got -64"),
        ({"first_column": 2**33, "dtype": "float64"}, "columns must be an integer from 0 to 0, got 201"),
    ],
)
def test_wrong_arguments_are_named(on_host, wrong, message):
    with pytest.raises((TypeError, ValueError), match=message):
        draw(**{"law": "gaussian", **wrong})


# ---- What the layers make of them ----


@SINGLE_AND_DOUBLE
def test_weights_of_a_batch_go_into_a_part_of_a_tensor(host_device, dtype):
    out = poisoned(2, 4, 200, dtype=dtype)
    block = {"first_row": 7, "first_column": 64, "rows": 3, "columns": 101}
    _sampling.fill_weights(host_device, "gaussian", ID, out[:, :, :150], **block)
    for g in range(2):
        assert_drawn(out[g, :3, :101], normals("gram", network=ID.network + g, dtype=dtype, **block))
    out[:, :3, :101] = POISON
    assert (out == POISON).all()


def test_weights_do_not_go_where_they_do_not_fit(host_device):
    out = poisoned(1, 4, 6, dtype="float32")
    with pytest.raises(ValueError, match=r"at most \(4, 6\), got 5 and 6"):
        _sampling.fill_weights(host_device, "gaussian", ID, out, rows=5)
    with pytest.raises(TypeError, match="rows of out must be contiguous"):
        _sampling.fill_weights(host_device, "gaussian", ID, out.mT)


# Three members of each pool, of which there are 200; the slab has the last 72.
SLAB = Slab(members=3, nodes=72, member=128, first=128, stride=256)


def of_slab(stream, network, rows, dtype):
    """Normals (rows, members, nodes) of the slab's nodes."""
    drawn = normals(stream, network=network, rows=rows, columns=3 * SLAB.stride, dtype=dtype)
    return drawn.reshape(rows, SLAB.members, SLAB.stride)[:, :, SLAB.first : SLAB.first + SLAB.nodes]


@SINGLE_AND_DOUBLE
def test_nodes_get_the_normals_of_their_columns(host_device, dtype):
    tile = poisoned(2, 5, SLAB.rows, dtype=dtype)
    _sampling.fill_nodes(host_device, ID, SLAB, 5, tile)
    members = tile.reshape(2, 5, SLAB.members, SLAB.member)
    for g in range(2):
        assert_drawn(members[g, :, :, : SLAB.nodes], of_slab("gram", ID.network + g, 5, dtype))
    assert (members[:, :, :, SLAB.nodes :] == 0).all()


@SINGLE_AND_DOUBLE
def test_biases_are_added_to_the_origins(host_device, dtype):
    tile = torch.randn(2, 5, SLAB.rows, dtype=getattr(torch, dtype))
    before, scale = tile.clone(), torch.tensor([0.3, 7.0], dtype=torch.float64)
    _sampling.add_bias(host_device, ID._replace(stream=Stream.BIASES), scale, SLAB, tile)
    assert torch.equal(tile[:, 1:], before[:, 1:])
    origins, were = (t[:, 0].reshape(2, SLAB.members, SLAB.member) for t in (tile, before))
    assert torch.equal(origins[:, :, SLAB.nodes :], were[:, :, SLAB.nodes :])
    for g in range(2):
        biases = torch.from_numpy(of_slab("biases", ID.network + g, 1, dtype)[0])
        want = were[g, :, : SLAB.nodes] + scale[g] * biases
        rounding = 8 * torch.finfo(tile.dtype).eps
        torch.testing.assert_close(origins[g, :, : SLAB.nodes], want, rtol=rounding, atol=8 * rounding)


@SINGLE_AND_DOUBLE
@pytest.mark.parametrize("given_as", ["float32", "float64"])
def test_inputs_are_loaded_as_differences(host_device, dtype, given_as):
    given = (100 + torch.randn(9, 70)).to(getattr(torch, given_as))
    origin = 100 + torch.randn(70, dtype=torch.float64)
    out = poisoned(2, 5, 128, dtype=dtype)
    _sampling.load_inputs(host_device, given, origin, 3, 4, out)
    want = torch.cat([origin[None], given[3:7].double() - origin]).to(out.dtype)
    assert torch.equal(out[:, :, :70], want.expand(2, 5, 70))
    assert (out[:, :, 70:] == 0).all()


def test_inputs_that_are_not_there_are_not_loaded(host_device):
    given, origin = torch.zeros(9, 70), torch.zeros(70, dtype=torch.float64)
    with pytest.raises(ValueError, match="from 0 to 9, got 6 and 10"):
        _sampling.load_inputs(host_device, given, origin, 6, 4, poisoned(1, 5, 70, dtype="float32"))
    with pytest.raises(ValueError, match="room for 70 features, got 64"):
        _sampling.load_inputs(host_device, given, origin, 0, 4, poisoned(1, 5, 64, dtype="float32"))


@SINGLE_AND_DOUBLE
@pytest.mark.parametrize("first", [1, 1000])
def test_gaussian_inputs_are_those_of_the_cpu(host_device, dtype, first):
    out = poisoned(2, 5, 128, dtype=dtype)
    _sampling.gaussian_inputs(host_device, SEED, 41, first, 100, out)
    for g in range(2):
        drawn = normals("inputs", network=41 + g, layer=0, rows=first + 4, columns=100, dtype=dtype)
        assert_drawn(out[g, 0, :100], drawn[0])
        want = torch.from_numpy(drawn[first:] - drawn[0])
        torch.testing.assert_close(out[g, 1:, :100], want, rtol=0, atol=16 * torch.finfo(out.dtype).eps)
    assert (out[:, :, 100:] == 0).all()
