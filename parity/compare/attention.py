"""Attention that a model writes out by hand, seen as the one layer that it amounts to.

One side calls a layer of its framework, the other projects, cuts into heads, multiplies, takes a
softmax and projects again. Found by dataflow in one trace, the written-out operations become one of
kind `attention`, so that it has a counterpart, and arrays that go over into the layer's. Which row
of a projection feeds which head is read off the operations between, by sending the numbers of the
channels through them; nothing is assumed of how a model packs query, key and value.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from parity.frameworks.program import Operation, Trace, ValueId

Indices = NDArray[np.intp]

PARTS = ("query", "key", "value")
OUTPUT = "output"
# Kinds of a product of queries, keys and values -> whether tokens come before heads.
_PRODUCTS = {"torch_scaled_dot_product_attention": False, "scaled_dot_product_attention": True}
# What may stand between the scores and their softmax, and what it is applied to.
_SCORING = frozenset({"multiply", "divide", "add", "subtract", "where", "masked_fill", "cast"})
_HANDED_ON = frozenset({"cast", "dropout"})


class _UnlikeError(Exception):
    """The operations around a product are no attention that a layer could compute."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """One attention written out.

    Attributes:
        layer: The operation that stands for all.
        replaced: Names of the operations it stands for.
    """

    layer: Operation
    replaced: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class _Projection:
    """How the channels of a dense layer become the heads of an operand.

    Attributes:
        dense: The layer.
        rows: Channel by head and place, `(heads, width)`.
        samples: Which of the operand's leading positions are the heads of one sample.
        between: The operations from the layer to the operand.
        channels: Of the layer.
    """

    dense: Operation
    rows: Indices
    samples: Indices
    between: tuple[Operation, ...]
    channels: int


def find_written(trace: Trace, *, kept: Collection[str] = ()) -> tuple[Written, ...]:
    """Return every attention that a trace writes out, in call order.

    Args:
        trace: Of one side.
        kept: Names of operations that must stay.
    """
    finder = _Finder(trace)
    found = []
    for operation in trace.operations:
        try:
            written = finder.find(operation)
        except _UnlikeError:
            continue
        if written is not None and not written.replaced & set(kept):
            found.append(written)
    return tuple(found)


def contract(trace: Trace, written: Sequence[Written]) -> Trace:
    """Return the trace with each attention as one operation, where its last one was."""
    gone = frozenset(name for one in written for name in one.replaced)
    layers = {one.layer.name: one.layer for one in written}
    operations = [
        layers.get(operation.name, operation)
        for operation in trace.operations
        if operation.name in layers or operation.name not in gone
    ]
    return replace(trace, operations=tuple(operations))


def is_written(operation: Operation) -> bool:
    """Return whether an operation stands for an attention written out."""
    return "columns" in operation.attributes


def are_alike(ours: Operation, theirs: Operation) -> bool:
    """Return whether two are written out with the same projections, packed in the same way."""
    if not (is_written(ours) and is_written(theirs)):
        return False
    first, second = ours.attributes, theirs.attributes
    return np.array_equal(first["columns"], second["columns"]) and all(
        first["rows"][part][0] == second["rows"][part][0]
        and np.array_equal(first["rows"][part][1], second["rows"][part][1])
        for part in PARTS
    )


class _Finder:
    """Looks for attention around the products of one trace."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._makers = {value: one for one in trace.operations for value in one.outputs}
        self._takers: dict[ValueId, list[Operation]] = {}
        for operation in trace.operations:
            for value in dict.fromkeys(operation.inputs):
                self._takers.setdefault(value, []).append(operation)

    def find(self, last: Operation) -> Written | None:
        """Return the attention whose weighted sum of values an operation computes, if it does."""
        if last.kind in _PRODUCTS and len(last.inputs) >= len(PARTS):
            return self._assemble(last, last.inputs[:3], (), turned=_PRODUCTS[last.kind])
        if last.kind != "matmul" or len(last.inputs) != 2:  # two operands
            return None
        weights = self._makers.get(last.inputs[0])
        between: list[Operation] = []
        while weights is not None and weights.kind in _HANDED_ON:
            between.append(weights)
            weights = self._makers.get(weights.inputs[0])
        if weights is None or weights.kind != "softmax":
            return None
        scores, path = self._scores(weights)
        operands = (*scores.inputs, last.inputs[1])
        return self._assemble(last, operands, (*path, weights, *between), turned=None)

    def _scores(self, softmax: Operation) -> tuple[Operation, list[Operation]]:
        """Return the product that a softmax is taken of, and what stands between, it included."""
        path: list[Operation] = []
        ahead = [softmax.inputs[0]]
        while ahead:
            maker = self._makers.get(ahead.pop())
            if maker is not None and maker.kind == "matmul":
                return maker, [*path, maker]
            if maker is not None and maker.kind in _SCORING:
                path.append(maker)
                ahead += maker.inputs
        raise _UnlikeError

    def _assemble(
        self,
        last: Operation,
        operands: Sequence[ValueId],
        between: Sequence[Operation],
        *,
        turned: bool | None,
    ) -> Written:
        """Put projections, product and output together.

        Args:
            last: The operation that computes the weighted sum.
            operands: Query, key and value.
            between: From the scores to their softmax.
            turned: Whether tokens come before heads; `None` where keys are transposed.
        """
        swaps = (None, (-1, -2) if turned is None else None, None)
        projections = [
            self._projection(value, swap=(-2, -3) if turned else swap)
            for value, swap in zip(operands, swaps, strict=True)
        ]
        samples = projections[0].samples
        if any(not np.array_equal(one.samples, samples) for one in projections):
            raise _UnlikeError
        dense, columns, after = self._output(last, heads=len(samples), turned=bool(turned))
        inside = [last, dense, *after, *between]
        inside += [one for each in projections for one in (each.dense, *each.between)]
        _check_all_rows(projections)
        names = frozenset(one.name for one in inside)
        self._check_unseen(inside, names, dense)
        layer = _layer(projections, dense, columns, last)
        made = {value for one in inside for value in one.outputs}
        further = [value for one in inside for value in one.inputs if value not in made]
        masks = [value for value in dict.fromkeys(further) if value not in layer.inputs]
        return Written(layer=replace(layer, inputs=(*layer.inputs, *masks)), replaced=names)

    def _projection(self, value: ValueId, *, swap: tuple[int, int] | None) -> _Projection:
        dense, between = self._back_to_dense(value)
        (start,) = dense.outputs
        shape = self._trace.shapes[start]
        if dense.attributes["channel_axis"] != len(shape) - 1:
            raise _UnlikeError
        moved = self._send(np.arange(np.prod(shape)).reshape(shape), start, between, value)
        moved = moved if swap is None else moved.swapaxes(*swap)
        # Leading positions, heads among them, by channels: those of the first token.
        of_first = moved.reshape(-1, *moved.shape[-2:])[:, 0]
        tokens, rows = of_first // shape[-1], of_first % shape[-1]
        samples = np.flatnonzero(tokens[:, 0] == tokens[0, 0])
        if (tokens != tokens[:, :1]).any():
            raise _UnlikeError
        return _Projection(
            dense=dense,
            rows=rows[samples],
            samples=samples,
            between=tuple(between),
            channels=shape[-1],
        )

    def _output(
        self, last: Operation, *, heads: int, turned: bool
    ) -> tuple[Operation, Indices, list[Operation]]:
        """Return the last layer, which head and place each of its columns is, and what is between.

        Columns are counted head by head.
        """
        (start,) = last.outputs
        path: list[Operation] = []
        value = start
        while True:
            takers = self._takers.get(value, [])
            if len(takers) != 1 or value in self._trace.outputs.values():
                raise _UnlikeError
            if takers[0].kind == "dense":
                break
            path.append(takers[0])
            (value,) = takers[0].outputs
        shape = self._trace.shapes[start]
        base = np.arange(np.prod(shape)).reshape(shape)
        if turned:
            *lead, tokens, count, width = shape
            base = base.reshape(*lead, count, tokens, width).swapaxes(-2, -3)
            shape = (*lead, count, tokens, width)
        columns = self._send(base, start, path, value)
        columns = columns.reshape(-1, columns.shape[-1])[0]
        width, tokens = shape[-1], shape[-2]
        places, blocks = columns % width, columns // (width * tokens)
        order, block = np.unique(blocks, return_inverse=True)
        if len(order) != heads or len(columns) != heads * width:
            raise _UnlikeError
        return takers[0], block * width + places, path

    def _back_to_dense(self, value: ValueId) -> tuple[Operation, list[Operation]]:
        between: list[Operation] = []
        while True:
            maker = self._makers.get(value)
            if maker is None:
                raise _UnlikeError
            if maker.kind == "dense":
                return maker, between[::-1]
            between.append(maker)
            if not maker.inputs:
                raise _UnlikeError
            value = maker.inputs[0]

    def _send(
        self, array: Indices, start: ValueId, path: Sequence[Operation], end: ValueId
    ) -> Indices:
        """Send numbers through operations that move them, from one value to another."""
        held = {start: array}
        for place, operation in enumerate(path):
            value = end if place == len(path) - 1 else path[place + 1].inputs[0]
            moved = _moved(operation, held[operation.inputs[0]], operation.outputs.index(value))
            if moved.size != np.prod(self._trace.shapes[value]):
                raise _UnlikeError
            held[value] = moved.reshape(self._trace.shapes[value])
        return held[end]

    def _check_unseen(
        self, inside: Sequence[Operation], names: frozenset[str], last: Operation
    ) -> None:
        """Refuse operations whose values are taken outside."""
        for operation in inside:
            for value in operation.outputs if operation is not last else ():
                takers = {one.name for one in self._takers.get(value, [])}
                if not takers <= names or value in self._trace.outputs.values():
                    raise _UnlikeError


