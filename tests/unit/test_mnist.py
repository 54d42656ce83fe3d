"""IDX files are read exactly, or refused in one line that names the file."""

import gzip
import os
import struct
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from ddpgd.data import mnist, synthetic
from ddpgd.errors import InputError

PACKED = partial(gzip.compress, compresslevel=1)
NAMES = (mnist.TRAIN_IMAGES, mnist.TRAIN_LABELS, mnist.TEST_IMAGES, mnist.TEST_LABELS)


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def files_of(dataset: mnist.Dataset) -> dict[str, bytes]:
    arrays = (
        dataset.train_images.reshape(-1, *dataset.image_shape),
        dataset.train_labels,
        dataset.test_images.reshape(-1, *dataset.image_shape),
        dataset.test_labels,
    )
    return dict(zip(NAMES, map(idx_bytes, arrays), strict=True))


@pytest.fixture(scope="module")
def dataset() -> mnist.Dataset:
    """The real MNIST where DDPGD_DATA names it, else drawn digits."""
    directory = os.environ.get("DDPGD_DATA")
    return mnist.load(Path(directory)) if directory else synthetic.make(50, 20)


@pytest.fixture(scope="module")
def drawn() -> dict[str, bytes]:
    return files_of(synthetic.make(30, 10))


@pytest.fixture
def folder(tmp_path: Path, drawn: dict[str, bytes]) -> Path:
    for name, content in drawn.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def one_line(error: pytest.ExceptionInfo[InputError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert "--data" in text
    return text


@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".gz", PACKED), (".gz", bytes), ("", PACKED)])
def test_what_is_written_is_read(tmp_path, dataset, suffix, pack):
    for name, content in files_of(dataset).items():
        (tmp_path / f"{name}{suffix}").write_bytes(pack(content))
    loaded = mnist.load(tmp_path)
    assert loaded.sha256 == dataset.sha256
    assert loaded.source == str(tmp_path)
    assert not loaded.train_images.flags.writeable


@pytest.mark.parametrize(("num", "shape"), [(1, (1, 1)), (3, (8, 5)), (2, (64, 64))])
def test_any_count_and_any_size(tmp_path, num, shape):
    images = np.arange(num * shape[0] * shape[1], dtype=np.uint8).reshape(num, *shape)
    contents = [idx_bytes(images), idx_bytes(np.zeros(num, np.uint8))] * 2
    for name, content in zip(NAMES, contents, strict=True):
        (tmp_path / name).write_bytes(content)
    loaded = mnist.load(tmp_path)
    assert loaded.image_shape == shape
    np.testing.assert_array_equal(loaded.train_images, images.reshape(num, -1))


def test_digest_sees_each_array_and_the_shape():
    def variant(**changes) -> str:
        arrays = {"train_images": np.zeros((2, 4), np.uint8), "train_labels": np.zeros(2, np.uint8)}
        arrays |= {"test_images": np.zeros((2, 4), np.uint8), "test_labels": np.zeros(2, np.uint8)}
        return mnist.Dataset(**(arrays | {"image_shape": (2, 2), "source": ""} | changes)).sha256

    ones = {"train_images": np.ones((2, 4), np.uint8), "train_labels": np.ones(2, np.uint8)}
    ones |= {"test_images": np.ones((2, 4), np.uint8), "test_labels": np.ones(2, np.uint8), "image_shape": (1, 4)}
    assert len({variant(), *(variant(**{name: value}) for name, value in ones.items())}) == 6
    assert variant() == variant(source="elsewhere")


LABELS, IMAGES = mnist.TRAIN_LABELS, mnist.TRAIN_IMAGES
FAULTS = [
    ("empty", IMAGES, lambda _: b"", "begins with nothing"),
    ("short magic", IMAGES, lambda b: b[:3], "begins with 000008"),
    ("no IDX", IMAGES, lambda b: b"<html>" + b, "wanted an IDX file of images"),
    ("labels for images", IMAGES, lambda b: b"\0\0\x08\x01" + b[4:], "is an IDX file of labels"),
    ("images for labels", LABELS, lambda b: b"\0\0\x08\x03" + b[4:], "is an IDX file of images"),
    ("short header", IMAGES, lambda b: b[:10], "cut short within its header"),
    ("short", IMAGES, lambda b: b[:-1], "cut short"),
    ("long", LABELS, lambda b: b + b"\0", "too long"),
    ("huge", IMAGES, lambda b: b[:4] + b"\xff" * 12, "cut short"),
    ("none", LABELS, lambda b: b[:4] + bytes(4), "0 labels"),
    ("flat", IMAGES, lambda b: b[:8] + bytes(4) + b"\xff" * 4, "30x0x4294967295"),
    ("label 10", LABELS, lambda b: b[:-1] + b"\x0a", "label 10 at sample 29"),
    ("count", LABELS, lambda _: idx_bytes(np.zeros(29, np.uint8)), "29 labels; wanted 30"),
    ("size", mnist.TEST_IMAGES, lambda _: idx_bytes(np.zeros((10, 28, 27), np.uint8)), "28x27; wanted 28x28"),
    ("gzip cut", IMAGES, lambda b: gzip.compress(b)[:-9], "gzip data are damaged"),
    ("gzip flipped", IMAGES, lambda b: gzip.compress(b)[:-8] + bytes(8), "gzip data are damaged"),
    ("gzip head only", IMAGES, lambda _: b"\x1f\x8b", "gzip data are damaged"),
    ("gzip body", LABELS, lambda b: gzip.compress(b)[:10] + b"\xff" * 30, "gzip data are damaged"),
]


@pytest.mark.parametrize(("name", "spoil", "says"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_a_broken_file_is_refused_by_name(folder, drawn, name, spoil, says):
    (folder / name).write_bytes(spoil(drawn[name]))
    with pytest.raises(InputError) as error:
        mnist.load(folder)
    assert says in one_line(error)
    assert name in str(error.value)


def test_missing_things_are_named(folder, tmp_path):
    (folder / LABELS).unlink()
    for place, says in ((folder, LABELS), (tmp_path / "nowhere", "no such folder"), (folder / IMAGES, "not a folder")):
        with pytest.raises(InputError) as error:
            mnist.load(place)
        assert says in one_line(error)


def test_an_unreadable_file_is_refused(folder, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match="Permission denied") as error:
        mnist.load(folder)
    one_line(error)
