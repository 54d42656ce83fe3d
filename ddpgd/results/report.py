"""`ddpgd report`: the results of a run as one page, or several runs compared."""

import os
from argparse import ArgumentParser
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddpgd.config.parsing import path
from ddpgd.errors import InputError
from ddpgd.results.pages import comparison, run_page
from ddpgd.results.result import read_result
from ddpgd.run.atomic import write_text
from ddpgd.run.output_files import OutputFile, check_files
from ddpgd.run.page import MARK
from ddpgd.run.panels import AXES

WORK_OPTIONS = ()
"""Options of the configuration that are flags of `report`."""


def add_flags(parser: ArgumentParser) -> None:
    """Adds the flags of `ddpgd report`."""
    add = parser.add_argument
    add("runs", metavar="RUN", nargs="+", type=path, help="a run folder; several are compared on one page")
    add("--out", metavar="FILE", type=path, help="the page (default: RUN/report.html; of several runs: report.html)")
    add("--data", type=path, help="folder with MNIST's IDX files, or 'synthetic' (default: the data of the run)")
    add("--against", choices=tuple(AXES), default="step", help="the horizontal axis of curves (default: step)")


def lines(parsed: Mapping[str, Any]) -> list[str]:
    """Writes the page that the flags ask for, whole or not at all; returns its path, as what to print.

    Raises:
        InputError: A folder is no run, its records are damaged, or the file is there and no page of ddpgd.
    """
    folders = list({os.path.realpath(run): Path(run) for run in parsed["runs"]}.values())
    is_alone = len(folders) == 1
    if not is_alone and "data" in parsed:
        raise InputError("--data is for the page of one run, which shows its mistakes; drop it, or name one run")
    out = Path(parsed.get("out") or (folders[0] / "report.html" if is_alone else "report.html"))
    results = [read_result(folder, with_checkpoint=is_alone) for folder in folders]
    check_files([OutputFile("--out", out, "a page of ddpgd", MARK, (".html", ".htm"))])
    against = parsed["against"]
    page = run_page(results[0], parsed.get("data"), against) if is_alone else comparison(results, against)
    write_text(out, "--out", page)
    return [str(out)]
