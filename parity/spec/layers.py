"""Layer kinds of the spec: what each layer is called, where it sits, and which arrays it carries.

A layer lists its slots in PyTorch names and layout; conversion, initialization, states and the
reference all read them from here. A layer that drops something carries no array: what it keeps is
given to it, step by step.
"""

from dataclasses import dataclass
from typing import Literal

from parity.spec.initializers import Fans

Shape = tuple[int, ...]
Role = Literal["parameter", "frozen", "buffer"]


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One array of a layer.

    Attributes:
        name: PyTorch's name of it (`weight`, `bias`, `running_mean`, `running_var`).
        shape: In PyTorch's layout.
        role: `parameter` (trained), `frozen` (a weight that is never trained) or `buffer`
            (carried).
    """

    name: str
    shape: Shape
    role: Role = "parameter"


@dataclass(frozen=True, kw_only=True)
class Conv2d:
    """A 2-d convolution; weight axes `o i h w`.

    Attributes:
        path: Layer path.
        in_channels: Channels it reads.
        out_channels: Channels it returns.
        kernel: Side of its square kernel in pixels.
        stride: Step between windows in pixels.
        use_bias: Whether a bias is added.
        is_padded: Whether the input is padded so that only the stride shrinks it.
        is_frozen: Whether the weight stays as it is first drawn; a bias is trained all the same.
    """

    path: str
    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    use_bias: bool
    is_padded: bool = True
    is_frozen: bool = False

    def fans(self) -> Fans:
        """Return how many inputs an output reads, and how many outputs an input reaches."""
        area = self.kernel**2
        return Fans(inputs=self.in_channels * area, outputs=self.out_channels * area)

    def slots(self) -> tuple[Slot, ...]:
        """Return the arrays it carries."""
        weight = Slot(
            name="weight",
            shape=(self.out_channels, self.in_channels, self.kernel, self.kernel),
            role="frozen" if self.is_frozen else "parameter",
        )
        bias = (Slot(name="bias", shape=(self.out_channels,)),) if self.use_bias else ()
        return (weight, *bias)


@dataclass(frozen=True, kw_only=True)
class BatchNorm2d:
    """Batch normalization over `n h w` of each channel.

    Attributes:
        path: Layer path.
        channels: Channels it normalizes.
        has_scale: Whether it learns a scale; without one that is the constant 1 and no array.
    """

    path: str
    channels: int
    has_scale: bool = True

    def slots(self) -> tuple[Slot, ...]:
        """Return the arrays it carries."""
        shape = (self.channels,)
        scale = (Slot(name="weight", shape=shape),) if self.has_scale else ()
        return (
            *scale,
            Slot(name="bias", shape=shape),
            Slot(name="running_mean", shape=shape, role="buffer"),
            Slot(name="running_var", shape=shape, role="buffer"),
        )


@dataclass(frozen=True, kw_only=True)
class Linear:
    """An affine map; weight axes `o i`."""

    path: str
    in_features: int
    out_features: int
    use_bias: bool = True

    def fans(self) -> Fans:
        """Return how many inputs an output reads, and how many outputs an input reaches."""
        return Fans(inputs=self.in_features, outputs=self.out_features)

    def slots(self) -> tuple[Slot, ...]:
        """Return the arrays it carries."""
        weight = Slot(name="weight", shape=(self.out_features, self.in_features))
        bias = (Slot(name="bias", shape=(self.out_features,)),) if self.use_bias else ()
        return (weight, *bias)


@dataclass(frozen=True, kw_only=True)
class Dropout:
    """Dropout by element of `(n, features)`; what is kept is divided by `1 - rate`."""

    path: str
    features: int
    rate: float

    @property
    def mask_shape(self) -> Shape:
        """Shape of one sample's mask."""
        return (self.features,)

    def slots(self) -> tuple[Slot, ...]:
        """Return the arrays it carries: none."""
        return ()


@dataclass(frozen=True, kw_only=True)
class StochasticDepth:
    """Dropout of whole samples of a residual branch `(n, c, h, w)`, before the addition.

    What is kept is divided by `1 - rate`, so that evaluation leaves the branch as it is (Huang et
    al. 2016 instead multiply by `1 - rate` in evaluation).
    """

    path: str
    rate: float

    @property
    def mask_shape(self) -> Shape:
        """Shape of one sample's mask."""
        return (1, 1, 1)

    def slots(self) -> tuple[Slot, ...]:
        """Return the arrays it carries: none."""
        return ()


MaskedLayer = Dropout | StochasticDepth
Layer = Conv2d | BatchNorm2d | Linear | Dropout | StochasticDepth
