"""What a stock layer of Keras computes, in the words of `parity.frameworks.kinds`.

A class that is not listed keeps its own name as its kind.
"""

from collections.abc import Callable

import keras

from parity.frameworks.keras_capture.calls import Description, Layer, Tensor
from parity.frameworks.keras_capture.classes import plain_name, stock_class
from parity.frameworks.keras_capture.geometry import Shape
from parity.frameworks.keras_capture.plain_layers import PLAIN
from parity.frameworks.keras_capture.weighted_layers import WEIGHTED, own_slots

# Layers whose `activation` is applied to what they would return without one.
FUSED = (
    "Dense", "EinsumDense", "Conv1D", "Conv2D", "Conv3D", "Conv1DTranspose", "Conv2DTranspose",
    "Conv3DTranspose", "DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D",
)  # fmt: skip
# Layers that return what they are given.
PASSING = ("InputLayer", "Identity", "ActivityRegularization")


def describe_layer(layer: Layer, inputs: list[Shape], output: Shape) -> Description:
    """Return what a stock layer computes, its fused activation left out."""
    name = stock_class(layer) or type(layer).__name__
    describe = (WEIGHTED | PLAIN).get(name)
    if describe is None:
        return Description(kind=plain_name(name), slots=own_slots(name))
    return describe(layer, inputs, output)


def is_linear(layer: Layer) -> bool:
    """Return whether a layer is an activation that returns what it is given."""
    return stock_class(layer) == "Activation" and layer.activation is keras.activations.linear


def fused_activation(layer: Layer) -> Callable[[Tensor], Tensor] | None:
    """Return the function that a layer applies last, if it does and is not the identity."""
    if stock_class(layer) not in FUSED:
        return None
    activation: Callable[[Tensor], Tensor] | None = layer.activation
    return None if activation is keras.activations.linear else activation


def draws(layer: Layer) -> bool:
    """Return whether a stock layer draws random numbers in training."""
    rates = ("rate", "stddev", "dropout", "recurrent_dropout")
    inner = [layer, *layer._flatten_layers(include_self=False)]
    return any(
        isinstance(rate := getattr(part, name, None), int | float) and rate > 0
        for part in inner
        for name in rates
    )
