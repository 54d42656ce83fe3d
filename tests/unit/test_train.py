"""Whole runs, cut over any number of ranks: the same bits, the same records, the same end for everybody."""

import itertools
import json
import math
import re
import signal
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import ddpgd
from ddpgd.comm.launcher import Launch
from ddpgd.comm.transport import Alone
from ddpgd.comm.transports import threads
from ddpgd.comm.transports.threads import Threads
from ddpgd.comm.tree import ranges
from ddpgd.config.schema import Config
from ddpgd.data import synthetic
from ddpgd.data.batches import Batches, Samples
from ddpgd.errors import InputError, Interrupted, NonFiniteError
from ddpgd.kernels.philox import permutation
from ddpgd.kernels.reference.backend import Reference
from ddpgd.model.layers import dense_layers
from ddpgd.model.network import PIXEL_MEAN, PIXEL_STD, Network
from ddpgd.optim.rules import RULES
from ddpgd.optim.schedules import Plateau
from ddpgd.params import initialise
from ddpgd.run import build, checkpoint, checkpoint_search, inference, starting
from ddpgd.training.counters import Counters
from ddpgd.training.evaluate import EVALUATE_ROWS, Evaluate
from ddpgd.training.passes import WholeNetwork
from ddpgd.training.step import Step
from ddpgd.training.stopping import StopRequest
from oracles import dense_layout
from runs import Record, digits, make_digits, records, train

pytestmark = pytest.mark.usefixtures("few_digits")

WORLD_SIZES = (1, 2, 3, 5, 7, 8, 64)
LOCAL: Record = {"sync": "local", "local_steps": 3, "local_after": 2, "optimizer": "sgd"}


CONFIGURATIONS: dict[str, Record] = {
    "ragged": {},
    "aligned": {"global_batch": 64, "micro_batch": 4, "optimizer": "adam", "lr": 0.01},
    "fewer micro-batches than ranks": {"global_batch": 3, "micro_batch": 1, "optimizer": "sgd"},
    "one micro-batch": {"global_batch": 20, "micro_batch": 20, "activation": "tanh"},
    "full batch": {"global_batch": "all", "micro_batch": 17, "validation": 31, "scale_lr": "sqrt:50"},
    "regularised": {
        "global_batch": 40,
        "micro_batch": 9,
        "label_smoothing": 0.1,
        "dropout": 0.3,
        "input_dropout": 0.2,
        "max_norm": 0.5,
    },
    "no hidden layer": {"hidden": (), "loss": "mse", "weight_decay": 0.01, "clip_norm": 0.5},
    "one cycle": {"schedule": "one-cycle", "optimizer": "adam", "lr": 0.01},
    "on a plateau": {
        "schedule": "reduce-on-plateau",
        "plateau_patience": 1,
        "plateau_threshold": 0.5,
        "plateau_factor": 0.5,
        "validation": 60,
        "evaluate_every": 3,
    },
    "elements clipped": {"clip_value": 0.01, "optimizer": "nesterov"},
    "across epochs": {"global_batch": 128, "micro_batch": 9, "warmup": 3, "activation": "sigmoid", "init": "xavier"},
}
ON_MANY_RANKS = "fewer micro-batches than ranks"


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_same_bits_on_any_number_of_ranks(name: str, tmp_path: Path) -> None:
    alone = train(tmp_path / "1", **CONFIGURATIONS[name])
    wanted = records(tmp_path / "1")
    assert len({record["params_hash"] for record in wanted}) == len(wanted) >= 9
    for world_size in WORLD_SIZES[1:] if name == ON_MANY_RANKS else WORLD_SIZES[1:-1]:
        summary = train(tmp_path / str(world_size), world_size, **CONFIGURATIONS[name])
        assert summary["params_sha256"] == alone["params_sha256"]
        assert records(tmp_path / str(world_size)) == wanted
        for key in ("steps", "epochs", "samples", "train_loss_mean", "test_loss_mean", "test_accuracy"):
            assert summary[key] == alone[key]
        assert summary["world_size"] == world_size


@pytest.mark.parametrize(
    ("option", "value"), [("seed", 1), ("lr", 0.06), ("micro_batch", 8), ("augment", "affine"), ("init", "xavier")]
)
def test_another_configuration_has_other_bits(option: str, value: Any, tmp_path: Path) -> None:
    runs = [train(tmp_path / "1"), train(tmp_path / "2", **{option: value})]
    assert runs[0]["params_sha256"] != runs[1]["params_sha256"]


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_fast_is_near(world_size: int, tmp_path: Path) -> None:
    ordered, fast = train(tmp_path / "1"), train(tmp_path / "2", world_size, reduce="fast")
    assert fast["test_loss_mean"] == pytest.approx(ordered["test_loss_mean"], rel=1e-5)
    assert fast["reduce"] == "fast"


