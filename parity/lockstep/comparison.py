"""Lockstep: two nets fed the same batches and compared after each step.

Resynced, the candidate takes the reference's state after each comparison, so that every step is an
independent test. Running free, rounding grows; it is judged against a control, the reference with
every weight moved by one unit in the last place.
"""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parity import runtime
from parity.compare.gaps import State, Worst, largest, layer_gap, tensor_gap
from parity.compare.verdicts import Verdict
from parity.data.batches import START_DIGEST, BatchStream
from parity.frameworks.build import build_twin
from parity.frameworks.net import Net, OptimizerState
from parity.initialize import initial_state
from parity.lockstep import bounds
from parity.lockstep.findings import Findings
from parity.lockstep.injection import Injection, describe_no_op, parse_injection
from parity.lockstep.kinks import count_mask_flips, describe_flips
from parity.lockstep.loop import StepEvent, model_spec, training_steps
from parity.lockstep.single import SinglePrecisionJudge
from parity.lockstep.steps import (
    Snapshot,
    judge_forward,
    judge_step,
    take_snapshot,
    zero_gradient_parameters,
)
from parity.spec.models import ResNetSpec
from parity.spec.recipe import ResolvedRecipe

FORMAT = 1

# Below this share of the logits' scale, what a net returns hardly depends on its input, and any
# port of it would pass.
VACUOUS_SPREAD = 1e-6


@dataclass(frozen=True, kw_only=True)
class LockstepSettings:
    """How two nets are compared.

    Attributes:
        steps: Training steps.
        every: Steps between comparisons.
        mode: `resync` or `free`.
        dtype: `float32` or `float64`.
        seed: Of initial weights, order and augmentation.
        reference: Framework of the reference, `torch` or `keras`.
        candidate: Framework of the candidate.
        keras_backend: Backend of the Keras side; None for the process's own.
        device: Device of the nets.
    """

    steps: int
    every: int = 1
    mode: str = "resync"
    dtype: str = "float64"
    seed: int = 0
    reference: str = "torch"
    candidate: str = "keras"
    keras_backend: str | None = None
    device: str = "cpu"


