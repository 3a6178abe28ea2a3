"""What PyTorch's own names look like in a file, and how they become canonical ones."""

from collections.abc import Mapping
from typing import Any

from conversion.states import COUNTER, State
from parity.spec.layers import BatchNorm2d
from parity.spec.model_spec import ModelSpec

# nn.DataParallel and DistributedDataParallel put their own attribute before every name.
WRAPPER_PREFIX = "module."


def canonical_names(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arrays without a data-parallel prefix and without batch counters.

    >>> canonical_names({"module.bn.weight": 1, "module.bn.num_batches_tracked": 2})
    {'bn.weight': 1}
    """
    if arrays and all(name.startswith(WRAPPER_PREFIX) for name in arrays):
        arrays = {name.removeprefix(WRAPPER_PREFIX): array for name, array in arrays.items()}
    return {name: array for name, array in arrays.items() if not _is_counter(name)}


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] == COUNTER


def registration_order(state: State, spec: ModelSpec) -> list[str]:
    """Return every name of the PyTorch twin's state_dict, counters included, in its order."""
    names = []
    for layer in spec.layers():
        names += [name for slot in layer.slots() if (name := f"{layer.path}.{slot.name}") in state]
        if isinstance(layer, BatchNorm2d):
            names.append(f"{layer.path}.{COUNTER}")
    return names
