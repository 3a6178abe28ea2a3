"""Which of a model's variables are trained and which are carried, by canonical name.

Canonical are the PyTorch twin's names.
"""

from typing import Any

import keras

Tensor = Any

# A Keras variable's own name -> the slot of the layer. Both shifts are called bias.
_SLOTS = {"kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
_BUFFERS = {"moving_mean": "running_mean", "moving_variance": "running_var"}


def trained_parameters(model: keras.Model) -> list[tuple[str, Any]]:
    """Return `layer path.slot`, such as `stem.bn.weight`, and variable, in the model's order."""
    return [(canonical_name(variable), variable) for variable in model.trainable_variables]


def running_buffers(model: keras.Model) -> list[tuple[str, Any]]:
    """Return `layer path.slot`, such as `stem.bn.running_var`, and variable, in the model's order.

    A frozen kernel is none, nor is the state of a generator.
    """
    carried = [variable for variable in model.variables if variable.name in _BUFFERS]
    return [(canonical_name(variable), variable) for variable in carried]


def canonical_name(variable: Any) -> str:  # noqa: ANN401  # keras.Variable
    """Return `layer path.slot` of a variable, such as `stages.0.blocks.1.conv2.weight`."""
    layer, _, name = variable.path.rpartition("/")
    path = layer.rpartition("/")[2].replace("-", ".")
    return f"{path}.{(_SLOTS | _BUFFERS).get(name, name)}"
