"""`compare_models` on models as users write them: right ones pass, wrong ones are named."""

import importlib

import numpy as np
import pytest

import parity
from parity import runtime
from parity.errors import CaptureError

torch = pytest.importorskip("torch")
runtime.select_keras_backend(None)
keras = pytest.importorskip("keras")
nn, F = torch.nn, torch.nn.functional  # torch's own short name
layers, ops = keras.layers, keras.ops

IMAGES = np.random.default_rng(0).standard_normal((4, 3, 10, 10)).astype(np.float32)
LABELS = np.array([0, 2, 1, 2])
LOSSES = (
    nn.CrossEntropyLoss(),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
)


class Net(nn.Module):
    """A small residual network; its names and its order of definition say nothing."""

    def __init__(self, *, epsilon=1e-3, slope=0.0):
        super().__init__()
        self.head = nn.Linear(8 * 25, 3)
        self.inner = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8, eps=epsilon)
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.slope = slope

    def forward(self, x):
        x = F.leaky_relu(self.first(x), self.slope) if self.slope else F.relu(self.first(x))
        x = x + F.relu(self.norm(self.inner(x)), inplace=True)
        return self.head(torch.flatten(x, 1))


def keras_net(*, epsilon=1e-3, pad=((1, 1), (1, 1)), residual=True, final="linear"):
    """The same as a functional model; `pad` is what torch's stride starts from."""
    inputs = keras.Input((10, 10, 3))
    x = layers.ZeroPadding2D(pad)(inputs)
    x = skip = layers.Conv2D(8, 3, strides=2, activation="relu")(x)
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization(epsilon=epsilon)(x))
    x = layers.Add()([x, skip]) if residual else x
    return keras.Model(inputs, layers.Dense(3, activation=final)(layers.Flatten()(x)))


def measured(model):
    """Give a torch model's batch norms the statistics of the images."""
    model.train()
    with torch.no_grad():
        for _ in range(20):
            model(torch.tensor(IMAGES))
    return model.eval()


@pytest.mark.backend
def test_a_right_port_is_equivalent_in_every_phase_but_what_the_frameworks_store():
    finding = parity.compare_models(
        measured(Net()), keras_net(), IMAGES, loss=LOSSES, targets=LABELS
    )

    others = [figure for figure in finding.figures if figure.phase != "buffers"]
    assert max(figure.ratio for figure in others) < 10
    assert {figure.phase for figure in others} == {"forward", "train", "loss", "gradients"}
    # torch stores the unbiased variance of a batch, Keras the biased one.
    assert finding.phase == "buffers"
    assert finding.reference_layer == "norm"


def test_neither_model_is_changed():
    reference, candidate = measured(Net()), keras_net()
    before = [array.copy() for array in candidate.get_weights()]
    state = {name: tensor.clone() for name, tensor in reference.state_dict().items()}

    assert parity.compare_models(reference, candidate, IMAGES).is_equivalent

    assert all(map(np.array_equal, before, candidate.get_weights()))
    assert all(torch.equal(state[name], now) for name, now in reference.state_dict().items())


WRONG = {
    "epsilon": (lambda: keras_net(epsilon=1.01e-3), "norm"),
    "stride": (lambda: keras_net(pad=((0, 2), (0, 2))), "first"),
    "residual": (lambda: keras_net(residual=False), "/add"),
    "softmax": (lambda: keras_net(final="softmax"), "output"),
}


@pytest.mark.backend
@pytest.mark.parametrize("mistake", WRONG)
def test_a_wrong_port_diverges_at_its_first_wrong_layer(mistake):
    make, layer = WRONG[mistake]

    finding = parity.compare_models(measured(Net()), make(), IMAGES)

    assert finding.verdict == "diverges"
    assert (finding.phase, finding.reference_layer) == ("forward", layer)


def test_what_one_side_does_more_at_its_end_is_named():
    head = nn.Linear(3, 3)

    finding = parity.compare_models(head, nn.Sequential(head, nn.Softmax(-1)), IMAGES[0, 0, :, :3])

    assert finding.verdict == "diverges"
    assert (finding.reference_layer, finding.candidate_layer) == ("output", "1")


