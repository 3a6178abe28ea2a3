"""Which operation of the candidate is which of the reference: by dataflow, not by names.

Both traces become graphs of the operations that say something (reshapes, casts and the like are
looked through). Operations are coloured by what they are, then by the colours around them, so that
two layers of one shape at different places part. Where a colour is left once on each side, the two
are counterparts; counterparts colour their neighbours anew. It begins with wide surroundings, which
tell siblings apart, and goes on with narrower ones, so that a difference in one place leaves the
rest aligned. Layers with weights go first, then operations of the same kind, then of the same sort.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any

from parity.errors import CaptureError, describe_nearest
from parity.frameworks.program import Operation, Trace

# Looked through: they move or relabel elements, and either side may do without. In evaluation mode
# a dropout is one of them; where both sides have it, it is aligned by what stands around it.
PASSED = frozenset(
    {"reshape", "permute", "cast", "expand", "pad", "slice", "split", "parameter", "constant"}
)
# Operands of these are told apart by their place.
ORDERED = frozenset(
    {"concat", "stack", "subtract", "divide", "power", "matmul", "einsum", "where"}
) | {"scaled_dot_product_attention", "attention"}
SORTS: dict[str, str] = {
    **dict.fromkeys(("conv", "conv_transpose", "dense", "einsum_dense"), "linear"),
    **dict.fromkeys(("batch_norm", "layer_norm", "rms_norm", "group_norm"), "norm"),
    **dict.fromkeys(("lstm", "gru", "rnn"), "recurrent"),
    **dict.fromkeys(
        (
            *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish"),
            *("sigmoid", "hard_sigmoid", "hard_silu", "tanh", "softplus", "softsign"),
            *("log_sigmoid", "softmax", "log_softmax", "clip", "prelu"),
        ),
        "activation",
    ),
    **dict.fromkeys(
        (
            *("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool"),
            *("mean", "sum", "max", "min"),
        ),
        "pool",
    ),
    **dict.fromkeys(("add", "subtract", "multiply", "divide", "maximum", "minimum"), "arithmetic"),
}
RADII = (12, 6, 3, 2, 1, 0)
# Stands for the caller, who takes the outputs.
END = 10**9
Colour = Any
Edges = tuple[tuple[int, str], ...]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """Counterparts of two traces.

    Attributes:
        pairs: Index of an operation of the reference -> index of the candidate's.
        ambiguous: Groups of reference operations with weights that no dataflow tells apart, paired
            in call order.
    """

    pairs: Mapping[int, int]
    ambiguous: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Graph:
    """The operations of a trace that say something, and what flows between them.

    Attributes:
        nodes: Indices of the operations, in call order.
        sources: Node -> what it takes, `-1 - i` for the model's input `i`, with the place of the
            operand where that matters.
        targets: Node -> what takes it; `END`, with the place among the outputs, where the model
            returns it.
    """

    nodes: tuple[int, ...]
    sources: Mapping[int, Edges]
    targets: Mapping[int, Edges]


def build_graph(trace: Trace, keep: Callable[[Operation], bool]) -> Graph:
    """Return the graph of the operations to keep."""
    origins: dict[int, tuple[int, ...]] = {
        value: (-1 - place,) for place, value in enumerate(trace.inputs)
    }
    nodes, sources = [], {}
    targets: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for index, operation in enumerate(trace.operations):
        edges = [
            (origin, str(place) if operation.kind in ORDERED else "")
            for place, value in enumerate(operation.inputs)
            for origin in origins.get(value, ())
        ]
        kept = keep(operation)
        passed = (index,) if kept else tuple(dict.fromkeys(origin for origin, _ in edges))
        origins |= dict.fromkeys(operation.outputs, passed)
        if kept:
            nodes.append(index)
            sources[index] = tuple(edges)
            for origin, operand in edges:
                targets[origin].append((index, operand))
    for place, value in enumerate(trace.outputs.values()):
        for origin in origins.get(value, ()):
            targets[origin].append((END, str(place)))
    return Graph(
        nodes=tuple(nodes),
        sources=sources,
        targets={node: tuple(targets[node]) for node in nodes},
    )


def align(
    reference: Trace,
    candidate: Trace,
    *,
    shapes: tuple[Shapes, Shapes],
    pinned: Mapping[str, str] | None = None,
) -> Alignment:
    """Return the counterparts of two traces.

    Args:
        reference: Of one model.
        candidate: Of the other.
        shapes: Of every array in either's state, by name.
        pinned: Operations that the user says are counterparts, reference's name -> candidate's.

    Raises:
        CaptureError: If a pinned name is none of an operation's.
    """
    pairing = _Pairing((reference, candidate), shapes)
    for ours, theirs in (pinned or {}).items():
        pairing.add(_find(reference, ours), _find(candidate, theirs))
    ambiguous = []
    for keep, label in (
        (_is_framework, pairing.sort_and_sizes),
        (is_seen, pairing.kind_and_sizes),
        (is_seen, pairing.sort),
    ):
        ambiguous += pairing.match(keep, label)
    return Alignment(pairs=dict(sorted(pairing.pairs.items())), ambiguous=tuple(ambiguous))


def _find(trace: Trace, name: str) -> int:
    names = [operation.name for operation in trace.operations]
    if name not in names:
        message = f"--map: no operation is named {name!r}.{describe_nearest(name, names)}"
        raise CaptureError(message)
    return names.index(name)


def has_weights(operation: Operation) -> bool:
    """Return whether an operation is a layer with arrays of its own."""
    return bool(operation.weights) and operation.kind != "parameter"


def is_seen(operation: Operation) -> bool:
    """Return whether an operation says something: one that joins a single value does not."""
    joins_one = operation.kind in ("concat", "stack") and len(operation.inputs) == 1
    return operation.kind not in PASSED and not joins_one


def _is_framework(operation: Operation) -> bool:
    """Return whether an operation belongs to what holds a model together: layers and joins."""
    joins = len(operation.inputs) > 1 and is_seen(operation)
    return has_weights(operation) or joins


def sort_of(kind: str) -> str:
    """Return the sort of a kind: what one framework may do in another's place."""
    return SORTS.get(kind, kind)


