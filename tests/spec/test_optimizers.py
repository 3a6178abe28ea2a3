import dataclasses

import pytest

from parity.errors import SpecError
from parity.spec.optimizers import OPTIMIZERS, decay_rate
from parity.testing import specs

SGD = dataclasses.replace(specs.SGD, nesterov=True, decoupled_decay=0.5)
ADAM = dataclasses.replace(specs.ADAM, lr=0.1, decoupled_decay=0.5, decay_scaled_by_lr=False)
WRONG_VALUES = [
    (SGD, {"lr": -0.1}, "lr must be >= 0 and finite; got -0.1"),
    (SGD, {"l2": float("nan")}, "l2 must be >= 0 and finite; got nan"),
    (SGD, {"decoupled_decay": -1.0}, "decoupled_decay must be >= 0"),
    (SGD, {"momentum": 1.0}, r"momentum must be in \[0, 1\); got 1.0"),
    (SGD, {"momentum": 0.0}, "nesterov needs momentum > 0"),
    (ADAM, {"lr": float("nan")}, "lr must be >= 0 and finite; got nan"),
    (ADAM, {"beta1": 1.0}, r"beta1 must be in \[0, 1\)"),
    (ADAM, {"beta2": -0.5}, r"beta2 must be in \[0, 1\)"),
    (ADAM, {"epsilon": 0.0}, "epsilon must be > 0 and finite; got 0.0"),
    (ADAM, {"epsilon_placement": "inside"}, "epsilon_placement must be .*; got 'inside'"),
]


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_optimizer_spec_is_filed_under_its_kind(kind):
    fields = {field.name: field for field in dataclasses.fields(OPTIMIZERS[kind])}

    assert fields["kind"].default == kind


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_optimizer_spec_has_no_default_but_its_kind(kind):
    defaults = [
        field.name
        for field in dataclasses.fields(OPTIMIZERS[kind])
        if field.default is not dataclasses.MISSING
    ]

    assert defaults == ["kind"]


@pytest.mark.parametrize(("spec", "changes", "message"), WRONG_VALUES)
def test_optimizer_spec_refuses_a_wrong_value_by_name(spec, changes, message):
    with pytest.raises(SpecError, match=message):
        dataclasses.replace(spec, **changes)


def test_optimizer_spec_lists_all_wrong_values_at_once():
    with pytest.raises(SpecError, match=r"lr must.*l2 must.*beta1 must.*beta2 must.*epsilon must"):
        dataclasses.replace(ADAM, lr=-1.0, l2=-1.0, beta1=2.0, beta2=2.0, epsilon=-1.0)


def test_sgd_without_momentum_keeps_no_array():
    assert dataclasses.replace(SGD, momentum=0.0, nesterov=False).initial_slots() == {}


def test_optimizer_slots_have_the_names_of_torch():
    assert SGD.initial_slots() == {"momentum_buffer": 0.0}
    assert ADAM.initial_slots() == {"exp_avg": 0.0, "exp_avg_sq": 0.0}


@pytest.mark.parametrize(
    ("spec", "rate", "expected"),
    [(SGD, 0.25, 0.125), (SGD, 0.0, 0.0), (ADAM, 0.25, 0.05), (ADAM, 0.0, 0.05)],
    ids=["scaled", "scaled-at-zero", "unscaled", "unscaled-at-zero"],
)
def test_decay_rate_follows_the_current_rate_only_when_scaled(spec, rate, expected):
    assert decay_rate(spec, rate=rate) == expected
