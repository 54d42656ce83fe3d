"""Pooling: means of squares of pixels, wherever a network meets images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ddpgd
from ddpgd.comm.transport import Alone
from ddpgd.config.schema import Config
from ddpgd.data.pooling import pooled, pooled_shape
from ddpgd.errors import InputError
from ddpgd.results import predictions
from ddpgd.run import augmentation_sheet, checkpoint_search, inference
from runs import digits, train
from tools.sharpness import TrainingLoss

pytestmark = pytest.mark.usefixtures("few_digits")


@pytest.mark.parametrize(
    ("shape", "pool"), [((28, 28), 2), ((6, 9), 3), ((4, 8), 4), ((28, 28), 28), ((32, 16), 16), ((5, 3), 1)]
)
def test_inputs_are_rounded_means_of_squares(shape: tuple[int, int], pool: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, shape[0] * shape[1]), np.uint8)
    images[0] = 255
    found = pooled(images, shape, pool).reshape(7, *pooled_shape(shape, pool))
    for number, row, col in np.ndindex(found.shape):
        square = images[number].reshape(shape)[row * pool : (row + 1) * pool, col * pool : (col + 1) * pool]
        assert found[number, row, col] == int(square.astype(np.float64).mean() + 0.5)


def test_images_are_pooled_one_by_one() -> None:
    images = np.random.default_rng(1).integers(0, 256, (2100, 16), np.uint8)
    several = pooled(images, (4, 4), 2)
    for number in (0, 1023, 1024, 2099):
        np.testing.assert_array_equal(several[number], pooled(images[number : number + 1], (4, 4), 2)[0])


def test_images_that_stay_are_not_copied() -> None:
    images = np.zeros((3, 15), np.uint8)
    assert pooled(images, (3, 5), 1) is images


@pytest.mark.parametrize(("shape", "pool", "sides"), [((28, 28), 3, "1, 2, 4, 7, 14, 28"), ((9, 6), 2, "1, 3")])
def test_squares_that_do_not_fit_are_refused(shape: tuple[int, int], pool: int, sides: str) -> None:
    with pytest.raises(InputError, match=f"sides that fit are {sides}$"):
        pooled_shape(shape, pool)


OPTIONS: dict[str, Any] = {"hidden": (16,), "input_pool": 2, "steps": 40, "lr": 0.05, "schedule": "constant"}


def test_whatever_reads_a_checkpoint_pools(tmp_path: Path) -> None:
    """Predictions are right as often as the run's own evaluation; pictures of weights have the inputs' shape."""
    summary = train(tmp_path, **OPTIONS)
    data = digits()
    _, saved = checkpoint_search.find_best(tmp_path, print)
    assert saved.arrays["params.dense1.weight"].shape == (14 * 14, 16)
    assert saved.facts["image_shape"] == [28, 28]
    loss_mean, accuracy = inference.evaluate(saved, data, Alone())
    assert (loss_mean, accuracy) == pytest.approx((summary["test_loss_mean"], summary["test_accuracy"]))
    answers = predictions.answers(saved, data)
    assert answers.accuracy == pytest.approx(summary["test_accuracy"])
    assert answers.images.shape[1:] == (28, 28)
    chances = ddpgd.predict(tmp_path, data.test_images.reshape(-1, 28, 28))
    np.testing.assert_array_equal(chances, inference.probabilities(saved, data.test_images))
    assert [weights.shape for _, weights in predictions.first_layer(saved, 3)] == [(14, 14)] * 3


def test_the_loss_of_sharpness_is_that_of_the_run(tmp_path: Path) -> None:
    train(tmp_path, **OPTIONS)
    loss = TrainingLoss(checkpoint_search.find(tmp_path, print)[1], digits())
    assert 0 < loss(loss.params)[0] < np.log(10)


def test_the_sheet_shows_pooled_images() -> None:
    data = digits()
    sheet = augmentation_sheet.variants(Config(augment="affine", input_pool=2), data)
    assert sheet.shape[2] == 14 * 14
    np.testing.assert_array_equal(sheet[:, 0], pooled(data.train_images[: len(sheet)], (28, 28), 2))


def test_a_resumed_run_ends_with_the_same_params(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", **OPTIONS)
    train(tmp_path / "part", **OPTIONS | {"steps": 15})
    resumed = train(tmp_path / "part", **OPTIONS, resume="")
    assert resumed["params_sha256"] == whole["params_sha256"]
