"""Stock layers of Keras that are more than one operation of `parity.frameworks.kinds`.

Source: keras 3.15.1, `call` of each class.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras
import numpy as np

from parity.frameworks.keras_capture.calls import Layer, Tensor
from parity.frameworks.keras_capture.classes import stock_class

Function = Callable[[Tensor], Tensor]

SEPARABLE = {
    "SeparableConv1D": (keras.layers.DepthwiseConv1D, keras.layers.Conv1D),
    "SeparableConv2D": (keras.layers.DepthwiseConv2D, keras.layers.Conv2D),
}


@dataclass(frozen=True, kw_only=True)
class Half:
    """One of the two convolutions of a separable one, as a layer of its own.

    Attributes:
        layer: Built, with arrays like those of the separable one.
        ending: What its operation is called, behind the path of the separable one.
        names: Of its variables -> of those that they are copies of.
    """

    layer: Layer
    ending: str
    names: Mapping[str, str]


def as_functions(layer: Layer, symbol: Tensor) -> Function | None:
    """Return a function of `keras.ops` that does what a layer does, if that shows more of it.

    Args:
        layer: A stock one.
        symbol: What it is given.
    """
    find = _FUNCTIONS.get(stock_class(layer) or "")
    return None if find is None else find(layer, symbol)


def separable_halves(layer: Layer, shape: tuple[int | None, ...]) -> tuple[Half, ...]:
    """Return the convolutions of a separable one: of each channel, then of each place.

    Args:
        layer: A built `SeparableConv1D` or `SeparableConv2D`.
        shape: Of its input.
    """
    depthwise_class, pointwise_class = SEPARABLE[stock_class(layer) or ""]
    common = {"data_format": layer.data_format, "dtype": layer.dtype_policy}
    depthwise = depthwise_class(
        layer.kernel_size,
        strides=layer.strides,
        padding=layer.padding,
        depth_multiplier=layer.depth_multiplier,
        dilation_rate=layer.dilation_rate,
        use_bias=False,
        depthwise_initializer="zeros",
        name=f"{layer.name}_depthwise",
        **common,
    )
    pointwise = pointwise_class(
        layer.filters,
        1,
        use_bias=layer.use_bias,
        kernel_initializer="zeros",
        name=f"{layer.name}_pointwise",
        **common,
    )
    depthwise.build(shape)
    pointwise.build(depthwise.compute_output_shape(shape))
    bias = {"bias": "bias"} if layer.use_bias else {}
    halves = (
        Half(layer=depthwise, ending="/depthwise", names={"kernel": "depthwise_kernel"}),
        Half(layer=pointwise, ending="", names={"kernel": "pointwise_kernel", **bias}),
    )
    for half in halves:
        for own, source in half.names.items():
            _take_over(getattr(half.layer, own), getattr(layer, source))
    return halves


def _take_over(variable: Tensor, source: Tensor) -> None:
    variable.assign(keras.ops.convert_to_numpy(source.value))
    variable.trainable = source.trainable


def _rescaling(layer: Layer, symbol: Tensor) -> Function | None:
    del symbol
    scale, offset = layer.scale, layer.offset
    if not all(isinstance(number, int | float) for number in (scale, offset)) or offset == 0:
        return None

    def rescale(x: Tensor) -> Tensor:
        if x.dtype != layer.compute_dtype:
            x = keras.ops.cast(x, layer.compute_dtype)
        return (x if scale == 1 else x * float(scale)) + float(offset)

    return rescale


def _normalization(layer: Layer, symbol: Tensor) -> Function | None:
    """Return the two operations of given statistics; adapted ones are arrays of the layer."""
    if layer.input_mean is None or layer.invert or "float" not in str(symbol.dtype):
        return None
    dtype = layer.compute_dtype
    mean = np.asarray(keras.ops.convert_to_numpy(layer.mean), dtype)
    variance = np.asarray(keras.ops.convert_to_numpy(layer.variance), dtype)
    deviation = np.maximum(np.sqrt(variance), np.asarray(keras.config.epsilon(), dtype))
    return lambda x: (x - mean) / deviation


def _flatten(layer: Layer, symbol: Tensor) -> Function | None:
    """Return the two operations of an image whose channels come first."""
    rank = len(symbol.shape)
    if layer.data_format != "channels_first" or rank < 3:
        return None
    order = (0, *range(2, rank), 1)
    width = math.prod(symbol.shape[1:])
    return lambda x: keras.ops.reshape(keras.ops.transpose(x, order), (-1, width))


_FUNCTIONS: dict[str, Callable[[Layer, Tensor], Function | None]] = {
    "Flatten": _flatten,
    "Normalization": _normalization,
    "Rescaling": _rescaling,
}
