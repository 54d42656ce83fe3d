"""The command line: runs one command, on the ranks that it needs, and turns failures into exit codes."""

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from itertools import pairwise

from ddpgd.cli import start
from ddpgd.cli.arguments import parse
from ddpgd.cli.commands import COMMANDS
from ddpgd.cli.table import TABLE, Command
from ddpgd.comm import losses
from ddpgd.comm.agreement import on_root
from ddpgd.comm.launcher import Launch, launch
from ddpgd.comm.transport import Alone, Transport
from ddpgd.errors import InputError
from ddpgd.run import failures, setup
from ddpgd.run.stderr import say
from ddpgd.training.stopping import StopRequest


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the process's exit code, or, where ranks have died, leaves with it.

    0 done, 2 wrong input, 3 not finite, 4 ranks differ, 5 a hang, 75 interrupted, 1 anything else.
    """
    exit_code = _run(list(sys.argv[1:] if argv is None else argv))
    losses.leave_if_any(exit_code)
    return exit_code


def _run(arguments: list[str]) -> int:
    stop = StopRequest()
    is_mine_to_tell = True
    try:
        launched = launch(os.environ)
        is_mine_to_tell = launched.local_rank == 0
        if not _needs_ranks(arguments):
            _on_one_rank(arguments, launched, stop)
            return 0
        with stop.listening(start.came) if start.is_stoppable(arguments) else nullcontext():
            world, refusal = _join(launched, arguments)
            is_mine_to_tell = world.rank == 0
            with setup.ending_all_on_failure(world):
                _check_same_arguments(world, arguments)
                parsed = on_root(world, lambda: parse(arguments)) | {"refusal": refusal}
                COMMANDS[parsed.pop("command")](parsed, world, launched, stop)
            _flush(may_fail=arguments[:1] == ["train"])
    except failures.FORESEEABLE as failure:
        return _told(failure, losses.is_first(is_mine_to_tell))
    return 0


def _needs_ranks(arguments: list[str]) -> bool:
    """Returns whether a command uses all ranks, as far as its flags tell."""
    command = _command(arguments)
    return command is not None and command.needs_ranks


def _command(arguments: list[str]) -> Command | None:
    """Returns what a command needs; None: nothing, as where help is asked for, or there is none."""
    command = TABLE.get(arguments[0]) if arguments else None
    is_plain = command is not None and command.only_with and command.only_with not in arguments
    return None if is_plain or not {"-h", "--help", "--version"}.isdisjoint(arguments) else command


def _on_one_rank(arguments: list[str], launched: Launch, stop: StopRequest) -> None:
    """Runs a command on rank 0 alone. Other ranks say so: a process that one of them has started may have wanted it."""
    if launched.rank > 0:
        is_known = bool(arguments) and arguments[0] in COMMANDS
        if is_known and (launched.local_rank > 0 or {"-h", "--help", "--version"}.isdisjoint(arguments)):
            say(f"rank {launched.rank} leaves `ddpgd {' '.join(arguments[:1])}` to rank 0")
        return
    parsed = parse(arguments) | {"refusal": ""}
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
    command = _command(arguments)
    return command is not None and command.may_use_gpu and not numpy_asked


def _check_same_arguments(world: Transport, arguments: list[str]) -> None:
    everybody = world.all_gather_objects(arguments)
    for rank, theirs in enumerate(everybody):
        if theirs != everybody[0]:
            ours = " ".join(everybody[0])
            raise InputError(
                f"rank {rank} was started with `{' '.join(theirs)}`, rank 0 with `{ours}`; start all ranks alike"
            )
