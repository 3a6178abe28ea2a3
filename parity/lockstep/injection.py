"""Wrong conventions on purpose: what `--inject FIELD=VALUE` builds, and when it changes nothing."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from parity.errors import RecipeError, describe_nearest
from parity.reference.layers import window_pads
from parity.spec.conventions import Conventions
from parity.spec.layers import BatchNorm2d, Conv2d
from parity.spec.model_spec import ModelSpec
from parity.spec.optimizers import Muon
from parity.spec.recipe import ResolvedRecipe, apply_overrides
from parity.spec.schedules import is_constant

_FIELDS: dict[type, tuple[str, ...]] = {
    Conv2d: ("stride_offset",),
    BatchNorm2d: ("bn_epsilon", "stats_decay", "bn_variance_correction"),
}
_UPDATE_PARTS = ("clipping", "averaging")
_INITIALIZERS = ("conv_init", "head_weight_init", "head_bias_init")


@dataclass(frozen=True, kw_only=True)
class Injection:
    """What the candidate is built with.

    Attributes:
        text: `FIELD=VALUE` as it was asked for; None where nothing is injected.
        recipe: The candidate's recipe.
        layer: Path of the one layer whose conventions differ; None where all do.
        keeps_own_weights: Whether the candidate starts from its own initial weights.
    """

    text: str | None
    recipe: ResolvedRecipe
    layer: str | None = None
    keeps_own_weights: bool = False

    def candidate_spec(self, spec: ModelSpec) -> ModelSpec:
        """Return the candidate's model spec, given the reference's."""
        if self.layer is None:
            return dataclasses.replace(spec, conventions=self.recipe.conventions)
        return dataclasses.replace(spec, exceptions=((self.layer, self.recipe.conventions),))


def parse_injection(text: str | None, recipe: ResolvedRecipe, spec: ModelSpec) -> Injection:
    """Return the injection that `FIELD=VALUE` asks for.

    `FIELD` is a convention (`bn_epsilon`), a field of the optimizer as the recipe states it (`l2`,
    `optimizer.lr`, `lr_per_kilostep`), a field of `clipping` or `averaging` (`averaging.decay`), or
    a convention of one layer (`stages.1.blocks.0.bn1.bn_epsilon`).

    Raises:
        RecipeError: If the field is unknown or the value has the wrong type.
    """
    if text is None:
        return Injection(text=None, recipe=recipe)
    name, _, value = text.partition("=")
    owner, _, field = name.strip().rpartition(".")
    conventions = [field.name for field in dataclasses.fields(Conventions)]
    optimizer = [field.name for field in dataclasses.fields(recipe.optimizer)]
    of_layer = _layer_fields(spec).get(owner, ())
    if field in of_layer or (field in conventions and owner in ("", "conventions")):
        key = f"conventions.{field}"
    elif field in optimizer and owner in ("", "optimizer"):
        key = f"optimizer.{field}"
    elif owner in _UPDATE_PARTS and hasattr(getattr(recipe, owner), field):
        key = f"{owner}.{field}"
    else:
        known = [
            *conventions,
            *optimizer,
            *(
                f"{part}.{entry.name}"
                for part in _UPDATE_PARTS
                for entry in dataclasses.fields(getattr(recipe, part))
            ),
            *(f"{path}.{name}" for path, names in _layer_fields(spec).items() for name in names),
        ]
        hint = describe_nearest(name, known)
        message = f"--inject {text!r}: field {name!r} not found.{hint}"
        raise RecipeError(message)
    changed = apply_overrides(recipe, [f"{key}={value.strip()}"])
    return Injection(
        text=text,
        recipe=changed,
        layer=owner if field in of_layer else None,
        keeps_own_weights=field in _INITIALIZERS,
    )


def _layer_fields(spec: ModelSpec) -> dict[str, tuple[str, ...]]:
    """Return the conventions that each layer follows, by its path."""
    return {
        layer.path: fields
        for layer in spec.layers()
        for kind, fields in _FIELDS.items()
        if isinstance(layer, kind)
    }


def describe_no_op(injection: Injection, recipe: ResolvedRecipe, spec: ModelSpec) -> str | None:
    """Return why the injected value changes no number here, or None if it may."""
    if injection.text is None:
        return None
    field = injection.text.partition("=")[0].strip().rpartition(".")[2]
    if injection.recipe == recipe:
        return f"{field} already has that value"
    reason = _describe_void_rule(field, recipe, spec)
    if reason:
        return reason
    if field == "l2_in_loss" and recipe.update.rule.l2 == 0.0:
        return "this recipe has no coupled penalty (optimizer.l2 = 0.0)"
    if field == "decay_scaled_by_lr":
        if recipe.update.rule.decoupled_decay == 0.0:
            return "this recipe has no decoupled decay (optimizer.decoupled_decay = 0.0)"
        if is_constant(recipe.schedule):
            return "under a constant schedule the current rate is the base rate"
    if field == "stride_offset" and all(_pads_agree(size, conv) for size, conv in _strided(spec)):
        return f"with {_describe_size(spec)} inputs every strided window has the same padding"
    return None


def _describe_void_rule(field: str, recipe: ResolvedRecipe, spec: ModelSpec) -> str | None:
    """Return why a form of the update rule changes nothing under the rule's other values."""
    rule = recipe.update.rule
    if field == "scores_slow":
        return "it says which weights a training scores, and a lockstep scores none"
    if field in ("velocity_holds_lr", "dampening") and getattr(rule, "momentum", 1.0) == 0.0:
        return "this rule keeps no velocity (optimizer.momentum = 0.0)"
    if field == "rms_rate" and isinstance(rule, Muon) and rule.scale != "rms":
        return f"it is read where optimizer.scale is 'rms'; here that is {rule.scale!r}"
    if field == "adapts_undecayed":
        decayed = [
            own.l2 or own.decoupled_decay
            for name, slot in spec.slots().items()
            if slot.role == "parameter"
            for own in [recipe.update.assign(name, len(slot.shape)).rule]
        ]
        if all(decayed):
            return "every array of this model is decayed"
    return None


def _pads_agree(size: int, layer: Conv2d) -> bool:
    pads = [
        window_pads(size, kernel=layer.kernel, stride=layer.stride, stride_offset=offset)[0]
        for offset in ("start", "end")
    ]
    return pads[0] == pads[1]


def _strided(spec: ModelSpec) -> Iterator[tuple[int, Conv2d]]:
    """Yield each strided window with the size of the map it reads, for both axes."""
    for size in spec.input_size:
        current = size
        for layer in spec.layers():
            if not isinstance(layer, Conv2d) or ".shortcut." in layer.path or layer.stride == 1:
                continue
            yield current, layer
            current = -(-current // 2)
            if layer.path == "stem.conv":
                yield current, dataclasses.replace(layer, kernel=3)
                current = -(-current // 2)


def _describe_size(spec: ModelSpec) -> str:
    return "x".join(map(str, spec.input_size))
