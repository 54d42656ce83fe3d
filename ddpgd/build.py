"""From a configuration to live objects: the only room that plugs things together."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ddpgd import account, checkpoint, optim, schedule
from ddpgd.checkpoint import Checkpoint
from ddpgd.comm import threads
from ddpgd.comm.agreement import from_root
from ddpgd.comm.exchange import Exchange
from ddpgd.comm.transport import Transport
from ddpgd.config import Config, from_table, resolve, to_table
from ddpgd.data.batches import Batches, Samples
from ddpgd.data.mnist import Dataset
from ddpgd.errors import InputError
from ddpgd.evaluate import EVALUATE_ROWS, Evaluate
from ddpgd.kernels.ops import Array, Ops
from ddpgd.kernels.reference import Reference
from ddpgd.metrics import Counters, Record, RecordFile, write_summary
from ddpgd.model import MultilayerPerceptron
from ddpgd.params import initialise
from ddpgd.philox import permutation
from ddpgd.run_folder import RunFolder
from ddpgd.show import Quiet
from ddpgd.step import Step
from ddpgd.stopping import StopRequest
from ddpgd.train import Observer, Pace, Trainer

NUM_CLASSES = 10


def train(
    config: Config,
    resumed: tuple[Path, Checkpoint] | None,
    data: Dataset,
    world: Transport,
    show: Callable[[int, int, int], Quiet],
) -> Record:
    """Trains on every rank of `world` (or on --ranks threads); returns the summary, which rank 0 has written.

    `show(total_steps, num_epochs, steps_done)` makes what rank 0 shows. Raises what `errors` lists, on all ranks alike.
    """
    transport = _transport(config, world)
    world_size = config.ranks or transport.world_size
    config = resolve(config, world_size)
    if resumed:
        _check_same_data(*resumed, data)
    pace = _pace(config, data)
    folder = from_root(world, lambda: RunFolder.open(config, resumed and resumed[0]))
    stop = StopRequest(config.max_time)
    rank_of = partial(
        _Rank, replace(config, run_dir=str(folder.path)), pace, resumed and resumed[1], data, folder, stop
    )
    with threadpool_limits(1, user_api="blas"), stop.listening():
        if config.transport == "threads":
            return threads.run(world_size, lambda own: rank_of(own).train(show))[0]
        return rank_of(transport).train(show)


def evaluate(saved: Checkpoint, data: Dataset, world: Transport) -> tuple[float, float]:
    """Test loss mean and test accuracy of a checkpoint, over all ranks of `world`."""
    config = from_table(saved.config)
    if list(data.image_shape) != saved.facts["image_shape"]:
        wanted = "x".join(map(str, saved.facts["image_shape"]))
        raise InputError(
            f"{data.source}: images are not {wanted}, as those of this checkpoint; name other data by --data"
        )
    with threadpool_limits(1, user_api="blas"):
        ops = _ops(config)
        model = _model(ops, config, saved.facts["image_shape"])
        params = ops.from_host(_restored_params(model, saved))
        samples = Samples(ops.from_host(data.test_images), ops.from_host(data.test_labels))
        return Evaluate(ops, model, samples, world)(params)


def probabilities(saved: Checkpoint, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Class probabilities, float64 (num_images, C), that a checkpoint's network gives to uint8 (num_images, K) images."""
    config = from_table(saved.config)
    ops = _ops(config)
    model = _model(ops, config, saved.facts["image_shape"])
    params = ops.from_host(_restored_params(model, saved))
    no_labels = np.zeros(len(images), np.uint8)
    num_rows = model.load(images, no_labels, np.arange(len(images)))
    logits = ops.to_host(model.forward(params, num_rows)).astype(np.float64)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


