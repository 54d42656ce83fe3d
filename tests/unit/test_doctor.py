"""Every finding of the doctor, provoked on purpose, and none where nothing is wrong."""

from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest

from ddpgd.comm.launcher import Launch
from ddpgd.comm.transport import Alone
from ddpgd.doctor import environment
from ddpgd.doctor.checks import Finding, examine
from ddpgd.doctor.doctor import report, run
from ddpgd.doctor.environment import Environment
from ddpgd.doctor.links import Pair, measure
from ddpgd.kernels.cuda.device import Cuda, Device


def healthy(rank: int, host: str, **changes: Any) -> Environment:
    gpu = Device(rank % 2, "H200", f"bus {host} {rank % 2}", 90)
    return replace(
        Environment(
            host=host,
            num_allocated=2,
            launched=Launch("Open MPI", rank, 4, rank % 2),
            parent="prterun",
            library="Open MPI v5.0.11",
            gpu=gpu,
            gpu_absence="",
            cuda=Cuda(13000, 13000),
            cpu="EPYC",
            cores=tuple(range(8)),
            blas="openblas 0.3",
            blas_threads=4,
            packages={"ddpgd": "0.1.0", "numpy": "2.4", "cupy-cuda13x": "14.0"},
            python="3.11.7",
            sources="abc",
            settings={},
            configuration="",
            data="def",
            data_absence="",
        ),
        **changes,
    )


EVERYBODY = [healthy(rank, host) for rank, host in enumerate(("a", "a", "b", "b"))]


def changed(rank: int, **changes: Any) -> list[Environment]:
    return [replace(own, **changes) if number == rank else own for number, own in enumerate(EVERYBODY)]


OLD = {
    "gpu": None,
    "gpu_absence": "CuPy finds no GPU: cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime",
    "cuda": Cuda(12080, 13000),
}
"""What a rank tells whose driver is too old for its CuPy."""


def linked(slow: tuple[int, ...] = (), rate: float = 1e9, latency_s: float = 1e-5) -> list[Pair]:
    """All pairs alike but one."""
    return [
        Pair(*ends, latency_s, rate) if ends == slow else Pair(*ends, 1e-5, 1e9) for ends in combinations(range(4), 2)
    ]


def texts(found: list[Finding]) -> list[str]:
    return [finding.text for finding in found]


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    assert examine(EVERYBODY, "", linked()) == []
    assert report(EVERYBODY, [], linked(), [])[-1] == "nothing found"


@pytest.mark.parametrize(
    ("tensor", "pipeline", "told"),
    [
        (2, 2, []),
        (4, 1, ["ranks 0, 1, 2 and 3, which would share layers, are on several machines"]),
        (3, 1, ["4 ranks cannot form groups of 3, --tensor 3 x --pipeline 1"]),
        (2, 4, ["4 ranks cannot form groups of 8, --tensor 2 x --pipeline 4"]),
    ],
)
def test_a_grid_fits_the_ranks_and_their_machines(tensor: int, pipeline: int, told: list[str]) -> None:
    found = examine(EVERYBODY, "", linked(), tensor, pipeline)
    assert texts(found) == told
    assert [finding.is_fatal for finding in found] == ["cannot form" in text for text in told]


SHARED, ONE_KIND = "in a folder that all machines share", "host file of one kind of machines"
NO_GPU = {"gpu": None, "gpu_absence": "CuPy finds no GPU", "cuda": None}


