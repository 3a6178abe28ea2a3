"""The twins mirror each other: the same files, and in them the same public names and arguments.

Sources are read, never run. What one framework forces to differ is a row with its reason. Methods
are not compared: each framework names those of the classes that a twin extends.
"""

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TWINS = ("models_torch", "models_keras")


@dataclass(frozen=True, kw_only=True)
class Exemption:
    """Public names that only one twin has.

    Attributes:
        file: The twin's file, from the root.
        names: As they stand there.
        reason: Why the other twin cannot, or need not, have them.
    """

    file: str
    names: tuple[str, ...]
    reason: str


_TENSOR = "Keras tensors are of the backend's type, which the source cannot name"
_INFERENCE = "a saved Keras model names its classes, a PyTorch state_dict does not"
EXEMPTIONS = (
    Exemption(
        file="models_torch/layers.py",
        names=("BatchNorm2d",),
        reason="the subclass keeps the stock layer's name",
    ),
    Exemption(
        file="models_keras/layers.py",
        names=("BatchNormalization",),
        reason="the subclass keeps the stock layer's name",
    ),
    Exemption(
        file="models_torch/layers.py",
        names=("EndPaddedConv2d", "EndPaddedMaxPool2d", "end_pads"),
        reason="torch has no padding='same' for strided layers",
    ),
    Exemption(
        file="models_torch/resnet.py",
        names=("ResNet", "ResidualBlock", "Stage"),
        reason="modules are classes, functional Keras models come from functions",
    ),
    Exemption(
        file="models_torch/airbench.py",
        names=("Airbench", "AirbenchBlock"),
        reason="modules are classes, functional Keras models come from functions",
    ),
    Exemption(
        file="models_keras/layers.py",
        names=("Conv2D",),
        reason="a PyTorch weight is frozen without a class of its own",
    ),
    Exemption(
        file="models_keras/layers.py",
        names=("Gelu",),
        reason="on tensorflow the stock GELU has its constants in float32",
    ),
    Exemption(
        file="models_keras/layers.py",
        names=("PartialDiracInitializer", "UnitDeviationInitializer"),
        reason="PyTorch's initializers are functions",
    ),
    Exemption(
        file="models_keras/layers.py",
        names=("Apply",),
        reason="what a functional model is made of: a layer, or a function that applies several",
    ),
    Exemption(file="models_keras/layers.py", names=("Tensor",), reason=_TENSOR),
    Exemption(file="models_keras/optimizers/names.py", names=("Tensor",), reason=_TENSOR),
    Exemption(
        file="models_keras/optimizers/names.py",
        names=("canonical_name",),
        reason="PyTorch's names are the canonical ones",
    ),
    Exemption(file="models_keras/models.py", names=("inference_model",), reason=_INFERENCE),
    Exemption(file="models_keras/__init__.py", names=("inference_model",), reason=_INFERENCE),
)


def describe_arguments(arguments):
    """Return an argument list as text: names, order, kinds and defaults, without annotations."""
    for node in ast.walk(arguments):
        if isinstance(node, ast.arg):
            node.annotation = None
    return ast.unparse(arguments)


def statements(body):
    """Yield the statements of a module, those behind conditions too."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With | ast.ExceptHandler):
            for field in ("body", "orelse", "finalbody", "handlers"):
                yield from statements(getattr(node, field, []))


def assigned_names(node):
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [
        name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)
    ]


def listed_names(value):
    """Return the strings that a literal lists, or maps from."""
    literals = value.keys if isinstance(value, ast.Dict) else getattr(value, "elts", [])
    return [literal.value for literal in literals if isinstance(literal, ast.Constant)]


def names_of(node, *, is_package, is_lazy):
    """Yield `(name, what it is)` for every name that a statement binds or exports."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            yield node.name, f"({describe_arguments(node.args)})"
        case ast.ClassDef():
            yield node.name, "class"
        case ast.ImportFrom() if is_package:
            yield from ((alias.asname or alias.name, "import") for alias in node.names)
        case ast.Assign() | ast.AnnAssign():
            names = assigned_names(node)
            yield from ((name, "value") for name in names)
            if is_lazy or "__all__" in names:
                yield from ((name, "exported") for name in listed_names(node.value))


