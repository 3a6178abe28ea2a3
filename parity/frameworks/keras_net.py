"""`KerasNet`: any functional Keras model with a loss and an optimizer, behind the protocol `Net`.

Layer names give the paths (`parity.spec.paths`), `conversion.layouts` the slots and axes.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from conversion.layouts import LAYOUTS, move_axes, move_shape
from parity import runtime
from parity.errors import ConversionError, ParityError
from parity.frameworks.keras_backends.engine import Engine
from parity.frameworks.net import (
    Array,
    Average,
    Batch,
    Masks,
    OptimizerState,
    SetRates,
    State,
    StepRecord,
)
from parity.frameworks.states import describe_state_problems, require_masks
from parity.spec.optimizers import AVERAGE
from parity.spec.paths import keras_name, layer_path
from parity.spec.position import START, Position

_ENGINES = {"tensorflow": "TensorflowEngine", "jax": "JaxEngine", "torch": "TorchEngine"}


def _no_penalty(model: keras.Model) -> None:
    del model


def _no_average(model: keras.Model) -> None:
    del model


class KerasNet:
    """A Keras model in training; `Net` says what each method does."""

    def __init__(
        self,
        model: Callable[[], keras.Model],
        *,
        loss: Callable[[], Any],
        optimizer: Callable[[keras.Model], keras.Optimizer],
        set_rates: SetRates,
        penalty: Callable[[keras.Model], Callable[[Sequence[Any]], Any] | None] = _no_penalty,
        average: Callable[[keras.Model], Average | None] = _no_average,
        dtype: str = "float32",
        compiled: bool = False,
    ) -> None:
        """Build model, loss and optimizer inside the context of `dtype`.

        In mixed precision the layers have Keras's dtype policy of that name: variables stay
        float32, and the loss casts its logits to float32 (keras 3.15.1, losses/loss.py,
        `Loss.__call__`). The loss is not scaled, so that gradients below 6e-8, the smallest number
        of float16, are zero in mixed_float16; mixed_bfloat16 has float32's exponents.

        Args:
            model: Builds the model.
            loss: Builds `loss(targets, logits)`.
            optimizer: Builds the optimizer of a model, whose `slots` are the arrays it keeps.
            set_rates: Sets its learning rates for a step.
            penalty: Builds what is added to the loss, a function of the trained variables.
            average: Builds the average that is kept of a model's weights.
            dtype: One of `runtime.TRAINING_DTYPES`.
            compiled: Whether XLA makes the passes and steps, as it always does on jax. A trace runs
                layer by layer.

        Raises:
            ParityError: If `compiled` is asked for on torch, or a layer computes in a lower
                precision than `dtype`.
        """
        _check_compiled(compiled=compiled)
        self.dtype = dtype
        self.compiled = compiled
        self._array_dtype = runtime.array_dtype(dtype)
        self.label = f"keras-{keras.backend.backend()}"
        self._builders = (model, loss, optimizer, penalty, average)
        self._set_rates = set_rates
        with runtime.precision(dtype):
            check_precision(dtype)
            self._model = model()
            self._optimizer = optimizer(self._model)
            self._average = average(self._model)
            self._engine = _build_engine(
                self._model,
                loss=loss(),
                optimizer=self._optimizer,
                penalty=penalty(self._model),
                compiled=compiled,
            )
        self._variables = _named_variables(self._model)
        self._tracer: tuple[list[str], keras.Model] | None = None

    @property
    def model(self) -> keras.Model:
        """The Keras model itself."""
        return self._model

    def forward(self, images: Array, *, training: bool, masks: Masks | None = None) -> Array:
        """See `Net.forward`."""
        named = self._masks(masks or {}, training=training)
        with runtime.precision(self.dtype):
            logits = self._engine.forward(self._cast(images), named, training=training)
        return logits.astype(self._array_dtype, copy=False)

    def gradients(self, batch: Batch) -> StepRecord:
        """See `Net.gradients`."""
        masks = self._masks(batch.masks, training=True)
        with runtime.precision(self.dtype):
            outcome = self._engine.gradients(
                self._cast(batch.images), self._cast(batch.targets), masks
            )
        return self._record(*outcome)

    def step(
        self,
        batch: Batch,
        *,
        rate: float,
        position: Position = START,
        with_gradients: bool = False,
    ) -> StepRecord:
        """See `Net.step`."""
        masks = self._masks(batch.masks, training=True)
        with runtime.precision(self.dtype), self._averaged(position):
            self._set_rates(self._optimizer, rate=rate, epoch=position.epoch)
            outcome = self._engine.step(
                self._cast(batch.images),
                self._cast(batch.targets),
                masks,
                with_gradients=with_gradients,
            )
        return self._record(*outcome)

    def apply_gradients(
        self, gradients: Mapping[str, Array], *, rate: float, position: Position = START
    ) -> None:
        """See `Net.apply_gradients`."""
        arrays = [
            self._cast(
                move_axes(gradients[name], source=layout.torch_axes, target=layout.keras_axes)
            )
            for name, layout in self._trainable()
        ]
        with runtime.precision(self.dtype), self._averaged(position):
            self._set_rates(self._optimizer, rate=rate, epoch=position.epoch)
            self._engine.apply_gradients(arrays)

    def state(self) -> State:
        """See `Net.state`."""
        return {
            name: move_axes(_to_numpy(variable), source=layout.keras_axes, target=layout.torch_axes)
            for name, (variable, layout) in self._variables.items()
        }

    def parameter_names(self) -> tuple[str, ...]:
        """See `Net.parameter_names`."""
        return tuple(name for name, _ in self._trainable())

    def load_state(self, state: Mapping[str, Array]) -> None:
        """See `Net.load_state`."""
        shapes = {
            name: move_shape(
                tuple(variable.shape), source=layout.keras_axes, target=layout.torch_axes
            )
            for name, (variable, layout) in self._variables.items()
        }
        problems = describe_state_problems(state, shapes)
        if problems:
            message = f"{self.label}: {problems}"
            raise ConversionError(message)
        with runtime.precision(self.dtype):
            for name, (variable, layout) in self._variables.items():
                array = move_axes(state[name], source=layout.torch_axes, target=layout.keras_axes)
                variable.assign(self._cast(array))

    def optimizer_state(self) -> OptimizerState:
        """See `Net.optimizer_state`."""
        step = self._steps()
        if self._average is not None and step == 0:
            self._average.start()
        slots: dict[str, State] = {}
        for slot, name, layout, variable in self._slot_variables():
            array = move_axes(
                _to_numpy(variable), source=layout.keras_axes, target=layout.torch_axes
            )
            slots.setdefault(slot, {})[name] = array
        return OptimizerState(step=step, slots=slots)

    def load_optimizer_state(self, state: OptimizerState) -> None:
        """See `Net.load_optimizer_state`."""
        with runtime.precision(self.dtype):
            for slot, name, layout, variable in self._slot_variables():
                array = state.slots[slot][name]
                moved = move_axes(array, source=layout.torch_axes, target=layout.keras_axes)
                variable.assign(self._cast(moved))
            self._optimizer.iterations.assign(state.step)

    def trace(self, images: Array, *, training: bool, masks: Masks | None = None) -> State:
        """See `Net.trace`."""
        named = self._masks(masks or {}, training=training)
        with runtime.precision(self.dtype):
            if self._tracer is None:
                layers = [
                    layer
                    for layer in self._model.layers
                    if not isinstance(layer, keras.layers.InputLayer)
                ]
                outputs = [layer.output for layer in layers]
                paths = [layer_path(layer.name) for layer in layers]
                self._tracer = paths, keras.Model(self._model.inputs, outputs)
            paths, tracer = self._tracer
            before = [_to_numpy(variable) for variable in self._model.non_trainable_variables]
            outputs = self._engine.outputs(tracer, self._cast(images), named, training=training)
            arrays = [output.astype(self._array_dtype, copy=False) for output in outputs]
            for variable, value in zip(self._model.non_trainable_variables, before, strict=True):
                variable.assign(value)
        return {path: _channels_first(array) for path, array in zip(paths, arrays, strict=True)}

    def astype(self, dtype: str) -> "KerasNet":
        """See `Net.astype`."""
        model, loss, optimizer, penalty, average = self._builders
        net = KerasNet(
            model,
            loss=loss,
            optimizer=optimizer,
            set_rates=self._set_rates,
            penalty=penalty,
            average=average,
            dtype=dtype,
            compiled=self.compiled,
        )
        net.load_state(self.state())
        net.load_optimizer_state(self.optimizer_state())
        return net

    def save_weights(self, path: Path) -> None:
        """See `Net.save_weights`: a `.weights.h5` file."""
        self._model.save_weights(path)

    def _cast(self, array: Array) -> Array:
        return np.ascontiguousarray(array, dtype=self._array_dtype)

    def _masks(self, masks: Masks, *, training: bool) -> Masks:
        """Return the masks by the names of the layers that apply them: none but in training."""
        if not training:
            return {}
        layers = [layer.name for layer in self._model.layers if hasattr(layer, "kept")]
        require_masks(masks, map(layer_path, layers), where=self.label)
        return {keras_name(path): kept for path, kept in masks.items()}

    def _trainable(self) -> list[tuple[str, Any]]:
        names = {
            id(variable): (name, layout) for name, (variable, layout) in self._variables.items()
        }
        return [names[id(variable)] for variable in self._model.trainable_variables]

    def _slot_variables(self) -> Iterator[tuple[str, str, Any, Any]]:
        """Yield slot, name of its parameter, layout and variable of every array kept."""
        for (name, layout), held in zip(self._trainable(), self._optimizer.slots, strict=True):
            for slot, variable in held.items():
                yield slot, name, layout, variable
        if self._average is not None:
            for name, (variable, layout) in self._variables.items():
                if variable.path in self._average.arrays:
                    yield AVERAGE, name, layout, self._average.arrays[variable.path]

    def _steps(self) -> int:
        return int(_to_numpy(self._optimizer.iterations))

    @contextmanager
    def _averaged(self, position: Position) -> Iterator[None]:
        """Keep the averages of an update that is made inside."""
        if self._average is not None and self._steps() == 0:
            self._average.start()
        yield
        if self._average is not None:
            self._average.update(count=self._steps(), progress=position.progress)

    def _record(self, loss: Array, logits: Array, gradients: list[Array]) -> StepRecord:
        named = {
            name: move_axes(gradient, source=layout.keras_axes, target=layout.torch_axes)
            for (name, layout), gradient in zip(self._trainable(), gradients, strict=False)
        }
        return StepRecord(
            loss=float(loss),
            logits=logits.astype(self._array_dtype, copy=False),
            gradients=named,
        )


def _build_engine(
    model: keras.Model,
    *,
    loss: Any,  # noqa: ANN401  # a keras.Loss
    optimizer: keras.Optimizer,
    penalty: Callable[[Sequence[Any]], Any] | None,
    compiled: bool,
) -> Engine:
    backend = keras.backend.backend()
    module = importlib.import_module(f"parity.frameworks.keras_backends.{backend}")
    engine: Engine = getattr(module, _ENGINES[backend])(
        model, loss=_penalized(loss, penalty), optimizer=optimizer, compiled=compiled
    )
    return engine


def _check_compiled(*, compiled: bool) -> None:
    if compiled and keras.backend.backend() == "torch":
        message = (
            "compiled: expected Keras on tensorflow or jax; got Keras on torch, which this toolkit "
            "does not compile. Take another backend, or the torch twin."
        )
        raise ParityError(message)


def _penalized(
    loss: Any,  # noqa: ANN401  # a keras.Loss
    penalty: Callable[[Sequence[Any]], Any] | None,
) -> Callable[[Any, Any, Sequence[Any]], Any]:
    """Return `loss(targets, logits, parameters)`."""
    if penalty is None:
        return lambda targets, logits, _parameters: loss(targets, logits)
    return lambda targets, logits, parameters: loss(targets, logits) + penalty(parameters)


def _named_variables(model: keras.Model) -> dict[str, tuple[Any, Any]]:
    """Return each variable with its layout, by canonical name."""
    named = {}
    for layer in model.layers:
        if not layer.weights:
            continue
        layouts = LAYOUTS.get(type(layer).__name__)
        if layouts is None:
            message = (
                f"layer {layer.name!r}: no layout for {type(layer).__name__}; "
                f"known: {', '.join(LAYOUTS)}."
            )
            raise ConversionError(message)
        for variable in layer.weights:
            layout = layouts[variable.name]
            named[f"{layer_path(layer.name)}.{layout.slot}"] = (variable, layout)
    return named


def _channels_first(array: Array) -> Array:
    return move_axes(array, source="nhwc", target="nchw") if array.ndim == len("nhwc") else array


def _to_numpy(variable: Any) -> Array:  # noqa: ANN401  # a Keras variable, or a backend's tensor
    tensor = variable.value if isinstance(variable, keras.Variable) else variable
    if keras.backend.backend() == "torch":
        tensor = tensor.detach().cpu()
        if keras.backend.standardize_dtype(tensor.dtype) == "bfloat16":
            tensor = tensor.float()  # NumPy has no bfloat16
    # `keras.ops.convert_to_numpy` asks variables for a copy in a way that NumPy 2 warns of (keras
    # 3.15.1); the view that `asarray` may give is copied here.
    return np.array(np.asarray(tensor))


def measure_precision() -> float:
    """Return the largest relative error of known layers on known arrays against NumPy.

    Keras computes in its present `floatx`. The layers are those that it has been seen to compute in
    float32 behind a float64 dtype: training-mode batch norm, a mean, and softmax cross-entropy.
    """
    dtype = keras.config.floatx()
    values = (np.arange(60.0).reshape(3, 2, 2, 5) % 7.0) / 3.0 + 1.0 / 3.0
    tensor = keras.ops.convert_to_tensor(values.astype(dtype))
    normalized = keras.layers.BatchNormalization(epsilon=1e-3)(tensor, training=True)
    variance = values.var(axis=(0, 1, 2))
    expected = (values - values.mean(axis=(0, 1, 2))) / np.sqrt(variance + 1e-3)
    pairs = [
        (normalized, expected),
        (keras.ops.mean(tensor, axis=(1, 2)), values.mean(axis=(1, 2))),
    ]
    logits = values[:, 0, 0]
    targets = np.full_like(logits, 0.2)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    shifted = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    actual = loss(keras.ops.convert_to_tensor(targets.astype(dtype)), tensor[:, 0, 0])
    pairs.append((actual, np.array(-(targets * shifted).sum(axis=1).mean())))
    return max(
        float(np.max(np.abs(_to_numpy(actual) - expected)) / np.max(np.abs(expected)))
        for actual, expected in pairs
    )


def check_precision(dtype: str) -> float:
    """Return `measure_precision()` once it has been found to fit `dtype`.

    Raises:
        ParityError: If the error is larger than that precision allows.
    """
    # Worst seen on the three backends: 2.9e-16 in float64; 2e-7 in float32. In mixed precision
    # batch norm rounds what it is given and what it returns to 8 or 11 bits.
    allowed = {
        "float32": 1e-5,
        "float64": 1e-13,
        "mixed_bfloat16": 2.0**-7,
        "mixed_float16": 2.0**-10,
    }[dtype]
    error = measure_precision()
    if error > allowed:
        message = (
            f"{dtype} on keras-{keras.backend.backend()}: expected known layers within {allowed} "
            f"of NumPy; got {error:.2g}. Some layer computes in a lower precision; this Keras "
            "version is not one that has been tested."
        )
        raise ParityError(message)
    return error
