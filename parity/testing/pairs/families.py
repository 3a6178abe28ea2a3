"""The families of random plans: convolutional, sequence, transformer, plain and twins.

Sizes are tiny: images up to 16 pixels a side, 16 channels, 12 steps.
"""

from collections.abc import Callable
from typing import Any

from parity.frameworks.pairs.plan import INPUT, Pads, Plan, Shape, same_pads
from parity.initialize import initial_state
from parity.rng import stream
from parity.spec.airbench import AirbenchSpec, airbench_conventions
from parity.spec.conventions import PRESETS, Conventions
from parity.spec.model_spec import ModelSpec
from parity.spec.resnet import ResNetSpec
from parity.testing.pairs.drawing import Drawing, draw_weight

_ACTIVATIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("relu", {}),
    ("relu", {}),
    ("relu6", {}),
    ("gelu", {"approximate": False}),
    ("gelu", {"approximate": True}),
    ("leaky_relu", {"slope": 0.01}),
    ("leaky_relu", {"slope": 0.2}),
    ("elu", {"alpha": 1.0}),
    ("silu", {}),
    ("hard_silu", {}),
    ("tanh", {}),
    ("softplus", {}),
)


def activation(draw: Drawing, x: str) -> str:
    """Add one of the activations."""
    function, settings = draw.pick(_ACTIVATIONS)
    return draw.add("activation", x, function=function, **settings)


def dense(draw: Drawing, x: str, units: int, *, use_bias: bool = True) -> str:
    """Add a dense layer over the last axis."""
    weights = {"weight": (units, draw.shape(x)[-1])} | ({"bias": (units,)} if use_bias else {})
    return draw.add("dense", x, weights=weights)


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


def batch_norm(draw: Drawing, x: str) -> str:
    """Add a batch norm of the channels, or of features."""
    channels = draw.shape(x)[0]
    slots = ("weight", "bias", "running_mean", "running_var")
    return draw.add(
        "batch_norm",
        x,
        weights=dict.fromkeys(slots, (channels,)),
        epsilon=draw.pick((1e-5, 1e-3)),
        stats_decay=draw.pick((0.9, 0.99, 0.5)),
    )


def layer_norm(draw: Drawing, x: str) -> str:
    """Add a layer norm of the last axis."""
    width = draw.shape(x)[-1]
    weights = {"weight": (width,), "bias": (width,)}
    return draw.add("layer_norm", x, weights=weights, epsilon=draw.pick((1e-5, 1e-6, 1e-3)))


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


_SHRINKING = (_downsampling, _pooled)
_KEEPING = (_plain_conv, _dilated, _grouped, _separable, _residual, _branches, _squeeze)
_SMALLEST_SIDE, _LARGEST_SIDE = 4, 18


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


def _maybe_softmax(draw: Drawing, x: str, *, probability: float) -> str:
    return draw.add("softmax", x, axis=-1) if draw.chance(probability) else x


def convolutional(seed: int) -> Plan:
    """Return a random convolutional network."""
    sizes = stream(seed, "pair size")
    height, width = (int(side) for side in sizes.choice((7, 8, 9, 12), size=2))
    draw = Drawing(seed, "cnn", input_shape=(3, height, width))
    x = activation(draw, norm(draw, conv(draw, INPUT, draw.pick((6, 8)))))
    for _ in range(draw.pick((1, 2, 3))):
        x = _block(draw, x)
    _maybe_softmax(draw, _image_head(draw, x), probability=0.3)
    return draw.finish()


def _recurrent_weights(
    kind: str, width: int, units: int, *, layers: int, directions: int
) -> dict[str, Shape]:
    gates = (4 if kind == "lstm" else 3) * units
    shapes: dict[str, Shape] = {}
    for layer in range(layers):
        for suffix in (f"_l{layer}", f"_l{layer}_reverse")[:directions]:
            inputs = width if layer == 0 else units * directions
            shapes[f"weight_ih{suffix}"] = (gates, inputs)
            shapes[f"weight_hh{suffix}"] = (gates, units)
            shapes[f"bias_ih{suffix}"] = (gates,)
            shapes[f"bias_hh{suffix}"] = (gates,)
    return shapes


def recurrent(seed: int) -> Plan:
    """Return a random network of an LSTM or a GRU over embedded ids, or over features."""
    from_ids = bool(stream(seed, "pair input").random() < 0.6)
    shape = (5,) if from_ids else (5, 4)
    draw = Drawing(seed, "sequence", input_shape=shape, vocabulary=11 if from_ids else 0)
    x = INPUT
    if from_ids:
        x = draw.add("embedding", x, weights={"weight": (11, 6)})
    kind = draw.pick(("lstm", "gru"))
    layers, bidirectional = draw.pick((1, 2)), draw.chance(0.5)
    units = 4
    take = draw.pick(("sequence", "end", "end"))
    directions = 2 if bidirectional else 1
    x = draw.add(
        kind,
        x,
        weights=_recurrent_weights(
            kind, draw.shape(x)[-1], units, layers=layers, directions=directions
        ),
        units=units,
        layers=layers,
        bidirectional=bidirectional,
        take=take,
    )
    if take == "sequence" and draw.chance(0.5):
        x = draw.add("reduce", x, function=draw.pick(("mean", "max")))
    if draw.chance(0.4):
        x = layer_norm(draw, x)
    if draw.chance(0.4):
        x = draw.add("dropout", x, rate=0.3)
    if draw.chance(0.5):
        x = activation(draw, dense(draw, x, 6))
    _maybe_softmax(draw, dense(draw, x, 4), probability=0.3)
    return draw.finish()


