"""Initial arrays of a model spec, drawn once in NumPy and handed to every twin.

Arrays are float32: a float64 net starts from the same values, widened. Imports numpy, `parity.spec`
and `parity.rng`.
"""

import numpy as np
from numpy.typing import NDArray

from parity.rng import stream
from parity.spec.conventions import Conventions
from parity.spec.initializers import Zeros, initializer
from parity.spec.layers import BatchNorm2d, Conv2d, Linear, MaskedLayer, Slot
from parity.spec.models import ResNetSpec

Array = NDArray[np.floating]


def initial_state(spec: ResNetSpec, *, seed: int) -> dict[str, NDArray[np.float32]]:
    """Return every parameter and buffer of `spec` by `layer path.slot name`, in PyTorch layout.

    Each array has a stream of its own, keyed by seed and name: adding a layer changes no other one.
    """
    return {
        f"{layer.path}.{slot.name}": _initial_array(layer, slot, spec.conventions, seed=seed)
        for layer in spec.layers()
        if not isinstance(layer, MaskedLayer)
        for slot in layer.slots()
    }


def _initial_array(
    layer: Conv2d | BatchNorm2d | Linear, slot: Slot, conventions: Conventions, *, seed: int
) -> NDArray[np.float32]:
    if isinstance(layer, BatchNorm2d):
        fill = 1.0 if slot.name in ("weight", "running_var") else 0.0
        return np.full(slot.shape, fill, dtype=np.float32)
    rule = initializer(initializer_name(layer, slot, conventions))
    if isinstance(rule, Zeros):
        return np.zeros(slot.shape, dtype=np.float32)
    generator = stream(seed, "initial", f"{layer.path}.{slot.name}")
    fans = layer.fans()
    if rule.distribution == "normal":
        return (rule.deviation(fans) * generator.standard_normal(slot.shape)).astype(np.float32)
    bound = rule.bound(fans)
    return generator.uniform(-bound, bound, slot.shape).astype(np.float32)


def initializer_name(layer: Conv2d | Linear, slot: Slot, conventions: Conventions) -> str:
    """Return the name of the initializer that the conventions give that slot."""
    if slot.name == "bias":
        return conventions.head_bias_init
    return conventions.conv_init if isinstance(layer, Conv2d) else conventions.head_weight_init
