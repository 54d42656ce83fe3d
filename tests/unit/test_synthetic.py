"""The drawn digits are a function of their arguments, balanced, and a task that can be learned but is not trivial."""

import numpy as np
import pytest

from ddpgd.data import synthetic


def test_the_bytes_are_fixed():
    assert synthetic.make(100, 50).sha256 == "6c92d2cb8d111a5d6e37543e311796bec5d5dd7bcb025809c5af3d130cb4418c"


def test_seed_and_part_change_the_digits():
    first, again, other = synthetic.make(40, 40), synthetic.make(40, 40), synthetic.make(40, 40, seed=1)
    assert first.sha256 == again.sha256 != other.sha256
    assert not np.array_equal(first.train_images, first.test_images)


@pytest.mark.parametrize(("num_train", "num_test"), [(1, 1), (10, 7), (1003, 65)])
def test_shapes_and_balance(num_train, num_test):
    drawn = synthetic.make(num_train, num_test)
    for images, labels, num in (
        (drawn.train_images, drawn.train_labels, num_train),
        (drawn.test_images, drawn.test_labels, num_test),
    ):
        assert images.shape == (num, 784)
        assert images.dtype == labels.dtype == np.uint8
        counts = np.bincount(labels, minlength=10)
        assert counts.max() - counts.min() <= 1
        assert (images.max(axis=1) > 200).all()
        assert (np.median(images, axis=1) == 0).all()


def test_labels_are_shuffled():
    labels = synthetic.make(1000, 1).train_labels.astype(int)
    assert 50 < (np.diff(labels) == 0).sum() < 150


def test_no_stroke_is_lost_at_the_border():
    frames = synthetic.make(2000, 1).train_images.reshape(-1, 28, 28).astype(int)
    border = frames[:, [0, -1], :].sum() + frames[:, :, [0, -1]].sum()
    assert border < 0.002 * frames.sum()


def test_neighbours_tell_most_digits_but_not_all():
    drawn = synthetic.make(2000, 300)
    train, test = drawn.train_images / 255.0, drawn.test_images / 255.0
    distances = (train * train).sum(axis=1) - 2 * test @ train.T
    accuracy = (drawn.train_labels[distances.argmin(axis=1)] == drawn.test_labels).mean()
    assert 0.8 < accuracy < 0.995
