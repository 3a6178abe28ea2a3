"""Layers forward and backward in float64 NumPy, with every convention as an argument.

Images are `(n, c, h, w)`. Inputs of any real dtype are widened to float64 first; nothing is changed
in place. A backward function takes the gradient of the loss with respect to the layer's outputs,
then what the forward took. Imports numpy, `parity.errors` and `parity.spec` only.
"""

from parity.reference.layers.activations import relu, relu_backward
from parity.reference.layers.convolution import conv2d, conv2d_backward
from parity.reference.layers.linear import add, add_backward, linear, linear_backward
from parity.reference.layers.normalization import batch_norm2d, batch_norm2d_backward
from parity.reference.layers.pooling import (
    global_average_pool,
    global_average_pool_backward,
    max_pool2d,
    max_pool2d_backward,
)
from parity.reference.layers.windows import window_pads

__all__ = [
    "add",
    "add_backward",
    "batch_norm2d",
    "batch_norm2d_backward",
    "conv2d",
    "conv2d_backward",
    "global_average_pool",
    "global_average_pool_backward",
    "linear",
    "linear_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "relu",
    "relu_backward",
    "window_pads",
]
