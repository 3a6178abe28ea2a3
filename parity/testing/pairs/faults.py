"""Seeding a fault into a pair: which mistake, in which layer, and whether it does anything there.

Whether it does is measured on the candidate's own framework in float64, by no tool of comparison.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.errors import SpecError, describe_nearest
from parity.frameworks.pairs.plan import SIDES, Node, Plan, Side
from parity.rng import stream
from parity.spec.layers import BatchNorm2d, Conv2d
from parity.spec.model_spec import ModelSpec
from parity.testing.pairs.gaps import largest_gap
from parity.testing.pairs.node_faults import NODE_FAULTS
from parity.testing.pairs.outcomes import Outcome, Quantities, measure_side
from parity.testing.pairs.pair import (
    Pair,
    Phase,
    SeededFault,
    WeightsMode,
    output_shape_of,
)
from parity.testing.pairs.weight_faults import WEIGHT_FAULTS

# Smallest effect of a fault, relative to scale: far above what two right sides differ by.
SMALLEST_EFFECT = 3e-6

# Conventions of a twin: fault -> field, the other value, phase.
TWIN_FAULTS: dict[str, tuple[str, Phase]] = {
    "twin_epsilon": ("bn_epsilon", "forward"),
    "twin_stride_offset": ("stride_offset", "forward"),
    "twin_stats_decay": ("stats_decay", "buffers"),
    "twin_variance_correction": ("bn_variance_correction", "buffers"),
}
FAULTS: tuple[str, ...] = (*WEIGHT_FAULTS, *NODE_FAULTS, *TWIN_FAULTS)

_OTHER: dict[str, Callable[[Any], Any]] = {
    "bn_epsilon": lambda value: 1e-5 if value == 1e-3 else 1e-3,
    "stride_offset": lambda value: "end" if value == "start" else "start",
    "stats_decay": lambda value: 0.9 if value != 0.9 else 0.99,
    "bn_variance_correction": lambda value: 1 - value,
}


@dataclass(frozen=True, kw_only=True)
class Effects:
    """How much a fault changes what the candidate computes, by where it shows.

    Attributes:
        forward: Output in evaluation mode.
        training: Output in training mode.
        buffers: Buffers after the pass in training mode.
        gradients: Gradients in either mode.
    """

    forward: float
    training: float
    buffers: float
    gradients: float

    def of(self, phase: Phase) -> float:
        """Return the effect where a fault of a phase shows; of one in weights, on any output."""
        if phase == "weights":
            return max(self.forward, self.training)
        effect: float = getattr(self, phase)
        return effect

    def before(self, phase: Phase) -> float:
        """Return the largest effect where a fault of a phase cannot show yet."""
        earlier: dict[Phase, tuple[float, ...]] = {
            "weights": (),
            "forward": (),
            "training": (self.forward,),
            "buffers": (self.forward, self.training),
            "gradients": (self.forward, self.training, self.buffers),
        }
        return max(earlier[phase], default=0.0)


def seed_fault(pair: Pair, kind: str | int) -> Pair:
    """Return a clean pair with one mistake in its candidate.

    Args:
        pair: Clean.
        kind: One of `FAULTS`, or a seed that draws one that acts in this pair.

    Raises:
        SpecError: If the kind is unknown or does nothing in this pair.
    """
    seed = kind if isinstance(kind, int) else 0
    generator = stream(pair.seed, "pair fault", seed if isinstance(kind, int) else kind)
    if isinstance(kind, str) and kind not in FAULTS:
        message = f"fault {kind!r} not found.{describe_nearest(kind, FAULTS)}"
        raise SpecError(message)
    kinds = list(generator.permutation(FAULTS)) if isinstance(kind, int) else [kind]
    effects = _Measured(pair)
    for name in map(str, kinds):
        for candidate, layer in fault_candidates(pair, name, generator):
            phase = phase_of(name)
            effect = effects.of(candidate, name)
            if SMALLEST_EFFECT <= effect < math.inf:
                fault = SeededFault(kind=name, layer=layer, phase=phase, effect=effect)
                return _with_fault(pair, candidate, fault)
    message = (
        f"pair {pair.seed} ({pair.family}): expected a layer in which {kind!r} does something."
    )
    raise SpecError(message)


def measure_effects(faulty: Pair) -> Effects:
    """Return what a seeded fault changes, against the same side of the clean pair."""
    side, cotangent = faulty.candidate_side, faulty.cotangent()
    clean = measure_side(faulty.reference, side, cotangent)
    return compare_outcomes(measure_side(faulty.candidate, side, cotangent), clean)


def compare_outcomes(faulty: Outcome, clean: Outcome) -> Effects:
    """Return the gaps of two outcomes of one framework."""

    def gap(actual: Quantities, expected: Quantities, word: str) -> float:
        kept = {name: array for name, array in expected.items() if word in name}
        return largest_gap(actual, kept, common_only=True)

    return Effects(
        forward=gap(faulty.evaluation, clean.evaluation, "output"),
        training=gap(faulty.training, clean.training, "output"),
        buffers=gap(faulty.training, clean.training, "buffer"),
        gradients=max(
            gap(faulty.evaluation, clean.evaluation, "gradient"),
            gap(faulty.training, clean.training, "gradient"),
        ),
    )


def phase_of(kind: str) -> Phase:
    """Return where a kind of fault can first be seen."""
    if kind in WEIGHT_FAULTS:
        return "weights"
    return TWIN_FAULTS[kind][1] if kind in TWIN_FAULTS else NODE_FAULTS[kind].phase


def _with_fault(pair: Pair, candidate: Plan, fault: SeededFault) -> Pair:
    mode: WeightsMode = "as-is" if fault.phase == "weights" else pair.weights_mode
    return dataclasses.replace(pair, candidate=candidate, fault=fault, weights_mode=mode)


def fault_candidates(
    pair: Pair, kind: str, generator: np.random.Generator
) -> Iterator[tuple[Plan, str]]:
    """Yield plans with a fault of a kind in one layer after the other, in random order.

    Whether the fault does anything there is not asked.
    """
    if kind in TWIN_FAULTS:
        yield from _twin_candidates(pair.candidate, kind)
    elif kind in WEIGHT_FAULTS:
        yield from _weight_candidates(pair.candidate, kind, generator)
    elif pair.candidate_side in NODE_FAULTS[kind].sides:
        yield from _node_candidates(pair.candidate, kind, generator)


def _twin_candidates(plan: Plan, kind: str) -> Iterator[tuple[Plan, str]]:
    if plan.spec is None:
        return
    field, _ = TWIN_FAULTS[kind]
    conventions = plan.spec.conventions
    other = {field: _OTHER[field](getattr(conventions, field))}
    spec = dataclasses.replace(plan.spec, conventions=dataclasses.replace(conventions, **other))
    yield dataclasses.replace(plan, spec=spec), _first_layer(plan.spec, field)


def _first_layer(spec: ModelSpec, field: str) -> str:
    """Return the first layer that a convention reaches; empty where it reaches none."""
    reached = (
        layer.path
        for layer in spec.layers()
        if (
            isinstance(layer, Conv2d) and layer.stride > 1
            if field == "stride_offset"
            else isinstance(layer, BatchNorm2d)
        )
    )
    return next(reached, "")


def _weight_candidates(
    plan: Plan, kind: str, generator: np.random.Generator
) -> Iterator[tuple[Plan, str]]:
    kinds, change = WEIGHT_FAULTS[kind]
    nodes = {node.name: node for node in plan.nodes}
    layers = list(nodes) or sorted({name.rpartition(".")[0] for name in plan.weights})
    for name in map(str, generator.permutation(layers)):
        node = nodes.get(name, Node(name=name, kind="", inputs=()))
        if kinds and node.kind and node.kind not in kinds:
            continue
        changed = change(plan.slots(name), node.settings, generator)
        if changed is not None:
            yield plan.with_weights({f"{name}.{slot}": a for slot, a in changed.items()}), name


def _node_candidates(
    plan: Plan, kind: str, generator: np.random.Generator
) -> Iterator[tuple[Plan, str]]:
    fault = NODE_FAULTS[kind]
    names = [node.name for node in plan.nodes if node.kind in fault.kinds]
    for name in map(str, generator.permutation(names)):
        changed = fault.change(plan, plan.node(name))
        if changed is not None and _fits(changed, plan):
            yield changed, name


def _fits(changed: Plan, plan: Plan) -> bool:
    """Return whether a changed plan can run, to an output of the same shape."""
    try:
        return output_shape_of(changed) == output_shape_of(plan)
    except SpecError:
        return False


class _Measured:
    """Effects in one pair, whose clean candidate is run once a framework."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._clean: dict[Side, Outcome] = {}

    def of(self, candidate: Plan, kind: str) -> float:
        """Return the effect of a fault where it shows.

        What either framework can write is tried in torch first, which is ten times faster.
        """
        side = self._pair.candidate_side
        sides: tuple[Side, ...] = (side,) if _is_one_sided(kind) else ("torch", side)
        effect = math.inf
        for place in dict.fromkeys(sides):
            effect = min(effect, self._on(candidate, kind, place))
            if effect < SMALLEST_EFFECT:
                break
        return effect

    def _on(self, candidate: Plan, kind: str, side: Side) -> float:
        cotangent = self._pair.cotangent()
        if side not in self._clean:
            self._clean[side] = measure_side(self._pair.candidate, side, cotangent)
        outcome = measure_side(candidate, side, cotangent)
        return compare_outcomes(outcome, self._clean[side]).of(phase_of(kind))


def _is_one_sided(kind: str) -> bool:
    return kind in NODE_FAULTS and NODE_FAULTS[kind].sides != SIDES
