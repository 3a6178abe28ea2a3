"""`Node`: one layer call of a model, from which the reference runs it."""

from dataclasses import dataclass
from typing import Literal

NodeKind = Literal[
    "conv",
    "bn",
    "relu",
    "gelu",
    "max_pool",
    "average_pool",
    "linear",
    "scale",
    "stochastic_depth",
    "dropout",
]

IMAGES = "images"


@dataclass(frozen=True, kw_only=True)
class Node:
    """One layer call.

    Attributes:
        path: Layer path, under which its output is recorded.
        kind: Which reference layer runs.
        inputs: Paths of the outputs it reads, or `IMAGES`; the sum of two if there are two.
        kernel: Height and width in pixels of a max pool's windows.
        stride: Of a convolution or max pool.
        is_padded: Whether a convolution or max pool pads as the stride offset says; else not at
            all.
        rate: Of a layer that drops something.
        factor: Of a product with a constant.
        form: Of a GELU, `exact` or `tanh`.
    """

    path: str
    kind: NodeKind
    inputs: tuple[str, ...]
    kernel: tuple[int, int] = (1, 1)
    stride: int | tuple[int, int] = 1
    is_padded: bool = True
    rate: float = 0.0
    factor: float = 1.0
    form: Literal["exact", "tanh"] = "exact"
