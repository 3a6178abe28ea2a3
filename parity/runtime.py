"""What a process is set to: Keras backend, precision, threads, and the record of its environment.

Frameworks are reached inside functions only, and only where they are already needed.
"""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import logging
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from parity.errors import MissingFrameworkError, ParityError, describe_nearest

DTYPES: tuple[str, ...] = ("float32", "float64")
# Arrays are float32; convolutions and products of matrices compute in 16 bits.
MIXED_DTYPES: tuple[str, ...] = ("mixed_bfloat16", "mixed_float16")
TRAINING_DTYPES = (*DTYPES, *MIXED_DTYPES)

# Keras backend -> the extra of this distribution that installs it.
KERAS_BACKENDS: dict[str, str] = {"tensorflow": "keras", "jax": "jax", "torch": "torch"}
_RECORDED_PACKAGES = ("torch", "keras", "tensorflow", "jax", "jaxlib", "numpy", "h5py")


def require_framework(module: str, *, extra: str) -> None:
    """Check that a framework can be imported, without importing it.

    Raises:
        MissingFrameworkError: If it is not installed; names the extra that installs it.
    """
    if module not in sys.modules and importlib.util.find_spec(module) is None:
        message = (
            f"{module} is not installed. Install it with: pip install 'framework-parity[{extra}]'."
        )
        raise MissingFrameworkError(message)


def select_keras_backend(backend: str | None) -> str:
    """Fix the backend of Keras for this process, before Keras is imported, and return its name.

    None keeps the one already fixed, else the environment's `KERAS_BACKEND`, else tensorflow.

    Raises:
        ParityError: If the name is unknown, or Keras was already imported with another backend.
        MissingFrameworkError: If Keras or the backend is not installed.
    """
    imported = sys.modules["keras"].backend.backend() if "keras" in sys.modules else None
    chosen = backend or imported or os.environ.get("KERAS_BACKEND") or "tensorflow"
    if chosen not in KERAS_BACKENDS:
        message = f"Keras backend {chosen!r} not found.{describe_nearest(chosen, KERAS_BACKENDS)}"
        raise ParityError(message)
    if imported not in (None, chosen):
        message = (
            f"Keras backend: {chosen!r} asked for, but this process already runs Keras on "
            f"{imported!r}. A process has one backend: start another."
        )
        raise ParityError(message)
    _require_installed(chosen)
    if imported is None:
        os.environ["KERAS_BACKEND"] = chosen
        _import_keras(chosen)
    return chosen


def require_keras(backend: str | None) -> str:
    """Return the backend that `select_keras_backend` would fix, without loading Keras.

    Raises:
        ParityError: If the name is unknown.
        MissingFrameworkError: If Keras or the backend is not installed.
    """
    chosen = backend or os.environ.get("KERAS_BACKEND") or "tensorflow"
    if chosen not in KERAS_BACKENDS:
        message = f"Keras backend {chosen!r} not found.{describe_nearest(chosen, KERAS_BACKENDS)}"
        raise ParityError(message)
    _require_installed(chosen)
    return chosen


def _require_installed(backend: str) -> None:
    require_framework("keras", extra="keras")
    require_framework(backend, extra=KERAS_BACKENDS[backend])


def require_device(framework: str, device: str) -> None:
    """Check that a device exists, loading the framework.

    Raises:
        ParityError: If the name is unknown or this machine has no such device.
    """
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda", "mps") or not re.fullmatch(r"[0-9]*", index):
        message = f"--device must be cpu, cuda, cuda:N or mps; got {device!r}."
        raise ParityError(message)
    if kind == "cpu" and index in ("", "0"):
        return
    count = _count_devices(framework, kind)
    if int(index or 0) >= count:
        message = f"--device {device!r}: {framework} finds {count} of kind {kind} here. Use cpu."
        raise ParityError(message)


def _count_devices(framework: str, kind: str) -> int:
    backend = "torch" if framework == "torch" else select_keras_backend(None)
    if kind == "cpu":
        return 1
    if backend == "torch":
        torch = importlib.import_module("torch")
        if kind == "mps":
            return int(torch.backends.mps.is_available())
        return int(torch.cuda.device_count())
    if kind == "mps":
        return 0
    if backend == "tensorflow":
        return len(importlib.import_module("tensorflow").config.list_physical_devices("GPU"))
    jax = importlib.import_module("jax")
    return sum(device.platform == "gpu" for device in jax.devices())


def require_compiler(device: str) -> None:
    """Check that torch can compile for a device: on a processor it writes C++.

    Raises:
        ParityError: If there is no C++ compiler.
    """
    # torch 2.13.0, _inductor/config.py, `cpp.cxx`.
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if device.startswith("cpu") and shutil.which(compiler) is None:
        message = (
            f"compiled torch: expected the C++ compiler {compiler!r}; it is not on the path. "
            "Install it (Debian: apt-get install g++), name another in the variable CXX, or leave "
            "--compile out."
        )
        raise ParityError(message)


