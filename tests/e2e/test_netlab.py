"""Several hosts on one machine: links that are slow, links that are cut, and nothing left of them afterwards."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import DDPGD, PYTHON, ROOT, call_module, summary
from documents import for_clusters

from patience import slowness

NETLAB = [sys.executable, "-m", "tools.netlab"]
STREAM = [sys.executable, str(Path(__file__).with_name("stream.py"))]
TCP_SHARE = 1448 / 1514  # of a link's rate, what is left for a TCP stream's bytes

HELLO = "from mpi4py import MPI; import socket; w = MPI.COMM_WORLD; print(w.size, w.rank, *w.allgather(socket.gethostname()))"
TALK = """
from mpi4py import MPI
import sys, time
world, started, longest_s = MPI.COMM_WORLD, time.monotonic(), 0.0
while True:
    asked = time.monotonic()
    if world.allreduce(int(asked - started > float(sys.argv[1]))):
        break
    longest_s = max(longest_s, time.monotonic() - asked)
    time.sleep(0.01)
if world.rank == 0:
    print(longest_s)
"""
CONNECT = """
import os, socket, time
address = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
if os.environ["RANK"] == "0":
    with socket.create_server(address) as server:
        server.accept()[0].recv(1)
else:
    while True:
        started = time.monotonic()
        try:
            socket.create_connection(address).close()
            break
        except ConnectionRefusedError:
            time.sleep(0.01)
    print(time.monotonic() - started)
"""
USE = """
import json, sys
from tools.netlab.lab import Lab
with Lab(hosts=3, rate="100mbit") as lab:
    said = [lab.mpirun(sys.argv[1:4], capture=True).stdout for _ in range(2)]
    for rate in ("100mbit", "20mbit", "none"):
        lab.set_rate(rate)
        said.append(lab.each([*sys.argv[4:], "1500000"], capture=True).stdout)
