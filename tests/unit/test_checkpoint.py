"""Checkpoints: what is read is what was written, or the reader is told; the newest whole one is found."""

import json
import os
import random
import shutil
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ddpgd.errors import InputError
from ddpgd.run import checkpoint, checkpoint_search, safetensors_file
from ddpgd.run.checkpoint import KEEP, Checkpoint, DamagedError
from ddpgd.run.report import VERSION
from mutations import mutated, mutated_table


def make(step: int = 7) -> Checkpoint:
    rng = np.random.default_rng(step)
    arrays = {
        "params.dense1.weight": rng.standard_normal((4, 3)).astype(np.float32),
        "params.dense1.bias": np.array([-0.0, 3e38, 1e-45], np.float32),
        "params.dense2.weight": rng.standard_normal((3, 10)).astype(np.float32),
        "params.dense2.bias": np.zeros(10, np.float32),
        "optimizer.velocity": rng.standard_normal(32).astype(np.float32),
    }
    counters = {"step": step, "epoch_loss_sum": 0.1 + 0.2, "test_accuracy": None}
    facts = {"world_size": 3, "data_sha256": "ab", "image_shape": [2, 2], "version": VERSION}
    return Checkpoint(arrays, counters, {"lr": 0.1, "hidden": [3]}, facts)


def assert_same(left: Checkpoint, right: Checkpoint) -> None:
    assert left.arrays.keys() == right.arrays.keys()
    for name, array in left.arrays.items():
        assert (array.dtype, array.shape) == (right.arrays[name].dtype, right.arrays[name].shape)
        assert array.tobytes() == right.arrays[name].tobytes()
    assert (left.counters, left.config, left.facts) == (right.counters, right.config, right.facts)


def refuse_to_talk(line: str) -> None:
    raise AssertionError(line)


def test_round_trip(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, make())
    assert path.name == "step-00000007.safetensors"
    assert_same(checkpoint.load(path), make())


def test_views_and_fortran_order_are_saved_as_they_look(tmp_path: Path) -> None:
    vector = np.arange(24, dtype=np.float32)
    arrays = {"view": vector[4:16].reshape(4, 3), "strided": vector[::2], "transposed": vector.reshape(4, 6).T}
    path = checkpoint.save(tmp_path, Checkpoint(arrays, {"step": 1}, {}, {}))
    for name, array in checkpoint.load(path).arrays.items():
        np.testing.assert_array_equal(array, arrays[name])


def test_latest_points_to_the_last_one_by_its_name_alone(tmp_path: Path) -> None:
    for step in (1, 2):
        path = checkpoint.save(tmp_path, make(step))
        assert os.readlink(tmp_path / "latest") == path.name
        assert_same(checkpoint.load(tmp_path / "latest"), make(step))


def test_the_last_few_are_kept(tmp_path: Path) -> None:
    for step in range(1, 7):
        checkpoint.save(tmp_path, make(step))
    kept = [f"step-{step:08d}.safetensors" for step in range(7 - KEEP, 7)]
    assert KEEP == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", *kept]


def test_every_truncation_is_detected(tmp_path: Path) -> None:
    content = checkpoint.save(tmp_path, make()).read_bytes()
    damaged = tmp_path / "damaged.safetensors"
    for length in range(len(content)):
        damaged.write_bytes(content[:length])
        with pytest.raises(DamagedError, match="choose another one"):
            checkpoint.load(damaged)


@pytest.mark.parametrize("mask", [0x01, 0x20, 0xFF])
def test_every_flipped_byte_is_detected(tmp_path: Path, mask: int) -> None:
    content = checkpoint.save(tmp_path, make()).read_bytes()
    damaged = tmp_path / "damaged.safetensors"
    for position in range(len(content)):
        damaged.write_bytes(content[:position] + bytes([content[position] ^ mask]) + content[position + 1 :])
        with pytest.raises(DamagedError, match="choose another one"):
            checkpoint.load(damaged)


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        (b'"F32"', b'"I32"'),
        (b'"shape":[4,3]', b'"shape":[3,4]'),
        (b"dense1.bias", b"dense3.bias"),
        (b"step", b"stop"),
    ],
)
def test_a_header_that_still_makes_sense_but_says_something_else_is_detected(
    tmp_path: Path, was: bytes, becomes: bytes
) -> None:
    path = checkpoint.save(tmp_path, make())
    content = path.read_bytes()
    assert was in content
    path.write_bytes(content.replace(was, becomes, 1))
    with pytest.raises(DamagedError, match="altered since it was written"):
        checkpoint.load(path)


