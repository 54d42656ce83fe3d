"""The loss of lossy wires on real gradients: the sum of 64 ranks, beside the same sum in float64.

784-512-512-10 on MNIST, after some updates, one micro-batch of 64 samples a rank, ranks as threads of one process; no
error feedback. Beside the wires: half precision as it is done without scales, by a cast of each rank's mean gradient.

    python -m benchmarks.exchange.accuracy --out accuracy.json     prints a table, in about half a minute
    python -m benchmarks.exchange.accuracy --page benchmarks/exchange/exchange.md          writes it into the page
"""

import argparse
import sys
from pathlib import Path
from typing import TypedDict
from unittest import mock

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.lib.arguments import load, new_file
from benchmarks.lib.common import typed
from benchmarks.lib.page import PageError, fill
from benchmarks.lib.results import write
from ddpgd.comm.exchange import Exchange
from ddpgd.comm.rows import Group
from ddpgd.comm.transport import Alone, Transport
from ddpgd.comm.transports import threads
from ddpgd.comm.wires import FORMATS, WIRES
from ddpgd.config.schema import Config, resolve
from ddpgd.data.mnist import Dataset
from ddpgd.errors import InputError
from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.reference.backend import Reference
from ddpgd.run import build
from ddpgd.scaling.arguments import positive
from ddpgd.scaling.conditions import measured_by
from ddpgd.scaling.records import Facts
from ddpgd.training.step import Step

HIDDEN = (512, 512)
ROWS = 64
UPDATES = (1, 100, 1000)
NAMES = {
    "float32": "float32",
    **{name: f"--wire {name}" for name in FORMATS},
    "cast": "cast to float16, added in float16, then divided",
    "hook": "cast to float16, divided, then added in float16",
}


class Loss(TypedDict):
    """The loss of a sum."""

    relative_error: float
    flushed_share: float
    flushed_norm_share: float


class AfterUpdates(TypedDict):
    """The losses after so many updates, by the name of the wire."""

    updates: int
    losses: dict[str, Loss]


class Found(Facts):
    """Everything that was measured."""

    num_ranks: int
    found: list[AfterUpdates]


def gradients(data: Dataset, num_ranks: int, updates: tuple[int, ...]) -> dict[int, Array]:
    """Returns, after each number of updates, the gradient sums (num_ranks, size) of that many micro-batches."""
    found = {}
    config = resolve(Config(hidden=HIDDEN, global_batch=256, micro_batch=ROWS), 1)
    step = build.sync(Reference(), config, data, build.grid(config, Alone()), total_steps=max(updates))
    for number in range(max(updates)):
        step.run(number, 1, False, False)
        if number + 1 in updates:
            found[number + 1] = _gradients_at(step.state.params.copy(), data, num_ranks)
    return found


def _gradients_at(params: Array, data: Dataset, num_ranks: int) -> Array:
    """Returns the rows of one rank's step over all micro-batches, kept as they are folded."""
    rows: list[Array] = []
    config = resolve(Config(hidden=HIDDEN, global_batch=num_ranks * ROWS, micro_batch=ROWS, seed=1), 1)
    step = build.sync(Reference(), config, data, build.grid(config, Alone()), total_steps=1, initial_params=params)
    assert isinstance(step, Step)
    fold = step.exchange.fold

    def kept(group: Group) -> None:
        rows.extend(group.rows.grads.copy())
        fold(group)

    with mock.patch.object(step.exchange, "fold", kept):
        step.run(0, 1, False, False)
    return np.array(rows)


def summed(rows: Array, name: str) -> Array:
    """Returns the sum of all rows, one a rank, by the exchange with this wire."""
    num_ranks, size = rows.shape

    def gradient(micro_batch: int, grads: Array, _tail: Array) -> None:
        grads[...] = rows[micro_batch]

    def work(transport: Transport) -> Array:
        ops = Reference()
        codec = WIRES[name].codec(ops)
        grads, _ = Exchange(transport, ops, size, codec).sum(num_ranks, gradient)
        return grads.copy()

    return threads.run(num_ranks, work)[0]


def half(rows: Array, divided_first: bool) -> Array:
    """Returns the mean gradient over ranks in float16 throughout, times the number of samples, to compare with a sum."""
    num_ranks = len(rows)
    share = np.float16(num_ranks)
    total = np.zeros(rows.shape[1], np.float16)
    for row in rows:
        own = (row / np.float32(ROWS)).astype(np.float16)
        total += own / share if divided_first else own
    mean = total if divided_first else total / share
    return mean.astype(np.float64) * num_ranks * ROWS


def loss(exact: Array, got: Array) -> Loss:
    """Returns the relative error, the share of elements that became 0, and those elements' part of the norm."""
    flushed = (got == 0) & (exact != 0)
    norm = np.linalg.norm(exact)
    return {
        "relative_error": float(np.linalg.norm(got - exact) / norm),
        "flushed_share": float(flushed.sum() / np.count_nonzero(exact)),
        "flushed_norm_share": float(np.linalg.norm(exact[flushed]) / norm),
    }


def measure(data: Dataset, num_ranks: int, updates: tuple[int, ...]) -> list[AfterUpdates]:
    """Returns the losses of every wire after each number of updates."""
    found: list[AfterUpdates] = []
    for after, rows in gradients(data, num_ranks, updates).items():
        exact = rows.sum(axis=0, dtype=np.float64)
        results = {name: summed(rows, name).astype(np.float64) for name in ("float32", *FORMATS)}
        results |= {"cast": half(rows, False), "hook": half(rows, True)}
        found.append({"updates": after, "losses": {name: loss(exact, got) for name, got in results.items()}})
    return found


def table(facts: Found) -> list[str]:
    lines = [
        f"- command: `{facts['command']}`, {facts['time']}; {facts['num_ranks']} ranks of {ROWS} samples",
        f"- commit: {facts['commit']}; hardware: {facts['hardware']}",
        "",
        "| after updates | | relative error of the mean | became 0, of the elements | their part of the norm |",
        "|---|---|---|---|---|",
    ]
    for found in facts["found"]:
        for name, lost in found["losses"].items():
            lines.append(
                f"| {found['updates']} | {NAMES[name]} | {100 * lost['relative_error']:.2g} % "
                f"| {100 * lost['flushed_share']:.2g} % | {lost['flushed_norm_share']:.1e} |"
            )
    return lines


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", metavar="FILE", type=new_file, help="JSON")
    parser.add_argument("--page", metavar="FILE", type=Path, help="puts the table into this page")
    parser.add_argument("--ranks", metavar="W", type=positive(int), default=64, help="default: 64")
    parser.add_argument("--updates", metavar="N", type=positive(int), nargs="+", default=UPDATES, help="1 100 1000")
    parser.add_argument("--data", metavar="DIR", help="folder with MNIST (default: $DDPGD_DATA, the cache)")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """0 done, 2 wrong usage or missing data."""
    asked = parse(arguments)
    try:
        with threadpool_limits(1, user_api="blas"):
            found = measure(load(asked.data), asked.ranks, tuple(asked.updates))
        conditions = measured_by(typed("benchmarks.exchange.accuracy", arguments), ())
        facts: Found = {**conditions, "num_ranks": asked.ranks, "found": found}
        if asked.out:
            write(asked.out, facts)
        if asked.page:
            fill(asked.page, "accuracy of wires", table(facts))
        else:
            print("\n".join(table(facts)))
    except (InputError, OSError, PageError) as error:
        print(f"wire_accuracy: {error!s}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
