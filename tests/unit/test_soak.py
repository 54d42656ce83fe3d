"""Trials of `tools.soak`: drawn from the seed and their number alone, judged by the rank that a verdict names."""

from pathlib import Path

import pytest

from ddpgd.run.inject import KINDS
from tools.soak import _ENDS, Outcome, Told, Trial, _any_failure, _names, table

TRIALS = [Trial.draw(7, number, sorted(KINDS)) for number in range(300)]


def test_a_trial_is_repeated_by_its_seed_and_number() -> None:
    assert Trial.draw(7, 123, sorted(KINDS)) == TRIALS[123]
    assert {trial.kind for trial in TRIALS} == set(KINDS)
    assert {trial.num_ranks for trial in TRIALS} == {2, 3, 4}
    assert all(trial.rank < trial.num_ranks for trial in TRIALS)


def test_a_bit_is_flipped_where_ranks_have_replicas() -> None:
    flips = [trial for trial in TRIALS if trial.kind == "flip"]
    assert all(trial.num_ranks == 4 or trial.layout in ("every step", "local steps") for trial in flips)


def test_processes_are_stopped_and_gradients_changed_only_where_there_are_any() -> None:
    assert all(trial.transport == "mpi" for trial in TRIALS if trial.kind in ("hang", "die"))
    assert all(trial.layout != "local steps" for trial in TRIALS if trial.kind in ("nan", "flip-gradient"))
    assert all(trial.rank == 0 for trial in TRIALS if trial.kind == "disk-full")
    assert {trial.transport for trial in TRIALS} == {"mpi", "threads"}


@pytest.mark.parametrize(
    ("kind", "line", "exit_code", "faults"),
    [
        ("flip", "step 10: params of rank 1 differ from those of ranks 0 and 2, first in dense1.bias;", 4, 0),
        ("flip", "step 10: params differ on ranks 1 and 3, first in dense1.bias;", 4, 0),
        ("flip", "step 10: params of rank 2 differ from those of ranks 0 and 1, first in dense1.bias;", 4, 1),
        ("flip", "step 10: params of rank 1 differ from those of ranks 0 and 2, first in dense2.bias;", 4, 1),
        ("flip", "step 10: params of rank 1 differ from those of ranks 0 and 2, first in dense1.bias;", 0, 1),
        ("flip", "step 60: params of rank 1 differ from those of ranks 0 and 2, first in dense1.bias;", 4, 1),
        ("nan", "step 6: the gradient is not finite in the sum", 3, 0),
        ("nan", "step 7: the gradient is not finite in the sum", 3, 1),
        ("disk-full", "the checkpoint of step 10 is missing: No space left on device", 0, 0),
        ("disk-full", "", 0, 1),
        ("slow", "", 0, 0),
        ("raise", "--inject raise asked for this", 1, 0),
        ("die", "", 137, 0),
        ("die", "", 0, 1),
    ],
)
def test_an_end_is_as_its_fault_wants_it(kind: str, line: str, exit_code: int, faults: int) -> None:
    trial = Trial(0, 3, "every step", "adam", "mpi", kind, 1, 5)
    lines = [f"ddpgd: --inject: {kind} on rank 1, after step 5", "ddpgd: --inject: the bit is in dense1.bias", line]
    told = Told(exit_code, list(enumerate(lines)))
    assert len(_ENDS.get(kind, _any_failure)(trial, told, Path())) == faults


@pytest.mark.parametrize(
    ("kind", "line", "is_named"),
    [
        ("hang", "ddpgd: rank 1 (process 7 on a) is stopped, in the input of step 3; ranks 0 and 2 wait for it", True),
        ("hang", "ddpgd: rank 0 (process 7 on a) is stopped, in the input of step 3; ranks 1 and 2 wait for it", False),
        ("drop-link", "ddpgd: ranks 0, 1 and 2 are in the exchange of step 3, and no message arrives: look at", True),
        ("hang", "ddpgd: ranks 0 and 1 are in the exchange of step 3, and no message arrives: look at", False),
        ("hang", "ddpgd: no rank has moved for 2 s:", False),
    ],
)
def test_the_last_verdict_must_name_the_rank_that_was_hit(kind: str, line: str, is_named: bool) -> None:
    trial = Trial(0, 3, "every step", "adam", "mpi", kind, 1, 3)
    assert _names(trial, f"ddpgd: --inject: {kind} on rank 1\n{line}\nddpgd: the run ends") == is_named


def test_the_table_has_a_row_for_each_kind_and_what_was_wrong() -> None:
    trials = [Trial(number, 2, "every step", "adam", "mpi", "hang", 1, 40) for number in range(3)]
    lines = list(table([Outcome(trials[0], 2.5, []), Outcome(trials[1], 2.1, []), Outcome(trials[2], None, ["bad"])]))
    assert lines[2] == "| hang | 3 | 2 | 2.3 (2.1 to 2.5) |"
    assert lines[-1] == "- trial 2: hang@1:40 of 2 ranks, every step, adam, mpi: bad"
