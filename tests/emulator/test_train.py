"""The first promise on the CUDA backend, in emulation: the same bits however a run is cut, captured or resumed."""

import gc
import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest

from ddpgd.comm import whereabouts
from ddpgd.comm.whereabouts import COMPUTED
from ddpgd.errors import Interrupted, NonFiniteError
from ddpgd.run import build_parts, checkpoint_search, report
from ddpgd.run.records import LAYER_FIGURES
from ddpgd.training.federated.clients import Clients, Trained
from ddpgd.training.stopping import StopRequest
from runs import Record, records, train, train_on_small_digits

from . import fake_cupy

FEDERATED: Record = {
    "sync": "federated",
    "clients": 10,
    "client_fraction": 0.3,
    "local_epochs": 1,
    "client_batch": 20,
    "global_batch": None,
    "micro_batch": 16,
    "steps": 5,
}
CONFIGURATIONS: dict[str, Record] = {
    "ragged": {},
    "aligned": {"global_batch": 64, "micro_batch": 4, "optimizer": "adam", "lr": 0.01},
    "fewer micro-batches than ranks": {"global_batch": 3, "micro_batch": 1, "optimizer": "sgd", "steps": 5},
    "no hidden layer": {"hidden": (), "loss": "mse", "weight_decay": 0.01, "clip_norm": 0.5},
    "across epochs": {"global_batch": 128, "micro_batch": 9, "warmup": 3, "activation": "sigmoid"},
    "float16": {"precision": "float16", "hidden": (12, 9)},
    "muon": {"optimizer": "muon", "lr": 0.01, "hidden": (12, 9), "steps": 5, "clip_norm": 0.5},
    "muon, bfloat16": {"optimizer": "muon", "lr": 0.01, "precision": "bfloat16", "hidden": (12, 9), "steps": 5},
    "bfloat16": {"precision": "bfloat16", "activation": "tanh"},
    "tf32": {"precision": "tf32", "steps": 5},
    "elastic": {"augment": "elastic", "precision": "float16"},
    "federated, bfloat16, masked": FEDERATED | {"precision": "bfloat16", "secure_aggregation": True, "proximal": 0.1},
}


@pytest.fixture(autouse=True)
def on_the_fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    train_on_small_digits(monkeypatch.setattr)
    with fake_cupy.install():
        yield


