"""What a stream draws for each sample: which samples, their flips and what is cut out of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.augment.crop import crop_images, draw_crop_offsets
from parity.augment.cutout import draw_cutout_corners, square_masks
from parity.augment.flip import draw_flips, flip_images
from parity.data import (
    START_DIGEST,
    BatchStream,
    Dataset,
    DrawnBatch,
    chain_digest,
    load_dataset,
    normalize_images,
)
from parity.data.batches import normalization_table
from parity.spec.recipe import load_recipe
from parity.testing.assertions import assert_identical

SIDE = 6


def build_dataset(count):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
    labels = np.arange(count) % 3
    return Dataset(
        name="tiny",
        train_images=images,
        train_labels=labels,
        test_images=images[:1],
        test_labels=labels[:1],
        classes=("a", "b", "c"),
        mean=(0.1, 0.3, 0.5),
        std=(0.3, 0.2, 0.1),
        scale=255,
        source="drawn",
    )


def build_stream(*overrides, count=10, seed=0):
    recipe = load_recipe("best_sgd", data="tiny", overrides=["batch_size=4", *overrides])
    return BatchStream(build_dataset(count), recipe, seed=seed)


def draw_epoch(stream, epoch):
    """Return the sample at each place of an epoch, and all that is drawn."""
    places = range(stream.steps_per_epoch)
    drawn = [stream.draw(epoch, index) for index in places]
    return (
        np.concatenate([stream.samples(epoch, index) for index in places]),
        np.concatenate([batch.images for batch in drawn]),
        None if drawn[0].cut is None else np.concatenate([batch.cut for batch in drawn]),
    )


def orientations(stream, epoch):
    """Return which way round each image was shown in an epoch, one entry a showing."""
    known = {
        image.tobytes(): (sample, is_mirrored)
        for sample, original in enumerate(stream.dataset.train_images)
        for is_mirrored, image in ((False, original), (True, original[:, ::-1]))
    }
    _, images, _ = draw_epoch(stream, epoch)
    return sorted(known[image.tobytes()] for image in images)


@given(
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 40),
    count=st.integers(1, 30),
    batch_size=st.integers(1, 31),
)
def test_two_epochs_on_end_show_every_image_both_ways_round(seed, epoch, count, batch_size):
    overrides = ["augment.crop_px=0", "augment.flip=alternating", f"batch_size={batch_size}"]
    stream = build_stream(*overrides, count=count, seed=seed)

    shown = [*orientations(stream, epoch), *orientations(stream, epoch + 1)]

    assert sorted(shown) == [(sample, way) for sample in range(count) for way in (False, True)]


def test_random_flips_do_not_show_every_image_both_ways_round():
    stream = build_stream("augment.crop_px=0", "augment.flip=random", count=30)

    shown = {*orientations(stream, 0), *orientations(stream, 1)}

    assert len(shown) < 60


@given(seed=st.integers(0, 2**31), epoch=st.integers(0, 40))
def test_alternating_flip_is_the_images_however_often_it_is_drawn(seed, epoch):
    overrides = ["augment.crop_px=0", "augment.flip=alternating", "sampling=with_replacement"]
    stream = build_stream(*overrides, seed=seed)

    before, after = (dict(orientations(stream, number)) for number in (epoch, epoch + 1))

    assert len(before) == len(set(orientations(stream, epoch)))
    assert all(before[sample] != after[sample] for sample in before.keys() & after.keys())


def test_epoch_with_replacement_draws_as_many_images_each_uniformly():
    stream = build_stream("sampling=with_replacement", count=50)

    samples = np.concatenate([draw_epoch(stream, epoch)[0] for epoch in range(400)])

    counts = np.bincount(samples, minlength=50)
    assert len(samples) == 400 * 50
    assert counts.min() > 300  # 400 are expected, with a standard deviation of 20
    assert counts.max() < 500
    assert len(set(draw_epoch(stream, 0)[0].tolist())) < 50


def test_reshuffled_draws_are_keyed_by_the_sample():
    stream = build_stream("augment.crop_px=1", "augment.flip=random", "augment.cutout_px=2")
    offsets, flips = draw_crop_offsets(0, 2, 10, 1), draw_flips(0, 2, 10)
    corners = draw_cutout_corners(0, 2, 10, side=SIDE, cutout_px=2)

    samples, images, cut = draw_epoch(stream, 2)

    cropped = crop_images(stream.dataset.train_images[samples], offsets[samples], 1)
    assert_identical(images, flip_images(cropped, flips[samples]))
    assert_identical(cut, square_masks(corners[samples], side=SIDE, cutout_px=2))


def test_draws_with_replacement_are_keyed_by_the_place_in_the_epoch():
    overrides = ["augment.crop_px=1", "augment.flip=random", "augment.cutout_px=2"]
    stream = build_stream(*overrides, "sampling=with_replacement")
    offsets, flips = draw_crop_offsets(0, 2, 10, 1), draw_flips(0, 2, 10)
    corners = draw_cutout_corners(0, 2, 10, side=SIDE, cutout_px=2)

    samples, images, cut = draw_epoch(stream, 2)

    cropped = crop_images(stream.dataset.train_images[samples], offsets, 1)
    assert len(set(samples.tolist())) < 10
    assert_identical(images, flip_images(cropped, flips))
    assert_identical(cut, square_masks(corners, side=SIDE, cutout_px=2))


@pytest.mark.parametrize("sampling", ["reshuffled", "with_replacement"])
def test_draw_keys_of_an_epoch_are_all_different(sampling):
    stream = build_stream(f"sampling={sampling}")

    keys = np.concatenate([stream.draw_keys(1, index) for index in range(stream.steps_per_epoch)])

    assert sorted(keys.tolist()) == list(range(10))


def test_cut_pixels_are_zero_after_normalization_and_no_other_is_touched():
    stream = build_stream("augment.cutout_px=3", "augment.crop_px=1", "augment.flip=alternating")
    drawn = stream.draw(0, 0)

    images = stream.finish(drawn).images

    whole = normalize_images(drawn.images, normalization_table(stream.dataset))
    assert drawn.cut.sum(axis=(1, 2)).tolist() == [9] * 4
    assert_identical(images, np.where(drawn.cut[..., np.newaxis], np.float32(0.0), whole))


def test_images_under_a_cutout_are_those_without_one():
    plain, cut = build_stream(), build_stream("augment.cutout_px=3")

    assert_identical(draw_epoch(cut, 1)[1], draw_epoch(plain, 1)[1])


def test_digest_tells_what_is_cut():
    images, labels = np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 1])
    cuts = [
        None,
        np.zeros((2, 4, 4), dtype=bool),
        square_masks(np.array([[0, 0], [1, 1]]), side=4, cutout_px=2),
        square_masks(np.array([[0, 0], [1, 2]]), side=4, cutout_px=2),
    ]

    digests = {
        chain_digest(START_DIGEST, DrawnBatch(images=images, labels=labels, cut=cut))
        for cut in cuts
    }

    assert len(digests) == 4


def test_evaluation_batches_are_whole():
    stream = build_stream("augment.cutout_px=3")

    (batch,) = stream.test_batches()

    whole = normalize_images(stream.dataset.test_images, normalization_table(stream.dataset))
    assert_identical(batch.images, whole)


def test_digits_first_two_epochs_under_every_draw_have_the_pinned_digest():
    overrides = [
        "batch_size=64",
        "sampling=with_replacement",
        "augment.crop_px=1",
        "augment.crop_padding=reflect",
        "augment.flip=alternating",
        "augment.cutout_px=3",
    ]
    recipe = load_recipe("best_sgd", data="digits", overrides=overrides)
    stream = BatchStream(load_dataset("digits"), recipe, seed=0)

    digest = START_DIGEST
    for epoch, index in np.ndindex(2, stream.steps_per_epoch):
        digest = chain_digest(digest, stream.draw(epoch, index))

    assert digest == ("0eff7716e8b1c087d12b28a19c410addbedb963904f03c22fc7a80b3034d78fd")
