"""The theory on a GPU, here run on the host, against the theory on the CPU and a few values known to many digits.

The two share the mathematics of a node and differ in the order of the sums: what is asked is agreement to 4e-14 of the
size of the numbers (a Hermite series leaves out 2e-14 at most, on either side), and to 2e-12 where phi has kinks, whose
double integrals are cut into many cells.
"""

from typing import Any

import numpy as np
import pytest
from mpmath import mp, mpf, workdps

import igbfast as igb
from igbfast._expectations import Expectations
from igbfast.activations import as_activation

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("on_host")

RULED = ["linear", "relu", "erf", "tanh"]
TABLES = ["gelu", "sigmoid", "elu", "hardtanh"]
TIGHT, LOOSE = 4e-14, 2e-12


def tolerance(name: str) -> float:
    return LOOSE if name not in RULED and as_activation(name).kinks else TIGHT


def assert_within(got: Any, want: Any, error: Any) -> None:
    assert np.all(np.abs(got - want) <= error), f"off by {np.max(np.abs(got - want) / error):.2g} times what is allowed"


@pytest.mark.parametrize(
    ("name", "derivative"), [(name, m) for name in RULED for m in range(min(as_activation(name).orders, 2) + 1)]
)
def test_moments_of_rules(name: str, derivative: int) -> None:
    q = np.geomspace(1e-3, 1e4, 5)[:, None]
    c = np.array([-1.0, -0.3, 0.0, 0.5, 1.0 - 1e-10, 1.0])
    want = igb.moments(name, q, c, derivative=derivative)
    got = igb.moments(name, q, c, derivative=derivative, device="cuda")
    assert isinstance(got, np.ndarray)
    assert got.shape == (5, 6)
    size = igb.moments(name, q, 1.0, derivative=derivative)
    assert_within(got, want, TIGHT * size)


@pytest.mark.parametrize("name", TABLES)
def test_moments_of_tables(name: str) -> None:
    q, c = np.array([1e-3, 20.0, 20.0, 1e-3]), np.array([0.97, -1.0, 0.4, 1.0])
    for derivative in range(min(as_activation(name).orders, 1) + 1):
        want = igb.moments(name, q, c, derivative=derivative)
        got = igb.moments(name, q, c, derivative=derivative, device="cuda")
        size = igb.moments(name, q, 1.0, derivative=derivative)
        assert_within(got, want, tolerance(name) * size)


def test_moments_of_two_variances_mixtures_and_averages() -> None:
    mixed = igb.activations.mixture([(0.3, "tanh"), (0.7, "relu")])
    for phi, pool in [("tanh", igb.AvgPool(4)), (mixed, None), (mixed, igb.AvgPool(2)), ("gelu", igb.AvgPool(3))]:
        arguments: dict[str, Any] = {
            "q": [0.1, 2.0, 600.0],
            "c": [0.2, -0.9, 0.1],
            "pool": pool,
            "q_b": [3.0, 2.0, 1.0],
        }
        want = igb.moments(phi, **arguments)
        np.testing.assert_allclose(igb.moments(phi, **arguments, device="cuda"), want, rtol=1e-13)


def test_values_known_otherwise() -> None:
    assert float(igb.moments("relu", 2.0, device="cuda")) == pytest.approx(1.0, rel=1e-15)
    arc_sine = 2.0 / np.pi * np.arcsin(2.0 * 0.5 / 3.0)
    assert float(igb.moments("erf", 1.0, 0.5, device="cuda")) == pytest.approx(arc_sine, rel=1e-14)


def over_normal(f: Any) -> Any:
    """E[f(g)], g ~ N(0, 1), f analytic: a trapezoidal sum."""
    return mp.fsum(f(mpf(k) / 16) * mp.npdf(mpf(k) / 16) for k in range(-160, 161)) / 16


def mean_gelu(m: Any, s: Any) -> Any:
    """E[phi(m + s e)], e ~ N(0, 1), by parts."""
    root = mp.sqrt(1 + s * s)
    return m * mp.ncdf(m / root) + s * s / root * mp.npdf(m / root)


