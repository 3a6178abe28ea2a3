"""Convert a checkpoint to another format, verify the result, and only then put it in place."""

import time
from pathlib import Path

from conversion.files import describe_refusal, partial_file
from conversion.formats.format import Format
from conversion.formats.table import find_format
from conversion.models import check_stated, inferred_spec
from conversion.report import ConversionReport, layer_rows
from conversion.states import State, StoredState, checked_state
from conversion.verify import verify_bits, verify_logits
from parity.errors import ConversionError
from parity.spec.airbench import AirbenchSpec
from parity.spec.model_spec import ModelSpec
from parity.spec.models import MODELS

# Conventions that outputs depend on and that a file of arrays alone does not state.
_UNSTATED = ("bn_epsilon", "stride_offset")


def convert_checkpoint(
    source: Path | str,
    target: Path | str,
    *,
    model: str | None = None,
    spec: ModelSpec | None = None,
    preset: str | None = None,
    input_size: int | None = None,
    classes: int | None = None,
    verify: bool = True,
    overwrite: bool = False,
) -> ConversionReport:
    """Write the checkpoint `source` as `target`, in the format that each name's ending says.

    Args:
        source: File to read.
        target: File to write; it appears whole and verified, or not at all.
        model: Name of the model, such as `resnet18`; its classes, input channels, stem and
            convolution biases are read off the arrays. Give this or `spec`.
        spec: The model itself.
        preset: `torch` or `keras`: conventions that the file does not state; None takes the preset
            whose convolutions carry a bias if those of the file do. Goes with `model`.
        input_size: Pixels a side on which nets are compared and that a `.keras` file records; None
            takes 32 for a CIFAR stem and 224 for an ImageNet one.
        classes: Number of logits that the file must have; None takes what it has.
        verify: Whether to read the result back, compare every bit, and compare the logits of the
            source's and the target's twin.
        overwrite: Whether an existing target is replaced.

    Raises:
        ConversionError: If a file cannot be read or written, or does not fit the model.
        SpecError: If no model has that name.
        MissingFrameworkError: If a format needs a framework that is not installed.
        DivergenceError: If verification finds a difference.
    """
    started = time.perf_counter()
    source, target = Path(source), Path(target)
    formats = find_format(source), find_format(target)
    check_files(source, target, overwrite=overwrite)
    stored = _read(source, formats[0])
    chosen = spec or _inferred(model, stored, preset=preset, input_size=input_size, where=source)
    _check_options(chosen, classes=classes, input_size=input_size, where=source)
    state = _checked(stored, chosen, where=source)
    content = _encode(state, chosen, formats[1], target=target)
    with partial_file(target, content) as partial:
        verdict = "not verified"
        if verify:
            verdict = _verify(partial, target, state, chosen, formats=formats)
    return ConversionReport(
        source=source,
        target=target,
        spec=chosen,
        rows=layer_rows(chosen, source=formats[0], target=formats[1]),
        values=sum(array.size for array in state.values()),
        bytes=len(content),
        seconds=time.perf_counter() - started,
        verdict=verdict,
        notes=_notes(stored, chosen, is_open=spec is None and preset is None),
    )


def check_files(source: Path, target: Path, *, overwrite: bool) -> None:
    """Raise if `source` is no file, or `target` may not or cannot be written."""
    if not source.is_file():
        got = "a folder" if source.is_dir() else "nothing of that name"
        message = f"{source}: expected a checkpoint file; got {got}."
        raise ConversionError(message)
    if not target.parent.is_dir():
        got = "a file" if target.parent.exists() else "nothing of that name"
        message = f"{target}: expected {target.parent} to be a folder; got {got}. Create it first."
        raise ConversionError(message)
    if target.is_dir():
        message = f"{target}: expected the name of a file to write; got a folder."
        raise ConversionError(message)
    if target.exists() and target.samefile(source):
        message = f"{target}: expected another file than the source. Write to a new name."
        raise ConversionError(message)
    if target.exists() and not overwrite:
        message = f"{target}: exists already. Pass --force (overwrite=True) to replace it."
        raise ConversionError(message)


def _inferred(
    model: str | None,
    stored: StoredState,
    *,
    preset: str | None,
    input_size: int | None,
    where: Path,
) -> ModelSpec:
    if model is None:
        message = (
            f"expected the name of a model or a spec; got neither. Known: {', '.join(MODELS)}."
        )
        raise ConversionError(message)
    return inferred_spec(model, stored, preset=preset, input_size=input_size, where=str(where))


def _check_options(
    spec: ModelSpec, *, classes: int | None, input_size: int | None, where: Path
) -> None:
    if classes not in (None, spec.classes):
        message = f"{where}: expected {classes} classes; got {spec.classes}."
        raise ConversionError(message)
    if input_size is not None and (input_size, input_size) != spec.input_size:
        message = f"{where}: expected input size {input_size}; the model has {spec.input_size}."
        raise ConversionError(message)


def _checked(stored: StoredState, spec: ModelSpec, *, where: Path) -> State:
    check_stated(stored, spec, where=str(where))
    return checked_state(stored.named(spec), spec, where=str(where))


def _encode(state: State, spec: ModelSpec, target_format: Format, *, target: Path) -> bytes:
    try:
        return target_format.encode(state, spec)
    except OSError as error:
        raise ConversionError(describe_refusal(target, error)) from error


def _read(path: Path, checkpoint_format: Format) -> StoredState:
    try:
        return checkpoint_format.read(path)
    except OSError as error:
        message = f"{path}: could not be read: {error.strerror or error}."
        raise ConversionError(message) from error


def _verify(
    partial: Path,
    target: Path,
    state: State,
    spec: ModelSpec,
    *,
    formats: tuple[Format, Format],
) -> str:
    written = _checked(_read(partial, formats[1]), spec, where=target)
    verify_bits(written, state, where=str(target))
    logits = verify_logits(written, state, spec, source=formats[0], target=formats[1])
    return f"verified bit for bit; {logits}"


def _describe_source(spec: ModelSpec) -> str:
    if isinstance(spec, AirbenchSpec):
        return "what the network was published with"
    return "the preset whose convolutions carry a bias if these do"


def _notes(stored: StoredState, spec: ModelSpec, *, is_open: bool) -> tuple[str, ...]:
    notes = []
    unstated = [field for field in _UNSTATED if field not in stored.conventions]
    if is_open and unstated:
        listed = ", ".join(f"{field} {getattr(spec.conventions, field)!r}" for field in unstated)
        notes.append(
            f"the file does not state {listed}: taken from {_describe_source(spec)}; --preset or "
            "--run decides otherwise"
        )
    if stored.by_position:
        notes.append("the file holds no layer names: layers were told apart by their order")
    return tuple(notes)
