"""Functions of `keras.ops` in the words of `parity.frameworks.kinds`: one row a class of operation.

A function that is not listed keeps its own name as its kind. Source of attributes: keras 3.15.1,
`__init__` of each class in ops and activations.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import EllipsisType

from keras.src import backend

from parity.frameworks.keras_capture import geometry
from parity.frameworks.keras_capture.calls import Description, Function, Nest, Tensor
from parity.frameworks.keras_capture.classes import plain_name
from parity.frameworks.keras_capture.geometry import Shape
from parity.frameworks.keras_capture.plain_layers import describe_pool, describe_relu

# An operation, its arguments by place and name, the shapes of its operands, and its first output's.
Describe = Callable[[Function, "Given"], Description]


@dataclass(frozen=True)
class Whole:
    """A function of one tensor that is not looked into."""

    call: Callable[[Tensor], Tensor]

    def compute_output_spec(self, symbol: Tensor) -> Tensor:
        """Return a symbol of what the function returns."""
        return backend.compute_output_spec(self.call, symbol)


class Given:
    """What a function is called with."""

    def __init__(
        self,
        arguments: Sequence[Nest],
        keywords: dict[str, Nest],
        *,
        inputs: list[Shape],
        output: Shape,
    ) -> None:
        self.arguments, self.keywords = list(arguments), keywords
        self.inputs, self.output = inputs, output

    @property
    def everything(self) -> list[Nest]:
        """All arguments in their order."""
        return [*self.arguments, *self.keywords.values()]


WORDS = {
    "Relu": "relu", "Relu6": "relu6", "Selu": "selu", "Silu": "silu", "Sigmoid": "sigmoid",
    "HardSigmoid": "hard_sigmoid", "HardSilu": "hard_silu", "Tanh": "tanh", "Mish": "mish",
    "Softplus": "softplus", "Softsign": "softsign", "LogSigmoid": "log_sigmoid",
    "Negative": "negative", "Absolute": "abs", "Abs": "abs", "Exp": "exp", "Log": "log",
    "Sqrt": "sqrt", "Rsqrt": "rsqrt", "Square": "square", "Sin": "sin", "Cos": "cos", "Erf": "erf",
    "Where": "where", "Matmul": "matmul",
    "DotProductAttention": "scaled_dot_product_attention",
}  # fmt: skip
BINARY = {
    "Add": "add", "Subtract": "subtract", "Multiply": "multiply", "Divide": "divide",
    "TrueDivide": "divide", "Power": "power", "Maximum": "maximum", "Minimum": "minimum",
}  # fmt: skip
REDUCTIONS = {
    "Mean": "mean", "Sum": "sum", "Max": "max", "Min": "min", "Prod": "prod", "Var": "var",
    "Std": "std", "Amax": "max", "Amin": "min",
}  # fmt: skip
RESHAPING = ("Reshape", "Squeeze", "ExpandDims", "Ravel")


def describe_function(operation: Function, given: Given) -> Description:
    """Return what a function of Keras's computes."""
    if isinstance(operation, Whole):
        return Description(kind="opaque")
    name = type(operation).__name__
    if name in WORDS:
        return Description(kind=WORDS[name])
    if name in BINARY:
        return _binary(BINARY[name], given)
    if name in REDUCTIONS:
        return _reduction(REDUCTIONS[name], operation, given)
    if name in RESHAPING:
        return Description(kind="reshape", attributes={"shape": given.output})
    describe = DESCRIPTIONS.get(name)
    return (
        describe(operation, given)
        if describe
        else Description(kind=plain_name(type(operation).__name__))
    )


def native_name(operation: Function) -> str:
    """Return what Keras, or the user, calls a function."""
    if isinstance(operation, Whole):
        function = operation.call
        return f"{function.__module__}.{getattr(function, '__qualname__', type(function).__name__)}"
    return f"keras.ops.{plain_name(type(operation).__name__)}"


def _binary(kind: str, given: Given) -> Description:
    numbers = [
        (place, argument)
        for place, argument in enumerate(given.everything)
        if isinstance(argument, int | float) and not isinstance(argument, bool)
    ]
    if not numbers:
        return Description(kind=kind)
    place, number = numbers[0]
    attributes = {"constant": float(number), "constant_first": place == 0}
    return Description(kind=kind, attributes=attributes)


def _reduction(kind: str, operation: Function, given: Given) -> Description:
    axes = geometry.as_axes(operation.axis, len(given.inputs[0]))
    return Description(kind=kind, attributes={"axes": axes, "keepdims": bool(operation.keepdims)})


def _one_axis(kind: str) -> Describe:
    def describe(operation: Function, given: Given) -> Description:
        if not isinstance(operation.axis, int):
            return Description(kind=plain_name(type(operation).__name__))
        axis = geometry.as_axes(operation.axis, len(given.output))[0]
        return Description(kind=kind, attributes={"axis": axis})

    return describe


def _number(kind: str, attribute: str, name: str) -> Describe:
    return lambda operation, _: Description(
        kind=kind, attributes={name: float(getattr(operation, attribute))}
    )


def _relu(operation: Function, given: Given) -> Description:
    del given
    return describe_relu(operation.negative_slope, operation.max_value, operation.threshold)


def _gelu(operation: Function, given: Given) -> Description:
    del given
    return Description(kind="gelu", attributes={"approximate": bool(operation.approximate)})


def _clip(operation: Function, given: Given) -> Description:
    del given
    bounds = [operation.x_min, operation.x_max]
    if not all(isinstance(bound, int | float) for bound in bounds):
        return Description(kind="clip_to_tensors")
    return Description(kind="clip", attributes={"low": float(bounds[0]), "high": float(bounds[1])})


