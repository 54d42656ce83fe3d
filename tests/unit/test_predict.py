"""Whatever the paper, light, ink, size and file, a picture of a digit comes out as the MNIST image of that digit."""

import os
import struct
import subprocess
import sys
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, UnidentifiedImageError

import runs
from ddpgd.cli.main import main
from ddpgd.data import mnist, picture, synthetic
from ddpgd.data.picture import prepare
from ddpgd.errors import InputError
from ddpgd.results.predict import _answer
from ddpgd.run.checkpoint import Checkpoint
from ddpgd.run.inference import class_names
from tools import hand_drawn, pictures

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


@cache
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


@pytest.fixture(scope="module")
def clean_digits(tmp_path_factory) -> list[np.ndarray]:
    """Digits cut out of clean pages."""
    path = tmp_path_factory.mktemp("clean") / "page.png"
    return [prepare(save(path, 255 - 255 * enlarged(digit)), SHAPE).reshape(SHAPE) for digit in digits()]


@pytest.mark.parametrize("paper", PAPERS)
def test_a_page_gives_the_digit_back(tmp_path, clean_digits, paper):
    likenesses = []
    for digit, frame in zip(digits(), clean_digits, strict=True):
        found = prepare(save(tmp_path / "page.png", PAPERS[paper](enlarged(digit))), SHAPE).reshape(SHAPE)
        likenesses.append(likeness(frame, found))
    assert min(likenesses) > 0.8
    assert np.mean(likenesses) > 0.9


@pytest.mark.parametrize("kind", pictures.KINDS)
def test_pictures_as_people_take_them(tmp_path, clean_digits, kind):
    """Light that falls by 40 % and more, photos of paper, boards, colours, shadows: nearest to the clean digit of ten.

    With one colour for all of the paper, 27 of 60 such pictures were read; now as many as of the clean images.
    """
    generator = np.random.default_rng(14)
    path = tmp_path / "made"
    num_right = 0
    for number, digit in enumerate(digits()):
        form = "PNG" if kind == "transparent" or number % 2 else "JPEG"
        path.write_bytes(pictures.file_of(pictures.KINDS[kind](digit, generator), form))
        found = prepare(path, SHAPE).reshape(SHAPE)
        num_right += int(np.argmax([likeness(image, found) for image in clean_digits])) == number
    assert num_right >= 9
    for form in ("PNG", "JPEG")[: 1 if kind == "transparent" else 2]:
        path.write_bytes(pictures.file_of(pictures.KINDS[kind](np.zeros(SHAPE, np.uint8), generator), form))
        with pytest.raises(InputError, match="no digit in sight"):
            prepare(path, SHAPE)


def drawn(draw) -> np.ndarray:
    """A page on which `draw` has drawn."""
    page = Image.new("L", (480, 360), 235)
    draw(ImageDraw.Draw(page))
    return np.asarray(page)


def two_digits() -> np.ndarray:
    one, two = (Image.fromarray(digit).resize((200, 200), Image.Resampling.BICUBIC) for digit in digits()[:2])
    page = np.zeros((360, 480))
    page[80:280, 30:230], page[60:260, 250:450] = np.asarray(one) / 255, np.asarray(two) / 255
    return 235 - 200 * page


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        (two_digits(), "2 separate shapes"),
        (two_digits().T, "2 separate shapes"),
        (255 - two_digits(), "2 separate shapes"),
        (drawn(lambda page: page.line((60, 180, 400, 190), fill=20, width=20)), "times as wide as high"),
        (drawn(lambda page: page.rectangle((100, 80, 300, 280), fill=20)), "filled shape"),
    ],
    ids=["two digits", "one below the other", "white", "line", "block"],
)
def test_what_is_no_single_digit_is_said(tmp_path, pixels, says):
    with pytest.raises(InputError, match=rf"no single digit \(.*{says}"):
        prepare(save(tmp_path / "page.png", pixels), SHAPE)


