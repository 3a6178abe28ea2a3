"""The words a comparison ends with, and the ratios that separate them.

A ratio is a candidate's error against a float64 run of the reference, over the reference's own
rounding noise at that place. Right ports have measured 0.5 to 2.5 in evaluation mode, wrong ones 50
and more; the two thresholds stand between.
"""

from typing import Literal

Verdict = Literal[
    "numerically equivalent", "diverges", "vacuous", "not the same function", "not compared"
]

# A ratio up to the first is clearly right, from the second on clearly wrong; between them the
# verdict is "not compared".
CLEARLY_RIGHT = 10.0
CLEARLY_WRONG = 30.0

# What two float64 runs show, the models' own precision may not: a gap of up to so many of its
# units, over the scale of the quantity, is no divergence of models that run in it. Keras
# Applications' epsilon of 1.001e-5 beside 1e-5 makes up to 4 units of float32 in DenseNet121; a
# layer norm's epsilon of 1e-5 beside 1e-6 makes about 40.
VISIBLE_UNITS = 8.0

EXIT_CODES: dict[str, int] = {
    "numerically equivalent": 0,
    "diverges": 1,
    "not the same function": 1,
    "vacuous": 3,
    "not compared": 3,
}
