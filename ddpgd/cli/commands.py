"""The commands, called with their flags parsed.

What one command alone needs is imported in it: each rank of a run would wait for it.
"""

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from ddpgd.comm.agreement import on_root
from ddpgd.comm.launcher import Launch
from ddpgd.comm.transport import Transport
from ddpgd.config.schema import Config, flag
from ddpgd.config.toml_file import read_toml
from ddpgd.config.validation import check_ranges, validate
from ddpgd.data.mnist import Dataset
from ddpgd.errors import DdpgdError, InputError
from ddpgd.run import setup, starting
from ddpgd.run.loading import load_data
from ddpgd.run.stderr import say
from ddpgd.training.stopping import StopRequest

Command = Callable[[dict[str, Any], Transport, Launch, StopRequest], None]
"""(parsed, world, launched, stop): every rank calls it."""


def _train(parsed: dict[str, Any], world: Transport, launched: Launch, stop: StopRequest) -> None:
    starting.start_run(parsed["given"], world, launched, stop)


def _evaluate(parsed: dict[str, Any], world: Transport, launched: Launch, _stop: StopRequest) -> None:
    found = setup.evaluate_checkpoint(Path(parsed["checkpoint"]), parsed.get("data"), world, launched)
    if world.rank == 0:
        print(json.dumps(found))


def _data(parsed: dict[str, Any], world: Transport, launched: Launch, _stop: StopRequest) -> None:
    on_root(world, lambda: _check_shown(parsed))
    data = load_data(parsed.get("data"), world, launched, say)
    if world.rank == 0:
        rows, cols = data.image_shape
        print(f"{data.source}: {len(data.train_labels):,} training and {len(data.test_labels):,} test samples,")
        print(f"{rows}x{cols} pixels, whole and consistent; SHA-256 of all {data.sha256}")
    if "augment" in parsed["given"]:
        on_root(world, lambda: _show_augmentation(parsed, data))
    elif "partition" in parsed["given"]:
        on_root(world, lambda: _show_partition(parsed, data))


def _check_shown(parsed: dict[str, Any]) -> None:
    """Checks what `ddpgd data` is to show, before the data are loaded. InputError: it cannot be shown."""
    given = parsed["given"]
    if "partition" in given and "augment" in given:
        raise InputError("--partition and --augment are shown one at a time; type one of them")
    if "clients" in given and "partition" not in given:
        raise InputError("--clients is for --partition; type for example --partition shards:2, or drop it")
    if "input_pool" in given and "augment" not in given:
        raise InputError("--input-pool is for --augment; type for example --augment affine, or drop it")
    unused = [name for name in ("seed", "out") if name in parsed | given]
    if unused and not {"partition", "augment"} & given.keys():
        raise InputError(
            f"{flag(unused[0])} is for --partition or --augment; type for example --partition shards:2, or drop it"
        )
    if "augment" in given and "out" not in parsed:
        raise InputError("--augment draws a picture; type for example --out augmented.png")
    validate(Config(**given | ({"sync": "federated"} if "partition" in given else {})))
    if "out" in parsed:
        from ddpgd.run.plots import check_picture

        check_picture(Path(parsed["out"]), "--out")


def _show_partition(parsed: dict[str, Any], data: Dataset) -> None:
    from ddpgd.run import partition_report

    config = Config(sync="federated", **parsed["given"])
    counts = partition_report.class_counts(config, data)
    print("\n".join(partition_report.lines(config, counts, data.class_names)))
    if out := parsed.get("out"):
        partition_report.draw(config, counts, data.class_names, Path(out))
        print(out)


def _show_augmentation(parsed: dict[str, Any], data: Dataset) -> None:
    from ddpgd.run import augmentation_sheet

    augmentation_sheet.draw(Config(**parsed["given"]), data, Path(parsed["out"]))
    print(parsed["out"])


