"""SGD, LARS and Muon on one variable, as `parity.reference.optimizers.momentum` states them.

Mirrors `models_torch.optimizers.momentum`.
"""

from keras import ops

from models_keras.optimizers.names import Tensor
from parity.spec.optimizers import NEWTON_SCHULZ, Lars, Muon, Sgd, matrix_scale


def sgd_step(
    spec: Sgd,
    parameter: Tensor,
    gradient: Tensor,
    slots: dict[str, Tensor],
    *,
    rate: Tensor,
    count: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return parameter and slots after SGD's step."""
    return _move(spec, parameter, gradient, slots, rate=rate, share=_share(spec, count))


def _share(spec: Sgd, count: Tensor) -> Tensor | float:
    """Return the share of the gradient that enters the velocity: the first is never dampened."""
    if not spec.dampening:
        return 1.0
    return 1.0 - ops.cast(count > 1, count.dtype) * spec.dampening


def lars_step(
    spec: Lars,
    parameter: Tensor,
    gradient: Tensor,
    slots: dict[str, Tensor],
    *,
    rate: Tensor,
    count: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return parameter and slots after LARS's step."""
    del count
    if spec.l2 or spec.adapts_undecayed:
        bare = gradient - parameter * spec.l2
        gradient = gradient * _trust_ratio(spec, parameter, bare)
    return _move(spec, parameter, gradient, slots, rate=rate, share=1.0)


def _trust_ratio(spec: Lars, parameter: Tensor, gradient: Tensor) -> Tensor:
    size, steepness = _norm(parameter), _norm(gradient)
    is_plain = (size == 0.0) | (steepness == 0.0) | (size < spec.least_norm)
    divisor = steepness + size * spec.l2 + spec.norm_epsilon
    # Division by the zero that is not taken would still make gradients of the choice NaN.
    safe = ops.where(is_plain, ops.ones_like(divisor), divisor)
    return ops.where(is_plain, ops.ones_like(size), size * spec.trust_coefficient / safe)


def _move(
    spec: Sgd | Lars,
    parameter: Tensor,
    gradient: Tensor,
    slots: dict[str, Tensor],
    *,
    rate: Tensor,
    share: Tensor | float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return parameter and velocity after a step with momentum."""
    # Keras's velocity is a displacement, torch's a sum of gradients that the step scales.
    change = gradient * -rate if spec.velocity_holds_lr else gradient
    step, new = change, {}
    if spec.momentum:
        velocity = slots["momentum_buffer"] * spec.momentum + change * share
        step = change + velocity * spec.momentum if spec.nesterov else velocity
        new["momentum_buffer"] = velocity
    return parameter + (step if spec.velocity_holds_lr else step * -rate), new


def muon_step(
    spec: Muon,
    parameter: Tensor,
    gradient: Tensor,
    slots: dict[str, Tensor],
    *,
    rate: Tensor,
    count: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return parameter and slots after Muon's step on `(in, out)` or `(h, w, in, out)`."""
    del count
    push = gradient * (1.0 - spec.momentum) if spec.velocity_averages else gradient
    velocity = slots["momentum_buffer"] * spec.momentum + push
    update = push + velocity * spec.momentum if spec.nesterov else velocity
    # Keras keeps the outputs last: the matrix of the rule is the transpose.
    matrix = ops.transpose(ops.reshape(update, (-1, parameter.shape[-1])))
    rows, columns = matrix.shape
    if spec.renormalizes:
        parameter = parameter * (rows**0.5 / _norm(parameter))
    scaled = rate * matrix_scale(spec, rows, columns)
    step = ops.reshape(ops.transpose(orthogonalize(spec, matrix)), parameter.shape) * scaled
    return parameter - step, {"momentum_buffer": velocity}


def orthogonalize(spec: Muon, matrix: Tensor) -> Tensor:
    """Return the matrix `(rows, columns)` with its singular values pushed towards 1."""
    a, b, c = NEWTON_SCHULZ
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = ops.transpose(matrix) if is_tall else matrix
    if spec.orthogonalizes_in == "bfloat16":
        x = ops.cast(x, "bfloat16")
    norm = _norm(x)
    floor = ops.convert_to_tensor(spec.norm_epsilon, dtype=norm.dtype)
    x = x / (ops.maximum(norm, floor) if spec.norm_clamped else norm + floor)
    for _ in range(spec.iterations):
        gram = x @ ops.transpose(x)
        x = x * a + (gram * b + (gram @ gram) * c) @ x
    x = ops.cast(x, matrix.dtype)
    return ops.transpose(x) if is_tall else x


def _norm(array: Tensor) -> Tensor:
    return ops.sqrt(ops.sum(array * array))
