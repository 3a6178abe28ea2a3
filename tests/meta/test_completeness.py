"""What an addition must touch: each layer kind, optimizer, data set, recipe and format is complete.

A failure lists what was forgotten. Sources of the twins are read, so no framework is loaded.
"""

import ast
import dataclasses
import re
import typing
from importlib import import_module
from pathlib import Path

import pytest

from conversion.formats.table import FORMATS
from conversion.keras_groups import GROUP_STEMS, KERAS_CLASSES
from conversion.layouts import LAYOUTS
from parity.data.table import DATASETS
from parity.reference import layers as reference_layers
from parity.reference import losses as reference_losses
from parity.reference.optimizers import STEPS
from parity.spec import layers as spec_layers
from parity.spec.conventions import TORCH, Conventions
from parity.spec.losses import LOSSES, LossSpec
from parity.spec.models import named_spec
from parity.spec.optimizers import OPTIMIZER_FORMS, OPTIMIZERS, OptimizerSpec
from parity.spec.recipe import RECIPE_FOLDER, load_recipe, read_toml, recipe_names
from parity.spec.resnet import resnet_spec
from parity.testing import cases
from parity.testing.faults import (
    CONVENTION_FAULTS,
    KILOSTEP_FAULTS,
    LOSS_FAULTS,
    OPTIMIZER_FAULTS,
)
from parity.testing.updates import UPDATES

ROOT = Path(__file__).parents[2]
KERAS_NET = ROOT / "parity/frameworks/keras_net.py"
LAYERS = typing.get_args(spec_layers.Layer)
FORMS = typing.get_args(OptimizerSpec)
# How weights start is judged by their distribution: no step shows a fault in it.
INITIALIZERS = {"conv_init", "head_weight_init", "head_bias_init"}
BIASED = dataclasses.replace(TORCH.conventions, conv_bias=True)
NET = resnet_spec("resnet8", conventions=BIASED, in_channels=1, input_size=(8, 8), classes=10)


def snake_case(name):
    """Return a class name as a function's: `BatchNorm2d` -> `batch_norm2d`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def defined_names(path):
    """Return the functions and classes that a source file defines at its top level."""
    return {getattr(node, "name", "") for node in ast.parse(path.read_text("utf-8")).body}


def literal(path, name):
    """Return the value of a top-level literal of a source file that cannot be imported here."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    message = f"{path}: {name} not found."
    raise LookupError(message)


def has_reference(layer):
    names = (snake_case(layer.__name__), f"{snake_case(layer.__name__)}_backward")
    return all(hasattr(reference_layers, name) for name in names)


def has_layout(layer):
    return KERAS_CLASSES.get(layer) in LAYOUTS and KERAS_CLASSES[layer] in GROUP_STEMS


def has_cases(layer):
    stem = re.sub(r"\d+d$", "", snake_case(layer.__name__)).upper()
    return bool(getattr(cases, f"{stem}_CASES", ()))


def in_twin(twin, file, name):
    return name in defined_names(ROOT / twin / file)


def kind_of(cls):
    return getattr(cls, "kind", cls.__name__.lower())


def has_step(twin, cls):
    files = (ROOT / twin / "optimizers").glob("*.py")
    return f"{kind_of(cls)}_step" in set().union(*map(defined_names, files))


LAYER_PLACES = {
    "parity/reference/layers: the layer and its `_backward`": has_reference,
    "models_torch/layers.py: a function": lambda layer: in_twin(
        "models_torch", "layers.py", snake_case(layer.__name__)
    ),
    "models_keras/layers.py: a function": lambda layer: in_twin(
        "models_keras", "layers.py", snake_case(layer.__name__)
    ),
    "conversion: a row in KERAS_CLASSES, GROUP_STEMS and LAYOUTS": has_layout,
    "parity/testing/cases.py: a table of cases": has_cases,
}
OPTIMIZER_PLACES = {
    "parity/spec/optimizers: a member of OptimizerSpec": lambda cls: cls in FORMS,
    "parity/reference/optimizers: a step": lambda cls: kind_of(cls) in STEPS,
    "models_torch/optimizers: a step": lambda cls: has_step("models_torch", cls),
    "models_keras/optimizers: a step": lambda cls: has_step("models_keras", cls),
    "parity/testing/updates.py: a row": lambda cls: any(
        type(update.rule) is cls for update in UPDATES.values()
    ),
    "parity/testing/faults.py: a fault for every field": lambda cls: (
        not unfaulted(cls, OPTIMIZER_FAULTS)
    ),
}

