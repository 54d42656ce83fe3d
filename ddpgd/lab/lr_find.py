"""`ddpgd lr-find`: the learning-rate range test: a short run whose rate grows, the loss of each step, and a rate to begin with.

Source: Smith, "Cyclical learning rates for training neural networks", 2017.
"""

import math
from argparse import ArgumentParser
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from ddpgd.comm.agreement import on_root
from ddpgd.comm.launcher import Launch
from ddpgd.comm.transport import Transport
from ddpgd.comm.transports import threads
from ddpgd.config.parsing import path
from ddpgd.config.schema import OPTIONS, Config, resolve
from ddpgd.config.units import plural
from ddpgd.config.validation import validate
from ddpgd.data.holdout import hold_out
from ddpgd.data.mnist import Dataset
from ddpgd.errors import InputError
from ddpgd.lab.config_file import read_known
from ddpgd.optim.schedules import SCHEDULES
from ddpgd.run import build, build_network
from ddpgd.run.atomic import write_text
from ddpgd.run.device import Machine, agree
from ddpgd.run.loading import load_data
from ddpgd.run.output_files import OutputFile, check_files
from ddpgd.run.plots import picture_file, pyplot, save_figure
from ddpgd.run.stderr import say

_GROUPS = ("data", "network", "batch", "augmentation", "machine")
WORK_OPTIONS = (
    *(name for name, option in OPTIONS.items() if option.metadata["group"] in _GROUPS),
    *("optimizer", "momentum", "weight_decay", "clip_norm", "clip_value", "max_norm"),
)
"""Options of `train` that `lr-find` has as well."""
_REPLACED = {
    "lr",
    "schedule",
    *(name for curve in SCHEDULES.values() for name in curve.options),
    "warmup",
    "non_finite",
}
_REFUSED = [
    name
    for name, option in OPTIONS.items()
    if option.metadata["fixed"] and name not in _REPLACED and name not in WORK_OPTIONS
]
"""Options that make another step, which the test has not: those that change the weights, but for what the test itself sets."""

_CSV_HEAD = "lr,smoothed_loss\n"

LOWEST, HIGHEST, NUM_STEPS = 1e-5, 10.0, 200
SMOOTHING = 0.9
"""Share that a smoothed loss keeps of the one before it."""
DIVERGED = 4.0
"""Multiple of the lowest smoothed loss at which the test ends."""
BELOW = 5.0
"""How far the suggestion is below the rate at which the loss has diverged."""
_FEWEST = 10
"""Steps below which a test says nothing."""


@dataclass(frozen=True)
class RangeTest:
    """The steps of a range test, equal on all ranks.

    Attributes:
        rates: The learning rate of each step.
        losses: Its mean training loss, smoothed.
        has_diverged: True if the loss diverged after them.
    """

    rates: list[float]
    losses: list[float]
    has_diverged: bool

    @property
    def suggestion(self) -> float | None:
        """The last rate divided by BELOW, with two digits: the highest one of a one-cycle schedule. None: no divergence."""
        return float(f"{self.rates[-1] / BELOW:.2g}") if self.has_diverged else None


def add_flags(parser: ArgumentParser) -> None:
    """Adds the flags that are not options of the configuration."""
    add = parser.add_argument
    add("--config", metavar="FILE.toml", type=path, help="options by name, as in a run's config.toml; flags win")
    add("--from", dest="lowest", metavar="LR", type=float, default=LOWEST, help=f"the first rate (default: {LOWEST:g})")
    add("--to", dest="highest", metavar="LR", type=float, default=HIGHEST, help=f"the last rate (default: {HIGHEST:g})")
    add("--steps", metavar="N", type=int, default=NUM_STEPS, help=f"steps (default: {NUM_STEPS})")
    add("--out", metavar="FILE", type=path, help="PNG or SVG: the loss over the rate")
    add("--csv", metavar="FILE", type=path, help="a line for each step: rate and smoothed loss")


