"""The twin of any model spec. Mirrors `models_keras.models`."""

from collections.abc import Callable

from torch import nn

from models_torch.airbench import airbench
from models_torch.resnet import resnet
from parity.spec.airbench import AirbenchSpec
from parity.spec.model_spec import ModelSpec
from parity.spec.resnet import ResNetSpec

_BUILDERS: dict[type[ModelSpec], Callable[..., nn.Module]] = {
    ResNetSpec: resnet,
    AirbenchSpec: airbench,
}


def build_model(spec: ModelSpec) -> nn.Module:
    """Return the module `(n, c, h, w) -> (n, classes)` logits of a spec of any family."""
    return _BUILDERS[type(spec)](spec)
