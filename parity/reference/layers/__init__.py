"""Layers forward and backward in float64 NumPy, with every convention as an argument.

Images are `(n, c, h, w)`. Inputs of any real dtype are widened to float64 first; nothing is changed
in place. A backward function takes the gradient of the loss with respect to the layer's outputs,
then what the forward took. Imports numpy, `parity.errors` and `parity.spec` only.
"""

from parity.reference.layers.activations import relu, relu_backward
from parity.reference.layers.attention import (
    multi_head_attention,
    multi_head_attention_backward,
    scaled_dot_product_attention,
    scaled_dot_product_attention_backward,
)
from parity.reference.layers.convolution import conv2d, conv2d_backward
from parity.reference.layers.embedding import (
    embedding,
    embedding_backward,
    embedding_mask,
)
from parity.reference.layers.gru import gru, gru_backward
from parity.reference.layers.linear import add, add_backward, linear, linear_backward
from parity.reference.layers.normalization import batch_norm2d, batch_norm2d_backward
from parity.reference.layers.pooling import (
    global_average_pool,
    global_average_pool_backward,
    max_pool2d,
    max_pool2d_backward,
)
from parity.reference.layers.recurrent import (
    lstm,
    lstm_backward,
    lstm_initial_bias,
    simple_rnn,
    simple_rnn_backward,
)
from parity.reference.layers.recurrent_stack import Recurrence, recurrent, recurrent_backward
from parity.reference.layers.windows import window_pads

__all__ = [
    "Recurrence",
    "add",
    "add_backward",
    "batch_norm2d",
    "batch_norm2d_backward",
    "conv2d",
    "conv2d_backward",
    "embedding",
    "embedding_backward",
    "embedding_mask",
    "global_average_pool",
    "global_average_pool_backward",
    "gru",
    "gru_backward",
    "linear",
    "linear_backward",
    "lstm",
    "lstm_backward",
    "lstm_initial_bias",
    "max_pool2d",
    "max_pool2d_backward",
    "multi_head_attention",
    "multi_head_attention_backward",
    "recurrent",
    "recurrent_backward",
    "relu",
    "relu_backward",
    "scaled_dot_product_attention",
    "scaled_dot_product_attention_backward",
    "simple_rnn",
    "simple_rnn_backward",
    "window_pads",
]
