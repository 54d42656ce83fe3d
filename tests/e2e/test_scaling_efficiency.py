"""The scaling script: what it writes, going on after an interruption, what it refuses; on the machines of a host file too."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, call_ddpgd, in_lab, run_module

SCRIPT = ("ddpgd", "scaling")
SMALL = ("--ranks", "1,2", "--repetitions", "1", "--seconds", "0.02", "--micro-batch", "64")
MODES = ("--modes", "weak,apart")
FLAGS = ("--", "--data", "synthetic", "--hidden", "16")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small measurement, interrupted once and gone on with."""
    folder = tmp_path_factory.mktemp("scaling") / "out"
    command = [
        sys.executable,
        "-m",
        *SCRIPT,
        "--out",
        str(folder),
        *SMALL,
        *MODES,
        "--target",
        "0.4",
        "--samples",
        "6000",
    ]
    with subprocess.Popen([*command, *FLAGS], stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        while not ((folder / "results.json").exists() and json.loads((folder / "results.json").read_text())["runs"]):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 75
        assert "the same command continues" in process.stderr.read()
    before = json.loads((folder / "results.json").read_text())
    assert not before["finished"]
    done = run_module(*SCRIPT, "--out", folder, *SMALL, *MODES, "--target", "0.4", "--samples", "6000", *FLAGS)
    assert done.returncode == 0, done.stderr
    after = json.loads((folder / "results.json").read_text())
    assert after["runs"][: len(before["runs"])] == before["runs"]
    assert after["finished"]
    assert "Weak scaling, float32: 2 ranks do" in done.stdout
    return folder


def test_every_case_has_its_row(measured: Path) -> None:
    with (measured / "results.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [(row["mode"], row["ranks"]) for row in found] == [
        ("weak", "1"), ("weak", "2"), ("apart", "2"),
    ]  # fmt: skip
    for row in found:
        assert float(row["samples_per_s"]) > 0
        parts = [float(row[f"share_{part}"]) for part in ("compute", "update", "bubble", "wait", "exchange")]
        assert sum(parts) == pytest.approx(1)
    assert [float(row["efficiency"]) for row in found if row["ranks"] == "1"] == [1.0]
    assert all(float(row["target_s"]) > 0 for row in found if row["mode"] != "apart")


def test_the_page_needs_no_other_file(measured: Path) -> None:
    page = (measured / "index.html").read_text()
    assert "Weak scaling, float32: 2 ranks do" in page
    assert page.count("<svg") == 2
    assert "src=" not in page
    assert "<link" not in page
    for name in ("weak", "shares"):
        assert (measured / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_other_arguments_want_another_folder(measured: Path) -> None:
    before = (measured / "results.json").read_bytes()
    done = call_ddpgd("scaling", "--out", measured, *SMALL, *FLAGS)
    assert done.returncode == 2
    assert "holds a measurement with other arguments; name another folder" in done.stderr
    assert (measured / "results.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--ranks", "two"), "'two' is not a number above 0"),
        (("--wires", "float12"), "'float12' is none of float32"),
        (("--target", "97"), "'97' is not a share between 0 and 1"),
        (("--out", ROOT / "configs"), "configs holds something else; name another folder"),
        (("--out", ROOT / "README.md"), "cannot be a folder (File exists); name another"),
        (("--hosts", "nowhere"), "--hosts: nowhere is not there; name a file as launch/hosts.example"),
        (("--layouts", "2"), "'2' is not tensor x pipeline parallel ranks, as in 2x1"),
        (("--layouts", "3x1"), "--layouts: none of them divides a number of --ranks; type for example"),
        (("--", "--tensor", "2"), "--tensor after --: ddpgd scaling sets it"),
        (("--", "--steps", "5"), "--steps after --: ddpgd scaling sets it"),
        (("--", "--optimizer", "momentun"), "momentum"),
    ],
)
def test_wrong_input_is_one_line(arguments: tuple[str, ...], line: str, tmp_path: Path) -> None:
    done = call_ddpgd("scaling", "--out", tmp_path / "out", *arguments)
    assert done.returncode == 2, done.stderr
    assert line in done.stderr.strip().splitlines()[-1]


@pytest.mark.deep
def test_across_the_machines_of_a_host_file(tmp_path: Path, lab: None) -> None:  # noqa: ARG001
    hosts = tmp_path / "hosts"
    hosts.write_text("host0 slots=1\nhost1 slots=1\n")
    command = [sys.executable, "-m", *SCRIPT, "--out", str(tmp_path / "out"), "--hosts", str(hosts)]
    done = subprocess.run(
        in_lab([*command, *SMALL, "--modes", "strong", "--layouts", "1x2", *FLAGS]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "index.html").read_text()
    assert "Scaling of ddpgd on machines host0, host1" in page
    assert "Strong scaling, float32, pipeline 2: 2 ranks on 2 machines do" in page
