"""Layers as the conventions ask for them: stock `torch.nn` modules wherever one exists.

Mirrors `models_keras.layers`.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from parity.spec import layers as spec_layers
from parity.spec.airbench import GeluForm
from parity.spec.conventions import Conventions, StrideOffset
from parity.spec.initializers import Fans, Initializer, PartialDirac, UnitDeviation, Zeros
from parity.spec.initializers import initializer as initializer_spec


def initializer(name: str, *, fans: Fans) -> Callable[[Tensor], Tensor]:
    """Return the in-place initializer of that name for a layer with those fans."""
    return lambda tensor: _draw(tensor, initializer_spec(name), fans)


def _draw(tensor: Tensor, rule: Initializer, fans: Fans) -> Tensor:
    if isinstance(rule, Zeros):
        return nn.init.zeros_(tensor)
    if isinstance(rule, PartialDirac):
        _draw(tensor, rule.rest, fans)
        nn.init.dirac_(tensor.detach()[: tensor.shape[1]])
        return tensor
    if isinstance(rule, UnitDeviation):
        with torch.no_grad():
            return _draw(tensor, rule.base, fans).div_(tensor.std())
    if rule.distribution == "normal":
        return nn.init.normal_(tensor, std=rule.deviation(fans))
    return nn.init.uniform_(tensor, -rule.bound(fans), rule.bound(fans))


def build_layer(layer: spec_layers.Layer, *, conventions: Conventions) -> nn.Module:
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


def conv2d(layer: spec_layers.Conv2d, *, conventions: Conventions) -> nn.Conv2d:
    """Return the convolution `(n, c, h, w) -> (n, o, ceil(h / stride), ceil(w / stride))`.

    One that is not padded returns `(n, o, h - kernel + 1, w - kernel + 1)` at stride 1.
    """
    symmetric = conventions.stride_offset == "start" or layer.stride == 1 or layer.kernel == 1
    cls = nn.Conv2d if symmetric or not layer.is_padded else EndPaddedConv2d
    module = cls(
        layer.in_channels,
        layer.out_channels,
        layer.kernel,
        stride=layer.stride,
        padding=layer.kernel // 2 if symmetric and layer.is_padded else 0,
        bias=layer.use_bias,
    )
    initializer(conventions.conv_init, fans=layer.fans())(module.weight)
    if module.bias is not None:
        initializer(conventions.head_bias_init, fans=layer.fans())(module.bias)
    module.weight.requires_grad_(not layer.is_frozen)
    return module


def batch_norm2d(layer: spec_layers.BatchNorm2d, *, conventions: Conventions) -> nn.BatchNorm2d:
    """Return the batch normalization of `(n, c, h, w)` over `n h w`."""
    cls = nn.BatchNorm2d if conventions.bn_variance_correction == 1 else BatchNorm2d
    module = cls(layer.channels, eps=conventions.bn_epsilon, momentum=1.0 - conventions.stats_decay)
    if not layer.has_scale:
        module.weight = None
    return module


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
    module = nn.Linear(layer.in_features, layer.out_features, bias=layer.use_bias)
    initializer(conventions.head_weight_init, fans=layer.fans())(module.weight)
    if module.bias is not None:
        initializer(conventions.head_bias_init, fans=layer.fans())(module.bias)
    return module


def gelu(path: str, *, form: GeluForm) -> nn.Module:
    """Return the Gaussian error linear unit, with `erf` (exact) or its approximation by `tanh`."""
    del path  # a PyTorch module is named by the attribute that holds it
    return nn.GELU(approximate="none" if form == "exact" else "tanh")


def tiled_max_pool2d(path: str, *, kernel: tuple[int, int]) -> nn.Module:
    """Return the max pool of windows side by side; rows and columns left over are dropped."""
    del path
    return nn.MaxPool2d(kernel)


def scale(path: str, *, factor: float) -> nn.Module:
    """Return the product with a constant."""
    del path
    return Scale(factor)


def dropout(layer: spec_layers.Dropout) -> nn.Dropout:
    """Return the dropout of `(n, i)` by element."""
    return Dropout(layer.rate)


def stochastic_depth(layer: spec_layers.StochasticDepth) -> nn.Dropout:
    """Return the dropout of a residual branch `(n, c, h, w)` by sample."""
    return Dropout(layer.rate, by_sample=True)


class Scale(nn.Module):
    """The product with a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Return `x * factor`."""
        return x * self.factor


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
