"""Judging one float64 step: each quantity on its scale against its bound."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from parity.compare.gaps import (
    NOTHING,
    State,
    Worst,
    identity_gap,
    layer_gap,
    tensor_gap,
    update_gap,
)
from parity.frameworks.net import Array, Batch, Net, OptimizerState
from parity.lockstep import bounds
from parity.lockstep.findings import Findings
from parity.lockstep.loop import StepEvent
from parity.lockstep.pair import Pair
from parity.reference.optimizers import update_parameters
from parity.rng import stream
from parity.spec.layers import BatchNorm2d, Conv2d
from parity.spec.model_spec import ModelSpec
from parity.spec.optimizers import AVERAGE, Ema, Muon, NoAveraging, Update, average_move
from parity.spec.position import Position

# Adam's first step with a coupled penalty and clipping, Keras on jax: 0.7 times what one unit in
# the last place of the gradients makes of the element.
AMPLIFIED = 4.0
TRIALS = 4


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A net's state and optimizer state at one moment."""

    state: dict[str, Array]
    optimizer_state: OptimizerState


def take_snapshot(net: Net) -> Snapshot:
    """Return copies of a net's arrays."""
    return Snapshot(state=net.state(), optimizer_state=net.optimizer_state())


def zero_gradient_parameters(spec: ModelSpec) -> tuple[str, ...]:
    """Return the parameters whose gradient is zero in theory.

    Batch norm takes off again what the bias of the convolution before it adds.
    """
    return tuple(
        f"{layer.path}.bias"
        for layer, following in pairwise(spec.layers())
        if isinstance(layer, Conv2d) and layer.use_bias and isinstance(following, BatchNorm2d)
    )


def judge_forward(
    findings: Findings, pair: Pair, batch: Batch, *, step: int, training: bool
) -> None:
    """Compare layer outputs from the same state, in the order the reference runs them."""
    reference, candidate = (
        net.trace(batch.images, training=training, masks=batch.masks) for net in pair.nets
    )
    # A Keras model also has layers for additions and pads, which a PyTorch module just computes.
    for path in [path for path in reference if path in candidate]:
        expected = reference[path]
        actual = candidate[path].reshape(expected.shape)
        worst = tensor_gap({path: actual}, {path: expected})
        mode = "training" if training else "evaluation"
        where = f"{worst.where} in {mode} mode" if worst.where else ""
        named = dataclasses.replace(worst, where=where)
        if findings.add(step, "forward", named, bound=bounds.FORWARD).diverges:
            return  # every later layer inherits it


def judge_step(findings: Findings, pair: Pair, event: StepEvent, *, before: Snapshot) -> None:
    """Compare everything one step produced, from the same state `before`."""
    step, rate = event.step + 1, event.rates[0]
    expected, actual = event.records
    after = take_snapshot(pair.reference)
    candidate = take_snapshot(pair.candidate)
    height, width = pair.spec.input_size
    update = pair.recipe.update
    bound = bounds.step_bounds(
        step=step, loss=expected.loss, kind=update.rule.kind, pixels=height * width
    )
    loss = Worst(gap=_absolute(actual.loss - expected.loss), where="")
    findings.add(step, "loss", loss, bound=bound.loss)
    gradients = layer_gap(actual.gradients, expected.gradients)
    findings.add(step, "gradients", gradients, bound=bound.gradients)
    for quantity, ending in (("running mean", "running_mean"), ("running variance", "running_var")):
        names = [name for name in after.state if name.endswith(ending)]
        findings.add(
            step,
            quantity,
            tensor_gap(candidate.state, after.state, names=names),
            bound=bound.running_statistics,
        )
    for slot, arrays in after.optimizer_state.slots.items():
        judged = {name: array for name, array in arrays.items() if name not in _noise(pair)}
        worst = layer_gap(candidate.optimizer_state.slots[slot], judged)
        findings.add(step, "slots", prefixed(worst, slot), bound=bound.slots)
    findings.add(
        step,
        "parameters",
        _parameter_gap(pair, event, before, after, candidate),
        bound=bound.parameters,
    )
    own = (("reference", expected.gradients, after), ("candidate", actual.gradients, candidate))
    for side, side_gradients, snapshot in own:
        worst = rule_gap(
            update,
            before,
            snapshot,
            gradients=side_gradients,
            rate=rate,
            position=event.position,
        )
        bound_of_rule = bounds.rule_bound(update.rule)
        findings.add(step, "update rule", prefixed(worst, side), bound=bound_of_rule)


def _parameter_gap(
    pair: Pair, event: StepEvent, before: Snapshot, after: Snapshot, candidate: Snapshot
) -> Worst:
    """Compare updates."""
    names = set(event.records[0].gradients) - _noise(pair)
    return update_gap(
        candidate.state,
        {name: after.state[name] for name in names},
        before=before.state,
        gradients=event.records[0].gradients,
        rate=event.rates[0],
        roundings=stored_roundings(pair.recipe.update),
    )


