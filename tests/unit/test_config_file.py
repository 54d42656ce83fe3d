"""Configuration files that anybody may have written are used, or refused in one short line."""

import random
from pathlib import Path

import pytest
import tomli_w

from ddpgd.config.schema import Config, from_table, to_table
from ddpgd.config.toml_file import read_toml
from ddpgd.config.validation import validate
from ddpgd.errors import InputError
from mutations import mutated, mutated_table


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"steps = 1" + b"0" * 5000, "not TOML"),
        (b"steps = 0x1" + b"0" * 5000, "steps: a value of type int that is too large to show is not a whole number"),
        (b"hidden = " + b"[" * 100_000, "not TOML: nested too deeply"),
        (b'run_dir = "a\\u0000b"', "run_dir: 'a\\x00b' holds a NUL character"),
        (b'data = "\\u0000"', "NUL"),
        (b'"\\u001b[2J" = 1', "there is no option '\\x1b[2J'"),
        (b'optimizer = "' + b"x" * 5000 + b'"', "is not known"),
        (b'"' + b"x" * 5000 + b'" = 1', "there is no option"),
        (b"lr = " + b"9" * 400, "lr: 999"),
        (b"\xff\xfe", "not TOML"),
        (b"# " + b"x" * 2_000_000, "longer than"),
        (b"lr = nan", "not a finite number"),
    ],
)
def test_one_short_line(tmp_path: Path, content: bytes, wanted: str) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_toml(str(path))
    line = str(caught.value)
    assert wanted in line
    assert line.isprintable()
    assert len(line) < 400 + len(str(path))


def test_a_path_with_nul_is_refused() -> None:
    with pytest.raises(InputError, match="not TOML"):
        read_toml("a\0b")


def test_mutated_files_are_used_or_refused_in_a_line(tmp_path: Path) -> None:
    path, table, choose = tmp_path / "config.toml", to_table(Config(epochs=3, data="synthetic")), random.Random(0)
    whole, refusals = tomli_w.dumps(table).encode(), []
    for number in range(2000):
        path.write_bytes(mutated(whole, choose))
        try:
            if number % 2:
                changed = mutated_table(table, choose)
                validate(from_table(changed if isinstance(changed, dict) else table))
            else:
                validate(Config(**read_toml(str(path))))
        except InputError as error:
            refusals.append(str(error))
    assert 500 < len(refusals) < 2000
    assert all(line.isprintable() and len(line) < 1100 for line in refusals)
