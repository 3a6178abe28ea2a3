import dataclasses
import math

import pytest

from parity.errors import SpecError
from parity.spec.layers import BatchNorm2d
from parity.spec.optimizers import (
    OPTIMIZERS,
    Ema,
    Group,
    Lookahead,
    LookaheadEma,
    NormClipping,
    Update,
    ValueClipping,
    average_move,
    decay_rate,
    update_from_table,
)
from parity.testing import specs, updates

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
    (SGD, {"dampening": 0.5}, "nesterov needs dampening = 0.0; got 0.5"),
    (SGD, {"dampening": 1.0}, r"dampening must be in \[0, 1\)"),
    (updates.RMSPROP, {"square_decay": 1.0}, r"square_decay must be in \[0, 1\)"),
    (updates.RMSPROP, {"epsilon_placement": "corrected"}, "must be 'outside' or 'inside'"),
    (updates.ADAGRAD, {"initial_accumulator": -0.1}, "initial_accumulator must be >= 0"),
    (updates.ADAGRAD, {"rate_decay": -0.1}, "rate_decay must be >= 0"),
    (updates.ADADELTA, {"epsilon": 0.0}, "epsilon must be > 0"),
    (updates.ADABOUND, {"gamma": 0.0, "lr": 0.0}, "lr must be > 0.*gamma must be > 0"),
    (updates.LAMB, {"greatest_ratio": 0.0}, "greatest_ratio must be > 0"),
    (updates.LAMB, {"decay_scaled_by_lr": False}, "decay_in_ratio needs decay_scaled_by_lr"),
    (updates.LARS, {"l2_in_loss": True}, "the trust ratio needs the bare gradient"),
    (updates.LARS, {"trust_coefficient": 0.0}, "trust_coefficient must be > 0"),
    (updates.MUON, {"iterations": 0}, "iterations must be from 1 to 99"),
    (updates.MUON, {"members": "all"}, "members must be .*; got 'all'"),
    (updates.MUON, {"scale": "wide"}, "scale must be 'none', 'tall' or 'rms'"),
    (updates.MUON, {"others": updates.RMSPROP}, "others must be an sgd or adam rule"),
]
WRONG_PARTS = [
    (lambda: NormClipping(kind="global_norm", limit=0.0, epsilon=0.0), "limit must be > 0"),
    (lambda: NormClipping(kind="global_norm", limit=1.0, epsilon=-1.0), "epsilon must be >= 0"),
    (lambda: ValueClipping(limit=float("inf")), "limit must be > 0 and finite"),
    (lambda: group(members="norms"), "members must be one of vectors"),
    (lambda: group(lr_factor=0.0), "lr_factor must be > 0"),
    (lambda: group(decay_factor=-1.0), "decay_factor must be >= 0"),
    (lambda: group(trained_epochs=0.0), "trained_epochs must be > 0, inf for all; got 0.0"),
    (lambda: group(trained_epochs=math.nan), "trained_epochs must be > 0, inf for all; got nan"),
    (lambda: group(schedule="linear"), "schedule must be 'shared' or 'linear_to_end'"),
    (lambda: group(schedule="linear_to_end"), "'linear_to_end' needs trained_epochs that end"),
    (lambda: kilostep(lr_per_kilostep=0.0), "lr_per_kilostep must be > 0 and finite; got 0.0"),
    (lambda: kilostep(decay_per_kilostep=-1.0), "decay_per_kilostep must be >= 0 and finite"),
    (lambda: kilostep(momentum=1.0), r"momentum must be in \[0, 1\); got 1.0"),
    (lambda: kilostep(momentum=0.0), "nesterov needs momentum > 0"),
    (lambda: ema(decay=1.0), r"decay must be in \[0, 1\)"),
    (lambda: ema(starts_at="end"), "starts_at must be 'initial_weights' or 'first_move'"),
    (lambda: lookahead(every=0), "every must be >= 1"),
    (lambda: lookahead(slow_rate=0.0), r"slow_rate must be in \(0, 1\]"),
    (lambda: LookaheadEma(every=5, decay=0.9, power=-1.0), "power must be >= 0"),
]