def test_appended_bytes_are_detected(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, make())
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(DamagedError):
        checkpoint.load(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"ddpgd": "{}"}, {"ddpgd": "{}", "sha256": ""}])
def test_a_foreign_file_is_told_apart(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": np.zeros(3, np.float32)}, path, metadata=metadata)
    with pytest.raises(DamagedError):
        checkpoint.load(path)


def test_a_file_of_another_kind_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "text.safetensors"
    path.write_text("hello " * 100)
    with pytest.raises(DamagedError):
        checkpoint.load(path)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such checkpoint"):
        checkpoint_search.find(tmp_path / "none", refuse_to_talk)
    with pytest.raises(InputError, match="holds no checkpoint"):
        checkpoint_search.find(tmp_path, refuse_to_talk)
    with pytest.raises(InputError, match="cannot read"):
        checkpoint.load(tmp_path / "none")


@pytest.mark.parametrize("place", ["", "checkpoints", "checkpoints/latest", "checkpoints/step-00000003.safetensors"])
def test_the_newest_is_found(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for step in (1, 2, 3):
        checkpoint.save(folder, make(step))
    path, found = checkpoint_search.find(tmp_path / place, refuse_to_talk)
    assert path == (folder / "step-00000003.safetensors").resolve()
    assert_same(found, make(3))


@pytest.mark.parametrize("damage", [slice(-5), slice(0), slice(None, None, -1)], ids=str)
def test_damaged_ones_are_passed_over_and_said(tmp_path: Path, damage: slice) -> None:
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, make(step))
    for step in (2, 3):
        path = tmp_path / f"step-{step:08d}.safetensors"
        path.write_bytes(path.read_bytes()[damage])
    said: list[str] = []
    path, found = checkpoint_search.find(tmp_path, said.append)
    assert path.name == "step-00000001.safetensors"
    assert_same(found, make(1))
    assert ["step-00000003" in said[0], "step-00000002" in said[1], len(said)] == [True, True, 2]
    assert all(line.startswith("passed over: ") for line in said)


def test_a_damaged_one_that_was_named_is_not_replaced_by_another(tmp_path: Path) -> None:
    for step in (1, 2):
        path = checkpoint.save(tmp_path, make(step))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedError):
        checkpoint_search.find(path, refuse_to_talk)


OURS = (10, 20, 100_000_000, 99_999_999, 10**12)
NOT_OURS = (
    *("step-best.safetensors", "step-00000020-good.safetensors", "step-99999999999.safetensors.bak"),
    *(
        "step-30.safetensors",
        "step-000000040.safetensors",
        "Step-00000050.safetensors",
        "notes.txt",
        "model.safetensors",
    ),
)


def with_foreign_files(folder: Path) -> None:
    """Files that users, editors and notebooks leave beside checkpoints."""
    for name in NOT_OURS:
        (folder / name).write_bytes(b"mine")
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / "step-77777777.safetensors").mkdir()


def test_only_exact_names_count_and_in_the_order_of_numbers(tmp_path: Path) -> None:
    with_foreign_files(tmp_path)
    for step in OURS[:KEEP]:
        checkpoint.save(tmp_path, make(step))
    assert checkpoint_search.find(tmp_path, refuse_to_talk)[1].counters["step"] == 100_000_000
    for step in sorted(OURS):
        checkpoint.save(tmp_path, make(step))
        assert checkpoint_search.find(tmp_path, refuse_to_talk)[1].counters["step"] == max(step, 100_000_000)
    assert [path.name for path in checkpoint.newest_first(tmp_path)] == [
        *("step-1000000000000.safetensors", "step-100000000.safetensors", "step-99999999.safetensors")
    ]
    checkpoint.drop_later(tmp_path / "step-99999999.safetensors")
    assert [path.name for path in checkpoint.newest_first(tmp_path)] == ["step-99999999.safetensors"]
    assert {name for name in NOT_OURS if (tmp_path / name).read_bytes() == b"mine"} == set(NOT_OURS)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {
        ".ipynb_checkpoints",
        "step-77777777.safetensors",
    }


