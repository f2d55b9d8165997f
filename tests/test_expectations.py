"""Gaussian expectations of every activation and pool, against many digits from references_all.py.

tests/data/expectations.json holds what that script computed: pairs over q from 0.003 to 60 (and 10^4), c from -1 to 1
and unequal variances, spreads down to sigma_y2 = 1e-30, pools of 2, 3 and 7 nodes. Some of it is computed again here,
and held against textbook formulas, so that the file cannot be wrong in silence.
"""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import references
import references_all
from mpmath import mp, mpf, workdps

import igbfast as igb
from igbfast import _core

DATA = json.loads((Path(__file__).parent / "data" / "expectations.json").read_text())
NODES, MAX_POOLS, MIN_POOLS = DATA["nodes"], DATA["max_pools"], DATA["min_pools"]

# Not in the package by name: what a user would write.
CUSTOM = {
    "tanh(50x)": lambda: igb.Activation.custom(lambda x: np.tanh(50.0 * x)),
    "sin(20x)": lambda: igb.Activation.custom(lambda x: np.sin(20.0 * x)),
}
NAMED = sorted(set(NODES) - set(CUSTOM))
SINGULAR = ("gelu", "silu")  # whose pools of wide normals references_all.py knows to 1e-9: a singularity limits it

WIDEST = 100.0  # 1e-12 up to here, 1e-10 beyond


def activation(name):
    return CUSTOM[name]() if name in CUSTOM else igb.Activation(name)


def tolerances(q):
    return np.where(np.asarray(q) <= WIDEST, 1e-12, 1e-10)


def single(phi, q, pool="none", size=1):
    """mean, square, slope2, square_dq, mean_dq as columns."""
    q = np.atleast_1d(np.asarray(q, float))
    return _core.single_moments(phi=phi._core_phi(q.max(), pool in ("max", "min")), pool=pool, size=size, q=q).T


def split(phi, sigma_mu2, sigma_y2, pool="none", size=1):
    """centre and spread as columns."""
    mu2, y2 = (np.atleast_1d(np.asarray(x, float)) for x in np.broadcast_arrays(sigma_mu2, sigma_y2))
    core = phi._core_phi((mu2 + y2).max(), pool in ("max", "min"))
    return _core.split_moments(phi=core, pool=pool, size=size, sigma_mu2=mu2, sigma_y2=y2).T


def rows_of(name, order):
    """q_a, q_b, c and E[phi^(m)(u) phi^(m)(v)] as columns, and sqrt(E[phi^(m)(u)^2] E[phi^(m)(v)^2])."""
    table = np.array(NODES[name]["moments"])
    q_a, q_b, c = table[:, :3].T
    exact = table[:, 3 + order]
    square = {a: value for a, b, r, value in zip(q_a, q_b, c, exact, strict=True) if a == b and r == 1.0}
    return q_a, q_b, c, exact, np.array([math.sqrt(square[a] * square[b]) for a, b in zip(q_a, q_b, strict=True)])


def orders(name):
    return len(NODES[name]["moments"][0]) - 3


WITH_ORDERS = [(name, order) for name in NAMED for order in range(orders(name))]
PLAIN = {"max": igb.MaxPool, "min": igb.MinPool, "average": igb.AvgPool}
POOLED = [("max", name) for name in MAX_POOLS] + [("min", name) for name in MIN_POOLS]


# ---- The references themselves ---------------------------------------------------------------------------------------


def sign_covariance(q_aa, q_bb, q_ab):
    return 2 / mp.pi * mp.asin(q_ab / mp.sqrt(q_aa * q_bb))


def gaussian_covariance(q_aa, q_bb, q_ab):
    """E[exp(-u^2 - v^2)]: one over the root of a determinant."""
    return 1 / mp.sqrt((1 + 2 * q_aa) * (1 + 2 * q_bb) - 4 * q_ab**2)


TEXTBOOK = {
    "relu": references.relu_covariance,
    "abs": lambda a, b, ab: 2 * (references.relu_covariance(a, b, ab) + references.relu_covariance(a, b, -ab)),
    "erf": references.erf_covariance,
    "sign": sign_covariance,
    "step": lambda a, b, ab: (1 + sign_covariance(a, b, ab)) / 4,
    "gaussian": gaussian_covariance,
    "hermite(3)": lambda a, b, ab: 6 * ab**3 + 9 * ab * (a - 1) * (b - 1),
}


