"""simulate on GPUs: the networks are split between them, and each runs its own in a thread of its own.

Networks are independent, and their random numbers depend on nothing but their own number: how they are split changes
nothing but the time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from .. import _core, simulation
from .._inputs import Given, Piece
from .._memory import gib
from .._progress import Step
from ..simulation import Request
from . import _estimates, _products, forward_direct, forward_gram
from ._device import Device, named

__all__ = ["fitted", "run"]

_ENGINES: dict[str, Any] = {"direct": forward_direct, "gram": forward_gram}
_SHARE = 0.9  # of the free memory that a run may take: allocators leave gaps
_TICK = 0.1  # seconds between two looks at Ctrl-C and the progress of several devices

Job = Callable[[Step], Any]


@dataclass(frozen=True)
class Share:
    """What one device does."""

    device: Device
    first: int
    """Number of its first network, of those asked for."""
    request: Request
    """For its networks only."""

    @property
    def networks(self) -> int:
        return self.request.networks


def fitted(candidates: Sequence[Request]) -> Request:
    """The first of the requests that fits the memory of its devices; an array, if need be, in pieces."""
    free = int(_SHARE * min(device.free_memory() for device in candidates[0].devices))
    for candidate in candidates:
        for request in _ways(candidate):
            if _needed(request) <= free:
                return request
    request = candidates[0]
    raise ValueError(
        f"inputs={request.count} at width={request.width} with method={request.method!r} need about "
        f"{gib(_needed(request))} of memory on the GPU, but {gib(free)} are available on {named(request.devices)}: use "
        "fewer inputs, a smaller width or device='cpu'"
    )


def run(request: Request, phi: _core.Phi, step: Step, first_network: int = 0) -> dict[str, Any]:
    """What `_core.simulate` returns, for a request that is fitted; once phi's table is left, only that it was."""
    shares = _shares(request)
    with _products.precision(_switch_for(request)), _out_of_memory(request):
        results = (_in_pieces if request.in_pieces else _at_once)(shares, request, phi, step, first_network)
    if any(result["beyond_table"] for result in results):
        return {"beyond_table": True}
    return _estimates.joined([_renumbered(result, share.first) for result, share in zip(results, shares, strict=True)])


def _switch_for(request: Request) -> str:
    """Products of the reflections that make an orthogonal matrix are never rounded: it would not stay orthogonal."""
    reflections = request.method == "direct" and request.ens.weights == "orthogonal"
    return "full" if reflections else request.products


# ---- Memory ----------------------------------------------------------------------------------------------------------


def _ways(request: Request) -> Iterator[Request]:
    yield request
    if request.method == "direct" and isinstance(request.inputs, Given):
        yield replace(request, streamed=True)


def _needed(request: Request) -> int:
    """Bytes that a device takes at least."""
    inputs = 0 if request.in_pieces or not isinstance(request.inputs, Given) else request.inputs.tensor_bytes
    return inputs + int(_ENGINES[request.method].least_memory(_shares(request)[-1].request))


@contextmanager
def _out_of_memory(request: Request) -> Iterator[None]:
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise MemoryError(
            f"{named(request.devices)} ran out of memory, of which another process may have taken some: use fewer "
            f"inputs or a smaller width ({error})"
        ) from None


# ---- Devices ---------------------------------------------------------------------------------------------------------


def _shares(request: Request) -> list[Share]:
    """Consecutive networks for each device, as many for each as can be."""
    devices = request.devices[: request.networks]
    ends = [request.networks * (k + 1) // len(devices) for k in range(len(devices))]
    return [
        Share(device, begin, replace(request, networks=end - begin))
        for device, begin, end in zip(devices, [0, *ends], ends, strict=False)
    ]


def _at_once(
    shares: Sequence[Share], request: Request, phi: _core.Phi, step: Step, first_network: int
) -> list[dict[str, Any]]:
    engine = getattr(_ENGINES[request.method], f"forward_{request.method}")

    def job(share: Share) -> Job:
        first = first_network + share.first
        return lambda told: engine(
            share.request, phi, share.device, share.networks, request.products, told, first_network=first
        )

    return _together(shares, [job(share) for share in shares], step)


def _in_pieces(
    shares: Sequence[Share], request: Request, phi: _core.Phi, step: Step, first_network: int
) -> list[dict[str, Any]]:
    """Inputs that come piece by piece, each to all devices before the next one is asked for."""
    streams = [
        forward_direct.DirectStream(
            share.request,
            phi,
            share.device,
            share.networks,
            request.products,
            first_network=first_network + share.first,
        )
        for share in shares
    ]
    for piece, progress in simulation.pieces(request, step):
        _together(shares, [_taking(stream, piece) for stream in streams], progress)
    return [stream.finish() for stream in streams]


def _taking(stream: Any, piece: Piece) -> Job:
    return lambda told: stream.take(piece.inputs, piece.labels, told)


def _together(shares: Sequence[Share], jobs: Sequence[Job], step: Step) -> list[Any]:
    """The results of the jobs, each on the device of its share, all at once; the first error, or Ctrl-C, ends all."""
    if len(jobs) == 1:
        with torch.no_grad():
            return [jobs[0](step)]
    stop = threading.Event()
    done = [0.0] * len(jobs)
    weights = [share.networks for share in shares]
    contexts = [_as_here(share.device) for share in shares]

    def work(number: int) -> Any:
        def told(fraction: float) -> None:
            if stop.is_set():
                raise _StoppedError
            done[number] = fraction

        with contexts[number], torch.no_grad():
            return jobs[number](told)

    with ThreadPoolExecutor(len(jobs)) as pool:
        futures = [pool.submit(work, number) for number in range(len(jobs))]
        try:
            running = True
            while running:
                finished, waiting = wait(futures, _TICK, FIRST_EXCEPTION)
                for future in finished:
                    future.result()  # which raises what it raised
                running = bool(waiting)
                step(float(np.average(done, weights=weights)))
        finally:
            stop.set()
    return [future.result() for future in futures]


class _StoppedError(Exception):
    """Another device met an error, or the user has had enough."""


def _as_here(device: Device) -> Any:
    """The caller's stream on that device, for another thread: what the caller has put on it comes first."""
    cuda = device.torch.type == "cuda"
    return torch.cuda.stream(torch.cuda.current_stream(device.torch)) if cuda else nullcontext()


def _renumbered(result: dict[str, Any], first: int) -> dict[str, Any]:
    """The entries of histograms count networks from that of the share."""
    moved = dict(result)
    for name, entries in result.items():
        if isinstance(entries, dict):
            moved[name] = entries | {"network": (entries["network"] + first).astype(np.int32)}
    return moved
