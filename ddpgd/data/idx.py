"""Read the IDX file format of MNIST: uint8 images and labels, plain or gzipped, in bounded memory.

Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", 1998. Big-endian magic and sizes, then bytes.

The header is checked against the size of the file before samples are read or unpacked. Samples are copied into memory,
so a file that changes later cannot change what was checked.
"""

import gzip
import os
import struct
import zlib
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ddpgd.errors import InputError

GZIP_MAGIC = b"\x1f\x8b"
NUM_CLASSES = 10
_KINDS = {"00000803": "images", "00000801": "labels"}
_GZIP_RATIO = 100
"""Plausible ratio of plain to packed bytes; MNIST's is 5, that of gzip itself can be 1,032."""
_SMALL_BYTES = 64 << 20
"""Any gzip file may hold this much, whatever its ratio."""
_PIECE_BYTES = 1 << 20

_Stream = BinaryIO | gzip.GzipFile


def read_images(path: Path) -> NDArray[np.uint8]:
    """Read the images of an IDX file.

    Args:
        path: the file, plain or gzipped, whatever its name.

    Returns:
        uint8 (num, rows, cols), read-only, in memory of its own.

    Raises:
        InputError: in one line, for a file that is not exactly one well-formed IDX image file with an image in it.
    """
    return _read(path, "00000803")


def read_labels(path: Path) -> NDArray[np.uint8]:
    """Read the labels of an IDX file, uint8 (num,), read-only, each 0 to 9. Raises InputError as `read_images` does."""
    labels = _read(path, "00000801")
    wrong = np.flatnonzero(labels >= NUM_CLASSES)
    if wrong.size:
        raise broken(path, f"label {labels[wrong[0]]} at sample {wrong[0]}", f"labels 0 to {NUM_CLASSES - 1}")
    return labels


def broken(path: Path, got: str, wanted: str) -> InputError:
    """Make the error for a data file: the file, what was got, what was wanted, what to do, in one line."""
    return InputError(f"{path}: {got}; wanted {wanted}; replace the file, or give another folder with --data DIR")


def _read(path: Path, magic: str) -> NDArray[np.uint8]:
    try:
        with path.open("rb") as file:
            file_bytes = os.fstat(file.fileno()).st_size
            start = file.read(len(GZIP_MAGIC))
            file.seek(0)
            if start != GZIP_MAGIC:
                return _samples(path, file, magic, file_bytes)
            with gzip.GzipFile(fileobj=file) as stream:
                return _samples(path, stream, magic, max(_SMALL_BYTES, _GZIP_RATIO * file_bytes))
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise broken(path, "the gzip data are damaged or cut short", "a whole gzip file") from None
    except OSError as error:
        raise broken(path, f"cannot be read ({error.strerror or error})", "a readable IDX file") from None
    except MemoryError:
        raise broken(path, "does not fit into memory", "a smaller file, or fewer ranks on this machine") from None


def _samples(path: Path, stream: _Stream, magic: str, max_bytes: int) -> NDArray[np.uint8]:
    """Read header and samples; `max_bytes` is the most that the file can hold, header included."""
    kind = _KINDS[magic]
    shape = _shape(path, stream, magic)
    size, num_bytes = "x".join(map(str, shape)), prod(shape)
    header_bytes = 4 + 4 * len(shape)
    if header_bytes + num_bytes > max_bytes:
        got = f"it is cut short, or its header is wrong: {size} {kind} take {num_bytes:,} bytes"
        raise broken(path, got, f"at most {max_bytes:,} in a file of this length")
    samples = np.empty(num_bytes, np.uint8)
    num_read = _fill(stream, samples.data)
    if num_read < num_bytes:
        got = f"it is cut short, at {header_bytes + num_read} bytes"
        raise broken(path, got, f"{header_bytes + num_bytes} for the {size} of its header")
    if stream.read(1):
        wanted = f"{header_bytes + num_bytes} bytes for the {size} of its header"
        raise broken(path, "it is too long", wanted)
    samples.setflags(write=False)
    return samples.reshape(shape)


def _shape(path: Path, stream: _Stream, magic: str) -> tuple[int, ...]:
    kind = _KINDS[magic]
    wanted = f"an IDX file of {kind} (magic {magic})"
    got = stream.read(4).hex()
    if got != magic:
        what = f"it is an IDX file of {_KINDS[got]}" if got in _KINDS else f"it begins with {got or 'nothing'}"
        raise broken(path, what, wanted)
    ndim = bytes.fromhex(magic)[3]
    sizes = stream.read(4 * ndim)
    if len(sizes) < 4 * ndim:
        raise broken(path, f"it is cut short within its header, at {4 + len(sizes)} bytes", wanted)
    shape = struct.unpack(f">{ndim}I", sizes)
    if 0 in shape:
        raise broken(path, f"its header names {'x'.join(map(str, shape))} {kind}", "sizes of at least 1")
    return shape


def _fill(stream: _Stream, target: memoryview) -> int:
    """Read into `target` piece by piece until it is full or the stream ends; returns the number of bytes read."""
    num_read = 0
    while num_read < len(target):
        piece = stream.read(min(_PIECE_BYTES, len(target) - num_read))
        if not piece:
            break
        target[num_read : num_read + len(piece)] = piece
        num_read += len(piece)
    return num_read
