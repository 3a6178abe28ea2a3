"""Lockstep records read from their files: what they hold, and which damage is refused."""

import json

import pytest

from parity.errors import RunError
from parity.report.locksteps import parse_lockstep, read_lockstep


def test_lockstep_record_holds_summary_and_rows(tmp_path, lockstep_record_table):
    path = tmp_path / "lockstep.json"
    path.write_text(json.dumps(lockstep_record_table()))

    record = read_lockstep(path)

    assert record.first_divergence.where == "stem.bn.running_var"
    assert [worst.quantity for worst in record.summary] == ["gradients", "running statistics"]
    assert record.rows[1].quantities["gradients"].gap == 3e-14


def test_lockstep_record_keeps_gaps_that_are_not_finite(tmp_path, lockstep_record_table):
    table = lockstep_record_table()
    table["summary"][0] = table["summary"][0] | {"gap": float("nan"), "ratio": float("inf")}
    path = tmp_path / "lockstep.json"
    path.write_text(json.dumps(table))

    assert read_lockstep(path).summary[0].ratio == float("inf")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"verdict": "same"}, r"verdict must be one of numerically equivalent, .*; got 'same'\."),
        ({"mode": "slow"}, r"mode must be one of resync, free; got 'slow'\."),
        ({"summary": [{}]}, r"7 keys missing \(summary\[0\]\.gap, "),
        ({"summary": [7]}, r"summary\[0\]: expected a JSON object; got int\."),
        ({"rows": [{"step": 1}]}, r"1 keys missing \(rows\[0\]\.quantities\)\."),
        ({"environment": {}}, r"3 keys missing \(environment\.versions, "),
        (
            {"rows": [{"step": 1, "quantities": {"loss": {"gap": "0"}}}]},
            r"2 keys missing \(rows\[0\]\.quantities\.loss\.bound, ",
        ),
        (
            {"detection_power": [{"fault": "lr_off", "change": "lr=1", "caught": 1}]},
            r"2 keys missing \(detection_power\[0\]\.quantity, ",
        ),
        (
            {"rows": [{"step": 1, "quantities": {}, "control": {"loss": "0"}}]},
            r"rows\[0\]\.control\.loss must be an integer or a float; got '0'\.",
        ),
    ],
    ids=["verdict", "mode", "keys", "no-table", "row", "environment", "gap", "trial", "control"],
)
def test_wrong_lockstep_table_is_refused(lockstep_record_table, changes, expected):
    with pytest.raises(RunError, match=expected):
        parse_lockstep(lockstep_record_table(**changes), where="lockstep.json")
