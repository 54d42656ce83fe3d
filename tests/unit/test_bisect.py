"""The flight recorder and `ddpgd bisect`: the first step, phase, rank and element that differ, in every layout."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpgd.errors import InputError, NonFiniteError
from ddpgd.results import bisect
from ddpgd.run import recording
from ddpgd.training.flight_recorder import ROW_ELEMENTS, checksums
from runs import train

GIVEN: dict[str, Any] = {
    "hidden": (24, 12),
    "global_batch": 50,
    "micro_batch": 7,
    "lr": 0.05,
    "steps": 12,
    "log_every": 4,
    "check_every": 0,
    "record": True,
}
LAYOUTS: list[tuple[int, dict[str, Any]]] = [
    (1, {}),
    (2, {}),
    (3, {"shard_optimizer": "on"}),
    (3, {"shard_optimizer": "off"}),
    (2, {"wire": "topk"}),
    (4, {"shards": 2, "tensor": 2}),
    (4, {"pipeline": 2}),
]


def said(*runs: Path) -> str:
    [line] = bisect.lines({"runs": [str(run) for run in runs]})
    return line


@pytest.mark.parametrize(("num_ranks", "given"), LAYOUTS)
def test_a_run_recorded_changes_no_bit_and_equals_itself(num_ranks: int, given: dict[str, Any], tmp_path: Path) -> None:
    plain = train(tmp_path / "plain", num_ranks, **GIVEN | given | {"record": False})
    for name in ("one", "two"):
        assert train(tmp_path / name, num_ranks, **GIVEN | given)["params_sha256"] == plain["params_sha256"]
    assert said(tmp_path / "one", tmp_path / "two").endswith("equal in all 12 steps that are recorded")
    assert said(tmp_path / "one").endswith("equal in all 12 steps that are recorded")
    assert not (tmp_path / "plain" / "record").exists()


@pytest.mark.parametrize(("num_ranks", "given"), LAYOUTS)
@pytest.mark.parametrize("step", [0, 7])
def test_a_flipped_gradient_is_named_to_the_element(
    num_ranks: int, given: dict[str, Any], step: int, tmp_path: Path
) -> None:
    rank = num_ranks - 1
    train(tmp_path / "whole", num_ranks, **GIVEN | given)
    train(tmp_path / "hit", num_ranks, **GIVEN | given, inject=f"flip-gradient@{rank}:{step}")
    found = said(tmp_path / "whole", tmp_path / "hit")
    assert f"differ first at step {step + 1}: the gradient of rank {rank}, dense" in found
    assert found.count("[") == 1


def test_a_flip_in_params_is_named_in_one_run_and_between_two(tmp_path: Path) -> None:
    given = GIVEN | {"shard_optimizer": "off"}
    train(tmp_path / "whole", 3, **given)
    with pytest.raises(Exception, match="params of rank 1"):
        train(tmp_path / "hit", 3, **given, inject="flip@1:5")
    for found in (said(tmp_path / "hit"), said(tmp_path / "whole", tmp_path / "hit")):
        assert "differ first at step 6: the params of rank 1, dense" in found
        assert found.count("[") == 1


def test_a_flip_in_a_message_is_named_where_it_arrived(tmp_path: Path) -> None:
    given = GIVEN | {"shard_optimizer": "on"}
    train(tmp_path / "whole", 3, **given)
    train(tmp_path / "hit", 3, **given, inject="flip-message@2:5")
    found = said(tmp_path / "whole", tmp_path / "hit")
    assert "differ first at step 6: the sum of rank 2, dense" in found
    assert found.count("[") == 1


def test_runs_on_other_ranks_are_compared_in_what_all_have_together(tmp_path: Path) -> None:
    train(tmp_path / "two", 2, **GIVEN, shard_optimizer="on")
    train(tmp_path / "three", 3, **GIVEN, shard_optimizer="off")
    assert said(tmp_path / "two", tmp_path / "three").endswith("equal in all 12 steps that are recorded")
    train(tmp_path / "hit", 3, **GIVEN, shard_optimizer="off", inject="flip-gradient@1:5")
    assert "differ first at step 6: the sum, elements of dense" in said(tmp_path / "two", tmp_path / "hit")
    train(tmp_path / "seed", 3, **GIVEN, seed=1)
    assert "step 1: the params, elements of dense1.weight, dense1.bias, dense2.weight" in said(
        tmp_path / "two", tmp_path / "seed"
    )


def test_other_samples_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ddpgd.run import build

    train(tmp_path / "whole", 2, **GIVEN)
    order = build._order

    def swapped(seed: int, num_samples: int, epoch: int) -> Any:
        found = order(seed, num_samples, epoch).copy()
        found[[0, 200]] = found[[200, 0]]
        return found

    monkeypatch.setattr(build, "_order", swapped)
    train(tmp_path / "other", 2, **GIVEN)
    assert "differ first at step 1: the input of rank 0" in said(tmp_path / "whole", tmp_path / "other")


def test_a_run_that_goes_on_counts_from_where_it_does(tmp_path: Path) -> None:
    train(tmp_path / "whole", 2, **GIVEN)
    train(tmp_path / "cut", 2, **GIVEN, checkpoint_every=6)
    resumed = tmp_path / "cut" / "checkpoints" / "step-00000006.safetensors"
    for num_ranks in (3, 1):
        train(tmp_path / "cut", num_ranks, resume=str(resumed), record=True, hidden=GIVEN["hidden"])
        assert said(tmp_path / "whole", tmp_path / "cut").endswith("equal in all 12 steps that are recorded")
        steps = recording.read(tmp_path / "cut")
        assert (len(steps[6]), len(steps[7])) == (2, num_ranks)


def test_a_gradient_that_is_not_a_number_is_named(tmp_path: Path) -> None:
    train(tmp_path / "whole", 2, **GIVEN)
    with pytest.raises(NonFiniteError, match="step 6: the gradient is not finite in the sum over all ranks"):
        train(tmp_path / "hit", 2, **GIVEN, inject="nan@1:5")
    assert "step 6: the gradient of rank 1, dense1.weight[0, 0]" in said(tmp_path / "whole", tmp_path / "hit")


@pytest.mark.parametrize("element", [0, 1, 511, 512, 1300, 2047])
@pytest.mark.parametrize("bit", [0, 12, 23, 31])
def test_checksums_tell_which_word_has_changed(element: int, bit: int) -> None:
    vector = np.random.default_rng(0).standard_normal(4 * ROW_ELEMENTS).astype(np.float32)
    changed = vector.copy()
    changed.view(np.uint32)[element] ^= np.uint32(1 << bit)
    starts = [0, 2 * ROW_ELEMENTS]
    header = recording.Header(0, [1, 1, 1], len(vector), starts, [["whole", 0, [2048]]], True)
    words = [checksums(one, 0, starts, len(vector)) for one in (vector, changed)]
    assert bisect._place(words[0], words[1], header) == f"whole[{element}]"


def test_parts_have_the_checksums_of_the_whole_but_for_columns() -> None:
    vector = np.random.default_rng(0).standard_normal(4 * ROW_ELEMENTS).astype(np.float32)
    starts = [0, 2 * ROW_ELEMENTS]
    parts = [
        checksums(vector[first : first + ROW_ELEMENTS], first, starts, len(vector))
        for first in range(0, 2048, ROW_ELEMENTS)
    ]
    assert (sum(parts) == checksums(vector, 0, starts, len(vector)))[:-4].all()


def _with_other_word(content: bytes, number: int) -> bytes:
    place = content.index(b"\n") + 1 + 8 * number
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


DAMAGES: list[tuple[Callable[[bytes], bytes], str]] = [
    (lambda _content: b"", "not a recording of ddpgd"),
    (lambda content: content[:40], "not a recording of ddpgd"),
    (lambda content: content.replace(b'"rank": 0', b'"rank": -1'), "its numbers are no places"),
    (lambda content: content.replace(b'"size"', b'"sizes"'), "not a recording of ddpgd"),
    (lambda content: content.replace(b'"unit_starts": [0', b'"unit_starts": [9999999'), "its units do not follow"),
    (lambda content: content.partition(b"\n")[0] + b"\n", "holds no step"),
    (lambda content: _with_other_word(content, 2), "row 1 is damaged"),
    (lambda content: content.replace(b'"shape": [1', b'"shape": [1000000000000'), "rank-1.words is missing"),
]


@pytest.mark.parametrize(("damage", "told"), DAMAGES)
def test_a_damaged_recording_is_refused(damage: Callable[[bytes], bytes], told: str, tmp_path: Path) -> None:
    train(tmp_path / "run", 1, **GIVEN)
    [file] = (tmp_path / "run" / "record").iterdir()
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(InputError, match=told):
        said(tmp_path / "run")


def test_a_start_without_steps_is_passed_over(tmp_path: Path) -> None:
    train(tmp_path / "run", 2, **GIVEN)
    file = tmp_path / "run" / "record" / "from-0-rank-0.words"
    header = file.read_bytes().partition(b"\n")[0] + b"\n"
    file.with_name("from-5-rank-0.words").write_bytes(header)
    assert "equal in all" in said(tmp_path / "run")


def test_a_recording_without_a_rank_is_refused(tmp_path: Path) -> None:
    train(tmp_path / "run", 3, **GIVEN)
    (tmp_path / "run" / "record" / "from-0-rank-1.words").unlink()
    for runs in (("run",), ("run", "run")):
        with pytest.raises(InputError, match=r"from-0-rank-1\.words is missing: 3 ranks have recorded"):
            said(*(tmp_path / run for run in runs))


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    train(tmp_path / "one", 1, **GIVEN)
    train(tmp_path / "wide", 1, **GIVEN | {"hidden": (25, 12)})
    for runs, told in (
        (("one", "wide"), "other networks"),
        (("one", "none"), "train with --record"),
        (("one", "one", "one"), "name two"),
    ):
        with pytest.raises(InputError, match=told):
            said(*(tmp_path / run for run in runs))
    with pytest.raises(InputError, match="drop it, or --sync local"):
        train(tmp_path / "local", 2, **GIVEN, sync="local", local_steps=3)
    shutil.rmtree(tmp_path / "one" / "record")
    with pytest.raises(InputError, match="train with --record"):
        said(tmp_path / "one")