def run(given: Mapping[str, Any], flags: Mapping[str, Any], world: Transport, launched: Launch) -> None:
    """Makes the test that the flags ask for, on all ranks; rank 0 prints what it found, and writes its files.

    Raises:
        InputError: An option, the data or a file is wrong. On all ranks.
    """
    lowest, highest, num_steps = flags["lowest"], flags["highest"], flags["steps"]
    if not 0 < lowest < highest < math.inf:
        raise InputError(f"--from {lowest:g} --to {highest:g}: type rates above 0 that grow, as in --from 1e-5 --to 10")
    if not 2 * _FEWEST <= num_steps <= 100_000:
        raise InputError(f"--steps {num_steps}: type {2 * _FEWEST} to 100000")
    config = Config(**on_root(world, lambda: _prepared(flags)) | dict(given))
    validate(config)
    machine = agree(config, False, world, launched.local_rank)
    transport = machine.transport(config, world)
    data = hold_out(load_data(config.data, world, launched, say), config.validation)
    num_replicas = build_network.grid_shape(config, config.ranks or transport.world_size).data
    config = resolve(config, num_replicas, len(data.train_labels))
    validate(config)
    test = partial(_test, _growing(config, lowest, highest), data, machine, num_steps)
    with threadpool_limits(1, user_api="blas"), np.errstate(all="ignore"):
        on_threads = config.transport == "threads"
        found = threads.run(config.ranks or 1, test)[0] if on_threads else test(transport)
    if len(found.rates) < _FEWEST:
        raise InputError(f"lr-find: the loss diverges after {plural(len(found.rates), 'step')}; type a smaller --from")
    on_root(world, lambda: _tell(found, config, flags))


def _prepared(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of --config. InputError: it is wrong, or a file of the flags cannot be written."""
    files = [OutputFile("--csv", Path(flags["csv"]), "the CSV of a range test", _CSV_HEAD)] if "csv" in flags else []
    check_files([*files, *([picture_file(Path(flags["out"]), "--out")] if "out" in flags else [])])
    return read_known(flags["config"], "lr-find", WORK_OPTIONS, _REFUSED) if "config" in flags else {}


def _growing(config: Config, lowest: float, highest: float) -> Config:
    """Returns the configuration with a rate that grows from `lowest` to `highest`, by the same factor at each step."""
    return replace(config, lr=lowest, schedule="exponential", end_factor=highest / lowest)


def _test(config: Config, data: Dataset, machine: Machine, num_steps: int, transport: Transport) -> RangeTest:
    """Trains step by step on a rank, until the loss has diverged."""
    ops = machine.ops(config)
    reachable, _ = machine.reaching(config, ops, transport)
    step = build.sync(ops, config, data, build.grid(config, reachable), num_steps - 1)
    rates: list[float] = []
    losses: list[float] = []
    mean, has_diverged = 0.0, False
    with closing(step.batches):
        for number in range(num_steps):
            result = step.run(number, 1, False, False)
            if not result.loss_sums and not result.halted:  # the loss scale was too large, and is now smaller
                continue
            loss = math.inf if result.halted else result.loss_sums[0] / result.samples
            if has_diverged := not math.isfinite(loss):
                break
            mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
            losses.append(mean / (1 - SMOOTHING ** (len(losses) + 1)))
            rates.append(result.lr)
            if has_diverged := losses[-1] > DIVERGED * min(losses):
                break
    return RangeTest(rates, losses, has_diverged)


def _lines(found: RangeTest, config: Config) -> list[str]:
    lowest = int(np.argmin(found.losses))
    lines = [
        f"{len(found.rates)} steps from lr {found.rates[0]:.2g}: the smoothed loss is lowest, {found.losses[lowest]:.3g}, at "
        f"{found.rates[lowest]:.2g}" + f", and has diverged at {found.rates[-1]:.2g}" * found.has_diverged
    ]
    if found.suggestion is None:
        return [
            *lines,
            "WARNING: the loss has not diverged, so no rate can be suggested; type a larger --to, or more --steps",
        ]
    return [*lines, f"type --optimizer {config.optimizer} --lr {found.suggestion:g} --schedule one-cycle"]


def _tell(found: RangeTest, config: Config, flags: Mapping[str, Any]) -> None:
    """Prints what was found, and writes the files that the flags ask for."""
    print("\n".join(_lines(found, config)), flush=True)
    if csv := flags.get("csv"):
        rows = [f"{rate!r},{loss!r}\n" for rate, loss in zip(found.rates, found.losses, strict=True)]
        write_text(Path(csv), "--csv", "".join([_CSV_HEAD, *rows]))
    if out := flags.get("out"):
        _draw(found, Path(out))


def _draw(found: RangeTest, out: Path) -> None:
    figure, axes = pyplot().subplots(figsize=(7, 4), layout="constrained")
    axes.plot(found.rates, found.losses, color="#0072b2", linewidth=1.5)
    if found.suggestion is not None:
        axes.axvline(found.suggestion, color="#d55e00", linestyle="--", linewidth=1)
        place = found.suggestion, 0.97
        axes.annotate(f" {place[0]:g}", place, xycoords=("data", "axes fraction"), color="#d55e00", va="top")
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss, smoothed")
    axes.set_ylim(0.9 * min(found.losses), 1.1 * max(found.losses[0], min(found.losses)))
    axes.grid(visible=True, alpha=0.3)
    save_figure(figure, out, "--out")
