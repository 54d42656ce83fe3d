"""`ddpgd plan`: predict runs on any number of ranks, from stated or measured costs; as a table, advice, JSON or a plot."""

from argparse import ArgumentParser
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ddpgd.comm.agreement import on_root
from ddpgd.comm.cluster import Cluster, Link
from ddpgd.comm.compressor import Window
from ddpgd.comm.compressors.power_sgd import num_narrow
from ddpgd.comm.transport import Transport
from ddpgd.comm.transports.capabilities import TRANSPORTS
from ddpgd.comm.wires import WIRES
from ddpgd.config.parsing import path
from ddpgd.config.schema import Config, resolve
from ddpgd.config.units import (
    parse_count,
    parse_duration,
    parse_rate,
    positive,
)
from ddpgd.config.validation import form, validate
from ddpgd.errors import InputError
from ddpgd.run import build_network
from ddpgd.run.build_exchange import is_sharded
from ddpgd.run.device import Machine, agree
from ddpgd.scaling import layout_plan, plan_overlap, plan_report
from ddpgd.scaling.advice import advise
from ddpgd.scaling.cost_model import Coding, Costs, Prediction, Work, predict
from ddpgd.scaling.fit import Fit, fit
from ddpgd.scaling.layout_plan import LayoutCost
from ddpgd.scaling.plot_plan import draw_predictions

ACHIEVED = 0.8
"""Of a link's nominal rate, what large messages of several processes get."""

STATED = Costs(0.0, 0.0, add_s=2e-11, coding=Coding(2e-11, 2e-11), jitter=0.02)
"""What is not stated of a machine: elements of 12 bytes at 600 GB/s, and steps that differ by 2 %."""

INSIDE = Link(5e-6, 100e9)
"""Between the GPUs of a node, where nothing is said."""

IMAGE_SHAPE = (28, 28)
"""Of MNIST."""

FLAGS: dict[str, tuple[str, str]] = {
    "ranks": ("8,64,512", "numbers of ranks"),
    "ranks_per_node": ("8", "ranks that share a node, and its link"),
    "link": ("100Gbit", "nominal rate between nodes; measured with --measure on several ranks"),
    "latency": ("5us", "latency between nodes; measured with --measure on several ranks"),
    "inside": ("100GB", "rate between the ranks of a node"),
    "inside_latency": ("5us", "latency between the ranks of a node"),
    "parameters": ("NUMBER", "number of parameters of a network of your own, as in 25.6M"),
    "compute_time": ("TIME", "time of one micro-batch, forward and backward, on one rank, as in 120ms"),
    "overlap": (
        "auto|SHARE",
        "auto: the buckets that ddpgd train would take over --transport nccl; else a fraction of computing (PyTorch DDP: 0.66)",
    ),
    "samples": ("NUMBER", "samples in an epoch (default: 60000, as in MNIST)"),
    "seconds": ("SECONDS", "time that --measure may take (default: 4)"),
    "memory": ("80GB", "with --layouts: the memory of a rank, which rules out what does not fit"),
    "plot": ("FILE", "draw efficiency against ranks, as PNG or SVG"),
}

WORK_OPTIONS = ("hidden", "global_batch", "micro_batch", "accumulate", "optimizer", "wire", "topk_density", "powersgd_rank",
                "reduce", "exchange", "sync", "local_steps", "shard_optimizer", "shards", "pipeline_schedule", "backend",
                "precision", "share_gpu",
                "transport")  # fmt: skip
"""Options of `train` that `plan` has as well."""


