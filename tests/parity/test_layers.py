"""Each layer of both twins against the float64 reference: forward, backward and buffers.

Both run in float64 from the same arrays over the case tables, so the bounds are those of rounding.
"""

import dataclasses
import functools
import importlib

import numpy as np
import pytest

from conversion.layouts import LAYOUTS, move_axes, to_keras_layout, to_torch_layout
from parity import runtime
from parity.errors import DivergenceError
from parity.reference import layers as reference
from parity.spec import layers as spec_layers
from parity.spec.conventions import TORCH
from parity.testing import cases
from parity.testing.assertions import assert_states_close
from parity.testing.faults import seed_array_fault

# Of the largest element; measured worst on Keras over tensorflow, jax and torch: 7.1e-15.
BOUND = 1e-13

# Keras's twin of the symmetric max pool pads with zeros: it stands behind a ReLU, which leaves
# nothing negative. So positive images only, at either offset.
POOL_CASES = tuple(case for case in cases.MAX_POOL_CASES if case.sign == "positive")
DROPPING = (cases.DropoutCase, cases.StochasticDepthCase)
CASES = (
    *cases.CONV_CASES,
    *POOL_CASES,
    *cases.BATCH_NORM_CASES,
    *cases.LINEAR_CASES,
    *cases.DROPOUT_CASES,
    *cases.STOCHASTIC_DEPTH_CASES,
)
QUANTITIES = ("outputs", "input gradient", "parameter gradients", "buffers")


def input_of(arrays):
    return arrays["images"] if "images" in arrays else arrays["inputs"]


def slots_of(arrays):
    return {name: value for name, value in arrays.items() if name not in ("images", "inputs")}


def conventions_of(case):
    changes = {
        "stride_offset": getattr(case, "stride_offset", TORCH.conventions.stride_offset),
        "stats_decay": getattr(case, "stats_decay", TORCH.conventions.stats_decay),
        "bn_epsilon": getattr(case, "epsilon", TORCH.conventions.bn_epsilon),
        "bn_variance_correction": getattr(case, "variance_correction", 1),
    }
    return dataclasses.replace(TORCH.conventions, **changes)


def build_layer(case, layers):
    """Return the case's layer from a twin's module `layers`."""
    conventions = conventions_of(case)
    if isinstance(case, cases.ConvCase):
        row = spec_layers.Conv2d(
            path="stem.conv",
            in_channels=3,
            out_channels=4,
            kernel=case.kernel,
            stride=case.stride,
            use_bias=case.use_bias,
        )
        return layers.conv2d(row, conventions=conventions)
    if isinstance(case, cases.MaxPoolCase):
        return layers.max_pool2d("stem.pool", stride_offset=case.stride_offset)
    if isinstance(case, cases.BatchNormCase):
        row = spec_layers.BatchNorm2d(path="stem.bn", channels=3)
        return layers.batch_norm2d(row, conventions=conventions)
    if isinstance(case, cases.DropoutCase):
        return layers.dropout(spec_layers.Dropout(path="dropout", features=5, rate=case.rate))
    if isinstance(case, cases.StochasticDepthCase):
        row = spec_layers.StochasticDepth(path="stochastic_depth", rate=case.rate)
        return layers.stochastic_depth(row)
    row = spec_layers.Linear(
        path="head", in_features=case.in_features, out_features=case.out_features
    )
    return layers.linear(row, conventions=conventions)


def is_training(case):
    return getattr(case, "training", True)


def run_torch(case, arrays, d_outputs):
    import torch

    from models_torch import layers
    from parity.frameworks.torch_layer import run_torch_layer

    module = build_layer(case, layers).double().train(is_training(case))
    if isinstance(case, DROPPING):
        module.kept = torch.tensor(case.kept())
    own = module.state_dict()
    weights = {name: value for name, value in slots_of(arrays).items() if name in own}
    outcome = run_torch_layer(module, [input_of(arrays)], d_outputs, weights=weights)
    outcome.buffers.pop("num_batches_tracked", None)
    return {
        "outputs": {"outputs": outcome.outputs},
        "input gradient": {"inputs": outcome.input_gradients[0]},
        "parameter gradients": outcome.parameter_gradients,
        "buffers": outcome.buffers,
    }


def channels_last(array):
    return move_axes(array, source="nchw", target="nhwc") if array.ndim == 4 else array


def channels_first(array):
    return move_axes(array, source="nhwc", target="nchw") if array.ndim == 4 else array


def run_keras(case, arrays, d_outputs):
    runtime.select_keras_backend(None)
    importlib.import_module("keras")  # the context sets what is loaded
    with runtime.precision("float64"):
        return run_keras_in_float64(case, arrays, d_outputs)


