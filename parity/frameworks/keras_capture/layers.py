"""Stock layers of Keras in the words of `parity.frameworks.kinds`: one row a class.

A class that is not listed keeps its own name as its kind. Source of attributes and variables: keras
3.15.1, `__init__` and `build` of each class.
"""

import re
from collections.abc import Callable, Mapping

import keras
from keras.src.backend.common import backend_utils

from conversion.layouts import LAYOUTS
from parity.frameworks.keras_capture import geometry
from parity.frameworks.keras_capture.calls import Attribute, Description, Layer, Variable
from parity.frameworks.keras_capture.geometry import Shape

# A layer and the shapes of its operands and of its output -> what it computes.
Describe = Callable[[Layer, list[Shape], Shape], Description]

SPATIAL = {1: "w", 2: "hw", 3: "dhw"}
# Layers whose `activation` is applied to what they would return without one.
FUSED = (
    "Dense", "EinsumDense", "Conv1D", "Conv2D", "Conv3D", "Conv1DTranspose", "Conv2DTranspose",
    "Conv3DTranspose", "DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D",
)  # fmt: skip
# Layers that return what they are given.
PASSING = ("InputLayer", "Identity", "ActivityRegularization")
RECURRENT = {"LSTM": "lstm", "GRU": "gru", "SimpleRNN": "rnn"}


def stock_class(layer: Layer) -> str | None:
    """Return the name of the class of Keras's own that a layer is, or is derived from."""
    if isinstance(layer, keras.Model):
        return None
    for base in type(layer).__mro__:
        if base in (keras.Layer, keras.layers.Wrapper, keras.layers.Lambda):
            return None
        if base.__module__.startswith("keras."):
            return base.__name__
    return None


def native_name(layer: Layer) -> str:
    """Return the class of a layer with where it comes from."""
    kind = type(layer)
    where = "keras.layers" if kind.__module__.startswith("keras.") else kind.__module__
    return f"{where}.{kind.__name__}"


def describe_layer(layer: Layer, inputs: list[Shape], output: Shape) -> Description:
    """Return what a stock layer computes, its fused activation left out."""
    name = stock_class(layer) or type(layer).__name__
    describe = DESCRIPTIONS.get(name)
    if describe is None:
        return Description(kind=plain_name(name), slots=_own_slots(name))
    return describe(layer, inputs, output)


