"""Whole models: either twin against the float64 reference, layer by layer and step by step.

Any conventions, any small ResNet and any update rule, from arrays of which none is at its default.
Every step of a twin is judged from the state the twin itself had before it, so that rounding in one
step is not counted in the next.
"""

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from conversion.layouts import move_axes
from parity import runtime
from parity.compare.gaps import NOTHING, Worst, layer_gap, tensor_gap, update_gap
from parity.frameworks.build import FRAMEWORKS, PLAIN_LOSS, PLAIN_UPDATE, build_twin
from parity.frameworks.net import Batch
from parity.initialize import initial_state
from parity.lockstep.steps import rule_gap, stored_roundings, take_snapshot
from parity.masks import draw_masks
from parity.reference.losses import evaluate_loss
from parity.reference.network import network_backward, network_nodes, network_trace, record_network
from parity.reference.optimizers import initial_slots, penalty, update_parameters
from parity.rng import stream
from parity.spec.airbench import AirbenchSpec
from parity.spec.conventions import KERAS
from parity.spec.losses import (
    BinaryCrossEntropy,
    CrossEntropy,
    LossSpec,
    TwoViewCrossEntropy,
    build_targets,
)
from parity.spec.model_spec import ModelSpec
from parity.spec.optimizers import Group, Sgd, Update
from parity.spec.position import position_at
from parity.testing import specs, strategies
from parity.testing.faults import (
    CONVENTION_FAULTS,
    OPTIMIZER_FAULTS,
    seed_array_fault,
    seed_spec_fault,
)

# Largest gap allowed, on the scale of each quantity: a layer's largest output; the loss, or 1; the
# largest gradient or slot of a convolution and its batch norm; the largest of a running statistic;
# the layer's largest update. Some twenty to seventy times the worst of 3,800 random trials.
BOUNDS = {
    "state": 0.0,
    "evaluation outputs": 1e-12,
    "training outputs": 1e-11,
    "logits": 1e-11,
    "loss": 1e-12,
    "gradients": 1e-11,
    "buffers": 1e-12,
    "update rule": 1e-13,
    "trajectory": 1e-10,
}

