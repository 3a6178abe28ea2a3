"""The strategies draw valid specs, and between them every setting of every field."""

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from parity.spec.conventions import KERAS, TORCH, Conventions
from parity.spec.optimizers import Adam, Sgd
from parity.spec.resnet import ResNetSpec
from parity.testing import strategies

# Nothing is shrunk: any spec that has the setting will do.
SEARCH = settings(max_examples=5000, database=None, derandomize=True, phases=[Phase.generate])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("conv_bias", True),
        ("bn_variance_correction", 0),
        ("stride_offset", "end"),
        ("stats_decay", 0.99),
        ("bn_epsilon", 1.001e-5),
        ("head_bias_init", "zeros"),
    ],
)
def test_conventions_reach_the_setting(field, value):
    found = find(
        strategies.conventions(),
        lambda drawn: getattr(drawn, field) == value,
        settings=SEARCH,
    )

    assert isinstance(found, Conventions)


@pytest.mark.parametrize("preset", [TORCH, KERAS], ids=["torch", "keras"])
def test_conventions_reach_the_preset_in_each_field(preset):
    drawn = strategies.conventions()

    for field, value in vars(preset.conventions).items():
        find(drawn, lambda spec, f=field, v=value: getattr(spec, f) == v, settings=SEARCH)


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_resnet_specs_reach_every_kind(block, stem):
    found = find(
        strategies.resnet_specs(),
        lambda spec: spec.block == block and spec.stem == stem and len(spec.blocks) > 1,
        settings=SEARCH,
    )

    assert isinstance(found, ResNetSpec)


@pytest.mark.parametrize("field", ["stochastic_depth", "dropout"])
def test_resnet_specs_reach_those_that_drop_something(field):
    found = find(
        strategies.resnet_specs(), lambda spec: getattr(spec, field) > 0.0, settings=SEARCH
    )

    assert found.masked_layers()


@pytest.mark.parametrize("kind", [Sgd, Adam])
def test_optimizer_specs_reach_coupled_and_decoupled_decay(kind):
    found = find(
        strategies.optimizer_specs(),
        lambda spec: isinstance(spec, kind) and spec.l2 > 0 and spec.decoupled_decay > 0,
        settings=SEARCH,
    )

    assert found.lr > 0


@given(data=st.data(), spec=strategies.resnet_specs())
def test_images_fit_their_spec(data, spec):
    images = data.draw(strategies.images(spec, 2))

    assert images.shape == (2, spec.in_channels, *spec.input_size)
    assert images.dtype == np.float32
    assert max(spec.input_size) <= 20
