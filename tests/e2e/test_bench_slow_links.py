"""The benchmark of slow links: a trial makes JSON, tables and plots, and goes on where it stopped."""

import json
from pathlib import Path

import pytest
from conftest import call_module
from conftest import run_module as run

GIVEN = ("--links", "shm", "--networks", "784-128-10", "--repetitions", "1", "--epochs", "1")


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A trial's folder, and what it printed."""
    folder = tmp_path_factory.mktemp("trial")
    done = run("benchmarks.slow_links.run", *GIVEN, "--contestants", "local-64", "--out", folder / "found.json")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_the_json_holds_steps_to_accuracies_and_times_of_steps(trial: tuple[Path, str]) -> None:
    found = json.loads((trial[0] / "found.json").read_text())
    assert {"command", "commit", "hardware", "versions", "environment"} <= found["starts"][0].keys()
    alone, local = found["curves"]
    assert alone["setting"] == "ddpgd train, 1 rank"
    assert local["setting"] == "ddpgd train --sync local --local-steps 64 --wire float16"
    for one in (alone, local):
        assert one["steps_to"].keys() == {"0.97", "0.98"}
        assert one["accuracy"] > 0.9
    # Four rounds, the last of 43 steps: a float16 both ways of half of the params, and exponents and a tail.
    assert local["wire_bytes"] == pytest.approx(4 * 2 * 101_770 / 235, rel=0.02)
    assert alone["wire_bytes"] == 0
    assert {one["setting"] for one in found["steps"]} == {alone["setting"], local["setting"]}
    assert all(one["step_s"]["1"] > 0 for one in found["steps"])


def test_what_is_there_is_not_measured_again(trial: tuple[Path, str]) -> None:
    folder, _ = trial
    before = json.loads((folder / "found.json").read_text())
    done = run("benchmarks.slow_links.run", *GIVEN, "--contestants", "local-64", "--out", folder / "found.json")
    assert done.returncode == 0, done.stderr
    after = json.loads((folder / "found.json").read_text())
    assert [after[kind] for kind in ("curves", "steps")] == [before[kind] for kind in ("curves", "steps")]


def test_the_tables_hold_one_rank_and_a_conclusion(trial: tuple[Path, str]) -> None:
    folder, printed = trial
    assert "**784-128-10, to 97 %: does a second host pay?**" in printed
    assert "| ddpgd, one rank, no link | " in printed
    assert "| ddpgd, 64 local steps, float16 | " in printed
    page = folder / "page.md"
    page.write_text("before\n<!-- slow links -->\nold\n<!-- end of slow links -->\nafter\n")
    done = run("benchmarks.slow_links.report", folder / "found.json", "--page", page)
    assert done.returncode == 0, done.stderr
    assert page.read_text().startswith("before\n<!-- slow links -->\n\n**784-128-10, to 97 %")
    assert "\n- command: " in page.read_text()
    assert "old" not in page.read_text()


def test_the_plot_is_drawn(trial: tuple[Path, str]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (pip install 'ddpgd[plots]')")
    folder, _ = trial
    done = run("benchmarks.slow_links.plot", folder / "found.json", folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "slow-links-784-128-10.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("script", "arguments", "wanted"),
    [
        ("benchmarks.slow_links.run", ("--links", "wifi"), "'wifi' is none of shm, 1gbit"),
        ("benchmarks.slow_links.run", ("--contestants", "smoke"), "'smoke' is none of one-rank, float32"),
        ("benchmarks.slow_links.run", ("--epochs", "0"), "--epochs: '0' is not a number above 0"),
        (
            "benchmarks.slow_links.run",
            ("--out", __file__, *GIVEN),
            "is not of benchmarks.slow_links.run; name another file",
        ),
        ("benchmarks.slow_links.report", ("/no/such.json",), "/no/such.json"),
    ],
)
def test_wrong_input_is_one_line(script: str, arguments: tuple[str, ...], wanted: str) -> None:
    done = call_module(script, *arguments)
    assert done.returncode == 2
    assert wanted in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
