"""A run on one rank: its live objects, what it saves, what it tells."""

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpgd.comm.agreement import on_root
from ddpgd.comm.launcher import node
from ddpgd.comm.transport import Transport
from ddpgd.config.schema import Config
from ddpgd.data.mnist import Dataset
from ddpgd.params import Layout
from ddpgd.run import (
    build,
    build_network,
    build_passes,
    exchange_form,
    report,
    resharding,
)
from ddpgd.run.checkpoint import Checkpoint
from ddpgd.run.device import Machine
from ddpgd.run.diagnosis import Diagnoses
from ddpgd.run.diagnosis_memory import UNKNOWN
from ddpgd.run.disturbed import DisturbedGradients
from ddpgd.run.folder import RunFolder
from ddpgd.run.former_layout import VECTOR_FORMAT
from ddpgd.run.inject import Faults
from ddpgd.run.layer_figures import LayerFigures
from ddpgd.run.observers import Giver, Recorder
from ddpgd.run.progress import Quiet
from ddpgd.run.recording import recorded
from ddpgd.run.records import RecordFile
from ddpgd.run.snapshots import Snapshots
from ddpgd.run.summary import write_summary
from ddpgd.run.survival import Survival
from ddpgd.run.tensorboard import EventFile
from ddpgd.training.counters import Counters, Record
from ddpgd.training.evaluations import Evaluations
from ddpgd.training.intervals import Intervals
from ddpgd.training.protocols import Observer
from ddpgd.training.replicas import Replicas
from ddpgd.training.step import Step
from ddpgd.training.stopping import StopRequest
from ddpgd.training.trainer import Trainer


