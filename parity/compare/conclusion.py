"""From what was measured to a verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from parity.compare.alignment import has_weights
from parity.compare.comparison import Comparison
from parity.compare.findings import Figure, Finding
from parity.compare.matching import Match
from parity.compare.verdicts import CLEARLY_RIGHT, CLEARLY_WRONG
from parity.errors import describe_list
from parity.frameworks.program import Operation, ValueId

# Outputs that move less than this share of their scale when the inputs move by a tenth of their
# deviation say nothing of the layers before.
VACUOUS = 1e-4


def conclude(
    comparison: Comparison,
    *,
    sensitivity: float | None,
    power: Mapping[str, bool] | None = None,
    notes: Sequence[str] = (),
) -> Finding:
    """Return the finding of what was measured.

    Args:
        comparison: With its figures.
        sensitivity: See `Finding.sensitivity`.
        power: See `Finding.power`.
        notes: Sentences on what could not be compared.
    """
    match = comparison.match
    wrong, unclear = comparison.first_wrong(), comparison.first_unclear()
    structure = describe_structure(match)
    unfit = _describe_unfit(match)
    paired = len(match.alignment.pairs)

    def finding(verdict: str, reason: str, at: Figure | None = None) -> Finding:
        return Finding(
            verdict=verdict,  # type: ignore[arg-type]  # one of the five words below
            reason=reason,
            phase=at.phase if at else "",
            reference_layer=_first_alone(match, 0, at) if at else "",
            candidate_layer=_first_alone(match, 1, at) if at else "",
            figures=tuple(comparison.figures),
            sensitivity=sensitivity,
            power=dict(power or {}),
            structure=(*structure, *notes),
            labels=(match.programs[0].label, match.programs[1].label),
            compared=(paired, paired + len(match.missing(0))),
            precision=comparison.sides.candidate.dtype,
        )

    if unseen := _describe_unseen(comparison):
        return finding("not compared", unseen, wrong)
    if unfit and (wrong or match.unlike):
        found = finding("not the same function", f"{unfit}.", wrong)
        return _at_unlike(found, match, wrong)
    if sensitivity is not None and sensitivity < VACUOUS:
        return finding(
            "vacuous",
            f"the outputs move by {sensitivity:.1e} of their scale when the inputs do: right and "
            "wrong models would look alike. Give the batch norms the statistics of the inputs "
            "(--measure-statistics, measures_statistics=True), or compare on other inputs.",
        )
    if wrong is not None:
        return finding("diverges", _describe_wrong(wrong), wrong)
    if not comparison.figures:
        return finding("not compared", "the models have no value in common.")
    if unclear is not None:
        return finding(
            "not compared",
            f"{unclear.reference} is {unclear.ratio:.1f} times the rounding noise: between clearly "
            f"right (up to {CLEARLY_RIGHT:.0f}) and clearly wrong (from {CLEARLY_WRONG:.0f}).",
            unclear,
        )
    if (hidden := comparison.first_hidden()) is not None:
        return finding(
            "numerically equivalent",
            f"every gap is less than {match.programs[1].dtype} shows. In float64 they part first "
            f"at {hidden.reference}, by {hidden.gap:.1e} of its scale.",
        )
    return finding("numerically equivalent", "every gap is rounding.")


def _at_unlike(found: Finding, match: Match, wrong: Figure | None) -> Finding:
    """Return the finding at the first values of unlike shapes, where nothing is wrong before."""
    if not match.unlike or (wrong is not None and wrong.phase == "weights"):
        return found
    first = match.unlike[0]
    places = {one.name: place for place, one in enumerate(match.traces[0].operations)}
    if wrong is not None and wrong.phase == "forward":
        # The model's outputs are no operations.
        before, at = (places.get(name, len(places)) for name in (wrong.reference, first.reference))
        if before < at:
            return found
    return replace(
        found,
        phase="forward",
        reference_layer=first.reference,
        candidate_layer=first.candidate,
    )


def _first_alone(match: Match, side: int, figure: Figure) -> str:
    """Return the first operation without a counterpart that leads to a wrong output, or its own.

    What one side does more than the other shows where the two meet again.
    """
    own = figure.reference if side == 0 else figure.candidate
    if figure.phase not in ("forward", "train") or figure.quantity != "output":
        return own
    trace = match.traces[side]
    makers = {value: one for one in trace.operations for value in one.outputs}
    alone = set(match.missing(side))
    # An output that a counterpart makes is that operation's point too.
    points = {point.values[side] for point in match.points if point.kind != "output"}
    starts = [
        value
        for point in match.points
        if figure.reference == point.reference
        for value in _operands(makers, point.values[side], own)
    ]
    found: list[str] = []
    seen: set[int] = set()
    while starts:
        value = starts.pop()
        maker = makers.get(value)
        if maker is None or value in seen or value in points:
            continue
        seen.add(value)
        found += [maker.name] if maker.name in alone else []
        starts += maker.inputs
    order = [operation.name for operation in trace.operations]
    return min(found, key=order.index, default=own)


def _operands(
    makers: Mapping[ValueId, Operation], value: ValueId, name: str
) -> tuple[ValueId, ...]:
    """Return what an operation takes, or the model's output itself."""
    maker = makers.get(value)
    return maker.inputs if maker is not None and maker.name == name else (value,)


