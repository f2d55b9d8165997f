"""Benchmarks: igbfast against the algorithms that it replaces, in one run on one machine."""
