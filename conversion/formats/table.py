"""The table of checkpoint formats; adding a format is one file beside this one and one row here."""

from pathlib import Path

from conversion.formats import keras_archive, keras_weights, safetensors, torch_pickle
from conversion.formats.format import Format
from parity.errors import ConversionError

# File name ending -> format.
FORMATS: dict[str, Format] = {
    suffix: module.FORMAT
    for module in (torch_pickle, safetensors, keras_weights, keras_archive)
    for suffix in module.FORMAT.suffixes
}


def find_format(path: Path) -> Format:
    """Return the format of a file by the ending of its name.

    Raises:
        ConversionError: If the ending belongs to no format.
    """
    for suffix, checkpoint_format in FORMATS.items():
        if path.name.lower().endswith(suffix):
            return checkpoint_format
    message = f"{path}: expected a name that ends in {', '.join(FORMATS)}; got {path.name!r}."
    raise ConversionError(message)
