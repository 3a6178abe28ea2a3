"""Gaps between outcomes: of the sides of a clean pair, or of one side with and without a fault."""

import math

import numpy as np

from parity.frameworks.pairs.plan import Plan
from parity.testing.pairs.outcomes import (
    Quantities,
    build_measured,
    in_keras_layout,
    measure_built,
    measure_side,
)
from parity.testing.pairs.pair import Pair

# `clean_gap` of 180 pairs on tensorflow was at most 2e-14, and with constants in float32 1.3e-7.
EXACT_BOUND, FLOAT32_BOUND = 1e-10, 3e-7


def clean_gap(pair: Pair) -> float:
    """Return the largest gap between the two sides of a clean pair, in float64.

    Each quantity is judged against its own scale, gradients against the largest of the pass.
    """
    cotangent = pair.cotangent()
    torch = measure_side(pair.plan("torch"), "torch", cotangent)
    # A gradient per variable of Keras: where each lies is asked of the model itself.
    plan, built = pair.plan("keras"), build_measured(pair.plan("keras"), "keras")
    keras = measure_built(plan, "keras", built, cotangent)
    return max(
        largest_gap(actual, in_keras_layout(plan, expected, built), common_only=False)
        for actual, expected in (
            (keras.evaluation, torch.evaluation),
            (keras.training, torch.training),
        )
    )


def clean_bound(plan: Plan) -> float:
    """Return what `clean_gap` of a pair of this plan may be."""
    return FLOAT32_BOUND if float32_kinds(plan) else EXACT_BOUND


def largest_gap(actual: Quantities, expected: Quantities, *, common_only: bool) -> float:
    """Return the largest gap of two passes relative to scale; infinite where shapes differ.

    Args:
        actual: What is judged.
        expected: What it is judged against.
        common_only: Whether a quantity of `actual` that `expected` lacks is left out; otherwise it
            is an infinite gap.
    """
    if not common_only and set(actual) - set(expected):
        return math.inf
    scales = {name: float(np.abs(array).max()) for name, array in expected.items()}
    gradients = [scale for name, scale in scales.items() if "gradient" in name]
    scales |= {name: max(gradients) for name in expected if "gradient" in name}
    gaps = [0.0]
    for name in set(actual) & set(expected):
        if actual[name].shape != expected[name].shape:
            return math.inf
        gap = float(np.abs(actual[name] - expected[name]).max())
        if not math.isfinite(gap):
            return math.inf
        gaps.append(gap / scales[name] if scales[name] else gap)
    return max(gaps)


def float32_kinds(plan: Plan) -> tuple[str, ...]:
    """Return what a framework computes with float32 constants, whatever the dtype.

    Source: tensorflow 2.21.0, tf.nn.gelu, tf.nn.leaky_relu and tf.image.resize; keras 3.15.1 on
    tensorflow, MultiHeadAttention._compute_attention, which casts a Python number; torch 2.13.0,
    the backward pass of hardsigmoid, whose 1/6 is a float.
    """
    words = {str(word) for node in plan.nodes for word in (node.kind, *node.settings.values())}
    return tuple(sorted(words & {"attention", "bilinear", "gelu", "hard_sigmoid", "leaky_relu"}))
