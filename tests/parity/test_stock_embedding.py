"""The frameworks' own embedding layers against the float64 reference, on drawn shapes and ids."""

import dataclasses
import importlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversion.layouts import to_keras_layout, to_torch_layout
from parity import runtime
from parity.errors import DivergenceError, SpecError
from parity.reference import layers as reference
from parity.testing.assertions import assert_identical, assert_states_close
from parity.testing.faults import seed_array_fault

# Of the largest value of its kind; sums of up to 24 gradients in float64.
BOUND = 1e-10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    rows: int
    size: int
    shape: tuple[int, ...]
    padding_id: int | None
    scale_by_frequency: bool
    from_end: bool
    seed: int

    def arrays(self):
        generator = np.random.default_rng(self.seed)
        lowest = -self.rows if self.from_end else 0
        return {
            "ids": generator.integers(lowest, self.rows, self.shape),
            "weight": generator.standard_normal((self.rows, self.size)),
            "d_outputs": generator.standard_normal((*self.shape, self.size)),
        }


@st.composite
def embedding_cases(draw, *, torch):
    """Torch takes no id from the end; Keras' layer knows no padding row and no frequencies."""
    rows = draw(st.integers(1, 7))
    return Case(
        rows=rows,
        size=draw(st.integers(1, 5)),
        shape=tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))),
        padding_id=draw(st.none() | st.integers(-rows, rows - 1)) if torch else None,
        scale_by_frequency=draw(st.booleans()) if torch else False,
        from_end=not torch and draw(st.booleans()),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


def run_torch(case, arrays):
    import torch

    from parity.frameworks.torch_layer import run_torch_layer

    layer = torch.nn.Embedding(
        case.rows,
        case.size,
        padding_idx=case.padding_id,
        scale_grad_by_freq=case.scale_by_frequency,
    ).double()
    outcome = run_torch_layer(
        layer, [arrays["ids"]], arrays["d_outputs"], weights={"weight": arrays["weight"]}
    )
    return {"outputs": outcome.outputs} | outcome.parameter_gradients


def run_keras(case, arrays):
    runtime.select_keras_backend(None)
    keras = importlib.import_module("keras")
    from parity.frameworks.keras_layer import run_keras_layer

    with runtime.precision("float64"):
        layer = keras.layers.Embedding(case.rows, case.size)
        variable, stored = to_keras_layout("Embedding", "weight", arrays["weight"])
        outcome = run_keras_layer(
            layer, [arrays["ids"]], arrays["d_outputs"], weights={variable: stored}
        )
        gradients = [
            to_torch_layout("Embedding", name, gradient)
            for name, gradient in outcome.parameter_gradients.items()
        ]
    return {"outputs": outcome.outputs} | dict(gradients)


def expected_of(case):
    arrays = case.arrays()
    out_of_range = "wrap" if case.from_end else "refuse"
    outputs = reference.embedding(arrays["ids"], arrays["weight"], out_of_range=out_of_range)
    d_weight = reference.embedding_backward(
        arrays["d_outputs"],
        arrays["ids"],
        arrays["weight"],
        out_of_range=out_of_range,
        padding_id=case.padding_id,
        scale_by_frequency=case.scale_by_frequency,
    )
    return {"outputs": outputs, "weight": d_weight}


def assert_matches_reference(outcome, case):
    for kind, expected in expected_of(case).items():
        assert_states_close(
            {kind: outcome[kind]},
            {kind: expected},
            atol=BOUND * float(np.abs(expected).max()),
            rtol=0.0,
            where="outputs" if kind == "outputs" else "parameter gradients",
        )


@given(case=embedding_cases(torch=True))
def test_torch_embedding_matches_reference(case):
    assert_matches_reference(run_torch(case, case.arrays()), case)


@pytest.mark.backend
@given(case=embedding_cases(torch=False))
def test_keras_embedding_matches_reference(case):
    assert_matches_reference(run_keras(case, case.arrays()), case)


