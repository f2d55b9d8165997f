"""Which share of the inputs each class gets in untrained networks, against the law that gamma alone determines."""

from __future__ import annotations

import numpy as np
import pytest
from network_reference import Reference
from scipy import stats

import igbfast as igb


def gamma_of_the_head(reference: Reference) -> float:
    """Theory's gamma of the logits: one layer beyond the last."""
    return float(reference.theory(reference.depth + 1)["gamma"][-1])


def fractions(reference: Reference, networks: int) -> np.ndarray:
    """Share of each class, (network, class)."""
    guess = reference.simulate(networks=networks)["guess"]
    return np.stack([(guess == k).mean(axis=1) for k in range(reference.classes)], axis=1)


def law_of_counts(gamma: float, inputs: int) -> np.ndarray:
    """P(class 0 gets at most 0 .. inputs of them): each goes there with probability G, taken at its quantiles."""
    n = 4000
    g = np.clip(igb.guessing.quantile((np.arange(n) + 0.5) / n, gamma), 1e-300, 1 - 1e-16)
    return np.array([stats.binom.cdf(k, inputs, g).mean() for k in range(inputs + 1)])


ENSEMBLES = {
    # What gamma the head comes to: neutral, about 1, and prejudiced.
    "neutral": Reference("tanh", sigma_w2=2.5, sigma_b2=0.05, depth=3),
    "between": Reference("relu", sigma_w2=2.0, sigma_b2=0.1, depth=2),
    "prejudice": Reference("relu", sigma_w2=2.0, sigma_b2=0.1, depth=8),
    "deep prejudice": Reference("tanh", sigma_w2=0.9, sigma_b2=0.05, depth=25),
    "max pool": Reference("relu", sigma_w2=1.1, sigma_b2=0.0, depth=2, pool="max", pool_size=2),
    "norm": Reference("relu", sigma_w2=1.5, sigma_b2=0.1, depth=3, layernorm=True),
}


@pytest.mark.parametrize("method", ["direct", "gram"])
@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_two_classes(ensemble, method):
    inputs, networks, width = 20, 1000, 600 if method == "gram" else 150
    reference = ENSEMBLES[ensemble].with_(method=method, width=width, inputs=inputs, classes=2, dtype="float32")
    share = fractions(reference, networks)
    gamma = gamma_of_the_head(reference)
    counts = np.rint(share[:, 0] * inputs).astype(int)
    seen = np.bincount(counts, minlength=inputs + 1).cumsum() / networks
    # Kolmogorov-Smirnov, which for a law of steps errs on the side of no alarm: one in 10,000 at most. A width of 600
    # (150) widens the law by some thousandths.
    critical = stats.kstwobign.isf(1e-4) / np.sqrt(networks)
    assert np.abs(seen - law_of_counts(gamma, inputs)).max() < critical
    # So the test tells gamma from a few times more or less.
    for other in (gamma / 4, gamma * 4) if gamma < 100 else ():
        assert np.abs(law_of_counts(gamma, inputs) - law_of_counts(other, inputs)).max() > critical


def test_two_classes_are_the_guessing_law_itself():
    # So many inputs that the share's own scatter, at most 1 / (2 sqrt(inputs)), no longer shows.
    reference = ENSEMBLES["between"].with_(width=200, inputs=1000, classes=2, dtype="float32")
    share = fractions(reference, 400)[:, 0]
    gamma = gamma_of_the_head(reference)
    assert stats.kstest(share, lambda g: igb.guessing.cdf(g, gamma)).pvalue > 1e-4


@pytest.mark.parametrize("ensemble", ["neutral", "between", "prejudice"])
def test_the_favoured_one_of_ten_classes(ensemble):
    # The largest share among many inputs is near the share of the class with the largest centre.
    classes, networks, inputs = 10, 250, 600
    reference = ENSEMBLES[ensemble].with_(width=200, inputs=inputs, classes=classes, dtype="float32")
    share = fractions(reference, networks)
    np.testing.assert_allclose(share.sum(axis=1), 1.0)
    largest = share.max(axis=1)
    error = largest.std(ddof=1) / np.sqrt(networks)
    gamma = gamma_of_the_head(reference)
    # With n inputs a share g scatters by sqrt(g (1 - g) / n), which lifts the largest of them by less than that.
    scatter = np.sqrt(largest.mean() * (1 - largest.mean()) / inputs)
    want = igb.guessing.expected_maximum(gamma, classes=classes)
    assert -4 * error < largest.mean() - want < 4 * error + scatter
    # The variance of the share of each class, less the scatter of its inputs.
    own = (share * (1 - share) / (inputs - 1)).mean(axis=1)
    spread = ((share - 1 / classes) ** 2).mean(axis=1) - own
    assert abs(spread.mean() - igb.guessing.variance(gamma, classes=classes)) < 4 * spread.std() / np.sqrt(networks)


@pytest.mark.parametrize("method", ["direct", "gram"])
def test_no_class_is_special(method):
    # Over networks every class is the favoured one equally often.
    networks, classes = 1000, 5
    reference = Reference("relu", sigma_w2=2.0, sigma_b2=0.5, width=64, depth=4, inputs=10, method=method)
    favoured = fractions(reference.with_(classes=classes), networks).argmax(axis=1)
    counts = np.bincount(favoured, minlength=classes)
    expected = networks / classes
    assert ((counts - expected) ** 2 / expected).sum() < 40  # chi square with 4 degrees of freedom: 4e-8
