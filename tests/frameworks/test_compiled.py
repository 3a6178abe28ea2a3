"""Compiled nets: the same numbers as plain ones, and nothing of the compiler in what they write."""

import functools
from contextlib import nullcontext

import h5py
import numpy as np
import pytest
import torch
from torch._dynamo.exc import FailOnRecompileLimitHit

from parity import runtime
from parity.compare.gaps import layer_gap, tensor_gap
from parity.errors import ParityError
from parity.frameworks import torch_net
from parity.frameworks.build import build_twin
from parity.frameworks.net import Batch
from parity.initialize import initial_state
from parity.lockstep.bounds import step_bounds
from parity.masks import draw_masks
from parity.rng import stream
from parity.spec.conventions import TORCH
from parity.spec.losses import CrossEntropy, build_targets
from parity.spec.optimizers import Update
from parity.spec.resnet import ResNetSpec
from parity.testing import specs
from parity.testing.assertions import assert_identical, relative_gap

LOSS = CrossEntropy(label_smoothing=0.0, reduction="mean")


def twin_spec(*, blocks=(1,), **options):
    """Return a ResNet of one block, or of few: it compiles in seconds."""
    return ResNetSpec(
        conventions=TORCH.conventions,
        block="basic",
        blocks=blocks,
        stem="cifar",
        width=4,
        in_channels=1,
        input_size=(8, 8),
        classes=10,
        **options,
    )


def twin_batch(spec, *, step=0, size=16):
    generator = stream(0, "compiled", step)
    labels = generator.integers(0, spec.classes, size)
    return Batch(
        images=generator.standard_normal((size, *spec.input_size, 1)).astype(np.float32),
        labels=labels,
        targets=build_targets(LOSS, labels, classes=spec.classes),
        masks=draw_masks(spec, seed=0, epoch=step, samples=np.arange(size)),
    )


def twins(framework, spec, **settings):
    """Return a plain and a compiled twin of the same weights."""
    nets = [
        build_twin(framework, spec, update=Update(rule=specs.SGD), compiled=compiled, **settings)
        for compiled in (False, True)
    ]
    for net in nets:
        net.load_state(initial_state(spec, seed=0))
    return nets


def step_ratios(plain, compiled, batch, *, step):
    """Return how far a step from the same state takes the nets apart, as shares of the bounds."""
    compiled.load_state(plain.state())
    compiled.load_optimizer_state(plain.optimizer_state())
    expected, actual = (net.step(batch, rate=0.1, with_gradients=True) for net in (plain, compiled))
    bounds = step_bounds(step=step + 1, loss=expected.loss, kind="sgd", pixels=64)
    states = compiled.state(), plain.state()
    slots = [net.optimizer_state().slots["momentum_buffer"] for net in (compiled, plain)]
    names = [name for name in states[0] if "running" in name]
    return {
        "loss": abs(actual.loss - expected.loss) / bounds.loss,
        "gradients": layer_gap(actual.gradients, expected.gradients).gap / bounds.gradients,
        "statistics": tensor_gap(*states, names=names).gap / bounds.running_statistics,
        "slots": layer_gap(*slots).gap / bounds.slots,
        "state": layer_gap(*states).gap / bounds.parameters,
    }


def names_in(path, framework):
    """Return the names of what a file of weights holds."""
    if framework == "torch":
        return list(torch.load(path, weights_only=True))
    names = []
    with h5py.File(path) as file:
        file.visit(names.append)
    return names


