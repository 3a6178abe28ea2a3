"""Stock normalizations of torch and Keras against the float64 reference, in float64.

Configurations are drawn; both layers are filled through the layouts and told every knob, so that
nothing rests on a default. Sequences and images are `(n, c, ...)` in the reference and in torch,
`(n, ..., c)` in Keras.
"""

import dataclasses
import importlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversion.layouts import LAYOUTS, to_keras_layout, to_torch_layout
from parity import runtime
from parity.errors import DivergenceError
from parity.frameworks.outcomes import LayerOutcome
from parity.reference import layers as reference
from parity.rng import stream
from parity.testing.assertions import assert_states_close
from parity.testing.faults import seed_array_fault

pytestmark = pytest.mark.usefixtures("float64_keras")

# Of the largest value of a quantity, or of 1 where all are smaller: inputs, weights and gradients
# are of order 1.
BOUND = 1e-10

# Keras on torch takes a variance as mean(x^2) - mean(x)^2 (keras 3.15.1, `ops.moments`). Where the
# values of a group are nearly equal, the rounding of the squares is large beside the variance, and
# an input gradient, which there is a difference of equal numbers, shows it over the deviation.
# Measured worst in such units over 6,000 draws of small groups: 2.4.
CANCELLED_ROUNDINGS = 8
FRAMEWORKS = ("torch", "keras")
QUANTITIES = ("outputs", "input gradient", "parameter gradients", "buffers")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Norm:
    """A normalization and all its knobs; what a kind does not know is left out of its layers.

    Attributes:
        kind: `batch`, `layer`, `rms`, `group` or `instance`.
        shape: Of the inputs, `(n, c, ...)`.
        epsilon: Added to the variance or mean square.
        axes: What a layer or RMS norm normalizes together: the last ones, as torch wants it.
        groups: Of a group norm.
        training: Mode of a batch norm.
        stats_decay: Of a batch norm.
        has_weight: Whether it has a weight.
        has_bias: Whether it has a bias; torch's batch, group and instance norms have both or none.
        spread: Deviation of the inputs, whose mean is 0.5.
        seed: Of its arrays.
    """

    kind: str
    shape: tuple[int, ...]
    epsilon: float
    axes: tuple[int, ...] = ()
    groups: int = 1
    training: bool = True
    stats_decay: float = 0.9
    has_weight: bool = True
    has_bias: bool = True
    spread: float = 1.0
    seed: int = 0

    def arrays(self):
        """Return inputs, output gradient, parameters and running statistics by name."""
        sizes = tuple(self.shape[axis] for axis in self.axes) or (self.shape[1],)
        present = {"weight": self.has_weight, "bias": self.has_bias and self.kind != "rms"}
        shapes = {"inputs": self.shape, "d_outputs": self.shape}
        shapes |= {name: sizes for name, is_there in present.items() if is_there}
        drawn = {
            name: stream(self.seed, "norm", name).standard_normal(shape)
            for name, shape in shapes.items()
        }
        drawn["inputs"] = 0.5 + self.spread * drawn["inputs"]
        if self.kind == "batch":
            drawn["running_mean"] = stream(self.seed, "mean").standard_normal(sizes)
            drawn["running_var"] = np.exp(stream(self.seed, "var").standard_normal(sizes))
        return drawn


EPSILONS = st.sampled_from((1e-6, 1e-5, 1e-3, 0.1))
SEEDS = st.integers(0, 2**32 - 1)
EXTRA_AXES = st.lists(st.integers(1, 4), max_size=3).map(tuple)


@st.composite
def batch_norms(draw):
    # torch refuses a single value a channel in training; tested by itself.
    shape = (draw(st.integers(2, 4)), draw(st.integers(1, 5)), *draw(EXTRA_AXES))
    is_affine = draw(st.booleans())
    return Norm(
        kind="batch",
        shape=shape,
        epsilon=draw(EPSILONS),
        training=draw(st.booleans()),
        stats_decay=draw(st.sampled_from((0.0, 0.5, 0.9, 0.99))),
        has_weight=is_affine,
        has_bias=is_affine,
        seed=draw(SEEDS),
    )


