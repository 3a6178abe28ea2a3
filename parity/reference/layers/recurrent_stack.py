"""Recurrent layers in stacks and in both directions, forward and backward.

Arrays go by PyTorch's names, such as `weight_ih_l0` and `bias_hh_l1_reverse`; states are `(layers *
directions, n, u)`, the directions of a layer side by side.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from parity.errors import SpecError
from parity.reference.layers.arrays import Array, widen
from parity.reference.layers.gates import (
    Activation,
    RecurrentActivation,
    activation_pair,
    gate_pair,
)
from parity.reference.layers.gru import gru, gru_backward
from parity.reference.layers.recurrent import (
    lstm,
    lstm_backward,
    simple_rnn,
    simple_rnn_backward,
)

Arrays = dict[str, Array]

_SLOTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
_FORWARD: dict[str, Callable[..., Array]] = {"simple_rnn": simple_rnn, "gru": gru}
_BACKWARD: dict[str, Callable[..., tuple[Array, ...]]] = {
    "simple_rnn": simple_rnn_backward,
    "gru": gru_backward,
}
_CHOICES: dict[str, tuple[str, ...]] = {
    "cell": ("simple_rnn", "lstm", "gru"),
    "direction": ("forward", "backward", "both"),
    "merge": ("concat", "sum", "average", "product"),
    "returned": ("sequence", "last_step", "final"),
    "backward_order": ("time", "processing"),
}


@dataclass(frozen=True, kw_only=True)
class Recurrence:
    """How a recurrent layer runs, where the frameworks' layers differ.

    Attributes:
        cell: Which recurrence.
        layers: How many are stacked. Torch's layer stacks by itself, Keras by layers in a row.
        direction: `backward` is Keras' `go_backwards`, which torch has only beside `forward`;
            `both` is torch's `bidirectional` and Keras' `Bidirectional`.
        merge: What becomes of the two directions' outputs, between layers too: torch always
            concatenates, as Keras does by default.
        returned: `sequence`, the outputs of every step; `last_step`, those at the last time step,
            where the backward direction has seen one step only (torch's `outputs[:, -1]`); or
            `final`, each direction's last state in its own order (Keras' `return_sequences=False`;
            torch's `h_n`). The layers below the last one of a stack always pass on the sequence.
        backward_order: Whether a layer that only goes backwards returns the step it took first in
            the last place, where it belongs in `time`, or in the first, as in `processing` (Keras).
            With `both`, either framework keeps `time`.
        batch_first: Whether inputs and sequences are `(n, t, f)`, Keras' only form, or `(t, n, f)`,
            torch's default. States are the same with both.
        activation: Of states, candidates and the LSTM's output.
        recurrent_activation: Of the gates; None of a simple recurrence, which has none.
        reset_after: As `gru` takes it; None of the others.
    """

    cell: Literal["simple_rnn", "lstm", "gru"]
    layers: int
    direction: Literal["forward", "backward", "both"]
    merge: Literal["concat", "sum", "average", "product"]
    returned: Literal["sequence", "last_step", "final"]
    backward_order: Literal["time", "processing"]
    batch_first: bool
    activation: Activation
    recurrent_activation: RecurrentActivation | None
    reset_after: bool | None

    def __post_init__(self) -> None:
        problems = [
            f"{field} must be one of {', '.join(known)}; got {getattr(self, field)!r}."
            for field, known in _CHOICES.items()
            if getattr(self, field) not in known
        ]
        if self.layers < 1:
            problems.append(f"layers must be >= 1; got {self.layers!r}.")
        if (self.recurrent_activation is None) != (self.cell == "simple_rnn"):
            problems.append("recurrent_activation belongs to lstm and gru, None to simple_rnn.")
        if (self.reset_after is None) != (self.cell != "gru"):
            problems.append("reset_after belongs to gru, None to the others.")
        if problems:
            message = "recurrence: " + " ".join(problems)
            raise SpecError(message)
        activation_pair(self.activation)
        if self.recurrent_activation is not None:
            gate_pair(self.recurrent_activation)

    @property
    def reverses(self) -> tuple[bool, ...]:
        """For each direction of a layer, in order, whether it goes backwards."""
        return {"forward": (False,), "backward": (True,), "both": (False, True)}[self.direction]

    @property
    def cell_arguments(self) -> dict[str, Any]:
        """The keywords of the cell's own function."""
        gates = {
            "recurrent_activation": self.recurrent_activation,
            "reset_after": self.reset_after,
        }
        present = {name: value for name, value in gates.items() if value is not None}
        return {"activation": self.activation} | present


def recurrent(
    inputs: ArrayLike,
    hidden: ArrayLike,
    cell: ArrayLike | None,
    weights: Mapping[str, ArrayLike],
    *,
    how: Recurrence,
) -> tuple[Array, Array, Array | None]:
    """Return `(outputs, hidden, cell)`: what the stack returns, and its last states.

    Args:
        inputs: `(n, t, f)`, or `(t, n, f)` if not `batch_first`.
        hidden: The first states, `(layers * directions, n, u)`; both frameworks begin with zeros
            where none are given.
        cell: Likewise of an LSTM, else None.
        weights: Arrays by PyTorch's names; biases may be missing. A layer that only goes backwards
            has no `_reverse` in its names, as it is the only one.
        how: The conventions.

    Raises:
        SpecError: If an array is missing or does not fit.

    Source: torch 2.13.0, nn.RNN, nn.LSTM and nn.GRU; keras 3.15.1, RNN and Bidirectional.
    """
    sequence = _batch_first(inputs, how)
    hidden, cell = _states(hidden, cell, how)
    runs: list[_Run] = []
    for layer in range(how.layers):
        runs = list(_run_layer(sequence, hidden, cell, weights, layer=layer, how=how))
        hidden = _put(hidden, layer, [run.hiddens[:, -1] for run in runs])
        cell = None if cell is None else _put(cell, layer, [run.cells[:, -1] for run in runs])
        if layer < how.layers - 1:
            sequence = _merge([_outward(run, run.hiddens, how) for run in runs], how.merge)
    return _returned(runs, how), hidden, cell


def recurrent_backward(
    d_outputs: ArrayLike,
    d_hidden: ArrayLike,
    d_cell: ArrayLike | None,
    inputs: ArrayLike,
    hidden: ArrayLike,
    cell: ArrayLike | None,
    weights: Mapping[str, ArrayLike],
    *,
    how: Recurrence,
) -> tuple[Array, Array, Array | None, Arrays]:
    """Return the gradients of `recurrent`: of inputs, first states, cells and weights by name.

    Args:
        d_outputs: Gradient of the outputs.
        d_hidden: Of the last states, `(layers * directions, n, u)`.
        d_cell: Of the last cells, or None.
        inputs: As `recurrent` takes them, and so all that follows.
        hidden: The first states.
        cell: The first cells of an LSTM, else None.
        weights: Arrays by PyTorch's names.
        how: The conventions.
    """
    hidden, cell = _states(hidden, cell, how)
    sequences, layers = [_batch_first(inputs, how)], []
    for layer in range(how.layers):
        runs = list(_run_layer(sequences[-1], hidden, cell, weights, layer=layer, how=how))
        layers.append(runs)
        if layer < how.layers - 1:
            sequences.append(_merge([_outward(run, run.hiddens, how) for run in runs], how.merge))
    d_hidden, d_cell = _states(d_hidden, d_cell, how)
    d_first, d_first_cell = np.zeros_like(hidden), None if cell is None else np.zeros_like(cell)
    d_weights: Arrays = {}
    d_runs = _returned_backward(widen(d_outputs), layers[-1], how)
    d_sequence = sequences[0]
    for layer in reversed(range(how.layers)):
        d_sequence = np.zeros_like(sequences[layer])
        for index, (run, d_hiddens) in enumerate(zip(layers[layer], d_runs, strict=True)):
            row = layer * len(layers[layer]) + index
            d_hiddens[:, -1] += d_hidden[row]
            gradients = run.pull_back(d_hiddens, None if d_cell is None else d_cell[row], how)
            d_sequence += run.in_time(gradients.pop("inputs"))
            d_first[row] = gradients.pop("hidden")
            if d_first_cell is not None:
                d_first_cell[row] = gradients.pop("cell")
            d_weights |= {f"{name}{run.suffix}": array for name, array in gradients.items()}
        if layer:
            d_runs = _sequence_backward(d_sequence, layers[layer - 1], how)
    return _batch_first(d_sequence, how), d_first, d_first_cell, d_weights


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One direction of one layer, in its own order of steps.

    Attributes:
        reverse: Whether it goes backwards.
        suffix: What its arrays' names end with.
        arguments: What its function took: inputs, first states, weights.
        hiddens: The state after each step.
        cells: The cell after each step; the states where the kind has no cell.
    """

    reverse: bool
    suffix: str
    arguments: tuple[Any, ...]
    hiddens: Array
    cells: Array

    def in_time(self, steps: Array) -> Array:
        """Return steps of this order in the order of time, or the other way round."""
        return steps[:, ::-1].copy() if self.reverse else steps.copy()

    def pull_back(self, d_hiddens: Array, d_cell: Array | None, how: Recurrence) -> Arrays:
        """Return the gradients of inputs, first states and those weights that there are."""
        if d_cell is None:
            gradients = _BACKWARD[how.cell](d_hiddens, *self.arguments, **how.cell_arguments)
            names: tuple[str, ...] = ("inputs", "hidden", *_SLOTS)
        else:
            d_cells = np.zeros_like(d_hiddens)
            d_cells[:, -1] = d_cell
            gradients = lstm_backward(d_hiddens, d_cells, *self.arguments, **how.cell_arguments)
            names = ("inputs", "hidden", "cell", *_SLOTS)
        given = dict(zip(names, self.arguments, strict=True))
        return {
            name: gradient
            for name, gradient in zip(names, gradients, strict=True)
            if given[name] is not None
        }


def _run_layer(
    sequence: Array,
    hidden: Array,
    cell: Array | None,
    weights: Mapping[str, ArrayLike],
    *,
    layer: int,
    how: Recurrence,
) -> Iterator[_Run]:
    for index, reverse in enumerate(how.reverses):
        suffix = f"_l{layer}" + ("_reverse" if index else "")
        missing = [f"{name}{suffix}" for name in _SLOTS[:2] if f"{name}{suffix}" not in weights]
        if missing:
            message = f"recurrent: expected weights {', '.join(missing)}; got {', '.join(weights)}."
            raise SpecError(message)
        row = layer * len(how.reverses) + index
        slots = [weights.get(f"{name}{suffix}") for name in _SLOTS]
        steps = sequence[:, ::-1] if reverse else sequence
        if cell is None:
            arguments: tuple[Any, ...] = (steps, hidden[row], *slots)
            hiddens = cells = _FORWARD[how.cell](*arguments, **how.cell_arguments)
        else:
            arguments = (steps, hidden[row], cell[row], *slots)
            hiddens, cells = lstm(*arguments, **how.cell_arguments)
        yield _Run(
            reverse=reverse, suffix=suffix, arguments=arguments, hiddens=hiddens, cells=cells
        )


def _batch_first(inputs: ArrayLike, how: Recurrence) -> Array:
    """Return a sequence with its axes as the functions here take them, or the other way round."""
    widened = widen(inputs)
    if widened.ndim != 3:
        message = f"recurrent: expected a sequence of 3 axes; got shape {widened.shape}."
        raise SpecError(message)
    return widened if how.batch_first else widened.swapaxes(0, 1)


def _states(
    hidden: ArrayLike, cell: ArrayLike | None, how: Recurrence
) -> tuple[Array, Array | None]:
    if (cell is None) != (how.cell != "lstm"):
        message = "recurrent: a cell belongs to an LSTM, None to the others."
        raise SpecError(message)
    states = [widen(state) for state in (hidden, cell) if state is not None]
    count = how.layers * len(how.reverses)
    for state in states:
        if state.ndim != 3 or len(state) != count:
            message = f"recurrent: expected states ({count}, n, u); got {state.shape}."
            raise SpecError(message)
    return states[0], states[1] if cell is not None else None


def _put(states: Array, layer: int, last: list[Array]) -> Array:
    moved = states.copy()
    moved[layer * len(last) : (layer + 1) * len(last)] = last
    return moved


def _merge(parts: list[Array], merge: str) -> Array:
    if len(parts) == 1:
        return parts[0]
    if merge == "concat":
        return np.concatenate(parts, axis=-1)
    if merge == "product":
        return parts[0] * parts[1]
    return (parts[0] + parts[1]) * (0.5 if merge == "average" else 1.0)


def _merge_backward(d_merged: Array, parts: list[Array], merge: str) -> list[Array]:
    if len(parts) == 1:
        return [d_merged]
    if merge == "concat":
        return np.split(d_merged, 2, axis=-1)
    if merge == "product":
        return [d_merged * parts[1], d_merged * parts[0]]
    return [d_merged * (0.5 if merge == "average" else 1.0)] * 2


def _outward(run: _Run, steps: Array, how: Recurrence) -> Array:
    """Return steps as a direction hands them on, or the other way round."""
    keeps_order = how.direction == "backward" and how.backward_order == "processing"
    return steps.copy() if keeps_order else run.in_time(steps)


def _sequence_backward(d_sequence: Array, runs: list[_Run], how: Recurrence) -> list[Array]:
    """Return the gradient of each direction's steps, in its own order."""
    parts = [_outward(run, run.hiddens, how) for run in runs]
    d_parts = _merge_backward(d_sequence, parts, how.merge)
    return [_outward(run, d_part, how) for run, d_part in zip(runs, d_parts, strict=True)]


def _returned(runs: list[_Run], how: Recurrence) -> Array:
    if how.returned == "sequence":
        sequence = _merge([_outward(run, run.hiddens, how) for run in runs], how.merge)
        return _batch_first(sequence, how)
    return _merge([run.hiddens[:, _returned_step(run, how)] for run in runs], how.merge)


def _returned_backward(d_outputs: Array, runs: list[_Run], how: Recurrence) -> list[Array]:
    if how.returned == "sequence":
        return _sequence_backward(_batch_first(d_outputs, how), runs, how)
    steps = [_returned_step(run, how) for run in runs]
    parts = [run.hiddens[:, step] for run, step in zip(runs, steps, strict=True)]
    d_parts = _merge_backward(d_outputs, parts, how.merge)
    d_runs = [np.zeros_like(run.hiddens) for run in runs]
    for d_run, step, d_part in zip(d_runs, steps, d_parts, strict=True):
        d_run[:, step] = d_part
    return d_runs


def _returned_step(run: _Run, how: Recurrence) -> int:
    return 0 if how.returned == "last_step" and run.reverse else -1
