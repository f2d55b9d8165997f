"""What happens to the tiles of a layer once its linear part is there: norm, nonlinearity, pool, statistics and units.

The twin of csrc/cpu/layer.h for a batch of networks. Tiles are tensors (networks, columns, rows) as csrc/cuda/layout.h
has them, changed in place; units are float64 tensors (networks, 2), of the origin and of the differences. Nothing here
waits for the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from igbfast import _core
from igbfast.gpu._device import Device, pointer
from igbfast.gpu._layout import Slab

BINS = 1 << 16
"""Of a histogram: the sixteen leading bits of a double."""

_SUFFIX = {torch.float32: "f32", torch.float64: "f64"}
_EXPONENT = 0x7FF0000000000000  # bits of a double


def _address(tensor: Tensor | None, dtype: torch.dtype, *shape: int) -> int:
    return 0 if tensor is None else pointer(tensor, dtype, *shape)


@dataclass(frozen=True)
class _Batch:
    """Tiles of one shape on one device, and the calls of their kernels."""

    device: Device
    slab: Slab
    networks: int
    columns: int
    dtype: torch.dtype

    @classmethod
    def of(cls, device: Device, slab: Slab, tile: Tensor) -> _Batch:
        networks, columns, _ = tile.shape
        return cls(device, slab, networks, columns, tile.dtype)

    @property
    def ints(self) -> tuple[int, ...]:
        return (self.networks, self.columns, *self.slab.ints)

    def tile(self, tensor: Tensor | None) -> int:
        return _address(tensor, self.dtype, self.networks, self.columns, self.slab.rows)

    def doubles(self, *shape: int) -> Tensor:
        return torch.empty(self.networks, *shape, dtype=torch.float64, device=self.device.torch)

    def scratch(self, kernel: str, *args: int | str) -> Tensor:
        count = getattr(self.device.kernels, f"{kernel}_scratch")(self.ints, *args)
        return torch.empty(count, dtype=torch.float64, device=self.device.torch)

    @property
    def most_pooled(self) -> int:
        """Members of a pool that go through phi together."""
        return int(getattr(self.device.kernels, f"most_pooled_{_SUFFIX[self.dtype]}"))

    def call(self, kernel: str, *args: Any) -> None:
        self.device.call(f"{kernel}_{_SUFFIX[self.dtype]}", *args)


# ---- phi ------------------------------------------------------------------------------------------------------------


class Nonlinearity:
    """x = pool(phi(z)), made ready for the kernels: the tables of phi are copied to the device."""

    def __init__(self, device: Device, phi: _core.Phi, pool: str = "none") -> None:
        ((_, self.kind, self.parameter, table),) = phi.parts  # of networks, one function
        self.device = device
        self.pool = pool
        self._panels, self._kinks, self._tensors = 0, 0, list[Tensor]()
        if table is not None:
            self.kind, self._panels, self._kinks = "linear", len(table.edges) - 1, len(table.kinks)
            arrays = [table.edges, *table.series, *table.largest, *table.by_x, table.kinks, table.jumps]
            self._tensors = [torch.from_numpy(array).to(device.torch) for array in arrays]
        self.pool_first = self._pool_first(table)

    def _pool_first(self, table: _core.Table | None) -> str:
        """The pool that may go before phi, or "none": the largest phi is that of the largest or of the smallest node.

        So what phi does to a pool is done once, and where phi is flat it is the nodes that tell the members apart.
        """
        rises = table.monotone if table is not None else int(self.kind != "leaky_relu" or self.parameter >= 0.0)
        if self.pool not in ("max", "min") or rises == 0:
            return "none"
        return "max" if (self.pool == "max") == (rises > 0) else "min"

    @property
    def needs_shares(self) -> bool:
        """Whether slopes cannot be told without the shares of the members."""
        return self.pool in ("max", "min") and self.pool_first == "none"

    @property
    def arguments(self) -> tuple[Any, ...]:
        """phi as the kernel takes it."""
        addresses = [pointer(tensor, tensor.dtype, *tensor.shape) for tensor in self._tensors]
        return self.kind, self.parameter, self._panels, self._kinks, addresses


@dataclass(frozen=True)
class LayerNormMaps:
    """Norm over the nodes: what z_a = (y_a - mean_a) / deviation_a does to the columns of a tile."""

    maps: Tensor
    """(networks, columns, 3): scale, from_origin and shift of each column."""
    gains: Tensor
    """(networks, columns): the slope dz_a/dy_a of its direct part, 1 / deviation_a, absolute."""
    units: Tensor
    """(networks, 2), of z."""


@dataclass(frozen=True)
class LayerMoments:
    """What a layer's nodes do over the inputs."""

    origin: Tensor
    """(networks, rows): y_0 of every node, in units of y, as the two sums."""
    sum: Tensor
    sum2: Tensor
    origin_slope2: Tensor
    """(networks, nodes): squared slope of every pool at the first input; slope2: summed over the others."""
    slope2: Tensor
    slopes: Tensor | None
    """(networks, columns, rows): dx/dy of every node, shares of the pool included, where asked for."""
    norm_origin: Tensor
    """(networks,): squared norms of x, in the units of x."""
    norm_difference: Tensor
    beyond: Tensor
    """(networks,) bool: whether some node left the range of phi's table."""