@pytest.mark.parametrize(
    ("everybody", "said", "remedy", "is_fatal"),
    [
        ([healthy(rank, "a", num_allocated=3) for rank in range(4)],
         "Slurm gave 3 machines, and all 4 ranks are on a", "--map-by slot:OVERSUBSCRIBE", False),
        (changed(1, gpu=EVERYBODY[0].gpu), "ranks 0 and 1 share one H200 of a", "--share-gpu", True),
        (changed(3, **NO_GPU), "ranks 0, 1 and 2 have a GPU, and 3 none (CuPy finds no GPU)", "nvidia-smi", False),
        (changed(2, **OLD), "rank 2 on b: the driver knows CUDA 12.8, and CuPy brings 13.0",
         "pip install 'ddpgd[cuda12]'", True),
        (changed(2, packages=EVERYBODY[0].packages | {"cupy-cuda12x": "14.0"}),
         "rank 2 on b: cupy-cuda13x and cupy-cuda12x are both installed", "pip uninstall cupy-cuda12x", True),
        (changed(1, **NO_GPU | {"gpu_absence": "CuPy cannot be loaded: libnvrtc.so.13"}),
         "rank 1 on a: CuPy cannot be loaded: libnvrtc.so.13", "nvidia-smi", False),
        (changed(1, sources="other"), "rank 1 has another ddpgd than the others (first on a): other, not abc",
         "pip install the same ddpgd", True),
        (changed(3, configuration="other"), "rank 3 has another configuration file than the others (first on b)",
         "--config FILE, on a disk that all machines share", True),
        (changed(3, data="", data_absence="no MNIST in /data"),
         "rank 3 has other data than the others (first on b): no MNIST in /data, not def", "ddpgd data --data DIR", True),
        ([healthy(rank, "a", data="", data_absence="no MNIST in /data") for rank in range(2)],
         "no MNIST in /data", "ddpgd data to fetch them", True),
        (changed(0, packages={"numpy": "2.3"}), "rank 0 has other packages than the others", SHARED, False),
        (changed(0, python="3.12.1"), "another Python than the others (first on a): 3.12.1, not 3.11.7", SHARED, False),
        (changed(3, cpu="Xeon"), "another CPU than the others (first on b): Xeon, not EPYC", ONE_KIND, False),
        (changed(3, blas="mkl"), "another BLAS than the others (first on b): mkl, not openblas 0.3", "CORETYPE", False),
        (changed(3, gpu=Device(1, "H100", "bus b 1", 90)), "another GPU model than the others (first on b): H100",
         ONE_KIND, False),
        (changed(2, library="MPICH"), "another MPI library than the others (first on b): MPICH", "export MPI4PY_LIBMPI=", True),
        (changed(2, settings={"OMP_NUM_THREADS": "8"}),
         "other settings than the others (first on b): (('OMP_NUM_THREADS', '8'),)", "mpirun -x NAME=VALUE", False),
        (changed(0, blas_threads=16), "a: 2 ranks with 16 BLAS threads each, on 8 cores", "OMP_NUM_THREADS=1", False),
        ([healthy(rank, "a", cores=(0,), gpu=None, cuda=None, blas_threads=1) for rank in range(2)],
         "a: 2 ranks on 1 core wait for each other", "at most -n 1", False),
        ([healthy(rank, "a", cores=(0,), gpu=None, cuda=None, blas_threads=1) for rank in range(2)],
         "a: ranks are bound to the same core 0", "--bind-to none", False),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found_and_says_what_to_type(
    everybody: list[Environment], said: str, remedy: str, is_fatal: bool
) -> None:
    found = examine(everybody, "", [])
    (finding,) = [finding for finding in found if said in finding.text]
    assert remedy in finding.remedy
    assert finding.is_fatal == is_fatal


def test_every_process_alone() -> None:
    own = healthy(0, "a", launched=Launch("", 0, 1, 0), blas_threads=1)
    (finding,) = examine([own], "", [])
    assert finding.text.startswith("every process believes to be rank 0 of 1: prterun started this one")
    assert finding.is_fatal
    assert examine([replace(own, parent="")], "", []) == []


def test_ranks_that_could_not_join() -> None:
    found = examine([healthy(0, "a")], "Open MPI started 2 ranks, but the MPI library of mpi4py sees 1", [])
    assert found[0].text.endswith("sees 1 (mpi4py loads Open MPI v5.0.11)")
    assert "MPI4PY_LIBMPI" in found[0].remedy
    assert found[0].is_fatal


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (
            linked((0, 3), rate=1e8),
            "slow link between rank 0 (a) and rank 3 (b): 100 MB/s, where others between machines have",
        ),
        (
            linked((1, 2), latency_s=1e-3),
            "long latency between rank 1 (a) and rank 2 (b): 1 ms, where others between machines",
        ),
    ],
)
def test_the_slow_link_is_named(pairs: list[Pair], said: str) -> None:
    (finding,) = examine(EVERYBODY, "", pairs)
    assert finding.text.startswith(said)
    assert not finding.is_fatal


def test_fatal_findings_come_first_and_all_are_told() -> None:
    everybody = changed(3, cpu="Xeon", sources="other")
    found = examine(everybody, "", linked((0, 3), rate=1e8))
    assert [finding.is_fatal for finding in found] == [True, False, False]
    lines = report(everybody, found, linked(), ["a note"])
    assert [line.split(":")[0] for line in lines if line.startswith(("ERROR", "WARNING"))] == [
        "ERROR",
        "WARNING",
        "WARNING",
    ]
    assert sum(line.startswith("  type: ") for line in lines) == 3
    assert "a note" in lines
    assert lines[-1] == "3 findings"


def test_this_process_is_examined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_parent_launcher", lambda: "")
    lines, is_ill = run(Alone(), Launch("", 0, 1, 0), "", None, "synthetic")
    assert lines[0].startswith("1 rank, on ")
    assert not is_ill
    assert "data: synthetic" in lines[1]


def test_one_rank_has_no_pairs() -> None:
    assert measure(Alone()) == []


def test_a_file_that_is_not_there_is_told() -> None:
    own = environment.collect(Launch("", 0, 1, 0), "", "/no/such.toml", "/no/such/folder")
    assert own.configuration == "/no/such.toml: No such file or directory"
    assert own.data_absence == "no MNIST in /no/such/folder: there is no such folder"
    assert own.packages["numpy"]
    assert own.sources
