"""Prints how many rows of the register were demonstrated, by what settles them."""

import pytest

from parity.spec.differences import SETTLEMENTS

_ROWS = pytest.StashKey()


def pytest_configure(config):
    config.stash[_ROWS] = []


@pytest.fixture
def demonstrated(request):
    """Rows demonstrated so far; a test adds its own."""
    return request.config.stash[_ROWS]


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash[_ROWS]
    if rows:
        counts = {name: sum(row.settled_by == name for row in rows) for name in SETTLEMENTS}
        listed = ", ".join(f"{count} {name}" for name, count in counts.items())
        terminalreporter.write_line(f"differences demonstrated: {len(rows)} ({listed})")
