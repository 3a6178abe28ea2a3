"""The two nets of a lockstep, what built them, and how they are compared."""

from dataclasses import dataclass

from parity import runtime
from parity.data.batches import BatchStream
from parity.errors import ParityError
from parity.frameworks.build import build_twin
from parity.frameworks.net import Net
from parity.lockstep.injection import Injection
from parity.spec.model_spec import ModelSpec
from parity.spec.recipe import ResolvedRecipe


@dataclass(frozen=True, kw_only=True)
class LockstepSettings:
    """How two nets are compared.

    Attributes:
        steps: Training steps.
        every: Steps between comparisons.
        mode: `resync` or `free`.
        dtype: `float32` or `float64`; no other has a bound.
        seed: Of initial weights, order and augmentation.
        reference: Framework of the reference, `torch` or `keras`.
        candidate: Framework of the candidate.
        keras_backend: Backend of the Keras side; None for the process's own.
        compiled: Whether the candidate's passes are compiled.
        device: Device of the nets.
    """

    steps: int
    every: int = 1
    mode: str = "resync"
    dtype: str = "float64"
    seed: int = 0
    reference: str = "torch"
    candidate: str = "keras"
    keras_backend: str | None = None
    compiled: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.dtype not in runtime.DTYPES:
            message = (
                f"lockstep: dtype must be one of {', '.join(runtime.DTYPES)}; got {self.dtype!r}. "
                "Verdicts are relative to float64, and gaps in mixed precision have no bounds."
            )
            raise ParityError(message)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The two nets, what built them, and the recipe each trains under."""

    reference: Net
    candidate: Net
    spec: ModelSpec
    injection: Injection
    recipe: ResolvedRecipe
    stream: BatchStream
    settings: LockstepSettings

    @property
    def nets(self) -> tuple[Net, Net]:
        """Reference and candidate."""
        return self.reference, self.candidate

    @property
    def recipes(self) -> tuple[ResolvedRecipe, ResolvedRecipe]:
        """The reference's recipe and the candidate's."""
        return self.recipe, self.injection.recipe


def build_pair(
    recipe: ResolvedRecipe,
    settings: LockstepSettings,
    *,
    stream: BatchStream,
    spec: ModelSpec,
    injection: Injection,
) -> Pair:
    """Build both nets; the candidate under the injected recipe."""
    return Pair(
        reference=build_net(settings.reference, spec, recipe, settings),
        candidate=build_net(
            settings.candidate,
            injection.candidate_spec(spec),
            injection.recipe,
            settings,
            compiled=settings.compiled,
        ),
        spec=spec,
        injection=injection,
        recipe=recipe,
        stream=stream,
        settings=settings,
    )


def build_net(
    framework: str,
    spec: ModelSpec,
    recipe: ResolvedRecipe,
    settings: LockstepSettings,
    *,
    compiled: bool = False,
) -> Net:
    """Build one net of a lockstep."""
    return build_twin(
        framework,
        spec,
        loss=recipe.loss,
        update=recipe.update,
        dtype=settings.dtype,
        memory_format="channels_first" if framework == "torch" else None,
        device=settings.device,
        keras_backend=settings.keras_backend,
        compiled=compiled,
    )


def array_names(net: Net) -> set[str]:
    """Return the names of a net's arrays, those of its optimizer after their slot's."""
    slots = net.optimizer_state().slots
    held = {f"{slot} {name}" for slot, arrays in slots.items() for name in arrays}
    return held.union(net.state())
