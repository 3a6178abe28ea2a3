"""`parity demo`: the product on real data, from training to report, in one command."""

import statistics
from pathlib import Path
from typing import Annotated

import typer

from parity import runtime
from parity.cli import options
from parity.cli.lockstep import LOCKSTEP_FILE, REPORT_FILE, show_record, step_bar
from parity.cli.report import read_folders
from parity.cli.train import carry_out, make_settings
from parity.compare.verdicts import EXIT_CODES
from parity.lockstep.comparison import LockstepSettings, run_lockstep
from parity.lockstep.files import create_folder, write_json
from parity.lockstep.training import start_run
from parity.report.html import write_report

RECIPE = "best_sgd"
FRAMEWORKS = ("torch", "keras")


def demo(
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Trainings of each framework.")] = 3,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of the lockstep.")] = 50,
    data: options.DataOption = "digits",
    out: Annotated[Path | None, typer.Option("--out", help="Folder. [default: runs/demo]")] = None,
) -> int:
    """Train best_sgd in both frameworks from identical weights, run a lockstep, and write one HTML report."""
    root = out or _unused(Path("runs/demo"))
    create_folder(root)
    folders = []
    for seed in range(seeds):
        for framework in FRAMEWORKS:
            folder = root / f"{framework}-seed{seed}"
            _train(framework, seed=seed, data=data, folder=folder)
            folders.append(folder)
    code = _lockstep(data=data, steps=steps, folder=root / "lockstep")
    runs, locksteps = read_folders([*folders, root / "lockstep"])
    page = root / REPORT_FILE
    write_report(page, runs=runs, lockstep=locksteps, command="parity demo")
    for framework in FRAMEWORKS:
        scores = [
            run.result.test_accuracy for run in runs if run.framework == framework and run.result
        ]
        typer.echo(
            f"{framework}: mean test accuracy {statistics.mean(scores):.2%} over {len(scores)} seeds"
        )
    typer.echo(f"lockstep: {locksteps[0].verdict}")
    typer.echo(f"report: {page.resolve()}")
    return code


def _train(framework: str, *, seed: int, data: str, folder: Path) -> None:
    recipe = options.resolve(RECIPE, data=data, model=None, epochs=None, overrides=None)
    settings = make_settings(
        framework, seed=seed, dtype="float32", device="cpu", keras_backend=None
    )
    stream = options.open_stream(recipe, seed=seed, folder=None, download=False)
    carry_out(start_run(recipe, settings, stream=stream, folder=folder))


def _lockstep(*, data: str, steps: int, folder: Path) -> int:
    runtime.select_keras_backend(None)
    recipe = options.resolve(RECIPE, data=data, model=None, epochs=None, overrides=None)
    stream = options.open_stream(recipe, seed=0, folder=None, download=False)
    create_folder(folder)
    with step_bar(steps) as show:
        record = run_lockstep(recipe, LockstepSettings(steps=steps), stream=stream, on_step=show)
    write_json(folder / LOCKSTEP_FILE, record)
    show_record(record)
    return EXIT_CODES[record["verdict"]]


def _unused(folder: Path) -> Path:
    """Return the folder, numbered if it is taken."""
    candidate, count = folder, 1
    while candidate.exists():
        count += 1
        candidate = folder.with_name(f"{folder.name}-{count}")
    return candidate
