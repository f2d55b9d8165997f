"""Ensemble: what it accepts, what it refuses and how it says so."""

import copy
import dataclasses
import pickle
from fractions import Fraction

import numpy as np
import pytest

import igbfast as igb


def test_holds_what_it_is_given():
    ens = igb.Ensemble("tanh", sigma_w2=1.76, sigma_b2=0.05)
    assert ens.activation == igb.Activation("tanh")
    assert (ens.sigma_w2, ens.sigma_b2) == (1.76, 0.05)
    assert igb.Ensemble("tanh", 1.76).sigma_b2 == 0.0


@pytest.mark.parametrize("activation", ["leaky_relu(0.2)", igb.activations.leaky_relu(0.2)])
def test_accepts_an_activation_or_its_name(activation):
    assert igb.Ensemble(activation, 2.0).activation.parameter == 0.2


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2.0), np.float64(2.0), np.int16(2), Fraction(2)])
def test_accepts_any_real_scalar_and_keeps_a_plain_float(value):
    ens = igb.Ensemble("relu", sigma_w2=value, sigma_b2=value)
    assert type(ens.sigma_w2) is float
    assert type(ens.sigma_b2) is float
    assert ens.sigma_w2 == ens.sigma_b2 == 2.0


def test_is_a_value():
    one, same, other = (igb.Ensemble("tanh", 1.5, b) for b in (0.1, 0.1, 0.2))
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert len({one, same, other}) == 2
    assert igb.Ensemble("tanh", 1.5, -0.0) == igb.Ensemble("tanh", 1.5, 0.0)
    assert str(igb.Ensemble("tanh", 1.5, -0.0).sigma_b2) == "0.0"


def test_survives_pickle_and_copy():
    ens = igb.Ensemble("leaky_relu(0.3)", 1.5, 0.1)
    assert pickle.loads(pickle.dumps(ens)) == ens
    assert copy.deepcopy(ens) == ens


@pytest.mark.parametrize("field", ["activation", "sigma_w2", "sigma_b2"])
def test_cannot_be_changed(tanh_edge, field):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(tanh_edge, field, 1.0)


def test_shows_how_to_make_it():
    ens = igb.Ensemble("leaky_relu(0.2)", sigma_w2=1.76, sigma_b2=0.05)
    assert repr(ens) == "Ensemble('leaky_relu(0.2)', sigma_w2=1.76, sigma_b2=0.05)"
    assert eval(repr(ens), {"Ensemble": igb.Ensemble}) == ens


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (-1.0, "-1.0"),
        (0.0, "0.0"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (np.float64(-2.5), "-2.5"),
        (10**400, "1000"),
    ],
)
def test_sigma_w2_out_of_range(value, shown):
    with pytest.raises(ValueError, match=r"sigma_w2 must be a positive finite number, got ") as error:
        igb.Ensemble("tanh", sigma_w2=value)
    assert f"got {shown}" in str(error.value)


@pytest.mark.parametrize(("value", "shown"), [(-1e-9, "-1e-09"), (float("nan"), "nan"), (float("-inf"), "-inf")])
def test_sigma_b2_out_of_range(value, shown):
    with pytest.raises(ValueError, match=rf"sigma_b2 must be a non-negative finite number, got {shown}"):
        igb.Ensemble("tanh", sigma_w2=1.0, sigma_b2=value)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (True, "True"),
        (np.True_, "True"),
        ("1.5", "'1.5'"),
        (1 + 2j, r"\(1\+2j\)"),
        (None, "None"),
        (np.array([1.0, 2.0]), r"an array of shape \(2,\)"),
        (np.array(1.0), r"an array of shape \(\)"),
        ([1.0], r"\[1.0\] \(a list\)"),
    ],
)
@pytest.mark.parametrize("name", ["sigma_w2", "sigma_b2"])
def test_sigma_of_the_wrong_type(name, value, shown):
    with pytest.raises(TypeError, match=rf"{name} must be a .* finite number, got {shown}"):
        igb.Ensemble("tanh", **({"sigma_w2": 1.0} | {name: value}))


def test_unknown_activation_lists_the_known_and_the_nearest():
    with pytest.raises(ValueError, match="unknown activation 'tahn'") as error:
        igb.Ensemble("tahn", 1.0)
    for name in ("linear", "relu", "leaky_relu", "tanh", "erf"):
        assert name in str(error.value)
    assert str(error.value).endswith("did you mean 'tanh'?")


@pytest.mark.parametrize("activation", [None, 3, np.tanh, igb.activations.leaky_relu])
def test_activation_of_the_wrong_type(activation):
    with pytest.raises(TypeError, match="activation must be a name or an Activation"):
        igb.Ensemble(activation, 1.0)


# ---- Pools, residual branches, LayerNorm -----------------------------------------------------------------------------


