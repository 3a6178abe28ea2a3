import hashlib
import math

import numpy as np
import pytest

from parity.errors import SpecError
from parity.initialize import initial_state
from parity.spec.airbench import airbench_conventions, airbench_spec
from parity.spec.conventions import KERAS, PRESETS, TORCH
from parity.spec.resnet import resnet_spec
from parity.testing.assertions import assert_close, assert_identical
from parity.whitening import whitening_filters

# SHA-256 over names and bytes of the whole initial state of resnet8:width=4, seed 0.
PINNED = {
    "torch": "cfe9fbb10f3d7a84e1d6cf603af2765789eed3e9c8789853e7f05cf785a55b19",
    "keras": "3f450e43c11e9486c37e9752c6d39e590ec5a2e1c44fa687ac9b51b94dab36eb",
}


def build_spec(name="resnet8:width=4", *, preset=TORCH):
    return resnet_spec(
        name, conventions=preset.conventions, in_channels=1, input_size=(8, 8), classes=10
    )


def digest(state):
    digest = hashlib.sha256()
    for name, array in state.items():
        digest.update(name.encode() + array.tobytes())
    return digest.hexdigest()


# Arrays large enough for their spread to be known to a fraction of a percent.
WIDE = {
    name: initial_state(build_spec("resnet18", preset=PRESETS[name]), seed=3) for name in PRESETS
}


@pytest.mark.parametrize("name", PRESETS)
def test_initial_state_has_the_pinned_digest(name):
    assert digest(initial_state(build_spec(preset=PRESETS[name]), seed=0)) == PINNED[name]


def test_initial_state_repeats_bit_for_bit():
    first, again = (initial_state(build_spec(), seed=5) for _ in range(2))

    assert digest(first) == digest(again)


def test_initial_state_gives_fresh_arrays():
    first = initial_state(build_spec(), seed=0)
    first["head.weight"][:] = 0.0

    assert initial_state(build_spec(), seed=0)["head.weight"].any()


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_initial_state_has_the_names_and_shapes_of_the_spec(preset):
    spec = build_spec(preset=preset)

    shapes = {name: array.shape for name, array in initial_state(spec, seed=0).items()}

    assert list(shapes.items()) == list(spec.state_shapes().items())


def test_initial_state_is_float32():
    assert {array.dtype for array in initial_state(build_spec(), seed=0).values()} == {
        np.dtype(np.float32)
    }


def test_initial_state_is_finite():
    assert all(np.isfinite(array).all() for array in WIDE["torch"].values())


def test_seed_changes_every_drawn_array():
    first, second = (initial_state(build_spec(), seed=seed) for seed in (0, 1))

    drawn = [name for name in first if not np.array_equal(first[name], second[name])]

    assert drawn == [name for name in first if "conv" in name or name.startswith("head")]


def test_deeper_net_shares_the_arrays_of_the_layers_both_have():
    shallow, deep = (
        initial_state(build_spec(f"{name}:width=4"), seed=0) for name in ("resnet8", "resnet20")
    )

    assert digest(shallow) == digest({name: deep[name] for name in shallow})


def test_arrays_of_one_shape_differ_from_layer_to_layer():
    state = WIDE["torch"]

    assert not np.array_equal(
        state["stages.0.blocks.0.conv1.weight"], state["stages.0.blocks.0.conv2.weight"]
    )