@pytest.mark.parametrize("refusal", [PermissionError(1, "Operation not permitted"), NotImplementedError(), OSError(38)])
def test_a_file_system_without_links_holds_checkpoints_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Exception
) -> None:
    def no_links(*_: object) -> None:
        raise refusal

    monkeypatch.setattr(Path, "symlink_to", no_links)
    for step in (1, 2):
        checkpoint.save(tmp_path, make(step))
    assert (tmp_path / "latest").read_text() == "step-00000002.safetensors\n"
    assert_same(checkpoint_search.find(tmp_path / "latest", refuse_to_talk)[1], make(2))
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


def test_latest_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "latest").mkdir()
    path = checkpoint.save(tmp_path, make())
    assert checkpoint_search.find(tmp_path / "latest", refuse_to_talk)[0] == path.resolve()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["latest", path.name]


@pytest.mark.parametrize("spoil", ["missing", "dangling", "of an earlier one"])
def test_latest_is_no_truth(tmp_path: Path, spoil: str) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path, make(step))
    (tmp_path / "latest").unlink()
    if spoil != "missing":
        (tmp_path / "latest").symlink_to("gone" if spoil == "dangling" else "step-00000001.safetensors")
    assert_same(checkpoint_search.find(tmp_path / "latest", refuse_to_talk)[1], make(2))


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_write_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    checkpoint.save(tmp_path, make(1))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os if failing == "fsync" else Path, failing, fail)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(tmp_path, make(2))
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_write_over_an_existing_one_that_fails_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = checkpoint.save(tmp_path, make(1))
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    changed = Checkpoint({"params.other": np.ones(3, np.float32)}, {"step": 1}, {}, {})
    with pytest.raises(OSError, match="Input/output"):
        checkpoint.save(tmp_path, changed)
    assert path.read_bytes() == before


def changed(saved: Checkpoint, **tables: Any) -> Checkpoint:
    """The same with other values in its tables, or other arrays; None: without them."""
    merged = {
        name: {key: value for key, value in {**getattr(saved, name), **table}.items() if value is not None}
        for name, table in tables.items()
    }
    return replace(saved, **merged)


USELESS: dict[str, tuple[dict[str, Any], str]] = {
    "one weight": ({"arrays": {"params.dense1.weight": np.zeros((1, 1))}}, r"dense1\.weight is float64 \(1, 1\)"),
    "other type": ({"arrays": {"params.dense1.bias": np.zeros(3, np.int32)}}, r"dense1\.bias is int32"),
    "a tensor more": ({"arrays": {"params.dense9.bias": np.zeros(3, np.float32)}}, "an array 'params.dense9.bias'"),
    "a tensor less": ({"arrays": {"params.dense1.bias": None}}, "no array 'params.dense1.bias'"),
    "other widths": ({"config": {"hidden": [4]}}, r"dense1\.weight is float32 \(4, 3\)"),
    "too many widths": ({"config": {"hidden": [3] * 5000}}, "hidden is"),
    "a width too large": ({"config": {"hidden": [10**9]}}, "each width must be"),
    "unknown option": ({"config": {"zzz": 1}}, "zzz"),
    "other images": ({"facts": {"image_shape": [3, 3]}}, r"dense1\.weight is float32 \(4, 3\)"),
    "no images": ({"facts": {"image_shape": [0, 2]}}, "image_shape is"),
    "no shape": ({"facts": {"image_shape": None}}, "does not tell image_shape"),
    "no ranks": ({"facts": {"world_size": 0}}, "world_size is 0"),
    "many ranks": ({"facts": {"world_size": 10**9}}, "world_size is"),
    "true ranks": ({"facts": {"world_size": True}}, "world_size is True"),
    "unknown fact": ({"facts": {"weather": "fine"}}, "no fact 'weather'"),
    "escape sequences": ({"facts": {"data_sha256": "\x1b[2J"}}, "data_sha256 is"),
    "unknown counter": ({"counters": {"hops": 1}}, "no counter 'hops'"),
    "step of text": ({"counters": {"updates": "x"}}, "the counter updates is 'x'"),
    "negative step": ({"counters": {"samples": -1}}, "the counter samples is -1"),
    "a huge step": ({"counters": {"samples": 10**30}}, "the counter samples is 1000"),
}