def test_first_values_of_unlike_shapes_are_where_models_part():
    def net(padding):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=padding), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
        )  # fmt: skip

    finding = parity.compare_models(net(1), net(0), IMAGES)

    assert finding.verdict == "not the same function"
    assert (finding.phase, finding.reference_layer, finding.candidate_layer) == (
        "forward",
        "1",
        "1",
    )


@pytest.mark.backend
def test_average_pool_that_leaves_padding_out_is_the_quotient_of_two():
    inputs = keras.Input((10, 10, 3))
    padded, ones = (layers.ZeroPadding2D(1)(x) for x in (inputs, ops.ones_like(inputs)))
    pooled, shares = (ops.average_pool(x, 3, 2, padding="valid") for x in (padded, ones))
    outputs = layers.Dense(2)(layers.GlobalAveragePooling2D()(pooled / shares))
    reference = nn.Sequential(
        nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(3, 2),
    )

    assert parity.compare_models(reference, keras.Model(inputs, outputs), IMAGES).is_equivalent


def test_torch_is_compared_with_torch():
    reference = measured(Net())
    twin = nn.Sequential(
        reference.first, nn.ReLU(), Block(reference.inner, reference.norm), nn.Flatten(),
        reference.head,
    ).eval()  # fmt: skip

    assert parity.compare_models(reference, twin, IMAGES).is_equivalent


class Block(nn.Module):
    def __init__(self, conv, norm):
        super().__init__()
        self.conv, self.norm = conv, norm

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x))).add(x)


class Flipped(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x).flip(0)


def test_an_output_flipped_along_the_batch_is_caught():
    net = measured(Net())

    finding = parity.compare_models(net, Flipped(net), IMAGES)

    assert finding.verdict == "diverges"
    assert finding.reference_layer == "output"


class DoubledGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


class WrongBackward(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        y = F.relu(self.inner.first(x))
        y = y + F.relu(self.inner.norm(self.inner.inner(DoubledGradient.apply(y))))
        return self.inner.head(torch.flatten(y, 1))


def test_a_gradient_that_alone_is_wrong_is_caught():
    net = measured(Net())

    finding = parity.compare_models(
        net, WrongBackward(net), IMAGES, loss=(LOSSES[0], LOSSES[0]), targets=LABELS
    )

    assert finding.verdict == "diverges"
    assert (finding.phase, finding.reference_layer) == ("gradients", "/relu")


def test_weights_as_they_are_show_the_one_that_differs():
    reference, candidate = measured(Net()), measured(Net())
    candidate.load_state_dict(reference.state_dict())
    with torch.no_grad():
        candidate.inner.weight[3, 2, 1, 0] *= 1.001

    finding = parity.compare_models(reference, candidate, IMAGES, weights="as-is")

    assert (finding.verdict, finding.phase) == ("diverges", "weights")
    assert finding.reference_layer == "inner"
    assert next(f for f in finding.figures if f.quantity == "inner.weight").where == "3, 2, 1, 0"


def test_networks_of_other_widths_are_not_the_same_function():
    wider = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(512, 3))
    narrower = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten(), nn.Linear(384, 3))

    finding = parity.compare_models(wider, narrower, IMAGES)

    assert finding.verdict == "not the same function"
    assert "(4, 8, 8, 8)" in finding.reason


def test_outputs_that_hardly_depend_on_the_inputs_are_vacuous():
    def saturated():
        torch.manual_seed(0)
        head = nn.Linear(8, 3)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head
        )

    reference, candidate = saturated(), saturated()
    for model in (reference, candidate):
        model[1].running_var.fill_(1e14)

    finding = parity.compare_models(reference.eval(), candidate.eval(), IMAGES)

    assert finding.verdict == "vacuous"
    assert finding.sensitivity < 1e-4


