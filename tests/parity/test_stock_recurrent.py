"""The frameworks' own recurrent layers against the float64 reference, on drawn configurations.

A stack runs as one layer that returns its outputs and all last states in one row, so that each of
them sends a gradient back.
"""

import dataclasses
import functools
import importlib
import os
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conversion import recurrent_layouts
from conversion.recurrent_layouts import (
    recurrent_suffix,
    to_keras_recurrent,
    to_torch_recurrent,
    to_torch_recurrent_gradients,
)
from parity import runtime
from parity.errors import DivergenceError
from parity.reference import layers as reference
from parity.reference.layers import Recurrence
from parity.testing.assertions import assert_close, assert_states_close
from parity.testing.faults import seed_array_fault

# Of the largest value of its kind.
BOUND = 1e-10
# Torch's hard sigmoid, which Keras on torch calls, multiplies its gradient by 1/6 in float32
# (torch 2.13.0, aten/native/cpu/Activation.cpp): 3.0e-8 off in float64 at every gate it passes.
# Measured over 400 examples: 4.0e-8.
HARD_SIGMOID_BOUND = 4e-7
GATES = {"simple_rnn": 1, "lstm": 4, "gru": 3}
KERAS_CLASSES = {"simple_rnn": "SimpleRNN", "lstm": "LSTM", "gru": "GRU"}
KERAS_MERGES = {"concat": "concat", "sum": "sum", "average": "ave", "product": "mul"}
KINDS = ("outputs", "input gradients", "parameter gradients")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    how: Recurrence
    batch: int
    time: int
    features: int
    units: int
    use_bias: bool
    given_states: bool
    unroll: bool
    seed: int

    @property
    def rows(self):
        return self.how.layers * len(self.how.reverses)

    def arrays(self):
        """Return inputs, first states and weights by PyTorch's names."""
        draw = np.random.default_rng(self.seed).standard_normal
        gates, merged = GATES[self.how.cell] * self.units, self.units
        if self.how.direction == "both" and self.how.merge == "concat":
            merged = 2 * self.units
        size = (self.batch, self.time) if self.how.batch_first else (self.time, self.batch)
        arrays = {"inputs": draw((*size, self.features))}
        for name in ("hidden", "cell") if self.how.cell == "lstm" else ("hidden",):
            state = draw((self.rows, self.batch, self.units))
            arrays[name] = state if self.given_states else 0.0 * state
        for layer in range(self.how.layers):
            for index in range(len(self.how.reverses)):
                suffix = recurrent_suffix(layer, reverse=bool(index))
                width = merged if layer else self.features
                arrays[f"weight_ih{suffix}"] = draw((gates, width)) / np.sqrt(width)
                arrays[f"weight_hh{suffix}"] = draw((gates, self.units)) / np.sqrt(self.units)
                if self.use_bias:
                    arrays[f"bias_ih{suffix}"] = draw(gates)
                    arrays[f"bias_hh{suffix}"] = draw(gates)
        return arrays

    def d_parts(self):
        """Return the gradients of outputs, last states and last cells."""
        parts = reference.recurrent(*parts_of(self, self.arrays()), how=self.how)
        draw = np.random.default_rng(self.seed + 1).standard_normal
        return [None if part is None else draw(part.shape) for part in parts]