@pytest.mark.parametrize(
    ("slot", "fill"), [("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)]
)
def test_batch_norm_starts_as_the_identity(slot, fill):
    expected = np.full(64, fill, dtype=np.float32)

    assert_identical(WIDE["torch"][f"stem.bn.{slot}"], expected)


@pytest.mark.parametrize("name", ["head.bias", "stem.conv.bias"])
def test_keras_biases_start_at_zero(name):
    assert not WIDE["keras"][name].any()


# The head of resnet18 reads 512 features. Glorot & Bengio 2010: sqrt(6 / (fan_in + fan_out)).
@pytest.mark.parametrize(
    ("preset", "name", "bound"),
    [
        ("torch", "head.weight", 1 / math.sqrt(512)),
        ("keras", "head.weight", math.sqrt(6 / (512 + 10))),
        ("keras", "stages.0.blocks.0.conv1.weight", math.sqrt(6 / (9 * 64 + 9 * 64))),
        ("keras", "stages.1.blocks.0.conv1.weight", math.sqrt(6 / (9 * 64 + 9 * 128))),
    ],
)
def test_uniform_array_fills_its_bound(preset, name, bound):
    magnitudes = np.abs(WIDE[preset][name].astype(np.float64))

    assert 0.995 * bound < magnitudes.max() <= np.float32(bound)
    assert_close(magnitudes.mean(), bound / 2, atol=0.0, rtol=5 / math.sqrt(3 * magnitudes.size))


def test_uniform_bias_takes_the_fan_in_of_its_weight():
    magnitudes = np.abs(WIDE["torch"]["head.bias"])

    assert 0.0 < magnitudes.max() <= np.float32(1 / math.sqrt(512))


# He et al. 2015, fan out: variance 2 / (out_channels * kernel area).
@pytest.mark.parametrize(
    ("name", "fan_out"),
    [
        ("stem.conv.weight", 64 * 9),
        ("stages.1.blocks.0.conv1.weight", 128 * 9),
        ("stages.1.blocks.0.shortcut.conv.weight", 128),
        ("stages.3.blocks.1.conv2.weight", 512 * 9),
    ],
)
def test_normal_array_has_the_variance_of_its_fan_out(name, fan_out):
    drawn = WIDE["torch"][name].astype(np.float64)
    deviation = math.sqrt(2 / fan_out)

    assert_close(drawn.std(), deviation, atol=0.0, rtol=5 / math.sqrt(2 * drawn.size))
    assert_close(drawn.mean(), 0.0, atol=5 * deviation / math.sqrt(drawn.size), rtol=0.0)


def test_normal_array_is_not_truncated():
    drawn = WIDE["torch"]["stages.3.blocks.1.conv2.weight"]

    assert np.abs(drawn).max() > 4 * math.sqrt(2 / (512 * 9))


def test_presets_share_the_model_but_no_drawn_array():
    torch, keras = WIDE["torch"], WIDE["keras"]

    assert KERAS.conventions.conv_bias
    assert [name for name in torch if name not in keras] == []
    assert not np.array_equal(torch["head.weight"], keras["head.weight"])


def airbench_state(name="airbench94:width=4", *, images=None, seed=0):
    spec = airbench_spec(
        name,
        conventions=airbench_conventions(name),
        in_channels=3,
        input_size=(16, 16),
        classes=10,
    )
    drawn = np.random.default_rng(0).standard_normal((20, 16, 16, 3)).astype(np.float32)
    return spec, initial_state(spec, seed=seed, images=drawn if images is None else images)


def test_first_filters_of_an_airbench_convolution_pass_their_input_on():
    _, state = airbench_state()
    weight = state["blocks.1.conv1.weight"]  # (16, 4, 3, 3)

    expected = np.zeros((4, 4, 3, 3), dtype=np.float32)
    expected[range(4), range(4), 1, 1] = 1.0
    assert_identical(weight[:4], expected)
    rest = abs(weight[4:])
    assert 0.9 / math.sqrt(4 * 9) < rest.max() <= np.float32(1.0 / math.sqrt(4 * 9))


def test_filters_that_outnumber_the_channels_do_not_change_the_dirac_ones():
    _, state = airbench_state()

    assert state["blocks.0.conv1.weight"].shape == (4, 24, 3, 3)
    assert state["blocks.0.conv1.weight"].sum() == 4.0


def test_head_of_the_muon_network_has_unit_deviation():
    _, state = airbench_state("airbench94_muon:width=4")

    deviation = state["head.weight"].astype(np.float64).std(ddof=1)
    assert_close(deviation, 1.0, atol=1e-6, rtol=0.0)
    assert state["whiten.bias"].any()


def test_whitening_filters_come_from_the_images_whatever_the_seed():
    spec, state = airbench_state()
    _, other = airbench_state(seed=1)

    images = np.random.default_rng(0).standard_normal((20, 16, 16, 3)).astype(np.float32)
    expected = whitening_filters(images, kernel=2, order=spec.whitening_order)
    assert_identical(state["whiten.weight"], expected.astype(np.float32))
    assert_identical(other["whiten.weight"], state["whiten.weight"])


def test_airbench_state_has_the_names_of_the_spec_in_order():
    spec, state = airbench_state()

    assert list(state) == list(spec.slots())


@pytest.mark.parametrize(
    ("images", "got"),
    [
        (None, "got none"),
        (np.zeros((20, 16, 16, 1)), r"got shape \(20, 16, 16, 1\)"),
        (np.zeros((0, 16, 16, 3)), r"got shape \(0, 16, 16, 3\)"),
        (np.zeros((20, 1, 16, 3)), r"got shape \(20, 1, 16, 3\)"),
        (np.zeros((20, 16, 16, 3), dtype=np.uint8), "got uint8"),
        (np.full((20, 16, 16, 3), np.nan), "got values that are not finite"),
    ],
)
def test_whitening_without_fitting_images_is_refused(images, got):
    spec, _ = airbench_state()

    with pytest.raises(SpecError, match=rf"whiten\.weight: expected .* with 3 channels; {got}"):
        initial_state(spec, seed=0, images=images)
