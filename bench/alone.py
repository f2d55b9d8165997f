"""How long a run takes and how much memory at most, in a process of its own, so that the peak is its own."""

from __future__ import annotations

import json
import subprocess
import sys

_CODE = """
import json, resource, time
from pathlib import Path
import numpy as np
import igbfast as igb
{setup}
start = time.perf_counter()
run()
seconds = time.perf_counter() - start
status = Path("/proc/self/status")  # ru_maxrss would be at least that of the process that started this one
if status.exists():
    peak = next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([seconds, peak]))
"""


def seconds_and_peak(setup: str) -> tuple[float, str]:
    """Seconds that run() takes, which `setup` defines with `igb` and `np` at hand, and the peak memory in words."""
    command = [sys.executable, "-c", _CODE.format(setup=setup)]
    seconds, peak = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return seconds, f"{peak / 2**20:,.0f} MiB resident"
