"""Signatures of the compiled module; csrc/bindings registers them."""

from collections.abc import Callable
from typing import Any, Literal, TypedDict, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

_Real = TypeVar("_Real", np.float32, np.float64)
_Floats = NDArray[np.float64]

class _Config(TypedDict):
    version: str
    compiler: str
    build_type: str
    isa: str
    isas: list[str]
    blas: str
    openmp: bool
    threads: int
    cuda: bool

def config() -> _Config: ...
def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
def set_isa(name: str) -> None: ...
def philox4x32(counter: NDArray[np.uint32], key: NDArray[np.uint32]) -> NDArray[np.uint32]: ...
def normals(
    *,
    seed: int,
    network: int,
    layer: int,
    stream: str,
    rows: int,
    columns: int,
    dtype: str,
    first_row: int = 0,
    first_column: int = 0,
) -> NDArray[Any]: ...
def weights(
    *,
    law: Literal["gaussian", "uniform", "rademacher", "orthogonal"],
    seed: int,
    network: int,
    layer: int,
    rows: int,
    columns: int,
    dtype: str,
) -> NDArray[Any]: ...
def evaluate(
    *, activation: str, parameter: float, what: Literal["value", "slope", "curvature"], x: NDArray[_Real]
) -> NDArray[_Real]: ...
def difference(*, activation: str, parameter: float, m: NDArray[_Real], d: NDArray[_Real]) -> NDArray[_Real]: ...

class Table:
    def __init__(
        self,
        *,
        edges: _Floats,
        value: _Floats,
        slope: _Floats,
        curvature: _Floats,
        by_x: NDArray[np.bool_],
        kinks: _Floats,
        jumps: _Floats,
        parity: int,
        monotone: int,
        q_max: float,
    ) -> None: ...
    @property
    def q_max(self) -> float: ...
    @property
    def parity(self) -> int: ...
    @property
    def one_sign(self) -> bool: ...
    @property
    def monotone(self) -> int: ...
    @property
    def edges(self) -> _Floats: ...
    @property
    def kinks(self) -> _Floats: ...
    @property
    def jumps(self) -> _Floats: ...
    @property
    def series(self) -> _Floats: ...
    @property
    def largest(self) -> _Floats: ...
    @property
    def by_x(self) -> NDArray[np.bool_]: ...
    def __call__(self, derivative: int, x: _Floats) -> _Floats: ...

class Phi:
    @overload
    def __init__(self, *, kind: str, parameter: float = 0.0) -> None: ...
    @overload
    def __init__(self, *, table: Table) -> None: ...
    @overload
    def __init__(self, *, components: list[tuple[float, Phi]]) -> None: ...
    @property
    def q_max(self) -> float: ...
    @property
    def parts(self) -> list[tuple[float, str, float, Table | None]]: ...

def moments(
    *, phi: Phi, pool: str = "none", size: int = 1, derivative: int, q_aa: _Floats, q_bb: _Floats, c: _Floats
) -> _Floats: ...
def single_moments(*, phi: Phi, pool: str = "none", size: int = 1, q: _Floats) -> _Floats: ...
def split_moments(*, phi: Phi, pool: str = "none", size: int = 1, sigma_mu2: _Floats, sigma_y2: _Floats) -> _Floats: ...
def propagate(
    *,
    phi: Phi,
    pool: str = "none",
    size: int = 1,
    sigma_w2: float,
    sigma_b2: float,
    residual: float = 0.0,
    layernorm: bool = False,
    sigma_mu2: float,
    sigma_y2: float,
    depth: int,
) -> dict[str, Any]: ...

class CovarianceMap:
    def __init__(
        self,
        *,
        k0: _Floats | None = None,
        inputs: _Floats | None = None,
        pool: str = "none",
        size: int = 1,
        sigma_w2: float,
        sigma_b2: float,
        residual: float = 0.0,
        layernorm: bool = False,
        depth: int,
    ) -> None: ...
    def advance(self, *, phi: Phi, layer: int, callback: Callable[[float], None] | None = None) -> int: ...
    def covariance(self) -> _Floats: ...
    def columns(self) -> dict[str, _Floats]: ...
    @property
    def largest_seen(self) -> float: ...

