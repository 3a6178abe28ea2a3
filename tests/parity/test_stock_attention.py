"""The frameworks' own attention against the float64 reference, on drawn shapes and masks.

A layer runs as one that returns its outputs and, where it is asked for them, its shares in one row,
so that each of them sends a gradient back.
"""

import dataclasses
import importlib
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conversion.attention_layouts import to_keras_attention
from parity import runtime
from parity.errors import DivergenceError
from parity.reference import layers as reference
from parity.testing.assertions import assert_close, assert_states_close
from parity.testing.faults import seed_array_fault

# Of the largest value of its kind. The gradient of the key's bias is 0 in theory and a rounding in
# practice: as one of the parameter gradients it is held against the largest of them.
BOUND = 1e-10
# Keras on jax, unless asked for the scores: jax.nn.dot_product_attention (jax 0.10.2) computes its
# softmax in float32, whatever the dtype of its inputs. Measured: 1.7e-7.
JAX_BOUND = 2e-6
# Of the profile's examples: jax compiles each case anew, which takes seconds.
SHARE = 5 if os.environ["KERAS_BACKEND"] == "jax" else 2
KINDS = ("outputs", "input gradients", "parameter gradients")
PARTS = ("query", "key", "value")
WEIGHTS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One configuration; `mask` is the shape of a mask by its axes, such as `nts`."""

    batch: int
    queries: int
    keys: int
    heads: int
    key_dim: int
    value_dim: int
    widths: tuple[int, int, int]
    use_bias: bool
    mask: str | None
    float_mask: bool
    padding: bool
    causal: bool
    with_shares: bool
    seed: int

    def arrays(self):
        draw = np.random.default_rng(self.seed).standard_normal
        sizes = zip(PARTS, (self.queries, self.keys, self.keys), self.widths, strict=True)
        arrays = {part: draw((self.batch, size, width)) for part, size, width in sizes}
        rows = self.heads * self.key_dim, self.heads * self.key_dim, self.heads * self.value_dim
        kernels = [
            draw((count, width)) / np.sqrt(width)
            for count, width in zip(rows, self.widths, strict=True)
        ]
        packed = len({*self.widths}) == 1 and rows[0] == rows[2]
        arrays |= (
            {"in_proj_weight": np.concatenate(kernels)}
            if packed
            else dict(zip(WEIGHTS[1:], kernels, strict=True))
        )
        arrays["out_proj.weight"] = draw((self.widths[0], rows[2])) / np.sqrt(rows[2])
        if self.use_bias:
            arrays |= {"in_proj_bias": draw(sum(rows)), "out_proj.bias": draw(self.widths[0])}
        return arrays

    def masks(self):
        """Return mask, of floats or True to attend, and padding, True to attend; or None.

        Every query keeps its first key: what fully masked ones get has tests of its own.
        """
        generator = np.random.default_rng(self.seed + 1)
        sizes = {"n": self.batch, "h": self.heads, "t": self.queries, "s": self.keys}
        mask = padding = None
        if self.mask is not None:
            mask = generator.random([sizes[axis] for axis in self.mask]) < 0.6
            mask[..., 0] = True
            if self.float_mask:
                mask = np.where(mask, generator.standard_normal(mask.shape), -np.inf)
        if self.padding:
            padding = generator.random((self.batch, self.keys)) < 0.6
            padding[:, 0] = True
        return mask, padding

    def d_parts(self):
        draw = np.random.default_rng(self.seed + 2).standard_normal
        d_outputs = draw((self.batch, self.queries, self.widths[0]))
        d_shares = draw((self.batch, self.heads, self.queries, self.keys))
        return d_outputs, d_shares if self.with_shares else None


@st.composite
def attention_cases(draw, *, framework):
    """Draw a case that the framework's layer can be.

    Torch's heads are as wide together as its query; Keras takes every mask for booleans. Keras'
    padding `(n, 1, s)` meets a mask by head, `(n, heads, t, s)`, with its `n` on the heads (keras
    3.15.1, MultiHeadAttention._compute_attention_mask), so there is only one of them; on jax values
    are as wide as keys, unless the scores are asked for; and on tensorflow several heads of width 1
    have no bias: see the test of it below.
    """
    keras, use_bias = framework == "keras", draw(st.booleans())
    heads = draw(st.integers(1, 3))
    dims = st.integers(2 if keras and use_bias and heads > 1 else 1, 4)
    key_dim = draw(dims)
    own_width = keras and draw(st.booleans())
    width = draw(st.integers(1, 6)) if own_width else heads * key_dim
    mask = draw(st.sampled_from((None, "ts", "nts", "nhts")))
    with_shares = draw(st.booleans())
    others = st.integers(1, 6) if draw(st.booleans()) else st.just(width)
    return Case(
        batch=draw(st.integers(1, 3)),
        queries=draw(st.integers(1, 5)),
        keys=draw(st.integers(1, 5)),
        heads=heads,
        key_dim=key_dim,
        value_dim=draw(dims) if own_width and with_shares else key_dim,
        widths=(width, draw(others), draw(others)),
        use_bias=use_bias,
        mask=mask,
        float_mask=not keras and draw(st.booleans()),
        padding=not (keras and mask == "nhts") and draw(st.booleans()),
        causal=draw(st.booleans()),
        with_shares=with_shares,
        seed=draw(st.integers(0, 2**32 - 1)),
    )


def weights_of(arrays):
    return {name: array for name, array in arrays.items() if name not in PARTS}


def over_heads(mask, case):
    """Return a mask in a shape that broadcasts over the heads."""
    return mask[:, np.newaxis] if case.mask == "nts" else mask


def scale_of(case, framework):
    """Return 1 / sqrt(d), which Keras on tensorflow rounds to float32 (tf.cast of a float)."""
    scale = 1.0 / np.sqrt(case.key_dim)
    rounds = framework == "keras" and runtime.select_keras_backend(None) == "tensorflow"
    return float(np.float32(scale)) if rounds else scale


def reference_arguments(case, framework):
    mask, padding = case.masks()
    mask = None if mask is None else over_heads(mask, case)
    settings_ = {
        "heads": case.heads,
        "scale": scale_of(case, framework),
        "mask_meaning": "add" if case.float_mask else "attend",
        "padding_meaning": "attend",
        "causal": case.causal,
        "fully_masked": "nan",
    }
    arrays = case.arrays()
    return [*(arrays[part] for part in PARTS), weights_of(arrays), mask, padding], settings_


def packed(parts):
    return np.concatenate([part.reshape(-1) for part in parts if part is not None])


def expected_of(case, framework):
    taken, settings_ = reference_arguments(case, framework)
    outputs, shares = reference.multi_head_attention(*taken, **settings_)
    gradients = reference.multi_head_attention_backward(*case.d_parts(), *taken, **settings_)
    return {
        "outputs": {"outputs": packed((outputs, shares if case.with_shares else None))},
        "input gradients": dict(zip(PARTS, gradients[:3], strict=True)),
        "parameter gradients": gradients[3],
    }


def outcome_of(outcome, gradients):
    return {
        "outputs": {"outputs": outcome.outputs},
        "input gradients": dict(zip(PARTS, outcome.input_gradients, strict=True)),
        "parameter gradients": gradients,
    }


def torch_masks(case, *, inverted):
    """Return torch's masks: True to ignore, `(t, s)` or `(n * heads, t, s)`, the causal one in."""
    mask, padding = case.masks()
    if case.causal:
        causal = np.tri(case.queries, case.keys, dtype=bool)
        if case.float_mask and mask is not None:
            mask = np.where(causal, mask, -np.inf)
        else:
            mask = causal if mask is None else mask & causal
    if mask is not None and mask.ndim > 2:
        shape = (case.batch, case.heads, case.queries, case.keys)
        mask = np.broadcast_to(over_heads(mask, case), shape).reshape(-1, *shape[2:])
    masks = [
        ~given if given is not None and given.dtype == bool and inverted else given
        for given in (mask, padding)
    ]
    if masks[0] is not None and masks[1] is not None and masks[0].dtype != bool:
        # Torch wants both of one kind.
        masks[1] = np.where(masks[1], -np.inf, 0.0)
    return masks