@dataclass
class _Activated:
    origin_slope2: Tensor
    slope2: Tensor
    slopes: Tensor | None
    norms: Tensor
    beyond: Tensor


def _activate(
    nonlinearity: Nonlinearity,
    batch: _Batch,
    tile: Tensor,
    rows: int,
    maps: Tensor | None,
    gains: Tensor | None,
    units_in: Tensor,
    units_out: Tensor,
    moments: tuple[Tensor, Tensor, Tensor] | None,
    with_slopes: bool,
    pool: str = "none",
) -> _Activated:
    """phi of the first `rows` rows, or of the pools, which are the first. Fills the moments of what goes in.

    Moments and slopes are of `rows` rows alone, or of all members of the pools.
    """
    g, n = batch.networks, batch.columns
    of_members = rows if pool == "none" else batch.slab.rows
    slopes = tile.new_empty(g, n, of_members) if with_slopes else None
    origin_slope2, slope2, norms = batch.doubles(rows), batch.doubles(rows), batch.doubles(2)
    beyond = torch.zeros(g, dtype=torch.int32, device=tile.device)
    scratch = batch.scratch("activate", pool, rows)
    double = torch.float64
    batch.call(
        "activate",
        *nonlinearity.arguments,
        pool,
        batch.ints,
        rows,
        batch.tile(tile),
        _address(slopes, tile.dtype, g, n, of_members),
        _address(maps, double, g, n, 3),
        _address(gains, double, g, n),
        pointer(units_in, double, g, 2),
        pointer(units_out, double, g, 2),
        *(_address(each, double, g, of_members) for each in moments or (None, None, None)),
        pointer(origin_slope2, double, g, rows),
        pointer(slope2, double, g, rows),
        pointer(norms, double, g, 2),
        pointer(beyond, torch.int32, g),
        scratch.data_ptr(),
    )
    return _Activated(origin_slope2, slope2, slopes, norms, beyond)


def apply_nonlinearity(
    nonlinearity: Nonlinearity,
    slab: Slab,
    tile: Tensor,
    norm: LayerNormMaps | None,
    units_in: Tensor,
    units_out: Tensor,
    with_slopes: bool = False,
) -> LayerMoments:
    """x = pool(phi(norm(y))) in place, in the units `units_out`: the rows of the first member become x.

    The slopes are those of the direct part alone, where there is a norm. Without a pool, and with a small one that may
    go before phi, all is one pass over memory.
    """
    batch = _Batch.of(nonlinearity.device, slab, tile)
    moments = (batch.doubles(slab.rows), batch.doubles(slab.rows), batch.doubles(slab.rows))
    units = norm.units if norm is not None else units_in
    maps, gains = (norm.maps, norm.gains) if norm is not None else (None, None)
    how = _activate_then_pool if nonlinearity.pool_first == "none" else _pool_then_activate
    done = how(nonlinearity, batch, tile, maps, gains, units, units_out, moments, with_slopes)
    pools = slice(0, slab.nodes)
    return LayerMoments(
        *moments,
        done.origin_slope2[:, pools],
        done.slope2[:, pools],
        done.slopes if with_slopes else None,
        done.norms[:, 0],
        done.norms[:, 1],
        done.beyond != 0,
    )


