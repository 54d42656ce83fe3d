"""Measures of samples that explain why a network does not learn, or seems to learn too well."""

import numpy as np
from numpy.typing import NDArray

MOST_SAMPLES = 4096
"""Training samples that `moments` and `class_mean_accuracy` look at."""


def shared_fraction(images: NDArray[np.uint8], training_images: NDArray[np.uint8]) -> float:
    """Returns the fraction of `images` (B, K) that are among `training_images` (n, K), byte for byte; 0 without images.

    >>> shared_fraction(np.eye(4, dtype=np.uint8), np.eye(4, dtype=np.uint8)[:1])
    0.25
    """
    own = [image.tobytes() for image in images]
    shared = set(own).intersection(image.tobytes() for image in training_images)
    return sum(image in shared for image in own) / max(1, len(own))


def moments(images: NDArray[np.uint8]) -> tuple[float, float]:
    """Returns mean and standard deviation of the pixels, 0 to 1, of the first images (n, K)."""
    pixels = images[:MOST_SAMPLES] / np.float32(255)
    return float(pixels.mean()), float(pixels.std())


def class_mean_accuracy(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> float:
    """Returns how well the nearest mean image of a class predicts labels, 0 to 1: means of one half, accuracy of the other.

    Args:
        images: (n, K), of which the first are taken.
        labels: (n,).
    """
    pixels, half = images[:MOST_SAMPLES].astype(np.float32), min(len(labels), MOST_SAMPLES) // 2
    classes = np.unique(labels[:half])
    means = np.stack([pixels[:half][labels[:half] == one].mean(axis=0) for one in classes])
    scores = pixels[half:] @ means.T - 0.5 * np.square(means).sum(axis=1)
    return float((classes[scores.argmax(axis=1)] == labels[half : len(pixels)]).mean())
