"""Federated averaging: a server averages what clients changed, and no sample leaves its client.

McMahan, Moore, Ramage, Hampson, Agüera y Arcas, "Communication-efficient learning of deep networks from decentralized
data", 2017; with other update rules on the server: Reddi et al., "Adaptive federated optimization", 2021.
"""

import math
import time
from collections.abc import Callable
from contextlib import closing

import numpy as np

from ddpgd.comm.codec import Codec
from ddpgd.comm.exchange import Exchange
from ddpgd.data.batches import Batches
from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.ops import Ops
from ddpgd.kernels.philox import Purpose
from ddpgd.kernels.words import CONTROL_WORDS, Control, Tail
from ddpgd.optim.rules import Optimizer
from ddpgd.optim.schedules import Schedule
from ddpgd.training.counters import Record
from ddpgd.training.federated.clients import Trained
from ddpgd.training.federated.lanes import Lanes
from ddpgd.training.federated.privacy import Privacy
from ddpgd.training.federated.rounds import Rounds
from ddpgd.training.federated.sums import Sum
from ddpgd.training.step_result import StepResult


class Federated:
    """A `Sync` whose step is a round: clients train from the global params, and the server applies the mean change.

    Clients are the leaves of the canonical sum, so a round has the same bits on any number of ranks.
    """

    def __init__(
        self,
        ops: Ops,
        lanes: Lanes,
        batches: Batches,
        rounds: Rounds,
        exchange: Exchange,
        sum: Sum,
        codec: Codec,
        privacy: Privacy,
        client_figures: Callable[[Array, Array], Record],
        server: Optimizer,
        server_lr: float,
        schedule: Schedule,
        equal_weights: bool,
    ) -> None:
        """
        Args:
            ops: Where the rank computes.
            lanes: Local training of clients.
            batches: Of which samples are clients, and steps rounds.
            rounds: The clients of each round.
            exchange: Of clients' rows, over all ranks.
            sum: What a row holds, and what their sum means.
            codec: The form in which a client sends its change.
            privacy: The bound of a client's change, and the noise on their sum.
            client_figures: (params, rounded weights) -> figures over clients, at evaluations.
            server: The update rule that takes the mean change for a gradient.
            server_lr: Its learning rate.
            schedule: Round -> rates of clients.
            equal_weights: True: clients count alike; False: as many times as they have samples.
        """
        self._lanes = lanes
        self._clients = clients = lanes.first
        self.state = clients.state
        self.passes = clients.step.passes
        self.batches = batches
        self.exchange = exchange
        self._ops = ops
        self._rounds = rounds
        self._sum = sum
        self._codec = codec
        self._privacy = privacy
        self._client_figures = client_figures
        self._server = server
        self._server_lr = server_lr
        self._schedule = schedule
        self._equal_weights = equal_weights or privacy.is_on
        self._not_finite = ""
        self._change = ops.zeros(clients.anchor.shape, np.float32)
        self._coded = codec.coded(self._change, 0, None)
        self._key = ops.zeros((3,), np.uint64)
        self._square = ops.zeros((1,), np.float32)
        self._control = ops.zeros((CONTROL_WORDS,), np.float64)

    def non_finite(self, step: int) -> str:  # noqa: ARG002
        return self._not_finite

    def figures(self) -> Record:
        """Returns figures of clients, of the bytes that they and the server would have sent, and of privacy; see `Summary`."""
        size, num_rounds = self._change.size, self.state.counters.step
        per_client = 4 * size + self._codec.num_bytes(size)
        examples = filter(None, self.exchange.transport.all_gather_objects(self._sum.example))
        return {
            "client_bytes": num_rounds * self._rounds.clients_per_round * per_client,
            "epsilon": self._privacy.epsilon(num_rounds),
            "masked_change": max(examples, key=lambda one: one[0], default=(0, None))[1],
            **self._client_figures(self.state.params, self.state.weights),
        }

    def run(self, step: int, count: int, stop: bool, observe: bool) -> StepResult:  # noqa: ARG002
        """Runs round `step`, whatever `count` is; see `Step.run`."""
        bytes_before, between_before = self.exchange.bytes_sent, self.exchange.form.bytes_between
        started = time.perf_counter()
        self._train(step)
        updated = time.perf_counter()
        grads, tail = self.exchange.combine(self._rounds.clients_per_round, stop)
        words = [float(word) for word in self._ops.to_host(tail)]
        halted = words[Tail.NON_FINITE] > 0
        arrived = math.fsum(self._share(step, position) for position in range(self._rounds.clients_per_round))
        mean_norm = self._update(step, self._sum.total(grads), 0.0 if halted else arrived)
        ended = time.perf_counter()
        return StepResult(
            num_steps=1,
            samples=self._rounds.samples(step),
            loss_sums=[] if halted else [words[Tail.LOSS_SUM]],
            halted=halted,
            squared_norm_sum=0.0,
            stop=stop or words[Tail.STOP] > 0,
            lr=self._schedule(step).lr,
            loss_scale=None,
            grad_norm=mean_norm,
            step_s=ended - started,
            compute_s=updated - started,
            exchange_s=ended - updated,
            wire_bytes=self.exchange.bytes_sent - bytes_before,
            wire_loss=None,
            drift=None if self._privacy.noise else _drift(words[Tail.SQUARED_NORM_SUM], arrived, mean_norm),
            between_bytes=self.exchange.form.bytes_between - between_before,
        )

    def _train(self, number: int) -> None:
        """Trains this rank's clients of a round, and adds their weighted changes in canonical order."""
        self._clients.begin_round()
        self._not_finite = ""
        self.exchange.round = number
        groups, tasks = self.exchange.groups(self._rounds.clients_per_round), self._rounds.tasks(number)
        own = [group.micro_batches.start for group in groups]
        arriving = [position for position in own if tasks[position].arrives]
        with closing(self._lanes.train(number, arriving)) as trained:
            for group, position in zip(groups, own, strict=True):
                grads, tail = group.rows.grads[0], group.rows.tails[0]
                grads.fill(0)
                tail.fill(0)
                if tasks[position].arrives:
                    self._add(number, position, next(trained), grads, tail)
                self.exchange.fold(group)

    def _add(self, number: int, position: int, trained: Trained, grads: Array, tail: Array) -> None:
        self._not_finite = self._not_finite or trained.not_finite
        self._clients.change(trained.params, self._change)
        self._send(number, self._rounds.tasks(number)[position].client)
        square = self._squared_norm(self._change)
        share, factor = self._share(number, position), self._privacy.factor(math.sqrt(square))
        self._sum.put(number, position, self._change, share * factor, grads)
        tail[Tail.LOSS_SUM] = trained.loss_sum
        tail[Tail.NON_FINITE] = bool(trained.not_finite)
        tail[Tail.SQUARED_NORM_SUM] = share * factor**2 * square

    def _send(self, number: int, client: int) -> None:
        """Makes of a change what the server decodes."""
        key = np.array([self._rounds.seed, Purpose.CLIENT_ENCODE, self._rounds.key(number, client)], np.uint64)
        self._ops.upload(key, self._key)
        self._coded.encode(self._key)
        self._coded.decode()

    def _share(self, number: int, position: int) -> float:
        """Returns the weight of a client's change over those of all clients of a round; 0 where it does not arrive."""
        tasks = self._rounds.tasks(number)
        weights = [1 if self._equal_weights else len(self._rounds.parts[task.client]) for task in tasks]
        return tasks[position].arrives * weights[position] / sum(weights)

    def _update(self, number: int, grads: Array, arrived: float) -> float:
        """Applies the mean of the changes that `arrived`, a share of all weights, if there is one; returns its norm."""
        control = np.zeros(CONTROL_WORDS)
        control[Control.LR] = self._server_lr
        control[Control.SCALE] = self._privacy.scale(arrived)
        control[Control.APPLY] = control[Control.SCALE] > 0
        control[Control.UPDATE] = number + 1
        self._ops.upload(control, self._control)
        if self._privacy.noise:
            self._ops.upload(self._privacy.draw(number), self._change)
            self._ops.wire.accumulate(self._change, 1.0, None, 0.0, grads)
        self._server.update(self._clients.anchor, grads, self._control, self.state.weights)
        self._clients.restore()
        return math.sqrt(self._squared_norm(grads)) * float(control[Control.SCALE])

    def _squared_norm(self, vector: Array) -> float:
        self._ops.squared_norms(vector.reshape(1, -1), self._square)
        return float(self._ops.to_host(self._square)[0])


def _drift(square_sum: float, arrived: float, mean_norm: float) -> float | None:
    """Returns the distance of clients from their mean, root mean square, over the distance that the mean moved."""
    if not 0 < mean_norm < math.inf:
        return None
    return math.sqrt(max(0.0, square_sum / arrived / mean_norm**2 - 1))
