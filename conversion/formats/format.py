"""What a checkpoint format is: its suffixes, and how a file becomes a state and a state a file.

Reading never runs code that a file brings along.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from conversion.states import State, StoredState
from parity.spec.model_spec import ModelSpec

Framework = Literal["torch", "keras"]


@dataclass(frozen=True, kw_only=True)
class Format:
    """One checkpoint format.

    Attributes:
        name: What messages call it.
        suffixes: Endings of its file names.
        framework: Whose names, layouts and default conventions its files follow.
        read: Returns what a file holds; `ConversionError` if it is not of this format.
        encode: Returns the bytes of a file that holds a state.
    """

    name: str
    suffixes: tuple[str, ...]
    framework: Framework
    read: Callable[[Path], StoredState]
    encode: Callable[[State, ModelSpec], bytes]
