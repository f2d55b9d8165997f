"""device="cuda", the kernels run on the host, where arguments meet at their edges: the same numbers as on the CPU."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import igbfast as igb


@pytest.mark.usefixtures("on_host")
@pytest.mark.parametrize("method", ["gram", "direct"])
@pytest.mark.parametrize(("width", "inputs", "features"), [(12, 9, 40), (20, 15, 5), (12, 12, 40)])
def test_orthogonal_weights_of_all_shapes(method: str, width: int, inputs: int, features: int) -> None:
    """More features than nodes: the matrix is of the features' order. As many inputs as nodes: the frame is whole."""
    x = np.random.default_rng(0).standard_normal((inputs, features))
    ens = igb.Ensemble("tanh", sigma_w2=1.76, sigma_b2=0.05, weights="orthogonal")
    settings: dict[str, Any] = {"width": width, "depth": 2, "networks": 2, "inputs": x, "dtype": "float64"}
    settings |= {"gradients": "cross_entropy", "classes": 4, "method": method, "progress": False}
    expected = igb.simulate(ens, **settings)
    got = igb.simulate(ens, **settings, device="cuda")
    for name in ("sigma_mu2", "sigma_y2", "q", "c", "chi", "gradient"):
        assert np.isfinite(expected[name]).all()
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-8, atol=1e-11, err_msg=name)
