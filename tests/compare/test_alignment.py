"""Counterparts are found by dataflow: names, order and structure may differ."""

import pytest

from parity.compare.alignment import align
from parity.errors import CaptureError
from parity.frameworks.program import Operation, Trace


class Sketch:
    """A model written down call by call; a layer of width `n` has a weight of shape `(n, n)`."""

    def __init__(self):
        self.operations, self.shapes, self.count = [], {}, 1

    def call(self, name, *operands, kind="conv", width=None):
        weights = {} if width is None else {"weight": f"{name}.weight"}
        if width is not None:
            self.shapes[f"{name}.weight"] = (width, width)
        self.operations.append(
            Operation(
                name=name, kind=kind, native=kind, inputs=operands, outputs=(self.count,),
                weights=weights,
            )
        )  # fmt: skip
        self.count += 1
        return self.count - 1

    def trace(self, *outputs):
        return Trace(
            operations=tuple(self.operations),
            shapes={},
            dtypes={},
            inputs=(0,),
            outputs={str(place): value for place, value in enumerate(outputs)},
        )


def names_of(reference, candidate, *, outputs, **options):
    traces = reference.trace(outputs[0]), candidate.trace(outputs[1])
    alignment = align(*traces, shapes=(reference.shapes, candidate.shapes), **options)
    named = {
        traces[0].operations[ours].name: traces[1].operations[theirs].name
        for ours, theirs in alignment.pairs.items()
    }
    return named, alignment


def bottleneck(sketch, *, prefix, shortcut_first, block_input, activation="relu"):
    """Add a residual block whose last convolution and shortcut look alike."""

    def shortcut():
        return sketch.call(f"{prefix}shortcut", block_input, width=16)

    def main():
        one = sketch.call(f"{prefix}one", block_input, width=4)
        two = sketch.call(f"{prefix}two", sketch.call(f"{prefix}a", one, kind=activation), width=4)
        return sketch.call(f"{prefix}three", two, width=16)

    ends = [shortcut(), main()] if shortcut_first else [main(), shortcut()]
    return sketch.call(f"{prefix}add", *sorted(ends), kind="add")


def test_a_shortcut_that_is_called_first_is_not_taken_for_the_last_convolution():
    ours, theirs = Sketch(), Sketch()
    ends = 0, 0
    for block in "pqr":
        ends = (
            bottleneck(ours, prefix=block, shortcut_first=False, block_input=ends[0]),
            bottleneck(theirs, prefix=block.upper(), shortcut_first=True, block_input=ends[1]),
        )

    named, alignment = names_of(ours, theirs, outputs=ends)

    assert named == {
        f"{block}{part}": f"{block.upper()}{part}"
        for block in "pqr"
        for part in ("one", "a", "two", "three", "shortcut", "add")
    }
    assert alignment.ambiguous == ()


def chain(sketch, *, layers, without=(), activation="relu"):
    value = 0
    for layer in range(layers):
        value = sketch.call(f"layer{layer}", value, width=8)
        if layer not in without:
            value = sketch.call(f"act{layer}", value, kind=activation)
    return value


def test_a_missing_activation_leaves_the_rest_aligned():
    ours, theirs = Sketch(), Sketch()
    ends = chain(ours, layers=30), chain(theirs, layers=30, without=(14,))

    named, _ = names_of(ours, theirs, outputs=ends)

    assert all(named[f"layer{layer}"] == f"layer{layer}" for layer in range(30))
    assert {f"act{layer}" for layer in range(30)} - set(named) == {"act14"}


def test_another_activation_is_still_the_counterpart():
    ours, theirs = Sketch(), Sketch()
    ends = chain(ours, layers=4), chain(theirs, layers=4, activation="gelu")

    named, _ = names_of(ours, theirs, outputs=ends)

    assert all(named[f"act{layer}"] == f"act{layer}" for layer in range(4))


def test_reshapes_on_one_side_are_looked_through():
    ours, theirs = Sketch(), Sketch()
    first = ours.call("dense", ours.call("flat", 0, kind="reshape"), kind="dense", width=8)
    second = theirs.call("head", 0, kind="dense", width=8)

    named, _ = names_of(ours, theirs, outputs=(first, second))

    assert named == {"dense": "head"}


def siblings(sketch, names, *, join):
    made = [sketch.call(name, 0, width=8) for name in names]
    return sketch.call("join", *made, kind=join)


def test_siblings_are_told_apart_by_their_place_in_a_concatenation():
    ours, theirs = Sketch(), Sketch()
    first = siblings(ours, ("a", "b"), join="concat")
    made = {name: theirs.call(name, 0, width=8) for name in ("B", "A")}
    second = theirs.call("join", made["A"], made["B"], kind="concat")

    named, alignment = names_of(ours, theirs, outputs=(first, second))

    assert named == {"a": "A", "b": "B", "join": "join"}
    assert alignment.ambiguous == ()


def test_siblings_of_a_sum_are_paired_in_call_order_and_reported():
    ours, theirs = Sketch(), Sketch()
    ends = siblings(ours, ("a", "b"), join="add"), siblings(theirs, ("A", "B"), join="add")

    named, alignment = names_of(ours, theirs, outputs=ends)

    assert named == {"a": "A", "b": "B", "join": "join"}
    assert alignment.ambiguous == ((0, 1),)


def test_the_user_can_pin_counterparts():
    ours, theirs = Sketch(), Sketch()
    ends = siblings(ours, ("a", "b"), join="add"), siblings(theirs, ("A", "B"), join="add")

    named, alignment = names_of(ours, theirs, outputs=ends, pinned={"a": "B"})

    assert named == {"a": "B", "b": "A", "join": "join"}
    assert alignment.ambiguous == ()


def test_a_pinned_name_that_is_none_is_refused():
    ours, theirs = Sketch(), Sketch()
    ends = chain(ours, layers=2), chain(theirs, layers=2)

    with pytest.raises(CaptureError, match=r"no operation is named 'layer9'\. Nearest: layer"):
        names_of(ours, theirs, outputs=ends, pinned={"layer9": "layer0"})


def test_layers_of_other_widths_are_no_counterparts_before_all_else_is_paired():
    ours, theirs = Sketch(), Sketch()
    ends = 0, 0
    for width in (4, 8, 16):
        ends = (
            ours.call(f"w{width}", ends[0], width=width),
            theirs.call(f"w{width}", ends[1], width=width),
        )

    named, _ = names_of(ours, theirs, outputs=ends)

    assert named == {"w4": "w4", "w8": "w8", "w16": "w16"}


def test_a_thousand_layers_are_aligned():
    ours, theirs = Sketch(), Sketch()
    ends = chain(ours, layers=1000), chain(theirs, layers=1000)

    named, _ = names_of(ours, theirs, outputs=ends)

    assert all(ours == theirs for ours, theirs in named.items())
    assert len(named) == 2000
