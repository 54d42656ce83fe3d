"""Converters of arguments that benchmarks share, and the samples that they train on."""

import argparse
import os
import sys
from pathlib import Path

from ddpgd.data import download, mnist
from ddpgd.errors import InputError


def new_file(text: str) -> Path:
    """Converts text to a path that can be written to once the measuring is over."""
    path = Path(text)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written; name a file in a folder that exists")
    return path


def folder(text: str) -> Path:
    """Converts text to a folder that can be written to."""
    path = Path(text)
    if not path.is_dir() or not os.access(path, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text!r} is no folder that can be written to")
    return path


def load(choice: str | None) -> mnist.Dataset:
    """Loads MNIST from a folder, else from $DDPGD_DATA, else from the cache. InputError: it is not there."""
    place = download.locate(choice, os.environ)
    if place.directory is None:
        raise InputError("--data synthetic: the benchmark needs MNIST; name its folder")
    return mnist.load(download.fetch(place.directory, _say) if place.is_cache else place.directory)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
