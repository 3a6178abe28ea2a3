"""What a reader of calls returns."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from parity.frameworks.torch_capture.calls import Call


@dataclasses.dataclass(frozen=True, kw_only=True)
class Described:
    """What a call computes; `Operation` says what the fields mean.

    Attributes:
        kind: One of `parity.frameworks.kinds.KINDS`, or torch's bare name.
        operands: The tensors that it is computed from, in the order of the kind.
        weights: Slot -> the tensor that takes it.
        layouts: Slot -> axes of its array.
        attributes: As the kind lists them.
    """

    kind: str
    operands: tuple[Tensor, ...] = ()
    weights: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    layouts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


# Reads a call and what it returned; None if it computes no kind.
Reader = Callable[[Call, list[Tensor]], Described | None]


def present(**tensors: Tensor | None) -> dict[str, Tensor]:
    """Return the slots that a call fills."""
    return {slot: tensor for slot, tensor in tensors.items() if tensor is not None}


def spread(number: int | tuple[int, ...] | list[int], count: int) -> tuple[int, ...]:
    """Return one number for each of `count` axes.

    >>> spread(2, 3)
    (2, 2, 2)
    """
    if isinstance(number, int):
        return (number,) * count
    numbers = tuple(int(each) for each in number)
    return numbers * count if len(numbers) == 1 else numbers


def axes_of(tensor: Tensor, dim: int | tuple[int, ...] | list[int] | None) -> tuple[int, ...]:
    """Return axes counted from the first, in order; all of them for None and an empty tuple."""
    if dim is None or dim in ((), []):
        return tuple(range(tensor.dim()))
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    return tuple(sorted(each % max(tensor.dim(), 1) for each in dims))
