"""`ddpgd report`: the results of a run as one page, or several runs compared."""

from argparse import ArgumentParser
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddpgd.config.parsing import path
from ddpgd.errors import InputError
from ddpgd.results.pages import comparison, run_page
from ddpgd.results.result import read_result
from ddpgd.run.atomic import write_atomically
from ddpgd.run.page import MARK
from ddpgd.run.plots import AXES

WORK_OPTIONS = ()
"""Options of the configuration that are flags of `report`."""


def add_flags(parser: ArgumentParser) -> None:
    """Adds the flags of `ddpgd report`."""
    add = parser.add_argument
    add("runs", metavar="RUN", nargs="+", type=path, help="a run folder; several are compared on one page")
    add("--out", metavar="FILE", type=path, help="the page (default: RUN/report.html; of several runs: report.html)")
    add("--data", type=path, help="folder with MNIST's IDX files, or 'synthetic' (default: the data of the run)")
    add("--against", choices=tuple(AXES), default="step", help="the horizontal axis of curves (default: step)")


def write_report(parsed: Mapping[str, Any]) -> Path:
    """Writes the page that the flags ask for, whole or not at all; returns its path.

    Raises:
        InputError: A folder is no run, its records are damaged, or the file is there and no page of ddpgd.
    """
    folders = [Path(run) for run in dict.fromkeys(parsed["runs"])]
    is_alone = len(folders) == 1
    out = Path(parsed.get("out") or (folders[0] / "report.html" if is_alone else "report.html"))
    check_replaceable(out)
    results = [read_result(folder, with_checkpoint=is_alone) for folder in folders]
    against = parsed["against"]
    page = run_page(results[0], parsed.get("data"), against) if is_alone else comparison(results, against)
    write_page(out, page)
    return out


def check_replaceable(out: Path) -> None:
    """Raises InputError if a file is there that is not a page of ddpgd, or it cannot be written."""
    try:
        if not out.exists():
            if not out.parent.is_dir():
                raise InputError(f"--out {out}: there is no folder {out.parent}; make it, or name another file")
            return
        with out.open("rb") as file:
            is_ours = MARK.encode() in file.read(1000)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"--out {out}: cannot be written: {why}; name another file") from None
    if not is_ours:
        raise InputError(f"--out {out}: is there already, and not a page of ddpgd; name another file, or remove it")


def write_page(out: Path, page: str) -> None:
    """Writes a page. Raises InputError if that fails."""
    try:
        write_atomically(out, [page.encode()])
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written: {error.strerror}; name another file") from None
