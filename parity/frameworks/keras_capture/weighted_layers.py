"""Stock layers of Keras that have weights, in the words of `parity.frameworks.kinds`.

Source of attributes and variables: keras 3.15.1, `__init__` and `build` of each class.
"""

from collections.abc import Mapping

import keras
from keras.src.backend.common import backend_utils

from conversion.layouts import LAYOUTS
from parity.frameworks.keras_capture import geometry
from parity.frameworks.keras_capture.calls import Attribute, Describe, Description, Layer
from parity.frameworks.keras_capture.classes import (
    BACKWARD,
    plain_name,
    stock_class,
    variable_names,
)
from parity.frameworks.keras_capture.geometry import Shape

SPATIAL = {1: "w", 2: "hw", 3: "dhw"}
RECURRENT = {"LSTM": "lstm", "GRU": "gru", "SimpleRNN": "rnn"}


def own_slots(name: str) -> dict[str, str]:
    """Return the slot of each variable of a class that `conversion.layouts` knows, else none."""
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
    slots = own_slots(name)
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
    attributes = {"units": inner.units, "layers": 1, "bidirectional": both, "batch_axis": 0}
    if kind == "gru":
        attributes["reset_after"] = bool(inner.reset_after)
    if kind == "rnn":
        attributes["activation"] = keras.activations.serialize(inner.activation)
    slots = {variable: _recurrent_slot(variable) for variable in variable_names(layer)}
    return Description(kind=kind, attributes=attributes, slots=slots)


def _recurrent_slot(variable: str) -> str:
    last = variable.rpartition("/")[2]
    return f"reverse.{last}" if variable.startswith(BACKWARD) else last


def _attention(layer: Layer, inputs: list[Shape], output: Shape) -> Description:
    del inputs, output
    heads = getattr(layer, "num_heads", None) or layer.num_query_heads
    names = variable_names(layer)
    return Description(
        kind="attention",
        attributes={"heads": int(heads)},
        slots={name: name.replace("/", ".") for name in names},
    )


WEIGHTED: dict[str, Describe] = {
    "BatchNormalization": _batch_norm,
    "Bidirectional": _recurrent,
    "Dense": _dense,
    "EinsumDense": _einsum_dense,
    "Embedding": _embedding,
    "GroupNormalization": _group_norm,
    "GroupedQueryAttention": _attention,
    "LayerNormalization": _layer_norm,
    "MultiHeadAttention": _attention,
    "PReLU": _prelu,
    "RMSNormalization": _layer_norm,
    **dict.fromkeys(RECURRENT, _recurrent),
    **{f"Conv{rank}D": _conv for rank in SPATIAL},
    **{f"DepthwiseConv{rank}D": _conv for rank in SPATIAL},
    **{f"Conv{rank}DTranspose": _conv_transpose for rank in SPATIAL},
}