def group(**changes):
    values = {"members": "norm", "lr_factor": 1.0, "decay_factor": 1.0}
    ends = {"trained_epochs": math.inf, "schedule": "shared"}
    return Group(**(values | ends | changes))


def kilostep(**changes):
    return dataclasses.replace(updates.AIRBENCH95, **changes)


def ema(**changes):
    values = {"decay": 0.9, "starts_at": "first_move", "includes_buffers": False}
    return Ema(**(values | changes))


def lookahead(**changes):
    values = {"every": 5, "slow_rate": 0.5, "starts_at": "first_move", "scores_slow": True}
    return Lookahead(**(values | changes))


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


@pytest.mark.parametrize(("build", "message"), WRONG_PARTS)
def test_part_of_an_update_refuses_a_wrong_value_by_name(build, message):
    with pytest.raises(SpecError, match=message):
        build()


NAMES = ("stem.conv.weight", "stem.bn.weight", "stem.bn.bias", "head.weight", "head.bias")
DIMENSIONS = (4, 1, 1, 2, 1)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ("vectors", {"stem.bn.weight", "stem.bn.bias", "head.bias"}),
        ("matrices", {"head.weight"}),
        ("filters", {"stem.conv.weight"}),
        ("norm", {"stem.bn.weight", "stem.bn.bias"}),
        ("norm_bias", {"stem.bn.bias"}),
        ("bias", {"head.bias"}),
        ("head", {"head.weight", "head.bias"}),
    ],
)
def test_group_holds_the_parameters_it_names(members, expected):
    held = group(members=members)

    found = {name for name, count in zip(NAMES, DIMENSIONS, strict=True) if held.holds(name, count)}

    assert found == expected


def test_norm_group_holds_exactly_what_batch_norms_have():
    layers = dataclasses.replace(specs.RESNET, block="bottleneck", stem="imagenet").layers()
    held = group(members="norm")

    for layer in layers:
        for slot in layer.slots():
            is_held = held.holds(f"{layer.path}.{slot.name}", len(slot.shape))
            assert is_held == isinstance(layer, BatchNorm2d), layer.path


def test_first_group_that_holds_a_parameter_sets_its_rates():
    update = Update(
        rule=SGD,
        groups=(group(members="bias", lr_factor=2.0), group(members="vectors", decay_factor=0.0)),
    )

    bias, scale = update.assign("head.bias", 1), update.assign("stem.bn.weight", 1)

    assert (bias.lr_factor, bias.rule.decoupled_decay) == (2.0, SGD.decoupled_decay)
    assert (scale.lr_factor, scale.rule.decoupled_decay) == (1.0, 0.0)
    assert update.assign("stem.conv.weight", 4).rule == SGD


def test_muon_leaves_what_it_does_not_update_to_the_other_rule():
    update = Update(rule=updates.MUON)

    assert update.assign("stem.conv.weight", 4).rule == updates.MUON
    other = update.assign("head.weight", 2)
    assert other.rule == updates.MUON.others
    assert other.lr_factor == updates.MUON.others.lr / updates.MUON.lr
    assert update.initial_slots("head.weight", 2) == updates.MUON.others.initial_slots()


@pytest.mark.parametrize("name", updates.UPDATES)
def test_update_is_rebuilt_from_its_table(name):
    update = updates.UPDATES[name]

    assert update_from_table(update.to_table()) == update


def test_average_of_airbench_ends_on_the_average():
    averaging = LookaheadEma(every=5, decay=0.5, power=2.0)

    moves = [average_move(averaging, count=count, progress=count / 8) for count in (4, 5, 8)]

    assert [(move.keep, move.writes_back) for move in moves] == [
        (1.0, False),
        (0.5 * (5 / 8) ** 2, True),
        (1.0, True),
    ]
