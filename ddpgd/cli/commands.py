"""The commands, called with their flags parsed.

What one command alone needs is imported in it: each rank of a run would wait for it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpgd.comm.agreement import on_root
from ddpgd.comm.launcher import Launch
from ddpgd.comm.transport import Transport
from ddpgd.config.schema import Config, flag
from ddpgd.config.toml_file import read_toml
from ddpgd.config.validation import validate
from ddpgd.data.mnist import Dataset
from ddpgd.errors import DdpgdError, InputError, one_line
from ddpgd.run import checkpoint_search, inference, setup, starting
from ddpgd.run.loading import load_data
from ddpgd.run.stderr import say
from ddpgd.training.stopping import StopRequest

_SURE = 0.9
"""Probability under which an answer is marked as unsure: 1 in 8 of MNIST's test images, of which 1 in 4 is read wrong."""


def _train(parsed: dict[str, Any], world: Transport, launched: Launch, stop: StopRequest) -> None:
    starting.start_run(parsed["given"], world, launched, stop)


def _evaluate(parsed: dict[str, Any], world: Transport, launched: Launch, _stop: StopRequest) -> None:
    found = setup.evaluate_checkpoint(Path(parsed["checkpoint"]), parsed.get("data"), world, launched)
    if world.rank == 0:
        print(json.dumps(found))


def _predict(parsed: dict[str, Any], world: Transport, _launched: Launch, _stop: StopRequest) -> None:
    """Print an answer for each picture; one that has none is a line on standard error, and exit code 2 at the end."""
    from ddpgd.data import picture

    def work() -> None:
        _, saved = checkpoint_search.find_best(Path(parsed["checkpoint"]), say)
        names, pictures, num_refused = inference.class_names(saved), parsed["images"], 0
        for name in pictures:
            try:
                image = picture.prepare(Path(name), tuple(saved.facts["image_shape"]))
            except InputError as refusal:
                if len(pictures) == 1:
                    raise
                say(str(refusal))
                num_refused += 1
                continue
            print(one_line(f"{name}: {_answer(inference.probabilities(saved, image[None])[0], names)}"), flush=True)
        if num_refused:
            raise InputError(f"{num_refused} of {len(pictures)} pictures have no answer, for the reasons above")

    on_root(world, work)


def _answer(probabilities: NDArray[np.float64], names: Sequence[str]) -> str:
    """Word what a network says of one image: float64 (C,), a name for each class."""
    best = int(probabilities.argmax())
    doubt = "" if probabilities[best] >= _SURE else ", unsure"
    shares = "  ".join(f"{name}: {100 * share:.1f} %" for name, share in zip(names, probabilities, strict=True))
    return f"{names[best]}{doubt}  ({shares})"


def _data(parsed: dict[str, Any], world: Transport, launched: Launch, _stop: StopRequest) -> None:
    data = load_data(parsed.get("data"), world, launched, say)
    if world.rank == 0:
        rows, cols = data.image_shape
        print(f"{data.source}: {len(data.train_labels):,} training and {len(data.test_labels):,} test samples,")
        print(f"{rows}x{cols} pixels, whole and consistent; SHA-256 of all {data.sha256}")
    given = parsed["given"]
    if "partition" in given and "augment" in given:
        raise InputError("--partition and --augment are shown one at a time; type one of them")
    if "augment" in given:
        on_root(world, lambda: _show_augmentation(parsed, data))
    elif "partition" in given:
        on_root(world, lambda: _show_partition(parsed, data))
    elif unused := [name for name in ("clients", "seed", "out") if name in parsed | given]:
        raise InputError(f"{flag(unused[0])} is for --partition; type for example --partition shards:2, or drop it")
    else:
        validate(Config(**given))


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

    if "out" not in parsed:
        raise InputError("--augment draws a picture; type for example --out augmented.png")
    augmentation_sheet.draw(Config(**parsed["given"]), data, Path(parsed["out"]))
    print(parsed["out"])


def _compare(parsed: dict[str, Any], world: Transport, _launched: Launch, _stop: StopRequest) -> None:
    from ddpgd.run.compare import compare, differing_options

    def work() -> None:
        first, second = map(Path, parsed["runs"])
        num_steps, difference = compare(first, second)
        if options := differing_options(first, second):
            print(f"configurations differ: {', '.join(map(flag, options))}")
        if difference is None:
            print(f"equal params, bit for bit, at all {num_steps} logged steps that both runs have")
        else:
            print(
                f"params differ from logged step {difference.step} on (equal at {difference.last_equal}), "
                f"first in {difference.tensors[0]}; in all: {', '.join(difference.tensors)}"
            )

    on_root(world, work)


class _Ill(DdpgdError):
    """The doctor found what would make a run fail, and has said so."""

    exit_code = 1


def _doctor(parsed: dict[str, Any], world: Transport, launched: Launch, _stop: StopRequest) -> None:
    from ddpgd.doctor import doctor

    file = parsed.get("config")
    config = Config(**(on_root(world, lambda: read_toml(file)) if file else {}) | parsed["given"])
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


def _hang(parsed: dict[str, Any], world: Transport, _launched: Launch, _stop: StopRequest) -> None:
    from ddpgd.watch import command

    on_root(world, lambda: print("\n".join(command.lines(parsed))))


def _quiz(parsed: dict[str, Any], world: Transport, _launched: Launch, _stop: StopRequest) -> None:
    from ddpgd.results import quiz

    on_root(world, lambda: print("\n".join(quiz.lines(parsed))))


def _bisect(parsed: dict[str, Any], world: Transport, _launched: Launch, _stop: StopRequest) -> None:
    from ddpgd.results import bisect

    on_root(world, lambda: print("\n".join(bisect.lines(parsed))))


def _runs(parsed: dict[str, Any], world: Transport, _launched: Launch, _stop: StopRequest) -> None:
    from ddpgd.results import listing

    on_root(world, lambda: print("\n".join(listing.lines(parsed))))


def _report(parsed: dict[str, Any], world: Transport, _launched: Launch, _stop: StopRequest) -> None:
    from ddpgd.results import report

    on_root(world, lambda: print(report.write_report(parsed)))


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


def _gradcheck(parsed: dict[str, Any], world: Transport, _launched: Launch, _stop: StopRequest) -> None:
    from ddpgd.lab import gradcheck

    def work() -> None:
        for line in gradcheck.lines(parsed["given"], parsed):
            print(line, flush=True)

    on_root(world, work)


def _lr_find(parsed: dict[str, Any], world: Transport, launched: Launch, _stop: StopRequest) -> None:
    from ddpgd.lab import lr_find

    lr_find.run(parsed["given"], parsed, world, launched)


COMMANDS = {
    "train": _train,
    "evaluate": _evaluate,
    "predict": _predict,
    "data": _data,
    "compare": _compare,
    "doctor": _doctor,
    "plot": _plot,
    "hang": _hang,
    "quiz": _quiz,
    "bisect": _bisect,
    "runs": _runs,
    "report": _report,
    "sweep": _sweep,
    "plan": _plan,
    "scaling": _scaling,
    "profile": _profile,
    "descend": _descend,
    "gradcheck": _gradcheck,
    "lr-find": _lr_find,
}
