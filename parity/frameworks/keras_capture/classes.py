"""Which class of Keras's own a layer is, and what its variables are called.

Source: keras 3.15.1, layers/layer.py and backend/common/variables.py.
"""

import re

import keras

from parity.frameworks.keras_capture.calls import Layer, Variable


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
        name = path_below(layer, variable)
        names.append(name if name not in names else f"{name}_{len(names)}")
    return names


def path_below(layer: Layer, variable: Variable) -> str:
    """Return a variable's path below its layer, such as `kernel` or `query/kernel`."""
    path: str = variable.path
    before, found, below = path.partition(f"{layer.name}/")
    while found and before and not before.endswith("/"):
        _, found, below = below.partition(f"{layer.name}/")
    return below if found else path.rpartition("/")[2]
