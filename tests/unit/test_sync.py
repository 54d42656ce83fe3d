"""Local updates: ranks are equal where they combine, and what they do in between is what one rank would do alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ddpgd.comm.transport import Alone
from ddpgd.comm.transports import threads
from ddpgd.comm.transports.threads import Threads
from ddpgd.config.schema import Config
from ddpgd.errors import InputError, NonFiniteError
from ddpgd.kernels.reference.backend import Reference
from ddpgd.optim.rules import RULES
from ddpgd.run import build
from runs import digits, records, train

Array = NDArray[Any]
LOCAL = {"sync": "local", "local_steps": 3}

pytestmark = pytest.mark.usefixtures("few_digits")


def rounds(world_size: int, num_rounds: int, **given: Any) -> list[tuple[list[Array], list[Any]]]:
    """Every rank's params after each round, and the round's results."""
    given = {"hidden": (12,), "global_batch": 50, "micro_batch": 7, "lr": 0.05, "epochs": 5} | LOCAL | given
    config = Config(data="synthetic", **given)

    def work(transport: Threads) -> tuple[list[Array], list[Any]]:
        live = build.sync(Reference(), config, digits(), build.grid(config, transport), 35)
        params, results, step = [], [], 0
        for _ in range(num_rounds):
            results.append(live.run(step, 1, False, False))
            step += results[-1].num_steps
            params.append(live.state.params.copy())
        return params, results

    return threads.run(world_size, work)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("wire", ["float32", "float16", "int8", "topk", "powersgd"])
@pytest.mark.parametrize("outer", [{}, {"outer_lr": 0.7, "outer_momentum": 0.9}])
def test_ranks_are_equal_where_they_combine(world_size: int, wire: str, outer: dict[str, float]) -> None:
    """Steps of 7 micro-batches, the last of an epoch of 5: of 7 ranks, two have nothing to do in it."""
    ranks = rounds(world_size, 4, wire=wire, **outer)
    for params, results in ranks:
        for own, first in zip(params, ranks[0][0], strict=True):
            np.testing.assert_array_equal(own, first)
        assert [result.loss_sums for result in results] == [result.loss_sums for result in ranks[0][1]]
        assert [result.drift for result in results] == [result.drift for result in ranks[0][1]]


def test_drift_is_none_alone_and_some_together() -> None:
    assert all(result.drift < 1e-3 for result in rounds(1, 2)[0][1])
    assert all(0.05 < result.drift < 10 for result in rounds(3, 2)[0][1])


@pytest.mark.parametrize("optimizer", list(RULES))
def test_one_rank_alone_does_what_it_does_every_step(optimizer: str, tmp_path: Path) -> None:
    given = {"optimizer": optimizer, "lr": 0.01, "steps": 12}
    local = train(tmp_path / "local", 1, **LOCAL, **given)
    every = train(tmp_path / "every", 1, **given)
    assert local["test_loss_mean"] == pytest.approx(every["test_loss_mean"], rel=1e-4)


def test_a_local_step_each_is_a_step_together(tmp_path: Path) -> None:
    """Plain SGD and equal shares: the mean of params moved by gradients is params moved by their mean."""
    given = {"optimizer": "sgd", "global_batch": 48, "micro_batch": 8, "steps": 6}
    local = train(tmp_path / "local", 3, sync="local", local_steps=1, **given)
    every = train(tmp_path / "every", 3, **given)
    assert local["test_loss_mean"] == pytest.approx(every["test_loss_mean"], rel=1e-5)


def test_the_mean_of_what_ranks_did_alone() -> None:
    """A round of two ranks, by hand: each on its share of every step, from the same params."""
    (params, _), _ = rounds(2, 1, optimizer="sgd", weight_decay=0.0, global_batch=28)
    alone = []
    for own in ((0, 1), (2, 3)):
        cut = digits()
        order = build.batches(Config(global_batch=28, micro_batch=7), cut).order(0)
        picked = np.concatenate([order[28 * step + 7 * m : 28 * step + 7 * m + 7] for step in range(3) for m in own])
        few = replace(cut, train_images=cut.train_images[picked], train_labels=cut.train_labels[picked])
        alone.append(_in_order(few))
    np.testing.assert_allclose(params[0], np.mean(alone, axis=0), rtol=0, atol=1e-6)


def _in_order(data: Any) -> Array:
    """Params after three steps of 14 samples each, in the order in which they are."""
    config = Config(hidden=(12,), global_batch=14, micro_batch=7, lr=0.05, epochs=5, optimizer="sgd", weight_decay=0.0)
    live = build.sync(Reference(), config, data, build.grid(config, Alone()), 35)
    live.batches._orders = {0: np.arange(42)}
    for step in range(3):
        live.run(step, 1, False, False)
    return live.state.params


def test_events_wait_for_ranks_to_be_equal(tmp_path: Path) -> None:
    """Evaluations, records and checkpoints come at the first combination at or after they are due; the end is one."""
    train(tmp_path, 2, **LOCAL, steps=14, evaluate_every=4, log_every=100, checkpoint_every=5)
    assert [record["step"] for record in records(tmp_path)] == [3, 6, 9, 12, 14]
    assert all(record["drift"] > 0 for record in records(tmp_path))
    saved = sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*"))
    assert saved == ["step-00000006.safetensors", "step-00000012.safetensors", "step-00000014.safetensors"]


def test_every_step_together_at_first(tmp_path: Path) -> None:
    train(tmp_path / "post", 2, **LOCAL, local_after=4, steps=10)
    train(tmp_path / "every", 2, steps=10)
    post, every = records(tmp_path / "post"), records(tmp_path / "every")
    assert post[:4] == every[:4]
    assert [record["step"] for record in post[4:]] == [7, 10]
    assert "drift" not in post[3]
    assert post[4]["drift"] > 0


@pytest.mark.parametrize(("steps", "rounds"), [(12, 4), (14, 5)])
def test_bytes_are_those_of_the_rounds(steps: int, rounds: int, tmp_path: Path) -> None:
    """The last one may be short."""
    given = {"steps": steps, "global_batch": 56, "local_after": 0}
    local = train(tmp_path / "local", 2, **LOCAL, **given)
    every = train(tmp_path / "every", 2, **{name: value for name, value in given.items() if name != "local_after"})
    assert local["wire_bytes_per_step"] * steps / rounds == pytest.approx(every["wire_bytes_per_step"], rel=0.01)
    assert local["wire_compression"] == pytest.approx(steps / rounds, rel=0.01)


@pytest.mark.parametrize("world_size", [1, 3])
def test_a_rank_whose_gradient_is_not_finite_ends_all(world_size: int, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"not finite in rank 0, step \d+, micro-batch"):
        train(tmp_path, world_size, **LOCAL, lr=1e30, optimizer="sgd")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"local_steps": 4}, "--local-steps is for --sync local; type that as well, or drop it"),
        ({"outer_momentum": 0.9}, "--outer-momentum is for --sync local"),
        ({"topk_density": 0.5}, "--topk-density is for --wire topk"),
        ({"powersgd_rank": 3, "wire": "topk"}, "--powersgd-rank is for --wire powersgd"),
        ({"wire": "topk", "error_feedback": True}, "keeps residuals in any case; drop the flag"),
        (
            {"wire": "topk", "optimizer": "nesterov"},
            "takes over plain momentum alone; type --optimizer sgd, momentum, adam, adamw, rmsprop or lion",
        ),
        ({"wire": "powersgd", "non_finite": "skip"}, "--non-finite skip cannot undo what --wire powersgd has kept"),
        ({"sync": "local", "precision": "float16"}, "which --sync local cannot follow; type --precision bfloat16"),
        ({"wire": "topk", "topk_density": 0.0}, "--topk-density 0.0: must be above 0 and at most 1"),
        ({"wire": "powersgd", "powersgd_rank": 33}, "--powersgd-rank 33: must be 1 to 32"),
        ({"sync": "local", "local_steps": 0}, "--local-steps 0: must be at least 1"),
    ],
)
def test_what_does_not_go_together(given: dict[str, Any], line: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        train(tmp_path, 2, **given)
    assert line in str(refused.value)


@pytest.mark.parametrize("world_size", [1, 3, 7])
def test_adam_goes_on_exactly_where_local_steps_follow_synced_ones(world_size: int, tmp_path: Path) -> None:
    """Its bias correction counts updates: synced and local steps share one count, which survives a resume.

    Of 7 ranks, two have nothing to do in the short step at an epoch's end, and so have made fewer updates.
    """
    given = {"optimizer": "adam", "lr": 0.01, "local_after": 4, "global_batch": 50, "micro_batch": 7, "steps": 22}
    whole = train(tmp_path / "whole", world_size, **LOCAL, **given, checkpoint_every=13)
    cut = tmp_path / "whole" / "checkpoints" / "step-00000013.safetensors"
    resumed = train(tmp_path / "resumed", world_size, resume=str(cut))
    assert resumed["params_sha256"] == whole["params_sha256"]