@st.composite
def group_norms(draw, kind="group"):
    groups = draw(st.integers(1, 3))
    channels = groups * draw(st.integers(1, 3))
    # torch refuses a single value a group where the batch is one sample.
    extra = draw(EXTRA_AXES.filter(bool)) if kind == "instance" else draw(EXTRA_AXES)
    if kind == "instance":
        # torch wants at least 2 pixels, 1 to 3 axes of them.
        extra = (extra[0] + 1, *extra[1:])
    is_affine = draw(st.booleans())
    return Norm(
        kind=kind,
        shape=(draw(st.integers(2, 3)), channels, *extra),
        epsilon=draw(EPSILONS),
        groups=groups,
        has_weight=is_affine,
        has_bias=is_affine,
        seed=draw(SEEDS),
    )


@st.composite
def layer_norms(draw, kind="layer"):
    shape = tuple(draw(st.lists(st.integers(1, 5), min_size=2, max_size=4)))
    count = draw(st.integers(1, len(shape) - 1))
    has_weight = draw(st.booleans())
    return Norm(
        kind=kind,
        shape=shape,
        epsilon=draw(EPSILONS),
        axes=tuple(range(len(shape) - count, len(shape))),
        # torch has no bias without a weight; Keras's RMS norm always has its weight.
        has_weight=has_weight or kind == "rms",
        has_bias=has_weight and draw(st.booleans()),
        seed=draw(SEEDS),
    )


NORMS = {
    "batch": batch_norms(),
    "layer": layer_norms(),
    "rms": layer_norms(kind="rms"),
    "group": group_norms(),
    "instance": group_norms(kind="instance"),
}


def torch_layer(norm):
    nn = importlib.import_module("torch").nn
    channels, pixel_axes = norm.shape[1], len(norm.shape) - 2
    if norm.kind == "batch":
        # BatchNorm1d takes (n, c) and (n, c, l).
        cls = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[pixel_axes]
        layer = cls(
            channels, eps=norm.epsilon, momentum=1.0 - norm.stats_decay, affine=norm.has_weight
        )
    elif norm.kind == "group":
        layer = nn.GroupNorm(norm.groups, channels, eps=norm.epsilon, affine=norm.has_weight)
    elif norm.kind == "instance":
        cls = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)[pixel_axes - 1]
        layer = cls(channels, eps=norm.epsilon, affine=norm.has_weight)
    else:
        sizes = [norm.shape[axis] for axis in norm.axes]
        knobs = {"eps": norm.epsilon, "elementwise_affine": norm.has_weight}
        if norm.kind == "rms":
            layer = nn.RMSNorm(sizes, **knobs)
        else:
            layer = nn.LayerNorm(sizes, **knobs, bias=norm.has_bias)
    return layer.double().train(norm.training)


def keras_layer(norm):
    layers = importlib.import_module("keras").layers
    affine = {"scale": norm.has_weight, "center": norm.has_bias}
    if norm.kind == "batch":
        return layers.BatchNormalization(
            momentum=norm.stats_decay, epsilon=norm.epsilon, synchronized=False, **affine
        )
    if norm.kind == "rms":
        return layers.RMSNormalization(axis=norm.axes, epsilon=norm.epsilon)
    if norm.kind == "layer":
        return layers.LayerNormalization(axis=norm.axes, epsilon=norm.epsilon, **affine)
    groups = -1 if norm.kind == "instance" else norm.groups
    return layers.GroupNormalization(groups, epsilon=norm.epsilon, **affine)


def run_torch(norm, arrays):
    from parity.frameworks.torch_layer import run_torch_layer

    outcome = run_torch_layer(
        torch_layer(norm),
        [arrays["inputs"]],
        arrays["d_outputs"],
        weights={name: arrays[name] for name in parameters_of(arrays)},
    )
    outcome.buffers.pop("num_batches_tracked", None)
    return outcome


