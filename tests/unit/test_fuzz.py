"""The tool that hands damaged files to readers: its inputs can be repeated, and it tells what a reader does wrong."""

from contextlib import nullcontext, suppress
from pathlib import Path
from random import Random

import pytest

from ddpgd.errors import InputError
from ddpgd.run import strict_json
from tools import fuzz
from tools.fuzz import Reader, damaged, try_reader

SEEDS = [b'{"steps": 12}', b'{"lr": 0.5}']


def test_an_input_depends_on_its_number_alone() -> None:
    several = [damaged(Random(f"0/{number}"), SEEDS) for number in range(200)]
    assert several == [damaged(Random(f"0/{number}"), SEEDS) for number in range(200)]
    assert len(set(several)) > 100


def test_what_a_reader_raises_is_told_once_for_each_place(tmp_path: Path) -> None:
    def read(path: Path) -> None:
        if b"-1" in path.read_bytes():
            raise InputError("refused")
        if b"9999" in path.read_bytes():
            raise KeyError("planted")

    result = try_reader("planted", Reader(read, "f", SEEDS, (strict_json,)), 2000, 10, 0, tmp_path / "kept")
    assert result.num_inputs == 2000
    assert 0 < result.num_refused < 2000
    [line] = result.found
    assert "KeyError" in line
    [kept] = (tmp_path / "kept").iterdir()
    assert b"9999" in kept.read_bytes()
    assert "| planted | 2,000 |" in fuzz.row(result)


def test_every_reader_takes_its_seeds_and_survives_some_hundred_inputs(tmp_path: Path) -> None:
    for name, reader in fuzz.readers(tmp_path / "run").items():
        folder = tmp_path / name / "run" / "record" if name == "recording" else tmp_path / name
        path = folder / reader.name
        path.parent.mkdir(parents=True)
        for seed in reader.seeds:
            path.write_bytes(seed)
            # Some seeds are pictures of noise, and a wrong value.
            with suppress(InputError) if name in ("picture", "configuration") else nullcontext():
                reader.read(path)
        result = try_reader(name, reader, 300, 50, 0, None)
        assert result.found == []
        assert result.lines[0] > 0


def test_an_unknown_reader_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz.main(["no such"]) == 2
    assert "readers are idx images" in capsys.readouterr().err