@dataclass
class Outcome:
    """What a lockstep ends with, beside its gaps."""

    verdict: Verdict
    reason: str
    notes: list[str] = field(default_factory=list)
    digest: str = START_DIGEST


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The two nets, what built them, and the recipe each trains under."""

    reference: Net
    candidate: Net
    spec: ResNetSpec
    injection: Injection
    recipe: ResolvedRecipe
    stream: BatchStream
    settings: LockstepSettings

    @property
    def nets(self) -> tuple[Net, Net]:
        """Reference and candidate."""
        return self.reference, self.candidate

    @property
    def recipes(self) -> tuple[ResolvedRecipe, ResolvedRecipe]:
        """The reference's recipe and the candidate's."""
        return self.recipe, self.injection.recipe


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
    no_op = describe_no_op(injection, recipe, spec)
    if no_op:
        reason = f"{inject} is an exact no-op here: {no_op}; nothing was run."
        outcome = Outcome(verdict="numerically equivalent", reason=reason)
        labels = (settings.reference, settings.candidate)
    else:
        pair = build_pair(recipe, settings, stream=stream, spec=spec, injection=injection)
        outcome = _compare(pair, findings, on_step)
        labels = (pair.reference.label, pair.candidate.label)
    return {
        "format": FORMAT,
        "reference": labels[0],
        "candidate": labels[1],
        "mode": settings.mode,
        "dtype": settings.dtype,
        "recipe": recipe.to_table(),
        "seed": settings.seed,
        "steps": settings.steps,
        "injected": inject,
        "verdict": outcome.verdict,
        "reason": outcome.reason,
        "first_divergence": findings.first_divergence(),
        "summary": findings.summary(),
        "rows": findings.rows,
        "notes": outcome.notes,
        "environment": runtime.environment(),
        "stream_digest": outcome.digest,
        "seconds": time.perf_counter() - started,
    }


def build_pair(
    recipe: ResolvedRecipe,
    settings: LockstepSettings,
    *,
    stream: BatchStream,
    spec: ResNetSpec,
    injection: Injection,
) -> Pair:
    """Build both nets; the candidate under the injected recipe."""

    def build(framework: str, net_spec: ResNetSpec, net_recipe: ResolvedRecipe) -> Net:
        return build_twin(
            framework,
            net_spec,
            loss=net_recipe.loss,
            optimizer=net_recipe.optimizer,
            dtype=settings.dtype,
            memory_format="channels_first" if framework == "torch" else None,
            device=settings.device,
            keras_backend=settings.keras_backend,
        )

    return Pair(
        reference=build(settings.reference, spec, recipe),
        candidate=build(settings.candidate, injection.candidate_spec(spec), injection.recipe),
        spec=spec,
        injection=injection,
        recipe=recipe,
        stream=stream,
        settings=settings,
    )


def _compare(pair: Pair, findings: Findings, on_step: Callable[[int], None]) -> Outcome:
    if not _start(pair, findings):
        return _concluded(findings, notes=[])
    batch = pair.stream.batch(0, 0)
    spread = _logit_spread(pair.reference.forward(batch.images, training=False))
    if spread < VACUOUS_SPREAD:
        reason = (
            f"logits vary by {spread:.1g} of their size over the first batch: "
            "any net of this shape would pass."
        )
        return Outcome(verdict="vacuous", reason=reason)
    if pair.settings.mode == "free":
        return _run_free(pair, findings, on_step)
    return _run_resynced(pair, findings, on_step)


def _start(pair: Pair, findings: Findings) -> bool:
    """Load initial weights into both nets; return whether they can train together."""
    settings = pair.settings
    expected = initial_state(pair.spec, seed=settings.seed)
    pair.reference.load_state(expected)
    names = set(pair.candidate.state())
    unmatched = sorted(names.symmetric_difference(expected))
    structure = Worst(gap=float(len(unmatched)), where=unmatched[0] if unmatched else "")
    findings.add(0, "state structure", structure, bound=0.0)
    if unmatched:
        findings.close_step(0, rate=0.0, loss=0.0)
        return False
    own = (
        pair.injection.candidate_spec(pair.spec) if pair.injection.keeps_own_weights else pair.spec
    )
    pair.candidate.load_state(initial_state(own, seed=settings.seed))
    parameters = layer_gap(_parameters(pair.candidate), _parameters(pair.reference))
    findings.add(0, "initial parameters", parameters, bound=0.0)
    findings.close_step(0, rate=0.0, loss=0.0)
    if pair.injection.keeps_own_weights and settings.mode == "resync":
        pair.candidate.load_state(pair.reference.state())
    return True


def _run_resynced(pair: Pair, findings: Findings, on_step: Callable[[int], None]) -> Outcome:
    notes = _zero_gradient_notes(pair)
    settings = pair.settings
    single = SinglePrecisionJudge(pair) if settings.dtype == "float32" else None
    digest, done = START_DIGEST, 0
    while done < settings.steps:
        before = take_snapshot(pair.reference)
        resync(pair.candidate, before)
        # A compared step is every `every`-th, and the last; those between only train the reference
        # on.
        stop = min(done + settings.every, settings.steps)
        for event in training_steps(
            [pair.reference],
            pair.stream,
            recipes=[pair.recipe],
            start=done,
            stop=stop - 1,
            digest=digest,
        ):
            digest = event.digest
        if stop - 1 > done:
            before = take_snapshot(pair.reference)
            resync(pair.candidate, before)
        if done == 0 and single is None:
            _judge_forward(pair, findings, step=stop)
        (event,) = training_steps(
            pair.nets,
            pair.stream,
            recipes=pair.recipes,
            start=stop - 1,
            stop=stop,
            digest=digest,
            with_gradients=True,
        )
        digest, done = event.digest, stop
        if single is None:
            judge_step(findings, pair, event, before=before)
        else:
            notes += single.judge(findings, event, before=before)
        findings.close_step(done, rate=event.rates[0], loss=event.records[0].loss)
        on_step(done)
    return dataclasses.replace(_concluded(findings, notes=notes), digest=digest)


def _judge_forward(pair: Pair, findings: Findings, *, step: int) -> None:
    batch = pair.stream.batch(*divmod(step - 1, pair.stream.steps_per_epoch))
    for training in (False, True):
        judge_forward(findings, pair, batch.images, step=step, training=training)


def _run_free(pair: Pair, findings: Findings, on_step: Callable[[int], None]) -> Outcome:
    notes: list[str] = []
    control = _build_control(pair)
    single = SinglePrecisionJudge(pair) if pair.settings.dtype == "float32" else None
    kink: str | None = None
    event: StepEvent | None = None
    nets, recipes = [*pair.nets, control], [*pair.recipes, pair.recipe]
    before = (take_snapshot(pair.reference), take_snapshot(pair.candidate))
    steps = training_steps(
        nets,
        pair.stream,
        recipes=recipes,
        start=0,
        stop=pair.settings.steps,
        digest=START_DIGEST,
        with_gradients=single is not None,
    )
    for event in steps:
        step = event.step + 1
        if single is not None and step == 1:
            pairwise = dataclasses.replace(event, records=event.records[:2], rates=event.rates[:2])
            notes += single.judge(findings, pairwise, before=before[0])
        gaps = _free_gaps(pair.reference, pair.candidate, event, index=1)
        drifts = _free_gaps(pair.reference, control, event, index=2)
        exceeded = gaps["parameters"].gap > bounds.FREE_PARAMETERS
        if exceeded and kink is None and single is None:
            flips = count_mask_flips(pair.nets, before, event.batch.images)
            kink = describe_flips(flips, step=step)
            notes += [kink] if kink else []
        judged = single is None and kink is None
        for quantity, worst in gaps.items():
            bound = bounds.FREE_PARAMETERS if quantity == "parameters" and judged else None
            findings.add(step, quantity, worst, bound=bound)
        control_gaps = {quantity: worst.gap for quantity, worst in drifts.items()}
        findings.close_step(
            step, rate=event.rates[0], loss=event.records[0].loss, control=control_gaps
        )
        if judged:
            before = (take_snapshot(pair.reference), take_snapshot(pair.candidate))
        on_step(step)
    digest = event.digest if event else START_DIGEST
    return dataclasses.replace(_concluded(findings, notes=notes, kink=kink), digest=digest)


def _free_gaps(reference: Net, candidate: Net, event: StepEvent, *, index: int) -> dict[str, Worst]:
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
        "parameters": layer_gap(*parameters),
    }


def _build_control(pair: Pair) -> Net:
    """Return the reference with every weight moved by one unit in the last place."""
    control = pair.reference.astype(pair.settings.dtype)
    state = pair.reference.state()
    for name in pair.reference.parameter_names():
        state[name] = np.nextafter(state[name], np.inf, dtype=state[name].dtype)
    control.load_state(state)
    return control


def resync(net: Net, snapshot: Snapshot) -> None:
    """Give a net another's state and optimizer state."""
    net.load_state(snapshot.state)
    net.load_optimizer_state(snapshot.optimizer_state)


