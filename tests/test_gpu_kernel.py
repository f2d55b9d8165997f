"""igb.kernel with device="cuda", its kernels run on the host, against the CPU's engine, which mpmath has checked."""

import contextlib
import sys

import numpy as np
import pytest

import igbfast as igb

torch = pytest.importorskip("torch")

COLUMNS = ("sigma_mu2", "sigma_y2", "gamma", "q", "c", "chi")


def some_inputs(n, spread=0.3):
    """Of different norms; some the same, opposite, or nearly the same."""
    rng = np.random.default_rng(n)
    x = rng.standard_normal((n, 5)) * np.exp(spread * rng.standard_normal((n, 1)))
    if n > 4:
        x[1], x[2], x[3] = x[0], -x[0], x[0] * (1.0 + 1e-8)
        x[4] = x[0] + 1e-7 * rng.standard_normal(5)
    return x


def assert_same(found, expected, rtol=1e-13):
    for name in COLUMNS:
        np.testing.assert_allclose(found[name], expected[name], rtol=rtol, err_msg=name)
    k = expected.covariance.values
    roots = np.sqrt(np.diagonal(k, axis1=-2, axis2=-1))
    assert np.abs((found.covariance.values - k) / (roots[..., :, None] * roots[..., None, :])).max() < rtol
    np.testing.assert_array_equal(found.covariance, np.swapaxes(found.covariance.values, -1, -2))


@pytest.mark.parametrize(
    ("n", "depth", "ens"),
    [
        (2, 50, igb.Ensemble("tanh", 1.3, 0.1)),
        (17, 50, igb.Ensemble("tanh", 0.5, 0.1)),  # gamma 1e16
        (65, 12, igb.Ensemble("tanh", 3.0, 0.0)),
        (3, 50, igb.Ensemble("relu", 1.2, 0.1)),
        (65, 20, igb.Ensemble("relu", 2.0)),
        (17, 50, igb.Ensemble("erf", 0.5, 1.0)),
        (33, 20, igb.Ensemble("erf", 3.0, 0.1)),
        (17, 20, igb.Ensemble("leaky_relu(-1)", 1.5)),
        (17, 20, igb.Ensemble("leaky_relu(0.2)", 1.5, 0.1, residual=0.5)),
        (17, 20, igb.Ensemble("linear", 0.9, 0.1)),
        (17, 20, igb.Ensemble("tanh", 1.5, 0.1, layernorm=True)),
        (17, 10, igb.Ensemble("tanh", 1.5, 0.1, pool=igb.AvgPool(3))),
        (17, 10, igb.Ensemble("gelu", 1.5, 0.1)),  # a table, with a series of all terms
        (17, 10, igb.Ensemble("sin", 1.5, 0.1)),
        (17, 10, igb.Ensemble("gaussian", 1.5, 0.1)),
        (17, 6, igb.Ensemble("hardtanh", 1.5, 0.1, layernorm=True)),  # a curve
        (9, 5, igb.Ensemble("relu", 1.5, 0.1, pool=igb.MaxPool(3), layernorm=True)),
        (4, 3, igb.Ensemble("hardtanh", 1.5, 0.1)),  # pair by pair
    ],
    ids=lambda value: str(value) if isinstance(value, igb.Ensemble) else None,
)
def test_as_on_the_cpu(on_host, n, depth, ens):
    x = some_inputs(n)
    arguments = {"inputs": x, "depth": depth, "layers": [1, 2, depth]}
    assert_same(igb.kernel(ens, device="cuda", **arguments), igb.kernel(ens, **arguments))


def test_inputs_that_become_one_keep_their_digits(on_host):
    x = 1.0 + 1e-7 * np.random.default_rng(0).standard_normal((17, 5))
    ens = igb.Ensemble("erf", 0.5, 1.0)
    found, expected = (igb.kernel(ens, inputs=x, depth=20, device=device) for device in ("cuda", "cpu"))
    assert expected.gamma[0] > 1e13
    np.testing.assert_allclose(found.gamma, expected.gamma, rtol=1e-13)


def test_variances_that_leave_the_range(on_host):
    ens = igb.Ensemble("relu", 1e200)
    with pytest.warns(RuntimeWarning, match="range of double"):
        found = igb.kernel(ens, np.eye(3), 4, device="cuda")
    with pytest.warns(RuntimeWarning, match="range of double"):
        expected = igb.kernel(ens, np.eye(3), 4)
    for name in COLUMNS:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-13)
    assert np.isnan(found.covariance).all()


