"""Every example in a docstring runs and is true."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("parity", "models_torch", "models_keras", "conversion")


def modules_with_examples(root):
    """Return the modules whose source shows an interactive prompt."""
    return [
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        for package in PACKAGES
        for path in sorted((root / package).rglob("*.py"))
        if ">>> " in path.read_text(encoding="utf-8")
    ]


def test_examples_are_found():
    assert {"parity.errors", "parity.rng", "conversion.layouts"} <= set(modules_with_examples(ROOT))


@pytest.mark.parametrize("name", modules_with_examples(ROOT))
def test_examples_of_a_module_are_true(name):
    outcome = doctest.testmod(import_module(name))

    assert outcome.attempted > 0
    assert outcome.failed == 0