class _Ill(DdpgdError):
    """The doctor found what would make a run fail, and has said so."""

    exit_code = 1


def _doctor(parsed: dict[str, Any], world: Transport, launched: Launch, _stop: StopRequest) -> None:
    from ddpgd.doctor import doctor

    file = parsed.get("config")
    config = Config(**(on_root(world, lambda: read_toml(file)) if file else {}) | parsed["given"])
    check_ranges(config)
    shared = config.tensor, config.pipeline
    lines, is_ill = doctor.run(world, launched, parsed["refusal"], file, parsed.get("data"), shared)
    if launched.rank == 0:
        print("\n".join(lines), flush=True)
    if is_ill:
        raise _Ill


def _plot(parsed: dict[str, Any], world: Transport, _launched: Launch, _stop: StopRequest) -> None:
    from ddpgd.run.plots import draw_folders

    def work() -> None:
        draw_folders([Path(run) for run in parsed["runs"]], Path(parsed["out"]), parsed["against"])
        print(parsed["out"])

    on_root(world, work)


def _sweep(parsed: dict[str, Any], world: Transport, launched: Launch, stop: StopRequest) -> None:
    from ddpgd.results.sweep import command

    command.run(parsed, world, launched, stop)


def _plan(parsed: dict[str, Any], world: Transport, launched: Launch, _stop: StopRequest) -> None:
    from ddpgd.scaling import plan

    lines = plan.lines(parsed["given"], parsed, world, launched.local_rank)
    if world.rank == 0:
        print("\n".join(lines), flush=True)


def _scaling(parsed: dict[str, Any], _world: Transport, launched: Launch, _stop: StopRequest) -> None:
    from ddpgd.scaling import command

    if launched.world_size > 1:
        raise InputError("scaling starts its ranks itself; type ddpgd scaling without mpirun, and --ranks 1,2,4")
    command.run(parsed, parsed["arguments"])


def _profile(parsed: dict[str, Any], world: Transport, _launched: Launch, _stop: StopRequest) -> None:
    from ddpgd.scaling import profile

    def work() -> None:
        config = Config(**parsed["given"])
        found = profile.profile(config, parsed["steps"])
        print("\n".join(profile.lines(found, bool(parsed.get("json")))))

    on_root(world, work)


def _descend(parsed: dict[str, Any], world: Transport, _launched: Launch, _stop: StopRequest) -> None:
    from ddpgd.lab import command

    lines = command.lines(parsed["given"], parsed, world)
    if world.rank == 0:
        print("\n".join(lines), flush=True)


def _lr_find(parsed: dict[str, Any], world: Transport, launched: Launch, _stop: StopRequest) -> None:
    from ddpgd.lab import lr_find

    lr_find.run(parsed["given"], parsed, world, launched)


def _lines_of(module: str) -> Command:
    """Returns a command that prints, on rank 0, what lines(parsed) of a module of `ddpgd` yields."""

    def command(parsed: dict[str, Any], world: Transport, _launched: Launch, _stop: StopRequest) -> None:
        def work() -> None:
            for line in import_module(f"ddpgd.{module}").lines(parsed):
                print(line, flush=True)

        on_root(world, work)

    return command


COMMANDS: dict[str, Command] = {
    "train": _train,
    "evaluate": _evaluate,
    "predict": _lines_of("results.predict"),
    "data": _data,
    "compare": _lines_of("run.compare"),
    "doctor": _doctor,
    "plot": _plot,
    "hang": _lines_of("watch.command"),
    "quiz": _lines_of("results.quiz"),
    "bisect": _lines_of("results.bisect"),
    "runs": _lines_of("results.listing"),
    "report": _lines_of("results.report"),
    "sweep": _sweep,
    "plan": _plan,
    "scaling": _scaling,
    "profile": _profile,
    "descend": _descend,
    "gradcheck": _lines_of("lab.gradcheck"),
    "lr-find": _lr_find,
}
