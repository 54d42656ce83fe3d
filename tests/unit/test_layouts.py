"""Layouts: data, tensor and pipeline parallel ranks, sharded optimizers and not, have the bits of one rank."""

import itertools
import random
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from ddpgd.comm import tree
from ddpgd.comm.grid import Shape
from ddpgd.comm.transports import threads
from ddpgd.comm.transports.threads import Threads
from ddpgd.comm.wires import FORMATS
from ddpgd.config.schema import Config, resolve
from ddpgd.data.synthetic import make
from ddpgd.errors import InputError
from ddpgd.kernels.reference.backend import Reference
from ddpgd.run import build, build_network, checkpoint
from ddpgd.scaling import layouts
from ddpgd.scaling.layout_picture import draw
from ddpgd.training.pipeline import Pipeline
from ddpgd.training.step import Step
from runs import records, train
from tools import layout_pictures

pytestmark = pytest.mark.usefixtures("few_digits")

SHAPES = [
    Shape(data, pipeline, tensor)
    for data, pipeline, tensor in itertools.product((1, 2, 3, 4), (1, 2, 3), (1, 2, 3, 4))
    if data * pipeline * tensor <= 8
]
BASE: dict[str, Any] = {"hidden": (13, 9), "shards": 4, "clip_norm": 0.2}
WAYS: dict[str, dict[str, Any]] = {
    "momentum": {},
    "adam, ragged shards": {"optimizer": "adam", "lr": 0.01, "shards": 5, "hidden": (11, 7)},
    "muon": {"optimizer": "muon", "lr": 0.01},
    "tanh, shards of one column": {"activation": "tanh", "hidden": (4, 4)},
    "sigmoid, mean squared error": {"activation": "sigmoid", "loss": "mse"},
    "regularised": {"dropout": 0.3, "input_dropout": 0.2, "label_smoothing": 0.1, "max_norm": 0.5},
    "pooled": {"input_pool": 2, "augment": "affine"},
    "one micro-batch, so that some replicas have none": {"global_batch": 14, "micro_batch": 7},
    "a micro-batch of one row": {"global_batch": 9, "micro_batch": 4},
}


def layout(shape: Shape, **more: Any) -> dict[str, Any]:
    return {"world_size": shape.data * shape.replica, "tensor": shape.tensor, "pipeline": shape.pipeline} | more


def arrays(folder: Path) -> dict[str, Any]:
    return checkpoint.load(checkpoint.newest_first(folder / "checkpoints")[0]).arrays


@pytest.mark.parametrize("way", WAYS)
def test_runs_records_and_checkpoints_are_those_of_one_rank(way: str, tmp_path: Path) -> None:
    """Noise scales aside: sums of squares over parts of a gradient, which are added in another order."""
    given = BASE | WAYS[way]
    one = train(tmp_path / "one", **given)
    wanted = {name: array.tobytes() for name, array in arrays(tmp_path / "one").items()}
    first = list(WAYS).index(way)
    for number, shape in enumerate(SHAPES[first % 3 :: 3]):
        choices = ("off", "1f1b"), ("on", "gpipe"), ("auto", "1f1b")
        sharded, schedule = choices[number % len(choices)]
        given_layout = layout(shape, shard_optimizer=sharded, pipeline_schedule=schedule)
        other = train(tmp_path / str(number), **given, **given_layout)
        assert other["params_sha256"] == one["params_sha256"], (shape, sharded, schedule)
        assert {name: array.tobytes() for name, array in arrays(tmp_path / str(number)).items()} == wanted, shape
        assert without_noise(tmp_path / str(number)) == without_noise(tmp_path / "one"), shape


