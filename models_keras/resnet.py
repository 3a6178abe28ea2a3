"""The post-activation ResNet (He et al. 2016) as a Keras user would write it: a functional model.

Mirrors `models_torch.resnet`. Layer names are the layer paths with dashes:
`stages-0-blocks-1-conv2`.
"""

import keras

from models_keras.layers import Apply, Tensor, build_layer, max_pool2d
from parity.spec.layers import Layer
from parity.spec.paths import keras_name
from parity.spec.resnet import BlockSpec, ResNetSpec, block_specs


def resnet(spec: ResNetSpec) -> keras.Model:
    """Return the model `(n, h, w, c) -> (n, classes)` logits.

    Weights are drawn by Keras's own generator from the distributions that the conventions name.
    """
    height, width = spec.input_size
    inputs = keras.Input((height, width, spec.in_channels), name="images")
    x = stem(spec)(inputs)
    for block in block_specs(spec):
        x = residual_block(block, spec=spec)(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    layers = {layer.path: layer for layer in spec.layers()}
    if "dropout" in layers:
        x = _build(layers["dropout"], spec)(x)
    x = _build(layers["head"], spec)(x)
    return keras.Model(inputs, x, name="resnet")


def stem(spec: ResNetSpec) -> Apply:
    """Return the first convolution, batch norm and ReLU, and the max pool of an ImageNet stem."""
    layers = {layer.path: layer for layer in spec.layers()}

    def apply(x: Tensor) -> Tensor:
        x = _build(layers["stem.conv"], spec)(x)
        x = _build(layers["stem.bn"], spec)(x)
        x = keras.layers.ReLU(name="stem-relu")(x)
        if spec.stem == "imagenet":
            x = max_pool2d("stem.pool", stride_offset=spec.conventions.stride_offset)(x)
        return x

    return apply


def residual_block(block: BlockSpec, *, spec: ResNetSpec) -> Apply:
    """Return one residual block."""
    prefix = f"{block.path}."
    layers = {
        layer.path.removeprefix(prefix): layer
        for layer in spec.layers()
        if layer.path.startswith(prefix)
    }
    depth = sum(name.startswith("conv") for name in layers)

    def apply(x: Tensor) -> Tensor:
        shortcut = x
        if block.has_projection:
            shortcut = _build(layers["shortcut.conv"], spec)(shortcut)
            shortcut = _build(layers["shortcut.bn"], spec)(shortcut)
        for index in range(1, depth + 1):
            x = _build(layers[f"conv{index}"], spec)(x)
            x = _build(layers[f"bn{index}"], spec)(x)
            if index == depth and "stochastic_depth" in layers:
                x = _build(layers["stochastic_depth"], spec)(x)
            if index == depth:
                x = keras.layers.Add(name=keras_name(f"{prefix}add"))([x, shortcut])
            x = keras.layers.ReLU(name=keras_name(f"{prefix}relu{index}"))(x)
        return x

    return apply


def _build(layer: Layer, spec: ResNetSpec) -> Apply:
    return build_layer(layer, conventions=spec.conventions_of(layer.path))
