"""What every test runs under: one thread, no accelerator, deterministic kernels, fixed examples.

Fixtures:
    deterministic_torch (autouse): deterministic algorithms and one thread where torch is loaded. It
        never loads torch itself, so framework-free tests stay fast.

Environment:
    HYPOTHESIS_PROFILE: `dev` (default, 25 examples), `ci` (100, always the same), `ci-backend` (25,
        always the same: jax compiles each shape anew), `deep` (1000).
    KERAS_BACKEND: `tensorflow` (default), `jax` or `torch`; fixed for the whole run.
"""

import contextlib
import importlib.abc
import os
import sys

import hypothesis
import pytest

# Read by the frameworks once, as they load. The bounds were measured on processors: an accelerator
# sums in another order.
for variable, value in {
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "CUDA_VISIBLE_DEVICES": "-1",
    "JAX_PLATFORMS": "cpu",
    "KERAS_BACKEND": "tensorflow",
}.items():
    os.environ.setdefault(variable, value)

hypothesis.settings.register_profile("dev", max_examples=25, deadline=None)
hypothesis.settings.register_profile(
    "ci", max_examples=100, deadline=None, derandomize=True, print_blob=True
)
hypothesis.settings.register_profile(
    "ci-backend", max_examples=25, deadline=None, derandomize=True, print_blob=True
)
hypothesis.settings.register_profile("deep", max_examples=1000, deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


class TorchFirst(importlib.abc.MetaPathFinder):
    """Loads torch where a test asks for tensorflow first, in the toolkit's own order."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname == "tensorflow" and "torch" not in sys.modules:
            with contextlib.suppress(ImportError):
                importlib.import_module("torch")


sys.meta_path.insert(0, TorchFirst())


@pytest.fixture(autouse=True)
def deterministic_torch():
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.use_deterministic_algorithms(mode=True)
        torch.set_num_threads(1)
