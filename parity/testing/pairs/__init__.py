"""Random pairs of models that are one function, a torch and a Keras one, and the same with a fault.

`draw_pair(seed)` draws a clean pair; `seed_fault(pair, seed)` returns it with one mistake that
people make in ports. Frameworks are loaded where models are built.
"""

from parity.testing.pairs.families import FAMILIES
from parity.testing.pairs.faults import FAULTS, Effects, measure_effects, seed_fault
from parity.testing.pairs.gaps import clean_bound, clean_gap
from parity.testing.pairs.pair import Pair, SeededFault, draw_pair

__all__ = [
    "FAMILIES",
    "FAULTS",
    "Effects",
    "Pair",
    "SeededFault",
    "clean_bound",
    "clean_gap",
    "draw_pair",
    "measure_effects",
    "seed_fault",
]
