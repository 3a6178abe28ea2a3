import dataclasses
import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from parity.errors import DataError
from parity.spec.losses import BinaryCrossEntropy, TwoViewCrossEntropy, build_targets
from parity.spec.recipe import load_recipe
from parity.testing.assertions import assert_close, assert_identical


def build_dataset(count=10, side=4, channels=3, scale=255):
    generator = np.random.default_rng(0)
    images = generator.integers(0, scale, (count, side, side, channels), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(count) % (scale + 1)
    return Dataset(
        name="tiny",
        train_images=images,
        train_labels=np.arange(count) % 3,
        test_images=images[: count // 2 + 1],
        test_labels=(np.arange(count) % 3)[: count // 2 + 1],
        classes=("a", "b", "c"),
        mean=tuple(0.1 + 0.2 * channel for channel in range(channels)),
        std=tuple(0.3 - 0.02 * channel for channel in range(channels)),
        scale=scale,
        source="drawn",
    )


KEYS = {
    "crop_px": "augment.crop_px",
    "padding": "augment.crop_padding",
    "flip": "augment.flip",
    "cutout_px": "augment.cutout_px",
    "test": "evaluation.batch_size",
}


def build_recipe(**options):
    options = {"batch_size": 3, "crop_px": 0, "flip": "none", "test": 4, **options}
    overrides = ["loss.label_smoothing=0.2"]
    overrides += [f"{KEYS.get(key, key)}={str(value).lower()}" for key, value in options.items()]
    return load_recipe("best_sgd", data="tiny", overrides=overrides)


def build_stream(*, seed=0, dataset=None, **recipe):
    return BatchStream(dataset or build_dataset(), build_recipe(**recipe), seed=seed)


def draw_epoch(stream, epoch):
    drawn = [stream.draw(epoch, index) for index in range(stream.steps_per_epoch)]
    images = np.concatenate([batch.images for batch in drawn])
    return images, np.concatenate([batch.labels for batch in drawn])


def epoch_digest(stream, epoch, start=START_DIGEST):
    drawn = [stream.draw(epoch, index) for index in range(stream.steps_per_epoch)]
    return functools.reduce(lambda digest, batch: chain_digest(digest, batch), drawn, start)


@given(count=st.integers(1, 30), batch_size=st.integers(1, 31), epoch=st.integers(0, 9))
def test_epoch_covers_every_sample_once(count, batch_size, epoch):
    stream = build_stream(dataset=build_dataset(count=count), batch_size=batch_size)

    images, labels = draw_epoch(stream, epoch)

    samples = images[:, 0, 0, 0]
    assert sorted(samples.tolist()) == list(range(count))
    assert labels.tolist() == (samples % 3).tolist()


@given(count=st.integers(1, 30), batch_size=st.integers(1, 30))
def test_dropped_last_batch_leaves_whole_batches_of_distinct_samples(count, batch_size):
    batch_size = min(batch_size, count)
    dataset = build_dataset(count=count)
    stream = build_stream(dataset=dataset, batch_size=batch_size, drop_last=True)

    images, _ = draw_epoch(stream, 0)

    assert len(images) == count // batch_size * batch_size
    assert len(set(images[:, 0, 0, 0].tolist())) == len(images)


@given(st.data())
def test_random_access_equals_reading_in_order(data):
    stream = build_stream(crop_px=2, flip="random")
    places = [(epoch, index) for epoch in range(3) for index in range(stream.steps_per_epoch)]
    in_order = {place: stream.draw(*place).images.tobytes() for place in places}
    other = build_stream(crop_px=2, flip="random")

    at_random = {
        place: other.draw(*place).images.tobytes() for place in data.draw(st.permutations(places))
    }

    assert at_random == in_order


def test_epochs_have_different_orders():
    stream = build_stream()

    orders = [draw_epoch(stream, epoch)[0][:, 0, 0, 0].tolist() for epoch in range(3)]

    assert len(set(map(tuple, orders))) == 3


def test_epoch_does_not_depend_on_the_batch_size():
    small = draw_epoch(build_stream(batch_size=3, crop_px=1, flip="random"), 1)
    large = draw_epoch(build_stream(batch_size=7, crop_px=1, flip="random"), 1)

    assert_identical(small[0], large[0])
    assert_identical(small[1], large[1])


def test_same_seed_gives_the_same_digest():
    first = epoch_digest(build_stream(seed=3, crop_px=1, flip="random"), 0)
    second = epoch_digest(build_stream(seed=3, crop_px=1, flip="random"), 0)

    assert first == second


@pytest.mark.parametrize(
    ("changes", "epoch"),
    [
        ({"seed": 4}, 0),
        ({}, 1),
        ({"flip": "none"}, 0),
        ({"flip": "alternating"}, 0),
        ({"crop_px": 0}, 0),
        ({"padding": "reflect"}, 0),
        ({"cutout_px": 0}, 0),
        ({"cutout_px": 2}, 0),
        ({"sampling": "with_replacement"}, 0),
        ({"batch_size": 4}, 0),
    ],
    ids=[
        *("seed", "epoch", "flip", "alternating", "crop", "padding", "no_cutout", "cutout"),
        *("sampling", "batch_size"),
    ],
)
def test_digest_differs_when_the_batches_do(changes, epoch):
    options = {"seed": 3, "crop_px": 1, "flip": "random", "cutout_px": 1}

    assert epoch_digest(build_stream(**(options | changes)), epoch) != epoch_digest(
        build_stream(**options), 0
    )


def test_digest_resumes_from_its_text():
    stream = build_stream(crop_px=1)

    resumed = epoch_digest(build_stream(crop_px=1), 1, start=epoch_digest(stream, 0))

    assert resumed == epoch_digest(stream, 1, start=epoch_digest(stream, 0))
    assert resumed != epoch_digest(stream, 1)


def test_digest_tells_shapes_labels_and_order_apart():
    images, labels = np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 1])
    swapped = images.reshape(2, 2, 8, 1)

    digests = [
        chain_digest(START_DIGEST, DrawnBatch(images=images, labels=labels)),
        chain_digest(START_DIGEST, DrawnBatch(images=swapped, labels=labels)),
        chain_digest(START_DIGEST, DrawnBatch(images=images, labels=labels[::-1].copy())),
        chain_digest("1" * 64, DrawnBatch(images=images, labels=labels)),
    ]

    assert len(set(digests)) == 4


def test_digits_first_epoch_has_the_pinned_digest():
    stream = build_stream(
        dataset=load_dataset("digits"), seed=0, batch_size=64, crop_px=1, flip="random"
    )

    assert epoch_digest(stream, 0) == (
        "ca561e64c425e129daedfc81763074054a20d6c42dee2e6624ab7bacb750b4fc"
    )


@pytest.mark.parametrize("scale", [16, 255])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_normalized_as_the_formula_says(scale, channels):
    dataset = build_dataset(count=12, channels=channels, scale=scale)
    stream = build_stream(dataset=dataset, crop_px=1, flip="random")
    drawn = stream.draw(0, 0)

    normalized = stream.finish(drawn).images

    shares = drawn.images.astype(np.float64) / scale
    expected = (shares - np.array(dataset.mean)) / np.array(dataset.std)
    assert_identical(normalized, expected.astype(np.float32))


def test_normalize_images_reads_a_strided_view():
    dataset = build_dataset()
    table = normalization_table(dataset)

    normalized = normalize_images(dataset.train_images[:, ::-1], table)

    assert_identical(normalized, normalize_images(dataset.train_images, table)[:, ::-1])


def test_batch_is_the_drawn_batch_finished():
    stream = build_stream(crop_px=1, flip="random")

    batch, finished = stream.batch(1, 2), stream.finish(stream.draw(1, 2))

    assert_identical(batch.images, finished.images)
    assert_identical(batch.labels, finished.labels)


def test_batch_carries_the_targets_of_the_loss():
    stream = build_stream()

    batch = stream.batch(0, 0)

    assert_identical(batch.targets, build_targets(stream.recipe.loss, batch.labels, classes=3))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_test_batches_of_a_binary_loss_carry_plain_labels(smoothing):
    loss = BinaryCrossEntropy(
        label_smoothing=smoothing,
        smoothing_form="over_classes",
        binarized=False,
        target_threshold=0.0,
        reduction="mean",
    )
    recipe = dataclasses.replace(build_stream().recipe, loss=loss)
    stream = BatchStream(build_dataset(), recipe, seed=0)

    trained, tested = stream.batch(0, 0), next(stream.test_batches())

    assert_identical(trained.targets, build_targets(loss, trained.labels, classes=3))
    assert_identical(tested.targets, np.eye(3)[tested.labels])


def test_loss_of_two_views_is_refused_for_batches_of_one():
    loss = TwoViewCrossEntropy(label_smoothing=0.0, consistency_weight=0.1, reduction="mean")
    recipe = dataclasses.replace(build_stream().recipe, loss=loss)

    with pytest.raises(DataError, match="'two_view_cross_entropy' compares two views"):
        BatchStream(build_dataset(), recipe, seed=0)


def test_batches_share_no_memory_with_the_data_set():
    dataset = build_dataset()
    drawn = build_stream(dataset=dataset).draw(0, 0)

    assert not np.shares_memory(drawn.images, dataset.train_images)
    assert not np.shares_memory(drawn.labels, dataset.train_labels)


def test_test_batches_hold_the_test_set_in_order_without_augmentation():
    dataset = build_dataset(count=10)
    stream = build_stream(dataset=dataset, crop_px=2, flip="random", test=4)

    batches = list(stream.test_batches())

    images = np.concatenate([batch.images for batch in batches])
    labels = np.concatenate([batch.labels for batch in batches])
    assert [len(batch.labels) for batch in batches] == [4, 2]
    assert_identical(images, normalize_images(dataset.test_images, normalization_table(dataset)))
    assert_identical(labels, dataset.test_labels)


@pytest.mark.parametrize(("count", "found"), [(4, 4), (11, 10)])
def test_training_images_are_the_first_ones_normalized_without_augmentation(count, found):
    dataset = build_dataset(count=10)

    images = build_stream(dataset=dataset, crop_px=2, flip="random").training_images(count)

    values = dataset.train_images[:found] / 255.0
    expected = (values - np.array(dataset.mean)) / np.array(dataset.std)
    assert_close(images.astype(np.float64), expected, atol=1e-6, rtol=0.0)


@pytest.mark.parametrize(("drop_last", "steps"), [(False, 4), (True, 3)], ids=["kept", "dropped"])
def test_steps_per_epoch_counts_a_last_smaller_batch_unless_dropped(drop_last, steps):
    assert build_stream(batch_size=3, drop_last=drop_last).steps_per_epoch == steps


@pytest.mark.parametrize(("epoch", "index"), [(0, 4), (0, -1), (-1, 0)])
def test_draw_refuses_a_batch_that_does_not_exist(epoch, index):
    with pytest.raises(IndexError, match=rf"in \[0, 3\]; got epoch {epoch}, index {index}"):
        build_stream(batch_size=3).draw(epoch, index)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 8}, "expected images of 8 pixels a side; got 4. Load it with resolution=8"),
        ({"crop_px": 4}, "augment.crop_px must be below the side of 4 pixels; got 4"),
        ({"cutout_px": 4}, "augment.cutout_px must be below the side of 4 pixels; got 4"),
        ({"batch_size": 11, "drop_last": True}, "batch_size must be at most 10 with drop_last"),
    ],
    ids=["resolution", "crop", "cutout", "no_batch"],
)
def test_stream_refuses_a_recipe_that_does_not_fit(options, message):
    with pytest.raises(DataError, match=f"tiny for recipe 'best_sgd': {message}"):
        build_stream(**options)
