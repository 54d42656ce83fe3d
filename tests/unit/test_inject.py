"""Faults on purpose: what a text names, and what a rank then does."""

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ddpgd.comm.transport import Alone
from ddpgd.comm.transports import threads
from ddpgd.comm.whereabouts import COLLECTIVE, COUNTS, NUM_WORDS
from ddpgd.config.schema import Config
from ddpgd.errors import InputError
from ddpgd.run import build
from ddpgd.run.disturbed import Disturbed
from ddpgd.run.inject import KINDS, Fault, Faults, Injected, parse
from runs import train


def test_a_text_names_faults_in_the_order_of_their_steps() -> None:
    assert parse(None, 4) == []
    assert parse("die@0:100,hang@1:40", 2) == [Fault("hang", 1, 40), Fault("die", 0, 100)]


@pytest.mark.parametrize(
    "text", ["", "hang", "hang@1", "hang@1:", "hang@-1:4", "hang@1:4,", "fall@1:4", "hang@1:4;", "hang@٣:4"]
)
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"KIND@RANK:STEP is wanted.*kinds are die, hang,"):
        parse(text, 4)


def test_a_rank_that_there_is_not_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no rank 2; ranks are 0 to 1"):
        train(tmp_path / "run", 2, inject="die@2:5")
    assert not (tmp_path / "run").exists()


def test_a_fault_comes_once_at_its_step_to_its_rank() -> None:
    faults = Faults(parse("skip-collective@1:40,raise@1:50,die@0:1", 2), 1)
    assert faults.next_step(0) == 40
    assert faults.next_step(40) == 50
    assert faults.next_step(50) is None
    faults.before(39)
    assert faults.skips == 0
    for _ in range(2):
        faults.before(41)
        assert faults.skips == 1
    with pytest.raises(Injected):
        faults.before(50)


def test_an_error_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(Injected):
        train(tmp_path / "run", 3, steps=9, inject="raise@1:5")


@pytest.mark.parametrize("kind", ["nan", "flip-gradient"])
def test_gradients_that_are_not_summed_have_no_faults(kind: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{kind} is for steps whose gradients are summed; type --sync every-step"):
        train(tmp_path / "run", 2, sync="local", inject=f"{kind}@1:3")


def test_a_changed_gradient_is_told_with_its_tensor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path / "run", 2, inject="flip-gradient@1:3")
    assert re.search(r"--inject: the change is in dense\d\.(weight|bias)\n", capsys.readouterr().err)


def test_a_rank_without_a_gradient_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path / "run", 3, global_batch=14, micro_batch=7, inject="nan@2:3")
    assert "--inject: this rank has no micro-batch, and so no gradient to change\n" in capsys.readouterr().err


def of_three_ranks(work: Callable[[Disturbed, Faults], object], text: str) -> None:
    def rank(world: threads.Threads) -> None:
        faults = Faults(parse(text, 3), world.rank)
        transport = Disturbed.of(faults)(world, memoryview(np.zeros(NUM_WORDS, np.int64)))
        faults.before(0)
        work(transport, faults)

    threads.run(3, rank)


def test_a_skipped_collective_is_neither_called_nor_counted() -> None:
    def work(transport: Disturbed, faults: Faults) -> None:
        if transport.rank == 1:
            transport.duplicate().barrier()  # left out: the others do not come
            assert sum(transport._here[COUNTS:]) == 0
            assert faults.skips == 0
        transport.barrier()
        assert sum(transport._here[COUNTS:]) == 1

    of_three_ranks(work, "skip-collective@1:0")


def test_a_collective_of_one_rank_alone_is_no_collective_to_leave_out() -> None:
    def work(transport: Disturbed, faults: Faults) -> None:
        alone = Disturbed.of(faults)(Alone(), memoryview(np.zeros(NUM_WORDS, np.int64)))
        left = faults.skips
        alone.barrier()
        assert faults.skips == left
        if transport.rank == 1:
            transport.barrier()
            assert faults.skips == 0

    of_three_ranks(work, "skip-collective@1:0")


def test_a_rank_whose_link_is_cut_waits_in_a_collective() -> None:
    cut: list[Disturbed] = []

    def work(transport: Disturbed, _: Faults) -> None:
        if transport.rank == 2:
            cut.append(transport)
            threading.Thread(target=transport.barrier, daemon=True).start()
            while not transport._here[COLLECTIVE]:
                time.sleep(0.01)

    of_three_ranks(work, "drop-link@2:0")
    assert cut[0]._here[COUNTS] == 1


def test_kinds_are_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "failures.md").read_text()
    assert all(f"| `{kind}` |" in page for kind in KINDS)


@pytest.mark.parametrize("local_after", [0, 3, 11, 12, 50])
@pytest.mark.parametrize("local_steps", [1, 4, 20])
def test_the_last_step_at_which_a_fault_strikes(local_after: int, local_steps: int) -> None:
    config = Config(sync="local", local_steps=local_steps, local_after=local_after)
    starts = [step for step in range(12) if step < local_after or (step - local_after) % local_steps == 0]
    assert build.last_start(config, 12) == starts[-1]
    assert build.last_start(Config(), 12) == 11
