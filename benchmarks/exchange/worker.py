"""One rank of `benchmarks.exchange.run`: the link's latency and rate, then each case, contestants in turn."""

import json
import random
import statistics
import sys
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from mpi4py import MPI

from benchmarks.exchange.cases import (
    CONTESTANTS,
    FEWEST_REPETITIONS,
    LEAST_REPETITIONS,
    MOST_REPETITIONS,
    Case,
    cases,
    guess_s,
)
from benchmarks.exchange.records import CaseFound, PingPong
from benchmarks.lib.common import LAB_LINKS
from benchmarks.lib.results import ratios, spread
from ddpgd.comm import traffic
from ddpgd.comm.exchange import Exchange
from ddpgd.comm.transports.mpi_host import MpiHost
from ddpgd.comm.wires import WIRES
from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.reference.backend import Reference

SHARE_OF_A_CASE = 0.12
"""No case takes more than this share of the group's time, where its fewest repetitions fit."""
LATE = 2
"""A case is cut short when it takes so many times what it should, as on a busy machine."""
TELLING_BYTES = 256 << 10
"""From such a case on, the next one's time is guessed from this one's."""
PING_PONG_S = 0.1
PING_PONG_BYTES = [1 << power for power in (16, 18, 20, 22, 24)]


class OneCommunicator(MpiHost):
    """A transport without duplicates: contestants take turns, so that their messages cannot meet."""

    def duplicate(self) -> "OneCommunicator":
        return self


class Contestant(Protocol):
    """A way to sum the vector `source` of every rank."""

    num_pieces: int
    one_shot: bool | None

    def prepare(self) -> None:
        """Copies the source to where `run` sums it."""

    def run(self) -> None:
        """Sums."""

    @property
    def result(self) -> Array:
        """The sum."""

    @property
    def bytes_sent(self) -> int | None:
        """Bytes sent so far; None if unknown."""


class Library:
    """The MPI library's own sum, called without ddpgd."""

    num_pieces = 1
    one_shot: bool | None = None
    bytes_sent: int | None = None

    def __init__(self, comm: MPI.Comm, source: Array) -> None:
        self._comm = comm
        self._source = source
        self.result = np.empty_like(source)

    def prepare(self) -> None:
        np.copyto(self.result, self._source)

    def run(self) -> None:
        self._comm.Allreduce(MPI.IN_PLACE, self.result)


class Ours:
    """ddpgd's exchange, without the computation of gradients: they are copies of `source`."""

    def __init__(self, transport: MpiHost, source: Array, case: Case, name: str) -> None:
        asked = CONTESTANTS[name]
        self._source = source
        self._count = case.num_micro_batches
        self._transport = transport
        ops = Reference()
        codec = WIRES[asked.codec or "float32"].codec(ops)
        feedback = asked.error_feedback
        self._exchange = Exchange(transport, ops, source.size, codec, reduce=asked.reduce, error_feedback=feedback)
        self.num_pieces = self._exchange.num_pieces(self._count)
        usual = traffic.ONE_SHOT_BYTES
        if asked.one_shot is not None:
            traffic.ONE_SHOT_BYTES = 1 << 62 if asked.one_shot else 0
        self.one_shot: bool | None = asked.reduce == "ordered" and traffic.is_one_shot(
            source.size, self.num_pieces, codec.exact
        )
        self.prepare()  # plans the messages, by the limit that holds now
        traffic.ONE_SHOT_BYTES = usual

    def prepare(self) -> None:
        for group in self._exchange.groups(self._count):
            group.rows.grads[...] = self._source
            group.rows.tails[...] = 0
            self._exchange.fold(group)

    def run(self) -> None:
        self._exchange.combine(self._count)

    @property
    def result(self) -> Array:
        grads: Array = self._exchange.result[0]
        return grads

    @property
    def bytes_sent(self) -> int | None:
        return self._transport.bytes_sent


def ping_pong(comm: MPI.Comm, link: str) -> PingPong:
    """Measures the latency of 4 bytes one way, and the rate of long messages less that latency, between ranks 0 and 1.

    In shared memory at several lengths, since what fits a cache travels faster.
    """
    nominal = LAB_LINKS.get(link)
    lengths = [int(nominal * PING_PONG_S)] if nominal else PING_PONG_BYTES
    alpha_s = statistics.median(comm.bcast(_round_trips(comm, 4, 300))) / 2
    rates = {}
    for length in lengths:
        taken = comm.bcast(_round_trips(comm, length, 5 if nominal else 15))
        rates[str(length)] = length / (statistics.median(taken) / 2 - alpha_s)
    return {"alpha_s": alpha_s, "nominal_bytes_per_s": nominal, "bytes_per_s_by_length": rates}


def _round_trips(comm: MPI.Comm, num_bytes: int, count: int) -> list[float]:
    message, taken = np.ones(num_bytes, np.uint8), []
    for _ in range(count + 3):
        started = time.perf_counter()
        if comm.rank == 0:
            comm.Send(message, 1)
            comm.Recv(message, 1)
        elif comm.rank == 1:
            comm.Recv(message, 0)
            comm.Send(message, 0)
        taken.append(time.perf_counter() - started)
    comm.Barrier()
    return taken[3:]


