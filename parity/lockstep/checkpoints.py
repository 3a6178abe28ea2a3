"""Checkpoints of a training in progress: state, slots, position and metrics in one file."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from parity.errors import RunError
from parity.frameworks.net import Net, OptimizerState, State
from parity.lockstep.files import replace_file, write_bytes
from parity.lockstep.loop import state_digest

CHECKPOINT_FILE = "checkpoint.safetensors"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Everything a training needs to go on to the same bits.

    Attributes:
        identity: Of the run that wrote it.
        step: Steps made so far.
        digest: Digest of the stream up to there.
        state: The net's parameters and buffers.
        optimizer_state: Its optimizer's arrays.
        rows: Metrics of the finished epochs.
        partial: Sums over the epoch in progress.
        seconds: Training time so far.
    """

    identity: dict[str, Any]
    step: int
    digest: str
    state: State
    optimizer_state: OptimizerState
    rows: list[dict[str, Any]] = field(default_factory=list)
    partial: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the run's checkpoint, replacing the one before."""
    arrays = {f"state/{name}": array for name, array in checkpoint.state.items()}
    for slot, named in checkpoint.optimizer_state.slots.items():
        arrays |= {f"slots/{slot}/{name}": array for name, array in named.items()}
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    position = {
        "identity": checkpoint.identity,
        "content": state_digest(arrays),
        "step": checkpoint.step,
        "digest": checkpoint.digest,
        "optimizer_step": checkpoint.optimizer_state.step,
        "slot_names": list(checkpoint.optimizer_state.slots),
        "rows": checkpoint.rows,
        "partial": checkpoint.partial,
        "seconds": checkpoint.seconds,
    }
    metadata = {"position": json.dumps(position)}
    content = save(arrays, metadata=metadata)
    replace_file(folder / CHECKPOINT_FILE, lambda path: write_bytes(path, content))


def read_checkpoint(folder: Path) -> Checkpoint:
    """Return the run's checkpoint.

    Raises:
        RunError: If there is none, or it is damaged.
    """
    path = folder / CHECKPOINT_FILE
    try:
        with safe_open(path, framework="np") as file:
            position = json.loads((file.metadata() or {})["position"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
        if position["content"] != state_digest(arrays):
            message = "its arrays are not those that were written"
            raise ValueError(message)  # noqa: TRY301  # told like any other damage
        return _build_checkpoint(position, arrays)
    except FileNotFoundError as error:
        message = f"{path}: expected a checkpoint to resume from; there is none."
        raise RunError(message) from error
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        message = (
            f"{path}: expected a checkpoint written by this toolkit; it is damaged ({error}). "
            "Start a new run."
        )
        raise RunError(message) from error


def _build_checkpoint(position: dict[str, Any], arrays: State) -> Checkpoint:
    slots = {slot: _with_prefix(arrays, f"slots/{slot}/") for slot in position["slot_names"]}
    return Checkpoint(
        identity=position["identity"],
        step=position["step"],
        digest=position["digest"],
        state=_with_prefix(arrays, "state/"),
        optimizer_state=OptimizerState(step=position["optimizer_step"], slots=slots),
        rows=position["rows"],
        partial=position["partial"],
        seconds=position["seconds"],
    )


def load_checkpoint(net: Net, checkpoint: Checkpoint) -> None:
    """Give a net the state and optimizer state of a checkpoint."""
    net.load_state(checkpoint.state)
    net.load_optimizer_state(checkpoint.optimizer_state)


def _with_prefix(arrays: State, prefix: str) -> State:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
