"""What `parity list` shows."""

from parity import cli


def test_augmentations_are_listed_with_their_values(capsys):
    assert cli.run(["list", "augmentations"]) == 0

    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["sampling", "reshuffled, with_replacement"],
        ["augment.crop_px", "pixels; 0 is off"],
        ["augment.crop_padding", "zeros, reflect"],
        ["augment.flip", "none, random, alternating"],
        ["augment.cutout_px", "pixels; 0 is off"],
        ["evaluation.tta_level", "0, 1, 2"],
    ]


def test_models_are_listed_with_their_own_options(capsys):
    assert cli.run(["list", "models"]) == 0

    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["airbench94"] == "options: :width=CHANNELS"
    assert "stochastic_depth=RATE" in lines["resnet18"]
