"""The exchange of two levels on two hosts of two ranks each, over real links: bits, and bytes that leave a host."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import PYTHON, ROOT, summary

from ddpgd.comm.wires import WIRES, Load
from ddpgd.config.schema import Config
from ddpgd.run import build_network

STEPS = 10, 60
COUNT = """
import json, sys
from tools.netlab.hosts import INTERFACE
from tools.netlab.lab import Lab
def sent(lab):
    file = f"/sys/class/net/{INTERFACE}/statistics/tx_bytes"
    return [int(line) for line in lab.each(["cat", file], capture=True).stdout.split()]
found = []
with Lab(hosts=2, rate="100mbit", ranks_per_host=2) as lab:
    for command in json.loads(sys.argv[1]):
        before = sent(lab)
        done = lab.mpirun(command, capture=True)
        assert done.returncode == 0, done.stderr
        found.append([after - first for first, after in zip(before, sent(lab))])
print(json.dumps(found))
"""


def bytes_of_hosts(commands: list[list[str]]) -> list[list[int]]:
    """Counts the bytes that each host sends while each command runs on all of them."""
    worker = [*PYTHON, "-c", COUNT, json.dumps(commands)]
    done = subprocess.run(worker, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0, done.stderr
    found: list[list[int]] = json.loads(done.stdout)
    return found


@pytest.mark.deep
@pytest.mark.usefixtures("lab")
def test_hosts_send_what_is_predicted_and_have_equal_bits(tmp_path: Path) -> None:
    train = [*PYTHON, "-m", "ddpgd", "train", "--data", "synthetic", "--hidden", "128", "--evaluate-every", "999"]
    runs = [(form, steps) for form in ("flat", "two-level", "auto") for steps in STEPS]
    folders = [tmp_path / f"{form}-{steps}" for form, steps in runs]
    found = bytes_of_hosts(
        [
            [*train, "--exchange", form, "--steps", str(steps), "--run-dir", str(folder)]
            for (form, steps), folder in zip(runs, folders, strict=True)
        ]
    )
    size = build_network.layout(Config(hidden=(128,)), (28, 28)).size
    _, between = WIRES["float32"].traffic(Load(size, 4, 4, nodes=(2, 2)))
    summaries: dict[Any, Any] = {run: summary(folder) for run, folder in zip(runs, folders, strict=True)}
    for steps in STEPS:
        assert len({summaries[form, steps]["params_sha256"] for form in ("flat", "two-level", "auto")}) == 1
        # An epoch's last step has fewer micro-batches.
        counted = summaries["two-level", steps]["between_bytes_per_step"]
        assert counted == pytest.approx(max(between.num_bytes), rel=1e-3)
        assert summaries["auto", steps]["exchange"] == "two-level", "0.4 MB over 100 Mbit/s"
        assert summaries["auto", steps]["exchange_choice"].startswith("auto: ")
    for host in (0, 1):
        per_step = {
            form: (found[runs.index((form, STEPS[1]))][host] - found[runs.index((form, STEPS[0]))][host])
            / (STEPS[1] - STEPS[0])
            for form in ("flat", "two-level")
        }
        # Headers of TCP, IP and Ethernet cost a twentieth.
        assert 1 < per_step["two-level"] / sum(between.num_bytes[2 * host : 2 * host + 2]) < 1.12
        assert per_step["flat"] / per_step["two-level"] == pytest.approx(2, rel=0.1)
