"""The walk of a gradient in ARCHITECTURE.md: a real step passes through the files that it names, and no others."""

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType

import pytest

import ddpgd
from ddpgd.comm.transport import Transport
from ddpgd.comm.transports import threads
from ddpgd.config.schema import Config, resolve
from ddpgd.kernels.reference.backend import Reference
from ddpgd.run import build
from runs import digits

PACKAGE = Path(ddpgd.__file__).parent
PAGE = PACKAGE.parent / "ARCHITECTURE.md"
MOST_FILES, MOST_LINES = 7, 900


@pytest.fixture(scope="module")
def called() -> set[CodeType]:
    """The package's functions that one rank of two runs in a step; plans were made in the step before."""
    config = resolve(Config(data="synthetic", hidden=(16,), global_batch=64, micro_batch=16), 2)

    def work(transport: Transport) -> set[CodeType]:
        step = build.sync(Reference(), config, digits(), build.grid(config, transport), 10)
        step.run(0, 1, False, False)
        found = set()

        def notice(frame: FrameType, event: str, _argument: object) -> None:
            if event == "call" and PACKAGE in Path(frame.f_code.co_filename).parents:
                found.add(frame.f_code)

        sys.setprofile(notice)
        step.run(1, 1, False, False)
        sys.setprofile(None)
        return found

    return threads.run(2, work)[0]


def section() -> str:
    return PAGE.read_text(encoding="utf-8").partition("## The walk")[2].partition("\n## ")[0]


def named(text: str) -> Iterator[str]:
    return (match[1] for match in re.finditer(r"`(\w+/[\w/]+(?:\.py|/))`", text))


def test_the_files_of_the_walk_are_those_of_a_step(called: set[CodeType]) -> None:
    table, _, services = section().partition("On the way these serve")
    walked = [next(named(line)) for line in table.splitlines() if line.startswith("| `")]
    files = {str(Path(code.co_filename).relative_to(PACKAGE)) for code in called}
    serving = set(named(services))
    assert len(walked) <= MOST_FILES
    assert set(walked) <= files
    strangers = {file for file in files - set(walked) if not any(file.startswith(one) for one in serving)}
    assert not strangers, "neither in the walk nor among what serves it"


def test_the_walk_is_short(called: set[CodeType]) -> None:
    assert sum(len(inspect.getsourcelines(code)[0]) for code in called) <= MOST_LINES