def run_torch(case, arrays, built_as=None, *, inverted=True):
    import torch

    from parity.frameworks.torch_layer import run_torch_layer

    built_as = built_as or case
    masks = [
        None if mask is None else torch.tensor(mask)
        for mask in torch_masks(built_as, inverted=inverted)
    ]

    class Packed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = torch.nn.MultiheadAttention(
                case.widths[0],
                built_as.heads,
                bias=case.use_bias,
                kdim=case.widths[1],
                vdim=case.widths[2],
                batch_first=True,
            ).double()

        def forward(self, query, key, value):
            # Asked for its shares, the layer takes another path than without.
            outputs, shares = self.attention(
                query,
                key,
                value,
                attn_mask=masks[0],
                key_padding_mask=masks[1],
                need_weights=case.with_shares,
                average_attn_weights=False,
            )
            parts = [outputs, shares] if case.with_shares else [outputs]
            return torch.cat([part.reshape(-1) for part in parts])

    weights = {f"attention.{name}": array for name, array in weights_of(arrays).items()}
    inputs = [arrays[part] for part in PARTS]
    outcome = run_torch_layer(Packed(), inputs, packed(case.d_parts()), weights=weights)
    gradients = {
        name.removeprefix("attention."): gradient
        for name, gradient in outcome.parameter_gradients.items()
    }
    return outcome_of(outcome, gradients)


