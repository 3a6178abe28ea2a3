"""Stochastic depth and dropout inside a training: both twins drop what NumPy drew, and no more.

The same tests run under each Keras backend, and what the nets were seen to drop is pinned: so three
processes with three backends are held to the same bits.
"""

import dataclasses
import hashlib

import numpy as np
import pytest

from parity.cli.options import open_stream, resolve
from parity.errors import SpecError
from parity.frameworks.build import FRAMEWORKS, build_twin
from parity.initialize import initial_state
from parity.lockstep import pair
from parity.lockstep.comparison import run_lockstep
from parity.lockstep.loop import model_spec, with_masks
from parity.lockstep.pair import LockstepSettings
from parity.masks import draw_masks
from parity.testing.assertions import assert_identical

DROPPING = "resnet8:width=4,stochastic_depth=0.5,dropout=0.3"
# Of every value kept by the net below over one epoch, whose last batch is a smaller one.
DIGEST = "aeb60908b200d2fc113d32f82a69a35b04449ea352b8f74a0856b2450755f5b4"


def open_training(*, recipe="best_sgd", data="digits", batch_size=16):
    overrides = [f"batch_size={batch_size}"]
    resolved = resolve(recipe, data=data, model=DROPPING, epochs=None, overrides=overrides)
    return resolved, open_stream(resolved, seed=0, folder=None, download=False)


def applied_masks(net, batch):
    """Return what a net lets through of each layer that drops something, read off its outputs."""
    trace = net.trace(batch.images, training=True, masks=batch.masks)
    return {
        path: (trace[path] != 0.0).any(axis=tuple(range(1, trace[path].ndim)), keepdims=True)
        if path.endswith("stochastic_depth")
        else trace[path] != 0.0
        for path in batch.masks
    }


def shifted_state(spec):
    """Return initial weights with every residual pushed up, so that nothing is 0 but what drops."""
    return {
        name: array + 3.0 if name.endswith(("bn2.bias", "shortcut.bn.bias")) else array
        for name, array in initial_state(spec, seed=0).items()
    }


def digest_of(masks):
    bits = b"".join(np.packbits(masks[path]).tobytes() for path in sorted(masks))
    return hashlib.sha256(bits).hexdigest()


@pytest.mark.backend
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_backend_drops_the_same_bits(framework):
    recipe, stream = open_training(data="synthetic", batch_size=150)
    # One stage, so that jax compiles each of its operations once a batch size.
    spec = dataclasses.replace(model_spec(recipe, stream), blocks=(3,))
    net = build_twin(framework, spec)
    net.load_state(shifted_state(spec))
    # Of the second epoch: its masks are not those of the first.
    places = [(1, index) for index in range(stream.steps_per_epoch)]
    batches = [
        with_masks(stream.batch(*place), spec, stream, step=stream.steps_per_epoch + place[1])
        for place in places
    ]

    applied = [applied_masks(net, batch) for batch in batches]

    assert len({len(batch.labels) for batch in batches}) == 2
    for (epoch, index), masks in zip(places, applied, strict=True):
        samples = stream.samples(epoch, index)
        drawn = draw_masks(spec, seed=stream.seed, epoch=epoch, samples=samples)
        for path, kept in masks.items():
            assert_identical(kept, drawn[path], where=f"{path}, batch {index}")
    paths = applied[0]
    joined = {path: np.concatenate([masks[path] for masks in applied]) for path in paths}
    assert digest_of(joined) == DIGEST


@pytest.mark.backend
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda masks: {}, r"3 missing \(dropout, stages"),
        (lambda masks: masks | {"stem.relu": masks["dropout"]}, r"1 unexpected \(stem\.relu\)"),
    ],
    ids=["none", "unknown"],
)
def test_a_net_refuses_to_train_on_other_masks_than_its_own(framework, damage, told):
    recipe, stream = open_training()
    spec = model_spec(recipe, stream)
    batch = with_masks(stream.batch(0, 0), spec, stream, step=0)
    net = build_twin(framework, spec)
    wrong = dataclasses.replace(batch, masks=damage(batch.masks))

    with pytest.raises(SpecError, match=told):
        net.step(wrong, rate=0.1)


@pytest.mark.backend
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_evaluation_drops_nothing(framework):
    recipe, stream = open_training()
    spec = model_spec(recipe, stream)
    plain = dataclasses.replace(spec, stochastic_depth=0.0, dropout=0.0)
    nets = [build_twin(framework, each) for each in (spec, plain)]
    for net in nets:
        net.load_state(initial_state(spec, seed=0))

    logits = [net.forward(stream.batch(0, 0).images, training=False) for net in nets]

    assert_identical(logits[0], logits[1])


