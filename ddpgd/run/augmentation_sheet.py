"""A sheet of training images beside what augmentation makes of them in the first epochs."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpgd.config.schema import Config, flag
from ddpgd.config.validation import validate
from ddpgd.data import augmentations
from ddpgd.data.augmentations import AUGMENTATIONS
from ddpgd.data.mnist import Dataset
from ddpgd.data.pooling import pooled
from ddpgd.errors import InputError
from ddpgd.kernels.reference.augment import augment
from ddpgd.kernels.reference.scratch import Scratch
from ddpgd.run.build_network import input_shape
from ddpgd.run.plots import pyplot, save_figure

NUM_SAMPLES, NUM_EPOCHS = 10, 8


def draw(config: Config, data: Dataset, path: Path) -> None:
    """Draws a row for each of the first samples: the image as it is, then as training sees it in each epoch.

    Raises:
        InputError: The options are out of range, nothing is augmented, matplotlib is missing, or the file cannot be written.
    """
    validate(config)
    images = variants(config, data)
    plt = pyplot()
    num_samples, num_columns = images.shape[:2]
    rows, cols = input_shape(config, data.image_shape)
    size = num_columns, 0.5 + num_samples * rows / cols
    figure, grid = plt.subplots(num_samples, num_columns, figsize=size, layout="constrained", squeeze=False)
    for axes, image in zip(grid.flat, images.reshape(-1, rows, cols), strict=True):
        axes.imshow(image, cmap="gray_r", vmin=0, vmax=255)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color("0.8")
    for column, axes in enumerate(grid[0]):
        axes.set_title(f"epoch {column}" if column else "as it is", fontsize=9)
    for axes in grid[:, 0]:
        axes.spines[:].set_color("black")
    figure.suptitle(_numbers(config), fontsize=9)
    save_figure(figure, path, "--out")


def variants(config: Config, data: Dataset) -> NDArray[np.float32]:
    """Returns the first samples as they are and in each of the first epochs, float32 (samples, 1 + epochs, K), 0 to 255."""
    options = _values(config)
    shape = input_shape(config, data.image_shape)
    augmentation = augmentations.make(config.augment, config.seed, shape, **options)
    if augmentation is None:
        raise InputError("--augment none changes nothing; type --augment affine, or --augment elastic")
    inputs = pooled(data.train_images[:NUM_SAMPLES], data.image_shape, config.input_pool)
    samples, scratch = np.arange(len(inputs)), Scratch()
    found = [inputs.astype(np.float32)]
    found += [augment(scratch, inputs, samples, epoch, augmentation).copy() for epoch in range(NUM_EPOCHS)]
    return np.stack(found, axis=1)


def _values(config: Config) -> dict[str, Any]:
    return {name: getattr(config, name) for name in AUGMENTATIONS[config.augment].options}


def _numbers(config: Config) -> str:
    """Returns the options as they are typed."""
    values = _values(config) | ({"input_pool": config.input_pool} if config.input_pool > 1 else {})
    typed = [f"{flag(name)} {value:g}" for name, value in values.items()]
    return " ".join([f"--augment {config.augment}", *typed])
