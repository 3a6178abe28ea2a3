"""Who may import whom: the table, and the reader that holds every source file to it.

Sources are read, never run. The table is ordered bottom-up: a row may name only rows above it, so
the layers cannot grow a cycle. Anything a row does not name is refused, frameworks included.
"""

import ast
import itertools
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("parity", "models_torch", "models_keras", "conversion")
FRAMEWORKS = ("torch", "keras", "tensorflow", "jax")

# Import name -> the dependency that brings it, where they differ.
DISTRIBUTIONS = {"sklearn": "scikit-learn", "markupsafe": "jinja2"}

SPEC = ("numpy", "parity.errors", "parity.spec")
CORE = (*SPEC, "parity.rng", "parity.whitening", "parity.initialize")
NEUTRAL = (*CORE, "parity.frameworks.net", "parity.frameworks.program")
TOOLKIT = (
    *NEUTRAL,
    "parity.augment",
    "parity.compare",
    "parity.data",
    "parity.masks",
    "parity.reference",
    "parity.runtime",
    "parity.testing.assertions",
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """What the modules under one name may import; the longest owner that fits a module governs it.

    Attributes:
        owner: Module or package; `package.__init__` is that one file alone.
        module: Prefixes allowed at module level, beside the standard library and the owner itself.
        deferred: Further prefixes allowed inside functions and under `TYPE_CHECKING`.
    """

    owner: str
    module: tuple[str, ...] = ()
    deferred: tuple[str, ...] = ()


TABLE = (
    Row(owner="parity.errors"),
    Row(owner="parity.spec", module=("numpy", "parity.errors")),
    Row(owner="parity.rng", module=("numpy",)),
    Row(owner="parity.whitening", module=("numpy",)),
    Row(owner="parity.initialize", module=(*SPEC, "parity.rng", "parity.whitening")),
    Row(owner="parity.masks", module=(*SPEC, "parity.rng")),
    # Sets process-wide switches of frameworks that are already loaded, or are about to be.
    Row(owner="parity.runtime", module=("parity.errors",), deferred=FRAMEWORKS),
    # Where a command's exception becomes an exit code, for every command line.
    Row(owner="parity.exits", module=("parity.errors", "typer")),
    Row(owner="models_torch", module=(*SPEC, "torch")),
    Row(owner="models_keras", module=(*SPEC, "keras")),
    # The reference checks the twins, so it shares no code with them.
    Row(owner="parity.reference", module=CORE),
    Row(owner="parity.augment", module=CORE),
    # The protocol that crosses layers is plain NumPy, and a step's place in time; what implements
    # it is further down.
    Row(owner="parity.frameworks.net", module=("numpy", "parity.spec.position")),
    Row(owner="parity.frameworks.program", module=("numpy",)),
    Row(
        owner="parity.data",
        module=(*NEUTRAL, "parity.augment", "pooch"),
        deferred=("sklearn",),
    ),
    Row(owner="parity.testing", module=(*NEUTRAL, "parity.reference")),
    # Hypothesis is a developer's tool: only what draws examples needs it.
    Row(owner="parity.testing.strategies", module=(*NEUTRAL, "parity.testing", "hypothesis")),
    Row(owner="conversion.layouts", module=("numpy", "parity.errors")),
    *(
        Row(owner=f"conversion.{kind}_layouts", module=("numpy", "parity.errors"))
        for kind in ("recurrent", "attention")
    ),
    Row(
        owner="parity.compare",
        module=(
            *NEUTRAL,
            "parity.reference",
            "conversion.layouts",
            "conversion.recurrent_layouts",
            "conversion.attention_layouts",
        ),
    ),
    Row(
        owner="parity.frameworks",
        module=(*CORE, "parity.runtime", "conversion.layouts"),
        deferred=(*FRAMEWORKS, "models_torch", "models_keras"),
    ),
    # The doors from the comparison of arrays to the user's models.
    Row(
        owner="parity.compare.models",
        module=(*NEUTRAL, "parity.compare", "parity.frameworks.capture"),
    ),
    Row(
        owner="parity.frameworks.torch_objective",
        module=("numpy", "parity.errors", "parity.frameworks", "torch"),
    ),
    Row(
        owner="parity.frameworks.keras_objective",
        module=("numpy", "parity.errors", "parity.runtime", "parity.frameworks", "keras"),
    ),
    *(
        Row(
            owner=f"parity.frameworks.{framework}_stepper",
            module=("numpy", "parity.errors", "parity.runtime", "parity.frameworks", framework),
        )
        for framework in ("torch", "keras")
    ),
    # Models of random plans: what both sides share knows no framework.
    Row(owner="parity.frameworks.pairs.plan", module=SPEC),
    *(
        Row(
            owner=f"parity.frameworks.pairs.torch_{part}",
            module=(*SPEC, "parity.rng", "parity.frameworks.pairs", "torch"),
            deferred=("models_torch",),
        )
        for part in ("side", "layers", "modules", "recurrent")
    ),
    *(
        Row(
            owner=f"parity.frameworks.pairs.keras_{part}",
            module=(*SPEC, "parity.rng", "parity.frameworks.pairs", "conversion.layouts", "keras"),
            deferred=("models_keras",),
        )
        for part in ("side", "activations", "layers", "recurrent", "tensors", "windows")
    ),
    Row(
        owner="parity.testing.pairs",
        module=(*CORE, "parity.testing", "parity.frameworks.pairs.plan"),
        deferred=("parity.frameworks", "parity.runtime"),
    ),
    Row(
        owner="parity.frameworks.torch_net",
        module=(*SPEC, "parity.runtime", "parity.frameworks", "torch"),
    ),
    Row(
        owner="parity.frameworks.keras_net",
        module=(*SPEC, "parity.runtime", "parity.frameworks", "conversion.layouts", "keras"),
    ),
    Row(
        owner="parity.frameworks.torch_capture",
        module=("parity.errors", "parity.frameworks", "numpy", "torch"),
    ),
    Row(
        owner="parity.frameworks.torch_program",
        module=("numpy", "parity.errors", "parity.frameworks", "torch"),
    ),
    Row(owner="parity.frameworks.torch_layer", module=("numpy", "parity.frameworks", "torch")),
    Row(owner="parity.frameworks.keras_layer", module=("numpy", "parity.frameworks", "keras")),
    Row(
        owner="parity.frameworks.keras_capture",
        module=("numpy", "parity.errors", "parity.frameworks", "conversion.layouts", "keras"),
    ),
    Row(
        owner="parity.frameworks.keras_program",
        module=("numpy", "parity.errors", "parity.runtime", "parity.frameworks", "keras"),
    ),
    *(
        Row(
            owner=f"parity.frameworks.keras_backends.{backend}",
            module=("numpy", "parity.frameworks", "keras", backend),
        )
        for backend in ("tensorflow", "jax", "torch")
    ),
    Row(
        owner="conversion",
        module=(
            *SPEC,
            "parity.exits",
            "parity.rng",
            "parity.testing.assertions",
            "h5py",
            "safetensors",
            "typer",
            "rich",
        ),
        deferred=("parity.frameworks", "parity.runtime"),
    ),
    # PyTorch's and Keras's own files are written by the frameworks themselves.
    Row(
        owner="conversion.formats",
        module=(*SPEC, "parity.runtime", "conversion", "h5py", "safetensors"),
        deferred=("torch", "keras", "models_keras", "parity.frameworks"),
    ),
    # `build` loads a framework only once it is asked for a net of it.
    Row(
        owner="parity.lockstep",
        module=(*TOOLKIT, "parity.testing.faults", "parity.frameworks.build", "safetensors"),
        deferred=("parity.frameworks",),
    ),
    # Statistics load late, so that the commands that need none start at once.
    Row(owner="parity.match", module=(*TOOLKIT, "parity.lockstep"), deferred=("scipy",)),
    Row(
        owner="parity.report",
        module=(
            *TOOLKIT,
            "parity.lockstep",
            "parity.match",
            "jinja2",
            "markupsafe",
            "rich",
            "tomlkit",
        ),
        deferred=("matplotlib",),
    ),
    Row(
        owner="parity.cli",
        module=(
            *TOOLKIT,
            "parity.lockstep",
            "parity.match",
            "parity.exits",
            "parity.frameworks.build",
            "parity.frameworks.loading",
            "parity.report",
            "rich",
            "tomlkit",
            "typer",
        ),
        deferred=("parity.frameworks", "conversion"),
    ),
    Row(owner="parity.train", module=("parity.cli",)),
    Row(owner="parity.__main__", module=("parity.cli",)),
    # Public names load on first use, so importing the package stays cheap.
    Row(owner="parity.__init__", deferred=("parity", "conversion")),
)


@dataclass(frozen=True, kw_only=True)
class Import:
    """One imported name, and where it stands."""

    path: Path
    line: int
    target: str
    deferred: bool


def module_name(path, *, root):
    """Return the dotted name of a source file; a package's own file is `package.__init__`."""
    return ".".join(path.relative_to(root).with_suffix("").parts)


def is_under(name, prefix):
    return name == prefix or name.startswith(f"{prefix}.")


def overlaps(left, right):
    return is_under(left, right) or is_under(right, left)


def is_type_checking(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def dynamic_target(call):
    """Return what `import_module` or `__import__` loads, as far as the source says."""
    function = ast.unparse(call.func).rpartition(".")[2]
    if function not in ("import_module", "__import__") or not call.args:
        return ""
    name = call.args[0]
    start = name.values[0] if isinstance(name, ast.JoinedStr) and name.values else name
    return str(start.value).rstrip(".") if isinstance(start, ast.Constant) else ""


def targets_of(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call):
        return list(filter(None, [dynamic_target(node)]))
    return []


def imports_of(path):
    """Yield every import of a source file, in functions and behind conditions too."""
    pending = [(ast.parse(path.read_text(encoding="utf-8")), False)]
    while pending:
        node, deferred = pending.pop()
        for target in targets_of(node):
            yield Import(path=path, line=node.lineno, target=target, deferred=deferred)
        inner = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        deferred = deferred or inner or is_type_checking(node)
        pending += [(child, deferred) for child in ast.iter_child_nodes(node)]


def governing_row(module, table):
    rows = [row for row in table if is_under(module, row.owner)]
    return max(rows, key=lambda row: len(row.owner), default=None)


def is_allowed(found, row):
    prefixes = (row.owner, *row.module, *(row.deferred if found.deferred else ()))
    top = found.target.partition(".")[0]
    return top in sys.stdlib_module_names or any(is_under(found.target, name) for name in prefixes)


def source_files(root):
    return [path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))]


