"""Layers as the conventions ask for them: stock `keras.layers` wherever one exists.

Mirrors `models_torch.layers`.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from parity.errors import SpecError
from parity.spec import layers as spec_layers
from parity.spec.conventions import Conventions, StrideOffset
from parity.spec.initializers import Fans, VarianceScaling
from parity.spec.initializers import initializer as initializer_spec
from parity.spec.paths import keras_name

Tensor = Any
Apply = Callable[[Tensor], Tensor]


def initializer(name: str, *, fans: Fans) -> keras.Initializer:
    """Return the initializer of that name for a layer with those fans."""
    rule = initializer_spec(name)
    if not isinstance(rule, VarianceScaling):
        return keras.initializers.Zeros()
    if rule.distribution == "normal":
        return keras.initializers.RandomNormal(stddev=rule.deviation(fans))
    bound = rule.bound(fans)
    return keras.initializers.RandomUniform(-bound, bound)


def conv2d(layer: spec_layers.Conv2d, *, conventions: Conventions) -> Apply:
    """Return the convolution `(n, h, w, c) -> (n, ceil(h / stride), ceil(w / stride), o)`."""
    same = conventions.stride_offset == "end" or layer.stride == 1 or layer.kernel == 1
    name = keras_name(layer.path)
    convolution = keras.layers.Conv2D(
        layer.out_channels,
        layer.kernel,
        strides=layer.stride,
        padding="same" if same else "valid",
        use_bias=layer.use_bias,
        kernel_initializer=initializer(conventions.conv_init, fans=layer.fans()),
        bias_initializer=initializer(conventions.head_bias_init, fans=layer.fans()),
        name=name,
    )
    if same:
        return convolution
    padding = keras.layers.ZeroPadding2D(layer.kernel // 2, name=f"{name}-pad")
    return lambda x: convolution(padding(x))


def batch_norm2d(
    layer: spec_layers.BatchNorm2d, *, conventions: Conventions
) -> keras.layers.BatchNormalization:
    """Return the batch normalization of `(n, h, w, c)` over `n h w`."""
    stock = conventions.bn_variance_correction == 0
    cls = keras.layers.BatchNormalization if stock else BatchNormalization
    return cls(
        momentum=conventions.stats_decay,
        epsilon=conventions.bn_epsilon,
        name=keras_name(layer.path),
    )


def max_pool2d(path: str, *, stride_offset: StrideOffset) -> Apply:
    """Return the 3x3 max pool of stride 2.

    `path` names the layer where the framework names layers itself.
    """
    name = keras_name(path)
    if stride_offset == "end":
        return keras.layers.MaxPooling2D(3, strides=2, padding="same", name=name)
    # Zeros stand for torch's minus infinity: what is pooled has passed a ReLU.
    padding = keras.layers.ZeroPadding2D(1, name=f"{name}-pad")
    pool = keras.layers.MaxPooling2D(3, strides=2, padding="valid", name=name)
    return lambda x: pool(padding(x))


def linear(layer: spec_layers.Linear, *, conventions: Conventions) -> keras.layers.Dense:
    """Return the affine map `(n, i) -> (n, o)`."""
    return keras.layers.Dense(
        layer.out_features,
        kernel_initializer=initializer(conventions.head_weight_init, fans=layer.fans()),
        bias_initializer=initializer(conventions.head_bias_init, fans=layer.fans()),
        name=keras_name(layer.path),
    )


def dropout(layer: spec_layers.Dropout) -> keras.layers.Dropout:
    """Return the dropout of `(n, i)` by element."""
    return Dropout(layer.rate, name=keras_name(layer.path))


def stochastic_depth(layer: spec_layers.StochasticDepth) -> keras.layers.Dropout:
    """Return the dropout of a residual branch `(n, h, w, c)` by sample."""
    return Dropout(layer.rate, noise_shape=(None, 1, 1, 1), name=keras_name(layer.path))


@keras.saving.register_keras_serializable(package="models_keras")
class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization that stores the unbiased batch variance; all else is Keras's.

    It keeps the stock layer's name so that `.weights.h5` files pass between the two.
    """

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor = None) -> Tensor:  # noqa: FBT001  # Keras's signature
        """Return `inputs` normalized; in training mode the running statistics move."""
        if not training or not self.trainable:
            return super().call(inputs, training=training, mask=mask)
        # The product makes a copy: on the torch backend tensors alias their variable.
        before = ops.convert_to_tensor(self.moving_variance) * 1.0
        outputs = super().call(inputs, training=training, mask=mask)
        # Keras stored decay * before + (1 - decay) * v: raise v to v * n / (n - 1).
        moved = self.moving_variance - before * self.momentum
        self.moving_variance.assign_add(moved / (_count(inputs, dtype=self.variable_dtype) - 1.0))
        return outputs


def _count(inputs: Tensor, *, dtype: str) -> Tensor:
    """Return how many values each channel of `(n, h, w, c)` holds."""
    sizes = ops.shape(inputs)[:-1]
    if all(isinstance(size, int) for size in sizes):
        count = 1
        for size in sizes:
            count *= size
        if count == 1:
            message = (
                "batch norm: expected more than 1 value per channel in training; "
                f"got {inputs.shape}."
            )
            raise SpecError(message)
        return float(count)
    count = 1
    for size in sizes:
        count = count * ops.cast(size, dtype)
    return count


@keras.saving.register_keras_serializable(package="models_keras")
class Dropout(keras.layers.Dropout):
    """Dropout by element or by sample that can be told what to keep; all else is Keras's.

    `kept` is the mask of the calls in training until it is set again, so that the other twin drops
    the same; booleans that broadcast to the inputs. While it is None, Keras draws one itself.
    It keeps the stock layer's name so that `.weights.h5` files pass between the two.
    """

    kept: Tensor = None

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:  # noqa: FBT001, FBT002  # Keras's signature
        """Return `inputs kept / (1 - rate)`; in inference `inputs`."""
        if not training or self.kept is None:
            return super().call(inputs, training=training)
        return inputs * ops.cast(self.kept, inputs.dtype) / (1.0 - self.rate)
