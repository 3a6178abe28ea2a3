"""Updates to prove: every rule in every form, one row each, with values far from any default.

Rates, decays and epsilons are large enough for each term to show within a few steps. Imports
`parity.spec` only.
"""

import dataclasses
import math
from typing import Any

from parity.spec.optimizers import (
    AdaBound,
    Adadelta,
    Adagrad,
    Ema,
    Group,
    Lamb,
    Lars,
    Lookahead,
    LookaheadEma,
    Muon,
    NormClipping,
    OptimizerSpec,
    Rmsprop,
    SgdKilostep,
    Update,
    ValueClipping,
)
from parity.testing.specs import ADAM, SGD

# No decay of any kind.
_PLAIN: dict[str, Any] = {
    "l2": 0.0,
    "l2_in_loss": False,
    "decoupled_decay": 0.0,
    "decay_scaled_by_lr": True,
}
_SGD = dataclasses.replace(SGD, lr=0.05)
_ADAM = dataclasses.replace(ADAM, lr=0.003, epsilon=1e-6)
RMSPROP = Rmsprop(
    lr=0.003,
    square_decay=0.9,
    momentum=0.0,
    centered=False,
    epsilon=1e-4,
    epsilon_placement="outside",
    velocity_holds_lr=False,
    **_PLAIN,
)
ADAGRAD = Adagrad(
    lr=0.02,
    initial_accumulator=0.0,
    rate_decay=0.0,
    epsilon=1e-4,
    epsilon_placement="outside",
    **_PLAIN,
)
ADADELTA = Adadelta(lr=1.0, square_decay=0.9, epsilon=1e-5, **_PLAIN)
ADABOUND = AdaBound(
    lr=0.003,
    beta1=0.9,
    beta2=0.999,
    epsilon=1e-6,
    final_rate=0.1,
    gamma=0.05,
    amsbound=False,
    **_PLAIN,
)
# As timm steps (its clipping and its undecayed vectors are parts of the `Update`), then as Keras.
LAMB = Lamb(
    lr=0.005,
    beta1=0.9,
    beta2=0.999,
    epsilon=1e-6,
    decay_in_ratio=True,
    adapts_undecayed=False,
    greatest_ratio=float("inf"),
    **(_PLAIN | {"decoupled_decay": 0.02}),
)
LAMB_KERAS = dataclasses.replace(LAMB, decay_in_ratio=False, adapts_undecayed=True)
LARS = Lars(
    lr=0.5,
    momentum=0.9,
    nesterov=False,
    velocity_holds_lr=False,
    trust_coefficient=0.01,
    norm_epsilon=1e-8,
    least_norm=0.0,
    adapts_undecayed=False,
    **(_PLAIN | {"l2": 5e-4}),
)
LARS_HYSTS = dataclasses.replace(
    LARS,
    lr=0.02,
    velocity_holds_lr=True,
    trust_coefficient=1.0,
    norm_epsilon=1e-9,
    least_norm=0.01,
    adapts_undecayed=True,
)
MUON = Muon(
    lr=0.02,
    momentum=0.6,
    nesterov=True,
    velocity_averages=False,
    members="filters",
    iterations=3,
    norm_epsilon=1e-7,
    norm_clamped=False,
    orthogonalizes_in="own",
    scale="none",
    rms_rate=0.2,
    renormalizes=True,
    others=_SGD,
    **_PLAIN,
)
MUON_TORCH = dataclasses.replace(
    MUON,
    momentum=0.95,
    velocity_averages=True,
    members="filters_and_matrices",
    iterations=5,
    norm_clamped=True,
    scale="tall",
    renormalizes=False,
    decoupled_decay=0.1,
    others=_ADAM,
)
MUON_KERAS = dataclasses.replace(
    MUON_TORCH,
    velocity_averages=False,
    members="matrices",
    norm_clamped=False,
    scale="rms",
    decoupled_decay=0.004,
    others=dataclasses.replace(_ADAM, epsilon_placement="uncorrected", decoupled_decay=0.004),
)

