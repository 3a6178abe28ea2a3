"""Detection power: how many of a standard set of wrong twins this comparison would have caught.

A pass says little if a wrong twin would have passed as well. So once a pair has passed, each
fault of `parity.testing.faults` that applies to its model and recipe is set in a fresh twin, which
is run beside the reference under the bounds that the candidate passed.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from parity.data.batches import START_DIGEST
from parity.errors import SpecError
from parity.lockstep.course import Course
from parity.lockstep.findings import Findings
from parity.lockstep.free import add_free_gaps, free_gaps, free_limits
from parity.lockstep.injection import Injection, describe_no_op
from parity.lockstep.loop import training_steps
from parity.lockstep.pair import Pair, array_names, build_net
from parity.lockstep.resynced import compared_step, resync
from parity.lockstep.single import SinglePrecisionJudge
from parity.lockstep.steps import judge_step
from parity.spec.recipe import ResolvedRecipe
from parity.testing.faults import (
    CONVENTION_FAULTS,
    KILOSTEP_FAULTS,
    OPTIMIZER_FAULTS,
    UPDATE_FAULTS,
    seed_spec_fault,
    seed_update_fault,
)

# Free-running float64 nets are judged by what has grown; a fault that has grown past the bound
# within these steps has after more of them, too.
FREE_STEPS = 10

# Compared before the first step, so that no comparison can miss it.
_AT_THE_START = ("conv_bias_flipped", "initial_accumulator_off")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One wrong twin and what the comparison said of it.

    Attributes:
        fault: Name in `parity.testing.faults.SPEC_FAULTS`.
        change: `field=value` of the wrong twin.
        caught: Whether the verdict would have been *diverges*.
        quantity: The quantity with the largest ratio.
        ratio: Its gap over its bound.
    """

    fault: str
    change: str
    caught: bool
    quantity: str
    ratio: float

    def to_json(self) -> dict[str, Any]:
        """Return the trial as a table."""
        return dataclasses.asdict(self)


def measure_power(pair: Pair, course: Course) -> list[Trial]:
    """Return a trial of each fault that can change a number of this model under this recipe.

    A resynced comparison repeats its last step; free-running float64 nets run their first
    `FREE_STEPS`. The trials use the reference, which is left wherever they end.
    """
    trials = [_try(name, injection, pair, course) for name, injection in standard_faults(pair)]
    return [trial for trial in trials if trial is not None]


def standard_faults(pair: Pair) -> Iterator[tuple[str, Injection]]:
    """Yield name and injection of each fault that applies."""
    recipe = pair.recipe
    for name in (*CONVENTION_FAULTS, *OPTIMIZER_FAULTS, *KILOSTEP_FAULTS, *UPDATE_FAULTS):
        if name in _AT_THE_START:
            continue
        try:
            text, wrong = _seed_fault(name, recipe)
        except SpecError:  # it would change nothing, or the recipe has no such field
            continue
        injection = Injection(text=text, recipe=wrong)
        if describe_no_op(injection, recipe, pair.spec) is None:
            yield name, injection


def _seed_fault(name: str, recipe: ResolvedRecipe) -> tuple[str, ResolvedRecipe]:
    """Return `field=value` of a fault, and the recipe with it."""
    if name in UPDATE_FAULTS:
        part, _ = UPDATE_FAULTS[name]
        present, changed = (
            getattr(update, part)
            for update in (recipe.update, seed_update_fault(name, recipe.update))
        )
        return _describe_change(part, present, changed), dataclasses.replace(
            recipe, **{part: changed}
        )
    owner = "conventions" if name in CONVENTION_FAULTS else "optimizer"
    field, _ = (CONVENTION_FAULTS | OPTIMIZER_FAULTS | KILOSTEP_FAULTS)[name]
    spec = seed_spec_fault(name, getattr(recipe, owner))
    return f"{field}={getattr(spec, field)}", dataclasses.replace(recipe, **{owner: spec})


def _describe_change(where: str, present: Any, changed: Any) -> str:  # noqa: ANN401  # specs
    """Return `part.field=value` of what has changed in a part of an update.

    >>> from parity.spec.optimizers import NoClipping, ValueClipping
    >>> _describe_change("clipping", ValueClipping(limit=0.1), ValueClipping(limit=0.2))
    'clipping.limit=0.2'
    >>> _describe_change("clipping", ValueClipping(limit=0.1), NoClipping())
    'clipping.kind=none'
    """
    if isinstance(changed, tuple):
        if not changed:
            return f"{where}=[]"
        index = next(i for i, part in enumerate(changed) if part != present[i])
        return _describe_change(f"{where}[{index}]", present[index], changed[index])
    fields = [field.name for field in dataclasses.fields(changed)]
    return ", ".join(
        f"{where}.{field}={getattr(changed, field)}"
        for field in fields
        if getattr(present, field, None) != getattr(changed, field)
    )


def _try(name: str, injection: Injection, pair: Pair, course: Course) -> Trial | None:
    """Return the trial of a fault; None if it has other arrays, which no comparison can miss."""
    settings = pair.settings
    # A torch twin is built in no time; a Keras one is compiled anew for each fault.
    framework = "torch" if "torch" in (settings.reference, settings.candidate) else "keras"
    wrong = build_net(framework, injection.candidate_spec(pair.spec), injection.recipe, settings)
    if array_names(wrong) != array_names(pair.reference):
        return None
    suspect = dataclasses.replace(pair, candidate=wrong, injection=injection)
    for net in suspect.nets:
        resync(net, course.before)
    findings = Findings()
    if settings.dtype == "float32":
        event = compared_step(suspect, step=course.start)
        SinglePrecisionJudge(suspect).judge(findings, event, before=course.before)
    elif settings.mode == "resync":
        event = compared_step(suspect, step=course.start)
        judge_step(findings, suspect, event, before=course.before)
    else:
        _run_freely(suspect, findings)
    worst = max(
        (row for row in findings.summary() if row["ratio"] is not None),
        key=lambda row: row["ratio"],
    )
    return Trial(
        fault=name,
        change=str(injection.text),
        caught=findings.first_divergence() is not None,
        quantity=worst["quantity"],
        ratio=worst["ratio"],
    )


def _run_freely(suspect: Pair, findings: Findings) -> None:
    """Judge the first steps of a free run."""
    for event in training_steps(
        suspect.nets,
        suspect.stream,
        recipes=suspect.recipes,
        start=0,
        stop=min(FREE_STEPS, suspect.settings.steps),
        digest=START_DIGEST,
    ):
        step = event.step + 1
        limits = free_limits(suspect, step=step, control={})
        gaps = free_gaps(*suspect.nets, event, index=1)
        add_free_gaps(findings, gaps, step=step, limits=limits)
