"""SGD, LARS and Muon on one array. See `parity.reference.optimizers.update` for the signature."""

import numpy as np

from parity.reference.optimizers.rounding import round_to_bfloat16
from parity.reference.optimizers.types import Array, Arrays
from parity.spec.optimizers import NEWTON_SCHULZ, Lars, Muon, Sgd, matrix_scale


def sgd_step(
    spec: Sgd, parameter: Array, gradient: Array, slots: Arrays, *, rate: float, count: int
) -> tuple[Array, Arrays]:
    """Return parameter and slots after SGD's step.

    Without momentum the step is `rate g`. With the gradient in the velocity: `v <- mu v + d g`;
    step `rate v`, or with Nesterov `rate (g + mu v)`. With the rate in the velocity:
    `v <- mu v - rate d g`; step `-v`, or `rate g - mu v`. `d` is 1 at the first update and
    `1 - dampening` later. The two forms agree (`v = -rate v'`) while the rate does not change.

    Source: torch 2.13.0 optim/sgd.py `_single_tensor_sgd`; keras 3.15.1 optimizers/sgd.py
        `update_step`.
    """
    mu = spec.momentum
    if not mu:
        return parameter - rate * gradient, {}
    share = 1.0 if count == 1 else 1.0 - spec.dampening
    velocity = slots["momentum_buffer"]
    if spec.velocity_holds_lr:
        velocity = mu * velocity - rate * share * gradient
        step = rate * gradient - mu * velocity if spec.nesterov else -velocity
    else:
        velocity = mu * velocity + share * gradient
        step = rate * (gradient + mu * velocity if spec.nesterov else velocity)
    return parameter - step, {"momentum_buffer": velocity}


def lars_step(
    spec: Lars, parameter: Array, gradient: Array, slots: Arrays, *, rate: float, count: int
) -> tuple[Array, Arrays]:
    """Return parameter and slots after LARS's step: SGD's on the gradient times the trust ratio.

    `gradient` holds the coupled penalty `l2 p` already; the ratio is of the bare gradient:
    `trust_coefficient |p| / (|g| + l2 |p| + norm_epsilon)`, and 1 where `|p| < least_norm`, where
    either norm is 0, or where the array has no penalty and `adapts_undecayed` is false.

    Source: You et al. 2017, algorithm 1; timm 1.0.31 optim/lars.py `step` (coefficient 0.001);
        hysts/pytorch_image_classification optim/lars.py (coefficient 1, least norm 0.01).
    """
    del count
    gradient = _trust_ratio(spec, parameter, gradient - spec.l2 * parameter) * gradient
    if not spec.momentum:
        return parameter - rate * gradient, {}
    mu, velocity = spec.momentum, slots["momentum_buffer"]
    if spec.velocity_holds_lr:
        velocity = mu * velocity - rate * gradient
        step = rate * gradient - mu * velocity if spec.nesterov else -velocity
    else:
        velocity = mu * velocity + gradient
        step = rate * (gradient + mu * velocity if spec.nesterov else velocity)
    return parameter - step, {"momentum_buffer": velocity}


def _trust_ratio(spec: Lars, parameter: Array, gradient: Array) -> float:
    if not (spec.l2 or spec.adapts_undecayed):
        return 1.0
    size, steepness = float(np.linalg.norm(parameter)), float(np.linalg.norm(gradient))
    if size == 0.0 or steepness == 0.0 or size < spec.least_norm:
        return 1.0
    return spec.trust_coefficient * size / (steepness + spec.l2 * size + spec.norm_epsilon)


def muon_step(
    spec: Muon, parameter: Array, gradient: Array, slots: Arrays, *, rate: float, count: int
) -> tuple[Array, Arrays]:
    """Return parameter and slots after Muon's step on `(out, in)` or `(out, in, h, w)`.

    `v <- mu v + s g`; `u = s g + mu v` with Nesterov, else `v`; the share `s` is 1, or `1 - mu`
    where the velocity averages. Where asked for, `p <- sqrt(out) p / |p|`; then
    `p <- p - rate f orthogonalize(u)` with the factor `f` of `matrix_scale`.

    Source: K. Jordan, "Muon: An optimizer for hidden layers in neural networks", 2024; torch 2.13.0
        optim/_muon.py; keras 3.15.1 optimizers/muon.py `_muon_update_step`; cifar10-airbench
        airbench94_muon.py.
    """
    del count
    push = (1.0 - spec.momentum) * gradient if spec.velocity_averages else gradient
    velocity = spec.momentum * slots["momentum_buffer"] + push
    update = push + spec.momentum * velocity if spec.nesterov else velocity
    rows = len(parameter)
    if spec.renormalizes:
        parameter = parameter * (np.sqrt(rows) / np.linalg.norm(parameter))
    matrix = update.reshape(rows, -1)
    step = rate * matrix_scale(spec, *matrix.shape) * orthogonalize(spec, matrix)
    return parameter - step.reshape(parameter.shape), {"momentum_buffer": velocity}


def orthogonalize(spec: Muon, matrix: Array) -> Array:
    """Return the matrix with its singular values pushed towards 1.

    `X = M / |M|`, then `spec.iterations` times `X <- a X + (b A + c A^2) X` with `A = X X^T`, on
    the transpose where the matrix is tall. In `bfloat16` every product and sum is rounded.
    """
    a, b, c = NEWTON_SCHULZ
    fit = round_to_bfloat16 if spec.orthogonalizes_in == "bfloat16" else np.asarray
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = fit(matrix.T if is_tall else matrix)
    norm = float(np.linalg.norm(x))
    x = fit(x / (max(norm, spec.norm_epsilon) if spec.norm_clamped else norm + spec.norm_epsilon))
    for _ in range(spec.iterations):
        gram = fit(x @ x.T)
        x = fit(a * x + fit(b * gram + c * (gram @ gram)) @ x)
    return x.T if is_tall else x
