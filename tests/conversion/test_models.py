"""The model of a file follows from its arrays and a name, or from the record of a run."""

import dataclasses
import json

import pytest

from conversion.formats.table import find_format
from conversion.models import check_stated, inferred_spec, run_spec
from conversion.states import StoredState
from parity.errors import ConversionError, SpecError
from parity.spec.airbench import airbench_conventions
from parity.spec.models import named_spec


def infer(path, model, *, input_size=None, preset=None):
    return inferred_spec(
        model,
        find_format(path).read(path),
        preset=preset,
        input_size=input_size,
        where=path.name,
    )


@pytest.mark.parametrize("preset", ["torch", "keras"])
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize("name", ["x.pt", "x.safetensors", "x.weights.h5", "x.keras"])
def test_shapes_give_classes_channels_stem_and_biases(
    checkpoint, specs, states, name, stem, preset
):
    spec = specs(f"resnet18:width=2,stem={stem}", preset=preset, classes=7, in_channels=4)
    path = checkpoint(name, spec=spec, state=states(spec))

    inferred = infer(path, "resnet18:width=2")

    assert (inferred.classes, inferred.in_channels, inferred.stem) == (7, 4, stem)
    assert inferred.conventions.conv_bias == spec.conventions.conv_bias
    assert inferred.input_size == ((32, 32) if stem == "cifar" else (224, 224))
    assert inferred.state_shapes() == spec.state_shapes()


def test_input_size_can_be_given(checkpoint):
    assert infer(checkpoint("x.pt"), "resnet8:width=4", input_size=24).input_size == (24, 24)


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors", "x.weights.h5"])
@pytest.mark.parametrize("preset", ["torch", "keras"])
def test_what_a_file_does_not_state_follows_from_its_biases(
    checkpoint, specs, states, name, preset
):
    spec = specs(preset=preset)
    path = checkpoint(name, spec=spec, state=states(spec))

    assert infer(path, "resnet8:width=4").conventions == spec.conventions


def test_what_a_file_does_not_state_can_be_given(checkpoint):
    conventions = infer(checkpoint("x.pt"), "resnet8:width=4", preset="keras").conventions

    assert (conventions.bn_epsilon, conventions.stride_offset) == (1e-3, "end")
    assert not conventions.conv_bias


@pytest.mark.parametrize("name", ["airbench94:width=4", "airbench94_muon:width=4"])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_airbench_file_has_the_conventions_that_its_network_was_published_with(
    checkpoint, states, name, in_channels
):
    spec = named_spec(
        name,
        conventions=airbench_conventions(name),
        in_channels=in_channels,
        input_size=(32, 32),
        classes=7,
    )
    path = checkpoint("x.pt", spec=spec, state=states(spec))

    assert infer(path, name) == spec
    given = infer(path, name, preset="torch").conventions
    assert (given.bn_epsilon, given.stats_decay) == (1e-5, 0.9)


def test_unknown_preset_is_refused(checkpoint):
    with pytest.raises(SpecError, match=r"preset 'karas' not found. Nearest: keras"):
        infer(checkpoint("x.pt"), "resnet8:width=4", preset="karas")


def test_what_an_archive_states_is_taken_from_it(checkpoint, specs, states):
    spec = specs(preset="torch")
    stated = dataclasses.replace(spec.conventions, bn_epsilon=0.25, stats_decay=0.5)
    spec = dataclasses.replace(spec, conventions=stated)

    inferred = infer(checkpoint("x.keras", spec=spec, state=states(spec)), "resnet8:width=4")

    assert inferred.conventions.bn_epsilon == 0.25
    assert inferred.conventions.stats_decay == 0.5
    assert inferred.conventions.stride_offset == "start"


def test_stated_convention_that_disagrees_with_the_spec_is_refused(spec):
    stored = StoredState(arrays={}, by_position=False, conventions={"bn_epsilon": 0.25})

    with pytest.raises(ConversionError, match=r"x: its config disagrees .* 0.25 instead of 1e-05"):
        check_stated(stored, spec, where="x")


def test_file_of_another_kind_of_model_is_described(spec):
    stored = StoredState(arrays={"fc.weight": None}, by_position=False, conventions={})

    with pytest.raises(ConversionError, match=r"got 1 other arrays, starting with fc.weight"):
        inferred_spec("resnet18", stored, preset=None, input_size=None, where="x.pt")


def test_unknown_model_is_refused_with_the_nearest(checkpoint):
    with pytest.raises(SpecError, match=r"model 'resnet19' not found. Nearest: resnet1"):
        infer(checkpoint("x.pt"), "resnet19")


def test_run_record_gives_the_spec(tmp_path, specs):
    spec = specs("resnet50:width=4", preset="keras")
    record = {"model_spec": dataclasses.asdict(spec), "seed": 3}
    (tmp_path / "run.json").write_text(json.dumps(record))

    assert run_spec(tmp_path) == spec


@pytest.mark.parametrize(
    ("edit", "described"),
    [
        (lambda record: record.pop("model_spec"), "got none of 'model_spec'"),
        (lambda record: record["model_spec"].pop("width"), "missing 1 required keyword-only arg"),
        (lambda record: record["model_spec"].pop("conventions"), "got none of 'conventions'"),
        (
            lambda record: record["model_spec"].update(depth=3),
            "unexpected keyword argument 'depth'",
        ),
        (lambda record: record["model_spec"].update(classes=0), "classes must be >= 1; got 0"),
        (
            lambda record: record["model_spec"].update(classes="ten"),
            "classes must be a whole number; got 'ten'",
        ),
    ],
    ids=["no spec", "no width", "no conventions", "unknown", "zero", "text"],
)
def test_run_record_that_is_not_whole_is_refused(tmp_path, spec, edit, described):
    record = {"model_spec": dataclasses.asdict(spec)}
    edit(record)
    (tmp_path / "run.json").write_text(json.dumps(record))

    with pytest.raises(ConversionError, match=f"expected a run record .*{described}"):
        run_spec(tmp_path)


def test_run_folder_without_a_record_is_refused(tmp_path):
    with pytest.raises(ConversionError, match=r"expected a run folder with run.json; No such file"):
        run_spec(tmp_path)


def test_run_record_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "run.json").write_text("{")

    with pytest.raises(ConversionError, match=r"expected a run record with a whole 'model_spec'"):
        run_spec(tmp_path)
