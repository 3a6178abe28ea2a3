import pytest

from parity.errors import SpecError
from parity.spec.augment import Augment

WHOLE = {"crop_px": 0, "crop_padding": "zeros", "flip": "none", "cutout_px": 0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop_px": -1}, r"augment\.crop_px must be >= 0; got -1\."),
        ({"cutout_px": -2}, r"augment\.cutout_px must be >= 0; got -2\."),
        ({"crop_padding": "edge"}, r"crop_padding must be 'zeros' or 'reflect'; got 'edge'\."),
        ({"flip": True}, r"flip must be 'none' or 'random' or 'alternating'; got True\."),
        ({"crop_px": -1, "flip": "never"}, r"crop_px must be .* augment\.flip must be"),
    ],
    ids=["crop", "cutout", "padding", "flip", "both"],
)
def test_wrong_augmentation_is_refused_whoever_builds_it(changes, message):
    with pytest.raises(SpecError, match=message):
        Augment(**WHOLE | changes)
