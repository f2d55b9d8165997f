"""Signatures of the compiled module; csrc/bindings registers them."""

from collections.abc import Callable
from typing import Any, Literal, TypedDict, TypeVar

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
def evaluate(
    *, activation: str, parameter: float, what: Literal["value", "slope", "curvature"], x: NDArray[_Real]
) -> NDArray[_Real]: ...
def difference(*, activation: str, parameter: float, m: NDArray[_Real], d: NDArray[_Real]) -> NDArray[_Real]: ...
def moments(
    *, activation: str, parameter: float, derivative: int, q_aa: _Floats, q_bb: _Floats, c: _Floats
) -> _Floats: ...
def single_moments(*, activation: str, parameter: float, q: _Floats) -> _Floats: ...
def split_moments(*, activation: str, parameter: float, sigma_mu2: _Floats, sigma_y2: _Floats) -> _Floats: ...
def propagate(
    *,
    activation: str,
    parameter: float,
    sigma_w2: float,
    sigma_b2: float,
    sigma_mu2: float,
    sigma_y2: float,
    depth: int,
) -> dict[str, _Floats]: ...
def simulate(
    *,
    activation: str,
    parameter: float,
    sigma_w2: float,
    sigma_b2: float,
    width: int,
    depth: int,
    inputs: int | NDArray[Any],
    networks: int = 1,
    first_network: int = 0,
    seed: int = 0,
    method: str = "gram",
    dtype: str = "float32",
    per_node: bool = False,
    tile: int = 0,
    chunk: int = 0,
    callback: Callable[[float], None] | None = None,
) -> dict[str, _Floats]: ...
def simulate_memory(
    *,
    method: str,
    width: int,
    depth: int,
    inputs: int,
    features: int = 0,
    dtype: str,
    networks: int = 1,
    per_node: bool = False,
) -> float: ...