class CovarianceLayers:
    def __init__(
        self,
        *,
        inputs: int,
        pool: str = "none",
        size: int = 1,
        sigma_w2: float,
        sigma_b2: float,
        residual: float = 0.0,
        layernorm: bool = False,
        depth: int,
    ) -> None: ...
    @staticmethod
    def middle_of(variance: _Floats) -> int: ...
    def first_step(self, reference: int, variance: float, changes: _Floats) -> dict[str, Any]: ...
    def use(self, phi: Phi) -> None: ...
    def next_step(self, layer: int) -> dict[str, Any] | None: ...
    def make_curves(self, low: float, high: float) -> None: ...
    def routes(self) -> list[tuple[Any, ...]]: ...
    def integrate_pairs(self, covariance: _Floats, distance: _Floats) -> tuple[_Floats, _Floats, float, float]: ...
    def end_step(
        self, covariance: float, distance: float, correlation: float, steep: float, rounding: float = 0.0
    ) -> None: ...
    def variances(self) -> _Floats: ...
    def columns(self) -> dict[str, _Floats]: ...
    @property
    def done(self) -> int: ...
    @property
    def largest_seen(self) -> float: ...

def covariance_memory(*, inputs: int) -> float: ...
def simulate(
    *,
    phi: Phi,
    pool: str = "none",
    pool_size: int = 1,
    weights: str = "gaussian",
    sigma_w2: float = 1.0,
    sigma_b2: float = 0.0,
    residual: float = 0.0,
    layernorm: bool = False,
    width: int,
    depth: int,
    inputs: int | NDArray[Any],
    labels: NDArray[np.int32] | None = None,
    method: str = "gram",
    dtype: str = "float32",
    networks: int = 1,
    first_network: int = 0,
    seed: int = 0,
    loss: str = "none",
    classes: int = 10,
    per_node: bool = False,
    distributions: bool = False,
    tile: int = 0,
    chunk: int = 0,
    callback: Callable[[float], None] | None = None,
) -> dict[str, Any]: ...

class DirectStream:
    def __init__(
        self,
        *,
        phi: Phi,
        pool: str = "none",
        pool_size: int = 1,
        weights: str = "gaussian",
        sigma_w2: float = 1.0,
        sigma_b2: float = 0.0,
        residual: float = 0.0,
        layernorm: bool = False,
        width: int,
        depth: int,
        features: int = 0,
        dtype: str = "float32",
        networks: int = 1,
        first_network: int = 0,
        seed: int = 0,
        loss: str = "none",
        classes: int = 10,
        per_node: bool = False,
        distributions: bool = False,
        tile: int = 0,
        chunk: int = 0,
    ) -> None: ...
    def take(
        self,
        piece: NDArray[Any],
        labels: NDArray[np.int32] | None = None,
        callback: Callable[[float], None] | None = None,
    ) -> None: ...
    def finish(self) -> dict[str, Any]: ...

def simulate_memory(
    *,
    pool: str = "none",
    pool_size: int = 1,
    weights: str = "gaussian",
    sigma_w2: float = 1.0,
    sigma_b2: float = 0.0,
    residual: float = 0.0,
    layernorm: bool = False,
    width: int,
    depth: int,
    features: int = 0,
    inputs: int,
    method: str,
    dtype: str,
    networks: int = 1,
    first_network: int = 0,
    seed: int = 0,
    loss: str = "none",
    classes: int = 10,
    per_node: bool = False,
    distributions: bool = False,
    tile: int = 0,
    chunk: int = 0,
) -> float: ...
def covariance_factor(
    products: _Floats, gain: float, accuracy: float, largest_rank: int
) -> tuple[_Floats, NDArray[np.int64], NDArray[np.int64], bool, float]: ...
def layer_estimates(
    *,
    inputs: int,
    sigma_w2: float,
    residual: float,
    units: _Floats,
    digits_kept: NDArray[np.bool_],
    nodes: _Floats,
    chi: _Floats,
    q: _Floats,
    c: _Floats,
) -> dict[str, _Floats]: ...
