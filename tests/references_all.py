"""Gaussian expectations of every activation in many digits: what test_expectations.py stands on.

    python tests/references_all.py [NAME or SECTION...]    (an hour for all; with gmpy2, otherwise ten)

writes tests/data/expectations.json. Nothing here is shared with the package: no tables, no series, no recursions, but
Gauss-Legendre panels in the plane of the two normals. With u = sqrt(q_a) (a + d) and v = sqrt(q_b) (a - d), where
a ~ N(0, (1 + c)/2) and d ~ N(0, (1 - c)/2), panels in a end where u or v crosses a kink of phi, panels in d where two
of these ends meet, and all are short where phi is sharp: what is integrated over a panel is analytic. Small spreads are
differences phi(u) - phi(v) in as many more digits as the difference loses.

Pools of monotone functions by Hoeffding's formula, E[P(u) P(v)] = E[P(u)] E[P(v)] + integral of phi'(x) phi'(y)
(F(x, y)^k - F(x)^k F(y)^k), F the bivariate normal distribution function by Plackett's integral over the correlation;
pools of |x| likewise, with the probability of a rectangle for F.
"""

from __future__ import annotations

import functools
import itertools
import json
import sys
from pathlib import Path

from mpmath import mp

try:
    import gmpy2 as m  # the same functions, ten times faster than through mpmath

    Real = m.mpfr
except ImportError:
    m, Real = mp, mp.mpf

FILE = Path(__file__).parent / "data" / "expectations.json"
REACH = 10.5  # standard deviations: 1e-24 beyond
NODES = 14  # on each panel: 1e-17


def set_digits(digits):
    """What is constant in this many digits is made anew."""
    activations.cache_clear()
    mp.dps = digits
    if m is not mp:
        m.get_context().precision = int(digits * 3.33) + 8
        m.get_context().emin, m.get_context().emax = m.get_emin_min(), m.get_emax_max()


def pi():
    return mp.pi + 0 if m is mp else m.const_pi()


# ---- Activations: x -> (phi, phi', phi'') as far as they are functions -----------------------------------------------


def _elu(alpha, scale=1, inverse=1):
    def phi(x):
        if x > 0:
            return scale * x, Real(scale), Real(0)
        e = m.exp(x * inverse)
        return scale * alpha * m.expm1(x * inverse), scale * alpha * inverse * e, scale * alpha * inverse**2 * e

    return phi


def _clipped(low, high, slope=1, shift=0):
    def phi(x):
        y = slope * x + shift
        return (Real(low), Real(0)) if y < low else (Real(high), Real(0)) if y > high else (y, Real(slope))

    return phi


def _sigmoid(x):
    s = 1 / (1 + m.exp(-x))
    t = m.exp(-x) * s * s
    return s, t, t * (1 - 2 * s)


def _gate(gate):
    """x times a gate."""

    def phi(x):
        g, g1, g2 = gate(x)
        return x * g, g + x * g1, 2 * g1 + x * g2

    return phi


def _normal_cdf(x):
    n = m.exp(-x * x / 2) / m.sqrt(2 * pi())
    return (1 + m.erf(x / m.sqrt(Real(2)))) / 2, n, -x * n


def _tanh(x):
    t = m.tanh(x)
    return t, 1 - t * t, -2 * t * (1 - t * t)


def _tanh_gate(x):
    """(1 + tanh(z(x))) / 2 with the cubic z of the GELU's approximation."""
    k, b = m.sqrt(2 / pi()), Real("0.044715")
    z1, z2 = k * (1 + 3 * b * x * x), 6 * k * b * x
    t, t1, t2 = _tanh(k * (x + b * x * x * x))
    return (1 + t) / 2, t1 * z1 / 2, (t2 * z1 * z1 + t1 * z2) / 2


def _mish_gate(x):
    """tanh(log(1 + e^x)), a rational function of e^x."""
    if x > 200:
        return Real(1), Real(0), Real(0)
    e = m.exp(x)
    n = e * (e + 2)
    g1 = 4 * e * (1 + e) / (n + 2) ** 2
    return n / (n + 2), g1, 4 * ((e + 2 * e * e) * (n + 2) - 4 * (e + e * e) ** 2) / (n + 2) ** 3


def _softplus(x):
    s, t, _ = _sigmoid(x)
    return (x if x > 0 else 0) + m.log1p(m.exp(-abs(x))), s, t


