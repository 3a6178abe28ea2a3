import dataclasses
import math

import pytest

from parity.errors import SpecError
from parity.spec.conventions import KERAS, TORCH
from parity.spec.layers import Conv2d, Dropout, StochasticDepth
from parity.spec.resnet import RESNETS, ResNetSpec, block_specs, resnet_spec

# Trained parameters with bias-free convolutions. Source: torchvision 0.28 for ImageNet; for CIFAR,
# published PyTorch nets with 1x1 projections.
IMAGENET_PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}
CIFAR_PARAMETERS = {
    "resnet18": 11_173_962,
    "resnet34": 21_282_122,
    "resnet50": 23_520_842,
    "resnet20": 272_474,
    "resnet32": 466_906,
    "resnet44": 661_338,
    "resnet56": 855_770,
    "resnet110": 1_730_714,
}
WRONG_FIELDS = {
    "block": "wide",
    "blocks": (2, 0),
    "stem": "patch",
    "width": 0,
    "in_channels": 0,
    "input_size": (32, 0),
    "classes": 0,
    "stochastic_depth": 1.0,
    "dropout": -0.1,
}


def build_spec(name, *, size=32, classes=10, conventions=TORCH.conventions):
    return resnet_spec(
        name, conventions=conventions, in_channels=3, input_size=(size, size), classes=classes
    )


def count_parameters(spec):
    slots = spec.slots().values()
    return sum(math.prod(slot.shape) for slot in slots if slot.role == "parameter")


@pytest.mark.parametrize("name", IMAGENET_PARAMETERS)
def test_imagenet_model_has_the_published_parameter_count(name):
    assert count_parameters(build_spec(name, size=224, classes=1000)) == IMAGENET_PARAMETERS[name]


@pytest.mark.parametrize("name", CIFAR_PARAMETERS)
def test_cifar_model_has_the_published_parameter_count(name):
    assert count_parameters(build_spec(name)) == CIFAR_PARAMETERS[name]


def test_resnet18_running_statistics_are_buffers():
    slots = build_spec("resnet18").slots().values()

    assert sum(math.prod(slot.shape) for slot in slots if slot.role == "buffer") == 9_600


def test_conv_bias_adds_one_scalar_a_channel():
    biased = count_parameters(build_spec("resnet18", conventions=KERAS.conventions))

    assert biased - CIFAR_PARAMETERS["resnet18"] == 4_800


@pytest.mark.parametrize("name", RESNETS)
def test_model_names_every_layer_once(name):
    paths = [layer.path for layer in build_spec(name).layers()]

    assert len(paths) == len(set(paths))


@pytest.mark.parametrize("name", [name for name in RESNETS if name not in IMAGENET_PARAMETERS])
def test_cifar_depth_counts_weight_layers_off_the_shortcut(name):
    layers = build_spec(name).layers()
    convs = [
        layer for layer in layers if isinstance(layer, Conv2d) and ".shortcut" not in layer.path
    ]

    assert name == f"resnet{len(convs) + 1}"


def test_layers_come_in_the_order_torch_registers_them():
    paths = [layer.path for layer in build_spec("resnet18").layers()]

    assert paths[:4] == ["stem.conv", "stem.bn", "stages.0.blocks.0.conv1", "stages.0.blocks.0.bn1"]
    assert paths[-3:] == ["stages.3.blocks.1.conv2", "stages.3.blocks.1.bn2", "head"]


def test_projection_follows_the_block_that_it_shortcuts():
    paths = [layer.path for layer in build_spec("resnet18").layers()]
    start = paths.index("stages.1.blocks.0.conv1")

    assert [path.removeprefix("stages.1.blocks.0.") for path in paths[start : start + 6]] == [
        "conv1",
        "bn1",
        "conv2",
        "bn2",
        "shortcut.conv",
        "shortcut.bn",
    ]


def test_bottleneck_strides_on_its_3x3():
    layers = {layer.path: layer for layer in build_spec("resnet50").layers()}
    block = [layers[f"stages.1.blocks.0.conv{index}"] for index in (1, 2, 3)]

    assert [(conv.kernel, conv.stride) for conv in block] == [(1, 1), (3, 2), (1, 1)]


def test_first_bottleneck_projects_though_it_does_not_stride():
    first, second, *_ = block_specs(build_spec("resnet50"))

    assert (first.stride, first.has_projection) == (1, True)
    assert (second.stride, second.has_projection) == (1, False)


