"""Whole runs over MPI equal the run of one rank, bit for bit; and end alike on all ranks."""

import errno
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

import ddpgd
from ddpgd.comm import bulk
from ddpgd.comm.levels import RANKS_PER_NODE
from ddpgd.comm.transports.mpi_host import MpiHost
from ddpgd.data import synthetic
from ddpgd.errors import InputError, Interrupted, MachineError, NonFiniteError
from ddpgd.run import checkpoint, checkpoint_search
from ddpgd.training.stopping import StopRequest
from runs import records, stopping_at

Record = dict[str, Any]

pytestmark = [pytest.mark.mpi, pytest.mark.usefixtures("few_digits")]

make_digits = synthetic.make
EXPLODING = {"lr": 1e30, "optimizer": "sgd", "schedule": "constant"}
CONFIGURATIONS: dict[str, Record] = {
    "ragged": {},
    "aligned": {"global_batch": 64, "micro_batch": 4, "optimizer": "adam", "lr": 0.01},
    "muon": {"optimizer": "muon", "lr": 0.01, "hidden": (12, 9), "clip_norm": 0.2},
    "fewer micro-batches than ranks": {"global_batch": 3, "micro_batch": 1, "optimizer": "sgd"},
    "one micro-batch": {"global_batch": 20, "micro_batch": 20, "loss": "mse"},
    "full batch": {"global_batch": "all"},
    "until no evaluation is better": {"validation": 60, "patience": 2, "steps": 60, "evaluate_every": 3},
    "one cycle": {"schedule": "one-cycle"},
    "on a plateau": {
        "schedule": "reduce-on-plateau",
        "plateau_patience": 1,
        "plateau_threshold": 0.5,
        "plateau_factor": 0.5,
        "validation": 60,
        "evaluate_every": 3,
    },
    "elements clipped": {"clip_value": 0.01, "optimizer": "adam", "lr": 0.01},
    "elastic": {"augment": "elastic", "elastic_alpha": 20.0},
    "regularised": {"label_smoothing": 0.1, "dropout": 0.3, "input_dropout": 0.2, "max_norm": 0.5},
    "pooled": {"input_pool": 2, "augment": "affine"},
    "federated": {
        "sync": "federated",
        "global_batch": None,
        "clients": 9,
        "client_fraction": 0.4,
        "local_epochs": 1,
        "partition": "sizes:lognormal:1.0",
        "server_optimizer": "adam",
        "outer_lr": 0.01,
    },
}


def test_trainings_of_the_library_leave_no_communicators(comm: MPI.Intracomm, folder: Path) -> None:
    """An MPI library has a limited number of them: attributes of the world go with each copy, and with its end."""
    copied: list[int] = []
    freed: list[int] = []

    def copy(_comm: MPI.Comm, _keyval: int, value: int) -> int:
        copied.append(value)
        return value

    keyval = MPI.Comm.Create_keyval(copy, lambda *_: freed.append(0))
    MPI.COMM_WORLD.Set_attr(keyval, 7)
    for number in range(3):
        config = ddpgd.Config(data="synthetic", hidden=(8,), steps=2, run_dir=str(folder / str(number)), quiet=True)
        ddpgd.train(config)
    MPI.COMM_WORLD.Delete_attr(keyval)
    assert len(freed) - 1 == len(copied) >= 3 * (comm.size > 1)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_same_bits_as_one_rank(comm: MPI.Intracomm, train: Callable[..., Record], folder: Path, name: str) -> None:
    alone = train(folder / "alone", alone=True, **CONFIGURATIONS[name])
    together = train(folder / "together", **CONFIGURATIONS[name])
    assert together["params_sha256"] == alone["params_sha256"]
    assert together["test_accuracy"] == alone["test_accuracy"]
    assert (together["world_size"], together["transport"]) == (comm.size, "mpi-host")
    comm.Barrier()  # rank 0 has closed its files
    assert records(folder / "together") == records(folder / "alone")


def test_every_rank_holds_the_same_params(comm: MPI.Intracomm, train: Callable[..., Record], folder: Path) -> None:
    assert len(set(comm.allgather(train(folder / "run")["params_sha256"]))) == 1


@pytest.mark.parametrize("asking", [0, -1])
def test_a_stop_that_one_rank_asks_for_ends_all_and_resumes_alone(
    comm: MPI.Intracomm,
    train: Callable[..., Record],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    asking: int,
) -> None:
    whole = train(folder / "whole", alone=True, steps=12)
    with monkeypatch.context() as patched:
        patched.setattr(StopRequest, "__bool__", stopping_at(4, comm.rank == asking % comm.size))
        with pytest.raises(Interrupted, match="stopped after step 5 of 12"):
            train(folder / "cut", steps=12)
    comm.Barrier()
    assert checkpoint_search.find(folder / "cut", print)[1].counters["step"] == 5
    resumed = train(folder / "cut", alone=True, resume="")
    assert resumed["params_sha256"] == whole["params_sha256"]


SPLITS = {1: ["1"], 2: ["1", "1,1"], 3: ["1,2", "2"], 4: ["1,3", "2", "3,1"]}
"""Ways in which ranks may lie on nodes, by the number of ranks."""


