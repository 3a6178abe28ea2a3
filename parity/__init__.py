"""Prove that two implementations of a model are the same model.

Importing this package loads no framework: frameworks are reached through `parity.frameworks`,
inside functions, and the public names load what they need when they are first asked for.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# Public name -> the module that holds it.
_PUBLIC = {"compare_models": "parity.compare.models", "Finding": "parity.compare.findings"}
__all__ = ["Finding", "compare_models"]  # `__getattr__` makes them


def __getattr__(name: str) -> Any:  # noqa: ANN401  # whatever is public
    if name not in _PUBLIC:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(importlib.import_module(_PUBLIC[name]), name)