def _activate_then_pool(
    nonlinearity: Nonlinearity,
    batch: _Batch,
    tile: Tensor,
    maps: Tensor | None,
    gains: Tensor | None,
    units_in: Tensor,
    units_out: Tensor,
    moments: tuple[Tensor, Tensor, Tensor],
    with_slopes: bool,
) -> _Activated:
    """phi on every member, then the pool of what comes out. The squared slope of a pool is the sum over its members."""
    slab = batch.slab
    keeps = with_slopes or nonlinearity.needs_shares
    done = _activate(nonlinearity, batch, tile, slab.rows, maps, gains, units_in, units_out, moments, keeps)
    if nonlinearity.pool == "none":
        return done
    shares = torch.empty_like(tile) if keeps else None
    done.norms = pool_tile(batch.device, nonlinearity.pool, slab, tile, units_out, shares)
    # Where no slopes are kept the pool is an average, whose members have shares of 1/k.
    share2 = 1.0 / slab.members**2
    if done.slopes is not None and shares is not None:
        weights = torch.ones(batch.networks, batch.columns, dtype=torch.float64, device=tile.device)
        weights[:, 0] = 0.0
        squares = multiply(batch.device, slab, done.slopes, shares, done.slopes, weights)
        assert squares is not None
        done.origin_slope2, done.slope2, share2 = done.slopes[:, 0].double().square(), squares, 1.0
    for name in ("origin_slope2", "slope2"):
        each = getattr(done, name).view(batch.networks, slab.members, slab.member)
        setattr(done, name, share2 * each.sum(1))
    return done


def _pool_then_activate(
    nonlinearity: Nonlinearity,
    batch: _Batch,
    tile: Tensor,
    maps: Tensor | None,
    gains: Tensor | None,
    units_in: Tensor,
    units_out: Tensor,
    moments: tuple[Tensor, Tensor, Tensor],
    with_slopes: bool,
) -> _Activated:
    """The pool of the nodes, then phi of what comes out."""
    slab, pool = batch.slab, nonlinearity.pool_first
    if slab.members <= batch.most_pooled:
        return _activate(
            nonlinearity, batch, tile, slab.member, maps, gains, units_in, units_out, moments, with_slopes, pool
        )
    _sum_nodes(batch, tile, moments)
    if maps is not None:
        map_columns(batch.device, slab, maps, tile)
    shares = torch.empty_like(tile) if with_slopes else None
    pool_tile(batch.device, pool, slab, tile, units_in, shares, with_norms=False)
    done = _activate(nonlinearity, batch, tile, slab.member, None, gains, units_in, units_out, None, with_slopes)
    if done.slopes is not None and shares is not None:
        members = shares.view(batch.networks, batch.columns, slab.members, slab.member)
        members *= done.slopes[:, :, None]
        done.slopes = shares
    return done


# ---- Tiles ----------------------------------------------------------------------------------------------------------


def _sum_nodes(batch: _Batch, tile: Tensor, moments: tuple[Tensor, Tensor, Tensor]) -> None:
    addresses = [pointer(each, torch.float64, batch.networks, batch.slab.rows) for each in moments]
    scratch = batch.scratch("sum_nodes")
    batch.call("sum_nodes", batch.ints, batch.tile(tile), *addresses, scratch.data_ptr())


