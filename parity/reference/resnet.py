"""A whole ResNet forward and backward in float64 NumPy, as a graph of reference layers.

`resnet_nodes` lists what runs on what; the forward pass keeps every node's output by layer path,
and the backward pass reads them again. Imports numpy, `parity.errors`, `parity.spec` and the
reference layers only.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from parity.errors import SpecError, describe_list
from parity.reference import layers
from parity.spec.layers import Conv2d
from parity.spec.models import BlockSpec, ResNetSpec, block_specs

Array = NDArray[np.float64]
Arrays = dict[str, Array]
Masks = Mapping[str, NDArray[np.bool_]]
NodeKind = Literal[
    "conv", "bn", "relu", "max_pool", "average_pool", "linear", "stochastic_depth", "dropout"
]

IMAGES = "images"
STEM_POOL_KERNEL = 3
_RUNNING = ("running_mean", "running_var")


@dataclass(frozen=True, kw_only=True)
class Node:
    """One layer call.

    Attributes:
        path: Layer path, under which its output is recorded.
        kind: Which reference layer runs.
        inputs: Paths of the outputs it reads, or `IMAGES`; the sum of two if there are two.
        stride: Of a convolution or max pool.
        rate: Of a layer that drops something.
    """

    path: str
    kind: NodeKind
    inputs: tuple[str, ...]
    stride: int = 1
    rate: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ResNetTape:
    """A forward pass, with what its backward pass needs.

    Attributes:
        spec: What ran.
        state: Parameters and buffers it ran with.
        images: `(n, c, h, w)`.
        training: Whether batch norms used the batch's statistics, and masks dropped anything.
        masks: What each layer that drops something kept, by layer path.
        trace: Each layer's output by layer path; `head` holds the logits.
        buffers: Running statistics after the pass, by `layer path.slot name`.
    """

    spec: ResNetSpec
    state: Arrays
    images: Array
    training: bool
    masks: Masks
    trace: Arrays
    buffers: Arrays

    def input_of(self, node: Node) -> Array:
        """Return what the node read."""
        values = [self.images if path == IMAGES else self.trace[path] for path in node.inputs]
        return functools.reduce(layers.add, values)

    def slot(self, node: Node, name: str) -> Array:
        """Return one of the node's parameters or buffers, as it was before the pass."""
        return self.state[f"{node.path}.{name}"]


def resnet_nodes(spec: ResNetSpec) -> tuple[Node, ...]:
    """Return every layer call of a ResNet, each after those it reads."""
    return tuple(_nodes(spec))