def run_keras(case, arrays, built_as=None, *, inverted=False):
    runtime.select_keras_backend(None)
    importlib.import_module("keras")
    with runtime.precision("float64"):
        return run_keras_in_float64(case, arrays, built_as or case, inverted=inverted)


def run_keras_in_float64(case, arrays, built_as, *, inverted):
    import keras

    from parity.frameworks.keras_layer import run_keras_layer

    masks = [
        None if mask is None else keras.ops.convert_to_tensor(~mask if inverted else mask)
        for mask in built_as.masks()
    ]

    class Packed(keras.Layer):
        def __init__(self):
            super().__init__(name="packed")
            self.attention = keras.layers.MultiHeadAttention(
                built_as.heads,
                built_as.key_dim,
                value_dim=built_as.value_dim,
                use_bias=case.use_bias,
                name="attention",
            )

        def build(self):
            query, key, value = ((None, None, width) for width in case.widths)
            self.attention.build(query, value, key)

        def call(self, query, key, value):
            given = {} if masks[1] is None else {"key_mask": masks[1]}
            results = self.attention(
                query,
                value,
                key,
                attention_mask=masks[0],
                use_causal_mask=built_as.causal,
                return_attention_scores=case.with_shares,
                **given,
            )
            parts = results if case.with_shares else [results]
            return keras.ops.concatenate([keras.ops.reshape(part, (-1,)) for part in parts])

    layer = Packed()
    layer.build()
    weights = to_keras_attention(weights_of(arrays), heads=built_as.heads)
    outcome = run_keras_layer(
        layer,
        [arrays[part] for part in PARTS],
        packed(case.d_parts()),
        weights={f"attention/{name}": array for name, array in weights.items()},
    )
    gradients = {
        name.removeprefix("attention/"): gradient
        for name, gradient in outcome.parameter_gradients.items()
    }
    return outcome_of(outcome, gradients)


RUNS = {"torch": run_torch, "keras": run_keras}


def bound_of(case, framework):
    if framework != "keras" or case.with_shares:
        return BOUND
    return JAX_BOUND if runtime.select_keras_backend(None) == "jax" else BOUND


def assert_matches_reference(outcome, case, framework, kinds=KINDS):
    """Compare in the framework's own layout: Keras has layers that torch's cannot hold."""
    expected = expected_of(case, framework)
    if framework == "keras":
        expected["parameter gradients"] = to_keras_attention(
            expected["parameter gradients"], heads=case.heads
        )
    bound = bound_of(case, framework)
    for kind in kinds:
        scale = max(float(np.abs(array).max()) for array in expected[kind].values())
        assert_states_close(outcome[kind], expected[kind], atol=bound * scale, rtol=0.0, where=kind)


@given(case=attention_cases(framework="torch"))
def test_torch_attention_matches_reference(case):
    assert_matches_reference(run_torch(case, case.arrays()), case, "torch")


