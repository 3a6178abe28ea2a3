"""Readers of what is computed element by element: activations, arithmetic, casts and dropout."""

import functools
from collections.abc import Callable, Mapping

from torch import Tensor

from parity.frameworks.torch_capture.calls import Call
from parity.frameworks.torch_capture.described import Described, Reader, axes_of

# Bare name -> kind, of functions of one tensor and nothing else.
_PLAIN = {
    "relu": "relu",
    "relu6": "relu6",
    "selu": "selu",
    "silu": "silu",
    "mish": "mish",
    "sigmoid": "sigmoid",
    "expit": "sigmoid",
    "hardsigmoid": "hard_sigmoid",
    "hardswish": "hard_silu",
    "tanh": "tanh",
    "softsign": "softsign",
    "logsigmoid": "log_sigmoid",
    "neg": "negative",
    "negative": "negative",
    "abs": "abs",
    "absolute": "abs",
    "exp": "exp",
    "log": "log",
    "sqrt": "sqrt",
    "rsqrt": "rsqrt",
    "square": "square",
    "sin": "sin",
    "cos": "cos",
    "erf": "erf",
}
# Bare name -> kind and the name and default of its one setting, second in the call.
_SET: dict[str, tuple[str, str, str, float]] = {
    "leaky_relu": ("leaky_relu", "slope", "negative_slope", 0.01),
    "elu": ("elu", "alpha", "alpha", 1.0),
    "celu": ("celu", "alpha", "alpha", 1.0),
}
# Bare name -> kind; an `r` in front turns the operands round, an `i` works in place.
_ARITHMETIC = {
    "add": "add",
    "sub": "subtract",
    "subtract": "subtract",
    "mul": "multiply",
    "multiply": "multiply",
    "div": "divide",
    "divide": "divide",
    "true_divide": "divide",
    "truediv": "divide",
    "pow": "power",
    "maximum": "maximum",
    "fmax": "maximum",
    "minimum": "minimum",
    "fmin": "minimum",
}
_TURNED = {f"r{name}": kind for name, kind in _ARITHMETIC.items()}
_IN_PLACE = {f"i{name}": kind for name, kind in _ARITHMETIC.items()}
_CAST = [
    "to",
    "float",
    "double",
    "half",
    "bfloat16",
    "type",
    "type_as",
    "int",
    "long",
    "short",
    "char",
    "byte",
    "bool",
]


def _plain(call: Call, outputs: list[Tensor], *, kind: str) -> Described | None:
    del outputs
    tensors = call.tensors
    return Described(kind=kind, operands=tuple(tensors)) if len(tensors) == 1 else None


def _set(
    call: Call, outputs: list[Tensor], *, kind: str, attribute: str, name: str, default: float
) -> Described:
    del outputs
    a = call.bind(f"input {name}")
    value = getattr(a, name)
    return Described(
        kind=kind,
        operands=(_first(call),),
        attributes={attribute: default if value is None else value},
    )


def _gelu(call: Call, outputs: list[Tensor]) -> Described:
    del outputs
    approximate = call.bind("input").__dict__.get("approximate") == "tanh"
    return Described(kind="gelu", operands=(_first(call),), attributes={"approximate": approximate})


def _softplus(call: Call, outputs: list[Tensor]) -> Described | None:
    del outputs
    a = call.bind("input beta threshold")
    return None if a.beta not in (None, 1) else Described(kind="softplus", operands=(a.input,))


def _softmax(call: Call, outputs: list[Tensor], *, kind: str) -> Described | None:
    del outputs
    a = call.bind("input dim")
    if a.dim is None:
        return None
    (axis,) = axes_of(_first(call), a.dim)
    return Described(kind=kind, operands=(_first(call),), attributes={"axis": axis})


def _glu(call: Call, outputs: list[Tensor]) -> Described:
    del outputs
    a = call.bind("input dim")
    (axis,) = axes_of(a.input, -1 if a.dim is None else a.dim)
    return Described(kind="glu", operands=(a.input,), attributes={"axis": axis})


