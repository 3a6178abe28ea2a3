"""Readers of what moves, joins, cuts and reduces axes, and of products."""

import functools

import torch
from torch import Tensor

from parity.frameworks.torch_capture.calls import Call
from parity.frameworks.torch_capture.described import Described, Reader, axes_of, spread

_RESHAPES = [
    "reshape",
    "view",
    "flatten",
    "unflatten",
    "squeeze",
    "unsqueeze",
    "view_as",
    "reshape_as",
    "ravel",
]
_PERMUTES = [
    "permute",
    "transpose",
    "swapaxes",
    "swapdims",
    "movedim",
    "moveaxis",
    "t",
    "T",
    "mT",
    "adjoint",
]
# Modes of `pad` by NumPy's name.
_PAD_MODES = {
    "constant": "constant",
    "reflect": "reflect",
    "replicate": "edge",
    "circular": "wrap",
}
_REDUCTIONS = {
    "mean": "mean",
    "sum": "sum",
    "amax": "max",
    "amin": "min",
    "max": "max",
    "min": "min",
    "prod": "prod",
}


def _reshape(call: Call, outputs: list[Tensor]) -> Described | None:
    if call.name == "view" and any(isinstance(each, torch.dtype) for each in call.args):
        return None
    return Described(
        kind="reshape",
        operands=(call.tensors[0],),
        attributes={"shape": tuple(outputs[0].shape)},
    )


def _permute(call: Call, outputs: list[Tensor]) -> Described:
    del outputs
    tensor = call.tensors[0]
    # Lengths that tell the axes apart say where the call moves each of them.
    lengths = torch.empty(tuple(range(tensor.dim())), device="meta")
    moved = call.with_tensors(lambda t: lengths if t is tensor else t).run()
    return Described(kind="permute", operands=(tensor,), attributes={"order": tuple(moved.shape)})


def _concat(call: Call, outputs: list[Tensor], *, kind: str) -> Described:
    a = call.bind("tensors dim")
    dim = a.__dict__.get("axis", a.dim) or 0
    axis = dim % outputs[0].dim()
    return Described(kind=kind, operands=tuple(call.tensors), attributes={"axis": axis})


def _index(call: Call, outputs: list[Tensor]) -> Described | None:
    del outputs
    if len(call.tensors) != 1:
        return None
    index = call.args[1]
    return Described(
        kind="slice",
        operands=(call.tensors[0],),
        attributes={"index": index if isinstance(index, tuple) else (index,)},
    )


def _narrow(call: Call, outputs: list[Tensor]) -> Described | None:
    del outputs
    a = call.bind("input dim start length")
    if not isinstance(a.start, int):
        return None
    return _sliced(call, a.dim, slice(a.start, a.start + a.length))


def _select(call: Call, outputs: list[Tensor]) -> Described:
    del outputs
    a = call.bind("input dim index")
    return _sliced(call, a.dim, a.index)


def _sliced(call: Call, dim: int, index: object) -> Described:
    tensor = call.tensors[0]
    before = (slice(None),) * (dim % tensor.dim())
    return Described(kind="slice", operands=(tensor,), attributes={"index": (*before, index)})


def _split(call: Call, outputs: list[Tensor]) -> Described:
    tensor = call.tensors[0]
    a = call.bind("input dim" if call.name == "unbind" else "input sizes dim")
    (axis,) = axes_of(tensor, a.dim or 0)
    sizes = (
        (1,) * len(outputs)
        if call.name == "unbind"
        else tuple(int(output.shape[axis]) for output in outputs)
    )
    return Described(kind="split", operands=(tensor,), attributes={"axis": axis, "sizes": sizes})


def _pad(call: Call, outputs: list[Tensor]) -> Described:
    del outputs
    a = call.bind("input pad mode value")
    pairs = tuple(zip(a.pad[::2], a.pad[1::2], strict=True))
    rest = a.input.dim() - len(pairs)
    return Described(
        kind="pad",
        operands=(a.input,),
        attributes={
            "widths": (*((0, 0) for _ in range(rest)), *reversed(pairs)),
            "mode": _PAD_MODES[a.mode or "constant"],
            "value": float(a.value or 0.0),
        },
    )