@pytest.mark.parametrize("name", TEXTBOOK)
def test_the_file_agrees_with_textbook_formulas(name):
    q_a, q_b, c, exact, scale = rows_of(name, 0)
    with workdps(80):
        for a, b, r, value, size in zip(q_a, q_b, c, exact, scale, strict=True):
            formula = TEXTBOOK[name](mpf(a), mpf(b), mpf(r) * mp.sqrt(mpf(a) * mpf(b)))
            assert float(abs(value - formula)) <= 1e-15 * size
        for mu2, y2, value in NODES[name]["splits"]:
            q, covariance = mpf(mu2) + mpf(y2), mpf(mu2)
            formula = TEXTBOOK[name](q, q, q) - TEXTBOOK[name](q, q, covariance)
            assert float(abs(value / formula - 1)) <= 1e-15


@pytest.fixture
def panels(monkeypatch):
    """references_all.py with shorter rules, for 1e-11 in a second."""
    monkeypatch.setattr(references_all, "NODES", 12)
    references_all.set_digits(20)
    return references_all


@pytest.mark.parametrize(("name", "row"), [("softsign", 1), ("gelu", 5), ("hardtanh", 22), ("sin", 20)])
def test_the_file_can_be_computed_again(panels, name, row):
    q_a, q_b, c, *stored = NODES[name]["moments"][row]
    act = panels.activations()[name]
    act.closed = None  # sin: by integration, although the file has a formula
    np.testing.assert_allclose(np.array(panels.pair(act, q_a, q_b, c), float), stored, rtol=1e-11)


def test_a_spread_of_the_file_can_be_computed_again(panels):
    mu2, y2, stored = NODES["hardtanh"]["splits"][4]
    assert float(panels.spread(panels.activations()["hardtanh"], mu2, y2)) == pytest.approx(stored, rel=1e-9)


# ---- One node --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "order"), WITH_ORDERS)
def test_moments(name, order):
    q_a, q_b, c, exact, scale = rows_of(name, order)
    found = igb.moments(activation(name), q_a, c, derivative=order, q_b=q_b)
    error = np.abs(found - exact) / scale / tolerances(np.maximum(q_a, q_b))
    worst = np.argmax(error)
    assert error[worst] <= 1.0, (q_a[worst], q_b[worst], c[worst], found[worst], exact[worst])


@pytest.mark.parametrize("name", ["relu", "relu6", "sigmoid", "hard_sigmoid", "softplus", "step", "gaussian", "exp"])
def test_moments_where_nothing_cancels(name):
    """phi >= 0: relative to the expectation itself, unless it is as good as nothing."""
    q_a, q_b, c, exact, scale = rows_of(name, 0)
    kept = (np.maximum(q_a, q_b) <= WIDEST) & (exact >= (1e-300 if name == "exp" else 1e-3) * scale)
    found = igb.moments(name, q_a[kept], c[kept], q_b=q_b[kept])
    np.testing.assert_allclose(found, exact[kept], rtol=5e-12)


@pytest.mark.parametrize("name", CUSTOM)
def test_moments_of_steep_and_fast_functions(name):
    q_a, q_b, c, exact, scale = rows_of(name, 0)
    kept = np.maximum(q_a, q_b) <= WIDEST
    found = igb.moments(activation(name), q_a[kept], c[kept], q_b=q_b[kept])
    assert np.max(np.abs(found - exact[kept]) / scale[kept]) <= 1e-12


@pytest.mark.parametrize("name", [*NAMED, *CUSTOM])
def test_spreads(name):
    """E[(phi(u) - phi(v))^2] / 2 to all its digits, however small."""
    mu2, y2, exact = np.array([row for row in NODES[name]["splits"] if name in NAMED or sum(row[:2]) <= WIDEST]).T
    centre, spread = split(activation(name), mu2, y2)
    error = np.abs(spread / exact - 1) / tolerances(mu2 + y2)
    worst = np.argmax(error)
    assert error[worst] <= 1.0, (mu2[worst], y2[worst], spread[worst], exact[worst])
    square = igb.moments(activation(name), mu2 + y2)
    np.testing.assert_array_less(np.abs(centre + spread - square), 2 * tolerances(mu2 + y2) * square)


