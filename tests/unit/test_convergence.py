"""Runs that end early: by the best evaluation on validation samples, a small gradient, or a loss that falls no more."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ddpgd
from ddpgd.errors import InputError, Interrupted
from ddpgd.run import checkpoint, checkpoint_search
from ddpgd.training.convergence import Criteria
from ddpgd.training.counters import Counters
from ddpgd.training.stopping import StopRequest
from runs import records, train

Record = dict[str, Any]

pytestmark = pytest.mark.usefixtures("few_digits")

VALIDATED: Record = {"validation": 90, "steps": 60, "evaluate_every": 3, "lr": 0.1}
ENDING: dict[str, Record] = {
    "patience": {**VALIDATED, "patience": 3},
    "gradient": {"until_grad_norm": 0.25, "steps": 200, "log_every": 2, "lr": 0.1},
    "loss": {"until_loss_fall": 0.1, "steps": 300, "evaluate_every": 4, "lr": 0.1},
    "accuracy": {**VALIDATED, "until_accuracy": 0.5},
}


@pytest.mark.parametrize(
    ("criteria", "counters", "reason"),
    [
        (Criteria(), Counters(step=3, tested_at=3, test_accuracy=1.0, grad_norm=0.0), ""),
        (Criteria(accuracy=0.9), Counters(step=3, tested_at=3, test_accuracy=0.9), "accuracy 90.00 % is reached"),
        (Criteria(accuracy=0.9), Counters(step=3, tested_at=3, test_accuracy=0.89), ""),
        (Criteria(accuracy=0.9), Counters(step=4, tested_at=3, test_accuracy=0.9), ""),
        (
            Criteria(accuracy=0.9),
            Counters(step=3, tested_at=3, test_accuracy=0.9, validated_at=3, validation_accuracy=0.8),
            "",
        ),
        (Criteria(patience=2), Counters(evaluations_since_best=1), ""),
        (
            Criteria(patience=2),
            Counters(evaluations_since_best=2, tested_at=5),
            "2 evaluations were no better than that after step 5",
        ),
        (Criteria(grad_norm=0.1), Counters(), ""),
        (Criteria(grad_norm=0.1), Counters(grad_norm=0.11), ""),
        (Criteria(grad_norm=0.1), Counters(grad_norm=0.1), "the gradient norm is 0.1, at most 0.1"),
        (Criteria(loss_fall=0.01), Counters(), ""),
        (Criteria(loss_fall=0.01), Counters(epoch_loss_fall=0.01), ""),
        (
            Criteria(loss_fall=0.01),
            Counters(epoch_loss_fall=-0.2),
            "the training loss fell by -20 % in an epoch, less than 1 %",
        ),
    ],
)
def test_criteria(criteria: Criteria, counters: Counters, reason: str) -> None:
    assert criteria.met(counters) == reason


def test_the_best_has_the_most_accuracy_then_the_least_loss() -> None:
    counters = Counters()
    evaluations = [
        (0.5, 0.8),
        (0.4, 0.8),
        (0.4, 0.8),
        (0.1, 0.7),
        (float("nan"), 0.8),
        (9.0, 0.9),
        (float("inf"), 0.95),
    ]
    found = []
    for counters.step, (loss, accuracy) in enumerate(evaluations):
        found.append((counters.see_validation(loss, accuracy, True), counters.evaluations_since_best))
    assert found == [(True, 0), (True, 0), (False, 1), (False, 2), (False, 3), (True, 0), (True, 0)]
    assert (counters.best_accuracy, counters.best_loss_mean) == (0.95, None)
    assert not counters.see_validation(1.0, 0.9, False)
    assert counters.evaluations_since_best == 0


@pytest.mark.parametrize("name", ENDING)
def test_a_run_ends_at_the_same_step_on_any_number_of_ranks(name: str, tmp_path: Path) -> None:
    alone = train(tmp_path / "1", **ENDING[name])
    assert alone["ended"]
    assert 0 < alone["steps"] < ENDING[name]["steps"]
    for world_size in (2, 3, 4, 7):
        summary = train(tmp_path / str(world_size), world_size, **ENDING[name])
        for key in ("params_sha256", "steps", "ended", "best_step", "validation_accuracy", "test_accuracy"):
            assert summary[key] == alone[key]
        assert records(tmp_path / str(world_size)) == records(tmp_path / "1")


@pytest.mark.parametrize("name", ENDING)
@pytest.mark.parametrize("call", [2, 9])
def test_a_run_that_was_cut_ends_where_the_whole_one_does(
    name: str, call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tmp_path / "whole", **ENDING[name])
    asked = itertools.count()
    with monkeypatch.context() as patched:
        patched.setattr(StopRequest, "__bool__", lambda _: next(asked) == call)
        with pytest.raises(Interrupted):
            train(tmp_path / "cut", **ENDING[name])
    every = {"log_every": ENDING[name].get("log_every", 1)}
    resumed = train(tmp_path / "cut", 3, resume="", **every)
    for key in ("params_sha256", "steps", "ended", "best_step", "test_accuracy"):
        assert resumed[key] == whole[key]
    assert records(tmp_path / "cut") == records(tmp_path / "whole")
    ended = train(tmp_path / "cut", resume="", **every)
    assert (ended["steps"], ended["ended"]) == (whole["steps"], whole["ended"])
    best = [checkpoint_search.find_best(tmp_path / run, print) for run in ("whole", "cut")]
    assert best[0][1].facts["params_sha256"] == best[1][1].facts["params_sha256"]


def test_evaluations_are_on_validation_samples_and_the_test_waits_for_the_end(tmp_path: Path) -> None:
    summary = train(tmp_path / "run", **ENDING["patience"])
    evaluated = [record for record in records(tmp_path / "run") if "validation_accuracy" in record]
    assert not any("test_accuracy" in record for record in records(tmp_path / "run"))
    accuracies = [record["validation_accuracy"] for record in evaluated]
    assert summary["validation_accuracy"] == max(accuracies) == accuracies[-4]
    assert summary["best_step"] == evaluated[-4]["step"] == summary["steps"] - 9


def test_the_figures_are_those_of_the_best_checkpoint(tmp_path: Path) -> None:
    summary = train(tmp_path / "run", **ENDING["patience"])
    folder = tmp_path / "run" / "checkpoints"
    assert (folder / "best").resolve() == checkpoint.path_of(folder, summary["best_step"]).resolve()
    evaluated = ddpgd.evaluate(tmp_path / "run")
    assert (evaluated["step"], evaluated["test_accuracy"]) == (summary["best_step"], summary["test_accuracy"])
    newest = ddpgd.evaluate(folder / "latest")
    assert newest["step"] == summary["steps"]
    np.testing.assert_equal(ddpgd.load_params(tmp_path / "run"), ddpgd.load_params(folder / "best"))


def test_patience_that_is_raised_goes_on(tmp_path: Path) -> None:
    first = train(tmp_path / "run", **ENDING["patience"])
    whole = train(tmp_path / "whole", **{**ENDING["patience"], "patience": 5})
    assert whole["steps"] > first["steps"]
    second = train(tmp_path / "run", 2, resume="", patience=5)
    assert (second["params_sha256"], second["steps"]) == (whole["params_sha256"], whole["steps"])
    assert records(tmp_path / "run") == records(tmp_path / "whole")


@pytest.mark.parametrize("name", ENDING)
def test_the_last_record_has_the_evaluation_of_the_end(name: str, tmp_path: Path) -> None:
    summary = train(tmp_path / "run", **ENDING[name] | {"log_every": 7})
    last = records(tmp_path / "run")[-1]
    assert last["step"] == summary["steps"]
    kind = "validation" if "validation" in ENDING[name] else "test"
    assert last[f"{kind}_accuracy"] is not None
    if kind == "test":
        assert last["test_accuracy"] == summary["test_accuracy"]


@pytest.mark.parametrize("more", [{"schedule": "reduce-on-plateau", "plateau_threshold": 0.9}, {"patience": 9}])
def test_a_run_that_ended_early_goes_on_as_if_it_had_not(more: Record, tmp_path: Path) -> None:
    """The evaluation of its end, at no interval, tries nobody's patience."""
    given = VALIDATED | {"evaluate_every": 5, "log_every": 1, "schedule": "constant", "plateau_patience": 2} | more
    given = given if "plateau_threshold" in more else {**given, "plateau_patience": 5}
    whole = train(tmp_path / "whole", **given)
    first = train(tmp_path / "run", **given, until_grad_norm=1.2)
    assert 0 < first["steps"] < 60
    assert first["steps"] % 5
    second = train(tmp_path / "run", 2, resume="", until_grad_norm=1e-9)
    assert (second["params_sha256"], second["steps"]) == (whole["params_sha256"], whole["steps"])


