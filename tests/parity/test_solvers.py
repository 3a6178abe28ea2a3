"""The solver cases of Benchopt's ResNet benchmark, those that its own suite skips among them.

Its test copies PyTorch weights to TensorFlow, makes two steps on 16 random images of 32x32 pixels
that all have label 1, and compares class probabilities to a relative 5e-4. It skips Adam ("not
aligned") and every case in evaluation mode after training, because of batch norm. Here none is
skipped and the tolerance is a thousand times tighter. Source: benchopt/benchmark_resnet_classif.
"""

import dataclasses

import numpy as np
import pytest

from parity.errors import DivergenceError
from parity.frameworks.build import build_twin
from parity.frameworks.net import Batch
from parity.initialize import initial_state
from parity.rng import stream
from parity.spec.conventions import TORCH
from parity.spec.optimizers import Lookahead, Update
from parity.spec.resnet import resnet_spec
from parity.testing import specs
from parity.testing.assertions import assert_close

BENCHOPT_RTOL, BENCHOPT_ATOL = 5e-4, 1e-4
TIGHTER = 1000.0

SPEC = resnet_spec(
    "resnet18:width=8",
    conventions=TORCH.conventions,
    in_channels=3,
    input_size=(32, 32),
    classes=10,
)
SGD = dataclasses.replace(specs.SGD, lr=1e-3, momentum=0.0)
SOLVERS = {
    "adam": Update(rule=dataclasses.replace(specs.ADAM, lr=1e-3)),
    "lookahead": Update(
        rule=SGD,
        averaging=Lookahead(every=5, slow_rate=0.8, starts_at="initial_weights", scores_slow=True),
    ),
    "sgd-penalty-momentum": Update(rule=dataclasses.replace(SGD, l2=0.5, momentum=0.9)),
    "best-sgd": Update(rule=dataclasses.replace(SGD, lr=0.1, l2=5e-4, momentum=0.9)),
}
STEPS = 2
BATCH = Batch(
    images=stream(0, "solver", "images").standard_normal((16, 32, 32, 3)).astype(np.float32),
    labels=np.ones(16, dtype=int),
    targets=np.eye(10)[np.ones(16, dtype=int)],
)


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def trained_probabilities(framework, update, *, wrong_rate=1.0):
    """Return what a twin makes of the batch after training, in evaluation and training mode."""
    net = build_twin(framework, SPEC, update=update, dtype="float64")
    net.load_state(initial_state(SPEC, seed=0))
    for _ in range(STEPS):
        net.step(BATCH, rate=update.rule.lr * wrong_rate)
    return [softmax(net.forward(BATCH.images, training=mode)) for mode in (False, True)]


def assert_aligned(actual, expected):
    assert_close(actual, expected, atol=BENCHOPT_ATOL / TIGHTER, rtol=BENCHOPT_RTOL / TIGHTER)


@pytest.mark.parametrize("solver", SOLVERS)
def test_solver_is_aligned_after_training_in_either_mode(solver):
    expected = trained_probabilities("torch", SOLVERS[solver])

    actual = trained_probabilities("keras", SOLVERS[solver])

    assert_aligned(actual, expected)


@pytest.mark.parametrize("solver", ["adam", "best-sgd"])
def test_the_tolerance_sees_a_wrong_rate(solver):
    expected = trained_probabilities("torch", SOLVERS[solver])

    actual = trained_probabilities("torch", SOLVERS[solver], wrong_rate=1.001)

    with pytest.raises(DivergenceError):
        assert_aligned(actual, expected)
