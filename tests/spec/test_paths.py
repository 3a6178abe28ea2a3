import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.errors import SpecError
from parity.spec.paths import keras_name, layer_path

SEGMENTS = st.text("abzAZ019_", min_size=1, max_size=6)
PATHS = st.lists(SEGMENTS, min_size=1, max_size=5).map(".".join)
NAMES = st.lists(SEGMENTS, min_size=1, max_size=5).map("-".join)


@given(PATHS)
def test_keras_name_is_undone_by_layer_path(path):
    assert layer_path(keras_name(path)) == path


@given(NAMES)
def test_layer_path_is_undone_by_keras_name(name):
    assert keras_name(layer_path(name)) == name


@given(PATHS)
def test_keras_name_holds_no_character_that_a_backend_refuses(path):
    assert not set(keras_name(path)) & set("./: ")


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b", "a-b", "a/b", "a b", "ä", "a\n"])
def test_keras_name_refuses_what_is_no_path(path):
    with pytest.raises(SpecError, match="joined by dots"):
        keras_name(path)


@pytest.mark.parametrize("name", ["", "-", "a-", "-a", "a--b", "a.b", "a/b", "a b", "ä", "a\n"])
def test_layer_path_refuses_what_is_no_name(name):
    with pytest.raises(SpecError, match="joined by dashes"):
        layer_path(name)