def _softsign(x):
    w = 1 / (1 + abs(x))
    return x * w, w * w, (-2 if x > 0 else 2) * w**3


def _tanh_like(x):
    e, s = m.exp(-abs(x)), 1 if x > 0 else -1
    return -s * m.expm1(-abs(x)), e, -s * e


def _gaussian(x):
    g = m.exp(-x * x)
    return g, -2 * x * g, (4 * x * x - 2) * g


def _erf(x):
    g = 2 * m.exp(-x * x) / m.sqrt(pi())
    return m.erf(x), g, -2 * x * g


def _polynomial(*coefficients):
    """From the constant upwards."""

    def phi(x):
        p = p1 = p2 = Real(0)
        for a in reversed(coefficients):
            p2 = p2 * x + 2 * p1
            p1 = p1 * x + p
            p = p * x + a
        return p, p1, p2

    return phi


def _scaled(phi, factor):
    """phi(factor x)."""
    return lambda x: tuple(value * factor**order for order, value in enumerate(phi(factor * x)))


class Activation:
    """phi with its features: where it is sharp, how sharp (the distance of singularities), and if it breaks there."""

    def __init__(self, phi, *features, monotone=False, closed=None):
        self.phi, self.features, self.monotone, self.closed = phi, features, monotone, closed

    @property
    def orders(self):
        """How many of phi, phi', phi'' are functions."""
        return len(self.phi(Real("0.3")))


def kink(at, scale=1e9):
    return at, scale, True


def sharp(at=0.0, scale=1.0):
    return at, scale, False


# Waves, whose expectations over wide normals are sums that cancel, have textbook formulas: E[e^(iu) e^(+-iv)].


def _wave(factor, sign):
    def moments(a, b, c, order):
        """E[sin u sin v] (sign -1) or E[cos u cos v] (sign 1) or what its derivatives make of it."""
        a, b = a * factor**2, b * factor**2
        cross = Real(c) * m.sqrt(a * b)
        plus, minus = m.exp(-(a + b + 2 * cross) / 2), m.exp(-(a + b - 2 * cross) / 2)
        return factor ** (2 * order) * (minus + (sign if order % 2 == 0 else -sign) * plus) / 2

    def spread(mu2, y2):
        mu2, q = mu2 * factor**2, (mu2 + y2) * factor**2
        return ((1 + sign * m.exp(-2 * q)) - (m.exp(mu2 - q) + sign * m.exp(-q - mu2))) / 2

    return moments, spread


_EXP = (
    lambda a, b, c, order: m.exp((a + b) / 2 + Real(c) * m.sqrt(a * b)),
    lambda mu2, y2: m.exp(2 * mu2 + y2) * m.expm1(y2),
)