@pytest.mark.parametrize("shape", [Shape(2, 1, 3), Shape(2, 2, 2)])
def test_ranks_with_larger_parts_may_divide_them_alone(shape: Shape, tmp_path: Path) -> None:
    """By --shard-optimizer auto: ranks with few params of a layout send them in one round, and update all of them."""
    given = BASE | WAYS["tanh, shards of one column"]
    one = train(tmp_path / "one", **given)
    cut = train(tmp_path / "cut", **given, **layout(shape), checkpoint_every=2)
    assert cut["params_sha256"] == one["params_sha256"]
    wanted = arrays(tmp_path / "one")
    assert all(array.tobytes() == wanted[name].tobytes() for name, array in arrays(tmp_path / "cut").items())


@pytest.mark.parametrize("stages", [(1, 2), (2, 1)])
def test_stages_as_asked_for_have_the_bits_of_one_rank(stages: tuple[int, ...], tmp_path: Path) -> None:
    one = train(tmp_path / "one", **BASE)
    asked = train(tmp_path / "asked", **BASE, **layout(Shape(1, 2, 1), stages=stages))
    assert asked["params_sha256"] == one["params_sha256"]


def without_noise(folder: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name != "noise_scale"} for record in records(folder)]


def test_a_run_goes_on_in_any_layout(tmp_path: Path) -> None:
    given = BASE | {"optimizer": "adam", "lr": 0.01, "schedule": "constant"}
    whole = train(tmp_path / "whole", **given, steps=12)
    draw, resume = random.Random(4), given
    for step in range(2, 13, 2):
        now = {"shard_optimizer": draw.choice(("on", "off")), "pipeline_schedule": draw.choice(("1f1b", "gpipe"))}
        last = train(tmp_path / "parts", **resume, **layout(draw.choice(SHAPES), **now), steps=step)
        resume = {"resume": "", "hidden": given["hidden"]}
    assert last["params_sha256"] == whole["params_sha256"]


FEEDBACK: dict[str, Any] = {"wire": "bfloat16", "error_feedback": True, "schedule": "constant"}


@pytest.mark.parametrize("wire", FORMATS)
def test_a_lossy_wire_is_near_that_of_data_parallel_ranks(wire: str, tmp_path: Path) -> None:
    """Owners of segments add their own pieces as they are, and a layout has owners of its own."""
    wanted = train(tmp_path / "data", **BASE, **FEEDBACK | {"wire": wire}, **layout(Shape(2)))
    other = train(tmp_path / "grid", **BASE, **FEEDBACK | {"wire": wire}, **layout(Shape(2, 2, 2)))
    assert other["test_loss_mean"] == pytest.approx(wanted["test_loss_mean"], rel=0.02)