def lockstep(*, recipe="best_sgd", steps=3, mode="resync", dtype="float64"):
    resolved, stream = open_training(recipe=recipe)
    settings = LockstepSettings(steps=steps, mode=mode, dtype=dtype)
    return run_lockstep(resolved, settings, stream=stream)


@pytest.mark.parametrize("recipe", ["best_sgd", "best_adam"])
def test_right_twins_that_drop_stay_within_the_bounds(recipe):
    record = lockstep(recipe=recipe, steps=4)

    assert record["verdict"] == "numerically equivalent", record["reason"]


@pytest.mark.parametrize(
    "settings", [{"mode": "free"}, {"dtype": "float32"}], ids=["free", "float32"]
)
def test_twins_that_drop_are_equivalent_in_every_mode(settings):
    record = lockstep(**settings)

    assert record["verdict"] == "numerically equivalent", record["reason"]
    # Nor is it that the noise, measured on masks of its own, hides everything.
    trials = record["detection_power"]
    assert [trial["fault"] for trial in trials if not trial["caught"]] == []


class Misled:
    """A net that is told to keep something else; all else is the net's own.

    `masks_at` gives the wrong masks of a 0-based step; what it was built as may be wrong, too.
    """

    def __init__(self, net, masks_at=None, *, first=0):
        self._net, self._masks_at, self._first = net, masks_at, first
        self._step = 0

    def __getattr__(self, name):
        return getattr(self._net, name)

    def _misled(self, masks):
        is_late = self._step < self._first
        return masks if self._masks_at is None or is_late else self._masks_at(self._step)

    def trace(self, images, *, training, masks):
        return self._net.trace(images, training=training, masks=self._misled(masks))

    def step(self, batch, *, rate, position, with_gradients):
        wrong = dataclasses.replace(batch, masks=self._misled(batch.masks))
        self._step += 1
        return self._net.step(wrong, rate=rate, position=position, with_gradients=with_gradients)


def drawn_otherwise(**changes):
    """Return the masks of each step drawn by another key, or at other rates."""
    _, stream = open_training()
    moved = changes.pop("steps_on", 0)
    seed, epoch = changes.pop("seed", stream.seed), changes.pop("epoch", 0)

    def masks_at(spec, step):
        samples = stream.samples(0, step + moved)
        wrong = dataclasses.replace(spec, **changes)
        return draw_masks(wrong, seed=seed, epoch=epoch, samples=samples)

    return masks_at


def unscaled(net):
    """Return the net with every kept value left as it is, not divided by the share kept."""
    for module in net._module.modules():
        if hasattr(module, "kept"):
            module.p = 0.0
    return net


FAULTS = {
    "another-seed": {"masks_at": drawn_otherwise(seed=1)},
    "another-epoch": {"masks_at": drawn_otherwise(epoch=1)},
    "another-step": {"masks_at": drawn_otherwise(steps_on=1)},
    "another-step-later": {"masks_at": drawn_otherwise(steps_on=1), "first": 1},
    "masks-of-another-rate": {"masks_at": drawn_otherwise(stochastic_depth=0.3)},
    "another-rate-of-depth": {"built_as": {"stochastic_depth": 0.5 + 1e-6}},
    "another-rate-of-dropout": {"built_as": {"dropout": 0.3 + 1e-6}},
    "missing-scale": {"tamper": unscaled},
}
DEPTH = "stages.1.blocks.0.stochastic_depth"
# Fault -> first quantity, where it shows, and the step.
NAMED = {
    "another-seed": ("forward", "stochastic_depth", 1),
    "another-epoch": ("forward", "stochastic_depth", 1),
    "another-step": ("forward", "stochastic_depth", 1),
    "another-step-later": ("loss", "", 2),
    "masks-of-another-rate": ("forward", "stochastic_depth", 1),
    "another-rate-of-depth": ("forward", DEPTH, 1),
    "another-rate-of-dropout": ("forward", "dropout", 1),
    "missing-scale": ("forward", DEPTH, 1),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_net_that_drops_otherwise_is_caught_and_named(monkeypatch, fault):
    build, changes = pair.build_net, FAULTS[fault]

    def build_misled(framework, spec, recipe, settings, **options):
        right = (
            spec
            if framework == "torch"
            else dataclasses.replace(spec, **changes.get("built_as", {}))
        )
        net = build("torch", right, recipe, settings, **options)
        if framework == "torch":
            return net
        masks_at = changes.get("masks_at")
        told = (lambda step: masks_at(spec, step)) if masks_at else None
        return Misled(
            changes.get("tamper", lambda it: it)(net), told, first=changes.get("first", 0)
        )

    monkeypatch.setattr(pair, "build_net", build_misled)

    record = lockstep(steps=2)

    quantity, where, step = NAMED[fault]
    first = record["first_divergence"]
    assert record["verdict"] == "diverges"
    assert (first["quantity"], first["step"]) == (quantity, step)
    assert where in first["where"]
