"""Resynced lockstep: the candidate takes the reference's state after each comparison.

Every compared step is then an independent test of the two nets.
"""

from collections.abc import Callable

from parity.data.batches import START_DIGEST
from parity.frameworks.net import Net
from parity.lockstep.course import Course
from parity.lockstep.findings import Findings
from parity.lockstep.loop import StepEvent, training_steps, with_masks
from parity.lockstep.pair import Pair
from parity.lockstep.single import SinglePrecisionJudge
from parity.lockstep.steps import (
    Snapshot,
    judge_forward,
    judge_step,
    take_snapshot,
    zero_gradient_parameters,
)


def run_resynced(pair: Pair, findings: Findings, on_step: Callable[[int], None]) -> Course:
    """Train the pair and judge every `every`-th step, and the last."""
    settings = pair.settings
    notes = _zero_gradient_notes(pair)
    single = SinglePrecisionJudge(pair) if settings.dtype == "float32" else None
    digest, done = START_DIGEST, 0
    while True:
        stop = min(done + settings.every, settings.steps)
        digest = _train_reference(pair, start=done, stop=stop - 1, digest=digest)
        before = take_snapshot(pair.reference)
        resync(pair.candidate, before)
        if done == 0 and single is None:
            _judge_forward(pair, findings, step=stop)
        event = compared_step(pair, step=stop - 1, digest=digest)
        digest, done = event.digest, stop
        if single is None:
            judge_step(findings, pair, event, before=before)
        else:
            notes += single.judge(findings, event, before=before)
        findings.close_step(done, rate=event.rates[0], loss=event.records[0].loss)
        on_step(done)
        if done == settings.steps:
            return Course(digest=digest, notes=tuple(notes), start=done - 1, before=before)


def compared_step(pair: Pair, *, step: int, digest: str = START_DIGEST) -> StepEvent:
    """Make one 0-based step with both nets, from the state they are in."""
    (event,) = training_steps(
        pair.nets,
        pair.stream,
        recipes=pair.recipes,
        start=step,
        stop=step + 1,
        digest=digest,
        with_gradients=True,
    )
    return event


def resync(net: Net, snapshot: Snapshot) -> None:
    """Give a net another's state and optimizer state."""
    net.load_state(snapshot.state)
    net.load_optimizer_state(snapshot.optimizer_state)


def _train_reference(pair: Pair, *, start: int, stop: int, digest: str) -> str:
    """Train the reference alone over the steps between two comparisons; return the digest."""
    for event in training_steps(
        [pair.reference],
        pair.stream,
        recipes=[pair.recipe],
        start=start,
        stop=stop,
        digest=digest,
    ):
        digest = event.digest
    return digest


def _judge_forward(pair: Pair, findings: Findings, *, step: int) -> None:
    batch = pair.stream.batch(*divmod(step - 1, pair.stream.steps_per_epoch))
    batch = with_masks(batch, pair.spec, pair.stream, step=step - 1)
    for training in (False, True):
        judge_forward(findings, pair, batch, step=step, training=training)


def _zero_gradient_notes(pair: Pair) -> list[str]:
    names = zero_gradient_parameters(pair.spec)
    if not names:
        return []
    note = (
        f"{len(names)} arrays have a gradient of zero in theory (biases before batch norm, "
        f"such as {names[0]})"
    )
    if pair.recipe.update.rule.normalizes():
        note += "; their update is judged from each side's own gradients"
    return [f"{note}."]
