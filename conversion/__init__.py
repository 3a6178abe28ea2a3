"""Checkpoints between PyTorch and Keras, value for value; importing it loads no framework."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conversion.convert import convert_checkpoint
    from conversion.report import ConversionReport

__all__ = ["ConversionReport", "convert_checkpoint"]

_HOMES = {
    "ConversionReport": "conversion.report",
    "convert_checkpoint": "conversion.convert",
}


def __getattr__(name: str) -> object:
    """Load a public name on first use."""
    if name not in _HOMES:
        message = f"module 'conversion' has no attribute {name!r}"
        raise AttributeError(message)
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
