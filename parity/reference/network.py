"""A whole model forward and backward in float64 NumPy, as a graph of reference layers.

`network_nodes` lists what runs on what; the forward pass keeps every node's output by layer path,
and the backward pass reads them again. Imports numpy, `parity.errors`, `parity.spec` and the
reference layers only.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from parity.errors import SpecError, describe_list
from parity.reference import layers
from parity.reference.airbench import airbench_nodes
from parity.reference.layers.windows import Padding
from parity.reference.nodes import IMAGES, Node
from parity.reference.resnet import resnet_nodes
from parity.spec.airbench import AirbenchSpec
from parity.spec.model_spec import ModelSpec
from parity.spec.resnet import ResNetSpec

Array = NDArray[np.float64]
Arrays = dict[str, Array]
Masks = Mapping[str, NDArray[np.bool_]]
_RUNNING = ("running_mean", "running_var")
_NODES: dict[type[ModelSpec], Callable[[Any], Iterator[Node]]] = {
    ResNetSpec: resnet_nodes,
    AirbenchSpec: airbench_nodes,
}


@dataclass(frozen=True, kw_only=True)
class NetworkTape:
    """A forward pass, with what its backward pass needs.

    Attributes:
        spec: What ran.
        state: Parameters and buffers it ran with.
        images: `(n, c, h, w)`.
        training: Whether batch norms used the batch's statistics, and masks dropped anything.
        masks: What each layer that drops something kept, by layer path.
        trace: Each layer's output by layer path; the last node's are the logits.
        buffers: Running statistics after the pass, by `layer path.slot name`.
    """

    spec: ModelSpec
    state: Arrays
    images: Array
    training: bool
    masks: Masks
    trace: Arrays
    buffers: Arrays

    @property
    def logits(self) -> Array:
        """Output of the last layer, `(n, classes)`."""
        return self.trace[network_nodes(self.spec)[-1].path]

    def input_of(self, node: Node) -> Array:
        """Return what the node read."""
        values = [self.images if path == IMAGES else self.trace[path] for path in node.inputs]
        return functools.reduce(layers.add, values)

    def slot(self, node: Node, name: str) -> Array:
        """Return one of the node's parameters or buffers, as it was before the pass."""
        return self.state[f"{node.path}.{name}"]


def network_nodes(spec: ModelSpec) -> tuple[Node, ...]:
    """Return every layer call of a model, each after those it reads."""
    return tuple(_NODES[type(spec)](spec))


def network_trace(
    spec: ModelSpec,
    state: Mapping[str, ArrayLike],
    images: ArrayLike,
    *,
    training: bool,
    masks: Masks | None = None,
) -> tuple[Arrays, Arrays]:
    """Return `(trace, buffers)`: outputs by layer path, and running statistics after the pass.

    Args:
        spec: What to run.
        state: Every parameter and buffer by `layer path.slot name`.
        images: `(n, c, h, w)`.
        training: Whether batch norms use the batch's statistics, buffers move, and masks are read.
        masks: What each layer that drops something keeps, by layer path.

    Raises:
        SpecError: If names or shapes do not match the spec; all offenders are listed.
    """
    tape = record_network(spec, state, images, training=training, masks=masks)
    return tape.trace, tape.buffers


def record_network(
    spec: ModelSpec,
    state: Mapping[str, ArrayLike],
    images: ArrayLike,
    *,
    training: bool,
    masks: Masks | None = None,
) -> NetworkTape:
    """Run a model as `network_trace` does and return the tape that `network_backward` reads."""
    arrays = {name: np.asarray(value, dtype=np.float64) for name, value in state.items()}
    batch = np.asarray(images, dtype=np.float64)
    kept = masks or {}
    _require_fitting(spec, arrays, batch, expected_masks(spec, training=training) - kept.keys())
    names = [name for name, slot in spec.slots().items() if slot.role == "buffer"]
    buffers = {name: arrays[name].copy() for name in names}
    tape = NetworkTape(
        spec=spec,
        state=arrays,
        images=batch,
        training=training,
        masks=kept,
        trace={},
        buffers=buffers,
    )
    for node in network_nodes(spec):
        tape.trace[node.path] = _outputs(node, tape)
    return tape


def expected_masks(spec: ModelSpec, *, training: bool) -> set[str]:
    """Return the layers that must be told what they keep."""
    return {layer.path for layer in spec.masked_layers()} if training else set()


def network_backward(tape: NetworkTape, d_logits: ArrayLike) -> Arrays:
    """Return the gradient of every parameter, given that of the logits `(n, classes)`."""
    gradients: Arrays = {}
    nodes = network_nodes(tape.spec)
    d_outputs: Arrays = {nodes[-1].path: np.asarray(d_logits, dtype=np.float64)}
    for node in reversed(nodes):
        d_output = d_outputs.pop(node.path)
        d_input, own = _gradients(node, tape, d_output)
        gradients.update({f"{node.path}.{slot}": array for slot, array in own.items()})
        for path in node.inputs:
            d_outputs[path] = d_outputs[path] + d_input if path in d_outputs else d_input
    slots = tape.spec.slots()
    return {name: gradients[name] for name in slots if slots[name].role == "parameter"}


