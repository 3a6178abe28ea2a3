"""What the two sides of a pair compute in float64, with the same names and layouts."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.frameworks.pairs.plan import SIDES, Array, Plan, Side
from parity.testing.pairs.pair import Pair, build_side, draw_inputs

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

    Gradients and buffers are in the layout of the framework.

    Args:
        plan: Of either side of a pair.
        side: Framework.
        cotangent: Weights of the linear loss, in torch's layout.
    """
    measure = _measure_torch if side == "torch" else _measure_keras
    return Outcome(
        evaluation=measure(plan, cotangent, training=False),
        training=measure(plan, cotangent, training=True),
    )


def clean_gap(pair: Pair) -> float:
    """Return the largest gap between the two sides of a clean pair, in float64.

    Each quantity is judged against its own scale, gradients against the largest of the pass.
    Running variances after training are left out: torch's are unbiased, Keras's are not.
    """
    cotangent = pair.cotangent()
    torch, keras = (measure_side(pair.plan(side), side, cotangent) for side in SIDES)
    gaps = [
        largest_gap(actual, in_keras_layout(pair.plan("torch"), expected), common_only=False)
        for actual, expected in (
            (keras.evaluation, torch.evaluation),
            (_without_variances(keras.training), _without_variances(torch.training)),
        )
    ]
    return max(gaps)


def largest_gap(actual: Quantities, expected: Quantities, *, common_only: bool) -> float:
    """Return the largest gap of two passes relative to scale; infinite where shapes differ.

    Args:
        actual: What is judged.
        expected: What it is judged against.
        common_only: Whether quantities that only one of the two has are left out; otherwise they
            are an infinite gap.
    """
    if not common_only and set(actual) - set(expected):
        return math.inf
    gradients = [float(np.abs(a).max()) for name, a in expected.items() if "gradient" in name]
    scales = {name: float(np.abs(array).max()) for name, array in expected.items()}
    scales |= {name: max(gradients) for name in expected if "gradient" in name}
    gaps = [0.0]
    for name in set(actual) & set(expected):
        if actual[name].shape != expected[name].shape:
            return math.inf
        gap = float(np.abs(actual[name] - expected[name]).max())
        if not math.isfinite(gap):
            return math.inf
        gaps.append(gap / scales[name] if scales[name] else gap)
    return max(gaps)


def _without_variances(quantities: Quantities) -> Quantities:
    kinds = ("running_var", "moving_variance")
    return {name: array for name, array in quantities.items() if not name.endswith(kinds)}


def in_keras_layout(plan: Plan, quantities: Quantities) -> Quantities:
    """Return torch's quantities as Keras names and lays them out, to compare the two sides.

    Gradients of two biases that Keras keeps as their sum are one and the same, and count once.
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
    model = build_side(plan, "keras", dtype="float64").model
    with runtime.precision("float64"):
        moved = keras_arrays(plan.with_weights(given), model)
    variables = layer_variables(model)
    kinds = {name: "gradient" if v.trainable else "buffer" for name, v in variables.items()}
    whole = {name: quantities[name] for name in _WHOLE if name in quantities}
    return whole | {f"{kinds[path]} {path}": array for path, array in moved.items()}


def _measure_torch(plan: Plan, cotangent: Array, *, training: bool) -> Quantities:
    from parity.frameworks.torch_layer import run_torch_layer

    built = build_side(plan, "torch", dtype="float64", fixed_dropout=True)
    model = built.model.train(training)
    frozen = {name for name, array in model.named_parameters() if not array.requires_grad}
    # The backward pass asks for every parameter's.
    model.requires_grad_()
    outcome = run_torch_layer(model, [_widened(draw_inputs(plan))], cotangent)
    quantities = {"output": outcome.outputs}
    if outcome.input_gradients:
        quantities["input gradient"] = outcome.input_gradients[0]
    for name, gradient in outcome.parameter_gradients.items():
        if name not in frozen:
            quantities[f"gradient {built.slots[name]}"] = gradient
    for name, array in outcome.buffers.items():
        if name in built.slots:
            quantities[f"buffer {built.slots[name]}"] = array
    return quantities


def _measure_keras(plan: Plan, cotangent: Array, *, training: bool) -> Quantities:
    from parity import runtime

    model = build_side(plan, "keras", dtype="float64", fixed_dropout=True).model
    from parity.frameworks.keras_layer import run_keras_layer

    inputs, d_outputs = (_channels_last(array) for array in (draw_inputs(plan), cotangent))
    with runtime.precision("float64"):
        outcome = run_keras_layer(
            model, [_widened(inputs)], d_outputs, arguments={"training": training}
        )
    quantities = {"output": outcome.outputs}
    if outcome.input_gradients:
        gradient = outcome.input_gradients[0]
        is_image = gradient.ndim == 4
        quantities["input gradient"] = gradient.transpose(0, 3, 1, 2) if is_image else gradient
    quantities |= {f"gradient {name}": g for name, g in outcome.parameter_gradients.items()}
    return quantities | {f"buffer {name}": array for name, array in outcome.buffers.items()}


def _channels_last(array: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)) if array.ndim == 4 else array


def _widened(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def float32_kinds(plan: Plan) -> tuple[str, ...]:
    """Return what Keras on tensorflow computes with float32 constants, whatever its dtype.

    Source: tensorflow 2.21.0, tf.nn.gelu, tf.nn.leaky_relu and tf.image.resize.
    """
    words = {str(node.settings.get("function") or node.settings.get("mode")) for node in plan.nodes}
    return tuple(sorted(words & {"gelu", "leaky_relu", "bilinear"}))
