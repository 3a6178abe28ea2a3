"""Random convolutional networks: images up to 18 pixels a side, 16 channels."""

from collections.abc import Callable
from typing import Any

from parity.frameworks.pairs.plan import INPUT, Pads, Plan, Shape, same_pads
from parity.rng import stream
from parity.testing.pairs.drawing import Drawing
from parity.testing.pairs.layers import activation, batch_norm, dense, maybe_softmax


def conv(
    draw: Drawing,
    x: str,
    channels: int,
    *,
    kernel: tuple[int, int] = (3, 3),
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    padding: Pads | None = None,
    use_bias: bool | None = None,
) -> str:
    """Add a convolution; padding keeps the size, at stride 1, where none is given."""
    if padding is None:
        height, width = (
            same_pads(dilation * (side - 1) + 1, kernel=side, stride=1, dilation=dilation)
            for side in kernel
        )
        padding = (height, width)
    weights: dict[str, Shape] = {"weight": (channels, draw.shape(x)[0] // groups, *kernel)}
    if draw.chance(0.6) if use_bias is None else use_bias:
        weights["bias"] = (channels,)
    return draw.add(
        "conv",
        x,
        weights=weights,
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        groups=groups,
        padding=padding,
    )


def norm(draw: Drawing, x: str) -> str:
    """Add a norm that suits images, or none."""
    channels = draw.shape(x)[0]
    if draw.chance(0.6):
        return batch_norm(draw, x)
    if channels % 4 == 0 and draw.chance(0.7):
        weights = {"weight": (channels,), "bias": (channels,)}
        return draw.add("group_norm", x, weights=weights, groups=draw.pick((2, 4)), epsilon=1e-5)
    return x


def _strided(draw: Drawing, x: str) -> str:
    pads = draw.pick((((1, 1), (1, 1)), ((0, 1), (0, 1)), ((1, 2), (1, 2))))
    kernel = (4, 4) if pads == ((1, 2), (1, 2)) else (3, 3)
    return conv(draw, x, draw.pick((6, 8, 12)), kernel=kernel, stride=2, padding=pads)


def _plain_conv(draw: Drawing, x: str) -> str:
    kernel = draw.pick(((3, 3), (3, 3), (2, 2), (1, 1), (3, 2), (4, 4), (5, 3)))
    x = conv(draw, x, draw.pick((6, 8, 12)), kernel=kernel)
    return activation(draw, norm(draw, x))


def _dilated(draw: Drawing, x: str) -> str:
    return activation(draw, norm(draw, conv(draw, x, draw.pick((6, 8)), dilation=2)))


def _downsampling(draw: Drawing, x: str) -> str:
    return activation(draw, norm(draw, _strided(draw, x)))


def _grouped(draw: Drawing, x: str) -> str:
    x = conv(draw, x, 8, kernel=(1, 1))
    x = conv(draw, x, 8, groups=draw.pick((2, 4)))
    return activation(draw, norm(draw, x))


def _separable(draw: Drawing, x: str) -> str:
    channels = draw.shape(x)[0]
    x = conv(draw, x, channels * draw.pick((1, 2)), groups=channels)
    x = activation(draw, batch_norm(draw, x))
    return norm(draw, conv(draw, x, draw.pick((8, 12)), kernel=(1, 1)))


def _residual(draw: Drawing, x: str) -> str:
    channels = draw.shape(x)[0]
    branch = activation(draw, batch_norm(draw, conv(draw, x, channels)))
    branch = batch_norm(draw, conv(draw, branch, channels))
    return activation(draw, draw.add("add", branch, x))


def _branches(draw: Drawing, x: str) -> str:
    """Concatenate siblings; the first two have one shape."""
    channels = draw.pick((3, 4))
    parts = [conv(draw, x, channels), conv(draw, x, channels)]
    if draw.chance(0.5):
        parts.append(conv(draw, x, 2, kernel=(1, 1)))
    if draw.chance(0.5):
        parts = [activation(draw, part) for part in parts]
    return draw.add("concat", *parts)


def _squeeze(draw: Drawing, x: str) -> str:
    channels = draw.shape(x)[0]
    gate = draw.add("reduce", x, function="mean", keepdims=True)
    gate = conv(draw, gate, 4, kernel=(1, 1), use_bias=True)
    gate = draw.add("activation", gate, function="relu")
    gate = conv(draw, gate, channels, kernel=(1, 1), use_bias=True)
    gate = draw.add("activation", gate, function=draw.pick(("sigmoid", "hard_sigmoid")))
    return draw.add("multiply", x, gate)


def _pooled(draw: Drawing, x: str) -> str:
    kind = draw.pick(("max_pool", "avg_pool"))
    kernel, pads = draw.pick(
        (
            ((2, 2), ((0, 0), (0, 0))),
            ((3, 3), ((1, 1), (1, 1))),
            ((3, 3), ((0, 0), (0, 0))),
        )
    )
    options: dict[str, Any] = {"counts_padding": draw.chance(0.5)} if kind == "avg_pool" else {}
    return draw.add(kind, x, kernel=kernel, stride=2, padding=pads, ceil=False, **options)


def _upsampled(draw: Drawing, x: str) -> str:
    if draw.chance(0.4):
        mode = draw.pick(("nearest", "bilinear"))
        return conv(draw, draw.add("resize", x, factor=2, mode=mode), 6)
    kernel, crop = draw.pick(((3, (1, 0)), (4, (1, 1)), (2, (0, 0)), (3, (0, 1))))
    x = draw.add(
        "conv_transpose",
        x,
        weights={"weight": (draw.shape(x)[0], 6, kernel, kernel), "bias": (6,)},
        kernel=(kernel, kernel),
        stride=2,
        crop=(crop, crop),
    )
    return activation(draw, x)


_SMALLEST_SIDE, _LARGEST_SIDE = 4, 18
_SHRINKING = (_downsampling, _pooled)


_KEEPING = (_plain_conv, _dilated, _grouped, _separable, _residual, _branches, _squeeze)


def _block(draw: Drawing, x: str) -> str:
    side = min(draw.shape(x)[1:])
    makers: list[Callable[[Drawing, str], str]] = [*_KEEPING]
    if side > _SMALLEST_SIDE:
        makers += [*_SHRINKING, *_SHRINKING]
    if max(draw.shape(x)[1:]) * 2 <= _LARGEST_SIDE:
        makers += [_upsampled, _upsampled, _upsampled]
    maker = draw.pick(makers)
    is_grouped = draw.chance(0.5)
    if is_grouped:
        draw.open_group()
    x = maker(draw, x)
    draw.close_group()
    return x


def _image_head(draw: Drawing, x: str) -> str:
    if draw.chance(0.5):
        function = draw.pick(("mean", "mean", "max"))
        x = draw.add("reduce", x, function=function, keepdims=False)
    else:
        while min(draw.shape(x)[1:]) > _SMALLEST_SIDE:
            x = _downsampling(draw, x)
        x = draw.add("flatten", x, order="nchw")
        if draw.chance(0.4):
            draw.restyle(x, keras="reordered")
            return dense(draw, x, 5)
    if draw.chance(0.3):
        x = draw.add("dropout", x, rate=0.4)
    if draw.chance(0.4):
        x = draw.add("activation", dense(draw, x, 8), function="relu")
    return dense(draw, x, 5)


def convolutional(seed: int) -> Plan:
    """Return a random convolutional network."""
    sizes = stream(seed, "pair size")
    height, width = (int(side) for side in sizes.choice((7, 8, 9, 12), size=2))
    draw = Drawing(seed, "cnn", input_shape=(3, height, width))
    x = activation(draw, norm(draw, conv(draw, INPUT, draw.pick((6, 8)))))
    for _ in range(draw.pick((1, 2, 3))):
        x = _block(draw, x)
    maybe_softmax(draw, _image_head(draw, x), probability=0.3)
    return draw.finish()
