import dataclasses

import pytest

from parity.errors import SpecError
from parity.spec.conventions import KERAS, PRESETS, TORCH, Conventions

WRONG_VALUES = {
    "stats_decay": 1.0,
    "bn_variance_correction": 2,
    "bn_epsilon": 0.0,
    "stride_offset": "middle",
    "conv_init": "kaiming",
    "head_weight_init": "",
    "head_bias_init": "ones",
}


def test_presets_are_the_two_framework_columns():
    assert PRESETS == {"torch": TORCH, "keras": KERAS}


def test_presets_disagree_on_every_model_field():
    torch, keras = dataclasses.asdict(TORCH.conventions), dataclasses.asdict(KERAS.conventions)

    assert [field for field in torch if torch[field] == keras[field]] == []


def test_presets_disagree_on_every_optimizer_form():
    torch, keras = TORCH.optimizer_forms(), KERAS.optimizer_forms()

    assert torch.keys() == keras.keys()
    assert [field for field in torch if torch[field] == keras[field]] == []


def test_torch_preset_holds_the_defaults_of_torch():
    assert TORCH.conventions == Conventions(
        conv_bias=False,
        stats_decay=0.9,
        bn_variance_correction=1,
        bn_epsilon=1e-5,
        conv_init="kaiming_normal_fan_out",
        head_weight_init="fan_in_uniform",
        head_bias_init="fan_in_uniform",
        stride_offset="start",
    )


@pytest.mark.parametrize("field", WRONG_VALUES)
def test_conventions_refuse_a_wrong_value_by_name(field):
    with pytest.raises(SpecError, match=field):
        dataclasses.replace(TORCH.conventions, **{field: WRONG_VALUES[field]})


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.1])
def test_stats_decay_must_lie_strictly_inside_the_unit_interval(decay):
    with pytest.raises(SpecError, match=r"stats_decay must lie in \(0, 1\); got"):
        dataclasses.replace(TORCH.conventions, stats_decay=decay)


def test_conventions_list_all_wrong_values_at_once():
    with pytest.raises(SpecError) as caught:
        dataclasses.replace(TORCH.conventions, **WRONG_VALUES)

    assert [field for field in WRONG_VALUES if field not in str(caught.value)] == []


def test_conventions_refuse_nan():
    with pytest.raises(SpecError, match=r"stats_decay.*bn_epsilon"):
        dataclasses.replace(TORCH.conventions, stats_decay=float("nan"), bn_epsilon=float("nan"))
