"""The protocol `Engine`: what a Keras backend does its own way, on NumPy arrays.

Masks are by layer name; each layer that drops something is given one in training mode.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from parity.frameworks.net import Array, Masks

# What a call returned, the gradients of some variables, and the values of others afterwards.
Pullback = tuple[list[Array], list[Array], list[Array]]

# Loss, logits, and gradients in the order of `model.trainable_variables`: none where not asked for.
Outcome = tuple[Array, Array, list[Array]]


class Engine(Protocol):
    """Differentiation and compiled steps of one model, loss and optimizer."""

    def forward(self, images: Array, masks: Masks, *, training: bool) -> Array:
        """Return logits; in training mode the non-trainable variables move."""

    def gradients(self, images: Array, targets: Array, masks: Masks) -> Outcome:
        """Run forward and backward in training mode."""

    def step(self, images: Array, targets: Array, masks: Masks, *, with_gradients: bool) -> Outcome:
        """Make one step at the optimizer's learning rate."""

    def apply_gradients(self, gradients: list[Array]) -> None:
        """Update the trainable variables from the given gradients."""

    def outputs(self, model: Any, images: Array, masks: Masks, *, training: bool) -> list[Array]:  # noqa: ANN401  # keras.Model
        """Return every output of a model that shares this engine's layers."""


@contextmanager
def masked(model: Any, masks: Mapping[str, Any]) -> Iterator[None]:  # noqa: ANN401  # keras.Model, tensors
    """Tell layers of a model what to keep while they are called, or traced."""
    layers = [model.get_layer(name) for name in masks]
    for layer, kept in zip(layers, masks.values(), strict=True):
        layer.kept = kept
    try:
        yield
    finally:
        for layer in layers:
            layer.kept = None
