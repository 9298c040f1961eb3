"""Records to batches: complete, in order, in shape, and the pictures that the archive holds."""

import dataclasses
import io
import tempfile
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from beam_jobs.images import Converted, Encoding, convert
from beam_jobs.records import frame, serialise
from canopy import contract
from canopy.sample.encode import Kind, encode
from trainer import dataset, decoding, plan
from trainer.dataset import Reading
from trainer.shard import Shard

SIZE = 32


def write_shards(folder, counts, classes=40):
    """Shards of pictures of one value each, labelled with their number in binary."""
    shards, number = [], 0
    for index, count in enumerate(counts):
        path = folder / f"shard-{index}"
        with path.open("wb") as file:
            for _ in range(count):
                grey = np.full((8, 8, 3), number % 256, np.uint8)
                out = io.BytesIO()
                Image.fromarray(grey).save(out, "JPEG", quality=95)
                ids = [bit for bit in range(classes) if number >> bit & 1]
                file.write(
                    frame(serialise(f"chip_{number}", convert(out.getvalue(), Encoding()), ids, classes))
                )
                number += 1
        shards.append(Shard(str(path), count))
    return tuple(shards)


def reading(shards, **changes):
    settings = {"classes": 40, "image_size": SIZE, "replica_batch": 4, "workers": 1, "index": 0}
    return Reading(shards=shards, **{**settings, **changes})


def numbers(labels):
    return (labels.astype(np.int64) << np.arange(labels.shape[1])).sum(axis=1)


def read(settings, epoch=0, first_step=0):
    """(numbers, weights) of each batch."""
    batches = dataset.batches(settings, epoch, first_step).as_numpy_iterator()
    return [(numbers(labels), weights) for _, labels, weights in batches]


@pytest.mark.parametrize(("counts", "workers"), [([5, 0, 7, 3], 1), ([5, 7, 3], 2), ([0, 2, 1], 4), ([9], 3)])
def test_the_workers_together_see_every_record_once_an_epoch(tmp_path, counts, workers):
    shards = write_shards(tmp_path, counts)
    seen: Counter[int] = Counter()
    for index in range(workers):
        for batch, weights in read(reading(shards, workers=workers, index=index), epoch=3):
            assert len(batch) == 4
            seen.update(batch[weights > 0].tolist())
    assert seen == Counter(range(sum(counts)))


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_validation_counts_every_record_once_whatever_the_batch(tmp_path, batch, workers):
    shards = write_shards(tmp_path, [5, 0, 3, 9])
    seen: Counter[int] = Counter()
    for index in range(workers):
        settings = reading(shards, workers=workers, index=index, replica_batch=batch, shuffle=False)
        for found, weights in read(settings):
            seen.update(found[weights > 0].tolist())
    assert seen == Counter(range(17))


