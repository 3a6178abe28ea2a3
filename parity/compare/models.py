"""Compare two models of any kind: `parity.compare_models`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from parity.compare.findings import PHASES, Finding
from parity.compare.programs import Weights, compare_programs
from parity.errors import CaptureError, describe_nearest
from parity.frameworks.capture import capture, lay_inputs, wrap_loss, wrap_optimizer
from parity.frameworks.program import Array, Stepper

Inputs = Array | Sequence[Array] | Mapping[str, Array]
Loss = Callable[..., Any]


def compare_models(
    reference: object,
    candidate: object,
    inputs: Inputs,
    *,
    candidate_inputs: Inputs | None = None,
    weights: Weights = "transfer",
    targets: Any = None,  # noqa: ANN401  # arrays, nested as the losses take them
    loss: tuple[Loss, Loss] | None = None,
    optimizer: tuple[object, object] | None = None,
    schedule: tuple[object, object] | None = None,
    steps: int = 1,
    phases: Sequence[str] | None = None,
    pinned: Mapping[str, str] | None = None,
    measures_statistics: bool = False,
    measures_power: bool = True,
) -> Finding:
    """Compare two models layer by layer and return where they first part.

    Neither model is changed.

    Args:
        reference: The model taken as right: a `torch.nn.Module`, or a Keras model or layer.
        candidate: The model in question, of either framework.
        inputs: What the reference is called with: an array, several, or arrays by name.
        candidate_inputs: The same numbers as the candidate takes them. Where left out, axis 1 of
            images moves last for a Keras candidate whose declared input shape wants it so.
        weights: `transfer` gives the candidate the reference's weights along the alignment;
            `as-is` compares the weights the two have.
        targets: What the losses compare the outputs with, given to both as they are.
        loss: The reference's and the candidate's. Torch losses and plain functions are called with
            (prediction, target), `keras.losses.Loss` objects with (target, prediction).
        optimizer: The reference's and the candidate's: a torch optimizer of the model's parameters,
            or a Keras optimizer. They are copied; both make their steps with the gradients of the
            reference.
        schedule: The schedulers of torch optimizers, stepped after each step; `None` beside a Keras
            optimizer, which holds its own.
        steps: How many steps to compare.
        phases: Of `parity.compare.findings.PHASES`; where left out, all that the arguments allow.
        pinned: Operations that are counterparts, reference's name -> candidate's, where dataflow
            cannot tell.
        measures_statistics: Whether the batch norms of both take the statistics of the inputs as
            their running ones: drawn ones can leave outputs that hardly depend on the inputs.
        measures_power: Whether a pass is followed by faults injected into the candidate, which
            show what it could have seen.

    Raises:
        CaptureError: If an argument is no model, or the inputs fit neither.
    """
    chosen = _chosen_phases(phases, has_loss=loss is not None, has_optimizer=optimizer is not None)
    first = _as_list(inputs)
    second = (
        lay_inputs(first, reference, candidate)
        if candidate_inputs is None
        else _as_list(candidate_inputs)
    )
    programs = (
        capture(reference, _as_given(inputs, first)),
        capture(
            candidate, _as_given(inputs if candidate_inputs is None else candidate_inputs, second)
        ),
    )
    objectives = (
        None if loss is None else (wrap_loss(loss[0], reference), wrap_loss(loss[1], candidate))
    )
    return compare_programs(
        *programs,
        (first, second),
        weights=weights,
        pinned=pinned,
        phases=chosen,
        objectives=objectives,
        targets=(targets, targets),
        steppers=_wrap_optimizers((reference, candidate), optimizer, schedule),
        steps=steps,
        measures_statistics=measures_statistics,
        measures_power=measures_power,
    )


def _wrap_optimizers(
    models: tuple[object, object],
    optimizers: tuple[object, object] | None,
    schedules: tuple[object, object] | None,
) -> tuple[Stepper, Stepper] | None:
    if optimizers is None:
        return None
    first, second = schedules or (None, None)
    return (
        wrap_optimizer(models[0], optimizers[0], first),
        wrap_optimizer(models[1], optimizers[1], second),
    )


def _chosen_phases(
    phases: Sequence[str] | None, *, has_loss: bool, has_optimizer: bool
) -> tuple[str, ...]:
    """Return the phases to run.

    Raises:
        CaptureError: If one is unknown, or wants a loss or optimizers that are not there.
    """
    if has_optimizer and not has_loss:
        message = "optimizer: expected loss=(reference's, candidate's) too; got none."
        raise CaptureError(message)
    if phases is None:
        of_loss = ("train", "loss", "gradients") if has_loss else ()
        return ("forward", *of_loss, *(("step",) if has_optimizer else ()))
    for phase in phases:
        if phase not in PHASES:
            message = f"phase {phase!r} is unknown.{describe_nearest(phase, PHASES)}"
            raise CaptureError(message)
    wanting = {"loss": not has_loss, "gradients": not has_loss, "step": not has_optimizer}
    for phase in phases:
        if wanting.get(phase, False):
            word = "optimizer" if phase == "step" else "loss"
            message = f"phase {phase}: expected {word}=(reference's, candidate's); got none."
            raise CaptureError(message)
    return tuple(phases)


def _as_list(inputs: Inputs) -> list[Array]:
    """Return the arrays of inputs; tensors count as arrays, and a row of numbers as one array."""
    if isinstance(inputs, Mapping):
        return [np.asarray(array) for array in inputs.values()]
    if hasattr(inputs, "__array__"):
        return [np.asarray(inputs)]
    if not all(hasattr(array, "__array__") for array in inputs):
        return [np.asarray(inputs)]
    return [np.asarray(array) for array in inputs]


def _as_given(inputs: Inputs, arrays: list[Array]) -> Inputs:
    """Return the arrays as a model is called: by name where given so, alone, or in a row."""
    if isinstance(inputs, Mapping):
        return dict(zip(inputs, arrays, strict=True))
    return arrays[0] if len(arrays) == 1 else arrays
