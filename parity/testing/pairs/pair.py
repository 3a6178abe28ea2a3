"""A pair: one function as a torch model and a Keras model, and what is said of a seeded fault.

Frameworks are loaded where a side is built.
"""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from parity.frameworks.pairs.plan import BATCH, SIDES, Array, Built, Plan, Side
from parity.rng import stream
from parity.testing.pairs.families import FAMILIES

Phase = Literal["weights", "forward", "training", "buffers", "gradients"]
WeightsMode = Literal["transfer", "as-is"]


@dataclass(frozen=True, kw_only=True)
class SeededFault:
    """What is wrong with a candidate.

    Attributes:
        kind: A row of `parity.testing.pairs.faults.FAULTS`.
        layer: Node of the plan where it first acts.
        phase: Where it can first be seen: in the `weights` as the two sides hold them; in the
            `forward` pass; in the forward pass of `training`; in `buffers` after it; in
            `gradients`.
        effect: Largest change of what the candidate computes, relative to the scale of the
            quantity, in float64.
    """

    kind: str
    layer: str
    phase: Phase
    effect: float


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two models that are one function, but for the fault if there is one.

    Attributes:
        seed: That it was drawn with.
        reference: Plan of the reference.
        candidate: Plan of the candidate: another one only by the fault.
        reference_side: Framework of the reference; the candidate has the other.
        weights_mode: `transfer` where the candidate may be given the reference's weights; `as-is`
            where the weights that each side holds are what is compared.
        fault: What is wrong with the candidate; None of a clean pair.
    """

    seed: int
    reference: Plan
    candidate: Plan
    reference_side: Side
    weights_mode: WeightsMode
    fault: SeededFault | None = None

    @property
    def family(self) -> str:
        """Family of the plan."""
        return self.reference.family

    @property
    def candidate_side(self) -> Side:
        """Framework of the candidate."""
        return "keras" if self.reference_side == "torch" else "torch"

    def plan(self, side: Side) -> Plan:
        """Return the plan that a framework builds."""
        return self.reference if side == self.reference_side else self.candidate

    def build(self, side: Side, dtype: str = "float32") -> Any:  # noqa: ANN401  # a model of either framework
        """Return a framework's model with its own weights: an `nn.Module` or a `keras.Model`.

        A Keras model of float64 must also be called inside `parity.runtime.precision("float64")`.
        """
        return build_side(self.plan(side), side, dtype=dtype).model

    def inputs(self) -> dict[Side, NDArray[Any]]:
        """Return one batch by framework: float32 images, channels first for torch; or ids."""
        torch = draw_inputs(self.reference)
        keras = np.ascontiguousarray(torch.transpose(0, 2, 3, 1)) if torch.ndim == 4 else torch
        return {"torch": torch, "keras": keras}

    def cotangent(self) -> Array:
        """Return the weights of a random linear loss of the output, in torch's layout."""
        shape = (BATCH, *output_shape_of(self.reference))
        return stream(self.seed, "pair cotangent").standard_normal(shape)

    def labels(self) -> NDArray[np.int64]:
        """Return random classes: of each sample, or of each of its steps."""
        *steps, classes = output_shape_of(self.reference)
        generator = stream(self.seed, "pair labels")
        return generator.integers(0, classes, size=(BATCH, *steps))

    @functools.cached_property
    def layer_names(self) -> dict[str, dict[Side, str]]:
        """Path of each node's layer in either model, joined by dots.

        A node that is a function of tensors has the path of the one whose body calls it, empty in
        the model's own, and a slash. A node that one side lacks has an empty one there.
        """
        paths = {side: build_side(self.plan(side), side, dtype="float32").paths for side in SIDES}
        names = dict.fromkeys([*paths["torch"], *paths["keras"]])
        return {name: {side: paths[side].get(name, "") for side in SIDES} for name in names}


# The convolutional family has the most kinds of nodes, and two shares.
_SHARES = (*FAMILIES, "cnn")


def draw_pair(seed: int, *, family: str | None = None) -> Pair:
    """Return a random clean pair, the same for a seed.

    Args:
        seed: Of every choice and number.
        family: One of `FAMILIES`; drawn if None.
    """
    generator = stream(seed, "pair draw")
    drawn = _SHARES[int(generator.integers(len(_SHARES)))]
    plan = _measured(FAMILIES[family or drawn](seed))
    is_reordered = any(node.styles.get("keras") == "reordered" for node in plan.nodes)
    return Pair(
        seed=seed,
        reference=plan,
        candidate=plan,
        reference_side=SIDES[int(generator.integers(len(SIDES)))],
        weights_mode="as-is" if is_reordered else "transfer",
    )


def build_side(plan: Plan, side: Side, *, dtype: str, fixed_dropout: bool = False) -> Built:
    """Return a framework's model of a plan."""
    if side == "torch":
        from parity.frameworks.pairs.torch_side import build_torch

        return build_torch(plan, dtype=dtype, fixed_dropout=fixed_dropout)
    from parity import runtime

    runtime.select_keras_backend(None)
    from parity.frameworks.pairs.keras_side import build_keras

    with runtime.precision(dtype):
        return build_keras(plan, fixed_dropout=fixed_dropout)


def draw_inputs(plan: Plan, *, batch: int = BATCH, purpose: str = "pair inputs") -> NDArray[Any]:
    """Return a batch in torch's layout.

    Args:
        plan: Whose inputs they are.
        batch: Samples.
        purpose: Key of the stream they are drawn from.
    """
    generator = stream(plan.seed, purpose)
    shape = (batch, *plan.input_shape)
    if plan.vocabulary:
        return generator.integers(0, plan.vocabulary, size=shape)
    return generator.standard_normal(shape).astype(np.float32)


def output_shape_of(plan: Plan) -> tuple[int, ...]:
    """Return the shape of the output, without the batch."""
    if plan.spec is not None:
        return (plan.spec.classes,)
    return plan.shapes()[plan.nodes[-1].name]


def _measured(plan: Plan) -> Plan:
    """Return a plan whose running statistics are those of inputs like its own."""
    if not any(name.endswith(".running_mean") for name in plan.weights):
        return plan
    from parity.frameworks.pairs.torch_side import torch_statistics

    # Of other inputs than the pair's: statistics of these would hide what evaluation mode is.
    found = torch_statistics(plan, draw_inputs(plan, batch=16, purpose="pair statistics"))
    statistics = {name: array.astype(np.float32).astype(float) for name, array in found.items()}
    return dataclasses.replace(plan, weights={**plan.weights, **statistics})