def run_keras_in_float64(case, arrays, d_outputs):
    import keras

    from models_keras import layers
    from parity.frameworks.keras_layer import run_keras_layer

    inputs = channels_last(input_of(arrays))
    images = keras.Input(batch_shape=inputs.shape, dtype="float64")
    # Some twins are two Keras layers, padding and convolution.
    model = keras.Model(images, build_layer(case, layers)(images))
    for layer in model.layers:
        if hasattr(layer, "kept"):
            layer.kept = keras.ops.convert_to_tensor(case.kept())
    kinds = {
        variable.path: (type(layer).__name__, variable.name)
        for layer in model.layers
        for variable in layer.weights
    }
    slots = {path: LAYOUTS[kind][name].slot for path, (kind, name) in kinds.items()}

    def to_slots(named):
        return dict(to_torch_layout(*kinds[path], array) for path, array in named.items())

    outcome = run_keras_layer(
        model,
        [inputs],
        channels_last(d_outputs),
        weights={
            path: to_keras_layout(kinds[path][0], slot, arrays[slot])[1]
            for path, slot in slots.items()
            if slot in arrays
        },
        arguments={"training": is_training(case)},
    )
    return {
        "outputs": {"outputs": channels_first(outcome.outputs)},
        "input gradient": {"inputs": channels_first(outcome.input_gradients[0])},
        "parameter gradients": to_slots(outcome.parameter_gradients),
        "buffers": to_slots(outcome.buffers),
    }


def reference_conv(case, arrays):
    window = {"stride": case.stride, "padding": case.stride_offset}
    images, weight, bias = arrays["images"], arrays["weight"], arrays.get("bias")
    outputs = reference.conv2d(images, weight, bias, **window)
    d_outputs = cases.output_gradient(case, outputs.shape)
    d_images, d_weight, d_bias = reference.conv2d_backward(d_outputs, images, weight, **window)
    gradients = {"weight": d_weight} | ({"bias": d_bias} if case.use_bias else {})
    return outputs, d_images, gradients, {}


def reference_max_pool(case, arrays):
    window = {"kernel": 3, "stride": 2, "padding": case.stride_offset}
    window |= {"fill": -np.inf, "ceil_mode": False}
    outputs = reference.max_pool2d(arrays["images"], **window)
    d_outputs = cases.output_gradient(case, outputs.shape)
    return outputs, reference.max_pool2d_backward(d_outputs, arrays["images"], **window), {}, {}


def reference_batch_norm(case, arrays):
    mode = {"training": case.training, "epsilon": case.epsilon}
    outputs, running_mean, running_var = reference.batch_norm2d(
        **arrays,
        **mode,
        stats_decay=case.stats_decay,
        variance_correction=case.variance_correction,
    )
    d_outputs = cases.output_gradient(case, outputs.shape)
    taken = [arrays[name] for name in ("images", "weight", "running_mean", "running_var")]
    d_images, d_weight, d_bias = reference.batch_norm2d_backward(d_outputs, *taken, **mode)
    buffers = {"running_mean": running_mean, "running_var": running_var}
    return outputs, d_images, {"weight": d_weight, "bias": d_bias}, buffers


def reference_linear(case, arrays):
    outputs = reference.linear(**arrays)
    d_outputs = cases.output_gradient(case, outputs.shape)
    d_inputs, d_weight, d_bias = reference.linear_backward(
        d_outputs, arrays["inputs"], arrays["weight"]
    )
    return outputs, d_inputs, {"weight": d_weight, "bias": d_bias}, {}


def reference_dropping(case, arrays):
    name = "dropout" if isinstance(case, cases.DropoutCase) else "stochastic_depth"
    forward, backward = (getattr(reference, f"{name}{end}") for end in ("", "_backward"))
    knobs = {"rate": case.rate, "scale_at": "training", "training": case.training}
    outputs = forward(input_of(arrays), case.kept(), **knobs)
    d_outputs = cases.output_gradient(case, outputs.shape)
    return outputs, backward(d_outputs, case.kept(), **knobs), {}, {}


REFERENCES = {
    cases.ConvCase: reference_conv,
    cases.MaxPoolCase: reference_max_pool,
    cases.BatchNormCase: reference_batch_norm,
    cases.LinearCase: reference_linear,
    cases.DropoutCase: reference_dropping,
    cases.StochasticDepthCase: reference_dropping,
}
TWINS = {"torch": run_torch, "keras": run_keras}


@functools.cache
def expected_outcome(case):
    outputs, d_inputs, gradients, buffers = REFERENCES[type(case)](case, case.arrays())
    return {
        "outputs": {"outputs": outputs},
        "input gradient": {"inputs": d_inputs},
        "parameter gradients": gradients,
        "buffers": buffers,
    }


def run_twin(twin, case, *, arrays=None, built_as=None):
    """Run a case on a twin; `arrays` and `built_as` seed a fault in what it gets and is."""
    outputs = expected_outcome(case)["outputs"]["outputs"]
    d_outputs = cases.output_gradient(case, outputs.shape)
    return TWINS[twin](built_as or case, arrays or case.arrays(), d_outputs)