def run_keras(norm, arrays):
    from parity.frameworks.keras_layer import run_keras_layer

    layer, kind = keras_layer(norm), KERAS_KINDS[norm.kind]
    # Layer and RMS norms take sequences (n, l, d) as they are in both frameworks.
    moves = not norm.axes
    outcome = run_keras_layer(
        layer,
        [channels_last(arrays["inputs"]) if moves else arrays["inputs"]],
        channels_last(arrays["d_outputs"]) if moves else arrays["d_outputs"],
        weights=dict(to_keras(kind, name, arrays[name]) for name in parameters_of(arrays)),
        arguments={"training": norm.training} if norm.kind == "batch" else {},
    )
    first = channels_first if moves else np.asarray
    return LayerOutcome(
        outputs=first(outcome.outputs),
        input_gradients=tuple(map(first, outcome.input_gradients)),
        parameter_gradients=dict(
            to_torch(kind, *item) for item in outcome.parameter_gradients.items()
        ),
        buffers=dict(to_torch(kind, *item) for item in outcome.buffers.items()),
    )


KERAS_KINDS = {
    "batch": "BatchNormalization",
    "layer": "LayerNormalization",
    "rms": "RMSNormalization",
    "group": "GroupNormalization",
    "instance": "GroupNormalization",
}
RUNS = {"torch": run_torch, "keras": run_keras}


def to_keras(kind, slot, array):
    """Return a slot's Keras variable and array; over several axes neither layout moves any."""
    if array.ndim == 1:
        return to_keras_layout(kind, slot, array)
    (name,) = (name for name, layout in LAYOUTS[kind].items() if layout.slot == slot)
    return name, array


def to_torch(kind, variable, array):
    if array.ndim == 1:
        return to_torch_layout(kind, variable, array)
    return LAYOUTS[kind][variable].slot, array


def parameters_of(arrays):
    return [name for name in arrays if name not in ("inputs", "d_outputs")]


def channels_last(array):
    return np.ascontiguousarray(np.moveaxis(array, 1, -1))


def channels_first(array):
    return np.moveaxis(array, -1, 1)


def run_reference(norm, arrays, *, variance_correction):
    inputs, d_outputs = arrays["inputs"], arrays["d_outputs"]
    weight, bias = arrays.get("weight"), arrays.get("bias")
    buffers = {}
    if norm.kind == "batch":
        stored = arrays["running_mean"], arrays["running_var"]
        mode = {"training": norm.training, "epsilon": norm.epsilon}
        outputs, mean, var = reference.batch_norm(
            inputs, weight, bias, *stored, **mode,
            stats_decay=norm.stats_decay, variance_correction=variance_correction,
        )  # fmt: skip
        buffers = {"running_mean": mean, "running_var": var}
        gradients = reference.batch_norm_backward(d_outputs, inputs, weight, *stored, **mode)
    elif norm.kind == "rms":
        knobs = {"axes": norm.axes, "epsilon": norm.epsilon}
        outputs = reference.rms_norm(inputs, weight, **knobs)
        gradients = reference.rms_norm_backward(d_outputs, inputs, weight, **knobs)
    else:
        name, knobs = {
            "layer": ("layer_norm", {"axes": norm.axes}),
            "group": ("group_norm", {"groups": norm.groups}),
            "instance": ("instance_norm", {}),
        }[norm.kind]
        knobs["epsilon"] = norm.epsilon
        outputs = getattr(reference, name)(inputs, weight, bias, **knobs)
        gradients = getattr(reference, f"{name}_backward")(d_outputs, inputs, weight, **knobs)
    d_inputs, *d_parameters = gradients
    named = zip(("weight", "bias"), d_parameters, strict=False)
    return LayerOutcome(
        outputs=outputs,
        input_gradients=(d_inputs,),
        parameter_gradients={name: array for name, array in named if name in arrays},
        buffers=buffers,
    )


def quantities_of(outcome):
    return {
        "outputs": {"outputs": outcome.outputs},
        "input gradient": {"inputs": outcome.input_gradients[0]},
        "parameter gradients": outcome.parameter_gradients,
        "buffers": outcome.buffers,
    }


