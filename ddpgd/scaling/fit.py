"""Short runs on the ranks that are there: what the model of `scaling.py` must know of this machine and its network."""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from ddpgd.comm.cluster import Link
from ddpgd.comm.exchange import Exchange
from ddpgd.comm.transport import Alone, Transport
from ddpgd.comm.wires import FORMATS, WIRES, Kind
from ddpgd.config.schema import Config, global_batch
from ddpgd.data import synthetic
from ddpgd.data.batches import Batches
from ddpgd.data.mnist import Dataset
from ddpgd.kernels.ops import Ops
from ddpgd.kernels.philox import Purpose, uniforms
from ddpgd.params import Layout
from ddpgd.run import build, build_exchange, build_network
from ddpgd.scaling.cost_model import Coding, Costs, waits
from ddpgd.training.step import Step

SLOW_LR = 1e-6
WARM_UP_STEPS = 5
LEAST_STEPS = 15
NUM_BLOCKS = 5
"""Of a short run's steps."""
MOST_CALLS, LEAST_CALLS, TIMED = 25, 5, 1 << 24
"""Of an op that is timed: as many as handle so many elements together."""


@dataclass(frozen=True)
class Fit:
    """The measured constants. `costs` are those of `codings`' plain wire, and its coding costs of others, by name.

    `link`: between these ranks, which are on `num_nodes` machines and send over `transport`; None: there is but one rank.
    `num_params`: of the network that ran.
    """

    costs: Costs
    codings: dict[str, Coding]
    link: Link | None
    num_params: int
    world_size: int
    num_nodes: int = 1
    transport: str = "mpi-host"

    def table(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Run:
    """Step times of a short run, part by part, of the slowest rank, and that rank's work."""

    num_micro_batches: int
    num_rows: int
    compute_s: float
    exchange_s: float
    update_s: float
    jitter: float
    wire_bytes: float


def fit(ops: Ops, config: Config, transport: Transport, seconds: float, num_nodes: int = 1, apart: bool = False) -> Fit:
    """Two short runs of a resolved `config`, of micro-batches and of half ones, in about so many seconds; then single calls.

    All ranks call it, and get the same. `apart`: each rank makes these runs by itself, all at once, as clients are trained;
    a third one measures the link.
    """
    # Whole steps alone.
    data = synthetic.make(num_train=4 * global_batch(config), num_test=64)
    has_link, world_size = transport.world_size > 1, transport.world_size
    each_s = 0.8 * seconds / (3 if apart and has_link else 2)
    lone = replace(config, global_batch=global_batch(config) // world_size) if apart else config
    halved = replace(lone, micro_batch=max(1, lone.micro_batch // 2))
    with threadpool_limits(1, user_api="blas"):
        whole, half = (_run(ops, one, data, transport, each_s, apart) for one in (lone, halved))
        joint = _run(ops, config, data, transport, each_s) if apart and has_link else whole
        layout = build_network.layout(config, data.image_shape)
        costs = replace(_costs(whole, half), add_s=_add_s(ops, layout.size))
        codings = _codings(ops, layout.size)
        if WIRES[config.wire].kind is Kind.COMPRESSOR:
            codings[config.wire] = _compressing(ops, config, layout, build.batches(config, data))
        link = None if not has_link else _link(ops, transport, joint, costs, layout.size)
    own = Fit(costs, codings, link, layout.num_params, world_size, num_nodes, transport.name)
    return transport.all_gather_objects(own)[0]


def _run(ops: Ops, config: Config, data: Dataset, transport: Transport, seconds: float, apart: bool = False) -> _Run:
    """Steps of float32, ordered, with whole updates: the parts of each are timed, and the steps are the same on all ranks.

    They learn so slowly that no network diverges: a step whose gradient is not finite would update nothing. `apart`: each rank
    computes all of them, at the same time as the others.
    """
    plain = replace(config, wire="float32", reduce="ordered", error_feedback=False, sync="every-step", lr=SLOW_LR)
    plain = replace(plain, shard_optimizer="off")
    step = build.sync(ops, plain, data, build.grid(plain, Alone() if apart else transport), total_steps=10**9)
    assert isinstance(step, Step), "every step is synced"
    step.time_parts()
    found = [step.run(number, 1, False, False) for number in range(WARM_UP_STEPS)]
    slowest_s = max(transport.all_gather_objects(statistics.median(one.step_s for one in found)))
    num_steps = max(LEAST_STEPS, int(seconds / slowest_s))
    found = [step.run(WARM_UP_STEPS + number, 1, False, False) for number in range(num_steps)]
    own = len(step.exchange.micro_batches(step.batches.num_micro_batches(0)))
    everybody, counts = zip(*transport.all_gather_objects((found, own)), strict=True)
    computing = np.array([[one.compute_s for one in steps] for steps in everybody])
    slowest = int(_steady_s(computing).argmax())
    steps, num_micro_batches = everybody[slowest], counts[slowest]
    # A rank that computes faster waits in its exchange: the least of these is the exchange.
    exchanging = np.array([[one.exchange_s for one in theirs] for theirs in everybody]).min(axis=0)
    return _Run(
        num_micro_batches=num_micro_batches,
        num_rows=min(num_micro_batches * config.micro_batch, step.batches.global_batch),
        compute_s=float(_steady_s(computing[slowest])),
        exchange_s=float(_steady_s(exchanging)),
        update_s=float(_steady_s(np.array([one.step_s - one.compute_s - one.exchange_s for one in steps]))),
        jitter=_jitter(computing),
        wire_bytes=statistics.median(one.wire_bytes for one in steps),
    )


def _jitter(computing: np.ndarray) -> float:
    """From seconds (ranks, steps), what ranks wait for the slowest of each step; a lone rank's steps stand for two ranks'."""
    if len(computing) == 1:
        computing = computing[0, : computing.size // 2 * 2].reshape(2, -1)
    longest_s = _steady_s(computing).max()
    wait_s = max(0.0, _steady_s(computing.max(axis=0)) - longest_s)
    return float(wait_s / (longest_s * waits(len(computing))))


def _steady_s(times: np.ndarray) -> np.ndarray:
    """Returns the median of means of blocks, from seconds (..., steps): slow steps that most blocks have count, as for
    throughput, but a block in which something else disturbed the machine does not.
    """
    means = [block.mean(axis=-1) for block in np.array_split(times, NUM_BLOCKS, axis=-1)]
    return np.asarray(np.median(means, axis=0))


def _costs(whole: _Run, half: _Run) -> Costs:
    """From the same rows in micro-batches and in twice as many half ones."""
    more = half.num_micro_batches - whole.num_micro_batches
    micro_batch_s = max(0.0, (half.compute_s - whole.compute_s) / more) if more else 0.0
    # Noise may say that twice the micro-batches cost more than twice as much: then there is nothing but micro-batches.
    micro_batch_s = min(micro_batch_s, whole.compute_s / whole.num_micro_batches)
    rest_s = whole.compute_s - whole.num_micro_batches * micro_batch_s
    return Costs(micro_batch_s, max(0.0, rest_s) / whole.num_rows, whole.update_s, jitter=whole.jitter)


def _add_s(ops: Ops, size: int) -> float:
    """Measures the seconds of adding an element."""
    first, second = (ops.from_host(np.ones(size, np.float32)) for _ in range(2))
    return _median_s(ops, size, lambda: ops.add(first, second, first)) / size


def _codings(ops: Ops, size: int) -> dict[str, Coding]:
    """Measures the coding costs of lossy wires, on a vector of so many elements."""
    values = ops.from_host(np.linspace(-1, 1, size, dtype=np.float32))
    key = ops.from_host(np.array([0, Purpose.ENCODE, 0], np.uint64))
    found = {}
    for wire in FORMATS:
        coded = build_exchange.codec(wire, ops).coded(values, 0, None)
        encode_s = _median_s(ops, size, partial(coded.encode, key)) / size
        found[wire] = Coding(encode_s, _median_s(ops, size, coded.decode) / size)
    return found


def _compressing(ops: Ops, config: Config, layout: Layout, batches: Batches) -> Coding:
    """Measures the coding costs of topk or powersgd: all that a rank does alone."""
    every_step = replace(config, sync="every-step")
    exchange = build_exchange.of_gradients(ops, every_step, Alone(), layout, batches, 1, sharded=False)
    grads, tail = exchange.result
    draws = uniforms(0, Purpose.SYNTHETIC, 0, layout.size).astype(np.float32)

    def fill() -> None:
        ops.upload(draws, grads)

    compressor = exchange.compressor
    assert compressor is not None
    encode_s = _median_s(ops, layout.size, lambda: compressor.combine(0, grads, tail), fill)
    return Coding(encode_s / layout.size, 0.0)


def _link(ops: Ops, transport: Transport, whole: _Run, costs: Costs, size: int) -> Link:
    """Latency from sums of nothing but tails, in one round; the rate from the exchange of the run, in two."""
    nothing = Exchange(transport.duplicate(), ops, 0)

    def once() -> None:
        nothing.sum(transport.world_size, lambda _micro_batch, _grads, _tail: None)

    own_s = _median_s(ops, 0, once, transport.barrier)
    latency_s = max(transport.all_gather_objects(own_s))
    added_s = size / transport.world_size * (transport.world_size - 1) * costs.add_s
    transfer_s = max(whole.exchange_s - 2 * latency_s - added_s, 0.05 * whole.exchange_s)
    return Link(latency_s, whole.wire_bytes / transfer_s)


def _median_s(ops: Ops, size: int, work: Callable[[], object], before: Callable[[], object] = lambda: None) -> float:
    """Measures the seconds of a call on `size` elements, after `before`; the first of them warm up."""
    times = []
    num_calls = max(LEAST_CALLS, min(MOST_CALLS, TIMED // max(1, size)))
    for _ in range(num_calls):
        before()
        started = time.perf_counter()
        work()
        ops.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[num_calls // 5 :])
