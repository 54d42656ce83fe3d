"""The watchdog names the rank that others wait for, says when it has arrived, and ends what cannot stop."""

import threading

import numpy as np
import pytest

from ddpgd.comm.arrivals import BEAT_MS, NUM_WORDS, PHASE, Board, Counted, shared_board
from ddpgd.comm.transport import Alone, gathering
from ddpgd.comm.transports import threads
from ddpgd.run.watchdog import HANG_CODE, Watchdog, watching
from ddpgd.training.stopping import StopRequest


class World(Alone):
    """Three ranks of which this is one; remembers with what code the job was ended."""

    world_size = 3
    ended_with: int | None = None

    def abort(self, exit_code: int) -> None:
        self.ended_with = exit_code


class Ranks:
    """Three ranks on a board, the watchdog of one of them, and a clock."""

    def __init__(self, own: int = 0, ranks: tuple[int, ...] = (0, 1, 2), alike: bool = True) -> None:
        self.words = np.zeros((len(ranks), NUM_WORDS), np.int64)
        self.said: list[str] = []
        self.stop = StopRequest()
        self.world = World()
        self.now = 1000.0
        board = Board(self.words, list(ranks), own)
        self.watchdog = Watchdog(self.world, board, self.stop, alike, patience_s=30.0, write=self.said.append)
        self.watchdog.num_steps = lambda: 56

    def pass_by(self, seconds: int, phases: tuple[int, ...], silent: tuple[int, ...] = ()) -> None:
        """Lets time pass with the ranks in these phases; processes of `silent` do not run."""
        self.words[:, PHASE] = phases
        for _ in range(seconds):
            self.now += 1
            for row in range(len(self.words)):
                if row not in silent:
                    self.words[row, BEAT_MS] = int(1000 * self.now)
            self.watchdog.look(self.now)


def test_where_ranks_call_other_collectives_the_one_that_waits_for_nobody_is_named() -> None:
    ranks = Ranks(alike=False)
    ranks.pass_by(40, (101, 57, 400))
    assert len(ranks.said) == 1
    assert "rank 2 (process" in ranks.said[0]
    assert "it computes, writes, or hangs" in ranks.said[0]


def test_where_ranks_call_other_collectives_one_that_is_stopped_in_its_own_is_named() -> None:
    ranks = Ranks(alike=False)
    ranks.pass_by(40, (401, 57, 101), silent=(1,))
    assert len(ranks.said) == 1
    assert "rank 1 (process" in ranks.said[0]
    assert "it does not run" in ranks.said[0]


def test_a_rank_behind_is_named_once_and_then_at_twice_the_time() -> None:
    ranks = Ranks()
    ranks.pass_by(29, (101, 100, 101))
    assert not ranks.said
    ranks.pass_by(30, (101, 100, 101))
    assert len(ranks.said) == 1
    assert "rank 1 (process" in ranks.said[0]
    assert "has not arrived at step 57 for 30 s: it computes, writes, or hangs" in ranks.said[0]
    ranks.pass_by(2, (101, 100, 101))
    assert [line.count("for 60 s") for line in ranks.said] == [0, 1]


def test_a_rank_that_waits_itself_is_told_from_one_that_does_not() -> None:
    """As in groups: ranks 0 and 1 wait for rank 2, and rank 3 for rank 0."""
    ranks = Ranks(own=3, ranks=(0, 1, 2, 3))
    ranks.watchdog._speaks = lambda _missing: True  # type: ignore[method-assign]
    ranks.pass_by(31, (101, 101, 100, 103))
    whys = [line.partition(": ")[2] for line in ranks.said]
    assert whys == ["it waits in an earlier collective"] * 2 + ["it computes, writes, or hangs"]


def test_a_rank_that_arrives_is_told() -> None:
    ranks = Ranks()
    ranks.pass_by(40, (101, 100, 101))
    ranks.pass_by(1, (103, 103, 103))
    assert ranks.said[1:] == ["the rank that was waited for has arrived; the run goes on"]
    ranks.pass_by(20, (105, 104, 105))
    assert len(ranks.said) == 2


def test_a_stopped_rank_in_the_same_collective_is_named() -> None:
    ranks = Ranks()
    ranks.pass_by(31, (101, 101, 101), silent=(2,))
    assert len(ranks.said) == 1
    assert "rank 2" in ranks.said[0]
    assert "it does not run" in ranks.said[0]


def test_the_lowest_rank_that_is_there_speaks() -> None:
    for own, num_lines in ((1, 1), (2, 0)):
        ranks = Ranks(own)
        ranks.pass_by(31, (100, 101, 101), silent=(0,))
        assert len(ranks.said) == num_lines


def test_ranks_that_all_compute_are_not_named() -> None:
    ranks = Ranks()
    ranks.pass_by(500, (100, 100, 100))
    assert not ranks.said


def test_a_node_that_waits_for_another_says_so() -> None:
    ranks = Ranks(ranks=(4, 5))
    ranks.pass_by(31, (101, 101))
    assert len(ranks.said) == 1
    assert "no rank of this node is missing" in ranks.said[0]


def test_a_process_that_was_stopped_itself_blames_nobody() -> None:
    ranks = Ranks()
    ranks.pass_by(1, (101, 101, 101))
    ranks.now += 500
    ranks.pass_by(20, (101, 101, 101))
    assert not ranks.said


def test_a_stop_that_cannot_be_obeyed_ends_the_job() -> None:
    ranks = Ranks()
    ranks.pass_by(40, (101, 101, 101), silent=(1,))
    assert ranks.world.ended_with is None
    ranks.stop.reason = "SIGUSR1 came"
    ranks.pass_by(29, (101, 101, 101), silent=(1,))
    assert ranks.world.ended_with is None
    ranks.pass_by(2, (101, 101, 101), silent=(1,))
    assert ranks.world.ended_with == HANG_CODE
    assert ranks.said[-1].startswith("SIGUSR1 came, and no checkpoint can be written")


def test_a_rank_that_runs_gets_time_to_write_its_checkpoint() -> None:
    ranks = Ranks()
    ranks.stop.reason = "SIGUSR1 came"
    ranks.pass_by(500, (101, 100, 101))
    assert ranks.world.ended_with is None
    ranks.pass_by(101, (101, 100, 101))
    assert ranks.world.ended_with == HANG_CODE


def test_ranks_share_a_board_and_count_their_collectives() -> None:
    def rank(world: threads.Threads) -> list[int]:
        with shared_board(world) as board:
            assert board is not None
            assert board.ranks == [0, 1, 2]
            counted = Counted(world, board.words[board.own, PHASE:1].data)
            buffer = np.ones(2, np.float32)
            for transport in (counted, counted.duplicate()):
                transport.all_reduce(buffer)
            counted.barrier()
            parts = [[np.full(2, peer)] for peer in range(3)]
            counted.all_to_all_init(*gathering(parts, world.rank))()
            world.barrier()
            return board.words[:, PHASE].tolist()

    assert threads.run(3, rank) == [[10, 10, 10]] * 3


def test_its_thread_ends_with_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPGD_PATIENCE_S", "0.01")
    before = threading.active_count()

    def rank(world: threads.Threads) -> None:
        with watching(world, StopRequest()) as watchdog:
            watchdog.transport.barrier()

    threads.run(3, rank)
    assert threading.active_count() == before


def test_one_rank_is_not_watched() -> None:
    world = Alone()
    with watching(world, StopRequest()) as watchdog:
        assert watchdog.transport is world