def _outputs(node: Node, tape: NetworkTape) -> Array:
    """Return the node's output; a batch norm also records its running statistics on the tape."""
    inputs, conventions = tape.input_of(node), tape.spec.conventions
    padding: Padding = conventions.stride_offset if node.is_padded else ((0, 0), (0, 0))
    match node.kind:
        case "conv":
            weight, bias = tape.slot(node, "weight"), tape.state.get(f"{node.path}.bias")
            return layers.conv2d(inputs, weight, bias, stride=node.stride, padding=padding)
        case "bn":
            outputs, running_mean, running_var = layers.batch_norm2d(
                inputs,
                tape.state.get(f"{node.path}.weight"),
                *(tape.slot(node, name) for name in ("bias", *_RUNNING)),
                training=tape.training,
                stats_decay=conventions.stats_decay,
                variance_correction=conventions.bn_variance_correction,
                epsilon=conventions.bn_epsilon,
            )
            tape.buffers[f"{node.path}.running_mean"] = running_mean
            tape.buffers[f"{node.path}.running_var"] = running_var
            return outputs
        case "relu":
            return layers.relu(inputs)
        case "max_pool":
            return layers.max_pool2d(
                inputs,
                kernel=node.kernel,
                stride=node.stride,
                padding=padding,
                fill=-np.inf,
                ceil_mode=False,
            )
        case "average_pool":
            return layers.global_average_pool(inputs)
        case "gelu":
            return layers.gelu(inputs, form=node.form)
        case "scale":
            return inputs * node.factor
        case "linear":
            weight, bias = tape.slot(node, "weight"), tape.state.get(f"{node.path}.bias")
            return layers.linear(inputs.reshape(len(inputs), -1), weight, bias)
        case "stochastic_depth" | "dropout":
            forward, _ = _DROPPING[node.kind]
            return forward(inputs, tape.masks.get(node.path, ()), **_drop_knobs(node, tape))


def _gradients(node: Node, tape: NetworkTape, d_outputs: Array) -> tuple[Array, Arrays]:
    """Return the gradient of what the node read, and of its parameters by slot name."""
    inputs, conventions = tape.input_of(node), tape.spec.conventions
    padding: Padding = conventions.stride_offset if node.is_padded else ((0, 0), (0, 0))
    match node.kind:
        case "conv":
            weight = tape.slot(node, "weight")
            d_inputs, d_weight, d_bias = layers.conv2d_backward(
                d_outputs, inputs, weight, stride=node.stride, padding=padding
            )
            return d_inputs, {"weight": d_weight, "bias": d_bias}
        case "bn":
            d_inputs, d_weight, d_bias = layers.batch_norm2d_backward(
                d_outputs,
                inputs,
                tape.state.get(f"{node.path}.weight"),
                *(tape.slot(node, name) for name in _RUNNING),
                training=tape.training,
                epsilon=conventions.bn_epsilon,
            )
            return d_inputs, {"weight": d_weight, "bias": d_bias}
        case "relu":
            return layers.relu_backward(d_outputs, inputs), {}
        case "max_pool":
            d_inputs = layers.max_pool2d_backward(
                d_outputs,
                inputs,
                kernel=node.kernel,
                stride=node.stride,
                padding=padding,
                fill=-np.inf,
                ceil_mode=False,
            )
            return d_inputs, {}
        case "average_pool":
            return layers.global_average_pool_backward(d_outputs, inputs), {}
        case "gelu":
            return layers.gelu_backward(d_outputs, inputs, form=node.form), {}
        case "scale":
            return d_outputs * node.factor, {}
        case "linear":
            d_flat, d_weight, d_bias = layers.linear_backward(
                d_outputs, inputs.reshape(len(inputs), -1), tape.slot(node, "weight")
            )
            return d_flat.reshape(inputs.shape), {"weight": d_weight, "bias": d_bias}
        case "stochastic_depth" | "dropout":
            _, backward = _DROPPING[node.kind]
            kept = tape.masks.get(node.path, ())
            return backward(d_outputs, kept, **_drop_knobs(node, tape)), {}


_DROPPING = {
    "stochastic_depth": (layers.stochastic_depth, layers.stochastic_depth_backward),
    "dropout": (layers.dropout, layers.dropout_backward),
}


def _drop_knobs(node: Node, tape: NetworkTape) -> dict[str, Any]:
    return {"rate": node.rate, "scale_at": "training", "training": tape.training}


def _require_fitting(
    spec: ModelSpec, state: Arrays, images: Array, unmasked: Iterable[str]
) -> None:
    shapes = spec.state_shapes()
    problems = []
    if without := sorted(unmasked):
        problems.append(f"{len(without)} masks missing ({describe_list(without)}).")
    if missing := [name for name in shapes if name not in state]:
        problems.append(f"{len(missing)} slots missing ({describe_list(missing)}).")
    if unexpected := [name for name in state if name not in shapes]:
        problems.append(f"{len(unexpected)} unexpected ({describe_list(unexpected)}).")
    problems += [
        f"{name}: expected shape {shape}; got {state[name].shape}."
        for name, shape in shapes.items()
        if name in state and state[name].shape != shape
    ]
    expected = (spec.in_channels, *spec.input_size)
    if images.ndim != 4 or images.shape[1:] != expected:
        problems.append(f"images must be (n, c, h, w) with {expected}; got {images.shape}.")
    if problems:
        message = "network: " + " ".join(problems)
        raise SpecError(message)
