"""Gaussian expectations in mpmath, by means that share nothing with the package: what the mean-field tests stand on.

tanh: plain trapezoidal sums over raw values in 45 digits. ReLU and erf: the textbook formulas, which cancel, in as many
digits as it takes for them not to matter.
"""

from mpmath import mp, mpf, workdps

TANH = (mp.tanh, lambda x: 1 / mp.cosh(x) ** 2, lambda x: -2 * mp.tanh(x) / mp.cosh(x) ** 2)


def gaussian_nodes(variance, even=False):
    """Nodes and weights for E[f(x)], x ~ N(0, variance): 21 digits if f is analytic for |Im x| < pi/2."""
    sigma = mp.sqrt(variance)
    step = min(mpf(1) / 7, sigma / 2.5)
    n = int(mp.ceil(10.5 * sigma / step))
    scale = step / mp.sqrt(2 * mp.pi * variance)
    nodes = [k * step for k in range(0 if even else -n, n + 1)]
    return [(x, (2 if even and x else 1) * scale * mp.exp(-x * x / (2 * variance))) for x in nodes]


def gaussian_mean(f, variance, even=False):
    """E[f(x)], x ~ N(0, variance)."""
    return mp.fsum(w * f(x) for x, w in gaussian_nodes(variance, even))


@workdps(36)
def tanh_pair(derivative, q_a, q_b, c):
    """E[phi(u) phi(v)] for a derivative of tanh, |c| < 1: over the wider of the two, then over the other given it."""
    wide, narrow = max(mpf(q_a), mpf(q_b)), min(mpf(q_a), mpf(q_b))
    phi, c = TANH[derivative], mpf(c)
    slope = c * mp.sqrt(narrow / wide)
    rest = gaussian_nodes(narrow * (1 - c) * (1 + c))
    return gaussian_mean(lambda u: phi(u) * mp.fsum(w * phi(slope * u + x) for x, w in rest), wide, even=True)


@workdps(45)
def tanh_split(sigma_mu2, sigma_y2):
    """centre = E[phi(u) phi(v)] and spread = E[(phi(u) - phi(v))^2] / 2, with u, v = a + d, a - d."""
    mu2, y2 = mpf(sigma_mu2), mpf(sigma_y2)
    centre, spread, noise = mpf(0), mpf(0), gaussian_nodes(y2 / 2, even=True)
    for a, w_a in gaussian_nodes(mu2 + y2 / 2, even=True):
        for d, w_d in noise:
            s, t = mp.tanh(a + d), mp.tanh(a - d)
            centre += w_a * w_d * s * t
            spread += w_a * w_d * (s - t) ** 2
    return centre, spread / 2


@workdps(45)
def tanh_split_wide(sigma_mu2, sigma_y2):
    """The same for large variances: E_e tanh(mu + e) by parts, over the peak of sech^2 instead of the noise e."""
    mu2, y2 = mpf(sigma_mu2), mpf(sigma_y2)
    q, scale = mu2 + y2, mp.sqrt(2 * y2)
    peak = [(x, TANH[1](x) / 10) for x in (mpf(k) / 5 for k in range(-150, 151))]
    step = mp.sqrt(min(mu2, y2)) / 3
    reach = min(10.5 * mp.sqrt(mu2), 10.5 * mp.sqrt(y2) + 30)
    rest = mpf(0)  # E[1 - (E_e tanh)^2]
    for k in range(int(mp.ceil(reach / step)) + 1):
        m = k * step
        given = mp.fsum(w * mp.erf((m - x) / scale) for x, w in peak)
        rest += (2 if k else 1) * mp.exp(-m * m / (2 * mu2)) * (1 - given**2) * step / mp.sqrt(2 * mp.pi * mu2)
    sech2 = mp.fsum(2 * w * mp.exp(-x * x / (2 * q)) for x, w in peak) / mp.sqrt(2 * mp.pi * q)
    return 1 - rest, rest - sech2


def relu_covariance(q_aa, q_bb, q_ab):
    """E[phi(u) phi(v)] for ReLU: Cho and Saul (2009), order 1."""
    t = mp.acos(q_ab / mp.sqrt(q_aa * q_bb))
    return mp.sqrt(q_aa * q_bb) * (mp.sin(t) + (mp.pi - t) * mp.cos(t)) / (2 * mp.pi)


def erf_covariance(q_aa, q_bb, q_ab):
    """E[phi(u) phi(v)] for erf: Williams (1998)."""
    return 2 / mp.pi * mp.asin(2 * q_ab / mp.sqrt((1 + 2 * q_aa) * (1 + 2 * q_bb)))


COVARIANCE = {"relu": relu_covariance, "erf": erf_covariance}
