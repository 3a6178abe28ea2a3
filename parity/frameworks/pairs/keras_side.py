"""The Keras model of a plan, as Keras users write them: functional, sequential or subclassed.

Float64 models are built and called inside `parity.runtime.precision("float64")`.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import keras

from conversion.layouts import keras_variables, to_keras_layout
from parity.frameworks.pairs.keras_layers import PARTS
from parity.frameworks.pairs.keras_tensors import Making, Part, Tensor
from parity.frameworks.pairs.plan import BATCH, INPUT, Array, Built, Plan, group_inputs, is_chain
from parity.spec.model_spec import ModelSpec
from parity.spec.paths import keras_name

# Kind -> what its layer is called.
_WORDS = {
    "conv": ("conv2d", "conv", "c"),
    "conv_transpose": ("conv2d_transpose", "upconv", "t"),
    "dense": ("dense", "logits", "d"),
    "batch_norm": ("batch_normalization", "bn", "norm"),
    "layer_norm": ("layer_normalization", "ln", "norm"),
    "group_norm": ("group_normalization", "gn", "norm"),
    "activation": ("activation", "act", "a"),
    "max_pool": ("max_pooling2d", "pool", "p"),
    "avg_pool": ("average_pooling2d", "pool", "p"),
    "attention": ("multi_head_attention", "attention", "mha"),
    "reduce": ("global_pooling", "gap", "gap"),
    # Not what Keras itself calls its functions of tensors: names are unique in a model.
    "add": ("sum", "residual", "plus"),
    "multiply": ("gate", "scaled", "times"),
    "concat": ("joined", "merge", "cat"),
    "softmax": ("probabilities", "predictions", "probs"),
    "scale": ("rescaling", "rescaled", "factor"),
}
_GROUPS = ("unit_{}", "b{}", "part{}")
Calls = list[tuple[str, tuple[str, ...], list[Part]]]


class Inner(keras.layers.Layer):
    """A part of a subclassed model: its layers, called in order."""

    def __init__(self, calls: Calls, inputs: Sequence[str], output: str, *, name: str) -> None:
        super().__init__(name=name)
        self.calls, self.inputs, self.last = calls, tuple(inputs), output
        _hold(self, calls)

    def build(self, *shapes: Any, **named: Any) -> None:  # noqa: ANN401  # Keras's signature
        """Leave it to the call."""
        del shapes, named

    def call(self, *tensors: Tensor) -> Tensor:
        """Return the output."""
        return _run(self.calls, dict(zip(self.inputs, tensors, strict=True)))[self.last]


class Whole(keras.Model):
    """A subclassed model."""

    def __init__(self, calls: Calls, output: str, *, name: str) -> None:
        super().__init__(name=name)
        self.calls, self.last = calls, output
        _hold(self, calls)

    def build(self, shape: Any) -> None:  # noqa: ANN401  # Keras's signature
        """Leave it to the call."""
        del shape

    def call(self, inputs: Tensor) -> Tensor:
        """Return the output."""
        return _run(self.calls, {INPUT: inputs})[self.last]


def _hold(owner: Any, calls: Calls) -> None:  # noqa: ANN401  # a layer or a model
    for _, _, parts in calls:
        for part in parts:
            if isinstance(part.call, keras.layers.Layer):
                setattr(owner, f"{part.call.name}_layer", part.call)


def _run(calls: Calls, values: dict[str, Tensor]) -> dict[str, Tensor]:
    for value, operands, parts in calls:
        results = tuple(values[name] for name in operands)
        for part in parts:
            results = (part(*results),)
        values[value] = results[0]
    return values


def build_keras(plan: Plan, *, fixed_dropout: bool = False) -> Built:
    """Return the model of a plan, with its weights, in `keras.config.floatx()`.

    Args:
        plan: Of nodes, or of a twin.
        fixed_dropout: Whether dropouts keep what the plan's seed says, as measuring needs.
    """
    if plan.spec is not None:
        return _build_twin(plan.spec, plan)
    calls, parts_of, paths = _calls(plan, fixed_dropout=fixed_dropout)
    parts = [part for node in plan.nodes for part in parts_of[node.name]]
    are_layers = all(
        isinstance(part.call, keras.layers.Layer) and part.invoke is None for part in parts
    )
    dtype = "int32" if plan.vocabulary else None
    given = keras.Input(_last(plan.input_shape), dtype=dtype, name=INPUT)
    name = f"{plan.family}_{plan.seed}"
    if plan.forms["keras"] == "sequential" and is_chain(plan.nodes) and are_layers:
        model = keras.Sequential([given, *[part.call for part in parts]], name=name)
    elif plan.forms["keras"] == "subclassed":
        model = Whole(calls, plan.nodes[-1].name, name=name)
        model(keras.ops.zeros((BATCH, *given.shape[1:]), dtype=given.dtype))
    else:
        model = keras.Model(given, _run(calls, {INPUT: given})[plan.nodes[-1].name], name=name)
    for part in parts:
        if part.arrays:
            _fill(part)
    return Built(model=model, paths=paths)


def keras_arrays(plan: Plan, model: keras.Model) -> dict[str, Array]:
    """Return the plan's arrays by the paths of a model's variables below it, in their layout.

    Of a plan whose weights are gradients, these are the gradients that the model should have.

    Args:
        plan: As the model was built of, with any values.
        model: Whose variables stand in the order in which `build_keras` made them.
    """
    if plan.spec is not None:
        return {_own_path(v, model): array for v, array in _twin_arrays(plan, model)}
    _, parts_of, _ = _calls(plan, fixed_dropout=True)
    layers = {layer.name: layer for layer in _leaves(model)}
    return {
        _own_path(variable, model): array
        for parts in parts_of.values()
        for part in parts
        if part.arrays
        for variable, array in zip(layers[part.call.name].weights, part.arrays, strict=True)
    }


def _own_path(variable: Any, model: keras.Model) -> str:  # noqa: ANN401  # a variable
    path: str = variable.path
    return path.removeprefix(f"{model.name}/")


def _leaves(model: keras.Model) -> list[Any]:
    return [layer for layer in model._flatten_layers(recursive=True) if layer is not model]


def _last(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape with its channels last."""
    return (*shape[1:], shape[0]) if len(shape) == 3 else shape