@functools.cache
def activations():
    """By the name that the package gives them, their constants in the present digits."""
    lam, alpha = Real("1.0507009873554804934193349852946"), Real("1.6732632423543772848170429916717")
    return {
        "relu": Activation(_clipped(0, 1e9), kink(0.0), monotone=True),
        "abs": Activation(lambda x: (abs(x), Real(1 if x > 0 else -1)), kink(0.0)),
        "leaky_relu(0.2)": Activation(
            lambda x: (x, Real(1)) if x > 0 else (x / 5, 1 / Real(5)), kink(0.0), monotone=True
        ),
        "hardtanh": Activation(_clipped(-1, 1), kink(-1.0), kink(1.0), monotone=True),
        "relu6": Activation(_clipped(0, 6), kink(0.0), kink(6.0), monotone=True),
        "hard_sigmoid": Activation(_clipped(0, 1, 1 / Real(6), 1 / Real(2)), kink(-3.0), kink(3.0), monotone=True),
        "elu": Activation(_elu(1), kink(0.0, 3.0), monotone=True),
        "selu": Activation(lambda x: _elu(alpha, lam)(x)[:2], kink(0.0, 3.0), monotone=True),
        "celu(0.7)": Activation(_elu(Real(0.7), 1, 1 / Real(0.7)), kink(0.0, 2.0), monotone=True),
        "softsign": Activation(_softsign, kink(0.0, 1.0), monotone=True),
        "tanh_like": Activation(_tanh_like, kink(0.0, 3.0), monotone=True),
        "sign": Activation(lambda x: (Real(1 if x > 0 else -1),), kink(0.0), monotone=True),
        "step": Activation(lambda x: (Real(1 if x > 0 else 0),), kink(0.0), monotone=True),
        "tanh": Activation(_tanh, sharp(0.0, 1.57), monotone=True),
        "erf": Activation(_erf, sharp(0.0, 1.0), monotone=True),
        "sigmoid": Activation(_sigmoid, sharp(0.0, 3.1), monotone=True),
        "softplus": Activation(_softplus, sharp(0.0, 3.1), monotone=True),
        "gelu": Activation(_gate(_normal_cdf), sharp(0.0, 1.4)),
        "gelu_tanh": Activation(_gate(_tanh_gate), sharp(-3.0, 1.2), sharp(0.0, 1.5), sharp(3.0, 1.2)),
        "silu": Activation(_gate(_sigmoid), sharp(0.0, 3.1)),
        "mish": Activation(_gate(_mish_gate), sharp(0.35, 2.3)),
        "gaussian": Activation(_gaussian, sharp(0.0, 1.0)),
        "sin": Activation(lambda x: (m.sin(x), m.cos(x), -m.sin(x)), closed=_wave(1, -1)),
        "cos": Activation(lambda x: (m.cos(x), -m.sin(x), -m.cos(x)), closed=_wave(1, 1)),
        "exp": Activation(lambda x: (m.exp(x),) * 3, closed=_EXP, monotone=True),
        "polynomial(0.5, -1, 0, 0.25)": Activation(_polynomial(Real(0.5), -1, 0, Real(0.25))),
        "hermite(3)": Activation(_polynomial(0, -3, 0, 1)),
        "tanh(50x)": Activation(_scaled(_tanh, 50), sharp(0.0, 1.57 / 50), monotone=True),
        "sin(20x)": Activation(lambda x: _scaled(activations()["sin"].phi, 20)(x), closed=_wave(20, -1)),
    }


# ---- Panels ----------------------------------------------------------------------------------------------------------


@functools.cache
def gauss_legendre(count, digits):
    """Nodes and weights on [-1, 1], by Newton from the roots' asymptotic places."""
    nodes = []
    with mp.workdps(digits + 10):
        for k in range(count):
            x = mp.cos(mp.pi * (k + mp.mpf(3) / 4) / (count + mp.mpf(1) / 2))
            for _ in range(8):
                p0, p1 = mp.mpf(1), x
                for n in range(2, count + 1):
                    p0, p1 = p1, ((2 * n - 1) * x * p1 - (n - 1) * p0) / n
                slope = count * (x * p1 - p0) / (x * x - 1)
                x -= p1 / slope
            nodes.append((Real(mp.nstr(x, digits + 8)), Real(mp.nstr(2 / ((1 - x * x) * slope**2), digits + 8))))
    return nodes


def panels(low, high, breaks, features, longest):
    """[low, high] cut at the breaks and then in halves, until short against `longest` and all features."""
    todo = list(itertools.pairwise([low, *sorted({b for b in breaks if low < b < high}), high]))
    while todo:
        left, right = todo.pop()
        length = right - left
        near = (1.4 * s + 0.9 * max(left - at, at - right, 0.0) for at, s in features)
        if length > min((longest, *near)):
            todo += [(left, (left + right) / 2), ((left + right) / 2, right)]
        elif length > 0:
            yield left, right


def nodes(low, high, breaks, features, longest):
    """Where and with which weight to evaluate."""
    rule = gauss_legendre(NODES, mp.dps)
    for left, right in panels(low, high, breaks, features, longest):
        middle, half = (left + right) / 2, (right - left) / 2
        for x, w in rule:
            yield middle + half * x, half * w


def gaussian_nodes(variance, breaks, features, from_zero=False):
    sigma = m.sqrt(variance)
    scale = 1 / m.sqrt(2 * pi() * variance)
    low = Real(0) if from_zero else -REACH * sigma
    for x, w in nodes(low, REACH * sigma, breaks, features, 2.2 * sigma):
        yield x, w * scale * m.exp(-x * x / (2 * variance))


# ---- One node --------------------------------------------------------------------------------------------------------