def test_extras_are_kept_and_shown_as_far_as_they_are_set():
    ens = igb.Ensemble("relu", 1.1, pool=igb.MaxPool(2), residual=0.5, layernorm=True)
    assert ens.extras == {"pool": igb.MaxPool(2), "residual": 0.5, "layernorm": True}
    assert repr(ens).endswith("pool=MaxPool(2), residual=0.5, layernorm=True)")
    assert eval(repr(ens), {"Ensemble": igb.Ensemble, "MaxPool": igb.MaxPool}) == ens
    assert pickle.loads(pickle.dumps(ens)) == ens
    assert hash(copy.deepcopy(ens)) == hash(ens)
    assert igb.Ensemble("relu", 1.1).extras == {}


def test_a_pool_of_one_node_is_none():
    assert igb.Ensemble("relu", 1.1, pool=igb.MaxPool(1)) == igb.Ensemble("relu", 1.1)


def test_pools_are_values():
    assert igb.MaxPool(2) == igb.MaxPool(np.int64(2)) != igb.MaxPool(3)
    assert igb.MaxPool(2) != igb.MinPool(2)
    assert len({igb.MaxPool(2), igb.MaxPool(2), igb.MinPool(2), igb.AvgPool(2)}) == 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        igb.AvgPool(2).size = 3


@pytest.mark.parametrize("pool", [igb.MaxPool, igb.MinPool, igb.AvgPool])
@pytest.mark.parametrize(
    ("size", "error"), [(0, ValueError), (-2, ValueError), (2.0, TypeError), ("2", TypeError), (True, TypeError)]
)
def test_pools_of_a_size_that_is_none(pool, size, error):
    with pytest.raises(error, match=f"the size of {pool.__name__} must be an integer from 1 to"):
        pool(size)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"pool": 2}, TypeError, r"pool must be None, MaxPool\(k\), MinPool\(k\) or AvgPool\(k\), got 2"),
        ({"pool": igb.MaxPool}, TypeError, "pool must be None"),
        ({"residual": 0.0}, ValueError, "residual must be a positive finite number, got 0.0"),
        ({"residual": True}, TypeError, "residual must be a positive finite number, got True"),
        ({"residual": float("inf")}, ValueError, "residual must be a positive finite number, got inf"),
        ({"layernorm": 1}, TypeError, "layernorm must be True or False, got 1"),
    ],
)
def test_extras_out_of_range(settings, error, message):
    with pytest.raises(error, match=message):
        igb.Ensemble("tanh", 1.0, **settings)


# ---- Weights ---------------------------------------------------------------------------------------------------------


def test_weights_are_kept_and_shown_if_not_gaussian():
    ens = igb.Ensemble("tanh", 1.0, weights="orthogonal")
    assert ens.weights == "orthogonal"
    assert ens.extras == {"weights": "orthogonal"}
    assert repr(ens) == "Ensemble('tanh', sigma_w2=1.0, sigma_b2=0.0, weights='orthogonal')"
    assert eval(repr(ens), {"Ensemble": igb.Ensemble}) == ens == pickle.loads(pickle.dumps(ens))
    assert igb.Ensemble("tanh", 1.0).weights == "gaussian"
    assert igb.Ensemble("tanh", 1.0, weights="gaussian").extras == {}
    assert len({igb.Ensemble("tanh", 1.0, weights=law) for law in WEIGHTS}) == 4


WEIGHTS = ("gaussian", "orthogonal", "uniform", "rademacher")


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ("orthgonal", ValueError, "weights must be one of 'gaussian', .*, got 'orthgonal'; did you mean 'orthogonal'?"),
        (
            "normal",
            ValueError,
            "weights must be one of 'gaussian', 'orthogonal', 'uniform', 'rademacher', got 'normal'",
        ),
        (None, TypeError, "weights must be one of .*, got None"),
    ],
)
def test_unknown_weights(weights, error, message):
    with pytest.raises(error, match=message):
        igb.Ensemble("tanh", 1.0, weights=weights)


def test_theory_is_the_same_for_all_weights():
    gaussian, orthogonal = (
        igb.propagate(igb.Ensemble("tanh", 1.5, 0.1, weights=law), 5) for law in ("gaussian", "orthogonal")
    )
    np.testing.assert_array_equal(gaussian["q"], orthogonal["q"])
    assert orthogonal.attrs["weights"] == "orthogonal"


# ---- What simulation takes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ens",
    [
        igb.Ensemble("relu", 1.0, pool=igb.MaxPool(2)),
        igb.Ensemble("relu", 1.0, residual=0.1),
        igb.Ensemble("relu", 1.0, layernorm=True),
        igb.Ensemble("gelu", 1.0),
        igb.Ensemble("2 * tanh(x)", 1.0),
        igb.Ensemble(igb.Activation.custom(np.arctan), 1.0),
    ],
)
def test_simulation_takes_it(ens):
    ds = igb.simulate(ens, width=10, depth=2, inputs=3)
    assert bool(np.isfinite(ds["q"]).all())
    assert ds.attrs["activation"] == str(ens.activation)


def test_simulation_takes_no_mixtures():
    ens = igb.Ensemble("mixture((0.5, tanh), (0.5, relu))", 1.0)
    with pytest.raises(
        ValueError, match="simulate applies one function to all nodes, but in ens with 'mixture.*theory"
    ):
        igb.simulate(ens, width=10, depth=2, inputs=3)
