"""Pages whose examples need PyTorch are left out where it is not installed."""

from importlib.util import find_spec

_NEED_TORCH = ["data.md", "experiments.md", "trainability.md", "training.md"]

collect_ignore = ["conftest.py", *([] if find_spec("torch") else _NEED_TORCH)]