def plane(act, r_a, r_b, spread_a, spread_d):
    """(u, v, weight) over the plane: u = r_a (a + d), v = r_b (a - d), a and d independent with these variances."""
    at_u = [(Real(at) / r_a, scale / r_a, breaks) for at, scale, breaks in act.features]
    at_v = [(Real(at) / r_b, scale / r_b, breaks) for at, scale, breaks in act.features]
    meet = [((u - v) / 2, min(s, t)) for (u, s, _), (v, t, _) in itertools.product(at_u, at_v)]
    same = r_a == r_b  # then d and -d exchange u and v
    meetings = [at for at, _ in meet] + [Real(0)]
    for d, w_d in gaussian_nodes(spread_d, meetings, meet, from_zero=same):
        lines = [(u - d, s, b) for u, s, b in at_u] + [(v + d, s, b) for v, s, b in at_v]
        breaks, features = [at for at, _, b in lines if b], [(at, s) for at, s, _ in lines]
        for a, w_a in gaussian_nodes(spread_a, breaks, features):
            yield r_a * (a + d), r_b * (a - d), w_a * w_d * (2 if same else 1)


def pair(act, q_a, q_b, c):
    """E[phi^(m)(u) phi^(m)(v)] for all m that there are."""
    q_a, q_b, c = Real(q_a), Real(q_b), Real(c)
    orders = act.orders
    if act.closed:
        return [act.closed[0](q_a, q_b, c, order) for order in range(orders)]
    r_a, r_b = m.sqrt(q_a), m.sqrt(q_b)
    if abs(c) == 1:
        features = [(Real(at) / r, s / r, b) for at, s, b in act.features for r in (r_a, c * r_b)]
        breaks = [at for at, _, b in features if b]
        line = gaussian_nodes(Real(1), breaks, [(at, abs(s)) for at, s, _ in features])
        points = ((r_a * x, c * r_b * x, w) for x, w in line)
    else:
        points = plane(act, r_a, r_b, (1 + c) / 2, (1 - c) / 2)
    totals = [Real(0)] * orders
    for u, v, w in points:
        for order, (f, g) in enumerate(zip(act.phi(u), act.phi(v), strict=True)):
            totals[order] += w * f * g
    return totals


def single(act, q):
    """E[phi], E[phi^2], E[phi'^2], d E[phi^2] / d q and d E[phi] / d q: E[x phi phi'] / q and E[x phi'] / (2 q)."""
    totals, r = [Real(0)] * 5, m.sqrt(Real(q))
    features = [(Real(at) / r, s / r) for at, s, _ in act.features]
    for x, w in gaussian_nodes(Real(1), [at for at, _ in features], features):
        f, slope, *_ = *act.phi(r * x), Real(0)
        for i, value in enumerate((f, f * f, slope * slope, x / r * f * slope, x / r * slope / 2)):
            totals[i] += w * value
    return totals


def spread(act, mu2, y2):
    """E[(phi(u) - phi(v))^2] / 2, u and v with the covariance mu2 and the variance mu2 + y2."""
    mu2, y2 = Real(mu2), Real(y2)
    if act.closed:
        return act.closed[1](mu2, y2)
    total = Real(0)
    for u, v, w in plane(act, Real(1), Real(1), mu2 + y2 / 2, y2 / 2):
        total += w * (act.phi(u)[0] - act.phi(v)[0]) ** 2
    return total / 2


# ---- Pools of k nodes ------------------------------------------------------------------------------------------------

SIZES = (2, 3, 7)


def normal_cdf(x):
    return (1 + m.erf(x / m.sqrt(Real(2)))) / 2


def interval(left, right):
    return normal_cdf(right) - (0 if left is None else normal_cdf(left))


