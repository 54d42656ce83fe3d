"""Partitions: the samples that each client has, a pure function of the seed, the options and the labels."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddpgd.errors import InputError
from ddpgd.kernels.philox import Purpose, permutation, words

Indices = NDArray[np.int64]
Draw = Callable[[NDArray[np.uint8], int, float, int], list[Indices]]


@dataclass(frozen=True)
class Partition:
    """A way to divide samples among clients.

    Attributes:
        form: Its text on the command line, as in "shards:2".
        parse: Returns the number in the text after the name; ValueError: there is none.
        range: The numbers that `parse` may return, in words.
        draw: draw(labels, num_clients, number, seed) returns the samples of each client.
    """

    form: str
    parse: Callable[[str], float]
    range: str
    draw: Draw


def divide(text: str, labels: NDArray[np.uint8], num_clients: int, seed: int) -> list[Indices]:
    """Returns the samples of each client, int64 and ascending: every sample belongs to exactly one client.

    Args:
        text: The value of `--partition`, as in "shards:2".
        labels: Of the samples, uint8 (n,).
        num_clients: Number of clients; each gets a sample at least.
        seed: The seed of the run.

    Raises:
        InputError: There is no such partition, or there are too few samples for it.
    """
    name, _, rest = text.partition(":")
    if name not in PARTITIONS:
        raise InputError(f"--partition {text}: type {', '.join(row.form for row in PARTITIONS.values())}")
    row = PARTITIONS[name]
    try:
        number = row.parse(rest)
    except ValueError:
        raise InputError(f"--partition {text}: {row.range}; type for example --partition {row.form}") from None
    pieces = num_clients * max(1, int(number)) if name == "shards" else num_clients
    if pieces > len(labels):
        raise InputError(
            f"--clients {num_clients}: {pieces:,} parts of {len(labels):,} training samples would be empty; type "
            f"--clients {num_clients * len(labels) // pieces} or less"
        )
    return [np.sort(part) for part in row.draw(labels, num_clients, number, seed)]


def _iid(labels: NDArray[np.uint8], num_clients: int, _number: float, seed: int) -> list[Indices]:
    return np.array_split(permutation(seed, 0, len(labels), Purpose.PARTITION), num_clients)


def _shards(labels: NDArray[np.uint8], num_clients: int, number: float, seed: int) -> list[Indices]:
    """Samples sorted by label, cut into equal shards, and `number` of these dealt to each client."""
    order = permutation(seed, 0, len(labels), Purpose.PARTITION)
    pieces = np.array_split(order[np.argsort(labels[order], kind="stable")], num_clients * int(number))
    dealt = permutation(seed, 1, len(pieces), Purpose.PARTITION).reshape(num_clients, -1)
    return [np.concatenate([pieces[piece] for piece in own]) for own in dealt]


def _dirichlet(labels: NDArray[np.uint8], num_clients: int, alpha: float, seed: int) -> list[Indices]:
    """Each class is divided in proportions from a symmetric Dirichlet distribution."""
    order = permutation(seed, 0, len(labels), Purpose.PARTITION)
    proportions = _generator(seed).dirichlet(np.full(num_clients, alpha), size=int(labels.max()) + 1)
    parts: list[list[Indices]] = [[] for _ in range(num_clients)]
    for label, shares in enumerate(proportions):
        members = order[labels[order] == label]
        ends = np.rint(np.cumsum(np.nan_to_num(shares))[:-1] * len(members)).astype(np.int64)
        for part, piece in zip(parts, np.split(members, ends), strict=True):
            part.append(piece)
    return _none_empty([np.concatenate(part) for part in parts])


def _sizes(labels: NDArray[np.uint8], num_clients: int, sigma: float, seed: int) -> list[Indices]:
    """Samples at random, in numbers from a log-normal distribution."""
    order = permutation(seed, 0, len(labels), Purpose.PARTITION)
    sizes = _generator(seed).lognormal(0.0, sigma, num_clients)
    ends = np.rint(np.cumsum(sizes / sizes.sum())[:-1] * len(labels)).astype(np.int64)
    return _none_empty(np.split(order, ends))


def _none_empty(parts: list[Indices]) -> list[Indices]:
    """Moves a sample of the largest part to each empty one."""
    for number, part in enumerate(parts):
        if not len(part):
            largest = max(range(len(parts)), key=lambda other: len(parts[other]))
            parts[number], parts[largest] = parts[largest][-1:], parts[largest][:-1]
    return parts


def _generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=words(seed, Purpose.PARTITION, 2, 2)))


def _nothing(text: str) -> float:
    if text:
        raise ValueError
    return 0.0


def _count(text: str) -> float:
    number = int(text)
    if not 1 <= number <= 1000:
        raise ValueError
    return number


def _positive(text: str) -> float:
    number = float(text)
    if not 0.001 <= number <= 1000:
        raise ValueError
    return number


def _log_normal(text: str) -> float:
    name, _, sigma = text.partition(":")
    if name != "lognormal" or float(sigma) > 5:
        raise ValueError
    return _positive(sigma)


PARTITIONS = {
    "iid": Partition("iid", _nothing, "nothing follows the name", _iid),
    "shards": Partition("shards:2", _count, "a whole number of shards a client must follow, 1 to 1000", _shards),
    "dirichlet": Partition("dirichlet:0.3", _positive, "a concentration must follow, 0.001 to 1000", _dirichlet),
    "sizes": Partition("sizes:lognormal:1.0", _log_normal, "lognormal and its sigma must follow, 0.001 to 5", _sizes),
}
"""The partitions by name. `shards`: McMahan et al., 2017; `dirichlet`: Hsu, Qi, Brown, "Measuring the effects of
non-identical data distribution for federated visual classification", 2019."""
