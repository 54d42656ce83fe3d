"""Augmentation in NumPy: draws, affine maps, elastic fields, and pixels from between others.

Each element-wise operation is rounded by itself, in float32, in the order of `augment.cu`: maps have the same bits there.
"""

import numpy as np
from numpy.typing import NDArray

from ddpgd.kernels.augmentation import DRAW_BITS, NUM_MAP_DRAWS, Augmentation, gaussian
from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.philox import WORDS_PER_BLOCK, Purpose, sample_words
from ddpgd.kernels.reference.scratch import Scratch

Floats = NDArray[np.float32]

_SINE, _COSINE = (156, 110, 72, 42, 20, 6), (132, 90, 56, 30, 12, 2)
"""Divisors of nested Taylor series, to float32's precision up to a quarter turn."""
_FIRST_FIELD_DRAW = 2 * WORDS_PER_BLOCK


def augment(
    scratch: Scratch, images: Array, samples: NDArray[np.int64], epoch: int, augmentation: Augmentation
) -> Floats:
    """Returns transformed pixels, float32 (R, K), 0 to 255, of uint8 images (n, K) that `samples` (R,) name: scratch."""
    draws = _draws(scratch, samples, epoch, augmentation)
    maps = affine_maps(draws[:, :NUM_MAP_DRAWS] * augmentation.spreads, augmentation.image_shape)
    fields = None
    if augmentation.elastic_alpha:
        fields = elastic_fields(scratch, draws[:, _FIRST_FIELD_DRAW:], augmentation)
    rows = scratch("rows", (len(samples), images.shape[1]), np.uint8)
    images.take(samples, axis=0, out=rows, mode="clip")
    return warp(scratch, rows.reshape(-1, *augmentation.image_shape), maps, fields).reshape(rows.shape)


def affine_maps(numbers: Floats, image_shape: tuple[int, int]) -> Floats:
    """Returns the maps from a pixel to its place in the image before, float32 (R, 2, 3): place = map (row, column, 1).

    Args:
        numbers: Float32 (R, 6): shift down, shift right, angle, changes of scale of rows and of columns, angle of shear.
        image_shape: (rows, cols).
    """
    down, right, angle, tall, wide, slant = np.ascontiguousarray(numbers.T)
    sine, cosine = _sine_and_cosine(angle)
    slant_sine, slant_cosine = _sine_and_cosine(slant)
    tangent = slant_sine / slant_cosine
    one = np.float32(1.0)
    height, width = one + tall, one + wide
    maps = np.empty((len(numbers), 2, 3), np.float32)
    maps[:, 0, 0] = cosine / height
    maps[:, 0, 1] = sine / height
    maps[:, 1, 0] = (-sine - tangent * cosine) / width
    maps[:, 1, 1] = (cosine - tangent * sine) / width
    centre = [np.float32((side - 1) / 2) for side in image_shape]
    moved = [centre[0] + down, centre[1] + right]
    for axis in (0, 1):
        maps[:, axis, 2] = centre[axis] - (maps[:, axis, 0] * moved[0] + maps[:, axis, 1] * moved[1])
    return maps


def elastic_fields(scratch: Scratch, draws: Floats, augmentation: Augmentation) -> Floats:
    """Returns displacements in pixels, float32 (R, 2, rows, cols), down and to the right, from draws (R, 2 rows cols)."""
    rows, cols = augmentation.image_shape
    down, across = (scratch.keep(_smoothing, augmentation.elastic_sigma, size) for size in (rows, cols))
    shape = len(draws), 2, rows, cols
    between, fields = scratch("smoothed", shape, np.float32), scratch("fields", shape, np.float32)
    # Products of one sample's size: their bits do not depend on how many samples there are.
    np.matmul(draws.reshape(shape), across, out=between)
    np.matmul(down, between, out=fields)
    return np.multiply(fields, np.float32(augmentation.elastic_alpha), out=fields)


