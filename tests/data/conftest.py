"""Small CIFAR-10 and Fashion-MNIST files in their published formats, and a local web server."""

import functools
import gzip
import http.server
import pickle
import struct
import threading

import numpy as np
import pytest

CIFAR_NAMES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
CIFAR_COUNT = 4


class Python2Pickler(pickle._Pickler):
    """Writes what Python 2 and its NumPy wrote: byte strings for all text, `numpy.core`."""

    def save_text(self, text):
        content = text.encode("latin1") if isinstance(text, str) else text
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(text)

    dispatch = {**pickle._Pickler.dispatch, str: save_text, bytes: save_text}  # noqa: RUF012


def write_python_batch(path, batch):
    with path.open("wb") as file:
        Python2Pickler(file, protocol=2).dump(batch)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))


def write_binary_batch(path, planes, labels):
    records = np.column_stack([np.array(labels, dtype=np.uint8), planes])
    path.write_bytes(records.tobytes())


def write_idx(path, array):
    header = struct.pack(f">I{array.ndim}I", 0x0800 | array.ndim, *array.shape)
    content = header + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def cifar_batches():
    """Planes `(4, 3072)` and labels by batch name."""
    generator = np.random.default_rng(0)
    return {
        name: (
            generator.integers(0, 256, size=(CIFAR_COUNT, 3072), dtype=np.uint8),
            generator.integers(0, 10, size=CIFAR_COUNT).tolist(),
        )
        for name in CIFAR_NAMES
    }


@pytest.fixture
def cifar_python_folder(tmp_path, cifar_batches):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name, (planes, labels) in cifar_batches.items():
        batch = {
            "batch_label": name,
            "labels": labels,
            "data": planes,
            "filenames": [f"{name}_{index}.png" for index in range(CIFAR_COUNT)],
        }
        write_python_batch(folder / name, batch)
    return folder


@pytest.fixture
def cifar_binary_folder(tmp_path, cifar_batches):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name, (planes, labels) in cifar_batches.items():
        write_binary_batch(folder / f"{name}.bin", planes, labels)
    return folder


@pytest.fixture
def fashion_arrays():
    """The four arrays by file name without `.gz`: six training and four test images."""
    generator = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 6), ("t10k", 4)):
        images = generator.integers(0, 256, size=(count, 28, 28), dtype=np.uint8)
        arrays[f"{split}-images-idx3-ubyte"] = images
        arrays[f"{split}-labels-idx1-ubyte"] = np.arange(count, dtype=np.uint8)
    return arrays


@pytest.fixture(params=[".gz", ""], ids=["gzipped", "plain"])
def fashion_suffix(request):
    return request.param


@pytest.fixture
def fashion_folder(tmp_path, fashion_arrays, fashion_suffix):
    folder = tmp_path / "fashion"
    folder.mkdir()
    for stem, array in fashion_arrays.items():
        write_idx(folder / f"{stem}{fashion_suffix}", array)
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder in place of the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "framework-parity"


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def web(tmp_path, monkeypatch):
    """A folder, and the address under which 127.0.0.1 serves it."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "web"
    folder.mkdir()
    handler = functools.partial(QuietHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
