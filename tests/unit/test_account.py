"""The first lines of a run."""

import pytest

from ddpgd.config.schema import Config, resolve
from ddpgd.data import synthetic
from ddpgd.run import report


@pytest.mark.parametrize(("world_size", "idle"), [(4, ""), (5, "1 of 5 ranks"), (7, "3 of 7 ranks")])
def test_ranks_without_a_micro_batch_are_told_of(world_size: int, idle: str) -> None:
    config = resolve(Config(global_batch=256, micro_batch=64), world_size)
    lines = report.introduction(
        config, world_size, 1, "threads", "numpy", (784, 10), 7850, 1, synthetic.make(64, 64), "runs/any", (0, 10)
    )
    said = [line for line in lines if " idle" in line]
    assert len(said) == bool(idle)
    if idle:
        assert said[0].startswith(f"WARNING: {idle} idle: type --accumulate 1")
