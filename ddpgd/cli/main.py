"""The command line: commands, and flags generated from the configuration's fields."""

import argparse
import os
import sys
from collections.abc import Container, Iterable, Sequence
from contextlib import nullcontext, suppress
from itertools import pairwise
from typing import Any, NoReturn

from ddpgd.cli import start
from ddpgd.cli.commands import COMMANDS
from ddpgd.comm.agreement import on_root
from ddpgd.comm.launcher import Launch, launch
from ddpgd.comm.transport import Alone, Transport
from ddpgd.config.parsing import coerce, did_you_mean
from ddpgd.config.schema import MUTUALLY_EXCLUSIVE, OPTIONS, flag, read_toml
from ddpgd.errors import DdpgdError, InputError
from ddpgd.run import failures, setup
from ddpgd.run.report import VERSION
from ddpgd.run.stderr import say
from ddpgd.scaling import command as scaling_command
from ddpgd.scaling import plan
from ddpgd.scaling import profile as step_profile
from ddpgd.training.stopping import StopRequest

_EXAMPLES = {
    "train": "mpirun -n 2 ddpgd train --hidden 512,512 --optimizer adam --lr 0.001 --epochs 5",
    "evaluate": "ddpgd evaluate runs/first/checkpoints/latest",
    "predict": "ddpgd predict runs/first/checkpoints/latest seven.png",
    "data": "ddpgd data",
    "compare": "ddpgd compare runs/first runs/second",
    "doctor": "mpirun -n 2 ddpgd doctor",
    "plot": "ddpgd plot runs/first runs/second --out runs.png",
    "plan": "mpirun -n 2 ddpgd plan --measure --ranks 8,64,512 --ranks-per-node 8 --link 100Gbit",
    "scaling": scaling_command.EXAMPLES,
    "profile": "ddpgd profile --hidden 512,512 --micro-batch 128",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the process's exit code: 0 done, 2 wrong input, 3 not finite, 75 interrupted, else 1."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    stop = StopRequest()
    is_mine_to_tell = True
    try:
        launched = launch(os.environ)
        is_mine_to_tell = launched.local_rank == 0
        if not _needs_ranks(arguments):
            _on_one_rank(arguments, launched, stop)
            return 0
        with stop.listening(start.came) if arguments[:1] == ["train"] else nullcontext():
            world, refusal = _join(launched, arguments)
            is_mine_to_tell = world.rank == 0
            with setup.ending_all_on_failure(world):
                _check_same_arguments(world, arguments)
                parsed = on_root(world, lambda: _parse(arguments)) | {"refusal": refusal}
                COMMANDS[parsed.pop("command")](parsed, world, launched, stop)
            _flush(may_fail=arguments[:1] == ["train"])
    except failures.FORESEEABLE as failure:
        return _told(failure, is_mine_to_tell)
    return 0


def _needs_ranks(arguments: list[str]) -> bool:
    """Tells whether a command uses all ranks; the others must not start MPI, which fails in a process that a rank starts."""
    command = arguments[:1]
    if not {"-h", "--help", "--version"}.isdisjoint(arguments):
        return False
    return command in (["train"], ["evaluate"], ["data"], ["doctor"]) or (
        command == ["plan"] and "--measure" in arguments
    )


def _on_one_rank(arguments: list[str], launched: Launch, stop: StopRequest) -> None:
    """Runs a command on rank 0 alone. Other ranks say so: a process that one of them has started may have wanted it."""
    if launched.rank > 0:
        is_known = bool(arguments) and arguments[0] in COMMANDS
        if is_known and (launched.local_rank > 0 or {"-h", "--help", "--version"}.isdisjoint(arguments)):
            say(f"rank {launched.rank} leaves `ddpgd {' '.join(arguments[:1])}` to rank 0")
        return
    parsed = _parse(arguments) | {"refusal": ""}
    COMMANDS[parsed.pop("command")](parsed, Alone(), launched, stop)
    _flush(may_fail=False)


def _told(failure: BaseException, is_mine_to_tell: bool) -> int:
    """Prints a foreseeable failure in one line; returns its exit code."""
    end = failures.as_one_line(failure)
    assert end is not None, "as_one_line() knows all that is foreseeable"
    _flush(may_fail=True)
    if is_mine_to_tell and str(end):
        with suppress(OSError):
            print(f"ddpgd: {end}", file=sys.stderr, flush=True)
    return end.exit_code


def _flush(may_fail: bool) -> None:
    """Writes out what was printed, if there is a standard output. `may_fail`: the command's result is not on it."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - Python flushes it once more when it ends
        if not may_fail:
            raise


def _join(launched: Launch, arguments: list[str]) -> tuple[Transport, str]:
    """All ranks. Where they cannot join, the doctor goes on alone, and is told why."""
    try:
        return setup.join(launched, may_use_gpu=_may_use_gpu(arguments)), ""
    except InputError as refused:
        if arguments[:1] != ["doctor"]:
            raise
        return Alone(), str(refused)


def _may_use_gpu(arguments: list[str]) -> bool:
    """Before MPI starts, and so before rank 0 parses flags for all: does this command want a GPU, as far as its flags tell?"""
    numpy_asked = "--backend=numpy" in arguments or ["--backend", "numpy"] in map(list, pairwise(arguments))
    helped = not {"-h", "--help"}.isdisjoint(arguments)
    return (arguments[:1] in (["train"], ["doctor"]) or "--measure" in arguments) and not numpy_asked and not helped


class _Shown(DdpgdError):
    """Help was asked for and has been printed."""

    exit_code = 0


class _Parser(argparse.ArgumentParser):
    """argparse that says in one line what is wrong, as an InputError."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; `{self.prog} --help` shows how")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:  # noqa: ARG002
        raise _Shown