def sum_nodes(device: Device, slab: Slab, tile: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """y_0, sum_a d_a and sum_a d_a^2 of every row, (networks, rows) each."""
    batch = _Batch.of(device, slab, tile)
    moments = (batch.doubles(slab.rows), batch.doubles(slab.rows), batch.doubles(slab.rows))
    _sum_nodes(batch, tile, moments)
    return moments


def pool_tile(
    device: Device,
    kind: str,
    slab: Slab,
    tile: Tensor,
    units: Tensor,
    shares: Tensor | None = None,
    with_norms: bool = True,
) -> Tensor:
    """Every pool to its largest, smallest or average value, in the rows of the first member.

    `shares`, laid out as the tile, gets what each member contributes. Returns the squared norms of what comes out,
    (networks, 2); not filled without `with_norms`.
    """
    batch = _Batch.of(device, slab, tile)
    norms, scratch = batch.doubles(2), batch.scratch("pool")
    batch.call(
        "pool",
        kind,
        batch.ints,
        batch.tile(tile),
        pointer(units, torch.float64, batch.networks, 2),
        batch.tile(shares),
        norms.data_ptr() if with_norms else 0,
        scratch.data_ptr(),
    )
    return norms


def map_columns(device: Device, slab: Slab, maps: Tensor, tile: Tensor) -> None:
    """Column 0 to scale y_0 + shift, the others to scale d + from_origin y_0 + shift; maps: (networks, columns, 3)."""
    batch = _Batch.of(device, slab, tile)
    batch.call(
        "map_columns", batch.ints, pointer(maps, torch.float64, batch.networks, batch.columns, 3), batch.tile(tile)
    )


def multiply(
    device: Device, slab: Slab, a: Tensor, b: Tensor, out: Tensor, weights: Tensor | None = None
) -> Tensor | None:
    """out = a b, element by element; `out` may be one of them.

    With weights, (networks, columns): sum_a weights_a out_a^2 of every row, (networks, rows).
    """
    batch = _Batch.of(device, slab, out)
    squares = batch.doubles(slab.rows) if weights is not None else None
    scratch = batch.scratch("multiply")
    batch.call(
        "multiply",
        batch.ints,
        batch.tile(a),
        batch.tile(b),
        batch.tile(out),
        _address(weights, torch.float64, batch.networks, batch.columns),
        _address(squares, torch.float64, batch.networks, slab.rows),
        scratch.data_ptr(),
    )
    return squares


def sum_columns(device: Device, slab: Slab, tile: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Over the nodes, the sum of each column, its product with column 0 and its square: (networks, columns) each."""
    batch = _Batch.of(device, slab, tile)
    sums, scratch = batch.doubles(batch.columns, 3), batch.scratch("sum_columns")
    batch.call("sum_columns", batch.ints, batch.tile(tile), sums.data_ptr(), scratch.data_ptr())
    each, with_origin, squares = sums.unbind(2)
    return each, with_origin, squares


# ---- Layers ---------------------------------------------------------------------------------------------------------


def _per_node(view: Tensor | None, networks: int) -> tuple[int, int, int]:
    """Address, nodes and distance between networks of an array of numbers per node."""
    if view is None:
        return 0, 0, 0
    if view.dtype != torch.float64 or view.dim() != 2 or view.shape[0] != networks or view.stride(1) != 1:
        raise TypeError(f"expected float64 ({networks}, nodes), rows contiguous, got {view.dtype} {tuple(view.shape)}")
    return int(view.data_ptr()), view.shape[1], view.stride(0)


def sum_layer(
    device: Device,
    slab: Slab,
    moments: LayerMoments,
    units: Tensor,
    inputs: int,
    mu: Tensor | None = None,
    var: Tensor | None = None,
    histograms: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Sums over the nodes of powers of their centres and variances, and over the pools of their squared slopes.

    (networks, 9) as NodeSums and (networks, 3) as SlopeSums of core/statistics.h. `mu` and `var`, (networks, nodes of
    the layer), get both in absolute units; `histograms`, two of (networks, BINS) int64, count them.
    """
    networks = moments.origin.shape[0]
    sums = torch.empty(networks, 12, dtype=torch.float64, device=device.torch)
    scratch = torch.empty(
        device.kernels.sum_layer_scratch(networks, slab.ints), dtype=torch.float64, device=device.torch
    )
    mu_at, nodes, between = _per_node(mu, networks)
    var_at, var_nodes, var_between = _per_node(var, networks)
    if mu is not None and var is not None and (nodes, between) != (var_nodes, var_between):
        raise TypeError("mu and var must lie alike")
    counts = histograms if histograms is not None else (None, None)
    # Squared slopes are rows of a longer array, or arrays of their own.
    slopes = (moments.origin_slope2, moments.slope2)
    if slopes[0].stride() != slopes[1].stride() or slopes[0].stride(1) != 1:
        slopes = (slopes[0].contiguous(), slopes[1].contiguous())
    device.call(
        "sum_layer",
        networks,
        inputs,
        slab.ints,
        pointer(units, torch.float64, networks, 2),
        *(pointer(each, torch.float64, networks, slab.rows) for each in (moments.origin, moments.sum, moments.sum2)),
        slopes[0].data_ptr(),
        slopes[1].data_ptr(),
        slopes[0].stride(0),
        sums.data_ptr(),
        mu_at,
        var_at,
        (nodes or var_nodes) // slab.members,
        between or var_between,
        *(_address(each, torch.int64, networks, BINS) for each in counts),
        scratch.data_ptr(),
    )
    return sums[:, :9], sums[:, 9:]


def histogram(device: Device, values: Tensor, counts: Tensor) -> None:
    """One more in the bin of each value's sixteen leading bits.

    counts: (BINS,) int64 for float64 values of any shape, or (networks, BINS) for values (networks, ...).
    """
    networks = 1 if counts.dim() == 1 else counts.shape[0]
    if counts.dim() == 2 and values.shape[0] != networks:
        raise TypeError(f"expected values of {networks} networks, got the shape {tuple(values.shape)}")
    address = pointer(counts, torch.int64, *counts.shape[:-1], BINS)
    values = values.contiguous()
    count = values.numel() // max(networks, 1)
    device.call("count_values", networks, count, pointer(values, torch.float64, *values.shape), address)


# ---- Units ----------------------------------------------------------------------------------------------------------


def _unit_near(square: Tensor) -> Tensor:
    """The power of two next to sqrt(square), or 1 where that is not a positive finite number."""
    size = square.sqrt()
    exponent = size.view(torch.int64) & _EXPONENT
    normal = (size > 0.0) & (exponent != 0) & (exponent != _EXPONENT)
    return torch.where(normal, exponent.view(torch.float64), 1.0)


def _smallest_unit(dtype: torch.dtype) -> float:
    """Of differences. Below twice this keeps_digits() says that there are none."""
    return 512.0 * float(torch.finfo(dtype).tiny)


def units_near(now: Tensor, origin: Tensor, difference: Tensor, dtype: torch.dtype) -> Tensor:
    """The units (networks, 2) that suit squares of these means, (networks,) each, in the units `now`.

    That of the differences stays where 1 / unit is a number of that dtype: what is smaller goes to zero there.
    """
    near = now * _unit_near(torch.stack((origin, difference), 1))
    return torch.stack((near[:, 0], near[:, 1].clamp(min=_smallest_unit(dtype))), 1)


def keeps_digits(units: Tensor, dtype: torch.dtype) -> Tensor:
    """(networks,) bool: whether differences of this unit are still normal numbers of that dtype."""
    large = torch.finfo(dtype).max / 1024.0
    return (units[:, 1] > 2.0 * _smallest_unit(dtype)) & (units[:, 0] < large)


def squared_length(origin: Tensor, cross: Tensor, difference: Tensor, dtype: torch.dtype) -> Tensor:
    """|y_a|^2 = |y_0|^2 + 2 y_0 . d_a + |d_a|^2, and 0 where that is but rounding: an input that has gone to zero."""
    length2 = origin + 2.0 * cross + difference
    noise = 64.0 * torch.finfo(dtype).eps * (origin + difference)
    return torch.where(length2 <= noise, 0.0, length2)


def layer_norm(
    width: int, units: Tensor, sums: Tensor, with_origin: Tensor, squares: Tensor, dtype: torch.dtype
) -> LayerNormMaps:
    """The norm over all `width` nodes, from sum_columns() over them, in the units of the layer.

    The variance of input a differs from that of the origin by 2 cov(y_0, d_a) + var(d_a), which keeps its digits when
    all inputs become one, and so does 1 / s_a - 1 / s_0.
    """
    n = float(width)
    unit_0 = units[:, :1]
    ratio = units[:, 1:] / unit_0
    mean_0 = sums[:, :1] / n
    variance_0 = (squares[:, :1] / n - mean_0 * mean_0).clamp(min=0.0)
    s_0 = variance_0.sqrt()
    others = max(sums.shape[1] - 1, 1)
    spread = (squares[:, 1:] / n / others).sum(1, keepdim=True)  # of y around the origin: what the unit has to fit
    unit = (ratio * _unit_near(spread) / _unit_near(variance_0)).clamp(min=_smallest_unit(dtype))

    mean = sums[:, 1:] / n
    covariance = with_origin[:, 1:] / n - mean_0 * mean
    variance = squares[:, 1:] / n - mean * mean
    change = 2.0 * ratio * covariance + ratio * ratio * variance
    s = (variance_0 + change).clamp(min=0.0).sqrt()
    from_origin = -change / (s * s_0 * (s + s_0))  # 1 / s - 1 / s_0
    maps = torch.stack((ratio / (s * unit), from_origin / unit, -(ratio * mean / s + mean_0 * from_origin) / unit), 2)
    first = torch.stack((1.0 / s_0, torch.zeros_like(s_0), -mean_0 / s_0), 2)
    gains = torch.cat((1.0 / s_0 / unit_0, 1.0 / s / unit_0), 1)
    return LayerNormMaps(torch.cat((first, maps), 1).contiguous(), gains, torch.cat((torch.ones_like(unit), unit), 1))