@pytest.mark.parametrize(
    ("before", "after", "given"),
    [
        *((3, 5, {"optimizer": name}) for name in RULES),
        *((before, after, {"optimizer": "adam"}) for before, after in ((1, 1), (3, 3), (1, 5), (5, 1), (3, 64))),
        *((3, 5, CONFIGURATIONS[name]) for name in ("one cycle", "elements clipped", "full batch")),
        (5, 3, {"augment": "elastic", "elastic_alpha": 20.0, "dropout": 0.3}),
        (3, 5, {"optimizer": "muon", "lr": 0.01, "max_norm": 0.5}),
    ],
    ids=lambda given: given.get("optimizer", "+".join(given)) if isinstance(given, dict) else None,
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    before: int, after: int, given: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "whole", **given | {"steps": 12})
    asked = itertools.count()
    with monkeypatch.context() as patched:
        patched.setattr(StopRequest, "__bool__", lambda _: next(asked) == 4)
        with pytest.raises(Interrupted, match="go on with --resume"):
            train(tmp_path / "cut", before, **given | {"steps": 12})
    stopped_at = checkpoint_search.find(tmp_path / "cut", print)[1].counters["step"]
    assert stopped_at == 4 // before + 1
    machine = {"transport": "auto"} if after == 1 else {}
    resumed = train(tmp_path / "cut", after, resume="", **machine)
    assert resumed["params_sha256"] == checkpoint_search.find(tmp_path / "whole", print)[1].facts["params_sha256"]
    assert records(tmp_path / "cut") == records(tmp_path / "whole")
    assert resumed["world_size"] == after
    assert 0 < resumed["train_s_since_start"] < resumed["train_s"]


def test_a_run_can_go_on_for_longer_and_twice(tmp_path: Path) -> None:
    constant = {"schedule": "constant"}
    whole = train(tmp_path / "whole", steps=20, **constant)
    train(tmp_path / "part", steps=6, **constant)
    train(tmp_path / "part", 3, resume="", steps=13)
    last = train(tmp_path / "part", 2, resume="", steps=20)
    assert last["params_sha256"] == whole["params_sha256"]
    assert [record["step"] for record in records(tmp_path / "part")] == list(range(1, 21))


def test_a_run_that_is_over_can_be_resumed(tmp_path: Path) -> None:
    whole = train(tmp_path / "run")
    again = train(tmp_path / "run", resume="")
    for name in ("params_sha256", "test_accuracy", "test_loss_mean", "train_loss_mean", "steps", "samples"):
        assert again[name] == whole[name]


def test_a_run_goes_on_from_its_last_whole_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = train(tmp_path / "run", checkpoint_every=3)
    newest = (tmp_path / "run" / "checkpoints" / "latest").resolve()
    newest.write_bytes(newest.read_bytes()[:-100])
    resumed = train(tmp_path / "run", 3, resume="")
    assert "passed over" in capsys.readouterr().err
    assert resumed["params_sha256"] == whole["params_sha256"]
    assert [record["step"] for record in records(tmp_path / "run")] == list(range(1, 10))


@pytest.mark.parametrize("world_size", [1, 3, 8])
def test_until_accuracy_ends_all_alike(world_size: int, tmp_path: Path) -> None:
    goal = {"steps": 400, "evaluate_every": 5, "log_every": 100, "hidden": (24,), "until_accuracy": 0.5}
    summary = train(tmp_path / "run", world_size, **goal)
    accuracies = [record["test_accuracy"] for record in records(tmp_path / "run") if "test_accuracy" in record]
    assert summary["test_accuracy"] == accuracies[-1] >= 0.5
    assert max(accuracies[:-1], default=0) < 0.5
    assert summary["steps"] == 5 * len(accuracies) < 400
    assert summary["complete"]


