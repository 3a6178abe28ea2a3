"""Judging a float32 step against float64 and the reference's own rounding noise.

Outputs, loss and running statistics are judged by ratio: the candidate's error against a float64
run of the reference, over the largest error of a calibration set (the reference in float32 in both
memory formats, with every weight moved by one unit in the last place, and over the batch in
reverse). Rounding turns ReLU masks, which moves float32 gradients by far more than rounding, so
gradients, slots and parameters are judged from a float64 re-run of both sides; that float32 updates
follow the rule is judged from each side's own gradients.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from parity.compare.gaps import Worst, tensor_gap
from parity.compare.verdicts import CLEARLY_RIGHT, CLEARLY_WRONG
from parity.frameworks.build import build_twin
from parity.frameworks.net import Array, Batch, Net, State, StepRecord
from parity.lockstep.findings import Findings
from parity.lockstep.kinks import count_mask_flips
from parity.lockstep.loop import StepEvent
from parity.lockstep.pair import Pair
from parity.lockstep.steps import Snapshot, judge_step, rule_gap, take_snapshot
from parity.spec.airbench import AirbenchSpec

# A float32 update rounds a handful of operations: worst seen 2.4e-7 of the layer's largest update.
UPDATE_RULE = 2e-6

# Rules that divide by the gradient's size amplify its rounding, and a bias correction in float32
# loses digits (1 - 0.999^t): worst seen 1.0e-5, under Adam and AdaBound.
NORMALIZED_UPDATE_RULE = 1e-4

_FROM_DOUBLE = ("gradients", "slots", "parameters")


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What one run of a forward pass gives: loss is left out, it follows from the logits.

    Attributes:
        logits: `(n, classes)`.
        buffers: Running statistics afterwards.
    """

    logits: Array
    buffers: State


class SinglePrecisionJudge:
    """Judges float32 steps of a pair; holds the float64 nets and the calibration net."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._double = dataclasses.replace(
            pair,
            reference=pair.reference.astype("float64"),
            candidate=pair.candidate.astype("float64"),
        )
        self._calibration = list(_calibration_nets(pair))

    def judge(self, findings: Findings, event: StepEvent, *, before: Snapshot) -> list[str]:
        """Record the gaps of one step from the common state `before`; return notes."""
        step, rate = event.step + 1, event.rates[0]
        after = [take_snapshot(net) for net in self._pair.nets]
        records = self._rerun_in_double(findings, event, before)
        exact = Probe(logits=records[0].logits, buffers=_buffers(self._double.reference))
        noise = [exact_gap(probe, exact) for probe in self._probe(before, event.batch)]
        actual = exact_gap(
            Probe(
                logits=event.records[1].logits,
                buffers=_without(after[1].state, self._pair.candidate),
            ),
            exact,
        )
        for quantity in actual:
            scale = max(gaps[quantity].gap for gaps in noise)
            findings.add(
                step,
                quantity,
                actual[quantity],
                bound=CLEARLY_RIGHT * scale,
                clear=CLEARLY_WRONG / CLEARLY_RIGHT,
            )
        for record, snapshot in zip(event.records, after, strict=True):
            worst = rule_gap(
                self._pair.recipe.update,
                before,
                snapshot,
                gradients=record.gradients,
                rate=rate,
                position=event.position,
            )
            is_normalized = self._pair.recipe.update.rule.normalizes()
            bound = NORMALIZED_UPDATE_RULE if is_normalized else UPDATE_RULE
            findings.add(step, "update rule", worst, bound=bound)
        return self._describe_first_step(event, before) if step == 1 else []

    def _rerun_in_double(
        self, findings: Findings, event: StepEvent, before: Snapshot
    ) -> tuple[StepRecord, ...]:
        for net in self._double.nets:
            net.load_state(before.state)
            net.load_optimizer_state(before.optimizer_state)
        records = tuple(
            net.step(event.batch, rate=rate, position=event.position, with_gradients=True)
            for net, rate in zip(self._double.nets, event.rates, strict=True)
        )
        double = Findings()
        judge_step(
            double,
            self._double,
            dataclasses.replace(event, records=records),
            before=_widened(before),
        )
        double.copy_to(findings, quantities=_FROM_DOUBLE)
        return records

    def _probe(self, before: Snapshot, batch: Batch) -> Iterator[Probe]:
        """Yield the calibration set's runs of the forward pass."""
        for net in self._calibration:
            yield _run(net, before.state, batch)
        net = self._calibration[0]
        nudged = {
            name: np.nextafter(array, np.float32(np.inf)) if array.dtype == np.float32 else array
            for name, array in before.state.items()
        }
        yield _run(net, nudged, batch)
        backwards = _run(net, before.state, _reversed(batch))
        yield Probe(logits=backwards.logits[::-1], buffers=backwards.buffers)

    def _describe_first_step(self, event: StepEvent, before: Snapshot) -> list[str]:
        if isinstance(self._pair.spec, AirbenchSpec):
            note = (
                "float32 rounding grows from step to step in right twins too; gradients, slots and "
                "parameters are therefore judged from a float64 re-run of both sides."
            )
            return [note]
        flips = count_mask_flips(self._pair.nets, (before, before), event.batch)
        turned, units = sum(flip.flipped for flip in flips), sum(flip.units for flip in flips)
        counted = (
            f"rounding turns {turned} of {units:,} ReLU units at step 1 (first in {flips[0].path})"
            if flips
            else "rounding turns no ReLU unit at step 1, but will at a later one"
        )
        note = (
            f"{counted}: each turned unit moves gradients by far more than rounding, so "
            "free-running float32 trajectories of ReLU nets part by themselves; gradients, slots "
            "and parameters are therefore judged from a float64 re-run of both sides."
        )
        return [note]