def _attended(draw: Drawing, x: str, *, causal: bool) -> str:
    width = draw.shape(x)[-1]
    weights = {
        "in_proj_weight": (3 * width, width),
        "in_proj_bias": (3 * width,),
        "out_proj.weight": (width, width),
        "out_proj.bias": (width,),
    }
    return draw.add("attention", x, weights=weights, heads=draw.pick((2, 4)), causal=causal)


def _perceptron(draw: Drawing, x: str) -> str:
    width = draw.shape(x)[-1]
    hidden = dense(draw, x, 12)
    hidden = (
        draw.add("activation", hidden, function="gelu", approximate=draw.chance(0.5))
        if draw.chance(0.7)
        else activation(draw, hidden)
    )
    return dense(draw, hidden, width)


def transformer(seed: int) -> Plan:
    """Return a random transformer over ids, or over features."""
    from_ids = bool(stream(seed, "pair input").random() < 0.6)
    width, steps = 8, 6
    draw = Drawing(
        seed,
        "transformer",
        input_shape=(steps,) if from_ids else (steps, 5),
        vocabulary=13 if from_ids else 0,
    )
    weights = {"weight": (13, width)}
    x = draw.add("embedding", INPUT, weights=weights) if from_ids else dense(draw, INPUT, width)
    if draw.chance(0.8):
        x = draw.add("position", x, weights={"weight": (steps + 2, width)})
    is_before, causal = draw.chance(0.5), draw.chance(0.5)
    for _ in range(draw.pick((1, 2))):
        if draw.chance(0.7):
            draw.open_group()
        for branch in (lambda d, y: _attended(d, y, causal=causal), _perceptron):
            inner = branch(draw, layer_norm(draw, x) if is_before else x)
            if draw.chance(0.2):
                inner = draw.add("dropout", inner, rate=0.2)
            x = draw.add("add", x, inner)
            x = x if is_before else layer_norm(draw, x)
        draw.close_group()
    pooled = draw.pick(("reduce", "first", "none"))
    if pooled == "reduce":
        x = draw.add("reduce", x, function="mean")
    elif pooled == "first":
        x = draw.add("take_step", x, index=0)
    _maybe_softmax(draw, dense(draw, x, 5), probability=0.3)
    return draw.finish()


def perceptron(seed: int) -> Plan:
    """Return a random network of dense layers."""
    draw = Drawing(seed, "mlp", input_shape=(7,))
    x = INPUT
    for _ in range(draw.pick((1, 2, 3))):
        x = dense(draw, x, draw.pick((8, 8, 10)), use_bias=draw.chance(0.8))
        choice = draw.pick(("batch_norm", "layer_norm", "none"))
        if choice != "none":
            x = batch_norm(draw, x) if choice == "batch_norm" else layer_norm(draw, x)
        x = activation(draw, x)
        if draw.chance(0.3):
            x = draw.add("dropout", x, rate=0.25)
        if draw.chance(0.3):
            x = draw.add("add", x, dense(draw, x, draw.shape(x)[-1]))
    _maybe_softmax(draw, dense(draw, x, 4), probability=0.4)
    return draw.finish()


def _conventions(generator_seed: int) -> Conventions:
    generator = stream(generator_seed, "pair conventions")
    fields = {}
    for name in Conventions.__dataclass_fields__:
        preset = PRESETS[("torch", "keras")[int(generator.integers(2))]]
        fields[name] = getattr(preset.conventions, name)
    return Conventions(**fields)


def twin(seed: int) -> Plan:
    """Return a twin of the project: a ResNet of random conventions, or a small airbench."""
    generator = stream(seed, "pair twin")
    spec: ModelSpec
    if generator.random() < 0.7:
        spec = ResNetSpec(
            conventions=_conventions(seed),
            block="bottleneck" if generator.random() < 0.3 else "basic",
            blocks=tuple(int(count) for count in generator.integers(1, 3, size=2)),
            stem="imagenet" if generator.random() < 0.3 else "cifar",
            width=int(generator.integers(3, 7)),
            in_channels=3,
            input_size=(11, 12),
            classes=5,
        )
    else:
        spec = AirbenchSpec(
            conventions=airbench_conventions("airbench94"),
            widths=(3, 4, 5),
            depth=2 if generator.random() < 0.5 else 3,
            residual="none" if generator.random() < 0.5 else "before_activation",
            logit_scale=1.0 / 9.0,
            in_channels=3,
            input_size=(17, 16),
            classes=4,
        )
    images = generator.standard_normal((8, *spec.input_size, 3))
    state = initial_state(spec, seed=seed, images=images)
    weights = {
        name: draw_weight(seed, "batch_norm" if ".bn" in f".{name}" else "conv", name, array.shape)
        if "bn" in name
        else array.astype("float64")
        for name, array in state.items()
    }
    return Plan(
        seed=seed,
        family="twin",
        input_shape=(3, *spec.input_size),
        weights=weights,
        forms={"torch": "twin", "keras": "twin"},
        spec=spec,
    )


# Family -> what draws one.
FAMILIES: dict[str, Callable[[int], Plan]] = {
    "cnn": convolutional,
    "sequence": recurrent,
    "transformer": transformer,
    "mlp": perceptron,
    "twin": twin,
}