class _Rank:
    """One rank's live objects."""

    def __init__(
        self,
        config: Config,
        pace: Pace,
        saved: Checkpoint | None,
        data: Dataset,
        folder: RunFolder,
        stop: StopRequest,
        transport: Transport,
    ) -> None:
        self._config = config
        self._pace = pace
        self._data = data
        self._folder = folder
        self._stop = stop
        self._transport = transport
        self._counters = Counters(**saved.counters) if saved else Counters()
        self._ops = _ops(config)
        self._model = _model(self._ops, config, data.image_shape)
        self._params = self._ops.from_host(self._first_params(saved))
        size = self._model.layout.size
        self._optimizer = optim.make(config.optimizer, self._ops, size, config.weight_decay, config.momentum)
        if saved:
            for name in self._optimizer.state:
                self._optimizer.state[name][...] = self._ops.from_host(saved.arrays[f"optimizer.{name}"])
        self._exchange = Exchange(transport, self._ops, size, reduce=config.reduce)
        self._batches = _batches(config, data)

    def train(self, show: Callable[[int, int, int], Quiet]) -> Record:
        """Trains; on rank 0 shows it, writes its records and its summary."""
        num_epochs = -(-self._pace.total_steps // self._batches.steps_per_epoch)
        if self._transport.rank > 0:
            return self._run(Quiet())
        records = RecordFile(self._folder.path, self._counters.step)
        with show(self._pace.total_steps, num_epochs, self._counters.step) as shown, closing(records):
            for line in self._introduction():
                shown.say(line)
            summary = self._run(_Recorder(records, shown, self._hashes))
            for line in account.conclusion(summary, str(self._folder.path)):
                shown.say(line)
        write_summary(self._folder.path, summary)
        return summary

    def _run(self, observer: Observer) -> Record:
        # Every step looks whether its gradient is finite, so NumPy need not warn of what it overflowed in.
        with np.errstate(over="ignore", invalid="ignore"):
            return self._summary(self._trainer(observer).run())

    def _trainer(self, observer: Observer) -> Trainer:
        config, ops, data = self._config, self._ops, self._data
        training = Samples(ops.from_host(data.train_images), ops.from_host(data.train_labels))
        testing = Samples(ops.from_host(data.test_images), ops.from_host(data.test_labels))
        peak_lr = config.lr * schedule.scale(config.scale_lr, _global_batch(config))
        step = Step(
            ops=ops,
            model=self._model,
            samples=training,
            batches=self._batches,
            exchange=self._exchange,
            optimizer=self._optimizer,
            schedule=schedule.make(config.schedule, peak_lr, self._pace.total_steps, config.warmup),
            params=self._params,
            clip_norm=config.clip_norm,
        )
        return Trainer(
            step=step,
            evaluate=Evaluate(ops, self._model, testing, self._transport),
            batches=self._batches,
            transport=self._transport,
            pace=self._pace,
            counters=self._counters,
            stop=self._stop,
            save=self._save,
            observer=observer,
            skip_non_finite=config.non_finite == "skip",
        )

    def _first_params(self, saved: Checkpoint | None) -> Array:
        if saved:
            return _restored_params(self._model, saved)
        return initialise(self._model.layout, self._config.init, self._config.seed)

    def _save(self, counters: Counters) -> None:
        host = self._ops.to_host(self._params)
        arrays = {f"params.{tensor.name}": tensor.view(host) for tensor in self._model.layout.tensors}
        arrays |= {f"optimizer.{name}": self._ops.to_host(array) for name, array in self._optimizer.state.items()}
        facts = {
            "version": account.VERSION,
            "image_shape": list(self._data.image_shape),
            "data_sha256": self._data.sha256,
            "world_size": self._transport.world_size,
            "params_sha256": self._model.layout.sha256(host),
        }
        checkpoint.save(self._folder.checkpoints, Checkpoint(arrays, asdict(counters), to_table(self._config), facts))

    def _hashes(self) -> Record:
        host = self._ops.to_host(self._params)
        return {"params_hash": self._model.layout.sha256(host)[:16], "layer_hashes": self._model.layout.hashes(host)}

    def _introduction(self) -> list[str]:
        config = self._config
        return account.introduction(
            config,
            world_size=self._transport.world_size,
            transport=self._transport.name,
            backend=self._ops.name,
            sizes=_sizes(config, self._data.image_shape),
            num_params=self._model.layout.num_params,
            num_pieces=self._exchange.num_pieces(self._batches.num_micro_batches(0)),
            data=self._data,
            folder=str(self._folder.path),
            pace=(self._counters.step, self._pace.total_steps),
        )

    def _summary(self, figures: Record) -> Record:
        config = self._config
        return account.summary(
            config,
            figures,
            world_size=self._transport.world_size,
            transport=self._transport.name,
            backend=self._ops.name,
            wire=self._exchange.codec.name,
            num_params=self._model.layout.num_params,
            params_sha256=self._model.layout.sha256(self._ops.to_host(self._params)),
        )


class _Recorder:
    """Rank 0's observer: what is recorded gets the params' hashes, goes to the file, and is shown."""

    def __init__(self, records: RecordFile, shown: Quiet, hashes: Callable[[], Record]) -> None:
        self.step = shown.step
        self.say = shown.say
        self._records = records
        self._shown = shown
        self._hashes = hashes

    def record(self, record: Record) -> None:
        self._records.record(record | self._hashes())
        self._shown.record(record)


def _transport(config: Config, world: Transport) -> Transport:
    """The transport that --transport names, or the launcher's. InputError: they contradict each other."""
    if config.transport in ("auto", world.name):
        return world
    if world.world_size > 1:
        raise InputError(
            f"--transport {config.transport}: mpirun started {world.world_size} ranks, which need mpi-host; "
            "drop the flag, or start without mpirun"
        )
    if config.transport == "mpi-host":
        from ddpgd.comm.mpi_host import world as mpi_world

        return mpi_world()
    return world


def _ops(_config: Config) -> Ops:
    return Reference()


def _sizes(config: Config, image_shape: tuple[int, int]) -> tuple[int, ...]:
    rows, cols = image_shape
    return (rows * cols, *config.hidden, NUM_CLASSES)


def _model(ops: Ops, config: Config, image_shape: tuple[int, int]) -> MultilayerPerceptron:
    max_rows = max(config.micro_batch, EVALUATE_ROWS)
    return MultilayerPerceptron(ops, _sizes(config, image_shape), config.activation, config.loss, max_rows)


def _restored_params(model: MultilayerPerceptron, saved: Checkpoint) -> Array:
    params = np.zeros(model.layout.size, np.float32)
    for tensor in model.layout.tensors:
        tensor.view(params)[...] = saved.arrays[f"params.{tensor.name}"]
    return params


def _batches(config: Config, data: Dataset) -> Batches:
    num_samples = len(data.train_labels)
    order = partial(_order, config.seed, num_samples)
    return Batches(num_samples, _global_batch(config), config.micro_batch, order)


def _order(seed: int, num_samples: int, epoch: int) -> NDArray[np.int64]:
    return permutation(seed, epoch, num_samples)


def _pace(config: Config, data: Dataset) -> Pace:
    steps_per_epoch = _batches(config, data).steps_per_epoch
    total_steps = config.steps or (config.epochs or 1) * steps_per_epoch
    if config.warmup >= total_steps:
        raise InputError(
            f"--warmup {config.warmup}: the run has {total_steps} steps; type --warmup {total_steps - 1} or less"
        )
    return Pace(
        total_steps=total_steps,
        log_every=config.log_every,
        evaluate_every=config.evaluate_every or steps_per_epoch,
        checkpoint_every=config.checkpoint_every,
        until_accuracy=config.until_accuracy,
    )


def _check_same_data(path: Path, saved: Checkpoint, data: Dataset) -> None:
    if saved.facts["data_sha256"] != data.sha256:
        raise InputError(f"{data.source}: not the data that {path} was trained on; name those with --data")


def _global_batch(config: Config) -> int:
    assert config.global_batch is not None, "resolve() was not called"
    return config.global_batch
