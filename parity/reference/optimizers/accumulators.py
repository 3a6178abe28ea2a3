"""RMSprop, Adagrad and Adadelta on one array. See `parity.reference.optimizers.update`."""

import numpy as np

from parity.reference.optimizers.types import Array, Arrays
from parity.spec.optimizers import Adadelta, Adagrad, Rmsprop


def _root(spec: Rmsprop | Adagrad, square: Array) -> Array:
    """Return the denominator: epsilon beside the root, or under it."""
    if spec.epsilon_placement == "outside":
        root: Array = np.sqrt(square) + spec.epsilon
    else:
        root = np.sqrt(square + spec.epsilon)
    return root


def rmsprop_step(
    spec: Rmsprop, parameter: Array, gradient: Array, slots: Arrays, *, rate: float, count: int
) -> tuple[Array, Arrays]:
    """Return parameter and slots after RMSprop's step.

    `s <- rho s + (1 - rho) g^2`; centered, `a <- rho a + (1 - rho) g` and `s - a^2` in place of
    `s`; `d = g / (sqrt(s) + epsilon)` or `g / sqrt(s + epsilon)`. The step is `rate d`; with
    momentum `v <- mu v + d` and the step `rate v`, or, with the rate in the velocity, `v <- mu v +
    rate d` and the step `v`.

    Source: Tieleman & Hinton 2012, lecture 6.5; torch 2.13.0 optim/rmsprop.py
        `_single_tensor_rmsprop`; keras 3.15.1 optimizers/rmsprop.py `update_step`.
    """
    del count
    rho = spec.square_decay
    square = rho * slots["square_avg"] + (1.0 - rho) * gradient**2
    new, spread = {"square_avg": square}, square
    if spec.centered:
        new["grad_avg"] = rho * slots["grad_avg"] + (1.0 - rho) * gradient
        spread = square - new["grad_avg"] ** 2
    direction = gradient / _root(spec, spread)
    if not spec.momentum:
        return parameter - rate * direction, new
    push = rate * direction if spec.velocity_holds_lr else direction
    velocity = spec.momentum * slots["momentum_buffer"] + push
    new["momentum_buffer"] = velocity
    return parameter - (velocity if spec.velocity_holds_lr else rate * velocity), new


def adagrad_step(
    spec: Adagrad, parameter: Array, gradient: Array, slots: Arrays, *, rate: float, count: int
) -> tuple[Array, Arrays]:
    """Return parameter and slots after Adagrad's step.

    `s <- s + g^2`; the step of update `t` is `rate / (1 + (t - 1) rate_decay) g` over
    `sqrt(s) + epsilon` or `sqrt(s + epsilon)`.

    Source: Duchi et al. 2011; torch 2.13.0 optim/adagrad.py `_single_tensor_adagrad`; keras 3.15.1
        optimizers/adagrad.py `update_step`.
    """
    total = slots["sum"] + gradient**2
    decayed = rate / (1.0 + (count - 1) * spec.rate_decay)
    return parameter - decayed * gradient / _root(spec, total), {"sum": total}


def adadelta_step(
    spec: Adadelta, parameter: Array, gradient: Array, slots: Arrays, *, rate: float, count: int
) -> tuple[Array, Arrays]:
    """Return parameter and slots after Adadelta's step.

    `s <- rho s + (1 - rho) g^2`; `d = sqrt(u + epsilon) / sqrt(s + epsilon) g`;
    `u <- rho u + (1 - rho) d^2`; the step is `rate d`.

    Source: Zeiler 2012, algorithm 1; torch 2.13.0 optim/adadelta.py `_single_tensor_adadelta`;
        keras 3.15.1 optimizers/adadelta.py `update_step`.
    """
    del count
    rho = spec.square_decay
    square = rho * slots["square_avg"] + (1.0 - rho) * gradient**2
    step = np.sqrt(slots["acc_delta"] + spec.epsilon) / np.sqrt(square + spec.epsilon) * gradient
    moved = rho * slots["acc_delta"] + (1.0 - rho) * step**2
    return parameter - rate * step, {"square_avg": square, "acc_delta": moved}
