"""What a call of torch computes, in the words of `parity.frameworks.kinds`.

`TABLE` has a reader for each function by its bare name: `add` reads `torch.add`, `Tensor.add_` and
`Tensor.__add__` alike. What no reader knows, or says is no kind, keeps its bare name as kind
(with `torch_` in front where that is a word for something else) and all its tensors as operands.
"""

from collections.abc import Mapping

from torch import Tensor

from parity.frameworks.kinds import KINDS
from parity.frameworks.torch_capture.axes import AXIS_READERS
from parity.frameworks.torch_capture.calls import Call
from parity.frameworks.torch_capture.described import Described, Reader
from parity.frameworks.torch_capture.elementwise import ELEMENTWISE_READERS
from parity.frameworks.torch_capture.layers import LAYER_READERS
from parity.frameworks.torch_capture.pooling import POOLING_READERS

TABLE: Mapping[str, Reader] = {
    **LAYER_READERS,
    **ELEMENTWISE_READERS,
    **AXIS_READERS,
    **POOLING_READERS,
}


def describe_call(call: Call, outputs: list[Tensor]) -> Described:
    """Return what a call computes that returned `outputs`."""
    reader = TABLE.get(call.name)
    described = None if reader is None else reader(call, outputs)
    if described is not None:
        return described
    kind = f"torch_{call.name}" if call.name in KINDS else call.name
    return Described(kind=kind, operands=tuple(call.tensors))