@pytest.mark.parametrize("name", USELESS)
def test_a_checkpoint_that_is_whole_but_makes_no_sense_is_refused(tmp_path: Path, name: str) -> None:
    tables, wanted = USELESS[name]
    checkpoint.save(tmp_path, make(1))
    path = checkpoint.save(tmp_path, changed(make(2), **tables))
    assert checkpoint.load(path).counters["step"] == 2
    with pytest.raises(DamagedError, match=wanted) as caught:
        checkpoint_search.find(path, refuse_to_talk)
    assert str(caught.value).isprintable()
    said: list[str] = []
    assert_same(checkpoint_search.find(tmp_path, said.append)[1], make(1))
    assert [line.startswith(f"passed over: {path}: not a checkpoint that") for line in said] == [True]


@pytest.mark.parametrize("name", USELESS)
def test_a_checkpoint_of_another_version_is_refused_by_its_version(tmp_path: Path, name: str) -> None:
    tables = USELESS[name][0]
    tables = tables | {"facts": {"version": "9.9.9"} | tables.get("facts", {})}
    checkpoint.save(tmp_path, make(1))
    checkpoint.save(tmp_path, changed(make(2), **tables))
    with pytest.raises(InputError, match=r"written by ddpgd 9\.9\.9, which is not .*; use that version"):
        checkpoint_search.find(tmp_path, refuse_to_talk)


def test_a_checkpoint_of_another_version_that_makes_sense_is_used(tmp_path: Path) -> None:
    older = changed(make(), facts={"version": "0.0.1"}, counters={"epoch_loss_sum": None})
    checkpoint.save(tmp_path, older)
    assert_same(checkpoint_search.find(tmp_path, refuse_to_talk)[1], older)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_params_that_are_not_finite_are_said(tmp_path: Path, value: float) -> None:
    saved = make()
    saved.arrays["params.dense2.weight"][1, 1] = value
    checkpoint.save(tmp_path, saved)
    said: list[str] = []
    checkpoint_search.find(tmp_path, said.append)
    assert [line.partition(": ")[2] for line in said] == [
        "holds NaN or infinity, first in dense2.weight: the run had diverged"
    ]


def test_another_step_than_the_name_says_is_passed_over(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, make(1))
    shutil.copy(path, tmp_path / "step-00000009.safetensors")
    said: list[str] = []
    assert checkpoint_search.find(tmp_path, said.append)[0] == path.resolve()
    assert "named after another step" in said[0]


def written(path: Path, arrays: dict[str, Any], tables: str) -> None:
    """A file with a right hash, whatever is in it."""
    metadata = {"ddpgd": tables, "sha256": safetensors_file.sha256(arrays, tables)}
    path.write_bytes(b"".join(safetensors_file.content(arrays, metadata)))


@pytest.mark.parametrize(
    "tables", ["", "[]", "{}", "null", '{"counters": 1, "config": {}, "facts": {}}', "[" * 100_000]
)
def test_tables_of_another_form_are_refused(tmp_path: Path, tables: str) -> None:
    path = tmp_path / "step-00000007.safetensors"
    written(path, make().arrays, tables)
    with pytest.raises(DamagedError, match="choose another one"):
        checkpoint.load(path)


def refusals(path: Path, files: Iterator[None]) -> list[str]:
    """Messages about those files, one after the other at `path`, that are refused."""
    found = []
    for _ in files:
        try:
            checkpoint_search.find(path, lambda _line: None)
        except InputError as error:
            found.append(str(error))
    return found


def test_mutated_tables_with_a_right_hash_are_used_or_refused_in_a_line(tmp_path: Path) -> None:
    path, saved, choose = tmp_path / "mutated.safetensors", make(), random.Random(0)
    tables = {"counters": dict(saved.counters), "config": dict(saved.config), "facts": dict(saved.facts)}

    def files() -> Iterator[None]:
        for number in range(1500):
            text = json.dumps(mutated_table(tables, choose))
            if number % 3 == 0:
                text = mutated(text.encode(), choose).decode(errors="replace")
            written(path, saved.arrays, text)
            yield

    found = refusals(path, files())
    assert 750 < len(found) < 1500
    assert all(line.isprintable() and len(line) < 1100 for line in found)


