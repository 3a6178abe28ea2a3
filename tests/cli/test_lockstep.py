"""What `parity lockstep` takes and says."""

import pytest

from parity import cli

pytestmark = pytest.mark.usefixtures("empty_folder")


def test_the_candidate_is_the_other_framework_than_the_reference(capsys):
    command = ["lockstep", "--recipe", "best_sgd", "--data", "synthetic", "--steps", "1"]

    code = cli.run([*command, "--model", "resnet8:width=2", "--reference", "keras"])

    said = capsys.readouterr().out
    assert code == 0
    assert said.startswith("torch against keras-")
