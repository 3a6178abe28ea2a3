"""Verification sees a wrong bit, a wrong layout and a net that does not look at its input."""

import dataclasses

import numpy as np
import pytest

from conversion.formats.keras_weights import FORMAT as KERAS
from conversion.formats.torch_pickle import FORMAT as TORCH
from conversion.verify import seeded_images, verify_bits, verify_logits
from parity.errors import DivergenceError
from parity.frameworks import build
from parity.testing.assertions import assert_identical


def test_equal_states_pass(spec, state):
    verify_bits(state, state, where="x")

    assert "numerically equivalent" in verify_logits(state, state, spec, source=TORCH, target=KERAS)


@pytest.mark.parametrize("gap", [1e-7, 1e-3])
def test_logits_see_a_changed_weight(spec, state, gap):
    changed = {**state, "stem.conv.weight": state["stem.conv.weight"] * np.float64(1 + gap)}

    with pytest.raises(DivergenceError, match="torch and the keras net diverge: relative gap"):
        verify_logits(changed, state, spec, source=TORCH, target=KERAS)


@pytest.mark.parametrize("change", [{"bn_epsilon": 1e-3}, {"stride_offset": "end"}], ids=str)
def test_logits_see_a_twin_of_other_conventions(spec, state, monkeypatch, change):
    other = dataclasses.replace(spec, conventions=dataclasses.replace(spec.conventions, **change))
    build_twin = build.build_twin
    specs = {"torch": spec, "keras": other}
    monkeypatch.setattr(
        build, "build_twin", lambda name, _, dtype: build_twin(name, specs[name], dtype=dtype)
    )

    with pytest.raises(DivergenceError, match="diverge"):
        verify_logits(state, state, spec, source=TORCH, target=KERAS)


def test_logits_that_ignore_the_input_are_called_vacuous(spec, state):
    blind = {**state, "head.weight": np.zeros_like(state["head.weight"])}

    verdict = verify_logits(blind, blind, spec, source=TORCH, target=KERAS)

    assert verdict.startswith("logits vacuous: they hardly depend on the input")


def test_images_are_the_same_every_time(spec):
    assert_identical(seeded_images(spec), seeded_images(spec))
    assert seeded_images(spec).shape == (2, 32, 32, 3)
