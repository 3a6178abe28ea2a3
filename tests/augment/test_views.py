import json
from pathlib import Path

import numpy as np
import pytest
import torch

from parity.augment.views import build_views
from parity.rng import stream
from parity.testing.assertions import assert_close, assert_identical

# What `benchmarks/print_peer_views.py` printed, with the versions that the file names.
PEER = json.loads(Path(__file__).with_name("data").joinpath("peer_views.json").read_text("utf-8"))


def random_images(count=3, side=5, channels=2):
    generator = np.random.default_rng(0)
    return generator.standard_normal((count, side, side, channels)).astype(np.float32)


def torch_views(images, *, shift):
    """Return a shifted window of the images padded by torch, and its mirror image."""
    height, width = images.shape[1:3]
    channels_first = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    padded = torch.nn.functional.pad(channels_first, (1, 1, 1, 1), mode="reflect")
    window = padded[:, :, shift : shift + height, shift : shift + width]
    return [view.numpy().transpose(0, 2, 3, 1) for view in (window, window.flip(-1))]


@pytest.mark.parametrize(
    ("level", "weights"),
    [(0, [1.0]), (1, [0.5, 0.5]), (2, [0.25, 0.25, 0.125, 0.125, 0.125, 0.125])],
)
def test_views_carry_the_published_weights(level, weights):
    assert [weight for weight, _ in build_views(random_images(), level=level)] == weights


def test_first_view_is_the_images_themselves():
    images = random_images()

    firsts = [next(build_views(images, level=level))[1] for level in (0, 1, 2)]

    for first in firsts:
        assert_identical(first, images)


def test_views_are_those_that_torch_pads_and_mirrors():
    images = random_images()

    views = [view for _, view in build_views(images, level=2)]

    # A shift of 1 in the padded image is the image itself.
    expected = [view for shift in (1, 0, 2) for view in torch_views(images, shift=shift)]
    for actual, wanted in zip(views, expected, strict=True):
        assert_identical(actual, wanted)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_averaged_logits_are_those_that_airbench_printed(level):
    images, weights = (
        stream(0, "peer views", purpose).standard_normal(PEER[purpose])
        for purpose in ("images", "weights")
    )
    side, classes = PEER["weights"][0], PEER["weights"][-1]
    matrix = weights.reshape(-1, classes) / side

    views = build_views(images, level=level)
    logits = sum(share * np.tanh(view.reshape(len(view), -1) @ matrix) for share, view in views)

    assert_close(logits, np.array(PEER["logits"][level]), atol=1e-14, rtol=1e-13)


def test_views_leave_the_images_as_they_were():
    images = random_images()
    before = images.copy()

    list(build_views(images, level=2))

    assert_identical(images, before)
