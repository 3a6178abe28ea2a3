"""The public test kit: numeric assertions, case tables, Hypothesis strategies and seeded faults.

`parity.testing.strategies` needs hypothesis; the other modules need numpy only.
"""