@pytest.mark.parametrize("name", NAMED)
def test_singles(panels, monkeypatch, name):
    monkeypatch.setattr(panels, "NODES", 40)
    act = panels.activations()[name]
    q = np.array([0.004, 0.3, 5.0, 80.0])
    if name == "exp":  # whose mass lies far out
        exact = np.array([np.exp(q / 2), np.exp(2 * q), np.exp(2 * q), 2 * np.exp(2 * q), np.exp(q / 2) / 2])
    else:
        exact = np.array([[float(x) for x in panels.single(act, variance)] for variance in q]).T
    if orders(name) == 1:
        exact[2] = math.inf  # phi jumps
    found = single(activation(name), q)
    root = np.sqrt(exact[1])
    assert np.max(np.abs(found[0] - exact[0]) / root) <= 1e-12
    np.testing.assert_allclose(found[1], exact[1], rtol=1e-12)
    np.testing.assert_allclose(found[2], exact[2], rtol=1e-12)
    assert np.max(np.abs(found[3] - exact[3]) / np.maximum(exact[1] / q, np.abs(exact[3]))) <= 1e-12
    assert np.max(np.abs(found[4] - exact[4]) * q / root) <= 2e-11  # only susceptibilities of average pools see it


@pytest.mark.parametrize("name", NAMED)
def test_pair_split_and_single_agree_everywhere(name):
    """Between the stored points: three pieces of code over a dense grid, across every edge of a table."""
    phi = activation(name)
    q, c = np.meshgrid(np.geomspace(1e-3, 20.0 if name == "exp" else 1e3, 37), [0.0, 1e-3, 0.37, 0.96, 1 - 1e-7])
    q, c = q.ravel(), c.ravel()
    pair, square, (centre, spread) = igb.moments(phi, q, c), single(phi, q)[1], split(phi, q * c, q * (1 - c))
    tolerance = 2 * tolerances(q) * square
    np.testing.assert_array_less(np.abs(centre - pair), tolerance)
    np.testing.assert_array_less(np.abs(centre + spread - square), tolerance)
    assert np.all(spread >= 0.0)


@pytest.mark.parametrize("name", NAMED)
def test_derivatives_that_do_not_exist_are_refused(name):
    for order in range(orders(name), 3):
        with pytest.raises(ValueError, match="derivative"):
            igb.moments(name, 1.0, 0.5, derivative=order)


def test_a_mixture_is_the_weighted_sum():
    parts = [(0.25, "relu"), (0.35, "gelu"), (0.4, "softsign")]
    phi = _core.Phi(components=[(weight, igb.Activation(name)._core_phi(10.0)) for weight, name in parts])
    rows = [row for row in range(len(NODES["relu"]["moments"])) if NODES["relu"]["moments"][row][0] <= 7.0]
    q_a, q_b, c = np.array([NODES["relu"]["moments"][row][:3] for row in rows]).T
    kept = q_b <= 7.0
    for order in (0, 1):
        exact = sum(
            weight * np.array([NODES[name]["moments"][row][3 + order] for row in rows]) for weight, name in parts
        )
        found = _core.moments(phi=phi, derivative=order, q_aa=q_a[kept], q_bb=q_b[kept], c=c[kept])
        np.testing.assert_allclose(found, exact[kept], rtol=1e-12, atol=1e-12 * np.abs(exact[kept]).min())


# ---- Pools -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name"), POOLED)
def test_extreme_pools(kind, name):
    phi = igb.Activation(name)
    for size, q, c, exact, mean, square, slope2 in {"max": MAX_POOLS, "min": MIN_POOLS}[kind][name]:
        found = single(phi, q, kind, int(size))[:, 0]
        np.testing.assert_allclose(found[0], mean, rtol=1e-12, atol=1e-12 * math.sqrt(square))
        np.testing.assert_allclose(found[1:3], [square, slope2], rtol=1e-12)
        tolerance = 1e-9 if name in SINGULAR and q > 1.0 else 1e-12
        pair = igb.moments(phi, q, c, pool=PLAIN[kind](int(size)))
        assert abs(pair - exact) <= tolerance * square, (size, q, c, pair, exact)
        if c > 0.0:
            centre, spread = split(phi, q * c, q * (1 - c), kind, int(size))
            assert abs(centre[0] - exact) <= tolerance * square, (size, q, c)
            lost = tolerance if name in SINGULAR and q > 1.0 else 4e-16
            difference = square - exact  # of two stored numbers, which takes its digits
            assert abs(spread[0] - difference) <= 1e-12 * difference + lost * square, (size, q, c)


@pytest.mark.parametrize(("kind", "name"), POOLED)
def test_small_spreads_of_extreme_pools(kind, name):
    """As sigma_y2 -> 0 the same node is taken for both inputs, up to order sqrt(sigma_y2)."""
    phi = igb.Activation(name)
    for size in (2, 7):
        slope2 = single(phi, 1.3, kind, size)[2]
        for sigma_y2 in (1e-26, 1e-100):
            assert split(phi, 1.3, sigma_y2, kind, size)[1] / sigma_y2 == pytest.approx(slope2, rel=1e-12)