def mean_hardtanh(m: Any, s: Any) -> Any:
    """E[phi(m + s e)]: the line between -1 and 1, and what is beyond."""
    low, high = (-1 - m) / s, (1 - m) / s
    line = m * (mp.ncdf(high) - mp.ncdf(low)) - s * (mp.npdf(high) - mp.npdf(low))
    return line + mp.ncdf(-high) - mp.ncdf(low)


@workdps(25)
@pytest.mark.parametrize(
    ("name", "mean", "c"), [("gelu", mean_gelu, 0.3), ("gelu", mean_gelu, 0.97), ("hardtanh", mean_hardtanh, 0.97)]
)
def test_pairs_by_mpmath(name: str, mean: Any, c: float) -> None:
    """E[phi(u) phi(v)]: of each given what they have in common, then over that. At 0.97 a kink needs two integrals."""
    for q_a, q_b in [(2.0, 2.0), (2.0, 0.5)]:
        common, own = mpf(c), 1 - mpf(c)

        def given(g: Any, q: float, common: Any = common, own: Any = own) -> Any:
            return mean(mp.sqrt(q * common) * g, mp.sqrt(q * own))

        want = over_normal(lambda g, a=q_a, b=q_b: given(g, a) * given(g, b))
        got = igb.moments(name, q_a, c, q_b=q_b, device="cuda")
        assert float(got) == pytest.approx(float(want), rel=tolerance(name))


@workdps(25)
def test_slopes_by_mpmath() -> None:
    """E[phi'^2] of tanh, by quadrature, and of gelu, from its table: what chi is made of."""
    for name, slope in [("tanh", lambda x: mp.sech(x) ** 2), ("gelu", lambda x: mp.ncdf(x) + x * mp.npdf(x))]:
        want = over_normal(lambda g, slope=slope: slope(mp.sqrt(1.5) * g) ** 2)
        got = igb.moments(name, 1.5, derivative=1, device="cuda")
        assert float(got) == pytest.approx(float(want), rel=TIGHT)


@workdps(25)
def test_a_layer_by_mpmath() -> None:
    """Layer 2 of a residual network of gelu: y' = y + sqrt(a) (W phi(y) + b)."""
    w2, b2, ratio = 1.5, 0.2, 0.3
    got = igb.propagate(igb.Ensemble("gelu", w2, b2, residual=ratio), 2, device="cuda")
    mu2, y2 = (mpf(float(got[name].values[0])) for name in ("sigma_mu2", "sigma_y2"))
    centre = over_normal(lambda g: mean_gelu(mp.sqrt(mu2) * g, mp.sqrt(y2)) ** 2)
    square = over_normal(lambda g: (mp.sqrt(mu2 + y2) * g * mp.ncdf(mp.sqrt(mu2 + y2) * g)) ** 2)
    want = float(mu2 + ratio * (w2 * centre + b2)), float(y2 + ratio * w2 * (square - centre))
    assert float(got.sigma_mu2[1]) == pytest.approx(want[0], rel=TIGHT)
    assert float(got.sigma_y2[1]) == pytest.approx(want[1], rel=TIGHT)


def test_both_halves_keep_their_digits() -> None:
    """Of E[phi^2], as sigma_y2 or sigma_mu2 goes to nothing: what `split` is for."""
    from igbfast._expectations import one_device

    device = one_device("cuda")
    s = np.array([1e-30, 1e-12, 1e-3, 0.4, 1.0])
    for name in ["relu", "tanh", "gelu", "elu"]:
        phi = as_activation(name)
        for mu2, y2 in [(1.0 - s, s), (s, 1.0 - s)]:
            got, want = Expectations(phi, None, device).split(mu2, y2), Expectations(phi).split(mu2, y2)
            np.testing.assert_allclose(got.spread, want.spread, rtol=tolerance(name), atol=0.0)
            np.testing.assert_allclose(got.centre, want.centre, rtol=1e-12, atol=1e-16)


