"""The progress bar of a training: a live bar on a terminal, silence elsewhere."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from parity.lockstep.training import Progress as TrainingProgress


@contextlib.contextmanager
def training_bar(label: str) -> Iterator[Callable[[TrainingProgress], None]]:
    """Yield a function that shows where a training stands."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _progress: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(label, total=None, figures="")

        def show(progress: TrainingProgress) -> None:
            bar.update(
                task,
                total=progress.steps,
                completed=progress.step,
                figures=describe_figures(progress),
            )

        yield show


def describe_figures(progress: TrainingProgress) -> str:
    """Return the figures beside the bar."""
    return (
        f"epoch {progress.epoch}  loss {progress.loss:.3f}  "
        f"accuracy {progress.accuracy:.1%}  {progress.images_per_second:,.0f} images/s"
    )
