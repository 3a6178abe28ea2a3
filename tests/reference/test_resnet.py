"""The reference ResNet against one written straight in torch functionals, in float64."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from parity.errors import DivergenceError, SpecError
from parity.masks import draw_masks
from parity.reference.losses import cross_entropy
from parity.reference.network import (
    network_backward,
    network_nodes,
    network_trace,
    record_network,
)
from parity.rng import stream
from parity.spec.conventions import KERAS
from parity.spec.resnet import ResNetSpec
from parity.testing import specs, strategies
from parity.testing.assertions import assert_close, assert_states_close
from parity.testing.faults import CONVENTION_FAULTS, seed_spec_fault

BASIC = specs.RESNET
BOTTLENECK = dataclasses.replace(
    specs.RESNET,
    conventions=KERAS.conventions,
    block="bottleneck",
    blocks=(2, 1),
    stem="imagenet",
    width=2,
    in_channels=1,
    input_size=(16, 13),
    classes=3,
)
DROPPING = dataclasses.replace(BASIC, stochastic_depth=0.5, dropout=0.3)


def random_state(spec):
    state = {}
    for name, slot in spec.slots().items():
        values = stream(0, "test", "state", name).standard_normal(slot.shape)
        state[name] = 0.5 + values**2 if name.endswith("running_var") else 0.5 * values
    return state


def random_images(spec, n=3):
    return stream(0, "test", "images").standard_normal((n, spec.in_channels, *spec.input_size))


class TorchResNet:
    """He et al.'s network on a dict of tensors; `moved` receives the running statistics."""

    def __init__(self, spec, state, *, training, masks):
        self.rates = {layer.path: layer.rate for layer in spec.masked_layers() if training}
        self.masks = masks
        self.spec, self.conventions, self.training = spec, spec.conventions, training
        self.state = {
            name: torch.tensor(array, requires_grad=spec.slots()[name].role == "parameter")
            for name, array in state.items()
        }
        self.moved = {}

    def padded(self, x, kernel, stride, fill=0.0):
        if self.conventions.stride_offset == "start" or stride == 1:
            return functional.pad(x, (kernel // 2,) * 4, value=fill)
        # For stride 2 and kernels 1, 3 and 7: `same` on an even side lacks one pixel before.
        pads = []
        for size in (x.shape[3], x.shape[2]):
            short = (kernel > 1) and size % 2 == 0
            before = kernel // 2 - 1 if short else kernel // 2
            pads += [before, kernel // 2]
        return functional.pad(x, pads, value=fill)

    def conv_bn(self, x, conv, bn, stride=1):
        weight, bias = self.state[f"{conv}.weight"], self.state.get(f"{conv}.bias")
        x = self.padded(x, weight.shape[-1], stride)
        x = functional.conv2d(x, weight, bias, stride=stride)
        parameters = self.state[f"{bn}.weight"], self.state[f"{bn}.bias"]
        mean, var = self.state[f"{bn}.running_mean"], self.state[f"{bn}.running_var"]
        epsilon, decay = self.conventions.bn_epsilon, self.conventions.stats_decay
        if self.training:
            batch_mean = x.mean((0, 2, 3))
            batch_var = x.var((0, 2, 3), correction=self.conventions.bn_variance_correction)
            self.moved[f"{bn}.running_mean"] = decay * mean + (1 - decay) * batch_mean.detach()
            self.moved[f"{bn}.running_var"] = decay * var + (1 - decay) * batch_var.detach()
            return functional.batch_norm(x, None, None, *parameters, training=True, eps=epsilon)
        return functional.batch_norm(x, mean, var, *parameters, training=False, eps=epsilon)

    def dropped(self, x, path):
        if path not in self.rates:
            return x
        return x * torch.tensor(self.masks[path]) / (1.0 - self.rates[path])

    def block(self, x, path, stride):
        shortcut = x
        if f"{path}.shortcut.conv.weight" in self.state:
            shortcut = self.conv_bn(x, f"{path}.shortcut.conv", f"{path}.shortcut.bn", stride)
        strides = (stride, 1) if self.spec.block == "basic" else (1, stride, 1)
        for index, step in enumerate(strides, start=1):
            x = self.conv_bn(x, f"{path}.conv{index}", f"{path}.bn{index}", step)
            if index < len(strides):
                x = functional.relu(x)
        return functional.relu(self.dropped(x, f"{path}.stochastic_depth") + shortcut)

    def __call__(self, images):
        imagenet = self.spec.stem == "imagenet"
        x = self.conv_bn(torch.tensor(images), "stem.conv", "stem.bn", 2 if imagenet else 1)
        x = functional.relu(x)
        if imagenet:
            x = functional.max_pool2d(self.padded(x, 3, 2, fill=-torch.inf), 3, stride=2)
        for stage, count in enumerate(self.spec.blocks):
            for index in range(count):
                stride = 2 if stage and not index else 1
                x = self.block(x, f"stages.{stage}.blocks.{index}", stride)
        x = self.dropped(x.mean((2, 3)), "dropout")
        return functional.linear(x, self.state["head.weight"], self.state["head.bias"])


def parameter_gradients(net):
    return {name: tensor.grad.numpy() for name, tensor in net.state.items() if tensor.requires_grad}


def assert_matches_torch(spec, images, *, training):
    state = random_state(spec)
    masks = draw_masks(spec, seed=0, epoch=0, samples=range(len(images)))
    net = TorchResNet(spec, state, training=training, masks=masks)
    logits = net(images)
    d_logits = stream(0, "test", "d_logits").standard_normal(tuple(logits.shape))
    logits.backward(torch.tensor(d_logits))

    tape = record_network(spec, state, images, training=training, masks=masks)
    expected_buffers = net.moved or {name: state[name] for name in tape.buffers}

    assert_close(tape.trace["head"], logits.detach(), atol=1e-10, rtol=1e-10, where="logits")
    assert_states_close(tape.buffers, expected_buffers, atol=1e-12, rtol=1e-12, where="buffers")
    actual, expected = network_backward(tape, d_logits), parameter_gradients(net)
    scale = max(np.abs(array).max() for array in expected.values())
    assert_states_close(actual, expected, atol=1e-10 * scale, rtol=1e-10, where="gradients")


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(
    "spec", [BASIC, BOTTLENECK, DROPPING], ids=["basic", "bottleneck", "dropping"]
)
def test_resnet_matches_torch(spec, training):
    assert_matches_torch(spec, random_images(spec), training=training)


@settings(max_examples=25, deadline=None)
@given(data=st.data(), spec=strategies.resnet_specs(), training=st.booleans())
def test_resnet_matches_torch_for_any_spec(data, spec, training):
    images = data.draw(strategies.images(spec, 4))

    assert_matches_torch(spec, images.astype(np.float64), training=training)


def test_network_trace_names_every_layer_call():
    trace, _ = network_trace(
        BOTTLENECK, random_state(BOTTLENECK), random_images(BOTTLENECK), training=False
    )

    block = "stages.1.blocks.0"
    expected = ["stem.conv", "stem.bn", "stem.relu", "stem.pool"]
    for path in ("stages.0.blocks.0", "stages.0.blocks.1", block):
        expected += [f"{path}.{kind}{i}" for i in (1, 2) for kind in ("conv", "bn", "relu")]
        expected += [f"{path}.conv3", f"{path}.bn3"]
        has_projection = path != "stages.0.blocks.1"
        expected += [f"{path}.shortcut.conv", f"{path}.shortcut.bn"] if has_projection else []
        expected += [f"{path}.relu3"]
    assert list(trace) == [*expected, "pool", "head"]


def test_network_nodes_follow_what_they_read():
    seen = {"images"}

    for node in network_nodes(BASIC):
        assert set(node.inputs) <= seen
        seen.add(node.path)


def test_resnet_leaves_state_and_images_as_they_were():
    state, images = random_state(BASIC), random_images(BASIC)

    network_backward(record_network(BASIC, state, images, training=True), np.ones((3, 4)))

    assert_states_close(state, random_state(BASIC), atol=0.0, rtol=0.0)
    assert_close(images, random_images(BASIC), atol=0.0, rtol=0.0)


def test_resnet_gradient_matches_a_difference_of_the_loss():
    state, images, targets = random_state(BASIC), random_images(BASIC), np.eye(4)[:3]
    name, index, step = "stages.0.blocks.0.conv2.weight", (1, 0, 2, 1), 1e-6

    def loss(offset):
        moved = state[name].copy()
        moved[index] += offset
        trace, _ = network_trace(BASIC, state | {name: moved}, images, training=True)
        return cross_entropy(trace["head"], targets, reduction="mean")[0]

    tape = record_network(BASIC, state, images, training=True)
    _, d_logits = cross_entropy(tape.trace["head"], targets, reduction="mean")

    gradient = network_backward(tape, d_logits)[name][index]
    assert_close(gradient, (loss(step) - loss(-step)) / (2 * step), atol=1e-8, rtol=1e-7)


def test_resnet_refuses_a_state_of_another_model_and_lists_it_all():
    state = random_state(BASIC)
    state["extra"], state["head.bias"] = state.pop("stem.bn.weight"), np.zeros(2)

    with pytest.raises(SpecError) as caught:
        network_trace(BASIC, state, np.zeros((1, 2, 9, 7)), training=False)

    assert str(caught.value) == (
        "network: 1 slots missing (stem.bn.weight). 1 unexpected (extra). "
        "head.bias: expected shape (4,); got (2,). "
        "images must be (n, c, h, w) with (2, 9, 6); got (1, 2, 9, 7)."
    )


def test_resnet_refuses_to_train_without_its_masks():
    with pytest.raises(SpecError, match=r"2 masks missing \(dropout, stages\.1\.blocks\.0\.st"):
        network_trace(
            DROPPING,
            random_state(DROPPING),
            random_images(DROPPING),
            training=True,
            masks={"stages.1.blocks.1.stochastic_depth": np.ones((3, 1, 1, 1), dtype=bool)},
        )


def test_resnet_drops_nothing_in_evaluation():
    state, images = random_state(BASIC), random_images(BASIC)

    traces = [network_trace(spec, state, images, training=False)[0] for spec in (DROPPING, BASIC)]

    assert_close(traces[0]["head"], traces[1]["head"], atol=0.0, rtol=0.0)


@pytest.mark.parametrize(
    "fault", [name for name in CONVENTION_FAULTS if name != "conv_bias_flipped"]
)
def test_resnet_check_catches_the_fault_in_its_conventions(fault):
    faulty = seed_spec_fault(fault, BASIC.conventions)
    state, images = random_state(BASIC), random_images(BASIC)
    wrong = ResNetSpec(**{**vars(BASIC), "conventions": faulty})

    expected, expected_buffers = network_trace(BASIC, state, images, training=True)
    actual, buffers = network_trace(wrong, state, images, training=True)

    with pytest.raises(DivergenceError):
        assert_states_close(
            {**actual, **buffers}, {**expected, **expected_buffers}, atol=1e-10, rtol=1e-10
        )