def add_flags(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("plan")
    for name, (metavar, text) in FLAGS.items():
        kind = path if metavar == "FILE" else str
        group.add_argument(f"--{name.replace('_', '-')}", dest=name, metavar=metavar, type=kind, help=text)
    group.add_argument("--measure", action="store_true", default=None, help="time compute with short local runs")
    group.add_argument(
        "--layouts",
        action="store_true",
        default=None,
        help="every grid of data, pipeline and tensor parallel ranks, by speed",
    )
    group.add_argument("--json", action="store_true", default=None, help="print JSON, for programs")


class Plan:
    """A question and the model's predictions. Raises InputError if something is missing, or is no number."""

    def __init__(
        self,
        config: Config,
        flags: Mapping[str, Any],
        fitted: Fit | None,
        size: int,
        narrow: tuple[int, int],
        samples: int = 60_000,
        on_gpu: bool | None = None,
    ) -> None:
        """`flags`: those of FLAGS, as typed. `size`, `narrow`: elements of the gradient, and of what powersgd sums.

        `on_gpu`: True if each rank has a GPU; None: nothing is said.
        """
        self.transport = plan_overlap.transport_of(config, fitted, bool(on_gpu) and not config.share_gpu)
        overlap = plan_overlap.parse(
            flags.get("overlap"), config, None if "parameters" in flags else IMAGE_SHAPE, self.transport
        )
        self.fitted = fitted
        self.samples = samples
        self.ranks = sorted({parse_count(part, "ranks") for part in flags.get("ranks", FLAGS["ranks"][0]).split(",")})
        self._config = config
        self._costs = _costs(flags, fitted, config)
        self._cluster = _cluster(flags, fitted)
        self._asked = flags.get("overlap") == plan_overlap.AUTO
        self._work = Work(
            num_params=size,
            global_batch=config.global_batch or 0,
            micro_batch=config.micro_batch,
            wire=config.wire,
            reduce=config.reduce,
            local_steps=config.local_steps if config.sync == "local" else 1,
            density=config.topk_density,
            narrow=narrow,
            overlap=overlap.share,
            layers=overlap.layers,
            exchange=form(config),
            sharded=is_sharded(config, size, max(self.ranks), on_gpu is False),
        )

    def work(self, world_size: int) -> Work:
        """A fixed global batch (strong scaling), or as many micro-batches a rank (weak)."""
        if self._config.global_batch:
            return self._work
        own = (self._config.accumulate or 1) * self._config.micro_batch
        return replace(self._work, global_batch=own * world_size)

    @property
    def predictions(self) -> list[Prediction]:
        return [predict(self.work(size), self._costs, self._cluster, size) for size in self.ranks]

    @property
    def note(self) -> str:
        """A clause on buckets, for the table; empty: there is nothing to say."""
        return plan_overlap.note(
            self._asked, self._config, self._work.num_params, self._work.layers, self.transport, self.predictions
        )

    def layouts(self, world_size: int) -> list[LayoutCost]:
        """Every layout of so many ranks, the fastest first."""
        config = replace(self._config, global_batch=self.work(world_size).global_batch, accumulate=None)
        if TRANSPORTS[self.transport].wants_gpu and config.shard_optimizer == "auto":
            config = replace(config, shard_optimizer="off")
        buckets = self._work.layers
        return layout_plan.layouts(config, IMAGE_SHAPE, self._costs, self._cluster, world_size, buckets)

    @property
    def advice(self) -> list[str]:
        """A sentence for each number of ranks; global batches that it suggests are not larger than an epoch."""
        float16 = STATED.coding if self.fitted is None else self.fitted.codings["float16"]
        return advise(
            self.work,
            self._costs,
            self._cluster,
            self.ranks,
            {"float16": replace(self._costs, coding=float16)},
            self.samples,
        )


def _costs(flags: Mapping[str, Any], fitted: Fit | None, config: Config) -> Costs:
    if "compute_time" in flags:
        return replace(STATED, sample_s=parse_duration(flags["compute_time"], "compute-time") / config.micro_batch)
    if fitted is None:
        raise InputError(
            "plan: the time of computing is missing; type --measure, or --parameters 25.6M --compute-time 120ms"
        )
    return replace(fitted.costs, coding=fitted.codings.get(config.wire, Coding()))


def _cluster(flags: Mapping[str, Any], fitted: Fit | None) -> Cluster:
    """Links as stated; what is not stated, as measured: inside a machine, or between those that have ranks.

    Measured inside one, and nothing said of others: all ranks are taken to be in it.
    """
    measured = fitted.link if fitted else None
    is_inside = fitted is not None and fitted.num_nodes == 1
    if "link" in flags:
        latency_s = parse_duration(flags.get("latency", FLAGS["latency"][0]), "latency")
        between = Link(latency_s, ACHIEVED * parse_rate(flags["link"], "link"))
    elif measured and not (is_inside and "ranks_per_node" in flags):
        between = measured
    elif measured:
        raise InputError(
            "plan: the rate between machines is missing; type --link 100Gbit (the measured link is inside one machine)"
        )
    else:
        raise InputError(
            "plan: the rate of the link is missing; type --link 100Gbit, or start --measure under mpirun -n 2"
        )
    inside = measured if measured and is_inside else INSIDE
    if "inside" in flags:
        inside = Link(inside.latency_s, parse_rate(flags["inside"], "inside"))
    if "inside_latency" in flags:
        inside = Link(parse_duration(flags["inside_latency"], "inside-latency"), inside.bytes_per_s)
    return Cluster(parse_count(flags.get("ranks_per_node", "1"), "ranks-per-node"), inside, between)


def lines(given: Mapping[str, Any], flags: Mapping[str, Any], world: Transport, local_rank: int) -> list[str]:
    """Returns what `ddpgd plan` prints; all ranks call it. `given`: WORK_OPTIONS, coerced; `flags`: FLAGS, as typed."""
    config = Config(**given)
    if config.sync == "federated":
        raise InputError("--sync federated: plan knows steps of ranks, not rounds of clients; type --sync local")
    if config.global_batch is None and config.accumulate is None:
        config = replace(config, accumulate=1)
    validate(config)
    if config.transport == "threads":
        raise InputError("--transport threads: plan measures the ranks that mpirun started; drop the flag")
    size, narrow = _sizes(config, given, flags)
    layout_plan.check(config, flags)
    samples = parse_count(flags.get("samples", "60000"), "samples", "60000")
    is_measured = bool(flags.get("measure"))
    machine = agree(config, False, world, local_rank) if is_measured else Machine(None, "")
    link = INSIDE if world.world_size > 1 else None
    unmeasured = Fit(STATED, {}, link, size, world.world_size, machine.num_nodes)
    # What is wrong is told before anything is measured.
    Plan(config, flags, unmeasured if is_measured else None, size, narrow, samples)
    fitted = _fit(config, flags, world, machine) if is_measured else None
    stated = {"cupy": True, "numpy": False, "auto": None}[config.backend]
    plan = Plan(config, flags, fitted, size, narrow, samples, machine.device is not None if is_measured else stated)
    if flags.get("layouts"):
        return layout_plan.answer({world_size: plan.layouts(world_size) for world_size in plan.ranks}, flags)
    if "plot" in flags:
        on_root(world, lambda: draw_predictions(plan.predictions, Path(flags["plot"])))
    if flags.get("json"):
        return [plan_report.as_json(plan.predictions, plan.advice, plan.fitted, samples)]
    return [*plan_report.table(plan.predictions, samples, plan.note), "", *plan.advice]


def _sizes(config: Config, given: Mapping[str, Any], flags: Mapping[str, Any]) -> tuple[int, tuple[int, int]]:
    """Returns the elements of the gradient, and of what powersgd would sum of it."""
    layout = build_network.layout(config, IMAGE_SHAPE)
    narrow = num_narrow([Window(tensor.start, tensor.shape) for tensor in layout.tensors], config.powersgd_rank)
    if "parameters" not in flags:
        return layout.size, narrow
    size = parse_count(flags["parameters"], "parameters", "25.6M")
    if "compute_time" not in flags:
        raise InputError(
            "--parameters: the time of that network's computing is missing; type --compute-time 120ms with it"
        )
    if "hidden" in given:
        raise InputError("--hidden and --parameters both name a network; type one of them")
    if WIRES[config.wire].needs_shapes:
        raise InputError(f"--parameters does not say which matrices --wire {config.wire} would send; type another wire")
    return size, narrow


def _fit(config: Config, flags: Mapping[str, Any], world: Transport, machine: Machine) -> Fit:
    seconds = positive(flags.get("seconds", "4"))
    if seconds is None:
        raise InputError(f"--seconds: {flags['seconds']!r} is not a number above 0; type for example 4")
    backend = machine.ops(config)
    reachable = machine.reaching(config, backend, machine.transport(config, world)).transport
    return fit(backend, resolve(config, reachable.world_size), reachable, seconds, machine.num_nodes)