def describe_offenders(root, table):
    """Return a line `file:line: ...` for each import that the table does not allow."""
    offenders = []
    for path in source_files(root):
        row = governing_row(module_name(path, root=root), table)
        where = path.relative_to(root)
        if row is None:
            offenders.append(f"{where}:1: no row of the import table governs this module")
            continue
        offenders += [
            f"{where}:{found.line}: {row.owner} may not import {found.target}"
            for found in imports_of(path)
            if not is_allowed(found, row)
        ]
    return sorted(offenders)


def module_graph(root):
    """Return the first-party modules that each module needs before it is loaded."""
    modules = {module_name(path, root=root): path for path in source_files(root)}
    return {
        module: {
            known
            for found in imports_of(path)
            if not found.deferred
            for known in modules
            if known != module and known in (found.target, found.target.rpartition(".")[0])
        }
        for module, path in modules.items()
    }


def test_sources_import_what_the_table_allows():
    assert describe_offenders(ROOT, TABLE) == []


def test_modules_import_each_other_in_no_cycle():
    order = list(TopologicalSorter(module_graph(ROOT)).static_order())

    assert order.index("parity.errors") < order.index("parity.spec.recipe")


def test_table_names_declared_dependencies_only():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = itertools.chain.from_iterable(project["optional-dependencies"].values())
    declared = {re.match(r"[\w-]+", line)[0] for line in [*project["dependencies"], *extras]}
    named = {name.partition(".")[0] for row in TABLE for name in (*row.module, *row.deferred)}

    assert {DISTRIBUTIONS.get(name, name) for name in named - {*PACKAGES}} <= declared