def test_threads_compile_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second finds in CuPy's cache what the first has compiled."""
    import cupy

    from ddpgd.kernels.cuda.launcher import Launcher

    now, most, get_function = [], [], cupy.RawModule.get_function

    def slow(module: Any, name: str) -> Any:
        now.append(name)
        time.sleep(0.05)
        most.append(len(now))
        now.pop()
        return get_function(module, name)

    def copy() -> None:
        launch = Launcher("float32")
        vector = launch.zeros((4,), np.float32)
        launch("reduce.cu", "add", (1,), (256,), vector, vector, vector, np.int64(4))

    monkeypatch.setattr(cupy.RawModule, "get_function", slow)
    threads = [threading.Thread(target=copy) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4


def gpu(folder: Path, world_size: int = 1, **given: Any) -> Record:
    return train(folder, world_size, backend="cupy", **given)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_same_bits_on_any_number_of_ranks(name: str, tmp_path: Path) -> None:
    alone = gpu(tmp_path / "1", **CONFIGURATIONS[name])
    wanted = records(tmp_path / "1")
    assert alone["backend"] == "cupy"
    assert len({record["params_hash"] for record in wanted}) == len(wanted) >= 5
    for world_size in (2, 3, 7):
        summary = gpu(tmp_path / str(world_size), world_size, **CONFIGURATIONS[name])
        assert summary["params_sha256"] == alone["params_sha256"]
        assert records(tmp_path / str(world_size)) == wanted


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("given", [{}, {"drop": 0.3, "stragglers": 0.4, "partition": "sizes:lognormal:1.0"}])
def test_clients_side_by_side_have_the_bits_of_clients_one_by_one(
    given: Record, lazy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, places = set[str](), set[int]()

    def train_client(clients: Clients, number: int, position: int) -> Trained:
        here = whereabouts.here()
        before = here[COMPUTED]
        trained = train_alone(clients, number, position)
        assert here[COMPUTED] > before, "to the watchdog the rank seems to stand still"
        threads.add(threading.current_thread().name)
        places.add(id(here))
        return trained

    train_alone = Clients.train
    monkeypatch.setattr(Clients, "train", train_client)
    options = FEDERATED | {"client_fraction": 0.7, "local_epochs": 2, "optimizer": "adam", "proximal": 0.1} | given
    sums, lanes = [], []
    for number, world_size in [(1, 1), (3, 1), (8, 1), (3, 2)]:
        with fake_cupy.install(lazy=lazy):
            monkeypatch.setattr("ddpgd.kernels.cuda.memory.NUM_LANES", number)
            sums.append(gpu(tmp_path / f"{number} on {world_size}", world_size, **options)["params_sha256"])
        lanes.append(len(threads))
        assert len(places) == world_size
        threads.clear()
        places.clear()
    assert len(set(sums)) == 1
    assert lanes[0] == 1
    assert lanes[1] == 3
    assert lanes[2] > 3
    assert lanes[3] == 2 + 2
    gc.collect()
    for thread in threading.enumerate():
        if thread.name.startswith("lane"):
            thread.join(60)  # which ends with what it belongs to
            assert not thread.is_alive()


def test_a_client_that_diverges_is_named_in_any_lane(tmp_path: Path) -> None:
    options = FEDERATED | {"client_fraction": 0.7, "optimizer": "sgd", "lr": 1e30}
    told = []
    for world_size in (1, 2):
        with pytest.raises(NonFiniteError, match=r"client \d+, micro-batch") as caught:
            gpu(tmp_path / str(world_size), world_size, **options)
        told.append(str(caught.value))
    assert told[0] == told[1]


LAYOUTS = [(1, 1, 3, "off"), (2, 1, 2, "on"), (4, 1, 4, "off"), (2, 1, 4, "on"), (3, 1, 3, "off")]
LAYOUTS += [(1, 2, 2, "off"), (1, 3, 3, "off"), (2, 2, 4, "off"), (1, 2, 4, "on")]
"""Tensor and pipeline parallel ranks, all ranks, and whether the optimizer is sharded."""


@pytest.mark.parametrize(
    "precision", ["float32", "bfloat16", *(pytest.param(name, marks=pytest.mark.deep) for name in ("tf32", "float16"))]
)
def test_layouts_have_the_bits_of_one_rank(precision: str, tmp_path: Path) -> None:
    given = {"hidden": (13, 9), "shards": 4, "precision": precision, "clip_norm": 0.2, "steps": 5}
    alone = gpu(tmp_path / "1", **given)
    assert gpu(tmp_path / "uncut", **given | {"shards": 1})["params_sha256"] != alone["params_sha256"]
    for number, (tensor, pipeline, world_size, sharded) in enumerate(LAYOUTS):
        layout = {"tensor": tensor, "pipeline": pipeline, "shard_optimizer": sharded}
        layout |= {"pipeline_schedule": "gpipe"} if number % 2 and pipeline > 1 else {}
        summary = gpu(tmp_path / f"layout {number}", world_size, **given, **layout)
        assert summary["params_sha256"] == alone["params_sha256"], layout


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("float32", 2e-6), ("tf32", 2e-3), ("float16", 2e-3), ("bfloat16", 2e-2)]
)
@pytest.mark.parametrize("augment", ["none", "elastic"])
def test_a_run_follows_that_of_the_reference(precision: str, tolerance: float, augment: str, tmp_path: Path) -> None:
    reference = train(tmp_path / "numpy", backend="numpy", augment=augment)
    summary = gpu(tmp_path / "cupy", precision=precision, augment=augment)
    assert summary["test_loss_mean"] == pytest.approx(reference["test_loss_mean"], rel=tolerance)
    assert summary["precision"] == precision
    for ours, theirs in zip(records(tmp_path / "cupy"), records(tmp_path / "numpy"), strict=True):
        assert ours["train_loss_mean"] == pytest.approx(theirs["train_loss_mean"], rel=tolerance)
        assert ours["lr"] == theirs["lr"]
        for name in set(theirs) & set(LAYER_FIGURES):
            # Shares are multiples of 1 / units; the first gradients of a run differ by what activations are rounded.
            assert ours[name] == pytest.approx(theirs[name], rel=20 * tolerance), name


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"precision": "float16"},
        {"wire": "bfloat16", "error_feedback": True},
        {"optimizer": "muon"},
        {"augment": "affine"},
    ],
)
def test_steps_that_run_without_the_host_have_the_bits_of_single_ones(given: Record, tmp_path: Path) -> None:
    """A record every step lets no two steps run together; none but the last lets whole epochs do so."""
    given |= {"global_batch": 20, "steps": 60, "evaluate_every": 1000}
    runs = [gpu(tmp_path / str(every), log_every=every, **given) for every in (1, 7, 1000)]
    assert len({run["params_sha256"] for run in runs}) == 1
    assert len({run["train_loss_mean"] for run in runs}) == 1


