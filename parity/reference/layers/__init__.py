"""Layers forward and backward in float64 NumPy, with every convention as an argument.

Images are `(n, c, h, w)`. Inputs of any real dtype are widened to float64 first; nothing is changed
in place. A backward function takes the gradient of the loss with respect to the layer's outputs,
then what the forward took. Imports numpy, `parity.errors` and `parity.spec` only.
"""

from parity.reference.layers.activations import relu, relu_backward
from parity.reference.layers.convolution import conv2d, conv2d_backward
from parity.reference.layers.linear import add, add_backward, linear, linear_backward
from parity.reference.layers.normalization import batch_norm2d, batch_norm2d_backward
from parity.reference.layers.padding import pad2d, pad2d_backward
from parity.reference.layers.pooling import (
    average_pool2d,
    average_pool2d_backward,
    global_average_pool,
    global_average_pool_backward,
    max_pool2d,
    max_pool2d_backward,
)
from parity.reference.layers.rearrangement import (
    flatten,
    flatten_backward,
    pixel_shuffle,
    pixel_shuffle_backward,
    pixel_unshuffle,
    pixel_unshuffle_backward,
)
from parity.reference.layers.resampling import (
    Resampling,
    adaptive_average_pool2d,
    adaptive_average_pool2d_backward,
    resize2d,
    resize2d_backward,
    resize_matrix,
)
from parity.reference.layers.transposed import (
    conv_transpose2d,
    conv_transpose2d_backward,
    transposed_crops,
)
from parity.reference.layers.windows import window_pads

__all__ = [
    "Resampling",
    "adaptive_average_pool2d",
    "adaptive_average_pool2d_backward",
    "add",
    "add_backward",
    "average_pool2d",
    "average_pool2d_backward",
    "batch_norm2d",
    "batch_norm2d_backward",
    "conv2d",
    "conv2d_backward",
    "conv_transpose2d",
    "conv_transpose2d_backward",
    "flatten",
    "flatten_backward",
    "global_average_pool",
    "global_average_pool_backward",
    "linear",
    "linear_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "pad2d",
    "pad2d_backward",
    "pixel_shuffle",
    "pixel_shuffle_backward",
    "pixel_unshuffle",
    "pixel_unshuffle_backward",
    "relu",
    "relu_backward",
    "resize2d",
    "resize2d_backward",
    "resize_matrix",
    "transposed_crops",
    "window_pads",
]
