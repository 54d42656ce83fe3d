"""The benchmark of the exchange: a trial makes JSON, tables and plots; wrong input is one line."""

import json
from pathlib import Path

import pytest
from conftest import call_module
from conftest import run_module as run

SIZES = (4096, 16384)
CONTESTANTS = {"library", "fast", "ordered", "one shot", "segments", "float16", "float16+", "bfloat16", "int8"}


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A trial's folder, and what it printed."""
    folder = tmp_path_factory.mktemp("trial")
    given = ["--links", "shm", "--ranks", "2", "--sizes", ",".join(map(str, SIZES)), "--repetitions", "2"]
    done = run("benchmarks.exchange.run", *given, "--out", folder / "found.json")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_the_json_holds_median_least_and_most_of_every_case(trial: tuple[Path, str]) -> None:
    found = json.loads((trial[0] / "found.json").read_text())
    assert {"command", "commit", "hardware", "versions", "environment"} <= found.keys()
    (group,) = found["groups"]
    assert (group["link"], group["num_ranks"], group["left_out"]) == ("shm", 2, [])
    assert group["ping_pong"]["alpha_s"] > 0
    assert min(group["ping_pong"]["bytes_per_s_by_length"].values()) > 0
    plain = [case for case in group["cases"] if case["num_micro_batches"] == 2]
    assert [case["size_bytes"] for case in plain] == list(SIZES)
    for case in plain:
        assert case["contestants"].keys() == CONTESTANTS
        assert all(one["time_s"]["n"] == 2 for one in case["contestants"].values())
        assert case["one_shot_over_segments"] > 0
        # Half the vector to its owner, and half to everybody, and the tail of 32 bytes.
        assert case["contestants"]["segments"]["bytes_sent"] == case["size_bytes"] + 32
        assert case["contestants"]["float16"]["bytes_sent"] < 0.6 * case["size_bytes"]
    ragged = [case for case in group["cases"] if case["num_micro_batches"] == 18]
    assert max(case["contestants"]["ordered"]["num_pieces"] for case in ragged) > 1


def test_the_tables_are_printed_and_written_into_a_page(trial: tuple[Path, str]) -> None:
    folder, printed = trial
    assert "**shared memory, 2 ranks, 2 micro-batches**" in printed
    assert "| 4 KiB | 2 (few) |" in printed
    page = folder / "page.md"
    page.write_text("before\n<!-- exchange -->\nold\n<!-- end of exchange -->\nafter\n")
    done = run("benchmarks.exchange.report", folder / "found.json", "--page", page)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert text.startswith("before\n<!-- exchange -->\n\n- command: ")
    assert text.endswith("<!-- end of exchange -->\nafter\n")
    assert "old" not in text
    assert "| shared memory | " not in text, "sizes of no network stand in the printed tables alone"


def test_the_plot_is_drawn(trial: tuple[Path, str]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (pip install 'ddpgd[plots]')")
    folder, _ = trial
    done = run("benchmarks.exchange.plot", folder / "found.json", folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "exchange-shm-2.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("script", "arguments", "wanted"),
    [
        ("benchmarks.exchange.run", ("--links", "wifi"), "--links: 'wifi' is none of shm, 1gbit"),
        ("benchmarks.exchange.run", ("--ranks", "5"), "--ranks: '5' is none of 2, 3, 4"),
        ("benchmarks.exchange.run", ("--sizes", "7"), "--sizes: '7' is not a list of bytes"),
        ("benchmarks.exchange.run", ("--seconds", "0"), "--seconds: '0' is not a number above 0"),
        ("benchmarks.exchange.run", ("--out", "/no/such/folder/a.json"), "cannot be written"),
        ("benchmarks.exchange.run", ("--plots", "/no/such/folder"), "is no folder"),
        ("benchmarks.exchange.run", ("--linkz", "shm"), "--linkz"),
        ("benchmarks.exchange.report", ("/no/such.json",), "/no/such.json"),
        ("benchmarks.exchange.plot", ("/no/such.json", "."), "/no/such.json"),
        ("benchmarks.exchange.steps", ("--networks", "784-1"), "--networks: '784-1' is none of"),
        ("benchmarks.exchange.accuracy", ("--ranks", "0"), "--ranks: '0' is not a number above 0"),
    ],
)
def test_wrong_input_is_one_line(script: str, arguments: tuple[str, ...], wanted: str) -> None:
    if script == "benchmarks.exchange.plot":
        pytest.importorskip("matplotlib", reason="matplotlib is not installed (pip install 'ddpgd[plots]')")
    done = call_module(script, *arguments)
    assert done.returncode == 2
    assert wanted in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not done.stdout
