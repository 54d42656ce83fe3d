"""Pictures that pages show: small PNG files, and the command line of scripts that draw them from a JSON file."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

COLOURS = 64


def save_png(figure: Any, path: Path, dpi: int) -> None:
    """Writes a figure as a PNG with a palette, which takes about a third of the bytes."""
    raw = io.BytesIO()
    figure.savefig(raw, format="png", dpi=dpi)
    image = Image.open(raw).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    image.save(path, optimize=True)


def draw_file(arguments: list[str], program: str, draw: Callable[[Any, Path], list[Path]]) -> int:
    """Draws the pictures of a JSON file into a folder; 0 done, 2 wrong usage."""
    if len(arguments) != 2 or not Path(arguments[1]).is_dir():
        print(f"{program}: type the JSON file of the measurement and a folder that exists", file=sys.stderr)
        return 2
    try:
        found = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"{program}: {arguments[0]}: {error!s}", file=sys.stderr)
        return 2
    for path in draw(found, Path(arguments[1])):
        print(path)
    return 0