def test_table_names_each_owner_once():
    owners = [row.owner for row in TABLE]

    assert len(owners) == len(set(owners))


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.owner)
def test_row_governs_a_source_file(row):
    modules = [module_name(path, root=ROOT) for path in source_files(ROOT)]

    assert [module for module in modules if governing_row(module, TABLE) == row]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.owner)
def test_row_names_only_rows_above_it(row):
    own = [name for name in row.module if overlaps(name, row.owner)]
    above = TABLE[: TABLE.index(row)]
    first_party = [name for name in row.module if name.partition(".")[0] in PACKAGES]

    assert [
        name
        for name in first_party
        if name not in own and not any(overlaps(other.owner, name) for other in above)
    ] == []


@pytest.mark.parametrize(
    "row",
    [row for row in TABLE if row.owner.startswith(("parity", "conversion"))],
    ids=lambda row: row.owner,
)
def test_only_the_framework_folder_loads_a_framework_with_its_module(row):
    is_adapter = row.owner.startswith("parity.frameworks.")

    assert is_adapter or not set(row.module) & {*FRAMEWORKS, "models_torch", "models_keras"}


SEEDED = {
    "module": (
        "parity/rng.py",
        "import torch\n",
        "parity/rng.py:1: parity.rng may not import torch",
    ),
    "submodule": (
        "parity/spec/layers.py",
        "import os\nfrom torch.nn import Conv2d\n",
        "parity/spec/layers.py:2: parity.spec may not import torch.nn.Conv2d",
    ),
    "function": (
        "parity/lockstep/loop.py",
        "def train():\n    import keras\n",
        "parity/lockstep/loop.py:2: parity.lockstep may not import keras",
    ),
    "condition": (
        "conversion/convert.py",
        "try:\n    import tensorflow as tf\nexcept ImportError:\n    tf = None\n",
        "conversion/convert.py:2: conversion may not import tensorflow",
    ),
    "class": (
        "parity/errors.py",
        "class Error:\n    import numpy\n",
        "parity/errors.py:2: parity.errors may not import numpy",
    ),
    "dynamic": (
        "parity/report/text.py",
        "import importlib\nload = lambda: importlib.import_module('jax')\n",
        "parity/report/text.py:2: parity.report may not import jax",
    ),
    "formatted": (
        "parity/augment/flip.py",
        "from importlib import import_module\nnet = import_module(f'parity.frameworks.{1}')\n",
        "parity/augment/flip.py:2: parity.augment may not import parity.frameworks",
    ),
    "upwards": (
        "parity/spec/models.py",
        "from parity import rng\n",
        "parity/spec/models.py:1: parity.spec may not import parity.rng",
    ),
    "deferred only": (
        "conversion/formats/torch_pickle.py",
        "import torch\n",
        "conversion/formats/torch_pickle.py:1: conversion.formats may not import torch",
    ),
    "relative": (
        "models_torch/resnet.py",
        "from ..models_keras import resnet\n",
        "models_torch/resnet.py:1: models_torch may not import ..models_keras.resnet",
    ),
    "lazy package": (
        "parity/spec/paths.py",
        "from parity import compare_models\n",
        "parity/spec/paths.py:1: parity.spec may not import parity.compare_models",
    ),
    "ungoverned": (
        "parity/gadgets.py",
        "",
        "parity/gadgets.py:1: no row of the import table governs this module",
    ),
}
ALLOWED = {
    "standard library": (
        "parity/errors.py",
        "from __future__ import annotations\nimport os.path\n",
    ),
    "own package": ("models_keras/resnet.py", "from models_keras.layers import conv2d\n"),
    "framework of the twin": ("models_torch/layers.py", "from torch import nn\n"),
    "format's framework": ("conversion/formats/torch_pickle.py", "def read():\n    import torch\n"),
    "types": (
        "parity/report/plots.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import matplotlib.figure\n",
    ),
}


def write_source(root, name, source):
    path = root / name
    path.parent.mkdir(parents=True)
    path.write_text(source, encoding="utf-8")


@pytest.mark.parametrize(("name", "source", "offender"), SEEDED.values(), ids=SEEDED)
def test_reader_names_file_and_line_of_an_offender(tmp_path, name, source, offender):
    write_source(tmp_path, name, source)

    assert describe_offenders(tmp_path, TABLE) == [offender]


@pytest.mark.parametrize(("name", "source"), ALLOWED.values(), ids=ALLOWED)
def test_reader_stays_silent_on_what_is_allowed(tmp_path, name, source):
    write_source(tmp_path, name, source)

    assert describe_offenders(tmp_path, TABLE) == []


@pytest.mark.parametrize(
    "module", ["parity", "parity.spec", "parity.cli", "conversion", "conversion.__main__"]
)
def test_import_loads_no_framework(module):
    watched = (*FRAMEWORKS, "jaxlib", "sklearn", "matplotlib")
    code = f"import sys, {module}; print(*sorted(set({watched!r}) & set(sys.modules)))"

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (done.stderr, done.stdout.split()) == ("", [])
