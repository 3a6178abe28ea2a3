"""The twin of any model spec. Mirrors `models_torch.models`."""

from collections.abc import Callable

import keras

from models_keras import layers
from models_keras.airbench import airbench
from models_keras.resnet import resnet
from parity.errors import SpecError
from parity.spec.airbench import AirbenchSpec
from parity.spec.model_spec import ModelSpec
from parity.spec.resnet import ResNetSpec

_BUILDERS: dict[type[ModelSpec], Callable[..., keras.Model]] = {
    ResNetSpec: resnet,
    AirbenchSpec: airbench,
}


def build_model(spec: ModelSpec) -> keras.Model:
    """Return the model `(n, h, w, c) -> (n, classes)` logits of a spec of any family."""
    return _BUILDERS[type(spec)](spec)


def inference_model(spec: ModelSpec) -> keras.Model:
    """Return the model in stock layers only, so that a saved file loads without this package.

    Outputs in inference mode are the twin's. In training mode its batch norm stores the biased
    variance, what drops something draws its own masks, and every weight is trained.

    Raises:
        SpecError: If a layer has no stock form: a GELU by `tanh`.
    """
    return keras.models.clone_model(build_model(spec), clone_function=_to_stock)


def _to_stock(layer: keras.layers.Layer) -> keras.layers.Layer:
    config = {
        key: value for key, value in layer.get_config().items() if not _is_own_initializer(value)
    }
    if isinstance(layer, layers.Gelu):
        if layer.form != "exact":
            message = (
                f"{layer.name}: expected the exact GELU, the only one that Keras has a layer of; "
                f"got {layer.form!r}."
            )
            raise SpecError(message)
        return keras.layers.Activation("gelu", name=layer.name)
    if isinstance(layer, layers.Scale):
        return keras.layers.Rescaling(layer.factor, name=layer.name)
    for own in (layers.BatchNormalization, layers.Conv2D, layers.Dropout):
        if isinstance(layer, own):
            return own.__base__.from_config(config)
    return layer.__class__.from_config(config)


def _is_own_initializer(value: object) -> bool:
    # Stock layers go without: what a saved model starts from is what was saved.
    return isinstance(value, dict) and str(value.get("registered_name")).startswith("models_keras>")