def test_a_new_length_takes_the_place_of_what_ended_a_run(tmp_path: Path) -> None:
    first = train(tmp_path / "run", **ENDING["gradient"])
    second = train(tmp_path / "run", resume="", steps=first["steps"] + 3)
    assert (second["steps"], second["ended"]) == (first["steps"] + 3, "")


@pytest.mark.parametrize("local_steps", [3, 7, 8])
def test_local_steps_end_by_their_loss_wherever_epochs_end(local_steps: int, tmp_path: Path) -> None:
    given = {"sync": "local", "local_steps": local_steps, "until_loss_fall": 0.3, "steps": 300, "lr": 0.1}
    summary = train(tmp_path / "run", 2, **given)
    assert "the training loss fell by" in summary["ended"]


@pytest.mark.parametrize("sync", ["local", "federated"])
def test_a_gradient_that_ranks_do_not_share_ends_no_run(sync: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"--until-grad-norm: with --sync {sync} there is no gradient of all ranks"):
        train(tmp_path / "run", global_batch=None, sync=sync, until_grad_norm=1.2)


@pytest.mark.parametrize("best_is_last", [False, True])
def test_a_run_that_goes_on_elsewhere_takes_its_best_weights_along(best_is_last: bool, tmp_path: Path) -> None:
    given = ENDING["patience"]
    first = train(tmp_path / "first", **given if not best_is_last else {**VALIDATED, "steps": 3})
    place = tmp_path / "first" / "checkpoints" / "latest"
    second = train(tmp_path / "second", 2, resume=str(place), steps=first["steps"] + 1)
    assert second["best_step"] in (first["best_step"], second["steps"])
    best = tmp_path / "second" / "checkpoints" / "best"
    assert ddpgd.evaluate(best)["test_accuracy"] == ddpgd.evaluate(tmp_path / "second")["test_accuracy"]
    assert ddpgd.evaluate(best)["test_accuracy"] == second["test_accuracy"]


