"""The exercises of docs/labs.md: their commands end as they say, and each question knows its answer from what they left."""

import re
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, call_ddpgd
from documents import lines_of
from test_documents import spelled_out

from ddpgd.results.quiz import EXERCISES

ANSWERS = {2: "10", 3: "2", 4: "1", 5: "1", 6: "60", 8: "3", 9: "8", 10: "40"}
"""By the text alone; those of the others are in what the runs end with."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Runs all commands in one folder; returns what those of each exercise said."""
    folder = tmp_path_factory.mktemp("labs")
    said = {0: str(folder)}
    for line in lines_of("bash", "docs/labs.md"):
        done = subprocess.run(spelled_out(line), cwd=folder, capture_output=True, text=True, check=False)
        code = re.search(r"# exit code (\d+)$", line)
        assert done.returncode == (int(code[1]) if code else 0), f"{line}\n{done.stderr}"
        number = re.findall(r"runs/lab-(\d+)", line)[-1]
        said[int(number)] = said.get(int(number), "") + done.stdout + done.stderr
    return said


def quiz(made: dict[int, str], number: int, answer: str) -> int:
    return call_ddpgd("quiz", str(number), answer, "--runs", Path(made[0]) / "runs").returncode


def test_each_exercise_shows_what_it_says(made: dict[int, str]) -> None:
    assert "equal params, bit for bit" in made[1]
    assert "rank 1 is dead: 2 ranks go on from step 50" in made[3]
    assert "equal params, bit for bit" in made[3]
    assert "is stopped, in the" in made[4]
    assert "rank 1 is slow" in made[5]
    assert "the other ranks waited for rank 1" in made[5]
    assert "step 60: params of rank 1 differ" in made[6]
    assert "differ first at step 31: the gradient of rank 1, dense" in made[7]
    assert "step 31: the gradient is not finite" in made[8]
    assert "the checkpoint of step 40 is missing" in made[10]


@pytest.mark.parametrize("number", EXERCISES)
def test_each_question_checks_itself(made: dict[int, str], number: int) -> None:
    shown = {
        1: re.findall(r'"params_sha256": "(\w{4})', (Path(made[0]) / "runs/lab-1-one/summary.json").read_text()),
        7: re.findall(r"rank 1, dense(\d)\.", made[7]),
    }
    right = ANSWERS.get(number) or shown[number][0]
    assert quiz(made, number, right) == 0
    assert quiz(made, number, "none of them") == 1


def test_the_page_has_all_exercises() -> None:
    text = (ROOT / "docs" / "labs.md").read_text()
    assert [int(number) for number in re.findall(r"^## (\d+)\. ", text, re.MULTILINE)] == list(EXERCISES)
    assert [int(number) for number in re.findall(r"`ddpgd quiz (\d+) ANSWER`", text)] == list(EXERCISES)


def test_without_its_runs_an_exercise_says_what_to_do(tmp_path: Path) -> None:
    done = call_ddpgd("quiz", "3", "2", "--runs", tmp_path)
    assert done.returncode == 2
    assert "make it first" in done.stderr
