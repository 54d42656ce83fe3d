"""Replicas are proved equal during a run: a flipped bit is found, named, and healed where most ranks agree."""

from pathlib import Path
from typing import Any

import pytest

from ddpgd.errors import ReplicasDiffer
from ddpgd.training.replicas import Checksums, Difference, differences
from runs import train

GIVEN: dict[str, Any] = {"steps": 12, "check_every": 3, "shard_optimizer": "off", "optimizer": "adam", "lr": 0.001}


def sums(*values: int) -> Checksums:
    return {f"dense{number + 1}.weight {64 * number}": value for number, value in enumerate(values)}


def params(*of_ranks: Checksums) -> list[list[tuple[str, Any, Checksums]]]:
    return [[("params", "all", own)] for own in of_ranks]


@pytest.mark.parametrize(
    ("everybody", "found"),
    [
        (params(sums(1, 2)), []),
        (params(sums(1, 2), sums(1, 2)), []),
        (params(sums(1, 2), sums(1, 3)), [Difference(1, "params", "dense2.weight", None, [0])]),
        (params(sums(9, 3), sums(1, 2), sums(1, 2)), [Difference(0, "params", "dense1.weight", 1, [1, 2])]),
        (
            params(sums(1, 2), sums(1, 2), sums(1, 4), sums(5, 2)),
            [
                Difference(2, "params", "dense2.weight", None, [0, 1]),
                Difference(3, "params", "dense1.weight", None, [0, 1]),
            ],
        ),
        ([[("params", place, sums(place))] for place in range(4)], []),
        (
            [[("params", 0, sums(1)), ("optimizer.exp_avg", rank % 2, {"": rank // 2})] for rank in range(4)],
            [
                Difference(2, "optimizer.exp_avg", "", None, [0]),
                Difference(3, "optimizer.exp_avg", "", None, [1]),
            ],
        ),
    ],
)
def test_ranks_that_differ_from_most_with_the_same_elements_are_found(
    everybody: list[list[tuple[str, Any, Checksums]]], found: list[Difference]
) -> None:
    assert differences(everybody) == found


LAYOUTS: list[tuple[int, dict[str, Any], str, int]] = [
    (2, {}, "step 6: params differ on ranks 0 and 1, first in", 3),
    (3, {}, "step 6: params of rank 1 differ from those of ranks 0 and 2, first in", 3),
    (4, {"shards": 2, "tensor": 2}, "step 6: params differ on ranks 1 and 3, first in dense", 3),
    (4, {"pipeline": 2}, "step 6: params differ on ranks 1 and 3, first in dense", 3),
    (
        3,
        {"sync": "local", "local_steps": 3},
        "step 9: params of rank 1 differ from those of ranks 0 and 2, first in",
        6,
    ),
]


@pytest.mark.parametrize(("world_size", "more", "line", "last_equal"), LAYOUTS)
def test_a_flipped_bit_is_found_before_anything_is_saved(
    world_size: int, more: dict[str, Any], line: str, last_equal: int, tmp_path: Path
) -> None:
    with pytest.raises(ReplicasDiffer) as told:
        train(tmp_path / "run", world_size, **GIVEN | more, checkpoint_every=3, inject="flip@1:5")
    assert told.value.exit_code == 4
    assert str(told.value).startswith(line)
    assert f"all were equal at step {last_equal}" in str(told.value)
    assert ("--heal" in str(told.value)) == (" of rank 1 " in line)
    saved = sorted((tmp_path / "run" / "checkpoints").glob("step-*"))
    assert [file.stem for file in saved] == [f"step-{step:08}" for step in range(3, last_equal + 1, 3)]
    undisturbed = train(tmp_path / "whole", world_size, **GIVEN | more)
    resumed = train(tmp_path / "run", world_size, resume="")
    assert resumed["params_sha256"] == undisturbed["params_sha256"]


def test_a_flip_is_healed_where_most_ranks_agree(tmp_path: Path) -> None:
    """With a learning rate of 0 the flip has changed nothing else."""
    given = GIVEN | {"lr": 1e-30, "weight_decay": 0.0}
    healed = train(tmp_path / "healed", 3, **given, heal=True, inject="flip@1:5")
    undisturbed = train(tmp_path / "whole", 3, **given)
    assert healed["params_sha256"] == undisturbed["params_sha256"]


def test_two_ranks_cannot_heal(tmp_path: Path) -> None:
    with pytest.raises(ReplicasDiffer):
        train(tmp_path / "run", 2, **GIVEN, heal=True, inject="flip@1:5")


def test_ranks_that_are_not_compared_are_still_compared_before_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ReplicasDiffer, match="step 12: params of rank 1"):
        train(tmp_path / "run", 3, **GIVEN | {"check_every": 0}, inject="flip@1:5")
