"""Attention written out is compared with the layer that computes it, in either framework."""

import numpy as np
import pytest

import parity
from parity import runtime
from parity.compare.attention import contract, find_written
from parity.frameworks.torch_program import capture_torch
from parity.rng import stream

torch = pytest.importorskip("torch")
runtime.select_keras_backend(None)
keras = pytest.importorskip("keras")
nn, F = torch.nn, torch.nn.functional  # torch's own short name
layers, ops = keras.layers, keras.ops

WIDTH, HEADS, STEPS = 8, 2, 5
X = stream(0, "inputs").standard_normal((3, STEPS, WIDTH)).astype(np.float32)
AHEAD = np.triu(np.ones((STEPS, STEPS), bool), 1)


class Layer(nn.Module):
    """A block around PyTorch's own layer."""

    def __init__(self, *, batch_first=True):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x):
        y = self.norm(x)
        return self.head(x + self.attention(y, y, y, need_weights=False)[0])


class Written(nn.Module):
    """The same block with attention written out, packed as `split` says."""

    def __init__(self, split, *, mix=None, is_packed=True):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.first = nn.Linear(WIDTH, 3 * WIDTH) if is_packed else nn.Linear(WIDTH, WIDTH)
        self.second, self.third = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        if is_packed:
            self.second = self.third = None
        self.out, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)
        self.split, self.mix = split, mix or softmax_mix

    def forward(self, x):
        y = self.norm(x)
        mixed = self.mix(*self.split(self, y))
        return self.head(x + self.out(mixed.transpose(1, 2).flatten(2)))


def heads_of(x):
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def chunked(self, y):
    return map(heads_of, self.first(y).chunk(3, dim=-1))


def unbound(self, y):
    return self.first(y).reshape(-1, STEPS, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)