def plain_name(name: str) -> str:
    """Return the name of a class in small letters: `log_softmax` of `LogSoftmax`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", name).lower()


def _own_slots(name: str) -> dict[str, str]:
    return {variable: layout.slot for variable, layout in LAYOUTS.get(name, {}).items()}


def _weighted(
    name: str, kind: str, letters: Mapping[str, str], **attributes: Attribute
) -> Description:
    """Describe a layer whose variables are those of a row of `conversion.layouts.LAYOUTS`.

    Args:
        name: The row.
        kind: What it computes.
        letters: Axes by slot where they are not those of the row.
        attributes: What the kind is told.
    """
    slots = _own_slots(name)
    layouts = {layout.slot: layout.keras_axes for layout in LAYOUTS[name].values()}
    return Description(
        kind=kind, attributes=attributes, slots=slots, layouts={**layouts, **letters}
    )


def _conv(layer: Layer, inputs: list[Shape], output: Shape) -> Description:
    del output
    rank = layer.rank
    depthwise = hasattr(layer, "depth_multiplier")
    axis = geometry.channel_axis(layer.data_format, rank + 2)
    sizes = geometry.pick(inputs[0], geometry.spatial_axes(layer.data_format, rank + 2))
    stride, dilation = tuple(layer.strides), tuple(layer.dilation_rate)
    letters = SPATIAL[rank]
    return _weighted(
        "DepthwiseConv2D" if depthwise else "Conv2D",
        "conv",
        {"weight": f"{letters}{'cm' if depthwise else 'io'}"},
        channel_axis=axis,
        stride=stride,
        padding=geometry.explicit_padding(
            layer.padding, sizes, kernel=tuple(layer.kernel_size), stride=stride, dilation=dilation
        ),
        dilation=dilation,
        groups=inputs[0][axis] if depthwise else layer.groups,
    )


def _conv_transpose(layer: Layer, inputs: list[Shape], output: Shape) -> Description:
    del output
    rank = layer.rank
    axis = geometry.channel_axis(layer.data_format, rank + 2)
    sizes = geometry.pick(inputs[0], geometry.spatial_axes(layer.data_format, rank + 2))
    stride, dilation = tuple(layer.strides), tuple(layer.dilation_rate)
    # What jax pads an input with, of which the transposed convolution cuts the rest off.
    pads = backend_utils.compute_conv_transpose_padding_args_for_jax(
        (inputs[0][0], *sizes, inputs[0][axis]),
        (*layer.kernel_size, layer.filters, inputs[0][axis]),
        stride,
        layer.padding,
        layer.output_padding,
        dilation,
    )
    extents = [(k - 1) * d for k, d in zip(layer.kernel_size, dilation, strict=True)]
    cuts = [
        (extent - before, extent - after)
        for extent, (before, after) in zip(extents, pads, strict=True)
    ]
    return _weighted(
        "Conv2DTranspose",
        "conv_transpose",
        {"weight": f"{SPATIAL[rank]}oi"},
        channel_axis=axis,
        stride=stride,
        padding=tuple((before, max(after, 0)) for before, after in cuts),
        output_padding=tuple(max(-after, 0) for _, after in cuts),
        dilation=dilation,
        groups=1,
    )


def _dense(layer: Layer, inputs: list[Shape], output: Shape) -> Description:
    del layer, output
    return _weighted("Dense", "dense", {}, channel_axis=len(inputs[0]) - 1)


def _einsum_dense(layer: Layer, inputs: list[Shape], output: Shape) -> Description:
    del inputs, output
    slots = {"kernel": "weight", "bias": "bias"}
    kernel = layer.equation.partition(",")[2].partition("->")[0].strip()
    return Description(
        kind="einsum_dense",
        attributes={"equation": layer.equation},
        slots=slots,
        layouts={"weight": kernel},
    )


def _embedding(layer: Layer, inputs: list[Shape], output: Shape) -> Description:
    del layer, inputs, output
    return _weighted("Embedding", "embedding", {})


def _batch_norm(layer: Layer, inputs: list[Shape], output: Shape) -> Description:
    del output
    return _weighted(
        "BatchNormalization",
        "batch_norm",
        {},
        channel_axis=geometry.as_axes(layer.axis, len(inputs[0]))[0],
        epsilon=float(layer.epsilon),
        stats_decay=float(layer.momentum),
    )


def _layer_norm(layer: Layer, inputs: list[Shape], output: Shape) -> Description:
    del output
    axes = geometry.as_axes(layer.axis, len(inputs[0]))
    kind = "rms_norm" if "RMS" in (stock_class(layer) or "") else "layer_norm"
    name = {"rms_norm": "RMSNormalization", "layer_norm": "LayerNormalization"}[kind]
    letters = "c" if len(axes) == 1 else "abcdefg"[: len(axes)]
    by_slot = {layout.slot: letters for layout in LAYOUTS[name].values()}
    return _weighted(name, kind, by_slot, axes=axes, epsilon=float(layer.epsilon))


def _group_norm(layer: Layer, inputs: list[Shape], output: Shape) -> Description:
    del output
    axis = geometry.as_axes(layer.axis, len(inputs[0]))[0]
    groups = inputs[0][axis] if layer.groups == -1 else layer.groups
    return _weighted(
        "GroupNormalization",
        "group_norm",
        {},
        channel_axis=axis,
        groups=groups,
        epsilon=float(layer.epsilon),
    )


def _prelu(layer: Layer, inputs: list[Shape], output: Shape) -> Description:
    del output
    rank = len(inputs[0])
    apart = [axis for axis in range(1, rank) if axis not in (layer.shared_axes or ())]
    letters = "".join(
        "1" if axis not in apart else "c" if axis == apart[-1] else "abdefg"[axis - 1]
        for axis in range(1, rank)
    )
    axis = apart[-1] if apart else rank - 1
    return Description(
        kind="prelu",
        attributes={"channel_axis": axis},
        slots={"alpha": "weight"},
        layouts={"weight": letters},
    )


def _recurrent(layer: Layer, inputs: list[Shape], output: Shape) -> Description:
    del inputs, output
    both = isinstance(layer, keras.layers.Bidirectional)
    inner = layer.forward_layer if both else layer
    name = stock_class(inner) or ""
    kind = RECURRENT.get(name)
    if kind is None:
        return Description(kind=plain_name(stock_class(layer) or type(layer).__name__))
    attributes = {"units": inner.units, "layers": 1, "bidirectional": both}
    if kind == "gru":
        attributes["reset_after"] = bool(inner.reset_after)
    if kind == "rnn":
        attributes["activation"] = keras.activations.serialize(inner.activation)
    slots = {
        variable: _recurrent_slot(layer, variable, both=both) for variable in variable_names(layer)
    }
    return Description(kind=kind, attributes=attributes, slots=slots)


def _recurrent_slot(layer: Layer, variable: str, *, both: bool) -> str:
    last = variable.rpartition("/")[2]
    return f"reverse.{last}" if both and variable.startswith(layer.backward_layer.name) else last


def _attention(layer: Layer, inputs: list[Shape], output: Shape) -> Description:
    del inputs, output
    heads = getattr(layer, "num_heads", None) or layer.num_query_heads
    names = variable_names(layer)
    return Description(
        kind="attention",
        attributes={"heads": int(heads)},
        slots={name: name.replace("/", ".") for name in names},
    )


def variable_names(layer: Layer) -> list[str]:
    """Return the paths of a built layer's variables below it."""
    return [path_below(layer, variable) for variable in layer.weights]