class Run:
    """One rank's live objects."""

    def __init__(
        self,
        config: Config,
        pace: Intervals,
        saved: Checkpoint | None,
        data: Dataset,
        folder: RunFolder,
        machine: Machine,
        stop: StopRequest,
        transport: Transport,
        faults: Faults,
        survival: Survival | None = None,
    ) -> None:
        self._config = config
        self._pace = pace
        self._data = data
        self._folder = folder
        self._machine = machine
        self._stop = stop
        self._transport = transport
        self._faults = faults
        self._saved = saved
        self._layout = build_network.layout(config, data.image_shape)
        self._ops = machine.ops(config)
        self._reachable, self._why_transport = machine.reaching(config, self._ops, transport)
        first = None if saved is None else self._initial_params(saved)
        counters = Counters(**saved.counters) if saved else Counters()
        self._form = exchange_form.choose(config, machine, self._ops, self._reachable, data)
        given = first, counters, self._form.levels, self._form.overlap.cuts
        self._grid = build.grid(config, self._reachable)
        self._apart = self._grid.shape.apart(transport.all_gather_objects(node()))
        self._step = build.sync(self._ops, config, data, self._grid, pace.total_steps, *given)
        self._state = self._step.state
        layers = build_network.layers(config, data.image_shape)
        self._diagnoses = Diagnoses(config, data, saved.facts.get("diagnosis", UNKNOWN) if saved else None)
        self._layer_figures = LayerFigures(self._ops, transport, layers, self._step)
        if saved:
            self._change = resharding.change(saved, config, self._grid.shape)
            resharding.restore(self._ops, transport, self._state, saved.arrays, self._change)
            saved.drop_arrays()
        kept = self._ops, transport, self._layout, self._state, config, folder, faults
        self._snapshots = Snapshots(*kept, self._facts)
        self._survival = survival
        if survival:
            survival.follow(self._snapshots.copy)
        faults.flip = self._flip
        if faults.concern_gradients() and isinstance(self._step, Step):
            self._step.add_tap(DisturbedGradients(self._ops, faults, self._network_layout))

    def execute(self, show: Callable[[int, int, int], Quiet]) -> Record:
        """Trains; on rank 0 shows it, writes its records and its summary."""
        num_epochs = -(-self._pace.total_steps // self._step.batches.steps_per_epoch)
        recording = recorded(
            self._folder.path, self._step, self._ops, self._transport, self._grid.shape, self._config.record
        )
        on_root(self._transport, lambda: self._folder.begin(self._config))
        self._folder.has_begun = True
        if self._transport.rank > 0:
            with recording:
                return self._run(Giver(self._whole_params))
        with ExitStack() as stack:
            stack.enter_context(recording)
            stack.enter_context(closing(self._snapshots))
            files = [stack.enter_context(closing(file)) for file in self._record_files()]
            shown = stack.enter_context(show(self._pace.total_steps, num_epochs, self._state.counters.step))
            for line in (*self._introduction(), *self._changes()):
                shown.say(line)
            summary = self._run(Recorder(files, shown, self._hashes, self._diagnoses))
            for line in report.conclusion(summary, str(self._folder.path)):
                shown.say(line)
        write_summary(self._folder.path, summary)
        return summary

    def _record_files(self) -> list[RecordFile | EventFile]:
        own = self._folder.path, self._state.counters.step
        return [RecordFile(*own), *([EventFile(*own)] if self._config.tensorboard else [])]

    def _changes(self) -> list[str]:
        """In what a run that goes on differs from the one before."""
        if self._saved is None or (self._survival and self._survival.lost):
            return []
        lines = resharding.describe(self._state, self._change)
        if self._saved.facts.get("backend") not in (None, self._ops.name):
            saved_by = self._saved.facts["backend"]
            lines.append(f"the checkpoint was computed by {saved_by}; {self._ops.name} has other last digits")
        return lines

    def _run(self, observer: Observer) -> Record:
        # Every step looks whether its gradient is finite, so NumPy need not warn, nor raise where the caller asked for that.
        with np.errstate(all="ignore"):
            return self._summary(self._trainer(observer).run())

    def _trainer(self, observer: Observer) -> Trainer:
        return Trainer(
            step=self._step,
            evaluations=self._evaluations(),
            transport=self._transport,
            pace=replace(self._pace, check_every=self._check_every),
            stop=self._stop,
            saves=self._snapshots,
            observer=observer,
            layer_figures=self._layer_figures,
            faults=self._faults,
            replicas=Replicas(self._ops, self._transport, self._state, self._network_layout, self._config.heal),
            keeper=self._survival if self._transport.world_size > 1 else None,
            skip_non_finite=self._config.non_finite == "skip",
            place=str(self._grid),
        )

    def _evaluations(self) -> Evaluations:
        data = self._data
        given = self._ops, self._config, self._grid, self._step, data.image_shape
        evaluation = partial(build_passes.evaluation, *given)
        has_validation, probe = len(data.validation_labels) > 0, self._layer_figures.probe
        return Evaluations(
            self._step,
            test=evaluation(data.test_images, data.test_labels, None if has_validation else probe),
            validate=evaluation(data.validation_images, data.validation_labels, probe) if has_validation else None,
            plateau=self._pace.plateau,
            lower_lr=lambda: self._state.lower_lr(self._ops),
        )

    @property
    def _check_every(self) -> int | None:
        """Steps between comparisons of what ranks hold in common; a device's vectors take longer to the host than a step."""
        if self._transport.world_size == 1:
            return None
        default = 1000 if self._ops.runs_ahead else 100
        return default if self._config.check_every is None else self._config.check_every

    @property
    def _network_layout(self) -> Layout:
        """The layout of this rank's params."""
        return self._step.passes.network.layout

    def _flip(self) -> str:
        """Flips a bit of this rank's params, on purpose; returns the tensor that it is in."""
        host = np.array(self._ops.to_host(self._state.params))
        tensor = self._network_layout.tensors[self._state.counters.step % len(self._network_layout.tensors)]
        host[tensor.start : tensor.start + tensor.size].view(np.uint32)[tensor.size // 2] ^= 1 << 12
        self._ops.upload(host, self._state.params)
        return tensor.name

    def _initial_params(self, saved: Checkpoint) -> NDArray[np.float32]:
        return resharding.params(self._transport, self._layout, saved.arrays)

    def _whole_params(self) -> NDArray[np.float32]:
        """The params of the whole network, on rank 0; every rank calls it."""
        return resharding.whole_params(self._ops, self._transport, self._state)

    def _facts(self) -> dict[str, Any]:
        return {
            "version": report.VERSION,
            "backend": self._ops.name,
            "image_shape": list(self._data.image_shape),
            "data_sha256": self._data.sha256,
            "class_names": list(self._data.class_names),
            "world_size": self._transport.world_size,
            "vector_format": VECTOR_FORMAT,
            "diagnosis": asdict(self._diagnoses.memory),
        }

    def _hashes(self) -> Record:
        params = self._whole_params()
        return {"params_hash": self._layout.sha256(params)[:16], "layer_hashes": self._layout.hashes(params)}

    def _introduction(self) -> list[str]:
        if self._survival and self._survival.lost:
            return []
        config = self._config
        why = f" (auto: {self._why_transport})" if self._why_transport else ""
        return report.introduction(
            config,
            shape=self._grid.shape,
            num_nodes=self._machine.num_nodes,
            transport=self._reachable.name + why,
            backend=f"{self._ops.name}{self._machine.choice}",
            sizes=build_network.sizes(config, self._data.image_shape),
            num_params=self._layout.num_params,
            form=self._form.text,
            num_pieces=self._step.exchange.num_pieces(self._step.batches.num_micro_batches(0)),
            data=self._data,
            folder=str(self._folder.path),
            work=build.work(config, self._grid.shape, len(self._data.train_labels)),
            pace=(self._state.counters.step, self._pace.total_steps),
            apart=self._apart,
        )

    def _summary(self, figures: Record) -> Record:
        config, params = self._config, self._whole_params()
        return report.summary(
            config,
            figures,
            world_size=self._transport.world_size,
            lost_ranks=self._survival.lost if self._survival else [],
            num_nodes=self._machine.num_nodes,
            transport=self._reachable.name,
            transport_choice=self._why_transport,
            exchange_choice=self._form.why,
            num_buckets=len(self._form.overlap.cuts) + 1,
            backend=self._ops.name,
            device=self._ops.device,
            wire=config.wire,
            global_batch=self._step.batches.global_batch,
            num_params=self._layout.num_params,
            params_sha256=on_root(self._transport, lambda: self._layout.sha256(params)),
            warnings=[
                *on_root(self._transport, lambda: list(self._diagnoses.memory.told.values())),
                *report.warnings(config, figures, self._state.counters.loss_mean, self._data.test_labels),
            ],
        )