@pytest.mark.backend
@settings(max_examples=settings.default.max_examples // SHARE)
@given(case=attention_cases(framework="keras"))
def test_keras_attention_matches_reference(case):
    assert_matches_reference(run_keras(case, case.arrays()), case, "keras")


SAMPLE = Case(
    batch=2,
    queries=3,
    keys=4,
    heads=2,
    key_dim=2,
    value_dim=2,
    widths=(4, 4, 4),
    use_bias=True,
    mask="nts",
    float_mask=False,
    padding=True,
    causal=False,
    with_shares=True,
    seed=3,
)


@pytest.mark.parametrize("framework", RUNS)
@pytest.mark.parametrize("with_shares", [True, False])
@pytest.mark.parametrize(
    ("name", "fault", "kind"),
    [
        ("in_proj_weight", "channels_swapped", "outputs"),
        ("in_proj_weight", "through_float16", "input gradients"),
        ("out_proj.weight", "square_transposed", "outputs"),
        ("out_proj.weight", "element_sign_flipped", "parameter gradients"),
        ("in_proj_bias", "sign_flipped", "outputs"),
        ("out_proj.bias", "element_bumped", "outputs"),
        ("key", "element_bumped", "input gradients"),
        ("value", "channels_swapped", "outputs"),
    ],
)
def test_attention_check_catches_a_fault_in_its_arrays(framework, with_shares, name, fault, kind):
    case = dataclasses.replace(SAMPLE, with_shares=with_shares)
    arrays = case.arrays()
    faulty = RUNS[framework](case, arrays | {name: seed_array_fault(fault, arrays[name])})

    with pytest.raises(DivergenceError, match=f"^{kind}: "):
        assert_matches_reference(faulty, case, framework, (kind,))


@pytest.mark.parametrize("framework", RUNS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("with_shares", [True, False])
@pytest.mark.parametrize(
    "change", [{"causal": True}, {"mask": None}, {"padding": False}, {"seed": 4}]
)
def test_attention_check_catches_a_wrong_mask(framework, kind, with_shares, change):
    case = dataclasses.replace(SAMPLE, with_shares=with_shares)
    built_as = dataclasses.replace(case, **change)
    faulty = RUNS[framework](case, case.arrays(), built_as)

    with pytest.raises(DivergenceError, match=f"^{kind}: "):
        assert_matches_reference(faulty, case, framework, (kind,))


@pytest.mark.parametrize("framework", RUNS)
def test_attention_check_catches_a_mask_of_the_other_meaning(framework):
    case = dataclasses.replace(SAMPLE, padding=False, mask="ts", with_shares=False)
    faulty = RUNS[framework](case, case.arrays(), inverted=framework == "keras")

    with pytest.raises(DivergenceError, match=r"^outputs: "):
        assert_matches_reference(faulty, case, framework)


@pytest.mark.parametrize("framework", RUNS)
def test_attention_check_catches_other_heads(framework):
    case = dataclasses.replace(SAMPLE, mask=None, padding=False, with_shares=False)
    built_as = dataclasses.replace(case, heads=1, key_dim=4, value_dim=4)
    faulty = RUNS[framework](case, case.arrays(), built_as)

    with pytest.raises(DivergenceError, match=r"^outputs: "):
        assert_matches_reference(faulty, case, framework, ("outputs",))


def test_keras_on_tensorflow_adds_the_bias_of_heads_of_width_one_along_the_sequence():
    """A bias `(heads, 1)` on `(n, t, heads, 1)` goes along `t` where `t == heads`: silently wrong.

    Source: keras 3.15.1, backend/tensorflow/numpy.py, add, which takes it for a bias of channels.
    """
    case = dataclasses.replace(
        SAMPLE, queries=2, key_dim=1, value_dim=1, widths=(2, 2, 2), mask=None, padding=False
    )
    alike = dataclasses.replace(case, queries=3)

    assert_matches_reference(run_keras(alike, alike.arrays()), alike, "keras")
    if runtime.select_keras_backend(None) == "tensorflow":
        with pytest.raises(DivergenceError, match=r"^outputs: "):
            assert_matches_reference(run_keras(case, case.arrays()), case, "keras")


@pytest.mark.parametrize("batch", [2, 3])
def test_keras_takes_the_batch_of_a_padding_for_the_heads_of_a_mask_by_head(batch):
    """Beside a mask `(n, heads, t, s)`, padding `(n, s)` silently masks heads, or is refused."""
    case = dataclasses.replace(SAMPLE, batch=batch, mask="nhts", seed=5)
    assert len(np.unique(case.masks()[1], axis=0)) > 1

    if batch == case.heads:
        with pytest.raises(DivergenceError, match=r"^outputs: "):
            assert_matches_reference(run_keras(case, case.arrays()), case, "keras")
    else:
        with pytest.raises(Exception, match=r"(?i)broadcast|incompatible|shape|size"):
            run_keras(case, case.arrays())


def test_keras_takes_a_mask_of_floats_for_booleans():
    # Torch's 0 for a key that takes part and minus infinity for one that does not, the reverse.
    runtime.select_keras_backend(None)
    keras = importlib.import_module("keras")
    added = np.array([[0.0, -np.inf], [-np.inf, 0.0]])
    layer = keras.layers.MultiHeadAttention(1, 2)
    inputs = np.ones((1, 2, 2), dtype=np.float32)

    _, shares = layer(inputs, inputs, attention_mask=added, return_attention_scores=True)

    assert_close(
        keras.ops.convert_to_numpy(shares)[0, 0], [[0.0, 1.0], [1.0, 0.0]], atol=0.0, rtol=0.0
    )


FUNCTION_MASK = np.array([[True, False, True], [False, False, False]])


def function_arrays():
    draw = np.random.default_rng(7).standard_normal
    # Values as wide as keys: jax knows no others.
    return [draw((2, 2, 4)), draw((2, 3, 4)), draw((2, 3, 4))], draw((2, 2, 4))


def expected_function(inputs, d_outputs, *, fully_masked):
    arguments = {"scale": 0.5, "mask_meaning": "attend", "fully_masked": fully_masked}
    outputs, _ = reference.scaled_dot_product_attention(*inputs, FUNCTION_MASK, **arguments)
    gradients = reference.scaled_dot_product_attention_backward(
        d_outputs, None, *inputs, FUNCTION_MASK, **arguments
    )
    return [outputs, *gradients]


def test_torch_function_gives_a_fully_masked_query_zeros():
    import torch

    from parity.frameworks.torch_layer import run_torch_layer

    inputs, d_outputs = function_arrays()
    outcome = run_torch_layer(
        torch.nn.functional.scaled_dot_product_attention,
        inputs,
        d_outputs,
        arguments={"attn_mask": torch.tensor(FUNCTION_MASK)},
    )

    expected = expected_function(inputs, d_outputs, fully_masked="zeros")
    actual = [outcome.outputs, *outcome.input_gradients]
    for one, other in zip(actual, expected, strict=True):
        assert_close(one, other, atol=1e-13, rtol=1e-13)


@pytest.mark.backend
def test_keras_function_gives_a_fully_masked_query_the_mean():
    backend = runtime.select_keras_backend(None)
    keras = importlib.import_module("keras")
    from parity.frameworks.keras_layer import run_keras_layer

    inputs, d_outputs = function_arrays()
    # Keras's function takes (n, t, heads, d); here n is what the reference has as heads.
    one_head = [array[:, :, np.newaxis] for array in (*inputs, d_outputs)]
    with runtime.precision("float64"):
        outcome = run_keras_layer(
            keras.ops.dot_product_attention,
            one_head[:3],
            one_head[3],
            arguments={"mask": keras.ops.convert_to_tensor(FUNCTION_MASK[np.newaxis, np.newaxis])},
        )

    rule = "uniform_ones" if backend == "torch" else "uniform"
    expected = expected_function(inputs, d_outputs, fully_masked=rule)
    bound = JAX_BOUND if backend == "jax" else 1e-13
    for one, other in zip([outcome.outputs, *outcome.input_gradients], expected, strict=True):
        assert_close(one[:, :, 0], other, atol=bound, rtol=bound)


def run_torch_kernel(kernel):
    """Return outputs and gradients of one of torch's kernels, the mask added as Keras does."""
    import torch

    from parity.frameworks.torch_layer import run_torch_layer

    inputs, d_outputs = function_arrays()
    # keras 3.15.1, backend/torch/nn.py, _get_large_negative.
    added = torch.where(torch.tensor(FUNCTION_MASK), 0.0, torch.tensor(-0.7 * 3.38953e38).double())
    # The fused kernel wants an axis of heads.
    by_head = [array[:, np.newaxis] for array in (*inputs, d_outputs)]
    with torch.nn.attention.sdpa_kernel(getattr(torch.nn.attention.SDPBackend, kernel)):
        outcome = run_torch_layer(
            torch.nn.functional.scaled_dot_product_attention,
            by_head[:3],
            by_head[3],
            arguments={"attn_mask": added},
        )
    return [array[:, 0] for array in (outcome.outputs, *outcome.input_gradients)]


KERNEL_RULES = {"MATH": "uniform_added", "FLASH_ATTENTION": "uniform_ones"}


@pytest.mark.parametrize("kernel", KERNEL_RULES)
def test_torch_kernel_has_its_own_gradient_of_a_fully_masked_query(kernel):
    expected = expected_function(*function_arrays(), fully_masked=KERNEL_RULES[kernel])

    for one, other in zip(run_torch_kernel(kernel), expected, strict=True):
        assert_close(one, other, atol=1e-13, rtol=1e-13)


@pytest.mark.parametrize(
    ("kernel", "rule"),
    [
        ("MATH", "uniform"),
        ("MATH", "uniform_ones"),
        ("FLASH_ATTENTION", "uniform"),
        ("FLASH_ATTENTION", "uniform_added"),
    ],
)
def test_gradient_of_a_fully_masked_query_tells_the_rules_apart(kernel, rule):
    expected = expected_function(*function_arrays(), fully_masked=rule)

    with pytest.raises(DivergenceError, match="elements differ"):
        assert_close(run_torch_kernel(kernel)[1], expected[1], atol=1e-13, rtol=1e-13)