def test_a_captured_step_has_the_bits_of_one_that_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ddpgd.kernels.cuda.launcher import Launcher

    captured = gpu(tmp_path / "captured", log_every=100)
    captures = []
    monkeypatch.setattr(Launcher, "capture", lambda _launch, work: captures.append(work) or work)
    assert gpu(tmp_path / "plain", log_every=100)["params_sha256"] == captured["params_sha256"]
    assert captures


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize(("before", "after"), [(1, 1), (1, 3), (3, 1)])
def test_a_resumed_run_equals_an_uninterrupted_one(
    before: int, after: int, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_parts, "LOSS_SCALE_GROWTH_STEPS", 2)
    given = {"steps": 12, "precision": precision}
    gpu(tmp_path / "whole", **given)
    asked = itertools.count()
    with monkeypatch.context() as patched:
        patched.setattr(StopRequest, "__bool__", lambda _: next(asked) == 4)
        with pytest.raises(Interrupted):
            gpu(tmp_path / "cut", before, **given)
    saved = checkpoint_search.find(tmp_path / "cut", print)[1]
    assert 0 < saved.counters["step"] < 12
    if precision == "float16":
        assert saved.counters["loss_scale"] > build_parts.INITIAL_LOSS_SCALE
    gpu(tmp_path / "cut", after, resume=str(tmp_path / "cut"))
    assert records(tmp_path / "cut") == records(tmp_path / "whole")


def test_a_resume_on_another_backend_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path / "run", backend="numpy", steps=3)
    gpu(tmp_path / "run", resume=str(tmp_path / "run"), steps=5, quiet=False)
    assert "the checkpoint was computed by numpy; cupy has other last digits" in capsys.readouterr().out


@pytest.mark.parametrize("world_size", [1, 3])
def test_a_loss_scale_that_is_too_large_is_halved_by_all(
    world_size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_parts, "INITIAL_LOSS_SCALE", 2.0**20)
    summary = gpu(tmp_path / "run", world_size, precision="float16", steps=12)
    scales = [record["loss_scale"] for record in records(tmp_path / "run")]
    skipped = summary["skipped_updates"]
    assert 3 <= skipped <= 8
    assert scales == [2.0 ** (20 - min(step, skipped)) for step in range(12)]
    lines = records(tmp_path / "run")
    assert lines[0]["params_hash"] == lines[1]["params_hash"]
    assert lines[-1]["train_loss_mean"] < lines[skipped]["train_loss_mean"]


@pytest.mark.parametrize("world_size", [1, 3])
def test_a_gradient_that_is_not_finite_stops_all_and_is_placed(world_size: int, tmp_path: Path) -> None:
    exploding = {"lr": 1e30, "optimizer": "sgd", "schedule": "constant", "log_every": 100}
    lines = []
    for backend in ("numpy", "cupy"):
        with pytest.raises(NonFiniteError) as caught:
            train(tmp_path / backend, world_size, backend=backend, **exploding)
        lines.append(str(caught.value).partition("first in")[0])
    assert lines[0] == lines[1]
    skipping = gpu(tmp_path / "skip", world_size, **exploding, non_finite="skip")
    assert 0 < skipping["skipped_updates"] < skipping["steps"] == 9


