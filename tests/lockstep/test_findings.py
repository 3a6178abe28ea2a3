"""What counts as within a bound, over it, or neither; and which finding is named first."""

import numpy as np
import pytest

from parity.compare.gaps import Worst, tensor_gap
from parity.lockstep.findings import Findings, Gap


@pytest.mark.parametrize(
    ("gap", "bound", "clear", "standing"),
    [
        (1.0, 1.0, 1.0, "within"),
        (1.1, 1.0, 1.0, "over"),
        (1.1, 1.0, 3.0, "doubtful"),
        (3.0, 1.0, 3.0, "over"),
        (0.0, 0.0, 1.0, "within"),
        (1e-300, 0.0, 3.0, "over"),
        (float("nan"), 1.0, 3.0, "over"),
        (float("inf"), float("inf"), 3.0, "over"),
        (5.0, None, 1.0, "within"),
    ],
)
def test_a_gap_is_within_its_bound_over_it_or_doubtful(gap, bound, clear, standing):
    found = Gap(gap=gap, bound=bound, where="", clear=clear)

    expected = {"within": (False, False), "doubtful": (False, True), "over": (True, False)}
    assert (found.diverges, found.is_doubtful) == expected[standing]


def found(*entries):
    findings = Findings()
    for step, quantity, gap, clear in entries:
        findings.add(step, quantity, Worst(gap=gap, where=quantity), bound=1.0, clear=clear)
    return findings


def test_first_divergence_is_the_earliest_step_then_the_quantity_that_spreads_first():
    findings = found((2, "loss", 9.0, 1.0), (1, "slots", 9.0, 1.0), (1, "gradients", 2.0, 1.0))

    first = findings.first_divergence()

    assert (first["step"], first["quantity"], first["ratio"]) == (1, "gradients", 2.0)


def test_a_doubt_is_no_divergence():
    findings = found((1, "forward", 2.0, 3.0), (2, "slots", 0.5, 1.0))

    assert findings.first_divergence() is None
    assert findings.first_doubt()["quantity"] == "forward"


def test_the_share_of_elements_that_are_out_is_recorded():
    findings = Findings()
    worst = tensor_gap({"a.w": np.array([1.0, 2.0, 3.0, 4.5])}, {"a.w": np.array([1, 2, 3, 4.0])})

    findings.add(1, "slots", worst, bound=0.01)

    assert findings.first_divergence()["share_out"] == 0.25
    assert findings.summary()[0]["share_out"] == 0.25