class Pooled:
    """Max pool of phi over nodes of variance q, for phi that falls to its minimum at `lowest` and rises from there.

    In units of the standard deviation: f(x) = phi(sqrt(q) x) is at most f(r) where left(r) < x < r, with left = -inf
    (None) for a monotone phi, so that pools are functions of r, the largest one, whose law is that of an interval.
    """

    def __init__(self, act, q, lowest=None):
        self.act, self.scale = act, m.sqrt(Real(q))
        self.lowest = -Real(REACH) if lowest is None else Real(lowest) / self.scale
        self.mirrored = lowest is not None
        self.features = [(Real(at) / self.scale, s / self.scale, b) for at, s, b in act.features]
        self.breaks = [at for at, _, b in self.features if b]

    def __call__(self, x):
        return self.act.phi(self.scale * x)[0]

    def slope(self, x):
        return self.scale * self.act.phi(self.scale * x)[1]

    def left(self, r):
        """Where f is as large as at r, on the other side of its minimum."""
        if not self.mirrored:
            return None
        high, low, level = self.lowest, self.lowest - 1, self(r)
        while self(low) < level:
            if low < -REACH - 10:
                return None
            high, low = low, 2 * low - self.lowest
        for _ in range(12):
            middle = (low + high) / 2
            low, high = (middle, high) if self(middle) > level else (low, middle)
        x = (low + high) / 2
        for _ in range(6):
            x -= (self(x) - level) / self.slope(x)
        return x

    def singles(self, size):
        """E[P], E[P^2] and E[phi'^2 at the node that is taken], by the law of the largest."""
        totals = [Real(0)] * 3
        near = [(at, s) for at, s, _ in self.features]
        for x, w in nodes(-Real(REACH), Real(REACH), [*self.breaks, self.lowest], near, Real(2)):
            value, slope = self(x), self.act.phi(self.scale * x)[1]
            below = interval(self.left(x), x) if x > self.lowest else interval(x, self.right(x))
            density = size * below ** (size - 1) * m.exp(-x * x / 2) / m.sqrt(2 * pi())
            for i, f in enumerate((value, value**2, slope**2)):
                totals[i] += w * density * f
        return totals

    def right(self, x):
        """Where f is as large as at x, which is left of its minimum."""
        level, low, high = self(x), self.lowest, self.lowest + 1
        while self(high) < level:
            low, high = high, 2 * high - self.lowest
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (low, middle) if self(middle) > level else (middle, high)
        return high


def angles(c):
    """Plackett's integral: nodes of the angle whose sine is the correlation, up to the one of c."""
    end = m.asin(Real(c))
    rule = [] if end == 0 else nodes(min(end, Real(0)), max(end, Real(0)), [], [(pi() / 2, 0.0), (-pi() / 2, 0.0)], 0.8)
    return [(m.sin(t), 1 / (2 * m.cos(t) ** 2), (w if end > 0 else -w) / (2 * pi())) for t, w in rule]


def dependence(x, y, rule):
    """P(u < x, v < y) - P(u < x) P(v < y)."""
    if x is None or y is None:
        return 0
    square, product = x * x + y * y, 2 * x * y
    return m.fsum([w * m.exp((product * s - square) * t) for s, t, w in rule])


def pool_pairs(pooled, c):
    """E[P(u) P(v)] of max pools of the SIZES, u and v correlated node by node."""
    rule, ridge = angles(c), m.sqrt((1 - abs(Real(c))) / 2)
    at, reach = pooled.features, Real(REACH)
    meet = [((x - y) / 2, min(s, t)) for (x, s, _), (y, t, _) in itertools.product(at, at)]
    totals = dict.fromkeys(SIZES, Real(0))
    for d, w_d in nodes(Real(0), reach, [x for x, _ in meet], [*meet, (Real(0), ridge)], Real(2)):
        lines = [(x + sign * d, s, b) for x, s, b in at for sign in (-1, 1)]
        breaks, near = [x for x, _, b in lines if b], [(x, s) for x, s, _ in lines] + [(Real(0), ridge)]
        for a, w_a in nodes(max(pooled.lowest + d, -reach), reach, breaks, near, Real(2)):
            x, y = a + d, a - d
            slopes = pooled.slope(x) * pooled.slope(y)
            if slopes == 0 or max(abs(x), abs(y)) > REACH:
                continue
            left, below = pooled.left(x), pooled.left(y)
            product = interval(left, x) * interval(below, y)
            joint = product + dependence(x, y, rule)
            if pooled.mirrored:
                joint += dependence(left, below, rule) - dependence(left, y, rule) - dependence(x, below, rule)
            for size in SIZES:  # d and -d alike, and dx dy = 2 da dd
                totals[size] += 4 * w_a * w_d * slopes * (joint**size - product**size)
    return {size: totals[size] + pooled.singles(size)[0] ** 2 for size in SIZES}


# ---- The file --------------------------------------------------------------------------------------------------------

