"""How far apart the sides of random clean pairs are in float64, and how much seeded faults change.

Run: python -m benchmarks.random_pairs --seeds 0 200
"""

import argparse
import time
from collections import defaultdict

from parity.testing.pairs import FAULTS, clean_bound, clean_gap, draw_pair, seed_fault
from parity.testing.pairs.gaps import EXACT_BOUND


def main() -> None:
    """Print the largest gap by family and bound, then the faults drawn and the smallest effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 200), metavar=("FROM", "TO"))
    parser.add_argument("--faults", action="store_true", help="seed a fault into each pair too")
    options = parser.parse_args()
    started = time.perf_counter()
    gaps: dict[tuple[str, str], list[float]] = defaultdict(list)
    effects: dict[str, list[float]] = defaultdict(list)
    out = []
    for seed in range(*options.seeds):
        pair = draw_pair(seed)
        gap, bound = clean_gap(pair), clean_bound(pair.reference)
        gaps[pair.family, "exact" if bound == EXACT_BOUND else "float32 constants"].append(gap)
        if gap > bound:
            out.append(f"seed {seed} ({pair.family}): {gap:.1e}, bound {bound:.0e}")
        if options.faults:
            fault = seed_fault(pair, seed).fault
            assert fault is not None
            effects[fault.kind].append(fault.effect)
    for (family, kind), found in sorted(gaps.items()):
        print(f"{family:12} {kind:18} {len(found):4} pairs, largest gap {max(found):.1e}")
    for kind in FAULTS:
        if effects[kind]:
            print(f"{kind:28} {len(effects[kind]):4} drawn, least effect {min(effects[kind]):.1e}")
    print(f"out of bounds: {'; '.join(out) or 'none'}; {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
