"""When and how a net is scored on the test set; imports `parity.errors` only."""

import dataclasses
import typing
from typing import Literal

from parity.errors import SpecError

TtaLevel = Literal[0, 1, 2]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """When and how the test set is scored.

    Attributes:
        every_epochs: Epochs between evaluations; the last epoch is always evaluated.
        batch_size: Images a batch.
        tta_level: Views of an image whose logits are averaged, as
            `parity.augment.views.build_views` makes them: the image alone (0), with its mirror
            image (1), or with shifts by one pixel, too (2).
    """

    every_epochs: int
    batch_size: int
    tta_level: TtaLevel

    def __post_init__(self) -> None:
        problems = [
            f"evaluation.{field} must be >= 1; got {getattr(self, field)!r}."
            for field in ("every_epochs", "batch_size")
            if getattr(self, field) < 1
        ]
        if self.tta_level not in typing.get_args(TtaLevel):
            problems.append(f"evaluation.tta_level must be 0, 1 or 2; got {self.tta_level!r}.")
        if problems:
            raise SpecError(" ".join(problems))
