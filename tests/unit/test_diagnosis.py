"""Diagnoses: each prepared fault is named, once, with what was measured; healthy runs are told nothing."""

import itertools
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpgd.config.schema import Config
from ddpgd.data import synthetic
from ddpgd.data.mnist import Dataset
from ddpgd.errors import Interrupted
from ddpgd.params import Layout
from ddpgd.run import build, diagnosis
from ddpgd.run.diagnosis import DIAGNOSES, Diagnoses
from ddpgd.run.diagnosis_memory import UNKNOWN, Memory, is_memory
from ddpgd.training.stopping import StopRequest
from runs import make_digits, train

GIVEN: dict[str, Any] = {
    "hidden": (32,),
    "global_batch": 50,
    "micro_batch": 25,
    "lr": None,
    "epochs": 2,
    "steps": None,
    "log_every": 10,
    "evaluate_every": None,
}
Vector = np.ndarray


@cache
def data() -> Dataset:
    return make_digits(1500, 600)


def shuffled() -> Dataset:
    return replace(data(), train_labels=np.random.default_rng(0).permutation(data().train_labels))


def of_0_and_1() -> Dataset:
    return replace(data(), train_images=data().train_images // 255, test_images=data().test_images // 255)


def dark_on_light() -> Dataset:
    return replace(data(), train_images=255 - data().train_images, test_images=255 - data().test_images)


def leaked() -> Dataset:
    whole = data()
    images = np.concatenate([whole.train_images[:-60], whole.test_images[:60]])
    return replace(
        whole, train_images=images, train_labels=np.concatenate([whole.train_labels[:-60], whole.test_labels[:60]])
    )


def zeros(_layout: Layout, params: Vector) -> Vector:
    return 0 * params


def large(_layout: Layout, params: Vector) -> Vector:
    return 30 * params


def with_low_biases(layout: Layout, params: Vector) -> Vector:
    for tensor in layout.tensors:
        if tensor.name == "dense1.bias":
            tensor.view(params)[...] = -80
    return params


SICK: dict[str, tuple[str, dict[str, Any]]] = {
    "deep sigmoid": ("vanishing gradient", {"hidden": (32,) * 9, "activation": "sigmoid"}),
    "large lr": ("large lr", {"lr": 10.0}),
    "large lr, adam": ("large lr", {"lr": 1.0, "optimizer": "adam"}),
    "zero weights": ("zero weights", {"params": zeros}),
    "zero weights, sigmoid": ("zero weights", {"params": zeros, "activation": "sigmoid"}),
    "dead relu": ("dead relu", {"params": with_low_biases, "hidden": (32, 32)}),
    "pixels of 0 and 1": ("unlike inputs", {"data": of_0_and_1}),
    "dark on light": ("unlike inputs", {"data": dark_on_light}),
    "small lr": ("small lr", {"lr": 1e-7}),
    "small lr, adam": ("small lr", {"lr": 1e-7, "optimizer": "adam"}),
    "large weights": ("exploding weights", {"params": large}),
    "large weights, tanh": ("exploding weights", {"params": large, "hidden": (32, 32), "activation": "tanh"}),
    "shuffled labels": ("labels", {"data": shuffled}),
    "leak": ("leak", {"data": leaked}),
    "shuffled labels, validation": ("labels", {"data": shuffled, "validation": 200}),
}
HEALTHY: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "wide": {"hidden": (256,)},
    "deep": {"hidden": (32,) * 6},
    "no hidden layer": {"hidden": ()},
    "deep tanh, xavier": {"hidden": (32,) * 4, "activation": "tanh", "init": "xavier"},
    "sigmoid": {"activation": "sigmoid"},
    "two sigmoids, adam": {"activation": "sigmoid", "hidden": (32, 32), "optimizer": "adam"},
    "adam": {"optimizer": "adam"},
    "lion": {"optimizer": "lion"},
    "rmsprop": {"optimizer": "rmsprop"},
    "sgd": {"optimizer": "sgd"},
    "muon": {"optimizer": "muon", "hidden": (32, 32)},
    "mean squared error": {"loss": "mse", "lr": 0.02},
    "small batches": {"global_batch": 4, "micro_batch": 4, "optimizer": "sgd", "lr": 0.02, "epochs": 1},
    "one batch": {"global_batch": 1500, "micro_batch": 100, "epochs": 8},
    "one step": {"epochs": None, "steps": 1},
    "three steps": {"epochs": None, "steps": 3},
    "warm-up": {"warmup": 40},
    "clipped": {"clip_norm": 0.1},
    "clients": {
        "sync": "federated",
        "clients": 10,
        "client_fraction": 0.5,
        "global_batch": None,
        "epochs": None,
        "steps": 4,
    },
    "local steps": {"sync": "local", "local_steps": 4, "ranks": 2, "transport": "threads"},
    "validation samples": {"validation": 100},
}


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[str]]:
    """names(params=..., data=..., **options) -> names of the diagnoses of a run, whose warnings are their sentences."""

    def run(params: Callable[..., Vector] | None = None, data: Callable[[], Dataset] = data, **given: Any) -> list[str]:
        made: list[Diagnoses] = []

        class Kept(Diagnoses):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                made.append(self)

        initialise = build.initialise
        monkeypatch.setattr(synthetic, "make", data)
        monkeypatch.setattr("ddpgd.run.run.Diagnoses", Kept)
        if params:
            monkeypatch.setattr(build, "initialise", lambda layout, *how: params(layout, initialise(layout, *how)))
        summary = train(tmp_path / "run", **GIVEN | given)
        told = next((one.memory.told for one in made if one.memory.told), {})
        assert summary["warnings"][: len(told)] == list(told.values())
        return list(told)

    return run