def _expand(call: Call, outputs: list[Tensor]) -> Described:
    return Described(
        kind="expand",
        operands=(call.tensors[0],),
        attributes={"shape": tuple(outputs[0].shape)},
    )


def _flip(call: Call, outputs: list[Tensor]) -> Described:
    del outputs
    tensor = call.tensors[0]
    dims = call.kwargs.get("dims", call.args[1:])
    axes = dims[0] if len(dims) == 1 else dims
    return Described(kind="flip", operands=(tensor,), attributes={"axes": axes_of(tensor, axes)})


def _roll(call: Call, outputs: list[Tensor]) -> Described | None:
    del outputs
    a = call.bind("input shifts dims")
    if a.dims is None:
        return None
    tensor = call.tensors[0]
    dims = spread(a.dims, 1)
    axes = tuple(dim % tensor.dim() for dim in dims)
    return Described(
        kind="roll",
        operands=(tensor,),
        attributes={"shifts": spread(a.shifts, 1), "axes": axes},
    )


def _reduction(call: Call, outputs: list[Tensor], *, kind: str) -> Described | None:
    del outputs
    a = call.bind("input dim keepdim").__dict__
    dim = a.get("axis", a["dim"])
    if len(call.tensors) == 2:
        return Described(kind=f"{kind}imum", operands=tuple(call.tensors))
    tensor = call.tensors[0]
    attributes = {"axes": axes_of(tensor, dim), "keepdims": bool(a["keepdim"])}
    return Described(kind=kind, operands=(tensor,), attributes=attributes)


def _spread_of(call: Call, outputs: list[Tensor]) -> Described | None:
    """Read a variance or deviation; torch's own divide by one less than the count."""
    del outputs
    a = call.bind("input dim unbiased keepdim").__dict__
    tensor = call.tensors[0]
    if isinstance(a["dim"], bool):
        a |= {"dim": None, "unbiased": a["dim"]}
    correction = a.get("correction", 0 if a["unbiased"] is False else 1)
    if correction != 0:
        return None
    attributes = {"axes": axes_of(tensor, a["dim"]), "keepdims": bool(a["keepdim"])}
    return Described(kind=call.name, operands=(tensor,), attributes=attributes)


def _matmul(call: Call, outputs: list[Tensor], *, is_turned: bool = False) -> Described:
    del outputs
    tensors = tuple(call.tensors)
    return Described(kind="matmul", operands=tensors[::-1] if is_turned else tensors)


def _einsum(call: Call, outputs: list[Tensor]) -> Described | None:
    del outputs
    if not isinstance(call.args[0], str):
        return None
    return Described(
        kind="einsum",
        operands=tuple(call.tensors),
        attributes={"equation": call.args[0].replace(" ", "")},
    )


AXIS_READERS: dict[str, Reader] = {
    **dict.fromkeys(_RESHAPES, _reshape),
    **dict.fromkeys(_PERMUTES, _permute),
    **dict.fromkeys(("cat", "concat", "concatenate"), functools.partial(_concat, kind="concat")),
    **dict.fromkeys(("matmul", "mm", "bmm"), _matmul),
    **dict.fromkeys(("split", "chunk", "unbind", "tensor_split", "split_with_sizes"), _split),
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), _expand),
    **{name: functools.partial(_reduction, kind=kind) for name, kind in _REDUCTIONS.items()},
    "stack": functools.partial(_concat, kind="stack"),
    "getitem": _index,
    "narrow": _narrow,
    "select": _select,
    "pad": _pad,
    "flip": _flip,
    "roll": _roll,
    "var": _spread_of,
    "std": _spread_of,
    "rmatmul": functools.partial(_matmul, is_turned=True),
    "einsum": _einsum,
}
