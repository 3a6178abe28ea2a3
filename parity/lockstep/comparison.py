"""Lockstep: two nets fed the same batches, compared step by step, and the verdict."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parity import runtime
from parity.compare.gaps import NOTHING, State, Worst, largest, layer_gap
from parity.compare.verdicts import Verdict
from parity.data.batches import START_DIGEST, BatchStream
from parity.frameworks.net import Net
from parity.lockstep.bounds import describe_unbounded
from parity.lockstep.fields import COMPILED, FORMAT
from parity.lockstep.findings import Findings
from parity.lockstep.free import run_free
from parity.lockstep.injection import Injection, describe_no_op, parse_injection
from parity.lockstep.loop import model_spec, start_state
from parity.lockstep.pair import LockstepSettings, Pair, array_names, build_pair
from parity.lockstep.power import Trial, measure_power
from parity.lockstep.resynced import run_resynced
from parity.lockstep.steps import prefixed
from parity.spec.model_spec import ModelSpec
from parity.spec.optimizers import AVERAGE
from parity.spec.recipe import ResolvedRecipe

# Below this share of the logits' scale, what a net returns hardly depends on its input, and any
# port of it would pass.
VACUOUS_SPREAD = 1e-6


@dataclass(kw_only=True)
class Outcome:
    """What a lockstep ends with, beside its gaps.

    Attributes:
        sensitivity: How far logits vary over the first batch, relative to their size; None where
            nothing was run.
        power: Wrong twins that the comparison was tried on; empty unless the pair has passed.
    """

    verdict: Verdict
    reason: str
    notes: tuple[str, ...] = ()
    digest: str = START_DIGEST
    sensitivity: float | None = None
    power: list[Trial] = field(default_factory=list)


def run_lockstep(
    recipe: ResolvedRecipe,
    settings: LockstepSettings,
    *,
    stream: BatchStream,
    inject: str | None = None,
    on_step: Callable[[int], None] = lambda _step: None,
) -> dict[str, Any]:
    """Train reference and candidate side by side and return the record of the comparison.

    Args:
        recipe: What both train under.
        settings: How they are compared.
        stream: The batches.
        inject: `FIELD=VALUE`, a wrong convention for the candidate.
        on_step: Called with the count of steps made.

    Raises:
        ParityError: If the injection names no field, or a framework is missing.
    """
    started = time.perf_counter()
    spec = model_spec(recipe, stream)
    injection = parse_injection(inject, recipe, spec)
    findings = Findings()
    labels = (settings.reference, settings.candidate)
    outcome = _describe_without_a_run(injection, recipe, spec)
    if outcome is None:
        pair = build_pair(recipe, settings, stream=stream, spec=spec, injection=injection)
        outcome = _compare(pair, findings, on_step)
        suffix = COMPILED if settings.compiled else ""
        labels = (pair.reference.label, pair.candidate.label + suffix)
    return {
        "format": FORMAT,
        "reference": labels[0],
        "candidate": labels[1],
        "mode": settings.mode,
        "dtype": settings.dtype,
        "device": settings.device,
        "recipe": recipe.to_table(),
        "seed": settings.seed,
        "steps": settings.steps,
        "every": settings.every,
        "injected": inject,
        "verdict": outcome.verdict,
        "reason": outcome.reason,
        "first_divergence": findings.first_divergence(),
        "summary": findings.summary(),
        "rows": findings.rows,
        "notes": list(outcome.notes),
        "input_sensitivity": outcome.sensitivity,
        "detection_power": [trial.to_json() for trial in outcome.power],
        "environment": runtime.environment(),
        "stream_digest": outcome.digest,
        "seconds": time.perf_counter() - started,
    }


def _describe_without_a_run(
    injection: Injection, recipe: ResolvedRecipe, spec: ModelSpec
) -> Outcome | None:
    """Return what is known before anything is run; None if the nets must be compared."""
    unbounded = describe_unbounded(recipe.update.rule)
    if unbounded:
        return Outcome(verdict="not compared", reason=unbounded)
    no_op = describe_no_op(injection, recipe, spec)
    if no_op:
        reason = f"{injection.text} is an exact no-op here: {no_op}; nothing was run."
        return Outcome(verdict="numerically equivalent", reason=reason)
    return None


def _compare(pair: Pair, findings: Findings, on_step: Callable[[int], None]) -> Outcome:
    if not _start(pair, findings):
        return _conclude(findings)
    batch = pair.stream.batch(0, 0)
    sensitivity = _logit_spread(pair.reference.forward(batch.images, training=False))
    if sensitivity < VACUOUS_SPREAD:
        reason = (
            f"logits vary by {sensitivity:.1g} of their size over the first batch: "
            "any net of this shape would pass."
        )
        return Outcome(verdict="vacuous", reason=reason, sensitivity=sensitivity)
    run = run_free if pair.settings.mode == "free" else run_resynced
    course = run(pair, findings, on_step)
    outcome = _conclude(findings, has_kink=course.has_kink)
    outcome.notes, outcome.digest, outcome.sensitivity = course.notes, course.digest, sensitivity
    if outcome.verdict == "numerically equivalent":
        outcome.power = measure_power(pair, course)
        if not any(trial.caught for trial in outcome.power):
            outcome.verdict = "vacuous"
            outcome.reason = (
                f"none of {len(outcome.power)} wrong twins would have been told from the right one."
            )
    return outcome


def _start(pair: Pair, findings: Findings) -> bool:
    """Load initial weights into both nets; return whether they can train together."""
    expected = start_state(pair.spec, pair.stream)
    pair.reference.load_state(expected)
    unmatched = sorted(array_names(pair.candidate) ^ array_names(pair.reference))
    structure = Worst(gap=float(len(unmatched)), where=unmatched[0] if unmatched else "")
    findings.add(0, "state structure", structure, bound=0.0)
    if unmatched:
        findings.close_step(0, rate=0.0, loss=0.0)
        return False
    own = (
        pair.injection.candidate_spec(pair.spec) if pair.injection.keeps_own_weights else pair.spec
    )
    pair.candidate.load_state(start_state(own, pair.stream))
    parameters = layer_gap(_parameters(pair.candidate), _parameters(pair.reference))
    worst = max(parameters, _initial_slot_gap(pair), key=lambda gap: gap.gap)
    findings.add(0, "initial parameters", worst, bound=0.0)
    findings.close_step(0, rate=0.0, loss=0.0)
    return True


def _initial_slot_gap(pair: Pair) -> Worst:
    """Return the worst gap of what the optimizers start from; averages start from the weights."""
    expected = pair.reference.optimizer_state().slots
    actual = pair.candidate.optimizer_state().slots
    gaps = [
        prefixed(layer_gap(actual[slot], expected[slot]), slot)
        for slot in expected
        if slot != AVERAGE
    ]
    return max(gaps, key=lambda gap: gap.gap, default=NOTHING)


def _parameters(net: Net) -> State:
    state = net.state()
    return {name: state[name] for name in net.parameter_names()}


def _logit_spread(logits: np.ndarray) -> float:
    scale = largest(logits)
    return float(np.ptp(logits, axis=0).max()) / scale if scale else 0.0


def _conclude(findings: Findings, *, has_kink: bool = False) -> Outcome:
    first = findings.first_divergence()
    if first is not None:
        return Outcome(
            verdict="diverges", reason=f"first over its bound: {_describe_place(first)}."
        )
    doubtful = findings.first_doubt()
    if doubtful is not None:
        reason = (
            "neither clearly rounding nor clearly more, by its ratio to the rounding noise: "
            f"{_describe_place(doubtful)}."
        )
        return Outcome(verdict="not compared", reason=reason)
    until = " up to a ReLU kink" if has_kink else ""
    return Outcome(
        verdict="numerically equivalent", reason=f"every gap is within its bound{until}."
    )


def _describe_place(gap: dict[str, Any]) -> str:
    place = f" at {gap['where']}" if gap["where"] else ""
    when = f"step {gap['step']}" if gap["step"] else "the start"
    return f"{gap['quantity']}{place}, {when}"
