"""A progress bar for calls that last: on the terminal's error stream, gone when the call ends, however it ends."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from . import _checks

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["Step", "progress_bar", "silent"]

_PATIENCE = 0.5  # seconds before a bar is worth showing

Step = Callable[[float], None]
"""Takes the done fraction, from 0 to 1."""


def silent(fraction: float) -> None:
    """The step that shows nothing."""


@contextmanager
def progress_bar(label: str, progress: bool | None) -> Iterator[Step]:
    """A step to call with the done fraction.

    `progress` None: a bar if the error stream is a terminal and the call lasts longer than half a second; True: a bar
    at once; False: none. The bar redraws itself only when the step is called, so no thread is left behind.
    """
    if progress is not None and not isinstance(progress, (bool, np.bool_)):
        raise TypeError(f"progress must be None, True or False, got {_checks.shown(progress)}")
    if (progress is not None and not progress) or (progress is None and not sys.stderr.isatty()):
        yield silent
        return
    bar = _Bar(label, forced=bool(progress))
    try:
        yield bar.step
    finally:
        bar.close()


class _Bar:
    def __init__(self, label: str, forced: bool) -> None:
        self._label, self._forced = label, forced
        self._show_at = time.monotonic() + (0.0 if forced else _PATIENCE)
        self._shown: Progress | None = None
        if forced:
            self.step(0.0)

    def step(self, fraction: float) -> None:
        if self._shown is None:
            if time.monotonic() < self._show_at:
                return
            self._shown = _new_progress(self._forced)
            self._shown.add_task(self._label, total=1.0)
            self._shown.start()
        self._shown.update(self._shown.task_ids[0], completed=min(max(fraction, 0.0), 1.0), refresh=True)

    def close(self) -> None:
        if self._shown is not None:
            self._shown.stop()  # transient: takes the bar off the terminal and gives the cursor back


def _new_progress(forced: bool) -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]left"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True, force_terminal=True if forced else None)
    return Progress(*columns, console=console, transient=True, auto_refresh=False)
