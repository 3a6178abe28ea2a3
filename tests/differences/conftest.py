"""Prints how many rows of the register were demonstrated, by what settles them.

A test records its row with `record_property`, which also reaches a summary over several processes.
"""

from parity.spec.differences import SETTLEMENTS


def pytest_terminal_summary(terminalreporter):
    passed = terminalreporter.stats.get("passed", [])
    settled = [
        value for report in passed for name, value in report.user_properties if name == "settled by"
    ]
    if settled:
        listed = ", ".join(f"{settled.count(name)} {name}" for name in SETTLEMENTS)
        terminalreporter.write_line(f"differences demonstrated: {len(settled)} ({listed})")
