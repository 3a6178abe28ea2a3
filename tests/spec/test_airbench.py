import dataclasses

import pytest

from parity.errors import SpecError
from parity.spec.airbench import (
    AIRBENCHES,
    SMALLEST_SIDE,
    AirbenchSpec,
    airbench_blocks,
    airbench_conventions,
    airbench_spec,
)
from parity.spec.models import MODELS, named_spec

WRONG_FIELDS = {
    "widths": (64, 256),
    "depth": 4,
    "residual": "both",
    "gelu": "sigmoid",
    "whitening_order": "random",
    "logit_scale": 0.0,
    "input_size": (32, SMALLEST_SIDE - 1),
    "in_channels": 0,
    "classes": 0,
}


def build_spec(name="airbench94", *, in_channels=3, input_size=(32, 32)):
    return airbench_spec(
        name,
        conventions=airbench_conventions(name),
        in_channels=in_channels,
        input_size=input_size,
        classes=10,
    )


# Channels of the blocks, convolutions a block, residual connection, divisor of the logits, order of
# the whitening's eigenvalues. Source: airbench 0.1.8 and the scripts of cifar10-airbench.
NETWORKS = {
    "airbench93": ((64, 128, 128), 2, "none", 9, "descending"),
    "airbench94": ((64, 256, 256), 2, "none", 9, "descending"),
    "airbench94_muon": ((64, 256, 256), 2, "none", 256, "ascending"),
    "airbench95": ((128, 384, 384), 2, "none", 9, "descending"),
    "airbench96": ((128, 384, 512), 3, "before_activation", 9, "descending"),
    "airbench96_paper": ((128, 512, 512), 3, "after_activation", 9, "descending"),
}


def test_every_network_is_known_here():
    assert set(AIRBENCHES) == set(NETWORKS)
    assert set(AIRBENCHES) <= set(MODELS)


@pytest.mark.parametrize("name", NETWORKS)
def test_network_is_the_published_one(name):
    spec = build_spec(name)

    widths, depth, residual, divisor, order = NETWORKS[name]
    assert (spec.widths, spec.depth, spec.residual) == (widths, depth, residual)
    assert (spec.logit_scale, spec.gelu, spec.whitening_order) == (1.0 / divisor, "exact", order)


@pytest.mark.parametrize("name", NETWORKS)
def test_width_scales_every_block(name):
    widths = build_spec(f"{name}:width=16").widths

    assert widths == tuple(16 * width // NETWORKS[name][0][0] for width in NETWORKS[name][0])


@pytest.mark.parametrize("name", ["resnet20", "airbench94:width=8"])
def test_named_spec_finds_the_family(name):
    spec = named_spec(
        name,
        conventions=airbench_conventions("airbench94"),
        in_channels=1,
        input_size=(28, 28),
        classes=10,
    )

    assert name.startswith(spec.family)


@pytest.mark.parametrize(("in_channels", "filters"), [(1, 8), (3, 24)])
def test_whitening_has_each_patch_direction_and_its_negative(in_channels, filters):
    spec = build_spec(in_channels=in_channels)

    assert spec.slots()["whiten.weight"].shape == (filters, in_channels, 2, 2)
    assert next(airbench_blocks(spec)).in_channels == filters


def test_whitening_filters_are_frozen_and_their_bias_is_not():
    slots = build_spec().slots()

    assert (slots["whiten.weight"].role, slots["whiten.bias"].role) == ("frozen", "parameter")
    assert [name for name, slot in slots.items() if slot.role == "frozen"] == ["whiten.weight"]


def test_batch_norms_have_no_scale_and_the_head_no_bias():
    names = set(build_spec().slots())

    assert "blocks.0.bn1.bias" in names
    assert not {"blocks.0.bn1.weight", "head.bias", "blocks.0.conv1.bias"} & names


@pytest.mark.parametrize(("side", "last"), [(32, 3), (28, 3), (16, 1), (SMALLEST_SIDE, 1), (64, 7)])
def test_pools_drop_what_is_left_over(side, last):
    assert build_spec(input_size=(side, side)).last_map == (last, last)


@pytest.mark.parametrize("field", WRONG_FIELDS)
def test_airbench_spec_refuses_a_wrong_field_by_name(field):
    with pytest.raises(SpecError, match=rf"{field} must"):
        dataclasses.replace(build_spec(), **{field: WRONG_FIELDS[field]})


def test_airbench_spec_lists_all_wrong_fields_at_once():
    with pytest.raises(SpecError) as caught:
        AirbenchSpec(conventions=airbench_conventions("airbench94"), **WRONG_FIELDS)

    assert [field for field in WRONG_FIELDS if field not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("airbench97", r"model 'airbench97' not found\. Nearest: airbench9"),
        ("airbench94:stem=cifar", r"'stem=cifar' must be width=CHANNELS\."),
        ("airbench94:width=0", "width must be a whole number >= 1; got '0'"),
        ("airbench94:width=8,width=8", "width is given twice"),
        ("airbench94:", "expected options after ':'"),
    ],
)
def test_name_is_refused_with_the_reason(name, message):
    for build in (airbench_spec, named_spec):
        with pytest.raises(SpecError, match=message):
            build(
                name,
                conventions=airbench_conventions("airbench94"),
                in_channels=3,
                input_size=(32, 32),
                classes=10,
            )


def test_conventions_of_an_unknown_network_are_refused():
    with pytest.raises(SpecError, match="model 'resnet18' not found"):
        airbench_conventions("resnet18")
