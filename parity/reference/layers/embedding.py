"""Embedding forward and backward."""

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from parity.errors import SpecError
from parity.reference.layers.arrays import Array, widen

OutOfRange = Literal["refuse", "wrap", "wrap_or_nan"]
Ids = NDArray[np.int64]

_OUT_OF_RANGE: tuple[str, ...] = ("refuse", "wrap", "wrap_or_nan")


def embedding(ids: ArrayLike, weight: ArrayLike, *, out_of_range: OutOfRange) -> Array:
    """Return the row of `weight` of each id, `(..., e)`: `y[..., :] = weight[ids[...], :]`.

    Args:
        ids: Whole numbers of any shape.
        weight: `(v, e)`, a row for each id.
        out_of_range: What an id outside `0 <= id < v` does. `refuse` takes none (torch). `wrap`
            counts ids from `-v` to `-1` from the end and refuses the rest (Keras on tensorflow's
            processor kernels and on torch). `wrap_or_nan` gives rows of NaN for the rest (Keras on
            jax).

    Raises:
        SpecError: If an id is refused, is no whole number, or an argument is impossible.

    Source: torch 2.13.0, nn.functional.embedding; keras 3.15.1, Embedding.call and ops.take.
    """
    table = _table(weight)
    rows, known = _rows(ids, len(table), out_of_range=out_of_range)
    outputs: Array = np.where(known[..., np.newaxis], table[rows], np.nan)
    return outputs


def embedding_backward(
    d_outputs: ArrayLike,
    ids: ArrayLike,
    weight: ArrayLike,
    *,
    out_of_range: OutOfRange,
    padding_id: int | None,
    scale_by_frequency: bool,
) -> Array:
    """Return `d_weight` of `embedding`: `d_weight[v] = sum of dy where ids == v`.

    Args:
        d_outputs: `(..., e)`.
        ids: As `embedding` takes them; one that gave NaN gives its gradient to no row.
        weight: As `embedding` takes it.
        out_of_range: As `embedding` takes it.
        padding_id: The row that gets no gradient (torch's `padding_idx`), or None. Keras' layer has
            none: its `mask_zero` only hands `embedding_mask` to the layers behind, so row 0 is
            trained by whatever they send back.
        scale_by_frequency: Whether a row's gradient is divided by how often its id is there
            (torch's `scale_grad_by_freq`; Keras has no such option).

    Raises:
        SpecError: As `embedding`, and if `padding_id` names no row.
    """
    table, d_outputs = _table(weight), widen(d_outputs)
    rows, known = _rows(ids, len(table), out_of_range=out_of_range)
    d_weight = np.zeros_like(table)
    np.add.at(d_weight, rows[known], d_outputs[known])
    if scale_by_frequency:
        counts = np.bincount(rows[known], minlength=len(table))
        d_weight /= np.maximum(counts, 1)[:, np.newaxis]
    if padding_id is not None:
        padding, _ = _rows(padding_id, len(table), out_of_range="wrap")
        d_weight[padding] = 0.0
    return d_weight


def embedding_mask(ids: ArrayLike) -> NDArray[np.bool_]:
    """Return which ids are not 0: the mask that Keras' `mask_zero` hands on, True to keep."""
    kept: NDArray[np.bool_] = np.asarray(ids) != 0
    return kept


def _table(weight: ArrayLike) -> Array:
    table = widen(weight)
    if table.ndim != 2 or 0 in table.shape:
        message = f"embedding: expected weight (v, e), neither of them 0; got {table.shape}."
        raise SpecError(message)
    return table


def _rows(ids: ArrayLike, count: int, *, out_of_range: OutOfRange) -> tuple[Ids, NDArray[np.bool_]]:
    """Return the row of each id, 0 where there is none, and whether there is one."""
    if out_of_range not in _OUT_OF_RANGE:
        message = (
            f"embedding: out_of_range must be one of {', '.join(_OUT_OF_RANGE)}; "
            f"got {out_of_range!r}."
        )
        raise SpecError(message)
    numbers: NDArray[Any] = np.asarray(ids)
    if numbers.dtype.kind not in "iu":
        message = f"embedding: expected whole numbers as ids; got {numbers.dtype}."
        raise SpecError(message)
    lowest = 0 if out_of_range == "refuse" else -count
    known = (lowest <= numbers) & (numbers < count)
    if out_of_range != "wrap_or_nan" and not known.all():
        message = (
            f"embedding: expected ids from {lowest} to {count - 1}; "
            f"got {numbers[~known].reshape(-1)[0]}."
        )
        raise SpecError(message)
    rows = np.where(known, numbers, 0).astype(np.int64)
    return np.where(rows < 0, rows + count, rows), known
