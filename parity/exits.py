"""Exit codes of every command, and the one place where an exception becomes one.

0 done or equivalent; 1 diverges, different, not the same function; 2 bad input or usage; 3 vacuous,
inconclusive or not compared; 70 internal error; 130 interrupted. Imports typer and `parity.errors`.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer

from parity.errors import DivergenceError, ParityError

DONE, DIFFERENT, BAD_INPUT, UNDECIDED, INTERNAL, INTERRUPTED = 0, 1, 2, 3, 70, 130

_REPEATABLE = ("--set",)

# The command line's own errors: typer has carried click's classes inside itself since 0.26.
_UsageError: type[Exception] = typer.BadParameter.__mro__[2]


def run_app(app: typer.Typer, arguments: Sequence[str], *, prog_name: str) -> int:
    """Run a command line and return its exit code; an error that a user can cause is one line."""
    repeated = _repeated_option(arguments)
    if repeated:
        message = f"error: {repeated} is given twice. See {prog_name} --help."
        return _fail(message, code=BAD_INPUT)
    try:
        outcome = app(list(arguments), prog_name=prog_name, standalone_mode=False)
    except _UsageError as error:
        return _fail(_describe_usage(error, prog_name=prog_name), code=BAD_INPUT)
    except DivergenceError as error:
        return _fail(f"different: {_one_line(error)}", code=DIFFERENT)
    except ParityError as error:
        return _fail(f"error: {_one_line(error)}", code=BAD_INPUT)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", code=INTERRUPTED)
    except (BrokenPipeError, SystemExit):
        # Whoever read the output has closed it (typer makes an exit of that): nothing more can be
        # said, and that is no error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (OSError, MemoryError) as error:
        return _fail(f"error: {_describe_machine(error)}", code=BAD_INPUT)
    except Exception:  # the outermost handler: anything else is a defect of ours
        traceback.print_exc()
        return _fail(
            "internal error: this is a defect of the toolkit, not of the input.", code=INTERNAL
        )
    if outcome == INTERRUPTED:  # what typer makes of KeyboardInterrupt
        return _fail("interrupted", code=INTERRUPTED)
    return outcome if isinstance(outcome, int) else DONE


def _describe_machine(error: OSError | MemoryError) -> str:
    """Return what the machine could not do: a full disk, a file out of reach, too little memory."""
    if isinstance(error, MemoryError):
        return f"not enough memory. {_one_line(error)}"
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}."


def _repeated_option(arguments: Sequence[str]) -> str | None:
    """Return an option that is there twice, of which only the last would count."""
    seen = set()
    for argument in arguments:
        name = argument.partition("=")[0]
        if name == "--":
            return None
        if name.startswith("--") and name not in _REPEATABLE:
            if name in seen:
                return name
            seen.add(name)
    return None


def _describe_usage(error: Any, *, prog_name: str) -> str:  # noqa: ANN401  # click's class
    text: str = error.format_message()
    if text.lstrip().startswith("Usage:"):
        return text  # the help of a command line that was given no arguments
    context = getattr(error, "ctx", None)
    command = context.command_path if context else prog_name
    return f"error: {_one_line(text)} See {command} --help."


def _one_line(text: object) -> str:
    return " ".join(filter(None, map(str.strip, str(text).splitlines())))


def _fail(message: str, *, code: int) -> int:
    sys.stderr.write(f"{message}\n")
    return code
