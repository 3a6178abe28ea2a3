"""The register of differences: every way in which PyTorch and Keras are known to compute otherwise.

`differences.toml` holds one table a difference. Each carries a snippet that shows it: run after
`PREAMBLE`, it leaves `default`, a pair of what torch and Keras return at their defaults, and,
unless the row is documentation only, `settled`, the pair once the difference is settled. A row that
a field of the optimizers settles can build the twins by it: `PREAMBLE` has `spec_update`,
`torch_twin` and `KerasTwin`.
"""

import dataclasses
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity.errors import SpecError, describe_list, describe_nearest

DIFFERENCES_FILE = Path(__file__).parent / "differences.toml"

BACKENDS = ("tensorflow", "jax", "torch")

# What takes a difference away: a field of the spec, code between the two, an error instead of a
# wrong number; or nothing, and the row is there to be read.
SETTLEMENTS = ("field", "adapter", "refusal", "documentation")

# Rounding of one layer in float64; a row whose stock layers cannot do better has its own bound.
DEFAULT_BOUND = 1e-12

PREAMBLE = """\
import keras
import numpy as np
import torch
from models_keras.optimizers.update import SpecOptimizer as KerasTwin
from models_torch.optimizers import build_optimizer
from parity.spec.optimizers import OPTIMIZERS, NoClipping, Update

keras.config.set_floatx("float64")
torch.set_default_dtype(torch.float64)
rng = np.random.default_rng(0)
to_numpy = keras.ops.convert_to_numpy


def torch_path(make_optimizer, gradients, rates=None):
    parameter = torch.nn.Parameter(torch.ones(gradients.shape[1:]))
    optimizer = make_optimizer([parameter])
    for step, gradient in enumerate(gradients):
        if rates is not None:
            optimizer.param_groups[0]["lr"] = rates[step]
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
    return parameter.detach().numpy()


def keras_path(optimizer, gradients, rates=None):
    parameter = keras.Variable(np.ones(gradients.shape[1:]))
    optimizer.build([parameter])
    for step, gradient in enumerate(gradients):
        if rates is not None:
            optimizer.learning_rate = rates[step]
        optimizer.apply([keras.ops.convert_to_tensor(gradient)])
    return to_numpy(parameter)


def spec_rule(kind, **fields):
    forms = {"l2_in_loss": False, "decay_scaled_by_lr": True}
    return OPTIMIZERS[kind](**{"l2": 0.0, "decoupled_decay": 0.0} | forms | fields)


def spec_update(kind, groups=(), clipping=NoClipping(), **fields):
    return Update(rule=spec_rule(kind, **fields), groups=groups, clipping=clipping)


def torch_twin(update):
    return lambda parameters: build_optimizer(update, model=torch.nn.ParameterList(parameters))
"""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One row of the register.

    Attributes:
        id: Name on the command line, in words joined by hyphens.
        layer: Layer kind, or `optimizer`, `loss`, `schedule`, `initializer`, `precision`.
        torch: What PyTorch does.
        keras: What Keras does.
        matters: When the difference shows, and how.
        settled_by: One of `SETTLEMENTS`.
        settlement: The field, adapter or refusal; for documentation, what to watch for.
        snippet: Python code that shows the difference, to be run after `PREAMBLE`.
        size: Gap at the defaults, relative to torch's largest value; None where the two are not
            numbers of one shape.
        bound: Largest gap once settled.
        backends: Keras backends on which the row holds.
    """

    id: str
    layer: str
    torch: str
    keras: str
    matters: str
    settled_by: str
    settlement: str
    snippet: str
    size: float | None = None
    bound: float = DEFAULT_BOUND
    backends: tuple[str, ...] = BACKENDS

    @property
    def code(self) -> str:
        """The snippet with what it needs before it: a program that runs as it is."""
        return f"{PREAMBLE}\n{self.snippet}"


def load_differences(path: Path = DIFFERENCES_FILE) -> tuple[Difference, ...]:
    """Read the register, in the order of the file.

    Raises:
        SpecError: If a row has a missing, unknown or wrong key, or two rows have one id.
    """
    with path.open("rb") as file:
        tables = tomllib.load(file)["difference"]
    rows = tuple(
        _build(table, where=f"{path.name}: {table.get('id', f'row {number}')}")
        for number, table in enumerate(tables, start=1)
    )
    names = [row.id for row in rows]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        message = f"{path.name}: ids must be unique; these are there twice: {describe_list(twice)}."
        raise SpecError(message)
    return rows


def find_difference(name: str, rows: Sequence[Difference]) -> Difference:
    """Return the row with that id.

    Raises:
        SpecError: If there is none.
    """
    for row in rows:
        if row.id == name:
            return row
    message = f"difference {name!r} not found.{describe_nearest(name, [row.id for row in rows])}"
    raise SpecError(message)


def _build(table: dict[str, Any], *, where: str) -> Difference:
    fields = {field.name: field for field in dataclasses.fields(Difference)}
    required = [name for name, field in fields.items() if field.default is dataclasses.MISSING]
    unknown = [name for name in table if name not in fields]
    missing = [name for name in required if not table.get(name)]
    if unknown or missing:
        message = (
            f"{where}: missing keys: {describe_list(missing) or 'none'}; "
            f"unknown keys: {describe_list(unknown) or 'none'}."
        )
        raise SpecError(message)
    values = {**table, "backends": tuple(table.get("backends", BACKENDS))}
    for key, value, known in (
        *(("backends", backend, BACKENDS) for backend in values["backends"]),
        ("settled_by", values["settled_by"], SETTLEMENTS),
    ):
        if value not in known:
            message = f"{where}: {key} must be of {', '.join(known)}; got {value!r}."
            raise SpecError(message)
    return Difference(**values)