def interleaved(self, y):
    """Each head keeps its query, key and value together."""
    parts = self.first(y).view(-1, STEPS, HEADS, WIDTH // HEADS, 3).transpose(1, 2)
    return parts[..., 1], parts[..., 0], parts[..., 2]


def separate(self, y):
    return map(heads_of, (self.third(y), self.first(y), self.second(y)))


def softmax_mix(query, key, value, *, scale=0.5):
    return ((query * scale) @ key.mT).softmax(-1) @ value


WAYS = {
    "chunks": lambda: Written(chunked),
    "unbound": lambda: Written(unbound),
    "interleaved": lambda: Written(interleaved),
    "separate": lambda: Written(separate, is_packed=False),
    "fused": lambda: Written(chunked, mix=F.scaled_dot_product_attention),
    "dropping": lambda: Written(chunked, mix=Dropping()),
}


class Dropping(nn.Module):
    """A product whose weights are dropped in training."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.2)

    def forward(self, query, key, value):
        return self.dropout((query @ key.mT / 2).softmax(-1)) @ value


def keras_layer(*, causal=False):
    x = keras.Input((STEPS, WIDTH))
    y = layers.LayerNormalization(epsilon=1e-5)(x)
    y = layers.MultiHeadAttention(HEADS, WIDTH // HEADS)(y, y, use_causal_mask=causal)
    return keras.Model(x, layers.Dense(3)(layers.Add()([x, y])))


def keras_written(*, causal=False):
    x = keras.Input((STEPS, WIDTH))
    y = layers.LayerNormalization(epsilon=1e-5)(x)
    query, key, value = (
        ops.transpose(ops.reshape(layers.Dense(WIDTH)(y), (-1, STEPS, HEADS, 4)), (0, 2, 1, 3))
        for _ in range(3)
    )
    scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) / 2.0
    scores = ops.where(AHEAD, -1e9, scores) if causal else scores
    mixed = ops.matmul(ops.softmax(scores), value)
    y = layers.Dense(WIDTH)(ops.reshape(ops.transpose(mixed, (0, 2, 1, 3)), (-1, STEPS, WIDTH)))
    return keras.Model(x, layers.Dense(3)(layers.Add()([x, y])))


def keras_fused():
    x = keras.Input((STEPS, WIDTH))
    y = layers.LayerNormalization(epsilon=1e-5)(x)
    shape = (-1, STEPS, HEADS, WIDTH // HEADS)
    parts = [ops.reshape(layers.Dense(WIDTH)(y), shape) for _ in range(3)]
    mixed = ops.reshape(ops.dot_product_attention(*parts), (-1, STEPS, WIDTH))
    return keras.Model(x, layers.Dense(3)(layers.Add()([x, layers.Dense(WIDTH)(mixed)])))


def losses(*frameworks):
    mean = {"torch": nn.MSELoss(), "keras": keras.losses.MeanSquaredError()}
    return tuple(mean[framework] for framework in frameworks)


def compared(reference, candidate, *frameworks):
    targets = np.zeros((3, STEPS, 3), np.float32)
    return parity.compare_models(reference, candidate, X, loss=losses(*frameworks), targets=targets)


@pytest.mark.parametrize("way", WAYS)
def test_attention_written_out_is_equivalent_to_the_layer(way):
    torch.manual_seed(0)

    finding = compared(Layer(), WAYS[way](), "torch", "torch")

    assert finding.is_equivalent, finding.reason
    forward = [figure for figure in finding.figures if figure.phase == "forward"]
    assert ("attention", "out") in [(figure.reference, figure.candidate) for figure in forward]


@pytest.mark.parametrize("way", WAYS)
def test_the_layer_is_equivalent_to_attention_written_out(way):
    torch.manual_seed(0)

    finding = compared(WAYS[way](), Layer(), "torch", "torch")

    assert finding.is_equivalent, finding.reason


def test_two_ways_to_pack_are_equivalent():
    finding = compared(WAYS["interleaved"](), WAYS["separate"](), "torch", "torch")

    assert finding.is_equivalent, finding.reason


def test_attention_written_out_in_one_way_is_compared_part_by_part():
    finding = compared(WAYS["separate"](), WAYS["separate"](), "torch", "torch")

    assert finding.is_equivalent, finding.reason
    assert {"/softmax", "first", "second"} <= {figure.reference for figure in finding.figures}


ACROSS = {
    "torch layer, keras written": (Layer, keras_written, ("torch", "keras")),
    "keras written, torch layer": (keras_written, Layer, ("keras", "torch")),
    "torch written, keras layer": (WAYS["interleaved"], keras_layer, ("torch", "keras")),
    "keras layer, torch written": (keras_layer, WAYS["chunks"], ("keras", "torch")),
    "torch packed, keras separate": (WAYS["unbound"], keras_written, ("torch", "keras")),
    "torch layer, keras fused": (Layer, keras_fused, ("torch", "keras")),
    "causal, both of keras": (
        lambda: keras_layer(causal=True),
        lambda: keras_written(causal=True),
        ("keras", "keras"),
    ),
}


@pytest.mark.parametrize(("reference", "candidate", "frameworks"), ACROSS.values(), ids=ACROSS)
def test_attention_is_equivalent_across_frameworks(reference, candidate, frameworks):
    finding = compared(reference(), candidate(), *frameworks)

    assert finding.is_equivalent, finding.reason


def test_a_wrong_scale_shows_at_the_attention():
    wrong = Written(chunked, mix=lambda *qkv: softmax_mix(*qkv, scale=0.25))

    finding = compared(Layer(), wrong, "torch", "torch")

    assert finding.verdict == "diverges"
    assert (finding.phase, finding.reference_layer) == ("forward", "attention")


class MaskedLayer(Layer):
    def forward(self, x, mask):
        y = self.norm(x)
        return self.head(self.attention(y, y, y, need_weights=False, attn_mask=mask)[0])


class MaskedWritten(Written):
    def forward(self, x, mask):
        query, key, value = chunked(self, self.norm(x))
        mixed = (query @ key.mT / 2 + mask).softmax(-1) @ value
        return self.head(self.out(mixed.transpose(1, 2).flatten(2)))


class Called(Layer):
    """The layer's arrays given to torch's function, steps first."""

    def forward(self, x):
        y, own = self.norm(x).transpose(0, 1), self.attention
        arrays = own.in_proj_weight, own.in_proj_bias, None, None, False, 0.0
        projection = own.out_proj.weight, own.out_proj.bias
        mixed, _ = F.multi_head_attention_forward(
            y, y, y, WIDTH, HEADS, *arrays, *projection, training=False, need_weights=False
        )
        return self.head(x + mixed.transpose(0, 1))


@pytest.mark.parametrize("way", ["chunks", "separate"])
def test_the_function_that_the_layer_calls_is_a_layer_too(way):
    finding = compared(Called(), WAYS[way](), "torch", "torch")

    assert finding.is_equivalent, finding.reason


MASK = np.where(AHEAD, np.float32(-1e9), np.float32(0))


def test_masked_attention_is_equivalent():
    finding = parity.compare_models(MaskedWritten(chunked), MaskedLayer(), [X, MASK])

    assert finding.is_equivalent, finding.reason
    assert finding.structure == ()


def test_a_mask_is_an_operand():
    trace = capture_torch(MaskedWritten(chunked), (X, MASK)).trace

    (written,) = find_written(trace)

    norm = trace.operations[0].outputs[0]
    assert written.layer.inputs == (norm, norm, norm, trace.inputs[1])


def leaking(self, y):
    query, key, value = chunked(self, y)
    return query + 1.0, key, value


def values_only(self, y):
    query, key, _ = chunked(self, y)
    return query, key, key


@pytest.mark.parametrize("split", [leaking, values_only], ids=["shifted query", "unused value"])
def test_what_no_layer_computes_stays_as_it_is_written(split):
    trace = capture_torch(Written(split), X).trace

    assert find_written(trace) == ()


def test_an_attention_becomes_one_operation_with_the_arrays_of_its_parts():
    trace = capture_torch(Written(chunked), X).trace

    (written,) = find_written(trace)
    names = [operation.name for operation in contract(trace, [written]).operations]

    assert names == ["norm", "out", "/add", "head"]
    assert set(written.layer.weights.values()) == {
        "first.weight",
        "first.bias",
        "out.weight",
        "out.bias",
    }


def test_operations_that_the_user_pins_stay_as_they_are_written():
    trace = capture_torch(Written(chunked), X).trace

    assert find_written(trace, kept=["first"]) == ()