def test_best_weights_that_are_lost_are_told_and_sought_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = train(tmp_path / "run", **ENDING["patience"])
    checkpoint.path_of(tmp_path / "run" / "checkpoints", first["best_step"]).unlink()
    second = train(tmp_path / "run", 2, resume="", steps=first["steps"] + 2)
    assert f"the best weights are sought anew, from step {first['steps']} on" in capsys.readouterr().err
    assert second["best_step"] > first["steps"]
    assert ddpgd.evaluate(tmp_path / "run" / "checkpoints" / "best")["test_accuracy"] == second["test_accuracy"]


def test_patience_wants_validation_samples(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="test samples must not decide when to stop; type --validation 5000 as well"):
        train(tmp_path / "run", patience=3)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("given", [{"sync": "local", "local_steps": 3}, {"shards": 2, "tensor": 2}, {"pipeline": 2}])
def test_other_ways_to_train_end_early_too(given: Record, tmp_path: Path) -> None:
    summaries = [
        train(tmp_path / str(number), 2, **{**ENDING["patience"], "patience": 1, **given}) for number in range(2)
    ]
    assert summaries[0]["ended"]
    assert summaries[0]["params_sha256"] == summaries[1]["params_sha256"]
    assert (tmp_path / "0" / "checkpoints" / "best").exists()


def test_clients_are_dealt_what_is_not_held_out(tmp_path: Path) -> None:
    given = {"sync": "federated", "global_batch": None, "clients": 9, "local_epochs": 1, "partition": "shards:2"}
    first = train(tmp_path / "1", **given, validation=60, patience=1, steps=12, evaluate_every=1)
    second = train(tmp_path / "2", 3, **given, validation=60, patience=1, steps=12, evaluate_every=1)
    assert first["params_sha256"] == second["params_sha256"]
    assert first["validation_accuracy"] is not None