def array_dtype(dtype: str) -> str:
    """Return the type of the arrays of a net in `dtype`: float32 for mixed precision.

    Raises:
        ParityError: If it is no precision of a net.

    >>> array_dtype("mixed_bfloat16")
    'float32'
    """
    if dtype not in TRAINING_DTYPES:
        message = f"dtype must be one of {', '.join(TRAINING_DTYPES)}; got {dtype!r}."
        raise ParityError(message)
    return "float32" if dtype in MIXED_DTYPES else dtype


def _import_keras(backend: str) -> None:
    # torch and tensorflow both ship OpenMP and protobuf symbols; the tested order is torch first.
    if importlib.util.find_spec("torch") is not None:
        importlib.import_module("torch")
    if backend == "tensorflow":
        _import_tensorflow()
    importlib.import_module("keras")


def _import_tensorflow() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _without_native_messages():
        tensorflow = importlib.import_module("tensorflow")
        # Looks for accelerators here, which the first operation would do (and complain of where
        # there is none); the runtime does not start, so threads can still be set.
        tensorflow.config.list_physical_devices()
    if os.environ.get("OMP_NUM_THREADS", "").isdigit():
        # tensorflow does not read the variable itself; it refuses once its runtime has started.
        with contextlib.suppress(RuntimeError):
            tensorflow.config.threading.set_intra_op_parallelism_threads(thread_count())


@contextlib.contextmanager
def _without_native_messages() -> Iterator[None]:
    """Drop what libraries write to the error stream themselves; Python's own exceptions pass."""
    sys.stderr.flush()
    kept = os.dup(2)
    with Path(os.devnull).open("w", encoding="utf-8") as null:
        os.dup2(null.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextlib.contextmanager
def without_retracing_advice() -> Iterator[None]:
    """Drop tensorflow's warnings that one function is traced often; other messages pass.

    Each net is a function of its own, traced once, but they are counted by their code (tensorflow
    2.21.0, eager/polymorphic_function/polymorphic_function.py, _FrequentTracingDetector).
    """

    def keep(record: logging.LogRecord) -> bool:
        return "triggered tf.function retracing" not in str(record.msg)

    logger = logging.getLogger("tensorflow")
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


@contextlib.contextmanager
def precision(dtype: str) -> Iterator[None]:
    """Run Keras code in `dtype` throughout; torch modules carry their own dtype instead.

    A mixed precision is float32 with the dtype policy of that name.

    Keras must have been imported before the context is entered (`select_keras_backend` imports it,
    and a module that imports Keras itself has): a process without Keras has nothing to set, so
    there the context does nothing, and Keras imported inside it would not be in `dtype`.

    Set and restored are `floatx` and the default dtype policy, which Keras does not derive anew
    once a layer has asked for it; and, with float64, Keras's promotion table, which on jax and
    torch turns float64 into float32 (keras 3.15.1, backend/common/dtypes.py, BIT64_TO_BIT32_DTYPE),
    so that stock batch norm, means and losses would silently compute in float32; and, on jax, its
    64-bit mode.

    Raises:
        ParityError: If the dtype is none of `TRAINING_DTYPES`.
    """
    arrays = array_dtype(dtype)
    if "keras" not in sys.modules:
        yield
        return
    keras = sys.modules["keras"]
    table = importlib.import_module("keras.src.backend.common.dtypes").BIT64_TO_BIT32_DTYPE
    floatx, policy, promoted = keras.config.floatx(), keras.config.dtype_policy(), table["float64"]
    jax = importlib.import_module("jax") if keras.backend.backend() == "jax" else None
    x64 = jax.config.jax_enable_x64 if jax else False
    try:
        keras.config.set_floatx(arrays)
        keras.config.set_dtype_policy(dtype)
        if dtype == "float64":
            table["float64"] = "float64"
        if jax:
            jax.config.update("jax_enable_x64", dtype == "float64")
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)
        table["float64"] = promoted
        if jax:
            jax.config.update("jax_enable_x64", x64)


def use_threads(count: int) -> None:
    """Limit torch and tensorflow to `count` threads an operation.

    Call it before tensorflow's first operation: later calls reach torch only.
    """
    os.environ["OMP_NUM_THREADS"] = str(count)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)
    if "tensorflow" in sys.modules:
        threading = sys.modules["tensorflow"].config.threading
        with contextlib.suppress(RuntimeError):  # tensorflow refuses once its runtime has started
            threading.set_intra_op_parallelism_threads(count)
            threading.set_inter_op_parallelism_threads(count)


def thread_count() -> int:
    """Return how many threads an operation may use.

    `OMP_NUM_THREADS` says it, or else the number of processors of this process.
    """
    setting = os.environ.get("OMP_NUM_THREADS", "")
    return int(setting) if setting.isdigit() else len(os.sched_getaffinity(0))


def package_versions() -> dict[str, str]:
    """Return the installed versions of the frameworks and of what decides their numbers."""
    versions = {"python": platform.python_version()}
    for package in _RECORDED_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def cpu_name() -> str:
    """Return the processor's model name, or its architecture where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def environment() -> dict[str, Any]:
    """Return the record of this process's environment that reports and run folders keep."""
    return {"versions": package_versions(), "cpu": cpu_name(), "threads": thread_count()}