def test_mutated_arrays_with_a_right_hash_are_used_or_refused_in_a_line(tmp_path: Path) -> None:
    path, saved, choose = tmp_path / "mutated.safetensors", make(), random.Random(0)
    tables = json.dumps({"counters": saved.counters, "config": saved.config, "facts": saved.facts})
    odd = [np.zeros((), np.float32), np.zeros((0,), np.float32), np.zeros((1, 1)), np.zeros((4, 3), np.uint8)]

    def files() -> Iterator[None]:
        for _ in range(500):
            arrays = dict(saved.arrays)
            name = choose.choice([*arrays, "params.zzz", "\x1b[2J", "zzz"])
            arrays[name] = choose.choice(odd)
            written(path, arrays, tables)
            yield

    found = refusals(path, files())
    assert 200 < len(found) < 500
    assert all(line.isprintable() and len(line) < 1100 for line in found)


def test_mutated_bytes_are_refused_in_a_line(tmp_path: Path) -> None:
    path, choose = tmp_path / "mutated.safetensors", random.Random(0)
    whole = checkpoint.save(tmp_path, make()).read_bytes()

    def files() -> Iterator[None]:
        for _ in range(1000):
            path.write_bytes(mutated(whole, choose))
            yield

    found = refusals(path, files())
    assert len(found) > 950
    assert all(line.isprintable() and len(line) < 1100 for line in found)


def test_types_of_other_programs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    for name in ("BF16", "F8_E4M3", "BOOL", "U64", "C64"):
        header = json.dumps({"a": {"dtype": name, "shape": [0], "data_offsets": [0, 0]}}).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header)
        with pytest.raises(DamagedError):
            checkpoint.load(path)


def test_content_is_what_the_library_reads_and_comes_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors_file, "PIECE_BYTES", 20)
    saved = make()
    arrays = saved.arrays | {"a scalar": np.array(5, np.int64), "empty": np.zeros((0, 3)), "byte": np.ones(3, np.uint8)}
    pieces = list(safetensors_file.content(arrays, {"ddpgd": "{}"}))
    assert max(map(len, pieces[1:])) == 20
    (tmp_path / "file").write_bytes(b"".join(pieces))
    read = load_file(tmp_path / "file")
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (read[name].dtype, read[name].shape, read[name].tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_a_run_that_goes_on_from_an_earlier_one_leaves_the_later_behind(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        checkpoint.save(tmp_path, make(step))
    checkpoint.drop_later(tmp_path / "step-00000020.safetensors")
    path, found = checkpoint_search.find(tmp_path, refuse_to_talk)
    assert path.name == "step-00000020.safetensors"
    assert_same(found, make(20))
    assert sorted(path.name for path in tmp_path.glob("*step*")) == ["step-00000010.safetensors", path.name]


def validated(step: int, best: int) -> Checkpoint:
    saved = make(step)
    return replace(saved, counters={**saved.counters, "validated_at": step, "tested_at": best})


def test_the_best_is_kept_as_long_as_a_kept_one_refers_to_it(tmp_path: Path) -> None:
    """A run may go on from any of the newest: what was best then must be there."""
    bests = {1: 1, 2: 2, 3: 2, 4: 2, 5: 2, 6: 6, 7: 6, 8: 6, 9: 6, 10: 6}
    for step, best in bests.items():
        checkpoint.save(tmp_path, validated(step, best))
        names = {path.name for path in tmp_path.iterdir()} - {"latest", "best"}
        newest = range(max(1, step - KEEP + 1), step + 1)
        wanted = {*newest, *(bests[kept] for kept in newest)}
        assert names == {f"step-{number:08d}.safetensors" for number in wanted}
        assert os.readlink(tmp_path / "best") == f"step-{best:08d}.safetensors"


def test_the_best_that_is_lost_is_said_and_the_newest_taken(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for step in range(1, 6):
        path = checkpoint.save(tmp_path / "checkpoints", validated(step, min(step, 2)))
    best = checkpoint.path_of(path.parent, 2)
    best.write_bytes(best.read_bytes()[:-9])
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("ddpgd.run.checkpoint_schema.find_problem", lambda *_: "")
        assert checkpoint_search.find_best(tmp_path, said.append)[0] == path.resolve()
        assert "taking the newest checkpoint, after step 5" in said[0]
        assert checkpoint_search.find_best(path, refuse_to_talk)[0] == path.resolve()