@st.composite
def recurrent_cases(draw, *, framework):
    """Draw a case that the framework's stock layers can be.

    Torch's know tanh, and relu in its simple one; sigmoid gates; `reset_after`; and directions
    side by side.
    """
    keras = framework == "keras"
    cell = draw(st.sampled_from(tuple(GATES)))
    gates = ("sigmoid", "hard_sigmoid", "hard_sigmoid_keras2") if keras else ("sigmoid",)
    activations = ("tanh", "relu", "linear") if keras else ("tanh", "relu")
    has_choice = keras or cell == "simple_rnn"
    how = Recurrence(
        cell=cell,
        layers=draw(st.integers(1, 2)),
        direction=draw(st.sampled_from(("forward", "backward", "both"))),
        merge=draw(st.sampled_from(tuple(KERAS_MERGES))) if keras else "concat",
        returned=draw(st.sampled_from(("sequence", "last_step", "final"))),
        backward_order=draw(st.sampled_from(("time", "processing"))),
        batch_first=draw(st.booleans()),
        activation=draw(st.sampled_from(activations)) if has_choice else "tanh",
        recurrent_activation=None if cell == "simple_rnn" else draw(st.sampled_from(gates)),
        reset_after=(not keras or draw(st.booleans())) if cell == "gru" else None,
    )
    return Case(
        how=how,
        batch=draw(st.integers(1, 3)),
        time=draw(st.integers(1, 5)),
        features=draw(st.integers(1, 4)),
        units=draw(st.integers(1, 4)),
        use_bias=draw(st.booleans()),
        given_states=draw(st.booleans()),
        unroll=keras and draw(st.booleans()),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


def parts_of(case, arrays):
    weights = {name: array for name, array in arrays.items() if name[:4] in ("weig", "bias")}
    return arrays["inputs"], arrays["hidden"], arrays.get("cell"), weights


def packed(parts):
    return np.concatenate([part.reshape(-1) for part in parts if part is not None])


def expected_of(case):
    parts = parts_of(case, case.arrays())
    outputs = reference.recurrent(*parts, how=case.how)
    d_inputs, d_hidden, d_cell, d_weights = reference.recurrent_backward(
        *case.d_parts(), *parts, how=case.how
    )
    d_states = {"hidden": d_hidden} | ({} if d_cell is None else {"cell": d_cell})
    return {
        "outputs": {"outputs": packed(outputs)},
        "input gradients": {"inputs": d_inputs} | (d_states if case.given_states else {}),
        "parameter gradients": d_weights,
    }


def inputs_of(case, arrays):
    states = [arrays[name] for name in ("hidden", "cell") if name in arrays]
    return [arrays["inputs"], *(states if case.given_states else [])]


def outcome_of(case, outcome, gradients):
    names = ("inputs", "hidden", "cell")
    return {
        "outputs": {"outputs": outcome.outputs},
        "input gradients": dict(zip(names, outcome.input_gradients, strict=False)),
        "parameter gradients": gradients,
    }


def run_torch(case, arrays, built_as=None):
    """Torch's layer; one that goes backwards alone is it on the reversed sequence."""
    import torch

    from parity.frameworks.torch_layer import run_torch_layer

    how = (built_as or case).how
    classes = {"simple_rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
    nonlinearity = {"nonlinearity": how.activation} if how.cell == "simple_rnn" else {}
    time_axis, sides = (1 if how.batch_first else 0), len(how.reverses)

    class Packed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.ModuleList(
                classes[how.cell](
                    case.features if layer == 0 else sides * case.units,
                    case.units,
                    num_layers=count,
                    bias=case.use_bias,
                    batch_first=how.batch_first,
                    bidirectional=sides == 2,
                    **nonlinearity,
                )
                for layer, count in enumerate(self.counts())
            ).double()

        def counts(self):
            # Reversing between layers is not torch's own.
            return [1] * how.layers if how.direction == "backward" else [how.layers]

        def forward(self, sequence, *states):
            lasts, row = [], 0
            for layer in self.layers:
                rows = slice(row, row := row + layer.num_layers * sides)
                first = [state[rows] for state in states]
                first = tuple(first) if how.cell == "lstm" else first[0] if first else None
                if how.direction == "backward":
                    sequence = sequence.flip(time_axis)
                sequence, last = layer(sequence, first or None if how.cell == "lstm" else first)
                if how.direction == "backward" and how.backward_order == "time":
                    sequence = sequence.flip(time_axis)
                lasts.append(last if how.cell == "lstm" else (last,))
            states = [torch.cat(group) for group in zip(*lasts, strict=True)]
            outputs = self.returned(sequence, states[0])
            return torch.cat([part.reshape(-1) for part in (outputs, *states)])

        def returned(self, sequence, hidden):
            if how.returned == "final":
                return torch.cat(list(hidden[-sides:]), dim=-1)
            if how.returned == "sequence":
                return sequence
            processed = how.direction == "backward" and how.backward_order == "processing"
            return sequence.select(time_axis, 0 if processed else -1)

    weights = parts_of(case, arrays)[3]
    split = how.direction == "backward"
    paths = {
        name: f"layers.{name[name.index('_l') + 2]}.{name.replace('_l1', '_l0')}"
        if split
        else f"layers.0.{name}"
        for name in weights
    }
    outcome = run_torch_layer(
        Packed(),
        inputs_of(case, arrays),
        packed(case.d_parts()),
        weights={paths[name]: array for name, array in weights.items()},
    )
    gradients = {name: outcome.parameter_gradients[path] for name, path in paths.items()}
    return outcome_of(case, outcome, gradients)


def slots_of(arrays, suffix):
    """Return the arrays of one direction of one layer, without their suffix."""
    named = ((name.partition("_l"), array) for name, array in arrays.items())
    return {parts[0]: array for parts, array in named if parts[1] + parts[2] == suffix}


def run_keras(case, arrays, built_as=None):
    runtime.select_keras_backend(None)
    importlib.import_module("keras")
    with runtime.precision("float64"):
        return run_keras_in_float64(case, arrays, (built_as or case).how)


@functools.cache
def keras2_hard_sigmoid():
    """Return Keras 2's hard sigmoid, registered: `Bidirectional` copies its layer's config."""
    import keras

    @keras.saving.register_keras_serializable("tests")
    def hard_sigmoid_keras2(x):
        return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)

    return hard_sigmoid_keras2


def keras_layer(case, how, layer):
    import keras

    gates = {}
    if how.cell != "simple_rnn":
        old = how.recurrent_activation == "hard_sigmoid_keras2"
        gates["recurrent_activation"] = keras2_hard_sigmoid() if old else how.recurrent_activation
    if how.cell == "gru":
        gates["reset_after"] = how.reset_after
    arguments = {
        "activation": how.activation,
        "use_bias": case.use_bias,
        # Only the sequence shows the last step of the backward direction.
        "return_sequences": layer < how.layers - 1 or how.returned != "final",
        "return_state": True,
        "unroll": case.unroll,
        **gates,
    }
    build = getattr(keras.layers, KERAS_CLASSES[how.cell])
    name = f"layer{layer}"
    if how.direction != "both":
        return build(case.units, go_backwards=how.direction == "backward", name=name, **arguments)
    return keras.layers.Bidirectional(
        build(case.units, name="cells", **arguments),
        merge_mode=KERAS_MERGES[how.merge],
        name=name,
    )


def packed_keras_layer(case, how):
    import keras

    kinds, sides = 2 if how.cell == "lstm" else 1, len(how.reverses)
    in_time = how.backward_order == "time"

    class Packed(keras.Layer):
        def __init__(self):
            super().__init__(name="packed")
            self.stack = [keras_layer(case, how, layer) for layer in range(how.layers)]

        def build(self):
            # Layer by layer: to trace `call` for its variables takes most of a second.
            width = case.features
            for layer in self.stack:
                layer.build((case.batch, case.time, width))
                width = layer.compute_output_shape((case.batch, case.time, width))[0][-1]

        def call(self, sequence, hidden=None, cell=None):
            states = [state for state in (hidden, cell) if state is not None]
            sequence = sequence if how.batch_first else keras.ops.swapaxes(sequence, 0, 1)
            lasts = []
            for index, layer in enumerate(self.stack):
                rows = range(index * sides, (index + 1) * sides)
                first = [state[row] for row in rows for state in states]
                sequence, *last = layer(sequence, initial_state=first or None)
                if sequence.ndim == 3 and how.direction == "backward" and in_time:
                    sequence = keras.ops.flip(sequence, axis=1)
                lasts += last
            states = [keras.ops.stack(lasts[kind::kinds]) for kind in range(kinds)]
            parts = [self.returned(sequence), *states]
            return keras.ops.concatenate([keras.ops.reshape(part, (-1,)) for part in parts])

        def returned(self, sequence):
            if how.returned == "sequence":
                return sequence if how.batch_first else keras.ops.swapaxes(sequence, 0, 1)
            if how.returned == "final":
                return sequence
            processed = how.direction == "backward" and not in_time
            return sequence[:, 0] if processed else sequence[:, -1]

    return Packed()


def run_keras_in_float64(case, arrays, how):
    from parity.frameworks.keras_layer import run_keras_layer

    layer, inputs = packed_keras_layer(case, how), inputs_of(case, arrays)
    layer.build()
    kind, two_biases = KERAS_CLASSES[how.cell], bool(how.reset_after)
    folders = folders_of(layer.stack)
    stored = {}
    for suffix, folder in folders.items():
        slots = slots_of(parts_of(case, arrays)[3], suffix)
        variables = to_keras_recurrent(kind, slots, two_biases=two_biases)
        stored |= {f"{folder}/{name}": array for name, array in variables.items()}
    outcome = run_keras_layer(layer, inputs, packed(case.d_parts()), weights=stored)
    gradients = {}
    for suffix, folder in folders.items():
        own = below(outcome.parameter_gradients, folder)
        slots = to_torch_recurrent_gradients(kind, own, two_biases=two_biases)
        gradients |= {f"{name}{suffix}": gradient for name, gradient in slots.items()}
    return outcome_of(case, outcome, gradients)


def folders_of(stack):
    """Return the path of each direction's cell in a stack, by the suffix of PyTorch's names."""
    return {
        recurrent_suffix(index, reverse=reverse): part.cell.path.removeprefix("packed/")
        for index, layer in enumerate(stack)
        for part, reverse in (
            (getattr(layer, "forward_layer", layer), False),
            (getattr(layer, "backward_layer", None), True),
        )
        if part is not None
    }


def below(named, folder):
    prefix = f"{folder}/"
    return {
        name.removeprefix(prefix): array for name, array in named.items() if name.startswith(prefix)
    }


RUNS = {"torch": run_torch, "keras": run_keras}


def bound_of(case, kind):
    on_torch = "keras" in sys.modules and runtime.select_keras_backend(None) == "torch"
    rounds = on_torch and case.how.recurrent_activation == "hard_sigmoid" and kind != "outputs"
    return HARD_SIGMOID_BOUND if rounds else BOUND


def assert_matches_reference(outcome, case, kinds=KINDS):
    expected = expected_of(case)
    for kind in kinds:
        scale = max(float(np.abs(array).max()) for array in expected[kind].values())
        assert_states_close(
            outcome[kind], expected[kind], atol=bound_of(case, kind) * scale, rtol=0.0, where=kind
        )


# A stack of two directions takes Keras on tensorflow half a second, and on jax, which compiles each
# anew, several: a half and a fifth of the profile's examples.
SHARE = 5 if os.environ["KERAS_BACKEND"] == "jax" else 2
examples = settings(max_examples=settings.default.max_examples // SHARE)


@examples
@given(case=recurrent_cases(framework="torch"))
def test_torch_recurrent_layer_matches_reference(case):
    assert_matches_reference(run_torch(case, case.arrays()), case)


@pytest.mark.backend
@examples
@given(case=recurrent_cases(framework="keras"))
def test_keras_recurrent_layer_matches_reference(case):
    assert_matches_reference(run_keras(case, case.arrays()), case)


def sample(cell, **changes):
    """Return a case of torch's and Keras' common ground; `changes` to how it runs."""
    how = {
        "cell": cell,
        "layers": 2,
        "direction": "both",
        "merge": "concat",
        "returned": "sequence",
        "backward_order": "time",
        "batch_first": True,
        "activation": "tanh",
        "recurrent_activation": None if cell == "simple_rnn" else "sigmoid",
        "reset_after": True if cell == "gru" else None,
    }
    return Case(
        how=Recurrence(**how | changes),
        batch=2,
        time=3,
        features=3,
        units=3,
        use_bias=True,
        given_states=True,
        unroll=False,
        seed=5,
    )


@pytest.mark.parametrize("framework", RUNS)
@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize(
    ("name", "fault", "kind"),
    [
        ("weight_ih_l0", "channels_swapped", "outputs"),
        ("weight_hh_l1_reverse", "element_bumped", "outputs"),
        ("bias_hh_l0_reverse", "zeroed", "outputs"),
        ("bias_ih_l1", "element_sign_flipped", "outputs"),
        ("hidden", "channels_swapped", "outputs"),
        ("weight_hh_l0", "through_float16", "input gradients"),
        ("weight_ih_l0_reverse", "through_float16", "parameter gradients"),
    ],
)
def test_recurrent_check_catches_a_fault_in_its_arrays(framework, cell, name, fault, kind):
    case = sample(cell)
    arrays = case.arrays()
    faulty = RUNS[framework](case, arrays | {name: seed_array_fault(fault, arrays[name])})

    with pytest.raises(DivergenceError, match=f"^{kind}: "):
        assert_matches_reference(faulty, case, (kind,))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("framework", "cell", "change"),
    [
        ("torch", "simple_rnn", {"activation": "relu"}),
        ("keras", "simple_rnn", {"activation": "linear"}),
        ("keras", "simple_rnn", {"activation": "relu"}),
        ("keras", "lstm", {"activation": "linear"}),
        ("keras", "lstm", {"recurrent_activation": "hard_sigmoid"}),
        ("keras", "gru", {"reset_after": False}),
        ("keras", "gru", {"recurrent_activation": "hard_sigmoid_keras2"}),
        ("keras", "gru", {"merge": "sum", "layers": 1}),
    ],
)
def test_recurrent_check_catches_a_wrong_convention(framework, cell, change, kind):
    case = sample(cell, **{key: value for key, value in change.items() if key == "layers"})
    if "merge" in change:
        # Merged to the same width: a wrong sum is a wrong value, not a wrong shape.
        case = sample(cell, **change)
        change = change | {"merge": "average"}
    built_as = dataclasses.replace(case, how=dataclasses.replace(case.how, **change))
    faulty = RUNS[framework](case, case.arrays(), built_as)

    with pytest.raises(DivergenceError, match=f"^{kind}: "):
        assert_matches_reference(faulty, case, (kind,))


@pytest.mark.parametrize("framework", RUNS)
@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("conventions", "change"),
    [
        ({}, {"direction": "backward"}),
        ({"direction": "backward"}, {"backward_order": "processing"}),
        ({"direction": "both", "returned": "final"}, {"returned": "last_step"}),
    ],
)
def test_recurrent_check_catches_a_wrong_direction(framework, cell, kind, conventions, change):
    case = sample(cell, **{"direction": "forward", "layers": 1} | conventions)
    built_as = dataclasses.replace(case, how=dataclasses.replace(case.how, **change))
    faulty = RUNS[framework](case, case.arrays(), built_as)

    with pytest.raises(DivergenceError, match=f"^{kind}: "):
        assert_matches_reference(faulty, case, (kind,))


