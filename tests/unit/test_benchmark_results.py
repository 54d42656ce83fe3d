"""Results of benchmarks: the written form is small, whole and read back; git holds no raw samples."""

import json
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cpu.pairs import in_turn, pair_lines
from benchmarks.federated.run import rounds_to_target
from benchmarks.lib.page import PageError
from benchmarks.lib.program import Program, show
from benchmarks.lib.results import between, ratios, spread, write
from ddpgd.errors import InputError
from ddpgd.scaling.processes import RunFailed
from tools.netlab.main import LabError

ROOT = Path(__file__).parents[2]
LISTED = subprocess.run(["git", "ls-files", "benchmarks"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
FILES = [ROOT / line for line in LISTED.splitlines()]
"""Files in git; a user may have measured more."""

MOST_BYTES = 1 << 20
MOST_WORDS = 2500
LONGEST_LIST = 32
"""Lists of numbers in results are short, such as a network's sizes."""


def test_a_record_a_line_with_few_digits(tmp_path: Path) -> None:
    found = {
        "command": "x",
        "cases": [{"time_s": spread([1 / 3, 2 / 3, 0.1])}, {"time_s": spread([2.0])}],
        "failed": [],
    }
    write(tmp_path / "a.json", found)
    text = (tmp_path / "a.json").read_text()
    assert text.splitlines()[3].strip() == '{"time_s": {"n": 3, "median": 0.33333, "min": 0.1, "max": 0.66667}},'
    assert json.loads(text)["cases"][1]["time_s"] == {"n": 1, "median": 2.0, "min": 2.0, "max": 2.0}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_ratios_are_taken_within_repetitions() -> None:
    assert ratios([1.0, 10.0], [2.0, 20.0]) == {"n": 2, "median": 0.5, "min": 0.5, "max": 0.5}
    assert between(spread([0.001, 0.003, 0.002]), ".1f", 1000) == "2.0 (1.0 to 3.0)"


def test_pairs_take_turns_and_begin_with_either() -> None:
    order: list[str] = []

    def timed(name: str, value: float) -> float:
        order.append(name)
        return value

    found = in_turn(lambda: timed("a", 3.0), lambda: timed("b", 2.0), 3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    first, second = pair_lines(("a", "b"), "us", ".1f", found)
    assert first == "- a: 3.0 (3.0 to 3.0) us; b: 2.0 (2.0 to 2.0) us"
    assert second == "- a over b, by pair: 1.500, 1.500, 1.500; median 1.500"


def test_benchmarks_stay_small() -> None:
    files = [
        path for path in (ROOT / "benchmarks").rglob("*") if path.suffix in (".md", ".json", ".png", ".svg", ".csv")
    ]
    assert sum(path.stat().st_size for path in files) < MOST_BYTES
    assert len((ROOT / "benchmarks" / "exchange" / "exchange.md").read_text().split()) <= MOST_WORDS
    pages = "".join(path.read_text() for path in files if path.suffix == ".md")
    assert all(path.name in pages for path in files if path.suffix in (".png", ".svg")), "a picture that no page shows"


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".json"], ids=lambda path: path.name)
def test_results_hold_no_raw_samples(path: Path) -> None:
    def check(value: Any) -> None:
        if isinstance(value, dict):
            for one in value.values():
                check(one)
        elif isinstance(value, list):
            numbers = [one for one in value if isinstance(one, float)]
            assert len(numbers) <= LONGEST_LIST
            for one in value:
                check(one)

    check(json.loads(path.read_text()))


def test_a_program_tells_failures_in_one_line_and_by_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    def work(failure: Exception) -> bool:
        raise failure

    program = Program("bench_x")
    assert program.run(lambda: True) == 0
    assert program.run(lambda: False) == 1
    assert capsys.readouterr().err == ""
    failures = [RunFailed("a"), InputError("b"), LabError("c"), PageError("d"), OSError("e")]
    assert [program.run(partial(work, failure)) for failure in failures] == [1, 2, 2, 2, 2]
    assert capsys.readouterr().err == "".join(f"bench_x: {letter}\n" for letter in "abcde")


@pytest.mark.parametrize(
    ("points", "rounds"),
    [
        ([(10, 0.5), (20, 0.9)], 17.5),
        ([(10, 0.7), (20, 0.6), (30, 0.9)], 25.0),
        ([(5, 0.8)], 5.0),
        ([(10, 0.5), (20, 0.7)], None),
    ],
)
def test_rounds_to_a_target_are_read_from_a_monotone_curve(
    points: list[tuple[int, float]], rounds: float | None
) -> None:
    found = rounds_to_target(points, 0.8)
    assert found == (rounds and pytest.approx(rounds))


def test_lines_are_printed_or_put_into_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- here --><!-- end of here -->\nafter\n")
    show(["1", "2"])
    assert capsys.readouterr().out == "1\n2\n"
    show(["1", "2"], page, "here")
    assert "1\n2" in page.read_text()
    with pytest.raises(PageError):
        show(["1"], page, "there")