VARIANCES = (0.003, 0.1, 1.0, 7.0, 60.0)
CORRELATIONS = (-1.0, -0.85, -0.3, 0.0, 0.4, 0.9, 0.999, 0.99999, 1.0)
UNEQUAL = ((0.1, 7.0, -0.85), (0.1, 7.0, 0.3), (60.0, 0.003, 0.9), (1.0, 60.0, 0.999), (7.0, 1.0, 0.4))
WIDE = ((1e4, 1e4, -0.3), (1e4, 1e4, 0.9), (1e4, 1e4, 1.0))
SPLITS = tuple(
    (q, q * s)
    for q, s in (
        (0.003, 1e-3), (0.1, 0.5), (0.1, 1e-12), (1.0, 0.01), (1.0, 1e-8), (1.0, 1e-30), (7.0, 0.1), (7.0, 1e-5),
        (60.0, 0.7), (60.0, 1e-3), (60.0, 1e-20), (1e4, 1e-6),
    )
)  # fmt: skip


def node_values(name):
    """Rows [q_a, q_b, c, E for order 0, 1, ...] and [sigma_mu2, sigma_y2, spread] of one activation."""
    rows, splits = [], []
    set_digits(25)
    for q_a, q_b, c in [(q, q, c) for q in VARIANCES for c in CORRELATIONS] + [
        *UNEQUAL,
        *(WIDE if name != "exp" else ()),
    ]:
        rows.append([q_a, q_b, c, *map(float, pair(activations()[name], q_a, q_b, c))])
    for mu2, y2 in SPLITS:
        if name != "exp" or mu2 < 100:
            set_digits(25 + int(mp.ceil(mp.log10(mu2 / y2))))
            splits.append([mu2, y2, float(spread(activations()[name], mu2, y2))])
    return {"moments": rows, "splits": splits}


POOLED = ((1.0, 0.4), (7.0, -0.85), (60.0, 0.9), (0.1, 0.999))
MAX_POOLS = (
    "relu",
    "leaky_relu(0.2)",
    "tanh",
    "sigmoid",
    "softplus",
    "elu",
    "hardtanh",
    "softsign",
    "abs",
    "gelu",
    "silu",
)
MIN_POOLS = ("relu", "softplus", "elu")


def pool_values(name, kind):
    """Rows [size, q, c, E[P(u) P(v)], E[P], E[P^2], E[phi'^2]] of one activation."""
    set_digits(25)
    act = activations()[name]
    if kind == "min":  # the min pool of phi(x) is less the max pool of -phi(-x)
        act = mirrored(act)
    rows = []
    bottom = lowest(act, name)
    for q, c in POOLED:
        pooled, fine = Pooled(act, q, bottom), Pooled(act, q, bottom)
        if bottom:  # zero is singular: the same level on the other side of the minimum is at -inf
            pooled, fine = (Pooled(Activation(act.phi, *act.features, kink(0.0, s)), q, bottom) for s in (1e-4, 1e-12))
        for size, value in pool_pairs(pooled, c).items():
            mean, square, slope = fine.singles(size)
            rows.append([size, q, c, *map(float, (value, -mean if kind == "min" else mean, square, slope))])
    return rows


def mirrored(act):
    def phi(x):
        f, slope, *rest = act.phi(-x)
        return -f, slope, *(-r for r in rest)

    return Activation(phi, *((-at, scale, breaks) for at, scale, breaks in act.features), monotone=act.monotone)


def lowest(act, name):
    """Where phi is least, None if at -inf."""
    if act.monotone:
        return None
    if name == "abs":
        return Real(0)
    low, high = Real(-3), Real(0)
    for _ in range(90):
        middle = (low + high) / 2
        low, high = (low, middle) if act.phi(middle)[1] > 0 else (middle, high)
    return low


def update(section, name, values):
    """Into the file, one line for a row."""
    content = json.loads(FILE.read_text()) if FILE.exists() else {}
    content.setdefault(section, {})[name] = values
    lines = json.dumps(content, sort_keys=True).replace("[[", "[\n[").replace("], [", "],\n[").replace("}, ", "},\n")
    FILE.write_text(lines + "\n")


def main(names):
    set_digits(25)
    sections = [("nodes", name, node_values, (name,)) for name in activations()]
    sections += [("max_pools", name, pool_values, (name, "max")) for name in MAX_POOLS]
    sections += [("min_pools", name, pool_values, (name, "min")) for name in MIN_POOLS]
    for section, name, compute, arguments in sections:
        if not names or name in names or section in names:
            update(section, name, compute(*arguments))
            print(section, name, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
