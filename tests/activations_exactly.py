"""Every named activation in mpmath, written from its definition: what tests hold formulas and tables against."""

from mpmath import mp, mpf

SELU_ALPHA = mpf("1.6732632423543772848170429916717")
SELU_SCALE = mpf("1.0507009873554804934193349852946")


def step(x):
    return mpf(1) if x > 0 else mpf(0)


def held(x, low, high):
    return min(max(x, mpf(low)), mpf(high))


def elu(x, alpha):
    return x if x > 0 else alpha * mp.expm1(x)


EXACT = {
    "linear": lambda x: x,
    "relu": lambda x: max(x, mpf(0)),
    "leaky_relu(0.2)": lambda x: x if x > 0 else mpf(0.2) * x,
    "abs": abs,
    "elu(0.5)": lambda x: elu(x, mpf(0.5)),
    "elu": lambda x: elu(x, mpf(1)),
    "selu": lambda x: SELU_SCALE * elu(x, SELU_ALPHA),
    "celu(0.5)": lambda x: x if x > 0 else mp.expm1(2 * x) / 2,
    "tanh": mp.tanh,
    "hardtanh": lambda x: held(x, -1, 1),
    "relu6": lambda x: held(x, 0, 6),
    "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
    "hard_sigmoid": lambda x: held(x + 3, 0, 6) / 6,
    "erf": mp.erf,
    "gelu": lambda x: x * mp.erfc(-x / mp.sqrt(2)) / 2,
    "gelu_tanh": lambda x: x / 2 * (1 + mp.tanh(mp.sqrt(2 / mp.pi) * (x + mpf("0.044715") * x**3))),
    "silu": lambda x: x / (1 + mp.exp(-x)),
    "mish": lambda x: x * mp.tanh(mp.log1p(mp.exp(x))),
    "softplus": lambda x: mp.log1p(mp.exp(x)),
    "softsign": lambda x: x / (1 + abs(x)),
    "tanh_like": lambda x: mp.sign(x) * -mp.expm1(-abs(x)),
    "sin": mp.sin,
    "cos": mp.cos,
    "exp": mp.exp,
    "gaussian": lambda x: mp.exp(-(x**2)),
    "sign": mp.sign,
    "step": step,
    "polynomial(1, 0, -0.3)": lambda x: 1 - mpf(0.3) * x**2,
    "hermite(5)": lambda x: x**5 - 10 * x**3 + 15 * x,
}
KINKS = {
    **dict.fromkeys(["relu", "leaky_relu(0.2)", "abs", "elu(0.5)", "elu", "selu", "celu(0.5)"], (0.0,)),
    **dict.fromkeys(["softsign", "tanh_like", "sign", "step"], (0.0,)),
    "hardtanh": (-1.0, 1.0),
    "relu6": (0.0, 6.0),
    "hard_sigmoid": (-3.0, 3.0),
}


def derivative(name, x, order):
    """Of that order, 0 to 2, in 30 digits: a difference quotient in 60 to 90 that does not reach over a kink."""
    phi = EXACT[name]
    with mp.workdps(90):
        x = mpf(float(x))
        if order == 0:
            return +phi(x)
        room = min([abs(x - kink) for kink in KINKS.get(name, ())], default=mpf(1))
        h = min(mpf(10) ** -20, room / 4)
        if order == 1:
            return (phi(x - 2 * h) - 8 * phi(x - h) + 8 * phi(x + h) - phi(x + 2 * h)) / (12 * h)
        return (-phi(x - 2 * h) + 16 * phi(x - h) - 30 * phi(x) + 16 * phi(x + h) - phi(x + 2 * h)) / (12 * h * h)
