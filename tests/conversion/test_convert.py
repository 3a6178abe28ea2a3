"""A conversion writes a verified file or nothing, and says what it did."""

import dataclasses

import numpy as np
import pytest

import conversion
from conversion.formats import keras_weights, torch_pickle
from conversion.formats.table import FORMATS, find_format
from parity.errors import ConversionError, DivergenceError
from parity.testing.assertions import assert_identical

MODEL = "resnet8:width=4"


@pytest.fixture
def target(tmp_path):
    folder = tmp_path / "target"
    folder.mkdir()
    return folder / "x.weights.h5"


def contents(path):
    return sorted(path.parent.iterdir())


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("x.pt", "y.weights.h5"),
        ("x.weights.h5", "y.pt"),
        ("x.safetensors", "y.keras"),
        ("x.keras", "y.safetensors"),
    ],
)
def test_conversion_by_name_is_verified_in_both_frameworks(checkpoint, tmp_path, source, target):
    report = conversion.convert_checkpoint(checkpoint(source), tmp_path / target, model=MODEL)

    assert "verified bit for bit; logits numerically equivalent" in report.verdict
    assert report.bytes == (tmp_path / target).stat().st_size


@pytest.mark.parametrize("preset", ["torch", "keras"])
@pytest.mark.parametrize(
    "model",
    [
        "resnet18:width=2,stem=imagenet",
        "resnet50:width=2",
        "resnet8:width=2,stochastic_depth=0.3,dropout=0.2",
    ],
)
def test_conversion_by_spec_is_verified(checkpoint, target, specs, states, model, preset):
    spec = specs(model, preset=preset)
    source = checkpoint("x.pt", spec=spec, state=states(spec, dtype="float64"))

    report = conversion.convert_checkpoint(source, target, spec=spec)

    assert "logits numerically equivalent" in report.verdict
    assert report.notes == ()


def test_conversion_between_files_of_one_framework_compares_bits(checkpoint, tmp_path, spec):
    report = conversion.convert_checkpoint(
        checkpoint("x.pt"), tmp_path / "x.safetensors", spec=spec
    )

    assert report.verdict.startswith("verified bit for bit; logits not compared: both files are")


def test_conversion_without_a_framework_says_so(checkpoint, target, spec, monkeypatch):
    find_spec = __import__("importlib").util.find_spec
    source = checkpoint("x.safetensors")
    monkeypatch.delitem(__import__("sys").modules, "torch")
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "torch" else find_spec(name)
    )

    report = conversion.convert_checkpoint(source, target, spec=spec)

    assert report.verdict.startswith(
        "verified bit for bit; logits not compared: torch is not installed"
    )


def test_conversion_reports_each_layer(checkpoint, target, spec, state):
    report = conversion.convert_checkpoint(checkpoint("x.pt"), target, spec=spec, verify=False)

    assert [row.path for row in report.rows] == [layer.path for layer in spec.layers()]
    first = report.rows[0]
    assert (first.source_axes, first.target_axes) == ("oihw", "hwio")
    assert (first.source_shape, first.target_shape) == ((4, 3, 3, 3), (3, 3, 3, 4))
    assert report.rows[1].slots == ("weight", "bias", "running_mean", "running_var")
    assert report.values == sum(array.size for array in state.values())
    assert report.verdict == "not verified"


def test_conversion_notes_what_a_file_does_not_state(checkpoint, tmp_path):
    report = conversion.convert_checkpoint(
        checkpoint("x.pt"), tmp_path / "x.safetensors", model=MODEL, verify=False
    )

    assert report.notes == (
        (
            "the file does not state bn_epsilon 1e-05, stride_offset 'start': taken from the "
            "preset whose convolutions carry a bias if these do; --preset or --run decides "
            "otherwise"
        ),
    )


def test_conversion_leaves_its_source_alone(checkpoint, target, spec):
    source = checkpoint("x.pt")
    before = source.read_bytes()

    conversion.convert_checkpoint(source, target, spec=spec)

    assert source.read_bytes() == before


def refused(source, target, described, **options):
    """Check that a conversion is refused, in one line, and leaves the target's folder as it was."""
    before = {path: path.read_bytes() for path in contents(target) if path.is_file()}
    with pytest.raises(ConversionError, match=described) as caught:
        conversion.convert_checkpoint(source, target, **options)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in contents(target) if path.is_file()} == before


def test_missing_source_is_refused(tmp_path, target):
    refused(tmp_path / "none.pt", target, "got nothing of that name", model=MODEL)


def test_folder_as_source_is_refused(tmp_path, target):
    (tmp_path / "folder.pt").mkdir()

    refused(tmp_path / "folder.pt", target, "got a folder", model=MODEL)


def test_unknown_ending_of_the_target_is_refused(checkpoint, target):
    refused(checkpoint("x.pt"), target.with_name("x.onnx"), "ends in .pt, .pth", model=MODEL)


def test_existing_target_is_kept_unless_told_otherwise(checkpoint, target, spec):
    target.write_bytes(b"precious")

    refused(checkpoint("x.pt"), target, r"exists already. Pass --force", spec=spec)
    conversion.convert_checkpoint(checkpoint("x.pt"), target, spec=spec, overwrite=True)

    assert target.read_bytes() != b"precious"


