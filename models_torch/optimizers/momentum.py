"""SGD, LARS and Muon on one tensor, as `parity.reference.optimizers.momentum` states them.

Mirrors `models_keras.optimizers.momentum`.
"""

import torch
from torch import Tensor

from parity.spec.optimizers import NEWTON_SCHULZ, Lars, Muon, Sgd, matrix_scale


def sgd_step(
    spec: Sgd,
    parameter: Tensor,
    gradient: Tensor,
    slots: dict[str, Tensor],
    *,
    rate: float,
    count: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return parameter and slots after SGD's step."""
    return _move(spec, parameter, gradient, slots, rate=rate, share=_share(spec, count))


def _share(spec: Sgd, count: int) -> float:
    """Return the share of the gradient that enters the velocity: the first is never dampened."""
    return 1.0 if count == 1 else 1.0 - spec.dampening


def lars_step(
    spec: Lars,
    parameter: Tensor,
    gradient: Tensor,
    slots: dict[str, Tensor],
    *,
    rate: float,
    count: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return parameter and slots after LARS's step."""
    del count
    if spec.l2 or spec.adapts_undecayed:
        bare = gradient - spec.l2 * parameter
        gradient = gradient * _trust_ratio(spec, parameter, bare)
    return _move(spec, parameter, gradient, slots, rate=rate, share=1.0)


def _trust_ratio(spec: Lars, parameter: Tensor, gradient: Tensor) -> Tensor:
    size, steepness = parameter.norm(), gradient.norm()
    ratio = spec.trust_coefficient * size / (steepness + spec.l2 * size + spec.norm_epsilon)
    is_plain = (size == 0.0) | (steepness == 0.0) | (size < spec.least_norm)
    return torch.where(is_plain, torch.ones_like(ratio), ratio)


def _move(
    spec: Sgd | Lars,
    parameter: Tensor,
    gradient: Tensor,
    slots: dict[str, Tensor],
    *,
    rate: float,
    share: float,
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
    rate: float,
    count: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return parameter and slots after Muon's step on `(out, in)` or `(out, in, h, w)`."""
    del count
    push = gradient * (1.0 - spec.momentum) if spec.velocity_averages else gradient
    velocity = slots["momentum_buffer"] * spec.momentum + push
    update = push + velocity * spec.momentum if spec.nesterov else velocity
    matrix = update.reshape(len(parameter), -1)
    rows, columns = matrix.shape
    if spec.renormalizes:
        parameter = parameter * (rows**0.5 / parameter.norm())
    scaled = rate * matrix_scale(spec, rows, columns)
    step = orthogonalize(spec, matrix).reshape(parameter.shape) * scaled
    return parameter - step, {"momentum_buffer": velocity}


def orthogonalize(spec: Muon, matrix: Tensor) -> Tensor:
    """Return the matrix `(rows, columns)` with its singular values pushed towards 1."""
    a, b, c = NEWTON_SCHULZ
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    if spec.orthogonalizes_in == "bfloat16":
        x = x.bfloat16()
    norm = x.norm()
    x = x / (norm.clamp(min=spec.norm_epsilon) if spec.norm_clamped else norm + spec.norm_epsilon)
    for _ in range(spec.iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    x = x.to(matrix.dtype)
    return x.T if is_tall else x
