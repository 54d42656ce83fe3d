"""The tests' compiled files are kept: made once, whole, and removed when nothing has used it for long."""

import os
import threading
import time
from pathlib import Path

import pytest

import compile_cache


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DDPGD_TEST_CACHE", str(tmp_path))
    return tmp_path


def test_the_folder_is_the_one_given_or_the_users(monkeypatch: pytest.MonkeyPatch, own_folder: Path) -> None:
    assert compile_cache.folder() == own_folder
    monkeypatch.delenv("DDPGD_TEST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert compile_cache.folder() == Path("/somewhere/ddpgd-tests")


def test_names_tell_parts_apart() -> None:
    names = {compile_cache.digest(*parts) for parts in (("ab", "c"), ("a", "bc"), ("abc",), (b"abc", ""))}
    assert len(names) == 4


def test_of_two_that_want_a_file_one_makes_it(own_folder: Path) -> None:
    target, made = own_folder / "unit.so", []

    def want() -> None:
        with compile_cache.one_at_a_time(target):
            if not compile_cache.used(target):
                made.append(1)
                time.sleep(0.01)
                target.write_text("made")

    both = [threading.Thread(target=want) for _ in range(4)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert made == [1]


def test_what_is_not_used_goes(own_folder: Path) -> None:
    for name in ("old.so", "new.so"):
        (own_folder / name).write_text("")
    later = time.time() + compile_cache.KEPT_S + 10
    os.utime(own_folder / "new.so", (later, later))
    compile_cache.remove_unused(now=later)
    assert [path.name for path in own_folder.iterdir()] == ["new.so"]
