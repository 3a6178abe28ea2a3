"""Optimizer steps of two models: each from the same parameters and the same gradients.

The reference's gradients, at the reference's parameters, go to both optimizers; what they keep
(momentum, moments) is their own, and goes on from step to step. So a wrong rule, a wrong default
and a schedule that is one step off show; a wrong gradient, which has a phase of its own, does not.
"""

from collections.abc import Mapping
from typing import Any

from parity.compare.comparison import Comparison
from parity.compare.gaps import largest
from parity.frameworks.program import Array, Objective, Program, State, Stepper

# An update far below the largest of the model is of a gradient that is zero in theory.
NEGLIGIBLE_UPDATE = 1e-9


def compare_steps(
    comparison: Comparison,
    steppers: tuple[Stepper, Stepper],
    objective: Objective,
    target: Any,  # noqa: ANN401  # arrays, nested as the loss takes them
    *,
    steps: int,
) -> None:
    """Compare the updates of every parameter, step by step.

    Args:
        comparison: Under way; its reference is left with the parameters of the last step.
        steppers: Of reference and candidate.
        objective: The reference's loss.
        target: Of the loss.
        steps: How many.
    """
    reference = comparison.sides.reference
    names = reference.parameter_names()
    for step in range(1, steps + 1):
        state = reference.state()
        before = {name: state[name] for name in names}
        gradients = training_gradients(comparison, objective, target)
        after = steppers[0].step(before, gradients)
        _judge_step(comparison, steppers[1], before, gradients, after, step=step)
        reference.load_state(after)


def training_gradients(
    comparison: Comparison,
    objective: Objective,
    target: Any,  # noqa: ANN401  # arrays, nested as the loss takes them
) -> State:
    """Return the reference's gradients at its present parameters, in training mode."""
    program: Program = comparison.sides.reference
    outputs = program.trace.outputs
    uniforms, _ = comparison.uniforms()
    keep = list(outputs.values())
    run = program.run(comparison.inputs[0], training=True, keep=keep, uniforms=uniforms)
    _, d_outputs = objective.evaluate(
        {name: run.values[value] for name, value in outputs.items()}, target
    )
    run = program.run(
        comparison.inputs[0],
        training=True,
        uniforms=uniforms,
        cotangents={outputs[name]: array for name, array in d_outputs.items()},
    )
    return dict(run.parameter_gradients)


def _judge_step(
    comparison: Comparison,
    stepper: Stepper,
    before: Mapping[str, Array],
    gradients: Mapping[str, Array],
    after: Mapping[str, Array],
    *,
    step: int,
) -> None:
    """Give the candidate's optimizer the same step, and judge what it makes of each array."""
    pairs = [pair for pair in comparison.match.weights.pairs if {*pair.reference} <= set(before)]
    start: State = {}
    given: State = {}
    wanted: State = {}
    for pair in pairs:
        start |= pair.move({name: before[name] for name in pair.reference})
        given |= pair.move_gradients({name: gradients[name] for name in pair.reference})
        wanted |= pair.move({name: after[name] for name in pair.reference})
    stepped = stepper.step(start, given)
    updates = {name: wanted[name] - start[name] for name in wanted}
    overall = max(map(largest, updates.values()), default=0.0)
    for pair in pairs:
        scale = max(
            NEGLIGIBLE_UPDATE * overall, *(largest(updates[name]) for name in pair.candidate)
        )
        for name in pair.candidate:
            comparison.judge(
                "step",
                pair.operations,
                f"{name}, step {step}",
                actual=stepped[name] - start[name],
                exact=updates[name],
                noisy=(),
                scale=scale,
            )
