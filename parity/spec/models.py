"""The table of models: which family a name belongs to.

To add a family: one file with its spec, one row here.
"""

from collections.abc import Callable

from parity.errors import SpecError, describe_nearest
from parity.spec.airbench import AIRBENCH_OPTIONS, AIRBENCHES, AirbenchSpec, airbench_spec
from parity.spec.conventions import Conventions
from parity.spec.model_names import split_name
from parity.spec.model_spec import ModelSpec
from parity.spec.resnet import RESNET_OPTIONS, RESNETS, ResNetSpec, resnet_spec

# Family -> class of its specs.
FAMILIES: dict[str, type[ModelSpec]] = {"resnet": ResNetSpec, "airbench": AirbenchSpec}

_BUILDERS: dict[str, Callable[..., ModelSpec]] = {
    **dict.fromkeys(RESNETS, resnet_spec),
    **dict.fromkeys(AIRBENCHES, airbench_spec),
}
MODELS: tuple[str, ...] = tuple(_BUILDERS)


def model_options(name: str) -> tuple[str, ...]:
    """Return the forms of the options that a model's name takes.

    >>> model_options("airbench94")
    ('width=CHANNELS',)
    """
    options = AIRBENCH_OPTIONS if name in AIRBENCHES else RESNET_OPTIONS
    return tuple(option.form for option in options.values())


def named_spec(
    name: str,
    *,
    conventions: Conventions,
    in_channels: int,
    input_size: tuple[int, int],
    classes: int,
) -> ModelSpec:
    """Return the spec of a model by name and options: `resnet20`, `airbench94:width=16`.

    Raises:
        SpecError: If the name or an option is unknown, or an option has a value of the wrong kind.
    """
    base, _ = split_name(name)
    if base not in _BUILDERS:
        message = f"model {base!r} not found.{describe_nearest(base, MODELS)}"
        raise SpecError(message)
    return _BUILDERS[base](
        name,
        conventions=conventions,
        in_channels=in_channels,
        input_size=input_size,
        classes=classes,
    )
