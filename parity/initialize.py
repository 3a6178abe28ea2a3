"""Initial arrays of a model spec, drawn once in NumPy and handed to every twin.

Arrays are float32: a float64 net starts from the same values, widened. Imports numpy,
`parity.spec`, `parity.rng` and `parity.whitening`.
"""

import numpy as np
from numpy.typing import NDArray

from parity.errors import SpecError
from parity.rng import stream
from parity.spec.airbench import WHITENING_KERNEL, AirbenchSpec
from parity.spec.conventions import Conventions
from parity.spec.initializers import (
    Fans,
    Initializer,
    PartialDirac,
    UnitDeviation,
    Zeros,
    initializer,
)
from parity.spec.layers import BatchNorm2d, Conv2d, Linear, MaskedLayer, Shape, Slot
from parity.spec.model_spec import ModelSpec
from parity.whitening import whitening_filters

Array = NDArray[np.floating]


def initial_state(
    spec: ModelSpec, *, seed: int, images: Array | None = None
) -> dict[str, NDArray[np.float32]]:
    """Return every parameter and buffer of `spec` by `layer path.slot name`, in PyTorch layout.

    Each array has a stream of its own, keyed by seed and name: adding a layer changes no other one.

    Args:
        spec: The model.
        seed: Of the run.
        images: First training images `(n, h, w, c)`, normalized; only whitening filters need them.

    Raises:
        SpecError: If the model has whitening filters and there are no images, or of other channels.
    """
    state = {
        f"{layer.path}.{slot.name}": _initial_array(layer, slot, spec.conventions, seed=seed)
        for layer in spec.layers()
        if not isinstance(layer, MaskedLayer)
        for slot in layer.slots()
        if slot.role != "frozen"
    }
    if isinstance(spec, AirbenchSpec):
        state["whiten.weight"] = _whitening(spec, images)
    return {name: state[name] for name in spec.slots()}


def _whitening(spec: AirbenchSpec, images: Array | None) -> NDArray[np.float32]:
    found = np.asarray(()) if images is None else np.asarray(images)
    problem = "none" if images is None else _describe_misfit(found, spec)
    if problem is not None:
        message = (
            "whiten.weight: expected the first training images (n, h, w, c), normalized floats, "
            f"with {spec.in_channels} channels; got {problem}."
        )
        raise SpecError(message)
    filters = whitening_filters(found, kernel=WHITENING_KERNEL, order=spec.whitening_order)
    return filters.astype(np.float32)


def _describe_misfit(images: Array, spec: AirbenchSpec) -> str | None:
    """Return what images are instead of normalized ones that fit the model, or None."""
    is_fitting = images.ndim == 4 and images.shape[3] == spec.in_channels and len(images)
    if not is_fitting or min(images.shape[1:3]) < WHITENING_KERNEL:
        return f"shape {images.shape}"
    if not np.issubdtype(images.dtype, np.floating):
        return str(images.dtype)
    return None if np.isfinite(images).all() else "values that are not finite"


def _initial_array(
    layer: Conv2d | BatchNorm2d | Linear, slot: Slot, conventions: Conventions, *, seed: int
) -> NDArray[np.float32]:
    if isinstance(layer, BatchNorm2d):
        fill = 1.0 if slot.name in ("weight", "running_var") else 0.0
        return np.full(slot.shape, fill, dtype=np.float32)
    rule = initializer(initializer_name(layer, slot, conventions))
    generator = stream(seed, "initial", f"{layer.path}.{slot.name}")
    return _drawn(rule, generator, slot.shape, layer.fans()).astype(np.float32)


def _drawn(
    rule: Initializer, generator: np.random.Generator, shape: Shape, fans: Fans
) -> NDArray[np.float64]:
    if isinstance(rule, Zeros):
        return np.zeros(shape)
    if isinstance(rule, PartialDirac):
        filters = _drawn(rule.rest, generator, shape, fans)
        outputs, inputs, height, width = shape
        count = min(outputs, inputs)
        filters[:count] = 0.0
        filters[range(count), range(count), height // 2, width // 2] = 1.0
        return filters
    if isinstance(rule, UnitDeviation):
        drawn = _drawn(rule.base, generator, shape, fans)
        drawn /= drawn.std(ddof=1)
        return drawn
    if rule.distribution == "normal":
        return rule.deviation(fans) * generator.standard_normal(shape)
    return generator.uniform(-rule.bound(fans), rule.bound(fans), shape)


def initializer_name(layer: Conv2d | Linear, slot: Slot, conventions: Conventions) -> str:
    """Return the name of the initializer that the conventions give that slot."""
    if slot.name == "bias":
        return conventions.head_bias_init
    return conventions.conv_init if isinstance(layer, Conv2d) else conventions.head_weight_init
