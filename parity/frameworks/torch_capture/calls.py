"""One call of a torch function or layer, and which functions are no part of the dataflow."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import resolve_name

from parity.frameworks.torch_capture.structures import Structure, replace_tensors, tensors_of

# Functions that hand on the values of their first argument; casts do where the dtype stays.
_HANDED_ON = frozenset(
    ["contiguous", "clone", "detach", "data", "requires_grad", "alias", "cpu", "cuda", "pin_memory"]
)
_CASTS = frozenset(
    [
        "to",
        "type",
        "type_as",
        "float",
        "double",
        "half",
        "bfloat16",
        "int",
        "long",
        "short",
        "char",
        "byte",
        "bool",
    ]
)

# Functions that look at a tensor's shape and dtype, not at its values.
_FRESH = frozenset(
    [
        "zeros_like",
        "ones_like",
        "full_like",
        "empty_like",
        "new_zeros",
        "new_ones",
        "new_full",
        "new_empty",
        "new_tensor",
        "empty_strided",
        "new_empty_strided",
    ]
)
_DRAWN = frozenset(
    [
        "rand",
        "randn",
        "randint",
        "randperm",
        "rand_like",
        "randn_like",
        "randint_like",
        "bernoulli",
        "normal",
        "uniform",
        "random",
        "exponential",
        "multinomial",
        "poisson",
        "cauchy",
        "log_normal",
        "geometric",
        "gumbel_softmax",
        "fractional_max_pool2d",
        "fractional_max_pool3d",
    ]
)
# Functions by which Python, or NumPy, sees values.
_READ = frozenset(
    [
        "item",
        "tolist",
        "bool",
        "int",
        "float",
        "index",
        "complex",
        "array",
        "numpy",
        "equal",
        "allclose",
        "is_nonzero",
        "contains",
    ]
)
_DROPOUTS = frozenset(["dropout", "dropout1d", "dropout2d", "dropout3d", "feature_dropout"])
# Functions that drop something but take no numbers: name -> (place, name, value) of the argument
# that keeps them from it.
_UNDROPPED: dict[str, tuple[int, str, Any]] = {
    "alpha_dropout": (2, "training", False),
    "feature_alpha_dropout": (2, "training", False),
    "rrelu": (3, "training", False),
    "scaled_dot_product_attention": (4, "dropout_p", 0.0),
    "multi_head_attention_forward": (10, "dropout_p", 0.0),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """A call as its caller wrote it.

    Attributes:
        function: What is called.
        native: Its full name in torch; for a layer the class.
        name: Its bare name: `add` for `torch.add`, `Tensor.add_` and `Tensor.__add__`.
        module: The layer, where the call is one of a whole layer.
        args: Positional arguments.
        kwargs: Keyword arguments.
    """

    function: Callable[..., Any]
    native: str
    name: str
    module: nn.Module | None = None
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors among the arguments, in order."""
        return tensors_of((self.args, dict(self.kwargs)))

    @property
    def is_fresh(self) -> bool:
        """Whether the values of the result do not depend on those of the arguments."""
        return self.name in _FRESH

    @property
    def is_drawn(self) -> bool:
        """Whether the result is random."""
        return self.name in _DRAWN and self.module is None

    @property
    def is_read(self) -> bool:
        """Whether Python sees values by it, if no tensor comes back."""
        return self.name in _READ

    @property
    def is_dropout(self) -> bool:
        """Whether it is a dropout that can be told what to keep."""
        return self.name in _DROPOUTS

    @property
    def changes_in_place(self) -> bool:
        """Whether its name says that it changes its first argument."""
        return self.native.endswith("_") and not self.native.endswith("__")

    def run(self) -> Structure:
        """Make the call."""
        return self.function(*self.args, **self.kwargs)

    def bind(self, names: str) -> SimpleNamespace:
        """Return the arguments by name, those left out as None; `names` in positional order."""
        ordered = names.split()
        bound = dict.fromkeys(ordered) | dict(zip(ordered, self.args, strict=False))
        return SimpleNamespace(**(bound | dict(self.kwargs)))

    def hands_on(self, result: Structure, *, narrow: torch.dtype | None = None) -> bool:
        """Return whether the result has the values of the first argument, in the same dtype.

        A cast back to `narrow`, which a run of a wider dtype should not have, counts too.
        """
        tensors = self.tensors
        if not isinstance(result, Tensor) or not tensors:
            return False
        dtypes = (tensors[0].dtype, narrow)
        same = result.dtype in dtypes and result.shape == tensors[0].shape
        return same and (self.name in _HANDED_ON or self.name in _CASTS)

    def with_tensors(self, function: Callable[[Tensor], Tensor]) -> "Call":
        """Return the call with `function` of each tensor in its place, in order."""
        args, kwargs = replace_tensors((self.args, dict(self.kwargs)), function)
        return dataclasses.replace(self, args=args, kwargs=kwargs)

    def without_drops(self) -> "Call | None":
        """Return the call that drops nothing; None if this one does not, or is a plain dropout."""
        place, name, value = _UNDROPPED.get(self.name, (0, "", None))
        if not name or self._argument(place, name, default=name == "training") == value:
            return None
        if place < len(self.args):
            args = (*self.args[:place], value, *self.args[place + 1 :])
            return dataclasses.replace(self, args=args)
        return dataclasses.replace(self, kwargs={**self.kwargs, name: value})

    def _argument(self, place: int, name: str, *, default: bool) -> Structure:
        if place < len(self.args):
            return self.args[place]
        # Left out, `dropout_p` is 0; `training` is true of some and false of others.
        return self.kwargs.get(name, default)


class Following(Protocol):
    """What follows calls."""

    def make(self, call: Call) -> Structure:
        """Make a call."""

    def take(self, call: Call, result: Structure) -> Structure:
        """Follow a call that is already made."""

    def resolve(self, result: Structure) -> Structure:
        """Return what goes on for the tensors of a call that was taken."""

    def paused(self) -> contextlib.AbstractContextManager[None]:
        """Follow nothing inside the context."""

    def note(self, sentence: str) -> None:
        """Keep a sentence about the present layer."""

    def inside(self, path: str, *, is_layer: bool) -> contextlib.AbstractContextManager[None]:
        """Take what is called as part of a layer."""


def function_call(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Call:
    """Return the call of a torch function, as a torch function mode is told of it."""
    name = getattr(function, "__name__", type(function).__name__)
    if name == "__get__":
        name = function.__self__.__name__  # type: ignore[attr-defined]
    bare = name.strip("_") if name.startswith("__") else name.rstrip("_")
    native = resolve_name(function) or name
    return Call(function=function, native=native, name=bare, args=args, kwargs=kwargs)


def widen(call: Call, narrow: torch.dtype, wide: torch.dtype) -> Call:
    """Return the call with arguments that ask for the dtype `narrow` asking for `wide`."""

    def widened(argument: Structure) -> Structure:
        return wide if argument is narrow else argument

    args = tuple(map(widened, call.args))
    kwargs = {name: widened(argument) for name, argument in call.kwargs.items()}
    if call.function is Tensor.float and narrow == torch.float32:
        return dataclasses.replace(call, function=Tensor.to, args=(*args, wide), kwargs=kwargs)
    return dataclasses.replace(call, args=args, kwargs=kwargs)