def test_a_digit_in_pieces_is_one_digit(tmp_path):
    """A 5 whose upper line stands apart, a thin 1, and all test digits that are at hand."""

    def five(page: ImageDraw.ImageDraw) -> None:
        page.line((200, 80, 290, 75), fill=20, width=22)
        page.line((195, 120, 195, 170, 280, 180, 280, 250, 190, 270), fill=20, width=22, joint="curve")

    for pixels in (drawn(five), drawn(lambda page: page.line((240, 60, 240, 300), fill=20, width=16))):
        prepare(save(tmp_path / "page.png", pixels), SHAPE)
    for digit in synthetic.make(1, 30).test_images:
        prepare(save(tmp_path / "page.png", 255 - 255 * enlarged(digit.reshape(SHAPE))), SHAPE)


def test_a_ready_image_keeps_its_pixels(tmp_path, clean_digits):
    for ready in clean_digits:
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


@pytest.mark.parametrize("name", ["a.pgm", "a.bmp", "a.gif", "a.jpg", "a.tif", "a.webp", "a.ppm"])
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


def test_formats_that_are_not_listed_are_not_tried(tmp_path, monkeypatch):
    """Pillow starts another program for some, as for PostScript."""
    tried, path = [], tmp_path / "any.png"
    path.write_bytes(b"no picture")
    Image.init()
    monkeypatch.setattr(Image, "ID", [*Image.ID, "TRAP"])
    monkeypatch.setitem(Image.OPEN, "TRAP", (None, lambda prefix: tried.append(prefix)))
    with pytest.raises(UnidentifiedImageError):
        Image.open(path)
    assert tried
    tried.clear()
    with pytest.raises(InputError, match=r"any\.png"):
        prepare(path, SHAPE)
    assert not tried