def test_state_shapes_name_path_and_slot():
    shapes = build_spec("resnet18").state_shapes()

    assert shapes["stem.conv.weight"] == (64, 3, 3, 3)
    assert shapes["head.weight"] == (10, 512)


@pytest.mark.parametrize(
    ("name", "size", "stem"),
    [
        ("resnet18", 64, "cifar"),
        ("resnet18", 65, "imagenet"),
        ("resnet18:stem=imagenet", 32, "imagenet"),
        ("resnet18:stem=cifar", 224, "cifar"),
        ("resnet20", 224, "cifar"),
    ],
)
def test_stem_follows_the_option_then_the_family_then_the_input(name, size, stem):
    assert build_spec(name, size=size).stem == stem


def test_options_set_width_and_stem():
    spec = build_spec("resnet8:width=32,stem=imagenet")

    assert (spec.width, spec.stem, spec.out_channels) == (32, "imagenet", 128)


def test_stochastic_depth_grows_linearly_from_a_first_block_that_is_always_kept():
    layers = build_spec("resnet20:stochastic_depth=0.4").layers()
    rates = {layer.path: layer.rate for layer in layers if isinstance(layer, StochasticDepth)}

    # Nine blocks: 0.4 * i / 8.
    assert list(rates.values()) == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4])
    assert next(iter(rates)) == "stages.0.blocks.1.stochastic_depth"
    assert list(rates)[-1] == "stages.2.blocks.2.stochastic_depth"


def test_dropout_is_before_the_head():
    *_, dropout, _ = build_spec("resnet20:dropout=0.1").layers()

    assert dropout == Dropout(path="dropout", features=64, rate=0.1)


def test_dropping_adds_no_array():
    dropping = build_spec("resnet20:stochastic_depth=0.2,dropout=0.1")

    assert dropping.state_shapes() == build_spec("resnet20").state_shapes()


@pytest.mark.parametrize("options", ["", ":stochastic_depth=0,dropout=0.0"])
def test_rates_of_zero_drop_nothing(options):
    assert build_spec(f"resnet20{options}").masked_layers() == ()


def test_stochastic_depth_of_a_single_block_is_refused():
    with pytest.raises(SpecError, match=r"stochastic_depth must be 0\.0 for a single block"):
        dataclasses.replace(build_spec("resnet20"), blocks=(1,), stochastic_depth=0.1)


@pytest.mark.parametrize("field", ["stochastic_depth", "dropout"])
def test_rate_that_is_no_float_is_refused(field):
    with pytest.raises(SpecError, match=rf"{field} must be a float; got 0"):
        dataclasses.replace(build_spec("resnet20"), **{field: 0})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet19", r"'resnet19' not found\. Nearest: resnet1"),
        ("resnet18:depth=3", "'depth=3' must be width=CHANNELS, stem="),
        ("resnet18:width", "'width' must be width=CHANNELS"),
        ("resnet18:width=0", "whole number >= 1; got '0'"),
        ("resnet18:width=6.5", "whole number >= 1; got '6.5'"),
        ("resnet18:stem=patch", "stem must be 'cifar' or 'imagenet'; got 'patch'"),
        ("resnet18:dropout=1.0", "dropout must be a rate with 0 <= rate < 1.*got '1.0'"),
        ("resnet18:dropout=-0.1", "dropout must be a rate with 0 <= rate < 1.*got '-0.1'"),
        ("resnet18:dropout=.5", "dropout must be a rate with 0 <= rate < 1.*got '.5'"),
        ("resnet18:stochastic_depth=nan", "stochastic_depth must be a rate .*got 'nan'"),
        ("resnet18:stochastic_depth=0.1,stochastic_depth=0.1", "stochastic_depth is given twice"),
    ],
)
def test_model_name_is_refused_with_the_reason(name, message):
    with pytest.raises(SpecError, match=message):
        build_spec(name)


@pytest.mark.parametrize("field", WRONG_FIELDS)
def test_resnet_spec_refuses_a_wrong_field_by_name(field):
    with pytest.raises(SpecError, match=rf"{field} must"):
        dataclasses.replace(build_spec("resnet18"), **{field: WRONG_FIELDS[field]})


def test_resnet_spec_lists_all_wrong_fields_at_once():
    with pytest.raises(SpecError) as caught:
        ResNetSpec(conventions=TORCH.conventions, **WRONG_FIELDS)

    assert [field for field in WRONG_FIELDS if field not in str(caught.value)] == []
