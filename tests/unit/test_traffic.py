"""Traffic: the bytes that real exchanges count are those of `Wire.traffic`, for every wire."""

import numpy as np
import pytest

from ddpgd.comm import traffic
from ddpgd.comm.sharding import Sharded
from ddpgd.comm.transports import threads
from ddpgd.comm.transports.threads import Threads
from ddpgd.comm.windows import segments
from ddpgd.comm.wires import WIRES
from wire_cases import SIZE, cases, count_bytes, make_exchange, make_load


@pytest.mark.parametrize(("wire", "reduce", "size"), cases())
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("num_micro_batches", [1, 4, 7, 13])
def test_counted_bytes_are_the_tables(
    wire: str, reduce: str, size: int, world_size: int, num_micro_batches: int
) -> None:
    counted = threads.run(world_size, lambda own: count_bytes(own, num_micro_batches, wire, reduce, size))
    load = make_load(size, num_micro_batches, world_size, reduce)
    sums = WIRES[wire].traffic(load)
    wanted = [sum(one.num_bytes[rank] for one in sums) for rank in range(world_size)]
    assert [num_bytes for num_bytes, _ in counted] == wanted
    assert {pieces for _, pieces in counted} == {WIRES[wire].num_pieces(load)}


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 15])
@pytest.mark.parametrize("num_micro_batches", [1, 4, 7, 17])
def test_counted_bytes_of_a_sharded_update_are_the_tables(wire: str, world_size: int, num_micro_batches: int) -> None:
    def count(own: Threads) -> int:
        exchange = make_exchange(own, wire, sharded=True)
        exchange.sum(num_micro_batches, lambda _number, grads, _tail: grads.fill(np.float32(1)))
        Sharded(exchange.transport, segments(SIZE, world_size)).all_gather(np.zeros(SIZE, np.float32))
        return exchange.bytes_sent

    load = make_load(SIZE, num_micro_batches, world_size, "ordered")._replace(sharded=True)
    sums = WIRES[wire].traffic(load)
    wanted = [sum(one.num_bytes[rank] for one in sums) for rank in range(world_size)]
    assert threads.run(world_size, count) == wanted


@pytest.mark.parametrize("one_shot", [False, True])
def test_messages_by_hand(one_shot: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three ranks of 2, 1 and 0 pieces: to owners or to all, and a tail of its own."""
    monkeypatch.setattr(traffic, "ONE_SHOT_BYTES", 1 << 30 if one_shot else 0)
    found = traffic.ordered(3 * 1024, [2, 1, 0], lambda n: 4 * n, exact=True)
    assert found.num_messages == ((8, 4, 2) if one_shot else (8, 5, 3))
    assert found.rounds == (1 if one_shot else 2)
