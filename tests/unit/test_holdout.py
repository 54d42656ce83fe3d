"""Validation samples: a fixed part of each class, the same for every seed, and no longer trained on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ddpgd.data.holdout import hold_out
from ddpgd.data.mnist import Dataset
from ddpgd.errors import InputError
from runs import digits, train


def rows(images: np.ndarray) -> list[bytes]:
    return [row.tobytes() for row in images]


def of_labels(labels: list[int]) -> Dataset:
    """Images that differ, with these labels."""
    images = np.arange(len(labels), dtype=np.uint8).repeat(4).reshape(-1, 4)
    return Dataset(images, np.array(labels, np.uint8), images[:1], np.zeros(1, np.uint8), (2, 2), "made")


pytestmark = pytest.mark.usefixtures("few_digits")


@pytest.mark.parametrize("count", [1, 7, 33, 329])
def test_every_sample_is_in_one_part(count: int) -> None:
    whole = digits()
    divided = hold_out(whole, count)
    assert len(divided.validation_labels) == len(divided.validation_images) == count
    parts = rows(divided.train_images) + rows(divided.validation_images)
    assert sorted(parts) == sorted(rows(whole.train_images))
    places = [rows(whole.train_images).index(row) for row in rows(divided.train_images)]
    assert places == sorted(places)
    np.testing.assert_array_equal(divided.train_labels, whole.train_labels[places])
    np.testing.assert_array_equal(divided.test_images, whole.test_images)


@pytest.mark.parametrize("sizes", [[100, 100], [7, 93], [1, 2, 3, 4, 90], [0, 50, 1, 0, 49]])
@pytest.mark.parametrize("count", [1, 10, 50, 99])
def test_classes_keep_their_shares(sizes: list[int], count: int) -> None:
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    found = np.bincount(hold_out(of_labels(labels), count).validation_labels, minlength=len(sizes))
    exact = np.array(sizes) * count / sum(sizes)
    assert found.sum() == count
    assert (np.abs(found - exact) < 1).all()
    assert (found <= sizes).all()


def test_the_choice_is_spread_over_the_samples_of_a_class() -> None:
    chosen = set(rows(hold_out(of_labels([0] * 250), 100).validation_images))
    places = [place for place, row in enumerate(rows(of_labels([0] * 250).train_images)) if row in chosen]
    assert 100 <= np.mean(places) <= 150
    assert np.std(np.diff(places)) > 0.5


def test_none_is_nothing_and_all_are_too_many() -> None:
    whole = digits()
    assert hold_out(whole, 0) is whole
    with pytest.raises(InputError, match="there are 330 training samples in all; type 33 or less"):
        hold_out(whole, 330)


def test_divided_data_are_the_same_data() -> None:
    whole = digits()
    assert hold_out(whole, 30).sha256 == whole.sha256
    assert replace(whole, train_labels=whole.train_labels[::-1]).sha256 != whole.sha256


def test_what_is_held_out_changes_nothing_about_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run on the divided data equals one on data that never had the samples."""
    divided = hold_out(digits(), 30)
    held = train(tmp_path / "held", validation=30)
    rest = replace(divided, validation_images=np.empty((0, 0), np.uint8), validation_labels=np.empty(0, np.uint8))
    monkeypatch.setattr("ddpgd.data.synthetic.make", lambda: replace(rest, undivided_sha256=""))
    assert train(tmp_path / "without")["params_sha256"] == held["params_sha256"]
