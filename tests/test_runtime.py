import importlib
import logging
import os
import subprocess
import sys

import pytest

from parity import runtime
from parity.errors import MissingFrameworkError, ParityError


def run_python(code, **environment):
    """Return the outcome of `code` in a process of its own, where no framework is loaded yet."""
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )


def test_framework_that_is_not_installed_is_named_with_its_extra():
    with pytest.raises(MissingFrameworkError, match=r"no_such_module .*framework-parity\[torch\]"):
        runtime.require_framework("no_such_module", extra="torch")


def test_native_messages_are_dropped_and_the_stream_is_restored(capfd):
    with runtime._without_native_messages():
        os.write(2, b"native\n")
    os.write(2, b"after\n")

    assert capfd.readouterr().err == "after\n"


def test_exception_behind_dropped_messages_surfaces(capfd):
    with pytest.raises(ZeroDivisionError), runtime._without_native_messages():
        _ = 1 / 0
    os.write(2, b"after\n")

    assert capfd.readouterr().err == "after\n"


@pytest.mark.parametrize("dtype", ["float16", "double"])
def test_precision_refuses_another_dtype(dtype):
    with (
        pytest.raises(ParityError, match=f"mixed_float16; got '{dtype}'"),
        runtime.precision(dtype),
    ):
        pass


def test_unknown_keras_backend_offers_the_nearest():
    with pytest.raises(ParityError, match=r"'tensorflaw' not found\. Nearest: tensorflow\."):
        runtime.select_keras_backend("tensorflaw")


@pytest.mark.parametrize(("setting", "count"), [("3", 3), ("", len(os.sched_getaffinity(0)))])
def test_thread_count_follows_the_environment(monkeypatch, setting, count):
    monkeypatch.setenv("OMP_NUM_THREADS", setting)

    assert runtime.thread_count() == count


@pytest.mark.slow
def test_tensorflow_starts_silently_with_the_threads_of_the_environment():
    code = """
from parity import runtime
runtime.select_keras_backend("tensorflow")
import tensorflow
tensorflow.constant(0.0)
print(tensorflow.config.threading.get_intra_op_parallelism_threads())
"""
    outcome = run_python(code, OMP_NUM_THREADS="2", TF_CPP_MIN_LOG_LEVEL="2")

    assert outcome.stdout == "2\n"
    assert outcome.stderr == ""


@pytest.mark.slow
def test_threads_of_tensorflow_can_be_set_after_its_import():
    code = """
from parity import runtime
runtime.select_keras_backend("tensorflow")
runtime.use_threads(3)
import tensorflow
tensorflow.constant(0.0)
print(tensorflow.config.threading.get_intra_op_parallelism_threads())
"""

    assert run_python(code).stdout == "3\n"


class Recorder(logging.Handler):
    def __init__(self):
        super().__init__()
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


def trace_often(make):
    """Trace new functions of one code, as those of many nets are; tensorflow warns at the fifth."""
    tensorflow = importlib.import_module("tensorflow")
    for _ in range(6):
        tensorflow.function(make())(tensorflow.constant(1.0))


@pytest.fixture
def tensorflow_log():
    runtime.select_keras_backend(None)
    recorder = Recorder()
    logging.getLogger("tensorflow").addHandler(recorder)
    yield recorder.messages
    logging.getLogger("tensorflow").removeHandler(recorder)


def test_advice_on_retracing_is_dropped_within_its_context_alone(tensorflow_log):
    with runtime.without_retracing_advice():
        trace_often(lambda: lambda value: value + 1)
        logging.getLogger("tensorflow").warning("another")
    assert tensorflow_log == ["another"]

    trace_often(lambda: lambda value: value + 2)

    assert "triggered tf.function retracing" in tensorflow_log[1]
