"""Models named on a command line: `module:callable`, or a `.keras` file."""

import contextlib
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from parity import runtime
from parity.errors import CaptureError, MissingFrameworkError, describe_nearest


def load_model(name: str) -> object:
    """Return the model that a name stands for.

    `module:callable` imports the module (the current folder included) and calls the callable with
    no arguments; a model that is an attribute itself is taken as it is. A `.keras` file is read
    with Keras's safe mode on, which refuses code.

    Raises:
        CaptureError: If there is no such module, attribute or file, or it gives no model.
    """
    if name.endswith(".keras"):
        return _load_archive(Path(name))
    module_name, separator, attribute = name.partition(":")
    if not separator or not module_name or not attribute:
        message = f"model {name!r}: expected module:callable or a .keras file."
        raise CaptureError(message)
    made = _find(module_name, attribute)
    if isinstance(made, type) or not _is_model(made):
        if not callable(made):
            message = f"model {name!r}: expected a callable or a model; got {type(made).__name__}."
            raise CaptureError(message)
        made = made()
    return made


def _is_model(made: object) -> bool:
    torch, keras = sys.modules.get("torch"), sys.modules.get("keras")
    return bool(
        (torch and isinstance(made, torch.nn.Module)) or (keras and isinstance(made, keras.Layer))
    )


def _find(module_name: str, attribute: str) -> Any:  # noqa: ANN401  # the user's own
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, folder)
    _load_keras_for(module_name)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        message = f"model {module_name}:{attribute}: no module {error.name!r} in {Path.cwd()}."
        raise CaptureError(message) from error
    if not hasattr(module, attribute):
        names = [name for name in vars(module) if not name.startswith("_")]
        message = f"module {module_name}: no {attribute!r}.{describe_nearest(attribute, names)}"
        raise CaptureError(message)
    return getattr(module, attribute)


def _load_keras_for(module_name: str) -> None:
    """Load Keras as the toolkit does, torch first and tensorflow silently, if a module will."""
    try:
        spec = importlib.util.find_spec(module_name)
    except (ImportError, ValueError):
        return  # the import itself says what is wrong
    origin = Path(spec.origin) if spec and spec.origin else None
    if origin and origin.suffix == ".py" and "keras" in origin.read_text(encoding="utf-8"):
        with contextlib.suppress(MissingFrameworkError):
            runtime.select_keras_backend(None)


def _load_archive(path: Path) -> object:
    if not path.is_file():
        message = f"model {path}: no such file."
        raise CaptureError(message)
    runtime.select_keras_backend(None)
    keras = importlib.import_module("keras")
    try:
        model: object = keras.models.load_model(path, compile=False, safe_mode=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        message = f"model {path}: Keras cannot read it: {str(error).splitlines()[0]}"
        raise CaptureError(message) from error
    return model
