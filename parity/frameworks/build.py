"""Nets of our twins, by framework name.

Frameworks are imported inside functions, so one may be missing.
"""

from parity import runtime
from parity.errors import ParityError, describe_nearest
from parity.frameworks.net import Net
from parity.spec.layers import Conv2d
from parity.spec.losses import CrossEntropy, LossSpec
from parity.spec.model_spec import ModelSpec
from parity.spec.optimizers import NoAveraging, Sgd, Update

FRAMEWORKS = ("torch", "keras")

# Channels of the narrowest convolution from which torch nets are channels last.
NARROWEST_CHANNELS_LAST = 16

# What a net is built with where only its forward pass matters.
PLAIN_LOSS = CrossEntropy(label_smoothing=0.0, reduction="mean")
PLAIN_UPDATE = Update(
    rule=Sgd(
        lr=0.1,
        momentum=0.0,
        dampening=0.0,
        nesterov=False,
        velocity_holds_lr=False,
        l2=0.0,
        l2_in_loss=False,
        decoupled_decay=0.0,
        decay_scaled_by_lr=True,
    )
)


def build_twin(
    framework: str,
    spec: ModelSpec,
    *,
    loss: LossSpec = PLAIN_LOSS,
    update: Update = PLAIN_UPDATE,
    dtype: str = "float32",
    memory_format: str | None = None,
    device: str = "cpu",
    keras_backend: str | None = None,
    compiled: bool = False,
) -> Net:
    """Return a twin of `spec` as a net, with weights drawn by the framework's own generator.

    Args:
        framework: `torch` or `keras`.
        spec: The model.
        loss: Its loss.
        update: From its gradients to its next weights.
        dtype: One of `runtime.TRAINING_DTYPES`.
        memory_format: Of torch, `channels_first` or `channels_last`; None takes
            `default_memory_format`. Keras is channels last.
        device: `cpu`, `cuda`, `cuda:N` or `mps`.
        keras_backend: Backend to fix for this process; None keeps the present one.
        compiled: Whether passes are compiled: by `torch.compile`, or by XLA in Keras on tensorflow.
            Keras on jax always is, Keras on torch cannot be.

    Raises:
        MissingFrameworkError: If the framework is not installed.
        ParityError: If the framework or a setting is unknown.
    """
    if framework == "torch":
        return _build_torch(
            spec,
            loss=loss,
            update=update,
            dtype=dtype,
            memory_format=memory_format,
            device=device,
            compiled=compiled,
        )
    if framework == "keras":
        return _build_keras(
            spec,
            loss=loss,
            update=update,
            dtype=dtype,
            backend=keras_backend,
            device=device,
            compiled=compiled,
        )
    message = f"framework {framework!r} not found.{describe_nearest(framework, FRAMEWORKS)}"
    raise ParityError(message)


def default_memory_format(spec: ModelSpec, dtype: str, *, device: str = "cpu") -> str:
    """Return the memory format in which torch trains `spec` fastest.

    On a CPU channels last gains in float32 only, and nothing in narrow nets; in mixed precision it
    is the layout of a GPU's matrix units.
    """
    is_suited = dtype == "float32" or (dtype in runtime.MIXED_DTYPES and device.startswith("cuda"))
    # torch 2.13.0 on a CPU with one thread corrupts memory in the backward pass of a channels-last
    # 1x1 convolution of stride 2 with 4 or fewer channels ("corrupted size vs. prev_size").
    narrowest = min(layer.out_channels for layer in spec.layers() if isinstance(layer, Conv2d))
    if is_suited and narrowest >= NARROWEST_CHANNELS_LAST:
        return "channels_last"
    return "channels_first"


def _build_torch(
    spec: ModelSpec,
    *,
    loss: LossSpec,
    update: Update,
    dtype: str,
    memory_format: str | None,
    device: str,
    compiled: bool,
) -> Net:
    runtime.require_framework("torch", extra="torch")
    runtime.require_device("torch", device)
    if compiled:
        runtime.require_compiler(device)
    import models_torch
    from parity.frameworks.torch_net import TorchNet

    return TorchNet(
        models_torch.build_model(spec),
        loss=models_torch.build_loss(loss),
        optimizer=lambda model: models_torch.build_optimizer(update, model=model),
        set_rates=models_torch.set_rates,
        slots=update.initial_slots,
        penalty=lambda model: models_torch.build_penalty(update, model=model),
        average=lambda model: (
            None
            if isinstance(update.averaging, NoAveraging)
            else models_torch.Average(update.averaging, model=model)
        ),
        dtype=dtype,
        memory_format=memory_format or default_memory_format(spec, dtype, device=device),
        device=device,
        compiled=compiled,
    )


def _build_keras(
    spec: ModelSpec,
    *,
    loss: LossSpec,
    update: Update,
    dtype: str,
    backend: str | None,
    device: str,
    compiled: bool,
) -> Net:
    runtime.select_keras_backend(backend)
    runtime.require_device("keras", device)
    import keras

    import models_keras
    from parity.frameworks.keras_net import KerasNet

    # What torch calls cuda is a gpu to Keras on tensorflow and jax.
    name = device if keras.backend.backend() == "torch" else device.replace("cuda", "gpu")
    with keras.device(name):
        return KerasNet(
            lambda: models_keras.build_model(spec),
            loss=lambda: models_keras.build_loss(loss),
            optimizer=lambda model: models_keras.build_optimizer(update, model=model),
            set_rates=models_keras.set_rates,
            penalty=lambda model: models_keras.build_penalty(update, model=model),
            average=lambda model: (
                None
                if isinstance(update.averaging, NoAveraging)
                else models_keras.Average(update.averaging, model=model)
            ),
            dtype=dtype,
            compiled=compiled,
        )
