"""Every value of airbench's recipes on CIFAR-10 beside the scripts that they were published in.

Source: cifar10-airbench, `hyp` and `train` of airbench93.py to airbench96.py, airbench94_muon.py;
airbench 0.1.8, lib_airbench96.py, for the paper's 96. Running statistics are weighed as PyTorch's
momentum of 0.4, and of its default 0.1 in the repository's 96.
"""

import math

import numpy as np
import pytest

from parity.spec.airbench import AIRBENCHES, airbench_conventions
from parity.spec.recipe import load_recipe
from parity.testing.assertions import assert_close

ALL = {
    "data": "cifar10",
    "resolution": 0,
    "drop_last": True,
    "sampling": "reshuffled",
    "conventions.conv_bias": False,
    "conventions.bn_variance_correction": 1,
    "conventions.bn_epsilon": 1e-12,
    "conventions.conv_init": "fan_in_uniform_dirac",
    "conventions.stride_offset": "start",
    "augment.crop_padding": "reflect",
    "augment.flip": "alternating",
    "loss.kind": "cross_entropy",
    "loss.label_smoothing": 0.2,
    "loss.reduction": "sum",
    "clipping.kind": "none",
    "schedule.unit": "step",
    "evaluation.every_epochs": 1000,
    "evaluation.batch_size": 2000,
    "evaluation.tta_level": 2,
}
EARLY = {"members": "bias", "lr_factor": 1.0, "decay_factor": 1.0, "trained_epochs": 3.0}
SGD = {
    "batch_size": 1024,
    "conventions.head_weight_init": "fan_in_uniform",
    "conventions.head_bias_init": "zeros",
    "optimizer.kind": "sgd_kilostep",
    "optimizer.momentum": 0.85,
    "optimizer.nesterov": True,
    "optimizer.velocity_holds_lr": False,
    "optimizer.l2_in_loss": False,
    "groups": [
        {
            "members": "norm_bias",
            "lr_factor": 64.0,
            "decay_factor": 1.0 / 64.0,
            "trained_epochs": math.inf,
            "schedule": "shared",
        },
        {**EARLY, "schedule": "shared"},
    ],
    "averaging.kind": "lookahead_ema",
    "averaging.every": 5,
    "averaging.decay": pytest.approx(0.95**5, rel=1e-15),
    "averaging.power": 3.0,
    "schedule.kind": "triangular",
    "schedule.start_factor": 0.2,
}
MUON = {
    "model": "airbench94_muon",
    "epochs": 8,
    "batch_size": 2000,
    "conventions.stats_decay": 0.6,
    "conventions.head_weight_init": "fan_in_uniform_unit_deviation",
    "conventions.head_bias_init": "fan_in_uniform",
    "augment.crop_px": 2,
    "augment.cutout_px": 0,
    "optimizer.kind": "muon",
    "optimizer.lr": 0.24,
    "optimizer.momentum": 0.6,
    "optimizer.nesterov": True,
    "optimizer.velocity_averages": False,
    "optimizer.members": "filters",
    "optimizer.iterations": 3,
    "optimizer.norm_epsilon": 1e-7,
    "optimizer.norm_clamped": False,
    "optimizer.orthogonalizes_in": "bfloat16",
    "optimizer.scale": "none",
    "optimizer.rms_rate": 0.2,  # of a scale that is not used
    "optimizer.renormalizes": True,
    "optimizer.l2": 0.0,
    "optimizer.l2_in_loss": False,
    "optimizer.decoupled_decay": 0.0,
    "optimizer.decay_scaled_by_lr": True,
    "optimizer.others.kind": "sgd",
    "optimizer.others.lr": 0.053,
    "optimizer.others.momentum": 0.85,
    "optimizer.others.dampening": 0.0,
    "optimizer.others.nesterov": True,
    "optimizer.others.l2": pytest.approx(2e-6 * 2000 / 0.053, rel=1e-15),
    "optimizer.others.l2_in_loss": False,
    "optimizer.others.decoupled_decay": 0.0,
    "optimizer.others.decay_scaled_by_lr": True,
    "optimizer.others.velocity_holds_lr": False,
    "groups": [
        {
            "members": "head",
            "lr_factor": pytest.approx(0.67 / 0.053, rel=1e-15),
            "decay_factor": pytest.approx(0.053 / 0.67, rel=1e-15),
            "trained_epochs": math.inf,
            "schedule": "shared",
        },
        {**EARLY, "schedule": "linear_to_end"},
    ],
    "averaging.kind": "none",
    "schedule.kind": "linear",
    "schedule.warmup": "prefix",
    "schedule.warmup_epochs": 0.0,
    "schedule.warmup_start_factor": 0.0,
    "schedule.warmup_first_step": "one_rise_above",
    "schedule.warmup_last_step": "one_rise_below",
    "schedule.final_factor": 0.0,
}

