"""`TorchNet`: any `nn.Module` with a loss and an optimizer, behind the protocol `Net`."""

import copy
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from parity import runtime
from parity.errors import ConversionError
from parity.frameworks.net import (
    Array,
    Average,
    Batch,
    Masks,
    OptimizerState,
    SetRates,
    SlotsOf,
    State,
    StepRecord,
)
from parity.frameworks.states import describe_state_problems, require_masks
from parity.spec.optimizers import AVERAGE
from parity.spec.position import START, Position

_DTYPES = {"float32": torch.float32, "float64": torch.float64}
_COMPUTE_DTYPES = {"mixed_bfloat16": torch.bfloat16, "mixed_float16": torch.float16}
_FORMATS = {"channels_last": torch.channels_last, "channels_first": torch.contiguous_format}

# Images of each size, training or not, and each set of trained parameters make torch compile anew;
# at its own limit of 8 (torch 2.13.0, _dynamo/config.py) it would go on uncompiled.
_RECOMPILE_LIMIT = 64

# Torch's own bookkeeping, which no other framework has.
_UNTRACKED = "num_batches_tracked"


def _no_penalty(module: nn.Module) -> None:
    del module


def _no_average(module: nn.Module) -> None:
    del module


class TorchNet:
    """A PyTorch module in training; `Net` says what each method does."""

    def __init__(
        self,
        module: nn.Module,
        *,
        loss: Callable[[Tensor, Tensor], Tensor],
        optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        set_rates: SetRates,
        slots: SlotsOf,
        penalty: Callable[[nn.Module], Callable[[Sequence[Tensor]], Tensor] | None] = _no_penalty,
        average: Callable[[nn.Module], Average | None] = _no_average,
        dtype: str = "float32",
        memory_format: str = "channels_first",
        device: str = "cpu",
        compiled: bool = False,
        label: str = "torch",
    ) -> None:
        """Wrap `module`, which this net owns from here on.

        In mixed precision the module runs under `torch.autocast`, on parameters that stay float32,
        and its logits are float32 before the loss. The loss is not scaled: gradients below 6e-8,
        the smallest number of float16, are zero in mixed_float16, and all but none in
        mixed_bfloat16, which has float32's exponents.

        Args:
            module: The model.
            loss: `loss(logits, targets)`.
            optimizer: Builds the optimizer of a module.
            set_rates: Sets its learning rates for a step.
            slots: The arrays that it keeps of a parameter.
            penalty: Builds what is added to the loss, a function of the trained parameters.
            average: Builds the average that is kept of a module's weights.
            dtype: One of `runtime.TRAINING_DTYPES`.
            memory_format: `channels_first` or `channels_last`.
            device: As torch names it.
            compiled: Whether `torch.compile` makes the forward and backward passes; a trace runs
                the module itself, whose layers a compiled one does not have.
            label: What reports call the net.
        """
        self._format = _FORMATS[memory_format]
        self._dtype = _DTYPES[runtime.array_dtype(dtype)]
        self._module = module.to(device=device, dtype=self._dtype).to(memory_format=self._format)
        self._call = (
            _compile(self._module, keeps_layout=memory_format == "channels_first")
            if compiled
            else self._module
        )
        self._loss = loss
        self._builders = optimizer, penalty, average
        self._set_rates = set_rates
        self._optimizer = optimizer(self._module)
        self._penalty = penalty(self._module)
        self._average = average(self._module)
        self._slots = slots
        self._device = torch.device(device)
        self._steps = 0
        self.label = label
        self.dtype = dtype
        self.memory_format = memory_format
        self.compiled = compiled

    def forward(self, images: Array, *, training: bool, masks: Masks | None = None) -> Array:
        """See `Net.forward`."""
        return _to_numpy(self._forward(self._call, images, training=training, masks=masks))

    def gradients(self, batch: Batch) -> StepRecord:
        """See `Net.gradients`."""
        loss, logits = self._backward(batch)
        return StepRecord(loss=loss.item(), logits=_to_numpy(logits), gradients=self._gradients())

    def step(
        self,
        batch: Batch,
        *,
        rate: float,
        position: Position = START,
        with_gradients: bool = False,
    ) -> StepRecord:
        """See `Net.step`."""
        self._start_average()  # the forward pass moves buffers, which may be averaged
        loss, logits = self._backward(batch)
        gradients = self._gradients() if with_gradients else {}
        self._update(rate, position)
        return StepRecord(
            loss=loss.item(), logits=logits.detach().cpu().numpy(), gradients=gradients
        )

    def apply_gradients(
        self, gradients: Mapping[str, Array], *, rate: float, position: Position = START
    ) -> None:
        """See `Net.apply_gradients`."""
        self._start_average()
        for name, parameter in self._parameters():
            parameter.grad = self._tensor(gradients[name]).to(memory_format=_format_of(parameter))
        self._update(rate, position)

    def state(self) -> State:
        """See `Net.state`."""
        return {name: _to_numpy(tensor) for name, tensor in self._tensors().items()}

    def parameter_names(self) -> tuple[str, ...]:
        """See `Net.parameter_names`."""
        return tuple(name for name, _ in self._parameters())

    def load_state(self, state: Mapping[str, Array]) -> None:
        """See `Net.load_state`."""
        tensors = self._tensors()
        problems = describe_state_problems(
            state, {name: tuple(t.shape) for name, t in tensors.items()}
        )
        if problems:
            message = f"{self.label}: {problems}"
            raise ConversionError(message)
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(self._tensor(state[name]))

    def optimizer_state(self) -> OptimizerState:
        """See `Net.optimizer_state`."""
        slots: dict[str, State] = {}
        for name, parameter in self._parameters():
            held = self._optimizer.state.get(parameter, {})
            for slot, start in self._slots(name, parameter.dim()).items():
                array = held.get(slot)
                slots.setdefault(slot, {})[name] = _to_numpy(
                    torch.full_like(parameter, start) if array is None else array
                )
        if self._average is not None:
            self._start_average()
            slots[AVERAGE] = {name: _to_numpy(t) for name, t in self._average.arrays.items()}
        return OptimizerState(step=self._steps, slots=slots)

    def load_optimizer_state(self, state: OptimizerState) -> None:
        """See `Net.load_optimizer_state`."""
        self._optimizer.state.clear()
        self._steps = state.step
        for name, buffer in self._module.named_buffers():
            if name.endswith(_UNTRACKED):
                buffer.fill_(state.step)  # a batch norm has seen one batch a step
        counts_steps = not isinstance(self._optimizer, torch.optim.SGD)
        if state.step == 0 and not counts_steps:
            return  # it tells its first step, which no dampening touches, by having no velocity
        for name, parameter in self._parameters():
            held: dict[str, Tensor] = {}
            if counts_steps:
                held["step"] = torch.tensor(float(state.step))
            for slot in self._slots(name, parameter.dim()):
                tensor = self._tensor(state.slots[slot][name])
                held[slot] = tensor.to(memory_format=_format_of(parameter))
            self._optimizer.state[parameter] = held
        if self._average is not None and state.step > 0:
            for name, average in self._average.arrays.items():
                average.copy_(self._tensor(state.slots[AVERAGE][name]))

    def trace(self, images: Array, *, training: bool, masks: Masks | None = None) -> State:
        """See `Net.trace`."""
        before = {name: buffer.clone() for name, buffer in self._module.named_buffers()}
        with self._outputs() as outputs:
            self._forward(self._module, images, training=training, masks=masks)
        with torch.no_grad():
            for name, buffer in self._module.named_buffers():
                buffer.copy_(before[name])
        return outputs

    def astype(self, dtype: str) -> "TorchNet":
        """See `Net.astype`."""
        optimizer, penalty, average = self._builders
        net = TorchNet(
            copy.deepcopy(self._module),
            loss=self._loss,
            optimizer=optimizer,
            set_rates=self._set_rates,
            slots=self._slots,
            penalty=penalty,
            average=average,
            dtype=dtype,
            memory_format=self.memory_format,
            device=str(self._device),
            compiled=self.compiled,
            label=self.label,
        )
        net.load_optimizer_state(self.optimizer_state())
        return net

    def save_weights(self, path: Path) -> None:
        """See `Net.save_weights`: a state dict in contiguous layout."""
        state = {
            name: tensor.detach().cpu().contiguous()
            for name, tensor in self._module.state_dict().items()
        }
        content = io.BytesIO()
        torch.save(state, content)  # to memory first: on a full disk torch raises no OSError
        path.write_bytes(content.getvalue())

    def _images(self, images: Array) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
        return tensor.to(device=self._device, dtype=self._dtype, memory_format=self._format)

    def _tensor(self, array: Array) -> Tensor:
        return torch.from_numpy(np.array(array)).to(device=self._device, dtype=self._dtype)

    def _forward(
        self,
        call: Callable[[Tensor], Tensor],
        images: Array,
        *,
        training: bool,
        masks: Masks | None,
    ) -> Tensor:
        self._module.train(training)
        with torch.no_grad(), self._masked(masks or {}):
            return self._logits(call, images)

    def _logits(self, call: Callable[[Tensor], Tensor], images: Array) -> Tensor:
        """Return logits in the dtype of the parameters."""
        compute = _COMPUTE_DTYPES.get(self.dtype)
        with torch.autocast(self._device.type, dtype=compute, enabled=compute is not None):
            logits = call(self._images(images))
        return logits.to(self._dtype)

    def _backward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        self._module.train()
        self._optimizer.zero_grad(set_to_none=True)
        with self._masked(batch.masks):
            logits = self._logits(self._call, batch.images)
        loss = self._loss(logits, self._tensor(batch.targets))
        if self._penalty is not None:
            loss = loss + self._penalty([parameter for _, parameter in self._parameters()])
        loss.backward()
        return loss.detach(), logits

    @contextmanager
    def _masked(self, masks: Masks) -> Iterator[None]:
        """Tell the layers that drop something what to keep, in training mode."""
        layers = {path: m for path, m in self._module.named_modules() if hasattr(m, "kept")}
        if self._module.training:
            require_masks(masks, layers, where=self.label)
            for path, layer in layers.items():
                layer.kept = torch.from_numpy(masks[path]).to(self._device)
        try:
            yield
        finally:
            for layer in layers.values():
                layer.kept = None

    def _update(self, rate: float, position: Position) -> None:
        self._set_rates(self._optimizer, rate=rate, epoch=position.epoch)
        self._optimizer.step()
        self._steps += 1
        if self._average is not None:
            self._average.update(count=self._steps, progress=position.progress)

    def _start_average(self) -> None:
        """Take the present weights as the average, before the first update."""
        if self._average is not None and self._steps == 0:
            self._average.start()

    def _parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, p) for name, p in self._module.named_parameters() if p.requires_grad)

    def _gradients(self) -> State:
        return {
            name: _to_numpy(torch.zeros_like(p) if p.grad is None else p.grad)
            for name, p in self._parameters()
        }

    def _tensors(self) -> dict[str, Tensor]:
        state = self._module.state_dict(keep_vars=False)
        return {name: tensor for name, tensor in state.items() if not name.endswith(_UNTRACKED)}

    @contextmanager
    def _outputs(self) -> Iterator[State]:
        outputs: State = {}

        def record(path: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
            # Copied at once: an in-place ReLU overwrites the tensor it was handed.
            return lambda _module, _inputs, output: outputs.__setitem__(path, _to_numpy(output))

        leaves = [(path, m) for path, m in self._module.named_modules() if not list(m.children())]
        handles = [m.register_forward_hook(record(path)) for path, m in leaves if _has_layer(m)]
        try:
            yield outputs
        finally:
            for handle in handles:
                handle.remove()


def _compile(module: nn.Module, *, keeps_layout: bool) -> Callable[[Tensor], Tensor]:
    """Return the compiled call of a module, whole, and for each size of images on its own.

    A code that fits several sizes would be made at the second one and then run at the first one
    too, so that a resumed training would not repeat the bits of a whole one.

    Args:
        module: Run in training or not, as it is set when the call is made.
        keeps_layout: Whether convolutions stay channels first; the compiler would make those of
            float32 channels last, in which narrow ones crash on a CPU (`default_memory_format`).
    """
    options = {"layout_optimization": not keeps_layout}
    compiled = torch.compile(module, fullgraph=True, dynamic=False, options=options)

    def call(images: Tensor) -> Tensor:
        with torch._dynamo.config.patch(recompile_limit=_RECOMPILE_LIMIT):
            outputs: Tensor = compiled(images)
        return outputs

    return call


def _has_layer(module: nn.Module) -> bool:
    # An empty Sequential is an identity shortcut, not a layer.
    return not isinstance(module, nn.Sequential)


def _format_of(parameter: Tensor) -> torch.memory_format:
    is_last = parameter.dim() == 4 and parameter.is_contiguous(memory_format=torch.channels_last)
    return (
        torch.channels_last
        if is_last and not parameter.is_contiguous()
        else torch.contiguous_format
    )


def _to_numpy(tensor: Tensor) -> Array:
    tensor = tensor.detach().cpu()
    if tensor.dtype in _COMPUTE_DTYPES.values():
        tensor = tensor.float()  # NumPy has no bfloat16
    return np.array(tensor.numpy(), order="C", copy=True)