def _parser() -> tuple[_Parser, dict[str, _Parser]]:
    parser = _Parser(
        prog="ddpgd",
        description="Data-parallel gradient descent: the same bits on any number of ranks.",
        epilog="`ddpgd COMMAND --help` shows a command's flags and an example.",
    )
    parser.add_argument("--version", action="version", version=f"ddpgd {VERSION}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    texts = {
        "train": "train a network, on all ranks that mpirun started",
        "evaluate": "compute test loss and accuracy of a checkpoint, on all ranks that mpirun started",
        "predict": "say which digit, or class of its data, a checkpoint sees in each picture",
        "data": "fetch, verify and report the data",
        "compare": "find the first step and layer at which two runs differ",
        "doctor": "check the ranks that mpirun started; each finding says what to type",
        "plot": "draw loss, accuracy, learning rate, gradient norm and throughput of runs",
        "plan": "predict step time and efficiency on any number of ranks, and suggest improvements",
        "scaling": "measure strong and weak scaling, and write a report",
        "profile": "time the operations of a step on one rank, beside this machine's rate of matrix products",
    }
    commands = {
        name: subparsers.add_parser(name, help=text, description=text, epilog=f"example:\n  {_EXAMPLES[name]}")
        for name, text in texts.items()
    }
    _add_train_flags(commands["train"])
    for name in ("evaluate", "predict"):
        commands[name].add_argument("checkpoint", metavar="CKPT", help="a checkpoint, or a run folder (its latest)")
    commands["predict"].add_argument(
        "images",
        metavar="IMAGE",
        nargs="+",
        help="PNG, JPEG, PGM, BMP, GIF, TIFF or WebP of one digit, of any size, dark or light",
    )
    commands["doctor"].add_argument(
        "--config", metavar="FILE.toml", help="check that this file is the same on all machines"
    )
    for name in ("evaluate", "data", "doctor"):
        commands[name].add_argument("--data", help=OPTIONS["data"].metadata["help"])
    commands["compare"].add_argument("runs", metavar="RUN", nargs=2, help="a run folder")
    commands["plot"].add_argument(
        "runs", metavar="RUN", nargs="+", help="a run folder; several are drawn over each other"
    )
    commands["plot"].add_argument("--out", metavar="FILE", default="plot.png", help="PNG or SVG (default: plot.png)")
    plan.add_flags(commands["plan"])
    _add_options(commands["plan"], plan.WORK_OPTIONS)
    commands["scaling"].description = scaling_command.DESCRIPTION
    scaling_command.add_flags(commands["scaling"])
    step_profile.add_flags(commands["profile"])
    _add_options(commands["profile"], step_profile.WORK_OPTIONS)
    return parser, commands


