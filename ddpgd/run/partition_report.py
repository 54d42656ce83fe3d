"""The samples of clients, as a table and as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpgd.config.schema import Config
from ddpgd.config.validation import validate
from ddpgd.data.mnist import Dataset
from ddpgd.run import build_federated
from ddpgd.run.plots import pyplot, save_figure

_MOST_ROWS = 12


def class_counts(config: Config, data: Dataset) -> NDArray[np.int64]:
    """Returns the number of training samples of each class that each client has, int64 (clients, classes).

    Raises:
        InputError: The options of the partition are out of range, or there are too few samples.
    """
    validate(config)
    num_classes = len(data.class_names)
    parts = build_federated.parts(config, data)
    return np.array([np.bincount(data.train_labels[part], minlength=num_classes) for part in parts])


def lines(config: Config, counts: NDArray[np.int64], class_names: Sequence[str]) -> list[str]:
    """Returns the table of the first clients, and the spread over all."""
    width = max(6, *map(len, class_names))
    found = [f"--partition {config.partition}, --clients {config.clients}, --seed {config.seed}:"]
    found.append("client samples classes  " + " ".join(f"{name:>{width}}" for name in class_names))
    for client, row in enumerate(counts[:_MOST_ROWS]):
        of_classes = " ".join(f"{count:{width},}" for count in row)
        found.append(f"{client:6} {row.sum():7,} {np.count_nonzero(row):7}  {of_classes}")
    if len(counts) > _MOST_ROWS:
        found.append(f"... and {len(counts) - _MOST_ROWS} more")
    sizes, classes = counts.sum(axis=1), np.count_nonzero(counts, axis=1)
    return [
        *found,
        f"samples of a client: {sizes.min():,} to {sizes.max():,}, mean {sizes.mean():.1f}, deviation {sizes.std():.1f}",
        f"classes of a client: {classes.min()} to {classes.max()}, mean {classes.mean():.1f}",
    ]


def draw(config: Config, counts: NDArray[np.int64], class_names: Sequence[str], path: Path) -> None:
    """Draws a bar for each client, its samples by class. InputError: matplotlib is missing, or the file cannot be written."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(12, 5), layout="constrained")
    clients, below = np.arange(len(counts)), np.zeros(len(counts))
    colours: Any = plt.get_cmap("tab10" if len(class_names) <= 10 else "tab20")
    for label, (name, column) in enumerate(zip(class_names, counts.T, strict=True)):
        axes.bar(clients, column, bottom=below, width=0.9, color=colours(label), label=name)
        below += column
    axes.set(xlabel="client", ylabel="training samples", title=f"{config.partition}: samples of each client, by class")
    axes.margins(x=0.01)
    axes.locator_params(axis="x", integer=True)
    figure.legend(loc="outside right upper", frameon=False, title="class")
    save_figure(figure, path, "--out")
