"""A plan: a function of one input as typed nodes with all their numbers, in no framework's terms.

Shapes and weights are PyTorch's, without the batch: images `c h w`, sequences `t c`, features `c`,
ids `t`. A plan is built twice, once by each side; what a side is free to write differently stands
in the node's styles and in the plan's forms. Imports numpy, `parity.errors` and `parity.spec` only.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from parity.errors import SpecError
from parity.spec.model_spec import ModelSpec

Array = NDArray[np.float64]
Shape = tuple[int, ...]
Pads = tuple[tuple[int, int], tuple[int, int]]
Side = Literal["torch", "keras"]

SIDES: tuple[Side, ...] = ("torch", "keras")
BATCH = 4
INPUT = "input"


@dataclass(frozen=True, kw_only=True)
class Node:
    """One layer or function of a plan.

    Attributes:
        name: Unique in its plan.
        kind: One of the kinds that `output_shape` knows.
        inputs: Names of other nodes, or `input`.
        settings: The numbers of its kind, all explicit.
        group: The submodule it belongs to; a group's nodes stand together and only the last one of
            them is used outside. Empty in the model's own body.
        styles: Side -> how it is written there; each side knows its own words.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    group: str = ""
    styles: Mapping[str, str] = field(default_factory=dict)

    def changed(self, **settings: Any) -> "Node":  # noqa: ANN401  # a setting of any type
        """Return this node with other settings."""
        return dataclasses.replace(self, settings={**self.settings, **settings})


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A model and its weights.

    Attributes:
        seed: That it was drawn with.
        family: Of `parity.testing.pairs`.
        nodes: In the order of their calls; the last one is the output. Empty for a twin.
        weights: `name.slot` -> array, PyTorch's slots; every value is a float32.
        input_shape: Without the batch.
        vocabulary: Number of ids; 0 for an input of floats.
        forms: Side -> how the model is put together there.
        spec: Of a twin of the project, whose layer paths are the names of the weights.
    """

    seed: int
    family: str
    nodes: tuple[Node, ...] = ()
    weights: Mapping[str, Array] = field(default_factory=dict)
    input_shape: Shape = ()
    vocabulary: int = 0
    forms: Mapping[str, str] = field(default_factory=dict)
    spec: ModelSpec | None = None

    def node(self, name: str) -> Node:
        """Return the node of a name."""
        return next(node for node in self.nodes if node.name == name)

    def consumers(self, name: str) -> tuple[Node, ...]:
        """Return the nodes that take a value."""
        return tuple(node for node in self.nodes if name in node.inputs)

    def slots(self, name: str) -> dict[str, Array]:
        """Return a node's arrays by slot."""
        prefix = f"{name}."
        found = self.weights.items()
        return {key.removeprefix(prefix): array for key, array in found if key.startswith(prefix)}

    def replace(self, node: Node) -> "Plan":
        """Return this plan with another node in the place of the one of its name."""
        nodes = tuple(node if old.name == node.name else old for old in self.nodes)
        return dataclasses.replace(self, nodes=nodes)

    def with_weights(self, weights: Mapping[str, Array]) -> "Plan":
        """Return this plan with other values of some weights."""
        return dataclasses.replace(self, weights={**self.weights, **weights})

    def shapes(self) -> dict[str, Shape]:
        """Return the shape of each value, the input's among them.

        Raises:
            SpecError: If a node cannot take what it is given.
        """
        shapes = {INPUT: self.input_shape}
        for node in self.nodes:
            given = [shapes[name] for name in node.inputs]
            shapes[node.name] = output_shape(node, given, weights=self.slots(node.name))
        return shapes

    def groups(self) -> tuple[tuple[Node, ...], ...]:
        """Return the nodes of each submodule together; those of the model's body one by one."""
        found: list[list[Node]] = []
        for node in self.nodes:
            if node.group and found and found[-1][0].group == node.group:
                found[-1].append(node)
            else:
                found.append([node])
        return tuple(tuple(nodes) for nodes in found)


@dataclass(frozen=True, kw_only=True)
class Built:
    """A framework's model of a plan.

    Attributes:
        model: An `nn.Module` or a `keras.Model`.
        paths: Node -> path of its layer, joined by dots; of a function of tensors the path of the
            layer whose body calls it, empty in the model's own, and a slash.
        slots: Of a torch model: name in its `state_dict` -> name in the plan's weights.
    """

    model: Any
    paths: Mapping[str, str]
    slots: Mapping[str, str] = field(default_factory=dict)


def is_chain(nodes: tuple[Node, ...]) -> bool:
    """Return whether each node takes the one before it and nothing else."""
    follows = all(later.inputs == (earlier.name,) for earlier, later in pairwise(nodes))
    return follows and len(nodes[0].inputs) == 1


def group_inputs(nodes: tuple[Node, ...]) -> tuple[str, ...]:
    """Return the values that a submodule takes, in the order it first needs them."""
    own = {node.name for node in nodes}
    return tuple(dict.fromkeys(name for node in nodes for name in node.inputs if name not in own))


def output_shape(node: Node, shapes: list[Shape], *, weights: Mapping[str, Array]) -> Shape:
    """Return the shape of what a node makes.

    Raises:
        SpecError: If its operands do not fit it or each other.
    """
    if node.kind in _ALIKE:
        _require_alike(node, shapes)
        return tuple(np.broadcast_shapes(*shapes))
    rule = _SHAPES.get(node.kind)
    if rule is None:
        message = f"{node.name}: kind {node.kind!r} not found."
        raise SpecError(message)
    shape = rule(node, shapes, weights)
    if min(shape, default=0) < 1:
        message = f"{node.name}: expected a window that fits; {shapes} becomes {shape}."
        raise SpecError(message)
    return shape