LOSS_PLACES = {
    "parity/spec/losses.py: a member of LossSpec": lambda cls: cls in typing.get_args(LossSpec),
    "parity/reference/losses.py: a function": lambda cls: hasattr(
        reference_losses, snake_case(cls.__name__)
    ),
    "parity/testing/faults.py: a fault for every field": lambda cls: (
        not unfaulted(cls, LOSS_FAULTS)
    ),
}


def unfaulted(cls, faults):
    """Return the fields of a spec that no seeded fault changes."""
    fields = {field.name for field in dataclasses.fields(cls)} - {"kind"}
    return fields - {field for field, _ in faults.values()}


def forgotten(subject, places):
    return [place for place, is_there in places.items() if not is_there(subject)]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda cls: cls.__name__)
def test_layer_kind_is_in_every_place(layer):
    assert forgotten(layer, LAYER_PLACES) == []


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_optimizer_is_in_every_place(kind):
    assert forgotten(OPTIMIZERS[kind], OPTIMIZER_PLACES) == []


@pytest.mark.parametrize("kind", sorted(set(OPTIMIZER_FORMS) - set(OPTIMIZERS)))
def test_form_of_an_optimizer_has_a_fault_for_every_field(kind):
    assert unfaulted(OPTIMIZER_FORMS[kind], OPTIMIZER_FAULTS | KILOSTEP_FAULTS) == set()


@pytest.mark.parametrize("kind", LOSSES)
def test_loss_is_in_every_place(kind):
    assert forgotten(LOSSES[kind], LOSS_PLACES) == []


def test_new_loss_is_missed_in_every_place():
    new = dataclasses.make_dataclass("Hinge", [("margin", float)])

    assert forgotten(new, LOSS_PLACES) == list(LOSS_PLACES)


def test_new_layer_kind_is_missed_in_every_place():
    new = type("Capsule", (), {})

    assert forgotten(new, LAYER_PLACES) == list(LAYER_PLACES)


def test_new_optimizer_is_missed_in_every_place():
    new = dataclasses.make_dataclass("Lion", [("sharpness", float)])

    assert forgotten(new, OPTIMIZER_PLACES) == list(OPTIMIZER_PLACES)


def test_layer_kinds_of_the_spec_are_all_in_the_union():
    defined = {cls for cls in vars(spec_layers).values() if hasattr(cls, "slots")}

    assert defined == set(LAYERS)


@pytest.mark.parametrize("layer", NET.layers(), ids=lambda layer: layer.path)
def test_layout_holds_the_slots_of_a_layer(layer):
    layouts = LAYOUTS[KERAS_CLASSES[type(layer)]].values()

    assert {layout.slot: len(layout.torch_axes) for layout in layouts} == {
        slot.name: len(slot.shape) for slot in layer.slots()
    }


def test_every_convention_has_a_fault():
    assert unfaulted(Conventions, CONVENTION_FAULTS) == INITIALIZERS


@pytest.mark.parametrize("name", recipe_names())
def test_recipe_is_named_as_its_file(name):
    assert read_toml(RECIPE_FOLDER / f"{name}.toml")["name"] == name


@pytest.mark.parametrize("name", recipe_names())
def test_recipe_knows_every_data_set_that_it_names(name):
    assert set(read_toml(RECIPE_FOLDER / f"{name}.toml")["data"]) <= set(DATASETS)


@pytest.mark.parametrize("data", DATASETS)
@pytest.mark.parametrize("name", recipe_names())
def test_recipe_resolves_for_a_data_set(name, data):
    recipe = load_recipe(name, data=data)
    side = recipe.resolution or 32

    spec = named_spec(
        recipe.model,
        conventions=recipe.conventions,
        in_channels=1,
        input_size=(side, side),
        classes=10,
    )

    assert spec.conventions == recipe.conventions


@pytest.mark.parametrize("name", DATASETS)
def test_data_set_has_a_file_of_its_own(name):
    module = import_module(f"parity.data.{name}")

    assert DATASETS[name].load is getattr(module, f"load_{name}")


@pytest.mark.parametrize("name", DATASETS)
def test_data_set_that_needs_files_says_where_they_are(name):
    row = DATASETS[name]

    assert bool(row.how_to_get) == row.needs_files


def test_format_files_all_have_a_row():
    files = (ROOT / "conversion" / "formats").glob("*.py")
    modules = [import_module(f"conversion.formats.{path.stem}") for path in sorted(files)]
    formats = {module.FORMAT.name for module in modules if hasattr(module, "FORMAT")}

    assert formats == {row.name for row in FORMATS.values()}