def _moved(operation: Operation, array: Indices, output: int) -> Indices:
    """Return what an operation that computes nothing makes of an array."""
    attributes = operation.attributes
    if operation.kind == "reshape":
        return array
    if operation.kind == "permute":
        return array.transpose(attributes["order"])
    if operation.kind == "split":
        cuts = np.cumsum(attributes["sizes"])[:-1]
        return np.split(array, cuts, axis=attributes["axis"])[output]
    if operation.kind == "slice" and "index" in attributes:
        return np.asarray(array[attributes["index"]])
    scales = operation.kind in ("multiply", "divide") and len(operation.inputs) == 1
    if operation.kind in _HANDED_ON or scales:
        return array
    raise _UnlikeError


def _check_all_rows(projections: Sequence[_Projection]) -> None:
    """Refuse projections some of whose channels go nowhere, or to several places."""
    rows: dict[str, list[int]] = {}
    for one in projections:
        rows.setdefault(one.dense.name, []).extend(one.rows.ravel().tolist())
    if any(sorted(rows[one.dense.name]) != list(range(one.channels)) for one in projections):
        raise _UnlikeError


def _layer(
    projections: Sequence[_Projection], dense: Operation, columns: Indices, last: Operation
) -> Operation:
    """Return the operation that stands for all; its slots are those of its dense layers."""
    denses = list(dict.fromkeys(one.dense.name for one in projections))
    by_name = {one.dense.name: one.dense for one in projections}
    named: dict[str, Operation] = {str(place): by_name[name] for place, name in enumerate(denses)}
    named[OUTPUT] = dense
    weights = {
        f"{key}.{slot}": name for key, one in named.items() for slot, name in one.weights.items()
    }
    return Operation(
        name=dense.name,
        kind="attention",
        native=last.native,
        inputs=tuple(one.dense.inputs[0] for one in projections),
        outputs=dense.outputs,
        weights=weights,
        layouts={f"{key}.weight": one.layouts["weight"] for key, one in named.items()},
        attributes={
            "heads": len(projections[0].rows),
            "rows": {
                part: (str(denses.index(one.dense.name)), one.rows.ravel())
                for part, one in zip(PARTS, projections, strict=True)
            },
            "columns": columns,
        },
    )