SAMPLE = Case(
    rows=5,
    size=3,
    shape=(4, 6),
    padding_id=None,
    scale_by_frequency=False,
    from_end=False,
    seed=1,
)


@pytest.mark.parametrize("run", [run_torch, run_keras])
@pytest.mark.parametrize(
    ("name", "fault", "kind"),
    [
        ("weight", "element_bumped", "outputs"),
        ("weight", "channels_swapped", "outputs"),
        ("d_outputs", "element_sign_flipped", "parameter gradients"),
        ("ids", "channels_swapped", "outputs"),
    ],
)
def test_embedding_check_catches_a_fault_in_its_arrays(run, name, fault, kind):
    arrays = SAMPLE.arrays()
    faulty = run(SAMPLE, arrays | {name: seed_array_fault(fault, arrays[name])})

    with pytest.raises(DivergenceError, match=f"^{kind}: "):
        assert_matches_reference(faulty, SAMPLE)


@pytest.mark.parametrize("change", [{"padding_id": 2}, {"scale_by_frequency": True}])
def test_torch_embedding_check_catches_a_wrong_convention(change):
    faulty = run_torch(dataclasses.replace(SAMPLE, **change), SAMPLE.arrays())

    with pytest.raises(DivergenceError, match=r"^parameter gradients: "):
        assert_matches_reference(faulty, SAMPLE)


def test_keras_embedding_trains_the_row_that_torch_does_not():
    case = dataclasses.replace(SAMPLE, padding_id=0)

    with pytest.raises(DivergenceError, match=r"^parameter gradients: "):
        assert_matches_reference(run_keras(case, case.arrays()), case)


@pytest.mark.backend
def test_keras_embedding_hands_on_the_mask_and_looks_row_zero_up():
    runtime.select_keras_backend(None)
    keras = importlib.import_module("keras")
    ids, weight = np.array([[0, 2, 1], [1, 0, 0]]), np.arange(6.0).reshape(3, 2) + 1.0
    layer = keras.layers.Embedding(3, 2, mask_zero=True, weights=[weight])

    outputs = keras.ops.convert_to_numpy(layer(ids))
    mask = keras.ops.convert_to_numpy(layer.compute_mask(ids))

    expected = reference.embedding(ids, weight, out_of_range="refuse")
    assert_identical(outputs, expected.astype(outputs.dtype))
    assert_identical(mask, reference.embedding_mask(ids))


def refusal_of(call):
    """Return the class of what a call raises, or None."""
    try:
        call()
    except Exception as error:  # each framework has its own
        return type(error)
    return None


@pytest.mark.parametrize("ids", [[-1], [5]])
def test_torch_and_the_reference_refuse_an_id_out_of_range(ids):
    arrays = SAMPLE.arrays() | {"ids": np.array(ids)}

    assert refusal_of(lambda: run_torch(SAMPLE, arrays)) is IndexError
    with pytest.raises(SpecError, match="expected ids from 0 to 4"):
        reference.embedding(ids, arrays["weight"], out_of_range="refuse")


@pytest.mark.backend
@pytest.mark.parametrize("id_", [5, 9, -6])
def test_keras_does_what_its_backend_does_with_an_id_out_of_range(id_):
    arrays = SAMPLE.arrays() | {"ids": np.array([id_, 1]), "d_outputs": np.ones((2, 3))}

    def run():
        return run_keras(SAMPLE, arrays)

    if runtime.select_keras_backend(None) == "jax":
        options = {"out_of_range": "wrap_or_nan"}
        expected = reference.embedding(arrays["ids"], arrays["weight"], **options)
        d_weight = reference.embedding_backward(
            arrays["d_outputs"], arrays["ids"], arrays["weight"], **options,
            padding_id=None, scale_by_frequency=False,
        )  # fmt: skip
        assert_identical(run()["outputs"], expected)
        assert_identical(run()["weight"], d_weight)
    else:
        assert refusal_of(run) is not None
