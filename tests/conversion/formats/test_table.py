"""Every format holds every state bit for bit, and every format converts into every other."""

import itertools

import pytest

import conversion
from conversion.formats.table import FORMATS, find_format
from conversion.states import checked_state
from parity.errors import ConversionError
from parity.testing.assertions import assert_identical

NAMES = ["x.pt", "x.safetensors", "x.weights.h5", "x.keras"]
PAIRS = list(itertools.permutations(NAMES, 2))


def read(path, spec):
    stored = find_format(path).read(path)
    return checked_state(stored.named(spec), spec, where=str(path))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_format_keeps_every_bit(checkpoint, spec, states, name, dtype):
    state = states(spec, dtype=dtype)

    read_back = read(checkpoint(name, state=state), spec)

    assert list(read_back) == list(state)
    for slot in state:
        assert_identical(read_back[slot], state[slot], where=slot)


@pytest.mark.parametrize("preset", ["torch", "keras"])
@pytest.mark.parametrize("model", ["resnet8:width=2", "resnet50:width=2,stem=imagenet"])
@pytest.mark.parametrize("name", NAMES)
def test_format_holds_every_kind_of_model(checkpoint, specs, states, name, model, preset):
    spec = specs(model, preset=preset, in_channels=1)
    state = states(spec)

    read_back = read(checkpoint(name, spec=spec, state=state), spec)

    for slot in state:
        assert_identical(read_back[slot], state[slot], where=slot)


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_every_format_converts_into_every_other(checkpoint, tmp_path, spec, state, source, target):
    written = tmp_path / f"written.{target.partition('.')[2]}"

    conversion.convert_checkpoint(checkpoint(source), written, spec=spec, verify=False)
    read_back = read(written, spec)

    for slot in state:
        assert_identical(read_back[slot], state[slot], where=slot)


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors", "x.weights.h5"])
def test_writing_twice_gives_the_same_bytes(checkpoint, name):
    assert checkpoint(name).read_bytes() == checkpoint(f"again-{name}").read_bytes()


def test_format_is_found_by_the_end_of_a_name(tmp_path):
    assert find_format(tmp_path / "a.b.WEIGHTS.H5") is FORMATS[".weights.h5"]


@pytest.mark.parametrize("name", ["x.h5", "x.ckpt", "x", "x.npz", "x.onnx"])
def test_unknown_ending_is_refused_with_the_known_ones(tmp_path, name):
    known = r"\.pt, \.pth, \.safetensors, \.weights\.h5, \.keras"

    with pytest.raises(
        ConversionError, match=f"expected a name that ends in {known}; got '{name}'"
    ):
        find_format(tmp_path / name)
