"""Clients side by side: order, errors, and what becomes of lanes that nobody waits for."""

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from ddpgd.training.federated.lanes import Lanes

WAIT_S = 60.0


class Fake(SimpleNamespace):
    """Clients of which each `train` does what `work` does."""

    ends = False

    def train(self, number: int, position: int) -> Any:
        return self.work(self, number, position)


def lanes_of(work: Any, count: int) -> tuple[Lanes, list[Fake]]:
    made = [Fake(work=work)]

    def make() -> Any:
        made.append(Fake(work=work))
        return made[-1]

    return Lanes(made[0], make, count), made  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("num_clients", [0, 1, 3, 7])
def test_results_come_in_the_order_of_positions(count: int, num_clients: int) -> None:
    def work(_: Fake, number: int, position: int) -> tuple[int, int]:
        time.sleep(0.002 * (position % 3))
        return number, position

    positions = list(range(10, 10 + num_clients))
    lanes, made = lanes_of(work, count)
    assert list(lanes.train(4, positions)) == [(4, position) for position in positions]
    assert len(made) == count


def test_lanes_work_at_the_same_time() -> None:
    meeting = threading.Barrier(3)
    lanes, _ = lanes_of(lambda *_: meeting.wait(WAIT_S), 3)
    assert sorted(lanes.train(0, [0, 1, 2])) == [0, 1, 2]  # type: ignore[type-var]


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_error_in_one_lane_ends_the_others(failing: int) -> None:
    began, ended = threading.Barrier(3), list[int]()

    def work(lane: Fake, _: int, position: int) -> None:
        began.wait(WAIT_S)
        if position == failing:
            raise ValueError(position)
        deadline = time.monotonic() + WAIT_S
        while not lane.ends and position > failing:
            assert time.monotonic() < deadline, "nobody ended it"
            time.sleep(0.001)
        ended.append(position)

    lanes, _ = lanes_of(work, 3)
    with pytest.raises(ValueError, match=str(failing)):
        list(lanes.train(0, [0, 1, 2]))
    assert sorted(ended) == [position for position in range(3) if position != failing]


def test_lanes_that_nobody_waits_for_end() -> None:
    ended = list[int]()

    def work(lane: Fake, number: int, position: int) -> int:
        deadline = time.monotonic() + WAIT_S
        while number == 0 and position and not lane.ends:
            assert time.monotonic() < deadline, "nobody ended it"
            time.sleep(0.001)
        assert number == 0 or not lane.ends
        ended.append(position)
        return position

    lanes, _ = lanes_of(work, 2)
    training = lanes.train(0, [0, 1])
    assert next(training) == 0  # type: ignore[comparison-overlap]
    training.close()
    assert ended == [0, 1]
    for number in (1, 2):  # and the next round is none of theirs
        training = lanes.train(number, [0, 1])
        assert [next(training), next(training)] == [0, 1]
        training.close()


def test_fewer_lanes_where_there_is_no_memory_for_more() -> None:
    made = list[Fake]()

    def make() -> Any:
        if len(made) == 2:
            raise MemoryError
        made.append(Fake(work=lambda _lane, _number, position: position))
        return made[-1]

    lanes = Lanes(make(), make, 8)
    assert list(lanes.train(0, [5, 6, 7])) == [5, 6, 7]
    assert len(made) == 2