def _parameters(net: Net) -> State:
    state = net.state()
    return {name: state[name] for name in net.parameter_names()}


def _logit_spread(logits: np.ndarray) -> float:
    scale = largest(logits)
    return float(np.ptp(logits, axis=0).max()) / scale if scale else 0.0


def _zero_gradient_notes(pair: Pair) -> list[str]:
    names = zero_gradient_parameters(pair.spec)
    if not names:
        return []
    note = (
        f"{len(names)} arrays have a gradient of zero in theory (biases before batch norm, "
        f"such as {names[0]}); under Adam their update is judged from each side's own gradients."
    )
    return [note]


def _concluded(findings: Findings, *, notes: list[str], kink: str | None = None) -> Outcome:
    first = findings.first_divergence()
    if first is None:
        until = " up to a ReLU kink" if kink else ""
        return Outcome(
            verdict="numerically equivalent",
            reason=f"every gap is within its bound{until}.",
            notes=notes,
        )
    place = f" at {first['where']}" if first["where"] else ""
    when = f"step {first['step']}" if first["step"] else "the start"
    reason = f"first over its bound: {first['quantity']}{place}, {when}."
    return Outcome(verdict="diverges", reason=reason, notes=notes)


__all__ = ["LockstepSettings", "OptimizerState", "Pair", "run_lockstep"]
