"""Time two sides in interleaved pairs, and write the line that a benchmark prints."""

import json
import os
import statistics
import time
from argparse import ArgumentParser, RawTextHelpFormatter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from parity import runtime
from parity.rng import stream as keyed

OURS, BASELINE = "ours", "baseline"


def make_parser(text: str | None, *, pairs: int) -> ArgumentParser:
    """Return a parser of the options that every timing has."""
    parser = ArgumentParser(description=text, formatter_class=RawTextHelpFormatter)
    parser.add_argument("--framework", choices=["torch", "keras"], default="torch")
    parser.add_argument("--pairs", type=int, default=pairs)
    parser.add_argument("--out", type=Path, help="append what is printed to this file")
    return parser


def write_row(row: Mapping[str, Any], out: Path | None) -> None:
    """Print a measurement with the machine and the versions that it was made with."""
    line = json.dumps({**row, **runtime.environment(), "processors": os.cpu_count()})
    print(line)
    if out:
        with out.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def seconds_of(run: Callable[[], object]) -> float:
    """Return how long a run takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def compare(
    name: str,
    ours: Callable[[], object],
    baseline: Callable[[], object],
    *,
    pairs: int,
    images: int,
) -> dict[str, Any]:
    """Return the ratio of images per second of two sides, each run once beforehand.

    Args:
        name: What is compared.
        ours: A run of some images.
        baseline: A run of as many.
        pairs: How often both run, one after the other, in alternating order.
        images: How many a run takes.

    Returns:
        The median `ratio` over pairs with its bootstrap `interval`, and both sides' speeds.
    """
    sides = {OURS: ours, BASELINE: baseline}
    for run in sides.values():
        run()
    rows = []
    for pair in range(pairs):
        order = (OURS, BASELINE) if pair % 2 == 0 else (BASELINE, OURS)
        rows.append({side: seconds_of(sides[side]) for side in order})
    ratios = [row[BASELINE] / row[OURS] for row in rows]
    return {
        "comparison": name,
        "ratio": statistics.median(ratios),
        "interval": list(bootstrap(ratios)),
        "pairs": pairs,
        "images_per_second": images / statistics.median(row[OURS] for row in rows),
        "baseline_images_per_second": images / statistics.median(row[BASELINE] for row in rows),
    }


def bootstrap(ratios: list[float], *, draws: int = 10_000) -> tuple[float, float]:
    """Return the 95 % percentile interval of the median."""
    generator = keyed(0, "bootstrap")
    samples = generator.choice(np.array(ratios), (draws, len(ratios)))
    low, high = np.percentile(np.median(samples, axis=1), [2.5, 97.5])
    return float(low), float(high)


def fastest(runs: Mapping[str, Callable[[], object]], *, repeats: int = 3) -> str:
    """Return the name of the run with the least time, each having run once beforehand."""
    for run in runs.values():
        run()
    times = {name: min(seconds_of(run) for _ in range(repeats)) for name, run in runs.items()}
    return min(times, key=lambda name: times[name])
