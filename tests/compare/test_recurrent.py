"""A recurrent stack of PyTorch is the layers that Keras stacks, in whatever order its axes are."""

import numpy as np
import pytest

import parity
from parity import runtime
from parity.rng import stream

torch = pytest.importorskip("torch")
runtime.select_keras_backend(None)
keras = pytest.importorskip("keras")
nn, layers = torch.nn, keras.layers

STEPS = stream(0, "inputs").standard_normal((5, 4, 3)).astype(np.float32)
BATCH = STEPS.transpose(1, 0, 2)


class Last(nn.Module):
    """The last state of a stack over steps `(t, n, c)`, and what is made of it."""

    def __init__(self, layer):
        super().__init__()
        self.rnn = layer(3, 4, 2, dropout=0.3)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        _, ends = self.rnn(x)
        return self.head((ends[0] if isinstance(ends, tuple) else ends)[-1])


def stacked(layer, **options):
    return keras.Sequential(
        [
            keras.Input((5, 3)),
            layer(4, return_sequences=True),
            layers.Dropout(0.3),
            layer(4, **options),
            layers.Dense(2),
        ]
    )


PAIRS = {"lstm": (nn.LSTM, layers.LSTM), "gru": (nn.GRU, layers.GRU)}


@pytest.mark.parametrize("kind", PAIRS)
def test_a_stack_over_time_first_steps_is_equivalent_to_layers_over_batches(kind):
    ours, theirs = PAIRS[kind]

    finding = parity.compare_models(Last(ours), stacked(theirs), STEPS, candidate_inputs=BATCH)

    assert finding.is_equivalent, finding.reason
    compared = [figure.reference for figure in finding.figures if figure.phase == "forward"]
    assert {"rnn.l0", "rnn.l1", "head"} <= set(compared)


def test_keras_layers_are_equivalent_to_a_stack_over_time_first_steps():
    finding = parity.compare_models(
        stacked(layers.GRU), Last(nn.GRU), BATCH, candidate_inputs=STEPS
    )

    assert finding.is_equivalent, finding.reason


def test_the_layer_of_a_stack_that_runs_backwards_is_named():
    finding = parity.compare_models(
        Last(nn.GRU), stacked(layers.GRU, go_backwards=True), STEPS, candidate_inputs=BATCH
    )

    assert finding.verdict == "diverges"
    assert finding.phase == "forward"
    assert finding.reference_layer == "rnn.l1"