def _noise(pair: Pair) -> set[str]:
    """Return the parameters that move by what their rule makes of pure rounding."""
    if not pair.recipe.update.rule.normalizes():
        return set()
    return set(zero_gradient_parameters(pair.spec))


def stored_roundings(update: Update) -> float:
    """Return how often an update rounds at the size of the old parameter, one side counted."""
    roundings = 1.0 if update.rule.decoupled_decay else 0.0
    if not isinstance(update.averaging, NoAveraging | Ema):
        roundings += 2.0  # the mean of slow and fast weights
    if isinstance(update.rule, Muon) and update.rule.renormalizes:
        roundings += 4.0  # a norm, a root, a quotient and a product
    return roundings


def rule_gap(
    update: Update,
    before: Snapshot,
    after: Snapshot,
    *,
    gradients: State,
    rate: float,
    position: Position,
) -> Worst:
    """Return how far a net's update is from the float64 update rule on its own gradients.

    Where a penalty cancels a gradient down to the epsilon of a rule that divides by its size, the
    last bit of the gradient shows in the update: beyond the bound, `AMPLIFIED` times what one unit
    in the last place of every gradient makes of the element, at most over `TRIALS`, is subtracted.
    """
    parameters = {name: before.state[name] for name in gradients}
    kept = _of_parameters(before.optimizer_state.slots, parameters)

    def updated(gradients: State) -> tuple[dict[str, Array], dict[str, dict[str, Array]]]:
        step = before.optimizer_state.step
        return update_parameters(
            update, parameters, gradients, kept, rate=rate, step=step, position=position
        )

    expected, slots = updated(gradients)

    def gap_beyond(amplified: State | None) -> Worst:
        return update_gap(
            after.state,
            expected,
            before=before.state,
            gradients=gradients,
            rate=rate,
            roundings=stored_roundings(update),
            amplified=amplified,
        )

    worst = gap_beyond(None)
    if update.rule.normalizes() and bounds.rule_bound(update.rule) < worst.gap < np.inf:
        trials = [updated(_moved_by_one_unit(gradients, trial))[0] for trial in range(TRIALS)]
        worst = gap_beyond(
            {
                name: AMPLIFIED * np.max([np.abs(moved[name] - array) for moved in trials], axis=0)
                for name, array in expected.items()
            }
        )
    gaps = [worst, *(layer_gap(after.optimizer_state.slots[slot], slots[slot]) for slot in slots)]
    gaps.append(_gap_after_the_end(update, before, after, names=parameters, position=position))
    return max(gaps, key=lambda gap: gap.gap)


def _moved_by_one_unit(gradients: State, trial: int) -> State:
    """Return gradients moved by one unit in the last place, each element either way.

    All of them moved alike would be scaled back by a clipping of their norm.
    """
    moved = {}
    for name, array in gradients.items():
        ups = stream(trial, "one unit", name).integers(0, 2, array.shape).astype(bool)
        moved[name] = np.nextafter(array, np.where(ups, np.inf, -np.inf))
    return moved


def _gap_after_the_end(
    update: Update,
    before: Snapshot,
    after: Snapshot,
    *,
    names: Iterable[str],
    position: Position,
) -> Worst:
    """Return whether anything has moved of groups whose epochs are over: not by one rounding.

    An average that writes back may move their parameters.
    """
    over = [
        name
        for name in names
        if update.assign(name, before.state[name].ndim).is_over(position.epoch)
    ]
    move = average_move(
        update.averaging,
        count=before.optimizer_state.step + 1,
        progress=position.progress,
    )
    gaps = [
        identity_gap(
            after.optimizer_state.slots[slot],
            arrays,
            names=[name for name in over if name in arrays],
        )
        for slot, arrays in before.optimizer_state.slots.items()
        if slot != AVERAGE
    ]
    if not move.writes_back:
        gaps.append(identity_gap(after.state, before.state, names=over))
    return max(gaps, key=lambda gap: gap.gap, default=NOTHING)


def _of_parameters(slots: Mapping[str, State], parameters: State) -> dict[str, State]:
    """Return slots without averages of buffers, which no update rule moves."""
    averaged = {name: array for name, array in slots.get(AVERAGE, {}).items() if name in parameters}
    return {**slots, AVERAGE: averaged} if AVERAGE in slots else dict(slots)


def prefixed(worst: Worst, prefix: str) -> Worst:
    """Return the gap with a word before its place."""
    return dataclasses.replace(worst, where=f"{prefix} {worst.where}") if worst.where else worst


def _absolute(difference: float) -> float:
    return abs(difference) if np.isfinite(difference) else float("inf")
