"""Safetensors files hold canonical names, load into PyTorch, and are refused when not whole."""

import json
import struct

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

import models_torch
from conversion.formats import safetensors as safetensors_format
from parity.errors import ConversionError
from parity.testing.assertions import assert_identical


def test_written_file_loads_strictly_into_the_twin(checkpoint, spec, state):
    net = models_torch.resnet(spec)

    net.load_state_dict(safetensors.torch.load_file(checkpoint("x.safetensors")), strict=True)

    assert_identical(net.head.weight.detach().numpy(), state["head.weight"])


def test_written_file_holds_the_state_and_says_whose_layout_it_is(checkpoint, spec):
    with safetensors.safe_open(checkpoint("x.safetensors"), framework="np") as file:
        assert set(file.keys()) == set(spec.state_shapes())
        assert file.metadata() == {"format": "pt"}


def test_file_saved_from_the_twin_is_read(tmp_path, spec):
    expected = models_torch.resnet(spec).state_dict()
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file(expected, path)

    stored = safetensors_format.read(path)

    assert set(stored.arrays) == set(spec.state_shapes())
    assert_identical(stored.arrays["head.weight"], expected["head.weight"].numpy())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64], ids=str)
def test_other_dtypes_are_named(tmp_path, dtype):
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(2, dtype=dtype), "b": torch.zeros(1)}, path)

    with pytest.raises(ConversionError, match=r"expected float32 or float64 arrays; got a \w+\."):
        safetensors_format.read(path)


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.999])
def test_truncated_file_is_described(checkpoint, kept):
    path = checkpoint("x.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])

    with pytest.raises(ConversionError, match="expected a whole safetensors file; got"):
        safetensors_format.read(path)


def test_header_that_promises_more_than_the_file_is_refused(tmp_path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}})
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(16))

    with pytest.raises(ConversionError, match="expected a whole safetensors file"):
        safetensors_format.read(path)


def test_arrays_in_fortran_order_are_written_by_axes(checkpoint, spec, state):
    state["head.weight"] = np.asfortranarray(state["head.weight"])

    stored = safetensors_format.read(checkpoint("x.safetensors"))

    assert_identical(stored.arrays["head.weight"], np.ascontiguousarray(state["head.weight"]))