twin_outcome = functools.cache(run_twin)


def assert_matches_reference(outcome, case, quantity):
    expected = expected_outcome(case)[quantity]
    scale = max([float(np.abs(array).max()) for array in expected.values()], default=0.0)
    assert_states_close(outcome[quantity], expected, atol=BOUND * scale, rtol=BOUND, where=quantity)


def has_quantity(case, quantity):
    """Return whether a case has arrays of that kind: a max pool has no parameters to train."""
    return {
        "parameter gradients": not isinstance(case, (cases.MaxPoolCase, *DROPPING)),
        "buffers": isinstance(case, cases.BatchNormCase),
    }.get(quantity, True)


def marks_of(case):
    """Return the mark of what runs on every Keras backend: each kind and knob, at one size."""
    shared = getattr(case, "size", None) in (None, (8, 7), (5, 7))
    return (pytest.mark.backend,) if shared and getattr(case, "use_bias", True) else ()


CHECKS = [
    pytest.param(
        case,
        quantity,
        id=f"{cases.case_name(case)}-{quantity.replace(' ', '_')}",
        marks=marks_of(case),
    )
    for case in CASES
    for quantity in QUANTITIES
    if has_quantity(case, quantity)
]


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize(("case", "quantity"), CHECKS)
def test_layer_matches_reference(twin, case, quantity):
    assert_matches_reference(twin_outcome(twin, case), case, quantity)


CONV = cases.ConvCase(kernel=3, stride=2, size=(8, 7), stride_offset="end", use_bias=True)
POOL = cases.MaxPoolCase(size=(8, 7), stride_offset="end", sign="positive")
NORM = cases.BatchNormCase(
    batch=4, size=(5, 7), training=True, stats_decay=0.9, variance_correction=1, epsilon=1e-5
)
LINEAR = cases.LinearCase(in_features=4, out_features=4)
DROPOUT = cases.DropoutCase(rate=0.5, training=True)
DEPTH = cases.StochasticDepthCase(size=(5, 7), rate=0.5, training=True)


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize(
    ("case", "name", "fault", "quantity"),
    [
        (CONV, "weight", "element_bumped", "outputs"),
        (CONV, "weight", "kernel_mirrored", "input gradient"),
        (CONV, "images", "channels_swapped", "parameter gradients"),
        (CONV, "bias", "through_float16", "outputs"),
        (POOL, "images", "channels_swapped", "outputs"),
        (POOL, "images", "sign_flipped", "input gradient"),
        (NORM, "bias", "channels_swapped", "outputs"),
        (NORM, "weight", "element_sign_flipped", "input gradient"),
        (NORM, "images", "element_bumped", "parameter gradients"),
        (NORM, "running_var", "scaled", "buffers"),
        (LINEAR, "weight", "square_transposed", "outputs"),
        (LINEAR, "weight", "through_float16", "input gradient"),
        (LINEAR, "inputs", "element_bumped", "parameter gradients"),
        (DROPOUT, "inputs", "scaled", "outputs"),
        (DEPTH, "images", "channels_swapped", "outputs"),
    ],
)
def test_layer_check_catches_a_fault_in_its_arrays(twin, case, name, fault, quantity):
    arrays = case.arrays()
    faulty = run_twin(twin, case, arrays=arrays | {name: seed_array_fault(fault, arrays[name])})

    with pytest.raises(DivergenceError, match=f"^{quantity}: "):
        assert_matches_reference(faulty, case, quantity)


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize(
    ("case", "change", "quantity"),
    [
        (CONV, {"stride_offset": "start"}, "outputs"),
        (CONV, {"use_bias": False}, "parameter gradients"),
        (POOL, {"stride_offset": "start"}, "input gradient"),
        (NORM, {"epsilon": 1.001e-5}, "outputs"),
        (NORM, {"epsilon": 1.001e-5}, "input gradient"),
        (NORM, {"epsilon": 1.001e-5}, "parameter gradients"),
        (NORM, {"training": False}, "outputs"),
        (NORM, {"variance_correction": 0}, "buffers"),
        (NORM, {"stats_decay": 0.901}, "buffers"),
        (DROPOUT, {"rate": 0.501}, "outputs"),
        (DROPOUT, {"rate": 0.501}, "input gradient"),
        (DROPOUT, {"training": False}, "outputs"),
        (DEPTH, {"rate": 0.501}, "outputs"),
        (DEPTH, {"rate": 0.501}, "input gradient"),
        (DEPTH, {"training": False}, "input gradient"),
    ],
)
def test_layer_check_catches_a_wrong_convention(twin, case, change, quantity):
    faulty = run_twin(twin, case, built_as=dataclasses.replace(case, **change))

    with pytest.raises(DivergenceError, match=f"^{quantity}: "):
        assert_matches_reference(faulty, case, quantity)