# A Keras model costs ten times what a torch module does to build and run, some 1 to 2 s.
KERAS_EXAMPLES = max(1, settings.default.max_examples // 8)

# A ReLU whose input is this small beside its layer's largest may be on in one twin and off in the
# other, from rounding alone; the nearest of some thousand units lies about 1e-4 away.
KINK = 1e-9

# Fewest values a channel of a batch norm may have: of two, batch norm makes +1 and -1 whatever they
# were, and the gradient to what came before is a difference of equal numbers.
VALUES = 8

# Of the scheduled rate, so that a rule that reads the base rate where it should not is seen.
RATE_FACTORS = (0.7, 0.4)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What both a twin and the reference are given."""

    spec: ModelSpec
    update: Update = PLAIN_UPDATE
    loss: LossSpec = PLAIN_LOSS
    seed: int = 0

    def batch(self, step: int) -> Batch:
        generator = stream(self.seed, "trial", "batch", step)
        size = batch_size(self.spec)
        shape = (size, *self.spec.input_size, self.spec.in_channels)
        labels = generator.integers(0, self.spec.classes, size)
        masks = draw_masks(self.spec, seed=self.seed, epoch=step, samples=range(size))
        return Batch(
            images=generator.standard_normal(shape).astype(np.float32),
            labels=labels,
            targets=build_targets(self.loss, labels, classes=self.spec.classes),
            masks=masks,
        )

    def state(self) -> dict[str, Any]:
        """Return initial weights with everything that starts at 0 or 1 moved away from it."""
        state = {}
        images = self.batch(0).images
        for name, array in initial_state(self.spec, seed=self.seed, images=images).items():
            noise = stream(self.seed, "trial", name).standard_normal(array.shape)
            is_variance = name.endswith("running_var")
            state[name] = np.exp(0.3 * noise) if is_variance else array + 0.2 * noise
        return state


def batch_size(spec):
    """Return the images that give the last map `VALUES` values a channel: an even number from 4."""
    if isinstance(spec, AirbenchSpec):
        height, width = spec.last_map
    else:
        halvings = len(spec.blocks) - 1 + (2 if spec.stem == "imagenet" else 0)
        height, width = (math.ceil(side / 2**halvings) for side in spec.input_size)
    return 2 * max(2, math.ceil(VALUES / (height * width) / 2))


def channels_first(images):
    return move_axes(images, source="nhwc", target="nchw")


def run_reference(trial, state, *, step):
    """Return the reference's tape, loss and gradients of a training step from `state`."""
    batch = trial.batch(step)
    images = channels_first(batch.images)
    tape = record_network(trial.spec, state, images, training=True, masks=batch.masks)
    loss, d_logits = evaluate_loss(trial.loss, tape.logits, batch.targets)
    gradients = network_backward(tape, d_logits)
    parameters = {name: state[name] for name in gradients}
    for name, array in parameters.items():
        rule = trial.update.assign(name, array.ndim).rule
        if rule.l2_in_loss:
            gradients[name] = gradients[name] + rule.l2 * array
    return tape, loss + penalty(trial.update, parameters), gradients


def is_at_a_kink(tape):
    """Return whether rounding could turn a ReLU: an input next to nothing beside its layer's.

    Where a sample's branch is dropped, a shortcut's zeros stay exactly that in every net.
    """
    relus = [node for node in network_nodes(tape.spec) if node.kind == "relu"]
    inputs = [np.abs(tape.input_of(node)) for node in relus]
    return any(
        array.min(initial=np.inf, where=array > 0.0) < KINK * array.max() for array in inputs
    )


def with_batch_norms(arrays):
    """Return the arrays by names that put a convolution and its batch norm into one layer.

    Batch norm undoes the scale of what it is given: where one channel alone is alive, the gradient
    of the convolution before it is zero but for epsilon; its rounding has the batch norm's scale.
    """
    return {re.sub(r"\bbn(\d?)\.", r"conv\1.bn_", name): array for name, array in arrays.items()}


def pair_gap(candidate, reference):
    return layer_gap(with_batch_norms(candidate), with_batch_norms(reference))


def trace_gap(actual, expected):
    """Return the worst gap over the layers; a pool may keep its single pixels or drop them."""
    reshaped = {path: actual[path].reshape(expected[path].shape) for path in expected}
    return tensor_gap(reshaped, expected)


def forward_gaps(net, trial, state):
    """Return the gaps of every layer's outputs in either mode."""
    batch, gaps = trial.batch(0), {}
    images = channels_first(batch.images)
    for mode, training in (("evaluation", False), ("training", True)):
        mode_of = {"training": training, "masks": batch.masks}
        expected, _ = network_trace(trial.spec, state, images, **mode_of)
        gaps[f"{mode} outputs"] = trace_gap(net.trace(batch.images, **mode_of), expected)
    return gaps


def step_gaps(net, trial, state, *, step, rate, expected_rate):
    """Return whether a training step of `net` from `state` is at a kink, and its gaps."""
    before = take_snapshot(net)
    tape, loss, gradients = run_reference(trial, state, step=step)
    record = net.step(trial.batch(step), rate=rate, position=position_of(step), with_gradients=True)
    after = take_snapshot(net)
    return is_at_a_kink(tape), {
        "logits": trace_gap({"logits": record.logits}, {"logits": tape.logits}),
        "loss": Worst(gap=abs(record.loss - loss) / max(1.0, loss), where=f"step {step}"),
        "gradients": pair_gap(record.gradients, gradients),
        "buffers": tensor_gap(after.state, tape.buffers),
        # On the twin's own gradients: Adam makes a full step of one that is zero but for rounding.
        "update rule": rule_gap(
            trial.update,
            before,
            after,
            gradients=record.gradients,
            rate=expected_rate,
            position=position_of(step),
        ),
    }


def position_of(step):
    return position_at(step, steps_per_epoch=2, steps=len(RATE_FACTORS))


def trajectory_gap(net, trial):
    """Return how far parameters and slots are, after all steps, from where the reference went.

    For rules that are continuous in the gradient, as SGD's is.
    """
    start = trial.state()
    names = [name for name, slot in trial.spec.slots().items() if slot.role == "parameter"]
    parameters = {name: start[name] for name in names}
    state, slots = start, initial_slots(trial.update, parameters)
    for step, factor in enumerate(RATE_FACTORS):
        tape, _, gradients = run_reference(trial, state, step=step)
        parameters, slots = update_parameters(
            trial.update,
            parameters,
            gradients,
            slots,
            rate=factor * trial.update.rule.lr,
            step=step,
            position=position_of(step),
        )
        state = start | tape.buffers | parameters
    after = take_snapshot(net)
    rate = factor * trial.update.rule.lr
    worst = update_gap(
        with_batch_norms(after.state),
        with_batch_norms(parameters),
        before=with_batch_norms(start),
        gradients=with_batch_norms(gradients),
        rate=rate,
        roundings=stored_roundings(trial.update),
    )
    held = after.optimizer_state.slots
    return max([worst, *(pair_gap(held[slot], slots[slot]) for slot in slots)], key=gap_of)


def gap_of(worst):
    return worst.gap


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The worst gap of each quantity, in the order they arise; a kink may have turned a mask."""

    gaps: dict[str, Worst]
    is_at_a_kink: bool = False

    def exceeded(self):
        """Return the quantities whose gap is beyond its bound, with the gap and its place."""
        return {name: worst for name, worst in self.gaps.items() if not worst.gap <= BOUNDS[name]}


def build_net(framework, trial, *, spec=None, update=None):
    """Return a float64 twin; `spec` and `update` seed a fault in what it is built as."""
    return build_twin(
        framework,
        spec or trial.spec,
        loss=trial.loss,
        update=update or trial.update,
        dtype="float64",
    )


def judge(net, trial, *, lr=None, arrays=None):
    """Compare `net` with the reference over an evaluation and two training steps.

    Args:
        net: The twin, just built.
        trial: What it should be.
        lr: Base learning rate that the net goes by; None is the trial's.
        arrays: Faulty arrays for the net to start from, by name.
    """
    expected = trial.state()
    unshared = net.state().keys() ^ expected.keys()
    if unshared:
        return Outcome(gaps={"state": Worst(gap=math.inf, where=min(unshared))})
    net.load_state(expected | (arrays or {}))
    gaps, kinks = forward_gaps(net, trial, expected), []
    for step, factor in enumerate(RATE_FACTORS):
        rates = {"rate": factor * (lr or trial.update.rule.lr)}
        rates["expected_rate"] = factor * trial.update.rule.lr
        kink, found = step_gaps(net, trial, expected, step=step, **rates)
        kinks.append(kink)
        gaps |= {name: max(found[name], gaps.get(name, NOTHING), key=gap_of) for name in found}
        expected = net.state()
    if isinstance(trial.update.rule, Sgd):
        gaps["trajectory"] = trajectory_gap(net, trial)
    return Outcome(gaps=gaps, is_at_a_kink=any(kinks))


def trials():
    """Return a strategy of trials: any conventions, small model, update rule and loss."""
    return st.builds(
        Trial,
        spec=strategies.resnet_specs() | strategies.airbench_specs(),
        update=strategies.updates(),
        loss=strategies.loss_specs(),
        seed=st.integers(0, 2**32 - 1),
    )


@pytest.fixture(autouse=True, scope="module")
def eager_tensorflow():
    """Run tensorflow functions eagerly: compiling one for every model drawn costs 1 to 3 s each."""
    if runtime.select_keras_backend(None) != "tensorflow":
        yield
        return
    import tensorflow as tf

    was_eager = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(run_eagerly=True)
    yield
    tf.config.run_functions_eagerly(run_eagerly=was_eager)


def assert_matches_reference(framework, trial):
    outcome = judge(build_net(framework, trial), trial)

    # Not a matter of bounds: one turned mask changes every gradient below it by any amount.
    assume(not outcome.is_at_a_kink)
    assert not outcome.exceeded()


@pytest.mark.slow
@given(trial=trials())
def test_any_torch_twin_matches_the_reference(trial):
    assert_matches_reference("torch", trial)


@pytest.mark.slow
@settings(max_examples=KERAS_EXAMPLES)
@given(trial=trials())
def test_any_keras_twin_matches_the_reference(trial):
    assert_matches_reference("keras", trial)


SGD = dataclasses.replace(
    specs.SGD, nesterov=True, l2=5e-4, decoupled_decay=0.02, decay_scaled_by_lr=False
)
ADAM = dataclasses.replace(specs.ADAM, epsilon=1e-3, l2=0.02, decoupled_decay=0.02)
KERAS_FORMS = KERAS.optimizer_forms()
BASIC = dataclasses.replace(specs.RESNET, in_channels=3, input_size=(8, 8))
BOTTLENECK = dataclasses.replace(
    BASIC, block="bottleneck", blocks=(1, 1), stem="imagenet", width=2, input_size=(18, 16)
)
ODD_SIZES = dataclasses.replace(
    BASIC, conventions=KERAS.conventions, stem="imagenet", in_channels=1, input_size=(13, 7)
)
TWO_VIEWS = TwoViewCrossEntropy(label_smoothing=0.1, consistency_weight=0.1, reduction="mean")
BINARY = BinaryCrossEntropy(
    label_smoothing=0.1,
    smoothing_form="over_classes",
    binarized=False,
    target_threshold=0.0,
    reduction="sum",
)
SUMMED = CrossEntropy(label_smoothing=0.2, reduction="sum")
FAST_BIASES = Group(
    members="norm_bias",
    lr_factor=64.0,
    decay_factor=1 / 64,
    trained_epochs=math.inf,
    schedule="shared",
)
FIXED = {
    "basic-cifar-sgd": Trial(spec=BASIC, update=Update(rule=SGD), loss=TWO_VIEWS),
    "bottleneck-imagenet-adam": Trial(spec=BOTTLENECK, update=Update(rule=ADAM), loss=BINARY),
    "keras-preset-odd-sizes": Trial(
        spec=ODD_SIZES,
        update=Update(
            rule=dataclasses.replace(
                SGD, velocity_holds_lr=KERAS_FORMS["velocity_holds_lr"], nesterov=False
            )
        ),
        loss=CrossEntropy(label_smoothing=0.1, reduction="sum"),
    ),
    "dropping-sgd": Trial(
        spec=dataclasses.replace(BASIC, blocks=(2,), stochastic_depth=0.5, dropout=0.3),
        update=Update(rule=SGD),
    ),
    "airbench-sgd": Trial(
        spec=specs.AIRBENCH, update=Update(rule=SGD, groups=(FAST_BIASES,)), loss=SUMMED
    ),
    "airbench-residual-before-adam": Trial(
        spec=dataclasses.replace(specs.AIRBENCH, depth=3, residual="before_activation"),
        update=Update(rule=ADAM),
    ),
    "airbench-residual-after-tanh": Trial(
        spec=dataclasses.replace(
            specs.AIRBENCH, depth=3, residual="after_activation", gelu="tanh", in_channels=1
        ),
        update=Update(rule=SGD),
    ),
}


@pytest.mark.backend
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", FIXED)
def test_twin_matches_the_reference_on_every_backend(framework, name):
    outcome = judge(build_net(framework, FIXED[name]), FIXED[name])

    assert not outcome.is_at_a_kink
    assert not outcome.exceeded()


def layer_paths(trace):
    """Return a trace's paths, without the three operations that only Keras makes layers of."""
    return {path for path in trace if not path.endswith((".pad", ".add", "flatten"))}


@pytest.mark.backend
@pytest.mark.parametrize("name", FIXED)
def test_layer_paths_are_the_same_in_both_twins_and_the_reference(name):
    trial = FIXED[name]
    images = trial.batch(0).images

    paths = [
        layer_paths(build_net(framework, trial).trace(images, training=False))
        for framework in FRAMEWORKS
    ]

    assert paths == [{node.path for node in network_nodes(trial.spec)}] * 2


# Even sides, so that a stride's offset shows; small, as a net is built for every fault.
TINY = Trial(
    spec=dataclasses.replace(
        BASIC, blocks=(1, 1), width=2, in_channels=2, input_size=(4, 4), classes=3
    )
)
NOTICED_BY = {
    "conv_bias_flipped": "state",
    "stats_decay_swapped": "buffers",
    "stats_decay_off": "buffers",
    "bn_variance_correction_flipped": "buffers",
    "bn_epsilon_off": "evaluation outputs",
    "bn_epsilon_tenfold": "evaluation outputs",
    "stride_offset_flipped": "evaluation outputs",
}


def first_exceeded(outcome):
    return next(iter(outcome.exceeded()), None)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("fault", CONVENTION_FAULTS)
def test_a_wrong_convention_is_noticed(framework, fault):
    wrong = dataclasses.replace(
        TINY.spec, conventions=seed_spec_fault(fault, TINY.spec.conventions)
    )

    outcome = judge(build_net(framework, TINY, spec=wrong), TINY)

    assert first_exceeded(outcome) == NOTICED_BY[fault]


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("field", ["stochastic_depth", "dropout"])
def test_a_wrong_rate_of_dropping_is_noticed(framework, field):
    trial = dataclasses.replace(
        TINY, spec=dataclasses.replace(TINY.spec, stochastic_depth=0.5, dropout=0.5)
    )
    wrong = dataclasses.replace(trial.spec, **{field: 0.5 + 1e-9})

    outcome = judge(build_net(framework, trial, spec=wrong), trial)

    assert first_exceeded(outcome) == "training outputs"


# Of these rules: their own dampening is nothing, and AMSGrad keeps another array.
UNFELT = ("dampening_off", "dampening_missing", "amsgrad_flipped")
RULE_FAULTS = [
    pytest.param(rule, fault, id=f"{rule.kind}-{fault}")
    for fault, (field, _) in OPTIMIZER_FAULTS.items()
    for rule in (SGD, ADAM)
    if hasattr(rule, field) and fault not in UNFELT
]


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(("rule", "fault"), RULE_FAULTS)
def test_a_wrong_update_rule_is_noticed(framework, rule, fault):
    trial = dataclasses.replace(TINY, update=Update(rule=rule))
    wrong = Update(rule=seed_spec_fault(fault, rule))

    outcome = judge(build_net(framework, trial, update=wrong), trial, lr=wrong.rule.lr)

    assert first_exceeded(outcome) == ("loss" if fault == "l2_in_loss_flipped" else "update rule")


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(
    ("name", "fault", "quantity"),
    [
        ("stem.conv.weight", "element_bumped", "evaluation outputs"),
        ("stages.0.blocks.0.bn1.running_var", "channels_swapped", "evaluation outputs"),
        ("stages.0.blocks.0.bn2.running_mean", "element_sign_flipped", "evaluation outputs"),
        ("stages.1.blocks.0.shortcut.conv.weight", "channels_swapped", "evaluation outputs"),
        ("stages.1.blocks.0.conv2.weight", "kernel_mirrored", "evaluation outputs"),
        ("head.bias", "through_float16", "evaluation outputs"),
    ],
)
def test_a_wrong_array_is_noticed(framework, name, fault, quantity):
    arrays = {name: seed_array_fault(fault, TINY.state()[name])}

    outcome = judge(build_net(framework, TINY), TINY, arrays=arrays)

    assert first_exceeded(outcome) == quantity


class Misreporting:
    """A right net, one of whose reports is wrong."""

    def __init__(self, net, method, report):
        self._net = net
        setattr(self, method, lambda *args, **kwargs: report(getattr(net, method)(*args, **kwargs)))

    def __getattr__(self, name):
        return getattr(self._net, name)


def bumped(arrays, name):
    return arrays | {name: seed_array_fault("element_bumped", arrays[name])}


def with_bumped_logits(record):
    return dataclasses.replace(record, logits=seed_array_fault("element_bumped", record.logits))


def with_bumped_gradient(record):
    return dataclasses.replace(record, gradients=bumped(record.gradients, "stem.conv.weight"))


def with_bumped_velocity(held):
    arrays = bumped(held.slots["momentum_buffer"], "head.weight")
    return dataclasses.replace(held, slots={"momentum_buffer": arrays})


@pytest.mark.parametrize(
    ("quantity", "method", "report"),
    [
        ("evaluation outputs", "trace", lambda outputs: bumped(outputs, "stages.0.blocks.0.relu1")),
        ("logits", "step", with_bumped_logits),
        ("loss", "step", lambda record: dataclasses.replace(record, loss=record.loss + 1e-9)),
        ("gradients", "step", with_bumped_gradient),
        ("update rule", "optimizer_state", with_bumped_velocity),
    ],
)
def test_a_wrong_report_is_noticed(quantity, method, report):
    trial = dataclasses.replace(TINY, update=Update(rule=SGD))

    outcome = judge(Misreporting(build_net("torch", trial), method, report), trial)

    assert first_exceeded(outcome) == quantity


def test_a_step_of_another_length_is_noticed_in_the_trajectory():
    trial = dataclasses.replace(
        TINY, update=Update(rule=dataclasses.replace(SGD, decoupled_decay=0.0))
    )
    net = build_net("torch", trial)
    net.load_state(trial.state())
    for step, factor in enumerate(RATE_FACTORS):
        net.step(trial.batch(step), rate=factor * trial.update.rule.lr * (1.0 + 1e-8))

    assert trajectory_gap(net, trial).gap > BOUNDS["trajectory"]


def test_a_unit_near_zero_counts_as_a_kink():
    state = TINY.state()
    state["stem.bn.weight"][0], state["stem.bn.bias"][0] = 1e-12, 1e-12

    tape, _, _ = run_reference(TINY, state, step=0)

    assert is_at_a_kink(tape)
