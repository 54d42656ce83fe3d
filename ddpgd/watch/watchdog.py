"""Notices when nothing moves: tells where every rank is, which one the others wait for, and ends the run."""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from ddpgd.comm import whereabouts
from ddpgd.comm.counted import Counted
from ddpgd.comm.launcher import node
from ddpgd.comm.transport import Transport
from ddpgd.comm.whereabouts import ACTIVITY, DONE, SETUP
from ddpgd.errors import HANG_CODE
from ddpgd.training.stopping import StopRequest
from ddpgd.watch.answers import Answers, with_silent
from ddpgd.watch.board import SOURCE_BYTES, Board, shared_board
from ddpgd.watch.movement import Movement
from ddpgd.watch.rows import Row, table
from ddpgd.watch.verdict import verdict

TIMEOUT_S = 30.0
"""Default of --hang-timeout."""
LOOK_S = 0.25
"""Seconds between two looks, and less where the time-out is short."""
_STEPS = 10
"""A run is given so many of its own steps, where these take longer than the time-out."""
_ANSWER_S = 1.0
"""Seconds for which a node waits for the answers of others."""
_FORWARD_S = 0.3
"""Seconds that a launcher is given to pass on what was told, before it ends all ranks."""
_ALONE = 10
"""A node that cannot ask others, and misses none of its own ranks, waits for so many time-outs."""
_PACKAGE = Path(__file__).parents[1]


@contextmanager
def watching(
    world: Transport,
    stop: StopRequest,
    timeout_s: float = TIMEOUT_S,
    run: Path | None = None,
    count: Callable[[Transport, memoryview], Counted] = Counted,
    note: Callable[[int, str], None] = lambda _code, _reason: None,
) -> Iterator[Transport]:
    """Watches the ranks of `world` from a thread of each. Every rank calls it; the block uses the transport that it yields.

    Args:
        world: The ranks of the run.
        stop: Whether the run was asked to end.
        timeout_s: Seconds without any movement after which the run ends; 0: it never does.
        run: The folder of the run, for questions of other nodes and for stacks; None: there is none yet.
        count: Makes what counts the collectives.
        note: Notes the exit code and the verdict of a run that is ended.
    """
    with shared_board(world) as board:
        if board is None:
            yield world
            return
        words = board.words
        words[ACTIVITY] = SETUP
        with whereabouts.stored_in(words):
            transport = count(world, words)
            watchdog = Watchdog(transport, board, stop, timeout_s, _answers(transport, run), note=note)
            with watchdog.running():
                yield transport
                words[ACTIVITY] = DONE
                transport.barrier()


def _answers(world: Transport, run: Path | None) -> Answers | None:
    """Returns the folder for questions, where this rank sees it; every rank calls it."""
    if run is None:
        return None
    ranks = world.all_gather_objects(Row(world.rank, node(), os.getpid()))
    answers = Answers(run)
    with suppress(OSError):
        if world.rank == 0:
            answers.open(ranks)
    world.barrier()
    return answers if answers.ranks() == ranks else None


