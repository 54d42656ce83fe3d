"""Buckets beside the backward pass over NCCL, where there are several GPUs: the bits of one sum, and the times of both."""

import os
import shlex
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .whole_runs import run, summary, train_command

MPIRUN = shlex.split(os.environ.get("DDPGD_MPIRUN", "mpirun --oversubscribe"))
NETWORKS = {
    "784-40-10": {"hidden": "40", "micro_batch": "16", "steps": "4"},
    "784-512-512-10": {"hidden": "512,512", "micro_batch": "1024", "steps": "400"},
    "784-4096-4096-10": {"hidden": "4096,4096", "micro_batch": "1024", "steps": "200"},
}
REPETITIONS = {"784-40-10": 1, "784-512-512-10": 3, "784-4096-4096-10": 3}
ACCUMULATE = 2


def num_gpus() -> int:
    import cupy

    return int(cupy.cuda.runtime.getDeviceCount())


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("num_ranks", [2, 4, 8])
def test_buckets_beside_the_backward_pass_have_the_bits_of_one_sum(
    num_ranks: int, network: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    if num_gpus() < num_ranks:
        pytest.skip(f"NCCL between {num_ranks} ranks wants a GPU for each, and there are fewer")
    if shutil.which(MPIRUN[0]) is None:
        pytest.skip(f"{MPIRUN[0]} is not on PATH")
    common = {
        "data": "synthetic",
        "backend": "cupy",
        "transport": "nccl",
        "accumulate": str(ACCUMULATE),
        "log_every": "1000",
    }
    found: dict[str, list[dict[str, Any]]] = {"on": [], "off": []}
    for number in range(REPETITIONS[network]):
        for overlap, ended in found.items():
            folder = tmp_path / f"{overlap}-{number}"
            options = NETWORKS[network] | common | {"overlap": overlap}
            run([*MPIRUN, "-n", str(num_ranks), *train_command(folder, **options)])
            ended.append(summary(folder))
    assert [found[overlap][0]["num_buckets"] for overlap in found] == [network.count("-"), 1]
    assert len({ended["params_sha256"] for own in found.values() for ended in own}) == 1
    num_samples = num_ranks * ACCUMULATE * int(NETWORKS[network]["micro_batch"])
    times = {overlap: _step_us(own, num_samples) for overlap, own in found.items()}
    buckets = found["on"][0]["num_buckets"]
    record_property(
        f"{network} on {num_ranks} ranks",
        f"{times['on']:.0f} us a step in {buckets} buckets, {times['off']:.0f} us in one",
    )


def _step_us(runs: list[dict[str, Any]], num_samples: int) -> float:
    """Returns the median over runs of the mean time of a step of so many samples."""
    return statistics.median(1e6 * num_samples / one["samples_per_s"] for one in runs)