def one_round(
    comm: MPI.Comm, contestants: Mapping[str, Contestant], number: int
) -> dict[str, tuple[float, int | None]]:
    """Runs each contestant once, in an order of this round's own; returns this rank's seconds and bytes."""
    order = list(contestants)
    random.Random(number).shuffle(order)
    found = {}
    for name in order:
        contestant = contestants[name]
        contestant.prepare()
        before = contestant.bytes_sent
        comm.Barrier()
        started = time.perf_counter()
        contestant.run()
        taken = time.perf_counter() - started
        after = contestant.bytes_sent
        found[name] = taken, None if before is None or after is None else after - before
    return found


def same_work(comm: MPI.Comm, contestants: Mapping[str, Contestant]) -> dict[str, float]:
    """Returns each contestant's relative distance to the ordered sum. AssertionError: ranks hold different bits."""
    exact, distances = contestants["ordered"].result, {}
    for name, contestant in contestants.items():
        result = contestant.result
        digests = comm.allgather(zlib.crc32(result.tobytes()))
        assert len(set(digests)) == 1, f"{name}: the ranks hold different sums"
        difference = float(np.linalg.norm(result - exact))
        distances[name] = difference / float(np.linalg.norm(exact))
        exact_too = CONTESTANTS[name].codec == "float32" and CONTESTANTS[name].reduce == "ordered"
        assert not difference or not exact_too, f"{name}: not the bits of the ordered sum"
    return distances


def measure(comm: MPI.Comm, transport: MpiHost, case: Case, most_s: float, wanted: int | None) -> CaseFound:
    """Makes all repetitions of a case: as many as fit `most_s`, or `wanted`."""
    source = np.random.default_rng(comm.rank).standard_normal(case.size_bytes // 4, np.float32)
    contestants: dict[str, Contestant] = {
        name: Library(comm, source) if name == "library" else Ours(transport, source, case, name)
        for name in case.contestants
    }
    one_round(comm, contestants, 0)
    distances = same_work(comm, contestants)
    started = time.perf_counter()
    rounds = [one_round(comm, contestants, 1)]
    round_s = comm.bcast(time.perf_counter() - started)
    fitting = int(most_s / round_s)
    least = LEAST_REPETITIONS if fitting >= LEAST_REPETITIONS else FEWEST_REPETITIONS
    repetitions = wanted or max(least, min(MOST_REPETITIONS, fitting))
    for number in range(2, repetitions + 1):
        late = comm.bcast(time.perf_counter() - started > LATE * most_s)
        if late and number > FEWEST_REPETITIONS and not wanted:
            break
        rounds.append(one_round(comm, contestants, number))
    of_ranks = comm.allgather(rounds)
    times = {
        name: [max(own[number][name][0] for own in of_ranks) for number in range(len(rounds))] for name in contestants
    }
    both = [times[name] for name in ("one shot", "segments") if name in times]
    return {
        "size_bytes": case.size_bytes,
        "num_micro_batches": case.num_micro_batches,
        "one_shot_over_segments": ratios(*both)["median"] if len(both) == 2 else None,
        "contestants": {
            name: {
                "time_s": spread(times[name]),
                "bytes_sent": max((own[-1][name][1] for own in of_ranks if own[-1][name][1] is not None), default=None),
                "num_pieces": contestants[name].num_pieces,
                "one_shot": contestants[name].one_shot,
                "distance_to_ordered": distances[name],
            }
            for name in case.contestants
        },
    }


def main() -> None:
    """Writes a JSON line for the link, then one for each case: measured, or left out for lack of time."""
    asked = json.loads(sys.argv[1])
    comm, out = MPI.COMM_WORLD, Path(asked["out"])
    started = time.perf_counter()
    transport = OneCommunicator(comm)
    link = ping_pong(comm, asked["link"])

    def write(record: Any) -> None:
        if comm.rank == 0:
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")

    write({"ping_pong": link})
    pace = 1.0
    for case in cases(asked["link"], comm.size, asked["sizes"]):
        left_s = comm.bcast(asked["seconds"] - (time.perf_counter() - started))
        round_s = pace * guess_s(case, comm.size, link)
        if round_s * (1 + (asked["repetitions"] or FEWEST_REPETITIONS)) > left_s:
            write({"left_out": {"size_bytes": case.size_bytes, "num_micro_batches": case.num_micro_batches}})
            continue
        most_s = min(left_s, SHARE_OF_A_CASE * asked["seconds"])
        found = measure(comm, transport, case, most_s, asked["repetitions"])
        write(found)
        if case.size_bytes >= TELLING_BYTES:
            pace *= comm.bcast(sum(one["time_s"]["median"] for one in found["contestants"].values())) / round_s


if __name__ == "__main__":
    main()
