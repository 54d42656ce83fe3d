"""Records: whole lines or none, resumed files without a gap or a repetition; the noise scale by its formula."""

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest

from ddpgd.errors import InputError
from ddpgd.run.records import RecordFile, read_records
from ddpgd.run.summary import write_summary
from ddpgd.training.counters import Counters
from mutations import mutated


def write(folder: Path, steps: range, after: int) -> None:
    records = RecordFile(folder, after)
    for step in steps:
        records.record({"step": step, "run": after})
    records.close()


def test_a_record_is_readable_as_soon_as_it_is_written(tmp_path: Path) -> None:
    records = RecordFile(tmp_path, 0)
    for step in (1, 2, 3):
        records.record({"step": step, "train_loss_mean": None})
        assert read_records(tmp_path)[-1] == {"step": step, "train_loss_mean": None}
    records.close()
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3]


@pytest.mark.parametrize("after", [0, 3, 5, 9])
def test_what_was_recorded_after_the_checkpoint_is_dropped(tmp_path: Path, after: int) -> None:
    write(tmp_path, range(1, 6), after=0)
    write(tmp_path, range(after + 1, 12), after=after)
    steps = [record["step"] for record in read_records(tmp_path)]
    assert steps == [step for step in range(1, 12) if step <= 5 or step > after]
    assert all(record["run"] == after for record in read_records(tmp_path) if record["step"] > after)


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path, cut: int) -> None:
    write(tmp_path, range(1, 4), after=0)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    assert [record["step"] for record in read_records(tmp_path)] == [1, 2]
    write(tmp_path, range(3, 5), after=2)
    assert [record["step"] for record in read_records(tmp_path)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"[1]",
        b"{}",
        b'{"step": "x"}',
        b'{"step": true}',
        b'{"step": -1}',
        b'{"step": 1.5}',
        b'{"step": 1%s}' % (b"0" * 5000),
        b'{"step": 1, "lr": 1%s}' % (b"0" * 400),
        b'{"step": 1, "params_hash": []}',
        b'{"step": 1, "layer_hashes": "ab"}',
        b'{"step": 1, "layer_hashes": {"\\u001b[2J": "ab"}}',
        b'{"step": 1, "\\u001b[2J": 1}',
        b'{"step": 1, "lr": {}}',
        b'{"step": 1, "lr": ' + b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_a_line_that_is_no_record_is_named_by_its_number(tmp_path: Path, line: bytes) -> None:
    write(tmp_path, range(1, 3), after=0)
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(InputError, match=r"metrics\.jsonl: line 3 is not a record of ddpgd") as caught:
        read_records(tmp_path)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


def test_mutated_records_are_read_or_refused_in_a_line(tmp_path: Path) -> None:
    write(tmp_path, range(1, 3), after=0)
    path, choose = tmp_path / "metrics.jsonl", random.Random(0)
    path.write_text('{"step": 1, "lr": 0.5, "params_hash": "ab", "layer_hashes": {"dense1.weight": "cd"}}\n')
    whole, refusals = path.read_bytes(), []
    for _ in range(2000):
        path.write_bytes(mutated(whole, choose))
        try:
            read_records(tmp_path)
        except InputError as error:
            refusals.append(str(error))
    assert 500 < len(refusals) < 2000
    assert all(map(str.isprintable, refusals))


def test_a_summary_replaces_the_one_before_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_summary(tmp_path, {"complete": False})
    write_summary(tmp_path, {"complete": True, "test_accuracy": 0.5})
    assert json.loads((tmp_path / "summary.json").read_text()) == {"complete": True, "test_accuracy": 0.5}
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_the_loss_mean_is_a_sum_divided_once() -> None:
    assert Counters(epoch_loss_sum=6.0, epoch_samples=4).train_loss_mean == 1.5


def test_the_noise_scale_by_hand() -> None:
    """Two micro-batches of 4: sums of squares 2 x (4 x 3)^2, so |g_b|^2 = 9; |g_B|^2 = 5; |G|^2 = 1; S = 32."""
    counters = Counters()
    counters.see_noise(2 * 12.0**2, 2, math.sqrt(5), 8)
    assert (counters.signal_sum, counters.noise_sum) == (pytest.approx(1.0), pytest.approx(32.0))
    assert counters.noise_scale == pytest.approx(32.0)
    counters.see_noise(2 * 12.0**2, 2, math.sqrt(5), 8)
    assert (counters.signal_sum, counters.noise_sum) == (pytest.approx(1.9), pytest.approx(60.8))


def test_norms_that_overflow_leave_the_noise_scale_as_it_is() -> None:
    counters = Counters()
    counters.see_noise(math.inf, 2, 1.0, 8)
    assert (counters.signal_sum, counters.noise_sum) == (0.0, 0.0)
    assert Counters(noise_sum=math.nan, signal_sum=1.0).noise_scale is None


def test_the_noise_scale_of_drawn_gradients_is_near_that_of_their_law() -> None:
    """Per-sample gradients G + noise: the scale is the noise's variance over |G|^2."""
    rng, counters = np.random.default_rng(0), Counters()
    mean = np.full(50, 0.3)
    for _ in range(400):
        micro_batches = (mean + rng.standard_normal((4, 16, 50))).sum(axis=1)
        counters.see_noise(
            float((micro_batches**2).sum()), 4, float(np.linalg.norm(micro_batches.sum(axis=0)) / 64), 64
        )
    assert counters.noise_scale == pytest.approx(50 / (50 * 0.3**2), rel=0.2)


@pytest.mark.parametrize(("num_micro_batches", "norm"), [(1, 1.0), (2, math.inf), (2, math.nan)])
def test_no_noise_scale_where_it_cannot_be_told(num_micro_batches: int, norm: float) -> None:
    counters = Counters()
    counters.see_noise(1.0, num_micro_batches, norm, 8)
    assert counters == Counters()
    assert counters.noise_scale is None