def test_an_array_stays_what_and_where_it_is() -> None:
    q = torch.tensor([[0.5], [2.0]], dtype=torch.float32)
    got = igb.moments("tanh", q, np.array([0.1, 0.9]), device="cuda")
    assert isinstance(got, torch.Tensor)
    assert got.dtype == torch.float64
    want = igb.moments("tanh", [[0.5], [2.0]], [0.1, 0.9])
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-14)
    strided = torch.linspace(0.1, 2.0, 7, dtype=torch.float64)[::2]
    np.testing.assert_allclose(
        igb.moments("relu", strided, device="cuda").numpy(), igb.moments("relu", strided.numpy()), rtol=1e-14
    )
    assert igb.moments("relu", torch.empty(0), device="cuda").shape == (0,)
    assert igb.moments("tanh", np.empty(0), device="cuda").shape == (0,)
    assert np.ndim(igb.moments("tanh", 1.0, device="cuda")) == 0


class OnlyDlpack:
    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor

    def __dlpack__(self, **options: Any) -> Any:
        return self.tensor.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.tensor.__dlpack_device__()


def test_any_array_with_dlpack_will_do() -> None:
    got = igb.moments("relu", OnlyDlpack(torch.tensor([2.0, 3.0])), device="cuda")
    np.testing.assert_allclose(got.numpy(), [1.0, 1.5], rtol=1e-15)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"activation": "relu", "q": -1.0}, ValueError, "q must be finite and not negative, got -1.0"),
        ({"activation": "relu", "q": torch.tensor([1.0, -2.0])}, ValueError, "q must be .* got -2.0 at index 1"),
        ({"activation": "relu", "q": torch.tensor([1.0, torch.nan])}, ValueError, "q must be .* got nan at index 1"),
        ({"activation": "relu", "q": 1.0, "c": torch.tensor(1.5)}, ValueError, "c must be from -1 to 1, got 1.5"),
        ({"activation": "relu", "q": torch.tensor([True])}, TypeError, "q must be real numbers, got dtype torch.bool"),
        ({"activation": "relu", "q": 1.0, "q_b": [-1.0]}, ValueError, "q_b must be finite and not negative"),
        (
            {"activation": "relu", "q": torch.ones(2), "c": [0.1] * 3},
            ValueError,
            r"q and c must .* got \(2,\) and \(3,\)",
        ),
        ({"activation": "relu", "q": 1.0, "derivative": 2}, ValueError, "derivative must be 0 or 1 for relu"),
        ({"activation": "relu", "q": 1.0, "pool": igb.MaxPool(2)}, ValueError, "pool must be an AvgPool.*device='cpu'"),
        ({"activation": "exp", "q": 1e5}, ValueError, "exp"),
    ],
)
def test_errors_of_moments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        igb.moments(**arguments, device="cuda")


def test_an_array_elsewhere_is_refused() -> None:
    with pytest.raises(ValueError, match="q must be on cpu, the device asked for, got an array on meta"):
        igb.moments("relu", torch.ones(2, device="meta"), device="cuda")


def test_one_device_at_a_time(monkeypatch: pytest.MonkeyPatch, host_device: Any) -> None:
    from igbfast.gpu import _device

    monkeypatch.setattr(_device, "find", lambda device: [host_device, host_device])
    with pytest.raises(ValueError, match="device must be 'cpu' or one GPU here, got 'cuda:all', which is 2"):
        igb.moments("relu", 1.0, device="cuda:all")


# ---- Recursion -------------------------------------------------------------------------------------------------------


def same_datasets(got: Any, want: Any, rtol: float) -> None:
    assert dict(got.attrs) == dict(want.attrs)
    assert set(got.variables) == set(want.variables)
    for name in want.variables:
        np.testing.assert_allclose(got[name].values, want[name].values, rtol=rtol, atol=1e-300, err_msg=name)


