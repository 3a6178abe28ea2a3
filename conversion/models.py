"""Which model a file holds: by name and the arrays in it, or from the record of a run."""

import dataclasses
import json
from pathlib import Path

from conversion.states import StoredState
from parity.errors import ConversionError, SpecError, describe_nearest
from parity.spec.airbench import AIRBENCHES, airbench_conventions
from parity.spec.conventions import PRESETS, Conventions
from parity.spec.model_names import split_name
from parity.spec.model_spec import ModelSpec
from parity.spec.models import FAMILIES, named_spec
from parity.spec.resnet import Stem, resnet_spec

# Kernel of the first convolution -> stem, and the input size that goes with it.
_STEMS: dict[int, Stem] = {3: "cifar", 7: "imagenet"}
_INPUT_SIZES: dict[Stem, int] = {"cifar": 32, "imagenet": 224}

# Group of a Keras file -> layer, for the layers that say what a file holds: the first convolution,
# the first before a batch norm (in a ResNet the same), and the classifier.
_RESNET_ENDS = {"conv2d": "stem.conv", "dense": "head"}
_AIRBENCH_ENDS = {"conv2d": "whiten", "conv2d_1": "blocks.0.conv1", "dense": "head"}

# Whether convolutions carry a bias -> preset.
_PRESET_BY_BIAS = {preset.conventions.conv_bias: name for name, preset in PRESETS.items()}

RUN_RECORD = "run.json"


def inferred_spec(
    model: str, stored: StoredState, *, preset: str | None, input_size: int | None, where: str
) -> ModelSpec:
    """Return the spec of a named model with what the arrays of a file say about it.

    The file decides the classes, the input channels, the stem where the name leaves it open,
    whether convolutions carry a bias, and what else it states. The other conventions are those of
    `preset`; where it is None, those that the network was published with, or of the preset whose
    convolutions carry a bias if these do.

    Raises:
        ConversionError: If the file holds no first convolution or no classifier.
        SpecError: If no model or no preset has that name.
    """
    if preset not in (None, *PRESETS):
        message = f"preset {preset!r} not found.{describe_nearest(str(preset), PRESETS)}"
        raise SpecError(message)
    is_airbench = split_name(model)[0] in AIRBENCHES
    ends = _AIRBENCH_ENDS if is_airbench else _RESNET_ENDS
    outline = stored.outline(ends)
    first, normalized = ("whiten", "blocks.0.conv1") if is_airbench else ("stem.conv",) * 2
    kernel, head = outline.get(f"{first}.weight"), outline.get("head.weight")
    if kernel is None or head is None or kernel.ndim != 4 or head.ndim != 2:
        named = ", ".join(list(stored.arrays)[:3]) or "nothing"
        message = (
            f"{where}: expected {first}.weight (oihw) and head.weight (oi), as in every such model "
            f"of this toolkit; got {len(stored.arrays)} other arrays, starting with {named}."
        )
        raise ConversionError(message)
    has_bias = f"{normalized}.bias" in outline
    published = PRESETS[preset or _PRESET_BY_BIAS[has_bias]].conventions
    if is_airbench and preset is None:
        published = airbench_conventions(model)
    conventions = dataclasses.replace(published, **{**stored.conventions, "conv_bias": has_bias})
    stem = _STEMS.get(kernel.shape[-1], "cifar")
    side = input_size or _INPUT_SIZES[stem]
    return named_spec(
        model if is_airbench else _with_stem(model, stem),
        conventions=conventions,
        in_channels=kernel.shape[1],
        input_size=(side, side),
        classes=head.shape[0],
    )


def _with_stem(model: str, stem: Stem) -> str:
    """Return the model's name with the stem as an option, unless the name settles it."""
    base, _, options = model.partition(":")
    if "stem=" in options or _has_own_stem(base):
        return model
    return f"{base}:{','.join(filter(None, (options, f'stem={stem}')))}"


def _has_own_stem(base: str) -> bool:
    sizes = ((32, 32), (224, 224))
    conventions = PRESETS["torch"].conventions
    specs = [
        resnet_spec(base, conventions=conventions, in_channels=3, input_size=size, classes=10)
        for size in sizes
    ]
    return specs[0].stem == specs[1].stem


def check_stated(stored: StoredState, spec: ModelSpec, *, where: str) -> None:
    """Raise if a file states a convention that its outputs depend on otherwise than the spec."""
    wrong = [
        f"{field} {stored.conventions[field]!r} instead of {getattr(spec.conventions, field)!r}"
        for field in ("bn_epsilon", "stride_offset")
        if stored.conventions.get(field, getattr(spec.conventions, field))
        != getattr(spec.conventions, field)
    ]
    if wrong:
        message = f"{where}: its config disagrees with the model's conventions: {', '.join(wrong)}."
        raise ConversionError(message)


def run_spec(folder: Path) -> ModelSpec:
    """Return the model spec that a run recorded.

    Raises:
        ConversionError: If the folder holds no run record, or one without a whole model spec.
    """
    path = folder / RUN_RECORD
    try:
        record = json.loads(path.read_text())["model_spec"]
        fields = dict(record)
        conventions = Conventions(**fields.pop("conventions"))
        fields = {key: _as_tuple(value) for key, value in fields.items()}
        return FAMILIES[fields["family"]](conventions=conventions, **fields)
    except OSError as error:
        message = f"{folder}: expected a run folder with {RUN_RECORD}; {error.strerror}."
        raise ConversionError(message) from error
    except (ValueError, KeyError, TypeError, SpecError) as error:
        message = f"{path}: expected a run record with a whole 'model_spec'; {_describe(error)}."
        raise ConversionError(message) from error


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _describe(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"got none of {error}"
    return f"got {str(error).rstrip('.')}"
