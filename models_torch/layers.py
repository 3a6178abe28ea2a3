"""Layers as the conventions ask for them: stock `torch.nn` modules wherever one exists.

Mirrors `models_keras.layers`.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from parity.spec import layers as spec_layers
from parity.spec.conventions import Conventions, StrideOffset
from parity.spec.initializers import Fans, VarianceScaling
from parity.spec.initializers import initializer as initializer_spec


def initializer(name: str, *, fans: Fans) -> Callable[[Tensor], Tensor]:
    """Return the in-place initializer of that name for a layer with those fans."""
    rule = initializer_spec(name)
    if not isinstance(rule, VarianceScaling):
        return nn.init.zeros_
    if rule.distribution == "normal":
        return lambda tensor: nn.init.normal_(tensor, std=rule.deviation(fans))
    bound = rule.bound(fans)
    return lambda tensor: nn.init.uniform_(tensor, -bound, bound)


def conv2d(layer: spec_layers.Conv2d, *, conventions: Conventions) -> nn.Conv2d:
    """Return the convolution `(n, c, h, w) -> (n, o, ceil(h / stride), ceil(w / stride))`."""
    symmetric = conventions.stride_offset == "start" or layer.stride == 1 or layer.kernel == 1
    cls = nn.Conv2d if symmetric else EndPaddedConv2d
    module = cls(
        layer.in_channels,
        layer.out_channels,
        layer.kernel,
        stride=layer.stride,
        padding=layer.kernel // 2 if symmetric else 0,
        bias=layer.use_bias,
    )
    initializer(conventions.conv_init, fans=layer.fans())(module.weight)
    if module.bias is not None:
        initializer(conventions.head_bias_init, fans=layer.fans())(module.bias)
    return module


def batch_norm2d(layer: spec_layers.BatchNorm2d, *, conventions: Conventions) -> nn.BatchNorm2d:
    """Return the batch normalization of `(n, c, h, w)` over `n h w`."""
    cls = nn.BatchNorm2d if conventions.bn_variance_correction == 1 else BatchNorm2d
    return cls(layer.channels, eps=conventions.bn_epsilon, momentum=1.0 - conventions.stats_decay)


def max_pool2d(path: str, *, stride_offset: StrideOffset) -> nn.Module:
    """Return the 3x3 max pool of stride 2.

    `path` names the layer where the framework names layers itself.
    """
    del path  # a PyTorch module is named by the attribute that holds it
    return (
        nn.MaxPool2d(3, stride=2, padding=1)
        if stride_offset == "start"
        else EndPaddedMaxPool2d(3, stride=2)
    )


def linear(layer: spec_layers.Linear, *, conventions: Conventions) -> nn.Linear:
    """Return the affine map `(n, i) -> (n, o)`."""
    module = nn.Linear(layer.in_features, layer.out_features)
    initializer(conventions.head_weight_init, fans=layer.fans())(module.weight)
    initializer(conventions.head_bias_init, fans=layer.fans())(module.bias)
    return module


def dropout(layer: spec_layers.Dropout) -> nn.Dropout:
    """Return the dropout of `(n, i)` by element."""
    return Dropout(layer.rate)


def stochastic_depth(layer: spec_layers.StochasticDepth) -> nn.Dropout:
    """Return the dropout of a residual branch `(n, c, h, w)` by sample."""
    return Dropout(layer.rate, by_sample=True)


class EndPaddedConv2d(nn.Conv2d):
    """A strided convolution that pads the far side first, as Keras's `same` does."""

    def forward(self, x: Tensor) -> Tensor:
        """Return `(n, o, ceil(h / stride), ceil(w / stride))`."""
        return super().forward(
            functional.pad(x, end_pads(x, kernel=self.kernel_size[0], stride=self.stride[0]))
        )


class EndPaddedMaxPool2d(nn.MaxPool2d):
    """A strided max pool with minus infinity on the far side first, as Keras's `same` does."""

    def forward(self, x: Tensor) -> Tensor:
        """Return `(n, c, ceil(h / stride), ceil(w / stride))`."""
        pads = end_pads(x, kernel=self.kernel_size, stride=self.stride)
        return super().forward(functional.pad(x, pads, value=float("-inf")))


def end_pads(x: Tensor, *, kernel: int, stride: int) -> tuple[int, int, int, int]:
    """Return the `same` pads of `(n, c, h, w)` in the order of `functional.pad`.

    The order is left, right, top, bottom.

    Source: tensorflow 2.21.0, `tf.nn` padding notes:
    total = max((ceil(size / stride) - 1) stride + kernel - size, 0).
    """
    pads: list[int] = []
    for size in (x.shape[3], x.shape[2]):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    left, right, top, bottom = pads
    return left, right, top, bottom


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalization that stores the biased batch variance; all else is torch's."""

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` normalized; in training mode the running statistics move."""
        if not self.training:
            return super().forward(x)
        # torch's backward keeps the variance it was given, so it updates a copy.
        updated = self.running_var.clone()
        outputs = functional.batch_norm(
            x,
            self.running_mean,
            updated,
            self.weight,
            self.bias,
            training=True,
            momentum=self.momentum,
            eps=self.eps,
        )
        with torch.no_grad():
            # torch stored decay * before + (1 - decay) * v * n / (n - 1): take the surplus
            # (1 - decay) * v / (n - 1) off again.
            moved = updated - (1.0 - self.momentum) * self.running_var
            self.running_var.copy_(updated - moved / (x.numel() // x.shape[1]))
            self.num_batches_tracked += 1
        return outputs


class Dropout(nn.Dropout):
    """Dropout by element or by sample that can be told what to keep; all else is torch's.

    `kept` is the mask of the calls in training until it is set again, so that the other twin drops
    the same; booleans that broadcast to the inputs. While it is None, torch draws one itself.
    """

    def __init__(self, rate: float, *, by_sample: bool = False) -> None:
        super().__init__(rate)
        self.by_sample = by_sample
        self.kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return `x kept / (1 - rate)`; in inference `x`."""
        if not self.training:
            return x
        if self.kept is not None:
            return x * self.kept.to(x.dtype) / (1.0 - self.p)
        if self.by_sample:
            return x * super().forward(x.new_ones((x.shape[0], *[1] * (x.dim() - 1))))
        return super().forward(x)
