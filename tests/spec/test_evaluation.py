import pytest

from parity.errors import SpecError
from parity.spec.evaluation import Evaluation


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"every_epochs": 0}, r"evaluation\.every_epochs must be >= 1; got 0\."),
        ({"batch_size": 0}, r"evaluation\.batch_size must be >= 1; got 0\."),
        ({"tta_level": 3}, r"evaluation\.tta_level must be 0, 1 or 2; got 3\."),
        ({"batch_size": 0, "tta_level": -1}, r"batch_size must be .*tta_level must be"),
    ],
    ids=["period", "batch", "level", "both"],
)
def test_wrong_evaluation_is_refused_whoever_builds_it(changes, message):
    with pytest.raises(SpecError, match=message):
        Evaluation(**{"every_epochs": 1, "batch_size": 1, "tta_level": 0} | changes)
