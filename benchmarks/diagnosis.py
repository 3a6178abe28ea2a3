"""Compare random pairs of models, clean and with one seeded fault each, and count what is found.

    python -m benchmarks.diagnosis --pairs 500 --key $(git rev-parse HEAD)

The seeds follow from the key alone, so that nobody chose them. A clean pair is compared in every
phase; a verdict that its sides differ is a false alarm. The same pair with a fault must be told to
differ. A fault counts as clear when the change it makes, measured in float64 by no tool of
comparison, is at least 100 times the largest gap between the sides of the clean pair. The first
layer is exact when the finding's first operation, by its name on either side, is one of the node
that the fault was seeded in, or of one that the fault puts in, leaves out or moves
(`parity.testing.pairs.places`).
"""

import dataclasses
import gc
import time
import traceback
from argparse import ArgumentParser, RawTextHelpFormatter
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.timing import write_row
from parity import runtime
from parity.compare.findings import Finding
from parity.frameworks.pairs.plan import Side
from parity.rng import stream
from parity.testing.pairs import Pair, clean_gap, draw_pair, seed_fault
from parity.testing.pairs.places import is_place_of_fault

Result = TypeVar("Result")

# Verdicts that say that two models differ.
DIFFERENT = ("diverges", "not the same function")
CLEAR_GAPS = 100.0


@dataclass(frozen=True, kw_only=True)
class CleanResult:
    """What was found of a clean pair.

    Attributes:
        seed: Of the pair.
        family: Of the pair.
        verdict: Of the comparison; `error` where it raised.
        note: Why, where the verdict is not the right one.
        seconds: That the comparison took.
    """

    seed: int
    family: str
    verdict: str
    note: str = ""
    seconds: float = 0.0

    @property
    def is_false_alarm(self) -> bool:
        """Whether the sides are said to differ."""
        return self.verdict in DIFFERENT


@dataclass(frozen=True, kw_only=True)
class FaultResult:
    """What was found of a pair with a fault.

    Attributes:
        seed: Of the pair and the fault.
        family: Of the pair.
        kind: Of the fault; `error` where something raised.
        layer: Node that the fault was seeded in.
        effect: Change of what the candidate computes, in float64, over its scale.
        gap: Largest gap between the sides of the clean pair, likewise.
        verdict: Of the comparison.
        place: The finding's phase and first operations.
        is_exact: Whether the first layer is that of the fault.
        note: The finding's reason.
    """

    seed: int
    family: str
    kind: str
    layer: str = ""
    effect: float = 0.0
    gap: float = 0.0
    verdict: str = "error"
    place: str = ""
    is_exact: bool = False
    note: str = ""

    @property
    def is_clear(self) -> bool:
        """Whether the fault does far more than the two frameworks do."""
        return self.kind != "error" and self.effect >= CLEAR_GAPS * self.gap

    @property
    def is_caught(self) -> bool:
        """Whether the sides are said to differ."""
        return self.verdict in DIFFERENT


def draw_seeds(key: str, count: int) -> list[int]:
    """Return the seeds of a key: the same for the key, the first ones of any longer list."""
    return [int(stream(0, "diagnosis", key, place).integers(2**31)) for place in range(count)]


def compare_pair(pair: Pair) -> Finding:
    """Compare the float32 models of a pair in every phase, with the loss of a classifier.

    A candidate that is given the reference's weights starts from others, so that one that it is not
    given shows.
    """
    from parity.compare.models import compare_models

    sides = (pair.reference_side, pair.candidate_side)
    if pair.weights_mode == "transfer":
        others = {name: 0.5 * array for name, array in pair.candidate.weights.items()}
        pair = dataclasses.replace(pair, candidate=pair.candidate.with_weights(others))
    reference, candidate = (pair.build(side) for side in sides)
    inputs = pair.inputs()
    first, second = (_loss(side) for side in sides)
    return compare_models(
        reference,
        candidate,
        inputs[sides[0]],
        candidate_inputs=inputs[sides[1]],
        weights=pair.weights_mode,
        loss=(first, second),
        targets=pair.labels(),
    )


def _loss(side: Side) -> Callable[..., Any]:
    if side == "keras":
        import keras

        loss: Callable[..., Any] = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        return loss
    from torch.nn import functional

    def cross_entropy(outputs: Any, targets: Any) -> Any:  # noqa: ANN401  # tensors
        return functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())

    return cross_entropy


def check_clean(seed: int) -> CleanResult:
    """Compare the clean pair of a seed; what raises is a result too."""
    family = ""
    try:
        pair = draw_pair(seed)
        family = pair.family
        started = time.perf_counter()
        finding = compare_pair(pair)
    except Exception as error:
        note = _describe_error(error)
        return CleanResult(seed=seed, family=family, verdict="error", note=note)
    return CleanResult(
        seed=seed,
        family=family,
        verdict=finding.verdict,
        note="" if finding.is_equivalent else f"{_place(finding)}. {finding.reason}",
        seconds=time.perf_counter() - started,
    )


def check_fault(seed: int) -> FaultResult:
    """Compare the pair of a seed with the fault of the seed; what raises is a result too."""
    known: dict[str, Any] = {"seed": seed, "family": "", "kind": "error"}
    try:
        clean = draw_pair(seed)
        known |= {"family": clean.family, "gap": clean_gap(clean)}
        faulty = seed_fault(clean, seed)
        known |= _describe_fault(faulty)
        finding = compare_pair(faulty)
        names = finding.reference_layer, finding.candidate_layer
        is_exact = finding.verdict in DIFFERENT and is_place_of_fault(faulty, *names)
    except Exception as error:
        return FaultResult(**known, note=_describe_error(error))
    return FaultResult(
        **known,
        verdict=finding.verdict,
        place=_place(finding),
        is_exact=is_exact,
        note=finding.reason,
    )


