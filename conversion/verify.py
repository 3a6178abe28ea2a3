"""Checks of a written checkpoint: the same bits slot by slot, and the same logits in both twins."""

from collections.abc import Mapping

import numpy as np

from conversion.formats.format import Format, Framework
from conversion.states import Array, State
from parity.errors import DivergenceError, MissingFrameworkError, describe_list
from parity.rng import stream
from parity.spec.model_spec import ModelSpec
from parity.testing.assertions import compare_bits, describe_difference, relative_gap

# Two float64 runs of one function differ by rounding only: about 1e-15 per operation, far below
# this even after 150 layers; a wrong layout, epsilon or padding moves logits by more than 1e-3.
LARGEST_LOGIT_GAP = 1e-10

# Logits that move less than this from one random image to the next hardly depend on the input.
SMALLEST_SPREAD = 1e-6

_SAMPLES = 2
_SHOWN_SLOTS = 3


def verify_bits(written: Mapping[str, Array], expected: State, *, where: str) -> None:
    """Raise unless every slot holds the same bits.

    Raises:
        DivergenceError: If a slot differs in dtype, shape or any bit; all offenders are listed.
    """
    found = [compare_bits(written[name], expected[name], where=name) for name in expected]
    wrong = [difference for difference in found if difference is not None]
    if wrong:
        described = [describe_difference(difference).rstrip(".") for difference in wrong]
        listed = describe_list(described, limit=_SHOWN_SLOTS)
        count = f"{len(wrong)} slot differs" if len(wrong) == 1 else f"{len(wrong)} slots differ"
        message = f"{where}: {count} from the source: {listed}."
        raise DivergenceError(message, tuple(wrong))


def verify_logits(
    written: State, expected: State, spec: ModelSpec, *, source: Format, target: Format
) -> str:
    """Return the verdict on the logits of the source's and the target's twin, both in float64.

    Raises:
        DivergenceError: If the logits differ by more than rounding.
    """
    if source.framework == target.framework:
        return f"logits not compared: both files are for {source.framework}"
    images = seeded_images(spec)
    try:
        source_logits = _logits(source.framework, expected, spec, images)
        target_logits = _logits(target.framework, written, spec, images)
    except MissingFrameworkError as error:
        return f"logits not compared: {error}"
    if not np.isfinite(source_logits).all():
        return "logits not compared: those of the source are not finite"
    gap = relative_gap(target_logits, source_logits)
    if not gap <= LARGEST_LOGIT_GAP:
        message = (
            f"logits of the {source.framework} and the {target.framework} net diverge: "
            f"relative gap {gap:.3g}, allowed {LARGEST_LOGIT_GAP:.0e}. The target was not written."
        )
        raise DivergenceError(message, gap)
    spread = relative_gap(source_logits[1:], source_logits[:-1])
    if spread < SMALLEST_SPREAD:
        return f"logits vacuous: they hardly depend on the input (relative spread {spread:.1e})"
    return f"logits numerically equivalent (relative gap {gap:.1e})"


def seeded_images(spec: ModelSpec) -> Array:
    """Return the images `(n, h, w, c)` on which nets are compared, always the same."""
    height, width = spec.input_size
    shape = (_SAMPLES, height, width, spec.in_channels)
    return stream(0, "conversion").standard_normal(shape)


def _logits(framework: Framework, state: State, spec: ModelSpec, images: Array) -> Array:
    from parity.frameworks.build import build_twin

    net = build_twin(framework, spec, dtype="float64")
    net.load_state({name: array.astype(np.float64) for name, array in state.items()})
    return net.forward(images, training=False)