print(json.dumps(said))
"""

WRONG: list[tuple[str, str]] = [
    ("--rate 100 -- true", "rate '100': 8kbit to 100gbit"),
    ("--rate 100mbps -- true", "rate '100mbps'"),
    ("--latency 3 -- true", "latency '3': 1us to 10s"),
    ("--hosts 0 -- true", "--hosts: '0' is not a whole number from 1"),
    ("--hosts 100 -- true", "1 to 99 hosts"),
    ("--ranks-per-host 1.5 -- true", "--ranks-per-host: '1.5'"),
    ("--cut 5 -- true", "--cut: '5' is not a cut"),
    ("--patience soon -- true", "--patience: 'soon'"),
    ("--speed 5 -- true", "--speed"),
    ("--each --ranks-per-host 2 -- true", "leave it out with --each"),
    ("--hosts 2", "no command: type one after --"),
]


def lab(*arguments: str, command: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs netlab.py; whatever comes of it, nothing may be left of it."""
    full = [
        *NETLAB,
        *arguments,
        "--",
        *(command or ["sleep", "0.5"]),
    ]  # Open MPI can hang on a command that ends at once
    process = subprocess.Popen(full, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        said, complained = process.communicate()
    finally:  # a lab that hangs is ended, and what it leaves is seen
        process.terminate()
        process.wait()
    assert left_of(process.pid) == []
    return subprocess.CompletedProcess(full, process.returncode, said, complained)


def left_of(pid: int) -> list[str]:
    """Namespaces, folders and processes of the lab with that pid; what lives in a lab has its name in its environment."""
    name = f"netlab-{pid}-"
    left = [str(path) for folder in ("/run/netns", "/run") for path in Path(folder).glob(f"{name}*")]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if name in (process / "environ").read_text(errors="replace"):
                left.append((process / "cmdline").read_text(errors="replace"))
        except OSError:
            continue
    return left


def refused(done: subprocess.CompletedProcess[str], line: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("netlab: ")
    assert line in done.stderr


@pytest.fixture(scope="module")
def hosts() -> None:
    done = lab("--each")
    if done.returncode:
        pytest.skip(done.stderr.strip())


@pytest.fixture(scope="module")
def open_mpi(hosts: None) -> None:  # noqa: ARG001
    done = lab()
    if done.returncode:
        pytest.skip(done.stderr.strip())


@pytest.mark.parametrize(("arguments", "line"), WRONG, ids=[arguments for arguments, _ in WRONG])
def test_wrong_input_is_one_line(arguments: str, line: str) -> None:
    refused(call_module("tools.netlab.main", *arguments.split()), line)


def test_who_is_not_root_is_told() -> None:
    other = [] if os.geteuid() else ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    if subprocess.run([*other, *NETLAB, "--help"], capture_output=True, check=False).returncode:
        pytest.skip("another user cannot run this Python or read this folder")
    done = subprocess.run([*other, *NETLAB, "--each", "--", "true"], capture_output=True, text=True, check=False)
    refused(done, "want root")


@pytest.mark.skipif(os.geteuid() != 0, reason="who is not root is told that first")
def test_missing_tools_are_named(tmp_path: Path) -> None:
    environment = os.environ | {"PATH": str(tmp_path)}
    command = [*NETLAB, "--each", "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    refused(done, "no ip or tc or unshare or setpriv on PATH: apt install")


@pytest.mark.parametrize("version", ["mpirun (Open MPI) 4.1.6", "HYDRA build details:", None])
def test_mpirun_of_another_kind_is_refused(tmp_path: Path, version: str | None) -> None:
    if version:
        (tmp_path / "mpirun").write_text(f"#!/bin/sh\necho '{version}'\n")
        (tmp_path / "mpirun").chmod(0o755)
    environment = os.environ | {"PATH": str(tmp_path)}
    done = subprocess.run([*NETLAB, "--", "true"], capture_output=True, text=True, env=environment, check=False)
    refused(done, f"says '{version}': a lab wants Open MPI 5" if version else "no mpirun on PATH")


@pytest.mark.usefixtures("open_mpi")
def test_ranks_are_on_hosts_of_their_own() -> None:
    done = lab("--hosts", "2", "--ranks-per-host", "2", command=[sys.executable, "-c", HELLO])
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [f"4 {rank} host0 host0 host1 host1" for rank in range(4)]


@pytest.mark.usefixtures("open_mpi")
def test_what_the_documents_show(tmp_path: Path) -> None:
    shown = {"python ": f"{' '.join(PYTHON)} ", "ddpgd train": f"{' '.join(DDPGD)} train --run-dir {tmp_path}/run"}
    script = for_clusters("python -m tools.netlab", instead=shown)
    done = subprocess.run(["bash", "-euc", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert summary(tmp_path / "run")["world_size"] == 2


@pytest.mark.usefixtures("open_mpi")
def test_a_lab_from_python_changes_its_rate() -> None:
    command = [sys.executable, "-c", USE, sys.executable, "-c", HELLO, *STREAM]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    *hellos, fast, slow, free = json.loads(done.stdout)
    for hello in hellos:
        assert sorted(hello.splitlines()) == [f"3 {rank} host0 host1 host2" for rank in range(3)]
    # Two senders share the one link to host0: the switch's side of it limits.
    for said, rate in ((fast, 100e6), (slow, 20e6)):
        num_bytes, taken_s = map(float, said.split())
        assert num_bytes == 3_000_000
        limit_s = 8 * num_bytes / (rate * TCP_SHARE)
        assert taken_s > 0.95 * limit_s
    assert float(free.split()[1]) < 0.95 * limit_s, "no link limits it"


@pytest.mark.usefixtures("hosts")
def test_a_link_limits_what_leaves_its_host() -> None:
    done = lab("--hosts", "2", "--rate", "100mbit", "--each", command=[*STREAM, "3000000"])
    limit_s = 8 * 3_000_000 / (100e6 * TCP_SHARE)
    assert float(done.stdout.split()[1]) > 0.95 * limit_s


@pytest.mark.usefixtures("hosts")
def test_latency_is_added_or_refused() -> None:
    done = lab("--latency", "5ms", "--rate", "100mbit", "--each", command=[sys.executable, "-c", CONNECT])
    if done.returncode:
        refused(done, "the kernel here has no netem")
    else:
        assert float(done.stdout) >= 0.010


@pytest.mark.usefixtures("open_mpi")
def test_exit_codes_are_passed_on() -> None:
    assert lab(command=["sh", "-c", "sleep 0.5; exit 7"]).returncode == 7
    assert lab("--each", command=["sh", "-c", "test $RANK = 1 && exit 5; sleep 9999"]).returncode == 5
    assert lab("--each", command=["sh", "-c", "kill -9 $$"]).returncode == 128 + 9
    assert lab("--each", command=["sh", "-c", "setsid sleep 9999 & exit 0"]).returncode == 0


def start_and_signal(number: int) -> subprocess.Popen[str]:
    process = subprocess.Popen([*NETLAB, "--", "sh", "-c", "echo here; sleep 9999"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        assert [process.stdout.readline() for _ in range(2)] == ["here\n", "here\n"]
        assert len(left_of(process.pid)) >= 3 + 1 + 4
        process.send_signal(number)
        process.wait()
    return process


@pytest.mark.usefixtures("open_mpi")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_and_leaves_nothing(number: int) -> None:
    process = start_and_signal(number)
    assert process.returncode == 128 + number
    assert left_of(process.pid) == []


@pytest.mark.usefixtures("open_mpi")
def test_what_a_killed_lab_left_goes_at_the_next_start() -> None:
    process = start_and_signal(signal.SIGKILL)
    assert left_of(process.pid) != []
    done = lab("--each")
    assert f"removed netlab-{process.pid}-" in done.stderr
    assert left_of(process.pid) == []


@pytest.mark.usefixtures("open_mpi")
def test_a_run_survives_a_cut() -> None:
    done = lab("--cut", "1:2", command=[sys.executable, "-c", TALK, "4"])
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 1.8
    assert "the link of host1 is down\nnetlab: the link of host1 is up\n" in done.stderr


@pytest.mark.usefixtures("open_mpi")
def test_a_run_cut_for_ever_is_ended() -> None:
    done = lab("--cut", "1:forever", "--patience", "1", command=[sys.executable, "-c", TALK, "9999"])
    assert done.returncode == 124
    assert "has not ended 1 s after its link went down for ever" in done.stderr


RUN = [
    "train",
    "--data",
    "synthetic",
    "--hidden",
    "64",
    "--global-batch",
    "64",
    "--micro-batch",
    "32",
    "--quiet",
    "--run-dir",
]


@pytest.mark.usefixtures("open_mpi")
@pytest.mark.deep
def test_training_goes_on_after_a_cut_with_the_same_bits(tmp_path: Path) -> None:
    train = [sys.executable, "-m", "ddpgd", *RUN]
    done = lab("--rate", "100mbit", "--cut", "3:3", command=[*train, str(tmp_path / "cut"), "--epochs", "3"])
    assert done.returncode == 0, done.stderr
    assert "the link of host1 is down\nnetlab: the link of host1 is up\n" in done.stderr
    subprocess.run([*train, str(tmp_path / "alone"), "--epochs", "3"], check=True)
    cut, alone = (summary(tmp_path / name) for name in ("cut", "alone"))
    assert cut["world_size"] == 2
    assert cut["params_sha256"] == alone["params_sha256"]


@pytest.mark.deep
@pytest.mark.usefixtures("open_mpi")
def test_training_cut_for_ever_ends_by_itself_with_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("time", "2"), ("intvl", "1"), ("probes", "2")):
        monkeypatch.setenv(f"PRTE_MCA_oob_tcp_keepalive_{name}", value)
    for cut_s in (4 * slowness(), 20 * slowness(), 60 * slowness()):
        run = tmp_path / f"run-{cut_s:.0f}"
        train = [sys.executable, "-m", "ddpgd", *RUN, str(run), "--epochs", "100000"]
        cut, patience = f"{cut_s:.0f}:forever", f"{cut_s + 36 * slowness():.0f}"
        done = lab("--rate", "100mbit", "--cut", cut, "--patience", patience, command=train)
        assert done.returncode != 124
        if (run / "metrics.jsonl").exists():  # else the link was cut before the ranks had begun
            break
    assert "lost communication with a remote daemon" in done.stderr
    assert not (run / "summary.json").exists()  # Open MPI's own exit code is 0
