"""The IDX file format of MNIST: uint8 images and labels, plain (memory-mapped) or gzipped, checked byte for byte.

Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", 1998. Big-endian magic and sizes, then bytes.
"""

import gzip
import mmap
import struct
import zlib
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ddpgd.errors import InputError

GZIP_MAGIC = b"\x1f\x8b"
NUM_CLASSES = 10
_KINDS = {"00000803": "images", "00000801": "labels"}


def read_images(path: Path) -> NDArray[np.uint8]:
    """The images of an IDX file, uint8 (num, rows, cols), read-only; a plain file shares the pages of its mapping.

    Raises InputError, in one line, for a file that is not exactly one well-formed IDX image file with an image in it.
    """
    return _parse(path, _content(path), "00000803")


def read_labels(path: Path) -> NDArray[np.uint8]:
    """The labels of an IDX file, uint8 (num,), read-only, each 0 to 9. Raises InputError as `read_images` does."""
    labels = _parse(path, _content(path), "00000801")
    wrong = np.flatnonzero(labels >= NUM_CLASSES)
    if wrong.size:
        raise broken(path, f"label {labels[wrong[0]]} at sample {wrong[0]}", f"labels 0 to {NUM_CLASSES - 1}")
    return labels


def broken(path: Path, got: str, wanted: str) -> InputError:
    """The error for a data file: where, what was got, what was wanted, what to do, in one line."""
    return InputError(f"{path}: {got}; wanted {wanted}; replace the file, or give another folder with --data DIR")


def _content(path: Path) -> bytes | mmap.mmap:
    """The bytes of the file, unpacked if they are gzip, whatever the file is called."""
    try:
        with path.open("rb") as file:
            start = file.read(len(GZIP_MAGIC))
            file.seek(0)
            if start == GZIP_MAGIC:
                return gzip.decompress(file.read())
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if start else b""
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise broken(path, "the gzip data are damaged or cut short", "a whole gzip file") from None
    except OSError as error:
        raise broken(path, f"cannot be read ({error.strerror or error})", "a readable IDX file") from None


def _parse(path: Path, content: bytes | mmap.mmap, magic: str) -> NDArray[np.uint8]:
    kind = _KINDS[magic]
    wanted = f"an IDX file of {kind} (magic {magic})"
    got = bytes(content[:4]).hex()
    if got != magic:
        what = f"it is an IDX file of {_KINDS[got]}" if got in _KINDS else f"it begins with {got or 'nothing'}"
        raise broken(path, what, wanted)
    ndim = bytes.fromhex(magic)[3]
    header_bytes = 4 + 4 * ndim
    if len(content) < header_bytes:
        raise broken(path, f"it is cut short within its header, at {len(content)} bytes", wanted)
    shape = struct.unpack_from(f">{ndim}I", content, 4)
    size = "x".join(map(str, shape))
    if 0 in shape:
        raise broken(path, f"its header names {size} {kind}", "sizes of at least 1")
    wanted_bytes = header_bytes + prod(shape)
    if len(content) != wanted_bytes:
        fault = "cut short" if len(content) < wanted_bytes else "too long"
        raise broken(path, f"it is {fault}, at {len(content)} bytes", f"{wanted_bytes} for the {size} of its header")
    return np.frombuffer(content, np.uint8)[header_bytes:].reshape(shape)
