"""The first lines of a run."""

from typing import Any

import numpy as np
import pytest

from ddpgd.comm.grid import Shape
from ddpgd.config.schema import Config, resolve
from ddpgd.data import synthetic
from ddpgd.run import report
from ddpgd.run.work import of_steps


@pytest.mark.parametrize(("world_size", "idle"), [(4, ""), (5, "1 of 5 ranks"), (7, "3 of 7 ranks")])
def test_ranks_without_a_micro_batch_are_told_of(world_size: int, idle: str) -> None:
    config = resolve(Config(global_batch=256, micro_batch=64), world_size)
    lines = report.introduction(
        config,
        Shape(world_size),
        1,
        "threads",
        "numpy",
        (784, 10),
        7850,
        1,
        synthetic.make(64, 64),
        "runs/any",
        of_steps(config, Shape(world_size), 64),
        (0, 10),
    )
    said = [line for line in lines if " idle" in line]
    assert len(said) == bool(idle)
    if idle:
        assert said[0].startswith(f"WARNING: {idle} idle: type --accumulate 1")


FIGURES = {"last": 0.3, "best_step": None, "test_accuracy": 0.9, "epochs": 2.0, "skipped_updates": 0}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, ""),
        ({"last": 4.6e12}, "the run diverged: test loss 4.60e+12"),
        ({"last": None}, "the run diverged: test loss -"),
        ({"last": 4.6e12, "best_step": 3}, "the run diverged: validation loss 4.60e+12"),
        ({"last": 2.3, "test_accuracy": 0.105}, "the network guesses"),
        ({"last": 2.3, "test_accuracy": 0.105, "epochs": 0.1}, ""),
        ({"skipped_updates": 1}, "1 update skipped"),
    ],
)
def test_a_run_that_did_not_learn_says_so(changed: dict[str, Any], said: str) -> None:
    labels = np.repeat(np.arange(10, dtype=np.uint8), 10)
    figures = FIGURES | changed
    found = report.warnings(Config(), figures, figures.pop("last"), labels)
    assert len(found) == bool(said)
    assert not said or found[0].startswith(said)


def test_a_batch_of_more_than_all_samples_is_told_of() -> None:
    config = resolve(Config(global_batch=4096, micro_batch=64), 1)
    given = (
        "alone",
        "numpy",
        (784, 10),
        7850,
        1,
        synthetic.make(64, 64),
        "runs/any",
        of_steps(config, Shape(), 64),
        (0, 10),
    )
    lines = report.introduction(config, Shape(), 1, *given)
    assert any(line.startswith("WARNING: --global-batch 4,096 is more than the 64 training samples") for line in lines)


@pytest.mark.parametrize(("backend", "told"), [("numpy (auto: no GPU)", 2), ("cupy", 0)])
def test_flags_of_gpus_are_told_of_where_there_is_none(backend: str, told: int) -> None:
    config = resolve(Config(replay="persistent", share_gpu=True), 1)
    given = (784, 10), 7850, 1, synthetic.make(300, 64), "runs/any", of_steps(config, Shape(), 300), (0, 10)
    lines = report.introduction(config, Shape(), 1, "alone", backend, *given)
    assert sum(" has no effect: it is for GPUs" in line for line in lines) == told


def test_the_last_lines_tell_the_time_since_a_resume_and_count_in_words() -> None:
    summary = {
        "train_s": 3.2,
        "train_s_since_start": 2.75,
        "world_size": 1,
        "num_nodes": 1,
        "backend": "numpy",
        "steps": 1,
    }
    summary |= {
        "test_accuracy": 0.9,
        "test_loss_mean": 0.3,
        "params_sha256": "0" * 64,
        "step_us_median": 5.0,
        "warnings": [],
    }
    summary |= {
        "exchange_us_median": 0.0,
        "wire_bytes_per_step": 0,
        "late_rank": None,
        "lost_ranks": [],
        "ended": "",
        "best_step": None,
    }
    summary["noise_scale"] = None
    lines = report.conclusion(summary, "runs/any")
    assert lines[1].startswith("3.2 s of training on 1 rank, 2.8 s of it since the resume: 1 step of 5 us")
    lines = report.conclusion(summary | {"train_s_since_start": 3.2}, "runs/any")
    assert lines[1].startswith("3.2 s of training on 1 rank: 1 step of 5 us")
    assert not any("critical batch" in line for line in lines)
    for scale, told in ((1234.5, "1,200"), (7.26, "7"), (98765.0, "99,000"), (0.5, ""), (-3.0, "")):
        lines = report.conclusion(summary | {"noise_scale": scale}, "runs/any")
        wanted = f"critical batch about {told}: larger global batches than that save few steps"
        assert [line for line in lines if "critical batch" in line] == ([wanted] if told else [])


def test_a_grid_is_told_and_ranks_apart_are_warned_of() -> None:
    config = resolve(Config(global_batch=256, micro_batch=64, shards=2, tensor=2), 3)
    work = of_steps(config, Shape(3, 1, 2), 64)
    given = "mpi-host", "numpy", (784, 10), 7850, 1, synthetic.make(64, 64), "runs/any", work, (0, 10)
    lines = report.introduction(config, Shape(3, 1, 2), 2, *given, apart=[2, 3])
    assert "6 ranks, data 3 x pipeline 1 x tensor 2, on 2 machines over mpi-host" in lines[0]
    assert any("= 3 replicas x 0 to 2 accumulated" in line for line in lines)
    assert [
        line for line in lines if line.startswith("WARNING: ranks 2, 3, which share layers, are on several machines")
    ]


def test_ranks_that_share_layers_on_several_nodes_are_found() -> None:
    assert Shape().apart(["a"]) == []
    assert Shape(2, 1, 2).apart(["a", "a", "b", "b"]) == []
    assert Shape(2, 1, 2).apart(["a", "a", "a", "b"]) == [2, 3]
