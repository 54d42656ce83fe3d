"""Partitions: every sample belongs to exactly one client, and classes and sizes are spread as the name says."""

import re
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given, settings

from ddpgd.cli import main as cli
from ddpgd.data.partition import PARTITIONS, divide
from ddpgd.errors import InputError

LABELS = np.tile(np.arange(10, dtype=np.uint8), 60)


@settings(max_examples=25)
@given(
    row=st.sampled_from([row.form for row in PARTITIONS.values()]),
    labels=st.lists(st.integers(0, 9), min_size=24, max_size=300),
    num_clients=st.integers(1, 12),
    seed=st.integers(0, 2**64 - 1),
)
@example(row="dirichlet:0.3", labels=[7] * 24, num_clients=12, seed=0)
@example(row="sizes:lognormal:1.0", labels=[0, 1] * 12, num_clients=24, seed=0)
def test_every_sample_belongs_to_exactly_one_client(row: str, labels: list[int], num_clients: int, seed: int) -> None:
    array = np.array(labels, np.uint8)
    parts = divide(row, array, num_clients, seed)
    assert len(parts) == num_clients
    assert all(len(part) and part.dtype == np.int64 for part in parts)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
    for part, again in zip(parts, divide(row, array, num_clients, seed), strict=True):
        np.testing.assert_array_equal(part, again)


@pytest.mark.parametrize("row", [row.form for row in PARTITIONS.values()])
def test_another_seed_is_another_partition(row: str) -> None:
    first, second = (divide(row, LABELS, 10, seed) for seed in (0, 1))
    assert any(not np.array_equal(*pair) for pair in zip(first, second, strict=True))


def test_classes_of_shards_and_of_small_concentrations_are_few() -> None:
    num_classes = {row: [len(set(LABELS[part])) for part in divide(row, LABELS, 10, 0)] for row in ("iid", "shards:2")}
    assert min(num_classes["iid"]) == 10
    assert max(num_classes["shards:2"]) <= 4
    spread = {a: np.std([np.bincount(LABELS[part], minlength=10) for part in divide(f"dirichlet:{a}", LABELS, 10, 0)])
              for a in (0.1, 100)}  # fmt: skip
    assert spread[0.1] > 3 * spread[100]


def test_sizes_are_log_normal() -> None:
    sizes = [len(part) for part in divide("sizes:lognormal:1.0", np.zeros(200_000, np.uint8), 400, 0)]
    assert np.std(np.log(sizes)) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    ("text", "num_clients", "line"),
    [
        ("none", 4, "--partition none: type iid, shards:2, dirichlet:0.3, sizes:lognormal:1.0"),
        ("iid:2", 4, "--partition iid:2: nothing follows the name; type for example --partition iid"),
        ("shards", 4, "--partition shards: a whole number of shards a client must follow, 1 to 1000; type for"),
        ("dirichlet:0", 4, "a concentration must follow, 0.001 to 1000"),
        ("dirichlet:nan", 4, "a concentration must follow"),
        ("sizes:normal:1", 4, "lognormal and its sigma must follow"),
        (
            "shards:2",
            301,
            "--clients 301: 602 parts of 600 training samples would be empty; type --clients 300 or less",
        ),
    ],
)
def test_refusals(text: str, num_clients: int, line: str) -> None:
    with pytest.raises(InputError, match=re.escape(line)):
        divide(text, LABELS, num_clients, 0)


@pytest.mark.usefixtures("few_digits")
def test_the_command_shows_who_has_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (pip install 'ddpgd[plots]')")
    path = tmp_path / "p.png"
    asked = ["data", "--data", "synthetic", "--partition", "shards:2", "--clients", "15", "--seed", "4"]
    assert cli.main([*asked, "--out", str(path)]) == 0
    said = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in said[4:16]]
    assert [row[0] for row in rows] == [str(number) for number in range(12)]
    assert all(sum(map(int, row[3:])) == int(row[1]) == 22 for row in rows)
    assert "... and 3 more" in said
    assert "samples of a client: 22 to 22, mean 22.0, deviation 0.0" in said
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--clients", "3"], "--clients is for --partition; type for example --partition shards:2, or drop it"),
        (
            ["--partition", "shards:9", "--clients", "40"],
            "--clients 40: 360 parts of 330 training samples would be empty",
        ),
        (["--augment", "affine"], "--augment draws a picture; type for example --out augmented.png"),
        (["--augment", "none", "--out", "a.png"], "--augment none changes nothing; type --augment affine"),
        (["--augment", "affine", "--elastic-sigma", "2", "--out", "a.png"], "--elastic-sigma is for --augment elastic"),
        (["--shift", "1"], "--shift is for --augment affine or elastic"),
        (["--augment", "affine", "--partition", "iid"], "--partition and --augment are shown one at a time"),
        (["--partition", "iid", "--clients", "0"], "--clients 0: must be 1 to 2^20"),
    ],
)
def test_the_command_refuses(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "--data", "synthetic", *arguments]) == 2
    assert line in capsys.readouterr().err
