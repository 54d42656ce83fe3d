"""The ranks that make a run: each watched, and with the faults that it is to have."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from threadpoolctl import threadpool_limits

from ddpgd.comm.agreement import on_root
from ddpgd.comm.counted import Counted
from ddpgd.comm.transport import Transport
from ddpgd.comm.transports import threads
from ddpgd.config.continuation import check_same_batch
from ddpgd.config.schema import Config, from_table, resolve
from ddpgd.config.validation import validate
from ddpgd.data.mnist import Dataset
from ddpgd.run import build, build_network, ending, inject
from ddpgd.run.checkpoint import Checkpoint
from ddpgd.run.device import Machine
from ddpgd.run.disturbed import Disturbed
from ddpgd.run.folder import RunFolder
from ddpgd.run.inference import check_same_data
from ddpgd.run.inject import Faults
from ddpgd.run.progress import Quiet
from ddpgd.run.run import Run
from ddpgd.run.stderr import say
from ddpgd.run.survival import Survival
from ddpgd.training.counters import Counters, Record
from ddpgd.training.stopping import StopRequest
from ddpgd.watch.watchdog import watching


def run_on_ranks(
    config: Config,
    resumed: tuple[Path, Checkpoint] | None,
    data: Dataset,
    world: Transport,
    machine: Machine,
    stop: StopRequest,
    show: Callable[[int, int, int], Quiet],
    survival: Survival | None = None,
    survived: Checkpoint | None = None,
) -> Record:
    """Trains on every rank of `world` (or on --ranks threads); returns the summary, which rank 0 writes as well.

    `show(total_steps, num_epochs, steps_done)` makes what rank 0 shows. `survived`: what the ranks that are left
    of a run go on from, and `survival` what this one knows of it. Raises what `errors` lists, on all ranks alike.
    """
    transport = machine.transport(config, world)
    world_size = config.ranks or transport.world_size
    validate(config)
    config = resolve(config, build_network.grid_shape(config, world_size).data, len(data.train_labels))
    validate(config)
    num_ranks, num_processes = (world_size, world.world_size) if survived is None else (None, 2)
    all_faults = inject.parse(config.inject, num_ranks, config.sync == "every-step", num_processes)
    saved = survived or (resumed and resumed[1])
    counters = Counters(**saved.counters) if saved else Counters()
    if resumed:
        check_same_data(*resumed, data)
        check_same_batch(from_table(resumed[1].config), config)
    pace = build.pace(config, data, counters.step)
    inject.check_reached(all_faults, build.last_start(config, pace.total_steps))
    with ExitStack() as held, threadpool_limits(1, user_api="blas"):
        open_folder = RunFolder.open if survived is None else RunFolder.take_over
        folder = on_root(world, lambda: open_folder(config, resumed, held, say))
        config = replace(config, run_dir=str(folder.path))
        run_dir = {"run_dir": str(folder.path.absolute())}
        if survived is None:
            stop.limit(config.max_time)
        note = partial(ending.note, folder.path)
        rank_of = partial(Run, config, pace, saved, data, folder, machine, stop)

        def work(own: Transport) -> Record:
            faults = Faults(all_faults, own.rank)
            if survival:
                faults = survival.faults = survival.faults or faults
            count = Disturbed.of(faults) if all_faults else Counted
            with watching(own, stop, config.hang_timeout, folder.path, count, note) as watched:
                return rank_of(watched, faults, survival).execute(show)

        held.enter_context(folder.noting_the_end(world, survival.survives if survival else ()))
        if config.transport == "threads":
            return threads.run(world_size, work)[0] | run_dir
        return work(transport) | run_dir
