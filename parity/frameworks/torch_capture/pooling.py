"""Readers of pooling and resampling over space."""

import functools

from torch import Tensor

from parity.frameworks.torch_capture.calls import Call
from parity.frameworks.torch_capture.described import Described, Reader, spread

_COUNTS = (1, 2, 3)


def _max_pool(call: Call, outputs: list[Tensor], *, count: int) -> Described:
    del outputs
    a = call.bind("input kernel_size stride padding dilation ceil_mode")
    attributes = {
        **_window(a.input, a.kernel_size, a.stride, a.padding, count=count),
        "dilation": spread(a.dilation or 1, count),
        "ceil": bool(a.ceil_mode),
    }
    return Described(kind="max_pool", operands=(a.input,), attributes=attributes)


def _avg_pool(call: Call, outputs: list[Tensor], *, count: int) -> Described | None:
    del outputs
    a = call.bind("input kernel_size stride padding ceil_mode count_include_pad divisor_override")
    if a.divisor_override is not None:
        return None
    attributes = {
        **_window(a.input, a.kernel_size, a.stride, a.padding, count=count),
        "ceil": bool(a.ceil_mode),
        "counts_padding": a.count_include_pad is None or a.count_include_pad,
    }
    return Described(kind="avg_pool", operands=(a.input,), attributes=attributes)


def _window(
    tensor: Tensor,
    size: int | tuple[int, ...],
    stride: int | tuple[int, ...] | None,
    padding: int | tuple[int, ...] | None,
    *,
    count: int,
) -> dict[str, object]:
    sizes = spread(size, count)
    return {
        "channel_axis": tensor.dim() - count - 1,
        "size": sizes,
        "stride": spread(stride, count) if stride else sizes,
        "padding": tuple((each, each) for each in spread(padding or 0, count)),
    }


def _adaptive_pool(call: Call, outputs: list[Tensor], *, count: int, kind: str) -> Described:
    a = call.bind("input output_size")
    size = tuple(outputs[0].shape[-count:])
    if set(size) == {1}:
        axes = tuple(range(a.input.dim() - count, a.input.dim()))
        reduction = {"avg": "mean", "max": "max"}[kind]
        return Described(
            kind=reduction, operands=(a.input,), attributes={"axes": axes, "keepdims": True}
        )
    return Described(
        kind=f"adaptive_{kind}_pool",
        operands=(a.input,),
        attributes={"channel_axis": a.input.dim() - count - 1, "output_size": size},
    )


def _resize(call: Call, outputs: list[Tensor]) -> Described | None:
    a = call.bind("input size scale_factor mode align_corners").__dict__
    if a.get("antialias"):
        return None
    return Described(
        kind="resize",
        operands=(a["input"],),
        attributes={
            "channel_axis": 1,
            "output_size": tuple(outputs[0].shape[2:]),
            "mode": a["mode"] or "nearest",
            "corners": bool(a["align_corners"]),
        },
    )


def _pixel_shuffle(call: Call, outputs: list[Tensor]) -> Described:
    del outputs
    a = call.bind("input upscale_factor")
    return Described(
        kind="pixel_shuffle",
        operands=(a.input,),
        attributes={"channel_axis": a.input.dim() - 3, "factor": a.upscale_factor},
    )


POOLING_READERS: dict[str, Reader] = {
    **{
        f"max_pool{count}d{ending}": functools.partial(_max_pool, count=count)
        for count in _COUNTS
        for ending in ("", "_with_indices")
    },
    **{f"avg_pool{count}d": functools.partial(_avg_pool, count=count) for count in _COUNTS},
    **{
        f"adaptive_{kind}_pool{count}d{ending}": functools.partial(
            _adaptive_pool, count=count, kind=kind
        )
        for kind in ("avg", "max")
        for count in _COUNTS
        for ending in ("", "_with_indices")
    },
    "interpolate": _resize,
    "pixel_shuffle": _pixel_shuffle,
}
