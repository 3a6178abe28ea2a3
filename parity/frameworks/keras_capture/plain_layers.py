"""Stock layers of Keras without weights, in the words of `parity.frameworks.kinds`.

Source of attributes: keras 3.15.1, `__init__` of each class.
"""

from parity.frameworks.keras_capture import geometry
from parity.frameworks.keras_capture.calls import Describe, Description, Layer
from parity.frameworks.keras_capture.classes import stock_class
from parity.frameworks.keras_capture.geometry import Shape


def _pool(kind: str) -> Describe:
    def describe(layer: Layer, inputs: list[Shape], output: Shape) -> Description:
        del output
        rank = len(inputs[0])
        sizes = geometry.pick(inputs[0], geometry.spatial_axes(layer.data_format, rank))
        return describe_pool(kind, layer, sizes, layer.data_format, rank)

    return describe


def describe_pool(
    kind: str,
    pool: Layer,
    sizes: Shape,
    data_format: str,
    rank: int,
) -> Description:
    """Return what a pooling layer or function computes; zeros before `same` ones do not count."""
    count = len(sizes)
    size = geometry.as_tuple(pool.pool_size, count)
    stride = size if pool.strides is None else geometry.as_tuple(pool.strides, count)
    ones = (1,) * count
    padding = geometry.explicit_padding(
        pool.padding, sizes, kernel=size, stride=stride, dilation=ones
    )
    own = {"dilation": ones} if kind == "max_pool" else {"counts_padding": False}
    attributes = {
        "channel_axis": geometry.channel_axis(data_format, rank),
        "size": size,
        "stride": stride,
        "padding": padding,
        "ceil": False,
        **own,
    }
    return Description(kind=kind, attributes=attributes)


def _adaptive_pool(kind: str) -> Describe:
    def describe(layer: Layer, inputs: list[Shape], output: Shape) -> Description:
        rank = len(inputs[0])
        sizes = geometry.pick(output, geometry.spatial_axes(layer.data_format, rank))
        axis = geometry.channel_axis(layer.data_format, rank)
        return Description(kind=kind, attributes={"channel_axis": axis, "output_size": sizes})

    return describe


def _global_pool(kind: str) -> Describe:
    def describe(layer: Layer, inputs: list[Shape], output: Shape) -> Description:
        del output
        if len(inputs) > 1:  # a mask leaves steps out
            return Description(kind=f"masked_{kind}")
        axes = geometry.spatial_axes(layer.data_format, len(inputs[0]))
        return Description(kind=kind, attributes={"axes": axes, "keepdims": bool(layer.keepdims)})

    return describe


def _zero_padding(layer: Layer, inputs: list[Shape], output: Shape) -> Description:
    del output
    rank = len(inputs[0])
    widths = [(0, 0)] * rank
    padding = [layer.padding] if rank == 3 else layer.padding
    spatial = geometry.spatial_axes(getattr(layer, "data_format", "channels_last"), rank)
    for axis, both in zip(spatial, padding, strict=True):
        widths[axis] = (int(both[0]), int(both[1]))
    return Description(
        kind="pad", attributes={"widths": tuple(widths), "mode": "constant", "value": 0.0}
    )


def _cropping(layer: Layer, inputs: list[Shape], output: Shape) -> Description:
    del output
    rank = len(inputs[0])
    index = [slice(None)] * rank
    cropping = [layer.cropping] if rank == 3 else layer.cropping
    spatial = geometry.spatial_axes(getattr(layer, "data_format", "channels_last"), rank)
    for axis, (before, after) in zip(spatial, cropping, strict=True):
        index[axis] = slice(int(before), -int(after) or None)
    return Description(kind="slice", attributes={"index": tuple(index)})


def _resize(layer: Layer, inputs: list[Shape], output: Shape) -> Description:
    rank = len(inputs[0])
    special = ("antialias", "crop_to_aspect_ratio", "pad_to_aspect_ratio")
    if any(getattr(layer, name, False) for name in special):
        return Description(kind="resizing")
    data_format = getattr(layer, "data_format", "channels_last")
    return Description(
        kind="resize",
        attributes={
            "channel_axis": geometry.channel_axis(data_format, rank),
            "output_size": geometry.pick(output, geometry.spatial_axes(data_format, rank)),
            "mode": getattr(layer, "interpolation", "nearest"),
            "corners": False,
        },
    )


