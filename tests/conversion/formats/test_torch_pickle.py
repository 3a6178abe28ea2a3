"""PyTorch loads what is written, what PyTorch saved is read, and no pickled code runs."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import models_torch
from conversion.formats import torch_pickle
from parity.errors import ConversionError, MissingFrameworkError
from parity.testing.assertions import assert_identical


def saved(tmp_path, content, **options):
    path = tmp_path / "x.pt"
    torch.save(content, path, **options)
    return path


def test_written_file_loads_strictly_into_the_twin(checkpoint, spec, state):
    net = models_torch.resnet(spec)

    net.load_state_dict(torch.load(checkpoint("x.pt")), strict=True)

    assert_identical(net.stem.conv.weight.detach().numpy(), state["stem.conv.weight"])


def test_written_file_has_the_names_and_order_of_the_twin(checkpoint, spec):
    written = torch.load(checkpoint("x.pt"))

    assert list(written) == list(models_torch.resnet(spec).state_dict())
    assert written["stem.bn.num_batches_tracked"].dtype == torch.int64
    assert written["stem.bn.num_batches_tracked"].item() == 0


@pytest.mark.parametrize("wrap", [
    lambda state: state,
    lambda state: {"state_dict": state, "epoch": 3},
    lambda state: {"model": state, "optimizer": {"lr": 0.1}},
    lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    lambda state: {"state_dict": {f"module.{name}": t for name, t in state.items()}},
], ids=["plain", "state_dict", "model", "module", "state_dict and module"])  # fmt: skip
def test_saved_state_dict_is_read_in_every_wrapper(tmp_path, spec, wrap):
    expected = models_torch.resnet(spec).state_dict()

    stored = torch_pickle.read(saved(tmp_path, wrap(expected)))

    assert list(stored.arrays) == list(spec.state_shapes())
    for name, array in stored.arrays.items():
        assert_identical(array, expected[name].numpy(), where=name)


def test_saved_file_of_old_pytorch_is_read(tmp_path, spec):
    path = saved(
        tmp_path, models_torch.resnet(spec).state_dict(), _use_new_zipfile_serialization=False
    )

    assert list(torch_pickle.read(path).arrays) == list(spec.state_shapes())


def test_channels_last_tensor_is_read_by_axes(tmp_path):
    tensor = torch.arange(24.0).reshape(1, 2, 3, 4).contiguous(memory_format=torch.channels_last)

    stored = torch_pickle.read(saved(tmp_path, {"conv.weight": tensor}))

    assert_identical(stored.arrays["conv.weight"], np.arange(24, dtype="f4").reshape(1, 2, 3, 4))


class Trap:
    """Creates a file if it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_file_that_needs_code_is_refused_and_nothing_runs(tmp_path, zipped):
    sprung = tmp_path / "sprung"
    path = saved(tmp_path, {"a": Trap(sprung)}, _use_new_zipfile_serialization=zipped)

    with pytest.raises(ConversionError, match=r"would run code.*torch.save\(model.state_dict\(\)"):
        torch_pickle.read(path)

    assert not sprung.exists()


def test_plain_pickle_that_needs_code_is_refused_and_nothing_runs(tmp_path):
    sprung, path = tmp_path / "sprung", tmp_path / "x.pt"
    path.write_bytes(pickle.dumps(Trap(sprung)))

    with pytest.raises(ConversionError):
        torch_pickle.read(path)

    assert not sprung.exists()


def test_whole_module_is_refused_with_the_way_to_export_it(tmp_path, spec):
    path = saved(tmp_path, models_torch.resnet(spec))

    with pytest.raises(ConversionError, match=r"would run code, so it is refused. Export it with"):
        torch_pickle.read(path)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torchscript_is_refused_by_name(tmp_path):
    path = tmp_path / "x.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)

    with pytest.raises(ConversionError, match="got a TorchScript program"):
        torch_pickle.read(path)


@pytest.mark.parametrize(
    ("content", "described"),
    [
        ([torch.zeros(1)], "got list"),
        (torch.zeros(1), "got Tensor"),
        ({}, "got an empty dict"),
        ({"net": {"a": torch.zeros(1)}, "epoch": 3}, r"got 2 other entries \(net, epoch\)"),
        ({"model": {"a": torch.zeros(1)}, "state_dict": {}}, "got state_dict and model"),
        ({"state_dict": {"a": 1.0}}, r"got 1 other entries \(a\)"),
    ],
    ids=["list", "tensor", "empty", "nested", "two", "number"],
)
def test_content_that_is_no_state_dict_is_described(tmp_path, content, described):
    with pytest.raises(ConversionError, match=described):
        torch_pickle.read(saved(tmp_path, content))


@pytest.mark.parametrize(
    ("tensor", "described"),
    [
        (torch.zeros(2, dtype=torch.bfloat16), "a bfloat16"),
        (torch.zeros(2, 2).to_sparse(), "a torch.sparse_coo"),
    ],
    ids=["bfloat16", "sparse"],
)
def test_tensor_without_a_numpy_form_is_named(tmp_path, tensor, described):
    with pytest.raises(ConversionError, match=f"got {described}"):
        torch_pickle.read(saved(tmp_path, {"a": tensor}))


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_truncated_file_is_described(checkpoint, kept):
    path = checkpoint("x.pt")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])

    with pytest.raises(ConversionError, match=r"expected a whole PyTorch checkpoint; got .* bytes"):
        torch_pickle.read(path)


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x89HDF\r\n\x1a\n"], ids=str)
def test_foreign_file_is_described_by_its_start(tmp_path, content):
    path = tmp_path / "x.pt"
    path.write_bytes(content)

    with pytest.raises(ConversionError, match=r"expected a PyTorch checkpoint \(zip\); got"):
        torch_pickle.read(path)


def test_foreign_zip_is_described(tmp_path):
    path, buffer = tmp_path / "x.pt", io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "hello")
    path.write_bytes(buffer.getvalue())

    with pytest.raises(ConversionError, match="got another zip archive"):
        torch_pickle.read(path)


def test_missing_torch_is_named_with_its_extra(checkpoint, monkeypatch):
    path = checkpoint("x.pt")
    monkeypatch.delitem(__import__("sys").modules, "torch")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(MissingFrameworkError, match=r"framework-parity\[torch\]"):
        torch_pickle.read(path)
