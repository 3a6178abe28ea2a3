"""Layers that more than one family draws."""

from typing import Any

from parity.testing.pairs.drawing import Drawing

_ACTIVATIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("relu", {}),
    ("relu", {}),
    ("relu6", {}),
    ("gelu", {"approximate": False}),
    ("gelu", {"approximate": True}),
    ("leaky_relu", {"slope": 0.01}),
    ("leaky_relu", {"slope": 0.2}),
    ("elu", {"alpha": 1.0}),
    ("silu", {}),
    ("hard_silu", {}),
    ("tanh", {}),
    ("softplus", {}),
)


def activation(draw: Drawing, x: str) -> str:
    """Add one of the activations."""
    function, settings = draw.pick(_ACTIVATIONS)
    return draw.add("activation", x, function=function, **settings)


def dense(draw: Drawing, x: str, units: int, *, use_bias: bool = True) -> str:
    """Add a dense layer over the last axis."""
    weights = {"weight": (units, draw.shape(x)[-1])} | ({"bias": (units,)} if use_bias else {})
    return draw.add("dense", x, weights=weights)


def batch_norm(draw: Drawing, x: str) -> str:
    """Add a batch norm of the channels, or of features."""
    channels = draw.shape(x)[0]
    slots = ("weight", "bias", "running_mean", "running_var")
    return draw.add(
        "batch_norm",
        x,
        weights=dict.fromkeys(slots, (channels,)),
        epsilon=draw.pick((1e-5, 1e-3)),
        stats_decay=draw.pick((0.9, 0.99, 0.5)),
    )


def layer_norm(draw: Drawing, x: str) -> str:
    """Add a layer norm of the last axis."""
    width = draw.shape(x)[-1]
    weights = {"weight": (width,), "bias": (width,)}
    return draw.add("layer_norm", x, weights=weights, epsilon=draw.pick((1e-5, 1e-6, 1e-3)))


def maybe_softmax(draw: Drawing, x: str, *, probability: float) -> str:
    """Add a softmax, or do not."""
    return draw.add("softmax", x, axis=-1) if draw.chance(probability) else x
