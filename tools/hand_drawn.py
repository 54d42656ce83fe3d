"""Count the right answers to 60 pictures like those that newcomers take: python -m tools.hand_drawn RUN...

The pictures are made from test images, seeded: turned by up to 25 degrees, drawn thicker or thinner, anywhere on a page of
any of the kinds of `tools.pictures` (uneven light, photos, chalk, colours, transparency, shadows). --out FOLDER keeps them.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from ddpgd.data import mnist, picture
from ddpgd.errors import InputError
from ddpgd.run import checkpoint_search, inference
from ddpgd.run.stderr import say
from tools import pictures

NUM_PICTURES = 60
_ENLARGED = 112
_TURN_DEGREES = 25.0
_THINNER, _THICKER = 3, 9
"""Sides of the filters, in pixels of enlarged images: strokes lose up to 1 of them on each side, or gain up to 4."""


def redrawn(image: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
    """Returns an image, uint8 (28, 28), enlarged, turned, and with strokes of another thickness; uint8 (112, 112)."""
    large = Image.fromarray(image).resize((_ENLARGED, _ENLARGED), Image.Resampling.BICUBIC)
    large = large.rotate(generator.uniform(-_TURN_DEGREES, _TURN_DEGREES), Image.Resampling.BICUBIC)
    if generator.random() < 1 / 3:
        large = large.filter(ImageFilter.MinFilter(_THINNER))
    elif generator.random() < 1 / 2:
        large = large.filter(ImageFilter.MaxFilter(int(generator.choice(range(3, _THICKER + 1, 2)))))
    return np.asarray(large)


def draw(data: mnist.Dataset, folder: Path) -> list[tuple[Path, int]]:
    """Writes the pictures into a folder; returns their files and labels."""
    generator = np.random.default_rng(0)
    drawn = []
    for number, sample in enumerate(generator.choice(len(data.test_labels), NUM_PICTURES, replace=False)):
        kind = list(pictures.KINDS)[number % len(pictures.KINDS)]
        image = redrawn(data.test_images[sample].reshape(data.image_shape), generator)
        path = folder / f"{number:02d}-{kind}-{data.test_labels[sample]}.png"
        path.write_bytes(pictures.file_of(pictures.KINDS[kind](image, generator), "PNG"))
        drawn.append((path, int(data.test_labels[sample])))
    return drawn


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints, for each run, how many of the pictures are answered rightly, and the others by their names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--data", required=True, type=Path, help="folder with MNIST's files")
    parser.add_argument("--out", type=Path, help="folder for the pictures (default: a temporary one)")
    asked = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = asked.out or Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            data = mnist.load(asked.data)
            drawn = draw(data, folder)
            images = np.stack([picture.prepare(path, data.image_shape) for path, _ in drawn])
            labels = np.array([label for _, label in drawn])
            for run in asked.runs:
                _, saved = checkpoint_search.find_best(run, say)
                right = inference.probabilities(saved, images).argmax(axis=1) == labels
                wrong = ", ".join(path.stem for (path, _), is_right in zip(drawn, right, strict=True) if not is_right)
                print(
                    f"{run}: {right.sum()} of {len(right)} right ({100 * right.mean():.0f} %); wrong: {wrong or 'none'}"
                )
    except InputError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
