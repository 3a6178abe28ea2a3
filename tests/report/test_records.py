"""Records read from their files: what they hold, and which damage is refused or tolerated."""

import pytest

from parity.errors import RunError
from parity.report.records import read_run

RESULT = {"test_accuracy": 0.5, "test_loss": 1.0, "seconds": 1.0, "steps": 1}


def test_run_record_holds_identity_result_and_epochs(write_run):
    run = read_run(write_run(framework="keras", seed=3))

    assert (run.label, run.seed, run.status) == ("keras-tensorflow", 3, "finished")
    assert run.result.steps == 92
    assert [epoch.test_accuracy for epoch in run.epochs] == [None, 0.75, None, 0.975]


@pytest.mark.parametrize("plain", [None, 0.9625])
def test_run_record_holds_the_accuracy_without_views_where_there_is_one(write_run, plain):
    assert read_run(write_run(plain=plain)).result.test_accuracy_plain == plain


@pytest.mark.parametrize("status", ["running", "interrupted"])
def test_unfinished_run_has_no_result(write_run, finished_run_table, status):
    table = {**finished_run_table(), "status": status, "result": None, "stream_digest": None}

    run = read_run(write_run(table=table, epochs=[]))

    assert (run.status, run.result, run.epochs) == (status, None, ())


def test_unfinished_run_needs_no_metrics_file(write_run, finished_run_table):
    folder = write_run(table={**finished_run_table(), "status": "running"})
    (folder / "metrics.jsonl").unlink()

    assert read_run(folder).epochs == ()


@pytest.mark.parametrize("rest", [b'{"epoch": 5, "st', b'{"epoch": 5, "n": "\xc3', b""])
def test_cut_last_line_of_metrics_is_dropped(write_run, rest):
    folder = write_run()
    path = folder / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + rest)

    assert [epoch.epoch for epoch in read_run(folder).epochs] == [1, 2, 3, 4]


def test_whole_last_line_without_line_end_is_kept(write_run):
    folder = write_run()
    path = folder / "metrics.jsonl"
    path.write_bytes(path.read_bytes().rstrip(b"\n"))

    assert [epoch.epoch for epoch in read_run(folder).epochs] == [1, 2, 3, 4]


def test_cut_line_before_the_last_is_refused(write_run):
    folder = write_run()
    path = folder / "metrics.jsonl"
    path.write_text('{"epoch": 1, "st\n' + path.read_text())

    with pytest.raises(RunError, match=r"metrics\.jsonl: line 1: expected one JSON object"):
        read_run(folder)


def test_epochs_out_of_order_are_refused(write_run):
    epoch = {"epoch": 2, "step": 1, "train_loss": 1.0}

    with pytest.raises(RunError, match=r"line 2: expected an epoch after 2; got 2\."):
        read_run(write_run(epochs=[epoch, epoch]))


@pytest.mark.parametrize("name", ["run.json", "metrics.jsonl"])
def test_missing_file_is_refused(write_run, name):
    folder = write_run()
    (folder / name).unlink()

    with pytest.raises(RunError, match=rf"{name}: expected .* (missing|No such file)"):
        read_run(folder)


@pytest.mark.parametrize("content", [b"", b'{"format": 1', b"\xff\xfe\x00"])
def test_damaged_run_file_is_refused(write_run, content):
    folder = write_run()
    (folder / "run.json").write_bytes(content)

    with pytest.raises(RunError, match=r"run\.json: expected JSON; .* repeat the run"):
        read_run(folder)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"format": 2}, r"format must be 1; got 2\. Read it with the version"),
        ({"status": "done"}, r"status must be one of running, .*; got 'done'\."),
        ({"result": None}, r"result must be a table; got None\."),
        ({"parameters": "many", "stream_digest": 5}, r"stream_digest must .*parameters must be"),
        ({"parameters": True}, r"parameters must be an integer; got True\."),
        (
            {"result": RESULT | {"test_accuracy_plain": "high"}},
            r"result\.test_accuracy_plain must be an integer or a float or null; got 'high'",
        ),
        ({"result": {"seconds": 1.0}}, r"3 keys missing \(result\.test_accuracy, "),
        ({"identity": {"seed": 0}}, r"10 keys missing \(identity\.recipe, "),
    ],
    ids=[
        *("format", "status", "no-result", "two-types", "bool"),
        *("optional-result", "result-keys", "identity-keys"),
    ],
)
def test_wrong_run_table_is_refused(write_run, finished_run_table, changes, expected):
    folder = write_run(table=finished_run_table() | changes)

    with pytest.raises(RunError, match=expected):
        read_run(folder)


def test_unknown_framework_is_refused(write_run, finished_run_table):
    table = finished_run_table()
    table["identity"]["framework"] = "<script>"

    with pytest.raises(RunError, match=r"framework must be one of torch, keras; got '<script>'"):
        read_run(write_run(table=table))


def test_run_file_that_is_no_table_is_refused(write_run):
    folder = write_run()
    (folder / "run.json").write_text("[]")

    with pytest.raises(RunError, match=r"expected a JSON object; got list\."):
        read_run(folder)
