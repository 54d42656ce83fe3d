"""The persistent kernel: the bits of CUDA graphs, in one launch for many steps; faults are found."""

import math
from pathlib import Path
from typing import Any

import pytest

from ddpgd.errors import Interrupted
from ddpgd.kernels.cuda import sources
from ddpgd.kernels.words import HISTORY_WORDS
from ddpgd.run import checkpoint_search
from ddpgd.training.step import Step
from ddpgd.training.stopping import StopRequest
from runs import records, train, train_on_small_digits
from tools.compile_kernels import uses
from tools.nvrtc import Job, compiled
from tools.ptx_report import disassembled

from . import fake_cupy, fake_raw
from .persistent_runs import TURNS, Left, left, make_step
from .planting import agree

ORDERS = ("reverse", "random:2", "interleaved:3")
CASES: dict[str, dict[str, Any]] = {
    "two layers": {"clip_norm": 0.05, "weight_decay": 0.01, "label_smoothing": 0.1},
    "elements clipped": {"clip_value": 0.002, "weight_decay": 0.01},
    "one cycle": {"schedule": "one-cycle"},
    "several micro-batches": {"optimizer": "adam", "global_batch": 44, "micro_batch": 16},
    "three layers": {"hidden": (20, 33), "activation": "tanh", "loss": "mse", "optimizer": "nesterov"},
    "rows in no whole pieces": {"sides": (7, 7), "hidden": (13,), "optimizer": "sgd", "global_batch": 17},
    "halted in the middle": {"optimizer": "sgd", "lr": 1e30, "schedule": "constant", "num_steps": 6},
}


@pytest.fixture(autouse=True)
def many_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the few multiprocessors here, each plays more than its share of thread blocks."""
    with fake_cupy.install():
        monkeypatch.setattr(TURNS, math.inf)


def both(order: str = "forward", **given: Any) -> tuple[Left, Left]:
    with fake_cupy.install(order=order):
        graph, persistent = left("graph", **given), left("persistent", **given)
    assert persistent.launches == 1, "not by the persistent kernel"
    return graph, persistent


@pytest.mark.parametrize("name", CASES)
def test_the_bits_of_graphs(name: str) -> None:
    graph, persistent = both(**CASES[name])
    agree(persistent[:2], graph[:2])
    halted = persistent.result[1]
    assert halted == name.startswith("halted")
    assert not halted or persistent.result[0] < 6


@pytest.mark.parametrize("precision", ["tf32", "float16", "bfloat16"])
def test_the_bits_of_graphs_in_other_precisions(precision: str) -> None:
    graph, persistent = both(precision=precision, **CASES["two layers"])
    agree(persistent[:2], graph[:2])


@pytest.mark.parametrize("order", ORDERS)
def test_the_bits_of_graphs_in_any_order_of_the_threads(order: str) -> None:
    graph, persistent = both(order, **CASES["several micro-batches"])
    agree(persistent[:2], graph[:2])


def test_groups_of_micro_batches_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddpgd.kernels.cuda.joined.JOINED_ROWS", 16)
    graph, persistent = both(global_batch=40, micro_batch=8)
    agree(persistent[:2], graph[:2])


@pytest.mark.parametrize("hidden", [(128,), (512, 512)])
def test_64_steps_of_128_rows_are_one_launch(hidden: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """On as many multiprocessors as an H100 has, by the rule for small networks; the launches do nothing here."""
    monkeypatch.undo()
    launched: list[str] = []
    monkeypatch.setattr(fake_raw.RawKernel, "__call__", lambda kernel, *_, **__: launched.append(kernel.name))
    monkeypatch.setattr(Step, "_read_history", lambda _, count: [[1.0] * HISTORY_WORDS] * count)
    with fake_cupy.install(num_multiprocessors=132):
        from ddpgd.kernels.cuda.backend import Cuda

        step = make_step(
            Cuda(0, "float32", "persistent"), 64, (28, 28), hidden=hidden, global_batch=128, micro_batch=128
        )
        assert step.run(0, 64, False, False).num_steps == 64
    assert launched == ["persistent"]


@pytest.mark.parametrize(
    "given",
    [
        {"hidden": ()},
        {"augment": "affine"},
        {"dropout": 0.5, "input_dropout": 0.25},
        {"wire": "topk"},
        {"wire": "bfloat16"},
        {"turns": 1},
        {"num_multiprocessors": 0},
    ],
    ids=str,
)
def test_other_steps_are_graphs(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks whose ops have no phase, other work than ops, too many thread blocks, no room on the device."""
    given = dict(given)
    monkeypatch.setattr(TURNS, given.pop("turns", math.inf))
    multiprocessors = given.pop("num_multiprocessors", 4)
    with fake_cupy.install():
        graph = left("graph", **given)
    with fake_cupy.install(num_multiprocessors=multiprocessors):
        other = left("persistent", **given)
    agree(other[:2], graph[:2])
    assert other.launches == graph.launches


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.deep)])
def test_the_largest_phases_spill_nothing_and_read_what_others_wrote(precision: str) -> None:
    """Loads by the path of constants (LDG.CONSTANT) may be older than the last barrier."""
    products = (f"phase::{kernel}<64,64>" for kernel in ("gather_forward", "forward", "input", "params_of_layers"))
    rest = ("head_cross_entropy", "tree_sum", "add", "decide_and_adam")
    options = sources.options(precision)
    phases = ",".join((*products, *(f"phase::{kernel}<>" for kernel in rest)))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sources, "options", lambda _: (*options, f"-DPHASES={phases}"))
        made = compiled(Job("persistent.cu", precision, "90a"))
    used = uses(made.log)["persistent"]
    assert used.registers <= 255
    assert used.spills == 0
    assert ".CONSTANT" not in disassembled(made.cubin)


def test_runs_that_are_stopped_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_on_small_digits(monkeypatch.setattr)
    given = {"steps": 40, "backend": "cupy", "log_every": 9, "evaluate_every": 20}
    with fake_cupy.install():
        train(tmp_path / "graph", **given)
        train(tmp_path / "whole", **given, replay="persistent")
        asked = iter([False] * 6 + [True] * 100)
        with monkeypatch.context() as patched:
            patched.setattr(StopRequest, "__bool__", lambda _: next(asked))
            with pytest.raises(Interrupted):
                train(tmp_path / "cut", **given, replay="persistent")
        assert 0 < checkpoint_search.find(tmp_path / "cut", print)[1].counters["step"] < 40
        train(tmp_path / "cut", resume=str(tmp_path / "cut"), replay="persistent")
    assert records(tmp_path / "whole") == records(tmp_path / "graph")
    ends = [records(tmp_path / name)[-1] for name in ("cut", "graph")]
    assert ends[0]["params_hash"] == ends[1]["params_hash"]
