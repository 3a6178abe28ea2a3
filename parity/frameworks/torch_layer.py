"""One torch module or function, forward and backward on NumPy arrays."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from parity.frameworks.net import Array
from parity.frameworks.outcomes import LayerOutcome


def run_torch_layer(
    layer: Callable[..., Any],
    inputs: Sequence[Array],
    d_outputs: Array,
    *,
    weights: Mapping[str, Array] | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> LayerOutcome:
    """Return what a module, or a function of tensors, makes of arrays in PyTorch's own layout.

    A module computes in its own dtype and mode (`double()`, `train()`); inputs keep theirs.

    Args:
        layer: Called as `layer(*inputs, **arguments)`, returning a tensor or a tuple that begins
            with one, as recurrent layers and attention do.
        inputs: Arrays in the order of the call.
        d_outputs: Gradient with respect to the outputs, of their shape.
        weights: Arrays by name in the module's `state_dict`; it keeps what it has where none is
            given.
        arguments: Keywords of the call.

    Raises:
        KeyError: If `weights` names no array of the module.
    """
    module = layer if isinstance(layer, torch.nn.Module) else torch.nn.Module()
    slots = dict(module.named_parameters()) | dict(module.named_buffers())
    with torch.no_grad():
        for name, array in (weights or {}).items():
            slots[name].copy_(torch.as_tensor(array))
    leaves = [torch.tensor(array, requires_grad=array.dtype.kind == "f") for array in inputs]
    result = layer(*leaves, **dict(arguments or {}))
    outputs = result[0] if isinstance(result, tuple) else result
    trained = dict(module.named_parameters())
    sources = [leaf for leaf in leaves if leaf.requires_grad]
    gradients = torch.autograd.grad(
        outputs,
        [*sources, *trained.values()],
        grad_outputs=torch.as_tensor(d_outputs, dtype=outputs.dtype),
        materialize_grads=True,
    )
    arrays = [np.array(gradient.numpy(), copy=True) for gradient in gradients]
    count = len(sources)
    return LayerOutcome(
        outputs=np.array(outputs.detach().numpy(), copy=True),
        input_gradients=tuple(arrays[:count]),
        parameter_gradients=dict(zip(trained, arrays[count:], strict=True)),
        buffers={
            name: np.array(buffer.numpy(), copy=True) for name, buffer in module.named_buffers()
        },
    )
