"""What happens to a batch before the network sees it."""

import numpy as np
import pytest
import tensorflow as tf

from trainer import devices
from trainer.network import augmentation


@pytest.mark.parametrize(("side", "kind"), [(4, np.float32), (15, np.uint8)])
def test_augmentation_gives_each_of_the_eight_flips_and_turns(side, kind):
    picture = np.arange(side * side, dtype=kind).reshape(side, side, 1)
    views = [np.rot90(flipped, turns) for flipped in (picture, picture[:, ::-1]) for turns in range(4)]
    result = augmentation.augment(tf.constant(np.stack([picture] * 400)), tf.constant([3, 4])).numpy()
    counts = [sum(np.array_equal(each, view) for each in result) for view in views]
    assert sum(counts) == 400
    assert min(counts) > 20


@pytest.mark.parametrize("count", [3, 8, 20])
def test_whatever_the_batch_each_row_meets_all_views_over_the_steps(count):
    picture = np.arange(16, dtype=np.uint8).reshape(4, 4, 1)
    met: list[set[bytes]] = [set() for _ in range(count)]
    for step in range(80):
        turned = augmentation.augment(tf.stack([picture] * count), tf.constant([3, step])).numpy()
        for row, seen in enumerate(turned):
            met[row].add(seen.tobytes())
        assert len({each.tobytes() for each in turned}) == min(count, 8)
    assert [len(views) for views in met] == [8] * count


def test_on_a_gpu_views_are_those_that_a_cpu_compiles(monkeypatch):
    pictures = tf.random.stateless_uniform([20, 5, 5, 3], [1, 2], 0, 255)
    compiled = [augmentation.augment(pictures, tf.constant([0, step])).numpy() for step in range(20)]
    monkeypatch.setattr(devices, "gpus", lambda: ["a GPU"])
    for step in range(20):
        assert (augmentation.augment(pictures, tf.constant([0, step])).numpy() == compiled[step]).all()


def test_affine_augmentation_without_its_disturbances_is_flips_and_turns(monkeypatch):
    for bound in ("TURN", "ZOOM", "SHIFT"):
        monkeypatch.setattr(augmentation, bound, 0.0)
    pictures = tf.random.stateless_uniform([64, 9, 9, 3], [1, 2], 0, 255)
    plain, affine = (augmentation.augment(pictures, tf.constant([5, 6]), kind) for kind in ("d4", "affine"))
    np.testing.assert_allclose(affine, plain, atol=1e-3)


def moved_squares():
    """Where affine augmentation brings 200 squares, float[2, 200], and how much there is of each."""
    picture = np.zeros((1, 41, 41, 1), np.float32)
    picture[:, 18:23, 18:23] = 1
    result = augmentation.augment(tf.repeat(picture, 200, axis=0), tf.constant([3, 4]), "affine").numpy()
    assert len(np.unique(result.round(3).reshape(200, -1), axis=0)) == 200
    mass = result.sum(axis=(1, 2, 3))
    return np.stack([(result[..., 0] * axis).sum(axis=(1, 2)) / mass for axis in np.mgrid[:41, :41]]), mass


def test_affine_augmentation_keeps_the_middle_near_the_middle():
    at, mass = moved_squares()
    assert np.abs(at - 20).max() <= 41 * augmentation.SHIFT * np.exp(augmentation.ZOOM) * 1.5
    assert np.abs(np.corrcoef([*at, mass]) - np.eye(3)).max() < 0.3, "each is drawn by itself"
    assert mass.min() > 25 * 0.6
    assert mass.max() < 25 * 1.6


def test_affine_augmentation_turns_and_scales_about_the_middle(monkeypatch):
    monkeypatch.setattr(augmentation, "SHIFT", 0.0)
    np.testing.assert_allclose(moved_squares()[0], 20, atol=1e-3)


def test_what_affine_augmentation_lets_in_at_the_border_is_of_the_picture():
    plain = augmentation.augment(tf.fill([64, 9, 9, 3], 200.0), tf.constant([3, 4]), "affine")
    np.testing.assert_allclose(plain, 200, rtol=1e-5)


def test_augmentation_is_drawn_from_its_seed():
    pictures = tf.random.stateless_uniform([8, 4, 4, 3], [0, 0])
    once, again, other = (
        augmentation.augment(pictures, tf.constant([7, step])).numpy() for step in (1, 1, 2)
    )
    assert (once == again).all()
    assert (once != other).any()


def test_on_a_gpu_nothing_waits_there_for_numbers_that_the_cpu_needs(monkeypatch):
    monkeypatch.setattr(devices, "gpus", lambda: ["a GPU"])

    @tf.function(autograph=False)
    def step(images, seed):
        with tf.device("/GPU:0"):
            return augmentation.augment(images, seed, "affine")

    graph = step.get_concrete_function(tf.zeros([8, 4, 4, 3]), tf.constant([0, 0])).graph
    found = {op.type: op for op in graph.get_operations()}
    chosen, warped = found["StatelessCase"], found["ImageProjectiveTransformV3"]
    inner = (node for function in graph.as_graph_def().library.function for node in function.node_def)
    moved = [node for node in inner if node.op in ("ReverseV2", "Transpose")]
    assert moved
    assert all("CPU" in op.device for op in (chosen.inputs[0].op, warped.inputs[3].op))
    assert all("GPU" in op.device for op in (*moved, warped))


def batch_of(count):
    return tf.reshape(tf.range(float(count)), [count, 1, 1, 1]) * tf.ones([1, 4, 4, 3]), tf.eye(count)


def test_mixup_blends_labels_as_much_as_pixels_and_keeps_each_rows_own_ahead():
    images, labels = batch_of(64)
    mixed, told = augmentation.mix(images, labels, tf.ones(64), tf.constant([1, 2]), 1.0)
    shares = told.numpy()
    assert shares.sum(axis=1) == pytest.approx(np.ones(64), abs=1e-6)
    assert (np.diag(shares) >= 0.5).all()
    assert (np.diag(shares) < 0.9).sum() > 20
    expected = shares @ np.arange(64.0)
    assert mixed.numpy()[:, 0, 0, 0] == pytest.approx(expected, abs=1e-4)
    assert np.ptp(mixed.numpy(), axis=(1, 2, 3)).max() == 0


def test_mixup_is_drawn_from_its_seed_and_small_alphas_blend_few():
    images, labels = batch_of(256)

    def shares(alpha, step):
        told = augmentation.mix(images, labels, tf.ones(256), tf.constant([1, step]), alpha)[1]
        return np.diag(told.numpy())

    assert (shares(0.2, 3) == shares(0.2, 3)).all()
    assert (shares(0.2, 3) != shares(0.2, 4)).any()
    assert (1 - shares(0.1, 3)).mean() < (1 - shares(0.4, 3)).mean() < (1 - shares(4.0, 3)).mean()


def test_mixup_takes_nothing_from_padding():
    images, labels = batch_of(8)
    for real in (5, 7):
        weights = tf.constant([1.0] * real + [0.0] * (8 - real))
        mixed, told = augmentation.mix(images, labels, weights, tf.constant([5, 6]), 1.0)
        shares = told.numpy()
        assert shares[0].tolist() == labels[0].numpy().tolist()  # its neighbour is the last row, padding
        assert (shares[:real, real:] == 0).all()
        assert (np.diag(shares)[1:real] < 1).all(), "between records all blend"
        assert (mixed[0].numpy() == images[0].numpy()).all()