def test_losses_of_another_reduction_are_caught():
    finding = parity.compare_models(
        measured(Net()),
        measured(Net()),
        IMAGES,
        loss=(nn.CrossEntropyLoss(), nn.CrossEntropyLoss(reduction="sum")),
        targets=LABELS,
    )

    assert (finding.verdict, finding.phase) == ("diverges", "loss")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"inputs": IMAGES[:, :, :3, :3]}, "shape"),
        ({"phases": ["forwards"]}, "Nearest: forward"),
        ({"phases": ["gradients"]}, "expected loss="),
        ({"candidate_inputs": IMAGES + 1}, "same numbers"),
        ({"candidate_inputs": [IMAGES, IMAGES]}, "cannot be called on inputs of shapes"),
        ({"pinned": {"firts": "first"}}, "Nearest: first"),
    ],
    ids=["shape", "phase", "loss", "numbers", "count", "pin"],
)
def test_wrong_arguments_are_refused(arguments, expected):
    call = {"inputs": IMAGES, **arguments}

    with pytest.raises(CaptureError, match=expected):
        parity.compare_models(Net(), Net(), call.pop("inputs"), **call)


def test_an_input_layout_that_is_not_declared_is_asked_for():
    class Undeclared(keras.Model):
        def __init__(self):
            super().__init__()
            self.head = layers.Dense(3)

        def call(self, x):
            return self.head(ops.mean(x, axis=(1, 2)))

    reference = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))

    with pytest.raises(CaptureError, match="candidate_inputs="):
        parity.compare_models(reference, Undeclared(), IMAGES)
    last = np.moveaxis(IMAGES, 1, -1)
    assert parity.compare_models(
        reference, Undeclared(), IMAGES, candidate_inputs=last
    ).is_equivalent


def test_what_is_no_model_is_refused():
    with pytest.raises(CaptureError, match=r"or a keras\.Model; got int"):
        parity.compare_models(3, Net(), IMAGES)


def test_what_float32_does_not_show_is_told_and_no_divergence_of_float32_models():
    fine = Net(epsilon=1.00001e-3)
    fine.load_state_dict((reference := measured(Net())).state_dict())

    single = parity.compare_models(reference, fine.eval(), IMAGES)
    double = parity.compare_models(
        reference.double(), fine.double(), IMAGES.astype(np.float64), measures_power=False
    )

    assert single.verdict == "numerically equivalent"
    assert "less than float32 shows. In float64 they part first at norm" in single.reason
    assert (double.verdict, double.reference_layer) == ("diverges", "norm")


class Positions(nn.Module):
    """Learned vectors added to the steps of a sequence, as a parameter or looked up."""

    def __init__(self, *, is_embedding):
        super().__init__()
        self.table = nn.Embedding(9, 4) if is_embedding else nn.Parameter(torch.randn(9, 4))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        steps = x.shape[1]
        if isinstance(self.table, nn.Embedding):
            return self.head(x + self.table(torch.arange(steps)))
        return self.head(x + self.table[:steps])


@pytest.mark.parametrize("looked_up", [(False, False), (False, True), (True, False)])
def test_learned_positions_go_over_however_they_are_written(looked_up):
    sequences = np.random.default_rng(0).standard_normal((3, 6, 4)).astype(np.float32)
    reference, candidate = (Positions(is_embedding=one) for one in looked_up)

    finding = parity.compare_models(reference, candidate, sequences)

    assert finding.is_equivalent


@pytest.mark.parametrize("frozen", ["reference", "candidate"])
def test_a_layer_that_is_trained_on_one_side_alone_is_caught(frozen):
    sides = {"reference": measured(Net()), "candidate": measured(Net())}
    sides[frozen].inner.requires_grad_(requires_grad=False)

    finding = parity.compare_models(
        *sides.values(), IMAGES, loss=(LOSSES[0], LOSSES[0]), targets=LABELS
    )

    assert (finding.verdict, finding.phase) == ("diverges", "gradients")
    assert finding.reference_layer == "inner"