@pytest.mark.parametrize("c", [-1.0, -0.6, 0.0, 0.3, 0.95, 1.0])
def test_max_of_two_linear_nodes(c):
    """max(a, b) = (a + b) / 2 + |a - b| / 2, whose halves are independent."""
    q = 2.3
    size = 2 / math.pi * (math.sqrt(1 - c * c) + c * math.asin(c))
    found = [igb.moments("linear", q, c, pool=pool) for pool in (igb.MaxPool(2), igb.MinPool(2))]
    np.testing.assert_allclose(found, q * (c + size) / 2, rtol=1e-12, atol=1e-12 * q)


def test_relu_pools_of_two_in_closed_form():
    phi, q = igb.Activation("relu"), np.array([0.01, 1.0, 50.0])
    for kind, square, slope2 in (("max", 3 * math.pi + 2, 3 / 4), ("average", math.pi + 1, 1 / 4)):
        found = single(phi, q, kind, 2)
        np.testing.assert_allclose(found[1], q * square / (4 * math.pi), rtol=1e-12)
        np.testing.assert_allclose(found[2], slope2, rtol=1e-12)
        np.testing.assert_allclose(found[3], square / (4 * math.pi), rtol=1e-12)


@pytest.mark.parametrize("size", [2, 3, 7])
@pytest.mark.parametrize("c", [-1.0, -0.4, 0.0, 0.8, 1.0])
def test_pools_of_jumps(size, c):
    """max of steps: 1 unless all nodes are negative, with the chance of that for both inputs at once."""
    alone, both = 0.5**size, (0.25 + math.asin(c) / (2 * math.pi)) ** size
    for kind, pairs in (("max", 1 - 2 * alone + both), ("min", both)):
        pool = PLAIN[kind](size)
        assert igb.moments("step", 3.0, c, pool=pool) == pytest.approx(pairs, rel=1e-12, abs=1e-12)
        mean = 1 - alone if kind == "max" else alone
        assert igb.moments("sign", 3.0, c, pool=pool) == pytest.approx(4 * pairs - 4 * mean + 1, rel=1e-12, abs=1e-12)
    assert np.isinf(single(igb.Activation("step"), 3.0, "max", size)[2]).all()


@pytest.mark.parametrize("size", [2, 3, 50])
@pytest.mark.parametrize("name", ["relu", "tanh", "gelu", "softsign", "hard_sigmoid", "step"])
def test_average_pools_from_one_node(name, size):
    """k independent nodes: E[phi(u) phi(v)] / k + (1 - 1/k) E[phi]^2, and spreads divided by k."""
    phi = igb.Activation(name)
    q_a, q_b, c, exact, scale = rows_of(name, 0)
    kept = (q_a == q_b) & (q_a <= WIDEST)
    mean2 = {q: value for q, other, r, value in zip(q_a, q_b, c, exact, strict=True) if q == other and r == 0.0}
    pooled = exact[kept] / size + (1 - 1 / size) * np.array([mean2[q] for q in q_a[kept]])
    found = igb.moments(phi, q_a[kept], c[kept], pool=igb.AvgPool(size))
    assert np.max(np.abs(found - pooled) / scale[kept]) <= 1e-12
    splits = [row for row in NODES[name]["splits"] if row[0] <= WIDEST]
    mu2, y2, spreads = np.array(splits).T
    np.testing.assert_allclose(split(phi, mu2, y2, "average", size)[1], spreads / size, rtol=1e-12)


@pytest.mark.parametrize("name", ["relu", "abs", "tanh", "gelu", "step"])
def test_a_pool_of_one_node_is_none(name):
    q, c = (x.ravel() for x in np.meshgrid([0.02, 1.0, 30.0], [-0.5, 0.0, 0.99]))
    alone = igb.moments(name, q, c)
    for pool in PLAIN.values():
        np.testing.assert_allclose(igb.moments(name, q, c, pool=pool(1)), alone, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid", "gelu"])
def test_pools_are_ordered(name):
    """E[min] <= E[avg] = E[phi] <= E[max], and further apart the more nodes there are."""
    phi, q = igb.Activation(name), np.array([0.05, 2.0, 40.0])
    means = [
        single(phi, q, kind, size)[0] for kind, size in (("min", 9), ("min", 2), ("average", 4), ("max", 2), ("max", 9))
    ]
    for lower, upper in itertools.pairwise(means):
        assert np.all(lower < upper)
    np.testing.assert_allclose(means[2], single(phi, q)[0], rtol=1e-13, atol=1e-15)