def public_names(path):
    """Return what a source file makes public: each name with everything that it is there."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    is_lazy = any(getattr(node, "name", "") == "__getattr__" for node in tree.body)
    found = {}
    for node in statements(tree.body):
        for name, kind in names_of(node, is_package=path.name == "__init__.py", is_lazy=is_lazy):
            if not name.startswith("_"):
                found.setdefault(name, set()).add(kind)
    return {name: " ".join(sorted(kinds)) for name, kinds in found.items()}


def twin_files(root):
    """Return the files of either twin, from its folder."""
    found = {
        path.relative_to(root / twin) for twin in TWINS for path in (root / twin).rglob("*.py")
    }
    return sorted(map(str, found))


def unshared_names(root):
    """Yield `(file, name, torch, keras)` for each public name on which the twins differ."""
    for file in twin_files(root):
        paths = [root / twin / file for twin in TWINS]
        torch, keras = (public_names(path) if path.is_file() else {} for path in paths)
        for name in sorted(torch.keys() | keras.keys()):
            if torch.get(name) != keras.get(name):
                yield file, name, torch.get(name), keras.get(name)


def is_exempt(file, name, torch, keras, exemption):
    owner = TWINS[0] if keras is None else TWINS[1]
    one_sided = None in (torch, keras)
    return one_sided and exemption.file == f"{owner}/{file}" and name in exemption.names


def describe_unshared(root, exemptions=()):
    """Return a line for each file or public name that the twins do not share."""
    missing = [
        f"{twin}/{file}: missing"
        for file in twin_files(root)
        for twin in TWINS
        if not (root / twin / file).is_file()
    ]
    return missing + [
        f"{file}: {name} is {torch or 'missing'} in torch, {keras or 'missing'} in keras"
        for file, name, torch, keras in unshared_names(root)
        if not any(is_exempt(file, name, torch, keras, row) for row in exemptions)
    ]


def test_twins_share_their_public_names():
    assert describe_unshared(ROOT, EXEMPTIONS) == []


@pytest.mark.parametrize(
    ("exemption", "name"),
    [(exemption, name) for exemption in EXEMPTIONS for name in exemption.names],
    ids=lambda value: getattr(value, "file", value),
)
def test_exemption_is_needed(exemption, name):
    unshared = [row for row in unshared_names(ROOT) if row[1] == name]

    assert [row for row in unshared if is_exempt(*row, exemption)]


SAME = "def build(spec, *, rate=0.1):\n    return 1\n"
SEEDED = {
    "function": (SAME, SAME.replace("build", "make"), ["build", "make"]),
    "argument name": (SAME, SAME.replace("rate", "lr"), ["build"]),
    "argument kind": (SAME, SAME.replace("*, ", ""), ["build"]),
    "argument default": (SAME, SAME.replace("0.1", "0.2"), ["build"]),
    "argument order": ("def f(a, b): ...\n", "def f(b, a): ...\n", ["f"]),
    "positional only": ("def f(a, /, b): ...\n", "def f(a, b): ...\n", ["f"]),
    "catch-all": ("def f(a, **options): ...\n", "def f(a): ...\n", ["f"]),
    "class": ("class A: ...\n", "class B: ...\n", ["A", "B"]),
    "class for function": ("class A: ...\n", "def A(): ...\n", ["A"]),
    "value": ("LAYERS = {}\n", "", ["LAYERS"]),
    "annotated value": ("LAYERS: dict = {}\n", "", ["LAYERS"]),
    "conditional": ("if 1:\n    def f(): ...\n", "", ["f"]),
    "fallback": ("try:\n    f = 1\nexcept ImportError:\n    def f(): ...\n", "f = 1\n", ["f"]),
}
SHARED = {
    "annotation": ("def f(x: Tensor) -> Module: ...\n", "def f(x: Any) -> Layer: ...\n"),
    "body": ("def f(): return torch\n", "def f(): return keras\n"),
    "private": ("def _f(a): ...\n", "def _f(b): ...\n"),
    "imports of a module": ("from torch import nn\n", "from keras import ops\n"),
}
EXPORTS = {
    "import": ("from models_torch.a import f\n", "", "f"),
    "all": ("__all__ = ['f', 'g']\n", "__all__ = ['f']\n", "g"),
    "lazy": (
        "_HOMES = {'f': 'a', 'g': 'b'}\ndef __getattr__(name): ...\n",
        "_HOMES = {'f': 'a'}\ndef __getattr__(name): ...\n",
        "g",
    ),
}


def write_twins(root, torch, keras, *, file="layers.py"):
    for twin, source in zip(TWINS, (torch, keras), strict=True):
        (root / twin).mkdir()
        (root / twin / file).write_text(source, encoding="utf-8")


@pytest.mark.parametrize(("torch", "keras", "names"), SEEDED.values(), ids=SEEDED)
def test_comparer_names_file_and_function_of_a_difference(tmp_path, torch, keras, names):
    write_twins(tmp_path, torch, keras)

    lines = describe_unshared(tmp_path)

    assert [line.partition(" is ")[0] for line in lines] == [f"layers.py: {name}" for name in names]


@pytest.mark.parametrize(("torch", "keras"), SHARED.values(), ids=SHARED)
def test_comparer_stays_silent_on_what_may_differ(tmp_path, torch, keras):
    write_twins(tmp_path, torch, keras)

    assert describe_unshared(tmp_path) == []


@pytest.mark.parametrize(("torch", "keras", "name"), EXPORTS.values(), ids=EXPORTS)
def test_comparer_sees_what_a_package_exports(tmp_path, torch, keras, name):
    write_twins(tmp_path, torch, keras, file="__init__.py")

    (line,) = describe_unshared(tmp_path)

    assert line.startswith(f"__init__.py: {name} is ")


def test_comparer_names_a_file_that_one_twin_lacks(tmp_path):
    write_twins(tmp_path, "", "")
    (tmp_path / "models_keras" / "airbench.py").write_text("", encoding="utf-8")

    assert describe_unshared(tmp_path) == ["models_torch/airbench.py: missing"]


def test_exemption_covers_the_named_twin_only(tmp_path):
    write_twins(tmp_path, "", "def f(): ...\n")
    rows = [Exemption(file=f"{twin}/layers.py", names=("f",), reason="one side") for twin in TWINS]

    assert len(describe_unshared(tmp_path, rows[:1])) == 1
    assert describe_unshared(tmp_path, rows[1:]) == []


def test_exemption_does_not_cover_a_changed_argument(tmp_path):
    write_twins(tmp_path, "def f(a): ...\n", "def f(b): ...\n")
    rows = [Exemption(file=f"{twin}/layers.py", names=("f",), reason="either") for twin in TWINS]

    assert len(describe_unshared(tmp_path, rows)) == 1
