import pytest

from parity.errors import SpecError
from parity.spec.initializers import (
    INITIALIZERS,
    PartialDirac,
    UnitDeviation,
    Zeros,
    initializer,
)

# Variance times fan, fan and shape, from torchvision 0.28, keras 3.15 and torch 2.13.
PUBLISHED = {
    "kaiming_normal_fan_out": (2.0, "out", "normal"),
    "glorot_uniform": (1.0, "average", "uniform"),
    "fan_in_uniform": (1.0 / 3.0, "in", "uniform"),
}
COMPOSED = {
    "fan_in_uniform_dirac": PartialDirac(rest=INITIALIZERS["fan_in_uniform"]),
    "fan_in_uniform_unit_deviation": UnitDeviation(base=INITIALIZERS["fan_in_uniform"]),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_initializer_has_the_published_variance(name):
    rule = initializer(name)

    assert (rule.scale, rule.fan, rule.distribution) == PUBLISHED[name]


def test_initializers_are_all_known_here():
    assert {*PUBLISHED, *COMPOSED, "zeros"} == INITIALIZERS.keys()
    assert initializer("zeros") == Zeros()


@pytest.mark.parametrize("name", COMPOSED)
def test_composed_initializer_draws_from_torchs_default(name):
    assert initializer(name) == COMPOSED[name]


def test_initializer_offers_the_nearest_name():
    with pytest.raises(SpecError, match=r"'glorot_unifrom' not found\. Nearest: glorot_uniform\."):
        initializer("glorot_unifrom")
