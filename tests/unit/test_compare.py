"""Two runs are compared at the steps that both logged; the first difference is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from ddpgd.errors import InputError
from ddpgd.run.compare import Difference, compare


def record(step: int, first: str = "a", second: str = "b") -> dict[str, Any]:
    layers = {"dense1.weight": first, "dense2.weight": second}
    return {"step": step, "params_hash": first + second, "layer_hashes": layers}


def write(folder: Path, *records: dict[str, Any]) -> Path:
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    return folder


CASES = [
    ([record(1), record(2)], [record(1), record(2)], (2, None)),
    ([record(1), record(2), record(3)], [record(2), record(4)], (1, None)),
    ([record(1), record(2)], [record(1), record(2, "x")], (2, Difference(2, ["dense1.weight"], 1))),
    ([record(5)], [record(5, "a", "x")], (1, Difference(5, ["dense2.weight"], 0))),
    (
        [record(1), record(2), record(3)],
        [record(1, "a", "x"), record(2, "x", "x"), record(3)],
        (3, Difference(1, ["dense2.weight"], 0)),
    ),
    (
        [record(1), record(2), record(3)],
        [record(1), record(3, "x", "x")],
        (2, Difference(3, ["dense1.weight", "dense2.weight"], 1)),
    ),
]


@pytest.mark.parametrize(("left", "right", "wanted"), CASES)
def test_the_first_difference(tmp_path: Path, left: list, right: list, wanted: tuple[int, Difference | None]) -> None:
    first, second = write(tmp_path / "first", *left), write(tmp_path / "second", *right)
    assert compare(first, second) == compare(second, first)
    num_common, difference = compare(first, second)
    assert difference == wanted[1]
    assert num_common == wanted[0]


def test_other_networks_differ_in_what_only_one_has(tmp_path: Path) -> None:
    first = write(tmp_path / "first", {"step": 1, "params_hash": "1", "layer_hashes": {"dense1.weight": "a"}})
    second = write(
        tmp_path / "second",
        {"step": 1, "params_hash": "2", "layer_hashes": {"dense1.weight": "a", "dense2.weight": "b"}},
    )
    assert compare(first, second)[1] == Difference(1, ["dense2.weight"], 0)


def test_hashes_that_contradict_each_other_are_a_difference(tmp_path: Path) -> None:
    first, second = write(tmp_path / "first", record(1)), write(tmp_path / "second", record(1) | {"params_hash": "x"})
    assert compare(first, second)[1] == Difference(1, ["a tensor without a hash"], 0)


def test_nothing_in_common(tmp_path: Path) -> None:
    first, second = write(tmp_path / "first", record(1)), write(tmp_path / "second", record(2))
    with pytest.raises(InputError, match="no logged step in common"):
        compare(first, second)


@pytest.mark.parametrize("content", [None, "{}\n", "{nonsense}\n", '{"steps": 1}\n', "[1}\n"])
def test_what_is_no_run_folder_is_refused(tmp_path: Path, content: str | None) -> None:
    first = write(tmp_path / "first", record(1))
    second = tmp_path / "second"
    second.mkdir()
    if content is not None:
        (second / "metrics.jsonl").write_text(content)
    with pytest.raises(InputError, match=str(second)):
        compare(first, second)
