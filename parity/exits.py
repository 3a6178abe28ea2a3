"""Exit codes of every command, and the one place where an exception becomes one. Imports typer and
`parity.errors`.

0 done or equivalent; 1 diverges, different, not the same function; 2 bad input or usage; 3 vacuous,
inconclusive or not compared; 70 internal error; 130 interrupted.
"""

import os
import sys
import traceback
from collections.abc import Sequence

import typer

from parity.errors import DivergenceError, ParityError

DONE, DIFFERENT, BAD_INPUT, UNDECIDED, INTERNAL, INTERRUPTED = 0, 1, 2, 3, 70, 130

# The command line's own errors: typer has carried click's classes inside itself since 0.26.
_UsageError: type[Exception] = typer.BadParameter.__mro__[2]


def run_app(app: typer.Typer, arguments: Sequence[str], *, prog_name: str) -> int:
    """Run a command line and return its exit code; an error that a user can cause is one line."""
    try:
        code = app(list(arguments), prog_name=prog_name, standalone_mode=False)
    except _UsageError as error:
        error.show()  # type: ignore[attr-defined]  # click's method
        return BAD_INPUT
    except DivergenceError as error:
        sys.stderr.write(f"different: {error}\n")
        return DIFFERENT
    except ParityError as error:
        sys.stderr.write(f"error: {error}\n")
        return BAD_INPUT
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has closed it: nothing more can be said, and that is no error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception:  # the outermost handler: anything else is a defect of ours
        traceback.print_exc()
        sys.stderr.write("internal error: this is a defect of the toolkit, not of the input.\n")
        return INTERNAL
    return code if isinstance(code, int) else DONE
