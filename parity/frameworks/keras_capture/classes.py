"""Which class of Keras's own a layer is, and what its variables are called.

Source: keras 3.15.1, layers/layer.py and backend/common/variables.py.
"""

import re

import keras

from parity.frameworks.keras_capture.calls import Layer, Variable

# What the variables of the second layer of a `Bidirectional` begin with.
BACKWARD = "backward_layer/"


def stock_class(layer: Layer) -> str | None:
    """Return the name of the class of Keras's own that a layer is, or is derived from."""
    if isinstance(layer, keras.Model):
        return None
    for base in type(layer).__mro__:
        if base in (keras.Layer, keras.layers.Wrapper, keras.layers.Lambda):
            return None
        if base.__module__.startswith("keras.src.layers."):
            return base.__name__
    return None


def native_name(layer: Layer) -> str:
    """Return the class of a layer with where it comes from."""
    kind = type(layer)
    where = "keras.layers" if kind.__module__.startswith("keras.src.layers.") else kind.__module__
    return f"{where}.{kind.__name__}"


def plain_name(name: str) -> str:
    """Return the name of a class in small letters: `log_softmax` of `LogSoftmax`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", name).lower()


def variable_names(layer: Layer) -> list[str]:
    """Return the paths of a built layer's variables below it, each once."""
    names: list[str] = []
    for variable in layer.weights:
        below = path_below(layer, variable)
        half = _half_of(layer, variable)
        name = f"{half}{below.rpartition('/')[2]}" if half else below
        names.append(name if name not in names else f"{name}_{len(names)}")
    return names


def _half_of(layer: Layer, variable: Variable) -> str:
    """Return which of the two layers of a `Bidirectional` has a variable; nothing of another."""
    if not isinstance(layer, keras.layers.Bidirectional):
        return ""
    is_backward = any(variable is one for one in layer.backward_layer.weights)
    return BACKWARD if is_backward else "forward_layer/"


def path_below(layer: Layer, variable: Variable) -> str:
    """Return a variable's path below its layer, such as `kernel` or `query/kernel`."""
    path: str = variable.path
    before, found, below = path.partition(f"{layer.name}/")
    while found and before and not before.endswith("/"):
        _, found, below = below.partition(f"{layer.name}/")
    return below if found else path.rpartition("/")[2]
