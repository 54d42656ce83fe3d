"""The watchdog notices when nothing moves, tells where every rank is, answers questions, and ends the run."""

import itertools
import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpgd.comm import whereabouts
from ddpgd.comm.counted import Counted
from ddpgd.comm.transport import Alone, gathering
from ddpgd.comm.transports import threads
from ddpgd.comm.whereabouts import ACTIVITY, COLLECTIVE, COUNTS, DONE, GRADIENTS, NUM_WORDS, STEP
from ddpgd.errors import InputError
from ddpgd.training.stopping import StopRequest
from ddpgd.watch import command, process
from ddpgd.watch.answers import Answers
from ddpgd.watch.board import RANK, Board, shared_board
from ddpgd.watch.rows import Row
from ddpgd.watch.verdict import verdict
from ddpgd.watch.watchdog import Watchdog, watching


class World(Alone):
    """Some ranks of which this is one."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size


class Ranks:
    """Three ranks on a board, the watchdog of one of them, and a clock."""

    def __init__(
        self,
        own: int = 0,
        ranks: tuple[int, ...] = (0, 1, 2),
        timeout_s: float = 30.0,
        world_size: int = 3,
        answers: Answers | None = None,
    ) -> None:
        self.shown = np.zeros(len(ranks), RANK)
        self.shown["pid"] = -1
        self.shown["words"][:, ACTIVITY] = GRADIENTS
        self.shown["words"][:, STEP] = 56
        self.said: list[str] = []
        self.stop = StopRequest()
        self.ends = 0
        self.now = 1000.0
        self.board = Board(self.shown, list(ranks), own, (threading.get_ident(), threading.get_native_id()))
        self.watchdog = Watchdog(
            World(world_size),
            self.board,
            self.stop,
            timeout_s,
            answers,
            write=self.said.append,
            pause=self.pause,
            end=self.end,
        )

    def end(self) -> None:
        self.ends += 1

    def pause(self, seconds: float) -> None:
        """Another node may answer in a subclass."""

    def pass_by(self, seconds: int, entered: tuple[int, ...], silent: tuple[int, ...] = (), step: int = 56) -> None:
        """Lets time pass, until the run ends, with the ranks in these phases; watchdogs of `silent` do not run."""
        words = self.shown["words"]
        words[:, COUNTS], words[:, COLLECTIVE] = np.add(entered, 1) // 2, np.mod(entered, 2)
        self.shown["words"][:, STEP] = step
        for _ in range(seconds):
            self.now += 1
            for place in range(len(self.shown)):
                if place not in silent:
                    self.shown["beat_ms"][place] = int(1000 * self.now)
            if not self.ends:
                self.watchdog.look(self.now)

    @property
    def verdict(self) -> str:
        """The sentence under the table."""
        return next(line for line in reversed(self.said) if "process -1" in line and not line.startswith(" "))


def test_a_run_that_does_not_move_is_told_at_half_the_timeout_and_ended_after_all_of_it() -> None:
    ranks = Ranks()
    ranks.pass_by(15, (101, 100, 101))
    assert not ranks.said
    ranks.pass_by(10, (101, 100, 101))
    assert len(ranks.said) == 1
    assert ranks.said[0].startswith("no rank has moved for 15 s: rank 1 (process -1 on ")
    ranks.pass_by(10, (101, 100, 101))
    assert ranks.ends == 1
    assert "has not entered the exchange of step 57: it is in the gradients of step 57" in ranks.verdict
    assert ranks.verdict.endswith("ranks 0 and 2 wait for it")
    assert [line.split()[0] for line in ranks.said if line.startswith("  ")] == ["rank", "0", "1", "2"]


def test_ranks_that_move_again_are_told() -> None:
    ranks = Ranks()
    ranks.pass_by(20, (101, 100, 101))
    ranks.pass_by(1, (103, 103, 103))
    assert ranks.said[1:] == ["the ranks move again; the run goes on"]
    ranks.pass_by(10, (105, 104, 105))
    assert len(ranks.said) == 2


def test_one_rank_that_moves_is_enough() -> None:
    ranks = Ranks()
    for number in range(100):
        ranks.shown["words"][1, whereabouts.COMPUTED] = number
        ranks.pass_by(1, (101, 100, 101))
    assert not ranks.said


@pytest.mark.parametrize(
    ("activity", "is_movement"),
    [(whereabouts.CHECKPOINT, True), (whereabouts.RECORD, True), (whereabouts.LOADING, True)]
    + [(one, False) for one in (whereabouts.INPUT, GRADIENTS, whereabouts.EXCHANGE, whereabouts.UPDATE)],
)
def test_computing_is_movement_but_for_steps_after_the_first(
    activity: int, is_movement: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = itertools.count()
    monkeypatch.setattr(process, "work", lambda *_: next(work))
    ranks = Ranks()
    ranks.pass_by(2, (100, 101, 101), step=55)
    ranks.shown["words"][0, ACTIVITY] = activity
    ranks.pass_by(40, (100, 101, 101))
    assert ranks.ends == (not is_movement)


def test_a_silent_rank_is_named_and_the_lowest_other_speaks() -> None:
    for own, ends in ((1, 1), (2, 0)):
        ranks = Ranks(own)
        ranks.pass_by(31, (101, 101, 101), silent=(0,))
        assert ranks.ends == ends
        assert not ends or "rank 0 (process -1 on " in ranks.verdict


def test_a_run_of_long_steps_gets_ten_of_them() -> None:
    ranks = Ranks()
    for number in range(5):
        ranks.pass_by(8, (101, 100, 101), step=57 + number)
    ranks.pass_by(71, (101, 100, 101), step=62)
    assert ranks.ends == 0
    ranks.pass_by(15, (101, 100, 101), step=62)
    assert ranks.ends == 1


def test_a_process_that_was_stopped_itself_blames_nobody() -> None:
    ranks = Ranks()
    ranks.pass_by(1, (101, 101, 101))
    ranks.now += 500
    ranks.pass_by(14, (101, 101, 101))
    assert not ranks.said


def test_without_a_timeout_only_a_run_that_was_asked_to_stop_ends() -> None:
    ranks = Ranks(timeout_s=0.0)
    ranks.pass_by(500, (101, 101, 101), silent=(1,))
    assert ranks.ends == 0
    assert [line.partition(":")[0] for line in ranks.said] == [
        f"no rank has moved for {seconds} s" for seconds in (30, 60, 120, 240, 480)
    ]
    ranks.stop.reason = "SIGUSR1 came"
    ranks.pass_by(1, (101, 101, 101), silent=(1,))
    assert ranks.ends == 1
    assert ranks.said[-1].startswith("SIGUSR1 came, and no checkpoint can be written")


def test_ranks_that_are_done_do_not_hang() -> None:
    ranks = Ranks()
    ranks.shown["words"][:, ACTIVITY] = DONE
    ranks.pass_by(100, (100, 100, 100))
    assert not ranks.said


def test_a_node_that_misses_none_of_its_ranks_and_cannot_ask_waits_longer() -> None:
    ranks = Ranks(ranks=(4, 5), world_size=6)
    ranks.pass_by(299, (101, 101))
    assert ranks.ends == 0
    assert ranks.said[0].endswith("ranks 4 and 5 wait in the exchange of step 57 for ranks of other hosts")
    ranks.pass_by(2, (101, 101))
    assert ranks.ends == 1


class TwoNodes(Ranks):
    """This node has ranks 0 and 1; the other, of rank 2, answers with `still_s`, or not at all."""

    def __init__(self, run: Path, still_s: float | None) -> None:
        answers = Answers(run)
        answers.open([Row(0, "a", 1), Row(1, "a", 2), Row(2, "b", 3)])
        super().__init__(ranks=(0, 1), answers=answers)
        self.answers = answers
        self.still_s = still_s

    def pause(self, seconds: float) -> None:  # noqa: ARG002
        if self.still_s is not None and (number := self.answers.question()):
            there = Row(2, "b", 3, activity=GRADIENTS, step=56, entered=50, still_s=self.still_s)
            self.answers.answer(number, [there])


def test_the_rank_of_another_node_is_named(tmp_path: Path) -> None:
    ranks = TwoNodes(tmp_path, 31.0)
    ranks.pass_by(31, (101, 101))
    assert ranks.ends == 1
    assert any("rank 2 (process 3 on b) has not entered the exchange of step 57" in line for line in ranks.said)
    assert "thread" in (tmp_path / "hang" / "rank-0.txt").read_text()


def test_a_node_that_does_not_answer_is_named(tmp_path: Path) -> None:
    ranks = TwoNodes(tmp_path, None)
    ranks.pass_by(31, (101, 101))
    assert ranks.ends == 1
    assert any("rank 2 (process 3 on b) does not answer" in line for line in ranks.said)


def test_where_the_other_node_moves_the_run_goes_on(tmp_path: Path) -> None:
    ranks = TwoNodes(tmp_path, 1.0)
    ranks.pass_by(200, (101, 101))
    assert ranks.ends == 0


def test_a_question_is_answered_once_stacks_are_left(tmp_path: Path) -> None:
    answers = Answers(tmp_path)
    answers.open([Row(0, "a", 1), Row(1, "a", 2), Row(2, "a", 3)])
    ranks = Ranks(answers=answers)
    ranks.pass_by(2, (101, 100, 101))
    number = answers.ask()
    ranks.pass_by(20, (101, 100, 101))
    given = answers.given(number)
    assert [(row.rank, row.entered, row.waits) for row in given] == [(0, 51, True), (1, 50, False), (2, 51, True)]
    assert "thread" in answers.stacks(0).read_text()
    assert len(ranks.said) == 1


def test_ranks_share_a_board_and_count_their_collectives() -> None:
    def rank(world: threads.Threads) -> list[int]:
        with shared_board(world) as board:
            assert board is not None
            assert board.ranks == [0, 1, 2]
            counted = Counted(world, board.words)
            buffer = np.ones(2, np.float32)
            for transport in (counted, counted.duplicate()):
                transport.all_reduce(buffer)
            counted.barrier()
            parts = [[np.full(2, peer)] for peer in range(3)]
            counted.all_to_all_init(*gathering(parts, world.rank))()
            world.barrier()
            return [row.entered for row in board.rows(np.zeros(3), np.zeros(3, bool))]

    assert threads.run(3, rank) == [[5, 5, 5]] * 3


def test_its_thread_and_its_files_end_with_the_run(tmp_path: Path) -> None:
    before = threading.active_count()

    def rank(world: threads.Threads) -> None:
        with watching(world, StopRequest(), 5.0, tmp_path) as watched:
            watched.barrier()
            assert whereabouts.here()[COUNTS] > 0
            assert (tmp_path / "hang" / "ranks.json").exists()

    threads.run(3, rank)
    assert threading.active_count() == before
    assert not list(tmp_path.iterdir())


def test_threads_have_whereabouts_of_their_own() -> None:
    here = whereabouts.here()
    assert here is whereabouts.here()
    assert len(here) == NUM_WORDS
    others: list[memoryview] = []
    thread = threading.Thread(target=lambda: others.append(whereabouts.here()))
    thread.start()
    thread.join()
    assert others[0] is not here


def test_work_grows_while_a_thread_reads_and_while_it_computes(tmp_path: Path) -> None:
    own = threading.get_ident(), threading.get_native_id()
    before = process.work(*own)
    (tmp_path / "file").write_bytes(bytes(100_000))
    written = process.work(*own)
    assert written >= before + 100_000
    ends_at = time.thread_time() + 0.15
    while time.thread_time() < ends_at:
        pass
    assert process.work(*own) > written


def test_ddpgd_hang_asks_a_run_that_is_under_way(tmp_path: Path) -> None:
    asked = threading.Event()
    said: list[str] = []

    def rank(world: threads.Threads) -> None:
        with watching(world, StopRequest(), 60.0, tmp_path) as watched:
            if world.rank == 1:
                asked.wait()
            watched.barrier()

    run = threading.Thread(target=threads.run, args=(3, rank))
    run.start()
    try:
        while not (tmp_path / "hang" / "ranks.json").exists():
            time.sleep(0.01)
        said = command.lines({"run": str(tmp_path)}, patience_s=300.0)
    finally:
        asked.set()
        run.join()
    assert [line.split()[0] for line in said[:4]] == ["rank", "0", "1", "2"]
    assert said[-1] == f"stacks of the ranks that answered: {tmp_path / 'hang'}"


def test_ddpgd_hang_says_which_ranks_do_not_answer(tmp_path: Path) -> None:
    Answers(tmp_path).open([Row(0, "elsewhere", 1), Row(1, "elsewhere", 2)])
    said = command.lines({"run": str(tmp_path)}, patience_s=0.1)
    assert said[3] == (
        "rank 0 (process 1 on elsewhere) does not answer; rank 1 (process 2 on elsewhere) does not answer"
    )


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"ranks": 3}', '{"ranks": [[1]]}', '{"ranks": [["a", "b", 1]]}', "\0" * 100]
)
def test_a_folder_without_a_run_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "hang").mkdir()
    (tmp_path / "hang" / "ranks.json").write_text(text)
    with pytest.raises(InputError, match="no run is under way there"):
        command.lines({"run": str(tmp_path)})


def test_answers_of_another_question_do_not_count(tmp_path: Path) -> None:
    answers = Answers(tmp_path)
    answers.open([Row(0, "a", 1)])
    number = answers.ask()
    answers.answer(number - 1, [Row(0, "a", 1)])
    assert answers.given(number) == []
    (answers.folder / "node-7.json").write_text(json.dumps({"number": number, "rows": [[0] * 12, "x"]}))
    assert answers.given(number) == []
    answers.close(keep_stacks=False)
    assert not answers.folder.exists()


@pytest.mark.parametrize(
    "damage", [{"groups": {"1": "x"}}, {"groups": {"1": None}}, {"activity": 99}, {"activity": -2}, {"collective": 50}]
)
def test_rows_that_say_what_has_no_name_are_left_out(damage: dict[str, Any], tmp_path: Path) -> None:
    answers = Answers(tmp_path)
    whole = Row(1, "a", 2, activity=GRADIENTS, collective=0, group="1", groups={"1": 5})
    answers.open([whole, whole._replace(rank=2, **damage)])
    assert answers.ranks() == [whole]


def test_a_group_that_a_row_waits_in_and_does_not_list_is_no_traceback() -> None:
    rows = [Row(0, "a", 1, collective=1, group="1"), Row(1, "a", 2, collective=1, group="2", groups={"1": 5, "2": 1})]
    assert "no message arrives" in verdict(rows)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "[" * 5000, '{"ranks": ' + "[" * 5000, '{"ranks": [[0]]}'])
def test_files_that_others_have_damaged_are_no_answers(text: str, tmp_path: Path) -> None:
    answers = Answers(tmp_path)
    answers.folder.mkdir()
    for name in ("ranks.json", "question", "node-0.json"):
        (answers.folder / name).write_text(text)
    assert not answers.ranks()
    assert answers.question() == 0
    assert answers.given(3) == []