def exact_gap(probe: Probe, exact: Probe) -> dict[str, Worst]:
    """Return a float32 run's worst errors against the float64 one, relative to each array."""
    gaps = {"forward": tensor_gap({"logits": probe.logits}, {"logits": exact.logits})}
    for quantity, ending in (("running mean", "running_mean"), ("running variance", "running_var")):
        names = [name for name in exact.buffers if name.endswith(ending)]
        gaps[quantity] = tensor_gap(probe.buffers, exact.buffers, names=names)
    return gaps


def _calibration_nets(pair: Pair) -> Iterator[Net]:
    yield pair.reference.astype("float32")
    if pair.settings.reference == "torch":
        yield build_twin(
            "torch",
            pair.spec,
            loss=pair.recipe.loss,
            update=pair.recipe.update,
            memory_format="channels_last",
            device=pair.settings.device,
        )


def _reversed(batch: Batch) -> Batch:
    return Batch(
        images=batch.images[::-1],
        labels=batch.labels[::-1],
        targets=batch.targets[::-1],
        masks={path: kept[::-1].copy() for path, kept in batch.masks.items()},
    )


def _run(net: Net, state: State, batch: Batch) -> Probe:
    net.load_state(state)
    logits = net.forward(batch.images, training=True, masks=batch.masks)
    return Probe(logits=logits, buffers=_buffers(net))


def _buffers(net: Net) -> State:
    return _without(net.state(), net)


def _without(state: State, net: Net) -> State:
    parameters = set(net.parameter_names())
    return {name: array for name, array in state.items() if name not in parameters}


def _widened(snapshot: Snapshot) -> Snapshot:
    slots = {
        slot: {name: array.astype(np.float64) for name, array in arrays.items()}
        for slot, arrays in snapshot.optimizer_state.slots.items()
    }
    return Snapshot(
        state={name: array.astype(np.float64) for name, array in snapshot.state.items()},
        optimizer_state=dataclasses.replace(snapshot.optimizer_state, slots=slots),
    )