def _dropout(call: Call, outputs: list[Tensor], *, spatial: int | None) -> Described:
    del outputs
    tensor = _first(call)
    rate = call.bind("input p").p
    shared = () if spatial is None else tuple(range(tensor.dim() - spatial, tensor.dim()))
    return Described(
        kind="dropout",
        operands=(tensor,),
        attributes={"rate": 0.5 if rate is None else rate, "shared_axes": shared},
    )


def _arithmetic(
    call: Call, outputs: list[Tensor], *, kind: str, is_turned: bool = False
) -> Described | None:
    del outputs
    a = call.bind("input other")
    settings = a.__dict__
    left = settings.get("self", a.input)
    other = settings.get("exponent", a.other)
    if settings.get("alpha", 1) != 1 or settings.get("rounding_mode") is not None:
        return None
    if is_turned:
        left, other = other, left
    if isinstance(left, Tensor) and isinstance(other, Tensor):
        return Described(kind=kind, operands=(left, other))
    tensor, constant = (left, other) if isinstance(left, Tensor) else (other, left)
    return Described(
        kind=kind,
        operands=(tensor,),
        attributes={"constant": constant, "constant_first": tensor is other},
    )


def _clip(call: Call, outputs: list[Tensor], *, names: str) -> Described | None:
    del outputs
    a = call.bind(f"input {names}").__dict__
    low = a.get("min_val", a.get("min"))
    high = a.get("max_val", a.get("max"))
    if call.name == "hardtanh":
        low, high = (-1.0 if low is None else low), (1.0 if high is None else high)
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        return None
    return Described(
        kind="clip",
        operands=(_first(call),),
        attributes={"low": _number(low), "high": _number(high)},
    )


def _number(bound: float | None) -> float | None:
    return None if bound is None else float(bound)


def _cast(call: Call, outputs: list[Tensor]) -> Described:
    dtype = str(outputs[0].dtype).removeprefix("torch.")
    return Described(kind="cast", operands=(_first(call),), attributes={"dtype": dtype})


def _where(call: Call, outputs: list[Tensor]) -> Described | None:
    del outputs
    tensors = tuple(call.tensors)
    return Described(kind="where", operands=tensors) if len(tensors) == 3 else None


def _first(call: Call) -> Tensor:
    return call.tensors[0]


def _each(
    reader: Callable[..., Described | None], kinds: Mapping[str, str], **settings: bool
) -> dict[str, Reader]:
    return {name: functools.partial(reader, kind=kind, **settings) for name, kind in kinds.items()}


ELEMENTWISE_READERS: dict[str, Reader] = {
    **_each(_plain, _PLAIN),
    **{
        name: functools.partial(_set, kind=kind, attribute=attribute, name=key, default=default)
        for name, (kind, attribute, key, default) in _SET.items()
    },
    **_each(_arithmetic, _ARITHMETIC),
    **_each(_arithmetic, _IN_PLACE),
    **_each(_arithmetic, _TURNED, is_turned=True),
    **_each(_softmax, {"softmax": "softmax", "log_softmax": "log_softmax"}),
    **dict.fromkeys(_CAST, _cast),
    "rdiv": functools.partial(_arithmetic, kind="divide", is_turned=True),
    "gelu": _gelu,
    "softplus": _softplus,
    "glu": _glu,
    "dropout": functools.partial(_dropout, spatial=None),
    "dropout1d": functools.partial(_dropout, spatial=1),
    "dropout2d": functools.partial(_dropout, spatial=2),
    "dropout3d": functools.partial(_dropout, spatial=3),
    "clamp": functools.partial(_clip, names="min max"),
    "clip": functools.partial(_clip, names="min max"),
    "clamp_min": functools.partial(_clip, names="min"),
    "clamp_max": functools.partial(_clip, names="max"),
    "hardtanh": functools.partial(_clip, names="min_val max_val"),
    "where": _where,
}
