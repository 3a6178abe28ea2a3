from parity.spec.layers import BatchNorm2d, Conv2d, Linear, Slot

CONV = Conv2d(path="c", in_channels=3, out_channels=8, kernel=5, stride=2, use_bias=True)


def test_conv_weight_has_axes_oihw():
    assert CONV.slots()[0] == Slot(name="weight", shape=(8, 3, 5, 5))


def test_conv_carries_a_bias_only_when_asked():
    bare = Conv2d(path="c", in_channels=3, out_channels=8, kernel=5, stride=2, use_bias=False)

    assert [slot.name for slot in CONV.slots()] == ["weight", "bias"]
    assert [slot.name for slot in bare.slots()] == ["weight"]


def test_batch_norm_trains_two_of_its_four_vectors():
    slots = BatchNorm2d(path="bn", channels=7).slots()

    assert [(slot.name, slot.role) for slot in slots] == [
        ("weight", "parameter"),
        ("bias", "parameter"),
        ("running_mean", "buffer"),
        ("running_var", "buffer"),
    ]
    assert {slot.shape for slot in slots} == {(7,)}


def test_linear_weight_has_axes_oi():
    slots = Linear(path="head", in_features=4, out_features=10).slots()

    assert [(slot.name, slot.shape) for slot in slots] == [("weight", (10, 4)), ("bias", (10,))]