KEYS = (
    "epochs",
    "conventions.stats_decay",
    "augment.crop_px",
    "augment.cutout_px",
    "optimizer.lr_per_kilostep",
    "optimizer.decay_per_kilostep",
    "schedule.peak",
    "schedule.final_factor",
)
ROWS = {
    "airbench93": (11, 0.6, 2, 0, 11.5, 0.0153, 0.23, 0.07),
    "airbench94": (9.9, 0.6, 2, 0, 11.5, 0.0153, 0.23, 0.07),
    "airbench95": (15, 0.6, 2, 0, 10.0, 0.0153, 0.23, 0.07),
    "airbench96": (37, 0.9, 4, 12, 9.0, 0.012, 0.1, 0.0),
    "airbench96_paper": (40, 0.6, 4, 12, 9.0, 0.0153, 0.23, 0.07),
}
PUBLISHED = {
    name: {**ALL, **SGD, "name": name, "model": name, **dict(zip(KEYS, row, strict=True))}
    for name, row in ROWS.items()
} | {"airbench94_muon": {**ALL, **MUON, "name": "airbench94_muon"}}


def flattened(table, prefix=""):
    """Return the leaves of nested tables by dotted key."""
    flat = {}
    for key, value in table.items():
        flat |= flattened(value, f"{key}.") if isinstance(value, dict) else {key: value}
    return {f"{prefix}{key}": value for key, value in flat.items()}


def test_every_network_has_a_row():
    assert set(PUBLISHED) == set(AIRBENCHES)


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipe_has_the_published_values(name):
    assert flattened(load_recipe(name, data="cifar10").to_table()) == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_network_has_the_conventions_of_its_recipe_when_converted_alone(name):
    assert airbench_conventions(name) == load_recipe(name, data="cifar10").conventions


def test_rates_of_the_muon_training_fall_by_a_200th_a_step():
    schedule = load_recipe("airbench94_muon", data="cifar10").schedule

    factors = [schedule.factor(step, length=200, epoch=25) for step in range(200)]

    assert_close(np.array(factors), 1.0 - np.arange(200) / 200, atol=1e-15, rtol=0.0)


# Data set -> width of the network, and what two cores train in minutes.
SMALL = {
    "digits": {"width": 8, "resolution": 32, "epochs": 15, "batch_size": 64, "crop_px": 1},
    "fashion_mnist": {"width": 16, "resolution": 0, "epochs": 4, "batch_size": 512, "crop_px": 2},
}
CUTOUTS = {"airbench96": {"digits": 12, "fashion_mnist": 8}}
CUTOUTS["airbench96_paper"] = CUTOUTS["airbench96"]


@pytest.mark.parametrize("data", SMALL)
@pytest.mark.parametrize("name", AIRBENCHES)
def test_small_data_sets_have_narrow_networks_and_short_trainings(name, data):
    recipe = load_recipe(name, data=data)

    model, _, width = recipe.model.partition(":width=")
    assert model == name
    assert SMALL[data] == {
        "width": int(width),
        "resolution": recipe.resolution,
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "crop_px": recipe.augment.crop_px,
    }
    assert recipe.augment.cutout_px == CUTOUTS.get(name, {}).get(data, 0)
