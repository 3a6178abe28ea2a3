"""What a stock layer of Keras computes, in the words of `parity.frameworks.kinds`.

A class that is not listed keeps its own name as its kind.
"""

from parity.frameworks.keras_capture.calls import Description, Layer
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
