"""Federated averaging: the same bits on any number of ranks, and what a round computes, against formulas in float64."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ddpgd.comm.transport import Alone
from ddpgd.config.schema import Config, resolve
from ddpgd.errors import InputError, Interrupted, NonFiniteError
from ddpgd.kernels.reference.backend import Reference
from ddpgd.model.network import PIXEL_MEAN, PIXEL_STD
from ddpgd.optim.rules import RULES
from ddpgd.run import build, build_federated, checkpoint_search
from ddpgd.training.federated.federated import Federated
from ddpgd.training.federated.rounds import ClientBatches, Rounds
from ddpgd.training.stopping import StopRequest
from runs import Record, digits, records, train

Array = NDArray[Any]
FEW: Record = {
    "sync": "federated",
    "clients": 13,
    "client_fraction": 0.5,
    "local_epochs": 2,
    "client_batch": 9,
    "micro_batch": 4,
}
ALGORITHMS: dict[str, Record] = {
    "FedAvg, ragged sizes": {"partition": "sizes:lognormal:1.0"},
    "FedSGD": {"local_epochs": 1, "client_batch": "all", "micro_batch": 16, "optimizer": "sgd"},
    "FedProx, shards": {"proximal": 0.1, "partition": "shards:2"},
    "FedAvgM, equal weights": {"server_optimizer": "momentum", "outer_momentum": 0.9, "client_weights": "equal"},
    "FedAdam, dirichlet": {"server_optimizer": "adam", "outer_lr": 0.01, "partition": "dirichlet:0.3"},
    "dropped and late": {"drop": 0.4, "stragglers": 0.5, "local_epochs": 3},
    "augmented": {"augment": "affine", "partition": "shards:2"},
    "int8": {"wire": "int8", "partition": "sizes:lognormal:0.5"},
    "masked, some dropped": {"secure_aggregation": True, "drop": 0.3, "partition": "sizes:lognormal:1.0"},
    "clipped": {"dp_clip": 0.05, "drop": 0.3},
    "clients with muon": {"optimizer": "muon", "lr": 0.01, "hidden": (12, 9)},
    "fewer clients than ranks": {"clients": 3, "client_fraction": 1.0, "optimizer": "adam", "lr": 0.01},
}

pytestmark = pytest.mark.usefixtures("few_digits")


def federated(folder: Path, world_size: int = 1, **given: Any) -> Record:
    """A run of five rounds unless `given` says otherwise."""
    length = {"resume": given["resume"]} if "resume" in given else {"steps": 5, "lr": 0.05, "evaluate_every": 2}
    return train(folder, world_size, **({} if "resume" in given else FEW | {"global_batch": None}) | length | given)


def live(**given: Any) -> Federated:
    """One rank's rounds."""
    config = resolve(Config(data="synthetic", **{"hidden": (), "steps": 5, "schedule": "constant"} | FEW | given), 1)
    made = build.sync(Reference(), config, digits(), build.grid(config, Alone()), 5)
    assert isinstance(made, Federated)
    return made


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_same_bits_on_any_number_of_ranks(name: str, tmp_path: Path) -> None:
    alone = federated(tmp_path / "1", **ALGORITHMS[name])
    wanted = records(tmp_path / "1")
    assert len({record["params_hash"] for record in wanted}) == len(wanted) == 5
    for world_size in (2, 3, 4, 7):
        summary = federated(tmp_path / str(world_size), world_size, **ALGORITHMS[name])
        assert summary["params_sha256"] == alone["params_sha256"]
        assert records(tmp_path / str(world_size)) == wanted
        assert summary["samples"] == alone["samples"]


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 2)])
@pytest.mark.parametrize("name", ["FedAvgM, equal weights", "FedAdam, dirichlet", "dropped and late"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    before: int, after: int, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = federated(tmp_path / "whole", **ALGORITHMS[name])
    asked = itertools.count()
    with monkeypatch.context() as patched:
        patched.setattr(StopRequest, "__bool__", lambda _: next(asked) == 3)
        with pytest.raises(Interrupted):
            federated(tmp_path / "cut", before, **ALGORITHMS[name])
    assert 0 < checkpoint_search.find(tmp_path / "cut", print)[1].counters["step"] < 5
    resumed = federated(tmp_path / "cut", after, resume="")
    assert resumed["params_sha256"] == whole["params_sha256"]
    assert records(tmp_path / "cut") == records(tmp_path / "whole")


def test_a_run_goes_on_for_more_rounds(tmp_path: Path) -> None:
    whole = federated(tmp_path / "whole", schedule="constant")
    federated(tmp_path / "part", schedule="constant", steps=None, rounds=2)
    assert federated(tmp_path / "part", 2, resume="", rounds=5)["params_sha256"] == whole["params_sha256"]


def test_the_same_number_of_rounds_is_no_other_length(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    federated(tmp_path, steps=None, rounds=2, secure_aggregation=True)
    assert federated(tmp_path, resume="", rounds=2)["length_changed_at"] is None
    assert "another length" not in capsys.readouterr().err
    assert federated(tmp_path, resume="", rounds=3)["length_changed_at"] == 2
    assert "another length" in capsys.readouterr().err


def test_a_round_of_one_full_step_each_is_a_central_step(tmp_path: Path) -> None:
    """FedSGD with all clients, whose sizes differ: the mean by samples is the gradient of all of them."""
    given = {"optimizer": "sgd", "weight_decay": 0.0, "steps": 3, "schedule": "constant", "micro_batch": 330}
    fed = {"local_epochs": 1, "client_batch": "all", "client_fraction": 1.0, "partition": "sizes:lognormal:1.0"}
    apart = federated(tmp_path / "apart", **given, **fed)
    central = train(tmp_path / "central", global_batch=330, **given)
    assert apart["test_loss_mean"] == pytest.approx(central["test_loss_mean"], rel=1e-5)
    assert apart["samples"] == central["samples"] == 990


@pytest.mark.parametrize(
    "given",
    [{}, {"proximal": 0.5}, {"client_weights": "equal"}, {"drop": 0.5, "stragglers": 0.5}, {"clip_norm": 0.5}],
)
def test_a_round_against_float64(given: dict[str, Any]) -> None:
    """Softmax regression, every client by hand, from the same samples in the same order."""
    options = {"optimizer": "sgd", "lr": 0.05, "weight_decay": 0.0, "partition": "sizes:lognormal:1.0", "outer_lr": 0.7}
    sync = live(**options, **given)
    before = np.array(sync.state.params, np.float64)
    rounds, batches = sync._rounds, sync._clients._batches
    change, total = np.zeros_like(before), 0.0
    for position, task in enumerate(rounds.tasks(0)):
        size = len(rounds.parts[task.client])
        weight = task.arrives * (1 if given.get("client_weights") == "equal" else size)
        params = before.copy()
        for epoch in range(batches.first_epoch(0, position), batches.first_epoch(0, position) + task.num_passes):
            order = batches.order(epoch)[:size]
            for start in range(0, size, 9):
                gradient = _gradient(params, order[start : start + 9]) + given.get("proximal", 0) * (params - before)
                norm = np.linalg.norm(gradient)
                gradient *= min(1, given["clip_norm"] / norm) if "clip_norm" in given else 1
                params -= 0.05 * gradient
        change += weight * (before - params)
        total += weight
    result = sync.run(0, 1, False, False)
    np.testing.assert_allclose(sync.state.params, before - 0.7 * change / total, rtol=0, atol=2e-6)
    assert result.grad_norm == pytest.approx(np.linalg.norm(change / total), rel=1e-4)


def _gradient(params: Array, picked: Array) -> Array:
    """The mean gradient of softmax regression over some samples, as a flat vector."""
    data = digits()
    layout = build_federated.build_network.layout(Config(hidden=()), data.image_shape)
    tensors = layout.whole_tensors(params)
    x = (data.train_images[picked] / 255.0 - PIXEL_MEAN) / PIXEL_STD
    logits = x @ tensors["dense1.weight"] + tensors["dense1.bias"]
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    probabilities[np.arange(len(picked)), data.train_labels[picked]] -= 1
    out = np.zeros_like(params)
    layout.fill(out, {"dense1.weight": x.T @ probabilities, "dense1.bias": probabilities.sum(axis=0)})
    return out / len(picked)


def test_rounds_sample_without_replacement_and_share_out_by_cost() -> None:
    parts = [np.arange(10 if client % 2 else 100) for client in range(16)]
    rounds = Rounds(0, parts, 16, 1)
    for number in range(10):
        tasks = rounds.tasks(number)
        assert sorted(task.client for task in tasks) == list(range(16))
        sizes = np.array([len(parts[task.client]) for task in tasks])
        for num_ranks in (2, 4):
            shares = sizes.reshape(num_ranks, -1).sum(axis=1)
            assert shares.max() < 1.25 * shares.mean()
    few = Rounds(0, parts, 3, 1)
    drawn = [frozenset(task.client for task in few.tasks(number)) for number in range(40)]
    assert all(len(clients) == 3 for clients in drawn)
    assert len(set(drawn)) > 20


def test_a_pass_takes_each_sample_of_its_client_once_and_orders_differ() -> None:
    parts = [np.arange(0, 20), np.arange(20, 27), np.arange(27, 33)]
    rounds = Rounds(5, parts, 3, 2)
    batches = ClientBatches(rounds, 4, 3)
    orders = []
    for position, task in enumerate(rounds.tasks(1)):
        for epoch in range(batches.first_epoch(1, position), batches.first_epoch(1, position) + 2):
            steps = [epoch * batches.steps_per_epoch + step for step in range(batches.num_steps(epoch))]
            taken = [
                batches.indices(step, number) for step in steps for number in range(batches.num_micro_batches(step))
            ]
            orders.append(tuple(np.concatenate(taken)))
            assert sorted(orders[-1]) == parts[task.client].tolist()
            assert [batches.round(step) for step in steps] == [1] * len(steps)
    assert len(set(orders)) == 6


def test_nothing_happens_where_no_update_arrives(tmp_path: Path) -> None:
    summary = federated(tmp_path, drop=1.0)
    hashes = {record["params_hash"] for record in records(tmp_path)}
    assert len(hashes) == 1
    assert summary["samples"] == summary["skipped_updates"] == 0
    assert not [line for line in summary["warnings"] if "first step" in line]


def test_probabilities_of_what_is_lost_and_late() -> None:
    tasks = [task for number in range(400) for task in Rounds(1, [np.arange(3)] * 10, 5, 4, 0.3, 0.6).tasks(number)]
    assert np.mean([not task.arrives for task in tasks]) == pytest.approx(0.3, abs=0.03)
    passes = np.bincount([task.num_passes for task in tasks], minlength=5)
    np.testing.assert_allclose(passes / len(tasks), [0, 0.2, 0.2, 0.2, 0.4], atol=0.03)


@pytest.mark.parametrize(("wire", "bytes_up"), [("float32", 4), ("int8", 1 + 2 / 1024)])
def test_bytes_are_those_that_devices_would_send(wire: str, bytes_up: float, tmp_path: Path) -> None:
    summary = federated(tmp_path, 2, wire=wire)
    size = live(hidden=(12,)).exchange.size
    assert summary["client_bytes"] == 5 * 6 * size * (4 + bytes_up)
    assert summary["wire"] == wire


def test_a_client_whose_gradient_is_not_finite_is_named(tmp_path: Path) -> None:
    for world_size in (1, 3):
        with pytest.raises(NonFiniteError, match=r"not finite in rank \d, client \d+, micro-batch \d+ \(training"):
            federated(tmp_path / str(world_size), world_size, lr=1e30, optimizer="sgd")
    with pytest.raises(NonFiniteError, match=r"not finite in rank 0, client \d+; lower"):  # that of the proximal term
        federated(tmp_path / "pulled", proximal=1e30)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"sync": "local"}, "--clients is for --sync federated; type that as well, or drop it"),
        ({"epochs": 3, "steps": None}, "--epochs: a federated run is counted in rounds; type --rounds 100"),
        ({"global_batch": 64}, "--global-batch: with --sync federated each client has its own steps"),
        ({"accumulate": 2}, "--accumulate: with --sync federated"),
        ({"scale_lr": "linear:256"}, "--scale-lr: with --sync federated there is no global batch"),
        ({"rounds": 7}, "--rounds and --steps say the same in two ways"),
        ({"wire": "topk"}, "--wire topk: residuals would have to wait until a client is asked again"),
        ({"wire": "int8", "error_feedback": True}, "--error-feedback: residuals would have to wait"),
        ({"precision": "float16"}, "which --sync federated cannot follow; type --precision bfloat16"),
        ({"non_finite": "skip"}, "--non-finite skip cannot undo what --sync federated has kept"),
        ({"shard_optimizer": "on"}, "--shard-optimizer: with --sync federated each rank updates all params"),
        ({"shards": 2, "tensor": 2}, "--tensor: with --sync federated"),
        ({"outer_momentum": 0.9}, "--server-optimizer sgd has no momentum; type --server-optimizer momentum or nester"),
        ({"stragglers": 0.1, "local_epochs": 1}, "--stragglers: with --local-epochs 1 no client can do less"),
        ({"dp_noise": 1.0}, "--dp-noise: changes of any size need any noise; type --dp-clip 1"),
        (
            {"secure_aggregation": True, "wire": "int8"},
            "--secure-aggregation: masked changes are whole numbers of 32 bits",
        ),
        ({"client_fraction": 0.0}, "--client-fraction 0.0: must be above 0 and at most 1"),
        ({"clients": 400}, "--clients 400: 400 parts of 330 training samples would be empty; type --clients 330 or"),
        ({"partition": "shards:0"}, "--partition shards:0: a whole number of shards a client must follow"),
    ],
)
def test_refusals(given: dict[str, Any], line: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        federated(tmp_path / "run", 2, **given)
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "lr"),
    [
        ({}, 0.01),
        ({"momentum": 0.5}, 0.05),
        ({"optimizer": "sgd"}, 0.1),
        ({"optimizer": "adam"}, 0.001),
        ({"lr": 0.3}, 0.3),
    ],
)
def test_clients_with_momentum_begin_at_a_smaller_learning_rate(given: dict[str, Any], lr: float) -> None:
    """With that of large batches they diverge."""
    assert resolve(Config(sync="federated", **given), 1).lr == pytest.approx(lr)
    assert resolve(Config(**given), 1).lr == (given.get("lr") or RULES[given.get("optimizer", "momentum")].lr)
