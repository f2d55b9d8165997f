"""Products of the large matrices of a batch of networks, by PyTorch's libraries.

A network's numbers must not depend on which networks share the device with it, but the libraries choose their way by
the number of matrices in a batch. So batches have a fixed number of networks, `lanes`, whatever there are.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

PRODUCTS = ("full", "tf32", "bfloat16")

# Nodes summed in float32. The rounding of such a sum grows with its length, and what tells nearly equal inputs apart is
# lost in it: over some hundred nodes it stays near that of the numbers themselves, and sums of sums are float64.
_BLOCK = 256
_BLOCKS_AT_ONCE = 64
_NUMBERS_AT_ONCE = 1 << 24  # of the products of all blocks at once
_ALIGNMENT = 64  # bytes
_SMALL = 1 << 17  # numbers of one network's tile, below which it would not fill a device alone
_LANES = 16


@dataclass(frozen=True)
class Products:
    """How float32 matrices are multiplied; float64 ones are as they are, always.

    full: float32 throughout. tf32: operands rounded to 11 bits, as the tensor cores do it. bfloat16: operands rounded
    to 8 bits; such numbers are TF32 numbers too, so the same cores multiply them exactly. All sums are float32.
    """

    kind: str
    lanes: int

    @classmethod
    def of(cls, kind: str, columns: int, nodes: int, on_host: bool = False) -> Products:
        """For tiles of so many columns and nodes of one network.

        On the host, whose libraries look at the alignment of every matrix of a batch, one by one.
        """
        return cls(kind, 1 if on_host or columns * nodes >= _SMALL else _LANES)

    def rounded(self, matrix: Any) -> Any:
        """The operand as it is multiplied."""
        return matrix.bfloat16().float() if self.kind == "bfloat16" and matrix.dtype == torch.float32 else matrix

    def multiply(self, left: Any, right: Any, out: Any = None, *, add: bool = False) -> Any:
        """out = left @ right, or out + left @ right, of each network: (G, m, k), (G, k, n) -> (G, m, n)."""
        if out is None:
            out = left.new_empty(left.shape[0], left.shape[1], right.shape[2])
        for batch, count in _batches(range(left.shape[0]), self.lanes):
            to = _chosen(out, batch)
            a, b = (self.rounded(_chosen(of, batch)) for of in (left, right))
            torch.baddbmm(to, a, b, out=to) if add else torch.bmm(a, b, out=to)
            if to.data_ptr() != out[batch[0]].data_ptr():
                out[batch[0] : batch[0] + count] = to[:count]
        return out

    def over_nodes(self, left: Any, right: Any, networks: Sequence[int], *, wide: bool = False) -> Any:
        """left @ right^T over the nodes, the last dimension, for the networks named: float64 (len(networks), m, n).

        wide: products of float64 from the first, for what float32 sums do not tell.
        """
        m, n, nodes = left.shape[1], right.shape[1], left.shape[2]
        total = torch.zeros(len(networks), m, n, dtype=torch.float64, device=left.device)
        done = 0
        for batch, count in _batches(networks, self.lanes):
            a = _chosen(left, batch)
            b = a if right is left else _chosen(right, batch)
            for begin, end in _pieces(nodes, m * n):
                part = a[:, :, begin:end]
                other = part if b is a else b[:, :, begin:end]
                total[done : done + count] += self._in_blocks(part, other, wide)[:count]
            done += count
        return total

    def sums(self, values: Any) -> Any:
        """Over the last dimension, in float64: (G, ..., m) -> (G, ...)."""
        batches = _batches(range(values.shape[0]), self.lanes)
        return torch.cat([_chosen(values, batch).sum(-1, dtype=torch.float64)[:count] for batch, count in batches])

    def _in_blocks(self, a: Any, b: Any, wide: bool) -> Any:
        """Sums over blocks of nodes, one after the other, of products of blocks."""
        same = a is b
        a = a.double() if wide else self.rounded(a)
        b = a if same else b.double() if wide else self.rounded(b)
        blocks = max(a.shape[2] // _BLOCK, 1)
        a, b = (of.unflatten(2, (blocks, -1)).transpose(1, 2) for of in (a, b))
        return torch.matmul(a, b.mT).sum(1, dtype=torch.float64)


def _pieces(nodes: int, numbers: int) -> Iterator[tuple[int, int]]:
    """Whole blocks of nodes, as many as may be multiplied at once, and what is left of the last one."""
    whole = nodes // _BLOCK * _BLOCK
    step = _BLOCK * max(1, min(_BLOCKS_AT_ONCE, _NUMBERS_AT_ONCE // numbers))
    for begin in range(0, whole, step):
        yield begin, min(begin + step, whole)
    if whole < nodes:
        yield whole, nodes


def _batches(networks: Sequence[int], lanes: int) -> Iterator[tuple[list[int], int]]:
    """Lists of exactly `lanes` networks, the last filled up with its last, and how many of them count."""
    for begin in range(0, len(networks), lanes):
        batch = list(networks[begin : begin + lanes])
        yield batch + batch[-1:] * (lanes - len(batch)), len(batch)


def _chosen(tensor: Any, networks: list[int]) -> Any:
    """The slices of these networks, without a copy where they follow each other and begin where a tensor could.

    Libraries look at the alignment, too. That of tiles is always as good as that of a tensor.
    """
    first, count = networks[0], len(networks)
    if networks != list(range(first, first + count)):
        return torch.stack([tensor[g] for g in networks])  # a list as index would have the host wait for the device
    slices = tensor[first : first + count]
    return slices if slices.data_ptr() % _ALIGNMENT == 0 else slices.clone()


# ---- PyTorch's switch ------------------------------------------------------------------------------------------------

_changing = threading.Condition()
_users: dict[str, int] = {}  # runs that have the switch where they want it
_before: list[str] = []  # where it was before the first of them


@contextmanager
def precision(kind: str) -> Iterator[None]:
    """PyTorch's switch for TF32, which is one for all threads, as `kind` wants it, and back where it was at the end.

    Runs that want it elsewhere wait for each other.
    """
    wanted = "ieee" if kind == "full" else "tf32"
    with _changing:
        _changing.wait_for(lambda: not _users or wanted in _users)
        if not _users:
            _before.append(_switch())
            _set_switch(wanted)
        _users[wanted] = _users.get(wanted, 0) + 1
    try:
        yield
    finally:
        with _changing:
            _users[wanted] -= 1
            if not _users[wanted]:
                del _users[wanted]
                _set_switch(_before.pop())
                _changing.notify_all()


def _switch() -> str:
    matmul = torch.backends.cuda.matmul
    return str(matmul.fp32_precision) if hasattr(matmul, "fp32_precision") else "tf32" if matmul.allow_tf32 else "ieee"


def _set_switch(value: str) -> None:
    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, "fp32_precision"):
        matmul.fp32_precision = value
    else:  # before PyTorch 2.9
        matmul.allow_tf32 = value == "tf32"
