"""How much memory a call may still take: the smallest of what the machine, the control groups and ulimit leave."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["available_memory", "gib"]

_GIB = 1024.0**3


def gib(count: float) -> str:
    """Bytes in words: `3.2 GiB`, `1,024 GiB`."""
    amount = count / _GIB
    return f"{amount:,.0f} GiB" if amount >= 100 else f"{amount:.3g} GiB"


def available_memory(root: str | os.PathLike[str] = "/") -> int | None:
    """Bytes that can still be taken, or None where the system does not say (then nothing is refused).

    `root` is the folder under which `proc` and `sys` are looked up; tests bring their own.
    """
    base = Path(root)
    limits = [*_free_on_machine(base), *_left_in_groups(base), *_left_by_ulimit(base)]
    return max(0, min(limits)) if limits else None


def _free_on_machine(base: Path) -> Iterator[int]:
    for line in _lines(base / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024
            return


def _left_in_groups(base: Path) -> Iterator[int]:
    """Limit less use of every memory control group around this process, version 2 or 1; batch systems set these."""
    for line in _lines(base / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, names = base / "sys/fs/cgroup", ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            top, names = base / "sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        group = top / path.lstrip("/")
        while group.is_relative_to(top):
            limit, used = (_number(group / name) for name in names)
            if limit is not None and used is not None:
                yield limit - used + _reclaimable(group)
            group = group.parent


def _reclaimable(group: Path) -> int:
    """Cached file pages count as used, but the kernel gives them up first."""
    for line in _lines(group / "memory.stat"):
        if line.startswith(("inactive_file ", "total_inactive_file ")):
            return int(line.split()[1])
    return 0


def _left_by_ulimit(base: Path) -> Iterator[int]:
    try:
        import resource
    except ImportError:  # not a POSIX system
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    pages = _number(base / "proc/self/statm")
    if limit != resource.RLIM_INFINITY and pages is not None:
        yield limit - pages * resource.getpagesize()


def _number(path: Path) -> int | None:
    """The first word of a file as a number; None if there is no such file, or it says `max`."""
    words = " ".join(_lines(path)).split()
    return int(words[0]) if words and words[0].isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
