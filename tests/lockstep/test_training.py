"""Runs on disk: the same bits after a resume, and refusals that leave nothing behind."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from benchmarks.kill_and_resume import repeat_killed, run_whole
from parity import runtime
from parity.cli.options import open_stream, resolve
from parity.cli.train import describe_start, make_settings
from parity.errors import RunError
from parity.lockstep import loop, training
from parity.lockstep.checkpoints import read_checkpoint
from parity.lockstep.loop import state_digest
from parity.lockstep.training import describe_changes, resume_run, start_run
from parity.masks import draw_masks


def tiny_run(
    folder, *, framework="torch", epochs=2, model="resnet8:width=2", overrides=(), **settings
):
    recipe = resolve(
        "best_sgd",
        data="synthetic",
        model=model,
        epochs=epochs,
        overrides=["batch_size=128", *overrides],
    )
    stream = open_stream(recipe, seed=1, folder=None, download=False)
    settings = make_settings(framework, recipe=recipe, stream=stream, **settings)
    return start_run(recipe, settings, stream=stream, folder=folder), stream


class StopAt:
    """Ends a training after some steps, as a kill would: nothing more is written."""

    class KilledError(Exception):
        pass

    def __init__(self, step):
        self.step = step

    def __call__(self, progress):
        if progress.step >= self.step and progress.row is None:
            raise self.KilledError


@pytest.mark.parametrize("framework", ["torch", "keras"])
@pytest.mark.parametrize("killed_at", [1, 5, 7])
def test_a_killed_run_resumes_to_the_same_bits(tmp_path, framework, killed_at):
    whole, stream = tiny_run(tmp_path / "whole", framework=framework)
    whole.train()
    broken, _ = tiny_run(tmp_path / "broken", framework=framework)
    with pytest.raises(StopAt.KilledError):
        broken.train(on_progress=StopAt(killed_at))

    resumed = resume_run(tmp_path / "broken", stream=stream)
    resumed.train()

    assert state_digest(resumed.net.state()) == state_digest(whole.net.state())
    records = [
        json.loads((tmp_path / name / "run.json").read_text()) for name in ("whole", "broken")
    ]
    assert records[0]["stream_digest"] == records[1]["stream_digest"]


@pytest.mark.parametrize("dtype", runtime.MIXED_DTYPES)
def test_a_run_in_mixed_precision_resumes_to_the_same_bits(tmp_path, dtype):
    whole, stream = tiny_run(tmp_path / "whole", dtype=dtype)
    whole.train()
    broken, _ = tiny_run(tmp_path / "broken", dtype=dtype)
    with pytest.raises(StopAt.KilledError):
        broken.train(on_progress=StopAt(5))

    resumed = resume_run(tmp_path / "broken", stream=stream)
    resumed.train()

    assert resumed.net.dtype == dtype
    assert state_digest(resumed.net.state()) == state_digest(whole.net.state())


def test_a_compiled_run_says_so_and_that_jax_needs_no_option(tmp_path):
    run, _ = tiny_run(tmp_path / "run", compiled=True)
    said = describe_start(run)
    run.settings = dataclasses.replace(run.settings, keras_backend="jax")

    added = [line for line in describe_start(run) if line not in said]

    assert "torch float32, compiled, seed 1" in said[0]
    assert added == ["(Keras on jax is compiled in any case: --compile changes nothing)"]


def test_a_compiled_run_is_compiled_again_when_it_is_resumed(tmp_path):
    run, stream = tiny_run(tmp_path / "run", compiled=True)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    del run  # it holds the folder

    resumed = resume_run(tmp_path / "run", stream=stream)

    assert record["identity"]["compiled"]
    assert resumed.net.compiled


DROPPING = "resnet8:width=2,stochastic_depth=0.5,dropout=0.5"


def broken_and_whole(folder, framework, **options):
    """Return the weights of a run stopped within an epoch and gone on with, and of a whole one."""
    whole, stream = tiny_run(folder / "whole", framework=framework, **options)
    whole.train()
    broken, _ = tiny_run(folder / "broken", framework=framework, **options)
    with pytest.raises(StopAt.KilledError):
        broken.train(on_progress=StopAt(stream.steps_per_epoch + 2))
    assert read_checkpoint(folder / "broken").step == stream.steps_per_epoch + 1
    resumed = resume_run(folder / "broken", stream=stream)
    resumed.train()
    return [state_digest(run.net.state()) for run in (resumed, whole)]


@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_a_run_that_drops_resumes_within_an_epoch_to_the_same_bits(
    tmp_path, monkeypatch, framework
):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)

    resumed, whole = broken_and_whole(tmp_path, framework, model=DROPPING)

    assert resumed == whole


ENDING = (
    "groups=[{members='bias', lr_factor=1.0, decay_factor=1.0, trained_epochs=1.5, "
    "schedule='linear_to_end'}]"
)


@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_a_run_whose_group_ends_resumes_within_an_epoch_to_the_same_bits(
    tmp_path, monkeypatch, framework
):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)

    resumed, whole = broken_and_whole(tmp_path, framework, overrides=[ENDING])

    assert resumed == whole


EVERY_DRAW = (
    "sampling=with_replacement",
    "augment.crop_padding=reflect",
    "augment.flip=alternating",
    "augment.cutout_px=3",
    "evaluation.tta_level=2",
)


def test_a_run_under_every_draw_resumes_within_its_last_epoch_to_the_same_bits(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    options = {"model": DROPPING, "epochs": 1.75, "overrides": EVERY_DRAW}
    whole, stream = tiny_run(tmp_path / "whole", **options)
    expected = whole.train()
    broken, _ = tiny_run(tmp_path / "broken", **options)
    with pytest.raises(StopAt.KilledError):
        broken.train(on_progress=StopAt(6))
    assert read_checkpoint(tmp_path / "broken").step == 5

    resumed = resume_run(tmp_path / "broken", stream=stream)
    result = resumed.train()

    assert state_digest(resumed.net.state()) == state_digest(whole.net.state())
    assert result | {"seconds": 0.0} == expected | {"seconds": 0.0}


def test_a_fraction_of_an_epoch_ends_with_a_row_of_its_own(tmp_path):
    run, _ = tiny_run(tmp_path / "run", epochs=1.5, overrides=["evaluation.every_epochs=5"])
    seen = []

    result = run.train(on_progress=seen.append)

    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 4), (2, 6)]
    assert ["test_accuracy" in row for row in rows] == [False, True]
    assert [progress.epoch for progress in seen] == [1, 1, 1, 1, 1, 2, 2, 2]
    assert (result["steps"], seen[-1].steps) == (6, 6)


@pytest.mark.parametrize(("level", "has_plain"), [(0, False), (1, True)])
def test_a_run_scored_over_views_tells_its_accuracy_without_them(tmp_path, level, has_plain):
    overrides = [f"evaluation.tta_level={level}"]
    run, _ = tiny_run(tmp_path / "run", epochs=1, overrides=overrides)

    result = run.train()

    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert ("test_accuracy_plain" in result) == ("test_accuracy_plain" in line) == has_plain


def test_masks_drawn_by_turn_would_not_resume_to_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    turns = itertools.count()

    def drawn_by_turn(spec, *, seed, epoch, samples):
        return draw_masks(spec, seed=seed, epoch=epoch + 1000 * next(turns), samples=samples)

    monkeypatch.setattr(loop, "draw_masks", drawn_by_turn)

    resumed, whole = broken_and_whole(tmp_path, "torch", model=DROPPING)

    assert resumed != whole


def test_metrics_hold_one_line_an_epoch_after_a_resume(tmp_path):
    run, stream = tiny_run(tmp_path / "run", epochs=3)
    with pytest.raises(StopAt.KilledError):
        run.train(on_progress=StopAt(6))

    resume_run(tmp_path / "run", stream=stream).train()

    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]


def test_a_checkpoint_within_an_epoch_keeps_the_epochs_sums(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    whole, stream = tiny_run(tmp_path / "whole")
    whole.train()
    broken, _ = tiny_run(tmp_path / "broken")
    killed_at = stream.steps_per_epoch + 2
    with pytest.raises(StopAt.KilledError):
        broken.train(on_progress=StopAt(killed_at))

    assert read_checkpoint(tmp_path / "broken").step == killed_at - 1
    resume_run(tmp_path / "broken", stream=stream).train()

    measured = ("epoch", "step", "train_loss", "train_accuracy", "test_loss", "test_accuracy")
    rows = [
        [
            {key: json.loads(line)[key] for key in measured}
            for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        ]
        for name in ("whole", "broken")
    ]
    assert rows[0] == rows[1]


def test_epochs_are_evaluated_as_the_recipe_says_and_at_the_end(tmp_path):
    run, _ = tiny_run(tmp_path / "run", epochs=3, overrides=["evaluation.every_epochs=2"])
    run.train()

    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert ["test_accuracy" in json.loads(line) for line in lines] == [False, True, True]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_training_loss_is_a_mean_over_images_under_any_reduction(tmp_path, reduction):
    overrides = [f'loss.reduction="{reduction}"', "optimizer.lr=1e-12"]
    run, _ = tiny_run(tmp_path / "run", epochs=1, overrides=overrides)
    seen = []
    run.train(on_progress=seen.append)
    losses = [progress.loss for progress in seen if progress.row is None]

    # The rate is next to nothing: every batch sees the untrained net, whose loss is near log 10.
    assert losses == pytest.approx([losses[0]] * len(losses), rel=0.2)
    assert losses[0] < 10.0


def test_frameworks_see_the_same_data(tmp_path):
    runs = [
        tiny_run(tmp_path / framework, framework=framework, epochs=1)[0]
        for framework in ("torch", "keras")
    ]
    for run in runs:
        run.train()

    records = [json.loads((run.folder / "run.json").read_text()) for run in runs]

    assert records[0]["stream_digest"] == records[1]["stream_digest"]
    assert len(records[0]["stream_digest"]) == 64


def test_resume_refuses_another_environment_and_lists_it(tmp_path):
    run, stream = tiny_run(tmp_path / "run")
    with pytest.raises(StopAt.KilledError):
        run.train(on_progress=StopAt(5))
    path = tmp_path / "run" / "run.json"
    record = json.loads(path.read_text())
    record["identity"]["versions"]["numpy"] = "0.0.1"
    path.write_text(json.dumps(record))

    with pytest.raises(RunError, match=r"versions\.numpy was '0\.0\.1'"):
        resume_run(tmp_path / "run", stream=stream)


def test_resume_refuses_a_finished_run(tmp_path):
    run, stream = tiny_run(tmp_path / "run", epochs=1)
    run.train()

    with pytest.raises(RunError, match="it has finished"):
        resume_run(tmp_path / "run", stream=stream)


def test_resume_refuses_a_damaged_checkpoint(tmp_path):
    run, stream = tiny_run(tmp_path / "run")
    with pytest.raises(StopAt.KilledError):
        run.train(on_progress=StopAt(5))
    path = tmp_path / "run" / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-7])

    with pytest.raises(RunError, match="damaged"):
        resume_run(tmp_path / "run", stream=stream)


@pytest.mark.parametrize(
    "position", [{}, {"step": 1, "slot_names": None}, [], None], ids=["keys", "types", "list", "no"]
)
def test_resume_refuses_a_checkpoint_that_another_program_wrote(tmp_path, position):
    run, stream = tiny_run(tmp_path / "run")
    with pytest.raises(StopAt.KilledError):
        run.train(on_progress=StopAt(5))
    metadata = None if position is None else {"position": json.dumps(position)}
    content = save({"state/a": np.zeros(1)}, metadata=metadata)
    (tmp_path / "run" / "checkpoint.safetensors").write_bytes(content)

    with pytest.raises(RunError, match="it is damaged"):
        resume_run(tmp_path / "run", stream=stream)


@pytest.mark.parametrize("changed", ["checkpoint", "record"])
def test_resume_refuses_a_checkpoint_of_another_run(tmp_path, changed):
    folders = [tmp_path / name for name in ("first", "second")]
    for folder, lr in zip(folders, ("0.1", "0.2"), strict=True):
        run, stream = tiny_run(folder, overrides=[f"optimizer.lr={lr}"])
        with pytest.raises(StopAt.KilledError):
            run.train(on_progress=StopAt(5))
    name = {"checkpoint": "checkpoint.safetensors", "record": "run.json"}[changed]
    (folders[0] / name).write_bytes((folders[1] / name).read_bytes())

    with pytest.raises(RunError, match=r"not of one run: recipe\.optimizer\.lr was 0\.[12]"):
        resume_run(folders[0], stream=stream)


def test_resume_refuses_a_checkpoint_whose_arrays_were_changed(tmp_path):
    run, stream = tiny_run(tmp_path / "run")
    with pytest.raises(StopAt.KilledError):
        run.train(on_progress=StopAt(5))
    path = tmp_path / "run" / "checkpoint.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)

    with pytest.raises(RunError, match="not those that were written"):
        resume_run(tmp_path / "run", stream=stream)


def test_resume_refuses_a_run_whose_checkpoint_is_gone(tmp_path):
    run, stream = tiny_run(tmp_path / "run")
    with pytest.raises(StopAt.KilledError):
        run.train(on_progress=StopAt(5))
    (tmp_path / "run" / "checkpoint.safetensors").unlink()

    with pytest.raises(RunError, match="it is missing"):
        resume_run(tmp_path / "run", stream=stream)


def test_a_run_folder_has_one_writer(tmp_path):
    run, stream = tiny_run(tmp_path / "run")
    with pytest.raises(RunError, match="another process trains"):
        resume_run(tmp_path / "run", stream=stream)
    run.train()

    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "finished"


def test_a_resumed_run_counts_its_batches_on(tmp_path):
    run, stream = tiny_run(tmp_path / "run")
    with pytest.raises(StopAt.KilledError):
        run.train(on_progress=StopAt(5))
    resumed = resume_run(tmp_path / "run", stream=stream)
    resumed.train()

    state = torch.load(resumed.weights_path, weights_only=True)
    counts = {int(value) for name, value in state.items() if name.endswith("num_batches_tracked")}
    assert counts == {resumed.steps}


def test_files_of_a_run_are_as_readable_as_others(tmp_path):
    run, _ = tiny_run(tmp_path / "run", epochs=1)
    run.train()
    (tmp_path / "other").write_text("")

    modes = {path.stat().st_mode for path in (tmp_path / "run").iterdir()}
    assert modes == {(tmp_path / "other").stat().st_mode}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"identity": {}}, r"11 keys missing \(identity\.recipe, "),
        ({"identity": None}, r"identity must be a table; got None"),
        ({"status": "done"}, r"status must be one of running, "),
        ({"format": 99}, r"format must be 1; got 99"),
    ],
)
def test_resume_refuses_a_record_that_was_edited(tmp_path, changes, expected):
    run, stream = tiny_run(tmp_path / "run")
    with pytest.raises(StopAt.KilledError):
        run.train(on_progress=StopAt(5))
    path = tmp_path / "run" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    with pytest.raises(RunError, match=expected):
        resume_run(tmp_path / "run", stream=stream)


def test_a_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(RunError, match=r"holds 'notes\.txt'"):
        tiny_run(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_under_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(RunError, match="cannot be created"):
        tiny_run(tmp_path / "file" / "run")


def test_checkpoints_read_back_to_the_same_arrays(tmp_path):
    run, _ = tiny_run(tmp_path / "run", epochs=1)
    run.train()

    checkpoint = read_checkpoint(tmp_path / "run")

    assert state_digest(checkpoint.state) == state_digest(run.net.state())
    assert checkpoint.step == run.steps


def test_changes_are_named_by_their_dotted_key():
    recipe = resolve("best_sgd", data="digits", model=None, epochs=None, overrides=None)
    other = dataclasses.replace(recipe, epochs=7)

    assert describe_changes(recipe.to_table(), other.to_table()) == ["epochs was 30, is 7"]


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_a_process_killed_at_a_random_moment_resumes_to_the_same_bits(tmp_path, framework):
    seconds = run_whole(framework, tmp_path / "whole")

    outcomes = [
        repeat_killed(
            framework, tmp_path / f"{seed}", whole=tmp_path / "whole", seconds=seconds, seed=seed
        )
        for seed in (0, 1)
    ]

    assert outcomes == [True, True]
