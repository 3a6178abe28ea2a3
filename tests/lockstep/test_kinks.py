"""ReLU kinks: units that rounding has turned are counted and named; a fault's are not excused."""

import numpy as np
import pytest

from parity.frameworks.net import Batch, OptimizerState
from parity.lockstep.kinks import MaskFlips, count_mask_flips, describe_flips
from parity.lockstep.steps import Snapshot


class FakeNet:
    """A net of one ReLU whose output is its state; counts on being left as it was."""

    def __init__(self, array):
        self._state = {"a.w": np.array(array)}

    def state(self):
        return {name: array.copy() for name, array in self._state.items()}

    def optimizer_state(self):
        return OptimizerState(step=0, slots={})

    def load_state(self, state):
        self._state = dict(state)

    def trace(self, images, *, training, masks):
        del images
        assert training
        assert masks.keys() == {"dropout"}
        return {"a.conv": -self._state["a.w"], "a.relu": np.maximum(self._state["a.w"], 0.0)}


BATCH = Batch(
    images=np.zeros(1), labels=np.zeros(1), targets=np.zeros(1), masks={"dropout": np.ones(1) > 0}
)


def snapshot(array):
    return Snapshot(
        state={"a.w": np.array(array)}, optimizer_state=OptimizerState(step=0, slots={})
    )


def test_flips_are_counted_from_the_snapshots_and_leave_the_nets_alone():
    nets = [FakeNet([7.0]), FakeNet([8.0])]
    snapshots = [snapshot([1.0, 1e-9, -1.0, 2.0]), snapshot([1.0, -1e-9, -1.0, 2.0])]

    (flips,) = count_mask_flips(nets, snapshots, BATCH)

    assert flips == MaskFlips(path="a.relu", flipped=1, units=4, magnitude=5e-10)
    assert [net.state()["a.w"].tolist() for net in nets] == [[7.0], [8.0]]


def test_equal_masks_are_no_flips():
    assert count_mask_flips([FakeNet([1.0])] * 2, [snapshot([1.0])] * 2, BATCH) == ()


@pytest.mark.parametrize(("magnitude", "is_kink"), [(1e-9, True), (1e-3, False)])
def test_only_units_near_zero_make_a_kink(magnitude, is_kink):
    flips = [
        MaskFlips(path="stem.relu", flipped=2, units=64, magnitude=1e-12),
        MaskFlips(path="stages.0.relu", flipped=3, units=64, magnitude=magnitude),
    ]

    described = describe_flips(flips, step=7)

    assert (described is not None) == is_kink
    if is_kink:
        assert "step 7: 5 of 128 units in 2 layers" in described
        assert "first in stem.relu" in described


def test_no_flip_is_no_kink():
    assert describe_flips([], step=1) is None