# Side (0 the reference, 1 the candidate) and index of an operation -> what it is.
Label = Callable[[int, int], Colour]


class _Pairing:
    """Counterparts found so far, and the search for more."""

    def __init__(self, traces: tuple[Trace, Trace], shapes: tuple[Shapes, Shapes]) -> None:
        self.traces = traces
        self.pairs: dict[int, int] = {}
        self._shapes = shapes
        self._before = tuple(_ancestors(trace) for trace in traces)

    def sort(self, side: int, index: int) -> Colour:
        """Return what an operation is at the coarsest."""
        return sort_of(self._operation(side, index).kind)

    def sort_and_sizes(self, side: int, index: int) -> Colour:
        """Return its sort, and the lengths of its weights."""
        operation = self._operation(side, index)
        return sort_of(operation.kind), _weight_sizes(operation, self._shapes[side])

    def kind_and_sizes(self, side: int, index: int) -> Colour:
        """Return its kind, and the lengths of its weights."""
        operation = self._operation(side, index)
        return operation.kind, _weight_sizes(operation, self._shapes[side])

    def add(self, ours: int, theirs: int) -> None:
        """Make two operations counterparts."""
        self.pairs[ours] = theirs

    def match(self, keep: Callable[[Operation], bool], label: Label) -> list[tuple[int, ...]]:
        """Pair what can be paired of the operations to keep; return groups that look alike."""
        graphs = tuple(build_graph(trace, keep) for trace in self.traces)
        ambiguous: list[tuple[int, ...]] = []
        for radius in RADII:
            while self._pair_unique(graphs, label, radius=radius):
                pass
            while group := self._pair_first_alike(graphs, label, radius=radius):
                ambiguous += [group] if has_weights(self._operation(0, group[0])) else []
                while self._pair_unique(graphs, label, radius=radius):
                    pass
        self._pair_in_order(graphs, label)
        return ambiguous

    def _operation(self, side: int, index: int) -> Operation:
        return self.traces[side].operations[index]

    def _groups(
        self, graphs: tuple[Graph, ...], label: Label, *, radius: int
    ) -> list[tuple[list[int], list[int]]]:
        """Return the unpaired nodes of both sides by colour, in call order."""
        paired = (
            {ours: place for place, ours in enumerate(self.pairs)},
            {theirs: place for place, theirs in enumerate(self.pairs.values())},
        )
        known: dict[Colour, int] = {}
        grouped: dict[int, tuple[list[int], list[int]]] = {}
        for side, graph in enumerate(graphs):
            first = {
                node: ("paired", paired[side][node]) if node in paired[side] else label(side, node)
                for node in graph.nodes
            }
            colours = refine_colours(graph, first, fixed=paired[side], radius=radius, known=known)
            for node in graph.nodes:
                if node not in paired[side]:
                    grouped.setdefault(colours[node], ([], []))[side].append(node)
        return [group for group in grouped.values() if group[0] and group[1]]

    def _pair_unique(self, graphs: tuple[Graph, ...], label: Label, *, radius: int) -> bool:
        found = False
        for ours, theirs in self._groups(graphs, label, radius=radius):
            if len(ours) == len(theirs) == 1 and self._fits(ours[0], theirs[0]):
                self.add(ours[0], theirs[0])
                found = True
        return found

    def _pair_first_alike(
        self, graphs: tuple[Graph, ...], label: Label, *, radius: int
    ) -> tuple[int, ...]:
        """Pair the first two of the first group of as many on each side; return the group's own."""
        if radius != RADII[0]:
            return ()
        for ours, theirs in self._groups(graphs, label, radius=radius):
            if len(ours) == len(theirs) and self._fits(ours[0], theirs[0]):
                self.add(ours[0], theirs[0])
                return tuple(ours)
        return ()

    def _pair_in_order(self, graphs: tuple[Graph, ...], label: Label) -> None:
        """Pair what is left with the first of its label that contradicts no pair."""
        taken = set(self.pairs.values())
        free = [node for node in graphs[1].nodes if node not in taken]
        for ours in graphs[0].nodes:
            if ours in self.pairs:
                continue
            wanted = label(0, ours)
            for theirs in free:
                if label(1, theirs) == wanted and self._fits(ours, theirs):
                    self.add(ours, theirs)
                    free.remove(theirs)
                    break

    def _fits(self, ours: int, theirs: int) -> bool:
        """Return whether a pair keeps the order of every pair there is."""
        ours_before, theirs_before = self._before
        for one, other in self.pairs.items():
            precedes = bool(ours_before[ours] >> one & 1), bool(theirs_before[theirs] >> other & 1)
            follows = bool(ours_before[one] >> ours & 1), bool(theirs_before[other] >> theirs & 1)
            if (precedes[0] and follows[1]) or (precedes[1] and follows[0]):
                return False
        return True


