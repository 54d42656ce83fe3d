"""`ddpgd plan`: predict runs on any number of ranks, from stated or measured costs; as a table, advice, JSON or a plot."""

from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ddpgd.comm.agreement import on_root
from ddpgd.comm.compressor import Window
from ddpgd.comm.compressors.power_sgd import num_narrow
from ddpgd.comm.transport import Transport
from ddpgd.comm.transports.capabilities import TRANSPORTS
from ddpgd.comm.wires import WIRES
from ddpgd.config.exchange import form
from ddpgd.config.option import ALL
from ddpgd.config.parsing import path
from ddpgd.config.schema import Config, flag, global_batch
from ddpgd.config.units import (
    parse_count,
)
from ddpgd.config.validation import validate
from ddpgd.errors import InputError
from ddpgd.run import build_network
from ddpgd.run.build_exchange import is_sharded
from ddpgd.run.device import Machine, agree
from ddpgd.scaling import federated_plan, layout_plan, plan_inputs, plan_overlap, plan_report
from ddpgd.scaling.advice import advise
from ddpgd.scaling.cost_model import Prediction, Work, predict
from ddpgd.scaling.federated_plan import RoundPlan
from ddpgd.scaling.fit import Fit
from ddpgd.scaling.layout_plan import LayoutCost
from ddpgd.scaling.plot_plan import draw_predictions

IMAGE_SHAPE = (28, 28)
"""Of MNIST."""

WORK_OPTIONS = ("hidden", "input_pool", "global_batch", "micro_batch", "accumulate", "optimizer", "wire", "topk_density",
                "powersgd_rank", "reduce", "exchange", "sync", "local_steps", "shard_optimizer", "shards",
                "pipeline_schedule", "backend", "precision", "share_gpu", "transport", "clients", "client_fraction",
                "local_epochs", "client_batch", "partition", "stragglers")  # fmt: skip
"""Options of `train` that `plan` has as well."""


def add_flags(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("plan")
    for name, (metavar, text) in plan_inputs.FLAGS.items():
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
        """`flags`: those of `plan_inputs.FLAGS`, as typed. `size`, `narrow`: elements of the gradient, and of powersgd's sums.

        `on_gpu`: True if each rank has a GPU; None: nothing is said.
        """
        if asked := [name for name in plan_inputs.DEVICE_FLAGS if name in flags]:
            raise InputError(f"--{asked[0].replace('_', '-')} is for --sync federated; type that as well, or drop it")
        self.transport = plan_overlap.transport_of(config, fitted, bool(on_gpu) and not config.share_gpu)
        overlap = plan_overlap.parse(
            flags.get("overlap"), config, None if "parameters" in flags else IMAGE_SHAPE, self.transport
        )
        self.fitted = fitted
        self.samples = samples
        self.ranks = plan_inputs.ranks(flags)
        self._config = config
        self._flags = flags
        self._costs = plan_inputs.costs(flags, fitted, config)
        self._cluster = plan_inputs.cluster(flags, fitted)
        self._asked = flags.get("overlap") == plan_overlap.AUTO
        self._work = Work(
            num_params=size,
            global_batch=0 if config.global_batch is None else global_batch(config),
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
        float16 = plan_inputs.STATED.coding if self.fitted is None else self.fitted.codings["float16"]
        return advise(
            self.work,
            self._costs,
            self._cluster,
            self.ranks,
            {"float16": replace(self._costs, coding=float16)},
            self.samples,
        )

    def lines(self) -> list[str]:
        """Returns the predictions as a table and advice, or as JSON."""
        flags = self._flags
        if flags.get("layouts"):
            return layout_plan.answer({world_size: self.layouts(world_size) for world_size in self.ranks}, flags)
        if flags.get("json"):
            return [plan_report.as_json(self.predictions, self.advice, self.fitted, self.samples)]
        return [*plan_report.table(self.predictions, self.samples, self.note), "", *self.advice]


def lines(given: Mapping[str, Any], flags: Mapping[str, Any], world: Transport, local_rank: int) -> list[str]:
    """Returns what `ddpgd plan` prints; all ranks call it. `given`: WORK_OPTIONS, coerced; `flags`: FLAGS, as typed."""
    config = Config(**given)
    samples = parse_count(flags.get("samples", "60000"), "samples", "60000")
    validate(config)
    kind = _KINDS[config.sync]
    timed = kind.timed(config, samples)
    if config.transport == "threads":
        raise InputError("--transport threads: plan measures the ranks that mpirun started; drop the flag")
    size, narrow = _sizes(config, given, flags)
    layout_plan.check(config, flags)
    is_measured = bool(flags.get("measure"))
    machine = agree(timed, False, world, local_rank) if is_measured else Machine(None, "")
    stated = {"cupy": True, "numpy": False, "auto": None}[config.backend]
    on_gpu = machine.device is not None if is_measured else stated

    def question(fitted: Fit | None) -> Plan | RoundPlan:
        return kind.plan(timed, flags, fitted, size, narrow, samples, on_gpu)

    link = plan_inputs.INSIDE if world.world_size > 1 else None
    unmeasured = Fit(plan_inputs.STATED, {}, link, size, world.world_size, machine.num_nodes)
    # What is wrong is told before anything is measured.
    question(unmeasured if is_measured else None)
    plan = question(plan_inputs.measured(timed, flags, world, machine, kind.apart) if is_measured else None)
    if "plot" in flags and "layouts" not in flags:
        on_root(world, lambda: draw_predictions(plan.predictions, Path(flags["plot"])))
    return plan.lines()


class _Kind(NamedTuple):
    """Questions on runs of a --sync: `timed(config, samples)` returns the configuration whose steps are measured.

    `apart`: of each rank by itself.
    """

    timed: Callable[[Config, int], Config]
    plan: type[Plan | RoundPlan]
    apart: bool


def _with_a_batch(config: Config, samples: int) -> Config:
    if config.global_batch == ALL:
        return replace(config, global_batch=samples)
    is_open = config.global_batch is None and config.accumulate is None
    return replace(config, accumulate=1) if is_open else config


_STEPS = _Kind(_with_a_batch, Plan, apart=False)
_KINDS = {"every-step": _STEPS, "local": _STEPS, "federated": _Kind(federated_plan.as_steps, RoundPlan, apart=True)}


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
    for name in ("hidden", "input_pool"):
        if name in given:
            raise InputError(f"{flag(name)} and --parameters both name a network; type one of them")
    if WIRES[config.wire].needs_shapes:
        raise InputError(f"--parameters does not say which matrices --wire {config.wire} would send; type another wire")
    return size, narrow
