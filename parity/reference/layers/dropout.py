"""Dropout and stochastic depth forward and backward, the mask given.

What is kept is drawn elsewhere (`parity.masks`), so that both frameworks drop the same.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from parity.errors import SpecError
from parity.reference.layers.arrays import Array, widen

ScaleAt = Literal["training", "inference"]


def dropout(
    inputs: ArrayLike, kept: ArrayLike, *, rate: float, scale_at: ScaleAt, training: bool
) -> Array:
    """Return what is kept of the inputs, scaled so that the mean is the same in both modes.

    `scale_at="training"`: `x kept / (1 - rate)` in training, `x` otherwise (torch and Keras).
    `scale_at="inference"`: `x kept` in training, `x (1 - rate)` otherwise (Srivastava et al. 2014,
    section 4; Huang et al. 2016, equation 5, for stochastic depth).

    Args:
        inputs: `(n, ...)`.
        kept: Booleans, with as many axes as the inputs: of their shape for dropout, `(n, c, 1, 1)`
            for whole channels of images, `(n, 1, 1, 1)` for whole samples, as stochastic depth does
            with the residual of a block. Not read in inference.
        rate: Share dropped on average, `0 <= rate < 1`.
        scale_at: The mode in which the inputs are scaled.
        training: Whether anything is dropped.

    Raises:
        SpecError: If the rate is not in that range, or the mask does not fit.
    """
    return widen(inputs) * _factor(
        widen(inputs), kept, rate=rate, scale_at=scale_at, training=training
    )


def dropout_backward(
    d_outputs: ArrayLike, kept: ArrayLike, *, rate: float, scale_at: ScaleAt, training: bool
) -> Array:
    """Return `d_inputs` of `dropout`: `dy` times what the inputs were multiplied by."""
    d_outputs = widen(d_outputs)
    return d_outputs * _factor(d_outputs, kept, rate=rate, scale_at=scale_at, training=training)


def stochastic_depth(
    inputs: ArrayLike, kept: ArrayLike, *, rate: float, scale_at: ScaleAt, training: bool
) -> Array:
    """Return the residual branch of the samples that keep it, and zeros for the others.

    `dropout` by sample, on the branch of a block before it is added to the shortcut. With
    `scale_at="inference"` it is Huang et al. 2016, equations 2 and 5; with `"training"` the form
    that timm and torchvision ship, whose evaluation leaves the branch as it is.

    Args:
        inputs: `(n, ...)`, the branch.
        kept: Booleans `(n, 1, ..., 1)`, with as many axes as the inputs. Not read in inference.
        rate: Share of the samples that lose the branch on average, `0 <= rate < 1`.
        scale_at: As `dropout` takes it.
        training: Whether anything is dropped.

    Raises:
        SpecError: If the rate is not in that range, or the mask is not one of samples.
    """
    _require_samples(kept, training=training)
    return dropout(inputs, kept, rate=rate, scale_at=scale_at, training=training)


def stochastic_depth_backward(
    d_outputs: ArrayLike, kept: ArrayLike, *, rate: float, scale_at: ScaleAt, training: bool
) -> Array:
    """Return `d_inputs` of `stochastic_depth`."""
    _require_samples(kept, training=training)
    return dropout_backward(d_outputs, kept, rate=rate, scale_at=scale_at, training=training)


def _require_samples(kept: ArrayLike, *, training: bool) -> None:
    shape = np.asarray(kept).shape
    if training and any(size != 1 for size in shape[1:]):
        message = f"stochastic_depth: expected a mask (n, 1, ..., 1); got shape {shape}."
        raise SpecError(message)


def _factor(
    inputs: Array, kept: ArrayLike, *, rate: float, scale_at: ScaleAt, training: bool
) -> Array:
    if not 0.0 <= rate < 1.0:
        message = f"dropout: expected 0 <= rate < 1; got {rate!r}."
        raise SpecError(message)
    if scale_at not in ("training", "inference"):
        message = f"dropout: scale_at must be 'training' or 'inference'; got {scale_at!r}."
        raise SpecError(message)
    if not training:
        return np.asarray(1.0 if scale_at == "training" else 1.0 - rate)
    mask = _require_mask(kept, inputs)
    return mask / (1.0 - rate) if scale_at == "training" else mask


def _require_mask(kept: ArrayLike, inputs: Array) -> Array:
    mask = np.asarray(kept)
    fits = mask.ndim == inputs.ndim and all(
        size in (1, full) for size, full in zip(mask.shape, inputs.shape, strict=True)
    )
    if not fits or mask.dtype != np.bool_:
        message = (
            f"dropout: expected booleans of shape {inputs.shape}, or 1 where shared; "
            f"got {mask.dtype} of shape {mask.shape}."
        )
        raise SpecError(message)
    return widen(mask)
