"""Layer paths: dotted in PyTorch and everywhere a user looks, dashed in Keras layer names.

Keras on torch refuses dots in layer names, on tensorflow colons, everywhere slashes; dashes pass on
all three (keras 3.15.1, tensorflow 2.21.0, jax 0.10.2, torch 2.13.0).
"""

import re

from parity.errors import SpecError

_PATH = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")


def keras_name(path: str) -> str:
    """Return the Keras layer name of a layer path; `layer_path` is its inverse.

    >>> keras_name("stages.0.blocks.1.conv2")
    'stages-0-blocks-1-conv2'
    """
    if not _PATH.fullmatch(path):
        message = f"layer path {path!r}: expected letters, digits and underscores joined by dots."
        raise SpecError(message)
    return path.replace(".", "-")


def layer_path(name: str) -> str:
    """Return the layer path of a Keras layer name.

    >>> layer_path("stages-0-blocks-1-conv2")
    'stages.0.blocks.1.conv2'
    """
    path = name.replace("-", ".")
    if "." in name or not _PATH.fullmatch(path):
        message = (
            f"Keras layer name {name!r}: expected letters, digits and underscores joined by dashes."
        )
        raise SpecError(message)
    return path
