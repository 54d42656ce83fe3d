"""The time that being watched takes of a step, part by part: in steps of 200 us, too little to be seen as a difference of runs.

    python -m benchmarks.failures.watching

Counts what a rank stores into its whereabouts in a step and the collectives that it enters; times a store, what counts a
collective, and a look of the watchdog. Of each time: the median of repetitions, and in brackets the least and the most.
"""

import statistics
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from benchmarks.lib.common import typed
from benchmarks.lib.program import make_parser
from ddpgd.cli.main import main as ddpgd
from ddpgd.comm import whereabouts
from ddpgd.comm.counted import Counted
from ddpgd.comm.transport import Alone
from ddpgd.comm.whereabouts import ACTIVITY, COUNTS, GRADIENTS, NUM_WORDS
from ddpgd.scaling.conditions import commit
from ddpgd.training.stopping import StopRequest
from ddpgd.watch.board import shared_board
from ddpgd.watch.watchdog import LOOK_S, Watchdog

STEP_US = 200.0
SMALL = "train --data synthetic --hidden 16 --global-batch 32 --micro-batch 16 --evaluate-every 1000000 --quiet"
LAYOUTS = {"one rank": "", "two ranks": "--transport threads --ranks 2"}
STEPS = (200, 1200)
"""Lengths of two runs: their difference has no start and no end."""


class CountedWords:
    """Words of a rank that count their loads and stores."""

    def __init__(self, words: memoryview) -> None:
        self.words = words
        self.touched = 0

    def __getitem__(self, place: int) -> int:
        self.touched += 1
        return int(self.words[place])

    def __setitem__(self, place: int, value: int) -> None:
        self.touched += 1
        self.words[place] = value


@contextmanager
def counting() -> Iterator[list[CountedWords]]:
    """Yields the words of all ranks of this process, in the order in which they are first asked for."""
    here, found = whereabouts.here, dict[int, CountedWords]()

    def counted() -> CountedWords:
        words: memoryview | CountedWords = here()
        return words if isinstance(words, CountedWords) else found.setdefault(id(words), CountedWords(words))

    whereabouts.here = counted  # type: ignore[assignment]
    every = list[CountedWords]()
    try:
        yield every
    finally:
        whereabouts.here = here
        every += found.values()


def counts_of_a_step(layout: str) -> tuple[float, float]:
    """Returns the loads and stores of words in a step of one rank, and the collectives that it enters."""
    totals = []
    for steps in STEPS:
        with tempfile.TemporaryDirectory() as folder, counting() as ranks:
            command = f"{SMALL} {layout} --steps {steps} --run-dir {folder}/run"
            if code := ddpgd(command.split()):
                raise SystemExit(code)
        totals.append((max(one.touched for one in ranks), max(sum(one.words.tolist()[COUNTS:]) for one in ranks)))
    short, long = totals
    return (long[0] - short[0]) / (STEPS[1] - STEPS[0]), (long[1] - short[1]) / (STEPS[1] - STEPS[0])


class Pair(Alone):
    """One of two ranks, of which neither waits."""

    world_size = 2


def times_us(work: Callable[[], object], repetitions: int, calls: int) -> list[float]:
    """Returns the time of one call, of each repetition."""
    return [1e6 * total / calls for total in timeit.repeat(work, repeat=repetitions, number=calls)]


def parts_us(repetitions: int) -> dict[str, list[float]]:
    """Returns the times of a store, of what counts a collective, and of a look."""
    words, buffer, bare = memoryview(bytearray(8 * NUM_WORDS)).cast("q"), np.zeros(1), Pair()
    counted = Counted(bare, words)

    def store() -> None:
        words[ACTIVITY] = words[ACTIVITY] = words[ACTIVITY] = words[ACTIVITY] = words[ACTIVITY] = GRADIENTS

    stores = [time / 5 for time in times_us(store, repetitions, 20_000)]
    without = times_us(lambda: bare.all_reduce(buffer), repetitions, 20_000)
    with_count = times_us(lambda: counted.all_reduce(buffer), repetitions, 20_000)
    with shared_board(Alone()) as board:
        assert board is not None, "ranks cannot share memory here"
        watchdog = Watchdog(bare, board, StopRequest())
        looks = times_us(lambda: watchdog.look(time.monotonic()), repetitions, 200)
    return {
        "a load or store": stores,
        "counting a collective": [one - none for one, none in zip(with_count, without, strict=True)],
        "a look": looks,
    }


def main() -> None:
    """Prints the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--repetitions", type=int, default=25)
    asked = parser.parse_args()
    parts = parts_us(asked.repetitions)
    looks = STEP_US * 1e-6 / LOOK_S
    print("| ranks | part | a step | us each | us a step |\n|---|---|---|---|---|")
    for name, layout in LAYOUTS.items():
        touched, collectives = counts_of_a_step(layout)
        total = 0.0
        for (part, times), number in zip(parts.items(), (touched, collectives, looks), strict=True):
            median = statistics.median(times)
            total += number * median
            spread = f"{median:.3f} ({min(times):.3f} to {max(times):.3f})"
            print(f"| {name} | {part} | {number:.4g} | {spread} | {number * median:.2f} |")
        print(f"| {name} | all | | | {total:.2f}, {total / STEP_US:.2%} of {STEP_US:.0f} us |", flush=True)
    print(f"\n- command: `{typed('benchmarks.failures.watching', sys.argv[1:])}`\n- commit: {commit()}")


if __name__ == "__main__":
    main()
