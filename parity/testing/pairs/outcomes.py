"""What the two sides of a pair compute in float64, with the same names and layouts."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.frameworks.pairs.plan import Array, Built, Plan, Side
from parity.testing.pairs.pair import build_side, draw_inputs

# Quantity (`output`, `input gradient`, `gradient <slot>`, `buffer <slot>`) -> array.
Quantities = dict[str, Array]

_WHOLE = ("output", "input gradient")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One pass in evaluation mode and one in training mode.

    Attributes:
        evaluation: Output and gradients of a linear loss.
        training: Likewise, and buffers after the pass.
    """

    evaluation: Quantities
    training: Quantities


def measure_side(plan: Plan, side: Side, cotangent: Array) -> Outcome:
    """Run a framework's model of a plan in float64, dropouts as the seed says.

    Gradients and buffers have the framework's layout, torch's the names of the plan's weights.

    Args:
        plan: Of either side of a pair.
        side: Framework.
        cotangent: Weights of the linear loss, in torch's layout.
    """
    return measure_built(plan, side, build_measured(plan, side), cotangent)


def build_measured(plan: Plan, side: Side) -> Built:
    """Return a framework's float64 model, its dropouts as the seed says."""
    return build_side(plan, side, dtype="float64", fixed_dropout=True)


def measure_built(plan: Plan, side: Side, built: Built, cotangent: Array) -> Outcome:
    """Run a model that was built by `build_measured`, whose buffers move."""
    measure = _measure_torch if side == "torch" else _measure_keras
    inputs = draw_inputs(plan)
    widened = inputs.astype(np.float64) if inputs.dtype.kind == "f" else inputs
    # Training moves the buffers, so it comes last.
    return Outcome(
        evaluation=measure(built, widened, cotangent, training=False),
        training=measure(built, widened, cotangent, training=True),
    )


def _measure_torch(
    built: Built, inputs: NDArray[Any], cotangent: Array, *, training: bool
) -> Quantities:
    from parity.frameworks.torch_layer import run_torch_layer

    model = built.model.train(training)
    named = list(model.named_parameters())
    frozen = [(name, array) for name, array in named if not array.requires_grad]
    # The backward pass asks for every parameter's.
    model.requires_grad_()
    outcome = run_torch_layer(model, [inputs], cotangent)
    for _, array in frozen:
        array.requires_grad_(requires_grad=False)
    quantities = {"output": outcome.outputs}
    quantities |= dict(zip(["input gradient"], outcome.input_gradients, strict=False))
    left_out = {name for name, _ in frozen}
    for name, gradient in outcome.parameter_gradients.items():
        if name not in left_out:
            quantities[f"gradient {built.slots[name]}"] = gradient
    for name, array in outcome.buffers.items():
        if name in built.slots:
            quantities[f"buffer {built.slots[name]}"] = array
    return quantities


def _measure_keras(
    built: Built, inputs: NDArray[Any], cotangent: Array, *, training: bool
) -> Quantities:
    from parity import runtime
    from parity.frameworks.keras_layer import run_keras_layer

    with runtime.precision("float64"), runtime.without_retracing_advice():
        outcome = run_keras_layer(
            built.model,
            [_channels_last(inputs)],
            cotangent,
            arguments={"training": training},
        )
    quantities = {"output": outcome.outputs}
    for gradient in outcome.input_gradients:
        is_image = gradient.ndim == 4
        quantities["input gradient"] = gradient.transpose(0, 3, 1, 2) if is_image else gradient
    quantities |= {f"gradient {name}": g for name, g in outcome.parameter_gradients.items()}
    return quantities | {f"buffer {name}": array for name, array in outcome.buffers.items()}


def in_keras_layout(plan: Plan, quantities: Quantities, built: Built) -> Quantities:
    """Return torch's quantities as Keras names and lays them out, to compare the two sides.

    Gradients of two biases that Keras keeps as their sum are one and the same, and count once.

    Args:
        plan: Of both sides.
        quantities: Of torch.
        built: Keras's model.
    """
    from parity import runtime
    from parity.frameworks.keras_layer import layer_variables
    from parity.frameworks.pairs.keras_side import keras_arrays

    lstms = {node.name for node in plan.nodes if node.kind == "lstm"}
    given = {}
    for quantity, array in quantities.items():
        kind, _, name = quantity.partition(" ")
        if kind in ("gradient", "buffer"):
            is_second = name.partition(".")[0] in lstms and ".bias_hh" in name
            given[name] = np.zeros_like(array) if is_second else array
    with runtime.precision("float64"):
        moved = keras_arrays(plan.with_weights(given), built.model)
    whole = {name: quantities[name] for name in _WHOLE if name in quantities}
    variables = layer_variables(built.model)
    kinds = {path: "gradient" if variables[path].trainable else "buffer" for path in moved}
    return whole | {f"{kinds[path]} {path}": array for path, array in moved.items()}


def _channels_last(array: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)) if array.ndim == 4 else array