def _dropout(layer: Layer, inputs: list[Shape], output: Shape) -> Description:
    del output
    rank = len(inputs[0])
    noise = getattr(layer, "noise_shape", None) or (None,) * rank
    if "Spatial" in (stock_class(layer) or ""):
        data_format = getattr(layer, "data_format", "channels_last")
        shared = geometry.spatial_axes(data_format, rank)
    else:
        sizes = zip(noise, inputs[0], strict=True)
        shared = tuple(axis for axis, (kept, size) in enumerate(sizes) if kept == 1 != size)
    return Description(
        kind="dropout", attributes={"rate": float(layer.rate), "shared_axes": shared}
    )


def _reshape(layer: Layer, inputs: list[Shape], output: Shape) -> Description:
    del layer, inputs
    return Description(kind="reshape", attributes={"shape": output})


def _permute(layer: Layer, inputs: list[Shape], output: Shape) -> Description:
    del inputs, output
    return Description(kind="permute", attributes={"order": (0, *layer.dims)})


def _concat(layer: Layer, inputs: list[Shape], output: Shape) -> Description:
    del inputs
    return Description(
        kind="concat", attributes={"axis": geometry.as_axes(layer.axis, len(output))[0]}
    )


def _rescaling(layer: Layer, inputs: list[Shape], output: Shape) -> Description:
    del inputs, output
    if isinstance(layer.scale, int | float) and layer.offset == 0:
        return Description(
            kind="multiply",
            attributes={"constant": float(layer.scale), "constant_first": False},
        )
    return Description(kind="rescaling")


def _relu(layer: Layer, inputs: list[Shape], output: Shape) -> Description:
    del inputs, output
    return describe_relu(layer.negative_slope, layer.max_value, layer.threshold)


def describe_relu(
    negative_slope: float | None, max_value: float | None, threshold: float | None
) -> Description:
    """Return what Keras's ReLU of three numbers is."""
    if threshold:
        return Description(kind="thresholded_relu")
    if not negative_slope:
        if max_value is None:
            return Description(kind="relu")
        if max_value == 6:
            return Description(kind="relu6")
        return Description(kind="clip", attributes={"low": 0.0, "high": float(max_value)})
    if max_value is None:
        return Description(kind="leaky_relu", attributes={"slope": float(negative_slope)})
    return Description(kind="capped_leaky_relu")


def _leaky_relu(layer: Layer, inputs: list[Shape], output: Shape) -> Description:
    del inputs, output
    return Description(kind="leaky_relu", attributes={"slope": float(layer.negative_slope)})


def _elu(layer: Layer, inputs: list[Shape], output: Shape) -> Description:
    del inputs, output
    return Description(kind="elu", attributes={"alpha": float(layer.alpha)})


def _softmax(layer: Layer, inputs: list[Shape], output: Shape) -> Description:
    if len(inputs) > 1 or isinstance(layer.axis, list | tuple):
        return Description(kind="masked_softmax" if len(inputs) > 1 else "softmax_of_axes")
    return Description(
        kind="softmax", attributes={"axis": geometry.as_axes(layer.axis, len(output))[0]}
    )


def _word(kind: str) -> Describe:
    return lambda _layer, _inputs, _output: Description(kind=kind)


PLAIN: dict[str, Describe] = {
    "Dropout": _dropout,
    "Flatten": _reshape,
    "Reshape": _reshape,
    "Permute": _permute,
    "Concatenate": _concat,
    "Rescaling": _rescaling,
    "Resizing": _resize,
    "ReLU": _relu,
    "LeakyReLU": _leaky_relu,
    "ELU": _elu,
    "Softmax": _softmax,
    "Add": _word("add"),
    "Subtract": _word("subtract"),
    "Multiply": _word("multiply"),
    "Maximum": _word("maximum"),
    "Minimum": _word("minimum"),
}
for _rank in (1, 2, 3):
    PLAIN |= {
        f"MaxPooling{_rank}D": _pool("max_pool"),
        f"AveragePooling{_rank}D": _pool("avg_pool"),
        f"AdaptiveAveragePooling{_rank}D": _adaptive_pool("adaptive_avg_pool"),
        f"AdaptiveMaxPooling{_rank}D": _adaptive_pool("adaptive_max_pool"),
        f"GlobalAveragePooling{_rank}D": _global_pool("mean"),
        f"GlobalMaxPooling{_rank}D": _global_pool("max"),
        f"ZeroPadding{_rank}D": _zero_padding,
        f"Cropping{_rank}D": _cropping,
        f"UpSampling{_rank}D": _resize,
        f"SpatialDropout{_rank}D": _dropout,
    }
