"""RMSprop, Adagrad and Adadelta on one variable.

The rules are stated in `parity.reference.optimizers.accumulators`. Mirrors
`models_torch.optimizers.accumulators`.
"""

from keras import ops

from models_keras.optimizers.names import Tensor
from parity.spec.optimizers import Adadelta, Adagrad, Rmsprop


def _root(spec: Rmsprop | Adagrad, square: Tensor) -> Tensor:
    if spec.epsilon_placement == "outside":
        return ops.sqrt(square) + spec.epsilon
    return ops.sqrt(square + spec.epsilon)


def rmsprop_step(
    spec: Rmsprop,
    parameter: Tensor,
    gradient: Tensor,
    slots: dict[str, Tensor],
    *,
    rate: Tensor,
    count: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return parameter and slots after RMSprop's step."""
    del count
    rho = spec.square_decay
    square = slots["square_avg"] * rho + gradient * gradient * (1.0 - rho)
    new, spread = {"square_avg": square}, square
    if spec.centered:
        mean = slots["grad_avg"] * rho + gradient * (1.0 - rho)
        new["grad_avg"], spread = mean, square - mean * mean
    direction = gradient / _root(spec, spread)
    if not spec.momentum:
        return parameter - direction * rate, new
    push = direction * rate if spec.velocity_holds_lr else direction
    velocity = slots["momentum_buffer"] * spec.momentum + push
    new["momentum_buffer"] = velocity
    return parameter - (velocity if spec.velocity_holds_lr else velocity * rate), new


def adagrad_step(
    spec: Adagrad,
    parameter: Tensor,
    gradient: Tensor,
    slots: dict[str, Tensor],
    *,
    rate: Tensor,
    count: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return parameter and slots after Adagrad's step."""
    total = slots["sum"] + gradient * gradient
    decayed = rate / (1.0 + (count - 1) * spec.rate_decay)
    return parameter - gradient * decayed / _root(spec, total), {"sum": total}


def adadelta_step(
    spec: Adadelta,
    parameter: Tensor,
    gradient: Tensor,
    slots: dict[str, Tensor],
    *,
    rate: Tensor,
    count: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return parameter and slots after Adadelta's step."""
    del count
    rho, moved = spec.square_decay, slots["acc_delta"]
    square = slots["square_avg"] * rho + gradient * gradient * (1.0 - rho)
    step = ops.sqrt(moved + spec.epsilon) / ops.sqrt(square + spec.epsilon) * gradient
    moved = moved * rho + step * step * (1.0 - rho)
    return parameter - step * rate, {"square_avg": square, "acc_delta": moved}