_L2, _DECAY = {"l2": 0.02}, {"decoupled_decay": 0.02}
_UNSCALED = _DECAY | {"decay_scaled_by_lr": False}
_FORMS: dict[str, tuple[OptimizerSpec, dict[str, Any]]] = {
    "sgd": (_SGD, {"momentum": 0.0}),
    "sgd-momentum": (_SGD, _L2),
    "sgd-dampening": (_SGD, {"dampening": 0.3}),
    "sgd-nesterov": (_SGD, {"nesterov": True} | _L2),
    "sgd-velocity-holds-lr": (_SGD, {"velocity_holds_lr": True} | _L2),
    "sgd-dampened-velocity-holds-lr": (_SGD, {"velocity_holds_lr": True, "dampening": 0.3}),
    "sgd-nesterov-velocity-holds-lr": (_SGD, {"velocity_holds_lr": True, "nesterov": True}),
    "sgd-decoupled": (_SGD, _DECAY),
    "sgd-decoupled-unscaled": (_SGD, _UNSCALED),
    "sgd-l2-in-loss": (_SGD, _L2 | {"l2_in_loss": True}),
    "adam": (_ADAM, {}),
    "adam-uncorrected": (_ADAM, {"epsilon_placement": "uncorrected"}),
    "adam-l2": (_ADAM, _L2),
    "adam-l2-in-loss": (_ADAM, _L2 | {"l2_in_loss": True}),
    "adamw": (_ADAM, _DECAY),
    "adamw-unscaled": (_ADAM, _UNSCALED),
    "amsgrad": (_ADAM, {"amsgrad": True}),
    "amsgrad-uncorrected": (_ADAM, {"amsgrad": True, "epsilon_placement": "uncorrected"} | _DECAY),
    "rmsprop": (RMSPROP, _L2),
    "rmsprop-inside": (RMSPROP, {"epsilon_placement": "inside"} | _DECAY),
    "rmsprop-momentum": (RMSPROP, {"momentum": 0.9}),
    "rmsprop-velocity-holds-lr": (RMSPROP, {"momentum": 0.9, "velocity_holds_lr": True}),
    "rmsprop-centered": (RMSPROP, {"centered": True}),
    "rmsprop-centered-inside": (
        RMSPROP,
        {"centered": True, "epsilon_placement": "inside", "momentum": 0.9},
    ),
    "adagrad": (ADAGRAD, {"rate_decay": 0.05} | _L2),
    "adagrad-inside": (ADAGRAD, {"epsilon_placement": "inside", "initial_accumulator": 0.1}),
    "adadelta": (ADADELTA, _L2),
    "adadelta-decoupled": (ADADELTA, _DECAY),
    "adabound": (ADABOUND, _L2),
    "amsbound": (ADABOUND, {"amsbound": True} | _DECAY),
    "lamb-keras": (LAMB_KERAS, {}),
    "lamb-capped": (LAMB, {"greatest_ratio": 0.5}),
    "lars": (LARS, {}),
    "lars-nesterov": (LARS, {"nesterov": True}),
    "lars-hysts": (LARS_HYSTS, {}),
    "muon": (MUON, {}),
    "muon-torch": (MUON_TORCH, {}),
    "muon-keras": (MUON_KERAS, {}),
}

