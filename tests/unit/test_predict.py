"""Whatever the paper, ink, size and file, a picture of a digit comes out as the MNIST image of that digit."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpgd.data import mnist, synthetic
from ddpgd.data.picture import prepare
from ddpgd.errors import InputError

SHAPE = (28, 28)
PAPERS = {
    "grey": lambda ink: 235 - 200 * ink,
    "light on dark": lambda ink: 20 + 200 * ink,
    "red on yellow": lambda ink: np.stack([240 - 20 * ink, 230 - 200 * ink, 120 - 90 * ink], axis=-1),
    "noisy": lambda ink: 230 - 190 * ink + np.random.default_rng(0).normal(0, 6, ink.shape),
    "shaded": lambda ink: 220 - 190 * ink + np.linspace(-15, 15, ink.shape[1]),
    "black on nothing": lambda ink: np.stack([0 * ink, 0 * ink, 0 * ink, 255 * ink], axis=-1),
    "white on nothing": lambda ink: np.stack([0 * ink + 255] * 3 + [255 * ink], axis=-1),
    "dusty": lambda ink: 235 - 200 * np.maximum(ink, speck(ink.shape)),
}


def speck(shape: tuple[int, int]) -> np.ndarray:
    dust = np.zeros(shape)
    dust[4:8, 4:8] = 1
    return dust


def digits() -> list[np.ndarray]:
    """Ten digits in MNIST's frame: real ones where DDPGD_DATA names them, else drawn ones."""
    directory = os.environ.get("DDPGD_DATA")
    dataset = mnist.load(Path(directory)) if directory else synthetic.make(1, 10)
    return [image.reshape(dataset.image_shape) for image in dataset.test_images[:10]]


def save(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)
    return path


def enlarged(digit: np.ndarray) -> np.ndarray:
    """Ink 0 to 1 of a picture of 500x420 with the digit off its middle."""
    large = Image.fromarray(digit).resize((280, 280), Image.Resampling.BICUBIC)
    page = np.zeros((500, 420))
    page[150:430, 30:310] = np.asarray(large) / 255
    return page


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """The best correlation within a pixel of shift, for the centre of mass is rounded to whole pixels."""
    shifts = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    return max(np.corrcoef(one.ravel(), np.roll(other, shift, (0, 1)).ravel())[0, 1] for shift in shifts)


@pytest.mark.parametrize("paper", PAPERS)
def test_a_page_gives_the_digit_back(tmp_path, paper):
    likenesses = []
    for digit in digits():
        frame = prepare(save(tmp_path / "plain.png", 255 - 255 * enlarged(digit)), SHAPE).reshape(SHAPE)
        found = prepare(save(tmp_path / "page.png", PAPERS[paper](enlarged(digit))), SHAPE).reshape(SHAPE)
        likenesses.append(likeness(frame, found))
    assert min(likenesses) > 0.8
    assert np.mean(likenesses) > 0.9


def test_a_ready_image_keeps_its_pixels(tmp_path):
    for digit in digits():
        ready = prepare(save(tmp_path / "page.png", 255 - 255 * enlarged(digit)), SHAPE).reshape(SHAPE)
        for again in (ready, 255 - ready):
            found = prepare(save(tmp_path / "ready.png", again), SHAPE).reshape(SHAPE)
            np.testing.assert_allclose(found.astype(int), ready.astype(int), atol=2)


@pytest.mark.parametrize("shape", [(28, 28), (56, 56), (8, 8), (28, 14)])
def test_box_and_centre_follow_the_shape(tmp_path, shape):
    found = prepare(save(tmp_path / "page.png", 255 - 255 * enlarged(digits()[0])), shape)
    assert found.dtype == np.uint8
    assert found.max() == 255
    image = found.reshape(shape).astype(float)
    for axis, side in enumerate(shape):
        profile = image.sum(axis=1 - axis)
        assert np.count_nonzero(profile) <= round(side * 20 / 28)
        assert abs((profile * np.arange(side)).sum() / profile.sum() - side / 2) <= 1


@pytest.mark.parametrize("name", ["a.pgm", "a.bmp", "a.gif", "a.jpg", "a.tif"])
def test_formats(tmp_path, name):
    page = 255 - 255 * enlarged(digits()[0])
    expected = prepare(save(tmp_path / "a.png", page), SHAPE).reshape(SHAPE)
    assert likeness(expected, prepare(save(tmp_path / name, page), SHAPE).reshape(SHAPE)) > 0.98


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_deep_samples(tmp_path, dtype):
    page = 255 - 255 * enlarged(digits()[0])
    expected = prepare(save(tmp_path / "a.png", page), SHAPE).reshape(SHAPE)
    Image.fromarray((page * 100).astype(dtype)).save(tmp_path / "deep.tif")
    assert likeness(expected, prepare(tmp_path / "deep.tif", SHAPE).reshape(SHAPE)) > 0.98


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((300, 200), 240),
        np.zeros((28, 28)),
        np.zeros((1, 1)),
        np.random.default_rng(0).normal(200, 8, (400, 400)),
    ],
    ids=["white", "black", "one pixel", "noise"],
)
def test_a_picture_of_nothing_is_refused(tmp_path, pixels):
    with pytest.raises(InputError, match="no digit") as error:
        prepare(save(tmp_path / "empty.png", pixels), SHAPE)
    assert "\n" not in str(error.value)


def test_what_is_no_picture_is_refused(tmp_path):
    whole = save(tmp_path / "whole.png", 255 - 255 * enlarged(digits()[0])).read_bytes()
    contents = {
        "empty.png": b"",
        "text.png": b"no picture",
        "cut.png": whole[: len(whole) // 2],
        "head.png": whole[:20],
    }
    contents["flipped.png"] = whole[:60] + bytes(20) + whole[80:]
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    for name in (*contents, "missing.png", "."):
        with pytest.raises(InputError, match=name) as error:
            prepare(tmp_path / name, SHAPE)
        assert "\n" not in str(error.value)
