"""Layouts are exact both ways and refuse what they do not know."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversion.layouts import (
    LAYOUTS,
    keras_variable,
    move_axes,
    move_shape,
    to_keras_layout,
    to_torch_layout,
)
from parity.errors import ConversionError
from parity.testing.assertions import assert_identical

CASES = [(kind, variable) for kind, variables in LAYOUTS.items() for variable in variables]


@st.composite
def arrays(draw, axes):
    shape = draw(st.tuples(*(st.just(1) if axis == "1" else st.integers(1, 4) for axis in axes)))
    size = int(np.prod(shape))
    return np.arange(size, dtype=draw(st.sampled_from(["f4", "f8"]))).reshape(shape)


@pytest.mark.parametrize(("kind", "variable"), CASES)
@given(data=st.data())
def test_layout_there_and_back_is_identical(kind, variable, data):
    axes = LAYOUTS[kind][variable].keras_axes
    stored = data.draw(arrays(axes))

    slot, in_torch = to_torch_layout(kind, variable, stored)
    sizes = dict(zip(axes, stored.shape, strict=True))
    variable_back, in_keras = to_keras_layout(kind, slot, in_torch, sizes=sizes)

    assert variable_back == variable
    assert_identical(in_keras, stored)


def test_convolution_kernel_moves_to_output_input_height_width():
    kernel = np.zeros((3, 5, 2, 7))
    kernel[2, 4, 1, 6] = 1.0

    slot, weight = to_torch_layout("Conv2D", "kernel", kernel)

    assert slot == "weight"
    assert weight.shape == (7, 2, 3, 5)
    assert weight[6, 1, 2, 4] == 1.0


def test_transposed_kernel_moves_to_input_output_height_width():
    kernel = np.zeros((3, 5, 2, 7))
    kernel[2, 4, 1, 6] = 1.0

    _, weight = to_torch_layout("Conv2DTranspose", "kernel", kernel)

    assert weight.shape == (7, 2, 3, 5)
    assert weight[6, 1, 2, 4] == 1.0


def test_depthwise_kernel_counts_through_the_multiplier_for_each_channel():
    kernel = np.zeros((3, 5, 2, 7))
    kernel[2, 4, 1, 6] = 1.0

    _, weight = to_torch_layout("DepthwiseConv2D", "kernel", kernel)

    assert weight.shape == (14, 1, 3, 5)
    assert weight[1 * 7 + 6, 0, 2, 4] == 1.0


@given(data=st.data())
def test_linear_weight_behind_flattened_images_there_and_back_is_identical(data):
    images = data.draw(arrays("chw"))
    sizes = dict(zip("chw", images.shape, strict=True))
    weight = np.stack([images.ravel(), -images.ravel()])

    moved = move_axes(weight, source="o(chw)", target="(hwc)o", sizes=sizes)
    back = move_axes(moved, source="(hwc)o", target="o(chw)", sizes=sizes)

    assert_identical(moved[:, 0], images.transpose(1, 2, 0).ravel())
    assert_identical(back, weight)


@pytest.mark.parametrize(
    ("sizes", "described"),
    [
        (None, r"axis \(cm\) of length 6 cannot be split by sizes {}"),
        ({"c": 4}, "cannot be split by sizes {'c': 4}"),
        ({"c": 0}, "cannot be split by sizes {'c': 0}"),
        ({"c": 3, "m": 3}, "cannot be split by sizes {'c': 3, 'm': 3}"),
    ],
    ids=str,
)
def test_depthwise_kernel_refuses_sizes_that_do_not_split_it(sizes, described):
    with pytest.raises(ConversionError, match=described):
        to_keras_layout("DepthwiseConv2D", "weight", np.zeros((6, 1, 3, 3)), sizes=sizes)


def test_move_axes_refuses_to_drop_an_axis_longer_than_one():
    with pytest.raises(ConversionError, match="length 1 where an axis is named 1; got 2"):
        move_axes(np.zeros((3, 2)), source="c1", target="c")


def test_dense_kernel_moves_to_output_input():
    _, weight = to_torch_layout("Dense", "kernel", np.array([[1.0, 2.0, 3.0]]))

    assert_identical(weight, np.array([[1.0], [2.0], [3.0]]))


def test_prelu_slopes_drop_the_axes_that_keras_shares():
    _, weight = to_torch_layout("PReLU", "alpha", np.array([[[1.0, 2.0]]]))

    assert_identical(weight, np.array([1.0, 2.0]))
    assert move_shape((2,), source="c", target="11c") == (1, 1, 2)


def test_prelu_slopes_of_single_pixels_have_no_place_in_torch():
    with pytest.raises(ConversionError, match="length 1 where an axis is named 1; got 2"):
        to_torch_layout("PReLU", "alpha", np.zeros((2, 1, 3)))


def test_move_axes_returns_a_contiguous_copy():
    array = np.zeros((2, 3))

    moved = move_axes(array, source="io", target="oi")
    moved[0, 0] = 1.0

    assert moved.flags.c_contiguous
    assert array[0, 0] == 0.0


def test_move_axes_copies_even_where_no_axis_moves():
    array = np.zeros(3)

    move_axes(array, source="c", target="c")[0] = 1.0

    assert array[0] == 0.0


@given(order=st.permutations("oihw"), shape=st.tuples(*[st.integers(1, 5)] * 4))
def test_move_shape_predicts_move_axes(order, shape):
    target = "".join(order)

    moved = move_axes(np.zeros(shape), source="oihw", target=target)

    assert move_shape(shape, source="oihw", target=target) == moved.shape


@pytest.mark.parametrize(
    ("source", "target"), [("hwio", "oih"), ("hwio", "ohwx"), ("hh", "hh")], ids=str
)
def test_move_axes_refuses_axes_that_do_not_match(source, target):
    with pytest.raises(ConversionError, match="expected the same letters"):
        move_axes(np.zeros((1,) * len(source)), source=source, target=target)


@given(data=st.data())
def test_move_shape_predicts_merged_axes(data):
    kernel = data.draw(arrays("hwcm"))

    moved = move_axes(kernel, source="hwcm", target="(cm)1hw")

    assert move_shape(kernel.shape, source="hwcm", target="(cm)1hw") == moved.shape


def test_move_axes_refuses_another_rank():
    with pytest.raises(ConversionError, match=r"expected 4 axes \(hwio\); got shape \(3, 3\)"):
        move_axes(np.zeros((3, 3)), source="hwio", target="oihw")


def test_layout_names_an_unknown_class():
    with pytest.raises(ConversionError, match=r"'Conv3D' has no known layout. Nearest: Conv2D"):
        to_torch_layout("Conv3D", "kernel", np.zeros(1))


def test_layout_names_an_unknown_variable():
    with pytest.raises(ConversionError, match=r"holds no variable 'gamma'. Known: kernel, bias"):
        to_torch_layout("Dense", "gamma", np.zeros(1))


def test_layout_names_an_unknown_slot():
    with pytest.raises(ConversionError, match=r"holds no slot 'running_var'. Known: weight, bias"):
        keras_variable("Dense", "running_var")
