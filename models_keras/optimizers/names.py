"""Which of a model's variables are trained, by canonical name: the PyTorch twin's."""

from typing import Any

import keras

Tensor = Any

# A Keras variable's own name -> the slot of the layer. Both shifts are called bias.
_SLOTS = {"kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}


def trained_parameters(model: keras.Model) -> list[tuple[str, Any]]:
    """Return `layer path.slot`, such as `stem.bn.weight`, and variable, in the model's order."""
    return [(canonical_name(variable), variable) for variable in model.trainable_variables]


def canonical_name(variable: Any) -> str:  # noqa: ANN401  # keras.Variable
    """Return `layer path.slot` of a trained variable, such as `stages.0.blocks.1.conv2.weight`."""
    layer, _, name = variable.path.rpartition("/")
    path = layer.rpartition("/")[2].replace("-", ".")
    return f"{path}.{_SLOTS.get(name, name)}"