def _calls(
    plan: Plan, *, fixed_dropout: bool
) -> tuple[Calls, dict[str, list[Part]], dict[str, str]]:
    """Return the calls of the model's body, the parts of each node, and the paths of the nodes."""
    choice = plan.seed // len(_GROUPS) % len(_GROUPS)
    counts: dict[str, itertools.count[int]] = {}
    numbers = itertools.count(1)
    calls: Calls = []
    parts_of: dict[str, list[Part]] = {}
    paths: dict[str, str] = {}
    is_nested = plan.forms["keras"] == "subclassed"
    for nodes in plan.groups():
        group = _GROUPS[choice].format(next(numbers)) if nodes[0].group else ""
        inner: Calls = []
        for node in nodes:
            words = _WORDS.get(node.kind)
            word = words[choice] if words else node.kind
            number = next(counts.setdefault(word, itertools.count()))
            name = f"{group}_{word}_{number}" if group and choice else f"{word}_{number}"
            making = Making(plan=plan, name=name, fixed_dropout=fixed_dropout)
            parts = PARTS[node.kind](node, making)
            parts_of[node.name] = parts
            inner.append((node.name, node.inputs, parts))
            paths[node.name] = _path(parts, group if is_nested else "")
            if not parts:
                # The layer before applies it.
                paths[node.name] = f"{paths[node.inputs[0]]}/"
        if group and is_nested:
            layer = Inner(inner, group_inputs(nodes), nodes[-1].name, name=group)
            calls.append((nodes[-1].name, group_inputs(nodes), [Part(call=layer)]))
        else:
            calls += inner
    return calls, parts_of, paths


def _path(parts: Sequence[Part], group: str) -> str:
    main = [part.call.name for part in parts if part.is_main]
    return ".".join(filter(None, [group, *main])) if main else f"{group}/"


def _fill(part: Part) -> None:
    for variable, array in zip(part.call.weights, part.arrays, strict=True):
        variable.assign(array)


def _build_twin(spec: ModelSpec, plan: Plan) -> Built:
    import models_keras

    model = models_keras.build_model(spec)
    for variable, array in _twin_arrays(plan, model):
        variable.assign(array)
    layers = [name.rpartition(".")[0] for name in plan.weights]
    return Built(model=model, paths={name: name for name in layers})


def _twin_arrays(plan: Plan, model: keras.Model) -> list[tuple[Any, Array]]:
    """Return each variable of a twin with the array it holds, in Keras's layout."""
    found = []
    for name, array in plan.weights.items():
        path, _, slot = name.rpartition(".")
        layer = model.get_layer(keras_name(path))
        kind = type(layer).__name__
        variable, moved = to_keras_layout(kind, slot, array)
        held = {weight.name: weight for weight in layer.weights}
        if variable in keras_variables(kind):
            found.append((held[variable], moved))
    return found