@pytest.mark.parametrize("world_size", [1, 3])
def test_max_time_is_a_checkpoint_and_a_message(world_size: int, tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match=r"--max-time 1e-06 is over") as caught:
        train(tmp_path / "run", world_size, max_time=1e-6)
    assert caught.value.exit_code == 75
    assert checkpoint_search.find(tmp_path / "run", print)[1].counters["step"] == 1
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize("given", [{}, {"max_time": 1e-6, "steps": 900}, {"lr": 1e30, "steps": 90}, LOCAL])
@pytest.mark.parametrize("world_size", [1, 3])
def test_no_thread_is_left_however_a_run_ends(given: Record, world_size: int, tmp_path: Path) -> None:
    """The order of the next epoch is made in one; here a new epoch begins every second step."""
    with suppress(Interrupted, NonFiniteError):
        train(tmp_path, world_size, **given | {"global_batch": 200})
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("order of epoch")]


@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize("world_size", [1, 3])
def test_an_order_that_cannot_be_made_ends_the_run(
    world_size: int, ahead: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In the thread that makes the next one, and in the rank itself: the rank's error, with the place where it happened."""

    def fail(seed: int, epoch: int, num_samples: int) -> NDArray[np.int64]:
        if epoch == 1:
            raise ValueError("epoch 1 has no order")
        return permutation(seed, epoch, num_samples)

    monkeypatch.setattr(build, "permutation", fail)
    if not ahead:
        monkeypatch.setattr(Batches, "prepare", lambda *_: None)
    with pytest.raises(ValueError, match="epoch 1 has no order") as failed:
        train(tmp_path, world_size, steps=9)
    assert any("after 7 steps" in note for note in failed.value.__notes__)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_a_request_and_its_handler_goes_away(number: int) -> None:
    before, stop = signal.getsignal(number), StopRequest()
    with stop.listening():
        assert not stop
        signal.raise_signal(number)
        assert stop
        assert signal.Signals(number).name in stop.reason
    assert signal.getsignal(number) == before


def test_a_second_interrupt_interrupts_at_once() -> None:
    with StopRequest().listening():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


NON_FINITE = re.compile(
    r"step (?P<step>\d+): the gradient is not finite in rank (?P<rank>\d+), micro-batch (?P<micro_batch>\d+) "
    r"\(training samples (?P<samples>[\d, ]+), \.\.\.\), first in (?P<tensor>[\w.]+);"
)
EXPLODING = {"lr": 1e30, "optimizer": "sgd", "schedule": "constant"}


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_a_gradient_that_is_not_finite_stops_all_and_is_placed(world_size: int, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError) as caught:
        train(tmp_path / "run", world_size, **EXPLODING)
    line = str(caught.value)
    assert caught.value.exit_code == 3
    assert "--lr" in line
    found = NON_FINITE.match(line)
    assert found
    step, rank, micro_batch = (int(found[name]) for name in ("step", "rank", "micro_batch"))
    assert micro_batch in ranges(8, world_size)[rank]
    first = (step - 1) * 50 + micro_batch * 7
    named = [int(sample) for sample in found["samples"].split(", ")]
    assert named == permutation(0, 0, 330)[first : min(first + 7, step * 50)].tolist()
    assert found["tensor"] in ("dense1.weight", "dense1.bias", "dense2.weight", "dense2.bias")
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize("world_size", [2, 3])
def test_the_message_is_the_same_but_for_the_rank(world_size: int, tmp_path: Path) -> None:
    lines = []
    for number in (1, world_size):
        with pytest.raises(NonFiniteError) as caught:
            train(tmp_path / str(number), number, **EXPLODING)
        lines.append(str(caught.value).partition("rank ")[2].partition(", ")[2])
    assert lines[0] == lines[1]


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_skipped_updates_are_counted_and_change_nothing(world_size: int, tmp_path: Path) -> None:
    summary = train(tmp_path / "run", world_size, **EXPLODING, non_finite="skip", steps=8, until_accuracy=None)
    lines = records(tmp_path / "run")
    skipped = [record for record in lines if record["grad_norm"] is None]
    assert 0 < summary["skipped_updates"] == len(skipped)
    for before, after in itertools.pairwise(lines):
        assert (before["params_hash"] == after["params_hash"]) == (after["grad_norm"] is None)
    assert summary["steps"] == 8


def test_looking_for_what_is_not_finite_holds_on_to_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    find = Step.non_finite

    def counted(self: Step, step: int) -> str:
        found = find(self, step)
        held.append(len(self.passes.network.stage._views._made))
        return found

    monkeypatch.setattr(Step, "non_finite", counted)
    with pytest.raises(NonFiniteError, match=r"the last [0-9]+ updates were skipped"):
        train(tmp_path / "run", **EXPLODING, non_finite="skip", steps=30)
    assert len(held) > 10
    assert held[0] == held[-1]


def test_json_is_strict(tmp_path: Path) -> None:
    """No record of a run that went wrong holds what JSON has no word for."""
    train(tmp_path / "run", **EXPLODING, non_finite="skip", steps=8)

    def refuse(word: str) -> None:
        raise AssertionError(word)

    for name in ("metrics.jsonl", "summary.json"):
        text = (tmp_path / "run" / name).read_text()
        for part in text.splitlines() if name == "metrics.jsonl" else [text]:
            json.loads(part, parse_constant=refuse)


@pytest.mark.parametrize("world_size", WORLD_SIZES)
@pytest.mark.parametrize("num_samples", [1, 511, 512, 513, 1101])
def test_evaluation_counts_every_sample_once(world_size: int, num_samples: int) -> None:
    data = digits()
    images, labels = data.test_images[:num_samples], data.test_labels[:num_samples]
    layout = Network(Reference(), dense_layers((784, 9, 10), "tanh"), "cross-entropy", 1).layout
    params = initialise(layout, "he", 4)

    def work(transport: Threads) -> tuple[float, float]:
        ops = Reference()
        model = Network(ops, dense_layers((784, 9, 10), "tanh"), "cross-entropy", EVALUATE_ROWS)
        return Evaluate(ops, WholeNetwork(ops, model), Samples(images, labels), transport)(params, params)

    results = threads.run(world_size, work)
    assert len(set(results)) == 1
    weight1, bias1, weight2, bias2 = (view.astype(np.float64) for view in layout.views(params))
    logits = np.tanh((images / 255 - PIXEL_MEAN) / PIXEL_STD @ weight1 + bias1) @ weight2 + bias2
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(num_samples), labels]
    assert results[0][0] == pytest.approx(losses.mean(), rel=1e-5)
    assert results[0][1] == np.count_nonzero(logits.argmax(axis=1) == labels) / num_samples