def cancelled_rounding(framework, norm):
    """Return the rounding that a cancelling variance leaves in an input gradient; else 0."""
    if framework == "torch" or norm.kind == "rms" or runtime.select_keras_backend(None) != "torch":
        return 0.0
    inputs = norm.arrays()["inputs"]
    axes = tuple(range(2, inputs.ndim))
    if norm.kind == "group":
        inputs, axes = inputs.reshape(len(inputs), norm.groups, -1), (2,)
    axes = {"batch": (0, *axes), "layer": norm.axes}.get(norm.kind, axes)
    variances = inputs.var(axis=axes) + norm.epsilon
    units = (inputs**2).mean(axis=axes) / variances**1.5
    return float(np.finfo(np.float64).eps * units.max())


def assert_matches_reference(framework, norm, *, arrays=None, built_as=None):
    """Check a stock layer; `arrays` and `built_as` seed a fault in what it gets and is."""
    actual = RUNS[framework](built_as or norm, arrays or norm.arrays())
    # Both normalize with the biased variance; torch stores the unbiased one, Keras the biased.
    correction = 1 if framework == "torch" else 0
    expected = run_reference(norm, norm.arrays(), variance_correction=correction)
    wanted = quantities_of(expected)
    for quantity, named in quantities_of(actual).items():
        sizes = [np.abs(array).max(initial=0.0) for array in wanted[quantity].values()]
        scale = max([1.0, *map(float, sizes)])
        atol = BOUND * scale
        if quantity == "input gradient":
            atol = max(atol, CANCELLED_ROUNDINGS * cancelled_rounding(framework, norm))
        assert_states_close(named, wanted[quantity], atol=atol, rtol=0.0, where=quantity)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("kind", NORMS)
@given(data=st.data())
def test_stock_normalization_matches_reference(kind, framework, data):
    assert_matches_reference(framework, data.draw(NORMS[kind]))


@given(shape=st.tuples(*[st.integers(1, 4)] * 4), epsilon=EPSILONS, seed=SEEDS)
def test_layer_norm_of_images_matches_over_the_moved_axes(shape, epsilon, seed):
    # torch normalizes (c, h, w), Keras (h, w, c) of the same images; the affine arrays move along.
    norm = Norm(kind="layer", shape=shape, epsilon=epsilon, axes=(1, 2, 3), seed=seed)
    arrays = norm.arrays()
    moved = {
        name: np.moveaxis(array, 0 if name in ("weight", "bias") else 1, -1)
        for name, array in arrays.items()
    }
    expected = run_reference(norm, arrays, variance_correction=0)

    for_torch, for_keras = run_torch(norm, arrays), run_keras(norm, moved)

    wanted = expected.parameter_gradients | {"outputs": expected.outputs}
    parameters = {k: np.moveaxis(v, -1, 0) for k, v in for_keras.parameter_gradients.items()}
    outputs = channels_first(for_keras.outputs)
    assert_states_close(parameters | {"outputs": outputs}, wanted, atol=1e-11, rtol=1e-11)
    assert_states_close(
        for_torch.parameter_gradients | {"outputs": for_torch.outputs},
        wanted, atol=1e-11, rtol=1e-11,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "shape"), [("batch", (1, 3)), ("instance", (2, 3, 1)), ("group", (1, 2, 1))], ids=str
)
def test_torch_refuses_the_single_value_that_keras_normalizes_to_zero(kind, shape):
    norm = Norm(kind=kind, shape=shape, epsilon=1e-3, groups=2, has_weight=False, has_bias=False)
    arrays = norm.arrays()

    with pytest.raises(
        ValueError, match=r"Expected more than 1 (value per channel|spatial element)"
    ):
        run_torch(norm, arrays)
    assert_states_close(
        {"outputs": run_keras(norm, arrays).outputs}, {"outputs": np.zeros(shape)},
        atol=1e-12, rtol=0.0,
    )  # fmt: skip


BATCH = Norm(kind="batch", shape=(4, 3, 5), epsilon=1e-3)
LAYER = Norm(kind="layer", shape=(3, 4, 5), epsilon=1e-3, axes=(2,))
RMS = Norm(kind="rms", shape=(3, 4, 5), epsilon=1e-3, axes=(2,))
GROUP = Norm(kind="group", shape=(2, 4, 3, 3), epsilon=1e-3, groups=2)
INSTANCE = Norm(kind="instance", shape=(2, 4, 3, 3), epsilon=1e-3, groups=2)