def _cast(operation: Function, given: Given) -> Description:
    del given
    return Description(kind="cast", attributes={"dtype": str(operation.dtype)})


def _transpose(operation: Function, given: Given) -> Description:
    rank = len(given.output)
    axes = operation.axes or range(rank - 1, -1, -1)
    return Description(kind="permute", attributes={"order": tuple(axis % rank for axis in axes)})


def _swap_axes(operation: Function, given: Given) -> Description:
    rank = len(given.output)
    order = list(range(rank))
    one, other = operation.axis1 % rank, operation.axis2 % rank
    order[one], order[other] = order[other], order[one]
    return Description(kind="permute", attributes={"order": tuple(order)})


def _item(operation: Function, given: Given) -> Description:
    """Describe `x[index]`; an index of tensors is told by the values alone."""
    del operation
    index = given.everything[1]
    entries = tuple(index) if isinstance(index, list | tuple) else (index,)
    is_plain = all(one is None or isinstance(one, int | slice | EllipsisType) for one in entries)
    return Description(kind="slice", attributes={"index": entries} if is_plain else {})


def _slice(operation: Function, given: Given) -> Description:
    starts = given.everything[1]
    if not all(isinstance(start, int) for start in starts):
        return Description(kind="slice")
    index = tuple(
        slice(start, start + size) for start, size in zip(starts, operation.shape, strict=True)
    )
    return Description(kind="slice", attributes={"index": index})


def _hard_tanh(operation: Function, given: Given) -> Description:
    del operation, given
    return Description(kind="clip", attributes={"low": -1.0, "high": 1.0})


def _expand(operation: Function, given: Given) -> Description:
    del operation
    return Description(kind="expand", attributes={"shape": given.output})


def _flip(operation: Function, given: Given) -> Description:
    axes = geometry.as_axes(operation.axis, len(given.output))
    return Description(kind="flip", attributes={"axes": axes})


def _roll(operation: Function, given: Given) -> Description:
    if operation.axis is None:
        return Description(kind="roll_flat")
    axes = operation.axis if isinstance(operation.axis, list | tuple) else (operation.axis,)
    counted = tuple(axis % len(given.output) for axis in axes)
    shifts = geometry.as_tuple(operation.shift, len(counted))
    return Description(kind="roll", attributes={"shifts": shifts, "axes": counted})


def _split(operation: Function, given: Given) -> Description:
    axis = operation.axis % len(given.inputs[0])
    length = given.inputs[0][axis]
    parts = operation.indices_or_sections
    if isinstance(parts, int):
        sizes = (length // parts,) * parts
    else:
        edges = [0, *(int(edge) for edge in parts), length]
        sizes = tuple(after - before for before, after in itertools.pairwise(edges))
    return Description(kind="split", attributes={"axis": axis, "sizes": sizes})


def _pad(operation: Function, given: Given) -> Description:
    value = next((v for v in given.everything[1:] if isinstance(v, int | float)), 0.0)
    widths = [tuple(int(one) for one in both) for both in operation.pad_width]
    if len(widths) == 1:
        widths *= len(given.output)
    attributes = {"widths": tuple(widths), "mode": operation.mode, "value": float(value)}
    return Description(kind="pad", attributes=attributes)


def _einsum(operation: Function, given: Given) -> Description:
    del given
    return Description(kind="einsum", attributes={"equation": operation.subscripts})


def _pool(kind: str) -> Describe:
    def describe(operation: Function, given: Given) -> Description:
        shape = given.inputs[0]
        data_format = operation.data_format or "channels_last"
        sizes = geometry.pick(shape, geometry.spatial_axes(data_format, len(shape)))
        return describe_pool(kind, operation, sizes, data_format, len(shape))

    return describe


def _resize(operation: Function, given: Given) -> Description:
    special = (operation.antialias, operation.crop_to_aspect_ratio, operation.pad_to_aspect_ratio)
    rank = len(given.output)
    if any(special) or rank != 4:
        return Description(kind=plain_name(type(operation).__name__))
    attributes = {
        "channel_axis": geometry.channel_axis(operation.data_format, rank),
        "output_size": tuple(operation.size),
        "mode": operation.interpolation,
        "corners": False,
    }
    return Description(kind="resize", attributes=attributes)


DESCRIPTIONS: dict[str, Describe] = {
    "ReLU": _relu,
    "Gelu": _gelu,
    "LeakyRelu": _number("leaky_relu", "negative_slope", "slope"),
    "Elu": _number("elu", "alpha", "alpha"),
    "Celu": _number("celu", "alpha", "alpha"),
    "Glu": _one_axis("glu"),
    "Softmax": _one_axis("softmax"),
    "LogSoftmax": _one_axis("log_softmax"),
    "Concatenate": _one_axis("concat"),
    "Stack": _one_axis("stack"),
    "Clip": _clip,
    "GetItem": _item,
    "HardTanh": _hard_tanh,
    "Slice": _slice,
    "Cast": _cast,
    "ConvertToTensor": _cast,
    "Transpose": _transpose,
    "Swapaxes": _swap_axes,
    "BroadcastTo": _expand,
    "Flip": _flip,
    "Roll": _roll,
    "Split": _split,
    "Pad": _pad,
    "Einsum": _einsum,
    "MaxPool": _pool("max_pool"),
    "AveragePool": _pool("avg_pool"),
    "Resize": _resize,
}
