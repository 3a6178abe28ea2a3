"""Changes of a plan's graph: nodes put in, taken out and moved. Each returns another plan."""

import dataclasses

from parity.frameworks.pairs.plan import Node, Plan


def insert_after(plan: Plan, name: str, kind: str, **settings: object) -> Plan:
    """Return the plan with a function of one value between a node and all that take it."""
    node = plan.node(name)
    added = Node(
        name=f"{kind}_after_{name}",
        kind=kind,
        inputs=(name,),
        settings=settings,
        group=node.group,
    )
    nodes = []
    for other in plan.nodes:
        nodes.append(_renamed(other, name, added.name))
        if other.name == name:
            nodes.append(added)
    return dataclasses.replace(plan, nodes=tuple(nodes))


def insert_before(plan: Plan, name: str, operand: int, kind: str, **settings: object) -> Plan:
    """Return the plan with a function on the way of one operand to one node."""
    node = plan.node(name)
    added = Node(
        name=f"{kind}_before_{name}",
        kind=kind,
        inputs=(node.inputs[operand],),
        settings=settings,
        group=node.group,
    )
    inputs = (*node.inputs[:operand], added.name, *node.inputs[operand + 1 :])
    changed = dataclasses.replace(node, inputs=inputs)
    nodes: list[Node] = []
    for other in plan.nodes:
        nodes += [added, changed] if other.name == name else [other]
    return dataclasses.replace(plan, nodes=tuple(nodes))


def remove(plan: Plan, name: str, *, operand: int = 0) -> Plan:
    """Return the plan without a node: what took it takes one of its operands."""
    kept = plan.node(name).inputs[operand]
    nodes = tuple(_renamed(node, name, kept) for node in plan.nodes if node.name != name)
    weights = {key: a for key, a in plan.weights.items() if not key.startswith(f"{name}.")}
    return dataclasses.replace(plan, nodes=nodes, weights=weights)


def exchange(plan: Plan, first: str, second: str, *, operand: int) -> Plan:
    """Return the plan with two nodes in a row in the other order.

    `second` takes what `first` had as its operand, `first` takes `second` there, and what took
    `second` takes `first`. Nodes between them come before both.

    Args:
        plan: That they are in.
        first: The earlier node.
        second: The later node; its first operand or another is replaced where it is `first`.
        operand: Of `first`: which one `second` is to take, and to stand for.
    """
    early, late = plan.node(first), plan.node(second)
    source = early.inputs[operand]
    inputs = (*early.inputs[:operand], second, *early.inputs[operand + 1 :])
    moved = {
        second: _renamed(late, first, source),
        first: dataclasses.replace(early, inputs=inputs),
    }
    nodes: list[Node] = []
    for node in plan.nodes:
        if node.name == second:
            nodes += [moved[second], moved[first]]
        elif node.name != first:
            nodes.append(_renamed(node, second, first))
    return dataclasses.replace(plan, nodes=tuple(nodes))


def _renamed(node: Node, old: str, new: str) -> Node:
    inputs = tuple(new if name == old else name for name in node.inputs)
    return dataclasses.replace(node, inputs=inputs)