def test_what_is_no_picture_is_refused(tmp_path):
    whole = save(tmp_path / "whole.png", 255 - 255 * enlarged(digits()[0])).read_bytes()
    contents = {
        "empty.png": b"",
        "text.png": b"no picture",
        "cut.png": whole[: len(whole) // 2],
        "head.png": whole[:20],
    }
    contents["flipped.png"] = whole[:60] + bytes(20) + whole[80:]
    contents["postscript.png"] = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n"
    os.mkfifo(tmp_path / "pipe.png")
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    for name in (*contents, "missing.png", "pipe.png", "."):
        with pytest.raises(InputError, match=name) as error:
            prepare(tmp_path / name, SHAPE)
        assert "\n" not in str(error.value)


def png(width: int, height: int, bits: int, kind: int, packed: bytes) -> bytes:
    """A PNG file with these pixel data, whatever they hold."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("bits", "kind"), [(16, 0), (8, 0), (1, 0), (8, 6), (16, 2)])
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch, bits, kind):
    """A 16-bit PNG of 272 bytes took 2.8 GB and was a 6, with 99.2 %."""
    monkeypatch.setattr(picture, "_upright", lambda _: pytest.fail("it was decoded"))
    (tmp_path / "bomb.png").write_bytes(png(9000, 9000, bits, kind, zlib.compress(bytes(1000))))
    (tmp_path / "larger.png").write_bytes(png(100_000, 100_000, bits, kind, zlib.compress(bytes(1000))))
    (tmp_path / "long.pgm").write_bytes(b"P5 10 10 255\n")
    os.truncate(tmp_path / "long.pgm", picture.MAX_FILE_BYTES + 1)
    for name, says in (("bomb.png", "too many pixels"), ("larger.png", "too many pixels"), ("long.pgm", "bytes")):
        with pytest.raises(InputError, match=says):
            prepare(tmp_path / name, SHAPE)


_FUZZ = """
import resource, sys
from io import BytesIO
from pathlib import Path
import numpy as np
from PIL import Image
from ddpgd.data import picture
from ddpgd.errors import InputError

generator, path, wholes, refused = np.random.default_rng(14), Path(sys.argv[1]), [], 0
page = np.full((60, 48), 230, np.uint8)
page[10:50, 20:28] = 30
modes = {"PNG": ("L", "RGBA", "P", "I;16"), "TIFF": ("L", "CMYK", "F"), "GIF": ("P",), "BMP": ("RGB", "P"), "PPM": ("L", "1")}
for form in picture.FORMATS:
    for mode in modes.get(form, ("RGB",)):
        out = BytesIO()
        Image.fromarray(page).convert(mode).save(out, form)
        wholes.append(out.getvalue())
for turn in range(50 * len(wholes)):
    spoilt = bytearray(wholes[turn % len(wholes)])
    for _ in range(generator.integers(1, 5)):
        place = int(generator.integers(len(spoilt) if generator.random() < 0.5 else min(len(spoilt), 64)))
        spoilt[place] = int(generator.integers(256))
    path.write_bytes(spoilt[: int(generator.integers(len(spoilt))) if generator.random() < 0.15 else None])
    try:
        image = picture.prepare(path, (28, 28))
        assert image.shape == (784,) and image.dtype == np.uint8
    except InputError as error:
        refused += 1
        assert "\\n" not in str(error)
print(refused, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_random_damage_is_one_line_in_bounded_memory(tmp_path):
    """Files of every format with bytes changed or cut: an answer or an InputError, within 16 bytes a pixel."""
    command = (sys.executable, "-c", _FUZZ, str(tmp_path / "damaged"))
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert (done.returncode, done.stderr) == (0, "")
    num_refused, peak_mib = map(int, done.stdout.split())
    assert num_refused > 100
    assert peak_mib < 16 * picture.MAX_PIXELS >> 20


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run on data whose classes have names."""
    folder = tmp_path_factory.mktemp("named")
    dataset = synthetic.make(300, 50)
    parts = ((dataset.train_images, dataset.train_labels, "train"), (dataset.test_images, dataset.test_labels, "t10k"))
    for images, labels, part in parts:
        for array, name in ((images.reshape(-1, *SHAPE), "images-idx3"), (labels, "labels-idx1")):
            head = struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape)
            (folder / f"{part}-{name}-ubyte").write_bytes(head + array.tobytes())
    (folder / "classes.txt").write_text("zero\none\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\n")
    runs.train(folder / "run", data=str(folder), hidden=(64,), steps=60, lr=0.5)
    return folder / "run"


def test_every_picture_has_its_answer_by_name_or_a_reason(tmp_path, trained, capfd):
    """An unreadable picture ended the command, and the other 64 had no answer."""
    digit = synthetic.make(1, 1, seed=3).test_images[0].reshape(SHAPE)
    good = str(save(tmp_path / "good.png", 255 - 255 * enlarged(digit)))
    odd = str(save(tmp_path / "n\udcffme.png", 255 - 255 * enlarged(digit)))
    text, two = tmp_path / "text.png", save(tmp_path / "two.png", two_digits())
    text.write_text("no picture")
    assert main(["predict", str(trained), str(text), good, str(two), str(tmp_path / "missing.png"), odd]) == 2
    out, err = capfd.readouterr()
    answers, reasons = out.splitlines(), err.splitlines()
    assert [line.split(": ")[0].rpartition("/")[2] for line in answers] == ["good.png", "n\\udcffme.png"]
    assert all("zero: " in line and "nine: " in line for line in answers)
    assert [line.split(": ")[1].rpartition("/")[2] for line in reasons[:3]] == ["text.png", "two.png", "missing.png"]
    assert reasons[3] == "ddpgd: 3 of 5 pictures have no answer, for the reasons above"
    assert main(["predict", str(trained), good]) == 0
    assert main(["predict", str(trained), str(text)]) == 2
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_a_checkpoint_without_names_answers_digits_and_doubt_is_said():
    digits = class_names(Checkpoint({}, {}, {}, {}))
    assert digits == tuple("0123456789")
    assert class_names(Checkpoint({}, {}, {}, {"class_names": ["shoe"]}))[:2] == ("shoe", "1")
    sure, unsure = np.full(10, 0.05 / 9), np.full(10, 0.2 / 9)
    sure[4], unsure[4] = 0.95, 0.8
    assert _answer(sure, digits).startswith("4  (0: 0.6 %")
    assert _answer(unsure, digits).startswith("4, unsure  (0: 2.2 %")


def test_hand_drawn_pictures_are_the_same_every_time_and_readable(tmp_path: Path) -> None:
    drawn = []
    for folder in (tmp_path / "1", tmp_path / "2"):
        folder.mkdir()
        drawn.append(hand_drawn.draw(synthetic.make(num_train=10, num_test=100), folder))
    assert len(drawn[0]) == hand_drawn.NUM_PICTURES == 60
    assert [path.read_bytes() for path, _ in drawn[0]] == [path.read_bytes() for path, _ in drawn[1]]
    for path, label in drawn[0]:
        assert path.stem.endswith(f"-{label}")
        assert picture.prepare(path, (28, 28)).max() > 200