@pytest.mark.parametrize("link", [False, True], ids=["same name", "link"])
def test_target_that_is_the_source_is_refused(checkpoint, tmp_path, spec, link):
    source = checkpoint("x.pt")
    target = tmp_path / "y.pt" if link else source
    if link:
        target.symlink_to(source)

    refused(source, target, "expected another file than the source", spec=spec, overwrite=True)


def test_target_in_no_folder_is_refused(checkpoint, tmp_path, spec):
    with pytest.raises(ConversionError, match=r"expected .*none to be a folder; got nothing of th"):
        conversion.convert_checkpoint(checkpoint("x.pt"), tmp_path / "none" / "x.pth", spec=spec)

    assert not (tmp_path / "none").exists()


def test_target_in_a_file_is_refused(checkpoint, tmp_path, spec):
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(ConversionError, match="to be a folder; got a file"):
        conversion.convert_checkpoint(checkpoint("x.pt"), tmp_path / "file" / "x.pth", spec=spec)


def test_folder_as_target_is_refused(checkpoint, tmp_path, spec):
    (tmp_path / "y.pt").mkdir()

    with pytest.raises(ConversionError, match="expected the name of a file to write; got a folder"):
        conversion.convert_checkpoint(checkpoint("x.pt"), tmp_path / "y.pt", spec=spec)


def test_unreadable_source_is_refused(checkpoint, target, spec, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setitem(FORMATS, ".pt", dataclasses.replace(FORMATS[".pt"], read=refuse))

    refused(checkpoint("x.pt"), target, "could not be read: Permission denied", spec=spec)


def test_conversion_without_a_model_is_refused(checkpoint, target):
    refused(checkpoint("x.pt"), target, "expected the name of a model or a spec; got neither. Kn")


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors", "x.weights.h5", "x.keras"])
def test_checkpoint_of_another_model_is_refused(checkpoint, target, name):
    target = target.with_name("x.pth")

    refused(checkpoint(name), target, "slots missing .* of another shape", model="resnet20")


def test_checkpoint_of_another_number_of_classes_is_refused(checkpoint, target):
    refused(checkpoint("x.pt"), target, "expected 10 classes; got 5", model=MODEL, classes=10)


def test_input_size_other_than_that_of_the_spec_is_refused(checkpoint, target, spec):
    refused(
        checkpoint("x.pt"), target, "expected input size 64; the model", spec=spec, input_size=64
    )


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors", "x.weights.h5", "x.keras"])
def test_non_finite_values_are_refused(checkpoint, target, state, spec, name):
    state["head.bias"][2] = np.nan
    target = target.with_name("x.pth")

    refused(
        checkpoint(name), target, r"1 slot with NaN or infinity \(head.bias 1 of 5\)", spec=spec
    )


def faulty(checkpoint_format, fault):
    """Return the format with a fault in what it writes."""

    def encode(state, spec):
        return checkpoint_format.encode(fault(dict(state)), spec)

    return dataclasses.replace(checkpoint_format, encode=encode)


def one_bit_off(state):
    state["head.bias"] = np.nextafter(state["head.bias"], np.float32(9))
    return state


def swapped_norms(state):
    first, second = "stages.1.blocks.0.bn1.weight", "stages.1.blocks.0.bn2.weight"
    state[first], state[second] = state[second], state[first]
    return state


def widened(state):
    return {name: array.astype(np.float64) for name, array in state.items()}


@pytest.mark.parametrize(
    ("fault", "described"),
    [
        (one_bit_off, "1 slot differs from the source: head.bias: 5 of 5 elements differ"),
        (swapped_norms, "2 slots differ from the source: stages.1.blocks.0.bn1.weight"),
        (widened, "47 slots differ from the source: stem.conv.weight: expected dtype float32"),
    ],
)
def test_fault_in_writing_is_caught_and_leaves_nothing(
    checkpoint, target, spec, monkeypatch, fault, described
):
    monkeypatch.setitem(FORMATS, ".weights.h5", faulty(keras_weights.FORMAT, fault))

    with pytest.raises(DivergenceError, match=described):
        conversion.convert_checkpoint(checkpoint("x.pt"), target, spec=spec)

    assert contents(target) == []


def test_full_disk_in_encoding_is_refused(checkpoint, target, spec, monkeypatch):
    def fill(state, spec):
        raise OSError(28, "No space left on device")

    full = dataclasses.replace(keras_weights.FORMAT, encode=fill)
    monkeypatch.setitem(FORMATS, ".weights.h5", full)

    refused(checkpoint("x.pt"), target, "could not be written: No space left on device", spec=spec)


def test_conversion_there_and_back_gives_the_same_bytes(checkpoint, tmp_path, spec):
    source = checkpoint("x.pt")

    conversion.convert_checkpoint(source, tmp_path / "y.weights.h5", spec=spec, verify=False)
    conversion.convert_checkpoint(
        tmp_path / "y.weights.h5", tmp_path / "z.pt", spec=spec, verify=False
    )

    assert (tmp_path / "z.pt").read_bytes() == source.read_bytes()


def test_package_offers_the_public_names():
    assert conversion.ConversionReport.__name__ == "ConversionReport"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = conversion.nothing


def test_pth_is_read_as_pt(checkpoint, state):
    stored = torch_pickle.read(checkpoint("x.pth"))

    assert find_format(checkpoint("x.pth")) is torch_pickle.FORMAT
    assert_identical(stored.arrays["head.weight"], state["head.weight"])
