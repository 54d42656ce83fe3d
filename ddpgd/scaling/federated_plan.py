"""`ddpgd plan --sync federated`: rounds of clients on any number of ranks, and on the clients' own devices by a deadline.

A round is a step whose samples are clients: the cost model takes its additions, messages and waits from there. How unequal
ranks are comes from the rounds themselves, whose clients are drawn as in a run.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpgd.comm import tree
from ddpgd.comm.codec import Float32
from ddpgd.comm.wires import WIRES
from ddpgd.config.schema import Config
from ddpgd.config.units import bytes_text, parse_duration, parse_rate, positive, time_text
from ddpgd.data.partition import divide
from ddpgd.errors import InputError
from ddpgd.run.build_federated import clients_per_round
from ddpgd.scaling import plan_inputs
from ddpgd.scaling.advice import percent
from ddpgd.scaling.cost_model import Costs, Prediction, Work, predict, waits
from ddpgd.scaling.fit import Fit
from ddpgd.training.federated.rounds import Rounds, Task

_NUM_ROUNDS = 50
_MOST_CLIENTS = 20_000
"""Rounds that are drawn to find means, and clients in them; a single round may have more."""
_COPIES = 8
"""Passes over the params that a client costs beside its steps: they begin, its change is taken, coded, and added."""
_NUM_CLASSES = 10
_ARRIVALS = (0.95, 0.8, 0.5)
"""Shares of clients whose deadlines are shown where none is given."""

_Seconds = NDArray[np.float64]


@dataclass(frozen=True)
class Deadline:
    """A round on clients' devices: `deadline_s`, infinite: there is none; its mean time; the share of clients that arrive."""

    deadline_s: float
    round_s: float
    arrive: float


