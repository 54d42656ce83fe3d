"""IDX files are read exactly, into memory of their own, or refused in one line that names the file, in bounded memory."""

import gzip
import os
import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import fields
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
    ("huge in gzip", IMAGES, lambda b: gzip.compress(b[:4] + b"\xff" * 12), "cut short"),
    ("gzip long", LABELS, lambda b: gzip.compress(b + b"\0"), "too long"),
    ("gzip short", LABELS, lambda b: gzip.compress(b[:-1]), "cut short, at 37 bytes"),
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


@pytest.mark.parametrize("change", [b"", bytes(200_000)], ids=["truncated", "overwritten"])
def test_a_file_that_changes_later_changes_nothing(folder, change):
    """Mapped files killed a run with a bus error, or trained it on other bytes than were verified."""
    loaded = mnist.load(folder)
    before = loaded.sha256
    for path in folder.iterdir():
        with path.open("r+b") as file:
            file.write(change)
            file.truncate(len(change))
    again = mnist.Dataset(**{field.name: getattr(loaded, field.name) for field in fields(loaded)})
    assert again.sha256 == before


def traced_peak(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_is_bounded_by_the_file(folder):
    """Three megabytes of gzip claimed and unpacked to 6.3 GB, whatever they began with."""
    zeros = gzip.compress(bytes(30_000_000), compresslevel=1)
    bombs = {
        "another magic": zeros,
        "a claim of 2 TB": gzip.compress(struct.pack(">4I", 0x803, 2**31, 28, 28), 1) + zeros,
        "more than it claims": gzip.compress(struct.pack(">4I", 0x803, 1, 28, 28), 1) + zeros,
        "a plain claim": struct.pack(">4I", 0x803, 2**31, 28, 28),
    }
    for name, content in bombs.items():
        (folder / IMAGES).write_bytes(content)

        def refused() -> None:
            with pytest.raises(InputError) as error:
                mnist.load(folder)
            one_line(error)

        assert traced_peak(refused) < 4e6, name


def test_random_damage_is_one_line_in_bounded_memory(folder, drawn):
    """Cuts, flips and insertions, in plain and in packed files; a file that still reads must be a whole one."""
    generator = np.random.default_rng(14)
    packed = {name: PACKED(content) for name, content in drawn.items()}

    def damage() -> None:
        for turn in range(600):
            name = NAMES[turn % 4]
            (folder / name).write_bytes(damaged(generator, (drawn, packed)[turn % 8 // 4][name]))
            text = refusal(folder)
            assert "\n" not in text
            assert len(text) < 500
            (folder / name).write_bytes(drawn[name])

    assert traced_peak(damage) < 8e6


def refusal(folder: Path) -> str:
    try:
        mnist.load(folder)
    except InputError as error:
        return str(error)
    return ""


def damaged(generator: np.random.Generator, content: bytes) -> bytes:
    """`content` with a few bytes changed, mostly in its head, and now and then cut or grown."""
    spoilt = bytearray(content)
    for _ in range(generator.integers(1, 4)):
        place = int(generator.integers(len(spoilt) if generator.random() < 0.3 else min(len(spoilt), 24)))
        spoilt[place] = int(generator.choice([0, 1, 127, 128, 255, generator.integers(256)]))
    place = int(generator.integers(len(spoilt)))
    return bytes(spoilt[:place] if generator.random() < 0.2 else spoilt + b"\1" * int(generator.random() < 0.1))


@pytest.mark.parametrize("below", [".", "raw", "MNIST/raw"])
@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("pack", [bytes, PACKED])
def test_names_and_folders_of_other_copies(tmp_path, drawn, below, dotted, pack):
    """Torchvision writes to MNIST/raw, others name the files with a dot."""
    (tmp_path / below).mkdir(parents=True, exist_ok=True)
    for name, content in drawn.items():
        spelled = name.replace("-idx", ".idx") if dotted else name
        (tmp_path / below / f"{spelled}{'' if pack is bytes else '.gz'}").write_bytes(pack(content))
    assert len(mnist.load(tmp_path).train_labels) == 30


def test_classes_have_the_names_of_their_file(folder):
    assert mnist.load(folder).class_names == tuple("0123456789")
    names = ["T-shirt", "Hose", "Pullover", "Kleid", "Mantel", "Sandale", "Hemd", "Schuh", "Tasche", "Stiefel \u00fc"]
    (folder / "classes.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    assert mnist.load(folder).class_names == tuple(names)
    for content in (b"", b"one\ntwo", b"x\n" * 11, b"\n" * 10, b"\xff\n" * 10, b"\x1b[0m\n" * 10, b"a" * 5000):
        (folder / "classes.txt").write_bytes(content)
        with pytest.raises(InputError, match=r"classes\.txt") as error:
            mnist.load(folder)
        one_line(error)


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
