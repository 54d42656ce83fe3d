"""Ranks die at every collective of a run, and those that are left go on: to the same bits, records and checkpoints."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpgd.comm.launcher import Launch
from ddpgd.comm.transport import Alone
from ddpgd.comm.transports import threads
from ddpgd.comm.transports.threads import PeerFailed, Threads
from ddpgd.config.schema import Config
from ddpgd.config.validation import validate
from ddpgd.data.mnist import Dataset
from ddpgd.errors import InputError
from ddpgd.run import checkpoint
from ddpgd.run.build_exchange import is_sharded
from ddpgd.run.checkpoint import Checkpoint
from ddpgd.run.device import elastic_ranks
from ddpgd.run.starting import _Start
from ddpgd.run.survival import Survival
from ddpgd.training.stopping import StopRequest
from runs import Record, records, small_digits

GIVEN: dict[str, Any] = {
    "data": "synthetic",
    "hidden": (12,),
    "global_batch": 50,
    "micro_batch": 7,
    "lr": 0.05,
    "optimizer": "adam",
    "steps": 9,
    "log_every": 4,
    "evaluate_every": 4,
    "checkpoint_every": 3,
    "check_every": 5,
    "quiet": True,
}


class Dead(Exception):
    """This rank was killed."""


class Deaths:
    """Kills `victim` at its meeting number `meeting` of those that it has with other ranks.

    With `late`, it has met them: then the collective fails on `early`, and the others go on to the next one.
    """

    def __init__(self, victim: int, meeting: int, late: bool = False, early: tuple[int, ...] = ()) -> None:
        self.victim = victim
        self.meeting = meeting
        self.late = late
        self.early = early
        self.met: dict[int, Iterator[int]] = {rank: count() for rank in range(4)}
        self.happened = False

    def meet(self, rank: int, wait: Callable[[], None]) -> None:
        is_now = next(self.met[rank]) == self.meeting
        if is_now and rank == self.victim and not self.late:
            self.happened = True
            raise Dead
        wait()
        if is_now and rank == self.victim:
            self.happened = True
            raise Dead
        if is_now and rank in self.early:
            raise PeerFailed


def mortal(world: Threads, deaths: Deaths) -> Threads:
    """Returns `world`, whose ranks die; duplicates are other objects, and die with it."""
    number = world.rank

    class Mortal(Threads):
        def _pass_gate(self) -> None:
            deaths.meet(number, super()._pass_gate)

    world.__class__ = Mortal
    return world


def starts_of(num_ranks: int, folder: Path, **given: Any) -> list[_Start]:
    starts = []
    for rank in range(num_ranks):
        options = GIVEN | given | {"elastic": True, "run_dir": str(folder)}
        starts.append(_Start(options, Launch("", rank, num_ranks, rank), StopRequest(), load_small))
        starts[-1].survival = Survival(rank, num_ranks)
    return starts


def load_small(*_: object) -> Dataset:
    return small_digits()


def on_all(starts: list[_Start], deaths: Deaths | None) -> list[Record | None]:
    """Runs the starts of some ranks on threads; returns the summaries of those that came to their end."""

    def rank(world: Threads) -> Record:
        return starts[world.rank].on(mortal(world, deaths) if deaths else world)

    ends: list[Record | None] = [None] * len(starts)
    with suppress(Dead):
        ends = list(threads.run(len(starts), rank))
    return ends


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, list[Record], Path]:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    [summary] = on_all([_start_alone(folder)], None)
    assert summary is not None
    return summary, records(folder), folder


def _start_alone(folder: Path) -> _Start:
    return _Start(GIVEN | {"run_dir": str(folder)}, Launch("", 0, 1, 0), StopRequest(), load_small)


def check_equal(end: Record | None, folder: Path, undisturbed: tuple[Record, list[Record], Path]) -> None:
    summary, lines, other = undisturbed
    assert end is not None
    assert end["params_sha256"] == summary["params_sha256"]
    assert records(folder) == lines
    kept = checkpoint.newest_first(folder / "checkpoints")
    assert checkpoint.load(kept[0]).counters["step"] == 9
    for name in ("latest",):
        assert (folder / "checkpoints" / name).resolve().name == (other / "checkpoints" / name).resolve().name


def goes_on(num_ranks: int, deaths: Deaths, folder: Path, **given: Any) -> tuple[bool, Record | None]:
    """Lets a run meet `deaths`; returns whether it did, and the end of what was left."""
    starts = starts_of(num_ranks, folder, **given)
    ends = on_all(starts, deaths)
    if not deaths.happened:
        return False, ends[0]
    left = [start for rank, start in enumerate(starts) if rank != deaths.victim]
    return True, on_all(left, None)[0]


STRIDE = 5
"""The meetings of a run are taken in turns by the cases below, which differ in little else."""


@pytest.mark.parametrize(
    ("num_ranks", "victim", "late", "first"),
    [(2, 0, False, 0), (2, 1, True, 1), (3, 0, True, 2), (3, 1, False, 3), (3, 1, True, 4), (4, 2, True, 0)],
)
def test_a_rank_dies_at_each_meeting(
    num_ranks: int,
    victim: int,
    late: bool,
    first: int,
    tmp_path: Path,
    undisturbed: tuple[Record, list[Record], Path],
) -> None:
    early = (num_ranks - 1,) if late and num_ranks > 2 else ()
    for meeting in count(first, STRIDE):
        folder = tmp_path / str(meeting)
        happened, end = goes_on(num_ranks, Deaths(victim, meeting, late, early), folder)
        check_equal(end, folder, undisturbed)
        if not happened:
            break
        assert end is not None
        assert end["lost_ranks"] == [victim]
        assert end["world_size"] == num_ranks - 1
    assert meeting > 50, "a run meets often"


@pytest.mark.parametrize("given", [{"validation": 60, "patience": 3}, {"optimizer": "muon", "dropout": 0.3}])
def test_validation_and_random_numbers_go_on_as_they_were(given: dict[str, Any], tmp_path: Path) -> None:
    alone = _Start(GIVEN | given | {"run_dir": str(tmp_path / "alone")}, Launch("", 0, 1, 0), StopRequest(), load_small)
    [summary] = on_all([alone], None)
    assert summary is not None
    for meeting in range(60, 120, 20):
        happened, end = goes_on(3, Deaths(1, meeting, late=True, early=(2,)), tmp_path / str(meeting), **given)
        assert happened
        assert end is not None
        for name in ("params_sha256", "test_accuracy", "validation_accuracy", "best_step", "steps"):
            assert end[name] == summary[name]
        if "validation" in given:
            best = checkpoint.best_step(
                checkpoint.load(checkpoint.newest_first(tmp_path / str(meeting) / "checkpoints")[0]).counters
            )
            assert checkpoint.path_of(tmp_path / str(meeting) / "checkpoints", best or 0).exists()


def state(step: int, told: str = "") -> Checkpoint:
    arrays = {"params.a": np.full((2, 3), step, np.float32), "optimizer.b": np.full(4, -step, np.float32)}
    return Checkpoint(arrays, {"step": step}, {}, {"diagnosis": told})


@pytest.mark.parametrize("steps", [(5, 5, 5), (5, 6, 5), (6, 5, 5), (5, 5, 6)])
def test_the_last_complete_step_of_any_rank_counts(steps: tuple[int, ...], capsys: pytest.CaptureFixture[str]) -> None:
    def rank(world: Threads) -> Checkpoint | None:
        survival = Survival((0, 2, 3)[world.rank], 4)
        survival.follow(lambda: state(steps[world.rank], told=f"by {world.rank}"))
        return survival.agree(world)

    found = threads.run(3, rank)
    for number, saved in enumerate(found):
        assert saved is not None
        assert saved.counters["step"] == max(steps)
        assert saved.facts["diagnosis"] == "by 0"
        assert {name: array.tolist() for name, array in saved.arrays.items()} == (
            {} if number else {name: array.tolist() for name, array in state(max(steps)).arrays.items()}
        )
    assert capsys.readouterr().err == f"ddpgd: rank 1 is dead: 3 ranks go on from step {max(steps)}\n"


def test_a_step_after_which_ranks_meet_counts_when_all_have_come_to_its_end() -> None:
    step = 5
    survival = Survival(0, 1)
    survival.follow(lambda: state(step))
    survival.keep()
    step = 6
    kept = survival.agree(Alone())
    assert kept is not None
    assert kept.counters["step"] == 5
    survival.complete()
    now = survival.agree(Alone())
    assert now is not None
    assert now.counters["step"] == 6


def test_before_a_run_there_is_nothing_to_go_on_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert Survival(2, 3).agree(Alone()) is None
    assert capsys.readouterr().err == "ddpgd: ranks 0 and 1 are dead: rank 2 goes on from step 0\n"


@pytest.mark.parametrize(
    "given",
    [
        {"sync": "local"},
        {"tensor": 2, "shards": 2},
        {"pipeline": 2, "shards": 2},
        {"shard_optimizer": "on"},
        {"wire": "topk"},
        {"wire": "int8", "error_feedback": True},
        {"reduce": "fast"},
        {"transport": "nccl"},
    ],
)
def test_what_dies_with_a_rank_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="--elastic: "):
        validate(Config(**GIVEN | given | {"elastic": True}))


def test_a_launcher_that_ends_all_ranks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMPI_MCA_mpi_ft_enable", raising=False)
    world = threads.run(2, lambda own: own)[0]
    with pytest.raises(InputError, match="mpirun --with-ft ulfm"):
        elastic_ranks(world, 2)
    with pytest.raises(InputError, match="not for the runs of a sweep"):
        elastic_ranks(world, 4)


def test_only_segments_of_an_optimizer_that_outlive_ranks_are_divided() -> None:
    large = Config(hidden=(2500, 2000))
    assert is_sharded(large, 7_000_000, 2, on_cpu=True)
    assert not is_sharded(replace(large, elastic=True), 7_000_000, 2, on_cpu=True)
