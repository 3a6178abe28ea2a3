"""Which HDF5 group of a Keras weights file belongs to which layer of a model spec.

Keras names a group after the layer's class and its place among the layers of that class in
`model.layers`. Imports `parity.spec` and `parity.errors` only.
"""

from collections import Counter

from parity.spec.layers import BatchNorm2d, Conv2d, Dropout, Layer, Linear, StochasticDepth
from parity.spec.model_spec import ModelSpec

# Layer kind of the spec -> Keras class.
KERAS_CLASSES: dict[type, str] = {
    Conv2d: "Conv2D",
    BatchNorm2d: "BatchNormalization",
    Linear: "Dense",
    Dropout: "Dropout",
    StochasticDepth: "Dropout",
}

# Keras class -> stem of its groups. Source: keras 3.15.1, saving_lib._save_container_state.
GROUP_STEMS = {
    "Conv2D": "conv2d",
    "BatchNormalization": "batch_normalization",
    "Dense": "dense",
    "Dropout": "dropout",
}


def keras_class(layer: Layer) -> str:
    """Return the class of the Keras layer that carries a spec layer's arrays."""
    return KERAS_CLASSES[type(layer)]


def numbered_groups(kinds: list[str]) -> list[str]:
    """Return the group of each layer, given the classes in the order of `model.layers`.

    >>> numbered_groups(["Conv2D", "BatchNormalization", "Conv2D"])
    ['conv2d', 'batch_normalization', 'conv2d_1']
    """
    seen: Counter[str] = Counter()
    groups = []
    for kind in kinds:
        stem = GROUP_STEMS[kind]
        groups.append(f"{stem}_{seen[kind]}" if seen[kind] else stem)
        seen[kind] += 1
    return groups


def keras_layer_order(spec: ModelSpec) -> tuple[Layer, ...]:
    """Return the layers of the spec so that each class is in the order of `model.layers`.

    A functional model sorts its layers by their distance to the output, farthest first, and layers
    at equal distance by the order in which a walk back from the output meets them. A block's last
    main convolution and its shortcut's are at equal distance, and the walk enters the first input
    of the addition, the main branch, first. So within a class the order is that of the spec.

    Source: keras 3.15.1, ops/function.py, map_graph.
    """
    return spec.layers()


def group_names(spec: ModelSpec) -> dict[str, Layer]:
    """Return the layer of each group of the spec's Keras twin."""
    layers = keras_layer_order(spec)
    groups = numbered_groups([keras_class(layer) for layer in layers])
    return dict(zip(groups, layers, strict=True))
