"""The families of random plans: convolutional, sequence, transformer, plain and twins.

Sizes are tiny, so that a pair is built and run in a fraction of a second.
"""

from collections.abc import Callable

from parity.frameworks.pairs.plan import INPUT, Plan, Shape
from parity.initialize import initial_state
from parity.rng import stream
from parity.spec.airbench import AirbenchSpec, airbench_conventions
from parity.spec.conventions import PRESETS, Conventions
from parity.spec.model_spec import ModelSpec
from parity.spec.resnet import ResNetSpec
from parity.testing.pairs.drawing import Drawing, draw_weight
from parity.testing.pairs.images import convolutional
from parity.testing.pairs.layers import activation, batch_norm, dense, layer_norm, maybe_softmax


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
    maybe_softmax(draw, dense(draw, x, 4), probability=0.3)
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
    maybe_softmax(draw, dense(draw, x, 5), probability=0.3)
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
    maybe_softmax(draw, dense(draw, x, 4), probability=0.4)
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
