"""Activations in Keras: a layer, a function, or the `activation=` of the layer before."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from parity.frameworks.pairs.keras_tensors import Making, Part, Tensor
from parity.frameworks.pairs.plan import Node, Plan


def fused_activation(node: Node, plan: Plan) -> Callable[..., Any] | None:
    """Return the activation that the layer applies itself, where its style is to."""
    consumers = plan.consumers(node.name)
    if node.styles.get("keras") != "fused" or len(consumers) != 1:
        return None
    (consumer,) = consumers
    if consumer.kind != "activation" or consumer.group != node.group:
        return None
    return activation_function(consumer)


def _gelu(*, approximate: bool) -> Callable[..., Any]:
    def gelu(x: Tensor) -> Tensor:
        return keras.activations.gelu(x, approximate=approximate)

    return gelu


def activation_function(node: Node) -> Callable[..., Any]:
    """Return the function of an activation's node, as `activation=` takes it."""
    settings = node.settings
    parametric: dict[str, Callable[[], Callable[..., Any]]] = {
        "leaky_relu": lambda: lambda x: keras.activations.leaky_relu(x, settings["slope"]),
        "elu": lambda: lambda x: keras.activations.elu(x, settings["alpha"]),
        "gelu": lambda: _gelu(approximate=settings["approximate"]),
        "identity": lambda: keras.activations.linear,
    }
    name = settings["function"]
    if name in parametric:
        return parametric[name]()
    function: Callable[..., Any] = keras.activations.get(name)
    return function


def _tensor_function(name: str, settings: Mapping[str, Any]) -> Callable[..., Any]:
    options = {
        "leaky_relu": {"negative_slope": settings.get("slope")},
        "elu": {"alpha": settings.get("alpha")},
        "gelu": {"approximate": settings.get("approximate")},
    }.get(name, {})
    if name == "identity":
        return lambda x: x
    function = getattr(ops, name)
    return lambda x: function(x, **options)


def activation_parts(node: Node, making: Making) -> list[Part]:
    """Return a layer or a function, or nothing where the layer before applies it."""
    source = next((other for other in making.plan.nodes if other.name == node.inputs[0]), None)
    if source is not None and fused_activation(source, making.plan):
        return []
    name, settings = node.settings["function"], node.settings
    if node.styles.get("keras") == "functional":
        return [Part(call=_tensor_function(name, settings))]
    classes: dict[str, Callable[[], Any]] = {
        "relu": lambda: keras.layers.ReLU(name=making.name),
        "relu6": lambda: keras.layers.ReLU(max_value=6.0, name=making.name),
        "leaky_relu": lambda: keras.layers.LeakyReLU(
            negative_slope=settings["slope"], name=making.name
        ),
        "elu": lambda: keras.layers.ELU(alpha=settings["alpha"], name=making.name),
    }
    default = lambda: keras.layers.Activation(activation_function(node), name=making.name)  # noqa: E731  # as the rows above
    return [Part(call=classes.get(name, default)(), is_main=True)]


def softmax_parts(node: Node, making: Making) -> list[Part]:
    """Return a layer or a function."""
    axis = node.settings["axis"]
    if node.styles.get("keras") == "functional":
        return [Part(call=lambda x: ops.softmax(x, axis=axis))]
    return [Part(call=keras.layers.Softmax(axis=axis, name=making.name), is_main=True)]