def global_batches(shards, workers, first_step=0):
    """The records of each step's global batch, sorted."""
    each = [
        read(reading(shards, workers=workers, index=i, replica_batch=8 // workers), 1, first_step)
        for i in range(workers)
    ]
    return [
        sorted(n for batch, weights in step for n in batch[weights > 0]) for step in zip(*each, strict=True)
    ]


@pytest.mark.parametrize("workers", [2, 4])
def test_a_steps_records_are_the_same_for_another_number_of_workers(tmp_path, workers):
    shards = write_shards(tmp_path, [11, 30, 9])
    alone = global_batches(shards, 1)
    assert global_batches(shards, workers) == alone
    assert global_batches(shards, workers, first_step=3) == alone[3:]


def test_the_weights_of_a_step_sum_to_one_over_all_workers(tmp_path):
    shards = write_shards(tmp_path, [6, 5])
    each = [read(reading(shards, workers=3, index=index)) for index in range(3)]
    for step in zip(*each, strict=True):
        assert sum(weights.sum() for _, weights in step) == pytest.approx(1)


def test_every_worker_takes_the_same_steps(tmp_path):
    shards = write_shards(tmp_path, [13])
    steps = {len(read(reading(shards, workers=3, index=index))) for index in range(3)}
    assert steps == {reading(shards, workers=3).steps}


@pytest.mark.parametrize("counts", [[10, 10], [20]])
def test_the_order_is_the_seeds_and_another_each_epoch(tmp_path, counts):
    shards = write_shards(tmp_path, counts)
    orders = [
        [batch.tolist() for batch, _ in read(reading(shards, seed=seed), epoch)]
        for seed, epoch in ((5, 0), (5, 0), (5, 1), (6, 0))
    ]
    assert orders[0] == orders[1]
    assert orders[0] not in orders[2:]


@pytest.mark.parametrize("limit", ["SHUFFLE_RECORDS", "HELD_BYTES"])
def test_all_streams_together_hold_no_more_records_for_shuffling_than_they_may(tmp_path, monkeypatch, limit):
    (shard,) = write_shards(tmp_path, [40])
    settings = reading((dataclasses.replace(shard, bytes=40 * 1000),))  # four streams of ten records
    monkeypatch.setattr(dataset, limit, 8 if limit == "SHUFFLE_RECORDS" else 8 * 1000)
    found = np.array([batch for batch, _ in read(settings)])
    ahead = found % 10 - np.arange(10)[:, None]
    assert ahead.max() == 1, "each has two to choose from"


def test_an_epoch_can_be_entered_at_any_step(tmp_path):
    settings = reading(write_shards(tmp_path, [10, 9]))
    whole = read(settings, epoch=2)
    for step in range(len(whole)):
        late = list(dataset.iterate(settings, epoch=2, first_step=step))
        assert [numbers(labels.numpy()).tolist() for _, labels, _ in late] == [
            batch.tolist() for batch, _ in whole[step:]
        ]
        assert [each.numpy().tolist() for _, _, each in late] == [each.tolist() for _, each in whole[step:]]


def test_without_shuffling_the_records_come_in_their_own_order(tmp_path):
    settings = reading(write_shards(tmp_path, [2, 4, 3]), shuffle=False)
    found = [batch[weights > 0].tolist() for batch, weights in read(settings)]
    assert found == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]


def test_several_replicas_of_a_worker_share_its_step(tmp_path):
    settings = reading(write_shards(tmp_path, [9]), replica_batch=2, local_replicas=2)
    assert settings.steps == 3
    assert len(read(settings)) == 6


def psnr(one, other):
    return 10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2))


def one_chip_batch(folder, data, name="chip"):
    """A chip's way from the archive's bytes into the trainer's batch, at its own size."""
    picture = convert(data, Encoding())
    path = folder / "shard"
    path.write_bytes(frame(serialise(name, picture, [1], 2)))
    settings = reading((Shard(str(path), 1),), classes=2, image_size=picture.height, replica_batch=1)
    images, labels, _ = next(iter(dataset.batches(settings).as_numpy_iterator()))
    assert labels.tolist() == [[0, 1]]
    return images[0]


def test_a_chip_encoded_like_the_originals_arrives_as_the_picture_that_pillow_shows(tmp_path):
    import tensorflow as tf

    ground = np.random.default_rng(0).integers(40, 200, (8, 8, 3), np.uint8)
    drawn = np.asarray(Image.fromarray(ground).resize((64, 64), Image.Resampling.BICUBIC))
    data = encode(drawn, Kind.PLANET)
    assert not tf.io.decode_jpeg(data, channels=3).numpy().any(), "the trap that this is about is gone"
    shown = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    arrived = one_chip_batch(tmp_path, data)
    assert arrived.mean() > 20
    assert psnr(arrived, shown) > 35


def test_the_original_chips_arrive_as_pillow_shows_them(tmp_path, real_data):
    for path in sorted((real_data / "planet/chips256/train-jpg").iterdir())[:8]:
        data = path.read_bytes()
        shown = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        assert psnr(one_chip_batch(tmp_path, data), shown) > 40


def test_evaluation_reads_names_pictures_and_labels(tmp_path):
    shards = write_shards(tmp_path, [2, 0, 3])
    rows = list(dataset.encoded(shards, 40).as_numpy_iterator())
    assert {name.decode() for name, _, _ in rows} == {f"chip_{i}" for i in range(5)}
    for name, picture, labels in rows:
        number = int(name.decode().removeprefix("chip_"))
        assert numbers(labels[None])[0] == number
        assert abs(np.asarray(Image.open(io.BytesIO(picture))).astype(int) - number).max() <= 1
    some = dataset.encoded(shards, 40, [plan.Part(2, 1, 2)]).as_numpy_iterator()
    assert [name for name, _, _ in some] == [b"chip_3", b"chip_4"]
    assert not list(dataset.encoded(shards, 40, []))


