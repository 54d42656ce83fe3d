"""summary.json is read by one schema: what `train` wrote, or one line of refusal."""

import json
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import ddpgd
from ddpgd.run.summary import NO_CLIENTS, NO_VALIDATION, Summary, read_summary

FIELDS = [name for name in get_type_hints(Summary) if name != "run_dir"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    folder = tmp_path_factory.mktemp("summary") / "run"
    config = ddpgd.Config(data="synthetic", hidden=(8,), steps=2, quiet=True, run_dir=str(folder))
    return folder, ddpgd.train(config)


def written(run: tuple[Path, Summary]) -> dict[str, Any]:
    """Returns the table in summary.json."""
    table: dict[str, Any] = json.loads((run[0] / "summary.json").read_text())
    return table


def refused(folder: Path, content: bytes) -> str:
    """Returns the line by which a summary with this content is refused."""
    (folder / "summary.json").write_bytes(content)
    with pytest.raises(ddpgd.InputError) as refusal:
        ddpgd.read_summary(folder)
    line = str(refusal.value)
    assert line.isprintable()
    assert line.startswith(str(folder))
    assert refusal.value.exit_code == 2
    return line


def test_what_was_written_is_read(run: tuple[Path, Summary]) -> None:
    assert read_summary(run[0]) == ddpgd.read_summary(str(run[0])) == run[1]
    assert set(written(run)) == set(FIELDS)


def test_half_of_a_file_is_refused(run: tuple[Path, Summary], tmp_path: Path) -> None:
    whole = (run[0] / "summary.json").read_bytes()
    for length in range(0, len(whole) - 2, 7):
        assert "not a summary of ddpgd" in refused(tmp_path, whole[:length])


@pytest.mark.parametrize("name", FIELDS)
def test_wrong_values_are_refused(name: str, run: tuple[Path, Summary], tmp_path: Path) -> None:
    table = written(run)
    wrong = [{"a": "b"}, [1.5], float("nan"), 10**30, 1e400, *([] if isinstance(table[name], str) else ["7"])]
    for value in wrong:
        assert name in refused(tmp_path, json.dumps(table | {name: value}).encode())


@pytest.mark.parametrize("name", FIELDS)
def test_fields_that_are_missing(name: str, run: tuple[Path, Summary], tmp_path: Path) -> None:
    """Earlier versions had no warnings, late rank, time since the start, reason for a transport, other form, or clients."""
    table = written(run)
    del table[name]
    added = {"warnings", "late_rank", "train_s_since_start", "transport_choice", "exchange", "exchange_choice"}
    if name in added | {
        "between_bytes_per_step",
        "lost_ranks",
        "optimizer_bytes",
        "length_changed_at",
        "num_buckets",
        "noise_scale",
        "ended",
        *NO_VALIDATION,
        *NO_CLIENTS,
    }:
        (tmp_path / "summary.json").write_text(json.dumps(table))
        assert read_summary(tmp_path).keys() == get_type_hints(Summary).keys()
    else:
        assert name in refused(tmp_path, json.dumps(table).encode())


def test_other_files_are_refused(run: tuple[Path, Summary], tmp_path: Path) -> None:
    table = written(run)
    assert "unknown" in refused(tmp_path, json.dumps(table | {"unknown": 1}).encode())
    assert "not complete" in refused(tmp_path, json.dumps(table | {"complete": False}).encode())
    for content in (b"", b"\xff", b"[]", b"3", b"[" * 100_000, b" " * 2_000_000, b'{"steps": ' + b"9" * 5000 + b"}"):
        refused(tmp_path, content)
    with pytest.raises(ddpgd.InputError, match="not the folder of a complete run"):
        read_summary(tmp_path / "nothing")