class RoundPlan:
    """A question on rounds, and the model's predictions. Raises InputError if something is missing, or is no number."""

    def __init__(
        self,
        config: Config,
        flags: Mapping[str, Any],
        fitted: Fit | None,
        size: int,
        narrow: tuple[int, int],  # noqa: ARG002
        samples: int,
        on_gpu: bool | None,  # noqa: ARG002
    ) -> None:
        """See `Plan`. `config`: that of `as_steps`; `size`: elements of a change; `samples`: of all clients."""
        if "overlap" in flags:
            raise InputError("--overlap: a client trains its network alone; drop it, or --sync federated")
        self._flags = flags
        self._config = config
        self._fitted = fitted
        self._ranks = plan_inputs.ranks(flags)
        self._costs = plan_inputs.costs(flags, fitted, config)
        self._cluster = plan_inputs.cluster(flags, fitted)
        self._size = size
        self._down_and_up = 4 * size + (WIRES[config.wire].format or Float32()).num_bytes(size)
        self._rate = parse_rate(plan_inputs.text(flags, "device_link"), "device-link")
        self._slower, self._spread = (_number(flags, name) for name in ("device_slower", "device_spread"))
        self._deadline_s = parse_duration(flags["deadline"], "deadline") if "deadline" in flags else None
        labels = (np.arange(samples) % _NUM_CLASSES).astype(np.uint8)
        parts = divide(config.partition, labels, config.clients, config.seed)
        rounds = Rounds(config.seed, parts, clients_per_round(config), config.local_epochs, 0.0, config.stragglers)
        num_rounds = max(1, min(_NUM_ROUNDS, _MOST_CLIENTS // rounds.clients_per_round))
        tasks = [rounds.tasks(number) for number in range(num_rounds)]
        self._num_steps = float(np.mean([[self._steps(len(parts[one.client]), one) for one in own] for own in tasks]))
        self._clients_s = np.array([[self._client_s(len(parts[one.client]), one) for one in own] for own in tasks])

    @property
    def predictions(self) -> list[Prediction]:
        """Rounds on ranks; `global_batch` counts clients, `samples_per_s` clients a second."""
        return [self._predict(world_size) for world_size in self._ranks]

    @property
    def deadlines(self) -> list[Deadline]:
        """Rounds on the clients' own devices, without a deadline, and by the one that is given or by some that few miss."""
        devices_s = self._devices_s()
        known = [self._deadline_s] if self._deadline_s else np.quantile(devices_s, _ARRIVALS).tolist()
        return [_by(devices_s, deadline_s) for deadline_s in (math.inf, *known)]

    def lines(self) -> list[str]:
        """Returns two tables, or JSON."""
        predictions, deadlines = self.predictions, self.deadlines
        if self._flags.get("json"):
            rows = [one._asdict() | {"exchange_s": one.exchange_s} for one in predictions]
            slow = [vars(one) | {"deadline_s": _finite(one.deadline_s)} for one in deadlines]
            fitted = self._fitted.table() if self._fitted else None
            return [json.dumps({"predictions": rows, "devices": slow, "fit": fitted}, indent=2)]
        count = self._clients_s.shape[1]
        return [
            f"a round: {count} of {self._config.clients} clients ({self._config.partition}), a client's training "
            f"{time_text(float(self._clients_s.mean()))} here",
            f"{'ranks':>6} {'round':>10} {'compute':>10} {'wait':>10} {'exchange':>10} {'sent':>10} {'rounds/s':>10} "
            f"{'efficient':>9}",
            *map(_row, predictions),
            "",
            f"on clients' own devices: {self._slower:g} x as slow, times log-normal with sigma {self._spread:g}, "
            f"{bytes_text(self._down_and_up)} down and up at {plan_inputs.text(self._flags, 'device_link')}",
            f"{'deadline':>10} {'round':>10} {'arrive':>7} {'rounds/h':>10}",
            *(
                f"{'none' if one.deadline_s == math.inf else time_text(one.deadline_s):>10} {time_text(one.round_s):>10} "
                f"{percent(one.arrive):>7} {3600 / one.round_s:10,.0f}"
                for one in deadlines
            ),
            "(--deadline 60s, --device-link, --device-slower and --device-spread set others; a run: --drop SHARE)",
        ]

    def _steps(self, num_samples: int, task: Task) -> int:
        return task.num_passes * math.ceil(num_samples / _batch(self._config, num_samples))

    def _client_s(self, num_samples: int, task: Task) -> float:
        """Returns seconds of a client's training on a rank."""
        costs, batch = self._costs, _batch(self._config, num_samples)
        num_steps = self._steps(num_samples, task)
        num_micro_batches = num_steps * math.ceil(batch / self._config.micro_batch)
        rows_s = task.num_passes * num_samples * costs.sample_s
        return num_micro_batches * costs.micro_batch_s + rows_s + num_steps * costs.update_s + self._copies_s()

    def _copies_s(self) -> float:
        return _COPIES * self._size * self._costs.add_s

    def _predict(self, world_size: int) -> Prediction:
        count = self._clients_s.shape[1]
        own = [self._clients_s[:, range_.start : range_.stop].sum(axis=1) for range_ in tree.ranges(count, world_size)]
        mean_s, busiest_s = float(self._clients_s.mean()), float(np.max(own, axis=0).mean())
        most = math.ceil(count / world_size)
        jitter = self._costs.jitter / math.sqrt(self._num_steps * most)
        if world_size > 1:
            jitter += max(0.0, busiest_s / (most * mean_s) - 1) / waits(world_size)
        work = Work(self._size, count, 1, reduce=self._config.reduce, exchange="auto")
        return predict(work, Costs(0.0, mean_s, add_s=self._costs.add_s, jitter=jitter), self._cluster, world_size)

    def _devices_s(self) -> _Seconds:
        """Returns seconds of clients on their devices, float64 (rounds, clients), params and changes sent."""
        generator = np.random.Generator(np.random.Philox(self._config.seed))
        factors = np.exp(self._spread * generator.standard_normal(self._clients_s.shape))
        seconds: _Seconds = self._slower * factors * self._clients_s + self._down_and_up / self._rate
        return seconds


def _batch(config: Config, num_samples: int) -> int:
    """Returns the samples in a step of a client that has so many; at least 1."""
    return max(1, min(config.client_batch, num_samples) if isinstance(config.client_batch, int) else num_samples)


def as_steps(config: Config, samples: int) -> Config:
    """Returns a configuration whose steps are those of clients, to be timed: one batch of a client a rank."""
    batch = _batch(config, samples // config.clients)
    return replace(config, sync="every-step", micro_batch=min(batch, config.micro_batch), accumulate=1)


def _by(devices_s: _Seconds, deadline_s: float) -> Deadline:
    """Returns a round that ends with its last client, or by its deadline."""
    rounds_s = np.minimum(devices_s.max(axis=1), deadline_s)
    return Deadline(deadline_s, float(rounds_s.mean()), float((devices_s <= deadline_s).mean()))


def _row(one: Prediction) -> str:
    return (
        f"{one.world_size:6,} {time_text(one.step_s):>10} {time_text(one.compute_s):>10} {time_text(one.wait_s):>10} "
        f"{time_text(one.exchange_s):>10} {bytes_text(one.wire_bytes):>10} {1 / one.step_s:10,.2f} "
        f"{percent(one.efficiency):>9}"
    )


def _number(flags: Mapping[str, Any], name: str) -> float:
    number, example = positive(plan_inputs.text(flags, name)), plan_inputs.FLAGS[name][0]
    if number is None:
        raise InputError(
            f"--{name.replace('_', '-')}: {flags[name]!r} is not a number above 0; type for example {example}"
        )
    return number


def _finite(seconds: float) -> float | None:
    return seconds if seconds < math.inf else None
