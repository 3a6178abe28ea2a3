"""Axes are followed through what moves them, so that one side's array lies upon the other's."""

import math

import numpy as np
import pytest

from parity.compare.axes import Axis, input_axes, label_axes, move_value, permutation
from parity.frameworks.program import Operation, Trace
from parity.testing.assertions import assert_identical

IMAGES = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)


def traced(shapes, *steps):
    """Return a trace of one input whose step `i` makes value `i + 1` of the values it names."""
    operations = tuple(
        Operation(
            name=f"step{place}",
            kind=kind,
            native=kind,
            inputs=tuple(operands),
            outputs=(place,),
            attributes=attributes,
        )
        for place, (kind, operands, attributes) in enumerate(steps, start=1)
    )
    return Trace(
        operations=operations,
        shapes=dict(enumerate(shapes)),
        dtypes=dict.fromkeys(range(len(shapes)), "float64"),
        inputs=(0,),
        outputs={"": len(shapes) - 1},
    )


def axes_of(trace, order):
    names = input_axes(0, IMAGES.shape)
    return label_axes(trace, {0: tuple(names[place] for place in order)})


NCHW, NHWC = (0, 1, 2, 3), (0, 2, 3, 1)
FLAT = ("reshape", [0], {"shape": (2, 60)})


def test_channels_first_lies_upon_channels_last():
    ours = axes_of(traced([(2, 3, 4, 5)]), NCHW)[0]
    theirs = axes_of(traced([(2, 4, 5, 3)]), NHWC)[0]

    moved = move_value(IMAGES, ours, theirs, (2, 4, 5, 3))

    assert_identical(moved, np.moveaxis(IMAGES, 1, -1))


def test_flattened_images_are_put_in_the_other_sides_order():
    ours = axes_of(traced([(2, 3, 4, 5), (2, 60)], FLAT), NCHW)[1]
    theirs = axes_of(traced([(2, 4, 5, 3), (2, 60)], FLAT), NHWC)[1]

    moved = move_value(IMAGES.reshape(2, 60), ours, theirs, (2, 60))

    assert_identical(moved, np.moveaxis(IMAGES, 1, -1).reshape(2, 60))


def test_a_permuted_and_reshaped_value_keeps_what_its_axes_mean():
    steps = ("permute", [0], {"order": NHWC}), ("reshape", [1], {"shape": (2, 20, 3)})
    ours = axes_of(traced([(2, 3, 4, 5), (2, 4, 5, 3), (2, 20, 3)], *steps), NCHW)[2]
    theirs = axes_of(traced([(2, 4, 5, 3), (2, 20, 3)], ("reshape", [0], {})), NHWC)[1]

    assert ours == theirs


def test_features_joined_from_two_flattened_images_are_reordered_each_within_its_own():
    join = ("concat", [1, 2], {"axis": 1})
    ours = axes_of(traced([(2, 3, 4, 5), (2, 60), (2, 60), (2, 120)], FLAT, FLAT, join), NCHW)[3]
    theirs = axes_of(traced([(2, 4, 5, 3), (2, 60), (2, 60), (2, 120)], FLAT, FLAT, join), NHWC)[3]
    first, last = IMAGES, IMAGES[::-1] * 7

    moved = move_value(
        np.concatenate([one.reshape(2, 60) for one in (first, last)], axis=1),
        ours, theirs, (2, 120),
    )  # fmt: skip

    wanted = [np.moveaxis(one, 1, -1).reshape(2, 60) for one in (first, last)]
    assert_identical(moved, np.concatenate(wanted, axis=1))


@pytest.mark.parametrize(
    ("kind", "attributes", "shape", "expected"),
    [
        ("mean", {"axes": (2, 3), "keepdims": True}, (2, 3, 1, 1), (0, 1)),
        ("mean", {"axes": (2, 3), "keepdims": False}, (2, 3), (0, 1)),
        ("slice", {}, (2, 3, 5), (0, 1, 3)),
        ("slice", {"index": (slice(None), 0)}, (2, 4, 5), (0, 2, 3)),
        ("max_pool", {}, (2, 3, 4, 5), (0, 1, 2, 3)),
    ],
)
def test_axes_that_remain_keep_their_names(kind, attributes, shape, expected):
    axes = axes_of(traced([(2, 3, 4, 5), shape], (kind, [0], attributes)), NCHW)[1]

    names = [name for one in axes for name, _ in one.atoms]
    assert names == [f"input0.{place}" for place in expected]


def test_a_layer_puts_channels_of_its_own_in_place_of_its_operands():
    axes = axes_of(traced([(2, 3, 4, 5), (2, 8, 4, 5)], ("conv", [0], {"channel_axis": 1})), NCHW)

    assert axes[1][1].atoms == (("channels", 8),)
    assert axes[1][2] == axes[0][2]


@pytest.mark.parametrize(
    ("batch_axis", "shape", "expected"),
    [
        (0, (2, 3, 7), ["input0.0", "input0.1", "channels"]),
        (0, (2, 7), ["input0.0", "channels"]),
        (1, (2, 3, 7), ["input0.0", "input0.1", "channels"]),
        (1, (1, 3, 7), ["input0.1", "channels"]),
        (1, (2, 3, 3, 7), ["axis0", "axis1", "axis2", "axis3"]),
    ],
)
def test_a_recurrent_layer_keeps_the_axis_of_its_batch(batch_axis, shape, expected):
    trace = traced([(2, 3, 5), shape], ("lstm", [0], {"batch_axis": batch_axis}))

    axes = label_axes(trace, {0: input_axes(0, (2, 3, 5))})[1]

    assert [name for one in axes for name, _ in one.atoms] == expected


def test_unlike_sizes_do_not_lie_upon_each_other():
    ours = axes_of(traced([(2, 3, 4, 5)]), NCHW)[0]

    assert move_value(IMAGES, ours, ours, (2, 3, 4, 4)) is None
    assert permutation(ours[1], ours[2]) is None


def test_every_position_of_an_axis_is_found_once():
    source = Axis(parts=((("a", 2), ("b", 3)), (("c", 4),)))
    target = Axis(parts=((("b", 3), ("a", 2)), (("c", 4),)))

    places = permutation(source, target)

    assert sorted(places) == list(range(math.prod((2, 3)) + 4))
    assert_identical(places[6:], np.arange(6, 10))