def _describe_wrong(figure: Figure) -> str:
    where = f" at [{figure.where}]" if figure.where else ""
    return (
        f"{figure.quantity} of {figure.reference} ({figure.candidate} in the candidate) is "
        f"{figure.gap:.1e} of its scale off{where}, {figure.ratio:.1e} times the rounding noise; "
        f"{figure.share:.0%} of its elements are."
    )


def _describe_unseen(comparison: Comparison) -> str:
    """Return why what was measured says nothing of the models; empty if it does."""
    match = comparison.match
    if not comparison.is_finite:
        return "the reference's outputs are not finite: no difference from them can be measured."
    if comparison.first_wrong() is None:
        return ""
    for side, word in enumerate(("reference", "candidate")):
        alone = set(match.missing(side))
        hidden = [
            operation.name
            for operation in match.traces[side].operations
            if operation.kind == "opaque" and operation.weights and operation.name in alone
        ]
        if hidden:
            return (
                f"{describe_list(hidden, limit=5)} of the {word} cannot be followed, so that no "
                "weights go over to or from it. Give both models the same weights and compare them "
                "as they are (--weights as-is, weights='as-is')."
            )
    return ""


def _describe_unfit(match: Match) -> str:
    """Return why no assignment of weights makes the two one function; empty if one may."""
    trace = match.traces
    problems = describe_unlike(match)
    for side, word in enumerate(("reference", "candidate")):
        layers = {operation.name for operation in trace[side].operations if has_weights(operation)}
        missing = [name for name in match.missing(side) if name in layers]
        if missing:
            problems.append(f"no counterpart of the {word}'s {describe_list(missing, limit=5)}")
    if len(trace[0].outputs) != len(trace[1].outputs):
        problems.append(f"{len(trace[0].outputs)} outputs against {len(trace[1].outputs)}")
    problems += match.weights.unlike
    if match.weights.unused:
        problems.append(f"the candidate takes no {describe_list(match.weights.unused, limit=5)}")
    unset = list(match.weights.unset)
    if unset:
        problems.append(f"the reference gives no {describe_list(unset, limit=5)}")
    return "; ".join(problems)


def describe_structure(match: Match) -> tuple[str, ...]:
    """Return a sentence on each thing that has no counterpart or could not be followed."""
    sentences = []
    for side, word in enumerate(("reference", "candidate")):
        missing = match.missing(side)
        if missing:
            sentences.append(
                f"operations of the {word} without a counterpart: {describe_list(missing)}"
            )
        sentences += [f"{word}: {note}" for note in match.programs[side].trace.notes]
    for group in match.alignment.ambiguous:
        names = [match.traces[0].operations[index].name for index in group]
        sentences.append(f"told apart by call order alone: {describe_list(names)}")
    if match.weights.unused:
        sentences.append(f"arrays nothing takes: {describe_list(match.weights.unused)}")
    for name, value in match.weights.unset.items():
        how = "kept as it is" if value is None else f"set to {value:g}"
        sentences.append(f"array nothing gives: {name}, {how}")
    sentences += [f"unlike arrays: {sentence}" for sentence in match.weights.unlike]
    sentences += [f"unlike shapes: {sentence}" for sentence in describe_unlike(match)]
    return tuple(sentences)


def describe_unlike(match: Match) -> list[str]:
    """Return a sentence on each pair of counterparts whose values have unlike shapes."""
    sentences = []
    for point in match.unlike:
        ours, theirs = (match.traces[side].shapes[point.values[side]] for side in (0, 1))
        sentences.append(f"{point.reference} gives {ours}, {point.candidate} {theirs}")
    return sentences