def test_the_summary_says_what_the_design_promises(tmp_path: Path) -> None:
    summary = train(tmp_path / "run", 3)
    promised = (
        "complete, world_size, global_batch, micro_batch, steps, epochs, train_loss_mean, test_loss_mean, "
        "test_accuracy, params_sha256, train_s, samples_per_s, step_us_median, wire_bytes_per_step, "
        "exchange_us_median, backend, transport, wire, reduce, precision, seed, version, hardware"
    )
    assert summary.keys() >= set(promised.split(", "))
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) | {"run_dir": summary["run_dir"]} == summary
    assert (summary["transport"], summary["wire"], summary["precision"]) == ("threads", "float32", "float32")
    assert summary["step_shares"].keys() == {"compute", "wait", "exchange", "update"}
    assert sum(summary["step_shares"].values()) == pytest.approx(1)
    record = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1]
    promised = "step, epoch, samples, train_loss_mean, lr, grad_norm, samples_per_s, wire_bytes, params_hash"
    assert json.loads(record).keys() >= set(f"{promised}, test_loss_mean, test_accuracy".split(", "))


def test_the_checkpoint_holds_the_params_of_the_summary(tmp_path: Path) -> None:
    summary = train(tmp_path / "run", 2)
    _, saved = checkpoint_search.find(tmp_path / "run", print)
    assert saved.facts["params_sha256"] == summary["params_sha256"]
    assert inference.evaluate(saved, digits(), Alone()) == (summary["test_loss_mean"], summary["test_accuracy"])


def test_the_learning_rate_is_scaled_once(tmp_path: Path) -> None:
    train(tmp_path / "run", lr=0.1, schedule="constant", scale_lr="linear:25", global_batch=50)
    assert {record["lr"] for record in records(tmp_path / "run")} == {0.2}


def _moves(run: Path) -> NDArray[np.float64]:
    """Each param's change in a run that began with seed 0."""
    _, saved = checkpoint_search.find(run, print)
    layout = dense_layout((784, 12, 10))
    first = initialise(layout, "he", 0)
    moves = [saved.arrays[f"params.{tensor.name}"] - tensor.view(first) for tensor in layout.tensors]
    return np.concatenate([move.astype(np.float64).ravel() for move in moves])


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("clip_norm", [0.0, 0.01, 1e6])
def test_a_step_is_as_long_as_its_clipped_gradient(clip_norm: float, world_size: int, tmp_path: Path) -> None:
    options = {"optimizer": "sgd", "schedule": "constant", "lr": 0.5, "clip_norm": clip_norm, "weight_decay": 0.0}
    train(tmp_path / "run", world_size, steps=1, **options)
    [record] = records(tmp_path / "run")
    moved = float(np.linalg.norm(_moves(tmp_path / "run")))
    assert record["grad_norm"] > 0.1
    assert moved == pytest.approx(0.5 * (0.01 if clip_norm == 0.01 else record["grad_norm"]), rel=1e-4)