def test_a_shard_with_fewer_records_than_promised_is_an_error_and_no_shorter_epoch(tmp_path):
    import tensorflow as tf

    (whole,) = write_shards(tmp_path, [6])
    with pytest.raises(tf.errors.FailedPreconditionError):
        read(reading((Shard(whole.path, 9),)))


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def write_pictures(path, pictures):
    """A shard of PNGs, each labelled with whether it is the first."""
    import tensorflow as tf

    with path.open("wb") as file:
        for number, picture in enumerate(pictures):
            png, (height, width, _) = tf.io.encode_png(picture).numpy(), picture.shape
            encoded = Converted(png, "png", height, width, None, False, False)
            file.write(frame(serialise(f"chip_{number}", encoded, [int(number == 0)], 2)))
    return Shard(str(path), len(pictures))


def test_pictures_of_several_sizes_may_stand_in_one_shard(tmp_path):
    import tensorflow as tf

    pictures = [noise(32, 32), noise(32, 48), noise(8, 8), noise(32, 32)]
    settings = reading((write_pictures(tmp_path / "shard", pictures),), classes=2, shuffle=False)
    images, _, _ = next(iter(dataset.batches(settings).as_numpy_iterator()))
    for found, picture in zip(images, pictures, strict=True):
        np.testing.assert_array_equal(found, decoding.resize(tf.constant(picture), SIZE))


def test_a_picture_that_takes_long_keeps_its_place(tmp_path):
    shard = write_pictures(tmp_path / "shard", [noise(1500, 1500), *[noise(8, 8)] * 7])
    settings = reading((shard,), classes=2, shuffle=False, replica_batch=1)
    found = [labels.argmax() for _, labels, _ in dataset.batches(settings).as_numpy_iterator()]
    assert found == [1, *[0] * 7]


@pytest.mark.parametrize(
    ("record_bytes", "size", "at_once", "resized_at_once"),
    [
        (-1, SIZE, 4, 4),
        (20_000, SIZE, 4, 4),
        (2_000_000, SIZE, 2, 2),
        (100_000_000, SIZE, 1, 1),  # fewer fit than there are streams
        (-1, 256, 4, 2),
        (-1, 1024, 4, 1),
        (-1, 1400, 2, 1),
        (-1, 2048, 1, 1),
    ],
)
def test_of_large_pictures_fewer_are_held_and_decoded_at_once(
    tmp_path, monkeypatch, record_bytes, size, at_once, resized_at_once
):
    (shard,) = write_shards(tmp_path, [8])
    told = dataclasses.replace(shard, bytes=8 * record_bytes if record_bytes > 0 else -1)
    decoded, decode = [], decoding.decode

    def noted(image, ratio=1):
        decoded.append(image)
        return decode(image, ratio)

    monkeypatch.setattr(decoding, "decode", noted)
    found = read(reading((told,), image_size=size))
    one_by_one = 1 + len(contract.REDUCTIONS)
    # As the graph is built: of the size asked for, of another, and of any.
    assert len(decoded) == at_once + resized_at_once + one_by_one
    assert sorted(each for batch, _ in found for each in batch.tolist()) == list(range(8))
    held = reading((told,)).fitting(dataset.SHUFFLE_RECORDS, dataset.HELD_BYTES)
    assert held == dataset.SHUFFLE_RECORDS or held * record_bytes <= dataset.HELD_BYTES


def test_an_iterator_is_let_go_of_at_once(tmp_path):
    """tf.data's tuner would hold it for up to a minute, and nothing here is left to it."""
    shards = write_shards(tmp_path, [5])
    assert dataset.batches(reading(shards)).options().autotune.enabled is False
    assert dataset.encoded(shards, 40).batch(2).options().autotune.enabled is False


def test_reading_leaves_no_files_behind(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    settings = reading(write_shards(tmp_path, [3, 3]))
    assert len(read(settings)) == settings.steps
    assert len(list(dataset.encoded(settings.shards, 40))) == 6
    assert list((tmp_path / "temporary").iterdir()) == []
