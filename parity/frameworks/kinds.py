"""The words for what operations compute, the same in every framework.

Capture names an operation by the narrowest kind that fits, with the attributes listed here in
NumPy's sense: axes are counted in the framework's own order and are never negative, one number a
spatial axis for strides and the like, and padding is always the explicit `((before, after), ...)`
that the call amounts to. An attribute that the kind lists is always present. Alignment uses kinds
and attributes to find counterparts; what is equal is decided by values alone.
"""

# Kind -> its attributes. Kinds with weights name their slots behind a bar.
KINDS: dict[str, str] = {
    # Weighted. `channel_axis` is the axis of the operand that the weights run along.
    "conv": "channel_axis stride padding dilation groups | weight bias",
    "conv_transpose": "channel_axis stride padding output_padding dilation groups | weight bias",
    "dense": "channel_axis | weight bias",
    "einsum_dense": "equation | weight bias",
    "embedding": "| weight",
    "batch_norm": "channel_axis epsilon stats_decay | weight bias running_mean running_var",
    "layer_norm": "axes epsilon | weight bias",
    "rms_norm": "axes epsilon | weight",
    "group_norm": "channel_axis groups epsilon | weight bias",
    "prelu": "channel_axis | weight",
    # The layers of a stack are operations of their own, where they can be followed.
    **{
        kind: f"units layers bidirectional batch_axis {further}| see conversion.recurrent_layouts"
        for kind, further in (("lstm", ""), ("gru", "reset_after "), ("rnn", "activation "))
    },
    "attention": "heads | see conversion.attention_layouts",
    # An array of the state, or a fixed one, that takes part as an operand.
    "parameter": "| value",
    "constant": "",
    # Activations.
    "relu": "",
    "relu6": "",
    "leaky_relu": "slope",
    "elu": "alpha",
    "selu": "",
    "celu": "alpha",
    "gelu": "approximate",
    "silu": "",
    "mish": "",
    "sigmoid": "",
    "hard_sigmoid": "",
    "hard_silu": "",
    "tanh": "",
    "softplus": "",
    "softsign": "",
    "log_sigmoid": "",
    "softmax": "axis",
    "log_softmax": "axis",
    "glu": "axis",
    "dropout": "rate shared_axes",
    # Of one or two operands of one shape, or broadcast; `constant` is a number on one side, and
    # `constant_first` says that it is the left one. Both are left out between two tensors.
    **dict.fromkeys(
        ("add", "subtract", "multiply", "divide", "power", "maximum", "minimum"),
        "[constant constant_first]",
    ),
    **dict.fromkeys(
        ("negative", "abs", "exp", "log", "sqrt", "rsqrt", "square", "sin", "cos", "erf"), ""
    ),
    "clip": "low high",
    "cast": "dtype",
    "where": "",
    # Of axes.
    "reshape": "shape",
    "permute": "order",
    "concat": "axis",
    "stack": "axis",
    "slice": "[index]",
    "split": "axis sizes",
    "pad": "widths mode value",
    "expand": "shape",
    "flip": "axes",
    "roll": "shifts axes",
    **dict.fromkeys(("mean", "sum", "max", "min", "prod", "var", "std"), "axes keepdims"),
    # Over space.
    "max_pool": "channel_axis size stride padding dilation ceil",
    "avg_pool": "channel_axis size stride padding ceil counts_padding",
    "adaptive_avg_pool": "channel_axis output_size",
    "adaptive_max_pool": "channel_axis output_size",
    "resize": "channel_axis output_size mode corners",
    "pixel_shuffle": "channel_axis factor",
    # Products.
    "matmul": "",
    "einsum": "equation",
    "scaled_dot_product_attention": "",
    # A part that cannot be followed: its inputs and outputs are seen, nothing within.
    "opaque": "",
}
