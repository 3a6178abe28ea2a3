"""Where a seeded fault is: the nodes of the plans, and the names of operations that stand for them.

Captured operations are called `<path of the layer>` with what is inside behind a dot or a slash;
functions of tensors are `<path of the layer that calls them>/<word>`, from the second on with `#2`.
"""

from parity.frameworks.pairs.plan import Node, Plan, Side
from parity.testing.pairs.pair import Pair

# Kind of a node that is a function of tensors -> what the operation is called.
_WORDS = {
    "flatten": "reshape",
    "take_step": "index",
    "scale": "multiply",
    "scale_gradient": "multiply",
    "reverse_batch": "flip",
    "reverse_time": "flip",
}


def is_place_of_fault(pair: Pair, reference: str, candidate: str) -> bool:
    """Return whether the name of either side's operation is that of a layer at fault.

    Args:
        pair: With a fault.
        reference: Name of an operation of the reference; may be empty.
        candidate: Name of an operation of the candidate; may be empty.
    """
    sides = (pair.reference_side, reference), (pair.candidate_side, candidate)
    return any(
        name and is_operation_of(pair, node, side=side, name=name)
        for side, name in sides
        for node in fault_nodes(pair)
    )


def fault_nodes(pair: Pair) -> frozenset[str]:
    """Return the nodes at fault.

    They are the node that the fault was seeded in, and those that lead to the output in one plan
    only: put in or left out. Where there are none of these, the nodes whose operands are others. A
    fault in gradients shows in the gradient of the value that it stands behind, so that the maker
    of that value is one of them.
    """
    if pair.fault is None:
        return frozenset()
    ours, theirs = _leading(pair.reference), _leading(pair.candidate)
    alone = ours.keys() ^ theirs.keys()
    moved = {
        name for name in ours.keys() & theirs.keys() if ours[name].inputs != theirs[name].inputs
    }
    found = {pair.fault.layer, *(alone or moved)}
    if pair.fault.phase == "gradients":
        found |= {source for name in alone for source in theirs[name].inputs}
    return frozenset(found)


def _leading(plan: Plan) -> dict[str, Node]:
    """Return the nodes that lead to the output."""
    found: dict[str, Node] = {}
    wanted = {node.name for node in plan.nodes[-1:]}
    for node in reversed(plan.nodes):
        if node.name in wanted:
            found[node.name] = node
            wanted |= set(node.inputs)
    return found


def is_operation_of(pair: Pair, node: str, *, side: Side, name: str) -> bool:
    """Return whether an operation of a side's model, by its name, is one of a node."""
    path = pair.layer_names.get(node, {}).get(side, "")
    if not path:
        return False
    if not path.endswith("/"):
        return name == path or name.startswith((f"{path}.", f"{path}/", f"{path}#"))
    plan = pair.plan(side)
    word = _word(plan.node(node))
    ordinal = _functions_before(pair, plan, node, side=side) + 1
    return name == f"{path}{word}" + (f"#{ordinal}" if ordinal > 1 else "")


def _functions_before(pair: Pair, plan: Plan, node: str, *, side: Side) -> int:
    """Return how many functions of the same word the same layer calls before a node."""
    names = pair.layer_names
    word, path = _word(plan.node(node)), names[node][side]
    order = [other.name for other in plan.nodes]
    return sum(
        names[other.name][side] == path and _word(other) == word
        for other in plan.nodes[: order.index(node)]
    )


def _word(node: Node) -> str:
    if node.kind in ("activation", "reduce"):
        return str(node.settings["function"])
    return _WORDS.get(node.kind, node.kind)
