"""The layers that a Keras user writes of their own, and what a node is made of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from parity.frameworks.pairs.plan import Array, Plan
from parity.rng import stream

Tensor = Any  # of the backend, or a KerasTensor


@dataclass(frozen=True, kw_only=True)
class Part:
    """One layer, or function of tensors, of a node.

    Attributes:
        call: The layer or function.
        arrays: In the order of the layer's `weights`.
        invoke: How the layer is called, where not with its operands alone.
        is_main: Whether the node goes by this part's name.
    """

    call: Any
    arrays: tuple[Array, ...] = ()
    invoke: Callable[..., Any] | None = None
    is_main: bool = False

    def __call__(self, *tensors: Tensor) -> Tensor:
        """Return what the layer or function makes."""
        function = self.invoke or self.call
        return function(*tensors)


@dataclass(frozen=True, kw_only=True)
class Making:
    """What a builder of parts is told.

    Attributes:
        plan: That the node is in.
        name: Of its main layer; others carry a word behind it.
        fixed_dropout: Whether dropouts keep what the plan's seed says.
    """

    plan: Plan
    name: str
    fixed_dropout: bool


class FixedDropout(keras.layers.Layer):
    """A dropout that drops the same elements whenever it is called, in either framework."""

    def __init__(self, rate: float, *, seed: int, key: str, name: str) -> None:
        super().__init__(name=name)
        self.rate, self.seed, self.key = rate, seed, key

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:  # noqa: FBT001  # Keras's signature
        """Return `x / (1 - rate)` where the drawn number is at least the rate, in training."""
        if not training or x.shape[0] is None:
            return x
        drawn = stream(self.seed, "pair dropout", self.key).random(tuple(x.shape))
        kept = ops.convert_to_tensor(drawn >= self.rate)
        return ops.where(kept, x / (1.0 - self.rate), ops.zeros_like(x))


class FrozenBatchNormalization(keras.layers.BatchNormalization):
    """A batch norm that stays in evaluation mode."""

    def call(self, inputs: Tensor, training: bool | None = None, mask: Any = None) -> Tensor:  # noqa: ANN401, FBT001, ARG002  # Keras's signature
        """Normalize by the running statistics."""
        return super().call(inputs, training=False, mask=mask)


class Positions(keras.layers.Layer):
    """A learned vector for each position, added."""

    def __init__(self, length: int, width: int, **options: Any) -> None:  # noqa: ANN401  # Keras's own
        super().__init__(**options)
        self.length, self.width = length, width

    def build(self, shape: Any) -> None:  # noqa: ANN401  # Keras's signature
        """Make the table."""
        del shape
        self.table = self.add_weight(shape=(self.length, self.width), name="table")

    def call(self, x: Tensor) -> Tensor:
        """Return `x` plus the vectors of its positions."""
        return x + self.table[: x.shape[1]]

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` rebuilds it from."""
        return {**super().get_config(), "length": self.length, "width": self.width}


class EmbeddedPositions(keras.layers.Layer):
    """The same as an embedding of the numbers of the positions."""

    def __init__(self, length: int, width: int, **options: Any) -> None:  # noqa: ANN401  # Keras's own
        super().__init__(**options)
        self.length, self.width = length, width
        self.embedding = keras.layers.Embedding(
            length, width, dtype=self.dtype_policy, name="positions"
        )

    def build(self, shape: Any) -> None:  # noqa: ANN401  # Keras's signature
        """Make the table."""
        self.embedding.build(shape[:2])

    def call(self, x: Tensor) -> Tensor:
        """Return `x` plus the vectors of its positions."""
        return x + self.embedding(ops.arange(x.shape[1]))

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` rebuilds it from."""
        return {**super().get_config(), "length": self.length, "width": self.width}


class Bias(keras.layers.Layer):
    """A learned vector, added."""

    def build(self, shape: Any) -> None:  # noqa: ANN401  # Keras's signature
        """Make the vector."""
        self.bias = self.add_weight(shape=(shape[-1],), name="bias")

    def call(self, x: Tensor) -> Tensor:
        """Return `x + bias`."""
        return x + self.bias
