"""Any Keras model as a `Program`, on the backend that this process has.

The model is followed on symbols (`parity.frameworks.keras_capture`); what was recorded is run on
copies of its layers, so the user's model is neither moved nor changed.
"""

import contextlib
import importlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import keras
import numpy as np

from parity.errors import CaptureError, ConversionError, describe_list
from parity.frameworks.keras_capture.calling import (
    as_given,
    dtype_of,
    outputs_of_model,
    spread_arguments,
)
from parity.frameworks.keras_capture.calls import (
    Attribute,
    Call,
    Model,
    Nest,
    Tensor,
    Variable,
    flatten,
    named_leaves,
    replace_leaves,
)
from parity.frameworks.keras_capture.exact import exact_numbers, rounds_always
from parity.frameworks.keras_capture.execution import Execution
from parity.frameworks.keras_capture.leaves import Holdings
from parity.frameworks.keras_capture.listening import record
from parity.frameworks.keras_capture.recordings import Recording, describe_difference
from parity.frameworks.program import Array, Operation, Run, State, Trace, ValueId, is_float
from parity.frameworks.states import describe_state_problems
from parity.runtime import DTYPES, precision, without_retracing_advice

# How far the operations may be from the model itself, in units of the last place of the largest
# output. The same kernels run; only an activation apart from its layer may round anew.
_ULPS = 64


def capture_keras(model: Model, inputs: Nest) -> "KerasProgram":
    """Return a program of a model.

    Args:
        model: A `keras.Model` or `keras.Layer`, or a function of tensors. What is not built yet is
            built.
        inputs: One array, or a list, tuple or dict of them as the model takes it. A list or tuple
            is spread over the arguments of a `call` that needs as many.

    Raises:
        CaptureError: If the model cannot be followed, or its operations do not repeat its outputs.
    """
    dtype = dtype_of(model)
    with _precision(dtype):
        arrays = replace_leaves(inputs, lambda array: as_given(array, dtype))
        arguments, keywords = spread_arguments(model, arrays)
        expected = outputs_of_model(model, arguments, keywords)
        recording = record(model, arguments, keywords, training=False)
        in_training = record(model, arguments, keywords, training=True)
    given = tuple(flatten((arguments, keywords)))
    difference = describe_difference(recording, in_training)
    if difference is None:
        recording = replace(recording, calls=in_training.calls)
    program = KerasProgram(recording, given, dtype=dtype, only_outside_training=difference)
    _require_repeats(program, given, expected)
    return program


