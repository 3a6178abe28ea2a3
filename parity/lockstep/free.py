"""Free-running lockstep: rounding grows, and is judged against a control.

The control is the reference with every weight moved by one unit in the last place.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from parity.compare.gaps import NOTHING, Worst, layer_gap, tensor_gap
from parity.data.batches import START_DIGEST
from parity.frameworks.net import Net
from parity.lockstep import bounds
from parity.lockstep.course import Course
from parity.lockstep.findings import Findings
from parity.lockstep.kinks import count_mask_flips, describe_flips
from parity.lockstep.loop import StepEvent, training_steps
from parity.lockstep.pair import Pair
from parity.lockstep.single import SinglePrecisionJudge
from parity.lockstep.steps import Snapshot, prefixed, take_snapshot


def run_free(pair: Pair, findings: Findings, on_step: Callable[[int], None]) -> Course:
    """Train reference, candidate and control freely, and compare after every step."""
    control = _build_control(pair)
    single = SinglePrecisionJudge(pair) if pair.settings.dtype == "float32" else None
    notes: list[str] = []
    has_parted = has_kink = False
    drifted: dict[str, float] = {}
    digest = START_DIGEST
    first = take_snapshot(pair.reference)
    before = (first, take_snapshot(pair.candidate))
    steps = training_steps(
        [*pair.nets, control],
        pair.stream,
        recipes=[*pair.recipes, pair.recipe],
        start=0,
        stop=pair.settings.steps,
        digest=digest,
        with_gradients=single is not None,
    )
    for event in steps:
        step, digest = event.step + 1, event.digest
        if single is not None and step == 1:
            notes += single.judge(findings, _without_control(event), before=first)
        gaps = free_gaps(pair.reference, pair.candidate, event, index=1)
        drifts = free_gaps(pair.reference, control, event, index=2)
        drifted = {name: max(drifted.get(name, 0.0), drifts[name].gap) for name in drifts}
        limits = {} if single else free_limits(pair, step=step, control=drifted)
        if not has_parted and any(gaps[name].gap > bound for name, bound in limits.items()):
            has_parted = True
            kink = _find_kink(pair, before, event)
            has_kink = kink is not None
            notes += [kink] if kink else []
        add_free_gaps(findings, gaps, step=step, limits={} if has_kink else limits)
        findings.close_step(
            step,
            rate=event.rates[0],
            loss=event.records[0].loss,
            control={name: worst.gap for name, worst in drifts.items()},
        )
        if limits and not has_parted:
            before = (take_snapshot(pair.reference), take_snapshot(pair.candidate))
        on_step(step)
    return Course(digest=digest, notes=tuple(notes), start=0, before=first, has_kink=has_kink)


def free_gaps(reference: Net, candidate: Net, event: StepEvent, *, index: int) -> dict[str, Worst]:
    """Return the gap of each quantity between two nets; `index` is the candidate's in the event."""
    states = candidate.state(), reference.state()
    names = reference.parameter_names()
    parameters = [{name: state[name] for name in names} for state in states]
    buffers = [name for name in states[1] if name not in names]
    losses = event.records[index].loss, event.records[0].loss
    return {
        "loss": Worst(gap=abs(losses[0] - losses[1]), where=""),
        "running mean": tensor_gap(
            *states, names=[name for name in buffers if name.endswith("mean")]
        ),
        "running variance": tensor_gap(
            *states, names=[name for name in buffers if name.endswith("var")]
        ),
        "slots": _slot_gap(candidate, reference),
        "parameters": layer_gap(*parameters),
    }


def _slot_gap(candidate: Net, reference: Net) -> Worst:
    expected, actual = (net.optimizer_state().slots for net in (reference, candidate))
    gaps = [prefixed(layer_gap(actual[slot], expected[slot]), slot) for slot in expected]
    return max(gaps, key=lambda worst: worst.gap, default=NOTHING)


def free_limits(pair: Pair, *, step: int, control: dict[str, float]) -> dict[str, float]:
    """Return the bound of each quantity at a free-running step, given how far the control is."""
    height, width = pair.spec.input_size
    return bounds.free_bounds(step=step, pixels=height * width, control=control)


def add_free_gaps(
    findings: Findings, gaps: dict[str, Worst], *, step: int, limits: dict[str, float]
) -> None:
    """Record the gaps of a free-running step, judged where there is a limit."""
    for quantity, worst in gaps.items():
        findings.add(step, quantity, worst, bound=limits.get(quantity))


def _find_kink(pair: Pair, before: tuple[Snapshot, Snapshot], event: StepEvent) -> str | None:
    flips = count_mask_flips(pair.nets, before, event.batch)
    return describe_flips(flips, step=event.step + 1)


def _without_control(event: StepEvent) -> StepEvent:
    return dataclasses.replace(event, records=event.records[:2], rates=event.rates[:2])


def _build_control(pair: Pair) -> Net:
    """Return the reference with every weight moved by one unit in the last place."""
    control = pair.reference.astype(pair.settings.dtype)
    state = pair.reference.state()
    for name in pair.reference.parameter_names():
        state[name] = np.nextafter(state[name], np.inf, dtype=state[name].dtype)
    control.load_state(state)
    return control
