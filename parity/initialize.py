"""Initial arrays of a model spec, drawn once in NumPy and handed to every twin.

Arrays are float32: a float64 net starts from the same values, widened. Imports numpy, `parity.spec` and `parity.rng`.
"""

import math

import numpy as np
from numpy.typing import NDArray

from parity.rng import stream
from parity.spec.conventions import Conventions
from parity.spec.initializers import Zeros, initializer
from parity.spec.layers import BatchNorm2d, Conv2d, Layer, Linear, Slot
from parity.spec.models import ResNetSpec

Array = NDArray[np.floating]


def initial_state(spec: ResNetSpec, *, seed: int) -> dict[str, NDArray[np.float32]]:
    """Return every parameter and buffer of `spec` by `layer path.slot name`, in PyTorch layout, float32.

    Each array has a stream of its own, keyed by seed and name, so adding a layer changes no other layer.
    """
    return {
        f"{layer.path}.{slot.name}": _initial_array(layer, slot, spec.conventions, seed=seed)
        for layer in spec.layers()
        for slot in layer.slots()
    }


def fans(layer: Conv2d | Linear) -> dict[str, float]:
    """Return a layer's fans by name: inputs an output reads, outputs an input reaches, and their mean."""
    if isinstance(layer, Conv2d):
        area = layer.kernel**2
        fan_in, fan_out = layer.in_channels * area, layer.out_channels * area
    else:
        fan_in, fan_out = layer.in_features, layer.out_features
    return {"in": fan_in, "out": fan_out, "average": (fan_in + fan_out) / 2}


def _initial_array(
    layer: Layer, slot: Slot, conventions: Conventions, *, seed: int
) -> NDArray[np.float32]:
    if isinstance(layer, BatchNorm2d):
        fill = 1.0 if slot.name in ("weight", "running_var") else 0.0
        return np.full(slot.shape, fill, dtype=np.float32)
    rule = initializer(initializer_name(layer, slot, conventions))
    if isinstance(rule, Zeros):
        return np.zeros(slot.shape, dtype=np.float32)
    generator = stream(seed, "initial", f"{layer.path}.{slot.name}")
    deviation = math.sqrt(rule.scale / fans(layer)[rule.fan])
    if rule.distribution == "normal":
        return (deviation * generator.standard_normal(slot.shape)).astype(np.float32)
    bound = math.sqrt(3.0) * deviation
    return generator.uniform(-bound, bound, slot.shape).astype(np.float32)


def initializer_name(layer: Conv2d | Linear, slot: Slot, conventions: Conventions) -> str:
    """Return which initializer the conventions give that slot."""
    if slot.name == "bias":
        return conventions.head_bias_init
    return conventions.conv_init if isinstance(layer, Conv2d) else conventions.head_weight_init
