"""Two samples of networks drawn by different means, and whether they can come from one law."""

from __future__ import annotations

import numpy as np
from scipy import stats

# Seeds are fixed, so a test that passes stays; with a fresh seed one statistic would raise a false alarm once in
# 100,000 times, and all of the package's some 3,000 together once in 30.
FALSE_ALARM = 1e-5


def assert_same_law(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    """Kolmogorov-Smirnov on every statistic: arrays with one value of each network."""
    assert one.keys() == other.keys()
    p_values = {}
    for name in one:
        both = np.array([one[name], other[name]])
        assert np.isfinite(both).all(), f"{name} is not finite"
        both = np.round(both / np.abs(both).max(), 9)  # a constant is one, whatever its rounding
        p_values[name] = stats.ks_2samp(*both, method="asymp").pvalue
    unlike = {name: f"{p:.1g}" for name, p in p_values.items() if p < FALSE_ALARM}
    assert not unlike, unlike
