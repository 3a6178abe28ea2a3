"""Layers as the conventions ask for them: stock `keras.layers` wherever one exists.

Mirrors `models_torch.layers`.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from parity.errors import SpecError
from parity.spec import layers as spec_layers
from parity.spec.airbench import GeluForm
from parity.spec.conventions import Conventions, StrideOffset
from parity.spec.initializers import Fans, Initializer, PartialDirac, UnitDeviation, Zeros
from parity.spec.initializers import initializer as initializer_spec
from parity.spec.paths import keras_name

Tensor = Any
Apply = Callable[[Tensor], Tensor]


def initializer(name: str, *, fans: Fans) -> keras.Initializer:
    """Return the initializer of that name for a layer with those fans."""
    return _build_initializer(initializer_spec(name), fans)


def _build_initializer(rule: Initializer, fans: Fans) -> keras.Initializer:
    if isinstance(rule, Zeros):
        return keras.initializers.Zeros()
    if isinstance(rule, PartialDirac):
        return PartialDiracInitializer(_build_initializer(rule.rest, fans))
    if isinstance(rule, UnitDeviation):
        return UnitDeviationInitializer(_build_initializer(rule.base, fans))
    if rule.distribution == "normal":
        return keras.initializers.RandomNormal(stddev=rule.deviation(fans))
    return keras.initializers.RandomUniform(-rule.bound(fans), rule.bound(fans))


def build_layer(layer: spec_layers.Layer, *, conventions: Conventions) -> Apply:
    """Return a layer of the spec."""
    if isinstance(layer, spec_layers.Conv2d):
        return conv2d(layer, conventions=conventions)
    if isinstance(layer, spec_layers.BatchNorm2d):
        return batch_norm2d(layer, conventions=conventions)
    if isinstance(layer, spec_layers.StochasticDepth):
        return stochastic_depth(layer)
    if isinstance(layer, spec_layers.Dropout):
        return dropout(layer)
    return linear(layer, conventions=conventions)


def conv2d(layer: spec_layers.Conv2d, *, conventions: Conventions) -> Apply:
    """Return the convolution `(n, h, w, c) -> (n, ceil(h / stride), ceil(w / stride), o)`.

    One that is not padded returns `(n, h - kernel + 1, w - kernel + 1, o)` at stride 1.
    """
    symmetric = conventions.stride_offset == "end" or layer.stride == 1 or layer.kernel == 1
    same = symmetric and layer.is_padded
    name = keras_name(layer.path)
    cls = Conv2D if layer.is_frozen else keras.layers.Conv2D
    convolution = cls(
        layer.out_channels,
        layer.kernel,
        strides=layer.stride,
        padding="same" if same else "valid",
        use_bias=layer.use_bias,
        kernel_initializer=initializer(conventions.conv_init, fans=layer.fans()),
        bias_initializer=initializer(conventions.head_bias_init, fans=layer.fans()),
        name=name,
    )
    if same or not layer.is_padded:
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
        scale=layer.has_scale,
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
        use_bias=layer.use_bias,
        kernel_initializer=initializer(conventions.head_weight_init, fans=layer.fans()),
        bias_initializer=initializer(conventions.head_bias_init, fans=layer.fans()),
        name=keras_name(layer.path),
    )


def gelu(path: str, *, form: GeluForm) -> keras.layers.Layer:
    """Return the Gaussian error linear unit, with `erf` (exact) or its approximation by `tanh`."""
    return Gelu(form=form, name=keras_name(path))


def tiled_max_pool2d(path: str, *, kernel: tuple[int, int]) -> keras.layers.MaxPooling2D:
    """Return the max pool of windows side by side; rows and columns left over are dropped."""
    return keras.layers.MaxPooling2D(kernel, name=keras_name(path))


def scale(path: str, *, factor: float) -> keras.layers.Layer:
    """Return the product with a constant."""
    return Scale(factor, name=keras_name(path))


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


@keras.saving.register_keras_serializable(package="models_keras")
class Conv2D(keras.layers.Conv2D):
    """A convolution whose kernel stays as it is first drawn; all else is Keras's.

    It keeps the stock layer's name so that `.weights.h5` files pass between the two.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the variables."""
        super().build(input_shape)
        self.kernel.trainable = False


@keras.saving.register_keras_serializable(package="models_keras")
class Gelu(keras.layers.Layer):
    """The Gaussian error linear unit in the precision of its inputs.

    Keras's own on tensorflow has its constants in float32 (keras 3.15.1, tensorflow 2.21.0).
    """

    def __init__(self, *, form: GeluForm, **kwargs: Any) -> None:  # noqa: ANN401  # Keras's own
        super().__init__(**kwargs)
        self.form = form

    def call(self, inputs: Tensor) -> Tensor:
        """Return `x Phi(x)`."""
        if self.form == "exact":
            return inputs * (ops.erf(inputs * math.sqrt(0.5)) + 1.0) * 0.5
        inner = (inputs + inputs * inputs * inputs * 0.044715) * math.sqrt(2.0 / math.pi)
        return inputs * (ops.tanh(inner) + 1.0) * 0.5

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` rebuilds it from."""
        return {**super().get_config(), "form": self.form}


@keras.saving.register_keras_serializable(package="models_keras")
class Scale(keras.layers.Layer):
    """The product with a constant.

    Keras's own `Rescaling` passes the constant through float32 on tensorflow (keras 3.15.1).
    """

    def __init__(self, factor: float, **kwargs: Any) -> None:  # noqa: ANN401  # Keras's own
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, inputs: Tensor) -> Tensor:
        """Return `inputs * factor`."""
        return inputs * self.factor

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` rebuilds it from."""
        return {**super().get_config(), "factor": self.factor}


@keras.saving.register_keras_serializable(package="models_keras")
class PartialDiracInitializer(keras.initializers.Initializer):
    """See `parity.spec.initializers.PartialDirac`; for kernels `(h, w, i, o)`."""

    def __init__(self, rest: keras.Initializer | dict[str, Any]) -> None:
        self.rest = keras.initializers.get(rest)

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Tensor:  # noqa: ANN401
        """Return the kernel."""
        height, width, inputs, outputs = shape
        drawn = ops.convert_to_numpy(self.rest(shape, dtype=dtype)).copy()
        count = min(inputs, outputs)
        drawn[..., :count] = 0.0
        drawn[height // 2, width // 2, range(count), range(count)] = 1.0
        return ops.convert_to_tensor(drawn)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` rebuilds it from."""
        return {"rest": keras.saving.serialize_keras_object(self.rest)}


@keras.saving.register_keras_serializable(package="models_keras")
class UnitDeviationInitializer(keras.initializers.Initializer):
    """See `parity.spec.initializers.UnitDeviation`."""

    def __init__(self, base: keras.Initializer | dict[str, Any]) -> None:
        self.base = keras.initializers.get(base)

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Tensor:  # noqa: ANN401
        """Return the array."""
        drawn = ops.convert_to_numpy(self.base(shape, dtype=dtype))
        return ops.convert_to_tensor(drawn / drawn.std(ddof=1))

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` rebuilds it from."""
        return {"base": keras.saving.serialize_keras_object(self.base)}