def same_pads(size: int, *, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Return what padding="same" amounts to along one axis: the odd one goes to the far side.

    Source: tensorflow 2.21.0, tf.nn.convolution, "SAME"; Keras has it on every backend.

    >>> same_pads(8, kernel=3, stride=2)
    (0, 1)
    """
    reach = dilation * (kernel - 1) + 1
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


# Kinds whose output has the shape of their operands, which may be broadcast to each other.
_ALIKE = (
    "batch_norm",
    "group_norm",
    "layer_norm",
    "activation",
    "softmax",
    "dropout",
    "add",
    "multiply",
    "position",
    "attention",
    "detach",
    "scale_gradient",
    "scale",
    "reverse_batch",
    "reverse_time",
)


def _require_alike(node: Node, shapes: list[Shape]) -> None:
    if len({len(shape) for shape in shapes}) > 1:
        message = f"{node.name}: expected operands of one rank; got {shapes}."
        raise SpecError(message)
    try:
        np.broadcast_shapes(*shapes)
    except ValueError as error:
        message = f"{node.name}: expected operands of one shape; got {shapes}."
        raise SpecError(message) from error


def _windows(node: Node, size: Shape) -> Shape:
    """Return how many windows fit along each axis."""
    settings = node.settings
    dilation = settings.get("dilation", 1)
    counts = []
    for length, kernel, pads in zip(size, settings["kernel"], settings["padding"], strict=True):
        room = length + sum(pads) - dilation * (kernel - 1) - 1
        count = room // settings["stride"] + 1
        if settings.get("ceil"):
            count = -(-room // settings["stride"]) + 1
            # torch 2.13.0, aten/src/ATen/native/Pool.h: the last window starts inside the image.
            count -= (count - 1) * settings["stride"] >= length + pads[0]
        counts.append(count)
    return tuple(counts)


def _conv(node: Node, shapes: list[Shape], weights: Mapping[str, Array]) -> Shape:
    outputs, inputs = weights["weight"].shape[:2]
    if shapes[0][0] != inputs * node.settings["groups"]:
        message = f"{node.name}: expected {inputs * node.settings['groups']} channels."
        raise SpecError(message)
    return (outputs, *_windows(node, shapes[0][1:]))


def _transposed(node: Node, shapes: list[Shape], weights: Mapping[str, Array]) -> Shape:
    settings = node.settings
    sides = zip(shapes[0][1:], settings["kernel"], settings["crop"], strict=True)
    size = ((n - 1) * settings["stride"] + kernel - sum(crop) for n, kernel, crop in sides)
    return (weights["weight"].shape[1], *size)


def _dense(node: Node, shapes: list[Shape], weights: Mapping[str, Array]) -> Shape:
    outputs, inputs = weights["weight"].shape
    if shapes[0][-1] != inputs or len(shapes[0]) > 2:
        message = f"{node.name}: expected {inputs} features last; got {shapes[0]}."
        raise SpecError(message)
    return (*shapes[0][:-1], outputs)


def _concat(node: Node, shapes: list[Shape], weights: Mapping[str, Array]) -> Shape:
    del weights
    axis = channel_axis(shapes[0])
    rest = {shape[:axis] + shape[axis + 1 :] for shape in shapes}
    if len(rest) > 1:
        message = f"{node.name}: expected operands of one size; got {shapes}."
        raise SpecError(message)
    joined = sum(shape[axis] for shape in shapes)
    return (*shapes[0][:axis], joined, *shapes[0][axis + 1 :])


def _recurrent(node: Node, shapes: list[Shape], weights: Mapping[str, Array]) -> Shape:
    del weights
    units = node.settings["units"] * (2 if node.settings["bidirectional"] else 1)
    return (shapes[0][0], units) if node.settings["take"] == "sequence" else (units,)


_SHAPES: dict[str, Any] = {
    "conv": _conv,
    "conv_transpose": _transposed,
    "max_pool": lambda node, shapes, _: (shapes[0][0], *_windows(node, shapes[0][1:])),
    "avg_pool": lambda node, shapes, _: (shapes[0][0], *_windows(node, shapes[0][1:])),
    "resize": lambda node, shapes, _: (
        shapes[0][0],
        *(node.settings["factor"] * n for n in shapes[0][1:]),
    ),
    # Over space, or over time; `keepdims` leaves ones.
    "reduce": lambda node, shapes, _: (
        (shapes[0][0], 1, 1)
        if node.settings.get("keepdims")
        else (shapes[0][0 if len(shapes[0]) == 3 else 1],)
    ),
    "take_step": lambda _, shapes, __: (shapes[0][1],),
    "flatten": lambda _, shapes, __: (math.prod(shapes[0]),),
    "dense": _dense,
    "embedding": lambda _, shapes, weights: (*shapes[0], weights["weight"].shape[1]),
    "concat": _concat,
    "lstm": _recurrent,
    "gru": _recurrent,
}


def channel_axis(shape: Shape) -> int:
    """Return the axis of channels of a shape without the batch, as PyTorch orders it."""
    return 0 if len(shape) == 3 else len(shape) - 1
