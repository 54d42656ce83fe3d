"""Safetensors files, made and hashed in pieces, so that memory never holds an array twice."""

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

PIECE_BYTES = 1 << 26

_TYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "uint8": "U8"}

Arrays = Mapping[str, NDArray[Any]]


def content(arrays: Arrays, metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """Yields a safetensors file: its header, then each array, in pieces of at most 64 MiB."""
    names = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name in names:
        array = arrays[name]
        start, end = end, end + array.nbytes
        header[name] = {"dtype": _TYPES[array.dtype.name], "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for name in names:
        yield from _pieces(arrays[name])


def sha256(arrays: Arrays, tables: str) -> str:
    """Returns the SHA-256 (hex) of `tables` and of all arrays, by name, with their types and shapes."""
    digest = hashlib.sha256(tables.encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        for piece in _pieces(arrays[name]):
            digest.update(piece)
    return digest.hexdigest()


def _pieces(array: NDArray[Any]) -> Iterator[memoryview]:
    flat = np.require(array, requirements="C").reshape(-1).view(np.uint8)
    for start in range(0, flat.size, PIECE_BYTES):
        yield flat[start : start + PIECE_BYTES].data
