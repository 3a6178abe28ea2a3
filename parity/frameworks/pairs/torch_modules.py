"""The modules that a PyTorch user writes of their own."""

import torch
from torch import Tensor, nn

from parity.rng import stream


class FixedDropout(nn.Module):
    """A dropout that drops the same elements whenever it is called, in either framework."""

    def __init__(self, rate: float, *, seed: int, name: str) -> None:
        super().__init__()
        self.rate, self.key = rate, (seed, name)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x / (1 - rate)` where the drawn number is at least the rate, in training."""
        if not self.training:
            return x
        seed, name = self.key
        drawn = torch.as_tensor(stream(seed, "pair dropout", name).random(tuple(x.shape)))
        return torch.where(drawn >= self.rate, x / (1.0 - self.rate), torch.zeros_like(x))


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """A batch norm that stays in evaluation mode."""

    def train(self, mode: bool = True) -> "FrozenBatchNorm2d":  # noqa: FBT001, FBT002, ARG002  # torch's signature
        """Keep evaluation mode."""
        super().train(mode=False)
        return self


class FrozenBatchNorm1d(nn.BatchNorm1d):
    """As `FrozenBatchNorm2d`, of features."""

    def train(self, mode: bool = True) -> "FrozenBatchNorm1d":  # noqa: FBT001, FBT002, ARG002  # torch's signature
        """Keep evaluation mode."""
        super().train(mode=False)
        return self


class Positions(nn.Module):
    """A learned vector for each position, added."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(length, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` plus the vectors of its positions."""
        return x + self.weight[: x.shape[1]]


class EmbeddedPositions(nn.Module):
    """The same as an embedding of the numbers of the positions."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(length, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` plus the vectors of its positions."""
        vectors: Tensor = self.table(torch.arange(x.shape[1], device=x.device))
        return x + vectors


class Shift(nn.Module):
    """A learned vector, added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return `x + bias`."""
        return x + self.bias
