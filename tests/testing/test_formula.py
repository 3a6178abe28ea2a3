"""Formula-generated arrays: the same everywhere, and as rich as random ones."""

import numpy as np
import pytest

from parity.spec.conventions import TORCH
from parity.spec.resnet import resnet_spec
from parity.testing.assertions import assert_close
from parity.testing.formula import formula_array, formula_images, formula_state

SHAPES = resnet_spec(
    "resnet18:stem=imagenet",
    conventions=TORCH.conventions,
    in_channels=3,
    input_size=(75, 64),
    classes=1000,
).state_shapes()


def test_formula_array_follows_its_equation():
    shift, period = 408779573 % 1_000_003, 1_000_003  # the CRC-32 of "stem.conv.weight"
    expected = [
        2.0**0.5 * np.sin(2.0 * np.pi * ((k**3 + shift * k) % period) / period) for k in (1, 2, 3)
    ]

    actual = formula_array("stem.conv.weight", (3,))

    assert_close(actual, expected, atol=1e-12, rtol=0.0)


@pytest.mark.parametrize("name", ["head.weight", "stages.2.blocks.1.conv2.weight"])
def test_formula_matrix_has_mean_0_variance_1_and_full_rank(name):
    values = formula_array(name, SHAPES[name]).reshape(SHAPES[name][0], -1)

    assert abs(values.mean()) < 0.01
    assert abs(values.var() - 1.0) < 0.01
    assert np.linalg.matrix_rank(values) == min(values.shape)


def test_formula_state_fits_its_shapes_with_positive_variances():
    state = formula_state(SHAPES)

    assert {name: array.shape for name, array in state.items()} == SHAPES
    assert {array.dtype.name for array in state.values()} == {"float32"}
    assert min(state[name].min() for name in state if name.endswith("running_var")) > 0.5


def test_formula_images_differ():
    first, second = formula_images((2, 3, 20, 17), patch_px=8)

    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.5
