"""`parity demo`: the product on real data, from training to report, in one command."""

import statistics
from pathlib import Path
from typing import Annotated

import typer

from parity.cli import options
from parity.cli.lockstep import REPORT_FILE, show_record, step_bar
from parity.cli.report import read_folders
from parity.cli.train import carry_out, make_settings
from parity.compare.verdicts import EXIT_CODES
from parity.frameworks.build import FRAMEWORKS
from parity.lockstep.comparison import run_lockstep
from parity.lockstep.files import LOCKSTEP_FILE, create_folder, write_json
from parity.lockstep.pair import LockstepSettings
from parity.lockstep.training import start_run
from parity.report.html import write_report

RECIPE = "best_sgd"


def demo(
    *,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Trainings a framework.")] = 3,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of the lockstep.")] = 50,
    data: options.DataOption = "digits",
    out: Annotated[Path | None, typer.Option("--out", help="[default: runs/demo]")] = None,
) -> int:
    """Train best_sgd in both frameworks, run a lockstep, and write one HTML report."""
    options.require_frameworks(*FRAMEWORKS, keras_backend=None)
    root = out or options.unused_folder(Path("runs/demo"))
    create_folder(root)
    folders = []
    for seed in range(seeds):
        for framework in FRAMEWORKS:
            folders.append(root / f"{framework}-seed{seed}")
            _train(framework, seed=seed, data=data, folder=folders[-1])
    code = _lockstep(data=data, steps=steps, folder=root / "lockstep")
    runs, locksteps = read_folders([*folders, root / "lockstep"])
    page = root / REPORT_FILE
    write_report(page, runs=runs, lockstep=locksteps, command=options.command_line())
    for framework in FRAMEWORKS:
        scores = [r.result.test_accuracy for r in runs if r.framework == framework and r.result]
        mean = statistics.mean(scores)
        typer.echo(f"{framework}: mean test accuracy {mean:.2%} over {len(scores)} seeds")
    typer.echo(f"lockstep: {locksteps[0].verdict}")
    typer.echo(f"report: {page.resolve()}")
    return code


def _train(framework: str, *, seed: int, data: str, folder: Path) -> None:
    recipe = options.resolve(RECIPE, data=data, model=None, epochs=None, overrides=None)
    stream = options.open_stream(recipe, seed=seed, folder=None, download=False)
    settings = make_settings(framework, recipe=recipe, stream=stream)
    carry_out(start_run(recipe, settings, stream=stream, folder=folder))


def _lockstep(*, data: str, steps: int, folder: Path) -> int:
    recipe = options.resolve(RECIPE, data=data, model=None, epochs=None, overrides=None)
    stream = options.open_stream(recipe, seed=0, folder=None, download=False)
    create_folder(folder)
    with step_bar(steps) as show:
        record = run_lockstep(recipe, LockstepSettings(steps=steps), stream=stream, on_step=show)
    write_json(folder / LOCKSTEP_FILE, record)
    show_record(record)
    return EXIT_CODES[record["verdict"]]
