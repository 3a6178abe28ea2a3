"""The conventions on which PyTorch and Keras differ, as explicit fields.

Each framework's column of values is a preset.
"""

from dataclasses import dataclass
from typing import Literal

from parity.errors import SpecError
from parity.spec.initializers import PartialDirac, UnitDeviation, initializer

StrideOffset = Literal["start", "end"]
EpsilonPlacement = Literal["corrected", "uncorrected"]
RootEpsilonPlacement = Literal["outside", "inside"]


@dataclass(frozen=True, kw_only=True)
class Conventions:
    """How a model is built where the frameworks disagree; either twin builds any combination.

    Attributes:
        conv_bias: Whether convolutions before a batch norm carry a bias.
        stats_decay: Weight kept of the old running statistic per step, in (0, 1).
        bn_variance_correction: 1 stores the unbiased batch variance (n - 1), 0 the biased one (n).
        bn_epsilon: Added to the variance under the root.
        conv_init: Name of the convolution weights' initial distribution.
        head_weight_init: Name of the classifier weight's initial distribution.
        head_bias_init: Name of every bias's initial distribution (the head's, and the convolutions'
            where they have one): each framework has one rule for both.
        stride_offset: Which pixel a strided window starts at: `start` pads symmetrically (torch),
            `end` pads the far side first (Keras `same`).
    """

    conv_bias: bool
    stats_decay: float
    bn_variance_correction: Literal[0, 1]
    bn_epsilon: float
    conv_init: str
    head_weight_init: str
    head_bias_init: str
    stride_offset: StrideOffset

    def __post_init__(self) -> None:
        problems = []
        if not isinstance(self.conv_bias, bool):
            problems.append(f"conv_bias must be True or False; got {self.conv_bias!r}.")
        if not 0.0 < self.stats_decay < 1.0:
            problems.append(f"stats_decay must lie in (0, 1); got {self.stats_decay!r}.")
        if self.bn_variance_correction not in (0, 1):
            problems.append(
                f"bn_variance_correction must be 0 or 1; got {self.bn_variance_correction!r}."
            )
        if not 0.0 < self.bn_epsilon < float("inf"):
            problems.append(f"bn_epsilon must be > 0 and finite; got {self.bn_epsilon!r}.")
        if self.stride_offset not in ("start", "end"):
            problems.append(f"stride_offset must be 'start' or 'end'; got {self.stride_offset!r}.")
        problems += _describe_initializers(self)
        if problems:
            message = "conventions: " + " ".join(problems)
            raise SpecError(message)


def _describe_initializers(conventions: Conventions) -> list[str]:
    problems = []
    for field in ("conv_init", "head_weight_init", "head_bias_init"):
        name = getattr(conventions, field)
        try:
            rule = initializer(name)
        except SpecError as error:
            problems.append(f"{field}: {error}")
            continue
        if isinstance(rule, PartialDirac) and field != "conv_init":
            problems.append(f"{field} must not be {name!r}, which is for filters.")
        if isinstance(rule, UnitDeviation) and field == "head_bias_init":
            problems.append(f"{field} must not be {name!r}, which is for weights.")
    return problems


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One framework's column: model conventions, and the forms its optimizers take.

    Attributes:
        conventions: The eight model fields.
        decay_scaled_by_lr: Whether decoupled weight decay is multiplied by the current learning
            rate. Where it is not, the decay per step is `decoupled_decay * lr` at the *base* rate,
            whatever the schedule does.
        velocity_holds_lr: Whether SGD's velocity accumulates `lr * gradient` (Keras) or the
            gradient (torch).
        epsilon_placement: Adam's epsilon beside the root of the bias-corrected second moment
            (`corrected`) or of the raw one (`uncorrected`, "epsilon hat").
        root_epsilon_placement: RMSprop's and Adagrad's epsilon beside the root (`outside`) or under
            it (`inside`).
        l2_in_loss: Whether a coupled penalty is a term of the loss (Keras's regularizers).
    """

    conventions: Conventions
    decay_scaled_by_lr: bool
    velocity_holds_lr: bool
    epsilon_placement: EpsilonPlacement
    root_epsilon_placement: RootEpsilonPlacement
    l2_in_loss: bool

    def optimizer_forms(self, kind: str | None = None) -> dict[str, bool | str]:
        """Return the optimizer fields that this preset decides, by field name.

        Args:
            kind: Of the update rule; RMSprop and Adagrad place epsilon in a way of their own.
        """
        is_root = kind in ("rmsprop", "adagrad")
        return {
            "decay_scaled_by_lr": self.decay_scaled_by_lr,
            "velocity_holds_lr": self.velocity_holds_lr,
            "epsilon_placement": self.root_epsilon_placement if is_root else self.epsilon_placement,
            "l2_in_loss": self.l2_in_loss,
        }


# Source: Benchopt ResNet benchmark's table of framework differences, PyTorch column (arXiv
# 2206.13424).
TORCH = Preset(
    conventions=Conventions(
        conv_bias=False,
        stats_decay=0.9,
        bn_variance_correction=1,
        bn_epsilon=1e-5,
        conv_init="kaiming_normal_fan_out",
        head_weight_init="fan_in_uniform",
        head_bias_init="fan_in_uniform",
        stride_offset="start",
    ),
    decay_scaled_by_lr=True,
    velocity_holds_lr=False,
    epsilon_placement="corrected",
    root_epsilon_placement="outside",
    l2_in_loss=False,
)

# Same table, TensorFlow/Keras column. Unscaled decay is TensorFlow Addons' rule; the optimizers
# built into Keras 3 multiply decay by the learning rate as torch's AdamW does (keras 3.15.1,
# BaseOptimizer._apply_weight_decay).
KERAS = Preset(
    conventions=Conventions(
        conv_bias=True,
        stats_decay=0.99,
        bn_variance_correction=0,
        bn_epsilon=1e-3,
        conv_init="glorot_uniform",
        head_weight_init="glorot_uniform",
        head_bias_init="zeros",
        stride_offset="end",
    ),
    decay_scaled_by_lr=False,
    velocity_holds_lr=True,
    epsilon_placement="uncorrected",
    root_epsilon_placement="inside",
    l2_in_loss=True,
)

PRESETS: dict[str, Preset] = {"torch": TORCH, "keras": KERAS}
