"""Every kind of node as torch writes it: modules and functions, one after the other.

A part names its arrays as the module's own `state_dict` does.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # the name PyTorch's own documentation uses

from parity.frameworks.pairs.plan import Array, Node, Plan
from parity.frameworks.pairs.torch_modules import (
    EmbeddedPositions,
    FixedDropout,
    FrozenBatchNorm1d,
    FrozenBatchNorm2d,
    Positions,
    Shift,
)
from parity.frameworks.pairs.torch_recurrent import Attention, PickedRecurrent


@dataclass(frozen=True, kw_only=True)
class Part:
    """One module, or function of tensors, of a node.

    Attributes:
        call: The module or function.
        slots: Name of each of the module's arrays -> slot of the node that it holds.
        word: Kind that names the attribute, where it is not the node's.
        is_main: Whether the node goes by this part's name.
    """

    call: Callable[..., Any]
    slots: Mapping[str, str] = field(default_factory=dict)
    word: str = ""
    is_main: bool = False


class Builder(Protocol):
    """What makes the parts of a node."""

    def __call__(self, node: Node, plan: Plan, *, fixed_dropout: bool) -> list[Part]:
        """Return the parts in the order of their calls."""


def _same(slots: Mapping[str, Array]) -> dict[str, str]:
    return {slot: slot for slot in slots}


def _conv(node: Node, plan: Plan, *, fixed_dropout: bool) -> list[Part]:
    del fixed_dropout
    slots, settings = plan.slots(node.name), node.settings
    (top, bottom), (left, right) = settings["padding"]
    mode = settings.get("pad_mode", "zeros")
    is_fused = (top, left) == (bottom, right) and node.styles.get("torch") != "split"
    outputs, inputs = slots["weight"].shape[:2]
    conv = nn.Conv2d(
        inputs * settings["groups"],
        outputs,
        settings["kernel"],
        stride=settings["stride"],
        padding=(top, left) if is_fused else 0,
        padding_mode=mode if is_fused else "zeros",
        dilation=settings["dilation"],
        groups=settings["groups"],
        bias="bias" in slots,
    )
    main = Part(call=conv, slots=_same(slots), is_main=True)
    if is_fused:
        return [main]
    pads = (left, right, top, bottom)
    padding = nn.ZeroPad2d(pads) if mode == "zeros" else nn.ReflectionPad2d(pads)
    return [Part(call=padding, word="pad"), main]


def _conv_transpose(node: Node, plan: Plan, *, fixed_dropout: bool) -> list[Part]:
    """Crop by `padding` where both sides lose alike, else lose what is left by a slice."""
    del fixed_dropout
    slots, settings = plan.slots(node.name), node.settings
    (top, bottom), (left, right) = settings["crop"]
    stride = settings["stride"]
    can_fuse = all(0 <= near - far < stride for near, far in settings["crop"])
    conv = nn.ConvTranspose2d(
        *slots["weight"].shape[:2],
        settings["kernel"],
        stride=stride,
        padding=(top, left) if can_fuse else 0,
        output_padding=(top - bottom, left - right) if can_fuse else 0,
        bias="bias" in slots,
    )
    main = Part(call=conv, slots=_same(slots), is_main=True)
    if can_fuse:
        return [main]

    def crop(x: Tensor) -> Tensor:
        return x[:, :, top : x.shape[2] - bottom, left : x.shape[3] - right]

    return [main, Part(call=crop)]


def _dense(node: Node, plan: Plan, *, fixed_dropout: bool) -> list[Part]:
    del fixed_dropout
    slots = plan.slots(node.name)
    outputs, inputs = slots["weight"].shape
    linear = nn.Linear(inputs, outputs, bias="bias" in slots)
    return [Part(call=linear, slots=_same(slots), is_main=True)]


def _batch_norm(node: Node, plan: Plan, *, fixed_dropout: bool) -> list[Part]:
    del fixed_dropout
    slots, settings = plan.slots(node.name), node.settings
    is_image = len(plan.shapes()[node.inputs[0]]) == 3
    classes: dict[tuple[bool, bool], type[nn.Module]] = {
        (True, False): nn.BatchNorm2d,
        (False, False): nn.BatchNorm1d,
        (True, True): FrozenBatchNorm2d,
        (False, True): FrozenBatchNorm1d,
    }
    norm = classes[is_image, bool(settings.get("frozen"))](
        len(slots["weight"]), eps=settings["epsilon"], momentum=1.0 - settings["stats_decay"]
    )
    return [Part(call=norm, slots=_same(slots), is_main=True)]


def _layer_norm(node: Node, plan: Plan, *, fixed_dropout: bool) -> list[Part]:
    del fixed_dropout
    slots, epsilon = plan.slots(node.name), node.settings["epsilon"]
    width = len(slots["weight"])
    if not node.settings.get("uncentred"):
        norm = nn.LayerNorm(width, eps=epsilon)
        return [Part(call=norm, slots=_same(slots), is_main=True)]
    scale, shift = nn.RMSNorm(width, eps=epsilon), Shift(width)
    return [
        Part(call=scale, slots={"weight": "weight"}, is_main=True),
        Part(call=shift, slots={"bias": "bias"}, word="shift"),
    ]


def _group_norm(node: Node, plan: Plan, *, fixed_dropout: bool) -> list[Part]:
    del fixed_dropout
    slots, settings = plan.slots(node.name), node.settings
    norm = nn.GroupNorm(settings["groups"], len(slots["weight"]), eps=settings["epsilon"])
    return [Part(call=norm, slots=_same(slots), is_main=True)]


def _embedding(node: Node, plan: Plan, *, fixed_dropout: bool) -> list[Part]:
    del fixed_dropout
    slots = plan.slots(node.name)
    return [Part(call=nn.Embedding(*slots["weight"].shape), slots=_same(slots), is_main=True)]


def _position(node: Node, plan: Plan, *, fixed_dropout: bool) -> list[Part]:
    del fixed_dropout
    weight = plan.slots(node.name)["weight"]
    if node.styles.get("torch") == "embedded":
        table = EmbeddedPositions(*weight.shape)
        return [Part(call=table, slots={"table.weight": "weight"}, is_main=True)]
    return [Part(call=Positions(*weight.shape), slots={"weight": "weight"}, is_main=True)]


# Name -> module and function; parameters are read from the settings.
ACTIVATIONS: dict[str, Callable[[Mapping[str, Any]], tuple[nn.Module, Callable[..., Tensor]]]] = {
    "relu": lambda _: (nn.ReLU(), F.relu),
    "relu6": lambda _: (nn.ReLU6(), F.relu6),
    "leaky_relu": lambda s: (nn.LeakyReLU(s["slope"]), lambda x: F.leaky_relu(x, s["slope"])),
    "elu": lambda s: (nn.ELU(s["alpha"]), lambda x: F.elu(x, s["alpha"])),
    "gelu": lambda s: (
        nn.GELU(approximate="tanh" if s["approximate"] else "none"),
        lambda x: F.gelu(x, approximate="tanh" if s["approximate"] else "none"),
    ),
    "silu": lambda _: (nn.SiLU(), F.silu),
    "hard_silu": lambda _: (nn.Hardswish(), F.hardswish),
    "tanh": lambda _: (nn.Tanh(), torch.tanh),
    "sigmoid": lambda _: (nn.Sigmoid(), torch.sigmoid),
    "hard_sigmoid": lambda _: (nn.Hardsigmoid(), F.hardsigmoid),
    "softplus": lambda _: (nn.Softplus(), F.softplus),
    "identity": lambda _: (nn.Identity(), lambda x: x),
}


def _activation(node: Node, plan: Plan, *, fixed_dropout: bool) -> list[Part]:
    del plan, fixed_dropout
    module, function = ACTIVATIONS[node.settings["function"]](node.settings)
    if node.styles.get("torch") == "functional":
        return [Part(call=function)]
    return [Part(call=module, is_main=True)]


def _softmax(node: Node, plan: Plan, *, fixed_dropout: bool) -> list[Part]:
    """Over the last axis, or over the batch by a fault."""
    del plan, fixed_dropout
    axis = node.settings["axis"]
    if node.styles.get("torch") == "functional":
        return [Part(call=lambda x: F.softmax(x, dim=axis))]
    return [Part(call=nn.Softmax(dim=axis), is_main=True)]


def _dropout(node: Node, plan: Plan, *, fixed_dropout: bool) -> list[Part]:
    rate = node.settings["rate"]
    fixed = FixedDropout(rate, seed=plan.seed, name=node.name) if fixed_dropout else None
    return [Part(call=fixed or nn.Dropout(rate), is_main=True)]


def _pool(node: Node, plan: Plan, *, fixed_dropout: bool) -> list[Part]:
    del plan, fixed_dropout
    settings = node.settings
    (top, bottom), (left, right) = settings["padding"]
    is_max = node.kind == "max_pool"
    fill = settings.get("fill", "lowest" if is_max else "zeros")
    is_even = (top, left) == (bottom, right)
    is_fused = is_even and fill == ("lowest" if is_max else "zeros")
    options: dict[str, Any] = {
        "stride": settings["stride"],
        "padding": (top, left) if is_fused else 0,
        "ceil_mode": bool(settings.get("ceil")),
    }
    kernel = settings["kernel"]
    if is_max:
        pool: nn.Module = nn.MaxPool2d(kernel, **options)
    else:
        pool = nn.AvgPool2d(kernel, count_include_pad=settings["counts_padding"], **options)
    main = Part(call=pool, is_main=True)
    if is_fused:
        return [main]
    value = -torch.inf if fill == "lowest" else 0.0

    def pad(x: Tensor) -> Tensor:
        return F.pad(x, (left, right, top, bottom), value=value)

    return [Part(call=pad), main]


def _reduce(node: Node, plan: Plan, *, fixed_dropout: bool) -> list[Part]:
    del fixed_dropout
    is_max, keepdims = node.settings["function"] == "max", bool(node.settings.get("keepdims"))
    is_image = len(plan.shapes()[node.inputs[0]]) == 3
    if not is_image:
        return [Part(call=lambda x: x.amax(1) if is_max else x.mean(1))]
    if node.styles.get("torch") == "functional":
        reduce = torch.amax if is_max else torch.mean
        return [Part(call=lambda x: reduce(x, (2, 3), keepdim=keepdims))]
    pool = nn.AdaptiveMaxPool2d(1) if is_max else nn.AdaptiveAvgPool2d(1)
    parts = [Part(call=pool, word="pool", is_main=True)]
    return parts if keepdims else [*parts, Part(call=nn.Flatten(), word="flatten")]


def _flatten(node: Node, plan: Plan, *, fixed_dropout: bool) -> list[Part]:
    del plan, fixed_dropout
    if node.settings["order"] == "nhwc":
        return [Part(call=lambda x: x.permute(0, 2, 3, 1).flatten(1))]
    if node.styles.get("torch") == "functional":
        return [Part(call=lambda x: torch.flatten(x, 1))]
    return [Part(call=nn.Flatten(), is_main=True)]


def _concat(node: Node, plan: Plan, *, fixed_dropout: bool) -> list[Part]:
    del fixed_dropout
    axis = 1 if len(plan.shapes()[node.inputs[0]]) == 3 else -1
    return [Part(call=lambda *xs: torch.cat(xs, dim=axis))]


def _resize(node: Node, plan: Plan, *, fixed_dropout: bool) -> list[Part]:
    del plan, fixed_dropout
    mode, factor = node.settings["mode"], node.settings["factor"]
    if node.styles.get("torch") == "functional":
        return [Part(call=lambda x: F.interpolate(x, scale_factor=factor, mode=mode))]
    return [Part(call=nn.Upsample(scale_factor=factor, mode=mode), word="up", is_main=True)]


def _recurrent(node: Node, plan: Plan, *, fixed_dropout: bool) -> list[Part]:
    del fixed_dropout
    width = plan.shapes()[node.inputs[0]][-1]
    layer = PickedRecurrent(node.kind, width, node.settings)
    slots = {f"layer.{slot}": slot for slot in plan.slots(node.name)}
    return [Part(call=layer, slots=slots, is_main=True)]


def _attention(node: Node, plan: Plan, *, fixed_dropout: bool) -> list[Part]:
    del fixed_dropout
    slots = plan.slots(node.name)
    layer = Attention(slots["out_proj.weight"].shape[0], node.settings, node.styles.get("torch"))
    return [Part(call=layer, slots=layer.slots(), is_main=True)]


def _function(call: Callable[..., Any]) -> Builder:
    def build(node: Node, plan: Plan, *, fixed_dropout: bool) -> list[Part]:
        del node, plan, fixed_dropout
        return [Part(call=call)]

    return build


def _scale_gradient(node: Node, plan: Plan, *, fixed_dropout: bool) -> list[Part]:
    del plan, fixed_dropout
    factor = node.settings["factor"]
    return [Part(call=lambda x: x * factor + (x * (1.0 - factor)).detach())]


def _scale(node: Node, plan: Plan, *, fixed_dropout: bool) -> list[Part]:
    del plan, fixed_dropout
    factor = node.settings["factor"]
    return [Part(call=lambda x: x * factor)]


def _take_step(node: Node, plan: Plan, *, fixed_dropout: bool) -> list[Part]:
    del plan, fixed_dropout
    index = node.settings["index"]
    return [Part(call=lambda x: x[:, index])]


PARTS: dict[str, Builder] = {
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "dense": _dense,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "embedding": _embedding,
    "position": _position,
    "activation": _activation,
    "softmax": _softmax,
    "dropout": _dropout,
    "max_pool": _pool,
    "avg_pool": _pool,
    "reduce": _reduce,
    "take_step": _take_step,
    "flatten": _flatten,
    "concat": _concat,
    "resize": _resize,
    "lstm": _recurrent,
    "gru": _recurrent,
    "attention": _attention,
    "add": _function(lambda left, right: left + right),
    "multiply": _function(lambda left, right: left * right),
    "detach": _function(lambda x: x.detach()),
    "scale_gradient": _scale_gradient,
    "scale": _scale,
    "reverse_batch": _function(lambda x: x.flip(0)),
    "reverse_time": _function(lambda x: x.flip(1)),
}