@pytest.mark.parametrize("kind", KINDS)
def test_keras_gru_check_catches_gates_in_torch_order(kind, monkeypatch):
    monkeypatch.setitem(recurrent_layouts.GATE_ORDERS, "GRU", (0, 1, 2))
    case = sample("gru")

    with pytest.raises(DivergenceError, match=f"^{kind}: "):
        assert_matches_reference(run_keras(case, case.arrays()), case, (kind,))


@pytest.mark.backend
@pytest.mark.parametrize("unit_forget_bias", [True, False])
def test_keras_lstm_starts_with_the_reference_bias(unit_forget_bias):
    runtime.select_keras_backend(None)
    keras = importlib.import_module("keras")
    layer = keras.layers.LSTM(3, unit_forget_bias=unit_forget_bias)
    layer.build((None, 2, 4))
    stored = dict(zip(("kernel", "recurrent_kernel", "bias"), layer.get_weights(), strict=True))

    bias = to_torch_recurrent("LSTM", stored, two_biases=False)["bias_ih"]

    expected = reference.lstm_initial_bias(3, unit_forget_bias=unit_forget_bias)
    assert_close(bias, expected, atol=0.0, rtol=0.0)


def test_keras_lstm_with_merged_biases_computes_what_torch_does_with_two():
    case = sample("lstm")
    arrays = case.arrays()
    there = {name[:-3]: arrays[name] for name in arrays if name.endswith("_l0")}
    back = to_torch_recurrent(
        "LSTM", to_keras_recurrent("LSTM", there, two_biases=False), two_biases=False
    )

    merged = run_torch(case, arrays | {f"{name}_l0": array for name, array in back.items()})

    assert_matches_reference(merged, case)
