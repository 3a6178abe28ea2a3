"""Training one net under a recipe, in a run folder from which it can be resumed at any step.

A run folder holds `run.json` (identity, status, result), `metrics.jsonl` (a line an epoch),
`checkpoint.safetensors` and, once finished, the weights in the framework's own format.
"""

import contextlib
import dataclasses
import math
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from parity import runtime
from parity.data.batches import START_DIGEST, BatchStream
from parity.errors import RunError, describe_list
from parity.frameworks.build import build_twin
from parity.frameworks.net import Net
from parity.lockstep.checkpoints import (
    CHECKPOINT_FILE,
    Checkpoint,
    load_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from parity.lockstep.fields import FORMAT, read_run_table
from parity.lockstep.files import (
    METRICS_FILE,
    RUN_FILE,
    lock_folder,
    new_folder,
    replace_file,
    write_json,
    write_lines,
)
from parity.lockstep.loop import (
    StepEvent,
    count_correct,
    evaluate,
    model_spec,
    scored_weights,
    start_state,
    total_steps,
    training_steps,
)
from parity.spec.optimizers import OptimizerForm, SgdKilostep
from parity.spec.recipe import ResolvedRecipe, build_recipe

WEIGHTS_FILES = {"torch": "weights.pt", "keras": "model.weights.h5"}

# A kill loses at most this much work; an epoch's end always writes.
CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What a run is, beside its recipe.

    Attributes:
        seed: Of initial weights, order and augmentation.
        framework: `torch` or `keras`.
        dtype: One of `runtime.TRAINING_DTYPES`.
        compiled: Whether the net's passes are compiled.
        device: As the framework names it.
        keras_backend: Backend of a Keras run; None for torch.
        memory_format: Layout of a torch run's activations; None for Keras.
    """

    seed: int
    framework: str
    dtype: str
    compiled: bool
    device: str
    keras_backend: str | None
    memory_format: str | None


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a training stands, for whoever shows it.

    Attributes:
        step: Steps made.
        steps: Steps of the whole training.
        epoch: 1-based epoch in progress; the last one may end early.
        loss: Mean loss over the epoch so far.
        accuracy: Training accuracy over the epoch so far.
        images_per_second: Over this process's steps of the epoch.
        row: The epoch's metrics, when it has just ended.
    """

    step: int
    steps: int
    epoch: int
    loss: float
    accuracy: float
    images_per_second: float
    row: dict[str, Any] | None = None


@dataclass
class _Epoch:
    """Sums over the epoch in progress."""

    loss: float = 0.0
    correct: float = 0.0
    images: float = 0.0
    seconds: float = 0.0

    def add(self, event: StepEvent, seconds: float, *, reduction: str) -> None:
        count = len(event.batch.labels)
        self.loss += event.records[0].loss * (count if reduction == "mean" else 1)
        self.correct += count_correct(event.records[0].logits, event.batch)
        self.images += count
        self.seconds += seconds


def run_identity(recipe: ResolvedRecipe, settings: RunSettings) -> dict[str, Any]:
    """Return what makes a run the run it is; a resumed run must have the same."""
    return {
        "recipe": recipe.to_table(),
        **dataclasses.asdict(settings),
        "threads": runtime.thread_count(),
        "versions": runtime.package_versions(),
        "cpu": runtime.cpu_name(),
    }


class TrainingRun:
    """One training with its folder, made by `start_run` or `resume_run`."""

    def __init__(
        self,
        recipe: ResolvedRecipe,
        settings: RunSettings,
        *,
        stream: BatchStream,
        folder: Path,
        checkpoint: Checkpoint | None,
    ) -> None:
        self.recipe = recipe
        self.settings = settings
        self.folder = folder
        self._stream = stream
        self._spec = model_spec(recipe, stream)
        self.net: Net = build_twin(
            settings.framework,
            self._spec,
            loss=recipe.loss,
            update=recipe.update,
            dtype=settings.dtype,
            memory_format=settings.memory_format,
            device=settings.device,
            keras_backend=settings.keras_backend,
            compiled=settings.compiled,
        )
        self._unlock = weakref.finalize(self, os.close, lock_folder(folder))
        self._step, self._digest, self._seconds = 0, START_DIGEST, 0.0
        self._rows: list[dict[str, Any]] = []
        self._epoch = _Epoch()
        if checkpoint is None:
            self.net.load_state(start_state(self._spec, stream))
        else:
            self._restore(checkpoint)

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return total_steps(self.recipe, self._stream)

    @property
    def step(self) -> int:
        """Steps made so far."""
        return self._step

    @property
    def weights_path(self) -> Path:
        """Where the finished weights lie."""
        return self.folder / WEIGHTS_FILES[self.settings.framework]

    def train(
        self, *, on_progress: Callable[[Progress], None] = lambda _progress: None
    ) -> dict[str, Any]:
        """Train to the end and return the run's result; an interrupted run can be resumed."""
        try:
            with _deferred_interrupt() as interrupt:
                self.begin()
                self._train(on_progress, interrupt)
            return self._finish()
        finally:
            self._unlock()

    def _finish(self) -> dict[str, Any]:
        result = self._result()
        with scored_weights(self.net, self.recipe.averaging):
            replace_file(self.weights_path, self.net.save_weights)
        self._write_record("finished", result)
        return result

    def begin(self) -> None:
        """Write the record of a running training."""
        self._write_record("running", None)

    def _train(self, on_progress: Callable[[Progress], None], interrupt: threading.Event) -> None:
        saved = started = time.perf_counter()
        events = training_steps(
            [self.net],
            self._stream,
            recipes=[self.recipe],
            start=self._step,
            stop=self.steps,
            digest=self._digest,
        )
        for event in events:
            now = time.perf_counter()
            self._epoch.add(event, now - started, reduction=self.recipe.loss.reduction)
            self._step, self._digest = event.step + 1, event.digest
            started = now
            on_progress(self._progress())
            if self._step % self._stream.steps_per_epoch == 0 or self._step == self.steps:
                self._end_epoch(event)
                on_progress(self._progress(row=self._rows[-1]))
                saved = started = time.perf_counter()
            elif now - saved > CHECKPOINT_SECONDS:
                self._save()
                saved = started = time.perf_counter()
            if interrupt.is_set():
                self._save()
                self._write_record("interrupted", None)
                raise KeyboardInterrupt

    def _end_epoch(self, event: StepEvent) -> None:
        epoch = self._epoch_number()
        row: dict[str, Any] = {
            "epoch": epoch,
            "step": self._step,
            "rate": event.rates[0],
            "train_loss": self._epoch.loss / self._epoch.images,
            "train_accuracy": self._epoch.correct / self._epoch.images,
        }
        if epoch % self.recipe.evaluation.every_epochs == 0 or self._step == self.steps:
            with scored_weights(self.net, self.recipe.averaging):
                score = evaluate(self.net, self._stream)
            row |= {"test_loss": score.loss, "test_accuracy": score.accuracy}
            if score.plain_accuracy is not None:
                row["test_accuracy_plain"] = score.plain_accuracy
        row |= {
            "seconds": self._epoch.seconds,
            "images_per_second": self._epoch.images / self._epoch.seconds,
        }
        if not np.isfinite(row["train_loss"]):
            self._write_record("interrupted", None)
            message = (
                f"{self.folder}: the training loss is not finite after epoch {epoch}: the training "
                f"has diverged. Try a smaller {_describe_rate(self.recipe.optimizer)}."
            )
            raise RunError(message)
        self._seconds += self._epoch.seconds
        self._rows.append(row)
        self._epoch = _Epoch()
        self._save()
        write_lines(self.folder / METRICS_FILE, self._rows)

    def _epoch_number(self) -> int:
        """Return the 1-based epoch of the last step made."""
        return math.ceil(self._step / self._stream.steps_per_epoch)

    def _progress(self, row: dict[str, Any] | None = None) -> Progress:
        images = max(self._epoch.images, 1.0)
        return Progress(
            step=self._step,
            steps=self.steps,
            epoch=self._epoch_number(),
            loss=self._epoch.loss / images,
            accuracy=self._epoch.correct / images,
            images_per_second=self._epoch.images / max(self._epoch.seconds, 1e-9),
            row=row,
        )

    def _save(self) -> None:
        checkpoint = Checkpoint(
            identity=run_identity(self.recipe, self.settings),
            step=self._step,
            digest=self._digest,
            state=self.net.state(),
            optimizer_state=self.net.optimizer_state(),
            rows=self._rows,
            partial=dataclasses.asdict(self._epoch),
            seconds=self._seconds,
        )
        write_checkpoint(self.folder, checkpoint)

    def _restore(self, checkpoint: Checkpoint) -> None:
        load_checkpoint(self.net, checkpoint)
        self._step, self._digest = checkpoint.step, checkpoint.digest
        self._rows, self._seconds = list(checkpoint.rows), checkpoint.seconds
        self._epoch = _Epoch(**checkpoint.partial)
        write_lines(self.folder / METRICS_FILE, self._rows)

    def _result(self) -> dict[str, Any]:
        last = self._rows[-1]
        measured = {key: last[key] for key in last if key.startswith(("train_", "test_"))}
        return {**measured, "seconds": self._seconds, "steps": self._step}

    def _write_record(self, status: str, result: dict[str, Any] | None) -> None:
        slots = self._spec.slots().values()
        record = {
            "format": FORMAT,
            "identity": run_identity(self.recipe, self.settings),
            "status": status,
            "stream_digest": self._digest,
            "parameters": int(
                sum(np.prod(slot.shape) for slot in slots if slot.role == "parameter")
            ),
            "model_spec": dataclasses.asdict(self._spec),
            "result": result,
        }
        write_json(self.folder / RUN_FILE, record)


def _describe_rate(form: OptimizerForm) -> str:
    if isinstance(form, SgdKilostep):
        return f"optimizer.lr_per_kilostep than {form.lr_per_kilostep}"
    return f"optimizer.lr than {form.lr}"


@contextlib.contextmanager
def _deferred_interrupt() -> Iterator[threading.Event]:
    """Let the first Ctrl-C set an event, so that a step ends whole; the second one interrupts."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handle(number: int, frame: object) -> None:
        del number, frame
        event.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)


def start_run(
    recipe: ResolvedRecipe, settings: RunSettings, *, stream: BatchStream, folder: Path
) -> TrainingRun:
    """Return a new run in a new or empty folder, which holds its record from here on."""
    model_spec(recipe, stream)  # a wrong model is refused before the folder is made
    with new_folder(folder):
        run = TrainingRun(recipe, settings, stream=stream, folder=folder, checkpoint=None)
        run.begin()
    return run


def read_identity(folder: Path) -> tuple[ResolvedRecipe, RunSettings]:
    """Return recipe and settings of a stored run.

    Raises:
        RunError: If the folder holds no run, or a damaged one or one of another format.
    """
    record = read_run_table(folder / RUN_FILE)
    identity = record["identity"]
    recipe = build_recipe(identity["recipe"], where=str(folder / RUN_FILE))
    fields = [field.name for field in dataclasses.fields(RunSettings)]
    return recipe, RunSettings(**{name: identity[name] for name in fields})


def resume_run(folder: Path, *, stream: BatchStream) -> TrainingRun:
    """Return the run in `folder`, to go on where its checkpoint stands.

    Raises:
        RunError: If the folder holds no unfinished run, or this process would not continue it to
            the same bits (another version, processor or number of threads); all are listed.
    """
    recipe, settings = read_identity(folder)
    record = read_run_table(folder / RUN_FILE)
    if record["status"] == "finished":
        steps = record["result"]["steps"]
        message = f"{folder}: expected an unfinished run; it has finished all {steps} steps."
        raise RunError(message)
    present = run_identity(recipe, settings)
    changed = describe_changes(record["identity"], present)
    if changed:
        message = (
            f"{folder}: cannot resume to the same bits: {describe_list(changed)}. "
            "Restore these or start a new run."
        )
        raise RunError(message)
    checkpoint = _find_checkpoint(folder, record["identity"])
    return TrainingRun(recipe, settings, stream=stream, folder=folder, checkpoint=checkpoint)


def _find_checkpoint(folder: Path, identity: Mapping[str, Any]) -> Checkpoint | None:
    """Return the checkpoint of the run in `folder`; None for a run killed before its first one."""
    if not (folder / CHECKPOINT_FILE).exists():
        if not (folder / METRICS_FILE).exists():
            return None
        message = (
            f"{folder / CHECKPOINT_FILE}: expected the checkpoint of a run that has finished "
            "epochs; it is missing. Put it back, or start a new run."
        )
        raise RunError(message)
    checkpoint = read_checkpoint(folder)
    changed = describe_changes(checkpoint.identity, dict(identity))
    if changed:
        message = (
            f"{folder}: {RUN_FILE} and {CHECKPOINT_FILE} are not of one run: "
            f"{describe_list(changed)}. Put back the file that belongs here, or start a new run."
        )
        raise RunError(message)
    return checkpoint


def describe_changes(stored: Any, present: Any, *, where: str = "") -> list[str]:  # noqa: ANN401  # JSON values
    """Return `key: stored x, present y` for every leaf that differs between two nested tables.

    >>> describe_changes({"a": {"b": 1}}, {"a": {"b": 2}})
    ['a.b was 1, is 2']
    """
    if isinstance(stored, dict) and isinstance(present, dict):
        keys = [*stored, *(key for key in present if key not in stored)]
        changes = []
        for key in keys:
            changes += describe_changes(
                stored.get(key), present.get(key), where=f"{where}.{key}" if where else str(key)
            )
        return changes
    if isinstance(stored, list | tuple) and isinstance(present, list | tuple):
        stored, present = list(stored), list(present)
    return [] if stored == present else [f"{where} was {stored!r}, is {present!r}"]