def test_covariance_and_inputs_in_every_form(on_host):
    x = some_inputs(9)
    ens = igb.Ensemble("tanh", 1.5, 0.1)
    k0 = x @ x.T / x.shape[1]
    expected = igb.kernel(ens, k0, 5)
    read_only = k0.copy()
    read_only.flags.writeable = False
    for form in (k0, read_only, k0.tolist(), torch.tensor(k0), torch.tensor(k0).T):
        found = igb.kernel(ens, form, 5, device="cuda")
        assert_same(found, expected)
        assert isinstance(found.covariance.values, np.ndarray)
        assert found.attrs["device"] == on_host.name
    single = x.astype(np.float32)
    for inputs in (single, torch.tensor(single)):
        found = igb.kernel(ens, inputs=inputs, depth=5, device="cuda")
        assert_same(found, igb.kernel(ens, inputs=single, depth=5))


def test_phi_that_is_outgrown_is_made_anew(on_host):
    ens = igb.Ensemble("silu", 6.0, 0.1)  # a table, whose reach the variances pass
    x = some_inputs(5)
    assert_same(*(igb.kernel(ens, inputs=x, depth=12, device=device) for device in ("cuda", "cpu")))


def test_progress_of_layers(on_host, monkeypatch):
    seen = []
    monkeypatch.setattr(sys.modules["igbfast.kernel"], "progress_bar", lambda *_: contextlib.nullcontext(seen.append))
    igb.kernel(igb.Ensemble("relu", 2.0), np.eye(3), 5, layers=[3], device="cuda")
    np.testing.assert_allclose(seen, [0.3, 0.6, 0.8, 1.0])


@pytest.mark.parametrize(
    ("k0", "message"),
    [
        ([[1.0, np.nan], [np.nan, 1.0]], r"k0 must be finite, got nan at index \(0, 1\)"),
        ([[1.0, 0.5], [0.4, 1.0]], r"k0 must be symmetric, but k0\[0, 1\] and its mirror image differ by 0.1"),
        ([[1.0, 2.0], [2.0, 1.0]], r"k0\[0, 1\] = 2.0 is larger than the variances 1.0 and 1.0"),
        ([[-1.0, 0.0], [0.0, 1.0]], r"k0 must not be negative on its diagonal, got -1.0 at index \(0, 0\)"),
        ([[1.0, -0.9, -0.9], [-0.9, 1.0, -0.9], [-0.9, -0.9, 1.0]], "k0 .*, but has the eigenvalue -0.8"),
        ([[1.0, 0.5]], r"k0 must be a square matrix with two rows or more, got an array of shape \(1, 2\)"),
        ([[1.0, 0.5, 0.1], [0.5, 1.0, 0.1]], r"k0 must be a square matrix, got shape \(2, 3\)"),
    ],
)
def test_what_is_no_covariance(on_host, k0, message):
    for form in (np.array(k0), torch.tensor(k0, dtype=torch.float64)):
        with pytest.raises(ValueError, match=message):
            igb.kernel(igb.Ensemble("relu", 2.0), form, 3, device="cuda")


def test_what_is_no_array_of_inputs(on_host):
    ens = igb.Ensemble("relu", 2.0)
    with pytest.raises(TypeError, match="inputs must be real numbers, got dtype torch.complex128"):
        igb.kernel(ens, inputs=torch.zeros((3, 2), dtype=torch.complex128), depth=3, device="cuda")
    with pytest.raises(ValueError, match="inputs must have a finite mean square, but that of row 1 overflows"):
        igb.kernel(ens, inputs=torch.tensor([[1.0], [1e200]], dtype=torch.float64), depth=3, device="cuda")
    with pytest.raises(ValueError, match="input 1 is"):
        igb.kernel(igb.Ensemble("tanh", 1.5, layernorm=True), inputs=torch.eye(2)[:, :1], depth=3, device="cuda")


def test_pairs_that_do_not_fit(on_host, monkeypatch):
    monkeypatch.setattr(type(on_host), "free_memory", lambda device: 2**20)
    with pytest.raises(ValueError, match=r"inputs of 200 inputs needs about .* of the GPU's memory, but"):
        igb.kernel(igb.Ensemble("relu", 2.0), inputs=some_inputs(200), depth=3, device="cuda")


def test_one_gpu_only(on_host, monkeypatch):
    from igbfast.gpu import _device

    monkeypatch.setattr(_device, "find", lambda device: [on_host, on_host])
    with pytest.raises(ValueError, match="device must be one GPU for kernel, got 2 x "):
        igb.kernel(igb.Ensemble("relu", 2.0), np.eye(2), 3, device="cuda:all")