def test_a_loss_scale_that_overflows_again_and_again_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_parts, "INITIAL_LOSS_SCALE", 2.0**26)
    summary = gpu(tmp_path / "run", precision="float16", steps=24, log_every=6, evaluate_every=24)
    (warning,) = summary["warnings"]
    assert "gradients overflow float16 at a loss scale of" in warning


@pytest.mark.parametrize("wire", ["float16", "int8"])
@pytest.mark.parametrize("world_size", [1, 3])
def test_a_lossy_wire_follows_that_of_the_reference(wire: str, world_size: int, tmp_path: Path) -> None:
    given = {"wire": wire, "error_feedback": True}
    reference = train(tmp_path / "numpy", world_size, backend="numpy", **given)
    summary = gpu(tmp_path / "cupy", world_size, **given)
    assert summary["wire_bytes_per_step"] == reference["wire_bytes_per_step"]
    assert summary["test_loss_mean"] == pytest.approx(reference["test_loss_mean"], rel=0.02)


OF_THEIR_OWN: dict[str, Record] = {
    "topk": {"wire": "topk", "topk_density": 0.1, "topk_warmup": 1, "optimizer": "adam", "lr": 0.01},
    "topk with momentum": {"wire": "topk", "topk_warmup": 0, "optimizer": "momentum", "clip_norm": 1.0},
    "powersgd": {"wire": "powersgd"},
    "local": {"sync": "local", "local_steps": 3, "outer_momentum": 0.9},
    "local, a rank without samples": {"sync": "local", "local_steps": 3, "micro_batch": 25},
    "local with topk": {"sync": "local", "local_steps": 3, "wire": "topk", "topk_density": 0.1},
}


@pytest.mark.parametrize("name", OF_THEIR_OWN)
@pytest.mark.parametrize("world_size", [1, 3])
def test_wires_that_keep_most_back_and_local_updates_leave_equal_replicas(
    name: str, world_size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summarise, replicas = report.summary, []

    def summary_of(*given: Any, **facts: Any) -> Record:
        replicas.append(facts["params_sha256"])
        return summarise(*given, **facts)

    monkeypatch.setattr(report, "summary", summary_of)
    given = OF_THEIR_OWN[name] | {"steps": 20}
    summary = gpu(tmp_path / "cupy", world_size, **given)
    assert summary["steps"] == 20
    assert replicas == [summary["params_sha256"]] * world_size
    losses = [record["train_loss_mean"] for record in records(tmp_path / "cupy")]
    assert mean(losses[-5:]) < mean(losses[:5])
    if name != "powersgd":
        reference = train(tmp_path / "numpy", world_size, backend="numpy", **given)
        assert summary["wire_bytes_per_step"] == reference["wire_bytes_per_step"]
        assert summary["test_loss_mean"] == pytest.approx(reference["test_loss_mean"], rel=1e-4)


def test_fast_is_near(tmp_path: Path) -> None:
    ordered, fast = gpu(tmp_path / "1"), gpu(tmp_path / "3", 3, reduce="fast")
    assert fast["test_loss_mean"] == pytest.approx(ordered["test_loss_mean"], rel=1e-5)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"precision": "bfloat16", "hidden": (12, 9)},
        {"precision": "float16", "optimizer": "adam"},
        {"precision": "float16", "optimizer": "muon", "hidden": (12, 9)},
    ],
)
@pytest.mark.parametrize("world_size", [2, 3])
def test_a_sharded_optimizer_has_the_bits_of_a_replicated_one(given: Record, world_size: int, tmp_path: Path) -> None:
    given |= {"clip_norm": 0.3}
    whole = gpu(tmp_path / "off", world_size, **given)
    parts = gpu(tmp_path / "on", world_size, shard_optimizer="on", **given)
    assert parts["params_sha256"] == whole["params_sha256"]
    assert records(tmp_path / "on") == records(tmp_path / "off")
    assert parts["optimizer_bytes"] < 0.7 * whole["optimizer_bytes"]