# jax compiles each operation for each shape, so other backends run a case a kind.
@pytest.mark.backend
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(
    "norm",
    [BATCH, dataclasses.replace(BATCH, training=False), LAYER, RMS, GROUP, INSTANCE],
    ids=lambda norm: f"{norm.kind}-{norm.training}",
)
def test_stock_normalization_matches_reference_on_every_backend(norm, framework):
    assert_matches_reference(framework, norm)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(
    ("norm", "change", "quantity"),
    [
        (BATCH, {"epsilon": 1.001e-3}, "outputs"),
        (BATCH, {"training": False}, "outputs"),
        (BATCH, {"stats_decay": 0.9000001}, "buffers"),
        (LAYER, {"epsilon": 1e-5}, "outputs"),
        (LAYER, {"axes": (1, 2)}, "outputs"),
        (RMS, {"epsilon": 1e-6}, "outputs"),
        (RMS, {"kind": "layer", "has_bias": False}, "outputs"),
        (GROUP, {"groups": 4}, "outputs"),
        (GROUP, {"epsilon": 1.001e-3}, "outputs"),
        (INSTANCE, {"kind": "group"}, "outputs"),
    ],
    ids=str,
)
def test_normalization_check_catches_a_wrong_knob(framework, norm, change, quantity):
    arrays, built_as = norm.arrays(), dataclasses.replace(norm, **change)
    for name in set(built_as.arrays()) & {"weight", "bias"}:
        # The wrong axes ask for parameters of another shape.
        arrays[name] = np.broadcast_to(arrays[name], built_as.arrays()[name].shape).copy()

    with pytest.raises(DivergenceError, match=f"^{quantity}: "):
        assert_matches_reference(framework, norm, arrays=arrays, built_as=built_as)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(
    ("norm", "name", "fault", "quantity"),
    [
        (BATCH, "weight", "element_bumped", "outputs"),
        (BATCH, "running_var", "scaled", "buffers"),
        (LAYER, "weight", "through_float16", "outputs"),
        (LAYER, "d_outputs", "element_bumped", "input gradient"),
        (RMS, "weight", "channels_swapped", "outputs"),
        (RMS, "d_outputs", "scaled", "input gradient"),
        (GROUP, "bias", "channels_swapped", "outputs"),
        (GROUP, "inputs", "element_sign_flipped", "outputs"),
        (INSTANCE, "weight", "sign_flipped", "outputs"),
    ],
    ids=str,
)
def test_normalization_check_catches_a_damaged_array(framework, norm, name, fault, quantity):
    arrays = norm.arrays()
    arrays[name] = seed_array_fault(fault, arrays[name])

    with pytest.raises(DivergenceError, match=f"^{quantity}: "):
        assert_matches_reference(framework, norm, arrays=arrays)


@pytest.mark.backend
@pytest.mark.parametrize("fault", ["element_bumped", "scaled", "sign_flipped"])
def test_wide_bound_of_nearly_equal_values_hides_no_fault_of_a_gradient(fault):
    norm = Norm(kind="layer", shape=(8, 5), epsilon=1e-6, axes=(1,), spread=1e-3)
    if runtime.select_keras_backend(None) == "torch":
        assert CANCELLED_ROUNDINGS * cancelled_rounding("keras", norm) > BOUND
    arrays = norm.arrays()
    arrays["d_outputs"] = seed_array_fault(fault, arrays["d_outputs"])

    with pytest.raises(DivergenceError, match=r"^input gradient: "):
        assert_matches_reference("keras", norm, arrays=arrays)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_running_variance_is_the_other_frameworks_only_by_its_correction(framework):
    other = 0 if framework == "torch" else 1
    arrays = BATCH.arrays()
    outcome = RUNS[framework](BATCH, arrays)
    expected = run_reference(BATCH, arrays, variance_correction=other)

    assert_states_close(
        {"outputs": outcome.outputs}, {"outputs": expected.outputs}, atol=1e-12, rtol=1e-12
    )
    with pytest.raises(DivergenceError, match="running_var"):
        assert_states_close(outcome.buffers, expected.buffers, atol=1e-3, rtol=1e-3)
