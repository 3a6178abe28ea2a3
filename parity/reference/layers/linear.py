"""Linear layers and sums forward and backward."""

from numpy.typing import ArrayLike

from parity.errors import SpecError
from parity.reference.layers.arrays import Array, widen


def add(left: ArrayLike, right: ArrayLike) -> Array:
    """Return the elementwise sum of two arrays of one shape.

    Raises:
        SpecError: If the shapes differ: nothing is broadcast.
    """
    left, right = widen(left), widen(right)
    if left.shape != right.shape:
        message = f"add: expected two arrays of one shape; got {left.shape} and {right.shape}."
        raise SpecError(message)
    return left + right


def add_backward(d_outputs: ArrayLike) -> tuple[Array, Array]:
    """Return `(d_left, d_right)` of `add`: `dy` twice."""
    d_outputs = widen(d_outputs)
    return d_outputs.copy(), d_outputs.copy()


def linear(inputs: ArrayLike, weight: ArrayLike, bias: ArrayLike | None) -> Array:
    """Return `y[n,o] = b[o] + sum_i x[n,i] weight[o,i]`."""
    outputs: Array = widen(inputs) @ widen(weight).T
    return outputs if bias is None else outputs + widen(bias)


def linear_backward(
    d_outputs: ArrayLike, inputs: ArrayLike, weight: ArrayLike
) -> tuple[Array, Array, Array]:
    """Return `(d_inputs, d_weight, d_bias)` of `linear`: `dy W`, `dy^T x` and `sum_n dy`."""
    d_outputs = widen(d_outputs)
    return d_outputs @ widen(weight), d_outputs.T @ widen(inputs), d_outputs.sum(axis=0)
