"""The pencil that families draw plans with: nodes, shapes and weights from one stream of a seed."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from parity.frameworks.pairs.plan import INPUT, Array, Node, Plan, Shape
from parity.rng import stream

Choice = TypeVar("Choice")

# Every value is a multiple of this, so that it is a float32, and so is a sum of two biases.
_GRAIN = 2.0**-14
# Kind -> words of how each side may write it; the first is the most common.
_STYLES: dict[str, dict[str, tuple[str, ...]]] = {
    "conv": {"torch": ("fused", "split"), "keras": ("layer", "fused")},
    "dense": {"torch": ("layer",), "keras": ("layer", "fused")},
    "activation": {"torch": ("layer", "functional"), "keras": ("layer", "functional")},
    "softmax": {"torch": ("layer", "functional"), "keras": ("layer", "functional")},
    "reduce": {"torch": ("layer", "functional"), "keras": ("layer", "functional")},
    "flatten": {"torch": ("layer", "functional"), "keras": ("layer",)},
    "concat": {"torch": ("functional",), "keras": ("layer", "functional")},
    "add": {"torch": ("functional",), "keras": ("layer", "functional")},
    "multiply": {"torch": ("functional",), "keras": ("layer", "functional")},
    "resize": {"torch": ("layer", "functional"), "keras": ("layer",)},
    "position": {"torch": ("parameter", "embedded"), "keras": ("layer", "embedded")},
    "attention": {"torch": ("module", "manual", "sdpa"), "keras": ("layer", "manual")},
}


class Drawing:
    """A plan in the making.

    Attributes:
        generator: Of every choice; weights have streams of their own.
    """

    def __init__(self, seed: int, family: str, *, input_shape: Shape, vocabulary: int = 0) -> None:
        self.generator = stream(seed, "pair", family)
        self._plan = Plan(
            seed=seed,
            family=family,
            input_shape=input_shape,
            vocabulary=vocabulary,
            forms={
                "torch": self.pick(("sequential", "forward")),
                "keras": self.pick(("functional", "sequential", "subclassed")),
            },
        )
        self._shapes: dict[str, Shape] = {INPUT: input_shape}
        self._group = ""
        self._group_count = 0

    def pick(self, choices: Sequence[Choice]) -> Choice:
        """Return one of the choices."""
        return choices[int(self.generator.integers(len(choices)))]

    def chance(self, probability: float) -> bool:
        """Return whether something of that probability happens."""
        return bool(self.generator.random() < probability)

    def shape(self, name: str) -> Shape:
        """Return the shape of a value, without the batch."""
        return self._shapes[name]

    def open_group(self) -> None:
        """Let the nodes from here on be a submodule."""
        self._group_count += 1
        self._group = f"group{self._group_count}"

    def close_group(self) -> None:
        """Let the nodes from here on be the model's own."""
        self._group = ""

    def add(
        self,
        kind: str,
        *inputs: str,
        weights: Mapping[str, Shape] | None = None,
        **settings: Any,  # noqa: ANN401  # a setting of any type
    ) -> str:
        """Add a node and return its name.

        Args:
            kind: Of the node.
            *inputs: Names of values.
            weights: Shapes by slot; values are drawn.
            **settings: All that the kind has.
        """
        name = f"{kind}{len(self._plan.nodes)}"
        styles = {side: self._style(words) for side, words in _STYLES.get(kind, {}).items()}
        if kind == "conv":
            styles["keras_padding"] = self.pick(("same", "split"))
        node = Node(
            name=name,
            kind=kind,
            inputs=inputs,
            settings=settings,
            group=self._group,
            styles=styles,
        )
        drawn = {
            f"{name}.{slot}": draw_weight(self._plan.seed, kind, f"{name}.{slot}", shape)
            for slot, shape in (weights or {}).items()
        }
        self._plan = dataclasses.replace(
            self._plan,
            nodes=(*self._plan.nodes, node),
            weights={**self._plan.weights, **drawn},
        )
        self._shapes = self._plan.shapes()
        return name

    def finish(self) -> Plan:
        """Return the plan."""
        return self._plan

    def _style(self, words: tuple[str, ...]) -> str:
        return words[0] if self.chance(0.5) else self.pick(words)

    def restyle(self, name: str, **styles: str) -> None:
        """Write a node in a given way."""
        node = self._plan.node(name)
        self._plan = self._plan.replace(dataclasses.replace(node, styles={**node.styles, **styles}))


def draw_weight(seed: int, kind: str, name: str, shape: Shape) -> Array:
    """Return an array of a plan: large enough that everything it does shows."""
    generator = stream(seed, "pair weights", name)
    slot = name.rpartition(".")[2]
    normal = generator.standard_normal(shape)
    if slot == "running_var":
        drawn = 0.5 + generator.random(shape)
    elif kind.endswith("_norm") and slot == "weight":
        drawn = 1.0 + 0.3 * normal
    elif "bias" in slot or slot == "running_mean":
        drawn = 0.3 * normal
    elif kind in ("embedding", "position"):
        drawn = normal
    else:
        fan_in = math.prod(shape[1:]) if kind != "conv_transpose" else shape[0] * 4
        drawn = normal * math.sqrt(1.5 / fan_in)
    return grained(drawn)


def grained(array: Array) -> Array:
    """Return an array rounded to multiples of 2^-14, which float32 holds up to 1024."""
    return np.round(array / _GRAIN) * _GRAIN
