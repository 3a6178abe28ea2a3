"""Optimizer steps of users' own optimizers: right pairs agree, wrong rules are named."""

import numpy as np
import pytest

import parity
from parity import runtime
from parity.errors import CaptureError

torch = pytest.importorskip("torch")
runtime.select_keras_backend(None)
keras = pytest.importorskip("keras")
nn, layers = torch.nn, keras.layers

INPUTS = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)
LABELS = np.array([0, 1, 2, 0, 1, 2])
LOSSES = (nn.CrossEntropyLoss(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))


def torch_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.LayerNorm(7), nn.Linear(7, 3))


def keras_net():
    return keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(7, activation="gelu"),
            layers.LayerNormalization(epsilon=1e-5),
            layers.Dense(3),
        ]
    )


def compare(make_torch, keras_optimizer, *, make_schedule=None, steps=4):
    net = torch_net()
    optimizer = make_torch(net.parameters())
    schedule = None if make_schedule is None else (make_schedule(optimizer), None)
    return parity.compare_models(
        net, keras_net(), INPUTS, targets=LABELS, loss=LOSSES, schedule=schedule, steps=steps,
        optimizer=(optimizer, keras_optimizer), measures_power=False,
    )  # fmt: skip


RIGHT = {
    "sgd": (lambda p: torch.optim.SGD(p, lr=0.1), lambda: keras.optimizers.SGD(0.1)),
    "momentum": (
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    ),
    "adamw": (
        lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, eps=1e-12),
        lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1, epsilon=1e-12),
    ),
}


@pytest.mark.backend
@pytest.mark.parametrize("pair", RIGHT)
def test_optimizers_of_one_rule_make_one_step(pair):
    ours, theirs = RIGHT[pair]

    finding = compare(ours, theirs())

    steps = [figure for figure in finding.figures if figure.phase == "step"]
    assert finding.verdict == "numerically equivalent"
    assert len(steps) == 4 * 6


WRONG = {
    # torch adds the penalty to the gradient, Keras takes decay off the weight.
    "decay": (
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
        lambda: keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.01),
    ),
    "nesterov": (
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    ),
    "accumulator": (
        lambda p: torch.optim.Adagrad(p, lr=0.01),
        lambda: keras.optimizers.Adagrad(0.01, epsilon=1e-10),
    ),
}


@pytest.mark.parametrize("pair", WRONG)
def test_optimizers_of_another_rule_diverge_in_their_step(pair):
    ours, theirs = WRONG[pair]

    finding = compare(ours, theirs())

    assert (finding.verdict, finding.phase) == ("diverges", "step")


def test_schedules_are_followed_and_one_that_is_a_step_off_is_caught():
    def keras_optimizer(boundary):
        rates = keras.optimizers.schedules.PiecewiseConstantDecay([boundary], [0.1, 0.01])
        return keras.optimizers.SGD(rates)

    def compared(boundary):
        return compare(
            lambda p: torch.optim.SGD(p, lr=0.1),
            keras_optimizer(boundary),
            make_schedule=lambda optimizer: torch.optim.lr_scheduler.MultiStepLR(optimizer, [2]),
        )

    # Keras's first rate holds up to and with the boundary, counted from 0.
    assert compared(1).is_equivalent
    wrong = compared(2)
    assert wrong.verdict == "diverges"
    first = next(figure for figure in wrong.figures if figure.is_wrong)
    assert first.quantity.endswith("step 3")


def test_the_users_optimizers_make_no_step():
    net, model = torch_net(), keras_net()
    optimizer = torch.optim.Adam(net.parameters())
    theirs = keras.optimizers.Adam()
    before = [parameter.detach().clone() for parameter in net.parameters()]

    parity.compare_models(
        net, model, INPUTS, targets=LABELS, loss=LOSSES, optimizer=(optimizer, theirs)
    )

    assert optimizer.state == {}
    assert int(theirs.iterations) == 0
    assert all(map(torch.equal, before, net.parameters()))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"loss": None}, "expected loss="),
        ({"optimizer": (None, None)}, "expected one of the model's framework, torch"),
        ({"optimizer": None, "phases": ["step"]}, "expected optimizer="),
        ({"schedule": (None, 1)}, "expected None beside a Keras optimizer"),
    ],
    ids=["loss", "none", "phase", "schedule"],
)
def test_wrong_arguments_are_refused(arguments, expected):
    net = torch_net()
    optimizers = (torch.optim.SGD(net.parameters(), lr=0.1), keras.optimizers.SGD(0.1))
    call = {"targets": LABELS, "loss": LOSSES, "optimizer": optimizers, **arguments}

    with pytest.raises(CaptureError, match=expected):
        parity.compare_models(net, keras_net(), INPUTS, **call)


def test_an_optimizer_of_another_model_is_refused():
    optimizers = (torch.optim.SGD(torch_net().parameters(), lr=0.1), keras.optimizers.SGD(0.1))

    with pytest.raises(CaptureError, match=r"model\.parameters\(\)"):
        parity.compare_models(
            torch_net(), keras_net(), INPUTS, targets=LABELS, loss=LOSSES, optimizer=optimizers
        )
