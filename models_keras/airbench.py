"""The airbench networks (Jordan 2024) as a Keras user would write them: functional models.

Mirrors `models_torch.airbench`. Layer names are the layer paths with dashes: `blocks-1-conv2`.
"""

import keras

from models_keras.layers import Apply, Tensor, build_layer, gelu, scale, tiled_max_pool2d
from parity.spec.airbench import POOL, AirbenchBlockSpec, AirbenchSpec, airbench_blocks
from parity.spec.layers import Layer
from parity.spec.paths import keras_name


def airbench(spec: AirbenchSpec) -> keras.Model:
    """Return the model `(n, h, w, c) -> (n, classes)` logits.

    Weights are drawn by Keras's own generator from the distributions that the conventions name;
    the whitening filters need training images (`parity.initialize.initial_state`).
    """
    layers = {layer.path: layer for layer in spec.layers()}
    height, width = spec.input_size
    inputs = keras.Input((height, width, spec.in_channels), name="images")
    x = gelu("gelu", form=spec.gelu)(_build(layers["whiten"], spec)(inputs))
    for block in airbench_blocks(spec):
        x = airbench_block(block, spec=spec)(x)
    x = tiled_max_pool2d("pool", kernel=spec.last_map)(x)
    x = _build(layers["head"], spec)(keras.layers.Flatten(name="flatten")(x))
    x = scale("scale", factor=spec.logit_scale)(x)
    return keras.Model(inputs, x, name="airbench")


def airbench_block(block: AirbenchBlockSpec, *, spec: AirbenchSpec) -> Apply:
    """Return one block, which halves the map."""
    prefix = f"{block.path}."
    layers = {
        layer.path.removeprefix(prefix): layer
        for layer in spec.layers()
        if layer.path.startswith(prefix)
    }

    def apply(x: Tensor) -> Tensor:
        x = _build(layers["conv1"], spec)(x)
        x = tiled_max_pool2d(f"{prefix}pool", kernel=(POOL, POOL))(x)
        x = _build(layers["bn1"], spec)(x)
        first = x = gelu(f"{prefix}gelu1", form=spec.gelu)(x)
        for index in range(2, spec.depth + 1):
            x = _build(layers[f"conv{index}"], spec)(x)
            x = _build(layers[f"bn{index}"], spec)(x)
            if index == spec.depth and spec.residual == "before_activation":
                x = keras.layers.Add(name=keras_name(f"{prefix}add"))([x, first])
            x = gelu(f"{prefix}gelu{index}", form=spec.gelu)(x)
        if spec.residual == "after_activation":
            x = keras.layers.Add(name=keras_name(f"{prefix}add"))([x, first])
        return x

    return apply


def _build(layer: Layer, spec: AirbenchSpec) -> Apply:
    return build_layer(layer, conventions=spec.conventions_of(layer.path))
