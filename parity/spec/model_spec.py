"""`ModelSpec`: what the specs of all model families share.

Whoever converts, initializes, trains or compares a model reads its layers from here, whatever its
family.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from parity.errors import SpecError
from parity.spec.conventions import Conventions
from parity.spec.layers import Layer, MaskedLayer, Shape, Slot


@dataclass(frozen=True, kw_only=True)
class ModelSpec(ABC):
    """An image classifier.

    Attributes:
        conventions: Where the frameworks disagree.
        in_channels: Image channels.
        input_size: Image `(height, width)` in pixels.
        classes: Number of logits.
        exceptions: Conventions of single layers that depart from the model's, by layer path.
    """

    conventions: Conventions
    in_channels: int
    input_size: tuple[int, int]
    classes: int
    exceptions: tuple[tuple[str, Conventions], ...] = ()

    @abstractmethod
    def layers(self) -> tuple[Layer, ...]:
        """Return every layer that carries arrays or drops something.

        Those with arrays come in the order in which PyTorch registers them.
        """

    def conventions_of(self, path: str) -> Conventions:
        """Return the conventions that the layer at `path` follows."""
        return dict(self.exceptions).get(path, self.conventions)

    def masked_layers(self) -> tuple[MaskedLayer, ...]:
        """Return the layers that drop something in training, in the order they run."""
        return tuple(layer for layer in self.layers() if isinstance(layer, MaskedLayer))

    def slots(self) -> dict[str, Slot]:
        """Return every array of the canonical state by `layer path.slot name`."""
        return {
            f"{layer.path}.{slot.name}": slot for layer in self.layers() for slot in layer.slots()
        }

    def state_shapes(self) -> dict[str, Shape]:
        """Return the shape of every array of the canonical state."""
        return {name: slot.shape for name, slot in self.slots().items()}


def describe_wrong_types(spec: ModelSpec, *, counts: tuple[str, ...]) -> list[str]:
    """Return what is wrong with the types of the fields that every model has.

    Args:
        spec: The model.
        counts: Further fields that must be whole numbers.
    """
    problems = []
    if not isinstance(spec.conventions, Conventions):
        kind = type(spec.conventions).__name__
        hint = " Pass its .conventions." if hasattr(spec.conventions, "conventions") else ""
        problems.append(f"conventions must be Conventions; got {kind}.{hint}")
    problems += [
        f"{name} must be a whole number; got {getattr(spec, name)!r}."
        for name in (*counts, "in_channels", "classes")
        if type(getattr(spec, name)) is not int
    ]
    size = spec.input_size
    if not isinstance(size, tuple) or len(size) != 2 or any(type(n) is not int for n in size):
        problems.append(f"input_size must be (height, width) in pixels; got {size!r}.")
    return problems


def describe_wrong_sizes(spec: ModelSpec, *, counts: tuple[str, ...]) -> list[str]:
    """Return which of a model's numbers are too small; `counts` names further ones."""
    problems = [
        f"{field} must be >= 1; got {getattr(spec, field)!r}."
        for field in (*counts, "in_channels", "classes")
        if getattr(spec, field) < 1
    ]
    if min(spec.input_size) < 1:
        problems.append(f"input_size must be >= 1 pixel a side; got {spec.input_size!r}.")
    return problems


def refuse(family: str, problems: list[str]) -> None:
    """Raise if there are problems with a spec of that class.

    Raises:
        SpecError: All of them at once.
    """
    if problems:
        message = f"{family}: " + " ".join(problems)
        raise SpecError(message)
