"""Mistakes in the model: each changes one node of a plan, or what is around it.

A change returns None where the node gives it nothing to do.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from parity.frameworks.pairs.plan import SIDES, Node, Pads, Plan, Side
from parity.testing.pairs.edits import exchange, insert_after, insert_before, remove
from parity.testing.pairs.pair import Phase

NodeChange = Callable[[Plan, Node], Plan | None]


@dataclass(frozen=True, kw_only=True)
class NodeFault:
    """A mistake and where it can be made.

    Attributes:
        kinds: Of nodes that it acts on.
        change: The mistake.
        phase: Where it can first be seen.
        sides: Frameworks in which it can be written.
    """

    kinds: tuple[str, ...]
    change: NodeChange
    phase: Phase = "forward"
    sides: tuple[Side, ...] = SIDES


def _setting(
    name: str,
    change: Callable[[Any], Any],
    *,
    when: Callable[[Plan, Node], bool] | None = None,
) -> NodeChange:
    """Return a change of one setting, where `when` holds and its value does change."""

    def apply(plan: Plan, node: Node) -> Plan | None:
        if when is not None and not when(plan, node):
            return None
        old = node.settings.get(name)
        new = change(old)
        return None if new == old else plan.replace(node.changed(**{name: new}))

    return apply


def _swap_sides(pads: Pads) -> Pads:
    return tuple((far, near) for near, far in pads)  # type: ignore[return-value]  # two of them


def _shift_start(pads: Pads) -> Pads:
    """Start windows one pixel later, as padding="same" does at stride 2 on an even size."""
    shifted = ((near - 1, far + 1) if near == far > 0 else (near, far) for near, far in pads)
    return tuple(shifted)  # type: ignore[return-value]  # two of them


def _drop_pads(pads: Pads) -> Pads:
    del pads
    return (0, 0), (0, 0)


def _is_padded(_: Plan, node: Node) -> bool:
    return any(any(pair) for pair in node.settings["padding"])


def _undilated(plan: Plan, node: Node) -> Plan | None:
    """Drop the dilation and the pads that it needed."""
    dilation = node.settings["dilation"]
    if dilation == 1:
        return None
    padding = tuple((near // dilation, far // dilation) for near, far in node.settings["padding"])
    return plan.replace(node.changed(dilation=1, padding=padding))


def _without_bias(plan: Plan, node: Node) -> Plan | None:
    name = f"{node.name}.bias"
    if name not in plan.weights:
        return None
    weights = {key: array for key, array in plan.weights.items() if key != name}
    return dataclasses.replace(plan, weights=weights)


_OTHER_ACTIVATION = {
    "relu": ("relu6", {}),
    "relu6": ("relu", {}),
    "silu": ("gelu", {"approximate": False}),
    "gelu": ("silu", {}),
    "tanh": ("sigmoid", {}),
    "elu": ("relu", {}),
    "softplus": ("relu", {}),
    "hard_silu": ("silu", {}),
    "sigmoid": ("hard_sigmoid", {}),
    "hard_sigmoid": ("sigmoid", {}),
    "leaky_relu": ("relu", {}),
}


def _other_activation(plan: Plan, node: Node) -> Plan | None:
    function, settings = _OTHER_ACTIVATION[node.settings["function"]]
    return plan.replace(dataclasses.replace(node, settings={"function": function, **settings}))


def _doubled(plan: Plan, node: Node) -> Plan | None:
    return insert_after(plan, node.name, node.kind, **node.settings)


def _removed(plan: Plan, node: Node) -> Plan | None:
    return remove(plan, node.name)


def _other_axis(plan: Plan, node: Node) -> Plan | None:
    """Take the axis before the last: the steps of a sequence, or the batch."""
    return plan.replace(node.changed(axis=len(plan.shapes()[node.inputs[0]]) - 1))


def _is_named(*functions: str) -> Callable[[Plan, Node], bool]:
    return lambda _, node: node.settings["function"] in functions


def _branch_of(plan: Plan, node: Node) -> int:
    """Return which operand of a sum is the later one: its branch."""
    order = [other.name for other in plan.nodes]
    places = [order.index(name) if name in order else -1 for name in node.inputs]
    return places.index(max(places))


def _without_shortcut(plan: Plan, node: Node) -> Plan | None:
    return remove(plan, node.name, operand=_branch_of(plan, node))


def _without_branch(plan: Plan, node: Node) -> Plan | None:
    return remove(plan, node.name, operand=1 - _branch_of(plan, node))


def _added_after_activation(plan: Plan, node: Node) -> Plan | None:
    consumers = plan.consumers(node.name)
    if len(consumers) != 1 or consumers[0].kind != "activation":
        return None
    if consumers[0].group != node.group:
        return None
    return exchange(plan, node.name, consumers[0].name, operand=_branch_of(plan, node))


def _siblings_swapped(plan: Plan, node: Node) -> Plan | None:
    first, second, *rest = node.inputs
    if plan.shapes()[first] != plan.shapes()[second]:
        return None
    return plan.replace(dataclasses.replace(node, inputs=(second, first, *rest)))


def _branch_detached(plan: Plan, node: Node) -> Plan | None:
    return insert_before(plan, node.name, _branch_of(plan, node), "detach")


def _shortcut_detached(plan: Plan, node: Node) -> Plan | None:
    return insert_before(plan, node.name, 1 - _branch_of(plan, node), "detach")


def _norm_after_sum(plan: Plan, node: Node) -> Plan | None:
    """Normalize the sum of a residual block, not what its branch takes."""
    source = node.inputs[0]
    sums = [other for other in plan.consumers(source) if other.kind == "add"]
    if not sums:
        return None
    total = sums[0]
    without = remove(plan, node.name)
    moved = insert_after(without, total.name, node.kind, **node.settings)
    added = moved.node(f"{node.kind}_after_{total.name}")
    renamed = dataclasses.replace(added, name=node.name)
    nodes = tuple(
        dataclasses.replace(
            other, inputs=tuple(node.name if n == added.name else n for n in other.inputs)
        )
        for other in (renamed if other.name == added.name else other for other in moved.nodes)
    )
    weights = {**moved.weights, **{f"{node.name}.{s}": a for s, a in plan.slots(node.name).items()}}
    return dataclasses.replace(moved, nodes=nodes, weights=weights)


def _other_pool(plan: Plan, node: Node) -> Plan | None:
    kind = "avg_pool" if node.kind == "max_pool" else "max_pool"
    changed = dataclasses.replace(node, kind=kind)
    return plan.replace(changed.changed(counts_padding=True) if kind == "avg_pool" else changed)


def _scaled(factor: float, kind: str) -> NodeChange:
    return lambda plan, node: insert_after(plan, node.name, kind, factor=factor)


def _batch_reversed(plan: Plan, node: Node) -> Plan | None:
    if node.name != plan.nodes[-1].name:
        return None
    return insert_after(plan, node.name, "reverse_batch")


def _sequence_reversed(plan: Plan, node: Node) -> Plan | None:
    if len(plan.shapes()[node.inputs[0]]) != 2:
        return None
    return insert_before(plan, node.name, 0, "reverse_time")


def _is_bidirectional(_: Plan, node: Node) -> bool:
    return bool(node.settings["bidirectional"])


def _taking(word: str, *, both: bool | None = None) -> NodeChange:
    def apply(plan: Plan, node: Node) -> Plan | None:
        settings = node.settings
        if settings["take"] != "end" or both not in (None, settings["bidirectional"]):
            return None
        return plan.replace(node.changed(take=word))

    return apply


_NORMS = ("batch_norm", "layer_norm", "group_norm")
_WEIGHTED = ("conv", "dense", "conv_transpose")
_DECAYS = {0.9: 0.99, 0.99: 0.9, 0.5: 0.9}

NODE_FAULTS: dict[str, NodeFault] = {
    "stride_offset": NodeFault(kinds=("conv",), change=_setting("padding", _shift_start)),
    "padding_side": NodeFault(kinds=("conv",), change=_setting("padding", _swap_sides)),
    "padding_missing": NodeFault(kinds=("conv",), change=_setting("padding", _drop_pads)),
    "padding_reflected": NodeFault(
        kinds=("conv",),
        change=_setting(
            "pad_mode",
            lambda _: "reflect",
            when=_is_padded,
        ),
    ),
    "dilation_dropped": NodeFault(kinds=("conv",), change=_undilated),
    "bias_missing": NodeFault(kinds=_WEIGHTED, change=_without_bias),
    "crop_side": NodeFault(kinds=("conv_transpose",), change=_setting("crop", _swap_sides)),
    "resize_mode": NodeFault(
        kinds=("resize",),
        change=_setting("mode", lambda mode: "nearest" if mode == "bilinear" else "bilinear"),
    ),
    "norm_epsilon": NodeFault(
        kinds=_NORMS,
        change=_setting("epsilon", lambda epsilon: 1e-5 if epsilon == 1e-3 else 1e-3),
    ),
    "norm_missing": NodeFault(kinds=_NORMS, change=_removed),
    "norm_uncentred": NodeFault(
        kinds=("layer_norm",), change=_setting("uncentred", lambda _: True)
    ),
    "norm_groups": NodeFault(
        kinds=("group_norm",), change=_setting("groups", lambda groups: 2 if groups == 4 else 4)
    ),
    "norm_after_sum": NodeFault(kinds=("layer_norm",), change=_norm_after_sum),
    "statistics_decay": NodeFault(
        kinds=("batch_norm",),
        change=_setting("stats_decay", _DECAYS.__getitem__),
        phase="buffers",
    ),
    "variance_biased": NodeFault(
        kinds=("batch_norm",),
        change=_setting("biased", lambda _: True),
        phase="buffers",
        sides=("keras",),
    ),
    "statistics_frozen": NodeFault(
        kinds=("batch_norm",), change=_setting("frozen", lambda _: True), phase="training"
    ),
    "gelu_form": NodeFault(
        kinds=("activation",),
        change=_setting("approximate", lambda form: not form, when=_is_named("gelu")),
    ),
    "leaky_slope": NodeFault(
        kinds=("activation",),
        change=_setting("slope", lambda _: 0.3, when=_is_named("leaky_relu")),
    ),
    "activation_changed": NodeFault(kinds=("activation",), change=_other_activation),
    "activation_missing": NodeFault(kinds=("activation",), change=_removed),
    "activation_doubled": NodeFault(kinds=("activation",), change=_doubled),
    "softmax_missing": NodeFault(kinds=("softmax",), change=_removed),
    "softmax_doubled": NodeFault(kinds=("softmax",), change=_doubled),
    "softmax_axis": NodeFault(kinds=("softmax",), change=_other_axis),
    "residual_missing": NodeFault(kinds=("add",), change=_without_shortcut),
    "branch_missing": NodeFault(kinds=("add",), change=_without_branch),
    "residual_after_activation": NodeFault(kinds=("add",), change=_added_after_activation),
    "siblings_swapped": NodeFault(kinds=("concat",), change=_siblings_swapped),
    "pool_kind": NodeFault(kinds=("max_pool", "avg_pool"), change=_other_pool),
    "pool_counts_padding": NodeFault(
        kinds=("avg_pool",),
        change=_setting("counts_padding", lambda counts: not counts, when=_is_padded),
    ),
    "pool_padding_side": NodeFault(kinds=("max_pool",), change=_setting("padding", _shift_start)),
    "pool_padded_with_zeros": NodeFault(
        kinds=("max_pool",), change=_setting("fill", lambda _: "zeros")
    ),
    "pool_ceil": NodeFault(kinds=("max_pool",), change=_setting("ceil", lambda _: True)),
    "global_pool_kind": NodeFault(
        kinds=("reduce",),
        change=_setting("function", lambda function: "max" if function == "mean" else "mean"),
    ),
    "flatten_order": NodeFault(kinds=("flatten",), change=_setting("order", lambda _: "nhwc")),
    "step_taken": NodeFault(
        kinds=("take_step",), change=_setting("index", lambda index: -1 if index == 0 else 0)
    ),
    "first_state_taken": NodeFault(kinds=("lstm", "gru"), change=_taking("first_step")),
    "last_step_of_both": NodeFault(kinds=("lstm", "gru"), change=_taking("last_step", both=True)),
    "merge_order": NodeFault(
        kinds=("lstm", "gru"),
        change=_setting("swaps_directions", lambda _: True, when=_is_bidirectional),
    ),
    "sequence_reversed": NodeFault(kinds=("lstm", "gru"), change=_sequence_reversed),
    "reset_before": NodeFault(
        kinds=("gru",), change=_setting("reset_after", lambda _: False), sides=("keras",)
    ),
    "hard_gates": NodeFault(
        kinds=("lstm", "gru"), change=_setting("hard_gates", lambda _: True), sides=("keras",)
    ),
    "attention_scale": NodeFault(kinds=("attention",), change=_setting("scale", lambda _: 1.0)),
    "causal_mask": NodeFault(
        kinds=("attention",), change=_setting("causal", lambda causal: not causal)
    ),
    "position_missing": NodeFault(kinds=("position",), change=_removed),
    "dropout_rate": NodeFault(
        kinds=("dropout",), change=_setting("rate", lambda _: 0.55), phase="training"
    ),
    "dropout_missing": NodeFault(kinds=("dropout",), change=_removed, phase="training"),
    "output_scaled": NodeFault(kinds=_WEIGHTED, change=_scaled(1.02, "scale")),
    "batch_reversed": NodeFault(kinds=("dense", "softmax"), change=_batch_reversed),
    "branch_detached": NodeFault(
        kinds=("add", "multiply"), change=_branch_detached, phase="gradients"
    ),
    "shortcut_detached": NodeFault(
        kinds=("add", "multiply"), change=_shortcut_detached, phase="gradients"
    ),
    "gradient_scaled": NodeFault(
        kinds=(*_WEIGHTED, "attention"), change=_scaled(0.5, "scale_gradient"), phase="gradients"
    ),
}
