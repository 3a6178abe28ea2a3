"""Commands that repeat a record."""

import shlex

from parity.report.commands import render_lockstep_command, render_train_command
from parity.report.series import group_series


def test_train_command_loops_over_the_seeds(load_run):
    recipe = {"name": "own", "data": "digits"}
    runs = [load_run(framework="keras", seed=seed, recipe=recipe) for seed in (0, 1)]

    (series,) = group_series(runs)

    assert render_train_command(series) == (
        "for seed in 0 1; do python -m parity.train --framework keras --recipe own --data digits "
        '--keras-backend tensorflow --dtype float32 --device cpu --seed "$seed"; done'
    )


def test_train_command_of_one_seed_has_no_loop(load_run):
    (series,) = group_series([load_run(seed=7, recipe={"name": "own", "data": "digits"})])

    assert render_train_command(series) == (
        "python -m parity.train --framework torch --recipe own --data digits "
        "--dtype float32 --device cpu --seed 7"
    )


def test_train_command_of_a_compiled_run_compiles(load_run):
    recipe = {"name": "own", "data": "digits"}
    (series,) = group_series([load_run(recipe=recipe, dtype="mixed_bfloat16", compiled=True)])

    assert render_train_command(series) == (
        "python -m parity.train --framework torch --recipe own --data digits "
        "--dtype mixed_bfloat16 --device cpu --compile --seed 0"
    )


def test_lockstep_command_of_a_compiled_candidate_compiles(load_lockstep):
    record = load_lockstep(
        candidate="keras-tensorflow-compiled", recipe={"name": "own", "data": "digits"}
    )

    assert render_lockstep_command(record) == (
        "parity lockstep --recipe own --data digits --seed 0 --reference torch --candidate keras "
        "--keras-backend tensorflow --steps 2 --resync --dtype float64 --device cpu --compile"
    )


def test_lockstep_command_names_mode_precision_and_fault(load_lockstep):
    record = load_lockstep(injected="bn_epsilon=0.001", recipe={"name": "own", "data": "digits"})

    assert render_lockstep_command(record) == (
        "parity lockstep --recipe own --data digits --seed 0 --reference torch --candidate keras "
        "--keras-backend tensorflow --steps 2 --resync --dtype float64 --device cpu "
        "--inject bn_epsilon=0.001"
    )


def test_lockstep_command_of_two_torch_nets_names_no_backend(load_lockstep):
    record = load_lockstep(candidate="torch", mode="free")

    words = shlex.split(render_lockstep_command(record))

    assert "--free" in words
    assert "--keras-backend" not in words


def test_command_quotes_what_a_shell_would_read(load_lockstep):
    record = load_lockstep(recipe={"name": "a; rm -rf b", "data": "digits"})

    assert "a; rm -rf b" in shlex.split(render_lockstep_command(record))