class Watchdog:
    """Looks some times a second whether the ranks of this node move; the lowest of them that runs speaks."""

    def __init__(
        self,
        world: Transport,
        board: Board,
        stop: StopRequest,
        timeout_s: float = TIMEOUT_S,
        answers: Answers | None = None,
        write: Callable[[str], None] | None = None,
        pause: Callable[[float], None] = time.sleep,
        end: Callable[[], None] | None = None,
        note: Callable[[int, str], None] = lambda _code, _reason: None,
    ) -> None:
        self._world = world
        self._board = board
        self._stop = stop
        self._timeout_s = timeout_s
        self._patience_s = timeout_s / 2 or TIMEOUT_S
        """Without movement for so long, a line says so."""
        self._answers = answers
        self._write = write or _write
        self._pause = pause
        self._end = end or self._abort
        self._note = note
        self._look_s = min(LOOK_S, self._patience_s / 8)
        self._movement = Movement(board, self._patience_s)
        self._next_line = self._patience_s
        self._asked = self._question = 0
        self._answer_at = float("inf")
        self._ended = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Runs the thread that looks, until the block ends."""
        thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()
            if self._answers and self._world.rank == 0:
                self._answers.close(keep_stacks=False)

    def _watch(self) -> None:
        while not self._ended.wait(self._look_s):
            self.look(time.monotonic())

    def look(self, now: float) -> None:
        """Compares the ranks at `now`, in seconds of the node's clock; tells, answers, or ends the run, where that is due."""
        board, shown = self._board, self._board.shown
        if self._movement.look(now) and self._next_line > self._patience_s:
            self._next_line = self._patience_s
            self._write("the ranks move again; the run goes on")
        still_s = self._movement.still_s(now)
        if still_s[board.own] > self._patience_s / 2:
            shown[board.own]["source"] = self._source()
        asked = int(shown["asked"].max())
        if asked > self._asked:
            self._asked = asked
            self._leave_stacks()
        silent = self._movement.silent(now)
        if board.own != next((place for place, one in enumerate(silent) if not one), board.own):
            return
        self._answer(now, still_s, silent)
        least_s = float(still_s[shown["words"][:, ACTIVITY] != DONE].min(initial=np.inf))
        if not np.isfinite(least_s):
            return
        if self._timeout_s:
            is_over = least_s >= max(self._timeout_s, _STEPS * self._movement.step_s)
        else:
            is_over = bool(self._stop) and least_s >= self._patience_s
        if is_over:
            self._report(now, least_s, still_s, silent)
        elif least_s >= self._next_line:
            self._next_line = 2 * least_s
            self._write(f"no rank has moved for {least_s:.0f} s: {self._verdict(board.rows(still_s, silent))}")

    def _source(self) -> bytes:
        """Returns the line of this package that this rank's thread executes."""
        frame = sys._current_frames().get(self._board.thread[0])
        while frame and not frame.f_code.co_filename.startswith(f"{_PACKAGE}{os.sep}"):
            frame = frame.f_back
        if frame is None:
            return b""
        place = f"{Path(frame.f_code.co_filename).relative_to(_PACKAGE)}:{frame.f_lineno}"
        return place.encode()[-SOURCE_BYTES:]

    def _leave_stacks(self) -> None:
        if self._answers:
            with suppress(OSError), self._answers.stacks(self._board.ranks[self._board.own]).open("w") as file:
                faulthandler.dump_traceback(file, all_threads=True)

    def _ask_node(self) -> None:
        """Asks the ranks of this node for their stacks and lines."""
        self._board.shown["asked"][self._board.own] = self._asked + 1

    def _answer(self, now: float, still_s: np.ndarray, silent: np.ndarray) -> None:
        """Answers the question of another node, or of a user, once the ranks of this one have left their stacks."""
        if self._answers is None:
            return
        question = self._answers.question()
        if question != self._question:
            self._question, self._answer_at = question, now + 2 * self._look_s
            self._ask_node()
        elif now >= self._answer_at:
            self._answer_at = float("inf")
            with suppress(OSError):
                self._answers.answer(question, self._board.rows(still_s, silent))

    def _report(self, now: float, least_s: float, still_s: np.ndarray, silent: np.ndarray) -> None:
        """Tells where all ranks are, and ends the run; unless those of another node move."""
        self._ask_node()
        self._leave_stacks()
        self._pause(2 * self._look_s)
        rows = self._board.rows(still_s, silent)
        if self._answers:
            rows = self._everybody(self._answers, rows)
        elif self._may_be_elsewhere(rows) and least_s < _ALONE * max(self._timeout_s, self._patience_s):
            return
        if any(row.still_s < self._patience_s and not row.state and row.activity != DONE for row in rows):
            self._movement.forget(now)
            return
        if next(row.rank for row in rows if row.place) != self._board.ranks[0]:
            self._pause(2 * _ANSWER_S)  # the first node tells, and ends all
        self._write(f"no rank has moved for {least_s:.0f} s:")
        for line in table(rows):
            self._write(f"  {line}")
        told = self._verdict(rows)
        self._write(told)
        self._note(HANG_CODE, told)
        if self._stop:
            self._write(f"{self._stop.reason}, and no checkpoint can be written: the run ends without one")
        if self._answers and self._answers.has_stacks():
            self._write(f"the run ends; the ranks' stacks are in {self._answers.folder}")
        self._ended.set()
        self._end()

    def _verdict(self, rows: list[Row]) -> str:
        return verdict(rows, self._world.world_size)

    def _may_be_elsewhere(self, rows: list[Row]) -> bool:
        """Returns whether all ranks of this node wait, perhaps for those of others."""
        return len(rows) < self._world.world_size and all(row.waits and not row.state for row in rows)

    def _everybody(self, answers: Answers, own: list[Row]) -> list[Row]:
        """Returns the ranks of all nodes. Where several ask at the same time, all answer the last question."""
        listed = answers.ranks()
        if not listed or len(own) == len(listed):
            return own
        with suppress(OSError):
            self._question = number = answers.ask()
            answers.answer(number, own)
            for _ in range(10):
                self._pause(_ANSWER_S / 10)
                if number != answers.question():
                    self._question = number = answers.question()
                    answers.answer(number, own)
                if len(answers.given(number)) == len(listed):
                    break
            own = answers.given(number)
        return with_silent(own, listed)

    def _abort(self) -> None:
        """Ends all ranks; this process in any case."""
        exit_at_once = threading.Timer(5.0, os._exit, (HANG_CODE,))
        exit_at_once.daemon = True
        exit_at_once.start()
        time.sleep(_FORWARD_S)
        if self._world.world_size == len(self._board.ranks) and len(set(self._board.shown["pid"].tolist())) == 1:
            os._exit(HANG_CODE)
        self._world.abort(HANG_CODE)


def _write(line: str) -> None:
    with suppress(OSError, ValueError):
        print(f"ddpgd: {line}", file=sys.stderr, flush=True)
