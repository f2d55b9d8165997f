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