@pytest.mark.parametrize("case", SICK)
def test_a_prepared_fault_is_named(case: str, names: Callable[..., list[str]]) -> None:
    wanted, given = SICK[case]
    assert names(**given) == [wanted]


@pytest.mark.parametrize("case", HEALTHY)
def test_healthy_runs_are_told_nothing(case: str, names: Callable[..., list[str]]) -> None:
    assert names(**HEALTHY[case]) == []


def test_the_log_tells_it_once_and_the_end_again(
    names: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert names(lr=10.0, quiet=False, ranks=3, transport="threads") == ["large lr"]
    said = capsys.readouterr().out
    assert said.count("WARNING: the learning rate is too large: ") == 2


@pytest.mark.parametrize("call", [1, 4, 7])
@pytest.mark.parametrize(
    "given", [{}, {"lr": 10.0}, {"lr": 1e-7}, {"hidden": (32,) * 9, "activation": "sigmoid"}], ids=str
)
def test_a_run_that_goes_on_is_told_what_a_whole_one_is(
    given: dict[str, Any], call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Late in a cosine schedule no update is large, and what was told before the stop is not told again."""
    monkeypatch.setattr(synthetic, "make", data)
    given = GIVEN | given
    whole = train(tmp_path / "whole", **given)
    asked = itertools.count()
    with monkeypatch.context() as patched:
        patched.setattr(StopRequest, "__bool__", lambda _: next(asked) == call)
        with pytest.raises(Interrupted):
            train(tmp_path / "cut", **given)
    assert train(tmp_path / "cut", 2, resume="", hidden=given["hidden"], log_every=10)["warnings"] == whole["warnings"]


@pytest.mark.parametrize("step", [1, 60])
def test_a_run_from_a_checkpoint_without_a_memory_is_told_nothing_of_its_first_records(step: int) -> None:
    diagnoses = Diagnoses(Config(**{**GIVEN, "lr": 0.1}), data(), UNKNOWN)
    record = {"step": step, "skipped_updates": 0, "train_loss_mean": 2.3, "samples": 6000, "test_accuracy": 0.9}
    health = {"layer_update_ratios": [1e-9, 1e-9], "layer_grad_norms": [1.0, 1.0]}
    assert [diagnoses.see({**record, "step": step + number, **health}) for number in range(3)] == [[], [], []]


def test_a_memory_is_told_from_other_values() -> None:
    memory = asdict(Memory(told={"leak": "a leak"}, num_records=3, first_loss=2.3, largest_shares=[0.5, 1.0]))
    assert is_memory(memory)
    assert is_memory(UNKNOWN)
    for name, wrong in (
        *(("told", ["leak"]), ("told", {"leak": 1}), ("is_explained", 1), ("num_records", 1.5), ("first_loss", "2.3")),
        *(("largest_update", [1]), ("largest_shares", ["1"]), ("step", None)),
    ):
        assert not is_memory({**memory, name: wrong}), name
    assert not is_memory({"told": {}})
    assert not is_memory([])


def test_few_samples_say_nothing_of_labels(names: Callable[..., list[str]]) -> None:
    few = {
        "validation": 1499,
        "global_batch": 1,
        "micro_batch": 1,
        "epochs": None,
        "steps": 3,
        "log_every": 1,
        "lr": 1e-9,
    }
    assert "labels" not in names(data=shuffled, **few)


def test_every_row_has_a_prepared_fault() -> None:
    assert {row.name for row in DIAGNOSES} == {name for name, _ in SICK.values()} | {"loss scale"}


def test_updates_that_are_skipped_again_and_again_are_told() -> None:
    def told(skipped: int, **more: Any) -> list[str]:
        diagnoses = Diagnoses(Config(precision="float16"), data())
        record = {"step": 1, "skipped_updates": 1, "train_loss_mean": 2.3, "samples": 50} | more
        diagnoses.see(record)
        return diagnoses.see(record | {"step": 11, "skipped_updates": 1 + skipped})

    (sentence,) = told(7, loss_scale=2.0**30)
    assert sentence.startswith(
        "7 of the last 10 updates were skipped, since gradients overflow float16 at a loss scale of 1.07"
    )
    assert told(2, loss_scale=2.0**12) == []
    assert told(7) == []


def test_bounds_are_what_finds_faults(names: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "SMALL_UPDATE", math.inf)
    monkeypatch.setattr(diagnosis, "HARDLY_LESS", 0.0)
    assert names() == ["small lr"]
