"""Prove that two implementations of a model are the same model.

Importing this package loads no framework: frameworks are reached through `parity.frameworks`,
inside functions.
"""

__version__ = "0.1.0"