def warp(scratch: Scratch, images: NDArray[np.uint8], maps: Floats, fields: Floats | None) -> Floats:
    """Returns the pixels at the places of `maps` and `fields`, bilinear, float32 (R, rows, cols): scratch.

    Args:
        scratch: Of the caller.
        images: uint8 (R, rows, cols).
        maps: As `affine_maps` returns them.
        fields: Displacements of places, float32 (R, 2, rows, cols); None: there are none.
    """
    shape = num, rows, cols = images.shape
    # With a border of zeros, on which places outside are put, no pixel needs a question.
    padded = scratch.keep(np.zeros, (num, rows + 3, cols + 3), np.uint8)
    padded[:, 1 : rows + 1, 1 : cols + 1] = images
    pitch = cols + 3
    index, floor, work = (scratch(name, shape, np.float32) for name in ("index", "floor", "work"))
    beyond = [scratch(name, shape, np.float32) for name in ("beyond rows", "beyond columns")]
    for axis, (place, side) in enumerate(zip(beyond, (rows, cols), strict=True)):
        _places(maps[:, axis], None if fields is None else fields[:, axis], side, place)
        np.floor(place, out=floor)
        np.subtract(place, floor, out=place)
        if axis == 0:
            np.multiply(floor, np.float32(pitch), out=index)
    np.add(index, floor, out=index)
    at = scratch("at", shape, np.intp)
    np.copyto(at, index, casting="unsafe")
    np.add(at, scratch.keep(_starts, num, (rows + 3) * pitch, pitch + 1), out=at)
    pixels, corners = padded.reshape(-1), [scratch(f"corner {number}", shape, np.float32) for number in range(4)]
    taken = scratch("taken", shape, np.uint8)
    for corner, offset in zip(corners, (0, 1, pitch, pitch + 1), strict=True):
        pixels[offset:].take(at, out=taken, mode="clip")
        np.copyto(corner, taken)
    down, right = beyond
    top = _between(corners[0], corners[1], right, work)
    bottom = _between(corners[2], corners[3], right, work)
    return _between(top, bottom, down, work)


def _draws(scratch: Scratch, samples: NDArray[np.int64], epoch: int, augmentation: Augmentation) -> Floats:
    """Returns draws in [-1, 1), two a word, float32 (R, 2 num_words)."""
    words = scratch("words", (len(samples), augmentation.num_words), np.uint64)
    sample_words(augmentation.seed, Purpose.AUGMENT, epoch, samples, augmentation.num_words, out=words)
    halves = words.view("<u4")
    draws = scratch("draws", halves.shape, np.float32)
    np.right_shift(halves, 32 - DRAW_BITS, out=halves)
    np.copyto(draws, halves)
    np.multiply(draws, np.float32(2.0 ** (1 - DRAW_BITS)), out=draws)
    return np.subtract(draws, np.float32(1.0), out=draws)


def _sine_and_cosine(angle: Floats) -> tuple[Floats, Floats]:
    """Returns sine and cosine by additions, multiplications and divisions, which are exact to the bit on any machine."""
    half, one, two = angle * np.float32(0.5), np.float32(1.0), np.float32(2.0)
    square = half * half
    sine, cosine = np.ones_like(half), np.ones_like(half)
    for divisor in _SINE:
        sine = one - square / np.float32(divisor) * sine
    for divisor in _COSINE:
        cosine = one - square / np.float32(divisor) * cosine
    sine = half * sine
    return two * (sine * cosine), one - two * (sine * sine)


def _smoothing(sigma: float, size: int) -> Floats:
    """Returns the matrix of a convolution with a Gaussian, symmetric, float32 (size, size)."""
    distances = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
    return np.ascontiguousarray(gaussian(sigma, size)[distances])


def _places(map_row: Floats, field: Floats | None, side: int, out: Floats) -> None:
    """Puts places along one axis, float32 (R, rows, cols), of a map's row (R, 3) into `out`, at most 1 pixel outside."""
    _, rows, cols = out.shape
    down = map_row[:, :1] * np.arange(rows, dtype=np.float32) + map_row[:, 2:]
    right = map_row[:, 1:2] * np.arange(cols, dtype=np.float32)
    np.add(down[:, :, None], right[:, None, :], out=out)
    if field is not None:
        np.add(out, field, out=out)
    np.maximum(out, np.float32(-1.0), out=out)
    np.minimum(out, np.float32(side), out=out)


def _starts(num: int, size: int, origin: int) -> NDArray[np.intp]:
    """Returns where pixel (0, 0) of each padded image is among all of them, (num, 1, 1)."""
    return (np.arange(num, dtype=np.intp) * size + origin)[:, None, None]


def _between(first: Floats, second: Floats, part: Floats, work: Floats) -> Floats:
    """Returns first + part (second - first), in `first`."""
    np.subtract(second, first, out=work)
    np.multiply(work, part, out=work)
    return np.add(first, work, out=first)