UNDECAYED_VECTORS = Group(
    members="vectors",
    lr_factor=1.0,
    decay_factor=0.0,
    trained_epochs=math.inf,
    schedule="shared",
)
# airbench's: the rate times 64, the product of rate and decay the same.
FAST_NORM_BIASES = Group(
    members="norm_bias",
    lr_factor=64.0,
    decay_factor=1.0 / 64.0,
    trained_epochs=math.inf,
    schedule="shared",
)
# airbench's: the bias of the whitening convolution, the only one beside those of norms.
EARLY_BIASES = Group(
    members="bias", lr_factor=1.0, decay_factor=1.0, trained_epochs=3.0, schedule="shared"
)
AIRBENCH95 = SgdKilostep(
    lr_per_kilostep=10.0,
    decay_per_kilostep=0.0153,
    momentum=0.85,
    nesterov=True,
    velocity_holds_lr=False,
    l2_in_loss=False,
)
AIRBENCH_BATCH_SIZE = 1024
# Source: cifar10-airbench, airbench94_muon.py: biases at 0.053, the head at 0.67, filters at 0.24;
# 2000 images take 0.004 off what is decayed, whatever its rate. Its iteration runs in bfloat16.
_MUON94_BIAS_LR, _MUON94_HEAD_LR, _MUON94_DECAY = 0.053, 0.67, 0.004
MUON94 = dataclasses.replace(
    MUON,
    lr=0.24,
    others=dataclasses.replace(
        SGD,
        lr=_MUON94_BIAS_LR,
        momentum=0.85,
        nesterov=True,
        l2=_MUON94_DECAY / _MUON94_BIAS_LR,
    ),
)
MUON94_GROUPS = (
    dataclasses.replace(EARLY_BIASES, schedule="linear_to_end"),
    Group(
        members="head",
        lr_factor=_MUON94_HEAD_LR / _MUON94_BIAS_LR,
        decay_factor=_MUON94_BIAS_LR / _MUON94_HEAD_LR,
        trained_epochs=math.inf,
        schedule="shared",
    ),
)

# Name -> the update.
UPDATES: dict[str, Update] = {
    name: Update(rule=dataclasses.replace(rule, **changes))
    for name, (rule, changes) in _FORMS.items()
} | {
    "lamb": Update(
        rule=LAMB,
        groups=(UNDECAYED_VECTORS,),
        clipping=NormClipping(kind="global_norm", limit=1.0, epsilon=0.0),
    ),
    "groups-undecayed": Update(
        rule=dataclasses.replace(_ADAM, decoupled_decay=0.1), groups=(UNDECAYED_VECTORS,)
    ),
    "groups-fast-norm-biases": Update(
        rule=dataclasses.replace(_SGD, lr=0.01, l2=0.02, nesterov=True), groups=(FAST_NORM_BIASES,)
    ),
    "groups-that-end-clipped": Update(
        rule=dataclasses.replace(_ADAM, l2=0.02),
        groups=(dataclasses.replace(EARLY_BIASES, members="norm"),),
        clipping=NormClipping(kind="global_norm", limit=0.5, epsilon=1e-6),
    ),
    "airbench95": Update(
        rule=AIRBENCH95.rule(batch_size=AIRBENCH_BATCH_SIZE),
        groups=(FAST_NORM_BIASES, EARLY_BIASES),
        averaging=LookaheadEma(every=5, decay=0.95**5, power=3.0),
    ),
    "airbench94-muon": Update(rule=MUON94, groups=MUON94_GROUPS),
    "clip-global-norm": Update(
        rule=dataclasses.replace(_SGD, l2=0.02),
        clipping=NormClipping(kind="global_norm", limit=0.5, epsilon=1e-6),
    ),
    "clip-tensor-norm": Update(
        rule=_ADAM, clipping=NormClipping(kind="tensor_norm", limit=0.1, epsilon=0.0)
    ),
    "clip-value": Update(rule=_SGD, clipping=ValueClipping(limit=0.01)),
    "clip-penalty-in-loss": Update(
        rule=dataclasses.replace(_SGD, l2=0.02, l2_in_loss=True),
        clipping=NormClipping(kind="global_norm", limit=0.5, epsilon=0.0),
    ),
    "ema": Update(
        rule=_SGD, averaging=Ema(decay=0.9, starts_at="initial_weights", includes_buffers=True)
    ),
    "ema-keras": Update(
        rule=_ADAM, averaging=Ema(decay=0.9, starts_at="first_move", includes_buffers=False)
    ),
    "lookahead": Update(
        rule=_SGD,
        averaging=Lookahead(every=5, slow_rate=0.8, starts_at="initial_weights", scores_slow=True),
    ),
    "lookahead-adam": Update(
        rule=_ADAM,
        averaging=Lookahead(every=3, slow_rate=0.5, starts_at="first_move", scores_slow=False),
    ),
    "lookahead-ema": Update(
        rule=dataclasses.replace(_SGD, nesterov=True),
        averaging=LookaheadEma(every=5, decay=0.95**5, power=3.0),
    ),
}
