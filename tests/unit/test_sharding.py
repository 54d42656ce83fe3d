"""The sharded optimizer: no bit of a run, a record or a checkpoint depends on it, and each rank holds its part alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpgd.comm.sharding import Sharded
from ddpgd.comm.transports import threads
from ddpgd.comm.transports.threads import Threads
from ddpgd.comm.windows import segments
from ddpgd.comm.wires import WIRES
from ddpgd.errors import InputError
from ddpgd.optim.rules import RULES
from ddpgd.run import checkpoint
from runs import records, train

WAYS: dict[str, dict[str, Any]] = {
    **{f"{rule}, clipped": {"optimizer": rule, "clip_norm": 0.2} for rule in RULES},
    "elements clipped": {"clip_value": 0.01},
    **{wire: {"wire": wire} for wire in WIRES},
    "fast": {"reduce": "fast"},
    "one micro-batch, so that some ranks have none": {"global_batch": 14, "micro_batch": 7},
    "no hidden layer": {"hidden": ()},
    "a network of one block for each of few ranks": {"hidden": (1,)},
}


def arrays(folder: Path) -> dict[str, Any]:
    return checkpoint.load(checkpoint.newest_first(folder / "checkpoints")[0]).arrays


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.usefixtures("few_digits")
def test_runs_records_and_checkpoints_are_equal(way: str, world_size: int, tmp_path: Path) -> None:
    done = {
        shard: train(tmp_path / shard, world_size, shard_optimizer=shard, **WAYS[way])
        for shard in ("on", "off", "auto")
    }
    assert len({one["params_sha256"] for one in done.values()}) == 1
    assert records(tmp_path / "on") == records(tmp_path / "off") == records(tmp_path / "auto")
    on, off = arrays(tmp_path / "on"), arrays(tmp_path / "off")
    assert on.keys() == off.keys()
    for name, array in off.items():
        np.testing.assert_array_equal(on[name], array, err_msg=name)


@pytest.mark.parametrize(
    ("before", "after"), [(("on", 3), ("off", 2)), (("off", 2), ("on", 4)), (("on", 4), ("on", 3))]
)
@pytest.mark.parametrize("rule", [rule.name for rule in RULES.values() if rule.state])
@pytest.mark.usefixtures("few_digits")
def test_a_run_goes_on_with_other_parts(
    before: tuple[str, int], after: tuple[str, int], rule: str, tmp_path: Path
) -> None:
    given = {"optimizer": rule, "lr": 0.01, "checkpoint_every": 5}
    whole = train(tmp_path / "whole", **given)
    train(tmp_path / "cut", before[1], shard_optimizer=before[0], **given)
    at = checkpoint.newest_first(tmp_path / "cut" / "checkpoints")[-1]
    on = train(tmp_path, after[1], shard_optimizer=after[0], resume=str(at), run_dir=str(tmp_path / "on"))
    assert on["params_sha256"] == whole["params_sha256"]


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.usefixtures("few_digits")
def test_a_rank_holds_its_part_alone(world_size: int, tmp_path: Path) -> None:
    whole = train(tmp_path / "off", world_size, optimizer="adam", shard_optimizer="off")["optimizer_bytes"]
    part = train(tmp_path / "on", world_size, optimizer="adam", shard_optimizer="on")["optimizer_bytes"]
    num_blocks = whole // (2 * 4 * 1024)
    assert part == 2 * 4 * 1024 * -(-num_blocks // world_size)


@pytest.mark.parametrize("size", [0, 1024, 10 * 1024])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_all_gather_fills_the_parts_of_others(size: int, world_size: int) -> None:
    def work(transport: Threads) -> None:
        shares = Sharded(transport, segments(size, world_size))
        for vector in (np.zeros(size, np.float32), np.zeros(size, np.uint16)):
            for round in range(3):
                vector.fill(0)
                shares.part(vector).fill(10 * round + transport.rank + 1)
                shares.all_gather(vector)
                for rank, span in enumerate(segments(size, world_size)):
                    assert (vector[span] == 10 * round + rank + 1).all()

    threads.run(world_size, work)


@pytest.mark.usefixtures("few_digits")
def test_local_steps_are_not_sharded(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--shard-optimizer: with --sync local"):
        train(tmp_path / "run", 2, sync="local", shard_optimizer="on")
    train(tmp_path / "run", 2, sync="local", shard_optimizer="auto")
