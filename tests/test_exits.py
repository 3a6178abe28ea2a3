"""An exception becomes one line and an exit code; a defect of the toolkit keeps its traceback."""

import pytest
import typer

from parity import exits
from parity.errors import DivergenceError, ParityError


def app_that(act, *, no_args_is_help=False):
    app = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        no_args_is_help=no_args_is_help,
    )

    @app.command()
    def first(count: int = 1):
        return act()

    @app.command()
    def second():
        return None

    return app


def raising(error):
    def act():
        raise error

    return act


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ParityError("x.toml: expected TOML."), 2, "error: x.toml: expected TOML."),
        (ParityError("two\n  lines"), 2, "error: two lines"),
        (DivergenceError("head.bias: 1 of 4 differ."), 1, "different: head.bias: 1 of 4 differ."),
        (KeyboardInterrupt(), 130, "interrupted"),
        (typer.Abort(), 130, "interrupted"),
    ],
    ids=["bad input", "several lines", "difference", "interrupt", "abort"],
)
def test_error_is_one_line_and_a_code(capsys, error, code, line):
    outcome = exits.run_app(app_that(raising(error)), ["first"], prog_name="tool")

    assert outcome == code
    assert capsys.readouterr() == ("", f"{line}\n")


@pytest.mark.parametrize(
    ("arguments", "described", "command"),
    [
        (["third"], "third", "tool"),
        (["first", "--count", "many"], "Invalid value for '--count'", "tool first"),
        (["first", "--cuont", "2"], "No such option", "tool first"),
    ],
    ids=["command", "value", "option"],
)
def test_wrong_usage_is_one_line_that_names_the_help(capsys, arguments, described, command):
    outcome = exits.run_app(app_that(lambda: None), arguments, prog_name="tool")

    out, err = capsys.readouterr()
    assert (outcome, out) == (2, "")
    assert err.startswith("error: ")
    assert described in err
    assert err.endswith(f" See {command} --help.\n")
    assert err.count("\n") == 1


def test_command_line_without_arguments_shows_its_help(capsys):
    app = app_that(lambda: None, no_args_is_help=True)

    outcome = exits.run_app(app, [], prog_name="tool")

    assert outcome == 2
    assert capsys.readouterr().err.lstrip().startswith("Usage: tool")


def test_internal_error_keeps_its_traceback(capsys):
    outcome = exits.run_app(app_that(raising(KeyError("lost"))), ["first"], prog_name="tool")

    err = capsys.readouterr().err
    assert outcome == 70
    assert "KeyError: 'lost'" in err
    assert err.endswith("internal error: this is a defect of the toolkit, not of the input.\n")


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1), (3, 3)])
def test_what_a_command_returns_is_its_code(returned, code):
    assert exits.run_app(app_that(lambda: returned), ["first"], prog_name="tool") == code


def test_closed_output_is_no_error(monkeypatch, tmp_path):
    output = (tmp_path / "output").open("w")
    monkeypatch.setattr("sys.stdout", output)

    outcome = exits.run_app(app_that(raising(BrokenPipeError())), ["first"], prog_name="tool")

    assert outcome == 0