def refine_colours(
    graph: Graph,
    first: Mapping[int, Colour],
    *,
    fixed: Container[int],
    radius: int,
    known: dict[Colour, int],
) -> dict[int, int]:
    """Return each node's colour by what it is and what surrounds it.

    Args:
        graph: Of one side.
        first: What each node is.
        fixed: Nodes whose colour says everything already.
        radius: How many edges away the surroundings reach.
        known: Colours by what they stand for, shared by both sides and added to.
    """

    def number(colour: Colour) -> int:
        return known.setdefault(colour, len(known))

    colours = {node: number(colour) for node, colour in first.items()}
    for _ in range(radius):

        def seen(edges: Edges, colours: Mapping[int, int] = colours) -> tuple[Any, ...]:
            return tuple(sorted((place, colours.get(node, node)) for node, place in edges))

        refined = {
            node: colours[node]
            if node in fixed
            else number((colours[node], seen(graph.sources[node]), seen(graph.targets[node])))
            for node in graph.nodes
        }
        colours = refined
    return colours


def _weight_sizes(operation: Operation, shapes: Shapes) -> Colour:
    """Return the lengths over 1 of a layer's weight, in no order; of some kinds their product.

    Recurrent layers and attention keep theirs in too many ways to say more than how many numbers
    an axis of them has.
    """
    if not has_weights(operation) or sort_of(operation.kind) in ("recurrent", "attention"):
        return has_weights(operation)
    name = operation.weights.get("weight") or next(iter(operation.weights.values()))
    lengths = sorted(length for length in shapes[name] if length > 1)
    return math.prod(lengths) if operation.kind == "einsum_dense" else tuple(lengths)


def _ancestors(trace: Trace) -> list[int]:
    """Return, for each operation, the set of those before it in the dataflow, as bits."""
    makers: dict[int, int] = {}
    sets: list[int] = []
    for index, operation in enumerate(trace.operations):
        before = 0
        for value in operation.inputs:
            if value in makers:
                before |= sets[makers[value]] | 1 << makers[value]
        sets.append(before)
        makers |= dict.fromkeys(operation.outputs, index)
    return sets