@pytest.mark.parametrize(("before", "after"), [(Shape(2, 2, 1), Shape(2, 2, 1)), (Shape(2, 1, 2), Shape(1, 2, 1))])
def test_feedback_goes_on(before: Shape, after: Shape, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the same layout with the bits of an uninterrupted run; in another, nothing that was kept back is lost."""
    whole = train(tmp_path / "whole", **BASE, **FEEDBACK, **layout(before), steps=8)
    train(tmp_path / "cut", **BASE, **FEEDBACK, **layout(before), steps=4)
    kept = sum(array.astype(np.float64) for name, array in arrays(tmp_path / "cut").items() if "residual" in name)
    given = layout(after, resume="", hidden=BASE["hidden"])
    train(tmp_path / "cut", **given, steps=4, checkpoint_every=4, quiet=False)
    told = capsys.readouterr().out
    now = sum(array.astype(np.float64) for name, array in arrays(tmp_path / "cut").items() if "residual" in name)
    assert np.abs(kept).max() > 0
    np.testing.assert_allclose(now, kept, rtol=0, atol=1e-6 * np.abs(kept).max())
    last = train(tmp_path / "cut", **given, steps=8)
    if before == after:
        assert last["params_sha256"] == whole["params_sha256"]
        assert " before, " not in told
    else:
        assert "4 ranks (data 2 x pipeline 1 x tensor 2) before, 2 ranks (data 1 x pipeline 2 x tensor 1) now: " in told
        assert last["test_loss_mean"] == pytest.approx(whole["test_loss_mean"], rel=0.25)


def test_shards_belong_to_the_configuration(tmp_path: Path) -> None:
    hashes = {train(tmp_path / str(count), hidden=(13, 9), shards=count)["params_sha256"] for count in (1, 2, 3, 4)}
    assert len(hashes) == 4
    with pytest.raises(InputError, match="--shards 2: the checkpoint was trained with 3"):
        train(tmp_path / "3", resume="", hidden=(13, 9), shards=2)


def test_adding_shards_in_the_order_of_ranks_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = train(tmp_path / "one", **BASE)["params_sha256"]
    assert train(tmp_path / "four", **BASE, **layout(Shape(1, 1, 4)))["params_sha256"] == wanted

    def in_order_of_ranks(self: tree.Fold[Any], node: tree.Node, item: Any) -> None:
        self.roots.append((node, item))
        if len(self.roots) == 2:
            (first, left), (_, right) = self.roots
            self._add(left, right)
            self.roots = [(first, left)]

    monkeypatch.setattr(tree.Fold, "push", in_order_of_ranks)
    assert train(tmp_path / "fault", **BASE, **layout(Shape(1, 1, 4)))["params_sha256"] != wanted


@pytest.mark.parametrize(("schedule", "held"), [("1f1b", [3, 2, 1]), ("gpipe", [8, 8, 8])])
def test_a_stage_holds_as_many_micro_batches_as_its_schedule_needs(schedule: str, held: list[int]) -> None:
    def work(transport: Threads) -> int:
        step = live_step(transport, pipeline=3, pipeline_schedule=schedule)
        step.run(0, 1, stop=False, observe=False)
        assert isinstance(step.passes, Pipeline)
        return step.passes.most_held

    assert threads.run(3, work) == held


def live_step(transport: Threads, **given: Any) -> Step:
    config = resolve(Config(**BASE, global_batch=56, micro_batch=7, **given), 1)
    step = build.sync(Reference(), config, make(330, 100), build.grid(config, transport), 10)
    assert isinstance(step, Step)
    return step


def test_every_rank_holds_its_part_alone() -> None:
    shape = Shape(2, 2, 2)
    config = Config(**BASE, tensor=2, pipeline=2)
    held = build_network.held(config, (28, 28), shape, is_sharded=lambda _size: True)
    owners = np.zeros(held.size, int)
    for spans in held.optimizer:
        for span in spans:
            owners[span] += 1
    assert (owners == 1).all()
    copies = np.zeros(held.size, int)
    for spans in held.params:
        for span in spans:
            copies[span] += 1
    assert (copies == shape.data).all()


@pytest.mark.parametrize(
    ("costs", "num_parts", "bounds"),
    [
        ([5], 1, [(0, 1)]),
        ([1, 1, 1, 1], 2, [(0, 2), (2, 4)]),
        ([9, 1, 1, 1], 2, [(0, 1), (1, 4)]),
        ([1, 2, 3, 4, 5], 3, [(0, 3), (3, 4), (4, 5)]),
        ([1, 1, 1], 3, [(0, 1), (1, 2), (2, 3)]),
        ([9, 1, 1], 3, [(0, 1), (1, 2), (2, 3)]),
        ([1, 1, 9, 1], 3, [(0, 2), (2, 3), (3, 4)]),
    ],
)
def test_stages_are_balanced(costs: list[float], num_parts: int, bounds: list[tuple[int, int]]) -> None:
    assert [(part.start, part.stop) for part in build_network.balanced(costs, num_parts)] == bounds


def test_many_layers_are_balanced_at_once() -> None:
    parts = build_network.balanced([1 + number % 7 for number in range(1000)], 64)
    assert len(parts) == 64


@pytest.mark.parametrize(
    ("given", "world_size", "line"),
    [
        ({"tensor": 2}, 2, "--tensor 2: more than --shards 1; type --shards 2 in a new run, or --tensor 1"),
        ({"shards": 3, "tensor": 2}, 3, "--tensor 2: 3 ranks cannot form groups of 2; start 2 or 4 ranks"),
        (
            {"shards": 2, "tensor": 2, "pipeline": 2},
            3,
            "--tensor 2 --pipeline 2: 3 ranks cannot form groups of 4; start 4 or 8 ranks",
        ),
        (
            {"pipeline": 3},
            3,
            "--pipeline 3: the network has 2 layers, and each stage needs one; type --pipeline 2 or less",
        ),
        ({"shards": 13}, 1, "--shards 13: a hidden layer is 12 wide; type --shards 12 or less"),
        ({"shards": 0}, 1, "--shards 0: must be 1 to 1024"),
        ({"stages": (1, 1)}, 1, "--stages 1,1 is for --pipeline; type that as well, or drop it"),
        (
            {"pipeline": 2, "stages": (1, 2)},
            2,
            "--stages 1,2: --pipeline 2 cuts 2 layers into so many stages, of at least one each; "
            "type their numbers, as in 2,1, or drop the flag",
        ),
        (
            {"pipeline": 2, "sync": "local"},
            2,
            "--pipeline: with --sync local each rank updates all params by itself; drop one of the two",
        ),
        (
            {"pipeline": 2, "wire": "topk"},
            2,
            "--pipeline: --wire topk sums whole vectors, and ranks have parts; drop one of the two",
        ),
        (
            {"pipeline": 2, "exchange": "two-level"},
            2,
            "--pipeline: sums of gradients are flat then; type --exchange flat",
        ),
    ],
)
def test_wrong_grids_are_one_line(given: dict[str, Any], world_size: int, line: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        train(tmp_path / "run", world_size, **given)
    assert str(error.value) == line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("shape", [*SHAPES[::5], Shape(1, 1, 4), Shape(2, 2, 2), Shape(1, 3, 2)], ids=str)
@pytest.mark.parametrize(("optimizer", "sharded"), [("momentum", "on"), ("momentum", "off"), ("muon", "on")])
@pytest.mark.parametrize("global_batch", [56, 50])
def test_ranks_send_the_bytes_that_are_predicted(shape: Shape, optimizer: str, sharded: str, global_batch: int) -> None:
    given = BASE | {"hidden": (24, 17), "optimizer": optimizer, "shard_optimizer": sharded}
    given |= {"tensor": shape.tensor, "pipeline": shape.pipeline}
    config = resolve(Config(**given, global_batch=global_batch, micro_batch=7), shape.data)
    world_size = shape.data * shape.replica

    def work(transport: Threads) -> int:
        step = build.sync(Reference(), config, make(330, 100), build.grid(config, transport), 10)
        step.run(0, 1, stop=False, observe=False)
        return step.run(1, 1, stop=False, observe=False).wire_bytes

    predicted = layouts.predict(config, (28, 28), world_size)
    held = build_network.held(config, (28, 28), shape, lambda _size: sharded == "on")
    assert threads.run(world_size, work) == [sum(rank.sent) for rank in predicted]
    assert [rank.params_bytes for rank in predicted] == [4 * length(spans) for spans in held.params]


def length(spans: tuple[slice, ...]) -> int:
    return sum(span.stop - span.start for span in spans)


@pytest.mark.parametrize("name", layout_pictures.LAYOUTS)
def test_pictures_in_the_documents_are_of_this_version(name: str) -> None:
    """After a change that is meant, type python -m tools.layout_pictures."""
    picture = draw(layout_pictures.config_of(name), layout_pictures.IMAGE_SHAPE, layout_pictures.NUM_RANKS)
    assert (layout_pictures.FOLDER / f"{name}.svg").read_text(encoding="utf-8") == picture
    ElementTree.fromstring(picture)