@pytest.fixture(autouse=True)
def forgetful_compiler():
    """Forget what torch has compiled for the modules of other tests, and then for this one's."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def traced(monkeypatch):
    """Let the compiler trace only, and list the batch size of each graph it makes."""
    sizes = []

    def keep(graph, inputs, **_options):
        (images,) = [each for each in inputs if each.dim() == 4 and each.shape[-1] in (6, 8)]
        sizes.append(images.shape[0])
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=keep))
    return sizes


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_a_compiled_twin_stays_within_the_bounds_of_a_lockstep(framework):
    spec = twin_spec()
    nets = twins(framework, spec, dtype="float64")

    ratios = [step_ratios(*nets, twin_batch(spec, step=step), step=step) for step in range(3)]

    assert {name for each in ratios for name, ratio in each.items() if ratio > 1.0} == set()
    assert any(ratio > 0.0 for each in ratios for ratio in each.values()), "nothing was compiled"


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_a_compiled_float32_step_differs_by_rounding_and_by_no_more(
    small_net, small_batch, framework
):
    plain, compiled = small_net(framework), small_net(framework, compiled=True)

    expected = plain.step(small_batch(), rate=0.1, with_gradients=True).gradients
    actual = compiled.step(small_batch(), rate=0.1, with_gradients=True).gradients

    gaps = [relative_gap(actual[name], gradient) for name, gradient in expected.items()]
    gaps += [relative_gap(compiled.state()[name], array) for name, array in plain.state().items()]
    assert 0.0 < max(gaps) < 1e-5


def test_masks_are_read_at_each_step_by_a_compiled_twin(traced):
    spec = twin_spec(blocks=(2,), stochastic_depth=0.5, dropout=0.5)
    plain, compiled = twins("torch", spec)
    batches = [twin_batch(spec, step=step) for step in range(3)]

    losses = [[net.step(batch, rate=0.1).loss for batch in batches] for net in (plain, compiled)]

    assert losses[0] == losses[1]
    assert traced == [16]


def test_a_size_keeps_its_code_whatever_sizes_came_between(small_net, small_batch, traced):
    net = small_net("torch", compiled=True)

    for size in (8, 5, 8, 3, 5):
        net.step(small_batch(size), rate=0.1)

    assert traced == [8, 5, 3]


def test_more_sizes_than_torchs_own_limit_are_compiled(small_net, small_batch, traced):
    net = small_net("torch", compiled=True)

    for size in range(2, 11):
        net.forward(small_batch(size).images, training=False)

    assert traced == list(range(2, 11))


def test_a_compiled_net_never_runs_uncompiled(small_net, small_batch, traced, monkeypatch):
    monkeypatch.setattr(torch_net, "_RECOMPILE_LIMIT", 1)
    net = small_net("torch", compiled=True)
    net.forward(small_batch(4).images, training=False)

    with pytest.raises(FailOnRecompileLimitHit, match="fullgraph=True"):
        net.forward(small_batch(5).images, training=False)


@pytest.mark.parametrize("memory_format", ["channels_first", "channels_last"])
def test_the_compiler_keeps_the_memory_format_that_was_asked_for(
    small_net, monkeypatch, memory_format
):
    asked = {}
    monkeypatch.setattr(torch, "compile", lambda module, **options: asked.update(options))

    small_net("torch", compiled=True, memory_format=memory_format)

    may_change = asked["options"]["layout_optimization"]
    assert may_change == (memory_format == "channels_last")


def test_a_trace_of_a_compiled_net_has_the_plain_nets_layers(small_net, small_batch, traced):
    plain, compiled = small_net("torch"), small_net("torch", compiled=True)
    compiled.step(small_batch(), rate=0.0)
    compiled.load_state(plain.state())

    expected, actual = (net.trace(small_batch().images, training=True) for net in (plain, compiled))

    assert list(actual) == list(expected)
    assert_identical(actual["head"], expected["head"])


@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_a_compiled_net_names_its_arrays_as_the_plain_one_does(framework, tmp_path):
    plain, compiled = twins(framework, twin_spec())
    paths = [tmp_path / f"{name}.weights.h5" for name in ("plain", "compiled")]

    for net, path in zip((plain, compiled), paths, strict=True):
        net.save_weights(path)

    assert list(compiled.state()) == list(plain.state())
    assert compiled.parameter_names() == plain.parameter_names()
    assert names_in(paths[1], framework) == names_in(paths[0], framework)


def test_a_compiled_net_stays_compiled_in_another_precision(small_net):
    net = small_net("torch", compiled=True).astype("float64")

    assert net.compiled


@pytest.mark.backend
def test_keras_is_compiled_on_every_backend_but_torch(small_net):
    is_torch = runtime.select_keras_backend(None) == "torch"
    refusal = pytest.raises(ParityError, match="got Keras on torch") if is_torch else nullcontext()

    with refusal:
        assert small_net("keras", compiled=True).compiled


def test_a_missing_compiler_is_named_before_anything_is_built(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")

    with pytest.raises(ParityError, match=r"'no-such-compiler'.*apt-get install g\+\+"):
        build_twin("torch", twin_spec(), compiled=True)


def test_an_accelerator_needs_no_compiler_for_processors(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")

    assert runtime.require_compiler("cuda:1") is None
    with pytest.raises(ParityError, match="no-such-compiler"):
        runtime.require_compiler("cpu")
