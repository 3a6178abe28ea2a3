"""Ablations on disk: paired rows, the same bits after an interruption, and what is refused."""

import contextlib
import dataclasses
import json
import os
import shutil

import pytest

from parity.cli.train import make_settings
from parity.data.batches import BatchStream
from parity.data.synthetic import load_synthetic
from parity.errors import RunError
from parity.lockstep.files import lock_folder
from parity.lockstep.training import read_identity
from parity.match.ablation import ABLATION_FILE, Ablation, holds_ablation, run_ablation
from parity.match.grid import build_cells
from parity.match.paired import compare_paired
from parity.spec.recipe import load_recipe
from parity.testing.assertions import assert_close

OVERRIDES = ("model=resnet8:width=2", "batch_size=128", "epochs=2")


def open_stream(recipe, seed):
    return BatchStream(load_synthetic(), recipe, seed=seed)


def build_ablation(
    *, key="augment.flip", values=("none", "random"), seeds=2, overrides=(), **parts
):
    recipe = load_recipe("best_sgd", data="synthetic", overrides=[*OVERRIDES, *overrides])
    cells = build_cells(recipe, key=key, values=values, epochs=parts.get("epochs", ()))
    settings = make_settings("torch", recipe=recipe, stream=open_stream(recipe, 0))
    return Ablation(
        recipe=recipe,
        key=key,
        values=tuple(values),
        epochs=tuple(parts.get("epochs", ())),
        seeds=seeds,
        baseline=parts.get("baseline", values[0]),
        cells=cells,
        settings=(settings,) * len(cells),
    )


@contextlib.contextmanager
def unwatched(label):
    yield lambda _progress: None


class InterruptAt:
    """Interrupts the training of one label after some steps, as a kill would."""

    def __init__(self, label, step):
        self.label, self.step = label, step

    @contextlib.contextmanager
    def __call__(self, label):
        yield lambda progress: self.count(label, progress)

    def count(self, label, progress):
        if label == self.label and progress.step >= self.step and progress.row is None:
            raise KeyboardInterrupt


def run(ablation, folder, *, watch=unwatched, on_trained=lambda _trained: None):
    return run_ablation(
        ablation, folder=folder, open_stream=open_stream, watch=watch, on_trained=on_trained
    )


def without_seconds(record):
    return {
        **record,
        "runs": [{key: run[key] for key in run if key != "seconds"} for run in record["runs"]],
    }