@pytest.mark.parametrize("world_size", [1, 3])
def test_each_element_of_a_step_is_clipped(world_size: int, tmp_path: Path) -> None:
    options = {"optimizer": "sgd", "schedule": "constant", "lr": 0.5, "weight_decay": 0.0, "steps": 1}
    train(tmp_path / "free", world_size, **options)
    train(tmp_path / "clipped", world_size, clip_value=0.01, **options)
    free = _moves(tmp_path / "free")
    assert np.abs(free).max() > 0.02
    np.testing.assert_allclose(_moves(tmp_path / "clipped"), np.clip(free, -0.005, 0.005), atol=1e-7)


@pytest.mark.parametrize("world_size", [1, 3])
def test_the_training_loss_is_that_of_the_last_epoch(world_size: int, tmp_path: Path) -> None:
    """330 samples in steps of 50: six whole steps and one of 30 an epoch."""
    summary = train(tmp_path / "run", world_size, steps=None, epochs=2)
    lines = records(tmp_path / "run")
    assert [record["epoch"] for record in lines] == [1] * 7 + [2] * 7
    assert [record["samples"] for record in lines[-2:]] == [630, 660]
    total = sum(record["train_loss_mean"] * size for record, size in zip(lines[7:], [50] * 6 + [30], strict=True))
    assert summary["train_loss_mean"] == pytest.approx(total / 330, rel=1e-12)
    assert (summary["epochs"], summary["steps"], summary["samples"]) == (2, 14, 660)


def test_accumulate_fixes_the_global_batch_at_the_first_start(tmp_path: Path) -> None:
    first = train(tmp_path / "run", 3, accumulate=2, global_batch=None, steps=3, schedule="constant")
    assert first["global_batch"] == 3 * 2 * 7
    assert train(tmp_path / "run", 2, resume="", steps=6)["global_batch"] == 42


def test_a_full_batch_is_all_samples_that_are_left_and_goes_on_so(tmp_path: Path) -> None:
    given: Record = {"global_batch": "all", "validation": 31, "schedule": "constant"}
    whole = train(tmp_path / "whole", 2, **given, steps=6)
    assert whole["epochs"] == 6
    assert whole["global_batch"] == whole["samples"] / 6
    train(tmp_path / "run", 3, **given, steps=3)
    again = train(tmp_path / "run", 2, **given, resume="", steps=6)
    assert again["params_sha256"] == whole["params_sha256"]
    train(tmp_path / "other", 3, steps=3)
    with pytest.raises(
        InputError, match=r"--global-batch all: the checkpoint was trained with 50 of \d+, and going on keeps"
    ):
        train(tmp_path / "other", 2, resume="", global_batch="all", steps=6)


def test_the_library_trains_as_the_command_does(tmp_path: Path) -> None:
    options = {"data": "synthetic", "hidden": (12,), "steps": 3, "global_batch": 50, "micro_batch": 7, "quiet": True}
    by_library = ddpgd.train(Config(run_dir=str(tmp_path / "1"), **options))
    by_command = train(tmp_path / "2", **options, lr=0.1)
    assert by_library["params_sha256"] == by_command["params_sha256"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"warmup": 9}, "--warmup 9: the run has 9 steps"),
        ({"micro_batch": 51}, "--micro-batch 51"),
        ({"resume": "nowhere"}, "nowhere: there is no such checkpoint"),
    ],
)
def test_bad_input_is_refused_before_training(given: Record, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        train(tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path) -> None:
    train(tmp_path / "run")
    before = (tmp_path / "run" / "summary.json").read_bytes()
    with pytest.raises(InputError, match="holds a run already"):
        train(tmp_path / "run")
    assert (tmp_path / "run" / "summary.json").read_bytes() == before


def test_other_data_is_refused_on_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "run")
    monkeypatch.setattr(synthetic, "make", lambda: make_digits(num_train=330, num_test=9))
    with pytest.raises(InputError, match="not the data"):
        train(tmp_path / "run", resume="", steps=20)


def test_a_run_learns(tmp_path: Path) -> None:
    summary = train(tmp_path / "run", 3, hidden=(32,), steps=60)
    assert summary["test_accuracy"] > 0.5
    assert summary["train_loss_mean"] < math.log(10) / 2