@pytest.mark.parametrize(
    "ens",
    [
        igb.Ensemble("relu", 2.0),
        igb.Ensemble("tanh", 1.76, 0.05),
        igb.Ensemble("tanh", 3.0, 0.1, pool=igb.AvgPool(2)),
        igb.Ensemble("erf", 1.2, 0.01, layernorm=True),
        igb.Ensemble("relu", 2.0, 0.1, residual=0.3),
        igb.Ensemble("gelu", 2.5, 0.2),
    ],
    ids=str,
)
@pytest.mark.parametrize("c0", [0.0, 0.5])
def test_propagate(ens: igb.Ensemble, c0: float) -> None:
    depth = 5 if str(ens.activation) == "gelu" else 50
    got, want = (igb.propagate(ens, depth, q0=0.7, c0=c0, device=device) for device in ("cuda", "cpu"))
    same_datasets(got, want, 1e-12)


def test_a_trajectory_outgrows_its_table() -> None:
    ens = igb.Ensemble("gelu", 30.0)
    got, want = (igb.propagate(ens, 6, device=device) for device in ("cuda", "cpu"))
    same_datasets(got, want, 1e-11)
    assert float(got.q[-1]) > 1e6


def test_what_overflows_is_nan_and_warned_of() -> None:
    ens = igb.Ensemble("linear", 1e30)
    with pytest.warns(RuntimeWarning, match="q exceeds the largest double at layer 11 of 15"):
        got = igb.propagate(ens, 15, device="cuda")
    assert np.isnan(got.q.values[10:]).all()
    assert np.isfinite(got.q.values[:10]).all()


def test_many_trajectories_at_once() -> None:
    from igbfast._expectations import one_device
    from igbfast.gpu import theory

    device = one_device("cuda")
    assert device is not None
    w, b = (x.ravel() for x in np.meshgrid([0.8, 1.5, 2.6], [0.0, 0.1]))
    zero = np.zeros(w.size)
    numbers = {"sigma_w2": w, "sigma_b2": b, "sigma_mu2": zero + b, "sigma_y2": w}
    columns = theory.trajectories(
        device,
        Expectations(as_activation("tanh")),
        **{name: theory.tensor_on(device, x) for name, x in numbers.items()},
        depth=30,
    )
    for i in range(w.size):
        want = igb.propagate(igb.Ensemble("tanh", w[i], b[i]), 30)
        for name, column in columns.items():
            np.testing.assert_allclose(column[i].numpy(), want[name].values, rtol=1e-13, atol=1e-300, err_msg=name)


def test_propagate_refuses_before_any_work() -> None:
    with pytest.raises(ValueError, match="pool must be an AvgPool or None on a GPU, got MaxPool"):
        igb.propagate(igb.Ensemble("relu", 1.0, pool=igb.MaxPool(2)), 3, device="cuda")
    with pytest.raises(ValueError, match="depth must be an integer from 1"):
        igb.propagate(igb.Ensemble("relu", 1.0), 0, device="cuda")


# ---- Diagrams --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("tanh", 6, {}),
        ("relu", 6, {}),
        ("gelu", 2, {}),
        ("tanh", 3, {"residual": 0.2}),
        ("relu", 4, {"layernorm": True}),
        ("tanh", 3, {"layernorm": True, "residual": 0.2}),
        ("relu", 4, {"pool": igb.AvgPool(2)}),
    ],
)
def test_phase_diagram(name: str, size: int, options: dict[str, Any]) -> None:
    w, b = np.linspace(0.7, 3.0, size), np.linspace(0.01, 0.4, size - 1)
    got, want = (igb.phase_diagram(name, w, b, **options, device=device) for device in ("cuda", "cpu"))
    assert dict(got.attrs) == dict(want.attrs)
    np.testing.assert_array_equal(got.phase.values, want.phase.values)
    for variable in want.variables:
        np.testing.assert_allclose(got[variable].values, want[variable].values, rtol=1e-9, err_msg=str(variable))


def test_phase_diagram_refuses_before_any_work() -> None:
    with pytest.raises(ValueError, match="pool must be an AvgPool or None on a GPU, got MinPool"):
        igb.phase_diagram("tanh", [1.0], [0.1], pool=igb.MinPool(2), device="cuda")
