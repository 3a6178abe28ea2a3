"""The twins as ordinary models: an `nn.Module` and a functional `keras.Model` in plain use."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from parity import runtime
from parity.data.digits import load_digits
from parity.errors import SpecError
from parity.spec.airbench import airbench_conventions, airbench_spec
from parity.spec.conventions import KERAS, TORCH
from parity.spec.initializers import Zeros, initializer
from parity.spec.losses import CrossEntropy
from parity.spec.optimizers import Lookahead, Update
from parity.testing import specs
from parity.testing.assertions import assert_close, assert_identical

SPEC = dataclasses.replace(
    specs.RESNET, blocks=(1, 1), width=8, in_channels=1, input_size=(8, 8), classes=10
)
POOLED = dataclasses.replace(SPEC, stem="imagenet", block="bottleneck", input_size=(17, 16))
LOSS = CrossEntropy(label_smoothing=0.0, reduction="mean")
SGD = dataclasses.replace(specs.SGD, nesterov=True, l2=5e-4)
ADAM = dataclasses.replace(specs.ADAM, decoupled_decay=0.01)
RULES = pytest.mark.parametrize("rule", [SGD, ADAM], ids=lambda rule: rule.kind)

EPOCHS = 6

# Outputs of one float32 net computed in another order, relative to the largest.
FLOAT32 = 1e-5


@pytest.fixture(scope="module")
def digits():
    """Return 256 images `(n, h, w, c)` of mean 0 and their one-hot labels."""
    dataset = load_digits()
    images = dataset.train_images[:256].astype(np.float32) / dataset.scale
    return images - images.mean(), np.eye(10, dtype=np.float32)[dataset.train_labels[:256]]


@pytest.fixture(scope="module")
def keras():
    runtime.select_keras_backend(None)
    return sys.modules["keras"]


def random_images(spec, n=4):
    shape = (n, *spec.input_size, spec.in_channels)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def torch_images(images):
    import torch

    return torch.from_numpy(images).permute(0, 3, 1, 2)


def assert_falls(losses):
    """Check that a loss that starts near `log 10` halves."""
    assert losses[0] > 1.5
    assert losses[-1] < 0.5 * losses[0]


@RULES
def test_torch_module_learns_in_a_plain_loop(digits, rule):
    import torch

    import models_torch

    images, targets = torch_images(digits[0]), torch.from_numpy(digits[1])
    torch.manual_seed(0)
    model = models_torch.resnet(SPEC).train()
    loss_fn = models_torch.build_loss(LOSS)
    optimizer = models_torch.build_optimizer(Update(rule=rule), model=model)
    losses = []
    for start in [*range(0, 256, 32)] * EPOCHS:
        optimizer.zero_grad()
        loss = loss_fn(model(images[start : start + 32]), targets[start : start + 32])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert_falls(np.reshape(losses, (EPOCHS, -1)).mean(axis=1))


def test_torch_module_compiles_whole():
    import torch

    import models_torch

    model = models_torch.resnet(POOLED).eval()
    images = torch_images(random_images(POOLED))
    with torch.no_grad():
        expected = model(images).numpy()
        # Captures and lowers the graph as the default does, and needs no C++ compiler.
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        outputs = compiled(images).numpy()

    assert_close(outputs, expected, atol=FLOAT32 * np.abs(expected).max(), rtol=0.0)


@pytest.mark.parametrize("preset", [TORCH, KERAS], ids=["torch", "keras"])
def test_torch_state_dict_makes_the_round_trip(tmp_path, preset):
    import torch

    import models_torch

    spec = dataclasses.replace(POOLED, conventions=preset.conventions)
    saved, loaded = models_torch.resnet(spec), models_torch.resnet(spec)
    saved(torch_images(random_images(spec)))  # moves the buffers from what both start with
    torch.save(saved.state_dict(), tmp_path / "net.pt")

    loaded.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True), strict=True)

    images = torch_images(random_images(spec))
    with torch.no_grad():
        assert_identical(loaded.eval()(images).numpy(), saved.eval()(images).numpy())


def test_torch_state_dict_of_another_model_is_refused():
    import models_torch

    with pytest.raises(RuntimeError, match="Missing key"):
        models_torch.resnet(POOLED).load_state_dict(models_torch.resnet(SPEC).state_dict())


def torch_arrays(spec):
    import models_torch

    return {name: p.detach().numpy() for name, p in models_torch.resnet(spec).named_parameters()}


def keras_arrays(spec):
    import models_keras
    from parity.spec.paths import layer_path

    slots = {"kernel": "weight", "gamma": "weight", "bias": "bias", "beta": "bias"}
    model = models_keras.resnet(spec)
    return {
        f"{layer_path(layer.name)}.{slots[variable.name]}": variable.numpy()
        for layer in model.layers
        for variable in layer.trainable_variables
    }


INITIAL = {"torch": torch_arrays, "keras": keras_arrays}
# Wide enough for some thousand draws an array.
WIDE = dataclasses.replace(SPEC, width=24, classes=50)
DRAWN = {
    "stages.1.blocks.0.conv1.weight": "conv_init",
    "stages.1.blocks.0.conv2.weight": "conv_init",
    "head.weight": "head_weight_init",
}


@pytest.mark.parametrize("framework", INITIAL)
@pytest.mark.parametrize("preset", [TORCH, KERAS], ids=["torch", "keras"])
@pytest.mark.parametrize("name", DRAWN)
def test_initial_weights_follow_the_named_distribution(keras, framework, preset, name):
    spec = dataclasses.replace(WIDE, conventions=preset.conventions)
    layer = next(layer for layer in spec.layers() if f"{layer.path}.weight" == name)
    rule = initializer(getattr(preset.conventions, DRAWN[name]))
    expected = rule.deviation(layer.fans())
    keras.utils.set_random_seed(0)

    array = INITIAL[framework](spec)[name]

    # Five deviations of the measured deviation of a normal sample; a uniform one varies less.
    assert abs(array.std() / expected - 1.0) < 5.0 / np.sqrt(2.0 * array.size)
    assert abs(array.mean()) < 5.0 * expected / np.sqrt(array.size)
    # A normal sample of thousands goes beyond three deviations, a uniform one stays within sqrt(3).
    largest = np.abs(array).max() / expected
    assert largest <= np.sqrt(3.0) if rule.distribution == "uniform" else largest > 3.0


@pytest.mark.parametrize("framework", INITIAL)
@pytest.mark.parametrize("preset", [TORCH, KERAS], ids=["torch", "keras"])
def test_initial_biases_follow_the_named_distribution(keras, framework, preset):
    spec = dataclasses.replace(WIDE, conventions=preset.conventions)
    rule = initializer(preset.conventions.head_bias_init)
    bound = 0.0 if isinstance(rule, Zeros) else rule.bound(spec.layers()[-1].fans())

    largest = np.abs(INITIAL[framework](spec)["head.bias"]).max()

    assert 0.7 * bound <= largest <= bound


def compiled_model(keras, rule, spec=SPEC):
    import models_keras

    model = models_keras.resnet(spec)
    model.compile(
        optimizer=models_keras.build_optimizer(Update(rule=rule), model=model),
        loss=models_keras.build_loss(LOSS),
    )
    return model


@pytest.mark.slow
@RULES
def test_keras_model_fits(keras, digits, rule):
    keras.utils.set_random_seed(0)

    history = (
        compiled_model(keras, rule).fit(*digits, batch_size=32, epochs=EPOCHS, verbose=0).history
    )

    assert_falls(history["loss"])


@pytest.mark.slow
def test_keras_model_fits_with_stock_optimizer_and_loss(keras, digits):
    import models_keras

    keras.utils.set_random_seed(0)
    model = models_keras.resnet(SPEC)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(0.05, momentum=0.9), loss=loss)

    history = model.fit(*digits, batch_size=32, epochs=EPOCHS, verbose=0).history

    assert_falls(history["loss"])


def predict(model, images):
    return np.asarray(model.predict(images, verbose=0))


@pytest.mark.parametrize("preset", [TORCH, KERAS], ids=["torch", "keras"])
def test_keras_archive_makes_the_round_trip(keras, tmp_path, preset):
    import models_keras

    spec = dataclasses.replace(POOLED, conventions=preset.conventions)
    model, images = models_keras.resnet(spec), random_images(POOLED)
    model(images, training=True)
    model.save(tmp_path / "net.keras")

    loaded = keras.saving.load_model(tmp_path / "net.keras")

    assert_identical(predict(loaded, images), predict(model, images))


DROPPING = dataclasses.replace(POOLED, blocks=(2,), stochastic_depth=0.5, dropout=0.3)


def test_torch_module_draws_what_it_drops_when_told_nothing():
    import torch

    import models_torch

    torch.manual_seed(0)
    model, images = models_torch.resnet(DROPPING), torch_images(random_images(DROPPING))
    with torch.no_grad():
        drawn = [model.train()(images).numpy() for _ in range(2)]
        kept = [model.eval()(images).numpy() for _ in range(2)]

    assert np.any(drawn[0] != drawn[1])
    assert_identical(kept[0], kept[1])


def test_keras_model_draws_what_it_drops_when_told_nothing(keras):
    import models_keras

    keras.utils.set_random_seed(0)
    model, images = models_keras.resnet(DROPPING), random_images(DROPPING)
    model.compile(optimizer="sgd", loss="mse")
    model.fit(images, np.zeros((len(images), DROPPING.classes)), verbose=0)
    drawn = [keras.ops.convert_to_numpy(model(images, training=True)) for _ in range(2)]

    assert np.any(drawn[0] != drawn[1])
    assert_identical(predict(model, images), predict(model, images))


@RULES
def test_compiled_keras_archive_goes_on_training_where_it_stopped(keras, digits, tmp_path, rule):
    images, targets = (array[:32] for array in digits)
    model = compiled_model(keras, rule)
    model.train_on_batch(images, targets)
    model.save(tmp_path / "net.keras")

    loaded = keras.saving.load_model(tmp_path / "net.keras")

    assert type(loaded.optimizer) is type(model.optimizer)
    for net in (model, loaded):
        net.train_on_batch(images, targets)
    for actual, expected in zip(loaded.weights, model.weights, strict=True):
        assert_identical(actual.numpy(), expected.numpy(), where=expected.path)


@pytest.mark.backend
@pytest.mark.parametrize("saved_by", ["resnet", "inference_model"])
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_keras_weights_pass_between_twin_and_stock_layers(keras, tmp_path, saved_by, rate):
    import models_keras

    spec = dataclasses.replace(POOLED, stochastic_depth=rate, dropout=rate)
    builders = {"resnet": models_keras.resnet, "inference_model": models_keras.inference_model}
    images = random_images(spec)
    source = builders.pop(saved_by)(spec)
    source(images, training=True)
    source.save_weights(tmp_path / "net.weights.h5")
    (build,) = builders.values()
    target = build(spec)

    target.load_weights(tmp_path / "net.weights.h5")

    assert_identical(predict(target, images), predict(source, images))


# Loads a model where neither the twins nor the toolkit can be imported.
LOADER = """
import importlib.abc, json, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] in ("models_keras", "models_torch", "parity", "conversion"):
            raise ImportError(fullname)

