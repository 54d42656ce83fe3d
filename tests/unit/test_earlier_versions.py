"""Run folders and checkpoints that earlier versions wrote are read, evaluated and resumed.

tests/data/version-V holds checkpoints after 6 steps of 2 ranks, as `gzip` left them. Files of later versions join them; none
is ever changed.
"""

import gzip
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpgd.comm.transport import Alone
from ddpgd.data import mnist
from ddpgd.params import Parameter, layout_of
from ddpgd.run import checkpoint_search, former_layout, inference
from ddpgd.run.compare import compare
from ddpgd.run.records import read_records
from oracles import dense_layout
from runs import train, write_idx

VERSIONS = Path(__file__).parents[1] / "data"
FIXTURES = sorted(str(path.relative_to(VERSIONS)) for path in VERSIONS.glob("version-*/*.safetensors.gz"))
WAYS: dict[str, dict[str, Any]] = {
    "adam": {"optimizer": "adam", "lr": 0.01},
    "topk": {"wire": "topk", "topk_density": 0.2, "lr": 0.1},
    "powersgd": {"wire": "powersgd", "lr": 0.1},
    "local": {
        "sync": "local",
        "local_steps": 2,
        "outer_momentum": 0.5,
        "wire": "int8",
        "error_feedback": True,
        "optimizer": "adam",
        "lr": 0.01,
    },
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The samples that they were trained on: a formula's, of 4x4 pixels."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name, count in (("train", 60), ("t10k", 20)):
        labels = np.arange(count) % 10
        pixels = np.arange(count * 16).reshape(count, 4, 4) * 37 % 97 + labels[:, None, None] * 15
        write_idx(folder / f"{name}-images-idx3-ubyte", pixels)
        write_idx(folder / f"{name}-labels-idx1-ubyte", labels)
    return folder


def old_run(tmp_path: Path, fixture: str) -> Path:
    """A run folder with the checkpoint, and what else there is of it."""
    packed = VERSIONS / fixture
    way = packed.name.partition(".")[0]
    folder = tmp_path / "old"
    (folder / "checkpoints").mkdir(parents=True)
    content = gzip.decompress(packed.read_bytes())
    (folder / "checkpoints" / "step-00000006.safetensors").write_bytes(content)
    for name in ("config.toml", "metrics.jsonl"):
        if (packed.parent / f"{way}.{name}").exists():
            shutil.copy(packed.parent / f"{way}.{name}", folder / name)
    return folder


def refuse_to_talk(line: str) -> None:
    raise AssertionError(line)


@pytest.mark.parametrize("num_ranks", [2, 3])
@pytest.mark.parametrize("fixture", FIXTURES)
def test_a_run_goes_on(tmp_path: Path, data: Path, fixture: str, num_ranks: int) -> None:
    folder = old_run(tmp_path, fixture)
    way = WAYS[Path(fixture).name.partition(".")[0]]
    shape = {
        "global_batch": 20,
        "micro_batch": 4,
        "hidden": (5,),
        "schedule": "constant",
        "steps": 12,
        "data": str(data),
    }
    whole = train(tmp_path / "whole", 2, log_every=100, **shape, **way)
    resumed = train(folder, num_ranks, resume="", steps=12, data=str(data), hidden=(5,), log_every=100)
    assert resumed["steps"] == 12
    assert resumed["test_loss_mean"] == pytest.approx(whole["test_loss_mean"], rel=0.01 if num_ranks == 2 else 0.3)


@pytest.mark.parametrize("fixture", FIXTURES)
def test_a_checkpoint_is_evaluated(tmp_path: Path, data: Path, fixture: str) -> None:
    _, saved = checkpoint_search.find(old_run(tmp_path, fixture), refuse_to_talk)
    loss_mean, accuracy = inference.evaluate(saved, mnist.load(data), Alone())
    assert loss_mean == pytest.approx(saved.counters["test_loss_mean"], rel=1e-5)
    assert accuracy == saved.counters["test_accuracy"]


def test_records_are_read_and_gone_on_with(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (fixture,) = (name for name in FIXTURES if name == "version-0.1.0/adam.safetensors.gz")
    folder = old_run(tmp_path, fixture)
    before = read_records(folder)
    assert compare(folder, folder) == (len(before), None)
    train(folder, 2, resume="", steps=12, data=str(data), hidden=(5,))
    assert read_records(folder)[: len(before)] == before
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("sizes", [(4, 5, 6), (784, 12, 10), (40, 45, 43)], ids=str)
def test_vectors_of_earlier_versions_are_moved_tensor_by_tensor(sizes: tuple[int, ...]) -> None:
    layout = dense_layout(sizes)
    former = layout_of([[Parameter(name, shape) for name, shape in layout.shapes.items()]])
    velocity = np.arange(1, former.size + 1, dtype=np.float32)
    arrays = {"optimizer.velocity": velocity, "wire.right": velocity, "residual.kept.0": velocity[:-1]}
    moved = former_layout.moved(arrays, layout)
    assert moved["wire.right"] is velocity
    assert moved["residual.kept.0"] is arrays["residual.kept.0"]
    for name, tensor in layout.whole_tensors(moved["optimizer.velocity"]).items():
        np.testing.assert_array_equal(tensor, former.whole_tensors(velocity)[name])
    assert np.count_nonzero(moved["optimizer.velocity"]) == layout.num_params