@pytest.mark.parametrize(
    ("name", "value"), [("optimizer", "adadelta"), ("activation", "gelu"), ("reduce", "Fast"), ("lr", "x")]
)
def test_the_library_refuses_what_the_command_would(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(InputError, match=f"^Config.{name}: "):
        ddpgd.train(ddpgd.Config(data="synthetic", steps=1, run_dir=str(tmp_path / "run"), **{name: value}))


def test_a_resume_from_earlier_leaves_the_later_behind_at_once(tmp_path: Path) -> None:
    train(tmp_path / "run", steps=12, checkpoint_every=4)
    earlier = tmp_path / "run" / "checkpoints" / "step-00000004.safetensors"
    with pytest.raises(Interrupted):
        train(tmp_path / "run", resume=str(earlier), max_time=1e-9)
    assert {path.name for path in earlier.parent.glob("step-*")} == {earlier.name, "step-00000005.safetensors"}


def test_the_accuracy_in_the_summary_is_that_of_its_params(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(tmp_path / "run", steps=12, evaluate_every=1, max_time=1e-9)
    ended = train(tmp_path / "run", resume="", steps=1)
    again = train(tmp_path / "again", steps=12, evaluate_every=12)
    assert ended["steps"] == 1
    assert again["steps"] == 12
    with pytest.raises(InputError, match="the checkpoint has done 12 already"):
        train(tmp_path / "again", resume="", steps=5)


def test_a_checkpoint_elsewhere_does_not_make_its_folder_the_run_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(tmp_path / "run", steps=3)
    models = tmp_path / "project" / "models"
    models.mkdir(parents=True)
    (tmp_path / "project" / "config.toml").write_text("mine")
    kept = models / "best.safetensors"
    kept.write_bytes((tmp_path / "run" / "checkpoints" / "latest").read_bytes())
    starting.start_run({"resume": str(kept), "steps": 4, "quiet": True}, Alone(), Launch("", 0, 1, 0), StopRequest())
    assert (tmp_path / "project" / "config.toml").read_text() == "mine"
    assert len(list((tmp_path / "runs").iterdir())) == 1


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize("sync", [{}, {"sync": "local", "local_steps": 2}])
def test_names_of_earlier_versions_are_known(sync: dict[str, Any], tmp_path: Path) -> None:
    """Adam's vectors were called first and second."""
    whole = train(tmp_path / "whole", 2, optimizer="adam", lr=0.01, steps=8, checkpoint_every=4, **sync)
    _, saved = checkpoint_search.find(tmp_path / "whole" / "checkpoints" / "step-00000004.safetensors", print)
    names = {"exp_avg_sq": "second", "exp_avg": "first"}
    arrays = {re.sub("exp_avg(_sq)?", lambda found: names[found[0]], name): a for name, a in saved.arrays.items()}
    assert arrays.keys() != saved.arrays.keys()
    (tmp_path / "old").mkdir()
    old = checkpoint.save(tmp_path / "old", replace(saved, arrays=arrays))
    assert train(tmp_path / "resumed", 2, resume=str(old))["params_sha256"] == whole["params_sha256"]


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1)])
def test_a_run_on_plateaus_goes_on_with_the_same_bits(before: int, after: int, tmp_path: Path) -> None:
    given = CONFIGURATIONS["on a plateau"] | {"checkpoint_every": 7}
    whole = train(tmp_path / "whole", **given)
    rates = [record["lr"] for record in records(tmp_path / "whole")]
    assert rates[0] / rates[-1] in (2.0, 4.0, 8.0, 16.0)
    train(tmp_path / "cut", before, **given)
    seventh = checkpoint.newest_first(tmp_path / "cut" / "checkpoints")[-1]
    machine = {"transport": "auto"} if after == 1 else {}
    on = train(tmp_path, after, resume=str(seventh), run_dir=str(tmp_path / "on"), **machine)
    assert on["params_sha256"] == whole["params_sha256"]


def test_a_plateau_lowers_the_learning_rate() -> None:
    """Better means by a tenth: 1, 0.95 and 0.91 are one plateau, 0.8 ends it, and NaN is not better."""
    counters, seen = Counters(), []
    for loss in (1.0, 0.95, 0.91, 0.8, 0.79, None):
        counters.validation_loss_mean = loss
        counters.see_plateau(Plateau(0.5, 2, 0.1))
        seen.append(counters.lr_factor)
    assert seen == [1, 1, 0.5, 0.5, 0.5, 0.25]