def path_below(layer: Layer, variable: Variable) -> str:
    """Return a variable's path below its layer, such as `kernel` or `query/kernel`."""
    path: str = variable.path
    before, found, below = path.partition(f"{layer.name}/")
    while found and before and not before.endswith("/"):
        _, found, below = below.partition(f"{layer.name}/")
    return below if found else path.rpartition("/")[2]


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


def _resize(layer: Layer, inputs: list[Shape], output: Shape) -> Description:
    rank = len(inputs[0])
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


def _rows() -> dict[str, Describe]:
    rows: dict[str, Describe] = {
        "Dense": _dense,
        "EinsumDense": _einsum_dense,
        "Embedding": _embedding,
        "BatchNormalization": _batch_norm,
        "LayerNormalization": _layer_norm,
        "RMSNormalization": _layer_norm,
        "GroupNormalization": _group_norm,
        "PReLU": _prelu,
        "Bidirectional": _recurrent,
        "MultiHeadAttention": _attention,
        "GroupedQueryAttention": _attention,
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
    }
    words = {
        "Add": "add", "Subtract": "subtract", "Multiply": "multiply",
        "Maximum": "maximum", "Minimum": "minimum",
    }  # fmt: skip
    rows |= {name: _word(kind) for name, kind in words.items()}
    rows |= dict.fromkeys(RECURRENT, _recurrent)
    for rank in (1, 2, 3):
        rows |= {
            f"Conv{rank}D": _conv,
            f"DepthwiseConv{rank}D": _conv,
            f"Conv{rank}DTranspose": _conv_transpose,
            f"MaxPooling{rank}D": _pool("max_pool"),
            f"AveragePooling{rank}D": _pool("avg_pool"),
            f"AdaptiveAveragePooling{rank}D": _adaptive_pool("adaptive_avg_pool"),
            f"AdaptiveMaxPooling{rank}D": _adaptive_pool("adaptive_max_pool"),
            f"GlobalAveragePooling{rank}D": _global_pool("mean"),
            f"GlobalMaxPooling{rank}D": _global_pool("max"),
            f"ZeroPadding{rank}D": _zero_padding,
            f"Cropping{rank}D": _word("slice"),
            f"UpSampling{rank}D": _resize,
            f"SpatialDropout{rank}D": _dropout,
        }
    return rows


DESCRIPTIONS = _rows()