class KerasProgram:
    """See `Program`."""

    def __init__(
        self,
        recording: Recording,
        examples: tuple[Array, ...],
        *,
        dtype: str,
        only_outside_training: str | None = None,
        cast: bool = False,
        names: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Copy the layers of a recording.

        Args:
            recording: The calls of the model.
            examples: Inputs to describe values by.
            dtype: What the weights are computed in.
            only_outside_training: Why the calls are not those of the model in training, if so.
            cast: Whether `dtype` is not what the model was recorded in.
            names: Of the variables of each layer, as another program of the recording has them.

        Raises:
            CaptureError: If a part of the model cannot compute in `dtype`; all are named.
        """
        self._recording, self._examples, self._dtype = recording, examples, dtype
        self._only_outside_training = only_outside_training
        self._cast = dtype if cast else None
        with _precision(dtype, exact=self._cast == "float64"):
            self._holdings = Holdings(recording, dtype=self._cast, names=names or {})
            if cast and self._holdings.borrowed:
                raise CaptureError(self._describe_refusal(list(self._holdings.borrowed)))
            self._trace = self._described()

    @property
    def label(self) -> str:
        """See `Program.label`."""
        return f"keras-{keras.backend.backend()}"

    @property
    def dtype(self) -> str:
        """See `Program.dtype`."""
        return self._dtype

    @property
    def trace(self) -> Trace:
        """See `Program.trace`."""
        return self._trace

    def state(self) -> State:
        """See `Program.state`."""
        return self._holdings.state()

    def parameter_names(self) -> tuple[str, ...]:
        """See `Program.parameter_names`."""
        return self._holdings.trained()

    def load_state(self, state: Mapping[str, Array]) -> None:
        """See `Program.load_state`."""
        shapes = {name: tuple(one.shape) for name, one in self._holdings.variables.items()}
        expected = {name: shape for name, shape in shapes.items() if name in state}
        problems = describe_state_problems(state, expected)
        if problems:
            message = f"{self.label}: state does not fit: {problems}"
            raise ConversionError(message)
        with _precision(self._dtype, exact=self._cast == "float64"):
            self._holdings.assign(state)

    def astype(self, dtype: str) -> "KerasProgram":
        """See `Program.astype`."""
        program = KerasProgram(
            self._recording,
            self._examples,
            dtype=dtype,
            only_outside_training=self._only_outside_training,
            cast=True,
            names={path: list(below) for path, below in self._holdings.names.items()},
        )
        program._trace = self._trace
        program.load_state(self.state())
        return program

    def run(
        self,
        inputs: Sequence[Array],
        *,
        training: bool = False,
        keep: Collection[ValueId] = (),
        replaced: Mapping[ValueId, Array] | None = None,
        uniforms: Mapping[str, Array] | None = None,
        cotangents: Mapping[ValueId, Array] | None = None,
    ) -> Run:
        """See `Program.run`."""
        if training and self._only_outside_training:
            message = f"{self.label}: cannot run in training: {self._only_outside_training}"
            raise CaptureError(message)
        given = dict(zip(self._recording.inputs, inputs, strict=True))
        settings = {"training": training, "uniforms": uniforms or {}}
        with _precision(self._dtype, exact=self._cast == "float64"), self._holdings.in_use():
            if cotangents is None:
                return self._forward(given, keep, replaced or {}, settings)
            return self._backward(given, keep, replaced or {}, cotangents, settings)

    def _forward(
        self,
        given: Mapping[ValueId, Array],
        keep: Collection[ValueId],
        replaced: Mapping[ValueId, Array],
        settings: Mapping[str, Attribute],
    ) -> Run:
        kept: dict[ValueId, Array] = {}

        def visit(value: ValueId, tensor: Tensor) -> Tensor:
            if value in keep:
                kept[value] = np.array(keras.ops.convert_to_numpy(tensor))
            return self._tensor(replaced[value]) if value in replaced else tensor

        self._execute(
            {value: self._tensor(array) for value, array in given.items()}, visit, settings
        )
        state = self._holdings.current(self._buffer_names())
        return Run(values={value: kept[value] for value in keep}, buffers=state)

    def _backward(
        self,
        given: Mapping[ValueId, Array],
        keep: Collection[ValueId],
        replaced: Mapping[ValueId, Array],
        cotangents: Mapping[ValueId, Array],
        settings: Mapping[str, Attribute],
    ) -> Run:
        sources = {
            value: self._leaf(array)
            for value, array in {**given, **replaced}.items()
            if is_float(array) and value in keep
        }
        # What is added to a value tells the gradient with respect to it.
        zeros = {
            value: self._leaf(np.zeros(shape))
            for value, shape in self._shapes_of_run(given, settings).items()
            if value in keep and value not in sources and value not in replaced
        }
        ends = list(dict.fromkeys([*keep, *cotangents]))
        found: dict[ValueId, Tensor] = {}

        def visit(value: ValueId, tensor: Tensor) -> Tensor:
            if value in zeros:
                tensor = tensor + keras.ops.convert_to_tensor(zeros[value])
            found[value] = tensor
            if value not in replaced:
                return tensor
            return self._source(value, replaced[value], sources)

        def call() -> list[Tensor]:
            inputs = {value: self._source(value, array, sources) for value, array in given.items()}
            self._execute(inputs, visit, settings)
            return [found[value] for value in ends]

        leaves = {**sources, **zeros}
        trained = self.parameter_names()
        variables = [self._holdings.variables[name] for name in trained]
        buffers = self._buffer_names()
        backend = importlib.import_module(
            f"parity.frameworks.keras_backends.{keras.backend.backend()}"
        )
        outputs, gradients, after = backend.pull_back(
            call,
            [*leaves.values(), *variables],
            [self._holdings.variables[name] for name in buffers],
            [cotangents.get(value) for value in ends],
        )
        values = dict(zip(ends, outputs, strict=True))
        return Run(
            values={value: values[value] for value in keep},
            gradients=dict(zip(leaves, gradients, strict=False)),
            parameter_gradients=dict(zip(trained, gradients[len(leaves) :], strict=True)),
            buffers=dict(zip(buffers, after, strict=True)),
        )

    def _source(self, value: ValueId, array: Array, sources: Mapping[ValueId, Variable]) -> Tensor:
        if value in sources:
            return keras.ops.convert_to_tensor(sources[value])
        return self._tensor(array)

    def _shapes_of_run(
        self, given: Mapping[ValueId, Array], settings: Mapping[str, Attribute]
    ) -> Mapping[ValueId, tuple[int, ...]]:
        """Return the shape of each value of floats, for inputs of any batch."""
        shapes: Mapping[ValueId, tuple[int, ...]] = self._trace.shapes
        if any(array.shape != shapes[value] for value, array in given.items()):
            shapes, _ = self._observed(given, settings)
        return {
            value: shape for value, shape in shapes.items() if "float" in self._trace.dtypes[value]
        }

    def _observed(
        self, given: Mapping[ValueId, Array], settings: Mapping[str, Attribute]
    ) -> tuple[dict[ValueId, tuple[int, ...]], dict[ValueId, str]]:
        """Return shape and dtype of each value in a run."""
        shapes: dict[ValueId, tuple[int, ...]] = {}
        dtypes: dict[ValueId, str] = {}

        def visit(value: ValueId, tensor: Tensor) -> Tensor:
            shapes[value] = tuple(tensor.shape)
            dtypes[value] = keras.backend.standardize_dtype(tensor.dtype)
            return tensor

        tensors = {value: self._tensor(array) for value, array in given.items()}
        self._execute(tensors, visit, settings)
        return shapes, dtypes

    def _execute(
        self,
        inputs: Mapping[ValueId, Tensor],
        visit: Callable[[ValueId, Tensor], Tensor],
        settings: Mapping[str, Attribute],
    ) -> None:
        uniforms = {name: self._tensor(array) for name, array in settings["uniforms"].items()}
        execution = Execution(
            self._holdings, dtype=self._cast, training=settings["training"], uniforms=uniforms
        )
        execution.run(self._recording.calls, inputs, visit)

    def _tensor(self, array: Array) -> Tensor:
        if is_float(np.asarray(array)):
            return keras.ops.convert_to_tensor(np.asarray(array, self._dtype), dtype=self._dtype)
        return keras.ops.convert_to_tensor(array)

    def _leaf(self, array: Array) -> Variable:
        return keras.Variable(np.asarray(array, self._dtype), dtype=self._dtype, name="value")

    def _buffer_names(self) -> tuple[str, ...]:
        trained = set(self.parameter_names())
        return tuple(name for name in self._holdings.variables if name not in trained)

    def _described(self) -> Trace:
        given = dict(zip(self._recording.inputs, self._examples, strict=True))
        with self._holdings.in_use():
            shapes, dtypes = self._observed(given, {"training": False, "uniforms": {}})
        if self._cast is not None:
            off = [
                call.name
                for call in self._recording.calls
                if any("float" in dtypes[v] and dtypes[v] != self._dtype for v in call.outputs)
                or rounds_always(call.description)
            ]
            if off:
                raise CaptureError(self._describe_refusal(off))
        notes = self._recording.notes
        if self._only_outside_training:
            notes = (*notes, self._only_outside_training)
        return Trace(
            operations=tuple(self._operation(call) for call in self._recording.calls),
            shapes=shapes,
            dtypes=dtypes,
            inputs=self._recording.inputs,
            outputs={name: ref.value for name, ref in named_leaves(self._recording.outputs)},
            notes=notes,
        )

    def _describe_refusal(self, names: list[str]) -> str:
        return (
            f"{self.label}: expected all operations to compute in {self._dtype}; "
            f"{describe_list(names)} do not. Give these layers a get_config() from which Keras can "
            "make them in another dtype, and no fixed dtype in their call."
        )

    def _operation(self, call: Call) -> Operation:
        weights = {} if call.variable is None else {"value": call.variable}
        for below, name in self._holdings.names.get(call.leaf or "", {}).items():
            weights[call.description.slots.get(below, below.replace("/", "."))] = name
        layouts = call.description.layouts
        return Operation(
            name=call.name,
            kind=call.description.kind,
            native=call.native,
            inputs=_operands(call),
            outputs=call.outputs,
            weights=weights,
            layouts={slot: axes for slot, axes in layouts.items() if slot in weights},
            attributes=dict(call.description.attributes),
        )


def _operands(call: Call) -> tuple[ValueId, ...]:
    """Return the operands in the order of the kind; Keras's attention takes values before keys."""
    if call.description.kind != "attention":
        return call.inputs
    query, value, *rest = call.inputs
    has_key = len(call.arguments) > 2 or call.keywords.get("key") is not None
    return (query, rest[0], value, *rest[1:]) if has_key else (query, value, value, *rest)


@contextlib.contextmanager
def _precision(dtype: str, *, exact: bool = False) -> Iterator[None]:
    """Let Keras compute in a dtype, and tensorflow trace its functions as often as it must.

    Args:
        dtype: A float.
        exact: Whether constants are to be in it too.
    """
    with without_retracing_advice(), contextlib.ExitStack() as stack:
        if dtype in DTYPES:
            stack.enter_context(precision(dtype))
        if exact:
            stack.enter_context(exact_numbers())
        yield


def _require_repeats(
    program: KerasProgram, inputs: Sequence[Array], expected: Mapping[str, Array]
) -> None:
    """Check that the recorded operations make the model's own outputs."""
    outputs = program.trace.outputs
    run = program.run(inputs, keep=outputs.values())
    off = [
        name or "its output"
        for name, value in outputs.items()
        if not _is_near(run.values[value], expected[name])
    ]
    if off:
        message = (
            f"{program.label}: expected the recorded operations to repeat the model; "
            f"{describe_list(off)} differ. Its call depends on more than its inputs, or on values "
            "that symbols do not show: put that part into a keras.Layer of its own."
        )
        raise CaptureError(message)


def _is_near(actual: Array, expected: Array) -> bool:
    if actual.shape != expected.shape or not is_float(expected):
        return np.array_equal(actual, expected)
    finite = np.isfinite(expected)
    scale = np.abs(expected[finite]).max(initial=0.0)
    gap = np.abs(actual[finite] - expected[finite]).max(initial=0.0)
    same = np.array_equal(actual[~finite], expected[~finite], equal_nan=True)
    return bool(same and gap <= _ULPS * np.finfo(expected.dtype).eps * scale)