def _describe_fault(faulty: Pair) -> dict[str, Any]:
    fault = faulty.fault
    assert fault is not None
    return {"kind": fault.kind, "layer": fault.layer, "effect": fault.effect}


def _place(finding: Finding) -> str:
    return f"{finding.phase}: {finding.reference_layer} | {finding.candidate_layer}"


def _describe_error(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(where.filename).name}:{where.lineno}: {error}"


def describe_clean(results: Sequence[CleanResult]) -> Table:
    """Return the verdicts of the clean pairs by family."""
    table = Table(title="Clean pairs")
    columns = ("pairs", "false alarms", "vacuous", "not compared", "errors", "seconds a pair")
    for column in ("family", *columns):
        table.add_column(column, justify="left" if column == "family" else "right", min_width=11)
    for family, found in _grouped(results, lambda result: result.family):
        verdicts = Counter(result.verdict for result in found)
        table.add_row(
            family,
            str(len(found)),
            str(sum(result.is_false_alarm for result in found)),
            *(str(verdicts[word]) for word in ("vacuous", "not compared", "error")),
            f"{sum(result.seconds for result in found) / len(found):.2f}",
        )
    return table


def describe_faults(results: Sequence[FaultResult]) -> Table:
    """Return by kind how many faults are clear, and how many of these are caught and placed."""
    table = Table(title="Pairs with a fault")
    for column in ("fault", "pairs", "clear", "caught", "first layer exact"):
        table.add_column(column, justify="left" if column == "fault" else "right")
    for kind, found in _grouped(results, lambda result: result.kind):
        clear = [result for result in found if result.is_clear]
        caught = [result for result in clear if result.is_caught]
        exact = sum(result.is_exact for result in caught)
        table.add_row(kind, *map(str, (len(found), len(clear), len(caught), exact)))
    return table


def _grouped(
    results: Iterable[Result], key: Callable[[Result], str]
) -> list[tuple[str, list[Result]]]:
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        groups[key(result)].append(result)
    return sorted(groups.items())


def summarize(clean: Sequence[CleanResult], faulty: Sequence[FaultResult]) -> dict[str, int]:
    """Return the counts that a run is judged by."""
    clear = [result for result in faulty if result.is_clear]
    caught = [result for result in clear if result.is_caught]
    return {
        "pairs": len(clean),
        "false_alarms": sum(result.is_false_alarm for result in clean),
        "vacuous": sum(result.verdict == "vacuous" for result in clean),
        "not_compared": sum(result.verdict == "not compared" for result in clean),
        "errors": sum(result.verdict == "error" for result in (*clean, *faulty)),
        "clear": len(clear),
        "caught": len(caught),
        "exact": sum(result.is_exact for result in caught),
    }


def describe_summary(counts: dict[str, int]) -> str:
    """Return the counts as lines."""
    return (
        "false alarms: {false_alarms} of {pairs}\n"
        "vacuous: {vacuous}, not compared: {not_compared}, errors: {errors}\n"
        "caught: {caught} of {clear} with an effect of at least {bound:.0f} clean gaps\n"
        "first layer exact: {exact} of {caught}"
    ).format(**counts, bound=CLEAR_GAPS)


def describe_wrong(clean: Sequence[CleanResult], faulty: Sequence[FaultResult]) -> list[str]:
    """Return a line on each pair of which something else was found than is there, or nothing."""
    lines = [
        f"clean {result.seed} {result.family}: {result.verdict}: {result.note}"
        for result in clean
        if result.verdict != "numerically equivalent"
    ]
    for result in faulty:
        if result.verdict != "error" and (not result.is_clear or result.is_exact):
            continue
        what = "" if result.is_caught else "missed, "
        lines.append(
            f"fault {result.seed} {result.family} {result.kind} in {result.layer}: {what}"
            f"effect {result.effect:.1e}, {result.verdict}, {result.place}. {result.note}"
        )
    return lines


def main() -> None:
    """Run both halves, print tables and counts, and append them to a file if asked to."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--key", default="", help="text that the seeds follow from")
    parser.add_argument("--out", type=Path, help="append the counts to this file as a JSON line")
    options = parser.parse_args()
    backend = runtime.select_keras_backend(None)
    import keras

    clean, faulty = [], []
    seeds = draw_seeds(options.key, options.pairs)
    progress = Console(stderr=True)
    for seed in track(seeds, description="Comparing", console=progress):
        clean.append(check_clean(seed))
        faulty.append(check_fault(seed))
        for line in describe_wrong(clean[-1:], faulty[-1:]):
            progress.print(line, markup=False, highlight=False)
        # The models of a thousand comparisons would fill the memory.
        keras.backend.clear_session()
        gc.collect()
    console = Console()
    console.print(describe_clean(clean), describe_faults(faulty))
    counts = summarize(clean, faulty)
    print("\n".join([*describe_wrong(clean, faulty), describe_summary(counts)]))
    row = {"measurement": "diagnosis", "key": options.key, "backend": backend, **counts}
    write_row(row, options.out)


if __name__ == "__main__":
    main()
