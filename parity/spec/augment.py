"""What is drawn anew for each training image, and how; imports `parity.errors` and the spec."""

import dataclasses
import typing
from typing import Literal

from parity.errors import SpecError
from parity.spec.warmup import describe_choice

Padding = Literal["zeros", "reflect"]
Flip = Literal["none", "random", "alternating"]
Sampling = Literal["reshuffled", "with_replacement"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augment:
    """What is drawn anew for each image and epoch, in this order: crop, flip, cutout.

    Attributes:
        crop_px: Pixels of padding on each side before a random crop back to size; 0 is off.
        crop_padding: What the pads hold: `zeros`, which are black, or the image mirrored at its
            edge, whose own pixels are not repeated (`reflect`).
        flip: Whether images are mirrored left to right: never (`none`), in each epoch with
            probability one half (`random`), or in every second epoch, the first of which is drawn
            with probability one half for each image (`alternating`).
        cutout_px: Side of a square inside the image that is zero after normalization, so of the
            data set's mean colour; 0 is off.
    """

    crop_px: int
    crop_padding: Padding
    flip: Flip
    cutout_px: int

    def __post_init__(self) -> None:
        problems = [
            f"augment.{field} must be >= 0; got {getattr(self, field)!r}."
            for field in ("crop_px", "cutout_px")
            if getattr(self, field) < 0
        ]
        problems += describe_choice(
            "augment.crop_padding", self.crop_padding, typing.get_args(Padding)
        )
        problems += describe_choice("augment.flip", self.flip, typing.get_args(Flip))
        if problems:
            raise SpecError(" ".join(problems))