def read_digest(folder):
    """Return the digest of the batches that a finished run saw."""
    return json.loads((folder / "run.json").read_text())["stream_digest"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "ablation"
    return folder, run(build_ablation(), folder)


def test_rows_are_those_of_the_runs(whole):
    _, record = whole
    by_value = {
        value: {
            each["seed"]: each["test_accuracy"] for each in record["runs"] if each["value"] == value
        }
        for value in ("none", "random")
    }

    base, other = record["rows"]
    expected = compare_paired(by_value["random"], by_value["none"])
    assert (base["value"], base["epochs"], base["test_accuracy"]["seeds"]) == ("none", 2, 2)
    assert base["test_accuracy"]["difference"] is None
    assert other["test_accuracy"]["difference"] == dataclasses.asdict(expected)
    assert_close(
        other["test_accuracy"]["mean"], sum(by_value["random"].values()) / 2, atol=0.0, rtol=1e-12
    )


def test_record_on_disk_is_the_one_returned(whole):
    folder, record = whole

    stored = json.loads((folder / ABLATION_FILE).read_text())

    assert stored == json.loads(json.dumps(record))
    assert stored["status"] == "finished"
    assert stored["identity"]["versions"]["python"]


def test_trainings_alternate_between_the_values_within_a_seed(whole):
    _, record = whole

    order = [(each["seed"], each["value"]) for each in record["runs"]]
    assert order == [(0, "none"), (0, "random"), (1, "none"), (1, "random")]


def test_each_run_lies_in_the_folder_that_the_record_names(whole):
    folder, record = whole

    found = [read_identity(folder / each["folder"]) for each in record["runs"]]

    assert [settings.seed for _, settings in found] == [0, 0, 1, 1]
    assert [recipe.augment.flip for recipe, _ in found] == ["none", "random", "none", "random"]


@pytest.mark.parametrize(("label", "step"), [("2/4", 7), ("4/4", 2)])
def test_an_interrupted_ablation_goes_on_to_the_same_bits(whole, tmp_path, label, step):
    with pytest.raises(KeyboardInterrupt):
        run(build_ablation(), tmp_path / "broken", watch=InterruptAt(label, step))
    stopped = json.loads((tmp_path / "broken" / ABLATION_FILE).read_text())
    seen = []

    record = run(build_ablation(), tmp_path / "broken", on_trained=seen.append)

    assert stopped["status"] == "interrupted"
    assert [each.found for each in seen].count(True) == int(label[0]) - 1 == len(stopped["runs"])
    assert without_seconds(record) == without_seconds(whole[1])


def test_a_finished_ablation_trains_nothing_and_takes_another_baseline(whole, tmp_path):
    record, folder = whole[1], tmp_path / "ablation"
    shutil.copytree(whole[0], folder)
    files = sorted(folder.rglob("weights.pt"))
    before = [path.stat().st_mtime_ns for path in files]

    again = run(build_ablation(baseline="random"), folder)

    assert [path.stat().st_mtime_ns for path in files] == before
    difference = record["rows"][1]["test_accuracy"]["difference"]["mean"]
    assert_close(
        again["rows"][0]["test_accuracy"]["difference"]["mean"], -difference, atol=0.0, rtol=1e-12
    )


def test_more_seeds_keep_the_runs_that_are_there(tmp_path):
    varied = {"key": "optimizer.nesterov", "values": ("false", "true")}
    one = run(build_ablation(**varied, seeds=1), tmp_path / "ablation")
    seen = []

    two = run(build_ablation(**varied, seeds=2), tmp_path / "ablation", on_trained=seen.append)

    assert [each.found for each in seen] == [True, True, False, False]
    assert two["runs"][:2] == one["runs"]
    assert one["rows"][1]["test_accuracy"]["difference"]["interval"] is None
    digests = [read_digest(tmp_path / "ablation" / each["folder"]) for each in two["runs"]]
    assert digests[0] == digests[1] != digests[2] == digests[3]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"values": ("none", "alternating")}, "values was .*'random'.*, is .*'alternating'"),
        ({"epochs": (1, 2)}, "epochs was"),
        ({"overrides": ("optimizer.lr=0.2",)}, "recipe.optimizer.lr was 0.1, is 0.2"),
    ],
)
def test_a_folder_of_another_ablation_is_refused(whole, changes, reason):
    folder, _ = whole
    before = (folder / ABLATION_FILE).read_bytes()

    with pytest.raises(RunError, match=f"holds another ablation: {reason}"):
        run(build_ablation(**changes), folder)

    assert (folder / ABLATION_FILE).read_bytes() == before
    assert not holds_ablation(folder, build_ablation(**changes).identity())
    assert holds_ablation(folder, build_ablation().identity())


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / "notes").write_text("")

    with pytest.raises(
        RunError, match="expected a new or empty folder; got one that holds 'notes'"
    ):
        run(build_ablation(), tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [("{", "expected JSON"), ("{}", "keys missing"), ('{"format": 9}', "keys missing")],
)
def test_a_damaged_record_is_refused(tmp_path, content, reason):
    (tmp_path / ABLATION_FILE).write_text(content)

    with pytest.raises(RunError, match=reason):
        run(build_ablation(), tmp_path)


def test_a_run_of_another_training_in_its_place_is_refused(whole, tmp_path):
    folder, record = whole
    run(build_ablation(seeds=1), tmp_path / "ablation")
    own = tmp_path / "ablation" / record["runs"][1]["folder"] / "run.json"
    own.write_bytes((folder / record["runs"][0]["folder"] / "run.json").read_bytes())

    with pytest.raises(RunError, match=r"augment.flip was 'none', is 'random'"):
        run(build_ablation(seeds=1), tmp_path / "ablation")


def test_another_process_in_the_folder_is_refused(whole):
    folder, _ = whole
    handle = lock_folder(folder)

    with pytest.raises(RunError, match="another process trains in this folder"):
        run(build_ablation(), folder)

    os.close(handle)


def test_a_diverging_value_ends_the_ablation_and_keeps_the_others(tmp_path):
    ablation = build_ablation(key="optimizer.lr", values=("0.1", "1e30"), seeds=1)

    with pytest.raises(
        RunError, match=r"seed0-epochs2-value1-1e30: the training loss is not finite"
    ):
        run(ablation, tmp_path / "ablation")

    stored = json.loads((tmp_path / "ablation" / ABLATION_FILE).read_text())
    assert (stored["status"], len(stored["runs"])) == ("interrupted", 1)


def test_views_and_a_curve_give_rows_and_speedups_of_both_accuracies(tmp_path):
    ablation = build_ablation(
        values=("random", "alternating"),
        seeds=1,
        epochs=(1, 1.5, 2),
        overrides=("evaluation.tta_level=1",),
    )

    record = run(ablation, tmp_path / "ablation")

    assert [row["epochs"] for row in record["rows"]] == [1, 1, 1.5, 1.5, 2, 2]
    assert all(row["test_accuracy_plain"]["seeds"] == 1 for row in record["rows"])
    measures = [part["measure"] for part in record["speedups"]]
    assert measures == ["test_accuracy", "test_accuracy_plain"]
    assert all((part["law"] is None) == bool(part["problem"]) for part in record["speedups"])