def test_a_layer_that_neither_side_trains_is_no_divergence():
    sides = [measured(Net()), measured(Net())]
    for side in sides:
        side.inner.requires_grad_(requires_grad=False)

    assert parity.compare_models(
        *sides, IMAGES, loss=(LOSSES[0], LOSSES[0]), targets=LABELS
    ).is_equivalent


def test_a_reference_that_is_not_finite_is_not_compared():
    net = measured(Net())
    net.head.weight.data.fill_(torch.nan)

    finding = parity.compare_models(net, net, IMAGES)

    assert finding.verdict == "not compared"
    assert "not finite" in finding.reason


@pytest.mark.parametrize("inputs", [torch.tensor(IMAGES), IMAGES.tolist(), [IMAGES], (IMAGES,)])
def test_tensors_and_plain_numbers_are_inputs(inputs):
    net = measured(Net())

    assert parity.compare_models(net, net, inputs, measures_power=False).is_equivalent


@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_targets_that_do_not_fit_the_loss_are_refused(framework):
    model, loss = (Net(), LOSSES[0]) if framework == "torch" else (keras_net(), LOSSES[1])
    images = IMAGES if framework == "torch" else np.moveaxis(IMAGES, 1, -1)

    with pytest.raises(CaptureError, match="loss: cannot be called on outputs and targets"):
        parity.compare_models(model, model, images, loss=(loss, loss), targets=LABELS[:3])


class Cumulated(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return torch.cumsum(self.head(x), dim=1)


class RawCumulated(layers.Layer):
    """Calls tensorflow itself, which cannot be followed."""

    def __init__(self):
        super().__init__()
        self.head = layers.Dense(3)

    def build(self, shape):
        self.head.build(shape)

    def call(self, x):
        return importlib.import_module("tensorflow").math.cumsum(self.head(x), axis=1)


def test_a_part_that_cannot_be_followed_is_not_compared_but_as_it_is():
    inputs = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    reference, raw = Cumulated(), RawCumulated()
    symbol = keras.Input((5,))
    candidate = keras.Model(symbol, raw(symbol))

    transferred = parity.compare_models(reference, candidate, inputs)
    kernel, bias = (one.detach().numpy() for one in (reference.head.weight, reference.head.bias))
    raw.head.set_weights([kernel.T, bias])
    as_is = parity.compare_models(reference, candidate, inputs, weights="as-is")

    assert transferred.verdict == "not compared"
    assert "as-is" in transferred.reason
    assert as_is.is_equivalent


def test_pools_over_pools_tie_and_are_no_divergence():
    torch.manual_seed(0)
    reference = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.MaxPool2d(3, 2),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    candidate = keras.Sequential(
        [
            keras.Input((10, 10, 3)),
            layers.Conv2D(4, 3),
            layers.MaxPooling2D(3, 2),
            layers.GlobalMaxPooling2D(),
            layers.Dense(3),
        ]
    )

    finding = parity.compare_models(reference, candidate, IMAGES, loss=LOSSES, targets=LABELS)

    assert finding.is_equivalent


def test_two_biases_that_are_added_are_one_as_they_are():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(5, 3, batch_first=True)

        def forward(self, x):
            return self.lstm(x)[0]

    sequences = np.random.default_rng(0).standard_normal((2, 4, 5)).astype(np.float32)
    layer = layers.LSTM(3, return_sequences=True)
    reference, candidate = keras.Sequential([keras.Input((4, 5)), layer]), Recurrent()
    arrays = {name: one.detach().numpy() for name, one in candidate.lstm.named_parameters()}
    bias = arrays["bias_ih_l0"] + arrays["bias_hh_l0"]
    layer.set_weights([arrays["weight_ih_l0"].T, arrays["weight_hh_l0"].T, bias])

    right = parity.compare_models(reference, candidate, sequences, weights="as-is")
    with torch.no_grad():
        candidate.lstm.bias_hh_l0[2] += 0.01
    wrong = parity.compare_models(reference, candidate, sequences, weights="as-is")

    assert right.is_equivalent
    assert (wrong.verdict, wrong.phase) == ("diverges", "weights")
