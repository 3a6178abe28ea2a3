"""What a conversion did: one row a layer, totals and the verdict; and how it is printed."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from conversion.formats.format import Format
from conversion.keras_groups import keras_class
from conversion.layouts import LAYOUTS, move_shape
from parity.spec.layers import Layer, Shape
from parity.spec.model_spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """One converted layer.

    Attributes:
        path: Layer path.
        slots: Names of its arrays.
        source_axes: Axes of its largest array in the source file.
        target_axes: Axes of that array in the target file.
        source_shape: Shape of that array in the source file.
        target_shape: Shape of that array in the target file.
    """

    path: str
    slots: tuple[str, ...]
    source_axes: str
    target_axes: str
    source_shape: Shape
    target_shape: Shape


@dataclass(frozen=True, kw_only=True)
class ConversionReport:
    """One finished conversion.

    Attributes:
        source: File that was read.
        target: File that was written.
        spec: Model that both hold.
        rows: Converted layers, in the order of the spec.
        values: Numbers converted.
        bytes: Size of the target file.
        seconds: Wall time, verification included.
        verdict: What was verified, in one sentence.
        notes: What the files leave open and the conversion assumed.
    """

    source: Path
    target: Path
    spec: ModelSpec
    rows: tuple[LayerRow, ...]
    values: int
    bytes: int
    seconds: float
    verdict: str
    notes: tuple[str, ...] = ()


def layer_rows(spec: ModelSpec, *, source: Format, target: Format) -> tuple[LayerRow, ...]:
    """Return one row a layer of the spec that carries arrays."""
    layers = [layer for layer in spec.layers() if layer.slots()]
    return tuple(_layer_row(layer, source=source, target=target) for layer in layers)


def _layer_row(layer: Layer, *, source: Format, target: Format) -> LayerRow:
    main = layer.slots()[0]
    layouts = LAYOUTS[keras_class(layer)].values()
    layout = next(layout for layout in layouts if layout.slot == main.name)
    axes = {"torch": layout.torch_axes, "keras": layout.keras_axes}

    def shape_in(framework: str) -> Shape:
        return move_shape(main.shape, source=layout.torch_axes, target=axes[framework])

    return LayerRow(
        path=layer.path,
        slots=tuple(slot.name for slot in layer.slots()),
        source_axes=axes[source.framework],
        target_axes=axes[target.framework],
        source_shape=shape_in(source.framework),
        target_shape=shape_in(target.framework),
    )


def render_report(report: ConversionReport, *, console: Console, with_layers: bool) -> None:
    """Print a report; `with_layers` adds the table of layers."""
    if with_layers:
        console.print(_layer_table(report))
    console.print(_describe_totals(report), highlight=False, soft_wrap=True)
    for note in report.notes:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    console.print(report.verdict, highlight=False, markup=False, soft_wrap=True)


def _layer_table(report: ConversionReport) -> Table:
    table = Table(box=None, pad_edge=False)
    for header in ("layer", "arrays", "axes", "source shape", "target shape"):
        table.add_column(header, overflow="fold")
    for row in report.rows:
        table.add_row(
            row.path,
            ", ".join(row.slots),
            f"{row.source_axes} -> {row.target_axes}",
            _describe_shape(row.source_shape),
            _describe_shape(row.target_shape),
        )
    return table


def _describe_shape(shape: Shape) -> str:
    return " x ".join(map(str, shape))


def _describe_totals(report: ConversionReport) -> str:
    return (
        f"{report.target}: {len(report.rows)} layers, {report.values:,} values, "
        f"{report.bytes:,} bytes, {report.seconds:.1f} s"
    )
