"""What was built, what was found on this machine and what is in use; and how many threads to use."""

from __future__ import annotations

import platform
from typing import Any

from . import _checks, _core
from .gpu import _device

__all__ = ["get_num_threads", "set_num_threads", "show_config"]

MAX_THREADS = 4096


def show_config(mode: str = "stdout") -> dict[str, Any] | None:
    """Say how igbfast was built and what it uses: for a bug report, or to see whether a fast BLAS was found.

    Parameters
    ----------
    mode : {"stdout", "dicts"}, optional
        `stdout` prints a table, `dicts` returns the same as a dictionary (the words are NumPy's).

    Returns
    -------
    dict or None
        Versions of igbfast, Python, NumPy and xarray; platform; compiler; build type; instruction set in use and those
        available; BLAS; OpenMP; threads; CUDA: whether it was built, with which version and for which GPUs, the driver,
        the GPUs that are there, and what keeps `device="cuda"` from working, if anything does.

    Raises
    ------
    ValueError, TypeError
        If `mode` is anything else.

    Examples
    --------
    >>> import igbfast as igb
    >>> found = igb.show_config("dicts")
    >>> found["instruction set"] in found["instruction sets available"]
    True
    """
    _checks.choice("mode", mode, ("stdout", "dicts"))
    found = _configuration()
    if mode == "dicts":
        return found
    from rich.console import Console

    from ._tables import configuration_table

    Console(highlight=False, soft_wrap=True).print(configuration_table(found))
    return None


def set_num_threads(n: int) -> None:
    """Use at most `n` threads in later calls. Results do not depend on it, to the last bit.

    Parameters
    ----------
    n : int
        1 to 4096; more than the machine has cores is allowed and slow.

    Raises
    ------
    ValueError, TypeError
        If `n` is out of range or not an integer.

    Examples
    --------
    >>> import igbfast as igb
    >>> before = igb.get_num_threads()
    >>> igb.set_num_threads(1)
    >>> igb.get_num_threads()
    1
    >>> igb.set_num_threads(before)
    """
    _core.set_num_threads(_checks.integer("n", n, 1, MAX_THREADS))


def get_num_threads() -> int:
    """How many threads a call uses at most; `OMP_NUM_THREADS` and the machine decide it at first.

    Returns
    -------
    int

    Examples
    --------
    >>> import igbfast as igb
    >>> igb.get_num_threads() >= 1
    True
    """
    return int(_core.get_num_threads())


def _configuration() -> dict[str, Any]:
    import numpy as np
    import xarray as xr

    built = _core.config()
    return {
        "igbfast": built["version"],
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "xarray": xr.__version__,
        "platform": platform.platform(),
        "compiler": built["compiler"],
        "build type": built["build_type"],
        "instruction set": built["isa"],
        "instruction sets available": list(built["isas"]),
        "BLAS": built["blas"],
        "OpenMP": built["openmp"],
        "threads": built["threads"],
        **_device.describe(),
    }
