"""Scikit-learn's handwritten digits through untrained networks, and theory beside them.

    python examples/digits.py

Which class would a network favour before it has seen a label, and what would change if the pictures were centred?
Needs scikit-learn, which brings the pictures along. Takes a few seconds.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import xarray as xr
from sklearn.datasets import load_digits

import igbfast as igb

ENSEMBLE = igb.Ensemble("tanh", sigma_w2=1.76, sigma_b2=0.05)
WIDTH, DEPTH, LAYERS = 500, 10, (1, 2, 5, 10)


def main() -> None:
    pictures = (load_digits().data / 16.0).astype(np.float32)  # 1,797 pictures of 8 x 8, from 0 to 1
    print(f"{len(pictures):,} pictures, {pictures.shape[1]} pixels; {ENSEMBLE}\n")
    compare("direct, all pictures as they are", pictures, "direct")
    compare("direct, all pictures less their mean", pictures - pictures.mean(axis=0), "direct")
    compare("gram, the first 300 pictures", pictures[:300], "gram")
    stream(pictures)


def compare(what: str, inputs: np.ndarray, method: str) -> None:
    """sigma_mu2, sigma_y2 and gamma by layer: theory for these very inputs, and eight networks."""
    theory = igb.kernel(ENSEMBLE, inputs=inputs, depth=DEPTH)
    networks = igb.simulate(ENSEMBLE, width=WIDTH, depth=DEPTH, inputs=inputs, networks=8, method=method, seed=1)
    mean = igb.network_mean(networks)
    print(what)
    print("  layer   " + "".join(f"{name:>24}" for name in ("sigma_mu2", "sigma_y2", "gamma")))
    for layer in LAYERS:
        print(
            f"  {layer:>5}   " + "".join(cell(theory, mean, name, layer) for name in ("sigma_mu2", "sigma_y2", "gamma"))
        )
    share = float(mean.ranked_fraction[0])
    print(f"  The favoured class gets {share:.0%} of the pictures, on average; fair would be 10 %.\n")


def cell(theory: xr.Dataset, mean: xr.Dataset, name: str, layer: int) -> str:
    """Theory, and simulation with its standard error over the networks."""
    expected, found, error = (float(ds.sel(layer=layer)) for ds in (theory[name], mean[name], mean[f"{name}_se"]))
    return f"{expected:9.3f} {found:7.3f} ± {error:5.3f}"


def stream(pictures: np.ndarray) -> None:
    """The same pictures from a file that is mapped, and in chunks: nothing of it has to fit into memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pictures.npy"
        np.save(path, pictures)
        mapped = np.load(path, mmap_mode="r")
        chunks = (mapped[begin : begin + 500] for begin in range(0, len(mapped), 500))
        whole, streamed = (
            igb.simulate(ENSEMBLE, width=WIDTH, depth=DEPTH, inputs=inputs, method="direct")
            for inputs in (mapped, chunks)
        )
        difference = float(abs(streamed.gamma / whole.gamma - 1.0).max())
        print(f"mapped from a file, and in chunks of 500: gamma differs by {difference:.0e} of itself, at most")
        del mapped


if __name__ == "__main__":
    main()