def test_a_run_of_two_levels_is_stopped_and_goes_on_in_another_split(
    comm: MPI.Intracomm, train: Callable[..., Record], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(folder / "whole", alone=True, steps=12)
    splits = SPLITS.get(comm.size, ["2"])
    with monkeypatch.context() as patched:
        patched.setenv(RANKS_PER_NODE, splits[0])
        patched.setattr(StopRequest, "__bool__", stopping_at(4, comm.rank == comm.size - 1))
        with pytest.raises(Interrupted, match="stopped after step 5 of 12"):
            train(folder / "cut", steps=12, exchange="two-level")
    for number, split in enumerate([*splits, ""]):
        monkeypatch.setenv(RANKS_PER_NODE, split)
        comm.Barrier()
        checkpoints = str(folder / "cut" / "checkpoints" / "step-00000005.safetensors")
        resumed = train(folder / str(number), resume=checkpoints)
        assert resumed["params_sha256"] == whole["params_sha256"]
        assert (resumed["exchange"], resumed["transport"]) == ("two-level", "mpi-host")


def test_a_run_of_one_rank_goes_on_on_all(train: Callable[..., Record], folder: Path) -> None:
    constant = {"schedule": "constant"}
    whole = train(folder / "whole", alone=True, steps=12, **constant)
    train(folder / "part", alone=True, steps=5, **constant)
    assert train(folder / "part", resume="", steps=12)["params_sha256"] == whole["params_sha256"]


def test_a_gradient_that_is_not_finite_is_an_error_on_all_ranks(
    comm: MPI.Intracomm, train: Callable[..., Record], folder: Path
) -> None:
    with pytest.raises(NonFiniteError, match=r"not finite in rank \d+, micro-batch \d+ \(training samples") as caught:
        train(folder / "run", **EXPLODING)
    assert len(set(comm.allgather(str(caught.value)))) == 1


def test_skipped_updates_are_the_same_on_all_ranks(
    comm: MPI.Intracomm, train: Callable[..., Record], folder: Path
) -> None:
    summary = train(folder / "run", **EXPLODING, non_finite="skip")
    assert summary["skipped_updates"] > 0
    assert len(set(comm.allgather((summary["skipped_updates"], summary["params_sha256"])))) == 1


@pytest.mark.parametrize("given", [{"warmup": 9}, {"micro_batch": 51}, {"resume": "nowhere"}])
def test_bad_input_is_refused_on_all_ranks(train: Callable[..., Record], folder: Path, given: Record) -> None:
    with pytest.raises(InputError):
        train(folder / "run", **given)


@pytest.mark.mpi(min_size=2)
def test_other_data_on_one_rank_is_refused_on_all(
    comm: MPI.Intracomm, train: Callable[..., Record], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if comm.rank == comm.size - 1:
        monkeypatch.setattr(synthetic, "make", lambda: make_digits(num_train=330, num_test=9))
    with pytest.raises(InputError, match=f"rank {comm.size - 1} has other data than rank 0"):
        train(folder / "run")


PER_RANK = {
    "sync": "local",
    "local_steps": 2,
    "wire": "int8",
    "error_feedback": True,
    "optimizer": "adam",
    "lr": 0.01,
    "steps": 8,
    "schedule": "constant",
    "checkpoint_every": 4,
}
"""Each rank has optimizer vectors and residuals of its own."""


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if 4 KB were what MPI can count, and no object could be as large as the params."""
    monkeypatch.setattr(bulk, "PIECE_BYTES", 4096)
    send = MpiHost.all_gather_objects

    def sends_small(world: MpiHost, value: Any) -> list[Any]:
        assert len(pickle.dumps(value)) < 10_000
        return send(world, value)

    monkeypatch.setattr(MpiHost, "all_gather_objects", sends_small)


@pytest.mark.usefixtures("small_pieces")
def test_arrays_longer_than_a_piece(comm: MPI.Intracomm) -> None:
    world = MpiHost(comm)
    array = np.arange(5000, dtype=np.float32) + comm.rank
    last = [(slice(0, 5000),) if rank == comm.size - 1 else () for rank in range(comm.size)]
    gathered = bulk.gather_parts(world, array, last, 5000)
    np.testing.assert_array_equal(gathered, np.arange(5000) + comm.size - 1 if comm.rank == 0 else [])
    bulk.broadcast(world, array)
    np.testing.assert_array_equal(array, np.arange(5000))


@pytest.mark.usefixtures("small_pieces")
def test_vectors_of_each_rank_are_saved_and_restored_in_pieces(train: Callable[..., Record], folder: Path) -> None:
    whole = train(folder / "whole", **PER_RANK)
    half = folder / "whole" / "checkpoints" / "step-00000004.safetensors"
    resumed = train(folder / "resumed", resume=str(half))
    assert resumed["params_sha256"] == whole["params_sha256"]
    alone = train(folder / "alone", alone=True, resume=str(half))
    assert alone["steps"] == 8


def test_a_checkpoint_that_cannot_be_written_ends_all_ranks_with_the_same_line(
    comm: MPI.Intracomm, train: Callable[..., Record], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "step-00000009.safetensors")

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(MachineError, match="No space left") as caught:
        train(folder / "run")
    assert len(set(comm.allgather(str(caught.value)))) == 1
