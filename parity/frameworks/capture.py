"""From a user's model to a program, whatever its framework; frameworks load inside functions."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from parity.errors import CaptureError
from parity.frameworks.program import Array, Objective, Program, Stepper

Framework = Literal["torch", "keras"]


def framework_of(model: Any) -> Framework:  # noqa: ANN401  # a model of either framework
    """Return which framework a model belongs to.

    Raises:
        CaptureError: If it is no model of either.
    """
    torch, keras = sys.modules.get("torch"), sys.modules.get("keras")
    if keras is not None and isinstance(model, keras.Layer):
        return "keras"
    if torch is not None and isinstance(model, torch.nn.Module):
        return "torch"
    message = (
        f"expected a torch.nn.Module or a keras.Model; got {type(model).__name__}. Wrap a function "
        "in a module or layer of its framework."
    )
    raise CaptureError(message)


def capture(model: Any, inputs: Array | Sequence[Array] | Mapping[str, Array]) -> Program:  # noqa: ANN401  # a model of either framework
    """Return a model as a program.

    Args:
        model: A `torch.nn.Module`, or a Keras model or layer.
        inputs: What it is called with: an array, several in order, or by name.

    Raises:
        CaptureError: If it is no model, or cannot be followed on these inputs.
    """
    if framework_of(model) == "torch":
        from parity.frameworks.torch_program import capture_torch

        if isinstance(inputs, Mapping):
            return capture_torch(model, (), keywords=inputs)
        return capture_torch(model, inputs)
    from parity.frameworks.keras_program import capture_keras

    return capture_keras(model, inputs)


def wrap_loss(loss: Callable[..., Any], model: object) -> Objective:
    """Return a user's loss as an objective of the model's framework."""
    if framework_of(model) == "torch":
        from parity.frameworks.torch_objective import TorchObjective

        return TorchObjective(loss)
    from parity.frameworks.keras_objective import KerasObjective

    return KerasObjective(loss)


def wrap_optimizer(model: Any, optimizer: Any, schedule: Any) -> Stepper:  # noqa: ANN401  # of either framework
    """Return a user's optimizer as a stepper of the model's framework.

    Raises:
        CaptureError: If it is no optimizer of the model's framework, or a schedule comes beside a
            Keras optimizer, which holds its own.
    """
    framework = framework_of(model)
    torch, keras = sys.modules.get("torch"), sys.modules.get("keras")
    if framework == "torch" and torch and isinstance(optimizer, torch.optim.Optimizer):
        from parity.frameworks.torch_stepper import TorchStepper

        return TorchStepper(model, optimizer, schedule)
    if framework == "keras" and keras and isinstance(optimizer, keras.optimizers.Optimizer):
        if schedule is not None:
            message = "schedule: expected None beside a Keras optimizer, which holds its own."
            raise CaptureError(message)
        from parity.frameworks.keras_stepper import KerasStepper

        return KerasStepper(optimizer)
    message = (
        f"optimizer: expected one of the model's framework, {framework}; got "
        f"{type(optimizer).__name__}."
    )
    raise CaptureError(message)


def expected_shapes(model: object) -> list[tuple[int | None, ...]] | None:
    """Return the shapes that a Keras model declares for its inputs; `None` if it declares none."""
    if framework_of(model) == "torch":
        return None
    declared = getattr(model, "inputs", None)
    if not declared:
        return None
    return [tuple(one.shape) for one in declared]


def lay_inputs(arrays: Sequence[Array], source: object, target: object) -> list[Array]:
    """Return inputs of one model in the axes that the other wants.

    Between frameworks, axis 1 of an array of rank 4 and more moves last for Keras, or the last
    axis to place 1 for torch, where the Keras model's declared shape fits that order alone.

    Args:
        arrays: As `source` takes them.
        source: The model they are for.
        target: The model they are wanted for.

    Raises:
        CaptureError: If the declared shape fits neither order, or both, or is not declared.
    """
    frameworks = framework_of(source), framework_of(target)
    if frameworks[0] == frameworks[1]:
        return list(arrays)
    keras_model = source if frameworks[0] == "keras" else target
    declared = expected_shapes(keras_model)
    laid = []
    for place, array in enumerate(arrays):
        if array.ndim <= SEQUENCE_RANK:
            laid.append(array)
            continue
        moved = np.ascontiguousarray(
            np.moveaxis(array, 1, -1) if frameworks[1] == "keras" else np.moveaxis(array, -1, 1)
        )
        shape = declared[place] if declared and place < len(declared) else None
        # The Keras side's form of both readings: as it is, and moved.
        forms = (array, moved) if frameworks[1] == "keras" else (moved, array)
        fits = [shape is not None and _fits(form.shape, shape) for form in forms]
        if array.shape == moved.shape or fits[0] == fits[1]:
            how = "fits both orders" if fits[0] else "fits neither order of axes"
            reason = "is not declared" if shape is None else f"{shape} {how}"
            message = (
                f"input {place}: shape {array.shape} of the reference; the Keras model's input "
                f"{reason}. Give the candidate its own form: candidate_inputs=, in Keras's axes if "
                "the candidate is the Keras model."
            )
            raise CaptureError(message)
        laid.append(array if fits[0] == (frameworks[1] == "keras") else moved)
    return laid


# Arrays of more axes are images or volumes, which have channels.
SEQUENCE_RANK = 3


def _fits(shape: Sequence[int], declared: Sequence[int | None]) -> bool:
    return len(shape) == len(declared) and all(
        wanted in (None, length) for length, wanted in zip(shape, declared, strict=True)
    )
