"""Hypothesis strategies of specs and their inputs, small enough to run on any machine.

The only module of the toolkit that imports hypothesis.
"""

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from parity.rng import stream
from parity.spec.airbench import BLOCKS, SMALLEST_SIDE, AirbenchSpec
from parity.spec.conventions import Conventions
from parity.spec.initializers import INITIALIZERS, PartialDirac, UnitDeviation
from parity.spec.losses import BinaryCrossEntropy, CrossEntropy, LossSpec, TwoViewCrossEntropy
from parity.spec.model_spec import ModelSpec
from parity.spec.optimizers import Adam, OptimizerSpec, Sgd, Update
from parity.spec.resnet import ResNetSpec
from parity.testing.updates import UPDATES

_SEEDS = st.integers(0, 2**32 - 1)


def conventions() -> st.SearchStrategy[Conventions]:
    """Return a strategy of conventions, each field drawn by itself; the presets are among them."""
    filters = st.sampled_from(sorted(set(INITIALIZERS) - {"zeros"}))
    weights = filters.filter(lambda name: not isinstance(INITIALIZERS[name], PartialDirac))
    biases = weights.filter(lambda name: not isinstance(INITIALIZERS[name], UnitDeviation))
    return st.builds(
        Conventions,
        conv_bias=st.booleans(),
        stats_decay=st.sampled_from((0.5, 0.9, 0.99, 0.997)),
        bn_variance_correction=st.sampled_from((0, 1)),
        bn_epsilon=st.sampled_from((1e-5, 1.001e-5, 1e-3)),
        conv_init=filters,
        head_weight_init=weights,
        head_bias_init=biases | st.just("zeros"),
        stride_offset=st.sampled_from(("start", "end")),
    )


def resnet_specs() -> st.SearchStrategy[ResNetSpec]:
    """Return a strategy of ResNets of 2 to 6 channels on images of 5 to 20 pixels a side."""
    return _resnet_specs()


def optimizer_specs() -> st.SearchStrategy[OptimizerSpec]:
    """Return a strategy of update rules, every form of SGD and Adam among them."""
    return st.one_of(_sgd_specs(), _adam_specs())


def updates() -> st.SearchStrategy[Update]:
    """Return a strategy of updates: any form of SGD and Adam, or a row of the table of updates."""
    return st.one_of(
        optimizer_specs().map(lambda rule: Update(rule=rule)),
        st.sampled_from(list(UPDATES.values())),
    )


def loss_specs() -> st.SearchStrategy[LossSpec]:
    """Return a strategy of losses; one of two views needs an even number of images."""
    common: dict[str, st.SearchStrategy[Any]] = {
        "label_smoothing": st.sampled_from((0.0, 0.1)),
        "reduction": st.sampled_from(("mean", "sum")),
    }
    forms = st.sampled_from(("over_classes", "towards_half"))
    return st.one_of(
        st.builds(CrossEntropy, **common),
        st.builds(
            BinaryCrossEntropy,
            **common,
            smoothing_form=forms,
            binarized=st.just(value=False),
            target_threshold=st.just(0.0),
        ),
        st.builds(
            BinaryCrossEntropy,
            **common,
            smoothing_form=forms,
            binarized=st.just(value=True),
            target_threshold=st.sampled_from((0.0, 0.2)),
        ),
        st.builds(
            TwoViewCrossEntropy, **common, consistency_weight=st.sampled_from((0.0, 0.1, 1.0))
        ),
    )


def airbench_specs() -> st.SearchStrategy[AirbenchSpec]:
    """Return a strategy of small airbench networks, under any conventions."""
    return st.builds(
        AirbenchSpec,
        conventions=conventions(),
        widths=st.tuples(*[st.integers(1, 5)] * BLOCKS),
        depth=st.sampled_from((2, 3)),
        residual=st.sampled_from(("none", "before_activation", "after_activation")),
        logit_scale=st.sampled_from((1.0, 1.0 / 9.0)),
        gelu=st.sampled_from(("exact", "tanh")),
        whitening_order=st.sampled_from(("descending", "ascending")),
        in_channels=st.integers(1, 3),
        input_size=st.tuples(st.integers(SMALLEST_SIDE, 20), st.integers(SMALLEST_SIDE, 20)),
        classes=st.integers(2, 5),
    )


def images(spec: ModelSpec, n: int) -> st.SearchStrategy[NDArray[np.float32]]:
    """Return a strategy of `n` normal images `(n, c, h, w)` for that model, float32."""
    shape = (n, spec.in_channels, *spec.input_size)
    return _SEEDS.map(
        lambda seed: stream(seed, "strategy", "images").standard_normal(shape).astype(np.float32)
    )


@st.composite
def _resnet_specs(draw: st.DrawFn) -> ResNetSpec:
    blocks = draw(st.lists(st.integers(1, 2), min_size=1, max_size=3).map(tuple))
    # The spec refuses stochastic depth on a single block, which is always kept.
    depths = (0.0, 0.2, 0.5) if sum(blocks) > 1 else (0.0,)
    return ResNetSpec(
        conventions=draw(conventions()),
        block=draw(st.sampled_from(("basic", "bottleneck"))),
        blocks=blocks,
        stem=draw(st.sampled_from(("cifar", "imagenet"))),
        width=draw(st.integers(2, 6)),
        in_channels=draw(st.integers(1, 3)),
        input_size=draw(st.tuples(st.integers(5, 20), st.integers(5, 20))),
        classes=draw(st.integers(2, 5)),
        stochastic_depth=draw(st.sampled_from(depths)),
        dropout=draw(st.sampled_from((0.0, 0.3))),
    )


def _decays() -> dict[str, st.SearchStrategy[Any]]:
    return {
        "lr": st.sampled_from((0.001, 0.05, 0.1)),
        "l2_in_loss": st.booleans(),
        "l2": st.sampled_from((0.0, 5e-4, 0.02)),
        "decoupled_decay": st.sampled_from((0.0, 5e-4, 0.02)),
        "decay_scaled_by_lr": st.booleans(),
    }


@st.composite
def _sgd_specs(draw: st.DrawFn) -> Sgd:
    momentum = draw(st.sampled_from((0.0, 0.5, 0.9)))
    dampening = draw(st.sampled_from((0.0, 0.0, 0.3)))
    return draw(
        st.builds(
            Sgd,
            momentum=st.just(momentum),
            # The spec refuses Nesterov without momentum, where there is nothing to look ahead
            # along, and with dampening.
            nesterov=st.booleans() if momentum and not dampening else st.just(False),  # noqa: FBT003  # a value
            dampening=st.just(dampening),
            velocity_holds_lr=st.booleans(),
            **_decays(),
        )
    )


def _adam_specs() -> st.SearchStrategy[Adam]:
    return st.builds(
        Adam,
        beta1=st.sampled_from((0.0, 0.5, 0.9)),
        beta2=st.sampled_from((0.5, 0.99, 0.999)),
        epsilon=st.sampled_from((1e-8, 1e-7, 1e-3)),
        epsilon_placement=st.sampled_from(("corrected", "uncorrected")),
        amsgrad=st.booleans(),
        **_decays(),
    )