def resnet_trace(
    spec: ResNetSpec,
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
    tape = record_resnet(spec, state, images, training=training, masks=masks)
    return tape.trace, tape.buffers


def record_resnet(
    spec: ResNetSpec,
    state: Mapping[str, ArrayLike],
    images: ArrayLike,
    *,
    training: bool,
    masks: Masks | None = None,
) -> ResNetTape:
    """Run a ResNet as `resnet_trace` does and return the tape that `resnet_backward` reads."""
    arrays = {name: np.asarray(value, dtype=np.float64) for name, value in state.items()}
    batch = np.asarray(images, dtype=np.float64)
    kept = masks or {}
    _require_fitting(spec, arrays, batch, expected_masks(spec, training=training) - kept.keys())
    names = [name for name, slot in spec.slots().items() if slot.role == "buffer"]
    buffers = {name: arrays[name].copy() for name in names}
    tape = ResNetTape(
        spec=spec,
        state=arrays,
        images=batch,
        training=training,
        masks=kept,
        trace={},
        buffers=buffers,
    )
    for node in resnet_nodes(spec):
        tape.trace[node.path] = _outputs(node, tape)
    return tape


def expected_masks(spec: ResNetSpec, *, training: bool) -> set[str]:
    """Return the layers that must be told what they keep."""
    return {layer.path for layer in spec.masked_layers()} if training else set()


def resnet_backward(tape: ResNetTape, d_logits: ArrayLike) -> Arrays:
    """Return the gradient of every parameter, given that of the logits `(n, classes)`."""
    gradients: Arrays = {}
    d_outputs: Arrays = {"head": np.asarray(d_logits, dtype=np.float64)}
    for node in reversed(resnet_nodes(tape.spec)):
        d_output = d_outputs.pop(node.path)
        d_input, own = _gradients(node, tape, d_output)
        gradients.update({f"{node.path}.{slot}": array for slot, array in own.items()})
        for path in node.inputs:
            d_outputs[path] = d_outputs[path] + d_input if path in d_outputs else d_input
    slots = tape.spec.slots()
    return {name: gradients[name] for name in slots if slots[name].role == "parameter"}


def _nodes(spec: ResNetSpec) -> Iterator[Node]:
    strides = {layer.path: layer.stride for layer in spec.layers() if isinstance(layer, Conv2d)}
    yield from _conv_bn("stem.conv", "stem.bn", IMAGES, strides)
    yield Node(path="stem.relu", kind="relu", inputs=("stem.bn",))
    last = "stem.relu"
    if spec.stem == "imagenet":
        yield Node(path="stem.pool", kind="max_pool", inputs=("stem.relu",), stride=2)
        last = "stem.pool"
    for block in block_specs(spec):
        *nodes, end = _block_nodes(spec, block, last, strides)
        yield from [*nodes, end]
        last = end.path
    yield Node(path="pool", kind="average_pool", inputs=(last,))
    last = "pool"
    if spec.dropout > 0.0:
        last = "dropout"
        yield Node(path=last, kind="dropout", inputs=("pool",), rate=spec.dropout)
    yield Node(path="head", kind="linear", inputs=(last,))


def _block_nodes(
    spec: ResNetSpec, block: BlockSpec, start: str, strides: Mapping[str, int]
) -> Iterator[Node]:
    count = 2 if spec.block == "basic" else 3
    last = start
    for index in range(1, count + 1):
        norm = f"{block.path}.bn{index}"
        yield from _conv_bn(f"{block.path}.conv{index}", norm, last, strides)
        last = f"{block.path}.relu{index}"
        if index < count:
            yield Node(path=last, kind="relu", inputs=(norm,))
    shortcut = start
    if block.has_projection:
        shortcut = f"{block.path}.shortcut.bn"
        yield from _conv_bn(f"{block.path}.shortcut.conv", shortcut, start, strides)
    branch = f"{block.path}.bn{count}"
    if block.drop_rate > 0.0:
        path, rate = f"{block.path}.stochastic_depth", block.drop_rate
        yield Node(path=path, kind="stochastic_depth", inputs=(branch,), rate=rate)
        branch = path
    yield Node(path=last, kind="relu", inputs=(branch, shortcut))


def _conv_bn(conv: str, norm: str, source: str, strides: Mapping[str, int]) -> Iterator[Node]:
    yield Node(path=conv, kind="conv", inputs=(source,), stride=strides[conv])
    yield Node(path=norm, kind="bn", inputs=(conv,))


def _outputs(node: Node, tape: ResNetTape) -> Array:
    """Return the node's output; a batch norm also records its running statistics on the tape."""
    inputs, conventions = tape.input_of(node), tape.spec.conventions
    offset = conventions.stride_offset
    match node.kind:
        case "conv":
            weight, bias = tape.slot(node, "weight"), tape.state.get(f"{node.path}.bias")
            return layers.conv2d(inputs, weight, bias, stride=node.stride, padding=offset)
        case "bn":
            outputs, running_mean, running_var = layers.batch_norm2d(
                inputs,
                *(tape.slot(node, name) for name in ("weight", "bias", *_RUNNING)),
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
                kernel=STEM_POOL_KERNEL,
                stride=node.stride,
                padding=offset,
                fill=-np.inf,
                ceil_mode=False,
            )
        case "average_pool":
            return layers.global_average_pool(inputs)
        case "linear":
            return layers.linear(inputs, tape.slot(node, "weight"), tape.slot(node, "bias"))
        case "stochastic_depth" | "dropout":
            forward, _ = _DROPPING[node.kind]
            return forward(inputs, tape.masks.get(node.path, ()), **_drop_knobs(node, tape))


def _gradients(node: Node, tape: ResNetTape, d_outputs: Array) -> tuple[Array, Arrays]:
    """Return the gradient of what the node read, and of its parameters by slot name."""
    inputs, conventions = tape.input_of(node), tape.spec.conventions
    offset = conventions.stride_offset
    match node.kind:
        case "conv":
            weight = tape.slot(node, "weight")
            d_inputs, d_weight, d_bias = layers.conv2d_backward(
                d_outputs, inputs, weight, stride=node.stride, padding=offset
            )
            return d_inputs, {"weight": d_weight, "bias": d_bias}
        case "bn":
            d_inputs, d_weight, d_bias = layers.batch_norm2d_backward(
                d_outputs,
                inputs,
                *(tape.slot(node, name) for name in ("weight", *_RUNNING)),
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
                kernel=STEM_POOL_KERNEL,
                stride=node.stride,
                padding=offset,
                fill=-np.inf,
                ceil_mode=False,
            )
            return d_inputs, {}
        case "average_pool":
            return layers.global_average_pool_backward(d_outputs, inputs), {}
        case "linear":
            d_inputs, d_weight, d_bias = layers.linear_backward(
                d_outputs, inputs, tape.slot(node, "weight")
            )
            return d_inputs, {"weight": d_weight, "bias": d_bias}
        case "stochastic_depth" | "dropout":
            _, backward = _DROPPING[node.kind]
            kept = tape.masks.get(node.path, ())
            return backward(d_outputs, kept, **_drop_knobs(node, tape)), {}


_DROPPING = {
    "stochastic_depth": (layers.stochastic_depth, layers.stochastic_depth_backward),
    "dropout": (layers.dropout, layers.dropout_backward),
}


def _drop_knobs(node: Node, tape: ResNetTape) -> dict[str, Any]:
    return {"rate": node.rate, "scale_at": "training", "training": tape.training}


def _require_fitting(
    spec: ResNetSpec, state: Arrays, images: Array, unmasked: Iterable[str]
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
        message = "resnet: " + " ".join(problems)
        raise SpecError(message)