def _add_train_flags(parser: _Parser) -> None:
    parser.add_argument("--config", metavar="FILE.toml", help="options by name, as in a run's config.toml; flags win")
    _add_options(parser, OPTIONS)


def _add_options(parser: _Parser, names: Iterable[str]) -> None:
    groups: dict[str, Any] = {}
    for name in names:
        option = OPTIONS[name]
        title = option.metadata["group"]
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        settings: dict[str, Any] = {"dest": name, "help": option.metadata["help"]}
        if option.metadata["kind"] is bool:
            groups[title].add_argument(flag(name), action="store_true", default=None, **settings)
            continue
        if option.default is not None:
            default = ",".join(map(str, option.default)) if isinstance(option.default, tuple) else option.default
            settings["help"] += f" (default: {default})"
        if name == "resume":
            settings |= {"nargs": "?", "const": ""}
        metavar = "|".join(option.metadata["choices"]) or name.upper()
        groups[title].add_argument(flag(name), metavar=metavar, **settings)


def _parse(arguments: list[str]) -> dict[str, Any]:
    """The command and its arguments; those of `train` coerced, flags over the file of --config."""
    parser, commands = _parser()
    parsed, unknown = parser.parse_known_args(arguments)
    if parsed.command is None:
        raise InputError(f"type a command: ddpgd {'|'.join(commands)}; `ddpgd --help` shows them")
    if unknown:
        known = [name for action in commands[parsed.command]._actions for name in action.option_strings]
        name = unknown[0].partition("=")[0]
        near = did_you_mean(name, known)
        raise InputError(
            f"{name}: ddpgd {parsed.command} has no such argument{near}; `ddpgd {parsed.command} --help` lists the flags"
        )
    values = {name: value for name, value in vars(parsed).items() if value is not None}
    if parsed.command == "train":
        file = values.pop("config", None)
        coerced = _coerced(values, OPTIONS)
        return {"command": "train", "given": _without_rivals(read_toml(file) if file else {}, coerced) | coerced}
    for name, options in (("plan", plan.WORK_OPTIONS), ("profile", step_profile.WORK_OPTIONS)):
        if parsed.command == name:
            return values | {"given": _coerced(values, options)}
    if parsed.command == "scaling":
        return values | {"arguments": arguments}
    return values


def _coerced(values: dict[str, Any], names: Container[str]) -> dict[str, Any]:
    """Those of `names`, as the options' types."""
    return {
        name: value if name == "resume" else coerce(OPTIONS[name], value, flag(name))
        for name, value in values.items()
        if name in names
    }


def _without_rivals(table: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    """`table` without what a flag says in another way."""
    rivals = {rival for pair in MUTUALLY_EXCLUSIVE for rival in pair if any(name in flags for name in pair)}
    return {name: value for name, value in table.items() if name not in rivals}


def _check_same_arguments(world: Transport, arguments: list[str]) -> None:
    everybody = world.all_gather_objects(arguments)
    for rank, theirs in enumerate(everybody):
        if theirs != everybody[0]:
            ours = " ".join(everybody[0])
            raise InputError(
                f"rank {rank} was started with `{' '.join(theirs)}`, rank 0 with `{ours}`; start all ranks alike"
            )