sys.meta_path.insert(0, Blocked())
import keras, numpy
images = numpy.load(sys.argv[2])
outputs = keras.saving.load_model(sys.argv[1]).predict(images, verbose=0)
print(json.dumps(numpy.asarray(outputs).tolist()))
"""


def load_elsewhere(folder):
    return subprocess.run(
        [sys.executable, "-I", "-c", LOADER, folder / "net.keras", folder / "images.npy"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("spec", [POOLED, specs.AIRBENCH], ids=["resnet", "airbench"])
def test_inference_model_loads_without_this_package(keras, tmp_path, spec):
    import models_keras

    images = random_images(spec)
    model = models_keras.inference_model(spec)
    model.save(tmp_path / "net.keras")
    np.save(tmp_path / "images.npy", images)

    finished = load_elsewhere(tmp_path)

    assert finished.returncode == 0, finished.stderr
    outputs = np.array(json.loads(finished.stdout.splitlines()[-1]), dtype=np.float32)
    assert_identical(outputs, predict(model, images))


@pytest.mark.slow
def test_twin_with_its_own_layer_does_not_load_without_this_package(keras, tmp_path):
    import models_keras

    models_keras.resnet(POOLED).save(tmp_path / "net.keras")
    np.save(tmp_path / "images.npy", random_images(POOLED))

    finished = load_elsewhere(tmp_path)

    assert finished.returncode != 0
    assert "BatchNormalization" in finished.stderr


@pytest.mark.backend
@pytest.mark.parametrize("correction", [0, 1])
def test_running_variance_after_fit_is_of_the_asked_kind(keras, digits, correction):
    conventions = dataclasses.replace(TORCH.conventions, bn_variance_correction=correction)
    model = compiled_model(keras, SGD, dataclasses.replace(SPEC, conventions=conventions))
    images, targets = (array[:4] for array in digits)
    convolution = keras.Model(model.input, model.get_layer("stem-conv").output)
    values = predict(convolution, images)

    model.fit(images, targets, batch_size=4, epochs=1, verbose=0)

    variance = values.astype(np.float64).var(axis=(0, 1, 2), ddof=correction)
    actual = model.get_layer("stem-bn").moving_variance.numpy()
    # 256 values a channel: the other kind is 4e-3 of its share of 0.1 away.
    assert_close(actual, 0.9 + 0.1 * variance, atol=0.0, rtol=3e-7)


@pytest.mark.backend
def test_average_of_a_keras_model_writes_back_while_it_is_fitted(keras, digits):
    """Slow weights are half way between the last slow ones and where each step leads."""
    import models_keras

    lookahead = Lookahead(every=1, slow_rate=0.5, starts_at="initial_weights", scores_slow=True)
    fitted, stepped = (compiled_model(keras, SGD) for _ in range(2))
    stepped.set_weights(fitted.get_weights())
    average = models_keras.Average(lookahead, model=fitted)
    images, targets = (array[:8] for array in digits)

    # A callback that reads `model` finds its present weights on jax, too.
    moves = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: (
            moves.model and average.update(count=batch + 1, progress=(batch + 1) / 2)
        )
    )
    fitted.fit(images, targets, batch_size=4, shuffle=False, verbose=0, callbacks=[moves])

    for part in (slice(0, 4), slice(4, 8)):
        slow = [variable.numpy().copy() for variable in stepped.trainable_variables]
        stepped.train_on_batch(images[part], targets[part])
        for variable, start in zip(stepped.trainable_variables, slow, strict=True):
            variable.assign((start + variable.numpy()) / 2)
    for actual, expected in zip(
        fitted.trainable_variables, stepped.trainable_variables, strict=True
    ):
        assert_close(actual.numpy(), expected.numpy(), atol=FLOAT32, rtol=FLOAT32)


@pytest.mark.backend
def test_inference_model_of_an_airbench_network_predicts_what_the_twin_does(keras, tmp_path):
    import models_keras

    twin, images = models_keras.airbench(specs.AIRBENCH), random_images(specs.AIRBENCH)
    twin(images, training=True)
    twin.save_weights(tmp_path / "net.weights.h5")
    model = models_keras.inference_model(specs.AIRBENCH)

    model.load_weights(tmp_path / "net.weights.h5")

    expected = predict(twin, images)
    assert_close(predict(model, images), expected, atol=FLOAT32 * np.abs(expected).max(), rtol=0.0)


def test_inference_model_of_a_tanh_gelu_is_refused(keras):
    import models_keras

    spec = dataclasses.replace(specs.AIRBENCH, gelu="tanh")
    with pytest.raises(SpecError, match="gelu: expected the exact GELU"):
        models_keras.inference_model(spec)


@pytest.mark.backend
def test_airbench_twin_makes_the_round_trip_through_a_keras_file(keras, tmp_path):
    import models_keras

    model, images = models_keras.airbench(specs.AIRBENCH), random_images(specs.AIRBENCH)
    model.save(tmp_path / "net.keras")

    loaded = keras.saving.load_model(tmp_path / "net.keras")

    assert_identical(predict(loaded, images), predict(model, images))
    assert not loaded.get_layer("whiten").kernel.trainable
    assert loaded.get_layer("whiten").bias.trainable


@pytest.mark.parametrize("twin", ["torch", "keras"])
def test_airbench_twin_draws_what_its_conventions_name(keras, twin):
    name = "airbench94_muon:width=4"
    spec = airbench_spec(
        name,
        conventions=airbench_conventions(name),
        in_channels=3,
        input_size=(16, 16),
        classes=10,
    )
    if twin == "torch":
        import models_torch

        state = models_torch.airbench(spec).state_dict()
        weight, head = state["blocks.1.conv1.weight"].numpy(), state["head.weight"].numpy()
    else:
        import models_keras

        model = models_keras.airbench(spec)
        kernel = model.get_layer("blocks-1-conv1").kernel
        weight = keras.ops.convert_to_numpy(kernel).transpose(3, 2, 0, 1)
        head = keras.ops.convert_to_numpy(model.get_layer("head").kernel)

    assert_identical(np.ascontiguousarray(weight[:4]).sum(axis=(2, 3)), np.eye(4, dtype=np.float32))
    assert (weight[:4, :, 1, 1] == np.eye(4)).all()
    assert 0.8 / 6.0 < abs(weight[4:]).max() <= np.float32(1.0 / 6.0)
    assert_close(head.astype(np.float64).std(ddof=1), 1.0, atol=1e-6, rtol=0.0)
