"""How the nodes of a layer lie in tensors on the device: the Python side of csrc/cuda/layout.h."""

from __future__ import annotations

from dataclasses import dataclass

UNIT = 64
"""Random numbers are made in blocks of so many columns: slabs begin at multiples of it."""


@dataclass(frozen=True)
class Slab:
    """The nodes of a layer that are in memory together: of each of the `members` of the pools, [first, first + nodes).

    Node (s, p) of them is row s * member + p, with the random numbers of column s * stride + first + p; rows from
    `nodes` to `member` are padding.
    """

    members: int
    nodes: int
    member: int
    first: int
    stride: int

    @property
    def rows(self) -> int:
        """R, the length of a tile's columns."""
        return self.members * self.member

    @property
    def ints(self) -> tuple[int, int, int, int, int]:
        """As the kernels take it."""
        return self.members, self.nodes, self.member, self.first, self.stride


def padded(count: int) -> int:
    """The next multiple of UNIT."""
    return -(-count // UNIT) * UNIT


def whole_layer(members: int, pools: int) -> Slab:
    """All nodes of a layer of `members` times `pools` nodes."""
    return Slab(members, pools, padded(pools), 0, padded(pools))


def slabs(members: int, pools: int, nodes: int) -> list[Slab]:
    """The layer in slabs of so many nodes of each member, a multiple of UNIT."""
    stride = padded(pools)
    counts = [(first, min(nodes, pools - first)) for first in range(0, pools, nodes)]
    return [Slab(members, count, padded(count), first, stride) for first, count in counts]
